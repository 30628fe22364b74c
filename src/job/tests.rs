use super::*;

const JOB: &str = r#"
name = "nightly"
output = "../out"
seed = 42

[inputs.events]
path = "../data/events.parquet"
columns = { user_id = "household_id" }

[factors]
rank = 32
"#;

fn load_text(text: &str, sets: &[&str]) -> Result<Job, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job.toml");
    std::fs::write(&path, text).unwrap();
    load(&path, &[], &sets.iter().map(|set| (*set).to_owned()).collect::<Vec<_>>())
}

#[track_caller]
fn refused(text: &str, sets: &[&str], expected: &str) {
    let message = load_text(text, sets).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(message.contains(expected), "expected `{expected}` in:\n{message}");
}

#[test]
fn paths_are_relative_to_the_job_file() {
    let job = load_text(JOB, &[]).unwrap();
    let folder = job.path.parent().unwrap();
    assert_eq!(job.spec.output, folder.join("../out"));
    assert_eq!(job.spec.inputs.events.paths(), [folder.join("../data/events.parquet").to_str().unwrap()]);
    assert_eq!(job.spec.factors.rank, Some(32));
}

#[test]
fn a_set_overrides_a_key_and_makes_missing_tables() {
    let sets = ["factors.rank=8", "ranking.exclude_seen=true", "output=elsewhere", "publish.buckets=2"];
    let job = load_text(JOB, &sets).unwrap();
    assert_eq!(job.spec.factors.rank, Some(8));
    assert!(job.spec.ranking.exclude_seen);
    assert!(job.spec.output.ends_with("elsewhere"));
    assert_eq!(job.spec.publish.buckets.0, 2);
}

#[test]
fn a_date_is_a_string_or_tomls_own() {
    let day = chrono::NaiveDate::from_ymd_opt(2026, 11, 21);
    let dated = JOB.replace("seed = 42", "seed = 42\ndate = 2026-11-21");
    for (text, sets) in
        [(JOB, &["date=2026-11-21"][..]), (JOB, &["date='2026-11-21'"]), (&dated, &[]), (&dated, &["seed=1"])]
    {
        assert_eq!(load_text(text, sets).unwrap().spec.date.map(|date| date.0), day, "{sets:?}");
    }
    refused(JOB, &["date=2026-11-21T08:00:00Z"], "expected a date YYYY-MM-DD; found `2026-11-21T08:00:00Z`");
}

#[test]
fn mistakes_are_shown_with_their_line() {
    refused(&JOB.replace("rank = 32", "rnak = 32"), &[], "rnak = 32");
    refused(&JOB.replace("rank = 32", "rnak = 32"), &[], "unknown field `rnak`");
    refused(&JOB.replace("seed = 42", "seed = \"x\""), &[], "seed = \"x\"");
    refused(&JOB.replace("seed = 42\n", ""), &[], "missing field `seed`");
    refused(&JOB.replace("\"nightly\"", "\"Night ly\""), &[], "expected a name");
    refused(&JOB.replace("rank = 32", "rank = = 32"), &[], "rank = = 32");
    refused(&format!("{JOB}\n[publish]\nbuckets = 0\n"), &[], "expected 1 to 1000 buckets");
    refused(JOB, &["factors.rank"], "found no `=`");
    refused(JOB, &["ranking.without=['stroll']"], "expected sources among factors, content");
    refused(JOB, &["seed.deeper=1"], "`seed` is not a table");
    refused(JOB, &["factors.speed=1"], "unknown field `speed`");
}

#[test]
fn a_job_file_that_is_not_there_is_named() {
    let message = load(Path::new("nowhere/job.toml"), &[], &[]).unwrap_err().to_string();
    assert_eq!(message, "cannot read the job file nowhere/job.toml");
}
