//! One user's scores from sparse models, over the whole catalogue.

use crate::matrix::Csr;
use crate::matrix::kernels::vectorized;

use super::Linear;

/// Scores of all items, those that nothing was added to 0. Which these are is marked while they are many: of a long
/// history's models they are few, and marks cost more than to go through all scores.
pub(super) struct Spread {
    scores: Vec<f32>,
    is_marked: Vec<bool>,
    marked: Vec<u32>,
    /// Whether so much was added that nothing is marked.
    is_full: bool,
}

/// Items that one entry's mark costs as much as to go through.
const ITEMS_A_MARK: usize = 8;
/// Sums side by side, in an order of their own on every machine.
const LANES: usize = 8;

impl Spread {
    pub(super) fn new(n_items: usize) -> Self {
        Self {
            scores: vec![0.0; n_items],
            is_marked: vec![false; n_items],
            marked: Vec::new(),
            is_full: false,
        }
    }

    /// Adds a user's scores: the model's rows of the history's items, each times its weight, in the order of
    /// the items, and from them what cold items inherit.
    pub(super) fn apply(&mut self, linear: &Linear<'_>, user: usize) {
        let history = linear.from.row(user);
        let n_entries: usize = history.0.iter().map(|item| linear.model.row(*item as usize).0.len()).sum();
        if n_entries > self.scores.len() / ITEMS_A_MARK {
            self.fill();
        }
        self.add_rows(history, linear.model);
        let Some(heirs) = linear.heirs else { return };
        // Nothing takes after a cold item, so what these get is passed on by nothing.
        if self.is_full {
            for item in 0..self.scores.len() {
                let (others, shares) = heirs.takes_after(item as u32);
                let inherited = others.iter().zip(shares).map(|(other, share)| share * self.of(*other));
                self.scores[item] += inherited.sum::<f32>();
            }
        } else {
            for at in 0..self.marked.len() {
                let (item, score) = (self.marked[at], self.of(self.marked[at]));
                let (cold, shares) = heirs.of(item);
                cold.iter().zip(shares).for_each(|(cold, share)| self.add(*cold, share * score));
            }
        }
        if heirs.own().n_rows() > 0 {
            self.add_rows(history, heirs.own());
        }
    }

    fn add_rows(&mut self, (items, weights): (&[u32], &[f32]), model: &Csr) {
        for (item, weight) in items.iter().zip(weights) {
            let (others, values) = model.row(*item as usize);
            let entries = others.iter().zip(values);
            if self.is_full {
                entries.for_each(|(other, value)| self.scores[*other as usize] += weight * value);
            } else {
                entries.for_each(|(other, value)| self.add(*other, weight * value));
            }
        }
    }

    pub(super) fn add(&mut self, item: u32, score: f32) {
        let at = item as usize;
        if !self.is_full && !self.is_marked[at] {
            self.is_marked[at] = true;
            self.marked.push(item);
        }
        self.scores[at] += score;
    }

    /// Adds another's scores, each times `scale`, and leaves it empty.
    pub(super) fn take(&mut self, other: &mut Self, scale: f64) {
        if other.is_full {
            self.fill();
            let (sums, scores) = (&mut self.scores[..], &other.scores[..]);
            vectorized(
                #[inline(always)]
                || {
                    sums.iter_mut()
                        .zip(scores)
                        .for_each(|(sum, score)| *sum += (f64::from(*score) * scale) as f32)
                },
            );
        } else {
            other.marked.iter().for_each(|item| self.add(*item, (f64::from(other.of(*item)) * scale) as f32));
        }
        other.clear();
    }

    pub(super) fn of(&self, item: u32) -> f32 {
        self.scores[item as usize]
    }

    /// Mean and standard deviation over the eligible items, those of score 0 included.
    pub(super) fn moments(&self, eligible: &[bool], n_eligible: usize) -> (f64, f64) {
        let (sum, squares) = if self.is_full {
            sums(&self.scores, eligible)
        } else {
            let own = self.marked.iter().filter(|item| eligible[**item as usize]);
            own.fold((0f64, 0f64), |(sum, squares), item| {
                let score = f64::from(self.of(*item));
                (sum + score, squares + score * score)
            })
        };
        let n = n_eligible.max(1) as f64;
        let mean = sum / n;
        (mean, (squares / n - mean * mean).max(0.0).sqrt())
    }

    /// Hands out the scores that are not 0, by ascending item, and forgets them.
    pub(super) fn drain(&mut self) -> Vec<(u32, f32)> {
        let row = if self.is_full {
            let mut row = Vec::with_capacity(self.scores.iter().filter(|score| **score != 0.0).count());
            row.extend((0..).zip(self.scores.iter().copied()).filter(|entry| entry.1 != 0.0));
            row
        } else {
            self.marked.sort_unstable();
            let mut row = Vec::with_capacity(self.marked.len());
            row.extend(self.marked.iter().map(|item| (*item, self.of(*item))).filter(|entry| entry.1 != 0.0));
            row
        };
        self.clear();
        row
    }

    /// Forgets all scores.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_full) {
            self.scores.fill(0.0);
        }
        for item in self.marked.drain(..) {
            self.scores[item as usize] = 0.0;
            self.is_marked[item as usize] = false;
        }
    }

    /// From now on nothing is marked.
    fn fill(&mut self) {
        self.is_full = true;
        self.marked.drain(..).for_each(|item| self.is_marked[item as usize] = false);
    }
}

/// The sums of the eligible items' scores and of their squares.
fn sums(scores: &[f32], eligible: &[bool]) -> (f64, f64) {
    let (mut sums, mut squares) = ([0f64; LANES], [0f64; LANES]);
    let (whole, rest) = scores.as_chunks::<LANES>();
    let (flags, last) = eligible.as_chunks::<LANES>();
    vectorized(
        #[inline(always)]
        || {
            for (scores, flags) in whole.iter().zip(flags) {
                for lane in 0..LANES {
                    let score = f64::from(scores[lane]) * f64::from(u8::from(flags[lane]));
                    sums[lane] += score;
                    squares[lane] += score * score;
                }
            }
        },
    );
    let rest = rest.iter().zip(last).filter(|entry| *entry.1).map(|entry| f64::from(*entry.0));
    let (rest, rest_squared) = rest.fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    (sums.iter().sum::<f64>() + rest, squares.iter().sum::<f64>() + rest_squared)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ranking::Source;

    proptest! {
        /// Full or marked, over one model or taken from another: what is summed by hand.
        #[test]
        fn scores_are_sums_over_the_history(
            n_items in 1usize..60,
            entries in prop::collection::btree_map((0u32..60, 0u32..60), -1f32..1.0, 0..300),
            history in prop::collection::btree_map(0u32..60, 0.1f32..2.0, 0..20),
            flags in prop::collection::vec(any::<bool>(), 60),
        ) {
            let n = n_items as u32;
            let mut rows = vec![Vec::new(); n_items];
            entries.iter().filter(|((row, col), _)| *row < n && *col < n)
                .for_each(|((row, col), value)| rows[*row as usize].push((*col, *value)));
            let model = Csr::from_rows(n_items, rows.clone());
            let history: Vec<(u32, f32)> = history.into_iter().filter(|entry| entry.0 < n).collect();
            let from = Csr::from_rows(n_items, vec![history.clone()]);
            let mut expected = vec![0f32; n_items];
            for (item, weight) in &history {
                rows[*item as usize].iter().for_each(|(other, value)| expected[*other as usize] += weight * value);
            }
            let linear = Linear { source: Source::Ease, from: &from, model: &model, heirs: None };
            let (mut one, mut all) = (Spread::new(n_items), Spread::new(n_items));
            one.apply(&linear, 0);
            let flags = &flags[..n_items];
            let listed: Vec<f64> =
                expected.iter().zip(flags).filter(|entry| *entry.1).map(|entry| f64::from(*entry.0)).collect();
            let n_listed = listed.len().max(1) as f64;
            let mean = listed.iter().sum::<f64>() / n_listed;
            let variance = listed.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n_listed;
            let (found_mean, found_deviation) = one.moments(flags, listed.len());
            prop_assert!((found_mean - mean).abs() < 1e-9 && (found_deviation - variance.sqrt()).abs() < 1e-7);
            prop_assert!((0..n).all(|item| one.of(item) == expected[item as usize]));
            all.take(&mut one, 2.0);
            prop_assert!((0..n).all(|item| one.of(item) == 0.0));
            all.add(0, 0.5);
            expected.iter_mut().for_each(|score| *score *= 2.0);
            expected[0] += 0.5;
            let expected: Vec<(u32, f32)> = (0..).zip(expected).filter(|entry| entry.1 != 0.0).collect();
            prop_assert_eq!(all.drain(), expected);
            prop_assert!(all.drain().is_empty());
        }
    }
}
