//! The interactions as one side's half-sweep reads them.
//!
//! Entities are renumbered by falling number of entries (ties by index): rows of similar cost and
//! equal regularisation lie together, so do the rows that are gathered most, entities without entries fall off the end, and chunks of the factor matrix are
//! contiguous, so that threads write disjoint slices.

use crate::matrix::Csr;

/// One side's entities with at least one entry, longest first.
pub(super) struct Side {
    /// Position to the caller's index.
    pub(super) order: Vec<u32>,
    /// `order.len() + 1` offsets into `indices` and `roots`.
    offsets: Vec<usize>,
    /// Positions on the other side.
    indices: Vec<u32>,
    /// Square roots of the weights.
    roots: Vec<f32>,
    /// Of each position.
    pub(super) regularization: Vec<f32>,
    /// Consecutive positions of roughly equal work; the same on any number of threads.
    pub(super) chunks: Vec<std::ops::Range<usize>>,
}

/// Both sides, users first; `n_known` is how many users and items have factors.
pub(super) fn both(
    interactions: &Csr,
    n_known: (usize, usize),
    regularization: impl Fn(usize, usize) -> f64 + Copy,
) -> (Side, Side) {
    let (n_users, n_items) = (interactions.n_rows(), interactions.n_cols());
    let mut item_counts = vec![0usize; n_items];
    let mut user_counts = vec![0usize; n_users];
    for (user, count) in user_counts.iter_mut().enumerate() {
        let (items, _) = interactions.row(user);
        *count = items.len();
        for &item in items {
            item_counts[item as usize] += 1;
        }
    }
    let user_order = longest_first(&user_counts);
    let item_order = longest_first(&item_counts);
    let mut item_at = vec![0u32; n_items];
    for (at, &item) in item_order.iter().enumerate() {
        item_at[item as usize] = at as u32;
    }
    let mut users = Side::with_shape(user_order, &user_counts, |n| regularization(n, n_known.1) as f32);
    let mut items = Side::with_shape(item_order, &item_counts, |n| regularization(n, n_known.0) as f32);
    let of_user = |user: u32| {
        let (cols, weights) = interactions.row(user as usize);
        cols.iter().map(|&col| item_at[col as usize]).zip(weights.iter().map(|weight| weight.sqrt()))
    };
    let Side { order, indices, roots, .. } = &mut users;
    let users_in_order = &*order;
    let fill_users = || {
        let slots = indices.iter_mut().zip(roots);
        for ((index, slot), (item, root)) in slots.zip(users_in_order.iter().flat_map(|&user| of_user(user)))
        {
            (*index, *slot) = (item, root);
        }
    };
    let mut next = items.offsets.clone();
    let fill_items = || {
        for (at, &user) in users_in_order.iter().enumerate() {
            for (item, root) in of_user(user) {
                let slot = &mut next[item as usize];
                (items.indices[*slot], items.roots[*slot]) = (at as u32, root);
                *slot += 1;
            }
        }
    };
    rayon::join(fill_users, fill_items);
    (users, items)
}

fn longest_first(counts: &[usize]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..counts.len() as u32).filter(|&at| counts[at as usize] > 0).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(counts[at as usize]));
    order
}

/// A chunk ends when it has this many entries, counting `ROW_COST` for what every row costs.
const CHUNK_COST: usize = 1 << 14;

/// The work on a row that does not depend on its length, in entries.
const ROW_COST: usize = 16;

impl Side {
    fn with_shape(order: Vec<u32>, counts: &[usize], regularization: impl Fn(usize) -> f32) -> Self {
        let mut offsets = Vec::with_capacity(order.len() + 1);
        let mut chunks = Vec::new();
        let (mut end, mut cost, mut chunk_from) = (0, 0, 0);
        offsets.push(end);
        for (at, &entity) in order.iter().enumerate() {
            end += counts[entity as usize];
            cost += counts[entity as usize] + ROW_COST;
            offsets.push(end);
            if cost >= CHUNK_COST || at + 1 == order.len() {
                chunks.push(chunk_from..at + 1);
                (cost, chunk_from) = (0, at + 1);
            }
        }
        let regularization = order.iter().map(|&entity| regularization(counts[entity as usize])).collect();
        Self { order, offsets, indices: vec![0; end], roots: vec![0.0; end], regularization, chunks }
    }

    /// Position to the caller's index; the interactions go.
    pub(super) fn into_order(self) -> Vec<u32> {
        self.order
    }

    /// The number of entities with entries.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// One entity's positions on the other side, followed by those of the entities after it, and its own square
    /// roots of weights.
    pub(super) fn row(&self, at: usize) -> (&[u32], &[f32]) {
        (&self.indices[self.offsets[at]..], &self.roots[self.offsets[at]..self.offsets[at + 1]])
    }
}
