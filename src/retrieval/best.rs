//! The best `k` of a stream of scored items.

/// Keeps at most `2k` candidates and cuts them to `k` when they are that many.
///
/// A candidate is one `u64` whose descending order is the order of the lists: the score's bits, made
/// monotone, above the complement of the item index.
pub(super) struct Best {
    k: usize,
    /// No candidate up to this key can be listed any more; 0 lies below every key.
    floor: u64,
    candidates: Vec<u64>,
}

impl Best {
    pub(super) fn new(k: usize) -> Self {
        Self { k, floor: 0, candidates: Vec::with_capacity(2 * k) }
    }

    /// Scores below this cannot be listed any more; equal ones may.
    pub(super) fn threshold(&self) -> f32 {
        if self.floor == 0 { f32::NEG_INFINITY } else { entry(self.floor).1 }
    }

    pub(super) fn reaches(&self, item: u32, score: f32) -> bool {
        key(item, score) > self.floor
    }

    /// Takes a finite score; says whether the threshold moved.
    pub(super) fn offer(&mut self, item: u32, score: f32) -> bool {
        let key = key(item, score);
        if key <= self.floor {
            return false;
        }
        self.candidates.push(key);
        let full = self.candidates.len() == 2 * self.k;
        if full {
            self.cut();
        }
        full
    }

    fn cut(&mut self) {
        let (_, last, _) = self.candidates.select_nth_unstable_by(self.k - 1, |a, b| b.cmp(a));
        self.floor = *last;
        self.candidates.truncate(self.k);
    }

    /// The list: items and scores, best first.
    pub(super) fn into_list(mut self) -> Vec<(u32, f32)> {
        self.candidates.sort_unstable_by(|a, b| b.cmp(a));
        self.candidates.truncate(self.k);
        self.candidates.into_iter().map(entry).collect()
    }
}

const SIGN: u32 = 1 << 31;

fn key(item: u32, score: f32) -> u64 {
    // Adding 0.0 turns -0.0 into 0.0, so that the two tie.
    u64::from(ordered(score + 0.0) as u32 ^ SIGN) << 32 | u64::from(!item)
}

fn entry(key: u64) -> (u32, f32) {
    (!(key as u32), number((((key >> 32) as u32) ^ SIGN) as i32))
}

/// A number as an integer that orders like it.
pub(super) fn ordered(score: f32) -> i32 {
    let bits = score.to_bits() as i32;
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

/// The number that became that integer.
pub(super) fn number(ordered: i32) -> f32 {
    f32::from_bits((ordered ^ ((ordered >> 31) as u32 >> 1) as i32) as u32)
}

/// An f32 that is not above a number, and close to it. No branch: it would be a guess each time.
#[inline]
pub(super) fn below(number: f64) -> f32 {
    (number - slack(number)) as f32
}

/// An f32 that is not below a number, and close to it.
#[inline]
pub(super) fn above(number: f64) -> f32 {
    (number + slack(number)) as f32
}

/// More than f32 rounds by, subnormal or not.
#[inline]
fn slack(number: f64) -> f64 {
    number.abs() * 2f64.powi(-22) + 2f64.powi(-149)
}
