//! Linear models of a user's history: `score(u, i) = Σ_j h_uj · M_ji`.
//!
//! In: `interactions` (`n_users × n_items`; only which entries are there counts) and each user's items
//! in the order they came (`steps`, aligned with the entries). Out: [`Models`], one item-item matrix
//! each, applied by whoever ranks to a user's weighted history `h_u`:
//!
//! - **ease**: the ridge regression of every item on all others without itself, in closed form,
//!   `M = I - P / diag(P)`, `P = (X'UX + λI)^-1` (Steck, "Embarrassingly shallow autoencoders for sparse
//!   data", 2019; `U` is his identity there, and here `|u|^-½`, so that users of many items do not outvote
//!   the others). Dense and cubic in the items: of more than `ease_items`, each is regressed on its
//!   `ease_neighbours` nearest alone.
//! - **walk**: the linear graph filter `D^-α X' U^-¾ X D^-β`, `U` and `D` the degrees of users and
//!   items. With `U^-1` and `α = 1` it is the two-step random walk RP³β (Paudel et al., "Updatable, accurate,
//!   diverse and scalable recommendations for interactive applications", 2017), with `U^-1` and
//!   `α = β = ½` the first-order filter of GF-CF (Shen et al., "How powerful is graph convolution for
//!   recommendation?", 2021); users of many items say more than they would then.
//! - **cosine**: item-kNN with shrinkage (Sarwar et al., 2001; Deshpande and Karypis, 2004).
//! - **sequence**: what follows what, a few steps apart, either side normalised by its own frequency.
//! - **spectral**: the ideal low-pass filter `D^-½ Q Q' D^½`, `Q` the leading right singular vectors of
//!   the interactions `U^-⅖ X D^-½` (GF-CF's second part, but for `U`'s exponent of ½ there). Kept as two
//!   thin matrices, `D^-½ Q` and `D^½ Q`.
//! - **peers**: user-kNN, the one model whose rows are users: applied to a user's nearest neighbours, it
//!   gives what they turned to.
//!
//! A sparse matrix keeps the `kept` largest magnitudes of a row. Everything is a function of the input
//! and the seed alone: blocks are fixed, sums are ordered, ties go to the smaller index.
//!
//! **Cost.** ease: `n³` flops and `8 n²` bytes for `n` items, or `n (m³ / 3 + Σ_s d_s)` for `m` neighbours `s`
//! of `d_s` users each; walk and cosine: `Σ_u |u|²` additions;
//! peers: `Σ_i d_i²` additions up to a bound, and `8 · peers · n_users` bytes; spectral:
//! `iterations · rank · entries` multiply-adds and `8 · rank · n_items` bytes. The room knows
//! nothing of weights, times or which items may be listed.

use std::ops::RangeInclusive;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::matrix::{Csr, Dense};

mod counts;
mod ease;
mod local;
mod peers;
mod sequence;
mod spectral;

#[cfg(test)]
mod tests;

/// The job's `[linear]` table.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The largest catalogue that EASE takes in one inverse; of a larger one each item is regressed on its
    /// neighbours alone.
    pub ease_items: usize,
    /// How many neighbours those are.
    pub ease_neighbours: usize,
    /// EASE's λ: users that a pair of items must share before it counts. Where open, five times the users
    /// that an item has on average, at most 500.
    pub ease_regularization: Option<f64>,
    /// Entries a sparse model keeps of each row; fewer where there are very many items.
    pub kept: usize,
    /// Neighbours of a user; fewer where there are very many users, and 0 switches them off.
    pub peers: usize,
    /// Added to the denominator of a cosine.
    pub shrinkage: f64,
    /// How strongly the walk leaves frequent items' history out.
    pub walk_alpha: f64,
    /// How strongly the walk holds frequent items back.
    pub walk_beta: f64,
    /// How many steps apart items of a sequence may be; 0 switches it off.
    pub sequence_steps: usize,
    /// Singular vectors of the low-pass filter; 0 switches it off. Where open, see [`Config::spectral_rank`].
    pub spectral_rank: Option<usize>,
    /// Rounds of subspace iteration.
    pub spectral_iterations: usize,
    /// What an item of the history counts for against the one a step later, from above 0 to 1. Where it is
    /// open, what did best in validation, [`RECENCY`] where nothing does clearly better.
    pub recency: Option<f64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ease_items: 8_192,
            ease_neighbours: 100,
            ease_regularization: None,
            kept: 512,
            peers: 300,
            shrinkage: 20.0,
            walk_alpha: 0.5,
            walk_beta: 0.3,
            sequence_steps: 4,
            spectral_rank: None,
            spectral_iterations: 5,
            recency: None,
        }
    }
}

/// Item-item models, each `n_items × n_items`, rows the history's items, and peers. See the [room](self).
#[derive(Clone, Debug)]
pub struct Models {
    /// EASE, where it is on.
    pub ease: Option<Csr>,
    /// The normalised walk.
    pub walk: Option<Csr>,
    /// Shrunk cosines.
    pub cosine: Option<Csr>,
    /// What follows what, where it is on and times tell an order.
    pub sequence: Option<Csr>,
    /// `D^-½ Q` and `D^½ Q`, where it is on.
    pub spectral: Option<(Dense, Dense)>,
    /// Each user's neighbours, `n_users × n_users`, and what they turned to, `n_users × n_items`.
    pub peers: Option<(Csr, Csr)>,
}

/// Which models somebody has a use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// EASE.
    pub ease: bool,
    /// The normalised walk.
    pub walk: bool,
    /// Shrunk cosines.
    pub cosine: bool,
    /// What follows what.
    pub sequence: bool,
    /// The low-pass filter.
    pub spectral: bool,
    /// User-kNN.
    pub peers: bool,
}

impl Wanted {
    /// All of them.
    pub const ALL: Self =
        Self { ease: true, walk: true, cosine: true, sequence: true, spectral: true, peers: true };
}

/// One more model is fitted.
#[derive(Clone, Copy, Debug)]
pub struct Fitted {
    /// Models that are.
    pub done: usize,
    /// Models that are wanted.
    pub of: usize,
}

/// Why models could not be fitted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Steps and interactions differ in number.
    #[error("{steps} steps for {interactions} interactions")]
    Steps { steps: usize, interactions: usize },
    /// A key is out of range.
    #[error("`linear.{key}`: expected {expected}; found {found}")]
    Config { key: &'static str, expected: &'static str, found: f64 },
    /// A matrix came out with a value that is not finite.
    #[error("the {model} model has a value that is not finite")]
    NotFinite { model: &'static str },
}

/// Fits every model that is wanted and on. `steps[e]` is the place in its user's order of the entry `e` of
/// `interactions`, from 0 for the first; entries of one moment share a step. Empty where times tell
/// nothing.
///
/// # Errors
/// If lengths differ, a key is out of range, or a model is not finite.
pub fn fit(
    interactions: &Csr,
    steps: &[u32],
    wanted: Wanted,
    config: &Config,
    seed: u64,
    on_fitted: &mut dyn FnMut(Fitted),
) -> Result<Models, Error> {
    config.check()?;
    if !steps.is_empty() && steps.len() != interactions.n_entries() {
        return Err(Error::Steps { steps: steps.len(), interactions: interactions.n_entries() });
    }
    // Of users and items that no interaction names nothing may depend.
    let (n_users, n_items) = interactions.n_used();
    let config = &config.bounded(n_users, n_items);
    let by_item = interactions.transpose();
    let Wanted { ease, walk, cosine, sequence, spectral, peers } = wanted;
    let of = [ease, walk, cosine, sequence, spectral, peers].into_iter().filter(|wanted| *wanted).count();
    let mut done = 0;
    let mut told = |wanted: bool| {
        if wanted {
            done += 1;
            on_fitted(Fitted { done, of });
        }
    };
    let walk = wanted.walk.then(|| counts::walk(interactions, &by_item, config));
    told(wanted.walk);
    let is_local = wanted.ease && n_items > config.ease_items;
    let mut cosine = (wanted.cosine || is_local).then(|| counts::cosine(interactions, &by_item, config));
    told(wanted.cosine);
    let ease = wanted.ease.then(|| {
        let weights = ease::user_weights(interactions);
        let mean = interactions.n_entries() as f64 / n_items.max(1) as f64;
        let open = (USERS_OF_AN_ITEM * mean).clamp(f64::MIN_POSITIVE, MOST_USERS);
        let lambda = config.ease_regularization.unwrap_or(open);
        match &cosine {
            Some(cosine) if is_local => {
                local::fit(&by_item, cosine, &weights, (config.ease_neighbours, lambda))
            }
            _ => ease::fit(interactions, &by_item, &weights, (config.kept, lambda)),
        }
    });
    told(wanted.ease);
    cosine = cosine.filter(|_| wanted.cosine);
    let ordered = !steps.is_empty() && config.sequence_steps > 0;
    let sequence = (wanted.sequence && ordered).then(|| sequence::fit(interactions, &by_item, steps, config));
    told(wanted.sequence);
    let rank = config.spectral_rank(n_users, n_items).min(n_items / 2).min(n_users / 2);
    let spectral = match rank {
        rank if rank == 0 || !wanted.spectral => None,
        rank => Some(spectral::fit(interactions, &by_item, rank, config.spectral_iterations, seed)?),
    };
    told(wanted.spectral);
    let peers = (wanted.peers && config.peers > 0).then(|| peers::fit(interactions, &by_item, config));
    told(wanted.peers);
    Ok(Models { ease, walk, cosine, sequence, spectral, peers })
}

/// Users in the space of a low-pass filter: `Σ_j h_uj · inputs_j`, `n_users × rank`.
pub fn project(history: &Csr, inputs: &Dense) -> Dense {
    let rank = inputs.n_cols();
    let mut users = Dense::zeros(history.n_rows(), rank);
    users.values_mut().par_chunks_mut(rank.max(1)).enumerate().for_each(|(user, target)| {
        let (items, weights) = history.row(user);
        for (item, weight) in items.iter().zip(weights) {
            let row = inputs.row(*item as usize);
            target.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
        }
    });
    users
}

/// What an item of the history counts for against the one a step later, where nothing tells better.
pub const RECENCY: f64 = 0.7;

/// EASE's λ where it is open, in users of the mean item: on data from 0.01 % to 5 % dense the best values lie
/// within a factor of two of this, while they differ twentyfold.
const USERS_OF_AN_ITEM: f64 = 5.0;
/// The most that λ then is: Steck finds 200, 500 and 1,000 best where items have hundreds to thousands of users.
const MOST_USERS: f64 = 500.0;

/// Items that a singular vector stands for where the filter's rank is open, and the ranks it is then among.
const ITEMS_A_VECTOR: usize = 64;
const OPEN_RANKS: RangeInclusive<usize> = 64..=512;

/// Pairs of users of one item that peers are looked for among, at most: beyond it the most frequent items,
/// which say least of who resembles whom, are left out.
pub const MOST_PAIRS: f64 = 4e9;
/// Entries of a sparse model, at most, but for ten a row.
const MOST_ENTRIES: usize = 30_000_000;
/// Numbers in the vectors of all users and items, at most, where the filter's rank is open.
const MOST_VALUES: usize = 60_000_000;
/// Neighbours that all users have together, at most.
const MOST_NEIGHBOURS: usize = 30_000_000;

impl Config {
    /// The neighbours of a user among this many.
    pub fn peers(&self, n_users: usize) -> usize {
        self.peers.min((MOST_NEIGHBOURS / n_users.max(1)).max(10))
    }

    /// The entries of a row of a model of this many items.
    pub fn kept(&self, n_items: usize) -> usize {
        self.kept.min((MOST_ENTRIES / n_items.max(1)).max(10))
    }

    /// The filter's rank for this many users and items.
    pub fn spectral_rank(&self, n_users: usize, n_items: usize) -> usize {
        let open = (n_items / ITEMS_A_VECTOR).clamp(*OPEN_RANKS.start(), *OPEN_RANKS.end());
        self.spectral_rank.unwrap_or(open.min(MOST_VALUES / (n_users + n_items).max(1)))
    }

    /// The same with what this many users and items leave of its sizes.
    fn bounded(&self, n_users: usize, n_items: usize) -> Self {
        Self { kept: self.kept(n_items), peers: self.peers(n_users), ..self.clone() }
    }

    /// Whether every key is in range.
    ///
    /// # Errors
    /// Which is not.
    pub fn check(&self) -> Result<(), Error> {
        let above_0 = |key, found: f64| {
            if found.is_finite() && found > 0.0 {
                return Ok(());
            }
            Err(Error::Config { key, expected: "a number above 0", found })
        };
        above_0("ease_regularization", self.ease_regularization.unwrap_or(1.0))?;
        above_0("kept", self.kept as f64)?;
        let recency = self.recency.unwrap_or(RECENCY);
        above_0("recency", recency)?;
        for (key, found) in
            [("shrinkage", self.shrinkage), ("walk_alpha", self.walk_alpha), ("walk_beta", self.walk_beta)]
        {
            if !(found.is_finite() && found >= 0.0) {
                return Err(Error::Config { key, expected: "a number of at least 0", found });
            }
        }
        if recency > 1.0 {
            return Err(Error::Config { key: "recency", expected: "at most 1", found: recency });
        }
        Ok(())
    }
}

/// The `kept` entries of the largest magnitude, by ascending column; of equals the smaller columns. They are copied: rows
/// that are cut where they lie leave holes that no row after them fits into.
fn prune(row: &mut Vec<(u32, f32)>, kept: usize) -> Vec<(u32, f32)> {
    if row.len() > kept {
        row.select_nth_unstable_by(kept, |a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
        row.truncate(kept);
    }
    row.sort_unstable_by_key(|entry| entry.0);
    row.as_slice().to_vec()
}
