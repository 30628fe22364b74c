//! The job's `[neighbors]` table.

use serde::{Deserialize, Serialize};

/// How many neighbours, and how much evidence they take.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, try_from = "Raw")]
pub struct Config {
    /// The longest a list may be.
    pub top_k: usize,
    /// Added to the denominator of every score: pairs observed far fewer times than this score near 0.
    pub shrinkage: f32,
    /// Only so many items of a longer basket are counted.
    pub max_basket: usize,
}

/// A value of `[neighbors]` that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`neighbors.{key}`: expected {expected}; found {found}")]
pub struct InvalidConfig {
    key: &'static str,
    expected: &'static str,
    found: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { top_k: 100, shrinkage: 20.0, max_basket: 200 }
    }
}

/// The table as written, before its values are checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    top_k: i64,
    shrinkage: f32,
    max_basket: i64,
}

impl Default for Raw {
    fn default() -> Self {
        let Config { top_k, shrinkage, max_basket } = Config::default();
        Self { top_k: top_k as i64, shrinkage, max_basket: max_basket as i64 }
    }
}

impl TryFrom<Raw> for Config {
    type Error = InvalidConfig;

    fn try_from(raw: Raw) -> Result<Self, InvalidConfig> {
        let at_least = |key, expected, found: i64, least: i64| {
            usize::try_from(found).ok().filter(|_| found >= least).ok_or(InvalidConfig {
                key,
                expected,
                found: found.to_string(),
            })
        };
        if !(raw.shrinkage.is_finite() && raw.shrinkage >= 0.0) {
            let (expected, found) = ("a finite number, at least 0", raw.shrinkage.to_string());
            return Err(InvalidConfig { key: "shrinkage", expected, found });
        }
        Ok(Self {
            top_k: usize::try_from(raw.top_k).ok().filter(|k| (1..=10_000).contains(k)).ok_or_else(|| {
                InvalidConfig { key: "top_k", expected: "1 to 10000", found: raw.top_k.to_string() }
            })?,
            shrinkage: raw.shrinkage,
            max_basket: at_least("max_basket", "at least 2", raw.max_basket, 2)?,
        })
    }
}
