//! Inner products, written once over [`pulp::Simd`] and compiled for every instruction set.
//!
//! A register tile is a panel of items, as wide as two or three vectors, by a handful of queries. Every
//! lane is one pair's own chain of fused steps in column order, so that neither the tile's shape nor
//! the place in it can change a bit of a score.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd, bytemuck};

use super::block::{Bound, Query};
use super::items::{Order, Packed};
use crate::matrix::Dense;
use crate::matrix::kernels::CHAINS;

/// The register tile of an instruction set.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) panel_items: usize,
    pub(super) tile_queries: usize,
}

pub(super) fn shape(arch: Arch) -> Shape {
    arch.dispatch(ShapeOf)
}

/// Tiles that fill 32 registers, or 16: vectors of items, queries.
const WIDE: (usize, usize) = (3, 8);
const NARROW: (usize, usize) = (2, 6);

struct ShapeOf;

impl WithSimd for ShapeOf {
    type Output = Shape;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Shape {
        let (vectors, tile_queries) = if S::REGISTER_COUNT >= 32 { WIDE } else { NARROW };
        Shape { panel_items: vectors * S::F32_LANES, tile_queries }
    }
}

/// Query rows tile after tile; a tile is column after column, a value per query; the absent queries of the
/// last tile are zero.
pub(super) fn packed_queries(queries: &Dense, rows: Range<usize>, tile: usize) -> Vec<f32> {
    let mut values = vec![0f32; rows.len().div_ceil(tile) * tile * queries.n_cols()];
    for (at, row) in rows.enumerate() {
        let first = at / tile * tile * queries.n_cols() + at % tile;
        for (column, &value) in queries.row(row).iter().enumerate() {
            values[first + column * tile] = value;
        }
    }
    values
}

/// Offers every query all inner products that come up to its threshold; returns how many were computed.
pub(super) fn scan(
    order: &Order<'_>,
    packed: &Packed,
    values: &[f32],
    bound: &Bound,
    queries: &mut [Query<'_>],
) -> u64 {
    order.arch.dispatch(Scan { order, packed, values, bound, queries })
}

struct Scan<'a, 'q> {
    order: &'a Order<'a>,
    packed: &'a Packed,
    values: &'a [f32],
    bound: &'a Bound,
    queries: &'a mut [Query<'q>],
}

impl WithSimd for Scan<'_, '_> {
    type Output = u64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> u64 {
        if S::REGISTER_COUNT >= 32 {
            scan_tiles::<S, { WIDE.0 }, { WIDE.1 }>(simd, self)
        } else {
            scan_tiles::<S, { NARROW.0 }, { NARROW.1 }>(simd, self)
        }
    }
}

/// Queries that share a register tile.
struct Tile<const ROWS: usize> {
    at: usize,
    thresholds: [f32; ROWS],
    /// Per query, the norm below which no item reaches its threshold; and the least of them.
    reaches: [f64; ROWS],
    reach: f64,
    /// The first position at which a query has a sparse score to come.
    next_sparse: u32,
}

/// Columns that are multiplied in one go: a panel's share of them, and a tile's, stay in the first-level
/// cache while all tiles pass; chains are put down and taken up between.
const COLUMNS: usize = 192;

#[inline(always)]
fn scan_tiles<S: Simd, const VECTORS: usize, const ROWS: usize>(simd: S, scan: Scan<'_, '_>) -> u64 {
    let Scan { order, packed, values, bound, queries } = scan;
    let tile_len = values.len() / queries.len().div_ceil(ROWS);
    let n_columns = tile_len / ROWS;
    let zeros = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    let mut tiles: Vec<Tile<ROWS>> = Vec::with_capacity(queries.len().div_ceil(ROWS));
    for (at, members) in queries.chunks(ROWS).enumerate() {
        let (thresholds, reaches) = ([f32::INFINITY; ROWS], [f64::INFINITY; ROWS]);
        let mut tile = Tile { at, thresholds, reaches, reach: 0.0, next_sparse: 0 };
        refresh(&mut tile, members, bound);
        tiles.push(tile);
    }
    let mut unfinished = if n_columns > COLUMNS { vec![zeros; tiles.len()] } else { Vec::new() };
    let mut n_scored = 0;
    for (panel_at, &norm) in packed.panel_norms.iter().enumerate() {
        let from = panel_at * VECTORS * S::F32_LANES;
        let to = order.len().min(from + VECTORS * S::F32_LANES);
        let items = &order.items[from..to];
        let (panel, _) = S::as_simd_f32s(packed.panel(panel_at));
        let (panel, _) = panel.as_chunks::<VECTORS>();
        let mut live = 0;
        for at in 0..tiles.len() {
            if norm >= tiles[at].reach {
                tiles.swap(live, at);
                live += 1;
            }
        }
        tiles.truncate(live);
        if tiles.is_empty() {
            break;
        }
        let mut done = 0;
        loop {
            let next = n_columns.min(done + COLUMNS);
            for (slot, tile) in tiles.iter_mut().enumerate() {
                let (columns, _) = values[tile.at * tile_len..(tile.at + 1) * tile_len].as_chunks::<ROWS>();
                let mut sums = zeros;
                if done > 0 {
                    sums = unfinished[slot];
                }
                let sums = add_products(simd, sums, &panel[done..next], &columns[done..next]);
                if next < n_columns {
                    unfinished[slot] = sums;
                    continue;
                }
                let first = tile.at * ROWS;
                let members = first..queries.len().min(first + ROWS);
                n_scored += (items.len() * members.len()) as u64;
                if (tile.next_sparse as usize) < to || reaches_any(simd, &sums, &tile.thresholds) {
                    let members = &mut queries[members];
                    if offer_tile(simd, &sums, &tile.thresholds, from, items, members) {
                        refresh(tile, members, bound);
                    }
                }
            }
            done = next;
            if done == n_columns {
                break;
            }
        }
    }
    n_scored
}

/// Carries every chain of a tile on through some columns.
#[inline(always)]
fn add_products<S: Simd, const VECTORS: usize, const ROWS: usize>(
    simd: S,
    mut sums: [[S::f32s; VECTORS]; ROWS],
    panel: &[[S::f32s; VECTORS]],
    columns: &[[f32; ROWS]],
) -> [[S::f32s; VECTORS]; ROWS] {
    for (items, queries) in panel.iter().zip(columns) {
        for (sums, &query) in sums.iter_mut().zip(queries) {
            let query = simd.splat_f32s(query);
            for (sum, &item) in sums.iter_mut().zip(items) {
                *sum = simd.mul_add_f32s(query, item, *sum);
            }
        }
    }
    sums
}

/// Whether a product is not below its query's threshold; NaN is below nothing.
#[inline(always)]
fn reaches_any<S: Simd, const VECTORS: usize, const ROWS: usize>(
    simd: S,
    sums: &[[S::f32s; VECTORS]; ROWS],
    thresholds: &[f32; ROWS],
) -> bool {
    let zero = simd.splat_f32s(0.0);
    let mut below = simd.less_than_or_equal_f32s(zero, zero);
    for (sums, &threshold) in sums.iter().zip(thresholds) {
        let threshold = simd.splat_f32s(threshold);
        for &sum in sums {
            below = simd.and_m32s(below, simd.less_than_f32s(sum, threshold));
        }
    }
    bits(simd, below) != bits(simd, simd.less_than_or_equal_f32s(zero, zero))
}

/// Offers what comes up to the thresholds, and what has a sparse score; says whether the tile needs a
/// refresh.
#[inline(always)]
fn offer_tile<S: Simd, const VECTORS: usize, const ROWS: usize>(
    simd: S,
    sums: &[[S::f32s; VECTORS]; ROWS],
    thresholds: &[f32; ROWS],
    from: usize,
    items: &[u32],
    queries: &mut [Query<'_>],
) -> bool {
    let listed = u64::MAX >> (64 - items.len());
    let mut moved = false;
    for ((sums, &threshold), query) in sums.iter().zip(thresholds).zip(queries) {
        let threshold = simd.splat_f32s(threshold);
        let mut below = 0;
        for (at, &sum) in sums.iter().enumerate() {
            below |= bits(simd, simd.less_than_f32s(sum, threshold)) << (at * S::F32_LANES);
        }
        let products: &[f32] = bytemuck::cast_slice(sums);
        let taken = query.take_sparse(from, items, products);
        moved |= taken != 0;
        let mut reached = !below & listed & !taken;
        while reached != 0 {
            let lane = reached.trailing_zeros() as usize;
            reached &= reached - 1;
            moved |= query.offer(items[lane], products[lane]);
        }
    }
    moved
}

#[inline(always)]
fn refresh<const ROWS: usize>(tile: &mut Tile<ROWS>, queries: &[Query<'_>], bound: &Bound) {
    tile.reach = f64::INFINITY;
    tile.next_sparse = u32::MAX;
    for ((threshold, reach), query) in tile.thresholds.iter_mut().zip(&mut tile.reaches).zip(queries) {
        if *threshold != query.threshold() {
            *threshold = query.threshold();
            *reach = query.reach(bound);
        }
        tile.reach = tile.reach.min(*reach);
        tile.next_sparse = tile.next_sparse.min(query.next_sparse());
    }
}

/// A mask's lanes, the first in the lowest bit.
#[inline(always)]
fn bits<S: Simd>(simd: S, mask: S::m32s) -> u64 {
    if const { size_of::<S::m32s>() == size_of::<u16>() } {
        return u64::from(bytemuck::cast::<S::m32s, u16>(mask));
    }
    let lanes = simd.select_u32s(mask, simd.splat_u32s(1), simd.splat_u32s(0));
    let lanes: &[u32] = bytemuck::cast_slice(std::slice::from_ref(&lanes));
    lanes.iter().enumerate().fold(0, |bits, (at, &lane)| bits | u64::from(lane) << at)
}

/// The inner products of one query and some items, the same bits as in a tile.
pub(super) fn products(order: &Order<'_>, query: &[f32], some: &[u32]) -> Vec<f32> {
    let mut products = Vec::with_capacity(some.len().next_multiple_of(CHAINS));
    for some in some.chunks(CHAINS) {
        let mut rows = [query; CHAINS];
        for (row, &item) in rows.iter_mut().zip(some) {
            *row = order.rows.row(item as usize);
        }
        products.extend_from_slice(&order.chains.products(query, rows)[..some.len()]);
    }
    products
}
