//! What an analyst does with the output: questions in SQL, other formats, the dictionary.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use crate::shop::{Shop, command, read};
use crate::table::rows;

fn two_nights() -> Shop {
    let shop = Shop::new(5_000, 0.02);
    shop.run_of("2026-11-20", &["--set", "behavior.later_events=exclude"]);
    shop.run(&[]);
    shop
}

#[track_caller]
fn ask(shop: &Shop, args: &[&str]) -> String {
    let output = shop.lamplighter(&[&["sql", "job.toml"], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The shell's exit code and answers, with these statements on its stdin.
fn piped(shop: &Shop, statements: &[u8], to: Stdio) -> (Option<i32>, String) {
    let mut shell = command(&["sql", "job.toml", "--format", "csv"])
        .current_dir(shop.path(""))
        .stdin(Stdio::piped())
        .stdout(to)
        .spawn()
        .expect("the binary starts");
    shell.stdin.take().expect("its input").write_all(statements).expect("it reads");
    let output = shell.wait_with_output().expect("it ends");
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn ready_made_questions_have_answers() {
    let shop = two_nights();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/bi");
    let mut asked = 0;
    for entry in std::fs::read_dir(folder).expect("the questions") {
        let path = entry.expect("a question").path();
        let text = ask(&shop, &["--file", path.to_str().expect("a path"), "--format", "csv"]);
        assert!(text.lines().count() > 1, "{}: {text}", path.display());
        asked += 1;
    }
    assert!(asked >= 5);
    let days = ask(
        &shop,
        &[
            "SELECT date, count(*) AS n FROM all_recommendations GROUP BY date ORDER BY date",
            "--format",
            "csv",
        ],
    );
    let of = |date: &str| rows(&shop.path(&format!("out/runs/night-{date}-1/recommendations")), &[]).len();
    let (before, tonight) = (of("2026-11-20"), of("2026-11-21"));
    assert_eq!(days, format!("date,n\n2026-11-20,{before}\n2026-11-21,{tonight}\n"));
    // The inputs as they are now.
    let read = ask(&shop, &["SELECT count(*) AS n FROM events", "--format", "json"]);
    assert_eq!(read, "{\"n\":5000}\n");
    let cheap =
        "SELECT count(*) > 0 AS some FROM recommendations AS r JOIN items AS i ON i.item_id = r.item_id";
    assert_eq!(ask(&shop, &[cheap, "--format", "csv"]), "some\ntrue\n");
}

#[test]
fn answers_come_as_people_and_programs_want_them() {
    let shop = two_nights();
    // People see where an embedding begins; programs get all of it.
    let vector = "SELECT embedding FROM item_embeddings WHERE embedding IS NOT NULL LIMIT 1";
    let shown = ask(&shop, &[vector]);
    assert!(shown.contains('…') && shown.lines().all(|line| line.chars().count() < 80), "{shown}");
    let whole = ask(&shop, &[vector, "--format", "json"]);
    let whole: serde_json::Value = serde_json::from_str(&whole).expect("a row");
    assert_eq!(whole["embedding"].as_array().expect("numbers").len(), 512);
    let statement =
        "SELECT 1 AS one, 'a,\"b\"' AS two, CAST(NULL AS VARCHAR) AS three, CAST(0.1 AS REAL) AS four";
    assert_eq!(ask(&shop, &[statement, "--format", "csv"]), "one,two,three,four\n1,\"a,\"\"b\"\"\",,0.1\n");
    assert_eq!(
        ask(&shop, &[statement, "--format", "json"]),
        "{\"four\":0.1,\"one\":1,\"three\":null,\"two\":\"a,\\\"b\\\"\"}\n"
    );
    assert!(ask(&shop, &[statement]).contains("| one | two   | three | four |"));
    let asked = "SELECT user_id, count(*) AS n FROM recommendations GROUP BY user_id";
    assert!(ask(&shop, &[asked, "--out", "lists.parquet"]).starts_with("2"));
    assert_eq!(read(&shop.path("lists.parquet")).num_columns(), 2);

    let (_, text) = piped(&shop, b"SELECT 1\n  AS one;\n\\d runs\nSELECT 2 AS two", Stdio::piped());
    assert!(text.starts_with("one\n1\nrun_id ") && text.ends_with("two\n2\n"), "{text}");
    let typed = b"SELECT 1 AS one; SELECT ';' AS two; -- a note\nSELECT 3\n  AS three; SELECT 4 AS four";
    let (code, text) = piped(&shop, typed, Stdio::piped());
    assert_eq!((code, text.as_str()), (Some(0), "one\n1\ntwo\n;\nthree\n3\nfour\n4\n"));
    let (reader, gone) = std::io::pipe().expect("a pipe");
    drop(reader);
    assert_eq!(piped(&shop, b"SELECT 1;\nSELECT 2;\n", gone.into()).0, Some(0), "nobody reads it any more");
    assert_eq!(shop.lamplighter(&["sql", "job.toml", "DROP TABLE runs"]).status.code(), Some(2));
}

#[test]
fn every_published_column_is_in_the_dictionary() {
    let shop = two_nights();
    let tables = ask(&shop, &["\\d"]);
    let names: Vec<&str> = tables.lines().filter_map(|line| line.split(' ').next()).collect();
    for table in
        ["recommendations", "all_recommendations", "catalog", "runs", "rejected_events", "user_profiles"]
    {
        assert!(names.contains(&table), "{tables}");
    }
    for table in names {
        let columns = ask(&shop, &[&format!("\\d {table}")]);
        for line in columns.lines() {
            let words = line.split_whitespace().count();
            let named = ["run_id", "date"].iter().any(|name| line.starts_with(name));
            assert!(words > 3 || named, "{table} has a column that nobody explains: {line}");
        }
    }
    assert_eq!(shop.lamplighter(&["sql", "job.toml", "\\d nothing"]).status.code(), Some(2));
}

#[test]
fn the_shell_remembers_what_was_asked_in_the_session_before() {
    let shop = two_nights();
    let typed = |keys: &str| -> String {
        let binary = env!("CARGO_BIN_EXE_lamplighter");
        let spawn = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
        let mut session = std::process::Command::new("python3")
            .args(["-c", spawn, binary, "sql", "job.toml"])
            .current_dir(shop.path(""))
            .env("HOME", shop.path("home"))
            .env_remove("XDG_STATE_HOME")
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a terminal");
        session.stdin.take().expect("a keyboard").write_all(keys.as_bytes()).expect("keys");
        let output = session.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        text
    };
    let first = typed("SELECT 41 + 1\n AS answer;\nSELECT nonsense;\n\\s\n\\q\n");
    assert!(first.contains("| 42") && first.contains("2  SELECT nonsense;"), "{first}");
    let history = std::fs::read_to_string(shop.path("home/.local/state/lamplighter/sql_history"));
    assert_eq!(history.expect("a history"), "SELECT 41 + 1 AS answer;\nSELECT nonsense;\n");
    let second = typed("\\g 1\n\\q\n");
    assert!(second.contains("| 42"), "{second}");
}
