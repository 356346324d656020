//! `+ - * / %` and unary minus as the `ksql` dialect has them: integers wrap, DOUBLE is IEEE's, DECIMAL is exact or NULL.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, PrimitiveArray},
    datatypes::{ArrowPrimitiveType, DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Float64Type, Int32Type, Int64Type, i256},
};
use datafusion::common::{DataFusionError, Result};

use crate::plan::{kernel::Kernel, operation::DIVISION_BY_ZERO};

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl Operation {
    /// The sign.
    pub(super) const fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
        }
    }
}

/// The DECIMAL that an operation over two of them gives; none if it has more than 38 digits.
pub(super) fn decimal_result(operation: Operation, (p1, s1): (u8, i8), (p2, s2): (u8, i8)) -> Option<(u8, i8)> {
    let (p1, s1, p2, s2) = (i16::from(p1), i16::from(s1), i16::from(p2), i16::from(s2));
    let (precision, scale) = match operation {
        Operation::Add | Operation::Subtract => {
            let scale = s1.max(s2);
            ((p1 - s1).max(p2 - s2) + scale + 1, scale)
        }
        Operation::Multiply => (p1 + p2 + 1, s1 + s2),
        Operation::Divide => {
            let scale = (s1 + p2 + 1).max(6);
            (p1 - s1 + s2 + scale, scale)
        }
        Operation::Modulo => {
            let scale = s1.max(s2);
            ((p1 - s1).min(p2 - s2) + scale, scale)
        }
    };
    let precision = u8::try_from(precision).ok().filter(|precision| *precision <= DECIMAL128_MAX_PRECISION)?;
    Some((precision, i8::try_from(scale).ok()?))
}

/// Of two numbers of one type, or of two DECIMAL.
#[derive(Debug)]
pub(super) struct Arithmetic {
    pub(super) operation: Operation,
    pub(super) returns: DataType,
    /// Whether NULL is a failure, rather than NULL.
    pub(super) null_fails: bool,
}

impl Kernel for Arithmetic {
    fn compute(&self, operands: &[ArrayRef], rows: usize, failed: &mut Vec<usize>) -> Result<ArrayRef> {
        let [left, right] = operands else { return Err(DataFusionError::Internal("two operands are needed".to_owned())) };
        if self.null_fails {
            failed.extend((0..rows).filter(|row| left.is_null(*row) || right.is_null(*row)));
        }
        match (&self.returns, left.data_type(), right.data_type()) {
            (DataType::Int32, ..) => Ok(each::<Int32Type>(left, right, rows, failed, |left, right| match self.operation {
                Operation::Add => Some(left.wrapping_add(right)),
                Operation::Subtract => Some(left.wrapping_sub(right)),
                Operation::Multiply => Some(left.wrapping_mul(right)),
                Operation::Divide => (right != 0).then(|| left.wrapping_div(right)),
                Operation::Modulo => (right != 0).then(|| left.wrapping_rem(right)),
            })),
            (DataType::Int64, ..) => Ok(each::<Int64Type>(left, right, rows, failed, |left, right| match self.operation {
                Operation::Add => Some(left.wrapping_add(right)),
                Operation::Subtract => Some(left.wrapping_sub(right)),
                Operation::Multiply => Some(left.wrapping_mul(right)),
                Operation::Divide => (right != 0).then(|| left.wrapping_div(right)),
                Operation::Modulo => (right != 0).then(|| left.wrapping_rem(right)),
            })),
            (DataType::Float64, ..) => Ok(each::<Float64Type>(left, right, rows, failed, |left, right| {
                Some(match self.operation {
                    Operation::Add => left + right,
                    Operation::Subtract => left - right,
                    Operation::Multiply => left * right,
                    Operation::Divide => left / right,
                    Operation::Modulo => left % right,
                })
            })),
            (DataType::Decimal128(precision, scale), DataType::Decimal128(_, left_scale), DataType::Decimal128(_, right_scale)) => {
                let of = Decimals { operation: self.operation, left: *left_scale, right: *right_scale, scale: *scale };
                let most = 10_i128.pow(u32::from(*precision)) - 1;
                let values = each_decimal(left, right, rows, failed, |left, right| {
                    of.compute(left, right).filter(|value| value.unsigned_abs() <= most.unsigned_abs())
                });
                Ok(Arc::new(values.with_data_type(self.returns.clone())))
            }
            (other, ..) => Err(DataFusionError::Internal(format!("no arithmetic gives {other}"))),
        }
    }

    fn reason(&self) -> Option<String> {
        let divides = matches!(self.operation, Operation::Divide | Operation::Modulo);
        let sign = self.operation.sign();
        Some(match &self.returns {
            // Nothing else fails: they wrap around.
            DataType::Int32 | DataType::Int64 if divides && !self.null_fails => DIVISION_BY_ZERO.to_owned(),
            DataType::Decimal128(..) if divides => format!("{sign} has a divisor of zero, or a result that is not exact or out of range"),
            DataType::Decimal128(..) => format!("the result of {sign} is out of range"),
            _ => return None,
        })
    }
}

/// Arithmetic over unscaled values.
struct Decimals {
    operation: Operation,
    left: i8,
    right: i8,
    scale: i8,
}

impl Decimals {
    /// The unscaled result; none if it is not exact or out of range.
    fn compute(&self, left: i128, right: i128) -> Option<i128> {
        let (left, right) = (i256::from_i128(left), i256::from_i128(right));
        match self.operation {
            Operation::Add | Operation::Subtract | Operation::Modulo => {
                let left = left.checked_mul(ten_to(self.scale - self.left)?)?;
                let right = right.checked_mul(ten_to(self.scale - self.right)?)?;
                match self.operation {
                    Operation::Add => left.checked_add(right)?.to_i128(),
                    Operation::Subtract => left.checked_sub(right)?.to_i128(),
                    _ => left.checked_rem(right)?.to_i128(),
                }
            }
            Operation::Multiply => left.checked_mul(right)?.to_i128(),
            Operation::Divide => {
                let shift = i16::from(self.scale) + i16::from(self.right) - i16::from(self.left);
                let left = left.checked_mul(ten_to(i8::try_from(shift).ok()?)?)?;
                if right == i256::ZERO || left.checked_rem(right)? != i256::ZERO {
                    return None;
                }
                left.checked_div(right)?.to_i128()
            }
        }
    }
}

fn ten_to(power: i8) -> Option<i256> {
    let power = u32::try_from(power).ok()?;
    i256::from_i128(10).checked_pow(power)
}

fn each<T: ArrowPrimitiveType>(
    left: &ArrayRef,
    right: &ArrayRef,
    rows: usize,
    failed: &mut Vec<usize>,
    compute: impl Fn(T::Native, T::Native) -> Option<T::Native>,
) -> ArrayRef {
    Arc::new(each_of::<T>(left.as_primitive(), right.as_primitive(), rows, failed, compute))
}

fn each_decimal(
    left: &ArrayRef,
    right: &ArrayRef,
    rows: usize,
    failed: &mut Vec<usize>,
    compute: impl Fn(i128, i128) -> Option<i128>,
) -> PrimitiveArray<Decimal128Type> {
    each_of::<Decimal128Type>(left.as_primitive(), right.as_primitive(), rows, failed, compute)
}

fn each_of<T: ArrowPrimitiveType>(
    left: &PrimitiveArray<T>,
    right: &PrimitiveArray<T>,
    rows: usize,
    failed: &mut Vec<usize>,
    compute: impl Fn(T::Native, T::Native) -> Option<T::Native>,
) -> PrimitiveArray<T> {
    let value = |row: usize| {
        if left.is_null(row) || right.is_null(row) {
            return None;
        }
        let value = compute(left.value(row), right.value(row));
        if value.is_none() {
            failed.push(row);
        }
        value
    };
    (0..rows).map(value).collect()
}

/// Unary minus; integers wrap.
#[derive(Debug)]
pub(super) struct Negate;

impl Kernel for Negate {
    fn compute(&self, operands: &[ArrayRef], _rows: usize, _failed: &mut Vec<usize>) -> Result<ArrayRef> {
        let [operand] = operands else { return Err(DataFusionError::Internal("one operand is needed".to_owned())) };
        Ok(match operand.data_type() {
            DataType::Int32 => Arc::new(operand.as_primitive::<Int32Type>().unary::<_, Int32Type>(i32::wrapping_neg)),
            DataType::Int64 => Arc::new(operand.as_primitive::<Int64Type>().unary::<_, Int64Type>(i64::wrapping_neg)),
            DataType::Float64 => Arc::new(operand.as_primitive::<Float64Type>().unary::<_, Float64Type>(|value| -value)),
            DataType::Decimal128(..) => {
                let negated = operand.as_primitive::<Decimal128Type>().unary::<_, Decimal128Type>(i128::wrapping_neg);
                Arc::new(negated.with_data_type(operand.data_type().clone()))
            }
            other => return Err(DataFusionError::Internal(format!("- of {other}"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Int32Array};

    use super::*;

    fn decimals(values: &[i128], precision: u8, scale: i8) -> ArrayRef {
        Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, scale).unwrap())
    }

    #[test]
    fn integers_wrap_and_division_by_zero_fails_its_row() {
        let (left, right): (ArrayRef, ArrayRef) =
            (Arc::new(Int32Array::from(vec![i32::MAX, 7, i32::MIN])), Arc::new(Int32Array::from(vec![1, 0, -1])));
        let mut failed = Vec::new();
        let add = Arithmetic { operation: Operation::Add, returns: DataType::Int32, null_fails: false };
        let sum = add.compute(&[Arc::clone(&left), Arc::clone(&right)], 3, &mut failed).unwrap();
        assert_eq!(sum.as_primitive::<Int32Type>().values(), &[i32::MIN, 7, i32::MAX]);
        let divide = Arithmetic { operation: Operation::Divide, returns: DataType::Int32, null_fails: false };
        let quotient = divide.compute(&[left, right], 3, &mut failed).unwrap();
        assert_eq!((quotient.is_null(1), quotient.as_primitive::<Int32Type>().value(2), failed), (true, i32::MIN, vec![1]));
    }

    #[test]
    fn a_decimal_is_exact_or_null() {
        // 1.00 / 3.00 has no end; 1.00 / 8.00 = 0.125.
        let (precision, scale) = decimal_result(Operation::Divide, (3, 2), (3, 2)).unwrap();
        assert_eq!((precision, scale), (9, 6));
        let divide = Arithmetic { operation: Operation::Divide, returns: DataType::Decimal128(precision, scale), null_fails: false };
        let mut failed = Vec::new();
        let values = divide.compute(&[decimals(&[100, 100], 3, 2), decimals(&[300, 800], 3, 2)], 2, &mut failed).unwrap();
        assert_eq!((failed, values.is_null(0), values.as_primitive::<Decimal128Type>().value(1)), (vec![0], true, 125_000));
        assert_eq!(decimal_result(Operation::Add, (4, 2), (3, 1)), Some((5, 2)));
        assert_eq!(decimal_result(Operation::Multiply, (38, 2), (3, 1)), None);
    }
}
