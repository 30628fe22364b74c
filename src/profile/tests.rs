use super::*;

fn no_terms(n_items: usize) -> Csr {
    Csr::from_coordinates(n_items, 0, &[], &[], &[]).unwrap()
}

#[test]
fn an_embedding_is_the_weighted_mean_shrunk_by_the_regularization() {
    let history = Csr::from_coordinates(3, 3, &[0, 0, 1], &[0, 1, 2], &[3.0, 1.0, 5.0]).unwrap();
    let items = Dense::from_vec(3, 2, vec![1.0, 0.0, 0.0, 1.0, 0.0, 0.0]).unwrap();
    let searches = Csr::from_coordinates(3, 1, &[0], &[0], &[2.0]).unwrap();
    let queries = Dense::from_vec(1, 2, vec![0.0, 1.0]).unwrap();
    let terms = no_terms(3);
    let inputs = Inputs {
        history: &history,
        items: Some(&items),
        searches: Some((&searches, &queries)),
        categories: &[Some(7), None, Some(7)],
        brands: &[Some(1), Some(0), None],
        prices: &[Some(1.0), Some(9.0), None],
        terms: &terms,
    };
    let profiles = profile(&inputs, &Config::default()).unwrap();
    let embeddings = profiles.embeddings.unwrap();
    assert_eq!(embeddings.row(0), [3.0 / 7.0, 3.0 / 7.0]);
    assert_eq!(embeddings.row(1), [0.0, 0.0], "an item without text does not count");
    assert_eq!(embeddings.row(2), [0.0, 0.0]);
    assert_eq!(profiles.categories[0], [(7, 0.75)]);
    assert_eq!(profiles.brands[0], [(1, 0.75), (0, 0.25)]);
    assert_eq!(profiles.price_bands[0], Some((1.0, 9.0)));
    assert_eq!(profiles.price_bands[1], None);
    assert!(profiles.categories[2].is_empty());
}

#[test]
fn of_equal_shares_the_lower_code_comes_first() {
    let shares = largest_shares(vec![(5, 1.0), (2, 1.0), (9, 3.0), (5, 0.0)], 5.0, 2);
    assert_eq!(shares, [(9, 0.6), (2, 0.2)]);
}

#[test]
fn terms_are_words_that_tell_items_apart() {
    let titles = ["Red Kettle 2l", "Blue kettle", "Red scarf", "wool Scarf", "wool hat", "socks", "gloves"];
    let padding = ["a1", "b2", "c3", "d4", "e5", "f6", "g7", "h8"];
    let texts = titles.iter().chain(&padding).map(|text| Some(*text)).chain([None]);
    let terms = Terms::of_texts(texts).unwrap();
    assert_eq!(terms.names, ["kettle", "red", "scarf", "wool"]);
    let (codes, weights) = terms.weights.row(0);
    assert_eq!(codes, [0, 1]);
    assert!((weights[0] - 8f32.ln()).abs() < 1e-6, "{weights:?}");
    assert_eq!(terms.weights.n_rows(), 16);
}

#[test]
fn columns_must_be_as_long_as_the_catalogue() {
    let history = Csr::from_coordinates(1, 2, &[0], &[0], &[1.0]).unwrap();
    let terms = no_terms(2);
    let inputs = Inputs {
        history: &history,
        items: None,
        searches: None,
        categories: &[None],
        brands: &[None, None],
        prices: &[None, None],
        terms: &terms,
    };
    let refused = profile(&inputs, &Config::default()).err().map(|error| error.to_string());
    assert_eq!(refused.as_deref(), Some("categories has 1 entries; expected 2 items"));
}
