//! Metrics of one list against one truth, and their means over a slice's users.

use super::bootstrap::{self, Resamples};
use super::{Inputs, Row, System};

/// The truths of some users, by their position among the test users.
pub(super) struct Slice {
    pub(super) name: String,
    /// Ascending item indices; `None` leaves the user out.
    truths: Vec<Option<Vec<u32>>>,
}

const METRICS: [&str; 6] = ["recall", "precision", "ndcg", "map", "mrr", "hit_rate"];

pub(super) fn slices(inputs: &Inputs) -> Vec<Slice> {
    let kept = |name: &str, keep: &dyn Fn(u32, u32) -> bool| -> Slice {
        let truth_of = |user: &u32| {
            let (items, _) = inputs.truth.row(*user as usize);
            let items: Vec<u32> = items.iter().copied().filter(|item| keep(*user, *item)).collect();
            (!items.is_empty()).then_some(items)
        };
        Slice { name: name.to_owned(), truths: inputs.users.iter().map(truth_of).collect() }
    };
    let seen = |user: u32, item: u32| inputs.seen.row(user as usize).0.binary_search(&item).is_ok();
    let mut slices = vec![
        kept("all", &|_, _| true),
        kept("new", &|user, item| !seen(user, item)),
        kept("repeat", &seen),
        kept("warm_users", &|user, _| !inputs.seen.row(user as usize).0.is_empty()),
        kept("cold_users", &|user, _| inputs.seen.row(user as usize).0.is_empty()),
        kept("cold_items", &|_, item| inputs.popularity.get(item as usize).is_none_or(|users| *users == 0)),
    ];
    for (code, name) in inputs.segment_names.iter().enumerate() {
        let in_segment = |user: u32, _| inputs.segments[user as usize] as usize == code;
        slices.push(kept(&format!("segment={name}"), &in_segment));
    }
    slices.retain(|slice| slice.truths.iter().any(Option::is_some));
    slices
}

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
            let values: Vec<Option<f64>> =
                per_user.iter().map(|user| user.map(|values| values[at])).collect();
            let value = values.iter().flatten().sum::<f64>() / users as f64;
            let interval = Some(bootstrap::interval(&values, resamples));
            let slice = slice.name.clone();
            let system = system.name.clone();
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
