//! The catalogue as the kernel reads it.

use pulp::Arch;
use rayon::prelude::*;

use super::Error;
use super::kernel::{self, Shape};
use crate::matrix::kernels::Chains;
use crate::matrix::{Aligned, Dense};

/// Eligible items, largest norm first.
pub(super) struct Order<'a> {
    /// All items, as they came.
    pub(super) rows: &'a Dense,
    pub(super) arch: Arch,
    pub(super) chains: Chains,
    /// Item indices in that order.
    pub(super) items: Vec<u32>,
    /// Where each item went; `ABSENT` for the ineligible.
    pub(super) positions: Vec<u32>,
}

/// Eligible items in that order, cut into panels.
pub(super) struct Packed {
    pub(super) shape: Shape,
    /// The largest norm of each panel; descending.
    pub(super) panel_norms: Vec<f64>,
    /// Panel after panel; a panel is column after column, `panel_items` values each. Absent items of the
    /// last panel are zero rows.
    values: Aligned<f32>,
    panel_len: usize,
}

/// No position: there are at most `u32::MAX` items.
pub(super) const ABSENT: u32 = u32::MAX;

impl<'a> Order<'a> {
    /// `norms` are the rows'.
    pub(super) fn new(arch: Arch, rows: &'a Dense, norms: &[f64], eligible: Option<&[bool]>) -> Self {
        let listed = |item: &u32| eligible.is_none_or(|flags| flags[*item as usize]);
        let mut items: Vec<u32> = (0..norms.len() as u32).filter(listed).collect();
        items.par_sort_by(|&a, &b| norms[b as usize].total_cmp(&norms[a as usize]));
        let mut positions = vec![ABSENT; norms.len()];
        for (position, &item) in items.iter().enumerate() {
            positions[item as usize] = position as u32;
        }
        let chains = if matches!(arch, Arch::Scalar) { Chains::portable() } else { Chains::new() };
        Self { rows, arch, chains, items, positions }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }
}

impl Packed {
    /// `norms` are the items'.
    pub(super) fn new(norms: &[f64], order: &Order<'_>) -> Self {
        let shape = kernel::shape(order.arch);
        let wide = shape.panel_items;
        let panel_norms = order.items.iter().step_by(wide).map(|&item| norms[item as usize]).collect();
        let panel_len = wide * order.rows.n_cols();
        let mut values = Aligned::new(order.len().div_ceil(wide) * panel_len, 0f32);
        // A chunk cannot be empty, and rows without columns have nothing to copy.
        let panels = values.get_mut().par_chunks_mut(panel_len.max(1));
        panels.zip(order.items.par_chunks(wide)).for_each(|(panel, members)| {
            for (lane, &item) in members.iter().enumerate() {
                for (column, &value) in panel.chunks_exact_mut(wide).zip(order.rows.row(item as usize)) {
                    column[lane] = value;
                }
            }
        });
        Self { shape, panel_norms, values, panel_len }
    }

    /// One panel's values.
    pub(super) fn panel(&self, at: usize) -> &[f32] {
        &self.values.get()[at * self.panel_len..(at + 1) * self.panel_len]
    }
}

/// Every row's Euclidean norm; squares of f32 neither overflow nor vanish in f64.
///
/// # Errors
/// If a row of the matrix, which is called `name`, holds a value that is not finite.
pub(super) fn norms(matrix: &Dense, name: &'static str) -> Result<Vec<f64>, Error> {
    let norm = |at| matrix.row(at).iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    let norms: Vec<f64> = (0..matrix.n_rows()).into_par_iter().map(norm).collect();
    match norms.iter().position(|norm| !norm.is_finite()) {
        Some(row) => Err(Error::NotFinite { matrix: name, row }),
        None => Ok(norms),
    }
}
