//! The publish stage: tables into place, a last look at every list, the page, manifest, `CURRENT`.

use std::collections::{BTreeMap, HashMap};

use chrono::{NaiveDate, Utc};

use crate::error::Error;
use crate::job::Job;
use crate::publish::{self, InputFile, Listed, Manifest, Run, State};

use super::Event;
use super::check::Inputs;
use super::lists::IdColumn;
use super::roofline;
use super::stages::Night;

/// Which stage makes which published table.
const TABLES: [(&str, &str); 10] = [
    ("rank", "recommendations"),
    ("neighbors", "similar_items"),
    ("rank", "query_items"),
    ("rank", "popular_items"),
    ("profile", "user_profiles"),
    ("encode", "item_embeddings"),
    ("factorize", "user_factors"),
    ("factorize", "item_factors"),
    ("evaluate", "metrics"),
    ("evaluate", "backtest"),
];

pub(super) fn first_manifest(job: &Job, inputs: &Inputs, run: &Run, date: NaiveDate) -> Manifest {
    let files = inputs.all().flat_map(|(name, input)| {
        input.files.iter().map(move |file| InputFile {
            input: name.to_owned(),
            path: file.path.display().to_string(),
            size: file.size,
            modified_ns: file.modified_ns as u64,
            rows: file.rows,
            etag: file.etag.clone(),
        })
    });
    Manifest {
        lamplighter: env!("CARGO_PKG_VERSION").to_owned(),
        run_id: run.id().to_owned(),
        job: job.spec.name.0.clone(),
        date: date.to_string(),
        started_at: Utc::now().to_rfc3339(),
        job_text: job.text.clone(),
        seed: job.spec.seed,
        pseudonyms: job.access.fingerprint(),
        threads: job.spec.threads,
        inputs: files.collect(),
        ..Manifest::default()
    }
}

impl Night<'_> {
    pub(super) fn publish(&mut self) -> Result<(), Error> {
        let state =
            if self.is_backfill()? && !self.options.make_current { State::Held } else { State::Published };
        self.settle(state)
    }

    /// Whether readers load the list of a later night.
    fn is_backfill(&self) -> Result<bool, Error> {
        let spec = &self.job.spec;
        let current = publish::current(&self.job.place, &spec.name.0)?;
        let runs = publish::list_runs(&self.job.place, &spec.name.0)?;
        let loaded = runs.iter().find(|run| current.as_ref().is_some_and(|current| current.run_id == run.id));
        Ok(loaded.is_some_and(|loaded| loaded.date > self.date))
    }

    /// Removes runs that are too old. What cannot be removed is no reason for a night to fail.
    fn retain(&mut self) {
        match self.output.retain(self.job.spec.publish.keep_runs, &self.run) {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => self.retired = removed,
            Err(error) => (self.on_event)(Event::Warning(&format!("old runs are still there: {error}"))),
        }
    }

    /// Puts the tables in place, checks them and completes the run; readers load it where it is published.
    pub(super) fn settle(&mut self, state: State) -> Result<(), Error> {
        for (stage, table) in TABLES {
            if self.folder(stage).join(table).exists() {
                self.run.publish_table(&self.folder(stage), table)?;
            }
        }
        self.publish_rejected()?;
        self.check_lists()?;
        for (stage, done) in &self.done {
            self.manifest.facts.insert((*stage).to_owned(), done.facts.clone());
        }
        let stages = self.manifest.stages.iter().map(|stage| stage.cost.peak_memory_bytes);
        self.manifest.peak_memory_bytes = stages.fold(peak_memory_bytes(), u64::max);
        roofline::measure(&mut self.manifest);
        self.tell_of_clear_ids()?;
        self.manifest.finished_at = Utc::now().to_rfc3339();
        self.manifest.state = state;
        self.report();
        match state {
            State::Published => self.run.publish(&self.manifest)?,
            State::Refused | State::Held => self.run.complete(&self.manifest)?,
        }
        self.state = Some(state);
        self.retain();
        Ok(())
    }

    /// Runs of before the job had a key still have users' ids as the shop has them.
    fn tell_of_clear_ids(&mut self) -> Result<(), Error> {
        if self.manifest.pseudonyms.is_empty() {
            return Ok(());
        }
        let mut n_clear = 0;
        for run in publish::list_runs(&self.job.place, &self.job.spec.name.0)? {
            // One that cannot be read is another's to complain of.
            let manifest = publish::read_manifest(&run.folder).ok().flatten();
            n_clear += usize::from(manifest.is_some_and(|manifest| manifest.pseudonyms.is_empty()));
        }
        if n_clear > 0 {
            self.warn(format!(
                "{n_clear} runs that are kept have users' ids as the shop has them: they were made without privacy.pseudonym_key"
            ));
        }
        Ok(())
    }

    fn publish_rejected(&mut self) -> Result<(), Error> {
        let sources =
            [("behavior", "rejected.parquet", "events"), ("catalog", "rejected_items.parquet", "items")];
        for (stage, file, source) in sources {
            let from = self.folder(stage).join(file);
            if from.exists() {
                self.run.publish_file(&from, &format!("rejected/source={source}/part.parquet"))?;
            }
        }
        Ok(())
    }

    /// Asserts what readers rely on, from the files as they were written.
    fn check_lists(&mut self) -> Result<(), Error> {
        let ids = self.ids()?;
        let (users, items) = (self.user_ids(&ids), self.item_ids(&ids));
        let catalog = self.catalog_rows()?;
        let places = Places::new(&items);
        let not_eligible = |item: &str| match places.of(item) {
            Some(at) if catalog.eligible[at] => None,
            Some(_) => Some("it is not eligible"),
            None => Some("it is not in the catalogue"),
        };
        let seen = self.job.spec.ranking.exclude_seen.then(|| self.history("full", &ids)).transpose()?;
        let user_places = Places::new(&users);
        let refused_to_user = |key: &[String], item: &str| {
            let (Some(seen), Some(user), Some(at)) = (&seen, user_places.of(&key[0]), places.of(item)) else {
                return not_eligible(item);
            };
            let (own, _) = seen.interactions.row(user);
            if own.binary_search(&(at as u32)).is_ok() {
                return Some("the user has seen it");
            }
            not_eligible(item)
        };
        let refused = |_: &[String], item: &str| not_eligible(item);
        let itself = |key: &[String], item: &str| {
            if key[0] == item { Some("it is the item itself") } else { not_eligible(item) }
        };
        let listed = [
            Listed {
                table: "recommendations",
                keys: &["user_id"],
                item: "item_id",
                refuses: &refused_to_user,
            },
            Listed {
                table: "similar_items",
                keys: &["item_id", "relation"],
                item: "similar_item_id",
                refuses: &itself,
            },
            Listed { table: "query_items", keys: &["query"], item: "item_id", refuses: &refused },
            Listed { table: "popular_items", keys: &["segment"], item: "item_id", refuses: &refused },
        ];
        let folder = self.run.folder();
        let mut tables: BTreeMap<String, publish::TableRecord> = BTreeMap::new();
        for listed in &listed {
            tables.insert(listed.table.to_owned(), publish::check(&folder, listed)?);
        }
        let counted = [
            "user_profiles",
            "item_embeddings",
            "user_factors",
            "item_factors",
            "metrics",
            "backtest",
            "rejected",
        ];
        for table in counted {
            if folder.join(table).exists() {
                tables.insert(table.to_owned(), publish::count(&folder.join(table))?);
            }
        }
        self.manifest.tables = tables;
        Ok(())
    }
}

/// Ids as text to their position.
struct Places(HashMap<String, usize>);

impl Places {
    fn new(ids: &IdColumn) -> Self {
        Self((0..ids.len()).map(|at| (ids.text(at), at)).collect())
    }

    fn of(&self, id: &str) -> Option<usize> {
        self.0.get(id).copied()
    }
}

/// The process's highest resident memory since it was last forgotten; 0 where the system does not tell.
pub(super) fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
