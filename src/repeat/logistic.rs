//! Logistic regression by Newton's method, on standardised features, with a ridge of one example.

use rayon::prelude::*;

/// `P(yes) = 1 / (1 + e^-(intercept + weights · x))`.
pub(super) struct Logistic<const N: usize> {
    intercept: f64,
    weights: [f64; N],
}

const MAX_STEPS: usize = 30;
/// The step below which Newton's method has arrived.
const ARRIVED: f64 = 1e-8;
/// Examples a task sums before sums are added in order.
const CHUNK: usize = 4096;

impl<const N: usize> Logistic<N> {
    /// `None` where the method does not arrive: then the examples do not tell.
    pub(super) fn fit(examples: &[[f64; N]], yes: &[bool]) -> Option<Self> {
        let n = examples.len() as f64;
        let (mut mean, mut scale) = ([0f64; N], [0f64; N]);
        for x in examples {
            mean.iter_mut().zip(x).for_each(|(sum, value)| *sum += value / n);
        }
        for x in examples {
            (0..N).for_each(|at| scale[at] += (x[at] - mean[at]).powi(2) / n);
        }
        // What does not vary counts for nothing.
        scale.iter_mut().for_each(|value| *value = if *value > 1e-12 { value.sqrt().recip() } else { 0.0 });
        let share = yes.iter().filter(|yes| **yes).count() as f64 / n;
        // The intercept comes last.
        let mut weights = vec![0f64; N + 1];
        weights[N] = (share / (1.0 - share)).ln();
        for _ in 0..MAX_STEPS {
            let (gradient, curvature) = sums(examples, yes, &mean, &scale, &weights);
            let step = solve(curvature, gradient)?;
            let largest = step.iter().fold(0f64, |most, value| most.max(value.abs()));
            // Far from the minimum a whole step may overshoot.
            let stride = if largest > 1.0 { 1.0 / largest } else { 1.0 };
            weights.iter_mut().zip(&step).for_each(|(weight, step)| *weight -= stride * step);
            if largest < ARRIVED {
                let own: [f64; N] = std::array::from_fn(|at| weights[at] * scale[at]);
                let intercept = weights[N] - own.iter().zip(&mean).map(|(w, mean)| w * mean).sum::<f64>();
                return Some(Self { intercept, weights: own });
            }
        }
        None
    }

    pub(super) fn probability(&self, x: &[f64; N]) -> f64 {
        let sum: f64 = self.weights.iter().zip(x).map(|(weight, value)| weight * value).sum();
        1.0 / (1.0 + (-(self.intercept + sum)).exp())
    }
}

/// The gradient and the second derivatives (row-major) of the penalised negative log-likelihood.
fn sums<const N: usize>(
    examples: &[[f64; N]],
    yes: &[bool],
    mean: &[f64; N],
    scale: &[f64; N],
    weights: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let width = N + 1;
    let of_chunk = |(examples, yes): (&[[f64; N]], &[bool])| {
        let (mut gradient, mut curvature) = (vec![0f64; width], vec![0f64; width * width]);
        let mut x = vec![1f64; width];
        for (example, yes) in examples.iter().zip(yes) {
            (0..N).for_each(|at| x[at] = (example[at] - mean[at]) * scale[at]);
            let sum: f64 = x.iter().zip(weights).map(|(value, weight)| value * weight).sum();
            let likely = 1.0 / (1.0 + (-sum).exp());
            let miss = likely - f64::from(u8::from(*yes));
            for (at, value) in x.iter().enumerate() {
                gradient[at] += miss * value;
                let by = likely * (1.0 - likely) * value;
                let row = &mut curvature[at * width..(at + 1) * width];
                row.iter_mut().zip(&x).for_each(|(sum, other)| *sum += by * other);
            }
        }
        (gradient, curvature)
    };
    let partial: Vec<(Vec<f64>, Vec<f64>)> =
        examples.par_chunks(CHUNK).zip(yes.par_chunks(CHUNK)).map(of_chunk).collect();
    let (mut gradient, mut curvature) = (vec![0f64; width], vec![0f64; width * width]);
    for (more_gradient, more_curvature) in partial {
        gradient.iter_mut().zip(more_gradient).for_each(|(sum, value)| *sum += value);
        curvature.iter_mut().zip(more_curvature).for_each(|(sum, value)| *sum += value);
    }
    for at in 0..N {
        gradient[at] += weights[at];
        curvature[at * width + at] += 1.0;
    }
    (gradient, curvature)
}

/// Gauss's elimination of a positive definite system.
fn solve(mut a: Vec<f64>, mut b: Vec<f64>) -> Option<Vec<f64>> {
    let n = b.len();
    for k in 0..n {
        let pivot = a[k * n + k];
        if !(pivot.is_finite() && pivot > 1e-12) {
            return None;
        }
        for i in k + 1..n {
            let factor = a[i * n + k] / pivot;
            (k..n).for_each(|j| a[i * n + j] -= factor * a[k * n + j]);
            b[i] -= factor * b[k];
        }
    }
    for k in (0..n).rev() {
        let known: f64 = (k + 1..n).map(|j| a[k * n + j] * b[j]).sum();
        b[k] = (b[k] - known) / a[k * n + k];
    }
    b.iter().all(|value| value.is_finite()).then_some(b)
}
