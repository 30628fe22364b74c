//! SQL over what has been published, for analysts: tables, their dictionary, and results in four formats.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;
use arrow::util::pretty::pretty_format_batches;
use serde_json::Value;

use crate::error::Error;
use crate::job::Job;
use crate::lake;
use crate::lake::table::{self, Layout};

use super::dictionary::meaning;
use super::serve::object;
use super::show::Shelf;

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// Comma-separated values, the names of the columns first.
    Csv,
    /// A JSON object a row.
    Json,
}

const HELP: &str = "\\d            tables; also events, items, users, and all_… of every run that is kept
\\d TABLE      columns and what they mean
\\s            what was asked before; \\g 12 asks it again (at a terminal)
\\q            leave (at a terminal)
SELECT …;     DataFusion's SQL; get_field(a, 'name') takes a field of a struct, unnest(a) a list apart
";

/// Runs one statement, or `\d` (the tables), or `\d TABLE` (its columns, and what they mean).
///
/// # Errors
/// If nothing is published, or the statement fails.
pub fn sql(job: &Job, statement: &str, format: Format) -> Result<String, Error> {
    let statement = statement.trim().trim_end_matches(';');
    if let Some(rest) = statement.strip_prefix("\\d") {
        return describe(job, rest.trim());
    }
    if ["help", "\\?", "\\h"].contains(&statement) {
        return Ok(HELP.to_owned());
    }
    let rows = Shelf::open(job, statement)?.lake.ask(statement)?;
    text(&rows, format)
}

/// Runs one statement and writes its rows into a Parquet file.
///
/// # Errors
/// As of [`sql`], or if the file cannot be written.
pub fn sql_to_file(job: &Job, statement: &str, path: &Path) -> Result<String, Error> {
    let rows = Shelf::open(job, statement)?.lake.ask(statement.trim().trim_end_matches(';'))?;
    let schema = table::plain(&rows.schema());
    let rows = table::cast(&rows, &schema)?;
    let mut writer = table::Writer::create(path, schema, &Layout::default()).map_err(lake::Error::from)?;
    writer.write(&rows).map_err(lake::Error::from)?;
    let written = writer.finish().map_err(lake::Error::from)?;
    Ok(format!("{} rows in {}\n", written.rows, path.display()))
}

fn text(rows: &RecordBatch, format: Format) -> Result<String, Error> {
    let mut text = String::new();
    match format {
        Format::Table => text = table(&shortened(rows)?)?,
        Format::Json => {
            for row in 0..rows.num_rows() {
                text += &format!("{}\n", Value::Object(object(rows, row)?));
            }
        }
        Format::Csv => {
            let schema = rows.schema();
            let names: Vec<String> = schema.fields().iter().map(|field| cell(field.name())).collect();
            text = format!("{}\n", names.join(","));
            for row in 0..rows.num_rows() {
                let cells: Vec<String> = rows
                    .columns()
                    .iter()
                    .map(|column| match column.is_null(row) {
                        true => Ok(String::new()),
                        false => array_value_to_string(column, row).map(|value| cell(&value)),
                    })
                    .collect::<Result<_, _>>()?;
                text += &format!("{}\n", cells.join(","));
            }
        }
    }
    Ok(text)
}

/// Rows for people. What is no letter stays off their terminals, which would do what it says.
pub(super) fn table(rows: &RecordBatch) -> Result<String, ArrowError> {
    let text = pretty_format_batches(std::slice::from_ref(rows))?.to_string();
    let shown =
        text.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c });
    Ok(shown.chain(['\n']).collect())
}

/// Letters of a vector that a table for people shows: an embedding has thousands.
const LETTERS_OF_A_VECTOR: usize = 60;

/// The same rows with the beginnings of vectors.
fn shortened(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    if rows.num_columns() == 0 {
        return Ok(rows.clone());
    }
    let beginning = |column: &ArrayRef, row: usize| -> Result<Option<String>, ArrowError> {
        if column.is_null(row) {
            return Ok(None);
        }
        let mut text = array_value_to_string(column, row)?;
        if let Some((end, _)) = text.char_indices().nth(LETTERS_OF_A_VECTOR) {
            text.truncate(end);
            text.push('…');
        }
        Ok(Some(text))
    };
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| {
        let is_vector = matches!(column.data_type(), DataType::FixedSizeList(..));
        let shown: ArrayRef = match is_vector {
            false => column.clone(),
            true => {
                let texts = (0..rows.num_rows()).map(|row| beginning(column, row));
                Arc::new(texts.collect::<Result<StringArray, _>>()?)
            }
        };
        Ok((field.name().clone(), shown))
    });
    RecordBatch::try_from_iter(columns.collect::<Result<Vec<_>, ArrowError>>()?)
}

/// A value as CSV has it (RFC 4180).
fn cell(value: &str) -> String {
    if value.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value.to_owned()
    }
}

fn describe(job: &Job, table: &str) -> Result<String, Error> {
    let shelf = Shelf::open(job, &format!("all_ {table}"))?;
    let lines = |tables: &[String]| -> Result<String, Error> {
        let mut text = String::new();
        for name in tables {
            let columns: Vec<String> =
                shelf.lake.schema(name)?.fields().iter().map(|field| field.name().clone()).collect();
            text += &format!("{name:<24} {}\n", columns.join(", "));
        }
        Ok(text)
    };
    if table.is_empty() {
        return lines(&shelf.tables);
    }
    if !shelf.tables.iter().any(|name| name == table) {
        return Err(Error::Usage {
            problem: format!("expected one of {}; found `{table}`", shelf.tables.join(", ")),
        });
    }
    let mut text = String::new();
    for field in shelf.lake.schema(table)?.fields() {
        let found = field.data_type().to_string();
        let line = format!("{:<20} {found:<28} {}", field.name(), meaning(table, field.name()).unwrap_or(""));
        text += line.trim_end();
        text.push('\n');
    }
    Ok(text)
}
