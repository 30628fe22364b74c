//! Embeddings of texts by the real model: read by the transformer, and by vectors distilled from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Float32Type;

use crate::shop::{Shop, manifest, read};
use crate::table::rows;

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/all-MiniLM-L6-v2")
}

/// Pairs of texts that mean alike, with few words in common.
const TEXTS: [&str; 12] = [
    "Stainless steel electric kettle, 1.7 litres",
    "Teapot with infuser for loose leaf tea",
    "Men's trail running shoes, waterproof",
    "Lightweight sneakers for jogging",
    "Wool winter scarf, striped",
    "Cashmere shawl for cold days",
    "Wireless noise cancelling headphones",
    "Bluetooth earbuds with charging case",
    "Garden hose with spray nozzle",
    "Watering can for plants and lawn",
    "Acoustic guitar strings, bronze",
    "Violin bow for beginners",
];

fn embedded(shop: &Shop, kind: &str) -> Vec<Vec<f32>> {
    let (model, out) = (model(), format!("{kind}.parquet"));
    let model = model.to_str().expect("a path");
    let args = ["encode", "--input", "texts.parquet", "--id", "id", "--text", "title", "--model", model];
    let output = shop.lamplighter(&[&args[..], &["--kind", kind, "--out", &out]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    vectors(&shop.path(&out))
}

/// The vectors of a file; a null is empty.
fn vectors(path: &Path) -> Vec<Vec<f32>> {
    let batch = read(path);
    let column = batch.column_by_name("embedding").expect("embeddings").as_fixed_size_list().clone();
    let one =
        |at| column.is_valid(at).then(|| column.value(at).as_primitive::<Float32Type>().values().to_vec());
    (0..column.len()).map(|at| one(at).unwrap_or_default()).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn vectors_distilled_from_the_transformer_find_the_text_that_it_finds() {
    let shop = Shop::new(2_000, 0.0);
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values((0..TEXTS.len()).map(|at| at.to_string())));
    let titles: ArrayRef = Arc::new(StringArray::from_iter_values(TEXTS));
    shop.write(
        "texts.parquet",
        &RecordBatch::try_from_iter([("id", ids), ("title", titles)]).expect("texts"),
    );
    for kind in ["transformer", "static"] {
        let vectors = embedded(&shop, kind);
        assert_eq!(vectors[0].len(), if kind == "static" { 256 } else { 384 });
        let likest = |at: usize| {
            let others = (0..TEXTS.len()).filter(|other| *other != at);
            others.max_by(|a, b| {
                cosine(&vectors[at], &vectors[*a]).total_cmp(&cosine(&vectors[at], &vectors[*b]))
            })
        };
        let found = (0..TEXTS.len()).filter(|at| likest(*at) == Some(at ^ 1)).count();
        assert!(found >= 10, "{kind}: {found} of {} find their pair", TEXTS.len());
    }
}

#[test]
fn a_static_encoder_serves_nights_distils_once_and_knows_new_items() {
    let shop = Shop::new(5_000, 0.0);
    shop.write_job(&format!("[encoder]\nmodel = '{}'\nkind = 'static'", model().display()));
    let first = shop.run_of("2026-11-20", &[]);
    assert_eq!(manifest(&first)["facts"]["encode"]["token_vectors_kept"], false);
    // A new item that nobody has turned to, with another's words.
    shop.rewrite("data/items.parquet", |items| {
        let mut columns = items.slice(0, 1).columns().to_vec();
        let id = items.schema().index_of("item_id").expect("an id");
        columns[id] =
            arrow::compute::cast(&StringArray::from(vec!["99999"]), columns[id].data_type()).expect("an id");
        let new = RecordBatch::try_new(items.schema(), columns).expect("an item");
        concat_batches(&items.schema(), [&items, &new]).expect("items")
    });
    let second = shop.run_of("2026-11-21", &[]);
    assert_eq!(manifest(&second)["facts"]["encode"]["token_vectors_kept"], true);
    let tokens = |run: &Path| read(&run.join("stages/encode/tokens.parquet"));
    assert_eq!(tokens(&first), tokens(&second));
    let ids = rows(&second.join("item_embeddings"), &["item_id"]);
    let new = ids.iter().position(|row| row[0] == "99999").expect("the new item is embedded");
    let embeddings = vectors(&second.join("item_embeddings/part.parquet"));
    assert_eq!(embeddings[new].len(), 256);
    let similar = rows(&second.join("similar_items"), &["item_id", "relation"]);
    let n_similar = similar.iter().filter(|row| row[0] == "99999" && row[1] == "similar").count();
    assert!(n_similar >= 10, "{n_similar} items resemble the new one");

    // Vectors that cannot be read are distilled again.
    let path = second.join("stages/encode/tokens.parquet");
    let length = std::fs::metadata(&path).expect("the vectors").len();
    std::fs::write(&path, vec![0; length as usize]).expect("a file");
    let third = shop.run_of("2026-11-22", &[]);
    assert_eq!(manifest(&third)["facts"]["encode"]["token_vectors_kept"], false);
    let warnings = manifest(&third)["warnings"].to_string();
    assert!(warnings.contains("the token vectors of night-2026-11-21-1 are not built on"), "{warnings}");
    assert_eq!(tokens(&third), tokens(&first));
}
