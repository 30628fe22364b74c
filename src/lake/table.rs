//! Parquet files as this project writes and reads them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use rayon::prelude::*;

use super::disk;

/// How a file is laid out for its readers.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Columns the rows are sorted by, recorded in the footer.
    pub sorted_by: Vec<String>,
    /// Columns that get a bloom filter, for look-ups of one key.
    pub bloom: Vec<String>,
}

/// What a finished file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows.
    pub rows: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system reported.
        #[source]
        source: std::io::Error,
    },
    /// The Parquet encoder refused.
    #[error("cannot write {}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// What the encoder reported.
        #[source]
        source: ParquetError,
    },
}

/// Rows a row group holds: one user's list is then a read of one page of a small group.
const ROW_GROUP_ROWS: usize = 128 * 1024;
/// Rows a data page holds at most, which bounds what a look-up of one key decodes.
const PAGE_ROWS: usize = 8 * 1024;

/// A file that is not whole yet; it goes when its writer gives up.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // After the rename there is nothing left to remove.
        let _ = fs::remove_file(&self.0);
    }
}

/// Streams batches into one Parquet file that appears under its name only when it is whole. Columns are encoded
/// beside each other, in rayon's current pool; the bytes are those that one thread would write.
pub struct Writer {
    path: PathBuf,
    partial: Partial,
    file: SerializedFileWriter<File>,
    schema: SchemaRef,
    factory: ArrowRowGroupWriterFactory,
    /// The columns of the row group that is being filled, and its rows so far.
    columns: Vec<ArrowColumnWriter>,
    group_rows: usize,
    rows: u64,
}

impl Writer {
    /// Opens the file for writing; its folder is made where missing.
    ///
    /// # Errors
    /// If the file system or the layout is refused.
    pub fn create(path: &Path, schema: SchemaRef, layout: &Layout) -> Result<Self, Error> {
        let properties = properties(&schema, layout).map(WriterPropertiesBuilder::build);
        Self::open(path, schema, properties)
    }

    /// Opens a file that other stages read whole, and nobody else: without statistics of its rows, and with indices
    /// and moments as differences, all of which takes half the time. Some readers do not know these.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn between_stages(path: &Path, schema: SchemaRef) -> Result<Self, Error> {
        let properties = properties(&schema, &Layout::default()).map(|mut properties| {
            let packs =
                |field: &&Arc<Field>| matches!(field.data_type(), DataType::Timestamp(..) | DataType::UInt32);
            for field in schema.fields().iter().filter(packs) {
                let column = ColumnPath::from(field.name().as_str());
                properties = properties
                    .set_column_dictionary_enabled(column.clone(), false)
                    .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
            }
            properties.set_statistics_enabled(EnabledStatistics::None).build()
        });
        Self::open(path, schema, properties)
    }

    fn open(
        path: &Path,
        schema: SchemaRef,
        properties: Result<WriterProperties, ParquetError>,
    ) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            disk::create_folders(folder).map_err(io)?;
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let partial = Partial(path.with_file_name(name));
        let file = disk::create(&partial.0).map_err(io)?;
        let (file, factory) = properties
            .and_then(|properties| ArrowWriter::try_new(file, schema.clone(), Some(properties)))
            .and_then(ArrowWriter::into_serialized_writer)
            .map_err(|source| Error::Encode { path: path.to_owned(), source })?;
        let (columns, group_rows) = (Vec::new(), 0);
        Ok(Self { path: path.to_owned(), partial, file, schema, factory, columns, group_rows, rows: 0 })
    }

    /// Appends rows of the schema the file was opened with.
    ///
    /// # Errors
    /// If they do not fit it, or the disk is full.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        self.rows += batch.num_rows() as u64;
        self.encode(batch).map_err(|source| Error::Encode { path: self.path.clone(), source })
    }

    fn encode(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        let mut at = 0;
        while at < batch.num_rows() {
            if self.columns.is_empty() {
                self.columns = self.factory.create_column_writers(self.file.flushed_row_groups().len())?;
            }
            let rows = batch.slice(at, (batch.num_rows() - at).min(ROW_GROUP_ROWS - self.group_rows));
            at += rows.num_rows();
            self.group_rows += rows.num_rows();
            let mut leaves = Vec::with_capacity(self.columns.len());
            for (field, column) in self.schema.fields().iter().zip(rows.columns()) {
                leaves.extend(compute_leaves(field, column)?);
            }
            let columns = self.columns.par_iter_mut().zip(leaves);
            columns.try_for_each(|(column, values)| column.write(&values))?;
            if self.group_rows == ROW_GROUP_ROWS {
                self.end_group()?;
            }
        }
        Ok(())
    }

    fn end_group(&mut self) -> Result<(), ParquetError> {
        self.group_rows = 0;
        let columns = std::mem::take(&mut self.columns);
        if columns.is_empty() {
            return Ok(());
        }
        let chunks = columns.into_par_iter().map(ArrowColumnWriter::close).collect::<Result<Vec<_>, _>>()?;
        let mut group = self.file.next_row_group()?;
        chunks.into_iter().try_for_each(|chunk| chunk.append_to_row_group(&mut group))?;
        group.close()?;
        Ok(())
    }

    /// Writes the footer, forces the file to disk and gives it its name.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn finish(mut self) -> Result<Written, Error> {
        let ended = self.end_group();
        let Self { path, partial, file, rows, .. } = self;
        let io = |source| Error::Io { path: path.clone(), source };
        let encode = |source| Error::Encode { path: path.clone(), source };
        let file = ended.and_then(|()| file.into_inner()).map_err(encode)?;
        file.sync_all().map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        fs::rename(&partial.0, &path).map_err(io)?;
        Ok(Written { rows, bytes })
    }
}

fn properties(schema: &Schema, layout: &Layout) -> Result<WriterPropertiesBuilder, ParquetError> {
    let sorting = layout
        .sorted_by
        .iter()
        .map(|name| {
            let column_idx = schema.index_of(name)? as i32;
            Ok(SortingColumn { column_idx, descending: false, nulls_first: false })
        })
        .collect::<Result<_, ArrowError>>()?;
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("lamplighter ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(Some(sorting));
    // Moments and weights seldom repeat, and a dictionary of them is looked up in vain; where they do repeat, the
    // compression finds it.
    let distinct =
        |field: &&Arc<Field>| matches!(field.data_type(), DataType::Timestamp(..) | DataType::Float32);
    for field in schema.fields().iter().filter(distinct) {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), false);
    }
    for name in &layout.bloom {
        properties = properties.set_column_bloom_filter_enabled(ColumnPath::from(name.as_str()), true);
    }
    Ok(properties)
}

/// The schema with every view, dictionary and large string as a plain string: readers outside
/// DataFusion know those least.
pub fn plain(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Utf8View | DataType::LargeUtf8 => field.as_ref().clone().with_data_type(DataType::Utf8),
            DataType::BinaryView | DataType::LargeBinary => {
                field.as_ref().clone().with_data_type(DataType::Binary)
            }
            DataType::Dictionary(_, value) if **value == DataType::Utf8 => {
                field.as_ref().clone().with_data_type(DataType::Utf8)
            }
            _ => field.as_ref().clone(),
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// The batch with each column cast to the schema's type.
///
/// # Errors
/// If a column cannot be cast.
pub fn cast(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| arrow::compute::cast(column, field.data_type()))
        .collect::<Result<_, _>>()?;
    RecordBatch::try_new(schema.clone(), columns)
}

/// The columns of one file.
///
/// # Errors
/// If its footer cannot be read.
pub fn columns(path: &Path) -> Result<SchemaRef, ParquetError> {
    Ok(ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?.schema().clone())
}

/// Reads columns of one file whole, in the order asked for.
///
/// # Errors
/// If the file cannot be read or lacks a column.
pub fn read(path: &Path, columns: &[&str]) -> Result<RecordBatch, ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    let rows = builder.with_projection(mask).with_batch_size(64 * 1024).build()?;
    let schema = arrow::array::RecordBatchReader::schema(&rows);
    let batches = rows.collect::<Result<Vec<_>, _>>()?;
    let whole = concat_batches(&schema, &batches)?;
    let order: Vec<usize> =
        columns.iter().map(|name| schema.index_of(name)).collect::<Result<_, ArrowError>>()?;
    let ordered = whole.project(&order)?;
    Ok(cast(&ordered, &plain(&ordered.schema()))?)
}
