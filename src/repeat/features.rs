//! What is known of a pair: the rate, habit and recency of the user, and how the item does.

use super::pairs::{Known, Pair};
use super::{Config, DAY_US};

/// How many numbers describe a pair.
pub(super) const N_FEATURES: usize = 7;

/// What all pairs of a moment are described by.
pub(super) struct Features<'a> {
    config: &'a Config,
    until: i64,
    /// The repeat rate of each item.
    rates: Vec<f64>,
    /// Users of each item: of all time, of the horizon before the moment, of half of it.
    n_users: Vec<[f64; 3]>,
}

impl<'a> Features<'a> {
    pub(super) fn new(known: &Known, n_items: usize, config: &'a Config) -> Self {
        let mut of_item = vec![(0u64, 0u64); n_items];
        let mut n_users = vec![[0f64; 3]; n_items];
        for pair in known.users.iter().flatten() {
            let (again, chances) = &mut of_item[pair.item as usize];
            *again += pair.n_visits - 1;
            *chances += pair.n_chances;
            let days = days(pair, known.until);
            let [all, horizon, half] = &mut n_users[pair.item as usize];
            *all += 1.0;
            *horizon += f64::from(u8::from(days < config.horizon_days));
            *half += f64::from(u8::from(days < config.horizon_days / 2.0));
        }
        let all = of_item.iter().fold((0, 0), |sum, item| (sum.0 + item.0, sum.1 + item.1));
        let rate = all.0 as f64 / all.1.max(1) as f64;
        let rates = of_item.iter().map(|(again, chances)| {
            (*again as f64 + config.item_prior_visits * rate) / (*chances as f64 + config.item_prior_visits)
        });
        Self { config, until: known.until, rates: rates.collect(), n_users }
    }

    /// The expected rate, decayed.
    pub(super) fn rate(&self, pair: &Pair) -> f64 {
        let prior = self.config.prior_visits;
        let again = (pair.n_visits - 1) as f64 + prior * self.rates[pair.item as usize];
        let halvings = days(pair, self.until) / self.config.half_life_days;
        again / (pair.n_chances as f64 + prior) * (-halvings).exp2()
    }

    /// All on logarithmic scales: what counts is how many times as much.
    pub(super) fn of(&self, pair: &Pair) -> [f64; N_FEATURES] {
        let [all, horizon, half] = self.n_users[pair.item as usize];
        [
            (self.rate(pair) + LEAST_RATE).ln(),
            (pair.n_visits as f64).ln(),
            (pair.n_since as f64).ln_1p(),
            days(pair, self.until).ln_1p(),
            all.ln_1p(),
            horizon.ln_1p() - all.ln_1p(),
            half.ln_1p() - all.ln_1p(),
        ]
    }
}

/// Below this, rates do not differ.
const LEAST_RATE: f64 = 1e-6;

/// Days between the user's last visit with the item and the moment.
fn days(pair: &Pair, until: i64) -> f64 {
    (until - pair.last_time).max(0) as f64 / DAY_US
}
