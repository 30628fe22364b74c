//! Compressed sparse rows.

use rayon::prelude::*;

/// Sparse rows of f32 values; column indices ascend strictly inside a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Csr {
    n_cols: usize,
    /// `n_rows + 1` offsets into `indices` and `values`; the first is 0.
    offsets: Vec<usize>,
    indices: Vec<u32>,
    values: Vec<f32>,
}

/// Why sparse rows were refused.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum CsrError {
    /// The three coordinate slices differ in length.
    #[error("{rows} row indices, {cols} column indices and {values} values: the three must be as many")]
    Lengths { rows: usize, cols: usize, values: usize },
    /// An index lies outside the matrix.
    #[error("entry {at} is at row {row}, column {col}, outside {n_rows} rows by {n_cols} columns")]
    Bounds { at: usize, row: u32, col: u32, n_rows: usize, n_cols: usize },
    /// The same cell is given twice.
    #[error("row {row}, column {col} is given twice")]
    Duplicate { row: u32, col: u32 },
    /// A value is NaN or infinite.
    #[error("the value at row {row}, column {col} is not finite")]
    NotFinite { row: u32, col: u32 },
}

impl Csr {
    /// Builds rows from coordinates in any order, in `O(n log n)` of the longest row.
    ///
    /// # Errors
    /// On slices of unequal length, an index out of bounds, a repeated cell or a value that is
    /// not finite.
    pub fn from_coordinates(
        n_rows: usize,
        n_cols: usize,
        rows: &[u32],
        cols: &[u32],
        values: &[f32],
    ) -> Result<Self, CsrError> {
        if rows.len() != cols.len() || rows.len() != values.len() {
            return Err(CsrError::Lengths { rows: rows.len(), cols: cols.len(), values: values.len() });
        }
        let mut offsets = vec![0usize; n_rows + 1];
        for (at, ((&row, &col), value)) in rows.iter().zip(cols).zip(values).enumerate() {
            if row as usize >= n_rows || col as usize >= n_cols {
                return Err(CsrError::Bounds { at, row, col, n_rows, n_cols });
            }
            if !value.is_finite() {
                return Err(CsrError::NotFinite { row, col });
            }
            offsets[row as usize + 1] += 1;
        }
        for row in 0..n_rows {
            offsets[row + 1] += offsets[row];
        }
        let mut next = offsets.clone();
        let mut indices = vec![0u32; cols.len()];
        let mut sorted = vec![0f32; cols.len()];
        for ((&row, &col), &value) in rows.iter().zip(cols).zip(values) {
            let slot = &mut next[row as usize];
            indices[*slot] = col;
            sorted[*slot] = value;
            *slot += 1;
        }
        let mut csr = Self { n_cols, offsets, indices, values: sorted };
        csr.sort_rows()?;
        Ok(csr)
    }

    /// How many rows have an entry, and how many columns.
    pub fn n_used(&self) -> (usize, usize) {
        let n_rows = self.offsets.windows(2).filter(|ends| ends[0] < ends[1]).count();
        let mut is_used = vec![false; self.n_cols];
        self.indices.iter().for_each(|col| is_used[*col as usize] = true);
        (n_rows, is_used.into_iter().filter(|used| *used).count())
    }

    /// Builds rows from lists of column and value, each in ascending order of the column.
    ///
    /// # Panics
    /// If a row's columns do not ascend strictly, or one is not below `n_cols`.
    pub fn from_rows(n_cols: usize, rows: Vec<Vec<(u32, f32)>>) -> Self {
        let n_entries = rows.iter().map(Vec::len).sum();
        let mut offsets = Vec::with_capacity(rows.len() + 1);
        offsets.push(0);
        let (mut indices, mut values) = (Vec::with_capacity(n_entries), Vec::with_capacity(n_entries));
        for row in rows {
            assert!(row.windows(2).all(|pair| pair[0].0 < pair[1].0), "columns ascend");
            assert!(row.last().is_none_or(|entry| (entry.0 as usize) < n_cols), "columns are inside");
            indices.extend(row.iter().map(|entry| entry.0));
            values.extend(row.iter().map(|entry| entry.1));
            offsets.push(indices.len());
        }
        Self { n_cols, offsets, indices, values }
    }

    fn sort_rows(&mut self) -> Result<(), CsrError> {
        let mut scratch: Vec<(u32, f32)> = Vec::new();
        for row in 0..self.n_rows() {
            let range = self.offsets[row]..self.offsets[row + 1];
            let ascending = self.indices[range.clone()].windows(2).all(|pair| pair[0] < pair[1]);
            if ascending {
                continue;
            }
            scratch.clear();
            scratch.extend(
                self.indices[range.clone()].iter().copied().zip(self.values[range.clone()].iter().copied()),
            );
            scratch.sort_unstable_by_key(|entry| entry.0);
            if let Some(pair) = scratch.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                return Err(CsrError::Duplicate { row: row as u32, col: pair[0].0 });
            }
            for (slot, &(col, value)) in range.zip(&scratch) {
                self.indices[slot] = col;
                self.values[slot] = value;
            }
        }
        Ok(())
    }

    /// The number of rows.
    pub fn n_rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The number of columns.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// The number of stored entries.
    pub fn n_entries(&self) -> usize {
        self.indices.len()
    }

    /// How many entries the rows before this one hold: where its entries start in any list that is
    /// aligned with the matrix.
    pub fn offset(&self, row: usize) -> usize {
        self.offsets[row]
    }

    /// The values of all rows, row after row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// One row's column indices, ascending, and their values.
    pub fn row(&self, at: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[at]..self.offsets[at + 1];
        (&self.indices[range.clone()], &self.values[range])
    }

    /// The value of a cell; 0 where there is no entry.
    pub fn value(&self, row: u32, col: u32) -> f32 {
        let (cols, values) = self.row(row as usize);
        cols.binary_search(&col).map_or(0.0, |at| values[at])
    }

    /// A copy of some rows in the order given, in `O(their entries)`.
    #[must_use]
    pub fn select(&self, rows: &[u32]) -> Self {
        let mut selected =
            Self { n_cols: self.n_cols, offsets: vec![0], indices: Vec::new(), values: Vec::new() };
        for row in rows {
            let (indices, values) = self.row(*row as usize);
            selected.indices.extend_from_slice(indices);
            selected.values.extend_from_slice(values);
            selected.offsets.push(selected.indices.len());
        }
        selected
    }

    /// The same cells with empty rows at the end, `n_rows` in all or as many as there are.
    #[must_use]
    pub fn with_rows(&self, n_rows: usize) -> Self {
        let mut longer = self.clone();
        longer.offsets.resize(self.offsets.len().max(n_rows + 1), self.n_entries());
        longer
    }

    /// The same cells with each row's values changed in place.
    #[must_use]
    pub fn map_rows(mut self, change: impl Fn(&mut [f32])) -> Self {
        for row in 0..self.n_rows() {
            change(&mut self.values[self.offsets[row]..self.offsets[row + 1]]);
        }
        self
    }

    /// Columns become rows, in `O(n_entries + n_cols)`.
    pub fn transpose(&self) -> Self {
        let order: Vec<u32> = (0..self.n_rows() as u32).collect();
        self.transpose_of(&order)
    }

    /// Columns become rows, whose columns are these rows in their order, in `O(n_entries + n_cols)` and a search in each
    /// row a thread: threads share the columns.
    pub fn transpose_of(&self, rows: &[u32]) -> Self {
        let mut offsets = vec![0usize; self.n_cols + 1];
        for &col in rows.iter().flat_map(|&row| self.row(row as usize).0) {
            offsets[col as usize + 1] += 1;
        }
        for col in 0..self.n_cols {
            offsets[col + 1] += offsets[col];
        }
        let n_entries = offsets[self.n_cols];
        let (mut indices, mut values) = (vec![0u32; n_entries], vec![0f32; n_entries]);
        let n_parts = rayon::current_num_threads();
        let (mut parts, mut rest, mut from) = (Vec::new(), (&mut indices[..], &mut values[..]), 0);
        for part in 1..=n_parts {
            // To the first column with its share of entries before it; the last part takes all that is left.
            let share = n_entries * part / n_parts;
            let to = if part == n_parts { self.n_cols } else { offsets.partition_point(|&at| at < share) };
            let to = to.clamp(from, self.n_cols);
            let n = offsets[to] - offsets[from];
            let (indices, values) = (rest.0.split_at_mut(n), rest.1.split_at_mut(n));
            parts.push((from..to, indices.0, values.0));
            (rest, from) = ((indices.1, values.1), to);
        }
        parts.into_par_iter().for_each(|(cols, indices, values)| {
            let mut next: Vec<usize> =
                offsets[cols.clone()].iter().map(|at| at - offsets[cols.start]).collect();
            for (at, &row) in rows.iter().enumerate() {
                let (found, found_values) = self.row(row as usize);
                // A row's columns ascend.
                let own = found.partition_point(|&col| (col as usize) < cols.start)
                    ..found.partition_point(|&col| (col as usize) < cols.end);
                for (&col, &value) in found[own.clone()].iter().zip(&found_values[own]) {
                    let slot = &mut next[col as usize - cols.start];
                    (indices[*slot], values[*slot]) = (at as u32, value);
                    *slot += 1;
                }
            }
        });
        Self { n_cols: rows.len(), offsets, indices, values }
    }
}
