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
    Config {
        ease_regularization: Some(5.0),
        spectral_rank: Some(4),
        spectral_iterations: 40,
        ..Config::default()
    }
}

fn ease_by_regression(x: &[Vec<f64>], lambda: f64) -> Vec<Vec<f64>> {
    ease_of(x, &x.iter().map(|user| user.iter().sum()).collect::<Vec<_>>(), lambda)
}

/// Ridge regression of each item on the others, by its normal equations, solved plainly; users of so many
/// items.
fn ease_of(x: &[Vec<f64>], lengths: &[f64], lambda: f64) -> Vec<Vec<f64>> {
    let n = x[0].len();
    let scale = lengths.iter().sum::<f64>() / lengths.iter().map(|n| n.sqrt()).sum::<f64>();
    let weighted = |a: usize, b: usize| -> f64 {
        x.iter().zip(lengths).map(|(u, n)| u[a] * u[b] * scale / n.max(1.0).sqrt()).sum()
    };
    let column = |target: usize| {
        let others: Vec<usize> = (0..n).filter(|item| *item != target).collect();
        let mut system: Vec<Vec<f64>> = others
            .iter()
            .map(|a| {
                let mut row: Vec<f64> = others.iter().map(|b| weighted(*a, *b)).collect();
                row.push(weighted(*a, target));
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
        let mut column = vec![0.0; n];
        for (at, other) in others.iter().enumerate() {
            column[*other] = system[at][n - 1] / system[at][at];
        }
        column
    };
    let columns: Vec<Vec<f64>> = (0..n).map(column).collect();
    (0..n).map(|row| columns.iter().map(|column| column[row]).collect()).collect()
}

#[test]
fn ease_is_the_ridge_regression_of_each_item_on_the_others() {
    let (interactions, _) = shop();
    let expected = ease_by_regression(&dense(&interactions), 5.0);
    let found = dense(
        fit(&interactions, &[], Wanted::ALL, &config(), 1, &mut |_| {}).unwrap().ease.as_ref().unwrap(),
    );
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() < 1e-5, "{found} against {expected}");
    }
}

#[test]
fn where_neighbours_are_few_each_item_is_regressed_on_the_nearest_alone() {
    let (interactions, _) = shop();
    let config = Config { ease_items: 0, ease_neighbours: 3, ..config() };
    let models = fit(&interactions, &[], Wanted::ALL, &config, 1, &mut |_| {}).unwrap();
    let (found, cosine) = (models.ease.as_ref().unwrap().transpose(), models.cosine.unwrap());
    let x = dense(&interactions);
    for item in 0..30 {
        let (others, cosines) = cosine.row(item);
        let mut nearest: Vec<(f32, u32)> = cosines.iter().copied().zip(others.iter().copied()).collect();
        nearest.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        nearest.truncate(3);
        let mut those: Vec<u32> = nearest.into_iter().map(|entry| entry.1).collect();
        those.sort_unstable();
        assert_eq!(found.row(item).0, those);
        let columns: Vec<usize> = those.iter().map(|other| *other as usize).chain([item]).collect();
        let some: Vec<Vec<f64>> = x.iter().map(|user| columns.iter().map(|at| user[*at]).collect()).collect();
        let lengths: Vec<f64> = x.iter().map(|user| user.iter().sum()).collect();
        let expected = ease_of(&some, &lengths, 5.0);
        for (at, value) in found.row(item).1.iter().enumerate() {
            assert!((f64::from(*value) - expected[at][3]).abs() < 1e-5, "{item}: {value}");
        }
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
    let (x, models) =
        (dense(&interactions), fit(&interactions, &[], Wanted::ALL, &config(), 1, &mut |_| {}).unwrap());
    let degree = |item: usize| x.iter().map(|user| user[item]).sum::<f64>();
    let (walk, cosine) = (dense(models.walk.as_ref().unwrap()), dense(models.cosine.as_ref().unwrap()));
    for i in 0..30 {
        for j in (0..30).filter(|j| *j != i) {
            let both: f64 = x.iter().map(|user| user[i] * user[j]).sum();
            let walked: f64 =
                x.iter().map(|user| user[i] * user[j] / user.iter().sum::<f64>().max(1.0).powf(0.75)).sum();
            let held_back = degree(i).powf(0.5) * degree(j).powf(0.3);
            let root = (degree(i) * degree(j)).sqrt();
            let expected = if both > 0.0 { (walked / held_back, both / (root + 20.0)) } else { (0.0, 0.0) };
            assert!((walk[i][j] - expected.0).abs() < 1e-6);
            assert!((cosine[i][j] - expected.1).abs() < 1e-6);
        }
        assert_eq!((walk[i][i], cosine[i][i]), (0.0, 0.0));
    }
}

/// The largest eigenvalue by power iteration; takes its part out of the matrix.
fn deflate(matrix: &mut [Vec<f64>]) -> f64 {
    let n = matrix.len();
    let mut vector: Vec<f64> = (0..n).map(|at| 1.0 + (at as f64).sin()).collect();
    let mut value = 0.0;
    for _ in 0..5_000 {
        let image: Vec<f64> =
            matrix.iter().map(|row| row.iter().zip(&vector).map(|(a, b)| a * b).sum()).collect();
        value = image.iter().map(|x| x * x).sum::<f64>().sqrt();
        vector = image.iter().map(|x| x / value).collect();
    }
    for (i, row) in matrix.iter_mut().enumerate() {
        row.iter_mut().zip(&vector).for_each(|(entry, other)| *entry -= value * vector[i] * other);
    }
    value
}

#[test]
fn peers_are_users_with_the_same_rare_items_and_give_what_they_turned_to() {
    // Users 0 and 1 share rare items 3 and 4, user 2 shares with user 0 what everybody has.
    let rows: [&[u32]; 6] = [&[0, 3, 4], &[0, 3, 4, 5], &[0, 1], &[0, 1], &[0, 2], &[2]];
    let cells = rows.iter().zip(0u32..).flat_map(|(items, user)| items.iter().map(move |item| (user, *item)));
    let (users, items): (Vec<u32>, Vec<u32>) = cells.unzip();
    let interactions = Csr::from_coordinates(6, 6, &users, &items, &vec![1.0; users.len()]).unwrap();
    let config = Config { peers: 2, ..config() };
    let (neighbours, of_users) =
        fit(&interactions, &[], Wanted::ALL, &config, 1, &mut |_| {}).unwrap().peers.unwrap();
    let similarity =
        |items: &[f64], n: f64| items.iter().map(|degree| degree.powf(-0.5)).sum::<f64>() / n.sqrt();
    let nearest = similarity(&[5.0, 2.0, 2.0], 4.0);
    let second = (similarity(&[5.0], 2.0) / nearest).powi(2);
    assert_eq!(neighbours.row(0).0, [1, 2], "of the equals 2, 3 and 4 the first is kept");
    for (found, expected) in neighbours.row(0).1.iter().zip([1.0, second]) {
        assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} against {expected}");
    }
    assert_eq!(neighbours.row(5).0, [4], "nobody else has item 2");
    assert_eq!(of_users.row(1).0, rows[1]);
    assert!((of_users.row(1).1[0] - 5f32.powf(-0.1)).abs() < 1e-6 && of_users.row(1).1[3] == 1.0);
    let off = Config { peers: 0, ..config };
    assert!(fit(&interactions, &[], Wanted::ALL, &off, 1, &mut |_| {}).unwrap().peers.is_none());
    assert_eq!((Config::default().peers(1_000), Config::default().peers(1_000_000)), (300, 30));
}

#[test]
fn the_spectral_filter_projects_onto_what_the_interactions_span_most() {
    let (interactions, _) = shop();
    let (inputs, outputs) =
        fit(&interactions, &[], Wanted::ALL, &config(), 1, &mut |_| {}).unwrap().spectral.unwrap();
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
    // Σ_u u_i u_j / |u|^⅘, both sides normalised: what is projected onto spans the most of it that four
    // directions can, the sum of its four largest eigenvalues.
    let x = dense(&interactions);
    let degree = |item: usize| x.iter().map(|user| user[item]).sum::<f64>().max(1.0);
    let shared = |i: usize, j: usize| -> f64 {
        let users = x.iter().map(|user| user[i] * user[j] / user.iter().sum::<f64>().max(1.0).powf(0.8));
        users.sum::<f64>() / (degree(i) * degree(j)).sqrt()
    };
    let mut matrix: Vec<Vec<f64>> = (0..30).map(|i| (0..30).map(|j| shared(i, j)).collect()).collect();
    let mut spanned = 0.0;
    for (item, row) in matrix.iter().enumerate() {
        let unit: Vec<f64> = (0..30).map(|other| f64::from(u8::from(other == item))).collect();
        let column = project(&unit);
        let scaled = |other: usize| column[other] * (degree(item) / degree(other)).sqrt();
        spanned += row.iter().enumerate().map(|(other, value)| scaled(other) * value).sum::<f64>();
    }
    let largest: f64 = (0..4).map(|_| deflate(&mut matrix)).sum();
    assert!((spanned - largest).abs() < 1e-3 * largest, "{spanned} against {largest}");
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
    let sequence =
        dense(&sequence::fit(&interactions, &interactions.transpose(), &steps, &Config::default()));
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
        pool.install(|| fit(&interactions, &steps, Wanted::ALL, &config, 1, &mut |_| {}).unwrap())
    };
    let (one, two) = (fitted(1), fitted(2));
    assert_eq!((&one.ease, &one.walk, &one.spectral), (&two.ease, &two.walk, &two.spectral));
    assert_eq!((&one.cosine, &one.sequence, &one.peers), (&two.cosine, &two.sequence, &two.peers));
    let whole = dense(
        fit(&interactions, &steps, Wanted::ALL, &Config { kept: 30, ..config.clone() }, 1, &mut |_| {})
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

#[test]
fn a_row_takes_no_more_room_than_what_is_kept_of_it() {
    let mut row: Vec<(u32, f32)> = (0..1000).map(|at| (999 - at, at as f32)).collect();
    let kept = prune(&mut row, 3);
    assert_eq!(kept, [(0, 999.0), (1, 998.0), (2, 997.0)]);
    assert_eq!(kept.capacity(), 3);
}
