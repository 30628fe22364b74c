//! Inner products of bytes, and which of them come up to a threshold.
//!
//! A panel is [`ROWS`] rows of unsigned bytes, a tile [`QUERIES`] queries of signed ones. Columns go in
//! fours, filled up with zeros in the queries: one instruction of AVX512-VNNI multiplies four bytes of
//! sixteen rows and adds the products to sixteen sums of 32 bits, which hold `2^16` columns exactly.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Rows of a panel.
pub const ROWS: usize = 48;
/// Queries of a tile.
pub const QUERIES: usize = 8;
/// Columns that are multiplied by one instruction.
const COLUMNS: usize = 4;
#[cfg(target_arch = "x86_64")]
const LANES: usize = 16;

/// A panel, and what bounds the error of its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Panel<'a> {
    /// Four columns after four columns; in each, four bytes a row.
    pub bytes: &'a [u8],
    /// The longest row.
    pub norm: f64,
    /// The furthest that a row is from its bytes.
    pub error: f64,
    /// Bytes a unit.
    pub per_unit: f64,
}

/// Below which sums a tile's queries are not interested: a sum hits where
/// `sum >= (room - by_norm * norm - by_error * error) * per_unit + offset - 1`.
///
/// The 1 is more than what the right side is rounded by, where it is a sum that bytes can have.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Floors {
    pub room: [f64; QUERIES],
    pub by_norm: [f64; QUERIES],
    pub by_error: [f64; QUERIES],
    pub offset: [f64; QUERIES],
}

/// The sums of a tile and a panel, and which of them hit.
#[derive(Debug)]
#[repr(align(64))]
pub struct Hits {
    pub sums: [[i32; ROWS]; QUERIES],
    /// Per query a bit a row, the first row in the lowest.
    pub rows: [u64; QUERIES],
}

/// The kernel.
#[derive(Clone, Copy, Debug)]
pub struct Dots(Path);

#[derive(Clone, Copy, Debug)]
enum Path {
    Portable,
    /// Only made where the instructions were found.
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

impl Hits {
    /// None.
    pub fn new() -> Self {
        Self { sums: [[0; ROWS]; QUERIES], rows: [0; QUERIES] }
    }
}

impl Default for Hits {
    fn default() -> Self {
        Self::new()
    }
}

impl Dots {
    /// The fast kernel, where this machine has one.
    pub fn fast() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if !super::are_portable()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
        {
            return Some(Self(Path::Vnni));
        }
        None
    }

    /// The twin.
    pub fn portable() -> Self {
        Self(Path::Portable)
    }

    /// Multiplies a panel and a tile. If a sum hits, or `always`, writes all of them and which hit;
    /// otherwise leaves `hits` as it is. Returns whether it wrote.
    ///
    /// `queries` has four bytes a query for every four columns of the panel.
    ///
    /// # Panics
    /// If panel and tile differ in columns.
    #[inline]
    pub fn hit(
        self,
        panel: Panel<'_>,
        queries: &[i8],
        floors: &Floors,
        always: bool,
        hits: &mut Hits,
    ) -> bool {
        let (rows, rest) = panel.bytes.as_chunks::<{ ROWS * COLUMNS }>();
        let (queries, other) = queries.as_chunks::<{ QUERIES * COLUMNS }>();
        assert!(rest.is_empty() && other.is_empty() && rows.len() == queries.len(), "columns of a tile");
        match self.0 {
            Path::Portable => portable(panel, rows, queries, floors, always, hits),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this variant is only made after its instructions were found.
            Path::Vnni => unsafe { vnni(panel, rows, queries, floors, always, hits) },
        }
    }
}

/// The smallest sum that hits, as a number.
#[inline]
fn floor(panel: Panel<'_>, floors: &Floors, at: usize) -> f64 {
    let room = floors.room[at] - floors.by_norm[at] * panel.norm - floors.by_error[at] * panel.error;
    room * panel.per_unit + floors.offset[at] - 1.0
}

fn portable(
    panel: Panel<'_>,
    rows: &[[u8; ROWS * COLUMNS]],
    queries: &[[i8; QUERIES * COLUMNS]],
    floors: &Floors,
    always: bool,
    hits: &mut Hits,
) -> bool {
    let mut sums = [[0i32; ROWS]; QUERIES];
    for (rows, queries) in rows.iter().zip(queries) {
        for (sums, query) in sums.iter_mut().zip(queries.as_chunks::<COLUMNS>().0) {
            for (sum, row) in sums.iter_mut().zip(rows.as_chunks::<COLUMNS>().0) {
                *sum += row.iter().zip(query).map(|(x, q)| i32::from(*x) * i32::from(*q)).sum::<i32>();
            }
        }
    }
    let mut reached = [0u64; QUERIES];
    for (at, (sums, reached)) in sums.iter().zip(&mut reached).enumerate() {
        let floor = floor(panel, floors, at);
        for (row, sum) in sums.iter().enumerate() {
            *reached |= u64::from(f64::from(*sum) >= floor) << row;
        }
    }
    let any = always || reached != [0; QUERIES];
    if any {
        hits.sums = sums;
        hits.rows = reached;
    }
    any
}

#[cfg(target_arch = "x86_64")]
const VECTORS: usize = ROWS / LANES;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512vnni")]
fn vnni(
    panel: Panel<'_>,
    rows: &[[u8; ROWS * COLUMNS]],
    queries: &[[i8; QUERIES * COLUMNS]],
    floors: &Floors,
    always: bool,
    hits: &mut Hits,
) -> bool {
    let mut sums = [[_mm512_setzero_si512(); VECTORS]; QUERIES];
    for (rows, queries) in rows.iter().zip(queries) {
        let from = rows.as_ptr();
        // SAFETY: a group of columns is as long as three vectors.
        let rows = unsafe {
            [
                _mm512_loadu_si512(from.cast()),
                _mm512_loadu_si512(from.add(64).cast()),
                _mm512_loadu_si512(from.add(128).cast()),
            ]
        };
        for (sums, query) in sums.iter_mut().zip(queries.as_chunks::<COLUMNS>().0) {
            let query = _mm512_set1_epi32(i32::from_le_bytes(query.map(|byte| byte as u8)));
            for (sum, rows) in sums.iter_mut().zip(rows) {
                *sum = _mm512_dpbusd_epi32(*sum, rows, query);
            }
        }
    }
    let floors = floors_vnni(panel, floors);
    let mut any = 0;
    for (sums, floor) in sums.iter().zip(floors) {
        let floor = _mm512_set1_epi32(floor);
        for sum in sums {
            any |= _mm512_cmpge_epi32_mask(*sum, floor);
        }
    }
    if any == 0 && !always {
        return false;
    }
    for (at, (sums, floor)) in sums.iter().zip(floors).enumerate() {
        let floor = _mm512_set1_epi32(floor);
        let mut reached = 0;
        for (vector, sum) in sums.iter().enumerate() {
            reached |= u64::from(_mm512_cmpge_epi32_mask(*sum, floor)) << (vector * LANES);
            let to = hits.sums[at][vector * LANES..(vector + 1) * LANES].as_mut_ptr();
            // SAFETY: the slice is as long as a vector.
            unsafe { _mm512_storeu_si512(to.cast(), *sum) };
        }
        hits.rows[at] = reached;
    }
    true
}

/// The smallest sums that hit. Steps and their rounding are those of [`floor`]; beyond the range of 32
/// bits the nearest end stands for a floor, which no sum of bytes tells from it.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
fn floors_vnni(panel: Panel<'_>, floors: &Floors) -> [i32; QUERIES] {
    // SAFETY: eight numbers are a vector.
    let load = |from: &[f64; QUERIES]| unsafe { _mm512_loadu_pd(from.as_ptr()) };
    let by_norm = _mm512_mul_pd(load(&floors.by_norm), _mm512_set1_pd(panel.norm));
    let by_error = _mm512_mul_pd(load(&floors.by_error), _mm512_set1_pd(panel.error));
    let room = _mm512_sub_pd(_mm512_sub_pd(load(&floors.room), by_norm), by_error);
    let scaled = _mm512_mul_pd(room, _mm512_set1_pd(panel.per_unit));
    let floor = _mm512_sub_pd(_mm512_add_pd(scaled, load(&floors.offset)), _mm512_set1_pd(1.0));
    let floor = _mm512_max_pd(floor, _mm512_set1_pd(f64::from(i32::MIN)));
    let floor = _mm512_min_pd(floor, _mm512_set1_pd(f64::from(i32::MAX)));
    let ceiled = _mm512_cvt_roundpd_epi32::<{ _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC }>(floor);
    let mut to = [0; QUERIES];
    // SAFETY: eight integers of 32 bits are a vector of 256.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), ceiled) };
    to
}
