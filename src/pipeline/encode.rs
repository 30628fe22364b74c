//! The encode stage: every distinct text once, and only those that an earlier night has not.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, UInt32Array};
use arrow::datatypes::DataType;
use serde_json::json;

use crate::encoder::{self, Device, Kind, Precision};
use crate::error::Error;
use crate::lake::{self, table};
use crate::matrix::Dense;

use super::lists::{self, IdColumn};
use super::stages::{BLOCK_ROWS, Night, Report, dense, read_vectors, write_vectors};

/// Embeddings of items (by item index) and queries (by query index); a text that is missing is a
/// zero row.
pub(super) struct Embeddings {
    pub(super) items: Dense,
    pub(super) queries: Dense,
}

impl Embeddings {
    /// Without what all items' texts have in common, so that cosines tell apart what the catalogue holds (Mu and
    /// Viswanath, "All-but-the-top: simple and effective postprocessing for word representations", 2018).
    pub(super) fn centred(self) -> Self {
        let mut sum = vec![0f64; self.items.n_cols()];
        let mut n_texts = 0;
        for row in (0..self.items.n_rows()).map(|item| self.items.row(item)).filter(|row| has_text(row)) {
            sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
            n_texts += 1;
        }
        let mean: Vec<f32> = sum.iter().map(|sum| (sum / f64::from(n_texts.max(1))) as f32).collect();
        let centred = |mut rows: Dense| {
            for row in rows.values_mut().chunks_exact_mut(mean.len().max(1)).filter(|row| has_text(row)) {
                row.iter_mut().zip(&mean).for_each(|(value, mean)| *value -= mean);
            }
            rows.with_unit_rows()
        };
        Self { items: centred(self.items), queries: centred(self.queries) }
    }
}

fn has_text(row: &[f32]) -> bool {
    row.iter().any(|value| *value != 0.0)
}

/// A text's name in the cache: the first 16 bytes of its BLAKE3 hash.
type TextHash = [u8; 16];

impl Night<'_> {
    pub(super) fn encode(&mut self) -> Result<(), Error> {
        if !self.has_texts()? {
            let fingerprint = self.fingerprint("encode", &["catalog"]).add("encoder", "off");
            return self.stage("encode", fingerprint.hex(), |_, _| {
                Ok(Report { facts: json!({ "dim": 0 }), note: "off: no texts".to_owned() })
            });
        }
        let Some(config) = self.inputs.encoder.clone() else { return Ok(()) };
        let model = config.fingerprint().map_err(Error::Model)?;
        let fingerprint = self
            .fingerprint("encode", &["catalog"])
            .add("model", &model)
            .add("config", &json!(self.job.spec.encoder).to_string());
        self.stage("encode", fingerprint.hex(), |night, folder| {
            let catalog = night.catalog_rows()?;
            let ids = night.ids()?;
            let texts = prefixed(&catalog.texts, &config.item_prefix);
            let queries = prefixed(ids.queries.as_string::<i32>(), &config.query_prefix);
            let earlier = night.output.newest("encode", &|facts| facts["model"] == *model)?;
            // Other embeddings than a transformer's depend on tonight's catalogue; vectors of tokens do not.
            let (known, token_vectors) = match (&earlier, config.kind) {
                (None, _) | (Some(_), Kind::Words) => (None, None),
                (Some(stage), Kind::Transformer) => {
                    (night.unless_damaged(Known::read(stage.folder()), "embeddings", stage), None)
                }
                (Some(stage), Kind::Static) => {
                    let vectors = read_vectors(&stage.folder().join(TOKENS), "vector");
                    (None, night.unless_damaged(vectors, "token vectors", stage))
                }
            };
            let known = known.unwrap_or_default();
            let hash = |text: &str| -> TextHash {
                let mut short = TextHash::default();
                short.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
                short
            };
            let mut missing: BTreeMap<TextHash, &str> = BTreeMap::new();
            for text in texts.iter().chain(&queries).flatten() {
                let hash = hash(text);
                if !known.rows.contains_key(&hash) {
                    missing.insert(hash, text);
                }
            }
            let new: Vec<&str> = missing.values().copied().collect();
            let is_kept = token_vectors.is_some();
            let model_dim;
            let (mut flops, mut device_flops) = (None, None);
            let fresh = if !known.rows.is_empty() && new.is_empty() {
                model_dim = known.vectors.n_cols();
                Dense::zeros(0, model_dim)
            } else {
                let catalogue: Vec<&str> = texts.iter().flatten().map(String::as_str).collect();
                let corpus = encoder::Corpus { texts: &catalogue, n_texts: new.len(), token_vectors };
                let encoder = encoder::load(&config, corpus, &mut |batch| {
                    night.progress("encode", batch.texts_done, batch.texts_total, "tokens");
                });
                let encoder = encoder.map_err(Error::Encode)?;
                if let Some(vectors) = encoder.token_vectors() {
                    write_tokens(&folder.join(TOKENS), vectors)?;
                }
                model_dim = encoder.dim();
                let fresh = encoder
                    .encode(&new, &mut |batch| {
                        flops = encoder.flops_a_token().map(|flops| flops * batch.tokens_done as f64);
                        night.progress("encode", batch.texts_done, batch.texts_total, "texts");
                    })
                    .map_err(Error::Encode)?;
                device_flops = encoder.device_flops();
                fresh
            };
            let fresh_rows: BTreeMap<TextHash, usize> =
                missing.keys().enumerate().map(|(at, hash)| (*hash, at)).collect();
            let vector = |text: &Option<String>| -> Option<&[f32]> {
                let hash = hash(text.as_deref()?);
                match fresh_rows.get(&hash) {
                    Some(at) => Some(fresh.row(*at)),
                    None => Some(known.vectors.row(known.rows[&hash])),
                }
            };
            let gather = |texts: &[Option<String>]| {
                let mut rows = Dense::zeros(texts.len(), model_dim);
                for (at, text) in texts.iter().enumerate() {
                    if let Some(vector) = vector(text) {
                        rows.row_mut(at).copy_from_slice(vector);
                    }
                }
                rows
            };
            let item_ids = night.item_ids(&ids);
            let path = folder.join("item_embeddings/part.parquet");
            write_vectors(&path, ("item_id", &item_ids), "embedding", &gather(&texts), true)?;
            let query_ids = IdColumn::new(ids.queries.clone(), DataType::Utf8);
            let path = folder.join("queries.parquet");
            write_vectors(&path, ("query", &query_ids), "embedding", &gather(&queries), true)?;
            let mut used: BTreeMap<TextHash, &[f32]> = BTreeMap::new();
            for text in texts.iter().chain(&queries) {
                if let (Some(given), Some(vector)) = (text, vector(text)) {
                    used.insert(hash(given), vector);
                }
            }
            let n_cached = used.len() - new.len();
            let note = match (config.kind, is_kept) {
                (Kind::Transformer, _) => {
                    write_cache(&folder.join("texts.parquet"), &used, model_dim)?;
                    format!("{} texts encoded, {n_cached} taken from earlier nights", new.len())
                }
                (Kind::Static, true) => format!("{} texts encoded, by an earlier night's vectors", new.len()),
                (Kind::Words, _) => format!("{} texts encoded by their words", new.len()),
                (Kind::Static, false) => format!("{} texts encoded, vectors distilled", new.len()),
            };
            // What is not told is f32 on the processor, or a GPU's.
            let in_bf16 = config.device == Device::Cpu && config.precision == Precision::Bf16;
            let products = in_bf16.then_some("bf16");
            let facts = json!({ "dim": model_dim, "model": model, "encoded": new.len(), "cached": n_cached, "token_vectors_kept": is_kept, "flops": flops, "device_flops": device_flops, "products": products });
            Ok(Report { facts, note })
        })
    }

    /// The embeddings, where there are any.
    pub(super) fn embeddings(&self) -> Result<Option<Embeddings>, Error> {
        let folder = self.folder("encode");
        let path = folder.join("item_embeddings/part.parquet");
        if !path.exists() {
            return Ok(None);
        }
        let items = read_vectors(&path, "embedding")?;
        let queries = read_vectors(&folder.join("queries.parquet"), "embedding")?;
        Ok(Some(Embeddings { items, queries }))
    }
}

/// What an earlier night encoded with the same model.
#[derive(Default)]
struct Known {
    rows: BTreeMap<TextHash, usize>,
    vectors: Dense,
}

impl Known {
    fn read(folder: &Path) -> Result<Self, Error> {
        let rows = lake::read(&folder.join("texts.parquet"), &["text_hash", "vector"])?;
        let hashes = rows.column(0).as_fixed_size_binary();
        let by_hash = (0..hashes.len()).filter_map(|at| {
            let hash: TextHash = hashes.value(at).try_into().ok()?;
            Some((hash, at))
        });
        Ok(Self { rows: by_hash.collect(), vectors: dense(rows.column(1))? })
    }
}

/// The vectors of a static encoder's tokens, by token.
const TOKENS: &str = "tokens.parquet";

fn write_tokens(path: &Path, vectors: &Dense) -> Result<(), Error> {
    let tokens: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..vectors.n_rows() as u32));
    write_vectors(path, ("token", &IdColumn::new(tokens, DataType::UInt32)), "vector", vectors, false)
}

fn prefixed(texts: &arrow::array::StringArray, prefix: &str) -> Vec<Option<String>> {
    texts.iter().map(|text| text.map(|text| format!("{prefix}{text}"))).collect()
}

fn write_cache(path: &Path, texts: &BTreeMap<TextHash, &[f32]>, dim: usize) -> Result<(), Error> {
    let entries: Vec<(&TextHash, &&[f32])> = texts.iter().collect();
    let mut writer: Option<table::Writer> = None;
    for block in entries.chunks(BLOCK_ROWS) {
        let hashes: Vec<&[u8]> = block.iter().map(|(hash, _)| hash.as_slice()).collect();
        let hashes: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_iter(hashes.into_iter())?);
        let values: Vec<f32> = block.iter().flat_map(|(_, vector)| vector.iter().copied()).collect();
        let vectors = Dense::from_vec(block.len(), dim, values)?;
        let vectors = lists::vectors(&vectors, 0..block.len(), false)?;
        let batch = lists::batch(vec![("text_hash", hashes), ("vector", vectors)], &[])?;
        if writer.is_none() {
            let layout = table::Layout::default();
            writer = Some(table::Writer::create(path, batch.schema(), &layout).map_err(lake::Error::from)?);
        }
        if let Some(writer) = &mut writer {
            writer.write(&batch).map_err(lake::Error::from)?;
        }
    }
    if let Some(writer) = writer {
        writer.finish().map_err(lake::Error::from)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_texts_have_in_common_is_taken_off_and_no_text_stays_none() {
        let rows = |values: &[f32]| Dense::from_vec(values.len() / 2, 2, values.to_vec()).unwrap();
        let items = rows(&[0.8, 0.6, 0.8, -0.6, 0.0, 0.0]);
        let found = Embeddings { items, queries: rows(&[1.0, 0.0, 0.0, 0.0]) }.centred();
        // The mean of the two texts is (0.8, 0): what is left is where they differ.
        assert_eq!(found.items, rows(&[0.0, 1.0, 0.0, -1.0, 0.0, 0.0]));
        let query = found.queries.row(0);
        assert!((query[0] - 1.0).abs() < 1e-6 && query[1] == 0.0, "{query:?}");
        assert_eq!(found.queries.row(1), [0.0, 0.0]);
    }
}
