//! Metrics of one list against one truth, and their means over a slice's users.

use super::bootstrap::{self, Resamples};
use super::slices::Slice;
use super::{Row, System};

const N: usize = 6;
const METRICS: [&str; N] = ["recall", "precision", "ndcg", "map", "mrr", "hit_rate"];

/// `fused` is what the system is compared with, user by user; the fused lists themselves are with nothing.
pub(super) fn rows(
    system: &System,
    fused: Option<&System>,
    slice: &Slice,
    k: usize,
    resamples: &Resamples,
) -> Vec<Row> {
    // Of each user the metrics, then what the fused list has more of each.
    let of_user = |(at, truth): (usize, &Option<Vec<u32>>)| {
        let truth = truth.as_ref()?;
        let own = of_list(&system.lists[at], truth, k);
        let fused = fused.map_or(own, |fused| of_list(&fused.lists[at], truth, k));
        let values: [f64; 2 * N] =
            std::array::from_fn(|at| if at < N { own[at] } else { fused[at - N] - own[at - N] });
        Some((values, 1.0))
    };
    let per_user: Vec<Option<([f64; 2 * N], f64)>> = slice.truths.iter().enumerate().map(of_user).collect();
    let intervals = bootstrap::intervals(&per_user, resamples);
    let users = per_user.iter().flatten().count();
    let mean =
        |at: usize| per_user.iter().flatten().map(|(values, _)| values[at]).sum::<f64>() / users as f64;
    let row = |(at, metric): (usize, &&'static str)| {
        let gain = fused.map(|_| (mean(N + at), intervals[N + at]));
        let (value, interval) = (mean(at), Some(intervals[at]));
        let (system, slice) = (system.name.clone(), slice.name.clone());
        Row { system, metric, k, slice, value, interval, baseline: None, gain, users }
    };
    METRICS.iter().enumerate().map(row).collect()
}

/// The metrics of [`METRICS`], in its order.
fn of_list(list: &[u32], truth: &[u32], k: usize) -> [f64; N] {
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
