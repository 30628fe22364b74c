//! Users' tastes: one embedding, and the categories, brands, terms and prices they turn to.
//!
//! A user's embedding minimises `Σ w_i |p - M(x_i)|² + λ |p|²` over the user's items and searches
//! `x_i` with decayed weights `w_i` and text embeddings `M(x_i)`, so `p = Σ w M(x) / (Σ w + λ)`: with
//! little evidence it stays near zero instead of pretending to know. Items without text do not count.
//! Tastes are shares of the user's weight, so they sum to at most 1, the largest first.
//!
//! Cost: one pass over interactions and searches, `O(entries · dim)`. The room reads no file and
//! never sees an id.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::matrix::{Csr, Dense, DenseError};

mod terms;

pub use terms::Terms;

/// The job's `[profile]` table.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// λ above, in units of an event's weight.
    pub regularization: Regularization,
    /// Categories kept a user.
    pub categories: usize,
    /// Brands kept a user.
    pub brands: usize,
    /// Terms kept a user.
    pub terms: usize,
}

/// At least 0 and finite.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
#[serde(try_from = "f32")]
pub struct Regularization(f32);

impl Default for Config {
    fn default() -> Self {
        Self { regularization: Regularization(1.0), categories: 5, brands: 5, terms: 10 }
    }
}

impl TryFrom<f32> for Regularization {
    type Error = String;

    fn try_from(value: f32) -> Result<Self, String> {
        if value.is_finite() && value >= 0.0 {
            Ok(Self(value))
        } else {
            Err(format!("expected a number of at least 0; found {value}"))
        }
    }
}

/// What users turned to, and what that is.
pub struct Inputs<'a> {
    /// Users × items, decayed weights.
    pub history: &'a Csr,
    /// Items × dim; a zero row is an item without text.
    pub items: Option<&'a Dense>,
    /// Users × queries, and queries × dim.
    pub searches: Option<(&'a Csr, &'a Dense)>,
    /// Each item's category, as a code.
    pub categories: &'a [Option<u32>],
    /// Each item's brand, as a code.
    pub brands: &'a [Option<u32>],
    /// Each item's price.
    pub prices: &'a [Option<f64>],
    /// Items × terms, by importance.
    pub terms: &'a Csr,
}

/// Users' tastes; position `u` of each list is user `u`.
pub struct Profiles {
    /// Users × dim, where items have embeddings.
    pub embeddings: Option<Dense>,
    /// Category and share.
    pub categories: Vec<Vec<(u32, f32)>>,
    /// Brand and share.
    pub brands: Vec<Vec<(u32, f32)>>,
    /// Term and share.
    pub terms: Vec<Vec<(u32, f32)>>,
    /// The 10th and 90th percentile, by weight, of the prices of a user's items.
    pub price_bands: Vec<Option<(f64, f64)>>,
}

/// Why there are no profiles.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A column is not as long as there are items.
    #[error("{column} has {found} entries; expected {expected} items")]
    Length {
        /// Which.
        column: &'static str,
        /// As many as there are items.
        expected: usize,
        /// What it has.
        found: usize,
    },
    /// An embedding is not finite.
    #[error("a user's embedding is not finite")]
    NotFinite(#[from] DenseError),
}

/// Makes every user's profile, users in parallel.
///
/// # Errors
/// If a column's length is not the number of items, or an embedding is not finite.
pub fn profile(inputs: &Inputs, config: &Config) -> Result<Profiles, Error> {
    let (n_users, n_items) = (inputs.history.n_rows(), inputs.history.n_cols());
    let lengths = [
        ("categories", inputs.categories.len()),
        ("brands", inputs.brands.len()),
        ("prices", inputs.prices.len()),
        ("terms", inputs.terms.n_rows()),
        ("items", inputs.items.map_or(n_items, Dense::n_rows)),
    ];
    if let Some((column, found)) = lengths.into_iter().find(|(_, found)| *found != n_items) {
        return Err(Error::Length { column, expected: n_items, found });
    }
    let embeddings = match inputs.items {
        None => None,
        Some(items) => {
            let dim = items.n_cols();
            let mut values = vec![0f32; n_users * dim];
            values.par_chunks_mut(dim.max(1)).enumerate().for_each(|(user, row)| {
                embed(inputs, items, user, config.regularization.0, row);
            });
            Some(Dense::from_vec(n_users, dim, values)?)
        }
    };
    let users = 0..n_users;
    let shares = |codes: &[Option<u32>], most: usize| -> Vec<Vec<(u32, f32)>> {
        let of_user = |user: usize| {
            let (items, weights) = inputs.history.row(user);
            let coded = items
                .iter()
                .zip(weights)
                .filter_map(|(item, weight)| Some((codes[*item as usize]?, *weight)));
            largest_shares(coded.collect(), weights.iter().sum(), most)
        };
        users.clone().into_par_iter().map(of_user).collect()
    };
    let terms_of = |user: usize| {
        let (items, weights) = inputs.history.row(user);
        let weighed = items.iter().zip(weights).flat_map(|(item, weight)| {
            let (terms, importance) = inputs.terms.row(*item as usize);
            terms.iter().zip(importance).map(move |(term, importance)| (*term, weight * importance))
        });
        let weighed: Vec<(u32, f32)> = weighed.collect();
        let total = weighed.iter().map(|entry| entry.1).sum();
        largest_shares(weighed, total, config.terms)
    };
    Ok(Profiles {
        embeddings,
        categories: shares(inputs.categories, config.categories),
        brands: shares(inputs.brands, config.brands),
        terms: users.clone().into_par_iter().map(terms_of).collect(),
        price_bands: users.into_par_iter().map(|user| price_band(inputs, user)).collect(),
    })
}

fn embed(inputs: &Inputs, items: &Dense, user: usize, regularization: f32, row: &mut [f32]) {
    let mut total = regularization;
    let mut add = |vector: &[f32], weight: f32| {
        if vector.iter().all(|value| *value == 0.0) {
            return;
        }
        total += weight;
        row.iter_mut().zip(vector).for_each(|(sum, value)| *sum += weight * value);
    };
    let (own, weights) = inputs.history.row(user);
    for (item, weight) in own.iter().zip(weights) {
        add(items.row(*item as usize), *weight);
    }
    if let Some((searches, queries)) = inputs.searches {
        let (asked, weights) = searches.row(user);
        for (query, weight) in asked.iter().zip(weights) {
            add(queries.row(*query as usize), *weight);
        }
    }
    if total > 0.0 {
        row.iter_mut().for_each(|value| *value /= total);
    }
}

/// Sums weights by code; the largest shares of `total` first, equal ones by code.
fn largest_shares(mut coded: Vec<(u32, f32)>, total: f32, most: usize) -> Vec<(u32, f32)> {
    coded.sort_by_key(|entry| entry.0);
    let mut sums: Vec<(u32, f32)> = coded
        .chunk_by(|a, b| a.0 == b.0)
        .map(|same| (same[0].0, same.iter().map(|entry| entry.1).sum::<f32>() / total.max(f32::MIN_POSITIVE)))
        .collect();
    sums.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    sums.truncate(most);
    sums
}

fn price_band(inputs: &Inputs, user: usize) -> Option<(f64, f64)> {
    let (items, weights) = inputs.history.row(user);
    let priced = items.iter().zip(weights);
    let mut priced: Vec<(f64, f64)> =
        priced.filter_map(|(item, w)| Some((inputs.prices[*item as usize]?, f64::from(*w)))).collect();
    priced.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: f64 = priced.iter().map(|entry| entry.1).sum();
    let percentile = |share: f64| {
        let mut sum = 0.0;
        priced.iter().find(|entry| {
            sum += entry.1;
            sum >= share * total
        })
    };
    Some((percentile(0.1)?.0, percentile(0.9)?.0))
}

#[cfg(test)]
mod tests;
