//! Static embeddings: a text is the weighted mean of its tokens' vectors, made of length 1.
//!
//! The vectors are distilled from the transformer, as Model2Vec has it (Tulkens and van Dongen, 2024): it embeds
//! every entry of its vocabulary alone; their mean is taken off, and the principal components with the largest
//! variance are kept, each divided by its deviation (Su, Cao, Liu and Ou, "Whitening sentence representations for
//! better semantics and faster retrieval", 2021). That takes some seconds and depends on the model alone.
//!
//! In a text a token counts `a / (a + p)`, where `p` is its share of the catalogue's tokens (SIF: Arora, Liang
//! and Ma, "A simple but tough-to-beat baseline for sentence embeddings", 2017): words that every text has say
//! little of any. Special tokens, the unknown one among them, say nothing.

use rayon::prelude::*;

use super::{Batch, Error, model, tokens};
use crate::matrix::{Dense, View, ViewMut, add_product, eigen};

/// SIF's `a`.
const SMOOTHING: f64 = 1e-3;
/// Components whose variance is this share of the largest are rounding.
const ROUNDING: f64 = 1e-6;
/// Vocabulary entries whose products are summed in one go.
const CHUNK: usize = 4096;

/// Tokens' vectors and weights.
pub(super) struct Distilled {
    /// Vocabulary × dim; a special token's row is zero.
    pub(super) vectors: Dense,
    weights: Vec<f32>,
}

/// Every vocabulary entry's vector, at most `dim` numbers each.
pub(super) fn distil(
    model: &model::Model,
    tokenizer: &tokens::Tokens,
    dim: usize,
    batch_tokens: usize,
    on_batch: &mut dyn FnMut(Batch),
) -> Result<Dense, Error> {
    let entries = tokenizer.entries(model.n_words())?;
    let alone: Vec<Vec<u32>> = entries.iter().map(|entry| entry.alone.clone()).collect();
    let embedded = super::embed(model, &alone, batch_tokens, on_batch)?;
    let hidden = model.dim();
    let embedded: Vec<f64> = embedded.into_iter().map(f64::from).collect();
    let (mean, axes) = principal(&embedded, hidden, dim);
    let n_axes = axes.len() / hidden.max(1);
    let mut vectors = Dense::zeros(model.n_words(), n_axes);
    let rows: Vec<Vec<f32>> = embedded
        .par_chunks(hidden)
        .map(|row| {
            let along = |axis: &[f64]| -> f64 {
                row.iter().zip(&mean).zip(axis).map(|((value, mean), axis)| (value - mean) * axis).sum()
            };
            axes.chunks_exact(hidden).map(|axis| along(axis) as f32).collect()
        })
        .collect();
    for (entry, row) in entries.iter().zip(rows) {
        vectors.row_mut(entry.id as usize).copy_from_slice(&row);
    }
    Ok(vectors)
}

/// The rows' mean, and the directions of their largest variance, one a row, each divided by the deviation along it.
fn principal(rows: &[f64], n_cols: usize, n_axes: usize) -> (Vec<f64>, Vec<f64>) {
    let n_rows = (rows.len() / n_cols.max(1)).max(1) as f64;
    let mut mean = vec![0f64; n_cols];
    for row in rows.chunks_exact(n_cols) {
        mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += value / n_rows);
    }
    let mut covariance = vec![0f64; n_cols * n_cols];
    for chunk in rows.chunks(CHUNK * n_cols) {
        let mut centred = chunk.to_vec();
        for row in centred.chunks_exact_mut(n_cols) {
            row.iter_mut().zip(&mean).for_each(|(value, mean)| *value -= mean);
        }
        let view = View::new(&centred, chunk.len() / n_cols, n_cols, n_cols);
        let mut sums = ViewMut::new(&mut covariance, n_cols, n_cols, n_cols);
        add_product(&mut sums, 1.0 / n_rows, view.transposed(), view);
    }
    // What is not finite was refused before it came here.
    let Some(found) = eigen::decompose(covariance, n_cols) else { return (mean, Vec::new()) };
    let mut order: Vec<usize> = (0..n_cols).collect();
    order.sort_by(|a, b| found.values[*b].total_cmp(&found.values[*a]));
    let largest = order.first().map_or(0.0, |at| found.values[*at]);
    order.retain(|at| found.values[*at] > ROUNDING * largest);
    order.truncate(n_axes);
    let axis = |at: &usize| {
        let per_deviation = found.values[*at].sqrt().recip();
        found.vectors[at * n_cols..(at + 1) * n_cols].iter().map(move |value| value * per_deviation)
    };
    (mean, order.iter().flat_map(axis).collect())
}

impl Distilled {
    /// Weighs tokens by how rare they are in `catalogue`, texts as tokens.
    pub(super) fn new(vectors: Dense, catalogue: &[Vec<u32>]) -> Self {
        let mut counts = vec![0u64; vectors.n_rows()];
        for id in catalogue.iter().flatten().filter(|id| says_something(&vectors, **id)) {
            counts[*id as usize] += 1;
        }
        let total = counts.iter().sum::<u64>().max(1) as f64;
        let weight = |count: &u64| (SMOOTHING / (SMOOTHING + *count as f64 / total)) as f32;
        Self { weights: counts.iter().map(weight).collect(), vectors }
    }

    /// Unit embeddings of texts, row after row; a zero row where no token says anything.
    pub(super) fn embed(&self, tokens: &[Vec<u32>]) -> Vec<f32> {
        let dim = self.vectors.n_cols();
        let mut rows = vec![0f32; tokens.len() * dim];
        rows.par_chunks_mut(dim.max(1)).zip(tokens).for_each(|(row, ids)| {
            for id in ids.iter().map(|id| *id as usize).filter(|id| *id < self.weights.len()) {
                let weight = self.weights[id];
                row.iter_mut().zip(self.vectors.row(id)).for_each(|(sum, value)| *sum += weight * value);
            }
            super::make_unit(row);
        });
        rows
    }
}

fn says_something(vectors: &Dense, id: u32) -> bool {
    (id as usize) < vectors.n_rows() && vectors.row(id as usize).iter().any(|value| *value != 0.0)
}
