//! What each user did with each item before some moment.

use std::ops::Range;

use rayon::prelude::*;

use crate::matrix::Csr;

use super::Visits;

/// What a user did with an item.
pub(super) struct Pair {
    pub(super) item: u32,
    /// Visits with the item.
    pub(super) n_visits: u64,
    /// Visits after the first with the item.
    pub(super) n_chances: u64,
    /// Visits after the last with the item.
    pub(super) n_since: u64,
    pub(super) last_time: i64,
}

/// All pairs before a moment.
pub(super) struct Known {
    /// By user, ascending by item.
    pub(super) users: Vec<Vec<Pair>>,
    /// The moment, in microseconds.
    pub(super) until: i64,
}

impl Known {
    pub(super) fn before(interactions: &Csr, visits: &Visits, until: i64) -> Self {
        let of_user =
            |user: usize| pairs(interactions.row(user).0, visits, rows(visits, user), i64::MIN..until);
        Self { users: (0..interactions.n_rows()).into_par_iter().map(of_user).collect(), until }
    }

    pub(super) fn n_pairs(&self) -> usize {
        self.users.iter().map(Vec::len).sum()
    }

    /// Users × items with a score for every pair.
    pub(super) fn scores(&self, n_items: usize, score: impl Fn(&Pair) -> f32 + Sync) -> Csr {
        let of_user = |pairs: &Vec<Pair>| pairs.iter().map(|pair| (pair.item, score(pair))).collect();
        Csr::from_rows(n_items, self.users.par_iter().map(of_user).collect())
    }
}

/// The items among `known`, ascending, that a user took in a span of time.
pub(super) fn taken(known: &[u32], visits: &Visits, user: usize, span: Range<i64>) -> Vec<u32> {
    let inside = rows(visits, user).filter(|row| span.contains(&visits.times[*row]));
    let mut items: Vec<u32> = inside.map(|row| visits.items[row]).collect();
    items.retain(|item| known.binary_search(item).is_ok());
    items.sort_unstable();
    items.dedup();
    items
}

/// A user's rows.
fn rows(visits: &Visits, user: usize) -> Range<usize> {
    let first = visits.users.partition_point(|other| (*other as usize) < user);
    let end = visits.users.partition_point(|other| (*other as usize) <= user);
    first..end
}

/// A user's pairs, by item. `known` are the items that count, ascending.
fn pairs(known: &[u32], visits: &Visits, rows: Range<usize>, span: Range<i64>) -> Vec<Pair> {
    let counts =
        |row: &usize| span.contains(&visits.times[*row]) && known.binary_search(&visits.items[*row]).is_ok();
    let kept: Vec<usize> = rows.filter(counts).collect();
    // A visit begins with its first item; of visits that begin together the smaller number comes first.
    let mut begun: Vec<(u32, i64)> =
        kept.iter().map(|row| (visits.visits[*row], visits.times[*row])).collect();
    begun.sort_unstable();
    begun.dedup_by_key(|visit| visit.0);
    let mut order: Vec<(i64, u32)> = begun.into_iter().map(|(visit, time)| (time, visit)).collect();
    order.sort_unstable();
    let mut place: Vec<(u32, u64)> = order.iter().zip(0..).map(|((_, visit), at)| (*visit, at)).collect();
    place.sort_unstable();
    let n_visits = place.len() as u64;

    let mut taken: Vec<(u32, u64, i64)> = Vec::with_capacity(kept.len());
    for row in kept {
        if let Ok(at) = place.binary_search_by_key(&visits.visits[row], |visit| visit.0) {
            taken.push((visits.items[row], place[at].1, visits.times[row]));
        }
    }
    taken.sort_unstable();
    taken.dedup_by_key(|(item, visit, _)| (*item, *visit));
    taken
        .chunk_by(|a, b| a.0 == b.0)
        .map(|of_item| Pair {
            item: of_item[0].0,
            n_visits: of_item.len() as u64,
            n_chances: n_visits - 1 - of_item[0].1,
            n_since: n_visits - 1 - of_item[of_item.len() - 1].1,
            last_time: of_item.iter().map(|taken| taken.2).max().unwrap_or(0),
        })
        .collect()
}
