//! A made-up shop as Parquet, with structure that a recommender can find and faults that it must.
//!
//! Out: `events/event_date=YYYY-MM-DD/part-0.parquet` in the order of time, `items.parquet`,
//! `users.parquet`, and, written last, `planted.json`: how many events there are, how many of them
//! are clean, and how many carry each fault.
//!
//! The structure: items stand on the shelves of a two-level category tree and carry one of a few
//! brands a shelf; within a shelf popularity follows Zipf's law; some items are new and have
//! hardly been seen. Users come back to one to four shelves, on each to a favourite item and its
//! brand; age groups prefer different shelves. A visit stays within an hour, searches first as
//! often as not, and what is put into the cart leads to a fixed companion item half of the time.
//!
//! **Invariants.** One config gives the same bytes everywhere: no floating-point function is called
//! and no hash map is used. Clean events never repeat each other. Memory holds one day of
//! events (32 bytes each), the users and the items.
//!
//! It reads nothing, never overwrites, and knows nothing of the crate it makes data for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use chrono::{Days, NaiveDate, NaiveTime};

mod catalogue;
mod dirt;
mod people;
mod random;
mod sessions;
mod tables;
mod words;

use catalogue::Catalogue;
use dirt::Dirt;
use people::People;
use random::Random;
use sessions::Day;

/// Which shop to make.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shop {
    pub(crate) users: u32,
    pub(crate) items: u32,
    /// All rows of the events, the dirty ones included.
    pub(crate) events: u64,
    /// How many days the events are spread over, evenly.
    pub(crate) days: u32,
    /// The last day.
    pub(crate) end: NaiveDate,
    pub(crate) seed: u64,
    /// The share of the events that gets a fault, at most a half.
    pub(crate) dirty: f64,
}

impl Default for Shop {
    fn default() -> Self {
        Self {
            users: 50_000,
            items: 20_000,
            events: 5_000_000,
            days: 30,
            end: NaiveDate::from_ymd_opt(2026, 11, 21).unwrap_or_default(),
            seed: 7,
            dirty: 0.0,
        }
    }
}

/// What the events hold, exactly: `events = clean + sum of reasons`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planted {
    pub(crate) events: u64,
    pub(crate) clean: u64,
    /// Faulty rows by the reason with which they should be rejected; every reason is listed.
    pub(crate) reasons: BTreeMap<&'static str, u64>,
}

/// Why a shop could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("`{key}`: expected {expected}; found {found}")]
    Config { key: &'static str, expected: &'static str, found: String },
    #[error("{} is not empty, and a shop is never written over another", path.display())]
    NotEmpty { path: PathBuf },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot write {}", path.display())]
    Parquet {
        path: PathBuf,
        #[source]
        source: parquet::errors::ParquetError,
    },
}

/// Writes the shop into the folder `out`, which is made if need be and must be empty.
pub(crate) fn generate(config: &Shop, out: &Path) -> Result<Planted, Error> {
    check(config)?;
    make_empty(out)?;
    // Every part draws from its own stream, so that more events do not change the catalogue.
    let catalogue = Catalogue::new(config.items, config.days, &mut Random::new(config.seed, 1));
    let people = People::new(config.users, &catalogue, &mut Random::new(config.seed, 2));
    tables::write_items(&catalogue, config.end, &out.join("items.parquet"))?;
    tables::write_users(&people, &out.join("users.parquet"))?;

    let mut dirt = Dirt::new(config.dirty);
    let mut n_sessions = 0;
    let mut events = Vec::new();
    for number in 0..config.days {
        let days_before_end = config.days - 1 - number;
        let date = config.end - Days::new(u64::from(days_before_end));
        let upto = |days: u32| config.events * u64::from(days) / u64::from(config.days);
        let day = Day {
            start_us: date.and_time(NaiveTime::MIN).and_utc().timestamp_micros(),
            days_before_end,
            n_events: (upto(number + 1) - upto(number)) as usize,
        };
        let mut random = Random::new(config.seed, 1000 + u64::from(number));
        sessions::visits(&day, &catalogue, &people, &mut random, &mut n_sessions, &mut events);
        dirt.plant(&mut events, &mut random);
        let folder = out.join("events").join(format!("event_date={date}"));
        fs::create_dir_all(&folder).map_err(|source| Error::Write { path: folder.clone(), source })?;
        tables::write_events(&events, &catalogue, &folder.join("part-0.parquet"))?;
    }

    let reasons: BTreeMap<_, _> = dirt.counts().map(|(flaw, count)| (flaw.reason(), count)).collect();
    let planted =
        Planted { events: config.events, clean: config.events - reasons.values().sum::<u64>(), reasons };
    let path = out.join("planted.json");
    fs::write(&path, planted.to_json()).map_err(|source| Error::Write { path, source })?;
    Ok(planted)
}

impl Planted {
    fn to_json(&self) -> String {
        let json = serde_json::json!({ "events": self.events, "clean": self.clean, "reasons": self.reasons });
        format!("{json:#}\n")
    }
}

fn check(config: &Shop) -> Result<(), Error> {
    let refuse = |key, expected, found: String| Err(Error::Config { key, expected, found });
    if config.users == 0 {
        return refuse("users", "at least 1", config.users.to_string());
    }
    if config.items == 0 {
        return refuse("items", "at least 1", config.items.to_string());
    }
    if !(1..=3650).contains(&config.days) {
        return refuse("days", "a number from 1 to 3650", config.days.to_string());
    }
    if !(0.0..=0.5).contains(&config.dirty) {
        return refuse("dirty", "a share from 0 to 0.5", config.dirty.to_string());
    }
    Ok(())
}

fn make_empty(out: &Path) -> Result<(), Error> {
    let failed = |source| Error::Write { path: out.to_owned(), source };
    fs::create_dir_all(out).map_err(failed)?;
    match fs::read_dir(out).map_err(failed)?.next() {
        Some(_) => Err(Error::NotEmpty { path: out.to_owned() }),
        None => Ok(()),
    }
}
