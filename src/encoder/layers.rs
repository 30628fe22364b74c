//! The parts that BERT's blocks are made of: by this crate's kernels, on the CPU (`matrix`) as on NVIDIA's GPUs
//! (`cuda`), which fuse what candle would do in several passes over memory; on other devices, and where kernels are
//! kept portable, by candle.
//!
//! `states` are `tokens × width`, text after text.

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, D, DType, Device, Layout, Module, Result, Shape, Tensor, bail,
};
use candle_nn::{Activation, VarBuilder, ops::softmax_last_dim};

#[cfg(feature = "cuda")]
use super::cuda;
use crate::matrix::kernels::{self, Precision, Then, Weights};

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    /// Kernels over packed weights, each call on one thread; texts of a batch may differ in length.
    Packed(Precision),
    /// Kernels on a GPU, states kept as that type; texts of a batch may differ in length.
    #[cfg(feature = "cuda")]
    Fused(DType),
    /// Candle's operations on that type, over texts of one length.
    Plain(DType),
}

impl Engine {
    /// What states are kept as, and matrices beside them.
    pub(super) fn dtype(self) -> DType {
        match self {
            Self::Packed(_) => DType::F32,
            #[cfg(feature = "cuda")]
            Self::Fused(dtype) => dtype,
            Self::Plain(dtype) => dtype,
        }
    }

    /// Numbers that a head has at most.
    pub(super) fn widest_head(self) -> usize {
        match self {
            #[cfg(feature = "cuda")]
            Self::Fused(_) => cuda::WIDEST_HEAD,
            Self::Packed(_) | Self::Plain(_) => usize::MAX,
        }
    }

    /// Makes a device ready.
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables))]
    pub(super) fn prepare(self, device: &Device) -> Result<Ready> {
        Ok(Ready {
            #[cfg(feature = "cuda")]
            _kernels: match self {
                Self::Fused(dtype) => Some(cuda::Kernels::compile(device, dtype)?),
                Self::Packed(_) | Self::Plain(_) => None,
            },
        })
    }
}

/// A device that is ready; to be dropped after all that lies there.
pub(super) struct Ready {
    #[cfg(feature = "cuda")]
    _kernels: Option<cuda::Kernels>,
}

/// The texts of a batch, on the device.
pub(super) struct Texts {
    pub(super) ids: Tensor,
    /// Each token's place in its text.
    pub(super) positions: Tensor,
    /// Tokens of each.
    lengths: Vec<usize>,
    #[cfg(feature = "cuda")]
    places: Option<cuda::Places>,
}

impl Texts {
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables))]
    pub(super) fn new(texts: &[&[u32]], device: &Device, engine: Engine) -> Result<Self> {
        let lengths: Vec<usize> = texts.iter().map(|ids| ids.len()).collect();
        let positions: Vec<u32> = lengths.iter().flat_map(|&length| 0..length as u32).collect();
        Ok(Self {
            ids: Tensor::new(texts.concat(), device)?,
            positions: Tensor::new(positions, device)?,
            #[cfg(feature = "cuda")]
            places: match engine {
                Engine::Fused(_) => Some(cuda::Places::new(&lengths, device)?),
                Engine::Packed(_) | Engine::Plain(_) => None,
            },
            lengths,
        })
    }

    /// Whether no text has a token.
    pub(super) fn are_empty(&self) -> bool {
        self.lengths.iter().all(|length| *length == 0)
    }

    pub(super) fn len(&self) -> usize {
        self.lengths.len()
    }
}

/// A dense layer and what follows it.
pub(super) enum Linear {
    Packed {
        weights: Weights,
        then: Then,
        activation: Option<Activation>,
    },
    #[cfg(feature = "cuda")]
    Fused {
        layer: candle_nn::Linear,
        bias: Option<Tensor>,
        then_gelu: bool,
        activation: Option<Activation>,
    },
    Plain {
        layer: candle_nn::Linear,
        activation: Option<Activation>,
    },
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
        let Some(bias) = layer.bias() else { bail!("expected a layer with a bias") };
        let then_gelu = activation == Some(Activation::Gelu);
        let rest = activation.filter(|_| !then_gelu);
        Ok(match engine {
            Engine::Packed(precision) => {
                let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
                let weights = Weights::new(&values(layer.weight())?, &values(bias)?, precision);
                let then = if then_gelu { Then::Gelu } else { Then::Nothing };
                Self::Packed { weights, then, activation: rest }
            }
            #[cfg(feature = "cuda")]
            Engine::Fused(dtype) => {
                let layer = candle_nn::Linear::new(layer.weight().to_dtype(dtype)?, None);
                Self::Fused { layer, bias: Some(bias.clone()), then_gelu, activation: rest }
            }
            Engine::Plain(dtype) => {
                let (weight, bias) = (layer.weight().to_dtype(dtype)?, bias.to_dtype(dtype)?);
                Self::Plain { layer: candle_nn::Linear::new(weight, Some(bias)), activation }
            }
        })
    }

    /// Leaves the bias to whoever comes next and can add it on the way; nothing where it costs nothing here, or where
    /// GELU is taken of it.
    pub(super) fn take_bias(&mut self) -> Option<Tensor> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Fused { bias, then_gelu: false, activation: None, .. } => bias.take(),
            _ => None,
        }
    }

    /// Makes the bias what it is for inputs that lack `lacking`, each the same.
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables))]
    pub(super) fn make_up_for(&mut self, lacking: &Tensor) -> Result<()> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Fused { layer, bias: Some(bias), .. } => {
                let weight = layer.weight().to_dtype(DType::F32)?;
                *bias = (&*bias + weight.matmul(&lacking.unsqueeze(1)?)?.squeeze(1)?)?;
                Ok(())
            }
            _ => bail!("expected a layer whose bias is added apart"),
        }
    }

    pub(super) fn forward(&self, states: &Tensor) -> Result<Tensor> {
        let (states, activation) = match self {
            Self::Packed { weights, then, activation } => {
                (states.apply_op1_no_bwd(&Apply(weights, *then))?, activation)
            }
            #[cfg(feature = "cuda")]
            Self::Fused { layer, bias, then_gelu, activation } => {
                let states = layer.forward(states)?;
                if let Some(bias) = bias {
                    cuda::add_bias(&states, bias, *then_gelu)?;
                }
                (states, activation)
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
    Packed {
        gain: Vec<f32>,
        bias: Vec<f32>,
        epsilon: f32,
    },
    #[cfg(feature = "cuda")]
    Fused {
        before: Tensor,
        gain: Tensor,
        bias: Tensor,
        epsilon: f32,
    },
    Plain(candle_nn::LayerNorm),
}

impl AddNorm {
    /// `before` is what states lack, each the same ([`Linear::take_bias`]).
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables))]
    pub(super) fn load(
        vb: VarBuilder,
        before: Option<Tensor>,
        width: usize,
        epsilon: f64,
        engine: Engine,
    ) -> Result<Self> {
        let (gain, bias) = (vb.get(width, "weight")?, vb.get(width, "bias")?);
        Ok(match engine {
            Engine::Packed(_) => {
                Self::Packed { gain: gain.to_vec1()?, bias: bias.to_vec1()?, epsilon: epsilon as f32 }
            }
            #[cfg(feature = "cuda")]
            Engine::Fused(_) => {
                let before = before.map_or_else(|| bias.zeros_like(), Ok)?;
                Self::Fused { before, gain, bias, epsilon: epsilon as f32 }
            }
            Engine::Plain(dtype) => {
                let (gain, bias) = (gain.to_dtype(dtype)?, bias.to_dtype(dtype)?);
                Self::Plain(candle_nn::LayerNorm::new(gain, bias, epsilon))
            }
        })
    }

    pub(super) fn forward(&self, states: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match self {
            Self::Packed { .. } => states.apply_op2_no_bwd(residual, self),
            #[cfg(feature = "cuda")]
            Self::Fused { before, gain, bias, epsilon } => {
                cuda::add_norm(states, residual, [before, gain, bias], *epsilon)
            }
            Self::Plain(norm) => norm.forward(&(states + residual)?),
        }
    }
}

/// `softmax(Q K' / sqrt d) V`, head by head and text by text; `qkv` are the three side by side, and `query_bias` is
/// what queries lack.
#[cfg_attr(not(feature = "cuda"), expect(unused_variables))]
pub(super) fn attend(
    qkv: &Tensor,
    query_bias: Option<&Tensor>,
    texts: &Texts,
    n_heads: usize,
    engine: Engine,
) -> Result<Tensor> {
    let lengths = &texts.lengths;
    if let Engine::Packed(_) = engine {
        return qkv.apply_op1_no_bwd(&Attend { lengths, n_heads });
    }
    #[cfg(feature = "cuda")]
    if let Some(places) = &texts.places {
        let Some(query_bias) = query_bias else { bail!("expected what queries lack") };
        return cuda::attend(qkv, query_bias, places, n_heads);
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

/// The mean of each text's states, or the first, of length 1: `texts × width`, in f32.
pub(super) fn pool(states: &Tensor, texts: &Texts, first_token: bool) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(places) = &texts.places {
        return cuda::pool(states, places, first_token);
    }
    let width = states.dim(1)?;
    let states = states.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let mut pooled = vec![0f32; texts.lengths.len() * width];
    let mut rows = states.chunks_exact(width);
    for (pooled, &length) in pooled.chunks_exact_mut(width).zip(&texts.lengths) {
        for (at, row) in rows.by_ref().take(length).enumerate() {
            if at == 0 || !first_token {
                pooled.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        }
        super::make_unit(pooled);
    }
    Tensor::from_vec(pooled, (texts.lengths.len(), width), &Device::Cpu)
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
