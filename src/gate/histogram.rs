//! A distribution in bins that are the same every night.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many values fell into each bin. A bin is a twelfth of a doubling wide, on both sides of 0, so that
/// distributions of any scale can be kept in a few numbers and compared later.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(transparent)]
pub struct Histogram(BTreeMap<i32, u64>);

/// Bins to a doubling.
const TO_A_DOUBLING: f64 = 12.0;
/// Below `2^-20` of 1 a value counts as 0.
const LEAST: f64 = 1.0 / 1_048_576.0;
/// The bins that distributions are compared in hold at least this share of the earlier one.
const SHARE_OF_A_BIN: f64 = 0.1;

/// How large values are: their root mean square, known once all of them were added.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread {
    sum_of_squares: f64,
    n_values: u64,
}

impl Spread {
    /// Takes a value in.
    pub fn add(&mut self, value: f64) {
        self.sum_of_squares += value * value;
        self.n_values += 1;
    }

    /// What values are divided by; 1 where all of them are 0.
    pub fn unit(self) -> f64 {
        let mean = self.sum_of_squares / self.n_values.max(1) as f64;
        if mean > 0.0 { mean.sqrt() } else { 1.0 }
    }
}

impl Histogram {
    /// Counts a value.
    pub fn add(&mut self, value: f64) {
        let size = (value.abs() / LEAST).max(1.0).log2() * TO_A_DOUBLING;
        let bin = size.floor() as i32;
        *self.0.entry(if value < 0.0 { -bin } else { bin }).or_default() += 1;
    }

    /// How far this distribution has moved from an earlier one, as the population stability index over about
    /// ten bins of equal share; `None` where one of them is empty. Half a value is added to every bin, so that
    /// an empty one does not weigh without end.
    pub fn psi(&self, earlier: &Self) -> Option<f64> {
        let (n_now, n_before) = (self.total(), earlier.total());
        if n_now == 0 || n_before == 0 {
            return None;
        }
        let mut bins: Vec<(u64, u64)> = Vec::new();
        let mut open = (0, 0);
        let mut all: Vec<i32> = self.0.keys().chain(earlier.0.keys()).copied().collect();
        all.sort_unstable();
        all.dedup();
        for bin in all {
            let of = |histogram: &Self| histogram.0.get(&bin).copied().unwrap_or(0);
            open = (open.0 + of(self), open.1 + of(earlier));
            if open.1 as f64 >= SHARE_OF_A_BIN * n_before as f64 {
                bins.push(std::mem::take(&mut open));
            }
        }
        // What is left over is more of the last bin, which holds values of the earlier night.
        if let Some(last) = bins.last_mut() {
            *last = (last.0 + open.0, last.1 + open.1);
        }
        let share = |n: u64, of: u64| (n as f64 + 0.5) / (of as f64 + 0.5 * bins.len() as f64);
        let parts = bins.iter().map(|(now, before)| {
            let (now, before) = (share(*now, n_now), share(*before, n_before));
            (now - before) * (now / before).ln()
        });
        Some(parts.sum())
    }

    fn total(&self) -> u64 {
        self.0.values().sum()
    }
}
