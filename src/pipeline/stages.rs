//! One night: the run, what each stage left behind, and the stages themselves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use chrono::NaiveDate;
use serde_json::{Value, json};

use crate::error::Error;
use crate::evaluation::{Hold, Split};
use crate::job::Job;
use crate::lake::table::{self, Layout};
use crate::lake::{self, Lake};
use crate::matrix::{Csr, Dense, kernels};
use crate::publish::{DoneStage, Fingerprint, Manifest, Output, Rows, Run, Stage, State};
use crate::{behavior, catalog, repeat};

use super::check::Inputs;
use super::history::{self, History, Ids};
use super::lists::{self, IdColumn};
use super::report;
use super::usage::Usage;
use super::{Event, Options, Outcome};

/// A stage that is complete: where its files are and what it reported.
pub(super) struct Done {
    pub(super) folder: PathBuf,
    pub(super) fingerprint: String,
    pub(super) facts: Value,
}

/// What a stage's work returns: facts for later stages and the manifest, and a few words for people.
pub(super) struct Report {
    pub(super) facts: Value,
    pub(super) note: String,
}

/// One run of one job. See the [pipeline](super).
pub(super) struct Night<'a> {
    pub(super) job: &'a Job,
    pub(super) inputs: &'a Inputs,
    pub(super) options: &'a Options,
    pub(super) output: &'a Output,
    pub(super) run: Run,
    pub(super) date: NaiveDate,
    pub(super) done: BTreeMap<&'static str, Done>,
    pub(super) manifest: Manifest,
    /// What became of the run; nothing yet where it has further to go.
    pub(super) state: Option<State>,
    pub(super) metrics: Option<String>,
    /// Old runs that were removed.
    pub(super) retired: Vec<String>,
    pub(super) on_event: &'a mut dyn FnMut(Event),
    lake: Option<Lake>,
    /// A hash of the running program, the shipped SQL in it included.
    program: String,
}

impl<'a> Night<'a> {
    pub(super) fn open(
        job: &'a Job,
        inputs: &'a Inputs,
        options: &'a Options,
        output: &'a Output,
        on_event: &'a mut dyn FnMut(Event),
    ) -> Result<Self, Error> {
        let date = super::run_date(job, options);
        let run = output.start(date)?;
        on_event(Event::Run { run_id: run.id(), resumed: run.resumed() });
        let manifest = super::publish::first_manifest(job, inputs, &run, date);
        let (done, metrics) = (BTreeMap::new(), None);
        Ok(Self {
            job,
            inputs,
            options,
            output,
            run,
            date,
            done,
            manifest,
            state: None,
            metrics,
            retired: Vec::new(),
            on_event,
            lake: None,
            program: program(),
        })
    }

    pub(super) fn outcome(self, elapsed: Duration) -> Outcome {
        Outcome {
            folder: self.job.place.shown(&self.run.folder()),
            manifest: self.manifest,
            state: self.state,
            metrics: self.metrics,
            retired: self.retired,
            elapsed,
        }
    }

    pub(super) fn warn(&mut self, text: String) {
        (self.on_event)(Event::Warning(&text));
        self.manifest.warnings.push(text);
    }

    pub(super) fn progress(&mut self, stage: &str, done: usize, of: usize, unit: &str) {
        (self.on_event)(Event::Progress { stage, done: done as u64, of: of as u64, unit });
    }

    /// Takes the stage's earlier result where its fingerprint is the same, else does the work.
    pub(super) fn stage(
        &mut self,
        name: &'static str,
        fingerprint: String,
        work: impl FnOnce(&mut Self, &Path) -> Result<Report, Error>,
    ) -> Result<(), Error> {
        let (began, usage) = (Instant::now(), Usage::begin());
        let _span = tracing::info_span!(target: "profile", "stage", of = name).entered();
        let (folder, facts, reused_from) = match self.run.stage(name, &fingerprint)? {
            Stage::Done(done) => {
                (self.on_event)(Event::Reused { stage: name, from: done.made_by() });
                (done.folder().to_owned(), done.facts().clone(), Some(done.made_by().to_owned()))
            }
            Stage::Todo(writer) => {
                (self.on_event)(Event::Started { stage: name });
                let report = work(self, writer.folder())?;
                let elapsed = began.elapsed();
                let done = writer.finish(report.facts)?;
                (self.on_event)(Event::Finished { stage: name, elapsed, note: &report.note });
                (done.folder().to_owned(), done.facts().clone(), None)
            }
        };
        self.manifest.stage(name, &fingerprint, (began.elapsed(), usage.since()), reused_from);
        self.done.insert(name, Done { folder, fingerprint, facts });
        Ok(())
    }

    /// What was read of an earlier night's stage; where it cannot be read, it is as if that had never been.
    pub(super) fn unless_damaged<T>(
        &mut self,
        read: Result<T, Error>,
        what: &str,
        stage: &DoneStage,
    ) -> Option<T> {
        read.map_err(|error| {
            let (run, why) = (stage.made_by(), report::chain(&error));
            self.warn(format!("the {what} of {run} are not built on: {why}"));
        })
        .ok()
    }

    /// The run whose result of a stage was taken, if one was.
    pub(super) fn reused(&self, stage: &str) -> Option<String> {
        self.manifest.stages.iter().find(|record| record.name == stage)?.reused_from.clone()
    }

    pub(super) fn folder(&self, stage: &str) -> PathBuf {
        self.done[stage].folder.clone()
    }

    /// A fingerprint that begins with what every stage depends on: the program, and the stages it reads.
    pub(super) fn fingerprint(&self, stage: &str, reads: &[&str]) -> Fingerprint {
        let mut fingerprint = Fingerprint::new(stage).add("program", &self.program);
        for earlier in reads {
            fingerprint = fingerprint.add(earlier, &self.done[*earlier].fingerprint);
        }
        fingerprint
    }

    /// The same with what models are made with, all but the factors, and what they are weighed by.
    pub(super) fn models_fingerprint(&self, stage: &str, reads: &[&str]) -> Fingerprint {
        let spec = &self.job.spec;
        let ranking = &spec.ranking;
        // Neither the rules of lists nor their length have a part in a model.
        let ranking =
            json!((ranking.exclude_seen, &ranking.weights, &ranking.without, ranking.trend_half_life_days));
        self.fingerprint(stage, reads)
            .add("linear", &json!(spec.linear).to_string())
            .add("profile", &json!(spec.profile).to_string())
            .add("ranking", &ranking.to_string())
            .add("repeat", &json!(spec.repeat).to_string())
            .add("seed", &spec.seed.to_string())
            .add("threads", &spec.threads.to_string())
    }

    pub(super) fn lake(&mut self) -> Result<Lake, Error> {
        match self.lake.take() {
            Some(lake) => Ok(lake),
            None => {
                let spec = &self.job.spec;
                Ok(Lake::open(&lake::Config {
                    threads: spec.threads,
                    memory_bytes: spec.sql_memory_mib.bytes(),
                    spill_dir: Some(self.run.scratch()?),
                })?)
            }
        }
    }

    pub(super) fn behavior_facts(&self) -> Result<behavior::Facts, Error> {
        facts(&self.done["behavior"].facts)
    }

    pub(super) fn catalog_facts(&self) -> Result<catalog::Facts, Error> {
        facts(&self.done["catalog"].facts)
    }

    pub(super) fn ids(&self) -> Result<Ids, Error> {
        Ids::read(&self.folder("behavior"))
    }

    /// The windows of time that models are fitted to, the earliest first: `fit`, whose future teaches the
    /// fusion, `train`, whose future is what the evaluation asks for, and `full`.
    pub(super) fn windows(&self) -> Vec<&'static str> {
        let (spec, inputs) = (&self.job.spec, self.inputs);
        let fit = spec.ranking.weights.is_none() && inputs.valid.is_none();
        let train = spec.evaluation.enabled && inputs.test.is_none();
        let wanted = [("fit", fit), ("train", train), ("full", true)];
        wanted.into_iter().filter_map(|(name, wanted)| wanted.then_some(name)).collect()
    }

    /// How many days before the end of the run each window ends, where they differ by time.
    pub(super) fn days_held_out(&self, windows: &[&'static str]) -> Vec<(&'static str, f64)> {
        let days = self.job.spec.evaluation.test_days;
        let later = (0..windows.len()).rev();
        windows.iter().zip(later).map(|(window, later)| (*window, days * later as f64)).collect()
    }

    /// How the windows before `full` differ from it.
    pub(super) fn hold(&self) -> Result<Hold, Error> {
        let usable_times = self.behavior_facts()?.usable_times;
        Ok(self.hold_of(usable_times, &self.done["behavior"].facts["returning"]))
    }

    fn hold_of(&self, usable_times: bool, returning: &Value) -> Hold {
        if !usable_times {
            return Hold::Random;
        }
        self.job.spec.evaluation.split.unwrap_or_else(|| match least_returning(returning) {
            Some(n_users) if n_users < LEAST_RETURNING => Hold::LeaveLastOut,
            _ => Hold::Temporal,
        })
    }

    /// What models of a window may see.
    pub(super) fn history(&self, window: &str, ids: &Ids) -> Result<History, Error> {
        let usable_times = self.behavior_facts()?.usable_times;
        let behavior = self.folder("behavior");
        if self.hold()? == Hold::Temporal {
            return History::read(&behavior, window, ids, usable_times);
        }
        let history = History::read(&behavior, "full", ids, usable_times)?;
        match self.splits(&history, self.hold()?)?.remove(window) {
            Some(split) => history.of_kept(&behavior, window, split.train),
            None => Ok(history),
        }
    }

    /// What users' visits before the end of a window held, where times tell visits apart. Of a window that
    /// holds out otherwise than by time, it is all visits.
    pub(super) fn visits(&self, window: &str) -> Result<Option<repeat::Visits>, Error> {
        if !self.behavior_facts()?.usable_times {
            return Ok(None);
        }
        let window = if self.hold()? == Hold::Temporal { window } else { "full" };
        Ok(Some(history::visits(&self.folder("behavior"), window)?))
    }

    /// Whether lists that are compared with what is held out leave out what users know: because the job says so,
    /// or because a user's held-out pairs are by construction others, and `history` could only be wrong. A
    /// given table may hold anything.
    pub(super) fn hides_seen(&self, is_given: bool) -> Result<bool, Error> {
        Ok(self.job.spec.ranking.exclude_seen || !is_given && self.hold()? != Hold::Temporal)
    }

    /// What weights are learned from: a window, and what users turned to after it.
    pub(super) fn lesson(&self, ids: &Ids) -> Result<(&'static str, Csr), Error> {
        match self.inputs.valid {
            Some(_) => Ok(("full", self.given("valid", ids)?)),
            None => Ok(("fit", self.truth("fit", ids)?)),
        }
    }

    /// What lists are compared with: a window, and what users turned to after it.
    pub(super) fn exam(&self, ids: &Ids) -> Result<(&'static str, Csr), Error> {
        match self.inputs.test {
            Some(_) => Ok(("full", self.given("test", ids)?)),
            None => Ok(("train", self.truth("train", ids)?)),
        }
    }

    fn given(&self, name: &str, ids: &Ids) -> Result<Csr, Error> {
        let path = self.folder("behavior").join(format!("{name}.parquet"));
        history::pairs(&path, ids.users.len(), ids.items.len())
    }

    /// What users turned to after a window.
    fn truth(&self, window: &str, ids: &Ids) -> Result<Csr, Error> {
        let behavior = self.folder("behavior");
        if self.hold()? == Hold::Temporal {
            let path = behavior.join(window).join("held_out.parquet");
            return history::pairs(&path, ids.users.len(), ids.items.len());
        }
        let usable_times = self.behavior_facts()?.usable_times;
        let history = History::read(&behavior, "full", ids, usable_times)?;
        let split = self.splits(&history, self.hold()?)?.remove(window);
        Ok(split.map_or_else(|| history.interactions.clone(), |split| split.test))
    }

    /// What the windows before `full` hold out where it is not the latest days, each from the one after.
    fn splits(&self, full: &History, hold: Hold) -> Result<BTreeMap<&'static str, Split>, Error> {
        let spec = &self.job.spec;
        let mut splits = BTreeMap::new();
        let mut rest = full.clone();
        for (at, window) in self.windows().into_iter().rev().skip(1).enumerate() {
            let split = match hold {
                Hold::LeaveLastOut => Split::last(&rest.interactions, &rest.steps)?,
                _ => Split::random(&rest.interactions, spec.evaluation.test_share, spec.seed + at as u64)?,
            };
            rest.keep_only(split.train.clone());
            splits.insert(window, split);
        }
        Ok(splits)
    }

    pub(super) fn catalog_rows(&self) -> Result<catalog::Catalog, Error> {
        Ok(catalog::Catalog::read(&self.folder("catalog").join("catalog.parquet"))?)
    }

    /// Whether an item may be listed by what a window knows: without a catalogue, an item is there once somebody
    /// has turned to it.
    pub(super) fn eligible(&self, history: &History) -> Result<Vec<bool>, Error> {
        let mut eligible = self.catalog_rows()?.eligible;
        if self.inputs.items.is_none() {
            let known = history.n_users_of_item.iter().map(|n_users| *n_users > 0);
            eligible.iter_mut().zip(known).for_each(|(eligible, known)| *eligible &= known);
        }
        Ok(eligible)
    }

    /// Item ids in the type that the catalogue, or else the events, have them in.
    pub(super) fn item_ids(&self, ids: &Ids) -> IdColumn {
        let input = self.inputs.items.as_ref().unwrap_or(&self.inputs.events);
        IdColumn::new(ids.items.clone(), published_type(&input.id_types, "item_id"))
    }

    /// User ids in the type that the events have them in.
    pub(super) fn user_ids(&self, ids: &Ids) -> IdColumn {
        IdColumn::new(ids.users.clone(), published_type(&self.inputs.events.id_types, "user_id"))
    }

    pub(super) fn behavior(&mut self) -> Result<(), Error> {
        let spec = &self.job.spec;
        let run_end_us = end_of_day_us(self.date);
        // What is held out otherwise is taken from the whole history when it is read.
        let temporal = matches!(spec.evaluation.split, None | Some(Hold::Temporal));
        let windows = if temporal { self.windows() } else { vec!["full"] };
        let mut cuts = self.days_held_out(&windows);
        cuts.pop();
        let mut fingerprint = self
            .fingerprint("behavior", &[])
            .add("run_end", &run_end_us.to_string())
            .add("cuts", &format!("{cuts:?}"))
            .add("held_out", &json!((spec.evaluation.held_out(), spec.seed, self.windows())).to_string())
            .add("consent", &json!(spec.privacy.consent).to_string())
            .add("config", &json!(spec.behavior).to_string());
        for (name, text) in spec.behavior.statement_texts() {
            fingerprint = fingerprint.add(&name, &text);
        }
        for (name, input) in self.inputs.all() {
            fingerprint = fingerprint.add(name, &input.describe());
        }
        self.stage("behavior", fingerprint.hex(), |night, folder| {
            let lake = night.lake()?;
            let (job, inputs) = (night.job, night.inputs);
            let sources = behavior::Sources {
                events: &inputs.events,
                items: inputs.items.as_ref(),
                users: inputs.users.as_ref(),
                consent: job.spec.privacy.consent.as_deref(),
                given: inputs.given().collect(),
            };
            let facts = behavior::aggregate(
                &lake,
                &sources,
                &job.spec.behavior,
                run_end_us,
                &cuts,
                folder,
                &mut |step| night.progress("behavior", step.done, step.of, "statements"),
            )
            .map_err(|error| inputs.blamed_for(Error::Behavior(error)))?;
            let note = format!(
                "{} events read, {} kept; {} users, {} items, {} queries",
                facts.read, facts.kept, facts.n_users, facts.n_items, facts.n_queries
            );
            let mut returning = serde_json::Map::new();
            for window in facts.windows.iter().rev().skip(1) {
                let n_users = history::n_returning(&folder.join(&window.name))?;
                returning.insert(window.name.clone(), json!(n_users));
            }
            let returning = Value::Object(returning);
            let hold = night.hold_of(facts.usable_times, &returning);
            if hold != Hold::Temporal {
                night.hold_out(&lake, folder, hold, facts.usable_times)?;
            }
            night.lake = Some(lake);
            let mut facts = json!(facts);
            facts["returning"] = returning;
            Ok(Report { facts, note })
        })?;
        let facts = self.behavior_facts()?;
        if facts.usable_times && facts.last_us < EARLIEST_EPOCH_US {
            self.warn(format!(
                "the last event is of {}: is event_time seconds, milliseconds, microseconds or nanoseconds since 1970?",
                chrono::DateTime::from_timestamp_micros(facts.last_us).unwrap_or_default().date_naive()
            ));
        }
        if !facts.usable_times {
            self.warn("all event times are equal: decay is off, and the evaluation holds out a random share of each user's items".to_owned());
        } else if !facts.deduplicated {
            self.warn("event times carry no time of day: equal rows are kept as repeats, not rejected as duplicates".to_owned());
        }
        if temporal && self.hold()? == Hold::LeaveLastOut {
            self.warn(format!(
                "only {} users came back in the held-out days (evaluation.test_days = {}): the evaluation holds out each user's last item",
                least_returning(&self.done["behavior"].facts["returning"]).unwrap_or(0),
                self.job.spec.evaluation.test_days
            ));
        }
        if facts.n_unnamed_users + facts.n_repeated_users > 0 {
            self.warn(format!(
                "of the users' table {} rows have no user_id and {} repeat one; none of them adds a user",
                facts.n_unnamed_users, facts.n_repeated_users
            ));
        }
        if !facts.unclear_consent.is_empty() {
            self.warn(format!(
                "privacy.consent: expected true, yes or 1, or false, no or 0; found {}, which count as no",
                facts.unclear_consent.iter().map(|found| format!("`{found}`")).collect::<Vec<_>>().join(", ")
            ));
        }
        self.manifest.events =
            Rows { read: facts.read, kept: facts.kept, rejected: facts.rejected, excluded: facts.excluded };
        Ok(())
    }

    /// Writes what each window before `full` holds out where it is not the latest days, and its users as
    /// they are without it.
    fn hold_out(&self, lake: &Lake, behavior: &Path, hold: Hold, usable_times: bool) -> Result<(), Error> {
        let history = History::read(behavior, "full", &Ids::read(behavior)?, usable_times)?;
        let splits = self.splits(&history, hold)?;
        for (window, split) in &splits {
            let held_out = history::without(&history.interactions, &split.train);
            history::write_pairs(&held_out, &behavior.join(window).join("held_out.parquet"))?;
        }
        let windows: Vec<&str> = splits.keys().copied().collect();
        behavior::users_of_kept(lake, &self.job.spec.behavior, &windows, behavior).map_err(Error::Behavior)
    }

    pub(super) fn catalog(&mut self) -> Result<(), Error> {
        let text = self.job.spec.inputs.items.as_ref().and_then(|items| items.text.clone());
        let fingerprint = self
            .fingerprint("catalog", &["behavior"])
            .add("config", &json!(self.job.spec.catalog).to_string())
            .add("text", &format!("{text:?}"));
        self.stage("catalog", fingerprint.hex(), |night, folder| {
            let lake = night.lake()?;
            lake.register_file("item_ids", &night.folder("behavior").join("item_ids.parquet"))?;
            let items = night.inputs.items.as_ref().map(|items| (items, text.as_deref()));
            let facts = catalog::build(&lake, items, &night.job.spec.catalog, folder)
                .map_err(|error| night.inputs.blamed_for(Error::Catalog(error)))?;
            night.lake = Some(lake);
            let note = format!("{} of {} items may be listed", facts.n_eligible, facts.n_items);
            Ok(Report { facts: json!(facts), note })
        })?;
        // The SQL is done: its threads and memory go back before the models take theirs.
        self.lake = None;
        let facts = self.catalog_facts()?;
        self.manifest.items =
            Rows { read: facts.read, kept: facts.n_items, rejected: facts.rejected, ..Rows::default() };
        Ok(())
    }

    /// Whether texts are embedded: there is a catalogue, and it has texts.
    pub(super) fn has_texts(&self) -> Result<bool, Error> {
        Ok(self.inputs.encoder.is_some() && self.catalog_facts()?.n_texts > 0)
    }
}

/// Users that must have come back in held-out days for weights and metrics to mean something.
const LEAST_RETURNING: u64 = 50;

/// Of the windows before `full`, the fewest users whom one knows and who came back after it.
fn least_returning(returning: &Value) -> Option<u64> {
    returning.as_object().and_then(|windows| windows.values().filter_map(Value::as_u64).min())
}

/// 1973-03-03: an integer below the year's seconds is hardly an epoch.
const EARLIEST_EPOCH_US: i64 = 100_000_000_000_000;

/// Where a stage keeps a window's tables: the whole history's are the ones that get published.
pub(super) fn window_folder(stage: &Path, window: &str) -> PathBuf {
    if window == "full" { stage.to_owned() } else { stage.join(window) }
}

/// The version and, where the program's file can be read, its hash: another build may give other rows, and so may
/// other kernels, whose results support compares.
fn program() -> String {
    let file = std::env::current_exe().and_then(std::fs::read);
    let hash = file.map_or_else(|_| String::new(), |bytes| blake3::hash(&bytes).to_hex()[..32].to_owned());
    let kernels = if kernels::are_portable() { " portable" } else { "" };
    format!("{} {hash}{kernels}", env!("CARGO_PKG_VERSION"))
}

/// Moments of the run date count until its last microsecond, UTC.
pub(super) fn end_of_day_us(date: NaiveDate) -> i64 {
    let next = date.succ_opt().unwrap_or(date);
    next.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros() - 1
}

fn published_type(types: &BTreeMap<String, DataType>, column: &str) -> DataType {
    types.get(column).cloned().unwrap_or(DataType::Utf8)
}

pub(super) fn facts<T: serde::de::DeserializeOwned>(facts: &Value) -> Result<T, Error> {
    serde_json::from_value(facts.clone()).map_err(Error::Facts)
}

/// Writes a table of ids and their vectors; a zero row is null where `null_zeros`.
pub(super) fn write_vectors(
    path: &Path,
    (id_name, ids): (&'static str, &IdColumn),
    vector_name: &'static str,
    matrix: &Dense,
    null_zeros: bool,
) -> Result<(), Error> {
    let block = |rows: std::ops::Range<usize>| {
        let ids = ids.take(rows.clone().map(|row| Some(row as u32)))?;
        let vectors = lists::vectors(matrix, rows, null_zeros)?;
        lists::batch(vec![(id_name, ids), (vector_name, vectors)], &[vector_name])
    };
    let layout = Layout { sorted_by: vec![id_name.to_owned()], bloom: vec![id_name.to_owned()] };
    let mut writer =
        table::Writer::create(path, block(0..0)?.schema(), &layout).map_err(lake::Error::from)?;
    for start in (0..matrix.n_rows()).step_by(BLOCK_ROWS) {
        let rows = start..(start + BLOCK_ROWS).min(matrix.n_rows());
        writer.write(&block(rows)?).map_err(lake::Error::from)?;
    }
    writer.finish().map_err(lake::Error::from)?;
    Ok(())
}

pub(super) fn read_vectors(path: &Path, name: &str) -> Result<Dense, Error> {
    dense(lake::read(path, &[name])?.column(0))
}

/// A FixedSizeList<f32> column as a matrix.
pub(super) fn dense(column: &arrow::array::ArrayRef) -> Result<Dense, Error> {
    let rows = column.as_fixed_size_list();
    let values = rows.values().as_primitive::<arrow::datatypes::Float32Type>().values();
    let dim = rows.value_length() as usize;
    let mut matrix = Dense::from_vec(rows.len(), dim, values[..rows.len() * dim].to_vec())?;
    for row in (0..rows.len()).filter(|row| rows.is_null(*row)) {
        matrix.row_mut(row).fill(0.0);
    }
    Ok(matrix)
}

/// Rows written or ranked at a time.
pub(super) const BLOCK_ROWS: usize = 4096;
