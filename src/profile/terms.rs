//! Words of texts, weighed by how much they tell (tf-idf, Salton and Buckley, 1988).

use std::collections::BTreeMap;

use crate::matrix::{Csr, CsrError};

/// The words worth telling users apart by.
pub struct Terms {
    /// Words by code, ascending.
    pub names: Vec<String>,
    /// Texts × terms: `ln(n_texts / n_texts_with_term)` where the text has the word.
    pub weights: Csr,
}

/// Shorter words are rarely names of things.
const MIN_CHARS: usize = 3;
/// A word of fewer texts says nothing about any other item.
const MIN_TEXTS: usize = 2;
/// A word of a larger share of the texts says nothing about any one.
const MAX_SHARE: f64 = 0.2;

impl Terms {
    /// Finds the terms of texts; a missing text has none.
    ///
    /// # Errors
    /// If there are more texts than an index can number.
    pub fn of_texts<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> Result<Self, CsrError> {
        let mut words_of: Vec<Vec<String>> = Vec::new();
        let mut n_texts_with: BTreeMap<String, usize> = BTreeMap::new();
        for text in texts {
            let words = text.unwrap_or("").split(|c: char| !c.is_alphanumeric());
            let mut words: Vec<String> =
                words.filter(|word| word.chars().count() >= MIN_CHARS).map(str::to_lowercase).collect();
            words.sort();
            words.dedup();
            for word in &words {
                *n_texts_with.entry(word.clone()).or_default() += 1;
            }
            words_of.push(words);
        }
        let n_texts = words_of.len();
        let most = ((n_texts as f64 * MAX_SHARE) as usize).max(MIN_TEXTS);
        let kept: BTreeMap<&str, (u32, f32)> = n_texts_with
            .iter()
            .filter(|(_, count)| (MIN_TEXTS..=most).contains(*count))
            .enumerate()
            .map(|(code, (word, count))| {
                (word.as_str(), (code as u32, (n_texts as f32 / *count as f32).ln()))
            })
            .collect();
        let (mut rows, mut cols, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (text, words) in words_of.iter().enumerate() {
            for (code, weight) in words.iter().filter_map(|word| kept.get(word.as_str())) {
                rows.push(text as u32);
                cols.push(*code);
                values.push(*weight);
            }
        }
        let weights = Csr::from_coordinates(n_texts, kept.len(), &rows, &cols, &values)?;
        Ok(Self { names: kept.into_keys().map(str::to_owned).collect(), weights })
    }
}
