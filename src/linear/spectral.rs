//! The leading right singular subspace of the normalised interactions, by subspace iteration.

use rayon::prelude::*;

use crate::matrix::{Csr, Dense, View, ViewMut, add_product};
use crate::random::split_mix;

use super::Error;

/// Rows a task multiplies.
const ROWS: usize = 512;
/// Partial sums of a Gram matrix, at most.
const PARTS: usize = 32;
/// How strongly users of many items are held back. Less than the symmetric ½: they span more of the space.
const USER_EXPONENT: f64 = 0.4;

/// `D^-½ Q` and `D^½ Q`, `n_items × rank` each. A low-pass filter `Q Q'` is the same for every basis of
/// the subspace, so `Q` is orthonormalised and not rotated to the singular vectors themselves
/// (Halko, Martinsson and Tropp, "Finding structure with randomness", 2011, algorithm 4.4).
pub(super) fn fit(
    by_user: &Csr,
    by_item: &Csr,
    rank: usize,
    iterations: usize,
    seed: u64,
) -> Result<(Dense, Dense), Error> {
    let (n_users, n_items) = (by_user.n_rows(), by_user.n_cols());
    let power = |n: usize, exponent: f64| if n == 0 { 0.0 } else { (n as f64).powf(-exponent) };
    let user_scale: Vec<f64> =
        (0..n_users).map(|user| power(by_user.row(user).0.len(), USER_EXPONENT)).collect();
    let item_scale: Vec<f64> = (0..n_items).map(|item| power(by_item.row(item).0.len(), 0.5)).collect();
    let mut q = start(n_items, rank, seed);
    for _ in 0..iterations.max(1) {
        // Vectors of either side span the same in the end; those of the shorter are made orthonormal on the way.
        if n_items <= n_users {
            orthonormalize(&mut q, rank)?;
        }
        let mut users = multiply(by_user, &user_scale, &item_scale, &q, rank);
        if n_users < n_items {
            orthonormalize(&mut users, rank)?;
        }
        // Two of them at a time would be the most memory that the room takes.
        drop(q);
        q = multiply(by_item, &item_scale, &user_scale, &users, rank);
    }
    orthonormalize(&mut q, rank)?;
    orthonormalize(&mut q, rank)?;
    let scaled = |scale: &dyn Fn(f64) -> f64| {
        let values = q
            .chunks_exact(rank)
            .zip(&item_scale)
            .flat_map(|(row, item)| {
                let by = if *item == 0.0 { 0.0 } else { scale(*item) };
                row.iter().map(move |value| (value * by) as f32)
            })
            .collect();
        Dense::from_vec(n_items, rank, values).map_err(|_| Error::NotFinite { model: "spectral" })
    };
    Ok((scaled(&|item| item)?, scaled(&|item| 1.0 / item)?))
}

/// Uniform values from splitmix64 (Steele, Lea and Flood, 2014): any start that is not orthogonal to
/// the subspace will do.
fn start(n_rows: usize, rank: usize, seed: u64) -> Vec<f64> {
    (0..(n_rows * rank) as u64)
        .map(|at| {
            let drawn = split_mix(seed.wrapping_add(at.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
            drawn as f64 / u64::MAX as f64 - 0.5
        })
        .collect()
}

/// `diag(left) S diag(right) x`, `S` the pattern of `rows`.
fn multiply(rows: &Csr, left: &[f64], right: &[f64], x: &[f64], rank: usize) -> Vec<f64> {
    let mut product = vec![0f64; rows.n_rows() * rank];
    product.par_chunks_mut(rank).enumerate().for_each(|(row, target)| {
        for col in rows.row(row).0 {
            let (scale, from) = (right[*col as usize], *col as usize * rank);
            target.iter_mut().zip(&x[from..from + rank]).for_each(|(sum, value)| *sum += scale * value);
        }
        target.iter_mut().for_each(|value| *value *= left[row]);
    });
    product
}

/// Makes the columns nearly orthonormal by Cholesky's factor of their Gram matrix, which leaves an error of the
/// condition squared; done twice, an error of rounding ("CholeskyQR2": Yamamoto et al., 2015).
fn orthonormalize(q: &mut [f64], rank: usize) -> Result<(), Error> {
    let rows_a_part = ROWS.max((q.len() / rank).div_ceil(PARTS));
    let partial: Vec<Vec<f64>> = q
        .par_chunks(rows_a_part * rank)
        .map(|rows| {
            let n_rows = rows.len() / rank;
            let mut gram = vec![0f64; rank * rank];
            let rows = View::new(rows, n_rows, rank, rank);
            add_product(&mut ViewMut::new(&mut gram, rank, rank, rank), 1.0, rows.transposed(), rows);
            gram
        })
        .collect();
    let mut gram = vec![0f64; rank * rank];
    for part in partial {
        gram.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
    let inverse = inverse_factor(gram, rank).ok_or(Error::NotFinite { model: "spectral" })?;
    q.par_chunks_mut(ROWS * rank).for_each_init(Vec::new, |scratch, rows| {
        let n_rows = rows.len() / rank;
        scratch.clear();
        scratch.resize(rows.len(), 0.0);
        add_product(
            &mut ViewMut::new(scratch, n_rows, rank, rank),
            1.0,
            View::new(rows, n_rows, rank, rank),
            View::new(&inverse, rank, rank, rank).transposed(),
        );
        rows.copy_from_slice(scratch);
    });
    Ok(())
}

/// `L^-1` of `gram = L L'`, row-major; a direction that is not there (a zero pivot) becomes zero.
fn inverse_factor(mut gram: Vec<f64>, n: usize) -> Option<Vec<f64>> {
    let largest = (0..n).map(|k| gram[k * n + k]).fold(0.0, f64::max);
    if !largest.is_finite() {
        return None;
    }
    let mut inverse = vec![0f64; n * n];
    for k in 0..n {
        inverse[k * n + k] = 1.0;
    }
    for k in 0..n {
        let pivot = gram[k * n + k];
        let scale = if pivot > largest * 1e-13 { 1.0 / pivot.sqrt() } else { 0.0 };
        gram[k * n..(k + 1) * n].iter_mut().for_each(|value| *value *= scale);
        inverse[k * n..(k + 1) * n].iter_mut().for_each(|value| *value *= scale);
        let (top, below) = gram.split_at_mut((k + 1) * n);
        let (inverse_top, inverse_below) = inverse.split_at_mut((k + 1) * n);
        let (row, inverse_row) = (&top[k * n..], &inverse_top[k * n..]);
        below.par_chunks_mut(n).zip(inverse_below.par_chunks_mut(n)).enumerate().for_each(
            |(at, (target, inverse_target))| {
                // By symmetry the factor's column k is its scaled row k.
                let factor = row[k + 1 + at];
                if factor != 0.0 {
                    target.iter_mut().zip(row).for_each(|(value, other)| *value -= factor * other);
                    let pairs = inverse_target.iter_mut().zip(inverse_row);
                    pairs.for_each(|(value, other)| *value -= factor * other);
                }
            },
        );
    }
    Some(inverse)
}
