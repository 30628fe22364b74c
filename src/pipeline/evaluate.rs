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
use crate::learning;
use crate::matrix::Csr;
use crate::ranking::{self, List, Scored, Source};

use super::history::{Ids, NO_SEGMENT};
use super::learned::{self, Learned, Lister, users_at_a_time};
use super::shelf::Shelf;
use super::stages::{BLOCK_ROWS, Night, Report};
use super::{lists, popular};

impl Night<'_> {
    pub(super) fn evaluate(&mut self) -> Result<(), Error> {
        let spec = &self.job.spec;
        let fingerprint = self
            .models_fingerprint("evaluate", &["behavior", "catalog", "encode", "factorize", "learn"])
            .add("lists", &json!(spec.ranking).to_string())
            .add("config", &json!(spec.evaluation).to_string())
            .add("min_users", &spec.privacy.min_users.to_string());
        self.stage("evaluate", fingerprint.hex(), |night, folder| {
            let (config, seed) = (&night.job.spec.evaluation, night.job.spec.seed);
            if !config.enabled {
                return Ok(Report { facts: json!({}), note: "off".to_owned() });
            }
            let attributes = night.attributes(folder)?;
            let ids = night.ids()?;
            let (window, truth) = night.exam(&ids)?;
            let learned = night.learned("evaluate", window, None)?;
            let users: Vec<u32> =
                (0..truth.n_rows() as u32).filter(|user| !truth.row(*user as usize).0.is_empty()).collect();
            let n_new = users.iter().filter(|user| !learned.knows(**user as usize)).count();
            if users.is_empty() {
                return Ok(Report { facts: json!({}), note: "no user has held-out items".to_owned() });
            }
            let catalog = night.catalog_rows()?;
            let eligible = night.eligible(&learned.history)?;
            let mut shelf = night.shelf(&learned, &catalog)?;
            let systems = night.systems(&learned, &mut shelf, &eligible, &users)?;
            night.write_backtest(folder, &ids, &users, &truth, &systems[0])?;
            // Users whom only a given table knows have seen nothing and are of no segment.
            let seen = learned.history.interactions.with_rows(truth.n_rows());
            let mut segments = learned.history.segments.clone();
            segments.resize(truth.n_rows(), NO_SEGMENT);
            let inputs = evaluation::Inputs {
                users: &users,
                truth: &truth,
                seen: &seen,
                popularity: &learned.history.n_users_of_item,
                segments: &segments,
                segment_names: &learned.history.segment_names,
                attributes: &attributes,
                embeddings: Some(&shelf.vectors),
                eligible: &eligible,
                systems: &systems,
                min_users: night.job.spec.privacy.min_users,
            };
            let evaluation::Metrics { frame: metrics, withheld } =
                evaluation::evaluate(&inputs, config, seed)?;
            let rows = lists::metrics(&metrics)?;
            let path = folder.join("metrics/part.parquet");
            let mut writer =
                table::Writer::create(&path, rows.schema(), &Layout::default()).map_err(lake::Error::from)?;
            writer.write(&rows).map_err(lake::Error::from)?;
            writer.finish().map_err(lake::Error::from)?;
            let k = config.ks.first().copied().unwrap_or(10);
            let headline = evaluation::headline(&metrics, k).map_err(evaluation::Error::from)?;
            let text = evaluation::table(&metrics, k, "all").map_err(evaluation::Error::from)?;
            let mut note =
                format!("{} users with held-out items, {n_new} of them without history", users.len());
            if night.hides_seen(night.inputs.test.is_some())? && !night.job.spec.ranking.exclude_seen {
                note.push_str("; without what they know, which no such hold-out can have");
            }
            let report = evaluation::report(&metrics, &config.ks).map_err(evaluation::Error::from)?;
            // Those that a key of the job can favour.
            let sources: Vec<&str> = learned.present().iter().map(|source| source.name()).collect();
            let ahead = match users.len() {
                0..learning::ENOUGH_USERS => None,
                _ => evaluation::ahead(&metrics, k, &sources).map_err(evaluation::Error::from)?,
            };
            Ok(Report { facts: json!({ "table": text, "ahead": ahead, "k": k, "report": report, "metrics": headline, "users": users.len(), "users_without_history": n_new, "slices_withheld": withheld }), note })
        })?;
        let facts = &self.done["evaluate"].facts;
        let withheld = facts["slices_withheld"].as_u64().unwrap_or(0);
        self.metrics = facts["table"].as_str().map(str::to_owned);
        self.manifest.metrics = serde_json::from_value(facts["metrics"].clone()).unwrap_or_default();
        let ahead = &facts["ahead"];
        if let (Some(system), Some(gain)) = (ahead[0].as_str(), ahead[1].as_f64()) {
            let k = facts["k"].clone();
            self.warn(format!(
                "{system} alone has {gain:.4} more NDCG@{k} than the fused lists: ranking.weights can give it more, \
                 ranking.without leave others out"
            ));
        }
        if withheld > 0 {
            let floor = self.job.spec.privacy.min_users;
            self.warn(format!(
                "metrics of {withheld} slices are withheld: each has fewer test users than privacy.min_users = {floor}"
            ));
        }
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

    /// The published fusion, the same at other diversities, each source alone without rules, the user's own
    /// items by `frequency`, and by what the sources of own items say. Users without history have the list that a
    /// night would give them: none, or with `include_cold` the popular one. Where what is held out cannot be what
    /// a user knows, such items are left out as with `exclude_seen`.
    fn systems(
        &mut self,
        learned: &Learned,
        shelf: &mut Shelf,
        eligible: &[bool],
        users: &[u32],
    ) -> Result<Vec<System>, Error> {
        let spec = &self.job.spec;
        let (config, top_k) = (&spec.ranking, spec.evaluation.longest());
        let hides_seen = self.hides_seen(self.inputs.test.is_some())?;
        let fused = self.weights()?.mix(&learned.history.segment_names);
        let fallback: Vec<u32> = match config.include_cold {
            true => {
                let rows = popular::list(&learned.history, eligible, shelf, top_k);
                rows.iter().map(|row| row.item).collect()
            }
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
            let mut lister = Lister::new(&fusion, learned, eligible, hides_seen)?;
            let (mut lists, mut said) = (Vec::with_capacity(known.len()), Vec::new());
            for some in known.chunks(users_at_a_time(eligible.len())) {
                let found = shelf.lists(&mut lister, some, top_k)?;
                if let Some(calibration) = &calibration {
                    let rows: Vec<List<'_>> = found.iter().map(|list| (&list.0[..], &list.1[..])).collect();
                    let of = |(row, rank): (&Scored, usize)| calibration.probability(row.score, rank);
                    let of_list = |rows: &Vec<Scored>| rows.iter().zip(1..).map(of).collect();
                    said.extend(fusion.score(some, &rows).iter().map(of_list));
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
            let lists = learned::alone(source, learned, eligible, &known, (top_k, hides_seen), &mut |n| {
                self.progress("evaluate", systems.len() * known.len() + n, n_systems * known.len(), "lists");
            })?;
            systems.push(listed(source.name().to_owned(), lists));
        }
        if !hides_seen {
            let of_user = |user: &u32| learned.history.most_frequent(*user as usize, eligible, top_k);
            systems.push(listed("frequency".to_owned(), known.iter().map(of_user).collect()));
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
