//! The gate: what it refuses, what it says, and how a night gets past it.

use std::path::PathBuf;

use arrow::array::BooleanArray;

use crate::shop::{Shop, manifest};
use crate::table::rows;

fn guarded_shop() -> Shop {
    let shop = Shop::new(5_000, 0.0);
    shop.replace("[gate]\nenabled = false", "");
    shop
}

/// Runs a night; its exit code and what it said on stderr.
fn night(shop: &Shop, date: &str, more: &[&str]) -> (Option<i32>, String) {
    let mut args = vec!["run", "job.toml", "--date", date];
    args.extend(more);
    let output = shop.lamplighter(&args);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn run_folder(shop: &Shop, id: &str) -> PathBuf {
    shop.path("out/runs").join(id)
}

fn lose_half_of_the_events(shop: &Shop) {
    for file in shop.event_files() {
        shop.rewrite(&file, |rows| {
            let keep: BooleanArray = (0..rows.num_rows()).map(|row| Some(row % 2 == 0)).collect();
            arrow::compute::filter_record_batch(&rows, &keep).expect("fewer rows")
        });
    }
}

#[test]
fn half_a_night_is_refused_kept_for_inspection_and_published_only_when_told_to() {
    let shop = guarded_shop();
    assert_eq!(night(&shop, "2026-11-21", &[]).0, Some(0));
    assert_eq!(manifest(&shop.current())["gate"]["compared_with"], serde_json::Value::Null);
    // The same night again is let through, and compared.
    let (code, said) = night(&shop, "2026-11-21", &[]);
    assert_eq!(code, Some(0), "{said}");
    let second = manifest(&shop.current());
    assert_eq!(second["gate"]["compared_with"], "night-2026-11-21-1");
    let compared = &second["facts"]["gate"]["compared"];
    assert_eq!((&compared["overlap"], compared["users"].as_u64() > Some(100)), (&1.0.into(), true));
    assert!(second["gate"]["findings"].as_array().expect("findings").len() > 10);

    lose_half_of_the_events(&shop);
    let (code, said) = night(&shop, "2026-11-22", &[]);
    assert_eq!(code, Some(3), "{said}");
    for part in [
        "run night-2026-11-22-1 is complete but not published",
        "compared with night-2026-11-21-2",
        "events: events that count 25",
        ", before 5000; expected at least 4000 (gate.max_events_drop = 0.2)",
        "hint:",
        "lamplighter run JOB --accept",
    ] {
        assert!(said.contains(part), "expected `{part}` in:\n{said}");
    }
    assert!(shop.current().ends_with("night-2026-11-21-2"), "readers load yesterday's lists");
    let refused = run_folder(&shop, "night-2026-11-22-1");
    let record = manifest(&refused);
    assert_eq!(record["state"], "refused");
    assert_eq!(
        record["tables"]["recommendations"]["rows"],
        rows(&refused.join("recommendations"), &[]).len()
    );

    // Another limit's name does not help; its own does not either while others are broken; all does.
    assert_eq!(night(&shop, "2026-11-22", &["--accept", "drift"]).0, Some(3));
    let (code, said) = night(&shop, "2026-11-22", &["--accept"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the gate let through events: "), "{said}");
    let accepted = manifest(&shop.current());
    assert_eq!(
        (&accepted["run_id"], &accepted["state"]),
        (&"night-2026-11-22-3".into(), &"published".into())
    );
    // From here on this is what nights look like.
    assert_eq!(night(&shop, "2026-11-23", &["--accept", "volume"]).0, Some(0));
    assert_eq!(night(&shop, "2026-11-23", &["--accept", "nothing"]).0, Some(2));
}

#[test]
fn a_run_stopped_at_the_gate_is_refused_there_and_a_first_night_has_absolute_limits() {
    let shop = guarded_shop();
    let (code, said) = night(&shop, "2026-11-21", &["--stage", "gate", "--set", "gate.min_users=100000"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("expected at least 100000 (gate.min_users = 100000)"), "{said}");
    assert!(!shop.path("out/CURRENT").exists());
    assert_eq!(manifest(&run_folder(&shop, "night-2026-11-21-1"))["state"], "refused");
    assert_eq!(night(&shop, "2026-11-21", &["--stage", "gate"]).0, Some(0));
    assert!(!shop.path("out/CURRENT").exists(), "to publish is another stage's task");
    assert_eq!(night(&shop, "2026-11-21", &[]).0, Some(0));
    assert!(shop.current().ends_with("night-2026-11-21-2"));
    // The line that an alert looks for is a line as all others.
    let refused = ["--set", "gate.min_users=100000", "--log-format", "json"];
    let (_, said) = night(&shop, "2026-11-21", &refused);
    let last: serde_json::Value = serde_json::from_str(said.lines().last().expect("lines")).expect("JSON");
    assert_eq!((&last["level"], &last["fields"]["exit_code"]), (&"ERROR".into(), &3.into()));
    assert_eq!(last["span"]["id"], "night-2026-11-21-3");
    let (code, said) = night(&shop, "2026-11-21", &["--set", "gate.max_day_drop=1.5"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("a share from 0 to 1; found 1.5"), "{said}");
}

#[test]
fn a_backfilled_night_does_not_take_the_place_of_a_later_one() {
    let shop = guarded_shop();
    let earlier = ["--set", "behavior.later_events=exclude"];
    assert_eq!(night(&shop, "2026-11-21", &[]).0, Some(0));
    let (code, said) = night(&shop, "2026-11-15", &earlier);
    assert_eq!(code, Some(0), "{said}");
    assert!(shop.current().ends_with("night-2026-11-21-1"));
    let held = manifest(&run_folder(&shop, "night-2026-11-15-1"));
    assert_eq!(held["state"], "held");
    assert_eq!(held["gate"]["compared_with"], serde_json::Value::Null, "later nights are no measure");
    // However few runs are kept, and however many later nights there are, what was just made stays.
    let few = [&earlier[..], &["--set", "publish.keep_runs=1"]].concat();
    assert_eq!(night(&shop, "2026-11-14", &few).0, Some(0));
    assert!(run_folder(&shop, "night-2026-11-14-1").join("manifest.json").exists());
    let (code, said) = night(&shop, "2026-11-16", &[&earlier[..], &["--make-current"]].concat());
    assert_eq!(code, Some(0), "{said}");
    assert!(shop.current().ends_with("night-2026-11-16-1"));
    assert_eq!(manifest(&shop.current())["gate"]["compared_with"], "night-2026-11-15-1");
}

#[test]
fn a_second_scheduler_finds_the_lock_taken() {
    let shop = guarded_shop();
    assert_eq!(night(&shop, "2026-11-21", &["--stage", "behavior"]).0, Some(0));
    let lock =
        std::fs::File::options().read(true).write(true).open(shop.path("out/.night.lock")).expect("the lock");
    lock.lock().expect("nobody holds it");
    let (code, said) = night(&shop, "2026-11-21", &[]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("another run of this job is working") && said.contains("hint:"), "{said}");
    drop(lock);
    assert_eq!(night(&shop, "2026-11-21", &[]).0, Some(0));
}

#[test]
fn old_runs_go_and_pinned_ones_stay() {
    let shop = guarded_shop();
    let keep = ["--set", "publish.keep_runs=2"];
    let names = || -> Vec<String> {
        let runs = std::fs::read_dir(shop.path("out/runs")).expect("runs");
        let mut names: Vec<String> =
            runs.map(|run| run.expect("a run").file_name().into_string().expect("a name")).collect();
        names.sort();
        names
    };
    let publish = |day: u32| {
        let date = format!("2026-11-{day}");
        assert_eq!(night(&shop, &date, &[&keep[..], &["--accept"]].concat()).0, Some(0));
    };
    publish(21);
    std::fs::write(run_folder(&shop, "night-2026-11-21-1").join("pinned"), "").expect("a pin");
    (22..=24).for_each(publish);
    assert_eq!(names(), ["21-1", "23-1", "24-1"].map(|run| format!("night-2026-11-{run}")));
    // A night that is run again pushes no other one out, nor do nights that are refused, of which few are kept.
    publish(24);
    for _ in 0..4 {
        let refused = [&keep[..], &["--set", "gate.min_users=100000"]].concat();
        assert_eq!(night(&shop, "2026-11-24", &refused).0, Some(3));
    }
    assert_eq!(
        names(),
        ["21-1", "23-1", "24-1", "24-2", "24-5", "24-6"].map(|run| format!("night-2026-11-{run}"))
    );
    assert!(shop.current().ends_with("night-2026-11-24-2"));
    // What stages were taken over from a run that is gone is whole.
    let current = shop.current();
    assert_eq!(
        manifest(&current)["tables"]["recommendations"]["rows"],
        rows(&current.join("recommendations"), &[]).len()
    );
}

#[test]
fn a_damaged_run_in_current_does_not_keep_later_ones_from_being_published() {
    let shop = guarded_shop();
    assert_eq!(night(&shop, "2026-11-21", &[]).0, Some(0));
    let file = shop.current().join("recommendations/bucket=00/part.parquet");
    std::fs::write(&file, "no Parquet").expect("a file");
    let (code, said) = night(&shop, "2026-11-21", &["--set", "ranking.top_k=19", "--log-format", "json"]);
    assert_eq!(code, Some(0), "{said}");
    let unread = "the gate compares no rows with run night-2026-11-21-1";
    assert!(said.contains(unread), "{said}");
    // Every line of the log says which run it is of.
    for line in said.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["span"]["id"], "night-2026-11-21-2", "{line}");
    }
    assert!(shop.current().ends_with("night-2026-11-21-2"));

    // Stage by stage, the manifest says so too.
    std::fs::write(shop.current().join("recommendations/bucket=00/part.parquet"), "no Parquet")
        .expect("a file");
    assert_eq!(night(&shop, "2026-11-21", &["--stage", "gate"]).0, Some(0));
    assert_eq!(night(&shop, "2026-11-21", &["--stage", "publish"]).0, Some(0));
    let warnings = manifest(&shop.current())["warnings"].to_string();
    assert!(warnings.contains(&unread.replace("21-1", "21-2")), "{warnings}");
}

#[test]
fn a_model_whose_scores_are_all_larger_is_no_reason_to_refuse_a_night() {
    let shop = guarded_shop();
    assert_eq!(night(&shop, "2026-11-21", &[]).0, Some(0));
    let scores = |run: PathBuf| rows(&run.join("recommendations"), &["score"]);
    let before = scores(shop.current());
    let weights = "ranking.weights={ factors = 5.0, popularity = 0.5, history = 2.5 }";
    let (code, said) = night(&shop, "2026-11-21", &["--set", weights]);
    assert_eq!(code, Some(0), "{said}");
    let after = scores(shop.current());
    let number = |row: &Vec<String>| row[0].parse::<f64>().expect("a score");
    assert!((number(&after[0]) / number(&before[0]) - 5.0).abs() < 0.01, "{:?}", (&before[0], &after[0]));
    let judged = manifest(&shop.current())["gate"].clone();
    assert_eq!(judged["compared_with"], "night-2026-11-21-1");
    let findings = judged["findings"].as_array().expect("findings").iter();
    let psi = findings.clone().find(|finding| finding["name"] == "scores").expect("scores are compared");
    assert!(psi["value"].as_f64().expect("a number") < 1e-3, "{psi}");
}

#[test]
fn damaged_records_of_earlier_nights_keep_no_later_one_from_being_made() {
    let shop = guarded_shop();
    assert_eq!(night(&shop, "2026-11-20", &["--set", "behavior.later_events=exclude"]).0, Some(0));
    assert_eq!(night(&shop, "2026-11-21", &[]).0, Some(0));
    let damage = |run: &str| {
        std::fs::write(run_folder(&shop, run).join("manifest.json"), "{\"run_id\": ").expect("a file");
    };
    let said = |args: &[&str], code: i32| -> String {
        let output = shop.lamplighter(args);
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{text}");
        text
    };
    damage("night-2026-11-21-1");
    let runs = said(&["runs", "job.toml"], 0);
    assert!(runs.contains("damaged     current") && runs.contains("published  "), "{runs}");
    said(&["rollback", "job.toml", "night-2026-11-20-1"], 0);
    assert!(shop.current().ends_with("night-2026-11-20-1"));
    let states = said(&["sql", "job.toml", "SELECT state FROM runs ORDER BY run_id", "--format", "csv"], 0);
    assert_eq!(states, "state\npublished\ndamaged\n");
    assert!(said(&["rollback", "job.toml", "night-2026-11-21-1"], 1).contains("21-1/manifest.json"));
    assert!(said(&["show", "run", "job.toml", "night-2026-11-21-1"], 1).contains("none that can be read"));

    damage("night-2026-11-20-1");
    let (code, told) = night(&shop, "2026-11-22", &[]);
    assert_eq!(code, Some(0), "{told}");
    for run in ["night-2026-11-20-1", "night-2026-11-21-1"] {
        assert!(told.contains(&format!("the gate compares nothing with run {run}: ")), "{told}");
    }
    assert!(shop.current().ends_with("night-2026-11-22-1"));
    assert_eq!(manifest(&shop.current())["gate"]["compared_with"], serde_json::Value::Null);
}
