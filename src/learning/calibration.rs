//! Scores as probabilities.

use serde::{Deserialize, Serialize};

/// Newton steps; the likelihood of two parameters is settled long before.
const STEPS: usize = 50;

/// `p = 1 / (1 + exp(-(intercept + slope · score)))`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// At a score of 0, as log odds.
    pub intercept: f64,
    /// Log odds a unit of score.
    pub slope: f64,
}

impl Calibration {
    /// The likeliest parameters for scores and whether each came true (Platt, "Probabilistic outputs for
    /// support vector machines", 1999, his smoothed targets included).
    pub(super) fn fit(rows: &[(f32, bool)]) -> Self {
        let n_true = rows.iter().filter(|row| row.1).count() as f64;
        let n_false = rows.len() as f64 - n_true;
        let (if_true, if_false) = ((n_true + 1.0) / (n_true + 2.0), 1.0 / (n_false + 2.0));
        let mut found = Self { intercept: ((n_true + 1.0) / (n_false + 1.0)).ln(), slope: 0.0 };
        for _ in 0..STEPS {
            // Gradient and Hessian of the log likelihood.
            let (mut g0, mut g1, mut h00, mut h01, mut h11) = (0.0, 0.0, 1e-9, 0.0, 1e-9);
            for (score, came_true) in rows {
                let (score, target) = (f64::from(*score), if *came_true { if_true } else { if_false });
                let p = found.probability(score);
                let (error, weight) = (target - p, p * (1.0 - p));
                g0 += error;
                g1 += error * score;
                h00 += weight;
                h01 += weight * score;
                h11 += weight * score * score;
            }
            let determinant = h00 * h11 - h01 * h01;
            if determinant <= 0.0 {
                break;
            }
            let step = ((h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant);
            found = Self { intercept: found.intercept + step.0, slope: found.slope + step.1 };
            if step.0.abs() + step.1.abs() < 1e-10 {
                break;
            }
        }
        found
    }

    /// Of a score.
    pub fn probability(&self, score: f64) -> f64 {
        1.0 / (1.0 + (-(self.intercept + self.slope * score)).exp())
    }
}
