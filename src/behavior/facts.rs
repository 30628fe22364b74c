//! What the room finds out and counts: every event is kept, rejected or excluded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Error;

/// The span of time that one set of model inputs is made from: everything before `until`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Window {
    /// The folder's name.
    pub name: String,
    /// Exclusive end, in microseconds since 1970 UTC; also the moment ages are counted from.
    pub until_us: i64,
    /// In how many days a weight halves; nothing where times tell nothing.
    pub half_life_days: Option<f64>,
}

/// What was found and counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Facts {
    /// Event rows read.
    pub read: u64,
    /// Event rows that count.
    pub kept: u64,
    /// Faulty rows by reason; each is in `rejected.parquet`.
    pub rejected: BTreeMap<String, u64>,
    /// Rows the job does not want, by reason.
    pub excluded: BTreeMap<String, u64>,
    /// The first event up to the run date, in microseconds since 1970 UTC.
    pub first_us: i64,
    /// The last event up to the run date.
    pub last_us: i64,
    /// Whether times differ, so that decay and a temporal evaluation mean something.
    pub usable_times: bool,
    /// Whether equal rows were taken for duplicates.
    pub deduplicated: bool,
    /// Users with an event that counts.
    pub n_users: u64,
    /// Users of the users' table without an event that counts.
    pub n_cold_users: u64,
    /// Rows of the users' table without an id.
    pub n_unnamed_users: u64,
    /// Rows of the users' table whose id an earlier row has.
    pub n_repeated_users: u64,
    /// Some of what the column of consent has that is neither yes nor no.
    #[serde(default)]
    pub unclear_consent: Vec<String>,
    /// Items of the catalogue.
    pub n_items: u64,
    /// Distinct searches.
    pub n_queries: u64,
    /// The windows written; the last one is the whole history.
    pub windows: Vec<Window>,
}

impl Facts {
    /// Counts duplicates, which are among the `numbered` events and among the `rejected`, and the events that count.
    ///
    /// # Errors
    /// If an event was lost: statements of the job's own may not agree on which count.
    pub(super) fn count_kept(&mut self, numbered: u64, rejected: u64) -> Result<(), Error> {
        let faulty: u64 = self.rejected.values().sum();
        let counting = self.read.checked_sub(faulty + self.excluded.values().sum::<u64>());
        let duplicates = rejected.checked_sub(faulty).filter(|duplicates| *duplicates <= numbered);
        let (Some(duplicates), true) = (duplicates, counting == Some(numbered)) else {
            return Err(Error::Result {
                statement: "numbered_events".to_owned(),
                expected: format!(
                    "{} rows, which count by `judged_events` and `bots`, and {faulty} others in `rejected`",
                    counting.unwrap_or_default()
                ),
                found: format!("{numbered} rows, and {rejected} in `rejected`"),
            });
        };
        if duplicates > 0 {
            self.rejected.insert("duplicate".to_owned(), duplicates);
        }
        self.kept = numbered - duplicates;
        Ok(())
    }
}
