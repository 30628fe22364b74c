//! Runs: their folders, their stages, their manifest, and the one-step switch of `CURRENT`.
//!
//! ```text
//! <output>/.nightly.lock             held while a run of the job works; dies with the process, in a store
//!                                    with its term
//! <output>/CURRENT                   {"run_id": …}: the run that readers load
//! <output>/runs/nightly-2026-11-21-1/
//!     report.html                    the run for people; not counted, and made again at will
//!     manifest.json                  written last: a run with it is complete
//!     pinned                         there where the run is to be kept
//!     stages/behavior/stage.json     written last: a stage with it is complete
//!     recommendations/…              the published tables
//! ```
//!
//! Invariants: a file appears under its name only when it is whole (written beside it, forced to
//! disk with its folder, renamed); `CURRENT` names only complete runs, whose tables are there as
//! their manifest counts them; in a store it is replaced only where it is still what was read when the lock was
//! taken; a process killed at any moment leaves nothing that needs cleaning up
//! by hand. The room never looks into a table, except to check it before it is published
//! ([`check()`]).
//!
//! Cost: a stage that is taken from an earlier run costs its links, not its bytes; the check reads
//! four to five columns of every list once, a batch of rows at a time.

use std::path::PathBuf;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

mod check;
mod files;
mod find;
mod forget;
mod id;
mod lease;
mod lists;
mod manifest;
mod place;
mod problem;
mod runs;
mod stages;

pub use check::{Listed, check, count};
pub use files::write_whole;
pub use find::find;
pub use forget::Forgotten;
pub use id::{Id, Ids};
pub use lists::{List, Lists, Paired};
pub use manifest::{Cost, InputFile, Manifest, Rows, StageRecord, State, TableRecord, read_manifest};
pub use place::Place;
pub use problem::{Fault, Problem};
pub use runs::{Output, Run, RunInfo, current, list_runs, pin, previous};
pub use stages::{DoneStage, Fingerprint, Stage, StageWriter};

/// The page of a run, in its folder.
pub const REPORT: &str = "report.html";

/// What `CURRENT` says.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Current {
    /// The run that readers load.
    pub run_id: String,
    /// Its folder, relative to the folder `CURRENT` is in.
    pub path: String,
    /// The job.
    pub job: String,
    /// When it was published, RFC 3339, UTC.
    pub published_at: String,
    /// The earlier run that readers loaded until then, which is the one to go back to. Nothing where they loaded none,
    /// or have gone back to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<String>,
}

/// Why a run could not be opened, completed or published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the file system reported.
        #[source]
        source: std::io::Error,
    },
    /// A JSON file of ours does not parse.
    #[error("{}: expected what this program writes there", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Another process runs the job.
    #[error("{}: another run of this job is working ({holder})", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What it says of its holder.
        holder: String,
    },
    /// One output has one `CURRENT`: two jobs there would take it from each other night after night.
    #[error("{}: expected an output of this job's own; found that its CURRENT is of the job `{theirs}`", output.display())]
    OtherJob {
        /// The output.
        output: PathBuf,
        /// The job that publishes there.
        theirs: String,
    },
    /// A lock that was held was taken by somebody else: it was not renewed in time.
    #[error("{}: another run of this job has taken the lock, which could not be renewed in time", path.display())]
    LockLost {
        /// The lock.
        path: PathBuf,
    },
    /// A store refused.
    #[error(transparent)]
    Store(#[from] crate::lake::store::Error),
    /// A run was asked for that has no manifest.
    #[error("run {run_id} is not complete: it has no manifest, or none that can be read")]
    Incomplete {
        /// The run.
        run_id: String,
    },
    /// A table could not be written anew.
    #[error(transparent)]
    Rewrite(#[from] crate::lake::table::Error),
    /// Rows of users who were to be forgotten are still there.
    #[error("{}: expected no row of the users to be forgotten; found {found}", path.display())]
    Remains {
        /// The file.
        path: PathBuf,
        /// Their rows in it.
        found: u64,
    },
    /// A written table cannot be read back.
    #[error("cannot read back {}", path.display())]
    ReadBack {
        /// The file.
        path: PathBuf,
        /// What the reader reported.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// A written table breaks its contract; nothing is published.
    #[error("table `{table}`, {}: {problem}", path.display())]
    Broken {
        /// The table.
        table: String,
        /// The file, or the table's folder where no one file is at fault.
        path: PathBuf,
        /// The rule that is broken, and where.
        problem: Box<Problem>,
    },
}

/// The name of one attempt at a job's night.
fn run_id(job: &str, date: NaiveDate, attempt: u32) -> String {
    format!("{job}-{date}-{attempt}")
}

#[cfg(test)]
mod tests;
