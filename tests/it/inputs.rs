//! Tables as shops really have them: types, nulls and files that differ.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, NullArray, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, UInt64Type};

use crate::shop::{Shop, manifest, read};
use crate::table::rows;

/// The rows with one column replaced or added.
fn with(rows: &RecordBatch, name: &str, column: ArrayRef) -> RecordBatch {
    let schema = rows.schema();
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    let mut columns = rows.columns().to_vec();
    let field = Field::new(name, column.data_type().clone(), true);
    match schema.index_of(name) {
        Ok(at) => (fields[at], columns[at]) = (field, column),
        Err(_) => {
            fields.push(field);
            columns.push(column);
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("rows")
}

fn numbers(rows: &RecordBatch, name: &str) -> Vec<Option<u64>> {
    let ids = rows.column_by_name(name).expect("the column").as_string::<i32>().clone();
    ids.iter()
        .map(|id| Some(id?.bytes().filter(u8::is_ascii_digit).fold(0, |n, d| n * 10 + u64::from(d - b'0'))))
        .collect()
}

/// A shop without a catalogue, so that item ids may be of any type.
fn shop(change: impl Fn(RecordBatch, usize) -> RecordBatch) -> Shop {
    let shop = Shop::new(5_000, 0.0);
    let job = std::fs::read_to_string(shop.path("job.toml")).expect("the job");
    let job = job.replace("[inputs.items]\npath = \"data/items.parquet\"\n", "");
    std::fs::write(shop.path("job.toml"), job).expect("the job");
    for (at, file) in shop.event_files().iter().enumerate() {
        shop.rewrite(file, |rows| change(rows, at));
    }
    shop
}

#[test]
fn hashed_ids_of_64_bits_come_back_whole_and_in_order() {
    let shop = shop(|rows, _| {
        let high = |name| -> ArrayRef {
            let ids = numbers(&rows, name).into_iter().map(|id| id.map(|id| u64::MAX - id));
            Arc::new(ids.collect::<UInt64Array>())
        };
        // Somebody did something before anybody had a name.
        let users = high("user_id");
        let nobody = arrow::array::new_null_array(users.data_type(), 1);
        let users = arrow::compute::concat(&[&nobody, &users.slice(1, users.len() - 1)]).expect("ids");
        with(&with(&rows, "user_id", users), "item_id", high("item_id"))
    });
    let run = shop.run(&[]);
    let ids: Vec<u64> = rows(&run.join("user_factors"), &["user_id"])
        .iter()
        .map(|row| row[0].parse().expect("u64"))
        .collect();
    assert!(ids.len() > 100 && ids.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(ids.iter().all(|id| *id > u64::MAX - 1_000_000));
    let rejected = read(&run.join("rejected/source=events/part.parquet"));
    for id in ["user_id", "item_id"] {
        assert_eq!(*rejected.column_by_name(id).expect("an id").data_type(), DataType::UInt64);
    }
    let items = rejected.column_by_name("item_id").expect("ids").as_primitive::<UInt64Type>();
    assert!(rejected.num_rows() > 10 && items.iter().flatten().all(|id| id > u64::MAX - 1_000_000));
    // The gate finds the listed items among those that there are.
    let measured = manifest(&run)["facts"]["gate"]["measured"].clone();
    assert!(measured["items_listed"].as_u64().expect("a number") > 50, "{measured}");
}

#[test]
fn integer_types_and_time_units_may_differ_from_file_to_file_and_extra_columns_in_anything() {
    let shop = shop(|rows, at| {
        let ids: ArrayRef = Arc::new(
            numbers(&rows, "user_id").into_iter().map(|id| id.map(|id| id as i64)).collect::<Int64Array>(),
        );
        let (id_type, unit) = if at % 2 == 0 {
            (DataType::Int32, TimeUnit::Millisecond)
        } else {
            (DataType::Int64, TimeUnit::Nanosecond)
        };
        let times = rows.column_by_name("event_time").expect("times");
        let zone = match times.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            other => panic!("times are {other}"),
        };
        let times = cast(times, &DataType::Timestamp(unit, zone)).expect("times");
        let note: ArrayRef = if at % 2 == 0 {
            Arc::new(Int64Array::from(vec![1; rows.num_rows()]))
        } else {
            Arc::new(StringArray::from(vec!["x"; rows.num_rows()]))
        };
        let rows = with(&rows, "user_id", cast(&ids, &id_type).expect("ids"));
        with(&with(&rows, "event_time", times), "note", note)
    });
    let events = manifest(&shop.run(&[]))["events"].clone();
    assert_eq!((&events["read"], &events["kept"]), (&5_000.into(), &5_000.into()));
}

#[test]
fn dictionaries_of_integers_keep_the_order_of_integers() {
    let shop = shop(|rows, _| {
        let ids: ArrayRef = Arc::new(
            numbers(&rows, "user_id").into_iter().map(|id| id.map(|id| id as i64)).collect::<Int64Array>(),
        );
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Int64));
        with(&rows, "user_id", cast(&ids, &dictionary).expect("a dictionary"))
    });
    let run = shop.run(&[]);
    let ids: Vec<i64> = rows(&run.join("user_factors"), &["user_id"])
        .iter()
        .map(|row| row[0].parse().expect("i64"))
        .collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn missing_numbers_and_times_out_of_this_world_stop_nothing() {
    let shop = shop(|rows, at| {
        let n = rows.num_rows();
        let quantity: ArrayRef = match at % 3 {
            0 => Arc::new(NullArray::new(n)),
            1 => Arc::new(Float64Array::from(vec![f64::NAN; n])),
            _ => Arc::new(
                (0..n).map(|k| Some([1.0, f64::INFINITY, f64::NAN, 3.0][k % 4])).collect::<Float64Array>(),
            ),
        };
        let times = rows.column_by_name("event_time").expect("times");
        let plain = cast(times, &DataType::Timestamp(TimeUnit::Microsecond, None)).expect("times");
        // The first of January of the year 1 is what some systems write for nothing.
        let year_1 = -62_135_596_800_000_000;
        let plain: TimestampMicrosecondArray = plain
            .as_primitive::<arrow::datatypes::TimestampMicrosecondType>()
            .iter()
            .enumerate()
            .map(|(k, time)| if k == 0 { Some(year_1) } else { time })
            .collect();
        with(&with(&rows, "quantity", quantity), "event_time", Arc::new(plain))
    });
    let n_files = shop.event_files().len();
    for history in ["{}", "{history_days=1000000}"] {
        let events = manifest(&shop.run(&["--set", &format!("behavior={history}")]))["events"].clone();
        assert_eq!(events["excluded"]["before_history"], n_files);
        assert_eq!(events["kept"], 5_000 - n_files);
    }
}

#[test]
fn of_an_items_rows_the_same_one_always_counts_whatever_columns_the_shop_has() {
    let shop = Shop::new(2_000, 0.0);
    let n = read(&shop.path("data/items.parquet")).num_rows();
    let column = |value: Option<i64>| -> ArrayRef { Arc::new(Int64Array::from(vec![value; n])) };
    shop.rewrite("data/items.parquet", |mut rows| {
        // Names that columns of the job's own might have.
        for name in ["boost", "pin", "copy", "text", "item_text", "item_idx", "eligible", "may_be_listed"] {
            rows = with(&rows, name, column(Some(1)));
        }
        let copies = [(None, 2), (Some(0), 2), (Some(5), 1), (Some(5), 7), (Some(5), 3), (Some(5), 8)];
        let copies = copies.map(|(stock, margin)| {
            with(&with(&rows, "stock", column(stock)), "margin", column(Some(margin)))
        });
        concat_batches(&copies[0].schema(), &copies).expect("rows")
    });
    let night = |output: &str| {
        let output = format!("output={output}");
        let sets = [
            "catalog.eligible='stock > 0 AND copy = 1'",
            "catalog.boosts=[{when='margin = 3',add=0.5},{when='margin = 1',add=0.1}]",
            "evaluation.slices=['items.margin','items.item_id','items.item_idx']",
            &output,
        ];
        let sets: Vec<&str> = sets.into_iter().flat_map(|set| ["--set", set]).collect();
        shop.run(&sets)
    };
    let run = night("out");
    let items = manifest(&run)["items"].clone();
    assert_eq!((&items["kept"], &items["rejected"]["duplicate"]), (&n.into(), &(5 * n).into()));
    // Of the rows that may be listed one with the least boost.
    let catalog = rows(&run.join("stages/catalog/catalog.parquet"), &["eligible", "boost"]);
    assert!(catalog.len() == n && catalog.iter().all(|row| row[..] == ["true", "0.0"]), "{catalog:?}");
    let metrics = |run: &Path| rows(&run.join("metrics"), &["system", "metric", "k", "slice", "value"]);
    let found = metrics(&run);
    let slices = |of: &str| -> BTreeSet<String> {
        found.iter().filter_map(|row| row[3].strip_prefix(of).map(str::to_owned)).collect()
    };
    assert_eq!(slices("items.margin="), ["7".to_owned(), "8".to_owned()].into());
    assert_eq!(slices("items.item_idx="), ["1".to_owned()].into());
    assert!(slices("items.item_id=").len() > 5);
    shop.rewrite("data/items.parquet", |rows| {
        let last_first = (0..rows.num_rows() as i64).rev().collect::<Int64Array>();
        take_record_batch(&rows, &last_first).expect("rows")
    });
    assert_eq!(metrics(&night("again")), found);
}

#[test]
fn without_a_catalogue_items_are_those_of_events_that_may_count() {
    let shop = shop(|rows, _| rows);
    let users = rows(&shop.path("data/users.parquet"), &["user_id", "consent"]);
    let agreed: BTreeSet<String> =
        users.into_iter().filter(|row| row[1] == "true").map(|row| row[0].clone()).collect();
    let (files, mut expected) = (shop.event_files(), BTreeSet::new());
    let day = |file: &str| file.split("event_date=").nth(1).expect("a day")[..10].to_owned();
    let last = day(&files[files.len() / 2]);
    for file in &files {
        let events = read(&shop.path(file));
        let column = |name| events.column_by_name(name).expect("the column").as_string::<i32>().clone();
        let of = |user: Option<&str>, item: Option<&str>| {
            let item = item?;
            let may_count = agreed.contains(user?) && day(file) <= last;
            Some(if may_count { item.to_owned() } else { format!("of-others-{item}") })
        };
        let items: StringArray =
            column("user_id").iter().zip(&column("item_id")).map(|(user, item)| of(user, item)).collect();
        expected.extend(items.iter().flatten().filter(|item| !item.starts_with("of-")).map(str::to_owned));
        shop.write(file, &with(&events, "item_id", Arc::new(items)));
    }
    let sets = [
        "inputs.users={path='data/users.parquet'}",
        "privacy.consent='consent'",
        "behavior.later_events='exclude'",
    ];
    let sets: Vec<&str> = sets.into_iter().flat_map(|set| ["--set", set]).collect();
    let run = shop.run_of(&last, &sets);
    let events = manifest(&run)["events"].clone();
    let excluded: Vec<&str> =
        events["excluded"].as_object().expect("counts").keys().map(String::as_str).collect();
    assert_eq!((excluded, &events["rejected"]), (vec!["later", "no_consent"], &serde_json::json!({})));
    let items = rows(&run.join("stages/behavior/item_ids.parquet"), &["item_id"]);
    assert_eq!(items.into_iter().map(|row| row[0].clone()).collect::<BTreeSet<_>>(), expected);
}

#[test]
fn only_the_files_that_were_checked_are_read_and_folders_tell_columns() {
    let shop = shop(|rows, _| rows);
    let (files, n) = (shop.event_files(), 5_000);
    let hidden = shop.path(&files[0]).with_file_name("_copy.parquet");
    std::fs::copy(shop.path(&files[0]), hidden).expect("a copy");
    let run = shop.run(&["--set", "inputs.events.columns={session_id='event_date'}"]);
    let manifest = manifest(&run);
    assert_eq!(manifest["events"]["read"], n);
    assert_eq!(manifest["inputs"].as_array().expect("inputs").len(), files.len());
}

#[test]
fn sessions_of_a_shop_may_run_beside_each_other() {
    let shop = Shop::new(200, 0.0);
    let job = std::fs::read_to_string(shop.path("job.toml")).expect("the job");
    let job = job.replace("[inputs.items]\npath = \"data/items.parquet\"\n", "");
    std::fs::write(shop.path("job.toml"), job).expect("the job");
    let files = shop.event_files();
    for file in &files[1..] {
        std::fs::remove_file(shop.path(file)).expect("removed");
    }
    // Forty users, each with two baskets of three items on one day, taken in turns.
    shop.rewrite(&files[0], |rows| {
        let n = 240;
        let text = |of: &dyn Fn(usize) -> String| -> ArrayRef {
            Arc::new((0..n).map(|k| Some(of(k))).collect::<StringArray>())
        };
        let day = 20_760 * 86_400_000_000_i64;
        let times = (0..n).map(|k| day + (k % 6) as i64 * 60_000_000).collect::<Vec<_>>();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("user_id", text(&|k| format!("u{}", k / 6))),
            ("item_id", text(&|k| format!("i{}", k % 6))),
            ("event_type", text(&|_| "purchase".to_owned())),
            ("event_time", Arc::new(TimestampMicrosecondArray::from(times))),
            ("session_id", text(&|k| format!("s{}-{}", k / 6, k % 2))),
        ];
        drop(rows);
        RecordBatch::try_from_iter(columns).expect("rows")
    });
    let run = shop.run(&["--set", "evaluation.enabled=false"]);
    let together: BTreeSet<(String, String)> =
        rows(&run.join("similar_items"), &["item_id", "similar_item_id", "relation"])
            .into_iter()
            .filter(|row| row[2] == "bought_together")
            .map(|row| (row[0].clone(), row[1].clone()))
            .collect();
    let same = |a: usize, b: usize| together.contains(&(format!("i{a}"), format!("i{b}")));
    assert!(same(0, 2) && same(2, 4) && same(1, 5), "{together:?}");
    assert!(!same(0, 1) && !same(3, 4), "{together:?}");
}

#[test]
fn a_typed_statement_cannot_change_what_is_published() {
    let shop = Shop::new(2_000, 0.0);
    let run = shop.run(&[]);
    let before = rows(&run.join("popular_items"), &["segment", "item_id"]);
    for statement in [
        "INSERT INTO popular_items SELECT * FROM popular_items",
        "DROP TABLE popular_items",
        "CREATE TABLE t AS SELECT 1",
    ] {
        let output = shop.lamplighter(&["sql", "job.toml", statement]);
        assert_eq!(output.status.code(), Some(2), "{statement}");
    }
    assert_eq!(rows(&run.join("popular_items"), &["segment", "item_id"]), before);
}

#[test]
fn two_jobs_do_not_share_an_output() {
    let shop = Shop::new(2_000, 0.0);
    shop.run(&[]);
    let job = std::fs::read_to_string(shop.path("job.toml")).expect("the job");
    std::fs::write(shop.path("other.toml"), job.replace("\"night\"", "\"other\"")).expect("a job");
    for args in [&["run", "other.toml"][..], &["show", "run", "other.toml"]] {
        let output = shop.lamplighter(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("`night`"), "{text}");
    }
}

#[test]
fn rules_and_statements_may_use_columns_that_the_contract_does_not_name() {
    let shop = Shop::new(5_000, 0.0);
    shop.rewrite("data/items.parquet", |rows| {
        let market = (0..rows.num_rows()).map(|k| Some(["de", "fr"][k % 2])).collect::<StringArray>();
        with(&rows, "market", Arc::new(market))
    });
    let users: ArrayRef = Arc::new((0..300).map(|k| Some(format!("user-{k}"))).collect::<StringArray>());
    let plan: ArrayRef = Arc::new((0..300).map(|k| Some(["free", "paid"][k % 2])).collect::<StringArray>());
    shop.write(
        "data/users.parquet",
        &RecordBatch::try_from_iter([("user_id", users), ("plan", plan)]).expect("rows"),
    );
    let statement = include_str!("../../sql/behavior/users.sql").replace(
        "CASE\n",
        "CASE\n        WHEN activity.user_idx % 2 = 0 AND (SELECT max(weight) FROM interactions) > 0 THEN (SELECT min(plan) FROM user_attributes)\n",
    );
    std::fs::write(shop.path("users.sql"), statement).expect("a statement");
    let run = shop.run(&[
        "--set",
        "catalog.eligible=\"market = 'de'\"",
        "--set",
        "inputs.users={path='data/users.parquet'}",
        "--set",
        "behavior.sql={users='users.sql'}",
        "--set",
        "evaluation.split='random'",
    ]);
    let markets: BTreeSet<String> = rows(&shop.path("data/items.parquet"), &["item_id", "market"])
        .into_iter()
        .filter(|row| row[1] == "de")
        .map(|row| row[0].clone())
        .collect();
    let listed = rows(&run.join("recommendations"), &["item_id"]);
    assert!(listed.len() > 1_000 && listed.iter().all(|row| markets.contains(&row[0])));
    let segments: BTreeSet<String> =
        rows(&run.join("popular_items"), &["segment"]).into_iter().map(|row| row[0].clone()).collect();
    assert!(segments.contains("free"), "{segments:?}");
}

#[test]
fn an_earlier_night_can_be_made_again() {
    let shop = Shop::new(5_000, 0.0);
    let files = shop.event_files();
    let day = files[files.len() / 2].split("event_date=").nth(1).expect("a day")[..10].to_owned();
    let args = ["run", "job.toml", "--date", &day, "--set", "behavior.later_events='exclude'"];
    let output = shop.lamplighter(&args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let events = manifest(&shop.current())["events"].clone();
    let count = |value: &serde_json::Value| value.as_u64().expect("a count");
    let later = count(&events["excluded"]["later"]);
    assert!(later > 1_000);
    assert_eq!(count(&events["read"]), count(&events["kept"]) + later);
    assert_eq!(events["rejected"], serde_json::json!({}));
    let output = shop.lamplighter(&args[..4]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("later_events"), "{text}");
}

#[test]
fn statements_hold_the_small_side_of_a_join_and_spill_the_rest() {
    let shop = Shop::new(400_000, 0.0);
    let output = shop.lamplighter(&[
        "run",
        "job.toml",
        "--date",
        "2026-11-21",
        "--stage",
        "behavior",
        "--set",
        "sql_memory_mib=64",
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn users_without_events_may_have_ids_of_another_width() {
    let shop = shop(|rows, _| {
        let ids = numbers(&rows, "user_id").into_iter().map(|id| id.map(|id| id as i64));
        with(&rows, "user_id", Arc::new(ids.collect::<Int64Array>()))
    });
    let ids: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), Some(2_000_000), Some(2_000_000), None]));
    shop.write("data/users.parquet", &RecordBatch::try_from_iter([("user_id", ids)]).expect("rows"));
    let sets = ["--set", "inputs.users={path='data/users.parquet'}", "--set", "ranking.include_cold=true"];
    let run = shop.run(&sets);
    let listed = rows(&run.join("recommendations"), &["user_id", "source"]);
    let cold: Vec<_> = listed.iter().filter(|row| row[0] == "2000000").collect();
    assert!(cold.len() == 20 && cold.iter().all(|row| row[1] == "popularity"), "{cold:?}");
    let warnings = manifest(&run)["warnings"].to_string();
    assert!(warnings.contains("1 rows have no user_id and 1 repeat one"), "{warnings}");

    // Wider than in the events, and of a kind that no other integer has room for.
    let users = |ids: ArrayRef| {
        shop.write("data/users.parquet", &RecordBatch::try_from_iter([("user_id", ids)]).expect("rows"));
    };
    for file in shop.event_files() {
        shop.rewrite(&file, |rows| {
            let ids = cast(rows.column_by_name("user_id").expect("ids"), &DataType::Int32).expect("ids");
            with(&rows, "user_id", ids)
        });
    }
    users(Arc::new(Int64Array::from(vec![1, 5_000_000_000])));
    let listed = rows(&shop.run(&sets).join("recommendations"), &["user_id"]);
    assert_eq!(listed.iter().filter(|row| row[0] == "5000000000").count(), 20);
    users(Arc::new(UInt64Array::from(vec![1, u64::MAX])));
    let refused = shop.lamplighter(&[&["check", "job.toml"], &sets[..]].concat());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(
        said.contains("users: column `user_id`: expected Int32 as in the events; found UInt64"),
        "{said}"
    );
}

#[test]
fn who_does_more_in_a_day_than_a_person_is_a_program() {
    let shop = Shop::new(20_000, 0.0);
    let mut days: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for day in shop.event_files() {
        let folder = shop.path(&day).parent().expect("a folder").to_owned();
        for row in rows(&folder, &["user_id"]) {
            *days.entry(row[0].clone()).or_default().entry(day.clone()).or_default() += 1;
        }
    }
    let busiest = |days: &BTreeMap<String, u64>| days.values().copied().max().unwrap_or_default();
    let most = days.values().map(busiest).max().expect("a user") / 2;
    let total =
        |of: &mut dyn Iterator<Item = &BTreeMap<String, u64>>| of.flat_map(BTreeMap::values).sum::<u64>();
    let expected = total(&mut days.values().filter(|days| busiest(days) > most));
    // Others have as many events, but not in a day.
    let in_all = total(&mut days.values().filter(|days| days.values().sum::<u64>() > most));
    assert!(0 < expected && expected < in_all, "{expected} of {in_all}");
    shop.write_job(&format!("[behavior]\nmax_events_per_day = {most}\nmax_rejected_share = 1.0"));
    let run = shop.run(&[]);
    assert_eq!(manifest(&run)["events"]["rejected"], serde_json::json!({ "bot": expected }));
    let listed: BTreeSet<String> =
        rows(&run.join("user_profiles"), &["user_id"]).into_iter().map(|row| row[0].clone()).collect();
    let people: BTreeSet<String> =
        days.into_iter().filter(|(_, days)| busiest(days) <= most).map(|(user, _)| user).collect();
    assert_eq!(listed, people);
}

#[test]
fn a_jobs_own_reasons_are_counted_where_events_are_judged_and_refused_where_they_are_not() {
    let shop = Shop::new(5_000, 0.0);
    let with = |statement: &str, text: &str| {
        std::fs::write(shop.path("own.sql"), text).expect("a statement");
        let set = format!("behavior.sql={{{statement}='own.sql'}}");
        shop.lamplighter(&["run", "job.toml", "--set", &set, "--set", "behavior.max_rejected_share=1.0"])
    };
    let checked = include_str!("../../sql/behavior/checked_events.sql");
    let checked = checked.replacen("CASE\n", "CASE\n        WHEN event_type = 'cart' THEN 'cart'\n", 1);
    let output = with("checked_events", &checked);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    for word in ["`numbered_events`", "`judged_events`"] {
        assert!(told.contains(word), "{told}");
    }
    let judged = include_str!("../../sql/behavior/judged_events.sql");
    let judged = judged.replacen(
        "THEN 'null_user'",
        "THEN 'null_user'\n        WHEN events.event_type = 'cart' THEN 'cart'",
        1,
    );
    let output = with("judged_events", &judged);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run = shop.current();
    let events = &manifest(&run)["events"];
    let carts = events["rejected"]["cart"].as_u64().expect("a count");
    assert_eq!(events["rejected"], serde_json::json!({ "cart": carts }));
    assert_eq!(events["read"].as_u64(), events["kept"].as_u64().map(|kept| kept + carts));
    assert_eq!(rows(&run.join("rejected/source=events"), &["reason"]).len() as u64, carts);
}
