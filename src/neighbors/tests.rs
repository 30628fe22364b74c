use proptest::prelude::*;

use super::*;

fn csr(n_rows: usize, n_cols: usize, cells: &[(u32, u32, f32)]) -> Csr {
    let rows: Vec<u32> = cells.iter().map(|cell| cell.0).collect();
    let cols: Vec<u32> = cells.iter().map(|cell| cell.1).collect();
    let values: Vec<f32> = cells.iter().map(|cell| cell.2).collect();
    Csr::from_coordinates(n_rows, n_cols, &rows, &cols, &values).unwrap()
}

fn baskets(n_items: usize, baskets: &[&[u32]]) -> Csr {
    let cells: Vec<(u32, u32, f32)> = baskets
        .iter()
        .enumerate()
        .flat_map(|(at, items)| items.iter().map(move |&item| (at as u32, item, 1.0)))
        .collect();
    csr(baskets.len(), n_items, &cells)
}

fn no_steps(n_items: usize) -> Csr {
    csr(n_items, n_items, &[])
}

fn lists(lists: &Lists) -> Vec<Vec<(u32, f32)>> {
    let list = |at| lists.list(at).0.iter().copied().zip(lists.list(at).1.iter().copied()).collect();
    (0..lists.n_lists()).map(list).collect()
}

fn plain(top_k: usize) -> Config {
    Config { top_k, shrinkage: 0.0, max_basket: 200 }
}

fn cut_lists(scores: impl Iterator<Item = (u32, f32)>, top_k: usize) -> Vec<(u32, f32)> {
    let mut list: Vec<(u32, f32)> = scores.collect();
    list.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    list.truncate(top_k);
    list
}

/// The textbook: every pair of dense columns.
fn naive_together(baskets: &Csr, config: &Config, eligible: Option<&[bool]>) -> Vec<Vec<(u32, f32)>> {
    let n_items = baskets.n_cols();
    let column = |item: usize| -> Vec<bool> {
        (0..baskets.n_rows()).map(|at| baskets.row(at).0.contains(&(item as u32))).collect()
    };
    let columns: Vec<Vec<bool>> = (0..n_items).map(column).collect();
    let both =
        |i: usize, j: usize| columns[i].iter().zip(&columns[j]).filter(|(a, b)| **a && **b).count() as f64;
    let list = |i: usize| {
        let others =
            (0..n_items).filter(|&j| j != i && both(i, j) > 0.0 && eligible.is_none_or(|flags| flags[j]));
        let score = |j: usize| both(i, j) / ((both(i, i) * both(j, j)).sqrt() + f64::from(config.shrinkage));
        cut_lists(others.map(|j| (j as u32, score(j) as f32)), config.top_k)
    };
    (0..n_items).map(list).collect()
}

fn naive_next(transitions: &Csr, config: &Config, eligible: Option<&[bool]>) -> Vec<Vec<(u32, f32)>> {
    let list = |a: usize| {
        let (others, counts) = transitions.row(a);
        let all = counts.iter().map(|&count| f64::from(count)).sum::<f64>() + f64::from(config.shrinkage);
        let listed = others
            .iter()
            .zip(counts)
            .filter(|(b, _)| **b as usize != a && eligible.is_none_or(|flags| flags[**b as usize]));
        cut_lists(listed.map(|(&b, &count)| (b, (f64::from(count) / all) as f32)), config.top_k)
    };
    (0..transitions.n_rows()).map(list).collect()
}

#[test]
fn bread_goes_with_butter_and_nails_with_a_hammer() {
    let (bread, butter, nails, hammer, lonely) = (0, 1, 2, 3, 4);
    let baskets = baskets(
        5,
        &[&[bread, butter], &[bread, butter], &[nails, hammer], &[bread, butter, nails], &[lonely]],
    );
    let steps = csr(5, 5, &[(nails, hammer, 3.0), (nails, bread, 1.0)]);
    let found = relate(&baskets, &steps, &plain(1), None).unwrap();
    assert_eq!(
        lists(&found.together),
        [
            vec![(butter, 1.0)],
            vec![(bread, 1.0)],
            vec![(hammer, 0.5f32.sqrt())],
            vec![(nails, 0.5f32.sqrt())],
            vec![]
        ]
    );
    assert_eq!(lists(&found.next), [vec![], vec![], vec![(hammer, 0.75)], vec![], vec![]]);
}

#[test]
fn shrinkage_prefers_the_pair_observed_often() {
    let mut sessions: Vec<&[u32]> = vec![&[0, 2]];
    sessions.extend([&[0u32, 1][..]; 30]);
    sessions.extend([&[1u32][..]; 10]);
    let baskets = baskets(3, &sessions);
    let steps = csr(3, 3, &[(0, 1, 30.0), (2, 1, 1.0)]);
    let shrunk = relate(&baskets, &steps, &Config { shrinkage: 20.0, ..plain(2) }, None).unwrap();
    let score = |both: f64, own: f64, other: f64| (both / ((own * other).sqrt() + 20.0)) as f32;
    assert_eq!(lists(&shrunk.together)[0], [(1, score(30.0, 31.0, 40.0)), (2, score(1.0, 31.0, 1.0))]);
    assert_eq!(lists(&shrunk.next), [vec![(1, 0.6)], vec![], vec![(1, (1.0f64 / 21.0) as f32)]]);
}

#[test]
fn eligibility_acts_before_the_cut_and_only_on_the_listed() {
    let baskets = baskets(3, &[&[0, 1], &[0, 1], &[0, 2]]);
    let steps = csr(3, 3, &[(0, 1, 3.0), (0, 2, 1.0), (1, 0, 1.0)]);
    let found = relate(&baskets, &steps, &plain(1), Some(&[true, false, true])).unwrap();
    assert_eq!(found.together.list(0).0, [2]);
    assert_eq!(found.together.list(1).0, [0]);
    assert_eq!(lists(&found.next), [vec![(2, 0.25)], vec![(0, 1.0)], vec![]]);
}

#[test]
fn a_step_to_itself_counts_but_is_not_listed() {
    let steps = csr(2, 2, &[(0, 0, 1.0), (0, 1, 1.0)]);
    let found = relate(&baskets(2, &[]), &steps, &plain(5), None).unwrap();
    assert_eq!(lists(&found.next), [vec![(1, 0.5)], vec![]]);
    assert_eq!(found.together.n_entries(), 0);
}

#[test]
fn equal_scores_ascend_by_item() {
    let all = baskets(6, &[&[0, 1, 2, 3, 4, 5]]);
    let found = relate(&all, &no_steps(6), &plain(3), None).unwrap();
    assert_eq!(found.together.list(2).0, [0, 1, 3]);
    assert_eq!(found.together.list(0).0, [1, 2, 3]);
}

#[test]
fn a_long_basket_keeps_heavy_then_rare_then_small() {
    let long = [(0, 0, 1.0), (0, 1, 9.0), (0, 2, 1.0), (0, 3, 1.0), (0, 4, 1.0)];
    let others = [(1, 1, 1.0), (1, 5, 1.0), (2, 2, 1.0)];
    let baskets = csr(3, 6, &[&long[..], &others[..]].concat());
    let kept = |max_basket| baskets::cut(&baskets, max_basket).row(0).to_vec();
    assert_eq!(kept(1), [1]);
    assert_eq!(kept(2), [0, 1]);
    assert_eq!(kept(4), [0, 1, 3, 4]);
    assert_eq!(kept(5), [0, 1, 2, 3, 4]);
    let found = relate(&baskets, &no_steps(6), &Config { max_basket: 2, ..plain(9) }, None).unwrap();
    let half = 0.5f32.sqrt();
    let expected = [vec![(1, half)], vec![(0, half), (5, half)], vec![], vec![], vec![], vec![(1, half)]];
    assert_eq!(lists(&found.together), expected);
}

#[test]
fn shapes_and_signs_are_refused_with_their_place() {
    let good = baskets(3, &[&[0, 1]]);
    let refused = |baskets: &Csr, steps: &Csr, eligible: Option<&[bool]>| {
        relate(baskets, steps, &Config::default(), eligible).unwrap_err()
    };
    assert_eq!(refused(&good, &csr(3, 2, &[]), None), Error::Transitions { n_rows: 3, n_cols: 2, items: 3 });
    assert_eq!(refused(&good, &no_steps(3), Some(&[true])), Error::Eligible { flags: 1, items: 3 });
    assert_eq!(
        refused(&csr(1, 3, &[(0, 0, 1.0), (0, 2, 0.0)]), &no_steps(3), None),
        Error::Weight { basket: 0, item: 2, weight: 0.0 }
    );
    assert_eq!(
        refused(&good, &csr(3, 3, &[(1, 2, -1.0)]), None),
        Error::Count { item: 1, next: 2, count: -1.0 }
    );
}

#[test]
fn a_bad_key_is_named_with_what_was_expected() {
    let refused = |text: &str| toml::from_str::<Config>(text).unwrap_err().to_string();
    assert!(refused("top_k = 0").contains("`neighbors.top_k`: expected 1 to 10000; found 0"));
    assert!(refused("max_basket = -3").contains("`neighbors.max_basket`: expected at least 2; found -3"));
    assert!(refused("shrinkage = nan").contains("`neighbors.shrinkage`: expected a finite number"));
    assert!(refused("shrinkge = 1.0").contains("shrinkge"));
    assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
    assert_eq!(toml::from_str::<Config>("shrinkage = 0").unwrap().shrinkage, 0.0);
}

fn behaviours() -> impl Strategy<Value = (Csr, Csr, Config, Option<Vec<bool>>)> {
    (1usize..14, 1usize..30).prop_flat_map(|(n_items, n_baskets)| {
        let basket = proptest::collection::btree_set(0..n_items as u32, 0..n_items + 1);
        let pairs = (0..n_items as u32, 0..n_items as u32);
        (
            proptest::collection::vec(basket, n_baskets),
            proptest::collection::btree_map(pairs, 1u8..20, 0..40),
            (1usize..16, prop_oneof![Just(0f32), Just(20f32), 0f32..5.0]),
            proptest::option::of(proptest::collection::vec(any::<bool>(), n_items)),
        )
            .prop_map(move |(sets, steps, (top_k, shrinkage), eligible)| {
                let sets: Vec<Vec<u32>> = sets.into_iter().map(|set| set.into_iter().collect()).collect();
                let sets: Vec<&[u32]> = sets.iter().map(Vec::as_slice).collect();
                let steps: Vec<_> = steps.into_iter().map(|((a, b), n)| (a, b, f32::from(n))).collect();
                let config = Config { top_k, shrinkage, max_basket: 200 };
                (baskets(n_items, &sets), csr(n_items, n_items, &steps), config, eligible)
            })
    })
}

proptest! {
    #[test]
    fn lists_equal_the_naive_twin((baskets, steps, config, eligible) in behaviours()) {
        let found = relate(&baskets, &steps, &config, eligible.as_deref()).unwrap();
        prop_assert_eq!(lists(&found.together), naive_together(&baskets, &config, eligible.as_deref()));
        prop_assert_eq!(lists(&found.next), naive_next(&steps, &config, eligible.as_deref()));
    }

    #[test]
    fn thread_counts_and_basket_order_do_not_change_a_bit((baskets, steps, config, _) in behaviours()) {
        let backwards: Vec<_> = (0..baskets.n_rows())
            .flat_map(|at| baskets.row(baskets.n_rows() - 1 - at).0.iter().map(move |&item| (at as u32, item, 1.0)))
            .collect();
        let backwards = csr(baskets.n_rows(), baskets.n_cols(), &backwards);
        let with = |n_threads, baskets: &Csr| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| relate(baskets, &steps, &config, None).unwrap())
        };
        let one = with(1, &baskets);
        prop_assert_eq!(&one, &with(3, &baskets));
        prop_assert_eq!(&one, &with(2, &backwards));
    }
}
