//! The room's statements: the files under `sql/behavior/`, or what the job puts in their place.

use std::collections::BTreeMap;

use super::{Config, Error};

/// Statements that a run with a window to learn from and one to evaluate executes, for progress.
pub(super) const COUNT: usize = 16 + 2 + 3 * 9;

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../sql/behavior/", $name, ".sql")))),*]
    };
}

const SHIPPED: [(&str, &str); 28] = shipped![
    "accounting",
    "ages",
    "baskets",
    "bots",
    "checked_events",
    "clock",
    "cold_users",
    "given",
    "held_out",
    "interactions",
    "item_ids",
    "judged_events",
    "known_items",
    "numbered_events",
    "outcomes",
    "popularity",
    "query_ids",
    "query_items",
    "rejected",
    "searches",
    "sessions",
    "tallies",
    "transitions",
    "user_ids",
    "user_rows",
    "users",
    "weighted_events",
    "without_consent",
];

/// Statement texts by name.
pub(super) struct Statements {
    texts: BTreeMap<String, String>,
}

impl Statements {
    pub(super) fn load(config: &Config) -> Result<Self, Error> {
        let mut texts: BTreeMap<String, String> =
            SHIPPED.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        for (name, path) in &config.sql {
            let text = std::fs::read_to_string(path)
                .map_err(|source| Error::Statement { path: path.clone(), source })?;
            texts.insert(name.clone(), text);
        }
        Ok(Self { texts })
    }

    pub(super) fn text(&self, name: &str) -> &str {
        &self.texts[name]
    }
}

/// Every statement's name and shipped text, for fingerprints and for checking the job's names.
pub(super) fn shipped() -> impl Iterator<Item = (&'static str, &'static str)> {
    SHIPPED.into_iter()
}
