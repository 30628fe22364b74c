//! Dense and sparse matrices as the numeric rooms pass them to each other.
//!
//! Nothing here knows of users, items or files. [`Dense`] is row-major `n_rows × n_cols` in f32;
//! [`Csr`] is compressed sparse rows with ascending column indices inside a row. Both own their
//! memory and are built once, then only read.

mod aligned;
mod csr;
mod dense;
pub mod eigen;
pub mod kernels;
mod product;

pub use aligned::Aligned;
pub use csr::{Csr, CsrError};
pub use dense::{Dense, DenseError};
pub use product::{View, ViewMut, add_product};

#[cfg(test)]
mod tests;
