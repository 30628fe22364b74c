//! Why a row is in a list: what each source gave, and which of the user's own items speaks for it.

use crate::matrix::Dense;

use super::fusion::{Fusion, history_score};

/// Where a score comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Matrix factorisation.
    Factors,
    /// Embeddings.
    Content,
    /// Popularity in the user's segment.
    Popularity,
    /// The user's own history.
    History,
}

/// One row of a list, explained.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    /// The item.
    pub item: u32,
    /// The sum of the contributions.
    pub score: f32,
    /// What each source gave, in the order of [`Source`]: weight × standard score.
    pub contributions: [f32; 4],
    /// The source that gave most.
    pub strongest: Source,
    /// The evidence.
    pub reason: Reason,
}

/// The evidence for a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The user turned to the item before.
    Again,
    /// Users who turned to this item of the user's history turn to the listed one too.
    Because {
        /// The item of the history.
        item: u32,
    },
    /// The listed item's text resembles this item of the user's history.
    Similar {
        /// The item of the history.
        item: u32,
    },
    /// The item is popular in the user's segment.
    Popular {
        /// The segment.
        segment: u32,
    },
    /// The item is popular, and nothing is known of the user.
    PopularWithAll,
}

/// Of a long history only the heaviest items are looked at for evidence.
const EVIDENCE_ITEMS: usize = 100;

impl Source {
    /// All sources, in the order of contributions.
    pub const ALL: [Self; 4] = [Self::Factors, Self::Content, Self::Popularity, Self::History];

    /// The source's name, as in `[ranking.weights]` and the published columns.
    pub fn name(self) -> &'static str {
        match self {
            Self::Factors => "factors",
            Self::Content => "content",
            Self::Popularity => "popularity",
            Self::History => "history",
        }
    }
}

impl Fusion<'_> {
    /// Explains the items that retrieval found for a user, in their order.
    ///
    /// Contributions sum to the published score. Retrieval's own score lacks the user's constant and
    /// is summed in another order, so the two differ by it and by rounding.
    pub fn explain(&self, user: usize, items: &[u32], retrieved: &[f32]) -> Vec<Ranked> {
        let mut query = vec![0f32; self.items().n_cols()];
        let constants = self.query(user, &mut query);
        let constant: f32 = constants.iter().sum();
        let (seen, weights) = self.sources.history.row(user);
        let heaviest = weights.iter().copied().fold(0.0, f32::max);
        let evidence = heaviest_items(seen, weights);
        items
            .iter()
            .zip(retrieved)
            .map(|(&item, retrieved)| {
                let vector = self.items().row(item as usize);
                let mut contributions = constants;
                for part in &self.parts {
                    let columns = part.columns.clone();
                    contributions[part.source as usize] += dot(&query[columns.clone()], &vector[columns]);
                }
                let before = seen.binary_search(&item).ok();
                if let (Some(at), true) = (before, self.weights.history > 0.0) {
                    contributions[Source::History as usize] =
                        history_score(weights[at], heaviest, self.weights.history);
                }
                let strongest = strongest(&contributions);
                let reason = match before {
                    Some(_) => Reason::Again,
                    None => self.evidence(user, item, strongest, &evidence),
                };
                Ranked { item, score: retrieved + constant, contributions, strongest, reason }
            })
            .collect()
    }

    fn evidence(&self, user: usize, item: u32, strongest: Source, history: &[(u32, f32)]) -> Reason {
        let popular = Reason::Popular { segment: self.sources.segments[user] };
        let by_factors = || {
            let items = self.sources.factors.map(|pair| pair.1);
            best_evidence(items, &self.factor_norms, item, history).map(|item| Reason::Because { item })
        };
        let by_content = || {
            let items = self.sources.content.map(|pair| pair.1);
            best_evidence(items, &self.content_norms, item, history).map(|item| Reason::Similar { item })
        };
        let found = match strongest {
            Source::Factors | Source::History => by_factors().or_else(by_content),
            Source::Content => by_content().or_else(by_factors),
            Source::Popularity => None,
        };
        found.unwrap_or(popular)
    }
}

/// The heaviest items of a history and how much each speaks, the heaviest first.
fn heaviest_items(items: &[u32], weights: &[f32]) -> Vec<(u32, f32)> {
    let mut history: Vec<(u32, f32)> =
        items.iter().zip(weights).map(|(item, weight)| (*item, weight.max(0.0).ln_1p())).collect();
    history.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    history.truncate(EVIDENCE_ITEMS);
    history
}

/// The history's item with the largest `ln(1 + weight) · cos(item, it)`: a cheap stand-in for the
/// exact decomposition of Hu, Koren and Volinsky (2008, section 5), which needs a solve a user.
fn best_evidence(items: Option<&Dense>, norms: &[f32], item: u32, history: &[(u32, f32)]) -> Option<u32> {
    let items = items?;
    let (row, own) = (items.row(item as usize), norms[item as usize]);
    let mut best: Option<(f32, u32)> = None;
    for &(other, weight) in history {
        let length = own * norms[other as usize];
        if length == 0.0 {
            continue;
        }
        let speaks = weight * dot(row, items.row(other as usize)) / length;
        if speaks > best.map_or(0.0, |(most, _)| most) {
            best = Some((speaks, other));
        }
    }
    best.map(|(_, item)| item)
}

/// The source that gave most; of equals the first.
fn strongest(contributions: &[f32; 4]) -> Source {
    let mut strongest = Source::Factors;
    for source in Source::ALL {
        if contributions[source as usize] > contributions[strongest as usize] {
            strongest = source;
        }
    }
    strongest
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
