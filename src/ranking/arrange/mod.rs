//! What a list as a whole must be: capped, free of near-duplicates, diverse, with pinned items in place.
//!
//! One greedy pass over a pool longer than the list, so that lists stay full. With `diversity = λ` the
//! next item is the one of the largest `(1 - λ) · s - λ · max cos(item, listed)`, `s` the pool's scores
//! scaled to 0 to 1: maximal marginal relevance (Carbonell and Goldstein, "The use of MMR, diversity-based
//! reranking", 1998). Cost: a dot product a pool item and rank; without diversity, one look at each.

use serde::{Deserialize, Serialize};

use crate::matrix::Dense;

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
    /// What unlikeness to the items before counts for against the score, from 0 to below 1.
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

impl Rules {
    /// Whether a list needs a pool longer than itself.
    pub fn need_a_pool(&self) -> bool {
        let capped = self.max_per_category.is_some() || self.max_per_brand.is_some();
        capped || self.diversity > 0.0 || self.near_duplicates.is_some()
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
        let (highest, lowest) =
            (scores.first().copied().unwrap_or(0.0), scores.last().copied().unwrap_or(0.0));
        let spread = if highest > lowest { highest - lowest } else { 1.0 };
        let mut counts = Counts { rules: self, traits, listed: Vec::new() };
        let mut open: Vec<bool> = items.iter().map(|item| pins.iter().all(|pin| pin.1 != *item)).collect();
        let mut likeness = vec![0f32; items.len()];
        let mut pins = pins.iter().peekable();
        let mut list: Vec<(u32, f32)> = Vec::with_capacity(top_k);
        while list.len() < top_k {
            let place = list.len() + 1;
            if let Some((_, item)) = pins.next_if(|pin| usize::from(pin.0) <= place) {
                let own =
                    items.iter().position(|other| other == item).map_or(f32::NEG_INFINITY, |at| scores[at]);
                self.take(&mut counts, items, *item, &mut likeness);
                list.push((*item, own));
                continue;
            }
            let mut best: Option<(f32, usize)> = None;
            for at in 0..items.len() {
                if !open[at] {
                    continue;
                }
                if !counts.allow(items[at]) {
                    open[at] = false;
                    continue;
                }
                let relevance = (scores[at] - lowest) / spread;
                let value = (1.0 - self.diversity) * relevance - self.diversity * likeness[at];
                if best.is_none_or(|best| value > best.0) {
                    best = Some((value, at));
                }
                if self.diversity == 0.0 {
                    break;
                }
            }
            match best {
                Some((_, at)) => {
                    open[at] = false;
                    self.take(&mut counts, items, items[at], &mut likeness);
                    list.push((items[at], scores[at]));
                }
                // What is pinned further down moves up rather than leaving a gap.
                None => match pins.next() {
                    Some((_, item)) => list.push((*item, f32::NEG_INFINITY)),
                    None => break,
                },
            }
        }
        let mut least = lowest;
        for (_, score) in list.iter_mut().rev() {
            *score = score.max(least);
            least = *score;
        }
        list
    }

    fn take(&self, counts: &mut Counts<'_>, pool: &[u32], item: u32, likeness: &mut [f32]) {
        counts.listed.push(item);
        if self.diversity > 0.0 {
            let vectors = counts.traits.vectors;
            let row = vectors.row(item as usize);
            for (other, likeness) in pool.iter().zip(likeness) {
                let cosine: f32 = row.iter().zip(vectors.row(*other as usize)).map(|(a, b)| a * b).sum();
                *likeness = likeness.max(cosine);
            }
        }
    }
}

/// What is in a list so far.
struct Counts<'a> {
    rules: &'a Rules,
    traits: &'a Traits<'a>,
    listed: Vec<u32>,
}

impl Counts<'_> {
    /// Whether there is room for an item's category, brand and group.
    fn allow(&self, item: u32) -> bool {
        let room = |of: &[u32], most: Option<usize>| {
            let Some(most) = most else { return true };
            let own = of[item as usize];
            own == NONE || self.listed.iter().filter(|other| of[**other as usize] == own).count() < most
        };
        let (rules, traits) = (self.rules, self.traits);
        room(traits.categories, rules.max_per_category)
            && room(traits.brands, rules.max_per_brand)
            && room(traits.groups, rules.near_duplicates.map(|_| 1))
    }
}
