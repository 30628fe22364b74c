//! What lists are like apart from whether they hit.

use rayon::prelude::*;

use super::{Inputs, Row, System};

pub(super) fn rows(inputs: &Inputs, system: &System, k: usize) -> Vec<Row> {
    let lists: Vec<&[u32]> = system.lists.iter().map(|list| &list[..list.len().min(k)]).collect();
    let mut listed = vec![0u32; inputs.popularity.len()];
    for item in lists.iter().flat_map(|list| list.iter()) {
        listed[*item as usize] += 1;
    }
    let n_rows: u64 = listed.iter().map(|count| u64::from(*count)).sum();
    let eligible = inputs.eligible.iter().filter(|eligible| **eligible).count();
    let some = listed.iter().filter(|count| **count > 0).count();
    let mean_over_rows = |of: &dyn Fn(usize) -> f64| -> Option<f64> {
        let sum: f64 = listed.iter().enumerate().map(|(item, count)| f64::from(*count) * of(item)).sum();
        (n_rows > 0).then(|| sum / n_rows as f64)
    };
    let all: u64 = inputs.popularity.iter().map(|count| u64::from(*count)).sum();
    let total = (all + inputs.popularity.len() as u64) as f64;
    let surprise = |item: usize| -((f64::from(inputs.popularity[item]) + 1.0) / total).log2();
    let mean_popularity = all as f64 / inputs.popularity.len().max(1) as f64;
    let lift = mean_over_rows(&|item| f64::from(inputs.popularity[item]))
        .filter(|_| mean_popularity > 0.0)
        .map(|mean| mean / mean_popularity);
    let repeats: usize = inputs
        .users
        .iter()
        .zip(&lists)
        .map(|(user, list)| {
            let (seen, _) = inputs.seen.row(*user as usize);
            list.iter().filter(|item| seen.binary_search(item).is_ok()).count()
        })
        .sum();
    let values = [
        ("coverage", (eligible > 0).then(|| some as f64 / eligible as f64)),
        ("novelty", mean_over_rows(&surprise)),
        ("diversity", diversity(inputs, &lists)),
        ("gini", gini(&listed, inputs.eligible)),
        ("popularity_lift", lift),
        ("repeat_share", (n_rows > 0).then(|| repeats as f64 / n_rows as f64)),
    ];
    values
        .into_iter()
        .filter_map(|(metric, value)| {
            let (system, slice, users) = (system.name.clone(), "all".to_owned(), lists.len());
            Some(Row { system, metric, k, slice, value: value?, interval: None, baseline: None, users })
        })
        .collect()
}

/// The mean over lists of `1 - cosine` of their pairs. For unit rows the pairs' cosines sum to
/// `(|Σ row|² - n) / 2`, so a list costs its length, not its square.
fn diversity(inputs: &Inputs, lists: &[&[u32]]) -> Option<f64> {
    let embeddings = inputs.embeddings?;
    let of_list = |list: &&[u32]| {
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
    };
    let values: Vec<f64> = lists.par_iter().filter_map(of_list).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
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
