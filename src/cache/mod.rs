//! A run's lists into a Redis, one generation a run, switched in one step.
//!
//! Keys, where `nightly` is the job and `nightly-2026-11-21-1` the run:
//!
//! ```text
//! nightly:current                        the run whose lists readers take
//! nightly:previous                       the run before it, whose lists are still there
//! nightly:generations                    set of the runs that have keys
//! nightly-2026-11-21-1:u:<user_id>       a user's list
//! nightly-2026-11-21-1:i:<relation>:<item_id>    an item's list
//! nightly-2026-11-21-1:q:<query>         a search's list
//! nightly-2026-11-21-1:p:<segment>       a segment's list
//! nightly-2026-11-21-1:meta              hash: layout, made, how many lists of each kind are there, complete
//! ```
//!
//! A value is a JSON array of item ids, best first, without white space: `[1082185,995242]` or
//! `["p-17","p-4"]`. With `scores = true` it is two such arrays, `[[1082185,995242],[0.9131,0.8802]]`. Every
//! key but the first three goes after `ttl_hours`.
//!
//! Invariants: `current` names a run only once every list of it was written and found there again; a load that
//! was broken off goes on where it stopped, if it was of this very run (`made`: when that was complete) and layout;
//! a list is written again rather than left out. Whatever was there before has its whole time to live again. Of a
//! run that is in neither `current` nor `previous` the lists are removed; on a cluster they go by their time to
//! live, and the run is in `generations` until they have. Memory: a few batches of lists. Credentials are part of
//! the URL and in no message.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::publish;

mod encode;
mod link;

use encode::{Encoder, Values};
use link::Link;

/// The job's `[cache]` table.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// After how many hours lists go that no later load has replaced; 0 keeps them.
    pub ttl_hours: u32,
    /// Whether scores are written beside ids.
    pub scores: bool,
    /// The most lists written a second; 0 is as many as go.
    pub lists_per_second: u32,
    /// Lists sent at a time.
    pub batch: Batch,
}

impl Default for Config {
    fn default() -> Self {
        Self { ttl_hours: 168, scores: false, lists_per_second: 0, batch: Batch(500) }
    }
}

/// From 1 to 10,000.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
#[serde(try_from = "u16")]
pub struct Batch(pub u16);

/// Why a number of lists was refused.
#[derive(Debug, thiserror::Error)]
#[error("expected 1 to 10000 lists a batch; found {0}")]
pub struct InvalidBatch(u16);

impl TryFrom<u16> for Batch {
    type Error = InvalidBatch;

    fn try_from(lists: u16) -> Result<Self, InvalidBatch> {
        if (1..=10_000).contains(&lists) { Ok(Self(lists)) } else { Err(InvalidBatch(lists)) }
    }
}

/// One kind of lists.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The table's name.
    pub name: &'static str,
    /// What its keys begin with after the run.
    pub letter: &'static str,
    /// The columns the table is sorted by, which name a list.
    pub keys: &'static [&'static str],
    /// The same in the order they have in a cache's key.
    pub order: &'static [usize],
    /// The column of listed ids.
    pub item: &'static str,
}

/// The lists of one kind.
#[derive(Clone, Debug)]
pub struct Table {
    /// What they are.
    pub kind: Kind,
    /// Where they are.
    pub folder: PathBuf,
    /// Rows as the manifest counts them.
    pub rows: u64,
}

/// What is loaded.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The job.
    pub job: String,
    /// The run.
    pub run_id: String,
    /// When it was complete: after the output was removed, another run may have its name.
    pub made: String,
    /// Its lists.
    pub tables: Vec<Table>,
}

/// How far a load is.
pub struct Progress {
    /// Lists written or found to be there.
    pub done: u64,
    /// Of the kind that is being loaded.
    pub table: &'static str,
}

/// What a load came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// Lists of each kind.
    pub lists: Vec<(&'static str, u64)>,
    /// Those among them that an earlier load had written.
    pub already_there: u64,
    /// Bytes of the values written.
    pub bytes: u64,
    /// The run that `current` named before.
    pub before: Option<String>,
    /// Runs whose lists were removed.
    pub removed: Vec<String>,
    /// How long writing and checking took.
    pub elapsed: Duration,
}

/// Why lists could not be loaded; `current` names the run it named before.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is none of a Redis.
    #[error(
        "expected a URL such as redis://host:6379/0, rediss://user:password@host or redis+cluster://host; found another"
    )]
    Url(#[source] redis::RedisError),
    /// A cluster's lists have to go by themselves.
    #[error("a cluster needs cache.ttl_hours: expected more than 0; found 0")]
    NoTtl,
    /// Readers would meet two layouts in one generation.
    #[error(
        "{run}, which readers take, is loaded as `{found}`; expected a run that none takes to load it as `{layout}`"
    )]
    Layout {
        /// The run.
        run: String,
        /// As it is there.
        found: String,
        /// As it was to be.
        layout: &'static str,
    },
    /// The Redis cannot be reached, or refused a command.
    #[error("redis at {address}: cannot {action}")]
    Redis {
        /// Host and port.
        address: String,
        /// What was tried.
        action: &'static str,
        /// What the client reported.
        #[source]
        source: redis::RedisError,
    },
    /// Lists that were written are not there.
    #[error("redis at {address}: {table}: expected {expected} lists; found {found}")]
    Missing {
        /// Host and port.
        address: String,
        /// The kind of lists.
        table: &'static str,
        /// As many as were written.
        expected: u64,
        /// As many as are there.
        found: u64,
    },
    /// A table is not as the manifest counts it.
    #[error("{table}: expected {expected} rows as the manifest counts; found {found}")]
    Rows {
        /// The table.
        table: &'static str,
        /// What the manifest says.
        expected: u64,
        /// What was read.
        found: u64,
    },
    /// The run's tables cannot be read.
    #[error(transparent)]
    Read(#[from] publish::Error),
    /// An id or score cannot be written as JSON.
    #[error("cannot write a list of {table}")]
    Value {
        /// The table.
        table: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

/// Loads a run's lists and makes it the one that readers take.
///
/// # Errors
/// See [`Error`]; readers then take the lists they took before.
pub fn load(
    generation: &Generation,
    url: &str,
    config: &Config,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Loaded, Error> {
    let began = Instant::now();
    let mut link = Link::open(url)?;
    if link.is_cluster() && config.ttl_hours == 0 {
        return Err(Error::NoTtl);
    }
    let names = Names::of(&generation.job);
    let run = generation.run_id.as_str();
    let ttl = (config.ttl_hours > 0).then(|| u64::from(config.ttl_hours) * 3600);
    let layout = if config.scores { "ids+scores" } else { "ids" };
    let before = link.get(&names.current)?;
    let meta = format!("{run}:meta");
    if let Some(found) = link.field(&meta, "layout")?.filter(|found| found != layout)
        && before.as_deref() == Some(run)
    {
        return Err(Error::Layout { run: run.to_owned(), found, layout });
    }
    let same = [("layout", layout), ("made", &generation.made)];
    for (field, expected) in same {
        if link.field(&meta, field)?.as_deref() != Some(expected) {
            // Whatever else is there is of another layout or run: all lists are written.
            link.delete(&meta)?;
        }
    }
    for (field, value) in same {
        link.note(&meta, field, value, ttl)?;
    }
    link.add(&names.generations, run)?;

    let mut pace = Pace { per_second: config.lists_per_second, began: Instant::now(), sent: 0 };
    let mut loaded = Loaded {
        lists: Vec::new(),
        already_there: 0,
        bytes: 0,
        before: before.clone(),
        removed: Vec::new(),
        elapsed: Duration::ZERO,
    };
    for table in &generation.tables {
        let done = link.field(&meta, table.kind.letter)?.and_then(|text| text.parse().ok()).unwrap_or(0);
        loaded.already_there += done;
        let mut n_lists = done;
        let mut send = |lists: Values| -> Result<(), Error> {
            link.set(&lists, ttl)?;
            n_lists += lists.len() as u64;
            loaded.bytes += lists.iter().map(|list| list.1.len() as u64).sum::<u64>();
            link.note(&meta, table.kind.letter, &n_lists.to_string(), ttl)?;
            on_progress(Progress { done: n_lists, table: table.kind.name });
            pace.keep(lists.len());
            Ok(())
        };
        encode::batches(table, run, config, done, &mut send)?;
        loaded.lists.push((table.kind.name, n_lists));
    }
    for (table, (_, expected)) in generation.tables.iter().zip(&loaded.lists) {
        let found = present(&mut link, table, run, config, ttl)?;
        if found != *expected {
            // Something was evicted, removed or has gone by.
            link.note(&meta, "made", ANEW, ttl)?;
            let address = link.address().to_owned();
            return Err(Error::Missing { address, table: table.kind.name, expected: *expected, found });
        }
    }
    link.note(&meta, "complete", "1", ttl)?;
    link.renew(std::slice::from_ref(&meta), ttl)?;
    if let Some(old) = before.as_ref().filter(|old| *old != run) {
        link.put(&names.previous, old)?;
    }
    link.put(&names.current, run)?;
    let previous = link.get(&names.previous)?;
    for old in link.members(&names.generations)? {
        if old == run || Some(&old) == previous.as_ref() {
            continue;
        }
        if !link.is_cluster() {
            link.remove_all(&format!("{old}:*"))?;
            loaded.removed.push(old.clone());
        }
        // What says how many lists there are was written, or renewed, after the last of them.
        if link.field(&format!("{old}:meta"), "made")?.is_none() {
            link.forget(&names.generations, &old)?;
        }
    }
    loaded.removed.sort();
    loaded.elapsed = began.elapsed();
    Ok(loaded)
}

/// Whether there is a Redis that answers.
///
/// # Errors
/// If there is none.
pub fn check(url: &str) -> Result<(), Error> {
    Link::open(url).map(drop)
}

/// Removes users' lists from every generation, and returns how many there were.
///
/// # Errors
/// If the Redis cannot be reached, or a list is still there afterwards.
pub fn forget(job: &str, users: &BTreeSet<String>, url: &str) -> Result<u64, Error> {
    let mut link = Link::open(url)?;
    let mut removed = 0;
    for run in link.members(&Names::of(job).generations)? {
        let keys: Vec<String> = users.iter().map(|user| format!("{run}:u:{user}")).collect();
        for keys in keys.chunks(FORGOTTEN_AT_A_TIME) {
            removed += link.count(keys)?;
            for key in keys {
                link.delete(key)?;
            }
            let found = link.count(keys)?;
            if found > 0 {
                let address = link.address().to_owned();
                return Err(Error::Missing { address, table: "users to be forgotten", expected: 0, found });
            }
        }
        // A later load of the run would find fewer lists than were written.
        let meta = format!("{run}:meta");
        if link.field(&meta, "made")?.is_some() {
            link.note(&meta, "made", ANEW, None)?;
        }
    }
    Ok(removed)
}

/// As when a generation was made, it has the next load write all lists again.
const ANEW: &str = "";

/// Users whose lists are removed at a time.
const FORGOTTEN_AT_A_TIME: usize = 500;

/// How many of a table's lists are in the cache, which go so many seconds from now on; the rows read are held against
/// the manifest on the way.
fn present(
    link: &mut Link,
    table: &Table,
    run: &str,
    config: &Config,
    ttl: Option<u64>,
) -> Result<u64, Error> {
    let mut encoder = Encoder::new(table, run);
    let (mut found, mut rows) = (0, 0);
    let mut keys: Vec<String> = Vec::new();
    for list in publish::Lists::open(&table.folder, table.kind.keys, &[])? {
        let list = list?;
        rows += list.rows.num_rows() as u64;
        keys.push(encoder.key(&list.key));
        if keys.len() == usize::from(config.batch.0) {
            found += link.renew(&keys, ttl)?;
            keys.clear();
        }
    }
    found += link.renew(&keys, ttl)?;
    if rows == table.rows {
        return Ok(found);
    }
    Err(Error::Rows { table: table.kind.name, expected: table.rows, found: rows })
}

/// The keys that are of the job, not of a run.
struct Names {
    current: String,
    previous: String,
    generations: String,
}

impl Names {
    fn of(job: &str) -> Self {
        Self {
            current: format!("{job}:current"),
            previous: format!("{job}:previous"),
            generations: format!("{job}:generations"),
        }
    }
}

/// Holds a load to so many lists a second.
struct Pace {
    per_second: u32,
    began: Instant,
    sent: u64,
}

impl Pace {
    fn keep(&mut self, lists: usize) {
        self.sent += lists as u64;
        if self.per_second > 0 {
            let due = Duration::from_secs_f64(self.sent as f64 / f64::from(self.per_second));
            std::thread::sleep(due.saturating_sub(self.began.elapsed()));
        }
    }
}

#[cfg(test)]
mod tests;
