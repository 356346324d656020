//! One zero in lists of DOUBLE: `x IN (...)` is read as `x = ... OR ...`, for which `-0.0` is `0.0`.
//!
//! DataFusion looks for elements by their bits. Used for queries that do not end (`plan/expression`) and for those that do (`pull/total`).

use arrow::datatypes::DataType;
use datafusion::{
    common::{DFSchema, Result, ScalarValue, tree_node::Transformed},
    logical_expr::{BinaryExpr, Expr, ExprSchemable as _, Operator, expr::InList},
};

/// An IN over DOUBLE whose two sides have no `-0.0`; other expressions as they are. Types are coerced already.
///
/// # Errors
/// Those of the expression's types.
pub(crate) fn with_one_zero(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::InList(InList { expr, list, negated }) = expr else { return Ok(Transformed::no(expr)) };
    if expr.get_type(schema)? != DataType::Float64 {
        return Ok(Transformed::no(Expr::InList(InList { expr, list, negated })));
    }
    let list = list.into_iter().map(positive).collect();
    Ok(Transformed::yes(Expr::InList(InList { expr: Box::new(positive(*expr)), list, negated })))
}

/// The same number, of zeros the positive one.
fn positive(expr: Expr) -> Expr {
    let zero = || Expr::Literal(ScalarValue::Float64(Some(0.0)), None);
    match expr {
        // Either zero.
        Expr::Literal(ScalarValue::Float64(Some(0.0)), _) => zero(),
        literal @ Expr::Literal(..) => literal,
        other => Expr::BinaryExpr(BinaryExpr::new(Box::new(other), Operator::Plus, Box::new(zero()))),
    }
}
