//! The evaluate stage: what the lists would have been before a cut, against what came after it.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{BooleanArray, Float32Array};
use serde_json::json;

use crate::error::Error;
use crate::evaluation::{self, System};
use crate::lake;
use crate::lake::table::{self, Layout};
use crate::matrix::Csr;
use crate::ranking::{self, List, Ranked, Source, Weights};

use super::history::Ids;
use super::rank::{Learned, Lister, USERS_AT_A_TIME};
use super::shelf::Shelf;
use super::stages::{BLOCK_ROWS, Night, Report};
use super::{lists, popular};

impl Night<'_> {
    pub(super) fn evaluate(&mut self) -> Result<(), Error> {
        let spec = &self.job.spec;
        let fingerprint = self
            .models_fingerprint("evaluate", &["behavior", "catalog", "encode", "factorize", "learn"])
            .add("config", &json!(spec.evaluation).to_string());
        self.stage("evaluate", fingerprint.hex(), |night, folder| {
            let (config, seed) = (&night.job.spec.evaluation, night.job.spec.seed);
            if !config.enabled {
                return Ok(Report { facts: json!({}), note: "off".to_owned() });
            }
            let attributes = night.attributes(folder)?;
            let ids = night.ids()?;
            let (window, truth) = night.exam(&ids)?;
            let learned = night.learned(window, None)?;
            let users: Vec<u32> =
                (0..truth.n_rows() as u32).filter(|user| !truth.row(*user as usize).0.is_empty()).collect();
            let n_new = users.iter().filter(|user| !learned.knows(**user as usize)).count();
            if users.is_empty() {
                return Ok(Report { facts: json!({}), note: "no user has held-out items".to_owned() });
            }
            let catalog = night.catalog_rows()?;
            let mut shelf = night.shelf(&learned, &catalog)?;
            let systems = night.systems(&learned, &mut shelf, &catalog.eligible, &users)?;
            night.write_backtest(folder, &ids, &users, &truth, &systems[0])?;
            // Users whom only a given table knows have seen nothing and are of no segment.
            let seen = learned.history.interactions.with_rows(truth.n_rows());
            let mut segments = learned.history.segments.clone();
            segments.resize(truth.n_rows(), u32::MAX);
            let inputs = evaluation::Inputs {
                users: &users,
                truth: &truth,
                seen: &seen,
                popularity: &learned.history.n_users_of_item,
                segments: &segments,
                segment_names: &learned.history.segment_names,
                attributes: &attributes,
                embeddings: Some(&shelf.vectors),
                eligible: &catalog.eligible,
                systems: &systems,
            };
            let metrics = evaluation::evaluate(&inputs, config, seed)?;
            let rows = lists::metrics(&metrics)?;
            let path = folder.join("metrics/part.parquet");
            let mut writer =
                table::Writer::create(&path, rows.schema(), &Layout::default()).map_err(lake::Error::from)?;
            writer.write(&rows).map_err(lake::Error::from)?;
            writer.finish().map_err(lake::Error::from)?;
            let k = config.ks.first().copied().unwrap_or(10);
            let headline = evaluation::headline(&metrics, k).map_err(evaluation::Error::from)?;
            let text = evaluation::table(&metrics, k, "all").map_err(evaluation::Error::from)?;
            let note = format!("{} users with held-out items, {n_new} of them without history", users.len());
            let report = evaluation::report(&metrics, &config.ks).map_err(evaluation::Error::from)?;
            Ok(Report { facts: json!({ "table": text, "report": report, "metrics": headline, "users": users.len(), "users_without_history": n_new }), note })
        })?;
        let facts = &self.done["evaluate"].facts;
        self.metrics = facts["table"].as_str().map(str::to_owned);
        self.manifest.metrics = serde_json::from_value(facts["metrics"].clone()).unwrap_or_default();
        Ok(())
    }

    /// Writes the fused lists that were compared, and what became of each row.
    fn write_backtest(
        &self,
        folder: &Path,
        ids: &Ids,
        users: &[u32],
        truth: &Csr,
        fused: &System,
    ) -> Result<(), Error> {
        let (user_ids, item_ids) = (self.user_ids(ids), self.item_ids(ids));
        // Whom only a given table knows has no id here, and nobody's list.
        let known = users.partition_point(|user| (*user as usize) < user_ids.len());
        let block = |lists: Range<usize>| {
            let rows =
                lists.clone().flat_map(|at| fused.lists[at].iter().map(move |item| (users[at], *item)));
            let rows: Vec<(u32, u32)> = rows.collect();
            let hit = |(user, item): &(u32, u32)| truth.row(*user as usize).0.binary_search(item).is_ok();
            let hits: BooleanArray = rows.iter().map(|row| Some(hit(row))).collect();
            let probability = |at: usize, rank: usize| {
                fused.probabilities.as_ref().and_then(|all| all[at].get(rank).map(|p| *p as f32))
            };
            let ranks = |at: usize| (0..fused.lists[at].len()).map(move |rank| (at, rank));
            let probabilities: Float32Array =
                lists.clone().flat_map(ranks).map(|(at, rank)| probability(at, rank)).collect();
            lists::batch(
                vec![
                    ("user_id", user_ids.take(rows.iter().map(|row| Some(row.0)))?),
                    ("rank", lists::ranks(lists.map(|at| fused.lists[at].len()))),
                    ("item_id", item_ids.take(rows.iter().map(|row| Some(row.1)))?),
                    ("probability", Arc::new(probabilities)),
                    ("hit", Arc::new(hits)),
                ],
                &["probability"],
            )
        };
        let layout = Layout {
            sorted_by: vec!["user_id".to_owned(), "rank".to_owned()],
            bloom: vec!["user_id".to_owned()],
        };
        let path = folder.join("backtest/part.parquet");
        let mut writer =
            table::Writer::create(&path, block(0..0)?.schema(), &layout).map_err(lake::Error::from)?;
        for start in (0..known).step_by(BLOCK_ROWS) {
            writer.write(&block(start..(start + BLOCK_ROWS).min(known))?).map_err(lake::Error::from)?;
        }
        writer.finish().map_err(lake::Error::from)?;
        Ok(())
    }

    /// The published fusion, the same at other diversities, each source alone without rules, and the user's
    /// own history. Users without history have the list that a night would give them: none, or with
    /// `include_cold` the popular one.
    fn systems(
        &mut self,
        learned: &Learned,
        shelf: &mut Shelf,
        eligible: &[bool],
        users: &[u32],
    ) -> Result<Vec<System>, Error> {
        let spec = &self.job.spec;
        let (config, top_k) = (&spec.ranking, spec.evaluation.longest());
        let fused = self.weights()?.mix(&learned.history.segment_names);
        let fallback: Vec<u32> = match config.include_cold {
            true => popular::list(&learned.history, eligible, top_k).iter().map(|row| row.item).collect(),
            false => Vec::new(),
        };
        let is_known = |user: u32| learned.knows(user as usize);
        let known: Vec<u32> = users.iter().copied().filter(|user| is_known(*user)).collect();
        let listed = |name: String, lists: Vec<Vec<u32>>| {
            let lists = popular::fill(users, is_known, lists, &fallback);
            System { name, lists, probabilities: None }
        };
        let is_own = |source: &Source| learned.own.iter().any(|own| own.0 == *source);
        let alone: Vec<Source> = learned.present().into_iter().filter(|source| !is_own(source)).collect();

        let curve = spec.evaluation.diversity.iter().map(|lambda| (format!("fused d={lambda}"), *lambda));
        let ruled: Vec<(String, f32)> =
            [("fused".to_owned(), config.rules.diversity)].into_iter().chain(curve).collect();
        let calibration = self.calibration()?;
        let n_systems = ruled.len() + alone.len();
        let mut systems = Vec::new();
        for (name, diversity) in ruled {
            shelf.set_diversity(diversity);
            let fusion = ranking::fuse(shelf.sources(learned, eligible), &fused)?;
            let mut lister = Lister::new(&fusion, learned, eligible, config.exclude_seen)?;
            let (mut lists, mut said) = (Vec::with_capacity(known.len()), Vec::new());
            for some in known.chunks(USERS_AT_A_TIME) {
                let found = shelf.lists(&mut lister, some, top_k)?;
                if let Some(calibration) = &calibration {
                    let rows: Vec<List<'_>> = found.iter().map(|list| (&list.0[..], &list.1[..])).collect();
                    let of = |(row, rank): (&Ranked, usize)| calibration.probability(row.score, rank);
                    let of_list = |rows: &Vec<Ranked>| rows.iter().zip(1..).map(of).collect();
                    said.extend(fusion.explain(some, &rows).iter().map(of_list));
                }
                lists.extend(found.into_iter().map(|list| list.0));
                let done = systems.len() * known.len() + lists.len();
                self.progress("evaluate", done, n_systems * known.len(), "lists");
            }
            let said: Vec<Vec<f64>> = popular::fill(users, is_known, said, &Vec::new());
            let probabilities = calibration.map(|_| said);
            systems.push(System { probabilities, ..listed(name, lists) });
        }
        for source in alone {
            let fusion = ranking::fuse(learned.sources(eligible), &Weights::alone(source).into())?;
            let mut lister = Lister::new(&fusion, learned, eligible, config.exclude_seen)?;
            let mut lists = Vec::with_capacity(known.len());
            for some in known.chunks(USERS_AT_A_TIME) {
                let found = lister.lists(some, top_k)?;
                lists.extend((0..some.len()).map(|at| found.list(at).0.to_vec()));
                let done = systems.len() * known.len() + lists.len();
                self.progress("evaluate", done, n_systems * known.len(), "lists");
            }
            systems.push(listed(source.name().to_owned(), lists));
        }
        for (source, own) in &learned.own {
            let lists = known.iter().map(|user| heaviest(own, eligible, *user, top_k)).collect();
            systems.push(listed(source.name().to_owned(), lists));
        }
        Ok(systems)
    }
}

/// The user's own items, the heaviest first.
fn heaviest(own: &Csr, eligible: &[bool], user: u32, top_k: usize) -> Vec<u32> {
    let (items, weights) = own.row(user as usize);
    let mut own: Vec<(u32, f32)> = items.iter().copied().zip(weights.iter().copied()).collect();
    own.retain(|(item, _)| eligible[*item as usize]);
    own.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    own.truncate(top_k);
    own.into_iter().map(|(item, _)| item).collect()
}
