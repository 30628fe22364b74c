//! A seeded hold-out where times say nothing.

use crate::matrix::{Csr, CsrError};

use super::bootstrap::split_mix;

/// Interactions in two disjoint parts.
pub struct Split {
    /// What models may learn from.
    pub train: Csr,
    /// What they are asked to find.
    pub test: Csr,
}

impl Split {
    /// Holds out a share of each user's items, rounded down, at least one training item kept. Each
    /// cell has its own hash of seed, user and item, so the split does not depend on order or threads.
    ///
    /// # Errors
    /// If the interactions' rows are not sound.
    pub fn random(interactions: &Csr, share: f64, seed: u64) -> Result<Self, CsrError> {
        let mut parts: [(Vec<u32>, Vec<u32>, Vec<f32>); 2] = Default::default();
        for user in 0..interactions.n_rows() {
            let (items, weights) = interactions.row(user);
            let hash = |item: u32| split_mix(split_mix(seed ^ split_mix(user as u64)) ^ u64::from(item));
            let mut order: Vec<usize> = (0..items.len()).collect();
            order.sort_by_key(|at| (hash(items[*at]), items[*at]));
            let n_test = ((items.len() as f64 * share) as usize).min(items.len().saturating_sub(1));
            for (place, at) in order.into_iter().enumerate() {
                let (users, kept, values) = &mut parts[usize::from(place < n_test)];
                users.push(user as u32);
                kept.push(items[at]);
                values.push(weights[at]);
            }
        }
        let [train, test] = parts.map(|(users, items, values)| {
            Csr::from_coordinates(interactions.n_rows(), interactions.n_cols(), &users, &items, &values)
        });
        Ok(Self { train: train?, test: test? })
    }
}
