//! Lists → keys and values, on a thread of its own while the cache takes the batch before.

use std::sync::mpsc::sync_channel;

use arrow::array::AsArray;
use arrow::datatypes::Float32Type;

use crate::publish::{self, Id, Ids, List};

use super::{Config, Error, Table};

/// Keys and values of some lists.
pub(super) type Values = Vec<(String, Vec<u8>)>;

/// Batches that are ready while one is sent.
const READY: usize = 2;

/// Gives all lists of a table but the first `skip` to `send`, a batch at a time, in the order of their keys.
pub(super) fn batches(
    table: &Table,
    run: &str,
    config: &Config,
    skip: u64,
    send: &mut dyn FnMut(Values) -> Result<(), Error>,
) -> Result<(), Error> {
    std::thread::scope(|scope| {
        let (ready, batches) = sync_channel::<Result<Values, Error>>(READY);
        scope.spawn(move || {
            let mut batch = Vec::new();
            let encoded = encode(table, run, config, skip, &mut |list| {
                batch.push(list);
                // A receiver that has gone has failed, and says so itself.
                batch.len() < usize::from(config.batch.0)
                    || ready.send(Ok(std::mem::take(&mut batch))).is_ok()
            });
            let last = encoded.map(|()| batch);
            let _ = ready.send(last);
        });
        for batch in batches {
            let batch = batch?;
            if !batch.is_empty() {
                send(batch)?;
            }
        }
        Ok(())
    })
}

/// Calls `on_list` for each list until it says no.
fn encode(
    table: &Table,
    run: &str,
    config: &Config,
    skip: u64,
    on_list: &mut dyn FnMut((String, Vec<u8>)) -> bool,
) -> Result<(), Error> {
    let mut encoder = Encoder::new(table, run);
    let columns = [table.kind.item, "score"];
    let columns = if config.scores { &columns[..] } else { &columns[..1] };
    for (at, list) in publish::Lists::open(&table.folder, table.kind.keys, columns)?.enumerate() {
        let list = list?;
        if at as u64 >= skip && !on_list((encoder.key(&list.key), encoder.value(&list, config.scores)?)) {
            break;
        }
    }
    Ok(())
}

/// Writes keys and values of one table.
pub(super) struct Encoder<'a> {
    table: &'a Table,
    prefix: String,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(table: &'a Table, run: &str) -> Self {
        Self { table, prefix: format!("{run}:{}", table.kind.letter) }
    }

    pub(super) fn key(&mut self, key: &[Id<'static>]) -> String {
        let mut text = self.prefix.clone();
        for part in self.table.kind.order {
            text.push(':');
            text.push_str(&key[*part].to_string());
        }
        text
    }

    fn value(&self, list: &List, scores: bool) -> Result<Vec<u8>, Error> {
        let ids = list.ids(self.table.kind.item)?;
        let n_rows = list.rows.num_rows();
        let mut value = Vec::with_capacity(12 * n_rows);
        if scores {
            value.push(b'[');
        }
        self.write_ids(&ids, n_rows, &mut value)?;
        if scores {
            value.extend_from_slice(b",[");
            let column =
                list.rows.column_by_name("score").and_then(|column| column.as_primitive_opt::<Float32Type>());
            for (at, score) in column.into_iter().flat_map(|column| column.values().iter()).enumerate() {
                if at > 0 {
                    value.push(b',');
                }
                self.write(score, &mut value)?;
            }
            value.extend_from_slice(b"]]");
        }
        Ok(value)
    }

    fn write_ids(&self, ids: &Ids, n_rows: usize, value: &mut Vec<u8>) -> Result<(), Error> {
        value.push(b'[');
        for row in 0..n_rows {
            if row > 0 {
                value.push(b',');
            }
            match ids.id(row) {
                Id::Int(id) => self.write(&id, value)?,
                Id::Text(id) => self.write(&id, value)?,
            }
        }
        value.push(b']');
        Ok(())
    }

    fn write<T: serde::Serialize>(&self, part: &T, value: &mut Vec<u8>) -> Result<(), Error> {
        serde_json::to_writer(value, part)
            .map_err(|source| Error::Value { table: self.table.kind.name, source })
    }
}
