//! Kernels that keep off the processor's special instructions, as support asks for them.

use std::process::Output;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, RecordBatch, UInt32Array};

use crate::shop::{Shop, command, manifest, read};

const KERNELS: &str = "LAMPLIGHTER_KERNELS";

fn with_kernels(shop: &Shop, kernels: &str, args: &[&str]) -> Output {
    command(args).env(KERNELS, kernels).current_dir(shop.path("")).output().expect("the binary starts")
}

#[test]
fn portable_kernels_list_the_same_to_the_bit() {
    let shop = Shop::new(2_000, 0.0);
    // Enough items, users and columns that other kernels screen.
    let pairs: Vec<(u32, u32)> =
        (0..20_000).map(|at| (at / 100, (at * 37 + at / 100 * 11) % 2_000)).collect();
    let column = |of: fn(&(u32, u32)) -> u32| -> ArrayRef {
        Arc::new(pairs.iter().map(|pair| Some(of(pair))).collect::<UInt32Array>())
    };
    let weights: ArrayRef =
        Arc::new(Float32Array::from_iter_values(pairs.iter().map(|pair| 1.0 + (pair.1 % 5) as f32)));
    let columns =
        [("user_idx", column(|pair| pair.0)), ("item_idx", column(|pair| pair.1)), ("weight", weights)];
    shop.write("data/pairs.parquet", &RecordBatch::try_from_iter(columns).expect("columns"));
    let fitted =
        ["factorize", "--input", "data/pairs.parquet", "--out", "f", "--rank", "24", "--iterations", "3"];
    let fitted = with_kernels(&shop, "fast", &fitted);
    assert!(fitted.status.success(), "{}", String::from_utf8_lossy(&fitted.stderr));
    let lists = |kernels: &str| {
        let to = format!("{kernels}.parquet");
        let (queries, items) = ("f/user_factors.parquet", "f/item_factors.parquet");
        let args = ["retrieve", "--queries", queries, "--items", items, "--k", "20", "--out", &to];
        let done = with_kernels(&shop, kernels, &args);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        read(&shop.path(&to))
    };
    assert_eq!(lists("fast"), lists("portable"));
}

#[test]
fn kernels_that_are_not_known_are_refused_before_any_work() {
    let shop = Shop::new(2_000, 0.0);
    let refused = with_kernels(&shop, "avx", &["check", "job.toml"]);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("LAMPLIGHTER_KERNELS: expected fast or portable; found avx"), "{said}");
}

#[test]
fn nothing_that_other_kernels_made_is_taken_over() {
    let shop = Shop::new(2_000, 0.0);
    let model = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/all-MiniLM-L6-v2");
    shop.write_job(&format!("[encoder]\nmodel = '{}'", model.display()));
    let night = |kernels: &str, date: &str| {
        let done = with_kernels(&shop, kernels, &["run", "job.toml", "--date", date]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        manifest(&shop.current())
    };
    let adopted = |night: &serde_json::Value| {
        let stages = night["stages"].as_array().expect("stages").iter();
        stages.filter(|stage| !stage["reused_from"].is_null()).count()
    };
    let cached = |night: &serde_json::Value| night["facts"]["encode"]["cached"].as_u64().expect("a number");
    night("fast", "2026-11-21");
    let portable = night("portable", "2026-11-21");
    assert_eq!((adopted(&portable), cached(&portable)), (0, 0));
    let again = night("portable", "2026-11-21");
    assert!(adopted(&again) > 7, "its own it takes over");
}
