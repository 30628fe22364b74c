//! The import law: which module may name which other, and which foreign crate.

use std::path::{Path, PathBuf};

/// Rooms in the order data flows through them; a room may name only earlier ones, and their types.
const ROOMS: [&str; 20] = [
    "lake",
    "behavior",
    "catalog",
    "encoder",
    "factor",
    "linear",
    "neighbors",
    "profile",
    "repeat",
    "cold",
    "ranking",
    "retrieval",
    "learning",
    "tuning",
    "evaluation",
    "gate",
    "publish",
    "cache",
    "observe",
    "report",
];

/// Foreign crates that only some modules may name.
const KEPT: [(&str, &[&str]); 18] = [
    ("datafusion", &["lake"]),
    ("tokio", &["lake"]),
    ("futures", &["lake"]),
    ("object_store", &["lake"]),
    ("candle_core", &["encoder"]),
    ("candle_nn", &["encoder"]),
    ("safetensors", &["encoder"]),
    ("tokenizers", &["encoder"]),
    ("polars", &["evaluation", "pipeline"]),
    ("gemm", &["matrix"]),
    ("clap", &["cli"]),
    ("indicatif", &["cli"]),
    ("toml", &["job"]),
    ("plotters", &["report"]),
    ("redis", &["cache"]),
    ("tpe", &["tuning"]),
    ("rand", &["tuning"]),
    ("ureq", &["observe", "encoder"]),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn module_of(path: &Path, src: &Path) -> String {
    let below = path.strip_prefix(src).expect("below src");
    let first = below.components().next().expect("a component").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Names that follow `prefix` in code, comments left out.
fn named_after<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| {
        line.match_indices(prefix).map(|(at, _)| &line[at + prefix.len()..]).collect::<Vec<_>>()
    })
    .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(""))
    .collect()
}

#[test]
fn modules_name_only_what_the_law_allows() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut broken = Vec::new();
    let files = sources(&src);
    assert!(files.len() > 30, "the sources were found");
    for path in &files {
        let text = std::fs::read_to_string(path).expect("a source");
        let module = module_of(path, &src);
        if path.file_name().is_some_and(|name| name == "tests.rs") {
            continue;
        }
        let place = ROOMS.iter().position(|room| *room == module);
        for named in named_after(&text, "crate::") {
            let other = ROOMS.iter().position(|room| *room == named);
            let allowed = match (module.as_str(), place, other) {
                ("cli" | "pipeline" | "lib" | "main", _, _) => named != "cli" || module == "main",
                ("job" | "error", _, _) => named != "pipeline" && named != "cli",
                ("matrix" | "ids" | "random", _, _) => named == module,
                (_, Some(place), Some(other)) => other <= place,
                (_, Some(_), None) => ["matrix", "ids", "random", "tests"].contains(&named),
                _ => true,
            };
            if !allowed && !named.is_empty() {
                broken.push(format!("{} names crate::{named}", path.display()));
            }
        }
        for (foreign, homes) in KEPT {
            let used = !named_after(&text, &format!("use {foreign}")).is_empty()
                || text.contains(&format!("{foreign}::"));
            if used && !homes.contains(&module.as_str()) {
                broken.push(format!("{} names {foreign}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn files_stay_short_enough_to_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let long: Vec<String> = [root.join("src"), root.join("tests")]
        .iter()
        .flat_map(|folder| sources(folder))
        .filter_map(|path| {
            let lines = std::fs::read_to_string(&path).expect("a source").lines().count();
            (lines > 600).then(|| format!("{}: {lines} lines", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}
