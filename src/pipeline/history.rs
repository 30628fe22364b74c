//! The model inputs of one window, read back from what `behavior` wrote.

use std::cmp::Reverse;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::datatypes::{Float32Type, Float64Type, Int64Type, TimestampMicrosecondType, UInt32Type};

use crate::error::Error;
use crate::lake;
use crate::lake::table::{self, Layout};
use crate::matrix::{Csr, Dense};
use crate::repeat;

use super::lists::{self, Named};

/// One window's interactions and what was counted from them.
#[derive(Clone)]
pub(super) struct History {
    /// Users × items, decayed weights.
    pub(super) interactions: Csr,
    /// The strongest thing the user did, as the rank of its type's weight; one an interaction.
    pub(super) strengths: Vec<u8>,
    /// Each interaction's place in its user's order, from 0; those of one moment share one. Empty where
    /// times tell nothing.
    pub(super) steps: Vec<u32>,
    /// How many events the interaction is made of; one an interaction.
    n_events: Vec<u32>,
    /// When the user last turned to the item, in microseconds; one an interaction. Empty where times tell
    /// nothing.
    last_times: Vec<i64>,
    /// Each user's segment, as a position in `segment_names`; [`NO_SEGMENT`] where the window has no event of
    /// the user, or the job's own `users` leave the user out.
    pub(super) segments: Vec<u32>,
    /// Segments by name, ascending.
    pub(super) segment_names: Vec<String>,
    /// Items × segments: `ln(1 + weight)` of the segment's users with the item.
    pub(super) popularity: Dense,
    /// Items' decayed weights, of everybody.
    pub(super) weights: Vec<f32>,
    /// Users who interacted with each item.
    pub(super) n_users_of_item: Vec<u32>,
    /// Users × queries, decayed weights.
    pub(super) searches: Csr,
}

/// Past all segments.
pub(super) const NO_SEGMENT: u32 = u32::MAX;

/// External ids by index, and how many there are.
pub(super) struct Ids {
    pub(super) users: ArrayRef,
    pub(super) items: ArrayRef,
    pub(super) queries: ArrayRef,
}

impl Ids {
    pub(super) fn read(behavior: &Path) -> Result<Self, Error> {
        let column = |table: &str, name: &str| -> Result<ArrayRef, Error> {
            Ok(lake::read(&behavior.join(format!("{table}.parquet")), &[name])?.column(0).clone())
        };
        Ok(Self {
            users: column("user_ids", "user_id")?,
            items: column("item_ids", "item_id")?,
            queries: column("query_ids", "query")?,
        })
    }
}

impl History {
    pub(super) fn read(behavior: &Path, window: &str, ids: &Ids, usable_times: bool) -> Result<Self, Error> {
        let (n_users, n_items) = (ids.users.len(), ids.items.len());
        let table = |name: &str, columns: &[&str]| {
            lake::read(&behavior.join(window).join(format!("{name}.parquet")), columns)
        };
        let columns = ["user_idx", "item_idx", "weight", "strength", "last_time", "n_events"];
        let rows = table("interactions", &columns)?;
        let interactions = csr(&rows, n_users, n_items)?;
        let strengths = rows.column(3).as_primitive::<Int64Type>().values();
        let strengths = strengths.iter().map(|strength| *strength as u8).collect();
        let n_events = rows.column(5).as_primitive::<UInt32Type>().values().to_vec();
        let times = rows.column(4).as_primitive::<TimestampMicrosecondType>().values();
        let (steps, last_times) = match usable_times {
            true => (steps(&interactions, times), times.to_vec()),
            false => Default::default(),
        };

        let (segments, segment_names) = segments(behavior, window, n_users)?;

        let rows = table("popularity", &["item_idx", "segment", "weight", "n_users"])?;
        let mut popularity = Dense::zeros(n_items, segment_names.len().max(1));
        let mut n_users_of_item = vec![0u32; n_items];
        let items = rows.column(0).as_primitive::<UInt32Type>().values();
        let weights = rows.column(2).as_primitive::<Float64Type>().values();
        let counts = rows.column(3).as_primitive::<UInt32Type>().values();
        for (at, name) in rows.column(1).as_string::<i32>().iter().enumerate() {
            let item = items[at] as usize;
            let name = name.unwrap_or("");
            if let Ok(segment) = segment_names.binary_search_by(|known| known.as_str().cmp(name)) {
                popularity.row_mut(item)[segment] = (weights[at] as f32).ln_1p();
            }
            n_users_of_item[item] += counts[at];
        }
        let weights = with_everybodys(&mut popularity);

        let rows = table("searches", &["user_idx", "query_idx", "weight"])?;
        let searches = csr(&rows, n_users, ids.queries.len())?;
        Ok(Self {
            interactions,
            strengths,
            steps,
            n_events,
            last_times,
            segments,
            segment_names,
            popularity,
            weights,
            n_users_of_item,
            searches,
        })
    }

    /// What each segment is called where others than its users read it: nothing where these are fewer.
    pub(super) fn common_segments(&self, min_users: u32) -> Vec<Option<&str>> {
        let mut n_users = vec![0_u32; self.segment_names.len()];
        for segment in &self.segments {
            n_users.get_mut(*segment as usize).into_iter().for_each(|n| *n += 1);
        }
        let named = n_users.iter().zip(&self.segment_names);
        named.map(|(n, name)| (*n >= min_users).then_some(name.as_str())).collect()
    }

    /// What a window that holds out pairs of users and items may see of the whole history: `kept`.
    pub(super) fn of_kept(mut self, behavior: &Path, window: &str, kept: Csr) -> Result<Self, Error> {
        (self.segments, self.segment_names) = segments(behavior, window, kept.n_rows())?;
        self.popularity = Dense::zeros(kept.n_cols(), self.segment_names.len().max(1));
        self.keep_only(kept);
        Ok(self)
    }

    /// Keeps only these interactions (a subset), and counts popularity from them alone: as if the user had
    /// never turned to anything else.
    pub(super) fn keep_only(&mut self, kept: Csr) {
        let mut strengths = Vec::with_capacity(kept.n_entries());
        let mut n_events = Vec::with_capacity(kept.n_entries());
        let mut last_times = Vec::new();
        self.popularity.values_mut().fill(0.0);
        self.n_users_of_item.fill(0);
        for user in 0..kept.n_rows() {
            let segment = self.segments[user] as usize;
            let (items, weights) = kept.row(user);
            for (item, weight) in items.iter().zip(weights) {
                let place = self.place(user, *item);
                strengths.push(place.map_or(0, |at| self.strengths[at]));
                n_events.push(place.map_or(0, |at| self.n_events[at]));
                last_times.extend(place.and_then(|at| self.last_times.get(at)));
                // Of a user of no segment nothing counts in one.
                if let Some(popularity) = self.popularity.row_mut(*item as usize).get_mut(segment) {
                    *popularity += weight;
                }
                self.n_users_of_item[*item as usize] += 1;
            }
        }
        self.popularity.values_mut().iter_mut().for_each(|weight| *weight = weight.ln_1p());
        self.weights = with_everybodys(&mut self.popularity);
        if !self.steps.is_empty() {
            self.steps = steps(&kept, &last_times);
        }
        (self.interactions, self.strengths) = (kept, strengths);
        (self.n_events, self.last_times) = (n_events, last_times);
        // A search may have led to what is held out; which did cannot be told here.
        self.searches = Csr::from_rows(self.searches.n_cols(), vec![Vec::new(); self.searches.n_rows()]);
    }

    /// Users × items: what a model of the history is applied to, `ln(1 + weight)`, times `recency` for
    /// every step that the user has taken since.
    pub(super) fn recent(&self, recency: f64) -> Csr {
        let (n_users, n_items) = (self.interactions.n_rows(), self.interactions.n_cols());
        let rows = (0..n_users).map(|user| {
            let first = self.interactions.offset(user);
            let (items, weights) = self.interactions.row(user);
            let step = |at: usize| self.steps.get(first + at).copied().unwrap_or(0);
            let last = (0..items.len()).map(step).max().unwrap_or(0);
            let weighed = items.iter().zip(weights).enumerate().map(|(at, (item, weight))| {
                let since = f64::from(last - step(at));
                (*item, (f64::from(weight.ln_1p()) * recency.powf(since)) as f32)
            });
            weighed.collect()
        });
        Csr::from_rows(n_items, rows.collect())
    }

    /// Users and items whose product is how many users turned to the item of late, of all and again of the user's
    /// segment, `ln(1 + n)` each, a user counting half after every half-life since: a column for all and one a
    /// segment. Nothing where times tell nothing.
    pub(super) fn trend(&self, half_life_days: f64) -> Option<(Dense, Dense)> {
        let now = self.last_times.iter().copied().max()?;
        let n = 1 + self.segment_names.len();
        let mut items = Dense::zeros(self.interactions.n_cols(), n);
        let mut users = Dense::zeros(self.interactions.n_rows(), n);
        let mut counts = vec![0f64; items.n_rows() * n];
        for user in 0..self.interactions.n_rows() {
            let own = (self.segments[user] as usize).saturating_add(1);
            let columns = if own < n { &[0, own][..] } else { &[0] };
            columns.iter().for_each(|column| users.row_mut(user)[*column] = 1.0);
            let first = self.interactions.offset(user);
            for (at, item) in self.interactions.row(user).0.iter().enumerate() {
                let days = (now - self.last_times[first + at]) as f64 / 86_400e6;
                let counts = &mut counts[*item as usize * n..(*item as usize + 1) * n];
                columns.iter().for_each(|column| counts[*column] += (-days / half_life_days).exp2());
            }
        }
        items.values_mut().iter_mut().zip(counts).for_each(|(value, count)| *value = count.ln_1p() as f32);
        Some((users, items))
    }

    /// Users × items from 0 to 1: `ln(1 + weight)` over that of the user's heaviest item.
    pub(super) fn shares(&self) -> Csr {
        self.interactions.clone().map_rows(|weights| {
            let heaviest = weights.iter().copied().fold(0.0, f32::max).ln_1p();
            weights.iter_mut().for_each(|weight| {
                *weight = if heaviest > 0.0 { weight.max(0.0).ln_1p() / heaviest } else { 0.0 };
            });
        })
    }

    /// The user's own items, those turned to most often first; of equals the more popular.
    pub(super) fn most_frequent(&self, user: usize, eligible: &[bool], top_k: usize) -> Vec<u32> {
        let first = self.interactions.offset(user);
        let items = self.interactions.row(user).0.iter().zip(&self.n_events[first..]);
        let mut own: Vec<(u32, u32)> = items.map(|(item, n)| (*item, *n)).collect();
        own.retain(|(item, _)| eligible[*item as usize]);
        let n_users = |item: u32| self.n_users_of_item[item as usize];
        own.sort_by_key(|(item, n)| (Reverse(*n), Reverse(n_users(*item)), *item));
        own.truncate(top_k);
        own.into_iter().map(|(item, _)| item).collect()
    }

    /// How strong the user's interaction with the item is, if there is one.
    pub(super) fn strength(&self, user: usize, item: u32) -> Option<u8> {
        self.place(user, item).map(|at| self.strengths[at])
    }

    /// Where the user's interaction with the item is in what is aligned with the interactions.
    fn place(&self, user: usize, item: u32) -> Option<usize> {
        let (items, _) = self.interactions.row(user);
        items.binary_search(&item).ok().map(|at| self.interactions.offset(user) + at)
    }
}

/// Baskets × items (weight 1) and items × items (counts) of one window.
pub(super) fn sessions(behavior: &Path, window: &str, n_items: usize) -> Result<(Csr, Csr), Error> {
    let table = |name: &str, columns: &[&str]| {
        lake::read(&behavior.join(window).join(format!("{name}.parquet")), columns)
    };
    let rows = table("baskets", &["basket_idx", "item_idx"])?;
    let baskets = rows.column(0).as_primitive::<UInt32Type>().values();
    let n_baskets = baskets.last().map_or(0, |last| *last as usize + 1);
    let ones = vec![1f32; rows.num_rows()];
    let items = rows.column(1).as_primitive::<UInt32Type>().values();
    let baskets = Csr::from_coordinates(n_baskets, n_items, baskets, items, &ones)?;
    let rows = table("transitions", &["item_idx", "next_item_idx", "n_transitions"])?;
    Ok((baskets, csr(&rows, n_items, n_items)?))
}

/// Users of a window who turned to something after it.
pub(super) fn n_returning(window: &Path) -> Result<u64, Error> {
    let users = |table: &str| -> Result<Vec<u32>, Error> {
        let rows = lake::read(&window.join(format!("{table}.parquet")), &["user_idx"])?;
        let mut users = rows.column(0).as_primitive::<UInt32Type>().values().to_vec();
        users.dedup();
        Ok(users)
    };
    // Both tables are in the order of users.
    let known = users("interactions")?;
    let n_users = users("held_out")?.iter().filter(|user| known.binary_search(user).is_ok()).count();
    Ok(n_users as u64)
}

/// What each visit of one window held.
pub(super) fn visits(behavior: &Path, window: &str) -> Result<repeat::Visits, Error> {
    let path = behavior.join(window).join("baskets.parquet");
    let rows = lake::read(&path, &["user_idx", "basket_idx", "item_idx", "event_time"])?;
    let column = |at: usize| rows.column(at).as_primitive::<UInt32Type>().values().to_vec();
    let times = rows.column(3).as_primitive::<TimestampMicrosecondType>().values().to_vec();
    Ok(repeat::Visits { users: column(0), visits: column(1), items: column(2), times })
}

/// Queries × items: the items users turned to after each search.
pub(super) fn query_items(behavior: &Path, n_queries: usize, n_items: usize) -> Result<Csr, Error> {
    let path = behavior.join("full").join("query_items.parquet");
    csr(&lake::read(&path, &["query_idx", "item_idx", "weight"])?, n_queries, n_items)
}

/// Each user's segment in a window, as a position in the names, which ascend.
fn segments(behavior: &Path, window: &str, n_users: usize) -> Result<(Vec<u32>, Vec<String>), Error> {
    let rows = lake::read(&behavior.join(window).join("users.parquet"), &["user_idx", "segment"])?;
    let names = rows.column(1).as_string::<i32>();
    let mut segment_names: Vec<String> = names.iter().flatten().map(str::to_owned).collect();
    segment_names.sort();
    segment_names.dedup();
    let mut segments = vec![NO_SEGMENT; n_users];
    for (user, name) in rows.column(0).as_primitive::<UInt32Type>().values().iter().zip(names) {
        let at = segment_names.binary_search_by(|known| known.as_str().cmp(name.unwrap_or("")));
        segments[*user as usize] = at.map_or(NO_SEGMENT, |at| at as u32);
    }
    Ok((segments, segment_names))
}

/// Items' weights of everybody; a segment whose users have turned to nothing, but perhaps searched, gets these.
fn with_everybodys(popularity: &mut Dense) -> Vec<f32> {
    let mut is_known = vec![false; popularity.n_cols()];
    for item in 0..popularity.n_rows() {
        is_known.iter_mut().zip(popularity.row(item)).for_each(|(known, value)| *known |= *value > 0.0);
    }
    let mut weights = Vec::with_capacity(popularity.n_rows());
    for item in 0..popularity.n_rows() {
        let row = popularity.row_mut(item);
        let all = row.iter().map(|value| value.exp_m1()).sum::<f32>();
        let unknown = row.iter_mut().zip(&is_known).filter(|(_, known)| !**known);
        unknown.for_each(|(value, _)| *value = all.ln_1p());
        weights.push(all);
    }
    weights
}

/// Dense ranks of each user's distinct times.
fn steps(interactions: &Csr, times: &[i64]) -> Vec<u32> {
    let mut steps = Vec::with_capacity(times.len());
    let mut distinct: Vec<i64> = Vec::new();
    for user in 0..interactions.n_rows() {
        let first = interactions.offset(user);
        let own = &times[first..first + interactions.row(user).0.len()];
        distinct.clear();
        distinct.extend_from_slice(own);
        distinct.sort_unstable();
        distinct.dedup();
        steps.extend(own.iter().map(|time| distinct.partition_point(|other| other < time) as u32));
    }
    steps
}

/// The cells of `all` that are not in `some`.
pub(super) fn without(all: &Csr, some: &Csr) -> Csr {
    let of_user = |user: usize| {
        let (items, weights) = all.row(user);
        let cells = items.iter().copied().zip(weights.iter().copied());
        cells.filter(|(item, _)| some.row(user).0.binary_search(item).is_err()).collect()
    };
    Csr::from_rows(all.n_cols(), (0..all.n_rows()).map(of_user).collect())
}

/// Writes the cells of users × items as a table of what users turned to.
pub(super) fn write_pairs(pairs: &Csr, path: &Path) -> Result<(), Error> {
    let users = (0..pairs.n_rows()).flat_map(|user| pairs.row(user).0.iter().map(move |_| user as u32));
    let items = (0..pairs.n_rows()).flat_map(|user| pairs.row(user).0.iter().copied());
    let columns: Vec<Named> = vec![
        ("user_idx", Arc::new(users.collect::<UInt32Array>())),
        ("item_idx", Arc::new(items.collect::<UInt32Array>())),
    ];
    let rows = lists::batch(columns, &[])?;
    let mut writer =
        table::Writer::create(path, rows.schema(), &Layout::default()).map_err(lake::Error::from)?;
    writer.write(&rows).map_err(lake::Error::from)?;
    writer.finish().map_err(lake::Error::from)?;
    Ok(())
}

/// A table of what users turned to as users × items, at least `n_users × n_items`.
pub(super) fn pairs(path: &Path, n_users: usize, n_items: usize) -> Result<Csr, Error> {
    let rows = lake::read(path, &["user_idx", "item_idx"])?;
    let users = rows.column(0).as_primitive::<UInt32Type>().values();
    let items = rows.column(1).as_primitive::<UInt32Type>().values();
    let reach = |known: usize, found: &[u32]| found.iter().fold(known, |n, idx| n.max(*idx as usize + 1));
    let (n_users, n_items) = (reach(n_users, users), reach(n_items, items));
    Ok(Csr::from_coordinates(n_users, n_items, users, items, &vec![1f32; rows.num_rows()])?)
}

fn csr(rows: &RecordBatch, n_rows: usize, n_cols: usize) -> Result<Csr, Error> {
    let index = |at: usize| rows.column(at).as_primitive::<UInt32Type>().values();
    let values = rows.column(2).as_primitive::<Float32Type>().values();
    Ok(Csr::from_coordinates(n_rows, n_cols, index(0), index(1), values)?)
}
