//! What one window has in each source, and lists by it.

use std::ops::RangeInclusive;

use crate::cold::{self, Heirs, Lookalikes};
use crate::error::Error;
use crate::matrix::{Csr, Dense};
use crate::ranking::{self, Fusion, Source, Weights};
use crate::{linear, profile, repeat, retrieval};

use super::encode::Embeddings;
use super::history::History;
use super::learn::Weighed;
use super::stages::Night;

/// Sparse scores that are in memory at a time, at most, and the bounds of how many users these are of.
const SCORES_AT_A_TIME: usize = 50_000_000;
const USERS_AT_A_TIME: RangeInclusive<usize> = 64..=2048;

/// Users whose sparse scores of this many items are in memory at a time.
pub(super) fn users_at_a_time(n_items: usize) -> usize {
    (SCORES_AT_A_TIME / n_items.max(1)).clamp(*USERS_AT_A_TIME.start(), *USERS_AT_A_TIME.end())
}

/// What one window's users and items have in each source.
pub(super) struct Learned {
    pub(super) factors: (Dense, Dense),
    pub(super) content: Option<(Dense, Dense)>,
    pub(super) spectral: Option<Spectral>,
    pub(super) trend: Option<(Dense, Dense)>,
    /// As the history has it, and for cold items as look-alikes have it: nobody has turned to them because they
    /// were not there, not because nobody would.
    popularity: Dense,
    pub(super) linear: linear::Models,
    lookalikes: Option<Lookalikes>,
    heirs: Vec<(Source, Heirs)>,
    pub(super) recent: Csr,
    pub(super) own: Vec<(Source, Csr)>,
    pub(super) history: History,
    without: Vec<Source>,
}

/// Items as the low-pass filter takes them in and gives them out, and users between.
pub(super) struct Spectral {
    pub(super) inputs: Dense,
    pub(super) outputs: Dense,
    pub(super) users: Dense,
}

impl Spectral {
    pub(super) fn new((inputs, outputs): (Dense, Dense), recent: &Csr) -> Self {
        Self { users: linear::project(recent, &inputs), inputs, outputs }
    }
}

impl Learned {
    pub(super) fn sources<'a>(&'a self, eligible: &'a [bool]) -> ranking::Sources<'a> {
        ranking::Sources {
            featured: &[],
            dense: self.dense(),
            linear: self.linear(),
            own: self.own.iter().map(|(source, own)| (*source, own)).collect(),
            bias: None,
            ruled: false,
            segments: &self.history.segments,
            popularity: &self.popularity,
            history: &self.history.interactions,
            eligible,
        }
    }
}

impl Learned {
    fn dense(&self) -> Vec<(Source, &Dense, &Dense)> {
        let pairs = [
            (Source::Factors, Some((&self.factors.0, &self.factors.1))),
            (Source::Content, self.content.as_ref().map(|(users, items)| (users, items))),
            (Source::Trend, self.trend.as_ref().map(|(users, items)| (users, items))),
            (Source::Spectral, self.spectral.as_ref().map(|spectral| (&spectral.users, &spectral.outputs))),
        ];
        pairs.into_iter().filter_map(|(source, pair)| pair.map(|pair| (source, pair.0, pair.1))).collect()
    }

    fn linear(&self) -> Vec<ranking::Linear<'_>> {
        let of_history = [
            (Source::Ease, self.linear.ease.as_ref()),
            (Source::Walk, self.linear.walk.as_ref()),
            (Source::Cosine, self.linear.cosine.as_ref()),
            (Source::Sequence, self.linear.sequence.as_ref()),
        ];
        let of_history = of_history
            .into_iter()
            .filter_map(|(source, model)| model.map(|model| (source, &self.recent, model)));
        let peers = self.linear.peers.as_ref().map(|(from, model)| (Source::Peers, from, model));
        let linear = of_history.chain(peers);
        let heirs = |source| self.heirs.iter().find(|heirs| heirs.0 == source).map(|heirs| &heirs.1);
        let linear =
            linear.map(|(source, from, model)| ranking::Linear { source, from, model, heirs: heirs(source) });
        linear.collect()
    }

    /// Gives cold items their part of item vectors.
    pub(super) fn inherit_rows(&self, items: &mut Dense) {
        self.lookalikes.iter().for_each(|lookalikes| lookalikes.fill_rows(items));
    }

    /// Gives cold items their part of a linear source's model, in the place of what they had.
    pub(super) fn inherit_columns(&mut self, source: Source) {
        let linear = self.linear();
        let model = linear.iter().find(|linear| linear.source == source).map(|linear| linear.model);
        let heirs = self.lookalikes.as_ref().zip(model).map(|(lookalikes, model)| match source {
            Source::Peers => lookalikes.heirs_of_users(model),
            _ => lookalikes.heirs(model),
        });
        self.heirs.retain(|heirs| heirs.0 != source);
        self.heirs.extend(heirs.map(|heirs| (source, heirs)));
    }

    /// Whether anything is known of a user that a list could rest on: items, or words.
    pub(super) fn knows(&self, user: usize) -> bool {
        let has_words = || {
            let embedding = self.content.as_ref().map(|(users, _)| users.row(user));
            embedding.is_some_and(|embedding| embedding.iter().any(|value| *value != 0.0))
        };
        user < self.history.interactions.n_rows()
            && (!self.history.interactions.row(user).0.is_empty() || has_words())
    }

    /// The sources that this window has.
    pub(super) fn present(&self) -> Vec<Source> {
        let mut present = vec![Source::Popularity];
        present.extend(self.own.iter().map(|own| own.0));
        present.extend(self.dense().iter().map(|dense| dense.0));
        present.extend(self.linear().iter().map(|linear| linear.source));
        present.retain(|source| !self.without.contains(source));
        present.sort();
        present
    }
}

/// The warm items that each cold item's text resembles most, and more than by chance.
fn lookalikes(embeddings: &Dense, chance: f32, history: &History) -> Result<Lookalikes, Error> {
    let warm: Vec<bool> = history.n_users_of_item.iter().map(|n_users| *n_users > 0).collect();
    let cold: Vec<u32> = (0..warm.len() as u32).filter(|item| !warm[*item as usize]).collect();
    let queries = embeddings.select(&cold);
    let request = retrieval::Request {
        queries: &queries,
        seen: None,
        sparse: None,
        exclude_self: false,
        top_k: cold::N_LOOKALIKES,
    };
    let found = retrieval::index(embeddings, Some(&warm))?.retrieve(&request, &mut |_| {})?;
    let nearest = cold.iter().enumerate().map(|(at, item)| {
        let (items, cosines) = found.list(at);
        let found = items.iter().copied().zip(cosines.iter().copied());
        (*item, found.filter(|(_, cosine)| *cosine > chance).collect())
    });
    Ok(Lookalikes::new(warm.len(), nearest))
}

/// Which item-item models to fit.
pub(super) fn wanted(counts: impl Fn(Source) -> bool) -> linear::Wanted {
    linear::Wanted {
        ease: counts(Source::Ease),
        walk: counts(Source::Walk),
        cosine: counts(Source::Cosine),
        sequence: counts(Source::Sequence),
        spectral: counts(Source::Spectral),
        peers: counts(Source::Peers),
    }
}

/// Lists by fused scores: the catalogue is prepared once for all users.
pub(super) struct Lister<'a> {
    fusion: &'a Fusion<'a>,
    index: retrieval::Index<'a>,
    /// Users × items that no list of the user's may hold.
    seen: Option<&'a Csr>,
}

impl<'a> Lister<'a> {
    pub(super) fn new(
        fusion: &'a Fusion<'a>,
        learned: &'a Learned,
        eligible: &'a [bool],
        exclude_seen: bool,
    ) -> Result<Self, Error> {
        let index = retrieval::index(fusion.items(), Some(eligible))?;
        Ok(Self { fusion, index, seen: exclude_seen.then_some(&learned.history.interactions) })
    }

    /// Some users' lists.
    pub(super) fn lists(&mut self, users: &[u32], top_k: usize) -> Result<retrieval::TopK, Error> {
        let (queries, sparse) = (self.fusion.queries(users), self.fusion.sparse(users));
        let seen = self.seen.map(|seen| seen.select(users));
        let request = retrieval::Request {
            queries: &queries,
            seen: seen.as_ref(),
            sparse: sparse.as_ref(),
            exclude_self: false,
            top_k,
        };
        Ok(self.index.retrieve(&request, &mut |_| {})?)
    }

    /// Whether a user's list may hold an item that is eligible.
    pub(super) fn may_list(&self, user: u32, item: u32) -> bool {
        self.seen.is_none_or(|seen| seen.row(user as usize).0.binary_search(&item).is_err())
    }
}

/// What a source alone lists, a list a user. A sparse source lists nothing that it does not speak for.
pub(super) fn alone(
    source: Source,
    learned: &Learned,
    eligible: &[bool],
    users: &[u32],
    (top_k, exclude_seen): (usize, bool),
    on_done: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<u32>>, Error> {
    let mut sources = learned.sources(eligible);
    // By itself it is the baseline that everything is measured by: nothing is made up in it.
    if source == Source::Popularity {
        sources.popularity = &learned.history.popularity;
    }
    let fusion = ranking::fuse(sources, &Weights::alone(source).into())?;
    let is_dense = source == Source::Popularity || learned.dense().iter().any(|dense| dense.0 == source);
    let mut lister = Lister::new(&fusion, learned, eligible, exclude_seen)?;
    let mut lists = Vec::with_capacity(users.len());
    for some in users.chunks(users_at_a_time(eligible.len())) {
        let found = lister.lists(some, top_k)?;
        lists.extend((0..some.len()).map(|at| {
            let (items, scores) = found.list(at);
            let spoken_for =
                if is_dense { items.len() } else { scores.partition_point(|score| *score > 0.0) };
            items[..spoken_for].to_vec()
        }));
        on_done(lists.len());
    }
    Ok(lists)
}

impl Night<'_> {
    /// Every source's model of a window, or of those that `weights` lets count, for a stage.
    pub(super) fn learned(
        &mut self,
        stage: &str,
        window: &str,
        weights: Option<&Weighed>,
    ) -> Result<Learned, Error> {
        let ids = self.ids()?;
        let history = self.history(window, &ids)?;
        let recent = history.recent(self.recency()?);
        let content = self.content(&recent, &history.searches)?;
        let job = self.job;
        let spec = &job.spec;
        let without = &spec.ranking.without;
        let counts =
            |source| !without.contains(&source) && weights.is_none_or(|weights| weights.counts(source));
        let (interactions, steps) = (&history.interactions, &history.steps);
        let wanted = wanted(counts);
        let mut told = |fitted: linear::Fitted| self.progress(stage, fitted.done, fitted.of, "models");
        let mut models = linear::fit(interactions, steps, wanted, &spec.linear, spec.seed, &mut told)?;
        let spectral = models.spectral.take().map(|matrices| Spectral::new(matrices, &recent));
        let lookalikes = content.as_ref().map(|(_, embeddings)| {
            lookalikes(embeddings, spec.encoder.kind.chance(embeddings.n_cols()), &history)
        });
        let mut learned = Learned {
            factors: self.factors(window)?,
            content,
            spectral,
            popularity: history.popularity.clone(),
            trend: history.trend(spec.ranking.trend_half_life_days.get()),
            linear: models,
            lookalikes: lookalikes.transpose()?,
            heirs: Vec::new(),
            recent,
            own: self.own(window, &history, counts(Source::Repeat))?,
            history,
            without: without.clone(),
        };
        if let Some(lookalikes) = &learned.lookalikes {
            let spectral = learned.spectral.as_mut().map(|spectral| &mut spectral.outputs);
            let trend = learned.trend.as_mut().map(|trend| &mut trend.1);
            let all =
                [&mut learned.factors.1, &mut learned.popularity].into_iter().chain(spectral).chain(trend);
            all.for_each(|items| lookalikes.fill_rows(items));
        }
        let linear: Vec<Source> = learned.linear().iter().map(|linear| linear.source).collect();
        linear.into_iter().for_each(|source| learned.inherit_columns(source));
        if learned.present().is_empty() {
            let problem = "`ranking.without`: expected a source to be left that this job has; found none";
            return Err(ranking::Error::Config { problem: problem.to_owned() }.into());
        }
        Ok(learned)
    }

    /// What speaks for users' own items, where they may be listed: how heavy each is in the history, and,
    /// where times tell visits apart, how likely the user is to turn to it again.
    fn own(&self, window: &str, history: &History, repeat_counts: bool) -> Result<Vec<(Source, Csr)>, Error> {
        let spec = &self.job.spec;
        if spec.ranking.exclude_seen {
            return Ok(Vec::new());
        }
        let mut own = vec![(Source::History, history.shares())];
        if repeat_counts && let Some(visits) = self.visits(window)? {
            own.push((Source::Repeat, repeat::fit(&history.interactions, &visits, &spec.repeat)?));
        }
        Ok(own)
    }

    /// Users' embeddings, from what they turned to of late and searched for, and items', where texts are
    /// embedded.
    pub(super) fn content(&self, recent: &Csr, searches: &Csr) -> Result<Option<(Dense, Dense)>, Error> {
        let Some(embeddings) = self.embeddings()?.map(Embeddings::centred) else { return Ok(None) };
        let n_items = embeddings.items.n_rows();
        let no_terms = Csr::from_coordinates(n_items, 0, &[], &[], &[])?;
        let inputs = profile::Inputs {
            history: recent,
            items: Some(&embeddings.items),
            searches: Some((searches, &embeddings.queries)),
            categories: &vec![None; n_items],
            brands: &vec![None; n_items],
            prices: &vec![None; n_items],
            terms: &no_terms,
        };
        let profiles = profile::profile(&inputs, &self.job.spec.profile)?;
        Ok(profiles.embeddings.map(|users| (users, embeddings.items)))
    }
}
