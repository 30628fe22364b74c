//! Dense layers `y = W x + b` over many rows, on the calling thread.
//!
//! `W` is packed once into panels of outputs as wide as a register tile; rows go in tiles of a handful, or of half
//! as many at the end. A product is the chain of fused steps in the order of the inputs, whatever tile it is in, so
//! that a row's outputs do not depend on its neighbours.
//!
//! In bf16, weights and inputs are rounded to it and products summed in f32: by AMX, sixteen rows at a time
//! (`tiles`), where there is only AVX512-BF16 two products at a time (`pairs`), and elsewhere by the f32 kernel
//! (`vectors`) over the rounded numbers. These differ in the order of the sums alone.

#[cfg(target_arch = "x86_64")]
pub(super) mod pairs;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tiles;
mod vectors;

use pulp::Arch;

use super::layers;
use crate::matrix::Aligned;

/// What products are computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32.
    F32,
    /// bf16, summed in f32.
    Bf16,
}

/// What is done to an output before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing more.
    Nothing,
    /// `x Phi(x)`.
    Gelu,
}

/// How products of bf16 are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bf16By {
    /// By the f32 kernel over rounded numbers.
    Rounding,
    /// By AVX512-BF16.
    #[cfg(target_arch = "x86_64")]
    Pairs(pairs::Pairs),
    /// By AMX.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Tiles(tiles::Tiles),
}

/// A layer's weights, packed.
pub struct Weights {
    arch: Arch,
    n_inputs: usize,
    n_outputs: usize,
    bias: Vec<f32>,
    rounded: bool,
    panels: Panels,
}

enum Panels {
    /// Panel after panel, input after input, a value an output.
    F32(Aligned<f32>),
    /// The same by pairs of inputs, the first in the lower half.
    #[cfg(target_arch = "x86_64")]
    Pairs(pairs::Pairs, Aligned<u32>),
    /// As [`tiles`] has them.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Tiles(tiles::Tiles, Vec<tiles::Line>),
}

impl Bf16By {
    /// The fastest way of this machine.
    pub(super) fn found() -> Self {
        if super::are_portable() {
            return Self::Rounding;
        }
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if let Some(tiles) = tiles::Tiles::find() {
            return Self::Tiles(tiles);
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(pairs) = pairs::Pairs::find() {
            return Self::Pairs(pairs);
        }
        Self::Rounding
    }
}

impl Weights {
    /// `weight` is `n_outputs × n_inputs`, row after row; `bias` has `n_outputs`.
    ///
    /// # Panics
    /// If `weight` is not that many, or there are none.
    pub fn new(weight: &[f32], bias: &[f32], precision: Precision) -> Self {
        let arch = if super::are_portable() { Arch::Scalar } else { Arch::new() };
        let by = match precision {
            Precision::F32 => None,
            Precision::Bf16 => Some(Bf16By::found()),
        };
        Self::on(arch, by, weight, bias)
    }

    /// The same on given instructions, in bf16 where it is said by which.
    pub(super) fn on(arch: Arch, bf16: Option<Bf16By>, weight: &[f32], bias: &[f32]) -> Self {
        let n_outputs = bias.len();
        assert!(!bias.is_empty() && !weight.is_empty(), "a layer has inputs and outputs");
        let n_inputs = weight.len() / n_outputs;
        assert_eq!(weight.len(), n_inputs * n_outputs, "weights of a layer");
        let rounded = bf16.is_some();
        let panels = match bf16 {
            #[cfg(target_arch = "x86_64")]
            Some(Bf16By::Pairs(pairs)) => Panels::Pairs(pairs, pairs::panels(weight, n_inputs)),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Some(Bf16By::Tiles(tiles)) => Panels::Tiles(tiles, tiles::panels(weight, n_inputs)),
            Some(Bf16By::Rounding) | None => Panels::F32(vectors::panels(arch, weight, n_inputs, rounded)),
        };
        Self { arch, n_inputs, n_outputs, bias: bias.to_vec(), rounded, panels }
    }

    /// The length of an output row.
    pub fn n_outputs(&self) -> usize {
        self.n_outputs
    }

    /// Rows of inputs to rows of outputs.
    ///
    /// # Panics
    /// If they are not equally many.
    pub fn apply(&self, inputs: &[f32], then: Then, outputs: &mut [f32]) {
        let n_rows = outputs.len() / self.n_outputs;
        let fits = inputs.len() == n_rows * self.n_inputs && outputs.len() == n_rows * self.n_outputs;
        assert!(fits, "rows of a layer");
        match &self.panels {
            Panels::F32(panels) => vectors::apply(self, panels.get(), inputs, then, outputs),
            #[cfg(target_arch = "x86_64")]
            Panels::Pairs(pairs, panels) => pairs.apply(self, panels.get(), inputs, then, outputs),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Panels::Tiles(tiles, panels) => tiles.apply(self, panels, inputs, then, outputs),
        }
    }
}

/// To the nearest bf16, ties to even; numbers are finite.
#[inline(always)]
fn bf16_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16
}

/// Two inputs of an output's weights, the second nothing where there is none.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn pair_of(weights: &[f32]) -> u32 {
    bf16_bits(weights[0]) | weights.get(1).map_or(0, |high| bf16_bits(*high) << 16)
}

/// The first so many values, zeros where there are fewer.
#[inline(always)]
fn first_of<const N: usize>(values: &[f32]) -> [f32; N] {
    if let Some(values) = values.first_chunk() {
        return *values;
    }
    let mut padded = [0f32; N];
    padded[..values.len()].copy_from_slice(values);
    padded
}

/// Does what comes after the products to the outputs `from..to` of some rows.
#[inline(always)]
fn finish(rows: &mut [f32], n_outputs: usize, (from, to): (usize, usize), then: Then) {
    if then == Then::Gelu {
        rows.chunks_exact_mut(n_outputs).for_each(|row| layers::gelu(&mut row[from..to]));
    }
}

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
pub(super) mod emulated;
