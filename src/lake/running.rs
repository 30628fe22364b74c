//! Window functions whose answer hangs on the rows so far: `repeats`, `previous`, `latest`, `count_so_far`.
//!
//! SQL's own window functions tell the same, but the engine takes each value out of its column and back; these are
//! asked for whole batches ([`super::by_batch`]), and for single rows only where a window has partitions.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, UInt32Array, new_empty_array,
    new_null_array,
};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{and, concat, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    LimitEffect, PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;

/// A frame changes none of them, as with `lag`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Of {
    /// `repeats(column, …)`: whether a row has the same values as the row before it; of two nulls the second repeats
    /// the first.
    Repeats,
    /// `previous(column)`: the value of the row before, which `lag` tells as well.
    Previous,
    /// `latest(column)`: the last value that is not null, the row's own included. `last_value(…) IGNORE NULLS` looks
    /// through all rows so far for each of them.
    Latest,
    /// `count_so_far(condition)`: of how many rows it holds, the row itself included; in 32 bits, as indices are.
    CountSoFar,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Function {
    of: Of,
    signature: Signature,
}

/// All of them.
pub(super) fn functions() -> [WindowUDF; 4] {
    let function = |of, signature| WindowUDF::from(Function { of, signature });
    [
        function(Of::Repeats, Signature::variadic_any(Volatility::Immutable)),
        function(Of::Previous, Signature::any(1, Volatility::Immutable)),
        function(Of::Latest, Signature::any(1, Volatility::Immutable)),
        function(Of::CountSoFar, Signature::exact(vec![DataType::Boolean], Volatility::Immutable)),
    ]
}

impl Of {
    /// The type of its answers over a first column of this type.
    fn gives(self, first: &DataType) -> DataType {
        match self {
            Self::Repeats => DataType::Boolean,
            Self::CountSoFar => DataType::UInt32,
            Self::Previous | Self::Latest => first.clone(),
        }
    }
}

impl Function {
    /// Before the first row.
    pub(super) fn begin(&self) -> State {
        State { of: self.of, carried: None, count: 0 }
    }
}

impl WindowUDFImpl for Function {
    fn name(&self) -> &'static str {
        match self.of {
            Of::Repeats => "repeats",
            Of::Previous => "previous",
            Of::Latest => "latest",
            Of::CountSoFar => "count_so_far",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(
        &self,
        of: PartitionEvaluatorArgs,
    ) -> Result<Box<dyn PartitionEvaluator>, DataFusionError> {
        if of.ignore_nulls() {
            return plan_err!("{} does not know IGNORE NULLS", self.name());
        }
        Ok(Box::new(self.begin()))
    }

    fn field(&self, of: WindowUDFFieldArgs) -> Result<FieldRef, DataFusionError> {
        let first = of.get_input_field(0).map_or(DataType::Null, |field| field.data_type().clone());
        let nullable = matches!(self.of, Of::Previous | Of::Latest);
        Ok(Arc::new(Field::new(of.name(), self.of.gives(&first), nullable)))
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        LimitEffect::None
    }
}

/// What a function remembers of the rows before.
#[derive(Debug)]
pub(super) struct State {
    of: Of,
    /// Of each column one value: the last, or the last that is not null.
    carried: Option<Vec<ArrayRef>>,
    count: u32,
}

impl State {
    /// The answers for the rows that come next.
    pub(super) fn next(&mut self, columns: &[ArrayRef]) -> Result<ArrayRef, DataFusionError> {
        let [first, ..] = columns else { return exec_err!("a window function without a column") };
        let n_rows = first.len();
        if n_rows == 0 {
            return Ok(new_empty_array(&self.of.gives(first.data_type())));
        }
        match self.of {
            Of::Repeats => {
                let answers = self.repeats(columns, n_rows)?;
                self.carried =
                    Some(columns.iter().map(|column| alone(column, n_rows - 1)).collect::<Result<_, _>>()?);
                Ok(Arc::new(answers))
            }
            Of::Previous => {
                let answers = concat(&[&*self.carried(first), &*first.slice(0, n_rows - 1)])?;
                self.carried = Some(vec![alone(first, n_rows - 1)?]);
                Ok(answers)
            }
            Of::Latest => {
                let mut at = 0;
                let latest = (0..n_rows as u32).map(|row| {
                    at = if first.is_valid(row as usize) { row + 1 } else { at };
                    at
                });
                let latest = UInt32Array::from_iter_values(latest);
                let answers = take(&*concat(&[&*self.carried(first), &**first])?, &latest, None)?;
                self.carried = Some(vec![alone(&answers, n_rows - 1)?]);
                Ok(answers)
            }
            Of::CountSoFar => {
                let holds = first.as_boolean();
                let mut counts = Vec::with_capacity(n_rows);
                for row in 0..n_rows {
                    let Some(count) =
                        self.count.checked_add(u32::from(holds.is_valid(row) && holds.value(row)))
                    else {
                        return exec_err!("count_so_far: expected at most {} rows", u32::MAX);
                    };
                    self.count = count;
                    counts.push(count);
                }
                Ok(Arc::new(UInt32Array::from(counts)))
            }
        }
    }

    /// What comes before the first of these rows: a null before the first of all.
    fn carried(&self, column: &ArrayRef) -> ArrayRef {
        let carried = self.carried.as_ref().map(|carried| carried[0].clone());
        carried.unwrap_or_else(|| new_null_array(column.data_type(), 1))
    }

    fn repeats(&self, columns: &[ArrayRef], n_rows: usize) -> Result<BooleanArray, DataFusionError> {
        let mut first = self.carried.is_some();
        for (column, last) in columns.iter().zip(self.carried.iter().flatten()) {
            first = first && not_distinct(&column.slice(0, 1), last)?.value(0);
        }
        let n_pairs = n_rows - 1;
        let mut same = BooleanArray::from(vec![true; n_pairs]);
        for column in columns {
            same = and(&same, &not_distinct(&column.slice(1, n_pairs), &column.slice(0, n_pairs))?)?;
            if same.true_count() == 0 {
                break;
            }
        }
        let mut all = BooleanBufferBuilder::new(n_rows);
        all.append(first);
        all.append_buffer(same.values());
        Ok(BooleanArray::new(all.finish(), None))
    }
}

/// A value by itself: a slice would keep its whole column, and with each batch one more.
fn alone(column: &ArrayRef, row: usize) -> Result<ArrayRef, DataFusionError> {
    ScalarValue::try_from_array(column, row)?.to_array()
}

/// Within a partition rows are asked for in order, each once.
impl PartitionEvaluator for State {
    fn is_causal(&self) -> bool {
        true
    }

    fn evaluate(
        &mut self,
        columns: &[ArrayRef],
        rows: &Range<usize>,
    ) -> Result<ScalarValue, DataFusionError> {
        let row: Vec<ArrayRef> = columns.iter().map(|column| column.slice(rows.start, 1)).collect();
        ScalarValue::try_from_array(&self.next(&row)?, 0)
    }

    fn supports_bounded_execution(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::Int64Type;

    use crate::lake::{Config, Lake};

    /// Rows over which a function's answers differ from what SQL's own functions tell, and their number.
    fn compared(found: &str, told: &str, window: &str) -> (i64, i64) {
        let lake = Lake::open(&Config { threads: 2, memory_bytes: 1 << 28, spill_dir: None }).unwrap();
        let numbers = (0..100_000i64).map(|at| (at / 5 % 4 != 3).then_some(at / 5)).collect::<Int64Array>();
        let texts = (0..100_000).map(|at| (at / 8 % 3 != 1).then(|| format!("a text of {}", at / 8)));
        let columns: [(&str, ArrayRef); 3] = [
            ("at", Arc::new(Int64Array::from_iter_values(0..100_000))),
            ("number", Arc::new(numbers)),
            ("text", Arc::new(texts.collect::<StringArray>())),
        ];
        lake.register_rows("rows", RecordBatch::try_from_iter(columns).unwrap()).unwrap();
        let sql = format!(
            "SELECT count(*) FILTER (WHERE found IS DISTINCT FROM told) AS n_wrong,
                    count(DISTINCT CAST(found AS VARCHAR)) AS n_values
             FROM (
                SELECT found, {told} AS told
                FROM (SELECT *, {found} OVER ({window}) AS found FROM rows) WINDOW w AS ({window})
             )"
        );
        let rows = lake.query("compared", &sql, &[]).unwrap();
        let count = |column: usize| rows.column(column).as_primitive::<Int64Type>().value(0);
        (count(0), count(1))
    }

    #[test]
    fn they_are_what_the_functions_of_sql_tell() {
        let frame = "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW";
        for (partition, repeated) in [("", 1), ("PARTITION BY at % 3", 3), ("PARTITION BY at / 1000", 100)] {
            let window = format!("{partition} ORDER BY at");
            let alone = "row_number() OVER w > 1
                AND (number IS NOT DISTINCT FROM lag(number) OVER w)
                AND (text IS NOT DISTINCT FROM lag(text) OVER w)";
            assert_eq!(compared("repeats(number, text)", alone, &window), (0, 2), "{partition}");
            for column in ["number", "text"] {
                let (previous, lag) = (format!("previous({column})"), format!("lag({column}) OVER w"));
                let (n_wrong, n_values) = compared(&previous, &lag, &window);
                assert!(n_wrong == 0 && n_values > 8_000, "{previous} {partition}: {n_wrong}, {n_values}");
                let latest = format!("latest({column})");
                // Looked for in each partition anew: of so few rows that the engine's own way ends.
                if repeated == 100 {
                    let told = format!("last_value({column}) IGNORE NULLS OVER ({window} {frame})");
                    let (n_wrong, n_values) = compared(&latest, &told, &window);
                    assert!(n_wrong == 0 && n_values > 8_000, "{latest} {partition}: {n_wrong}, {n_values}");
                }
            }
            let told = format!("count(*) FILTER (WHERE number % 7 = 2) OVER ({window} {frame})");
            let (n_wrong, n_values) = compared("count_so_far(number % 7 = 2)", &told, &window);
            assert!(n_wrong == 0 && n_values > 100 / repeated, "{partition}: {n_wrong}, {n_values}");
        }
    }

    #[test]
    fn what_they_do_not_know_is_refused() {
        let lake = Lake::open(&Config { threads: 1, memory_bytes: 1 << 26, spill_dir: None }).unwrap();
        let sql = "SELECT latest(value) IGNORE NULLS OVER (ORDER BY value) FROM generate_series(1, 3)";
        let refused = lake.query("latest", sql, &[]).unwrap_err();
        assert!(format!("{refused:?}").contains("IGNORE NULLS"), "{refused:?}");
    }

    #[test]
    fn latest_reaches_over_batches() {
        let told = "CASE WHEN at > 3 THEN (at - 4) / 70000 * 70000 + 4 END";
        let found = "latest(CASE WHEN at % 70000 = 4 THEN at END)";
        assert_eq!(compared(found, told, "ORDER BY at"), (0, 2));
    }
}
