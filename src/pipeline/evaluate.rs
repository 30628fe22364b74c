//! The evaluate stage: what the lists would have been before a cut, against what came after it.

use serde_json::json;

use crate::error::Error;
use crate::evaluation::{self, System};
use crate::lake;
use crate::lake::table::{self, Layout};
use crate::matrix::Csr;
use crate::ranking::{self, Source, Weights};

use super::rank::{Learned, USERS_AT_A_TIME, retrieve};
use super::stages::{Night, Report};
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
            let systems = night.systems(&learned, &catalog.eligible, &users)?;
            let embeddings = night.embeddings()?.map(|embeddings| embeddings.items);
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
                embeddings: embeddings.as_ref(),
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

    /// The published fusion, each source alone, and the user's own history. Users without history have the
    /// list that a night would give them: none, or with `include_cold` the popular one.
    fn systems(&mut self, learned: &Learned, eligible: &[bool], users: &[u32]) -> Result<Vec<System>, Error> {
        let config = &self.job.spec.ranking;
        let fused = self.weights()?.mix(&learned.history.segment_names);
        let mut compared = vec![("fused", fused)];
        let is_own = |source: &Source| learned.own.iter().any(|own| own.0 == *source);
        let alone = learned.present().into_iter().filter(|source| !is_own(source));
        compared.extend(alone.map(|source| (source.name(), Weights::alone(source).into())));
        let top_k = self.job.spec.evaluation.longest();
        let fallback: Vec<u32> = match config.include_cold {
            true => popular::list(&learned.history, eligible, top_k).iter().map(|row| row.item).collect(),
            false => Vec::new(),
        };
        let is_known = |user: u32| learned.knows(user as usize);
        let known: Vec<u32> = users.iter().copied().filter(|user| is_known(*user)).collect();
        let listed = |lists: Vec<Vec<u32>>| popular::fill(users, is_known, lists, &fallback);
        let mut systems = Vec::new();
        let n_systems = compared.len();
        for (at, (name, mix)) in compared.into_iter().enumerate() {
            let fusion = ranking::fuse(learned.sources(eligible), &mix)?;
            let mut lists = Vec::with_capacity(known.len());
            for some in known.chunks(USERS_AT_A_TIME) {
                let found = retrieve(&fusion, learned, eligible, some, top_k, config.exclude_seen)?;
                lists.extend((0..some.len()).map(|at| found.list(at).0.to_vec()));
                self.progress("evaluate", at * known.len() + lists.len(), n_systems * known.len(), "lists");
            }
            systems.push(System { name: name.to_owned(), lists: listed(lists) });
        }
        for (source, own) in &learned.own {
            let lists = known.iter().map(|user| heaviest(own, eligible, *user, top_k)).collect();
            systems.push(System { name: source.name().to_owned(), lists: listed(lists) });
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
