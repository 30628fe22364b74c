use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use parquet::arrow::ArrowWriter;
use serde_json::json;

use super::*;

fn date(day: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 11, day).unwrap()
}

fn write_rows(path: &Path, values: &[i64]) {
    let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    let rows = RecordBatch::try_from_iter([("value", column)]).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

fn todo(run: &Run, stage: &str, fingerprint: &str) -> StageWriter {
    match run.stage(stage, fingerprint).unwrap() {
        Stage::Todo(writer) => writer,
        Stage::Done(_) => panic!("{stage} should have been to do"),
    }
}

fn done(run: &Run, stage: &str, fingerprint: &str) -> DoneStage {
    match run.stage(stage, fingerprint).unwrap() {
        Stage::Done(done) => done,
        Stage::Todo(_) => panic!("{stage} should have been done"),
    }
}

fn finish(run: &Run, stage: &str, fingerprint: &str, values: &[i64]) -> DoneStage {
    let writer = todo(run, stage, fingerprint);
    write_rows(&writer.folder().join("table/a.parquet"), values);
    fs::write(writer.folder().join("model.txt"), "words").unwrap();
    writer.finish(json!({ "sum": values.iter().sum::<i64>() })).unwrap()
}

/// A run that a reader can load: complete, its tables as its manifest counts them.
#[track_caller]
fn assert_whole(root: &Path, run_id: &str) {
    let current = current(&Place::folder(root), "nightly").unwrap().unwrap();
    assert_eq!(current.run_id, run_id);
    let folder = root.join(&current.path);
    let manifest = read_manifest(&folder).unwrap().unwrap();
    assert!(!manifest.tables.is_empty());
    for (table, record) in &manifest.tables {
        assert_eq!(count(&folder.join(table)).unwrap(), *record);
    }
}

#[test]
fn a_second_run_of_the_job_is_refused_while_the_first_works() {
    let folder = tempfile::tempdir().unwrap();
    let first = Output::open(&Place::folder(folder.path()), "nightly", 60).unwrap();
    let message = Output::open(&Place::folder(folder.path()), "nightly", 60).unwrap_err().to_string();
    assert!(message.contains(&format!("pid {}", std::process::id())), "{message}");
    assert!(message.contains(".nightly.lock") && message.contains("since 20"), "{message}");
    Output::open(&Place::folder(folder.path()), "weekly", 60).unwrap();
    drop(first);
    Output::open(&Place::folder(folder.path()), "nightly", 60).unwrap();
}

#[test]
fn attempts_count_up_as_numbers_and_an_unfinished_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let output = Output::open(&Place::folder(folder.path()), "nightly", 60).unwrap();
    for attempt in 1..=10 {
        let run = output.start(date(21)).unwrap();
        assert_eq!(run.id(), format!("nightly-2026-11-21-{attempt}"));
        assert!(!run.resumed());
        run.publish(&Manifest::default()).unwrap();
    }
    assert_eq!(output.start(date(21)).unwrap().id(), "nightly-2026-11-21-11");
    let again = output.start(date(21)).unwrap();
    assert_eq!((again.id(), again.resumed()), ("nightly-2026-11-21-11", true));
    assert_eq!(output.start(date(22)).unwrap().id(), "nightly-2026-11-22-1");
    assert_eq!(
        current(&Place::folder(folder.path()), "nightly").unwrap().unwrap().run_id,
        "nightly-2026-11-21-10"
    );
    let runs = list_runs(&Place::folder(folder.path()), "nightly").unwrap();
    assert_eq!(runs[9].attempt, 10);
    assert!(runs[9].complete && !runs[10].complete);
}

#[test]
fn only_folders_named_as_a_run_of_the_job_are_its_runs() {
    let folder = tempfile::tempdir().unwrap();
    let names =
        ["a-2026-11-21-1", "a-b-2026-11-21-1", "a-2026-11-21-01", "a-2026-11-3-1", "a-2026-11-21-+1", "a"];
    for name in names {
        fs::create_dir_all(folder.path().join("runs").join(name)).unwrap();
    }
    let ids = |job: &str| -> Vec<String> {
        list_runs(&Place::folder(folder.path()), job).unwrap().into_iter().map(|run| run.id).collect()
    };
    assert_eq!(ids("a"), ["a-2026-11-21-1"]);
    assert_eq!(ids("a-b"), ["a-b-2026-11-21-1"]);
    assert_eq!(list_runs(&Place::folder(&folder.path().join("none")), "a").unwrap(), []);
}

#[test]
fn a_stage_is_complete_only_once_it_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let output = Output::open(&Place::folder(folder.path()), "nightly", 60).unwrap();
    let run = output.start(date(21)).unwrap();
    let writer = todo(&run, "behavior", "f1");
    fs::write(writer.folder().join("half.parquet"), "half").unwrap();
    drop(writer);

    let stage = finish(&run, "behavior", "f1", &[1, 2, 3]);
    assert!(!stage.folder().join("half.parquet").exists());
    let stage = done(&run, "behavior", "f1");
    assert_eq!(stage.facts(), &json!({ "sum": 6 }));
    assert_eq!(stage.made_by(), run.id());
    // What was made of other inputs can be built on until what replaces it is whole.
    todo(&run, "behavior", "f2");
    let first = || output.newest("behavior", &|facts| facts["sum"] == 6).unwrap();
    assert_eq!(first().unwrap().folder(), stage.folder());
    finish(&run, "behavior", "f2", &[4]);
    assert!(first().is_none());
    assert_eq!(done(&run, "behavior", "f2").facts(), &json!({ "sum": 4 }));
}

#[test]
fn a_stage_that_was_taking_the_place_of_another_takes_it_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let output = Output::open(&Place::folder(folder.path()), "nightly", 60).unwrap();
    let run = output.start(date(21)).unwrap();
    finish(&run, "behavior", "f1", &[1, 2, 3]);
    let whole = finish(&run, "behavior", "f2", &[4]).folder().to_owned();
    // Killed when the older one had been removed, and a stage of another name before it was whole.
    fs::rename(&whole, whole.with_file_name(".behavior.partial")).unwrap();
    let half = whole.with_file_name(".encode.partial");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("half.parquet"), "half").unwrap();

    let run = output.start(date(21)).unwrap();
    assert!(run.resumed() && !half.exists());
    assert_eq!(done(&run, "behavior", "f2").facts(), &json!({ "sum": 4 }));
    todo(&run, "encode", "f1");
}

#[test]
fn a_stage_with_half_a_parquet_file_is_never_complete() {
    let folder = tempfile::tempdir().unwrap();
    let output = Output::open(&Place::folder(folder.path()), "nightly", 60).unwrap();
    let run = output.start(date(21)).unwrap();
    let writer = todo(&run, "behavior", "f1");
    fs::write(writer.folder().join("half.parquet"), "PAR1 half").unwrap();
    match writer.finish(json!({})) {
        Err(Error::ReadBack { path, .. }) => assert!(path.ends_with("half.parquet")),
        result => panic!("{result:?}"),
    }
    todo(&run, "behavior", "f1");
}

#[test]
fn a_later_run_adopts_the_newest_stage_of_the_same_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let output = Output::open(&Place::folder(folder.path()), "nightly", 60).unwrap();
    let mut first = Vec::new();
    for values in [[1], [2]] {
        let run = output.start(date(21)).unwrap();
        fs::remove_dir_all(folder.path().join("runs/nightly-2026-11-21-1/stages")).ok();
        first.push(finish(&run, "encode", "f1", &values));
        run.publish(&Manifest::default()).unwrap();
    }
    // The first run's stage, taken away above so that the second had to do it again, is back.
    let old = folder.path().join("runs/nightly-2026-11-21-1/stages/encode");
    files::link_tree(first[1].folder(), &old).unwrap();
    let record = fs::read_to_string(old.join("stage.json")).unwrap().replace("-21-2", "-21-1");
    fs::remove_file(old.join("stage.json")).unwrap();
    fs::write(old.join("stage.json"), record).unwrap();

    let run = output.start(date(22)).unwrap();
    let stage = done(&run, "encode", "f1");
    assert_eq!(stage.made_by(), "nightly-2026-11-21-2");
    assert!(stage.folder().starts_with(run.folder()));
    assert_eq!(stage.facts(), &json!({ "sum": 2 }));
    let newest = output.newest("encode", &|facts| facts["sum"] == 2).unwrap().unwrap();
    assert!(newest.folder().starts_with(run.folder()));
    assert!(output.newest("encode", &|facts| facts["sum"] == 3).unwrap().is_none());
    todo(&run, "catalog", "f1");
}

#[cfg(unix)]
#[test]
fn an_adopted_stage_shares_its_files_and_outlives_the_run_they_came_from() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let output = Output::open(&Place::folder(folder.path()), "nightly", 60).unwrap();
    let first = output.start(date(21)).unwrap();
    let made = finish(&first, "encode", "f1", &[7]).folder().join("table/a.parquet");
    // The first run is unfinished: its complete stages are as good as any.
    let second = output.start(date(22)).unwrap();
    let taken = done(&second, "encode", "f1").folder().join("table/a.parquet");
    assert_eq!(fs::metadata(&made).unwrap().ino(), fs::metadata(&taken).unwrap().ino());
    fs::remove_dir_all(first.folder()).unwrap();
    assert_eq!(done(&second, "encode", "f1").made_by(), first.id());
    assert_eq!(count(taken.parent().unwrap()).unwrap().rows, 1);
}

#[test]
fn a_stage_with_a_damaged_or_missing_file_is_done_again() {
    let damages: [fn(&Path); 4] = [
        |stage| fs::write(stage.join("table/a.parquet"), "short").unwrap(),
        |stage| fs::remove_file(stage.join("model.txt")).unwrap(),
        |stage| fs::remove_file(stage.join("stage.json")).unwrap(),
        |stage| fs::write(stage.join("stage.json"), "{\"stage\":").unwrap(),
    ];
    for damage in damages {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::open(&Place::folder(folder.path()), "nightly", 60).unwrap();
        let run = output.start(date(21)).unwrap();
        damage(finish(&run, "encode", "f1", &[1]).folder());
        let later = output.start(date(22)).unwrap();
        todo(&later, "encode", "f1");
        finish(&run, "encode", "f1", &[1]);
        done(&later, "encode", "f1");
    }
}

#[test]
fn a_resumed_run_keeps_complete_stages_and_no_table_of_before() {
    let folder = tempfile::tempdir().unwrap();
    let output = Output::open(&Place::folder(folder.path()), "nightly", 60).unwrap();
    let run = output.start(date(21)).unwrap();
    let stage = finish(&run, "rank", "f1", &[1]);
    run.publish_table(stage.folder(), "table").unwrap();
    run.scratch().unwrap();
    todo(&run, "dropped", "f1");
    let again = output.start(date(21)).unwrap();
    assert_eq!(again.id(), run.id());
    let names = |folder: &Path| -> Vec<String> {
        let entries = files::entries(folder).unwrap();
        entries.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(names(&again.folder()), ["stages"]);
    assert_eq!(names(&again.folder().join("stages")), ["rank"]);
    done(&again, "rank", "f1");
}

#[test]
fn what_killed_processes_left_goes_when_the_next_run_starts_or_somebody_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let output = Output::open(&Place::folder(folder.path()), "nightly", 60).unwrap();
    let runs = folder.path().join("runs");
    let leave = || {
        let scratch = output.start(date(21)).unwrap().scratch().unwrap();
        fs::write(scratch.join("spilled"), "rows").unwrap();
        let removed = runs.join(".removed-nightly-2026-11-19-1");
        fs::create_dir_all(&removed).unwrap();
        write_rows(&removed.join("table/a.parquet"), &[1]);
        let foreign = runs.join("weekly-2026-11-21-1/.scratch");
        fs::create_dir_all(&foreign).unwrap();
        (scratch, removed, foreign)
    };
    for sweep in [&|| output.start(date(22)).map(|_| ()) as Result<(), Error>, &|| {
        output.forget(&["somebody".to_owned()].into(), "").map(|_| ())
    }] as [&dyn Fn() -> Result<(), Error>; 2]
    {
        let (scratch, removed, foreign) = leave();
        sweep().unwrap();
        assert!(!scratch.exists() && !removed.exists() && foreign.exists());
    }
}

#[test]
fn an_output_that_has_become_another_jobs_is_left_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::folder(folder.path());
    let (ours, theirs) =
        (Output::open(&place, "nightly", 60).unwrap(), Output::open(&place, "weekly", 60).unwrap());
    let run = ours.start(date(21)).unwrap();
    theirs.start(date(21)).unwrap().publish(&Manifest::default()).unwrap();
    let refused = run.publish(&Manifest::default());
    assert!(matches!(refused, Err(Error::OtherJob { theirs, .. }) if theirs == "weekly"));
    assert_eq!(current(&place, "weekly").unwrap().unwrap().run_id, "weekly-2026-11-21-1");
}

/// One night in the steps between which it can be killed; stops after so many of them, and says
/// whether it came to the end. Steps inside [`Run::publish`] and [`StageWriter::finish`] are made by
/// hand, as far as they would have come.
fn night(root: &Path, day: u32, steps: usize) -> bool {
    let mut left = steps;
    let mut killed = || {
        let now = left == 0;
        left = left.saturating_sub(1);
        now
    };
    let output = Output::open(&Place::folder(root), "nightly", 60).unwrap();
    let run = output.start(date(day)).unwrap();
    for stage in ["behavior", "rank"] {
        let Stage::Todo(writer) = run.stage(stage, &format!("{stage} {day}")).unwrap() else { continue };
        if killed() {
            return false;
        }
        write_rows(&writer.folder().join("table/a.parquet"), &[1, 2]);
        if killed() {
            return false;
        }
        if killed() {
            fs::write(writer.folder().join(format!(".stage.json.{}.partial", run.id())), "{\"st").unwrap();
            return false;
        }
        writer.finish(json!({})).unwrap();
        if killed() {
            return false;
        }
    }
    fs::create_dir_all(run.folder().join("table")).unwrap();
    if killed() {
        return false;
    }
    run.publish_table(&run.folder().join("stages/rank"), "table").unwrap();
    run.publish_file(&run.folder().join("stages/rank/table/a.parquet"), "other/part=1/b.parquet").unwrap();
    if killed() {
        return false;
    }
    let tables =
        ["table", "other"].map(|table| (table.to_owned(), count(&run.folder().join(table)).unwrap()));
    let manifest = Manifest { tables: BTreeMap::from(tables), ..Manifest::default() };
    if killed() {
        fs::write(run.folder().join(format!(".manifest.json.{}.partial", run.id())), "{\"lam").unwrap();
        return false;
    }
    if killed() {
        fs::write(root.join(".CURRENT.nightly.partial"), "{\"run").unwrap();
        // The manifest has its name, `CURRENT` has not been switched.
        files::write_json(&run.folder().join("manifest.json"), run.id(), &manifest).unwrap();
        return false;
    }
    run.publish(&manifest).unwrap();
    true
}

#[test]
fn a_run_killed_at_any_step_leaves_the_old_one_published_and_goes_on() {
    let all = (0..).find(|steps| night(tempfile::tempdir().unwrap().path(), 21, *steps)).unwrap();
    assert_eq!(all, 12);
    for steps in 0..all {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert!(night(root, 20, usize::MAX));
        assert!(!night(root, 21, steps));
        assert_whole(root, "nightly-2026-11-20-1");
        // A kill after a kill, and then a night that is left in peace.
        night(root, 21, steps / 2);
        assert!(night(root, 21, usize::MAX));
        let runs = list_runs(&Place::folder(root), "nightly").unwrap();
        assert_whole(root, &runs.last().unwrap().id);
        assert!(runs.iter().all(|run| run.complete), "{steps}: {runs:?}");
        let hidden = |path: &Path| path.file_name().unwrap().to_string_lossy().ends_with(".partial");
        let (folders, files) = files::tree(root).unwrap();
        let left: Vec<_> = folders.iter().chain(&files).filter(|path| hidden(path)).collect();
        assert!(left.is_empty(), "{steps}: {left:?}");
    }
}

#[test]
fn a_table_that_is_not_as_the_manifest_counts_it_is_not_published() {
    let folder = tempfile::tempdir().unwrap();
    assert!(night(folder.path(), 20, usize::MAX));
    let output = Output::open(&Place::folder(folder.path()), "nightly", 60).unwrap();
    let run = output.start(date(21)).unwrap();
    let stage = finish(&run, "rank", "f1", &[1, 2]);
    run.publish_table(stage.folder(), "table").unwrap();
    let counted = count(&run.folder().join("table")).unwrap();
    assert_eq!((counted.rows, counted.files), (2, 1));
    let more = TableRecord { rows: 3, ..counted };
    let manifest = |record| Manifest { tables: [("table".to_owned(), record)].into(), ..Manifest::default() };
    match run.publish(&manifest(more)) {
        Err(Error::Broken { problem, .. }) => {
            let expected = format!("expected {more} as the manifest counts; found {counted}");
            assert_eq!(problem.to_string(), expected);
        }
        result => panic!("{result:?}"),
    }
    assert!(!run.folder().join("manifest.json").exists());
    assert_whole(folder.path(), "nightly-2026-11-20-1");
    run.publish(&manifest(counted)).unwrap();
    assert_whole(folder.path(), run.id());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_that_names_the_file_and_publishes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    assert!(night(folder.path(), 20, usize::MAX));
    let output = Output::open(&Place::folder(folder.path()), "nightly", 60).unwrap();
    let run = output.start(date(21)).unwrap();
    for partial in [
        run.folder().join(format!(".manifest.json.{}.partial", run.id())),
        folder.path().join(".CURRENT.nightly.partial"),
    ] {
        std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
        match run.publish(&Manifest::default()) {
            Err(Error::Io { path, source, .. }) => {
                assert_eq!(path, partial);
                assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
            }
            result => panic!("{result:?}"),
        }
        assert_whole(folder.path(), "nightly-2026-11-20-1");
        fs::remove_file(&partial).unwrap();
    }
}

#[test]
fn a_manifest_reads_back_as_it_was_written_and_an_older_one_as_empty() {
    let folder = tempfile::tempdir().unwrap();
    let output = Output::open(&Place::folder(folder.path()), "nightly", 60).unwrap();
    let run = output.start(date(21)).unwrap();
    assert!(read_manifest(&run.folder()).unwrap().is_none());
    let mut manifest = Manifest { run_id: run.id().to_owned(), seed: u64::MAX, ..Manifest::default() };
    manifest.events.rejected.insert("bot".to_owned(), 3);
    manifest.metrics.insert("recall".to_owned(), json!({ "10": 0.25 }));
    let cost = Cost { cpu_ms: 7, ..Cost::default() };
    manifest.stage("rank", "f1", (std::time::Duration::from_millis(12), cost), None);
    run.publish(&manifest).unwrap();
    let first = fs::read(run.folder().join("manifest.json")).unwrap();
    let read = read_manifest(&run.folder()).unwrap().unwrap();
    assert_eq!((read.run_id.as_str(), read.seed, read.stages[0].elapsed_ms), (run.id(), u64::MAX, 12));
    assert_eq!(read.stages[0].cost, cost);
    assert_eq!((read.events.rejected["bot"], &read.metrics["recall"]["10"]), (3, &json!(0.25)));
    assert!(read.build.contains(std::env::consts::ARCH), "{}", read.build);
    run.publish(&read).unwrap();
    assert_eq!(fs::read(run.folder().join("manifest.json")).unwrap(), first);

    fs::write(run.folder().join("manifest.json"), "{\"run_id\": \"old\"}").unwrap();
    let old = read_manifest(&run.folder()).unwrap().unwrap();
    assert_eq!((old.run_id.as_str(), old.build.as_str()), ("old", ""));
    fs::write(run.folder().join("manifest.json"), "{\"run_id\"").unwrap();
    assert!(matches!(read_manifest(&run.folder()), Err(Error::Json { .. })));
}

#[test]
fn fields_of_a_fingerprint_cannot_run_into_each_other() {
    let one = Fingerprint::new("s").add("a", "bc").hex();
    let other = Fingerprint::new("s").add("ab", "c").hex();
    assert_ne!(one, other);
    assert_ne!(Fingerprint::new("s").hex(), Fingerprint::new("t").hex());
    assert_eq!(one, Fingerprint::new("s").add("a", "bc").hex());
    assert_eq!(one.len(), 32);
}

fn write_lists(path: &Path, rows: &[(i64, &str)]) {
    let users: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>());
    let items: ArrayRef = Arc::new(rows.iter().map(|row| Some(row.1)).collect::<arrow::array::StringArray>());
    let rows = RecordBatch::try_from_iter([("user_id", users), ("item_id", items)]).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

#[test]
fn lists_of_two_tables_meet_by_key_whatever_their_buckets() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    write_lists(&one.join("bucket=00/part.parquet"), &[(2, "a"), (2, "b"), (9, "c")]);
    write_lists(&one.join("bucket=01/part.parquet"), &[(1, "d"), (10, "e")]);
    // One list that is longer than a batch of rows.
    let long: Vec<(i64, &str)> = std::iter::repeat_n((2, "x"), 5_000).collect();
    write_lists(&other.join("part.parquet"), &[&long[..], &[(7, "y"), (10, "z")]].concat());
    write_lists(&other.join("empty.parquet"), &[]);
    let open = |folder: &Path| Lists::open(folder, &["user_id"], &["item_id"]).unwrap();
    let sizes: Vec<(Option<usize>, Option<usize>)> = Paired::new(open(&one), open(&other))
        .map(|pair| {
            let (left, right) = pair.unwrap();
            if let (Some(left), Some(right)) = (&left, &right) {
                assert_eq!(left.key, right.key);
            }
            let rows = |list: Option<List>| list.map(|list| list.rows.num_rows());
            (rows(left), rows(right))
        })
        .collect();
    // Users 1, 2, 7, 9 and 10, as numbers go.
    let expected =
        [(Some(1), None), (Some(2), Some(5_000)), (None, Some(1)), (Some(1), None), (Some(1), Some(1))];
    assert_eq!(sizes, expected);
    assert!(Lists::open(&one, &["query"], &["item_id"]).is_err());
}

#[test]
fn going_back_goes_to_the_run_that_was_replaced_and_never_to_one_gone_back_from() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::folder(folder.path());
    let output = Output::open(&place, "nightly", 60).unwrap();
    let publish = |day: u32| {
        let run = output.start(date(day)).unwrap();
        run.publish(&Manifest::default()).unwrap();
        run
    };
    let previous = || previous(&place, "nightly").unwrap().map(|run| run.id);
    let named = |day: u32| Some(format!("nightly-2026-11-{day}-1"));
    publish(18);
    publish(19);
    assert_eq!(previous(), named(18));
    output.make_current("nightly-2026-11-18-1").unwrap();
    assert_eq!(previous(), None);
    let tonight = publish(20);
    assert_eq!(previous(), named(18), "readers never load the 19th again");
    // Nor does it stay in the place of the one to go back to.
    assert_eq!(output.retain(1, &tonight).unwrap(), ["nightly-2026-11-19-1"]);
    output.make_current("nightly-2026-11-18-1").unwrap();
    output.make_current("nightly-2026-11-20-1").unwrap();
    assert_eq!(previous(), named(18));

    // An older version's CURRENT does not say.
    publish(21);
    let mut current: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("CURRENT")).unwrap()).unwrap();
    assert!(current.as_object_mut().unwrap().remove("replaced").is_some());
    fs::write(folder.path().join("CURRENT"), current.to_string()).unwrap();
    assert_eq!(previous(), named(20));
}
