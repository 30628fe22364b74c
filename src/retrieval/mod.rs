//! Exact top-K by inner product over the whole catalogue.
//!
//! In: `items` (`n_items × d`), row-major f32, and which of them may be listed at all (`eligible`), as an
//! [`Index`] that any number of requests share; of each request its `queries` (`n_queries × d`), which pairs may
//! not be listed (`seen`, `exclude_self`), and further scores for some pairs (`sparse`, `n_queries × n_items`).
//! Out: one ragged list per query, best first.
//!
//! **The score** of a pair is `fl(q · x)`, plus the pair's `sparse` value where there is one, in
//! f32. `fl(q · x)` is the chain `s = fma(q[k], x[k], s)` for `k = 0 .. d` from `s = 0`: one rounding
//! a step, in the order of the columns. No block, tile, vector width or thread count enters this
//! definition, so a pair's score has the same bits on every machine, and the lists are a function of
//! the items and the request alone, whatever was asked before.
//!
//! **The order** is score descending, then item index ascending; `-0.0` equals `0.0`.
//!
//! **Invariants.** Filters act before the cut, never after: a list is shorter than `top_k` only when
//! fewer than `top_k` items may be listed, and it is never padded. A list equals the head of the full
//! sort of all scores. A pair that could be listed and whose score is not finite is an error, never a
//! row.
//!
//! **How.** Items are ordered once, largest Euclidean norm first, and cut into panels as wide as a register
//! tile; queries go in blocks, one rayon task each, and this is the only parallel level. A tile of
//! scores is compared with the queries' thresholds while it is still in registers, and only scores
//! that reach them are kept: the score matrix is never materialised. Since `|fl(q · x)|` is at most
//! `|q| |x|` up to rounding, and norms descend, a tile whose thresholds lie above that bound is done
//! before the catalogue ends (the length-based pruning of LEMP: Teflioudi, Gemulla and Mykytiuk, "LEMP:
//! Fast retrieval of large entries in a matrix product", 2015). Sparse scores join their products in
//! the tile; those of items beyond its end are added one by one, unless the same bound rules them out.
//!
//! Where the machine multiplies bytes (AVX512-VNNI), tiles are first of bytes: with a proven bound of what
//! rounding to bytes can change (`screen`) they rule out all but some hundred items a query, which alone
//! are scored in f32. Lists stay the same to the bit. The screen is left out where it cannot be proven right
//! (scores near the end of f32's range), for short catalogues and rows and long lists, and as soon as a group
//! of blocks shows that too many pairs pass for it to pay.
//!
//! **Cost.** At most `2 · n_queries · n_items · d` flops at matrix-product speed, less what the bound
//! prunes, or a quarter of the time with the screen; an entry of `sparse` costs some nanoseconds to tens of
//! them more. Memory: an index holds 8 bytes an item and, from the first request that needs it on, a packed copy
//! of the eligible items, in bytes a quarter of it; per thread a block of
//! at most 256 queries, their sparse rows and at most some `top_k` candidates each; and the lists. With fewer
//! than eight queries a thread, threads stay idle.
//!
//! It never approximates, normalises rows, or reorders equal scores by anything but the index.

mod best;
mod block;
mod items;
mod kernel;
mod screen;
mod screened;

use std::time::{Duration, Instant};

use pulp::Arch;
use rayon::prelude::*;

use crate::matrix::kernels::{self, Dots};
use crate::matrix::{Csr, Dense};

/// What to list, for whom.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// One row per query, `n_queries × d`.
    pub queries: &'a Dense,
    /// `n_queries × n_items`: the items that each query must not list, whatever the value.
    pub seen: Option<&'a Csr>,
    /// `n_queries × n_items`: scores of any sign, added to the inner product.
    pub sparse: Option<&'a Csr>,
    /// Query `r` is item `r` and never lists itself.
    pub exclude_self: bool,
    /// The longest a list may be.
    pub top_k: usize,
}

/// Ragged lists, one per query: best first, never padded.
#[derive(Clone, Debug, PartialEq)]
pub struct TopK {
    /// `n_lists + 1` offsets into `items` and `scores`; the first is 0.
    offsets: Vec<usize>,
    items: Vec<u32>,
    scores: Vec<f32>,
}

/// Progress: some more queries have their lists.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// Queries done so far.
    pub done: usize,
    /// Queries in all.
    pub of: usize,
    /// Inner products computed so far; what is missing from `done · eligible items` was pruned.
    pub n_scored: u64,
    /// Since the request came in.
    pub elapsed: Duration,
}

/// Why a request was refused or its scores were.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    /// Queries and items are not rows of one space.
    #[error("queries have {queries} columns and items {items}: inner products need as many")]
    Columns { queries: usize, items: usize },
    /// Flags and items differ in number.
    #[error("{flags} eligibility flags for {items} items")]
    Eligible { flags: usize, items: usize },
    /// A sparse matrix is not queries by items.
    #[error("`{which}` is {n_rows} rows by {n_cols} columns; expected {queries} queries by {items} items")]
    Sparse { which: &'static str, n_rows: usize, n_cols: usize, queries: usize, items: usize },
    /// Queries cannot be the items.
    #[error("a query never lists itself only where queries are the items: {queries} queries, {items} items")]
    Itself { queries: usize, items: usize },
    /// Item indices are u32.
    #[error("{items} items are more than an item index can number")]
    TooManyItems { items: usize },
    /// An input row holds NaN or an infinity.
    #[error("row {row} of {matrix} holds a value that is not finite")]
    NotFinite { matrix: &'static str, row: usize },
    /// A score left the range of f32.
    #[error("the score of query {query} and item {item} is {score}")]
    Score { query: usize, item: u32, score: f32 },
}

/// A catalogue to list from. What a request needs of it in another form is made once and serves the next.
pub struct Index<'a> {
    items: &'a Dense,
    eligible: Option<&'a [bool]>,
    path: Path,
    norms: Vec<f64>,
    n_listed: usize,
    bytes: Option<screen::Bytes<'a>>,
    /// The shortest lists for which the screen did not pay.
    unpaid: usize,
    packed: Option<(items::Order<'a>, items::Packed)>,
}

/// Instructions to use. Lists do not depend on them.
#[derive(Clone, Copy, Debug)]
struct Path {
    arch: Arch,
    /// To screen with, where that is right and likely to pay.
    dots: Option<Dots>,
    /// Screen even if it does not pay.
    always: bool,
}

/// Takes in a catalogue, `n_items × d`; `eligible` says of each item whether any list may hold it, or all may.
///
/// # Errors
/// If flags and items differ in number, there are too many items, or a row is not finite.
pub fn index<'a>(items: &'a Dense, eligible: Option<&'a [bool]>) -> Result<Index<'a>, Error> {
    let arch = if kernels::are_portable() { Arch::Scalar } else { Arch::new() };
    Index::on(Path { arch, dots: Dots::fast(), always: false }, items, eligible)
}

impl<'a> Index<'a> {
    fn on(path: Path, items: &'a Dense, eligible: Option<&'a [bool]>) -> Result<Self, Error> {
        let n_items = items.n_rows();
        if u32::try_from(n_items).is_err() {
            return Err(Error::TooManyItems { items: n_items });
        }
        if let Some(flags) = eligible.map(<[bool]>::len).filter(|&flags| flags != n_items) {
            return Err(Error::Eligible { flags, items: n_items });
        }
        let norms = items::norms(items, "items")?;
        let n_listed = eligible.map_or(n_items, |flags| flags.iter().filter(|flag| **flag).count());
        Ok(Self { items, eligible, path, norms, n_listed, bytes: None, unpaid: usize::MAX, packed: None })
    }

    /// Lists the best items of every query.
    ///
    /// `on_block` hears of progress some tens of times, on the calling thread.
    ///
    /// # Errors
    /// If shapes do not fit, a query or the score of a pair that could be listed is not finite.
    pub fn retrieve(
        &mut self,
        request: &Request<'_>,
        on_block: &mut dyn FnMut(Block),
    ) -> Result<TopK, Error> {
        let started = Instant::now();
        check(request, self.items)?;
        let n_queries = request.queries.n_rows();
        let norms = items::norms(request.queries, "queries")?;
        let mut screen = self.screen(request, largest(&norms));
        let mut top = TopK { offsets: vec![0], items: Vec::new(), scores: Vec::new() };
        let (mut n_scored, mut done) = (0, 0);
        while done < n_queries {
            let group = |rows: usize, blocks: usize| -> Vec<_> {
                let end = n_queries.min(done + rows * blocks * rayon::current_num_threads());
                (done..end).step_by(rows).map(|from| from..(from + rows).min(end)).collect()
            };
            let found: Vec<Result<block::Found, Error>> = if let Some(dots) = screen {
                let bytes = self.bytes(dots, request.queries);
                // The first group is small: it shows whether the screen pays.
                let rows = screened::rows_a_block(request);
                let (rows, blocks) =
                    if done == 0 { (rows.min(FIRST_ROWS), 1) } else { (rows, BLOCKS_A_REPORT) };
                let search = |rows| Ok(screened::search(request, bytes, rows));
                group(rows, blocks).into_par_iter().map(search).collect()
            } else {
                let (order, packed) = self.packed();
                let search = |rows| block::search(request, order, packed, &norms, rows);
                group(block::rows_a_block(request, order, packed), BLOCKS_A_REPORT)
                    .into_par_iter()
                    .map(search)
                    .collect()
            };
            let (scored_before, mut n_candidates) = (n_scored, 0);
            for block in found {
                let block = block?;
                n_scored += block.n_scored;
                n_candidates += block.n_candidates;
                for list in block.lists {
                    top.items.extend(list.iter().map(|entry| entry.0));
                    top.scores.extend(list.iter().map(|entry| entry.1));
                    top.offsets.push(top.items.len());
                }
            }
            done = top.n_lists();
            let pays = || screen::pays(request.queries.n_cols(), n_scored - scored_before, n_candidates);
            if screen.is_some() && !self.path.always && !pays() {
                (screen, self.bytes, self.unpaid) = (None, None, self.unpaid.min(request.top_k));
            }
            on_block(Block { done, of: n_queries, n_scored, elapsed: started.elapsed() });
        }
        Ok(top)
    }

    /// What a request is to be screened with, if it is.
    fn screen(&self, request: &Request<'_>, longest_query: f64) -> Option<Dots> {
        let suits =
            || request.top_k < self.unpaid && screen::suits(request, self.n_listed, self.bytes.is_some());
        let can = || screen::can(request, (longest_query, largest(&self.norms)));
        self.path.dots.filter(|_| can() && (self.path.always || suits()))
    }

    fn bytes(&mut self, dots: Dots, queries: &Dense) -> &screen::Bytes<'a> {
        self.bytes.get_or_insert_with(|| {
            screen::Bytes::new(dots, self.path.arch, queries, self.items, self.eligible)
        })
    }

    fn packed(&mut self) -> &(items::Order<'a>, items::Packed) {
        self.packed.get_or_insert_with(|| {
            let order = items::Order::new(self.path.arch, self.items, &self.norms, self.eligible);
            let packed = items::Packed::new(&self.norms, &order);
            (order, packed)
        })
    }
}

/// Blocks that every thread works off between two reports: threads wait for each other there.
const BLOCKS_A_REPORT: usize = 16;

/// Queries a thread that show whether the screen pays.
const FIRST_ROWS: usize = 32;

fn largest(norms: &[f64]) -> f64 {
    norms.iter().copied().fold(0.0, f64::max)
}

impl TopK {
    /// The number of lists: one per query.
    pub fn n_lists(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The number of entries of all lists together.
    pub fn n_entries(&self) -> usize {
        self.items.len()
    }

    /// One query's items, best first, and their scores.
    pub fn list(&self, at: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[at]..self.offsets[at + 1];
        (&self.items[range.clone()], &self.scores[range])
    }
}

fn check(request: &Request<'_>, items: &Dense) -> Result<(), Error> {
    let (wide, item_wide) = (request.queries.n_cols(), items.n_cols());
    if wide != item_wide {
        return Err(Error::Columns { queries: wide, items: item_wide });
    }
    let (queries, items) = (request.queries.n_rows(), items.n_rows());
    for (which, matrix) in [("seen", request.seen), ("sparse", request.sparse)] {
        let Some(matrix) = matrix else { continue };
        let (n_rows, n_cols) = (matrix.n_rows(), matrix.n_cols());
        if (n_rows, n_cols) != (queries, items) {
            return Err(Error::Sparse { which, n_rows, n_cols, queries, items });
        }
    }
    if request.exclude_self && queries != items {
        return Err(Error::Itself { queries, items });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
