//! The parts that BERT's blocks are made of: on the CPU by this crate's kernels, which fuse what candle
//! would do in several passes over memory; on other devices, and where kernels are kept portable, by candle.
//!
//! `states` are `tokens × width`, text after text.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Module, Result, Shape, Tensor, bail};
use candle_nn::{Activation, VarBuilder, ops::softmax_last_dim};

use crate::matrix::kernels::{self, Precision, Then, Weights};

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    /// Kernels over packed weights, each call on one thread; texts of a batch may differ in length.
    Packed(Precision),
    /// Candle's operations, over texts of one length.
    Plain,
}

/// A dense layer and what follows it.
pub(super) enum Linear {
    Packed { weights: Weights, then: Then, activation: Option<Activation> },
    Plain { layer: candle_nn::Linear, activation: Option<Activation> },
}

impl Linear {
    pub(super) fn load(
        vb: VarBuilder,
        inputs: usize,
        outputs: usize,
        activation: Option<Activation>,
        engine: Engine,
    ) -> Result<Self> {
        let layer = candle_nn::linear(inputs, outputs, vb)?;
        Self::of(layer, activation, engine)
    }

    /// Several layers of the same inputs as one, their outputs side by side.
    pub(super) fn joined(layers: &[candle_nn::Linear], engine: Engine) -> Result<Self> {
        let weights: Vec<&Tensor> = layers.iter().map(candle_nn::Linear::weight).collect();
        let biases: Vec<&Tensor> = layers.iter().filter_map(candle_nn::Linear::bias).collect();
        let layer = candle_nn::Linear::new(Tensor::cat(&weights, 0)?, Some(Tensor::cat(&biases, 0)?));
        Self::of(layer, None, engine)
    }

    fn of(layer: candle_nn::Linear, activation: Option<Activation>, engine: Engine) -> Result<Self> {
        let (Engine::Packed(precision), Some(bias)) = (engine, layer.bias()) else {
            return Ok(Self::Plain { layer, activation });
        };
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let weights = Weights::new(&values(layer.weight())?, &values(bias)?, precision);
        Ok(match activation {
            Some(Activation::Gelu) => Self::Packed { weights, then: Then::Gelu, activation: None },
            activation => Self::Packed { weights, then: Then::Nothing, activation },
        })
    }

    pub(super) fn forward(&self, states: &Tensor) -> Result<Tensor> {
        let (states, activation) = match self {
            Self::Packed { weights, then, activation } => {
                (states.apply_op1_no_bwd(&Apply(weights, *then))?, activation)
            }
            Self::Plain { layer, activation } => (layer.forward(states)?, activation),
        };
        match activation {
            Some(activation) => activation.forward(&states),
            None => Ok(states),
        }
    }
}

/// A sum, normalised.
pub(super) enum AddNorm {
    Packed { gain: Vec<f32>, bias: Vec<f32>, epsilon: f32 },
    Plain(candle_nn::LayerNorm),
}

impl AddNorm {
    pub(super) fn load(vb: VarBuilder, width: usize, epsilon: f64, engine: Engine) -> Result<Self> {
        if engine == Engine::Plain {
            return candle_nn::layer_norm(width, epsilon, vb).map(Self::Plain);
        }
        let values = |name| vb.get(width, name)?.to_vec1::<f32>();
        Ok(Self::Packed { gain: values("weight")?, bias: values("bias")?, epsilon: epsilon as f32 })
    }

    pub(super) fn forward(&self, states: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match self {
            Self::Packed { .. } => states.apply_op2_no_bwd(residual, self),
            Self::Plain(norm) => norm.forward(&(states + residual)?),
        }
    }
}

/// `softmax(Q K' / sqrt d) V`, head by head and text by text; `qkv` are the three side by side.
pub(super) fn attend(qkv: &Tensor, lengths: &[usize], n_heads: usize, engine: Engine) -> Result<Tensor> {
    if let Engine::Packed(_) = engine {
        return qkv.apply_op1_no_bwd(&Attend { lengths, n_heads });
    }
    let (n_texts, n_tokens, hidden) = (lengths.len(), lengths[0], qkv.dim(1)? / 3);
    let head_size = hidden / n_heads;
    let heads = |at: usize| {
        qkv.narrow(D::Minus1, at * hidden, hidden)?
            .reshape((n_texts, n_tokens, n_heads, head_size))?
            .transpose(1, 2)?
            .contiguous()
    };
    let (query, key, value) = (heads(0)?, heads(1)?, heads(2)?);
    let scores = (query.matmul(&key.t()?)? * (1.0 / (head_size as f64).sqrt()))?;
    let mixed = softmax_last_dim(&scores)?.matmul(&value)?;
    mixed.transpose(1, 2)?.contiguous()?.reshape((n_texts * n_tokens, hidden))
}

struct Apply<'a>(&'a Weights, Then);

impl CustomOp1 for Apply<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, states: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n_rows, _) = layout.shape().dims2()?;
        let mut to = vec![0f32; n_rows * self.0.n_outputs()];
        self.0.apply(values(states, layout)?, self.1, &mut to);
        Ok((CpuStorage::F32(to), (n_rows, self.0.n_outputs()).into()))
    }
}

impl CustomOp2 for AddNorm {
    fn name(&self) -> &'static str {
        "add-norm"
    }

    fn cpu_fwd(
        &self,
        states: &CpuStorage,
        layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let Self::Packed { gain, bias, epsilon } = self else { bail!("add-norm without packed weights") };
        let mut to = vec![0f32; layout.shape().elem_count()];
        let (states, residual) = (values(states, layout)?, values(residual, residual_layout)?);
        kernels::add_norm(states, residual, (gain, bias), *epsilon, &mut to);
        Ok((CpuStorage::F32(to), layout.shape().clone()))
    }
}

struct Attend<'a> {
    lengths: &'a [usize],
    n_heads: usize,
}

impl CustomOp1 for Attend<'_> {
    fn name(&self) -> &'static str {
        "attend"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n_tokens, wide) = layout.shape().dims2()?;
        let mut to = vec![0f32; n_tokens * wide / 3];
        kernels::attend(values(qkv, layout)?, self.lengths, self.n_heads, &mut to);
        Ok((CpuStorage::F32(to), (n_tokens, wide / 3).into()))
    }
}

/// A whole tensor's values, row after row.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((from, to))) => Ok(&values[from..to]),
        _ => bail!("expected contiguous f32"),
    }
}
