//! What took how long, as a trace that flame-graph viewers read (Perfetto, speedscope, `chrome://tracing`).
//!
//! Every span of the target `profile` becomes one event of Chrome's trace format, with its thread, its begin and its
//! length in microseconds.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::lake::disk;

/// The target of spans that are recorded.
pub(super) const TARGET: &str = "profile";

/// Events so far. Clones share them.
#[derive(Clone)]
pub(super) struct Profile {
    began: Instant,
    events: Arc<Mutex<Vec<Value>>>,
}

/// An open span.
struct Open {
    name: String,
    since: Instant,
}

impl Profile {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), events: Arc::default() }
    }

    /// Writes the trace.
    pub(super) fn write(&self, path: &Path) -> std::io::Result<()> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let trace = json!({ "displayTimeUnit": "ms", "traceEvents": *events });
        disk::write(path, trace.to_string().as_bytes())
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Profile {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut what = What(attributes.metadata().name().to_owned());
        attributes.record(&mut what);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Open { name: what.0, since: Instant::now() });
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let mut extensions = span.extensions_mut();
        let Some(open) = extensions.remove::<Open>() else { return };
        let thread: String =
            format!("{:?}", std::thread::current().id()).chars().filter(char::is_ascii_digit).collect();
        let event = json!({
            "ph": "X",
            "cat": span.metadata().name(),
            "name": open.name,
            "ts": open.since.duration_since(self.began).as_micros() as u64,
            "dur": open.since.elapsed().as_micros() as u64,
            "pid": std::process::id(),
            "tid": thread.parse::<u64>().unwrap_or(0),
        });
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}

/// A span's `of`, which says more than its name.
struct What(String);

impl Visit for What {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "of" {
            self.0 = value.to_owned();
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
