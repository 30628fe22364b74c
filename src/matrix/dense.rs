//! Row-major dense matrices.

/// A row-major `n_rows × n_cols` matrix of f32.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dense {
    n_rows: usize,
    n_cols: usize,
    values: Vec<f32>,
}

/// Why a dense matrix was refused.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum DenseError {
    /// The buffer's length is not `n_rows × n_cols`.
    #[error("{values} values do not fill a matrix of {n_rows} rows by {n_cols} columns")]
    Shape { n_rows: usize, n_cols: usize, values: usize },
    /// A value is NaN or infinite.
    #[error("row {row} holds a value that is not finite")]
    NotFinite { row: usize },
}

impl Dense {
    /// All zeros.
    pub fn zeros(n_rows: usize, n_cols: usize) -> Self {
        Self { n_rows, n_cols, values: vec![0.0; n_rows * n_cols] }
    }

    /// Takes a row-major buffer.
    ///
    /// # Errors
    /// If its length is not `n_rows × n_cols`, or a value is not finite.
    pub fn from_vec(n_rows: usize, n_cols: usize, values: Vec<f32>) -> Result<Self, DenseError> {
        if values.len() != n_rows * n_cols {
            return Err(DenseError::Shape { n_rows, n_cols, values: values.len() });
        }
        // A vector of bits at a time; where it is worth looking, number by number.
        const INFINITE: u32 = f32::INFINITY.to_bits();
        let most = values.iter().fold(0, |most, value| most.max(value.to_bits() & INFINITE));
        if most == INFINITE
            && let Some(at) = values.iter().position(|v| !v.is_finite())
        {
            return Err(DenseError::NotFinite { row: at / n_cols });
        }
        Ok(Self { n_rows, n_cols, values })
    }

    /// The number of rows.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// The number of columns.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// One row.
    pub fn row(&self, at: usize) -> &[f32] {
        &self.values[at * self.n_cols..(at + 1) * self.n_cols]
    }

    /// One row, to write.
    pub fn row_mut(&mut self, at: usize) -> &mut [f32] {
        &mut self.values[at * self.n_cols..(at + 1) * self.n_cols]
    }

    /// Some rows, in this order.
    #[must_use]
    pub fn select(&self, rows: &[u32]) -> Self {
        let values = rows.iter().flat_map(|row| self.row(*row as usize).iter().copied()).collect();
        Self { n_rows: rows.len(), n_cols: self.n_cols, values }
    }

    /// Each row divided by its Euclidean norm; a row of zeros stays one.
    #[must_use]
    pub fn with_unit_rows(mut self) -> Self {
        for row in self.values.chunks_exact_mut(self.n_cols.max(1)) {
            let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            if norm > 0.0 {
                row.iter_mut().for_each(|value| *value /= norm);
            }
        }
        self
    }

    /// All values, row after row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values, row after row, to write.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}
