//! Faults planted into a day's events: each row has at most one, and each is counted.

use super::random::Random;
use super::sessions::{DAY_US, Event, Kind};

/// What is wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    NullUser,
    NullItem,
    UnknownItem,
    UnknownType,
    NullTime,
    FutureTime,
    NegativeQuantity,
    Duplicate,
    Bot,
}

impl Flaw {
    pub(crate) const ALL: [Self; 9] = [
        Self::NullUser,
        Self::NullItem,
        Self::UnknownItem,
        Self::UnknownType,
        Self::NullTime,
        Self::FutureTime,
        Self::NegativeQuantity,
        Self::Duplicate,
        Self::Bot,
    ];

    /// The reason with which a row of this kind should be rejected.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::NullUser => "null_user",
            Self::NullItem => "null_item",
            Self::UnknownItem => "unknown_item",
            Self::UnknownType => "unknown_type",
            Self::NullTime => "null_time",
            Self::FutureTime => "future_time",
            Self::NegativeQuantity => "negative_quantity",
            Self::Duplicate => "duplicate",
            Self::Bot => "bot",
        }
    }
}

/// Which share of all rows gets a flaw, and how many rows and flaws there have been.
pub(crate) struct Dirt {
    parts_per_million: u64,
    n_rows: u64,
    counts: [u64; Flaw::ALL.len()],
}

impl Dirt {
    pub(crate) fn new(share: f64) -> Self {
        Self { parts_per_million: (share * 1e6).round() as u64, n_rows: 0, counts: [0; Flaw::ALL.len()] }
    }

    /// How many rows got each flaw.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Flaw, u64)> {
        Flaw::ALL.into_iter().zip(self.counts)
    }

    fn n_flaws_due(&self) -> u64 {
        self.n_rows * self.parts_per_million / 1_000_000
    }

    /// Plants the day's flaws, all kinds in turn, one in each of as many equal stretches of the day.
    pub(crate) fn plant(&mut self, events: &mut [Event], random: &mut Random) {
        let before = self.n_flaws_due();
        self.n_rows += events.len() as u64;
        let n_flaws = (self.n_flaws_due() - before) as usize;
        for number in 0..n_flaws {
            let start = number * events.len() / n_flaws;
            let end = (number + 1) * events.len() / n_flaws;
            let row = start + random.index(end - start);
            let turn = Flaw::ALL[(before as usize + number) % Flaw::ALL.len()];
            let planted = spoil(events, row, turn, random);
            self.counts[planted as usize] += 1;
        }
    }
}

/// Gives the row its flaw and says which one it is: where there is no earlier clean row to copy,
/// the user is taken away instead.
fn spoil(events: &mut [Event], row: usize, flaw: Flaw, random: &mut Random) -> Flaw {
    let mut flaw = flaw;
    match flaw {
        Flaw::Duplicate => {
            let from = row - random.index(row.min(1000) + 1);
            match events[..from].iter().rposition(|event| event.flaw.is_none()) {
                Some(original) => events[row] = events[original],
                None => flaw = Flaw::NullUser,
            }
        }
        // A search has no item, and none is bought by it: the row becomes a look at the item.
        Flaw::NullItem | Flaw::UnknownItem | Flaw::NegativeQuantity => {
            if events[row].kind == Kind::Search {
                events[row].kind = Kind::View;
            }
            if flaw == Flaw::NegativeQuantity {
                events[row].quantity = -1 - random.below(5) as i32;
            }
        }
        Flaw::FutureTime => events[row].time_us += (3650 + random.below(365) as i64) * DAY_US,
        Flaw::NullUser | Flaw::UnknownType | Flaw::NullTime | Flaw::Bot => {}
    }
    events[row].flaw = Some(flaw);
    flaw
}
