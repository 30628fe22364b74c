//! Layers by vectors of f32, on whatever instruction set there is.

use pulp::{Arch, Simd, WithSimd};

use super::{Then, Weights, bf16_bits, finish, first_of};
use crate::matrix::Aligned;

/// Tiles that fill 32 registers, or 16: vectors of outputs, rows.
pub(super) const WIDE: (usize, usize) = (3, 8);
const NARROW: (usize, usize) = (2, 6);
/// Columns that are packed at a time.
pub(super) const BLOCK: usize = 16;

/// Weights in panels: panel after panel, input after input, a value an output.
pub(super) fn panels(arch: Arch, weight: &[f32], n_inputs: usize, rounded: bool) -> Aligned<f32> {
    let (wide, n_outputs) = (arch.dispatch(ShapeOf).0, weight.len() / n_inputs);
    let mut panels = Aligned::new(n_outputs.div_ceil(wide) * wide * n_inputs, 0f32);
    for (output, weights) in weight.chunks_exact(n_inputs).enumerate() {
        let panel = &mut panels.get_mut()[output / wide * wide * n_inputs..];
        for (input, value) in weights.iter().enumerate() {
            panel[input * wide + output % wide] = if rounded { bf16(*value) } else { *value };
        }
    }
    panels
}

/// Outputs of rows, over panels of [`panels`].
pub(super) fn apply(layer: &Weights, panels: &[f32], inputs: &[f32], then: Then, outputs: &mut [f32]) {
    layer.arch.dispatch(Apply { layer, panels, inputs, then, outputs });
}

#[inline(always)]
fn bf16(value: f32) -> f32 {
    f32::from_bits(bf16_bits(value) << 16)
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
pub(super) fn packed<T: Copy, const ROWS: usize, const INPUTS: usize>(
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
            finish(rows, n_outputs, (from, to), then);
        }
    }
}
