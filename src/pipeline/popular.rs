//! Fallback lists: what is popular in each segment, and with everybody.

use std::path::Path;

use crate::behavior::EVERYBODY;
use crate::error::Error;
use crate::lake;
use crate::lake::table::{self, Layout};
use crate::ranking::{N_SOURCES, Ranked, Reason, Source};

use super::history::History;
use super::lists::{self, IdColumn};
use super::shelf::Shelf;

/// The list of a user without history: the most popular items, scored `ln(1 + decayed weight)`, as the job's rules
/// want lists.
pub(super) fn list(history: &History, eligible: &[bool], shelf: &Shelf, top_k: usize) -> Vec<Ranked> {
    let weights = weights(history, None);
    let score = |item: u32| weights[item as usize].ln_1p();
    let pool = most_popular(&weights, eligible, usize::MAX);
    let scores: Vec<f32> = pool.iter().map(|item| score(*item)).collect();
    let (items, scores) = shelf.arrange_for_all((&pool, &scores), top_k);
    let ranked = |(item, given): (u32, f32)| {
        let own = score(item);
        let mut contributions = [0.0; N_SOURCES];
        contributions[Source::Popularity as usize] = own;
        contributions[Source::Rules as usize] = given - own;
        let (strongest, reason) = match given > own && shelf.features(item) {
            true => (Source::Rules, Reason::Featured),
            false => (Source::Popularity, Reason::PopularWithAll),
        };
        Ranked { item, score: given, contributions, strongest, reason }
    };
    items.into_iter().zip(scores).map(ranked).collect()
}

/// One list a user: those of `lists`, in order, for the users who are known, and `popular` for the others.
pub(super) fn fill<T: Clone>(
    users: &[u32],
    is_known: impl Fn(u32) -> bool,
    lists: impl IntoIterator<Item = T>,
    popular: &T,
) -> Vec<T> {
    let mut lists = lists.into_iter();
    let list = |user: &u32| if is_known(*user) { lists.next() } else { None };
    users.iter().map(list).map(|list| list.unwrap_or_else(|| popular.clone())).collect()
}

/// Writes `popular_items`: the most popular items of each segment of at least `min_users`, and of `all`.
pub(super) fn write(
    folder: &Path,
    items: &IdColumn,
    history: &History,
    eligible: &[bool],
    (top_k, min_users): (usize, u32),
) -> Result<(), Error> {
    let segments = history.common_segments(min_users).into_iter().enumerate();
    let mut named: Vec<(&str, Vec<f32>)> =
        segments.filter_map(|(segment, name)| Some((name?, weights(history, Some(segment))))).collect();
    named.push((EVERYBODY, weights(history, None)));
    named.sort_by_key(|(name, _)| *name);
    let (mut segments, mut lengths, mut listed, mut scores) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (name, weights) in &named {
        let order = most_popular(weights, eligible, top_k);
        lengths.push(order.len());
        for item in order {
            segments.push(*name);
            listed.push(Some(item));
            scores.push(weights[item as usize]);
        }
    }
    let rows = lists::batch(
        vec![
            ("segment", lists::strings(segments)),
            ("rank", lists::ranks(lengths)),
            ("item_id", items.take(listed)?),
            ("score", lists::floats(scores)),
        ],
        &[],
    )?;
    let layout = Layout {
        sorted_by: vec!["segment".to_owned(), "rank".to_owned()],
        bloom: vec!["segment".to_owned()],
    };
    let path = folder.join("popular_items/part.parquet");
    let mut writer = table::Writer::create(&path, rows.schema(), &layout).map_err(lake::Error::from)?;
    writer.write(&rows).map_err(lake::Error::from)?;
    writer.finish().map_err(lake::Error::from)?;
    Ok(())
}

/// Items' decayed weights in a segment, or in all.
fn weights(history: &History, segment: Option<usize>) -> Vec<f32> {
    let Some(segment) = segment else { return history.weights.clone() };
    let of_item = |item: usize| history.popularity.row(item)[segment].exp_m1();
    (0..history.popularity.n_rows()).map(of_item).collect()
}

fn most_popular(weights: &[f32], eligible: &[bool], top_k: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..weights.len() as u32)
        .filter(|item| eligible[*item as usize] && weights[*item as usize] > 0.0)
        .collect();
    order.sort_by(|a, b| weights[*b as usize].total_cmp(&weights[*a as usize]).then(a.cmp(b)));
    order.truncate(top_k);
    order
}
