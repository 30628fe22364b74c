//! Results → the columns of the published tables.
//!
//! Every list table is written through here: dense indices become external ids of the input's
//! type, scores become columns, evidence becomes a sentence.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, Float64Array, RecordBatch, StringArray,
    UInt16Array, UInt32Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;

use polars::prelude::DataFrame;

use crate::matrix::Dense;

use crate::error::Error;

/// External ids in the type that the input had.
pub(super) struct IdColumn {
    ids: ArrayRef,
    published: DataType,
}

impl IdColumn {
    /// `ids` by index, as the lake holds them; `published` is the input's own type.
    pub(super) fn new(ids: ArrayRef, published: DataType) -> Self {
        Self { ids, published }
    }

    /// More ids, published in the same type.
    pub(super) fn with(self, ids: ArrayRef) -> Self {
        Self { ids, ..self }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The ids at these indices; null where the index is `None`.
    pub(super) fn take(&self, indices: impl IntoIterator<Item = Option<u32>>) -> Result<ArrayRef, Error> {
        let indices: UInt32Array = indices.into_iter().collect();
        let taken = arrow::compute::take(&self.ids, &indices, None)?;
        Ok(arrow::compute::cast(&taken, &self.published)?)
    }

    /// The id as text, for people.
    pub(super) fn text(&self, at: usize) -> String {
        match (self.ids.as_string_opt::<i32>(), self.ids.as_primitive_opt::<Int64Type>()) {
            (Some(ids), _) => ids.value(at).to_owned(),
            (_, Some(ids)) => ids.value(at).to_string(),
            _ => array_value_to_string(&self.ids, at).unwrap_or_default(),
        }
    }
}

/// A folder in which an id's rows are: FNV-1a (64 bit) of the id as text, modulo the buckets. Any
/// reader can compute it in five lines, and it does not change from night to night.
pub(super) fn bucket(id: &str, buckets: u16) -> u16 {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash % u64::from(buckets)) as u16
}

/// A column and its name.
pub(super) type Named = (&'static str, ArrayRef);

/// A batch from columns; `nullable` names those that may hold nulls.
pub(super) fn batch(columns: Vec<Named>, nullable: &[&str]) -> Result<RecordBatch, Error> {
    let schema = schema(&columns, nullable);
    Ok(RecordBatch::try_new(schema, columns.into_iter().map(|(_, values)| values).collect())?)
}

fn schema(columns: &[Named], nullable: &[&str]) -> SchemaRef {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, values)| Field::new(*name, values.data_type().clone(), nullable.contains(name)))
        .collect();
    Arc::new(Schema::new(fields))
}

/// Ranks from 1 for lists of these lengths.
pub(super) fn ranks(lengths: impl IntoIterator<Item = usize>) -> ArrayRef {
    let ranks = lengths.into_iter().flat_map(|length| 1..=length as u16);
    Arc::new(UInt16Array::from_iter_values(ranks))
}

/// f32 values as a column.
pub(super) fn floats(values: impl IntoIterator<Item = f32>) -> ArrayRef {
    Arc::new(Float32Array::from_iter_values(values))
}

/// Strings as a column.
pub(super) fn strings<'a>(values: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// The metrics frame as a published table.
pub(super) fn metrics(frame: &DataFrame) -> Result<RecordBatch, Error> {
    let frame_error = |error| Error::Evaluation(crate::evaluation::Error::Frame(error));
    let text = |name: &str| -> Result<ArrayRef, Error> {
        let values = frame.column(name).and_then(|column| column.str()).map_err(frame_error)?;
        Ok(Arc::new(values.iter().collect::<StringArray>()))
    };
    let number = |name: &str| -> Result<ArrayRef, Error> {
        let values = frame.column(name).and_then(|column| column.f64()).map_err(frame_error)?;
        Ok(Arc::new(values.iter().collect::<Float64Array>()))
    };
    let count = |name: &str| -> Result<ArrayRef, Error> {
        let values = frame.column(name).and_then(|column| column.u32()).map_err(frame_error)?;
        Ok(Arc::new(values.iter().collect::<UInt32Array>()))
    };
    batch(
        vec![
            ("system", text("system")?),
            ("metric", text("metric")?),
            ("k", count("k")?),
            ("slice", text("slice")?),
            ("value", number("value")?),
            ("low", number("low")?),
            ("high", number("high")?),
            ("baseline", number("baseline")?),
            ("gain", number("gain")?),
            ("gain_low", number("gain_low")?),
            ("gain_high", number("gain_high")?),
            ("users", count("users")?),
        ],
        &["low", "high", "baseline", "gain", "gain_low", "gain_high"],
    )
}

/// Rows of a matrix as a FixedSizeList<f32> column; a zero row is null where `null_zeros`.
pub(super) fn vectors(
    matrix: &Dense,
    rows: std::ops::Range<usize>,
    null_zeros: bool,
) -> Result<ArrayRef, Error> {
    let dim = matrix.n_cols();
    let values = Float32Array::from(matrix.values()[rows.start * dim..rows.end * dim].to_vec());
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let nulls = null_zeros
        .then(|| rows.map(|row| matrix.row(row).iter().any(|value| *value != 0.0)).collect::<NullBuffer>());
    Ok(Arc::new(FixedSizeListArray::try_new(item, dim as i32, Arc::new(values), nulls)?))
}
