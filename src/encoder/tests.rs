use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device as CandleDevice, Tensor};
use serde_json::json;

use super::*;
use crate::matrix::kernels;

const WORDS: [&str; 14] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "kettle", "scarf", "wool", "shoe", "running", "##s",
    "tea", "cup",
];
const HIDDEN: usize = 8;
const INNER: usize = 16;
const HEADS: usize = 2;
const LAYERS: usize = 2;
const POSITIONS: usize = 32;

/// A seeded two-layer BERT with a word-piece tokenizer, written as a model folder.
pub(super) fn write_model(folder: &Path) -> HashMap<String, Tensor> {
    let config = json!({
        "model_type": "bert", "vocab_size": WORDS.len(), "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "intermediate_size": INNER, "hidden_act": "gelu",
        "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let vocab: serde_json::Map<String, serde_json::Value> =
        WORDS.iter().enumerate().map(|(at, word)| ((*word).to_owned(), json!(at))).collect();
    let special = |id: usize| {
        json!({ "id": id, "content": WORDS[id], "special": true, "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false })
    };
    let token =
        |word: &str, id: usize| (word.to_owned(), json!({ "id": word, "ids": [id], "tokens": [word] }));
    let specials: serde_json::Map<_, _> = [token("[CLS]", 2), token("[SEP]", 3)].into_iter().collect();
    let tokenizer = json!({
        "version": "1.0",
        "truncation": { "direction": "Right", "max_length": 6, "strategy": "LongestFirst", "stride": 0 },
        "padding": { "strategy": { "Fixed": 6 }, "direction": "Right", "pad_to_multiple_of": null,
                     "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]" },
        "added_tokens": [special(0), special(1), special(2), special(3)],
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                        "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "[CLS]", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } },
                       { "SpecialToken": { "id": "[SEP]", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": specials },
        "decoder": null,
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                   "max_input_chars_per_word": 100, "vocab": vocab },
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();

    let mut state = 1u32;
    let mut random = |shape: &[usize], scale: f32, mean: f32| {
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                mean + scale * ((state % 2001) as f32 / 1000.0 - 1.0)
            })
            .collect();
        Tensor::from_vec(values, shape, &CandleDevice::Cpu).unwrap()
    };
    let mut tensors = HashMap::new();
    let mut linear = |name: String, out: usize, input: usize, tensors: &mut HashMap<String, Tensor>| {
        tensors.insert(format!("{name}.weight"), random(&[out, input], 0.5, 0.0));
        tensors.insert(format!("{name}.bias"), random(&[out], 0.1, 0.0));
    };
    for layer in 0..LAYERS {
        let at = format!("encoder.layer.{layer}");
        for part in ["query", "key", "value"] {
            linear(format!("{at}.attention.self.{part}"), HIDDEN, HIDDEN, &mut tensors);
        }
        linear(format!("{at}.attention.output.dense"), HIDDEN, HIDDEN, &mut tensors);
        linear(format!("{at}.intermediate.dense"), INNER, HIDDEN, &mut tensors);
        linear(format!("{at}.output.dense"), HIDDEN, INNER, &mut tensors);
    }
    for (name, rows) in [("word", WORDS.len()), ("position", POSITIONS), ("token_type", 2)] {
        tensors.insert(format!("embeddings.{name}_embeddings.weight"), random(&[rows, HIDDEN], 1.0, 0.0));
    }
    let norms = (0..LAYERS).flat_map(|layer| {
        ["attention.output", "output"].map(|at| format!("encoder.layer.{layer}.{at}.LayerNorm"))
    });
    for name in norms.chain(["embeddings.LayerNorm".to_owned()]) {
        tensors.insert(format!("{name}.weight"), random(&[HIDDEN], 0.2, 1.0));
        tensors.insert(format!("{name}.bias"), random(&[HIDDEN], 0.1, 0.0));
    }
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    tensors
}

pub(super) fn config(folder: &Path) -> Config {
    Config { model: folder.to_str().unwrap().to_owned(), ..Config::default() }
}

fn encode(config: &Config, texts: &[&str]) -> Dense {
    load(config, Corpus::default(), &mut |_| {}).unwrap().encode(texts, &mut |_| {}).unwrap()
}

/// BERT written out plainly, one text, in f64.
struct Plain(HashMap<String, Tensor>);

type Rows = Vec<Vec<f64>>;

impl Plain {
    fn matrix(&self, name: &str) -> Rows {
        let rows = self.0[&format!("{name}.weight")].to_vec2::<f32>().unwrap();
        rows.into_iter().map(|row| row.into_iter().map(f64::from).collect()).collect()
    }

    fn vector(&self, name: &str) -> Vec<f64> {
        self.0[name].to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
    }

    fn linear(&self, name: &str, rows: &Rows) -> Rows {
        let (weight, bias) = (self.matrix(name), self.vector(&format!("{name}.bias")));
        let one = |row: &Vec<f64>| -> Vec<f64> {
            weight
                .iter()
                .zip(&bias)
                .map(|(w, b)| b + w.iter().zip(row).map(|(w, x)| w * x).sum::<f64>())
                .collect()
        };
        rows.iter().map(one).collect()
    }

    fn norm(&self, name: &str, rows: &Rows) -> Rows {
        let (gain, bias) = (self.vector(&format!("{name}.weight")), self.vector(&format!("{name}.bias")));
        let one = |row: &Vec<f64>| -> Vec<f64> {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
            row.iter()
                .zip(gain.iter().zip(&bias))
                .map(|(x, (g, b))| (x - mean) / variance.sqrt() * g + b)
                .collect()
        };
        rows.iter().map(one).collect()
    }

    fn embed(&self, ids: &[usize]) -> Vec<f64> {
        let (words, positions) =
            (self.matrix("embeddings.word_embeddings"), self.matrix("embeddings.position_embeddings"));
        let segment = &self.matrix("embeddings.token_type_embeddings")[0];
        let sum = |(at, id): (usize, &usize)| -> Vec<f64> {
            (0..HIDDEN).map(|d| words[*id][d] + positions[at][d] + segment[d]).collect()
        };
        let mut states = self.norm("embeddings.LayerNorm", &ids.iter().enumerate().map(sum).collect());
        for layer in 0..LAYERS {
            let at = format!("encoder.layer.{layer}");
            let [query, key, value] = ["query", "key", "value"]
                .map(|part| self.linear(&format!("{at}.attention.self.{part}"), &states));
            let size = HIDDEN / HEADS;
            let mut mixed = vec![vec![0.0; HIDDEN]; ids.len()];
            for head in 0..HEADS {
                let span = head * size..(head + 1) * size;
                for to in 0..ids.len() {
                    let score = |from: usize| -> f64 {
                        span.clone().map(|d| query[to][d] * key[from][d]).sum::<f64>() / (size as f64).sqrt()
                    };
                    let weights: Vec<f64> = (0..ids.len()).map(|from| score(from).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for d in span.clone() {
                        mixed[to][d] =
                            (0..ids.len()).map(|from| weights[from] / total * value[from][d]).sum();
                    }
                }
            }
            let add = |a: Rows, b: &Rows| -> Rows {
                a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
            };
            let attended = self.linear(&format!("{at}.attention.output.dense"), &mixed);
            let attended = self.norm(&format!("{at}.attention.output.LayerNorm"), &add(attended, &states));
            let inner = self.linear(&format!("{at}.intermediate.dense"), &attended);
            let gelu = |x: &f64| 0.5 * x * (1.0 + candle_core::cpu::erf::erf_f64(x / 2f64.sqrt()));
            let inner: Rows = inner.iter().map(|row| row.iter().map(gelu).collect()).collect();
            let down = self.linear(&format!("{at}.output.dense"), &inner);
            states = self.norm(&format!("{at}.output.LayerNorm"), &add(down, &attended));
        }
        let mean: Vec<f64> =
            (0..HIDDEN).map(|d| states.iter().map(|row| row[d]).sum::<f64>() / states.len() as f64).collect();
        let norm = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
        mean.iter().map(|x| x / norm).collect()
    }
}

#[track_caller]
fn close(found: &[f32], expected: &[f64]) {
    let worst = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-5, "off by {worst}: {found:?}, expected {expected:?}");
}

#[test]
fn embeddings_are_those_of_bert_written_out_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let plain = Plain(write_model(folder.path()));
    let texts = ["red kettle", "Running shoes!", "", "wool scarf blue tea cup kettle red"];
    let ids: [&[usize]; 4] = [&[2, 4, 6, 3], &[2, 10, 9, 11, 1, 3], &[2, 3], &[2, 8, 7, 5, 12, 13, 6, 4, 3]];
    let embeddings = encode(&config(folder.path()), &texts);
    for (at, ids) in ids.iter().enumerate() {
        close(embeddings.row(at), &plain.embed(ids));
    }
}

#[test]
fn every_engine_gives_the_same_embeddings() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let config = config(folder.path());
    let texts = ["red kettle", "Running shoes!", "", "wool scarf blue tea cup kettle red", "tea", "blue"];
    let with = |engine| {
        let (tokenizer, model) = load_on(&config, engine).unwrap();
        let encoder = Encoder { model: Model::Transformer(tokenizer, Box::new(model)), batch_tokens: 64 };
        encoder.encode(&texts, &mut |_| {}).unwrap()
    };
    let plain = with(layers::Engine::Plain(DType::F32));
    let packed = with(layers::Engine::Packed(kernels::Precision::F32));
    let rounded = with(layers::Engine::Packed(kernels::Precision::Bf16));
    for at in 0..texts.len() {
        let cosine =
            |other: &Dense| -> f32 { plain.row(at).iter().zip(other.row(at)).map(|(a, b)| a * b).sum() };
        assert!(cosine(&packed) > 0.999_99, "{}", cosine(&packed));
        assert!(cosine(&rounded) > 0.999_5, "{}", cosine(&rounded));
    }
}

/// More texts than a device has at a time, of which the processor's embeddings are known.
#[cfg(feature = "cuda")]
#[test]
fn a_gpu_gives_the_same_embeddings_in_every_precision() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let words = &WORDS[4..];
    let texts: Vec<String> = (0..DEVICE_TEXTS + 700)
        .map(|at| (0..4).map(|place| words[at / 10usize.pow(place) % 10]).collect::<Vec<_>>().join(" "))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let expected = encode(&config(folder.path()), &texts);
    let engines = [
        (layers::Engine::Fused(DType::F32), 0.999_99),
        (layers::Engine::Fused(DType::BF16), 0.999),
        (layers::Engine::Fused(DType::F16), 0.999_9),
        (layers::Engine::Plain(DType::F32), 0.999_99),
        (layers::Engine::Plain(DType::BF16), 0.999),
    ];
    for (engine, least) in engines {
        let on_gpu = || {
            let config = Config { device: Device::Cuda, ..config(folder.path()) };
            let (tokenizer, model) = load_on(&config, engine).unwrap();
            let encoder =
                Encoder { model: Model::Transformer(tokenizer, Box::new(model)), batch_tokens: 1000 };
            let mut last = 0;
            let found = encoder.encode(&texts, &mut |batch| {
                assert!(batch.texts_done > last && batch.texts_done <= batch.texts_total);
                last = batch.texts_done;
            });
            assert_eq!(last, texts.len());
            found.unwrap()
        };
        let found = on_gpu();
        for (at, text) in texts.iter().enumerate() {
            let cosine: f32 = found.row(at).iter().zip(expected.row(at)).map(|(a, b)| a * b).sum();
            assert!(cosine > least, "{engine:?}: {cosine} of `{text}`");
        }
        assert_eq!(found.values(), on_gpu().values(), "{engine:?}");
    }
}

#[test]
fn the_cache_tells_precisions_apart() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let full = config(folder.path());
    let with = |name: &str| Config { precision: Precision::parse(name).unwrap(), ..full.clone() };
    let all = ["f32", "bf16", "f16"].map(|name| with(name).fingerprint().unwrap());
    assert_eq!(all[0], full.fingerprint().unwrap());
    assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
    assert!(Precision::parse("f64").is_err());
    let refused = with("f16").check().unwrap_err().to_string();
    assert!(refused.contains("expected precision f32 or bf16 on the device cpu"), "{refused}");
}

#[test]
fn the_limit_is_the_jobs_and_not_the_tokenizers() {
    let folder = tempfile::tempdir().unwrap();
    let plain = Plain(write_model(folder.path()));
    let short = Config { max_tokens: Limit::try_from(8).unwrap(), ..config(folder.path()) };
    let embeddings = encode(&short, &["wool scarf blue tea cup kettle red"]);
    close(embeddings.row(0), &plain.embed(&[2, 8, 7, 5, 12, 13, 6, 3]));
}

#[test]
fn a_texts_embedding_does_not_depend_on_its_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let megabyte = "red kettle ".repeat(100_000);
    let texts = [
        "red",
        "blue kettle",
        "red",
        "wool",
        &megabyte,
        "tea cup",
        "\u{1F600} \n\t\u{0}",
        "红色水壶",
        "blue",
    ];
    let together = encode(&config(folder.path()), &texts);
    for (at, text) in texts.iter().enumerate() {
        let alone = encode(&config(folder.path()), &[text]);
        assert_eq!(together.row(at), alone.row(0));
    }
    assert_eq!(together.row(0), together.row(2));
    let norm: f32 = together.row(4).iter().map(|x| x * x).sum();
    assert!((norm - 1.0).abs() < 1e-5);
}

#[test]
fn nothing_within_the_limit_is_cut_off_with_the_rest_of_a_long_text() {
    let folder = tempfile::tempdir().unwrap();
    let plain = Plain(write_model(folder.path()));
    let short = Config { max_tokens: Limit::try_from(8).unwrap(), ..config(folder.path()) };
    let wide = format!("red{}kettle{}blue wool tea cup shoe", " ".repeat(5000), "\n".repeat(100));
    let unknown = format!("{} tea", "x".repeat(300));
    let embeddings = encode(&short, &[&wide, &unknown]);
    close(embeddings.row(0), &plain.embed(&[2, 4, 6, 5, 8, 12, 13, 3]));
    // A word beyond the tokenizer's limit is one unknown token, not the pieces of its beginning.
    close(embeddings.row(1), &plain.embed(&[2, 1, 12, 3]));
}

#[test]
fn batches_hold_texts_of_one_length_and_no_more_tokens_than_allowed() {
    let tokens: Vec<Vec<u32>> = [3, 5, 3, 3, 9, 5, 3].iter().map(|n| vec![1; *n]).collect();
    let batches = tokens::batches(&tokens, 8, false);
    assert_eq!(batches, [vec![4], vec![1], vec![5], vec![0, 2], vec![3, 6]]);
    let mixed = tokens::batches(&tokens, 8, true);
    assert_eq!(mixed, [vec![4], vec![1], vec![5, 0], vec![2, 3], vec![6]]);
}

#[track_caller]
fn refused(folder: &Path, expected: &str) {
    let message = load(&config(folder), Corpus::default(), &mut |_| {})
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(message.contains(expected), "expected `{expected}` in: {message}");
}

#[test]
fn a_folder_that_is_no_model_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    refused(folder.path(), "found no config.json");
    write_model(folder.path());
    let weights = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::remove_file(&weights).unwrap();
    refused(folder.path(), "found no model.safetensors");
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    refused(folder.path(), "model.safetensors: expected a safetensors file, whole; found");
    for cut in [0, 7, 8, 12] {
        std::fs::write(&weights, &bytes[..cut]).unwrap();
        refused(folder.path(), "model.safetensors: expected a safetensors file, whole; found");
    }
    std::fs::write(&weights, &bytes).unwrap();
    let config = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
    let other = config.replacen("\"num_hidden_layers\":", "\"num_hidden_layers\": 1", 1);
    assert_ne!(config, other);
    std::fs::write(folder.path().join("config.json"), other).unwrap();
    refused(folder.path(), "model.safetensors: the weights do not fit");
    std::fs::write(folder.path().join("config.json"), "{\"model_type\": \"gpt2\"}").unwrap();
    refused(folder.path(), "expected a BERT or XLM-R config");
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    refused(&folder.path().join("nowhere"), "found no config.json");
}

#[test]
fn a_device_the_binary_lacks_names_the_feature_to_build_with() {
    let config = Config { device: Device::Metal, ..Config::default() };
    let message = config.check().unwrap_err().to_string();
    assert!(message.contains("--features metal"), "{message}");
    assert!(Device::parse("tpu").is_err());
}

fn statically(folder: &Path) -> Config {
    Config { kind: Kind::Static, static_dim: 4.try_into().unwrap(), ..config(folder) }
}

#[test]
fn vectors_of_tokens_are_white_and_special_tokens_have_none() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let mut n_told = 0;
    let encoder = load(&statically(folder.path()), Corpus::default(), &mut |batch| n_told = batch.texts_done);
    let encoder = encoder.unwrap();
    let vectors = encoder.token_vectors().unwrap();
    assert_eq!((vectors.n_rows(), vectors.n_cols(), encoder.dim(), n_told), (WORDS.len(), 4, 4, 10));
    assert!((0..4).all(|special| vectors.row(special) == [0.0; 4]));
    for a in 0..4 {
        let words = || 4..WORDS.len();
        let mean: f32 = words().map(|word| vectors.row(word)[a]).sum::<f32>() / 10.0;
        assert!(mean.abs() < 1e-4, "{mean}");
        for b in 0..4 {
            let covariance: f32 = words().map(|word| vectors.row(word)[a] * vectors.row(word)[b]).sum();
            assert!((covariance / 10.0 - f32::from(u8::from(a == b))).abs() < 1e-3, "{a} {b} {covariance}");
        }
    }
}

#[test]
fn a_static_embedding_is_the_mean_of_its_tokens_by_how_rare_they_are() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let texts = ["red kettle", "red scarf [SEP]", "red shoes", "tea cup"];
    let corpus = Corpus { texts: &texts, n_texts: 0, token_vectors: None };
    let encoder = load(&statically(folder.path()), corpus, &mut |_| {}).unwrap();
    let vectors = encoder.token_vectors().unwrap();
    // Nine tokens that say something: shoes are two.
    let weight = |count: f64| 1e-3 / (1e-3 + count / 9.0);
    let tokens = [(4, weight(3.0)), (6, weight(1.0)), (13, weight(1.0)), (4, weight(3.0)), (8, 1.0)];
    let mut sum = [0f64; 4];
    for (token, weight) in tokens {
        sum.iter_mut().zip(vectors.row(token)).for_each(|(sum, value)| *sum += weight * f64::from(*value));
    }
    let norm = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
    let found = encoder.encode(&["red kettle cup red wool", "\u{1F600}", "", "tea"], &mut |_| {}).unwrap();
    close(found.row(0), &sum.map(|value| value / norm));
    // An unknown word says nothing, and a text beside others what it says alone.
    assert_eq!((found.row(1), found.row(2)), (&[0.0; 4][..], &[0.0; 4][..]));
    assert_eq!(encoder.encode(&["tea"], &mut |_| {}).unwrap().row(0), found.row(3));
}

#[test]
fn kept_vectors_give_the_same_embeddings_and_nothing_is_distilled_again() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let (config, texts) = (statically(folder.path()), ["red kettle", "wool scarf", "blue tea cup"]);
    let first =
        load(&config, Corpus { texts: &texts, n_texts: 0, token_vectors: None }, &mut |_| {}).unwrap();
    let kept = Corpus { texts: &texts, n_texts: 0, token_vectors: first.token_vectors().cloned() };
    let again = load(&config, kept, &mut |_| panic!("nothing to distil")).unwrap();
    let [first, again] = [first, again].map(|encoder| encoder.encode(&texts, &mut |_| {}).unwrap());
    assert_eq!(first, again);
    let transformer = Config { kind: Kind::Transformer, ..config.clone() };
    let wider = Config { static_dim: 5.try_into().unwrap(), ..config.clone() };
    let fingerprints = [&config, &transformer, &wider].map(|config| config.fingerprint().unwrap());
    assert_eq!(fingerprints.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    assert!(Kind::parse("lookup").unwrap_err().to_string().contains("expected transformer, static or words"));
}

fn by_words(catalogue: &[&str]) -> Encoder {
    let corpus = Corpus { texts: catalogue, n_texts: 0, token_vectors: None };
    load(&Config::without_model(), corpus, &mut |_| {}).unwrap()
}

#[test]
fn texts_are_alike_by_the_rare_words_they_share() {
    let mut catalogue = vec!["Red kettle 1.5l", "Blue kettle 1.5l", "Red scarf", "Blue scarf", "Wool hat"];
    catalogue.resize(catalogue.len() + 40, "something else");
    let encoder = by_words(&catalogue);
    let texts = ["Red kettle 1.5l", "KETTLE, red! (1.5l)", "blue kettle", "wool hat", "teapot", "red teapot"];
    let found = encoder.encode(&texts, &mut |_| {}).unwrap();
    let cosine = |a: usize, b: usize| -> f64 {
        found.row(a).iter().zip(found.row(b)).map(|(a, b)| f64::from(a * b)).sum()
    };
    assert!((cosine(0, 0) - 1.0).abs() < 1e-6);
    // Order, case and what stands between words are nothing.
    assert_eq!(found.row(0), found.row(1));
    // Each word of the first two is in two of 45 texts: tf-idf has them share one of three and of two.
    assert!((cosine(0, 2) - 1.0 / 6f64.sqrt()).abs() < 0.15, "{}", cosine(0, 2));
    assert!(cosine(0, 3).abs() < 0.2, "{}", cosine(0, 3));
    // A word that the catalogue does not have says nothing.
    assert!(found.row(4).iter().all(|value| *value == 0.0));
    assert_eq!(encoder.encode(&["red"], &mut |_| {}).unwrap().row(0), found.row(5));
    assert_eq!(encoder.dim(), 512);
}

#[test]
fn cosines_by_words_are_those_of_tf_idf_but_for_the_noise_of_the_projection() {
    let word = |at: usize| format!("w{}", at * at % 97);
    let text = |at: usize| (0..12).map(|place| word(at * 13 + place)).collect::<Vec<_>>().join(" ");
    let texts: Vec<String> = (0..200).map(text).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let sets: Vec<std::collections::BTreeSet<&str>> =
        texts.iter().map(|text| text.split(' ').collect()).collect();
    let weight =
        |word: &str| (texts.len() as f64 / sets.iter().filter(|set| set.contains(word)).count() as f64).ln();
    let product =
        |a: usize, b: usize| -> f64 { sets[a].intersection(&sets[b]).map(|word| weight(word).powi(2)).sum() };
    let found = by_words(&texts).encode(&texts, &mut |_| {}).unwrap();
    let mut squares = 0.0;
    for at in 0..199 {
        let exact = product(at, at + 1) / (product(at, at) * product(at + 1, at + 1)).sqrt();
        let cosine: f64 = found.row(at).iter().zip(found.row(at + 1)).map(|(a, b)| f64::from(a * b)).sum();
        squares += (cosine - exact).powi(2);
    }
    let deviation = (squares / 199.0).sqrt();
    assert!(deviation < 1.5 / 512f64.sqrt(), "{deviation}");
}

#[test]
fn very_many_texts_have_fewer_numbers_each() {
    let dim = |n_texts: usize| {
        let corpus = Corpus { texts: &["red kettle", "wool hat"], n_texts, token_vectors: None };
        load(&Config::without_model(), corpus, &mut |_| {}).unwrap().dim()
    };
    assert_eq!([1, 1 << 20, (1 << 20) + 1, 1 << 40].map(dim), [512, 512, 256, 64]);
}

#[test]
fn texts_without_a_common_word_seldom_seem_alike() {
    let texts: Vec<String> = (0..100).map(|at| format!("a{at} b{at} c{at}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let found = by_words(&texts).encode(&texts, &mut |_| {}).unwrap();
    let cosine =
        |a: usize, b: usize| -> f32 { found.row(a).iter().zip(found.row(b)).map(|(a, b)| a * b).sum() };
    let chance = Kind::Words.chance(512);
    let pairs = (0..100).flat_map(|a| (0..a).map(move |b| (a, b)));
    let (n_positive, n_alike) = pairs.fold((0, 0), |(positive, alike), (a, b)| {
        (positive + usize::from(cosine(a, b) > 0.0), alike + usize::from(cosine(a, b) > chance))
    });
    assert!(n_positive > 2000 && n_alike < 25, "{n_positive} {n_alike} of 4,950");
    assert_eq!(Kind::Transformer.chance(384), 0.0);
}

#[test]
fn what_a_hub_does_not_know_it_will_not_know_later_either() {
    let may_pass = |status: u16| {
        let answer = ureq::Response::new(status, "said", "").unwrap();
        let source = Box::new(ApiError::RequestError(Box::new(ureq::Error::Status(status, answer))));
        let source = Box::new(ApiError::TooManyRetries(source));
        Error::Hub { model: "org/name".to_owned(), file: "config.json", source }.may_pass()
    };
    assert_eq!([401, 404, 429, 500, 503].map(may_pass), [false, false, true, true, true]);
}
