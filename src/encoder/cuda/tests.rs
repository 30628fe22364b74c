//! Against the processor's kernels, which are tested against plain sums. These need a GPU: `make test-cuda`.

use std::sync::LazyLock;

use candle_core::IndexOp;
use proptest::prelude::*;

use super::*;
use crate::encoder::layers::{self, Engine};
use crate::encoder::tests::{config, write_model};
use crate::encoder::{Encoder, Model, load_on};
use crate::matrix::kernels;

static DEVICE: LazyLock<Device> = LazyLock::new(|| {
    let device = Device::new_cuda(0).unwrap();
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        Kernels::compile(&device, dtype).unwrap();
    }
    device
});

fn dtype() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::BF16), Just(DType::F16)]
}

/// How far a number of that type may be from what it is rounded from, of its size.
fn rounding(dtype: DType) -> f32 {
    match dtype {
        DType::F32 => 1e-5,
        DType::F16 => 1e-3,
        _ => 8e-3,
    }
}

/// Ordinary, zero, denormal and large.
fn value(most: f32) -> impl Strategy<Value = f32> {
    prop_oneof![8 => -2f32..2.0, 1 => Just(0.0), 1 => Just(-0.0), 1 => -1e-39f32..1e-39, 1 => -most..most]
}

/// Any, and those that kernels are made for.
fn width() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 1usize..600, 1 => Just(384), 1 => Just(768), 1 => Just(1024)]
}

fn matrix(n_rows: usize, width: usize) -> impl Strategy<Value = Vec<f32>> {
    proptest::collection::vec(value(100.0), n_rows * width)
}

/// On the device as a type, and what it is there.
fn placed(values: Vec<f32>, shape: (usize, usize), dtype: DType) -> (Tensor, Vec<f32>) {
    let tensor = Tensor::from_vec(values, shape, &DEVICE).unwrap().to_dtype(dtype).unwrap();
    let there = read(&tensor);
    (tensor, there)
}

fn read(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn row(values: Vec<f32>) -> (Tensor, Vec<f32>) {
    (Tensor::new(values.as_slice(), &DEVICE).unwrap(), values)
}

fn close(found: &[f32], expected: &[f32], size: f32, dtype: DType) -> std::result::Result<(), TestCaseError> {
    prop_assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let allowed = rounding(dtype) * (expected.abs() + size);
        prop_assert!((found - expected).abs() <= allowed, "{at}: {found}, expected {expected} ({dtype:?})");
    }
    Ok(())
}

proptest! {
    #[test]
    fn attention_is_that_of_the_processor(
        (dtype, n_heads, head, lengths, values, bias) in (
            dtype(),
            1usize..7,
            prop_oneof![4 => Just(32usize), 4 => Just(64), 1 => Just(4), 1 => Just(48), 1 => Just(80), 1 => Just(128)],
            proptest::collection::vec(prop_oneof![4 => 1usize..40, 1 => 100usize..140], 1..6),
        ).prop_flat_map(|(dtype, n_heads, head, lengths)| {
            let n_tokens: usize = lengths.iter().sum();
            let bias = proptest::collection::vec(-1f32..1.0, n_heads * head);
            // Of larger ones, scores differ in sums' last digits by more than weights can bear.
            let values = prop_oneof![4 => Just(2f32), 1 => Just(20.0)]
                .prop_flat_map(move |most| proptest::collection::vec(value(most), n_tokens * 3 * n_heads * head));
            (Just(dtype), Just(n_heads), Just(head), Just(lengths), values, bias)
        }),
    ) {
        let shape = (lengths.iter().sum(), 3 * n_heads * head);
        let (qkv, there) = placed(values, shape, dtype);
        let places = Places::new(&lengths, &DEVICE).unwrap();
        let (bias, bias_there) = row(bias);
        let found = read(&attend(&qkv, &bias, &places, n_heads).unwrap());
        // With its bias a query is rounded again, there as here.
        let mut biased = there;
        for query in biased.chunks_mut(shape.1) {
            query.iter_mut().zip(&bias_there).for_each(|(value, bias)| *value += bias);
        }
        let (_, there) = placed(biased, shape, dtype);
        let mut expected = vec![0f32; found.len()];
        kernels::attend(&there, &lengths, n_heads, &mut expected);
        let size = there.iter().fold(0f32, |most, value| most.max(value.abs()));
        let size = if dtype == DType::F32 { size * size } else { size };
        close(&found, &expected, size, dtype)?;
    }

    #[test]
    fn norms_are_those_of_the_processor(
        (dtype, n_rows, width, x, y, before, gain, bias, epsilon) in (dtype(), 1usize..12, width()).prop_flat_map(
            |(dtype, n_rows, width)| (
                Just(dtype), Just(n_rows), Just(width), matrix(n_rows, width), matrix(n_rows, width),
                matrix(1, width), matrix(1, width), matrix(1, width), prop_oneof![Just(1e-12f32), Just(1e-5)],
            ),
        ),
    ) {
        let shape = (n_rows, width);
        let ((x, mut x_there), (y, y_there)) = (placed(x, shape, dtype), placed(y, shape, dtype));
        let ((before, before_there), (gain, gain_there), (bias, bias_there)) = (row(before), row(gain), row(bias));
        let found = read(&add_norm(&x, &y, [&before, &gain, &bias], epsilon).unwrap());
        for states in x_there.chunks_mut(width) {
            states.iter_mut().zip(&before_there).for_each(|(state, before)| *state += before);
        }
        let mut expected = vec![0f32; found.len()];
        kernels::add_norm(&x_there, &y_there, (&gain_there, &bias_there), epsilon, &mut expected);
        let size = gain_there.iter().chain(&bias_there).fold(1f32, |most, value| most.max(value.abs()));
        // A row of one number, or of equal ones, has no deviation but rounding's.
        prop_assume!(expected.iter().all(|value| value.abs() <= 100.0 * size));
        if width > 8 {
            close(&found, &expected, size, dtype)?;
        }
        prop_assert!(found.iter().all(|value| value.is_finite()));
    }

    #[test]
    fn biases_and_gelu_are_those_of_the_formula(
        (dtype, n_rows, width, x, bias, then_gelu) in (dtype(), 1usize..12, 1usize..600).prop_flat_map(
            |(dtype, n_rows, width)| (
                Just(dtype), Just(n_rows), Just(width), matrix(n_rows, width), matrix(1, width), any::<bool>(),
            ),
        ),
    ) {
        let (x, there) = placed(x, (n_rows, width), dtype);
        let (bias, bias_there) = row(bias);
        add_bias(&x, &bias, then_gelu).unwrap();
        let gelu = |x: f64| 0.5 * x * (1.0 + candle_core::cpu::erf::erf_f64(x / 2f64.sqrt()));
        let sums = there.chunks(width).flat_map(|row| row.iter().zip(&bias_there).map(|(a, b)| a + b));
        let expected: Vec<f32> =
            sums.map(|sum| if then_gelu { gelu(f64::from(sum)) as f32 } else { sum }).collect();
        close(&read(&x), &expected, 0.1, dtype)?;
    }

    #[test]
    fn texts_are_their_mean_or_their_first_token(
        (dtype, width, lengths, values, first_token) in (
            dtype(),
            1usize..500,
            // A text may have no token, the last one too.
            proptest::collection::vec(0usize..40, 0..9).prop_map(|mut lengths| {
                lengths.insert(0, 3);
                lengths
            }),
            any::<bool>(),
        ).prop_flat_map(|(dtype, width, lengths, first_token)| {
            let n_tokens = lengths.iter().sum();
            (Just(dtype), Just(width), Just(lengths), matrix(n_tokens, width), Just(first_token))
        }),
    ) {
        let (states, there) = placed(values, (lengths.iter().sum(), width), dtype);
        let places = Places::new(&lengths, &DEVICE).unwrap();
        let found = pool(&states, &places, first_token).unwrap();
        let on_cpu = Tensor::from_vec(there, states.shape(), &Device::Cpu).unwrap();
        let ids: Vec<Vec<u32>> = lengths.iter().map(|length| vec![0; *length]).collect();
        let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let texts = layers::Texts::new(&ids, &Device::Cpu, Engine::Plain(DType::F32)).unwrap();
        let expected = layers::pool(&on_cpu, &texts, first_token).unwrap();
        close(&read(&found), &read(&expected), 1.0, DType::F32)?;
    }
}

#[test]
fn texts_lie_where_they_are_said_to() {
    let places = Places::new(&[3, 16, 17, 1], &DEVICE).unwrap();
    assert_eq!(places.begins.to_vec1::<u32>().unwrap(), [0, 3, 19, 36, 37]);
    let tiles = places.tiles.to_vec1::<u32>().unwrap();
    assert_eq!(tiles, [0, 0, 3, 3, 3, 16, 19, 19, 17, 35, 19, 17, 36, 36, 1]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let (wide, _) = placed(vec![0.0; 12], (2, 6), DType::F32);
    let (narrow, _) = placed(vec![0.0; 8], (2, 4), DType::F32);
    let (four, _) = row(vec![0.0; 4]);
    assert!(add_norm(&wide, &narrow, [&four; 3], 1e-5).is_err());
    assert!(add_bias(&wide, &four, false).is_err());
    assert!(add_bias(&wide.i(1..).unwrap(), &four, false).is_err());
    assert!(add_norm(&narrow.to_device(&Device::Cpu).unwrap(), &narrow, [&four; 3], 1e-5).is_err());
}

/// Heads that the matrix units take, norms in registers, texts of several tiles, RoBERTa's positions, the first token.
#[test]
fn a_wider_model_gives_the_processors_embeddings() {
    let folder = tempfile::tempdir().unwrap();
    let n_words = 14;
    drop(write_model(folder.path()));
    let shape = serde_json::json!({
        "model_type": "roberta", "vocab_size": n_words, "hidden_size": 384, "num_hidden_layers": 2,
        "num_attention_heads": 12, "intermediate_size": 512, "hidden_act": "gelu", "pad_token_id": 1,
        "max_position_embeddings": 90, "type_vocab_size": 1, "layer_norm_eps": 1e-5,
    });
    std::fs::write(folder.path().join("config.json"), shape.to_string()).unwrap();
    std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    let pooling = r#"{ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false }"#;
    std::fs::write(folder.path().join("1_Pooling/config.json"), pooling).unwrap();
    let mut tensors = std::collections::HashMap::new();
    let mut put = |name: String, shape: &[usize], mean: f64, most: f64| {
        let drawn = Tensor::rand(mean - most, mean + most, shape, &Device::Cpu).unwrap();
        tensors.insert(name, drawn.to_dtype(DType::F32).unwrap());
    };
    for (name, rows) in [("word", n_words), ("position", 90), ("token_type", 1)] {
        put(format!("embeddings.{name}_embeddings.weight"), &[rows, 384], 0.0, 1.0);
    }
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    for at in [0, 1].map(|at| format!("encoder.layer.{at}")) {
        let square = ["attention.self.query", "attention.self.key", "attention.self.value"];
        let layers = square.map(|name| (name, 384, 384));
        let rest = [
            ("attention.output.dense", 384, 384),
            ("intermediate.dense", 512, 384),
            ("output.dense", 384, 512),
        ];
        for (name, outputs, inputs) in layers.into_iter().chain(rest) {
            put(format!("{at}.{name}.weight"), &[outputs, inputs], 0.0, 0.1);
            put(format!("{at}.{name}.bias"), &[outputs], 0.0, 0.5);
        }
        norms.extend(["attention.output", "output"].map(|name| format!("{at}.{name}.LayerNorm")));
    }
    for name in norms {
        put(format!("{name}.weight"), &[384], 1.0, 0.2);
        put(format!("{name}.bias"), &[384], 0.0, 0.1);
    }
    candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();

    let words = ["red", "blue", "kettle", "scarf", "wool", "tea", "cup"];
    let texts: Vec<String> = (0..60)
        .map(|n| (0..n).map(|at| words[(at * at + n) % words.len()]).collect::<Vec<_>>().join(" "))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let encode = |device, engine| {
        let config = crate::encoder::Config { device, ..config(folder.path()) };
        let (tokenizer, model) = load_on(&config, engine).unwrap();
        let encoder = Encoder { model: Model::Transformer(tokenizer, Box::new(model)), batch_tokens: 512 };
        encoder.encode(&texts, &mut |_| {}).unwrap()
    };
    let (cpu, cuda) = (crate::encoder::Device::Cpu, crate::encoder::Device::Cuda);
    let expected = encode(cpu, Engine::Packed(kernels::Precision::F32));
    let engines = [
        (Engine::Fused(DType::F32), 0.999_999),
        (Engine::Fused(DType::F16), 0.999_99),
        (Engine::Fused(DType::BF16), 0.999_5),
        (Engine::Plain(DType::F16), 0.999_9),
    ];
    for (engine, least) in engines {
        let found = encode(cuda, engine);
        for (at, text) in texts.iter().enumerate() {
            let cosine: f32 = found.row(at).iter().zip(expected.row(at)).map(|(a, b)| a * b).sum();
            assert!(cosine > least, "{engine:?}: {cosine} of `{text}`");
        }
    }
}
