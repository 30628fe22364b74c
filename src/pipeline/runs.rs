//! What an operator does with runs: list them, pin them, go back to one.

use crate::error::Error;
use crate::job::Job;
use crate::publish::{self, Manifest, RunInfo, State};

use super::current;

/// A run and what its manifest says, where that can be read.
pub(super) struct Listed {
    pub(super) info: RunInfo,
    pub(super) manifest: Option<Manifest>,
    pub(super) current: bool,
}

impl Listed {
    /// What became of it, in a word.
    pub(super) fn state(&self) -> String {
        let unknown = if self.info.complete { "damaged" } else { "unfinished" };
        self.manifest.as_ref().map_or(unknown.to_owned(), |manifest| manifest.state.to_string())
    }

    /// Rows of users' lists.
    pub(super) fn rows(&self) -> u64 {
        let lists = self.manifest.as_ref().and_then(|manifest| manifest.tables.get("recommendations"));
        lists.map_or(0, |table| table.rows)
    }

    /// Bytes of all published tables.
    pub(super) fn bytes(&self) -> u64 {
        self.manifest.iter().flat_map(|manifest| manifest.tables.values()).map(|table| table.bytes).sum()
    }

    /// The fused lists' NDCG, with its name.
    pub(super) fn metric(&self) -> Option<(String, f64)> {
        let fused = self.manifest.as_ref()?.metrics.get("fused")?.as_object()?;
        fused
            .iter()
            .find(|(name, _)| name.starts_with("ndcg@"))
            .and_then(|(name, value)| value.as_f64().map(|value| (name.clone(), value)))
    }
}

/// A job's runs, oldest first.
pub(super) fn listed(job: &Job) -> Result<Vec<Listed>, Error> {
    let current = match publish::current(&job.place, &job.spec.name.0) {
        // It names nothing, until a run is named in it anew.
        Err(publish::Error::Json { .. }) => None,
        current => current?,
    };
    let runs = publish::list_runs(&job.place, &job.spec.name.0)?;
    let listed = runs.into_iter().map(|info| {
        // A mirror may have a manifest that a store does not have; one damaged run is no reason to list none.
        let manifest = if info.complete { publish::read_manifest(&info.folder).ok().flatten() } else { None };
        let current = current.as_ref().is_some_and(|current| current.run_id == info.id);
        Listed { info, manifest, current }
    });
    Ok(listed.collect())
}

/// A table of a job's runs, newest first.
///
/// # Errors
/// If runs cannot be read.
pub fn list(job: &Job) -> Result<String, Error> {
    publish::current(&job.place, &job.spec.name.0)?;
    let runs = listed(job)?;
    if runs.is_empty() {
        return Err(Error::NoRun { output: job.spec.output.clone() });
    }
    let width = runs.iter().map(|run| run.info.id.len()).max().unwrap_or(0);
    let metric = runs.iter().rev().find_map(Listed::metric).map_or("metric".to_owned(), |(name, _)| name);
    let mut text = format!(
        "{:<width$}  {:<10}  {:<10}  {:<7}  {:<6}  {:>12}  {metric:>8}  {:>10}\n",
        "run", "date", "state", "current", "pinned", "rows", "size"
    );
    for run in runs.iter().rev() {
        let value = run.metric().map_or(String::new(), |(_, value)| format!("{value:.4}"));
        let mark = |set: bool, word: &'static str| if set { word } else { "" };
        let line = format!(
            "{:<width$}  {:<10}  {:<10}  {:<7}  {:<6}  {:>12}  {value:>8}  {:>6.1} MiB\n",
            run.info.id,
            run.info.date.to_string(),
            run.state(),
            mark(run.current, "current"),
            mark(run.info.pinned, "pinned"),
            run.rows(),
            run.bytes() as f64 / 1_048_576.0
        );
        text += &line;
    }
    Ok(text)
}

/// Pins a run, or lets it go.
///
/// # Errors
/// If there is no such run, or the disk refuses.
pub fn pin(job: &Job, run_id: &str, pinned: bool) -> Result<String, Error> {
    let run = named(job, run_id)?;
    publish::pin(&job.place, &run.info, pinned)?;
    Ok(format!(
        "{} {}\n",
        run.info.id,
        if pinned { "is kept until it is unpinned" } else { "is no longer pinned" }
    ))
}

/// Makes readers load an earlier run again: the one named, or the one that they loaded before the current.
///
/// # Errors
/// If there is none, it is not whole, or a run of the job is working.
pub fn rollback(job: &Job, run_id: Option<&str>) -> Result<String, Error> {
    let (from, run) = match run_id {
        Some(run_id) => {
            let run = named(job, run_id)?;
            // A CURRENT that cannot be read is written anew.
            let from =
                current(job).map_or_else(|_| "none, or none that can be read".to_owned(), |from| from.run_id);
            (from, run)
        }
        None => {
            let from = current(job)?.run_id;
            let previous = publish::previous(&job.place, &job.spec.name.0)?;
            let none = || Error::Usage { problem: format!("no run was published before {from}") };
            let run = named(job, &previous.ok_or_else(none)?.id)?;
            (from, run)
        }
    };
    let run_id = run.info.id;
    if run.manifest.as_ref().is_some_and(|manifest| manifest.state == State::Refused) {
        let problem =
            format!("run {run_id} was refused by the gate: expected a run that was published or held");
        return Err(Error::Usage { problem });
    }
    if run_id == from {
        return Ok(format!("readers load {run_id}, as before\n"));
    }
    let output = super::locked(job)?;
    output.make_current(&run_id)?;
    Ok(format!(
        "readers load {run_id} again; before it was {from}, which stays under runs/\na cache follows with `lamplighter load`\n"
    ))
}

/// The run of this name; `CURRENT` is the name of the one that readers load.
pub(super) fn named(job: &Job, run_id: &str) -> Result<Listed, Error> {
    let runs = listed(job)?;
    let found = runs.into_iter().find(|run| run.info.id == run_id || (run.current && run_id == "CURRENT"));
    found.ok_or_else(|| Error::NoSuchRun { run_id: run_id.to_owned(), job: job.spec.name.0.clone() })
}
