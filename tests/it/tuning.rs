//! The search for better keys.

use crate::shop::Shop;
use crate::table::rows;

const COLUMNS: [&str; 7] = ["trial", "source", "key", "value", "ndcg", "gain", "kept"];

/// A job that can be bettered: it has two sources, and a factor of one number.
fn poor_shop() -> Shop {
    let shop = Shop::new(10_000, 0.0);
    let without =
        "without = ['history', 'repeat', 'trend', 'ease', 'walk', 'cosine', 'sequence', 'spectral', 'peers']";
    shop.replace("rank = 16", "rank = 1");
    shop.replace("weights = { factors = 1.0, popularity = 0.1, history = 0.5 }", without);
    shop
}

fn tune(shop: &Shop, more: &[&str]) -> (Vec<Vec<String>>, String) {
    let mut args = vec!["tune", "job.toml", "--date", "2026-11-21"];
    args.extend(more);
    let output = shop.lamplighter(&args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (rows(&shop.path("out/tuning"), &COLUMNS), text)
}

#[test]
fn a_search_goes_on_where_it_stopped_and_its_keys_make_a_run() {
    let shop = poor_shop();
    let (first, text) = tune(&shop, &["--trials", "5"]);
    let numbers = |rows: &[Vec<String>]| {
        let mut numbers: Vec<u32> = rows.iter().map(|row| row[0].parse().expect("a number")).collect();
        numbers.dedup();
        numbers
    };
    assert_eq!(numbers(&first), [1, 2, 3, 4, 5]);
    assert!(text.starts_with("5 trials; NDCG 0."), "{text}");
    let (whole, _) = tune(&shop, &["--trials", "12"]);
    assert_eq!(numbers(&whole).len(), 12);
    assert_eq!(whole[..first.len()], first, "earlier trials are taken as they are");
    let off = ["repeat", "ease", "walk", "cosine", "sequence", "spectral", "peers"];
    assert!(whole.iter().all(|row| !off.contains(&row[1].as_str())), "{whole:?}");

    // In one go it is the same search.
    assert_eq!(tune(&poor_shop(), &["--trials", "12"]).0, whole);

    let kept: Vec<&Vec<String>> = whole.iter().filter(|row| row[6] == "true").collect();
    assert!(!kept.is_empty(), "a job of one factor can be bettered");
    let tuned = std::fs::read_to_string(shop.path("out/tuning/tuned.toml")).expect("tuned keys");
    for row in &kept {
        let name = row[2].split('.').next_back().expect("a name");
        assert!(tuned.contains(name), "{name} in {tuned}");
    }
    shop.run(&["--with", "out/tuning/tuned.toml"]);
    let manifest = crate::shop::manifest(&shop.current());
    let last = kept[kept.len() - 1][2].split('.').next_back().expect("a name");
    let job = manifest["job_text"].as_str().expect("the job");
    assert!(job.contains(last), "{last} in {job}");

    // Another seed is another search.
    let (another, _) = tune(&shop, &["--trials", "2", "--set", "seed=8"]);
    assert_eq!(numbers(&another), [1, 2]);
    assert_ne!(another[0], whole[0]);
}

#[test]
fn a_search_refuses_what_it_cannot_do() {
    let shop = Shop::new(2_000, 0.0);
    let refused = |args: &[&str]| {
        let output = shop.lamplighter(args);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let given = refused(&["tune", "job.toml"]);
    assert!(given.contains("expected a job without ranking.weights; found them"), "{given}");
    let budget = refused(&["tune", "job.toml", "--budget", "soon"]);
    assert!(budget.contains("expected a time such as 90s, 30m or 2h; found `soon`"), "{budget}");
    shop.without_weights();
    std::fs::write(shop.path("over.toml"), "[linear]\nspeed = 1\n").expect("a file");
    let unknown = refused(&["tune", "job.toml", "--with", "over.toml"]);
    assert!(unknown.contains("unknown field `speed`"), "{unknown}");
}
