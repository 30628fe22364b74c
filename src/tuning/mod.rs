//! Which keys of a job to try next, and at what.
//!
//! In: the trials so far. Out: one source's keys and values for them. A trial changes the keys of one
//! source alone and leaves all others at the best found so far, so that it costs one model and not all;
//! sources take turns, and one whose last [`PATIENCE`] trials gained nothing is done.
//!
//! Values come from the tree-structured Parzen estimator (Bergstra, Bardenet, Bengio and Kégl, "Algorithms
//! for hyper-parameter optimization", 2011), a key at a time, on the key's own scale. What a trial is
//! worth is its gain over the best before it. Draws are seeded by the number of a source's trials, so
//! that a search that goes on proposes what it would have proposed without a break.

use rand::SeedableRng;
use rand::rngs::StdRng;

#[cfg(test)]
mod tests;

/// Trials without a gain after which a source is done.
pub const PATIENCE: usize = 6;

/// Keys that one model depends on.
#[derive(Debug)]
pub struct Block {
    /// Its name: the source's, or `recency` for what all linear sources share.
    pub name: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// A key of the job and where its values are looked for.
#[derive(Debug)]
pub struct Key {
    /// As in the job file.
    pub name: &'static str,
    from: f64,
    to: f64,
    scale: Scale,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    Linear,
    Log,
    /// Whole numbers, on a logarithmic scale.
    Whole,
}

const fn key(name: &'static str, scale: Scale, from: f64, to: f64) -> Key {
    Key { name, from, to, scale }
}

/// What is tuned, in the order of turns.
pub const BLOCKS: [Block; 9] = [
    Block {
        name: "factors",
        keys: &[
            key("factors.rank", Scale::Whole, 16.0, 256.0),
            key("factors.unobserved_weight", Scale::Log, 0.001, 3.0),
            key("factors.regularization", Scale::Log, 1e-5, 0.1),
            key("factors.regularization_exponent", Scale::Linear, 0.3, 1.2),
        ],
    },
    Block { name: "recency", keys: &[key("linear.recency", Scale::Linear, 0.2, 1.0)] },
    Block { name: "spectral", keys: &[key("linear.spectral_rank", Scale::Whole, 16.0, 512.0)] },
    Block {
        name: "walk",
        keys: &[
            key("linear.walk_alpha", Scale::Linear, 0.0, 1.2),
            key("linear.walk_beta", Scale::Linear, 0.0, 1.2),
        ],
    },
    Block { name: "ease", keys: &[key("linear.ease_regularization", Scale::Log, 5.0, 10_000.0)] },
    Block { name: "cosine", keys: &[key("linear.shrinkage", Scale::Log, 0.5, 500.0)] },
    Block { name: "peers", keys: &[key("linear.peers", Scale::Whole, 20.0, 1_000.0)] },
    Block { name: "sequence", keys: &[key("linear.sequence_steps", Scale::Whole, 1.0, 12.0)] },
    Block {
        name: "repeat",
        keys: &[
            key("repeat.prior_visits", Scale::Log, 1.0, 50.0),
            key("repeat.half_life_days", Scale::Log, 15.0, 1_000.0),
        ],
    },
];

/// What was tried and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The block's name.
    pub block: String,
    /// A value for each of its keys, in their order.
    pub values: Vec<f64>,
    /// What it gained over the best before it.
    pub gain: f64,
    /// Whether it was kept.
    pub kept: bool,
}

/// Why nothing could be proposed.
#[derive(Debug, thiserror::Error)]
#[error("cannot propose a value of `{key}`: {problem}")]
pub struct Error {
    /// Which key.
    pub key: &'static str,
    /// What the estimator said.
    pub problem: String,
}

/// The next block and values for its keys; `None` when all blocks are done. `allowed` says whether a job
/// has a block's model, and `own` the values that the search began with.
///
/// # Errors
/// If a value lies outside its key's range.
pub fn propose(
    trials: &[Trial],
    allowed: impl Fn(&Block) -> bool,
    own: impl Fn(&Key) -> Option<f64>,
    seed: u64,
) -> Result<Option<(&'static Block, Vec<f64>)>, Error> {
    let of = |block: &Block| trials.iter().filter(|trial| trial.block == block.name).collect::<Vec<_>>();
    let is_open = |block: &&Block| {
        let trials = of(block);
        allowed(block)
            && !(trials.len() >= PATIENCE
                && trials[trials.len() - PATIENCE..].iter().all(|trial| !trial.kept))
    };
    // Of the open blocks the one with the fewest trials; of equals the first.
    let Some((n_trials, block)) =
        BLOCKS.iter().filter(is_open).map(|block| (of(block).len(), block)).min_by_key(|(n, _)| *n)
    else {
        return Ok(None);
    };
    let mut values = Vec::with_capacity(block.keys.len());
    for (at, key) in block.keys.iter().enumerate() {
        let failed = |problem: String| Error { key: key.name, problem };
        let range = tpe::range(0.0, 1.0 + 1e-9).map_err(|error| failed(error.to_string()))?;
        let mut estimator = tpe::TpeOptimizer::new(tpe::parzen_estimator(), range);
        let mut tell = |value: f64, gain: f64| {
            estimator.tell(key.place(value), -gain).map_err(|error| failed(error.to_string()))
        };
        if let Some(value) = own(key) {
            tell(value, 0.0)?;
        }
        for trial in of(block) {
            tell(trial.values[at], trial.gain)?;
        }
        let mut draws = StdRng::seed_from_u64(crate::random::split_mix(
            seed ^ crate::random::split_mix((n_trials * BLOCKS.len() + at) as u64),
        ));
        let place = estimator.ask(&mut draws).map_err(|error| failed(error.to_string()))?;
        values.push(key.value(place));
    }
    Ok(Some((block, values)))
}

impl Key {
    /// A value as the job file has it.
    pub fn text(&self, value: f64) -> String {
        if self.scale == Scale::Whole { format!("{}", value as u64) } else { format!("{value:?}") }
    }

    /// Where between its ends a value lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let of =
            |value: f64| if self.scale == Scale::Linear { value } else { value.max(f64::MIN_POSITIVE).ln() };
        ((of(value) - of(self.from)) / (of(self.to) - of(self.from))).clamp(0.0, 1.0)
    }

    /// The value at a place, in two digits: more would only pretend to matter.
    fn value(&self, place: f64) -> f64 {
        let place = place.clamp(0.0, 1.0);
        let value = match self.scale {
            Scale::Linear => self.from + place * (self.to - self.from),
            Scale::Log | Scale::Whole => (self.from.ln() + place * (self.to / self.from).ln()).exp(),
        };
        let rounded = match self.scale {
            Scale::Whole => value.round(),
            _ => format!("{value:.1e}").parse().unwrap_or(value),
        };
        rounded.clamp(self.from, self.to)
    }
}
