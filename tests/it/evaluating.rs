//! Offline evaluation, as an independent reading of the published lists has it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};

use crate::shop::Shop;
use crate::table::rows;

const K: usize = 10;

/// Recall and NDCG at K over all users of the truth, as the public leader boards define them.
fn scored(lists: &BTreeMap<String, Vec<String>>, truth: &BTreeMap<String, BTreeSet<String>>) -> (f64, f64) {
    let discount = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
    let (mut recall, mut ndcg) = (0.0, 0.0);
    for (user, wanted) in truth {
        let Some(list) = lists.get(user) else { continue };
        let hits: Vec<usize> = list
            .iter()
            .take(K)
            .enumerate()
            .filter(|(_, item)| wanted.contains(*item))
            .map(|(at, _)| at)
            .collect();
        let ideal: f64 = (0..wanted.len().min(K)).map(discount).sum();
        recall += hits.len() as f64 / wanted.len() as f64;
        ndcg += hits.into_iter().map(discount).sum::<f64>() / ideal;
    }
    (recall / truth.len() as f64, ndcg / truth.len() as f64)
}

#[test]
fn a_given_test_table_is_scored_as_leader_boards_score_it() {
    let shop = Shop::new(5_000, 0.0);
    let run = shop.run(&[]);
    let mut lists: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows(&run.join("recommendations"), &["user_id", "item_id", "rank"]) {
        lists.entry(row[0].clone()).or_default().push(row[1].clone());
    }
    // Some of what was listed, some of what nobody could have listed, and somebody nobody knows.
    let mut truth: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (at, (user, list)) in lists.iter().enumerate() {
        let wanted = truth.entry(user.clone()).or_default();
        wanted.insert(list[at % 7].clone());
        wanted.insert(list[at % 20].clone());
        if at % 3 == 0 {
            wanted.insert("an-item-of-tomorrow".to_owned());
        }
    }
    truth.insert(
        "a-user-of-tomorrow".to_owned(),
        BTreeSet::from([lists.values().next().expect("a list")[0].clone()]),
    );
    let column = |of: &dyn Fn(&str, &str) -> String| -> ArrayRef {
        let pairs = truth.iter().flat_map(|(user, items)| items.iter().map(move |item| of(user, item)));
        Arc::new(pairs.map(Some).collect::<StringArray>())
    };
    let table =
        [("user_id", column(&|user, _| user.to_owned())), ("item_id", column(&|_, item| item.to_owned()))];
    shop.write("data/test.parquet", &RecordBatch::try_from_iter(table).expect("rows"));

    let run = shop.run(&["--set", "evaluation.test='data/test.parquet'"]);
    let found = |metric: &str| -> (f64, usize) {
        let metrics = rows(&run.join("metrics"), &["system", "metric", "k", "slice", "value", "users"]);
        let row = metrics.iter().find(|row| row[..4] == ["fused", metric, "10", "all"]).expect("the metric");
        (row[4].parse().expect("a value"), row[5].parse().expect("a count"))
    };
    let (recall, ndcg) = scored(&lists, &truth);
    assert!(recall > 0.3 && ndcg > 0.3, "{recall} {ndcg}");
    assert_eq!(found("recall").1, truth.len());
    assert!((found("recall").0 - recall).abs() < 1e-6, "{} for {recall}", found("recall").0);
    assert!((found("ndcg").0 - ndcg).abs() < 1e-6, "{} for {ndcg}", found("ndcg").0);
}

#[test]
fn an_evaluation_prints_every_slice_and_publishes_nothing() {
    let shop = Shop::new(5_000, 0.0);
    shop.without_weights();
    let output = shop.lamplighter(&["evaluate", "job.toml", "--date", "2026-11-21"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for part in
        ["all @10", "all @50", "new @10", "repeat @10", "segment=light @10", "fused", "history", "walk"]
    {
        assert!(text.contains(part), "expected `{part}` in:\n{text}");
    }
    assert!(!shop.path("out/CURRENT").exists());
    // Tonight's run takes over what the evaluation has made.
    shop.run(&[]);
    let log = String::from_utf8_lossy(&shop.lamplighter(&["run", "job.toml", "--date", "2026-11-21"]).stderr)
        .into_owned();
    assert!(log.contains("evaluate"), "{log}");
}

#[test]
fn weights_can_be_learned_from_a_given_table() {
    let shop = Shop::new(5_000, 0.0);
    shop.without_weights();
    // Everybody turns to the same item: popularity alone would never have said so of the rarest.
    let run = shop.run(&[]);
    let lists = rows(&run.join("recommendations"), &["user_id", "item_id", "rank", "history_score"]);
    let own: Vec<&Vec<String>> =
        lists.iter().filter(|row| row[3].parse::<f64>().is_ok_and(|score| score > 0.0)).collect();
    assert!(own.len() > 100);
    let column = |at: usize| -> ArrayRef {
        Arc::new(own.iter().map(|row| Some(row[at].clone())).collect::<StringArray>())
    };
    let table = [("user_id", column(0)), ("item_id", column(1))];
    shop.write("data/valid.parquet", &RecordBatch::try_from_iter(table).expect("rows"));
    let run = shop.run(&["--set", "evaluation.valid='data/valid.parquet'"]);
    let manifest = crate::shop::manifest(&run);
    let weights = &manifest["facts"]["learn"]["weights"];
    assert!(weights["history"] == 1.0 || weights["repeat"] == 1.0, "{weights}");
}

#[test]
fn where_hardly_anybody_comes_back_each_users_last_item_is_held_out() {
    let shop = Shop::new(5_000, 0.0);
    shop.without_weights();
    let learned_from = |more: &[&str]| {
        let manifest = crate::shop::manifest(&shop.run(more));
        let warnings = manifest["warnings"].to_string();
        (manifest["facts"]["learn"]["users"].as_u64().unwrap_or(0), warnings)
    };
    let (days, warnings) = learned_from(&[]);
    assert!(days > 50 && !warnings.contains("came back"), "{days} {warnings}");
    // Nobody comes back within seconds.
    let (last, warnings) = learned_from(&["--set", "evaluation.test_days=0.0001"]);
    assert!(last > 120 && warnings.contains("users came back in the held-out days"), "{last} {warnings}");
    let (few, warnings) =
        learned_from(&["--set", "evaluation.test_days=0.0001", "--set", "evaluation.split=temporal"]);
    assert!(few < 50 && !warnings.contains("came back"), "what the job says is done: {few} {warnings}");
}
