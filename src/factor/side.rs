//! The interactions as one side's half-sweep reads them.
//!
//! Entities are renumbered by falling number of entries (ties by index): rows of similar cost and
//! equal regularisation lie together, so do the rows that are gathered most, entities without entries fall off the end,
//! and chunks of the factor matrix are contiguous, so that threads write disjoint slices. Entries stay as they are
//! given by users, and are renumbered a chunk at a time, which costs a look into a table that a cache holds; a copy in the
//! new order would be a third of the interactions' memory.

use std::borrow::Cow;
use std::ops::Range;

use crate::matrix::Csr;
use crate::matrix::kernels::prefetch;

/// One side's entities with at least one entry, longest first.
pub(super) struct Side<'a> {
    /// Position to the caller's index.
    pub(super) order: Vec<u32>,
    /// Rows by the caller's index.
    entries: Cow<'a, Csr>,
    /// Columns to the other side's positions, where they are not those already.
    positions: Option<Vec<u32>>,
    /// Of each position.
    pub(super) regularization: Vec<f32>,
    /// Consecutive positions of roughly equal work; the same on any number of threads.
    pub(super) chunks: Vec<Range<usize>>,
}

/// Some entities' entries by position, one entity after another.
#[derive(Default)]
pub(super) struct Entries {
    /// Positions on the other side.
    pub(super) indices: Vec<u32>,
    /// Square roots of the weights.
    pub(super) roots: Vec<f32>,
}

/// Both sides, users first; `n_known` is how many users and items have factors.
pub(super) fn both(
    interactions: &Csr,
    n_known: (usize, usize),
    regularization: impl Fn(usize, usize) -> f64,
) -> (Side<'_>, Side<'_>) {
    let user_order = longest_first(interactions);
    let by_items = interactions.transpose_of(&user_order);
    let item_order = longest_first(&by_items);
    let mut item_at = vec![0; interactions.n_cols()];
    for (at, &item) in item_order.iter().enumerate() {
        item_at[item as usize] = at as u32;
    }
    let of_users = |n: usize| regularization(n, n_known.1) as f32;
    let of_items = |n: usize| regularization(n, n_known.0) as f32;
    (
        Side::of(Cow::Borrowed(interactions), Some(item_at), user_order, of_users),
        Side::of(Cow::Owned(by_items), None, item_order, of_items),
    )
}

fn longest_first(entries: &Csr) -> Vec<u32> {
    let count = |at: u32| entries.row(at as usize).0.len() as u32;
    let used = (0..entries.n_rows() as u32).filter(|&at| count(at) > 0);
    // One number a row sorts faster than rows by what is looked up.
    let mut keys: Vec<u64> = used.map(|at| u64::from(!count(at)) << 32 | u64::from(at)).collect();
    keys.sort_unstable();
    keys.into_iter().map(|key| key as u32).collect()
}

/// A chunk ends when it has this many entries, counting `ROW_COST` for what every row costs.
const CHUNK_COST: usize = 1 << 14;

/// The work on a row that does not depend on its length, in entries.
const ROW_COST: usize = 16;

/// Entities whose entries are asked for ahead of those that are read: from one to the next they lie anywhere.
const AHEAD: usize = 4;

/// Of their entries the ones after which the hardware has seen where it goes.
const FIRST: usize = 64;

impl<'a> Side<'a> {
    fn of(
        entries: Cow<'a, Csr>,
        positions: Option<Vec<u32>>,
        order: Vec<u32>,
        regularization: impl Fn(usize) -> f32,
    ) -> Self {
        let counts = order.iter().map(|&index| entries.row(index as usize).0.len());
        let (mut chunks, mut from, mut cost) = (Vec::new(), 0, 0);
        for (at, count) in counts.clone().enumerate() {
            cost += count + ROW_COST;
            if cost >= CHUNK_COST || at + 1 == order.len() {
                chunks.push(from..at + 1);
                (cost, from) = (0, at + 1);
            }
        }
        let regularization = counts.map(regularization).collect();
        Self { order, entries, positions, regularization, chunks }
    }

    /// Position to the caller's index, those of the `n` entities that have no entries after the others.
    pub(super) fn order_of_all(&self, n: usize) -> Vec<u32> {
        let mut has_entries = vec![false; n];
        self.order.iter().for_each(|&index| has_entries[index as usize] = true);
        let others = (0..n as u32).filter(|&index| !has_entries[index as usize]);
        self.order.iter().copied().chain(others).collect()
    }

    /// The number of entities with entries.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// How many entries an entity has.
    #[inline(always)]
    pub(super) fn n_entries(&self, at: usize) -> usize {
        self.entries.row(self.order[at] as usize).0.len()
    }

    /// Writes a chunk's entries over `found`.
    #[inline(always)]
    pub(super) fn read(&self, chunk: Range<usize>, found: &mut Entries) {
        found.indices.clear();
        found.roots.clear();
        let ahead = self.order.iter().skip(chunk.start + AHEAD);
        let ahead = ahead.map(Some).chain(std::iter::repeat(None));
        for (&index, ahead) in self.order[chunk].iter().zip(ahead) {
            if let Some(&ahead) = ahead {
                let (others, weights) = self.entries.row(ahead as usize);
                prefetch(&others[..others.len().min(FIRST)]);
                prefetch(&weights[..weights.len().min(FIRST)]);
            }
            let (others, weights) = self.entries.row(index as usize);
            match &self.positions {
                Some(at) => found.indices.extend(others.iter().map(|&other| at[other as usize])),
                None => found.indices.extend_from_slice(others),
            }
            found.roots.extend(weights.iter().map(|weight| weight.sqrt()));
        }
    }
}
