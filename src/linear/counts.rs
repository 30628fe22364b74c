//! Models that weigh how many users two items share.

use rayon::prelude::*;

use crate::matrix::Csr;

use super::{Config, prune};

/// How strongly users of many items are held back: with 1 they would say little of any two.
const USER_EXPONENT: f64 = 0.75;

/// `D^-α X' U^-¾ X D^-β` without its diagonal.
pub(super) fn walk(by_user: &Csr, by_item: &Csr, config: &Config) -> Csr {
    let of_users = powers(by_user, -USER_EXPONENT);
    let (from, to) = (powers(by_item, config.walk_alpha), powers(by_item, config.walk_beta));
    shared(
        by_user,
        by_item,
        config.kept,
        |user| of_users[user],
        |item, other, weight| weight / (from[item] * to[other]),
    )
}

/// Of each row its number of entries to a power.
fn powers(rows: &Csr, exponent: f64) -> Vec<f64> {
    (0..rows.n_rows()).map(|row| (rows.row(row).0.len() as f64).powf(exponent)).collect()
}

/// Cosines of items' columns, shrunk by their support, without the diagonal.
pub(super) fn cosine(by_user: &Csr, by_item: &Csr, config: &Config) -> Csr {
    let degree = |item: usize| by_item.row(item).0.len() as f64;
    shared(
        by_user,
        by_item,
        config.kept,
        |_| 1.0,
        |item, other, n_both| n_both / ((degree(item) * degree(other)).sqrt() + config.shrinkage),
    )
}

/// Sums `per_user` over the users that two items share, then scores the pair. A user of weight 0 is left out.
pub(super) fn shared(
    by_user: &Csr,
    by_item: &Csr,
    kept: usize,
    per_user: impl Fn(usize) -> f64 + Sync,
    score: impl Fn(usize, usize, f64) -> f64 + Sync,
) -> Csr {
    let n_items = by_user.n_cols();
    let rows = (0..n_items).into_par_iter().map_init(
        || (vec![0f64; n_items], Vec::<u32>::new(), Vec::new()),
        |(sums, touched, row), item| {
            for user in by_item.row(item).0 {
                let weight = per_user(*user as usize);
                if weight == 0.0 {
                    continue;
                }
                for other in by_user.row(*user as usize).0 {
                    let sum = &mut sums[*other as usize];
                    if *sum == 0.0 {
                        touched.push(*other);
                    }
                    *sum += weight;
                }
            }
            row.clear();
            for other in touched.drain(..) {
                let sum = std::mem::take(&mut sums[other as usize]);
                if other as usize != item {
                    row.push((other, score(item, other as usize, sum) as f32));
                }
            }
            prune(row, kept)
        },
    );
    Csr::from_rows(n_items, rows.collect())
}
