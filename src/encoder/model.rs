//! BERT, as the paper has it: embeddings, then layers of self-attention and feed-forward, each with
//! its residual and layer norm (Devlin et al., 2019; Vaswani et al., 2017).
//!
//! Shapes are `texts × tokens × hidden`. Tensor names are those of the published checkpoints.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{Activation, LayerNorm, Linear, Module, VarBuilder, ops::softmax_last_dim};
use serde::Deserialize;

use super::Error;
use super::folder::{Folder, read_json};

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
}

impl Model {
    pub(super) fn load(folder: &Folder, device: &Device) -> std::result::Result<Self, Error> {
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
        let bytes = std::fs::read(&folder.weights)
            .map_err(|source| Error::Read { path: folder.weights.clone(), source })?;
        let weights = |source| Error::Weights { path: folder.weights.clone(), source };
        let vb = VarBuilder::from_buffered_safetensors(bytes, DType::F32, device).map_err(weights)?;
        // A checkpoint saved with its training head has the encoder below its name.
        let vb = match ["bert", "roberta"]
            .into_iter()
            .find(|name| vb.contains_tensor(&format!("{name}.embeddings.word_embeddings.weight")))
        {
            Some(name) => vb.pp(name),
            None => vb,
        };
        let embeddings = Embeddings::load(vb.pp("embeddings"), &shape).map_err(weights)?;
        let layers = (0..shape.num_hidden_layers)
            .map(|at| Layer::load(vb.pp("encoder").pp("layer").pp(at), &shape))
            .collect::<Result<_>>()
            .map_err(weights)?;
        Ok(Self { embeddings, layers, shape, first_token, device: device.clone() })
    }

    pub(super) fn dim(&self) -> usize {
        self.shape.hidden_size
    }

    /// The longest text the position table allows.
    pub(super) fn max_tokens(&self) -> usize {
        self.shape.max_position_embeddings - self.shape.first_position()
    }

    /// Unit embeddings of texts of one length, row after row.
    pub(super) fn embed(&self, texts: &[&[u32]]) -> Result<Vec<f32>> {
        let n_tokens = texts[0].len();
        let ids = Tensor::from_vec(texts.concat(), (texts.len(), n_tokens), &self.device)?;
        let mut states = self.embeddings.forward(&ids)?;
        for layer in &self.layers {
            states = layer.forward(&states)?;
        }
        let pooled = if self.first_token { states.narrow(1, 0, 1)?.squeeze(1)? } else { states.mean(1)? };
        let norms = pooled.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?;
        pooled.broadcast_div(&norms)?.flatten_all()?.to_vec1()
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
    positions: Tensor,
    norm: LayerNorm,
}

impl Embeddings {
    fn load(vb: VarBuilder, shape: &Shape) -> Result<Self> {
        let hidden = shape.hidden_size;
        let words = candle_nn::embedding(shape.vocab_size, hidden, vb.pp("word_embeddings"))?;
        let positions =
            vb.pp("position_embeddings").get((shape.max_position_embeddings, hidden), "weight")?;
        let segments = vb.pp("token_type_embeddings").get((shape.type_vocab_size, hidden), "weight")?;
        let first = shape.first_position();
        let positions = positions.narrow(0, first, shape.max_position_embeddings - first)?;
        let positions = positions.broadcast_add(&segments.narrow(0, 0, 1)?)?;
        let norm = candle_nn::layer_norm(hidden, shape.layer_norm_eps, vb.pp("LayerNorm"))?;
        Ok(Self { words, positions, norm })
    }

    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let positions = self.positions.narrow(0, 0, ids.dim(1)?)?;
        self.norm.forward(&self.words.forward(ids)?.broadcast_add(&positions)?)
    }
}

/// One block: attention, then feed-forward, each added to its input and normalised.
struct Layer {
    attention: Attention,
    attention_norm: LayerNorm,
    up: Linear,
    activation: Activation,
    down: Linear,
    output_norm: LayerNorm,
}

impl Layer {
    fn load(vb: VarBuilder, shape: &Shape) -> Result<Self> {
        let (hidden, inner) = (shape.hidden_size, shape.intermediate_size);
        let norm = |vb: VarBuilder| candle_nn::layer_norm(hidden, shape.layer_norm_eps, vb.pp("LayerNorm"));
        Ok(Self {
            attention: Attention::load(vb.pp("attention"), shape)?,
            attention_norm: norm(vb.pp("attention").pp("output"))?,
            up: candle_nn::linear(hidden, inner, vb.pp("intermediate").pp("dense"))?,
            activation: shape.hidden_act,
            down: candle_nn::linear(inner, hidden, vb.pp("output").pp("dense"))?,
            output_norm: norm(vb.pp("output"))?,
        })
    }

    fn forward(&self, states: &Tensor) -> Result<Tensor> {
        let attended = self.attention_norm.forward(&(self.attention.forward(states)? + states)?)?;
        let inner = self.activation.forward(&self.up.forward(&attended)?)?;
        self.output_norm.forward(&(self.down.forward(&inner)? + attended)?)
    }
}

/// Multi-head self-attention; queries, keys and values come from one product.
struct Attention {
    qkv: Linear,
    output: Linear,
    n_heads: usize,
    head_size: usize,
}

impl Attention {
    fn load(vb: VarBuilder, shape: &Shape) -> Result<Self> {
        let hidden = shape.hidden_size;
        let parts =
            ["query", "key", "value"].map(|name| candle_nn::linear(hidden, hidden, vb.pp("self").pp(name)));
        let [query, key, value] = parts;
        let (query, key, value) = (query?, key?, value?);
        let weight = Tensor::cat(&[query.weight(), key.weight(), value.weight()], 0)?;
        let biases: Vec<&Tensor> =
            [&query, &key, &value].into_iter().filter_map(|part| part.bias()).collect();
        Ok(Self {
            qkv: Linear::new(weight, Some(Tensor::cat(&biases, 0)?)),
            output: candle_nn::linear(hidden, hidden, vb.pp("output").pp("dense"))?,
            n_heads: shape.num_attention_heads,
            head_size: hidden / shape.num_attention_heads,
        })
    }

    fn forward(&self, states: &Tensor) -> Result<Tensor> {
        let (n_texts, n_tokens, hidden) = states.dims3()?;
        let qkv = self.qkv.forward(states)?;
        let heads = |at: usize| {
            qkv.narrow(D::Minus1, at * hidden, hidden)?
                .reshape((n_texts, n_tokens, self.n_heads, self.head_size))?
                .transpose(1, 2)?
                .contiguous()
        };
        let (query, key, value) = (heads(0)?, heads(1)?, heads(2)?);
        let scale = 1.0 / (self.head_size as f64).sqrt();
        let scores = (query.matmul(&key.t()?)? * scale)?;
        let mixed = softmax_last_dim(&scores)?.matmul(&value)?;
        let joined = mixed.transpose(1, 2)?.contiguous()?.reshape((n_texts, n_tokens, hidden))?;
        self.output.forward(&joined)
    }
}
