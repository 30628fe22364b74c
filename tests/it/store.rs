//! Inputs and output in an object store: a real S3 server, and a network that does what networks do.

use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lamplighter::lake::Access;
use lamplighter::lake::store::{Error, Store};

use crate::s3_server::{Asked, Fault, S3, SECRET, environment, proxy};
use crate::shop::{Shop, command, manifest};
use crate::table::{rows, whole};

const RUN: [&str; 4] = ["run", "job.toml", "--date", "2026-11-21"];

/// A shop whose job reads from and writes to a store, and the store.
fn shop_in(s3: &S3) -> Shop {
    let shop = Shop::new(5_000, 0.01);
    s3.upload(&shop.path("data"), "data");
    shop.replace("output = \"out\"", "output = \"s3://shop/out\"\nwork = \"work\"");
    shop.replace("\"data/events\"", "\"s3://shop/data/events\"");
    shop.replace("\"data/items.parquet\"", "\"s3://shop/data/items.parquet\"");
    shop
}

fn prepared(shop: &Shop, port: u16, args: &[&str]) -> Command {
    let mut command = command(args);
    command.current_dir(shop.path("")).envs(environment(port));
    command
}

fn lamplighter(shop: &Shop, port: u16, args: &[&str]) -> Output {
    prepared(shop, port, args).output().expect("the binary starts")
}

#[track_caller]
fn said(output: &Output, code: i32) -> String {
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains(SECRET), "a secret is told: {text}");
    text
}

/// Every run in the store is in a folder afterwards, and the one that readers load is whole; its folder.
#[track_caller]
fn whole_current(s3: &S3, shop: &Shop, copy: &str) -> std::path::PathBuf {
    let copy = shop.path(copy);
    let _ = std::fs::remove_dir_all(&copy);
    let current = s3.json("out/CURRENT").expect("CURRENT");
    let path = current["path"].as_str().expect("a path").to_owned();
    s3.download(&format!("out/{path}"), &copy.join(&path));
    let run = copy.join(path);
    for (table, record) in manifest(&run)["tables"].as_object().expect("tables") {
        assert_eq!(record["rows"], rows(&run.join(table), &[]).len(), "{table}");
    }
    run
}

#[test]
fn a_job_in_a_store_makes_the_rows_that_it_makes_in_a_folder_and_every_command_reads_them() {
    let s3 = S3::start();
    let shop = Shop::new(5_000, 0.01);
    let folder = shop.run(&[]);
    s3.upload(&shop.path("data"), "data");
    shop.replace("output = \"out\"", "output = \"s3://shop/out\"\nwork = \"work\"");
    shop.replace("\"data/events\"", "\"s3://shop/data/events/*/*.parquet\"");
    shop.replace("\"data/items.parquet\"", "\"s3://shop/data/items.parquet\"");
    let text = said(&lamplighter(&shop, s3.port, &RUN), 0);
    assert!(text.contains("published s3://shop/out/runs/night-2026-11-21-1"), "{text}");
    let run = whole_current(&s3, &shop, "copy");
    let (expected, found) = (manifest(&folder), manifest(&run));
    assert_eq!(found["events"], expected["events"]);
    let tables = expected["tables"].as_object().expect("tables");
    assert!(tables.len() >= 9, "{tables:?}");
    for table in tables.keys() {
        assert_eq!(whole(&run.join(table)), whole(&folder.join(table)), "{table}");
    }
    assert!(found["inputs"][0]["path"].as_str().expect("a path").starts_with("s3://shop/data/events/"));
    assert!(!found["inputs"][0]["etag"].as_str().expect("an etag").is_empty());

    // Another machine has nothing but the job, and sees the same.
    shop.replace("work = \"work\"", "work = \"elsewhere\"");
    let user = rows(&run.join("recommendations"), &["user_id"])[0][0].clone();
    let own =
        rows(&run.join("recommendations"), &["user_id", "item_id"]).into_iter().filter(|row| row[0] == user);
    let own: Vec<String> = own.map(|row| row[1].clone()).collect();
    let looked_up = said(&lamplighter(&shop, s3.port, &["lookup", "job.toml", &user]), 0);
    assert!(own.iter().all(|item| looked_up.contains(&format!("\"item_id\":\"{item}\""))), "{looked_up}");
    let fetched =
        std::fs::read_dir(shop.path("elsewhere")).expect("a mirror").flatten().next().expect("one").path();
    assert_eq!(
        std::fs::read_dir(fetched.join("runs/night-2026-11-21-1/recommendations")).expect("lists").count(),
        1,
        "one bucket is all that a look-up of one user fetches"
    );
    for (args, expected) in [
        (&["runs", "job.toml"][..], "current"),
        (&["show", "user", "job.toml", &user, "-k", "3"], "reason"),
        (&["show", "run", "job.toml"], "recommendations"),
        (&["export", "job.toml", "query_items"], "\"items\":"),
        (&["sql", "job.toml", "SELECT count(*) AS n FROM all_popular_items"], "| n"),
        (&["sql", "job.toml", "SELECT count(*) AS n FROM events"], "| n"),
        (&["check", "job.toml"], "ok"),
        (&["runs", "job.toml", "--pin", "night-2026-11-21-1"], "is kept"),
        (&["report", "job.toml"], "s3://shop/out/runs/night-2026-11-21-1/report.html"),
        (&["run", "job.toml", "--date", "2026-11-22", "--set", "ranking.top_k=10"], "published"),
        (&["diff", "job.toml", "night-2026-11-21-1", "CURRENT"], "night-2026-11-22-1"),
        (&["rollback", "job.toml"], "readers load night-2026-11-21-1 again"),
        (&["forget", "job.toml", &user], "1 of 1 users were found and are forgotten; runs: 2"),
    ] {
        let text = said(&lamplighter(&shop, s3.port, args), 0);
        assert!(text.contains(expected), "{args:?}: {text}");
    }
    assert_eq!(s3.current().as_deref(), Some("night-2026-11-21-1"));
    assert!(s3.get("out/runs/night-2026-11-21-1/pinned").is_some());
    let run = whole_current(&s3, &shop, "copy");
    for table in ["recommendations", "user_profiles", "user_factors"] {
        assert!(rows(&run.join(table), &["user_id"]).iter().all(|row| row[0] != user), "{table}");
    }
    assert!(s3.keys("out/runs/night-2026-11-21-1/stages/behavior").is_empty());
    for key in s3.keys("out/") {
        let bytes = s3.get(&key).expect("an object");
        assert!(!bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "a secret is in {key}");
    }
    assert!(!said(&lamplighter(&shop, s3.port, &["run", "--help"]), 0).contains("127.0.0.1"));
}

#[test]
fn a_night_gets_through_a_network_on_which_everything_goes_wrong_now_and_then() {
    let s3 = S3::start();
    let shop = shop_in(&s3);
    let (asked, broken) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (n, faults) = (asked.clone(), broken.clone());
    let port = proxy(s3.port, move |_: &Asked| {
        // In an order of its own: about every seventh request.
        let lot = n.fetch_add(1, Ordering::Relaxed).wrapping_mul(2_654_435_761) >> 16;
        let fault = match lot % 35 {
            0 => Fault::Status(500),
            1 => Fault::Status(503),
            2 => Fault::DropRequest,
            3 => Fault::DropAnswer,
            4 => Fault::Slow,
            _ => Fault::None,
        };
        faults.fetch_add(u32::from(fault != Fault::None), Ordering::Relaxed);
        fault
    });
    said(&lamplighter(&shop, port, &RUN), 0);
    assert!(
        broken.load(Ordering::Relaxed) > 20,
        "{} of {}",
        broken.load(Ordering::Relaxed),
        asked.load(Ordering::Relaxed)
    );
    let through = whole_current(&s3, &shop, "through");
    shop.replace("s3://shop/out", "s3://shop/undisturbed");
    said(&lamplighter(&shop, s3.port, &RUN), 0);
    s3.download("undisturbed/runs/night-2026-11-21-1", &shop.path("undisturbed"));
    for table in manifest(&through)["tables"].as_object().expect("tables").keys() {
        assert_eq!(whole(&through.join(table)), whole(&shop.path("undisturbed").join(table)), "{table}");
    }
}

#[test]
fn a_put_that_loses_is_said_aloud_and_changes_nothing() {
    let s3 = S3::start();
    let shop = shop_in(&s3);
    said(&lamplighter(&shop, s3.port, &RUN), 0);
    let beaten = |of: &'static str| {
        let once = AtomicBool::new(false);
        proxy(s3.port, move |asked: &Asked| {
            let hit = asked.method == "PUT" && asked.path.ends_with(of);
            if hit && !once.swap(true, Ordering::Relaxed) { Fault::Beaten } else { Fault::None }
        })
    };
    // Somebody has written CURRENT by hand just before us.
    let text = said(&lamplighter(&shop, beaten("/CURRENT"), &RUN), 4);
    assert!(text.contains("s3://shop/out/CURRENT: expected the object that was read before"), "{text}");
    assert_eq!(s3.current().as_deref(), Some("theirs"));
    s3.put("out/CURRENT", br#"{"run_id":"night-2026-11-21-1","path":"runs/night-2026-11-21-1","job":"night","published_at":"2026-11-21T00:00:00Z"}"#);
    // And the lock.
    let text = said(&lamplighter(&shop, beaten("/.night.lock"), &RUN), 4);
    assert!(text.contains("another run of this job is working"), "{text}");
    assert_eq!(s3.current().as_deref(), Some("night-2026-11-21-1"));
    // Whose answer is lost has not lost.
    let once = AtomicBool::new(false);
    let port = proxy(s3.port, move |asked: &Asked| {
        let hit = asked.method == "PUT" && asked.path.ends_with("/CURRENT");
        if hit && !once.swap(true, Ordering::Relaxed) { Fault::DropAnswer } else { Fault::None }
    });
    said(&lamplighter(&shop, port, &RUN), 0);
    whole_current(&s3, &shop, "copy");
}

#[test]
fn a_reader_of_current_never_meets_a_missing_file_while_nights_are_published_and_retired() {
    let s3 = Arc::new(S3::start());
    let shop = shop_in(&s3);
    shop.replace("buckets = 4", "buckets = 4\nkeep_runs = 1");
    said(&lamplighter(&shop, s3.port, &RUN), 0);
    let ended = Arc::new(AtomicBool::new(false));
    let (server, stop) = (s3.clone(), ended.clone());
    let reader = std::thread::spawn(move || {
        let mut seen = std::collections::BTreeSet::new();
        while !stop.load(Ordering::Relaxed) {
            let current = server.json("out/CURRENT").expect("CURRENT is always there");
            let path = format!("out/{}", current["path"].as_str().expect("a path"));
            let manifest = server.json(&format!("{path}/manifest.json")).expect("a manifest");
            for (table, record) in manifest["tables"].as_object().expect("tables") {
                let keys = server.keys(&format!("{path}/{table}/"));
                assert_eq!(record["files"], keys.len(), "{path}: {table}");
            }
            let lists = server.keys(&format!("{path}/recommendations/"));
            assert!(server.get(&lists[0]).expect("a file of a list").ends_with(b"PAR1"));
            seen.insert(path);
        }
        seen
    });
    for day in 22..=24 {
        let date = format!("2026-11-{day}");
        said(&lamplighter(&shop, s3.port, &["run", "job.toml", "--date", &date]), 0);
    }
    ended.store(true, Ordering::Relaxed);
    let seen = reader.join().expect("the reader met nothing that is missing");
    assert!(seen.len() >= 3, "{seen:?}");
    let kept: std::collections::BTreeSet<String> =
        s3.keys("out/runs/").iter().map(|key| key.split('/').nth(2).expect("a run").to_owned()).collect();
    assert_eq!(kept.len(), 2, "the current run and the one before it: {kept:?}");
}

#[test]
fn a_night_killed_on_its_way_up_leaves_current_and_goes_on_here_or_elsewhere() {
    let s3 = S3::start();
    let shop = shop_in(&s3);
    shop.replace("buckets = 4", "buckets = 4\nlease_seconds = 5");
    said(&lamplighter(&shop, s3.port, &RUN), 0);
    let killed = |date: &str| {
        let reached = Arc::new(AtomicBool::new(false));
        let mark = reached.clone();
        let port = proxy(s3.port, move |asked: &Asked| {
            let up = asked.method == "PUT"
                && asked.path.contains("/bucket%3D02/") | asked.path.contains("/bucket=02/");
            if up && !asked.path.contains("/stages/") {
                mark.store(true, Ordering::Relaxed);
                // Until the night is dead.
                std::thread::sleep(Duration::from_secs(2));
                return Fault::DropRequest;
            }
            Fault::None
        });
        let mut night = prepared(&shop, port, &["run", "job.toml", "--date", date])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let began = Instant::now();
        while !reached.load(Ordering::Relaxed) {
            assert!(began.elapsed() < Duration::from_secs(120), "it never gets there");
            std::thread::sleep(Duration::from_millis(5));
        }
        night.kill().expect("it can be killed");
        night.wait().expect("it has ended");
        assert_eq!(s3.current().as_deref(), Some("night-2026-11-21-1"));
        assert!(s3.get(&format!("out/runs/night-{date}-1/manifest.json")).is_none());
    };
    // Here: the mirror knows that its last holder is dead.
    killed("2026-11-22");
    said(&lamplighter(&shop, s3.port, &["run", "job.toml", "--date", "2026-11-22"]), 0);
    let run = whole_current(&s3, &shop, "copy");
    assert!(run.ends_with("night-2026-11-22-1"));
    assert!(
        manifest(&run)["stages"]
            .as_array()
            .expect("stages")
            .iter()
            .all(|stage| stage["reused_from"] != serde_json::Value::Null)
    );

    // Elsewhere: nobody renews the lock, and finished stages come from the store.
    s3.put("out/CURRENT", br#"{"run_id":"night-2026-11-21-1","path":"runs/night-2026-11-21-1","job":"night","published_at":"2026-11-21T00:00:00Z"}"#);
    killed("2026-11-23");
    shop.replace("work = \"work\"", "work = \"elsewhere\"");
    let again = ["run", "job.toml", "--date", "2026-11-23"];
    said(&lamplighter(&shop, s3.port, &again), 0);
    let run = whole_current(&s3, &shop, "copy");
    assert!(run.ends_with("night-2026-11-23-1"));
    let record = manifest(&run);
    let stages = record["stages"].as_array().expect("stages");
    let behavior = stages.iter().find(|stage| stage["name"] == "behavior").expect("a stage");
    assert_eq!(behavior["reused_from"], "night-2026-11-23-1");

    // A holder that lives is found to live, however long it takes.
    let port = proxy(s3.port, |asked: &Asked| {
        if asked.path.contains("/stages/behavior/") {
            std::thread::sleep(Duration::from_secs(3));
        }
        Fault::None
    });
    let mut slow = prepared(&shop, port, &["run", "job.toml", "--date", "2026-11-24"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    while !s3.json("out/.night.lock").is_some_and(|lock| {
        lock["holder"].as_str().expect("a holder").contains(&format!("pid {} ", slow.id()))
    }) {
        std::thread::sleep(Duration::from_millis(20));
    }
    shop.replace("work = \"elsewhere\"", "work = \"third\"");
    let text = said(&lamplighter(&shop, s3.port, &["run", "job.toml", "--date", "2026-11-24"]), 4);
    let expected =
        format!("s3://shop/out/.night.lock: another run of this job is working (pid {}", slow.id());
    assert!(text.contains(&expected), "{text}");
    assert!(slow.wait().expect("it ends").success());
    assert_eq!(s3.current().as_deref(), Some("night-2026-11-24-1"));
}

#[test]
fn a_holder_whose_clock_is_far_behind_keeps_its_lock() {
    let s3 = S3::start();
    let shop = shop_in(&s3);
    let renew = |second: u32| {
        let until = format!("2020-01-01T00:00:{:02}Z", second % 60);
        let lock = format!(r#"{{"holder":"pid 1","mirror":"elsewhere","term_s":4,"until":"{until}"}}"#);
        s3.put("out/.night.lock", lock.as_bytes());
    };
    renew(0);
    let asked = prepared(&shop, s3.port, &RUN).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut asked = asked.expect("the binary starts");
    let mut second = 0;
    while asked.try_wait().expect("its state").is_none() {
        std::thread::sleep(Duration::from_secs(1));
        second += 1;
        renew(second);
        assert!(second < 60, "it never ends");
    }
    let text = said(&asked.wait_with_output().expect("it ends"), 4);
    assert!(text.contains("another run of this job is working (pid 1)"), "{text}");
    // Nobody renews it any more.
    said(&lamplighter(&shop, s3.port, &[&RUN[..], &["--stage", "behavior"]].concat()), 0);
}

#[test]
fn what_cannot_be_used_is_refused_before_any_work_without_telling_secrets() {
    let s3 = S3::start();
    let shop = shop_in(&s3);
    let refused = |set: &str, code: i32, expected: &str| {
        let text = said(&lamplighter(&shop, s3.port, &[&RUN[..], &["--set", set]].concat()), code);
        assert!(text.contains(expected), "{text}");
    };
    refused("output=s3://nowhere/out", 2, "output: cannot list s3://nowhere/out/runs");
    refused("output=ftp://host/out", 2, "found the scheme `ftp`");
    refused(&format!("output=s3://me:{SECRET}@shop/out"), 2, "output: s3://shop/out: expected a URL");
    refused("inputs.items.path=s3://shop/data/none.parquet", 2, "found nothing");
    s3.put("data/broken.parquet", b"no parquet at all");
    refused("inputs.items.path=s3://shop/data/broken.parquet", 2, "its footer cannot be read");
    assert!(s3.keys("out/runs/").is_empty());
}

#[test]
fn the_other_clouds_stores_open_by_their_own_variables_and_name_objects_alike() {
    let access = |variables: &[(&str, &str)]| {
        Access::of(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    };
    let azure = [("AZURE_STORAGE_ACCOUNT_NAME", "shop"), ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")];
    let store = Store::open("az://lists/nightly/", &access(&azure)).expect("a container");
    assert_eq!(store.location("CURRENT"), "az://lists/nightly/CURRENT");
    let store = Store::open("gs://lists", &access(&[("GOOGLE_SKIP_SIGNATURE", "true")])).expect("a bucket");
    assert_eq!(store.location("runs/a b"), "gs://lists/runs/a b");
    // What is missing is said before any request.
    let error = Store::open("az://lists/nightly", &access(&[])).expect_err("no account").to_string();
    assert!(
        error.starts_with("az://lists/nightly: expected a URL as") && error.contains("Account"),
        "{error}"
    );
}

#[test]
fn a_model_in_a_store_is_fetched_once_and_again_where_it_has_changed() {
    let (s3, fetched) = (S3::start(), Arc::new(AtomicU32::new(0)));
    let n = fetched.clone();
    let port = proxy(s3.port, move |asked: &Asked| {
        n.fetch_add(u32::from(asked.method == "GET" && asked.path.contains("/models/")), Ordering::Relaxed);
        Fault::None
    });
    let model = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/all-MiniLM-L6-v2");
    for file in ["config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"] {
        s3.put(&format!("models/mini/{file}"), &std::fs::read(model.join(file)).expect("the model's file"));
    }
    s3.put("models/mini/pytorch_model.bin", b"nobody asks for it");
    let shop = Shop::new(2_000, 0.0);
    let embeddings = |run: &std::path::Path| whole(&run.join("item_embeddings"));
    let from_folder = shop.run(&["--set", &format!("encoder={{model='{}'}}", model.display())]);
    let expected = embeddings(&from_folder);
    shop.write_job("[encoder]\nmodel = \"s3://shop/models/mini\"");
    shop.replace("output = \"out\"", "output = \"out\"\nwork = \"work\"");
    let night = |date: &str| {
        let args = ["run", "job.toml", "--date", date, "--set", "output=fetched"];
        said(&lamplighter(&shop, port, &args), 0);
        (embeddings(&shop.current_of("fetched")), fetched.swap(0, Ordering::Relaxed))
    };
    assert_eq!(night("2026-11-21"), (expected.clone(), 4));
    assert_eq!(night("2026-11-22"), (expected.clone(), 0), "what has not changed is not fetched");
    let config = std::fs::read_to_string(model.join("config.json")).expect("the model's file");
    s3.put("models/mini/config.json", format!("{config}\n").as_bytes());
    assert_eq!(night("2026-11-23"), (expected, 4));
    let folders = std::fs::read_dir(shop.path("work/models")).expect("a folder").count();
    assert_eq!(folders, 1, "the version before has gone");

    let args = |model: &str| {
        ["check".to_owned(), "job.toml".to_owned(), "--set".to_owned(), format!("encoder.model={model}")]
    };
    let refused = |model: &str, port: u16| {
        let args = args(model);
        said(&lamplighter(&shop, port, &args.iter().map(String::as_str).collect::<Vec<_>>()), 2)
    };
    let text = refused("s3://shop/models/none", port);
    assert!(text.contains("encoder: s3://shop/models/none/config.json: expected an object"), "{text}");
    let closed =
        proxy(
            s3.port,
            |asked: &Asked| if asked.path.contains("/models/") { Fault::Status(403) } else { Fault::None },
        );
    let text = refused("s3://shop/models/mini", closed);
    assert!(
        text.contains("encoder: cannot look for s3://shop/models/mini/config.json") && text.contains("AWS_"),
        "{text}"
    );
}

#[test]
fn large_files_go_up_in_parts_and_come_back_as_they_were() {
    let s3 = S3::start();
    let parts = Arc::new(AtomicU32::new(0));
    let n = parts.clone();
    let port = proxy(s3.port, move |asked: &Asked| {
        let part = asked.method == "PUT" && asked.path.contains("uploadId=");
        // The third part breaks once.
        if part && n.fetch_add(1, Ordering::Relaxed) == 2 { Fault::DropRequest } else { Fault::None }
    });
    let store = Store::open("s3://shop/large", &Access::of(environment(port))).expect("a store");
    let folder = tempfile::tempdir().expect("a folder");
    let bytes: Vec<u8> = (0..20_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    std::fs::write(&from, &bytes).expect("a file");
    let sent = store.send(&[(from, "a b/50%=x.bin".to_owned())]).expect("it is sent");
    assert_eq!(sent[0].size, 20_000_000);
    assert_eq!(parts.load(Ordering::Relaxed), 4, "three parts, one of them twice");
    let listed = store.list("").expect("a listing");
    assert_eq!((listed.len(), &listed[0].key, &listed[0].etag), (1, &sent[0].key, &sent[0].etag));
    store.fetch(&[(sent[0].key.clone(), to.clone())]).expect("it is fetched");
    assert!(std::fs::read(to).expect("a file") == bytes);

    let first = store.replace("lock", b"one", None).expect("nobody has it");
    assert!(matches!(store.replace("lock", b"two", None), Err(Error::Lost { .. })));
    store.replace("lock", b"two", Some(&first)).expect("it is still the first");
    assert!(matches!(store.replace("lock", b"three", Some(&first)), Err(Error::Lost { .. })));
    assert_eq!(store.read("lock").expect("it is read").expect("it is there").0, b"two");
    store.remove(&["lock".to_owned(), "never".to_owned()]).expect("both are gone");
    assert!(store.read("lock").expect("it is asked for").is_none());
}
