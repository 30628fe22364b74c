//! Which items share baskets, as bare indices both ways.

use crate::matrix::Csr;

/// Rows of ascending indices without values.
#[derive(Debug, PartialEq)]
pub(super) struct Ragged {
    offsets: Vec<usize>,
    indices: Vec<u32>,
}

impl Ragged {
    pub(super) fn row(&self, at: usize) -> &[u32] {
        &self.indices[self.offsets[at]..self.offsets[at + 1]]
    }

    fn n_rows(&self) -> usize {
        self.offsets.len() - 1
    }

    pub(super) fn transpose(&self, n_cols: usize) -> Self {
        let mut offsets = vec![0usize; n_cols + 1];
        for &col in &self.indices {
            offsets[col as usize + 1] += 1;
        }
        for col in 0..n_cols {
            offsets[col + 1] += offsets[col];
        }
        let mut next = offsets.clone();
        let mut indices = vec![0u32; self.indices.len()];
        for row in 0..self.n_rows() {
            for &col in self.row(row) {
                indices[next[col as usize]] = row as u32;
                next[col as usize] += 1;
            }
        }
        Self { offsets, indices }
    }
}

/// The baskets' items, at most `max_basket` each: of a longer one those of the largest weight, among
/// equal weights those in the fewest baskets, then the smallest indices.
///
/// Frequent items lose little by a cut, having many other baskets; a rare item may have only this one.
pub(super) fn cut(baskets: &Csr, max_basket: usize) -> Ragged {
    let mut n_baskets = vec![0u32; baskets.n_cols()];
    for at in 0..baskets.n_rows() {
        for &item in baskets.row(at).0 {
            n_baskets[item as usize] += 1;
        }
    }
    let mut offsets = Vec::with_capacity(baskets.n_rows() + 1);
    offsets.push(0);
    let mut indices = Vec::with_capacity(baskets.n_entries());
    let mut ranked: Vec<(u32, f32)> = Vec::new();
    for at in 0..baskets.n_rows() {
        let (items, weights) = baskets.row(at);
        if items.len() <= max_basket {
            indices.extend_from_slice(items);
        } else {
            ranked.clear();
            ranked.extend(items.iter().copied().zip(weights.iter().copied()));
            ranked.select_nth_unstable_by(max_basket, |a, b| {
                let rarer = n_baskets[a.0 as usize].cmp(&n_baskets[b.0 as usize]);
                b.1.total_cmp(&a.1).then(rarer).then(a.0.cmp(&b.0))
            });
            ranked.truncate(max_basket);
            let from = indices.len();
            indices.extend(ranked.iter().map(|entry| entry.0));
            indices[from..].sort_unstable();
        }
        offsets.push(indices.len());
    }
    Ragged { offsets, indices }
}
