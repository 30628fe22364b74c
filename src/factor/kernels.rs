//! The inner loops, written once over [`pulp::Simd`] and compiled for every instruction set.
//!
//! Matrices are row-major with a row length that is a multiple of [`LANES`]; the padding is zero
//! and stays zero, so no loop has a tail. Everything here runs on the calling thread.

use pulp::{Arch, Simd, WithSimd, bytemuck};

/// Rows are padded to a multiple of this: the widest vector of f32 there is.
pub(super) const LANES: usize = 16;

/// `a · b`.
#[inline(always)]
pub(super) fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let (a, _) = S::as_simd_f32s(a);
    let (b, _) = S::as_simd_f32s(b);
    let mut sum = simd.splat_f32s(0.0);
    for (&a, &b) in a.iter().zip(b) {
        sum = simd.mul_add_e_f32s(a, b, sum);
    }
    simd.reduce_sum_f32s(sum)
}

/// `Σ a² weights`.
#[inline(always)]
pub(super) fn weighted_square<S: Simd>(simd: S, a: &[f32], weights: &[f32]) -> f32 {
    let (a, _) = S::as_simd_f32s(a);
    let (weights, _) = S::as_simd_f32s(weights);
    let mut sum = simd.splat_f32s(0.0);
    for (&a, &weight) in a.iter().zip(weights) {
        sum = simd.mul_add_e_f32s(simd.mul_f32s(a, a), weight, sum);
    }
    simd.reduce_sum_f32s(sum)
}

/// `|a - b|²` of vectors of any one length.
#[inline(always)]
pub(super) fn distance<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = S::as_simd_f32s(a);
    let (b, b_rest) = S::as_simd_f32s(b);
    let mut sum = simd.splat_f32s(0.0);
    for (&a, &b) in a.iter().zip(b) {
        let apart = simd.sub_f32s(a, b);
        sum = simd.mul_add_e_f32s(apart, apart, sum);
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| (a - b) * (a - b)).sum();
    simd.reduce_sum_f32s(sum) + rest
}

/// `|a|²` of a vector of any length.
#[inline(always)]
pub(super) fn square<S: Simd>(simd: S, a: &[f32]) -> f32 {
    let (a, a_rest) = S::as_simd_f32s(a);
    let mut sum = simd.splat_f32s(0.0);
    for &a in a {
        sum = simd.mul_add_e_f32s(a, a, sum);
    }
    simd.reduce_sum_f32s(sum) + a_rest.iter().map(|a| a * a).sum::<f32>()
}

/// `out += factor · row`.
#[inline(always)]
pub(super) fn add_scaled<S: Simd>(simd: S, factor: f32, row: &[f32], out: &mut [f32]) {
    let factor = simd.splat_f32s(factor);
    let (row, _) = S::as_simd_f32s(row);
    let (out, _) = S::as_mut_simd_f32s(out);
    for (out, &value) in out.iter_mut().zip(row) {
        *out = simd.mul_add_e_f32s(factor, value, *out);
    }
}

/// Rows read together, so that each loaded part of the vector serves four dot products.
const TOGETHER: usize = 4;

/// Packed rows, one by one, of so many registers each.
#[inline(always)]
fn apart<S: Simd>(rows: &[f32], width: usize) -> [&[S::f32s]; TOGETHER] {
    let (rows, _) = S::as_simd_f32s(rows);
    std::array::from_fn(|at| &rows[at * width..][..width])
}

/// Their dot products with `p`.
#[inline(always)]
fn of_four<S: Simd>(simd: S, [r0, r1, r2, r3]: [&[S::f32s]; TOGETHER], p: &[S::f32s]) -> [f32; TOGETHER] {
    let zero = simd.splat_f32s(0.0);
    let (mut s0, mut s1, mut s2, mut s3) = (zero, zero, zero, zero);
    for k in 0..p.len() {
        s0 = simd.mul_add_e_f32s(r0[k], p[k], s0);
        s1 = simd.mul_add_e_f32s(r1[k], p[k], s1);
        s2 = simd.mul_add_e_f32s(r2[k], p[k], s2);
        s3 = simd.mul_add_e_f32s(r3[k], p[k], s3);
    }
    [s0, s1, s2, s3].map(|sum| simd.reduce_sum_f32s(sum))
}

/// The dot product of a row that is left.
#[inline(always)]
fn of_one<S: Simd>(simd: S, row: &[S::f32s], p: &[S::f32s]) -> f32 {
    let mut sum = simd.splat_f32s(0.0);
    for (&r, &p) in row.iter().zip(p) {
        sum = simd.mul_add_e_f32s(r, p, sum);
    }
    simd.reduce_sum_f32s(sum)
}

/// One pass over packed rows `Z`: `along = Z p`, and `out += Z' along`, or with `TARGET`
/// `out += Z' (target - along)`.
#[inline(always)]
pub(super) fn normal_pass<S: Simd, const TARGET: bool>(
    simd: S,
    packed: &[f32],
    target: &[f32],
    p: &[f32],
    along: &mut [f32],
    out: &mut [f32],
) {
    let dim = p.len();
    let (p, _) = S::as_simd_f32s(p);
    let (out, _) = S::as_mut_simd_f32s(out);
    let width = p.len();
    let out = &mut out[..width];
    let (blocks, along_rest) = along.as_chunks_mut::<TOGETHER>();
    let (targets, target_rest) = target.as_chunks::<TOGETHER>();
    let (packed, packed_rest) = packed.split_at(blocks.len() * TOGETHER * dim);
    for (at, (rows, along)) in packed.chunks_exact(TOGETHER * dim).zip(blocks).enumerate() {
        let rows = apart::<S>(rows, width);
        *along = of_four(simd, rows, p);
        let [r0, r1, r2, r3] = rows;
        let mut factors = *along;
        if TARGET {
            for (factor, target) in factors.iter_mut().zip(targets[at]) {
                *factor = target - *factor;
            }
        }
        let [f0, f1, f2, f3] = factors.map(|factor| simd.splat_f32s(factor));
        for k in 0..width {
            let pair = simd.mul_add_e_f32s(f1, r1[k], simd.mul_f32s(f0, r0[k]));
            let sum = simd.mul_add_e_f32s(f2, r2[k], out[k]);
            let sum = simd.mul_add_e_f32s(f3, r3[k], sum);
            out[k] = simd.add_f32s(pair, sum);
        }
    }
    for (at, (row, along)) in packed_rest.chunks_exact(dim).zip(along_rest).enumerate() {
        let (row, _) = S::as_simd_f32s(row);
        *along = of_one(simd, row, p);
        let factor = simd.splat_f32s(if TARGET { target_rest[at] - *along } else { *along });
        for (out, &r) in out.iter_mut().zip(row) {
            *out = simd.mul_add_e_f32s(factor, r, *out);
        }
    }
}

/// `along = Z p` of packed rows `Z`.
#[inline(always)]
pub(super) fn products<S: Simd>(simd: S, packed: &[f32], p: &[f32], along: &mut [f32]) {
    let dim = p.len();
    let (p, _) = S::as_simd_f32s(p);
    let width = p.len();
    let (blocks, along_rest) = along.as_chunks_mut::<TOGETHER>();
    let (packed, packed_rest) = packed.split_at(blocks.len() * TOGETHER * dim);
    for (rows, along) in packed.chunks_exact(TOGETHER * dim).zip(blocks) {
        *along = of_four(simd, apart::<S>(rows, width), p);
    }
    for (row, along) in packed_rest.chunks_exact(dim).zip(along_rest) {
        let (row, _) = S::as_simd_f32s(row);
        *along = of_one(simd, row, p);
    }
}

/// Adds `rows' rows` to the upper triangle of the `dim × dim` f64 matrix `sum`.
///
/// Blocks of rows that fit the first-level cache are multiplied in f32 and added in f64.
pub(super) fn add_gram(rows: &[f32], dim: usize, sum: &mut [f64]) {
    Arch::new().dispatch(AddGram { rows, dim, sum });
}

struct AddGram<'a> {
    rows: &'a [f32],
    dim: usize,
    sum: &'a mut [f64],
}

/// Tile of the Gram matrix held in registers: this many rows by two vectors.
const GRAM_ROWS: usize = 4;

impl WithSimd for AddGram<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.dim / S::F32_LANES;
        let block = (8192 / self.dim).max(16) * self.dim;
        for rows in self.rows.chunks(block) {
            for i in (0..self.dim).step_by(GRAM_ROWS) {
                let mut at = i / S::F32_LANES;
                while at < width {
                    if at + 2 <= width {
                        gram_tile::<S, 2>(simd, rows, self.dim, i, at, self.sum);
                        at += 2;
                    } else {
                        gram_tile::<S, 1>(simd, rows, self.dim, i, at, self.sum);
                        at += 1;
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn gram_tile<S: Simd, const WIDE: usize>(
    simd: S,
    rows: &[f32],
    dim: usize,
    i: usize,
    at: usize,
    sum: &mut [f64],
) {
    let mut tile = [[simd.splat_f32s(0.0); WIDE]; GRAM_ROWS];
    for row in rows.chunks_exact(dim) {
        let left = &row[i..i + GRAM_ROWS];
        let (right, _) = S::as_simd_f32s(row);
        let right = &right[at..at + WIDE];
        for (line, &left) in tile.iter_mut().zip(left) {
            let left = simd.splat_f32s(left);
            for (cell, &right) in line.iter_mut().zip(right) {
                *cell = simd.mul_add_e_f32s(left, right, *cell);
            }
        }
    }
    for (r, line) in tile.iter().enumerate() {
        let from = (i + r) * dim + at * S::F32_LANES;
        let sums = &mut sum[from..from + WIDE * S::F32_LANES];
        for (vector, sums) in line.iter().zip(sums.chunks_exact_mut(S::F32_LANES)) {
            let values: &[f32] = bytemuck::cast_slice(std::slice::from_ref(vector));
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += f64::from(value);
            }
        }
    }
}

/// A `dim × dim` matrix cut into panels as wide as two vectors, so that a product walks it in order.
pub(super) struct Panels {
    dim: usize,
    panel: usize,
    values: Vec<f32>,
}

impl Panels {
    /// Cuts a row-major matrix.
    pub(super) fn new(matrix: &[f32], dim: usize) -> Self {
        let panel = Arch::new().dispatch(PanelWidth).min(dim);
        let mut values = Vec::with_capacity(matrix.len());
        for from in (0..dim).step_by(panel) {
            let to = (from + panel).min(dim);
            for row in matrix.chunks_exact(dim) {
                values.extend_from_slice(&row[from..to]);
            }
        }
        Self { dim, panel, values }
    }

    /// Replaces `rows` by `rows · matrix`; `scratch` is overwritten.
    pub(super) fn multiply_in_place(&self, rows: &mut [f32], scratch: &mut Vec<f32>) {
        Arch::new().dispatch(Multiply { panels: self, rows, scratch });
    }
}

struct PanelWidth;

impl WithSimd for PanelWidth {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        2 * S::F32_LANES
    }
}

struct Multiply<'a> {
    panels: &'a Panels,
    rows: &'a mut [f32],
    scratch: &'a mut Vec<f32>,
}

/// Tile of the product held in registers: this many rows by two vectors.
const PRODUCT_ROWS: usize = 6;

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Panels { dim, panel, values } = self.panels;
        for rows in self.rows.chunks_mut(8 * PRODUCT_ROWS * dim) {
            self.scratch.clear();
            self.scratch.extend_from_slice(rows);
            for (at, matrix) in values.chunks(panel * dim).enumerate() {
                let from = at * panel;
                let width = (dim - from).min(*panel);
                for (out, left) in
                    rows.chunks_mut(PRODUCT_ROWS * dim).zip(self.scratch.chunks(PRODUCT_ROWS * dim))
                {
                    match (out.len() / dim, width / S::F32_LANES) {
                        (PRODUCT_ROWS, 2) => {
                            product_tile::<S, PRODUCT_ROWS, 2>(simd, left, matrix, *dim, from, out);
                        }
                        (_, 2) => {
                            for (out, left) in out.chunks_mut(*dim).zip(left.chunks(*dim)) {
                                product_tile::<S, 1, 2>(simd, left, matrix, *dim, from, out);
                            }
                        }
                        _ => {
                            for (out, left) in out.chunks_mut(*dim).zip(left.chunks(*dim)) {
                                product_tile::<S, 1, 1>(simd, left, matrix, *dim, from, out);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn product_tile<S: Simd, const TALL: usize, const WIDE: usize>(
    simd: S,
    left: &[f32],
    panel: &[f32],
    dim: usize,
    from: usize,
    out: &mut [f32],
) {
    let mut tile = [[simd.splat_f32s(0.0); WIDE]; TALL];
    let left: [&[f32]; TALL] = std::array::from_fn(|r| &left[r * dim..(r + 1) * dim]);
    for (k, right) in panel.chunks_exact(WIDE * S::F32_LANES).enumerate().take(dim) {
        let (right, _) = S::as_simd_f32s(right);
        let right = &right[..WIDE];
        for (line, left) in tile.iter_mut().zip(left) {
            let left = simd.splat_f32s(left[k]);
            for (cell, &right) in line.iter_mut().zip(right) {
                *cell = simd.mul_add_e_f32s(left, right, *cell);
            }
        }
    }
    for (line, out) in tile.iter().zip(out.chunks_exact_mut(dim)) {
        let (out, _) = S::as_mut_simd_f32s(&mut out[from..from + WIDE * S::F32_LANES]);
        out.copy_from_slice(line);
    }
}
