//! People who want to be forgotten: their rows are taken out of every run, and looked for afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch, not};
use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::lake::table::{Layout, Writer};

use super::Error;
use super::REPORT;
use super::check::{count, parquet_files};
use super::files::{entries, io, write_json};
use super::manifest::{Manifest, read_manifest};
use super::runs::{Output, list_runs};

/// The column that says whose a row is.
const USER: &str = "user_id";

/// Stages that know items and words, and nobody.
const WITHOUT_USERS: [&str; 3] = ["catalog", "encode", "neighbors"];

/// What was taken out, and where nothing was found afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Runs gone through.
    pub runs: usize,
    /// Rows taken out, by table.
    pub rows: BTreeMap<String, u64>,
    /// Parquet files with users that were read to their end afterwards, none of them with a row of theirs.
    pub files_searched: usize,
    /// Those who had a row, as it had their ids.
    pub seen: BTreeSet<String>,
    /// Runs whose ids are hashed with another key, and so cannot be theirs.
    pub of_other_keys: Vec<String>,
}

impl Output {
    /// Takes users out of every run of the job, and every table of every job in the output is searched for them
    /// then. Stages that hold behaviour are removed: the next night does them again. Whoever reads a table
    /// meanwhile has the old file or the new one. Killed, it is as far as it came, and is called again. `key` is what
    /// tells the key that the ids were hashed with from others, as the manifests have it.
    ///
    /// # Errors
    /// If a file cannot be read or written; [`Error::Remains`] where a row was found afterwards.
    pub fn forget(&self, users: &BTreeSet<String>, key: &str) -> Result<Forgotten, Error> {
        let mut forgotten = Forgotten::default();
        let place = self.place();
        self.sweep()?;
        place.forget_others("")?;
        place.fetch(&place.root().join("runs"))?;
        for run in list_runs(place, self.job())? {
            forgotten.runs += 1;
            // It shows some users' lists.
            place.remove(&run.folder.join(REPORT))?;
            let stages = run.folder.join("stages");
            for stage in if stages.exists() { entries(&stages)? } else { Vec::new() } {
                let name = stage.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if !WITHOUT_USERS.contains(&name.as_str()) {
                    place.remove(&stage)?;
                }
            }
            for path in files_of_users(&run.folder)? {
                let removed = without(&path, users, &mut forgotten.seen)?;
                let table = path.strip_prefix(&run.folder).ok().and_then(|path| path.iter().next());
                let table = table.unwrap_or_default().to_string_lossy().into_owned();
                *forgotten.rows.entry(table).or_default() += removed;
            }
            if let Some(mut manifest) = read_manifest(&run.folder)? {
                if !manifest.pseudonyms.is_empty() && manifest.pseudonyms != key {
                    forgotten.of_other_keys.push(run.id.clone());
                }
                recount(&run.folder, &mut manifest)?;
                write_json(&run.folder.join("manifest.json"), &run.id, &manifest)?;
            }
            place.send(&run.folder)?;
        }
        for path in files_of_users(place.root())? {
            let found = rows_of(&path, users, &mut BTreeSet::new())?;
            if found > 0 {
                return Err(Error::Remains { path, found });
            }
            forgotten.files_searched += 1;
        }
        Ok(forgotten)
    }
}

fn recount(run: &Path, manifest: &mut Manifest) -> Result<(), Error> {
    for (table, record) in &mut manifest.tables {
        *record = count(&run.join(table))?;
    }
    Ok(())
}

fn files_of_users(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for path in parquet_files(folder)? {
        if open(&path)?.schema().field_with_name(USER).is_ok() {
            files.push(path);
        }
    }
    Ok(files)
}

fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, Error> {
    let file = File::open(path).map_err(io("open", path))?;
    ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|source| Error::ReadBack { path: path.to_owned(), source })
}

/// How many of a file's rows are these users'; who they are is added to those seen.
fn rows_of(path: &Path, users: &BTreeSet<String>, seen: &mut BTreeSet<String>) -> Result<u64, Error> {
    let failed = |source| Error::ReadBack { path: path.to_owned(), source };
    let builder = open(path)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), [USER]);
    let mut found = 0;
    for batch in builder.with_projection(mask).build().map_err(failed)? {
        let batch = batch.map_err(|error| failed(error.into()))?;
        let ids = text_of(&batch).map_err(|error| failed(error.into()))?;
        for user in ids.as_string::<i32>().iter().flatten().filter_map(|user| users.get(user)) {
            found += 1;
            if !seen.contains(user) {
                seen.insert(user.clone());
            }
        }
    }
    Ok(found)
}

fn theirs(rows: &RecordBatch, users: &BTreeSet<String>) -> Result<BooleanArray, arrow::error::ArrowError> {
    let text = text_of(rows)?;
    let is_theirs = |user: Option<&str>| Some(user.is_some_and(|user| users.contains(user)));
    Ok(text.as_string::<i32>().iter().map(is_theirs).collect())
}

fn text_of(rows: &RecordBatch) -> Result<ArrayRef, arrow::error::ArrowError> {
    cast(rows.column(rows.schema().index_of(USER)?), &DataType::Utf8)
}

/// Writes a file anew without these users' rows, laid out as it was; returns how many there were.
fn without(path: &Path, users: &BTreeSet<String>, seen: &mut BTreeSet<String>) -> Result<u64, Error> {
    let found = rows_of(path, users, seen)?;
    if found == 0 {
        return Ok(0);
    }
    let failed = |source| Error::ReadBack { path: path.to_owned(), source };
    let builder = open(path)?;
    let layout = layout(&builder);
    let mut writer = Writer::create(path, builder.schema().clone(), &layout)?;
    for batch in builder.build().map_err(failed)? {
        let batch = batch.map_err(|error| failed(error.into()))?;
        let others = theirs(&batch, users).and_then(|theirs| not(&theirs));
        let others = others.and_then(|others| filter_record_batch(&batch, &others));
        writer.write(&others.map_err(|error| failed(error.into()))?)?;
    }
    writer.finish()?;
    Ok(found)
}

/// How a file is sorted, and which columns have a bloom filter.
fn layout(file: &ParquetRecordBatchReaderBuilder<File>) -> Layout {
    let Some(group) = file.metadata().row_groups().first() else { return Layout::default() };
    let name = |column: usize| group.column(column).column_path().string();
    let sorted = group.sorting_columns().into_iter().flatten();
    Layout {
        sorted_by: sorted.map(|column| name(column.column_idx as usize)).collect(),
        bloom: (0..group.num_columns())
            .filter(|column| group.column(*column).bloom_filter_offset().is_some())
            .map(name)
            .collect(),
    }
}
