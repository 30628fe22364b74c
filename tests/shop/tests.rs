//! The generator is judged by what lies in its files, read back without its help.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, TimestampMicrosecondType};
use chrono::NaiveDate;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::generator::{Error, Planted, Shop, generate};

const HOUR_US: i64 = 3_600_000_000;

fn small() -> Shop {
    Shop { users: 300, items: 500, events: 30_000, days: 6, dirty: 0.05, ..Shop::default() }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    user: Option<String>,
    session: String,
    time_us: Option<i64>,
    kind: String,
    item: Option<String>,
    query: Option<String>,
    quantity: i32,
    cents: Option<i64>,
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn read(path: &Path) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    reader.build().unwrap().map(|batch| batch.unwrap()).collect()
}

fn text(batch: &RecordBatch, column: &str, row: usize) -> Option<String> {
    let column = batch.column_by_name(column).unwrap().as_string::<i32>();
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn time_us(batch: &RecordBatch, column: &str, row: usize) -> Option<i64> {
    let column = batch.column_by_name(column).unwrap().as_primitive::<TimestampMicrosecondType>();
    column.is_valid(row).then(|| column.value(row))
}

/// The events of each day's file, in the order of the file.
fn days(out: &Path) -> Vec<Vec<Row>> {
    let row = |batch: &RecordBatch, row| {
        let price = batch.column_by_name("price").unwrap().as_primitive::<Float64Type>();
        Row {
            user: text(batch, "user_id", row),
            session: text(batch, "session_id", row).unwrap(),
            time_us: time_us(batch, "event_time", row),
            kind: text(batch, "event_type", row).unwrap(),
            item: text(batch, "item_id", row),
            query: text(batch, "query", row),
            quantity: batch.column_by_name("quantity").unwrap().as_primitive::<Int32Type>().value(row),
            cents: price.is_valid(row).then(|| (price.value(row) * 100.0).round() as i64),
        }
    };
    let rows = |path: &PathBuf| -> Vec<Row> {
        read(path).iter().flat_map(|batch| (0..batch.num_rows()).map(|at| row(batch, at))).collect()
    };
    files(&out.join("events")).iter().map(rows).collect()
}

/// Every item with its category and the time it came into the catalogue.
fn items(out: &Path) -> BTreeMap<String, (String, i64)> {
    let mut items = BTreeMap::new();
    for batch in read(&out.join("items.parquet")) {
        for row in 0..batch.num_rows() {
            let about = (text(&batch, "category", row).unwrap(), time_us(&batch, "created_at", row).unwrap());
            items.insert(text(&batch, "item_id", row).unwrap(), about);
        }
    }
    items
}

/// The fault of a row, as somebody who knows only the contract would find it.
fn fault(row: &Row, items: &BTreeMap<String, (String, i64)>, end_us: i64) -> Option<&'static str> {
    let known = ["search", "view", "click", "cart", "purchase"].contains(&row.kind.as_str());
    match row {
        Row { user: None, .. } => Some("null_user"),
        Row { user: Some(user), .. } if user.starts_with("bot-") => Some("bot"),
        Row { time_us: None, .. } => Some("null_time"),
        Row { time_us: Some(time), .. } if *time >= end_us => Some("future_time"),
        _ if !known => Some("unknown_type"),
        Row { quantity: ..0, .. } => Some("negative_quantity"),
        Row { item: Some(item), .. } if !items.contains_key(item) => Some("unknown_item"),
        Row { item: None, kind, .. } if kind != "search" => Some("null_item"),
        _ => None,
    }
}

/// The clean rows, day by day, and the count of every fault found.
fn clean_days(out: &Path, end: NaiveDate) -> (Vec<Vec<Row>>, BTreeMap<&'static str, u64>) {
    let items = items(out);
    let end_us = end.succ_opt().unwrap().and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros();
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut clean = days(out);
    for rows in &mut clean {
        rows.retain(|row| {
            let fault = fault(row, &items, end_us).or((!seen.insert(row.clone())).then_some("duplicate"));
            if let Some(fault) = fault {
                *found.entry(fault).or_default() += 1;
            }
            fault.is_none()
        });
    }
    (clean, found)
}

#[test]
fn one_config_gives_the_same_bytes_and_another_seed_others() {
    let (first, again, other) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    generate(&small(), first.path()).unwrap();
    generate(&small(), again.path()).unwrap();
    generate(&Shop { seed: 8, ..small() }, other.path()).unwrap();
    let names = files(first.path());
    assert_eq!(names.len(), 6 + 3);
    for name in names {
        let relative = name.strip_prefix(first.path()).unwrap();
        let bytes = fs::read(&name).unwrap();
        assert!(bytes == fs::read(again.path().join(relative)).unwrap(), "{relative:?} differs");
        if !relative.ends_with("planted.json") {
            assert!(bytes != fs::read(other.path().join(relative)).unwrap(), "{relative:?} ignores the seed");
        }
    }
}

/// The numbers below change only when somebody means to change the shop.
#[test]
fn the_first_events_of_the_standard_seed_stay_what_they_are() {
    let out = tempfile::tempdir().unwrap();
    generate(&Shop { dirty: 0.0, ..small() }, out.path()).unwrap();
    let rows = &days(out.path())[0];
    let told: Vec<String> = rows[..3]
        .iter()
        .map(|row| format!("{:?} {} {:?} {:?}", row.user, row.kind, row.item, row.time_us))
        .collect();
    assert_eq!(
        told,
        [
            r#"Some("u-0000099") search None Some(1794790178292513)"#,
            r#"Some("u-0000099") view Some("p-0000356") Some(1794790199844978)"#,
            r#"Some("u-0000099") click Some("p-0000356") Some(1794790227984878)"#
        ]
    );
}

#[test]
fn what_is_planted_is_what_a_reader_finds() {
    for (dirty, seed) in [(0.0, 1), (0.001, 2), (0.05, 3), (0.5, 4)] {
        let out = tempfile::tempdir().unwrap();
        let config = Shop { dirty, seed, ..small() };
        let Planted { events, clean, reasons } = generate(&config, out.path()).unwrap();
        let (rows, found) = clean_days(out.path(), config.end);
        let expected: BTreeMap<_, _> =
            reasons.iter().map(|(k, v)| (*k, *v)).filter(|(_, v)| *v > 0).collect();
        assert_eq!(found, expected, "dirty = {dirty}");
        assert_eq!(events, config.events);
        assert_eq!(clean, rows.iter().map(|rows| rows.len() as u64).sum::<u64>());
        assert_eq!(events - clean, (config.events as f64 * dirty) as u64);
        let json: serde_json::Value =
            serde_json::from_slice(&fs::read(out.path().join("planted.json")).unwrap()).unwrap();
        assert_eq!(json, serde_json::json!({ "events": events, "clean": clean, "reasons": reasons }));
    }
}

#[test]
fn days_hold_their_own_events_evenly_and_in_order() {
    let out = tempfile::tempdir().unwrap();
    let config = Shop { dirty: 0.0, events: 30_001, ..small() };
    generate(&config, out.path()).unwrap();
    let days = days(out.path());
    assert_eq!(days.iter().map(Vec::len).collect::<Vec<_>>(), [5000, 5000, 5000, 5000, 5000, 5001]);
    for (number, rows) in days.iter().enumerate() {
        let date = config.end - chrono::Days::new(5 - number as u64);
        assert!(out.path().join(format!("events/event_date={date}/part-0.parquet")).is_file());
        let start_us = date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros();
        assert!(rows.iter().all(|row| (start_us..start_us + 24 * HOUR_US).contains(&row.time_us.unwrap())));
        assert!(rows.is_sorted_by_key(|row| row.time_us));
    }
}

#[test]
fn a_session_is_one_person_within_an_hour_who_looks_before_buying() {
    let out = tempfile::tempdir().unwrap();
    generate(&Shop { dirty: 0.0, ..small() }, out.path()).unwrap();
    let items = items(out.path());
    let mut sessions: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in days(out.path()).into_iter().flatten() {
        sessions.entry(row.session.clone()).or_default().push(row);
    }
    let mut n_purchases = 0;
    for rows in sessions.values() {
        let (first, last) = (&rows[0], &rows[rows.len() - 1]);
        assert!(last.time_us.unwrap() - first.time_us.unwrap() < HOUR_US);
        for (at, row) in rows.iter().enumerate() {
            assert_eq!(row.user, first.user);
            assert!(at == 0 || rows[at - 1].time_us < row.time_us);
            let earlier =
                |kind: &str| rows[..at].iter().any(|other| other.kind == kind && other.item == row.item);
            match row.kind.as_str() {
                "search" => assert!(at == 0 && row.item.is_none() && !row.query.as_ref().unwrap().is_empty()),
                "view" => {
                    assert!(row.time_us.unwrap() >= items[row.item.as_ref().unwrap()].1, "not yet sold")
                }
                "click" => assert!(earlier("view")),
                "cart" => assert!(earlier("click") && row.quantity > 0),
                "purchase" => assert!(earlier("cart") && row.quantity > 0 && row.cents.unwrap() > 0),
                other => panic!("{other}"),
            }
            n_purchases += u32::from(row.kind == "purchase");
        }
    }
    assert!(n_purchases > 1000, "{n_purchases}");
}

#[test]
fn there_is_something_to_learn() {
    let out = tempfile::tempdir().unwrap();
    generate(&Shop { dirty: 0.0, ..small() }, out.path()).unwrap();
    let items = items(out.path());
    let mut by_user: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
    let mut by_item: BTreeMap<String, u32> = BTreeMap::new();
    for row in days(out.path()).into_iter().flatten() {
        let (Some(user), Some(item)) = (row.user, row.item) else { continue };
        *by_user.entry(user).or_default().entry(items[&item].0.clone()).or_default() += 1;
        *by_item.entry(item).or_default() += 1;
    }
    let share_of_top = |counts: Vec<u32>, top: usize| {
        let mut counts = counts;
        counts.sort_unstable_by(|a, b| b.cmp(a));
        f64::from(counts.iter().take(top).sum::<u32>()) / f64::from(counts.iter().sum::<u32>())
    };
    // Sixty shelves, of which four would hold 7 % of a user's events if nobody had a taste.
    let mean =
        by_user.values().map(|shelves| share_of_top(shelves.values().copied().collect(), 4)).sum::<f64>()
            / by_user.len() as f64;
    assert!(mean > 0.7, "{mean}");
    let popular = share_of_top(by_item.values().copied().collect(), items.len() / 10);
    assert!((0.2..0.7).contains(&popular), "{popular}");
}

#[test]
fn more_events_do_not_change_the_catalogue_or_the_users() {
    let (few, many) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    generate(&small(), few.path()).unwrap();
    generate(&Shop { events: 60_000, dirty: 0.2, ..small() }, many.path()).unwrap();
    for name in ["items.parquet", "users.parquet"] {
        assert!(
            fs::read(few.path().join(name)).unwrap() == fs::read(many.path().join(name)).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn the_smallest_shops_are_whole() {
    for (users, n_items, events) in [(1, 1, 0), (1, 1, 3), (2, 61, 100)] {
        let out = tempfile::tempdir().unwrap();
        let config = Shop { users, items: n_items, events, days: 5, dirty: 0.5, ..Shop::default() };
        let planted = generate(&config, out.path()).unwrap();
        let (rows, found) = clean_days(out.path(), config.end);
        assert_eq!(rows.len(), 5);
        assert_eq!(rows.iter().map(|rows| rows.len() as u64).sum::<u64>(), planted.clean);
        assert_eq!(found.values().sum::<u64>(), events / 2);
        assert_eq!(items(out.path()).len(), n_items as usize);
        assert_eq!(read(&out.path().join("users.parquet"))[0].num_rows(), users as usize);
    }
}

#[test]
fn nothing_is_written_over_and_nonsense_is_refused() {
    let out = tempfile::tempdir().unwrap();
    fs::write(out.path().join("mine.txt"), "keep").unwrap();
    assert!(matches!(generate(&small(), out.path()), Err(Error::NotEmpty { .. })));
    assert_eq!(files(out.path()), [out.path().join("mine.txt")]);

    #[track_caller]
    fn refused(config: Shop, expected: &str) {
        let out = tempfile::tempdir().unwrap();
        assert_eq!(generate(&config, out.path()).unwrap_err().to_string(), expected);
        assert_eq!(files(out.path()), Vec::<PathBuf>::new());
    }
    refused(Shop { users: 0, ..small() }, "`users`: expected at least 1; found 0");
    refused(Shop { items: 0, ..small() }, "`items`: expected at least 1; found 0");
    refused(Shop { days: 0, ..small() }, "`days`: expected a number from 1 to 3650; found 0");
    refused(Shop { dirty: 0.6, ..small() }, "`dirty`: expected a share from 0 to 0.5; found 0.6");
    refused(Shop { dirty: f64::NAN, ..small() }, "`dirty`: expected a share from 0 to 0.5; found NaN");
}
