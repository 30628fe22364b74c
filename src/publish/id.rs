//! Ids as published tables have them, and columns of them.

use std::borrow::Cow;
use std::fmt;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int64Array, RecordBatch, StringArray, UInt64Array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type, UInt64Type};

use super::problem::Problem;

/// An id; integers compare as numbers, strings by their bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id<'a> {
    /// A whole number of any width.
    Int(i128),
    /// A string.
    Text(Cow<'a, str>),
}

impl Id<'_> {
    /// The same, borrowing from nothing.
    pub fn into_owned(self) -> Id<'static> {
        match self {
            Self::Int(value) => Id::Int(value),
            Self::Text(value) => Id::Text(Cow::Owned(value.into_owned())),
        }
    }

    /// Replaces the buffer's text by the id's.
    pub(super) fn write(&self, text: &mut String) {
        text.clear();
        match self {
            Self::Int(value) => {
                let _ = fmt::Write::write_fmt(text, format_args!("{value}"));
            }
            Self::Text(value) => text.push_str(value),
        }
    }
}

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// A column of ids.
pub enum Ids {
    /// Whole numbers.
    Int(Int64Array),
    /// Whole numbers beyond the signed ones.
    Unsigned(UInt64Array),
    /// The same as stages hold them.
    Wide(Decimal128Array),
    /// Strings.
    Text(StringArray),
}

impl Ids {
    /// Takes a column of a batch.
    ///
    /// # Errors
    /// If it is not there, holds nulls, or ids beyond 64 bits.
    pub fn read(batch: &RecordBatch, name: &str) -> Result<Self, Problem> {
        let values = column(batch, name)?;
        let to = match values.data_type() {
            DataType::UInt64 => return Ok(Self::Unsigned(values.as_primitive::<UInt64Type>().clone())),
            DataType::Decimal128(_, 0) => {
                return Ok(Self::Wide(values.as_primitive::<Decimal128Type>().clone()));
            }
            found if found.is_integer() => DataType::Int64,
            _ => DataType::Utf8,
        };
        // A lenient cast would turn an id that does not fit into a null, and a null into id 0.
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let values = cast_with_options(values, &to, &strict)
            .map_err(|source| Problem::Ids { column: name.to_owned(), source })?;
        Ok(if to == DataType::Int64 {
            Self::Int(values.as_primitive::<Int64Type>().clone())
        } else {
            Self::Text(values.as_string::<i32>().clone())
        })
    }

    /// The id of a row.
    pub fn id(&self, row: usize) -> Id<'_> {
        match self {
            Self::Int(values) => Id::Int(values.value(row).into()),
            Self::Unsigned(values) => Id::Int(values.value(row).into()),
            Self::Wide(values) => Id::Int(values.value(row)),
            Self::Text(values) => Id::Text(Cow::Borrowed(values.value(row))),
        }
    }
}

pub(super) fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, Problem> {
    let values = batch.column_by_name(name).ok_or_else(|| Problem::NoColumn { column: name.to_owned() })?;
    match values.null_count() {
        0 => Ok(values),
        nulls => Err(Problem::Null { column: name.to_owned(), nulls }),
    }
}
