//! What is held out reaches no model, feature, weight or statistic; neither does the order of rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{cast, concat_batches, take, take_record_batch};
use arrow::datatypes::{DataType, Int32Type, TimeUnit, TimestampMicrosecondType};

use crate::shop::{Shop, manifest};
use crate::table::{rows, whole};

/// Every source counts: whatever reaches any of them shows in the fused lists.
const ALIKE: &str = "ranking.weights={factors=1.0,content=1.0,popularity=1.0,history=1.0,ease=1.0,walk=1.0,cosine=1.0,sequence=1.0,spectral=1.0,repeat=1.0,trend=1.0,peers=1.0}";

/// A shop with texts, whose weights are learned.
fn shop(split: &str) -> Shop {
    let shop = Shop::new(5_000, 0.0);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/all-MiniLM-L6-v2");
    shop.write_job(&format!(
        "[encoder]\nmodel = '{}'\n[inputs.users]\npath = 'data/users.parquet'",
        model.display()
    ));
    shop.replace("test_days = 5", &format!("test_days = 5\nsplit = '{split}'"));
    shop.without_weights();
    shop
}

/// All events in one batch, in the order of the files.
fn events(shop: &Shop) -> RecordBatch {
    let batches: Vec<RecordBatch> =
        shop.event_files().iter().map(|file| crate::shop::read(&shop.path(file))).collect();
    concat_batches(&batches[0].schema(), &batches).expect("one batch")
}

/// Puts these events in the place of the shop's.
fn replace_events(shop: &Shop, files: &[RecordBatch]) {
    std::fs::remove_dir_all(shop.path("data/events")).expect("the events are removed");
    for (at, rows) in files.iter().enumerate() {
        let day = format!("data/events/event_date=2026-01-{:02}", at + 1);
        std::fs::create_dir_all(shop.path(&day)).expect("a folder");
        shop.write(&format!("{day}/part-0.parquet"), rows);
    }
}

fn times(events: &RecordBatch) -> Vec<i64> {
    let times =
        cast(&column(events, "event_time"), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    times.expect("times").as_primitive::<TimestampMicrosecondType>().values().to_vec()
}

fn column(events: &RecordBatch, name: &str) -> ArrayRef {
    events.column_by_name(name).expect("the column").clone()
}

fn text(events: &RecordBatch, name: &str) -> Vec<Option<String>> {
    column(events, name).as_string::<i32>().iter().map(|value| value.map(str::to_owned)).collect()
}

fn with(events: &RecordBatch, name: &str, values: ArrayRef) -> RecordBatch {
    let mut columns = events.columns().to_vec();
    let at = events.schema().index_of(name).expect("the column");
    columns[at] = cast(&values, columns[at].data_type()).expect("the column's type");
    RecordBatch::try_new(events.schema(), columns).expect("rows")
}

/// The rows with one column's values dealt out anew among some of them.
fn dealt(events: &RecordBatch, name: &str, among: &[usize], by: usize) -> RecordBatch {
    let mut from: Vec<u32> = (0..events.num_rows() as u32).collect();
    for (at, row) in among.iter().enumerate() {
        from[*row] = among[(at + by) % among.len()] as u32;
    }
    let dealt = take(&column(events, name), &UInt32Array::from(from), None).expect("values");
    with(events, name, dealt)
}

/// Other types and quantities in some rows.
fn otherwise(events: &RecordBatch, changes: impl Fn(usize) -> bool) -> RecordBatch {
    let types = text(events, "event_type").into_iter().enumerate().map(|(at, name)| {
        let name = name.expect("a type");
        Some(match name.as_str() {
            "view" if changes(at) => "purchase".to_owned(),
            "purchase" | "cart" | "click" if changes(at) => "view".to_owned(),
            _ => name,
        })
    });
    let types: ArrayRef = Arc::new(types.collect::<StringArray>());
    let quantities = cast(&column(events, "quantity"), &DataType::Int32).expect("quantities");
    let quantities = quantities.as_primitive::<Int32Type>().iter().enumerate();
    let quantities: Int32Array =
        quantities.map(|(at, n)| if changes(at) { n.map(|n| n + 7) } else { n }).collect();
    with(&with(events, "event_type", types), "quantity", Arc::new(quantities))
}

/// Everything after a moment done by others, to other items, otherwise; users, items and searches stay
/// the same sets.
fn changed_after(events: &RecordBatch, moment: i64) -> RecordBatch {
    let (times, items) = (times(events), column(events, "item_id"));
    let after: Vec<usize> = (0..events.num_rows()).filter(|row| times[*row] >= moment).collect();
    let (searches, others): (Vec<usize>, Vec<usize>) = after.iter().partition(|row| items.is_null(**row));
    assert!(others.len() > 100 && searches.len() > 20);
    let mut changed = events.clone();
    for (name, among, by) in [
        ("item_id", &others, 41),
        ("user_id", &others, 13),
        ("price", &others, 7),
        ("query", &searches, 5),
        ("user_id", &searches, 3),
    ] {
        changed = dealt(&changed, name, among, by);
    }
    otherwise(&changed, |row| times[row] >= moment)
}

/// The end of a window, which only the facts of a run know.
fn end_of(run: &Path, window: &str) -> i64 {
    let facts = manifest(run)["facts"]["behavior"]["windows"].clone();
    let windows = facts.as_array().expect("windows");
    let window = windows.iter().find(|found| found["name"] == window).expect("the window");
    window["until_us"].as_i64().expect("a moment")
}

/// Every model input and factor of some windows, by file.
fn models(run: &Path, windows: &[&str]) -> BTreeMap<String, Vec<Vec<String>>> {
    let mut found = BTreeMap::new();
    for window in windows {
        for stage in ["behavior", "factorize"] {
            let folder = run.join("stages").join(stage).join(window);
            let Ok(tables) = std::fs::read_dir(&folder) else { continue };
            for table in tables.map(|table| table.expect("a table").path()) {
                let name = table.strip_prefix(run.join("stages")).expect("below").display().to_string();
                if !name.ends_with("held_out.parquet") {
                    found.insert(name, whole(&table));
                }
            }
        }
    }
    found
}

/// The fused lists that were compared with what was held out.
fn lists(run: &Path) -> Vec<Vec<String>> {
    rows(&run.join("backtest"), &["user_id", "rank", "item_id", "probability"])
}

/// What no outcome has a part in: what the lists of every system are like.
fn likeness(run: &Path) -> Vec<Vec<String>> {
    let mut found = rows(&run.join("metrics"), &["metric", "system", "k", "slice", "value"]);
    let of_lists = ["coverage", "novelty", "diversity", "gini", "popularity_lift", "repeat_share"];
    found.retain(|row| of_lists.contains(&row[0].as_str()));
    assert!(found.iter().map(|row| &row[1]).collect::<BTreeSet<_>>().len() >= 12, "every system");
    found
}

fn learned(run: &Path) -> serde_json::Value {
    let facts = manifest(run)["facts"]["learn"].clone();
    assert!(facts["weights"].is_object() && facts["calibration"].is_object(), "{facts}");
    facts
}

#[track_caller]
fn same_models(run: &Path, expected: &BTreeMap<String, Vec<Vec<String>>>, windows: &[&str]) {
    let found = models(run, windows);
    assert!(found.keys().eq(expected.keys()));
    for (table, rows) in &found {
        assert!(rows == &expected[table], "{table} differs");
    }
}

#[test]
fn nothing_after_the_cut_reaches_a_list() {
    let shop = shop("temporal");
    let run = shop.run(&[]);
    let before = (models(&run, &["fit", "train"]), learned(&run), lists(&run), likeness(&run));
    assert_eq!(before.0.len(), 2 * (7 + 2), "{:?}", before.0.keys());
    let (cut, full) = (end_of(&run, "train"), models(&run, &["full"]));
    let hits = rows(&run.join("backtest"), &["hit"]);
    let run = shop.run(&["--set", ALIKE]);
    let before_alike = (lists(&run), likeness(&run));

    let changed = changed_after(&events(&shop), cut);
    replace_events(&shop, &[changed]);
    let run = shop.run(&[]);
    assert_eq!(end_of(&run, "train"), cut);
    assert_ne!(models(&run, &["full"]), full, "what was changed counts for tonight");
    assert_ne!(rows(&run.join("backtest"), &["hit"]), hits, "and in what lists are compared with");
    same_models(&run, &before.0, &["fit", "train"]);
    assert_eq!(learned(&run), before.1);
    assert!(lists(&run) == before.2, "lists differ");
    assert_eq!(likeness(&run), before.3);
    let run = shop.run(&["--set", ALIKE]);
    assert!(lists(&run) == before_alike.0, "lists of all sources alike differ");
    assert_eq!(likeness(&run), before_alike.1);
}

#[test]
fn nothing_after_the_earlier_cut_reaches_what_weights_are_learned_with() {
    let shop = shop("temporal");
    let run = shop.run(&[]);
    let (before, cut, weighed) = (models(&run, &["fit"]), end_of(&run, "fit"), learned(&run));
    let changed = changed_after(&events(&shop), cut);
    replace_events(&shop, &[changed]);
    let run = shop.run(&[]);
    same_models(&run, &before, &["fit"]);
    assert_ne!(learned(&run)["ndcg"], weighed["ndcg"], "the lesson itself is another");
}

#[test]
fn users_and_items_that_begin_after_the_cut_change_no_earlier_model() {
    let shop = Shop::new(5_000, 0.0);
    shop.without_weights();
    // Without a catalogue, which says of no item since when it is there, and at ranks that sizes decide.
    shop.replace("[inputs.items]\npath = \"data/items.parquet\"\n", "");
    shop.replace("[factors]\nrank = 16\n", "[factors]\n");
    let run = shop.run(&[]);
    let (before, cut) =
        ((models(&run, &["fit", "train"]), learned(&run), lists(&run)), end_of(&run, "train"));

    let events = events(&shop);
    let (times, items) = (times(&events), column(&events, "item_id"));
    let after = (0..events.num_rows() as u32)
        .filter(|row| times[*row as usize] >= cut && !items.is_null(*row as usize));
    let later: UInt32Array = after.take(200).collect();
    assert_eq!(later.len(), 200);
    let later = take_record_batch(&events, &later).expect("rows");
    let named = |name: &str, n: usize| -> ArrayRef {
        Arc::new((0..200).map(|row| Some(format!("zz-{name}-{}", row % n))).collect::<StringArray>())
    };
    let later = with(&with(&later, "user_id", named("user", 60)), "item_id", named("item", 70));
    replace_events(&shop, &[events, later]);
    let run = shop.run(&[]);
    assert_eq!(end_of(&run, "train"), cut);
    let known = |rows: &Vec<Vec<String>>| -> Vec<Vec<String>> {
        rows.iter().filter(|row| row.iter().all(|cell| !cell.starts_with("zz-"))).cloned().collect()
    };
    let (found, full) = (models(&run, &["fit", "train"]), rows(&run.join("item_factors"), &["item_id"]));
    assert!(full.iter().any(|row| row[0].starts_with("zz-")), "they count for tonight");
    assert!(found.keys().eq(before.0.keys()));
    for (table, rows) in &found {
        assert!(known(rows) == known(&before.0[table]), "{table} differs");
    }
    assert_eq!(learned(&run), before.1);
    assert!(lists(&run) == before.2, "lists differ");
}

/// What a user turned to last, and what to put in its place.
struct LastStep<'a> {
    time: i64,
    /// Each of its items as another that the user never turned to.
    renamed: BTreeMap<&'a str, &'a str>,
    /// Further such items.
    others: Vec<&'a str>,
}

/// The items of each user by the last time they were turned to.
fn last_times(events: &RecordBatch) -> BTreeMap<String, BTreeMap<String, i64>> {
    let mut last: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
    let (users, items) = (text(events, "user_id"), text(events, "item_id"));
    for ((user, item), time) in users.into_iter().zip(items).zip(times(events)) {
        let (Some(user), Some(item)) = (user, item) else { continue };
        let known = last.entry(user).or_default().entry(item).or_insert(time);
        *known = time.max(*known);
    }
    last
}

#[test]
fn a_users_last_items_reach_no_list_whatever_and_however_many_they_are() {
    let shop = shop("leave-last-out");
    let run = shop.run(&[]);
    let before = (models(&run, &["fit", "train"]), learned(&run), lists(&run), likeness(&run));
    let events = events(&shop);
    let all: Vec<String> = rows(&shop.path("data/items.parquet"), &["item_id"])
        .into_iter()
        .map(|mut row| row.remove(0))
        .collect();
    let (users, items, times) = (text(&events, "user_id"), text(&events, "item_id"), times(&events));
    let mut last: BTreeMap<&str, LastStep<'_>> = BTreeMap::new();
    let turned_to = last_times(&events);
    for (user, own) in &turned_to {
        let step = *own.values().max().expect("an item");
        if own.values().all(|time| *time == step) {
            continue;
        }
        let mut others = all.iter().filter(|item| !own.contains_key(*item)).map(String::as_str);
        let held_out = own.iter().filter(|(_, time)| **time == step).map(|(item, _)| item.as_str());
        let renamed = held_out.map(|item| (item, others.next().expect("another item"))).collect();
        last.insert(user, LastStep { time: step, renamed, others: others.take(6).collect() });
    }
    // The last step's items become others, whenever else the user had turned to them.
    let renamed = users.iter().zip(&items).map(|(user, item)| {
        let (user, item) = (user.as_deref()?, item.as_deref()?);
        Some(last.get(user).and_then(|step| step.renamed.get(item)).copied().unwrap_or(item))
    });
    let renamed: ArrayRef = Arc::new(renamed.collect::<StringArray>());
    let changed = otherwise(&with(&events, "item_id", renamed), |row| {
        let (Some(user), Some(item)) = (&users[row], &items[row]) else { return false };
        last.get(user.as_str()).is_some_and(|step| step.renamed.contains_key(item.as_str()))
    });
    // And six more come with them: enough to be in another segment.
    let (mut from, mut more) = (Vec::new(), Vec::new());
    for (row, (user, time)) in users.iter().zip(&times).enumerate() {
        let found = user.as_deref().and_then(|user| last.get_mut(user));
        if let Some(step) = found.filter(|step| step.time == *time && items[row].is_some()) {
            for item in step.others.drain(..) {
                from.push(row as u32);
                more.push(item);
            }
        }
    }
    assert!(more.len() > 1_000, "{}", more.len());
    let added = take_record_batch(&changed, &UInt32Array::from(from)).expect("rows");
    let added = with(&added, "item_id", Arc::new(StringArray::from(more)));
    replace_events(&shop, &[changed, added]);

    let run = shop.run(&[]);
    same_models(&run, &before.0, &["fit", "train"]);
    assert_eq!(learned(&run), before.1);
    assert!(lists(&run) == before.2, "lists differ");
    assert_eq!(likeness(&run), before.3);
}

#[test]
fn a_random_share_of_users_items_reaches_no_list_whenever_and_however_they_turned_to_it() {
    let shop = shop("random");
    let run = shop.run(&[]);
    let before = (models(&run, &["fit", "train"]), learned(&run), lists(&run), likeness(&run));
    // Of what is held out, the backtest names what was listed.
    let hits = rows(&run.join("backtest"), &["user_id", "item_id", "hit"]);
    let hits: BTreeSet<(String, String)> =
        hits.into_iter().filter(|row| row[2] == "true").map(|row| (row[0].clone(), row[1].clone())).collect();
    assert!(hits.len() > 50, "{}", hits.len());
    let events = events(&shop);
    let (users, items, times) = (text(&events, "user_id"), text(&events, "item_id"), times(&events));
    let is_hit = |row: usize| {
        let pair = users[row].clone().zip(items[row].clone());
        pair.is_some_and(|pair| hits.contains(&pair))
    };
    // As if they had all come with the user's first event; the clock stays.
    let (first, last) = (first_times(&users, &times), *times.iter().max().expect("a time"));
    let moved = (0..times.len()).map(|row| match &users[row] {
        Some(user) if is_hit(row) && times[row] < last => first[user],
        _ => times[row],
    });
    let moved = arrow::array::TimestampMicrosecondArray::from_iter_values(moved).with_timezone("UTC");
    let changed = otherwise(&with(&events, "event_time", Arc::new(moved)), is_hit);
    replace_events(&shop, &[changed]);

    let run = shop.run(&[]);
    same_models(&run, &before.0, &["fit", "train"]);
    assert_eq!(learned(&run), before.1);
    assert!(lists(&run) == before.2, "lists differ");
    assert_eq!(likeness(&run), before.3);
}

fn first_times(users: &[Option<String>], times: &[i64]) -> BTreeMap<String, i64> {
    let mut first: BTreeMap<String, i64> = BTreeMap::new();
    for (user, time) in users.iter().zip(times) {
        let Some(user) = user else { continue };
        let known = first.entry(user.clone()).or_insert(*time);
        *known = (*time).min(*known);
    }
    first
}

#[test]
fn the_order_of_rows_and_files_changes_nothing_even_among_equal_times() {
    for split in ["temporal", "leave-last-out", "random"] {
        let shop = shop(split);
        // Times of whole hours: nearly every event has company.
        let hours = times(&events(&shop)).into_iter().map(|time| time - time % 3_600_000_000);
        let hours = arrow::array::TimestampMicrosecondArray::from_iter_values(hours).with_timezone("UTC");
        let events = with(&events(&shop), "event_time", Arc::new(hours));
        replace_events(&shop, std::slice::from_ref(&events));
        // What happens twice in an hour is a duplicate here.
        let alike = ["--set", "behavior.max_rejected_share=1.0"];
        let run = shop.run(&alike);
        let tables =
            ["recommendations", "similar_items", "query_items", "popular_items", "metrics", "backtest"];
        let windows = ["fit", "train", "full"];
        let held_out = |run: &Path| {
            ["fit", "train"]
                .map(|window| whole(&run.join("stages/behavior").join(window).join("held_out.parquet")))
        };
        let before = (
            models(&run, &windows),
            learned(&run),
            held_out(&run),
            tables.map(|table| whole(&run.join(table))),
        );

        // A stride that is prime to the number of rows visits each of them once.
        let n = events.num_rows();
        let order: Vec<u32> = (0..n).map(|at| (at * 1_609 % n) as u32).collect();
        assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), n);
        let shuffled = take_record_batch(&events, &UInt32Array::from(order)).expect("rows");
        replace_events(
            &shop,
            &[shuffled.slice(0, 777), shuffled.slice(777, 3_000), shuffled.slice(3_777, n - 3_777)],
        );
        shop.rewrite("data/items.parquet", |items| {
            let backwards: UInt32Array = (0..items.num_rows() as u32).rev().collect();
            take_record_batch(&items, &backwards).expect("rows")
        });
        let run = shop.run(&alike);
        same_models(&run, &before.0, &windows);
        assert_eq!(learned(&run), before.1, "{split}");
        assert!(held_out(&run) == before.2, "{split}: what is held out differs");
        for (table, rows) in tables.iter().zip(&before.3) {
            assert!(whole(&run.join(table)) == *rows, "{split}: {table} differs");
        }
    }
}
