//! The rank stage: fused lists of users and queries.

use std::path::Path;

use rayon::prelude::*;
use serde_json::json;

use crate::behavior::EVERYBODY;
use crate::error::Error;
use crate::lake::table::{self, Layout};
use crate::lake::{self};
use crate::matrix::Dense;
use crate::ranking::{self, Ranked, Reason, Source};
use crate::retrieval;

use super::history::{self, History, Ids};
use super::learned::{Lister, users_at_a_time};
use super::lists::{self, IdColumn};
use super::popular;
use super::stages::{BLOCK_ROWS, Night, Report};

impl Night<'_> {
    pub(super) fn rank(&mut self) -> Result<(), Error> {
        let spec = &self.job.spec;
        let fingerprint = self
            .models_fingerprint("rank", &["behavior", "catalog", "encode", "factorize", "learn"])
            .add("lists", &json!(spec.ranking).to_string())
            .add("buckets", &spec.publish.buckets.0.to_string())
            .add("min_users", &spec.privacy.min_users.to_string());
        self.stage("rank", fingerprint.hex(), |night, folder| {
            let weights = night.weights()?;
            let learned = night.learned("rank", "full", Some(&weights))?;
            let mix = weights.mix(&learned.history.segment_names);
            let catalog = night.catalog_rows()?;
            let config = &night.job.spec.ranking;
            let shelf = night.shelf(&learned, &catalog)?;
            let fusion = ranking::fuse(shelf.sources(&learned, &catalog.eligible), &mix)?;
            let ids = night.ids()?;
            let n_users = ids.users.len();
            let (users, mut order) = night.listed_users(&ids)?;
            let known: Vec<bool> = (0..n_users).map(|user| learned.knows(user)).collect();
            let is_known = |user: u32| known.get(user as usize).copied().unwrap_or(false);
            if !config.include_cold {
                order.retain(|user| is_known(*user));
            }
            let tables = Tables {
                users,
                items: night.item_ids(&ids),
                titles: catalog.titles.clone(),
                verbs: night.job.spec.behavior.verbs(),
                segments: learned.history.common_segments(night.job.spec.privacy.min_users),
            };
            let popular = popular::list(&learned.history, &catalog.eligible, &shelf, config.top_k.get());
            let mut writers = BucketWriters::new(folder, night.job.spec.publish.buckets.0);
            let (mut n_rows, mut n_done) = (0, 0);
            let mut lister = Lister::new(&fusion, &learned, &catalog.eligible, config.exclude_seen)?;
            for users in order.chunks(users_at_a_time(ids.items.len())) {
                let warm: Vec<u32> = users.iter().copied().filter(|user| is_known(*user)).collect();
                let lists = shelf.lists(&mut lister, &warm, config.top_k.get())?;
                let found: Vec<ranking::List<'_>> =
                    lists.iter().map(|(items, scores)| (&items[..], &scores[..])).collect();
                let explained = popular::fill(users, is_known, fusion.explain(&warm, &found), &popular);
                n_rows += writers.write(&tables, &learned.history, users, &explained)?;
                n_done += users.len();
                night.progress("rank", n_done, order.len(), "users");
            }
            writers.finish(&tables, &learned.history)?;
            let n_queries = night.query_items(folder, &learned.history, &catalog.eligible)?;
            let wanted = (config.top_k.get(), night.job.spec.privacy.min_users);
            popular::write(folder, &tables.items, &learned.history, &catalog.eligible, wanted)?;
            let n_listed = order.len();
            let n_warm = order.iter().filter(|user| is_known(**user)).count();
            let flops = 2.0 * (n_warm * fusion.n_eligible() * fusion.items().n_cols()) as f64;
            let note = format!("{n_rows} rows for {n_listed} users, lists for {n_queries} queries");
            let buckets = night.job.spec.publish.buckets.0;
            let facts = json!({
                "rows": n_rows, "users": n_listed, "queries": n_queries, "buckets": buckets, "flops": flops
            });
            Ok(Report { facts, note })
        })
    }

    /// The users who get a list, and the order of their ids: those with history, and with
    /// `include_cold` those of the users' table without, numbered after them. Where the two tables' integers are of
    /// different widths, they are of the one that has room for both.
    fn listed_users(&self, ids: &Ids) -> Result<(IdColumn, Vec<u32>), Error> {
        let warm = self.user_ids(ids);
        if !self.job.spec.ranking.include_cold {
            let n_users = warm.len() as u32;
            return Ok((warm, (0..n_users).collect()));
        }
        let path = self.folder("behavior").join("cold_users.parquet");
        let cold = lake::read(&path, &["user_id"])?.column(0).clone();
        let all = arrow::compute::concat(&[&ids.users, &cold])?;
        let order = arrow::compute::sort_to_indices(&all, None, None)?;
        let of_events = &self.inputs.events.id_types["user_id"];
        let is_same = self.inputs.users.as_ref().is_none_or(|users| users.id_types["user_id"] == *of_events);
        let widest = all.data_type().clone();
        let users = if is_same { warm.with(all) } else { IdColumn::new(all, widest) };
        Ok((users, order.values().to_vec()))
    }

    /// Items for each search: what users turned to after it, and what its words resemble. A search of fewer users
    /// than the job's floor has none.
    fn query_items(&self, folder: &Path, history: &History, eligible: &[bool]) -> Result<usize, Error> {
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
        // An item nobody turned to after the search has nothing to do with it but by its text.
        let chance = self.job.spec.encoder.kind.chance(vectors.n_cols());
        let mut index = retrieval::index(&vectors, Some(eligible))?;
        let mut n_users = vec![0_u32; n_queries];
        for user in 0..history.searches.n_rows() {
            history.searches.row(user).0.iter().for_each(|query| n_users[*query as usize] += 1);
        }
        let is_listed = |query: usize| n_users[query] >= self.job.spec.privacy.min_users;
        let path = folder.join("query_items/part.parquet");
        let layout = Layout {
            sorted_by: vec!["query".to_owned(), "rank".to_owned()],
            bloom: vec!["query".to_owned()],
        };
        let query_ids = IdColumn::new(ids.queries.clone(), arrow::datatypes::DataType::Utf8);
        let mut block = |queries_at: std::ops::Range<usize>| {
            let listed: Vec<u32> = queries_at.filter(|at| is_listed(*at)).map(|at| at as u32).collect();
            let (queries, behavior) = (queries.select(&listed), behavior.select(&listed));
            let request = retrieval::Request {
                queries: &queries,
                seen: None,
                sparse: Some(&behavior),
                exclude_self: false,
                top_k: self.job.spec.ranking.top_k.get(),
            };
            let found = index.retrieve(&request, &mut |_| {})?;
            let mut rows: Vec<(u32, u32, f32, f32)> = Vec::new();
            let mut lengths = Vec::new();
            for (at, query) in listed.into_iter().enumerate() {
                // As retrieval makes them.
                let content = |item: u32| {
                    let pairs = queries.row(at).iter().zip(vectors.row(item as usize));
                    pairs.fold(0f32, |sum, (query, item)| query.mul_add(*item, sum))
                };
                let behavior = behavior.row(at);
                let list = of_query(found.list(at), behavior, chance, eligible, content, request.top_k);
                let before = rows.len();
                rows.extend(list.into_iter().map(|(item, score, own)| (query, item, score, own)));
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
        Ok(n_queries)
    }
}

/// A search's list of at most `top_k` items, their scores, and what of these is behaviour's: what users turned to after
/// it, and what resembles its words more than by chance. `found` are the best of all items, best first. What resembles
/// the words by chance is not listed, so that more of what users turned to may be.
fn of_query(
    (items, scores): ranking::List<'_>,
    (turned_to, strength): (&[u32], &[f32]),
    chance: f32,
    eligible: &[bool],
    content: impl Fn(u32) -> f32,
    top_k: usize,
) -> Vec<(u32, f32, f32)> {
    let own = |item: &u32| turned_to.binary_search(item).map_or(0.0, |at| strength[at]);
    let found = items.iter().zip(scores).map(|(item, score)| (*item, *score, own(item)));
    let mut list: Vec<(u32, f32, f32)> = found.filter(|row| row.2 > 0.0 || row.1 > chance).collect();
    if list.len() < items.len() {
        let more = turned_to
            .iter()
            .zip(strength)
            .filter(|(item, own)| **own > 0.0 && eligible[**item as usize] && !items.contains(item));
        list.extend(more.map(|(item, own)| (*item, content(*item) + own, *own)));
        list.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        list.truncate(top_k);
    }
    list
}

/// What turns indices into published values.
struct Tables<'a> {
    users: IdColumn,
    items: IdColumn,
    titles: arrow::array::StringArray,
    /// What a user did with `{}`, by the strength of it.
    verbs: Vec<String>,
    /// What segments are called, where they may be.
    segments: Vec<Option<&'a str>>,
}

impl Tables<'_> {
    fn name(&self, item: u32) -> String {
        use arrow::array::Array;
        let at = item as usize;
        if self.titles.is_valid(at) { self.titles.value(at).to_owned() } else { self.items.text(at) }
    }

    /// One sentence for people, and the item it names.
    fn reason(&self, history: &History, user: u32, row: &Ranked) -> (String, Option<u32>) {
        let said = |item: u32, name: &str| {
            let strength = history.strength(user as usize, item).unwrap_or(0);
            self.verbs.get(usize::from(strength)).map_or("chose{}", String::as_str).replacen("{}", name, 1)
        };
        match row.reason {
            Reason::Again => (format!("you {} before", said(row.item, " it")), Some(row.item)),
            Reason::Because { item } => {
                (format!("because you {}", said(item, &format!(" {}", self.name(item)))), Some(item))
            }
            Reason::Similar { item } => {
                (format!("similar to {}, which you {}", self.name(item), said(item, "")), Some(item))
            }
            Reason::Follows { item } => {
                (format!("often follows {}, which you {}", self.name(item), said(item, "")), Some(item))
            }
            Reason::Trending => ("popular these days".to_owned(), None),
            Reason::Featured => ("featured by the shop".to_owned(), None),
            Reason::Popular { segment } => {
                let who = self.segments.get(segment as usize).copied().flatten().unwrap_or(EVERYBODY);
                (format!("popular with {who} users"), None)
            }
            Reason::Searched => ("resembles what you searched for".to_owned(), None),
            Reason::PopularWithAll => (format!("popular with {EVERYBODY} users"), None),
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
        tables: &Tables<'_>,
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
                None => self.open(bucket, &batch)?,
            };
            self.writers[bucket].insert(open).write(&batch).map_err(lake::Error::from)?;
        }
        Ok(n_rows)
    }

    /// Completes the files; where there is no row, one empty file still says what the columns are.
    fn finish(mut self, tables: &Tables<'_>, history: &History) -> Result<(), Error> {
        if self.writers.iter().all(Option::is_none) {
            let none = recommendations(tables, history, &[], std::iter::empty())?;
            self.writers[0] = Some(self.open(0, &none)?);
        }
        for writer in self.writers.into_iter().flatten() {
            writer.finish().map_err(lake::Error::from)?;
        }
        Ok(())
    }

    fn open(&self, bucket: usize, rows: &arrow::array::RecordBatch) -> Result<table::Writer, Error> {
        let path = self.folder.join(format!("bucket={bucket:02}")).join("part.parquet");
        let layout = Layout {
            sorted_by: vec!["user_id".to_owned(), "rank".to_owned()],
            bloom: vec!["user_id".to_owned()],
        };
        Ok(table::Writer::create(&path, rows.schema(), &layout).map_err(lake::Error::from)?)
    }
}

fn recommendations(
    tables: &Tables<'_>,
    history: &History,
    rows: &[(u32, &Ranked)],
    lengths: impl Iterator<Item = usize>,
) -> Result<arrow::array::RecordBatch, Error> {
    let reasons: Vec<(String, Option<u32>)> =
        rows.iter().map(|(user, row)| tables.reason(history, *user, row)).collect();
    let scores = Source::ALL.map(|source| {
        let contributions = rows.iter().map(|(_, row)| row.contributions[source as usize]);
        (source.column(), lists::floats(contributions))
    });
    let mut columns = vec![
        ("user_id", tables.users.take(rows.iter().map(|(user, _)| Some(*user)))?),
        ("rank", lists::ranks(lengths)),
        ("item_id", tables.items.take(rows.iter().map(|(_, row)| Some(row.item)))?),
        ("score", lists::floats(rows.iter().map(|(_, row)| row.score))),
    ];
    columns.extend(scores);
    columns.extend([
        ("source", lists::strings(rows.iter().map(|(_, row)| row.strongest.name()))),
        ("reason", lists::strings(reasons.iter().map(|reason| reason.0.as_str()))),
        ("reason_item_id", tables.items.take(reasons.iter().map(|reason| reason.1))?),
        ("arm", lists::strings(rows.iter().map(|_| "default"))),
    ]);
    lists::batch(columns, &["reason_item_id"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_resembles_a_search_by_chance_takes_no_place_of_what_users_turned_to() {
        let found = ([7u32, 4, 1, 9], [1.0f32, 0.4, 0.12, 0.11]);
        let (turned_to, strength) = ([2u32, 3, 5, 7], [0.1f32, 0.1, 0.05, 0.9]);
        let eligible: Vec<bool> = (0..10).map(|item| item != 2).collect();
        let list = of_query((&found.0, &found.1), (&turned_to, &strength), 0.13, &eligible, |_| -0.02, 4);
        let expected = [(7, 1.0, 0.9), (4, 0.4, 0.0), (3, 0.1 - 0.02, 0.1), (5, 0.05 - 0.02, 0.05)];
        assert_eq!(list, expected, "nothing by chance, and nothing that may not be listed");
        let full = of_query((&found.0, &found.1), (&turned_to, &strength), 0.1, &eligible, |_| 9.0, 4);
        assert_eq!(full.iter().map(|row| row.0).collect::<Vec<_>>(), found.0, "a list without chance stays");
    }
}
