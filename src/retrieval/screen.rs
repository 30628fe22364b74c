//! The catalogue in bytes: which items can be among a query's best at all.
//!
//! Rows are rounded to whole steps, an item's panel and a query each with a step of its own. With
//! `q' = s_q n_q` and `x' = s_p n_x` the rounded vectors, Cauchy-Schwarz gives
//!
//! `|q . x - s_q s_p (n_q . n_x)| <= |q - q'| |x| + |q'| |x - x'|`,
//!
//! where both distances are computed, not estimated; and `fl(q . x)`, which is the score, lies within
//! `gamma |q| |x|` of `q . x` ([`Bound`]). So every pair's score is known to within an error that is the
//! same for a query and a panel, `n_q . n_x` is a sum of products of bytes, which the machine adds up
//! exactly, and a comparison of that integer with a floor rules a pair out.
//!
//! Columns differ in size, the more so where vectors are concatenated sources. A column is first multiplied
//! by a power of two in the items and divided by it in the queries, which changes neither a product nor a
//! bit, so that it is about as large in both: then no column costs the others their steps. Norms, here, are
//! of these rows. The powers are those of the first request's queries; others' only screen less well with them.
//!
//! A candidate is kept with the least that its score can be. The `k`-th best of these is a score that the
//! list's last entry reaches at least; whatever cannot reach it is dropped. What is left at the end, at most
//! a few times `k`, is scored in f32, so that a list has the same items and the same bits as without a screen.

use pulp::Arch;
use rayon::prelude::*;

use super::Request;
use super::block::Bound;
use super::items::Order;
use crate::matrix::kernels::{Dots, Panel, ROWS};
use crate::matrix::{Aligned, Csr, Dense};

/// Eligible items, longest first, in bytes.
pub(super) struct Bytes<'a> {
    pub(super) dots: Dots,
    pub(super) order: Order<'a>,
    /// What each column of a query is multiplied by.
    pub(super) by_query: Vec<f64>,
    /// Panel after panel, as [`Dots`] reads them: four columns after four columns, 48 items each. Zero is
    /// 128; items absent from the last panel are zero.
    values: Aligned<u8>,
    pub(super) panels: Vec<Facts>,
    pub(super) n_groups: usize,
}

/// What bounds the error of a panel.
#[derive(Clone, Copy)]
pub(super) struct Facts {
    pub(super) step: f64,
    /// The longest item's.
    pub(super) norm: f64,
    /// The furthest that an item is from its bytes.
    pub(super) error: f64,
}

/// Whole steps to either side of zero.
const STEPS: f64 = 127.0;
const ZERO: i16 = 128;
/// Columns that [`Dots`] multiplies at once.
pub(super) const GROUP: usize = 4;
/// Covers what sums and products of this file in f64 are rounded by.
pub(super) const ROUNDINGS: f64 = 1e-9;
/// Sums of that many products of bytes stay in 32 bits.
const MOST_COLUMNS: usize = 1 << 16;
/// A candidate's cost, its share of what is scored in f32 at the end included: 30 ns at 16 steps a cycle.
const STEPS_A_CANDIDATE: f64 = 1600.0;
const FEWEST_COLUMNS: usize = 16;
const FEWEST_QUERIES: usize = 64;
/// Lists may be this share of the catalogue.
const LONGEST_LIST: usize = 32;

/// Whether a request is one for which a screen is right: every score is finite, so that none is an error,
/// and sums of products fit.
pub(super) fn can(request: &Request<'_>, longest: (f64, f64)) -> bool {
    let d = request.queries.n_cols();
    let limit = f64::from(f32::MAX) / 4.0;
    let sparse = request.sparse.map_or(&[][..], Csr::values);
    // NaN is not below anything.
    (1..MOST_COLUMNS).contains(&d)
        && Bound::new(d).of(longest.0, longest.1) < limit
        && sparse.par_iter().all(|value| f64::from(value.abs()) < limit)
}

/// Whether it is likely to pay, where the catalogue is in bytes already or has yet to be.
pub(super) fn suits(request: &Request<'_>, n_listed: usize, there: bool) -> bool {
    let many = n_listed >= LONGEST_LIST * request.top_k.max(ROWS);
    many && (there || request.queries.n_rows() >= FEWEST_QUERIES)
        && request.queries.n_cols() >= FEWEST_COLUMNS
}

/// Whether so few pairs passed that the screen is worth its cost: a product of bytes takes a quarter of the
/// time of one in f32; a candidate, that of as many steps of it as were measured.
pub(super) fn pays(n_columns: usize, n_scored: u64, n_candidates: u64) -> bool {
    n_candidates as f64 * STEPS_A_CANDIDATE < n_scored as f64 * n_columns as f64 * 0.75
}

impl<'a> Bytes<'a> {
    pub(super) fn new(
        dots: Dots,
        arch: Arch,
        queries: &Dense,
        items: &'a Dense,
        eligible: Option<&[bool]>,
    ) -> Self {
        let scales = scales(&root_mean_squares(queries), &root_mean_squares(items));
        let by_item: Vec<f64> = scales.iter().map(|scale| scale.1).collect();
        let scaled =
            |item: u32| items.row(item as usize).iter().zip(&by_item).map(|(x, by)| f64::from(*x) * by);
        let norm = |item| scaled(item).map(|x| x * x).sum::<f64>().sqrt() * (1.0 + ROUNDINGS);
        let norms: Vec<f64> = (0..items.n_rows() as u32).into_par_iter().map(norm).collect();
        let order = Order::new(arch, items, &norms, eligible);
        let n_groups = items.n_cols().div_ceil(GROUP);
        let panel_len = n_groups * GROUP * ROWS;
        let mut values = Aligned::new(order.len().div_ceil(ROWS) * panel_len, ZERO as u8);
        let panels = values.get_mut().par_chunks_mut(panel_len).zip(order.items.par_chunks(ROWS));
        let panels = panels.map(|(panel, members)| {
            let largest =
                members.iter().flat_map(|&item| scaled(item)).fold(0.0, |most: f64, x| most.max(x.abs()));
            let step = step_of(largest);
            let per_unit = 1.0 / step;
            let mut error = 0f64;
            for (lane, &item) in members.iter().enumerate() {
                let mut missed = 0.0;
                for (column, x) in scaled(item).enumerate() {
                    let steps = steps_of(x, per_unit);
                    panel[column / GROUP * GROUP * ROWS + lane * GROUP + column % GROUP] =
                        (steps + ZERO) as u8;
                    missed += (x - step * f64::from(steps)).powi(2);
                }
                error = error.max(missed);
            }
            let norm = norms[members[0] as usize];
            Facts { step, norm, error: error.sqrt() * (1.0 + ROUNDINGS) }
        });
        let panels = panels.collect();
        let by_query = scales.iter().map(|scale| scale.0).collect();
        Self { dots, order, by_query, values, panels, n_groups }
    }

    pub(super) fn panel(&self, at: usize) -> Panel<'_> {
        let len = self.n_groups * GROUP * ROWS;
        let Facts { step, norm, error } = self.panels[at];
        Panel { bytes: &self.values.get()[at * len..(at + 1) * len], norm, error, per_unit: 1.0 / step }
    }
}

/// What a column is multiplied by in queries and in items: a power of two and its inverse, or 0 where all
/// products are 0. A column that these queries leave empty may be full in others'.
fn scales(queries: &[f64], items: &[f64]) -> Vec<(f64, f64)> {
    let typical = (queries.iter().map(|q| q * q).sum::<f64>() / queries.len().max(1) as f64).sqrt();
    let scale = |(q, x): (&f64, &f64)| {
        if *x == 0.0 {
            return (0.0, 0.0);
        }
        let q = [*q, typical, *x].into_iter().find(|q| *q > 0.0).unwrap_or(*x);
        let power = ((x / q).log2() / 2.0).round() as i32;
        (2f64.powi(power), 2f64.powi(-power))
    };
    queries.iter().zip(items).map(scale).collect()
}

/// Rows a task adds up before the sums are added in their order.
const CHUNK: usize = 4096;

/// By column.
fn root_mean_squares(matrix: &Dense) -> Vec<f64> {
    let d = matrix.n_cols();
    let sums = matrix.values().par_chunks(CHUNK * d).map(|rows| {
        let mut sums = vec![0f64; d];
        for row in rows.chunks_exact(d) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value).powi(2));
        }
        sums
    });
    let sums: Vec<Vec<f64>> = sums.collect();
    let mean =
        |column: usize| sums.iter().map(|sums| sums[column]).sum::<f64>() / matrix.n_rows().max(1) as f64;
    (0..d).map(|column| mean(column).sqrt()).collect()
}

pub(super) fn step_of(largest: f64) -> f64 {
    if largest > 0.0 { largest / STEPS } else { 1.0 }
}

/// To the nearest: beside so large a number there is no room for a fraction.
pub(super) fn steps_of(value: f64, per_unit: f64) -> i16 {
    const WHOLE: f64 = 1.5 * (1u64 << 52) as f64;
    ((value * per_unit + WHOLE) - WHOLE) as i16
}
