//! The page of a run: what its manifest and tables say, and those of the nights before it.
//!
//! A night writes its page before the manifest that completes it, so that the page is there whenever the run
//! is, and a run that was killed has none. A page that cannot be made is a warning of the night, never a reason
//! not to publish lists: it can be made again at any time.

use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt32Type};
use arrow::util::display::array_value_to_string;

use crate::error::Error;
use crate::gate::Measured;
use crate::job::Job;
use crate::lake::{self, Lake, Param};
use crate::publish::{self, Id, Ids, Manifest};
use crate::random::split_mix;
use crate::report::{self, Facts, Item, Metric, Night as PastNight, Row, User};

use super::gate::{Judgement, n_users_of_items, problem_of};
use super::stages::Night;
use super::{current, runs};

/// Earlier nights that are shown.
const NIGHTS: usize = 30;
/// Users whose lists are shown.
const USERS: usize = 4;
/// Rows of each of them.
const ROWS: i64 = 8;

/// Makes the page of a run again: of the one named, or the one that readers load. It goes into the run's folder,
/// or into a file that is named.
///
/// # Errors
/// If there is no such run, it is not complete, its tables cannot be read, or a run of the job is working where
/// the page is to go into the run.
pub fn report(job: &Job, run_id: Option<&str>, out: Option<&Path>) -> Result<String, Error> {
    let run_id = match run_id {
        Some(run_id) => run_id.to_owned(),
        None => current(job)?.run_id,
    };
    // Nobody may be forgotten, and no run removed, while a page is made that is to stay in one.
    let _output = match out {
        Some(_) => None,
        None => Some(super::locked(job)?),
    };
    let run = runs::named(job, &run_id)?;
    let Some(manifest) = run.manifest else {
        return Err(publish::Error::Incomplete { run_id: run.info.id }.into());
    };
    fetch(job, &run.info.folder)?;
    let path = write(job, &run.info.folder, &manifest, out)?;
    if out.is_none() {
        job.place.send(&path)?;
    }
    Ok(format!("{}\n", job.place.shown(&path).display()))
}

/// Makes the page of every complete run again, whose tables have changed; returns those that have none now, and why.
pub(super) fn again(job: &Job) -> Result<Vec<(String, String)>, Error> {
    let mut without = Vec::new();
    for run in runs::listed(job)? {
        let Some(manifest) = &run.manifest else { continue };
        let written =
            fetch(job, &run.info.folder).and_then(|()| write(job, &run.info.folder, manifest, None));
        match written {
            Ok(path) => job.place.send(&path)?,
            Err(error) => without.push((run.info.id, chain(&error))),
        }
    }
    Ok(without)
}

/// Has what a page is made from on this side.
pub(super) fn fetch(job: &Job, folder: &Path) -> Result<(), Error> {
    for part in ["metrics", "recommendations", "user_profiles", "stages/catalog", "stages/behavior"] {
        job.place.fetch(&folder.join(part))?;
    }
    Ok(())
}

/// Writes the page of a run into its folder, or elsewhere.
fn write(job: &Job, folder: &Path, manifest: &Manifest, out: Option<&Path>) -> Result<PathBuf, Error> {
    let html = page(job, folder, manifest)?;
    let path = out.map_or_else(|| folder.join(publish::REPORT), Path::to_owned);
    publish::write_whole(&path, &manifest.run_id, html.as_bytes())?;
    Ok(path)
}

impl Night<'_> {
    /// Puts the page into the run, or none; the night goes on either way.
    pub(super) fn report(&mut self) {
        if let Err(error) = write(self.job, &self.run.folder(), &self.manifest, None) {
            let file = publish::REPORT;
            let why = chain(&error);
            self.warn(format!("the run has no {file}: {why}; `lamplighter report` makes it again"));
        }
    }
}

/// The page of a run whose tables are in place.
fn page(job: &Job, folder: &Path, manifest: &Manifest) -> Result<String, Error> {
    let judgement: Judgement = serde_json::from_value(manifest.gate.clone()).unwrap_or_default();
    let learned = manifest.facts.get("learn").cloned().unwrap_or_default();
    let lists = Lists::open(job, folder)?;
    let facts = Facts {
        manifest: manifest.clone(),
        compared_with: judgement.compared_with,
        findings: judgement.findings,
        metrics: metrics(folder)?,
        nights: nights(job, manifest)?,
        // What another version wrote counts where it can be read.
        learned: serde_json::from_value(learned).unwrap_or_default(),
        items: lists.as_ref().map_or(Ok(Vec::new()), |lists| lists.items())?,
        users: lists.as_ref().map_or(Ok(Vec::new()), |lists| lists.users(&manifest.run_id))?,
    };
    Ok(report::page(&facts)?)
}

fn metrics(folder: &Path) -> Result<Vec<Metric>, Error> {
    let path = folder.join("metrics/part.parquet");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let columns =
        ["system", "metric", "slice", "k", "users", "value", "low", "high", "gain_low", "gain_high"];
    let rows = lake::read(&path, &columns)?;
    let text = |column: usize, row: usize| rows.column(column).as_string::<i32>().value(row).to_owned();
    let count = |column: usize, row: usize| rows.column(column).as_primitive::<UInt32Type>().value(row);
    let number = |column: usize, row: usize| {
        let values = rows.column(column).as_primitive::<Float64Type>();
        values.is_valid(row).then(|| values.value(row))
    };
    let metric = |row: usize| Metric {
        system: text(0, row),
        metric: text(1, row),
        slice: text(2, row),
        k: count(3, row),
        users: count(4, row),
        value: number(5, row).unwrap_or(0.0),
        interval: number(6, row).zip(number(7, row)),
        gain: number(8, row).zip(number(9, row)),
    };
    Ok((0..rows.num_rows()).map(metric).collect())
}

/// The run's night and those before it, of which the manifests can be read.
fn nights(job: &Job, manifest: &Manifest) -> Result<Vec<PastNight>, Error> {
    let runs = publish::list_runs(&job.place, &job.spec.name.0)?;
    let before = runs.iter().rev().skip_while(|run| run.id != manifest.run_id).skip(1);
    let before = before
        .filter(|run| run.complete)
        .filter_map(|run| publish::read_manifest(&run.folder).ok().flatten());
    let mut nights: Vec<PastNight> = before.take(NIGHTS).map(|manifest| night(&manifest)).collect();
    nights.reverse();
    nights.push(night(manifest));
    Ok(nights)
}

fn night(manifest: &Manifest) -> PastNight {
    let gate = manifest.facts.get("gate");
    let measured: Option<Measured> =
        gate.and_then(|facts| serde_json::from_value(facts["measured"].clone()).ok());
    let fused = manifest.metrics.get("fused").and_then(|fused| fused.as_object());
    let value = fused.and_then(|fused| {
        let (name, value) = fused.iter().find(|(name, _)| name.starts_with("ndcg@"))?;
        Some((name.clone(), value.as_f64()?, None))
    });
    let metric = measured.as_ref().and_then(|measured| measured.metric.as_ref());
    let metric = metric.map(|metric| (metric.name.clone(), metric.value, Some((metric.low, metric.high))));
    let (metric, value, interval) = metric.or(value).unwrap_or_default();
    PastNight {
        run_id: manifest.run_id.clone(),
        date: manifest.date.clone(),
        state: manifest.state.to_string(),
        events: manifest.events.kept,
        users: measured.map(|measured| measured.users),
        overlap: gate.and_then(|facts| facts["compared"]["overlap"].as_f64()),
        metric,
        value,
        interval,
    }
}

/// A run's lists and catalogue, registered.
struct Lists {
    lake: Lake,
    folder: PathBuf,
}

impl Lists {
    /// Nothing where the run has no lists, or no catalogue.
    fn open(job: &Job, folder: &Path) -> Result<Option<Self>, Error> {
        let (lists, catalog) =
            (folder.join("recommendations"), folder.join("stages/catalog/catalog.parquet"));
        if !lists.exists() || !catalog.exists() {
            return Ok(None);
        }
        let lake = Lake::open(&lake::Config {
            threads: job.spec.threads,
            memory_bytes: job.spec.sql_memory_mib.bytes(),
            spill_dir: None,
        })?;
        lake.register_file("recommendations", &lists)?;
        lake.register_file("catalog", &catalog)?;
        Ok(Some(Self { lake, folder: folder.to_owned() }))
    }

    fn items(&self) -> Result<Vec<Item>, Error> {
        let rows = self.lake.query("items", include_str!("../../sql/report/items.sql"), &[])?;
        let ids = Ids::read(&rows, "item_id").map_err(|problem| problem_of("catalog", problem))?;
        let places = rows.column(1).as_primitive::<Int64Type>();
        let n_users = n_users_of_items(&self.folder.join("stages/behavior"))?;
        let is_known = !n_users.is_empty();
        let item = |row: usize| Item {
            places: places.value(row) as u32,
            users: is_known.then(|| n_users.get(&ids.id(row).into_owned()).copied().unwrap_or(0)),
        };
        Ok((0..rows.num_rows()).map(item).collect())
    }

    /// The users with the lowest lots, in the order of their ids.
    fn users(&self, run_id: &str) -> Result<Vec<User>, Error> {
        let rows = self.lake.query("listed_users", include_str!("../../sql/report/listed_users.sql"), &[])?;
        let ids = Ids::read(&rows, "user_id").map_err(|problem| problem_of("recommendations", problem))?;
        let mut drawn: Vec<(u64, Id)> = (0..rows.num_rows())
            .map(|row| ids.id(row))
            .map(|id| (lot(run_id, &id.to_string()), id))
            .collect();
        if drawn.len() > USERS {
            drawn.select_nth_unstable(USERS);
            drawn.truncate(USERS);
        }
        drawn.sort_by(|a, b| a.1.cmp(&b.1));
        drawn.into_iter().map(|(_, id)| self.user(id.to_string())).collect()
    }

    fn user(&self, id: String) -> Result<User, Error> {
        let find = |table: &str| publish::find(&self.folder.join(table), "user_id", &id, &|_| true);
        let mut user = User { id: id.clone(), ..User::default() };
        if self.folder.join("user_profiles").exists()
            && let Some(profile) = find("user_profiles")?
        {
            self.lake.register_rows("one_profile", profile)?;
            let known = self.lake.query("profile", include_str!("../../sql/report/profile.sql"), &[])?;
            for (column, field) in known.columns().iter().zip(known.schema().fields()) {
                if known.num_rows() > 0 && column.is_valid(0) {
                    user.profile.push((field.name().clone(), array_value_to_string(column, 0)?));
                }
            }
        }
        if let Some(list) = find("recommendations")? {
            self.lake.register_rows("one_list", list)?;
            let rows = [("rows", Param::Int(ROWS))];
            user.rows =
                rows_of(&self.lake.query("list", include_str!("../../sql/report/list.sql"), &rows)?)?;
        }
        Ok(user)
    }
}

fn rows_of(list: &RecordBatch) -> Result<Vec<Row>, Error> {
    let texts = |column: usize| cast(list.column(column), &DataType::Utf8);
    let (items, titles, sources, reasons) = (texts(1)?, texts(2)?, texts(4)?, texts(5)?);
    let text = |column: &arrow::array::ArrayRef, row: usize| column.as_string::<i32>().value(row).to_owned();
    let row = |row: usize| Row {
        rank: list.column(0).as_primitive::<Int64Type>().value(row) as u32,
        item: text(&items, row),
        title: text(&titles, row),
        score: list.column(3).as_primitive::<Float64Type>().value(row),
        source: text(&sources, row),
        reason: text(&reasons, row),
    };
    Ok((0..list.num_rows()).map(row).collect())
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if !text.contains(&inner.to_string()) {
            text += &format!(": {inner}");
        }
        cause = inner.source();
    }
    text
}

/// A user's lot in a run, the same on every machine.
fn lot(run_id: &str, user: &str) -> u64 {
    run_id.bytes().chain([0]).chain(user.bytes()).fold(0, |lot, byte| split_mix(lot ^ u64::from(byte)))
}
