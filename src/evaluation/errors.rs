//! How far probabilities are from what came true.

use super::bootstrap::{self, Resamples};
use super::{Inputs, Row, System};

/// A metric's name, what it takes of one error, and what it makes of the mean.
type Metric<'a> = (&'static str, &'a dyn Fn(f64) -> f64, fn(f64) -> f64);

pub(super) fn rows(inputs: &Inputs, system: &System, k: usize, resamples: &Resamples) -> Vec<Row> {
    let Some(probabilities) = &system.probabilities else { return Vec::new() };
    let outcomes: Vec<Vec<f64>> = inputs
        .users
        .iter()
        .zip(system.lists.iter().zip(probabilities))
        .map(|(user, (list, said))| {
            let truth = inputs.truth.row(*user as usize).0;
            list.iter()
                .take(k.min(said.len()))
                .map(|item| f64::from(u8::from(truth.binary_search(item).is_ok())))
                .collect()
        })
        .collect();
    let n_rows: usize = outcomes.iter().map(Vec::len).sum();
    let share = outcomes.iter().flatten().sum::<f64>() / n_rows.max(1) as f64;
    // Of each user with a list, the mean over its rows.
    let of_users = |error: &dyn Fn(f64) -> f64, says: &dyn Fn(usize, usize) -> f64| -> Vec<Option<f64>> {
        let of = |(user, outcomes): (usize, &Vec<f64>)| {
            let sum: f64 =
                outcomes.iter().enumerate().map(|(at, outcome)| error(says(user, at) - outcome)).sum();
            (!outcomes.is_empty()).then(|| sum / outcomes.len() as f64)
        };
        outcomes.iter().enumerate().map(of).collect()
    };
    let mean = |values: &[Option<f64>]| {
        let n = values.iter().flatten().count();
        (n > 0).then(|| values.iter().flatten().sum::<f64>() / n as f64)
    };
    let said = |user: usize, at: usize| probabilities[user][at];
    let metrics: [Metric; 3] = [
        ("mae", &f64::abs, |mean| mean),
        ("mse", &|error| error * error, |mean| mean),
        ("rmse", &|error| error * error, f64::sqrt),
    ];
    let row = |(metric, error, of_mean): Metric| {
        let values = of_users(error, &said);
        let value = of_mean(mean(&values)?);
        let (low, high) = bootstrap::interval(&values, resamples);
        Some(Row {
            system: system.name.clone(),
            metric,
            k,
            slice: "all".to_owned(),
            value,
            interval: Some((of_mean(low), of_mean(high))),
            baseline: mean(&of_users(error, &|_, _| share)).map(of_mean),
            users: values.iter().flatten().count(),
        })
    };
    metrics.into_iter().filter_map(row).collect()
}
