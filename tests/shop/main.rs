//! `cargo run --release --example shop -- OUT`: a made-up shop to try a job on, of any size.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::error::Error as _;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use chrono::NaiveDate;
use clap::Parser;

// By path, so that the generator's own modules lie beside it here as they do for the tests.
#[path = "generator.rs"]
mod generator;
#[cfg(test)]
mod tests;

use generator::Shop;

/// Write a made-up shop as Parquet: events by day, items, users, and what was planted into them.
#[derive(Parser)]
struct Arguments {
    /// The folder to write; it must be empty or not exist.
    out: PathBuf,
    #[arg(long, default_value_t = Shop::default().users)]
    users: u32,
    #[arg(long, default_value_t = Shop::default().items)]
    items: u32,
    /// All rows of the events, the dirty ones included.
    #[arg(long, default_value_t = Shop::default().events)]
    events: u64,
    /// How many days the events are spread over.
    #[arg(long, default_value_t = Shop::default().days)]
    days: u32,
    /// The last day, YYYY-MM-DD.
    #[arg(long, default_value_t = Shop::default().end)]
    end: NaiveDate,
    #[arg(long, default_value_t = Shop::default().seed)]
    seed: u64,
    /// The share of the events that gets a fault, at most 0.5.
    #[arg(long, default_value_t = Shop::default().dirty)]
    dirty: f64,
}

fn main() -> ExitCode {
    let Arguments { out, users, items, events, days, end, seed, dirty } = Arguments::parse();
    let planted = match generator::generate(&Shop { users, items, events, days, end, seed, dirty }, &out) {
        Ok(planted) => planted,
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            eprintln!("error: {error}{cause}");
            return match error {
                generator::Error::Config { .. } | generator::Error::NotEmpty { .. } => ExitCode::from(2),
                generator::Error::Write { .. } | generator::Error::Parquet { .. } => ExitCode::FAILURE,
            };
        }
    };
    let summary = format!(
        "{}: {users} users, {items} items, {} events of {days} days up to {end}, {} of them clean",
        out.display(),
        planted.events,
        planted.clean,
    );
    // A reader who has closed the pipe does not want the summary.
    let _ = writeln!(std::io::stdout(), "{summary}");
    ExitCode::SUCCESS
}
