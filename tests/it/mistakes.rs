//! What people get wrong: each mistake with its exit code, the place named, and nothing published.

use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Int64Array, RecordBatch};
use arrow::datatypes::Float32Type;

use crate::shop::{Shop, command, read};

#[track_caller]
fn refused(shop: &Shop, args: &[&str], code: i32, expected: &[&str]) {
    let output = shop.lamplighter(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in expected {
        assert!(text.contains(part), "expected `{part}` in:\n{text}");
    }
    assert!(!shop.path("out/CURRENT").exists(), "nothing may be published");
}

const RUN: [&str; 2] = ["run", "job.toml"];
const RUN_THEN: [&str; 4] = ["run", "job.toml", "--date", "2026-11-21"];

fn run_with(set: &str) -> Vec<&str> {
    vec!["run", "job.toml", "--date", "2026-11-21", "--set", set]
}

#[test]
fn mistakes_in_the_job_are_refused_before_any_work() {
    let shop = Shop::new(2_000, 0.0);
    refused(&shop, &["run", "nowhere.toml"], 2, &["nowhere.toml"]);
    refused(&shop, &["walk"], 2, &["unrecognized subcommand"]);
    refused(&shop, &run_with("factors.rnak=3"), 2, &["unknown field `rnak`"]);
    refused(&shop, &run_with("factors.rank=0"), 2, &["rank"]);
    shop.write_job("[nonsense]\nkey = 1");
    refused(&shop, &RUN, 2, &["unknown field `nonsense`", "[nonsense]"]);
    shop.write_job("= broken");
    refused(&shop, &RUN, 2, &["= broken"]);
}

#[test]
fn keys_that_mean_nothing_are_refused_before_any_work() {
    let shop = Shop::new(2_000, 0.0);
    for (set, expected) in [
        ("inputs.events.constant={event_type='buy'}", "found `buy`"),
        ("output='s3:/lists/x'", "a URL as s3://bucket/folder"),
        ("catalog.pins=[{when='TRUE',rank=21}]", "expected ranks from 1 to ranking.top_k = 20; found 21"),
        ("catalog.pins=[{when='TRUE',rank=0}]", "nonzero"),
        ("ranking.rules.diversity=1.5", "diversity"),
    ] {
        refused(&shop, &["check", "job.toml", "--set", set], 2, &[expected]);
    }
}

#[test]
fn mistakes_in_the_inputs_are_refused_before_any_work() {
    let shop = Shop::new(2_000, 0.0);
    refused(&shop, &run_with("inputs.events.path='data/gone'"), 2, &["data/gone", "found nothing", "hint:"]);
    refused(
        &shop,
        &run_with("inputs.events.columns={user_id='customer'}"),
        2,
        &["part-0.parquet", "`customer`", "`user_id`", "session_id"],
    );
    refused(
        &shop,
        &run_with("inputs.events.columns={event_time='event_type'}"),
        2,
        &["part-0.parquet", "`event_type`", "a timestamp, a date or an integer epoch", "Utf8"],
    );
    refused(&shop, &run_with("inputs.events.columns={user='x'}"), 2, &["`columns.user`"]);
    refused(&shop, &run_with("inputs.events.path='s3://bucket/events'"), 2, &["s3"]);
    refused(&shop, &run_with("catalog.eligible='no_such_column > 1'"), 2, &["catalog.eligible", "in_stock"]);
    refused(
        &shop,
        &run_with("inputs.events.constant={quantity='many'}"),
        2,
        &["`constant.quantity`", "many"],
    );
    std::fs::write(shop.path("data/items.parquet"), "PAR1 this is no Parquet PAR1").expect("a broken file");
    refused(&shop, &RUN, 2, &["items.parquet", "expected a Parquet file"]);
}

#[test]
fn checking_finds_what_a_night_would_stumble_over() {
    let shop = Shop::new(2_000, 0.0);
    let check = |set| ["check", "job.toml", "--set", set];
    refused(&shop, &check("catalog.eligible='no_such_column > 1'"), 2, &["catalog.eligible", "in_stock"]);
    refused(&shop, &check("behavior.bot_pattern='('"), 2, &["`behavior.bot_pattern`", "regular expression"]);
    refused(&shop, &check("behavior.bot_pattern=''"), 2, &["`behavior.bot_pattern`", "not all ids match"]);
    refused(&shop, &check("behavior.sql={users='users.sql'}"), 2, &["users.sql"]);
    std::fs::write(shop.path("users.sql"), "SELECT 1; SELECT 2").expect("a statement");
    refused(
        &shop,
        &check("behavior.sql={users='users.sql'}"),
        2,
        &["users.sql", "expected one SQL statement"],
    );
    refused(&shop, &check("neighbors.top_k=70000"), 2, &["`neighbors.top_k`", "1 to 10000"]);
    refused(&shop, &check("sql_memory_mib=1"), 2, &["at least 64 MiB"]);
}

#[test]
fn a_slice_by_a_column_that_is_not_there_is_refused() {
    let shop = Shop::new(2_000, 0.0);
    let check = |set| ["check", "job.toml", "--set", set];
    let named = ["`evaluation.slices`", "items.brand, ", "items.created_at; found `items.colour`"];
    refused(&shop, &check("evaluation.slices=['items.brand','items.colour']"), 2, &named);
    // The contract knows tags; these items have none.
    refused(&shop, &check("evaluation.slices=['items.tags']"), 2, &["items.brand", "found `items.tags`"]);
    refused(&shop, &check("evaluation.slices=['users.region']"), 2, &["found `users.region`"]);
    refused(&shop, &check("evaluation.slices=['brand']"), 2, &["`items.COLUMN`", "found `brand`"]);
    shop.write_job("[inputs.users]\npath = 'data/users.parquet'");
    refused(&shop, &check("evaluation.slices=['users.age']"), 2, &["users.age_group, users.region"]);
}

#[test]
fn plumbing_names_what_it_cannot_read() {
    let shop = Shop::new(2_000, 0.0);
    let factorize = |input| ["factorize", "--input", input, "--out", "factors"];
    refused(&shop, &factorize("gone.parquet"), 2, &["gone.parquet", "a Parquet file", "No such file"]);
    refused(&shop, &factorize("job.toml"), 2, &["job.toml", "a Parquet file"]);
    refused(
        &shop,
        &factorize("data/items.parquet"),
        2,
        &["items.parquet", "`user_idx` or `user_id`", "title"],
    );
    let vectors = |file: &str, width: i32, ids: &[i64]| {
        let list = (0..ids.len()).map(|_| Some((0..width).map(|at| Some(at as f32)).collect::<Vec<_>>()));
        let list = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(list, width);
        let ids: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
        let rows = RecordBatch::try_from_iter([("id", ids), ("vector", Arc::new(list) as ArrayRef)]);
        shop.write(file, &rows.expect("rows"));
    };
    vectors("two.parquet", 2, &[1, 2]);
    vectors("three.parquet", 3, &[1]);
    let retrieve = |queries, items| {
        ["retrieve", "--queries", queries, "--items", items, "--k", "1", "--out", "lists.parquet"]
    };
    let expected = ["three.parquet: expected vectors of 2 numbers", "found vectors of 3"];
    refused(&shop, &retrieve("two.parquet", "three.parquet"), 2, &expected);
    assert!(shop.lamplighter(&retrieve("two.parquet", "two.parquet")).status.success());
    assert_eq!(read(&shop.path("lists.parquet")).num_rows(), 2);
    // Nothing asked is an empty table, not the one before.
    vectors("none.parquet", 2, &[]);
    assert!(shop.lamplighter(&retrieve("none.parquet", "two.parquet")).status.success());
    let lists = read(&shop.path("lists.parquet"));
    assert_eq!((lists.num_rows(), lists.num_columns()), (0, 4));
}

#[cfg(target_os = "linux")]
#[test]
fn exit_codes_are_the_same_where_nothing_can_be_written() {
    let shop = Shop::new(2_000, 0.0);
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("a full disk");
    let code = |args: &[&str]| {
        let mut command = command(args);
        command.current_dir(shop.path("")).stdout(full()).stderr(full());
        command.status().expect("the binary starts").code()
    };
    assert_eq!(code(&["run", "nowhere.toml"]), Some(2));
    assert_eq!(
        code(
            &[
                &RUN_THEN[..],
                &["--log-format", "json", "--set", "gate.min_users=100000", "--set", "gate.enabled=true"]
            ]
            .concat()
        ),
        Some(3)
    );
    assert!(!shop.path("out/CURRENT").exists());
    assert_eq!(code(&RUN_THEN), Some(0), "the night is published, whoever reads its summary");
    assert!(shop.path("out/CURRENT").exists());
    assert_eq!(code(&["runs", "job.toml"]), Some(1));
}

#[test]
fn a_segment_cannot_be_called_what_everybody_is_called() {
    let shop = Shop::new(2_000, 0.0);
    let statement = include_str!("../../sql/behavior/users.sql").replace("'light'", "'all'");
    std::fs::write(shop.path("users.sql"), statement).expect("a statement");
    let args = run_with("behavior.sql={users='users.sql'}");
    refused(&shop, &args, 1, &["`users`", "neither null nor `all`"]);
}

#[test]
fn rows_that_cannot_be_read_name_their_file() {
    let shop = Shop::new(2_000, 0.0);
    for (input, file) in
        [("items", "data/items.parquet".to_owned()), ("events", shop.event_files()[0].clone())]
    {
        let path = shop.path(&file);
        let whole = std::fs::read(&path).expect("a file");
        let mut damaged = whole.clone();
        // Past the magic bytes, well before the footer: the pages of the first columns.
        let middle = damaged.len() / 3;
        damaged[8..middle].iter_mut().for_each(|byte| *byte ^= 0xA5);
        std::fs::write(&path, damaged).expect("a damaged file");
        let name = file.rsplit('/').next().expect("a name");
        refused(&shop, &RUN_THEN, 2, &[input, name, "its rows cannot be read", "hint:"]);
        std::fs::write(&path, whole).expect("the file again");
    }
}

#[test]
fn empty_inputs_are_refused_before_any_work() {
    let shop = Shop::new(2_000, 0.0);
    shop.rewrite("data/items.parquet", |rows| rows.slice(0, 0));
    refused(&shop, &RUN_THEN, 2, &["items.parquet", "expected rows; found 1 file(s) with none"]);
}

#[test]
fn a_model_that_is_not_there_is_refused_before_any_work() {
    let shop = Shop::new(2_000, 0.0);
    std::fs::create_dir(shop.path("model")).expect("a folder");
    refused(&shop, &run_with("encoder={model='./model'}"), 2, &["model", "config.json"]);
    refused(&shop, &run_with("encoder={model='./model',device='cuda'}"), 2, &["--features cuda"]);
    refused(&shop, &run_with("encoder={model='./model'}"), 2, &["by their words, without a model"]);
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(demo_model(file), shop.path("model").join(file)).expect("make data has been run");
    }
    refused(&shop, &run_with("encoder={model='./model'}"), 2, &["model", "found no model.safetensors"]);
    std::fs::write(shop.path("model/model.safetensors"), "no weights at all").expect("a file");
    refused(
        &shop,
        &run_with("encoder={model='./model'}"),
        2,
        &["model/model.safetensors", "expected a safetensors file, whole"],
    );
}

fn demo_model(file: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/all-MiniLM-L6-v2").join(file)
}

#[test]
fn a_night_with_too_many_faulty_rows_fails_and_says_which() {
    let shop = Shop::new(5_000, 0.2);
    refused(
        &shop,
        &["run", "job.toml", "--date", "2026-11-21"],
        1,
        &["max_rejected_share", "null_user", "hint:"],
    );
}

#[test]
fn a_night_without_a_row_that_counts_fails_and_says_why() {
    let shop = Shop::new(2_000, 0.0);
    shop.write_job("[behavior]\nevent_weights = { rental = 1.0, search = 0.0 }");
    refused(
        &shop,
        &["run", "job.toml", "--date", "2026-11-21"],
        1,
        &["none of 2000 events counts", "unweighted_type"],
    );
}
