//! The job's `[behavior]` table.

use std::collections::BTreeMap;
use std::path::PathBuf;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::statements;
use crate::lake::Lake;

/// How events become implicit feedback.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, try_from = "Raw")]
pub struct Config {
    /// Events older than this many days before the newest are excluded; where it is not said, none is.
    pub history_days: Option<i64>,
    /// An event's weight halves every so many days. Where it is not said, it is a quarter of what half of the
    /// events are older than, but at least 30.
    pub half_life_days: Option<f64>,
    /// Weight of each event type; 0 excludes a type, a type not named here is excluded too.
    pub event_weights: EventWeights,
    /// The shop's own type names and what they stand for: `{ add_to_cart = "cart" }`.
    pub event_types: BTreeMap<String, String>,
    /// The run fails when a larger share of events is rejected.
    pub max_rejected_share: f64,
    /// A user with more events than this on one day is a bot.
    pub max_events_per_day: i64,
    /// A user whose id matches this regular expression is a bot.
    pub bot_pattern: String,
    /// What events after the run date are: faults of the source, or, where an earlier night is made again,
    /// simply not wanted.
    pub later_events: LaterEvents,
    /// Statements of `sql/behavior/` to replace, by name.
    pub sql: BTreeMap<String, PathBuf>,
}

/// What events after the run date are.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LaterEvents {
    /// Faults: they are rejected as `future_time`.
    #[default]
    Reject,
    /// Not wanted: they are excluded as `later`.
    Exclude,
}

/// Weights by event type.
pub type EventWeights = BTreeMap<String, f64>;

/// A value of `[behavior]` that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`behavior.{key}`: expected {expected}; found {found}")]
pub struct InvalidConfig {
    key: String,
    expected: &'static str,
    found: String,
}

/// One name that events may carry.
pub(super) struct KnownType {
    pub(super) name: String,
    pub(super) event_type: String,
    pub(super) weight: f64,
}

const STANDARD_TYPES: [&str; 5] = ["view", "click", "cart", "purchase", "search"];

impl Default for Config {
    fn default() -> Self {
        let weights = [("view", 1.0), ("click", 2.0), ("cart", 4.0), ("purchase", 8.0), ("search", 1.0)];
        Self {
            history_days: None,
            half_life_days: None,
            event_weights: weights.map(|(name, weight)| (name.to_owned(), weight)).into(),
            event_types: BTreeMap::new(),
            max_rejected_share: 0.05,
            max_events_per_day: 10_000,
            bot_pattern: r"(?i)(^|[^a-z0-9])(bot|crawler|spider)([^a-z0-9]|$)".to_owned(),
            later_events: LaterEvents::Reject,
            sql: BTreeMap::new(),
        }
    }
}

/// The least half-life where it is open, in days.
const LEAST_HALF_LIFE: f64 = 30.0;
/// What share of the median event's age it is.
const HALF_LIFE_SHARE: f64 = 0.25;

/// An open half-life in days, of events by their age in days, which ascends, and how many are that old. A shop of
/// one year forgets within weeks; where histories reach over many years, weeks would leave of most users nothing.
pub(super) fn open_half_life(ages: &[i64], counts: &[i64]) -> f64 {
    let half = counts.iter().sum::<i64>() / 2;
    let mut younger = 0;
    let median = ages.iter().zip(counts).find(|(_, n)| {
        younger += *n;
        younger > half
    });
    median.map_or(0.0, |(age, _)| *age as f64 * HALF_LIFE_SHARE).max(LEAST_HALF_LIFE)
}

impl Config {
    /// The standard types, those the job weighs, and the shop's own names for them.
    pub(super) fn known_types(&self) -> Vec<KnownType> {
        let weight = |event_type: &str| match self.event_weights.get(event_type) {
            Some(weight) => *weight,
            // Searches say what a user wants even where the job gives them no weight of their own.
            None if event_type == "search" => 1.0,
            None => 0.0,
        };
        let mut names: BTreeMap<&str, &str> = STANDARD_TYPES.into_iter().map(|name| (name, name)).collect();
        names.extend(self.event_weights.keys().map(|name| (name.as_str(), name.as_str())));
        names.extend(self.event_types.iter().map(|(name, stands_for)| (name.as_str(), stands_for.as_str())));
        names
            .into_iter()
            .map(|(name, event_type)| KnownType {
                name: name.to_owned(),
                event_type: event_type.to_owned(),
                weight: weight(event_type),
            })
            .collect()
    }

    /// The types events can have, the weakest first; an event's strength is its type's position.
    /// Of types of one weight a search is the weakest.
    pub(super) fn types_by_strength(&self) -> Vec<String> {
        let mut types = self.known_types();
        let key = |known: &KnownType| (known.event_type != "search", known.event_type.clone());
        types.sort_by(|a, b| a.weight.total_cmp(&b.weight).then_with(|| key(a).cmp(&key(b))));
        types.dedup_by(|b, a| a.event_type == b.event_type);
        types.into_iter().map(|known| known.event_type).collect()
    }

    /// Whether events of this type count as something.
    pub fn knows(&self, event_type: &str) -> bool {
        self.known_types().iter().any(|known| known.name == event_type)
    }

    /// What a user did with `{}`, which is an item's name or nothing, by the strength of it.
    pub fn verbs(&self) -> Vec<String> {
        let verb = |event_type: &str| match event_type {
            "purchase" => "bought{}".to_owned(),
            "cart" => "put{} in your cart".to_owned(),
            "click" => "clicked{}".to_owned(),
            "view" => "viewed{}".to_owned(),
            "search" => "searched for{}".to_owned(),
            other => format!("chose{{}} ({other})"),
        };
        self.types_by_strength().iter().map(|event_type| verb(event_type)).collect()
    }

    /// Whether the statements that the job puts in place of shipped ones can be read and parse.
    ///
    /// # Errors
    /// The first that cannot or does not.
    pub fn check_statements(&self, lake: &Lake) -> Result<(), super::Error> {
        let statements = statements::Statements::load(self)?;
        for (name, path) in &self.sql {
            let parsed = lake.parse(name, statements.text(name));
            parsed.map_err(|source| super::Error::Parse { path: path.clone(), source })?;
        }
        Ok(())
    }

    /// The text of every statement that a run will execute, the job's replacements included where
    /// they can be read; part of the stage's fingerprint.
    pub fn statement_texts(&self) -> Vec<(String, String)> {
        statements::shipped()
            .map(|(name, shipped)| {
                let replaced = self.sql.get(name).and_then(|path| std::fs::read_to_string(path).ok());
                (name.to_owned(), replaced.unwrap_or_else(|| shipped.to_owned()))
            })
            .collect()
    }
}

/// The table as written, before its values are checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    history_days: Option<i64>,
    half_life_days: Option<f64>,
    event_weights: EventWeights,
    event_types: BTreeMap<String, String>,
    max_rejected_share: f64,
    max_events_per_day: i64,
    bot_pattern: String,
    later_events: LaterEvents,
    sql: BTreeMap<String, PathBuf>,
}

impl Default for Raw {
    fn default() -> Self {
        let Config {
            history_days,
            half_life_days,
            event_weights,
            event_types,
            max_rejected_share,
            max_events_per_day,
            bot_pattern,
            later_events,
            sql,
        } = Config::default();
        Self {
            history_days,
            half_life_days,
            event_weights,
            event_types,
            max_rejected_share,
            max_events_per_day,
            bot_pattern,
            later_events,
            sql,
        }
    }
}

impl TryFrom<Raw> for Config {
    type Error = InvalidConfig;

    fn try_from(raw: Raw) -> Result<Self, InvalidConfig> {
        let invalid =
            |key: &str, expected, found: String| Err(InvalidConfig { key: key.to_owned(), expected, found });
        if let Some(days) = raw.history_days.filter(|days| *days < 1) {
            return invalid("history_days", "at least 1", days.to_string());
        }
        if let Some(days) = raw.half_life_days.filter(|days| !(days.is_finite() && *days > 0.0)) {
            return invalid("half_life_days", "a number of days above 0", days.to_string());
        }
        if !(0.0..=1.0).contains(&raw.max_rejected_share) {
            return invalid("max_rejected_share", "a share from 0 to 1", raw.max_rejected_share.to_string());
        }
        if let Err(error) = Regex::new(&raw.bot_pattern) {
            return invalid("bot_pattern", "a regular expression", format!("`{}`: {error}", raw.bot_pattern));
        }
        if raw.bot_pattern.is_empty() {
            return invalid("bot_pattern", "a regular expression that not all ids match", "``".to_owned());
        }
        if raw.max_events_per_day < 1 {
            return invalid("max_events_per_day", "at least 1", raw.max_events_per_day.to_string());
        }
        for (name, weight) in &raw.event_weights {
            if !(weight.is_finite() && (0.0..=1e6).contains(weight)) {
                return invalid(
                    &format!("event_weights.{name}"),
                    "a weight from 0 to 1e6",
                    weight.to_string(),
                );
            }
        }
        for (name, stands_for) in &raw.event_types {
            let known =
                STANDARD_TYPES.contains(&stands_for.as_str()) || raw.event_weights.contains_key(stands_for);
            if !known {
                let key = format!("event_types.{name}");
                return invalid(
                    &key,
                    "view, click, cart, purchase, search or a type of event_weights",
                    stands_for.clone(),
                );
            }
        }
        for name in raw.sql.keys() {
            if statements::shipped().all(|(shipped, _)| shipped != name) {
                return invalid("sql", "the name of a file in sql/behavior/, without .sql", name.clone());
            }
        }
        Ok(Self {
            history_days: raw.history_days,
            half_life_days: raw.half_life_days,
            event_weights: raw.event_weights,
            event_types: raw.event_types,
            max_rejected_share: raw.max_rejected_share,
            max_events_per_day: raw.max_events_per_day,
            bot_pattern: raw.bot_pattern,
            later_events: raw.later_events,
            sql: raw.sql,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_half_life_is_a_quarter_of_the_median_age_from_a_month_on() {
        let of_days = |n: i64| open_half_life(&(0..n).collect::<Vec<_>>(), &vec![5; n as usize]);
        assert_eq!((of_days(7), of_days(201), of_days(801)), (30.0, 30.0, 100.0));
        // Most events are of yesterday, however old the first is.
        assert_eq!(open_half_life(&[1, 20_000], &[9, 1]), 30.0);
        assert_eq!(open_half_life(&[], &[]), 30.0);
    }
}
