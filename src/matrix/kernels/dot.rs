//! The inner product of two rows, in f32 or f64.
//!
//! A product is kept in four vectors of sums, so that none waits for the one before: block after block of as many
//! numbers as a vector of 512 bits has goes to the next of them. Vectors are then added in pairs, and a vector half by
//! half, so that the sum has the same bits on every instruction set; what is left of the rows is added last. Compilers
//! do not get there: of sums in an array they make pairs.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::ops::{Add, Mul};

use super::layers::halved;

/// Vectors of sums.
const VECTORS: usize = 4;

/// Numbers that have inner products in `Sum`.
pub trait Dot<Sum>: Copy {
    /// To the end of the shorter row.
    fn dot(a: &[Self], b: &[Self]) -> Sum;
}

/// The inner product of two rows, to the end of the shorter, in sums as wide as the caller has it (`dot::<f64, _>` of
/// rows of f32).
#[inline]
pub fn dot<Sum, Value: Dot<Sum>>(a: &[Value], b: &[Value]) -> Sum {
    Value::dot(a, b)
}

impl Dot<f32> for f32 {
    #[inline]
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        #[cfg(target_arch = "x86_64")]
        if is_fast() {
            // SAFETY: the instructions were found.
            return summed(a, b, |a, b| unsafe { avx512_f32(a, b) });
        }
        summed(a, b, portable::<f32, f32, 16>)
    }
}

impl Dot<f64> for f32 {
    #[inline]
    fn dot(a: &[f32], b: &[f32]) -> f64 {
        #[cfg(target_arch = "x86_64")]
        if is_fast() {
            // SAFETY: the instructions were found.
            return summed(a, b, |a, b| unsafe { avx512_wide(a, b) });
        }
        summed(a, b, portable::<f64, f32, 8>)
    }
}

impl Dot<f64> for f64 {
    #[inline]
    fn dot(a: &[f64], b: &[f64]) -> f64 {
        #[cfg(target_arch = "x86_64")]
        if is_fast() {
            // SAFETY: the instructions were found.
            return summed(a, b, |a, b| unsafe { avx512_f64(a, b) });
        }
        summed(a, b, portable::<f64, f64, 8>)
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn is_fast() -> bool {
    !super::are_portable() && is_x86_feature_detected!("avx512f")
}

/// Whole blocks by a kernel, and what is left after them.
#[inline(always)]
fn summed<Sum, Value, const LANES: usize>(
    a: &[Value],
    b: &[Value],
    blocks: impl Fn(&[[Value; LANES]], &[[Value; LANES]]) -> Sum,
) -> Sum
where
    Sum: Copy + Default + Add<Output = Sum> + Mul<Output = Sum>,
    Value: Copy + Into<Sum>,
{
    let n = a.len().min(b.len());
    let ((a, a_rest), (b, b_rest)) = (a[..n].as_chunks(), b[..n].as_chunks());
    let rest = a_rest.iter().zip(b_rest).fold(Sum::default(), |sum, (a, b)| sum + (*a).into() * (*b).into());
    blocks(a, b) + rest
}

fn portable<Sum, Value, const LANES: usize>(a: &[[Value; LANES]], b: &[[Value; LANES]]) -> Sum
where
    Sum: Copy + Default + Add<Output = Sum> + Mul<Output = Sum>,
    Value: Copy + Into<Sum>,
{
    let mut sums = [[Sum::default(); LANES]; VECTORS];
    for (a, b) in a.chunks(VECTORS).zip(b.chunks(VECTORS)) {
        for (sums, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
                *sum = *sum + (*a).into() * (*b).into();
            }
        }
    }
    let pairs = |lane: usize| (sums[0][lane] + sums[1][lane]) + (sums[2][lane] + sums[3][lane]);
    halved(std::array::from_fn::<Sum, LANES, _>(pairs), Sum::add)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512_f32(a: &[[f32; 16]], b: &[[f32; 16]]) -> f32 {
    let mut sums = [_mm512_setzero_ps(); VECTORS];
    // SAFETY: a block is a vector.
    let load = |block: &[f32; 16]| unsafe { _mm512_loadu_ps(block.as_ptr()) };
    let ((a, a_left), (b, b_left)) = (a.as_chunks::<VECTORS>(), b.as_chunks::<VECTORS>());
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum = _mm512_add_ps(*sum, _mm512_mul_ps(load(a), load(b)));
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(a_left.iter().zip(b_left)) {
        *sum = _mm512_add_ps(*sum, _mm512_mul_ps(load(a), load(b)));
    }
    let [one, two, three, four] = sums;
    let sum = _mm512_add_ps(_mm512_add_ps(one, two), _mm512_add_ps(three, four));
    let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(sum)));
    let sum = _mm256_add_ps(_mm512_castps512_ps256(sum), high);
    let sum = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
    let sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512_wide(a: &[[f32; 8]], b: &[[f32; 8]]) -> f64 {
    // SAFETY: a block is half a vector.
    let load = |block: &[f32; 8]| _mm512_cvtps_pd(unsafe { _mm256_loadu_ps(block.as_ptr()) });
    avx512_doubles(a, b, load)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512_f64(a: &[[f64; 8]], b: &[[f64; 8]]) -> f64 {
    // SAFETY: a block is a vector.
    let load = |block: &[f64; 8]| unsafe { _mm512_loadu_pd(block.as_ptr()) };
    avx512_doubles(a, b, load)
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn avx512_doubles<Block>(a: &[Block], b: &[Block], load: impl Fn(&Block) -> __m512d) -> f64 {
    let mut sums = [_mm512_setzero_pd(); VECTORS];
    let ((a, a_left), (b, b_left)) = (a.as_chunks::<VECTORS>(), b.as_chunks::<VECTORS>());
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum = _mm512_add_pd(*sum, _mm512_mul_pd(load(a), load(b)));
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(a_left.iter().zip(b_left)) {
        *sum = _mm512_add_pd(*sum, _mm512_mul_pd(load(a), load(b)));
    }
    let [one, two, three, four] = sums;
    let sum = _mm512_add_pd(_mm512_add_pd(one, two), _mm512_add_pd(three, four));
    let sum = _mm256_add_pd(_mm512_castpd512_pd256(sum), _mm512_extractf64x4_pd::<1>(sum));
    let sum = _mm_add_pd(_mm256_castpd256_pd128(sum), _mm256_extractf128_pd::<1>(sum));
    _mm_cvtsd_f64(_mm_add_sd(sum, _mm_unpackhi_pd(sum, sum)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sum_has_the_same_bits_on_every_machine_and_is_the_product(
            (a, b) in (0usize..300, 0usize..3).prop_flat_map(|(n, more)| {
                let value = || prop_oneof![-1e3f32..1e3, Just(0.0), Just(-0.0), Just(1e-40), Just(3e15)];
                (proptest::collection::vec(value(), n), proptest::collection::vec(value(), n + more))
            })
        ) {
            let wide = |row: &[f32]| row.iter().map(|value| f64::from(*value)).collect::<Vec<f64>>();
            let (wide_a, wide_b) = (wide(&a), wide(&b));
            let twin = summed(&a, &b, portable::<f32, f32, 16>);
            prop_assert_eq!(dot::<f32, _>(&a, &b).to_bits(), twin.to_bits());
            let twin = summed(&a, &b, portable::<f64, f32, 8>);
            prop_assert_eq!(dot::<f64, _>(&a, &b).to_bits(), twin.to_bits());
            prop_assert_eq!(dot::<f64, _>(&wide_a, &wide_b).to_bits(), twin.to_bits());
            let plain: f64 = wide_a.iter().zip(&wide_b).map(|(a, b)| a * b).sum();
            let size: f64 = wide_a.iter().zip(&wide_b).map(|(a, b)| (a * b).abs()).sum();
            prop_assert!((twin - plain).abs() <= 1e-12 * size);
            prop_assert!((f64::from(dot::<f32, _>(&a, &b)) - plain).abs() <= 1e-5 * size + 1e-30);
        }
    }
}
