//! Sparse item-item lists from behaviour: what goes together, what comes next.
//!
//! In: `baskets` (`n_baskets × n_items`; an entry says that the item is in the basket, its weight, above
//! zero, only which items a basket too long keeps) and `transitions` (`n_items × n_items`; how often
//! the row's item was followed by the column's, above zero). Out: two ragged lists per item, `together`
//! and `next`; scores lie in `0 ..= 1`.
//!
//! **together**: the cosine of the two items' basket columns, shrunk by its support,
//! `c_ij / (sqrt(c_i c_j) + shrinkage)`, where `c_ij` counts the baskets that hold both and `c_i` those
//! that hold `i` (Sarwar et al., "Item-based collaborative filtering recommendation algorithms",
//! 2001; Deshpande and Karypis, "Item-based top-N recommendation algorithms", 2004).
//! Without shrinkage two items seen once, together, would beat every well-observed pair.
//!
//! **next**: `n_ab / (sum_b n_ab + shrinkage)`, the share of `b` among the steps out of `a`; the sum runs
//! over all of the row, listed or not.
//!
//! **Order**: score descending, then item index ascending. **Invariants**: an item never lists itself;
//! eligibility acts on the listed item before the cut, so a list is shorter than `top_k` only when fewer
//! eligible items have evidence; counts are exact integers, every list is made by one thread alone, and
//! so neither thread count nor row order changes a bit. Ineligible items have lists too.
//!
//! A basket longer than `max_basket` keeps the items of the largest weight, among equal weights those in
//! the fewest baskets, then the smallest indices; `c_i` counts what was kept.
//!
//! **Cost.** `sum over baskets of (kept items)^2` additions, at most `n_entries · max_basket`, parallel
//! over items, which is the only parallel level; `4 · n_items` bytes of counters per task, the kept entries
//! twice, and the lists.
//!
//! It never looks at who owns a basket, at time, or at an item's content.

mod baskets;
mod config;

use rayon::prelude::*;

use crate::matrix::Csr;

pub use config::{Config, InvalidConfig};

/// Both kinds of lists, one list of each kind per item.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbors {
    /// Items of the same baskets.
    pub together: Lists,
    /// Items that follow.
    pub next: Lists,
}

/// Ragged lists, one per item: best first, never padded.
#[derive(Clone, Debug, PartialEq)]
pub struct Lists {
    /// `n_lists + 1` offsets into `items` and `scores`; the first is 0.
    offsets: Vec<usize>,
    items: Vec<u32>,
    scores: Vec<f32>,
}

/// Why behaviour was refused.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    /// Transitions lead from items to items.
    #[error("transitions are {n_rows} rows by {n_cols} columns; expected {items} items by {items} items")]
    Transitions { n_rows: usize, n_cols: usize, items: usize },
    /// Flags and items differ in number.
    #[error("{flags} eligibility flags for {items} items")]
    Eligible { flags: usize, items: usize },
    /// Presence is not negative or nothing.
    #[error("the weight of item {item} in basket {basket} is {weight}: weights are above zero")]
    Weight { basket: usize, item: u32, weight: f32 },
    /// A step that is stored was taken.
    #[error("item {item} is followed by item {next} {count} times: counts are above zero")]
    Count { item: usize, next: u32, count: f32 },
}

/// Lists every item's neighbours.
///
/// # Errors
/// If shapes do not fit, or a weight or count is not above zero.
pub fn relate(
    baskets: &Csr,
    transitions: &Csr,
    config: &Config,
    eligible: Option<&[bool]>,
) -> Result<Neighbors, Error> {
    check(baskets, transitions, eligible)?;
    let chosen = Chosen { eligible, top_k: config.top_k };
    let together = together(baskets, config, &chosen);
    let next = next(transitions, config, &chosen);
    Ok(Neighbors { together, next })
}

impl Lists {
    /// The number of lists: one per item.
    pub fn n_lists(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The number of entries of all lists together.
    pub fn n_entries(&self) -> usize {
        self.items.len()
    }

    /// One item's neighbours, best first, and their scores.
    pub fn list(&self, at: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[at]..self.offsets[at + 1];
        (&self.items[range.clone()], &self.scores[range])
    }

    fn new(lists: Vec<Vec<(u32, f32)>>) -> Self {
        let n_entries = lists.iter().map(Vec::len).sum();
        let mut offsets = Vec::with_capacity(lists.len() + 1);
        offsets.push(0);
        let (mut items, mut scores) = (Vec::with_capacity(n_entries), Vec::with_capacity(n_entries));
        for list in lists {
            items.extend(list.iter().map(|entry| entry.0));
            scores.extend(list.iter().map(|entry| entry.1));
            offsets.push(items.len());
        }
        Self { offsets, items, scores }
    }
}

fn check(baskets: &Csr, transitions: &Csr, eligible: Option<&[bool]>) -> Result<(), Error> {
    let items = baskets.n_cols();
    let (n_rows, n_cols) = (transitions.n_rows(), transitions.n_cols());
    if (n_rows, n_cols) != (items, items) {
        return Err(Error::Transitions { n_rows, n_cols, items });
    }
    if let Some(flags) = eligible.map(<[bool]>::len).filter(|&flags| flags != items) {
        return Err(Error::Eligible { flags, items });
    }
    if let Some((basket, item, weight)) = first_not_positive(baskets) {
        return Err(Error::Weight { basket, item, weight });
    }
    if let Some((item, next, count)) = first_not_positive(transitions) {
        return Err(Error::Count { item, next, count });
    }
    Ok(())
}

fn first_not_positive(csr: &Csr) -> Option<(usize, u32, f32)> {
    (0..csr.n_rows()).find_map(|row| {
        let (cols, values) = csr.row(row);
        cols.iter().zip(values).find(|&(_, &value)| value <= 0.0).map(|(&col, &value)| (row, col, value))
    })
}

/// Which items may be listed, and how many.
struct Chosen<'a> {
    eligible: Option<&'a [bool]>,
    top_k: usize,
}

impl Chosen<'_> {
    fn may_list(&self, item: usize, other: u32) -> bool {
        other as usize != item && self.eligible.is_none_or(|flags| flags[other as usize])
    }

    fn best(&self, mut scored: Vec<(u32, f32)>) -> Vec<(u32, f32)> {
        let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if scored.len() > self.top_k {
            scored.select_nth_unstable_by(self.top_k, order);
            scored.truncate(self.top_k);
        }
        scored.sort_unstable_by(order);
        // Most lists are short of their candidates' capacity, and all of them are kept for a while.
        scored.shrink_to_fit();
        scored
    }
}

fn together(baskets: &Csr, config: &Config, chosen: &Chosen<'_>) -> Lists {
    let n_items = baskets.n_cols();
    let kept = baskets::cut(baskets, config.max_basket);
    let holders = kept.transpose(n_items);
    let shrinkage = f64::from(config.shrinkage);
    let lists = (0..n_items).into_par_iter().map_init(
        || (vec![0u32; n_items], Vec::new()),
        |(counts, touched), item| {
            for &basket in holders.row(item) {
                for &other in kept.row(basket as usize) {
                    if counts[other as usize] == 0 {
                        touched.push(other);
                    }
                    counts[other as usize] += 1;
                }
            }
            let n_own = holders.row(item).len() as f64;
            let mut scored = Vec::with_capacity(touched.len());
            for other in touched.drain(..) {
                let n_both = f64::from(std::mem::take(&mut counts[other as usize]));
                if chosen.may_list(item, other) {
                    let n_other = holders.row(other as usize).len() as f64;
                    scored.push((other, (n_both / ((n_own * n_other).sqrt() + shrinkage)) as f32));
                }
            }
            chosen.best(scored)
        },
    );
    Lists::new(lists.collect())
}

fn next(transitions: &Csr, config: &Config, chosen: &Chosen<'_>) -> Lists {
    let shrinkage = f64::from(config.shrinkage);
    let lists = (0..transitions.n_rows()).into_par_iter().map(|item| {
        let (others, counts) = transitions.row(item);
        let steps: f64 = counts.iter().copied().map(f64::from).sum();
        let scored = others.iter().zip(counts).filter(|&(&other, _)| chosen.may_list(item, other));
        let share = |count: f32| (f64::from(count) / (steps + shrinkage)) as f32;
        chosen.best(scored.map(|(&other, &count)| (other, share(count))).collect())
    });
    Lists::new(lists.collect())
}

#[cfg(test)]
mod tests;
