//! How far calibrated scores are from what happened.

use super::bootstrap::{self, Resamples};
use super::{Inputs, Row, System};

/// Sums over the rows of one user's list.
#[derive(Clone, Copy, Default)]
struct Errors {
    rows: f64,
    hits: f64,
    absolute: f64,
    squared: f64,
}

pub(super) fn rows(inputs: &Inputs, system: &System, k: usize, resamples: &Resamples) -> Vec<Row> {
    let Some(probabilities) = &system.probabilities else { return Vec::new() };
    let lists = inputs.users.iter().zip(&system.lists).zip(probabilities);
    let per_user: Vec<Option<Errors>> = lists
        .map(|((user, list), probabilities)| {
            let truth = inputs.truth.row(*user as usize).0;
            let mut errors = Errors::default();
            for (item, probability) in list.iter().zip(probabilities).take(k) {
                let outcome = f64::from(u8::from(truth.binary_search(item).is_ok()));
                errors.rows += 1.0;
                errors.hits += outcome;
                errors.absolute += (probability - outcome).abs();
                errors.squared += (probability - outcome).powi(2);
            }
            (errors.rows > 0.0).then_some(errors)
        })
        .collect();
    let users = per_user.iter().flatten().count();
    if users == 0 {
        return Vec::new();
    }
    let total = |of: &dyn Fn(&Errors) -> f64| per_user.iter().flatten().map(of).sum::<f64>();
    let n_rows = total(&|errors| errors.rows);
    let mean_outcome = total(&|errors| errors.hits) / n_rows;
    let variance = mean_outcome * (1.0 - mean_outcome);
    let sums = |errors: &Errors| ([errors.absolute, errors.squared], errors.rows);
    let values: Vec<_> = per_user.iter().map(|user| user.as_ref().map(sums)).collect();
    let [of_mae, of_mse] = bootstrap::intervals(&values, resamples);
    let mae = (total(&|errors| errors.absolute) / n_rows, of_mae);
    let mse = (total(&|errors| errors.squared) / n_rows, of_mse);
    let rmse = (mse.0.sqrt(), (of_mse.0.sqrt(), of_mse.1.sqrt()));
    [("mae", mae, 2.0 * variance), ("mse", mse, variance), ("rmse", rmse, variance.sqrt())]
        .into_iter()
        .map(|(metric, (value, interval), baseline)| Row {
            system: system.name.clone(),
            metric,
            k,
            slice: "all".to_owned(),
            value,
            interval: Some(interval),
            baseline: Some(baseline),
            gain: None,
            users,
        })
        .collect()
}
