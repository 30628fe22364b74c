//! Factors that begin where earlier ones ended.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, UInt16Type};

use crate::shop::{Shop, manifest, read};

/// Every user's ten best items.
fn lists(run: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut lists: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for bucket in std::fs::read_dir(run.join("recommendations")).expect("as written") {
        let rows = read(&bucket.expect("as written").path().join("part.parquet"));
        let ids = |name: &str| {
            cast(rows.column_by_name(name).expect("as written"), &DataType::Utf8).expect("as written")
        };
        let (users, items) = (ids("user_id"), ids("item_id"));
        let (users, items) = (users.as_string::<i32>(), items.as_string::<i32>());
        let ranks = rows.column_by_name("rank").expect("as written").as_primitive::<UInt16Type>();
        for at in (0..rows.num_rows()).filter(|at| ranks.value(*at) <= 10) {
            lists.entry(users.value(at).to_owned()).or_default().insert(items.value(at).to_owned());
        }
    }
    lists
}

fn facts(run: &Path) -> serde_json::Value {
    let record = std::fs::read_to_string(run.join("stages/factorize/stage.json")).expect("as written");
    serde_json::from_str::<serde_json::Value>(&record).expect("as written")["facts"].clone()
}

#[test]
fn a_night_that_begins_at_last_nights_factors_ends_near_one_that_does_not() {
    let shop = Shop::new(6_000, 0.0);
    shop.replace("iterations = 4", "iterations = 16");
    let warm = ["--set", "factors.warm_start=true"];
    let first = shop.run_of("2026-11-20", &warm);
    assert!(facts(&first)["warm_start"].is_null(), "there is nothing to begin at");
    let second = shop.run_of("2026-11-21", &warm);
    let full = shop.run_of("2026-11-21", &["--set", "output=full"]);

    let (warm_facts, cold_facts) = (facts(&second), facts(&full));
    assert_eq!(
        warm_facts["warm_start"],
        first.file_name().expect("as written").to_str().expect("as written")
    );
    let of = |facts: &serde_json::Value, name: &str| {
        facts["objective"]["train"][name].as_f64().expect("as written")
    };
    assert_eq!((of(&warm_facts, "sweeps"), of(&cold_facts, "sweeps")), (4.0, 16.0));
    let total = |facts: &serde_json::Value| facts["objective"]["full"]["total"].as_f64().expect("as written");
    let (warm_total, cold_total) = (total(&warm_facts), total(&cold_facts));
    assert!((warm_total - cold_total).abs() < 0.005 * cold_total, "{warm_total} against {cold_total}");

    let (warm_lists, cold_lists) = (lists(&second), lists(&full));
    assert!(warm_lists.keys().eq(cold_lists.keys()), "the same users have lists");
    let same: usize =
        warm_lists.iter().map(|(user, list)| list.intersection(&cold_lists[user]).count()).sum();
    let all: usize = cold_lists.values().map(BTreeSet::len).sum();
    assert!(same as f64 > 0.75 * all as f64, "{same} of {all} rows are the same");

    // The night that a day has already seen is not begun at: the same start, the same rows.
    let again = shop.run_of("2026-11-21", &warm);
    assert_eq!(facts(&again)["warm_start"], warm_facts["warm_start"]);
    assert_eq!(lists(&again), warm_lists);
}

#[test]
fn factorize_goes_on_and_folds_in() {
    let shop = Shop::new(6_000, 0.0);
    let run = shop.run(&[]);
    let input = run.join("stages/behavior/full/interactions.parquet");
    let input = input.to_str().expect("as written");
    let factorize = |rank: &str, more: &[&str]| {
        let args = ["factorize", "--input", input, "--rank", rank];
        let args: Vec<&str> = args.iter().chain(more).copied().collect();
        let output = shop.lamplighter(&args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let objective =
            text.split("objective ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
        (output.status.success(), objective, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let whole = factorize("8", &["--out", "whole"]).1.expect("as written");
    let more =
        factorize("8", &["--start", "whole", "--iterations", "1", "--out", "more"]).1.expect("as written");
    assert!(more <= whole * 1.000_001, "{more} after one sweep more than {whole}");
    let short = factorize("8", &["--iterations", "1", "--out", "short"]).1.expect("as written");
    assert!(short > 1.05 * whole, "{short}");

    let items = "whole/item_factors.parquet";
    let folded = factorize("8", &["--fold-in", items, "--out", "folded"]).1.expect("as written");
    assert!((folded - whole).abs() < 0.01 * whole, "{folded} against {whole}");
    let written = |folder: &str| read(&shop.path(folder).join("item_factors.parquet"));
    assert_eq!(written("folded"), written("whole"), "items stay");

    let (success, _, message) = factorize("9", &["--fold-in", items, "--out", "no"]);
    assert!(!success && message.contains("factors of rank 9"), "{message}");
    assert!(message.contains("found rank 8"), "{message}");
}

#[test]
fn damaged_factors_of_last_night_are_not_begun_at() {
    let shop = Shop::new(6_000, 0.0);
    let warm = ["--set", "factors.warm_start=true"];
    let first = shop.run_of("2026-11-20", &[&warm[..], &["--set", "behavior.later_events=exclude"]].concat());
    let path = first.join("stages/factorize/train/user_factors/part.parquet");
    let length = std::fs::metadata(&path).expect("as written").len();
    std::fs::write(&path, vec![0; length as usize]).expect("a file");
    let second = shop.run_of("2026-11-21", &warm);
    assert!(facts(&second)["warm_start"].is_null());
    let warnings = manifest(&second)["warnings"].to_string();
    assert!(warnings.contains("the factors of night-2026-11-20-1 are not built on"), "{warnings}");
}
