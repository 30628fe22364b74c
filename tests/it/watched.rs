//! What operators and the law ask of a night: metrics for monitoring, costs, people who are forgotten.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::redis_server::Redis;
use crate::shop::{Shop, command, manifest};
use crate::table::rows;

#[test]
fn monitoring_reads_how_the_last_run_ended() {
    let shop = Shop::new(5_000, 0.01);
    shop.write_job("[observe]\nprometheus = \"night.prom\"");
    shop.replace("enabled = false", "");
    let value = |name: &str| -> Option<f64> {
        let text = std::fs::read_to_string(shop.path("night.prom")).expect("metrics");
        let line = text.lines().find(|line| line.starts_with(&format!("lamplighter_{name}")))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    let run = shop.run(&[]);
    let record = manifest(&run);
    assert_eq!(value("last_run_exit_code{job=\"night\"}"), Some(0.0));
    assert_eq!(value("events{job=\"night\",outcome=\"kept\"}"), record["events"]["kept"].as_f64());
    let lists = record["tables"]["recommendations"]["rows"].as_f64();
    assert_eq!(value("table_rows{job=\"night\",table=\"recommendations\"}"), lists);
    assert!(value("metric{job=\"night\",metric=\"ndcg@10\"}") > Some(0.0));
    assert_eq!(value("gate_broken{job=\"night\",limit=\"users\"}"), Some(0.0));
    let published = value("current_timestamp_seconds").expect("a time");
    assert!(published > 1.7e9);

    // What a stage cost.
    for stage in record["stages"].as_array().expect("stages") {
        assert!(stage["cost"]["peak_memory_bytes"].as_u64() > Some(1 << 20), "{stage}");
    }
    let cost = |name: &str, of: &str| -> u64 {
        let stages = record["stages"].as_array().expect("stages");
        let stage = stages.iter().find(|stage| stage["name"] == name).expect("the stage");
        stage["cost"][of].as_u64().expect("a number")
    };
    assert!(cost("behavior", "cpu_ms") > 0);
    let events: u64 =
        shop.event_files().iter().map(|file| std::fs::metadata(shop.path(file)).expect("it").len()).sum();
    assert!(cost("behavior", "read_bytes") > events, "{} of {events}", cost("behavior", "read_bytes"));
    assert!(cost("rank", "written_bytes") > 100_000);

    // A refused night, and one that failed: the lists that readers have grow old.
    let refused =
        shop.lamplighter(&["run", "job.toml", "--date", "2026-11-21", "--set", "gate.min_users=9999"]);
    assert_eq!(refused.status.code(), Some(3));
    assert_eq!(value("last_run_exit_code"), Some(3.0));
    assert_eq!(value("gate_broken{job=\"night\",limit=\"users\"}"), Some(1.0));
    let failed = shop.lamplighter(&["run", "job.toml", "--set", "inputs.events.path='data/gone'"]);
    assert_eq!(failed.status.code(), Some(2));
    assert_eq!(
        (value("last_run_exit_code"), value("current_timestamp_seconds")),
        (Some(2.0), Some(published))
    );
    assert_eq!(value("table_rows"), None);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    files
}

#[test]
fn a_forgotten_user_is_in_no_file_and_no_cache_and_the_rest_stays() {
    let (shop, redis) = (Shop::new(5_000, 0.02), Redis::start(&[]));
    shop.run_of("2026-11-20", &["--set", "behavior.later_events=exclude"]);
    assert!(shop.lamplighter(&["load", "job.toml", &redis.url()]).status.success());
    let run = shop.run(&[]);
    assert!(shop.lamplighter(&["load", "job.toml", &redis.url()]).status.success());
    let lists = |run: &Path| rows(&run.join("recommendations"), &["user_id", "rank", "item_id"]);
    let before = lists(&run);
    let names: Vec<String> =
        before.iter().map(|row| row[0].clone()).collect::<BTreeSet<_>>().into_iter().collect();
    let (one, other) = (names[3].clone(), names[100].clone());
    let holds = |id: &str| -> Vec<PathBuf> {
        let in_file = |path: &PathBuf| {
            path.extension().is_some_and(|extension| extension == "parquet")
                && crate::table::whole(path).iter().any(|row| row.iter().any(|value| value == id))
        };
        files(&shop.path("out")).into_iter().filter(in_file).collect()
    };
    assert!(holds(&one).len() > 6 && redis.keys("night-2026-11-20-1:u:") > 100);

    std::fs::write(shop.path("users.txt"), format!("{other}\n")).expect("a file");
    let output =
        shop.lamplighter(&["forget", "job.toml", &one, "--file", "users.txt", "--cache", &redis.url()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("2 of 2 users were found and are forgotten; runs: 2"), "{said}");
    assert!(
        said.contains("recommendations          80 rows removed") && said.contains("absent from"),
        "{said}"
    );
    assert!(said.contains("where 4 lists were theirs"), "{said}");
    for user in [&one, &other] {
        assert_eq!(holds(user), Vec::<PathBuf>::new(), "{user}");
        assert!(redis.ask::<Vec<String>>(&["KEYS", &format!("*:u:{user}")]).is_empty());
        assert_eq!(shop.lamplighter(&["lookup", "job.toml", user]).status.code(), Some(1));
    }
    // Nobody else has lost anything, and what is left is as whole as before.
    let others: Vec<_> = before.into_iter().filter(|row| row[0] != one && row[0] != other).collect();
    assert_eq!(lists(&run), others);
    assert!(shop.lamplighter(&["lookup", "job.toml", &names[5]]).status.success());
    assert!(shop.lamplighter(&["rollback", "job.toml"]).status.success(), "as its manifest counts it");
    assert!(shop.lamplighter(&["load", "job.toml", &redis.url()]).status.success());
    assert!(redis.ask::<Vec<String>>(&["KEYS", &format!("*:u:{one}")]).is_empty());
    assert_eq!(shop.lamplighter(&["forget", "job.toml"]).status.code(), Some(2));
}

#[test]
fn lineage_says_what_a_night_reads_and_writes_however_it_ends() {
    let shop = Shop::new(2_000, 0.0);
    shop.write_job("[observe]\nopenlineage = \"lineage.jsonl\"");
    let run = shop.run(&[]);
    let failed = shop.lamplighter(&["run", "job.toml", "--set", "inputs.events.path='data/gone'"]);
    assert_eq!(failed.status.code(), Some(2));
    let text = std::fs::read_to_string(shop.path("lineage.jsonl")).expect("events");
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["eventType"].as_str().expect("a type")).collect();
    assert_eq!(kinds, ["START", "COMPLETE", "START", "FAIL"]);
    assert_eq!(events[0]["run"]["runId"], events[1]["run"]["runId"]);
    assert_ne!(events[0]["run"]["runId"], events[2]["run"]["runId"]);
    let data = shop.path("data/events").canonicalize().expect("the events");
    assert_eq!(events[0]["inputs"][0]["name"], data.to_str().expect("a path"));
    let tables = manifest(&run)["tables"].clone();
    let outputs = events[1]["outputs"].as_array().expect("outputs");
    assert_eq!(outputs.len(), tables.as_object().expect("tables").len());
    for output in outputs {
        let table = output["name"].as_str().expect("a name").rsplit('/').next().expect("a table");
        assert_eq!(output["outputFacets"]["outputStatistics"]["rowCount"], tables[table]["rows"], "{table}");
        assert_eq!(output["facets"]["version"]["datasetVersion"], "night-2026-11-21-1");
    }
    let why = events[3]["run"]["facets"]["errorMessage"]["message"].as_str().expect("a reason");
    assert!(why.contains("data/gone") && why.ends_with("(exit code 2)"), "{why}");

    // A server that takes them, and one that does not: the night is no worse for it.
    let receiver = Receiver::start(&["201 Created", "500 Out Of Order"]);
    let url = format!("observe.openlineage={}/api/v1/lineage", receiver.url());
    let output = shop.lamplighter(&["run", "job.toml", "--date", "2026-11-21", "--set", &url]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("the server answered 500"), "{said}");
    let taken = receiver.taken();
    assert!(taken.len() == 2 && taken.iter().all(|(path, _)| path == "/api/v1/lineage"), "{taken:?}");
    assert_eq!((&taken[0].1["eventType"], &taken[1].1["eventType"]), (&"START".into(), &"COMPLETE".into()));

    // A password in the job would be in every manifest.
    let refused =
        shop.lamplighter(&["check", "job.toml", "--set", "observe.openlineage=http://a:hunter22@host"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2));
    assert!(said.contains("expected a URL without credentials"), "{said}");
    let query = "observe.openlineage=https://host/api?key=hunter22";
    let refused = shop.lamplighter(&["check", "job.toml", "--set", query]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("found a query"), "{said}");
}

#[test]
fn a_collector_gets_a_span_a_stage_and_the_figures_of_the_night_and_may_be_away() {
    let shop = Shop::new(2_000, 0.0);
    shop.replace("enabled = false", "");
    let receiver = Receiver::start(&["200 OK"]);
    let night = |endpoint: &str, more: &[&str]| {
        let args = [&["run", "job.toml", "--date", "2026-11-21"], more].concat();
        let mut night = command(&args);
        let night = night.current_dir(shop.path("")).env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).output();
        let night = night.expect("the binary starts");
        (night.status.code(), String::from_utf8_lossy(&night.stderr).into_owned())
    };
    let before = chrono::Utc::now().timestamp_nanos_opt().expect("a time");
    assert_eq!(night(&receiver.url(), &[]).0, Some(0));
    let after = chrono::Utc::now().timestamp_nanos_opt().expect("a time");
    let taken = receiver.taken();
    let paths: Vec<&str> = taken.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["/v1/traces", "/v1/metrics"]);

    let of_resource = &taken[0].1["resourceSpans"][0];
    assert_eq!(of_resource["resource"]["attributes"][0]["value"]["stringValue"], "lamplighter");
    let spans = of_resource["scopeSpans"][0]["spans"].as_array().expect("spans");
    let names: Vec<&str> = spans.iter().map(|span| span["name"].as_str().expect("a name")).collect();
    assert_eq!(names, [&["run"][..], &lamplighter::pipeline::STAGES].concat());
    let hex = |span: &serde_json::Value, key: &str, n: usize| -> String {
        let id = span[key].as_str().expect("an id").to_owned();
        assert!(
            id.len() == n && id.bytes().all(|b| b.is_ascii_hexdigit()) && id.bytes().any(|b| b != b'0'),
            "{id}"
        );
        id
    };
    let time = |span: &serde_json::Value, key: &str| -> i64 {
        span[key].as_str().expect("a time").parse().expect("nanoseconds")
    };
    let (mut ids, mut last) = (BTreeSet::new(), time(&spans[0], "startTimeUnixNano"));
    assert!(before <= last && time(&spans[0], "endTimeUnixNano") <= after);
    for span in spans {
        assert_eq!(hex(span, "traceId", 32), hex(&spans[0], "traceId", 32));
        assert!(ids.insert(hex(span, "spanId", 16)), "two spans of one id");
        let (began, ended) = (time(span, "startTimeUnixNano"), time(span, "endTimeUnixNano"));
        assert!(last <= began && began <= ended && ended <= time(&spans[0], "endTimeUnixNano"));
        if span["name"] != "run" {
            assert_eq!(span["parentSpanId"], spans[0]["spanId"]);
            last = ended;
        }
        assert_eq!(span["status"]["code"], 1);
    }
    let of_run = spans[0]["attributes"].as_array().expect("attributes");
    let run_id = of_run.iter().find(|attribute| attribute["key"] == "lamplighter.run_id").expect("the run");
    assert_eq!(run_id["value"]["stringValue"], "night-2026-11-21-1");

    let metrics = taken[1].1["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().expect("metrics");
    let named = |name: &str| metrics.iter().find(|metric| metric["name"] == name).expect(name);
    let rows = named("lamplighter.table_rows")["gauge"]["dataPoints"].as_array().expect("points");
    let tables = manifest(&shop.current())["tables"].clone();
    assert_eq!(rows.len(), tables.as_object().expect("tables").len());
    for point in rows {
        let table = point["attributes"][1]["value"]["stringValue"].as_str().expect("a table");
        assert_eq!(point["asDouble"].as_f64(), tables[table]["rows"].as_f64(), "{table}");
        assert!((time(point, "timeUnixNano") - after).abs() < 10_000_000_000);
    }
    assert_eq!(named("lamplighter.stage_seconds")["unit"], "s");

    // A stage that was taken over says from whom; one that failed is an error; the job's key goes first.
    let key = format!("observe.otlp={}/", receiver.url());
    let (code, said) = night("http://127.0.0.1:9", &["--set", &key, "--set", "gate.min_users=9999"]);
    assert_eq!(code, Some(3), "{said}");
    let spans = receiver.taken()[2].1["resourceSpans"][0]["scopeSpans"][0]["spans"].clone();
    let spans = spans.as_array().expect("spans");
    assert_eq!(spans[1]["attributes"][0]["key"], "lamplighter.reused_from");
    let failed = spans.last().expect("a stage");
    assert_eq!((&failed["name"], &failed["status"]["code"]), (&"gate".into(), &2.into()));
    assert_eq!(spans[0]["status"]["code"], 2);

    // What the environment has for the collector reaches it, and no file of the run.
    let told = |headers: &str| {
        let mut night = command(&["run", "job.toml", "--date", "2026-11-21", "--set", &key]);
        let night = night.current_dir(shop.path("")).env("OTEL_EXPORTER_OTLP_HEADERS", headers).output();
        night.expect("the binary starts")
    };
    assert!(told("api-key=hunter%3D22, x-team=shop").status.success());
    let heads = receiver.heads.lock().expect("nobody panics").clone();
    assert_eq!(heads.iter().filter(|line| *line == "api-key: hunter=22").count(), 2);
    assert_eq!(heads.iter().filter(|line| *line == "x-team: shop").count(), 2);
    assert!(!manifest(&shop.current()).to_string().contains("hunter"));
    let refused = told("hunter22");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        said.contains("OTEL_EXPORTER_OTLP_HEADERS: expected name=value") && !said.contains("hunter"),
        "{said}"
    );

    // A collector that is away, and one that refuses, are warnings.
    let (code, said) = night("http://127.0.0.1:9", &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the OTLP collector has not taken the night"), "{said}");
    let (code, said) = night(&Receiver::start(&["503 Away"]).url(), &[]);
    assert!(code == Some(0) && said.contains("the server answered 503"), "{said}");
}

/// A server of this machine that keeps what it is sent; it gives the answers in turn, the last one for ever.
struct Receiver {
    port: u16,
    taken: Arc<Mutex<Vec<(String, serde_json::Value)>>>,
    /// Every line of every request's head.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    fn start(answers: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its number").port();
        let taken: Arc<Mutex<Vec<(String, serde_json::Value)>>> = Arc::default();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let (keep, keep_heads) = (taken.clone(), heads.clone());
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let mut reader = BufReader::new(client.try_clone().expect("a second handle"));
                let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
                reader.read_line(&mut first).expect("a request");
                while line != "\r\n" {
                    line.clear();
                    reader.read_line(&mut line).expect("a header");
                    keep_heads.lock().expect("nobody panics").push(line.trim_end().to_owned());
                    if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
                        length = n.trim().parse().expect("a number");
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).expect("a body");
                let path = first.split(' ').nth(1).expect("a path").to_owned();
                let mut taken = keep.lock().expect("nobody panics");
                let answer = answers[taken.len().min(answers.len() - 1)];
                taken.push((path, serde_json::from_slice(&body).expect("JSON")));
                let _ = write!(client, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        Self { port, taken, heads }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn taken(&self) -> Vec<(String, serde_json::Value)> {
        self.taken.lock().expect("nobody panics").clone()
    }
}

#[test]
fn a_profile_shows_stages_and_the_statements_in_them() {
    let shop = Shop::new(2_000, 0.0);
    let run = shop.run(&["--profile", "night.json"]);
    let text = std::fs::read_to_string(shop.path("night.json")).expect("a trace");
    let trace: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    let spans = |kind: &str| -> Vec<&serde_json::Value> {
        events.iter().filter(|event| event["cat"] == kind && event["ph"] == "X").collect()
    };
    let stages: BTreeSet<&str> =
        spans("stage").iter().map(|span| span["name"].as_str().expect("a name")).collect();
    let record = manifest(&run);
    let expected = record["stages"].as_array().expect("stages").iter();
    assert_eq!(stages, expected.map(|stage| stage["name"].as_str().expect("a name")).collect());
    let ends = |span: &serde_json::Value| {
        let begin = span["ts"].as_u64().expect("a time");
        (begin, begin + span["dur"].as_u64().expect("a length"))
    };
    let behavior =
        spans("stage").into_iter().find(|span| span["name"] == "behavior").map(ends).expect("a stage");
    let inside = |name: &str| {
        let statement =
            spans("sql").into_iter().find(|span| span["name"] == name).map(ends).expect("a statement");
        behavior.0 <= statement.0 && statement.1 <= behavior.1 + 1
    };
    assert!(inside("numbered_events") && inside("interactions"));
}

#[test]
fn a_cache_that_cannot_be_used_is_known_before_anybody_is_forgotten() {
    let shop = Shop::new(2_000, 0.0);
    let run = shop.run(&[]);
    let user = rows(&run.join("recommendations"), &["user_id"])[0][0].clone();
    let forget = |url: &str| {
        let output = command(&["forget", "job.toml", &user])
            .env("REDIS_URL", url)
            .current_dir(shop.path(""))
            .output()
            .expect("the binary starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    for (url, expected) in [("http://cache", 2), ("redis://127.0.0.1:1/0", 1)] {
        let (code, _, said) = forget(url);
        assert_eq!(code, Some(expected), "{said}");
        assert!(shop.lamplighter(&["lookup", "job.toml", &user]).status.success(), "nothing is done yet");
    }
    // One that fails later has the rest said.
    let redis = Redis::start(&["--rename-command", "SMEMBERS", ""]);
    let (code, found, said) = forget(&redis.url());
    assert_eq!(code, Some(1), "{said}");
    assert!(
        found.starts_with("1 of 1 users were found") && found.contains("forget them once more"),
        "{found}"
    );
    assert!(said.contains("cannot read"), "{said}");
    let (code, found, said) = forget("");
    assert_eq!(code, Some(0), "{said}");
    assert!(found.starts_with("0 of 1 users were found"), "{found}");
}
