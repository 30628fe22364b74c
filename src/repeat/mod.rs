//! How likely a user is to turn to an item again.
//!
//! In: which items each visit (a session, a basket) of a user held, and when. Out: users × items, a score
//! from 0 to 1 for every item the user turned to before.
//!
//! **The rate.** An item that a user took in `n` visits had `o` further chances to be taken: the user's
//! visits after the first with it. Taking it again is a Bernoulli trial a visit whose rate is the user's own
//! for that item; rates of one item are Beta distributed around the item's rate `r_i`, and items' around the
//! rate of all, so that the expected rate is
//!
//! ```text
//! p = (n - 1 + prior_visits · r_i) / (o + prior_visits)
//! r_i = (Σ_users (n - 1) + item_prior_visits · r) / (Σ_users o + item_prior_visits)
//! ```
//!
//! and `1 / r_i` is the item's repurchase cycle, in visits. `p` is halved every `half_life_days` since the
//! user last took the item. It is the repeat-purchase model of Bhagat, Muralidharan, Lobzhanidze and
//! Vishwanath ("Buy it again: modeling repeat purchase recommendations", 2018), its Poisson process in
//! time replaced by trials in visits: shops are visited irregularly.
//!
//! **What else counts.** A rate says nothing of how long ago a habit began, nor of how an item does of late.
//! So the last `horizon_days` of the visits are a lesson: logistic regression of whether a pair came again
//! in them on what was known before (`features`), the rate among it. Its probabilities, from what is known
//! at the end, take the place of `p`. Where fewer than 200 pairs came again there is no lesson,
//! and `p` stays.
//!
//! The published score is `ln(1 + 100 p) / ln(101)`, since ranks depend on ratios of small rates.
//!
//! **Cost.** A sort of each user's visits, twice; the lesson takes at most a million pairs. Memory
//! linear in the input. The room knows nothing of weights, prices or what may be listed, and sees no visit
//! but those it is given.

use serde::{Deserialize, Serialize};

use crate::matrix::Csr;

mod features;
mod logistic;
mod pairs;
#[cfg(test)]
mod tests;

use features::{Features, N_FEATURES};
use logistic::Logistic;
use pairs::Known;

/// The job's `[repeat]` table.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Visits that an item's rate counts for beside the user's own.
    pub prior_visits: f64,
    /// Visits that the rate of all items counts for beside an item's own.
    pub item_prior_visits: f64,
    /// Days after which a rate has halved.
    pub half_life_days: f64,
    /// The last days of the visits that are learned from; also what counts as of late.
    pub horizon_days: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { prior_visits: 8.0, item_prior_visits: 20.0, half_life_days: 120.0, horizon_days: 28.0 }
    }
}

/// One row a visit and item of it, in the order of users and visits.
#[derive(Clone, Debug, Default)]
pub struct Visits {
    /// Whose.
    pub users: Vec<u32>,
    /// Which visit; a visit has one user.
    pub visits: Vec<u32>,
    /// Which item.
    pub items: Vec<u32>,
    /// When, in microseconds since 1970 UTC.
    pub times: Vec<i64>,
}

/// Why there are no scores.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key is out of range.
    #[error("`repeat.{key}`: expected a number above 0; found {found}")]
    Config { key: &'static str, found: f64 },
    /// Columns differ in length, or rows are not in the order of users.
    #[error("visits: expected columns of one length in the order of users")]
    Visits,
}

/// Pairs that must have come again before a lesson is taken from them.
const LEAST_AGAIN: usize = 200;
/// The most pairs that a lesson takes; of more, every second, third, … user's.
const MOST_EXAMPLES: usize = 1_000_000;
const DAY_US: f64 = 86_400e6;

impl Config {
    /// Whether every key is in range.
    ///
    /// # Errors
    /// Which is not.
    pub fn check(&self) -> Result<(), Error> {
        let keys = [
            ("prior_visits", self.prior_visits),
            ("item_prior_visits", self.item_prior_visits),
            ("half_life_days", self.half_life_days),
            ("horizon_days", self.horizon_days),
        ];
        match keys.into_iter().find(|(_, value)| !(value.is_finite() && *value > 0.0)) {
            Some((key, found)) => Err(Error::Config { key, found }),
            None => Ok(()),
        }
    }
}

/// The score of every pair of `interactions` (`n_users × n_items`; its values are not looked at). What a
/// visit held beside these pairs is as if it had not been.
///
/// # Errors
/// If a key is out of range or the visits are not sound.
pub fn fit(interactions: &Csr, visits: &Visits, config: &Config) -> Result<Csr, Error> {
    config.check()?;
    let n_rows = visits.users.len();
    let aligned = [visits.visits.len(), visits.items.len(), visits.times.len()];
    if aligned.iter().any(|len| *len != n_rows) || !visits.users.is_sorted() {
        return Err(Error::Visits);
    }
    let end = visits.times.iter().max().map_or(0, |last| last + 1);
    let model = lesson(interactions, visits, end, config);
    let known = Known::before(interactions, visits, end);
    let features = Features::new(&known, interactions.n_cols(), config);
    Ok(known.scores(interactions.n_cols(), |pair| {
        let likely = match &model {
            Some(model) => model.probability(&features.of(pair)),
            None => features.rate(pair),
        };
        ((100.0 * likely).ln_1p() / 101f64.ln()) as f32
    }))
}

/// What the last days of the visits teach, where they teach anything: of the users who came back in them,
/// which pairs came again.
fn lesson(interactions: &Csr, visits: &Visits, end: i64, config: &Config) -> Option<Logistic<N_FEATURES>> {
    let cut = end - (config.horizon_days * DAY_US) as i64;
    let known = Known::before(interactions, visits, cut);
    let features = Features::new(&known, interactions.n_cols(), config);
    let stride = known.n_pairs().div_ceil(MOST_EXAMPLES).max(1);
    let (mut examples, mut came_again) = (Vec::new(), Vec::new());
    for user in (0..known.users.len()).step_by(stride) {
        let taken = pairs::taken(interactions.row(user).0, visits, user, cut..end);
        if !taken.is_empty() {
            examples.extend(known.users[user].iter().map(|pair| features.of(pair)));
            came_again.extend(known.users[user].iter().map(|pair| taken.binary_search(&pair.item).is_ok()));
        }
    }
    let n_again = came_again.iter().filter(|again| **again).count();
    if n_again < LEAST_AGAIN || came_again.len() - n_again < LEAST_AGAIN {
        return None;
    }
    Logistic::fit(&examples, &came_again)
}
