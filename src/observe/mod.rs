//! What monitoring reads of a night: metrics in Prometheus' text format, and lineage as OpenLineage events.
//!
//! The metrics' file is for the textfile collector of the node exporter, or any other that reads the format. It is of the
//! last run that ended, however it ended; of a run that failed it holds when that was, with which exit code, and
//! how old the lists are that readers load. An event is sent when a run's command begins and when it ends.

use std::fmt::Write;
use std::path::PathBuf;

use chrono::DateTime;
use serde::{Deserialize, Serialize};

use crate::publish::{Current, Manifest};

mod lineage;

pub use lineage::{Lineage, Reached, deliver};

/// The job's `[observe]` table.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The file to write when a run has ended.
    pub prometheus: Option<PathBuf>,
    /// The file that OpenLineage events are appended to, or the URL of a server that takes them:
    /// `https://lineage.internal/api/v1/lineage`.
    pub openlineage: Option<String>,
}

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

/// The run's metrics as text.
pub fn prometheus(ended: &Ended) -> String {
    let mut text = Text { job: ended.job, text: String::new() };
    text.gauge("last_run_timestamp_seconds", "When the last run ended.", [(&[][..], ended.at_s as f64)]);
    text.gauge(
        "last_run_exit_code",
        "0 done, 1 failed, 2 input refused, 3 refused by the gate.",
        [(&[][..], f64::from(ended.exit_code))],
    );
    let published =
        ended.current.and_then(|current| DateTime::parse_from_rfc3339(&current.published_at).ok());
    if let Some(published) = published {
        let when = published.timestamp() as f64;
        text.gauge(
            "current_timestamp_seconds",
            "When the lists that readers load were published.",
            [(&[][..], when)],
        );
    }
    let Some(manifest) = ended.manifest else { return text.text };
    let sum = |counts: &std::collections::BTreeMap<String, u64>| counts.values().sum::<u64>() as f64;
    let events = &manifest.events;
    let outcomes = [
        ("kept", events.kept as f64),
        ("rejected", sum(&events.rejected)),
        ("excluded", sum(&events.excluded)),
    ];
    text.each("events", "What became of the events that were read.", "outcome", outcomes);
    let tables = manifest.tables.iter().map(|(name, table)| (name.as_str(), table.rows as f64));
    text.each("table_rows", "Rows of the published tables.", "table", tables);
    let seconds = manifest.stages.iter().map(|stage| (stage.name.as_str(), stage.elapsed_ms as f64 / 1e3));
    text.each("stage_seconds", "How long the stages took.", "stage", seconds);
    let cpu = manifest.stages.iter().map(|stage| (stage.name.as_str(), stage.cost.cpu_ms as f64 / 1e3));
    text.each("stage_cpu_seconds", "Processor time of the stages.", "stage", cpu);
    let memory =
        manifest.stages.iter().map(|stage| (stage.name.as_str(), stage.cost.peak_memory_bytes as f64));
    text.each("stage_peak_memory_bytes", "The highest resident memory of the stages.", "stage", memory);
    text.gauge(
        "peak_memory_bytes",
        "The highest resident memory of the run.",
        [(&[][..], manifest.peak_memory_bytes as f64)],
    );
    text.gauge(
        "warnings",
        "What the operator should know of the run.",
        [(&[][..], manifest.warnings.len() as f64)],
    );
    let fused = manifest.metrics.get("fused").and_then(|fused| fused.as_object());
    let metrics =
        fused.into_iter().flatten().filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?)));
    text.each("metric", "The fused lists on held-out behaviour.", "metric", metrics);
    let findings = manifest.gate["findings"].as_array();
    let findings = findings.into_iter().flatten().filter_map(|finding| {
        Some((finding["what"].as_str()?, f64::from(u8::from(!finding["holds"].as_bool()?))))
    });
    text.each("gate_broken", "Limits of the gate: 1 where one does not hold.", "limit", findings);
    text.text
}

struct Text<'a> {
    job: &'a str,
    text: String,
}

impl Text<'_> {
    fn each<'b>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'b str, f64)>,
    ) {
        let values: Vec<([(&str, &str); 1], f64)> =
            values.into_iter().map(|(of, value)| ([(label, of)], value)).collect();
        self.gauge(name, help, values.iter().map(|(labels, value)| (&labels[..], *value)));
    }

    fn gauge<'b>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (&'b [(&'b str, &'b str)], f64)>,
    ) {
        let text = &mut self.text;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP lamplighter_{name} {help}\n# TYPE lamplighter_{name} gauge");
        for (labels, value) in values {
            let _ = write!(text, "lamplighter_{name}{{job=\"{}\"", self.job);
            for (label, of) in labels {
                let of = of.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = write!(text, ",{label}=\"{of}\"");
            }
            let _ = writeln!(text, "}} {value}");
        }
    }
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
    fn labels_are_escaped() {
        let finding =
            serde_json::json!({ "findings": [{ "what": "odd \"type\" \\ events", "holds": false }] });
        let manifest = Manifest { gate: finding, ..Manifest::default() };
        let ended = Ended { job: "night", at_s: 1, exit_code: 3, manifest: Some(&manifest), current: None };
        let expected = "lamplighter_gate_broken{job=\"night\",limit=\"odd \\\"type\\\" \\\\ events\"} 1\n";
        assert!(prometheus(&ended).ends_with(expected), "{}", prometheus(&ended));
    }
}
