//! One operator, cast or call that can fail, as a function of its operands that cannot: where it fails, its value is NULL.
//!
//! Made from an expression of DataFusion by `plan/total` (views, push queries) and `pull/total` (pull queries), so that both
//! have the same arithmetic. All rows are computed at once; only if that fails the rows at fault are looked for by halving.
//! Divisors of zero and casts, the faults that come in numbers, have kernels of their own. A value of more than
//! [`MAX_VALUE_BYTES`] that is larger than every operand is a failure, too; `growth` tells of most of them before they are made.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array, new_null_array},
    buffer::NullBuffer,
    compute::{
        CastOptions, cast_with_options, concat,
        kernels::{cmp, numeric},
        nullif, take,
    },
    datatypes::{DataType, Field, Float64Type, Schema, SchemaRef},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use datafusion::{
    common::{DataFusionError, Result, ScalarValue},
    logical_expr::Operator,
    physical_expr::{
        PhysicalExpr, ScalarFunctionExpr,
        expressions::{
            BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NegativeExpr, NotExpr,
            TryCastExpr,
        },
    },
};

use crate::{
    catalog::type_name,
    functions::{Prepared, Registered},
};

use super::{
    growth::{Bound, Growth, MAX_BATCH_BYTES, MAX_VALUE_BYTES, MAX_WORK_BYTES, sizes_of},
    kernel::{KernelFunction, PreparedKernel},
};

/// The outermost node of an expression, over its operands.
#[derive(Debug)]
pub(crate) struct Operation {
    /// The node with columns 0, 1, ... of `operands` in place of its children; literals stay.
    inner: Arc<dyn PhysicalExpr>,
    operands: SchemaRef,
    kernel: Kernel,
    /// The call, if it is one of ours.
    ours: Option<Ours>,
    data_type: DataType,
    /// None: the values have a fixed size.
    growth: Option<Growth>,
    reason: String,
}

/// How it is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kernel {
    /// A cast that gives NULL by itself.
    Cast,
    /// Zero divisors become NULL first; the divisor is the last operand.
    Divide,
    /// The divisor is always zero.
    DivideByZero,
    /// Its literals are at fault, as a pattern that is none: every row fails, and none is tried.
    Never,
    /// Negation that does not wrap; else as `Halves`.
    Negate,
    /// A function of ours, which tells the rows that fail and bounds its values by itself.
    Registered,
    /// All rows at once, then by halves.
    Halves,
}

/// Why rows of an operation failed.
pub(crate) struct Reasons<'a> {
    reason: &'a str,
    /// Which divisors are zero.
    zeros: Option<BooleanArray>,
}

impl Reasons<'_> {
    /// Of one that failed.
    pub(crate) fn of(&self, row: usize) -> &str {
        let is_zero = self.zeros.as_ref().is_some_and(|zeros| row < zeros.len() && zeros.is_valid(row) && zeros.value(row));
        if is_zero { DIVISION_BY_ZERO } else { self.reason }
    }
}

/// What is said of a row whose divisor is zero.
pub(super) const DIVISION_BY_ZERO: &str = "division by zero";

/// A call of ours, ready to be computed.
#[derive(Debug)]
enum Ours {
    /// Of the registry.
    Function(Prepared),
    /// Of what is written with signs and brackets.
    Kernel(PreparedKernel),
}

impl Ours {
    fn is_repeatable(&self) -> bool {
        match self {
            Self::Function(call) => call.is_repeatable(),
            Self::Kernel(_) => true,
        }
    }
}

impl Operation {
    /// Whether a child of the node is an operand, rather than a part of the operation as literals are.
    pub(crate) fn takes(child: &Arc<dyn PhysicalExpr>) -> bool {
        !child.is::<Literal>()
    }

    /// The operation that the outermost node of an expression is; none if it cannot fail. Its operands are those children that it
    /// [`takes`](Self::takes), in their order.
    ///
    /// # Errors
    /// Those of the expression's types.
    pub(crate) fn of(expression: &Arc<dyn PhysicalExpr>, input: &Schema) -> Result<Option<Self>> {
        let node = expression.as_ref();
        let cannot_fail = node.is::<Column>()
            || node.is::<Literal>()
            || node.is::<NotExpr>()
            || node.is::<IsNullExpr>()
            || node.is::<IsNotNullExpr>()
            || node.is::<CaseExpr>()
            || node.is::<InListExpr>()
            || node.is::<LikeExpr>()
            || node.is::<TryCastExpr>();
        if cannot_fail {
            return Ok(None);
        }
        let data_type = node.data_type(input)?;
        let mut kernel = Kernel::Halves;
        let mut checked = Arc::clone(expression);
        let mut reason;
        if let Some(binary) = node.downcast_ref::<BinaryExpr>() {
            let operator = *binary.op();
            if is_comparison(operator) || matches!(operator, Operator::And | Operator::Or) {
                return Ok(None);
            }
            if binary.left().downcast_ref::<Literal>().is_some_and(|literal| literal.value().is_null()) {
                return Ok(None);
            }
            if matches!(operator, Operator::Divide | Operator::Modulo) && binary.right().data_type(input)?.is_numeric() {
                kernel = division_by(binary.right())?;
            }
            reason = format!("the result of {operator} is out of range");
            checked =
                Arc::new(BinaryExpr::new(Arc::clone(binary.left()), operator, Arc::clone(binary.right())).with_fail_on_overflow(true));
        } else if let Some(cast) = node.downcast_ref::<CastExpr>() {
            let given = cast.expr().data_type(input)?;
            if always_casts(&given, &data_type) {
                return Ok(None);
            }
            if !given.is_nested() && !data_type.is_nested() {
                kernel = Kernel::Cast;
            }
            reason = format!("a value cannot be cast to {}", type_name(&data_type));
        } else if let Some(function) = node.downcast_ref::<ScalarFunctionExpr>() {
            reason = format!("{} failed", function.name());
            let inner = function.fun().inner();
            if inner.is::<Registered>() || inner.is::<KernelFunction>() {
                kernel = Kernel::Registered;
            }
        } else if node.is::<NegativeExpr>() {
            kernel = Kernel::Negate;
            reason = "the result of - is out of range".to_owned();
        } else {
            reason = "a part of the expression failed".to_owned();
        }

        let mut fields = Vec::new();
        let mut inner: Vec<Arc<dyn PhysicalExpr>> = Vec::new();
        for child in checked.children() {
            if !Self::takes(child) {
                inner.push(Arc::clone(child));
                continue;
            }
            let name = format!("operand_{}", fields.len());
            inner.push(Arc::new(Column::new(&name, fields.len())));
            fields.push(Field::new(name, child.data_type(input)?, true));
        }
        let inner = if inner.is_empty() { checked } else { checked.with_new_children(inner)? };
        if kernel == Kernel::Registered {
            return Self::of_ours(inner, Schema::new(fields), data_type, reason).map(Some);
        }
        let growth = Growth::of(inner.as_ref(), &data_type);
        if let Some(growth) = &growth {
            reason = format!("{reason}, {}", growth.limit());
        }
        let mut operation = Self { inner, operands: Arc::new(Schema::new(fields)), kernel, ours: None, data_type, growth, reason };
        if operation.kernel == Kernel::Halves && operation.fails_without_values() {
            operation.kernel = Kernel::Never;
        }
        Ok(Some(operation))
    }

    /// A call of a function of ours over columns and literals.
    fn of_ours(inner: Arc<dyn PhysicalExpr>, operands: Schema, data_type: DataType, reason: String) -> Result<Self> {
        let ours = match inner.downcast_ref::<ScalarFunctionExpr>() {
            Some(call) => Some(match PreparedKernel::of(call)? {
                Some(kernel) => Ours::Kernel(kernel),
                None => Ours::Function(Prepared::of(call, &operands)?),
            }),
            None => None,
        };
        let reason = match &ours {
            Some(Ours::Kernel(kernel)) => kernel.reason().unwrap_or(reason),
            Some(Ours::Function(_)) | None => reason,
        };
        Ok(Self { inner, operands: Arc::new(operands), kernel: Kernel::Registered, ours, data_type, growth: None, reason })
    }

    /// Whether not even NULL can be computed: then there is no use in looking for rows at fault.
    fn fails_without_values(&self) -> bool {
        let nulls: Vec<ArrayRef> = self.operands.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
        let bound = self.growth.as_ref().and_then(|growth| growth.bounds(&nulls, 1).ok()?.first().copied());
        if bound.is_some_and(|bound| bound.bytes > MAX_WORK_BYTES) {
            return false;
        }
        let computed = self.batch(nulls, 1).and_then(|batch| self.inner.evaluate(&batch)?.into_array(1));
        computed.is_err()
    }

    /// Whether it gives the same for the same operands.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.ours.as_ref().is_none_or(Ours::is_repeatable)
    }

    /// Type of the values.
    pub(crate) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// What is said of rows that failed, without their values.
    ///
    /// # Errors
    /// Those of [`Operation::compute`], for the same operands.
    pub(crate) fn reasons(&self, operands: &[ArrayRef]) -> Result<Reasons<'_>> {
        let zeros = match (self.kernel, operands.last()) {
            (Kernel::Divide, Some(divisor)) => Some(zeros(divisor)?),
            _ => None,
        };
        let reason = if self.kernel == Kernel::DivideByZero { DIVISION_BY_ZERO } else { &self.reason };
        Ok(Reasons { reason, zeros })
    }

    /// One value a row; what failed is NULL, and the numbers of these rows are added to `failed`.
    ///
    /// # Errors
    /// [`DataFusionError::ResourcesExhausted`] if the values of several rows together have more than [`MAX_BATCH_BYTES`]; else only
    /// of operands that do not fit the operation.
    pub(crate) fn compute(&self, operands: Vec<ArrayRef>, rows: usize, failed: &mut Vec<usize>) -> Result<ArrayRef> {
        Ok(with_one_nan(self.computed(operands, rows, failed)?))
    }

    fn computed(&self, operands: Vec<ArrayRef>, rows: usize, failed: &mut Vec<usize>) -> Result<ArrayRef> {
        if operands.is_empty() && self.is_repeatable() {
            return self.constant(rows, failed);
        }
        match self.kernel {
            Kernel::Registered => self.ours(&operands, rows, failed),
            Kernel::Cast => self.cast(&operands, failed),
            Kernel::Divide => self.divide(operands, rows, failed),
            Kernel::DivideByZero => {
                failed.extend(operands.iter().flat_map(given));
                Ok(new_null_array(&self.data_type, rows))
            }
            Kernel::Never => {
                failed.extend(0..rows);
                Ok(new_null_array(&self.data_type, rows))
            }
            Kernel::Negate | Kernel::Halves => self.grow(operands, rows, failed),
        }
    }

    /// Computes as many rows at once as there is room for; values that are too large are NULL.
    fn grow(&self, operands: Vec<ArrayRef>, rows: usize, failed: &mut Vec<usize>) -> Result<ArrayRef> {
        let Some(growth) = &self.growth else { return self.halve(&self.batch(operands, rows)?, 0, failed) };
        let bounds = growth.bounds(&operands, rows)?;
        let batch = self.batch(operands, rows)?;
        let mut parts = Vec::new();
        let (mut first, mut made) = (0, 0_usize);
        while first < rows {
            let mut bytes = 0_usize;
            let has_room = |bound: &&Bound| {
                bytes = bytes.saturating_add(bound.bytes);
                bytes <= MAX_WORK_BYTES
            };
            let room = bounds.iter().skip(first).take_while(has_room).count();
            let taken = room.max(1);
            if room == 0 {
                failed.push(first);
                parts.push(new_null_array(&self.data_type, 1));
            } else {
                let values = self.halve(&batch.slice(first, taken), first, failed)?;
                parts.push(if bytes <= MAX_VALUE_BYTES { values } else { without_large(values, first, &bounds, &mut made, failed)? });
            }
            if made > MAX_BATCH_BYTES && rows > 1 {
                return Err(too_much_at_once());
            }
            first += taken;
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        if parts.is_empty() { Ok(new_null_array(&self.data_type, 0)) } else { Ok(concat(&parts)?) }
    }

    /// The same value for every row, computed once.
    fn constant(&self, rows: usize, failed: &mut Vec<usize>) -> Result<ArrayRef> {
        let mut once = Vec::new();
        let value = match self.kernel {
            Kernel::DivideByZero | Kernel::Never => {
                once.push(0);
                new_null_array(&self.data_type, 1)
            }
            Kernel::Registered => self.ours(&[], 1, &mut once)?,
            Kernel::Cast | Kernel::Divide | Kernel::Negate | Kernel::Halves => self.grow(Vec::new(), 1, &mut once)?,
        };
        if !once.is_empty() {
            failed.extend(0..rows);
        }
        if rows > 1 && sizes_of(&value)?.iter().sum::<usize>().saturating_mul(rows) > MAX_BATCH_BYTES {
            return Err(too_much_at_once());
        }
        Ok(take(&value, &UInt32Array::from_value(0, rows), None)?)
    }

    fn ours(&self, operands: &[ArrayRef], rows: usize, failed: &mut Vec<usize>) -> Result<ArrayRef> {
        match &self.ours {
            Some(Ours::Function(call)) => call.compute(operands, rows, failed),
            Some(Ours::Kernel(call)) => call.compute(operands, rows, failed),
            None => Err(DataFusionError::Internal("a call of no function".to_owned())),
        }
    }

    fn cast(&self, operands: &[ArrayRef], failed: &mut Vec<usize>) -> Result<ArrayRef> {
        let Some(column) = operands.first() else { return Err(DataFusionError::Internal("a cast of nothing".to_owned())) };
        let safe = CastOptions { safe: true, ..CastOptions::default() };
        let Ok(values) = cast_with_options(column, &self.data_type, &safe) else {
            failed.extend(given(column));
            return Ok(new_null_array(&self.data_type, column.len()));
        };
        if values.null_count() > column.logical_nulls().as_ref().map_or(0, NullBuffer::null_count) {
            failed.extend(given(column).into_iter().filter(|row| values.is_null(*row)));
        }
        Ok(values)
    }

    fn divide(&self, mut operands: Vec<ArrayRef>, rows: usize, failed: &mut Vec<usize>) -> Result<ArrayRef> {
        if let Some(divisor) = operands.last_mut() {
            let zeros = zeros(divisor)?;
            if zeros.true_count() > 0 {
                failed.extend((0..rows).filter(|row| zeros.is_valid(*row) && zeros.value(*row)));
                *divisor = nullif(divisor, &zeros)?;
            }
        }
        if let [dividend, _] = operands.as_slice() {
            failed.retain(|row| dividend.is_valid(*row));
        }
        self.halve(&self.batch(operands, rows)?, 0, failed)
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

    fn batch(&self, operands: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.operands), operands, &options)?)
    }
}

impl PartialEq for Operation {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner) && self.operands == other.operands && self.kernel == other.kernel && self.data_type == other.data_type
    }
}

impl Eq for Operation {}

impl Hash for Operation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
        self.kernel.hash(state);
    }
}

/// The same values with one NaN: what processors make of `0.0 / 0.0` has a sign, by which it would be less than every number.
pub(crate) fn with_one_nan(values: ArrayRef) -> ArrayRef {
    let Some(numbers) = values.as_primitive_opt::<Float64Type>() else { return values };
    if !numbers.values().iter().any(|value| value.is_nan() && value.is_sign_negative()) {
        return values;
    }
    Arc::new(numbers.unary::<_, Float64Type>(|value| if value.is_nan() { f64::NAN } else { value }))
}

/// Nulls the values that are too large for operands of these sizes, and adds up the others.
fn without_large(values: ArrayRef, first: usize, bounds: &[Bound], made: &mut usize, failed: &mut Vec<usize>) -> Result<ArrayRef> {
    let sizes = sizes_of(&values)?;
    let of_part = bounds.iter().skip(first);
    let large: BooleanArray = sizes.iter().zip(of_part).map(|(size, bound)| Some(*size > MAX_VALUE_BYTES.max(bound.operand))).collect();
    *made += sizes.iter().zip(large.values()).filter(|(_, large)| !large).map(|(size, _)| size).sum::<usize>();
    if large.true_count() == 0 {
        return Ok(values);
    }
    failed.extend(large.values().set_indices().map(|row| first + row));
    Ok(nullif(&values, &large)?)
}

fn too_much_at_once() -> DataFusionError {
    DataFusionError::ResourcesExhausted(format!("an expression makes more than {MAX_BATCH_BYTES} bytes of one batch of rows"))
}

/// Rows whose value is not NULL.
fn given(column: &ArrayRef) -> Vec<usize> {
    let nulls = column.logical_nulls();
    (0..column.len()).filter(|row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row))).collect()
}

fn division_by(divisor: &Arc<dyn PhysicalExpr>) -> Result<Kernel> {
    let Some(literal) = divisor.downcast_ref::<Literal>() else { return Ok(Kernel::Divide) };
    Ok(if zeros(&literal.value().to_array()?)?.true_count() > 0 { Kernel::DivideByZero } else { Kernel::Halves })
}

/// Which numbers are zero; a DOUBLE has two of them.
fn zeros(numbers: &ArrayRef) -> Result<BooleanArray> {
    let zero = ScalarValue::new_zero(numbers.data_type())?.to_scalar()?;
    if numbers.data_type().is_floating() {
        return Ok(cmp::eq(&numeric::add_wrapping(numbers, &zero)?, &zero)?);
    }
    Ok(cmp::eq(numbers, &zero)?)
}

/// Whether every value of a type has one of the other.
fn always_casts(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Boolean, Decimal128, Float32, Float64, Int8, Int16, Int32, Int64, LargeUtf8, Null, UInt8, UInt16, UInt32, Utf8, Utf8View,
    };
    let is_text = |one: &DataType| matches!(one, Utf8 | LargeUtf8 | Utf8View);
    from == to
        || matches!(from, Null) && !to.is_nested()
        || is_text(from) && is_text(to)
        || (from.is_integer() || matches!(from, Boolean)) && (is_text(to) || matches!(to, Float32 | Float64))
        || matches!(
            (from, to),
            (Int8, Int16 | Int32 | Int64)
                | (Int16, Int32 | Int64)
                | (Int32, Int64)
                | (UInt8, Int16 | Int32 | Int64)
                | (UInt16, Int32 | Int64)
                | (UInt32, Int64)
                | (Float32, Float64)
        )
        || matches!((from, to), (Decimal128(p, s), Decimal128(q, t)) if t >= s && i16::from(*q) - i16::from(*t) >= i16::from(*p) - i16::from(*s))
        || matches!(to, Decimal128(p, s) if from.is_integer() && *s >= 0 && i16::from(*p) - i16::from(*s) >= 20)
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
