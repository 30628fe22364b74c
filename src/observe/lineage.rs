//! What a night read and wrote, as OpenLineage events (openlineage.io, specification 2-0-2).

use std::path::Path;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use crate::lake::disk;
use crate::publish::Manifest;

/// A night, from when its command begins.
pub struct Lineage {
    /// The job's name.
    pub job: String,
    /// Where what the job reads is.
    pub inputs: Vec<String>,
    /// Where the job's runs go.
    pub output: String,
    /// When the command began; it is part of the run's id.
    pub began: DateTime<Utc>,
}

/// What a night has come to.
pub enum Reached<'a> {
    /// It has begun.
    Start,
    /// It has ended well.
    Complete(&'a Manifest),
    /// It has ended otherwise: with this exit code, for this reason.
    Fail(u8, String),
}

/// Who says so.
const PRODUCER: &str = concat!("urn:lamplighter:", env!("CARGO_PKG_VERSION"));
const SPECIFICATION: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent";

impl Lineage {
    /// The event. A table has the same name night after night; its version is the run.
    pub fn event(&self, reached: &Reached, now: DateTime<Utc>) -> Value {
        let mut run_facets = Map::new();
        let (kind, outputs) = match reached {
            Reached::Start => ("START", Vec::new()),
            Reached::Complete(manifest) => ("COMPLETE", self.outputs(manifest)),
            Reached::Fail(code, message) => {
                let (language, message) = ("Rust", format!("{message} (exit code {code})"));
                let fields = json!({ "message": message, "programmingLanguage": language });
                run_facets.insert("errorMessage".to_owned(), facet("1-0-1/ErrorMessageRunFacet", fields));
                // Another run of the job is at work: this one has not been.
                (if *code == 4 { "ABORT" } else { "FAIL" }, Vec::new())
            }
        };
        let inputs = self.inputs.iter().map(|place| {
            let (namespace, name) = dataset(place);
            json!({ "namespace": namespace, "name": name })
        });
        json!({
            "eventType": kind,
            "eventTime": now.to_rfc3339_opts(SecondsFormat::Millis, true),
            "producer": PRODUCER,
            "schemaURL": SPECIFICATION,
            "run": { "runId": self.run_id(), "facets": run_facets },
            "job": { "namespace": "lamplighter", "name": self.job },
            "inputs": inputs.collect::<Vec<_>>(),
            "outputs": outputs,
        })
    }

    fn outputs(&self, manifest: &Manifest) -> Vec<Value> {
        let of_table = |(table, record): (&String, &crate::publish::TableRecord)| {
            let (namespace, name) = dataset(&format!("{}/{table}", self.output.trim_end_matches('/')));
            let version = json!({ "datasetVersion": manifest.run_id });
            let statistics =
                json!({ "rowCount": record.rows, "size": record.bytes, "fileCount": record.files });
            json!({
                "namespace": namespace,
                "name": name,
                "facets": { "version": facet("1-0-1/DatasetVersionDatasetFacet", version) },
                "outputFacets": {
                    "outputStatistics": facet("1-0-2/OutputStatisticsOutputDatasetFacet", statistics),
                },
            })
        };
        manifest.tables.iter().map(of_table).collect()
    }

    /// A UUID (version 8) that is the same for all events of one command.
    pub(super) fn run_id(&self) -> String {
        let name = format!("{}\n{}\n{}", self.job, self.output, self.began.to_rfc3339());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..16]);
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

/// As the specification names data: a store by its bucket, a file by its path.
fn dataset(place: &str) -> (String, String) {
    match place.split_once("://") {
        Some((scheme, rest)) => {
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            (format!("{scheme}://{bucket}"), key.to_owned())
        }
        None => ("file".to_owned(), place.to_owned()),
    }
}

fn facet(schema: &str, fields: Value) -> Value {
    let name = schema.split('/').next_back().unwrap_or(schema);
    let mut facet = fields;
    facet["_producer"] = PRODUCER.into();
    facet["_schemaURL"] = format!("https://openlineage.io/spec/facets/{schema}.json#/$defs/{name}").into();
    facet
}

/// Sends an event to a server, or appends it to a file as a line of JSON.
///
/// # Errors
/// If the server does not take it within ten seconds, or the file cannot be written.
pub fn deliver(to: &str, event: &Value) -> std::io::Result<()> {
    if to.starts_with("http://") || to.starts_with("https://") {
        return super::post(to, &super::Headers::default(), event);
    }
    disk::append(Path::new(to), &format!("{event}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn night() -> Lineage {
        Lineage {
            job: "night".to_owned(),
            inputs: vec!["s3://shop/data/events".to_owned(), "/data/items".to_owned()],
            output: "s3://shop/out".to_owned(),
            began: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn events_of_one_night_share_its_id_and_name_its_data() {
        let manifest = Manifest {
            run_id: "night-1970-01-01-1".to_owned(),
            tables: [("metrics".to_owned(), crate::publish::TableRecord { rows: 3, bytes: 70, files: 1 })]
                .into(),
            ..Manifest::default()
        };
        let start = night().event(&Reached::Start, DateTime::UNIX_EPOCH);
        let complete = night().event(&Reached::Complete(&manifest), DateTime::UNIX_EPOCH);
        assert_eq!((&start["eventType"], &complete["eventType"]), (&"START".into(), &"COMPLETE".into()));
        assert_eq!(start["run"]["runId"], complete["run"]["runId"]);
        let id = start["run"]["runId"].as_str().unwrap();
        assert!(id.len() == 36 && &id[14..15] == "8" && "89ab".contains(&id[19..20]), "{id}");
        assert_eq!(start["inputs"][0]["namespace"], "s3://shop");
        assert_eq!(start["inputs"][0]["name"], "data/events");
        assert_eq!(start["inputs"][1]["namespace"], "file");
        let output = &complete["outputs"][0];
        assert_eq!((&output["namespace"], &output["name"]), (&"s3://shop".into(), &"out/metrics".into()));
        assert_eq!(output["facets"]["version"]["datasetVersion"], "night-1970-01-01-1");
        assert_eq!(output["outputFacets"]["outputStatistics"]["rowCount"], 3);
        let later = Lineage { began: Utc::now(), ..night() };
        assert_ne!(later.event(&Reached::Start, Utc::now())["run"]["runId"], id);
    }

    #[test]
    fn a_night_that_found_another_at_work_is_no_failure_of_the_job() {
        let kind = |code: u8| night().event(&Reached::Fail(code, "no".to_owned()), DateTime::UNIX_EPOCH);
        assert_eq!(kind(4)["eventType"], "ABORT");
        let failed = kind(3);
        assert_eq!(failed["eventType"], "FAIL");
        assert_eq!(failed["run"]["facets"]["errorMessage"]["message"], "no (exit code 3)");
    }
}
