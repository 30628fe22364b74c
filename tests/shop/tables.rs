//! The Arrow edge: the shop's numbers spelled out as ids and words, in Parquet files.

use std::fmt::Write;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Float64Builder, Int32Array, RecordBatch, StringArray,
    StringBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use chrono::{Days, NaiveDate, NaiveTime};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::Error;
use super::catalogue::{Catalogue, Item};
use super::dirt::Flaw;
use super::people::People;
use super::sessions::{Event, Kind, Wording};
use super::words::{AGE_GROUPS, REGIONS};

/// Events are turned into Arrow and written this many at a time.
const BATCH_ROWS: usize = 1 << 16;
/// Users and items likewise.
const SMALL_BATCH_ROWS: usize = 1 << 14;

pub(super) fn write_items(catalogue: &Catalogue, end: NaiveDate, path: &Path) -> Result<(), Error> {
    let mut first = 0;
    let batches = catalogue.items.chunks(SMALL_BATCH_ROWS).map(|items| {
        let numbers = first..first + items.len() as u32;
        first = numbers.end;
        let strings = |of: fn(&Item) -> String| strings(items.iter().map(of));
        let created_at = items.iter().map(|item| {
            let day = end - Days::new(u64::from(item.age_days));
            day.and_time(NaiveTime::MIN).and_utc().timestamp_micros()
        });
        vec![
            ("item_id", strings_of(numbers, item_id)),
            ("title", strings(Item::title)),
            ("description", strings(Item::description)),
            ("brand", strings(Item::brand_name)),
            ("category", strings(|item| format!("{} > {}", item.department_name(), item.shelf_name()))),
            ("price", array(Float64Array::from_iter_values(items.iter().map(price)))),
            ("in_stock", array(items.iter().map(|item| Some(item.in_stock)).collect::<BooleanArray>())),
            (
                "created_at",
                array(TimestampMicrosecondArray::from_iter_values(created_at).with_timezone("UTC")),
            ),
        ]
    });
    write(batches, path)
}

pub(super) fn write_users(people: &People, path: &Path) -> Result<(), Error> {
    let mut first = 0;
    let batches = people.all.chunks(SMALL_BATCH_ROWS).map(|all| {
        let numbers = first..first + all.len() as u32;
        first = numbers.end;
        let age_groups = all.iter().map(|person| AGE_GROUPS[usize::from(person.age_group)]);
        let regions = all.iter().map(|person| REGIONS[usize::from(person.region)].0);
        vec![
            ("user_id", strings_of(numbers, user_id)),
            ("age_group", array(StringArray::from_iter_values(age_groups))),
            ("region", array(StringArray::from_iter_values(regions))),
            ("consent", array(all.iter().map(|person| Some(person.consent)).collect::<BooleanArray>())),
        ]
    });
    write(batches, path)
}

pub(super) fn write_events(events: &[Event], catalogue: &Catalogue, path: &Path) -> Result<(), Error> {
    // A day without events still has a file with the right columns.
    let chunks = if events.is_empty() { vec![events] } else { events.chunks(BATCH_ROWS).collect() };
    write(chunks.into_iter().map(|chunk| event_columns(chunk, catalogue)), path)
}

fn event_columns(events: &[Event], catalogue: &Catalogue) -> Vec<(&'static str, ArrayRef)> {
    let n_rows = events.len();
    let mut users = StringBuilder::with_capacity(n_rows, 10 * n_rows);
    let mut items = StringBuilder::with_capacity(n_rows, 10 * n_rows);
    let mut times = TimestampMicrosecondBuilder::with_capacity(n_rows);
    let mut queries = StringBuilder::with_capacity(n_rows, 4 * n_rows);
    let mut prices = Float64Builder::with_capacity(n_rows);
    let mut word = String::new();
    for event in events {
        word.clear();
        match event.flaw {
            Some(Flaw::NullUser) => users.append_null(),
            Some(Flaw::Bot) => users.append_value(bot_id(event.user)),
            _ => append(&mut users, &mut word, |word| user_id(event.user, word)),
        }
        match event.flaw {
            Some(Flaw::NullItem) => items.append_null(),
            _ if event.kind == Kind::Search => items.append_null(),
            // Numbers above the catalogue's are items that were sold long ago.
            Some(Flaw::UnknownItem) => {
                let gone = catalogue.items.len() as u32 + event.item;
                append(&mut items, &mut word, |word| item_id(gone, word));
            }
            _ => append(&mut items, &mut word, |word| item_id(event.item, word)),
        }
        times.append_option((event.flaw != Some(Flaw::NullTime)).then_some(event.time_us));
        let item = &catalogue.items[event.item as usize];
        match event.kind {
            Kind::Search => append(&mut queries, &mut word, |word| query(item, event.wording, word)),
            _ => queries.append_null(),
        }
        prices.append_option((event.kind == Kind::Purchase).then(|| price(item)));
    }
    let types = events.iter().map(|event| match (event.flaw, event.kind) {
        (Some(Flaw::UnknownType), _) => "hover",
        (_, Kind::Search) => "search",
        (_, Kind::View) => "view",
        (_, Kind::Click) => "click",
        (_, Kind::Cart) => "cart",
        (_, Kind::Purchase) => "purchase",
    });
    vec![
        ("user_id", array(users.finish())),
        ("item_id", array(items.finish())),
        ("event_type", array(StringArray::from_iter_values(types))),
        ("event_time", array(times.finish().with_timezone("UTC"))),
        ("query", array(queries.finish())),
        ("quantity", array(Int32Array::from_iter_values(events.iter().map(|event| event.quantity)))),
        ("price", array(prices.finish())),
        ("session_id", strings_of(events.iter().map(|event| event.session), session_id)),
    ]
}

fn user_id(number: u32, word: &mut String) {
    number_id("u-", number, word);
}

fn item_id(number: u32, word: &mut String) {
    number_id("p-", number, word);
}

fn session_id(number: u32, word: &mut String) {
    number_id("s-", number, word);
}

fn bot_id(user: u32) -> &'static str {
    ["bot-crawler-1", "bot-crawler-2", "bot-crawler-3"][user as usize % 3]
}

/// A prefix and at least seven digits; `write!` would take most of the time of a large shop.
fn number_id(prefix: &str, number: u32, word: &mut String) {
    word.push_str(prefix);
    let mut divisor = 1_000_000;
    while number / divisor > 9 {
        divisor *= 10;
    }
    while divisor > 0 {
        word.push(char::from(b'0' + (number / divisor % 10) as u8));
        divisor /= 10;
    }
}

fn query(item: &Item, wording: Wording, word: &mut String) {
    let shelf = item.shelf_name();
    let written = match wording {
        Wording::Shelf => word.write_str(shelf),
        Wording::CapitalisedShelf => write!(word, "{}{}", shelf[..1].to_uppercase(), &shelf[1..]),
        Wording::BrandAndShelf => write!(word, "{} {shelf}", item.brand_name().to_lowercase()),
        Wording::ShelfAndFinish => write!(word, "{shelf} {}", item.finish_name()),
    };
    debug_assert!(written.is_ok(), "a String takes whatever is written");
}

fn price(item: &Item) -> f64 {
    f64::from(item.cents) / 100.0
}

fn append(column: &mut StringBuilder, word: &mut String, spell: impl FnOnce(&mut String)) {
    word.clear();
    spell(word);
    column.append_value(&*word);
}

fn strings(values: impl Iterator<Item = String>) -> ArrayRef {
    array(StringArray::from_iter_values(values))
}

fn strings_of(numbers: impl Iterator<Item = u32>, spell: fn(u32, &mut String)) -> ArrayRef {
    let mut column = StringBuilder::new();
    let mut word = String::new();
    for number in numbers {
        append(&mut column, &mut word, |word| spell(number, word));
    }
    array(column.finish())
}

fn array(array: impl arrow::array::Array + 'static) -> ArrayRef {
    Arc::new(array)
}

fn write(batches: impl Iterator<Item = Vec<(&'static str, ArrayRef)>>, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Parquet { path: path.to_owned(), source };
    let mut writer = None;
    for columns in batches {
        // Whether a column is nullable must not depend on whether the first batch has nulls.
        let columns = columns.into_iter().map(|(name, column)| (name, column, true));
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns).map_err(|source| failed(source.into()))?;
        let writer = match &mut writer {
            Some(writer) => writer,
            None => {
                let file =
                    File::create(path).map_err(|source| Error::Write { path: path.to_owned(), source })?;
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .build();
                writer.insert(ArrowWriter::try_new(file, batch.schema(), Some(properties)).map_err(failed)?)
            }
        };
        writer.write(&batch).map_err(failed)?;
    }
    if let Some(writer) = writer {
        writer.close().map_err(failed)?;
    }
    Ok(())
}
