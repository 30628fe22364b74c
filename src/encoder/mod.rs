//! Texts → unit-norm embeddings, by a BERT-family model on candle, by static vectors distilled from one, or by
//! the texts' words alone.
//!
//! In: texts. Out: `n_texts × dim`, one row a text in input order, each of Euclidean norm 1. The
//! model is a folder (or hub name) with `config.json`, `tokenizer.json` and `model.safetensors`:
//! BERT (Devlin et al., 2019) and XLM-R (Conneau et al., 2020) architectures. Token states of the
//! last layer are averaged (or the first is taken, where the model's `1_Pooling/config.json` says
//! so) and normalised, as in Sentence-BERT (Reimers and Gurevych, 2019).
//!
//! Texts are tokenised in parallel, sorted by length, and batched text after text: there is no padding and no
//! mask. (Where candle computes alone, as on Apple's GPUs, a batch holds texts *of the same length*.) Equal texts are
//! embedded once. On the CPU batches run in parallel, each on one thread, which is the only parallel level, and a
//! text's embedding does not depend on its neighbours; on a GPU they run one after the other while the next texts are
//! tokenised, and products of other heights may differ in their last digits. [`Config::batch_tokens`] bounds a batch.
//!
//! On the CPU and on NVIDIA's GPUs, layers are this crate's kernels (`layers`): bias and GELU, residual and norm, and a
//! head's attention each in one pass, on the CPU over weights that are packed once. [`Precision::Bf16`] halves the
//! products' time where the machine can; cosines to f32's embeddings stay above 0.9995.
//!
//! A static encoder ([`Kind::Static`]) has the model read its vocabulary once and no text (`distilled`). A text's
//! embedding then depends on the catalogue as well, and is zero where no token of it says anything. Words
//! ([`Kind::Words`]) need no model at all (`words`).
//!
//! Cost: `2 · parameters` FLOPs a token plus attention, `O(tokens²)` a text; of a static encoder some
//! microseconds a token, most of them the tokenizer's; of words less than that. Memory: the weights, packed, and a
//! few activations of a batch's tokens `× intermediate size` a thread, or on a GPU a batch; of a static encoder `vocabulary × dim`
//! numbers. The room reads the model's files and nothing else; it never caches (the pipeline does) and never pads.

use std::path::PathBuf;

use candle_core::Tensor;
use hf_hub::api::sync::ApiError;
use rayon::prelude::*;

use crate::matrix::{Dense, DenseError};

mod config;
#[cfg(feature = "cuda")]
mod cuda;
mod distilled;
mod folder;
mod layers;
mod model;
mod tokens;
mod weights;
mod words;

pub use config::{Config, Device, Kind, Limit, Precision};
pub use folder::{NEEDED, POOLING};

/// Some more texts are embedded.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Distinct texts done.
    pub texts_done: usize,
    /// Distinct texts there are.
    pub texts_total: usize,
    /// Tokens done.
    pub tokens_done: usize,
}

/// Why there are no embeddings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device is not one this program knows.
    #[error("device `{found}`: expected cpu, cuda or metal")]
    UnknownDevice {
        /// As given.
        found: String,
    },
    /// The kind is not one this program knows.
    #[error("kind `{found}`: expected transformer, static or words")]
    UnknownKind {
        /// As given.
        found: String,
    },
    /// The precision is not one this program knows.
    #[error("precision `{found}`: expected f32, bf16 or f16")]
    UnknownPrecision {
        /// As given.
        found: String,
    },
    /// The device does not compute so.
    #[error("expected precision {expected} on the device {device}")]
    PrecisionOnDevice {
        /// The device.
        device: &'static str,
        /// What it has.
        expected: &'static str,
    },
    /// The binary was built without the device.
    #[error(
        "device `{device}` is not in this binary: build it with `cargo build --release --features {device}`"
    )]
    DeviceNotBuilt {
        /// The device, which is also the cargo feature's name.
        device: &'static str,
    },
    /// The device is built in but cannot be used.
    #[error("device `{device}` cannot be used")]
    DeviceFailed {
        /// The device.
        device: &'static str,
        /// What candle reported.
        #[source]
        source: candle_core::Error,
    },
    /// The model's folder lacks a file.
    #[error("{}: expected a model folder with config.json, tokenizer.json and model.safetensors; found no {file}", folder.display())]
    MissingFile {
        /// The folder.
        folder: PathBuf,
        /// What it lacks.
        file: &'static str,
    },
    /// The model is neither a folder nor to be had from the hub.
    #[error("model `{model}` is no folder here, and fetching `{file}` of that name from the hub failed")]
    Hub {
        /// The name.
        model: String,
        /// The file asked for.
        file: &'static str,
        /// What the hub client reported.
        #[source]
        source: Box<ApiError>,
    },
    /// A model file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system reported.
        #[source]
        source: std::io::Error,
    },
    /// A model file is not what it should be.
    #[error("{}: expected {expected}; found {found}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is needed.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// The weights do not fit the configuration.
    #[error("{}: the weights do not fit config.json", path.display())]
    Weights {
        /// The weights.
        path: PathBuf,
        /// The tensor, and what is wrong with it.
        #[source]
        source: candle_core::Error,
    },
    /// The tokenizer failed on a text.
    #[error("the tokenizer failed: {problem}")]
    Tokenize {
        /// What it reported.
        problem: String,
    },
    /// The model failed on a batch.
    #[error("the model failed on a batch")]
    Forward(#[source] candle_core::Error),
    /// An embedding is not finite.
    #[error("the model gave an embedding that is not finite")]
    NotFinite(#[source] DenseError),
}

impl Error {
    /// That of a GPU.
    fn on(device: &candle_core::Device, source: candle_core::Error) -> Self {
        let device = match device {
            candle_core::Device::Cpu => "cpu",
            candle_core::Device::Cuda(_) => "cuda",
            candle_core::Device::Metal(_) => "metal",
        };
        Self::DeviceFailed { device, source }
    }

    /// Whether a GPU's memory was too little.
    pub fn is_out_of_device_memory(&self) -> bool {
        let (Self::DeviceFailed { source, .. } | Self::Forward(source)) = self else { return false };
        let source = source.to_string();
        source.contains("CUDA_ERROR_OUT_OF_MEMORY") || source.contains("CUBLAS_STATUS_ALLOC_FAILED")
    }

    /// Whether another try may meet a hub that has the model, or a GPU that has room.
    pub fn may_pass(&self) -> bool {
        if self.is_out_of_device_memory() {
            return true;
        }
        let Self::Hub { source, .. } = self else { return false };
        let mut error = source.as_ref();
        while let ApiError::TooManyRetries(inner) = error {
            error = inner;
        }
        let ApiError::RequestError(error) = error else { return true };
        // What it does not know, or does not show to us, it will not an hour later either.
        !matches!(**error, ureq::Error::Status(400..=428 | 430..=499, _))
    }
}

/// What turns texts into embeddings: on a GPU for one thread at a time.
pub struct Encoder {
    model: Model,
    batch_tokens: usize,
}

enum Model {
    Transformer(tokens::Tokens, Box<model::Model>),
    Static(tokens::Tokens, distilled::Distilled),
    Words(words::Words),
}

/// What other encoders than a transformer are made from beside a model.
#[derive(Default)]
pub struct Corpus<'a> {
    /// The texts of the catalogue: a token or word counts for the less the more of them have it.
    pub texts: &'a [&'a str],
    /// Texts that will be embedded: of very many, each by words has fewer numbers.
    pub n_texts: usize,
    /// What [`Encoder::token_vectors`] was of the same model and keys, so that nothing need be distilled.
    pub token_vectors: Option<Dense>,
}

/// Tokens that one thread takes at a time: enough that reading a layer's weights is little beside using them,
/// few enough that what goes from layer to layer stays in the caches, and that the allocator keeps its memory: larger
/// buffers go back to the system, and are cleared by it again, in every layer.
const THREAD_TOKENS: usize = 192;

/// Batches that wait for a device at a time: so many that it is not idle while results are read.
const DEVICE_BATCHES: usize = 8;

/// Texts that a device has while the next ones become tokens: of usual length a few batches.
const DEVICE_TEXTS: usize = 4096;

/// Loads a model's tokenizer and weights; of a static encoder distils its token vectors, of which `on_batch`
/// hears.
///
/// # Errors
/// If a file is missing or does not fit, the device cannot be used, or the model fails.
pub fn load(config: &Config, corpus: Corpus<'_>, on_batch: &mut dyn FnMut(Batch)) -> Result<Encoder, Error> {
    let batch_tokens = config.tokens_a_batch();
    let model = match config.kind {
        Kind::Transformer => {
            let (tokenizer, model) = load_model(config)?;
            Model::Transformer(tokenizer, Box::new(model))
        }
        Kind::Static => static_model(config, corpus, on_batch)?,
        Kind::Words => Model::Words(words::Words::of(corpus.texts, corpus.n_texts)),
    };
    Ok(Encoder { model, batch_tokens })
}

fn static_model(
    config: &Config,
    corpus: Corpus<'_>,
    on_batch: &mut dyn FnMut(Batch),
) -> Result<Model, Error> {
    let tokenizer = tokens::Tokens::load(&folder::open(&config.model)?, config.max_tokens.get())?;
    let vectors = match corpus.token_vectors {
        Some(vectors) => vectors,
        None => {
            let (_, model) = load_model(config)?;
            distilled::distil(&model, &tokenizer, config.static_dim.get(), config.tokens_a_batch(), on_batch)?
        }
    };
    let catalogue = tokenizer.tokenize(corpus.texts)?;
    Ok(Model::Static(tokenizer, distilled::Distilled::new(vectors, &catalogue)))
}

fn load_model(config: &Config) -> Result<(tokens::Tokens, model::Model), Error> {
    load_on(config, config.precision.engine(config.device)?)
}

fn load_on(config: &Config, engine: layers::Engine) -> Result<(tokens::Tokens, model::Model), Error> {
    let device = config.device.open()?;
    let folder = folder::open(&config.model)?;
    let model = model::Model::load(&folder, &device, engine)?;
    let max_tokens = config.max_tokens.get().min(model.max_tokens());
    Ok((tokens::Tokens::load(&folder, max_tokens)?, model))
}

impl Encoder {
    /// Length of an embedding.
    pub fn dim(&self) -> usize {
        match &self.model {
            Model::Transformer(_, model) => model.dim(),
            Model::Static(_, distilled) => distilled.vectors.n_cols(),
            Model::Words(words) => words.dim,
        }
    }

    /// Operations of the layers' products a token; other encoders than a transformer have none.
    pub fn flops_a_token(&self) -> Option<f64> {
        match &self.model {
            Model::Transformer(_, model) => Some(model.flops_a_token()),
            Model::Static(..) | Model::Words(_) => None,
        }
    }

    /// Operations a second that the product of large matrices comes to on the model's GPU, measured for about 50
    /// milliseconds; nothing where there is none, or no room for it.
    pub fn device_flops(&self) -> Option<f64> {
        match &self.model {
            Model::Transformer(_, model) if model.has_device() => model.device_flops().ok(),
            _ => None,
        }
    }

    /// What a static encoder has of its vocabulary, a row a token: worth keeping for the next [`load`].
    pub fn token_vectors(&self) -> Option<&Dense> {
        match &self.model {
            Model::Static(_, distilled) => Some(&distilled.vectors),
            Model::Transformer(..) | Model::Words(_) => None,
        }
    }

    /// Embeds texts; `on_batch` hears of progress on the calling thread.
    ///
    /// # Errors
    /// If the tokenizer or the model fails; no partial result is returned.
    pub fn encode(&self, texts: &[&str], on_batch: &mut dyn FnMut(Batch)) -> Result<Dense, Error> {
        let (distinct, place) = tokens::distinct(texts);
        let mut at_once = |vectors: Vec<f32>, tokens_done: usize| {
            on_batch(Batch { texts_done: distinct.len(), texts_total: distinct.len(), tokens_done });
            vectors
        };
        let vectors = match &self.model {
            Model::Transformer(tokenizer, model) if model.has_device() => {
                embed_beside(model, tokenizer, &distinct, self.batch_tokens, on_batch)?
            }
            Model::Transformer(tokenizer, model) => {
                embed(model, &tokenizer.tokenize(&distinct)?, self.batch_tokens, on_batch)?
            }
            Model::Static(tokenizer, distilled) => {
                let tokens = tokenizer.tokenize(&distinct)?;
                at_once(distilled.embed(&tokens), tokens.iter().map(Vec::len).sum())
            }
            Model::Words(words) => at_once(words.embed(&distinct), 0),
        };
        let embeddings = spread(vectors, &place, self.dim());
        Dense::from_vec(texts.len(), self.dim(), embeddings).map_err(Error::NotFinite)
    }
}

/// The rows of distinct texts where the texts are: in their own memory, from the last on, since no text comes before
/// the first of its like.
fn spread(mut rows: Vec<f32>, place: &[usize], dim: usize) -> Vec<f32> {
    rows.resize(place.len() * dim, 0.0);
    for (to, from) in place.iter().enumerate().rev().filter(|(to, from)| to != *from) {
        rows.copy_within(from * dim..(from + 1) * dim, to * dim);
    }
    rows
}

/// Makes a vector of length 1; one of zeros stays.
fn make_unit(row: &mut [f32]) {
    let norm = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 {
        row.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
    }
}

/// The embeddings of texts, row after row: while the device has some, the next ones become tokens.
fn embed_beside(
    model: &model::Model,
    tokenizer: &tokens::Tokens,
    texts: &[&str],
    batch_tokens: usize,
    on_batch: &mut dyn FnMut(Batch),
) -> Result<Vec<f32>, Error> {
    let mut vectors = Vec::with_capacity(texts.len() * model.dim());
    let mut chunks = texts.chunks(DEVICE_TEXTS);
    let mut tokens = tokenizer.tokenize(chunks.next().unwrap_or_default())?;
    let (mut texts_before, mut tokens_before) = (0, 0);
    while !tokens.is_empty() {
        let mut next = Ok(Vec::new());
        // In place: each thread has a queue of its own on the device, and only this one reads what it queues.
        let rows = rayon::in_place_scope(|scope| {
            if let Some(texts) = chunks.next() {
                scope.spawn(|_| next = tokenizer.tokenize(texts));
            }
            embed(model, &tokens, batch_tokens, &mut |batch| {
                on_batch(Batch {
                    texts_done: texts_before + batch.texts_done,
                    texts_total: texts.len(),
                    tokens_done: tokens_before + batch.tokens_done,
                });
            })
        });
        vectors.extend(rows?);
        texts_before += tokens.len();
        tokens_before += tokens.iter().map(Vec::len).sum::<usize>();
        tokens = next?;
    }
    Ok(vectors)
}

/// The model's embeddings of texts that are tokens already, row after row.
fn embed(
    model: &model::Model,
    tokens: &[Vec<u32>],
    batch_tokens: usize,
    on_batch: &mut dyn FnMut(Batch),
) -> Result<Vec<f32>, Error> {
    let mixed = model.mixes_lengths();
    let on_threads = mixed && !model.has_device();
    let batch_tokens = if on_threads { batch_tokens.min(THREAD_TOKENS) } else { batch_tokens };
    let batches = tokens::batches(tokens, batch_tokens, mixed);
    let dim = model.dim();
    let mut vectors = vec![0f32; tokens.len() * dim];
    let (mut texts_done, mut tokens_done) = (0, 0);
    let place = |batch: &Vec<usize>| {
        let ids: Vec<&[u32]> = batch.iter().map(|at| tokens[*at].as_slice()).collect();
        model.place(&ids)
    };
    let read = |rows: Tensor| rows.flatten_all()?.to_vec1::<f32>();
    // A group is what all threads work on between two reports, or what a device has in its queue.
    let group = if model.has_device() { DEVICE_BATCHES } else { rayon::current_num_threads() * 4 };
    for group in batches.chunks(group) {
        let rows: candle_core::Result<Vec<Vec<f32>>> = if model.has_device() {
            // To bring something there may wait for all that is queued: so first that, then what takes time.
            let placed: Vec<_> = group.iter().map(place).collect::<Result<_, _>>().map_err(Error::Forward)?;
            let queued: Vec<Tensor> = placed
                .iter()
                .map(|texts| model.embed(texts))
                .collect::<Result<_, _>>()
                .map_err(Error::Forward)?;
            queued.into_iter().map(read).collect()
        } else {
            group.par_iter().map(|batch| read(model.embed(&place(batch)?)?)).collect()
        };
        let rows = rows.map_err(Error::Forward)?;
        for (batch, rows) in group.iter().zip(rows) {
            for (at, row) in batch.iter().zip(rows.chunks_exact(dim)) {
                vectors[at * dim..(at + 1) * dim].copy_from_slice(row);
                tokens_done += tokens[*at].len();
            }
            texts_done += batch.len();
        }
        on_batch(Batch { texts_done, texts_total: tokens.len(), tokens_done });
    }
    Ok(vectors)
}

#[cfg(test)]
mod tests;
