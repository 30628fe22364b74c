//! For human eyes: one user, item, query or run of what has been published.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, UInt64Array};

use crate::error::Error;
use crate::job::Job;
use crate::lake::{self, Lake, Param, input};
use crate::publish::{self, Manifest};
use crate::{behavior, catalog};

use super::current;
use super::roofline::{self, By};
use super::runs::{Listed, named};
use super::sql::table;

/// A user's profile and list.
///
/// # Errors
/// If nothing is published, or the user has no list.
pub fn user(job: &Job, id: &str, k: usize) -> Result<String, Error> {
    let id = &job.access.pseudonym(id);
    let shelf = Shelf::open(job, "")?;
    let profile = shelf.ask(
        "SELECT user_id, segment, n_events, n_items, n_purchases, first_time, last_time,
                round(price_low, 2) AS price_low, round(price_high, 2) AS price_high
         FROM user_profiles WHERE CAST(user_id AS VARCHAR) = $id",
        id,
        k,
    )?;
    let list = shelf.ask(
        "SELECT r.rank, r.item_id, i.title, i.category, round(r.score, 3) AS score, r.source, r.reason
         FROM recommendations AS r LEFT JOIN catalog AS i ON r.item_id = i.item_id
         WHERE CAST(r.user_id AS VARCHAR) = $id AND r.rank <= $k ORDER BY r.rank",
        id,
        k,
    )?;
    shelf.found(&format!("user {id}"), &[profile, list])
}

/// An item and the items listed with it.
///
/// # Errors
/// If nothing is published, or the item is not in the catalogue.
pub fn item(job: &Job, id: &str, k: usize) -> Result<String, Error> {
    let shelf = Shelf::open(job, "")?;
    let item = shelf.ask(
        "SELECT item_id, title, brand, category, price, eligible
         FROM catalog WHERE CAST(item_id AS VARCHAR) = $id",
        id,
        k,
    )?;
    let related = shelf.ask(
        "SELECT s.relation, s.rank, s.similar_item_id, i.title, i.category, round(s.score, 3) AS score
         FROM similar_items AS s LEFT JOIN catalog AS i ON s.similar_item_id = i.item_id
         WHERE CAST(s.item_id AS VARCHAR) = $id AND s.rank <= $k ORDER BY s.relation, s.rank",
        id,
        k,
    )?;
    shelf.found(&format!("item {id}"), &[item, related])
}

/// A search and the items listed for it.
///
/// # Errors
/// If nothing is published, or nobody searched for it.
pub fn query(job: &Job, words: &str, k: usize) -> Result<String, Error> {
    let shelf = Shelf::open(job, "")?;
    let normalised = words.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let list = shelf.ask(
        "SELECT q.rank, q.item_id, i.title, i.category, round(q.score, 3) AS score,
                round(q.content_score, 3) AS content, round(q.behavior_score, 3) AS behavior
         FROM query_items AS q LEFT JOIN catalog AS i ON q.item_id = i.item_id
         WHERE q.query = $id AND q.rank <= $k ORDER BY q.rank",
        &normalised,
        k,
    )?;
    shelf.found(&format!("query `{normalised}`"), &[list])
}

/// A run's manifest in a few lines.
///
/// # Errors
/// If nothing is published, or there is no such run.
pub fn run(job: &Job, run_id: Option<&str>) -> Result<String, Error> {
    let run = match run_id {
        Some(run_id) => named(job, run_id)?,
        None => named(job, &current(job)?.run_id)?,
    };
    let manifest = run.manifest.ok_or(publish::Error::Incomplete { run_id: run.info.id })?;
    Ok(describe(&manifest))
}

/// A manifest in a few lines.
pub(crate) fn describe(manifest: &Manifest) -> String {
    let counts = |counts: &std::collections::BTreeMap<String, u64>| -> String {
        if counts.is_empty() {
            return "0".to_owned();
        }
        let total: u64 = counts.values().sum();
        let parts: Vec<String> = counts.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
        format!("{total} ({})", parts.join(", "))
    };
    let mut text = format!("run {} of {}\n\n", manifest.run_id, manifest.date);
    let sources = [("events", "behavior", &manifest.events), ("items", "catalog", &manifest.items)];
    let is_done = |stage: &str| manifest.stages.iter().any(|done| done.name == stage);
    for (name, _, rows) in sources.into_iter().filter(|(_, stage, _)| is_done(stage)) {
        let files = manifest.inputs.iter().filter(|file| file.input == name);
        let in_files: u64 = files.map(|file| file.rows).sum();
        if in_files > 0 && in_files != rows.read {
            text += &format!(
                "  {name:<8} {in_files} rows in files; the source statement makes {} of them\n",
                rows.read
            );
        }
        text += &format!(
            "  {name:<8} read {}, kept {}, rejected {}, excluded {}\n",
            rows.read,
            rows.kept,
            counts(&rows.rejected),
            counts(&rows.excluded)
        );
    }
    text += "\n";
    for stage in &manifest.stages {
        let took = match &stage.reused_from {
            Some(run) => format!("reused from {run}"),
            None => format!("{:.1} s", stage.elapsed_ms as f64 / 1000.0),
        };
        text += &format!("  {:<12} {took}\n", stage.name);
    }
    let shares = roofline::shares(manifest);
    let ways = [(By::F32, "here"), (By::Bf16, "here in bf16"), (By::Gpu, "on the GPU")];
    for (by, place) in ways {
        let of: Vec<&roofline::Share<'_>> = shares.iter().filter(|share| share.by == by).collect();
        let Some(first) = of.first() else { continue };
        let percent = of.iter().map(|share| format!("{} {:.0} %", share.stage, share.share * 100.0));
        let (peak, percent) = (first.peak / 1e9, percent.collect::<Vec<_>>().join(", "));
        text += &format!("\n  of {peak:.0} GFLOP/s that products come to {place}: {percent}\n");
    }
    if !manifest.tables.is_empty() {
        text += "\n";
    }
    for (name, table) in &manifest.tables {
        text += &format!(
            "  {name:<16} {:>10} rows  {:>8.1} MiB  {} file(s)\n",
            table.rows,
            table.bytes as f64 / 1_048_576.0,
            table.files
        );
    }
    let judgement: super::gate::Judgement = serde_json::from_value(manifest.gate.clone()).unwrap_or_default();
    if !judgement.findings.is_empty() {
        let with = judgement.compared_with.as_deref().map_or("nothing before it".to_owned(), str::to_owned);
        let n_broken = judgement.findings.iter().filter(|finding| !finding.holds).count();
        text += &format!(
            "\n  gate: {} limits, {n_broken} broken, compared with {with}\n",
            judgement.findings.len()
        );
        for finding in judgement.broken() {
            text += &format!("    {finding}\n");
        }
    }
    for warning in &manifest.warnings {
        text += &format!("\n  warning: {warning}");
    }
    if !manifest.warnings.is_empty() {
        text += "\n";
    }
    text
}

/// The current run's tables, registered.
pub(super) struct Shelf {
    pub(super) lake: Lake,
    /// Their names.
    pub(super) tables: Vec<String>,
    run_id: String,
}

impl Shelf {
    /// Registers the current run's tables; those of all runs (`all_…`) and the inputs where the statement
    /// names such a one.
    pub(super) fn open(job: &Job, statement: &str) -> Result<Self, Error> {
        let current = current(job)?;
        let folder = job.place.root().join(&current.path);
        let lake = Lake::open(&lake::Config {
            threads: job.spec.threads,
            memory_bytes: job.spec.sql_memory_mib.bytes(),
            spill_dir: Some(std::env::temp_dir()),
        })?;
        let mut tables: Vec<(String, PathBuf)> = Vec::new();
        let manifest = publish::read_manifest(&folder)?;
        for name in manifest.iter().flat_map(|manifest| manifest.tables.keys()) {
            if name != "rejected" {
                tables.push((name.clone(), folder.join(name)));
            }
        }
        for source in ["events", "items"] {
            tables.push((
                format!("rejected_{source}"),
                folder.join("rejected").join(format!("source={source}")),
            ));
        }
        tables.push(("catalog".to_owned(), folder.join("stages/catalog/catalog.parquet")));
        for (_, path) in &tables {
            job.place.fetch(path)?;
        }
        tables.retain(|(_, path)| path.exists());
        for (name, path) in &tables {
            lake.register_file(name, path)?;
        }
        let runs = super::runs::listed(job)?;
        lake.register_rows("runs", runs_table(job, &runs)?)?;
        let mut names: Vec<String> = tables.into_iter().map(|(name, _)| name).collect();
        names.push("runs".to_owned());
        if statement.contains("all_") {
            names.extend(of_all_runs(&lake, job, &runs)?);
        }
        names.extend(inputs(&lake, job, statement)?);
        Ok(Self { lake, tables: names, run_id: current.run_id })
    }

    fn ask(&self, sql: &str, id: &str, k: usize) -> Result<RecordBatch, Error> {
        let params = [("id", Param::Text(id.to_owned())), ("k", Param::Int(k as i64))];
        let used: Vec<_> = params.into_iter().filter(|(name, _)| sql.contains(&format!("${name}"))).collect();
        Ok(self.lake.query("show", sql, &used)?)
    }

    fn found(&self, what: &str, tables: &[RecordBatch]) -> Result<String, Error> {
        if tables.iter().all(|rows| rows.num_rows() == 0) {
            return Err(Error::NotFound { what: what.to_owned(), run_id: self.run_id.clone() });
        }
        let mut text = format!("{what} in run {}\n", self.run_id);
        for rows in tables {
            if rows.num_rows() == 0 {
                text += "no list\n";
            } else {
                text += &table(rows)?;
            }
        }
        Ok(text)
    }
}

/// Every published table of all complete runs, with the run and its date before its own columns.
fn of_all_runs(lake: &Lake, job: &Job, runs: &[Listed]) -> Result<Vec<String>, Error> {
    let mut parts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (at, run) in runs.iter().enumerate() {
        let Some(manifest) = &run.manifest else { continue };
        for table in manifest.tables.keys().filter(|table| *table != "rejected") {
            let (path, part) = (run.info.folder.join(table), format!("{table}_of_run_{at}"));
            job.place.fetch(&path)?;
            if path.exists() {
                lake.register_file(&part, &path)?;
                parts.entry(table.clone()).or_default().push(format!(
                    "SELECT '{}' AS run_id, CAST('{}' AS DATE) AS date, * FROM {part}",
                    run.info.id, run.info.date
                ));
            }
        }
    }
    for (table, parts) in &parts {
        // An older version's run may lack a column.
        lake.define(&format!("all_{table}"), &parts.join(" UNION ALL BY NAME "), &[])?;
    }
    Ok(parts.into_keys().map(|table| format!("all_{table}")).collect())
}

/// The job's inputs as they are now, mapped onto the contract's columns.
fn inputs(lake: &Lake, job: &Job, statement: &str) -> Result<Vec<String>, Error> {
    let spec = &job.spec.inputs;
    let text = spec.items.as_ref().and_then(|items| items.text.as_deref());
    let inputs = [
        ("events", Some(&spec.events), behavior::event_contract()),
        ("items", spec.items.as_ref(), catalog::item_contract(text)),
        ("users", spec.users.as_ref(), behavior::user_contract()),
    ];
    let mut names = Vec::new();
    for (name, config, contract) in inputs {
        let is_named = statement.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name);
        if let (Some(config), true) = (config, is_named) {
            let input = input::discover(config, &contract, &job.access)
                .map_err(|source| Error::Input { input: name, source })?;
            lake.register_input(name, &input, &contract)?;
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn runs_table(job: &Job, runs: &[Listed]) -> Result<RecordBatch, Error> {
    let text = |of: &dyn Fn(&Listed) -> String| -> ArrayRef {
        std::sync::Arc::new(runs.iter().map(|run| Some(of(run))).collect::<StringArray>())
    };
    let flag = |of: &dyn Fn(&Listed) -> bool| -> ArrayRef {
        std::sync::Arc::new(runs.iter().map(|run| Some(of(run))).collect::<BooleanArray>())
    };
    let count = |of: &dyn Fn(&Listed) -> u64| -> ArrayRef {
        std::sync::Arc::new(runs.iter().map(of).collect::<UInt64Array>())
    };
    let columns = vec![
        ("run_id", text(&|run| run.info.id.clone())),
        ("date", text(&|run| run.info.date.to_string())),
        ("state", text(&Listed::state)),
        ("complete", flag(&|run| run.info.complete)),
        ("current", flag(&|run| run.current)),
        ("pinned", flag(&|run| run.info.pinned)),
        ("n_rows", count(&Listed::rows)),
        ("bytes", count(&Listed::bytes)),
        ("folder", text(&|run| job.place.shown(&run.info.folder).display().to_string())),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}
