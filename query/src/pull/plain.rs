//! A SELECT of columns and conditions over one table or stream: read by DataFusion, filtered and computed by our own operators.
//!
//! Made by `engine` for expressions that DataFusion does not know. Its rows are those of the same SELECT as a push query: one way
//! from expressions to values.

use std::{ops::ControlFlow, sync::Arc};

use arrow::{
    array::BooleanArray,
    compute::filter_record_batch,
    datatypes::SchemaRef,
    record_batch::{RecordBatch, RecordBatchOptions},
};
use datafusion::sql::sqlparser::{ast, dialect::GenericDialect, parser::Parser};

use crate::{
    catalog::SourceKind,
    error::QueryError,
    functions::{self, Function},
    plan::{Node, StreamPlan},
    sql::DialectKind,
    stack::with_stack,
    stream::operator::chain::{Chain, execution},
};

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
        Ok(After { input: scan.schema(), chain: Chain::new(&self.plan.nodes)?, schema: self.plan.schema(), left: self.limit })
    }
}

/// Filters and computes batches.
pub(super) struct After {
    input: SchemaRef,
    chain: Chain,
    schema: SchemaRef,
    /// Rows that may still come.
    left: Option<u64>,
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

    /// The rows of the answer that a batch gives.
    ///
    /// # Errors
    /// [`QueryError::ResourceExhausted`] if they are too large together.
    pub(super) fn batch(&mut self, batch: &RecordBatch) -> Result<RecordBatch, QueryError> {
        let rows = batch.num_rows();
        let columns = if self.input.fields().is_empty() { Vec::new() } else { batch.columns().to_vec() };
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let input = RecordBatch::try_new_with_options(Arc::clone(&self.input), columns, &options).map_err(execution)?;
        let (computed, kept) = self.chain.run_all(input)?;
        let mut computed = match kept {
            Some(kept) => filter_record_batch(&computed, &BooleanArray::new(kept, None)).map_err(execution)?,
            None => computed,
        };
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
