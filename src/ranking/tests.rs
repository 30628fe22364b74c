use super::*;

const N_USERS: usize = 6;
const N_ITEMS: usize = 40;

/// Values that look random and are the same everywhere.
fn values(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state % 2001) as f32 / 1000.0 - 1.0
        })
        .collect()
}

fn dense(n_rows: usize, n_cols: usize, seed: u32) -> Dense {
    Dense::from_vec(n_rows, n_cols, values(n_rows * n_cols, seed)).unwrap()
}

struct Shop {
    factors: (Dense, Dense),
    content: (Dense, Dense),
    segments: Vec<u32>,
    popularity: Dense,
    history: Csr,
    shares: Csr,
    ease: Csr,
    eligible: Vec<bool>,
}

impl Shop {
    fn new() -> Self {
        let mut factors = (dense(N_USERS, 5, 1), dense(N_ITEMS, 5, 2));
        let mut content = (dense(N_USERS, 3, 3), dense(N_ITEMS, 3, 4));
        factors.0.row_mut(5).fill(0.0);
        content.0.row_mut(5).fill(0.0);
        let popularity = values(N_ITEMS * 2, 5).iter().map(|v| v.abs()).collect();
        Self {
            factors,
            content,
            segments: vec![0, 1, 0, 1, 0, 1],
            popularity: Dense::from_vec(N_ITEMS, 2, popularity).unwrap(),
            history: Csr::from_coordinates(N_USERS, N_ITEMS, &[0, 0, 1], &[3, 7, 3], &[2.0, 9.0, 1.0])
                .unwrap(),
            shares: Csr::from_coordinates(N_USERS, N_ITEMS, &[0, 0, 1], &[3, 7, 3], &[0.5, 1.0, 1.0])
                .unwrap(),
            ease: Csr::from_coordinates(
                N_ITEMS,
                N_ITEMS,
                &[3, 3, 3, 7, 7],
                &[1, 8, 20, 8, 9],
                &[0.5, -0.2, 0.1, 0.6, 0.3],
            )
            .unwrap(),
            eligible: (0..N_ITEMS).map(|item| item % 7 != 0).collect(),
        }
    }

    fn sources(&self) -> Sources<'_> {
        Sources {
            featured: &[],
            dense: vec![
                (Source::Factors, &self.factors.0, &self.factors.1),
                (Source::Content, &self.content.0, &self.content.1),
            ],
            linear: vec![Linear {
                source: Source::Ease,
                from: &self.history,
                model: &self.ease,
                heirs: None,
            }],
            segments: &self.segments,
            popularity: &self.popularity,
            history: &self.history,
            own: vec![(Source::History, &self.shares)],
            bias: None,
            ruled: false,
            eligible: &self.eligible,
        }
    }

    /// A source's standard scores of a user, the plain way: score every item, then standardise.
    fn standard_scores(&self, source: Source, user: usize) -> Vec<f64> {
        let score = |item: usize| -> f64 {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum();
            match source {
                Source::Factors => dot(self.factors.0.row(user), self.factors.1.row(item)),
                Source::Content => dot(self.content.0.row(user), self.content.1.row(item)),
                Source::Ease => {
                    let (own, weights) = self.history.row(user);
                    own.iter()
                        .zip(weights)
                        .map(|(j, w)| {
                            let (others, values) = self.ease.row(*j as usize);
                            others.binary_search(&(item as u32)).map_or(0.0, |at| f64::from(w * values[at]))
                        })
                        .sum()
                }
                _ => f64::from(self.popularity.row(item)[self.segments[user] as usize]),
            }
        };
        let scores: Vec<f64> = (0..N_ITEMS).map(score).collect();
        let listed: Vec<f64> = (0..N_ITEMS).filter(|i| self.eligible[*i]).map(|i| scores[i]).collect();
        let mean = listed.iter().sum::<f64>() / listed.len() as f64;
        let variance = listed.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / listed.len() as f64;
        scores.iter().map(|s| if variance > 0.0 { (s - mean) / variance.sqrt() } else { 0.0 }).collect()
    }
}

fn weights() -> Weights {
    named("factors = 1.0\ncontent = 0.5\npopularity = 0.25\nhistory = 2.0\nease = 0.75")
}

fn named(weights: &str) -> Weights {
    toml::from_str(weights).unwrap()
}

#[test]
fn contributions_are_weighted_standard_scores_and_sum_to_the_score() {
    let shop = Shop::new();
    let fusion = fuse(shop.sources(), &weights().into()).unwrap();
    let items: Vec<u32> = (0..N_ITEMS as u32).collect();
    for user in 0..N_USERS {
        let queries = fusion.queries(&[user as u32]);
        let sparse = fusion.sparse(&[user as u32]).unwrap();
        let (own, own_scores) = sparse.row(0);
        let retrieved: Vec<f32> = items
            .iter()
            .map(|item| {
                let row = fusion.items().row(*item as usize);
                let dense: f32 = queries.row(0).iter().zip(row).map(|(a, b)| a * b).sum();
                dense + own.binary_search(item).map_or(0.0, |at| own_scores[at])
            })
            .collect();
        let ranked = fusion.explain(&[user as u32], &[(&items, &retrieved)]).remove(0);
        let sources = [
            (Source::Factors, 1.0),
            (Source::Content, 0.5),
            (Source::Popularity, 0.25),
            (Source::Ease, 0.75),
        ];
        for (source, weight) in sources {
            let expected = shop.standard_scores(source, user);
            for row in &ranked {
                let found = f64::from(row.contributions[source as usize]);
                let expected = weight * expected[row.item as usize];
                assert!(
                    (found - expected).abs() < 1e-4,
                    "{source:?}, user {user}: {found} is not {expected}"
                );
            }
        }
        for row in &ranked {
            let sum: f32 = row.contributions.iter().sum();
            assert!(
                (sum - row.score).abs() < 1e-4,
                "user {user}, item {}: {sum} is not {}",
                row.item,
                row.score
            );
        }
    }
}

#[test]
fn own_history_counts_from_nothing_to_its_weight() {
    let shop = Shop::new();
    let fusion = fuse(shop.sources(), &named("factors = 1.0\nhistory = 2.0").into()).unwrap();
    let sparse = fusion.sparse(&[0, 1]).unwrap();
    let (items, scores) = sparse.row(0);
    assert_eq!(items, [3, 7]);
    assert_eq!(scores, [1.0, 2.0]);
    let none = named("factors = 1.0");
    assert!(fuse(shop.sources(), &none.into()).unwrap().sparse(&[0, 1]).is_none());
}

#[test]
fn a_segment_has_its_own_weights() {
    let shop = Shop::new();
    let (all, own) = (named("factors = 1.0"), named("content = 2.0\nhistory = 1.0"));
    let mix = Mix { all, segments: vec![None, Some(own)] };
    let mixed = fuse(shop.sources(), &mix).unwrap();
    let items: Vec<u32> = (0..N_ITEMS as u32).collect();
    let scores = vec![0.0; N_ITEMS];
    for (user, weights) in [(0, all), (1, own)] {
        let plain = fuse(shop.sources(), &weights.into()).unwrap();
        let found = mixed.explain(&[user], &[(&items, &scores)]).remove(0);
        let expected = plain.explain(&[user], &[(&items, &scores)]).remove(0);
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.contributions, expected.contributions);
        }
    }
    let sparse = mixed.sparse(&[0, 1]).unwrap();
    assert_eq!((sparse.row(0).0.len(), sparse.row(1).1), (0, &[1.0f32][..]));
}

#[test]
fn a_user_without_vectors_gets_popularity_alone() {
    let shop = Shop::new();
    let fusion = fuse(shop.sources(), &weights().into()).unwrap();
    for row in fusion.explain(&[5], &[(&[1, 2], &[0.0, 0.0])]).remove(0) {
        assert_eq!(row.contributions[Source::Factors as usize], 0.0);
        assert_eq!(row.contributions[Source::Content as usize], 0.0);
        assert_eq!(row.reason, Reason::Popular { segment: 1 });
    }
}

#[test]
fn the_strongest_source_is_one_that_gave_something() {
    let shop = Shop::new();
    let fusion = fuse(shop.sources(), &named("content = 1.0").into()).unwrap();
    let items: Vec<u32> = (0..N_ITEMS as u32).collect();
    let ranked = fusion.explain(&[0], &[(&items, &[0.0; N_ITEMS])]).remove(0);
    assert!(ranked.iter().any(|row| row.contributions[Source::Content as usize] < 0.0));
    assert!(ranked.iter().all(|row| row.strongest == Source::Content), "no other source counts");
}

#[test]
fn scores_of_next_to_nothing_are_standardised_like_others() {
    let mut shop = Shop::new();
    let expected: Vec<_> = {
        let fusion = fuse(shop.sources(), &named("ease = 1.0").into()).unwrap();
        fusion.sparse(&[0]).unwrap().row(0).1.to_vec()
    };
    shop.ease = shop.ease.map_rows(|values| values.iter_mut().for_each(|value| *value *= 1e-40));
    let fusion = fuse(shop.sources(), &named("ease = 1.0").into()).unwrap();
    let sparse = fusion.sparse(&[0]).unwrap();
    assert!(!expected.is_empty() && sparse.row(0).1.len() == expected.len());
    for (found, expected) in sparse.row(0).1.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-3, "{found} {expected}");
    }
}

#[test]
fn reasons_name_the_item_that_speaks_for_the_row() {
    let mut shop = Shop::new();
    let twin = shop.factors.1.row(7).to_vec();
    shop.factors.1.row_mut(8).copy_from_slice(&twin);
    shop.factors.0.row_mut(0).copy_from_slice(&twin);
    let only = named("factors = 1.0");
    let fusion = fuse(shop.sources(), &only.into()).unwrap();
    let ranked = fusion.explain(&[0], &[(&[7, 8], &[1.0, 1.0])]).remove(0);
    assert_eq!(ranked[0].reason, Reason::Again);
    assert_eq!(ranked[1].reason, Reason::Because { item: 7 });
    assert_eq!(ranked[1].strongest, Source::Factors);
    let fusion = fuse(shop.sources(), &named("ease = 1.0").into()).unwrap();
    let ranked = fusion.explain(&[0], &[(&[8, 1], &[1.0, 1.0])]).remove(0);
    assert_eq!(ranked[0].reason, Reason::Because { item: 7 });
    assert_eq!(ranked[1].reason, Reason::Because { item: 3 });
}

#[test]
fn shapes_and_weights_that_do_not_go_together_are_refused() {
    let shop = Shop::new();
    let short = dense(N_ITEMS - 1, 5, 9);
    let sources = Sources { dense: vec![(Source::Factors, &shop.factors.0, &short)], ..shop.sources() };
    let refused = fuse(sources, &weights().into()).err();
    assert_eq!(refused, Some(Error::Rows { matrix: "factors", expected: N_ITEMS, found: N_ITEMS - 1 }));
    for wrong in ["factors = -1.0", "factors = 0.0\ncontent = 0.0\npopularity = 0.0", "speed = 1.0"] {
        assert!(toml::from_str::<Weights>(wrong).is_err(), "{wrong}");
    }
    assert!(toml::from_str::<Config>("top_k = 0").is_err());
    let both = "without = ['ease']\nweights = { ease = 1.0, factors = 1.0 }";
    let refused = toml::from_str::<Config>(both).unwrap().check().unwrap_err().to_string();
    assert!(refused.contains("`ranking.without`") && refused.contains("`ease`"), "{refused}");
}
