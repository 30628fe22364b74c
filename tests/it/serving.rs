//! Lists on their way to those who serve them: a real Redis, a look-up, JSON lines.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::redis_server::Redis;
use crate::shop::{Shop, command, manifest};
use crate::table::rows;

#[track_caller]
fn load(shop: &Shop, url: &str, more: &[&str]) -> String {
    let output = shop.lamplighter(&[&["load", "job.toml", url], more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn load_fails(shop: &Shop, url: &str, more: &[&str]) -> String {
    let output = shop.lamplighter(&[&["load", "job.toml", url], more].concat());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}

/// Users' items, best first, as the tables have them.
fn lists(run: &Path) -> BTreeMap<String, Vec<String>> {
    let mut lists: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows(&run.join("recommendations"), &["user_id", "item_id"]) {
        lists.entry(row[0].clone()).or_default().push(row[1].clone());
    }
    lists
}

#[track_caller]
fn assert_loaded(redis: &Redis, run: &Path) {
    let id = run.file_name().and_then(|name| name.to_str()).expect("a name");
    assert_eq!(redis.ask::<String>(&["GET", "night:current"]), id);
    let lists = lists(run);
    for (user, items) in &lists {
        let value: String = redis.ask(&["GET", &format!("{id}:u:{user}")]);
        let found: Vec<String> = serde_json::from_str(&value).expect("a JSON array");
        assert_eq!(&found, items, "{user}");
    }
    assert_eq!(redis.keys(&format!("{id}:u:")), lists.len());
    let ttl: i64 = redis.ask(&["TTL", &format!("{id}:u:{}", lists.keys().next().expect("a user"))]);
    assert!(ttl > 6 * 86_400 && ttl <= 7 * 86_400, "{ttl}");
}

#[test]
fn every_list_is_in_the_cache_before_readers_are_switched_and_old_ones_go() {
    let (shop, redis) = (Shop::new(5_000, 0.0), Redis::start(&[]));
    let first = shop.run(&[]);
    let said = load(&shop, &redis.url(), &[]);
    assert!(said.contains("night:current names night-2026-11-21-1; before it named nothing"), "{said}");
    assert_loaded(&redis, &first);
    let kinds = manifest(&first)["tables"].clone();
    assert!(kinds["similar_items"]["rows"].as_u64() > Some(0));
    let item = rows(&first.join("similar_items"), &["item_id", "relation", "similar_item_id"])[0].clone();
    let value: String = redis.ask(&["GET", &format!("night-2026-11-21-1:i:{}:{}", item[1], item[0])]);
    assert!(value.starts_with(&format!("[\"{}\"", item[2])), "{value}");
    assert!(redis.keys("night-2026-11-21-1:q:") > 10 && redis.keys("night-2026-11-21-1:p:") > 1);

    // Once more: all is there, nothing is written, and it stays as long as if it had been.
    for key in redis.ask::<Vec<String>>(&["KEYS", "night-2026-11-21-1:u:*"]) {
        redis.ask::<u64>(&["EXPIRE", &key, "100"]);
    }
    let again = load(&shop, &redis.url(), &[]);
    assert!(again.contains("0.0 MiB of values"), "{again}");
    assert_loaded(&redis, &first);

    // With none they stay, those too that were to go.
    load(&shop, &redis.url(), &["--set", "cache.ttl_hours=0"]);
    for key in redis.ask::<Vec<String>>(&["KEYS", "night-2026-11-21-1:*"]) {
        assert_eq!(redis.ask::<i64>(&["TTL", &key]), -1, "{key}");
    }

    shop.run(&["--set", "ranking.top_k=7"]);
    load(&shop, &redis.url(), &["--set", "cache.batch=7"]);
    assert_eq!(redis.ask::<String>(&["GET", "night:previous"]), "night-2026-11-21-1");
    assert!(
        redis.keys("night-2026-11-21-1:u:") > 100,
        "readers that have begun with the old lists end with them"
    );
    let third = shop.run(&["--set", "ranking.top_k=9"]);
    let said = load(&shop, &redis.url(), &[]);
    assert!(said.contains("removed night-2026-11-21-1"), "{said}");
    assert_loaded(&redis, &third);
    assert_eq!(redis.keys("night-2026-11-21-1:"), 0);

    // Back to the night before, whose lists are still there.
    let back = load(&shop, &redis.url(), &["--run", "night-2026-11-21-2"]);
    assert!(back.contains("0.0 MiB of values"), "{back}");
    assert_loaded(&redis, &shop.path("out/runs/night-2026-11-21-2"));
}

#[test]
fn a_load_that_was_killed_goes_on_and_lists_that_were_lost_are_noticed() {
    let (shop, redis) = (Shop::new(5_000, 0.0), Redis::start(&[]));
    let run = shop.run(&[]);
    let url = redis.url();
    let mut slow = command(&["load", "job.toml", &url, "--rate", "100", "--set", "cache.batch=10"])
        .current_dir(shop.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let began = Instant::now();
    while redis.keys("night-2026-11-21-1:u:") < 40 {
        assert!(began.elapsed() < Duration::from_secs(20), "nothing is loaded");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(began.elapsed() > Duration::from_millis(250), "40 lists at 100 a second");
    slow.kill().expect("it can be killed");
    slow.wait().expect("it has ended");
    assert_eq!(redis.ask::<Option<String>>(&["GET", "night:current"]), None);
    let there: u64 = redis.ask(&["HGET", "night-2026-11-21-1:meta", "u"]);
    let said = load(&shop, &url, &[]);
    assert!(said.contains(&format!("; {there} were there before")) && there >= 30, "{said}");
    assert_loaded(&redis, &run);

    let user = lists(&run).keys().next().expect("a user").clone();
    redis.ask::<u64>(&["DEL", &format!("night-2026-11-21-1:u:{user}")]);
    let text = load_fails(&shop, &url, &[]);
    let n_users = lists(&run).len();
    assert!(
        text.contains(&format!("recommendations: expected {n_users} lists; found {}", n_users - 1)),
        "{text}"
    );
    assert!(load(&shop, &url, &[]).contains("; 0 were there before"));
    assert_loaded(&redis, &run);
    // A run of the same name is another once the output was removed.
    std::fs::remove_dir_all(shop.path("out")).expect("the output");
    let run = shop.run(&["--set", "ranking.weights={ popularity = 1.0 }"]);
    assert!(run.ends_with("night-2026-11-21-1"));
    assert!(load(&shop, &url, &[]).contains("; 0 were there before"));
    assert_loaded(&redis, &run);
    // Readers meet another layout with another run.
    let scores = ["--set", "cache.scores=true"];
    let refused = shop.lamplighter(&[&["load", "job.toml", &url], &scores[..]].concat());
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && text.contains("is loaded as `ids`"), "{text}");
    shop.run(&[]);
    load(&shop, &url, &scores);
    let value: String = redis.ask(&["GET", &format!("night-2026-11-21-2:u:{user}")]);
    let both: Vec<Vec<serde_json::Value>> = serde_json::from_str(&value).expect("two arrays");
    assert_eq!((both.len(), both[0].len()), (2, both[1].len()));
    assert!(both[1][0].as_f64() >= both[1][1].as_f64());
}

#[test]
fn a_redis_that_is_down_switches_nothing_and_secrets_are_not_said() {
    let shop = Shop::new(2_000, 0.0);
    let first = shop.run(&[]);
    let mut redis = Redis::start(&["--requirepass", "lamp-secret"]);
    let url = format!("redis://:lamp-secret@127.0.0.1:{}/0", redis.port);
    load(&shop, &url, &[]);
    let wrong = load_fails(&shop, &url.replace("lamp-secret", "lamp-guess"), &[]);
    assert!(wrong.contains("cannot connect") && !wrong.contains("lamp-guess"), "{wrong}");
    let client = redis::Client::open(url.as_str()).expect("a URL");
    let current = || -> String {
        redis::cmd("GET")
            .arg("night:current")
            .query(&mut client.get_connection().expect("it"))
            .expect("a run")
    };
    assert!(first.ends_with(current()));

    shop.run(&[]);
    let mut slow = command(&["load", "job.toml", "--rate", "50", "--set", "cache.batch=5"])
        .env("REDIS_URL", &url)
        .current_dir(shop.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    std::thread::sleep(Duration::from_millis(600));
    assert!(slow.try_wait().expect("its state").is_none(), "it is loading");
    assert!(first.ends_with(current()), "readers keep the lists that they have");
    redis.kill();
    let output = slow.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("goes on where this one stopped") && !text.contains("lamp-secret"), "{text}");
    let unset = shop.lamplighter(&["load", "job.toml"]);
    assert_eq!(unset.status.code(), Some(2));
}

#[test]
fn a_cluster_takes_lists_and_lets_them_go_by_their_time() {
    let shop = Shop::new(2_000, 0.0);
    let run = shop.run(&[]);
    let redis = Redis::start(&["--cluster-enabled", "yes"]);
    redis.ask::<String>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let began = Instant::now();
    while !redis.ask::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok") {
        assert!(began.elapsed() < Duration::from_secs(20), "the cluster does not come up");
        std::thread::sleep(Duration::from_millis(20));
    }
    let url = redis.url().replace("redis://", "redis+cluster://");
    load(&shop, &url, &[]);
    assert_loaded(&redis, &run);
    let output = shop.lamplighter(&["load", "job.toml", &url, "--set", "cache.ttl_hours=0"]);
    assert_eq!(output.status.code(), Some(2));

    // Two loads later it is nobody's, but still there: who is to be forgotten is taken out of it too.
    for _ in 0..2 {
        shop.run(&[]);
        assert!(!load(&shop, &url, &[]).contains("removed"));
    }
    let user = lists(&run).into_keys().next().expect("a user");
    let key = format!("night-2026-11-21-1:u:{user}");
    assert_eq!(redis.ask::<u64>(&["EXISTS", &key]), 1);
    let forgotten = shop.lamplighter(&["forget", "job.toml", &user, "--cache", &url]);
    assert!(forgotten.status.success(), "{}", String::from_utf8_lossy(&forgotten.stderr));
    assert_eq!(redis.ask::<u64>(&["EXISTS", &key]), 0);
    // Once its time is over it is no generation any more.
    redis.ask::<u64>(&["DEL", "night-2026-11-21-1:meta"]);
    load(&shop, &url, &[]);
    let generations = redis.ask::<Vec<String>>(&["SMEMBERS", "night:generations"]);
    assert!(!generations.contains(&"night-2026-11-21-1".to_owned()), "{generations:?}");
}

#[test]
fn lists_travel_over_tls_to_a_server_that_is_trusted() {
    let shop = Shop::new(2_000, 0.0);
    shop.run(&[]);
    let (key, certificate) = (shop.path("key.pem"), shop.path("certificate.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status()
        .expect("openssl is there");
    assert!(made.success());
    let file = |path: &Path| path.to_str().expect("a path").to_owned();
    let redis = Redis::start(&[
        "--tls-port",
        "PORT",
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        &file(&certificate),
        "--tls-key-file",
        &file(&key),
        "--tls-ca-cert-file",
        &file(&certificate),
    ]);
    assert!(redis.folder().exists());
    let url = format!("rediss://127.0.0.1:{}/0", redis.port);
    let load = || {
        let mut load = command(&["load", "job.toml", &url]);
        load.current_dir(shop.path(""));
        load
    };
    let trusted = load().env("SSL_CERT_FILE", &certificate).output().expect("the binary starts");
    assert!(trusted.status.success(), "{}", String::from_utf8_lossy(&trusted.stderr));
    let unknown = load().output().expect("the binary starts");
    assert_eq!(unknown.status.code(), Some(1));
}

#[test]
fn one_users_list_is_found_without_reading_the_others() {
    let shop = Shop::new(5_000, 0.0);
    let run = shop.run(&[]);
    let lists = lists(&run);
    for (user, items) in lists.iter().step_by(40) {
        // Also where the job has come to have another number of buckets than the run.
        for buckets in [4, 5] {
            shop.write_job("");
            shop.replace("buckets = 4", &format!("buckets = {buckets}"));
            let output = shop.lamplighter(&["lookup", "job.toml", user]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let found: Vec<serde_json::Value> = String::from_utf8_lossy(&output.stdout)
                .lines()
                .map(|line| serde_json::from_str(line).expect("JSON"))
                .collect();
            let ids: Vec<&str> = found.iter().map(|row| row["item_id"].as_str().expect("an id")).collect();
            assert_eq!(&ids, items);
            assert!(found.iter().zip(1..).all(|(row, rank)| row["rank"] == rank && row["user_id"] == **user));
            assert!(found[0]["score"].is_f64() && found[0]["reason"].is_string());
        }
    }
    let nobody = shop.lamplighter(&["lookup", "job.toml", "nobody"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("user nobody: not in run night-2026-11-21-1"));
}

#[test]
fn lists_are_exported_as_json_lines() {
    let shop = Shop::new(2_000, 0.0);
    let run = shop.run(&[]);
    let parsed = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let output = shop.lamplighter(&["export", "job.toml", "recommendations"]);
    let found = parsed(&String::from_utf8_lossy(&output.stdout));
    let expected = lists(&run);
    assert_eq!(found.len(), expected.len());
    for line in &found {
        let items: Vec<String> = serde_json::from_value(line["items"].clone()).expect("items");
        assert_eq!(items, expected[line["user_id"].as_str().expect("a user")]);
        assert_eq!(line["scores"].as_array().map(Vec::len), Some(items.len()));
    }
    let output = shop.lamplighter(&["export", "job.toml", "similar_items", "--out", "similar.jsonl"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let similar = parsed(&std::fs::read_to_string(shop.path("similar.jsonl")).expect("a file"));
    assert!(similar.len() > 100 && similar.iter().all(|line| line["relation"].is_string()));
    let refused = shop.lamplighter(&["export", "job.toml", "metrics", "--out", "metrics.jsonl"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(!shop.path("metrics.jsonl.partial").exists() && !shop.path("metrics.jsonl").exists());
}
