//! A SELECT of columns and conditions over one table or stream: read by DataFusion, filtered and computed by our own operators.
//!
//! Made by `engine` for expressions that DataFusion does not know. Its rows are those of the same SELECT as a push query: one way
//! from expressions to values.

use std::{ops::ControlFlow, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, BooleanArray},
    compute::{SortColumn, concat, filter, filter_record_batch, interleave_record_batch, lexsort_to_indices},
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
/// What such rows may take in memory, in bytes; as much again, and a batch, while they are looked for.
const FIRST_BYTES: usize = 32 << 20;
/// Rows that are read before those that are first so far are looked for among them.
const ORDERED_AT_ONCE: usize = 32_768;

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
        let first = most.filter(|_| keys > 0 && has_order).map(|most| First::new(keys, most));
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
    /// The rows found so far and those read since, with their keys before them.
    found: Vec<RecordBatch>,
    /// What these have together.
    rows: usize,
    bytes: usize,
}

impl First {
    fn new(keys: usize, most: usize) -> Self {
        Self { keys, most, found: Vec::new(), rows: 0, bytes: 0 }
    }

    fn among(&mut self, keys: &[ArrayRef], rows: &RecordBatch) -> Result<(), QueryError> {
        let named = |(place, column): (usize, &ArrayRef)| (format!("key {place}"), Arc::clone(column), true);
        let values = rows.columns().iter().enumerate().map(|(place, column)| (format!("value {place}"), Arc::clone(column), true));
        self.add(RecordBatch::try_from_iter_with_nullable(keys.iter().enumerate().map(named).chain(values)).map_err(execution)?);
        // Not at every batch, for each time those found are copied.
        if self.rows > self.most + ORDERED_AT_ONCE || self.bytes > 2 * FIRST_BYTES {
            self.order()?;
        }
        Ok(())
    }

    fn add(&mut self, rows: RecordBatch) {
        self.rows += rows.num_rows();
        self.bytes += rows.get_array_memory_size();
        self.found.push(rows);
    }

    /// Leaves the first rows by key alone, in their order.
    fn order(&mut self) -> Result<(), QueryError> {
        let batches: Vec<&RecordBatch> = self.found.iter().collect();
        let column = |place: usize| -> Result<SortColumn, QueryError> {
            let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(place).as_ref()).collect();
            Ok(SortColumn { values: concat(&parts).map_err(execution)?, options: None })
        };
        let by_key: Vec<SortColumn> = (0..self.keys).map(column).collect::<Result<_, _>>()?;
        let order = lexsort_to_indices(&by_key, Some(self.most)).map_err(execution)?;
        let of_batch = |(batch, rows): (usize, &&RecordBatch)| (0..rows.num_rows()).map(move |row| (batch, row));
        let places: Vec<(usize, usize)> = batches.iter().enumerate().flat_map(of_batch).collect();
        let places: Vec<(usize, usize)> = order.values().iter().filter_map(|place| places.get(*place as usize).copied()).collect();
        let first = interleave_record_batch(&batches, &places).map_err(execution)?;
        if first.get_array_memory_size() > FIRST_BYTES {
            return Err(QueryError::ResourceExhausted(format!(
                "the first {} rows by key take more than {} MiB together; ask for fewer, or say an ORDER BY",
                self.most,
                FIRST_BYTES >> 20
            )));
        }
        (self.found, self.rows, self.bytes) = (Vec::new(), 0, 0);
        self.add(first);
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
    /// [`QueryError::ResourceExhausted`] if they are too large together.
    pub(super) fn last(self) -> Result<Option<RecordBatch>, QueryError> {
        let Some(mut first) = self.first.filter(|first| first.rows > 0) else { return Ok(None) };
        first.order()?;
        let (keys, Some(found)) = (first.keys, first.found.pop()) else { return Ok(None) };
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

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray as _, Int64Array, StringArray, types::Int64Type};

    use super::*;

    /// Rows of a number and a text of so many bytes, under the numbers as their keys.
    fn add(first: &mut First, numbers: impl IntoIterator<Item = i64>, bytes: usize) -> Result<(), QueryError> {
        let key: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..key.len()).map(|_| "x".repeat(bytes))));
        first.among(&[Arc::clone(&key)], &RecordBatch::try_from_iter([("n", key), ("t", texts)]).unwrap())
    }

    fn numbers(first: &First) -> Vec<i64> {
        first.found.iter().flat_map(|rows| rows.column(1).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[test]
    fn the_first_by_key_are_found_wherever_they_are_read() {
        let mut first = First::new(1, 5);
        for part in (0..10).rev() {
            add(&mut first, (part * 8192..(part + 1) * 8192).rev(), 10).unwrap();
            assert!(first.rows <= ORDERED_AT_ONCE + 8192, "{} rows are kept", first.rows);
        }
        first.order().unwrap();
        assert_eq!(numbers(&first), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn wide_rows_take_no_more_than_there_is_room_for() {
        let mut few = First::new(1, 50);
        for part in 0..40 {
            add(&mut few, (0..100).map(|row| (row * 7919 + part) % 4000), 100_000).unwrap();
            assert!(few.bytes <= 3 * FIRST_BYTES, "{} bytes are kept", few.bytes);
        }
        few.order().unwrap();
        assert_eq!(few.rows, 50);
        let mut many = First::new(1, 1000);
        let told = (0..10).try_for_each(|part| add(&mut many, part * 100..(part + 1) * 100, 100_000));
        assert!(matches!(told, Err(QueryError::ResourceExhausted(_))), "{told:?}");
    }
}
