use super::*;

fn shop() -> (Csr, Vec<u32>) {
    // Two groups of items; users stay inside one of them, but for a few.
    let (mut users, mut items, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for user in 0..60u32 {
        let group = user % 2;
        for k in 0..6 {
            let item = group * 15 + (user * 7 + k * 5 + k * k) % 15;
            if !users.iter().zip(&items).any(|pair| pair == (&user, &item)) {
                users.push(user);
                items.push(item);
                steps.push(k);
            }
        }
        if user % 10 == 0 {
            users.push(user);
            items.push(29 - group * 15);
            steps.push(6);
        }
    }
    let ones = vec![1f32; users.len()];
    let interactions = Csr::from_coordinates(60, 30, &users, &items, &ones).unwrap();
    let aligned = (0..60)
        .flat_map(|user| {
            let row = interactions.row(user as usize).0;
            row.iter().map(move |item| (user, *item)).collect::<Vec<_>>()
        })
        .map(|cell| steps[users.iter().zip(&items).position(|pair| (*pair.0, *pair.1) == cell).unwrap()])
        .collect();
    (interactions, aligned)
}

fn dense(csr: &Csr) -> Vec<Vec<f64>> {
    let mut rows = vec![vec![0.0; csr.n_cols()]; csr.n_rows()];
    for (at, row) in rows.iter_mut().enumerate() {
        let (cols, values) = csr.row(at);
        cols.iter().zip(values).for_each(|(col, value)| row[*col as usize] = f64::from(*value));
    }
    rows
}

fn config() -> Config {
    Config { ease_regularization: 5.0, spectral_rank: Some(4), spectral_iterations: 40, ..Config::default() }
}

/// Ridge regression of each item on the others, by its normal equations, solved plainly.
fn ease_by_regression(x: &[Vec<f64>], lambda: f64) -> Vec<Vec<f64>> {
    let n = x[0].len();
    let mut model = vec![vec![0.0; n]; n];
    for target in 0..n {
        let others: Vec<usize> = (0..n).filter(|item| *item != target).collect();
        let mut system: Vec<Vec<f64>> = others
            .iter()
            .map(|a| {
                let mut row: Vec<f64> =
                    others.iter().map(|b| x.iter().map(|u| u[*a] * u[*b]).sum::<f64>()).collect();
                row.push(x.iter().map(|u| u[*a] * u[target]).sum());
                row
            })
            .collect();
        for (at, row) in system.iter_mut().enumerate() {
            row[at] += lambda;
        }
        for k in 0..n - 1 {
            let pivot = system[k].clone();
            for (i, row) in system.iter_mut().enumerate() {
                if i != k {
                    let factor = row[k] / pivot[k];
                    row.iter_mut().zip(&pivot).for_each(|(value, other)| *value -= factor * other);
                }
            }
        }
        for (at, other) in others.iter().enumerate() {
            model[*other][target] = system[at][n - 1] / system[at][at];
        }
    }
    model
}

#[test]
fn ease_is_the_ridge_regression_of_each_item_on_the_others() {
    let (interactions, _) = shop();
    let expected = ease_by_regression(&dense(&interactions), 5.0);
    let found = dense(fit(&interactions, &[], Wanted::ALL, &config(), 1).unwrap().ease.as_ref().unwrap());
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() < 1e-5, "{found} against {expected}");
    }
}

#[test]
fn an_inverse_of_many_blocks_is_an_inverse() {
    let n = 450;
    let mut a = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..n {
            let gap = (i as f64 - j as f64) / 40.0;
            a[i * n + j] = (-gap * gap).exp() + if i == j { 0.5 } else { 0.0 };
        }
    }
    let mut inverse = a.clone();
    ease::negative_inverse(&mut inverse, n);
    let value = |i: usize, j: usize| -if i >= j { inverse[i * n + j] } else { inverse[j * n + i] };
    for (i, j) in [(0, 0), (3, 200), (199, 191), (192, 192), (449, 0), (449, 449), (300, 301)] {
        let product: f64 = (0..n).map(|k| a[i * n + k] * value(k, j)).sum();
        let expected = if i == j { 1.0 } else { 0.0 };
        assert!((product - expected).abs() < 1e-9, "{i}, {j}: {product}");
    }
}

#[test]
fn walk_and_cosine_are_their_formulas() {
    let (interactions, _) = shop();
    let (x, models) = (dense(&interactions), fit(&interactions, &[], Wanted::ALL, &config(), 1).unwrap());
    let degree = |item: usize| x.iter().map(|user| user[item]).sum::<f64>();
    let (walk, cosine) = (dense(models.walk.as_ref().unwrap()), dense(models.cosine.as_ref().unwrap()));
    for i in 0..30 {
        for j in (0..30).filter(|j| *j != i) {
            let both: f64 = x.iter().map(|user| user[i] * user[j]).sum();
            let walked: f64 =
                x.iter().map(|user| user[i] * user[j] / user.iter().sum::<f64>().max(1.0)).sum();
            let root = (degree(i) * degree(j)).sqrt();
            let expected = if both > 0.0 { (walked / root, both / (root + 20.0)) } else { (0.0, 0.0) };
            assert!((walk[i][j] - expected.0).abs() < 1e-6);
            assert!((cosine[i][j] - expected.1).abs() < 1e-6);
        }
        assert_eq!((walk[i][i], cosine[i][i]), (0.0, 0.0));
    }
}

#[test]
fn the_spectral_filter_projects_onto_what_the_interactions_span_most() {
    let (interactions, _) = shop();
    let (inputs, outputs) = fit(&interactions, &[], Wanted::ALL, &config(), 1).unwrap().spectral.unwrap();
    // The leading singular vector is known: entries are the roots of the degrees, for a connected graph.
    let degrees: Vec<f64> = dense(&interactions.transpose()).iter().map(|row| row.iter().sum()).collect();
    let project = |h: &[f64]| -> Vec<f64> {
        let mut inner = [0.0; 4];
        for (item, weight) in h.iter().enumerate() {
            for (sum, value) in inner.iter_mut().zip(inputs.row(item)) {
                *sum += weight * f64::from(*value);
            }
        }
        (0..30)
            .map(|item| outputs.row(item).iter().zip(inner).map(|(value, x)| f64::from(*value) * x).sum())
            .collect()
    };
    let fixed = project(&degrees);
    for (found, expected) in fixed.iter().zip(&degrees) {
        assert!((found - expected).abs() < 1e-3 * expected.max(1.0), "{found} against {expected}");
    }
    // A projection changes nothing the second time.
    let mut one = vec![0.0; 30];
    one[7] = 1.0;
    let once = project(&one);
    for (found, expected) in project(&once).iter().zip(&once) {
        assert!((found - expected).abs() < 1e-4);
    }
}

#[test]
fn a_sequence_looks_forwards_more_than_back_and_not_inside_a_basket() {
    // Items 0 → 1 → 2, for many users; 3 and 4 in one basket.
    let (mut users, mut items, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for user in 0..20u32 {
        for (item, step) in [(0u32, 0u32), (1, 1), (2, 2), (3, 9), (4, 9)] {
            users.push(user);
            items.push(item);
            steps.push(step);
        }
    }
    let interactions = Csr::from_coordinates(20, 5, &users, &items, &vec![1.0; users.len()]).unwrap();
    let sequence = dense(&sequence::fit(&interactions, &steps, &Config::default()));
    assert!(sequence[0][1] > sequence[0][2], "nearer is more");
    assert!(sequence[0][1] > 1.5 * sequence[1][0], "forwards is more");
    assert_eq!((sequence[3][4], sequence[4][3], sequence[2][3]), (0.0, 0.0, 0.0));
}

#[test]
fn rows_keep_their_largest_magnitudes_and_results_do_not_depend_on_threads() {
    let (interactions, steps) = shop();
    let config = Config { kept: 3, ..config() };
    let fitted = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| fit(&interactions, &steps, Wanted::ALL, &config, 1).unwrap())
    };
    let (one, two) = (fitted(1), fitted(2));
    assert_eq!((&one.ease, &one.walk, &one.spectral), (&two.ease, &two.walk, &two.spectral));
    assert_eq!((&one.cosine, &one.sequence), (&two.cosine, &two.sequence));
    let whole = dense(
        fit(&interactions, &steps, Wanted::ALL, &Config { kept: 30, ..config.clone() }, 1)
            .unwrap()
            .ease
            .as_ref()
            .unwrap(),
    );
    let kept = one.ease.unwrap();
    for (item, row) in whole.iter().enumerate() {
        let (cols, values) = kept.row(item);
        assert_eq!(cols.len(), 3);
        let smallest = values.iter().fold(f32::MAX, |least, value| least.min(value.abs()));
        let left_out = (0..30).filter(|col| !cols.contains(&(*col as u32)));
        assert!(left_out.into_iter().all(|col| row[col].abs() <= f64::from(smallest)));
    }
}
