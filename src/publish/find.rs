//! One key's rows of a table, without reading the table.
//!
//! Footers, statistics, bloom filters and page indexes say where a key cannot be; what is left is a page or
//! two of one file. Cost: milliseconds, however many lists there are.

use std::fs::File;
use std::path::Path;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowFilter,
    RowSelection, RowSelector,
};
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;

use super::Error;
use super::check::parquet_files;
use super::files::io;
use super::id::{Id, Ids};

/// The rows of a table whose `key` is this id; none where there are none. Files that `likely` fits are looked
/// at first.
///
/// # Errors
/// If a file cannot be read.
pub fn find(
    table: &Path,
    key: &str,
    id: &str,
    likely: &dyn Fn(&Path) -> bool,
) -> Result<Option<RecordBatch>, Error> {
    let mut files = parquet_files(table)?;
    files.sort_by_key(|path| !likely(path));
    for path in files {
        let found = in_file(&path, key, id)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn in_file(path: &Path, key: &str, id: &str) -> Result<Option<RecordBatch>, Error> {
    let failed = |source: ParquetError| Error::ReadBack { path: path.to_owned(), source };
    let file = File::open(path).map_err(io("open", path))?;
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let metadata = ArrowReaderMetadata::load(&file, options).map_err(failed)?;
    let is_number = metadata.schema().field_with_name(key).is_ok_and(|field| field.data_type().is_integer());
    let wanted = match (is_number, id.parse()) {
        (true, Ok(number)) => Id::Int(number),
        (true, Err(_)) => return Ok(None),
        (false, _) => Id::Text(id.to_owned().into()),
    };
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone());
    let (mut groups, mut selectors) = (Vec::new(), Vec::new());
    for group in 0..metadata.metadata().num_row_groups() {
        let pages = pages(&metadata, key, group, &wanted).map_err(failed)?;
        if !pages.iter().any(|page| !page.skip) {
            continue;
        }
        let column =
            metadata.parquet_schema().columns().iter().position(|column| column.name() == key).unwrap_or(0);
        let filter = builder.get_row_group_column_bloom_filter(group, column).map_err(failed)?;
        if filter.is_none_or(|filter| may_hold(&filter, metadata.schema(), key, &wanted)) {
            groups.push(group);
            selectors.extend(pages);
        }
    }
    if groups.is_empty() {
        return Ok(None);
    }
    let mask = ProjectionMask::columns(builder.parquet_schema(), [key]);
    let wanted = wanted.into_owned();
    let name = key.to_owned();
    let is_wanted = ArrowPredicateFn::new(mask, move |rows| {
        let ids = Ids::read(&rows, &name).map_err(|problem| ArrowError::ExternalError(Box::new(problem)))?;
        Ok((0..rows.num_rows()).map(|row| Some(ids.id(row) == wanted)).collect::<BooleanArray>())
    });
    let rows = builder
        .with_row_groups(groups)
        .with_row_selection(RowSelection::from(selectors))
        .with_row_filter(RowFilter::new(vec![Box::new(is_wanted)]))
        .build()
        .map_err(failed)?;
    let schema = arrow::array::RecordBatchReader::schema(&rows);
    let batches = rows.collect::<Result<Vec<_>, _>>().map_err(|error| failed(error.into()))?;
    let found = arrow::compute::concat_batches(&schema, &batches).map_err(|error| failed(error.into()))?;
    Ok((found.num_rows() > 0).then_some(found))
}

/// The pages of a row group whose bounds may have the key between them; all where there are no bounds.
fn pages(
    metadata: &ArrowReaderMetadata,
    key: &str,
    group: usize,
    wanted: &Id,
) -> Result<Vec<RowSelector>, ParquetError> {
    let all = metadata.metadata();
    let n_rows = all.row_group(group).num_rows().max(0) as usize;
    let everything = vec![RowSelector::select(n_rows)];
    let (Some(columns), Some(offsets)) = (all.column_index(), all.offset_index()) else {
        return Ok(everything);
    };
    let statistics = StatisticsConverter::try_new(key, metadata.schema(), metadata.parquet_schema())?;
    let (lows, highs) = (
        statistics.data_page_mins(columns, offsets, [&group])?,
        statistics.data_page_maxes(columns, offsets, [&group])?,
    );
    let counts = statistics.data_page_row_counts(offsets, all.row_groups(), [&group])?;
    let bounds =
        |values| RecordBatch::try_from_iter([(key, values)]).ok().and_then(|rows| Ids::read(&rows, key).ok());
    let (Some(counts), Some(lows), Some(highs)) = (counts, bounds(lows), bounds(highs)) else {
        return Ok(everything);
    };
    let pages = counts.values().iter().enumerate().map(|(page, n_rows)| {
        let holds = lows.id(page) <= *wanted && *wanted <= highs.id(page);
        if holds { RowSelector::select(*n_rows as usize) } else { RowSelector::skip(*n_rows as usize) }
    });
    Ok(pages.collect())
}

/// What a bloom filter says of an id of the column's type.
fn may_hold(filter: &Sbbf, schema: &arrow::datatypes::Schema, key: &str, wanted: &Id) -> bool {
    let found = schema.field_with_name(key).map(|field| field.data_type().clone());
    match (wanted, found) {
        (Id::Text(text), _) => filter.check(&text.as_ref()),
        (Id::Int(number), Ok(DataType::Int64 | DataType::UInt64)) => filter.check(&(*number as i64)),
        (Id::Int(number), _) => filter.check(&(*number as i32)),
    }
}
