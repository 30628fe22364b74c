//! What is under `jobs/` for schedulers, as far as it can be run here.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::shop::Shop;

/// A shop's folder as an operator would set it up, and the crontab's command run in it.
fn night(shop: &Shop, more: &[(&str, &str)]) -> Output {
    let jobs = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs");
    std::fs::create_dir_all(shop.path("jobs/cron")).expect("a folder");
    std::fs::copy(jobs.join("cron/nightly.sh"), shop.path("jobs/cron/nightly.sh")).expect("the script");
    let job = std::fs::read_to_string(shop.path("job.toml")).expect("the job");
    let job = job.replace("\"data/", "\"../data/").replace("\"out\"", "\"../out\"");
    std::fs::write(shop.path("jobs/nightly.toml"), job).expect("the job");
    let crontab = std::fs::read_to_string(jobs.join("cron/crontab")).expect("the crontab");
    let line = crontab.lines().find(|line| line.starts_with("30 2 * * *")).expect("a night");
    let binary =
        Path::new(env!("CARGO_BIN_EXE_lamplighter")).parent().expect("its folder").display().to_string();
    Command::new("/bin/sh")
        .args(["-c", line.trim_start_matches("30 2 * * *").trim()])
        .env_clear()
        .env("HOME", shop.path(""))
        .env("PATH", format!("{binary}:/usr/bin:/bin"))
        .env("PAUSE", "0")
        .envs(more.iter().copied())
        .output()
        .expect("a shell")
}

#[test]
fn the_crontab_publishes_a_night_tries_again_what_may_help_and_nothing_else() {
    let shop = Shop::new(2_000, 0.0);
    shop.replace("seed = 7", "seed = 7\ndate = \"2026-11-21\"");
    let output = night(&shop, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(shop.current().ends_with("night-2026-11-21-1"));
    let log = || std::fs::read_to_string(shop.path("log/nightly.log")).expect("a log");
    assert!(log().contains("published") && output.stdout.is_empty() && output.stderr.is_empty());

    // A disk that refuses: tried as often as it says, and the log has it all.
    let runs = shop.path("out/runs");
    let old = std::fs::metadata(&runs).expect("runs").permissions();
    std::fs::rename(&runs, shop.path("out/aside")).expect("runs");
    std::fs::write(&runs, "no folder").expect("a file");
    let output = night(&shop, &[("TRIES", "3")]);
    assert_eq!(output.status.code(), Some(1), "{}", log());
    assert_eq!(log().matches("error: ").count(), 3, "{}", log());
    std::fs::remove_file(&runs).expect("the file");
    std::fs::rename(shop.path("out/aside"), &runs).expect("runs");
    assert_eq!(std::fs::metadata(&runs).expect("runs").permissions().mode(), old.mode());

    // A night that was killed has no exit code of its own: here a `lamplighter` that is killed the first time.
    let killed = shop.path("bin/lamplighter");
    std::fs::create_dir_all(killed.parent().expect("a folder")).expect("a folder");
    let real = env!("CARGO_BIN_EXE_lamplighter");
    let script = format!("#!/bin/sh\n[ -e killed ] && exec {real} \"$@\"\ntouch killed\nkill -9 $$\n");
    std::fs::write(&killed, script).expect("a script");
    std::fs::set_permissions(&killed, std::fs::Permissions::from_mode(0o755)).expect("a script");
    let path = format!("{}:/usr/bin:/bin", shop.path("bin").display());
    let output = night(&shop, &[("PATH", &path)]);
    assert_eq!(output.status.code(), Some(0), "{}", log());
    assert!(shop.path("killed").exists() && shop.current().ends_with("night-2026-11-21-2"));

    // What no retry helps is tried once.
    shop.replace("rank = 16", "rnak = 16");
    let output = night(&shop, &[]);
    assert_eq!(output.status.code(), Some(2), "{}", log());
    assert_eq!(log().matches("unknown field `rnak`").count(), 1, "{}", log());
}

#[test]
fn the_image_is_built_from_everything_that_the_package_names() {
    let read = |name: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("a file")
    };
    let dockerfile = read("Dockerfile");
    let copied: Vec<&str> =
        dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")?.split(' ').next()).collect();
    // Every target has a path, or one that cargo infers from its name.
    let package = read("Cargo.toml");
    let mut paths: Vec<&str> =
        package.lines().filter_map(|line| line.strip_prefix("path = \"")?.strip_suffix('"')).collect();
    assert!(package.contains("[[bench]]") && paths.len() > 2, "{paths:?}");
    paths.extend(["src/main.rs", "benches/kernels.rs"]);
    for path in paths {
        let folder = path.split('/').next().expect("a folder");
        assert!(copied.contains(&folder), "the Dockerfile copies no {folder}, where {path} is");
    }
}

#[test]
fn every_scheduler_knows_the_stages_and_the_exit_codes() {
    let read = |name: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs").join(name))
            .expect("a file")
    };
    let dag = read("airflow/lamplighter_nightly.py");
    let stages = dag.lines().find(|line| line.starts_with("STAGES = ")).expect("the stages");
    let mut named: Vec<&str> = stages.split('"').skip(1).step_by(2).collect();
    named.extend(["gate", "publish"]);
    assert_eq!(named, lamplighter::pipeline::STAGES);
    assert!(read("cron/lamplighter-nightly.service").contains("RestartPreventExitStatus=2 3 4"));
    assert!(read("kubernetes/cronjob.yaml").contains("values: [2, 3, 4]"));
    assert!(read("cron/nightly.sh").contains("0 | 2 | 3 | 4) break ;;"));
}
