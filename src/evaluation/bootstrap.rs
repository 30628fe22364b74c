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

/// The 2.5th and 97.5th percentile of the mean over the users that have a value.
pub(super) fn interval(values: &[Option<f64>], resamples: &Resamples) -> (f64, f64) {
    let mean_of = |counts: &Vec<u16>| {
        let (mut sum, mut n) = (0.0, 0u64);
        for (value, count) in values.iter().zip(counts) {
            if let Some(value) = value {
                sum += value * f64::from(*count);
                n += u64::from(*count);
            }
        }
        (n > 0).then(|| sum / n as f64)
    };
    let mut means: Vec<f64> = resamples.counts.par_iter().filter_map(mean_of).collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means.get(((means.len() as f64 - 1.0) * share).round() as usize).copied();
    (at(0.025).unwrap_or(f64::NAN), at(0.975).unwrap_or(f64::NAN))
}
