//! Windows of [running functions](super::running), answered a batch at a time.
//!
//! The engine's own operator takes a row at a time, half a second for ten million rows and a function, on one thread.
//! The rule here puts another in its place where a window has no partitions and no other functions: what it is
//! given, in what order, and what it promises stay the same.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::internal_err;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::window::{StandardWindowExpr, WindowExpr};
use datafusion::physical_expr::{OrderingRequirements, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowUDFExpr};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements,
    PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt;

use super::running::{Function, State};

/// Puts the operator in place, after all other rules.
#[derive(Debug)]
pub(super) struct Rule;

impl PhysicalOptimizerRule for Rule {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let put = |node: Arc<dyn ExecutionPlan>| match by_batch(&node) {
            Some(operator) => Ok(Transformed::yes(operator)),
            None => Ok(Transformed::no(node)),
        };
        plan.transform_up(put).data()
    }

    fn name(&self) -> &'static str {
        "windows_by_batch"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The operator for a window of running functions alone.
fn by_batch(node: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    let window = node.downcast_ref::<BoundedWindowAggExec>()?;
    begin(window)?;
    Some(Arc::new(ByBatch { window: Arc::new(window.clone()) }))
}

/// Each function of a window and its state before the first row, where all are running ones.
fn begin(window: &BoundedWindowAggExec) -> Option<Vec<(Arc<dyn WindowExpr>, State)>> {
    window.window_expr().iter().map(|of| running(of).map(|state| (of.clone(), state))).collect()
}

/// The state of a running function before its first row, where the expression is one without partitions.
fn running(of: &Arc<dyn WindowExpr>) -> Option<State> {
    let standard = of.as_any().downcast_ref::<StandardWindowExpr>()?;
    let known = standard.get_standard_func_expr().as_any().downcast_ref::<WindowUDFExpr>()?;
    let function = (known.fun().inner().as_ref() as &dyn std::any::Any).downcast_ref::<Function>()?;
    of.partition_by().is_empty().then(|| function.begin())
}

/// Does what the operator does that it holds, and tells what that tells of its rows; it keeps no metrics.
#[derive(Debug)]
struct ByBatch {
    window: Arc<BoundedWindowAggExec>,
}

impl DisplayAs for ByBatch {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let names: Vec<&str> = self.window.window_expr().iter().map(|of| of.name()).collect();
        write!(f, "WindowByBatchExec: [{}]", names.join(", "))
    }
}

impl ExecutionPlan for ByBatch {
    fn name(&self) -> &'static str {
        "WindowByBatchExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.window.properties()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        self.window.input_distribution_requirements()
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        self.window.required_input_ordering()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.window.maintains_input_order()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.window.children()
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let window = self.window.clone().replace_children(children, options)?;
        Ok(by_batch(&window).unwrap_or(window))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion, DataFusionError>,
    ) -> Result<TreeNodeRecursion, DataFusionError> {
        self.window.apply_expressions(visit)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let schema = self.schema();
        let Some(mut functions) = begin(&self.window) else {
            return internal_err!("a window by batches of other than running functions");
        };
        let with_answers = {
            let schema = schema.clone();
            move |batch: Result<RecordBatch, DataFusionError>| {
                let batch = batch?;
                let mut columns = batch.columns().to_vec();
                for (of, state) in &mut functions {
                    columns.push(state.next(&of.evaluate_args(&batch)?)?);
                }
                Ok(RecordBatch::try_new(schema.clone(), columns)?)
            }
        };
        let rows = self.window.input().execute(partition, context)?.map(with_answers);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;

    use crate::lake::{Config, Lake};

    /// The plan of a statement over a made-up table, in one text.
    fn plan(sql: &str) -> String {
        let lake = Lake::open(&Config { threads: 2, memory_bytes: 1 << 28, spill_dir: None }).unwrap();
        lake.define("rows", "SELECT value % 5 AS a, value AS b FROM generate_series(1, 100)", &[]).unwrap();
        let rows = lake.ask(&format!("EXPLAIN {sql}")).unwrap();
        let text = arrow::compute::cast(rows.column(1), &arrow::datatypes::DataType::Utf8).unwrap();
        text.as_string::<i32>().iter().flatten().collect()
    }

    #[test]
    fn running_functions_go_by_batches_and_others_do_not() {
        let by_batch = |sql: &str| plan(sql).contains("WindowByBatchExec");
        assert!(by_batch("SELECT latest(a) OVER w, repeats(a, b) OVER w FROM rows WINDOW w AS (ORDER BY b)"));
        assert!(!by_batch("SELECT latest(a) OVER (PARTITION BY a ORDER BY b) FROM rows"));
        assert!(!by_batch("SELECT latest(a) OVER w, lag(a) OVER w FROM rows WINDOW w AS (ORDER BY b)"));
    }
}
