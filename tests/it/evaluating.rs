//! Offline evaluation, as an independent reading of the published lists has it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};

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
    // What users are said to have turned to are their own items, as given weights list them.
    let run = shop.run(&[]);
    shop.without_weights();
    let lists = rows(&run.join("recommendations"), &["user_id", "item_id", "rank", "history_score"]);
    let own: Vec<&Vec<String>> =
        lists.iter().filter(|row| row[3].parse::<f64>().is_ok_and(|score| score > 0.0)).collect();
    assert!(own.len() > 100);
    let column = |at: usize| -> ArrayRef {
        Arc::new(own.iter().map(|row| Some(row[at].clone())).collect::<StringArray>())
    };
    let table = [("user_id", column(0)), ("item_id", column(1))];
    shop.write("data/valid.parquet", &RecordBatch::try_from_iter(table).expect("rows"));
    let alone = shop.lamplighter(&["check", "job.toml", "--set", "evaluation.valid='data/valid.parquet'"]);
    let said = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert_eq!(alone.status.code(), Some(2), "{said}");
    assert!(said.contains("`evaluation.test` beside it"), "{said}");
    let given = "evaluation.test='data/valid.parquet'";
    let run = shop.run(&["--set", "evaluation.valid='data/valid.parquet'", "--set", given]);
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

/// The run's metrics at the first length: by system, metric and slice the value, its interval and the users.
fn metrics(run: &Path) -> BTreeMap<[String; 3], [f64; 4]> {
    let columns = ["system", "metric", "slice", "k", "value", "low", "high", "users"];
    let found = rows(&run.join("metrics"), &columns).into_iter().filter(|row| row[3] == K.to_string());
    let number = |text: &String| text.parse().unwrap_or(f64::NAN);
    found
        .map(|row| {
            let key = [row[0].clone(), row[1].clone(), row[2].clone()];
            (key, [number(&row[4]), number(&row[5]), number(&row[6]), number(&row[7])])
        })
        .collect()
}

fn key(system: &str, metric: &str, slice: &str) -> [String; 3] {
    [system, metric, slice].map(str::to_owned)
}

#[test]
fn where_all_times_are_equal_a_random_share_of_each_user_is_held_out() {
    let shop = Shop::new(5_000, 0.0);
    shop.without_weights();
    for file in shop.event_files() {
        shop.rewrite(&file, |rows| {
            let at = rows.schema().index_of("event_time").expect("times");
            let mut columns = rows.columns().to_vec();
            let midnight = TimestampMicrosecondArray::from(vec![1_767_225_600_000_000; rows.num_rows()]);
            columns[at] = cast(&midnight, columns[at].data_type()).expect("times");
            RecordBatch::try_new(rows.schema(), columns).expect("rows")
        });
    }
    let run = shop.run(&["--set", "ranking.exclude_seen=true"]);
    let manifest = crate::shop::manifest(&run);
    assert!(manifest["warnings"].to_string().contains("all event times are equal"), "{manifest}");
    let learn = &manifest["facts"]["learn"];
    assert!(learn["users"].as_u64().is_some_and(|users| users > 50), "{learn}");
    let found = metrics(&run);
    let recall = |system: &str| found[&key(system, "recall", "all")][0];
    assert!(recall("fused") > recall("popularity"), "{} and {}", recall("fused"), recall("popularity"));
    assert!(found.keys().all(|key| key[2] != "repeat" && key[0] != "trend" && key[0] != "sequence"));

    // Seen items cannot be held out, so that they are not judged by it: they stay in tonight's lists, and out
    // of those that are compared.
    let run = shop.run(&[]);
    assert_eq!(crate::shop::manifest(&run)["facts"]["learn"]["weights"]["history"], 1.0);
    let own = rows(&run.join("recommendations"), &["history_score"]);
    assert!(own.iter().any(|row| row[0].parse::<f64>().is_ok_and(|score| score > 0.0)));
    let again = metrics(&run);
    assert_eq!(again[&key("fused", "repeat_share", "all")][0], 0.0);
    assert!(again[&key("fused", "recall", "all")][0] > 0.8 * recall("fused"));
}

#[test]
fn who_begins_after_the_cut_is_of_no_segment() {
    let shop = Shop::new(5_000, 0.0);
    let before = metrics(&shop.run(&[]));
    let last = shop.event_files().pop().expect("a day");
    shop.rewrite(&last, |rows| {
        let items = rows.column_by_name("item_id").expect("items");
        let bought: Vec<u32> =
            (0..rows.num_rows() as u32).filter(|row| !items.is_null(*row as usize)).collect();
        let mut later = take_record_batch(&rows, &UInt32Array::from(bought[..9].to_vec())).expect("rows");
        let at = rows.schema().index_of("user_id").expect("users");
        let names: ArrayRef = Arc::new((0..9).map(|n| Some(format!("zz-{n}"))).collect::<StringArray>());
        let mut columns = later.columns().to_vec();
        columns[at] = cast(&names, columns[at].data_type()).expect("names");
        later = RecordBatch::try_new(rows.schema(), columns).expect("rows");
        concat_batches(&rows.schema(), [&rows, &later]).expect("rows")
    });
    let after = metrics(&shop.run(&[]));
    let users = |of: &BTreeMap<[String; 3], [f64; 4]>, slice: &str| {
        of.get(&key("fused", "recall", slice)).map_or(0.0, |row| row[3])
    };
    assert_eq!(users(&after, "all"), users(&before, "all") + 9.0);
    assert_eq!(users(&after, "cold_users"), users(&before, "cold_users") + 9.0);
    let segments: Vec<&[String; 3]> = before.keys().filter(|key| key[2].starts_with("segment=")).collect();
    assert!(segments.len() > 20);
    for key in segments {
        assert_eq!(after[key][3], before[key][3], "{key:?}");
    }
}

#[test]
fn lists_are_compared_at_other_diversities_and_with_own_items_by_frequency() {
    let shop = Shop::new(5_000, 0.0);
    let found = metrics(&shop.run(&["--set", "evaluation.diversity=[0.5]"]));
    let [value, low, high, _] = found[&key("fused", "diversity", "all")];
    assert!(low <= value && value <= high && low < high, "{low} {value} {high}");
    let diverse = found[&key("fused d=0.5", "diversity", "all")][0];
    assert!(diverse > value, "{diverse} and {value}");
    // Whoever turned to an item most often, does so again more often than to any popular one.
    let recall = |system: &str| found[&key(system, "recall", "repeat")][0];
    assert!(recall("frequency") > recall("popularity") && recall("frequency") < 1.0);

    // Other rules make other lists of the same models, with the same weights.
    let manifest = crate::shop::manifest(&shop.run(&["--set", "ranking.rules.diversity=0.5"]));
    for stage in manifest["stages"].as_array().expect("stages") {
        let made = ["rank", "evaluate", "gate"].contains(&stage["name"].as_str().expect("a name"));
        assert_eq!(stage["reused_from"].is_null(), made, "{stage}");
    }
}

/// A job whose users have attributes and whose weights are learned.
fn shop_of_users() -> Shop {
    let shop = Shop::new(5_000, 0.0);
    shop.write_job("[inputs.users]\npath = 'data/users.parquet'");
    shop.without_weights();
    shop
}

#[test]
fn metrics_are_split_by_any_column_of_items_and_users() {
    let shop = shop_of_users();
    let slices = "evaluation.slices=['items.brand','items.in_stock','users.region','users.consent']";
    let metrics = |run: &std::path::Path| {
        rows(&run.join("metrics"), &["slice", "system", "metric", "k", "value", "users"])
    };
    let run = shop.run(&["--set", slices]);
    let found = metrics(&run);
    let recall = |slice: &str| -> (f64, usize) {
        let row = found.iter().find(|row| row[..4] == [slice, "fused", "recall", "10"]).expect(slice);
        (row[4].parse().expect("a value"), row[5].parse().expect("a count"))
    };
    // Every user has one region, so that the slices' means make up the mean of all.
    let regions: BTreeSet<String> =
        rows(&shop.path("data/users.parquet"), &["region"]).into_iter().map(|row| row[0].clone()).collect();
    assert!(regions.len() > 2);
    let of_regions: Vec<(f64, usize)> =
        regions.iter().map(|region| recall(&format!("users.region={region}"))).collect();
    let n_users: usize = of_regions.iter().map(|slice| slice.1).sum();
    let mean = of_regions.iter().map(|slice| slice.0 * slice.1 as f64).sum::<f64>() / n_users as f64;
    assert_eq!(n_users, recall("all").1);
    assert!((mean - recall("all").0).abs() < 1e-9, "{mean} for {:?}", recall("all"));
    assert_eq!(recall("users.consent=true").1 + recall("users.consent=false").1, n_users);
    // What is out of stock is never listed.
    assert_eq!(recall("items.in_stock=false").0, 0.0);
    assert!(recall("items.in_stock=true").0 > recall("all").0);
    assert!(found.iter().any(|row| row[0].starts_with("items.brand=")));

    // Other slices are another evaluation of the same models.
    let run = shop.run(&["--set", "evaluation.slices=['items.category']"]);
    assert!(metrics(&run).iter().any(|row| row[0].starts_with("items.category=")));
    assert!(!metrics(&run).iter().any(|row| row[0].starts_with("users.")));
    for stage in crate::shop::manifest(&run)["stages"].as_array().expect("stages") {
        let is_new = stage["reused_from"].is_null();
        assert_eq!(is_new, stage["name"] == "evaluate" || stage["name"] == "gate", "{stage}");
    }
}

#[test]
fn a_row_of_a_list_has_a_probability_that_outcomes_bear_out() {
    let shop = shop_of_users();
    let run = shop.run(&[]);
    let backtest = rows(&run.join("backtest"), &["user_id", "rank", "item_id", "probability", "hit"]);
    assert!(backtest.len() > 1_000, "{}", backtest.len());
    let parsed: Vec<(usize, f64, f64)> = backtest
        .iter()
        .map(|row| {
            let hit = f64::from(u8::from(row[4] == "true"));
            (row[1].parse().expect("a rank"), row[3].parse().expect("a probability"), hit)
        })
        .collect();
    let metrics =
        rows(&run.join("metrics"), &["system", "metric", "k", "slice", "value", "low", "high", "baseline"]);
    for k in [10, 20] {
        let of_k: Vec<_> = parsed.iter().filter(|row| row.0 <= k).collect();
        let mean = |of: &dyn Fn(f64, f64) -> f64| {
            of_k.iter().map(|(_, p, hit)| of(*p, *hit)).sum::<f64>() / of_k.len() as f64
        };
        let found = |metric: &str| -> Vec<f64> {
            let name = ["fused", metric, &k.to_string(), "all"];
            let row = metrics.iter().find(|row| row[..4] == name).expect("the metric");
            row[4..].iter().map(|value| value.parse().expect("a value")).collect()
        };
        let (mae, mse, rmse) = (found("mae"), found("mse"), found("rmse"));
        assert!((mae[0] - mean(&|p, hit| (p - hit).abs())).abs() < 1e-6);
        assert!((mse[0] - mean(&|p, hit| (p - hit).powi(2))).abs() < 1e-6);
        assert!((rmse[0] - mse[0].sqrt()).abs() < 1e-12);
        for errors in [&mae, &mse, &rmse] {
            assert!(errors[1] <= errors[0] && errors[0] <= errors[2], "{errors:?}");
        }
        // Scores tell more than the mean outcome does, and on the whole promise what happens.
        assert!(mse[0] < mse[3], "{mse:?}");
        let (promised, happened) = (mean(&|p, _| p), mean(&|_, hit| hit));
        assert!((promised / happened - 1.0).abs() < 0.35, "{promised} promised, {happened} happened");
    }
    assert!(!metrics.iter().any(|row| row[0] != "fused" && row[1] == "mse"));
}

#[test]
fn weights_that_are_given_are_not_calibrated() {
    let shop = Shop::new(5_000, 0.0);
    let run = shop.run(&[]);
    let metrics = rows(&run.join("metrics"), &["metric"]);
    assert!(!metrics.iter().any(|row| row[0] == "mse"));
    assert!(rows(&run.join("backtest"), &["probability"]).iter().all(|row| row[0] == "NULL"));
}

#[test]
fn users_whom_the_jobs_own_statement_leaves_out_are_of_no_segment() {
    let shop = Shop::new(5_000, 0.0);
    shop.without_weights();
    let statement = include_str!("../../sql/behavior/users.sql");
    let order = "ORDER BY activity.user_idx";
    assert!(statement.contains(order));
    let some = statement.replace(order, &format!("WHERE n_events > 15\n{order}"));
    std::fs::write(shop.path("users.sql"), some).expect("a statement");
    for split in ["random", "leave-last-out", "temporal"] {
        let split = format!("evaluation.split='{split}'");
        let run = shop.run(&["--set", "behavior.sql={users='users.sql'}", "--set", &split]);
        let profiles = rows(&run.join("user_profiles"), &["user_id"]).len();
        let factors = rows(&run.join("user_factors"), &["user_id"]).len();
        assert!(profiles > 20 && profiles < factors, "{profiles} of {factors}");
    }
}
