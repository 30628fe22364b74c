//! Layers of bf16 by AVX512-BF16: an instruction multiplies two inputs of sixteen outputs and adds both products to
//! sixteen sums of f32.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::vectors::{BLOCK, WIDE, packed};
use super::{Then, Weights, finish, pair_of};
use crate::matrix::Aligned;

const VECTORS: usize = WIDE.0;
const ROWS: usize = WIDE.1;
pub(super) const LANES: usize = 16;
/// Outputs of a panel.
const PANEL: usize = VECTORS * LANES;

/// A machine that multiplies pairs of bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::matrix::kernels) struct Pairs(());

impl Pairs {
    /// This one, where it does.
    pub(in crate::matrix::kernels) fn find() -> Option<Self> {
        let are_there = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512bf16");
        are_there.then_some(Self(()))
    }

    /// Outputs of rows, over panels of [`panels`].
    pub(super) fn apply(
        self,
        layer: &Weights,
        panels: &[u32],
        inputs: &[f32],
        then: Then,
        outputs: &mut [f32],
    ) {
        // SAFETY: the instructions were found.
        unsafe { apply(layer, panels, inputs, then, outputs) }
    }
}

/// Weights in panels: panel after panel, pair of inputs after pair, a value an output.
pub(super) fn panels(weight: &[f32], n_inputs: usize) -> Aligned<u32> {
    let (n_pairs, n_outputs) = (n_inputs.div_ceil(2), weight.len() / n_inputs);
    let mut panels = Aligned::new(n_outputs.div_ceil(PANEL) * PANEL * n_pairs, 0u32);
    for (output, weights) in weight.chunks_exact(n_inputs).enumerate() {
        let panel = &mut panels.get_mut()[output / PANEL * PANEL * n_pairs..];
        for (pair, weights) in weights.chunks(2).enumerate() {
            panel[pair * PANEL + output % PANEL] = pair_of(weights);
        }
    }
    panels
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn apply(layer: &Weights, panels: &[u32], inputs: &[f32], then: Then, outputs: &mut [f32]) {
    let (n_inputs, n_outputs) = (layer.n_inputs, layer.n_outputs);
    let n_pairs = n_inputs.div_ceil(2);
    let tiles: Vec<[u32; ROWS]> = packed(inputs, n_inputs, |values| rounded(values));
    for (at, panel) in panels.chunks_exact(PANEL * n_pairs).enumerate() {
        let (panel, _) = panel.as_chunks::<PANEL>();
        for (tile, rows) in tiles.chunks_exact(n_pairs).zip(outputs.chunks_mut(ROWS * n_outputs)) {
            let sums = if rows.len() > ROWS / 2 * n_outputs {
                sums_of::<ROWS>(panel, tile)
            } else {
                sums_of::<{ ROWS / 2 }>(panel, tile)
            };
            let (from, to) = (at * PANEL, n_outputs.min((at + 1) * PANEL));
            let (bias, mut left) = (&layer.bias[from..to], &mut *rows);
            for sums in &sums {
                let Some((row, others)) = left.split_at_mut_checked(n_outputs) else { break };
                left = others;
                write(sums, bias, &mut row[from..to]);
            }
            finish(rows, n_outputs, (from, to), then);
        }
    }
}

/// Pairs of values, rounded.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn rounded(values: &[f32; 2 * BLOCK]) -> [u32; BLOCK] {
    let (first, last) = values.split_at(BLOCK);
    // SAFETY: both halves are as long as a vector, and every pattern of 512 bits is a value of either type.
    unsafe {
        let (first, last) = (_mm512_loadu_ps(first.as_ptr()), _mm512_loadu_ps(last.as_ptr()));
        std::mem::transmute::<__m512bh, [u32; BLOCK]>(_mm512_cvtne2ps_pbh(last, first))
    }
}

/// Sums and bias, to as many outputs of a row as there are.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn write<const N: usize>(sums: &[__m512; N], bias: &[f32], row: &mut [f32]) {
    for (vector, sum) in sums.iter().enumerate() {
        let at = vector * LANES;
        let there = row.len().min(bias.len()).saturating_sub(at).min(LANES);
        let there = ((1u32 << there) - 1) as u16;
        // SAFETY: only what both have is read and written.
        unsafe {
            let bias = _mm512_maskz_loadu_ps(there, bias.as_ptr().wrapping_add(at));
            let row = row.as_mut_ptr().wrapping_add(at);
            _mm512_mask_storeu_ps(row, there, _mm512_add_ps(*sum, bias));
        }
    }
}

/// The products of a tile's first `SOME` rows with a panel.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn sums_of<const SOME: usize>(panel: &[[u32; PANEL]], tile: &[[u32; ROWS]]) -> [[__m512; VECTORS]; ROWS] {
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
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
#[inline]
#[target_feature(enable = "avx512f")]
fn pairs_of(bits: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits, and every pattern of them is a value of either.
    unsafe { std::mem::transmute(bits) }
}
