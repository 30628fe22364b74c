//! The sources that scores come from, and what each counts for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Error;

/// Where a score comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    /// Matrix factorisation.
    Factors,
    /// Similarity of the user's and the item's embeddings.
    Content,
    /// Popularity in the user's segment.
    Popularity,
    /// What the user turned to before.
    History,
    /// Ridge regression of items on items.
    Ease,
    /// The random walk from items over users to items.
    Walk,
    /// Cosines of items' users.
    Cosine,
    /// What follows what.
    Sequence,
    /// The low-pass filter of the interactions.
    Spectral,
    /// How likely the user is to turn to it again.
    Repeat,
    /// How many turned to it of late.
    Trend,
    /// What users turned to who resemble the user.
    Peers,
    /// What the job's rules add: no source of its own, and never weighed.
    Rules,
}

/// How many sources there are.
pub const N_SOURCES: usize = 13;

impl Source {
    /// All sources, in the order of contributions.
    pub const ALL: [Self; N_SOURCES] = [
        Self::Factors,
        Self::Content,
        Self::Popularity,
        Self::History,
        Self::Ease,
        Self::Walk,
        Self::Cosine,
        Self::Sequence,
        Self::Spectral,
        Self::Repeat,
        Self::Trend,
        Self::Peers,
        Self::Rules,
    ];

    /// All but the rules.
    pub fn weighed() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|source| *source != Self::Rules)
    }

    /// The source's name, as in `[ranking.weights]`; its published column is this and `_score`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Factors => "factors",
            Self::Content => "content",
            Self::Popularity => "popularity",
            Self::History => "history",
            Self::Ease => "ease",
            Self::Walk => "walk",
            Self::Cosine => "cosine",
            Self::Sequence => "sequence",
            Self::Spectral => "spectral",
            Self::Repeat => "repeat",
            Self::Trend => "trend",
            Self::Peers => "peers",
            Self::Rules => "rules",
        }
    }

    /// The source's published column.
    pub fn column(self) -> &'static str {
        match self {
            Self::Factors => "factors_score",
            Self::Content => "content_score",
            Self::Popularity => "popularity_score",
            Self::History => "history_score",
            Self::Ease => "ease_score",
            Self::Walk => "walk_score",
            Self::Cosine => "cosine_score",
            Self::Sequence => "sequence_score",
            Self::Spectral => "spectral_score",
            Self::Repeat => "repeat_score",
            Self::Trend => "trend_score",
            Self::Peers => "peers_score",
            Self::Rules => "rules_score",
        }
    }
}

impl TryFrom<String> for Source {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        Self::weighed().find(|source| source.name() == name).ok_or_else(|| {
            let known = Self::weighed().map(Self::name).collect::<Vec<_>>().join(", ");
            Error::Config { problem: format!("expected sources among {known}; found `{name}`") }
        })
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.name().to_owned()
    }
}

/// What each source counts for, in standard deviations. A source that is not named, or that a run does
/// not have, counts for nothing.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
#[serde(try_from = "BTreeMap<String, f32>", into = "BTreeMap<String, f32>")]
pub struct Weights([f32; N_SOURCES]);

impl Weights {
    /// Weights in the order of [`Source::ALL`].
    ///
    /// # Errors
    /// If one is negative or not finite, or none is above 0.
    pub fn new(weights: [f32; N_SOURCES]) -> Result<Self, Error> {
        if let Some(wrong) = weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
            return Err(Error::Config { problem: format!("expected weights of at least 0; found {wrong}") });
        }
        if weights.iter().all(|weight| *weight == 0.0) {
            return Err(Error::Config { problem: "expected one weight above 0; found none".to_owned() });
        }
        Ok(Self(weights))
    }

    /// One source alone.
    pub fn alone(source: Source) -> Self {
        let mut weights = [0.0; N_SOURCES];
        weights[source as usize] = 1.0;
        Self(weights)
    }

    /// Every source alike, so that contributions are plain standard scores.
    pub fn alike() -> Self {
        Self([1.0; N_SOURCES])
    }

    /// What a source counts for.
    pub fn of(&self, source: Source) -> f32 {
        self.0[source as usize]
    }
}

/// Weights of everybody, and of the users of each segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// What counts where a segment has no weights of its own.
    pub all: Weights,
    /// By segment; those past the end have none of their own.
    pub segments: Vec<Option<Weights>>,
}

impl From<Weights> for Mix {
    fn from(all: Weights) -> Self {
        Self { all, segments: Vec::new() }
    }
}

impl Mix {
    /// What counts for the users of a segment.
    pub fn of(&self, segment: u32) -> &Weights {
        self.segments.get(segment as usize).and_then(Option::as_ref).unwrap_or(&self.all)
    }

    /// Whether a source counts for anybody.
    pub fn counts(&self, source: Source) -> bool {
        let of = |weights: &Weights| weights.of(source) > 0.0;
        of(&self.all) || self.segments.iter().flatten().any(of)
    }
}

impl TryFrom<BTreeMap<String, f32>> for Weights {
    type Error = Error;

    fn try_from(named: BTreeMap<String, f32>) -> Result<Self, Error> {
        let mut weights = [0.0; N_SOURCES];
        for (name, weight) in named {
            weights[Source::try_from(name)? as usize] = weight;
        }
        Self::new(weights)
    }
}

impl From<Weights> for BTreeMap<String, f32> {
    fn from(weights: Weights) -> Self {
        Source::weighed().map(|source| (source.name().to_owned(), weights.of(source))).collect()
    }
}
