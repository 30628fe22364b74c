//! The root error: one variant a stage, each carrying the room's own.

use std::path::PathBuf;

use crate::{
    behavior, cache, catalog, encoder, evaluation, factor, job, lake, linear, matrix, neighbors, profile,
    publish, ranking, repeat, report, retrieval, tuning,
};

/// Anything a command can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The job file was refused.
    #[error(transparent)]
    Job(#[from] job::Error),
    /// An input was refused before any work.
    #[error("{input}: {source}")]
    Input {
        /// Which of the job's inputs.
        input: &'static str,
        /// Why.
        source: lake::input::Error,
    },
    /// The output's store cannot be used.
    #[error("output: {0}")]
    Output(#[source] lake::store::Error),
    /// Ids of two inputs cannot be compared.
    #[error("{input}: column `{column}`: expected {events} as in the events; found {found}")]
    IdTypes {
        /// The id.
        column: &'static str,
        /// The input that differs from the events.
        input: &'static str,
        /// The type in the events.
        events: String,
        /// The type there.
        found: String,
    },
    /// The model or the device was refused before any work.
    #[error("encoder: {0}")]
    Model(#[source] encoder::Error),
    /// The model could not be fetched from its store.
    #[error("encoder: {0}")]
    ModelStore(#[source] lake::store::Error),
    /// Reading, SQL or writing failed.
    #[error(transparent)]
    Lake(#[from] lake::Error),
    /// The behaviour stage failed.
    #[error("behavior: {0}")]
    Behavior(#[source] behavior::Error),
    /// The catalogue stage failed.
    #[error("catalog: {0}")]
    Catalog(#[source] catalog::Error),
    /// The encode stage failed.
    #[error("encode: {0}")]
    Encode(#[source] encoder::Error),
    /// The factorize stage failed.
    #[error("factorize: {0}")]
    Factorize(#[from] factor::Error),
    /// The linear models failed.
    #[error("linear: {0}")]
    Linear(#[from] linear::Error),
    /// The repeat model failed.
    #[error("repeat: {0}")]
    Repeat(#[from] repeat::Error),
    /// The search failed.
    #[error("tune: {0}")]
    Tune(#[from] tuning::Error),
    /// The neighbors stage failed.
    #[error("neighbors: {0}")]
    Neighbors(#[from] neighbors::Error),
    /// The profile stage failed.
    #[error("profile: {0}")]
    Profile(#[from] profile::Error),
    /// Fusion failed.
    #[error("rank: {0}")]
    Ranking(#[from] ranking::Error),
    /// Retrieval failed.
    #[error("rank: {0}")]
    Retrieval(#[from] retrieval::Error),
    /// The evaluation failed.
    #[error("evaluate: {0}")]
    Evaluation(#[from] evaluation::Error),
    /// Runs, checks or the switch of `CURRENT` failed.
    #[error(transparent)]
    Publish(#[from] publish::Error),
    /// Lists could not be loaded into a cache.
    #[error("load: {0}")]
    Cache(#[from] cache::Error),
    /// The page of a run could not be made.
    #[error("report: {0}")]
    Report(#[from] report::Error),
    /// Lists could not be written out.
    #[error("cannot write the lists")]
    Export {
        /// What the system reported.
        #[source]
        source: std::io::Error,
    },
    /// A table written by an earlier stage does not fit together.
    #[error("a stage's table does not fit: {0}")]
    Sparse(#[from] matrix::CsrError),
    /// A matrix read from a table does not fit together.
    #[error("a stage's table does not fit: {0}")]
    Dense(#[from] matrix::DenseError),
    /// Arrow refused a column.
    #[error("cannot build a table")]
    Arrow(#[from] arrow::error::ArrowError),
    /// A stage's record is not what this version writes.
    #[error("a stage's record does not parse")]
    Facts(#[source] serde_json::Error),
    /// An argument is out of range.
    #[error("{problem}")]
    Usage {
        /// What was expected and found.
        problem: String,
    },
    /// A plumbing input lacks a column or has it in another type.
    #[error("{}: expected {expected}; found {found}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is needed.
        expected: String,
        /// What it has.
        found: String,
    },
    /// What was asked for is not in the run.
    #[error("{what}: not in run {run_id}")]
    NotFound {
        /// The id asked for.
        what: String,
        /// The run looked at.
        run_id: String,
    },
    /// A run was named that is not there.
    #[error("job `{job}` has no run {run_id}")]
    NoSuchRun {
        /// The name given.
        run_id: String,
        /// The job.
        job: String,
    },
    /// Users were looked for in runs whose ids say nothing of them.
    #[error(
        "expected runs whose ids are hashed with privacy.pseudonym_key as it is now; found that {runs} are hashed with another key"
    )]
    OtherKeys {
        /// The runs.
        runs: String,
    },
    /// The gate refused the night; the run is complete and nobody loads it.
    #[error(
        "run {run_id} is complete but not published: the gate's limits do not all hold{compared_with}{findings}"
    )]
    Refused {
        /// The run.
        run_id: String,
        /// The run it was compared with, where there was one.
        compared_with: String,
        /// The limits that do not hold, a line each.
        findings: String,
    },
    /// Nothing has been published yet.
    #[error("{}: no run has been published there", output.display())]
    NoRun {
        /// The job's output folder.
        output: PathBuf,
    },
}

/// What to look at where a store refuses.
const OF_STORES: &str = "credentials, region and endpoint come from the environment: AWS_…, GOOGLE_… and AZURE_… variables, or the tools' own files; an http:// endpoint needs AWS_ALLOW_HTTP=true";

impl Error {
    /// 2 where nothing was done and a retry without a change cannot help, 3 where the gate refused the night,
    /// 4 where another run of the job is working; else 1, and a retry goes on where this one stopped.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { .. } => 3,
            Self::Publish(
                publish::Error::Locked { .. }
                | publish::Error::LockLost { .. }
                | publish::Error::Store(lake::store::Error::Lost { .. }),
            ) => 4,
            // A store or hub that is away for a moment may be back for the next try.
            Self::Input {
                source: lake::input::Error::Store(lake::store::Error::Refused { passing: true, .. }),
                ..
            }
            | Self::Output(lake::store::Error::Refused { passing: true, .. })
            | Self::ModelStore(
                lake::store::Error::Refused { passing: true, .. }
                | lake::store::Error::Lost { .. }
                | lake::store::Error::File { .. },
            ) => 1,
            Self::Model(error) if error.may_pass() => 1,
            Self::Job(_)
            | Self::Output(_)
            | Self::Input { .. }
            | Self::IdTypes { .. }
            | Self::Model(_)
            | Self::ModelStore(_)
            | Self::Table { .. }
            | Self::Usage { .. }
            | Self::Publish(publish::Error::OtherJob { .. })
            | Self::NoSuchRun { .. }
            | Self::Cache(cache::Error::Url(_) | cache::Error::NoTtl | cache::Error::Layout { .. })
            | Self::Lake(lake::Error::Input(_) | lake::Error::Refused { .. })
            | Self::Linear(linear::Error::Config { .. })
            | Self::Repeat(repeat::Error::Config { .. })
            | Self::Ranking(ranking::Error::Config { .. })
            | Self::Evaluation(evaluation::Error::Slice { .. })
            | Self::Behavior(behavior::Error::Statement { .. } | behavior::Error::Parse { .. })
            | Self::Catalog(catalog::Error::Rule { .. }) => 2,
            _ => 1,
        }
    }

    /// Whether a disk was full.
    fn is_full_disk(&self) -> bool {
        self.has_cause(|error| {
            let io = error.downcast_ref::<std::io::Error>();
            io.is_some_and(|io| io.kind() == std::io::ErrorKind::StorageFull)
                || error.to_string().contains("No space left on device")
        })
    }

    /// Whether the SQL engine's memory was too little.
    fn is_out_of_memory(&self) -> bool {
        self.has_cause(|error| error.to_string().contains("Resources exhausted"))
    }

    fn has_cause(&self, is_it: impl Fn(&(dyn std::error::Error + 'static)) -> bool) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if is_it(error) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// Whether an SQL statement failed while it ran, which a damaged input file can cause.
    pub fn is_failed_statement(&self) -> bool {
        matches!(
            self,
            Self::Lake(lake::Error::Sql { .. })
                | Self::Behavior(behavior::Error::Lake(lake::Error::Sql { .. }))
                | Self::Catalog(catalog::Error::Lake(lake::Error::Sql { .. }))
        )
    }

    /// What to do about it, where there is one thing to do.
    pub fn hint(&self) -> Option<String> {
        use lake::input::Error as Input;
        let hint = match self {
            Self::Input { input, source } => match source {
                Input::Missing { .. } => format!("paths are relative to the job file; see [inputs.{input}] path"),
                Input::MissingColumn { field, .. } => {
                    format!("map it: [inputs.{input}] columns = {{ {field} = \"the_column\" }}, or give a constant")
                }
                Input::OtherCase { field, found, .. } => {
                    format!("map it: [inputs.{input}] columns = {{ {field} = \"{found}\" }}")
                }
                Input::WrongType { field, .. } => format!(
                    "cast it in a source statement: [inputs.{input}] sql = \"my.sql\", a SELECT … AS {field} … FROM source"
                ),
                Input::Store(lake::store::Error::Refused { .. }) => OF_STORES.to_owned(),
                Input::Footer { .. } | Input::Damaged { .. } => {
                    "the file may be damaged, still being written, or no Parquet; write or copy it again".to_owned()
                }
                _ => return None,
            },
            Self::IdTypes { input, .. } => {
                format!("cast one of them in a source statement: [inputs.{input}] sql = \"my.sql\"")
            }
            Self::Behavior(behavior::Error::TooManyRejected { reasons, .. }) if reasons.contains("future_time") => {
                "to make an earlier night again, set behavior.later_events = \"exclude\"; else mend the source, or raise behavior.max_rejected_share".to_owned()
            }
            Self::Behavior(behavior::Error::TooManyRejected { .. }) => {
                "the rejected rows are in the run's stages/behavior folder; mend the source, or raise behavior.max_rejected_share".to_owned()
            }
            Self::Behavior(behavior::Error::NothingKept { .. }) => {
                "look at --date, behavior.history_days, behavior.event_weights and the column mapping".to_owned()
            }
            Self::Refused { .. } => {
                "look at it with `lamplighter diff JOB CURRENT RUN`; `lamplighter run JOB --accept` publishes the night all the same, `--accept NAME` where only that limit is broken".to_owned()
            }
            Self::Publish(publish::Error::Locked { .. }) => {
                "it goes when that run ends, however it ends; nothing needs to be removed by hand".to_owned()
            }
            Self::Publish(publish::Error::LockLost { .. } | publish::Error::Store(lake::store::Error::Lost { .. })) => {
                "CURRENT is as the other process left it; run it again once that one has ended: finished stages are taken over".to_owned()
            }
            Self::Output(lake::store::Error::Refused { .. })
            | Self::ModelStore(lake::store::Error::Refused { .. })
            | Self::Publish(publish::Error::Store(lake::store::Error::Refused { .. })) => OF_STORES.to_owned(),
            _ if self.is_full_disk() => {
                "make room (publish.keep_runs says how many runs are kept) and run it again: finished stages are taken over".to_owned()
            }
            Self::Encode(error @ encoder::Error::Forward(_)) if error.is_out_of_device_memory() => {
                "the GPU has no room for a batch: lower encoder.batch_tokens in the job file (32768 where it says nothing)".to_owned()
            }
            Self::Model(error) | Self::Encode(error) if error.is_out_of_device_memory() => {
                "the GPU has no room: another program may hold its memory, or the model is too large for it".to_owned()
            }
            Self::Model(encoder::Error::DeviceFailed { .. }) | Self::Encode(encoder::Error::DeviceFailed { .. }) => {
                "`nvidia-smi` says whether there is a GPU; encoder.device = \"cpu\" needs none".to_owned()
            }
            _ if self.is_out_of_memory() => {
                "give the SQL engine more memory: sql_memory_mib in the job file, as 4096 (1536 where it says nothing)".to_owned()
            }
            Self::Model(encoder::Error::Hub { .. } | encoder::Error::MissingFile { .. }) => {
                "texts can be compared by their words, without a model: leave [encoder] out, or set encoder.kind = \"words\"".to_owned()
            }
            Self::Publish(publish::Error::Json { path, .. }) if path.ends_with("CURRENT") => {
                let first = if path.to_string_lossy().contains("://") { "remove that object; then " } else { "" };
                format!("{first}`lamplighter rollback JOB RUN` writes it anew; the runs are below runs/")
            }
            Self::Publish(publish::Error::OtherJob { .. }) => "give each job a folder: output = \"../out/this-job\"".to_owned(),
            Self::Cache(cache::Error::Redis { .. }) => {
                "readers take the lists they took before; the same command goes on where this one stopped".to_owned()
            }
            Self::Cache(cache::Error::Missing { .. }) => {
                "another load has removed lists, or the Redis has: look at its maxmemory and eviction policy; the next load writes all of them".to_owned()
            }
            Self::OtherKeys { .. } => {
                "put that key into the environment and forget them once more; runs that are no longer kept need it no longer".to_owned()
            }
            Self::Cache(cache::Error::Layout { .. }) => "run the job again and load that run: readers are switched to the new layout with it".to_owned(),
            Self::NoSuchRun { .. } => "`lamplighter runs JOB` lists them".to_owned(),
            Self::NoRun { .. } => "run the job first: lamplighter run JOB".to_owned(),
            _ => return None,
        };
        Some(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_worth_a_retry_once_there_is_room() {
        let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = Error::Publish(publish::Error::Io { action: "write", path: "out".into(), source });
        assert_eq!(error.exit_code(), 1);
        assert!(error.hint().unwrap().starts_with("make room"), "{:?}", error.hint());
        let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = Error::Publish(publish::Error::Io { action: "write", path: "out".into(), source });
        assert_eq!(error.hint(), None);
    }

    #[test]
    fn a_hub_that_is_away_may_be_back_for_the_next_try() {
        let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let source = Box::new(hf_hub::api::sync::ApiError::IoError(source));
        let error = encoder::Error::Hub { model: "org/name".to_owned(), file: "config.json", source };
        let error = Error::Model(error);
        assert_eq!(error.exit_code(), 1);
        assert!(error.hint().unwrap().contains("by their words"));
    }

    #[test]
    fn a_statement_that_needs_more_memory_says_which_key_gives_it() {
        let source = std::io::Error::other("Resources exhausted: Failed to allocate additional 153.1 MB");
        let error = Error::Behavior(behavior::Error::Statement { path: "users.sql".into(), source });
        assert!(error.hint().unwrap().contains("sql_memory_mib"), "{:?}", error.hint());
    }
}
