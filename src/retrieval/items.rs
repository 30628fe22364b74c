//! The catalogue as the kernel reads it.

use pulp::Arch;
use rayon::prelude::*;

use super::Error;
use super::kernel::{self, Shape};
use crate::matrix::Dense;

/// Eligible items, largest norm first, cut into panels; built once per request.
pub(super) struct Packed {
    pub(super) arch: Arch,
    pub(super) shape: Shape,
    /// Item indices in packed order.
    pub(super) order: Vec<u32>,
    /// Where each item went; `ABSENT` for the ineligible.
    pub(super) positions: Vec<u32>,
    /// The largest norm of each panel; descending.
    pub(super) panel_norms: Vec<f64>,
    /// Panel after panel; a panel is column after column, `panel_items` values each. Absent items of the
    /// last panel are zero rows.
    values: Vec<f32>,
    /// Where the first panel starts: on a cache line, or every load would touch two of them.
    start: usize,
    panel_len: usize,
}

/// No position: there are at most `u32::MAX` items.
pub(super) const ABSENT: u32 = u32::MAX;

const LINE_BYTES: usize = 64;
const LINE: usize = LINE_BYTES / size_of::<f32>();

impl Packed {
    /// `norms` are the items'.
    pub(super) fn new(arch: Arch, items: &Dense, norms: &[f64], eligible: Option<&[bool]>) -> Self {
        let listed = |item: &u32| eligible.is_none_or(|flags| flags[*item as usize]);
        let mut order: Vec<u32> = (0..items.n_rows() as u32).filter(listed).collect();
        order.par_sort_by(|&a, &b| norms[b as usize].total_cmp(&norms[a as usize]));
        let mut positions = vec![ABSENT; items.n_rows()];
        for (position, &item) in order.iter().enumerate() {
            positions[item as usize] = position as u32;
        }
        let shape = kernel::shape(arch);
        let wide = shape.panel_items;
        let panel_norms = order.iter().step_by(wide).map(|&item| norms[item as usize]).collect();
        let panel_len = wide * items.n_cols();
        let len = order.len().div_ceil(wide) * panel_len;
        let mut values = vec![0f32; len + LINE];
        let start = values.as_ptr().align_offset(LINE_BYTES).min(LINE);
        // A chunk cannot be empty, and rows without columns have nothing to copy.
        let panels = values[start..start + len].par_chunks_mut(panel_len.max(1));
        panels.zip(order.par_chunks(wide)).for_each(|(panel, members)| {
            for (lane, &item) in members.iter().enumerate() {
                for (column, &value) in panel.chunks_exact_mut(wide).zip(items.row(item as usize)) {
                    column[lane] = value;
                }
            }
        });
        Self { arch, shape, order, positions, panel_norms, values, start, panel_len }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// One panel's values.
    pub(super) fn panel(&self, at: usize) -> &[f32] {
        let from = self.start + at * self.panel_len;
        &self.values[from..from + self.panel_len]
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
