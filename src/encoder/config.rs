//! The job's `[encoder]` table.

use std::num::NonZeroUsize;

use candle_core::DType;
use serde::{Deserialize, Serialize};

use super::layers::Engine;
use super::{Error, folder};
use crate::matrix::kernels;

/// Which model, where it runs, and how texts are cut for it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A folder with config.json, tokenizer.json and model.safetensors, its URL in a store, or a hub name `org/name`.
    pub model: String,
    /// `transformer`; `static`: means of token vectors that are distilled from it, a hundred times as fast; or
    /// `words`: no model at all, texts are alike by the words they share.
    pub kind: Kind,
    /// Numbers in a static embedding; at most the transformer's.
    pub static_dim: NonZeroUsize,
    /// Where it runs: `cpu`, `cuda` or `metal`.
    pub device: Device,
    /// What products are computed from: `f32`, or `bf16` (summed in f32), which is about twice as fast where
    /// the processor has AVX512-BF16 and gives nearly the same embeddings anywhere. On NVIDIA's GPUs `f16` as
    /// well, and states between products are kept so too; bf16 needs compute capability 8.0 there.
    pub precision: Precision,
    /// Longer texts are cut to this many tokens, special ones included.
    pub max_tokens: Limit,
    /// Tokens a batch holds at most: by default 2,048 on the CPU, where each thread has one, and 32,768 on
    /// NVIDIA's GPUs.
    pub batch_tokens: Option<Limit>,
    /// Put before each item's text (`passage: ` for the e5 family).
    pub item_prefix: String,
    /// Put before each query (`query: ` for the e5 family).
    pub query_prefix: String,
}

/// At least 8.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(try_from = "usize")]
pub struct Limit(usize);

/// What makes embeddings of a model.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The model reads each text.
    #[default]
    Transformer,
    /// The model reads each token once; a text is its tokens' weighted mean.
    Static,
    /// There is no model; a text is its words, the rarer the more.
    Words,
}

/// Where a model runs.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU; needs the cargo feature `cuda`.
    Cuda,
    /// An Apple GPU; needs the cargo feature `metal`.
    Metal,
}

/// What products are computed from.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// bf16, summed in f32.
    Bf16,
    /// f16, summed in f32; on a GPU alone.
    F16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: "sentence-transformers/all-MiniLM-L6-v2".to_owned(),
            kind: Kind::Transformer,
            static_dim: const { NonZeroUsize::new(256).expect("not zero") },
            device: Device::Cpu,
            precision: Precision::F32,
            max_tokens: Limit(128),
            batch_tokens: None,
            item_prefix: String::new(),
            query_prefix: String::new(),
        }
    }
}

impl Limit {
    /// The number.
    pub fn get(self) -> usize {
        self.0
    }
}

impl TryFrom<usize> for Limit {
    type Error = String;

    fn try_from(tokens: usize) -> Result<Self, String> {
        if tokens >= 8 {
            Ok(Self(tokens))
        } else {
            Err(format!("expected at least 8 tokens; found {tokens}"))
        }
    }
}

impl Config {
    /// Where the job says nothing of texts.
    pub fn without_model() -> Self {
        Self { kind: Kind::Words, ..Self::default() }
    }

    /// Numbers in each of so many texts' embeddings, where that is not the model's to say.
    pub fn dim(&self, n_texts: usize) -> Option<usize> {
        match self.kind {
            Kind::Transformer => None,
            Kind::Static => Some(self.static_dim.get()),
            Kind::Words => Some(super::words::dim(n_texts)),
        }
    }

    /// Tokens a batch holds at most.
    pub(super) fn tokens_a_batch(&self) -> usize {
        // Only kernels of our own are known to have room for as much.
        let is_fused = self.device == Device::Cuda && !kernels::are_portable();
        self.batch_tokens.map_or(if is_fused { 32_768 } else { 2048 }, Limit::get)
    }

    /// Whether the device and the model can be used, by loading it once: a damaged file shows in
    /// seconds, not after the aggregation. A hub name is fetched.
    ///
    /// # Errors
    /// What is missing or does not fit.
    pub fn check(&self) -> Result<(), Error> {
        match self.kind {
            Kind::Words => Ok(()),
            Kind::Transformer | Kind::Static => super::load_model(self).map(|_| ()),
        }
    }

    /// A hash of everything that decides a text's embedding but texts: the model's files, `max_tokens`,
    /// `precision` and `kind`; not where products of f32 are computed, which is rounding, unless kernels are the
    /// portable ones: support wants to know what those make of a text.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn fingerprint(&self) -> Result<String, Error> {
        if self.kind == Kind::Words {
            return Ok("words".to_owned());
        }
        let mut hasher = blake3::Hasher::new();
        for path in folder::open(&self.model)?.files() {
            let bytes =
                std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(&bytes);
        }
        hasher.update(&self.max_tokens.get().to_le_bytes());
        match self.precision {
            Precision::F32 => {}
            Precision::Bf16 if self.device == Device::Cpu => _ = hasher.update(b"bf16"),
            // States between products are rounded there as well.
            Precision::Bf16 => _ = hasher.update(b"bf16 on a GPU"),
            Precision::F16 => _ = hasher.update(b"f16"),
        }
        if self.kind == Kind::Static {
            hasher.update(b"static").update(&self.static_dim.get().to_le_bytes());
        }
        if kernels::are_portable() {
            hasher.update(b"portable");
        }
        Ok(hasher.finalize().to_hex()[..32].to_owned())
    }
}

impl Kind {
    /// The cosine up to which two texts' embeddings of so many numbers resemble each other by chance: three
    /// deviations of the projection's noise where they are of words, which may share none.
    pub fn chance(self, dim: usize) -> f32 {
        match self {
            Self::Words => 3.0 / (dim.max(1) as f32).sqrt(),
            Self::Transformer | Self::Static => 0.0,
        }
    }

    /// The kind of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn parse(name: &str) -> Result<Self, Error> {
        match name {
            "transformer" => Ok(Self::Transformer),
            "static" => Ok(Self::Static),
            "words" => Ok(Self::Words),
            _ => Err(Error::UnknownKind { found: name.to_owned() }),
        }
    }
}

impl Precision {
    /// The precision of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn parse(name: &str) -> Result<Self, Error> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            _ => Err(Error::UnknownPrecision { found: name.to_owned() }),
        }
    }

    /// What computes so on a device.
    pub(super) fn engine(self, device: Device) -> Result<Engine, Error> {
        let dtype = match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        };
        match (device, self) {
            (Device::Cpu, Self::F32) if kernels::are_portable() => Ok(Engine::Plain(dtype)),
            (Device::Cpu, Self::F32) => Ok(Engine::Packed(kernels::Precision::F32)),
            (Device::Cpu, Self::Bf16) => Ok(Engine::Packed(kernels::Precision::Bf16)),
            (Device::Cpu, Self::F16) => {
                Err(Error::PrecisionOnDevice { device: "cpu", expected: "f32 or bf16" })
            }
            #[cfg(feature = "cuda")]
            (Device::Cuda, _) if !kernels::are_portable() => Ok(Engine::Fused(dtype)),
            (Device::Cuda, _) | (Device::Metal, Self::F32) => Ok(Engine::Plain(dtype)),
            (Device::Metal, _) => Err(Error::PrecisionOnDevice { device: "metal", expected: "f32" }),
        }
    }
}

impl Device {
    /// The device of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn parse(name: &str) -> Result<Self, Error> {
        match name {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            "metal" => Ok(Self::Metal),
            _ => Err(Error::UnknownDevice { found: name.to_owned() }),
        }
    }

    fn check(self) -> Result<(), Error> {
        match self {
            Self::Cuda if !cfg!(feature = "cuda") => Err(Error::DeviceNotBuilt { device: "cuda" }),
            Self::Metal if !cfg!(feature = "metal") => Err(Error::DeviceNotBuilt { device: "metal" }),
            _ => Ok(()),
        }
    }

    pub(super) fn open(self) -> Result<candle_core::Device, Error> {
        self.check()?;
        let failed = |device| move |source| Error::DeviceFailed { device, source };
        match self {
            Self::Cpu => Ok(candle_core::Device::Cpu),
            Self::Cuda => candle_core::Device::new_cuda(0).map_err(failed("cuda")),
            Self::Metal => candle_core::Device::new_metal(0).map_err(failed("metal")),
        }
    }
}
