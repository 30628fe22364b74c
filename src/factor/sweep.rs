//! Half a sweep: one side solved while the other stays.
//!
//! With the fixed side `Y` and its Gram matrix `Y'Y = Q L Q'`, both sides are first turned by `Q`;
//! no prediction and no norm changes. An entity with entries `i`, weights `w` and regularisation
//! `λ` then minimises a quadratic form with the matrix `D + Σ w_i y_i y_i'`, where
//! `D = unobserved_weight · L + λ I` is diagonal. In the coordinates `D^½ x` the matrix is `I + Z'Z`
//! with packed rows `z_i = √w_i D^-½ y_i`, conjugate gradients (Hestenes and Stiefel, 1952) need
//! nothing but passes over `Z`, and their work does not depend on the size of the other side.

use super::kernels::{self, Panels};
use super::narrow::{self, Narrow};
use super::side::{Entries, Side};
use crate::matrix::{Aligned, eigen};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Conjugate-gradient steps an entity gets in a half-sweep. Where this was chosen, twenty steps end a
/// run within two millionths of the same objective, and two steps up to a thousandth above it.
pub(super) const STEPS: usize = 3;

/// An entity is solved once a step can lower the objective by no more than this share of the entity's
/// weights. In whitened coordinates no eigenvalue is below 1, so that share is at most `|residual|²`.
const NEGLIGIBLE: f32 = 1e-8;

/// Numbers that a thread keeps packed; an entity with more is gathered again in every pass, so that
/// scratch stays below 16 MB a thread.
pub(super) const PACKED: usize = 1 << 22;

/// Rows gathered before the first pass reads them, while they are in the first-level cache.
const FRESH_ROWS: usize = 32;

/// Rows of the partial Gram matrices, independent of the number of threads.
const GRAM_CHUNK: usize = 4096;

/// How a half-sweep solves.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    /// Numbers in a factor.
    pub(super) rank: usize,
    /// `rank`, padded to whole vectors.
    pub(super) dim: usize,
    /// The weight of every pair's pull towards zero.
    pub(super) unobserved_weight: f64,
    /// Factors move by this share of the way to the solution: 1 is plain, 2 or more diverges.
    pub(super) relaxation: f32,
}

/// What a half-sweep leaves behind for the objective, summed over the solved side.
#[derive(Clone, Copy, Default)]
pub(super) struct Parts {
    /// `Σ w (1 - x.y)²` over the observed.
    pub(super) observed: f64,
    /// `Σ (x.y)²` over all pairs.
    pub(super) all: f64,
    /// `Σ λ |x|²`.
    pub(super) regularization: f64,
}

/// Solves `solved` for `fixed`; both are turned into the axes of `fixed`. None if a number overflowed.
pub(super) fn half(
    side: &Side<'_>,
    fixed: &mut [f32],
    solved: &mut [f32],
    settings: Settings,
) -> Option<Parts> {
    let Settings { rank, dim, .. } = settings;
    let gram = gram(fixed, dim);
    let mut leading = Vec::with_capacity(rank * rank);
    for row in gram.chunks_exact(dim).take(rank) {
        leading.extend_from_slice(&row[..rank]);
    }
    let axes = eigen::decompose(leading, rank)?;
    let mut turn = vec![0f32; dim * dim];
    for (k, axis) in axes.vectors.chunks_exact(rank).enumerate() {
        for (i, &value) in axis.iter().enumerate() {
            turn[i * dim + k] = value as f32;
        }
    }
    let turn = Panels::new(&turn, dim);
    let turn = |rows: &mut [f32], scratch: &mut Vec<f32>| turn.multiply_in_place(rows, scratch);
    solved.par_chunks_mut(narrow::CHUNK * dim).for_each_init(Vec::new, |scratch, rows| turn(rows, scratch));
    let narrow = Narrow::of(fixed, dim, turn);
    let fixed = &narrow;
    let mut spread: Vec<f32> = axes.values.iter().map(|&value| value.max(0.0) as f32).collect();
    spread.resize(dim, 0.0);

    let mut rest = solved;
    let mut tasks = Vec::with_capacity(side.chunks.len());
    for chunk in &side.chunks {
        let (rows, after) = rest.split_at_mut(chunk.len() * dim);
        tasks.push((chunk.clone(), rows));
        rest = after;
    }
    let parts: Vec<Parts> = tasks
        .into_par_iter()
        .with_max_len(1)
        .map_init(
            || (Entries::default(), Scratch::new(dim)),
            |(entries, scratch), (chunk, rows)| {
                let solver = Solver { side, fixed, spread: &spread, settings, chunk, rows, entries, scratch };
                Arch::new().dispatch(solver)
            },
        )
        .collect();
    narrow.restore();
    let mut sum = Parts::default();
    for part in parts {
        sum.observed += part.observed;
        sum.all += part.all;
        sum.regularization += part.regularization;
    }
    (sum.observed + sum.all + sum.regularization).is_finite().then_some(sum)
}

/// `rows' rows`, both triangles.
fn gram(rows: &[f32], dim: usize) -> Vec<f64> {
    let partial: Vec<Vec<f64>> = rows
        .par_chunks(GRAM_CHUNK * dim)
        .map(|rows| {
            let mut sum = vec![0f64; dim * dim];
            kernels::add_gram(rows, dim, &mut sum);
            sum
        })
        .collect();
    let mut gram = vec![0f64; dim * dim];
    for partial in partial {
        gram.iter_mut().zip(partial).for_each(|(sum, part)| *sum += part);
    }
    for i in 0..dim {
        for j in 0..i {
            gram[i * dim + j] = gram[j * dim + i];
        }
    }
    gram
}

/// What one thread needs to solve one entity after another without allocating.
struct Scratch {
    packed: Aligned<f32>,
    /// `Z x` and `Z p`, as long as the longest row seen.
    fitted: Vec<f32>,
    along: Vec<f32>,
    scale: Aligned<f32>,
    unscale: Vec<f32>,
    x: Aligned<f32>,
    residual: Aligned<f32>,
    direction: Aligned<f32>,
    image: Aligned<f32>,
}

impl Scratch {
    fn new(dim: usize) -> Self {
        let vector = || Aligned::new(dim, 0f32);
        Self {
            packed: Aligned::new(0, 0.0),
            fitted: Vec::new(),
            along: Vec::new(),
            scale: vector(),
            unscale: vec![0f32; dim],
            x: vector(),
            residual: vector(),
            direction: vector(),
            image: vector(),
        }
    }
}

struct Solver<'a> {
    side: &'a Side<'a>,
    fixed: &'a Narrow<'a>,
    spread: &'a [f32],
    settings: Settings,
    chunk: std::ops::Range<usize>,
    rows: &'a mut [f32],
    entries: &'a mut Entries,
    scratch: &'a mut Scratch,
}

impl WithSimd for Solver<'_> {
    type Output = Parts;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Parts {
        let Self { side, fixed, spread, settings, chunk, rows, entries, scratch } = self;
        let Settings { dim, relaxation, .. } = settings;
        let unobserved_weight = settings.unobserved_weight as f32;
        let mut parts = Parts::default();
        let mut scaled_for = f32::NAN;
        side.read(chunk.clone(), entries);
        let (mut indices, mut roots) = (&entries.indices[..], &entries.roots[..]);
        for (at, row) in chunk.zip(rows.chunks_exact_mut(dim)) {
            let regularization = side.regularization[at];
            if regularization != scaled_for {
                scaled_for = regularization;
                for ((scale, unscale), spread) in
                    scratch.scale.get_mut().iter_mut().zip(&mut scratch.unscale).zip(spread)
                {
                    *unscale = (unobserved_weight * spread + regularization).sqrt();
                    *scale = 1.0 / *unscale;
                }
            }
            let (own, after) = roots.split_at(side.n_entries(at));
            scratch.solve(simd, fixed, indices, own, relaxation, row);
            parts.all += f64::from(kernels::weighted_square(simd, row, spread));
            parts.regularization += f64::from(regularization) * f64::from(kernels::dot(simd, row, row));
            parts.observed += f64::from(kernels::distance(simd, own, &scratch.fitted[..own.len()]));
            (indices, roots) = (&indices[own.len()..], after);
        }
        parts
    }
}

impl Scratch {
    /// Conjugate gradients from the entity's last factor, in the coordinates where `D` is the identity. `indices` goes
    /// on with those of the entities after it, whose rows are asked for.
    #[inline(always)]
    fn solve<S: Simd>(
        &mut self,
        simd: S,
        fixed: &Narrow<'_>,
        indices: &[u32],
        roots: &[f32],
        relaxation: f32,
        row: &mut [f32],
    ) {
        let (dim, n) = (row.len(), roots.len());
        let keep = n * dim <= PACKED;
        let packed_rows = if keep { n } else { FRESH_ROWS };
        if self.fitted.len() < n {
            self.fitted.resize(n, 0.0);
            self.along.resize(n, 0.0);
        }
        if self.packed.get().len() < packed_rows * dim {
            self.packed = Aligned::new(packed_rows * dim, 0.0);
        }
        let Self { packed: all_packed, fitted, along, scale, unscale, x, residual, direction, image } = self;
        let (all_packed, scale, x) = (all_packed.get_mut(), scale.get(), x.get_mut());
        let (residual, direction, image) = (residual.get_mut(), direction.get_mut(), image.get_mut());
        for ((x, &value), &unscale) in x.iter_mut().zip(&*row).zip(&*unscale) {
            *x = value * unscale;
        }
        for (residual, &x) in residual.iter_mut().zip(&*x) {
            *residual = -x;
        }
        for from in (0..n).step_by(FRESH_ROWS) {
            let block = from..(from + FRESH_ROWS).min(n);
            let slot = if keep { from * dim } else { 0 };
            let packed = &mut all_packed[slot..slot + block.len() * dim];
            pack(fixed, &indices[from..], &roots[block.clone()], scale, packed);
            kernels::normal_pass::<S, true>(
                simd,
                packed,
                &roots[block.clone()],
                &*x,
                &mut fitted[block],
                residual,
            );
        }
        direction.copy_from_slice(&*residual);
        let mut size = kernels::dot(simd, &*residual, &*residual);
        let negligible = NEGLIGIBLE * kernels::square(simd, roots);
        for step in 1..=STEPS {
            if size <= negligible {
                break;
            }
            image.copy_from_slice(&*direction);
            let wide = if keep { n } else { FRESH_ROWS };
            for from in (0..n).step_by(wide) {
                let block = from..(from + wide).min(n);
                let packed = &mut all_packed[..block.len() * dim];
                if !keep {
                    pack(fixed, &indices[from..], &roots[block.clone()], scale, packed);
                }
                let along = &mut along[block.clone()];
                if step == STEPS {
                    kernels::products(simd, packed, &*direction, along);
                } else {
                    let roots = &roots[block];
                    kernels::normal_pass::<S, false>(simd, packed, roots, &*direction, along, image);
                }
            }
            // The last step's image is not asked for: `p (I + Z'Z) p = |p|² + |Z p|²`.
            let curvature = if step == STEPS {
                kernels::square(simd, &*direction) + kernels::square(simd, &along[..n])
            } else {
                kernels::dot(simd, &*direction, &*image)
            };
            let exact = size / curvature;
            let stride = relaxation * exact;
            kernels::add_scaled(simd, stride, &*direction, x);
            for (fitted, &along) in fitted[..n].iter_mut().zip(&*along) {
                *fitted += stride * along;
            }
            if step == STEPS {
                break;
            }
            kernels::add_scaled(simd, -exact, &*image, residual);
            let next = kernels::dot(simd, &*residual, &*residual);
            let keep_share = next / size;
            for (direction, &residual) in direction.iter_mut().zip(&*residual) {
                *direction = residual + keep_share * *direction;
            }
            size = next;
        }
        for ((value, &x), &scale) in row.iter_mut().zip(&*x).zip(scale) {
            *value = x * scale;
        }
    }
}

/// Rows asked for ahead of the one that is gathered: they lie anywhere, and no hardware guesses where.
const AHEAD: usize = 12;

/// Gathers the other side's rows into one block that stays in cache for every later pass.
#[inline(always)]
fn pack(fixed: &Narrow<'_>, indices: &[u32], roots: &[f32], scale: &[f32], packed: &mut [f32]) {
    let packed = packed.chunks_exact_mut(scale.len());
    for (at, ((&index, &root), packed)) in indices.iter().zip(roots).zip(packed).enumerate() {
        if let Some(&ahead) = indices.get(at + AHEAD) {
            fixed.prefetch(ahead);
        }
        fixed.scale_into(index, root, scale, packed);
    }
}
