//! The job file: TOML → a validated [`Job`].
//!
//! Nothing else reads TOML. Every room owns its table's type and defaults; this room composes them,
//! applies `--set a.b=value`, and resolves paths against the job file's folder. An unknown key, a
//! wrong type or a value out of range is refused with the line shown.

use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::lake::{Access, input, store};
use crate::publish::Place;
use crate::{
    behavior, cache, catalog, encoder, evaluation, factor, gate, learning, linear, neighbors, observe,
    profile, ranking, repeat,
};

/// One nightly job. See the module doc of each room for its table's keys.
#[derive(Clone, Debug)]
pub struct Job {
    /// Where the job was read from.
    pub path: PathBuf,
    /// The job's text after `--set`, as the manifest records it.
    pub text: String,
    /// The job's values.
    pub spec: Spec,
    /// What stores are opened with.
    pub access: Access,
    /// Where its runs are. Of an output in a store it is only the mirror's folder until that is opened.
    pub place: Place,
}

/// The job file's top level.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Names runs: lower-case letters, digits, `-` and `_`.
    pub name: Name,
    /// The folder that holds `runs/` and `CURRENT`, or its URL in a store: `s3://bucket/folder`, `gs://…`, `az://…`.
    pub output: PathBuf,
    /// The folder that stages work in where the output is in a store, and that a model in a store is fetched into;
    /// `.lamplighter` beside the job where it is not given.
    #[serde(default)]
    pub work: Option<PathBuf>,
    /// Seeds every random choice.
    pub seed: u64,
    /// The run date where `--date` is not given; today where neither is.
    #[serde(default)]
    pub date: Option<Date>,
    /// Threads for SQL, encoding, factorisation and retrieval alike; all cores where it is 0.
    #[serde(default)]
    pub threads: usize,
    /// Memory for SQL sorts and aggregations before they spill to disk.
    #[serde(default)]
    pub sql_memory_mib: Mebibytes,
    /// Where the data is.
    pub inputs: Inputs,
    /// Events to implicit feedback.
    #[serde(default)]
    pub behavior: behavior::Config,
    /// Which items may be listed.
    #[serde(default)]
    pub catalog: catalog::Config,
    /// Texts to embeddings; without it, by their words.
    #[serde(default = "encoder::Config::without_model")]
    pub encoder: encoder::Config,
    /// Matrix factorisation.
    #[serde(default)]
    pub factors: factor::Keys,
    /// Item-item lists.
    #[serde(default)]
    pub neighbors: neighbors::Config,
    /// Item-item models of a user's history.
    #[serde(default)]
    pub linear: linear::Config,
    /// How likely users are to turn to their own items again.
    #[serde(default)]
    pub repeat: repeat::Config,
    /// How sources' weights are learned, where `ranking.weights` does not give them.
    #[serde(default)]
    pub learning: learning::Config,
    /// Users' tastes.
    #[serde(default)]
    pub profile: profile::Config,
    /// Fusion and lists.
    #[serde(default)]
    pub ranking: ranking::Config,
    /// Offline evaluation; `evaluation.enabled = false` turns it off.
    #[serde(default)]
    pub evaluation: evaluation::Config,
    /// What a night must be like to be published.
    #[serde(default)]
    pub gate: gate::Config,
    /// Layout of the published tables, and how many runs are kept.
    #[serde(default)]
    pub publish: Publish,
    /// What is done for those whose behaviour it is.
    #[serde(default)]
    pub privacy: Privacy,
    /// How lists are loaded into a cache.
    #[serde(default)]
    pub cache: cache::Config,
    /// What monitoring reads.
    #[serde(default)]
    pub observe: observe::Config,
}

/// The job's `[inputs]` table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// Views, clicks, carts, purchases, searches.
    pub events: input::Config,
    /// The catalogue; without it the items are those of the events.
    #[serde(default)]
    pub items: Option<input::Config>,
    /// Users' attributes, for statements that replace a shipped one (table `user_attributes`).
    #[serde(default)]
    pub users: Option<input::Config>,
}

/// The job's `[publish]` table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Publish {
    /// Folders `bucket=NN` that the recommendations are spread over, by user.
    pub buckets: Buckets,
    /// How many complete runs are kept, beside the current one, the one before it and those that are
    /// pinned; 0 keeps all.
    pub keep_runs: usize,
    /// How long the lock of an output in a store holds without being renewed, in seconds.
    pub lease_seconds: Seconds,
}

impl Default for Publish {
    fn default() -> Self {
        Self { buckets: Buckets(16), keep_runs: 30, lease_seconds: Seconds(60) }
    }
}

/// The job's `[privacy]` table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Privacy {
    /// The environment variable with the secret that users' ids are hashed with; without it ids stay as they are.
    pub pseudonym_key: Option<String>,
    /// The column of the users' table that says whether a user has agreed; without it nobody is asked.
    pub consent: Option<String>,
    /// The least users that a published segment, a listed search, a name in a profile, and a slice of metrics stand
    /// for.
    pub min_users: u32,
}

/// From 1 to 1,000.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "u16")]
pub struct Buckets(pub u16);

/// At least 4 seconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32")]
pub struct Seconds(pub u32);

/// Memory, at least 64 MiB.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "u32")]
pub struct Mebibytes(pub u32);

impl Mebibytes {
    /// The same in bytes.
    pub fn bytes(self) -> usize {
        (self.0 as usize) << 20
    }
}

impl Default for Mebibytes {
    fn default() -> Self {
        Self(1536)
    }
}

/// A job's name, fit for a folder's name.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(pub String);

/// A day written `YYYY-MM-DD`, as a string or as TOML's own date.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "toml::Value")]
pub struct Date(pub NaiveDate);

/// Why a job file was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the job file {}", path.display())]
    Read {
        /// The job file.
        path: PathBuf,
        /// What the file system reported.
        #[source]
        source: std::io::Error,
    },
    /// It is not a job.
    #[error("{}: {excerpt}", path.display())]
    Parse {
        /// The job file.
        path: PathBuf,
        /// The line, the place in it and what is wrong.
        excerpt: String,
    },
    /// A `--set` is not `key=value`.
    #[error("--set {assignment}: expected KEY.KEY=VALUE with a TOML value; {problem}")]
    Set {
        /// As it was given.
        assignment: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A value names nothing that can be used.
    #[error("{expected}; found `{found}`")]
    Value {
        /// What would do.
        expected: &'static str,
        /// What was given.
        found: String,
    },
}

impl TryFrom<u16> for Buckets {
    type Error = Error;

    fn try_from(buckets: u16) -> Result<Self, Error> {
        if (1..=1000).contains(&buckets) {
            Ok(Self(buckets))
        } else {
            Err(Error::Value { expected: "expected 1 to 1000 buckets", found: buckets.to_string() })
        }
    }
}

impl TryFrom<u32> for Seconds {
    type Error = Error;

    fn try_from(seconds: u32) -> Result<Self, Error> {
        if seconds >= 4 {
            Ok(Self(seconds))
        } else {
            Err(Error::Value { expected: "expected at least 4 seconds", found: seconds.to_string() })
        }
    }
}

impl TryFrom<u32> for Mebibytes {
    type Error = Error;

    fn try_from(mebibytes: u32) -> Result<Self, Error> {
        if mebibytes >= 64 {
            Ok(Self(mebibytes))
        } else {
            Err(Error::Value { expected: "expected at least 64 MiB", found: mebibytes.to_string() })
        }
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if !name.is_empty() && name.len() <= 64 && name.chars().all(fits) {
            Ok(Self(name))
        } else {
            Err(Error::Value {
                expected: "expected a name of at most 64 lower-case letters, digits, `-` and `_`",
                found: name,
            })
        }
    }
}

impl TryFrom<toml::Value> for Date {
    type Error = Error;

    fn try_from(value: toml::Value) -> Result<Self, Error> {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.parse()
            .map(Self)
            .map_err(|_| Error::Value { expected: "expected a date YYYY-MM-DD", found: text })
    }
}

/// Reads and validates a job file, the keys of other files laid over it, each `--set` applied in order.
///
/// # Errors
/// See [`Error`]; the message shows the line.
pub fn load(path: &Path, with: &[PathBuf], sets: &[String]) -> Result<Job, Error> {
    let mut text = read(path)?;
    for other in with {
        let over: toml::Table = toml::from_str(&read(other)?).map_err(|error| parse_error(other, &error))?;
        let mut job: toml::Table = toml::from_str(&text).map_err(|error| parse_error(path, &error))?;
        lay_over(&mut job, over);
        text = toml::to_string(&job)
            .map_err(|error| Error::Parse { path: other.clone(), excerpt: error.to_string() })?;
    }
    parse(path, if sets.is_empty() { text } else { with_sets(path, &text, sets)? })
}

impl Job {
    /// The same job with some keys set.
    ///
    /// # Errors
    /// As of [`load`].
    pub fn with(&self, sets: &[String]) -> Result<Self, Error> {
        let job = parse(&self.path, with_sets(&self.path, &self.text, sets)?)?;
        Ok(Self { access: self.access.clone(), place: self.place.clone(), ..job })
    }

    /// The folder for what stores have and this machine works with.
    pub fn work(&self) -> PathBuf {
        self.spec.work(self.path.parent().unwrap_or(Path::new("")))
    }

    /// The URL of an output in a store.
    pub fn output_url(&self) -> Option<&str> {
        self.spec.output.to_str().filter(|output| store::is_url(output))
    }

    /// A number of the job as it is after defaults, by its key.
    pub fn number(&self, key: &str) -> Option<f64> {
        let (table, name) = key.split_once('.')?;
        let spec = &self.spec;
        let table = match table {
            "factors" => serde_json::to_value(&spec.factors),
            "linear" => serde_json::to_value(&spec.linear),
            "repeat" => serde_json::to_value(&spec.repeat),
            _ => return None,
        };
        table.ok()?.get(name)?.as_f64()
    }
}

/// Some keys as the text of a file to be laid over a job.
pub fn overlay(sets: &[String]) -> Result<String, Error> {
    with_sets(Path::new(""), "", sets)
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Tables are merged; all else is replaced.
fn lay_over(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => lay_over(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

fn parse(path: &Path, text: String) -> Result<Job, Error> {
    let parsed: Result<Spec, toml::de::Error> = toml::from_str(&text);
    let mut spec = parsed.map_err(|error| parse_error(path, &error))?;
    spec.resolve(path.parent().unwrap_or(Path::new("")));
    if spec.threads == 0 {
        spec.threads = std::thread::available_parallelism().map_or(1, usize::from);
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let place = Place::folder(&spec.folder(folder));
    Ok(Job { path: path.to_owned(), text, spec, access: Access::default(), place })
}

fn parse_error(path: &Path, error: &toml::de::Error) -> Error {
    Error::Parse { path: path.to_owned(), excerpt: error.to_string().trim_end().to_owned() }
}

/// The job's text with the assignments merged in; comments are lost, values and keys are not.
fn with_sets(path: &Path, text: &str, sets: &[String]) -> Result<String, Error> {
    let mut job: toml::Table = toml::from_str(text).map_err(|error| parse_error(path, &error))?;
    for assignment in sets {
        let refuse = |problem: String| Error::Set { assignment: assignment.clone(), problem };
        let (key, value) = assignment.split_once('=').ok_or_else(|| refuse("found no `=`".to_owned()))?;
        // A bare word is what people type for a string: quotes are taken as given.
        let given: Result<toml::Table, _> = toml::from_str(&format!("value = {value}"));
        let value = match given {
            Ok(mut table) => table.remove("value").unwrap_or(toml::Value::String(value.to_owned())),
            Err(_) => toml::Value::String(value.to_owned()),
        };
        let keys: Vec<&str> = key.trim().split('.').collect();
        let (last, tables) = keys.split_last().ok_or_else(|| refuse("found no key".to_owned()))?;
        let mut table = &mut job;
        for key in tables {
            let entry = table.entry(*key).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            let toml::Value::Table(inner) = entry else {
                return Err(refuse(format!("`{key}` is not a table")));
            };
            table = inner;
        }
        table.insert((*last).to_owned(), value);
    }
    toml::to_string(&job)
        .map_err(|error| Error::Set { assignment: sets.join(" "), problem: error.to_string() })
}

impl Spec {
    /// Whether items' texts are embedded, where they have any.
    pub fn embeds(&self) -> bool {
        let items = self.inputs.items.as_ref();
        items.is_some_and(|items| items.text.as_ref().is_none_or(|columns| !columns.is_empty()))
    }

    /// The folder that stages work in: the output, or the mirror of it. Two outputs never share one.
    fn folder(&self, beside: &Path) -> PathBuf {
        match self.output.to_str().filter(|output| store::is_url(output)) {
            Some(url) => {
                let url = blake3::hash(url.trim_end_matches('/').as_bytes()).to_hex();
                self.work(beside).join(format!("{}-{}", self.name.0, &url[..8]))
            }
            None => self.output.clone(),
        }
    }

    fn work(&self, beside: &Path) -> PathBuf {
        self.work.clone().unwrap_or_else(|| beside.join(".lamplighter"))
    }

    fn resolve(&mut self, folder: &Path) {
        let resolve = |path: &mut PathBuf| *path = folder.join(&*path);
        let relative = |path: &mut String| {
            if !path.contains("://") {
                *path = folder.join(&*path).to_string_lossy().into_owned();
            }
        };
        if !self.output.to_str().is_some_and(store::is_url) {
            resolve(&mut self.output);
        }
        self.work.iter_mut().for_each(resolve);
        self.observe.prometheus.iter_mut().for_each(resolve);
        self.observe.openlineage.iter_mut().for_each(|to| relative(&mut to.0));
        let inputs = [Some(&mut self.inputs.events), self.inputs.items.as_mut(), self.inputs.users.as_mut()];
        let given = [self.evaluation.test.as_mut(), self.evaluation.valid.as_mut()];
        given.into_iter().flatten().for_each(relative);
        for input in inputs.into_iter().flatten() {
            match &mut input.path {
                input::Paths::One(path) => relative(path),
                input::Paths::Many(paths) => paths.iter_mut().for_each(relative),
            }
            input.sql.iter_mut().for_each(resolve);
        }
        self.behavior.sql.values_mut().for_each(resolve);
        // What exists beside the job, or is written as a path, is a folder; else a hub name.
        let model = &mut self.encoder.model;
        let local = folder.join(&*model);
        if local.exists() || model.starts_with(['.', '/']) {
            *model = local.to_string_lossy().into_owned();
        }
    }
}

#[cfg(test)]
mod tests;
