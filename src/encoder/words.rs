//! Embeddings without a model: a text is the sum of its words' directions, the rarer a word the longer.
//!
//! Words are those of Unicode's annex 29, in lower case. Of `n` texts of the catalogue `n_w` have a word, and it
//! counts once a text, `ln(n / n_w)` (tf-idf: Salton and Buckley, "Term-weighting approaches in automatic text
//! retrieval", 1988). A word's direction is ±1 in every dimension, by the bits of its BLAKE3 hash, so that the
//! cosine of two texts is that of their tf-idf vectors but for noise of deviation `1 / √dim` (random projection:
//! Achlioptas, "Database-friendly random projections", 2003). A word that no text of the catalogue has says nothing.

use std::collections::{BTreeSet, HashMap};

use rayon::prelude::*;
use unicode_segmentation::UnicodeSegmentation;

/// Numbers in an embedding, and the least where a catalogue is large.
const DIM: usize = 512;
const LEAST_DIM: usize = 64;
/// Numbers that all texts' embeddings come to, at most, as long as each has the least: 2 GiB.
const MOST_NUMBERS: usize = 1 << 29;

/// Numbers in each of so many embeddings.
pub(super) fn dim(n_texts: usize) -> usize {
    let mut dim = DIM;
    while dim > LEAST_DIM && dim.saturating_mul(n_texts) > MOST_NUMBERS {
        dim /= 2;
    }
    dim
}

/// What a catalogue's words count for.
pub(super) struct Words {
    weights: HashMap<String, f32>,
    pub(super) dim: usize,
}

impl Words {
    /// Of a catalogue, for so many texts.
    pub(super) fn of(catalogue: &[&str], n_texts: usize) -> Self {
        let counted = |mut counts: HashMap<String, u32>, text: &&str| {
            distinct(text).into_iter().for_each(|word| *counts.entry(word).or_default() += 1);
            counts
        };
        let added = |mut counts: HashMap<String, u32>, more: HashMap<String, u32>| {
            more.into_iter().for_each(|(word, n)| *counts.entry(word).or_default() += n);
            counts
        };
        let counts = catalogue.par_iter().fold(HashMap::new, counted).reduce(HashMap::new, added);
        let of = catalogue.len() as f64;
        let weight = |(word, n): (String, u32)| (word, (of / f64::from(n)).ln() as f32);
        Self { weights: counts.into_iter().map(weight).collect(), dim: dim(n_texts) }
    }

    /// Unit embeddings of texts, row after row; a zero row where no word says anything.
    pub(super) fn embed(&self, texts: &[&str]) -> Vec<f32> {
        let mut rows = vec![0f32; texts.len() * self.dim];
        rows.par_chunks_mut(self.dim).zip(texts).for_each(|(row, text)| {
            for word in distinct(text) {
                if let Some(weight) = self.weights.get(&word) {
                    add_direction(row, &word, *weight);
                }
            }
            super::make_unit(row);
        });
        rows
    }
}

/// A text's words in their order, each once, so that sums do not depend on where they stand.
fn distinct(text: &str) -> BTreeSet<String> {
    text.unicode_words().map(str::to_lowercase).collect()
}

fn add_direction(row: &mut [f32], word: &str, weight: f32) {
    let mut bits = [0u8; DIM / 8];
    blake3::Hasher::new().update(word.as_bytes()).finalize_xof().fill(&mut bits);
    for (some, byte) in row.chunks_exact_mut(8).zip(bits) {
        for (at, value) in some.iter_mut().enumerate() {
            *value += if byte >> at & 1 == 1 { weight } else { -weight };
        }
    }
}
