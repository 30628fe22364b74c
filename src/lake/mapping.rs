//! An input's files as one table with the contract's columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::common::Column;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::prelude::{Expr, ParquetReadOptions, SessionContext, cast, lit, when};

use super::input::{Error, Field, Input, Kind, file_url};

/// The rows of an input's files, or of its source statement over them.
pub(super) async fn source(session: &SessionContext, name: &str, input: &Input) -> Result<DataFrame, Error> {
    let failed = |source| Error::Register { name: name.to_owned(), source: Box::new(source) };
    let frame = if input.partitions.is_empty() {
        let urls: Vec<String> = input.files.iter().map(|file| file_url(&file.path)).collect();
        let options = ParquetReadOptions::default().file_extension("");
        session.read_parquet(urls, options).await.map_err(failed)?
    } else {
        let columns = input.partitions.iter().map(|key| (key.clone(), DataType::Utf8)).collect();
        let options = ParquetReadOptions::default().table_partition_cols(columns);
        session.read_parquet(file_url(&input.roots[0]), options).await.map_err(failed)?
    };
    let Some(statement) = &input.sql else { return Ok(frame) };
    let path = input.config.sql.clone().unwrap_or_default();
    let failed = |source| Error::Sql { path: path.clone(), source: Box::new(source) };
    session.deregister_table("source").map_err(failed)?;
    session.register_table("source", frame.into_view()).map_err(failed)?;
    session.sql(statement).await.map_err(failed)
}

/// Registers the input under `name`, its columns mapped and cast onto `fields`.
pub(super) async fn register(
    session: &SessionContext,
    name: &str,
    input: &Input,
    fields: &[Field],
) -> Result<(), super::Error> {
    let failed = |source| Error::Register { name: name.to_owned(), source: Box::new(source) };
    let frame = source(session, name, input).await?;
    let schema = frame.schema().as_arrow().clone();
    let columns: Vec<Expr> =
        fields.iter().map(|field| mapped(input, field, &schema)).collect::<Result<_, _>>().map_err(failed)?;
    let frame = frame.select(columns).map_err(failed)?;
    session.deregister_table(name).map_err(failed)?;
    session.register_table(name, frame.into_view()).map_err(failed)?;
    Ok(())
}

fn mapped(input: &Input, field: &Field, schema: &Schema) -> Result<Expr, DataFusionError> {
    let name = &field.name;
    if let Some(value) = input.config.constant.get(name) {
        return Ok(cast(lit(value.clone()), target(field.kind, &DataType::Utf8)).alias(name));
    }
    let column = input.column(field);
    let Ok(found) = schema.field_with_name(&column) else {
        let null = lit(datafusion::scalar::ScalarValue::Null);
        return Ok(cast(null, target(field.kind, &DataType::Null)).alias(name));
    };
    let value = Expr::Column(Column::from_name(column));
    let found = found.data_type();
    let value = match field.kind {
        Kind::Time if found.is_integer() => epoch(cast(value, DataType::Int64))?,
        _ => value,
    };
    Ok(cast(value, target(field.kind, found)).alias(name))
}

fn target(kind: Kind, found: &DataType) -> DataType {
    match kind {
        Kind::Id if found.is_integer() => DataType::Int64,
        Kind::Id | Kind::Text => DataType::Utf8View,
        Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("+00:00"))),
        Kind::Number => DataType::Float64,
        Kind::Bool => DataType::Boolean,
    }
}

/// Seconds, milliseconds, microseconds or nanoseconds, told apart by magnitude: each unit's range
/// below is the years 1973 to 5138 in that unit, so that no real event is ambiguous.
fn epoch(value: Expr) -> Result<Expr, DataFusionError> {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    let scaled = when(value.clone().lt(lit(100_000_000_000_i64)), value.clone() * lit(1_000_000_i64))
        .when(value.clone().lt(lit(100_000_000_000_000_i64)), value.clone() * lit(1_000_i64))
        .when(value.clone().lt(lit(100_000_000_000_000_000_i64)), value.clone())
        .otherwise(value / lit(1_000_i64))?;
    Ok(cast(scaled, micros))
}
