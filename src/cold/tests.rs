use super::*;

/// Item 3 is cold and resembles items 0 and 2; item 4 is cold and resembles nothing.
fn lookalikes() -> Lookalikes {
    let nearest = [(3, vec![(2, 0.5), (0, 1.0)]), (4, vec![(1, -0.2)])];
    Lookalikes::new(5, nearest.into_iter())
}

fn model() -> Csr {
    Csr::from_coordinates(5, 5, &[0, 0, 1, 2], &[1, 2, 0, 4], &[0.5, 2.0, 3.0, 7.0]).unwrap()
}

#[test]
fn vectors_are_the_mean_of_those_of_look_alikes() {
    let mut vectors = Dense::from_vec(5, 2, vec![1., 2., 3., 4., 257., 6., 0., 0., 0., 0.]).unwrap();
    lookalikes().fill_rows(&mut vectors);
    // 0.5^8 = 1/256.
    let (near, far) = (256.0 / 257.0, 1.0 / 257.0);
    let expected = [near + 257.0 * far, 2.0 * near + 6.0 * far];
    for (found, expected) in vectors.row(3).iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
    assert_eq!((vectors.row(0), vectors.row(4)), (&[1.0f32, 2.0][..], &[0.0f32, 0.0][..]));
}

#[test]
fn a_cold_item_scores_as_its_look_alikes_do_on_average() {
    let filled = lookalikes().fill_columns(&model());
    let score = |history: usize, item: u32| {
        let (items, values) = filled.row(history);
        items.binary_search(&item).map_or(0.0, |at| values[at])
    };
    for history in 0..5 {
        let expected = (256.0 * score(history, 0) + score(history, 2)) / 257.0;
        assert!((score(history, 3) - expected).abs() < 1e-6, "{history}");
    }
    assert_eq!(score(2, 4), 7.0, "what was there stays");
    assert_eq!(filled.n_entries(), model().n_entries() + 2);
}
