use proptest::prelude::*;

use super::*;

fn floors() -> impl Strategy<Value = Floors> {
    let eight = |of: std::ops::Range<f64>| proptest::array::uniform8(of);
    let room = prop_oneof![
        6 => -3e4f64..3e4,
        1 => Just(f64::NEG_INFINITY),
        1 => Just(f64::INFINITY),
        1 => Just(1e300),
        1 => Just(-1e300),
    ];
    (proptest::array::uniform8(room), eight(0.0..50.0), eight(0.0..50.0), eight(-2e4..2e4))
        .prop_map(|(room, by_norm, by_error, offset)| Floors { room, by_norm, by_error, offset })
}

proptest! {
    #[test]
    fn sums_and_hits_of_bytes_are_those_of_the_twin(
        (bytes, queries) in (0usize..90).prop_flat_map(|groups| (
            proptest::collection::vec(any::<u8>(), groups * 4 * ROWS),
            proptest::collection::vec(any::<i8>(), groups * 4 * QUERIES),
        )),
        floors in floors(),
        (norm, error, per_unit) in (0f64..9.0, 0f64..9.0, 1e-3f64..1e3),
        always in any::<bool>(),
    ) {
        let Some(fast) = Dots::fast() else { return Ok(()) };
        let panel = Panel { bytes: &bytes, norm, error, per_unit };
        let (mut hits, mut expected) = (Hits::new(), Hits::new());
        let wrote = fast.hit(panel, &queries, &floors, always, &mut hits);
        prop_assert_eq!(wrote, Dots::portable().hit(panel, &queries, &floors, always, &mut expected));
        prop_assert_eq!(hits.rows, expected.rows);
        prop_assert_eq!(hits.sums, expected.sums);
    }

    #[test]
    fn products_of_scattered_rows_are_those_of_the_twin(
        (query, rows) in (0usize..70).prop_flat_map(|d| (
            proptest::collection::vec(value(), d),
            proptest::collection::vec(value(), d * CHAINS),
        )),
    ) {
        let rows: [&[f32]; CHAINS] = std::array::from_fn(|at| &rows[at * query.len()..(at + 1) * query.len()]);
        let bits = |products: [f32; CHAINS]| products.map(f32::to_bits);
        prop_assert_eq!(bits(Chains::new().products(&query, rows)), bits(Chains::portable().products(&query, rows)));
    }
}

/// Ordinary, zero, denormal and huge.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![6 => -2f32..2.0, 1 => Just(0.0), 1 => Just(-0.0), 1 => -1e-39f32..1e-39, 1 => -1e18f32..1e18]
}
