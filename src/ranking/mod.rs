//! Fusion before retrieval, explanation after it.
//!
//! In: per source one matrix of users and one of items, `score(u, i) = x_u · y_i`, and each user's own
//! history. Out: [`Fusion`], whose concatenated vectors make the hybrid score *one* inner product,
//! so that top-K over the whole catalogue is exact; then, for the rows that retrieval found,
//! [`Ranked`]: the score split into its sources and one piece of evidence.
//!
//! Scores of different sources are compared as standard scores. Over the eligible items the mean of
//! `x · y` is `x · mean(y)` and its variance `x' Cov(y) x`, so standardising a source for a user only
//! rescales the user's vector by `weight / deviation`; the mean shifts all of the user's scores alike
//! and cannot change their order. It is added back in what is published, so that scores of different
//! users compare. What speaks for the user's own items is sparse and enters as it is, from 0 to `weight`.
//! Weights may differ by segment: each user's vector is scaled by those of the user's own.
//!
//! Linear models ([`crate::linear`]) are applied to the user's recent history or neighbours, row by
//! row, and standardised like the dense sources; what they add is sparse, since an item that no item of
//! the history speaks for gets 0.
//!
//! Cost: one covariance per source, `O(n_items · d²)`; a user costs `O(d²)` and, twice, the entries of
//! the linear models' rows that the history touches; an explained row `O(d)`. The room never
//! retrieves, never filters, and never sees ids or titles.

use serde::{Deserialize, Serialize};

use crate::cold::Heirs;
use crate::matrix::{Csr, Dense};

mod arrange;
mod explain;
mod fusion;
mod source;
mod spread;

pub use arrange::{NONE, Rules, Traits};
pub use explain::{List, Ranked, Reason, Scored};
pub use fusion::Fusion;
pub use source::{Mix, N_SOURCES, Source, Weights};

/// The job's `[ranking]` table.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The longest a list may be.
    pub top_k: TopK,
    /// Whether a user's list leaves out what the user already turned to.
    pub exclude_seen: bool,
    /// Whether users of `[inputs.users]` without history get the popular list.
    pub include_cold: bool,
    /// What each source counts for, in standard deviations; learned where the job does not say.
    pub weights: Option<Weights>,
    /// Sources that are neither fitted for lists nor weighed.
    pub without: Vec<Source>,
    /// Days after which a user who turned to an item counts half for the trend.
    pub trend_half_life_days: Days,
    /// What lists as a whole must be.
    pub rules: Rules,
}

/// Above 0.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
#[serde(try_from = "f64")]
pub struct Days(f64);

/// From 1 to 10,000.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(try_from = "usize")]
pub struct TopK(usize);

/// What users and items have in each source.
pub struct Sources<'a> {
    /// Users × d and items × d, scored by inner product: factors, content, spectral, trend. A zero row is a
    /// user or item that the source knows nothing of.
    pub dense: Vec<(Source, &'a Dense, &'a Dense)>,
    /// Models of what is known of a user: ease, walk, cosine, sequence, peers.
    pub linear: Vec<Linear<'a>>,
    /// Each user's segment.
    pub segments: &'a [u32],
    /// Items × segments.
    pub popularity: &'a Dense,
    /// Users × items: decayed weights.
    pub history: &'a Csr,
    /// Users × items, from 0 to 1: what speaks for items that the user turned to before.
    pub own: Vec<(Source, &'a Csr)>,
    /// What the job's rules add to each item's score, if anything.
    pub bias: Option<&'a [f32]>,
    /// Whether rules arrange the lists, so that scores may be more than their parts.
    pub ruled: bool,
    /// Whether the shop wants an item in lists, which then may be why it is there; nothing where it wants none.
    pub featured: &'a [bool],
    /// Whether an item may be listed.
    pub eligible: &'a [bool],
}

/// A sparse source: a user's score of an item is the user's row of `from` times `model`.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    /// Which source.
    pub source: Source,
    /// Users × anything: the user's recent history, or nearest neighbours.
    pub from: &'a Csr,
    /// The same × items.
    pub model: &'a Csr,
    /// What cold items have in it.
    pub heirs: Option<&'a Heirs>,
}

impl Linear<'_> {
    /// What the model's row gives an item.
    fn value(&self, row: u32, item: u32) -> f32 {
        self.heirs.map_or_else(|| self.model.value(row, item), |heirs| heirs.value(self.model, row, item))
    }
}

/// Why sources do not go together.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    /// A matrix is not as tall as the others.
    #[error("{matrix} has {found} rows; expected {expected}")]
    Rows {
        /// Which.
        matrix: &'static str,
        /// As many as there are users or items.
        expected: usize,
        /// What it has.
        found: usize,
    },
    /// User and item vectors of a source differ in length.
    #[error("{source_name}: users have {users} columns and items {items}")]
    Columns {
        /// Which source.
        source_name: &'static str,
        /// Of the users.
        users: usize,
        /// Of the items.
        items: usize,
    },
    /// What the rules add to an item is no number.
    #[error("rules: expected finite numbers")]
    NotFinite,
    /// A weight or limit that cannot be used.
    #[error("{problem}")]
    Config {
        /// What was expected and found.
        problem: String,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            top_k: TopK(100),
            exclude_seen: false,
            include_cold: false,
            weights: None,
            without: Vec::new(),
            trend_half_life_days: Days(7.0),
            rules: Rules::default(),
        }
    }
}

impl Days {
    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Days {
    type Error = Error;

    fn try_from(days: f64) -> Result<Self, Error> {
        if days.is_finite() && days > 0.0 {
            Ok(Self(days))
        } else {
            Err(Error::Config { problem: format!("expected a number of days above 0; found {days}") })
        }
    }
}

impl TopK {
    /// The number.
    pub fn get(self) -> usize {
        self.0
    }
}

impl TryFrom<usize> for TopK {
    type Error = Error;

    fn try_from(top_k: usize) -> Result<Self, Error> {
        if (1..=10_000).contains(&top_k) {
            Ok(Self(top_k))
        } else {
            Err(Error::Config { problem: format!("expected top_k from 1 to 10000; found {top_k}") })
        }
    }
}

impl Config {
    /// Whether the keys go together and are in range.
    ///
    /// # Errors
    /// Which are not.
    pub fn check(&self) -> Result<(), Error> {
        let both = self.without.iter().find(|source| self.weights.is_some_and(|all| all.of(**source) > 0.0));
        if let Some(source) = both.map(|source| source.name()) {
            let problem = format!(
                "`ranking.without`: expected sources without a weight in `ranking.weights`; found `{source}`"
            );
            return Err(Error::Config { problem });
        }
        self.rules.check()
    }
}

/// Fuses the sources: item vectors at once, user vectors as they are asked for.
///
/// # Errors
/// If the sources' shapes do not go together.
pub fn fuse<'a>(sources: Sources<'a>, mix: &Mix) -> Result<Fusion<'a>, Error> {
    Fusion::new(sources, mix)
}

#[cfg(test)]
mod tests;
