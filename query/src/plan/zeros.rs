//! One zero where DOUBLE values are compared without an operator: in `x IN (...)`, `CASE x WHEN ...` and `NULLIF(x, ...)` `-0.0` is
//! `0.0`, as it is for `=`.
//!
//! DataFusion compares there by bits. Used for queries that do not end (`plan/expression`) and for those that do (`pull/total`).

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::{
    common::{DFSchema, DataFusionError, Result, ScalarValue, tree_node::Transformed},
    logical_expr::{
        BinaryExpr, Case, Expr, ExprSchemable as _, Operator, ScalarUDF,
        expr::{InList, ScalarFunction},
    },
};

use crate::functions::{Registered, find};

/// Such an expression whose two sides have no `-0.0`; others as they are. Types are coerced already.
///
/// # Errors
/// Those of the expression's types.
pub(crate) fn with_one_zero(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let is_double = |expr: &Expr| Ok::<_, DataFusionError>(expr.get_type(schema)? == DataType::Float64);
    Ok(Transformed::yes(match expr {
        Expr::InList(InList { expr, list, negated }) if is_double(&expr)? => {
            Expr::InList(InList { expr: Box::new(positive(*expr)), list: list.into_iter().map(positive).collect(), negated })
        }
        Expr::Case(Case { expr: Some(compared), when_then_expr, else_expr }) if is_double(&compared)? => {
            let when_then_expr = when_then_expr.into_iter().map(|(when, then)| (Box::new(positive(*when)), then)).collect();
            Expr::Case(Case { expr: Some(Box::new(positive(*compared))), when_then_expr, else_expr })
        }
        Expr::ScalarFunction(ScalarFunction { func, args })
            if func.name() == "nullif" && args.first().is_some_and(|x| is_double(x).unwrap_or(false)) =>
        {
            // Ours compares so, and gives the value as it is: `-0.0` that is not NULL stays `-0.0`.
            let ours = find("nullif").map(|function| Arc::new(ScalarUDF::from(Registered::named(function))));
            Expr::ScalarFunction(ScalarFunction { func: ours.unwrap_or(func), args })
        }
        other => return Ok(Transformed::no(other)),
    }))
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
