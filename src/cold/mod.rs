//! Items that nobody has turned to yet stand in for those that their texts resemble.
//!
//! In: for each cold item the warm items whose embeddings are nearest, with their cosines. Out:
//! [`Lookalikes`], which give a cold item in any linear source what its look-alikes have there: its row of
//! item vectors, or its column of a sparse model, is the mean of theirs, made as long as theirs are on
//! average. Rows of vectors are written; columns are kept as shares of the look-alikes' scores ([`Heirs`]),
//! which comes to the same, a score being linear in them. A mean of unlike vectors is shorter than they are, and its items would come last for everybody.
//! In an item-item model an item says nothing of itself; of a cold item it says as much as of the item it
//! says most of: who has just turned to a look-alike may well turn to this one.
//!
//! It is the k-nearest-neighbour mapping from attributes to factors of Gantner, Drumond, Freudenthaler,
//! Rendle and Schmidt-Thieme ("Learning attribute-to-feature mappings for cold-start recommendations",
//! 2010), with weights `max(cos, 0)^3`.
//!
//! **Cost.** Linear in the look-alikes times the width of a vector or the entries of their columns. The
//! room computes no similarity and knows nothing of users.

use rayon::prelude::*;

use crate::matrix::{Csr, Dense};

#[cfg(test)]
mod tests;

/// Look-alikes that an item has.
pub const N_LOOKALIKES: usize = 20;

/// How much nearer look-alikes count for more.
const SHARPNESS: i32 = 3;

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

    /// What cold items have in an item-item model.
    pub fn heirs(&self, model: &Csr) -> Heirs {
        let most = |row: usize| model.row(row).1.iter().copied().fold(0.0, f32::max);
        self.heirs_with(model, &(0..model.n_rows()).map(most).collect::<Vec<f32>>())
    }

    /// The same in a model whose rows are users.
    pub fn heirs_of_users(&self, model: &Csr) -> Heirs {
        self.heirs_with(model, &[])
    }

    /// `itself` is what each row says of its own item; empty where rows are no items.
    fn heirs_with(&self, model: &Csr, itself: &[f32]) -> Heirs {
        let takers = self.shares.transpose();
        let (of_column, of_mean) = column_squares(model, itself, &takers);
        let scaled = (0..self.shares.n_rows()).map(|item| {
            let (others, shares) = self.shares.row(item);
            let lengths = others.iter().map(|other| of_column[*other as usize].sqrt());
            let length = shares.iter().zip(lengths).map(|(share, length)| f64::from(*share) * length).sum();
            let scale = stretch(length, of_mean[item]);
            others.iter().copied().zip(shares.iter().map(|share| share * scale)).collect()
        });
        let from = Csr::from_rows(self.shares.n_cols(), scaled.collect());
        let to = from.transpose();
        let own = itself.iter().enumerate().map(|(row, most)| {
            let (cold, shares) = to.row(row);
            cold.iter().copied().zip(shares.iter().map(|share| share * most)).collect()
        });
        let own = Csr::from_rows(self.shares.n_cols(), own.collect());
        Heirs { from, to, own }
    }
}

/// What cold items have in a sparse model, where writing it into the model would make it several times as
/// large: shares of what their look-alikes score there.
#[derive(Clone, Debug)]
pub struct Heirs {
    /// Cold items × the items they take after.
    from: Csr,
    /// Its transpose.
    to: Csr,
    /// Items × the cold items that take after them: what an item gives these as it would give itself. No
    /// rows where the model's rows are no items.
    own: Csr,
}

impl Heirs {
    /// The cold items that take after an item, and which share of its score each has.
    pub fn of(&self, item: u32) -> (&[u32], &[f32]) {
        self.to.row(item as usize)
    }

    /// The items that a cold item takes after, and which share of the score of each it has.
    pub fn takes_after(&self, item: u32) -> (&[u32], &[f32]) {
        self.from.row(item as usize)
    }

    /// What an item of the history gives cold items beside those shares.
    pub fn own(&self) -> &Csr {
        &self.own
    }

    /// What the model's row gives an item, by itself or through its look-alikes.
    pub fn value(&self, model: &Csr, row: u32, item: u32) -> f32 {
        let (others, shares) = self.takes_after(item);
        let inherited = others.iter().zip(shares).map(|(other, share)| share * model.value(row, *other));
        let own = if self.own.n_rows() > 0 { self.own.value(row, item) } else { 0.0 };
        model.value(row, item) + inherited.sum::<f32>() + own
    }
}

/// Rows summed by themselves; partial sums are added in order.
const ROWS: usize = 4096;

/// The squared lengths of a model's columns, and of those that cold items would have.
fn column_squares(model: &Csr, itself: &[f32], takers: &Csr) -> (Vec<f64>, Vec<f64>) {
    let n_cols = model.n_cols();
    let starts: Vec<usize> = (0..model.n_rows()).step_by(ROWS).collect();
    let of_rows = |start: &usize| {
        let (mut of_column, mut of_mean) = (vec![0f64; n_cols], vec![0f64; n_cols]);
        let (mut mean, mut touched) = (vec![0f64; n_cols], Vec::<u32>::new());
        for row in *start..(*start + ROWS).min(model.n_rows()) {
            let (items, values) = model.row(row);
            let entries = items.iter().copied().zip(values.iter().copied());
            for (item, value) in entries.chain(itself.get(row).map(|most| (row as u32, *most))) {
                of_column[item as usize] += f64::from(value).powi(2);
                let (cold, shares) = takers.row(item as usize);
                for (cold, share) in cold.iter().zip(shares) {
                    if mean[*cold as usize] == 0.0 {
                        touched.push(*cold);
                    }
                    mean[*cold as usize] += f64::from(share * value);
                }
            }
            for cold in touched.drain(..) {
                of_mean[cold as usize] += std::mem::take(&mut mean[cold as usize]).powi(2);
            }
        }
        (of_column, of_mean)
    };
    let mut sums = (vec![0f64; n_cols], vec![0f64; n_cols]);
    // As many parts at a time as there are threads: a part is as large as the sums.
    for group in starts.chunks(rayon::current_num_threads()) {
        let parts: Vec<(Vec<f64>, Vec<f64>)> = group.par_iter().map(of_rows).collect();
        for (of_column, of_mean) in parts {
            sums.0.iter_mut().zip(of_column).for_each(|(sum, part)| *sum += part);
            sums.1.iter_mut().zip(of_mean).for_each(|(sum, part)| *sum += part);
        }
    }
    sums
}

fn squares(row: &[f32]) -> f64 {
    row.iter().map(|value| f64::from(*value).powi(2)).sum()
}

/// What makes a vector of these squares this long.
fn stretch(length: f64, squares: f64) -> f32 {
    if squares > 0.0 { (length / squares.sqrt()) as f32 } else { 0.0 }
}
