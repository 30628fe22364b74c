//! Honest offline evaluation: lists made from the past, compared with what came after.
//!
//! In: for each test user the items of the held-out time (the truth) and each system's list. Out: one
//! Polars frame in long format, `system, metric, k, slice, value, low, high, baseline, gain, gain_low,
//! gain_high, users`.
//!
//! Accuracy, a mean over the users of a slice (Järvelin and Kekäläinen, 2002, for NDCG): with `T` the
//! truth, `h_r` 1 where rank `r` hits it, and sums over ranks `1..=k`,
//! `recall = Σh/|T|`, `precision = Σh/k`, `hit_rate = [Σh > 0]`, `mrr = 1/first hit`,
//! `map = Σ h_r · (hits up to r)/r / min(|T|, k)`,
//! `ndcg = Σ h_r/log2(r+1) / Σ_{r ≤ min(|T|, k)} 1/log2(r+1)`. A user without a list counts 0.
//!
//! Slices: `all`; `new` and `repeat` keep of the truth what the user had not, or had, turned to before
//! (users whose truth is then empty are left out; lists are as published); `cold_items` keeps items
//! nobody had turned to; `warm_users` and `cold_users` had, or had not, turned to anything, and
//! `warm_users_new` is both `warm_users` and `new`; `segment=…` keeps the users of an activity segment. Of an
//! [`Attribute`], `users.region=North` keeps the users of that value and `items.brand=Acme` keeps of the
//! truth the items of that value: the values with most test users, or with most of the truth, have a slice
//! each, all further ones together are `…=other`, and what has none is `…=none`. A slice of fewer than
//! [`Inputs::min_users`] users is left out and counted.
//!
//! Beyond accuracy, over all lists of a slice `all`: `coverage` (share of the eligible catalogue listed
//! at all), `novelty` (mean `-log2` of an item's share of all interactions, plus one for each),
//! `diversity` (mean over lists of `1 - cosine` of pairs of embeddings), `gini` (of how often items are
//! listed; 0 is equal), `popularity_lift` (mean popularity of listed items over that of the catalogue)
//! and `repeat_share` (rows the user had turned to before). `baseline` is the popularity system's value
//! of the same metric, k and slice.
//!
//! Calibrated scores, over the rows of the lists that have them, slice `all`: with `p` a row's probability
//! and `h` 1 where it was turned to, `mae = mean |p - h|`, `mse = mean (p - h)²` (Brier, 1950) and
//! `rmse = √mse`. Their `baseline` is the same error of the best constant there is, the mean outcome `m`:
//! `2 m (1 - m)`, `m (1 - m)` and its root. The squared error is least for the true probability; the
//! absolute error is least for 0 wherever that is below ½, so it says little of rare outcomes.
//!
//! Intervals, of all but `coverage` and `gini`, which are no means over users, are percentiles of `bootstrap` resamples of users (Efron, 1979), seeded, the same for every
//! system. `gain` is what the fused lists have more of an accuracy metric than a system's, and its interval
//! that of the difference user by user: two lists for the same users differ far less by chance than the
//! intervals of either suggest. The room trains nothing and sees no time.

use polars::prelude::{Column, DataFrame, PolarsError};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::matrix::{Csr, Dense};

mod accuracy;
mod beyond;
mod bootstrap;
mod calibrated;
mod slices;
mod split;
mod text;

pub use slices::{Attribute, Side, Values};
pub use split::Split;
pub use text::{ahead, headline, report, table};

/// The job's `[evaluation]` table.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, try_from = "Raw")]
pub struct Config {
    /// Whether a run evaluates.
    pub enabled: bool,
    /// A Parquet table (`user_id`, `item_id`) of what users turned to after the events, in the place of
    /// what `split` would hold out: lists are made from all events and compared with it.
    pub test: Option<String>,
    /// Such a table to learn the sources' weights from, of what came between the events and `test`.
    pub valid: Option<String>,
    /// What is held out. Where it is not said: the latest days, if enough users came back in them, else
    /// each user's last item. Without usable times it is a random share in any case.
    pub split: Option<Hold>,
    /// Where `split` is temporal: how many days at the end of the history are held out.
    pub test_days: f64,
    /// Where `split` is random: the share of each user's items held out.
    pub test_share: f64,
    /// List lengths.
    pub ks: Vec<usize>,
    /// Values of `ranking.rules.diversity` to compare the fused lists at.
    pub diversity: Vec<f32>,
    /// Columns that metrics are split by, as `items.brand` or `users.region`.
    pub slices: Vec<Attribute>,
    /// Resamples for the intervals.
    pub bootstrap: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    enabled: bool,
    test: Option<String>,
    valid: Option<String>,
    split: Option<Hold>,
    test_days: f64,
    test_share: f64,
    ks: Vec<usize>,
    diversity: Vec<f32>,
    slices: Vec<Attribute>,
    bootstrap: usize,
}

/// What an evaluation holds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// Everything after a moment, as a night would have met it.
    Temporal,
    /// Each user's last item, as sequence recommenders are compared.
    LeaveLastOut,
    /// A seeded random share of each user's items.
    Random,
}

/// One recommender's lists, a list a test user.
pub struct System {
    /// Its name.
    pub name: String,
    /// Items, best first, in the order of [`Inputs::users`].
    pub lists: Vec<Vec<u32>>,
    /// How likely each row was thought to be turned to, where scores are calibrated; a list may lack it.
    pub probabilities: Option<Vec<Vec<f64>>>,
}

/// What an evaluation compares.
pub struct Inputs<'a> {
    /// Users with a truth, as rows of `truth` and `seen`.
    pub users: &'a [u32],
    /// Users × items after the cut; values are not looked at. Items past those of the catalogue are known
    /// to nobody, and only missed.
    pub truth: &'a Csr,
    /// Users × items before the cut.
    pub seen: &'a Csr,
    /// Users per item before the cut.
    pub popularity: &'a [u32],
    /// Each user's segment; past the names, none.
    pub segments: &'a [u32],
    /// Segments by code.
    pub segment_names: &'a [String],
    /// What metrics are split by beside segments.
    pub attributes: &'a [Values],
    /// Items × dim, rows of unit length or zero, for diversity: embeddings, or factors where there are none.
    pub embeddings: Option<&'a Dense>,
    /// Whether an item may be listed.
    pub eligible: &'a [bool],
    /// What is compared; the one called `popularity` is the baseline, the one called `fused` what `gain` is of.
    pub systems: &'a [System],
    /// The least users of a slice, but of `all`.
    pub min_users: u32,
}

/// What comes of a comparison.
pub struct Metrics {
    /// Every metric of every system, in the order of systems, slices, lengths, metrics.
    pub frame: DataFrame,
    /// Slices of fewer than [`Inputs::min_users`] users.
    pub withheld: usize,
}

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value of `[evaluation]` that cannot be used.
    #[error("`evaluation.{key}`: expected {expected}; found {found}")]
    Config {
        /// Which.
        key: &'static str,
        /// What would do.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// A slice is by a column that is not there.
    #[error("`evaluation.slices`: expected {expected}; found `{found}`")]
    Slice {
        /// The columns there are.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A system does not have a list for each test user.
    #[error("system `{system}` has {found} lists; expected {expected}, one a test user")]
    Lists {
        /// Which.
        system: String,
        /// Test users.
        expected: usize,
        /// Lists.
        found: usize,
    },
    /// The frame could not be made.
    #[error("cannot make the metrics frame")]
    Frame(#[from] PolarsError),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            test: None,
            valid: None,
            split: None,
            test_days: 7.0,
            test_share: 0.2,
            ks: vec![10, 20, 50],
            slices: Vec::new(),
            diversity: Vec::new(),
            bootstrap: 200,
        }
    }
}

impl Default for Raw {
    fn default() -> Self {
        let Config { enabled, test, valid, split, test_days, test_share, ks, slices, diversity, bootstrap } =
            Config::default();
        Self { enabled, test, valid, split, test_days, test_share, ks, slices, diversity, bootstrap }
    }
}

impl TryFrom<Raw> for Config {
    type Error = Error;

    fn try_from(raw: Raw) -> Result<Self, Error> {
        let refuse = |key, expected, found: String| Err(Error::Config { key, expected, found });
        if !(raw.test_days.is_finite() && raw.test_days > 0.0) {
            return refuse("test_days", "a number of days above 0", raw.test_days.to_string());
        }
        if !(raw.test_share > 0.0 && raw.test_share < 1.0) {
            return refuse("test_share", "a share between 0 and 1", raw.test_share.to_string());
        }
        if raw.ks.is_empty() || raw.ks.iter().any(|k| !(1..=10_000).contains(k)) {
            return refuse("ks", "lengths from 1 to 10000", format!("{:?}", raw.ks));
        }
        if !(1..=10_000).contains(&raw.bootstrap) {
            return refuse("bootstrap", "1 to 10000 resamples", raw.bootstrap.to_string());
        }
        if raw.valid.is_some() && raw.test.is_none() {
            // Weights would be learned with models of all events, then judged by the last of these.
            return refuse("valid", "`evaluation.test` beside it", "none".to_owned());
        }
        if let Some(twice) = (1..raw.slices.len()).find(|at| raw.slices[..*at].contains(&raw.slices[*at])) {
            return refuse("slices", "each column once", format!("`{}` twice", raw.slices[twice]));
        }
        if raw.diversity.iter().any(|lambda| !(0.0..1.0).contains(lambda)) {
            return refuse("diversity", "numbers from 0 to below 1", format!("{:?}", raw.diversity));
        }
        let Raw { enabled, test, valid, split, test_days, test_share, ks, slices, diversity, bootstrap } =
            raw;
        Ok(Self { enabled, test, valid, split, test_days, test_share, ks, slices, diversity, bootstrap })
    }
}

impl Config {
    /// The keys that decide what is held out, and so what models may see.
    pub fn held_out(&self) -> impl Serialize + use<'_> {
        (self.enabled, &self.test, &self.valid, self.split, self.test_days, self.test_share)
    }

    /// The longest list looked at.
    pub fn longest(&self) -> usize {
        self.ks.iter().copied().max().unwrap_or(0)
    }
}

/// One row of the result.
struct Row {
    system: String,
    metric: &'static str,
    k: usize,
    slice: String,
    value: f64,
    interval: Option<(f64, f64)>,
    /// What to compare with where it is not the popularity system's.
    baseline: Option<f64>,
    /// What the fused lists have more, and its interval.
    gain: Option<(f64, (f64, f64))>,
    users: usize,
}

/// Computes every metric of every system.
///
/// # Errors
/// If a system lacks lists.
pub fn evaluate(inputs: &Inputs, config: &Config, seed: u64) -> Result<Metrics, Error> {
    let n_users = inputs.users.len();
    for system in inputs.systems {
        if system.lists.len() != n_users {
            let (expected, found) = (n_users, system.lists.len());
            return Err(Error::Lists { system: system.name.clone(), expected, found });
        }
    }
    let resamples = bootstrap::resamples(n_users, config.bootstrap, seed);
    let (slices, withheld) = slices::slices(inputs);
    let fused = inputs.systems.iter().find(|system| system.name == "fused");
    let of_system = |system: &System| {
        let fused = fused.filter(|fused| fused.name != system.name);
        let mut rows: Vec<Row> = Vec::new();
        for slice in &slices {
            for &k in &config.ks {
                rows.extend(accuracy::rows(system, fused, slice, k, &resamples));
            }
        }
        for &k in &config.ks {
            rows.extend(beyond::rows(inputs, system, k, &resamples));
            rows.extend(calibrated::rows(inputs, system, k, &resamples));
        }
        rows
    };
    let rows: Vec<Vec<Row>> = inputs.systems.par_iter().map(of_system).collect();
    Ok(Metrics { frame: frame(&rows.into_iter().flatten().collect::<Vec<_>>())?, withheld })
}

fn frame(rows: &[Row]) -> Result<DataFrame, Error> {
    let same = |a: &Row, b: &Row| a.metric == b.metric && a.k == b.k && a.slice == b.slice;
    let baselines: Vec<&Row> = rows.iter().filter(|row| row.system == "popularity").collect();
    let baseline: Vec<Option<f64>> = rows
        .iter()
        .map(|row| {
            let of_popularity = || baselines.iter().find(|other| same(row, other)).map(|other| other.value);
            row.baseline.or_else(of_popularity)
        })
        .collect();
    let text = |of: &dyn Fn(&Row) -> String| rows.iter().map(of).collect::<Vec<String>>();
    let column = |name: &str, values: Vec<String>| Column::new(name.into(), values);
    let number = |name: &str, of: &dyn Fn(&Row) -> Option<f64>| {
        Column::new(name.into(), rows.iter().map(of).collect::<Vec<_>>())
    };
    Ok(DataFrame::new(
        rows.len(),
        vec![
            column("system", text(&|row| row.system.clone())),
            column("metric", text(&|row| row.metric.to_owned())),
            Column::new("k".into(), rows.iter().map(|row| row.k as u32).collect::<Vec<_>>()),
            column("slice", text(&|row| row.slice.clone())),
            Column::new("value".into(), rows.iter().map(|row| row.value).collect::<Vec<_>>()),
            number("low", &|row| row.interval.map(|interval| interval.0)),
            number("high", &|row| row.interval.map(|interval| interval.1)),
            Column::new("baseline".into(), baseline),
            number("gain", &|row| row.gain.map(|gain| gain.0)),
            number("gain_low", &|row| row.gain.map(|gain| gain.1.0)),
            number("gain_high", &|row| row.gain.map(|gain| gain.1.1)),
            Column::new("users".into(), rows.iter().map(|row| row.users as u32).collect::<Vec<_>>()),
        ],
    )?)
}

#[cfg(test)]
mod tests;
