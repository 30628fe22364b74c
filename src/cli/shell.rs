//! The SQL shell.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;

use super::{JobArgs, report};
use crate::error::Error;
use crate::job::Job;
use crate::pipeline::{self, Format};

#[derive(Args)]
pub(super) struct SqlArgs {
    #[command(flatten)]
    job: JobArgs,
    /// One statement, or `\d`, or `\d TABLE`.
    #[arg(conflicts_with = "file")]
    statement: Option<String>,
    /// A file with one statement, as those of sql/bi.
    #[arg(long, short)]
    file: Option<PathBuf>,
    /// How rows are written to stdout.
    #[arg(long, value_enum, default_value_t = Shown::Table)]
    format: Shown,
    /// A Parquet file to write the rows into instead.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Shown {
    /// For people.
    Table,
    /// With the columns' names first.
    Csv,
    /// One object a row.
    Json,
}

pub(super) fn sql(args: &SqlArgs) -> Result<String, Error> {
    let job = args.job.load()?;
    let text = match &args.file {
        Some(path) => Some(std::fs::read_to_string(path).map_err(|source| Error::Usage {
            problem: format!("cannot read {}: {source}", path.display()),
        })?),
        None => args.statement.clone(),
    };
    match (text, &args.out) {
        (Some(statement), Some(path)) => pipeline::sql_to_file(&job, &statement, path),
        (Some(statement), None) => pipeline::sql(&job, &statement, args.format()),
        (None, Some(_)) => {
            Err(Error::Usage { problem: "--out: expected a statement; found none".to_owned() })
        }
        (None, None) => shell(&job, args.format()),
    }
}

impl SqlArgs {
    fn format(&self) -> Format {
        match self.format {
            Shown::Table => Format::Table,
            Shown::Csv => Format::Csv,
            Shown::Json => Format::Json,
        }
    }
}

/// Answers one statement after the other. At a terminal a wrong one is said and the next is asked for.
fn shell(job: &Job, format: Format) -> Result<String, Error> {
    let stdin = std::io::stdin().lock();
    let is_terminal = stdin.is_terminal();
    let prompt = |text: &str| {
        if is_terminal {
            eprint!("{text}");
        }
    };
    let mut statement = String::new();
    prompt("sql> ");
    for line in stdin.lines() {
        let line = line.map_err(|source| Error::Export { source })?;
        if statement.is_empty() && line.trim() == "\\q" {
            break;
        }
        let is_command = statement.is_empty() && line.trim_start().starts_with('\\');
        statement.push_str(&line);
        statement.push('\n');
        if !is_command && !line.trim_end().ends_with(';') && !statement.trim().is_empty() {
            prompt("...> ");
            continue;
        }
        let asked = std::mem::take(&mut statement);
        if !asked.trim().is_empty() {
            answer(job, &asked, format, is_terminal)?;
        }
        prompt("sql> ");
    }
    if !statement.trim().is_empty() {
        answer(job, &statement, format, is_terminal)?;
    }
    Ok(String::new())
}

fn answer(job: &Job, statement: &str, format: Format, is_terminal: bool) -> Result<(), Error> {
    match pipeline::sql(job, statement, format) {
        Ok(text) => {
            let mut stdout = std::io::stdout().lock();
            stdout
                .write_all(text.as_bytes())
                .and_then(|()| stdout.flush())
                .map_err(|source| Error::Export { source })
        }
        Err(error) if is_terminal => {
            report(&error);
            Ok(())
        }
        Err(error) => Err(error),
    }
}
