//! Lists as the job's rules want them.

use std::collections::BTreeMap;

use arrow::array::StringArray;
use rayon::prelude::*;

use crate::catalog::Catalog;
use crate::encoder::Kind;
use crate::error::Error;
use crate::matrix::Dense;
use crate::ranking::{List, NONE, Rules, Sources, Traits};
use crate::retrieval;

use super::learned::{Learned, Lister};
use super::stages::Night;

/// A user's list: items and their scores, the best first.
pub(super) type Listed = (Vec<u32>, Vec<f32>);

/// What the rules know of items.
pub(super) struct Shelf {
    rules: Rules,
    categories: Vec<u32>,
    brands: Vec<u32>,
    groups: Vec<u32>,
    /// Items × dim, rows of unit length or zero: embeddings, or factors where there are none.
    pub(super) vectors: Dense,
    pins: Vec<(u16, u32)>,
    /// Whether an item is pinned, or boosted.
    featured: Vec<bool>,
    /// What the job adds to items' scores, where it adds anything.
    bias: Option<Vec<f32>>,
    /// The most items that the caps leave any list.
    longest: usize,
}

/// Candidates that are in memory at a time, where pools are long.
const MOST_CANDIDATES: usize = 4_000_000;
/// Neighbours that an item's near-duplicates are looked for among.
const NEIGHBOURS: usize = 50;

impl Night<'_> {
    pub(super) fn shelf(&self, learned: &Learned, catalog: &Catalog) -> Result<Shelf, Error> {
        let rules = self.job.spec.ranking.rules.clone();
        // As they are published, not centred: 0.97 is to mean the same for every catalogue.
        let embeddings = self.embeddings()?.map(|embeddings| embeddings.items);
        let has_meaning = embeddings.is_some() && self.job.spec.encoder.kind != Kind::Words;
        let vectors = embeddings.unwrap_or_else(|| learned.factors.1.clone()).with_unit_rows();
        let groups = match rules.near_duplicates {
            Some(cosine) if has_meaning => near_duplicates(&vectors, cosine)?,
            // Where no model tells, what has the same title is the same product.
            Some(_) => numbered(&catalog.titles),
            None => Vec::new(),
        };
        let mut pins: Vec<(u16, u32)> = (0u32..)
            .zip(catalog.pins.iter().zip(&catalog.eligible))
            .filter_map(|(item, (pin, eligible))| pin.filter(|_| *eligible).map(|rank| (rank, item)))
            .collect();
        pins.sort_unstable();
        let bias = bias(&rules, learned, catalog);
        let (categories, brands) = (numbered(&catalog.categories), numbered(&catalog.brands));
        let featured =
            catalog.pins.iter().zip(&catalog.boosts).map(|(pin, boost)| pin.is_some() || *boost > 0.0);
        let (featured, longest) = (featured.collect(), usize::MAX);
        let shelf = Shelf { rules, categories, brands, groups, vectors, pins, featured, bias, longest };
        let eligible = (0..catalog.eligible.len() as u32).filter(|item| catalog.eligible[*item as usize]);
        Ok(Shelf { longest: shelf.rules.longest(&shelf.traits(), eligible), ..shelf })
    }
}

impl Shelf {
    /// Other lists of the same: only as diverse as this.
    pub(super) fn set_diversity(&mut self, diversity: f32) {
        self.rules.diversity = diversity;
    }

    fn traits(&self) -> Traits<'_> {
        Traits {
            categories: &self.categories,
            brands: &self.brands,
            groups: &self.groups,
            vectors: &self.vectors,
        }
    }

    fn arranges(&self) -> bool {
        self.rules.need_a_pool() || !self.pins.is_empty()
    }

    /// What is known of users and items, and what the rules add to it.
    pub(super) fn sources<'a>(&'a self, learned: &'a Learned, eligible: &'a [bool]) -> Sources<'a> {
        let (bias, ruled) = (self.bias.as_deref(), self.arranges());
        Sources { bias, ruled, featured: &self.featured, ..learned.sources(eligible) }
    }

    /// Whether the shop wants an item in lists.
    pub(super) fn features(&self, item: u32) -> bool {
        self.featured[item as usize]
    }

    /// A list for everybody from a pool of all that may be in it, the best first.
    pub(super) fn arrange_for_all(&self, pool: List<'_>, top_k: usize) -> Listed {
        if !self.arranges() {
            let n = top_k.min(pool.0.len());
            return (pool.0[..n].to_vec(), pool.1[..n].to_vec());
        }
        self.rules.arrange(&self.traits(), pool, &self.pins, top_k).into_iter().unzip()
    }

    /// Some users' lists, full wherever the catalogue and the rules allow it.
    pub(super) fn lists(
        &self,
        lister: &mut Lister<'_>,
        users: &[u32],
        top_k: usize,
    ) -> Result<Vec<Listed>, Error> {
        let of = |found: &retrieval::TopK, at: usize| {
            let (items, scores) = found.list(at);
            (items.to_vec(), scores.to_vec())
        };
        if !self.arranges() {
            let found = lister.lists(users, top_k)?;
            return Ok((0..users.len()).map(|at| of(&found, at)).collect());
        }
        let traits = self.traits();
        let mut lists: Vec<Listed> = vec![Listed::default(); users.len()];
        let mut short: Vec<usize> = (0..users.len()).collect();
        let mut pool = self.rules.pool(top_k);
        while !short.is_empty() {
            let mut still = Vec::new();
            for places in short.chunks((MOST_CANDIDATES / pool).max(1)) {
                let some: Vec<u32> = places.iter().map(|at| users[*at]).collect();
                let found = lister.lists(&some, pool)?;
                let pins = some.iter().map(|user| {
                    self.pins.iter().copied().filter(|pin| lister.may_list(*user, pin.1)).collect()
                });
                let pins: Vec<Vec<(u16, u32)>> = pins.collect();
                let arrange = |(at, pins): (usize, &Vec<(u16, u32)>)| -> Listed {
                    self.rules.arrange(&traits, found.list(at), pins, top_k).into_iter().unzip()
                };
                let arranged: Vec<Listed> = pins.par_iter().enumerate().map(arrange).collect();
                for (at, (place, list)) in places.iter().zip(arranged).enumerate() {
                    if list.0.len() < self.longest.min(top_k) && found.list(at).0.len() == pool {
                        still.push(*place);
                    }
                    lists[*place] = list;
                }
            }
            short = still;
            pool = pool.saturating_mul(2);
        }
        Ok(lists)
    }
}

/// What boosts add and the long tail is helped by, where either is asked for.
fn bias(rules: &Rules, learned: &Learned, catalog: &Catalog) -> Option<Vec<f32>> {
    if rules.long_tail == 0.0 && catalog.boosts.iter().all(|boost| *boost == 0.0) {
        return None;
    }
    let counts = &learned.history.n_users_of_item;
    let popularity: Vec<f64> = counts.iter().map(|n_users| f64::from(*n_users).ln_1p()).collect();
    let eligible = || popularity.iter().zip(&catalog.eligible).filter(|(_, eligible)| **eligible);
    let n = eligible().count().max(1) as f64;
    let mean = eligible().map(|(value, _)| value).sum::<f64>() / n;
    let deviation = (eligible().map(|(value, _)| (value - mean).powi(2)).sum::<f64>() / n).sqrt();
    let scale = if deviation > 0.0 { f64::from(rules.long_tail) / deviation } else { 0.0 };
    let held_back = popularity.iter().map(|value| ((value - mean) * scale) as f32);
    Some(catalog.boosts.iter().zip(held_back).map(|(boost, held_back)| boost - held_back).collect())
}

/// Names by number, in their order; [`NONE`] where there is none.
fn numbered(names: &StringArray) -> Vec<u32> {
    let known: BTreeMap<&str, u32> = names.iter().flatten().map(|name| (name, 0)).collect();
    let known: BTreeMap<&str, u32> = known.into_keys().zip(0..).collect();
    names.iter().map(|name| name.and_then(|name| known.get(name)).copied().unwrap_or(NONE)).collect()
}

/// Items that are as near as that, one to the other, bear the smallest index among them.
fn near_duplicates(vectors: &Dense, cosine: f32) -> Result<Vec<u32>, Error> {
    let request = retrieval::Request {
        queries: vectors,
        seen: None,
        sparse: None,
        exclude_self: true,
        top_k: NEIGHBOURS,
    };
    let found = retrieval::index(vectors, None)?.retrieve(&request, &mut |_| {})?;
    let mut groups: Vec<u32> = (0..vectors.n_rows() as u32).collect();
    let root = |groups: &[u32], mut item: u32| {
        while groups[item as usize] != item {
            item = groups[item as usize];
        }
        item
    };
    for item in 0..vectors.n_rows() {
        let (others, cosines) = found.list(item);
        for (other, _) in others.iter().zip(cosines).filter(|(_, found)| **found >= cosine) {
            let (a, b) = (root(&groups, item as u32), root(&groups, *other));
            groups[a.max(b) as usize] = a.min(b);
        }
    }
    Ok((0..groups.len() as u32).map(|item| root(&groups, item)).collect())
}
