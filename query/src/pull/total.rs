//! Bounded queries compute as queries that do not end: where a part of an expression fails, its value is NULL.
//!
//! An analyzer rule on the session of `pull/session`, after type coercion: every operator, cast and call that can fail becomes a
//! function around its [`Operation`]. It comes before the optimiser, so that no rule of DataFusion's can rewrite what fails
//! (`CAST(a AS INT) < 5` is not `a < 5`), and constants are folded by the same arithmetic.

use std::fmt::Write as _;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::{
    common::{
        Column, DFSchema, DataFusionError, Result,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    execution::context::ExecutionProps,
    logical_expr::{
        ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        expr_rewriter::NamePreserver, physical_planning_context::PhysicalPlanningContext, utils::merge_schema,
    },
    optimizer::AnalyzerRule,
    physical_expr::create_physical_expr,
};

use super::ksql;
use crate::plan::{Operation, with_one_zero};

/// Stands around the number of an operand in the name of its column; no statement contains it.
const MARK: char = '\0';

/// Aggregates whose result is as long as all their values.
const COLLECTING: [&str; 2] = ["string_agg", "array_agg"];
/// Longest delimiter of `string_agg`.
const MAX_DELIMITER_BYTES: usize = 64;

/// Makes every expression of a plan total.
#[derive(Debug)]
pub(super) struct TotalArithmetic;

impl AnalyzerRule for TotalArithmetic {
    fn name(&self) -> &'static str {
        "total_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.apply_with_subqueries(|node| node.apply_expressions(|expr| expr.apply(collects_little)))?;
        plan.transform_up_with_subqueries(make_total).map(|made| made.data)
    }
}

/// Refuses aggregates that collect values where their result outgrows what the memory pool is told of: for each row of a window
/// again, or with a long delimiter between values.
fn collects_little(expr: &Expr) -> Result<TreeNodeRecursion> {
    let refused = match expr {
        Expr::WindowFunction(call) if COLLECTING.contains(&call.fun.name()) => format!("{} with OVER", call.fun.name()),
        Expr::AggregateFunction(call) if call.func.name() == "string_agg" && !call.params.args.get(1).is_none_or(is_short) => {
            format!("string_agg with a delimiter that is no literal of at most {MAX_DELIMITER_BYTES} bytes")
        }
        _ => return Ok(TreeNodeRecursion::Continue),
    };
    Err(DataFusionError::NotImplemented(refused))
}

fn is_short(delimiter: &Expr) -> bool {
    match delimiter {
        Expr::Literal(value, _) => value.is_null() || value.try_as_str().flatten().is_some_and(|text| text.len() <= MAX_DELIMITER_BYTES),
        Expr::Cast(cast) => is_short(&cast.expr),
        _ => false,
    }
}

fn make_total(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = merge_schema(&plan.inputs());
    // What stands above names columns by the expressions that they were.
    let names = NamePreserver::new(&plan);
    let made = |expr: Expr| {
        let name = names.save(&expr);
        let one_zero = expr.transform_up(|expr| with_one_zero(expr, &schema))?;
        let made = one_zero.transform_data(|expr| expr.transform_up(|expr| total(expr, &schema)))?;
        Ok(made.update_data(|expr| name.restore(expr)))
    };
    plan.map_expressions(made)?.map_data(LogicalPlan::recompute_schema)
}

/// The outermost node of an expression as a function that cannot fail, if it is one that can.
fn total(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let can_fail = match &expr {
        Expr::BinaryExpr(_) | Expr::Cast(_) | Expr::Negative(_) | Expr::SimilarTo(_) => true,
        // now() is one value a query, random() one a row, COALESCE becomes CASE: none of them can fail.
        Expr::ScalarFunction(call) => {
            call.func.signature().volatility == Volatility::Immutable
                && !call.func.short_circuits()
                && !call.func.inner().is::<Total>()
                && !ksql::is_total(&call.func)
        }
        _ => false,
    };
    if !can_fail {
        return Ok(Transformed::no(expr));
    }
    let mut fields = Vec::new();
    let mut operands = Vec::new();
    let bare = expr.map_children(|operand| {
        if matches!(operand, Expr::Literal(..)) {
            return Ok(Transformed::no(operand));
        }
        let name = format!("{MARK}{}{MARK}", operands.len());
        fields.push(Field::new(&name, type_of(&operand, schema)?, true));
        operands.push(operand);
        Ok(Transformed::yes(Expr::Column(Column::from_name(name))))
    })?;
    let columns = DFSchema::try_from(Schema::new(fields))?;
    let physical = create_physical_expr(&bare.data, &columns, &ExecutionProps::new(), &PhysicalPlanningContext::default())?;
    match Operation::of(&physical, columns.as_arrow())? {
        Some(operation) => Ok(Transformed::yes(ScalarUDF::from(Total::new(&bare.data, &columns, operation)).call(operands))),
        None => {
            let mut operands = operands.into_iter();
            let back = bare.data.map_children(|child| match child {
                Expr::Literal(..) => Ok(Transformed::no(child)),
                marked => Ok(Transformed::no(operands.next().unwrap_or(marked))),
            })?;
            Ok(Transformed::no(back.data))
        }
    }
}

/// Type of an operand. Of one that was made total it is at hand; DataFusion would look through everything below, and name it, at each node of
/// a long chain.
fn type_of(operand: &Expr, schema: &DFSchema) -> Result<DataType> {
    match operand {
        Expr::ScalarFunction(call) => match call.func.inner().downcast_ref::<Total>() {
            Some(total) => Ok(total.operation.data_type().clone()),
            None => operand.get_type(schema),
        },
        _ => operand.get_type(schema),
    }
}

/// A node of an expression as a function of its operands.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Total {
    operation: Operation,
    /// As EXPLAIN shows it, `_` for each operand.
    name: String,
    /// Name of the column that it gives: every other piece is the number of an operand.
    pieces: Vec<String>,
    signature: Signature,
}

impl Total {
    fn new(bare: &Expr, operands: &DFSchema, operation: Operation) -> Self {
        let text = bare.to_string();
        let name = text.split(MARK).enumerate().map(|(at, piece)| if at % 2 == 0 { piece } else { "_" }).collect();
        let pieces = bare.schema_name().to_string().split(MARK).map(str::to_owned).collect();
        let types: Vec<DataType> = operands.fields().iter().map(|field| field.data_type().clone()).collect();
        let signature =
            if types.is_empty() { Signature::nullary(Volatility::Immutable) } else { Signature::exact(types, Volatility::Immutable) };
        Self { operation, name, pieces, signature }
    }
}

impl Total {
    /// Writes the name of the column that it gives, those of its operands in it: into one text, for the operands of a long chain lie
    /// deep, and DataFusion asks for the name of each.
    fn write_name(&self, operands: &[Expr], name: &mut String) {
        for (at, piece) in self.pieces.iter().enumerate() {
            let operand = if at % 2 == 0 { None } else { piece.parse().ok().and_then(|place: usize| operands.get(place)) };
            match operand {
                None => name.push_str(piece),
                Some(Expr::ScalarFunction(call)) if let Some(total) = call.func.inner().downcast_ref::<Self>() => {
                    total.write_name(&call.args, name);
                }
                // Writing to a String does not fail.
                Some(other) => drop(write!(name, "{}", other.schema_name())),
            }
        }
    }
}

impl ScalarUDFImpl for Total {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn schema_name(&self, operands: &[Expr]) -> Result<String> {
        // A cast is named as what it casts; by that name one in a join could not be told from the column beside it.
        if let ([operand], [before, _, behind]) = (operands, self.pieces.as_slice())
            && before.is_empty()
            && behind.is_empty()
        {
            return Ok(self.name.replacen('_', &operand.schema_name().to_string(), 1));
        }
        let mut name = String::new();
        self.write_name(operands, &mut name);
        Ok(name)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.operation.data_type().clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = args.args.iter().all(|operand| matches!(operand, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let operands = args.args.into_iter().map(|operand| operand.into_array(rows)).collect::<Result<Vec<_>>>()?;
        let values = self.operation.compute(operands, rows, &mut Vec::new())?;
        if is_constant {
            datafusion::common::ScalarValue::try_from_array(&values, 0).map(ColumnarValue::Scalar)
        } else {
            Ok(ColumnarValue::Array(values))
        }
    }
}
