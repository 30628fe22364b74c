//! A night as a trace and as metrics, by OTLP in JSON over HTTP (opentelemetry.io, protocol 1).
//!
//! The trace's id is that of the night's lineage, so that both can be joined. Its root span is the command, from its
//! begin to its end; each stage is a child of it, and the one that a night failed in carries the error.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::lineage::{Lineage, Reached};
use super::{Ended, Headers, figures, post};

/// The stages of a night as they went.
#[derive(Debug, Default)]
pub struct Trace {
    /// The run, once it was opened.
    pub run_id: Option<String>,
    stages: Vec<Stage>,
}

#[derive(Debug)]
struct Stage {
    name: &'static str,
    began: DateTime<Utc>,
    /// Not of one that failed.
    ended: Option<DateTime<Utc>>,
    reused_from: Option<String>,
}

impl Trace {
    /// A stage begins.
    pub fn begin(&mut self, name: &'static str) {
        self.stages.push(Stage { name, began: Utc::now(), ended: None, reused_from: None });
    }

    /// It has ended well; with the run whose result was taken, if one was.
    pub fn end(&mut self, reused_from: Option<String>) {
        if let Some(stage) = self.stages.last_mut() {
            (stage.ended, stage.reused_from) = (Some(Utc::now()), reused_from);
        }
    }

    /// The spans of a night that has ended so.
    fn spans(&self, night: &Lineage, reached: &Reached, now: DateTime<Utc>) -> Value {
        let trace_id = night.run_id().replace('-', "");
        let span_id =
            |name: &str| blake3::hash(format!("{trace_id}\n{name}").as_bytes()).to_hex()[..16].to_owned();
        let root = span_id("");
        // 1 is well, 2 an error.
        let (code, status) = match reached {
            Reached::Fail(code, message) => (*code, json!({ "code": 2, "message": message })),
            _ => (0, json!({ "code": 1 })),
        };
        let mut of_run = vec![attribute("lamplighter.job", &night.job)];
        of_run.extend(self.run_id.as_deref().map(|run_id| attribute("lamplighter.run_id", run_id)));
        of_run.push(json!({ "key": "process.exit.code", "value": { "intValue": code.to_string() } }));
        // 1 is a span inside the program.
        let mut spans = vec![json!({
            "traceId": trace_id, "spanId": root, "name": "run", "kind": 1,
            "startTimeUnixNano": nanos(night.began), "endTimeUnixNano": nanos(now),
            "attributes": of_run, "status": status,
        })];
        spans.extend(self.stages.iter().map(|stage| {
            let reused = stage.reused_from.iter();
            let attributes: Vec<Value> =
                reused.map(|run_id| attribute("lamplighter.reused_from", run_id)).collect();
            json!({
                "traceId": trace_id, "spanId": span_id(stage.name), "parentSpanId": root,
                "name": stage.name, "kind": 1,
                "startTimeUnixNano": nanos(stage.began), "endTimeUnixNano": nanos(stage.ended.unwrap_or(now)),
                "attributes": attributes,
                "status": if stage.ended.is_some() { json!({ "code": 1 }) } else { status.clone() },
            })
        }));
        json!({ "resourceSpans": [{
            "resource": resource(),
            "scopeSpans": [{ "scope": scope(), "spans": spans }],
        }] })
    }
}

fn metrics(ended: &Ended) -> Value {
    let metrics = figures(ended).into_iter().map(|figure| {
        let point = |(of, value): &(String, f64)| {
            let mut attributes = vec![attribute("job", ended.job)];
            attributes.extend(figure.label.map(|label| attribute(label, of)));
            json!({
                "timeUnixNano": format!("{}000000000", ended.at_s),
                "asDouble": value,
                "attributes": attributes,
            })
        };
        let unit = [("_seconds", "s"), ("_bytes", "By")];
        let unit = unit.into_iter().find(|(end, _)| figure.name.ends_with(end)).map_or("1", |(_, unit)| unit);
        json!({
            "name": format!("lamplighter.{}", figure.name),
            "description": figure.help,
            "unit": unit,
            "gauge": { "dataPoints": figure.values.iter().map(point).collect::<Vec<_>>() },
        })
    });
    json!({ "resourceMetrics": [{
        "resource": resource(),
        "scopeMetrics": [{ "scope": scope(), "metrics": metrics.collect::<Vec<_>>() }],
    }] })
}

/// Sends a night that has ended to a collector.
///
/// # Errors
/// If the collector does not take it.
pub fn send(
    endpoint: &str,
    headers: &Headers,
    (trace, night, reached): (&Trace, &Lineage, &Reached),
    ended: &Ended,
) -> std::io::Result<()> {
    let endpoint = endpoint.trim_end_matches('/');
    post(&format!("{endpoint}/v1/traces"), headers, &trace.spans(night, reached, Utc::now()))?;
    post(&format!("{endpoint}/v1/metrics"), headers, &metrics(ended))
}

fn resource() -> Value {
    let version = attribute("service.version", env!("CARGO_PKG_VERSION"));
    json!({ "attributes": [attribute("service.name", "lamplighter"), version] })
}

fn scope() -> Value {
    json!({ "name": "lamplighter", "version": env!("CARGO_PKG_VERSION") })
}

fn attribute(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// Since 1970; 64-bit integers are text in this JSON.
fn nanos(time: DateTime<Utc>) -> String {
    time.timestamp_nanos_opt().unwrap_or(0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_night_is_an_error_in_the_stage_that_it_failed_in_and_in_none_before() {
        let night = Lineage {
            job: "night".to_owned(),
            inputs: Vec::new(),
            output: "out".to_owned(),
            began: DateTime::UNIX_EPOCH,
        };
        let mut trace = Trace::default();
        trace.begin("behavior");
        trace.end(Some("night-1970-01-01-1".to_owned()));
        trace.begin("catalog");
        let failed = trace.spans(&night, &Reached::Fail(1, "no disk".to_owned()), Utc::now());
        let spans = failed["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
        let of = |key: &str| -> Vec<&Value> { spans.iter().map(|span| &span[key]).collect() };
        assert_eq!(of("name"), ["run", "behavior", "catalog"]);
        let codes: Vec<&Value> = of("status").into_iter().map(|status| &status["code"]).collect();
        assert_eq!(codes, [2, 1, 2]);
        assert_eq!(spans[2]["status"]["message"], "no disk");
        assert_eq!(of("parentSpanId"), [&Value::Null, &spans[0]["spanId"], &spans[0]["spanId"]]);
        assert_ne!(spans[1]["spanId"], spans[2]["spanId"]);
        let id = spans[0]["traceId"].as_str().unwrap();
        assert_eq!((id.len(), id.to_owned()), (32, night.run_id().replace('-', "")));
        assert_eq!(spans[0]["startTimeUnixNano"], "0");
        assert_eq!(spans[1]["attributes"][0]["value"]["stringValue"], "night-1970-01-01-1");
    }
}
