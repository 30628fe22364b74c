//! The gate stage: tonight measured, held against the run that readers load, let through or refused.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, UInt32Type};
use chrono::{DateTime, Days, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::Error;
use crate::gate::{self, Compared, Day, Finding, Measured, Metric};
use crate::lake::{self, Param};
use crate::learning;
use crate::publish::{self, Id, Ids, Lists, Manifest, Paired, State};

use super::report;
use super::stages::{Night, Report, end_of_day_us, facts};

/// Days of the history that are counted one by one.
const DAYS: i64 = 60;
const DAY_US: i64 = 86_400_000_000;

/// The night that tonight is compared with.
pub(super) struct Base {
    pub(super) manifest: Manifest,
    pub(super) folder: PathBuf,
}

/// What the stage leaves in its facts.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Facts {
    measured: Measured,
    compared: Option<Compared>,
    /// Why rows could not be compared.
    problem: Option<String>,
}

/// What the manifest says of the gate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Judgement {
    /// The run compared with.
    pub(super) compared_with: Option<String>,
    /// Every limit.
    pub(super) findings: Vec<Finding>,
}

impl Judgement {
    /// The limits that do not hold and were not waved through.
    pub(super) fn broken(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| !finding.holds && !finding.accepted)
    }
}

impl Night<'_> {
    pub(super) fn gate(&mut self) -> Result<(), Error> {
        let base = self.base()?;
        let config = self.job.spec.gate.clone();
        let until = last_complete_day(self.date, Utc::now());
        let base_id = base.as_ref().map_or(String::new(), |base| base.manifest.run_id.clone());
        let fingerprint = self
            .fingerprint("gate", &["behavior", "catalog", "encode", "rank", "evaluate"])
            .add("base", &base_id)
            .add("until", &until.to_string())
            .add("overlap_k", &config.overlap_k.to_string());
        self.stage("gate", fingerprint.hex(), |night, _| {
            let measured = night.measure(until)?;
            let mut problem = None;
            let compared = base.as_ref().map(|base| -> Result<Compared, Error> {
                // A store that is away is no damage: the next attempt compares.
                night.job.place.fetch(&base.folder.join("recommendations"))?;
                night.job.place.fetch(&base.folder.join("item_embeddings"))?;
                Ok(night.compare(base, config.overlap_k).unwrap_or_else(|error| {
                    // A damaged run must not keep every later one from being published.
                    problem = Some(error.to_string());
                    Compared::default()
                }))
            });
            let compared = compared.transpose()?;
            let note = match (&base, &compared) {
                (Some(base), Some(compared)) => {
                    let shared =
                        compared.overlap.map_or(String::new(), |share| format!(", overlap {share:.3}"));
                    format!("compared with {}{shared}", base.manifest.run_id)
                }
                _ => "no run to compare with: absolute limits only".to_owned(),
            };
            Ok(Report { facts: json!(Facts { measured, compared, problem }), note })
        })?;
        let tonight: Facts = facts(&self.done["gate"].facts)?;
        if let Some(problem) = &tonight.problem {
            self.warn(format!("the gate compares no rows with run {base_id}: {problem}"));
        }
        // What another version wrote counts where it can be read.
        let before: Option<Facts> =
            base.as_ref().and_then(|base| facts(base.manifest.facts.get("gate")?).ok());
        let last = before
            .as_ref()
            .zip(tonight.compared.as_ref())
            .map(|(before, compared)| (&before.measured, compared));
        let mut findings = gate::judge(&tonight.measured, last, &config);
        for finding in findings.iter_mut().filter(|finding| !finding.holds) {
            let named = |name: &String| name == "all" || *name == finding.name;
            finding.accepted = !config.enabled || self.options.accept.iter().any(named);
        }
        let judgement = Judgement { compared_with: base.map(|base| base.manifest.run_id), findings };
        if judgement.compared_with.is_some() && before.is_none() {
            self.warn(
                "the run in CURRENT has no measurements: the gate looked at absolute limits only".to_owned(),
            );
        }
        let accepted = judgement.findings.iter().filter(|finding| finding.accepted);
        for text in accepted.map(|finding| format!("the gate let through {finding}")).collect::<Vec<_>>() {
            self.warn(text);
        }
        self.manifest.gate = json!(judgement);
        let broken: Vec<String> = judgement.broken().map(|finding| format!("\n  {finding}")).collect();
        if broken.is_empty() {
            return Ok(());
        }
        self.settle(State::Refused)?;
        Err(Error::Refused {
            run_id: self.run.id().to_owned(),
            compared_with: judgement
                .compared_with
                .map_or(String::new(), |run| format!(", compared with {run}")),
            findings: broken.concat(),
        })
    }

    /// The run in `CURRENT`; for a night before that one, the newest published run that is no newer.
    fn base(&mut self) -> Result<Option<Base>, Error> {
        let spec = &self.job.spec;
        let mut candidates = publish::list_runs(&self.job.place, &spec.name.0)?;
        candidates.retain(|run| run.date <= self.date && run.id != self.run.id());
        let current = publish::current(&self.job.place, &spec.name.0)?;
        candidates.sort_by_key(|run| current.as_ref().is_some_and(|current| current.run_id == run.id));
        for run in candidates.into_iter().rev() {
            match publish::read_manifest(&run.folder) {
                Ok(Some(manifest)) if manifest.state != State::Refused => {
                    return Ok(Some(Base { manifest, folder: run.folder }));
                }
                Ok(_) => {}
                Err(error) => {
                    let why = report::chain(&error.into());
                    self.warn(format!("the gate compares nothing with run {}: {why}", run.id));
                }
            }
        }
        Ok(None)
    }

    fn measure(&mut self, until: NaiveDate) -> Result<Measured, Error> {
        let behavior = self.behavior_facts()?;
        let rejected: u64 = behavior.rejected.values().sum();
        let age_us = end_of_day_us(self.date) - behavior.last_us;
        let mut measured = Measured {
            run_id: self.run.id().to_owned(),
            events: behavior.kept,
            rejected_share: rejected as f64 / behavior.read.max(1) as f64,
            days: self.volumes(behavior.last_us, behavior.deduplicated)?,
            complete_until: behavior.usable_times.then_some(Day(until)),
            age_days: if behavior.usable_times { age_us as f64 / DAY_US as f64 } else { 0.0 },
            items: self.catalog_facts()?.n_eligible,
            metric: self.metric("fused")?,
            baseline: self.metric("popularity")?,
            ..Measured::default()
        };
        let n_users = n_users_of_items(&self.folder("behavior"))?;
        let mut n_users_of_item: HashMap<Id, (u32, bool)> =
            n_users.into_iter().map(|(item, n)| (item, (n, false))).collect();
        let table = self.folder("rank").join("recommendations");
        let mut spread = gate::Spread::default();
        for list in Lists::open(&table, &["user_id"], &["score"])? {
            floats(&list?.rows, "score")?.iter().for_each(|score| spread.add(f64::from(*score)));
        }
        let unit = spread.unit();
        for list in Lists::open(&table, &["user_id"], &["item_id", "score"])? {
            let list = list?;
            measured.users += 1;
            measured.rows += list.rows.num_rows() as u64;
            let (items, scores) = (list.ids("item_id")?, floats(&list.rows, "score")?);
            for (row, score) in scores.iter().enumerate() {
                measured.spread_scores.add(f64::from(*score) / unit);
                if let Some((n_users, listed)) = n_users_of_item.get_mut(&items.id(row).into_owned()) {
                    measured.popularity.add(f64::from(*n_users));
                    measured.items_listed += u64::from(!std::mem::replace(listed, true));
                }
            }
        }
        Ok(measured)
    }

    fn volumes(
        &mut self,
        last_us: i64,
        deduplicated: bool,
    ) -> Result<BTreeMap<Day, BTreeMap<String, u64>>, Error> {
        let path = self.folder("behavior").join("numbered_events.parquet");
        let lake = self.lake()?;
        lake.register_file("numbered_events", &path)?;
        let since = (last_us.div_euclid(DAY_US) - DAYS) * DAY_US;
        let copies = if deduplicated { 1 } else { i64::MAX };
        let params = [("copies_kept", Param::Int(copies)), ("since", Param::Time(since))];
        let rows = lake.query("volumes", include_str!("../../sql/gate/volumes.sql"), &params)?;
        let column = |name: &str, to: &DataType| -> Result<_, Error> {
            let values =
                rows.column_by_name(name).cloned().unwrap_or_else(|| arrow::array::new_null_array(to, 0));
            Ok(arrow::compute::cast(&values, to)?)
        };
        let (days, counts) = (column("day", &DataType::Int64)?, column("n_events", &DataType::Int64)?);
        let kinds = column("event_type", &DataType::Utf8)?;
        let (days, counts) = (days.as_primitive::<Int64Type>(), counts.as_primitive::<Int64Type>());
        let mut volumes: BTreeMap<Day, BTreeMap<String, u64>> = BTreeMap::new();
        for row in 0..days.len() {
            let day =
                DateTime::from_timestamp_micros(days.value(row) * DAY_US).unwrap_or_default().date_naive();
            let kind = kinds.as_string::<i32>().value(row).to_owned();
            volumes.entry(Day(day)).or_default().insert(kind, counts.value(row) as u64);
        }
        Ok(volumes)
    }

    /// A system's NDCG at the first length, over all users, where they are enough to have an interval.
    fn metric(&self, system: &str) -> Result<Option<Metric>, Error> {
        let path = self.folder("evaluate").join("metrics/part.parquet");
        if !path.exists() {
            return Ok(None);
        }
        let rows = lake::read(&path, &["system", "metric", "k", "slice", "value", "low", "high", "users"])?;
        let text = |column: usize, row: usize| rows.column(column).as_string::<i32>().value(row);
        let number = |column: usize, row: usize| rows.column(column).as_primitive::<Float64Type>().value(row);
        let k = self.job.spec.evaluation.ks.first().copied().unwrap_or(10) as u32;
        let is_asked_for = |row: &usize| {
            text(0, *row) == system
                && text(1, *row) == "ndcg"
                && rows.column(2).as_primitive::<UInt32Type>().value(*row) == k
                && text(3, *row) == "all"
                && rows.column(5).is_valid(*row)
                && rows.column(6).is_valid(*row)
                && rows.column(7).as_primitive::<UInt32Type>().value(*row) >= learning::ENOUGH_USERS as u32
        };
        let found = (0..rows.num_rows()).find(is_asked_for);
        Ok(found.map(|row| Metric {
            name: format!("ndcg@{k}"),
            value: number(4, row),
            low: number(5, row),
            high: number(6, row),
        }))
    }

    /// Holds tonight's lists and embeddings against the other night's, as far as both have them.
    fn compare(&self, base: &Base, k: usize) -> Result<Compared, Error> {
        let mut compared = Compared::default();
        let lists = |folder: &Path| Lists::open(folder, &["user_id"], &["item_id"]);
        let (tonight, before) =
            (self.folder("rank").join("recommendations"), base.folder.join("recommendations"));
        if before.exists() {
            let mut sum = 0.0;
            for pair in Paired::new(lists(&tonight)?, lists(&before)?) {
                let (Some(tonight), Some(before)) = pair? else { continue };
                compared.users += 1;
                sum += overlap(
                    &tonight.ids("item_id")?,
                    tonight.rows.num_rows(),
                    &before.ids("item_id")?,
                    before.rows.num_rows(),
                    k,
                );
            }
            compared.overlap = (compared.users > 0).then(|| sum / compared.users as f64);
        }
        let (tonight, before) =
            (self.folder("encode").join("item_embeddings"), base.folder.join("item_embeddings"));
        if tonight.exists() && before.exists() {
            let open = |folder: &Path| Lists::open(folder, &["item_id"], &["embedding"]);
            let (mut sum, mut n_items) = (0.0, 0_u64);
            for pair in Paired::new(open(&tonight)?, open(&before)?) {
                let (Some(tonight), Some(before)) = pair? else { continue };
                if let Some(cosine) = cosine(&tonight.rows, &before.rows) {
                    sum += cosine;
                    n_items += 1;
                }
            }
            compared.drift = (n_items > 0).then(|| (1.0 - sum / n_items as f64).max(0.0));
        }
        Ok(compared)
    }
}

/// The share of the first `k` items of one list that are among the first `k` of another; of a shorter list
/// its own length counts.
pub(super) fn overlap(one: &Ids, n_one: usize, other: &Ids, n_other: usize, k: usize) -> f64 {
    let (n_one, n_other) = (n_one.min(k), n_other.min(k));
    let others: std::collections::BTreeSet<Id> = (0..n_other).map(|row| other.id(row)).collect();
    let n_both = (0..n_one).filter(|row| others.contains(&one.id(*row))).count();
    n_both as f64 / n_one.max(n_other).max(1) as f64
}

/// The cosine of two rows' embeddings, none where one is missing. Of different lengths it is that of as many
/// numbers as both have: a catalogue that has grown has fewer of the same, and another model's turn away.
fn cosine(one: &RecordBatch, other: &RecordBatch) -> Option<f64> {
    let (one, other) = (one.column_by_name("embedding")?, other.column_by_name("embedding")?);
    let (one, other) = (one.as_fixed_size_list_opt()?, other.as_fixed_size_list_opt()?);
    if !one.is_valid(0) || !other.is_valid(0) {
        return None;
    }
    let (one, other) = (one.value(0), other.value(0));
    let (one, other) =
        (one.as_primitive_opt::<Float32Type>()?.values(), other.as_primitive_opt::<Float32Type>()?.values());
    let n_both = one.len().min(other.len());
    let (one, other) = (&one[..n_both], &other[..n_both]);
    let product =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let norms = (product(one, one) * product(other, other)).sqrt();
    (norms > 0.0).then(|| product(one, other) / norms)
}

/// How many users turned to each item, from what `behavior` wrote; nothing where that is gone.
pub(super) fn n_users_of_items(behavior: &Path) -> Result<HashMap<Id<'static>, u32>, Error> {
    let (items, popularity) = (behavior.join("item_ids.parquet"), behavior.join("full/popularity.parquet"));
    if !items.exists() || !popularity.exists() {
        return Ok(HashMap::new());
    }
    let items = lake::read(&items, &["item_id"])?;
    let ids = Ids::read(&items, "item_id").map_err(|problem| problem_of("item_ids", problem))?;
    let rows = lake::read(&popularity, &["item_idx", "n_users"])?;
    let of = |column: usize| rows.column(column).as_primitive::<UInt32Type>().values();
    let mut n_users = vec![0_u32; items.num_rows()];
    for (item, users) in of(0).iter().zip(of(1)) {
        n_users[*item as usize] += users;
    }
    Ok(n_users.into_iter().enumerate().map(|(at, n)| (ids.id(at).into_owned(), n)).collect())
}

/// A column of f32 of a published table.
pub(super) fn floats<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a [f32], Error> {
    let values = rows.column_by_name(name).and_then(|column| column.as_primitive_opt::<Float32Type>());
    values
        .map(|values| &values.values()[..])
        .ok_or_else(|| problem_of(name, publish::Problem::NoColumn { column: name.to_owned() }))
}

pub(super) fn problem_of(table: &str, problem: publish::Problem) -> Error {
    Error::Publish(publish::Error::Broken {
        table: table.to_owned(),
        path: PathBuf::from(table),
        problem: Box::new(problem),
    })
}

/// The run date where it is over (UTC), else the day before today.
fn last_complete_day(date: NaiveDate, now: DateTime<Utc>) -> NaiveDate {
    date.min(now.date_naive().checked_sub_days(Days::new(1)).unwrap_or(date))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, FixedSizeListArray};

    use super::*;

    #[test]
    fn embeddings_of_fewer_numbers_are_held_against_the_first_of_more() {
        let row = |numbers: &[f32]| {
            let list = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
                [Some(numbers.iter().copied().map(Some).collect::<Vec<_>>())],
                numbers.len() as i32,
            );
            RecordBatch::try_from_iter([("embedding", Arc::new(list) as ArrayRef)]).unwrap()
        };
        let cosine = |one: &[f32], other: &[f32]| cosine(&row(one), &row(other));
        assert_eq!(cosine(&[0.6, 0.8], &[0.3, 0.4, 9.0]), Some(1.0));
        assert_eq!(cosine(&[0.0, 1.0, 5.0], &[1.0, 0.0]), Some(0.0));
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), None);
    }

    #[test]
    fn a_day_counts_once_it_is_over() {
        let day = |day: u32| NaiveDate::from_ymd_opt(2026, 11, day).unwrap();
        let now = day(22).and_hms_opt(2, 30, 0).unwrap().and_utc();
        assert_eq!(last_complete_day(day(22), now), day(21));
        assert_eq!(last_complete_day(day(21), now), day(21));
        assert_eq!(last_complete_day(day(3), now), day(3));
        assert_eq!(last_complete_day(day(29), now), day(21));
    }
}
