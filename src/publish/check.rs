//! The last look at a list table before readers see it.
//!
//! The written files are read back, a batch of rows at a time, and held against the contract: ranks
//! run from 1 without a gap, no item twice in a list, scores finite and never rising, keys ascending,
//! each list in one run of rows of one file, and every listed pair allowed. Memory: one batch, one
//! list, and 16 bytes a list where a table has several files.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Schema, SchemaRef, UInt16Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::files::{io, tree};
use super::id::{Id, Ids, column};
use super::problem::{Fault, Problem};
use super::stages::{footer_rows, is_parquet};
use super::{Error, TableRecord};

/// A list table and which of its columns say what.
pub struct Listed<'a> {
    /// The table's name.
    pub table: &'a str,
    /// The columns that together name a list, in the order the table is sorted by.
    pub keys: &'a [&'a str],
    /// The column of listed ids.
    pub item: &'a str,
    /// Says why a key must not list an item, or that it may. Asked once a row; ids are given as text,
    /// in buffers that are used again.
    pub refuses: &'a dyn Fn(&[String], &str) -> Option<&'static str>,
}

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8192;

/// Reads a table back and checks every row of it.
///
/// # Errors
/// [`Error::Broken`] naming the file, the list and the rule.
pub fn check(folder: &Path, listed: &Listed) -> Result<TableRecord, Error> {
    check_in(folder, listed, BATCH_ROWS)
}

/// Rows, bytes and files of a table that is not made of lists, from footers alone.
///
/// # Errors
/// If a file cannot be read.
pub fn count(folder: &Path) -> Result<TableRecord, Error> {
    let mut record = TableRecord::default();
    for path in parquet_files(folder)? {
        record.bytes += path.metadata().map_err(io("read", &path))?.len();
        record.files += 1;
        record.rows += footer_rows(&path)?;
    }
    Ok(record)
}

/// The columns the contract promises of a table beyond its keys, items, ranks and scores.
fn promised(table: &str) -> &'static [&'static str] {
    match table {
        "recommendations" => &["source", "reason", "reason_item_id", "arm"],
        "similar_items" => &["relation"],
        _ => &[],
    }
}

fn check_in(folder: &Path, listed: &Listed, batch_rows: usize) -> Result<TableRecord, Error> {
    let folder = folder.join(listed.table);
    let record = count(&folder)?;
    let files = parquet_files(&folder)?;
    let broken = |path: &Path, problem| Error::Broken {
        table: listed.table.to_owned(),
        path: path.to_owned(),
        problem: Box::new(problem),
    };
    let mut first: Option<(&PathBuf, SchemaRef)> = None;
    let mut begun: Vec<([u8; 12], u32)> = Vec::new();
    for (at, path) in files.iter().enumerate() {
        let schema = check_file(path, listed, batch_rows, &mut |key| {
            if files.len() > 1 {
                begun.push((name_hash(key), at as u32));
            }
        })?;
        match &first {
            Some((first, columns)) if *columns != schema => {
                return Err(broken(path, Problem::Columns { first: first.to_path_buf() }));
            }
            Some(_) => {}
            None => first = Some((path, schema)),
        }
    }
    begun.sort_unstable();
    if let Some(pair) = begun.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        // Only hashes were kept: the list's name is read again, on this path alone.
        let (path, other) = (&files[pair[1].1 as usize], files[pair[0].1 as usize].clone());
        let mut list = String::new();
        check_file(path, listed, batch_rows, &mut |key| {
            if name_hash(key) == pair[0].0 {
                list = key.join(" / ");
            }
        })?;
        return Err(broken(path, Problem::Split { list, other }));
    }
    Ok(record)
}

/// Checks one file; `on_list` is given the key of each list. Returns the file's columns.
fn check_file(
    path: &Path,
    listed: &Listed,
    batch_rows: usize,
    on_list: &mut dyn FnMut(&[String]),
) -> Result<SchemaRef, Error> {
    let failed = |source| Error::ReadBack { path: path.to_owned(), source };
    let broken = |problem| Error::Broken {
        table: listed.table.to_owned(),
        path: path.to_owned(),
        problem: Box::new(problem),
    };
    let file = File::open(path).map_err(io("open", path))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed)?;
    let schema = reader.schema().clone();
    check_columns(&schema, listed).map_err(broken)?;
    let expected = reader.metadata().file_metadata().num_rows().max(0) as u64;
    let wanted = listed.keys.iter().copied().chain([listed.item, "rank", "score"]);
    let mask = ProjectionMask::columns(reader.parquet_schema(), wanted);
    let rows = reader.with_projection(mask).with_batch_size(batch_rows).build().map_err(failed)?;
    let (mut found, mut list) = (0, List::default());
    for batch in rows {
        let batch = batch.map_err(|error| failed(error.into()))?;
        found += batch.num_rows() as u64;
        list.check_batch(&batch, listed, on_list).map_err(broken)?;
    }
    if found == expected { Ok(schema) } else { Err(broken(Problem::Rows { expected, found })) }
}

fn check_columns(schema: &Schema, listed: &Listed) -> Result<(), Problem> {
    let no_column = |column: &str| Problem::NoColumn { column: column.to_owned() };
    let ids = listed.keys.iter().copied().chain([listed.item]);
    for column in ids.clone().chain(["rank", "score"]).chain(promised(listed.table).iter().copied()) {
        schema.field_with_name(column).map_err(|_| no_column(column))?;
    }
    let is = |column: &str, expected, fits: &dyn Fn(&DataType) -> bool| {
        let found = schema.field_with_name(column).map_err(|_| no_column(column))?.data_type();
        if fits(found) {
            return Ok(());
        }
        Err(Problem::Type { column: column.to_owned(), expected, found: found.clone() })
    };
    for column in ids {
        is(column, "an integer or a string", &|found| {
            found.is_integer() || matches!(found, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
        })?;
    }
    is("rank", "UInt16", &|found| *found == DataType::UInt16)?;
    is("score", "Float32", &|found| *found == DataType::Float32)
}

/// The list that the rows read so far end in; it may go on in the next batch.
#[derive(Default)]
struct List {
    begun: bool,
    key: Vec<Id<'static>>,
    /// The key as text.
    name: Vec<String>,
    rank: u16,
    score: f32,
    items: Vec<Id<'static>>,
}

impl List {
    fn check_batch(
        &mut self,
        batch: &RecordBatch,
        listed: &Listed,
        on_list: &mut dyn FnMut(&[String]),
    ) -> Result<(), Problem> {
        let keys: Vec<Ids> = listed.keys.iter().map(|key| Ids::read(batch, key)).collect::<Result<_, _>>()?;
        let items = Ids::read(batch, listed.item)?;
        let ranks = column(batch, "rank")?.as_primitive::<UInt16Type>();
        let scores = column(batch, "score")?.as_primitive::<Float32Type>();
        let mut before: BTreeSet<Id> = std::mem::take(&mut self.items).into_iter().collect();
        let mut text = String::new();
        for row in 0..batch.num_rows() {
            let (rank, score, item) = (ranks.value(row), scores.value(row), items.id(row));
            item.write(&mut text);
            let pairs = keys.iter().zip(&self.key);
            let order = pairs.map(|(ids, last)| ids.id(row).cmp(last)).find(|order| order.is_ne());
            let mut fault = None;
            if !self.begun || order.is_some() {
                let descends = order.is_some_and(std::cmp::Ordering::is_lt);
                fault = descends.then(|| Fault::Order { after: self.name.join(" / ") });
                let key: Vec<Id<'static>> = keys.iter().map(|ids| ids.id(row).into_owned()).collect();
                let name = key.iter().map(Id::to_string).collect();
                *self = Self { begun: true, key, name, score: f32::INFINITY, ..Self::default() };
                before.clear();
                on_list(&self.name);
            }
            if let Some(fault) = fault.or_else(|| self.fault(rank, score, &text, listed)) {
                return Err(self.row(rank, text, fault));
            }
            if !before.insert(item) {
                return Err(self.row(rank, text, Fault::Twice));
            }
            (self.rank, self.score) = (rank, score);
        }
        self.items = before.into_iter().map(Id::into_owned).collect();
        Ok(())
    }

    fn fault(&self, rank: u16, score: f32, item: &str, listed: &Listed) -> Option<Fault> {
        let expected = u32::from(self.rank) + 1;
        if u32::from(rank) != expected {
            return Some(Fault::Rank { expected });
        }
        if !score.is_finite() {
            return Some(Fault::NotFinite { found: score });
        }
        if score > self.score {
            return Some(Fault::Rising { found: score, after: self.score });
        }
        (listed.refuses)(&self.name, item).map(|reason| Fault::Refused { reason })
    }

    fn row(&self, rank: u16, item: String, fault: Fault) -> Problem {
        Problem::Row { list: self.name.join(" / "), rank, item, fault }
    }
}

/// 96 bits of a key's hash: two of a billion lists share them once in ten billion tables.
fn name_hash(key: &[String]) -> [u8; 12] {
    let mut hasher = blake3::Hasher::new();
    for part in key {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut short = [0; 12];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..12]);
    short
}

/// Every Parquet file below a folder, sorted.
pub(super) fn parquet_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let (_, mut files) = tree(folder)?;
    files.retain(|path| is_parquet(path));
    Ok(files)
}

#[cfg(test)]
mod tests;
