use super::*;

/// Item 3 is cold and resembles items 0 and 2; item 4 is cold and resembles nothing.
fn lookalikes() -> Lookalikes {
    let nearest = [(3, vec![(2, 0.5), (0, 1.0)]), (4, vec![(1, -0.2)])];
    Lookalikes::new(5, nearest.into_iter())
}

fn model() -> Csr {
    Csr::from_coordinates(5, 5, &[0, 0, 1, 2], &[1, 2, 0, 4], &[0.5, 2.0, 3.0, 7.0]).unwrap()
}

fn length(values: impl Iterator<Item = f32>) -> f32 {
    values.map(|value| value * value).sum::<f32>().sqrt()
}

#[test]
fn vectors_point_where_those_of_look_alikes_do_and_are_as_long() {
    let mut vectors = Dense::from_vec(5, 2, vec![1., 2., 3., 4., 9., 6., 0., 0., 0., 0.]).unwrap();
    lookalikes().fill_rows(&mut vectors);
    // 0.5^3 = 1/8.
    let (near, far) = (8.0 / 9.0, 1.0 / 9.0);
    let mean = [near + 9.0 * far, 2.0 * near + 6.0 * far];
    let expected = near * length([1.0, 2.0].into_iter()) + far * length([9.0, 6.0].into_iter());
    let scale = expected / length(mean.into_iter());
    for (found, mean) in vectors.row(3).iter().zip(mean) {
        assert!((found - scale * mean).abs() < 1e-5, "{found} {}", scale * mean);
    }
    assert_eq!((vectors.row(0), vectors.row(4)), (&[1.0f32, 2.0][..], &[0.0f32, 0.0][..]));
}

#[test]
fn a_cold_item_scores_as_its_look_alikes_do_and_speaks_for_itself() {
    let heirs = lookalikes().heirs(&model());
    let score = |history: usize, item: u32| heirs.value(&model(), history as u32, item);
    // Columns 0 and 2 as they are, with what rows 0 and 2 say most of in their own place.
    let columns = [[2.0, 3.0, 0.0, 0.0, 0.0], [2.0, 0.0, 7.0, 0.0, 0.0]];
    let mean: Vec<f32> = (0..5).map(|row| (8.0 * columns[0][row] + columns[1][row]) / 9.0).collect();
    let expected = (8.0 * length(columns[0].into_iter()) + length(columns[1].into_iter())) / 9.0;
    let scale = expected / length(mean.iter().copied());
    for (history, mean) in mean.iter().enumerate() {
        assert!((score(history, 3) - scale * mean).abs() < 1e-5, "{history}");
    }
    assert_eq!(score(2, 4), 7.0, "what was there stays");
    let model = model();
    for history in 0..5 {
        let (items, values) = model.row(history);
        let mut sum = 0.0;
        for (item, value) in items.iter().zip(values) {
            let (cold, shares) = heirs.of(*item);
            sum += cold.iter().position(|cold| *cold == 3).map_or(0.0, |at| shares[at] * value);
        }
        let own = heirs.own().row(history);
        sum += own.0.iter().position(|cold| *cold == 3).map_or(0.0, |at| own.1[at]);
        assert!((sum - score(history, 3)).abs() < 1e-6, "{history}: {sum}");
    }
}
