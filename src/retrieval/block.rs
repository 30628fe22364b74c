//! One block of queries against the whole catalogue, on the calling thread.

use std::ops::Range;

use super::best::Best;
use super::items::{ABSENT, Order, Packed};
use super::{Error, Request, kernel};

/// The lists of a block's queries.
pub(super) struct Found {
    pub(super) lists: Vec<Vec<(u32, f32)>>,
    pub(super) n_scored: u64,
    /// Pairs that a screen let pass.
    pub(super) n_candidates: u64,
}

/// One query on its way through the catalogue.
pub(super) struct Query<'a> {
    best: Best,
    /// Ascending items that it must not list.
    seen: &'a [u32],
    /// Packed positions, ascending, of the items that have a sparse score and may be listed, and that score.
    sparse: Vec<(u32, f32)>,
    /// How many of them have been taken.
    n_taken: usize,
    itself: Option<u32>,
    norm: f64,
    /// Some inner product may leave the range of f32, so every one is looked at.
    may_overflow: bool,
    /// The first score found that is not finite.
    fault: Option<(u32, f32)>,
}

/// What a block should stay within: the rows that amortise reading a panel from memory, the values of
/// packed queries that leave room in a second-level cache, and the candidates, most of them rarely touched.
const BLOCK_ROWS: usize = 256;
const BLOCK_VALUES: usize = 1 << 17;
const BLOCK_CANDIDATES: usize = 1 << 18;

/// So many queries make a block: large enough that a panel read from memory serves many of them, small
/// enough that each thread gets several.
pub(super) fn rows_a_block(request: &Request<'_>, order: &Order<'_>, packed: &Packed) -> usize {
    let tile = packed.shape.tile_queries;
    let by_cache = BLOCK_ROWS
        .min(BLOCK_VALUES / request.queries.n_cols().max(1))
        .min(BLOCK_CANDIDATES / (2 * request.top_k.min(order.len())).max(1));
    let by_threads = request.queries.n_rows() / (4 * rayon::current_num_threads());
    (by_cache.min(by_threads) / tile).max(1) * tile
}

/// Finds the lists of the queries in `rows`.
pub(super) fn search(
    request: &Request<'_>,
    order: &Order<'_>,
    packed: &Packed,
    norms: &[f64],
    rows: Range<usize>,
) -> Result<Found, Error> {
    let k = request.top_k.min(order.len());
    if k == 0 {
        return Ok(Found { lists: vec![Vec::new(); rows.len()], n_scored: 0, n_candidates: 0 });
    }
    let bound = Bound::new(request.queries.n_cols());
    let largest = packed.panel_norms[0];
    let mut queries: Vec<Query<'_>> = rows
        .clone()
        .map(|at| {
            let norm = norms[at];
            Query {
                best: Best::new(k),
                seen: request.seen.map_or(&[], |seen| seen.row(at).0),
                sparse: Vec::new(),
                n_taken: 0,
                itself: request.exclude_self.then_some(at as u32),
                norm,
                may_overflow: bound.of(norm, largest) >= f64::from(f32::MAX),
                fault: None,
            }
        })
        .collect();
    if let Some(sparse) = request.sparse {
        for (query, at) in queries.iter_mut().zip(rows.clone()) {
            query.place_sparse(order, sparse.row(at));
        }
    }
    let values = kernel::packed_queries(request.queries, rows.clone(), packed.shape.tile_queries);
    let mut n_scored = kernel::scan(order, packed, &values, &bound, &mut queries);
    for (query, at) in queries.iter_mut().zip(rows.clone()) {
        n_scored += query.take_rest(order, packed, &bound, request.queries.row(at));
    }
    let lists = queries
        .into_iter()
        .zip(rows)
        .map(|(query, at)| match query.fault {
            Some((item, score)) => Err(Error::Score { query: at, item, score }),
            None => Ok(query.best.into_list()),
        })
        .collect::<Result<_, _>>()?;
    Ok(Found { lists, n_scored, n_candidates: 0 })
}

impl Query<'_> {
    fn place_sparse(&mut self, order: &Order<'_>, (items, added): (&[u32], &[f32])) {
        for (&item, &added) in items.iter().zip(added) {
            let position = order.positions[item as usize];
            if position != ABSENT && self.may_list(item) {
                self.sparse.push((position, added));
            }
        }
        self.sparse.sort_unstable_by_key(|entry| entry.0);
    }

    /// Where the next item with a sparse score lies, past every position if there is none.
    pub(super) fn next_sparse(&self) -> u32 {
        self.sparse.get(self.n_taken).map_or(ABSENT, |entry| entry.0)
    }

    /// Takes the scores of those items of a panel that have a sparse score; returns them as bits.
    #[inline]
    pub(super) fn take_sparse(&mut self, from: usize, items: &[u32], products: &[f32]) -> u64 {
        let mut taken = 0;
        while let Some(&(position, added)) = self.sparse.get(self.n_taken) {
            let lane = position as usize - from;
            if lane >= items.len() {
                break;
            }
            taken |= 1 << lane;
            self.n_taken += 1;
            self.take(items[lane], products[lane] + added);
        }
        taken
    }

    /// Takes the sparse scores beyond the panel where the scan ended, unless the bound rules them out;
    /// returns how many inner products that took.
    fn take_rest(&mut self, order: &Order<'_>, packed: &Packed, bound: &Bound, row: &[f32]) -> u64 {
        let norm_at = |position: u32| packed.panel_norms[position as usize / packed.shape.panel_items];
        let threshold = self.threshold();
        let rest = scores_of_rest(order, row, &self.sparse[self.n_taken..], |position, added| {
            bound.may_count(self.norm, norm_at(position), added, threshold)
        });
        for &(position, score) in &rest {
            self.take(order.items[position as usize], score);
        }
        rest.len() as u64
    }

    /// Takes the inner product with an item where that is the score and may be listed; says whether the
    /// threshold moved.
    #[inline]
    pub(super) fn offer(&mut self, item: u32, product: f32) -> bool {
        let counts = !product.is_finite() || self.best.reaches(item, product);
        counts && self.may_list(item) && self.take(item, product)
    }

    fn take(&mut self, item: u32, score: f32) -> bool {
        if score.is_finite() {
            return self.best.offer(item, score);
        }
        self.fault.get_or_insert((item, score));
        false
    }

    fn may_list(&self, item: u32) -> bool {
        self.itself != Some(item) && self.seen.binary_search(&item).is_err()
    }

    /// Inner products below this need not be offered.
    pub(super) fn threshold(&self) -> f32 {
        if self.may_overflow { f32::NEG_INFINITY } else { self.best.threshold() }
    }

    /// No inner product with an item of a smaller norm comes up to the threshold.
    pub(super) fn reach(&self, bound: &Bound) -> f64 {
        bound.reach(self.norm, f64::from(self.threshold()))
    }
}

/// Positions and scores of the items with a sparse score that `may_count`.
pub(super) fn scores_of_rest(
    order: &Order<'_>,
    row: &[f32],
    rest: &[(u32, f32)],
    may_count: impl Fn(u32, f32) -> bool,
) -> Vec<(u32, f32)> {
    let rest: Vec<(u32, f32)> =
        rest.iter().copied().filter(|&(position, added)| may_count(position, added)).collect();
    let items: Vec<u32> = rest.iter().map(|entry| order.items[entry.0 as usize]).collect();
    let products = kernel::products(order, row, &items);
    rest.iter().zip(products).map(|(&(position, added), product)| (position, product + added)).collect()
}

/// How far the computed inner product may lie from zero, given the two norms.
///
/// The chain of `d` fused steps errs by at most `gamma = d u / (1 - d u)` of `sum_k |q[k] x[k]|`, which
/// is at most `|q| |x|` (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1; `u` is
/// 2^-24), and by half of the smallest subnormal a step where a step underflows.
pub(super) struct Bound {
    slack: f64,
    underflow: f64,
}

impl Bound {
    pub(super) fn new(n_cols: usize) -> Self {
        let relative = n_cols as f64 * 2f64.powi(-24);
        // Above one half the formula fails; so many columns are never pruned. The last term covers the
        // roundings of the norms and of this file in f64.
        let gamma = if relative < 0.5 { 2.0 * relative } else { f64::INFINITY };
        let f64_roundings = (n_cols as f64 + 16.0) * 2f64.powi(-52);
        Self { slack: 1.0 + gamma + f64_roundings, underflow: 2.0 * n_cols as f64 * 2f64.powi(-149) }
    }

    /// The most that `|fl(q . x)|` can be.
    pub(super) fn of(&self, query_norm: f64, item_norm: f64) -> f64 {
        query_norm * item_norm * self.slack + self.underflow
    }

    /// The item norm below which `of` stays under the threshold.
    pub(super) fn reach(&self, query_norm: f64, threshold: f64) -> f64 {
        let room = threshold - self.underflow;
        if room <= 0.0 { 0.0 } else { room / (query_norm * self.slack) }
    }
    /// Whether a score can come up to a threshold, or leave the range of f32.
    pub(super) fn may_count(&self, query_norm: f64, item_norm: f64, added: f32, threshold: f32) -> bool {
        let most = self.of(query_norm, item_norm);
        // Rounding keeps order, so what lies below the threshold as a bound does so as a score.
        let below = ((most + f64::from(added)) as f32) < threshold;
        !(below && ((f64::from(added) - most) as f32).is_finite())
    }

    /// How far the computed inner product may lie from the real one, as a share of the two norms' product
    /// and beyond it.
    pub(super) fn relative(&self) -> f64 {
        self.slack - 1.0
    }

    pub(super) fn underflow(&self) -> f64 {
        self.underflow
    }
}
