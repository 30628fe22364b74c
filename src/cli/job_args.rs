//! The job that a command is about: its file, what is laid over it, and what the environment adds.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::Error;
use crate::lake::Access;
use crate::observe::{Headers, Receiver};
use crate::{job, pipeline};

#[derive(Args)]
pub(super) struct JobArgs {
    /// The job file.
    job: PathBuf,
    /// Lay the keys of another file over the job's, as of one that `tune` wrote; repeatable.
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
    /// Override one key of the job; repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl JobArgs {
    pub(super) fn load(&self) -> Result<job::Job, Error> {
        load(&self.job, &self.with, &self.set)
    }

    /// For commands that name no user: where the key of pseudonyms is not at hand, they do without.
    pub(super) fn load_without_key(&self) -> Result<job::Job, Error> {
        opened(&self.job, &self.with, &self.set, false)
    }
}

/// Where OpenTelemetry's collector is, as every program that speaks to one has it.
const OTLP: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// What it wants to be told beside, as a key.
const OTLP_HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";

/// The job, with its output opened by what the environment says.
pub(super) fn load(path: &Path, with: &[PathBuf], sets: &[String]) -> Result<job::Job, Error> {
    opened(path, with, sets, true)
}

fn opened(path: &Path, with: &[PathBuf], sets: &[String], needs_key: bool) -> Result<job::Job, Error> {
    let variables = std::env::vars_os();
    let text =
        variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut job = job::load(path, with, sets)?;
    if job.spec.observe.otlp.is_none() {
        let endpoint = std::env::var(OTLP).ok().filter(|endpoint| !endpoint.is_empty());
        job.spec.observe.otlp = endpoint.map(Receiver);
    }
    if let Ok(headers) = std::env::var(OTLP_HEADERS) {
        job.spec.observe.otlp_headers = Headers::parse(&headers).ok_or_else(|| Error::Usage {
            problem: format!(
                "{OTLP_HEADERS}: expected name=value pairs with commas between, values percent-encoded"
            ),
        })?;
    }
    let mut access = Access::of(text);
    if let Some(name) = &job.spec.privacy.pseudonym_key
        && (needs_key || std::env::var_os(name).is_some())
    {
        let secret = std::env::var(name).unwrap_or_default();
        let found = secret.len();
        access = access.with_pseudonyms(&secret).ok_or_else(|| Error::Usage {
            problem: format!(
                "privacy.pseudonym_key: expected at least 16 letters in the environment's {name}; found {found}"
            ),
        })?;
    }
    pipeline::open(job, access)
}
