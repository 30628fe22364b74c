//! Nothing after the cut reaches any model, weight or statistic that lists before the cut are made from.

use std::path::Path;

use arrow::array::RecordBatch;

use crate::shop::{Shop, manifest};
use crate::table::whole;

/// Tables that models of a window read, and the models themselves.
fn window(run: &Path, name: &str) -> Vec<(String, Vec<Vec<String>>)> {
    let behavior = run.join("stages/behavior").join(name);
    let tables = ["interactions", "users", "popularity", "searches", "query_items", "baskets", "transitions"];
    let mut all: Vec<_> = tables
        .iter()
        .map(|table| ((*table).to_owned(), whole(&behavior.join(format!("{table}.parquet")))))
        .collect();
    for factors in ["user_factors", "item_factors"] {
        let path = run.join("stages/factorize").join(name).join(factors);
        all.push((factors.to_owned(), whole(&path)));
    }
    all
}

/// Items, quantities and queries of these days change places among the users: ids and times stay, what
/// happened does not.
fn shuffle(shop: &Shop, days: &[String]) {
    for file in days {
        shop.rewrite(file, |rows| {
            let n = rows.num_rows();
            let schema = rows.schema();
            let columns = rows.columns().iter().zip(schema.fields()).map(|(column, field)| {
                if field.name() == "user_id" || field.name() == "event_time" {
                    return column.clone();
                }
                let turned: arrow::array::UInt32Array =
                    (0..n as u32).map(|at| (at + 17) % n as u32).collect();
                arrow::compute::take(column, &turned, None).expect("rows")
            });
            let columns = columns.collect();
            RecordBatch::try_new(schema.clone(), columns).expect("rows")
        });
    }
}

#[test]
fn what_comes_after_the_cut_reaches_nothing_before_it() {
    let shop = Shop::new(6_000, 0.0);
    shop.without_weights();
    // The last 5 days are the test, the 5 before teach the weights.
    let days = shop.event_files();
    let (before, after) = days.split_at(days.len() - 5);
    let of = |more: &[&str]| {
        let mut args = vec!["--set", "name=first"];
        args.extend(more);
        let run = shop.run(&args);
        let learn = manifest(&run)["facts"]["learn"].clone();
        (window(&run, "fit"), window(&run, "train"), learn)
    };
    let first = of(&["--set", "output=one"]);
    assert!(first.1.iter().all(|(name, rows)| !rows.is_empty() || name == "searches"), "there are tables");

    shuffle(&shop, &after[1..]);
    let second = of(&["--set", "output=two"]);
    for (one, two) in first.1.iter().chain(&first.0).zip(second.1.iter().chain(&second.0)) {
        assert_eq!(one.0, two.0);
        assert!(one.1 == two.1, "{} of a window changed with what came after it", one.0);
    }
    assert_eq!(first.2, second.2, "weights, lift and NDCG are learned before the cut");

    // The test itself would notice: what happened before the cut does change them.
    shuffle(&shop, &before[..1]);
    let third = of(&["--set", "output=three"]);
    assert!(third.1 != second.1 && third.2 != second.2);
}

#[test]
fn rows_in_another_order_give_the_same_night() {
    let shop = Shop::new(5_000, 0.0);
    shop.without_weights();
    let lists = |output: &str| {
        let run = shop.run(&["--set", &format!("output={output}")]);
        (whole(&run.join("recommendations")), whole(&run.join("metrics")))
    };
    let first = lists("one");
    for file in shop.event_files() {
        shop.rewrite(&file, |rows| {
            let last = rows.num_rows() as u32;
            let turned: arrow::array::UInt32Array = (0..last).rev().collect();
            arrow::compute::take_record_batch(&rows, &turned).expect("rows")
        });
    }
    assert!(first == lists("two"), "the order of rows in a file means nothing");
    assert!(first.0.len() > 1_000);
}
