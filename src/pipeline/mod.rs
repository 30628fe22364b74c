//! The story of a night: every stage's door, in order.
//!
//! ```text
//! events, items ─► behavior ─► catalog ─► encode ──► profile ─┐
//!                     │                      │                ├─► learn ─► rank ─► evaluate ─► gate ─► publish
//!                     ├──► factorize ────────┼────────────────┤
//!                     └──► neighbors ────────┴────────────────┘
//! ```
//!
//! A stage reads Parquet and writes Parquet into its own folder of the run. Its fingerprint (inputs,
//! its parameters, its statements, the version) decides whether a resumed or repeated run may take
//! the folder as it is. Only this module calls rooms' doors; it interprets nothing itself.

use std::time::{Duration, Instant};

use chrono::{NaiveDate, Utc};

use crate::error::Error;
use crate::job::Job;
use crate::lake::Access;
use crate::lake::store::Store;
use crate::publish::{Current, Manifest, Output, Place, State};

mod attributes;
mod check;
mod dictionary;
mod diff;
mod encode;
mod estimate;
mod evaluate;
mod factorize;
mod forget;
mod gate;
mod history;
mod learn;
mod learned;
mod lists;
pub mod plumbing;
mod popular;
mod publish;
mod rank;
mod related;
mod report;
mod roofline;
pub mod runs;
pub mod serve;
mod shelf;
pub mod show;
mod sql;
mod stages;
mod tell;
mod tune;
mod usage;

pub use check::check;
pub use diff::diff;
pub use estimate::plan;
pub use forget::forget;
pub use report::report;
pub use sql::{Format, sql, sql_to_file};
use stages::Night;
use tell::Told;
pub use tune::{Budget, Search};

/// The stages, in the order they run.
pub const STAGES: [&str; 11] = [
    "behavior",
    "catalog",
    "encode",
    "factorize",
    "neighbors",
    "profile",
    "learn",
    "rank",
    "evaluate",
    "gate",
    "publish",
];

/// What a run is asked for beside its job.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The run date; the job's, or today (UTC), where it is not given.
    pub date: Option<NaiveDate>,
    /// The last stage to run.
    pub until_stage: Option<String>,
    /// Findings of the gate that need not hold, by name; `all` waves everything through.
    pub accept: Vec<String>,
    /// Whether a run of an earlier night than the one in `CURRENT` takes its place.
    pub make_current: bool,
}

/// What happens during a run, for whoever shows it.
pub enum Event<'a> {
    /// A run folder has been opened.
    Run {
        /// Its name.
        run_id: &'a str,
        /// Whether an unfinished run goes on.
        resumed: bool,
    },
    /// A stage has begun.
    Started {
        /// Its name.
        stage: &'a str,
    },
    /// A stage has got further.
    Progress {
        /// Its name.
        stage: &'a str,
        /// Units done.
        done: u64,
        /// Units there are.
        of: u64,
        /// What is counted.
        unit: &'a str,
    },
    /// A stage's earlier result was taken.
    Reused {
        /// Its name.
        stage: &'a str,
        /// The run that made it.
        from: &'a str,
    },
    /// A stage has ended.
    Finished {
        /// Its name.
        stage: &'a str,
        /// How long it took.
        elapsed: Duration,
        /// What it made, in a few words.
        note: &'a str,
    },
    /// A trial of a search has ended.
    Tried {
        /// Its number, from 1.
        number: usize,
        /// What was tried and what came of it.
        note: &'a str,
    },
    /// Something the operator should know.
    Warning(&'a str),
}

/// What a run came to.
pub struct Outcome {
    /// The manifest as written, or as far as the run went.
    pub manifest: Manifest,
    /// The run's folder.
    pub folder: std::path::PathBuf,
    /// What became of it; nothing yet where the run was asked to stop before that.
    pub state: Option<State>,
    /// The metrics as a table for people, where there was an evaluation.
    pub metrics: Option<String>,
    /// Old runs that were removed.
    pub retired: Vec<String>,
    /// Since the command began.
    pub elapsed: Duration,
}

/// Runs a job and publishes what it made.
///
/// # Errors
/// See [`Error`]; `CURRENT` still names the run it named before.
pub fn run(job: &Job, options: &Options, on_event: &mut dyn FnMut(Event)) -> Result<Outcome, Error> {
    let began = Instant::now();
    let last = options.until_stage.as_deref().unwrap_or("publish");
    let mut told = Told::begin(job, on_event);
    let outcome = at_night(job, options, on_event, |mut night| {
        told.trace.run_id = Some(night.run.id().to_owned());
        for stage in STAGES {
            told.trace.begin(stage);
            night.stage_named(stage)?;
            told.trace.end(night.reused(stage));
            if stage == last {
                break;
            }
        }
        Ok(night.outcome(began.elapsed()))
    });
    told.end(job, &outcome, on_event);
    outcome
}

/// The stages that lists on held-out behaviour need.
const BACKTEST: [&str; 6] = ["behavior", "catalog", "encode", "factorize", "learn", "evaluate"];

/// What an evaluation came to.
pub struct Backtest {
    /// Metrics of every system, as tables for people.
    pub report: String,
    /// The same and more as Parquet.
    pub metrics: std::path::PathBuf,
    /// Since the command began.
    pub elapsed: Duration,
}

/// Evaluates a job offline: everything up to the metrics, and no list for tonight. A later run of the
/// same date takes the stages over.
///
/// # Errors
/// See [`Error`].
pub fn evaluate(job: &Job, options: &Options, on_event: &mut dyn FnMut(Event)) -> Result<Backtest, Error> {
    let began = Instant::now();
    if !job.spec.evaluation.enabled {
        let problem = "expected evaluation.enabled = true; found false".to_owned();
        return Err(Error::Usage { problem });
    }
    at_night(job, options, on_event, |mut night| {
        for stage in BACKTEST {
            night.stage_named(stage)?;
        }
        let report = night.done["evaluate"].facts["report"].as_str().unwrap_or("nobody to compare with\n");
        Ok(Backtest {
            report: report.to_owned(),
            metrics: night.folder("evaluate").join("metrics"),
            elapsed: began.elapsed(),
        })
    })
}

/// Searches for better values of a job's keys, on what comes before anything that an evaluation holds out.
/// Changes nothing but `tuning/` under the output.
///
/// # Errors
/// See [`Error`].
pub fn tune(
    job: &Job,
    options: &Options,
    budget: Budget,
    on_event: &mut dyn FnMut(Event),
) -> Result<Search, Error> {
    let began = Instant::now();
    if job.spec.ranking.weights.is_some() {
        let problem = "tune learns weights: expected a job without ranking.weights; found them".to_owned();
        return Err(Error::Usage { problem });
    }
    at_night(job, options, on_event, |mut night| {
        for stage in ["behavior", "catalog", "encode", "factorize"] {
            night.stage_named(stage)?;
        }
        night.tune(budget, began)
    })
}

/// Checks the inputs, locks the output and opens tonight's run for some work.
fn at_night<T>(
    job: &Job,
    options: &Options,
    on_event: &mut dyn FnMut(Event),
    work: impl FnOnce(Night<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let inputs = check::inputs(job)?;
    // Before there is a lock file in another job's output.
    crate::publish::current(&job.place, &job.spec.name.0)?;
    let output = locked(job)?;
    work(Night::open(job, &inputs, options, &output, on_event)?)
}

/// Opens a job's output where it is in a store; a folder needs no opening. `access` has the key of pseudonyms where
/// the job wants them.
///
/// # Errors
/// If the store cannot be used.
pub fn open(mut job: Job, access: Access) -> Result<Job, Error> {
    if let Some(url) = job.output_url() {
        let store = Store::open(url, &access).map_err(Error::Output)?;
        job.place = Place::store(store, job.place.root()).map_err(|error| match error {
            crate::publish::Error::Store(source) => Error::Output(source),
            other => other.into(),
        })?;
    }
    job.access = access;
    Ok(job)
}

/// The job's output, while no other process works in it.
fn locked(job: &Job) -> Result<Output, Error> {
    let spec = &job.spec;
    Ok(Output::open(&job.place, &spec.name.0, spec.publish.lease_seconds.0)?)
}

/// Sets the one thread count that rayon, candle and the SQL engine share; all cores where it is 0.
pub fn use_threads(threads: usize) {
    // A pool that is there already (a second job in one process) keeps its size.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
}

impl Night<'_> {
    fn stage_named(&mut self, stage: &str) -> Result<(), Error> {
        match stage {
            "behavior" => self.behavior(),
            "catalog" => self.catalog(),
            "encode" => self.encode(),
            "factorize" => self.factorize(),
            "neighbors" => self.neighbors(),
            "profile" => self.profile(),
            "learn" => self.learn(),
            "rank" => self.rank(),
            "evaluate" => self.evaluate(),
            "gate" => self.gate(),
            _ => self.publish(),
        }
    }
}

fn run_date(job: &Job, options: &Options) -> NaiveDate {
    options.date.or(job.spec.date.map(|date| date.0)).unwrap_or_else(|| Utc::now().date_naive())
}

/// The run that readers load.
fn current(job: &Job) -> Result<Current, Error> {
    let found = crate::publish::current(&job.place, &job.spec.name.0)?;
    found.ok_or_else(|| Error::NoRun { output: job.spec.output.clone() })
}
