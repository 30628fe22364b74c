//! The search for better keys: models fitted again one at a time, weights learned anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{Float64Type, UInt32Type};

use crate::error::Error;
use crate::job::{self, Job};
use crate::lake::table::{self, Layout};
use crate::learning::Gain;
use crate::matrix::{Csr, Dense};
use crate::ranking::Source;
use crate::tuning::{self, Block, Trial};
use crate::{factor, lake, learning, linear, publish, repeat};

use super::Event;
use super::history::History;
use super::learn::Lesson;
use super::learned::{Learned, Spectral, wanted};
use super::stages::Night;

/// What a search may cost.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// No trial begins later than this after the first.
    pub time: Duration,
    /// The most trials.
    pub trials: usize,
}

/// What a search came to.
pub struct Search {
    /// What was found, for people.
    pub report: String,
    /// Every trial, as Parquet.
    pub trials: PathBuf,
    /// The keys that changed, where any did.
    pub tuned: Option<PathBuf>,
    /// Since the command began.
    pub elapsed: Duration,
}

/// A trial as it is kept, with what it reached.
struct Tried {
    trial: Trial,
    ndcg: f64,
    seconds: f64,
}

impl Night<'_> {
    pub(super) fn tune(&mut self, budget: Budget, began: Instant) -> Result<Search, Error> {
        let spec = &self.job.spec;
        let folder = self.job.place.root().join("tuning");
        self.job.place.fetch(&folder)?;
        let (path, tuned) = (folder.join("trials.parquet"), folder.join("tuned.toml"));
        let search = self
            .models_fingerprint("tune", &["behavior", "catalog", "encode", "factorize"])
            .add("learning", &serde_json::json!(spec.learning).to_string())
            .hex();
        let ids = self.ids()?;
        let (window, truth) = self.lesson(&ids)?;
        let mut learned = self.learned("tune", window, None)?;
        let eligible = self.eligible(&learned.history)?;
        let hides_seen = self.hides_seen(self.inputs.valid.is_some())?;
        let lesson = Lesson::new(&self.job.spec, &learned, &truth, &eligible, hides_seen);
        self.choose_recency(&mut learned, &lesson)?;

        // What an earlier search of another job found says nothing of this one.
        let mut tried = read(&path, &search)?;
        if tried.is_empty() && tuned.exists() {
            std::fs::remove_file(&tuned)
                .map_err(|source| lake::Error::from(table::Error::Io { path: tuned.clone(), source }))?;
        }
        // Gains of an earlier search are taken as they are; its best keys are fitted again.
        let mut best: BTreeMap<&'static str, f64> = BTreeMap::new();
        for block in &tuning::BLOCKS {
            let kept = tried.iter().rev().find(|tried| tried.trial.block == block.name && tried.trial.kept);
            if let Some(kept) = kept {
                best.extend(block.keys.iter().map(|key| key.name).zip(kept.trial.values.iter().copied()));
                let part = self.refit(&learned, window, block, &self.job.with(&sets(&best))?)?;
                learned.swap(part);
            }
        }
        let mut proposals = BTreeMap::new();
        for source in learned.present() {
            proposals.insert(source, lesson.proposals(&learned, source)?);
        }
        let mut users = measure(&lesson, &learned, &proposals, &self.job.spec.learning)?;
        // What it takes to have something to search is no search.
        let searching = Instant::now();
        let mut ndcg = Gain::of(&users).mean;
        let first = tried.first().map_or(ndcg, |tried| tried.ndcg - tried.trial.gain);
        if !tried.is_empty() {
            self.tell(tried.len(), &format!("goes on from here, NDCG {ndcg:.4}"));
        }
        while tried.len() < budget.trials && searching.elapsed() < budget.time {
            let trials: Vec<Trial> = tried.iter().map(|tried| tried.trial.clone()).collect();
            let own = |key: &tuning::Key| self.job.number(key.name);
            let allowed = |block: &Block| learned.has(block);
            let Some((block, values)) = tuning::propose(&trials, allowed, own, self.job.spec.seed)? else {
                break;
            };
            let started = Instant::now();
            let mut keys = best.clone();
            keys.extend(block.keys.iter().map(|key| key.name).zip(values.iter().copied()));
            let part = self.refit(&learned, window, block, &self.job.with(&sets(&keys))?)?;
            let sources = part.sources(&learned);
            let before = learned.swap(part);
            let mut old = BTreeMap::new();
            for source in sources {
                if let Some(lists) = proposals.insert(source, lesson.proposals(&learned, source)?) {
                    old.insert(source, lists);
                }
            }
            let reached = measure(&lesson, &learned, &proposals, &self.job.spec.learning)?;
            let gains: Vec<f64> = reached.iter().zip(&users).map(|(new, old)| new - old).collect();
            let gain = Gain::of(&gains);
            let (kept, reached_ndcg) = (gain.is_clear(), Gain::of(&reached).mean);
            if kept {
                (users, ndcg, best) = (reached, reached_ndcg, keys);
            } else {
                learned.swap(before);
                proposals.extend(old);
            }
            let seconds = started.elapsed().as_secs_f64();
            let named: Vec<String> = block
                .keys
                .iter()
                .zip(&values)
                .map(|(key, value)| format!("{} {}", key.name, key.text(*value)))
                .collect();
            let mark = if kept { "better" } else { "no better" };
            let note = format!(
                "{seconds:.1} s  {}: NDCG {reached_ndcg:.4}, {mark}; best {ndcg:.4}",
                named.join(", ")
            );
            self.tell(tried.len() + 1, &note);
            let trial = Trial { block: block.name.to_owned(), values, gain: gain.mean, kept };
            tried.push(Tried { trial, ndcg: reached_ndcg, seconds });
            write(&path, &search, &tried)?;
        }
        let mut report = format!("{} trials; NDCG {first:.4} before, {ndcg:.4} after\n", tried.len());
        for (name, value) in &best {
            let own = self.job.number(name).map_or_else(|| "open".to_owned(), |own| own.to_string());
            report += &format!("  {name:<34} {own:>9} -> {value}\n");
        }
        let changed = !best.is_empty();
        if changed {
            publish::write_whole(&tuned, "tune", job::overlay(&sets(&best))?.as_bytes())?;
        }
        if folder.exists() {
            self.job.place.send(&folder)?;
        }
        Ok(Search { report, trials: path, tuned: changed.then_some(tuned), elapsed: began.elapsed() })
    }

    fn tell(&mut self, number: usize, note: &str) {
        (self.on_event)(Event::Tried { number, note });
    }

    /// A block's model under a job's keys.
    fn refit(&self, learned: &Learned, window: &str, block: &Block, job: &Job) -> Result<Part, Error> {
        let (spec, history) = (&job.spec, &learned.history);
        let source = source_of(block);
        Ok(match source {
            None => self.recent(history, spec.linear.recency.unwrap_or(linear::RECENCY))?,
            Some(Source::Factors) => {
                let config = spec.factors.config(&history.interactions);
                let mut factors = factor::factorize(
                    &history.interactions,
                    &config,
                    factor::Start::Drawn,
                    spec.seed,
                    &mut |_| {},
                )?;
                learned.inherit_rows(&mut factors.items);
                Part::Factors((factors.users, factors.items))
            }
            Some(source @ Source::Repeat) => {
                let visits = self.visits(window)?.unwrap_or_default();
                Part::Own(source, repeat::fit(&history.interactions, &visits, &spec.repeat)?)
            }
            Some(source) => {
                let wanted = wanted(|other| other == source);
                let (interactions, steps) = (&history.interactions, &history.steps);
                let models = linear::fit(interactions, steps, wanted, &spec.linear, spec.seed, &mut |_| {})?;
                match models.spectral {
                    Some(matrices) => {
                        let mut spectral = Spectral::new(matrices, &learned.recent);
                        learned.inherit_rows(&mut spectral.outputs);
                        Part::Spectral(Some(spectral))
                    }
                    None => Part::Linear(source, Box::new(models)),
                }
            }
        })
    }

    /// Histories as linear sources are applied to them.
    pub(super) fn recent(&self, history: &History, recency: f64) -> Result<Part, Error> {
        let recent = history.recent(recency);
        let content = self.content(&recent, &history.searches)?.map(|content| content.0);
        Ok(Part::Recent(recent, content))
    }
}

/// The source that a block belongs to; what all linear sources share belongs to none.
fn source_of(block: &Block) -> Option<Source> {
    Source::ALL.into_iter().find(|source| source.name() == block.name)
}

/// What one block of keys decides.
pub(super) enum Part {
    Factors((Dense, Dense)),
    /// What linear sources are applied to, and users' embeddings.
    Recent(Csr, Option<Dense>),
    Own(Source, Csr),
    Spectral(Option<Spectral>),
    Linear(Source, Box<linear::Models>),
}

impl Part {
    /// The sources whose scores it changes.
    fn sources(&self, learned: &Learned) -> Vec<Source> {
        match self {
            Self::Factors(_) => vec![Source::Factors],
            Self::Recent(..) => {
                let recent = |source: &Source| {
                    !matches!(source, Source::Factors | Source::Popularity | Source::Trend | Source::Peers)
                        && !learned.own.iter().any(|own| own.0 == *source)
                };
                learned.present().into_iter().filter(recent).collect()
            }
            Self::Own(source, _) | Self::Linear(source, _) => vec![*source],
            Self::Spectral(_) => vec![Source::Spectral],
        }
    }
}

impl Learned {
    /// Whether a block's keys change anything here.
    fn has(&self, block: &Block) -> bool {
        match source_of(block) {
            Some(source) => self.present().contains(&source),
            None => !self.history.steps.is_empty(),
        }
    }

    /// Puts a part in the place of what was there.
    pub(super) fn swap(&mut self, part: Part) -> Part {
        match part {
            Part::Factors(factors) => Part::Factors(std::mem::replace(&mut self.factors, factors)),
            Part::Recent(recent, mut users) => {
                let old = std::mem::replace(&mut self.recent, recent);
                if let (Some(content), Some(users)) = (&mut self.content, &mut users) {
                    std::mem::swap(&mut content.0, users);
                }
                if let Some(spectral) = &mut self.spectral {
                    spectral.users = linear::project(&self.recent, &spectral.inputs);
                }
                Part::Recent(old, users)
            }
            Part::Own(source, mut own) => {
                for (_, there) in self.own.iter_mut().filter(|there| there.0 == source) {
                    std::mem::swap(there, &mut own);
                }
                Part::Own(source, own)
            }
            Part::Spectral(spectral) => Part::Spectral(std::mem::replace(&mut self.spectral, spectral)),
            Part::Linear(source, mut models) => {
                let there = &mut self.linear;
                match source {
                    Source::Ease => std::mem::swap(&mut there.ease, &mut models.ease),
                    Source::Walk => std::mem::swap(&mut there.walk, &mut models.walk),
                    Source::Cosine => std::mem::swap(&mut there.cosine, &mut models.cosine),
                    Source::Peers => std::mem::swap(&mut there.peers, &mut models.peers),
                    _ => std::mem::swap(&mut there.sequence, &mut models.sequence),
                }
                self.inherit_columns(source);
                Part::Linear(source, models)
            }
        }
    }
}

/// Each user's NDCG of the fusion under weights that were not learned from that user.
fn measure(
    lesson: &Lesson<'_>,
    learned: &Learned,
    proposals: &BTreeMap<Source, Vec<Vec<u32>>>,
    config: &learning::Config,
) -> Result<Vec<f64>, Error> {
    let groups = lesson.groups(learned, proposals.values())?;
    let everybody = learning::Config { segment_users: usize::MAX, ..config.clone() };
    Ok(learning::learn(&groups, learned.present().len(), &everybody).crossed)
}

/// Keys as `--set` has them.
fn sets(keys: &BTreeMap<&'static str, f64>) -> Vec<String> {
    let key = |name: &str| tuning::BLOCKS.iter().flat_map(|block| block.keys).find(|key| key.name == name);
    keys.iter().filter_map(|(name, value)| Some(format!("{name}={}", key(name)?.text(*value)))).collect()
}

/// The trials of an earlier search of the same job and data.
fn read(path: &Path, search: &str) -> Result<Vec<Tried>, Error> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let rows = lake::read(path, &["search", "trial", "source", "value", "ndcg", "gain", "kept", "seconds"])?;
    let text = |at: usize, row: usize| rows.column(at).as_string::<i32>().value(row).to_owned();
    let number = |at: usize, row: usize| rows.column(at).as_primitive::<Float64Type>().value(row);
    let mut tried: Vec<Tried> = Vec::new();
    for row in (0..rows.num_rows()).filter(|row| text(0, *row) == search) {
        let at = rows.column(1).as_primitive::<UInt32Type>().value(row) as usize;
        if at > tried.len() {
            let (gain, kept) = (number(5, row), rows.column(6).as_boolean().value(row));
            let trial = Trial { block: text(2, row), values: Vec::new(), gain, kept };
            tried.push(Tried { trial, ndcg: number(4, row), seconds: number(7, row) });
        }
        if let Some(last) = tried.last_mut() {
            last.trial.values.push(number(3, row));
        }
    }
    Ok(tried)
}

/// A trial's number, the trial, one of its keys, and the key's value.
type Row<'a> = (usize, &'a Tried, &'a str, f64);

/// Writes every trial, a row a key; the file is whole or as it was.
fn write(path: &Path, search: &str, tried: &[Tried]) -> Result<(), Error> {
    let rows: Vec<Row<'_>> = tried
        .iter()
        .enumerate()
        .flat_map(|(at, tried)| {
            let block = tuning::BLOCKS.iter().find(|block| block.name == tried.trial.block);
            let keys = block.map_or(&[][..], |block| block.keys);
            keys.iter().zip(&tried.trial.values).map(move |(key, value)| (at + 1, tried, key.name, *value))
        })
        .collect();
    let text = |of: &dyn Fn(&Row<'_>) -> String| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(of(row))).collect::<StringArray>())
    };
    let number = |of: &dyn Fn(&Row<'_>) -> f64| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(of(row))).collect::<Float64Array>())
    };
    let kept = rows.iter().map(|row| Some(row.1.trial.kept)).collect::<BooleanArray>();
    let trials = rows.iter().map(|row| Some(row.0 as u32)).collect::<UInt32Array>();
    let batch = RecordBatch::try_from_iter([
        ("search", text(&|_| search.to_owned())),
        ("trial", Arc::new(trials) as ArrayRef),
        ("source", text(&|row| row.1.trial.block.clone())),
        ("key", text(&|row| row.2.to_owned())),
        ("value", number(&|row| row.3)),
        ("ndcg", number(&|row| row.1.ndcg)),
        ("gain", number(&|row| row.1.trial.gain)),
        ("kept", Arc::new(kept)),
        ("seconds", number(&|row| row.1.seconds)),
    ])?;
    let mut writer =
        table::Writer::create(path, batch.schema(), &Layout::default()).map_err(lake::Error::from)?;
    writer.write(&batch).map_err(lake::Error::from)?;
    writer.finish().map_err(lake::Error::from)?;
    Ok(())
}
