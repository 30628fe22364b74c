//! Lists out of a run: into a cache, into a file.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;

use super::JobArgs;
use super::progress::Progress;
use crate::error::Error;
use crate::lake::disk;
use crate::pipeline;

#[derive(Args)]
pub(super) struct LoadArgs {
    #[command(flatten)]
    job: JobArgs,
    /// redis://host:6379/0; rediss:// for TLS, redis+cluster:// and rediss+cluster:// for a cluster.
    ///
    /// Without it the environment's REDIS_URL is taken, which keeps a password out of the process list.
    url: Option<String>,
    /// The run to load; the current one where it is not given.
    #[arg(long)]
    run: Option<String>,
    /// The most lists written a second, in the place of the job's cache.lists_per_second.
    #[arg(long, value_name = "LISTS")]
    rate: Option<u32>,
}

#[derive(Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    job: JobArgs,
    /// recommendations, similar_items, query_items or popular_items.
    table: String,
    /// The run to export; the current one where it is not given.
    #[arg(long)]
    run: Option<String>,
    /// The file to write; stdout where it is not given.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct ForgetArgs {
    #[command(flatten)]
    job: JobArgs,
    /// The users' ids, as the shop writes them.
    users: Vec<String>,
    /// A file with more of them, one a line.
    #[arg(long)]
    file: Option<PathBuf>,
    /// The Redis to take them out of; REDIS_URL in the environment where it is not given.
    #[arg(long, value_name = "URL")]
    cache: Option<String>,
}

/// Where the cache is, as an argument or the environment says.
fn cache_url(given: Option<&String>) -> Option<String> {
    given.cloned().or_else(|| std::env::var("REDIS_URL").ok().filter(|url| !url.is_empty()))
}

/// What was found is said in any case; where they may be somewhere all the same, that is an error.
pub(super) fn forget(args: &ForgetArgs) -> Result<String, Error> {
    let mut users: BTreeSet<String> = args.users.iter().cloned().collect();
    if let Some(path) = &args.file {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Usage {
            problem: format!("cannot read {}: {source}", path.display()),
        })?;
        users.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
    }
    let forgotten = pipeline::forget(&args.job.load()?, &users, cache_url(args.cache.as_ref()).as_deref())?;
    let Some(failed) = forgotten.failed else { return Ok(forgotten.text) };
    super::print(&forgotten.text);
    Err(failed)
}

pub(super) fn load(args: &LoadArgs, progress: &mut Progress) -> Result<String, Error> {
    let mut job = args.job.load_without_key()?;
    if let Some(rate) = args.rate {
        job.spec.cache.lists_per_second = rate;
    }
    let url = cache_url(args.url.as_ref()).ok_or_else(|| Error::Usage {
        problem: "expected a URL as redis://host:6379/0, or REDIS_URL in the environment; found neither"
            .to_owned(),
    })?;
    pipeline::serve::load(&job, &url, args.run.as_deref(), &mut |event| progress.on(event))
}

/// Writes lists to stdout, or to a file that appears under its name only once it is whole.
pub(super) fn export(args: &ExportArgs) -> Result<String, Error> {
    let job = args.job.load_without_key()?;
    let failed = |source| Error::Export { source };
    let run = args.run.as_deref();
    let Some(path) = &args.out else {
        let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
        return match pipeline::serve::export(&job, &args.table, run, &mut stdout) {
            // A reader that has gone away has read enough.
            Err(Error::Export { source }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
                Ok(String::new())
            }
            result => result.map(|_| String::new()),
        };
    };
    let partial = path.with_added_extension("partial");
    let written = || -> Result<u64, Error> {
        let mut file = std::io::BufWriter::new(disk::create(&partial).map_err(failed)?);
        let n_lists = pipeline::serve::export(&job, &args.table, run, &mut file)?;
        file.get_ref().sync_all().map_err(failed)?;
        std::fs::rename(&partial, path).map_err(failed)?;
        Ok(n_lists)
    };
    let n_lists = written().inspect_err(|_| {
        // What was written so far is nothing; where it cannot be removed either, the first error says more.
        let _ = std::fs::remove_file(&partial);
    })?;
    Ok(format!("{n_lists} lists in {}\n", path.display()))
}
