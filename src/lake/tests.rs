use std::fs::File;

use arrow::array::{ArrayRef, AsArray, Date32Array, Float64Array, Int64Array, StringArray, UInt64Array};
use arrow::array::{TimestampMicrosecondArray, TimestampMillisecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use parquet::arrow::ArrowWriter;
use parquet::data_type::{ByteArray, ByteArrayType, Int96, Int96Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::input::{Contract, Field, Kind, discover};
use super::*;

fn contract() -> Contract {
    let fields = vec![
        Field::required("id", Kind::Id),
        Field::optional("time", Kind::Time),
        Field::optional("label", Kind::Text),
    ];
    Contract { fields, open: false }
}

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

fn ids(of: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(of))
}

/// The input's column by its id.
fn read(config: &input::Config, column: &str) -> ArrayRef {
    let input = discover(config, &contract(), &Access::default()).unwrap();
    let lake = Lake::open(&Config { threads: 1, memory_bytes: 64 << 20, spill_dir: None }).unwrap();
    lake.register_input("rows", &input, &contract()).unwrap();
    let sql = format!("SELECT {column} FROM rows ORDER BY id");
    lake.query("rows", &sql, &[]).unwrap().column(0).clone()
}

fn texts(config: &input::Config, column: &str) -> Vec<Option<String>> {
    let column = arrow::compute::cast(&read(config, column), &DataType::Utf8).unwrap();
    column.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

fn micros(config: &input::Config) -> Vec<Option<i64>> {
    read(config, "time").as_primitive::<TimestampMicrosecondType>().iter().collect()
}

fn refused(config: &input::Config) -> String {
    discover(config, &contract(), &Access::default()).unwrap_err().to_string()
}

#[test]
fn a_time_out_of_range_is_null_and_the_next_row_has_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let day: i64 = 20_000;
    let day_us = day * 86_400_000_000;
    let times: [ArrayRef; 6] = [
        // What DuckDB writes for 'infinity'.
        Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX, day_us])),
        Arc::new(TimestampMillisecondArray::from(vec![i64::MAX, day_us / 1000])),
        Arc::new(Date32Array::from(vec![i32::MAX, day as i32])),
        // The year 1 in milliseconds, and what wraps to a day of our own.
        Arc::new(Int64Array::from(vec![-62_135_596_800_000, day_us])),
        Arc::new(Int64Array::from(vec![-6_795_364_578_871_345_152, day_us / 1_000_000])),
        Arc::new(UInt64Array::from(vec![u64::MAX, day_us as u64 * 1000])),
    ];
    for time in times {
        write(&path, vec![("id", ids(&["a", "b"])), ("time", time.clone())]);
        let found = micros(&input::Config::of(path.to_str().unwrap()));
        assert_eq!(found, [None, Some(day_us)], "{}", time.data_type());
    }
}

#[test]
fn times_of_96_bits_reach_beyond_nanoseconds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let schema = "message rows { required binary id (UTF8); required int96 time; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = File::create(&path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    let mut column = rows.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&["a", "b"].map(ByteArray::from), None, None).unwrap();
    column.close().unwrap();
    // Days of Julius Caesar's count: 9999-12-31 and 2024-10-04.
    let times = [5_373_484, 2_460_588].map(|day| Int96::from(vec![0, 0, day]));
    let mut column = rows.next_column().unwrap().unwrap();
    column.typed::<Int96Type>().write_batch(&times, None, None).unwrap();
    column.close().unwrap();
    rows.close().unwrap();
    writer.close().unwrap();
    let found = micros(&input::Config::of(path.to_str().unwrap()));
    assert_eq!(found, [2_932_896, 20_000].map(|day: i64| Some(day * 86_400_000_000)));
}

#[test]
fn what_is_missing_as_nan_is_no_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let label: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, 0.1, -f64::NAN]));
    write(&path, vec![("id", ids(&["a", "b", "c"])), ("label", label)]);
    let found = texts(&input::Config::of(path.to_str().unwrap()), "label");
    assert_eq!(found, [None, Some("0.1".to_owned()), None]);
}

#[test]
fn folders_tell_what_files_do_not_unescaped_and_null_by_its_word() {
    let folder = tempfile::tempdir().unwrap();
    let config = input::Config::of(folder.path().to_str().unwrap());
    let labels = ["label=A%2FB", "label=Caf%C3%A9 100%", "label=__HIVE_DEFAULT_PARTITION__"];
    for (label, id) in labels.into_iter().zip(["a", "b", "c"]) {
        write(&folder.path().join(label).join("rows.parquet"), vec![("id", ids(&[id]))]);
    }
    assert_eq!(texts(&config, "label"), [Some("A/B".to_owned()), Some("Café 100%".to_owned()), None]);

    // Integers stay what they are, whatever their folders are called.
    let folder = tempfile::tempdir().unwrap();
    let config = input::Config::of(folder.path().to_str().unwrap());
    for id in [7, 12] {
        let path = folder.path().join(format!("id=0{id}/rows.parquet"));
        write(&path, vec![("id", Arc::new(Int64Array::from(vec![id])))]);
    }
    assert_eq!(*read(&config, "id"), Int64Array::from(vec![7, 12]));
}

#[test]
fn a_statement_has_what_it_selects_and_nothing_of_the_folders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("id=a/rows.parquet");
    write(&path, vec![("label", ids(&["x"]))]);
    let sql = folder.path().join("own.sql");
    let mut config = input::Config::of(folder.path().to_str().unwrap());
    config.sql = Some(sql.clone());
    std::fs::write(&sql, "SELECT label FROM source").unwrap();
    let message = refused(&config);
    assert!(message.ends_with("own.sql: expected a column `id` for `id`; found label"), "{message}");
    std::fs::write(&sql, "SELECT id, label FROM source").unwrap();
    assert_eq!(texts(&config, "id"), [Some("a".to_owned())]);
}

#[test]
fn a_column_in_another_case_is_refused_until_it_is_mapped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let mut config = input::Config::of(path.to_str().unwrap());
    write(&path, vec![("id", ids(&["a"])), ("Label", ids(&["x"]))]);
    let message = refused(&config);
    assert!(message.ends_with("rows.parquet: expected a column `label`; found `Label`, in another case"));
    config.columns.insert("label".to_owned(), "Label".to_owned());
    assert_eq!(texts(&config, "label"), [Some("x".to_owned())]);
}
