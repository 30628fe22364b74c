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
    let bits = (score + 0.0).to_bits();
    let ascending = if bits & SIGN == 0 { bits | SIGN } else { !bits };
    u64::from(ascending) << 32 | u64::from(!item)
}

fn entry(key: u64) -> (u32, f32) {
    let ascending = (key >> 32) as u32;
    let bits = if ascending & SIGN == 0 { !ascending } else { ascending & !SIGN };
    (!(key as u32), f32::from_bits(bits))
}
