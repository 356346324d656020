//! The comparisons that stay with DataFusion, typed as the dialect types them.
//!
//! An analyzer rule of the session for `ksql`, before type coercion, which would make a DECIMAL of a DOUBLE beside one, and NULL of
//! what has no room in it.

use arrow::datatypes::DataType;
use datafusion::{
    common::{
        DFSchema, DataFusionError, Result,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, expr::InList, expr_rewriter::NamePreserver, utils::merge_schema,
    },
    optimizer::AnalyzerRule,
};

use crate::{catalog::types::kept_as, plan::comparison};

/// Types what a plan compares.
#[derive(Debug)]
pub(crate) struct Comparisons;

impl AnalyzerRule for Comparisons {
    fn name(&self) -> &'static str {
        "comparisons"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(type_comparisons).map(|typed| typed.data)
    }
}

fn type_comparisons(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = merge_schema(&plan.inputs());
    // What stands above names columns by the expressions that they were.
    let names = NamePreserver::new(&plan);
    let typed = |expr: Expr| {
        let name = names.save(&expr);
        Ok(expr.transform_up(|expr| type_one(expr, &schema))?.update_data(|expr| name.restore(expr)))
    };
    plan.map_expressions(typed)?.map_data(LogicalPlan::recompute_schema)
}

fn type_one(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
            match (own_type(&left, schema), own_type(&right, schema)) {
                (Some(of_left), Some(of_right)) => {
                    let compared = comparison::typed((*left, of_left), op, (*right, of_right));
                    compared.map(Transformed::yes).map_err(|error| DataFusionError::External(Box::new(error)))
                }
                _ => Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
            }
        }
        Expr::InList(InList { expr, list, negated }) => {
            let of_list: Option<Vec<DataType>> = list.iter().map(|one| own_type(one, schema)).collect();
            match (own_type(&expr, schema), of_list) {
                (Some(of_expr), Some(of_list)) => {
                    let list = list.into_iter().zip(of_list).collect();
                    let listed = comparison::typed_list((*expr, of_expr), list);
                    let (expr, list) = listed.map_err(|error| DataFusionError::External(Box::new(error)))?;
                    Ok(Transformed::yes(Expr::InList(InList { expr: Box::new(expr), list, negated })))
                }
                _ => Ok(Transformed::no(Expr::InList(InList { expr, list, negated }))),
            }
        }
        other => Ok(Transformed::no(other)),
    }
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

/// The type of an operand, if it is one of ours.
fn own_type(operand: &Expr, schema: &DFSchema) -> Option<DataType> {
    // Who has no type yet is told what is wrong by the rules behind this one.
    let data_type = operand.get_type(schema).ok()?;
    (kept_as(&data_type).as_ref() == Some(&data_type)).then_some(data_type)
}
