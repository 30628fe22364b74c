//! `manifest.json`: what a run was made from, what it made, and what it cost.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Error;
use super::files::read_json;

/// A run's record. Keys only ever get added; one that an older run lacks reads as empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// The program's version.
    pub lamplighter: String,
    /// What the program was built for: system, processor, profile. Set when the run is published.
    pub build: String,
    /// The run.
    pub run_id: String,
    /// The job's name.
    pub job: String,
    /// The run date.
    pub date: String,
    /// What became of it.
    pub state: State,
    /// When the run's process began, RFC 3339, UTC; a resumed run's last process.
    pub started_at: String,
    /// When the manifest was written.
    pub finished_at: String,
    /// The job file's text, `--set` applied.
    pub job_text: String,
    /// The job's seed.
    pub seed: u64,
    /// What tells the key that users' ids are hashed with from others; empty where they are as the shop has them.
    pub pseudonyms: String,
    /// Threads used.
    pub threads: usize,
    /// Every input file.
    pub inputs: Vec<InputFile>,
    /// What became of every event: `read = kept + rejected + excluded`.
    pub events: Rows,
    /// What became of every catalogue row.
    pub items: Rows,
    /// Published tables by name.
    pub tables: BTreeMap<String, TableRecord>,
    /// Stages in order.
    pub stages: Vec<StageRecord>,
    /// The process's highest resident memory, in bytes.
    pub peak_memory_bytes: u64,
    /// f32 operations a second that products came to on this machine; 0 where no stage of this run multiplied.
    pub peak_flops: f64,
    /// The same in bf16; 0 where no stage of this run multiplied so.
    pub peak_bf16_flops: f64,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// The evaluation in short: system, then `metric@k`, over all users.
    pub metrics: BTreeMap<String, Value>,
    /// What the gate found: the run compared with, and each limit with its value.
    pub gate: Value,
    /// What stages learned: objectives, metrics, counts.
    pub facts: BTreeMap<String, Value>,
}

/// What became of a complete run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It was let through: `CURRENT` has named it, or the process was stopped just before.
    #[default]
    Published,
    /// The gate refused it.
    Refused,
    /// It is of an earlier night than the one in `CURRENT`, which stayed.
    Held,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Published => "published",
            Self::Refused => "refused",
            Self::Held => "held",
        })
    }
}

/// An input file as it was read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InputFile {
    /// Which of the job's inputs.
    pub input: String,
    /// Where it is.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// When it was last changed, in nanoseconds since 1970.
    pub modified_ns: u64,
    /// Rows.
    pub rows: u64,
    /// What a store tells versions of it apart by; empty in a folder.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub etag: String,
}

/// What became of an input's rows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Rows {
    /// Rows read.
    pub read: u64,
    /// Rows that count.
    pub kept: u64,
    /// Faulty rows by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Unwanted rows by reason.
    pub excluded: BTreeMap<String, u64>,
}

/// A published table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRecord {
    /// Rows of all its files.
    pub rows: u64,
    /// Bytes of all its files.
    pub bytes: u64,
    /// How many files.
    pub files: u64,
}

/// A stage as the run went through it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StageRecord {
    /// Its name.
    pub name: String,
    /// The hash that decides whether it may be reused.
    pub fingerprint: String,
    /// How long this run spent on it.
    pub elapsed_ms: u64,
    /// The run whose result was taken, if one was.
    pub reused_from: Option<String>,
    /// What it cost the machine.
    #[serde(default)]
    pub cost: Cost,
}

/// What a stage cost the machine; 0 where the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// Processor time, of all threads.
    pub cpu_ms: u64,
    /// Bytes read, from memory or disk.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// The highest resident memory.
    pub peak_memory_bytes: u64,
}

/// A run's manifest; `None` where the run has none, so is not complete.
///
/// # Errors
/// If it is there and cannot be read.
pub fn read_manifest(run: &Path) -> Result<Option<Manifest>, Error> {
    read_json(&run.join("manifest.json"))
}

impl Manifest {
    /// Records a stage.
    pub fn stage(
        &mut self,
        name: &str,
        fingerprint: &str,
        (elapsed, cost): (Duration, Cost),
        reused_from: Option<String>,
    ) {
        self.stages.push(StageRecord {
            cost,
            name: name.to_owned(),
            fingerprint: fingerprint.to_owned(),
            elapsed_ms: elapsed.as_millis() as u64,
            reused_from,
        });
    }
}

impl fmt::Display for TableRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, {} bytes, {} files", self.rows, self.bytes, self.files)
    }
}
