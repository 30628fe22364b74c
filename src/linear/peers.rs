//! User-kNN: which users turned to what a user turned to.
//!
//! `sim(u, v) = Σ_i d_i^-½ / |v|^½` over the items `i` that both turned to, `d_i` the item's users and `|v|`
//! the other's items: a cosine of rows whose frequent items count for less (Breese, Heckerman and Kadie,
//! "Empirical analysis of predictive algorithms for collaborative filtering", 1998). Of each user's
//! neighbours the nearest are kept, and count by the square of their similarity against the nearest's.

use crate::matrix::Csr;

use super::counts::shared;
use super::{Config, MOST_PAIRS};

/// How much nearer neighbours count for more.
const SHARPNESS: i32 = 2;
/// How strongly frequent items are held back in what neighbours turned to.
const POPULARITY: f64 = 0.1;

/// Users × users, and users × items with what a neighbour's item counts for.
pub(super) fn fit(by_user: &Csr, by_item: &Csr, config: &Config) -> (Csr, Csr) {
    let (n_users, n_items) = (by_user.n_rows(), by_user.n_cols());
    let most_users = most_users(by_item);
    let per_item = |item: usize| match by_item.row(item).0.len() {
        n if n > most_users => 0.0,
        n => (n as f64).powf(-0.5),
    };
    let length = |user: usize| (by_user.row(user).0.len() as f64).sqrt();
    let similarity = |_, other, shared| shared / length(other);
    let neighbours = shared(by_item, by_user, config.peers, per_item, similarity).map_rows(|row| {
        let nearest = row.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        row.iter_mut().for_each(|value| *value = (*value / nearest).powi(SHARPNESS));
    });
    let counts = |item: &u32| (by_item.row(*item as usize).0.len() as f64).powf(-POPULARITY) as f32;
    let items =
        (0..n_users).map(|user| by_user.row(user).0.iter().map(|item| (*item, counts(item))).collect());
    (neighbours, Csr::from_rows(n_items, items.collect()))
}

/// The most users that an item may have to be looked at: of items with as many, all or none.
fn most_users(by_item: &Csr) -> usize {
    let mut counts: Vec<usize> = (0..by_item.n_rows()).map(|item| by_item.row(item).0.len()).collect();
    counts.sort_unstable();
    let mut pairs = 0.0;
    let alike = counts.chunk_by(|a, b| a == b);
    let fits = |alike: &&[usize]| {
        pairs += alike.iter().map(|n| (*n as f64).powi(2)).sum::<f64>();
        pairs <= MOST_PAIRS
    };
    alike.take_while(fits).last().map_or(0, |alike| alike[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_as_many_users_are_looked_at_all_or_none() {
        // Five items of 30,000 users are 4.5 thousand million pairs, more than the most.
        let rows = |n: usize, users: u32| vec![(0..users).map(|user| (user, 1.0)).collect::<Vec<_>>(); n];
        let by_item = Csr::from_rows(30_000, [rows(5, 30_000), rows(3, 20)].concat());
        assert_eq!(most_users(&by_item), 20);
        let by_item = Csr::from_rows(30_000, [rows(4, 30_000), rows(3, 20)].concat());
        assert_eq!(most_users(&by_item), 30_000);
    }
}
