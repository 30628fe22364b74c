//! Why a row is in a list: what each source gave, and which of the user's own items speaks for it.

use rayon::prelude::*;

use crate::matrix::Dense;
use crate::matrix::kernels::dot;

use super::fusion::Fusion;
use super::spread::Spread;
use super::{Linear, N_SOURCES, Source, Weights};

/// What each source gave to an item of a user's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The sum of the contributions.
    pub score: f32,
    /// What each source gave, in the order of [`Source`]: weight × standard score.
    pub contributions: [f32; N_SOURCES],
}

/// A user among those whose lists are looked at.
struct Placed<'a> {
    user: usize,
    query: &'a [f32],
    constants: [f32; N_SOURCES],
}

/// One row of a list, explained.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    /// The item.
    pub item: u32,
    /// The sum of the contributions.
    pub score: f32,
    /// What each source gave, in the order of [`Source`]: weight × standard score.
    pub contributions: [f32; N_SOURCES],
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
    /// The listed item often comes after this item of the user's history.
    Follows {
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
    /// Many have turned to the item of late.
    Trending,
    /// Nothing is known of the user but searches, which the item's text resembles.
    Searched,
    /// The shop's rules have put it there.
    Featured,
    /// The item is popular, and nothing is known of the user.
    PopularWithAll,
}

/// Of a long history only the heaviest items are looked at for evidence.
const EVIDENCE_ITEMS: usize = 100;

/// A list as retrieval gives it: items, the best first, and their scores.
pub type List<'a> = (&'a [u32], &'a [f32]);

impl Fusion<'_> {
    /// What each source gave to some items, of each user those of a list, in its order.
    ///
    /// Contributions sum to the score. The lists' own scores, which are retrieval's, lack the user's constant and
    /// are summed in another order, so that the two differ by it and by rounding.
    pub fn score(&self, users: &[u32], lists: &[List<'_>]) -> Vec<Vec<Scored>> {
        self.of_each(users, lists, |list, user, spread| self.score_one(list, user, spread))
    }

    /// The same, with the evidence for each row.
    pub fn explain(&self, users: &[u32], lists: &[List<'_>]) -> Vec<Vec<Ranked>> {
        self.of_each(users, lists, |list, user, spread| {
            let scored = self.score_one(list, user, spread);
            self.give_reasons(list.0, user, scored)
        })
    }

    fn of_each<T: Send>(
        &self,
        users: &[u32],
        lists: &[List<'_>],
        of_one: impl Fn(List<'_>, &Placed<'_>, &mut Spread) -> T + Sync,
    ) -> Vec<T> {
        let n_items = self.items().n_rows();
        let (queries, constants) = self.vectors(users);
        let pairs = users.par_iter().zip(lists).enumerate();
        pairs
            .map_init(
                || Spread::new(n_items),
                |spread, (at, (user, list))| {
                    let placed =
                        Placed { user: *user as usize, query: queries.row(at), constants: constants[at] };
                    of_one(*list, &placed, spread)
                },
            )
            .collect()
    }

    fn score_one(
        &self,
        (items, retrieved): List<'_>,
        &Placed { user, query, constants }: &Placed<'_>,
        spread: &mut Spread,
    ) -> Vec<Scored> {
        let mut contributions = vec![constants; items.len()];
        let mut constant: f32 = constants.iter().sum();
        for (weight, linear) in self.linear(user) {
            spread.apply(linear, user);
            let (mean, scale) = self.standard(spread, weight);
            for (item, contributions) in items.iter().zip(&mut contributions) {
                contributions[linear.source as usize] = ((f64::from(spread.of(*item)) - mean) * scale) as f32;
            }
            constant -= (mean * scale) as f32;
            spread.clear();
        }
        for (source, weight, own) in self.own(user) {
            let (own, values) = own.row(user);
            for (item, contributions) in items.iter().zip(&mut contributions) {
                if let Ok(at) = own.binary_search(item) {
                    contributions[source as usize] = weight * values[at];
                }
            }
        }
        let ruled = self.sources.ruled;
        let rows = items.iter().zip(retrieved).zip(contributions);
        rows.map(|((item, retrieved), mut contributions)| {
            let vector = self.items().row(*item as usize);
            for part in &self.parts {
                let (query, vector) = (&query[part.columns.clone()], &vector[part.columns.clone()]);
                contributions[part.source as usize] += dot::<f32, _>(query, vector);
            }
            let score = retrieved + constant;
            if ruled {
                // What a rule moved up has more than its sources gave it.
                contributions[Source::Rules as usize] += score - contributions.iter().sum::<f32>();
            }
            Scored { score, contributions }
        })
        .collect()
    }

    fn give_reasons(
        &self,
        items: &[u32],
        &Placed { user, query, .. }: &Placed<'_>,
        scored: Vec<Scored>,
    ) -> Vec<Ranked> {
        let (seen, weights) = self.sources.history.row(user);
        let evidence = heaviest_items(seen, weights);
        let words = self.parts.iter().find(|part| part.source == Source::Content);
        let knows_words = words.is_some_and(|part| query[part.columns.clone()].iter().any(|x| *x != 0.0));
        let rows = items.iter().zip(scored);
        rows.map(|(&item, Scored { score, contributions })| {
            let is_featured = self.sources.featured.get(item as usize).copied().unwrap_or(false);
            let strongest = strongest(&contributions, is_featured, self.weights(user));
            let reason = match seen.binary_search(&item) {
                Ok(_) => Reason::Again,
                Err(_) if seen.is_empty() && knows_words => Reason::Searched,
                Err(_) => self.evidence(user, item, strongest, &evidence),
            };
            Ranked { item, score, contributions, strongest, reason }
        })
        .collect()
    }

    fn evidence(&self, user: usize, item: u32, strongest: Source, history: &[(u32, f32)]) -> Reason {
        let popular = Reason::Popular { segment: self.sources.segments[user] };
        let by_vectors = |source: Source| {
            let at = self.sources.dense.iter().position(|dense| dense.0 == source)?;
            best_by_cosine(self.sources.dense[at].2, &self.norms[at], item, history)
        };
        let by_model = |source: Source| {
            let linear = self.sources.linear.iter().find(|linear| linear.source == source)?;
            best_by_model(linear, item, history)
        };
        let because = |item: u32| Reason::Because { item };
        let similar = |item: u32| Reason::Similar { item };
        let by_behavior = || by_vectors(Source::Factors).map(because);
        let by_content = || by_vectors(Source::Content).map(similar);
        let found = match strongest {
            Source::Popularity => Some(popular),
            Source::Trend => Some(Reason::Trending),
            Source::Rules => Some(Reason::Featured),
            Source::Content => by_content().or_else(by_behavior),
            Source::Sequence => by_model(strongest).map(|item| Reason::Follows { item }),
            Source::Ease | Source::Walk | Source::Cosine => by_model(strongest).map(because),
            Source::Spectral => by_vectors(strongest).map(because),
            Source::Factors | Source::History | Source::Repeat | Source::Peers => by_behavior(),
        };
        found.or_else(by_behavior).or_else(by_content).unwrap_or(popular)
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

/// What no cosine of two rows of some thousand numbers is above.
const NEARLY_ONE: f32 = 1.001;

/// The item with the largest `ln(1 + weight) · cos(item, it)` of a history by falling weight: a cheap stand-in for the
/// exact decomposition of Hu, Koren and Volinsky (2008, section 5), which needs a solve a user.
fn best_by_cosine(items: &Dense, norms: &[f32], item: u32, history: &[(u32, f32)]) -> Option<u32> {
    let (row, own) = (items.row(item as usize), norms[item as usize]);
    let mut best: Option<(f32, u32)> = None;
    for &(other, weight) in history {
        // No cosine is above 1, but for rounding, and no later weight above this one.
        if best.is_some_and(|(most, _)| most > weight * NEARLY_ONE) {
            break;
        }
        let length = own * norms[other as usize];
        if length == 0.0 {
            continue;
        }
        let speaks = weight * dot::<f32, _>(row, items.row(other as usize)) / length;
        if speaks > best.map_or(0.0, |(most, _)| most) {
            best = Some((speaks, other));
        }
    }
    best.map(|(_, item)| item)
}

/// The history's item whose row of the model gives the item most.
fn best_by_model(linear: &Linear<'_>, item: u32, history: &[(u32, f32)]) -> Option<u32> {
    let mut best: Option<(f32, u32)> = None;
    for &(other, weight) in history {
        let speaks = weight * linear.value(other, item);
        if speaks > best.map_or(0.0, |(most, _)| most) {
            best = Some((speaks, other));
        }
    }
    best.map(|(_, item)| item)
}

/// The source that gave most, of equals the first, of those that gave anything, as one that is switched off does not;
/// the rules only where they want the very item, and do not help it as one of the long tail, or to make a list diverse.
fn strongest(contributions: &[f32; N_SOURCES], is_featured: bool, weights: &Weights) -> Source {
    let gave = |source: &Source| contributions[*source as usize] != 0.0;
    let more = |best: Source, source: Source| {
        if contributions[source as usize] > contributions[best as usize] { source } else { best }
    };
    let sources = Source::weighed().chain(is_featured.then_some(Source::Rules));
    let counts = || Source::weighed().find(|source| weights.of(*source) > 0.0);
    sources.filter(gave).reduce(more).or_else(counts).unwrap_or(Source::Popularity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn evidence_is_what_looking_through_all_of_a_history_finds(
            values in prop::collection::vec(-1f32..1.0, 30 * 8),
            weights in prop::collection::vec(prop_oneof![0f32..4.0, Just(1.0), Just(0.0)], 30),
        ) {
            let items = Dense::from_vec(30, 8, values).unwrap();
            let norms: Vec<f32> = (0..30).map(|row| dot::<f32, _>(items.row(row), items.row(row)).sqrt()).collect();
            let history = heaviest_items(&(0..30).collect::<Vec<u32>>(), &weights);
            for item in 0..30u32 {
                let speaks = |other: u32, weight: f32| {
                    let length = norms[item as usize] * norms[other as usize];
                    weight * dot::<f32, _>(items.row(item as usize), items.row(other as usize)) / length
                };
                let most = history.iter().map(|&(other, weight)| speaks(other, weight)).fold(0f32, f32::max);
                let found = best_by_cosine(&items, &norms, item, &history);
                let of_found = found.map(|found| {
                    history.iter().find(|entry| entry.0 == found).map_or(0.0, |entry| speaks(entry.0, entry.1))
                });
                prop_assert_eq!(of_found.unwrap_or(0.0), most);
            }
        }
    }
}
