//! BERT, as the paper has it: embeddings, then layers of self-attention and feed-forward, each with
//! its residual and layer norm (Devlin et al., 2019; Vaswani et al., 2017).
//!
//! States are `tokens × hidden`, text after text. Tensor names are those of the published checkpoints.

use candle_core::{Device, Module, Result, Tensor};
use candle_nn::{Activation, VarBuilder};
use serde::Deserialize;

use super::Error;
use super::folder::{Folder, read_json};
use super::layers::{AddNorm, Engine, Linear, attend};
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
        let vb = weights::open(&folder.weights, device)?;
        let weights = |source| Error::Weights { path: folder.weights.clone(), source };
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
        Ok(Self { embeddings, layers, shape, first_token, device: device.clone(), engine })
    }

    pub(super) fn dim(&self) -> usize {
        self.shape.hidden_size
    }

    /// Operations of the layers' products a token; what attention adds grows with a text and is left out.
    pub(super) fn flops_a_token(&self) -> f64 {
        let Shape { hidden_size: hidden, intermediate_size: inner, num_hidden_layers, .. } = &self.shape;
        2.0 * (num_hidden_layers * (4 * hidden * hidden + 2 * hidden * inner)) as f64
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
        self.engine != Engine::Plain
    }

    /// Unit embeddings of texts, row after row.
    pub(super) fn embed(&self, texts: &[&[u32]]) -> Result<Vec<f32>> {
        let lengths: Vec<usize> = texts.iter().map(|ids| ids.len()).collect();
        let mut states = self.embeddings.forward(&texts.concat(), &lengths, &self.device)?;
        for layer in &self.layers {
            states = layer.forward(&states, &lengths)?;
        }
        let states = states.flatten_all()?.to_vec1::<f32>()?;
        Ok(self.pool(&states, &lengths))
    }

    /// The mean of each text's states, or the first, made of length 1.
    fn pool(&self, states: &[f32], lengths: &[usize]) -> Vec<f32> {
        let mut pooled = vec![0f32; lengths.len() * self.dim()];
        let mut rows = states.chunks_exact(self.dim());
        for (pooled, &length) in pooled.chunks_exact_mut(self.dim()).zip(lengths) {
            for (at, row) in rows.by_ref().take(length).enumerate() {
                if at == 0 || !self.first_token {
                    pooled.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                }
            }
            let norm = pooled.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            pooled.iter_mut().for_each(|value| *value = (f64::from(*value) / norm.max(1e-12)) as f32);
        }
        pooled
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
        let positions = candle_nn::Embedding::new(positions, hidden);
        let norm = AddNorm::load(vb.pp("LayerNorm"), hidden, shape.layer_norm_eps, engine)?;
        Ok(Self { words, positions, norm })
    }

    fn forward(&self, ids: &[u32], lengths: &[usize], device: &Device) -> Result<Tensor> {
        let places: Vec<u32> = lengths.iter().flat_map(|&length| 0..length as u32).collect();
        let words = self.words.forward(&Tensor::new(ids, device)?)?;
        let positions = self.positions.forward(&Tensor::new(places, device)?)?;
        self.norm.forward(&words, &positions)
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
        let norm = |vb: VarBuilder| AddNorm::load(vb.pp("LayerNorm"), hidden, shape.layer_norm_eps, engine);
        let (up, down) = (vb.pp("intermediate").pp("dense"), vb.pp("output").pp("dense"));
        Ok(Self {
            attention: Attention::load(vb.pp("attention"), shape, engine)?,
            attention_norm: norm(vb.pp("attention").pp("output"))?,
            up: Linear::load(up, hidden, inner, Some(shape.hidden_act), engine)?,
            down: Linear::load(down, inner, hidden, None, engine)?,
            output_norm: norm(vb.pp("output"))?,
        })
    }

    fn forward(&self, states: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let attended = self.attention.forward(states, lengths)?;
        let attended = self.attention_norm.forward(&attended, states)?;
        let inner = self.up.forward(&attended)?;
        self.output_norm.forward(&self.down.forward(&inner)?, &attended)
    }
}

/// Multi-head self-attention; queries, keys and values come from one product.
struct Attention {
    qkv: Linear,
    output: Linear,
    n_heads: usize,
    engine: Engine,
}

impl Attention {
    fn load(vb: VarBuilder, shape: &Shape, engine: Engine) -> Result<Self> {
        let hidden = shape.hidden_size;
        let part = |name| candle_nn::linear(hidden, hidden, vb.pp("self").pp(name));
        Ok(Self {
            qkv: Linear::joined(&[part("query")?, part("key")?, part("value")?], engine)?,
            output: Linear::load(vb.pp("output").pp("dense"), hidden, hidden, None, engine)?,
            n_heads: shape.num_attention_heads,
            engine,
        })
    }

    fn forward(&self, states: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let qkv = self.qkv.forward(states)?;
        self.output.forward(&attend(&qkv, lengths, self.n_heads, self.engine)?)
    }
}
