//! What a list as a whole must be: capped, free of near-duplicates, diverse, with pinned items in place.
//!
//! One greedy pass over a pool longer than the list, so that lists stay full. With `diversity = λ` the
//! next item is the one of the largest `(1 - λ) · s - λ · Σ cos(item, listed) / 20`: the sum over the last
//! 20 items listed (a page), `s` the score as the share of the way from the worst to the best of the 80
//! items that the page is chosen from. That is maximal marginal relevance (Carbonell and Goldstein, "The
//! use of MMR, diversity-based reranking", 1998) with the sum instead of the maximum, the greedy step of
//! max-sum diversification (Gollapudi and Sharma, "An axiomatic approach for result diversification",
//! 2009): the first ranks, where relevance counts most, give way least. A page does not depend on how long
//! the list is. Cost: 80 dot products a rank; without diversity, one look at each item.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::matrix::{Dense, kernels};

use super::{Error, List};

#[cfg(test)]
mod tests;

/// The job's `[ranking.rules]` table.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// The most items of one category in a list; items without one are not counted.
    pub max_per_category: Option<usize>,
    /// The most items of one brand in a list.
    pub max_per_brand: Option<usize>,
    /// What unlikeness to the items of the page counts for against the score, from 0 to below 1.
    pub diversity: f32,
    /// The cosine of two items' texts from which on only the better of them is in a list.
    pub near_duplicates: Option<f32>,
    /// How far items that many turned to are held back, in standard deviations.
    pub long_tail: f32,
}

/// What rules need to know of items, each by item; [`NONE`] where an item has none. What no rule asks for
/// may be empty.
pub struct Traits<'a> {
    /// Categories, numbered.
    pub categories: &'a [u32],
    /// Brands, numbered.
    pub brands: &'a [u32],
    /// Groups of near-duplicates, numbered.
    pub groups: &'a [u32],
    /// Items × dim, rows of unit length or zero.
    pub vectors: &'a Dense,
}

/// No category, brand or group.
pub const NONE: u32 = u32::MAX;

/// The items that a reader sees together and that `diversity` makes unlike one another.
const PAGE: usize = 20;
/// The items that a page is chosen from.
const CHOICE: usize = 4 * PAGE;

impl Rules {
    /// Whether a list needs a pool longer than itself.
    pub fn need_a_pool(&self) -> bool {
        let capped = self.max_per_category.is_some() || self.max_per_brand.is_some();
        capped || self.diversity > 0.0 || self.near_duplicates.is_some()
    }

    /// How long a pool to begin with for a list of `top_k`.
    pub fn pool(&self, top_k: usize) -> usize {
        top_k.saturating_mul(4).max(CHOICE)
    }

    /// How long a list can be at most where these items may be in it.
    pub fn longest(&self, traits: &Traits<'_>, items: impl Iterator<Item = u32> + Clone) -> usize {
        type Rule<'a> = (&'a [u32], usize);
        let at_most = |name: u32, n: usize, most: usize| if name == NONE { n } else { n.min(most) };
        // What the inner rule leaves of each name of the outer one.
        let nested = |(outer, most): Rule<'_>, (inner, most_inside): Rule<'_>| {
            let mut n_of: HashMap<(u32, u32), usize> = HashMap::new();
            items.clone().for_each(|item| {
                *n_of.entry((outer[item as usize], inner[item as usize])).or_default() += 1;
            });
            let mut n_of_outer: HashMap<u32, usize> = HashMap::new();
            n_of.into_iter().for_each(|((name, inside), n)| {
                *n_of_outer.entry(name).or_default() += at_most(inside, n, most_inside);
            });
            n_of_outer.into_iter().map(|(name, n)| at_most(name, n, most)).sum::<usize>()
        };
        let rules = [
            (traits.categories, self.max_per_category),
            (traits.brands, self.max_per_brand),
            (traits.groups, self.near_duplicates.map(|_| 1)),
        ];
        let capped: Vec<Rule<'_>> =
            rules.into_iter().filter_map(|(of, most)| most.map(|most| (of, most))).collect();
        let pairs = capped.iter().flat_map(|outer| capped.iter().map(move |inner| nested(*outer, *inner)));
        pairs.min().unwrap_or(usize::MAX)
    }

    /// Whether every key is in range.
    ///
    /// # Errors
    /// Which is not.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |key: &str, expected: &str, found: f32| {
            let problem = format!("`ranking.rules.{key}`: expected {expected}; found {found}");
            Err(Error::Config { problem })
        };
        if !(0.0..1.0).contains(&self.diversity) {
            return refuse("diversity", "a number from 0 to below 1", self.diversity);
        }
        if !(self.long_tail.is_finite() && self.long_tail >= 0.0) {
            return refuse("long_tail", "a number of at least 0", self.long_tail);
        }
        for (key, found) in
            [("max_per_category", self.max_per_category), ("max_per_brand", self.max_per_brand)]
        {
            if found == Some(0) {
                return refuse(key, "at least 1", 0.0);
            }
        }
        match self.near_duplicates {
            Some(cosine) if !(cosine > 0.0 && cosine <= 1.0) => {
                refuse("near_duplicates", "a cosine above 0, up to 1", cosine)
            }
            _ => Ok(()),
        }
    }

    /// The list of at most `top_k` from a pool, the best first, and the pins a user may see. Scores never
    /// rise: an item that a rule puts before a better one has the better one's score.
    pub fn arrange(
        &self,
        traits: &Traits<'_>,
        pool: List<'_>,
        pins: &[(u16, u32)],
        top_k: usize,
    ) -> Vec<(u32, f32)> {
        let (items, scores) = pool;
        let mut listed =
            Listed { rules: self, traits, items: Vec::new(), page: vec![0.0; traits.vectors.n_cols()] };
        // Places in the pool, the best first; the first `end` are what the page is chosen from.
        let mut open: VecDeque<usize> =
            (0..items.len()).filter(|at| pins.iter().all(|pin| pin.1 != items[*at])).collect();
        let (mut end, mut lowest, mut spread) = (0, 0.0, 1.0);
        let mut pins = pins.iter().peekable();
        let mut list: Vec<(u32, f32)> = Vec::with_capacity(top_k);
        while list.len() < top_k {
            if list.len().is_multiple_of(PAGE) {
                end = 0;
            }
            let place = list.len() + 1;
            if let Some((_, item)) = pins.next_if(|pin| usize::from(pin.0) <= place) {
                let own =
                    items.iter().position(|other| other == item).map_or(f32::NEG_INFINITY, |at| scores[at]);
                listed.push(*item);
                list.push((*item, own));
                continue;
            }
            if end == 0 && !open.is_empty() {
                end = open.len().min(CHOICE);
                lowest = scores[open[end - 1]];
                let highest = scores[open[0]];
                spread = if highest > lowest { highest - lowest } else { 1.0 };
            }
            let mut best: Option<(f32, usize)> = None;
            let mut at = 0;
            while at < end {
                let item = items[open[at]];
                if !listed.allow(item) {
                    open.remove(at);
                    end -= 1;
                    continue;
                }
                let relevance = (scores[open[at]] - lowest) / spread;
                let value = (1.0 - self.diversity) * relevance - self.diversity * listed.likeness(item);
                if best.is_none_or(|best| value > best.0) {
                    best = Some((value, at));
                }
                if self.diversity == 0.0 {
                    break;
                }
                at += 1;
            }
            if let Some(at) = best.and_then(|(_, at)| open.remove(at)) {
                end -= 1;
                listed.push(items[at]);
                list.push((items[at], scores[at]));
            } else if open.is_empty() {
                // What is pinned further down moves up rather than leaving a gap.
                let Some((_, item)) = pins.next() else { break };
                list.push((*item, f32::NEG_INFINITY));
            }
        }
        let mut least = scores.last().copied().unwrap_or(0.0);
        for (_, score) in list.iter_mut().rev() {
            *score = score.max(least);
            least = *score;
        }
        list
    }
}

/// What is in a list so far.
struct Listed<'a> {
    rules: &'a Rules,
    traits: &'a Traits<'a>,
    items: Vec<u32>,
    /// The sum of the vectors of the page, where diversity asks for it.
    page: Vec<f32>,
}

impl Listed<'_> {
    /// An item joins the page, and the first of a full page leaves it.
    fn push(&mut self, item: u32) {
        let leaves = self.items.len().checked_sub(PAGE).map(|first| self.items[first]);
        self.items.push(item);
        if self.rules.diversity > 0.0 {
            let vectors = self.traits.vectors;
            self.page.iter_mut().zip(vectors.row(item as usize)).for_each(|(sum, value)| *sum += value);
            if let Some(gone) = leaves {
                self.page.iter_mut().zip(vectors.row(gone as usize)).for_each(|(sum, value)| *sum -= value);
            }
        }
    }

    /// The sum of an item's cosines to those of the page, as the share of a full page.
    fn likeness(&self, item: u32) -> f32 {
        if self.rules.diversity == 0.0 {
            return 0.0;
        }
        kernels::dot::<f32, _>(self.traits.vectors.row(item as usize), &self.page) / PAGE as f32
    }

    /// Whether there is room for an item's category, brand and group.
    fn allow(&self, item: u32) -> bool {
        let room = |of: &[u32], most: Option<usize>| {
            let Some(most) = most else { return true };
            let own = of[item as usize];
            own == NONE || self.items.iter().filter(|other| of[**other as usize] == own).count() < most
        };
        let (rules, traits) = (self.rules, self.traits);
        room(traits.categories, rules.max_per_category)
            && room(traits.brands, rules.max_per_brand)
            && room(traits.groups, rules.near_duplicates.map(|_| 1))
    }
}
