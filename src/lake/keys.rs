//! Functions that put rows in an order, or into groups, cheaply: `fingerprint`, `packed`, and `pair` with `first_of` and
//! `second_of`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, UInt32Array, UInt64Array};
use arrow::compute::binary;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt32Type, UInt64Type};
use datafusion::common::exec_err;
use datafusion::common::hash_utils::{QualityRandomState, create_hashes};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, create_udf,
};

/// All of them.
pub(super) fn functions() -> [ScalarUDF; 5] {
    let packed_of = vec![DataType::UInt32, DataType::Int64, DataType::Boolean, DataType::UInt64];
    let packed = |args: &[ColumnarValue]| packed(&ColumnarValue::values_to_arrays(args)?);
    [
        ScalarUDF::from(Fingerprint { signature: Signature::variadic_any(Volatility::Immutable) }),
        create_udf("packed", packed_of, PACKED, Volatility::Immutable, Arc::new(packed)),
        create_udf(
            "pair",
            vec![DataType::UInt32; 2],
            DataType::UInt64,
            Volatility::Immutable,
            Arc::new(pair),
        ),
        half_of_pair("first_of", |pair| (pair >> 32) as u32),
        half_of_pair("second_of", |pair| pair as u32),
    ]
}

/// `pair(index, index)`: both in one number in their order, which rows group and sort by in three quarters of the time
/// that two columns take.
fn pair(args: &[ColumnarValue]) -> Result<ColumnarValue, DataFusionError> {
    let columns = ColumnarValue::values_to_arrays(args)?;
    // Groups of one null half would become one group.
    if columns.iter().any(|column| column.null_count() > 0) {
        return exec_err!("pair: expected no nulls");
    }
    let (first, second) = (columns[0].as_primitive::<UInt32Type>(), columns[1].as_primitive::<UInt32Type>());
    let pairs: UInt64Array =
        binary(first, second, |first, second| u64::from(first) << 32 | u64::from(second))?;
    Ok(ColumnarValue::Array(Arc::new(pairs)))
}

/// `first_of(pair)` and `second_of(pair)`.
fn half_of_pair(name: &str, half: fn(u64) -> u32) -> ScalarUDF {
    let halves = move |args: &[ColumnarValue]| {
        let columns = ColumnarValue::values_to_arrays(args)?;
        let halves: UInt32Array = columns[0].as_primitive::<UInt64Type>().unary(half);
        Ok(ColumnarValue::Array(Arc::new(halves)))
    };
    create_udf(name, vec![DataType::UInt64], DataType::UInt32, Volatility::Immutable, Arc::new(halves))
}

/// `fingerprint(column, …)`: 64 bits of a row's values, the same for equal rows by one build of the program.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Fingerprint {
    signature: Signature,
}

impl ScalarUDFImpl for Fingerprint {
    fn name(&self) -> &'static str {
        "fingerprint"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::UInt64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let mut all = vec![0u64; args.number_rows];
        let mut hashes = vec![0u64; args.number_rows];
        for column in &columns {
            // A null leaves what is there, and counts by its place.
            hashes.fill(0);
            // Where rows are compared, -0 is not 0; to the library's hash it is.
            let bits: Option<ArrayRef> = column.as_primitive_opt::<Float64Type>().map(|numbers| {
                Arc::new(numbers.unary::<_, Int64Type>(|number| number.to_bits().cast_signed())) as ArrayRef
            });
            create_hashes([bits.as_ref().unwrap_or(column)], &QualityRandomState::with_seed(0), &mut hashes)?;
            for (all, hash) in all.iter_mut().zip(&hashes) {
                *all = (all.rotate_left(23) ^ hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
        }
        Ok(ColumnarValue::Array(Arc::new(UInt64Array::from(all))))
    }
}

const PACKED: DataType = DataType::Decimal128(38, 0);

/// Bits of a moment: microseconds of five hundred years before 1970 and after.
const MOMENT: u32 = 55;
/// Of a fingerprint: what is left of a positive number in 128 bits.
const REST: u32 = 127 - 32 - MOMENT - 1;

/// `packed(index, microseconds, later, fingerprint)`: one number in the order of the four, of the last of which 39 bits
/// count. Ten million rows sort by it in half the time that four columns take.
fn packed(columns: &[ArrayRef]) -> Result<ColumnarValue, DataFusionError> {
    if columns.iter().any(|column| column.null_count() > 0) {
        return exec_err!("packed: expected no nulls");
    }
    let indices = columns[0].as_primitive::<UInt32Type>().values();
    let moments = columns[1].as_primitive::<Int64Type>().values();
    let (later, fingerprints) = (columns[2].as_boolean(), columns[3].as_primitive::<UInt64Type>().values());
    let earliest = -1i64 << (MOMENT - 1);
    if let Some(moment) = moments.iter().find(|moment| !(earliest..-earliest).contains(moment)) {
        return exec_err!("packed: expected microseconds within {MOMENT} bits; found {moment}");
    }
    let packed = (0..indices.len()).map(|row| {
        i128::from(indices[row]) << (MOMENT + 1 + REST)
            | i128::from(moments[row] - earliest) << (1 + REST)
            | i128::from(later.value(row)) << REST
            | i128::from(fingerprints[row] >> (64 - REST))
    });
    let packed = Decimal128Array::from_iter_values(packed).with_data_type(PACKED);
    Ok(ColumnarValue::Array(Arc::new(packed)))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;

    use crate::lake::{Config, Lake};

    fn count(sql: &str) -> i64 {
        let lake = Lake::open(&Config { threads: 2, memory_bytes: 1 << 28, spill_dir: None }).unwrap();
        let rows = lake.query("keys", sql, &[]).unwrap();
        rows.column(0).as_primitive::<Int64Type>().value(0)
    }

    #[test]
    fn fingerprints_differ_where_a_value_does() {
        let values =
            "SELECT nullif(value % 7, 3) AS a, nullif(value % 11, 3) AS b, 'text ' || (value % 13) AS c
                      FROM generate_series(1, 10000)";
        let distinct = |of: &str| count(&format!("SELECT count(DISTINCT {of}) FROM ({values})"));
        assert_eq!(distinct("fingerprint(a, b, c)"), 7 * 11 * 13);
        assert_eq!(distinct("fingerprint(c)"), 13);
        let zeros = "SELECT CASE WHEN value % 2 = 0 THEN 0.0 ELSE -0.0 END AS a FROM generate_series(1, 10)";
        assert_eq!(count(&format!("SELECT count(DISTINCT fingerprint(a)) FROM ({zeros})")), 2);
    }

    #[test]
    fn pairs_are_in_the_order_of_their_halves_which_come_back() {
        let halves = "SELECT CAST(value % 4 * 1431655765 AS INT UNSIGNED) AS a,
                             CAST(value % 7 * 715827882 AS INT UNSIGNED) AS b
                      FROM generate_series(1, 1000)";
        let right = "first_of(pair(a, b)) = a AND second_of(pair(a, b)) = b";
        assert_eq!(count(&format!("SELECT count(*) FROM ({halves}) WHERE {right}")), 1000);
        let ranked = format!(
            "SELECT dense_rank() OVER (ORDER BY a, b) AS by_halves, dense_rank() OVER (ORDER BY pair(a, b)) AS by_pair
             FROM ({halves})"
        );
        assert_eq!(count(&format!("SELECT CAST(max(by_pair) AS BIGINT) FROM ({ranked})")), 4 * 7);
        assert_eq!(count(&format!("SELECT count(*) FROM ({ranked}) WHERE by_halves <> by_pair")), 0);
    }

    #[test]
    fn a_pair_of_a_null_is_refused() {
        let lake = Lake::open(&Config { threads: 1, memory_bytes: 1 << 28, spill_dir: None }).unwrap();
        let sql = "SELECT pair(CAST(value AS INT UNSIGNED), CAST(nullif(value, 3) AS INT UNSIGNED))
                   FROM generate_series(1, 5)";
        let refused = lake.query("pairs", sql, &[]).unwrap_err();
        assert!(format!("{refused:?}").contains("expected no nulls"), "{refused:?}");
    }

    #[test]
    fn what_is_packed_sorts_as_its_parts_do() {
        let parts = "SELECT CAST(value % 3 * 2147483647 AS INT UNSIGNED) AS a, (value % 5 - 2) * 9007199254740991 AS b,
                            value % 2 = 0 AS c, CAST(value % 4 * 4611686018427387904 AS BIGINT UNSIGNED) AS d
                     FROM (SELECT CAST(value AS DECIMAL(20, 0)) AS value FROM generate_series(1, 1000))";
        let sql = format!(
            "SELECT count(DISTINCT by_parts) AS n FROM (
                SELECT dense_rank() OVER (ORDER BY a, b, c, d) AS by_parts,
                       dense_rank() OVER (ORDER BY packed(a, CAST(b AS BIGINT), c, d)) AS by_packed
                FROM ({parts})
             ) WHERE by_parts = by_packed"
        );
        assert_eq!(count(&sql), 3 * 5 * 4);
    }
}
