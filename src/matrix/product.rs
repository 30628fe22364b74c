//! Dense matrix products: a safe door to `gemm`.
//!
//! The only unsafe code of the crate. `gemm` takes pointers and strides; [`View`] and [`ViewMut`]
//! know the slice behind theirs, and are checked to lie inside it when they are made.

#![allow(unsafe_code)]

/// A matrix inside a slice, `value(i, j) = values[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    values: &'a [f64],
    n_rows: usize,
    n_cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// A row-major matrix inside a slice, to write.
pub struct ViewMut<'a> {
    values: &'a mut [f64],
    n_rows: usize,
    n_cols: usize,
    row_stride: usize,
}

impl<'a> View<'a> {
    /// A row-major matrix whose rows begin `row_stride` values apart.
    ///
    /// # Panics
    /// If it reaches beyond the slice.
    pub fn new(values: &'a [f64], n_rows: usize, n_cols: usize, row_stride: usize) -> Self {
        assert!(fits(values.len(), n_rows, n_cols, row_stride), "the view lies outside its slice");
        Self { values, n_rows, n_cols, row_stride, col_stride: 1 }
    }

    /// Rows become columns; nothing moves.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            n_rows: self.n_cols,
            n_cols: self.n_rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

impl<'a> ViewMut<'a> {
    /// A row-major matrix whose rows begin `row_stride` values apart.
    ///
    /// # Panics
    /// If it reaches beyond the slice, or its rows overlap.
    pub fn new(values: &'a mut [f64], n_rows: usize, n_cols: usize, row_stride: usize) -> Self {
        assert!(fits(values.len(), n_rows, n_cols, row_stride), "the view lies outside its slice");
        assert!(n_rows <= 1 || n_cols <= row_stride, "rows to write overlap");
        Self { values, n_rows, n_cols, row_stride }
    }
}

fn fits(len: usize, n_rows: usize, n_cols: usize, row_stride: usize) -> bool {
    n_rows == 0 || n_cols == 0 || (n_rows - 1) * row_stride + n_cols <= len
}

/// `c += scale · a · b` on the calling thread: callers parallelise over blocks of `c`, so that a
/// result does not depend on the number of threads.
///
/// # Panics
/// If the shapes do not go together.
pub fn add_product(c: &mut ViewMut<'_>, scale: f64, a: View<'_>, b: View<'_>) {
    let shapes = (a.n_rows, b.n_cols, b.n_rows);
    assert_eq!(shapes, (c.n_rows, c.n_cols, a.n_cols), "shapes of a product");
    if c.n_rows == 0 || c.n_cols == 0 || a.n_cols == 0 {
        return;
    }
    // SAFETY: each view was checked to lie inside its slice when it was made, `c` is borrowed mutably
    // and so shares no memory with `a` and `b`, and its rows do not overlap.
    unsafe {
        gemm::gemm(
            c.n_rows,
            c.n_cols,
            a.n_cols,
            c.values.as_mut_ptr(),
            1,
            c.row_stride as isize,
            true,
            a.values.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
