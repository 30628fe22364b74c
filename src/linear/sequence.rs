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

pub(super) fn fit(by_user: &Csr, steps: &[u32], config: &Config) -> Csr {
    let n_items = by_user.n_cols();
    let mut followers: Vec<Vec<(u32, f64)>> = vec![Vec::new(); n_items];
    for user in 0..by_user.n_rows() {
        let first = by_user.offset(user);
        let (items, _) = by_user.row(user);
        let mut order: Vec<(u32, u32)> =
            items.iter().enumerate().map(|(at, item)| (steps[first + at], *item)).collect();
        order.sort_unstable();
        for (at, (step, item)) in order.iter().enumerate() {
            for (later, next) in &order[at + 1..] {
                let gap = (later - step) as usize;
                if gap > config.sequence_steps {
                    break;
                }
                if gap > 0 {
                    let counts = 0.5f64.powi(gap as i32 - 1);
                    followers[*item as usize].push((*next, counts));
                    followers[*next as usize].push((*item, BACKWARDS * counts));
                }
            }
        }
    }
    // Rows are sorted before they are summed, so that a sum's order is the row's and nothing else's.
    followers.par_iter_mut().for_each(|row| {
        row.sort_by_key(|entry| entry.0);
        row.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
    });
    let out: Vec<f64> = followers.iter().map(|row| row.iter().map(|entry| entry.1).sum()).collect();
    let mut into = vec![0f64; n_items];
    for (item, counts) in followers.iter().flatten() {
        into[*item as usize] += counts;
    }
    let rows = followers.into_par_iter().enumerate().map(|(item, row)| {
        let normalised = |(next, counts): (u32, f64)| {
            (next, (counts / (out[item].max(1.0) * into[next as usize].max(1.0)).sqrt()) as f32)
        };
        prune(row.into_iter().map(normalised).collect(), config.kept)
    });
    Csr::from_rows(n_items, rows.collect())
}
