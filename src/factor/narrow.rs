//! The fixed side's rows in 16 bits, as they are gathered.
//!
//! Rows are gathered from all over a matrix that no cache holds, once a pair and half-sweep; waiting for them was
//! half of the time. A row of whole numbers, 32,767 for its largest, is half as long, and what is rounded away is far
//! less than what conjugate gradients leave: the objective of 3.7 million pairs stays the same to six digits.

use crate::matrix::Aligned;
use crate::matrix::kernels::{prefetch, vectorized};
use rayon::prelude::*;

/// Rows rounded together.
const CHUNK: usize = 512;

/// `n × dim` numbers, each a whole number times its row's unit.
pub(super) struct Narrow {
    dim: usize,
    values: Aligned<i16>,
    units: Vec<f32>,
}

impl Narrow {
    /// Rounds rows of `dim` finite numbers.
    pub(super) fn of(rows: &[f32], dim: usize) -> Self {
        let (mut values, mut units) = (Aligned::new(rows.len(), 0i16), vec![0f32; rows.len() / dim]);
        let chunks = values.get_mut().par_chunks_mut(CHUNK * dim).zip(units.par_chunks_mut(CHUNK));
        chunks.zip(rows.par_chunks(CHUNK * dim)).for_each(|((values, units), rows)| {
            vectorized(
                #[inline(always)]
                || {
                    let narrow = values.chunks_exact_mut(dim).zip(&mut *units);
                    for ((values, unit), row) in narrow.zip(rows.chunks_exact(dim)) {
                        *unit = round(row, values);
                    }
                },
            );
        });
        Self { dim, values, units }
    }

    fn row(&self, at: u32) -> &[i16] {
        &self.values.get()[at as usize * self.dim..][..self.dim]
    }

    /// Has a row brought into the cache.
    #[inline(always)]
    pub(super) fn prefetch(&self, at: u32) {
        prefetch(self.row(at));
    }

    /// `out = factor · scale ∘ row`.
    #[inline(always)]
    pub(super) fn scale_into(&self, at: u32, factor: f32, scale: &[f32], out: &mut [f32]) {
        let factor = factor * self.units[at as usize];
        for ((out, &value), &scale) in out.iter_mut().zip(self.row(at)).zip(scale) {
            *out = factor * scale * f32::from(value);
        }
    }
}

/// Writes a row as whole numbers of the unit that is returned.
#[inline(always)]
fn round(row: &[f32], values: &mut [i16]) -> f32 {
    let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let unit = largest / f32::from(i16::MAX);
    let by_unit = if unit > 0.0 { 1.0 / unit } else { 0.0 };
    for (value, &wide) in values.iter_mut().zip(row) {
        *value = (wide * by_unit).round_ties_even() as i16;
    }
    unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_row_is_off_by_half_a_unit_at_most(
            rows in prop::collection::vec(prop::collection::vec(-1f32..1.0, 16), 1..4),
            exponent in -30i32..30,
        ) {
            let rows: Vec<f32> = rows.concat().iter().map(|value| value * 2f32.powi(exponent)).collect();
            let (narrow, scale) = (Narrow::of(&rows, 16), [0.5f32; 16]);
            for (at, row) in rows.chunks_exact(16).enumerate() {
                let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
                let mut found = [0f32; 16];
                narrow.scale_into(at as u32, 4.0, &scale, &mut found);
                for (found, value) in found.iter().zip(row) {
                    prop_assert!((found - 2.0 * value).abs() <= 1.01 * largest / 32_767.0, "{found} for 2 · {value}");
                }
            }
        }
    }

    #[test]
    fn a_row_of_zeros_stays_one() {
        let mut found = [1f32; 16];
        Narrow::of(&[0.0; 16], 16).scale_into(0, 1.0, &[1.0; 16], &mut found);
        assert_eq!(found, [0.0; 16]);
    }
}
