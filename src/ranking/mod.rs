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
//! users compare. The user's own history is sparse and enters as
//! `weight · ln(1 + w) / ln(1 + max w)`, from 0 to `weight`.
//!
//! Cost: one covariance per source, `O(n_items · d²)`; `O(d²)` a user; `O(d · 100)` an explained row.
//! The room never retrieves, never filters, and never sees ids or titles.

use serde::{Deserialize, Serialize};

use crate::matrix::{Csr, Dense};

mod explain;
mod fusion;

pub use explain::{Ranked, Reason, Source};
pub use fusion::Fusion;

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
    /// What each source counts for, in standard deviations.
    pub weights: Weights,
}

/// From 1 to 10,000.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(try_from = "usize")]
pub struct TopK(usize);

/// What each source counts for. A source that a run does not have counts for nothing.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, try_from = "RawWeights")]
pub struct Weights {
    /// Matrix factorisation.
    pub factors: f32,
    /// Similarity of the user's and the item's embeddings.
    pub content: f32,
    /// Popularity in the user's segment.
    pub popularity: f32,
    /// What the user turned to before.
    pub history: f32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawWeights {
    factors: f32,
    content: f32,
    popularity: f32,
    history: f32,
}

/// What users and items have in each source.
pub struct Sources<'a> {
    /// Users × rank and items × rank.
    pub factors: Option<(&'a Dense, &'a Dense)>,
    /// Users × dim and items × dim; a zero row is a user or item without text.
    pub content: Option<(&'a Dense, &'a Dense)>,
    /// Each user's segment.
    pub segments: &'a [u32],
    /// Items × segments.
    pub popularity: &'a Dense,
    /// Users × items: decayed weights.
    pub history: &'a Csr,
    /// Whether an item may be listed.
    pub eligible: &'a [bool],
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
    /// A weight or limit that cannot be used.
    #[error("{problem}")]
    Config {
        /// What was expected and found.
        problem: String,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self { top_k: TopK(100), exclude_seen: false, include_cold: false, weights: Weights::default() }
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self { factors: 1.0, content: 0.5, popularity: 0.1, history: 0.0 }
    }
}

impl Default for RawWeights {
    fn default() -> Self {
        let Weights { factors, content, popularity, history } = Weights::default();
        Self { factors, content, popularity, history }
    }
}

impl TryFrom<RawWeights> for Weights {
    type Error = Error;

    fn try_from(raw: RawWeights) -> Result<Self, Error> {
        let RawWeights { factors, content, popularity, history } = raw;
        let all = [factors, content, popularity, history];
        if let Some(wrong) = all.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
            return Err(Error::Config { problem: format!("expected weights of at least 0; found {wrong}") });
        }
        if all.iter().all(|weight| *weight == 0.0) {
            return Err(Error::Config { problem: "expected one weight above 0; found none".to_owned() });
        }
        Ok(Self { factors, content, popularity, history })
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

/// Fuses the sources: item vectors at once, user vectors as they are asked for.
///
/// # Errors
/// If the sources' shapes do not go together.
pub fn fuse<'a>(sources: Sources<'a>, weights: &Weights) -> Result<Fusion<'a>, Error> {
    Fusion::new(sources, weights)
}

#[cfg(test)]
mod tests;
