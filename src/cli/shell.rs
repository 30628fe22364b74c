//! The SQL shell.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;

use super::{JobArgs, report, say};
use crate::error::Error;
use crate::job::Job;
use crate::lake::disk;
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
        (None, None) => match shell(&job, args.format()) {
            // A reader that has gone away has read enough.
            Err(Error::Export { source }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
                Ok(String::new())
            }
            result => result,
        },
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

/// Answers one statement after the other. At a terminal a wrong one is said and the next is asked for, and what was
/// asked can be asked again, in this session or a later one: `\\s` shows it by number, `\\g NUMBER` asks it.
fn shell(job: &Job, format: Format) -> Result<String, Error> {
    let stdin = std::io::stdin().lock();
    let is_terminal = stdin.is_terminal();
    let mut history = if is_terminal { History::open() } else { History::default() };
    let prompt = |text: &str| {
        if is_terminal {
            say(text);
        }
    };
    let mut statement = String::new();
    prompt("sql> ");
    for line in stdin.lines() {
        let line = line.map_err(|source| Error::Export { source })?;
        let is_command =
            statement.is_empty() && (line.trim_start().starts_with('\\') || line.trim() == "help");
        let command = if is_command { line.trim() } else { "" };
        if command == "\\q" {
            break;
        }
        statement.push_str(&line);
        statement.push('\n');
        if is_command {
            let mut asked = std::mem::take(&mut statement);
            if command == "\\s" {
                say(&history.shown());
                asked.clear();
            } else if let Some(again) = command.strip_prefix("\\g") {
                match history.of_number(again.trim()) {
                    Ok(statement) => asked = statement.to_owned(),
                    Err(error) => {
                        report(&error);
                        asked.clear();
                    }
                }
                say(&format!("{asked}\n"));
            }
            ask(job, &mut history, &asked, format)?;
        }
        while let Some(end) = end_of_statement(&statement) {
            let rest = statement.split_off(end);
            ask(job, &mut history, &std::mem::replace(&mut statement, rest), format)?;
        }
        if is_blank(&statement) {
            statement.clear();
        }
        prompt(if statement.is_empty() { "sql> " } else { "...> " });
    }
    ask(job, &mut history, &statement, format)?;
    Ok(String::new())
}

/// Where a text's first statement ends: behind a semicolon that is in no string, name or comment.
fn end_of_statement(text: &str) -> Option<usize> {
    let mut at = 0;
    while !text[at..].starts_with(';') {
        at += piece(&text[at..])?;
    }
    Some(at + 1)
}

/// Whether nothing is asked.
fn is_blank(text: &str) -> bool {
    let mut at = 0;
    while let Some(length) = piece(&text[at..]) {
        let piece = &text[at..at + length];
        let is_comment = ["--", "/*"].iter().any(|begin| piece.starts_with(begin));
        if !is_comment && piece != ";" && !piece.trim().is_empty() {
            return false;
        }
        at += length;
    }
    at == text.len()
}

/// The length of what a text begins with, which is a comment, something in quotes or a letter; nothing where that has
/// no end yet.
fn piece(text: &str) -> Option<usize> {
    let until = |begin: usize, end: &str| Some(begin + text[begin..].find(end)? + end.len());
    match text.chars().next()? {
        '\'' => until(1, "'"),
        '"' => until(1, "\""),
        '-' if text.starts_with("--") => until(2, "\n"),
        '/' if text.starts_with("/*") => until(2, "*/"),
        letter => Some(letter.len_utf8()),
    }
}

/// What was asked at a terminal, the oldest first.
#[derive(Default)]
struct History {
    statements: Vec<String>,
    /// Where it stays from one session to the next.
    path: Option<PathBuf>,
}

/// Statements that are shown.
const SHOWN: usize = 20;

impl History {
    fn open() -> Self {
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")));
        let path = state.map(|state| state.join("lamplighter/sql_history"));
        let text = path.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        Self { statements: text.lines().map(str::to_owned).collect(), path }
    }

    /// Keeps a statement, on one line; one that cannot be kept is answered all the same.
    fn remember(&mut self, statement: &str) {
        let line = statement.split_whitespace().collect::<Vec<_>>().join(" ");
        if self.statements.last() == Some(&line) {
            return;
        }
        if let Some(path) = &self.path {
            let _ = disk::append(path, &format!("{line}\n"));
        }
        self.statements.push(line);
    }

    /// The last statements, each with its number.
    fn shown(&self) -> String {
        let numbered = self.statements.iter().enumerate().rev().take(SHOWN);
        let lines: Vec<String> =
            numbered.map(|(at, statement)| format!("{:>5}  {statement}\n", at + 1)).collect();
        lines.into_iter().rev().collect()
    }

    /// The statement of a number; the last one where there is none.
    fn of_number(&self, number: &str) -> Result<&str, Error> {
        let at = if number.is_empty() { Some(self.statements.len()) } else { number.parse().ok() };
        let found = at.and_then(|at: usize| self.statements.get(at.checked_sub(1)?));
        found.map(String::as_str).ok_or_else(|| Error::Usage {
            problem: format!("\\g: expected a number from 1 to {}; found `{number}`", self.statements.len()),
        })
    }
}

fn ask(job: &Job, history: &mut History, statement: &str, format: Format) -> Result<(), Error> {
    if is_blank(statement) {
        return Ok(());
    }
    history.remember(statement);
    match pipeline::sql(job, statement, format) {
        Ok(text) => {
            let mut stdout = std::io::stdout().lock();
            stdout
                .write_all(text.as_bytes())
                .and_then(|()| stdout.flush())
                .map_err(|source| Error::Export { source })
        }
        Err(error) if std::io::stdin().is_terminal() => {
            report(&error);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_goes_up_to_its_semicolon_wherever_lines_end() {
        let rest = |text: &'static str| end_of_statement(text).map(|end| &text[end..]);
        assert_eq!(rest("SELECT 1; SELECT 2;\n"), Some(" SELECT 2;\n"));
        assert_eq!(rest("SELECT 'a;b', \"c;d\", 'it''s;' -- e;\n /* f; */;"), Some(""));
        assert_eq!(rest("SELECT 'a;\n"), None);
        assert_eq!(rest("SELECT 1 - 2 / 3 -- é;\n"), None);
        assert!(is_blank(" -- a note\n/* another */ ;\n") && is_blank(""));
        assert!(!is_blank("SELECT 1 -- a note\n") && !is_blank("/* another\n") && !is_blank("'"));
    }
}
