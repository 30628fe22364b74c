//! A week of nights with growing data and something wrong with each of them. After every night `CURRENT`, the
//! cache and the exit code are what an operator would want, and nothing is cleaned up by hand.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::redis_server::Redis;
use crate::shop::{Shop, command, manifest};
use crate::table::rows;

struct Week {
    shop: Shop,
    redis: Redis,
}

impl Week {
    fn start(&self, day: u32) -> Child {
        command(&["run", "job.toml", "--date", &format!("2026-11-{day}")])
            .current_dir(self.shop.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts")
    }

    /// Runs a night to its end; what it said on stderr.
    #[track_caller]
    fn night(&self, day: u32, code: i32) -> String {
        let output = self.start(day).wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "night {day}: {text}");
        text
    }

    /// What readers load is this run, and it is whole, on disk and in the cache.
    #[track_caller]
    fn readers_have(&self, run_id: &str) {
        let current = self.shop.current();
        assert!(current.ends_with(run_id), "{} for {run_id}", current.display());
        for (table, record) in manifest(&current)["tables"].as_object().expect("tables") {
            assert_eq!(record["rows"], rows(&current.join(table), &[]).len(), "{run_id}: {table}");
        }
        let output = self.shop.lamplighter(&["load", "job.toml", &self.redis.url()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(self.redis.ask::<String>(&["GET", "night:current"]), run_id);
        let users = manifest(&current)["facts"]["rank"]["users"].as_u64().expect("users");
        assert_eq!(self.redis.keys(&format!("{run_id}:u:")) as u64, users);
    }
}

fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).expect("it can be renamed");
}

#[test]
fn a_week_in_which_everything_goes_wrong_once() {
    let mut week = Week { shop: Shop::new(10_000, 0.01), redis: Redis::start(&[]) };
    week.shop.replace("[gate]\nenabled = false", "[behavior]\nlater_events = \"exclude\"");
    week.night(15, 0);
    week.readers_have("night-2026-11-15-1");

    // Half of the days have not been delivered.
    let days: Vec<String> = week.shop.event_files().into_iter().step_by(2).collect();
    for file in &days {
        rename(&week.shop.path(file), &week.shop.path(&format!("{file}.late")));
    }
    let said = week.night(16, 3);
    assert!(said.contains("events: events that count") && said.contains("--accept"), "{said}");
    week.readers_have("night-2026-11-15-1");
    for file in &days {
        rename(&week.shop.path(&format!("{file}.late")), &week.shop.path(file));
    }
    week.night(16, 0);
    week.readers_have("night-2026-11-16-2");

    // A file arrives damaged.
    let file = week.shop.path(&week.shop.event_files()[3]);
    let whole = std::fs::read(&file).expect("a file");
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("half a file");
    let said = week.night(17, 2);
    assert!(said.contains("part-0.parquet") && said.contains("hint:"), "{said}");
    week.readers_have("night-2026-11-16-2");
    std::fs::write(&file, whole).expect("the file again");
    week.night(17, 0);
    week.readers_have("night-2026-11-17-1");

    // The machine goes down twice, each time a little later.
    for pause in [150, 400] {
        let mut night = week.start(18);
        std::thread::sleep(Duration::from_millis(pause));
        night.kill().expect("it can be killed");
        night.wait().expect("it has ended");
        week.readers_have("night-2026-11-17-1");
    }
    week.night(18, 0);
    week.readers_have("night-2026-11-18-1");

    // The disk is full when the night is to be published.
    let full = week.shop.path("out/.CURRENT.night.partial");
    std::os::unix::fs::symlink("/dev/full", &full).expect("a link");
    let said = week.night(19, 1);
    assert!(said.contains("hint: make room"), "{said}");
    week.readers_have("night-2026-11-18-1");
    std::fs::remove_file(&full).expect("the link");
    week.night(19, 0);
    let current = week.shop.current();
    week.readers_have(current.file_name().and_then(|name| name.to_str()).expect("a name"));
    assert_eq!(manifest(&current)["date"], "2026-11-19");

    // Two schedulers start the same night.
    let first = week.start(20);
    let began = Instant::now();
    while !week.shop.path("out/runs/night-2026-11-20-1").exists() {
        assert!(began.elapsed() < Duration::from_secs(20), "the night does not begin");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(week.night(20, 4).contains("another run of this job is working"));
    let output = first.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    week.readers_have("night-2026-11-20-1");

    // The cache is gone when the lists are loaded, and comes back empty.
    week.night(21, 0);
    week.redis.kill();
    let output = week.shop.lamplighter(&["load", "job.toml", &week.redis.url()]);
    assert_eq!(output.status.code(), Some(1));
    week.redis = Redis::start(&[]);
    week.readers_have("night-2026-11-21-1");

    // Every night is there, and nothing else.
    let listed = String::from_utf8(week.shop.lamplighter(&["runs", "job.toml"]).stdout).expect("text");
    assert!(!listed.contains("unfinished"), "{listed}");
    assert_eq!(listed.matches("refused").count(), 1, "{listed}");
    for day in 15..=21 {
        assert!(listed.contains(&format!("2026-11-{day}  published")), "{day} in {listed}");
    }
    let mut open = vec![week.shop.path("out")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            assert!(!path.to_string_lossy().ends_with(".partial"), "{}", path.display());
            if path.is_dir() {
                open.push(path);
            }
        }
    }
}
