//! How a night's places are spread over the catalogue.

use super::Item;

/// Places by item.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spread {
    /// Items that may be listed.
    pub(super) items: usize,
    /// Those of them that are listed at all.
    pub(super) listed: usize,
    /// Rows of all lists.
    pub(super) places: u64,
    /// 0 where all items have as many places, towards 1 where one has all of them.
    pub(super) gini: f64,
    /// The share of items, from those with fewest places on, and the share of places they have together.
    pub(super) lorenz: Vec<(f64, f64)>,
    /// From the tenth of the items that most users turned to down to the least: the share of all places, and
    /// the share of the tenth's items that are listed. Empty where popularity is not known.
    pub(super) deciles: Vec<(f64, f64)>,
}

/// Points of the curve; more could not be told apart on a page.
const POINTS: usize = 100;

/// None where nothing is listed.
pub(super) fn spread(items: &[Item]) -> Option<Spread> {
    let places: u64 = items.iter().map(|item| u64::from(item.places)).sum();
    if places == 0 {
        return None;
    }
    let n = items.len();
    let mut by_places: Vec<u32> = items.iter().map(|item| item.places).collect();
    by_places.sort_unstable();
    let (mut sum, mut area) = (0_u64, 0.0);
    let mut lorenz = vec![(0.0, 0.0)];
    for (at, has) in by_places.iter().enumerate() {
        let before = sum as f64;
        sum += u64::from(*has);
        area += (before + sum as f64) / 2.0;
        if (at + 1) * POINTS / n > at * POINTS / n {
            lorenz.push(((at + 1) as f64 / n as f64, sum as f64 / places as f64));
        }
    }
    let gini = 1.0 - 2.0 * area / (n as f64 * places as f64);
    Some(Spread {
        items: n,
        listed: items.iter().filter(|item| item.places > 0).count(),
        places,
        gini,
        lorenz,
        deciles: deciles(items, places),
    })
}

/// Items are cut into tenths as the order of [`Item`]s of as many users is, so that no tenth is larger.
fn deciles(items: &[Item], places: u64) -> Vec<(f64, f64)> {
    if items.iter().any(|item| item.users.is_none()) {
        return Vec::new();
    }
    let mut order: Vec<&Item> = items.iter().collect();
    order.sort_by_key(|item| std::cmp::Reverse(item.users));
    let n = order.len();
    let tenth = |at: usize| &order[n * at / 10..n * (at + 1) / 10];
    let shares = (0..10).map(tenth).map(|items| {
        let has: u64 = items.iter().map(|item| u64::from(item.places)).sum();
        let listed = items.iter().filter(|item| item.places > 0).count();
        (has as f64 / places as f64, listed as f64 / items.len().max(1) as f64)
    });
    shares.collect()
}
