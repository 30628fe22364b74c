//! What monitoring reads of a night: metrics in Prometheus' text format, lineage as OpenLineage events, and traces and
//! the same metrics by OTLP.
//!
//! The metrics' file is for the textfile collector of the node exporter, or any other that reads the format. It is of the
//! last run that ended, however it ended; of a run that failed it holds when that was, with which exit code, and
//! how old the lists are that readers load. An event is sent when a run's command begins and when it ends, a trace and
//! metrics when it ends.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use chrono::DateTime;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::publish::{Current, Manifest, StageRecord};

mod lineage;
mod otlp;

pub use lineage::{Lineage, Reached, deliver};
pub use otlp::{Trace, send};

/// The job's `[observe]` table.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The file to write when a run has ended.
    pub prometheus: Option<PathBuf>,
    /// The file that OpenLineage events are appended to, or the URL of a server that takes them:
    /// `https://lineage.internal/api/v1/lineage`.
    pub openlineage: Option<Receiver>,
    /// The base URL of an OpenTelemetry collector that takes a run's stages as spans and its figures as metrics, in
    /// JSON over HTTP: `http://localhost:4318`.
    pub otlp: Option<Receiver>,
    /// What requests to the collector carry beside; of no job file and in no manifest.
    #[serde(skip)]
    pub otlp_headers: Headers,
}

/// Headers of requests, one of which may hold a key: never printed.
#[derive(Clone, Default, PartialEq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Of `name=value` pairs with commas between and values percent-encoded, as `OTEL_EXPORTER_OTLP_HEADERS` has them;
    /// nothing of any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        let header = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
            let (name, value) = (name.trim().to_owned(), value.into_owned());
            let is_name = !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            (is_name && !value.bytes().any(|byte| byte.is_ascii_control())).then_some((name, value))
        };
        pairs.map(header).collect::<Option<_>>().map(Self)
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Headers")
    }
}

/// Where something is sent: of a job, without a password, which would be in every manifest.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(try_from = "String")]
pub struct Receiver(pub String);

impl TryFrom<String> for Receiver {
    type Error = &'static str;

    fn try_from(to: String) -> Result<Self, Self::Error> {
        let rest = to.split_once("://").map(|(_, rest)| rest);
        if rest.is_some_and(|rest| rest.split('/').next().unwrap_or("").contains('@')) {
            return Err("expected a URL without credentials; found a name or password before its `@`");
        }
        if rest.is_some_and(|rest| rest.contains('?')) {
            return Err("expected a URL without credentials; found a query, which every manifest would have");
        }
        Ok(Self(to))
    }
}

/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A run that has ended.
pub struct Ended<'a> {
    /// The job.
    pub job: &'a str,
    /// Seconds since 1970.
    pub at_s: i64,
    /// What the command ends with.
    pub exit_code: u8,
    /// What it made, where it came so far.
    pub manifest: Option<&'a Manifest>,
    /// What readers load.
    pub current: Option<&'a Current>,
}

/// A figure of a run: values by label.
struct Figure {
    name: &'static str,
    help: &'static str,
    /// What the values are told apart by; one that stands alone has none.
    label: Option<&'static str>,
    values: Vec<(String, f64)>,
}

/// The run's metrics as text.
pub fn prometheus(ended: &Ended) -> String {
    let mut text = String::new();
    for Figure { name, help, label, values } in figures(ended) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP lamplighter_{name} {help}\n# TYPE lamplighter_{name} gauge");
        for (of, value) in values {
            let _ = write!(text, "lamplighter_{name}{{job=\"{}\"", ended.job);
            if let Some(label) = label {
                let of = of.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = write!(text, ",{label}=\"{of}\"");
            }
            let _ = writeln!(text, "}} {value}");
        }
    }
    text
}

fn figures(ended: &Ended) -> Vec<Figure> {
    let one = |name, help, value: f64| {
        let values = vec![(String::new(), value)];
        Figure { name, help, label: None, values }
    };
    let mut figures = vec![
        one("last_run_timestamp_seconds", "When the last run ended.", ended.at_s as f64),
        one(
            "last_run_exit_code",
            "0 done, 1 failed, 2 input refused, 3 refused by the gate.",
            f64::from(ended.exit_code),
        ),
    ];
    let published =
        ended.current.and_then(|current| DateTime::parse_from_rfc3339(&current.published_at).ok());
    figures.extend(published.map(|published| {
        let help = "When the lists that readers load were published.";
        one("current_timestamp_seconds", help, published.timestamp() as f64)
    }));
    let Some(manifest) = ended.manifest else { return figures };
    let (memory, warnings) = (manifest.peak_memory_bytes as f64, manifest.warnings.len() as f64);
    figures.push(one("peak_memory_bytes", "The highest resident memory of the run.", memory));
    figures.push(one("warnings", "What the operator should know of the run.", warnings));
    let mut each = |name, help, label, values: Vec<(&str, f64)>| {
        let values = values.into_iter().map(|(of, value)| (of.to_owned(), value)).collect();
        figures.push(Figure { name, help, label: Some(label), values });
    };
    let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>() as f64;
    let events = &manifest.events;
    let outcomes = vec![
        ("kept", events.kept as f64),
        ("rejected", sum(&events.rejected)),
        ("excluded", sum(&events.excluded)),
    ];
    each("events", "What became of the events that were read.", "outcome", outcomes);
    let tables = manifest.tables.iter().map(|(name, table)| (name.as_str(), table.rows as f64)).collect();
    each("table_rows", "Rows of the published tables.", "table", tables);
    let of_stages = |value: &dyn Fn(&StageRecord) -> f64| {
        manifest.stages.iter().map(|stage| (stage.name.as_str(), value(stage))).collect()
    };
    let seconds = of_stages(&|stage| stage.elapsed_ms as f64 / 1e3);
    each("stage_seconds", "How long the stages took.", "stage", seconds);
    let cpu = of_stages(&|stage| stage.cost.cpu_ms as f64 / 1e3);
    each("stage_cpu_seconds", "Processor time of the stages.", "stage", cpu);
    let memory = of_stages(&|stage| stage.cost.peak_memory_bytes as f64);
    each("stage_peak_memory_bytes", "The highest resident memory of the stages.", "stage", memory);
    let fused = manifest.metrics.get("fused").and_then(|fused| fused.as_object());
    let metrics =
        fused.into_iter().flatten().filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?)));
    each("metric", "The fused lists on held-out behaviour.", "metric", metrics.collect());
    // By the names that `--accept` takes: several of one name are broken where one of them is.
    let mut broken: BTreeMap<&str, f64> = BTreeMap::new();
    for finding in manifest.gate["findings"].as_array().into_iter().flatten() {
        if let (Some(name), Some(holds)) = (finding["name"].as_str(), finding["holds"].as_bool()) {
            *broken.entry(name).or_default() += f64::from(u8::from(!holds));
        }
    }
    each(
        "gate_broken",
        "How many of the gate's limits of a name do not hold.",
        "limit",
        broken.into_iter().collect(),
    );
    figures
}

/// Sends JSON to a server.
///
/// # Errors
/// If the server does not take it within ten seconds.
fn post(url: &str, Headers(headers): &Headers, body: &Value) -> std::io::Result<()> {
    let request = ureq::post(url).timeout(PATIENCE).set("content-type", "application/json");
    let request = headers.iter().fold(request, |request, (name, value)| request.set(name, value));
    let sent = request.send_string(&body.to_string());
    // What a server says may hold anything; its status is enough.
    sent.map(drop).map_err(|error| match error {
        ureq::Error::Status(status, _) => std::io::Error::other(format!("the server answered {status}")),
        ureq::Error::Transport(transport) => std::io::Error::other(transport.kind().to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_run_says_when_and_how_old_the_lists_are() {
        let current = Current {
            run_id: "night-2026-11-21-1".to_owned(),
            path: String::new(),
            job: "night".to_owned(),
            published_at: "1970-01-01T00:01:00+00:00".to_owned(),
            replaced: None,
        };
        let ended = Ended { job: "night", at_s: 90, exit_code: 1, manifest: None, current: Some(&current) };
        let text = prometheus(&ended);
        let values: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            values,
            [
                "lamplighter_last_run_timestamp_seconds{job=\"night\"} 90",
                "lamplighter_last_run_exit_code{job=\"night\"} 1",
                "lamplighter_current_timestamp_seconds{job=\"night\"} 60",
            ]
        );
    }

    #[test]
    fn labels_are_escaped_and_a_limits_name_is_there_once() {
        let finding = serde_json::json!({ "findings": [
                { "name": "odd \"type\" \\ events", "holds": true },
                { "name": "odd \"type\" \\ events", "holds": false },
            ] });
        let manifest = Manifest { gate: finding, ..Manifest::default() };
        let ended = Ended { job: "night", at_s: 1, exit_code: 3, manifest: Some(&manifest), current: None };
        let expected =
            "gauge\nlamplighter_gate_broken{job=\"night\",limit=\"odd \\\"type\\\" \\\\ events\"} 1\n";
        assert!(prometheus(&ended).ends_with(expected), "{}", prometheus(&ended));
    }
}
