//! The neighbors and profile stages: item-item lists, and users' tastes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float32Array, Float64Array, ListArray, RecordBatch, StringArray, StructArray,
    UInt32Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use serde_json::json;

use crate::behavior::EVERYBODY;
use crate::error::Error;
use crate::lake::table::{self, Layout};
use crate::lake::{self};
use crate::matrix::Dense;
use crate::profile::{self, Profiles, Terms};
use crate::{neighbors, retrieval};

use super::history::{self};
use super::lists::{self, IdColumn};
use super::stages::{BLOCK_ROWS, Night, Report};

/// An item's entries of one relation.
type Entries = Vec<(u32, f32)>;

/// A relation's name, and each item's entries in it.
type Relation<'a> = (&'static str, Box<dyn Fn(usize) -> Entries + 'a>);

impl Night<'_> {
    pub(super) fn neighbors(&mut self) -> Result<(), Error> {
        let spec = &self.job.spec;
        let fingerprint = self
            .fingerprint("neighbors", &["behavior", "catalog", "encode", "factorize"])
            .add("config", &json!(spec.neighbors).to_string())
            .add("threads", &spec.threads.to_string());
        self.stage("neighbors", fingerprint.hex(), |night, folder| {
            let ids = night.ids()?;
            let items = night.item_ids(&ids);
            let catalog = night.catalog_rows()?;
            let (baskets, transitions) = history::sessions(&night.folder("behavior"), "full", items.len())?;
            let config = &night.job.spec.neighbors;
            let related = neighbors::relate(&baskets, &transitions, config, Some(&catalog.eligible))?;
            let vectors = night.item_vectors()?;
            let request = retrieval::Request {
                queries: &vectors,
                seen: None,
                sparse: None,
                exclude_self: true,
                top_k: config.top_k,
            };
            let mut index = retrieval::index(&vectors, Some(&catalog.eligible))?;
            let similar = index.retrieve(&request, &mut |block| {
                night.progress("neighbors", block.done, block.of, "items");
            })?;
            let list = |found: (&[u32], &[f32])| -> Entries {
                found.0.iter().copied().zip(found.1.iter().copied()).collect()
            };
            // An item without a vector resembles nothing: inner products of zero are no evidence.
            let resembling = |item: usize| -> Entries {
                list(similar.list(item)).into_iter().filter(|entry| entry.1 > 0.0).collect()
            };
            let relations: [Relation; 3] = [
                ("bought_together", Box::new(|item| list(related.together.list(item)))),
                ("next", Box::new(|item| list(related.next.list(item)))),
                ("similar", Box::new(resembling)),
            ];
            let n_rows = write_similar_items(folder, &items, &relations)?;
            Ok(Report {
                facts: json!({ "rows": n_rows }),
                note: format!("{n_rows} rows for {} items", items.len()),
            })
        })
    }

    /// Unit vectors whose inner product is the mean of the factors' and the embeddings' cosine.
    fn item_vectors(&self) -> Result<Dense, Error> {
        let (_, factors) = self.factors("full")?;
        let embeddings = self.embeddings()?.map(|embeddings| embeddings.items);
        let parts: Vec<Dense> = [factors].into_iter().chain(embeddings).map(Dense::with_unit_rows).collect();
        let n_cols = parts.iter().map(Dense::n_cols).sum();
        let mut vectors = Dense::zeros(parts[0].n_rows(), n_cols);
        let share = 1.0 / (parts.len() as f32).sqrt();
        for item in 0..vectors.n_rows() {
            let values = parts.iter().flat_map(|part| part.row(item));
            vectors.row_mut(item).iter_mut().zip(values).for_each(|(slot, value)| *slot = share * value);
        }
        Ok(vectors)
    }

    pub(super) fn profile(&mut self) -> Result<(), Error> {
        let fingerprint = self
            .fingerprint("profile", &["behavior", "catalog", "encode"])
            .add("config", &json!(self.job.spec.profile).to_string())
            .add("min_users", &self.job.spec.privacy.min_users.to_string());
        self.stage("profile", fingerprint.hex(), |night, folder| {
            let ids = night.ids()?;
            let history = night.history("full", &ids)?;
            let catalog = night.catalog_rows()?;
            let embeddings = night.embeddings()?;
            let (category_names, categories) = codes(&catalog.categories);
            let (brand_names, brands) = codes(&catalog.brands);
            let terms = Terms::of_texts(catalog.titles.iter())?;
            let inputs = profile::Inputs {
                history: &history.interactions,
                items: embeddings.as_ref().map(|embeddings| &embeddings.items),
                searches: embeddings.as_ref().map(|embeddings| (&history.searches, &embeddings.queries)),
                categories: &categories,
                brands: &brands,
                prices: &catalog.prices,
                terms: &terms.weights,
            };
            let profiles = profile::profile(&inputs, &night.job.spec.profile)?;
            let activity = lake::read(
                &night.folder("behavior").join("full/users.parquet"),
                &[
                    "user_idx",
                    "segment",
                    "n_events",
                    "n_items",
                    "n_purchases",
                    "n_searches",
                    "first_time",
                    "last_time",
                ],
            )?;
            let users = night.user_ids(&ids);
            let names = Names { categories: category_names, brands: brand_names, terms: terms.names };
            write_profiles(folder, &users, &activity, &profiles, &names, night.job.spec.privacy.min_users)?;
            Ok(Report { facts: json!({ "users": users.len() }), note: format!("{} users", users.len()) })
        })
    }
}

/// Distinct values, ascending, and each row's position among them.
fn codes(values: &StringArray) -> (Vec<String>, Vec<Option<u32>>) {
    let distinct: BTreeMap<&str, ()> = values.iter().flatten().map(|value| (value, ())).collect();
    let names: Vec<String> = distinct.keys().map(|name| (*name).to_owned()).collect();
    let code = |value: &str| names.binary_search_by(|name| name.as_str().cmp(value)).ok().map(|at| at as u32);
    let coded = values.iter().map(|value| code(value?)).collect();
    (names, coded)
}

fn write_similar_items(folder: &Path, items: &IdColumn, relations: &[Relation]) -> Result<usize, Error> {
    let block = |range: std::ops::Range<usize>| {
        let (mut from, mut to, mut scores, mut names, mut lengths) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for item in range {
            for (relation, entries) in relations {
                let entries = entries(item);
                lengths.push(entries.len());
                for (other, score) in entries {
                    from.push(Some(item as u32));
                    to.push(Some(other));
                    scores.push(score);
                    names.push(*relation);
                }
            }
        }
        lists::batch(
            vec![
                ("item_id", items.take(from)?),
                ("relation", lists::strings(names)),
                ("rank", lists::ranks(lengths)),
                ("similar_item_id", items.take(to)?),
                ("score", lists::floats(scores)),
            ],
            &[],
        )
    };
    let layout = Layout {
        sorted_by: vec!["item_id".to_owned(), "relation".to_owned(), "rank".to_owned()],
        bloom: vec!["item_id".to_owned()],
    };
    let path = folder.join("similar_items/part.parquet");
    let mut writer =
        table::Writer::create(&path, block(0..0)?.schema(), &layout).map_err(lake::Error::from)?;
    for start in (0..items.len()).step_by(BLOCK_ROWS) {
        let rows = block(start..(start + BLOCK_ROWS).min(items.len()))?;
        writer.write(&rows).map_err(lake::Error::from)?;
    }
    Ok(writer.finish().map_err(lake::Error::from)?.rows as usize)
}

/// What codes stand for.
struct Names {
    categories: Vec<String>,
    brands: Vec<String>,
    terms: Vec<String>,
}

fn write_profiles(
    folder: &Path,
    users: &IdColumn,
    activity: &RecordBatch,
    profiles: &Profiles,
    names: &Names,
    min_users: u32,
) -> Result<(), Error> {
    // The users table has a row for every user, in the order of their indices.
    let activity_column = |name: &str| -> Result<ArrayRef, Error> {
        let column = activity.column_by_name(name).ok_or_else(|| {
            arrow::error::ArrowError::SchemaError(format!("the statement `users` gave no column `{name}`"))
        })?;
        Ok(column.clone())
    };
    let idx = activity_column("user_idx")?;
    let idx = idx.as_primitive::<arrow::datatypes::UInt32Type>().values().to_vec();
    let band = |of: &dyn Fn((f64, f64)) -> f64| -> ArrayRef {
        let bands = idx.iter().map(|user| profiles.price_bands[*user as usize].map(of));
        Arc::new(bands.collect::<Float64Array>())
    };
    let mut columns: Vec<lists::Named> = vec![
        ("user_id", users.take(idx.iter().map(|user| Some(*user)))?),
        ("segment", common(&activity_column("segment")?, min_users)),
        ("n_events", activity_column("n_events")?),
        ("n_items", activity_column("n_items")?),
        ("n_purchases", activity_column("n_purchases")?),
        ("n_searches", activity_column("n_searches")?),
        ("first_time", activity_column("first_time")?),
        ("last_time", activity_column("last_time")?),
        ("categories", shares(&idx, &profiles.categories, &names.categories, min_users)?),
        ("brands", shares(&idx, &profiles.brands, &names.brands, min_users)?),
        ("terms", shares(&idx, &profiles.terms, &names.terms, min_users)?),
        ("price_low", band(&|band| band.0)),
        ("price_high", band(&|band| band.1)),
    ];
    if let Some(embeddings) = &profiles.embeddings {
        let whole = lists::vectors(embeddings, 0..embeddings.n_rows(), true)?;
        let rows = UInt32Array::from(idx.clone());
        columns.push(("embedding", arrow::compute::take(&whole, &rows, None)?));
    }
    let nullable = ["first_time", "last_time", "price_low", "price_high", "embedding"];
    let rows = lists::batch(columns, &nullable)?;
    let layout = Layout { sorted_by: vec!["user_id".to_owned()], bloom: vec!["user_id".to_owned()] };
    let path = folder.join("user_profiles/part.parquet");
    let mut writer = table::Writer::create(&path, rows.schema(), &layout).map_err(lake::Error::from)?;
    writer.write(&rows).map_err(lake::Error::from)?;
    writer.finish().map_err(lake::Error::from)?;
    Ok(())
}

/// Segments, each of too few users as everybody's.
fn common(segments: &ArrayRef, min_users: u32) -> ArrayRef {
    let segments = segments.as_string::<i32>();
    let mut n_users: BTreeMap<&str, u32> = BTreeMap::new();
    segments.iter().flatten().for_each(|segment| *n_users.entry(segment).or_default() += 1);
    let kept = |segment: &str| {
        if n_users[segment] >= min_users { segment.to_owned() } else { EVERYBODY.to_owned() }
    };
    Arc::new(segments.iter().map(|segment| segment.map(kept)).collect::<StringArray>())
}

/// A list of `{name, share}` a user, without names that fewer users than that have in theirs.
fn shares(
    users: &[u32],
    of_user: &[Vec<(u32, f32)>],
    names: &[String],
    min_users: u32,
) -> Result<ArrayRef, Error> {
    let mut n_users = vec![0_u32; names.len()];
    of_user.iter().flatten().for_each(|(name, _)| n_users[*name as usize] += 1);
    let lists: Vec<Vec<(u32, f32)>> = users
        .iter()
        .map(|user| of_user[*user as usize].iter().copied())
        .map(|list| list.filter(|(name, _)| n_users[*name as usize] >= min_users).collect())
        .collect();
    let lists_of = || lists.iter();
    let entries = || lists_of().flatten();
    let fields = Fields::from(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("share", DataType::Float32, false),
    ]);
    let values = StructArray::try_new(
        fields.clone(),
        vec![
            Arc::new(entries().map(|entry| Some(names[entry.0 as usize].as_str())).collect::<StringArray>()),
            Arc::new(entries().map(|entry| entry.1).collect::<Float32Array>()),
        ],
        None,
    )?;
    let offsets = OffsetBuffer::from_lengths(lists_of().map(Vec::len));
    let item = Arc::new(Field::new("item", DataType::Struct(fields), false));
    Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(values), None)?))
}
