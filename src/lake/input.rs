//! Inputs: finding their files, checking their footers, mapping their columns.
//!
//! Everything a job can get wrong about its inputs is found here before a row is read: a path
//! without files, a file that is not Parquet, a missing column, a type that cannot become the
//! declared one. Each error names the file, the column, what was expected and what was found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use futures::StreamExt;
use serde::Deserialize;

use super::access::Access;
pub use super::files::SourceFile;
use super::files::{Found, find, footer, partitions, url};
use super::mapping::target;
use super::remote;
use super::types::{Column, unified};

/// The columns that a room declares it reads of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    /// Those it knows by name.
    pub fields: Vec<Field>,
    /// Whether the input's further columns come along under their own names.
    pub open: bool,
}

/// One path or several.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub enum Paths {
    /// A file, a folder or a glob.
    One(String),
    /// Several of them.
    Many(Vec<String>),
}

/// Where an input is and how its columns map onto the contract's.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Parquet file, folder (hive partitions welcome), glob, or a list of them.
    pub path: Paths,
    /// Contract column = the input's column. Columns of the same name need no entry.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// Contract column = one constant value for every row.
    #[serde(default)]
    pub constant: BTreeMap<String, String>,
    /// A file with one `SELECT … FROM source` whose result has the contract's columns.
    #[serde(default)]
    pub sql: Option<PathBuf>,
    /// Items only: the columns whose text describes the item, in order.
    #[serde(default)]
    pub text: Option<Vec<String>>,
}

/// What a contract column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string or an integer that names something.
    Id,
    /// The same of a person: its pseudonym is read where there is a key for them.
    User,
    /// A string; numbers and booleans are printed.
    Text,
    /// A moment: timestamp of any unit and zone (none: UTC), date, or integer epoch.
    Time,
    /// A number.
    Number,
    /// True or false.
    Bool,
}

/// A column that a room declares it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in the contract.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// Whether the input must have it; where it may be missing, it reads as null.
    pub required: bool,
}

/// An input whose files have been found and whose columns have been checked.
#[derive(Clone, Debug)]
pub struct Input {
    pub(super) config: Config,
    pub(super) sql: Option<String>,
    pub(super) access: Access,
    pub(super) partitions: Vec<String>,
    /// The columns of all files together, each of a type that holds every file's.
    pub(super) schema: SchemaRef,
    /// Its files, sorted by path.
    pub files: Vec<SourceFile>,
    /// The type each contract id had before it was unified, by column name.
    pub id_types: BTreeMap<String, DataType>,
    /// Columns of the contract that the input has.
    pub present: Vec<String>,
}

/// Why an input was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No file is there.
    #[error("{path}: expected a Parquet file, a folder of them or a glob; found nothing")]
    Missing {
        /// The path as the job gives it.
        path: String,
    },
    /// The path's pattern does not parse.
    #[error("{path}: this glob does not parse")]
    Pattern {
        /// The path as the job gives it.
        path: String,
        /// What is wrong with it.
        #[source]
        source: glob::PatternError,
    },
    /// A store refused.
    #[error(transparent)]
    Store(#[from] super::store::Error),
    /// The file system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system reported.
        #[source]
        source: std::io::Error,
    },
    /// The file is not Parquet, or is damaged.
    #[error("{}: expected a Parquet file; its footer cannot be read", path.display())]
    Footer {
        /// The file.
        path: PathBuf,
        /// What the reader reported.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// The footer is whole but rows are not.
    #[error("{}: expected a Parquet file; its rows cannot be read from about row {row} on", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first row of the batch that failed.
        row: u64,
        /// What the reader reported.
        #[source]
        source: Box<DataFusionError>,
    },
    /// All files together have no row.
    #[error("{path}: expected rows; found {files} file(s) with none")]
    Empty {
        /// The path as the job gives it.
        path: String,
        /// How many files were found.
        files: usize,
    },
    /// A column is not there.
    #[error("{}: expected a column `{column}` for `{field}`; found {}", path.display(), available.join(", "))]
    MissingColumn {
        /// The file, or the source SQL.
        path: PathBuf,
        /// The column looked for.
        column: String,
        /// The contract's column.
        field: String,
        /// The columns it has.
        available: Vec<String>,
    },
    /// A column that may be missing is there in other letters.
    #[error("{}: expected a column `{field}`; found `{found}`, in another case", path.display())]
    OtherCase {
        /// The file, or the source SQL.
        path: PathBuf,
        /// The contract's column.
        field: String,
        /// The column it has.
        found: String,
    },
    /// A column's type cannot become the contract's.
    #[error("{}: column `{column}`: expected {expected} for `{field}`; found {found}", path.display())]
    WrongType {
        /// The file, or the source SQL.
        path: PathBuf,
        /// The column.
        column: String,
        /// The contract's column.
        field: String,
        /// What would do.
        expected: &'static str,
        /// The type it has.
        found: DataType,
    },
    /// Files of one input disagree on a column's type.
    #[error("{}: column `{column}`: expected {expected} as in the input's first file; found {found}", path.display())]
    Disagree {
        /// The file that differs.
        path: PathBuf,
        /// The column.
        column: String,
        /// The first file's type.
        expected: DataType,
        /// This file's type.
        found: DataType,
    },
    /// A constant cannot become the contract's type.
    #[error("`constant.{field}`: expected {expected}; found `{found}`")]
    Constant {
        /// The contract's column.
        field: String,
        /// What would do.
        expected: &'static str,
        /// The value given.
        found: String,
    },
    /// A mapped column is not part of the contract.
    #[error("`{key}.{field}`: expected one of {}; found `{field}`", known.join(", "))]
    UnknownField {
        /// `columns` or `constant`.
        key: &'static str,
        /// The name given.
        field: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The source SQL does not run.
    #[error("{}: this statement over `source` does not run", path.display())]
    Sql {
        /// The SQL file.
        path: PathBuf,
        /// What DataFusion reported.
        #[source]
        source: Box<DataFusionError>,
    },
    /// The files cannot be registered as one table.
    #[error("cannot read the input `{name}`")]
    Register {
        /// The table.
        name: String,
        /// What DataFusion reported.
        #[source]
        source: Box<DataFusionError>,
    },
}

impl Field {
    /// A column that must be there.
    pub fn required(name: &str, kind: Kind) -> Self {
        Self { name: name.to_owned(), kind, required: true }
    }

    /// A column that may be missing.
    pub fn optional(name: &str, kind: Kind) -> Self {
        Self { name: name.to_owned(), kind, required: false }
    }
}

impl Kind {
    fn expected(self) -> &'static str {
        match self {
            Self::Id | Self::User => "a string or an integer",
            Self::Text => "a string",
            Self::Time => "a timestamp, a date or an integer epoch",
            Self::Number => "a number",
            Self::Bool => "a boolean",
        }
    }

    fn accepts(self, found: &DataType) -> bool {
        let value = match found {
            DataType::Dictionary(_, value) => value.as_ref(),
            other => other,
        };
        let text = matches!(value, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let plain_number = value.is_numeric();
        if *value == DataType::Null {
            return true;
        }
        match self {
            Self::Id | Self::User => text || value.is_integer(),
            Self::Text => text || plain_number || *value == DataType::Boolean,
            Self::Time => {
                value.is_integer()
                    || matches!(value, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
            }
            Self::Number => plain_number,
            Self::Bool => *value == DataType::Boolean || value.is_integer(),
        }
    }
}

impl Config {
    /// The input at a path whose columns are the contract's.
    pub fn of(path: &str) -> Self {
        Self {
            path: Paths::One(path.to_owned()),
            columns: BTreeMap::new(),
            constant: BTreeMap::new(),
            sql: None,
            text: None,
        }
    }

    /// The paths as the job gives them.
    pub fn paths(&self) -> Vec<&str> {
        match &self.path {
            Paths::One(path) => vec![path],
            Paths::Many(paths) => paths.iter().map(String::as_str).collect(),
        }
    }

    fn display(&self) -> String {
        self.paths().join(", ")
    }
}

/// Finds an input's files and checks every footer against the contract. Reads no rows.
///
/// # Errors
/// See [`Error`].
pub fn discover(config: &Config, contract: &Contract, access: &Access) -> Result<Input, Error> {
    let fields = &contract.fields;
    for (key, names) in [
        ("columns", config.columns.keys().collect::<Vec<_>>()),
        ("constant", config.constant.keys().collect()),
    ] {
        if let Some(name) = names.into_iter().find(|name| fields.iter().all(|field| field.name != **name)) {
            let known = fields.iter().map(|field| field.name.clone()).collect();
            return Err(Error::UnknownField { key, field: name.clone(), known });
        }
    }
    for (name, value) in &config.constant {
        let Some(field) = fields.iter().find(|field| field.name == *name) else { continue };
        let value: ArrayRef = Arc::new(StringArray::from(vec![value.as_str()]));
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        if cast_with_options(&value, &target(field.kind, value.data_type()), &strict).is_err() {
            let (field, expected) = (name.clone(), field.kind.expected());
            return Err(Error::Constant { field, expected, found: config.constant[name].clone() });
        }
    }
    let mut files = Vec::new();
    for path in config.paths() {
        files.extend(find(path, access)?);
    }
    files.sort();
    files.dedup();
    let sql = match &config.sql {
        Some(path) => {
            Some(std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.clone(), source })?)
        }
        None => None,
    };
    let mut input = Input {
        config: config.clone(),
        sql,
        access: access.clone(),
        partitions: partitions(&files.iter().map(Found::path).collect::<Vec<_>>()),
        schema: Arc::new(Schema::empty()),
        files: Vec::new(),
        id_types: BTreeMap::new(),
        present: Vec::new(),
    };
    let needed: Vec<String> = fields.iter().map(|field| input.column(field)).collect();
    let mut columns: Vec<Column> = Vec::new();
    let footers = files.iter().zip(remote::footers(&files, access)?);
    let footers = footers.map(|(found, read)| read.map_or_else(|| footer(&found.path()), Ok));
    let footers: Vec<(SourceFile, Schema)> = footers.collect::<Result<_, _>>()?;
    // What files hold themselves their path only repeats, as text.
    input.partitions.retain(|key| footers.iter().all(|(_, schema)| schema.field_with_name(key).is_err()));
    for (file, schema) in footers {
        let path = file.path.clone();
        if input.sql.is_none() {
            input.check_columns(&path, &schema, fields)?;
        }
        for field in schema.fields() {
            let known = columns.iter_mut().find(|column| column.name == *field.name());
            match known {
                None => columns.push(Column::new(field)),
                Some(column) => {
                    let read = contract.open || input.sql.is_some() || needed.contains(&column.name);
                    column.meet(&path, field, read)?
                }
            }
        }
        input.files.push(file);
    }
    let kept = columns
        .into_iter()
        .filter_map(|column| Some(ArrowField::new(column.name, unified(&column.found?), true)));
    input.schema = Arc::new(Schema::new(kept.collect::<Vec<_>>()));
    if input.sql.is_none() {
        let schema = input.schema.clone();
        input.remember(&schema, fields);
    }
    if input.files.iter().all(|file| file.rows == 0) {
        return Err(Error::Empty { path: config.display(), files: input.files.len() });
    }
    if input.sql.is_some() {
        input.check_statement(fields)?;
    }
    Ok(input)
}

impl Input {
    /// Reads every row of every file, to find the one that a failed statement stumbled over.
    ///
    /// # Errors
    /// The first file that cannot be read to its end.
    pub fn verify(&self) -> Result<(), Error> {
        let runtime = remote::runtime()?;
        let session = SessionContext::new_with_config(super::settings());
        self.register_stores(&session)?;
        runtime.block_on(async {
            for file in &self.files {
                let damaged = |row, source| {
                    let (path, source) = (file.path.clone(), Box::new(source));
                    Error::Damaged { path, row, source }
                };
                let options = ParquetReadOptions::default().file_extension("");
                let mut row = 0;
                let frame = session.read_parquet(url(&file.path), options).await;
                let rows = match frame {
                    Ok(frame) => frame.execute_stream().await,
                    Err(error) => Err(error),
                };
                let mut rows = rows.map_err(|source| damaged(row, source))?;
                while let Some(batch) = rows.next().await {
                    row += batch.map_err(|source| damaged(row, source))?.num_rows() as u64;
                }
            }
            Ok(())
        })
    }

    /// Makes the stores that its files are in known to a session.
    pub(super) fn register_stores(&self, session: &SessionContext) -> Result<(), Error> {
        remote::register(session, self.files.iter().filter_map(|file| file.path.to_str()), &self.access)
    }

    /// Everything that decides what is read from it: files, mapping, statement.
    pub fn describe(&self) -> String {
        // Other pseudonyms are other ids, and tell nothing of the key.
        let mut text = format!("{:?}\n{:?}\n{}\n", self.config, self.sql, self.access.pseudonym(""));
        for file in &self.files {
            text += &format!("{} {} {} {}\n", file.path.display(), file.size, file.modified_ns, file.etag);
        }
        text
    }

    /// All rows of all files.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    pub(super) fn column(&self, field: &Field) -> String {
        self.config.columns.get(&field.name).cloned().unwrap_or_else(|| field.name.clone())
    }

    fn check_columns(&self, path: &Path, schema: &Schema, fields: &[Field]) -> Result<(), Error> {
        for field in fields.iter().filter(|field| !self.config.constant.contains_key(&field.name)) {
            let column = self.column(field);
            let found = match schema.field_with_name(&column) {
                Ok(found) => found.data_type().clone(),
                Err(_) if self.is_in_paths(&column) => DataType::Utf8,
                Err(_) if !field.required && !self.config.columns.contains_key(&field.name) => {
                    let is_meant = |found: &&Arc<ArrowField>| {
                        found.name().eq_ignore_ascii_case(&column)
                            && fields.iter().all(|field| self.column(field) != *found.name())
                    };
                    if let Some(found) = schema.fields().iter().find(is_meant) {
                        let (path, found) = (path.to_owned(), found.name().clone());
                        return Err(Error::OtherCase { path, field: field.name.clone(), found });
                    }
                    continue;
                }
                Err(_) => {
                    let available = schema.fields().iter().map(|f| f.name().clone()).collect();
                    let (path, field) = (path.to_owned(), field.name.clone());
                    return Err(Error::MissingColumn { path, column, field, available });
                }
            };
            if !field.kind.accepts(&found) {
                let (path, expected) = (path.to_owned(), field.kind.expected());
                return Err(Error::WrongType { path, column, field: field.name.clone(), expected, found });
            }
        }
        Ok(())
    }

    /// Notes which fields there are, and the type that ids keep in the output.
    fn remember(&mut self, schema: &Schema, fields: &[Field]) {
        for field in fields {
            let column = self.column(field);
            let found = schema.field_with_name(&column).ok().map(|found| unified(found.data_type()));
            let given = self.config.constant.contains_key(&field.name) || self.is_in_paths(&column);
            if found.is_some() || given {
                self.present.push(field.name.clone());
                let hashed = field.kind == Kind::User && self.access.has_pseudonyms();
                let found = found.filter(|_| !hashed).unwrap_or(DataType::Utf8);
                if [Kind::Id, Kind::User].contains(&field.kind) {
                    self.id_types.insert(field.name.clone(), found);
                }
            }
        }
    }

    /// The schema of rows that hold ids as stages do, with the types that the input has them in.
    pub(super) fn with_id_types(&self, schema: &Schema) -> SchemaRef {
        let fields = schema.fields().iter().map(|field| {
            let id = self.id_types.get(field.name()).filter(|_| field.data_type().is_numeric());
            id.map_or_else(|| field.clone(), |id| Arc::new(field.as_ref().clone().with_data_type(id.clone())))
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Whether the files' paths tell a column; a statement has such columns only where it selects them.
    fn is_in_paths(&self, column: &String) -> bool {
        self.sql.is_none() && self.partitions.contains(column)
    }

    /// Whether the rows' own path tells something that is read.
    pub(super) fn reads_partitions(&self) -> bool {
        let mapped = |key: &String| {
            self.config.columns.values().any(|column| column == key) || self.present.contains(key)
        };
        self.sql.is_some() || self.partitions.iter().any(mapped)
    }

    /// Plans the source statement, so that its mistakes are found before any work.
    fn check_statement(&mut self, fields: &[Field]) -> Result<(), Error> {
        let runtime = remote::runtime()?;
        let path = self.config.sql.clone().unwrap_or_default();
        let session = super::with_functions(SessionContext::new_with_config(super::settings()));
        let frame = runtime.block_on(super::mapping::source(&session, "input", self))?;
        let schema = frame.schema().as_arrow().clone();
        self.check_columns(&path, &schema, fields)?;
        self.remember(&schema, fields);
        Ok(())
    }
}
