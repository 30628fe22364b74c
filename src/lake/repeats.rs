//! The window function `repeats`: whether a row has the same values as the row before it.
//!
//! `lag` tells the same, but takes one value at a time out of each column; here a batch is compared at once.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, BooleanBufferBuilder};
use arrow::compute::and;
use arrow::compute::kernels::cmp::not_distinct;
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    LimitEffect, PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;

/// `repeats(column, …) OVER (ORDER BY …)`; of two nulls the second repeats the first. As with `lag`, a
/// frame changes nothing.
pub(super) fn function() -> WindowUDF {
    WindowUDF::from(Repeats { signature: Signature::variadic_any(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Repeats {
    signature: Signature,
}

impl WindowUDFImpl for Repeats {
    fn name(&self) -> &'static str {
        "repeats"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(
        &self,
        _: PartitionEvaluatorArgs,
    ) -> Result<Box<dyn PartitionEvaluator>, DataFusionError> {
        Ok(Box::new(Evaluator { of: None, repeats: BooleanArray::from(Vec::<bool>::new()) }))
    }

    fn field(&self, of: WindowUDFFieldArgs) -> Result<FieldRef, DataFusionError> {
        Ok(Arc::new(Field::new(of.name(), DataType::Boolean, false)))
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        LimitEffect::None
    }
}

/// The answers for the rows held at the moment, which are asked for one by one.
#[derive(Debug)]
struct Evaluator {
    /// Their first column.
    of: Option<ArrayRef>,
    repeats: BooleanArray,
}

impl PartitionEvaluator for Evaluator {
    fn get_range(&self, row: usize, _: usize) -> Result<Range<usize>, DataFusionError> {
        Ok(row.saturating_sub(1)..row + 1)
    }

    fn is_causal(&self) -> bool {
        true
    }

    fn evaluate_all(&mut self, columns: &[ArrayRef], _: usize) -> Result<ArrayRef, DataFusionError> {
        Ok(Arc::new(repeats(columns)?))
    }

    fn evaluate(
        &mut self,
        columns: &[ArrayRef],
        rows: &Range<usize>,
    ) -> Result<ScalarValue, DataFusionError> {
        if !self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, &columns[0])) {
            self.repeats = repeats(columns)?;
            self.of = Some(columns[0].clone());
        }
        Ok(ScalarValue::Boolean(Some(self.repeats.value(rows.end - 1))))
    }

    fn supports_bounded_execution(&self) -> bool {
        true
    }
}

fn repeats(columns: &[ArrayRef]) -> Result<BooleanArray, ArrowError> {
    let n_rows = columns.first().map_or(0, |column| column.len());
    let n_pairs = n_rows.saturating_sub(1);
    let mut same = BooleanArray::from(vec![true; n_pairs]);
    for column in columns {
        same = and(&same, &not_distinct(&column.slice(1.min(n_rows), n_pairs), &column.slice(0, n_pairs))?)?;
        if same.true_count() == 0 {
            break;
        }
    }
    let mut all = BooleanBufferBuilder::new(n_rows);
    all.append_n(n_rows.min(1), false);
    all.append_buffer(same.values());
    Ok(BooleanArray::new(all.finish(), None))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::Int64Type;

    use crate::lake::{Config, Lake};

    /// How many rows of 100,000 repeat the one before, and how many of those answers are not what `lag` tells.
    fn counted(partition: &str) -> (i64, i64) {
        let lake = Lake::open(&Config { threads: 2, memory_bytes: 1 << 28, spill_dir: None }).unwrap();
        // Runs of equal values and of nulls, of lengths that fall on and off the ends of batches.
        let value = |at: i64, length: i64| (at / length % 4 != 0).then_some(at / length % 3);
        let numbers: Int64Array = (0..100_000).map(|at| value(at, 5)).collect();
        let texts: StringArray = (0..100_000).map(|at| value(at, 8).map(|value| value.to_string())).collect();
        let columns: [(&str, ArrayRef); 3] = [
            ("at", Arc::new(Int64Array::from_iter_values(0..100_000))),
            ("number", Arc::new(numbers)),
            ("text", Arc::new(texts)),
        ];
        lake.register_rows("rows", RecordBatch::try_from_iter(columns).unwrap()).unwrap();
        let sql = format!(
            "SELECT count(*) FILTER (WHERE found) AS n, count(*) FILTER (WHERE found <> told) AS n_wrong FROM (
                SELECT
                    repeats(number, text) OVER w AS found,
                    row_number() OVER w > 1
                    AND (number IS NOT DISTINCT FROM lag(number) OVER w)
                    AND (text IS NOT DISTINCT FROM lag(text) OVER w) AS told
                FROM rows WINDOW w AS ({partition} ORDER BY at)
            )"
        );
        let found = lake.query("repeats", &sql, &[]).unwrap();
        let count = |column: usize| found.column(column).as_primitive::<Int64Type>().value(0);
        (count(0), count(1))
    }

    #[test]
    fn it_is_what_lag_tells_of_every_column() {
        // Of forty rows, eight begin a run of numbers, five one of texts, and one begins both.
        assert_eq!(counted(""), (70_000, 0));
        let (n, n_wrong) = counted("PARTITION BY at % 3");
        assert!(n > 10_000 && n_wrong == 0, "{n} found, {n_wrong} of them wrong");
    }
}
