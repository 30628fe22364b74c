use super::*;
use proptest::prelude::*;

/// Cells of a small matrix, each given once, with weights between 0.1 and 5.
fn cells() -> impl Strategy<Value = (usize, usize, Vec<(u32, u32, f32)>)> {
    (1usize..24, 1usize..24).prop_flat_map(|(n_users, n_items)| {
        let cell = (0..n_users as u32, 0..n_items as u32, 0.1f32..5.0);
        proptest::collection::vec(cell, 0..160).prop_map(move |mut cells| {
            cells.sort_by_key(|cell| (cell.0, cell.1));
            cells.dedup_by_key(|cell| (cell.0, cell.1));
            (n_users, n_items, cells)
        })
    })
}

fn csr(n_users: usize, n_items: usize, cells: &[(u32, u32, f32)]) -> Csr {
    let users: Vec<u32> = cells.iter().map(|cell| cell.0).collect();
    let items: Vec<u32> = cells.iter().map(|cell| cell.1).collect();
    let weights: Vec<f32> = cells.iter().map(|cell| cell.2).collect();
    Csr::from_coordinates(n_users, n_items, &users, &items, &weights).unwrap()
}

/// A seeded matrix in which about `per_user` of the items were observed for each user.
fn seeded(n_users: usize, n_items: usize, per_user: usize) -> Csr {
    let mut state = 7u64;
    let mut cells = Vec::new();
    for user in 0..n_users as u32 {
        for item in 0..n_items as u32 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            if (state >> 33) as usize % n_items < per_user {
                cells.push((user, item, 0.5 + (state >> 60) as f32 / 8.0));
            }
        }
    }
    csr(n_users, n_items, &cells)
}

/// Rows to start from for these entities.
fn started(order: &[u32], rank: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut rows = vec![0f32; order.len() * dim];
    start::normal(&mut rows, order, rank, dim, seed);
    rows
}

fn run(interactions: &Csr, config: &Config) -> Factors {
    factorize(interactions, config, Start::Drawn, 1, &mut |_| {}).unwrap()
}

fn score(factors: &Factors, user: usize, item: usize) -> f64 {
    let pairs = factors.users.row(user).iter().zip(factors.items.row(item));
    pairs.map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}

/// The textbook: the objective of every pair, one after another.
fn naive_objective(interactions: &Csr, factors: &Factors, config: &Config) -> Objective {
    let mut sum = Objective { observed: 0.0, unobserved: 0.0, regularization: 0.0 };
    for user in 0..interactions.n_rows() {
        let (items, weights) = interactions.row(user);
        for item in 0..interactions.n_cols() {
            let fit = score(factors, user, item);
            sum.unobserved += config.unobserved_weight * fit * fit;
            if let Ok(at) = items.binary_search(&(item as u32)) {
                sum.observed += f64::from(weights[at]) * (1.0 - fit) * (1.0 - fit);
            }
        }
    }
    for (rows, factors) in [(interactions, &factors.users), (&interactions.transpose(), &factors.items)] {
        for at in 0..rows.n_rows() {
            let norm: f64 = factors.row(at).iter().map(|&v| f64::from(v) * f64::from(v)).sum();
            sum.regularization += config.regularization_of(rows.row(at).0.len(), rows.n_used().1) * norm;
        }
    }
    sum
}

/// The textbook: the normal equations of every row for fixed other factors, by elimination in f64.
fn naive_half(rows: &Csr, fixed: &Dense, config: &Config) -> Vec<Vec<f64>> {
    let rank = fixed.n_cols();
    let wide = |at: usize| -> Vec<f64> { fixed.row(at).iter().map(|&v| f64::from(v)).collect() };
    let mut shared = vec![vec![0f64; rank]; rank];
    for col in 0..fixed.n_rows() {
        let y = wide(col);
        for (i, line) in shared.iter_mut().enumerate() {
            line.iter_mut()
                .zip(&y)
                .for_each(|(cell, right)| *cell += config.unobserved_weight * y[i] * right);
        }
    }
    let solve = |at: usize| {
        let (cols, weights) = rows.row(at);
        // Their right-hand side is zero; where there is no entry at all, so is the system.
        if cols.is_empty() {
            return vec![0.0; rank];
        }
        let mut system = vec![vec![0f64; rank + 1]; rank];
        for (i, line) in system.iter_mut().enumerate() {
            line[..rank].copy_from_slice(&shared[i]);
            line[i] += config.regularization_of(cols.len(), n_nonzero(fixed));
        }
        let mut add = |y: &[f64], weight: f64| {
            for (i, line) in system.iter_mut().enumerate() {
                for j in 0..rank {
                    line[j] += weight * y[i] * y[j];
                }
                line[rank] += weight * y[i];
            }
        };
        for (&col, &weight) in cols.iter().zip(weights) {
            add(&wide(col as usize), f64::from(weight));
        }
        for i in 0..rank {
            let pivot = system[i].clone();
            for line in system.iter_mut().skip(i + 1) {
                let share = line[i] / pivot[i];
                line.iter_mut().zip(&pivot).for_each(|(cell, p)| *cell -= share * p);
            }
        }
        let mut x = vec![0f64; rank];
        for i in (0..rank).rev() {
            let known: f64 = (i + 1..rank).map(|j| system[i][j] * x[j]).sum();
            x[i] = (system[i][rank] - known) / system[i][i];
        }
        x
    };
    (0..rows.n_rows()).map(solve).collect()
}

/// Items returned are the exact answer to the users returned.
#[track_caller]
fn check_items_solve(interactions: &Csr, config: &Config, tolerance: f64) {
    let factors = run(interactions, config);
    let transposed = interactions.transpose();
    let exact = naive_half(&transposed, &factors.users, config);
    let largest = exact.iter().flatten().fold(0.0f64, |top, value| top.max(value.abs()));
    for (item, exact) in exact.iter().enumerate() {
        for (&found, &exact) in factors.items.row(item).iter().zip(exact) {
            let off = (f64::from(found) - exact).abs();
            assert!(off <= tolerance * largest, "item {item}: {found} for {exact}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn items_solve_the_normal_equations((n_users, n_items, cells) in cells(), rank in 1usize..20) {
        let config = Config { rank, iterations: 60, regularization: 0.05, ..Config::default() };
        check_items_solve(&csr(n_users, n_items, &cells), &config, 2e-3);
    }

    #[test]
    fn the_objective_never_rises_and_is_the_textbook_one(
        (n_users, n_items, cells) in cells(),
        rank in 1usize..40,
        exponent in prop::sample::select(vec![0.0, 0.5, 1.0]),
    ) {
        let interactions = csr(n_users, n_items, &cells);
        let config = Config { rank, regularization_exponent: exponent, ..Config::default() };
        let mut last = f64::INFINITY;
        let mut sweeps = 0;
        let factors = factorize(&interactions, &config, Start::Drawn, 3, &mut |sweep| {
            let total = sweep.objective.total();
            assert!(total <= last * (1.0 + 1e-5) + 1e-6, "sweep {}: {last} to {total}", sweep.number);
            last = total;
            sweeps += 1;
            assert_eq!((sweep.number, sweep.of), (sweeps, 16));
        }).unwrap();
        prop_assert_eq!(sweeps, 16);
        let naive = naive_objective(&interactions, &factors, &config);
        for (found, expected) in [
            (factors.objective.observed, naive.observed),
            (factors.objective.unobserved, naive.unobserved),
            (factors.objective.regularization, naive.regularization),
        ] {
            prop_assert!((found - expected).abs() <= 1e-9 * (1.0 + expected), "{} for {}", found, expected);
        }
        prop_assert!((last - naive.total()).abs() <= 1e-4 * (1.0 + naive.total()));
    }

    #[test]
    fn what_nobody_touched_is_exactly_zero((n_users, n_items, cells) in cells()) {
        let interactions = csr(n_users, n_items, &cells);
        let factors = run(&interactions, &Config { rank: 5, iterations: 2, ..Config::default() });
        let transposed = interactions.transpose();
        for (rows, factors) in [(&interactions, &factors.users), (&transposed, &factors.items)] {
            for at in 0..rows.n_rows() {
                let empty = rows.row(at).0.is_empty();
                prop_assert_eq!(empty, factors.row(at).iter().all(|&value| value == 0.0));
            }
        }
    }

    #[test]
    fn products_of_rows_match_the_textbook(n_rows in 0usize..70, blocks in 1usize..7, seed in 0u64..1000) {
        let dim = blocks * kernels::LANES;
        let order: Vec<u32> = (0..n_rows.max(dim) as u32).collect();
        let rows = started(&order[..n_rows], dim, dim, seed);
        let turn = started(&order[..dim], dim, dim, seed + 1);
        let mut gram = vec![0f64; dim * dim];
        kernels::add_gram(&rows, dim, &mut gram);
        let mut turned = rows.clone();
        kernels::Panels::new(&turn, dim).multiply_in_place(&mut turned, &mut Vec::new());
        for j in 0..dim {
            for i in 0..=j {
                let exact: f64 =
                    rows.chunks_exact(dim).map(|row| f64::from(row[i]) * f64::from(row[j])).sum();
                prop_assert!((gram[i * dim + j] - exact).abs() < 1e-6);
            }
            for (row, turned) in rows.chunks_exact(dim).zip(turned.chunks_exact(dim)) {
                let exact: f64 =
                    row.iter().enumerate().map(|(k, &v)| f64::from(v) * f64::from(turn[k * dim + j])).sum();
                prop_assert!((f64::from(turned[j]) - exact).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn one_interaction_at_a_high_rank_stays_in_range() {
    let config = Config { rank: 38, iterations: 100, regularization_exponent: 0.5, ..Config::default() };
    let factors = run(&csr(2, 1, &[(0, 0, 0.1)]), &config);
    let of_zeros = f64::from(0.1f32);
    let found = factors.objective.total();
    assert!(found < of_zeros, "{found} for {of_zeros}");
}

#[test]
fn rows_too_long_to_pack_solve_the_same_equations() {
    let n_users = 270_000;
    assert!(n_users * kernels::LANES > sweep::PACKED);
    let config = Config { rank: 2, iterations: 6, ..Config::default() };
    check_items_solve(&seeded(n_users, 2, 1), &config, 1e-3);
}

#[test]
fn a_missing_pair_inside_a_block_scores_high_and_outside_low() {
    let mut cells = Vec::new();
    for user in 0..20u32 {
        for item in 0..20u32 {
            if user / 10 == item / 10 && (user, item) != (3, 4) {
                cells.push((user, item, 1.0));
            }
        }
    }
    let factors = run(&csr(20, 20, &cells), &Config { rank: 2, ..Config::default() });
    assert!(score(&factors, 3, 4) > 0.7, "{}", score(&factors, 3, 4));
    assert!(score(&factors, 3, 14).abs() < 0.05, "{}", score(&factors, 3, 14));
    assert!(score(&factors, 15, 14) > 0.8, "{}", score(&factors, 15, 14));
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let interactions = seeded(900, 300, 30);
    let config = Config { rank: 24, iterations: 4, ..Config::default() };
    let on = |n_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| run(&interactions, &config))
    };
    let alone = on(1);
    assert_eq!(alone, on(3));
    assert_eq!(alone, run(&interactions, &config));
    assert_ne!(alone, factorize(&interactions, &config, Start::Drawn, 2, &mut |_| {}).unwrap());
}

#[test]
fn the_order_of_the_input_does_not_matter() {
    let interactions = seeded(60, 40, 10);
    let mut cells = Vec::new();
    for user in 0..60 {
        let (items, weights) = interactions.row(user);
        cells.extend(items.iter().zip(weights).map(|(&item, &weight)| (user as u32, item, weight)));
    }
    let config = Config { rank: 8, iterations: 6, ..Config::default() };
    let factors = run(&interactions, &config);
    cells.sort_by_key(|cell| (cell.0 * 37 + cell.1 * 11) % 101);
    assert_eq!(factors, run(&csr(60, 40, &cells), &config));
    // Users under other numbers get the same scores, up to the order of sums.
    cells.iter_mut().for_each(|cell| cell.0 = 59 - cell.0);
    let renamed = run(&csr(60, 40, &cells), &config);
    for user in 0..60 {
        for item in 0..40 {
            assert!((score(&factors, user, item) - score(&renamed, 59 - user, item)).abs() < 1e-3);
        }
    }
}

#[test]
fn longer_steps_do_better_than_plain_ones() {
    let interactions = seeded(300, 200, 12);
    let config = Config { rank: 16, iterations: 2, ..Config::default() };
    let regularization = |n, other| config.regularization_of(n, other);
    let (user_side, item_side) = side::both(&interactions, interactions.n_used(), regularization);
    let total = |relaxation: f32| {
        let mut users = vec![0f32; user_side.len() * 16];
        let mut items = started(&item_side.order, 16, 16, 1);
        let mut total = 0.0;
        for number in 0..10 {
            let relaxation = if number < 2 { 1.0 } else { relaxation };
            let settings = sweep::Settings { rank: 16, dim: 16, unobserved_weight: 0.1, relaxation };
            let x = sweep::half(&user_side, &mut items, &mut users, settings).unwrap();
            let y = sweep::half(&item_side, &mut users, &mut items, settings).unwrap();
            total = y.observed + 0.1 * y.all + x.regularization + y.regularization;
        }
        total
    };
    assert!(total(RELAXATION) < 0.999 * total(1.0), "{} and {}", total(RELAXATION), total(1.0));
}

#[test]
fn nothing_observed_gives_zeros() {
    for (n_users, n_items) in [(3, 2), (0, 2), (2, 0), (0, 0)] {
        let factors = run(&csr(n_users, n_items, &[]), &Config::default());
        assert_eq!(factors.users, Dense::zeros(n_users, 64));
        assert_eq!(factors.items, Dense::zeros(n_items, 64));
        assert_eq!(factors.objective.total(), 0.0);
    }
}

#[test]
fn weights_that_are_not_above_zero_are_refused() {
    for weight in [0.0, -1.5] {
        let interactions = csr(3, 3, &[(0, 0, 1.0), (1, 2, weight)]);
        let refused = factorize(&interactions, &Config::default(), Start::Drawn, 1, &mut |_| {}).unwrap_err();
        assert_eq!(refused, Error::Weight { user: 1, item: 2, weight });
    }
}

#[test]
fn overflow_is_an_error_and_not_an_output() {
    let interactions = csr(2, 2, &[(0, 0, 3e38), (0, 1, 3e38), (1, 0, 1e-30)]);
    let config = Config { regularization: 1e-40, regularization_exponent: 0.0, ..Config::default() };
    let refused = factorize(&interactions, &config, Start::Drawn, 1, &mut |_| {}).unwrap_err();
    assert_eq!(refused, Error::NotFinite { sweep: 1, of: 16 });
}

#[test]
fn configurations_say_what_is_wrong_with_them() {
    assert_eq!(toml::from_str::<Keys>("").unwrap(), Keys::default());
    assert_eq!(toml::from_str::<Keys>("rank = 8").unwrap(), Keys { rank: Some(8), ..Keys::default() });
    for (text, message) in [
        ("rank = 0", "`rank` is 0, expected an integer from 1 to 512"),
        ("iterations = 0", "`iterations` is 0, expected an integer from 1 to 1000"),
        ("regularization = 0.0", "`regularization` is 0, expected a number above 0"),
        ("unobserved_weight = nan", "`unobserved_weight` is NaN, expected a number above 0"),
        ("regularization_exponent = 3.0", "`regularization_exponent` is 3, expected a number from 0 to 2"),
        ("ranks = 8", "unknown field `ranks`"),
    ] {
        let refused = toml::from_str::<Keys>(text).unwrap_err().to_string();
        assert!(refused.contains(message), "{refused}");
    }
    let config = Config { rank: 513, ..Config::default() };
    let refused = factorize(&csr(1, 1, &[]), &config, Start::Drawn, 1, &mut |_| {}).unwrap_err();
    let expected = "an integer from 1 to 512";
    assert_eq!(refused, Error::Config(ConfigError { key: "rank", expected, found: 513.0 }));
}

#[test]
fn the_start_is_normal_and_drawn_by_index() {
    let rows = started(&(0..2000).collect::<Vec<_>>(), 25, 32, 5);
    let drawn: Vec<f64> =
        rows.chunks_exact(32).flat_map(|row| &row[..25]).map(|&value| f64::from(value) / 0.02).collect();
    let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
    let spread = drawn.iter().map(|value| value * value).sum::<f64>() / drawn.len() as f64;
    assert!(mean.abs() < 0.02 && (spread - 1.0).abs() < 0.02, "{mean} {spread}");
    assert!(rows.chunks_exact(32).all(|row| row[25..].iter().all(|&value| value == 0.0)));
    assert_eq!(started(&[1999, 4], 25, 32, 5)[32..], rows[4 * 32..5 * 32]);
}

#[test]
fn what_a_job_leaves_open_follows_the_data() {
    let interactions =
        Csr::from_coordinates(4, 10, &[0, 1, 2, 3], &[0, 1, 1, 2], &[2.0, 4.0, 1.0, 3.0]).unwrap();
    let config = Keys::default().config(&interactions);
    // Ten units of weight, four users by the three items that anybody turned to: all pairs together weigh a hundred.
    assert!((config.unobserved_weight - 100.0 / 12.0).abs() < 1e-12, "{config:?}");
    assert!((config.regularization - 0.01 * 10.0 / (4.0 + 100.0)).abs() < 1e-12, "{config:?}");
    let given: Keys = toml::from_str("unobserved_weight = 0.5\nregularization = 0.25").unwrap();
    let config = given.config(&interactions);
    assert_eq!((config.unobserved_weight, config.regularization), (0.5, 0.25));
    let nothing = Csr::from_coordinates(3, 3, &[], &[], &[]).unwrap();
    let factors =
        factorize(&nothing, &Keys::default().config(&nothing), Start::Drawn, 1, &mut |_| {}).unwrap();
    assert!(factors.users.values().iter().all(|value| *value == 0.0));
}

#[test]
fn a_warm_start_needs_a_quarter_of_the_sweeps() {
    let config = Config { rank: 16, ..Config::default() };
    let after = seeded(320, 210, 12);
    // A day earlier: a tenth of the entries, the last users and the last items are still to come.
    let mut cells = Vec::new();
    for user in 0..300 {
        let (items, weights) = after.row(user);
        let entries = items.iter().zip(weights).filter(|(item, _)| **item < 200);
        cells.extend(entries.map(|(item, weight)| (user as u32, *item, *weight)));
    }
    let cells: Vec<_> =
        cells.into_iter().enumerate().filter(|(at, _)| at % 10 > 0).map(|cell| cell.1).collect();
    let known = run(&csr(300, 200, &cells), &config);
    // What is new has no factor yet.
    let grown = |factors: &Dense, n_rows: usize| {
        let mut rows = factors.values().to_vec();
        rows.resize(n_rows * 16, 0.0);
        Dense::from_vec(n_rows, 16, rows).unwrap()
    };
    let (users, items) = (grown(&known.users, 320), grown(&known.items, 210));
    let start = Start::Warm { users: &users, items: &items };
    let warm = factorize(&after, &config.warmed(), start, 1, &mut |_| {}).unwrap().objective.total();
    let (cold, few) =
        (run(&after, &config).objective.total(), run(&after, &config.warmed()).objective.total());
    assert!(warm < 1.02 * cold, "{warm} after 4 warm sweeps, {cold} after 16 cold ones");
    assert!(few > warm, "{few} after 4 cold sweeps");
}

#[test]
fn a_warm_start_at_the_solution_stays_there() {
    let config = Config { rank: 8, iterations: 200, regularization: 0.05, ..Config::default() };
    let interactions = seeded(80, 60, 9);
    let known = run(&interactions, &config);
    let start = Start::Warm { users: &known.users, items: &known.items };
    let again = factorize(&interactions, &Config { iterations: 1, ..config }, start, 9, &mut |_| {}).unwrap();
    let (before, after) = (known.objective.total(), again.objective.total());
    assert!((before - after).abs() < 1e-6 * before, "{before} and {after}");
}

#[test]
fn users_are_folded_in_for_items_that_stay() {
    let config = Config { rank: 12, regularization: 0.05, ..Config::default() };
    let items = run(&seeded(200, 90, 10), &config).items;
    // Other users, who turned to some of the items only.
    let newcomers = seeded(40, 90, 4);
    let folded = factorize(&newcomers, &config, Start::Fixed(&items), 1, &mut |_| {}).unwrap();
    assert_eq!(folded.items, items, "they stay");
    let exact = naive_half(&newcomers, &items, &config);
    for (user, exact) in exact.iter().enumerate() {
        for (found, exact) in folded.users.row(user).iter().zip(exact) {
            assert!((f64::from(*found) - exact).abs() < 1e-4, "user {user}: {found} for {exact}");
        }
    }
    let short = Dense::zeros(89, 12);
    let refused = factorize(&newcomers, &config, Start::Fixed(&short), 1, &mut |_| {}).unwrap_err();
    assert_eq!(refused, Error::Start { expected: (90, 12), found: (89, 12) });
}
