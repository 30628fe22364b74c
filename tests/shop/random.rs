//! Random numbers from whole-number arithmetic only, so that every machine draws the same shop.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
pub(crate) struct Random(u64);

impl Random {
    /// One stream of the seed; streams of different numbers are independent for our purpose.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut start = Self(seed);
        let mixed = start.next() ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03);
        Self(Self(mixed).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The upper half of a product is unbiased enough: the error is bound / 2^64.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Whether an event of probability `chances / out_of` happens.
    pub(crate) fn happens(&mut self, chances: u64, out_of: u64) -> bool {
        self.below(out_of) < chances
    }

    /// A position in a list of `len` entries.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// Puts a list in random order.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.index(last + 1));
        }
    }
}

/// Ranks drawn with probability proportional to `1 / (1 + flat + rank)`; `flat = 0` is Zipf's law.
pub(crate) struct Zipf {
    cumulative: Vec<u64>,
}

impl Zipf {
    pub(crate) fn new(n_ranks: usize, flat: u64) -> Self {
        let mut total = 0;
        let weights = (0..n_ranks as u64).map(|rank| (1 << 40) / (1 + flat + rank));
        Self {
            cumulative: weights
                .map(|weight| {
                    total += weight;
                    total
                })
                .collect(),
        }
    }

    pub(crate) fn draw(&self, random: &mut Random) -> usize {
        let total = self.cumulative.last().copied().unwrap_or(0);
        let point = random.below(total);
        self.cumulative.partition_point(|upto| *upto <= point)
    }
}
