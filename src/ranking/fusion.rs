//! Standardised, weighted, concatenated.

use std::ops::Range;

use rayon::prelude::*;

use crate::matrix::kernels::dot;
use crate::matrix::{Csr, Dense, View, ViewMut, add_product};

use super::spread::Spread;
use super::{Error, Linear, Mix, N_SOURCES, Source, Sources, Weights};

/// Sources fused for retrieval. See the [room](super).
pub struct Fusion<'a> {
    pub(super) sources: Sources<'a>,
    mix: Mix,
    /// One a dense source, in the order their columns are concatenated.
    pub(super) parts: Vec<Part>,
    items: Dense,
    /// How many items may be listed.
    pub(super) n_eligible: usize,
    /// Euclidean norms of each dense source's items, for evidence.
    pub(super) norms: Vec<Vec<f32>>,
}

/// A dense source's place in the concatenated vectors and its items' statistics.
pub(super) struct Part {
    pub(super) source: Source,
    pub(super) columns: Range<usize>,
    mean: Vec<f64>,
    covariance: Vec<f64>,
}

/// A source's deviation below this share of its vector's length is rounding, not preference.
const NO_DEVIATION: f64 = 1e-9;

impl<'a> Fusion<'a> {
    pub(super) fn new(sources: Sources<'a>, mix: &Mix) -> Result<Self, Error> {
        let (n_users, n_items) = (sources.history.n_rows(), sources.history.n_cols());
        let rows = |matrix, expected, found| {
            if expected == found { Ok(()) } else { Err(Error::Rows { matrix, expected, found }) }
        };
        rows("segments", n_users, sources.segments.len())?;
        rows("popularity", n_items, sources.popularity.n_rows())?;
        rows("eligible", n_items, sources.eligible.len())?;
        for (source, users, items) in &sources.dense {
            rows(source.name(), n_users, users.n_rows())?;
            rows(source.name(), n_items, items.n_rows())?;
            if users.n_cols() != items.n_cols() {
                return Err(Error::Columns {
                    source_name: source.name(),
                    users: users.n_cols(),
                    items: items.n_cols(),
                });
            }
        }
        for Linear { source, from, model, .. } in &sources.linear {
            rows(source.name(), n_users, from.n_rows())?;
            rows(source.name(), from.n_cols(), model.n_rows())?;
            rows(source.name(), n_items, model.n_cols())?;
        }
        for (source, own) in &sources.own {
            rows(source.name(), n_users, own.n_rows())?;
        }
        let mut parts: Vec<Part> = Vec::new();
        let mut matrices: Vec<&Dense> = Vec::new();
        let popularity = (Source::Popularity, sources.popularity);
        let dense = sources.dense.iter().map(|(source, _, items)| (*source, *items));
        for (source, items) in dense.chain([popularity]) {
            if !mix.counts(source) {
                continue;
            }
            let first = parts.last().map_or(0, |part: &Part| part.columns.end);
            let (mean, covariance) = moments(items, sources.eligible);
            parts.push(Part { source, columns: first..first + items.n_cols(), mean, covariance });
            matrices.push(items);
        }
        let bias = sources.bias.map(|bias| Dense::from_vec(bias.len(), 1, bias.to_vec())).transpose();
        let bias = bias.map_err(|_| Error::NotFinite)?;
        if let Some(bias) = &bias {
            rows("rules", n_items, bias.n_rows())?;
            let first = parts.last().map_or(0, |part: &Part| part.columns.end);
            // As it is: the user's coordinate is 1, and these moments leave it so.
            let (mean, covariance) = (vec![0.0], vec![1.0]);
            parts.push(Part { source: Source::Rules, columns: first..first + 1, mean, covariance });
            matrices.push(bias);
        }
        let n_cols = parts.last().map_or(0, |part| part.columns.end);
        let mut items = Dense::zeros(n_items, n_cols);
        for (part, matrix) in parts.iter().zip(&matrices) {
            for item in 0..n_items {
                items.row_mut(item)[part.columns.clone()].copy_from_slice(matrix.row(item));
            }
        }
        let norms = |items: &Dense| (0..n_items).map(|item| norm(items.row(item))).collect();
        let norms = sources.dense.iter().map(|(_, _, items)| norms(items)).collect();
        let n_eligible = sources.eligible.iter().filter(|eligible| **eligible).count();
        Ok(Self { sources, mix: mix.clone(), parts, items, n_eligible, norms })
    }

    /// Items × all columns.
    pub fn items(&self) -> &Dense {
        &self.items
    }

    /// How many items may be listed.
    pub fn n_eligible(&self) -> usize {
        self.n_eligible
    }

    /// The vectors of some users; their inner products with the items are the hybrid scores, but
    /// for a constant a user.
    pub fn queries(&self, users: &[u32]) -> Dense {
        self.vectors(users).0
    }

    /// The same, and what retrieval leaves out: of each user a constant a source.
    pub(super) fn vectors(&self, users: &[u32]) -> (Dense, Vec<[f32; N_SOURCES]>) {
        let n_cols = self.items.n_cols().max(1);
        let mut vectors = Dense::zeros(users.len(), self.items.n_cols());
        let mut constants = vec![[0f32; N_SOURCES]; users.len()];
        let rows = vectors.values_mut().par_chunks_mut(n_cols * TOGETHER);
        let some = rows.zip(constants.par_chunks_mut(TOGETHER)).zip(users.par_chunks(TOGETHER));
        some.for_each(|((rows, constants), users)| {
            for part in &self.parts {
                let vectors = rows.chunks_exact_mut(n_cols).map(|row| &mut row[part.columns.clone()]);
                let vectors: Vec<&mut [f32]> = vectors.collect();
                self.standardised(part, users, vectors, constants);
            }
        });
        (vectors, constants)
    }

    /// Writes some users' vectors in one source, scaled, and their constants.
    fn standardised(
        &self,
        part: &Part,
        users: &[u32],
        mut vectors: Vec<&mut [f32]>,
        constants: &mut [[f32; N_SOURCES]],
    ) {
        for (vector, user) in vectors.iter_mut().zip(users) {
            self.user_vector(part.source, *user as usize, vector);
        }
        let moments = part.moments_of(&vectors);
        for (((vector, user), constants), (mean, deviation)) in
            vectors.into_iter().zip(users).zip(constants).zip(moments)
        {
            let weight = match part.source {
                Source::Rules => 1.0,
                source => self.weights(*user as usize).of(source),
            };
            let scale = if deviation > 0.0 { f64::from(weight) / deviation } else { 0.0 };
            for value in vector {
                *value = (f64::from(*value) * scale) as f32;
            }
            constants[part.source as usize] = -(mean * scale) as f32;
        }
    }

    /// The sparse scores of some users: of their own items and of what those speak for. `None` where
    /// neither counts for anybody.
    pub fn sparse(&self, users: &[u32]) -> Option<Csr> {
        let linear = self.sources.linear.iter().map(|linear| linear.source);
        if !linear.chain(self.sources.own.iter().map(|own| own.0)).any(|source| self.mix.counts(source)) {
            return None;
        }
        let n_items = self.items.n_rows();
        let rows = users.par_iter().map_init(
            || (Spread::new(n_items), Spread::new(n_items)),
            |(one, all), user| {
                let user = *user as usize;
                for (weight, linear) in self.linear(user) {
                    one.apply(linear, user);
                    let (_, scale) = self.standard(one, weight);
                    all.take(one, scale);
                }
                for (_, weight, own) in self.own(user) {
                    let (items, values) = own.row(user);
                    items.iter().zip(values).for_each(|(item, value)| all.add(*item, weight * value));
                }
                all.drain()
            },
        );
        Some(Csr::from_rows(n_items, rows.collect()))
    }

    /// The linear sources that count for a user.
    pub(super) fn linear(&self, user: usize) -> impl Iterator<Item = (f32, &Linear<'_>)> {
        let weights = self.weights(user);
        let linear = self.sources.linear.iter().map(|linear| (weights.of(linear.source), linear));
        linear.filter(|part| part.0 > 0.0)
    }

    /// The sources of a user's own items that count for the user.
    pub(super) fn own(&self, user: usize) -> impl Iterator<Item = (Source, f32, &Csr)> {
        let weights = self.weights(user);
        let own = self.sources.own.iter().map(|(source, own)| (*source, weights.of(*source), *own));
        own.filter(|part| part.1 > 0.0)
    }

    pub(super) fn weights(&self, user: usize) -> &Weights {
        self.mix.of(self.sources.segments[user])
    }

    /// The mean of a linear source's scores over the eligible items, and what a score is multiplied by: where all
    /// are next to nothing, as much as f32 cannot hold.
    pub(super) fn standard(&self, scores: &Spread, weight: f32) -> (f64, f64) {
        let (mean, deviation) = scores.moments(self.sources.eligible, self.n_eligible);
        (mean, if deviation > 0.0 { f64::from(weight) / deviation } else { 0.0 })
    }

    fn user_vector(&self, source: Source, user: usize, target: &mut [f32]) {
        if source == Source::Popularity {
            target.fill(0.0);
            // A user of no segment has no list.
            if let Some(own) = target.get_mut(self.sources.segments[user] as usize) {
                *own = 1.0;
            }
        } else if source == Source::Rules {
            target.fill(1.0);
        } else if let Some((_, users, _)) = self.sources.dense.iter().find(|dense| dense.0 == source) {
            target.copy_from_slice(users.row(user));
        }
    }
}

pub(super) fn norm(row: &[f32]) -> f32 {
    row.iter().map(|value| value * value).sum::<f32>().sqrt()
}

impl Part {
    /// Means and standard deviations of `x · y` over the eligible items, of each of some vectors.
    fn moments_of(&self, vectors: &[&mut [f32]]) -> Vec<(f64, f64)> {
        let (n, d) = (vectors.len(), self.columns.len());
        let wide: Vec<f64> = vectors.iter().flat_map(|x| x.iter().map(|x| f64::from(*x))).collect();
        let mut turned = vec![0f64; n * d];
        let (rows, covariance) = (View::new(&wide, n, d, d), View::new(&self.covariance, d, d, d));
        add_product(&mut ViewMut::new(&mut turned, n, d, d), 1.0, rows, covariance);
        let rows = wide.chunks_exact(d.max(1)).zip(turned.chunks_exact(d.max(1)));
        let of_row = |(x, turned): (&[f64], &[f64])| {
            let (mean, variance, length): (f64, f64, f64) = (dot(x, &self.mean), dot(x, turned), dot(x, x));
            let deviation = variance.max(0.0).sqrt();
            (mean, if deviation > NO_DEVIATION * length.sqrt() { deviation } else { 0.0 })
        };
        rows.map(of_row).collect()
    }
}

/// Users, or items, whose moments are computed by one product.
const TOGETHER: usize = 128;

/// Items a task sums before its partial sums are added in order.
const CHUNK: usize = 4096;

/// Mean and covariance of the eligible rows, in f64. Chunks are added in their order, so the result
/// does not depend on which thread finished first.
fn moments(items: &Dense, eligible: &[bool]) -> (Vec<f64>, Vec<f64>) {
    let d = items.n_cols();
    let rows: Vec<usize> = (0..items.n_rows()).filter(|item| eligible[*item]).collect();
    let n = rows.len().max(1) as f64;
    let mut mean = vec![0f64; d];
    for item in &rows {
        for (sum, value) in mean.iter_mut().zip(items.row(*item)) {
            *sum += f64::from(*value) / n;
        }
    }
    let mut covariance = vec![0f64; d * d];
    for group in rows.chunks(CHUNK * rayon::current_num_threads()) {
        let partial: Vec<Vec<f64>> = group
            .par_chunks(CHUNK)
            .map(|chunk| {
                let (mut centred, mut sums) = (Vec::with_capacity(TOGETHER * d), vec![0f64; d * d]);
                for some in chunk.chunks(TOGETHER) {
                    centred.clear();
                    for item in some {
                        let row = items.row(*item).iter().zip(&mean);
                        centred.extend(row.map(|(x, mean)| f64::from(*x) - mean));
                    }
                    let centred = View::new(&centred, some.len(), d, d);
                    add_product(&mut ViewMut::new(&mut sums, d, d, d), 1.0, centred.transposed(), centred);
                }
                sums
            })
            .collect();
        for sums in partial {
            covariance.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum / n);
        }
    }
    (mean, covariance)
}
