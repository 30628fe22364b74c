//! One user's scores from one sparse model, over the whole catalogue.

use crate::matrix::Csr;

use super::Linear;

/// Scores of all items, most of them untouched and 0.
pub(super) struct Spread {
    scores: Vec<f32>,
    is_touched: Vec<bool>,
    touched: Vec<u32>,
}

impl Spread {
    pub(super) fn new(n_items: usize) -> Self {
        Self { scores: vec![0.0; n_items], is_touched: vec![false; n_items], touched: Vec::new() }
    }

    /// Adds a user's scores: the model's rows of the history's items, each times its weight, in the order of
    /// the items, and from them what cold items inherit.
    pub(super) fn apply(&mut self, linear: &Linear<'_>, user: usize) {
        let history = linear.from.row(user);
        self.add_rows(history, linear.model);
        let Some(heirs) = linear.heirs else { return };
        // Nothing takes after a cold item, so what is touched from here on passes nothing on.
        for at in 0..self.touched.len() {
            let (item, score) = (self.touched[at], self.of(self.touched[at]));
            let (cold, shares) = heirs.of(item);
            cold.iter().zip(shares).for_each(|(cold, share)| self.add(*cold, share * score));
        }
        if heirs.own().n_rows() > 0 {
            self.add_rows(history, heirs.own());
        }
    }

    fn add_rows(&mut self, (items, weights): (&[u32], &[f32]), model: &Csr) {
        for (item, weight) in items.iter().zip(weights) {
            let (others, values) = model.row(*item as usize);
            for (other, value) in others.iter().zip(values) {
                self.add(*other, weight * value);
            }
        }
    }

    pub(super) fn add(&mut self, item: u32, score: f32) {
        let at = item as usize;
        if !self.is_touched[at] {
            self.is_touched[at] = true;
            self.touched.push(item);
        }
        self.scores[at] += score;
    }

    pub(super) fn of(&self, item: u32) -> f32 {
        self.scores[item as usize]
    }

    /// Mean and standard deviation over the eligible items, the untouched ones included.
    pub(super) fn moments(&self, eligible: &[bool], n_eligible: usize) -> (f64, f64) {
        let (mut sum, mut squares) = (0f64, 0f64);
        for item in self.touched.iter().filter(|item| eligible[**item as usize]) {
            let score = f64::from(self.scores[*item as usize]);
            sum += score;
            squares += score * score;
        }
        let n = n_eligible.max(1) as f64;
        let mean = sum / n;
        (mean, (squares / n - mean * mean).max(0.0).sqrt())
    }

    /// Hands out the touched items and forgets them.
    pub(super) fn drain(&mut self, mut take: impl FnMut(u32, f32)) {
        for item in self.touched.drain(..) {
            let at = item as usize;
            self.is_touched[at] = false;
            take(item, std::mem::take(&mut self.scores[at]));
        }
    }
}
