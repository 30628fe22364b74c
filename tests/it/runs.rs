//! Runs as an operator handles them: listed, compared, pinned, gone back to.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::shop::{Shop, manifest};
use crate::table::{rows, whole};

/// A shop with the nights of the 20th and the 21st.
fn two_nights() -> Shop {
    let shop = Shop::new(5_000, 0.0);
    shop.run_of("2026-11-20", &["--set", "behavior.later_events=exclude"]);
    shop.run(&[]);
    shop
}

#[track_caller]
fn said(shop: &Shop, args: &[&str]) -> String {
    let output = shop.lamplighter(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn refused(shop: &Shop, args: &[&str], code: i32, expected: &str) {
    let output = shop.lamplighter(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(expected), "expected `{expected}` in:\n{text}");
}

#[test]
fn going_back_switches_to_a_whole_run_and_to_no_other() {
    let shop = two_nights();
    let lists = said(&shop, &["runs", "job.toml"]);
    let lines: Vec<&str> = lists.lines().collect();
    assert!(lines[0].starts_with("run ") && lines[0].contains("ndcg@10"), "{lists}");
    assert!(
        lines[1].starts_with("night-2026-11-21-1") && lines[1].contains("published   current"),
        "{lists}"
    );
    assert!(lines[2].starts_with("night-2026-11-20-1") && !lines[2].contains("current"), "{lists}");

    assert_eq!(
        said(&shop, &["rollback", "job.toml"]),
        "readers load night-2026-11-20-1 again; before it was night-2026-11-21-1, which stays under runs/\na cache follows with `lamplighter load`\n"
    );
    assert_eq!(
        said(&shop, &["rollback", "job.toml", "night-2026-11-20-1"]),
        "readers load night-2026-11-20-1, as before\n"
    );
    assert!(shop.current().ends_with("night-2026-11-20-1"));
    refused(&shop, &["rollback", "job.toml"], 2, "no run was published before night-2026-11-20-1");
    refused(&shop, &["rollback", "job.toml", "night-2026-11-19-1"], 2, "has no run night-2026-11-19-1");
    said(&shop, &["rollback", "job.toml", "night-2026-11-21-1"]);
    assert!(shop.current().ends_with("night-2026-11-21-1"));

    // A CURRENT that cannot be read says so, and is written anew.
    std::fs::write(shop.path("out/CURRENT"), "{\"run_id\": ").expect("a file");
    refused(&shop, &["runs", "job.toml"], 1, "rollback JOB RUN");
    assert!(said(&shop, &["rollback", "job.toml", "night-2026-11-21-1"]).contains("before it was none"));
    assert!(shop.current().ends_with("night-2026-11-21-1"));

    // A run that has lost rows is not gone back to.
    let damaged = shop.path("out/runs/night-2026-11-20-1/popular_items/part.parquet");
    std::fs::remove_file(damaged).expect("a file");
    refused(&shop, &["rollback", "job.toml"], 1, "as the manifest counts");
    assert!(shop.current().ends_with("night-2026-11-21-1"));
    // Nor one that never ended.
    assert!(
        shop.lamplighter(&["run", "job.toml", "--date", "2026-11-22", "--stage", "behavior"])
            .status
            .success()
    );
    assert!(said(&shop, &["runs", "job.toml"]).contains("unfinished"));
    refused(&shop, &["rollback", "job.toml", "night-2026-11-22-1"], 1, "is not complete");
}

#[test]
fn a_pinned_run_is_marked_until_it_is_unpinned() {
    let shop = two_nights();
    said(&shop, &["runs", "job.toml", "--pin", "night-2026-11-20-1"]);
    assert!(said(&shop, &["runs", "job.toml"]).contains("pinned  "));
    let asked =
        ["sql", "job.toml", "SELECT run_id FROM runs WHERE pinned AND state = 'published' AND n_rows > 0"];
    assert!(said(&shop, &asked).contains("night-2026-11-20-1"));
    said(&shop, &["runs", "job.toml", "--unpin", "night-2026-11-20-1"]);
    assert!(!said(&shop, &asked).contains("night-2026-11-20-1"));
    refused(&shop, &["runs", "job.toml", "--pin", "night-2026-1-1"], 2, "has no run");
}

#[test]
fn a_comparison_says_whose_lists_changed_and_why() {
    let shop = two_nights();
    let nothing = said(&shop, &["diff", "job.toml", "CURRENT", "night-2026-11-21-1"]);
    assert!(nothing.contains("made anew  none") && nothing.contains("mean 1.000"), "{nothing}");
    assert!(!nothing.contains("changed because"), "{nothing}");

    let day = said(&shop, &["diff", "job.toml", "night-2026-11-20-1", "CURRENT", "-n", "3"]);
    assert!(day.contains("made anew  behavior, catalog"), "{day}");
    assert!(day.contains("+ later_events") || day.contains("- later_events"), "{day}");
    assert!(day.contains("changed because of: ") && day.contains("new or fewer events"), "{day}");
    assert!(day.contains(" new events") && day.matches("\n  user ").count() == 3, "{day}");
    assert!(day.matches("\n  item ").count() == 3, "{day}");
    // As many users as either has lists.
    let users = manifest(&shop.current())["facts"]["rank"]["users"].as_u64().expect("users");
    let both: u64 = day
        .lines()
        .find_map(|line| line.strip_prefix("users: "))
        .and_then(|line| line.split(' ').next().and_then(|count| count.parse().ok()))
        .expect("a count");
    assert!(both <= users && both > users / 2, "{both} of {users}");

    // The same night with a rule, and with fewer items.
    shop.write_job(
        "[ranking.rules]\nmax_per_category = 1\n[catalog]\neligible = \"in_stock AND item_id NOT LIKE '%7'\"",
    );
    shop.run(&[]);
    let ruled = said(&shop, &["diff", "job.toml", "night-2026-11-21-1", "CURRENT"]);
    assert!(ruled.contains("+ max_per_category = 1"), "{ruled}");
    assert!(ruled.contains("items gone") && ruled.contains("may not be listed any more"), "{ruled}");
    assert!(ruled.contains("rules "), "{ruled}");
}

#[test]
fn a_night_that_builds_on_another_has_the_rows_of_one_from_scratch() {
    let shop = two_nights();
    let fresh = shop.run(&["--set", "output=fresh"]);
    for table in
        ["recommendations", "similar_items", "query_items", "popular_items", "user_profiles", "metrics"]
    {
        assert_eq!(whole(&shop.current().join(table)), whole(&fresh.join(table)), "{table}");
    }
}

#[test]
fn a_reader_that_follows_current_never_meets_a_missing_file() {
    let shop = Shop::new(2_000, 0.0);
    let keep = ["--set", "publish.keep_runs=1"];
    shop.run(&keep);
    let over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !over.load(Ordering::Relaxed) {
                let run = shop.current();
                let tables = manifest(&run)["tables"].clone();
                assert_eq!(rows(&run.join("recommendations"), &[]).len(), tables["recommendations"]["rows"]);
                seen.insert(run);
            }
            seen
        });
        for day in 22..26 {
            shop.run_of(&format!("2026-11-{day}"), &keep);
        }
        over.store(true, Ordering::Relaxed);
        reader.join().expect("a reader that never failed")
    });
    assert!(seen.len() >= 4, "{seen:?}");
    // All but the current run and the one before it are gone.
    assert_eq!(std::fs::read_dir(shop.path("out/runs")).expect("runs").count(), 2);
}
