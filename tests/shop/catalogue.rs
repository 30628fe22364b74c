//! What the shop sells: items on shelves, each shelf in the order of popularity.

use super::random::{Random, Zipf};
use super::words::{BRAND_ENDS, BRAND_STARTS, DEPARTMENTS, FINISHES, PROMISES, QUALITIES};

const N_SHELVES: usize = DEPARTMENTS.len() * 5;
const N_BRANDS: usize = BRAND_STARTS.len() * BRAND_ENDS.len();
const BRANDS_OF_A_SHELF: usize = 8;

/// One item; its words are positions in the lists of `words`.
#[derive(Clone, Copy)]
pub(crate) struct Item {
    pub(crate) shelf: u16,
    pub(crate) brand: u8,
    quality: u8,
    finish: u8,
    promise: u8,
    pub(crate) cents: u32,
    pub(crate) in_stock: bool,
    /// How many days before the shop's last day it came into the catalogue.
    pub(crate) age_days: u32,
}

struct Shelf {
    by_popularity: Vec<u32>,
    popularity: Zipf,
}

/// All items and shelves; no shelf is empty.
pub(crate) struct Catalogue {
    pub(crate) items: Vec<Item>,
    shelves: Vec<Shelf>,
}

impl Catalogue {
    pub(crate) fn new(n_items: u32, days: u32, random: &mut Random) -> Self {
        let n_shelves = N_SHELVES.min(n_items as usize);
        let brands: Vec<[u8; BRANDS_OF_A_SHELF]> =
            (0..n_shelves).map(|_| std::array::from_fn(|_| random.below(N_BRANDS as u64) as u8)).collect();
        let base_cents: Vec<u64> =
            (0..n_shelves).map(|_| 400 + random.below(60) * random.below(400)).collect();
        let mut members = vec![Vec::new(); n_shelves];
        let mut items = Vec::with_capacity(n_items as usize);
        for number in 0..n_items {
            // The first items fill every shelf once.
            let shelf = if (number as usize) < n_shelves { number as usize } else { random.index(n_shelves) };
            members[shelf].push(number);
            items.push(Item {
                shelf: shelf as u16,
                brand: brands[shelf][random.index(BRANDS_OF_A_SHELF)],
                quality: random.index(QUALITIES.len()) as u8,
                finish: random.index(FINISHES.len()) as u8,
                promise: random.index(PROMISES.len()) as u8,
                cents: (base_cents[shelf] * (60 + random.below(120)) / 100) as u32,
                in_stock: !random.happens(3, 100),
                age_days: random.below(u64::from(days) * 10) as u32,
            });
        }
        let shelves = members
            .into_iter()
            .map(|mut by_popularity| {
                random.shuffle(&mut by_popularity);
                // On every day of the events something can be bought from every shelf.
                let best_seller = &mut items[by_popularity[0] as usize];
                best_seller.age_days = best_seller.age_days.max(days);
                Shelf { popularity: Zipf::new(by_popularity.len(), 0), by_popularity }
            })
            .collect();
        Self { items, shelves }
    }

    pub(crate) fn n_shelves(&self) -> usize {
        self.shelves.len()
    }

    /// An item of the shelf that was in the catalogue `days_before_end`, the popular ones oftener.
    pub(crate) fn draw(&self, shelf: usize, days_before_end: u32, random: &mut Random) -> u32 {
        let Shelf { by_popularity, popularity } = &self.shelves[shelf];
        for _ in 0..4 {
            let item = by_popularity[popularity.draw(random)];
            if self.exists(item, days_before_end) {
                return item;
            }
        }
        by_popularity[0]
    }

    pub(crate) fn exists(&self, item: u32, days_before_end: u32) -> bool {
        self.items[item as usize].age_days >= days_before_end
    }

    /// What is bought together with the item: always the same, from the next shelf of its department.
    pub(crate) fn companion(&self, item: u32) -> u32 {
        let shelf = usize::from(self.items[item as usize].shelf);
        let next = (shelf / 5 * 5 + (shelf + 1) % 5).min(self.n_shelves() - 1);
        let candidates = &self.shelves[next].by_popularity;
        candidates[item as usize % candidates.len().min(16)]
    }
}

impl Item {
    pub(crate) fn department_name(&self) -> &'static str {
        DEPARTMENTS[usize::from(self.shelf) / 5].0
    }

    pub(crate) fn shelf_name(&self) -> &'static str {
        DEPARTMENTS[usize::from(self.shelf) / 5].1[usize::from(self.shelf) % 5]
    }

    pub(crate) fn finish_name(&self) -> &'static str {
        FINISHES[usize::from(self.finish)]
    }

    pub(crate) fn brand_name(&self) -> String {
        let brand = usize::from(self.brand);
        format!("{}{}", BRAND_STARTS[brand / BRAND_ENDS.len()], BRAND_ENDS[brand % BRAND_ENDS.len()])
    }

    pub(crate) fn title(&self) -> String {
        let quality = QUALITIES[usize::from(self.quality)].to_lowercase();
        format!("{} {quality} {} {}", self.brand_name(), self.shelf_name(), self.finish_name())
    }

    pub(crate) fn description(&self) -> String {
        format!(
            "{} {} by {}, {}. {}. {}.",
            QUALITIES[usize::from(self.quality)],
            self.shelf_name(),
            self.brand_name(),
            self.finish_name(),
            PROMISES[usize::from(self.promise)],
            self.department_name(),
        )
    }
}
