use super::*;

fn day(day: u32) -> Day {
    Day(NaiveDate::from_ymd_opt(2026, 11, day).unwrap())
}

/// A quiet shop: 1,000 purchases and 4,000 views a day from the 1st on.
fn night(last: u32) -> Measured {
    let of_day = BTreeMap::from([("purchase".to_owned(), 1_000), ("view".to_owned(), 4_000)]);
    let mut scores = Histogram::default();
    (0..1_000).for_each(|at| scores.add(f64::from(at) / 100.0 - 2.0));
    let metric = |value: f64| {
        Some(Metric { name: "ndcg@10".to_owned(), value, low: value - 0.01, high: value + 0.01 })
    };
    Measured {
        run_id: format!("night-2026-11-{last:02}-1"),
        events: u64::from(last) * 5_000,
        rejected_share: 0.01,
        days: (1..=last).map(|at| (day(at), of_day.clone())).collect(),
        complete_until: Some(day(last)),
        age_days: 0.1,
        users: 1_000,
        rows: 20_000,
        items_listed: 500,
        items: 800,
        popularity: scores.clone(),
        spread_scores: scores,
        metric: metric(0.2),
        baseline: metric(0.1),
    }
}

fn compared() -> Compared {
    Compared { users: 900, overlap: Some(0.8), drift: Some(0.01) }
}

#[track_caller]
fn broken(tonight: &Measured, compared: &Compared) -> Vec<Finding> {
    let before = night(20);
    let mut findings = judge(tonight, Some((&before, compared)), &Config::default());
    assert!(findings.iter().all(|finding| NAMES.contains(&finding.name.as_str())));
    findings.retain(|finding| !finding.holds);
    findings
}

#[track_caller]
fn breaks(tonight: &Measured, compared: &Compared, expected: &str) {
    let broken = broken(tonight, compared);
    assert_eq!(broken.len(), 1, "{broken:?}");
    assert_eq!(broken[0].to_string(), expected);
}

#[test]
fn a_night_like_the_last_one_breaks_no_limit() {
    assert_eq!(broken(&night(21), &compared()), []);
    assert_eq!(judge(&night(21), None, &Config::default()).len(), 4);
    // Every name is looked at once all limits are set.
    let config = Config { max_age_days: Some(Amount(1.0)), ..Config::default() };
    let found = judge(&night(21), Some((&night(20), &compared())), &config);
    let mut names: Vec<&str> = found.iter().map(|finding| finding.name.as_str()).collect();
    names.sort();
    names.dedup();
    let mut all = NAMES;
    all.sort();
    assert_eq!(names, all);
}

#[test]
fn each_limit_is_broken_by_its_own_fault() {
    let tonight = Measured { events: 79_000, ..night(21) };
    let expected = "events: events that count 79000, before 100000; expected at least 80000 (gate.max_events_drop = 0.2)";
    breaks(&tonight, &compared(), expected);
    let tonight = Measured { rejected_share: 0.05, ..night(21) };
    let expected = "rejected: share of events rejected 0.0500, before 0.0100; expected at most 0.0300 (gate.max_rejected_rise = 0.02)";
    breaks(&tonight, &compared(), expected);
    let tonight = Measured { users: 800, rows: 16_000, ..night(21) };
    let expected =
        "users: users with a list 800, before 1000; expected at least 900 (gate.max_users_drop = 0.1)";
    breaks(&tonight, &compared(), expected);
    let tonight = Measured { items: 100, ..night(21) };
    assert_eq!(broken(&tonight, &compared())[0].name, "items");
    let tonight = Measured { items_listed: 300, ..night(21) };
    assert_eq!(broken(&tonight, &compared())[0].name, "coverage");
    let tonight = Measured { rows: 10_000, ..night(21) };
    let expected = "length: rows a list 10, before 20; expected at least 18 (gate.max_length_drop = 0.1)";
    breaks(&tonight, &compared(), expected);
    let expected = "overlap: overlap of the first 10 items of 900 users 0.1000; expected at least 0.2000 (gate.min_overlap = 0.2)";
    breaks(&night(21), &Compared { overlap: Some(0.1), ..compared() }, expected);
    assert_eq!(broken(&night(21), &Compared { drift: Some(0.5), ..compared() })[0].name, "drift");
}

#[test]
fn a_metric_falls_only_where_chance_is_ruled_out() {
    let metric = |value: f64, half: f64| Measured {
        metric: Some(Metric { name: "ndcg@10".to_owned(), value, low: value - half, high: value + half }),
        ..night(21)
    };
    assert_eq!(broken(&metric(0.17, 0.005), &compared())[0].name, "metric");
    assert_eq!(broken(&metric(0.17, 0.05), &compared()), [], "intervals meet");
    assert_eq!(broken(&metric(0.185, 0.001), &compared()), [], "no tenth less");
    let worse = Measured {
        baseline: Some(Metric { name: "ndcg@10".to_owned(), value: 0.3, low: 0.29, high: 0.31 }),
        ..night(21)
    };
    assert_eq!(broken(&worse, &compared())[0].name, "baseline");
    let first: Vec<Finding> =
        judge(&worse, None, &Config::default()).into_iter().filter(|finding| !finding.holds).collect();
    assert_eq!(first.len(), 1, "a first night has absolute limits");
}

#[test]
fn a_day_that_half_came_is_found_by_type_and_a_quiet_weekday_is_not() {
    let with = |change: &dyn Fn(&mut Measured)| {
        let mut tonight = night(21);
        change(&mut tonight);
        tonight
    };
    let set = |tonight: &mut Measured, at: u32, kind: &str, n: u64| {
        tonight.days.entry(day(at)).or_default().insert(kind.to_owned(), n);
    };
    let tonight = with(&|tonight| set(tonight, 21, "purchase", 500));
    let expected = "volume: purchase events of 2026-11-21 500, before 1000; expected at least 600 (gate.max_day_drop = 0.4)";
    breaks(&tonight, &compared(), expected);
    let tonight = with(&|tonight| set(tonight, 9, "view", 0));
    let expected =
        "volume: view events of 2026-11-09 0, before 4000; expected at least 2400 (gate.max_day_drop = 0.4)";
    breaks(&tonight, &compared(), expected);
    // The feed has stopped.
    let tonight = with(&|tonight| {
        tonight.days.remove(&day(21));
    });
    assert_eq!(broken(&tonight, &compared()).len(), 2);
    // The day is not over.
    let tonight = with(&|tonight| {
        tonight.days.remove(&day(21));
        tonight.complete_until = Some(day(20));
    });
    assert_eq!(broken(&tonight, &compared()), []);
    // The shop was closed on this weekday the week before, too.
    let before = with(&|before| {
        before.days.retain(|at, _| *at <= day(20) && *at != day(14));
        before.complete_until = Some(day(20));
    });
    let tonight = with(&|tonight| tonight.days.retain(|at, _| *at != day(14) && *at != day(21)));
    let findings = judge(&tonight, Some((&before, &compared())), &Config::default());
    assert!(findings.iter().all(|finding| finding.holds || finding.name == "events"), "{findings:?}");
}

#[test]
fn distributions_that_move_have_a_psi_and_equal_ones_none() {
    let of = |shift: f64, scale: f64| {
        let mut histogram = Histogram::default();
        // The quantiles of a logistic distribution.
        (1..2_000)
            .map(|at| f64::from(at) / 2_000.0)
            .for_each(|p| histogram.add(shift + scale * (p / (1.0 - p)).ln()));
        histogram
    };
    let (same, moved, wide) = (of(3.0, 1.0), of(4.0, 1.0), of(3.0, 3.0));
    assert!(same.psi(&same).unwrap() < 1e-9);
    assert!(moved.psi(&same).unwrap() > 0.25, "{:?}", moved.psi(&same));
    assert!(wide.psi(&same).unwrap() > 0.25, "{:?}", wide.psi(&same));
    assert!(of(3.05, 1.0).psi(&same).unwrap() < 0.02, "{:?}", of(3.05, 1.0).psi(&same));
    assert_eq!(same.psi(&Histogram::default()), None);
    let text = serde_json::to_string(&moved).unwrap();
    assert_eq!(serde_json::from_str::<Histogram>(&text).unwrap(), moved);
}

#[test]
fn scores_that_are_all_larger_are_distributed_as_before() {
    let of = |scale: f32, shift: f32| {
        let scores = || (1..=2_000u16).map(move |at| (f32::from(at).ln() - 3.0 + shift) * scale);
        let mut spread = Spread::default();
        scores().for_each(|score| spread.add(f64::from(score)));
        let mut histogram = Histogram::default();
        scores().for_each(|score| histogram.add(f64::from(score) / spread.unit()));
        histogram
    };
    let before = of(1.0, 0.0);
    for scale in [0.001, 0.37, 3.0, 812.5] {
        let psi = of(scale, 0.0).psi(&before).unwrap();
        assert!(psi < 1e-3, "{scale}: {psi}");
    }
    assert!(of(1.0, 2.0).psi(&before).unwrap() > 0.25, "another distribution is told");
    assert_eq!(Spread::default().unit(), 1.0);
}
