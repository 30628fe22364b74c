//! A day in the shop: visits that search, look, click, fill a cart and buy.

use super::catalogue::Catalogue;
use super::dirt::Flaw;
use super::people::{People, Taste};
use super::random::Random;

pub(crate) const DAY_US: i64 = 86_400_000_000;
const HOUR_US: u64 = 3_600_000_000;
const SECOND_US: u64 = 1_000_000;

/// What somebody did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Search,
    View,
    Click,
    Cart,
    Purchase,
}

/// How a search words the item that the person has in mind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wording {
    Shelf,
    CapitalisedShelf,
    BrandAndShelf,
    ShelfAndFinish,
}

/// One event by numbers; ids and words are spelled out only when it is written.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    pub(crate) time_us: i64,
    pub(crate) user: u32,
    /// Of a search: the item that its words come from.
    pub(crate) item: u32,
    pub(crate) session: u32,
    pub(crate) quantity: i32,
    pub(crate) kind: Kind,
    pub(crate) wording: Wording,
    pub(crate) flaw: Option<Flaw>,
}

/// The day whose events are wanted.
pub(crate) struct Day {
    pub(crate) start_us: i64,
    pub(crate) days_before_end: u32,
    pub(crate) n_events: usize,
}

/// Fills `events` with the day's events in the order of time. `n_sessions` counts on over all days.
///
/// No two events are equal in all their columns: sessions differ by their number, and within a
/// session every event is later than the one before it.
pub(crate) fn visits(
    day: &Day,
    catalogue: &Catalogue,
    people: &People,
    random: &mut Random,
    n_sessions: &mut u32,
    events: &mut Vec<Event>,
) {
    events.clear();
    while events.len() < day.n_events {
        visit(day, catalogue, people, random, *n_sessions, events);
        *n_sessions += 1;
    }
    // The last visit is cut short, so that the day has exactly the events it should have.
    events.truncate(day.n_events);
    events.sort_unstable_by_key(|event| (event.time_us, event.session));
}

/// One visit: at most six items, so that with at most 90 seconds between events it ends within an hour.
fn visit(
    day: &Day,
    catalogue: &Catalogue,
    people: &People,
    random: &mut Random,
    session: u32,
    events: &mut Vec<Event>,
) {
    let user = people.draw(random);
    let mut taste = people.all[user as usize].taste(random);
    if random.happens(1, 12) {
        let shelf = random.index(catalogue.n_shelves());
        let favourite = catalogue.draw(shelf, day.days_before_end, random);
        taste = Taste { shelf: shelf as u16, favourite };
    }
    // The mean of two draws: few visits at night, most around noon. The last hour is left for the visit itself.
    let mut time_us = day.start_us + ((random.below(23 * HOUR_US) + random.below(23 * HOUR_US)) / 2) as i64;
    let mut push = |random: &mut Random, kind, item, quantity, wording| {
        events.push(Event { time_us, user, item, session, quantity, kind, wording, flaw: None });
        time_us += (3 * SECOND_US + random.below(87 * SECOND_US)) as i64;
    };

    let mut item = choose(taste, day, catalogue, random);
    if random.happens(1, 2) {
        let wording = match random.below(20) {
            0..9 => Wording::Shelf,
            9..11 => Wording::CapitalisedShelf,
            11..16 => Wording::BrandAndShelf,
            _ => Wording::ShelfAndFinish,
        };
        push(random, Kind::Search, item, 0, wording);
    }
    let mut cart: Vec<(u32, i32)> = Vec::new();
    for _ in 0..6 {
        push(random, Kind::View, item, 0, Wording::Shelf);
        let mut carted = false;
        if random.happens(2, 5) {
            push(random, Kind::Click, item, 0, Wording::Shelf);
            carted = random.happens(2, 5) && cart.iter().all(|(other, _)| *other != item);
        }
        if carted {
            let quantity = 1 + (random.below(8) / 6) as i32;
            push(random, Kind::Cart, item, quantity, Wording::Shelf);
            cart.push((item, quantity));
        }
        if random.happens(1, 4) {
            break;
        }
        let companion = catalogue.companion(item);
        let goes_with = carted && random.happens(1, 2) && catalogue.exists(companion, day.days_before_end);
        item = if goes_with { companion } else { choose(taste, day, catalogue, random) };
    }
    if random.happens(3, 5) {
        for (item, quantity) in cart {
            push(random, Kind::Purchase, item, quantity, Wording::Shelf);
        }
    }
}

/// An item for the taste: sometimes the favourite, else a popular one, rather of the favourite's brand.
fn choose(taste: Taste, day: &Day, catalogue: &Catalogue, random: &mut Random) -> u32 {
    if random.happens(1, 5) && catalogue.exists(taste.favourite, day.days_before_end) {
        return taste.favourite;
    }
    let shelf = usize::from(taste.shelf);
    let first = catalogue.draw(shelf, day.days_before_end, random);
    let liked = catalogue.items[taste.favourite as usize].brand;
    if catalogue.items[first as usize].brand == liked || random.happens(1, 2) {
        return first;
    }
    catalogue.draw(shelf, day.days_before_end, random)
}
