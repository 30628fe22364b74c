//! Whole nights over a made-up shop.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Schema};
use parquet::basic::Encoding;
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::shop::{Shop, manifest, read};
use crate::table::rows;

const LISTS: [&str; 4] = ["recommendations", "similar_items", "query_items", "popular_items"];

#[test]
fn every_row_is_kept_rejected_or_excluded_and_reasons_count_as_planted() {
    let shop = Shop::new(20_000, 0.05);
    shop.write_job("[behavior]\nmax_rejected_share = 0.1");
    let run = shop.run(&[]);
    let events = &manifest(&run)["events"];
    let count = |value: &serde_json::Value| -> u64 {
        value.as_object().expect("counts").values().map(|n| n.as_u64().expect("a count")).sum()
    };
    assert_eq!(events["read"], shop.planted.events);
    assert_eq!(events["kept"], shop.planted.clean);
    assert_eq!(
        events["read"].as_u64(),
        Some(shop.planted.clean + count(&events["rejected"]) + count(&events["excluded"]))
    );
    let planted: BTreeMap<String, u64> = shop
        .planted
        .reasons
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(reason, n)| ((*reason).to_owned(), *n))
        .collect();
    let rejected: BTreeMap<String, u64> =
        serde_json::from_value(events["rejected"].clone()).expect("counts by reason");
    assert_eq!(rejected, planted);
    let mut written: BTreeMap<String, u64> = BTreeMap::new();
    for row in rows(&run.join("rejected/source=events"), &["reason"]) {
        *written.entry(row[0].clone()).or_default() += 1;
    }
    assert_eq!(written, planted);
}

/// No file under a folder has an encoding that some readers lack, as those between stages do.
fn for_all_readers(folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            for_all_readers(&path);
            continue;
        }
        let reader = SerializedFileReader::new(std::fs::File::open(&path).expect("a file")).expect("Parquet");
        for column in reader.metadata().row_groups().iter().flat_map(|group| group.columns()) {
            let packed = column.encodings().any(|encoding| encoding == Encoding::DELTA_BINARY_PACKED);
            assert!(!packed, "{} of {}", column.column_path(), path.display());
        }
    }
}

#[test]
fn tables_are_what_the_manifest_says_and_lists_keep_their_contract() {
    let shop = Shop::new(10_000, 0.01);
    let run = shop.run(&[]);
    let manifest = manifest(&run);
    for (table, record) in manifest["tables"].as_object().expect("tables") {
        let read = rows(&run.join(table), &[]).len() as u64;
        assert_eq!(record["rows"], read, "{table}");
    }
    for table in manifest["tables"].as_object().expect("tables").keys() {
        for_all_readers(&run.join(table));
    }
    let catalog = rows(&shop.path("data/items.parquet"), &["item_id", "in_stock"]);
    let in_stock: BTreeSet<&str> =
        catalog.iter().filter(|row| row[1] == "true").map(|row| row[0].as_str()).collect();
    let lists = rows(&run.join("recommendations"), &["user_id", "rank", "item_id", "score", "reason"]);
    let mut by_user: BTreeMap<&str, Vec<&Vec<String>>> = BTreeMap::new();
    for row in &lists {
        by_user.entry(&row[0]).or_default().push(row);
    }
    assert!(by_user.len() > 100, "{} users", by_user.len());
    for (user, list) in by_user {
        assert_eq!(list.len(), 20, "{user}: a full list");
        let items: BTreeSet<&str> = list.iter().map(|row| row[2].as_str()).collect();
        assert_eq!(items.len(), list.len(), "{user}: no item twice");
        assert!(items.is_subset(&in_stock), "{user}: only what is in stock");
        for (at, row) in list.iter().enumerate() {
            assert_eq!(row[1], (at + 1).to_string(), "{user}: ranks without a gap");
            assert!(!row[4].is_empty(), "{user}: a reason");
        }
    }
    let metrics = rows(&run.join("metrics"), &["system", "metric", "k", "slice", "value"]);
    let value = |system: &str| -> f64 {
        let row = metrics.iter().find(|row| row[..4] == [system, "ndcg", "10", "all"]);
        row.expect("a metric")[4].parse().expect("a number")
    };
    assert!(value("fused") > value("popularity"), "{} against {}", value("fused"), value("popularity"));
}

#[test]
fn seen_items_stay_out_where_the_job_says_so() {
    let shop = Shop::new(5_000, 0.0);
    let run = shop.run(&["--set", "ranking.exclude_seen=true", "--set", "ranking.top_k=5"]);
    let events = rows(&shop.path("data/events"), &["user_id", "item_id"]);
    let seen: BTreeSet<(&str, &str)> = events.iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
    let lists = rows(&run.join("recommendations"), &["user_id", "item_id"]);
    assert!(lists.len() > 500);
    for row in &lists {
        assert!(!seen.contains(&(row[0].as_str(), row[1].as_str())), "{row:?}");
    }
}

#[test]
fn a_second_run_reuses_every_stage_and_gives_the_same_rows() {
    let shop = Shop::new(5_000, 0.0);
    let first = shop.run(&[]);
    let second = shop.run(&[]);
    assert!(first.ends_with("night-2026-11-21-1") && second.ends_with("night-2026-11-21-2"));
    // The gate compares with another run, and so looks again.
    let stages = manifest(&second)["stages"].clone();
    for stage in stages.as_array().expect("stages").iter().filter(|stage| stage["name"] != "gate") {
        assert_eq!(stage["reused_from"], "night-2026-11-21-1", "{stage}");
    }
    let columns = ["rank", "score"];
    for table in LISTS {
        assert_eq!(rows(&first.join(table), &columns), rows(&second.join(table), &columns), "{table}");
    }
    // A night that multiplies says how fast the machine does, and how near to it the night came.
    assert!(manifest(&first)["peak_flops"].as_f64() > Some(0.0));
    assert_eq!(manifest(&second)["peak_flops"], 0.0);
    let shown = shop.lamplighter(&["show", "run", "job.toml", "night-2026-11-21-1"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let line = shown.lines().find(|line| line.contains("GFLOP/s")).expect("a line of shares");
    assert!(line.contains("factorize ") && line.contains("rank "), "{line}");
}

#[test]
fn a_night_from_scratch_gives_the_same_rows_again() {
    let shop = Shop::new(5_000, 0.0);
    let columns = ["user_id", "rank", "item_id", "score", "reason"];
    let first = rows(&shop.run(&[]).join("recommendations"), &columns);
    std::fs::remove_dir_all(shop.path("out")).expect("the output is removed");
    assert_eq!(rows(&shop.run(&[]).join("recommendations"), &columns), first);
}

#[test]
fn a_run_stopped_after_a_stage_goes_on_from_there() {
    let shop = Shop::new(5_000, 0.0);
    let output = shop.lamplighter(&["run", "job.toml", "--date", "2026-11-21", "--stage", "factorize"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!shop.path("out/CURRENT").exists());
    let run = shop.run(&[]);
    let stages = manifest(&run)["stages"].clone();
    assert!(run.ends_with("night-2026-11-21-1"));
    let reused = |name: &str| {
        let stages = stages.as_array().expect("stages").iter();
        stages.filter(|stage| stage["name"] == name).map(|stage| stage["reused_from"].clone()).next()
    };
    assert_eq!(reused("factorize"), Some("night-2026-11-21-1".into()));
    assert_eq!(reused("rank"), Some(serde_json::Value::Null));
}

#[test]
fn people_can_look_at_what_was_published() {
    let shop = Shop::new(5_000, 0.0);
    let run = shop.run(&[]);
    let user = rows(&run.join("recommendations"), &["user_id"])[0][0].clone();
    let said = |args: &[&str]| {
        let output = shop.lamplighter(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let shown = said(&["show", "user", "job.toml", &user, "-k", "3"]);
    assert!(shown.contains(&user) && shown.contains("reason"), "{shown}");
    let counted = said(&["sql", "job.toml", "SELECT count(*) AS n FROM recommendations"]);
    assert!(counted.contains(&rows(&run.join("recommendations"), &[]).len().to_string()), "{counted}");
    assert!(
        said(&["sql", "job.toml", "SELECT run_id FROM runs WHERE current"]).contains("night-2026-11-21-1")
    );
    let whole = said(&["show", "run", "job.toml"]);
    assert!(whole.contains("recommendations"));
    assert_eq!(said(&["show", "run", "job.toml", "CURRENT"]), whole);
    assert_eq!(shop.lamplighter(&["show", "run", "job.toml", "../runs"]).status.code(), Some(2));
    let none = shop.lamplighter(&["show", "user", "job.toml", &user, "-k", "0"]);
    assert_eq!(none.status.code(), Some(2));
}

#[test]
fn who_has_seen_all_that_may_be_listed_is_shown_without_a_list() {
    let shop = Shop::new(5_000, 0.0);
    let some = read(&shop.path(&shop.event_files()[0]));
    let item = some["item_id"].as_string::<i32>().iter().flatten().next().expect("an item");
    shop.write_job(&format!("[catalog]\neligible = \"item_id = '{item}'\"\n"));
    shop.replace("top_k = 20", "top_k = 20\nexclude_seen = true");
    let run = shop.run(&[]);
    let users = |table: &str| -> BTreeSet<String> {
        rows(&run.join(table), &["user_id"]).into_iter().map(|row| row[0].clone()).collect()
    };
    let (listed, all) = (users("recommendations"), users("user_profiles"));
    let without = all.difference(&listed).next().expect("somebody who has bought it");
    let shown = shop.lamplighter(&["show", "user", "job.toml", without]);
    let shown = String::from_utf8(shown.stdout).expect("text");
    assert!(shown.contains("segment") && shown.ends_with("no list\n"), "{shown}");
}

#[test]
fn users_without_history_get_the_popular_list_where_the_job_says_so() {
    let shop = Shop::new(2_000, 0.0);
    let users = |run: &std::path::Path| -> BTreeMap<String, Vec<(String, String)>> {
        let mut lists: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for row in rows(&run.join("recommendations"), &["user_id", "item_id", "reason"]) {
            lists.entry(row[0].clone()).or_default().push((row[1].clone(), row[2].clone()));
        }
        lists
    };
    let before = users(&shop.run(&[]));
    let sets = ["--set", "inputs.users={path='data/users.parquet'}", "--set", "ranking.include_cold=true"];
    let run = shop.run(&sets);
    let after = users(&run);
    let known = rows(&shop.path("data/users.parquet"), &["user_id"]);
    assert_eq!(after.len(), known.len(), "every user of the table has a list");
    assert!(before.len() < after.len(), "some users have no history");
    let popular: Vec<String> = rows(&run.join("popular_items"), &["segment", "item_id"])
        .into_iter()
        .filter_map(|row| (row[0] == "all").then(|| row[1].clone()))
        .collect();
    for (user, list) in &after {
        match before.get(user) {
            Some(own) => assert_eq!(list, own, "{user}"),
            None => {
                assert_eq!(
                    list.iter().map(|row| &row.0).collect::<Vec<_>>(),
                    popular.iter().collect::<Vec<_>>()
                );
                assert!(list.iter().all(|row| row.1 == "popular with all users"), "{user}");
            }
        }
    }
}

#[test]
fn users_who_only_searched_do_not_move_the_lists_of_others() {
    let shop = Shop::new(5_000, 0.0);
    for file in shop.event_files() {
        shop.rewrite(&file, |rows| {
            let text = |name: &str| rows.column_by_name(name).expect("the column").as_string::<i32>().clone();
            let (users, types) = (text("user_id"), text("event_type"));
            let keep = users.iter().zip(&types).map(|(user, kind)| {
                Some(!user.is_some_and(|user| user.ends_with('3')) || kind == Some("search"))
            });
            let keep = keep.collect::<arrow::array::BooleanArray>();
            arrow::compute::filter_record_batch(&rows, &keep).expect("fewer rows")
        });
    }
    let lists = |run: &std::path::Path| rows(&run.join("recommendations"), &["user_id", "item_id", "score"]);
    let no_words = ["--set", "inputs.items.text=[]"];
    let own = lists(&shop.run(&no_words));
    let searchers = |rows: &[Vec<String>]| rows.iter().filter(|row| row[0].ends_with('3')).count();
    assert!(own.len() > 1_000 && searchers(&own) == 0, "without words nothing is known of them");
    let with_cold = [&no_words[..], &["--set", "ranking.include_cold=true"]].concat();
    let mut with_cold = lists(&shop.run(&with_cold));
    assert!(searchers(&with_cold) > 100, "some of them searched");
    with_cold.retain(|row| !row[0].ends_with('3'));
    assert_eq!(with_cold, own);
}

#[test]
fn ids_and_titles_come_back_as_they_went_in_whatever_is_in_them() {
    let shop = Shop::new(5_000, 0.0);
    let names =
        ["it's", "say \"hi\"", "two\nlines", "\u{1F600}", "tab\there", "%s {} $1", "<script>", "NULL", " "];
    let rename = |id: &str| match id.strip_prefix("p-").and_then(|n| n.parse::<usize>().ok()) {
        Some(n) if n < names.len() => names[n].to_owned(),
        _ => id.to_owned(),
    };
    let renamed = |rows: RecordBatch| -> RecordBatch {
        let (at, _) = rows.schema().column_with_name("item_id").expect("item_id");
        let old = arrow::compute::cast(rows.column(at), &DataType::Utf8).expect("strings");
        let new: StringArray = old.as_string::<i32>().iter().map(|id| id.map(rename)).collect();
        let mut columns = rows.columns().to_vec();
        columns[at] = std::sync::Arc::new(new);
        let fields: Vec<_> = rows
            .schema()
            .fields()
            .iter()
            .zip(&columns)
            .map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()))
            .collect();
        RecordBatch::try_new(std::sync::Arc::new(Schema::new(fields)), columns).expect("rows")
    };
    shop.rewrite("data/items.parquet", renamed);
    for file in shop.event_files() {
        shop.rewrite(&file, renamed);
    }
    let run = shop.run(&[]);
    let listed: BTreeSet<String> =
        rows(&run.join("item_factors"), &["item_id"]).into_iter().map(|row| row[0].clone()).collect();
    for name in names {
        assert!(listed.contains(name), "{name:?}");
    }
    let catalog: BTreeSet<String> =
        rows(&shop.path("data/items.parquet"), &["item_id"]).into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(listed, catalog);
}

#[test]
fn rules_shape_lists_and_lists_stay_full() {
    let shop = Shop::new(5_000, 0.0);
    let items = rows(&shop.path("data/items.parquet"), &["item_id", "brand", "category", "in_stock"]);
    let of = |at: usize| -> BTreeMap<String, String> {
        items.iter().map(|row| (row[0].clone(), row[at].clone())).collect()
    };
    let (brands, categories, stock) = (of(1), of(2), of(3));
    let listed = items.iter().filter(|row| row[3] == "true").collect::<Vec<_>>();
    let (pinned, boosted) = (listed[7][0].clone(), listed[3][1].clone());
    let columns = ["user_id", "rank", "item_id", "score", "rules_score"];
    let plain = rows(&shop.run(&[]).join("recommendations"), &columns);
    assert!(plain.iter().all(|row| row[4] == "0.0"), "no rules, no share of theirs");

    shop.write_job(&format!(
        "[ranking.rules]\nmax_per_category = 3\nmax_per_brand = 4\ndiversity = 0.2\nlong_tail = 0.1\n\
         [[catalog.pins]]\nwhen = \"item_id = '{pinned}'\"\nrank = 2\n\
         [[catalog.boosts]]\nwhen = \"brand = '{boosted}'\"\nadd = 3.0\n"
    ));
    let run = shop.run(&[]);
    let ruled = rows(&run.join("recommendations"), &columns);
    let mut lists: BTreeMap<&str, Vec<&Vec<String>>> = Default::default();
    ruled.iter().for_each(|row| lists.entry(&row[0]).or_default().push(row));
    assert!(lists.len() > 200);
    let count =
        |rows: &[Vec<String>], brand: &str| rows.iter().filter(|row| brands[&row[2]] == brand).count();
    assert!(count(&ruled, &boosted) > 2 * count(&plain, &boosted), "what is boosted rises");
    for list in lists.values() {
        assert_eq!(list.len(), 20, "lists stay full");
        assert_eq!(list[1][2], pinned);
        let most = |of: &BTreeMap<String, String>| {
            let names: Vec<&String> =
                list.iter().map(|row| &of[&row[2]]).filter(|name| *name != "NULL").collect();
            names.iter().map(|name| names.iter().filter(|other| **other == *name).count()).max()
        };
        assert!(most(&categories) <= Some(3) && most(&brands) <= Some(4));
        assert!(list.iter().all(|row| stock[&row[2]] == "true"), "nothing that may not be listed");
        let scores: Vec<f64> = list.iter().map(|row| row[3].parse().expect("a score")).collect();
        assert!(scores.windows(2).all(|pair| pair[0] >= pair[1]), "{scores:?}");
    }
    // Who has no history has a list by the same rules.
    let known: BTreeSet<String> = lists.keys().map(|user| (*user).to_owned()).collect();
    let sets = ["--set", "inputs.users={path='data/users.parquet'}", "--set", "ranking.include_cold=true"];
    let with_cold = rows(&shop.run(&sets).join("recommendations"), &columns);
    let mut cold: BTreeMap<&str, Vec<&Vec<String>>> = Default::default();
    let new = with_cold.iter().filter(|row| !known.contains(&row[0]));
    new.for_each(|row| cold.entry(&row[0]).or_default().push(row));
    assert!(!cold.is_empty(), "some users have no history");
    for list in cold.values() {
        assert_eq!(list[1][2], pinned);
        let of_category = |name: &String| list.iter().filter(|row| &categories[&row[2]] == name).count();
        assert!(list.iter().all(|row| of_category(&categories[&row[2]]) <= 3), "{list:?}");
    }
    // What the shop put there is not said to be there for the user's sake.
    let told = rows(&run.join("recommendations"), &["item_id", "source", "reason"]);
    let by_rules: Vec<_> = told.iter().filter(|row| row[1] == "rules").collect();
    assert!(by_rules.iter().any(|row| row[0] == pinned) && by_rules.len() > 200, "{}", by_rules.len());
    let is_honest = |reason: &str| reason == "featured by the shop" || reason.starts_with("you ");
    assert!(by_rules.iter().all(|row| is_honest(&row[2])), "{by_rules:?}");
    assert!(by_rules.iter().all(|row| row[0] == pinned || brands[&row[0]] == boosted), "{by_rules:?}");
}

#[test]
fn what_is_switched_off_counts_for_nothing_where_weights_are_fixed_ones() {
    let shop = Shop::new(150, 0.0);
    shop.without_weights();
    let run = shop.run(&["--set", "ranking.without=['factors']"]);
    let warnings = manifest(&run)["warnings"].to_string();
    assert!(warnings.contains("not learned but fixed"), "{warnings}");
    let lists = rows(&run.join("recommendations"), &["source", "factors_score"]);
    assert!(!lists.is_empty() && lists.iter().all(|row| row[0] != "factors" && row[1] == "0.0"), "{lists:?}");
}

#[test]
fn a_dry_run_says_what_each_model_would_cost_and_writes_nothing() {
    let shop = Shop::new(2_000, 0.0);
    let plan = |more: &[&str]| {
        let args: Vec<&str> = ["run", "job.toml", "--dry-run"].iter().chain(more).copied().collect();
        let output = shop.lamplighter(&args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let given = plan(&[]);
    assert!(given.contains("models, by 200 items; each is fitted 2 times"), "{given}");
    assert!(given.contains("factors      rank 16, 4 sweeps"), "{given}");
    assert!(!given.contains("ease"), "a source without weight is not fitted:\n{given}");

    shop.without_weights();
    let learned = plan(&["--set", "ranking.without=['walk']"]);
    assert!(learned.contains("each is fitted 3 times"), "{learned}");
    assert!(learned.contains("ease         one inverse of 200 items"), "{learned}");
    assert!(learned.contains("repeat"), "{learned}");
    let large = plan(&["--set", "linear.ease_items=100"]);
    assert!(large.contains("ease         of 100 neighbours an item"), "{large}");
    assert!(!learned.contains("walk"), "{learned}");
    assert!(!plan(&["--set", "ranking.exclude_seen=true"]).contains("repeat"));
    assert!(!shop.path("out").exists(), "nothing may be written");
}
