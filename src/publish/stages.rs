//! Stage folders: written beside their place, completed in one step, adopted by later runs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Error;
use super::files::{
    create_folder, entries, io, link_tree, parent, read_json, remove, sync, tree, write_json,
};
use super::place::Place;

/// What there is of a stage.
#[derive(Debug)]
pub enum Stage {
    /// It is complete, with the fingerprint asked for.
    Done(DoneStage),
    /// It has to be done.
    Todo(StageWriter),
}

/// A complete stage. Its files are never written to again: later runs share them by hard links.
#[derive(Debug)]
pub struct DoneStage {
    folder: PathBuf,
    record: Record,
}

/// A stage being written.
#[derive(Debug)]
pub struct StageWriter {
    /// Where it is written.
    folder: PathBuf,
    /// Where it belongs once it is whole.
    folder_when_whole: PathBuf,
    /// Where the run is.
    place: Place,
    record: Record,
    began: Instant,
}

/// `stage.json`, written last.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    stage: String,
    fingerprint: String,
    made_by: String,
    elapsed_ms: u64,
    bytes: u64,
    /// Every file by its path below the stage's folder.
    files: BTreeMap<String, FileRecord>,
    facts: Value,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct FileRecord {
    bytes: u64,
    /// What a Parquet file's footer says; other files have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
}

/// A hash over everything that decides a stage's result.
#[derive(Clone, Debug)]
pub struct Fingerprint {
    hasher: blake3::Hasher,
}

impl Fingerprint {
    /// Begins with the stage's name.
    pub fn new(stage: &str) -> Self {
        Self { hasher: blake3::Hasher::new() }.add("stage", stage)
    }

    /// Adds a named value; both are length-prefixed, so that fields cannot run into each other.
    #[must_use]
    pub fn add(mut self, key: &str, value: &str) -> Self {
        for part in [key, value] {
            self.hasher.update(&(part.len() as u64).to_le_bytes());
            self.hasher.update(part.as_bytes());
        }
        self
    }

    /// The hash as 32 hexadecimal digits.
    pub fn hex(&self) -> String {
        self.hasher.finalize().to_hex()[..32].to_owned()
    }
}

impl DoneStage {
    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What decided its result, as a hash.
    pub fn fingerprint(&self) -> &str {
        &self.record.fingerprint
    }

    /// The run that did the work.
    pub fn made_by(&self) -> &str {
        &self.record.made_by
    }

    /// What the stage reported.
    pub fn facts(&self) -> &Value {
        &self.record.facts
    }
}

impl StageWriter {
    /// The folder to write into.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Completes the stage: records its files, forces them to disk, gives the folder its name.
    ///
    /// # Errors
    /// If the disk refuses, or a `.parquet` file has no footer; the stage is then as if it had never begun, but
    /// for one that is whole and could not take the place of an older one: the next attempt sees to that.
    pub fn finish(mut self, facts: Value) -> Result<DoneStage, Error> {
        self.record.elapsed_ms = self.began.elapsed().as_millis() as u64;
        self.record.facts = facts;
        let (folders, files) = tree(&self.folder)?;
        for path in &files {
            let bytes = fs::metadata(path).map_err(io("read", path))?.len();
            let rows = if is_parquet(path) { Some(footer_rows(path)?) } else { None };
            sync(path)?;
            let name = path.strip_prefix(&self.folder).unwrap_or(path).to_string_lossy().into_owned();
            self.record.bytes += bytes;
            self.record.files.insert(name, FileRecord { bytes, rows });
        }
        for folder in &folders {
            sync(folder)?;
        }
        write_json(&self.folder.join("stage.json"), &self.record.made_by, &self.record)?;
        instead(&self.place, &self.folder, self.folder_when_whole, self.record)
    }
}

/// Gives their names to stages that are whole but for that: whoever wrote them was killed while they took the
/// places of older ones, which may be gone already.
pub(super) fn recover(place: &Place, run: &Path) -> Result<(), Error> {
    for partial in entries(&run.join("stages"))? {
        let name = partial.file_name().unwrap_or_default().to_string_lossy();
        if let Some(stage) = complete(run, &name)
            && name == partial_name(&stage.record.stage)
        {
            let folder = partial.with_file_name(&stage.record.stage);
            instead(place, &partial, folder, stage.record)?;
        }
    }
    Ok(())
}

fn partial_name(stage: &str) -> String {
    format!(".{stage}.partial")
}

/// Gives a whole stage its name, in the place of what had that before.
fn instead(place: &Place, partial: &Path, folder: PathBuf, record: Record) -> Result<DoneStage, Error> {
    place.remove(&folder)?;
    fs::rename(partial, &folder).map_err(io("rename", partial))?;
    sync(parent(&folder))?;
    place.send(&folder)?;
    Ok(DoneStage { folder, record })
}

pub(super) fn open(
    place: &Place,
    run: &Path,
    run_id: &str,
    earlier: &[PathBuf],
    name: &str,
    fingerprint: &str,
) -> Result<Stage, Error> {
    let stages = run.join("stages");
    let folder = stages.join(name);
    let same = |stage: &DoneStage| stage.record.fingerprint == fingerprint;
    if let Some(stage) = find(place, run, name, &same)? {
        // It may have been completed just before its process was killed.
        place.send(&folder)?;
        return Ok(Stage::Done(stage));
    }
    let partial = stages.join(partial_name(name));
    remove(&partial)?;
    for run in earlier {
        let Some(stage) = find(place, run, name, &same)? else { continue };
        link_tree(&stage.folder, &partial)?;
        return Ok(Stage::Done(instead(place, &partial, folder, stage.record)?));
    }
    // What an interrupted attempt made of other inputs stays until this is whole: it may be built on.
    create_folder(&partial)?;
    let record = Record {
        stage: name.to_owned(),
        fingerprint: fingerprint.to_owned(),
        made_by: run_id.to_owned(),
        elapsed_ms: 0,
        bytes: 0,
        files: BTreeMap::new(),
        facts: Value::Null,
    };
    let (place, began) = (place.clone(), Instant::now());
    Ok(Stage::Todo(StageWriter { folder: partial, folder_when_whole: folder, place, record, began }))
}

/// A run's stage where it is complete and the one that is wanted; one in a store is fetched then.
pub(super) fn find(
    place: &Place,
    run: &Path,
    name: &str,
    wanted: &dyn Fn(&DoneStage) -> bool,
) -> Result<Option<DoneStage>, Error> {
    let folder = run.join("stages").join(name);
    let path = folder.join("stage.json");
    if place.counts(&path)
        && let Some(stage) = complete(run, name).filter(|stage| wanted(stage))
    {
        return Ok(Some(stage));
    }
    if !place.has(&path) {
        return Ok(None);
    }
    place.fetch(&path)?;
    let Ok(Some(record)) = read_json::<Record>(&path) else { return Ok(None) };
    if !wanted(&DoneStage { folder: folder.clone(), record }) {
        return Ok(None);
    }
    place.fetch(&folder)?;
    Ok(complete(run, name))
}

/// A run's stage, where it has a record and every file the record names in its recorded size. A
/// record that cannot be read counts as none: the stage is done again rather than trusted.
fn complete(run: &Path, name: &str) -> Option<DoneStage> {
    let folder = run.join("stages").join(name);
    let record: Record = read_json(&folder.join("stage.json")).ok()??;
    let whole = record.files.iter().all(|(name, file)| {
        fs::metadata(folder.join(name)).is_ok_and(|found| found.is_file() && found.len() == file.bytes)
    });
    whole.then_some(DoneStage { folder, record })
}

pub(super) fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "parquet")
}

/// Rows of a Parquet file as its footer counts them.
pub(super) fn footer_rows(path: &Path) -> Result<u64, Error> {
    let file = File::open(path).map_err(io("open", path))?;
    let reader = SerializedFileReader::new(file)
        .map_err(|source| Error::ReadBack { path: path.to_owned(), source })?;
    Ok(reader.metadata().file_metadata().num_rows().max(0) as u64)
}
