//! The fixed side's rows in 16 bits, as they are gathered.
//!
//! Rows are gathered from all over a matrix that no cache holds, once a pair and half-sweep; waiting for them was
//! half of the time. A row of whole numbers, 32,767 for its largest, is half as long, and what is rounded away is far
//! less than what conjugate gradients leave: the objective of 3.7 million pairs stays the same to six digits.
//!
//! What is rounded away is kept, in the memory of the rows themselves: of every [`BLOCK`] rows first the leading 16 bits
//! of all, then the 16 after them. So what is gathered lies as close together as a copy would.

use crate::matrix::kernels::{prefetch, vectorized};
use pulp::bytemuck;
use rayon::prelude::*;

/// Rows taken apart together: whole pages of leading bits, and a first-level cache has room for them.
const BLOCK: usize = 64;

/// Rows that one thread takes at a time: whole blocks.
pub(super) const CHUNK: usize = 512;

/// What the leading bits count of those after them.
const SHIFT: f32 = 65_536.0;

/// `n × dim` numbers, each a whole number times its row's unit, and the rest.
pub(super) struct Narrow<'a> {
    dim: usize,
    halves: &'a mut [i16],
    units: Vec<f32>,
}

impl<'a> Narrow<'a> {
    /// Takes rows of `dim` finite numbers apart, in place; `first` is done to each chunk of them before, while a cache
    /// holds it.
    pub(super) fn of(
        rows: &'a mut [f32],
        dim: usize,
        first: impl Fn(&mut [f32], &mut Vec<f32>) + Sync,
    ) -> Self {
        let mut units = vec![0f32; rows.len() / dim];
        rows.par_chunks_mut(CHUNK * dim).zip(units.par_chunks_mut(CHUNK)).for_each_init(
            Vec::new,
            |copy, (rows, units)| {
                first(rows, copy);
                for (rows, units) in rows.chunks_mut(BLOCK * dim).zip(units.chunks_mut(BLOCK)) {
                    copy.clear();
                    copy.extend_from_slice(rows);
                    vectorized(
                        #[inline(always)]
                        || split(copy, dim, bytemuck::cast_slice_mut(&mut *rows), units),
                    );
                }
            },
        );
        Self { dim, halves: bytemuck::cast_slice_mut(rows), units }
    }

    /// Puts the rows together again: to 2⁻³² of a row's largest number, but for the rounding of its own 24 bits.
    pub(super) fn restore(self) {
        let Self { dim, halves, units } = self;
        let rows: &mut [f32] = bytemuck::cast_slice_mut(halves);
        rows.par_chunks_mut(BLOCK * dim).zip(units.par_chunks(BLOCK)).for_each_init(
            Vec::new,
            |copy: &mut Vec<i16>, (rows, units)| {
                copy.clear();
                copy.extend_from_slice(bytemuck::cast_slice(&*rows));
                vectorized(
                    #[inline(always)]
                    || join(copy, dim, units, &mut *rows),
                );
            },
        );
    }

    #[inline(always)]
    fn row(&self, at: u32) -> &[i16] {
        let (block, row) = (at as usize / BLOCK, at as usize % BLOCK);
        &self.halves[(2 * block * BLOCK + row) * self.dim..][..self.dim]
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

/// Writes rows' leading bits and then the rest, and the units of the leading ones. A row without a number of 10⁻²⁹
/// becomes zero.
#[inline(always)]
fn split(rows: &[f32], dim: usize, halves: &mut [i16], units: &mut [f32]) {
    let (leading, rest) = halves.split_at_mut(rows.len());
    let halves = leading.chunks_exact_mut(dim).zip(rest.chunks_exact_mut(dim));
    for ((row, (leading, rest)), unit) in rows.chunks_exact(dim).zip(halves).zip(units) {
        let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        *unit = largest / f32::from(i16::MAX);
        let by_unit = if largest > 1e-29 { SHIFT / *unit } else { 0.0 };
        for ((leading, rest), &value) in leading.iter_mut().zip(rest).zip(row) {
            let whole = (value * by_unit).round_ties_even() as i32;
            let high = (whole + 0x8000) >> 16;
            (*leading, *rest) = (high as i16, (whole - (high << 16)) as i16);
        }
    }
}

/// The rows that [`split`] took apart.
#[inline(always)]
fn join(halves: &[i16], dim: usize, units: &[f32], rows: &mut [f32]) {
    let (leading, rest) = halves.split_at(rows.len());
    let halves = leading.chunks_exact(dim).zip(rest.chunks_exact(dim));
    for ((row, (leading, rest)), unit) in rows.chunks_exact_mut(dim).zip(halves).zip(units) {
        let unit = unit / SHIFT;
        for ((value, &leading), &rest) in row.iter_mut().zip(leading).zip(rest) {
            *value = unit * ((i32::from(leading) << 16) + i32::from(rest)) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_row_is_off_by_half_a_unit_at_most_and_comes_back(
            rows in prop::collection::vec(prop::collection::vec(-1f32..1.0, 16), 1..150),
            exponent in -30i32..30,
        ) {
            let rows: Vec<f32> = rows.concat().iter().map(|value| value * 2f32.powi(exponent)).collect();
            let mut apart = rows.clone();
            let (narrow, scale) = (Narrow::of(&mut apart, 16, |_, _| {}), [0.5f32; 16]);
            let largest = |row: &[f32]| row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            for (at, row) in rows.chunks_exact(16).enumerate() {
                let mut found = [0f32; 16];
                narrow.scale_into(at as u32, 4.0, &scale, &mut found);
                for (found, value) in found.iter().zip(row) {
                    prop_assert!((found - 2.0 * value).abs() <= 1.01 * largest(row) / 32_767.0, "{found} for 2 · {value}");
                }
            }
            narrow.restore();
            for (found, row) in apart.chunks_exact(16).zip(rows.chunks_exact(16)) {
                for (found, value) in found.iter().zip(row) {
                    let most = largest(row) * 2f32.powi(-31) + value.abs() * 2f32.powi(-22);
                    prop_assert!((found - value).abs() <= most, "{found} for {value}");
                }
            }
        }
    }

    #[test]
    fn a_row_of_next_to_nothing_is_zeros() {
        for value in [0f32, f32::from_bits(1), 9e-30] {
            let (mut rows, mut found) = ([value; 16], [1f32; 16]);
            let narrow = Narrow::of(&mut rows, 16, |_, _| {});
            narrow.scale_into(0, 1.0, &[1.0; 16], &mut found);
            narrow.restore();
            assert_eq!((rows, found), ([0.0; 16], [0.0; 16]), "{value}");
        }
    }
}
