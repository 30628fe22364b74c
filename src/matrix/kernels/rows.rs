//! Inner products of one row with scattered others, each in the order of the columns.
//!
//! A product is the chain `s = fma(q[k], x[k], s)` from `s = 0`, one rounding a step, so that it has the same
//! bits however many are computed together. Sixteen rows are turned in registers, sixteen columns at a time:
//! then a vector holds a column, and a step of all sixteen chains is one instruction.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Rows that are multiplied together.
pub const CHAINS: usize = 16;

/// The kernel.
#[derive(Clone, Copy, Debug)]
pub struct Chains(Path);

#[derive(Clone, Copy, Debug)]
enum Path {
    Portable,
    /// Only made where the instructions were found.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Chains {
    /// The fast kernel where this machine has one, its twin elsewhere.
    pub fn new() -> Self {
        #[cfg(target_arch = "x86_64")]
        if !super::are_portable() && is_x86_feature_detected!("avx512f") {
            return Self(Path::Avx512);
        }
        Self::portable()
    }

    /// The twin.
    pub fn portable() -> Self {
        Self(Path::Portable)
    }

    /// The products of `query` and each of `rows`.
    ///
    /// # Panics
    /// If a row is shorter than the query.
    #[inline]
    pub fn products(self, query: &[f32], rows: [&[f32]; CHAINS]) -> [f32; CHAINS] {
        let rows = rows.map(|row| &row[..query.len()]);
        match self.0 {
            Path::Portable => portable(query, rows, [0.0; CHAINS]),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this variant is only made after its instructions were found; rows are as long as the
            // query.
            Path::Avx512 => unsafe { avx512(query, rows) },
        }
    }
}

impl Default for Chains {
    fn default() -> Self {
        Self::new()
    }
}

/// Carries the chains on.
#[inline(always)]
fn portable(query: &[f32], rows: [&[f32]; CHAINS], mut sums: [f32; CHAINS]) -> [f32; CHAINS] {
    for (k, &query) in query.iter().enumerate() {
        for (sum, row) in sums.iter_mut().zip(rows) {
            *sum = query.mul_add(row[k], *sum);
        }
    }
    sums
}

/// # Safety
/// Rows are as long as the query.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512(query: &[f32], rows: [&[f32]; CHAINS]) -> [f32; CHAINS] {
    let (blocks, rest) = query.as_chunks::<CHAINS>();
    let mut sums = _mm512_setzero_ps();
    for (at, block) in blocks.iter().enumerate() {
        // SAFETY: each row has as many whole blocks as the query.
        let rows = rows.map(|row| unsafe { _mm512_loadu_ps(row.as_ptr().add(at * CHAINS)) });
        for (column, &query) in turned(rows).into_iter().zip(block) {
            sums = _mm512_fmadd_ps(_mm512_set1_ps(query), column, sums);
        }
    }
    let mut products = [0.0; CHAINS];
    // SAFETY: sixteen numbers are a vector.
    unsafe { _mm512_storeu_ps(products.as_mut_ptr(), sums) };
    portable(rest, rows.map(|row| &row[query.len() - rest.len()..]), products)
}

/// Rows become columns.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn turned(rows: [__m512; 16]) -> [__m512; 16] {
    let mut pairs = rows;
    for at in 0..8 {
        let (a, b) = (rows[2 * at], rows[2 * at + 1]);
        pairs[2 * at] = _mm512_unpacklo_ps(a, b);
        pairs[2 * at + 1] = _mm512_unpackhi_ps(a, b);
    }
    // Now four rows of four columns each in every 128 bits.
    let mut fours = pairs;
    for at in 0..4 {
        let [a, b, c, d] = [pairs[4 * at], pairs[4 * at + 1], pairs[4 * at + 2], pairs[4 * at + 3]];
        fours[4 * at] = _mm512_shuffle_ps::<0b01_00_01_00>(a, c);
        fours[4 * at + 1] = _mm512_shuffle_ps::<0b11_10_11_10>(a, c);
        fours[4 * at + 2] = _mm512_shuffle_ps::<0b01_00_01_00>(b, d);
        fours[4 * at + 3] = _mm512_shuffle_ps::<0b11_10_11_10>(b, d);
    }
    let mut columns = fours;
    for at in 0..4 {
        let [a, b, c, d] = [fours[at], fours[4 + at], fours[8 + at], fours[12 + at]];
        let (ab_even, ab_odd) =
            (_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b));
        let (cd_even, cd_odd) =
            (_mm512_shuffle_f32x4::<0b10_00_10_00>(c, d), _mm512_shuffle_f32x4::<0b11_01_11_01>(c, d));
        columns[at] = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_even, cd_even);
        columns[4 + at] = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_odd, cd_odd);
        columns[8 + at] = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_even, cd_even);
        columns[12 + at] = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_odd, cd_odd);
    }
    columns
}
