//! EASE^R: one inverse.

use rayon::prelude::*;

use crate::matrix::{Csr, View, ViewMut, add_product};

use super::prune;

/// Pivots swept at a time.
const PIVOTS: usize = 192;
/// Rows a task updates.
const ROWS: usize = 128;

/// How strongly users of many items are held back.
const USER_EXPONENT: f64 = 0.5;

/// What each user counts for; 1 for the mean entry.
pub(super) fn user_weights(by_user: &Csr) -> Vec<f64> {
    let n_items = |user: usize| by_user.row(user).0.len() as f64;
    let weight = |user: usize| n_items(user).max(1.0).powf(-USER_EXPONENT);
    let sum: f64 = (0..by_user.n_rows()).map(|user| n_items(user) * weight(user)).sum();
    let scale = by_user.n_entries() as f64 / sum.max(f64::MIN_POSITIVE);
    (0..by_user.n_rows()).map(|user| weight(user) * scale).collect()
}

/// All items with a user, by one inverse.
pub(super) fn fit(by_user: &Csr, by_item: &Csr, weights: &[f64], (kept, lambda): (usize, f64)) -> Csr {
    let n_items = by_user.n_cols();
    let known: Vec<u32> =
        (0..n_items as u32).filter(|item| !by_item.row(*item as usize).0.is_empty()).collect();
    let n = known.len();
    let mut place = vec![u32::MAX; n_items];
    for (at, item) in known.iter().enumerate() {
        place[*item as usize] = at as u32;
    }
    let mut gram = vec![0f64; n * n];
    gram.par_chunks_mut(n.max(1)).zip(&known).enumerate().for_each(|(at, (row, item))| {
        for user in by_item.row(*item as usize).0 {
            for other in by_user.row(*user as usize).0 {
                row[place[*other as usize] as usize] += weights[*user as usize];
            }
        }
        row[at] += lambda;
    });
    negative_inverse(&mut gram, n);
    let value = |i: usize, j: usize| if i >= j { gram[i * n + j] } else { gram[j * n + i] };
    let rows = (0..n_items).into_par_iter().map_init(Vec::new, |row, item| {
        let at = place[item];
        if at == u32::MAX {
            return Vec::new();
        }
        let others =
            known.iter().enumerate().filter(|(other, _)| *other != at as usize).map(|(other, id)| {
                // Both carry the sweep's minus, which cancels.
                (*id, (-value(at as usize, other) / value(other, other)) as f32)
            });
        row.clear();
        row.extend(others);
        prune(row, kept)
    });
    Csr::from_rows(n_items, rows.collect())
}

/// Turns a symmetric positive definite matrix into minus its inverse; only the lower triangle is read
/// and written.
///
/// The sweep operator (Goodnight, "A tutorial on the SWEEP operator", 1979) over blocks of pivots:
/// almost all of its `n³` flops are one matrix product a block.
pub(super) fn negative_inverse(a: &mut [f64], n: usize) {
    for start in (0..n).step_by(PIVOTS) {
        let end = (start + PIVOTS).min(n);
        let width = end - start;
        // The block's columns, from below the diagonal and, mirrored, from left of it.
        let mut columns = vec![0f64; n * width];
        columns.par_chunks_mut(width).enumerate().for_each(|(row, target)| {
            for (at, value) in target.iter_mut().enumerate() {
                let column = start + at;
                *value = if row >= column { a[row * n + column] } else { a[column * n + row] };
            }
        });
        let pivot = inverse(&columns[start * width..end * width], width);
        let mut swept = vec![0f64; n * width];
        swept.par_chunks_mut(ROWS * width).zip(columns.par_chunks(ROWS * width)).for_each(
            |(target, rows)| {
                let n_rows = rows.len() / width;
                add_product(
                    &mut ViewMut::new(target, n_rows, width, width),
                    1.0,
                    View::new(rows, n_rows, width, width),
                    View::new(&pivot, width, width, width),
                );
            },
        );
        a.par_chunks_mut(ROWS * n).zip(swept.par_chunks(ROWS * width)).enumerate().for_each(
            |(block, (rows, swept))| {
                let n_rows = rows.len() / n;
                let until = block * ROWS + n_rows;
                add_product(
                    &mut ViewMut::new(rows, n_rows, until, n),
                    -1.0,
                    View::new(swept, n_rows, width, width),
                    View::new(&columns, until, width, width).transposed(),
                );
            },
        );
        for row in end..n {
            a[row * n + start..row * n + end].copy_from_slice(&swept[row * width..(row + 1) * width]);
        }
        for at in 0..width {
            let row = &mut a[(start + at) * n..(start + at) * n + end];
            for (column, value) in row[..start].iter_mut().enumerate() {
                *value = swept[column * width + at];
            }
            for (value, pivot) in row[start..].iter_mut().zip(&pivot[at * width..(at + 1) * width]) {
                *value = -pivot;
            }
        }
    }
}

/// A small symmetric positive definite matrix inverted by Gauss and Jordan's elimination, which needs
/// no pivoting there.
fn inverse(matrix: &[f64], n: usize) -> Vec<f64> {
    let mut a = matrix.to_vec();
    let mut pivot_row = vec![0f64; n];
    for k in 0..n {
        let pivot = 1.0 / a[k * n + k];
        a[k * n + k] = 1.0;
        a[k * n..(k + 1) * n].iter_mut().for_each(|value| *value *= pivot);
        pivot_row.copy_from_slice(&a[k * n..(k + 1) * n]);
        for (i, row) in a.chunks_exact_mut(n).enumerate() {
            if i != k {
                let factor = std::mem::take(&mut row[k]);
                row.iter_mut().zip(&pivot_row).for_each(|(value, pivot)| *value -= factor * pivot);
            }
        }
    }
    a
}
