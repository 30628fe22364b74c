//! An input's files as one table with the contract's columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::common::Column;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::{Expr, ParquetReadOptions, SessionContext, cast, lit, try_cast, when};
use datafusion::scalar::ScalarValue;

use super::access::Access;
use super::files::{partition_values, url};
use super::input::{self, Contract, Error, Input, Kind};

/// The rows of an input's files, or of its source statement over them.
pub(super) async fn source(session: &SessionContext, name: &str, input: &Input) -> Result<DataFrame, Error> {
    let failed = |source| Error::Register { name: name.to_owned(), source: Box::new(source) };
    input.register_stores(session)?;
    // Read as the contract has them, strings need no cast.
    let as_read = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => field.as_ref().clone().with_data_type(DataType::Utf8View),
        _ => field.as_ref().clone(),
    };
    let schema = Schema::new(input.schema.fields().iter().map(as_read).collect::<Vec<_>>());
    let read = async |files: Vec<String>| {
        // Exactly the files that were checked, and each with the columns that all of them make up.
        let options = ParquetReadOptions::default().file_extension("").schema(&schema);
        session.read_parquet(files, options).await
    };
    let frame = if input.reads_partitions() {
        let mut groups: BTreeMap<Vec<(String, Option<String>)>, Vec<String>> = BTreeMap::new();
        for file in &input.files {
            groups.entry(partition_values(&file.path)).or_default().push(url(&file.path));
        }
        let mut all: Option<DataFrame> = None;
        for (values, files) in groups {
            let mut frame = read(files).await.map_err(failed)?;
            for (key, value) in values.into_iter().filter(|(key, _)| input.partitions.contains(key)) {
                frame = frame.with_column(&key, lit(ScalarValue::Utf8View(value))).map_err(failed)?;
            }
            all = Some(match all {
                Some(all) => all.union(frame).map_err(failed)?,
                None => frame,
            });
        }
        all.ok_or_else(|| Error::Missing { path: input.config.paths().join(", ") })?
    } else {
        read(input.files.iter().map(|file| url(&file.path)).collect()).await.map_err(failed)?
    };
    let Some(statement) = &input.sql else { return Ok(frame) };
    let path = input.config.sql.clone().unwrap_or_default();
    let failed = |source| Error::Sql { path: path.clone(), source: Box::new(source) };
    session.deregister_table("source").map_err(failed)?;
    session.register_table("source", frame.into_view()).map_err(failed)?;
    session.sql(statement).await.map_err(failed)
}

/// Registers the input under `name`, its columns mapped and cast onto the contract's.
pub(super) async fn register(
    session: &SessionContext,
    name: &str,
    input: &Input,
    contract: &Contract,
) -> Result<(), super::Error> {
    let failed = |source| Error::Register { name: name.to_owned(), source: Box::new(source) };
    let frame = source(session, name, input).await?;
    let schema = frame.schema().as_arrow().clone();
    let fields = &contract.fields;
    let mut columns: Vec<Expr> =
        fields.iter().map(|field| mapped(input, field, &schema)).collect::<Result<_, _>>().map_err(failed)?;
    if contract.open {
        let known =
            |name: &String| fields.iter().any(|field| field.name == *name || input.column(field) == *name);
        let further = schema.fields().iter().map(|field| field.name()).filter(|name| !known(name));
        columns.extend(further.map(|name| Expr::Column(Column::from_name(name))));
    }
    let frame = frame.select(columns).map_err(failed)?;
    session.deregister_table(name).map_err(failed)?;
    session.register_table(name, frame.into_view()).map_err(failed)?;
    Ok(())
}

fn mapped(input: &Input, field: &input::Field, schema: &Schema) -> Result<Expr, DataFusionError> {
    let name = &field.name;
    if let Some(value) = input.config.constant.get(name) {
        return Ok(cast(lit(value.clone()), target(field.kind, &DataType::Utf8)).alias(name));
    }
    let column = input.column(field);
    let Ok(found) = schema.field_with_name(&column) else {
        let null = lit(ScalarValue::Null);
        return Ok(cast(null, target(field.kind, &DataType::Null)).alias(name));
    };
    let value = Expr::Column(Column::from_name(column));
    let found = match found.data_type() {
        DataType::Dictionary(_, value) => value.as_ref(),
        other => other,
    };
    let value = match field.kind {
        Kind::Time if found.is_integer() => epoch(try_cast(value, DataType::Int64))?,
        // Cast to microseconds outright, milliseconds of a date overflow unseen.
        Kind::Time if *found == DataType::Date64 => {
            try_cast(value, DataType::Timestamp(TimeUnit::Millisecond, None))
        }
        // pandas writes what is missing as NaN, which is no text; no sum survives one, nor an infinity.
        Kind::Number | Kind::Text if found.is_floating() => {
            let number = cast(value.clone(), DataType::Float64);
            when(number.between(lit(f64::MIN), lit(f64::MAX)), cast(value, found.clone())).end()?
        }
        Kind::User if input.access.has_pseudonyms() => {
            return Ok(pseudonyms(&input.access).call(vec![cast(value, DataType::Utf8View)]).alias(name));
        }
        _ => value,
    };
    let target = target(field.kind, found);
    // A time that microseconds cannot tell is no time, which is a fault of the row and not of the night.
    let value = if field.kind == Kind::Time { try_cast(value, target) } else { cast(value, target) };
    Ok(value.alias(name))
}

pub(super) fn target(kind: Kind, found: &DataType) -> DataType {
    match kind {
        // Hashed ids use all 64 bits, which no signed integer holds.
        Kind::Id | Kind::User if *found == DataType::UInt64 => DataType::Decimal128(20, 0),
        Kind::Id | Kind::User if found.is_integer() => DataType::Int64,
        Kind::Id | Kind::User | Kind::Text => DataType::Utf8View,
        Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("+00:00"))),
        Kind::Number => DataType::Float64,
        Kind::Bool => DataType::Boolean,
    }
}

/// Ids of users to their pseudonyms, nulls to nulls.
fn pseudonyms(access: &Access) -> ScalarUDF {
    let access = access.clone();
    let hash = move |args: &[ColumnarValue]| {
        let ids = ColumnarValue::values_to_arrays(args)?;
        let ids = arrow::compute::cast(&ids[0], &DataType::Utf8View)?;
        let hashed: StringViewArray =
            ids.as_string_view().iter().map(|id| id.map(|id| access.pseudonym(id))).collect();
        Ok(ColumnarValue::Array(Arc::new(hashed)))
    };
    let (from, to) = (vec![DataType::Utf8View], DataType::Utf8View);
    create_udf("pseudonym", from, to, Volatility::Immutable, Arc::new(hash))
}

/// Seconds, milliseconds, microseconds or nanoseconds, told apart by magnitude: each unit's range
/// below is the years 1973 to 5138 in that unit, so that no real event is ambiguous. Before
/// 1973 only seconds are known, as far back as they reach forward; what is below them is no time.
fn epoch(value: Expr) -> Result<Expr, DataFusionError> {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    let scaled = when(value.clone().lt(lit(-100_000_000_000_i64)), lit(ScalarValue::Int64(None)))
        .when(value.clone().lt(lit(100_000_000_000_i64)), value.clone() * lit(1_000_000_i64))
        .when(value.clone().lt(lit(100_000_000_000_000_i64)), value.clone() * lit(1_000_i64))
        .when(value.clone().lt(lit(100_000_000_000_000_000_i64)), value.clone())
        .otherwise(value / lit(1_000_i64))?;
    Ok(cast(scaled, micros))
}
