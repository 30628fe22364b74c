//! What follows what in users' histories, a few steps apart.
//!
//! Every pair of a user's items at most `sequence_steps` apart counts `2^-(gap - 1)` forwards and a
//! share of it backwards, since shoppers also fill in what they skipped. Items of one moment (a
//! basket) are no sequence. Both sides are divided by the root of their total, so that what everybody
//! buys does not follow everything.

use rayon::prelude::*;

use crate::matrix::Csr;

use super::{Config, prune};

/// What a step backwards counts for.
const BACKWARDS: f64 = 0.3;

pub(super) fn fit(by_user: &Csr, by_item: &Csr, steps: &[u32], config: &Config) -> Csr {
    let n_items = by_user.n_cols();
    let orders = Orders::new(by_user, steps);
    // What an item is followed by in all, and follows.
    let totals: Vec<(f64, f64)> = (0..n_items)
        .into_par_iter()
        .map(|item| {
            let (mut out, mut into) = (0.0, 0.0);
            orders.around(by_item, item as u32, config.sequence_steps, |_, counts, is_later| {
                out += if is_later { counts } else { BACKWARDS * counts };
                into += if is_later { BACKWARDS * counts } else { counts };
            });
            (out.max(1.0), into.max(1.0))
        })
        .collect();
    let kept = config.kept;
    let rows = (0..n_items).into_par_iter().map_init(
        || (vec![0f64; n_items], Vec::<u32>::new(), Vec::new()),
        |(sums, touched, row), item| {
            orders.around(by_item, item as u32, config.sequence_steps, |other, counts, is_later| {
                let sum = &mut sums[other as usize];
                if *sum == 0.0 {
                    touched.push(other);
                }
                *sum += if is_later { counts } else { BACKWARDS * counts };
            });
            row.clear();
            row.extend(touched.drain(..).map(|other| {
                let sum = std::mem::take(&mut sums[other as usize]);
                (other, (sum / (totals[item].0 * totals[other as usize].1).sqrt()) as f32)
            }));
            prune(row, kept)
        },
    );
    Csr::from_rows(n_items, rows.collect())
}

/// Users' items by step, and of equal steps by item.
struct Orders<'a> {
    by_user: &'a Csr,
    /// As long as the entries of `by_user`, user after user: steps and items in their order.
    ordered: Vec<(u32, u32)>,
    /// Where each entry of `by_user` is among its user's.
    places: Vec<u32>,
}

impl<'a> Orders<'a> {
    fn new(by_user: &'a Csr, steps: &[u32]) -> Self {
        let mut ordered = Vec::with_capacity(by_user.n_entries());
        let mut places = vec![0u32; by_user.n_entries()];
        for user in 0..by_user.n_rows() {
            let first = by_user.offset(user);
            let (items, _) = by_user.row(user);
            let mut order: Vec<u32> = (0..items.len() as u32).collect();
            order.sort_by_key(|at| steps[first + *at as usize]);
            for (place, at) in order.iter().enumerate() {
                places[first + *at as usize] = place as u32;
                ordered.push((steps[first + *at as usize], items[*at as usize]));
            }
        }
        Self { by_user, ordered, places }
    }

    /// Every other item that a user of this one turned to at most `most` steps before or after it, what
    /// that counts, and whether it was after.
    fn around(&self, by_item: &Csr, item: u32, most: usize, mut see: impl FnMut(u32, f64, bool)) {
        for user in by_item.row(item as usize).0 {
            let user = *user as usize;
            let (first, items) = (self.by_user.offset(user), self.by_user.row(user).0);
            let Ok(at) = items.binary_search(&item) else { continue };
            let place = self.places[first + at] as usize;
            let order = &self.ordered[first..first + items.len()];
            let step = order[place].0;
            let near = |entry: &&(u32, u32)| entry.0.abs_diff(step) as usize <= most;
            let later = order[place + 1..].iter().take_while(near).map(|entry| (entry, true));
            let earlier = order[..place].iter().rev().take_while(near).map(|entry| (entry, false));
            for ((other, next), is_later) in later.chain(earlier) {
                let gap = other.abs_diff(step) as i32;
                if gap > 0 {
                    see(*next, 0.5f64.powi(gap - 1), is_later);
                }
            }
        }
    }
}
