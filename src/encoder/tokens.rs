//! Texts to token ids, and token ids to batches.

use std::collections::HashMap;

use rayon::prelude::*;
use tokenizers::{Tokenizer, TruncationParams};

use super::Error;
use super::folder::Folder;

/// A tokenizer that cuts at the encoder's limit and never pads.
pub(super) struct Tokens {
    tokenizer: Tokenizer,
    max_tokens: usize,
}

/// A token, and a text of that one token.
pub(super) struct Entry {
    pub(super) id: u32,
    pub(super) alone: Vec<u32>,
}

/// So many characters a token are tokenised at first, so that a title of a megabyte costs what its
/// beginning does. A text that fills the limit with fewer tokens is given more.
const CHARS_A_TOKEN: usize = 16;

impl Tokens {
    pub(super) fn load(folder: &Folder, max_tokens: usize) -> Result<Self, Error> {
        let wrong = |error: tokenizers::Error| Error::Model {
            path: folder.tokenizer.clone(),
            expected: "a tokenizer".to_owned(),
            found: error.to_string(),
        };
        let mut tokenizer = Tokenizer::from_file(&folder.tokenizer).map_err(wrong)?;
        // The file's own limits are the model trainer's, not the job's.
        let truncation = TruncationParams { max_length: max_tokens, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(wrong)?;
        tokenizer.with_padding(None);
        Ok(Self { tokenizer, max_tokens })
    }

    /// The entries of the vocabulary, the first `n_words`, but for special tokens.
    pub(super) fn entries(&self, n_words: usize) -> Result<Vec<Entry>, Error> {
        let failed = |error: tokenizers::Error| Error::Tokenize { problem: error.to_string() };
        // What surrounds a text, half before it and half after: [CLS] and [SEP], or <s> and </s>.
        let around = self.tokenizer.encode_fast("", true).map_err(failed)?.get_ids().to_vec();
        let (before, after) = around.split_at(around.len() / 2);
        let special = self.tokenizer.get_added_tokens_decoder();
        let is_word = |id: &u32| {
            special.get(id).is_none_or(|token| !token.special) && self.tokenizer.id_to_token(*id).is_some()
        };
        let words = (0..n_words as u32).filter(is_word);
        Ok(words.map(|id| Entry { id, alone: [before, &[id], after].concat() }).collect())
    }

    pub(super) fn tokenize(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>, Error> {
        texts.par_iter().map(|text| self.first_tokens(text)).collect()
    }

    /// The first `max_tokens` tokens, as if all of the text were tokenised.
    fn first_tokens(&self, text: &str) -> Result<Vec<u32>, Error> {
        let mut max_chars = self.max_tokens * CHARS_A_TOKEN;
        loop {
            let beginning = first_words(text, max_chars);
            let encoded = self.tokenizer.encode_fast(beginning, true);
            let encoded = encoded.map_err(|error| Error::Tokenize { problem: error.to_string() })?;
            if encoded.get_ids().len() >= self.max_tokens || beginning.len() == text.len() {
                return Ok(encoded.get_ids().to_vec());
            }
            max_chars *= 8;
        }
    }
}

/// The whole words within the first `n` characters, or the first word if it is longer. Tokenizers
/// split at white space before all else, so a whole word's tokens do not depend on what follows it.
fn first_words(text: &str, n: usize) -> &str {
    let Some((end, _)) = text.char_indices().nth(n) else { return text };
    let last_space = text[..end].rfind(char::is_whitespace);
    match last_space.or_else(|| text[end..].find(char::is_whitespace).map(|at| end + at)) {
        Some(at) => &text[..at],
        None => text,
    }
}

/// The distinct texts in order of first appearance, and each text's place among them.
pub(super) fn distinct<'a>(texts: &[&'a str]) -> (Vec<&'a str>, Vec<usize>) {
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(texts.len());
    let mut distinct = Vec::new();
    let place = texts
        .iter()
        .map(|text| {
            *places.entry(text).or_insert_with(|| {
                distinct.push(*text);
                distinct.len() - 1
            })
        })
        .collect();
    (distinct, place)
}

/// The longest texts first, at most `batch_tokens` tokens a batch (one text where a single one has more);
/// only texts of one length together, unless lengths may be mixed.
pub(super) fn batches(tokens: &[Vec<u32>], batch_tokens: usize, mixed: bool) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by_key(|at| (std::cmp::Reverse(tokens[*at].len()), *at));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let (mut length, mut n_tokens) = (0, 0);
    for at in order {
        let more = tokens[at].len();
        match batches.last_mut() {
            Some(batch) if n_tokens + more <= batch_tokens && (mixed || more == length) => batch.push(at),
            _ => {
                batches.push(vec![at]);
                n_tokens = 0;
            }
        }
        length = more;
        n_tokens += more;
    }
    batches
}
