//! The objective in f64 from finished factors.

use super::Objective;
use crate::matrix::kernels::{dot, prefetch};
use crate::matrix::{Csr, Dense, View, ViewMut, add_product};
use rayon::prelude::*;

/// Rows summed together, independent of the number of threads.
const CHUNK: usize = 4096;

/// Rows asked for ahead of the one that is read.
const AHEAD: usize = 4;

/// The three parts, weights included, for `regularization(n_entries, n_other)`; `n_known` is how many users and
/// items have factors.
pub(super) fn measure(
    interactions: &Csr,
    users: &Dense,
    items: &Dense,
    unobserved_weight: f64,
    n_known: (usize, usize),
    regularization: impl Fn(usize, usize) -> f64,
) -> Objective {
    let starts: Vec<usize> = (0..users.n_rows()).step_by(CHUNK).collect();
    let observed: Vec<f64> = starts
        .into_par_iter()
        .map(|from| {
            let rows = from..(from + CHUNK).min(users.n_rows());
            rows.map(|user| observed_of(interactions.row(user), users.row(user), items)).sum()
        })
        .collect();
    let all: f64 = gram(users).iter().zip(gram(items)).map(|(a, b)| a * b).sum();
    let mut entries = vec![0usize; items.n_rows()];
    let mut norms = 0.0;
    for user in 0..users.n_rows() {
        let (cols, _) = interactions.row(user);
        norms += regularization(cols.len(), n_known.1) * dot::<f64, _>(users.row(user), users.row(user));
        for &col in cols {
            entries[col as usize] += 1;
        }
    }
    for (item, &n) in entries.iter().enumerate() {
        norms += regularization(n, n_known.0) * dot::<f64, _>(items.row(item), items.row(item));
    }
    Objective { observed: observed.iter().sum(), unobserved: unobserved_weight * all, regularization: norms }
}

fn observed_of((cols, weights): (&[u32], &[f32]), user: &[f32], items: &Dense) -> f64 {
    let mut sum = 0.0;
    for (at, (&col, &weight)) in cols.iter().zip(weights).enumerate() {
        if let Some(&ahead) = cols.get(at + AHEAD) {
            prefetch(items.row(ahead as usize));
        }
        let miss = 1.0 - dot::<f64, _>(user, items.row(col as usize));
        sum += f64::from(weight) * miss * miss;
    }
    sum
}

/// The full Gram matrix, all in f64.
fn gram(rows: &Dense) -> Vec<f64> {
    let dim = rows.n_cols();
    let partial: Vec<Vec<f64>> = rows
        .values()
        .par_chunks(CHUNK * dim)
        .map(|rows| {
            let wide: Vec<f64> = rows.iter().map(|&value| f64::from(value)).collect();
            let wide = View::new(&wide, rows.len() / dim, dim, dim);
            let mut sum = vec![0f64; dim * dim];
            add_product(&mut ViewMut::new(&mut sum, dim, dim, dim), 1.0, wide.transposed(), wide);
            sum
        })
        .collect();
    let mut gram = vec![0f64; dim * dim];
    for partial in partial {
        gram.iter_mut().zip(partial).for_each(|(sum, part)| *sum += part);
    }
    gram
}
