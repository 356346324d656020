//! Makes expressions total: where a call, an operator or a cast fails, its value is NULL and the row is told.
//!
//! [`make_total`] wraps every part of a DataFusion expression that can fail: a wrapped part computes its operands first, then
//! itself by its [`Operation`]. What always holds: a wrapped part never returns an error, and the rows told are rows of the batch
//! that [`collect`] was given, however CASE and AND cut it on the way. Used by queries that do not end; `pull/total` does the
//! same, without telling rows, for those that do.

use std::{
    cell::RefCell,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, UInt32Array},
    datatypes::{DataType, Field, Schema, UInt32Type},
    record_batch::RecordBatch,
};
use datafusion::{
    common::{DataFusionError, Result},
    logical_expr::ColumnarValue,
    physical_expr::{PhysicalExpr, expressions::Column},
};

use super::{expression::RowError, operation::Operation};
use crate::error::QueryError;

/// Name of the column that carries each row's number through CASE and AND.
const ROW: &str = "__row";

thread_local! {
    /// What failed while the expression of this thread is evaluated.
    static FAILED: RefCell<Vec<RowError>> = const { RefCell::new(Vec::new()) };
}

/// Wraps every part of an expression that can fail; `columns` is the number of columns of its input. Tells whether there was one:
/// then it must be evaluated through [`collect`].
///
/// # Errors
/// Those of the expression's types.
pub fn make_total(expression: Arc<dyn PhysicalExpr>, input: &Schema) -> Result<(Arc<dyn PhysicalExpr>, bool)> {
    let children = expression.children().into_iter().map(Arc::clone).collect::<Vec<_>>();
    let mut fallible = false;
    let mut total = Vec::with_capacity(children.len());
    for child in children {
        let (child, can_fail) = make_total(child, input)?;
        fallible |= can_fail;
        total.push(child);
    }
    let expression = if total.is_empty() { expression } else { expression.with_new_children(total)? };
    let Some(operation) = Operation::of(&expression, input)? else { return Ok((expression, fallible)) };
    let mut children = expression.children().into_iter().filter(|child| Operation::takes(child)).map(Arc::clone).collect::<Vec<_>>();
    children.push(Arc::new(Column::new(ROW, input.fields().len())));
    Ok((Arc::new(Part { operation: Arc::new(operation), children, original: expression }), true))
}

/// A batch whose rows have their numbers beside them, for expressions that were made total.
pub struct Numbered(RecordBatch);

impl Numbered {
    /// A batch, with the numbers if they are needed: if one of the expressions can fail.
    ///
    /// # Errors
    /// [`QueryError::Execution`] for more rows than there are numbers.
    pub fn of(batch: &RecordBatch, needed: bool) -> Result<Self, QueryError> {
        let numbered = if needed { with_row_numbers(batch) } else { Ok(batch.clone()) };
        numbered.map(Self).map_err(|fault| QueryError::Execution(fault.strip_backtrace()))
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.0.num_rows()
    }
}

/// Evaluates an expression made total over a batch, and returns what failed on the way.
///
/// # Errors
/// None that a part could have: only those of a batch that does not fit the expression.
pub fn collect(expression: &Arc<dyn PhysicalExpr>, batch: &Numbered) -> Result<(ArrayRef, Vec<RowError>)> {
    let rows = batch.rows();
    // An expression may be part of another: the body of a lambda is evaluated within a call.
    let outer = FAILED.take();
    let values = expression.evaluate(&batch.0).and_then(|values| values.into_array(rows));
    let mut errors = FAILED.replace(outer);
    let values = values?;
    errors.sort_by_key(|error| error.row);
    Ok((values, errors))
}

/// Whether an expression gives the same for the same rows.
pub fn is_repeatable(expression: &Arc<dyn PhysicalExpr>) -> bool {
    expression.downcast_ref::<Part>().is_none_or(Part::is_repeatable) && expression.children().into_iter().all(is_repeatable)
}

/// Number of parts within each other.
pub fn depth(expression: &Arc<dyn PhysicalExpr>) -> usize {
    1 + expression.children().into_iter().map(depth).max().unwrap_or(0)
}

fn with_row_numbers(batch: &RecordBatch) -> Result<RecordBatch> {
    let rows = u32::try_from(batch.num_rows()).map_err(|_| DataFusionError::Internal("a batch of more than 2^32 rows".to_owned()))?;
    let numbers: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..rows));
    let fields = batch.schema_ref().fields().iter().map(Arc::clone);
    let schema = Schema::new(fields.chain([Arc::new(Field::new(ROW, DataType::UInt32, false))]).collect::<Vec<_>>());
    let columns = batch.columns().iter().map(Arc::clone).chain([numbers]).collect();
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

/// A part of an expression that can fail, made total.
pub(super) struct Part {
    operation: Arc<Operation>,
    /// The operands, then the column with the row numbers.
    children: Vec<Arc<dyn PhysicalExpr>>,
    /// The part as it was, for its name.
    original: Arc<dyn PhysicalExpr>,
}

impl Part {
    /// Whether it gives the same for the same operands.
    pub(super) fn is_repeatable(&self) -> bool {
        self.operation.is_repeatable()
    }

    /// The numbers of the rows of a batch.
    ///
    /// # Errors
    /// [`DataFusionError::Internal`] for a batch without them.
    pub(super) fn row_numbers(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let numbers = self.children.last().ok_or_else(|| DataFusionError::Internal("an expression without row numbers".to_owned()))?;
        numbers.evaluate(batch)?.into_array(batch.num_rows())
    }
}

impl PhysicalExpr for Part {
    fn data_type(&self, _input: &Schema) -> Result<DataType> {
        Ok(self.operation.data_type().clone())
    }

    fn nullable(&self, _input: &Schema) -> Result<bool> {
        Ok(true)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let rows = batch.num_rows();
        let operands = self.children.split_last().map_or(&[][..], |(_, operands)| operands);
        let columns = operands.iter().map(|operand| operand.evaluate(batch)?.into_array(rows)).collect::<Result<Vec<_>>>()?;
        let mut failed = Vec::new();
        let values = self.operation.compute(columns.clone(), rows, &mut failed)?;
        if !failed.is_empty() {
            let numbers = self.row_numbers(batch)?;
            let numbers = numbers.as_primitive_opt::<UInt32Type>();
            let row_of = |row: usize| numbers.filter(|numbers| row < numbers.len()).map_or(row, |numbers| numbers.value(row) as usize);
            let reasons = self.operation.reasons(&columns)?;
            FAILED.with_borrow_mut(|all| {
                all.extend(failed.into_iter().map(|row| RowError { row: row_of(row), reason: reasons.of(row).to_owned() }));
            });
        }
        Ok(ColumnarValue::Array(values))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.children.iter().collect()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Self { operation: Arc::clone(&self.operation), children, original: Arc::clone(&self.original) }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.original.fmt_sql(f)
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Total({:?})", self.original)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.original.fmt(f)
    }
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        self.operation == other.operation && self.children.eq(&other.children)
    }
}

impl Eq for Part {}

impl Hash for Part {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.operation.hash(state);
        self.children.hash(state);
    }
}
