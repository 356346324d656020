//! The leaf of a plan: reads a [`Readable`] batch by batch, and says in EXPLAIN what was pushed down into it.

use std::{fmt, sync::Arc};

use arrow::datatypes::SchemaRef;
use datafusion::{
    common::tree_node::TreeNodeRecursion,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::stream;

use super::{Readable, Rows, external};

/// Reads one table in one partition, in the order of the table.
#[derive(Debug)]
pub(super) struct ScanExec {
    label: String,
    rows: Arc<dyn Readable>,
    properties: Arc<PlanProperties>,
}

impl ScanExec {
    pub(super) fn new(label: String, schema: SchemaRef, rows: Arc<dyn Readable>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { label, rows, properties: Arc::new(properties) }
    }
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scan: {}", self.label)
    }
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &'static str {
        "Scan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let start = Step::Open(Arc::clone(&self.rows), context);
        // Each batch is read on a thread that may block, and none is held between two batches.
        let batches = stream::try_unfold(start, |step| async {
            let read = tokio::task::spawn_blocking(move || step.next()).await;
            read.map_err(|fault| DataFusionError::Execution(format!("a read ended early: {fault}")))?
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

enum Step {
    Open(Arc<dyn Readable>, Arc<TaskContext>),
    Read(Rows),
}

impl Step {
    fn next(self) -> Result<Option<(arrow::record_batch::RecordBatch, Self)>> {
        let mut rows = match self {
            Self::Open(rows, context) => rows.open(&context).map_err(external)?,
            Self::Read(rows) => rows,
        };
        let batch = rows.next().transpose().map_err(external)?;
        Ok(batch.map(|batch| (batch, Self::Read(rows))))
    }
}
