//! The window function `latest`: the last value so far that is not null.
//!
//! `last_value(…) IGNORE NULLS` tells the same, but looks through all rows so far for each of them.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{Field, FieldRef};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    LimitEffect, PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;

/// `latest(column) OVER (… ORDER BY …)`, the row itself included; null before the first. A frame changes
/// nothing, as with `lag`.
pub(super) fn function() -> WindowUDF {
    WindowUDF::from(Latest { signature: Signature::any(1, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Latest {
    signature: Signature,
}

impl WindowUDFImpl for Latest {
    fn name(&self) -> &'static str {
        "latest"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(
        &self,
        of: PartitionEvaluatorArgs,
    ) -> Result<Box<dyn PartitionEvaluator>, DataFusionError> {
        let latest = ScalarValue::try_from(of.input_fields()[0].data_type())?;
        Ok(Box::new(Evaluator { latest }))
    }

    fn field(&self, of: WindowUDFFieldArgs) -> Result<FieldRef, DataFusionError> {
        let found =
            of.get_input_field(0).map_or(arrow::datatypes::DataType::Null, |field| field.data_type().clone());
        Ok(Arc::new(Field::new(of.name(), found, true)))
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        LimitEffect::None
    }
}

/// Rows are asked for in order, each once.
#[derive(Debug)]
struct Evaluator {
    latest: ScalarValue,
}

impl PartitionEvaluator for Evaluator {
    fn is_causal(&self) -> bool {
        true
    }

    fn evaluate(
        &mut self,
        columns: &[ArrayRef],
        rows: &Range<usize>,
    ) -> Result<ScalarValue, DataFusionError> {
        if columns[0].is_valid(rows.start) {
            self.latest = ScalarValue::try_from_array(&columns[0], rows.start)?;
        }
        Ok(self.latest.clone())
    }

    fn supports_bounded_execution(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;

    use crate::lake::{Config, Lake};

    #[test]
    fn it_is_the_last_value_that_is_not_null() {
        let lake = Lake::open(&Config { threads: 2, memory_bytes: 1 << 28, spill_dir: None }).unwrap();
        let columns: [(&str, ArrayRef); 2] = [
            ("at", Arc::new(Int64Array::from_iter_values(0..100_000))),
            ("value", Arc::new((0..100_000).map(|at| (at % 7 == 3).then_some(at)).collect::<Int64Array>())),
        ];
        lake.register_rows("rows", RecordBatch::try_from_iter(columns).unwrap()).unwrap();
        let sql = "
            SELECT count(*) FILTER (WHERE found IS DISTINCT FROM told) AS n_wrong, count(*) FILTER (WHERE found IS NULL) AS n_before
            FROM (
                SELECT
                    latest(value) OVER so_far AS found,
                    last_value(value) IGNORE NULLS OVER so_far AS told
                FROM rows WINDOW so_far AS (
                    PARTITION BY at / 100 ORDER BY at ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
                )
            )";
        let found = lake.query("latest", sql, &[]).unwrap();
        let count = |column: usize| found.column(column).as_primitive::<Int64Type>().value(0);
        let before =
            (0..1000).map(|from| (0..100).take_while(|at| (from * 100 + at) % 7 != 3).count() as i64);
        assert_eq!((count(0), count(1)), (0, before.sum()));
    }
}
