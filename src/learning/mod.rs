//! Non-negative weights of scores, learned to put what users turned to first.
//!
//! In: groups, one a user: candidates with their score in each source (`n × n_sources`, row-major),
//! which of them the user turned to, how many the user turned to in all, and the user's segment. Out: one
//! weight a source, the largest 1, for all users and for each segment that gains by its own, and what
//! fusing gains.
//!
//! **How.** Coordinate ascent (Metzler and Croft, "Linear feature-based models for information
//! retrieval", 2007): one weight at a time is tried at several multiples and kept where the mean
//! NDCG@K over all groups rises by more than [`Config::least_gain`], until a whole round brings nothing.
//! NDCG is not differentiable and has many small steps; a few hundred evaluations of the metric itself
//! find better weights than a smooth stand-in, and a handful of weights cannot overfit thousands of
//! users by much. The ascent starts from the best source alone and from all alike; the better end counts.
//!
//! A segment's ascent starts from everybody's weights, and what a change must gain grows as the segment
//! shrinks. Its weights are kept only if weights learned from one half of its users do better than
//! everybody's on the other half, by more than the standard error of that gain; a segment of fewer than
//! [`Config::segment_users`] users has everybody's.
//!
//! **Lift.** What the fusion gains over the best source alone is measured on users whom neither was chosen
//! by: learned from either half of the users, measured on the other.
//!
//! **Cost.** Some thousand passes over all candidates, parallel over groups. Means are summed in the order
//! of the groups, so a result does not depend on the number of threads.

use serde::{Deserialize, Serialize};

mod ascent;
mod calibration;
#[cfg(test)]
mod tests;

use ascent::{Candidates, mean};
pub use calibration::{Calibration, Listed, calibrate};

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
    /// Users that a segment must have for weights of its own.
    pub segment_users: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { k: 20, users: 5_000, candidates: 100, least_gain: 1e-4, segment_users: 500 }
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
    /// The user's segment.
    pub segment: u32,
}

/// What was learned.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// What counts for everybody.
    pub mix: Mix,
    /// The mean NDCG@K of the groups under the mix.
    pub ndcg: f64,
    /// The same under every source alone.
    pub alone: Vec<f64>,
    /// Each group's NDCG@K under weights that it was not learned from.
    pub crossed: Vec<f64>,
    /// What fusing gains, on users not learned from.
    pub lift: Lift,
}

/// Weights, one a source, from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// Of everybody.
    pub all: Vec<f32>,
    /// Of the segments that have their own, by segment.
    pub segments: Vec<(u32, Vec<f32>)>,
}

/// NDCG@K of the fusion less that of the best source alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lift {
    /// The best source.
    pub over: usize,
    /// By how much.
    pub gain: Gain,
}

/// What users gain on average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gain {
    /// The mean over users.
    pub mean: f64,
    /// Its standard error.
    pub error: f64,
    /// How many users these are.
    pub users: usize,
}

/// Users of whom a mean has the error that the central limit theorem says; what fewer say may be chance.
pub const ENOUGH_USERS: usize = 30;

impl Gain {
    /// Of each user's own gain.
    pub fn of(users: &[f64]) -> Self {
        let (n, mean) = (users.len() as f64, mean(users));
        let variance = users.iter().map(|gain| (gain - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        Self { mean, error: (variance / n.max(1.0)).sqrt(), users: users.len() }
    }

    /// Whether it is more than twice its own error, which chance does once in forty times, and that of enough users
    /// to know its error.
    pub fn is_clear(&self) -> bool {
        self.users >= ENOUGH_USERS && self.mean > 2.0 * self.error
    }

    /// The 95 % interval of the mean, by the central limit theorem.
    pub fn interval(&self) -> (f64, f64) {
        (self.mean - 1.96 * self.error, self.mean + 1.96 * self.error)
    }
}

/// Learns the weights of `n_sources` sources.
///
/// # Panics
/// If a group's scores are not `n × n_sources`.
pub fn learn(groups: &[Group], n_sources: usize, config: &Config) -> Learned {
    let everybody: Vec<&Group> = groups.iter().collect();
    let (mix, alone) = mix(&everybody, n_sources, config);
    let ndcg = mean(&each(&everybody, &mix, n_sources, config.k));
    let halves = halves(&everybody);
    let (mut gains, mut crossed) = (Vec::with_capacity(groups.len()), vec![0.0; groups.len()]);
    for (first, learn_from, other) in [(1, &halves.0, &halves.1), (0, &halves.1, &halves.0)] {
        let (mix, alone) = self::mix(learn_from, n_sources, config);
        let fused = each(other, &mix, n_sources, config.k);
        crossed.iter_mut().skip(first).step_by(2).zip(&fused).for_each(|(all, own)| *all = *own);
        let single = Candidates::new(other.clone(), n_sources, config.k).each(&unit(best(&alone), n_sources));
        gains.extend(fused.iter().zip(single).map(|(fused, single)| fused - single));
    }
    let lift = Lift { over: best(&alone), gain: Gain::of(&gains) };
    Learned { mix, ndcg, alone, crossed, lift }
}

/// A group's NDCG@K where it has scores of one source.
pub fn ndcg(group: &Group, k: usize) -> f64 {
    group.ndcg(|at| group.scores[at], k, &mut Vec::new())
}

/// The weights of some users, and NDCG@K under every source alone.
fn mix(groups: &[&Group], n_sources: usize, config: &Config) -> (Mix, Vec<f64>) {
    let candidates = Candidates::new(groups.to_vec(), n_sources, config.k);
    let alone: Vec<f64> = (0..n_sources).map(|source| candidates.ndcg(&unit(source, n_sources))).collect();
    let (mut all, mut ndcg) = (Vec::new(), f64::MIN);
    for start in [vec![1.0; n_sources], unit(best(&alone), n_sources)] {
        let (found, reached) = candidates.climb(start, config.least_gain);
        if reached > ndcg {
            (all, ndcg) = (found, reached);
        }
    }
    let all = to_one(all);
    let mut named: Vec<u32> = groups.iter().map(|group| group.segment).collect();
    named.sort_unstable();
    named.dedup();
    let mut segments = Vec::new();
    for segment in named {
        let own: Vec<&Group> = groups.iter().copied().filter(|group| group.segment == segment).collect();
        if own.len() == groups.len() || own.len() < config.segment_users {
            continue;
        }
        let least_gain = config.least_gain * (groups.len() as f64 / own.len() as f64).sqrt();
        let climb = |groups: Vec<&Group>| {
            to_one(Candidates::new(groups, n_sources, config.k).climb(all.clone(), least_gain).0)
        };
        let halves = halves(&own);
        let mut gains = Vec::with_capacity(own.len());
        for (learn_from, other) in [(&halves.0, &halves.1), (&halves.1, &halves.0)] {
            let weights = climb(learn_from.clone());
            let other = Candidates::new(other.clone(), n_sources, config.k);
            gains.extend(other.each(&weights).iter().zip(other.each(&all)).map(|(own, all)| own - all));
        }
        if Gain::of(&gains).is_clear() {
            segments.push((segment, climb(own)));
        }
    }
    (Mix { all, segments }, alone)
}

/// Each group's NDCG@K under a mix.
fn each(groups: &[&Group], mix: &Mix, n_sources: usize, k: usize) -> Vec<f64> {
    let mut ndcg = Candidates::new(groups.to_vec(), n_sources, k).each(&mix.all);
    for (segment, weights) in &mix.segments {
        let (places, own): (Vec<usize>, Vec<&Group>) =
            groups.iter().enumerate().filter(|(_, group)| group.segment == *segment).unzip();
        let own = Candidates::new(own, n_sources, k).each(weights);
        places.into_iter().zip(own).for_each(|(at, value)| ndcg[at] = value);
    }
    ndcg
}

/// Every other group, and the rest.
fn halves<'a>(groups: &[&'a Group]) -> (Vec<&'a Group>, Vec<&'a Group>) {
    let half = |rest: usize| groups.iter().copied().skip(rest).step_by(2).collect();
    (half(0), half(1))
}

fn unit(source: usize, n_sources: usize) -> Vec<f32> {
    (0..n_sources).map(|at| f32::from(at == source)).collect()
}

/// The source of the largest value; of equals the first.
fn best(alone: &[f64]) -> usize {
    (0..alone.len()).fold(0, |best, at| if alone[at] > alone[best] { at } else { best })
}

/// Scaled so that the largest is 1.
fn to_one(mut weights: Vec<f32>) -> Vec<f32> {
    let largest = weights.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    weights.iter_mut().for_each(|weight| *weight /= largest);
    weights
}
