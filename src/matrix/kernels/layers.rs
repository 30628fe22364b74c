//! What a transformer does between its products: GELU, layer norm, attention.
//!
//! Written over arrays as wide as the widest vector, in one order of sums, and compiled for every instruction
//! set: results are the same on all but for attention's fused steps.

use pulp::{Arch, Simd, WithSimd};

use super::CHAINS as LANES;

/// `x Phi(x)` of each, to within 2e-7 of the larger of 1 and its size: `erf` by formula 7.1.26 of Abramowitz and
/// Stegun. With `q = (1 - erf(|x| / sqrt 2)) / 2` it is `max(x, 0) - |x| q`.
#[inline(always)]
pub(super) fn gelu(values: &mut [f32]) {
    let (whole, rest) = values.as_chunks_mut::<LANES>();
    for values in whole {
        values.iter_mut().for_each(|value| *value = gelu_of(*value));
    }
    rest.iter_mut().for_each(|value| *value = gelu_of(*value));
}

#[inline(always)]
fn gelu_of(x: f32) -> f32 {
    const HALF_LOG2_E: f32 = 0.5 * std::f32::consts::LOG2_E;
    let size = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2 * size);
    // The formula's coefficients, halved.
    let series =
        ((((0.530_702_7 * t - 0.726_576_03) * t + 0.710_706_9) * t - 0.142_248_36) * t + 0.127_414_8) * t;
    x.max(0.0) - size * (series * exp2(-HALF_LOG2_E * (x * x)))
}

/// `2^x` of an `x` that is at most 0, to within 2e-7 of it; below -125 about 2e-38.
///
/// `x = n + f` with a whole `n` and `|f| <= 1/2`, and `2^f` by the polynomial that begins as its series and errs
/// least, by 1e-7.
#[inline(always)]
fn exp2(x: f32) -> f32 {
    // Beside so large a number there is no room for a fraction.
    const WHOLE: f32 = 12_582_912.0;
    let x = x.max(-125.0);
    let shifted = x + WHOLE;
    let f = x - (shifted - WHOLE);
    let series = (((1.330_060_5e-3 * f + 9.669_691e-3) * f + 5.550_558_5e-2) * f + 2.402_228_3e-1) * f;
    let series = (series + std::f32::consts::LN_2) * f + 1.0;
    // What is left of the shifted number's bits is n, which is added to the exponent.
    f32::from_bits(series.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// Every row of `states + residual`, normalised to mean 0 and variance 1, times `gain`, plus `bias`.
///
/// # Panics
/// If they differ in length, or are not whole rows.
pub fn add_norm(
    states: &[f32],
    residual: &[f32],
    (gain, bias): (&[f32], &[f32]),
    epsilon: f32,
    to: &mut [f32],
) {
    let d = gain.len();
    let fits = states.len() == residual.len() && states.len() == to.len() && bias.len() == d;
    assert!(fits && states.len().is_multiple_of(d.max(1)), "rows to normalise");
    arch().dispatch(AddNorm { states, residual, gain, bias, epsilon, to });
}

struct AddNorm<'a> {
    states: &'a [f32],
    residual: &'a [f32],
    gain: &'a [f32],
    bias: &'a [f32],
    epsilon: f32,
    to: &'a mut [f32],
}

impl WithSimd for AddNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { states, residual, gain, bias, epsilon, to } = self;
        let d = gain.len();
        let rows = states.chunks_exact(d.max(1)).zip(residual.chunks_exact(d.max(1)));
        for ((states, residual), to) in rows.zip(to.chunks_exact_mut(d.max(1))) {
            for ((to, a), b) in to.iter_mut().zip(states).zip(residual) {
                *to = a + b;
            }
            let mean = sum(to, |value| value) / d as f32;
            let variance = sum(to, |value| (value - mean) * (value - mean)) / d as f32;
            let scale = 1.0 / (variance + epsilon).sqrt();
            for ((to, gain), bias) in to.iter_mut().zip(gain).zip(bias) {
                *to = (*to - mean) * scale * gain + bias;
            }
        }
    }
}

/// In as many partial sums as a vector has lanes.
#[inline(always)]
fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut sums = sum_lanes(whole, &of);
    if !rest.is_empty() {
        // Apart, or all sums would be kept in memory.
        let mut last = [0f32; LANES];
        last.iter_mut().zip(rest).for_each(|(last, value)| *last = of(*value));
        sums.iter_mut().zip(&last).for_each(|(sum, last)| *sum += last);
    }
    halved(sums, |a, b| a + b)
}

#[inline(always)]
fn sum_lanes(values: &[[f32; LANES]], of: impl Fn(f32) -> f32) -> [f32; LANES] {
    let mut sums = [0f32; LANES];
    for values in values {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += of(*value);
        }
    }
    sums
}

/// One of all lanes, half by half.
#[inline(always)]
pub(super) fn halved<T: Copy, const N: usize>(mut lanes: [T; N], of: impl Fn(T, T) -> T) -> T {
    let mut half = N / 2;
    while half > 0 {
        for at in 0..half {
            lanes[at] = of(lanes[at], lanes[at + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Self-attention of texts, one after the other: `softmax(Q K' / sqrt d) V`, head by head.
///
/// A row of `qkv` is a token's queries, keys and values, each `n_heads` times `d` long; a row of `to` is
/// the heads' mixtures. `lengths` are the texts' tokens.
///
/// # Panics
/// If the lengths do not add up.
pub fn attend(qkv: &[f32], lengths: &[usize], n_heads: usize, to: &mut [f32]) {
    let n_tokens: usize = lengths.iter().sum();
    let hidden = to.len() / n_tokens.max(1);
    assert!(to.len() == n_tokens * hidden && qkv.len() == 3 * to.len(), "tokens to attend");
    assert!(hidden.is_multiple_of(n_heads.max(1)), "heads share the width");
    arch().dispatch(Attend { qkv, lengths, n_heads, hidden, to });
}

struct Attend<'a> {
    qkv: &'a [f32],
    lengths: &'a [usize],
    n_heads: usize,
    hidden: usize,
    to: &'a mut [f32],
}

impl WithSimd for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { qkv, lengths, n_heads, hidden, to } = self;
        let mut scratch = Scratch::default();
        let mut from = 0;
        for &n in lengths {
            let qkv = &qkv[from * 3 * hidden..(from + n) * 3 * hidden];
            let to = &mut to[from * hidden..(from + n) * hidden];
            for head in 0..n_heads {
                attend_head(simd, qkv, n, head * hidden / n_heads, hidden / n_heads, &mut scratch, to);
            }
            from += n;
        }
    }
}

/// A head's keys, a column a token, and values, a row a token, both padded to whole vectors; and some
/// tokens' weights.
#[derive(Default)]
struct Scratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    queries: Vec<[f32; ROWS]>,
    weights: Vec<f32>,
}

/// Rows of a tile.
const ROWS: usize = 8;

#[inline(always)]
fn attend_head<S: Simd>(
    simd: S,
    qkv: &[f32],
    n: usize,
    first: usize,
    d: usize,
    scratch: &mut Scratch,
    to: &mut [f32],
) {
    let (Some(hidden), true) = (to.len().checked_div(n), n > 0) else { return };
    let lanes = S::F32_LANES;
    let (wide_n, wide_d) = (n.next_multiple_of(LANES), d.next_multiple_of(lanes));
    let Scratch { keys, values, queries, weights } = scratch;
    keys.clear();
    keys.resize(d * wide_n, 0.0);
    values.clear();
    values.resize(n * wide_d, 0.0);
    for (token, row) in qkv.chunks_exact(3 * hidden).enumerate() {
        let key = &row[hidden + first..hidden + first + d];
        for (column, key) in keys.chunks_exact_mut(wide_n).zip(key) {
            column[token] = *key;
        }
        values[token * wide_d..token * wide_d + d]
            .copy_from_slice(&row[2 * hidden + first..2 * hidden + first + d]);
    }
    let scale = std::f32::consts::LOG2_E / (d as f32).sqrt();
    queries.clear();
    queries.resize(d, [0.0; ROWS]);
    weights.clear();
    weights.resize(ROWS * wide_n, 0.0);
    for block in (0..n).step_by(ROWS) {
        let n_rows = ROWS.min(n - block);
        for row in 0..n_rows {
            let query = &qkv[(block + row) * 3 * hidden + first..][..d];
            for (slot, value) in queries.iter_mut().zip(query) {
                slot[row] = value * scale;
            }
        }
        for column in (0..wide_n).step_by(lanes) {
            let mut sums = [simd.splat_f32s(0.0); ROWS];
            for (keys, queries) in keys.chunks_exact(wide_n).zip(&*queries) {
                let keys = simd.partial_load_f32s(&keys[column..column + lanes]);
                for (sum, query) in sums.iter_mut().zip(queries) {
                    *sum = simd.mul_add_f32s(simd.splat_f32s(*query), keys, *sum);
                }
            }
            for (weights, sum) in weights.chunks_exact_mut(wide_n).zip(sums) {
                simd.partial_store_f32s(&mut weights[column..column + lanes], sum);
            }
        }
        for row in weights.chunks_exact_mut(wide_n).take(n_rows) {
            soften(row, n);
        }
        let (rows, _) = weights.split_at(ROWS * wide_n);
        let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &rows[row * wide_n..row * wide_n + n]);
        for column in (0..wide_d).step_by(lanes) {
            let mut sums = [simd.splat_f32s(0.0); ROWS];
            for (token, values) in values.chunks_exact(wide_d).enumerate() {
                let values = simd.partial_load_f32s(&values[column..column + lanes]);
                for (sum, row) in sums.iter_mut().zip(rows) {
                    *sum = simd.mul_add_f32s(simd.splat_f32s(row[token]), values, *sum);
                }
            }
            let len = lanes.min(d - column);
            for (row, sum) in sums.into_iter().take(n_rows).enumerate() {
                let at = (block + row) * hidden + first + column;
                simd.partial_store_f32s(&mut to[at..at + len], sum);
            }
        }
    }
}

/// Softmax in place of a row's first `n` weights, given in powers of 2; from there to the end of the last vector it
/// leaves zeros.
#[inline(always)]
fn soften(row: &mut [f32], n: usize) {
    let (row, _) = row[..n.next_multiple_of(LANES)].as_chunks_mut::<LANES>();
    let there = n - row.len().saturating_sub(1) * LANES;
    let beyond = |row: &mut [[f32; LANES]], value: f32| {
        if let Some(last) = row.last_mut() {
            *last = std::array::from_fn(|at| if at < there { last[at] } else { value });
        }
    };
    beyond(row, f32::NEG_INFINITY);
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut largest = [f32::NEG_INFINITY; LANES];
    for weights in &*row {
        for (largest, weight) in largest.iter_mut().zip(weights) {
            *largest = larger(*largest, *weight);
        }
    }
    let largest = halved(largest, larger);
    for weights in &mut *row {
        weights.iter_mut().for_each(|weight| *weight = exp2(*weight - largest));
    }
    beyond(row, 0.0);
    let share = 1.0 / halved(sum_lanes(row, |weight| weight), |a, b| a + b);
    row.as_flattened_mut().iter_mut().for_each(|weight| *weight *= share);
}

fn arch() -> Arch {
    if super::are_portable() { Arch::Scalar } else { Arch::new() }
}
