//! What lists are like apart from whether they hit.

use rayon::prelude::*;

use super::bootstrap::{self, Resamples};
use super::{Inputs, Row, System};

pub(super) fn rows(inputs: &Inputs, system: &System, k: usize, resamples: &Resamples) -> Vec<Row> {
    let lists: Vec<&[u32]> = system.lists.iter().map(|list| &list[..list.len().min(k)]).collect();
    let mut listed = vec![0u32; inputs.popularity.len()];
    for item in lists.iter().flat_map(|list| list.iter()) {
        listed[*item as usize] += 1;
    }
    let eligible = inputs.eligible.iter().filter(|eligible| **eligible).count();
    let some = listed.iter().filter(|count| **count > 0).count();
    let mut values = vec![
        ("coverage", (eligible > 0).then(|| (some as f64 / eligible as f64, None))),
        ("gini", gini(&listed, inputs.eligible).map(|gini| (gini, None))),
    ];

    let all: u64 = inputs.popularity.iter().map(|count| u64::from(*count)).sum();
    let total = (all + inputs.popularity.len() as u64) as f64;
    let surprise = |item: u32| -((f64::from(inputs.popularity[item as usize]) + 1.0) / total).log2();
    let mean_popularity = all as f64 / inputs.popularity.len().max(1) as f64;
    let lift = |item: u32| f64::from(inputs.popularity[item as usize]) / mean_popularity;
    let of_rows = |(user, list): (&u32, &&[u32])| {
        let (seen, _) = inputs.seen.row(*user as usize);
        let repeats = list.iter().filter(|item| seen.binary_search(item).is_ok()).count();
        let sum = |of: &dyn Fn(u32) -> f64| list.iter().map(|item| of(*item)).sum::<f64>();
        let lift = if all > 0 { sum(&lift) } else { 0.0 };
        (!list.is_empty()).then(|| ([sum(&surprise), lift, repeats as f64], list.len() as f64))
    };
    let of_rows: Vec<_> = inputs.users.iter().zip(&lists).map(of_rows).collect();
    let [novelty, lift, repeat_share] = means(&of_rows, resamples);
    let of_lists: Vec<_> = lists.par_iter().map(|list| Some(([diversity(inputs, list)?], 1.0))).collect();
    let [diversity] = means(&of_lists, resamples);
    values.extend([
        ("novelty", novelty),
        ("diversity", diversity),
        ("popularity_lift", lift.filter(|_| all > 0)),
        ("repeat_share", repeat_share),
    ]);

    values
        .into_iter()
        .filter_map(|(metric, found)| {
            let ((value, interval), users) = (found?, lists.len());
            let (system, slice) = (system.name.clone(), "all".to_owned());
            Some(Row { system, metric, k, slice, value, interval, baseline: None, gain: None, users })
        })
        .collect()
}

/// A mean and its interval, where there is one.
type Mean = Option<(f64, Option<(f64, f64)>)>;

/// Means of what lists have, each by how much it is the sum of.
fn means<const N: usize>(of_lists: &[Option<([f64; N], f64)>], resamples: &Resamples) -> [Mean; N] {
    let n: f64 = of_lists.iter().flatten().map(|(_, n)| n).sum();
    if n == 0.0 {
        return [None; N];
    }
    let intervals = bootstrap::intervals(of_lists, resamples);
    std::array::from_fn(|at| {
        let sum: f64 = of_lists.iter().flatten().map(|(sums, _)| sums[at]).sum();
        Some((sum / n, Some(intervals[at])))
    })
}

/// The mean of `1 - cosine` of a list's pairs. For unit rows the pairs' cosines sum to `(|Σ row|² - n) / 2`, so
/// a list costs its length, not its square.
fn diversity(inputs: &Inputs, list: &[u32]) -> Option<f64> {
    let embeddings = inputs.embeddings?;
    let rows = list.iter().map(|item| embeddings.row(*item as usize));
    let rows: Vec<&[f32]> = rows.filter(|row| row.iter().any(|value| *value != 0.0)).collect();
    let n = rows.len() as f64;
    if rows.len() < 2 {
        return None;
    }
    let mut sum = vec![0f64; embeddings.n_cols()];
    for row in rows {
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let square: f64 = sum.iter().map(|value| value * value).sum();
    Some(1.0 - (square - n) / (n * (n - 1.0)))
}

/// Gini coefficient of how often eligible items are listed: 0 all alike, 1 one item alone.
fn gini(listed: &[u32], eligible: &[bool]) -> Option<f64> {
    let mut counts: Vec<u32> =
        listed.iter().zip(eligible).filter(|pair| *pair.1).map(|pair| *pair.0).collect();
    counts.sort_unstable();
    let n = counts.len() as f64;
    let sum: f64 = counts.iter().map(|count| f64::from(*count)).sum();
    let ranked: f64 =
        counts.iter().enumerate().map(|(at, count)| (at as f64 + 1.0) * f64::from(*count)).sum();
    (sum > 0.0).then(|| 2.0 * ranked / (n * sum) - (n + 1.0) / n)
}
