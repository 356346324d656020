//! What the conjuncts of a filter say about single columns: the values that one may have, or its bounds.

use datafusion::{
    common::ScalarValue,
    logical_expr::{BinaryExpr, Expr, Operator},
};

/// The values that a column may have where `filter` is true: `column = value`, `column IN (...)`, or several of them with OR.
pub(super) fn values(filter: &Expr) -> Option<(&str, Vec<&ScalarValue>)> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (&**left, &**right) {
            (Expr::Column(column), Expr::Literal(value, _)) | (Expr::Literal(value, _), Expr::Column(column)) => {
                Some((&column.name, vec![value]))
            }
            _ => None,
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (name, mut values) = self::values(left)?;
            let (other, more) = self::values(right)?;
            values.extend(more);
            (name == other).then_some((name, values))
        }
        Expr::InList(list) if !list.negated => {
            let Expr::Column(column) = &*list.expr else { return None };
            Some((&column.name, list.list.iter().map(Expr::as_literal).collect::<Option<_>>()?))
        }
        _ => None,
    }
}

/// One side of a range of integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// Inclusive.
    From(u64),
    /// Exclusive.
    Until(u64),
    /// Exactly this one.
    At(u64),
}

/// The bound that `filter` sets for a column of integers.
pub(super) fn bound(filter: &Expr) -> Option<(&str, Bound)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return None };
    let (column, op, value) = match (&**left, &**right) {
        (Expr::Column(column), Expr::Literal(value, _)) => (column, *op, value),
        (Expr::Literal(value, _), Expr::Column(column)) => (column, op.swap()?, value),
        _ => return None,
    };
    let value = match value {
        ScalarValue::Int64(Some(value)) => *value,
        ScalarValue::Int32(Some(value)) => i64::from(*value),
        _ => return None,
    };
    let at = u64::try_from(value).ok()?;
    let bound = match op {
        Operator::Eq => Bound::At(at),
        Operator::GtEq => Bound::From(at),
        Operator::Gt => Bound::From(at.checked_add(1)?),
        Operator::Lt => Bound::Until(at),
        Operator::LtEq => Bound::Until(at.checked_add(1)?),
        _ => return None,
    };
    Some((&column.name, bound))
}
