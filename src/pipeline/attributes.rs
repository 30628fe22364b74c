//! What items and users are, where the evaluation splits its metrics by it.

use std::path::Path;

use arrow::array::AsArray;

use crate::error::Error;
use crate::evaluation::{self, Attribute, Side, Values};
use crate::job::Spec;
use crate::lake::input::{Contract, Input};
use crate::lake::{self, Lake};
use crate::{behavior, catalog};

use super::stages::Night;

/// Refuses a slice by a column that neither input has. The items are registered as `items`.
pub(super) fn check(
    lake: &Lake,
    items: Option<&Input>,
    users: Option<&Input>,
    spec: &Spec,
) -> Result<(), Error> {
    let slices = &spec.evaluation.slices;
    if slices.is_empty() {
        return Ok(());
    }
    let mut known = Vec::new();
    if let Some(items) = items {
        let text = spec.inputs.items.as_ref().and_then(|items| items.text.as_deref());
        known.extend(columns(lake, "items", Side::Items, items, &catalog::item_contract(text))?);
    }
    if let Some(users) = users {
        let contract = behavior::user_contract();
        lake.register_input("user_attributes", users, &contract)?;
        known.extend(columns(lake, "user_attributes", Side::Users, users, &contract)?);
    }
    let Some(unknown) = slices.iter().find(|slice| !known.contains(slice)) else { return Ok(()) };
    let expected = match known.is_empty() {
        true => "columns of [inputs.items] or [inputs.users], and the job has neither".to_owned(),
        false => {
            format!("columns among {}", known.iter().map(Attribute::to_string).collect::<Vec<_>>().join(", "))
        }
    };
    Err(evaluation::Error::Slice { expected, found: unknown.to_string() }.into())
}

/// The columns that an input really has: its table has all of the contract's, some of nulls alone.
fn columns(
    lake: &Lake,
    table: &str,
    of: Side,
    input: &Input,
    contract: &Contract,
) -> Result<Vec<Attribute>, Error> {
    let is_there = |name: &String| {
        input.present.contains(name) || contract.fields.iter().all(|field| field.name != *name)
    };
    let found = lake.plain_columns(table)?.into_iter().filter(is_there);
    Ok(found.map(|column| Attribute { of, column }).collect())
}

impl Night<'_> {
    /// The attributes that metrics are split by, written below a folder and read back.
    pub(super) fn attributes(&mut self, folder: &Path) -> Result<Vec<Values>, Error> {
        let mut all = Vec::new();
        let slices = self.job.spec.evaluation.slices.clone();
        if slices.is_empty() {
            return Ok(all);
        }
        // The night's SQL is long done: this session ends with the function.
        let (lake, inputs, spec) = (self.lake()?, self.inputs, &self.job.spec);
        let behavior = self.folder("behavior");
        let of = |side: Side| slices.iter().filter(move |slice| slice.of == side);
        let named = |side: Side| of(side).map(|slice| slice.column.as_str()).collect::<Vec<_>>();
        if let (Some(items), [_, ..]) = (&inputs.items, &named(Side::Items)[..]) {
            let text = spec.inputs.items.as_ref().and_then(|items| items.text.as_deref());
            let path = folder.join("item_attributes.parquet");
            lake.register_file("item_ids", &behavior.join("item_ids.parquet"))?;
            catalog::attributes(&lake, (items, text), &spec.catalog, &named(Side::Items), &path)
                .map_err(|error| inputs.blamed_for(Error::Catalog(error)))?;
            all.extend(read(&path, of(Side::Items))?);
        }
        if let (Some(users), [_, ..]) = (&inputs.users, &named(Side::Users)[..]) {
            let path = folder.join("user_attributes.parquet");
            lake.register_file("user_ids", &behavior.join("user_ids.parquet"))?;
            behavior::attributes(&lake, users, &named(Side::Users), &path)
                .map_err(|error| inputs.blamed_for(Error::Behavior(error)))?;
            all.extend(read(&path, of(Side::Users))?);
        }
        Ok(all)
    }
}

fn read<'a>(path: &Path, slices: impl Iterator<Item = &'a Attribute>) -> Result<Vec<Values>, Error> {
    let slices: Vec<&Attribute> = slices.collect();
    let names: Vec<String> = (0..slices.len()).map(|at| format!("value_{at}")).collect();
    let rows = lake::read(path, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
    let columns = rows.columns().iter().map(|column| column.as_string::<i32>().clone());
    let values = |(slice, values): (&Attribute, _)| Values { attribute: slice.clone(), values };
    Ok(slices.into_iter().zip(columns).map(values).collect())
}
