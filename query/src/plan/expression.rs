//! Expressions over batches that cannot fail: where a value cannot be computed it is NULL, and the row is told.
//!
//! [`Expressions`] resolves what stands in a statement against the columns there are, and compiles it. Only DataFusion's type
//! coercion is applied, none of its rewriting: what an expression means must not change with the version of a library while a
//! query keeps state.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, new_null_array},
    datatypes::{DataType, TimeUnit},
    record_batch::RecordBatch,
};
use datafusion::{
    common::{
        DFSchema, ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    execution::{SessionState, SessionStateBuilder, context::ExecutionProps, session_state::SessionStateDefaults},
    logical_expr::{
        Expr, ScalarUDF,
        physical_planning_context::PhysicalPlanningContext,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::{PhysicalExpr, create_physical_expr, expressions::Column},
    prelude::SessionConfig,
    sql::sqlparser::ast,
};

use crate::{
    catalog::timestamp_type,
    error::QueryError,
    plan::{fault, total},
};

/// Functions whose answer depends on more than their arguments: a view folded again would differ.
const NOT_REPEATABLE: [&str; 8] = ["now", "current_timestamp", "current_date", "current_time", "today", "random", "uuid", "rand"];

/// Functions that make much out of little, or tell about the machine.
const REFUSED: [&str; 12] = [
    "repeat",
    "lpad",
    "rpad",
    "space",
    "version",
    "range",
    "generate_series",
    "array_repeat",
    "list_repeat",
    "array_resize",
    "list_resize",
    "sleep",
];

/// An expression over the columns of a batch, with its type.
#[derive(Clone, Debug)]
pub struct Expression {
    physical: Arc<dyn PhysicalExpr>,
    data_type: DataType,
    /// Whether a part of it can fail.
    fallible: bool,
}

/// A row for which a part of an expression could not be computed and became NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// Row of the batch.
    pub row: usize,
    /// What failed, without the row's values.
    pub reason: String,
}

/// What an expression gave.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// One value a row.
    pub values: ArrayRef,
    /// What became NULL because it failed, at most one a row and failing part; by row.
    pub errors: Vec<RowError>,
}

impl Expression {
    /// The input column at a place, unchanged.
    #[must_use]
    pub fn column(name: &str, place: usize, data_type: DataType) -> Self {
        Self { physical: Arc::new(Column::new(name, place)), data_type, fallible: false }
    }

    /// Type of the values.
    #[must_use]
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Place of the input column that this expression passes on unchanged, if it is nothing but that.
    #[must_use]
    pub fn as_column(&self) -> Option<usize> {
        self.physical.downcast_ref::<Column>().map(Column::index)
    }

    /// Evaluates every row of a batch.
    #[must_use]
    pub fn evaluate(&self, batch: &RecordBatch) -> Evaluated {
        let rows = batch.num_rows();
        let evaluated = if self.fallible {
            total::collect(&self.physical, batch)
        } else {
            self.physical.evaluate(batch).and_then(|value| value.into_array(rows)).map(|values| (values, Vec::new()))
        };
        match evaluated {
            Ok((values, errors)) => Evaluated { values, errors },
            // What can fail was made total; this is for a fault in ours that must not stop a query.
            Err(error) => {
                tracing::error!(%error, expression = %self, "an expression failed as a whole");
                let errors = (0..rows).map(|row| RowError { row, reason: "the expression failed".to_owned() }).collect();
                Evaluated { values: new_null_array(&self.data_type, rows), errors }
            }
        }
    }
}

impl std::fmt::Display for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        datafusion::physical_expr_common::physical_expr::fmt_sql(self.physical.as_ref()).fmt(f)
    }
}

/// What resolves and compiles expressions. Cheap to clone.
#[derive(Clone)]
pub struct Expressions {
    state: Arc<SessionState>,
}

impl Default for Expressions {
    fn default() -> Self {
        Self::new()
    }
}

impl Expressions {
    /// With all functions that a query which is folded again may use.
    #[must_use]
    pub fn new() -> Self {
        let mut config = SessionConfig::new();
        config.options_mut().sql_parser.map_string_types_to_utf8view = false;
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_scalar_functions(scalar_functions())
            .with_aggregate_functions(SessionStateDefaults::default_aggregate_functions())
            .with_expr_planners(SessionStateDefaults::default_expr_planners())
            .build();
        Self { state: Arc::new(state) }
    }

    /// Gives every name of an expression its meaning among the columns of `schema`; `$n` becomes its value.
    ///
    /// # Errors
    /// [`QueryError::Unknown`], [`QueryError::Invalid`]; [`QueryError::Unsupported`] for what a query that does not end cannot have.
    pub fn resolve(&self, written: &ast::Expr, schema: &DFSchema, parameters: &[ScalarValue]) -> Result<Expr, QueryError> {
        let with_alias = ast::ExprWithAlias { expr: written.clone(), alias: None };
        let expr = match self.state.create_logical_expr_from_sql_expr(with_alias, schema) {
            Ok(expr) => expr,
            Err(error) => return Err(not_repeatable(written).unwrap_or_else(|| fault::of_planning(error))),
        };
        let expr = with_parameters(expr, parameters)?;
        check(&expr)?;
        Ok(expr)
    }

    /// Compiles a resolved expression over the columns of `schema`.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] where types do not fit.
    pub fn compile(&self, expr: Expr, schema: &DFSchema) -> Result<Expression, QueryError> {
        let context = SimplifyContext::builder()
            .with_schema(Arc::new(schema.clone()))
            .with_config_options(Arc::clone(self.state.config_options()))
            .build();
        let coerced = ExprSimplifier::new(context.clone()).coerce(expr, schema).map_err(fault::of_planning)?;
        let expr = lazily(coerced, &context)?;
        let physical = create_physical_expr(&expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default());
        let physical = physical.map_err(fault::of_planning)?;
        let data_type = physical.data_type(schema.as_arrow()).map_err(fault::of_planning)?;
        let (physical, fallible) = total::make_total(physical, schema.as_arrow()).map_err(fault::of_planning)?;
        Ok(Expression { physical, data_type, fallible })
    }

    /// Compiles a resolved expression and casts it to a type.
    ///
    /// # Errors
    /// As [`Expressions::compile`].
    pub fn compile_as(&self, expr: Expr, data_type: &DataType, schema: &DFSchema) -> Result<Expression, QueryError> {
        let compiled = self.compile(expr.clone(), schema)?;
        if compiled.data_type() == data_type {
            return Ok(compiled);
        }
        self.compile(datafusion::logical_expr::cast(expr, data_type.clone()), schema)
    }

    /// The value of an expression without columns, as a type.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] where there is none.
    pub fn constant(&self, written: &ast::Expr, data_type: &DataType, parameters: &[ScalarValue]) -> Result<ScalarValue, QueryError> {
        let schema = DFSchema::empty();
        let expr = self.resolve(written, &schema, parameters)?;
        let compiled = self.compile_as(expr, data_type, &schema)?;
        let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(1));
        let one_row = RecordBatch::try_new_with_options(Arc::clone(schema.inner()), Vec::new(), &options)
            .map_err(|error| QueryError::Execution(error.to_string()))?;
        let evaluated = compiled.evaluate(&one_row);
        if let Some(error) = evaluated.errors.first() {
            return Err(QueryError::Invalid(format!("{written}: {}", error.reason)));
        }
        ScalarValue::try_from_array(&evaluated.values, 0).map_err(fault::of_planning)
    }
}

/// The type in which a result of this type is kept, or none if there is no such type in our SQL.
#[must_use]
pub fn kept_as(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Boolean | DataType::Int32 | DataType::Int64 | DataType::Float64 | DataType::Utf8 | DataType::Decimal128(..) => {
            Some(data_type.clone())
        }
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => Some(DataType::Int32),
        DataType::UInt32 | DataType::UInt64 => Some(DataType::Int64),
        DataType::Float16 | DataType::Float32 => Some(DataType::Float64),
        DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Some(DataType::Utf8),
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond, _)
        | DataType::Date32
        | DataType::Date64 => Some(timestamp_type()),
        _ => None,
    }
}

fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    let refused = |name: &str| NOT_REPEATABLE.contains(&name) || REFUSED.contains(&name);
    let mut functions = SessionStateDefaults::default_scalar_functions();
    functions.retain(|function| !refused(function.name()) && !function.aliases().iter().any(|alias| refused(alias)));
    functions
}

/// The reason why an expression with a function such as now() is refused.
fn not_repeatable(written: &ast::Expr) -> Option<QueryError> {
    let mut found = None;
    let _ = ast::visit_expressions(written, |expr| {
        if let ast::Expr::Function(call) = expr {
            let name = call.name.to_string().to_lowercase();
            found = found.take().or_else(|| NOT_REPEATABLE.contains(&name.as_str()).then_some(name));
        }
        std::ops::ControlFlow::<()>::Continue(())
    });
    found.map(|name| {
        QueryError::Invalid(format!(
            "{name}() is refused here: folded again the query would give another answer; use rowtime, or a field of the record"
        ))
    })
}

fn with_parameters(expr: Expr, parameters: &[ScalarValue]) -> Result<Expr, QueryError> {
    let mut missing = None;
    let replaced = expr.transform_up(|expr| {
        let Expr::Placeholder(placeholder) = &expr else { return Ok(Transformed::no(expr)) };
        let number = placeholder.id.trim_start_matches('$').parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        match number.and_then(|number| parameters.get(number)) {
            Some(value) => Ok(Transformed::yes(Expr::Literal(value.clone(), None))),
            None => {
                missing = Some(placeholder.id.clone());
                Ok(Transformed::no(expr))
            }
        }
    });
    match missing {
        Some(id) => Err(QueryError::Invalid(format!("parameter {id} has no value"))),
        None => replaced.map(|replaced| replaced.data).map_err(fault::of_planning),
    }
}

/// Refuses what a query that does not end cannot compute.
fn check(expr: &Expr) -> Result<(), QueryError> {
    let mut refused = None;
    let walked = expr.apply(|expr| {
        refused = match expr {
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => Some("a subquery"),
            Expr::WindowFunction(_) => Some("OVER (...)"),
            Expr::HigherOrderFunction(_) | Expr::Lambda(_) | Expr::LambdaVariable(_) => Some("a lambda"),
            Expr::Unnest(_) => Some("UNNEST"),
            Expr::GroupingSet(_) => Some("GROUPING SETS, CUBE and ROLLUP"),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    });
    walked.map_err(fault::of_planning)?;
    match refused {
        Some(what) => Err(QueryError::Unsupported(format!("{what} in a query that does not end"))),
        None => Ok(()),
    }
}

/// Turns functions that need not look at all their arguments into CASE, the form in which DataFusion evaluates them.
fn lazily(expr: Expr, context: &SimplifyContext) -> Result<Expr, QueryError> {
    let rewritten = expr.transform_up(|expr| match expr {
        Expr::ScalarFunction(call) if matches!(call.func.name(), "coalesce" | "nvl" | "ifnull" | "nvl2") => {
            let function = Arc::clone(&call.func);
            Ok(match function.simplify(call.args, context)? {
                ExprSimplifyResult::Simplified(expr) => Transformed::yes(expr),
                ExprSimplifyResult::Original(args) => Transformed::no(function.call(args)),
            })
        }
        other => Ok(Transformed::no(other)),
    });
    rewritten.map(|rewritten| rewritten.data).map_err(fault::of_planning)
}
