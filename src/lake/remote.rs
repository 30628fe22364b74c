//! The files of an input in an object store: finding them, reading their footers by ranges.

use std::collections::BTreeSet;

use arrow::datatypes::Schema;
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use url::Url;

use super::access::Access;
use super::files::{Found, SourceFile, columns};
use super::input::Error;
use super::store::{self, Store, bucket, is_url};

/// What is read of a file's end at first: most footers are smaller.
const TAIL_BYTES: u64 = 64 << 10;
/// Footers that are read at once.
const AT_ONCE: usize = 16;

/// A runtime for the few calls of one check.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|source| Error::Store(store::Error::Runtime(source)))
}

/// The bucket of a URL, and what comes after it.
fn split(url: &str) -> (&str, &str) {
    let after = url.find("://").map_or(0, |at| at + 3);
    match url[after..].find('/') {
        Some(slash) => (&url[..after + slash], &url[after + slash + 1..]),
        None => (url, ""),
    }
}

/// The URL as DataFusion reads it, in which every character that a URL would interpret is escaped.
pub(super) fn escaped(url: &str) -> String {
    let (bucket, key) = split(url);
    let Ok(mut escaped) = Url::parse(bucket) else { return url.to_owned() };
    if let Ok(mut segments) = escaped.path_segments_mut() {
        segments.clear().extend(key.split('/'));
    }
    escaped.to_string()
}

/// The files that a URL names: an object, all visible `*.parquet` below a folder, or what fits a glob.
pub(super) fn find(url: &str, access: &Access) -> Result<Vec<Found>, Error> {
    let (bucket_url, key) = split(url.trim_end_matches('/'));
    let store = Store::open(bucket_url, access)?;
    let pattern = key.find(['*', '?', '[']);
    let folder = match pattern {
        Some(at) => key[..at].rsplit_once('/').map_or("", |(folder, _)| folder),
        None => key,
    };
    let glob = glob::Pattern::new(key).map_err(|source| Error::Pattern { path: url.to_owned(), source })?;
    let exactly = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    let mut objects = store.list(folder)?;
    if objects.is_empty() && pattern.is_none() {
        objects.extend(store.find(key)?);
    }
    let is_visible = |rest: &str| !rest.split('/').any(|part| part.starts_with(['.', '_']));
    let below = |found: &str, folder: &str| found.strip_prefix(folder).map(|rest| rest.starts_with('/'));
    let wanted = |found: &str| match pattern {
        Some(_) => {
            // The glob may name files, or folders of them.
            let ends = found.match_indices('/').map(|(at, _)| at);
            let named = glob.matches_with(found, exactly);
            let inside = ends
                .filter(|at| glob.matches_with(&found[..*at], exactly))
                .any(|at| is_visible(&found[at + 1..]) && found.ends_with(".parquet"));
            named || inside
        }
        None => {
            found == key
                || key.is_empty() && is_visible(found) && found.ends_with(".parquet")
                || below(found, key) == Some(true)
                    && is_visible(&found[key.len() + 1..])
                    && found.ends_with(".parquet")
        }
    };
    let found: Vec<Found> = objects
        .into_iter()
        .filter(|object| wanted(&object.key))
        .map(|object| Found::Remote {
            url: format!("{bucket_url}/{}", object.key),
            size: object.size,
            etag: object.etag,
            modified_ns: object.modified_ns,
        })
        .collect();
    if found.is_empty() { Err(Error::Missing { path: url.to_owned() }) } else { Ok(found) }
}

/// The footers of those files that are in a store, several at a time.
pub(super) fn footers(files: &[Found], access: &Access) -> Result<Vec<Option<(SourceFile, Schema)>>, Error> {
    if files.iter().all(|file| matches!(file, Found::Local(_))) {
        return Ok(files.iter().map(|_| None).collect());
    }
    let mut stores = std::collections::BTreeMap::new();
    for file in files {
        if let Found::Remote { url, .. } = file {
            let name = split(url).0;
            if !stores.contains_key(name) {
                stores.insert(name.to_owned(), bucket(name, access)?.0);
            }
        }
    }
    let stores = &stores;
    runtime()?.block_on(
        futures::stream::iter(files)
            .map(|file| async move {
                let Found::Remote { url, size, etag, modified_ns } = file else { return Ok(None) };
                let (name, key) = split(url);
                let store = &stores[name];
                let (rows, schema) = footer(store.as_ref(), url, key, *size, access).await?;
                let (path, etag) = (url.into(), etag.clone());
                let file = SourceFile { path, size: *size, modified_ns: *modified_ns, rows, etag };
                Ok(Some((file, schema)))
            })
            .buffered(AT_ONCE)
            .try_collect(),
    )
}

/// Rows and columns of a file, from its end alone.
async fn footer(
    store: &dyn ObjectStore,
    url: &str,
    key: &str,
    size: u64,
    access: &Access,
) -> Result<(u64, Schema), Error> {
    let failed = |source| Error::Footer { path: url.into(), source };
    let at = Key::parse(key)
        .map_err(|error| store::Error::Url { url: url.to_owned(), found: error.to_string() })?;
    if size == 0 {
        return Err(failed(ParquetError::EOF("the object is empty".to_owned())));
    }
    let mut wanted = TAIL_BYTES.min(size);
    loop {
        let tail = store.get_range(&at, size - wanted..size).await;
        let tail = tail.map_err(|error| store::refused("read", url.to_owned(), &error, access))?;
        let mut reader = ParquetMetaDataReader::new();
        match reader.try_parse_sized(&tail, size) {
            Ok(()) => {
                let metadata = std::sync::Arc::new(reader.finish().map_err(failed)?);
                let rows = metadata.file_metadata().num_rows().max(0) as u64;
                let metadata = ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new());
                let metadata = metadata.map_err(failed)?;
                return Ok((rows, columns(metadata.parquet_schema(), metadata.schema())));
            }
            // A damaged footer may ask for more than there is.
            Err(ParquetError::NeedMoreData(more)) if more as u64 > wanted && more as u64 <= size => {
                wanted = more as u64;
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Makes the buckets of some URLs known to a session.
pub(super) fn register<'a>(
    session: &SessionContext,
    urls: impl Iterator<Item = &'a str>,
    access: &Access,
) -> Result<(), Error> {
    let names: BTreeSet<&str> = urls.filter(|url| is_url(url)).map(|url| split(url).0).collect();
    for name in names {
        let (store, _) = bucket(name, access)?;
        let url = Url::parse(name)
            .map_err(|error| store::Error::Url { url: name.to_owned(), found: error.to_string() })?;
        session.register_object_store(&url, store);
    }
    Ok(())
}
