use super::*;
use crate::publish::{Rows, StageRecord, State, TableRecord};

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

/// A section from its heading on.
#[track_caller]
fn section<'a>(page: &'a str, id: &str) -> &'a str {
    let begin = format!("<section id=\"{id}\">");
    let at = page.find(&begin).unwrap_or_else(|| panic!("no section {id}"));
    let rest = &page[at..];
    &rest[..rest.find("</section>").unwrap()]
}

/// The text of a page as a reader has it, a blank between elements.
fn words(html: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for c in html.chars() {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                text.push(' ');
            }
            c if !inside => text.push(c),
            _ => {}
        }
    }
    text.replace("&#39;", "'").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn says(page: &str, id: &str, parts: &[&str]) {
    let text = words(section(page, id));
    for part in parts {
        assert!(text.contains(part), "expected `{part}` in section {id}:\n{text}");
    }
}

fn metric(system: &str, metric: &str, value: f64, interval: Option<(f64, f64)>) -> Metric {
    let (system, metric, slice) = (system.to_owned(), metric.to_owned(), "all".to_owned());
    Metric { system, metric, slice, k: 10, value, interval, gain: None, users: 1234 }
}

fn finding(name: &str, holds: bool, accepted: bool) -> Finding {
    Finding {
        name: name.to_owned(),
        what: format!("the {name}"),
        value: 12_345.0,
        before: Some(20_000.0),
        least: Some(16_000.0),
        most: None,
        key: "gate.max_drop = 0.2".to_owned(),
        holds,
        accepted,
    }
}

/// A night with something in every section.
fn full() -> Facts {
    let reasons = BTreeMap::from([("null_user".to_owned(), 40), ("duplicate".to_owned(), 60)]);
    let night = |date: &str, value: f64| Night {
        run_id: format!("n-{date}-1"),
        date: date.to_owned(),
        state: "published".to_owned(),
        events: 9_900,
        users: Some(300),
        overlap: Some(0.25),
        metric: "ndcg@10".to_owned(),
        value,
        interval: Some((value - 0.01, value + 0.01)),
    };
    let row = Row {
        rank: 1,
        item: "i1".to_owned(),
        title: "Tea".to_owned(),
        score: 1.5,
        source: "ease".to_owned(),
        reason: "goes with Cups".to_owned(),
    };
    Facts {
        manifest: Manifest {
            run_id: "n-2026-11-21-1".to_owned(),
            date: "2026-11-21".to_owned(),
            finished_at: "2026-11-22T02:31:07.123456+00:00".to_owned(),
            events: Rows { read: 10_000, kept: 9_900, rejected: reasons, ..Rows::default() },
            stages: vec![StageRecord {
                name: "behavior".to_owned(),
                fingerprint: String::new(),
                elapsed_ms: 15_600,
                reused_from: None,
                cost: crate::publish::Cost { peak_memory_bytes: 3 << 30, ..Default::default() },
            }],
            tables: BTreeMap::from([(
                "recommendations".to_owned(),
                TableRecord { rows: 6_000, bytes: 1 << 20, files: 4 },
            )]),
            warnings: vec!["the clock went backwards".to_owned()],
            ..Manifest::default()
        },
        compared_with: Some("n-2026-11-20-1".to_owned()),
        findings: vec![finding("events", false, false), finding("users", true, false)],
        metrics: vec![
            metric("fused", "ndcg", 0.3, Some((0.29, 0.31))),
            metric("fused", "coverage", 0.125, None),
            Metric { gain: Some((0.08, 0.12)), ..metric("popularity", "ndcg", 0.2, Some((0.19, 0.21))) },
            Metric { gain: Some((0.002, 0.008)), ..metric("ease", "ndcg", 0.295, Some((0.285, 0.305))) },
        ],
        nights: vec![night("2026-11-20", 0.28), night("2026-11-21", 0.3)],
        learned: Learned {
            weights: BTreeMap::from([("ease".to_owned(), 0.75), ("trend".to_owned(), 0.0)]),
            segments: BTreeMap::from([("heavy".to_owned(), BTreeMap::from([("ease".to_owned(), 0.5)]))]),
            users: 500,
            k: 20,
            ndcg_alone: BTreeMap::from([("ease".to_owned(), 0.2)]),
            lift: Some(Lift { over: "ease".to_owned(), ndcg: 0.01, low: 0.004, high: 0.016 }),
            ..Learned::default()
        },
        items: (0..20).map(|at| Item { places: if at < 5 { 20 } else { 0 }, users: Some(20 - at) }).collect(),
        users: vec![User {
            id: "u1".to_owned(),
            profile: vec![("segment".to_owned(), "heavy".to_owned())],
            rows: vec![row],
        }],
    }
}

#[test]
fn every_section_says_what_the_facts_say() {
    let page = page(&full()).unwrap();
    says(
        &page,
        "warnings",
        &[
            "Broken limit events: the events 12345, before 20000; expected at least 16000 (gate.max_drop = 0.2)",
            "Warning the clock went backwards",
            "1 of the gate's 2 limits do not hold, compared with n-2026-11-20-1",
        ],
    );
    says(&page, "read", &["events 10,000 9,900 100 0", "duplicate events rejected 60 0.60 %"]);
    says(&page, "cost", &["behavior 15.6 s – 3.00 GiB", "recommendations 6,000 1.0 MiB 4"]);
    says(
        &page,
        "metrics",
        &[
            "1,234 users",
            "fused 0.3000 0.2900 to 0.3100",
            "popularity 0.2000 0.1900 to 0.2100 – – fused is above (+50.0 %)",
            "ease 0.2950 0.2850 to 0.3050 – – fused is above (+1.7 %)",
            "fused 0.1250 – – – – –",
        ],
    );
    says(&page, "nights", &["n-2026-11-20-1 2026-11-20 published 9,900 300 25.0 % 0.2800 0.2700 to 0.2900"]);
    says(&page, "coverage", &["5 of 20 items", "(25.0 %), on 100 places", "1, most popular 40.0 % 100.0 %"]);
    says(&page, "drift", &["events broken the events 12,345 20,000 at least 16,000", "users holds"]);
    says(&page, "weights", &["+0.0100 NDCG (+0.0040 to +0.0160) over ease alone, +5.0 %: a clear gain."]);
    says(&page, "weights", &["ease 0.2000 0.750 0.500", "trend – – –"]);
    says(&page, "users", &["User u1", "segment heavy", "1 Tea i1 goes with Cups ease 1.500"]);
    assert!(words(&page).contains("Finished 2026-11-22 02:31:07 UTC."));
    let order = ["warnings", "read", "cost", "metrics", "nights", "coverage", "drift", "weights", "users"];
    let places: Vec<usize> =
        order.iter().map(|id| page.find(&format!("<section id=\"{id}\">")).unwrap()).collect();
    assert!(places.is_sorted(), "warnings come first, users last: {places:?}");
    assert_eq!(count(&page, "<svg"), 4);
    assert_eq!(page, super::page(&full()).unwrap(), "the same facts give the same bytes");
}

#[test]
fn whatever_the_shop_writes_shows_as_text() {
    const EVIL: &str = "<script>alert(1)</script>\"'&\u{0}";
    const SHOWN: &str = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;\u{fffd}";
    let evil = || EVIL.to_owned();
    let mut facts = full();
    facts.manifest.job = evil();
    facts.manifest.run_id = evil();
    facts.manifest.warnings = vec![evil()];
    facts.manifest.events.rejected = BTreeMap::from([(evil(), 1)]);
    facts.manifest.stages[0].name = evil();
    facts.manifest.tables.insert(evil(), TableRecord::default());
    facts.compared_with = Some(evil());
    facts.findings[0].what = evil();
    facts.metrics.push(Metric { slice: evil(), ..metric("fused", "ndcg", 0.5, None) });
    facts.metrics.push(metric(EVIL, "ndcg", 0.1, Some((0.0, 0.2))));
    facts.nights[0].run_id = evil();
    facts.nights[0].date = evil();
    facts.learned.weights.insert(evil(), 1.0);
    facts.learned.segments.insert(evil(), BTreeMap::new());
    facts.users[0].id = evil();
    facts.users[0].profile.push((evil(), evil()));
    facts.users[0].rows[0] =
        Row { rank: 1, item: evil(), title: evil(), score: 0.0, source: evil(), reason: evil() };
    let page = page(&facts).unwrap();
    assert!(!page.contains("<script") && !page.contains('\u{0}'));
    assert!(count(&page, SHOWN) > 20, "{}", count(&page, SHOWN));
    // What the page itself holds of these, once the data is out, is a document whose elements all close.
    let plain = page.replace(SHOWN, "");
    for name in ["table", "section", "tr", "td", "th", "svg", "div", "small", "strong", "text"] {
        let opened = count(&plain, &format!("<{name}>")) + count(&plain, &format!("<{name} "));
        assert_eq!(opened, count(&plain, &format!("</{name}>")), "{name}");
    }
}

#[test]
fn a_run_with_nothing_to_show_says_so() {
    let page = page(&Facts::default()).unwrap();
    says(&page, "warnings", &["No warnings.", "The gate found nothing to judge."]);
    says(&page, "read", &["events 0 0 0 0", "No row was rejected or excluded."]);
    says(&page, "cost", &["No stage is on record."]);
    says(&page, "metrics", &["Nothing was evaluated"]);
    says(&page, "nights", &["There is no earlier night"]);
    says(&page, "coverage", &["The catalogue as the run saw it is no longer there."]);
    says(&page, "weights", &["Nothing was learned"]);
    says(&page, "users", &["No user has a list."]);
    assert_eq!((count(&page, "<svg"), count(&page, "NaN"), count(&page, "inf ")), (0, 0, 0));
}

#[test]
fn a_first_night_has_its_own_figures_and_no_curve_of_nights() {
    let mut facts = full();
    facts.nights.remove(0);
    facts.compared_with = None;
    facts.findings.remove(0);
    let page = page(&facts).unwrap();
    says(&page, "nights", &["There is no earlier night", "n-2026-11-21-1 2026-11-21 published"]);
    says(&page, "warnings", &["All 1 limits of the gate hold, with nothing to compare"]);
    says(&page, "drift", &["only absolute limits were looked at"]);
    assert!(!section(&page, "nights").contains("<svg"));
}

#[test]
fn a_night_whose_metric_has_another_name_is_no_point_of_the_curve() {
    let mut facts = full();
    facts.nights[0].metric = "ndcg@20".to_owned();
    let page = page(&facts).unwrap();
    assert!(!section(&page, "nights").contains("<svg"));
    says(&page, "nights", &["ndcg@20 0.2800"]);
}

#[test]
fn what_was_let_through_is_said_once_and_as_accepted() {
    let mut facts = full();
    facts.findings = vec![finding("events", false, true)];
    facts.manifest.state = State::Published;
    facts.manifest.warnings = vec![format!("the gate let through {}", facts.findings[0])];
    let page = page(&facts).unwrap();
    says(&page, "warnings", &["Accepted events:"]);
    assert_eq!(count(section(&page, "warnings"), "the events"), 1);
    says(&page, "drift", &["events accepted"]);
}

#[test]
fn weights_that_the_job_gives_are_shown_as_given() {
    let mut facts = full();
    facts.learned = Learned { given: BTreeMap::from([("factors".to_owned(), 1.0)]), ..Learned::default() };
    let page = page(&facts).unwrap();
    says(&page, "weights", &["the job gives the weights", "factors 1.000"]);
}

#[test]
fn popularity_that_is_not_known_leaves_the_curve_of_places() {
    let mut facts = full();
    facts.items.iter_mut().for_each(|item| item.users = None);
    let page = page(&facts).unwrap();
    says(&page, "coverage", &["5 of 20 items", "no longer known"]);
    assert_eq!(count(section(&page, "coverage"), "<svg"), 1);
}

#[test]
fn places_are_spread_as_counted_by_hand() {
    let item = |places, users| Item { places, users: Some(users) };
    // All alike.
    let even = spread::spread(&[item(3, 1); 10]).unwrap();
    assert!(even.gini.abs() < 1e-12, "{}", even.gini);
    assert_eq!((even.items, even.listed, even.places, even.deciles[4]), (10, 10, 30, (0.1, 1.0)));
    // One has everything: 1 - 1/n.
    let mut items = [item(0, 0); 10];
    items[7] = item(5, 9);
    let one = spread::spread(&items).unwrap();
    assert!((one.gini - 0.9).abs() < 1e-12, "{}", one.gini);
    assert_eq!((one.listed, one.deciles[0], one.deciles[1]), (1, (1.0, 1.0), (0.0, 0.0)));
    assert_eq!((one.lorenz.first(), one.lorenz.last()), (Some(&(0.0, 0.0)), Some(&(1.0, 1.0))));
    // Fewer items than tenths, and nothing listed at all.
    let few = spread::spread(&[item(1, 5), item(1, 4), item(2, 3)]).unwrap();
    let sum: f64 = few.deciles.iter().map(|decile| decile.0).sum();
    assert!((sum - 1.0).abs() < 1e-12, "{sum}");
    assert_eq!(spread::spread(&[item(0, 1)]), None);
    assert_eq!(spread::spread(&[]), None);
}

#[test]
fn the_page_fetches_and_runs_nothing_and_knows_every_colour_of_its_plots() {
    let page = page(&full()).unwrap();
    for part in ["<script", "<link", "<img", "<iframe", "@import", "url(", "src="] {
        assert!(!page.contains(part), "{part}");
    }
    let elsewhere = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"));
    assert!(page.contains("default-src &#39;none&#39;"));
    let css = include_str!("report.css");
    for (attribute, rest) in page.match_indices("=\"#").map(|(at, _)| page.split_at(at)) {
        let name = attribute.rsplit(' ').next().unwrap();
        if name == "fill" || name == "stroke" {
            let colour = &rest[2..9];
            assert!(plots::COLOURS.contains(&colour), "{colour}");
            assert!(css.contains(&format!("[{name}=\"{colour}\"]")), "{name} {colour} has no dark twin");
        }
    }
}
