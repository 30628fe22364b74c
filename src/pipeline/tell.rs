//! What others are told of a night: monitoring, lineage, traces. A run is no worse where nobody listens.

use chrono::Utc;

use crate::error::Error;
use crate::job::Job;
use crate::lake::disk;
use crate::lake::store::is_url;
use crate::observe::{self, Ended, Lineage, Reached, Receiver, Trace};

use super::{Event, Outcome, report};

/// A night as it is told.
pub(super) struct Told {
    lineage: Lineage,
    pub(super) trace: Trace,
}

impl Told {
    /// Says that the night's command has begun.
    pub(super) fn begin(job: &Job, on_event: &mut dyn FnMut(Event)) -> Self {
        let lineage = lineage(job);
        tell_lineage(job, &lineage, &Reached::Start, on_event);
        Self { lineage, trace: Trace::default() }
    }

    /// Says how it has ended.
    pub(super) fn end(&self, job: &Job, outcome: &Result<Outcome, Error>, on_event: &mut dyn FnMut(Event)) {
        let reached = match outcome {
            Ok(outcome) => Reached::Complete(&outcome.manifest),
            Err(error) => Reached::Fail(error.exit_code(), report::chain(error)),
        };
        tell_lineage(job, &self.lineage, &reached, on_event);
        let exit_code = outcome.as_ref().err().map_or(0, Error::exit_code);
        // A run that met another one at work has not been: what is told is of that one.
        if exit_code == 4 {
            return;
        }
        let observe = &job.spec.observe;
        if observe.prometheus.is_none() && observe.otlp.is_none() {
            return;
        }
        let refused = match outcome {
            Err(Error::Refused { run_id, .. }) => {
                crate::publish::read_manifest(&job.place.root().join("runs").join(run_id)).ok().flatten()
            }
            _ => None,
        };
        let current = crate::publish::current(&job.place, &job.spec.name.0).ok().flatten();
        let ended = Ended {
            job: &job.spec.name.0,
            at_s: Utc::now().timestamp(),
            exit_code,
            manifest: outcome.as_ref().ok().map(|outcome| &outcome.manifest).or(refused.as_ref()),
            current: current.as_ref(),
        };
        if let Some(path) = &observe.prometheus {
            // The collector must not read half a file.
            let partial = path.with_added_extension("partial");
            let written = disk::write(&partial, observe::prometheus(&ended).as_bytes());
            if let Err(error) = written.and_then(|()| std::fs::rename(&partial, path)) {
                on_event(Event::Warning(&format!("cannot write {}: {error}", path.display())));
            }
        }
        if let Some(Receiver(endpoint)) = &observe.otlp
            && let Err(error) =
                observe::send(endpoint, &observe.otlp_headers, (&self.trace, &self.lineage, &reached), &ended)
        {
            on_event(Event::Warning(&format!("the OTLP collector has not taken the night: {error}")));
        }
    }
}

/// What a night of the job reads and writes.
fn lineage(job: &Job) -> Lineage {
    let inputs = &job.spec.inputs;
    let read = [Some(&inputs.events), inputs.items.as_ref(), inputs.users.as_ref()];
    let output = match job.output_url() {
        Some(url) => url.to_owned(),
        None => absolute(&job.spec.output.to_string_lossy()),
    };
    Lineage {
        job: job.spec.name.0.clone(),
        inputs: read.into_iter().flatten().flat_map(|input| input.paths()).map(absolute).collect(),
        output,
        began: Utc::now(),
    }
}

fn absolute(path: &str) -> String {
    if is_url(path) {
        return path.to_owned();
    }
    std::path::absolute(path).map_or(path.to_owned(), |whole| whole.to_string_lossy().into_owned())
}

/// Tells whoever keeps lineage.
fn tell_lineage(job: &Job, lineage: &Lineage, reached: &Reached, on_event: &mut dyn FnMut(Event)) {
    let Some(Receiver(to)) = &job.spec.observe.openlineage else { return };
    if let Err(error) = observe::deliver(to, &lineage.event(reached, Utc::now())) {
        on_event(Event::Warning(&format!("no event of lineage in {to}: {error}")));
    }
}
