//! Coordinate ascent on NDCG itself.

use std::ops::Range;

use rayon::prelude::*;

use super::Group;

/// Multiples that a weight above 0 is tried at.
const MULTIPLES: [f32; 8] = [0.0, 0.25, 0.5, 0.8, 1.25, 1.6, 2.5, 5.0];
/// Shares of the largest weight that a weight of 0 is tried at.
const SHARES: [f32; 5] = [0.01, 0.03, 0.1, 0.3, 1.0];
/// Rounds after which the ascent ends even where it still gains.
const MAX_ROUNDS: usize = 20;

/// Some users' candidates, a column a source.
pub(super) struct Candidates<'a> {
    groups: Vec<&'a Group>,
    /// Each group's place in the columns.
    places: Vec<Range<usize>>,
    columns: Vec<Vec<f32>>,
    k: usize,
}

impl<'a> Candidates<'a> {
    /// # Panics
    /// If a group's scores are not `n × n_sources`.
    pub(super) fn new(groups: Vec<&'a Group>, n_sources: usize, k: usize) -> Self {
        let mut end = 0;
        let place = |group: &&Group| {
            assert_eq!(group.scores.len(), group.relevant.len() * n_sources, "scores are n × n_sources");
            let place = end..end + group.relevant.len();
            end = place.end;
            place
        };
        let places = groups.iter().map(place).collect();
        let column = |source: usize| {
            let scores = groups.iter().flat_map(|group| group.scores.chunks_exact(n_sources));
            scores.map(|scores| scores[source]).collect()
        };
        let columns = (0..n_sources).into_par_iter().map(column).collect();
        Self { groups, places, columns, k }
    }

    /// The mean NDCG@K of all groups.
    pub(super) fn ndcg(&self, weights: &[f32]) -> f64 {
        mean(&self.each(weights))
    }

    /// Each group's NDCG@K.
    pub(super) fn each(&self, weights: &[f32]) -> Vec<f64> {
        let scores = self.scores(weights, None);
        self.each_by(|at| scores[at])
    }

    /// The weights that climbing from `start` ends at, and the mean NDCG@K there.
    pub(super) fn climb(&self, mut weights: Vec<f32>, least_gain: f64) -> (Vec<f32>, f64) {
        let mut best = self.ndcg(&weights);
        for _ in 0..MAX_ROUNDS {
            let before = best;
            for source in 0..weights.len() {
                let (others, own) = (self.scores(&weights, Some(source)), &self.columns[source]);
                let (weight, largest) = (weights[source], weights.iter().copied().fold(0.0, f32::max));
                let tried: Vec<f32> = if weight > 0.0 {
                    MULTIPLES.iter().map(|multiple| weight * multiple).collect()
                } else {
                    SHARES.iter().map(|share| largest * share).collect()
                };
                let counts_alone = weights.iter().enumerate().all(|(at, w)| at == source || *w == 0.0);
                for tried in tried {
                    // A source that can go at no loss goes: fewer sources are cheaper and sturdier.
                    let gain = if tried == 0.0 { 0.0 } else { least_gain };
                    if tried == 0.0 && counts_alone {
                        continue;
                    }
                    let reached = mean(&self.each_by(|at| others[at] + tried * own[at]));
                    if reached >= best + gain {
                        (weights[source], best) = (tried, reached);
                    }
                }
            }
            if best < before + least_gain {
                break;
            }
        }
        (weights, best)
    }

    /// Every candidate's weighted sum, but for one source.
    fn scores(&self, weights: &[f32], without: Option<usize>) -> Vec<f32> {
        let mut scores = vec![0f32; self.columns[0].len()];
        for (source, (weight, column)) in weights.iter().zip(&self.columns).enumerate() {
            if *weight != 0.0 && Some(source) != without {
                scores.par_iter_mut().zip(column).for_each(|(sum, score)| *sum += weight * score);
            }
        }
        scores
    }

    fn each_by(&self, score: impl Fn(usize) -> f32 + Sync) -> Vec<f64> {
        let groups = self.groups.par_iter().zip(&self.places);
        groups
            .map_init(Vec::new, |best, (group, place)| group.ndcg(|at| score(place.start + at), self.k, best))
            .collect()
    }
}

/// Summed in order, so that threads change nothing.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

impl Group {
    /// Binary gains, `1 / log2(rank + 1)`, the ideal cut at `min(n_relevant, k)`; of equal scores the
    /// earlier candidate comes first.
    pub(super) fn ndcg(&self, score: impl Fn(usize) -> f32, k: usize, best: &mut Vec<(f32, usize)>) -> f64 {
        best.clear();
        for at in 0..self.relevant.len() {
            let score = score(at);
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
