//! Output folders, their lock, their runs, and `CURRENT`.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{NaiveDate, Utc};

use crate::lake::disk;

use super::check::count;
use super::files::{
    create_folder, entries, io, link, link_tree, parent, remove, sync, write_json, write_whole,
};
use super::lease::Lease;
use super::manifest::{Manifest, State, read_manifest};
use super::place::Place;
use super::problem::Problem;
use super::stages::{self, DoneStage, Stage};
use super::{Current, Error, REPORT, TableRecord, run_id};

/// A job's output, locked for one process.
#[derive(Debug)]
pub struct Output {
    place: Place,
    job: String,
    /// The lock of an output in a store.
    lease: Option<Arc<Lease>>,
    /// Held open: the lock goes when the process does, however it ends.
    _lock: File,
}

/// One attempt at one night.
#[derive(Debug)]
pub struct Run {
    place: Place,
    lease: Option<Arc<Lease>>,
    job: String,
    id: String,
    resumed: bool,
    /// Folders of earlier runs, newest first, whose stages may be adopted.
    earlier: Vec<PathBuf>,
}

/// A run as `runs` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunInfo {
    /// Its name.
    pub id: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Its date.
    pub date: NaiveDate,
    /// Its attempt, from 1.
    pub attempt: u32,
    /// Whether it has a manifest.
    pub complete: bool,
    /// Whether it is kept however old it gets.
    pub pinned: bool,
}

impl Output {
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn job(&self) -> &str {
        &self.job
    }

    /// Makes the folder where missing, and takes the job's lock; in a store, for so many seconds at a time.
    ///
    /// # Errors
    /// [`Error::Locked`] where another process holds it.
    pub fn open(place: &Place, job: &str, lease_s: u32) -> Result<Self, Error> {
        let root = place.root();
        create_folder(&root.join("runs"))?;
        sync(root)?;
        let path = root.join(format!(".{job}.lock"));
        let mut lock = disk::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
                return Err(Error::Locked { path, holder });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock", &path)(source)),
        }
        lock.set_len(0).map_err(io("write", &path))?;
        let holder = format!("pid {}{}, since {}", std::process::id(), on_host(), Utc::now().to_rfc3339());
        lock.write_all(format!("{holder}\n").as_bytes()).map_err(io("write", &path))?;
        let mut lease = None;
        if let Some(store) = place.opened_store() {
            let key = format!(".{job}.lock");
            lease = Some(Arc::new(Lease::take(store, &key, &holder, &mirror_name(root)?, lease_s)?));
            // What was there before the lock was taken may be there no more.
            place.refresh()?;
        }
        Ok(Self { place: place.clone(), job: job.to_owned(), lease, _lock: lock })
    }

    /// Goes on with the date's newest run where it is unfinished, else begins the next attempt.
    ///
    /// An unfinished run keeps its complete stages and no other folder: tables are put in place anew,
    /// so that none of a job as it was before can be published with it.
    ///
    /// # Errors
    /// If folders cannot be read or made.
    pub fn start(&self, date: NaiveDate) -> Result<Run, Error> {
        self.sweep()?;
        let mut runs = list_runs(&self.place, &self.job)?;
        runs.extend(self.unsent(&runs)?);
        let newest = runs.iter().filter(|run| run.date == date).max_by_key(|run| run.attempt);
        let (id, resumed) = match newest {
            Some(run) if !run.complete => (run.id.clone(), true),
            Some(run) => (run_id(&self.job, date, run.attempt + 1), false),
            None => (run_id(&self.job, date, 1), false),
        };
        let folder = self.place.root().join("runs").join(&id);
        let stages = folder.join("stages");
        create_folder(&stages)?;
        if resumed {
            clear(&folder, |name| name != "stages")?;
            // A manifest that is there was never sent.
            ["manifest.json", REPORT].iter().try_for_each(|name| remove(&folder.join(name)))?;
            stages::recover(&self.place, &folder)?;
            clear(&stages, |name| name.starts_with('.'))?;
        }
        sync(&folder)?;
        sync(parent(&folder))?;
        let earlier = runs.into_iter().rev().filter(|run| run.id != id).map(|run| run.folder).collect();
        let (place, lease, job) = (self.place.clone(), self.lease.clone(), self.job.clone());
        Ok(Run { place, lease, job, id, resumed, earlier })
    }

    /// Removes what killed processes of the job left: temporary files, and runs that were on their way out.
    pub(super) fn sweep(&self) -> Result<(), Error> {
        for path in entries(&self.place.root().join("runs"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let of_run = name.strip_prefix(REMOVED).unwrap_or(&name);
            if parse_run_id(of_run, &self.job).is_some() {
                let is_run = of_run == name;
                remove(&if is_run { path.join(SCRATCH) } else { path })?;
            }
        }
        Ok(())
    }

    /// Runs that this machine began and of which a store has nothing yet.
    fn unsent(&self, sent: &[RunInfo]) -> Result<Vec<RunInfo>, Error> {
        let here = list_runs(&Place::folder(self.place.root()), &self.job)?;
        let unsent = here.into_iter().filter(|run| sent.iter().all(|sent| sent.id != run.id));
        Ok(unsent.map(|run| RunInfo { complete: false, pinned: false, ..run }).collect())
    }

    /// The newest complete stage of this name whose facts are the ones that are wanted.
    ///
    /// # Errors
    /// If folders cannot be read, or the store refuses.
    pub fn newest(
        &self,
        stage: &str,
        wanted: &dyn Fn(&serde_json::Value) -> bool,
    ) -> Result<Option<DoneStage>, Error> {
        for run in list_runs(&self.place, &self.job)?.iter().rev() {
            let found = stages::find(&self.place, &run.folder, stage, &|stage| wanted(stage.facts()))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Switches `CURRENT` to a complete run once its tables are found to be as its manifest counts them.
    ///
    /// # Errors
    /// [`Error::Incomplete`] where it has no manifest; if a table is not as counted, or the disk refuses.
    pub fn make_current(&self, run_id: &str) -> Result<(), Error> {
        let folder = self.place.root().join("runs").join(run_id);
        let Some(manifest) = read_manifest(&folder)? else {
            return Err(Error::Incomplete { run_id: run_id.to_owned() });
        };
        verify(&self.place, &folder, &manifest)?;
        if manifest.state != State::Published {
            let manifest = Manifest { state: State::Published, ..manifest };
            write_json(&folder.join("manifest.json"), run_id, &manifest)?;
            self.place.send(&folder.join("manifest.json"))?;
        }
        switch(&self.place, self.lease.as_deref(), &self.job, run_id)
    }

    /// Removes runs that are too old, and returns their names: those of other nights than the newest `keep` that were
    /// published, so that a night that was run again pushes none out, and of what was not published all but the newest
    /// `keep`. Never the one in `CURRENT`, the published one before it, tonight's, nor one that is pinned; 0 keeps all.
    ///
    /// # Errors
    /// If a folder cannot be read or removed; a run is in its place or not at all.
    pub fn retain(&self, keep: usize, tonight: &Run) -> Result<Vec<String>, Error> {
        let folder = self.place.root().join("runs");
        let Some(current) = current(&self.place, &self.job)?.filter(|_| keep > 0) else {
            return Ok(Vec::new());
        };
        let previous = previous(&self.place, &self.job)?;
        let (mut others, mut nights, mut removed) = (0, BTreeSet::new(), Vec::new());
        for run in list_runs(&self.place, &self.job)?.into_iter().rev() {
            let is_published = is_published(&run);
            if is_published {
                nights.insert(run.date);
            } else {
                others += 1;
            }
            let is_kept = (nights.len() <= keep && (is_published || others <= keep))
                || run.pinned
                || run.id == tonight.id
                || run.id == current.run_id
                || previous.as_ref().is_some_and(|previous| previous.id == run.id);
            if is_kept {
                continue;
            }
            if self.place.opened_store().is_some() {
                self.place.remove(&run.folder)?;
                removed.push(run.id);
                continue;
            }
            let aside = folder.join(format!("{REMOVED}{}", run.id));
            fs::rename(&run.folder, &aside).map_err(io("rename", &run.folder))?;
            sync(&folder)?;
            remove(&aside)?;
            removed.push(run.id);
        }
        self.place.forget_others(&current.run_id)?;
        Ok(removed)
    }
}

/// Where a run goes before its files do, so that no reader finds half of one.
const REMOVED: &str = ".removed-";
/// Where a run has its temporary files.
const SCRATCH: &str = ".scratch";

impl Run {
    /// Its name: job, date, attempt.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        self.place.root().join("runs").join(&self.id)
    }

    /// Whether an earlier process began it.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// An empty folder for temporary files, on the run's own disk.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn scratch(&self) -> Result<PathBuf, Error> {
        let scratch = self.folder().join(SCRATCH);
        remove(&scratch)?;
        create_folder(&scratch)?;
        Ok(scratch)
    }

    /// What there is of a stage: a complete result of the same fingerprint, from this run or adopted
    /// from an earlier one, or a folder to write it in.
    ///
    /// # Errors
    /// If folders cannot be read or made.
    pub fn stage(&self, name: &str, fingerprint: &str) -> Result<Stage, Error> {
        stages::open(&self.place, &self.folder(), &self.id, &self.earlier, name, fingerprint)
    }

    /// Makes a table of a complete stage part of the published run, without a second copy of its
    /// bytes where the file system has hard links.
    ///
    /// # Errors
    /// If files cannot be linked or copied.
    pub fn publish_table(&self, stage: &Path, table: &str) -> Result<(), Error> {
        let target = self.folder().join(table);
        remove(&target)?;
        link_tree(&stage.join(table), &target)
    }

    /// Makes one file part of the published run.
    ///
    /// # Errors
    /// If it cannot be linked or copied.
    pub fn publish_file(&self, from: &Path, to: &str) -> Result<(), Error> {
        let target = self.folder().join(to);
        remove(&target)?;
        let folder = parent(&target);
        create_folder(folder)?;
        link(from, &target)?;
        // A new folder is on disk only when the one it is in is: up to the run's own.
        let run = self.folder();
        folder.ancestors().take_while(|folder| folder.starts_with(&run)).try_for_each(sync)
    }

    /// Writes the manifest, which completes the run; readers still load the one they loaded before.
    ///
    /// # Errors
    /// If a table is not as the manifest counts it, or the disk refuses.
    pub fn complete(&self, manifest: &Manifest) -> Result<(), Error> {
        let folder = self.folder();
        remove(&folder.join(SCRATCH))?;
        verify(&Place::folder(self.place.root()), &folder, manifest)?;
        let manifest = Manifest { build: built_for(), ..manifest.clone() };
        still_held(self.lease.as_deref())?;
        self.place.prune(&folder)?;
        self.place.send(&folder)?;
        write_json(&folder.join("manifest.json"), &self.id, &manifest)?;
        self.place.send(&folder.join("manifest.json"))
    }

    /// Completes the run, then switches `CURRENT` to it in one step.
    ///
    /// # Errors
    /// As of [`Run::complete`]; `CURRENT` then names the run it named before.
    pub fn publish(&self, manifest: &Manifest) -> Result<(), Error> {
        self.complete(manifest)?;
        switch(&self.place, self.lease.as_deref(), &self.job, &self.id)
    }
}

/// Names a complete run in `CURRENT`.
fn switch(place: &Place, lease: Option<&Lease>, job: &str, run_id: &str) -> Result<(), Error> {
    still_held(lease)?;
    let before = match current(place, job) {
        // Another job's first night, which has another lock, may have ended meanwhile.
        Err(other @ Error::OtherJob { .. }) => return Err(other),
        before => before.ok().flatten().map(|before| before.run_id),
    };
    let replaced = before.filter(|before| parse_run_id(before, job) < parse_run_id(run_id, job));
    let current = Current {
        run_id: run_id.to_owned(),
        path: format!("runs/{run_id}"),
        job: job.to_owned(),
        published_at: Utc::now().to_rfc3339(),
        replaced,
    };
    place.set_current(&current)
}

/// Whether nobody else has taken the lock of an output in a store.
fn still_held(lease: Option<&Lease>) -> Result<(), Error> {
    lease.map_or(Ok(()), Lease::check)
}

/// Holds a run's tables against its manifest; in a store by their bytes, since rows were counted before they
/// were sent.
fn verify(place: &Place, folder: &Path, manifest: &Manifest) -> Result<(), Error> {
    for (table, recorded) in &manifest.tables {
        let path = folder.join(table);
        let found = match place.listed_size(&path) {
            Some((bytes, files)) => TableRecord { bytes, files, ..*recorded },
            None => count(&path)?,
        };
        if found != *recorded {
            let problem = Box::new(Problem::Record { recorded: *recorded, found });
            return Err(Error::Broken { table: table.clone(), path, problem });
        }
    }
    Ok(())
}

/// The run that readers load, if any has been published.
///
/// # Errors
/// If `CURRENT` is there and cannot be read, or is of another job.
pub fn current(place: &Place, job: &str) -> Result<Option<Current>, Error> {
    match place.current()? {
        Some(current) if current.job != job => {
            Err(Error::OtherJob { output: place.shown(place.root()), theirs: current.job })
        }
        current => Ok(current),
    }
}

/// A job's runs, oldest first; attempts are ordered as numbers.
///
/// # Errors
/// If the folder cannot be read.
pub fn list_runs(place: &Place, job: &str) -> Result<Vec<RunInfo>, Error> {
    let folder = place.root().join("runs");
    let names = match place.run_names(PINNED) {
        Some(names) => names,
        None if !folder.exists() => return Ok(Vec::new()),
        None => entries(&folder)?
            .into_iter()
            .filter_map(|path| {
                let name = path.file_name()?.to_str()?.to_owned();
                Some((name, path.join("manifest.json").exists(), path.join(PINNED).exists()))
            })
            .collect(),
    };
    let mut runs = Vec::new();
    for (id, complete, pinned) in names {
        let Some((date, attempt)) = parse_run_id(&id, job) else { continue };
        runs.push(RunInfo { folder: folder.join(&id), id, date, attempt, complete, pinned });
    }
    runs.sort_by_key(|run| (run.date, run.attempt));
    Ok(runs)
}

/// A file that says that a run is to be kept.
const PINNED: &str = "pinned";

/// The published run before the one in `CURRENT`: the one that this replaced, or where it is not there any more the
/// newest that is older; its tables are not looked at.
///
/// # Errors
/// If a folder or a manifest cannot be read.
pub fn previous(place: &Place, job: &str) -> Result<Option<RunInfo>, Error> {
    let Some(current) = current(place, job)? else { return Ok(None) };
    let mut older = list_runs(place, job)?;
    let place = older.iter().position(|run| run.id == current.run_id).unwrap_or(older.len());
    older.truncate(place);
    older.sort_by_key(|run| current.replaced.as_ref() == Some(&run.id));
    for run in older.into_iter().rev() {
        if is_published(&run) {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

/// A manifest that cannot be read says nothing of the kind.
fn is_published(run: &RunInfo) -> bool {
    let manifest = if run.complete { read_manifest(&run.folder).ok().flatten() } else { None };
    manifest.is_some_and(|manifest| manifest.state == State::Published)
}

/// Pins a run, so that it is kept however old it gets, or no longer does so.
///
/// # Errors
/// If the disk refuses.
pub fn pin(place: &Place, run: &RunInfo, pinned: bool) -> Result<(), Error> {
    let mark = run.folder.join(PINNED);
    create_folder(&run.folder)?;
    if pinned {
        disk::create(&mark).map_err(io("write", &mark))?;
        place.send(&mark)?;
    } else {
        place.remove(&mark)?;
    }
    sync(&run.folder)
}

fn parse_run_id(id: &str, job: &str) -> Option<(NaiveDate, u32)> {
    let rest = id.strip_prefix(job)?.strip_prefix('-')?;
    let (date, attempt) = rest.rsplit_once('-')?;
    let (date, attempt) = (date.parse().ok()?, attempt.parse().ok()?);
    // Dates and numbers parse from more spellings than the one that names a run.
    (run_id(job, date, attempt) == id).then_some((date, attempt))
}

/// Removes a folder's folders of these names.
fn clear(folder: &Path, unwanted: impl Fn(&str) -> bool) -> Result<(), Error> {
    for path in entries(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && unwanted(&name) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Where a lock is held, for outputs that several machines share; empty where the system does not tell.
fn on_host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { String::new() } else { format!(" on {}", name.trim()) }
}

/// The name of a mirror, by which a lock's holder knows its own: drawn when the mirror is first used.
fn mirror_name(root: &Path) -> Result<String, Error> {
    let path = root.join(".mirror-name");
    match fs::read_to_string(&path) {
        Ok(name) => Ok(name.trim().to_owned()),
        Err(_) => {
            let seed = format!("{:?}{}{}", std::time::SystemTime::now(), std::process::id(), on_host());
            let name = blake3::hash(seed.as_bytes()).to_hex()[..16].to_owned();
            write_whole(&path, "mirror", name.as_bytes())?;
            Ok(name)
        }
    }
}

fn built_for() -> String {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!("{} {} {profile}", std::env::consts::OS, std::env::consts::ARCH)
}
