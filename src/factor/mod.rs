//! Interactions to factors: implicit-feedback matrix factorisation by alternating least squares.
//!
//! In go the weights of `n_users × n_items` observed interactions, each above zero; out come
//! `n_users × rank` user factors `x` and `n_items × rank` item factors `y`, row-major, whose inner
//! products rank the items for a user. They minimise, over all pairs, observed ones included,
//!
//! ```text
//! sum_observed w (1 - x.y)²  +  unobserved_weight · sum_all (x.y)²  +  sum_e regularization_e |e|²
//! regularization_e = regularization · (n_e + unobserved_weight · n_other)^regularization_exponent
//! ```
//!
//! where `n_e` is the entity's number of observed entries and `n_other` the number of entities of the
//! other side that have a factor other than zero: the implicit objective of Hu, Koren and Volinsky
//! ("Collaborative filtering for implicit feedback datasets", 2008) with the frequency scaling of Rendle,
//! Krichene, Zhang and Koren ("Revisiting the performance of iALS on item recommendation benchmarks", 2021,
//! equation 8).
//!
//! A sweep solves all users for fixed items, then all items for fixed users, each entity by a few
//! conjugate-gradient steps from its last factor (Takács, Pilászy and Tikk, 2011) in coordinates
//! where the part of the system that all entities share is diagonal. From the third sweep on every
//! step is lengthened (successive over-relaxation, Young 1954): for a quadratic form that keeps the
//! objective from rising and about halves the sweeps that a given objective takes. The last
//! half-sweep is plain, so that items are the best answer to the users returned.
//!
//! - Cost of a sweep: `O(n_entries · rank + (n_users + n_items) · rank² + rank³)`.
//! - Memory: the interactions once more by items, the factors, and per thread at most 16 MB of gathered rows and the
//!   longest entity's entries.
//! - Invariant: an entity without interactions has an exactly zero factor; results do not depend on
//!   the number of threads. They may differ in the last bits between instruction sets.
//! - Parallel level: chunks of entities, in rayon's current pool.
//! - Only inner products mean something: the axes of the factor space are arbitrary.
//!
//! It never orders, filters or names anything, and never reads more than the matrix it is given.

mod config;
mod fold;
mod kernels;
mod narrow;
mod objective;
mod side;
mod start;
mod sweep;

use crate::matrix::{Aligned, Csr, Dense};
use side::Side;
use std::time::{Duration, Instant};

pub use config::{Config, ConfigError, Keys};

/// Where the first sweep begins.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// At items drawn by the seed.
    Drawn,
    /// At what an earlier factorisation of much the same interactions arrived at; an item whose row is zero
    /// is drawn. A few sweeps are then enough.
    Warm {
        /// `n_users × rank`.
        users: &'a Dense,
        /// `n_items × rank`.
        items: &'a Dense,
    },
    /// At these items, `n_items × rank`, which stay as they are: users alone are solved for them, and
    /// `iterations` counts half-sweeps. So users are folded in who came after the items were learned.
    Fixed(&'a Dense),
}

/// What the sweeps arrived at.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    /// `n_users × rank`.
    pub users: Dense,
    /// `n_items × rank`.
    pub items: Dense,
    /// Computed in f64 from these very factors.
    pub objective: Objective,
}

/// The three parts of what is minimised, weights included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// `sum_observed w (1 - x.y)²`.
    pub observed: f64,
    /// `unobserved_weight · sum_all (x.y)²`.
    pub unobserved: f64,
    /// `sum_e regularization_e |e|²`.
    pub regularization: f64,
}

impl Objective {
    /// The sum of the parts.
    pub fn total(&self) -> f64 {
        self.observed + self.unobserved + self.regularization
    }
}

/// A finished sweep over both sides.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// From 1.
    pub number: usize,
    /// How many there will be.
    pub of: usize,
    /// What this sweep took.
    pub elapsed: Duration,
    /// After this sweep, as the solver saw it in f32; it costs nothing extra.
    pub objective: Objective,
}

/// Why nothing was factorised.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    /// The configuration was not made by deserialising, and does not hold.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A weight is zero, negative or not a number.
    #[error("the weight of user {user}, item {item} is {weight}, expected a finite number above 0")]
    Weight {
        /// The row.
        user: usize,
        /// The column.
        item: usize,
        /// What was given.
        weight: f32,
    },
    /// Factors to start from are of another shape.
    #[error("factors to start from are {found:?}, expected {expected:?}")]
    Start {
        /// Rows and columns.
        expected: (usize, usize),
        /// As given.
        found: (usize, usize),
    },
    /// Numbers left the range of f32: weights or regularisation are too far apart.
    #[error("sweep {sweep} of {of} left the range of 32-bit floats")]
    NotFinite {
        /// From 1.
        sweep: usize,
        /// How many were asked for.
        of: usize,
    },
}

/// Factorises `interactions`, `n_users × n_items` with the weights of what was observed.
///
/// The same interactions, configuration, start and seed give the same bits on any number of threads of one
/// machine. Without a single interaction all factors are zero.
///
/// # Errors
/// On a configuration out of bounds, a weight that is not above zero, a start of another shape, and when
/// numbers overflow.
pub fn factorize(
    interactions: &Csr,
    config: &Config,
    start: Start<'_>,
    seed: u64,
    on_sweep: &mut dyn FnMut(Sweep),
) -> Result<Factors, Error> {
    config.validate()?;
    refuse_bad_weights(interactions)?;
    start.check(interactions, config.rank)?;
    let regularization = |n_entries: usize, n_other: usize| config.regularization_of(n_entries, n_other);
    let (n_users, n_items) = interactions.n_used();
    let n_known = match start {
        Start::Fixed(items) => (n_users, n_nonzero(items)),
        _ => (n_users, n_items),
    };
    let (user_side, item_side) = side::both(interactions, n_known, regularization);
    let (rank, dim) = (config.rank, config.rank.next_multiple_of(kernels::LANES));
    let measured = |users: Dense, items: Dense| {
        let unobserved_weight = config.unobserved_weight;
        let objective =
            objective::measure(interactions, &users, &items, unobserved_weight, n_known, regularization);
        Factors { users, items, objective }
    };
    let overflow = |sweep: usize| Error::NotFinite { sweep, of: config.iterations };
    if let Start::Fixed(items) = start {
        let mut users = fold::users((&user_side, &item_side), items, config, on_sweep)?;
        users.resize(interactions.n_rows() * dim, 0.0);
        let users = placed(users, user_side, rank).ok_or(overflow(config.iterations))?;
        return Ok(measured(users, items.clone()));
    }
    // Rows without entries stay behind the others, so that there is room for all in the caller's order.
    let mut all_users = Aligned::new(interactions.n_rows() * dim, 0f32);
    let mut all_items = Aligned::new(interactions.n_cols() * dim, 0f32);
    let users = &mut all_users.get_mut()[..user_side.len() * dim];
    let items = &mut all_items.get_mut()[..item_side.len() * dim];
    start::normal(items, &item_side.order, rank, dim, seed);
    if let Start::Warm { users: warm_users, items: warm_items } = start {
        start::at(users, &user_side.order, warm_users, dim);
        start::at(items, &item_side.order, warm_items, dim);
    }
    for number in 1..=config.iterations {
        let started = Instant::now();
        let relaxed = if number < FIRST_RELAXED { 1.0 } else { RELAXATION };
        let solver =
            sweep::Settings { rank, dim, unobserved_weight: config.unobserved_weight, relaxation: relaxed };
        let Some(of_users) = sweep::half(&user_side, items, users, solver) else {
            return Err(overflow(number));
        };
        let relaxation = if number == config.iterations { 1.0 } else { relaxed };
        let solver = sweep::Settings { relaxation, ..solver };
        let Some(of_items) = sweep::half(&item_side, users, items, solver) else {
            return Err(overflow(number));
        };
        let objective = Objective {
            observed: of_items.observed,
            unobserved: config.unobserved_weight * of_items.all,
            regularization: of_users.regularization + of_items.regularization,
        };
        on_sweep(Sweep { number, of: config.iterations, elapsed: started.elapsed(), objective });
    }
    let place = |rows: Aligned<f32>, side: Side<'_>| placed(rows.into_vec(), side, rank);
    let (users, items) = rayon::join(|| place(all_users, user_side), || place(all_items, item_side));
    users.zip(items).map(|(users, items)| measured(users, items)).ok_or(overflow(config.iterations))
}

/// The objective falls for any share of a step between 0 and 2. On sparse behaviour ten sweeps at this
/// share end lower than twenty plain ones.
const RELAXATION: f32 = 1.6;

/// Before this sweep factors still leave their start, and longer steps only overshoot.
const FIRST_RELAXED: usize = 3;

impl Start<'_> {
    fn check(&self, interactions: &Csr, rank: usize) -> Result<(), Error> {
        let is = |matrix: &Dense, n_rows: usize| {
            let (expected, found) = ((n_rows, rank), (matrix.n_rows(), matrix.n_cols()));
            if found == expected { Ok(()) } else { Err(Error::Start { expected, found }) }
        };
        match self {
            Self::Drawn => Ok(()),
            Self::Warm { users, items } => {
                is(users, interactions.n_rows()).and(is(items, interactions.n_cols()))
            }
            Self::Fixed(items) => is(items, interactions.n_cols()),
        }
    }
}

fn refuse_bad_weights(interactions: &Csr) -> Result<(), Error> {
    for user in 0..interactions.n_rows() {
        let (items, weights) = interactions.row(user);
        if let Some(at) = weights.iter().position(|&weight| !(weight.is_finite() && weight > 0.0)) {
            return Err(Error::Weight { user, item: items[at] as usize, weight: weights[at] });
        }
    }
    Ok(())
}

fn n_nonzero(matrix: &Dense) -> usize {
    (0..matrix.n_rows()).filter(|row| matrix.row(*row).iter().any(|value| *value != 0.0)).count()
}

/// Rows of all entities back in the caller's order and without padding, in the same memory. None if a number
/// overflowed.
fn placed(mut rows: Vec<f32>, side: Side<'_>, rank: usize) -> Option<Dense> {
    let dim = rank.next_multiple_of(kernels::LANES);
    let n_rows = rows.len() / dim;
    // Where the row at each position belongs; each swap brings one there.
    let mut goes_to = side.order_of_all(n_rows);
    // The interactions go before there is more to hold.
    drop(side);
    for at in 0..n_rows {
        while goes_to[at] as usize != at {
            let to = goes_to[at] as usize;
            let (before, after) = rows.split_at_mut(at.max(to) * dim);
            before[at.min(to) * dim..][..dim].swap_with_slice(&mut after[..dim]);
            goes_to.swap(at, to);
        }
    }
    if dim > rank {
        (0..n_rows).for_each(|row| rows.copy_within(row * dim..row * dim + rank, row * rank));
    }
    rows.truncate(n_rows * rank);
    rows.shrink_to_fit();
    Dense::from_vec(n_rows, rank, rows).ok()
}

#[cfg(test)]
mod tests;
