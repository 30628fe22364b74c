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

/// The 2.5th and 97.5th percentile of each of several means: of each user that has any, sums and how much
/// they are the sums of.
pub(super) fn intervals<const N: usize>(
    values: &[Option<([f64; N], f64)>],
    resamples: &Resamples,
) -> [(f64, f64); N] {
    let present: Vec<(usize, [f64; N], f64)> = values
        .iter()
        .enumerate()
        .filter_map(|(user, value)| value.map(|(sums, of)| (user, sums, of)))
        .collect();
    let means_of = |counts: &Vec<u16>| {
        let (mut totals, mut n) = ([0.0; N], 0.0);
        for (user, sums, of) in &present {
            let count = f64::from(counts[*user]);
            totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum * count);
            n += of * count;
        }
        (n > 0.0).then(|| totals.map(|total| total / n))
    };
    let means: Vec<[f64; N]> = resamples.counts.par_iter().filter_map(means_of).collect();
    std::array::from_fn(|which| {
        let mut means: Vec<f64> = means.iter().map(|means| means[which]).collect();
        means.sort_by(f64::total_cmp);
        let at = |share: f64| means.get(((means.len() as f64 - 1.0) * share).round() as usize).copied();
        (at(0.025).unwrap_or(f64::NAN), at(0.975).unwrap_or(f64::NAN))
    })
}
