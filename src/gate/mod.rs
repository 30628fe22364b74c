//! Whether a night may be published: what was measured of it, held against limits and the last night.
//!
//! In: what was [measured](Measured) of tonight's run and of the run that readers load now, and what
//! [comparing](Compared) their tables row by row gave. Out: one [`Finding`] a limit, whether it holds or not.
//! Without a run to compare with only the absolute limits are looked at. What one of the two nights lacks
//! (embeddings, an evaluation, the measurements of an older version) is not compared.
//!
//! | finding | compares | limit |
//! |---|---|---|
//! | `events` | events that count | `max_events_drop` |
//! | `volume` | events of each day (UTC) and type: days that both nights know with each other, newer days with the seven before and with the same weekday of the week before | `max_day_drop` |
//! | `age` | days from the last event to the end of the run date | `max_age_days` |
//! | `rejected` | the share of rejected events | `max_rejected_rise` |
//! | `users` | users with a list | `min_users`, `max_users_drop` |
//! | `items` | items that may be listed | `min_items`, `max_items_drop` |
//! | `coverage` | different items in users' lists | `max_coverage_drop` |
//! | `length` | rows a list, mean | `min_list_length`, `max_length_drop` |
//! | `overlap` | share of a list's first `overlap_k` items that yesterday's had too, mean over the users of both | `min_overlap` |
//! | `scores` | distribution of scores over their run's [`Spread`], PSI | `max_score_psi` |
//! | `popularity` | distribution of the listed items' users, PSI | `max_popularity_psi` |
//! | `metric` | the fused lists' NDCG, where its interval and yesterday's do not meet | `max_metric_drop` |
//! | `baseline` | the fused lists' NDCG with that of popularity alone, where their intervals do not meet | `beat_popularity` |
//! | `drift` | 1 less the mean cosine of items' embeddings with yesterday's | `max_embedding_drift` |
//!
//! The population stability index of two distributions over bins is `Σ (p - q) ln (p / q)`; below 0.1 hardly
//! anything has moved, above 0.25 much has. The room reads nothing and decides nothing: whether a limit that
//! does not hold stops the night is for its caller.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

mod histogram;

pub use histogram::{Histogram, Spread};

/// The job's `[gate]` table.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether a night that breaks a limit is refused. What was found is in the manifest in any case.
    pub enabled: bool,
    /// How far the events that count may fall below yesterday's, as a share.
    pub max_events_drop: Share,
    /// How far the events of one day and type may fall, as a share.
    pub max_day_drop: Share,
    /// Days with fewer events of a type than this are not compared.
    pub least_day_events: u64,
    /// How many days may have passed since the last event.
    pub max_age_days: Option<Amount>,
    /// How far the share of rejected events may rise.
    pub max_rejected_rise: Share,
    /// The least users with a list.
    pub min_users: u64,
    /// How far users with a list may fall, as a share.
    pub max_users_drop: Share,
    /// The least items that may be listed.
    pub min_items: u64,
    /// How far items that may be listed may fall, as a share.
    pub max_items_drop: Share,
    /// How far different listed items may fall, as a share.
    pub max_coverage_drop: Share,
    /// The least rows a list has, in the mean.
    pub min_list_length: Amount,
    /// How far the rows of a list may fall in the mean, as a share.
    pub max_length_drop: Share,
    /// The first items of a list that are compared with yesterday's.
    pub overlap_k: usize,
    /// The least share of them that yesterday's list had too.
    pub min_overlap: Share,
    /// How far the distribution of scores may move.
    pub max_score_psi: Amount,
    /// How far the distribution of listed items' popularity may move.
    pub max_popularity_psi: Amount,
    /// How far the backtest's NDCG may fall, as a share, where its interval and yesterday's do not meet.
    pub max_metric_drop: Share,
    /// Whether the fused lists must not be worse than popularity alone.
    pub beat_popularity: bool,
    /// How far items' embeddings may turn away from yesterday's.
    pub max_embedding_drift: Amount,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            max_events_drop: Share(0.2),
            max_day_drop: Share(0.4),
            least_day_events: 100,
            max_age_days: None,
            max_rejected_rise: Share(0.02),
            min_users: 1,
            max_users_drop: Share(0.1),
            min_items: 1,
            max_items_drop: Share(0.2),
            max_coverage_drop: Share(0.3),
            min_list_length: Amount(1.0),
            max_length_drop: Share(0.1),
            overlap_k: 10,
            min_overlap: Share(0.2),
            max_score_psi: Amount(0.5),
            max_popularity_psi: Amount(0.25),
            max_metric_drop: Share(0.1),
            beat_popularity: true,
            max_embedding_drift: Amount(0.1),
        }
    }
}

/// From 0 to 1.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
#[serde(try_from = "f64")]
pub struct Share(pub f64);

/// A number that is not below 0.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
#[serde(try_from = "f64")]
pub struct Amount(pub f64);

/// A day of the calendar (UTC), written `YYYY-MM-DD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Day(pub NaiveDate);

impl TryFrom<String> for Day {
    type Error = chrono::ParseError;

    fn try_from(text: String) -> Result<Self, chrono::ParseError> {
        text.parse().map(Self)
    }
}

impl From<Day> for String {
    fn from(day: Day) -> Self {
        day.0.to_string()
    }
}

/// Why a limit was refused.
#[derive(Debug, thiserror::Error)]
#[error("expected {expected}; found {found}")]
pub struct InvalidLimit {
    expected: &'static str,
    found: f64,
}

impl TryFrom<f64> for Share {
    type Error = InvalidLimit;

    fn try_from(found: f64) -> Result<Self, InvalidLimit> {
        if (0.0..=1.0).contains(&found) {
            Ok(Self(found))
        } else {
            Err(InvalidLimit { expected: "a share from 0 to 1", found })
        }
    }
}

impl TryFrom<f64> for Amount {
    type Error = InvalidLimit;

    fn try_from(found: f64) -> Result<Self, InvalidLimit> {
        if found >= 0.0 && found.is_finite() {
            Ok(Self(found))
        } else {
            Err(InvalidLimit { expected: "a number of at least 0", found })
        }
    }
}

/// What was measured of one night.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct Measured {
    /// The run.
    pub run_id: String,
    /// Events that count.
    pub events: u64,
    /// The share of the events read that were rejected.
    pub rejected_share: f64,
    /// Events that count by day and type, of the last days.
    pub days: BTreeMap<Day, BTreeMap<String, u64>>,
    /// The last day that was over when the night was measured, and not after the run date.
    pub complete_until: Option<Day>,
    /// Days from the last event to the end of the run date.
    pub age_days: f64,
    /// Users with a list.
    pub users: u64,
    /// Rows of users' lists.
    pub rows: u64,
    /// Different items in them.
    pub items_listed: u64,
    /// Items that may be listed.
    pub items: u64,
    /// Scores of users' lists in units of their spread, so that a model whose every score is twice as large
    /// looks the same. An older version's are in no unit, under another name, and are not compared.
    pub spread_scores: Histogram,
    /// How many users turned to each listed item, a row each.
    pub popularity: Histogram,
    /// The fused lists' NDCG on held-out behaviour.
    pub metric: Option<Metric>,
    /// That of popularity alone.
    pub baseline: Option<Metric>,
}

/// A metric and its interval.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Metric {
    /// Its name and length, as `ndcg@10`.
    pub name: String,
    /// The metric.
    pub value: f64,
    /// The interval's lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// What two nights' tables have in common.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct Compared {
    /// Users who have a list in both.
    pub users: u64,
    /// The mean share of a list's first items that the other night's had too.
    pub overlap: Option<f64>,
    /// 1 less the mean cosine of the embeddings of items of both.
    pub drift: Option<f64>,
}

/// The names of findings, for `--accept`.
pub const NAMES: [&str; 14] = [
    "events",
    "volume",
    "age",
    "rejected",
    "users",
    "items",
    "coverage",
    "length",
    "overlap",
    "scores",
    "popularity",
    "metric",
    "baseline",
    "drift",
];

/// One limit and how the night stands to it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Finding {
    /// One of [`NAMES`].
    pub name: String,
    /// What was measured.
    pub what: String,
    /// Tonight's value.
    pub value: f64,
    /// The other night's.
    pub before: Option<f64>,
    /// What the value must not be below.
    pub least: Option<f64>,
    /// What it must not be above.
    pub most: Option<f64>,
    /// The job's key that says so, with its value.
    pub key: String,
    /// Whether the limit holds.
    pub holds: bool,
    /// Whether it was said that it need not.
    pub accepted: bool,
}

/// Holds a night against every limit.
pub fn judge(tonight: &Measured, last: Option<(&Measured, &Compared)>, config: &Config) -> Vec<Finding> {
    let mut findings = absolute(tonight, config);
    if let Some((before, compared)) = last {
        findings.extend(relative(tonight, before, compared, config));
    }
    findings
}

fn absolute(tonight: &Measured, config: &Config) -> Vec<Finding> {
    let mut findings = vec![
        Limit::of("users", "users with a list", tonight.users as f64)
            .least(config.min_users as f64, key("min_users", config.min_users)),
        Limit::of("items", "items that may be listed", tonight.items as f64)
            .least(config.min_items as f64, key("min_items", config.min_items)),
        Limit::of("length", "rows a list", length(tonight))
            .least(config.min_list_length.0, key("min_list_length", config.min_list_length.0)),
    ];
    if let Some(most) = config.max_age_days {
        let limit = Limit::of("age", "days since the last event", tonight.age_days);
        findings.push(limit.most(most.0, key("max_age_days", most.0)));
    }
    if let (Some(fused), Some(baseline), true) = (&tonight.metric, &tonight.baseline, config.beat_popularity)
    {
        let what =
            format!("{} at best, where popularity alone has {} at least", fused.name, number(baseline.low));
        let limit = Limit::of("baseline", &what, fused.high);
        findings.push(limit.least(baseline.low, key("beat_popularity", true)));
    }
    findings
}

fn relative(tonight: &Measured, before: &Measured, compared: &Compared, config: &Config) -> Vec<Finding> {
    let drop = |name, what: &str, of: &dyn Fn(&Measured) -> f64, key_name, share: Share| {
        let least = of(before) * (1.0 - share.0);
        Limit::of(name, what, of(tonight)).before(of(before)).least(least, key(key_name, share.0))
    };
    let mut findings = vec![
        drop(
            "events",
            "events that count",
            &|of| of.events as f64,
            "max_events_drop",
            config.max_events_drop,
        ),
        drop("users", "users with a list", &|of| of.users as f64, "max_users_drop", config.max_users_drop),
        drop(
            "items",
            "items that may be listed",
            &|of| of.items as f64,
            "max_items_drop",
            config.max_items_drop,
        ),
        drop(
            "coverage",
            "different items listed",
            &|of| of.items_listed as f64,
            "max_coverage_drop",
            config.max_coverage_drop,
        ),
        drop("length", "rows a list", &length, "max_length_drop", config.max_length_drop),
        Limit::of("rejected", "share of events rejected", tonight.rejected_share)
            .before(before.rejected_share)
            .most(
                before.rejected_share + config.max_rejected_rise.0,
                key("max_rejected_rise", config.max_rejected_rise.0),
            ),
    ];
    findings.extend(volumes(tonight, before, config));
    if let Some(overlap) = compared.overlap {
        let what = format!("overlap of the first {} items of {} users", config.overlap_k, compared.users);
        let limit = Limit::of("overlap", &what, overlap);
        findings.push(limit.least(config.min_overlap.0, key("min_overlap", config.min_overlap.0)));
    }
    for (name, what, tonight, before, key_name, most) in [
        (
            "scores",
            "PSI of scores",
            &tonight.spread_scores,
            &before.spread_scores,
            "max_score_psi",
            config.max_score_psi,
        ),
        (
            "popularity",
            "PSI of listed items' popularity",
            &tonight.popularity,
            &before.popularity,
            "max_popularity_psi",
            config.max_popularity_psi,
        ),
    ] {
        if let Some(psi) = tonight.psi(before) {
            findings.push(Limit::of(name, what, psi).most(most.0, key(key_name, most.0)));
        }
    }
    if let (Some(metric), Some(earlier)) = (&tonight.metric, &before.metric)
        && metric.name == earlier.name
    {
        let least = earlier.value * (1.0 - config.max_metric_drop.0);
        let limit = Limit::of("metric", &metric.name, metric.value).before(earlier.value);
        let mut finding = limit.least(least, key("max_metric_drop", config.max_metric_drop.0));
        // Where the intervals meet, chance may have done it.
        finding.holds |= metric.high >= earlier.low;
        findings.push(finding);
    }
    if let Some(drift) = compared.drift {
        let most = config.max_embedding_drift.0;
        let limit = Limit::of("drift", "drift of items' embeddings", drift);
        findings.push(limit.most(most, key("max_embedding_drift", most)));
    }
    findings
}

/// For each type the day that has lost most, of days that both nights know and of those that are new.
fn volumes(tonight: &Measured, before: &Measured, config: &Config) -> Vec<Finding> {
    let count = |of: &Measured, day: NaiveDate, kind: &str| {
        of.days.get(&Day(day)).and_then(|types| types.get(kind)).copied().unwrap_or(0) as f64
    };
    let Some(known) = before.complete_until else { return Vec::new() };
    // The first day of a window may have been cut in its middle.
    let first = tonight.days.keys().next().max(before.days.keys().next()).copied();
    let mut kinds: Vec<&String> = before.days.values().flat_map(BTreeMap::keys).collect();
    kinds.sort();
    kinds.dedup();
    let mut findings = Vec::new();
    for kind in kinds {
        let mut worst: Option<(f64, NaiveDate, f64, f64)> = None;
        let mut look = |day: NaiveDate, expected: f64| {
            let found = count(tonight, day, kind);
            if expected < config.least_day_events.max(1) as f64 {
                return;
            }
            let ratio = found / expected;
            if worst.is_none_or(|worst| ratio < worst.0) {
                worst = Some((ratio, day, found, expected));
            }
        };
        for day in before.days.keys().filter(|day| **day <= known && Some(**day) > first) {
            look(day.0, count(before, day.0, kind));
        }
        let new = tonight.complete_until.into_iter().flat_map(|until| {
            known.0.iter_days().skip(1).take_while(move |day| *day <= until.0).take(MOST_NEW_DAYS)
        });
        for day in new {
            let earlier: Vec<f64> =
                day.iter_days().rev().skip(1).take(7).map(|day| count(tonight, day, kind)).collect();
            let mean = earlier.iter().sum::<f64>() / 7.0;
            look(day, earlier.last().map_or(mean, |same_weekday| mean.min(*same_weekday)));
        }
        if let Some((_, day, found, expected)) = worst {
            let limit = Limit::of("volume", &format!("{kind} events of {day}"), found).before(expected);
            let least = expected * (1.0 - config.max_day_drop.0);
            findings.push(limit.least(least, key("max_day_drop", config.max_day_drop.0)));
        }
    }
    findings
}

/// A job that was not run for months is compared day by day no further than this.
const MOST_NEW_DAYS: usize = 60;

fn length(of: &Measured) -> f64 {
    of.rows as f64 / of.users.max(1) as f64
}

fn key(name: &str, value: impl std::fmt::Display) -> String {
    format!("gate.{name} = {value}")
}

/// A value on its way to a finding.
struct Limit {
    name: &'static str,
    what: String,
    value: f64,
    before: Option<f64>,
}

impl Limit {
    fn of(name: &'static str, what: &str, value: f64) -> Self {
        Self { name, what: what.to_owned(), value, before: None }
    }

    fn before(self, before: f64) -> Self {
        Self { before: Some(before), ..self }
    }

    fn least(self, least: f64, key: String) -> Finding {
        self.finding(Some(least), None, key)
    }

    fn most(self, most: f64, key: String) -> Finding {
        self.finding(None, Some(most), key)
    }

    fn finding(self, least: Option<f64>, most: Option<f64>, key: String) -> Finding {
        // A value that is no number holds no limit.
        let holds =
            least.is_none_or(|least| self.value >= least) && most.is_none_or(|most| self.value <= most);
        let Self { name, what, value, before } = self;
        Finding { name: name.to_owned(), what, value, before, least, most, key, holds, accepted: false }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} {}", self.name, self.what, number(self.value))?;
        if let Some(before) = self.before {
            write!(f, ", before {}", number(before))?;
        }
        if let Some(least) = self.least {
            write!(f, "; expected at least {}", number(least))?;
        }
        if let Some(most) = self.most {
            write!(f, "; expected at most {}", number(most))?;
        }
        write!(f, " ({})", self.key)
    }
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value}") } else { format!("{value:.4}") }
}

#[cfg(test)]
mod tests;
