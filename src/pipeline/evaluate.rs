//! The evaluate stage: what the lists would have been before a cut, against what came after it.

use serde_json::json;

use crate::error::Error;
use crate::evaluation::{self, System};
use crate::lake;
use crate::lake::table::{self, Layout};
use crate::ranking::{self, Source, Weights};

use super::history::History;
use super::lists;
use super::rank::{Learned, USERS_AT_A_TIME, retrieve};
use super::stages::{Night, Report};

impl Night<'_> {
    pub(super) fn evaluate(&mut self) -> Result<(), Error> {
        let spec = &self.job.spec;
        let fingerprint = self
            .fingerprint("evaluate", &["rank"])
            .add("config", &json!(spec.evaluation).to_string())
            .add("factors", &json!(spec.factors).to_string())
            .add("seed", &spec.seed.to_string());
        self.stage("evaluate", fingerprint.hex(), |night, folder| {
            let (config, seed) = (&night.job.spec.evaluation, night.job.spec.seed);
            if !config.enabled {
                return Ok(Report { facts: json!({}), note: "off".to_owned() });
            }
            let ids = night.ids()?;
            let (learned, truth) = (night.learned("train", None)?, night.truth("train", &ids)?);
            let mut users: Vec<u32> =
                (0..truth.n_rows() as u32).filter(|user| !truth.row(*user as usize).0.is_empty()).collect();
            // Who came after the cut for the first time had no list that could have been right.
            let n_asked = users.len();
            users.retain(|user| learned.knows(*user as usize));
            let n_new = n_asked - users.len();
            if users.is_empty() {
                return Ok(Report { facts: json!({}), note: "no user has held-out items".to_owned() });
            }
            let catalog = night.catalog_rows()?;
            let systems = night.systems(&learned, &catalog.eligible, &users)?;
            let embeddings = night.embeddings()?.map(|embeddings| embeddings.items);
            let inputs = evaluation::Inputs {
                users: &users,
                truth: &truth,
                seen: &learned.history.interactions,
                popularity: &learned.history.n_users_of_item,
                segments: &learned.history.segments,
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
            let note = format!("{} users with held-out items; {n_new} more had no history", users.len());
            Ok(Report { facts: json!({ "table": text, "metrics": headline, "users": users.len(), "users_without_history": n_new }), note })
        })?;
        let facts = &self.done["evaluate"].facts;
        self.metrics = facts["table"].as_str().map(str::to_owned);
        self.manifest.metrics = serde_json::from_value(facts["metrics"].clone()).unwrap_or_default();
        Ok(())
    }

    /// The published fusion, each source alone, and the user's own history.
    fn systems(&mut self, learned: &Learned, eligible: &[bool], users: &[u32]) -> Result<Vec<System>, Error> {
        let config = &self.job.spec.ranking;
        let mut compared = vec![("fused", self.weights()?)];
        let alone = learned.present().into_iter().filter(|source| *source != Source::History);
        compared.extend(alone.map(|source| (source.name(), Weights::alone(source))));
        let top_k = self.job.spec.evaluation.longest();
        let mut systems = Vec::new();
        let n_systems = compared.len();
        for (at, (name, weights)) in compared.into_iter().enumerate() {
            let fusion = ranking::fuse(learned.sources(eligible), &weights)?;
            let mut lists = Vec::with_capacity(users.len());
            for some in users.chunks(USERS_AT_A_TIME) {
                let found = retrieve(&fusion, learned, eligible, some, top_k, config.exclude_seen)?;
                lists.extend((0..some.len()).map(|at| found.list(at).0.to_vec()));
                self.progress("evaluate", at * users.len() + lists.len(), n_systems * users.len(), "lists");
            }
            systems.push(System { name: name.to_owned(), lists });
        }
        if !config.exclude_seen {
            let lists =
                users.iter().map(|user| own_history(&learned.history, eligible, *user, top_k)).collect();
            systems.push(System { name: "history".to_owned(), lists });
        }
        Ok(systems)
    }
}

/// The user's own items, the heaviest first.
fn own_history(history: &History, eligible: &[bool], user: u32, top_k: usize) -> Vec<u32> {
    let (items, weights) = history.interactions.row(user as usize);
    let mut own: Vec<(u32, f32)> = items.iter().copied().zip(weights.iter().copied()).collect();
    own.retain(|(item, _)| eligible[*item as usize]);
    own.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    own.truncate(top_k);
    own.into_iter().map(|(item, _)| item).collect()
}
