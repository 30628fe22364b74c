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
    let config =
        Config { prior_visits: 2.0, item_prior_visits: 1.0, half_life_days: 1.0, ..Config::default() };
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
    for key in ["prior_visits", "item_prior_visits", "half_life_days", "horizon_days"] {
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

#[test]
fn logistic_regression_finds_the_odds_that_examples_were_drawn_by() {
    let draw = |at: u64| crate::random::split_mix(at) as f64 / u64::MAX as f64;
    let examples: Vec<[f64; 2]> =
        (0..20_000).map(|at| [4.0 * draw(3 * at), 10.0 * draw(3 * at + 1) - 5.0]).collect();
    let odds = |x: &[f64; 2]| 1.5 * x[0] - 0.4 * x[1] - 3.0;
    let yes: Vec<bool> =
        examples.iter().zip(0..).map(|(x, at)| draw(3 * at + 2) < 1.0 / (1.0 + (-odds(x)).exp())).collect();
    let model = logistic::Logistic::fit(&examples, &yes).unwrap();
    for x in [[0.0, 0.0], [2.0, 0.0], [2.0, 3.0], [4.0, -5.0]] {
        let found = model.probability(&x);
        assert!(((found / (1.0 - found)).ln() - odds(&x)).abs() < 0.15, "{x:?}: {found}");
    }
    let sum: f64 = examples.iter().map(|x| model.probability(x)).sum();
    assert!((sum - yes.iter().filter(|yes| **yes).count() as f64).abs() < 1e-3, "the intercept is free");
    let constant = vec![[1.0]; 4];
    let even = logistic::Logistic::fit(&constant, &[true, false, true, false]).unwrap();
    assert!((even.probability(&[1.0]) - 0.5).abs() < 1e-9);
}

/// Users who buy staples all year and seasonal items until spring alone; one left in winter and had bought all.
fn season() -> Visits {
    let mut rows = Vec::new();
    for user in 0..300u32 {
        for week in 0..20u32 {
            for item in 0..4 {
                let in_season = item < 2 || week < 12;
                if in_season && (week + item + user) % 2 == 0 {
                    rows.push((user, user * 100 + week, item, i64::from(week) * 7));
                }
            }
        }
    }
    for week in 0..6u32 {
        (0..4).for_each(|item| rows.push((300, 30_000 + week, item, i64::from(week) * 7)));
    }
    visits(&rows)
}

#[test]
fn the_last_days_teach_what_is_over() {
    let rows = season();
    let kept = interactions(301, 4, &rows);
    let config = Config { half_life_days: 1e9, ..Config::default() };
    let found = fit(&kept, &rows, &config).unwrap();
    let scores = found.row(300).1;
    let (staples, seasonal) = (scores[0].min(scores[1]), scores[2].max(scores[3]));
    assert!(staples > 1.4 * seasonal, "the user's own visits are alike for all four: {scores:?}");
    // Without a lesson the rates decide.
    let few = Visits {
        users: rows.users.iter().copied().filter(|user| *user == 300).collect(),
        visits: rows.visits[rows.visits.len() - 24..].to_vec(),
        items: rows.items[rows.items.len() - 24..].to_vec(),
        times: rows.times[rows.times.len() - 24..].to_vec(),
    };
    let kept = interactions(301, 4, &few);
    let scores = fit(&kept, &few, &config).unwrap().row(300).1.to_vec();
    assert!(scores.iter().all(|score| (score - scores[0]).abs() < 1e-6), "{scores:?}");
}
