use super::*;

fn csr(n_rows: usize, n_cols: usize, cells: &[(u32, u32)]) -> Csr {
    let rows: Vec<u32> = cells.iter().map(|cell| cell.0).collect();
    let cols: Vec<u32> = cells.iter().map(|cell| cell.1).collect();
    Csr::from_coordinates(n_rows, n_cols, &rows, &cols, &vec![1.0; cells.len()]).unwrap()
}

fn example() -> DataFrame {
    // User 0 wants 1, 2 (2 is a repeat); user 1 wants 3 and gets no list; user 2 is no test user.
    let truth = csr(3, 6, &[(0, 1), (0, 2), (1, 3)]);
    let seen = csr(3, 6, &[(0, 2), (1, 0), (2, 0), (2, 2)]);
    let embeddings =
        Dense::from_vec(6, 2, vec![1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0]).unwrap();
    let systems = [
        System {
            name: "fused".into(),
            lists: vec![vec![4, 2, 1, 0], vec![]],
            probabilities: Some(vec![vec![0.1, 0.6, 0.3, 0.0], vec![]]),
        },
        System { name: "popularity".into(), lists: vec![vec![0, 2], vec![0, 3]], probabilities: None },
    ];
    let inputs = Inputs {
        users: &[0, 1],
        truth: &truth,
        seen: &seen,
        popularity: &[2, 0, 2, 0, 0, 0],
        segments: &[0, 1, 1],
        segment_names: &["heavy".to_owned(), "light".to_owned()],
        embeddings: Some(&embeddings),
        eligible: &[true, true, true, true, true, false],
        systems: &systems,
    };
    let config = Config { ks: vec![2, 4], ..Config::default() };
    evaluate(&inputs, &config, 7).unwrap()
}

fn find(frame: &DataFrame, system: &str, metric: &str, k: u32, slice: &str, column: &str) -> f64 {
    let text = |name: &str| frame.column(name).unwrap().str().unwrap().clone();
    let (systems, metrics, slices) = (text("system"), text("metric"), text("slice"));
    let ks = frame.column("k").unwrap().u32().unwrap().clone();
    let at = (0..frame.height()).find(|at| {
        systems.get(*at) == Some(system)
            && metrics.get(*at) == Some(metric)
            && slices.get(*at) == Some(slice)
            && ks.get(*at) == Some(k)
    });
    frame.column(column).unwrap().f64().unwrap().get(at.unwrap()).unwrap()
}

#[track_caller]
fn equal(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
}

#[test]
fn accuracy_by_hand() {
    let frame = example();
    let second = 1.0 / 3f64.log2();
    equal(find(&frame, "fused", "recall", 2, "all", "value"), 0.5 / 2.0);
    equal(find(&frame, "fused", "precision", 4, "all", "value"), (2.0 / 4.0) / 2.0);
    equal(find(&frame, "fused", "hit_rate", 4, "all", "value"), 0.5);
    equal(find(&frame, "fused", "mrr", 4, "all", "value"), 0.5 / 2.0);
    equal(find(&frame, "fused", "map", 4, "all", "value"), ((1.0 / 2.0 + 2.0 / 3.0) / 2.0) / 2.0);
    equal(find(&frame, "fused", "ndcg", 4, "all", "value"), (second + 0.5) / (1.0 + second) / 2.0);
    equal(find(&frame, "fused", "ndcg", 2, "all", "value"), second / (1.0 + second) / 2.0);
}

#[test]
fn slices_filter_the_truth_and_leave_out_who_has_none() {
    let frame = example();
    equal(find(&frame, "fused", "recall", 4, "new", "value"), 0.5);
    equal(find(&frame, "fused", "recall", 4, "repeat", "value"), 1.0);
    equal(find(&frame, "fused", "recall", 4, "segment=heavy", "value"), 1.0);
    equal(find(&frame, "popularity", "recall", 2, "segment=light", "value"), 1.0);
    equal(find(&frame, "fused", "recall", 4, "cold_items", "value"), 0.5);
}

#[test]
fn baseline_is_popularity_and_intervals_hold_the_value() {
    let frame = example();
    equal(find(&frame, "fused", "recall", 2, "all", "baseline"), (0.5 + 1.0) / 2.0);
    let low = find(&frame, "fused", "recall", 4, "all", "low");
    let high = find(&frame, "fused", "recall", 4, "all", "high");
    assert!(low <= 0.5 && 0.5 <= high && low < high, "{low} to {high}");
    assert_eq!(example(), frame);
}

#[test]
fn beyond_accuracy_by_hand() {
    let frame = example();
    equal(find(&frame, "popularity", "coverage", 2, "all", "value"), 3.0 / 5.0);
    equal(find(&frame, "popularity", "popularity_lift", 2, "all", "value"), (6.0 / 4.0) / (4.0 / 6.0));
    equal(find(&frame, "popularity", "repeat_share", 2, "all", "value"), 2.0 / 4.0);
    // Items 0 and 2 point the same way; 0 and 3 are at right angles.
    equal(find(&frame, "popularity", "diversity", 2, "all", "value"), 0.5);
    // Listed 0 twice, 2 and 3 once, 1 and 4 never.
    equal(
        find(&frame, "popularity", "gini", 2, "all", "value"),
        2.0 * (3.0 + 4.0 + 10.0) / (5.0 * 4.0) - 6.0 / 5.0,
    );
    let share = |count: f64| -((count + 1.0) / 10.0).log2();
    equal(find(&frame, "popularity", "novelty", 2, "all", "value"), (3.0 * share(2.0) + share(0.0)) / 4.0);
}

#[test]
fn a_random_split_keeps_an_item_to_learn_from_and_loses_none() {
    let cells: Vec<(u32, u32)> =
        (0..20u32).flat_map(|user| (0..=user).map(move |item| (user, item))).collect();
    let interactions = csr(20, 20, &cells);
    let split = Split::random(&interactions, 0.3, 1).unwrap();
    assert_eq!(split.train.n_entries() + split.test.n_entries(), interactions.n_entries());
    for user in 0..20 {
        let n = user + 1;
        assert_eq!(split.test.row(user).0.len(), (n as f64 * 0.3) as usize, "user {user}");
        assert!(!split.train.row(user).0.is_empty());
        assert!(
            split.test.row(user).0.iter().all(|item| split.train.row(user).0.binary_search(item).is_err())
        );
    }
    let other = Split::random(&interactions, 0.3, 2).unwrap();
    assert_ne!(other.test, split.test);
    assert_eq!(Split::random(&interactions, 0.3, 1).unwrap().test, split.test);
}

#[test]
fn a_system_without_a_list_for_every_user_is_refused() {
    let empty = csr(1, 1, &[(0, 0)]);
    let systems = [System { name: "half".into(), lists: vec![], probabilities: None }];
    let inputs = Inputs {
        users: &[0],
        truth: &empty,
        seen: &empty,
        popularity: &[1],
        segments: &[0],
        segment_names: &["all".to_owned()],
        embeddings: None,
        eligible: &[true],
        systems: &systems,
    };
    let refused = evaluate(&inputs, &Config::default(), 1).err().map(|error| error.to_string());
    assert_eq!(refused.as_deref(), Some("system `half` has 0 lists; expected 1, one a test user"));
}

#[test]
fn the_table_for_people_has_a_row_a_system() {
    let text = table(&example(), 4, "all").unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].contains("all @4") && lines[0].ends_with("2 users"), "{text}");
    assert!(lines[1].contains("fused") && lines[1].contains("0.5000 ("), "{text}");
}

#[test]
fn errors_of_probabilities_by_hand() {
    let frame = example();
    // Of items 4, 2, 1, 0 the user turned to 2 and 1; the second user has no list.
    equal(find(&frame, "fused", "mae", 4, "all", "value"), (0.1 + 0.4 + 0.7 + 0.0) / 4.0);
    let mse = (0.01 + 0.16 + 0.49) / 4.0;
    equal(find(&frame, "fused", "mse", 4, "all", "value"), mse);
    equal(find(&frame, "fused", "rmse", 4, "all", "value"), mse.sqrt());
    equal(find(&frame, "fused", "rmse", 2, "all", "value"), ((0.01 + 0.16) / 2.0f64).sqrt());
    // Half of the rows came true: always saying a half is off by a half.
    equal(find(&frame, "fused", "mae", 4, "all", "baseline"), 0.5);
    equal(find(&frame, "fused", "rmse", 4, "all", "baseline"), 0.5);
}
