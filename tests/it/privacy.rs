//! What is promised to those whose behaviour it is: pseudonyms, consent, a floor, files for few eyes.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use chrono::NaiveDate;
use lamplighter::lake::Access;

use crate::shop::{Shop, command, manifest, read};
use crate::table::{rows, whole};

const KEY: &str = "seventeen letters";

fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()),
            );
        } else {
            files.push(path);
        }
    }
    files
}

/// The files, of runs and of their stages, in which one of these is a value.
fn with_any_of(folder: &Path, ids: &BTreeSet<String>) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| match path.extension().and_then(|extension| extension.to_str()) {
        Some("parquet") => whole(path).iter().flatten().any(|value| ids.contains(value)),
        _ => {
            let text = String::from_utf8_lossy(&std::fs::read(path).expect("a file")).into_owned();
            text.split(|c: char| !c.is_alphanumeric() && c != '-').any(|word| ids.contains(word))
        }
    };
    files(folder).into_iter().filter(holds).collect()
}

#[test]
fn with_a_key_only_pseudonyms_are_anywhere_and_commands_take_real_ids() {
    // What looks like a bot is told by its id, which is hidden.
    let shop = Shop::new(5_000, 0.0);
    let plain = shop.run(&["--set", "output=plain"]);
    let users = |run: &Path| -> BTreeSet<String> {
        rows(&run.join("recommendations"), &["user_id"]).into_iter().map(|row| row[0].clone()).collect()
    };
    let real = users(&plain);
    shop.write_job("[privacy]\npseudonym_key = \"SHOP_KEY\"");
    let with_key = |args: &[&str]| -> Output {
        command(args).current_dir(shop.path("")).env("SHOP_KEY", KEY).output().expect("the binary starts")
    };
    let night = with_key(&["run", "job.toml", "--date", "2026-11-21"]);
    assert!(night.status.success(), "{}", String::from_utf8_lossy(&night.stderr));
    let access = Access::default().with_pseudonyms(KEY).expect("a key");
    let hidden: BTreeSet<String> = real.iter().map(|user| access.pseudonym(user)).collect();
    let run = shop.current();
    assert_eq!(users(&run), hidden);
    assert_eq!(manifest(&run)["events"], manifest(&plain)["events"]);
    assert!(with_any_of(&shop.path("plain"), &real).len() > 5, "they are found where they are");
    let told = with_any_of(&shop.path("out"), &real);
    assert!(told.is_empty(), "real ids are in {told:?}");
    for key in [KEY, &format!("{:?}", KEY.as_bytes())] {
        assert!(!String::from_utf8_lossy(&night.stderr).contains(key));
        let json = std::fs::read_to_string(run.join("manifest.json")).expect("a manifest");
        assert!(!json.contains(key), "the key is in the manifest");
    }

    let one = real.iter().next().expect("a user").as_str();
    let found = with_key(&["lookup", "job.toml", one]);
    assert!(String::from_utf8_lossy(&found.stdout).contains(&access.pseudonym(one)));
    assert!(with_key(&["show", "user", "job.toml", one]).status.success());
    let forgotten = with_key(&["forget", "job.toml", one]);
    assert!(forgotten.status.success(), "{}", String::from_utf8_lossy(&forgotten.stderr));
    assert!(!users(&run).contains(&access.pseudonym(one)));

    // Without the key nobody can ask, and a short one is none.
    for key in ["", "fifteen letters"] {
        let asked =
            command(&["lookup", "job.toml", one]).current_dir(shop.path("")).env("SHOP_KEY", key).output();
        let asked = asked.expect("the binary starts");
        assert_eq!(asked.status.code(), Some(2));
        let said = String::from_utf8_lossy(&asked.stderr).into_owned();
        assert!(said.contains("in the environment's SHOP_KEY; found") && !said.contains("fifteen"), "{said}");
    }
    // Another key gives other pseudonyms, and nothing of the old ones is taken over.
    let other = command(&["run", "job.toml", "--date", "2026-11-21"])
        .current_dir(shop.path(""))
        .env("SHOP_KEY", "another key of the shop")
        .output()
        .expect("the binary starts");
    assert!(other.status.success(), "{}", String::from_utf8_lossy(&other.stderr));
    assert!(users(&shop.current()).is_disjoint(&hidden));

    // With the first key nothing can be said of the run that has the other one's.
    let forgotten = with_key(&["forget", "job.toml", one]);
    let said = String::from_utf8_lossy(&forgotten.stderr).into_owned();
    assert!(
        forgotten.status.code() == Some(1) && said.contains("night-2026-11-21-2 are hashed with another key"),
        "{said}"
    );
    // A run of before there was a key has ids as they are: it says so, and they are found there.
    let later = with_key(&["run", "job.toml", "--date", "2026-11-21", "--set", "output=plain"]);
    let said = String::from_utf8_lossy(&later.stderr).into_owned();
    assert!(said.contains("1 runs that are kept have users' ids as the shop has them"), "{said}");
    let forgotten = with_key(&["forget", "job.toml", one, "nobody", "--set", "output=plain"]);
    let said = String::from_utf8_lossy(&forgotten.stdout).into_owned();
    assert!(
        said.contains("1 of 2 users were found")
            && said.contains("1 had no row in any table of a run: nobody"),
        "{said}"
    );
    assert!(!users(&plain).contains(one));
    // Going back needs no key.
    let back = shop.lamplighter(&["rollback", "job.toml"]);
    assert!(back.status.success(), "{}", String::from_utf8_lossy(&back.stderr));
}

#[test]
fn nothing_is_made_of_users_who_have_not_agreed_and_their_events_are_counted() {
    let shop = Shop::new(5_000, 0.02);
    let told = rows(&shop.path("data/users.parquet"), &["user_id", "consent"]);
    let of = |agreed: &str| -> BTreeSet<String> {
        told.iter().filter(|row| row[1] == agreed).map(|row| row[0].clone()).collect()
    };
    let (yes, no) = (of("true"), of("false"));
    assert!(yes.len() > 50 && no.len() > 2, "{} and {}", yes.len(), no.len());
    let sets = ["--set", "inputs.users={path='data/users.parquet'}", "--set", "ranking.include_cold=true"];
    let run = shop.run(&[&sets[..], &["--set", "privacy.consent=consent"]].concat());
    let events = manifest(&run)["events"].clone();
    let sum = |of: &str| -> u64 {
        events[of].as_object().expect("counts").values().map(|n| n.as_u64().expect("a number")).sum()
    };
    let mut theirs = 0;
    for file in shop.event_files() {
        theirs += rows(&shop.path(&file), &["user_id"])
            .iter()
            .filter(|row| !yes.contains(&row[0]) && row[0] != "NULL")
            .count();
    }
    assert_eq!(events["excluded"]["no_consent"], theirs);
    let (read, kept) =
        (events["read"].as_u64().expect("a number"), events["kept"].as_u64().expect("a number"));
    assert_eq!(read, kept + sum("rejected") + sum("excluded"));
    let listed: BTreeSet<String> =
        rows(&run.join("recommendations"), &["user_id"]).into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(listed, yes, "with and without history");
    let found = with_any_of(&shop.path("out"), &no);
    assert!(found.is_empty(), "{found:?}");

    let sql =
        "SELECT user_id, CAST(CASE WHEN consent THEN 1 ELSE 0 END AS DECIMAL(9, 2)) AS consent FROM source";
    std::fs::write(shop.path("decimal.sql"), sql).expect("a statement");
    let users = "inputs.users={path='data/users.parquet', sql='decimal.sql'}";
    let run = shop.run(&["--set", users, "--set", "privacy.consent=consent", "--set", "output=decimal"]);
    assert_eq!(manifest(&run)["events"], events);
    // Numbers other than 1 are no consent, whatever they stand for.
    let coded = "SELECT user_id, CASE WHEN consent THEN 1 WHEN NOT consent THEN 2 END AS consent FROM source";
    std::fs::write(shop.path("coded.sql"), coded).expect("a statement");
    let users = "inputs.users={path='data/users.parquet', sql='coded.sql'}";
    let run = shop.run(&["--set", users, "--set", "privacy.consent=consent", "--set", "output=coded"]);
    assert_eq!(manifest(&run)["events"], events);
    let warnings = manifest(&run)["warnings"].to_string();
    assert!(warnings.contains("found `2`, which count as no"), "{warnings}");

    let refused = shop.lamplighter(&["run", "job.toml", "--set", "privacy.consent=agreed", sets[0], sets[1]]);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains(
            "expected a column of [inputs.users] (user_id, age_group, region, consent); found `agreed`"
        ),
        "{said}"
    );
}

#[test]
fn a_night_is_the_same_whatever_users_who_have_not_agreed_did() {
    let shop = Shop::new(5_000, 0.0);
    let told = rows(&shop.path("data/users.parquet"), &["user_id", "consent"]);
    let yes: BTreeSet<String> =
        told.into_iter().filter(|row| row[1] == "true").map(|row| row[0].clone()).collect();
    let users =
        |rows: &RecordBatch| rows.column_by_name("user_id").expect("users").as_string::<i32>().clone();
    let agreed = |rows: &RecordBatch| -> BooleanArray {
        users(rows).iter().map(|user| Some(user.is_some_and(|user| yes.contains(user)))).collect()
    };
    // Nobody did anything later than they did.
    let last_second = NaiveDate::from_ymd_opt(2026, 11, 21).and_then(|day| day.and_hms_opt(23, 59, 59));
    let last_second = last_second.expect("a time").and_utc().timestamp_micros();
    for file in shop.event_files() {
        shop.rewrite(&file, |rows| {
            let (at, field) = rows
                .schema()
                .column_with_name("event_time")
                .map(|(at, field)| (at, field.clone()))
                .expect("times");
            let times = cast(rows.column(at), &DataType::Int64).expect("times");
            let times = times.as_primitive::<Int64Type>();
            let agreed = agreed(&rows);
            let moved = times
                .iter()
                .zip(&agreed)
                .map(|(time, agreed)| if agreed == Some(true) { time } else { Some(last_second) });
            let mut columns = rows.columns().to_vec();
            columns[at] = cast(&moved.collect::<Int64Array>(), field.data_type()).expect("times");
            RecordBatch::try_new(rows.schema(), columns).expect("rows")
        });
    }
    let night = |output: &str| {
        let output = format!("output={output}");
        let users = "inputs.users={path='data/users.parquet'}";
        let sets = ["--set", users, "--set", "privacy.consent=consent", "--set", &output];
        let run = shop.run(&sets);
        ["recommendations", "similar_items", "user_profiles", "metrics"].map(|table| whole(&run.join(table)))
    };
    let with_them = night("with");
    for file in shop.event_files() {
        shop.rewrite(&file, |rows| filter_record_batch(&rows, &agreed(&rows)).expect("rows"));
    }
    assert!(night("without") == with_them, "something is made of their events");
}

#[test]
fn nothing_published_stands_for_fewer_users_than_the_floor() {
    let shop = Shop::new(5_000, 0.0);
    shop.replace(
        "weights = { factors = 1.0, popularity = 0.1, history = 0.5 }",
        "weights = { popularity = 1.0 }",
    );
    let (bare, floor) = (shop.run(&["--set", "output=bare"]), shop.run(&["--set", "privacy.min_users=100"]));
    let column = |run: &Path, table: &str, name: &str| -> Vec<String> {
        rows(&run.join(table), &[name]).into_iter().map(|row| row[0].clone()).collect()
    };
    let mut n_users: BTreeMap<String, usize> = BTreeMap::new();
    column(&bare, "user_profiles", "segment")
        .into_iter()
        .for_each(|segment| *n_users.entry(segment).or_default() += 1);
    assert!(n_users.values().any(|n| *n < 100) && n_users.values().any(|n| *n >= 100), "{n_users:?}");
    let segments: BTreeSet<String> = column(&floor, "popular_items", "segment").into_iter().collect();
    let common = n_users.iter().filter(|(_, n)| **n >= 100).map(|(segment, _)| segment.clone());
    assert_eq!(segments, common.chain(["all".to_owned()]).collect());
    assert_eq!(column(&floor, "user_profiles", "segment").into_iter().collect::<BTreeSet<_>>(), segments);
    let said = |run: &Path| -> BTreeSet<String> {
        let reasons = column(run, "recommendations", "reason").into_iter();
        let of =
            |reason: String| reason.strip_prefix("popular with ")?.strip_suffix(" users").map(str::to_owned);
        reasons.filter_map(of).collect()
    };
    assert!(said(&floor).is_subset(&segments) && !said(&bare).is_subset(&segments), "{:?}", said(&bare));

    for name in ["terms", "brands", "categories"] {
        let mut named: BTreeMap<String, usize> = BTreeMap::new();
        let profiles = |run: &Path| read(&run.join("user_profiles/part.parquet"));
        let names = |run: &Path| -> Vec<Vec<String>> {
            use arrow::array::AsArray;
            let rows = profiles(run);
            let lists = rows.column_by_name(name).expect("the column").as_list::<i32>().clone();
            let of = |list: arrow::array::ArrayRef| -> Vec<String> {
                list.as_struct().column(0).as_string::<i32>().iter().flatten().map(str::to_owned).collect()
            };
            lists.iter().flatten().map(of).collect()
        };
        names(&floor).into_iter().flatten().for_each(|name| *named.entry(name).or_default() += 1);
        assert!(named.values().all(|n| *n >= 100), "{name}: {named:?}");
        assert!(names(&bare).concat().len() > names(&floor).concat().len(), "{name}");
    }

    // Metrics are of test users, who are fewer.
    let sets = [
        "--set",
        "evaluation.slices=['users.region','items.brand']",
        "--set",
        "inputs.users={path='data/users.parquet'}",
    ];
    let night = |floor: &str, output: &str| {
        let (floor, output) = (format!("privacy.min_users={floor}"), format!("output={output}"));
        shop.run(&[&sets[..], &["--set", &floor, "--set", &output]].concat())
    };
    let of_slices = |run: &Path| -> BTreeMap<String, usize> {
        let rows = rows(&run.join("metrics"), &["slice", "users"]);
        rows.into_iter().map(|row| (row[0].clone(), row[1].parse().expect("a number"))).collect()
    };
    let floored = night("40", "floored");
    let (all, told) = (of_slices(&night("0", "sliced")), of_slices(&floored));
    let common = all.iter().filter(|(slice, n)| **n >= 40 || *slice == "all");
    assert_eq!(told, common.map(|(slice, n)| (slice.clone(), *n)).collect());
    let warning = format!(
        "metrics of {} slices are withheld: each has fewer test users than privacy.min_users = 40",
        all.len() - told.len()
    );
    assert!(all.len() > told.len() && told.len() > 1, "{all:?}");
    assert!(manifest(&floored)["warnings"].as_array().expect("a list").contains(&warning.into()));

    let mut searched: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in shop.event_files() {
        for row in rows(&shop.path(&file), &["user_id", "query", "event_type"]) {
            if row[2] == "search" {
                let query = row[1].to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
                searched.entry(query).or_default().insert(row[0].clone());
            }
        }
    }
    let listed: BTreeSet<String> = column(&floor, "query_items", "query").into_iter().collect();
    assert!(listed.iter().all(|query| searched[query].len() >= 100), "{listed:?}");
    assert!(listed.len() < column(&bare, "query_items", "query").into_iter().collect::<BTreeSet<_>>().len());
}

#[test]
fn files_are_for_their_owner_and_its_group_whatever_the_umask() {
    let shop = Shop::new(2_000, 0.0);
    let night = |umask: &str, output: &str| {
        let run = format!(
            "umask {umask}; exec {} run job.toml --date 2026-11-21 --set output={output} --set observe.prometheus={output}/night.prom",
            env!("CARGO_BIN_EXE_lamplighter")
        );
        std::fs::create_dir_all(shop.path(output)).expect("a folder");
        let night =
            Command::new("sh").args(["-c", &run]).current_dir(shop.path("")).output().expect("a shell");
        assert!(night.status.success(), "{}", String::from_utf8_lossy(&night.stderr));
    };
    let modes = |output: &str| -> BTreeSet<u32> {
        let mode = |path: &PathBuf| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        files(&shop.path(output)).iter().map(mode).collect()
    };
    night("000", "open");
    assert_eq!(modes("open"), [0o640].into());
    let folder = std::fs::metadata(shop.path("open/runs")).expect("a folder").permissions().mode() & 0o777;
    assert_eq!(folder, 0o750);
    night("077", "closed");
    assert_eq!(modes("closed"), [0o600].into());
}
