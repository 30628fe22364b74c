//! Who visits the shop, and what each of them likes.

use super::catalogue::Catalogue;
use super::random::{Random, Zipf};
use super::words::{AGE_GROUPS, REGIONS};

/// A shelf that somebody comes back to, and what of it they like best.
#[derive(Clone, Copy)]
pub(crate) struct Taste {
    pub(crate) shelf: u16,
    pub(crate) favourite: u32,
}

/// One user: one to four tastes, the first the strongest.
pub(crate) struct Person {
    pub(crate) age_group: u8,
    pub(crate) region: u8,
    pub(crate) consent: bool,
    n_tastes: u8,
    tastes: [Taste; 4],
}

/// Everybody, and how often each comes.
pub(crate) struct People {
    pub(crate) all: Vec<Person>,
    by_activity: Vec<u32>,
    activity: Zipf,
}

impl People {
    pub(crate) fn new(n_users: u32, catalogue: &Catalogue, random: &mut Random) -> Self {
        let all = (0..n_users).map(|_| Person::new(catalogue, random)).collect();
        let mut by_activity: Vec<u32> = (0..n_users).collect();
        random.shuffle(&mut by_activity);
        // Flattened, so that the busiest twentieth makes a fifth of all visits and nobody looks like a bot.
        let activity = Zipf::new(n_users as usize, u64::from(n_users) / 20);
        Self { all, by_activity, activity }
    }

    /// The next visitor.
    pub(crate) fn draw(&self, random: &mut Random) -> u32 {
        self.by_activity[self.activity.draw(random)]
    }
}

impl Person {
    fn new(catalogue: &Catalogue, random: &mut Random) -> Self {
        let age_group = random.index(AGE_GROUPS.len());
        let n_shelves = catalogue.n_shelves();
        let tastes = std::array::from_fn(|_| {
            // A third of all tastes go with the age, so that groups differ in what is popular.
            let shelf = if random.happens(1, 3) {
                (age_group * 10 + random.index(10)) % n_shelves
            } else {
                random.index(n_shelves)
            };
            Taste { shelf: shelf as u16, favourite: catalogue.draw(shelf, 0, random) }
        });
        let mut sixteenth = random.below(16);
        let region = REGIONS.iter().position(|(_, share)| {
            let here = sixteenth < *share;
            sixteenth = sixteenth.saturating_sub(*share);
            here
        });
        Self {
            age_group: age_group as u8,
            region: region.unwrap_or(0) as u8,
            consent: !random.happens(2, 100),
            n_tastes: 1 + random.below(4) as u8,
            tastes,
        }
    }

    /// What a visit is about: each taste half as often as the one before it.
    pub(crate) fn taste(&self, random: &mut Random) -> Taste {
        let mut slot = 0;
        while slot + 1 < usize::from(self.n_tastes) && random.happens(1, 2) {
            slot += 1;
        }
        self.tastes[slot]
    }
}
