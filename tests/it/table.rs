//! Reading a published table back as text rows.

use std::path::Path;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Every row of every Parquet file below a folder, all columns, as [`rows`] has them.
#[track_caller]
pub(crate) fn whole(folder: &Path) -> Vec<Vec<String>> {
    let Some(first) = files(folder).into_iter().next() else { return Vec::new() };
    let file = std::fs::File::open(first).expect("a file");
    let schema = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").schema().clone();
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    rows(folder, &columns)
}

/// Every row of every Parquet file below a folder, files in order of their paths, values as text.
#[track_caller]
pub(crate) fn rows(folder: &Path, columns: &[&str]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for path in files(folder) {
        let file = std::fs::File::open(&path).expect("a file");
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("a reader");
        for batch in reader {
            let batch = batch.expect("rows");
            let options = FormatOptions::default().with_null("NULL");
            let columns: Vec<_> =
                columns.iter().map(|name| batch.column_by_name(name).expect("the column").clone()).collect();
            let text: Vec<_> = columns
                .iter()
                .map(|column| ArrayFormatter::try_new(column, &options).expect("text"))
                .collect();
            rows.extend(
                (0..batch.num_rows()).map(|at| text.iter().map(|c| c.value(at).to_string()).collect()),
            );
        }
    }
    rows
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = open.pop() {
        if next.is_file() {
            found.push(next);
            continue;
        }
        open.extend(std::fs::read_dir(&next).expect("a folder").map(|entry| entry.expect("an entry").path()));
    }
    found.retain(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    found.sort();
    found
}
