//! Items that nobody has turned to yet stand in for those that their texts resemble.
//!
//! In: for each cold item the warm items whose embeddings are nearest, with their cosines. Out:
//! [`Lookalikes`], which give a cold item in any linear source what its look-alikes have there: its row of
//! item vectors, or its column of an item-item model, is the mean of theirs, made as long as theirs are on
//! average. A mean of unlike vectors is shorter than they are, and its items would come last for everybody.
//! In an item-item model an item says nothing of itself; of a cold item it says as much as of the item it
//! says most of: who has just turned to a look-alike may well turn to this one.
//!
//! It is the k-nearest-neighbour mapping from attributes to factors of Gantner, Drumond, Freudenthaler,
//! Rendle and Schmidt-Thieme ("Learning attribute-to-feature mappings for cold-start recommendations",
//! 2010), with weights `max(cos, 0)^8`.
//!
//! **Cost.** Linear in the look-alikes times the width of a vector or the entries of their columns. The
//! room computes no similarity and knows nothing of users.

use crate::matrix::{Csr, Dense};

#[cfg(test)]
mod tests;

/// Look-alikes that an item has.
pub const N_LOOKALIKES: usize = 10;

/// How much nearer look-alikes count for more.
const SHARPNESS: i32 = 8;

/// Whom each cold item takes after.
pub struct Lookalikes {
    /// Cold items × all items; rows of other items are empty, those of cold items sum to 1.
    shares: Csr,
}

impl Lookalikes {
    /// Of `nearest`: each cold item's warm neighbours and their cosines. An item that resembles none stays
    /// without.
    pub fn new(n_items: usize, nearest: impl Iterator<Item = (u32, Vec<(u32, f32)>)>) -> Self {
        let mut rows: Vec<Vec<(u32, f32)>> = vec![Vec::new(); n_items];
        for (item, neighbours) in nearest {
            let mut row: Vec<(u32, f32)> = neighbours
                .into_iter()
                .map(|(other, cosine)| (other, cosine.max(0.0).powi(SHARPNESS)))
                .filter(|(_, share)| *share > 0.0)
                .collect();
            row.sort_unstable_by_key(|entry| entry.0);
            let sum: f32 = row.iter().map(|entry| entry.1).sum();
            row.iter_mut().for_each(|entry| entry.1 /= sum);
            rows[item as usize] = row;
        }
        Self { shares: Csr::from_rows(n_items, rows) }
    }

    /// Writes cold items' rows of item vectors.
    pub fn fill_rows(&self, vectors: &mut Dense) {
        for item in 0..self.shares.n_rows() {
            let (others, shares) = self.shares.row(item);
            if others.is_empty() {
                continue;
            }
            let mut mean = vec![0f32; vectors.n_cols()];
            let mut length = 0.0;
            for (other, share) in others.iter().zip(shares) {
                let row = vectors.row(*other as usize);
                mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += share * value);
                length += f64::from(*share) * squares(row).sqrt();
            }
            let scale = stretch(length, squares(&mean));
            mean.iter_mut().for_each(|value| *value *= scale);
            vectors.row_mut(item).copy_from_slice(&mean);
        }
    }

    /// An item-item model with cold items' columns.
    pub fn fill_columns(&self, model: &Csr) -> Csr {
        let most = |row: usize| model.row(row).1.iter().copied().fold(0.0, f32::max);
        self.fill(model, |row| Some((row as u32, most(row))))
    }

    /// The same of a model whose rows are users.
    pub fn fill_columns_of_users(&self, model: &Csr) -> Csr {
        self.fill(model, |_| None)
    }

    /// `itself` is what a row says of its own item.
    fn fill(&self, model: &Csr, itself: impl Fn(usize) -> Option<(u32, f32)>) -> Csr {
        let takers = self.shares.transpose();
        let mut of_column = vec![0f64; model.n_cols()];
        let mut rows: Vec<Vec<(u32, f32)>> = Vec::with_capacity(model.n_rows());
        for row in 0..model.n_rows() {
            let (items, values) = model.row(row);
            let mut entries: Vec<(u32, f32)> = items.iter().copied().zip(values.iter().copied()).collect();
            for (item, value) in entries.clone().into_iter().chain(itself(row)) {
                of_column[item as usize] += f64::from(value).powi(2);
                let (cold, shares) = takers.row(item as usize);
                entries.extend(cold.iter().zip(shares).map(|(cold, share)| (*cold, share * value)));
            }
            // Stable: what one item has from several look-alikes is summed in their order.
            entries.sort_by_key(|entry| entry.0);
            entries.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                if same {
                    kept.1 += next.1;
                }
                same
            });
            rows.push(entries);
        }
        let mut of_mean = vec![0f64; model.n_cols()];
        for (item, value) in rows.iter().flatten() {
            of_mean[*item as usize] += f64::from(*value).powi(2);
        }
        let scale = |item: usize| {
            let (others, shares) = self.shares.row(item);
            let lengths = others.iter().map(|other| of_column[*other as usize].sqrt());
            let length = shares.iter().zip(lengths).map(|(share, length)| f64::from(*share) * length).sum();
            if others.is_empty() { 1.0 } else { stretch(length, of_mean[item]) }
        };
        let scales: Vec<f32> = (0..model.n_cols()).map(scale).collect();
        rows.iter_mut().flatten().for_each(|(item, value)| *value *= scales[*item as usize]);
        Csr::from_rows(model.n_cols(), rows)
    }
}

fn squares(row: &[f32]) -> f64 {
    row.iter().map(|value| f64::from(*value).powi(2)).sum()
}

/// What makes a vector of these squares this long.
fn stretch(length: f64, squares: f64) -> f32 {
    if squares > 0.0 { (length / squares.sqrt()) as f32 } else { 0.0 }
}
