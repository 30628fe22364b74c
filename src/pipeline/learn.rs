//! The learn stage: what each source counts for, from what users turned to after the `fit` window.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde_json::json;

use crate::error::Error;
use crate::learning::{self, Group};
use crate::matrix::Csr;
use crate::random::split_mix;
use crate::ranking::{self, List, Source, Weights};

use super::rank::{Learned, USERS_AT_A_TIME, retrieve};
use super::stages::{Night, Report};

impl Night<'_> {
    pub(super) fn learn(&mut self) -> Result<(), Error> {
        let spec = &self.job.spec;
        let fingerprint = self
            .models_fingerprint("learn", &["behavior", "catalog", "encode", "factorize"])
            .add("learning", &json!(spec.learning).to_string())
            .add("evaluation", &json!(spec.evaluation).to_string());
        self.stage("learn", fingerprint.hex(), |night, _| {
            if night.job.spec.ranking.weights.is_some() {
                return Ok(Report { facts: json!({}), note: "off: the job gives the weights".to_owned() });
            }
            let ids = night.ids()?;
            let (window, truth) = night.lesson(&ids)?;
            let learned = night.learned(window, None)?;
            let groups = night.groups(&learned, &truth)?;
            if groups.is_empty() {
                return Ok(Report { facts: json!({}), note: "no user to learn from".to_owned() });
            }
            let present = learned.present();
            let found = learning::learn(&groups, present.len(), &night.job.spec.learning);
            let named = |values: &dyn Fn(usize) -> f64| -> BTreeMap<&str, f64> {
                present.iter().enumerate().map(|(at, source)| (source.name(), values(at))).collect()
            };
            let weights = named(&|at| f64::from(found.weights[at]));
            let shown: Vec<String> = weights
                .iter()
                .filter(|(_, weight)| **weight > 0.0)
                .map(|(name, weight)| format!("{name} {weight:.3}"))
                .collect();
            let note = format!("{} users; {}", groups.len(), shown.join(", "));
            let facts = json!({
                "weights": weights,
                "users": groups.len(),
                "k": night.job.spec.learning.k,
                "ndcg": found.ndcg,
                "ndcg_alone": named(&|at| found.alone[at]),
            });
            Ok(Report { facts, note })
        })
    }

    /// What each source counts for: as the job says, as was learned, or, where nothing could be learned,
    /// what users bought before and what similar users buy.
    pub(super) fn weights(&self) -> Result<Weights, Error> {
        if let Some(weights) = self.job.spec.ranking.weights {
            return Ok(weights);
        }
        let learned = &self.done["learn"].facts["weights"];
        if let Ok(named) = serde_json::from_value::<BTreeMap<String, f32>>(learned.clone()) {
            return Ok(Weights::try_from(named)?);
        }
        let fallback = [(Source::Factors, 1.0), (Source::History, 1.0), (Source::Popularity, 0.1)];
        let named = fallback.map(|(source, weight)| (source.name().to_owned(), weight));
        Ok(Weights::try_from(BTreeMap::from(named))?)
    }

    /// The candidates of some users who came back: what any source lists first, with every source's
    /// standard score.
    fn groups(&mut self, learned: &Learned, truth: &Csr) -> Result<Vec<Group>, Error> {
        let (config, seed) = (self.job.spec.learning.clone(), self.job.spec.seed);
        let eligible = self.catalog_rows()?.eligible;
        let exclude_seen = self.job.spec.ranking.exclude_seen;
        let n_users = learned.history.interactions.n_rows();
        let known = |user: u32| {
            (user as usize) < n_users
                && !truth.row(user as usize).0.is_empty()
                && !learned.history.interactions.row(user as usize).0.is_empty()
        };
        let mut users: Vec<u32> = (0..truth.n_rows() as u32).filter(|user| known(*user)).collect();
        users.sort_by_key(|user| (draw(seed, *user), *user));
        users.truncate(config.users);
        users.sort_unstable();
        let present = learned.present();
        let alone = present
            .iter()
            .map(|source| ranking::fuse(learned.sources(&eligible), &Weights::alone(*source)))
            .collect::<Result<Vec<_>, _>>()?;
        let all = ranking::fuse(learned.sources(&eligible), &Weights::alike())?;
        let mut groups = Vec::with_capacity(users.len());
        for some in users.chunks(USERS_AT_A_TIME) {
            let mut candidates: Vec<Vec<u32>> = vec![Vec::new(); some.len()];
            for fusion in &alone {
                let found = retrieve(fusion, learned, &eligible, some, config.candidates, exclude_seen)?;
                for (at, candidates) in candidates.iter_mut().enumerate() {
                    candidates.extend_from_slice(found.list(at).0);
                }
            }
            candidates.par_iter_mut().for_each(|items| {
                items.sort_unstable();
                items.dedup();
            });
            let no_scores: Vec<Vec<f32>> = candidates.iter().map(|items| vec![0.0; items.len()]).collect();
            let lists: Vec<List<'_>> =
                candidates.iter().zip(&no_scores).map(|(items, scores)| (&items[..], &scores[..])).collect();
            for (user, rows) in some.iter().zip(all.explain(some, &lists)) {
                let wanted = truth.row(*user as usize).0;
                groups.push(Group {
                    scores: rows
                        .iter()
                        .flat_map(|row| present.iter().map(|source| row.contributions[*source as usize]))
                        .collect(),
                    relevant: rows.iter().map(|row| wanted.binary_search(&row.item).is_ok()).collect(),
                    n_relevant: wanted.len(),
                });
            }
            self.progress("learn", groups.len(), users.len(), "users");
        }
        Ok(groups)
    }
}

/// A user's lot, the same on every machine.
fn draw(seed: u64, user: u32) -> u64 {
    split_mix(seed ^ split_mix(u64::from(user)))
}
