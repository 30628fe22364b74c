use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use super::*;

fn table(folder: &Path, name: &'static str) -> Table {
    let kind = Kind { name, letter: "u", keys: &["user_id", "relation"], order: &[1, 0], item: "item_id" };
    Table { kind, folder: folder.join(name), rows: 3 }
}

fn write(folder: &Path, name: &str, columns: Vec<(&str, ArrayRef)>) {
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    std::fs::create_dir_all(folder.join(name)).unwrap();
    let file = File::create(folder.join(name).join("part.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

fn columns(items: ArrayRef) -> Vec<(&'static str, ArrayRef)> {
    vec![
        ("user_id", Arc::new(StringArray::from(vec!["a:1", "a:1", "é"]))),
        ("relation", Arc::new(StringArray::from(vec!["next", "next", "similar"]))),
        ("item_id", items),
        ("score", Arc::new(Float32Array::from(vec![0.5, 0.25, 3.0]))),
    ]
}

fn encoded(table: &Table, config: &Config, skip: u64) -> Vec<(String, String)> {
    let mut all = Vec::new();
    encode::batches(table, "night-2026-11-21-1", config, skip, &mut |lists| {
        all.extend(lists.into_iter().map(|(key, value)| (key, String::from_utf8(value).unwrap())));
        Ok(())
    })
    .unwrap();
    all
}

#[test]
fn values_are_json_arrays_of_ids_as_the_input_had_them() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "numbers", columns(Arc::new(Int64Array::from(vec![7, -8, i64::MAX]))));
    write(folder.path(), "texts", columns(Arc::new(StringArray::from(vec!["p\"1", "two\nlines", "é"]))));
    let key = |rest: &str| format!("night-2026-11-21-1:u:{rest}");
    let config = Config { batch: Batch(1), ..Config::default() };
    let numbers = encoded(&table(folder.path(), "numbers"), &config, 0);
    let expected = [(key("next:a:1"), "[7,-8]".to_owned()), (key("similar:é"), format!("[{}]", i64::MAX))];
    assert_eq!(numbers, expected);
    let with_scores = Config { scores: true, ..config.clone() };
    let texts = encoded(&table(folder.path(), "texts"), &with_scores, 1);
    assert_eq!(texts, [(key("similar:é"), "[[\"é\"],[3.0]]".to_owned())], "the first list was there");
    let texts = encoded(&table(folder.path(), "texts"), &config, 0);
    assert_eq!(texts[0].1, "[\"p\\\"1\",\"two\\nlines\"]");
}

#[test]
fn a_failure_of_the_receiver_ends_the_load() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "numbers", columns(Arc::new(Int64Array::from(vec![7, 8, 9]))));
    let config = Config { batch: Batch(1), ..Config::default() };
    let mut calls = 0;
    let result = encode::batches(&table(folder.path(), "numbers"), "run", &config, 0, &mut |_| {
        calls += 1;
        Err(Error::NoTtl)
    });
    assert!(matches!(result, Err(Error::NoTtl)) && calls == 1);
}

#[test]
fn a_redis_that_is_not_there_is_said_without_the_password() {
    let run_id = "night-2026-11-21-1".to_owned();
    let generation = Generation { job: "night".to_owned(), run_id, made: String::new(), tables: Vec::new() };
    let result = load(&generation, "redis://user:secret@127.0.0.1:1/0", &Config::default(), &mut |_| {});
    let error = result.unwrap_err();
    assert!(matches!(&error, Error::Redis { action: "connect", address, .. } if address == "127.0.0.1:1"));
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        said += &inner.to_string();
        cause = inner.source();
    }
    assert!(!said.contains("secret"), "{said}");
    let result = load(&generation, "http://127.0.0.1", &Config::default(), &mut |_| {});
    assert!(matches!(result, Err(Error::Url(_))));
    assert!(serde_json::from_str::<Config>("{\"batch\":0}").is_err());
}
