//! Lists on their way to those who serve them: into a cache, one user's at once, all of them as JSON lines.

use std::io::Write;
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Fields, Float32Type, Float64Type, Int64Type, UInt64Type};
use arrow::util::display::array_value_to_string;
use serde_json::{Map, Value};

use crate::cache::{self, Generation, Kind, Table};
use crate::error::Error;
use crate::job::Job;
use crate::publish::{self, Id, Lists, State};

use super::lists::bucket;
use super::runs::{Listed, named};
use super::{Event, current};

/// Every kind of lists.
const KINDS: [Kind; 4] = [
    Kind { name: "recommendations", letter: "u", keys: &["user_id"], order: &[0], item: "item_id" },
    Kind {
        name: "similar_items",
        letter: "i",
        keys: &["item_id", "relation"],
        order: &[1, 0],
        item: "similar_item_id",
    },
    Kind { name: "query_items", letter: "q", keys: &["query"], order: &[0], item: "item_id" },
    Kind { name: "popular_items", letter: "p", keys: &["segment"], order: &[0], item: "item_id" },
];

/// Loads the lists of a run into a Redis and makes them the ones that readers take.
///
/// # Errors
/// If there is no such run, it was refused, or the cache does not take it; readers then take the lists they
/// took before.
pub fn load(
    job: &Job,
    url: &str,
    run_id: Option<&str>,
    on_event: &mut dyn FnMut(Event),
) -> Result<String, Error> {
    let run = published(job, run_id)?;
    let manifest = run.manifest.unwrap_or_default();
    for kind in KINDS {
        job.place.fetch(&run.info.folder.join(kind.name))?;
    }
    let tables = KINDS.iter().filter_map(|kind| {
        let record = manifest.tables.get(kind.name)?;
        Some(Table { kind: *kind, folder: run.info.folder.join(kind.name), rows: record.rows })
    });
    let generation = Generation {
        job: job.spec.name.0.clone(),
        run_id: run.info.id.clone(),
        made: manifest.finished_at.clone(),
        tables: tables.collect(),
    };
    on_event(Event::Started { stage: "load" });
    let loaded = cache::load(&generation, url, &job.spec.cache, &mut |progress| {
        let of =
            manifest.facts.get("rank").and_then(|facts| facts["users"].as_u64()).unwrap_or(progress.done);
        let of = if progress.table == "recommendations" { of } else { progress.done };
        on_event(Event::Progress { stage: "load", done: progress.done, of, unit: progress.table });
    })?;
    let n_lists: u64 = loaded.lists.iter().map(|(_, lists)| lists).sum();
    let seconds = loaded.elapsed.as_secs_f64();
    let mut text = format!("loaded {}\n\n", run.info.id);
    for (table, lists) in &loaded.lists {
        text += &format!("  {table:<16} {lists:>10} lists\n");
    }
    text += &format!(
        "\n  {n_lists} lists in {seconds:.1} s, {:.0} a second; {:.1} MiB of values; {} were there before\n",
        (n_lists - loaded.already_there) as f64 / seconds.max(1e-9),
        loaded.bytes as f64 / 1_048_576.0,
        loaded.already_there
    );
    let job = &generation.job;
    let before = loaded.before.as_deref().unwrap_or("nothing");
    text += &format!("\n{job}:current names {}; before it named {before}\n", run.info.id);
    for removed in &loaded.removed {
        text += &format!("removed {removed}\n");
    }
    Ok(text)
}

/// One user's list as JSON, a row a line, with every column.
///
/// # Errors
/// If nothing is published, or the user has no list.
pub fn lookup(job: &Job, user: &str) -> Result<String, Error> {
    let user = &job.access.pseudonym(user);
    let current = current(job)?;
    let folder = job.place.root().join(&current.path);
    let table = folder.join("recommendations");
    let manifest = publish::read_manifest(&folder)?.unwrap_or_default();
    // The job's own number may have changed since.
    let buckets = manifest.facts.get("rank").and_then(|facts| facts["buckets"].as_u64());
    let buckets = buckets.map_or(job.spec.publish.buckets.0, |buckets| buckets as u16);
    let place = format!("bucket={:02}", bucket(user, buckets));
    job.place.fetch(&table.join(&place))?;
    let likely =
        |file: &Path| file.parent().and_then(Path::file_name).is_some_and(|folder| folder == place.as_str());
    let rows = publish::find(&table, "user_id", user, &likely)?;
    let rows =
        rows.ok_or_else(|| Error::NotFound { what: format!("user {user}"), run_id: current.run_id })?;
    let mut text = String::new();
    for row in 0..rows.num_rows() {
        text += &format!("{}\n", Value::Object(object(&rows, row)?));
    }
    Ok(text)
}

/// Writes a table of lists as JSON, a list a line: its key, then an array for each of its columns.
///
/// # Errors
/// If there is no such table, or the writer fails.
pub fn export(job: &Job, table: &str, run_id: Option<&str>, to: &mut dyn Write) -> Result<u64, Error> {
    let run = published(job, run_id)?;
    let Some(Kind { name, keys, item, .. }) = KINDS.iter().find(|kind| kind.name == table) else {
        let kinds = KINDS.map(|kind| kind.name).join(", ");
        return Err(Error::Usage { problem: format!("expected one of {kinds}; found `{table}`") });
    };
    let failed = |source| Error::Export { source };
    let mut n_lists = 0;
    job.place.fetch(&run.info.folder.join(name))?;
    for list in Lists::open(&run.info.folder.join(name), keys, &[item, "score"])? {
        let list = list?;
        let mut line = Map::new();
        for (name, id) in keys.iter().zip(&list.key) {
            line.insert((*name).to_owned(), id_value(id));
        }
        for (column, plural) in [(*item, "items"), ("score", "scores")] {
            let values = list.rows.column_by_name(column).into_iter();
            let values = values.flat_map(|values| (0..values.len()).map(move |row| value(values, row)));
            line.insert(plural.to_owned(), Value::Array(values.collect::<Result<_, _>>()?));
        }
        serde_json::to_writer(&mut *to, &Value::Object(line)).map_err(|error| failed(error.into()))?;
        to.write_all(b"\n").map_err(failed)?;
        n_lists += 1;
    }
    to.flush().map_err(failed)?;
    Ok(n_lists)
}

/// A complete run that the gate let through: the one named, or the one in `CURRENT`.
fn published(job: &Job, run_id: Option<&str>) -> Result<Listed, Error> {
    current(job)?;
    let run = named(job, run_id.unwrap_or("CURRENT"))?;
    match run.manifest.as_ref().map(|manifest| manifest.state) {
        None => Err(publish::Error::Incomplete { run_id: run.info.id }.into()),
        Some(State::Refused) => {
            let problem = format!(
                "run {} was refused by the gate: expected one that was published or held",
                run.info.id
            );
            Err(Error::Usage { problem })
        }
        Some(State::Published | State::Held) => Ok(run),
    }
}

/// A row with every column.
pub(super) fn object(rows: &RecordBatch, row: usize) -> Result<Map<String, Value>, Error> {
    fields_of(rows.schema().fields(), rows.columns(), row)
}

fn fields_of(fields: &Fields, columns: &[ArrayRef], row: usize) -> Result<Map<String, Value>, Error> {
    let columns = fields.iter().zip(columns);
    columns.map(|(field, values)| Ok((field.name().clone(), value(values, row)?))).collect()
}

/// A value of a published table as JSON has it.
fn value(values: &ArrayRef, row: usize) -> Result<Value, Error> {
    if values.is_null(row) {
        return Ok(Value::Null);
    }
    let list = |of: ArrayRef| -> Result<Value, Error> {
        Ok((0..of.len()).map(|at| value(&of, at)).collect::<Result<Vec<_>, _>>()?.into())
    };
    Ok(match values.data_type() {
        DataType::FixedSizeList(..) => list(values.as_fixed_size_list().value(row))?,
        DataType::List(_) => list(values.as_list::<i32>().value(row))?,
        DataType::Struct(fields) => fields_of(fields, values.as_struct().columns(), row)?.into(),
        // By way of its text, so that a score has the digits that it has and no more.
        DataType::Float32 => {
            let value = values.as_primitive::<Float32Type>().value(row);
            serde_json::from_str(&value.to_string()).unwrap_or(Value::Null)
        }
        DataType::Float64 => values.as_primitive::<Float64Type>().value(row).into(),
        DataType::Boolean => values.as_boolean().value(row).into(),
        DataType::UInt64 => values.as_primitive::<UInt64Type>().value(row).into(),
        found if found.is_integer() => {
            let wide = arrow::compute::cast(&values.slice(row, 1), &DataType::Int64)?;
            wide.as_primitive::<Int64Type>().value(0).into()
        }
        _ => array_value_to_string(values, row)?.into(),
    })
}

fn id_value(id: &Id) -> Value {
    match id {
        Id::Int(number) => i64::try_from(*number).map_or_else(|_| (*number as u64).into(), Value::from),
        Id::Text(text) => text.as_ref().into(),
    }
}
