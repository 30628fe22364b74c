//! The learn stage: what each source counts for, from what users turned to after the `fit` window.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde_json::{Value, json};

use crate::error::Error;
use crate::job::Spec;
use crate::learning::{self, Calibration, Gain, Group, Listed};
use crate::linear;
use crate::matrix::Csr;
use crate::random::split_mix;
use crate::ranking::{self, Fusion, List, Mix, Source, Weights};

use super::learned::{Learned, Lister, alone, users_at_a_time};
use super::stages::{Night, Report};

/// Values of `linear.recency` that are tried where it is open, beside the usual one.
const RECENCIES: [f64; 4] = [0.3, 0.5, 0.85, 1.0];
/// What popularity counts for at least, against the strongest source beside those of own items: it orders what
/// no other source tells apart.
const LEAST_POPULARITY: f32 = 1e-3;

/// What each source counts for, for everybody and in the segments that have weights of their own.
pub(super) struct Weighed {
    all: Weights,
    segments: BTreeMap<String, Weights>,
}

impl Weighed {
    /// Whether a source counts for anybody.
    pub(super) fn counts(&self, source: Source) -> bool {
        self.all.of(source) > 0.0 || self.segments.values().any(|weights| weights.of(source) > 0.0)
    }

    /// The same where segments are numbered.
    pub(super) fn mix(&self, segment_names: &[String]) -> Mix {
        let segments = segment_names.iter().map(|name| self.segments.get(name).copied()).collect();
        Mix { all: self.all, segments }
    }
}

impl Night<'_> {
    pub(super) fn learn(&mut self) -> Result<(), Error> {
        let spec = &self.job.spec;
        let floor = spec.privacy.min_users as usize;
        let segment_users = spec.learning.segment_users.max(floor);
        let config = learning::Config { segment_users, ..spec.learning.clone() };
        let fingerprint = self
            .models_fingerprint("learn", &["behavior", "catalog", "encode", "factorize"])
            .add("learning", &json!(config).to_string())
            .add("held_out", &json!(spec.evaluation.held_out()).to_string())
            .add("longest", &spec.evaluation.longest().to_string());
        self.stage("learn", fingerprint.hex(), |night, _| {
            if night.job.spec.ranking.weights.is_some() {
                let facts = json!({ "given": night.job.spec.ranking.weights });
                return Ok(Report { facts, note: "off: the job gives the weights".to_owned() });
            }
            let ids = night.ids()?;
            let (window, truth) = night.lesson(&ids)?;
            let mut learned = night.learned("learn", window, None)?;
            let eligible = night.eligible(&learned.history)?;
            let hides_seen = night.hides_seen(night.inputs.valid.is_some())?;
            let lesson = Lesson::new(&night.job.spec, &learned, &truth, &eligible, hides_seen);
            let recency = night.choose_recency(&mut learned, &lesson)?;
            let present = learned.present();
            let mut proposals = Vec::with_capacity(present.len());
            for source in &present {
                proposals.push(lesson.proposals(&learned, *source)?);
                night.progress("learn", proposals.len(), present.len(), "sources");
            }
            let groups = lesson.groups(&learned, proposals.iter())?;
            let n_hit = groups.iter().filter(|group| group.relevant.contains(&true)).count();
            if n_hit < learning::ENOUGH_USERS {
                let note = format!("{n_hit} users to learn from, too few: weights are fixed ones");
                return Ok(Report { facts: json!({ "too_few": n_hit, "recency": recency }), note });
            }
            let names = &learned.history.segment_names;
            let found = learning::learn(&groups, present.len(), &config);
            let named = |values: &dyn Fn(usize) -> f64| -> BTreeMap<&str, f64> {
                present.iter().enumerate().map(|(at, source)| (source.name(), values(at))).collect()
            };
            let is_own = |source: &Source| learned.own.iter().any(|own| own.0 == *source);
            let weights = |of: &[f32]| {
                // Scores of own items are not in standard deviations, and their weights much larger.
                let of_others = of.iter().zip(&present).filter(|(_, source)| !is_own(source));
                let strongest = of_others.map(|(weight, _)| *weight).fold(0.0, f32::max);
                let least = LEAST_POPULARITY * if strongest > 0.0 { strongest } else { LEAST_POPULARITY };
                named(&|at| {
                    match present[at] {
                        Source::Popularity => of[at].max(least),
                        // It had no say: what was held out cannot be what users know.
                        Source::History if hides_seen => 1.0,
                        _ => of[at],
                    }
                    .into()
                })
            };
            let of_segments = found.mix.segments.iter();
            let segments: BTreeMap<&str, _> = of_segments
                .filter_map(|(segment, of)| Some((names.get(*segment as usize)?.as_str(), weights(of))))
                .collect();
            let (over, base) = (present[found.lift.over].name(), found.alone[found.lift.over]);
            let (gain, (low, high)) = (found.lift.gain.mean, found.lift.gain.interval());
            let mut facts = json!({
                "weights": weights(&found.mix.all),
                "segments": segments,
                "recency": recency,
                "users": groups.len(),
                "k": night.job.spec.learning.k,
                "ndcg": found.ndcg,
                "ndcg_alone": named(&|at| found.alone[at]),
                "lift": { "over": over, "ndcg": gain, "low": low, "high": high },
            });
            let shown = weights(&found.mix.all).into_iter().filter(|(_, weight)| *weight > 0.0);
            let shown: Vec<String> = shown.map(|(name, weight)| format!("{name} {weight:.3}")).collect();
            let mut note = format!("{} users; {}", groups.len(), shown.join(", "));
            if !segments.is_empty() {
                let names: Vec<&str> = segments.keys().copied().collect();
                note.push_str(&format!("; {} otherwise", names.join(", ")));
            }
            if let Some(weighed) = weighed(&facts)? {
                let fusion = ranking::fuse(learned.sources(&eligible), &weighed.mix(names))?;
                let outcomes = lesson.outcomes(&learned, &fusion, night.job.spec.evaluation.longest())?;
                facts["calibration"] = json!(learning::calibrate(&outcomes));
            }
            if base > 0.0 {
                let percent = |ndcg: f64| 100.0 * ndcg / base;
                let (mean, low, high) = (percent(gain), percent(low), percent(high));
                note.push_str(&format!("; NDCG {mean:+.1} % ({low:+.1} to {high:+.1}) over {over} alone"));
            }
            if let Some(recency) = recency {
                note.push_str(&format!("; recency {recency}"));
            }
            Ok(Report { facts, note })
        })?;
        if let Some(n_hit) = self.done["learn"].facts["too_few"].as_u64() {
            self.warn(format!(
                "only {n_hit} users turned to something that any source proposes, fewer than {}: weights \
                 are not learned but fixed; a longer evaluation.test_days, or ranking.weights, mends that",
                learning::ENOUGH_USERS
            ));
        }
        Ok(())
    }

    /// Where `linear.recency` is open, the value with which one linear source does best for the lesson's users,
    /// if clearly better than with the usual one; the models are then applied with it.
    pub(super) fn choose_recency(
        &self,
        learned: &mut Learned,
        lesson: &Lesson<'_>,
    ) -> Result<Option<f64>, Error> {
        let judges = [Source::Ease, Source::Walk, Source::Cosine, Source::Sequence];
        let judge = judges.into_iter().find(|source| learned.present().contains(source));
        let is_open = self.job.spec.linear.recency.is_none() && !learned.history.steps.is_empty();
        let Some(judge) = judge.filter(|_| is_open) else { return Ok(None) };
        let usual = lesson.ndcg(&lesson.proposals(learned, judge)?);
        let (mut best, mut chosen) = (0.0, None);
        for recency in RECENCIES {
            // A judge is applied to histories alone: embeddings of users wait for what is chosen.
            let before = std::mem::replace(&mut learned.recent, learned.history.recent(recency));
            let reached = lesson.ndcg(&lesson.proposals(learned, judge)?);
            learned.recent = before;
            let gains: Vec<f64> = reached.iter().zip(&usual).map(|(new, old)| new - old).collect();
            let gain = Gain::of(&gains);
            if gain.is_clear() && gain.mean > best {
                (best, chosen) = (gain.mean, Some(recency));
            }
        }
        if let Some(recency) = chosen {
            let part = self.recent(&learned.history, recency)?;
            learned.swap(part);
        }
        Ok(chosen)
    }

    /// What an item of a history counts for against the one a step later: as the job says, or as was learned.
    pub(super) fn recency(&self) -> Result<f64, Error> {
        let learned = self.done.get("learn").and_then(|done| done.facts["recency"].as_f64());
        Ok(self.job.spec.linear.recency.or(learned).unwrap_or(linear::RECENCY))
    }

    /// What each source counts for: as the job says, as was learned, or, where nothing could be learned,
    /// what users bought before and what similar users buy.
    pub(super) fn weights(&self) -> Result<Weighed, Error> {
        let none = BTreeMap::new;
        if let Some(all) = self.job.spec.ranking.weights {
            return Ok(Weighed { all, segments: none() });
        }
        if let Some(learned) = weighed(&self.done["learn"].facts)? {
            return Ok(learned);
        }
        let without = &self.job.spec.ranking.without;
        let left = |(source, weight): (Source, f32)| {
            (!without.contains(&source)).then(|| (source.name().to_owned(), weight))
        };
        let fallback = [(Source::Factors, 1.0), (Source::History, 1.0), (Source::Popularity, 0.1)];
        let mut all: BTreeMap<String, f32> = fallback.into_iter().filter_map(left).collect();
        if all.is_empty() {
            all = Source::weighed().filter_map(|source| left((source, 1.0))).collect();
        }
        Ok(Weighed { all: Weights::try_from(all)?, segments: none() })
    }

    /// What fused scores are worth as probabilities, where that was learned.
    pub(super) fn calibration(&self) -> Result<Option<Calibration>, Error> {
        let facts = &self.done["learn"].facts["calibration"];
        serde_json::from_value(facts.clone()).map_err(Error::Facts)
    }
}

/// The weights that the stage's facts name, where any were learned.
fn weighed(facts: &Value) -> Result<Option<Weighed>, Error> {
    let Ok(all) = serde_json::from_value(facts["weights"].clone()) else { return Ok(None) };
    let segments = serde_json::from_value(facts["segments"].clone()).map_err(Error::Facts)?;
    Ok(Some(Weighed { all, segments }))
}

/// Users who came back, and what weights are learned from of them.
pub(super) struct Lesson<'a> {
    truth: &'a Csr,
    eligible: &'a [bool],
    exclude_seen: bool,
    n_candidates: usize,
    k: usize,
    users: Vec<u32>,
}

impl<'a> Lesson<'a> {
    /// Draws the users.
    pub(super) fn new(
        spec: &Spec,
        learned: &Learned,
        truth: &'a Csr,
        eligible: &'a [bool],
        exclude_seen: bool,
    ) -> Self {
        let history = &learned.history.interactions;
        let known = |user: &u32| {
            let at = *user as usize;
            at < history.n_rows() && !truth.row(at).0.is_empty() && !history.row(at).0.is_empty()
        };
        let mut users: Vec<u32> = (0..truth.n_rows() as u32).filter(known).collect();
        users.sort_by_key(|user| (draw(spec.seed, *user), *user));
        users.truncate(spec.learning.users);
        users.sort_unstable();
        let learning::Config { candidates: n_candidates, k, .. } = spec.learning;
        Self { truth, eligible, exclude_seen, n_candidates, k, users }
    }

    /// What a source alone lists first, a list a user.
    pub(super) fn proposals(&self, learned: &Learned, source: Source) -> Result<Vec<Vec<u32>>, Error> {
        let wanted = (self.n_candidates, self.exclude_seen);
        alone(source, learned, self.eligible, &self.users, wanted, &mut |_| {})
    }

    /// Each user's NDCG@K of some lists.
    fn ndcg(&self, lists: &[Vec<u32>]) -> Vec<f64> {
        let of_list = |(user, list): (&u32, &Vec<u32>)| {
            let wanted = self.truth.row(*user as usize).0;
            let group = Group {
                scores: (0..list.len()).rev().map(|score| score as f32).collect(),
                relevant: list.iter().map(|item| wanted.binary_search(item).is_ok()).collect(),
                n_relevant: wanted.len(),
                segment: 0,
            };
            learning::ndcg(&group, self.k)
        };
        self.users.iter().zip(lists).map(of_list).collect()
    }

    /// Every source's standard score of what any source proposes.
    pub(super) fn groups<'b>(
        &self,
        learned: &Learned,
        proposals: impl Iterator<Item = &'b Vec<Vec<u32>>>,
    ) -> Result<Vec<Group>, Error> {
        let mut candidates: Vec<Vec<u32>> = vec![Vec::new(); self.users.len()];
        for lists in proposals {
            candidates.iter_mut().zip(lists).for_each(|(all, list)| all.extend_from_slice(list));
        }
        candidates.par_iter_mut().for_each(|items| {
            items.sort_unstable();
            items.dedup();
        });
        let present = learned.present();
        let all = ranking::fuse(learned.sources(self.eligible), &Weights::alike().into())?;
        let mut groups = Vec::with_capacity(self.users.len());
        let n = users_at_a_time(self.eligible.len());
        for (some, candidates) in self.users.chunks(n).zip(candidates.chunks(n)) {
            let no_scores: Vec<Vec<f32>> = candidates.iter().map(|items| vec![0.0; items.len()]).collect();
            let lists: Vec<List<'_>> =
                candidates.iter().zip(&no_scores).map(|(items, scores)| (&items[..], &scores[..])).collect();
            let scored = all.score(some, &lists);
            for ((user, items), rows) in some.iter().zip(candidates).zip(scored) {
                let wanted = self.truth.row(*user as usize).0;
                groups.push(Group {
                    scores: rows
                        .iter()
                        .flat_map(|row| present.iter().map(|source| row.contributions[*source as usize]))
                        .collect(),
                    relevant: items.iter().map(|item| wanted.binary_search(item).is_ok()).collect(),
                    n_relevant: wanted.len(),
                    segment: learned.history.segments[*user as usize],
                });
            }
        }
        Ok(groups)
    }

    /// The rows of the users' fused lists, and what became of each.
    fn outcomes(&self, learned: &Learned, fusion: &Fusion, top_k: usize) -> Result<Vec<Listed>, Error> {
        let mut lister = Lister::new(fusion, learned, self.eligible, self.exclude_seen)?;
        let mut outcomes = Vec::new();
        for some in self.users.chunks(users_at_a_time(self.eligible.len())) {
            let found = lister.lists(some, top_k)?;
            let lists: Vec<List<'_>> = (0..some.len()).map(|at| found.list(at)).collect();
            let scored = fusion.score(some, &lists);
            for ((user, (items, _)), rows) in some.iter().zip(&lists).zip(scored) {
                let wanted = self.truth.row(*user as usize).0;
                let rows = items.iter().zip(rows).zip(1..);
                outcomes.extend(rows.map(|((item, row), rank)| {
                    let hit = wanted.binary_search(item).is_ok();
                    Listed { score: row.score, rank, hit }
                }));
            }
        }
        Ok(outcomes)
    }
}

/// A user's lot, the same on every machine.
fn draw(seed: u64, user: u32) -> u64 {
    split_mix(seed ^ split_mix(u64::from(user)))
}
