//! One block of queries against the catalogue in bytes, on the calling thread.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::best::{Best, above, below, number, ordered};
use super::block::{self, Bound, Found};
use super::items::{ABSENT, Order};
use super::screen::{Bytes, Facts, GROUP, ROUNDINGS, step_of, steps_of};
use super::{Request, kernel};
use crate::matrix::kernels::{Floors, Hits, QUERIES, ROWS};

/// One query on its way through the catalogue.
struct Query {
    k: usize,
    /// Per candidate the least that its score can be, as an integer that orders like it; the most; and its
    /// position.
    least: Vec<i32>,
    most: Vec<f32>,
    positions: Vec<u32>,
    /// At how many candidates they are cut next.
    cut_at: usize,
    /// The list's last score is at least this.
    threshold: f32,
    step: f64,
    /// Steps a unit.
    per_unit: f64,
    norm: f64,
    /// A pair's error is at most `by_norm * (a panel's norm) + by_error * (its error) + underflow`.
    by_norm: f64,
    by_error: f64,
    underflow: f64,
    /// What the items' zero of 128 adds to a sum.
    offset: i32,
    /// Positions, ascending, of items not to be listed.
    hidden: Vec<u32>,
    n_hidden: usize,
    /// Positions, ascending, of items that have a sparse score and may be listed, and that score.
    sparse: Vec<(u32, f32)>,
    n_taken: usize,
    n_candidates: u64,
}

/// Queries that share a tile.
struct Tile {
    at: usize,
    floors: Floors,
    /// The norm below which no item reaches a threshold.
    reach: f64,
    /// The first position at which a query has a sparse score to come.
    next_sparse: u32,
}

/// Rows that amortise reading a panel from memory.
const BLOCK_ROWS: usize = 256;

/// Cuts the next queries off: few enough that each thread gets several blocks.
pub(super) fn rows_a_block(request: &Request<'_>) -> usize {
    let by_threads = request.queries.n_rows() / (4 * rayon::current_num_threads());
    (BLOCK_ROWS.min(by_threads) / QUERIES).max(1) * QUERIES
}

/// Finds the lists of the queries in `rows`.
pub(super) fn search(request: &Request<'_>, bytes: &Bytes<'_>, rows: Range<usize>) -> Found {
    let order = &bytes.order;
    let bound = Bound::new(request.queries.n_cols());
    let k = request.top_k.min(order.len());
    if k == 0 {
        return Found { lists: vec![Vec::new(); rows.len()], n_scored: 0, n_candidates: 0 };
    }
    let mut values = vec![0i8; rows.len().div_ceil(QUERIES) * QUERIES * GROUP * bytes.n_groups];
    let tile_len = QUERIES * GROUP * bytes.n_groups;
    let place = |(slot, at): (usize, usize)| {
        let tile = &mut values[slot / QUERIES * tile_len..][..tile_len];
        let mut query = Query::new(k, &bound, request.queries.row(at), &bytes.by_query, |column, steps| {
            tile[column / GROUP * QUERIES * GROUP + slot % QUERIES * GROUP + column % GROUP] = steps;
        });
        query.place(request, order, at);
        query
    };
    let mut queries: Vec<Query> = rows.clone().enumerate().map(place).collect();
    let n_scored = scan(bytes, &values, &bound, &mut queries);
    let mut found = Found { lists: Vec::with_capacity(rows.len()), n_scored, n_candidates: 0 };
    for (mut query, at) in queries.into_iter().zip(rows) {
        let row = request.queries.row(at);
        found.n_scored += query.take_rest(bytes, &bound, row);
        found.n_candidates += query.n_candidates;
        found.lists.push(query.list(order, row));
    }
    found
}

fn scan(bytes: &Bytes<'_>, values: &[i8], bound: &Bound, queries: &mut [Query]) -> u64 {
    let tile_len = QUERIES * GROUP * bytes.n_groups;
    let mut tiles: Vec<Tile> =
        queries.chunks(QUERIES).enumerate().map(|(at, some)| Tile::new(at, some, bound)).collect();
    let mut hits = Hits::new();
    let mut n_scored = 0;
    for (panel_at, facts) in bytes.panels.iter().enumerate() {
        let panel = bytes.panel(panel_at);
        let from = panel_at * ROWS;
        let n_here = ROWS.min(bytes.order.len() - from);
        let listed = u64::MAX >> (64 - n_here);
        tiles.retain(|tile| facts.norm >= tile.reach);
        if tiles.is_empty() {
            break;
        }
        for tile in &mut tiles {
            let members = tile.at * QUERIES..queries.len().min((tile.at + 1) * QUERIES);
            n_scored += (n_here * members.len()) as u64;
            let always = (tile.next_sparse as usize) < from + n_here;
            let row = &values[tile.at * tile_len..(tile.at + 1) * tile_len];
            if !bytes.dots.hit(panel, row, &tile.floors, always, &mut hits) {
                continue;
            }
            let mut moved = always;
            for (slot, query) in queries[members.clone()].iter_mut().enumerate() {
                moved |=
                    query.take(bytes.order.arch, facts, from, &hits.sums[slot], hits.rows[slot] & listed);
            }
            if moved {
                *tile = Tile::new(tile.at, &queries[members], bound);
            }
        }
    }
    n_scored
}

impl Tile {
    fn new(at: usize, queries: &[Query], bound: &Bound) -> Self {
        // No sum comes up to an endless floor.
        let mut floors = Floors {
            room: [f64::INFINITY; QUERIES],
            by_norm: [0.0; QUERIES],
            by_error: [0.0; QUERIES],
            offset: [0.0; QUERIES],
        };
        let (mut reach, mut next_sparse) = (f64::INFINITY, ABSENT);
        for (slot, query) in queries.iter().enumerate() {
            let threshold = f64::from(query.threshold);
            floors.room[slot] = (threshold - query.underflow) * query.per_unit;
            floors.by_norm[slot] = query.by_norm * query.per_unit;
            floors.by_error[slot] = query.by_error * query.per_unit;
            floors.offset[slot] = f64::from(query.offset);
            reach = reach.min(bound.reach(query.norm, threshold));
            next_sparse = next_sparse.min(query.sparse.get(query.n_taken).map_or(ABSENT, |entry| entry.0));
        }
        Self { at, floors, reach, next_sparse }
    }
}

impl Query {
    /// Rounds a row, its columns multiplied by `scales`; `write` takes each column's steps.
    fn new(k: usize, bound: &Bound, row: &[f32], scales: &[f64], mut write: impl FnMut(usize, i8)) -> Self {
        let scaled = || row.iter().zip(scales).map(|(q, by)| f64::from(*q) * by);
        let step = step_of(scaled().fold(0.0, |most: f64, q| most.max(q.abs())));
        let per_unit = 1.0 / step;
        let (mut missed, mut norm, mut kept, mut sum) = (0f64, 0f64, 0i64, 0i32);
        for (column, q) in scaled().enumerate() {
            let steps = steps_of(q, per_unit);
            write(column, steps as i8);
            missed += (q - step * f64::from(steps)).powi(2);
            norm += q * q;
            kept += i64::from(steps).pow(2);
            sum += i32::from(steps);
        }
        let norm = norm.sqrt() * (1.0 + ROUNDINGS);
        let length = step * (kept as f64).sqrt() * (1.0 + ROUNDINGS);
        let by_norm = (missed.sqrt() + bound.relative() * norm + ROUNDINGS * length) * (1.0 + ROUNDINGS);
        Self {
            k,
            least: Vec::new(),
            most: Vec::new(),
            positions: Vec::new(),
            cut_at: 2 * k,
            // Where every product is zero there is nothing to screen.
            threshold: if norm > 0.0 { f32::NEG_INFINITY } else { f32::INFINITY },
            step,
            per_unit,
            norm,
            by_norm,
            by_error: length,
            underflow: bound.underflow(),
            offset: sum * 128,
            hidden: Vec::new(),
            n_hidden: 0,
            sparse: Vec::new(),
            n_taken: 0,
            n_candidates: 0,
        }
    }

    /// Finds where the items lie that the query must not list, and those with a sparse score.
    fn place(&mut self, request: &Request<'_>, order: &Order<'_>, at: usize) {
        let seen = request.seen.map_or(&[][..], |seen| seen.row(at).0);
        let itself = request.exclude_self.then_some(at as u32);
        let hidden = seen.iter().copied().chain(itself);
        self.hidden = hidden
            .map(|item| order.positions[item as usize])
            .filter(|position| *position != ABSENT)
            .collect();
        self.hidden.sort_unstable();
        let Some(sparse) = request.sparse else { return };
        let (items, added) = sparse.row(at);
        for (&item, &added) in items.iter().zip(added) {
            let position = order.positions[item as usize];
            if position != ABSENT && self.hidden.binary_search(&position).is_err() {
                self.sparse.push((position, added));
            }
        }
        self.sparse.sort_unstable_by_key(|entry| entry.0);
    }

    fn error(&self, facts: &Facts) -> f64 {
        self.by_norm * facts.norm + self.by_error * facts.error + self.underflow
    }

    /// Takes a panel's items that hit, and those with a sparse score; says whether the threshold moved.
    #[inline]
    fn take(&mut self, arch: Arch, facts: &Facts, from: usize, sums: &[i32; ROWS], mut hit: u64) -> bool {
        let to = from + ROWS;
        if self.sparse.get(self.n_taken).is_none_or(|entry| entry.0 as usize >= to) && hit == 0 {
            return false;
        }
        let (scale, error) = (self.step * facts.step, self.error(facts));
        let offset = self.offset;
        let product = |lane: usize| f64::from(sums[lane] - offset) * scale;
        while let Some(&(position, added)) = self.sparse.get(self.n_taken) {
            if position as usize >= to {
                break;
            }
            self.n_taken += 1;
            let lane = position as usize - from;
            hit &= !(1 << lane);
            let score = product(lane) + f64::from(added);
            let most = above(score + error);
            if most >= self.threshold {
                self.push(below(score - error), most, position);
            }
        }
        while let Some(&position) = self.hidden.get(self.n_hidden) {
            if position as usize >= to {
                break;
            }
            self.n_hidden += 1;
            if position as usize >= from {
                hit &= !(1 << (position as usize - from));
            }
        }
        while hit != 0 {
            let lane = hit.trailing_zeros() as usize;
            hit &= hit - 1;
            let score = product(lane);
            self.push(below(score - error), above(score + error), (from + lane) as u32);
        }
        let full = self.least.len() >= self.cut_at;
        if full {
            self.cut(arch);
        }
        full
    }

    fn push(&mut self, least: f32, most: f32, position: u32) {
        self.least.push(ordered(least));
        self.most.push(most);
        self.positions.push(position);
        self.n_candidates += 1;
    }

    /// Raises the threshold to the `k`-th best score that is certain; drops what cannot come up to it.
    fn cut(&mut self, arch: Arch) {
        if self.least.len() < self.k {
            return;
        }
        self.threshold = number(kth(arch, &self.least, self.k));
        let mut kept = 0;
        for at in 0..self.least.len() {
            self.least[kept] = self.least[at];
            self.most[kept] = self.most[at];
            self.positions[kept] = self.positions[at];
            kept += usize::from(self.most[at] >= self.threshold);
        }
        self.least.truncate(kept);
        self.most.truncate(kept);
        self.positions.truncate(kept);
        self.cut_at = 2 * kept;
    }

    /// Takes the sparse scores beyond the panel where the scan ended, unless norms rule them out;
    /// returns how many inner products that took.
    fn take_rest(&mut self, bytes: &Bytes<'_>, bound: &Bound, row: &[f32]) -> u64 {
        let norm_at = |position: u32| bytes.panels[position as usize / ROWS].norm;
        let rest = &self.sparse[self.n_taken..];
        let rest = block::scores_of_rest(&bytes.order, row, rest, |position, added| {
            bound.may_count(self.norm, norm_at(position), added, self.threshold)
        });
        for &(position, score) in &rest {
            self.push(score, score, position);
        }
        rest.len() as u64
    }

    /// Scores what is left, in f32.
    fn list(mut self, order: &Order<'_>, row: &[f32]) -> Vec<(u32, f32)> {
        if self.norm == 0.0 {
            return self.list_of_zeros(order);
        }
        self.cut(order.arch);
        let items: Vec<u32> = self.positions.iter().map(|position| order.items[*position as usize]).collect();
        let products = kernel::products(order, row, &items);
        let mut best = Best::new(self.k);
        for ((position, item), product) in self.positions.into_iter().zip(items).zip(products) {
            let added = self.sparse.binary_search_by_key(&position, |entry| entry.0);
            best.offer(item, added.map_or(product, |at| product + self.sparse[at].1));
        }
        best.into_list()
    }

    /// The list where every product is zero: what sparse scores say, and the first items.
    fn list_of_zeros(self, order: &Order<'_>) -> Vec<(u32, f32)> {
        let mut best = Best::new(self.k);
        for &(position, added) in &self.sparse {
            best.offer(order.items[position as usize], added);
        }
        let others = order.positions.iter().zip(0u32..).filter(|(position, _)| {
            **position != ABSENT
                && self.hidden.binary_search(position).is_err()
                && self.sparse.binary_search_by_key(*position, |entry| entry.0).is_err()
        });
        for (_, item) in others.take(self.k) {
            best.offer(item, 0.0);
        }
        best.into_list()
    }
}

/// The `k`-th largest of some numbers, by bisection: counting is a vector's work, and moves nothing.
fn kth(arch: Arch, numbers: &[i32], k: usize) -> i32 {
    arch.dispatch(Kth { numbers, k })
}

struct Kth<'a> {
    numbers: &'a [i32],
    k: usize,
}

impl WithSimd for Kth<'_> {
    type Output = i32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> i32 {
        let Self { numbers, k } = self;
        let (mut low, mut high) = (i32::MAX, i32::MIN);
        for &number in numbers {
            low = low.min(number);
            high = high.max(number);
        }
        // At least `k` numbers are not below `low`, fewer than `k` are above `high`.
        while low < high {
            let middle = high - ((high.wrapping_sub(low) as u32) / 2) as i32;
            let count: u32 = numbers.iter().map(|number| u32::from(*number >= middle)).sum();
            if count as usize == k {
                // The least of these, or whatever is between it and the next.
                return middle;
            }
            if count as usize > k {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        low
    }
}
