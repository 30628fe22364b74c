use proptest::prelude::*;

use super::*;

const DAY: i64 = 86_400_000_000;

fn visits(rows: &[(u32, u32, u32, i64)]) -> Visits {
    let mut rows = rows.to_vec();
    rows.sort_unstable();
    Visits {
        users: rows.iter().map(|row| row.0).collect(),
        visits: rows.iter().map(|row| row.1).collect(),
        items: rows.iter().map(|row| row.2).collect(),
        times: rows.iter().map(|row| row.3 * DAY).collect(),
    }
}

fn interactions(n_users: usize, n_items: usize, rows: &Visits) -> Csr {
    let mut pairs: Vec<(u32, u32)> = rows.users.iter().copied().zip(rows.items.iter().copied()).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let (users, items): (Vec<u32>, Vec<u32>) = pairs.into_iter().unzip();
    Csr::from_coordinates(n_users, n_items, &users, &items, &vec![1.0; users.len()]).unwrap()
}

fn score(rate: f64) -> f32 {
    ((100.0 * rate).ln_1p() / 101f64.ln()) as f32
}

#[test]
fn the_worked_example_comes_out() {
    // One user, four visits; item 0 in visits 0, 1 and 3, item 1 in visit 2 alone.
    let rows = visits(&[(0, 5, 0, 0), (0, 4, 0, 1), (0, 3, 1, 2), (0, 2, 0, 3)]);
    let config = Config { prior_visits: 2.0, item_prior_visits: 1.0, half_life_days: 1.0 };
    let found = fit(&interactions(1, 2, &rows), &rows, &config).unwrap();
    // Item 0 was taken again twice in three chances, item 1 never in one.
    let rate = 2.0 / 4.0;
    let (first, second) = ((2.0 + rate) / (3.0 + 1.0), (0.0 + rate) / (1.0 + 1.0));
    let expected = [(2.0 + 2.0 * first) / 5.0, (2.0 * second) / 3.0 * 0.5];
    let (items, scores) = found.row(0);
    assert_eq!(items, [0, 1]);
    for (found, expected) in scores.iter().zip(expected) {
        assert!((found - score(expected)).abs() < 1e-6, "{found} {}", score(expected));
    }
}

#[test]
fn staples_come_before_what_is_bought_once() {
    // Item 0 is bought by everybody in every visit, item 1 once; user 9 has both in the last of two visits.
    let mut rows = Vec::new();
    for user in 0..9u32 {
        for visit in 0..5u32 {
            rows.push((user, user * 10 + visit, 0, i64::from(visit)));
        }
        rows.push((user, user * 10, 1, 0));
    }
    rows.extend([(9, 90, 2, 0), (9, 91, 0, 4), (9, 91, 1, 4)]);
    let rows = visits(&rows);
    let found = fit(&interactions(10, 3, &rows), &rows, &Config::default()).unwrap();
    let (items, scores) = found.row(9);
    assert_eq!(items, [0, 1, 2]);
    assert!(scores[0] > scores[2] && scores[2] > scores[1], "what is known of the items decides: {scores:?}");
}

#[test]
fn what_is_not_among_the_pairs_leaves_no_trace() {
    let rows = visits(&[(0, 0, 0, 0), (0, 1, 0, 1), (0, 1, 1, 1), (0, 2, 1, 2), (1, 3, 0, 3)]);
    let without = visits(&[(0, 0, 0, 0), (0, 1, 0, 1), (1, 3, 0, 3)]);
    let kept = interactions(2, 2, &without);
    let config = Config::default();
    assert_eq!(fit(&kept, &rows, &config).unwrap(), fit(&kept, &without, &config).unwrap());
}

#[test]
fn unsound_input_is_refused() {
    let rows = visits(&[(0, 0, 0, 0), (1, 1, 0, 1)]);
    let kept = interactions(2, 1, &rows);
    for key in ["prior_visits", "item_prior_visits", "half_life_days"] {
        let text = format!("{{ \"{key}\": 0.0 }}");
        let config: Config = serde_json::from_str(&text).unwrap();
        let error = fit(&kept, &rows, &config).unwrap_err().to_string();
        assert_eq!(error, format!("`repeat.{key}`: expected a number above 0; found 0"));
    }
    let turned = Visits { users: vec![1, 0], ..rows };
    assert!(matches!(fit(&kept, &turned, &Config::default()), Err(Error::Visits)));
}

proptest! {
    #[test]
    fn every_pair_has_a_score_from_0_to_1(
        rows in proptest::collection::vec((0u32..6, 0u32..8, 0u32..5, 0i64..200), 1..80)
    ) {
        let rows: Vec<_> = rows.into_iter().map(|(user, visit, item, day)| (user, user * 100 + visit, item, day)).collect();
        let rows = visits(&rows);
        let kept = interactions(6, 5, &rows);
        let found = fit(&kept, &rows, &Config::default()).unwrap();
        prop_assert_eq!(found.n_entries(), kept.n_entries());
        for user in 0..6 {
            prop_assert_eq!(found.row(user).0, kept.row(user).0);
            prop_assert!(found.row(user).1.iter().all(|score| (0.0..=1.0).contains(score)));
        }
    }
}
