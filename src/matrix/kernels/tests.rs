use proptest::prelude::*;

use pulp::Arch;

use super::linear::Bf16By;
use super::*;

fn floors() -> impl Strategy<Value = Floors> {
    let eight = |of: std::ops::Range<f64>| proptest::array::uniform8(of);
    let room = prop_oneof![
        6 => -3e4f64..3e4,
        1 => Just(f64::NEG_INFINITY),
        1 => Just(f64::INFINITY),
        1 => Just(1e300),
        1 => Just(-1e300),
    ];
    (proptest::array::uniform8(room), eight(0.0..50.0), eight(0.0..50.0), eight(-2e4..2e4))
        .prop_map(|(room, by_norm, by_error, offset)| Floors { room, by_norm, by_error, offset })
}

proptest! {
    #[test]
    fn sums_and_hits_of_bytes_are_those_of_the_twin(
        (bytes, queries) in (0usize..90).prop_flat_map(|groups| (
            proptest::collection::vec(any::<u8>(), groups * 4 * ROWS),
            proptest::collection::vec(any::<i8>(), groups * 4 * QUERIES),
        )),
        floors in floors(),
        (norm, error, per_unit) in (0f64..9.0, 0f64..9.0, 1e-3f64..1e3),
        always in any::<bool>(),
    ) {
        let Some(fast) = Dots::fast() else { return Ok(()) };
        let panel = Panel { bytes: &bytes, norm, error, per_unit };
        let (mut hits, mut expected) = (Hits::new(), Hits::new());
        let wrote = fast.hit(panel, &queries, &floors, always, &mut hits);
        prop_assert_eq!(wrote, Dots::portable().hit(panel, &queries, &floors, always, &mut expected));
        prop_assert_eq!(hits.rows, expected.rows);
        prop_assert_eq!(hits.sums, expected.sums);
    }

    #[test]
    fn products_of_scattered_rows_are_those_of_the_twin(
        (query, rows) in (0usize..70).prop_flat_map(|d| (
            proptest::collection::vec(value(), d),
            proptest::collection::vec(value(), d * CHAINS),
        )),
    ) {
        let rows: [&[f32]; CHAINS] = std::array::from_fn(|at| &rows[at * query.len()..(at + 1) * query.len()]);
        let bits = |products: [f32; CHAINS]| products.map(f32::to_bits);
        prop_assert_eq!(bits(Chains::new().products(&query, rows)), bits(Chains::portable().products(&query, rows)));
    }
}

/// Ordinary, zero, denormal and huge.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![6 => -2f32..2.0, 1 => Just(0.0), 1 => Just(-0.0), 1 => -1e-39f32..1e-39, 1 => -1e18f32..1e18]
}

fn arches() -> Vec<Arch> {
    let mut arches = vec![Arch::Scalar, Arch::new()];
    #[cfg(target_arch = "x86_64")]
    arches.extend(pulp::x86::V3::try_new().map(Arch::V3));
    arches
}

/// All ways of this machine to multiply bf16 but the twin's.
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
fn ways() -> Vec<Bf16By> {
    let mut ways = Vec::new();
    #[cfg(target_arch = "x86_64")]
    ways.extend(linear::pairs::Pairs::find().map(Bf16By::Pairs));
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    ways.extend(linear::emulated::tiles());
    ways
}

/// Rows, inputs, outputs; inputs, weights, bias.
type Layer = ((usize, usize, usize), (Vec<f32>, Vec<f32>, Vec<f32>));

fn layer() -> impl Strategy<Value = Layer> {
    (0usize..40, 1usize..70, 1usize..120).prop_flat_map(|(rows, inputs, outputs)| {
        let values = |n: usize| proptest::collection::vec(value(), n);
        (Just((rows, inputs, outputs)), (values(rows * inputs), values(inputs * outputs), values(outputs)))
    })
}

fn apply(weights: &Weights, inputs: &[f32], n_rows: usize, then: Then) -> Vec<f32> {
    let mut outputs = vec![f32::NAN; n_rows * weights.n_outputs()];
    weights.apply(inputs, then, &mut outputs);
    outputs
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

proptest! {
    #[test]
    fn a_layers_outputs_have_the_same_bits_on_all_instructions_and_beside_any_neighbours(
        ((n_rows, n_inputs, n_outputs), (inputs, weight, bias)) in layer(),
    ) {
        let mut expected = Vec::new();
        for row in inputs.chunks_exact(n_inputs) {
            for (weight, bias) in weight.chunks_exact(n_inputs).zip(&bias) {
                expected.push(weight.iter().zip(row).fold(0f32, |sum, (w, x)| x.mul_add(*w, sum)) + bias);
            }
        }
        for arch in arches() {
            let layer = Weights::on(arch, None, &weight, &bias);
            let together = apply(&layer, &inputs, n_rows, Then::Nothing);
            prop_assert_eq!(bits(&together), bits(&expected));
            let alone = inputs.chunks_exact(n_inputs).flat_map(|row| apply(&layer, row, 1, Then::Gelu));
            let alone: Vec<f32> = alone.collect();
            prop_assert_eq!(bits(&apply(&layer, &inputs, n_rows, Then::Gelu)), bits(&alone));
        }
        let _ = n_outputs;
    }

    #[test]
    fn products_of_bf16_give_what_rounded_numbers_give(
        ((n_rows, n_inputs, n_outputs), (inputs, weight, bias)) in layer(),
    ) {
        let twin = Weights::on(Arch::new(), Some(Bf16By::Rounding), &weight, &bias);
        let twin = apply(&twin, &inputs, n_rows, Then::Nothing);
        for by in ways() {
            let fast = Weights::on(Arch::new(), Some(by), &weight, &bias);
            let together = apply(&fast, &inputs, n_rows, Then::Nothing);
            for (at, (a, b)) in twin.iter().zip(&together).enumerate() {
                let (row, output) = (at / n_outputs, at % n_outputs);
                let pairs = inputs[row * n_inputs..][..n_inputs].iter().zip(&weight[output * n_inputs..][..n_inputs]);
                let size: f32 = pairs.map(|(x, w)| (x * w).abs()).sum::<f32>() + bias[output].abs();
                // Denormals count as nothing in products of bf16.
                prop_assert!((a - b).abs() <= size * 1e-5 + 1e-18, "{by:?}: {a} {b} {size}");
            }
            let alone = inputs.chunks_exact(n_inputs).flat_map(|row| apply(&fast, row, 1, Then::Gelu));
            let alone: Vec<f32> = alone.collect();
            prop_assert_eq!(bits(&apply(&fast, &inputs, n_rows, Then::Gelu)), bits(&alone), "{:?}", by);
        }
    }

    #[test]
    fn sums_are_normalised_as_they_would_be_in_f64(
        (d, rows) in (1usize..70, 0usize..5).prop_flat_map(|(d, rows)| (
            Just(d),
            proptest::collection::vec((-3f32..3.0, -3f32..3.0), d * rows),
        )),
    ) {
        let (states, residual): (Vec<f32>, Vec<f32>) = rows.into_iter().unzip();
        let (gain, bias) = (vec![1.5f32; d], vec![0.25f32; d]);
        let mut to = vec![f32::NAN; states.len()];
        add_norm(&states, &residual, (&gain, &bias), 1e-5, &mut to);
        for ((a, b), to) in states.chunks(d).zip(residual.chunks(d)).zip(to.chunks(d)) {
            let sums: Vec<f64> = a.iter().zip(b).map(|(a, b)| f64::from(*a) + f64::from(*b)).collect();
            let mean = sums.iter().sum::<f64>() / d as f64;
            let variance = sums.iter().map(|sum| (sum - mean).powi(2)).sum::<f64>() / d as f64;
            for (sum, to) in sums.iter().zip(to) {
                let expected = (sum - mean) / (variance + 1e-5).sqrt() * 1.5 + 0.25;
                prop_assert!((expected - f64::from(*to)).abs() < 1e-3, "{expected} {to}");
            }
        }
    }

    #[test]
    fn texts_attend_to_themselves_alone(
        (n_heads, d, lengths, values) in (1usize..4, 1usize..20, proptest::collection::vec(1usize..40, 0..4))
            .prop_flat_map(|(n_heads, d, lengths)| {
                let n: usize = lengths.iter().sum();
                let values = proptest::collection::vec(-3f32..3.0, n * n_heads * d * 3);
                (Just(n_heads), Just(d), Just(lengths), values)
            }),
    ) {
        let hidden = n_heads * d;
        let mut to = vec![f32::NAN; values.len() / 3];
        attend(&values, &lengths, n_heads, &mut to);
        let part = |token: usize, which: usize, at: usize| f64::from(values[token * 3 * hidden + which * hidden + at]);
        let mut from = 0;
        for n in lengths {
            for (token, head) in (from..from + n).flat_map(|token| (0..n_heads).map(move |head| (token, head))) {
                let span = head * d..(head + 1) * d;
                let score = |other: usize| -> f64 {
                    span.clone().map(|at| part(token, 0, at) * part(other, 1, at)).sum::<f64>() / (d as f64).sqrt()
                };
                let weights: Vec<f64> = (from..from + n).map(|other| score(other).exp()).collect();
                let total: f64 = weights.iter().sum();
                for at in span {
                    let mixed = (from..from + n).zip(&weights).map(|(other, w)| w / total * part(other, 2, at));
                    let (mixed, found) = (mixed.sum::<f64>(), f64::from(to[token * hidden + at]));
                    prop_assert!((mixed - found).abs() < 1e-4, "{mixed} {found}");
                }
            }
            from += n;
        }
    }

    #[test]
    fn gelu_is_x_phi_of_x(x in prop_oneof![4 => -12f32..12.0, 1 => -1e38f32..1e38, 1 => -1e-38f32..1e-38]) {
        let layer = Weights::new(&[1.0], &[0.0], Precision::F32);
        let found = f64::from(apply(&layer, &[x], 1, Then::Gelu)[0]);
        let x = f64::from(x);
        let expected = 0.5 * x * (1.0 + candle_core::cpu::erf::erf_f64(x / 2f64.sqrt()));
        prop_assert!((found - expected).abs() <= 3e-7 * x.abs().max(1.0), "{found} {expected}");
    }
}
