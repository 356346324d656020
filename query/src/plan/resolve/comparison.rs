//! Comparisons that DataFusion computes in bounded queries of `ksql`, by which it finds rows and joins.
//!
//! Typed as everywhere in the dialect, and with its conversions, but where DataFusion's lose nothing: it knows those again.

use arrow::datatypes::DataType;
use datafusion::logical_expr::{Expr, Operator};

use super::{
    Typed,
    operator::{binary, comparable, equal},
};
use crate::{
    catalog::{type_name, types::is_nested},
    error::QueryError,
};

/// Operands with their types, compared.
///
/// # Errors
/// [`QueryError::Invalid`] if values of these types cannot be compared.
pub(crate) fn typed(left: (Expr, DataType), op: Operator, right: (Expr, DataType)) -> Result<Expr, QueryError> {
    let refused = |what: &str| {
        let sign = if op == Operator::NotEq { "<>".to_owned() } else { op.to_string() };
        QueryError::Invalid(format!("{sign} {what}: {} and {}", type_name(&left.1), type_name(&right.1)))
    };
    let operands = comparable(of(left.clone()), of(right.clone()))?;
    let (ours_left, ours_right) = operands.ok_or_else(|| refused("cannot compare"))?;
    let is_equality = matches!(op, Operator::Eq | Operator::NotEq);
    if (is_nested(&ours_left.data_type) || ours_left.data_type == DataType::Boolean) && !is_equality {
        return Err(refused("takes values that have an order"));
    }
    Ok(match op {
        Operator::Eq if is_nested(&ours_left.data_type) => equal(ours_left, ours_right),
        Operator::NotEq if is_nested(&ours_left.data_type) => Expr::Not(Box::new(equal(ours_left, ours_right))),
        op if is_integer(&ours_left.data_type) => binary(left.0, op, right.0),
        op => binary(ours_left.expr, op, ours_right.expr),
    })
}

/// A value and a list that it may be in, all of one type.
///
/// # Errors
/// [`QueryError::Invalid`] if the value cannot be compared with one of the list.
pub(crate) fn typed_list(value: (Expr, DataType), list: Vec<(Expr, DataType)>) -> Result<(Expr, Vec<Expr>), QueryError> {
    let among = |value: &Typed, one: &(Expr, DataType)| {
        let refused = || QueryError::Invalid(format!("IN cannot compare: {} and {}", type_name(&value.data_type), type_name(&one.1)));
        comparable(value.clone(), of(one.clone()))?.ok_or_else(refused)
    };
    let mut widest = of(value.clone());
    for one in &list {
        widest = among(&widest, one)?.0;
    }
    if is_integer(&widest.data_type) {
        return Ok((value.0, list.into_iter().map(|(expr, _)| expr).collect()));
    }
    let list = list.iter().map(|one| among(&widest, one).map(|(_, one)| one.expr)).collect::<Result<_, _>>()?;
    Ok((widest.expr, list))
}

/// An exact number as a DOUBLE.
pub(crate) fn as_double(exact: Expr, data_type: DataType) -> Expr {
    of((exact, data_type)).converted_to(&DataType::Float64).expr
}

fn of((expr, data_type): (Expr, DataType)) -> Typed {
    Typed { expr, data_type }
}

fn is_integer(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int32 | DataType::Int64)
}
