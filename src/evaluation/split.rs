//! What is held out where it is not the latest days.

use crate::matrix::{Csr, CsrError};
use crate::random::split_mix;

/// Interactions in two disjoint parts.
pub struct Split {
    /// What models may learn from.
    pub train: Csr,
    /// What they are asked to find.
    pub test: Csr,
}

impl Split {
    /// Holds out each user's last step, at least one training item kept. `steps` is each entry's place in
    /// its user's order; of a last step of several items (a basket) all are held out.
    ///
    /// # Errors
    /// If the interactions' rows are not sound.
    pub fn last(interactions: &Csr, steps: &[u32]) -> Result<Self, CsrError> {
        Self::by(interactions, |user| {
            let first = interactions.offset(user);
            let own = &steps[first..first + interactions.row(user).0.len()];
            let (last, earliest) = (own.iter().max(), own.iter().min());
            own.iter().map(|step| Some(step) == last && last != earliest).collect()
        })
    }

    /// Holds out a share of each user's items, rounded down, at least one training item kept. Each
    /// cell has its own hash of seed, user and item, so the split does not depend on order or threads.
    ///
    /// # Errors
    /// If the interactions' rows are not sound.
    pub fn random(interactions: &Csr, share: f64, seed: u64) -> Result<Self, CsrError> {
        Self::by(interactions, |user| {
            let (items, _) = interactions.row(user);
            let hash = |item: u32| split_mix(split_mix(seed ^ split_mix(user as u64)) ^ u64::from(item));
            let mut order: Vec<usize> = (0..items.len()).collect();
            order.sort_by_key(|at| (hash(items[*at]), items[*at]));
            let n_test = ((items.len() as f64 * share) as usize).min(items.len().saturating_sub(1));
            let mut held_out = vec![false; items.len()];
            order[..n_test].iter().for_each(|at| held_out[*at] = true);
            held_out
        })
    }

    /// `held_out` says for each of a user's entries whether it is.
    fn by(interactions: &Csr, held_out: impl Fn(usize) -> Vec<bool>) -> Result<Self, CsrError> {
        let mut parts: [(Vec<u32>, Vec<u32>, Vec<f32>); 2] = Default::default();
        for user in 0..interactions.n_rows() {
            let (items, weights) = interactions.row(user);
            for ((item, weight), test) in items.iter().zip(weights).zip(held_out(user)) {
                let (users, kept, values) = &mut parts[usize::from(test)];
                users.push(user as u32);
                kept.push(*item);
                values.push(*weight);
            }
        }
        let [train, test] = parts.map(|(users, items, values)| {
            Csr::from_coordinates(interactions.n_rows(), interactions.n_cols(), &users, &items, &values)
        });
        Ok(Self { train: train?, test: test? })
    }
}
