//! Metrics of one list against one truth, and their means over a slice's users.

use super::bootstrap::{self, Resamples};
use super::slices::Slice;
use super::{Row, System};

const METRICS: [&str; 6] = ["recall", "precision", "ndcg", "map", "mrr", "hit_rate"];

pub(super) fn rows(system: &System, slice: &Slice, k: usize, resamples: &Resamples) -> Vec<Row> {
    let per_user: Vec<Option<[f64; 6]>> = slice
        .truths
        .iter()
        .zip(&system.lists)
        .map(|(truth, list)| truth.as_ref().map(|truth| of_list(list, truth, k)))
        .collect();
    let users = per_user.iter().flatten().count();
    METRICS
        .iter()
        .enumerate()
        .map(|(at, metric)| {
            let values: Vec<Option<(f64, f64)>> =
                per_user.iter().map(|user| user.map(|values| (values[at], 1.0))).collect();
            let value = values.iter().flatten().map(|(value, _)| value).sum::<f64>() / users as f64;
            let interval = Some(bootstrap::interval(&values, resamples));
            let (system, slice) = (system.name.clone(), slice.name.clone());
            Row { system, metric, k, slice, value, interval, baseline: None, users }
        })
        .collect()
}

/// The metrics of [`METRICS`], in its order.
fn of_list(list: &[u32], truth: &[u32], k: usize) -> [f64; 6] {
    let discount = |rank: usize| 1.0 / (rank as f64 + 1.0).log2();
    let (mut hits, mut gain, mut precisions, mut first) = (0usize, 0.0, 0.0, None);
    for (at, item) in list.iter().take(k).enumerate() {
        if truth.binary_search(item).is_ok() {
            let rank = at + 1;
            hits += 1;
            gain += discount(rank);
            precisions += hits as f64 / rank as f64;
            first = first.or(Some(rank));
        }
    }
    let reachable = truth.len().min(k);
    let ideal: f64 = (1..=reachable).map(discount).sum();
    [
        hits as f64 / truth.len() as f64,
        hits as f64 / k as f64,
        gain / ideal,
        precisions / reachable as f64,
        first.map_or(0.0, |rank| 1.0 / rank as f64),
        f64::from(u8::from(hits > 0)),
    ]
}
