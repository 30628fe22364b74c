//! Non-negative weights of scores, learned to put what users turned to first.
//!
//! In: groups, one a user: candidates with their score in each source (`n × n_sources`, row-major),
//! which of them the user turned to, and how many the user turned to in all. Out: one weight a source,
//! the largest 1, and the mean NDCG@K that they reach.
//!
//! **How.** Coordinate ascent (Metzler and Croft, "Linear feature-based models for information
//! retrieval", 2007): one weight at a time is tried at several multiples and kept where the mean
//! NDCG@K over all groups rises by more than [`Config::least_gain`], until a whole round brings nothing.
//! NDCG is not differentiable and has many small steps; a few hundred evaluations of the metric itself
//! find better weights than a smooth stand-in, and a handful of weights cannot overfit thousands of
//! users by much. The ascent starts from every source alone and from all alike, whichever is best.
//!
//! **Cost.** Some hundred passes over all candidates, parallel over groups. Means are summed in the order
//! of the groups, so a result does not depend on the number of threads.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// How weights are learned.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The list length that NDCG is cut at.
    pub k: usize,
    /// Users whose lists are learned from, drawn by the seed; their time and memory are linear in it.
    pub users: usize,
    /// Candidates that each source proposes a user.
    pub candidates: usize,
    /// NDCG that a change of one weight must gain.
    pub least_gain: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { k: 20, users: 5_000, candidates: 100, least_gain: 2e-5 }
    }
}

/// One user's candidates.
#[derive(Clone, Debug)]
pub struct Group {
    /// `n × n_sources`: each candidate's score in each source.
    pub scores: Vec<f32>,
    /// Whether the user turned to the candidate.
    pub relevant: Vec<bool>,
    /// How many items the user turned to, candidates or not.
    pub n_relevant: usize,
}

/// What was learned.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// One a source, from 0 to 1.
    pub weights: Vec<f32>,
    /// The mean NDCG@K of the groups under these weights.
    pub ndcg: f64,
    /// The same under every source alone.
    pub alone: Vec<f64>,
}

/// Multiples that a weight above 0 is tried at.
const MULTIPLES: [f32; 8] = [0.0, 0.25, 0.5, 0.8, 1.25, 1.6, 2.5, 5.0];
/// Shares of the largest weight that a weight of 0 is tried at.
const SHARES: [f32; 5] = [0.01, 0.03, 0.1, 0.3, 1.0];
/// Rounds after which the ascent ends even where it still gains.
const MAX_ROUNDS: usize = 20;

/// Learns one weight a source.
///
/// # Panics
/// If a group's scores are not `n × n_sources`.
pub fn learn(groups: &[Group], n_sources: usize, config: &Config) -> Learned {
    for group in groups {
        assert_eq!(group.scores.len(), group.relevant.len() * n_sources, "scores are n × n_sources");
    }
    let ascent = Ascent { groups, n_sources, k: config.k };
    let unit = |source: usize| (0..n_sources).map(|at| f32::from(at == source)).collect::<Vec<f32>>();
    let alone: Vec<f64> = (0..n_sources).map(|source| ascent.ndcg(&unit(source))).collect();
    let best = (0..n_sources).fold(0, |best, at| if alone[at] > alone[best] { at } else { best });
    let starts = [vec![1.0; n_sources], unit(best)];
    let (mut weights, mut ndcg) = (Vec::new(), f64::MIN);
    for start in starts {
        let (found, reached) = ascent.climb(start, config.least_gain);
        if reached > ndcg {
            (weights, ndcg) = (found, reached);
        }
    }
    let largest = weights.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    Learned { weights: weights.into_iter().map(|weight| weight / largest).collect(), ndcg, alone }
}

struct Ascent<'a> {
    groups: &'a [Group],
    n_sources: usize,
    k: usize,
}

impl Ascent<'_> {
    fn climb(&self, mut weights: Vec<f32>, least_gain: f64) -> (Vec<f32>, f64) {
        let mut best = self.ndcg(&weights);
        for _ in 0..MAX_ROUNDS {
            let before = best;
            for source in 0..self.n_sources {
                let own = weights[source];
                let largest = weights.iter().copied().fold(0.0, f32::max);
                let tried: Vec<f32> = if own > 0.0 {
                    MULTIPLES.iter().map(|multiple| own * multiple).collect()
                } else {
                    SHARES.iter().map(|share| largest * share).collect()
                };
                for weight in tried {
                    let mut changed = weights.clone();
                    changed[source] = weight;
                    let reached = self.ndcg(&changed);
                    // A source that can go at no loss goes: fewer sources are cheaper and sturdier.
                    let gain = if weight == 0.0 { 0.0 } else { least_gain };
                    if changed.iter().any(|weight| *weight > 0.0) && reached >= best + gain {
                        (weights, best) = (changed, reached);
                    }
                }
            }
            if best < before + least_gain {
                break;
            }
        }
        (weights, best)
    }

    /// The mean NDCG@K of all groups.
    fn ndcg(&self, weights: &[f32]) -> f64 {
        let each: Vec<f64> = self
            .groups
            .par_iter()
            .map_init(Vec::new, |best, group| group.ndcg(weights, self.k, best))
            .collect();
        each.iter().sum::<f64>() / each.len().max(1) as f64
    }
}

impl Group {
    /// Binary gains, `1 / log2(rank + 1)`, the ideal cut at `min(n_relevant, k)`; of equal scores the
    /// earlier candidate comes first.
    fn ndcg(&self, weights: &[f32], k: usize, best: &mut Vec<(f32, usize)>) -> f64 {
        best.clear();
        for (at, scores) in self.scores.chunks_exact(weights.len()).enumerate() {
            let score: f32 = scores.iter().zip(weights).map(|(score, weight)| score * weight).sum();
            if best.len() == k && best.last().is_none_or(|last| score <= last.0) {
                continue;
            }
            let place = best.partition_point(|other| other.0 >= score);
            best.insert(place, (score, at));
            best.truncate(k);
        }
        let discount = |rank: usize| 1.0 / ((rank + 2) as f64).log2();
        let gained: f64 = best
            .iter()
            .enumerate()
            .filter(|(_, (_, at))| self.relevant[*at])
            .map(|(rank, _)| discount(rank))
            .sum();
        let ideal: f64 = (0..self.n_relevant.min(k)).map(discount).sum();
        if ideal > 0.0 { gained / ideal } else { 0.0 }
    }
}
