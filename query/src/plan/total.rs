//! Makes expressions total: where a call, an operator or a cast fails, its value is NULL and the row is told.
//!
//! [`make_total`] wraps every part of a DataFusion expression that can fail. A wrapped part computes its operands first, then
//! itself over all rows at once; only if that fails it looks for the rows at fault by halving. Divisors of zero and casts, the
//! faults that come in numbers, have kernels of their own. What always holds: a wrapped part never returns an error, and the
//! rows told are rows of the batch that [`collect`] was given, however CASE and AND cut it on the way.

use std::{
    cell::RefCell,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array, new_null_array},
    compute::{
        CastOptions, cast_with_options, concat,
        kernels::{cmp, numeric},
        nullif,
    },
    datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use datafusion::{
    common::{DataFusionError, Result, ScalarValue},
    logical_expr::{ColumnarValue, Operator},
    physical_expr::{
        PhysicalExpr, ScalarFunctionExpr,
        expressions::{
            BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NegativeExpr, NotExpr,
            TryCastExpr,
        },
    },
};

use super::expression::RowError;

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
    let Some(part) = Part::of(&expression, input)? else { return Ok((expression, fallible)) };
    Ok((Arc::new(part), true))
}

/// Evaluates an expression made total over a batch, and returns what failed on the way.
///
/// # Errors
/// None that a part could have: only those of a batch that does not fit the expression.
pub fn collect(expression: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<(ArrayRef, Vec<RowError>)> {
    let rows = batch.num_rows();
    let numbered = with_row_numbers(batch)?;
    FAILED.with_borrow_mut(Vec::clear);
    let values = expression.evaluate(&numbered)?.into_array(rows)?;
    let mut errors = FAILED.take();
    errors.sort_by_key(|error| error.row);
    Ok((values, errors))
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
struct Part {
    /// The part over its operands: those that are not literals are columns 0, 1, ... of `operands`.
    inner: Arc<dyn PhysicalExpr>,
    operands: SchemaRef,
    /// The operands themselves, then the column with the row numbers.
    children: Vec<Arc<dyn PhysicalExpr>>,
    /// The part as it was, for its name.
    original: Arc<dyn PhysicalExpr>,
    kernel: Kernel,
    data_type: DataType,
    reason: String,
}

/// How the part is computed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kernel {
    /// A cast that gives NULL by itself.
    Cast,
    /// Zero divisors become NULL first.
    Divide,
    /// Negation that does not wrap; else as `Halves`.
    Negate,
    /// All rows at once, then by halves.
    Halves,
}

impl Part {
    /// The part that the outermost node of an expression is, if it can fail.
    fn of(expression: &Arc<dyn PhysicalExpr>, input: &Schema) -> Result<Option<Self>> {
        let node = expression.as_ref();
        let cannot_fail = node.is::<Column>()
            || node.is::<Literal>()
            || node.is::<NotExpr>()
            || node.is::<IsNullExpr>()
            || node.is::<IsNotNullExpr>()
            || node.is::<CaseExpr>()
            || node.is::<InListExpr>()
            || node.is::<LikeExpr>()
            || node.is::<TryCastExpr>()
            || node.is::<Part>();
        if cannot_fail {
            return Ok(None);
        }
        let data_type = node.data_type(input)?;
        let mut kernel = Kernel::Halves;
        let mut checked = Arc::clone(expression);
        let reason;
        if let Some(binary) = node.downcast_ref::<BinaryExpr>() {
            let operator = *binary.op();
            if is_comparison(operator) || matches!(operator, Operator::And | Operator::Or) {
                return Ok(None);
            }
            if matches!(operator, Operator::Divide | Operator::Modulo) && binary.right().data_type(input)?.is_numeric() {
                kernel = Kernel::Divide;
            }
            reason = format!("the result of {operator} is out of range");
            checked =
                Arc::new(BinaryExpr::new(Arc::clone(binary.left()), operator, Arc::clone(binary.right())).with_fail_on_overflow(true));
        } else if node.is::<CastExpr>() {
            kernel = Kernel::Cast;
            reason = format!("a value cannot be cast to {data_type}");
        } else if let Some(function) = node.downcast_ref::<ScalarFunctionExpr>() {
            reason = format!("{} failed", function.name());
        } else if node.is::<NegativeExpr>() {
            kernel = Kernel::Negate;
            reason = "the result of - is out of range".to_owned();
        } else {
            reason = "a part of the expression failed".to_owned();
        }

        let children = checked.children().into_iter().map(Arc::clone).collect::<Vec<_>>();
        let mut fields = Vec::new();
        let mut inner_children: Vec<Arc<dyn PhysicalExpr>> = Vec::new();
        for child in &children {
            if child.is::<Literal>() && kernel == Kernel::Halves {
                inner_children.push(Arc::clone(child));
                continue;
            }
            let name = format!("operand_{}", fields.len());
            inner_children.push(Arc::new(Column::new(&name, fields.len())));
            fields.push(Field::new(name, child.data_type(input)?, true));
        }
        let mut operands = children;
        operands.push(Arc::new(Column::new(ROW, input.fields().len())));
        let inner = if inner_children.is_empty() { checked } else { checked.with_new_children(inner_children)? };
        let schema = Arc::new(Schema::new(fields));
        Ok(Some(Self { inner, operands: schema, children: operands, original: Arc::clone(expression), kernel, data_type, reason }))
    }

    fn compute(&self, columns: Vec<ArrayRef>, rows: usize, failed: &mut Vec<usize>) -> Result<ArrayRef> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        match self.kernel {
            Kernel::Cast => {
                let Some(column) = columns.first() else { return Err(DataFusionError::Internal("a cast of nothing".to_owned())) };
                let nulls = column.logical_nulls();
                let given = |row: &usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row));
                let safe = CastOptions { safe: true, ..CastOptions::default() };
                let Ok(values) = cast_with_options(column, &self.data_type, &safe) else {
                    failed.extend((0..rows).filter(given));
                    return Ok(new_null_array(&self.data_type, rows));
                };
                if values.null_count() > nulls.as_ref().map_or(0, arrow::buffer::NullBuffer::null_count) {
                    failed.extend((0..rows).filter(|row| values.is_null(*row) && given(row)));
                }
                Ok(values)
            }
            Kernel::Divide => {
                let mut columns = columns;
                if let Some(divisor) = columns.get_mut(1) {
                    let zero = ScalarValue::new_zero(divisor.data_type())?.to_scalar()?;
                    let zeros: BooleanArray = cmp::eq(divisor, &zero)?;
                    if zeros.true_count() > 0 {
                        failed.extend((0..rows).filter(|row| zeros.is_valid(*row) && zeros.value(*row)));
                        *divisor = nullif(divisor, &zeros)?;
                    }
                }
                let dividend_is_null = columns.first().map(Arc::clone);
                failed.retain(|row| dividend_is_null.as_ref().is_none_or(|dividend| dividend.is_valid(*row)));
                self.halve(&RecordBatch::try_new_with_options(Arc::clone(&self.operands), columns, &options)?, 0, failed)
            }
            Kernel::Negate | Kernel::Halves => {
                self.halve(&RecordBatch::try_new_with_options(Arc::clone(&self.operands), columns, &options)?, 0, failed)
            }
        }
    }

    /// Computes all rows at once; if that fails, each half for itself.
    fn halve(&self, batch: &RecordBatch, first: usize, failed: &mut Vec<usize>) -> Result<ArrayRef> {
        let rows = batch.num_rows();
        let computed = match (self.kernel, batch.columns().first()) {
            (Kernel::Negate, Some(column)) => numeric::neg(column).map_err(DataFusionError::from),
            _ => self.inner.evaluate(batch).and_then(|value| value.into_array(rows)),
        };
        match computed {
            Ok(values) => Ok(values),
            Err(_) if rows <= 1 => {
                failed.extend((rows == 1).then_some(first));
                Ok(new_null_array(&self.data_type, rows))
            }
            Err(_) => {
                let middle = rows / 2;
                let left = self.halve(&batch.slice(0, middle), first, failed)?;
                let right = self.halve(&batch.slice(middle, rows - middle), first + middle, failed)?;
                Ok(concat(&[left.as_ref(), right.as_ref()])?)
            }
        }
    }
}

fn is_comparison(operator: Operator) -> bool {
    matches!(
        operator,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

impl PhysicalExpr for Part {
    fn data_type(&self, _input: &Schema) -> Result<DataType> {
        Ok(self.data_type.clone())
    }

    fn nullable(&self, _input: &Schema) -> Result<bool> {
        Ok(true)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let rows = batch.num_rows();
        let Some((numbers, operands)) = self.children.split_last() else {
            return Err(DataFusionError::Internal("an expression without row numbers".to_owned()));
        };
        let mut columns = Vec::with_capacity(operands.len());
        for operand in operands {
            if operand.is::<Literal>() && self.kernel == Kernel::Halves {
                continue;
            }
            columns.push(operand.evaluate(batch)?.into_array(rows)?);
        }
        let mut failed = Vec::new();
        let values = self.compute(columns, rows, &mut failed)?;
        if !failed.is_empty() {
            let numbers = numbers.evaluate(batch)?.into_array(rows)?;
            let numbers = numbers.as_primitive_opt::<UInt32Type>();
            let row_of = |row: usize| numbers.filter(|numbers| row < numbers.len()).map_or(row, |numbers| numbers.value(row) as usize);
            FAILED.with_borrow_mut(|all| {
                all.extend(failed.into_iter().map(|row| RowError { row: row_of(row), reason: self.reason.clone() }));
            });
        }
        Ok(ColumnarValue::Array(values))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.children.iter().collect()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Self {
            inner: Arc::clone(&self.inner),
            operands: Arc::clone(&self.operands),
            children,
            original: Arc::clone(&self.original),
            kernel: self.kernel,
            data_type: self.data_type.clone(),
            reason: self.reason.clone(),
        }))
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
        self.inner.eq(&other.inner) && self.children.eq(&other.children) && self.kernel == other.kernel
    }
}

impl Eq for Part {}

impl Hash for Part {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
        self.children.hash(state);
    }
}
