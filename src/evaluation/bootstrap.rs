//! Percentile bootstrap over users.

use rayon::prelude::*;

use crate::random::split_mix;

/// How often each user was drawn, a resample a row.
pub(super) struct Resamples {
    counts: Vec<Vec<u16>>,
}

/// Draws users with replacement, as many as there are; every resample has its own seeded stream, so
/// that the result does not depend on threads.
pub(super) fn resamples(n_users: usize, n_resamples: usize, seed: u64) -> Resamples {
    let draw = |resample: usize| {
        let mut counts = vec![0u16; n_users];
        let mut state = split_mix(seed ^ split_mix(resample as u64));
        for _ in 0..n_users {
            state = split_mix(state);
            let user = (u128::from(state) * n_users as u128) >> 64;
            counts[user as usize] = counts[user as usize].saturating_add(1);
        }
        counts
    };
    Resamples { counts: (0..n_resamples).into_par_iter().map(draw).collect() }
}

/// The 2.5th and 97.5th percentile of a mean: of each user that has any, a sum and how much it is the sum of.
pub(super) fn interval(values: &[Option<(f64, f64)>], resamples: &Resamples) -> (f64, f64) {
    let present: Vec<(usize, f64, f64)> = values
        .iter()
        .enumerate()
        .filter_map(|(user, value)| value.map(|(sum, of)| (user, sum, of)))
        .collect();
    let mean_of = |counts: &Vec<u16>| {
        let (mut total, mut n) = (0.0, 0.0);
        for (user, sum, of) in &present {
            let count = f64::from(counts[*user]);
            total += sum * count;
            n += of * count;
        }
        (n > 0.0).then(|| total / n)
    };
    let mut means: Vec<f64> = resamples.counts.par_iter().filter_map(mean_of).collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means.get(((means.len() as f64 - 1.0) * share).round() as usize).copied();
    (at(0.025).unwrap_or(f64::NAN), at(0.975).unwrap_or(f64::NAN))
}
