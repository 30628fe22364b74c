//! The rank and evaluate stages: fused lists of users, queries and segments, and how good they are.

use std::path::Path;

use arrow::array::ArrayRef;
use rayon::prelude::*;
use serde_json::json;

use crate::error::Error;
use crate::evaluation::{self, Split, System};
use crate::lake::table::{self, Layout};
use crate::lake::{self};
use crate::matrix::{Csr, Dense};
use crate::ranking::{self, Fusion, Ranked, Reason, Source, Weights};
use crate::{factor, profile, retrieval};

use super::history::{self, History};
use super::lists::{self, IdColumn};
use super::stages::{BLOCK_ROWS, Night, Report};

/// What one window's users and items have in each source.
struct Learned {
    factors: (Dense, Dense),
    content: Option<(Dense, Dense)>,
    history: History,
}

impl Learned {
    fn sources<'a>(&'a self, eligible: &'a [bool]) -> ranking::Sources<'a> {
        ranking::Sources {
            factors: Some((&self.factors.0, &self.factors.1)),
            content: self.content.as_ref().map(|(users, items)| (users, items)),
            segments: &self.history.segments,
            popularity: &self.history.popularity,
            history: &self.history.interactions,
            eligible,
        }
    }
}

/// Retrieves some users' lists.
fn retrieve(
    fusion: &Fusion,
    learned: &Learned,
    eligible: &[bool],
    users: &[u32],
    top_k: usize,
    exclude_seen: bool,
) -> Result<retrieval::TopK, Error> {
    let (queries, sparse) = (fusion.queries(users), fusion.sparse(users));
    let seen = exclude_seen.then(|| learned.history.interactions.select(users));
    let request = retrieval::Request {
        queries: &queries,
        items: fusion.items(),
        eligible: Some(eligible),
        seen: seen.as_ref(),
        sparse: sparse.as_ref(),
        exclude_self: false,
        top_k,
    };
    Ok(retrieval::retrieve(&request, &mut |_| {})?)
}

impl Night<'_> {
    fn learned(&self, window: &str) -> Result<Learned, Error> {
        let ids = self.ids()?;
        let history = self.history(window, &ids)?;
        let content = self.content(&history)?;
        Ok(Learned { factors: self.factors(window)?, content, history })
    }

    /// Users' and items' embeddings, where texts are embedded.
    fn content(&self, history: &History) -> Result<Option<(Dense, Dense)>, Error> {
        let Some(embeddings) = self.embeddings()? else { return Ok(None) };
        let n_items = embeddings.items.n_rows();
        let no_terms = Csr::from_coordinates(n_items, 0, &[], &[], &[])?;
        let inputs = profile::Inputs {
            history: &history.interactions,
            items: Some(&embeddings.items),
            searches: Some((&history.searches, &embeddings.queries)),
            categories: &vec![None; n_items],
            brands: &vec![None; n_items],
            prices: &vec![None; n_items],
            terms: &no_terms,
        };
        let profiles = profile::profile(&inputs, &self.job.spec.profile)?;
        Ok(profiles.embeddings.map(|users| (users, embeddings.items)))
    }

    pub(super) fn rank(&mut self) -> Result<(), Error> {
        let spec = &self.job.spec;
        let fingerprint = self
            .fingerprint("rank", &["behavior", "catalog", "encode", "factorize"])
            .add("config", &json!(spec.ranking).to_string())
            .add("profile", &json!(spec.profile).to_string())
            .add("threads", &spec.threads.to_string())
            .add("buckets", &spec.publish.buckets.0.to_string());
        self.stage("rank", fingerprint.hex(), |night, folder| {
            let learned = night.learned("full")?;
            let catalog = night.catalog_rows()?;
            let config = &night.job.spec.ranking;
            let fusion = ranking::fuse(learned.sources(&catalog.eligible), &config.weights)?;
            let ids = night.ids()?;
            let tables = Tables {
                users: night.user_ids(&ids),
                items: night.item_ids(&ids),
                titles: catalog.titles.clone(),
                verbs: night.job.spec.behavior.verbs(),
            };
            let n_users = tables.users.len();
            let mut writers = BucketWriters::new(folder, night.job.spec.publish.buckets.0);
            let all: Vec<u32> = (0..n_users as u32).collect();
            let mut n_rows = 0;
            for users in all.chunks(BLOCK_ROWS) {
                let top_k = config.top_k.get();
                let found =
                    retrieve(&fusion, &learned, &catalog.eligible, users, top_k, config.exclude_seen)?;
                let explained: Vec<Vec<Ranked>> = users
                    .par_iter()
                    .enumerate()
                    .map(|(at, user)| {
                        let (items, scores) = found.list(at);
                        fusion.explain(*user as usize, items, scores)
                    })
                    .collect();
                n_rows += writers.write(&tables, &learned.history, users, &explained)?;
                let done = users.last().map_or(0, |last| *last as usize + 1);
                night.progress("rank", done, n_users, "users");
            }
            writers.finish()?;
            let n_queries = night.query_items(folder, &learned, &catalog.eligible)?;
            popular_items(folder, &tables.items, &learned.history, &catalog.eligible, config.top_k.get())?;
            let note = format!("{n_rows} rows for {n_users} users, lists for {n_queries} queries");
            Ok(Report { facts: json!({ "rows": n_rows, "users": n_users, "queries": n_queries }), note })
        })
    }

    /// Items for each search: what users turned to after it, and what its words resemble.
    fn query_items(&self, folder: &Path, learned: &Learned, eligible: &[bool]) -> Result<usize, Error> {
        let ids = self.ids()?;
        let items = self.item_ids(&ids);
        let (n_queries, n_items) = (ids.queries.len(), items.len());
        let behavior = history::query_items(&self.folder("behavior"), n_queries, n_items)?;
        // The most turned-to item of a search counts as much as an identical text.
        let behavior = behavior.map_rows(|values| {
            let most = values.iter().copied().fold(0.0, f32::max).ln_1p();
            values.iter_mut().for_each(|value| *value = value.ln_1p() / most.max(f32::MIN_POSITIVE));
        });
        let embeddings = self.embeddings()?;
        let none = || (Dense::zeros(n_queries, 0), Dense::zeros(n_items, 0));
        let (queries, vectors) =
            embeddings.map_or_else(none, |embeddings| (embeddings.queries, embeddings.items));
        let has_text = vectors.n_cols() > 0;
        // Without texts an item nobody turned to after the search has nothing to do with it.
        let request = retrieval::Request {
            queries: &queries,
            items: &vectors,
            eligible: Some(eligible),
            seen: None,
            sparse: Some(&behavior),
            exclude_self: false,
            top_k: self.job.spec.ranking.top_k.get(),
        };
        let found = retrieval::retrieve(&request, &mut |_| {})?;
        let path = folder.join("query_items/part.parquet");
        let layout = Layout {
            sorted_by: vec!["query".to_owned(), "rank".to_owned()],
            bloom: vec!["query".to_owned()],
            ..Layout::default()
        };
        let query_ids = IdColumn::new(ids.queries.clone(), arrow::datatypes::DataType::Utf8);
        let block = |queries_at: std::ops::Range<usize>| {
            let mut rows: Vec<(u32, u32, f32, f32)> = Vec::new();
            let mut lengths = Vec::new();
            for query in queries_at {
                let (items, scores) = found.list(query);
                let (turned_to, strength) = behavior.row(query);
                let before = rows.len();
                for (item, score) in items.iter().zip(scores) {
                    let own = turned_to.binary_search(item).map_or(0.0, |at| strength[at]);
                    if has_text || own > 0.0 {
                        rows.push((query as u32, *item, *score, own));
                    }
                }
                lengths.push(rows.len() - before);
            }
            lists::batch(
                vec![
                    ("query", query_ids.take(rows.iter().map(|row| Some(row.0)))?),
                    ("rank", lists::ranks(lengths)),
                    ("item_id", items.take(rows.iter().map(|row| Some(row.1)))?),
                    ("score", lists::floats(rows.iter().map(|row| row.2))),
                    ("content_score", lists::floats(rows.iter().map(|row| row.2 - row.3))),
                    ("behavior_score", lists::floats(rows.iter().map(|row| row.3))),
                ],
                &[],
            )
        };
        let mut writer =
            table::Writer::create(&path, block(0..0)?.schema(), &layout).map_err(lake::Error::from)?;
        for start in (0..n_queries).step_by(BLOCK_ROWS) {
            let rows = block(start..(start + BLOCK_ROWS).min(n_queries))?;
            writer.write(&rows).map_err(lake::Error::from)?;
        }
        writer.finish().map_err(lake::Error::from)?;
        let _ = learned;
        Ok(n_queries)
    }

    pub(super) fn evaluate(&mut self) -> Result<(), Error> {
        let spec = &self.job.spec;
        let fingerprint = self
            .fingerprint("evaluate", &["rank"])
            .add("config", &json!(spec.evaluation).to_string())
            .add("factors", &json!(spec.factors).to_string())
            .add("seed", &spec.seed.to_string());
        self.stage("evaluate", fingerprint.hex(), |night, folder| {
            let (config, seed) = (&night.job.spec.evaluation, night.job.spec.seed);
            if !config.enabled {
                return Ok(Report { facts: json!({}), note: "off".to_owned() });
            }
            let (learned, truth) = night.past_and_truth()?;
            let users: Vec<u32> =
                (0..truth.n_rows() as u32).filter(|user| !truth.row(*user as usize).0.is_empty()).collect();
            if users.is_empty() {
                return Ok(Report { facts: json!({}), note: "no user has held-out items".to_owned() });
            }
            let catalog = night.catalog_rows()?;
            let systems = night.systems(&learned, &catalog.eligible, &users)?;
            let embeddings = night.embeddings()?.map(|embeddings| embeddings.items);
            let inputs = evaluation::Inputs {
                users: &users,
                truth: &truth,
                seen: &learned.history.interactions,
                popularity: &learned.history.n_users_of_item,
                segments: &learned.history.segments,
                segment_names: &learned.history.segment_names,
                embeddings: embeddings.as_ref(),
                eligible: &catalog.eligible,
                systems: &systems,
            };
            let metrics = evaluation::evaluate(&inputs, config, seed)?;
            let rows = lists::metrics(&metrics)?;
            let path = folder.join("metrics/part.parquet");
            let mut writer =
                table::Writer::create(&path, rows.schema(), &Layout::default()).map_err(lake::Error::from)?;
            writer.write(&rows).map_err(lake::Error::from)?;
            writer.finish().map_err(lake::Error::from)?;
            let k = config.ks.first().copied().unwrap_or(10);
            let text = evaluation::table(&metrics, k, "all").map_err(evaluation::Error::from)?;
            let note = format!("{} users with held-out items", users.len());
            Ok(Report { facts: json!({ "table": text, "users": users.len() }), note })
        })?;
        self.metrics = self.done["evaluate"].facts["table"].as_str().map(str::to_owned);
        Ok(())
    }

    /// What was learned before the cut, and what came after it; without usable times a seeded random
    /// share of each user's items.
    fn past_and_truth(&mut self) -> Result<(Learned, Csr), Error> {
        let ids = self.ids()?;
        let behavior = self.folder("behavior");
        if self.behavior_facts()?.windows.iter().any(|window| window.name == "train") {
            let truth = history::held_out(&behavior, ids.users.len(), ids.items.len())?;
            return Ok((self.learned("train")?, truth));
        }
        let (spec, mut history) = (&self.job.spec, self.history("full", &ids)?);
        let split = Split::random(&history.interactions, spec.evaluation.test_share, spec.seed)?;
        history.keep_only(split.train);
        let factors = factor::factorize(&history.interactions, &spec.factors, spec.seed, &mut |_| {})?;
        let content = self.content(&history)?;
        Ok((Learned { factors: (factors.users, factors.items), content, history }, split.test))
    }

    /// The published fusion, each source alone, and the user's own history.
    fn systems(&mut self, learned: &Learned, eligible: &[bool], users: &[u32]) -> Result<Vec<System>, Error> {
        let config = &self.job.spec.ranking;
        let alone = |source: Source| Weights {
            factors: f32::from(source == Source::Factors),
            content: f32::from(source == Source::Content),
            popularity: f32::from(source == Source::Popularity),
            history: 0.0,
        };
        let mut compared = vec![("fused", config.weights), ("popularity", alone(Source::Popularity))];
        compared.push(("factors", alone(Source::Factors)));
        if learned.content.is_some() {
            compared.push(("content", alone(Source::Content)));
        }
        let top_k = self.job.spec.evaluation.longest();
        let mut systems = Vec::new();
        let n_systems = compared.len();
        for (at, (name, weights)) in compared.into_iter().enumerate() {
            let fusion = ranking::fuse(learned.sources(eligible), &weights)?;
            let mut lists = Vec::with_capacity(users.len());
            for some in users.chunks(BLOCK_ROWS) {
                let found = retrieve(&fusion, learned, eligible, some, top_k, config.exclude_seen)?;
                lists.extend((0..some.len()).map(|at| found.list(at).0.to_vec()));
                self.progress("evaluate", at * users.len() + lists.len(), n_systems * users.len(), "lists");
            }
            systems.push(System { name: name.to_owned(), lists });
        }
        if !config.exclude_seen {
            let lists =
                users.iter().map(|user| own_history(&learned.history, eligible, *user, top_k)).collect();
            systems.push(System { name: "history".to_owned(), lists });
        }
        Ok(systems)
    }
}

/// The user's own items, the heaviest first.
fn own_history(history: &History, eligible: &[bool], user: u32, top_k: usize) -> Vec<u32> {
    let (items, weights) = history.interactions.row(user as usize);
    let mut own: Vec<(u32, f32)> = items.iter().copied().zip(weights.iter().copied()).collect();
    own.retain(|(item, _)| eligible[*item as usize]);
    own.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    own.truncate(top_k);
    own.into_iter().map(|(item, _)| item).collect()
}

/// The fallback lists: the most popular items of each segment, and of `all`.
fn popular_items(
    folder: &Path,
    items: &IdColumn,
    history: &History,
    eligible: &[bool],
    top_k: usize,
) -> Result<(), Error> {
    let mut named: Vec<(String, Vec<f32>)> = Vec::new();
    let n_items = items.len();
    let weights = |of: &dyn Fn(usize) -> f32| (0..n_items).map(of).collect::<Vec<f32>>();
    let all = weights(&|item| history.popularity.row(item).iter().map(|log| log.exp_m1()).sum());
    named.push(("all".to_owned(), all));
    for (code, name) in history.segment_names.iter().enumerate() {
        named.push((name.clone(), weights(&|item| history.popularity.row(item)[code].exp_m1())));
    }
    named.sort_by(|a, b| a.0.cmp(&b.0));
    let (mut segments, mut lengths, mut listed, mut scores) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (name, weights) in &named {
        let mut order: Vec<u32> = (0..n_items as u32)
            .filter(|item| eligible[*item as usize] && weights[*item as usize] > 0.0)
            .collect();
        order.sort_by(|a, b| weights[*b as usize].total_cmp(&weights[*a as usize]).then(a.cmp(b)));
        order.truncate(top_k);
        lengths.push(order.len());
        for item in order {
            segments.push(name.as_str());
            listed.push(Some(item));
            scores.push(weights[item as usize]);
        }
    }
    let rows = lists::batch(
        vec![
            ("segment", lists::strings(segments)),
            ("rank", lists::ranks(lengths)),
            ("item_id", items.take(listed)?),
            ("score", lists::floats(scores)),
        ],
        &[],
    )?;
    let layout = Layout { sorted_by: vec!["segment".to_owned(), "rank".to_owned()], ..Layout::default() };
    let path = folder.join("popular_items/part.parquet");
    let mut writer = table::Writer::create(&path, rows.schema(), &layout).map_err(lake::Error::from)?;
    writer.write(&rows).map_err(lake::Error::from)?;
    writer.finish().map_err(lake::Error::from)?;
    Ok(())
}

/// What turns indices into published values.
struct Tables {
    users: IdColumn,
    items: IdColumn,
    titles: arrow::array::StringArray,
    /// What a user did, by the strength of it.
    verbs: Vec<String>,
}

impl Tables {
    fn name(&self, item: u32) -> String {
        use arrow::array::Array;
        let at = item as usize;
        if self.titles.is_valid(at) { self.titles.value(at).to_owned() } else { self.items.text(at) }
    }

    /// One sentence for people, and the item it names.
    fn reason(&self, history: &History, user: u32, row: &Ranked) -> (String, Option<u32>) {
        let verb = |item: u32| {
            let strength = history.strength(user as usize, item).unwrap_or(0);
            self.verbs.get(usize::from(strength)).map_or("chose", String::as_str)
        };
        match row.reason {
            Reason::Again => (format!("you {} it before", verb(row.item)), Some(row.item)),
            Reason::Because { item } => {
                (format!("because you {} {}", verb(item), self.name(item)), Some(item))
            }
            Reason::Similar { item } => {
                (format!("similar to {}, which you {}", self.name(item), verb(item)), Some(item))
            }
            Reason::Popular { segment } => {
                (format!("popular with {} users", history.segment_names[segment as usize]), None)
            }
        }
    }
}

/// One open file a bucket.
struct BucketWriters {
    folder: std::path::PathBuf,
    buckets: u16,
    writers: Vec<Option<table::Writer>>,
}

impl BucketWriters {
    fn new(folder: &Path, buckets: u16) -> Self {
        let writers = (0..buckets).map(|_| None).collect();
        Self { folder: folder.join("recommendations"), buckets, writers }
    }

    fn write(
        &mut self,
        tables: &Tables,
        history: &History,
        users: &[u32],
        lists_of: &[Vec<Ranked>],
    ) -> Result<usize, Error> {
        let mut by_bucket: Vec<Vec<usize>> = vec![Vec::new(); usize::from(self.buckets)];
        for (at, user) in users.iter().enumerate() {
            let bucket = lists::bucket(&tables.users.text(*user as usize), self.buckets);
            by_bucket[usize::from(bucket)].push(at);
        }
        let batches: Vec<Option<arrow::array::RecordBatch>> = by_bucket
            .par_iter()
            .map(|members| {
                let rows: Vec<(u32, &Ranked)> =
                    members.iter().flat_map(|at| lists_of[*at].iter().map(|row| (users[*at], row))).collect();
                if rows.is_empty() {
                    return Ok(None);
                }
                let lengths = members.iter().map(|at| lists_of[*at].len());
                recommendations(tables, history, &rows, lengths).map(Some)
            })
            .collect::<Result<_, Error>>()?;
        let mut n_rows = 0;
        for (bucket, batch) in batches.into_iter().enumerate() {
            let Some(batch) = batch else { continue };
            n_rows += batch.num_rows();
            let open = match self.writers[bucket].take() {
                Some(writer) => writer,
                None => {
                    let path = self.folder.join(format!("bucket={bucket:02}")).join("part.parquet");
                    let layout = Layout {
                        sorted_by: vec!["user_id".to_owned(), "rank".to_owned()],
                        bloom: vec!["user_id".to_owned()],
                        ..Layout::default()
                    };
                    table::Writer::create(&path, batch.schema(), &layout).map_err(lake::Error::from)?
                }
            };
            self.writers[bucket].insert(open).write(&batch).map_err(lake::Error::from)?;
        }
        Ok(n_rows)
    }

    fn finish(self) -> Result<(), Error> {
        for writer in self.writers.into_iter().flatten() {
            writer.finish().map_err(lake::Error::from)?;
        }
        Ok(())
    }
}

fn recommendations(
    tables: &Tables,
    history: &History,
    rows: &[(u32, &Ranked)],
    lengths: impl Iterator<Item = usize>,
) -> Result<arrow::array::RecordBatch, Error> {
    let reasons: Vec<(String, Option<u32>)> =
        rows.iter().map(|(user, row)| tables.reason(history, *user, row)).collect();
    let contribution = |source: Source| -> ArrayRef {
        lists::floats(rows.iter().map(|(_, row)| row.contributions[source as usize]))
    };
    lists::batch(
        vec![
            ("user_id", tables.users.take(rows.iter().map(|(user, _)| Some(*user)))?),
            ("rank", lists::ranks(lengths)),
            ("item_id", tables.items.take(rows.iter().map(|(_, row)| Some(row.item)))?),
            ("score", lists::floats(rows.iter().map(|(_, row)| row.score))),
            ("factors_score", contribution(Source::Factors)),
            ("content_score", contribution(Source::Content)),
            ("popularity_score", contribution(Source::Popularity)),
            ("history_score", contribution(Source::History)),
            ("source", lists::strings(rows.iter().map(|(_, row)| row.strongest.name()))),
            ("reason", lists::strings(reasons.iter().map(|reason| reason.0.as_str()))),
            ("reason_item_id", tables.items.take(reasons.iter().map(|reason| reason.1))?),
            ("arm", lists::strings(rows.iter().map(|_| "default"))),
        ],
        &["reason_item_id"],
    )
}
