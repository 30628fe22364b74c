//! What can be wrong with a table, as facts.

use std::path::PathBuf;

use arrow::datatypes::DataType;

use super::TableRecord;

/// What is wrong with a table.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The contract names a column that the file lacks.
    #[error("expected a column `{column}`; found none")]
    NoColumn {
        /// The column.
        column: String,
    },
    /// A column has a type that readers do not expect.
    #[error("expected `{column}` as {expected}; found {found}")]
    Type {
        /// The column.
        column: String,
        /// What the contract says.
        expected: &'static str,
        /// What the file has.
        found: DataType,
    },
    /// A column that names, orders or scores holds nulls.
    #[error("expected no null in `{column}`; found {nulls}")]
    Null {
        /// The column.
        column: String,
        /// Nulls of one batch of rows.
        nulls: usize,
    },
    /// Ids are beyond 64 bits, signed.
    #[error("cannot read the ids of `{column}`: {source}")]
    Ids {
        /// The column.
        column: String,
        /// What the cast reported.
        #[source]
        source: arrow::error::ArrowError,
    },
    /// Two files of one table differ in their columns.
    #[error("expected the columns of {}; found others", first.display())]
    Columns {
        /// The table's first file.
        first: PathBuf,
    },
    /// A row breaks a rule.
    #[error("list {list}, rank {rank}, item {item}: {fault}")]
    Row {
        /// The list's key.
        list: String,
        /// The row's rank.
        rank: u16,
        /// The row's item.
        item: String,
        /// The rule.
        fault: Fault,
    },
    /// A list begins in two files.
    #[error("list {list}: it is in {} too", other.display())]
    Split {
        /// The list's key.
        list: String,
        /// The file that came before.
        other: PathBuf,
    },
    /// The rows read are not as many as the writer counted.
    #[error("expected {expected} rows as the writer counted; found {found}")]
    Rows {
        /// What the footer says.
        expected: u64,
        /// What was read.
        found: u64,
    },
    /// A table has changed since the manifest counted it.
    #[error("expected {recorded} as the manifest counts; found {found}")]
    Record {
        /// What the manifest says.
        recorded: TableRecord,
        /// What there is.
        found: TableRecord,
    },
}

/// The rule that a row breaks.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Ranks run from 1 without a gap.
    #[error("expected rank {expected}")]
    Rank {
        /// The rank that is due.
        expected: u32,
    },
    /// Scores are numbers.
    #[error("expected a finite score; found {found}")]
    NotFinite {
        /// The score.
        found: f32,
    },
    /// A better rank has no lower score.
    #[error("expected scores that never rise; found {found} after {after}")]
    Rising {
        /// The score.
        found: f32,
        /// The score of the rank before.
        after: f32,
    },
    /// Keys ascend, so a list is one run of rows.
    #[error("expected keys to ascend; found it after list {after}")]
    Order {
        /// The key before.
        after: String,
    },
    /// A list names an item once.
    #[error("the item is listed twice")]
    Twice,
    /// The caller does not allow the pair.
    #[error("the item must not be listed: {reason}")]
    Refused {
        /// Why.
        reason: &'static str,
    },
}
