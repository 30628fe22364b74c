//! Texts to token ids, and token ids to batches.

use std::collections::BTreeMap;

use tokenizers::{Tokenizer, TruncationParams};

use super::Error;
use super::folder::Folder;

/// A tokenizer that cuts at the encoder's limit and never pads.
pub(super) struct Tokens {
    tokenizer: Tokenizer,
    max_chars: usize,
}

/// A token stands for at most about this many characters; what lies beyond could not reach the model
/// and would only cost time (a title of a megabyte is cut before it is tokenised).
const CHARS_A_TOKEN: usize = 64;

/// Texts tokenised at a time, which bounds the tokenizer's own memory.
const TEXTS_AT_A_TIME: usize = 8 * 1024;

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
        Ok(Self { tokenizer, max_chars: max_tokens * CHARS_A_TOKEN })
    }

    pub(super) fn tokenize(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>, Error> {
        let mut tokens = Vec::with_capacity(texts.len());
        for some in texts.chunks(TEXTS_AT_A_TIME) {
            let cut: Vec<&str> = some.iter().map(|text| first_chars(text, self.max_chars)).collect();
            let encoded = self
                .tokenizer
                .encode_batch_fast(cut, true)
                .map_err(|error| Error::Tokenize { problem: error.to_string() })?;
            tokens.extend(encoded.iter().map(|text| text.get_ids().to_vec()));
        }
        Ok(tokens)
    }
}

fn first_chars(text: &str, n: usize) -> &str {
    text.char_indices().nth(n).map_or(text, |(at, _)| &text[..at])
}

/// The distinct texts in order of first appearance, and each text's place among them.
pub(super) fn distinct<'a>(texts: &[&'a str]) -> (Vec<&'a str>, Vec<usize>) {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
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

/// Texts of one length together, the longest first, at most `batch_tokens` tokens a batch (one text
/// where a single one has more).
pub(super) fn batches(tokens: &[Vec<u32>], batch_tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by_key(|at| (std::cmp::Reverse(tokens[*at].len()), *at));
    order
        .chunk_by(|a, b| tokens[*a].len() == tokens[*b].len())
        .flat_map(|same| {
            let texts = (batch_tokens / tokens[same[0]].len().max(1)).max(1);
            same.chunks(texts).map(<[usize]>::to_vec)
        })
        .collect()
}
