//! The IO edge: Parquet in, SQL over it, Parquet out.
//!
//! A [`Lake`] owns the one DataFusion session and the one async runtime of a run; every call is
//! synchronous. Inputs are [discovered](input::discover) and checked by their footers before any
//! row is read, mapped onto the columns a room declares, and registered as tables. Statements come
//! from files under `sql/` with parameters bound, never pasted in; their results are written to
//! Parquet as a stream or read back as Arrow. Inputs in an object [store] are read by ranges, as a statement
//! needs them. Beside SQL's own functions there are `fingerprint`, `packed`, `pair`, `first_of` and `second_of`, and the
//! window functions `repeats`, `previous`, `latest` and `count_so_far`.
//!
//! Memory: the session's pool is bounded by [`Config::memory_bytes`]; sorts and aggregations spill
//! to [`Config::spill_dir`] beyond it. Determinism: the partition count is [`Config::threads`], and
//! statements that feed models sum integers and end in a total order.
//!
//! It never interprets what a column means, and no other module sees DataFusion, tokio or a store's library.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::plan_err;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::common::spawn_buffered;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::DFParser;
use futures::StreamExt;

mod access;
mod by_batch;
pub mod disk;
mod files;
pub mod input;
mod keys;
mod mapping;
mod remote;
mod running;
pub mod store;
pub mod table;
mod types;

pub use access::Access;

/// How much of the machine the session may use.
#[derive(Clone, Debug)]
pub struct Config {
    /// Worker threads and table partitions.
    pub threads: usize,
    /// The pool for sorts, joins and aggregations, in bytes.
    pub memory_bytes: usize,
    /// Where sorts and aggregations spill; nowhere, they fail instead.
    pub spill_dir: Option<PathBuf>,
}

/// A value bound to a `$name` in a statement.
#[derive(Clone, Debug)]
pub enum Param {
    /// True or false.
    Bool(bool),
    /// A 64-bit integer.
    Int(i64),
    /// A 64-bit float.
    Float(f64),
    /// A string.
    Text(String),
    /// A moment in microseconds since 1970 UTC.
    Time(i64),
}

/// Who reads a table that a statement writes, which decides how it is encoded.
#[derive(Clone, Copy, Debug)]
pub enum Readers<'a> {
    /// The stages that follow, and nobody else.
    Stages,
    /// Everybody: the file is published as it is, ids in the types that they have in this input.
    Anybody(&'a input::Input),
}

/// What the lake can fail with once inputs have passed their checks.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The session could not be made.
    #[error("cannot start the SQL engine")]
    Session(#[source] Box<DataFusionError>),
    /// The async runtime could not be made.
    #[error("cannot start the IO threads")]
    Runtime(#[source] std::io::Error),
    /// A statement failed.
    #[error("the statement `{statement}` failed")]
    Sql {
        /// The statement's file name or purpose.
        statement: String,
        /// What DataFusion reported.
        #[source]
        source: Box<DataFusionError>,
    },
    /// A statement that somebody typed failed, or is none that only reads.
    #[error("the statement failed")]
    Refused {
        /// What DataFusion reported.
        #[source]
        source: Box<DataFusionError>,
    },
    /// A Parquet file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the reader reported.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// A table could not be written.
    #[error(transparent)]
    Table(#[from] table::Error),
    /// A store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// An input was refused.
    #[error(transparent)]
    Input(#[from] input::Error),
}

/// The session of one run. See the [module](self).
pub struct Lake {
    runtime: tokio::runtime::Runtime,
    session: SessionContext,
}

/// A thread's memory for each row of a batch, between the bounds of a batch.
const BYTES_A_ROW: usize = 32 << 10;
/// Of it, what a sort that spills sets aside for merging.
const SET_ASIDE_A_ROW: usize = 1280;

/// How every session reads files.
fn settings() -> SessionConfig {
    // Times of 96 bits, as Spark writes them, reach further than nanoseconds do.
    SessionConfig::new().set_str("datafusion.execution.parquet.coerce_int96", "us")
}

/// A session that knows the functions that statements have beside SQL's own.
fn with_functions(session: SessionContext) -> SessionContext {
    running::functions().into_iter().for_each(|function| session.register_udwf(function));
    keys::functions().into_iter().for_each(|function| session.register_udf(function));
    session
}

impl Lake {
    /// Starts the session.
    ///
    /// # Errors
    /// If threads or the spill folder cannot be had.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.threads)
            .thread_name("lake")
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        let spill = match &config.spill_dir {
            Some(folder) => DiskManagerMode::Directories(vec![folder.clone()]),
            None => DiskManagerMode::Disabled,
        };
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(config.memory_bytes)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(spill))
            .build_arc()
            .map_err(|source| Error::Session(Box::new(source)))?;
        // Runs of a sort are as long as a batch, and four times as long ones merge in half the time; but a merge
        // holds a batch of each, for which memory is set aside.
        let batch_rows = (config.memory_bytes / config.threads / BYTES_A_ROW).clamp(8 * 1024, 32 * 1024);
        let settings = settings()
            .with_target_partitions(config.threads)
            .with_batch_size(batch_rows)
            .with_sort_spill_reservation_bytes(batch_rows * SET_ASIDE_A_ROW)
            // Rows dealt out to threads for a projection would have to be merged again.
            .with_round_robin_repartition(false)
            // Without statistics no plan turns a join round: the left side is held, the right one streams.
            .with_repartition_joins(false)
            .with_information_schema(true)
            // A column of one value and NaNs has equal bounds, and would be folded into the one value.
            .with_collect_statistics(false)
            // What a join learns of its held side is compared, in scans, with columns of another string type.
            .set_bool("datafusion.optimizer.enable_join_dynamic_filter_pushdown", false)
            .set_bool("datafusion.sql_parser.enable_ident_normalization", true);
        let state = SessionStateBuilder::new()
            .with_config(settings)
            .with_runtime_env(environment)
            .with_default_features()
            .with_physical_optimizer_rule(Arc::new(by_batch::Rule))
            .build();
        let session = with_functions(SessionContext::new_with_state(state));
        Ok(Self { runtime, session })
    }

    /// Registers an input under `name`, with the columns that the contract declares, in their order.
    ///
    /// # Errors
    /// If the input's own SQL fails, or its result does not fit the contract.
    pub fn register_input(
        &self,
        name: &str,
        input: &input::Input,
        contract: &input::Contract,
    ) -> Result<(), Error> {
        self.runtime.block_on(mapping::register(&self.session, name, input, contract))
    }

    /// Registers one Parquet file that an earlier statement wrote.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn register_file(&self, name: &str, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::Sql { statement: name.to_owned(), source: Box::new(source) };
        self.runtime.block_on(async {
            self.session.deregister_table(name).map_err(failed)?;
            let url = files::url(path);
            let extension = if path.is_dir() { ".parquet" } else { "" };
            let options = ParquetReadOptions::default().file_extension(extension);
            self.session.register_parquet(name, url, options).await.map_err(failed)
        })
    }

    /// Registers rows held in memory.
    ///
    /// # Errors
    /// If the name cannot be used.
    pub fn register_rows(&self, name: &str, rows: RecordBatch) -> Result<(), Error> {
        let failed = |source| Error::Sql { statement: name.to_owned(), source: Box::new(source) };
        self.session.deregister_table(name).map_err(failed)?;
        self.session.register_batch(name, rows).map_err(failed)?;
        Ok(())
    }

    /// Makes the result of a statement available as a view.
    ///
    /// # Errors
    /// If the statement does not parse, or names what is not there.
    pub fn define(&self, view: &str, sql: &str, params: &[(&str, Param)]) -> Result<(), Error> {
        let _span = tracing::info_span!(target: "profile", "sql", of = view).entered();
        let failed = |source| Error::Sql { statement: view.to_owned(), source: Box::new(source) };
        let frame = self.runtime.block_on(self.frame(sql, params)).map_err(failed)?;
        self.session.deregister_table(view).map_err(failed)?;
        self.session.register_table(view, frame.into_view()).map_err(failed)?;
        Ok(())
    }

    /// The names of a table's columns.
    ///
    /// # Errors
    /// If there is no such table.
    pub fn columns(&self, table: &str) -> Result<Vec<String>, Error> {
        Ok(self.schema(table)?.fields().iter().map(|field| field.name().clone()).collect())
    }

    /// The names of a table's columns whose values can be told as text.
    ///
    /// # Errors
    /// If there is no such table.
    pub fn plain_columns(&self, table: &str) -> Result<Vec<String>, Error> {
        let schema = self.schema(table)?;
        let plain = schema.fields().iter().filter(|field| {
            let found = match field.data_type() {
                DataType::Dictionary(_, value) => value,
                other => other,
            };
            found.is_string() || found.is_numeric() || *found == DataType::Boolean || found.is_temporal()
        });
        Ok(plain.map(|field| field.name().clone()).collect())
    }

    /// A table's columns.
    ///
    /// # Errors
    /// If there is no such table.
    pub fn schema(&self, table: &str) -> Result<SchemaRef, Error> {
        let failed = |source| Error::Sql { statement: table.to_owned(), source: Box::new(source) };
        let frame = self.runtime.block_on(self.session.table(table)).map_err(failed)?;
        Ok(Arc::new(frame.schema().as_arrow().clone()))
    }

    /// Whether a text is one SQL statement; what it names is not looked for.
    ///
    /// # Errors
    /// If it does not parse.
    pub fn parse(&self, statement: &str, sql: &str) -> Result<(), Error> {
        let parsed = DFParser::parse_sql(sql).and_then(|statements| match statements.len() {
            1 => Ok(()),
            found => plan_err!("expected one statement; found {found}"),
        });
        parsed.map_err(|source| Error::Sql { statement: statement.to_owned(), source: Box::new(source) })
    }

    /// Runs a statement and collects its rows.
    ///
    /// # Errors
    /// If the statement fails; `statement` names it in the error.
    pub fn query(&self, statement: &str, sql: &str, params: &[(&str, Param)]) -> Result<RecordBatch, Error> {
        let _span = tracing::info_span!(target: "profile", "sql", of = statement).entered();
        let failed = |source| Error::Sql { statement: statement.to_owned(), source: Box::new(source) };
        self.runtime.block_on(async {
            let frame = self.frame(sql, params).await.map_err(failed)?;
            collect(frame).await.map_err(failed)
        })
    }

    /// Runs a statement and streams its rows into one Parquet file.
    ///
    /// # Errors
    /// If the statement or the writing fails; no file is left then.
    pub fn write(
        &self,
        statement: &str,
        sql: &str,
        params: &[(&str, Param)],
        path: &Path,
        readers: Readers<'_>,
    ) -> Result<u64, Error> {
        let _span = tracing::info_span!(target: "profile", "sql", of = statement).entered();
        let failed = |source| Error::Sql { statement: statement.to_owned(), source: Box::new(source) };
        self.runtime.block_on(async {
            let frame = self.frame(sql, params).await.map_err(failed)?;
            // Rows are made on the session's threads while this one encodes those before them.
            let mut rows = spawn_buffered(frame.execute_stream().await.map_err(failed)?, 2);
            let plain = table::plain(&rows.schema());
            let (schema, mut writer) = match readers {
                Readers::Stages => (plain.clone(), table::Writer::between_stages(path, plain)?),
                Readers::Anybody(input) => {
                    let schema = input.with_id_types(&plain);
                    (schema.clone(), table::Writer::create(path, schema, &table::Layout::default())?)
                }
            };
            while let Some(batch) = rows.next().await {
                let batch = table::cast(&batch.map_err(failed)?, &schema)
                    .map_err(|error| failed(DataFusionError::from(error)))?;
                writer.write(&batch)?;
            }
            Ok(writer.finish()?.rows)
        })
    }

    /// Runs a statement that may only read, as people type them.
    ///
    /// # Errors
    /// If it would change anything, or fails.
    pub fn ask(&self, sql: &str) -> Result<RecordBatch, Error> {
        let failed = |source| Error::Refused { source: Box::new(source) };
        let reads =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        self.runtime.block_on(async {
            let frame = self.session.sql_with_options(sql, reads).await.map_err(failed)?;
            collect(frame).await.map_err(failed)
        })
    }

    async fn frame(&self, sql: &str, params: &[(&str, Param)]) -> Result<DataFrame, DataFusionError> {
        let frame = self.session.sql(sql).await?;
        if params.is_empty() {
            return Ok(frame);
        }
        let values: Vec<(String, ScalarValue)> =
            params.iter().map(|(name, value)| ((*name).to_owned(), value.scalar())).collect();
        frame.with_param_values(values)
    }
}

/// A result in one batch.
async fn collect(frame: DataFrame) -> Result<RecordBatch, DataFusionError> {
    let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await?;
    // A result's nullability may differ batch by batch from the plan's; the batches' own is right.
    let schema = batches.first().map_or(schema, RecordBatch::schema);
    Ok(arrow::compute::concat_batches(&schema, &batches)?)
}

impl Param {
    fn scalar(&self) -> ScalarValue {
        match self {
            Self::Bool(value) => ScalarValue::Boolean(Some(*value)),
            Self::Int(value) => ScalarValue::Int64(Some(*value)),
            Self::Float(value) => ScalarValue::Float64(Some(*value)),
            Self::Text(value) => ScalarValue::Utf8(Some(value.clone())),
            Self::Time(micros) => ScalarValue::TimestampMicrosecond(Some(*micros), Some("+00:00".into())),
        }
    }
}

/// A column's name as SQL has it, whatever it holds.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `, value_0, value_1, …`: columns as text for a statement's `SELECT`, blank ones null.
pub fn as_text(columns: &[&str]) -> String {
    let text = |(at, name): (usize, &&str)| {
        format!(", nullif(btrim(CAST({} AS VARCHAR)), '') AS value_{at}", quoted(name))
    };
    columns.iter().enumerate().map(text).collect()
}

/// The columns of one Parquet file.
///
/// # Errors
/// If it cannot be read.
pub fn columns(path: &Path) -> Result<SchemaRef, Error> {
    table::columns(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Reads columns of one Parquet file whole, in the order asked for.
///
/// # Errors
/// If the file cannot be read or lacks a column.
pub fn read(path: &Path, columns: &[&str]) -> Result<RecordBatch, Error> {
    table::read(path, columns).map_err(|source| Error::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
