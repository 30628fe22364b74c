//! Where sweeps begin. What is random is drawn by counter, so that no draw depends on another.

use crate::matrix::Dense;
use crate::random::split_mix;
use rayon::prelude::*;

/// Writes the known factors of the entities in `order` over `rows`; one that is zero is not known.
pub(super) fn at(rows: &mut [f32], order: &[u32], known: &Dense, dim: usize) {
    for (row, &entity) in rows.chunks_exact_mut(dim).zip(order) {
        let factor = known.row(entity as usize);
        if factor.iter().any(|value| *value != 0.0) {
            row[..factor.len()].copy_from_slice(factor);
        }
    }
}

/// Writes rows for the items in `order` over zeros, each normal with standard deviation `0.1 / √rank` and padded to
/// `dim`. A row depends on the seed and the item's own index only.
pub(super) fn normal(rows: &mut [f32], order: &[u32], rank: usize, dim: usize, seed: u64) {
    let deviation = 0.1 / (rank as f64).sqrt();
    rows.par_chunks_exact_mut(dim).zip(order).with_min_len(64).for_each(|(row, &item)| {
        let stream = split_mix(seed ^ split_mix(u64::from(item)));
        for (counter, values) in row[..rank].chunks_mut(2).enumerate() {
            for (value, drawn) in values.iter_mut().zip(pair(stream, counter as u64)) {
                *value = (deviation * drawn) as f32;
            }
        }
    });
}

/// Two independent standard normal numbers (Box and Muller, 1958).
fn pair(stream: u64, counter: u64) -> [f64; 2] {
    let unit = |n: u64| ((split_mix(stream.wrapping_add(n)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let radius = (-2.0 * unit(2 * counter).ln()).sqrt();
    let (sine, cosine) = (std::f64::consts::TAU * unit(2 * counter + 1)).sin_cos();
    [radius * cosine, radius * sine]
}
