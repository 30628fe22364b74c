//! What a finished run says on stdout: read, learned, written, where, and what to do next.

use std::path::{Path, PathBuf};

use crate::pipeline::{Backtest, Outcome, Search, show};
use crate::publish::State;

pub(super) fn text(outcome: &Outcome) -> String {
    let manifest = &outcome.manifest;
    let mut text = show::describe(manifest);
    if let Some(metrics) = &outcome.metrics {
        text += &format!("\n{metrics}");
    }
    let memory = manifest.peak_memory_bytes as f64 / 1_073_741_824.0;
    text += &format!("\n  {:.1} s", outcome.elapsed.as_secs_f64());
    if memory > 0.0 {
        text += &format!(", peak memory {memory:.2} GiB");
    }
    text += "\n";
    let folder = from_here(&outcome.folder);
    for removed in &outcome.retired {
        text += &format!("\nremoved {removed}");
    }
    if outcome.state == Some(State::Published) {
        text += &format!(
            "\npublished {}\n\nnext: lamplighter show user JOB ID    one user's list\n      lamplighter sql JOB 'SELECT …'    every table is a view\n",
            folder.display()
        );
    } else if outcome.state == Some(State::Held) {
        text += &format!(
            "\ncomplete, not published: {}\nCURRENT names a later night; lamplighter rollback JOB {} publishes this one\n",
            folder.display(),
            manifest.run_id
        );
    } else {
        text += &format!(
            "\nnot published yet: {}\nnext: the same command without --stage goes on\n",
            folder.display()
        );
    }
    text
}

pub(super) fn of_backtest(found: &Backtest) -> String {
    let (metrics, elapsed) = (from_here(&found.metrics), found.elapsed.as_secs_f64());
    format!("{}\n  {elapsed:.1} s\n\nall metrics: {}\n", found.report, metrics.display())
}

pub(super) fn of_search(found: &Search) -> String {
    let (trials, elapsed) = (from_here(&found.trials), found.elapsed.as_secs_f64());
    let mut text = format!("{}\n  {elapsed:.1} s\n", found.report);
    if found.trials.exists() {
        text += &format!("\nall trials: {}\n", trials.display());
    }
    if let Some(tuned) = &found.tuned {
        let tuned = from_here(tuned);
        text += &format!("better keys: {0}\nnext: lamplighter run JOB --with {0}\n", tuned.display());
    }
    text
}

/// The path as a person in the current folder would write it.
fn from_here(path: &Path) -> PathBuf {
    let (Ok(whole), Ok(here)) = (path.canonicalize(), std::env::current_dir()) else {
        return path.to_owned();
    };
    whole.strip_prefix(&here).map_or(whole.clone(), Path::to_owned)
}
