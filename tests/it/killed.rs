//! A night that is killed without warning, again and again.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::shop::{Shop, command, manifest};
use crate::table::whole;

const RUN: [&str; 4] = ["run", "job.toml", "--date", "2026-11-21"];

#[test]
fn a_killed_night_goes_on_and_ends_with_the_rows_of_an_unbroken_one() {
    let shop = Shop::new(10_000, 0.01);
    let began = Instant::now();
    let unbroken = shop.run(&["--set", "output=unbroken"]);
    let whole_night = began.elapsed();
    assert!(unbroken.starts_with(shop.path("unbroken")));

    // Each attempt gets a little further than the one before, and dies at another moment.
    let mut stages_seen = BTreeSet::new();
    let mut attempts = 0;
    loop {
        attempts += 1;
        assert!(attempts < 200, "the night never ends");
        let mut night = command(&RUN)
            .current_dir(shop.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        std::thread::sleep(whole_night.mul_f64(0.02 + 0.018 * f64::from(attempts)));
        let ended = night.try_wait().expect("its state").is_some();
        if !ended {
            night.kill().expect("it can be killed");
        }
        night.wait().expect("it has ended");
        for entry in std::fs::read_dir(shop.path("out/runs")).into_iter().flatten().flatten() {
            for stage in std::fs::read_dir(entry.path().join("stages")).into_iter().flatten().flatten() {
                stages_seen.insert(stage.file_name());
            }
        }
        if shop.path("out/CURRENT").exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(attempts > 3 && stages_seen.len() > 5, "{attempts} attempts, stages {stages_seen:?}");

    let resumed = shop.current();
    assert!(resumed.ends_with("night-2026-11-21-1"), "one run, resumed: {}", resumed.display());
    let (expected, found) = (manifest(&unbroken), manifest(&resumed));
    assert_eq!(found["tables"], expected["tables"]);
    assert_eq!(found["events"], expected["events"]);
    for table in expected["tables"].as_object().expect("tables").keys() {
        assert_eq!(whole(&resumed.join(table)), whole(&unbroken.join(table)), "{table}");
    }
}
