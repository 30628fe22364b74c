//! How near the stages that multiply come to what the machine can do.
//!
//! The peak is measured on the spot: this crate's own product of matrices in f32, on all threads, the best of some
//! spans of ten milliseconds, since other programs take their part of most; in bf16 where a stage multiplied so; and
//! a GPU's is what a large product in the model's precision comes to there. What a stage computes is counted from
//! shapes, at what the textbook takes (retrieval: every pair's inner product, pruned or not), and its time is all of
//! its time, reading and writing included.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::matrix::kernels::{Precision, Then, Weights};
use crate::publish::{Manifest, StageRecord};

const SPAN: Duration = Duration::from_millis(10);
const SPANS: usize = 8;
/// Rows, inputs and outputs of the product: whole register tiles, and all of it in a second-level cache.
const WIDTH: usize = 384;

/// Measures the peaks of all ways in which stages of a run multiplied.
pub(super) fn measure(manifest: &mut Manifest) {
    let ways: Vec<By> = multiplied(manifest).map(|(_, facts)| By::of(facts)).collect();
    if !ways.is_empty() {
        manifest.peak_flops = peak_flops(Precision::F32);
    }
    if ways.contains(&By::Bf16) {
        manifest.peak_bf16_flops = peak_flops(Precision::Bf16);
    }
}

/// The stages of a run, and what they found, that say what they computed.
fn multiplied(manifest: &Manifest) -> impl Iterator<Item = (&StageRecord, &Value)> {
    let did = manifest.stages.iter().filter(|stage| stage.reused_from.is_none());
    let with_facts = did.filter_map(|stage| Some((stage, manifest.facts.get(&stage.name)?)));
    with_facts.filter(|(_, facts)| facts["flops"].is_number())
}

/// Products' operations a second.
fn peak_flops(precision: Precision) -> f64 {
    let weights = Weights::new(&vec![0.5; WIDTH * WIDTH], &[0.0; WIDTH], precision);
    let rates = rayon::broadcast(|_| {
        let (inputs, mut outputs) = (vec![0.5; WIDTH * WIDTH], vec![0.0; WIDTH * WIDTH]);
        let mut span = || {
            let (began, mut n_products) = (Instant::now(), 0.0);
            while began.elapsed() < SPAN {
                weights.apply(&inputs, Then::Nothing, &mut outputs);
                black_box(&outputs);
                n_products += 1.0;
            }
            n_products * 2.0 * (WIDTH as f64).powi(3) / began.elapsed().as_secs_f64()
        };
        (0..SPANS).map(|_| span()).fold(0.0, f64::max)
    });
    rates.iter().sum()
}

/// What a stage came to.
#[derive(Debug, PartialEq)]
pub(super) struct Share<'a> {
    pub(super) stage: &'a str,
    /// Of the peak.
    pub(super) share: f64,
    /// The peak: how products were made, and operations a second.
    pub(super) by: By,
    pub(super) peak: f64,
}

/// How a stage multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// In f32, on the processor.
    F32,
    /// In bf16, on the processor.
    Bf16,
    /// On a GPU.
    Gpu,
}

impl By {
    /// How a stage multiplied that found these facts.
    fn of(facts: &Value) -> Self {
        if facts["device_flops"].is_number() {
            Self::Gpu
        } else if facts["products"] == "bf16" {
            Self::Bf16
        } else {
            Self::F32
        }
    }
}

/// The share of the peak that each stage of a run came to, of those that say what they computed.
pub(super) fn shares(manifest: &Manifest) -> Vec<Share<'_>> {
    let timed = multiplied(manifest).filter(|(stage, _)| stage.elapsed_ms > 0);
    let share = timed.filter_map(|(stage, facts)| {
        let flops = facts["flops"].as_f64().filter(|flops| *flops > 0.0)?;
        let by = By::of(facts);
        let peak = match by {
            By::F32 => manifest.peak_flops,
            By::Bf16 => manifest.peak_bf16_flops,
            By::Gpu => facts["device_flops"].as_f64()?,
        };
        let share = flops * 1e3 / stage.elapsed_ms as f64 / peak;
        Some(Share { stage: &stage.name, share, by, peak })
    });
    share.filter(|share| share.share.is_finite()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::show::describe;
    use crate::publish::Cost;

    #[test]
    fn a_share_is_flops_by_seconds_by_the_peak() {
        let mut manifest = Manifest { peak_flops: 2e9, ..Manifest::default() };
        for (name, reused) in [("encode", None), ("rank", Some("night-1".to_owned())), ("gate", None)] {
            manifest.stage(name, "", (Duration::from_secs(2), Cost::default()), reused);
            manifest.facts.insert(name.to_owned(), serde_json::json!({ "flops": 1e9 }));
        }
        manifest.facts.insert("gate".to_owned(), serde_json::json!({}));
        let of = |share, by, peak| [Share { stage: "encode", share, by, peak }];
        assert_eq!(shares(&manifest), of(0.25, By::F32, 2e9));
        manifest.facts.insert("encode".to_owned(), serde_json::json!({ "flops": 1e9, "products": "bf16" }));
        assert!(shares(&manifest).is_empty(), "not measured");
        manifest.peak_bf16_flops = 4e9;
        assert_eq!(shares(&manifest), of(0.125, By::Bf16, 4e9));
        let told = |manifest: &Manifest, line: &str| assert!(describe(manifest).contains(line), "{line}");
        told(&manifest, "of 4 GFLOP/s that products come to here in bf16: encode 12 %");
        manifest.facts.insert("encode".to_owned(), serde_json::json!({ "flops": 1e9, "device_flops": 5e9 }));
        assert_eq!(shares(&manifest), of(0.1, By::Gpu, 5e9));
        told(&manifest, "of 5 GFLOP/s that products come to on the GPU: encode 10 %");
        manifest.facts.insert("encode".to_owned(), serde_json::json!({ "flops": 1e9 }));
        manifest.peak_flops = 0.0;
        assert!(shares(&manifest).is_empty(), "not measured");
        assert!(peak_flops(Precision::F32) > 1e8 && peak_flops(Precision::Bf16) > 1e8);
    }
}
