use proptest::prelude::*;

use super::*;

/// Eight items, best first; brands and categories by number, vectors on the circle.
struct Shelf {
    categories: Vec<u32>,
    brands: Vec<u32>,
    groups: Vec<u32>,
    vectors: Dense,
}

const ITEMS: [u32; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
const SCORES: [f32; 8] = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0];

fn shelf() -> Shelf {
    let angles = [0.0f32, 0.05, 0.1, 1.5, 0.0, 3.0, 0.2, 1.6];
    let vectors = angles.iter().flat_map(|angle| [angle.cos(), angle.sin()]).collect();
    Shelf {
        categories: vec![0, 0, 0, 1, 0, 1, NONE, NONE],
        brands: vec![0, 1, 0, 1, 2, 2, 2, 2],
        groups: vec![0, 0, 2, 3, 4, 5, 6, 7],
        vectors: Dense::from_vec(8, 2, vectors).unwrap(),
    }
}

impl Shelf {
    fn arrange(&self, rules: &Rules, pins: &[(u16, u32)], top_k: usize) -> Vec<(u32, f32)> {
        let traits = Traits {
            categories: &self.categories,
            brands: &self.brands,
            groups: &self.groups,
            vectors: &self.vectors,
        };
        rules.arrange(&traits, (&ITEMS, &SCORES), pins, top_k)
    }
}

fn items(list: &[(u32, f32)]) -> Vec<u32> {
    list.iter().map(|row| row.0).collect()
}

#[test]
fn without_rules_the_pool_is_the_list() {
    let list = shelf().arrange(&Rules::default(), &[], 5);
    assert_eq!(list, ITEMS.into_iter().zip(SCORES).take(5).collect::<Vec<_>>());
}

#[test]
fn caps_hold_and_what_has_no_category_is_not_counted() {
    let rules = Rules { max_per_category: Some(1), ..Rules::default() };
    assert_eq!(items(&shelf().arrange(&rules, &[], 8)), [0, 3, 6, 7]);
    let rules = Rules { max_per_brand: Some(1), ..Rules::default() };
    assert_eq!(items(&shelf().arrange(&rules, &[], 8)), [0, 1, 4]);
    let rules = Rules { max_per_category: Some(2), max_per_brand: Some(2), ..Rules::default() };
    assert_eq!(items(&shelf().arrange(&rules, &[], 4)), [0, 1, 3, 5]);
}

#[test]
fn caps_inside_one_another_bound_a_list_by_what_both_leave() {
    // Thirty categories of ten items, half of them of one brand of their own, the rest of ten brands.
    let items = 0..300u32;
    let categories: Vec<u32> = items.clone().map(|item| item / 10).collect();
    let of_brand = |item: u32| if item < 150 { item / 10 } else { 100 + item };
    let brands: Vec<u32> = items.clone().map(of_brand).collect();
    let rules = Rules { max_per_category: Some(3), max_per_brand: Some(1), ..Rules::default() };
    let vectors = Dense::zeros(300, 0);
    let traits = Traits { categories: &categories, brands: &brands, groups: &[], vectors: &vectors };
    assert_eq!(rules.longest(&traits, items.clone()), 15 + 15 * 3);
    let scores: Vec<f32> = items.clone().map(|item| -(item as f32)).collect();
    let pool: Vec<u32> = items.collect();
    assert_eq!(rules.arrange(&traits, (&pool, &scores), &[], 100).len(), 60);
}

#[test]
fn near_duplicates_never_share_a_list() {
    let rules = Rules { near_duplicates: Some(0.99), ..Rules::default() };
    assert_eq!(items(&shelf().arrange(&rules, &[], 3)), [0, 2, 3]);
}

/// Three pages of items that point the way `likes` says, the first the best.
fn diverse(likes: impl Fn(usize) -> [f32; 2], top_k: usize) -> Vec<usize> {
    let n_items = 6 * PAGE;
    let vectors = Dense::from_vec(n_items, 2, (0..n_items).flat_map(likes).collect()).unwrap();
    let traits = Traits { categories: &[], brands: &[], groups: &[], vectors: &vectors };
    let rules = Rules { diversity: 0.5, ..Rules::default() };
    let pool: Vec<u32> = (0..n_items as u32).collect();
    let scores: Vec<f32> = pool.iter().map(|item| -(*item as f32)).collect();
    let list = rules.arrange(&traits, (&pool, &scores), &[], top_k);
    list.into_iter().map(|row| row.0 as usize).collect()
}

#[test]
fn diversity_prefers_the_unlike_and_scores_never_rise() {
    let rules = Rules { diversity: 0.9, ..Rules::default() };
    let list = shelf().arrange(&rules, &[], 4);
    // Item 5 points away from item 0: 0.1 · 2/7 + 0.9 · 0.99/20 is more than 0.1 · 6/7 - 0.9 · 1/20 for item 1.
    assert_eq!(items(&list), [0, 5, 1, 3]);
    assert_eq!(list.iter().map(|row| row.1).collect::<Vec<_>>(), [8.0, 7.0, 7.0, 5.0]);
}

#[test]
fn diversity_leaves_the_first_ranks_and_mixes_the_later_ones() {
    let half = |item: usize| if item < 2 * PAGE { [1.0, 0.0] } else { [0.0, 1.0] };
    let list = diverse(half, PAGE);
    assert_eq!(list[..8], [0, 1, 2, 3, 4, 5, 6, 7], "likeness counts for little while the page is short");
    assert!((5..=9).contains(&list.iter().filter(|item| **item >= 2 * PAGE).count()), "{list:?}");
}

#[test]
fn what_left_the_page_no_longer_counts() {
    let kind = |item: usize| if item <= PAGE { [1.0, 0.0] } else { [0.0, 1.0] };
    let list = diverse(kind, 2 * PAGE);
    let alike = |at: usize| {
        let page = &list[at.saturating_sub(PAGE)..at];
        page.iter().filter(|item| kind(**item) == kind(list[at])).count()
    };
    assert!(
        (PAGE..2 * PAGE).all(|at| (7..=13).contains(&alike(at))),
        "both kinds share every page: {list:?}"
    );
}

#[test]
fn a_page_does_not_depend_on_how_long_the_list_is() {
    let three = |item: usize| [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]][item % 7 % 3];
    assert_eq!(diverse(three, PAGE), diverse(three, 3 * PAGE)[..PAGE]);
}

#[test]
fn pins_have_their_rank() {
    let list = shelf().arrange(&Rules::default(), &[(1, 7), (3, 99), (3, 4)], 5);
    assert_eq!(items(&list), [7, 0, 99, 4, 1]);
    assert_eq!(list.iter().map(|row| row.1).collect::<Vec<_>>(), [8.0, 8.0, 7.0, 7.0, 7.0]);
    let short = shelf().arrange(&Rules::default(), &[(20, 7)], 20);
    assert_eq!(items(&short), [0, 1, 2, 3, 4, 5, 6, 7], "nothing is left between");
}

#[test]
fn keys_out_of_range_are_refused() {
    for (text, expected) in [
        ("diversity = 1.0", "`ranking.rules.diversity`: expected a number from 0 to below 1; found 1"),
        ("long_tail = -1.0", "`ranking.rules.long_tail`: expected a number of at least 0; found -1"),
        ("max_per_brand = 0", "`ranking.rules.max_per_brand`: expected at least 1; found 0"),
        (
            "near_duplicates = 1.5",
            "`ranking.rules.near_duplicates`: expected a cosine above 0, up to 1; found 1.5",
        ),
    ] {
        let rules: Rules = toml::from_str(text).unwrap();
        assert_eq!(rules.check().unwrap_err().to_string(), expected);
    }
}

proptest! {
    #[test]
    fn lists_keep_every_rule(
        category in proptest::option::of(1usize..3),
        brand in proptest::option::of(1usize..4),
        diversity in 0.0f32..0.9,
        duplicates in proptest::option::of(0.9f32..1.0),
        top_k in 1usize..9,
    ) {
        let rules = Rules {
            max_per_category: category, max_per_brand: brand, diversity, near_duplicates: duplicates, long_tail: 0.0,
        };
        let shelf = shelf();
        let list = shelf.arrange(&rules, &[], top_k);
        let most = |of: &[u32]| {
            let count = |name: u32| list.iter().filter(|row| of[row.0 as usize] == name && name != NONE).count();
            list.iter().map(|row| count(of[row.0 as usize])).max().unwrap_or(0)
        };
        prop_assert!(category.is_none_or(|category| most(&shelf.categories) <= category));
        prop_assert!(brand.is_none_or(|brand| most(&shelf.brands) <= brand));
        prop_assert!(duplicates.is_none() || most(&shelf.groups) <= 1);
        prop_assert!(list.windows(2).all(|pair| pair[0].1 >= pair[1].1));
        let mut distinct = items(&list);
        distinct.sort_unstable();
        distinct.dedup();
        prop_assert_eq!(distinct.len(), list.len());
        if category.is_none() && brand.is_none() && duplicates.is_none() {
            prop_assert_eq!(list.len(), top_k.min(8));
        }
    }
}
