//! The leaf of a plan: reads a [`Readable`] batch by batch, and says in EXPLAIN what was pushed down into it.

use std::{fmt, sync::Arc};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
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
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{Readable, Rows, external};
use crate::stream::view::Part;

/// Reads one table in one partition, in the order of the table, parts of it at once.
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
        let (rows, at_once) = (Arc::clone(&self.rows), context.session_config().target_partitions().max(1));
        // Each batch is read on a thread that may block, and none is held between two batches.
        let parts = stream::once(blocking(move || rows.open(&context).map_err(external)));
        let batches = parts.map_ok(move |parts| {
            // Of the next parts the first batch is read at once, and given in their order.
            let begun = stream::iter(parts).map(begin).buffered(at_once);
            begun.map_ok(|first| stream::try_unfold(Step::Read(first), following)).try_flatten()
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches.try_flatten())))
    }
}

/// A batch, and what follows it, if anything may.
type Begun = Option<(RecordBatch, Option<Rows>)>;

/// Reads the first batch of a part.
async fn begin(part: Part<Rows>) -> Result<Begun> {
    match part {
        Part::AtHand(batch) => Ok(Some((batch, None))),
        Part::ToRead(rows) => blocking(move || next_of(rows)).await,
    }
}

fn next_of(mut rows: Rows) -> Result<Begun> {
    let batch = rows.next().transpose().map_err(external)?;
    let rest = Some(rows).filter(|rows| rows.size_hint().1 != Some(0));
    Ok(batch.map(|batch| (batch, rest)))
}

/// Gives a batch that was read; the one behind it is read when it is asked for.
async fn following(step: Step) -> Result<Option<(RecordBatch, Step)>> {
    let read = match step {
        Step::Read(begun) => begun,
        Step::Left(Some(rows)) => blocking(move || next_of(rows)).await?,
        Step::Left(None) => None,
    };
    Ok(read.map(|(batch, rows)| (batch, Step::Left(rows))))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|fault| DataFusionError::Execution(format!("a read ended early: {fault}")))?
}

/// Where a part is read.
enum Step {
    Read(Begun),
    Left(Option<Rows>),
}
