//! The catalogue: one text an item, its attributes, and whether it may be listed.
//!
//! In: the items input and the `item_ids` that `behavior` numbered. Out: `catalog.parquet`, one row
//! an item in the order of `item_idx`, and `rejected_items.parquet`. [`Catalog::read`] loads it into
//! columns whose position is the item's index.
//!
//! The text is the job's text columns in order, joined by `" | "`, missing ones left out. Eligibility
//! is one SQL condition over the items' columns ([`Config::eligible`]); it is applied before top-K
//! everywhere, so that lists stay full. The room never looks at behaviour.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{Float32Type, Float64Type, UInt16Type};
use serde::{Deserialize, Serialize};

use crate::lake::input::{Contract, Field, Input, Kind};
use crate::lake::{self, Lake, Readers};

/// The job's `[catalog]` table.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The SQL condition under which an item may be listed.
    pub eligible: String,
    /// What is added to the scores of some items; of several that hold, the sum.
    pub boosts: Vec<Boost>,
    /// Which items have their place in every list; of several that hold, the first.
    pub pins: Vec<Pin>,
}

/// Adds to the scores of the items for which a condition holds.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Boost {
    /// An SQL condition over the items' columns.
    pub when: String,
    /// How many standard deviations; below 0 to hold back.
    pub add: f32,
}

/// Puts the items for which a condition holds at a rank.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// An SQL condition over the items' columns.
    pub when: String,
    /// From 1; of several items at one rank, those after the first follow it.
    pub rank: NonZeroU16,
}

impl Default for Config {
    fn default() -> Self {
        Self { eligible: "coalesce(in_stock, TRUE)".to_owned(), boosts: Vec::new(), pins: Vec::new() }
    }
}

/// What was found and counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Facts {
    /// Catalogue rows read.
    pub read: u64,
    /// Rows not used, by reason; each is in `rejected_items.parquet`.
    pub rejected: BTreeMap<String, u64>,
    /// Items.
    pub n_items: u64,
    /// Items that may be listed.
    pub n_eligible: u64,
    /// Items with a text to embed.
    pub n_texts: u64,
}

/// The catalogue in memory; position `i` of each column is item index `i`.
pub struct Catalog {
    /// External ids, strings or 64-bit integers.
    pub item_ids: ArrayRef,
    /// Titles.
    pub titles: StringArray,
    /// Brands.
    pub brands: StringArray,
    /// Categories, `a > b > c`.
    pub categories: StringArray,
    /// Prices.
    pub prices: Vec<Option<f64>>,
    /// Texts to embed.
    pub texts: StringArray,
    /// Whether the item may be listed.
    pub eligible: Vec<bool>,
    /// What the job adds to the item's score.
    pub boosts: Vec<f32>,
    /// The rank that the item has in every list, if any.
    pub pins: Vec<Option<u16>>,
}

/// Why there is no catalogue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] lake::Error),
    /// The job's rule is not a condition over the items' columns.
    #[error("`catalog.{key} = \"{rule}\"`: expected an SQL condition over {}", columns.join(", "))]
    Rule {
        /// Where in `[catalog]`.
        key: String,
        /// The rule.
        rule: String,
        /// The columns it may use.
        columns: Vec<String>,
        /// What the SQL engine reported.
        #[source]
        source: lake::Error,
    },
    /// No item may be listed.
    #[error("`catalog.eligible = \"{rule}\"`: none of {n_items} items may be listed")]
    NothingEligible {
        /// The rule.
        rule: String,
        /// Items of the catalogue.
        n_items: u64,
    },
}

/// The columns read from the items: the contract's, the job's own text columns, and all others, over
/// which the job may state its rule.
pub fn item_contract(text: Option<&[String]>) -> Contract {
    let mut fields = vec![
        Field::required("item_id", Kind::Id),
        Field::optional("title", Kind::Text),
        Field::optional("description", Kind::Text),
        Field::optional("brand", Kind::Text),
        Field::optional("category", Kind::Text),
        Field::optional("tags", Kind::Text),
        Field::optional("price", Kind::Number),
        Field::optional("in_stock", Kind::Bool),
        Field::optional("created_at", Kind::Time),
    ];
    for column in text.unwrap_or_default() {
        match fields.iter_mut().find(|field| field.name == *column) {
            Some(field) => field.required = true,
            None => fields.push(Field::required(column, Kind::Text)),
        }
    }
    Contract { fields, open: true }
}

/// Plans the job's rule over the items' columns; reads no row.
///
/// # Errors
/// If the rule is not SQL over the items' columns.
pub fn check(lake: &Lake, items: &Input, text: Option<&[String]>, config: &Config) -> Result<(), Error> {
    lake.register_input("items", items, &item_contract(text))?;
    define_described_items(lake, text, config)
}

/// Writes `catalog.parquet` and `rejected_items.parquet` from the items and the registered
/// `item_ids`.
///
/// # Errors
/// If the rule is not SQL over the items' columns, or leaves nothing to list.
pub fn build(
    lake: &Lake,
    items: Option<(&Input, Option<&[String]>)>,
    config: &Config,
    folder: &Path,
) -> Result<Facts, Error> {
    let path = folder.join("catalog.parquet");
    let mut facts = Facts::default();
    let Some((items, text)) = items else {
        let sql = include_str!("../../sql/catalog/catalog_of_events.sql");
        facts.n_items = lake.write("catalog_of_events", sql, &[], &path, Readers::Stages)?;
        facts.n_eligible = facts.n_items;
        return Ok(facts);
    };
    number(lake, items, text, config)?;

    let sql = include_str!("../../sql/catalog/catalog.sql");
    facts.n_items = lake.write("catalog", sql, &[], &path, Readers::Stages)?;
    let rejected = folder.join("rejected_items.parquet");
    let sql = include_str!("../../sql/catalog/rejected_items.sql");
    let n_rejected = lake.write("rejected_items", sql, &[], &rejected, Readers::Anybody(items))?;
    facts.read = facts.n_items + n_rejected;
    let reasons = lake::read(&rejected, &["reason"])?;
    for reason in reasons.column(0).as_string::<i32>().iter().flatten() {
        *facts.rejected.entry(reason.to_owned()).or_default() += 1;
    }
    let catalog = Catalog::read(&path)?;
    facts.n_eligible = catalog.eligible.iter().filter(|eligible| **eligible).count() as u64;
    facts.n_texts = (catalog.texts.len() - catalog.texts.null_count()) as u64;
    if facts.n_eligible == 0 {
        return Err(Error::NothingEligible { rule: config.eligible.clone(), n_items: facts.n_items });
    }
    Ok(facts)
}

/// Writes columns of the items as text, `value_0` and so on, one row an item in the order of `item_idx`.
///
/// # Errors
/// If a column is not there.
pub fn attributes(
    lake: &Lake,
    items: (&Input, Option<&[String]>),
    config: &Config,
    columns: &[&str],
    path: &Path,
) -> Result<(), Error> {
    number(lake, items.0, items.1, config)?;
    let values: Vec<String> = (0..columns.len()).map(|at| format!("value_{at}")).collect();
    let values = values.join(", ");
    let sql = format!(
        "SELECT item_ids.item_idx, {values} FROM (
            SELECT item_id{} FROM numbered_items WHERE lamplighter_copy = 1
        ) AS items JOIN item_ids ON items.item_id = item_ids.item_id
        ORDER BY item_ids.item_idx",
        lake::as_text(columns)
    );
    lake.write("item_attributes", &sql, &[], path, Readers::Stages)?;
    Ok(())
}

/// Defines `numbered_items`, which tells the row of an item that counts from others of the same id.
fn number(lake: &Lake, items: &Input, text: Option<&[String]>, config: &Config) -> Result<(), Error> {
    check(lake, items, text, config)?;
    Ok(lake.define("numbered_items", include_str!("../../sql/catalog/numbered_items.sql"), &[])?)
}

/// The text columns where the job names none.
const DEFAULT_TEXT: [&str; 4] = ["title", "brand", "category", "description"];

fn define_described_items(lake: &Lake, text: Option<&[String]>, config: &Config) -> Result<(), Error> {
    let parts: Vec<String> = match text {
        Some(columns) => columns.iter().map(|column| lake::quoted(column)).collect(),
        None => DEFAULT_TEXT.iter().map(|column| lake::quoted(column)).collect(),
    };
    let boosts = config.boosts.iter().enumerate();
    let boosts = boosts.map(|(at, boost)| (format!("boosts[{at}].when"), &boost.when));
    let pins = config.pins.iter().enumerate().map(|(at, pin)| (format!("pins[{at}].when"), &pin.when));
    for (key, rule) in [("eligible".to_owned(), &config.eligible)].into_iter().chain(boosts).chain(pins) {
        let sql = format!("SELECT * FROM items WHERE ({rule})");
        lake.define("described_items", &sql, &[]).map_err(|source| match lake.columns("items") {
            Ok(columns) => Error::Rule { key, rule: rule.clone(), columns, source },
            Err(error) => error.into(),
        })?;
    }
    let boost = |boost: &Boost| format!(" + CASE WHEN ({}) THEN {:?} ELSE 0.0 END", boost.when, boost.add);
    let boost: String = config.boosts.iter().map(boost).collect();
    let pin = |pin: &Pin| format!(" WHEN ({}) THEN {}", pin.when, pin.rank);
    let pin: String = config.pins.iter().map(pin).collect();
    let text = match parts.is_empty() {
        true => "CAST(NULL AS VARCHAR)".to_owned(),
        false => format!("concat_ws(' | ', {})", parts.join(", ")),
    };
    let rule = &config.eligible;
    // Nested columns decide nothing but by the rules, whose results are compared themselves.
    let all = lake.plain_columns("items")?;
    let all = all.iter().map(|column| lake::quoted(column)).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT *, {text} AS lamplighter_text, coalesce(({rule}), FALSE) AS lamplighter_eligible, \
         0.0{boost} AS lamplighter_boost, CASE WHEN FALSE THEN 0{pin} END AS lamplighter_pin, \
         fingerprint({all}) AS lamplighter_fingerprint FROM items"
    );
    Ok(lake.define("described_items", &sql, &[])?)
}

impl Catalog {
    /// Loads `catalog.parquet`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(path: &Path) -> Result<Self, lake::Error> {
        let columns = ["item_id", "title", "brand", "category", "price", "text", "eligible", "boost", "pin"];
        let rows = lake::read(path, &columns)?;
        let text = |at: usize| rows.column(at).as_string::<i32>().clone();
        Ok(Self {
            item_ids: rows.column(0).clone(),
            titles: text(1),
            brands: text(2),
            categories: text(3),
            prices: rows.column(4).as_primitive::<Float64Type>().iter().collect(),
            texts: text(5),
            eligible: rows.column(6).as_boolean().iter().map(|value| value == Some(true)).collect(),
            boosts: rows.column(7).as_primitive::<Float32Type>().values().to_vec(),
            pins: rows.column(8).as_primitive::<UInt16Type>().iter().collect(),
        })
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.eligible.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.eligible.is_empty()
    }
}
