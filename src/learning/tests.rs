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
            let mut group = Group { scores: Vec::new(), relevant: Vec::new(), n_relevant: 5 };
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
    };
    // Order by score: 1, 2, 3, 4, 0; cut at 3: hits at ranks 2 and 3 of an ideal of three.
    let discount = |rank: f64| 1.0 / (rank + 1.0).log2();
    let expected = (discount(2.0) + discount(3.0)) / (discount(1.0) + discount(2.0) + discount(3.0));
    assert!((group.ndcg(&[1.0], 3, &mut Vec::new()) - expected).abs() < 1e-12);
    let nothing = Group { n_relevant: 0, relevant: vec![false; 5], ..group };
    assert_eq!(nothing.ndcg(&[1.0], 3, &mut Vec::new()), 0.0);
}

#[test]
fn signals_are_weighed_alike_and_noise_hardly() {
    let learned = learn(&groups(400), 3, &config());
    assert!(learned.weights[0] > 0.5 && learned.weights[1] > 0.5, "{:?}", learned.weights);
    assert!(learned.weights[2] < 0.3, "{:?}", learned.weights);
    assert!(learned.alone.iter().all(|alone| learned.ndcg > *alone), "{learned:?}");
    let largest = learned.weights.iter().copied().fold(0.0, f32::max);
    assert_eq!(largest, 1.0);
}

#[test]
fn what_is_learned_holds_for_other_users() {
    let all = groups(800);
    let (learn_from, other) = all.split_at(400);
    let learned = learn(learn_from, 3, &config());
    let ascent = Ascent { groups: other, n_sources: 3, k: 10 };
    assert!(ascent.ndcg(&learned.weights) > ascent.ndcg(&[1.0, 0.0, 0.0]));
    assert!(ascent.ndcg(&learned.weights) > ascent.ndcg(&[1.0, 1.0, 1.0]));
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
