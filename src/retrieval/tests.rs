use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// A request that owns its parts, so that tests can change one at a time.
#[derive(Clone, Debug)]
struct Shop {
    queries: Dense,
    items: Dense,
    eligible: Option<Vec<bool>>,
    seen: Option<Csr>,
    sparse: Option<Csr>,
    exclude_self: bool,
    top_k: usize,
}

impl Shop {
    fn new(queries: &[&[f32]], items: &[&[f32]], top_k: usize) -> Self {
        let (queries, items) = (dense(queries), dense(items));
        Self { queries, items, eligible: None, seen: None, sparse: None, exclude_self: false, top_k }
    }

    fn request(&self) -> Request<'_> {
        Request {
            queries: &self.queries,
            seen: self.seen.as_ref(),
            sparse: self.sparse.as_ref(),
            exclude_self: self.exclude_self,
            top_k: self.top_k,
        }
    }

    fn cells(&self, cells: &[(u32, u32, f32)]) -> Csr {
        csr(self.queries.n_rows(), self.items.n_rows(), cells)
    }

    fn retrieve(&self) -> Result<TopK, Error> {
        self.index()?.retrieve(&self.request(), &mut |_| ())
    }

    fn index(&self) -> Result<Index<'_>, Error> {
        index(&self.items, self.eligible.as_deref())
    }

    fn retrieve_on(&self, path: Path) -> TopK {
        let mut index = Index::on(path, &self.items, self.eligible.as_deref()).unwrap();
        index.retrieve(&self.request(), &mut |_| ()).unwrap()
    }

    /// The textbook: every score, sorted, cut.
    fn sorted(&self) -> Vec<Vec<(u32, f32)>> {
        let listed = |query: usize, item: usize| {
            self.eligible.as_ref().is_none_or(|flags| flags[item])
                && self.seen.as_ref().is_none_or(|seen| cell(seen, query, item).is_none())
                && !(self.exclude_self && query == item)
        };
        let score = |query: usize, item: usize| {
            let pairs = self.queries.row(query).iter().zip(self.items.row(item));
            let product = pairs.fold(0f32, |sum, (q, x)| q.mul_add(*x, sum));
            let sparse = self.sparse.as_ref().and_then(|sparse| cell(sparse, query, item));
            sparse.map_or(product, |sparse| product + sparse) + 0.0
        };
        (0..self.queries.n_rows())
            .map(|query| {
                let mut row: Vec<(u32, f32)> = (0..self.items.n_rows())
                    .filter(|&item| listed(query, item))
                    .map(|item| (item as u32, score(query, item)))
                    .collect();
                row.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                row.truncate(self.top_k);
                row
            })
            .collect()
    }
}

fn dense(rows: &[&[f32]]) -> Dense {
    Dense::from_vec(rows.len(), rows.first().map_or(0, |row| row.len()), rows.concat()).unwrap()
}

fn csr(n_rows: usize, n_cols: usize, cells: &[(u32, u32, f32)]) -> Csr {
    let rows: Vec<u32> = cells.iter().map(|cell| cell.0).collect();
    let cols: Vec<u32> = cells.iter().map(|cell| cell.1).collect();
    let values: Vec<f32> = cells.iter().map(|cell| cell.2).collect();
    Csr::from_coordinates(n_rows, n_cols, &rows, &cols, &values).unwrap()
}

fn cell(csr: &Csr, row: usize, col: usize) -> Option<f32> {
    let (cols, values) = csr.row(row);
    cols.binary_search(&(col as u32)).ok().map(|at| values[at])
}

fn lists(top: &TopK) -> Vec<Vec<(u32, f32)>> {
    (0..top.n_lists())
        .map(|at| top.list(at).0.iter().copied().zip(top.list(at).1.iter().copied()).collect())
        .collect()
}

/// Values that repeat often, or hardly ever, or spread over many magnitudes.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => (-2i8..3).prop_map(f32::from),
        4 => -1f32..1.0,
        1 => (-1f32..1.0, -12i32..12).prop_map(|(value, power)| value * 10f32.powi(power)),
        1 => Just(-0.0f32),
    ]
}

fn sparse_cells(n_rows: usize, n_cols: usize) -> impl Strategy<Value = Option<Csr>> {
    let cell = (0..n_rows as u32, 0..n_cols as u32, value());
    let cells = proptest::collection::btree_map((cell.0, cell.1), cell.2, 0..2 * n_cols);
    proptest::option::of(cells.prop_map(move |cells| {
        let cells: Vec<_> = cells.into_iter().map(|((row, col), value)| (row, col, value)).collect();
        csr(n_rows, n_cols, &cells)
    }))
}

fn shop(n_queries: usize, n_items: usize, d: usize) -> impl Strategy<Value = Shop> {
    (
        proptest::collection::vec(value(), n_queries * d),
        proptest::collection::vec(value(), n_items * d),
        proptest::option::of(proptest::collection::vec(any::<bool>(), n_items)),
        sparse_cells(n_queries, n_items),
        sparse_cells(n_queries, n_items),
        any::<bool>(),
        prop_oneof![Just(1usize), 0..n_items + 3],
    )
        .prop_map(move |(queries, items, eligible, seen, sparse, exclude_self, top_k)| Shop {
            queries: Dense::from_vec(n_queries, d, queries).unwrap(),
            items: Dense::from_vec(n_items, d, items).unwrap(),
            eligible,
            seen,
            sparse,
            exclude_self: exclude_self && n_queries == n_items,
            top_k,
        })
}

fn shops() -> impl Strategy<Value = Shop> {
    let shape = prop_oneof![
        (1usize..30, 1usize..200, 1usize..20),
        (1usize..4, 1usize..400, Just(1)),
        (1usize..60, 1usize..60, 1usize..6).prop_map(|(n, _, d)| (n, n, d)),
    ];
    shape.prop_flat_map(|(n_queries, n_items, d)| shop(n_queries, n_items, d))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn lists_are_the_head_of_the_full_sort(shop in shops()) {
        let sorted = shop.sorted();
        prop_assert_eq!(lists(&shop.retrieve().unwrap()), sorted.clone());
        for path in paths() {
            let top = shop.retrieve_on(path);
            prop_assert_eq!(lists(&top), sorted.clone(), "{:?}", path);
        }
    }
}

/// A fixed stream of values in `-1 .. 1`.
fn drawn(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Items whose norms fall like those of popularity.
fn skewed(n_queries: usize, n_items: usize, d: usize, top_k: usize) -> Shop {
    let mut items = Dense::from_vec(n_items, d, drawn(n_items * d, 7)).unwrap();
    for at in 0..n_items {
        let scale = 1.0 / (1.0 + (at * 37 % n_items) as f32).sqrt();
        items.row_mut(at).iter_mut().for_each(|value| *value *= scale);
    }
    Shop {
        queries: Dense::from_vec(n_queries, d, drawn(n_queries * d, 3)).unwrap(),
        items,
        eligible: None,
        seen: None,
        sparse: None,
        exclude_self: false,
        top_k,
    }
}

#[test]
fn the_nearest_of_four_directions_comes_first() {
    let shop =
        Shop::new(&[&[1.0, 0.1], &[-0.2, 2.0]], &[&[1.0, 0.0], &[0.0, 1.0], &[-1.0, 0.0], &[0.0, -1.0]], 2);
    assert_eq!(lists(&shop.retrieve().unwrap()), [[(0, 1.0), (1, 0.1)], [(1, 2.0), (2, 0.2)]]);
}

#[test]
fn equal_scores_ascend_by_item_and_minus_zero_is_zero() {
    let shop = Shop::new(&[&[1.0], &[0.0]], &[&[-0.0], &[0.0], &[-0.0], &[5.0], &[0.0]], 4);
    let top = shop.retrieve().unwrap();
    assert_eq!(top.list(0).0, [3, 0, 1, 2]);
    assert_eq!(top.list(1).0, [0, 1, 2, 3]);
    assert!(top.list(1).1.iter().all(|score| score.to_bits() == 0));
    // These products are too small for f32 and round to a zero of their sign.
    let shop = Shop::new(&[&[1e-30]], &[&[-1e-30], &[1e-30], &[-1e-30]], 3);
    let top = shop.retrieve().unwrap();
    assert_eq!(top.list(0).0, [0, 1, 2]);
    assert!(top.list(0).1.iter().all(|score| score.to_bits() == 0));
}

#[test]
fn filters_act_before_the_cut() {
    let mut shop = Shop::new(&[&[1.0], &[1.0]], &[&[5.0], &[4.0], &[3.0], &[2.0], &[1.0]], 2);
    shop.eligible = Some(vec![false, true, true, true, true]);
    shop.seen = Some(shop.cells(&[(0, 1, 1.0), (1, 2, 0.0)]));
    let top = shop.retrieve().unwrap();
    assert_eq!(top.list(0).0, [2, 3]);
    assert_eq!(top.list(1).0, [1, 3]);
}

#[test]
fn short_lists_stay_short() {
    let mut shop = Shop::new(&[&[1.0], &[1.0], &[1.0]], &[&[3.0], &[2.0], &[1.0]], 10);
    shop.seen = Some(shop.cells(&[(1, 0, 1.0), (1, 1, 1.0), (2, 0, 1.0), (2, 1, 1.0), (2, 2, 1.0)]));
    let top = shop.retrieve().unwrap();
    assert_eq!((top.list(0).0, top.list(1).0, top.list(2).0), (&[0, 1, 2][..], &[2][..], &[][..]));
    assert_eq!(top.n_entries(), 4);
    shop.eligible = Some(vec![false; 3]);
    assert_eq!(lists(&shop.retrieve().unwrap()), vec![vec![]; 3]);
}

#[test]
fn similar_items_leave_out_the_item_itself() {
    let rows: [&[f32]; 3] = [&[1.0, 0.0], &[0.9, 0.1], &[0.0, 1.0]];
    let mut shop = Shop::new(&rows, &rows, 1);
    shop.exclude_self = true;
    let top = shop.retrieve().unwrap();
    assert_eq!([top.list(0).0, top.list(1).0, top.list(2).0], [[1], [0], [1]]);
}

#[test]
fn sparse_scores_lift_and_bury_items_wherever_they_stand() {
    let mut shop = skewed(3, 2_000, 8, 3);
    let best = shop.retrieve().unwrap().list(1).0[0];
    let last = (0..2_000).min_by_key(|&at| (shop.items.row(at)[0].abs() * 1e9) as u64).unwrap() as u32;
    shop.sparse = Some(shop.cells(&[(1, best, -100.0), (1, last, 100.0)]));
    let top = shop.retrieve().unwrap();
    assert_eq!(top.list(1).0[0], last);
    assert!(!top.list(1).0.contains(&best));
    assert_eq!(lists(&top), shop.sorted());
}

#[test]
fn no_columns_leave_the_sparse_scores() {
    let mut shop = Shop::new(&[&[], &[]], &[&[], &[], &[]], 2);
    shop.sparse = Some(shop.cells(&[(0, 2, 1.5), (1, 0, -1.0)]));
    assert_eq!(lists(&shop.retrieve().unwrap()), [[(2, 1.5), (0, 0.0)], [(1, 0.0), (2, 0.0)]]);
}

#[test]
fn many_panels_and_blocks_equal_the_full_sort() {
    for (n_queries, n_items, d, top_k) in [(203, 1_501, 33, 10), (9, 6_000, 5, 100), (1, 3_000, 700, 7)] {
        let shop = skewed(n_queries, n_items, d, top_k);
        assert_eq!(lists(&shop.retrieve().unwrap()), shop.sorted());
    }
}

#[test]
fn falling_norms_end_the_scan_early() {
    let shop = skewed(40, 4_000, 4, 5);
    let mut reports = Vec::new();
    let top = shop.index().unwrap().retrieve(&shop.request(), &mut |block| reports.push(block)).unwrap();
    assert_eq!(lists(&top), shop.sorted());
    let last = reports.last().unwrap();
    assert_eq!((last.done, last.of), (40, 40));
    assert!(last.n_scored < 40 * 4_000 / 4, "{last:?}");
}

#[test]
fn sparse_scores_count_beyond_the_end_of_the_scan() {
    let mut shop = skewed(40, 4_000, 4, 5);
    let values = drawn(40 * 4_000, 11);
    let cells: Vec<(u32, u32, f32)> = (0..40 * 4_000)
        .filter(|at| at % 3 == 0)
        .map(|at| {
            (at as u32 / 4_000, at as u32 % 4_000, values[at] * 0.5 + if at % 5_000 == 0 { 3.0 } else { 0.0 })
        })
        .collect();
    shop.sparse = Some(shop.cells(&cells));
    let mut n_scored = 0;
    let top =
        shop.index().unwrap().retrieve(&shop.request(), &mut |block| n_scored = block.n_scored).unwrap();
    assert_eq!(lists(&top), shop.sorted());
    assert!(n_scored < 40 * 4_000 / 2, "{n_scored}");
}

#[test]
fn a_sparse_sum_out_of_range_is_found_beyond_the_end_of_the_scan() {
    let items: Vec<f32> = (0..200).map(|at| if at < 100 { 3e38 } else { -2e38 }).collect();
    let items: Vec<&[f32]> = items.chunks(1).collect();
    let mut shop = Shop::new(&[&[1.0]], &items, 1);
    assert_eq!(shop.retrieve().unwrap().list(0).0, [0]);
    shop.sparse = Some(shop.cells(&[(0, 150, -3e38)]));
    assert_eq!(shop.retrieve(), Err(Error::Score { query: 0, item: 150, score: f32::NEG_INFINITY }));
}

#[test]
fn queries_that_end_early_leave_their_block_to_the_others() {
    // A tenth of the items are long; the others are as long as each other and turn towards the second axis.
    let turned = |at: usize| (at as f32 * 1.5e-3).sin_cos();
    let item = |at| if at % 10 == 0 { [9.0, 0.0] } else { [turned(at).1, turned(at).0] };
    let items: Vec<[f32; 2]> = (0..1_000).map(item).collect();
    let queries: Vec<[f32; 2]> =
        (0..80).map(|at| if at / 8 % 2 == 0 { [1.0, 0.0] } else { [0.0, 1.0] }).collect();
    let items: Vec<&[f32]> = items.iter().map(|row| &row[..]).collect();
    let queries: Vec<&[f32]> = queries.iter().map(|row| &row[..]).collect();
    let shop = Shop::new(&queries, &items, 3);
    // One thread makes the largest blocks, of both kinds of query.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(lists(&pool.install(|| shop.retrieve().unwrap())), shop.sorted());
}

#[test]
fn items_that_attain_the_bound_are_not_pruned() {
    // All products are near |q| |x|: only rounding decides which are the largest.
    let direction = drawn(37, 5);
    let nudges = drawn(2_000 * 37, 8);
    let items = (0..2_000 * 37).map(|at| direction[at % 37] * (1.0 + nudges[at] * 2e-7)).collect();
    let (queries, items) = (Dense::from_vec(1, 37, direction.clone()), Dense::from_vec(2_000, 37, items));
    let (queries, items) = (queries.unwrap(), items.unwrap());
    for top_k in [1, 3, 40, 401] {
        let shop = Shop { queries: queries.clone(), items: items.clone(), ..skewed(1, 2_000, 37, top_k) };
        assert_eq!(lists(&shop.retrieve().unwrap()), shop.sorted());
    }
}

/// Screened by the fast kernel, if this machine has one, and by its twin; not screened at all; and
/// without any vector.
fn paths() -> Vec<Path> {
    let mut arches = vec![Arch::Scalar, Arch::new()];
    #[cfg(target_arch = "x86_64")]
    arches.extend(pulp::x86::V3::try_new().map(Arch::V3));
    let dots = [None, Some(Dots::portable()), Dots::fast()];
    arches.into_iter().flat_map(|arch| dots.map(|dots| Path { arch, dots, always: true })).collect()
}

#[test]
fn instructions_do_not_change_a_bit() {
    let mut shop = skewed(21, 700, 211, 9);
    shop.sparse = Some(shop.cells(&[(3, 5, 0.25), (7, 600, -3.0), (20, 0, 1.0), (20, 699, 4.0)]));
    for path in paths() {
        let top = shop.retrieve_on(path);
        assert_eq!(top, shop.retrieve().unwrap(), "{path:?}");
    }
}

#[test]
fn a_screen_that_pays_is_used_and_changes_nothing() {
    let mut shop = skewed(300, 4_000, 24, 11);
    shop.eligible = Some((0..4_000).map(|item| item % 17 != 3).collect());
    shop.seen = Some(shop.cells(&(0..300).map(|query| (query, query * 13 % 4_000, 1.0)).collect::<Vec<_>>()));
    let cells: Vec<_> = (0..30_000u32).map(|at| (at % 300, at * 7 % 4_000, (at % 11) as f32 - 5.0)).collect();
    let cells: std::collections::BTreeMap<_, _> =
        cells.into_iter().map(|cell| ((cell.0, cell.1), cell.2)).collect();
    shop.sparse =
        Some(shop.cells(&cells.into_iter().map(|((row, col), value)| (row, col, value)).collect::<Vec<_>>()));
    assert_eq!(lists(&shop.retrieve().unwrap()), shop.sorted());
}

/// What an index has prepared for one request is right for whichever comes next: other queries, columns that
/// were empty before, longer lists, scores that no screen can tell.
#[test]
fn an_index_answers_as_if_it_had_not_been_asked_before() {
    let mut shop = skewed(70, 2_000, 24, 11);
    shop.eligible = Some((0..2_000).map(|item| item % 17 != 3).collect());
    (0..70).for_each(|query| shop.queries.row_mut(query)[5] = 0.0);
    let mut other = Shop { queries: Dense::from_vec(66, 24, drawn(66 * 24, 9)).unwrap(), ..shop.clone() };
    other.queries.values_mut().iter_mut().for_each(|value| *value *= 1e-3);
    (0..66).for_each(|query| other.queries.row_mut(query)[5] = 40.0);
    let mut huge = other.clone();
    huge.queries.values_mut().iter_mut().for_each(|value| *value *= 1e36);
    let few = Shop { queries: Dense::from_vec(3, 24, drawn(72, 9)).unwrap(), ..shop.clone() };
    let long = Shop { top_k: 900, ..other.clone() };
    let shops = [&shop, &long, &few, &other, &huge, &shop].map(|shop| (shop.request(), shop.sorted()));
    for path in paths().into_iter().flat_map(|path| [path, Path { always: false, ..path }]) {
        let mut index = Index::on(path, &shop.items, shop.eligible.as_deref()).unwrap();
        for (request, sorted) in &shops {
            assert_eq!(&lists(&index.retrieve(request, &mut |_| ()).unwrap()), sorted, "{path:?}");
        }
    }
}

#[test]
fn a_query_of_zeros_lists_the_first_items_and_what_sparse_scores_lift() {
    let mut shop = skewed(20, 400, 24, 7);
    for query in [3, 4, 11] {
        shop.queries.row_mut(query).fill(0.0);
    }
    shop.eligible = Some((0..400).map(|item| item != 1).collect());
    shop.seen = Some(shop.cells(&[(3, 0, 1.0), (3, 5, 1.0), (4, 2, 1.0)]));
    shop.sparse = Some(shop.cells(&[(3, 3, -1.0), (3, 5, 9.0), (3, 350, 0.5), (11, 399, 0.0), (11, 1, 2.0)]));
    for path in paths() {
        let top = shop.retrieve_on(path);
        assert_eq!(lists(&top), shop.sorted(), "{path:?}");
        assert_eq!(top.list(3).0, [350, 2, 4, 6, 7, 8, 9]);
    }
}

#[test]
fn thread_counts_do_not_change_a_bit() {
    let mut shop = skewed(150, 900, 5, 20);
    shop.sparse = Some(shop.cells(&[(3, 5, 0.25), (77, 800, -3.0), (149, 0, 1.0)]));
    let with = |n_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| shop.retrieve().unwrap())
    };
    let one = with(1);
    assert_eq!(one, with(2));
    assert_eq!(one, with(5));
    assert_eq!(lists(&one), shop.sorted());
}

#[test]
fn an_item_listed_alone_keeps_its_score() {
    let mut shop = skewed(5, 300, 41, 300);
    let together = lists(&shop.retrieve().unwrap());
    let alone = 123usize;
    shop.eligible = Some((0..300).map(|at| at == alone).collect());
    for (query, list) in lists(&shop.retrieve().unwrap()).into_iter().enumerate() {
        assert_eq!(list.len(), 1);
        assert!(together[query].contains(&list[0]));
    }
}

#[test]
fn scores_out_of_range_are_an_error_unless_the_pair_is_left_out() {
    let big = f32::MAX / 2.0;
    let mut shop = Shop::new(&[&[1.0, 1.0], &[4.0, 4.0]], &[&[1.0, 1.0], &[big, -big]], 1);
    let Err(Error::Score { query: 1, item: 1, score }) = shop.retrieve() else {
        panic!("expected a refusal")
    };
    assert!(!score.is_finite());
    shop.seen = Some(shop.cells(&[(1, 1, 1.0)]));
    assert_eq!(lists(&shop.retrieve().unwrap()), shop.sorted());
    shop.seen = None;
    shop.eligible = Some(vec![true, false]);
    assert_eq!(lists(&shop.retrieve().unwrap()), shop.sorted());
}

#[test]
fn a_score_far_below_zero_out_of_range_is_an_error_too() {
    let mut shop = Shop::new(&[&[2.0]], &[&[1.0], &[-f32::MAX]], 1);
    assert_eq!(shop.retrieve(), Err(Error::Score { query: 0, item: 1, score: f32::NEG_INFINITY }));
    shop.queries = dense(&[&[1.0]]);
    shop.sparse = Some(shop.cells(&[(0, 1, -f32::MAX)]));
    assert_eq!(shop.retrieve(), Err(Error::Score { query: 0, item: 1, score: f32::NEG_INFINITY }));
}

#[test]
fn huge_norms_that_stay_in_range_are_exact() {
    let huge = 1e19f32;
    let shop = Shop::new(&[&[huge, -huge], &[huge, huge]], &[&[huge, huge], &[huge, 0.0], &[0.0, -huge]], 3);
    assert_eq!(lists(&shop.retrieve().unwrap()), shop.sorted());
}

#[test]
fn shapes_that_do_not_fit_are_refused_with_both() {
    let shop = Shop::new(&[&[1.0], &[2.0]], &[&[1.0], &[2.0], &[3.0]], 1);
    let refused = |change: &dyn Fn(&mut Shop)| {
        let mut shop = shop.clone();
        change(&mut shop);
        shop.retrieve().unwrap_err()
    };
    let columns = refused(&|shop| shop.queries = dense(&[&[1.0, 2.0]]));
    assert_eq!(columns, Error::Columns { queries: 2, items: 1 });
    let flags = refused(&|shop| shop.eligible = Some(vec![true; 2]));
    assert_eq!(flags, Error::Eligible { flags: 2, items: 3 });
    let itself = refused(&|shop| shop.exclude_self = true);
    assert_eq!(itself, Error::Itself { queries: 2, items: 3 });
    let named: BTreeSet<String> = [
        refused(&|shop| shop.seen = Some(csr(3, 3, &[]))),
        refused(&|shop| shop.sparse = Some(csr(2, 2, &[]))),
    ]
    .iter()
    .map(ToString::to_string)
    .collect();
    let expected = [
        "`seen` is 3 rows by 3 columns; expected 2 queries by 3 items",
        "`sparse` is 2 rows by 2 columns; expected 2 queries by 3 items",
    ];
    assert_eq!(named, expected.map(String::from).into());
}

#[test]
fn rows_that_are_not_finite_are_refused_by_name() {
    let mut shop = Shop::new(&[&[1.0, 1.0]], &[&[1.0, 0.0], &[2.0, 0.0]], 1);
    shop.items.row_mut(1)[1] = f32::NAN;
    assert_eq!(shop.retrieve(), Err(Error::NotFinite { matrix: "items", row: 1 }));
    shop.items.row_mut(1)[1] = 0.0;
    shop.queries.row_mut(0)[0] = f32::INFINITY;
    assert_eq!(shop.retrieve(), Err(Error::NotFinite { matrix: "queries", row: 0 }));
}

#[test]
fn nothing_asked_is_nothing_listed() {
    let none: [&[f32]; 0] = [];
    assert_eq!(Shop::new(&none, &none, 3).retrieve().unwrap().n_lists(), 0);
    let shop = Shop::new(&[&[1.0]], &[&[1.0]], 0);
    assert_eq!(lists(&shop.retrieve().unwrap()), [[]]);
}

#[test]
fn a_screen_keeps_what_only_rounding_tells_apart() {
    // Denormal, ordinary and huge rows whose products nearly tie, and rows of zeros.
    let direction = drawn(40, 5);
    let nudges = drawn(900 * 40, 8);
    for scale in [1e-25f32, 1e-19, 1.0, 1e18] {
        let items =
            (0..900 * 40)
                .map(|at| {
                    if at / 40 % 50 == 0 {
                        0.0
                    } else {
                        direction[at % 40] * scale * (1.0 + nudges[at] * 3e-7)
                    }
                })
                .collect();
        let queries = direction.iter().map(|value| value * scale).chain([0.0; 40]).collect();
        let shop = Shop {
            queries: Dense::from_vec(2, 40, queries).unwrap(),
            items: Dense::from_vec(900, 40, items).unwrap(),
            ..skewed(2, 900, 40, 23)
        };
        for path in paths() {
            let top = shop.retrieve_on(path);
            assert_eq!(lists(&top), shop.sorted(), "{path:?} at {scale}");
        }
    }
}
