//! EASE where the catalogue is too large for one inverse: a ridge regression of each item on its neighbours.
//!
//! `w_j = (X_S' U X_S + λI)^-1 X_S' U x_j`, `S` the items whose cosine with `j` is largest: SLIM with its
//! features selected by item-kNN (fsSLIM: Ning and Karypis, "SLIM: Sparse linear methods for top-N
//! recommender systems", 2011), and EASE's ridge in place of its elastic net.

use rayon::prelude::*;

use crate::matrix::Csr;
use crate::matrix::kernels::dot;

use super::prune;

/// `cosine` is a model of item-kNN whose rows name each item's neighbours; of those the `n_neighbours` nearest
/// count.
pub(super) fn fit(by_item: &Csr, cosine: &Csr, weights: &[f64], (n_neighbours, lambda): (usize, f64)) -> Csr {
    let n_items = by_item.n_rows();
    let columns = (0..n_items).into_par_iter().map_init(
        || Scratch::new(weights.len()),
        |scratch, item| {
            let (others, cosines) = cosine.row(item);
            let mut nearest = others.iter().copied().zip(cosines.iter().copied()).collect();
            let neighbours: Vec<u32> =
                prune(&mut nearest, n_neighbours).into_iter().map(|entry| entry.0).collect();
            if neighbours.is_empty() {
                return Vec::new();
            }
            scratch.gather(by_item, &neighbours, item as u32, weights);
            let solution = scratch.solve(neighbours.len(), lambda);
            neighbours.iter().copied().zip(solution.iter().map(|value| *value as f32)).collect()
        },
    );
    Csr::from_rows(n_items, columns.collect()).transpose()
}

/// What a thread needs for one item after another.
struct Scratch {
    /// Which of the neighbours, and last the item itself, each user has, by their places.
    places_of_user: Vec<Vec<u32>>,
    users: Vec<u32>,
    /// The lower triangle of the neighbours' weighted Gram matrix, and below it the item's row; row-major.
    gram: Vec<f64>,
}

impl Scratch {
    fn new(n_users: usize) -> Self {
        Self { places_of_user: vec![Vec::new(); n_users], users: Vec::new(), gram: Vec::new() }
    }

    fn gather(&mut self, by_item: &Csr, neighbours: &[u32], item: u32, weights: &[f64]) {
        for (place, other) in neighbours.iter().chain([&item]).enumerate() {
            for user in by_item.row(*other as usize).0 {
                let places = &mut self.places_of_user[*user as usize];
                if places.is_empty() {
                    self.users.push(*user);
                }
                places.push(place as u32);
            }
        }
        let n = neighbours.len() + 1;
        self.gram.clear();
        self.gram.resize(n * n, 0.0);
        for user in self.users.drain(..) {
            let (places, weight) = (&mut self.places_of_user[user as usize], weights[user as usize]);
            for (at, row) in places.iter().enumerate() {
                let row = &mut self.gram[*row as usize * n..(*row as usize + 1) * n];
                places[..=at].iter().for_each(|column| row[*column as usize] += weight);
            }
            places.clear();
        }
    }

    /// The ridge regression of the last row on the others, by Cholesky's factorisation in place.
    fn solve(&mut self, n: usize, lambda: f64) -> &[f64] {
        let width = n + 1;
        for row in 0..n {
            self.gram[row * width + row] += lambda;
        }
        // The last row is factorised like any other: it becomes `L^-1 b`.
        for row in 0..width {
            let (above, rest) = self.gram.split_at_mut(row * width);
            let target = &mut rest[..width];
            for column in 0..row.min(n) {
                let pivots = &above[column * width..=column * width + column];
                let inner: f64 = dot(&target[..column], &pivots[..column]);
                target[column] = (target[column] - inner) / pivots[column];
            }
            if row < n {
                target[row] = (target[row] - dot::<f64, _>(&target[..row], &target[..row])).sqrt();
            }
        }
        let (factor, solution) = self.gram.split_at_mut(n * width);
        for row in (0..n).rev() {
            let factor = &factor[row * width..=row * width + row];
            let value = solution[row] / factor[row];
            solution[row] = value;
            solution[..row].iter_mut().zip(factor).for_each(|(left, factor)| *left -= value * factor);
        }
        &self.gram[n * width..n * width + n]
    }
}
