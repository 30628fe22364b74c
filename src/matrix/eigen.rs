//! The eigendecomposition of a small symmetric matrix, in f64.
//!
//! Householder reflections to tridiagonal form, then the implicit QL iteration (Golub and Van Loan,
//! *Matrix Computations*, sections 8.3.1 and 8.3.3). Eigenvectors are kept as rows, so that every
//! reflection and rotation touches contiguous memory; about `10 n³` operations.

use super::kernels::{dot, vectorized};

/// A symmetric matrix as `Σ values[k] vectors[k] vectors[k]'`.
pub struct Eigen {
    /// In no particular order.
    pub values: Vec<f64>,
    /// `n × n`, one orthonormal eigenvector a row.
    pub vectors: Vec<f64>,
}

/// QL needs fewer than two rounds an eigenvalue on average; more than this means NaN.
const MAX_ROUNDS: usize = 64;

/// Past its rank a matrix leaves rounding of rounding of rounding, each no direction to reflect along,
/// until its squares underflow.
const NOTHING: f64 = 1e-24;

/// Decomposes the symmetric `n × n` row-major `matrix`; none if it holds values that are not finite.
pub fn decompose(mut matrix: Vec<f64>, n: usize) -> Option<Eigen> {
    if matrix.iter().any(|value| !value.is_finite()) {
        return None;
    }
    vectorized(
        #[inline(always)]
        || {
            // With a largest entry of one, what is nothing is known without looking beside it.
            let size = matrix.iter().fold(f64::MIN_POSITIVE, |size, value| size.max(value.abs()));
            matrix.iter_mut().for_each(|value| *value /= size);
            let (mut diagonal, mut beside) = tridiagonalize(&mut matrix, n);
            let mut vectors = reflections_as_rows(&matrix, n);
            iterate(&mut diagonal, &mut beside, &mut vectors, n)?;
            diagonal.iter_mut().for_each(|value| *value *= size);
            Some(Eigen { values: diagonal, vectors })
        },
    )
}

/// Leaves each reflection's `v` (`H = I - v v'`) right of the diagonal; returns diagonal and
/// off-diagonal.
#[inline(always)]
fn tridiagonalize(matrix: &mut [f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut beside = vec![0.0; n];
    let mut v = vec![0.0; n];
    let mut w = vec![0.0; n];
    for k in 0..n.saturating_sub(2) {
        let tail = k + 1;
        let v = &mut v[tail..n];
        v.copy_from_slice(&matrix[k * n + tail..(k + 1) * n]);
        let norm = dot::<f64, _>(v, v).sqrt();
        if norm <= NOTHING {
            matrix[k * n + tail..(k + 1) * n].fill(0.0);
            continue;
        }
        let pivot = if v[0] > 0.0 { -norm } else { norm };
        beside[k] = pivot;
        v[0] -= pivot;
        // |v|² becomes 2, so that H = I - v v' needs no factor of its own.
        let scale = (2.0 / dot::<f64, _>(v, v)).sqrt();
        v.iter_mut().for_each(|value| *value *= scale);
        let w = &mut w[tail..n];
        for (i, w) in w.iter_mut().enumerate() {
            *w = dot(&matrix[(tail + i) * n + tail..(tail + i + 1) * n], v);
        }
        let half = 0.5 * dot::<f64, _>(v, w);
        w.iter_mut().zip(&*v).for_each(|(w, v)| *w -= half * v);
        for i in 0..n - tail {
            let (vi, wi) = (v[i], w[i]);
            let row = &mut matrix[(tail + i) * n + tail..(tail + i + 1) * n];
            for ((a, v), w) in row.iter_mut().zip(&*v).zip(&*w) {
                *a -= vi * w + wi * v;
            }
        }
        matrix[k * n + tail..(k + 1) * n].copy_from_slice(v);
    }
    if n > 1 {
        beside[n - 2] = matrix[(n - 2) * n + n - 1];
    }
    ((0..n).map(|i| matrix[i * n + i]).collect(), beside)
}

/// The transposed product of the stored reflections.
#[inline(always)]
fn reflections_as_rows(matrix: &[f64], n: usize) -> Vec<f64> {
    let mut rows = vec![0.0; n * n];
    for i in 0..n {
        rows[i * n + i] = 1.0;
    }
    for k in (0..n.saturating_sub(2)).rev() {
        let v = &matrix[k * n + k + 1..(k + 1) * n];
        for row in rows.chunks_exact_mut(n).skip(k + 1) {
            let row = &mut row[k + 1..];
            let along: f64 = dot(row, v);
            row.iter_mut().zip(v).for_each(|(r, v)| *r -= along * v);
        }
    }
    rows
}

/// Implicit QL: rotates neighbouring rows until nothing is left beside the diagonal.
#[inline(always)]
fn iterate(diagonal: &mut [f64], beside: &mut [f64], vectors: &mut [f64], n: usize) -> Option<()> {
    // Of a matrix of lower rank most of the diagonal is rounding, which never looks small beside itself.
    let pairs = diagonal.iter().zip(beside.iter());
    let size = pairs.map(|(diagonal, beside)| diagonal.abs() + beside.abs()).fold(0.0, f64::max);
    for low in 0..n {
        let mut rounds = 0;
        loop {
            let high = (low..n - 1)
                .find(|&m| {
                    let own = diagonal[m].abs() + diagonal[m + 1].abs();
                    beside[m].abs() <= f64::EPSILON * own.max(0.5 * size)
                })
                .unwrap_or(n - 1);
            if high == low {
                break;
            }
            rounds += 1;
            if rounds > MAX_ROUNDS {
                return None;
            }
            let slope = (diagonal[low + 1] - diagonal[low]) / (2.0 * beside[low]);
            let mut g =
                diagonal[high] - diagonal[low] + beside[low] / (slope + slope.hypot(1.0).copysign(slope));
            let (mut sine, mut cosine, mut shift) = (1.0, 1.0, 0.0);
            let mut split = false;
            for i in (low..high).rev() {
                let f = sine * beside[i];
                let b = cosine * beside[i];
                let r = (f * f + g * g).sqrt();
                beside[i + 1] = r;
                if r == 0.0 {
                    diagonal[i + 1] -= shift;
                    beside[high] = 0.0;
                    split = true;
                    break;
                }
                sine = f / r;
                cosine = g / r;
                let above = diagonal[i + 1] - shift;
                let twist = (diagonal[i] - above) * sine + 2.0 * cosine * b;
                shift = sine * twist;
                diagonal[i + 1] = above + shift;
                g = cosine * twist - b;
                let (upper, lower) = vectors[i * n..(i + 2) * n].split_at_mut(n);
                for (u, l) in upper.iter_mut().zip(lower) {
                    let old = *l;
                    *l = sine * *u + cosine * old;
                    *u = cosine * *u - sine * old;
                }
            }
            if !split {
                diagonal[low] -= shift;
                beside[low] = g;
                beside[high] = 0.0;
            }
        }
    }
    Some(())
}
