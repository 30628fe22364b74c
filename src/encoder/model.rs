//! BERT, as the paper has it: embeddings, then layers of self-attention and feed-forward, each with
//! its residual and layer norm (Devlin et al., 2019; Vaswani et al., 2017).
//!
//! States are `tokens × hidden`, text after text. Tensor names are those of the published checkpoints.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Module, Result, Tensor};
use candle_nn::{Activation, VarBuilder};
use serde::Deserialize;

use super::Error;
use super::folder::{Folder, read_json};
use super::layers::{AddNorm, Engine, Linear, Ready, Texts, attend, pool};
use super::weights;

/// The parts of `config.json` that decide the computation.
#[derive(Clone, Debug, Deserialize)]
struct Shape {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: Activation,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f64,
    #[serde(default)]
    pad_token_id: usize,
    #[serde(default = "absolute")]
    position_embedding_type: String,
}

fn absolute() -> String {
    "absolute".to_owned()
}

/// The parts of sentence-transformers' pooling configuration that this room knows.
#[derive(Debug, Default, Deserialize)]
struct Pooling {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
}

/// A loaded model.
pub(super) struct Model {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    shape: Shape,
    /// The first token's state instead of the mean of all.
    first_token: bool,
    device: Device,
    engine: Engine,
    /// Last, since it gives back what the others held.
    _ready: Ready,
}

/// Whether it is the device that failed, and not what it was given.
fn is_of_device(error: &candle_core::Error) -> bool {
    let error = error.to_string();
    error.contains("CUDA_ERROR") || error.contains("CUBLAS_STATUS")
}

impl Model {
    pub(super) fn load(folder: &Folder, device: &Device, engine: Engine) -> std::result::Result<Self, Error> {
        let shape: Shape = read_json(&folder.config, "a BERT or XLM-R config")?;
        let wrong = |expected: &str, found: &str| Error::Model {
            path: folder.config.clone(),
            expected: expected.to_owned(),
            found: found.to_owned(),
        };
        if !["bert", "roberta", "xlm-roberta"].contains(&shape.model_type.as_str()) {
            return Err(wrong("model_type bert, roberta or xlm-roberta", &shape.model_type));
        }
        if shape.position_embedding_type != "absolute" {
            return Err(wrong("absolute position embeddings", &shape.position_embedding_type));
        }
        if shape.num_attention_heads == 0 || !shape.hidden_size.is_multiple_of(shape.num_attention_heads) {
            let found = format!("{} over {} heads", shape.hidden_size, shape.num_attention_heads);
            return Err(wrong("a hidden size that its heads divide", &found));
        }
        let first_token = match &folder.pooling {
            None => false,
            Some(path) => {
                let pooling: Pooling = read_json(path, "a pooling config")?;
                if pooling.pooling_mode_cls_token == pooling.pooling_mode_mean_tokens {
                    return Err(Error::Model {
                        path: path.clone(),
                        expected: "pooling by the mean or by the first token".to_owned(),
                        found: format!("{pooling:?}"),
                    });
                }
                pooling.pooling_mode_cls_token
            }
        };
        let head = shape.hidden_size / shape.num_attention_heads;
        if head > engine.widest_head() {
            let expected = format!("heads of at most {} numbers on a GPU", engine.widest_head());
            return Err(wrong(&expected, &head.to_string()));
        }
        let ready = engine.prepare(device).map_err(|source| Error::on(device, source))?;
        let vb = weights::open(&folder.weights, device)?;
        let weights = |source: candle_core::Error| match is_of_device(&source) {
            true => Error::on(device, source),
            false => Error::Weights { path: folder.weights.clone(), source },
        };
        // A checkpoint saved with its training head has the encoder below its name.
        let vb = match ["bert", "roberta"]
            .into_iter()
            .find(|name| vb.contains_tensor(&format!("{name}.embeddings.word_embeddings.weight")))
        {
            Some(name) => vb.pp(name),
            None => vb,
        };
        let embeddings = Embeddings::load(vb.pp("embeddings"), &shape, engine).map_err(weights)?;
        let layers = (0..shape.num_hidden_layers)
            .map(|at| Layer::load(vb.pp("encoder").pp("layer").pp(at), &shape, engine))
            .collect::<Result<_>>()
            .map_err(weights)?;
        // Each thread has a queue of its own on a device, and it may not be this one that embeds texts.
        device.synchronize().map_err(|source| Error::on(device, source))?;
        Ok(Self { embeddings, layers, shape, first_token, device: device.clone(), engine, _ready: ready })
    }

    pub(super) fn dim(&self) -> usize {
        self.shape.hidden_size
    }

    /// Operations of the layers' products a token; what attention adds grows with a text and is left out.
    pub(super) fn flops_a_token(&self) -> f64 {
        let Shape { hidden_size: hidden, intermediate_size: inner, num_hidden_layers, .. } = &self.shape;
        2.0 * (num_hidden_layers * (4 * hidden * hidden + 2 * hidden * inner)) as f64
    }

    /// What the device's own product of two large matrices comes to, in operations a second, the best of some.
    pub(super) fn device_flops(&self) -> Result<f64> {
        const WIDTH: usize = 4096;
        const BUDGET: Duration = Duration::from_millis(50);
        // Not zeros, which some devices multiply faster.
        let matrix =
            Tensor::rand(-1f32, 1f32, (WIDTH, WIDTH), &self.device)?.to_dtype(self.engine.dtype())?;
        let mut best = 0f64;
        let started = Instant::now();
        while best == 0.0 || started.elapsed() < BUDGET {
            self.device.synchronize()?;
            let began = Instant::now();
            matrix.matmul(&matrix)?;
            self.device.synchronize()?;
            best = best.max(2.0 * (WIDTH as f64).powi(3) / began.elapsed().as_secs_f64());
        }
        Ok(best)
    }

    /// Entries of the vocabulary.
    pub(super) fn n_words(&self) -> usize {
        self.shape.vocab_size
    }

    /// The longest text the position table allows.
    pub(super) fn max_tokens(&self) -> usize {
        self.shape.max_position_embeddings - self.shape.first_position()
    }

    /// Whether texts of a batch may differ in length.
    pub(super) fn mixes_lengths(&self) -> bool {
        !matches!(self.engine, Engine::Plain(_))
    }

    /// Whether there is another device than the CPU, which takes batches one after the other.
    pub(super) fn has_device(&self) -> bool {
        !self.device.is_cpu()
    }

    /// Texts for [`Model::embed`].
    pub(super) fn place(&self, texts: &[&[u32]]) -> Result<Texts> {
        Texts::new(texts, &self.device, self.engine)
    }

    /// Unit embeddings of texts, one a row: on a device perhaps still to come, and waited for when they are read.
    pub(super) fn embed(&self, texts: &Texts) -> Result<Tensor> {
        if texts.are_empty() {
            return Tensor::zeros((texts.len(), self.dim()), DType::F32, &Device::Cpu);
        }
        let mut states = self.embeddings.forward(texts)?;
        for layer in &self.layers {
            states = layer.forward(&states, texts)?;
        }
        pool(&states, texts, self.first_token)
    }
}

impl Shape {
    /// RoBERTa counts positions from after the padding token's; BERT from 0.
    fn first_position(&self) -> usize {
        if self.model_type == "bert" { 0 } else { self.pad_token_id + 1 }
    }
}

/// Token, position and segment embeddings, summed and normalised. All text is segment 0.
struct Embeddings {
    words: candle_nn::Embedding,
    /// Position plus segment-0 embedding, from the first position on.
    positions: candle_nn::Embedding,
    norm: AddNorm,
}

impl Embeddings {
    fn load(vb: VarBuilder, shape: &Shape, engine: Engine) -> Result<Self> {
        let hidden = shape.hidden_size;
        let words = candle_nn::embedding(shape.vocab_size, hidden, vb.pp("word_embeddings"))?;
        let positions =
            vb.pp("position_embeddings").get((shape.max_position_embeddings, hidden), "weight")?;
        let segments = vb.pp("token_type_embeddings").get((shape.type_vocab_size, hidden), "weight")?;
        let first = shape.first_position();
        let positions = positions.narrow(0, first, shape.max_position_embeddings - first)?;
        let positions = positions.broadcast_add(&segments.narrow(0, 0, 1)?)?;
        let positions = candle_nn::Embedding::new(positions.to_dtype(engine.dtype())?, hidden);
        let words = candle_nn::Embedding::new(words.embeddings().to_dtype(engine.dtype())?, hidden);
        let norm = AddNorm::load(vb.pp("LayerNorm"), None, hidden, shape.layer_norm_eps, engine)?;
        Ok(Self { words, positions, norm })
    }

    fn forward(&self, texts: &Texts) -> Result<Tensor> {
        self.norm.forward(&self.words.forward(&texts.ids)?, &self.positions.forward(&texts.positions)?)
    }
}

/// One block: attention, then feed-forward, each added to its input and normalised.
struct Layer {
    attention: Attention,
    attention_norm: AddNorm,
    up: Linear,
    down: Linear,
    output_norm: AddNorm,
}

impl Layer {
    fn load(vb: VarBuilder, shape: &Shape, engine: Engine) -> Result<Self> {
        let (hidden, inner) = (shape.hidden_size, shape.intermediate_size);
        let norm = |vb: VarBuilder, before| {
            AddNorm::load(vb.pp("LayerNorm"), before, hidden, shape.layer_norm_eps, engine)
        };
        let mut attention = Attention::load(vb.pp("attention"), shape, engine)?;
        let up = vb.pp("intermediate").pp("dense");
        let mut down = Linear::load(vb.pp("output").pp("dense"), inner, hidden, None, engine)?;
        Ok(Self {
            attention_norm: norm(vb.pp("attention").pp("output"), attention.output.take_bias())?,
            attention,
            up: Linear::load(up, hidden, inner, Some(shape.hidden_act), engine)?,
            output_norm: norm(vb.pp("output"), down.take_bias())?,
            down,
        })
    }

    fn forward(&self, states: &Tensor, texts: &Texts) -> Result<Tensor> {
        let attended = self.attention.forward(states, texts)?;
        let attended = self.attention_norm.forward(&attended, states)?;
        let inner = self.up.forward(&attended)?;
        self.output_norm.forward(&self.down.forward(&inner)?, &attended)
    }
}

/// Multi-head self-attention; queries, keys and values come from one product.
struct Attention {
    qkv: Linear,
    query_bias: Option<Tensor>,
    output: Linear,
    n_heads: usize,
    engine: Engine,
}

impl Attention {
    fn load(vb: VarBuilder, shape: &Shape, engine: Engine) -> Result<Self> {
        let hidden = shape.hidden_size;
        let part = |name| candle_nn::linear(hidden, hidden, vb.pp("self").pp(name));
        let mut qkv = Linear::joined(&[part("query")?, part("key")?, part("value")?], engine)?;
        let mut output = Linear::load(vb.pp("output").pp("dense"), hidden, hidden, None, engine)?;
        // A key's bias adds the same to all of a query's scores, which softmax does not see; since its weights sum to
        // one, a value's bias goes through as it is.
        let query_bias = match qkv.take_bias() {
            None => None,
            Some(bias) => {
                output.make_up_for(&bias.narrow(0, 2 * hidden, hidden)?)?;
                Some(bias.narrow(0, 0, hidden)?)
            }
        };
        Ok(Self { qkv, query_bias, output, n_heads: shape.num_attention_heads, engine })
    }

    fn forward(&self, states: &Tensor, texts: &Texts) -> Result<Tensor> {
        let qkv = self.qkv.forward(states)?;
        let mixed = attend(&qkv, self.query_bias.as_ref(), texts, self.n_heads, self.engine)?;
        self.output.forward(&mixed)
    }
}
