//! What a fused score is worth as a probability.
//!
//! Platt scaling (Platt, "Probabilistic outputs for support vector machines and comparisons to regularized
//! likelihood methods", 1999): the logistic regression of what became of a listed item on its score, here
//! with the logarithm of its rank beside it, `p = σ(intercept + score · s + ln_rank · ln r)`. Outcomes are
//! drawn in a little, as Platt does, `(n₊ + 1) / (n₊ + 2)` for a hit and `1 / (n₋ + 2)` for a miss, so that
//! the fit stays finite where scores tell hits and misses apart. Newton's method with halved steps (Lin,
//! Lin and Weng, "A note on Platt's probabilistic outputs for support vector machines", 2007).

use serde::{Deserialize, Serialize};

/// One row of a list and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// The fused score, such that those of different users compare.
    pub score: f32,
    /// From 1.
    pub rank: usize,
    /// Whether the user turned to the item.
    pub hit: bool,
}

/// Coefficients of the log-odds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Of 1.
    pub intercept: f64,
    /// Of the score.
    pub score: f64,
    /// Of the rank's natural logarithm.
    pub ln_rank: f64,
}

impl Calibration {
    /// How likely the item of a row is turned to.
    pub fn probability(&self, score: f32, rank: usize) -> f64 {
        let of = [self.intercept, self.score, self.ln_rank];
        sigmoid(dot(&of, &features(score, rank)))
    }
}

const N: usize = 3;
/// Steps after which the fit ends in any case; it converges in about ten.
const MAX_STEPS: usize = 100;
/// The fit ends where no coefficient's slope is above this share of the rows.
const FLAT: f64 = 1e-9;
/// Added to the curvature, relative to its trace: scores that never differ leave it singular.
const DAMPING: f64 = 1e-9;

/// Fits the coefficients; none where rows are all hits or all misses.
pub fn calibrate(rows: &[Listed]) -> Option<Calibration> {
    let hits = rows.iter().filter(|row| row.hit).count() as f64;
    let misses = rows.len() as f64 - hits;
    if hits == 0.0 || misses == 0.0 {
        return None;
    }
    let (high, low) = ((hits + 1.0) / (hits + 2.0), 1.0 / (misses + 2.0));
    let fit = Fit {
        rows: rows
            .iter()
            .map(|row| (features(row.score, row.rank), if row.hit { high } else { low }))
            .collect(),
    };
    let mut of = [((hits + 1.0) / (misses + 1.0)).ln(), 0.0, 0.0];
    let mut loss = fit.loss(&of);
    for _ in 0..MAX_STEPS {
        let (slope, curvature) = fit.derivatives(&of);
        if slope.iter().all(|slope| slope.abs() < FLAT * rows.len() as f64) {
            break;
        }
        let step = solve(curvature, slope);
        let tried = (0..30).map(|halvings| 0.5f64.powi(halvings)).find_map(|length| {
            let next: [f64; N] = std::array::from_fn(|at| of[at] - length * step[at]);
            let reached = fit.loss(&next);
            (reached < loss).then_some((next, reached))
        });
        match tried {
            Some(better) => (of, loss) = better,
            None => break,
        }
    }
    let [intercept, score, ln_rank] = of;
    Some(Calibration { intercept, score, ln_rank })
}

fn features(score: f32, rank: usize) -> [f64; N] {
    [1.0, f64::from(score), (rank as f64).ln()]
}

fn dot(a: &[f64; N], b: &[f64; N]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn sigmoid(odds: f64) -> f64 {
    1.0 / (1.0 + (-odds).exp())
}

/// Features and targets. Sums run over rows in their order, so that a fit is the same on any machine.
struct Fit {
    rows: Vec<([f64; N], f64)>,
}

impl Fit {
    /// The cross-entropy.
    fn loss(&self, of: &[f64; N]) -> f64 {
        let one = |(x, target): &([f64; N], f64)| {
            let odds = dot(of, x);
            // ln(1 + e^odds) without overflow.
            odds.max(0.0) + (-odds.abs()).exp().ln_1p() - target * odds
        };
        self.rows.iter().map(one).sum()
    }

    fn derivatives(&self, of: &[f64; N]) -> ([f64; N], [[f64; N]; N]) {
        let (mut slope, mut curvature) = ([0.0; N], [[0.0; N]; N]);
        for (x, target) in &self.rows {
            let p = sigmoid(dot(of, x));
            for at in 0..N {
                slope[at] += (p - target) * x[at];
                for other in 0..N {
                    curvature[at][other] += p * (1.0 - p) * x[at] * x[other];
                }
            }
        }
        let trace: f64 = (0..N).map(|at| curvature[at][at]).sum();
        (0..N).for_each(|at| curvature[at][at] += DAMPING * trace);
        (slope, curvature)
    }
}

/// `A⁻¹ b` of a positive definite matrix, by elimination.
fn solve(mut a: [[f64; N]; N], mut b: [f64; N]) -> [f64; N] {
    for pivot in 0..N {
        for row in pivot + 1..N {
            let share = a[row][pivot] / a[pivot][pivot];
            let above = a[pivot];
            a[row].iter_mut().zip(above).for_each(|(value, above)| *value -= share * above);
            b[row] -= share * b[pivot];
        }
    }
    for row in (0..N).rev() {
        let known: f64 = (row + 1..N).map(|at| a[row][at] * b[at]).sum();
        b[row] = (b[row] - known) / a[row][row];
    }
    b
}
