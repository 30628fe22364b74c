//! The page of a run, as a browser has it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};

use crate::shop::{Shop, manifest};
use crate::table::rows;

const EVIL: &str = "<script>alert(1)</script>";

/// A shop all of whose items have a title that would run if it were not escaped.
fn shop_with_evil_titles() -> Shop {
    let shop = Shop::new(6_000, 0.03);
    shop.rewrite("data/items.parquet", |rows| {
        let at = rows.schema().index_of("title").expect("titles");
        let titles = arrow::compute::cast(rows.column(at), &arrow::datatypes::DataType::Utf8).expect("text");
        let titles: StringArray = titles
            .as_string::<i32>()
            .iter()
            .map(|title| Some(format!("{EVIL} {}", title.unwrap_or(""))))
            .collect();
        let schema = rows.schema();
        let columns = schema.fields().iter().enumerate().map(|(index, field)| {
            let column =
                if index == at { Arc::new(titles.clone()) as ArrayRef } else { rows.column(index).clone() };
            (field.name().clone(), column)
        });
        RecordBatch::try_from_iter(columns.collect::<Vec<_>>()).expect("items")
    });
    shop
}

fn page(run: &Path) -> String {
    std::fs::read_to_string(run.join("report.html")).expect("a page")
}

/// A figure in groups of three.
fn grouped(n: u64) -> String {
    match n {
        n if n < 1_000 => n.to_string(),
        n => format!("{},{:03}", grouped(n / 1_000), n % 1_000),
    }
}

/// The text between elements, blanks folded.
fn words(html: &str) -> String {
    let text: String = html
        .split('<')
        .map(|part| part.split_once('>').map_or(part, |(_, text)| text).to_owned() + " ")
        .collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn says(text: &str, part: &str) {
    assert!(text.contains(part), "expected `{part}` in:\n{text}");
}

#[test]
fn a_published_run_has_a_page_with_the_figures_of_its_tables() {
    let shop = shop_with_evil_titles();
    shop.without_weights();
    shop.run_of("2026-11-20", &["--set", "behavior.later_events=exclude"]);
    let run = shop.run(&[]);
    let (html, record) = (page(&run), manifest(&run));
    let text = words(&html);
    let number = |value: &serde_json::Value| grouped(value.as_u64().expect("a number"));

    let events = &record["events"];
    let sum = |counts: &serde_json::Value| -> u64 {
        counts.as_object().expect("counts").values().map(|n| n.as_u64().expect("a count")).sum()
    };
    let (rejected, excluded) = (sum(&events["rejected"]), sum(&events["excluded"]));
    assert!(rejected > 0);
    let line = [number(&events["read"]), number(&events["kept"]), grouped(rejected), grouped(excluded)];
    says(&text, &format!("events {}", line.join(" ")));
    for (reason, n) in events["rejected"].as_object().expect("reasons") {
        says(&text, &format!("{reason} events rejected {}", number(n)));
    }

    let metrics = rows(&run.join("metrics"), &["system", "metric", "k", "slice", "value", "low", "high"]);
    let ndcg: Vec<_> = metrics.iter().filter(|row| row[1..4] == ["ndcg", "10", "all"]).collect();
    assert!(ndcg.len() > 5, "{} systems", ndcg.len());
    let decimal = |text: &str| format!("{:.4}", text.parse::<f64>().expect("a number"));
    for row in &ndcg {
        says(&text, &format!("{} {} {} to {}", row[0], decimal(&row[4]), decimal(&row[5]), decimal(&row[6])));
    }
    // The night before it, and the gate's word on both.
    says(&text, "night-2026-11-20-1 2026-11-20 published");
    says(&text, ", compared with night-2026-11-20-1.");
    says(&text, "fusing gains ");

    let lists = rows(&run.join("recommendations"), &["user_id", "rank", "item_id", "reason"]);
    let listed: std::collections::BTreeSet<&String> = lists.iter().map(|row| &row[2]).collect();
    says(&text, &format!("{} of ", grouped(listed.len() as u64)));
    says(&text, &format!("on {} places.", grouped(lists.len() as u64)));
    // The users shown are the run's, with its items and reasons.
    let shown: Vec<&str> =
        html.split("<h3>User ").skip(1).map(|rest| rest.split('<').next().expect("an id")).collect();
    assert_eq!(shown.len(), 4, "{shown:?}");
    for user in shown {
        let first = lists.iter().find(|row| row[0] == user && row[1] == "1").expect("the user's list");
        let part = &html[html.find(&format!("<h3>User {user}<")).expect("the user")..];
        let part = words(&part[..part.find("</article>").expect("its end")]);
        let title = EVIL.replace('<', "&lt;").replace('>', "&gt;");
        says(&part, &format!("score 1 {title}"));
        says(&part, &first[2]);
        says(&part, first[3].split('<').next().expect("the beginning of a reason").trim());
    }
    assert!(!html.contains("<script"), "a title is no markup");
    let leftovers = std::fs::read_dir(&run).expect("the run").filter(|entry| {
        entry.as_ref().expect("an entry").file_name().to_string_lossy().ends_with(".partial")
    });
    assert_eq!(leftovers.count(), 0);
}

#[test]
fn a_page_is_made_again_for_any_run_and_forgets_who_is_forgotten() {
    let shop = Shop::new(3_000, 0.0);
    let run = shop.run(&[]);
    let first = page(&run);
    std::fs::remove_file(run.join("report.html")).expect("the page");
    let said = shop.lamplighter(&["report", "job.toml"]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert!(String::from_utf8_lossy(&said.stdout).trim_end().ends_with("night-2026-11-21-1/report.html"));
    assert_eq!(page(&run), first, "the same run, the same page");
    let said = shop.lamplighter(&["report", "job.toml", "night-2026-11-21-1", "--out", "page.html"]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(std::fs::read_to_string(shop.path("page.html")).expect("the page"), first);
    let said = shop.lamplighter(&["report", "job.toml", "night-2026-11-19-1"]);
    assert_eq!(said.status.code(), Some(2));

    let user = first.split("<h3>User ").nth(1).and_then(|rest| rest.split('<').next()).expect("a user");
    let said = shop.lamplighter(&["forget", "job.toml", user]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let now = page(&run);
    assert!(first.contains(&format!("User {user}<")) && !now.contains(&format!("User {user}<")));
    assert!(now.contains("no longer known"), "the stage that knew what everybody turned to is gone");
}

#[test]
fn a_refused_night_has_a_page_that_says_so_first() {
    let shop = Shop::new(5_000, 0.0);
    shop.replace("enabled = false", "min_users = 100000");
    let output = shop.lamplighter(&["run", "job.toml", "--date", "2026-11-21"]);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let text = words(&page(&shop.path("out/runs/night-2026-11-21-1")));
    says(&text, "Night of 2026-11-21: refused");
    let (warnings, read) = (text.find("Broken limit users:"), text.find("Rows: read ="));
    assert!(warnings.is_some() && warnings < read, "{text}");
}

#[test]
fn a_page_that_cannot_be_made_is_a_warning_and_the_lists_are_published() {
    let shop = Shop::new(3_000, 0.0);
    let until_gate = ["run", "job.toml", "--date", "2026-11-21", "--stage", "gate"];
    assert!(shop.lamplighter(&until_gate).status.success());
    let run = shop.path("out/runs/night-2026-11-21-1");
    std::fs::write(run.join("report.html"), "of a night that was killed").expect("a page");
    let popularity = run.join("stages/behavior/full/popularity.parquet");
    // As long as it was: a stage whose files are of another size is made again.
    let size = std::fs::metadata(&popularity).expect("the file").len();
    std::fs::write(&popularity, "x".repeat(size as usize)).expect("a file");

    assert_eq!(shop.run(&[]), run, "readers load it");
    assert!(!run.join("report.html").exists(), "no page is better than a wrong one");
    let warnings = manifest(&run)["warnings"].to_string();
    says(&warnings, "the run has no report.html: cannot read ");
    says(&warnings, "popularity.parquet");
    let said = shop.lamplighter(&["report", "job.toml"]);
    assert_eq!(said.status.code(), Some(1), "{}", String::from_utf8_lossy(&said.stderr));
    // Once nothing stands in its way, it is made again, and says what was wrong.
    std::fs::remove_file(popularity).expect("the file");
    assert!(shop.lamplighter(&["report", "job.toml"]).status.success());
    says(&words(&page(&run)), "Warning the run has no report.html");
}

/// Chromium, without a window.
struct Browser {
    folder: tempfile::TempDir,
}

impl Browser {
    fn open() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn ask(&self, more: &[&str], url: &str) -> Vec<u8> {
        let output = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
            ])
            .arg(format!("--user-data-dir={}", self.folder.path().join("profile").display()))
            .arg("--virtual-time-budget=4000")
            .args(more)
            .arg(url)
            .env("HOME", self.folder.path())
            .output()
            .expect("chromium is there: apt-get install chromium");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        output.stdout
    }

    /// A page in a frame of this width, which may be narrower than the narrowest window: its address.
    fn frame(&self, page: &Path, width: u32) -> String {
        let html = std::fs::read_to_string(page).expect("the page");
        std::fs::write(self.folder.path().join("page.html"), html).expect("a page");
        let around = self.folder.path().join(format!("around-{width}.html"));
        let html = include_str!("browser/around.html").replace("WIDTH", &width.to_string());
        std::fs::write(&around, html).expect("a page around it");
        format!("file://{}", around.display())
    }

    /// What a script in the page around it finds out about the page.
    fn measure(&self, page: &Path, width: u32, more: &[&str]) -> serde_json::Value {
        let mut args = vec!["--allow-file-access-from-files", "--window-size=1600,1200", "--dump-dom"];
        args.extend(more);
        let dom = String::from_utf8(self.ask(&args, &self.frame(page, width))).expect("text");
        let found = dom.split("<pre id=\"found\">").nth(1).and_then(|rest| rest.split("</pre>").next());
        let found = found.unwrap_or_else(|| panic!("the page was not measured:\n{dom}"));
        let found = found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error}: {found}"))
    }

    fn screenshot(&self, page: &Path, width: u32) -> Vec<u8> {
        let picture = self.folder.path().join(format!("{width}.png"));
        let (size, to) =
            (format!("--window-size={},1000", width.max(500)), format!("--screenshot={}", picture.display()));
        self.ask(&[&size, &to], &self.frame(page, width));
        std::fs::read(picture).expect("a picture")
    }
}

#[test]
fn a_browser_shows_the_page_at_the_width_of_a_phone_and_of_a_desk() {
    let shop = shop_with_evil_titles();
    shop.without_weights();
    shop.run_of("2026-11-20", &["--set", "behavior.later_events=exclude"]);
    let page = shop.run(&[]).join("report.html");
    let browser = Browser::open();
    let mut heights = Vec::new();
    for width in [380, 1200] {
        let found = browser.measure(&page, width, &[]);
        let number = |name: &str| found[name].as_f64().unwrap_or_else(|| panic!("{name} in {found}"));
        assert_eq!(number("width"), f64::from(width), "{found}");
        assert!(number("scroll_width") <= f64::from(width), "the page moves sideways: {found}");
        assert_eq!(found["wider"], serde_json::json!([]), "nothing sticks out of the page");
        assert_eq!(number("scripts"), 0.0, "a title is no script: {found}");
        assert!(number("svgs") >= 4.0 && number("least_svg_height") > 100.0, "{found}");
        assert!(number("least_text_px") >= 11.0, "labels of plots stay readable: {found}");
        assert!(number("sections") == 9.0 && number("empty_sections") == 0.0, "{found}");
        assert!(number("tables") > 10.0 && number("tables_without_headings") == 0.0, "{found}");
        assert!(found["titles"].as_str().is_some_and(|text| text.contains(EVIL)), "a title is text: {found}");
        heights.push(number("height"));

        let dark = browser.measure(&page, width, &["--force-dark-mode"]);
        for colour in ["paper", "ink", "bars", "labels"] {
            assert_ne!(found[colour], dark[colour], "{colour} follows the reader's setting");
        }

        // A picture of a page that shows nothing packs into far less.
        let picture = browser.screenshot(&page, width);
        assert_eq!(&picture[1..4], b"PNG");
        let across = u32::from_be_bytes(picture[16..20].try_into().expect("four bytes"));
        assert_eq!(across, width.max(500));
        assert!(picture.len() > 30_000, "{} bytes", picture.len());
    }
    assert!(heights[0] > heights[1], "a narrow page is longer: {heights:?}");
}
