use super::*;
use crate::random::split_mix;
use proptest::prelude::*;

fn cells() -> impl Strategy<Value = (usize, usize, Vec<(u32, u32, f32)>)> {
    (1usize..12, 1usize..12).prop_flat_map(|(n_rows, n_cols)| {
        let cell = (0..n_rows as u32, 0..n_cols as u32, -2f32..2f32);
        proptest::collection::vec(cell, 0..60).prop_map(move |mut cells| {
            cells.sort_by_key(|cell| (cell.1, cell.0));
            cells.dedup_by_key(|cell| (cell.1, cell.0));
            (n_rows, n_cols, cells)
        })
    })
}

proptest! {
    #[test]
    fn eigenvectors_are_orthonormal_and_rebuild_the_matrix(
        n in 1usize..40,
        seed in 0u64..1000,
        kept in 0usize..40,
        magnitude in -150i32..100,
    ) {
        // A sum of `kept` squares: rank-deficient whenever `kept` is below `n`.
        let draw = |at: u64| split_mix(seed << 32 | at) as f64 / u64::MAX as f64 - 0.5;
        let draws: Vec<f64> = (0..(kept * n) as u64).map(draw).collect();
        let mut matrix = vec![0f64; n * n];
        for row in draws.chunks_exact(n) {
            for i in 0..n {
                for j in 0..n {
                    matrix[i * n + j] += row[i] * row[j];
                }
            }
        }
        let scaled = matrix.iter().map(|value| value * 10f64.powi(magnitude)).collect();
        let mut axes = eigen::decompose(scaled, n).unwrap();
        axes.values.iter_mut().for_each(|value| *value /= 10f64.powi(magnitude));
        for i in 0..n {
            for j in 0..n {
                let (mut rebuilt, mut product) = (0.0, 0.0);
                for k in 0..n {
                    rebuilt += axes.values[k] * axes.vectors[k * n + i] * axes.vectors[k * n + j];
                    product += axes.vectors[i * n + k] * axes.vectors[j * n + k];
                }
                prop_assert!((rebuilt - matrix[i * n + j]).abs() < 1e-12);
                prop_assert!((product - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn transposing_twice_gives_the_same_rows((n_rows, n_cols, cells) in cells()) {
        let rows: Vec<u32> = cells.iter().map(|cell| cell.0).collect();
        let cols: Vec<u32> = cells.iter().map(|cell| cell.1).collect();
        let values: Vec<f32> = cells.iter().map(|cell| cell.2).collect();
        let csr = Csr::from_coordinates(n_rows, n_cols, &rows, &cols, &values).unwrap();
        let transposed = csr.transpose();
        prop_assert_eq!(transposed.n_rows(), n_cols);
        for &(row, col, value) in &cells {
            let (rows, values) = transposed.row(col as usize);
            let at = rows.binary_search(&row).unwrap();
            prop_assert_eq!(values[at], value);
        }
        prop_assert_eq!(&transposed.transpose(), &csr);
        // Some rows in another order, by more threads than there may be columns.
        let order: Vec<u32> = (0..n_rows as u32).rev().step_by(2).collect();
        let threads = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let of_some = threads.install(|| csr.transpose_of(&order));
        prop_assert_eq!(of_some, csr.select(&order).transpose());
    }
}

#[test]
fn selected_rows_come_in_the_order_given() {
    let csr = Csr::from_coordinates(3, 4, &[0, 1, 1, 2], &[3, 0, 2, 1], &[1.0, 2.0, 3.0, 4.0]).unwrap();
    let selected = csr.select(&[2, 1]);
    assert_eq!(selected, Csr::from_coordinates(2, 4, &[0, 1, 1], &[1, 0, 2], &[4.0, 2.0, 3.0]).unwrap());
    assert_eq!(csr.select(&[]).n_rows(), 0);
    assert_eq!(csr.offset(2), 3);
}

#[test]
fn a_cell_given_twice_is_refused() {
    let twice = Csr::from_coordinates(2, 3, &[1, 1], &[2, 2], &[1.0, 1.0]);
    assert_eq!(twice, Err(CsrError::Duplicate { row: 1, col: 2 }));
}

#[test]
fn values_that_are_not_finite_are_refused() {
    let sparse = Csr::from_coordinates(1, 1, &[0], &[0], &[f32::NAN]);
    assert_eq!(sparse, Err(CsrError::NotFinite { row: 0, col: 0 }));
    assert_eq!(Dense::from_vec(2, 1, vec![0.0, f32::INFINITY]), Err(DenseError::NotFinite { row: 1 }));
    assert_eq!(Dense::from_vec(2, 2, vec![0.0]), Err(DenseError::Shape { n_rows: 2, n_cols: 2, values: 1 }));
}
