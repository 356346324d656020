//! A SELECT of columns and conditions over one table or stream: read by DataFusion, filtered and computed by our own operators.
//!
//! Made by `engine` for expressions that DataFusion does not know. Its rows are those of the same SELECT as a push query: one way
//! from expressions to values.

use std::{ops::ControlFlow, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray},
    compute::{SortColumn, concat_batches, filter, filter_record_batch, lexsort_to_indices, take_record_batch},
    datatypes::SchemaRef,
    record_batch::{RecordBatch, RecordBatchOptions},
};
use datafusion::sql::sqlparser::{ast, dialect::GenericDialect, parser::Parser};

use crate::{
    catalog::{SourceKind, types::is_nested},
    error::QueryError,
    functions::{self, Function},
    plan::{Node, StreamPlan},
    sql::DialectKind,
    stack::with_stack,
    stream::operator::chain::{Chain, execution},
};

/// Largest LIMIT of which the rows are chosen by key; more are as many as are read first.
const MOST_ORDERED: usize = 10_000;

/// A SELECT without state.
pub struct Plain {
    plan: StreamPlan,
    limit: Option<u64>,
}

impl Plain {
    /// Whether a query has expressions that DataFusion does not know: all of `ksql`, lambdas in `standard`.
    #[must_use]
    pub fn is_for(query: &ast::Query, dialect: DialectKind) -> bool {
        let has_lambda = |expr: &ast::Expr| match expr {
            ast::Expr::Function(call) if functions::find(&call.name.to_string()).is_some_and(Function::takes_lambdas) => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        };
        dialect == DialectKind::Ksql || with_stack(|| ast::visit_expressions(query, has_lambda)).is_break()
    }

    /// Of a plan for whoever asked, which ends after so many rows; none if the plan folds.
    #[must_use]
    pub fn new(plan: StreamPlan, limit: Option<u64>) -> Option<Self> {
        let is_plain = plan.nodes.iter().all(|node| matches!(node, Node::Filter { .. } | Node::Project { .. }));
        is_plain.then_some(Self { plan, limit })
    }

    /// The query that reads what is needed of the source.
    ///
    /// # Errors
    /// [`QueryError::Execution`], which would be a fault of ours.
    pub(super) fn reading(&self) -> Result<ast::Query, QueryError> {
        let [scan] = self.plan.sources.as_slice() else { return Err(execution("a plain query has one source")) };
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let columns: Vec<String> = scan.schema().fields().iter().map(|field| quoted(field.name())).collect();
        let columns = if columns.is_empty() { "1".to_owned() } else { columns.join(", ") };
        let text = format!("SELECT {columns} FROM {}", quoted(&scan.source.name));
        let mut parser = Parser::new(&GenericDialect {}).try_with_sql(&text).map_err(execution)?;
        parser.parse_query().map(|query| *query).map_err(execution)
    }

    /// Places of key columns in the answer; records of a stream are facts, and have none.
    pub(super) fn keys(&self) -> Vec<usize> {
        if self.plan.sources.iter().any(|scan| scan.source.kind == SourceKind::Stream) {
            return Vec::new();
        }
        self.plan.output.iter().enumerate().filter(|(_, column)| column.key).map(|(place, _)| place).collect()
    }

    /// What is computed of the rows that were read.
    ///
    /// # Errors
    /// As [`Plain::reading`].
    pub(super) fn after(&self) -> Result<After, QueryError> {
        let [scan] = self.plan.sources.as_slice() else { return Err(execution("a plain query has one source")) };
        // The key of a table stands before what else is read of it.
        let keys = if scan.source.kind == SourceKind::Table { scan.source.key_count() } else { 0 };
        let (input, left) = (scan.schema(), self.limit);
        let has_order = input.fields().iter().take(keys).all(|key| !is_nested(key.data_type()));
        let most = left.and_then(|left| usize::try_from(left).ok()).filter(|most| *most <= MOST_ORDERED);
        let first = most.filter(|_| keys > 0 && has_order).map(|most| First { keys, most, found: None });
        Ok(After { input, chain: Chain::new(&self.plan.nodes)?, schema: self.plan.schema(), left, first })
    }
}

/// Filters and computes batches.
pub(super) struct After {
    input: SchemaRef,
    chain: Chain,
    schema: SchemaRef,
    /// Rows that may still come.
    left: Option<u64>,
    /// Which of a table's rows may come, where only some do.
    first: Option<First>,
}

/// Those rows of a table that are first by its key.
struct First {
    keys: usize,
    most: usize,
    /// The rows found so far, with their keys before them.
    found: Option<RecordBatch>,
}

impl First {
    fn among(&mut self, keys: &[ArrayRef], rows: &RecordBatch) -> Result<(), QueryError> {
        let named = |(place, column): (usize, &ArrayRef)| (format!("key {place}"), Arc::clone(column), true);
        let values = rows.columns().iter().enumerate().map(|(place, column)| (format!("value {place}"), Arc::clone(column), true));
        let given = RecordBatch::try_from_iter_with_nullable(keys.iter().enumerate().map(named).chain(values)).map_err(execution)?;
        let all = match &self.found {
            Some(found) => concat_batches(&given.schema(), [found, &given]).map_err(execution)?,
            None => given,
        };
        let by_key: Vec<SortColumn> =
            all.columns().iter().take(self.keys).map(|values| SortColumn { values: Arc::clone(values), options: None }).collect();
        let order = lexsort_to_indices(&by_key, Some(self.most)).map_err(execution)?;
        self.found = Some(take_record_batch(&all, &order).map_err(execution)?);
        Ok(())
    }
}

impl After {
    /// Schema of the answer.
    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Whether no further row may come.
    pub(super) fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// The rows that could not come before all were read.
    ///
    /// # Errors
    /// [`QueryError::Execution`], which would be a fault of ours.
    pub(super) fn last(self) -> Result<Option<RecordBatch>, QueryError> {
        let Some(First { keys, found: Some(found), .. }) = self.first else { return Ok(None) };
        let columns = found.columns().iter().skip(keys).cloned().collect();
        let options = RecordBatchOptions::new().with_row_count(Some(found.num_rows()));
        RecordBatch::try_new_with_options(self.schema, columns, &options).map(Some).map_err(execution)
    }

    /// The rows of the answer that a batch gives.
    ///
    /// # Errors
    /// [`QueryError::ResourceExhausted`] if they are too large together.
    pub(super) fn batch(&mut self, batch: &RecordBatch) -> Result<RecordBatch, QueryError> {
        let rows = batch.num_rows();
        let columns = if self.input.fields().is_empty() { Vec::new() } else { batch.columns().to_vec() };
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let input = RecordBatch::try_new_with_options(Arc::clone(&self.input), columns, &options).map_err(execution)?;
        let keys: Vec<ArrayRef> = input.columns().iter().take(self.first.as_ref().map_or(0, |first| first.keys)).cloned().collect();
        let (computed, kept) = self.chain.run_all(input)?;
        let kept = kept.map(|kept| BooleanArray::new(kept, None));
        let mut computed = match &kept {
            Some(kept) => filter_record_batch(&computed, kept).map_err(execution)?,
            None => computed,
        };
        if let Some(first) = &mut self.first {
            let keys = match &kept {
                Some(kept) => keys.iter().map(|key| filter(key, kept)).collect::<Result<_, _>>().map_err(execution)?,
                None => keys,
            };
            first.among(&keys, &computed)?;
            return Ok(RecordBatch::new_empty(computed.schema()));
        }
        if let Some(left) = &mut self.left {
            let most = usize::try_from(*left).unwrap_or(usize::MAX);
            if computed.num_rows() > most {
                computed = computed.slice(0, most);
            }
            *left -= computed.num_rows() as u64;
        }
        Ok(computed)
    }
}
