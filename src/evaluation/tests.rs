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
        System { name: "fused".into(), lists: vec![vec![4, 2, 1, 0], vec![]], probabilities: None },
        System { name: "popularity".into(), lists: vec![vec![0, 2], vec![0, 3]], probabilities: None },
    ];
    let inputs = Inputs {
        users: &[0, 1],
        truth: &truth,
        seen: &seen,
        popularity: &[2, 0, 2, 0, 0, 0],
        segments: &[0, 1, 1],
        segment_names: &["heavy".to_owned(), "light".to_owned()],
        attributes: &[],
        embeddings: Some(&embeddings),
        eligible: &[true, true, true, true, true, false],
        systems: &systems,
        min_users: 0,
    };
    let config = Config { ks: vec![2, 4], ..Config::default() };
    evaluate(&inputs, &config, 7).unwrap().frame
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
fn a_gain_is_of_the_fused_list_over_another_user_by_user() {
    let frame = example();
    let second = 1.0 / 3f64.log2();
    // Of user 0 popularity has the same hit at the same rank; of user 1 it alone has one.
    equal(find(&frame, "popularity", "recall", 2, "all", "gain"), -0.5);
    equal(find(&frame, "popularity", "ndcg", 2, "segment=heavy", "gain"), 0.0);
    equal(find(&frame, "popularity", "ndcg", 2, "segment=light", "gain"), -second);
    equal(find(&frame, "popularity", "ndcg", 2, "segment=light", "gain_high"), -second);
    assert_eq!(
        frame.column("gain").unwrap().f64().unwrap().get(0),
        None,
        "the fused list has nothing over itself"
    );

    // Whether a user's one item is listed first or second is up to chance, and the same for both systems;
    // one of them misses every twentieth.
    let n = 400u32;
    let truth = csr(n as usize, 3, &(0..n).map(|user| (user, 0)).collect::<Vec<_>>());
    let list = |user: u32| if user.is_multiple_of(2) { vec![0, 1] } else { vec![1, 0] };
    let worse = |user: u32| if user.is_multiple_of(20) { vec![1, 2] } else { list(user) };
    let system = |name: &str, list: &dyn Fn(u32) -> Vec<u32>| System {
        name: name.into(),
        lists: (0..n).map(list).collect(),
        probabilities: None,
    };
    let inputs = Inputs {
        users: &(0..n).collect::<Vec<_>>(),
        truth: &truth,
        seen: &csr(n as usize, 3, &[]),
        popularity: &[0; 3],
        segments: &vec![u32::MAX; n as usize],
        segment_names: &[],
        attributes: &[],
        embeddings: None,
        eligible: &[true; 3],
        systems: &[system("fused", &list), system("factors", &worse)],
        min_users: 0,
    };
    let frame = evaluate(&inputs, &Config { ks: vec![1], ..Config::default() }, 7).unwrap().frame;
    let of = |system: &str, column: &str| find(&frame, system, "hit_rate", 1, "all", column);
    equal(of("factors", "gain"), 0.05);
    assert!(of("factors", "gain_low") > 0.02 && of("factors", "gain_high") < 0.08);
    assert!(of("fused", "low") < of("factors", "high"), "apart by less than the intervals of either");
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
        attributes: &[],
        embeddings: None,
        eligible: &[true],
        systems: &systems,
        min_users: 0,
    };
    let refused = evaluate(&inputs, &Config::default(), 1).err().map(|error| error.to_string());
    assert_eq!(refused.as_deref(), Some("system `half` has 0 lists; expected 1, one a test user"));
}

#[test]
fn who_is_clearly_ahead_of_the_fused_lists_is_told() {
    let (users, n_items): (Vec<u32>, usize) = ((0..40).collect(), 50);
    let truth = csr(40, n_items, &users.iter().map(|user| (*user, *user)).collect::<Vec<_>>());
    let lists = |of: &dyn Fn(u32) -> Vec<u32>| users.iter().map(|user| of(*user)).collect();
    let system = |name: &str, lists| System { name: name.into(), lists, probabilities: None };
    let fused: Vec<Vec<u32>> = lists(&|user| vec![45, if user < 20 { user } else { 46 }]);
    let ahead_of = |best: Vec<Vec<u32>>, among: &[&str]| {
        let systems =
            [system("fused", fused.clone()), system("best", best), system("worse", vec![vec![47]; 40])];
        let inputs = Inputs {
            users: &users,
            truth: &truth,
            seen: &csr(40, n_items, &[]),
            popularity: &vec![0; n_items],
            segments: &[0; 40],
            segment_names: &["all users".to_owned()],
            attributes: &[],
            embeddings: None,
            eligible: &vec![true; n_items],
            systems: &systems,
            min_users: 0,
        };
        let frame = evaluate(&inputs, &Config { ks: vec![2], ..Config::default() }, 7).unwrap().frame;
        ahead(&frame, 2, among).unwrap()
    };
    let sources = ["best", "worse"];
    let (system, gain) = ahead_of(lists(&|user| vec![user]), &sources).unwrap();
    assert_eq!(ahead_of(lists(&|user| vec![user]), &["worse"]), None);
    assert_eq!(system, "best");
    equal(gain, 1.0 - 0.5 / 3f64.log2());
    // One user more may be chance.
    assert_eq!(ahead_of(lists(&|user| vec![45, if user < 21 { user } else { 46 }]), &sources), None);
}

#[test]
fn the_table_for_people_has_a_row_a_system() {
    let text = table(&example(), 4, "all").unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].contains("all @4") && lines[0].ends_with("2 users"), "{text}");
    assert!(lines[1].contains("fused") && lines[1].contains("0.5000 ("), "{text}");
}

fn values(attribute: &str, values: &[Option<&str>]) -> Values {
    let attribute = Attribute::try_from(attribute.to_owned()).unwrap();
    Values { attribute, values: values.iter().copied().collect() }
}

fn by_attribute(attributes: &[Values]) -> DataFrame {
    of_at_least(0, attributes).frame
}

/// User 0 wants items 1, 2 and 3, user 1 wants 3 and 4, user 2 wants 9, which no column reaches.
fn of_at_least(min_users: u32, attributes: &[Values]) -> Metrics {
    let truth = csr(3, 10, &[(0, 1), (0, 2), (0, 3), (1, 3), (1, 4), (2, 9)]);
    let seen = csr(3, 10, &[]);
    let systems =
        [System { name: "fused".into(), lists: vec![vec![1, 3], vec![4], vec![0]], probabilities: None }];
    let inputs = Inputs {
        users: &[0, 1, 2],
        truth: &truth,
        seen: &seen,
        popularity: &[0; 5],
        segments: &[0; 3],
        segment_names: &[],
        attributes,
        embeddings: None,
        eligible: &[true; 5],
        systems: &systems,
        min_users,
    };
    evaluate(&inputs, &Config { ks: vec![2], ..Config::default() }, 7).unwrap()
}

fn slices_of(frame: &DataFrame, prefix: &str) -> Vec<String> {
    let names = frame.column("slice").unwrap().str().unwrap().clone();
    let mut found: Vec<String> = names.iter().flatten().map(str::to_owned).collect();
    found.retain(|name| name.starts_with(prefix));
    found.dedup();
    found
}

#[test]
fn an_items_attribute_keeps_of_the_truth_the_items_of_a_value() {
    let brands = values("items.brand", &[None, Some("a"), Some("b"), Some("b"), Some("none")]);
    let frame = by_attribute(&[brands]);
    // Item 4 says itself that it has none, and item 9 is past the column.
    assert_eq!(slices_of(&frame, "items."), ["items.brand=b", "items.brand=a", "items.brand=none"]);
    equal(find(&frame, "fused", "recall", 2, "items.brand=b", "value"), (1.0 / 2.0 + 0.0) / 2.0);
    equal(find(&frame, "fused", "recall", 2, "items.brand=a", "value"), 1.0);
    equal(find(&frame, "fused", "recall", 2, "items.brand=none", "value"), (1.0 + 0.0) / 2.0);
    equal(find(&frame, "fused", "precision", 2, "items.brand=none", "value"), (0.5 + 0.0) / 2.0);
}

#[test]
fn a_users_attribute_keeps_the_users_of_a_value() {
    let frame = by_attribute(&[values("users.region", &[Some("north"), Some("south")])]);
    let expected = ["users.region=north", "users.region=south", "users.region=none"];
    assert_eq!(slices_of(&frame, "users."), expected);
    equal(find(&frame, "fused", "recall", 2, "users.region=north", "value"), 2.0 / 3.0);
    equal(find(&frame, "fused", "recall", 2, "users.region=south", "value"), 0.5);
    equal(find(&frame, "fused", "recall", 2, "users.region=none", "value"), 0.0);
}

#[test]
fn a_slice_of_too_few_users_is_counted_and_not_told() {
    let brands = || values("items.brand", &[None, Some("a"), Some("b"), Some("b"), Some("none")]);
    let all = of_at_least(0, &[brands()]);
    let (some, floor) = (slices_of(&all.frame, ""), of_at_least(2, &[brands()]));
    assert_eq!((all.withheld, floor.withheld), (0, 1), "brand a has one user");
    let told: Vec<String> = some.into_iter().filter(|name| name != "items.brand=a").collect();
    assert_eq!(slices_of(&floor.frame, ""), told);
    let most = of_at_least(4, &[brands()]);
    let n_slices = told.iter().filter(|name| *name != "all").count() + 1;
    assert_eq!((slices_of(&most.frame, ""), most.withheld), (vec!["all".to_owned()], n_slices));
}

#[test]
fn rare_values_share_a_slice_and_no_truth_is_lost() {
    // Value v has v users with one item each, so that the 20 most frequent are 3 to 22.
    let of_user: Vec<u32> =
        (1..=22u32).flat_map(|value| std::iter::repeat_n(value, value as usize)).collect();
    let cells: Vec<(u32, u32)> = (0..of_user.len() as u32).map(|user| (user, user % 5)).collect();
    let users: Vec<u32> = (0..of_user.len() as u32).collect();
    let truth = csr(users.len(), 5, &cells);
    let systems = [System { name: "fused".into(), lists: vec![vec![0]; users.len()], probabilities: None }];
    let names: Vec<String> = of_user.iter().map(u32::to_string).collect();
    let names: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_str())).collect();
    let inputs = Inputs {
        users: &users,
        truth: &truth,
        seen: &csr(users.len(), 5, &[]),
        popularity: &[0; 5],
        segments: &vec![0; users.len()],
        segment_names: &[],
        attributes: &[values("users.group", &names)],
        embeddings: None,
        eligible: &[true; 5],
        systems: &systems,
        min_users: 0,
    };
    let frame = evaluate(&inputs, &Config { ks: vec![1], ..Config::default() }, 7).unwrap().frame;
    let found = slices_of(&frame, "users.");
    assert_eq!((found.len(), found[0].as_str()), (21, "users.group=22"));
    assert_eq!(found[20], "users.group=other");
    let counts = frame.column("users").unwrap().u32().unwrap().clone();
    let slices = frame.column("slice").unwrap().str().unwrap().clone();
    let metrics = frame.column("metric").unwrap().str().unwrap().clone();
    let n_users: u32 = (0..frame.height())
        .filter(|at| metrics.get(*at) == Some("mrr") && slices.get(*at).unwrap().starts_with("users."))
        .map(|at| counts.get(at).unwrap())
        .sum();
    assert_eq!(n_users as usize, users.len());
}

#[test]
fn what_is_no_attribute_is_refused() {
    for (keys, found) in [
        ("slices = ['brand']", "expected a column as `items.COLUMN` or `users.COLUMN`; found `brand`"),
        ("slices = ['items.']", "found `items.`"),
        (
            "slices = ['items.a', 'items.a']",
            "`evaluation.slices`: expected each column once; found `items.a` twice",
        ),
    ] {
        let refused = toml::from_str::<Config>(keys).unwrap_err().to_string();
        assert!(refused.contains(found), "{refused}");
    }
    let config: Config = toml::from_str("slices = ['items.a.b']").unwrap();
    assert_eq!(config.slices, [Attribute { of: Side::Items, column: "a.b".to_owned() }]);
}

#[test]
fn calibrated_errors_by_hand() {
    // Three rows of user 0, the first a hit, and one of user 1, a hit; user 2's list has no probability.
    let truth = csr(3, 6, &[(0, 1), (1, 3), (2, 0)]);
    let probabilities = Some(vec![vec![0.5, 0.25, 0.125], vec![0.25], vec![]]);
    let lists = vec![vec![1, 2, 4], vec![3], vec![0, 1]];
    let systems = [System { name: "fused".into(), lists, probabilities }];
    let inputs = Inputs {
        users: &[0, 1, 2],
        truth: &truth,
        seen: &csr(3, 6, &[]),
        popularity: &[0; 6],
        segments: &[0; 3],
        segment_names: &[],
        attributes: &[],
        embeddings: None,
        eligible: &[true; 6],
        systems: &systems,
        min_users: 0,
    };
    let frame = evaluate(&inputs, &Config { ks: vec![1, 3], ..Config::default() }, 7).unwrap().frame;
    let value = |metric, k, column| find(&frame, "fused", metric, k, "all", column);
    equal(value("mae", 3, "value"), (0.5 + 0.25 + 0.125 + 0.75) / 4.0);
    let squared = (0.25 + 0.0625 + 0.015625 + 0.5625) / 4.0;
    equal(value("mse", 3, "value"), squared);
    equal(value("rmse", 3, "value"), squared.sqrt());
    // Half of the rows are hits: always saying a half is off by a half.
    equal(value("mae", 3, "baseline"), 0.5);
    equal(value("mse", 3, "baseline"), 0.25);
    equal(value("rmse", 3, "baseline"), 0.5);
    equal(value("mae", 1, "value"), (0.5 + 0.75) / 2.0);
    equal(value("mse", 1, "baseline"), 0.0);
    // Resamples draw users, with all of their rows: user 0 alone, user 1 alone, or a mixture.
    assert_eq!((value("mae", 3, "low"), value("mae", 3, "high")), (0.875 / 3.0, 0.75));
    let users = frame.column("users").unwrap().u32().unwrap().clone();
    let metrics = frame.column("metric").unwrap().str().unwrap().clone();
    let at = (0..frame.height()).find(|at| metrics.get(*at) == Some("mae")).unwrap();
    assert_eq!(users.get(at), Some(2));
}
