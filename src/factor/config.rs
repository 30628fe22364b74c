//! What may be set, its defaults and its bounds.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::matrix::Csr;

/// The factorisation's parameters; every one changes the output.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Numbers in a factor, 1 to 512.
    pub rank: usize,
    /// Sweeps over both sides, 1 to 1000.
    pub iterations: usize,
    /// The weight of every pair's pull towards zero, against an observed pair's own weight; above 0.
    pub unobserved_weight: f64,
    /// The strength of regularisation; above 0.
    pub regularization: f64,
    /// 0 regularises all entities alike, 1 in proportion to the pairs that bear on them; 0 to 2.
    pub regularization_exponent: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rank: 64,
            iterations: 16,
            unobserved_weight: 0.1,
            regularization: 0.003,
            regularization_exponent: 1.0,
        }
    }
}

/// The job's `[factors]` table: as [`Config`], but what depends on the size of the data may be left open.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "Given")]
pub struct Keys {
    /// As in [`Config`]; where open, see [`Keys::rank`].
    pub rank: Option<usize>,
    /// As in [`Config`].
    pub iterations: usize,
    /// As in [`Config`]; where open, all pairs together weigh ten times what was observed.
    pub unobserved_weight: Option<f64>,
    /// As in [`Config`]; where open, a hundredth to a tenth of the observed weight, more where users turned
    /// to more, spread over the pairs that bear on an entity.
    pub regularization: Option<f64>,
    /// As in [`Config`].
    pub regularization_exponent: f64,
    /// Whether a night's first factors begin where an earlier night's ended.
    pub warm_start: bool,
}

/// What all pairs weigh together against the observed ones. Values tuned on data from 0.01 % to 5 % dense
/// lie within a factor of three of this, while the weight of a pair differs a hundredfold.
const UNOBSERVED_SHARE: f64 = 10.0;
/// Items of a user at which the regularisation of an entity would be its observed weight, on average, and
/// the bounds of that share. Of few items a strong pull leaves nothing; of many a weak one leaves noise.
const REGULARIZATION_ITEMS: f64 = 500.0;
const REGULARIZATION_SHARES: RangeInclusive<f64> = 0.01..=0.1;

impl Default for Keys {
    fn default() -> Self {
        let Config { iterations, regularization_exponent, .. } = Config::default();
        Self {
            rank: None,
            iterations,
            unobserved_weight: None,
            regularization: None,
            regularization_exponent,
            warm_start: false,
        }
    }
}

/// Items that a dimension stands for where the rank is open, and the ranks that it is then among.
const ITEMS_A_RANK: usize = 160;
const OPEN_RANKS: RangeInclusive<usize> = 64..=256;
/// Numbers in all factors, at most, but for the least of these ranks.
const MOST_VALUES: usize = 200_000_000;

impl Keys {
    /// The rank for this many users and items: small catalogues are overfitted by what large ones need, and what
    /// all factors take is bounded.
    pub fn rank(&self, n_users: usize, n_items: usize) -> usize {
        let (least, most) = (*OPEN_RANKS.start(), *OPEN_RANKS.end());
        let fits = (MOST_VALUES / (n_users + n_items).max(1)).max(least);
        self.rank.unwrap_or((n_items / ITEMS_A_RANK).clamp(least, most).min(fits))
    }

    /// The configuration for these interactions. Users and items without any have no part in it, so that what
    /// a window knows nothing of changes nothing.
    pub fn config(&self, interactions: &Csr) -> Config {
        let (n_users, n_items) = interactions.n_used();
        let observed =
            |user: usize| interactions.row(user).1.iter().map(|weight| f64::from(*weight)).sum::<f64>();
        let weight = (0..interactions.n_rows()).map(observed).sum::<f64>().max(f64::MIN_POSITIVE);
        let n_pairs = (n_users as f64 * n_items as f64).max(1.0);
        let unobserved_weight = self.unobserved_weight.unwrap_or(UNOBSERVED_SHARE * weight / n_pairs);
        let bearing = interactions.n_entries() as f64 + unobserved_weight * n_pairs;
        let items_a_user = interactions.n_entries() as f64 / n_users.max(1) as f64;
        let (least, most) = (REGULARIZATION_SHARES.start(), REGULARIZATION_SHARES.end());
        let share = (items_a_user / REGULARIZATION_ITEMS).clamp(*least, *most);
        let regularization = self.regularization.unwrap_or(share * weight / bearing);
        let Self { iterations, regularization_exponent, .. } = *self;
        let rank = self.rank(n_users, n_items);
        Config { rank, iterations, unobserved_weight, regularization, regularization_exponent }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let Config { unobserved_weight, regularization, .. } = Config::default();
        let Self { iterations, regularization_exponent, .. } = *self;
        let rank = self.rank(0, 0);
        let unobserved_weight = self.unobserved_weight.unwrap_or(unobserved_weight);
        let regularization = self.regularization.unwrap_or(regularization);
        Config { rank, iterations, unobserved_weight, regularization, regularization_exponent }.validate()
    }
}

/// A parameter is out of its bounds.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("`{key}` is {found}, expected {expected}")]
pub struct ConfigError {
    /// The key as the job file spells it.
    pub key: &'static str,
    /// What would have been accepted.
    pub expected: &'static str,
    /// What was given.
    pub found: f64,
}

/// How many times fewer sweeps a start near the solution takes.
const WARM: usize = 4;

impl Config {
    /// Operations of a sweep over these interactions, at most: conjugate gradients of each entity's pairs, and
    /// Gram matrices and turns of both sides. Entities that are solved early take fewer.
    pub fn flops_a_sweep(&self, interactions: &Csr) -> f64 {
        let (rank, n_pairs) = (self.rank as f64, interactions.n_entries() as f64);
        let n_entities = (interactions.n_rows() + interactions.n_cols()) as f64;
        8.0 * super::sweep::STEPS as f64 * n_pairs * rank + 6.0 * n_entities * rank * rank
    }

    /// The same for a start from what much the same interactions gave.
    pub fn warmed(&self) -> Self {
        Self { iterations: self.iterations.div_ceil(WARM), ..self.clone() }
    }

    /// Whether every parameter is within its bounds.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let checks = [
            ("rank", (1..=512).contains(&self.rank), "an integer from 1 to 512", self.rank as f64),
            (
                "iterations",
                (1..=1000).contains(&self.iterations),
                "an integer from 1 to 1000",
                self.iterations as f64,
            ),
            (
                "unobserved_weight",
                positive(self.unobserved_weight),
                "a number above 0",
                self.unobserved_weight,
            ),
            ("regularization", positive(self.regularization), "a number above 0", self.regularization),
            (
                "regularization_exponent",
                (0.0..=2.0).contains(&self.regularization_exponent),
                "a number from 0 to 2",
                self.regularization_exponent,
            ),
        ];
        match checks.into_iter().find(|check| !check.1) {
            Some((key, _, expected, found)) => Err(ConfigError { key, expected, found }),
            None => Ok(()),
        }
    }

    /// An entity's own regularisation, from its observed entries and the size of the other side.
    pub(super) fn regularization_of(&self, n_entries: usize, n_other: usize) -> f64 {
        let pairs = n_entries as f64 + self.unobserved_weight * n_other as f64;
        self.regularization * pairs.powf(self.regularization_exponent)
    }
}

/// The table as it is written; a missing key takes its default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    rank: Option<usize>,
    iterations: Option<usize>,
    unobserved_weight: Option<f64>,
    regularization: Option<f64>,
    regularization_exponent: Option<f64>,
    warm_start: Option<bool>,
}

impl TryFrom<Given> for Keys {
    type Error = ConfigError;

    fn try_from(given: Given) -> Result<Self, ConfigError> {
        let default = Self::default();
        let keys = Self {
            rank: given.rank,
            iterations: given.iterations.unwrap_or(default.iterations),
            unobserved_weight: given.unobserved_weight,
            regularization: given.regularization,
            regularization_exponent: given.regularization_exponent.unwrap_or(default.regularization_exponent),
            warm_start: given.warm_start.unwrap_or(default.warm_start),
        };
        keys.check()?;
        Ok(keys)
    }
}
