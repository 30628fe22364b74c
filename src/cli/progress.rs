//! Progress on stderr: bars on a terminal, log lines elsewhere.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, registry};

use super::profile::{Profile, TARGET};
use super::{LogFormat, say};
use crate::pipeline::Event;

/// Draws or logs what the pipeline reports.
pub(super) struct Progress {
    bars: bool,
    bar: Option<ProgressBar>,
    logged: Instant,
    /// Says in every log line which run it is of.
    run: Option<tracing::span::EnteredSpan>,
    /// Where a trace goes, and what is in it so far.
    profile: Option<(PathBuf, Profile)>,
}

/// Log lines about the progress inside a stage come no faster than this.
const LOG_EVERY: Duration = Duration::from_secs(5);

impl Progress {
    pub(super) fn new(format: LogFormat, quiet: bool, profile: Option<&Path>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let level = if quiet { "warn" } else { "info" };
        // A line that cannot be written is lost: saying so where lines go would fail likewise, and end the process.
        let logs = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .log_internal_errors(false)
            .with_target(false)
            .with_ansi(false);
        let logs = match format {
            LogFormat::Json => logs.json().boxed(),
            LogFormat::Auto | LogFormat::Text => logs.boxed(),
        };
        let logs = logs.with_filter(EnvFilter::new(format!("off,lamplighter={level}")));
        let profile = profile.map(|path| (path.to_owned(), Profile::new()));
        let trace = profile.as_ref().map(|(_, profile)| profile.clone());
        let trace = trace.map(|trace| trace.with_filter(filter_fn(|of| of.target() == TARGET)));
        // A subscriber is there already only when a test calls twice in one process.
        let _ = registry().with(logs).with(trace).try_init();
        let bars = terminal && !quiet && format == LogFormat::Auto;
        Self { bars, bar: None, logged: Instant::now(), run: None, profile }
    }

    pub(super) fn on(&mut self, event: Event) {
        match event {
            Event::Run { run_id, resumed } => {
                self.run = Some(tracing::info_span!("run", id = run_id).entered());
                let goes_on = if resumed { " (resumed)" } else { "" };
                if self.bars {
                    say(&format!("run {run_id}{goes_on}\n"));
                } else {
                    tracing::info!("run {run_id}{goes_on}");
                }
            }
            Event::Started { stage } => {
                self.clear();
                self.logged = Instant::now();
                if self.bars {
                    let bar = ProgressBar::new_spinner().with_message(stage.to_owned());
                    bar.set_style(style("{spinner} {msg:<12} {elapsed}"));
                    bar.enable_steady_tick(Duration::from_millis(120));
                    self.bar = Some(bar);
                } else {
                    tracing::info!(stage, "started");
                }
            }
            Event::Progress { stage, done, of, unit } => self.advance(stage, done, of, unit),
            Event::Reused { stage, from } => {
                self.clear();
                self.stage_line(stage, &format!("reused from {from}"));
            }
            Event::Finished { stage, elapsed, note } => {
                self.clear();
                self.stage_line(stage, &format!("{:.1} s  {note}", elapsed.as_secs_f64()));
            }
            Event::Tried { number, note } => {
                self.clear();
                if self.bars {
                    say(&format!("  trial {number:<6} {note}\n"));
                } else {
                    tracing::info!(trial = number, "{note}");
                }
            }
            Event::Warning(text) => {
                self.clear();
                tracing::warn!("{text}");
            }
        }
    }

    pub(super) fn finish(&mut self) {
        self.clear();
        if let Some((path, profile)) = self.profile.take()
            && let Err(error) = profile.write(&path)
        {
            tracing::warn!("no profile in {}: {error}", path.display());
        }
    }

    fn advance(&mut self, stage: &str, done: u64, of: u64, unit: &str) {
        if !self.bars {
            if self.logged.elapsed() >= LOG_EVERY {
                self.logged = Instant::now();
                tracing::info!(stage, done, of, unit, "working");
            }
            return;
        }
        let bar = self.bar.get_or_insert_with(|| ProgressBar::new(of).with_message(stage.to_owned()));
        if bar.length() != Some(of) {
            bar.set_length(of);
            let template = format!(
                "{{spinner}} {{msg:<12}} {{bar:30}} {{human_pos}}/{{human_len}} {unit} {{per_sec}} eta {{eta}}"
            );
            bar.set_style(style(&template));
        }
        bar.set_position(done);
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn stage_line(&mut self, stage: &str, text: &str) {
        if self.bars {
            say(&format!("  {stage:<12} {text}\n"));
        } else {
            tracing::info!(stage, "{text}");
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
