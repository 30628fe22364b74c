//! The command line: arguments in, exit codes out.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed while working, 2
//! rejected before any work (usage, job file, inputs), 3 refused by the gate, 4 another run of the job is
//! working. An error is printed as its chain of causes
//! and, where there is one, a hint. Nothing below this room prints, reads arguments or the
//! environment.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chrono::NaiveDate;
use clap::{Args, Parser, Subcommand};

use crate::error::Error;
use crate::pipeline;

mod job_args;
mod profile;
mod progress;
mod serve;
mod shell;
mod summary;

use job_args::{JobArgs, load};
use progress::Progress;

const EXAMPLES: &str = "\
Examples:
  lamplighter check jobs/nightly.toml                 Is everything there for tonight?
  lamplighter run jobs/nightly.toml --dry-run         What would run, and what would it cost?
  lamplighter run jobs/nightly.toml                   Make and publish tonight's lists
  lamplighter evaluate jobs/nightly.toml              What are such lists worth?
  lamplighter show user jobs/nightly.toml 1           One user's list, with titles and reasons
  lamplighter sql jobs/nightly.toml 'SELECT source, count(*) FROM recommendations GROUP BY 1'

Exit codes:
  0  done    1  failed while working; a retry resumes    2  rejected before any work; fix and retry
  3  complete, but the gate refused to publish it        4  another run of the job is working";

/// Batch recommendation on dataframes: a shop's Parquet in, recommendation lists as Parquet out.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How progress and warnings are written to stderr.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Auto, value_name = "FORMAT")]
    log_format: LogFormat,
    /// Only warnings and errors on stderr.
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Write what took how long to this file: a trace that Perfetto, speedscope and chrome://tracing show.
    #[arg(long, global = true, value_name = "FILE")]
    profile: Option<PathBuf>,
}

/// How progress is written.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// Bars on a terminal, lines elsewhere.
    Auto,
    /// One readable line an event.
    Text,
    /// One JSON object an event.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Run a job: read, learn, rank, evaluate and publish.
    ///
    /// A killed run resumes at its first unfinished stage when it is started again; stages whose
    /// inputs and parameters have not changed are reused. `CURRENT` names the new run only when
    /// every file of it is complete and checked.
    Run(RunArgs),
    /// Evaluate a job offline: what would its lists have been worth on held-out behaviour?
    ///
    /// Prints the metrics of the fused lists beside every single source, the users' own history and
    /// popularity: for all users, new and repeated items, cold items and users, and by segment, each
    /// with its 95 % interval. Held out are the latest days, each user's last item, a random share
    /// (`evaluation.split`), or what a table says (`evaluation.test`). Publishes nothing.
    Evaluate(EvaluateArgs),
    /// Search for better values of a job's keys; change nothing.
    ///
    /// One source's keys are tried at a time, its model is fitted again, the weights of all sources are
    /// learned anew, and NDCG is measured on users not learned from. All of it happens before what the
    /// evaluation holds out. Every trial is in `tuning/trials.parquet` under the output, the better values
    /// in `tuning/tuned.toml`: `lamplighter run JOB --with FILE` takes them. A search that was stopped
    /// goes on where it was.
    Tune(TuneArgs),
    /// Check a job and its inputs; compute nothing.
    ///
    /// Reads the job file, the footers of all input files and the model folder, and says what is
    /// wrong: the file, the column, what was expected and what was found.
    Check(JobArgs),
    /// List a job's runs: state, size, the key metric, which one is current; pin runs.
    Runs(RunsArgs),
    /// Compare two runs: whose lists and which items have changed most, and why.
    Diff(DiffArgs),
    /// Make an earlier run the current one again.
    ///
    /// Without a run, it is the published one before the current. Its tables are held against its
    /// manifest before `CURRENT` is switched, in one step.
    Rollback(RollbackArgs),
    /// Load the current run's lists into a Redis.
    ///
    /// One generation of keys a run; readers are switched to it in one step once every list was found to be
    /// there. A load that was broken off goes on where it stopped.
    Load(serve::LoadArgs),
    /// One user's list as JSON lines, straight from Parquet.
    Lookup {
        /// The job file.
        job: PathBuf,
        /// The user's id as the shop writes it.
        user: String,
    },
    /// Write a table's lists as JSON, a list a line.
    Export(serve::ExportArgs),
    /// Forget users: take them out of every run that is kept, and of a cache, and look for them afterwards.
    ///
    /// The inputs are not touched: remove their events there as well.
    Forget(serve::ForgetArgs),
    /// Show one user, item, query or run for human eyes.
    #[command(subcommand)]
    Show(Show),
    /// Make the page of a run again: `report.html`, for people.
    ///
    /// Warnings, what was read and rejected, time and memory, metrics with intervals, earlier nights, coverage,
    /// the gate, weights, and some users' lists: one file that needs no network. Every complete run has one.
    Report(ReportArgs),
    /// Query what has been published: every table of the current run is a view.
    ///
    /// `all_recommendations` and the like hold the tables of all runs, with `run_id` and `date`; `runs` lists
    /// them; `events`, `items` and `users` are the inputs as they are now. `\d` names all of them, `\d TABLE`
    /// says what its columns mean. Without a statement they are read from stdin, each up to its semicolon.
    Sql(shell::SqlArgs),
    /// Plumbing: texts in a Parquet file to embeddings.
    Encode(EncodeArgs),
    /// Plumbing: weighted interactions to user and item factors.
    Factorize(FactorizeArgs),
    /// Plumbing: exact top-K items by inner product.
    Retrieve(RetrieveArgs),
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    job: JobArgs,
    /// The run date, YYYY-MM-DD: later events are in the future. Default: the job's `date`, or today.
    #[arg(long)]
    date: Option<NaiveDate>,
    /// Print the plan, what would be reused, and an estimate of memory and time; run nothing.
    #[arg(long)]
    dry_run: bool,
    /// Stop after this stage; a later call without it goes on from there.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(pipeline::STAGES))]
    stage: Option<String>,
    /// Publish although limits of the gate are broken: those named, or all of them; repeatable.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "all",
          value_parser = clap::builder::PossibleValuesParser::new(["all"].into_iter().chain(crate::gate::NAMES)))]
    accept: Vec<String>,
    /// Name the run in CURRENT although it is of an earlier night than the one that is there.
    #[arg(long)]
    make_current: bool,
}

#[derive(Args)]
struct EvaluateArgs {
    #[command(flatten)]
    job: JobArgs,
    /// The run date, YYYY-MM-DD: later events are in the future. Default: the job's `date`, or today.
    #[arg(long)]
    date: Option<NaiveDate>,
}

#[derive(Args)]
struct TuneArgs {
    #[command(flatten)]
    job: JobArgs,
    /// The run date, YYYY-MM-DD: later events are in the future. Default: the job's `date`, or today.
    #[arg(long)]
    date: Option<NaiveDate>,
    /// How long to search: 90s, 30m, 2h. The trial that is running then is finished.
    #[arg(long, default_value = "30m", value_name = "TIME", value_parser = duration)]
    budget: Duration,
    /// The most trials, those of an earlier search that goes on included.
    #[arg(long, default_value_t = 1_000)]
    trials: usize,
}

/// A number and `s`, `m` or `h`.
fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a time such as 90s, 30m or 2h; found `{text}`");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(expected)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(expected()),
    };
    let number: u32 = number.parse().map_err(|_| expected())?;
    Ok(Duration::from_secs(seconds * u64::from(number)))
}

#[derive(Args)]
struct RunsArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Keep a run however old it gets.
    #[arg(long, value_name = "RUN", conflicts_with = "unpin")]
    pin: Option<String>,
    /// Let a pinned run go when its time comes.
    #[arg(long, value_name = "RUN")]
    unpin: Option<String>,
}

#[derive(Args)]
struct DiffArgs {
    #[command(flatten)]
    job: JobArgs,
    /// The run to start from; CURRENT is the one that readers load.
    left: String,
    /// The run to compare with it.
    right: String,
    /// How many users and items are named.
    #[arg(long, short = 'n', default_value_t = 10)]
    top: usize,
}

#[derive(Args)]
struct RollbackArgs {
    #[command(flatten)]
    job: JobArgs,
    /// The run to go back to.
    run: Option<String>,
}

#[derive(Args)]
struct ReportArgs {
    #[command(flatten)]
    job: JobArgs,
    /// The run; the current one where it is not given.
    run: Option<String>,
    /// The file to write, in the place of the one in the run's folder.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Show {
    /// A user's profile and list.
    User(ShowArgs),
    /// An item and the items listed with it.
    Item(ShowArgs),
    /// A search and the items listed for it.
    Query(ShowArgs),
    /// The current run, or the one named: what it read, learned and wrote.
    Run {
        /// The job file.
        job: PathBuf,
        /// The run's id.
        run: Option<String>,
    },
}

#[derive(Args)]
struct ShowArgs {
    /// The job file.
    job: PathBuf,
    /// The id as the shop writes it, or the words searched for.
    id: String,
    /// How many rows of its list.
    #[arg(long, short = 'k', default_value = "10")]
    k: NonZeroUsize,
}

#[derive(Args)]
struct EncodeArgs {
    /// Parquet with the id and text columns.
    #[arg(long)]
    input: PathBuf,
    /// The id column, kept as it is.
    #[arg(long)]
    id: String,
    /// Text columns, joined by " | " in this order.
    #[arg(long, value_delimiter = ',', required = true)]
    text: Vec<String>,
    /// Model folder (config.json, tokenizer.json, model.safetensors) or hub name.
    #[arg(long, default_value = "sentence-transformers/all-MiniLM-L6-v2")]
    model: String,
    /// transformer; static: means of token vectors distilled from it, a hundred times as fast; or words: no model,
    /// texts are alike by the words they share.
    #[arg(long, default_value = "transformer")]
    kind: String,
    /// cpu, cuda or metal.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// f32; bf16: about twice as fast on a CPU with AVX512-BF16 and faster still on a GPU; or f16, on a GPU.
    #[arg(long, default_value = "f32")]
    precision: String,
    /// Longer texts are cut to this many tokens.
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
    /// Parquet to write: the id and `embedding`, a FixedSizeList of f32 of unit norm.
    #[arg(long)]
    out: PathBuf,
    /// Threads; all cores where it is 0.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

#[derive(Args)]
struct FactorizeArgs {
    /// Parquet with `user_idx` or `user_id`, `item_idx` or `item_id`, `weight`.
    #[arg(long)]
    input: PathBuf,
    /// Factors an entity.
    #[arg(long, default_value_t = 64)]
    rank: usize,
    /// Sweeps over users and items.
    #[arg(long, default_value_t = 16)]
    iterations: usize,
    /// Weight of every user-item pair in the objective.
    #[arg(long, default_value_t = 0.1)]
    unobserved_weight: f64,
    /// Regularisation.
    #[arg(long, default_value_t = 0.003)]
    regularization: f64,
    /// 1: regularisation grows with an entity's interactions; 0: it does not.
    #[arg(long, default_value_t = 1.0)]
    regularization_exponent: f64,
    /// Seeds the first factors.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Begin where an earlier factorisation ended: the folder it wrote. A quarter of the sweeps will do.
    #[arg(long, value_name = "FOLDER")]
    start: Option<PathBuf>,
    /// Solve users alone, for these item factors: fold in users who came after they were learned.
    #[arg(long, value_name = "FILE", conflicts_with = "start")]
    fold_in: Option<PathBuf>,
    /// Folder for `user_factors.parquet` and `item_factors.parquet`.
    #[arg(long)]
    out: PathBuf,
    /// Threads; all cores where it is 0.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

#[derive(Args)]
struct RetrieveArgs {
    /// Parquet with an id column and a FixedSizeList<f32> column.
    #[arg(long)]
    queries: PathBuf,
    /// Parquet with an id column and a FixedSizeList<f32> column of the same length.
    #[arg(long)]
    items: PathBuf,
    /// Items a query, from 1 to 65535.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    k: u16,
    /// Parquet to write: query id, rank, item id, score.
    #[arg(long)]
    out: PathBuf,
    /// Threads; all cores where it is 0.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

/// Parses the arguments, does what they say, and reports how it went.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not mistakes: clap prints those to stdout with code 0.
            let code = error.exit_code() as u8;
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    if let Err(found) = choose_kernels() {
        say(&format!("error: {KERNELS}: expected fast or portable; found {found}\n"));
        return ExitCode::from(2);
    }
    let mut progress = Progress::new(cli.log_format, cli.quiet, cli.profile.as_deref());
    let is_night = matches!(&cli.command, Command::Run(args) if !args.dry_run);
    match dispatch(cli.command, &mut progress) {
        Ok(text) => {
            progress.finish();
            let printed = print(&text);
            // What a night has done is done, whether or not anybody can read its summary.
            if is_night { ExitCode::SUCCESS } else { printed }
        }
        Err(error) => {
            progress.finish();
            match cli.log_format {
                LogFormat::Json => report_as_json(&error),
                LogFormat::Auto | LogFormat::Text => report(&error),
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// `portable` keeps this process off the machine's special instructions, for support: results of the
/// default precision are the same, or differ by rounding alone.
const KERNELS: &str = "LAMPLIGHTER_KERNELS";

/// Once, before any work.
fn choose_kernels() -> Result<(), String> {
    match std::env::var(KERNELS).as_deref() {
        Ok("portable") => crate::matrix::kernels::keep_portable(),
        Ok("fast" | "") | Err(_) => {}
        Ok(found) => return Err(found.to_owned()),
    }
    Ok(())
}

/// Writes the answer to stdout; a reader that has gone away is not an error.
fn print(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: cannot write to stdout: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Writes to stderr; where that cannot be written, nothing is left to do but to end with the right exit code.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn report(error: &Error) {
    let mut text = format!("error: {error}\n");
    for cause in causes(error) {
        text += &format!("  caused by: {cause}\n");
    }
    if let Some(hint) = error.hint() {
        text += &format!("\nhint: {hint}\n");
    }
    say(&text);
}

/// A line as all others are, which is what an alert looks for.
fn report_as_json(error: &Error) {
    let (causes, hint) = (causes(error).join("; "), error.hint().unwrap_or_default());
    tracing::error!(exit_code = error.exit_code(), causes, hint, "{error}");
}

/// What led to an error, the nearest first. Many wrappers repeat the message they carry; once is enough.
fn causes(error: &Error) -> Vec<String> {
    let mut said = error.to_string();
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !said.contains(&text) {
            causes.push(text.clone());
            said = text;
        }
        cause = inner.source();
    }
    causes
}

fn dispatch(command: Command, progress: &mut Progress) -> Result<String, Error> {
    match command {
        Command::Run(args) => {
            let job = args.job.load()?;
            pipeline::use_threads(job.spec.threads);
            let options = pipeline::Options {
                date: args.date,
                until_stage: args.stage,
                accept: args.accept,
                make_current: args.make_current,
            };
            if args.dry_run {
                return pipeline::plan(&job, &options);
            }
            let outcome = pipeline::run(&job, &options, &mut |event| progress.on(event))?;
            Ok(summary::text(&outcome))
        }
        Command::Evaluate(args) => {
            let job = args.job.load()?;
            pipeline::use_threads(job.spec.threads);
            let options = pipeline::Options { date: args.date, ..pipeline::Options::default() };
            let found = pipeline::evaluate(&job, &options, &mut |event| progress.on(event))?;
            Ok(summary::of_backtest(&found))
        }
        Command::Tune(args) => {
            let job = args.job.load()?;
            pipeline::use_threads(job.spec.threads);
            let options = pipeline::Options { date: args.date, ..pipeline::Options::default() };
            let budget = pipeline::Budget { time: args.budget, trials: args.trials };
            let found = pipeline::tune(&job, &options, budget, &mut |event| progress.on(event))?;
            Ok(summary::of_search(&found))
        }
        Command::Check(args) => {
            let job = args.load()?;
            pipeline::check(&job)
        }
        Command::Runs(args) => {
            let job = args.job.load_without_key()?;
            match (args.pin, args.unpin) {
                (Some(run), _) => pipeline::runs::pin(&job, &run, true),
                (None, Some(run)) => pipeline::runs::pin(&job, &run, false),
                (None, None) => pipeline::runs::list(&job),
            }
        }
        Command::Diff(args) => {
            pipeline::diff(&args.job.load_without_key()?, &args.left, &args.right, args.top)
        }
        Command::Rollback(args) => {
            pipeline::runs::rollback(&args.job.load_without_key()?, args.run.as_deref())
        }
        Command::Load(args) => serve::load(&args, progress),
        Command::Lookup { job, user } => pipeline::serve::lookup(&load(&job, &[], &[])?, &user),
        Command::Export(args) => serve::export(&args),
        Command::Forget(args) => serve::forget(&args),
        Command::Show(show) => match show {
            Show::User(args) => pipeline::show::user(&load(&args.job, &[], &[])?, &args.id, args.k.get()),
            Show::Item(args) => pipeline::show::item(&load(&args.job, &[], &[])?, &args.id, args.k.get()),
            Show::Query(args) => pipeline::show::query(&load(&args.job, &[], &[])?, &args.id, args.k.get()),
            Show::Run { job, run } => pipeline::show::run(&load(&job, &[], &[])?, run.as_deref()),
        },
        Command::Report(args) => {
            pipeline::report(&args.job.load()?, args.run.as_deref(), args.out.as_deref())
        }
        Command::Sql(args) => shell::sql(&args),
        Command::Encode(args) => {
            pipeline::use_threads(args.threads);
            let task = pipeline::plumbing::Encode {
                input: args.input,
                id: args.id,
                text: args.text,
                model: args.model,
                kind: args.kind,
                device: args.device,
                precision: args.precision,
                max_tokens: args.max_tokens,
                out: args.out,
            };
            pipeline::plumbing::encode(&task, &mut |event| progress.on(event))
        }
        Command::Factorize(args) => {
            pipeline::use_threads(args.threads);
            let task = pipeline::plumbing::Factorize {
                input: args.input,
                config: crate::factor::Config {
                    rank: args.rank,
                    iterations: args.iterations,
                    unobserved_weight: args.unobserved_weight,
                    regularization: args.regularization,
                    regularization_exponent: args.regularization_exponent,
                },
                seed: args.seed,
                start: args.start,
                fold_in: args.fold_in,
                out: args.out,
            };
            pipeline::plumbing::factorize(&task, &mut |event| progress.on(event))
        }
        Command::Retrieve(args) => {
            pipeline::use_threads(args.threads);
            let task = pipeline::plumbing::Retrieve {
                queries: args.queries,
                items: args.items,
                k: args.k,
                out: args.out,
            };
            pipeline::plumbing::retrieve(&task, &mut |event| progress.on(event))
        }
    }
}
