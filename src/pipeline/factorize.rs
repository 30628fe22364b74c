//! The factorize stage: every window's factors.
//!
//! With `factors.warm_start` a window begins where the one before it ended, whose interactions are among its
//! own, and the first window where the same window of an earlier night ended, which ended before tonight's. So
//! no start has seen what its window holds out.

use std::collections::HashMap;
use std::path::Path;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use serde_json::{Value, json};

use crate::error::Error;
use crate::evaluation::Hold;
use crate::factor::{self, Config, Factors, Start};
use crate::lake;
use crate::matrix::{Csr, Dense};
use crate::publish::DoneStage;

use super::history::Ids;
use super::stages::{Night, Report, dense, end_of_day_us, read_vectors, window_folder, write_vectors};

/// Where the first window's sweeps begin: users and items.
type Known = (Dense, Dense);

impl Night<'_> {
    pub(super) fn factorize(&mut self) -> Result<(), Error> {
        let spec = &self.job.spec;
        let earlier = self.earlier_factors()?;
        let from = earlier.as_ref().map_or("", |stage| stage.fingerprint());
        let fingerprint = self
            .fingerprint("factorize", &["behavior"])
            .add("config", &json!(spec.factors).to_string())
            .add("windows", &format!("{:?}", self.windows()))
            .add("held_out", &json!(spec.evaluation.held_out()).to_string())
            .add("threads", &spec.threads.to_string())
            .add("seed", &spec.seed.to_string())
            .add("from", from);
        self.stage("factorize", fingerprint.hex(), |night, folder| {
            let ids = night.ids()?;
            let windows = night.windows();
            let mut known = earlier.as_ref().and_then(|stage| {
                let known = night.known(stage, windows[0], &ids);
                night.unless_damaged(known, "factors", stage)
            });
            let (mut is_warm, mut rank) = (false, 0);
            let (mut objectives, mut flops) = (serde_json::Map::new(), 0.0);
            for (at, window) in windows.iter().enumerate() {
                let interactions = night.history(window, &ids)?.interactions;
                let config = night.job.spec.factors.config(&interactions);
                rank = config.rank;
                known = known.filter(|(_, items)| items.n_cols() == rank);
                is_warm |= at == 0 && known.is_some();
                let config = if known.is_some() { config.warmed() } else { config };
                let factors =
                    night.factorize_window(&interactions, &config, known.as_ref(), (at, windows.len()))?;
                flops += config.iterations as f64 * config.flops_a_sweep(&interactions);
                let at = window_folder(folder, window);
                let (users, items) = (night.user_ids(&ids), night.item_ids(&ids));
                let path = at.join("user_factors/part.parquet");
                write_vectors(&path, ("user_id", &users), "factors", &factors.users, false)?;
                let path = at.join("item_factors/part.parquet");
                write_vectors(&path, ("item_id", &items), "factors", &factors.items, false)?;
                let parts = factors.objective;
                objectives.insert(
                    (*window).to_owned(),
                    json!({
                        "observed": parts.observed,
                        "unobserved": parts.unobserved,
                        "regularization": parts.regularization,
                        "total": parts.total(),
                        "unobserved_weight": config.unobserved_weight,
                        "regularization_strength": config.regularization,
                        "sweeps": config.iterations,
                    }),
                );
                known = night.job.spec.factors.warm_start.then_some((factors.users, factors.items));
            }
            let warm = earlier.as_ref().filter(|_| is_warm).map(|stage| stage.made_by());
            let note = format!(
                "rank {rank}, objective {:.6e}{}",
                objectives["full"]["total"].as_f64().unwrap_or(f64::NAN),
                warm.map_or_else(String::new, |run| format!(", from the factors of {run}")),
            );
            let facts = json!({ "objective": objectives, "until_us": night.ends()?, "warm_start": warm, "flops": flops });
            Ok(Report { facts, note })
        })
    }

    fn factorize_window(
        &mut self,
        interactions: &Csr,
        config: &Config,
        known: Option<&Known>,
        (at, of): (usize, usize),
    ) -> Result<Factors, Error> {
        let start = known.map_or(Start::Drawn, |(users, items)| Start::Warm { users, items });
        let seed = self.job.spec.seed;
        let all = of * config.iterations;
        Ok(factor::factorize(interactions, config, start, seed, &mut |sweep| {
            self.progress("factorize", at * config.iterations + sweep.number, all, "sweeps");
        })?)
    }

    pub(super) fn factors(&self, window: &str) -> Result<Known, Error> {
        let folder = window_folder(&self.folder("factorize"), window);
        Ok((
            read_vectors(&folder.join("user_factors/part.parquet"), "factors")?,
            read_vectors(&folder.join("item_factors/part.parquet"), "factors")?,
        ))
    }

    /// When each window ends, in microseconds since 1970; nothing where it is not that which tells them apart.
    fn ends(&self) -> Result<Value, Error> {
        const DAY_US: f64 = 86_400e6;
        if self.hold()? != Hold::Temporal {
            return Ok(json!({}));
        }
        let end = end_of_day_us(self.date);
        let days = self.days_held_out(&self.windows());
        let ends = days.into_iter().map(|(window, days)| (window, json!(end - (days * DAY_US) as i64)));
        Ok(ends.collect())
    }

    /// The latest earlier night whose first window ended before tonight's.
    fn earlier_factors(&self) -> Result<Option<DoneStage>, Error> {
        if !self.job.spec.factors.warm_start {
            return Ok(None);
        }
        let (window, ends) = (self.windows()[0], self.ends()?);
        let end = ends[window].as_i64();
        let before =
            |facts: &Value| facts["until_us"][window].as_i64().is_some_and(|ended| Some(ended) < end);
        Ok(self.output.newest("factorize", &before)?)
    }

    /// An earlier night's factors by tonight's indices.
    fn known(&self, earlier: &DoneStage, window: &str, ids: &Ids) -> Result<Known, Error> {
        let folder = window_folder(earlier.folder(), window);
        let read =
            |side: &str, id: &str, ids: &ArrayRef| by_index(&folder.join(side).join("part.parquet"), id, ids);
        Ok((read("user_factors", "user_id", &ids.users)?, read("item_factors", "item_id", &ids.items)?))
    }
}

/// The factors of a file by the index that each id has among `ids`; zero for one that is new.
pub(super) fn by_index(path: &Path, id: &str, ids: &ArrayRef) -> Result<Dense, Error> {
    let rows = lake::read(path, &[id, "factors"])?;
    let vectors = dense(rows.column(1))?;
    let (there, wanted) = (cast(rows.column(0), &DataType::Utf8)?, cast(ids, &DataType::Utf8)?);
    let row_of: HashMap<&str, usize> =
        there.as_string::<i32>().iter().enumerate().filter_map(|(row, id)| Some((id?, row))).collect();
    let mut known = Dense::zeros(ids.len(), vectors.n_cols());
    for (at, id) in wanted.as_string::<i32>().iter().enumerate() {
        if let Some(row) = id.and_then(|id| row_of.get(id)) {
            known.row_mut(at).copy_from_slice(vectors.row(*row));
        }
    }
    Ok(known)
}
