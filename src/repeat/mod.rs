//! How likely a user is to turn to an item again.
//!
//! In: which items each visit (a session, a basket) of a user held, and when. Out: users × items, a score
//! from 0 to 1 for every item the user turned to before.
//!
//! An item that a user took in `n` visits had `o` further chances to be taken: the user's visits after
//! the first with it. Taking it again is a Bernoulli trial a visit whose rate is the user's own for that
//! item; rates of one item are Beta distributed around the item's rate `r_i`, and items' around the rate
//! of all, so that the expected rate is
//!
//! ```text
//! p = (n - 1 + prior_visits · r_i) / (o + prior_visits)
//! r_i = (Σ_users (n - 1) + item_prior_visits · r) / (Σ_users o + item_prior_visits)
//! ```
//!
//! and `1 / r_i` is the item's repurchase cycle, in visits. `p` is halved every `half_life_days` since the
//! user last took the item. It is the repeat-purchase model of Bhagat, Muralidharan, Lobzhanidze and
//! Vishwanath ("Buy it again: modeling repeat purchase recommendations", 2018), its Poisson process in
//! time replaced by trials in visits: shops are visited irregularly. The published score is
//! `ln(1 + 100 p) / ln(101)`, since ranks depend on ratios of small rates.
//!
//! **Cost.** A sort of each user's visits; memory linear in the input. The room knows nothing of weights,
//! prices or what may be listed.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::matrix::Csr;

#[cfg(test)]
mod tests;

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
}

impl Default for Config {
    fn default() -> Self {
        Self { prior_visits: 8.0, item_prior_visits: 20.0, half_life_days: 120.0 }
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
        ];
        match keys.into_iter().find(|(_, value)| !(value.is_finite() && *value > 0.0)) {
            Some((key, found)) => Err(Error::Config { key, found }),
            None => Ok(()),
        }
    }
}

/// What a user did with an item.
struct Pair {
    item: u32,
    /// Visits with the item.
    n_visits: u64,
    /// Visits after the first with the item.
    n_chances: u64,
    last_time: i64,
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
    let of_user = |user: usize| {
        let (first, end) = (
            visits.users.partition_point(|other| (*other as usize) < user),
            visits.users.partition_point(|other| (*other as usize) <= user),
        );
        pairs(interactions.row(user).0, visits, first..end)
    };
    let users: Vec<Vec<Pair>> = (0..interactions.n_rows()).into_par_iter().map(of_user).collect();

    let mut of_item = vec![(0u64, 0u64); interactions.n_cols()];
    for pair in users.iter().flatten() {
        let (again, chances) = &mut of_item[pair.item as usize];
        *again += pair.n_visits - 1;
        *chances += pair.n_chances;
    }
    let all = of_item.iter().fold((0, 0), |sum, item| (sum.0 + item.0, sum.1 + item.1));
    let rate = all.0 as f64 / all.1.max(1) as f64;
    let item_rate = |item: u32| {
        let (again, chances) = of_item[item as usize];
        (again as f64 + config.item_prior_visits * rate) / (chances as f64 + config.item_prior_visits)
    };
    let now = users.iter().flatten().map(|pair| pair.last_time).max().unwrap_or(0);
    let score = |pair: &Pair| {
        let again = (pair.n_visits - 1) as f64 + config.prior_visits * item_rate(pair.item);
        let days = (now - pair.last_time) as f64 / 86_400e6;
        let rate =
            again / (pair.n_chances as f64 + config.prior_visits) * (-days / config.half_life_days).exp2();
        ((100.0 * rate).ln_1p() / 101f64.ln()) as f32
    };
    let rows = users.par_iter().map(|pairs| pairs.iter().map(|pair| (pair.item, score(pair))).collect());
    Ok(Csr::from_rows(interactions.n_cols(), rows.collect()))
}

/// A user's pairs, by item. `known` are the items that count, ascending.
fn pairs(known: &[u32], visits: &Visits, rows: std::ops::Range<usize>) -> Vec<Pair> {
    let counts = |row: &usize| known.binary_search(&visits.items[*row]).is_ok();
    let kept: Vec<usize> = rows.filter(counts).collect();
    // A visit begins with its first item; of visits that begin together the smaller number comes first.
    let mut begun: Vec<(u32, i64)> =
        kept.iter().map(|row| (visits.visits[*row], visits.times[*row])).collect();
    begun.sort_unstable();
    begun.dedup_by_key(|visit| visit.0);
    let mut order: Vec<(i64, u32)> = begun.into_iter().map(|(visit, time)| (time, visit)).collect();
    order.sort_unstable();
    let mut place: Vec<(u32, u64)> = order.iter().zip(0..).map(|((_, visit), at)| (*visit, at)).collect();
    place.sort_unstable();
    let n_visits = place.len() as u64;

    let mut taken: Vec<(u32, u64, i64)> = Vec::with_capacity(kept.len());
    for row in kept {
        if let Ok(at) = place.binary_search_by_key(&visits.visits[row], |visit| visit.0) {
            taken.push((visits.items[row], place[at].1, visits.times[row]));
        }
    }
    taken.sort_unstable();
    taken.dedup_by_key(|(item, visit, _)| (*item, *visit));
    taken
        .chunk_by(|a, b| a.0 == b.0)
        .map(|of_item| Pair {
            item: of_item[0].0,
            n_visits: of_item.len() as u64,
            n_chances: n_visits - 1 - of_item[0].1,
            last_time: of_item.iter().map(|taken| taken.2).max().unwrap_or(0),
        })
        .collect()
}
