use super::*;

fn trial(block: &Block, values: Vec<f64>, gain: f64) -> Trial {
    Trial { block: block.name.to_owned(), values, gain, kept: gain > 0.0 }
}

/// Runs a search whose worth only `walk_alpha` decides, best at 0.9.
fn search(seed: u64) -> Vec<Trial> {
    let worth = |alpha: f64| -(alpha - 0.9).powi(2);
    let (mut trials, mut best) = (Vec::new(), worth(0.1));
    let own = |key: &Key| Some(if key.name == "linear.walk_alpha" { 0.1 } else { 0.5 });
    while let Some((block, values)) = propose(&trials, |block| block.name == "walk", own, seed).unwrap() {
        let gain = worth(values[0]) - best;
        best = best.max(best + gain);
        trials.push(trial(block, values, gain));
    }
    trials
}

#[test]
fn a_search_finds_what_is_better_and_ends() {
    for seed in 0..5 {
        let trials = search(seed);
        let best = trials.iter().rfind(|trial| trial.kept).expect("something was better").values[0];
        assert!((best - 0.9).abs() < 0.3, "seed {seed}: {best} of {}", trials.len());
        assert!(trials.len() >= PATIENCE && trials.len() < 100);
        assert!(trials[trials.len() - PATIENCE..].iter().all(|trial| !trial.kept));
    }
}

#[test]
fn the_same_seed_proposes_the_same_and_a_search_goes_on_where_it_stopped() {
    let whole = search(3);
    assert_eq!(whole, search(3));
    assert_ne!(whole, search(4));
    let own = |key: &Key| Some(if key.name == "linear.walk_alpha" { 0.1 } else { 0.5 });
    let next = propose(&whole[..4], |block| block.name == "walk", own, 3).unwrap().unwrap();
    assert_eq!(next.1, whole[4].values);
}

#[test]
fn blocks_take_turns_and_a_model_that_is_not_there_has_none() {
    let mut trials = Vec::new();
    for _ in 0..2 * (BLOCKS.len() - 1) {
        let (block, values) = propose(&trials, |block| block.name != "ease", |_| None, 1).unwrap().unwrap();
        assert_eq!(values.len(), block.keys.len());
        trials.push(trial(block, values, -1.0));
    }
    for block in &BLOCKS {
        let n_trials = trials.iter().filter(|trial| trial.block == block.name).count();
        assert_eq!(n_trials, if block.name == "ease" { 0 } else { 2 }, "{}", block.name);
    }
}

#[test]
fn values_stay_in_range_and_are_short() {
    for key in BLOCKS.iter().flat_map(|block| block.keys) {
        for step in 0..=100 {
            let value = key.value(f64::from(step) / 100.0);
            assert!((key.from..=key.to).contains(&value), "{} {value}", key.name);
            assert!(key.text(value).len() <= 7, "{} {}", key.name, key.text(value));
            assert!((key.value(key.place(value)) - value).abs() <= 1e-9 * value, "{} {value}", key.name);
        }
        assert_eq!(key.place(f64::MAX), 1.0, "a job may lie outside");
    }
}
