//! Published lists as they are read back: one after the other, in the order of their keys.
//!
//! A table's files are merged by key, so that two runs' lists can be held side by side whatever their
//! buckets are. Memory: a batch of rows and a page of each column a file.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::File;
use std::iter::Peekable;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::Error;
use super::check::parquet_files;
use super::files::io;
use super::id::{Id, Ids};
use super::problem::Problem;

/// Rows decoded at a time; every file of a table has some in memory.
const BATCH_ROWS: usize = 2048;

/// One list: the rows of one key, in the order they are stored in.
pub struct List {
    /// What names it.
    pub key: Vec<Id<'static>>,
    /// The columns that were asked for.
    pub rows: RecordBatch,
}

/// The lists of a table, merged by key.
pub struct Lists {
    files: Vec<FileLists>,
    /// The next list of every file that has one.
    next: BTreeMap<(Vec<Id<'static>>, usize), RecordBatch>,
    failed: Option<Error>,
}

impl Lists {
    /// Opens a table; `keys` name a list and are the columns the table is sorted by, `columns` what is read.
    ///
    /// # Errors
    /// If a file cannot be read or lacks a column.
    pub fn open(folder: &Path, keys: &[&str], columns: &[&str]) -> Result<Self, Error> {
        let files = parquet_files(folder)?;
        let files: Vec<FileLists> =
            files.into_iter().map(|path| FileLists::open(path, keys, columns)).collect::<Result<_, _>>()?;
        let mut lists = Self { files, next: BTreeMap::new(), failed: None };
        for file in 0..lists.files.len() {
            lists.advance(file)?;
        }
        Ok(lists)
    }

    fn advance(&mut self, file: usize) -> Result<(), Error> {
        if let Some(list) = self.files[file].read()? {
            self.next.insert((list.key, file), list.rows);
        }
        Ok(())
    }
}

impl Iterator for Lists {
    type Item = Result<List, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            self.next.clear();
            return Some(Err(error));
        }
        let ((key, file), rows) = self.next.pop_first()?;
        // The list at hand is whole; what is wrong with the next one is said in its turn.
        self.failed = self.advance(file).err();
        Some(Ok(List { key, rows }))
    }
}

/// The lists of two tables by key: of one, of the other, or of both.
pub struct Paired {
    left: Peekable<Lists>,
    right: Peekable<Lists>,
}

impl Paired {
    /// Holds two tables of the same keys side by side.
    pub fn new(left: Lists, right: Lists) -> Self {
        Self { left: left.peekable(), right: right.peekable() }
    }
}

impl Iterator for Paired {
    type Item = Result<(Option<List>, Option<List>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (self.left.peek(), self.right.peek()) {
            (None, None) => return None,
            (Some(Ok(left)), Some(Ok(right))) => left.key.cmp(&right.key),
            (Some(_), None) | (Some(Err(_)), _) => Ordering::Less,
            (None, Some(_)) | (_, Some(Err(_))) => Ordering::Greater,
        };
        let left = if order.is_le() { self.left.next().transpose() } else { Ok(None) };
        let right = if order.is_ge() { self.right.next().transpose() } else { Ok(None) };
        Some(left.and_then(|left| right.map(|right| (left, right))))
    }
}

/// One file's lists.
struct FileLists {
    path: PathBuf,
    names: Vec<String>,
    rows: ParquetRecordBatchReader,
    batch: Option<(RecordBatch, Vec<Ids>)>,
    at: usize,
}

impl FileLists {
    fn open(path: PathBuf, keys: &[&str], columns: &[&str]) -> Result<Self, Error> {
        let failed = |source| Error::ReadBack { path: path.clone(), source };
        let file = File::open(&path).map_err(io("open", &path))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed)?;
        for column in keys.iter().chain(columns) {
            if reader.schema().field_with_name(column).is_err() {
                return Err(broken(&path, Problem::NoColumn { column: (*column).to_owned() }));
            }
        }
        let mask = ProjectionMask::columns(reader.parquet_schema(), keys.iter().chain(columns).copied());
        let rows = reader.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(failed)?;
        let names = keys.iter().map(|key| (*key).to_owned()).collect();
        Ok(Self { path, names, rows, batch: None, at: 0 })
    }

    /// The next list, which may go on over batches.
    fn read(&mut self) -> Result<Option<List>, Error> {
        let mut key: Option<Vec<Id<'static>>> = None;
        let mut parts: Vec<RecordBatch> = Vec::new();
        loop {
            let Some((batch, ids)) = &self.batch else { if self.fill()? { continue } else { break } };
            let is_of = |key: &[Id], row: usize| ids.iter().zip(key).all(|(ids, part)| ids.id(row) == *part);
            let begun =
                key.get_or_insert_with(|| ids.iter().map(|ids| ids.id(self.at).into_owned()).collect());
            let end = (self.at..batch.num_rows()).find(|row| !is_of(begun, *row));
            let until = end.unwrap_or(batch.num_rows());
            if until > self.at {
                parts.push(batch.slice(self.at, until - self.at));
            }
            if end.is_some() {
                self.at = until;
                break;
            }
            self.batch = None;
        }
        let (Some(key), Some(first)) = (key, parts.first()) else { return Ok(None) };
        let rows = if parts.len() == 1 {
            first.clone()
        } else {
            let joined = concat_batches(&first.schema(), &parts);
            joined.map_err(|error| Error::ReadBack { path: self.path.clone(), source: error.into() })?
        };
        Ok(Some(List { key, rows }))
    }

    /// Takes the next batch that has rows; false where there is none.
    fn fill(&mut self) -> Result<bool, Error> {
        for batch in self.rows.by_ref() {
            let batch =
                batch.map_err(|error| Error::ReadBack { path: self.path.clone(), source: error.into() })?;
            if batch.num_rows() > 0 {
                let ids: Result<Vec<Ids>, Problem> =
                    self.names.iter().map(|name| Ids::read(&batch, name)).collect();
                let ids = ids.map_err(|problem| broken(&self.path, problem))?;
                (self.batch, self.at) = (Some((batch, ids)), 0);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

pub(super) fn broken(path: &Path, problem: Problem) -> Error {
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
    Error::Broken {
        table: folder.to_string_lossy().into_owned(),
        path: path.to_owned(),
        problem: Box::new(problem),
    }
}

impl List {
    /// A column of ids of the list.
    ///
    /// # Errors
    /// As of [`Ids::read`].
    pub fn ids(&self, column: &str) -> Result<Ids, Error> {
        Ids::read(&self.rows, column).map_err(|problem| broken(Path::new(column), problem))
    }
}
