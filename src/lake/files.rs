//! The files of an input: finding them, reading their footers, what their paths say.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::datatypes::{Schema, SchemaRef, TimeUnit};
use datafusion::datasource::file_format::parquet::Int96Coercer;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::schema::types::SchemaDescriptor;
use percent_encoding::percent_decode_str;

use super::access::Access;
use super::input::Error;
use super::remote;
use super::store::{is_url, modified_ns};

/// One Parquet file of an input, as its footer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// When it was last changed, in nanoseconds since 1970.
    pub modified_ns: u128,
    /// Rows.
    pub rows: u64,
    /// What a store tells versions of it apart by; empty in a folder.
    pub etag: String,
}

/// A `file://` URL, with every character that a URL or a glob would interpret escaped.
pub(super) fn url(path: &Path) -> String {
    if let Some(url) = path.to_str().filter(|path| is_url(path)) {
        return remote::escaped(url);
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let url = if path.is_dir() {
        url::Url::from_directory_path(&absolute)
    } else {
        url::Url::from_file_path(&absolute)
    };
    url.map_or_else(|()| absolute.display().to_string(), String::from)
}

pub(super) fn find(path: &str, access: &Access) -> Result<Vec<Found>, Error> {
    if is_url(path) {
        return remote::find(path, access);
    }
    Ok(find_local(path)?.into_iter().map(Found::Local).collect())
}

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Found {
    Local(PathBuf),
    /// In a store, with what its listing says.
    Remote {
        url: String,
        size: u64,
        etag: String,
        modified_ns: u128,
    },
}

impl Found {
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::Local(path) => path.clone(),
            Self::Remote { url, .. } => PathBuf::from(url),
        }
    }
}

fn find_local(path: &str) -> Result<Vec<PathBuf>, Error> {
    let file = url::Url::parse(path).ok().filter(|url| url.scheme() == "file");
    if let Some(local) = file.and_then(|url| url.to_file_path().ok()) {
        return find_local(&local.to_string_lossy());
    }
    let direct = Path::new(path);
    let mut found = Vec::new();
    if direct.exists() {
        walk(direct, true, &mut found)?;
    } else {
        let pattern = glob::glob(path).map_err(|source| Error::Pattern { path: path.to_owned(), source })?;
        for entry in pattern {
            let entry =
                entry.map_err(|error| Error::Io { path: error.path().to_owned(), source: error.into() })?;
            walk(&entry, true, &mut found)?;
        }
    }
    if found.is_empty() {
        return Err(Error::Missing { path: path.to_owned() });
    }
    Ok(found)
}

/// Files named outright are taken as they are; inside folders only visible `*.parquet` files are,
/// since writers leave markers, checksums and temporary folders beside them.
fn walk(path: &Path, named: bool, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let hidden = entry.file_name().to_string_lossy().starts_with(['.', '_']);
            if !hidden {
                walk(&entry.path(), false, found)?;
            }
        }
    } else if named || path.extension().is_some_and(|extension| extension == "parquet") {
        found.push(path.to_owned());
    }
    Ok(())
}

pub(super) fn footer(path: &Path) -> Result<(SourceFile, Schema), Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let facts = file.metadata().map_err(io)?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|source| Error::Footer { path: path.to_owned(), source })?;
    let rows = reader.metadata().file_metadata().num_rows().max(0) as u64;
    let (size, modified_ns) = (facts.len(), modified_ns(&facts));
    let file = SourceFile { path: path.to_owned(), size, modified_ns, rows, etag: String::new() };
    Ok((file, columns(reader.parquet_schema(), reader.schema())))
}

/// A file's columns as sessions read them, times of 96 bits among them.
pub(super) fn columns(file: &SchemaDescriptor, schema: &SchemaRef) -> Schema {
    let coerced = Int96Coercer::new(file, schema, &TimeUnit::Microsecond).coerce();
    coerced.unwrap_or_else(|| schema.as_ref().clone())
}

/// The hive partition columns (`key=value` folders) that every file's path has, in its order.
pub(super) fn partitions(files: &[PathBuf]) -> Vec<String> {
    let keys = |file: &PathBuf| partition_values(file).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    let mut files = files.iter();
    let Some(first) = files.next().map(keys) else { return Vec::new() };
    if files.all(|file| keys(file) == first) { first } else { Vec::new() }
}

/// What a file's path says: the `key=value` folders it lies in. Writers escape what a path cannot hold, and have a
/// word for null.
pub(super) fn partition_values(file: &Path) -> Vec<(String, Option<String>)> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let folders = file.parent().into_iter().flat_map(Path::components);
    folders
        .filter_map(|part| part.as_os_str().to_str()?.split_once('='))
        .map(|(key, value)| (decoded(key), (value != "__HIVE_DEFAULT_PARTITION__").then(|| decoded(value))))
        .collect()
}
