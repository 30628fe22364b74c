//! Object stores: objects by key, below a URL such as `s3://bucket/folder`.
//!
//! A [`Store`] reads by ranges, writes large files in parts, tries again with growing pauses what may succeed
//! then, and replaces an object only where it is still the one that was read, which is how `CURRENT` and the
//! lock of a run change hands. Every call is synchronous. Where a store is, and with what it is opened, comes in
//! as an [`Access`]; nothing of that is ever part of a message.
//!
//! Cost: a listing is one request a thousand objects; files go eight at a time; a file of 8 MiB or more is written in
//! parts of that size, with a few of them in memory.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as Key;
use object_store::{BackoffConfig, RetryConfig, WriteMultipart};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use url::Url;

use super::access::Access;
use super::disk;

/// Files that are on their way at once.
const AT_ONCE: usize = 8;
const A_DAY: Duration = Duration::from_secs(86_400);
/// What a file is cut into on its way to a store.
const PART_BYTES: usize = 8 << 20;
/// The schemes that name a store.
const SCHEMES: [&str; 3] = ["s3", "gs", "az"];

/// A folder of an object store. Clones share its connections.
#[derive(Clone)]
pub struct Store {
    runtime: Arc<tokio::runtime::Runtime>,
    bucket: Arc<dyn ObjectStore>,
    /// Where keys begin.
    prefix: Key,
    /// As it was given, without a slash at its end.
    url: String,
    access: Access,
}

/// An object of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its key below the store's folder.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// What the store tells versions of it apart by; empty where it does not.
    pub etag: String,
    /// When it was written, in nanoseconds since 1970.
    pub modified_ns: u128,
}

/// The version of an object that was read or written.
#[derive(Clone, Debug)]
pub struct Version(UpdateVersion);

/// Why a store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL names no store.
    #[error(
        "{url}: expected a URL as s3://bucket/folder, gs://bucket/folder or az://container/folder; {found}"
    )]
    Url {
        /// As it was given, without what may be a password.
        url: String,
        /// What is wrong with it.
        found: String,
    },
    /// The store refused, or could not be reached for minutes.
    #[error("cannot {action} {location}: {problem}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// On what.
        location: String,
        /// What the store said.
        problem: String,
        /// Whether the same again may succeed later.
        passing: bool,
    },
    /// An object that is needed is not there.
    #[error("{location}: expected an object of this name; found none")]
    Missing {
        /// The object.
        location: String,
    },
    /// Another process has written the object since it was read.
    #[error(
        "{location}: expected the object that was read before; found that another process has replaced it"
    )]
    Lost {
        /// The object.
        location: String,
    },
    /// The file on this side could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the file system reported.
        #[source]
        source: std::io::Error,
    },
    /// The threads that talk to it could not be made.
    #[error("cannot start the IO threads")]
    Runtime(#[source] std::io::Error),
}

/// Whether a path of a job is in a store.
pub fn is_url(path: &str) -> bool {
    path.split_once("://").is_some_and(|(scheme, _)| scheme != "file")
}

/// The scheme of a path that was meant as a URL and is a folder's, as `s3:/bucket`.
pub fn scheme_of_no_url(path: &str) -> Option<&'static str> {
    SCHEMES.into_iter().find(|scheme| !is_url(path) && path.contains(&format!("{scheme}:/")))
}

/// A store of a library's builder, which are alike but have no trait in common. Settings that it does not know
/// concern something else.
macro_rules! opened {
    ($builder:ty, $url:expr, $settings:expr) => {{
        let builder = <$builder>::new().with_url($url).with_retry(retries());
        let builder = $settings.into_iter().fold(builder, |builder, (name, value)| match name.parse() {
            Ok(name) => builder.with_config(name, value),
            Err(_) => builder,
        });
        builder.build().map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
    }};
}

/// Long enough for a server that is started again: for a minute, pauses up to ten seconds. The library draws a pause
/// between the first one and `base` times the last one, so that with its own 2 they do not grow.
fn retries() -> RetryConfig {
    let (init_backoff, max_backoff) = (Duration::from_millis(100), Duration::from_secs(10));
    let backoff = BackoffConfig { init_backoff, max_backoff, base: 4.0 };
    RetryConfig { backoff, max_retries: 100, retry_timeout: Duration::from_secs(60) }
}

/// A bucket, and the key that a URL names in it.
pub(super) fn bucket(url: &str, access: &Access) -> Result<(Arc<dyn ObjectStore>, Key), Error> {
    let refused = |found: String| Error::Url { url: without_password(url), found };
    let parsed = Url::parse(url).map_err(|error| refused(error.to_string()))?;
    if !SCHEMES.contains(&parsed.scheme()) {
        return Err(refused(format!("found the scheme `{}`", parsed.scheme())));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() || parsed.query().is_some() {
        return Err(refused("credentials belong into the environment".to_owned()));
    }
    let opened = match parsed.scheme() {
        "s3" => opened!(AmazonS3Builder, url, access.settings("s3")),
        "gs" => opened!(GoogleCloudStorageBuilder, url, access.settings("gs")),
        _ => opened!(MicrosoftAzureBuilder, url, access.settings("az")),
    };
    let store = opened.map_err(|error| refused(access.redacted(&error.to_string())))?;
    // Keys are what they are called; only URLs have escapes.
    let rest = url.splitn(4, '/').nth(3).unwrap_or("").trim_end_matches('/');
    let key = Key::parse(rest).map_err(|error| refused(error.to_string()))?;
    Ok((store, key))
}

/// A URL up to what might be a password.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split('?').next().unwrap_or("");
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}/{path}")
}

impl Store {
    /// Opens a folder of a store; no request is made.
    ///
    /// # Errors
    /// If the URL is none of a store, or what is needed to use it is missing or contradicts itself.
    pub fn open(url: &str, access: &Access) -> Result<Self, Error> {
        let (bucket, prefix) = bucket(url, access)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("store")
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { runtime: Arc::new(runtime), bucket, prefix, url, access: access.clone() })
    }

    /// An object's URL.
    pub fn location(&self, key: &str) -> String {
        if key.is_empty() { self.url.clone() } else { format!("{}/{key}", self.url) }
    }

    /// Every object below a key, by key.
    ///
    /// # Errors
    /// If the store refuses.
    pub fn list(&self, below: &str) -> Result<Vec<Object>, Error> {
        let at = self.key(below)?;
        let found: Result<Vec<_>, _> = self.runtime.block_on(self.bucket.list(Some(&at)).try_collect());
        let found = found.map_err(|error| self.refused("list", below, &error))?;
        let mut objects: Vec<Object> = found.into_iter().filter_map(|meta| self.object(meta)).collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    fn object(&self, meta: object_store::ObjectMeta) -> Option<Object> {
        let key = meta.location.as_ref().strip_prefix(self.prefix.as_ref())?;
        Some(Object {
            key: key.trim_start_matches('/').to_owned(),
            size: meta.size,
            etag: meta.e_tag.unwrap_or_default(),
            modified_ns: meta.last_modified.timestamp_nanos_opt().unwrap_or(0).max(0) as u128,
        })
    }

    /// The object of exactly this key.
    ///
    /// # Errors
    /// If the store refuses.
    pub fn find(&self, key: &str) -> Result<Option<Object>, Error> {
        match self.runtime.block_on(self.bucket.head(&self.key(key)?)) {
            Ok(meta) => Ok(self.object(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.refused("look for", key, &error)),
        }
    }

    /// A small object's bytes; `None` where there is no such object.
    ///
    /// # Errors
    /// If the store refuses.
    pub fn read(&self, key: &str) -> Result<Option<(Vec<u8>, Version)>, Error> {
        let at = self.key(key)?;
        self.runtime.block_on(async {
            let got = match self.bucket.get(&at).await {
                Ok(got) => got,
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(self.refused("read", key, &error)),
            };
            let version = UpdateVersion { e_tag: got.meta.e_tag.clone(), version: got.meta.version.clone() };
            let bytes = got.bytes().await.map_err(|error| self.refused("read", key, &error))?;
            Ok(Some((bytes.to_vec(), Version(version))))
        })
    }

    /// Copies objects into files, several at a time; each appears under its name only when it is whole.
    ///
    /// # Errors
    /// If the store or the disk refuses; what was copied before stays.
    pub fn fetch(&self, wanted: &[(String, PathBuf)]) -> Result<(), Error> {
        let _span = tracing::info_span!(target: "profile", "store", of = "fetch").entered();
        self.runtime.block_on(
            futures::stream::iter(wanted)
                .map(|(key, to)| self.fetch_one(key, to))
                .buffer_unordered(AT_ONCE)
                .try_collect(),
        )
    }

    /// Copies some objects of this folder, where they are not there yet, into a folder below another: each version of
    /// them has one of its own, and the one before goes. Those that the store lacks are left out, but for the needed.
    ///
    /// # Errors
    /// If the store lacks one that is needed, or it or the disk refuses.
    pub fn mirror(&self, needed: &[&str], welcome: &[&str], below: &Path) -> Result<PathBuf, Error> {
        let versions = || -> Result<Vec<Object>, Error> {
            let found = needed.iter().chain(welcome).map(|key| self.find(key));
            Ok(found.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
        };
        let objects = versions()?;
        let is_there = |key: &str| objects.iter().any(|object| object.key == key);
        if let Some(key) = needed.iter().find(|key| !is_there(key)) {
            return Err(Error::Missing { location: self.location(key) });
        }
        let short = |text: &str| blake3::hash(text.as_bytes()).to_hex()[..16].to_owned();
        let of_url = short(&self.url);
        let folder = below.join(format!("{of_url}-{}", short(&format!("{objects:?}"))));
        if folder.is_dir() {
            return Ok(folder);
        }
        let file = |action| move |source| Error::File { action, path: below.to_owned(), source };
        disk::create_folders(below).map_err(file("create"))?;
        // Of a name that no other process draws, and gone where this one fails.
        let partial = tempfile::Builder::new()
            .prefix(&format!("{of_url}-"))
            .suffix(".partial")
            .tempdir_in(below)
            .map_err(file("write into"))?;
        let to = |key: &str| partial.path().join(key);
        let wanted: Vec<(String, PathBuf)> =
            objects.iter().map(|object| (object.key.clone(), to(&object.key))).collect();
        self.fetch(&wanted)?;
        // What was written meanwhile would be of two versions.
        if versions()? != objects {
            return Err(Error::Lost { location: self.url.clone() });
        }
        for entry in std::fs::read_dir(below).map_err(file("look into"))? {
            let path = entry.map_err(file("look into"))?.path();
            // Another process may be at it: what it has fetched is left alone for a day.
            let is_fetched = |path: &Path| {
                let changed = path.metadata().and_then(|facts| facts.modified()).ok();
                path.extension().is_some_and(|extension| extension == "partial")
                    && changed.and_then(|at| at.elapsed().ok()).is_none_or(|age| age < A_DAY)
            };
            let is_older = path != folder
                && !is_fetched(&path)
                && path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(|name| name.starts_with(&of_url));
            if is_older {
                std::fs::remove_dir_all(&path).map_err(file("remove from"))?;
            }
        }
        match std::fs::rename(partial.path(), &folder) {
            // Another process was faster with the same objects.
            Err(_) if folder.is_dir() => {}
            renamed => renamed.map_err(file("rename in"))?,
        }
        Ok(folder)
    }

    async fn fetch_one(&self, key: &str, to: &Path) -> Result<(), Error> {
        let file = |action| move |source| Error::File { action, path: to.to_owned(), source };
        if let Some(folder) = to.parent() {
            disk::create_folders(folder).map_err(file("create the folder of"))?;
        }
        let mut name = std::ffi::OsString::from(".");
        name.push(to.file_name().unwrap_or_default());
        name.push(format!(".{}.partial", std::process::id()));
        let partial = to.with_file_name(name);
        let got = self.bucket.get(&self.key(key)?).await;
        let got = got.map_err(|error| self.refused("read", key, &error))?;
        let mut out = disk::create(&partial).map_err(file("write"))?;
        // Disks are fast beside networks: writing here holds the others up for less than a part takes to come.
        let mut parts = got.into_stream();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| self.refused("read", key, &error))?;
            out.write_all(&part).map_err(file("write"))?;
        }
        out.sync_all().map_err(file("write"))?;
        std::fs::rename(&partial, to).map_err(file("rename"))
    }

    /// Copies files into objects, several at a time; each appears only when it is whole.
    ///
    /// # Errors
    /// If the store refuses or a file cannot be read; what was copied before stays.
    pub fn send(&self, files: &[(PathBuf, String)]) -> Result<Vec<Object>, Error> {
        let _span = tracing::info_span!(target: "profile", "store", of = "send").entered();
        self.runtime.block_on(
            futures::stream::iter(files)
                .map(|(from, key)| self.send_one(from, key))
                .buffered(AT_ONCE)
                .try_collect(),
        )
    }

    async fn send_one(&self, from: &Path, key: &str) -> Result<Object, Error> {
        let failed = |source| Error::File { action: "read", path: from.to_owned(), source };
        let refused = |error: object_store::Error| self.refused("write", key, &error);
        let mut file = File::open(from).map_err(failed)?;
        let at = self.key(key)?;
        let mut part = vec![0; PART_BYTES];
        let mut n = fill(&mut file, &mut part).map_err(failed)?;
        let mut size = n as u64;
        let e_tag = if n < PART_BYTES {
            part.truncate(n);
            self.bucket.put(&at, PutPayload::from(part)).await.map_err(refused)?.e_tag
        } else {
            let upload = self.bucket.put_multipart(&at).await.map_err(refused)?;
            let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
            while n > 0 {
                upload.wait_for_capacity(1).await.map_err(refused)?;
                upload.write(&part[..n]);
                n = fill(&mut file, &mut part).map_err(failed)?;
                size += n as u64;
            }
            upload.finish().await.map_err(refused)?.e_tag
        };
        Ok(Object { key: key.to_owned(), size, etag: e_tag.unwrap_or_default(), modified_ns: 0 })
    }

    /// Writes a small object where it is still the version that was read, or where there is none.
    ///
    /// # Errors
    /// [`Error::Lost`] where it is another version; if the store refuses.
    pub fn replace(&self, key: &str, bytes: &[u8], before: Option<&Version>) -> Result<Version, Error> {
        let at = self.key(key)?;
        let mode = match before {
            Some(version) => PutMode::Update(version.0.clone()),
            None => PutMode::Create,
        };
        let put = || {
            let options = PutOptions::from(mode.clone());
            self.runtime.block_on(self.bucket.put_opts(&at, PutPayload::from(bytes.to_vec()), options))
        };
        let is_lost = |error: &object_store::Error| match error {
            object_store::Error::Precondition { .. } | object_store::Error::AlreadyExists { .. } => true,
            object_store::Error::NotFound { .. } => before.is_some(),
            _ => false,
        };
        let mut refusal = match put() {
            Ok(done) => return Ok(Version(UpdateVersion { e_tag: done.e_tag, version: done.version })),
            Err(error) => error,
        };
        // A connection may break after the store did as asked; and then a second try would find its own object.
        for pause_ms in [200, 1_000, 5_000] {
            match self.read(key)? {
                Some((found, version)) if found == bytes => return Ok(version),
                _ if is_lost(&refusal) => {
                    return Err(Error::Lost { location: self.location(key) });
                }
                _ if !is_passing(&refusal) => break,
                _ => std::thread::sleep(std::time::Duration::from_millis(pause_ms)),
            }
            refusal = match put() {
                Ok(done) => return Ok(Version(UpdateVersion { e_tag: done.e_tag, version: done.version })),
                Err(error) => error,
            };
        }
        if is_lost(&refusal) {
            return Err(Error::Lost { location: self.location(key) });
        }
        Err(self.refused("write", key, &refusal))
    }

    /// Removes objects; one that is not there is as good as removed.
    ///
    /// # Errors
    /// If the store refuses.
    pub fn remove(&self, keys: &[String]) -> Result<(), Error> {
        self.runtime.block_on(
            futures::stream::iter(keys)
                .map(|key| async move {
                    match self.bucket.delete(&self.key(key)?).await {
                        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                        Err(error) => Err(self.refused("remove", key, &error)),
                    }
                })
                .buffer_unordered(AT_ONCE)
                .try_collect(),
        )
    }

    fn key(&self, key: &str) -> Result<Key, Error> {
        let whole = if key.is_empty() { self.prefix.to_string() } else { format!("{}/{key}", self.prefix) };
        Key::parse(whole.trim_start_matches('/'))
            .map_err(|error| Error::Url { url: self.location(key), found: error.to_string() })
    }

    fn refused(&self, action: &'static str, key: &str, error: &object_store::Error) -> Error {
        refused(action, self.location(key), error, &self.access)
    }
}

/// A refusal, without anything that would open the store to its readers.
pub(super) fn refused(
    action: &'static str,
    location: String,
    error: &object_store::Error,
    access: &Access,
) -> Error {
    let mut problem = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !problem.contains(&text) {
            problem += &format!(": {text}");
        }
        cause = inner.source();
    }
    Error::Refused { action, location, problem: access.redacted(&problem), passing: is_passing(error) }
}

/// Whether the same may succeed later: not where the store says that the request itself is wrong. Too many requests
/// at once are no such thing.
fn is_passing(error: &object_store::Error) -> bool {
    let text = error.to_string();
    let wrong = text.contains("status code: 4") && !text.contains("status code: 429");
    matches!(error, object_store::Error::Generic { .. }) && !wrong
}

/// Reads until a part is full or the file ends.
fn fill(file: &mut File, part: &mut [u8]) -> std::io::Result<usize> {
    let mut n = 0;
    while n < part.len() {
        match file.read(&mut part[n..])? {
            0 => break,
            read => n += read,
        }
    }
    Ok(n)
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.url)
    }
}

/// Since 1970, of a file; 0 where the system does not tell.
pub fn modified_ns(facts: &std::fs::Metadata) -> u128 {
    let since = facts.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_nanos())
}
