//! The comparisons that stay with DataFusion, and the columns that a UNION puts together, typed as the dialect types them.
//!
//! An analyzer rule of the session for `ksql`, before type coercion, which would make a DECIMAL of a DOUBLE beside one, and NULL of
//! what has no room in it.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::{
    common::{
        Column, DFSchema, DataFusionError, Result,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, Operator, Union,
        expr::{InList, InSubquery},
        expr_rewriter::NamePreserver,
        utils::merge_schema,
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
    let plan = match plan {
        LogicalPlan::Union(union) => type_union(union)?,
        LogicalPlan::Join(join) => LogicalPlan::Join(type_keys(join)),
        other => other,
    };
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
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            let of_column = subquery.subquery.schema().fields().first().map(|field| field.data_type().clone());
            let (expr, subquery) = match (own_type(&expr, schema), of_column) {
                (Some(exact @ DataType::Decimal128(..)), Some(DataType::Float64)) => {
                    (Box::new(comparison::as_double(*expr, exact)), subquery)
                }
                (Some(DataType::Float64), Some(DataType::Decimal128(..))) => {
                    let plan = Arc::new(with_doubles(Arc::clone(&subquery.subquery), &[true])?);
                    (expr, subquery.with_plan(plan))
                }
                _ => (expr, subquery),
            };
            Ok(Transformed::yes(Expr::InSubquery(InSubquery { expr, subquery, negated })))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// A UNION whose columns of DOUBLE and DECIMAL are columns of DOUBLE.
fn type_union(union: Union) -> Result<LogicalPlan> {
    let is_mixed = |at: usize| {
        let types = || union.inputs.iter().filter_map(|input| input.schema().fields().get(at).map(|field| field.data_type()));
        types().any(|one| *one == DataType::Float64) && types().any(|one| matches!(one, DataType::Decimal128(..)))
    };
    let mixed: Vec<bool> = (0..union.schema.fields().len()).map(is_mixed).collect();
    if !mixed.contains(&true) {
        return Ok(LogicalPlan::Union(union));
    }
    let inputs = union.inputs.into_iter().map(|input| with_doubles(input, &mixed).map(Arc::new));
    Union::try_new_with_loose_types(inputs.collect::<Result<_>>()?).map(LogicalPlan::Union)
}

/// A plan with these of its columns as DOUBLE that are DECIMAL.
fn with_doubles(plan: Arc<LogicalPlan>, these: &[bool]) -> Result<LogicalPlan> {
    let schema = Arc::clone(plan.schema());
    let columns = schema.iter().zip(these).map(|((source, field), is_one)| {
        let column = Expr::Column(Column::from((source, field)));
        match field.data_type() {
            exact @ DataType::Decimal128(..) if *is_one => {
                comparison::as_double(column, exact.clone()).alias_qualified(source.cloned(), field.name())
            }
            _ => column,
        }
    });
    LogicalPlanBuilder::from(Arc::unwrap_or_clone(plan)).project(columns)?.build()
}

/// A join whose keys of DOUBLE and DECIMAL are equal as DOUBLE.
fn type_keys(join: Join) -> Join {
    let keys =
        join.on.iter().cloned().map(|(left, right)| match (own_type(&left, join.left.schema()), own_type(&right, join.right.schema())) {
            (Some(exact @ DataType::Decimal128(..)), Some(DataType::Float64)) => (comparison::as_double(left, exact), right),
            (Some(DataType::Float64), Some(exact @ DataType::Decimal128(..))) => (left, comparison::as_double(right, exact)),
            _ => (left, right),
        });
    Join { on: keys.collect(), ..join.clone() }
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
