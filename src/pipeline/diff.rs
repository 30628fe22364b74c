//! Two nights side by side: whose lists have changed most, which items, and why.
//!
//! Both runs' tables are read as streams in the order of users; memory holds one number an item.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::iter::Peekable;
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int64Type};

use crate::error::Error;
use crate::job::Job;
use crate::lake;
use crate::publish::{Id, Ids, List, Lists, Manifest, Paired};

use super::gate::{floats, n_users_of_items, overlap, problem_of};
use super::runs::{Listed, named};

/// The first items of a list that are compared.
const K: usize = 10;

/// What has changed from one run to another, for people; `top` users and items are named.
///
/// # Errors
/// If there are no such runs, or they cannot be read.
pub fn diff(job: &Job, left: &str, right: &str, top: usize) -> Result<String, Error> {
    let (left, right) = (whole(job, left)?, whole(job, right)?);
    for (run, _) in [&left, &right] {
        super::report::fetch(job, &run.info.folder)?;
    }
    let mut text = format!("{} to {}\n\n", left.0.info.id, right.0.info.id);
    text += &causes(&left.1, &right.1);
    let items = Items::read(&left.0, &right.0)?;
    let changes = Changes::read(&left.0, &right.0, &items, rules_differ(&left.1, &right.1))?;
    text += &changes.of_users(top);
    text += &changes.of_items(&items, top);
    Ok(text)
}

fn whole(job: &Job, run_id: &str) -> Result<(Listed, Manifest), Error> {
    let run = named(job, run_id)?;
    match run.manifest.clone() {
        Some(manifest) => Ok((run, manifest)),
        None => Err(crate::publish::Error::Incomplete { run_id: run.info.id }.into()),
    }
}

/// What went into the runs and differs.
fn causes(left: &Manifest, right: &Manifest) -> String {
    let mut text = format!("  {:<10} {} to {}\n", "date", left.date, right.date);
    text += &format!("  {:<10} {} to {} count\n", "events", left.events.kept, right.events.kept);
    text += &format!("  {:<10} {} to {} may be listed\n", "items", eligible(left), eligible(right));
    if left.lamplighter != right.lamplighter {
        text += &format!("  {:<10} {} to {}\n", "version", left.lamplighter, right.lamplighter);
    }
    let lines = |manifest: &Manifest| -> BTreeSet<String> {
        manifest.job_text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
    };
    let (old, new) = (lines(left), lines(right));
    for (sign, line) in
        old.difference(&new).map(|line| ("-", line)).chain(new.difference(&old).map(|line| ("+", line)))
    {
        text += &format!("  {:<10} {sign} {line}\n", "job");
    }
    let fingerprints: BTreeMap<&str, &str> =
        left.stages.iter().map(|stage| (stage.name.as_str(), stage.fingerprint.as_str())).collect();
    let same = |name: &str, fingerprint: &str| fingerprints.get(name) == Some(&fingerprint);
    let anew: Vec<&str> = right
        .stages
        .iter()
        .filter(|stage| !same(&stage.name, &stage.fingerprint) && stage.name != "gate")
        .map(|stage| stage.name.as_str())
        .collect();
    let anew = if anew.is_empty() { "none".to_owned() } else { anew.join(", ") };
    text + &format!("  {:<10} {anew}\n", "made anew")
}

fn eligible(manifest: &Manifest) -> u64 {
    manifest.facts.get("catalog").and_then(|facts| facts["n_eligible"].as_u64()).unwrap_or(0)
}

/// Whether the jobs differ in what decides which items may be listed or rise.
fn rules_differ(left: &Manifest, right: &Manifest) -> bool {
    let rules = |manifest: &Manifest| -> Vec<String> {
        let mut table = String::new();
        let mut found = Vec::new();
        for line in manifest.job_text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line.starts_with('[') {
                table = line.trim_matches(['[', ']']).to_owned();
            }
            if table.starts_with("catalog") || table.starts_with("ranking.rules") {
                found.push(line.to_owned());
            }
        }
        found
    };
    rules(left) != rules(right)
}

/// What both runs' catalogues and behaviour say of items.
struct Items {
    /// Whether an item may be listed, in the one run and the other; none where the catalogue lacks it.
    eligible: [HashMap<Id<'static>, bool>; 2],
    /// How many users turned to it.
    n_users: [HashMap<Id<'static>, u32>; 2],
}

impl Items {
    fn read(left: &Listed, right: &Listed) -> Result<Self, Error> {
        let eligible = |run: &Listed| -> Result<HashMap<Id<'static>, bool>, Error> {
            let path = run.info.folder.join("stages/catalog/catalog.parquet");
            if !path.exists() {
                return Ok(HashMap::new());
            }
            let rows = lake::read(&path, &["item_id", "eligible"])?;
            let ids = Ids::read(&rows, "item_id").map_err(|problem| problem_of("catalog", problem))?;
            let flags = rows.column(1).as_boolean();
            Ok((0..rows.num_rows()).map(|row| (ids.id(row).into_owned(), flags.value(row))).collect())
        };
        let n_users = |run: &Listed| n_users_of_items(&run.info.folder.join("stages/behavior"));
        Ok(Self { eligible: [eligible(left)?, eligible(right)?], n_users: [n_users(left)?, n_users(right)?] })
    }

    fn may_be_listed(&self, run: usize, item: &Id<'static>) -> Option<bool> {
        self.eligible[run].get(item).copied()
    }

    /// Why an item is listed more or less often.
    fn why(&self, item: &Id<'static>) -> String {
        match (self.may_be_listed(0, item), self.may_be_listed(1, item)) {
            (Some(true), Some(false) | None) => return "may not be listed any more".to_owned(),
            (None, Some(true)) => return "new in the catalogue".to_owned(),
            (Some(false), Some(true)) => return "may be listed now".to_owned(),
            _ => {}
        }
        let n_users = |run: usize| self.n_users[run].get(item).copied().unwrap_or(0);
        match (n_users(0), n_users(1)) {
            (before, after) if before != after => format!("{before} to {after} users turned to it"),
            _ => "new model".to_owned(),
        }
    }
}

/// Why a user's list has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    /// More events of the user count, or fewer.
    Events(i64),
    /// Items of the old list may not be listed any more.
    Gone(usize),
    /// The job's rules differ, and had a say in the list.
    Rules,
    /// None of it: other users' events, or the models' keys.
    Model,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Events(more) if *more > 0 => write!(f, "{more} new events"),
            Self::Events(more) => write!(f, "{} events fewer", -more),
            Self::Gone(items) => write!(f, "{items} items may not be listed any more"),
            Self::Rules => f.write_str("rules"),
            Self::Model => f.write_str("new model"),
        }
    }
}

/// What a pass over both runs' lists found.
#[derive(Default)]
struct Changes {
    /// Users by tenths of overlap.
    overlaps: [u64; 11],
    sum: f64,
    /// Lists equal row by row.
    same: u64,
    only: [u64; 2],
    /// Users whose first items differ, by the reason's first word.
    reasons: BTreeMap<&'static str, u64>,
    most: Vec<(f64, String, Why)>,
    /// Rows of each item in the one run and the other.
    rows: HashMap<Id<'static>, [u64; 2]>,
}

impl Changes {
    fn read(left: &Listed, right: &Listed, items: &Items, rules: bool) -> Result<Self, Error> {
        let lists = |run: &Listed| {
            Lists::open(&run.info.folder.join("recommendations"), &["user_id"], &["item_id", "rules_score"])
        };
        let (mut one, mut other) = (Profiles::open(&left.info.folder)?, Profiles::open(&right.info.folder)?);
        let mut changes = Self::default();
        for pair in Paired::new(lists(left)?, lists(right)?) {
            let (before, after) = pair?;
            for (run, list) in [&before, &after].into_iter().enumerate() {
                let Some(list) = list else { continue };
                let ids = list.ids("item_id")?;
                for row in 0..list.rows.num_rows() {
                    changes.rows.entry(ids.id(row).into_owned()).or_default()[run] += 1;
                }
            }
            let (before, after) = match (before, after) {
                (Some(before), Some(after)) => (before, after),
                (before, _) => {
                    changes.only[usize::from(before.is_none())] += 1;
                    continue;
                }
            };
            let (old, new) = (before.ids("item_id")?, after.ids("item_id")?);
            let (n_old, n_new) = (before.rows.num_rows(), after.rows.num_rows());
            let share = overlap(&old, n_old, &new, n_new, K);
            changes.overlaps[(share * 10.0 + 1e-9) as usize] += 1;
            changes.sum += share;
            changes.same += u64::from(n_old == n_new && (0..n_old).all(|row| old.id(row) == new.id(row)));
            if share >= 1.0 {
                continue;
            }
            let more = other.events(&after.key)? - one.events(&after.key)?;
            let gone =
                (0..n_old).filter(|row| items.may_be_listed(1, &old.id(*row).into_owned()) == Some(false));
            let why = match gone.count() {
                _ if more != 0 => Why::Events(more),
                gone if gone > 0 => Why::Gone(gone),
                _ if rules && (has_rules(&before)? || has_rules(&after)?) => Why::Rules,
                _ => Why::Model,
            };
            let word = match why {
                Why::Events(_) => "new or fewer events",
                Why::Gone(_) => "items gone",
                Why::Rules => "rules",
                Why::Model => "new model",
            };
            *changes.reasons.entry(word).or_default() += 1;
            changes.name(share, &after, why);
        }
        Ok(changes)
    }

    /// Remembers a user among those whose lists have changed most.
    fn name(&mut self, share: f64, list: &List, why: Why) {
        const MOST: usize = 1_000;
        if self.most.len() == 2 * MOST {
            self.most.sort_by(|a, b| a.0.total_cmp(&b.0));
            self.most.truncate(MOST);
        }
        self.most.push((share, list.key[0].to_string(), why));
    }

    fn of_users(&self, top: usize) -> String {
        let both: u64 = self.overlaps.iter().sum();
        let mean = self.sum / both.max(1) as f64;
        let mut text = format!(
            "\nusers: {both} have a list in both, {} in the first only, {} in the second only\n\
             overlap of the first {K} items: mean {mean:.3}; {} whole lists are the same\n\n",
            self.only[0], self.only[1], self.same
        );
        let widest = self.overlaps.iter().copied().max().unwrap_or(0).max(1);
        for (tenths, n_users) in self.overlaps.iter().enumerate() {
            let bar = "#".repeat((n_users * 40).div_ceil(widest) as usize);
            text += format!("  {:>3} %  {n_users:>9}  {bar}", tenths * 10).trim_end();
            text.push('\n');
        }
        let reasons: Vec<String> = self.reasons.iter().map(|(why, n)| format!("{why} {n}")).collect();
        if !reasons.is_empty() {
            text += &format!("\nchanged because of: {}\n", reasons.join(", "));
        }
        let mut most: Vec<&(f64, String, Why)> = self.most.iter().collect();
        most.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (share, user, why) in most.into_iter().take(top) {
            text += &format!("  user {user}: overlap {share:.1}, {why}\n");
        }
        text
    }

    fn of_items(&self, items: &Items, top: usize) -> String {
        let listed = |run: usize| self.rows.values().filter(|rows| rows[run] > 0).count();
        let mut text = format!("\nitems: {} listed in the first, {} in the second\n", listed(0), listed(1));
        let mut moved: Vec<(u64, &Id<'static>, [u64; 2])> =
            self.rows.iter().map(|(item, rows)| (rows[0].abs_diff(rows[1]), item, *rows)).collect();
        moved.retain(|(by, _, _)| *by > 0);
        moved.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        for (_, item, [before, after]) in moved.into_iter().take(top) {
            text += &format!("  item {item}: {before} to {after} rows, {}\n", items.why(item));
        }
        text
    }
}

fn has_rules(list: &List) -> Result<bool, Error> {
    Ok(floats(&list.rows, "rules_score")?.iter().any(|score| *score != 0.0))
}

/// How many events of each user count, read along with the lists.
struct Profiles(Option<Peekable<Lists>>);

impl Profiles {
    fn open(run: &Path) -> Result<Self, Error> {
        let folder = run.join("user_profiles");
        if !folder.exists() {
            return Ok(Self(None));
        }
        Ok(Self(Some(Lists::open(&folder, &["user_id"], &["n_events"])?.peekable())))
    }

    /// Of the user of this key; keys are asked for in their order.
    fn events(&mut self, key: &[Id<'static>]) -> Result<i64, Error> {
        let Some(profiles) = &mut self.0 else { return Ok(0) };
        let is_due =
            |profile: &Result<List, _>| profile.as_ref().map_or(true, |profile| profile.key[..] <= *key);
        while let Some(profile) = profiles.next_if(is_due) {
            let profile = profile?;
            if profile.key == key {
                let events = profile
                    .rows
                    .column_by_name("n_events")
                    .map(|column| arrow::compute::cast(column, &DataType::Int64));
                let events = events.transpose()?;
                return Ok(events
                    .filter(|events| events.is_valid(0))
                    .map_or(0, |events| events.as_primitive::<Int64Type>().value(0)));
            }
        }
        Ok(0)
    }
}
