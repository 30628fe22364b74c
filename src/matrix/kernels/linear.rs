//! Dense layers `y = W x + b` over many rows, on the calling thread.
//!
//! `W` is packed once into panels of outputs as wide as a register tile; rows go in tiles of a handful, or of half
//! as many at the end. A product is the chain of fused steps in the order of the inputs, whatever tile it is in, so
//! that a row's outputs do not depend on its neighbours.
//!
//! In bf16, weights and inputs are rounded to it and products summed in f32: two at a time where the machine
//! has AVX512-BF16, and elsewhere by the f32 kernel over the rounded numbers, which differs in the order
//! of the sums alone.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use pulp::{Arch, Simd, WithSimd};

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
    /// The same by pairs of inputs, the first in the lower half. Only made where the instructions were found.
    #[cfg(target_arch = "x86_64")]
    Bf16(Aligned<u32>),
}

/// Tiles that fill 32 registers, or 16: vectors of outputs, rows.
const WIDE: (usize, usize) = (3, 8);
const NARROW: (usize, usize) = (2, 6);
/// Columns that are packed at a time.
const BLOCK: usize = 16;
#[cfg(target_arch = "x86_64")]
const LANES: usize = 16;

impl Weights {
    /// `weight` is `n_outputs × n_inputs`, row after row; `bias` has `n_outputs`.
    ///
    /// # Panics
    /// If `weight` is not that many, or there are none.
    pub fn new(weight: &[f32], bias: &[f32], precision: Precision) -> Self {
        let path = if super::are_portable() { Arch::Scalar } else { Arch::new() };
        Self::on(path, pairs(), weight, bias, precision)
    }

    /// The same on a given instruction set, and with or without those for pairs.
    pub(super) fn on(arch: Arch, pairs: bool, weight: &[f32], bias: &[f32], precision: Precision) -> Self {
        let n_outputs = bias.len();
        assert!(!bias.is_empty() && !weight.is_empty(), "a layer has inputs and outputs");
        let n_inputs = weight.len() / n_outputs;
        assert_eq!(weight.len(), n_inputs * n_outputs, "weights of a layer");
        let rounded = precision == Precision::Bf16;
        let value = |output: usize, input: usize| weight[output * n_inputs + input];
        let shape = arch.dispatch(ShapeOf);
        #[cfg(target_arch = "x86_64")]
        if rounded && pairs {
            let wide = WIDE.0 * LANES;
            let n_pairs = n_inputs.div_ceil(2);
            let mut panels = Aligned::new(n_outputs.div_ceil(wide) * wide * n_pairs, 0u32);
            for output in 0..n_outputs {
                let panel = &mut panels.get_mut()[output / wide * wide * n_pairs..];
                for pair in 0..n_pairs {
                    let high = if 2 * pair + 1 < n_inputs { value(output, 2 * pair + 1) } else { 0.0 };
                    panel[pair * wide + output % wide] = pair_of(value(output, 2 * pair), high);
                }
            }
            return Self {
                arch,
                n_inputs,
                n_outputs,
                bias: bias.to_vec(),
                rounded,
                panels: Panels::Bf16(panels),
            };
        }
        let _ = pairs;
        let wide = shape.0;
        let mut panels = Aligned::new(n_outputs.div_ceil(wide) * wide * n_inputs, 0f32);
        for output in 0..n_outputs {
            let panel = &mut panels.get_mut()[output / wide * wide * n_inputs..];
            for input in 0..n_inputs {
                let value = value(output, input);
                panel[input * wide + output % wide] = if rounded { bf16(value) } else { value };
            }
        }
        Self { arch, n_inputs, n_outputs, bias: bias.to_vec(), rounded, panels: Panels::F32(panels) }
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
            Panels::F32(panels) => {
                self.arch.dispatch(Apply { layer: self, panels: panels.get(), inputs, then, outputs });
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these panels are only made after the instructions were found.
            Panels::Bf16(panels) => unsafe { apply_bf16(self, panels.get(), inputs, then, outputs) },
        }
    }
}

/// Whether this machine multiplies pairs of bf16.
fn pairs() -> bool {
    #[cfg(target_arch = "x86_64")]
    return !super::are_portable()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// To the nearest bf16, ties to even; numbers are finite.
#[inline(always)]
fn bf16_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16
}

#[inline(always)]
fn bf16(value: f32) -> f32 {
    f32::from_bits(bf16_bits(value) << 16)
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn pair_of(low: f32, high: f32) -> u32 {
    bf16_bits(low) | bf16_bits(high) << 16
}

struct ShapeOf;

impl WithSimd for ShapeOf {
    type Output = (usize, usize);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (usize, usize) {
        let (vectors, rows) = if S::REGISTER_COUNT >= 32 { WIDE } else { NARROW };
        (vectors * S::F32_LANES, rows)
    }
}

struct Apply<'a> {
    layer: &'a Weights,
    panels: &'a [f32],
    inputs: &'a [f32],
    then: Then,
    outputs: &'a mut [f32],
}

impl WithSimd for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 {
            apply_f32::<S, { WIDE.0 }, { WIDE.1 }, { WIDE.1 / 2 }>(simd, self);
        } else {
            apply_f32::<S, { NARROW.0 }, { NARROW.1 }, { NARROW.1 / 2 }>(simd, self);
        }
    }
}

/// Rows in tiles: tile after tile, column after column, a value a row; missing rows and inputs are zeros.
/// `of` makes as many columns as there are in a block from their inputs.
#[inline(always)]
fn packed<T: Copy, const ROWS: usize, const INPUTS: usize>(
    inputs: &[f32],
    n_inputs: usize,
    of: impl Fn(&[f32; INPUTS]) -> [T; BLOCK],
) -> Vec<[T; ROWS]> {
    let n_columns = n_inputs.div_ceil(INPUTS / BLOCK);
    let mut tiles = Vec::with_capacity(inputs.len().div_ceil(ROWS * n_inputs) * n_columns);
    for rows in inputs.chunks(ROWS * n_inputs) {
        for block in 0..n_columns.div_ceil(BLOCK) {
            let columns: [[T; BLOCK]; ROWS] = std::array::from_fn(|row| {
                let values = rows.get(row * n_inputs + block * INPUTS..(row + 1) * n_inputs).unwrap_or(&[]);
                of(&first_of(values))
            });
            let turned: [[T; ROWS]; BLOCK] =
                std::array::from_fn(|column| std::array::from_fn(|row| columns[row][column]));
            match n_columns - block * BLOCK {
                left if left < BLOCK => tiles.extend_from_slice(&turned[..left]),
                _ => tiles.extend_from_slice(&turned),
            }
        }
    }
    tiles
}

/// The products of a tile's first `SOME` rows with a panel.
#[inline(always)]
fn sums_f32<S: Simd, const VECTORS: usize, const ROWS: usize, const SOME: usize>(
    simd: S,
    panel: &[[S::f32s; VECTORS]],
    tile: &[[f32; ROWS]],
) -> [[S::f32s; VECTORS]; ROWS] {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    for (weights, values) in panel.iter().zip(tile) {
        for (sums, &value) in sums.iter_mut().zip(values).take(SOME) {
            let value = simd.splat_f32s(value);
            for (sum, &weight) in sums.iter_mut().zip(weights) {
                *sum = simd.mul_add_f32s(value, weight, *sum);
            }
        }
    }
    sums
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

#[inline(always)]
fn apply_f32<S: Simd, const VECTORS: usize, const ROWS: usize, const HALF: usize>(simd: S, apply: Apply<'_>) {
    let Apply { layer, panels, inputs, then, outputs } = apply;
    let (n_inputs, n_outputs, wide) = (layer.n_inputs, layer.n_outputs, VECTORS * S::F32_LANES);
    let tiles: Vec<[f32; ROWS]> = packed(inputs, n_inputs, |values: &[f32; BLOCK]| match layer.rounded {
        true => values.map(bf16),
        false => *values,
    });
    for (at, panel) in panels.chunks_exact(wide * n_inputs).enumerate() {
        let (panel, _) = S::as_simd_f32s(panel);
        let (panel, _) = panel.as_chunks::<VECTORS>();
        for (tile, rows) in tiles.chunks_exact(n_inputs).zip(outputs.chunks_mut(ROWS * n_outputs)) {
            let sums = if rows.len() > HALF * n_outputs {
                sums_f32::<S, VECTORS, ROWS, ROWS>(simd, panel, tile)
            } else {
                sums_f32::<S, VECTORS, ROWS, HALF>(simd, panel, tile)
            };
            let (from, to) = (at * wide, n_outputs.min((at + 1) * wide));
            let ((bias, rest_bias), mut left) = (S::as_simd_f32s(&layer.bias[from..to]), &mut *rows);
            // Bounds that the compiler knows keep the sums in registers.
            for sums in sums.iter().take(ROWS) {
                let Some((row, others)) = left.split_at_mut_checked(n_outputs) else { break };
                left = others;
                let (row, rest) = S::as_mut_simd_f32s(&mut row[from..to]);
                for (vector, sum) in sums.iter().enumerate().take(VECTORS) {
                    if let (Some(row), Some(bias)) = (row.get_mut(vector), bias.get(vector)) {
                        *row = simd.add_f32s(*sum, *bias);
                    } else if vector == bias.len() {
                        let bias = simd.partial_load_f32s(rest_bias);
                        simd.partial_store_f32s(rest, simd.add_f32s(*sum, bias));
                    }
                }
            }
            if then == Then::Gelu {
                rows.chunks_exact_mut(n_outputs).for_each(|row| layers::gelu(&mut row[from..to]));
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn apply_bf16(layer: &Weights, panels: &[u32], inputs: &[f32], then: Then, outputs: &mut [f32]) {
    const ROWS: usize = WIDE.1;
    const VECTORS: usize = WIDE.0;
    const PANEL: usize = VECTORS * LANES;
    let (n_inputs, n_outputs) = (layer.n_inputs, layer.n_outputs);
    let n_pairs = n_inputs.div_ceil(2);
    let tiles: Vec<[u32; ROWS]> = packed(inputs, n_inputs, |values: &[f32; 2 * BLOCK]| {
        let (first, last) = values.split_at(BLOCK);
        // SAFETY: both halves are as long as a vector, and every pattern of 512 bits is a value of either type.
        unsafe {
            let (first, last) = (_mm512_loadu_ps(first.as_ptr()), _mm512_loadu_ps(last.as_ptr()));
            std::mem::transmute::<__m512bh, [u32; BLOCK]>(_mm512_cvtne2ps_pbh(last, first))
        }
    });
    for (at, panel) in panels.chunks_exact(PANEL * n_pairs).enumerate() {
        let (panel, _) = panel.as_chunks::<PANEL>();
        for (tile, rows) in tiles.chunks_exact(n_pairs).zip(outputs.chunks_mut(ROWS * n_outputs)) {
            let sums = if rows.len() > ROWS / 2 * n_outputs {
                sums_bf16::<ROWS>(panel, tile)
            } else {
                sums_bf16::<{ ROWS / 2 }>(panel, tile)
            };
            let (from, to) = (at * PANEL, n_outputs.min((at + 1) * PANEL));
            let (bias, mut left) = (&layer.bias[from..to], &mut *rows);
            for sums in &sums {
                let Some((row, others)) = left.split_at_mut_checked(n_outputs) else { break };
                left = others;
                let row = &mut row[from..to];
                for (vector, sum) in sums.iter().enumerate() {
                    let at = vector * LANES;
                    let there = row.len().saturating_sub(at).min(LANES);
                    let there = ((1u32 << there) - 1) as u16;
                    // SAFETY: only what both have is read and written.
                    unsafe {
                        let bias = _mm512_maskz_loadu_ps(there, bias.as_ptr().wrapping_add(at));
                        let row = row.as_mut_ptr().wrapping_add(at);
                        _mm512_mask_storeu_ps(row, there, _mm512_add_ps(*sum, bias));
                    }
                }
            }
            if then == Then::Gelu {
                rows.chunks_exact_mut(n_outputs).for_each(|row| layers::gelu(&mut row[from..to]));
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn sums_bf16<const SOME: usize>(
    panel: &[[u32; WIDE.0 * LANES]],
    tile: &[[u32; WIDE.1]],
) -> [[__m512; WIDE.0]; WIDE.1] {
    let mut sums = [[_mm512_setzero_ps(); WIDE.0]; WIDE.1];
    for (weights, values) in panel.iter().zip(tile) {
        let from = weights.as_ptr();
        // SAFETY: a pair's weights are as long as three vectors.
        let weights = unsafe {
            [
                _mm512_loadu_si512(from.cast()),
                _mm512_loadu_si512(from.add(LANES).cast()),
                _mm512_loadu_si512(from.add(2 * LANES).cast()),
            ]
        };
        for (sums, &value) in sums.iter_mut().zip(values).take(SOME) {
            let value = pairs_of(_mm512_set1_epi32(value as i32));
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = _mm512_dpbf16_ps(*sum, value, pairs_of(weight));
            }
        }
    }
    sums
}

/// The same bits, seen as pairs of bf16.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn pairs_of(bits: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits, and every pattern of them is a value of either.
    unsafe { std::mem::transmute(bits) }
}
