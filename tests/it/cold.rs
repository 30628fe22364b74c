//! Items that nobody has turned to yet, and users of whom little is known.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::record_batch::RecordBatch;

use crate::shop::{Shop, read};
use crate::table::rows;

/// What is listed most often.
fn most_listed(run: &Path) -> String {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for row in rows(&run.join("recommendations"), &["item_id"]) {
        *counts.entry(row[0].clone()).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, n)| *n).expect("a row").0
}

#[test]
fn an_item_added_today_is_listed_tonight() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/all-MiniLM-L6-v2");
    lists_an_item_added_today(&format!("[encoder]\nmodel = '{}'", model.display()));
}

#[test]
fn an_item_added_today_is_listed_tonight_by_its_words() {
    lists_an_item_added_today("");
}

fn lists_an_item_added_today(job: &str) {
    let shop = Shop::new(5_000, 0.0);
    shop.write_job(job);
    shop.without_weights();
    let popular = most_listed(&shop.run(&[]));
    // The same product under a new id, as a shop adds a variant.
    let items = read(&shop.path("data/items.parquet"));
    let ids = rows(&shop.path("data/items.parquet"), &["item_id"]);
    let at = ids.iter().position(|row| row[0] == popular).expect("the item") as u32;
    let twin = take_record_batch(&items, &UInt32Array::from(vec![at])).expect("a row");
    let mut columns = twin.columns().to_vec();
    let place = items.schema().index_of("item_id").expect("ids");
    let id: ArrayRef = Arc::new(StringArray::from(vec!["zz-new"]));
    columns[place] = cast(&id, columns[place].data_type()).expect("an id");
    let twin = RecordBatch::try_new(items.schema(), columns).expect("a row");
    shop.write("data/items.parquet", &concat_batches(&items.schema(), [&items, &twin]).expect("rows"));

    let run = shop.run(&[]);
    let lists =
        rows(&run.join("recommendations"), &["item_id", "factors_score", "popularity_score", "user_id"]);
    let of_twin: Vec<_> = lists.iter().filter(|row| row[0] == "zz-new").collect();
    let users: std::collections::BTreeSet<&String> = lists.iter().map(|row| &row[3]).collect();
    assert!(of_twin.len() > users.len() / 20, "{} of {} lists have it", of_twin.len(), users.len());
    // It is not held back for having had no day to be turned to.
    assert!(of_twin.iter().all(|row| row[2].parse::<f64>().is_ok_and(|score| score > 0.0)), "{of_twin:?}");
    let factors = rows(&run.join("item_factors"), &["item_id", "factors"]);
    assert!(factors.iter().any(|row| row[0] == "zz-new"), "it has its row");
    let similar = rows(&run.join("similar_items"), &["item_id", "similar_item_id"]);
    assert!(similar.iter().any(|row| row[0] == "zz-new" && row[1] == popular), "{popular}");
}

#[test]
fn who_has_only_searched_gets_what_the_words_say() {
    let shop = Shop::new(5_000, 0.0);
    let last = shop.event_files().pop().expect("a day");
    shop.rewrite(&last, |rows| {
        let items = rows.column_by_name("item_id").expect("items");
        let search = (0..rows.num_rows()).find(|row| items.is_null(*row)).expect("a search") as u32;
        let search = take_record_batch(&rows, &UInt32Array::from(vec![search])).expect("a row");
        let with = |row: &RecordBatch, column: &str, value: &str| {
            let place = rows.schema().index_of(column).expect("the column");
            let mut columns = row.columns().to_vec();
            let value: ArrayRef = Arc::new(StringArray::from(vec![value]));
            columns[place] = cast(&value, columns[place].data_type()).expect("a value");
            RecordBatch::try_new(rows.schema(), columns).expect("a row")
        };
        let known = with(&search, "user_id", "zz-searcher");
        let unknown = with(&with(&search, "user_id", "zz-stranger"), "query", "Qwrtz Yxcvb");
        concat_batches(&rows.schema(), [&rows, &known, &unknown]).expect("rows")
    });
    shop.without_weights();
    let run = shop.run(&[]);
    let searched = rows(&shop.path(&last), &["user_id", "query"]);
    let query = &searched.iter().find(|row| row[0] == "zz-searcher").expect("the search")[1];
    let of_query: Vec<String> = rows(&run.join("query_items"), &["query", "item_id", "content_score"])
        .into_iter()
        .filter(|row| row[0] == query.to_lowercase() && row[2].parse::<f64>().is_ok_and(|score| score > 0.1))
        .map(|row| row[1].clone())
        .collect();
    // What shares no word with the catalogue says nothing, and no list is made of nothing.
    let queries = rows(&run.join("query_items"), &["query"]);
    assert!(queries.iter().all(|row| row[0] != "qwrtz yxcvb"));
    let lists = rows(&run.join("recommendations"), &["user_id", "item_id", "content_score"]);
    assert!(lists.iter().all(|row| row[0] != "zz-stranger"));
    let own: Vec<_> = lists.iter().filter(|row| row[0] == "zz-searcher").collect();
    let n_shared = own.iter().filter(|row| of_query.contains(&row[1])).count();
    assert!(n_shared > 0, "{query}: {of_query:?} {own:?}");
    // Whatever segment has no history is served what is popular with all.
    let new = rows(&run.join("popular_items"), &["segment", "item_id", "rank"]);
    let of = |segment: &str| -> Vec<&String> {
        new.iter().filter(|row| row[0] == segment).map(|row| &row[1]).collect()
    };
    assert_eq!(of("new").len(), 20);
    assert_eq!(of("new"), of("all"));
}
