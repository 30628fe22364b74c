use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, StringArray, UInt16Array, UInt64Array};
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;

use super::*;

type Row = (i64, u16, &'static str, f32);

fn refuses(key: &[String], item: &str) -> Option<&'static str> {
    (key[0] == "9" && item == "gone").then_some("not eligible")
}

const LISTS: Listed = Listed { table: "lists", keys: &["user_id"], item: "item_id", refuses: &refuses };

fn batch(rows: &[Row]) -> RecordBatch {
    RecordBatch::try_from_iter([
        ("user_id", Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()) as ArrayRef),
        ("rank", Arc::new(rows.iter().map(|row| row.1).collect::<UInt16Array>())),
        ("item_id", Arc::new(rows.iter().map(|row| Some(row.2)).collect::<StringArray>())),
        ("score", Arc::new(rows.iter().map(|row| row.3).collect::<Float32Array>())),
    ])
    .unwrap()
}

/// Checks a table of these files, in batches of two rows so that lists go on from one to the next.
fn check_files(listed: &Listed, files: &[RecordBatch]) -> Result<TableRecord, Error> {
    let folder = tempfile::tempdir().unwrap();
    for (at, rows) in files.iter().enumerate() {
        let bucket = folder.path().join(listed.table).join(format!("bucket={at:02}"));
        fs::create_dir_all(&bucket).unwrap();
        let file = File::create(bucket.join("part.parquet")).unwrap();
        let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
        writer.write(rows).unwrap();
        writer.close().unwrap();
    }
    check_in(folder.path(), listed, 2)
}

fn problem_of(listed: &Listed, files: &[RecordBatch]) -> Problem {
    match check_files(listed, files) {
        Err(Error::Broken { problem, .. }) => *problem,
        result => panic!("expected a broken table; found {result:?}"),
    }
}

#[track_caller]
fn breaks(rows: &[Row], at: (&str, u16, &str), expected: Fault) {
    match problem_of(&LISTS, &[batch(rows)]) {
        Problem::Row { list, rank, item, fault } => {
            assert_eq!((list.as_str(), rank, item.as_str()), at);
            assert_eq!(fault, expected);
        }
        problem => panic!("expected {expected}; found {problem}"),
    }
}

#[test]
fn sound_lists_pass_and_are_counted() {
    let first = batch(&[(2, 1, "a", 0.5), (2, 2, "b", 0.5), (2, 3, "c", -0.5), (10, 1, "gone", -1.0)]);
    let record = check_files(&LISTS, &[first, batch(&[(3, 1, "a", 0.5)]), batch(&[])]).unwrap();
    assert_eq!((record.rows, record.files), (5, 3));
    assert!(record.bytes > 0);
}

#[test]
fn a_row_that_breaks_a_rule_is_named() {
    let expected = |expected| Fault::Rank { expected };
    breaks(&[(1, 1, "a", 0.5), (1, 3, "b", 0.4)], ("1", 3, "b"), expected(2));
    breaks(&[(1, 2, "a", 0.5)], ("1", 2, "a"), expected(1));
    breaks(&[(1, 1, "a", 0.5), (1, 1, "b", 0.4)], ("1", 1, "b"), expected(2));
    breaks(&[(1, 1, "a", 0.5), (2, 2, "b", 0.4)], ("2", 2, "b"), expected(1));
    breaks(&[(1, 1, "a", 0.5), (1, 2, "a", 0.4)], ("1", 2, "a"), Fault::Twice);
    breaks(&[(1, 1, "a", 3.0), (1, 2, "b", 2.0), (1, 3, "a", 1.0)], ("1", 3, "a"), Fault::Twice);
    let rising = Fault::Rising { found: 0.6, after: 0.5 };
    breaks(&[(1, 1, "a", 0.5), (1, 2, "b", 0.6)], ("1", 2, "b"), rising);
    let infinite = Fault::NotFinite { found: f32::INFINITY };
    breaks(&[(1, 1, "a", f32::INFINITY)], ("1", 1, "a"), infinite);
    let order = Fault::Order { after: "10".to_owned() };
    breaks(&[(10, 1, "a", 0.5), (2, 1, "b", 0.6)], ("2", 1, "b"), order);
    breaks(&[(9, 1, "gone", 0.5)], ("9", 1, "gone"), Fault::Refused { reason: "not eligible" });
}

#[test]
fn a_score_that_is_no_number_is_named() {
    let problem = problem_of(&LISTS, &[batch(&[(1, 1, "a", f32::NAN)])]);
    assert!(matches!(problem, Problem::Row { fault: Fault::NotFinite { .. }, .. }), "{problem}");
}

#[test]
fn a_list_has_room_for_every_rank_and_no_more() {
    let items: Vec<String> = (0..=u16::MAX).map(|item| format!("{item:05}")).collect();
    let rows = |n: usize| {
        RecordBatch::try_from_iter([
            ("user_id", Arc::new(Int64Array::from(vec![1; n])) as ArrayRef),
            ("rank", Arc::new((0..n).map(|at| (at as u16).saturating_add(1)).collect::<UInt16Array>())),
            ("item_id", Arc::new(items[..n].iter().map(Some).collect::<StringArray>())),
            ("score", Arc::new(Float32Array::from(vec![0.0; n]))),
        ])
        .unwrap()
    };
    let last = usize::from(u16::MAX);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part.parquet");
    for (n, sound) in [(last, true), (last + 1, false)] {
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), rows(n).schema(), None).unwrap();
        writer.write(&rows(n)).unwrap();
        writer.close().unwrap();
        let found = check_file(&path, &LISTS, BATCH_ROWS, &mut |_| ());
        assert_eq!(found.is_ok(), sound, "{found:?}");
    }
}

#[test]
fn a_list_in_two_files_is_named() {
    let files = [batch(&[(1, 1, "a", 0.5), (7, 1, "a", 0.5)]), batch(&[(3, 1, "a", 0.5), (7, 1, "b", 0.5)])];
    match problem_of(&LISTS, &files) {
        Problem::Split { list, other } => {
            assert_eq!(list, "7");
            assert!(other.ends_with("bucket=00/part.parquet"), "{}", other.display());
        }
        problem => panic!("{problem}"),
    }
}

#[test]
fn columns_are_checked_even_where_there_are_no_rows() {
    let empty = batch(&[]);
    let without = |name: &str| {
        let kept: Vec<usize> = (0..4).filter(|at| empty.schema().field(*at).name() != name).collect();
        empty.project(&kept).unwrap()
    };
    for name in ["user_id", "rank", "item_id", "score"] {
        let problem = problem_of(&LISTS, &[without(name)]);
        assert!(matches!(&problem, Problem::NoColumn { column } if column == name), "{problem}");
    }
    let listed = Listed { table: "recommendations", ..LISTS };
    let problem = problem_of(&listed, std::slice::from_ref(&empty));
    assert!(matches!(&problem, Problem::NoColumn { column } if column == "source"), "{problem}");
    let ranks: ArrayRef = Arc::new(Int64Array::from(Vec::<i64>::new()));
    let columns = [0, 2, 3].map(|at| (empty.schema().field(at).name().clone(), empty.column(at).clone()));
    let wrong = RecordBatch::try_from_iter(columns.into_iter().chain([("rank".to_owned(), ranks)])).unwrap();
    let problem = problem_of(&LISTS, &[wrong]);
    assert!(matches!(&problem, Problem::Type { found: DataType::Int64, .. }), "{problem}");
}

#[test]
fn files_of_one_table_have_the_same_columns() {
    let more = batch(&[(2, 1, "a", 0.5)]);
    let extra: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let columns = more.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let columns = columns.into_iter().zip(more.columns().to_vec()).chain([("extra".to_owned(), extra)]);
    let problem =
        problem_of(&LISTS, &[batch(&[(1, 1, "a", 0.5)]), RecordBatch::try_from_iter(columns).unwrap()]);
    assert!(matches!(problem, Problem::Columns { .. }), "{problem}");
}

fn with_users(users: ArrayRef) -> RecordBatch {
    let rows = batch(&[(1, 1, "a", 0.5)]);
    RecordBatch::try_from_iter([
        ("user_id", users),
        ("rank", rows.column(1).clone()),
        ("item_id", rows.column(2).clone()),
        ("score", rows.column(3).clone()),
    ])
    .unwrap()
}

#[test]
fn ids_that_are_null_or_do_not_fit_are_refused() {
    let problem = problem_of(&LISTS, &[with_users(Arc::new(Int64Array::from(vec![None])))]);
    assert!(matches!(&problem, Problem::Null { column, nulls: 1 } if column == "user_id"), "{problem}");
    let unsigned: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX]));
    check_files(&LISTS, &[with_users(unsigned)]).unwrap();
}

#[test]
fn text_keys_ascend_by_bytes_and_two_columns_make_one_key() {
    let rows = |keys: &[(&str, &str)]| {
        let text = |of: &dyn Fn(&(&str, &str)) -> String| -> ArrayRef {
            Arc::new(keys.iter().map(|key| Some(of(key))).collect::<StringArray>())
        };
        RecordBatch::try_from_iter([
            ("item_id", text(&|key| key.0.to_owned())),
            ("relation", text(&|key| key.1.to_owned())),
            ("rank", Arc::new(UInt16Array::from(vec![1; keys.len()])) as ArrayRef),
            ("similar_item_id", text(&|_| "z".to_owned())),
            ("score", Arc::new(Float32Array::from(vec![1.0; keys.len()]))),
        ])
        .unwrap()
    };
    let keys = &["item_id", "relation"];
    let listed = Listed { table: "similar_items", keys, item: "similar_item_id", refuses: &|_, _| None };
    check_files(&listed, &[rows(&[("10", "next"), ("10", "similar"), ("9", "next")])]).unwrap();
    let problem = problem_of(&listed, &[rows(&[("10", "similar"), ("10", "next")])]);
    assert_eq!(
        problem.to_string(),
        "list 10 / next, rank 1, item z: expected keys to ascend; found it after list 10 / similar"
    );
}

/// The rules as one would state them, with every list in memory.
fn naive(files: &[Vec<Row>]) -> bool {
    let mut owners = BTreeMap::new();
    files.iter().enumerate().all(|(file, rows)| {
        rows.windows(2).all(|pair| pair[0].0 <= pair[1].0)
            && rows.iter().all(|row| *owners.entry(row.0).or_insert(file) == file)
            && rows.chunk_by(|a, b| a.0 == b.0).all(|list| {
                list.iter().map(|row| row.2).collect::<BTreeSet<_>>().len() == list.len()
                    && list.windows(2).all(|pair| pair[0].3 >= pair[1].3)
                    && list.iter().enumerate().all(|(at, row)| usize::from(row.1) == at + 1)
                    && list.iter().all(|row| refuses(&[row.0.to_string()], row.2).is_none())
            })
    })
}

/// Sound tables with at most one row spoilt, so that both answers come up.
fn tables() -> impl Strategy<Value = Vec<Vec<Row>>> {
    let lengths = prop::collection::vec((0..3usize, 1..5usize), 1..6);
    let spoil = prop::option::of((0..30usize, 0..4usize, 0..11i64));
    (lengths, spoil).prop_map(|(lengths, spoil)| {
        const ITEMS: [&str; 5] = ["a", "b", "c", "d", "gone"];
        let mut files = vec![Vec::new(); 3];
        for (user, (file, length)) in lengths.into_iter().enumerate() {
            let row = |at: usize| (user as i64 + 5, at as u16 + 1, ITEMS[at], 1.0 - at as f32);
            files[file].extend((0..length).map(row));
        }
        if let Some((at, column, value)) = spoil {
            let n_rows = files.iter().map(Vec::len).sum::<usize>();
            if let Some(row) = files.iter_mut().flatten().nth(at % n_rows) {
                match column {
                    0 => row.0 = value,
                    1 => row.1 = value as u16,
                    2 => row.2 = ITEMS[value as usize % 5],
                    _ => row.3 = 2.0 - value as f32,
                }
            }
        }
        files
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_check_says_what_the_rules_say(files in tables()) {
        let batches: Vec<RecordBatch> = files.iter().map(|rows| batch(rows)).collect();
        prop_assert_eq!(check_files(&LISTS, &batches).is_ok(), naive(&files));
    }
}
