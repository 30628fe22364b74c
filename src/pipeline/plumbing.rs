//! Plumbing: one room at a time, Parquet in, Parquet out, no job file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, cast, sort_to_indices, take};
use arrow::datatypes::{DataType, Float32Type, SchemaRef, UInt32Type};

use crate::error::Error;
use crate::lake::table::{self, Layout};
use crate::lake::{self};
use crate::matrix::{Csr, Dense};
use crate::{encoder, factor, retrieval};

use super::Event;
use super::factorize::by_index;
use super::lists;
use super::stages::{BLOCK_ROWS, dense};

/// `encode`: texts to embeddings.
pub struct Encode {
    /// Parquet with the id and text columns.
    pub input: PathBuf,
    /// The id column.
    pub id: String,
    /// Text columns in order.
    pub text: Vec<String>,
    /// Model folder or hub name.
    pub model: String,
    /// transformer or static.
    pub kind: String,
    /// `cpu`, `cuda` or `metal`.
    pub device: String,
    /// f32, bf16 or f16.
    pub precision: String,
    /// Longer texts are cut.
    pub max_tokens: usize,
    /// Parquet to write.
    pub out: PathBuf,
}

/// `factorize`: interactions to factors.
pub struct Factorize {
    /// Parquet with user, item and weight.
    pub input: PathBuf,
    /// The factorisation.
    pub config: factor::Config,
    /// Seeds the first factors.
    pub seed: u64,
    /// Folder that an earlier factorisation wrote, to begin there.
    pub start: Option<PathBuf>,
    /// Item factors that stay as they are; users alone are solved for.
    pub fold_in: Option<PathBuf>,
    /// Folder to write to.
    pub out: PathBuf,
}

/// `retrieve`: exact top-K by inner product.
pub struct Retrieve {
    /// Parquet with ids and vectors.
    pub queries: PathBuf,
    /// Parquet with ids and vectors.
    pub items: PathBuf,
    /// Items a query; ranks are 16 bits wide.
    pub k: u16,
    /// Parquet to write.
    pub out: PathBuf,
}

/// Embeds the texts of a Parquet file.
///
/// # Errors
/// If the input, the model or the device is refused, or writing fails.
pub fn encode(task: &Encode, on_event: &mut dyn FnMut(Event)) -> Result<String, Error> {
    let device = encoder::Device::parse(&task.device).map_err(Error::Model)?;
    let config = encoder::Config {
        model: task.model.clone(),
        kind: encoder::Kind::parse(&task.kind).map_err(Error::Model)?,
        device,
        precision: encoder::Precision::parse(&task.precision).map_err(Error::Model)?,
        max_tokens: encoder::Limit::try_from(task.max_tokens).map_err(|problem| Error::Usage { problem })?,
        ..encoder::Config::default()
    };
    config.check().map_err(Error::Model)?;
    let columns = columns_of(&task.input)?;
    let mut wanted = vec![task.id.as_str()];
    wanted.extend(task.text.iter().map(String::as_str));
    for name in &wanted {
        require(&task.input, &columns, name)?;
    }
    let rows = lake::read(&task.input, &wanted)?;
    let parts: Vec<ArrayRef> =
        rows.columns()[1..].iter().map(|column| cast(column, &DataType::Utf8)).collect::<Result<_, _>>()?;
    let texts: Vec<String> = (0..rows.num_rows())
        .map(|at| {
            let present = parts.iter().map(|part| part.as_string::<i32>()).filter(|part| part.is_valid(at));
            present.map(|part| part.value(at)).collect::<Vec<_>>().join(" | ")
        })
        .collect();
    on_event(Event::Started { stage: "encode" });
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let corpus = encoder::Corpus { texts: &texts, n_texts: texts.len(), token_vectors: None };
    let encoder = encoder::load(&config, corpus, &mut |batch| {
        let (done, of) = (batch.texts_done as u64, batch.texts_total as u64);
        on_event(Event::Progress { stage: "encode", done, of, unit: "tokens" });
    });
    let embeddings = encoder
        .map_err(Error::Model)?
        .encode(&texts, &mut |batch| {
            let (done, of) = (batch.texts_done as u64, batch.texts_total as u64);
            on_event(Event::Progress { stage: "encode", done, of, unit: "texts" });
        })
        .map_err(Error::Encode)?;
    write_vectors(&task.out, &task.id, rows.column(0), "embedding", &embeddings)?;
    Ok(format!(
        "{} embeddings of {} dimensions in {}\n",
        embeddings.n_rows(),
        embeddings.n_cols(),
        task.out.display()
    ))
}

/// Factorises the interactions of a Parquet file.
///
/// # Errors
/// If the input is refused, the factorisation fails, or writing fails.
pub fn factorize(task: &Factorize, on_event: &mut dyn FnMut(Event)) -> Result<String, Error> {
    let columns = columns_of(&task.input)?;
    let user = entity(&task.input, &columns, "user")?;
    let item = entity(&task.input, &columns, "item")?;
    require(&task.input, &columns, "weight")?;
    let rows = lake::read(&task.input, &[&user, &item, "weight"])?;
    let (user_ids, user_idx) = indexed(&task.input, &user, rows.column(0))?;
    let fixed = task.fold_in.as_deref().map(|path| fixed_items(path, &item, task.config.rank)).transpose()?;
    let (item_ids, item_idx) = match &fixed {
        Some((ids, _)) => (ids.clone(), among(ids, rows.column(1), &task.input, &item)?),
        None => indexed(&task.input, &item, rows.column(1))?,
    };
    no_nulls(&task.input, "weight", rows.column(2))?;
    let weights = cast(rows.column(2), &DataType::Float32)?;
    no_nulls(&task.input, "weight", &weights)?;
    let weights = weights.as_primitive::<Float32Type>().values();
    let interactions =
        Csr::from_coordinates(user_ids.len(), item_ids.len(), user_idx.values(), item_idx.values(), weights)?;
    let warm = match &task.start {
        Some(folder) => {
            let known = |side: &str, name: &str, ids: &ArrayRef| {
                let path = folder.join(format!("{side}_factors.parquet"));
                require(&path, &columns_of(&path)?, name)?;
                of_rank(&path, by_index(&path, name, ids)?, task.config.rank)
            };
            Some((known("user", &user, &user_ids)?, known("item", &item, &item_ids)?))
        }
        None => None,
    };
    let start = match (&fixed, &warm) {
        (Some((_, items)), _) => factor::Start::Fixed(items),
        (None, Some((users, items))) => factor::Start::Warm { users, items },
        (None, None) => factor::Start::Drawn,
    };
    on_event(Event::Started { stage: "factorize" });
    let factors = factor::factorize(&interactions, &task.config, start, task.seed, &mut |sweep| {
        let (done, of) = (sweep.number as u64, task.config.iterations as u64);
        on_event(Event::Progress { stage: "factorize", done, of, unit: "sweeps" });
    })?;
    write_vectors(&task.out.join("user_factors.parquet"), &user, &user_ids, "factors", &factors.users)?;
    write_vectors(&task.out.join("item_factors.parquet"), &item, &item_ids, "factors", &factors.items)?;
    let parts = &factors.objective;
    Ok(format!(
        "{} users, {} items, {} interactions, rank {}\nobjective {:.9e} = observed {:.9e} + unobserved {:.9e} + regularization {:.9e}\nfactors in {}\n",
        user_ids.len(),
        item_ids.len(),
        interactions.n_entries(),
        task.config.rank,
        parts.total(),
        parts.observed,
        parts.unobserved,
        parts.regularization,
        task.out.display()
    ))
}

/// Items' ids and factors as an earlier factorisation wrote them.
fn fixed_items(path: &Path, name: &str, rank: usize) -> Result<(ArrayRef, Dense), Error> {
    let (id, ids, factors) = read_vectors(path)?;
    require(path, &[id], name)?;
    Ok((ids, of_rank(path, factors, rank)?))
}

/// Refuses factors of another rank.
fn of_rank(path: &Path, factors: Dense, rank: usize) -> Result<Dense, Error> {
    if factors.n_cols() == rank {
        return Ok(factors);
    }
    let (expected, found) = (format!("factors of rank {rank}"), format!("rank {}", factors.n_cols()));
    Err(Error::Table { path: path.to_owned(), expected, found })
}

/// Where each value of a column is among these ids.
fn among(ids: &ArrayRef, column: &ArrayRef, path: &Path, name: &str) -> Result<UInt32Array, Error> {
    no_nulls(path, name, column)?;
    let (ids, wanted) = (cast(ids, &DataType::Utf8)?, cast(column, &DataType::Utf8)?);
    let place: HashMap<Option<&str>, u32> = ids.as_string::<i32>().iter().zip(0..).collect();
    let found = wanted.as_string::<i32>().iter().map(|id| {
        place.get(&id).copied().ok_or_else(|| Error::Table {
            path: path.to_owned(),
            expected: format!("in `{name}` items that have factors"),
            found: id.unwrap_or_default().to_owned(),
        })
    });
    Ok(found.collect::<Result<Vec<u32>, _>>()?.into())
}

/// Lists the best items of every query.
///
/// # Errors
/// If an input is refused, scores are not finite, or writing fails.
pub fn retrieve(task: &Retrieve, on_event: &mut dyn FnMut(Event)) -> Result<String, Error> {
    let (query_name, query_ids, queries) = read_vectors(&task.queries)?;
    let (item_name, item_ids, items) = read_vectors(&task.items)?;
    if items.n_cols() != queries.n_cols() {
        return Err(Error::Table {
            path: task.items.clone(),
            expected: format!("vectors of {} numbers, as the queries have", queries.n_cols()),
            found: format!("vectors of {}", items.n_cols()),
        });
    }
    // Equal column names (items against items) would not be one table.
    let item_name = if item_name == query_name { format!("similar_{item_name}") } else { item_name };
    on_event(Event::Started { stage: "retrieve" });
    let mut writer: Option<table::Writer> = None;
    let mut index = retrieval::index(&items, None)?;
    let n_queries = queries.n_rows();
    let mut n_rows = 0;
    // Where nothing is asked, an empty table still says what the columns are.
    for start in (0..n_queries.max(1)).step_by(RETRIEVE_BLOCK) {
        let block = start..(start + RETRIEVE_BLOCK).min(n_queries);
        let dim = queries.n_cols();
        let values = queries.values()[block.start * dim..block.end * dim].to_vec();
        let some = Dense::from_vec(block.len(), dim, values)?;
        let request = retrieval::Request {
            queries: &some,
            seen: None,
            sparse: None,
            exclude_self: false,
            top_k: task.k.into(),
        };
        let found = index.retrieve(&request, &mut |progress| {
            let (done, of) = ((start + progress.done) as u64, n_queries as u64);
            on_event(Event::Progress { stage: "retrieve", done, of, unit: "queries" });
        })?;
        let lists_of = |at: usize| found.list(at);
        let query_rows = (0..block.len())
            .flat_map(|at| std::iter::repeat_n(Some((block.start + at) as u32), lists_of(at).0.len()));
        let query_rows: UInt32Array = query_rows.collect();
        let item_rows: UInt32Array =
            (0..block.len()).flat_map(|at| lists_of(at).0.iter().map(|item| Some(*item))).collect();
        let columns: Vec<(&str, ArrayRef)> = vec![
            (&query_name, take(&query_ids, &query_rows, None)?),
            ("rank", lists::ranks((0..block.len()).map(|at| lists_of(at).0.len()))),
            (&item_name, take(&item_ids, &item_rows, None)?),
            ("score", lists::floats((0..block.len()).flat_map(|at| lists_of(at).1.iter().copied()))),
        ];
        let batch = RecordBatch::try_from_iter(columns)?;
        n_rows += batch.num_rows();
        if writer.is_none() {
            let made = table::Writer::create(&task.out, batch.schema(), &Layout::default());
            writer = Some(made.map_err(lake::Error::from)?);
        }
        if let Some(writer) = &mut writer {
            writer.write(&batch).map_err(lake::Error::from)?;
        }
    }
    if let Some(writer) = writer {
        writer.finish().map_err(lake::Error::from)?;
    }
    Ok(format!("{n_rows} rows for {n_queries} queries in {}\n", task.out.display()))
}

/// Queries a retrieval call takes at a time: enough to use every thread, few enough to bound what is held
/// before it is written.
const RETRIEVE_BLOCK: usize = 32 * 1024;

/// The columns of an input, which may not be there or not be what its name says.
fn schema_of(path: &Path) -> Result<SchemaRef, Error> {
    lake::columns(path).map_err(|error| {
        let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        Error::Table { path: path.to_owned(), expected: "a Parquet file".to_owned(), found: cause }
    })
}

fn columns_of(path: &Path) -> Result<Vec<String>, Error> {
    Ok(schema_of(path)?.fields().iter().map(|field| field.name().clone()).collect())
}

/// Refuses a column with nulls.
fn no_nulls(path: &Path, name: &str, column: &ArrayRef) -> Result<(), Error> {
    if column.null_count() == 0 {
        return Ok(());
    }
    Err(Error::Table {
        path: path.to_owned(),
        expected: format!("no null in `{name}`"),
        found: format!("{} nulls", column.null_count()),
    })
}

fn require(path: &Path, columns: &[String], name: &str) -> Result<(), Error> {
    if columns.iter().any(|column| column == name) {
        return Ok(());
    }
    Err(Error::Table {
        path: path.to_owned(),
        expected: format!("a column `{name}`"),
        found: columns.join(", "),
    })
}

/// The column that names a side: an index or an external id.
fn entity(path: &Path, columns: &[String], side: &str) -> Result<String, Error> {
    let names = [format!("{side}_idx"), format!("{side}_id")];
    match names.iter().find(|name| columns.contains(name)) {
        Some(name) => Ok(name.clone()),
        None => Err(Error::Table {
            path: path.to_owned(),
            expected: format!("a column `{}` or `{}`", names[0], names[1]),
            found: columns.join(", "),
        }),
    }
}

/// Ids by index and each row's index. Indices stay as they are, so that entities without a row keep
/// theirs; ids are numbered in ascending order.
fn indexed(path: &Path, name: &str, column: &ArrayRef) -> Result<(ArrayRef, UInt32Array), Error> {
    no_nulls(path, name, column)?;
    if name.ends_with("_idx") {
        let idx = cast(column, &DataType::UInt32)?.as_primitive::<UInt32Type>().clone();
        if idx.null_count() > 0 || idx.values().contains(&u32::MAX) {
            let expected = format!("`{name}` from 0 to 4294967294");
            return Err(Error::Table { path: path.to_owned(), expected, found: "values outside".to_owned() });
        }
        let n = idx.values().iter().max().map_or(0, |last| last + 1);
        let ids = cast(&(Arc::new(UInt32Array::from_iter_values(0..n)) as ArrayRef), column.data_type())?;
        return Ok((ids, idx));
    }
    let order = sort_to_indices(column, Some(SortOptions::default()), None)?;
    let sorted = take(column, &order, None)?;
    let ranges = arrow::compute::partition(std::slice::from_ref(&sorted))?.ranges();
    let mut idx = vec![0u32; column.len()];
    for (at, range) in ranges.iter().enumerate() {
        for row in range.clone() {
            idx[order.value(row) as usize] = at as u32;
        }
    }
    let firsts: UInt32Array = ranges.iter().map(|range| range.start as u32).collect::<Vec<_>>().into();
    Ok((take(&sorted, &firsts, None)?, idx.into()))
}

fn write_vectors(
    path: &Path,
    id_name: &str,
    ids: &ArrayRef,
    vector_name: &str,
    vectors: &Dense,
) -> Result<(), Error> {
    let mut writer: Option<table::Writer> = None;
    let n_rows = vectors.n_rows();
    let mut start = 0;
    while start < n_rows || writer.is_none() {
        let rows = start..(start + BLOCK_ROWS).min(n_rows);
        let columns: Vec<(&str, ArrayRef)> = vec![
            (id_name, ids.slice(rows.start, rows.len())),
            (vector_name, lists::vectors(vectors, rows.clone(), false)?),
        ];
        let batch = RecordBatch::try_from_iter(columns)?;
        let open = match writer.take() {
            Some(writer) => writer,
            None => {
                table::Writer::create(path, batch.schema(), &Layout::default()).map_err(lake::Error::from)?
            }
        };
        writer.insert(open).write(&batch).map_err(lake::Error::from)?;
        start = rows.end;
        if n_rows == 0 {
            break;
        }
    }
    if let Some(writer) = writer {
        writer.finish().map_err(lake::Error::from)?;
    }
    Ok(())
}

/// The one id column and the one vector column of a file.
fn read_vectors(path: &Path) -> Result<(String, ArrayRef, Dense), Error> {
    let schema = schema_of(path)?;
    let is_vector = |kind: &DataType| matches!(kind, DataType::FixedSizeList(item, _) if *item.data_type() == DataType::Float32);
    let vector = schema.fields().iter().find(|field| is_vector(field.data_type()));
    let id = schema.fields().iter().find(|field| !field.data_type().is_nested());
    let (Some(vector), Some(id)) = (vector, id) else {
        return Err(Error::Table {
            path: path.to_owned(),
            expected: "an id column and a FixedSizeList<f32> column".to_owned(),
            found: schema
                .fields()
                .iter()
                .map(|f| format!("{}: {}", f.name(), f.data_type()))
                .collect::<Vec<_>>()
                .join(", "),
        });
    };
    let rows = lake::read(path, &[id.name(), vector.name()])?;
    Ok((id.name().clone(), rows.column(0).clone(), dense(rows.column(1))?))
}
