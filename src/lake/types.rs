//! A column's type where an input's files differ.

use std::path::Path;

use arrow::datatypes::{DataType, Field, TimeUnit};

use super::input::Error;

/// The type ids keep in the output.
pub(super) fn unified(found: &DataType) -> DataType {
    match found {
        DataType::Dictionary(_, value) => unified(value),
        DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => DataType::Utf8,
        other => other.clone(),
    }
}

/// A column's type, `Null` where nothing is known of it.
fn nullable(found: &DataType) -> DataType {
    if *found == DataType::Null { DataType::Null } else { unified(found) }
}

/// One column as the files so far have it.
pub(super) struct Column {
    pub(super) name: String,
    /// None where files disagree and nothing reads it.
    pub(super) found: Option<DataType>,
}

impl Column {
    pub(super) fn new(field: &Field) -> Self {
        Self { name: field.name().clone(), found: Some(nullable(field.data_type())) }
    }

    /// Takes in another file's type: nulls yield, integers and moments widen, else both must be one.
    pub(super) fn meet(&mut self, path: &Path, field: &Field, needed: bool) -> Result<(), Error> {
        let Some(own) = self.found.take() else { return Ok(()) };
        let other = nullable(field.data_type());
        let small = |t: &DataType| t.is_integer() && *t != DataType::UInt64;
        let number = |t: &DataType| t.is_floating() || small(t);
        self.found = match (&own, &other) {
            (own, other) if own == other => Some(own.clone()),
            (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
            (own, other) if small(own) && small(other) => Some(DataType::Int64),
            (own, other) if number(own) && number(other) => Some(DataType::Float64),
            (DataType::Timestamp(_, own), DataType::Timestamp(_, other)) if own == other => {
                Some(DataType::Timestamp(TimeUnit::Microsecond, own.clone()))
            }
            _ => None,
        };
        if self.found.is_none() && needed {
            let (path, column) = (path.to_owned(), self.name.clone());
            return Err(Error::Disagree { path, column, expected: own, found: other });
        }
        Ok(())
    }
}
