use super::*;

/// Users whose items score `signal + noise` in the first two sources and noise alone in the third.
fn groups(n: usize) -> Vec<Group> {
    let mut state = 7u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f32 / (1u64 << 31) as f32 - 0.5
    };
    (0..n)
        .map(|_| {
            let mut group = Group { scores: Vec::new(), relevant: Vec::new(), n_relevant: 5, segment: 0 };
            for at in 0..60 {
                let signal = f32::from(at % 15 == 0);
                group.scores.extend([signal + noise() * 2.0, signal + noise() * 2.0, noise() * 2.0]);
                group.relevant.push(at % 15 == 0);
            }
            group
        })
        .collect()
}

fn config() -> Config {
    Config { k: 10, ..Config::default() }
}

#[test]
fn ndcg_is_its_definition() {
    let group = Group {
        scores: vec![0.1, 0.9, 0.5, 0.5, 0.2],
        relevant: vec![true, false, true, true, false],
        n_relevant: 4,
        segment: 0,
    };
    // Order by score: 1, 2, 3, 4, 0; cut at 3: hits at ranks 2 and 3 of an ideal of three.
    let discount = |rank: f64| 1.0 / (rank + 1.0).log2();
    let expected = (discount(2.0) + discount(3.0)) / (discount(1.0) + discount(2.0) + discount(3.0));
    let ndcg = |group: &Group| group.ndcg(|at| group.scores[at], 3, &mut Vec::new());
    assert!((ndcg(&group) - expected).abs() < 1e-12);
    let nothing = Group { n_relevant: 0, relevant: vec![false; 5], ..group };
    assert_eq!(ndcg(&nothing), 0.0);
}

#[test]
fn what_few_users_gain_is_not_clear() {
    assert!(!Gain::of(&[0.5]).is_clear() && !Gain::of(&[0.5; ENOUGH_USERS - 1]).is_clear());
    assert!(Gain::of(&[0.5; ENOUGH_USERS]).is_clear());
    assert!(!Gain::of(&[-0.5; ENOUGH_USERS]).is_clear());
}

#[test]
fn signals_are_weighed_alike_and_noise_hardly() {
    let learned = learn(&groups(400), 3, &config());
    let weights = &learned.mix.all;
    assert!(weights[0] > 0.5 && weights[1] > 0.5 && weights[2] < 0.3, "{weights:?}");
    assert!(learned.alone.iter().all(|alone| learned.ndcg > *alone), "{learned:?}");
    assert_eq!(weights.iter().copied().fold(0.0, f32::max), 1.0);
    assert!(learned.lift.gain.interval().0 > 0.0, "{:?}", learned.lift);
}

#[test]
fn what_is_learned_holds_for_other_users() {
    let all = groups(800);
    let (learn_from, other) = all.split_at(400);
    let learned = learn(learn_from, 3, &config());
    let other = Candidates::new(other.iter().collect(), 3, 10);
    assert!(other.ndcg(&learned.mix.all) > other.ndcg(&[1.0, 0.0, 0.0]));
    assert!(other.ndcg(&learned.mix.all) > other.ndcg(&[1.0, 1.0, 1.0]));
}

#[test]
fn threads_change_nothing() {
    let groups = groups(100);
    let learned = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| learn(&groups, 3, &config()))
    };
    assert_eq!(learned(1), learned(2));
}

#[test]
fn a_segment_of_another_taste_has_its_own_weights_and_one_of_the_same_has_not() {
    let mut groups = groups(1_200);
    for (at, group) in groups.iter_mut().enumerate() {
        group.segment = (at % 3) as u32;
        if group.segment == 2 {
            // Here the third source has the signal, and the first the noise.
            group.scores.chunks_exact_mut(3).for_each(|scores| scores.swap(0, 2));
        }
    }
    let learned = learn(&groups, 3, &Config { segment_users: 300, ..config() });
    let segments: Vec<u32> = learned.mix.segments.iter().map(|(segment, _)| *segment).collect();
    assert!(segments.contains(&2), "{segments:?}");
    let own = &learned.mix.segments.iter().find(|(segment, _)| *segment == 2).unwrap().1;
    assert!(own[2] > 2.0 * own[0], "{own:?}");
    let few = learn(&groups, 3, &Config { segment_users: 500, ..config() });
    assert!(few.mix.segments.is_empty(), "a small segment has everybody's");

    let same: Vec<Group> = self::groups(1_200)
        .into_iter()
        .enumerate()
        .map(|(at, group)| Group { segment: (at % 2) as u32, ..group })
        .collect();
    let learned = learn(&same, 3, &Config { segment_users: 300, ..config() });
    let weights = &learned.mix.all;
    for (_, own) in &learned.mix.segments {
        assert!(own.iter().zip(weights).all(|(own, all)| (own - all).abs() < 0.6), "{own:?} {weights:?}");
    }
}

#[test]
fn there_is_no_lift_where_one_source_knows_everything() {
    let mut groups = groups(400);
    for group in &mut groups {
        for (scores, relevant) in group.scores.chunks_exact_mut(3).zip(&group.relevant) {
            scores[1] = f32::from(*relevant);
        }
    }
    let learned = learn(&groups, 3, &config());
    assert_eq!(learned.lift.over, 1);
    assert!(learned.lift.gain.mean.abs() < 1e-9 && learned.ndcg > 0.8, "{learned:?}");
}

fn listed(rows: &[(f32, usize, bool)]) -> Vec<Listed> {
    rows.iter().map(|(score, rank, hit)| Listed { score: *score, rank: *rank, hit: *hit }).collect()
}

#[test]
fn calibration_by_hand() {
    // Two scores: the fit is each one's mean target, with 4 hits and 4 misses 5/6 and 1/6.
    let (mut low, mut high) = (vec![(0.0, 1, false); 4], vec![(1.0, 1, true); 4]);
    (low[0].2, high[0].2) = (true, false);
    let found = calibrate(&listed(&[low, high].concat())).unwrap();
    let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    close(found.probability(0.0, 1), (5.0 / 6.0 + 3.0 / 6.0) / 4.0);
    close(found.probability(1.0, 1), (15.0 / 6.0 + 1.0 / 6.0) / 4.0);
    // Ranks never differ, so that nothing is learned of them.
    close(found.ln_rank, 0.0);
}

#[test]
fn scores_that_tell_all_are_calibrated_to_something_finite() {
    let rows: Vec<_> = (0..100).map(|at| (at as f32, 1 + at % 7, at >= 50)).collect();
    let found = calibrate(&listed(&rows)).unwrap();
    let all = [found.intercept, found.score, found.ln_rank];
    assert!(all.iter().all(|value| value.is_finite()), "{found:?}");
    assert!(found.probability(99.0, 1) > 0.95 && found.probability(0.0, 1) < 0.05, "{found:?}");
}

#[test]
fn nothing_is_calibrated_by_hits_or_misses_alone() {
    assert_eq!(calibrate(&[]), None);
    assert_eq!(calibrate(&listed(&[(1.0, 1, true), (0.5, 2, true)])), None);
    assert_eq!(calibrate(&listed(&[(1.0, 1, false), (0.5, 2, false)])), None);
}

#[test]
fn what_made_the_outcomes_is_found_again() {
    let truth = Calibration { intercept: -1.5, score: 0.8, ln_rank: -0.4 };
    let mut state = 11u64;
    let mut uniform = || {
        state = crate::random::split_mix(state);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let rows: Vec<Listed> = (0..40_000)
        .map(|at| {
            let (score, rank) = ((4.0 * uniform() - 1.0) as f32, 1 + at % 20);
            Listed { score, rank, hit: uniform() < truth.probability(score, rank) }
        })
        .collect();
    let found = calibrate(&rows).unwrap();
    for (found, made) in
        [(found.intercept, truth.intercept), (found.score, truth.score), (found.ln_rank, truth.ln_rank)]
    {
        assert!((found - made).abs() < 0.08, "{found} for {made}");
    }
    // The first normal equation: probabilities sum to the outcomes, but for their being drawn in.
    let expected: f64 = rows.iter().map(|row| found.probability(row.score, row.rank)).sum();
    let hits = rows.iter().filter(|row| row.hit).count() as f64;
    assert!((expected - hits).abs() < 2.0, "{expected} {hits}");
}
