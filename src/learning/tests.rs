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

#[test]
fn calibration_finds_the_odds_that_outcomes_were_drawn_by() {
    let truth = Calibration { intercept: -2.0, slope: 0.7 };
    let rows: Vec<(f32, bool)> = (0..40_000u64)
        .map(|at| {
            let score = (at % 80) as f32 / 10.0 - 4.0;
            let drawn = crate::random::split_mix(at) as f64 / u64::MAX as f64;
            (score, drawn < truth.probability(f64::from(score)))
        })
        .collect();
    let found = Calibration::fit(&rows);
    assert!((found.intercept + 2.0).abs() < 0.05 && (found.slope - 0.7).abs() < 0.03, "{found:?}");
    let never = Calibration::fit(&[(1.0, false), (2.0, false), (3.0, false)]);
    assert!(never.probability(2.0) < 0.5 && never.slope.is_finite());
}
