//! Expressions over batches that cannot fail: where a value cannot be computed it is NULL, and the row is told.
//!
//! [`Expressions`] resolves what stands in a statement against the columns there are, and compiles it. Only DataFusion's type
//! coercion is applied, none of its rewriting: what an expression means must not change with the version of a library while a
//! query keeps state.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, new_null_array},
    datatypes::DataType,
    record_batch::RecordBatch,
};
use datafusion::{
    common::{
        DFSchema, DataFusionError, ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    execution::{SessionState, SessionStateBuilder, SessionStateDefaults, context::ExecutionProps},
    logical_expr::{
        AggregateUDF, Expr, ExprSchemable as _, ScalarUDF,
        physical_planning_context::PhysicalPlanningContext,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::{PhysicalExpr, create_physical_expr, expressions::Column},
    prelude::SessionConfig,
    sql::sqlparser::ast,
};
use foldlog_log::Timestamp;

use crate::{
    catalog::{nearest, type_name},
    error::QueryError,
    functions,
    plan::{
        aggregates,
        chance::{self, Chance},
        coercion, fault,
        resolve::{Resolver, lambda},
        table_functions,
        total::{self, Numbered},
        zeros,
    },
    sql::{Dialect, DialectKind, place_of_expr, types::NestedTypes},
    stack::with_stack,
};

/// Functions that make much out of little, tell about the machine, or go round the types that our SQL has.
const REFUSED: [&str; 15] = [
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
    "gen_series",
    "arrow_cast",
    "arrow_try_cast",
];

/// Levels of an expression that any thread's stack has room for.
const SHALLOW: usize = 24;
/// Stack for one level of an expression while it is evaluated: generous even for a build without optimisation.
const STACK_OF_A_LEVEL: usize = 32 << 10;

/// An expression over the columns of a batch, with its type.
#[derive(Clone, Debug)]
pub struct Expression {
    physical: Arc<dyn PhysicalExpr>,
    data_type: DataType,
    /// Whether a part of it can fail.
    fallible: bool,
    /// Number of parts within each other.
    depth: usize,
}

/// Two are equal if they compute the same of the same columns, by name and place, in the same way.
impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.data_type == other.data_type && *self.physical == *other.physical
    }
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
        Self { physical: Arc::new(Column::new(name, place)), data_type, fallible: false, depth: 1 }
    }

    /// Type of the values.
    #[must_use]
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Whether there are rows for which a part of it cannot be computed.
    #[must_use]
    pub fn can_fail(&self) -> bool {
        self.fallible
    }

    /// Place of the input column that this expression passes on unchanged, if it is nothing but that.
    #[must_use]
    pub fn as_column(&self) -> Option<usize> {
        self.physical.downcast_ref::<Column>().map(Column::index)
    }

    /// Evaluates every row of a batch.
    ///
    /// # Errors
    /// [`QueryError::ResourceExhausted`] if it makes too much of so many rows at once; never of a single row.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<Evaluated, QueryError> {
        self.evaluate_numbered(&Numbered::of(batch, self.fallible)?)
    }

    /// As [`Expression::evaluate`], over a batch with numbers if it can fail.
    pub(super) fn evaluate_numbered(&self, batch: &Numbered) -> Result<Evaluated, QueryError> {
        if self.is_shallow() {
            return self.evaluate_here(batch);
        }
        stacker::grow(self.depth * STACK_OF_A_LEVEL, || self.evaluate_here(batch))
    }

    /// Whether it gives the same for the same rows.
    pub(crate) fn is_repeatable(&self) -> bool {
        total::is_repeatable(&self.physical)
    }

    /// Whether any thread's stack has room for it.
    pub(super) fn is_shallow(&self) -> bool {
        self.depth <= SHALLOW
    }

    pub(super) fn physical(&self) -> &Arc<dyn PhysicalExpr> {
        &self.physical
    }

    /// The same, computed in another way.
    pub(super) fn with_physical(&self, physical: Arc<dyn PhysicalExpr>) -> Self {
        Self { depth: total::depth(&physical), physical, ..self.clone() }
    }

    fn evaluate_here(&self, batch: &Numbered) -> Result<Evaluated, QueryError> {
        let rows = batch.rows();
        let evaluated = total::collect(&self.physical, batch);
        match evaluated {
            Ok((values, errors)) => Ok(Evaluated { values, errors }),
            Err(error) if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) => {
                Err(QueryError::ResourceExhausted(error.strip_backtrace()))
            }
            // What can fail was made total; this is for a fault in ours that must not stop a query.
            Err(error) => {
                tracing::error!(%error, expression = %self, "an expression failed as a whole");
                let errors = (0..rows).map(|row| RowError { row, reason: "the expression failed".to_owned() }).collect();
                Ok(Evaluated { values: new_null_array(&self.data_type, rows), errors })
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
    dialect: Dialect,
    /// Whether what is compiled is computed once, so that its values may be others each time.
    once: bool,
}

impl Default for Expressions {
    fn default() -> Self {
        Self::new()
    }
}

impl Expressions {
    /// With all functions that a query which does not end may use.
    #[must_use]
    pub fn new() -> Self {
        let mut config = SessionConfig::new();
        config.options_mut().sql_parser.map_string_types_to_utf8view = false;
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_scalar_functions(known_functions())
            .with_aggregate_functions(aggregate_functions())
            .with_window_functions(SessionStateDefaults::default_window_functions())
            .with_expr_planners(SessionStateDefaults::default_expr_planners())
            .with_type_planner(Arc::new(NestedTypes))
            .build();
        Self { state: Arc::new(state), dialect: Dialect::STANDARD, once: false }
    }

    /// The same, for statements of a dialect.
    #[must_use]
    pub fn of(&self, dialect: Dialect) -> Self {
        Self { dialect, ..self.clone() }
    }

    /// The same, for a statement that is answered once.
    #[must_use]
    pub fn asked_once(&self) -> Self {
        Self { once: true, ..self.clone() }
    }

    /// The dialect of the statements.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The aggregate of a name, whatever its case.
    pub(super) fn aggregate(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(&name.to_lowercase()).cloned()
    }

    /// A function of DataFusion's that may be called, whatever the case of its name.
    ///
    /// # Errors
    /// [`QueryError::Unknown`] with the nearest name, [`QueryError::Invalid`] for one that is refused.
    pub(super) fn function(&self, name: &str) -> Result<Arc<ScalarUDF>, QueryError> {
        let lower = name.to_lowercase();
        if let Some(function) = self.state.scalar_functions().get(&lower) {
            return Ok(Arc::clone(function));
        }
        if let Some(refused) = refusal(&lower) {
            return Err(refused);
        }
        let ours = functions::all().map(|function| function.name());
        let hint = nearest(&lower, self.state.scalar_functions().keys().map(String::as_str).chain(ours));
        Err(QueryError::Unknown { what: "function", name: name.to_owned(), hint, place: None })
    }

    /// The expression in the types that its functions take, by DataFusion's rules.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] where types do not fit.
    pub(super) fn coerced(&self, expr: Expr, schema: &DFSchema) -> Result<Expr, QueryError> {
        let coerce = |expr: Expr, schema: &DFSchema| {
            // Of a call that does not fit the type tells more than the coercion.
            let typed = expr.get_type(schema).map(|_| ());
            ExprSimplifier::new(self.context(schema)).coerce(expr, schema).map_err(|error| typed.err().unwrap_or(error))
        };
        coercion::coerced(expr, schema, &coerce).map_err(fault::of_planning)
    }

    fn context(&self, schema: &DFSchema) -> SimplifyContext {
        SimplifyContext::builder()
            .with_schema(Arc::new(schema.clone()))
            .with_config_options(Arc::clone(self.state.config_options()))
            .build()
    }

    /// Gives every name of an expression its meaning among the columns of `schema`; `$n` becomes its value.
    ///
    /// # Errors
    /// [`QueryError::Unknown`], [`QueryError::Invalid`]; [`QueryError::Unsupported`] for what a query that does not end cannot have.
    pub fn resolve(&self, written: &ast::Expr, schema: &DFSchema, parameters: &[ScalarValue]) -> Result<Expr, QueryError> {
        with_stack(|| self.resolve_here(written, schema, parameters).map_err(|error| error.at(|| place_of_expr(written))))
    }

    fn resolve_here(&self, written: &ast::Expr, schema: &DFSchema, parameters: &[ScalarValue]) -> Result<Expr, QueryError> {
        if self.dialect.kind == DialectKind::Ksql {
            let resolved = Resolver::new(self, self.dialect, schema, parameters).resolve(written)?;
            check(&resolved.expr)?;
            return Ok(resolved.expr);
        }
        refuse_subqueries(written)?;
        let mut expr = written.clone();
        functions::units::as_texts(&mut expr);
        let calls = lambda::out_of(&mut expr, &Resolver::new(self, self.dialect, schema, parameters))?;
        let with_alias = ast::ExprWithAlias { expr, alias: None };
        let expr = match self.state.create_logical_expr_from_sql_expr(with_alias, calls.as_ref().map_or(schema, lambda::Calls::schema)) {
            Ok(expr) => expr,
            Err(error) => return Err(refused_function(written).unwrap_or_else(|| fault::of_planning(error))),
        };
        let expr = calls.map_or(Ok(expr.clone()), |calls| calls.put_back(expr))?;
        let expr = with_parameters(expr, parameters)?;
        check(&expr)?;
        Ok(expr)
    }

    /// Compiles a resolved expression over the columns of `schema`.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] where types do not fit.
    pub fn compile(&self, expr: Expr, schema: &DFSchema) -> Result<Expression, QueryError> {
        with_stack(|| self.compile_here(expr, schema))
    }

    fn compile_here(&self, expr: Expr, schema: &DFSchema) -> Result<Expression, QueryError> {
        chance::check(&expr, self.once)?;
        let coerced = self.coerced(expr, schema)?.transform_up(|expr| zeros::with_one_zero(expr, schema)).map_err(fault::of_planning)?;
        let expr = lazily(coerced.data, &self.context(schema))?;
        let physical = create_physical_expr(&expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default());
        let physical = physical.map_err(fault::of_planning)?;
        let data_type = physical.data_type(schema.as_arrow()).map_err(fault::of_planning)?;
        let (physical, fallible) = total::make_total(physical, schema.as_arrow()).map_err(fault::of_planning)?;
        Ok(Expression { depth: total::depth(&physical), physical, data_type, fallible })
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

    /// An expression of a statement that is answered once, over columns of a schema; `now` is the time at which it is computed.
    ///
    /// # Errors
    /// As [`Expressions::resolve`] and [`Expressions::compile`].
    pub(crate) fn once(
        &self,
        written: &ast::Expr,
        schema: &DFSchema,
        parameters: &[ScalarValue],
        now: Timestamp,
    ) -> Result<Expression, QueryError> {
        let expr = Chance::OfQuery { now }.given(self.resolve(written, schema, parameters)?)?;
        self.asked_once().compile(expr, schema)
    }

    /// Whether a name is that of a function of values, which is neither an aggregate nor makes rows.
    pub(crate) fn is_scalar(&self, name: &str) -> bool {
        let is_made = name.eq_ignore_ascii_case("STRUCT") || name.eq_ignore_ascii_case("MAP");
        let is_known = || functions::find(name).is_some() || self.state.scalar_functions().contains_key(&name.to_lowercase());
        is_made || self.aggregate(name).is_none() && !table_functions::is_table_function(name) && is_known()
    }

    /// The value of an expression without columns, as a type; `now` is the time at which it is computed.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] where there is none.
    pub fn constant(
        &self,
        written: &ast::Expr,
        data_type: &DataType,
        parameters: &[ScalarValue],
        now: Timestamp,
    ) -> Result<ScalarValue, QueryError> {
        let here = || place_of_expr(written);
        self.asked_once().constant_here(written, data_type, parameters, now).map_err(|error| error.at(here))
    }

    fn constant_here(
        &self,
        written: &ast::Expr,
        data_type: &DataType,
        parameters: &[ScalarValue],
        now: Timestamp,
    ) -> Result<ScalarValue, QueryError> {
        let schema = DFSchema::empty();
        let expr = match self.dialect.kind {
            // A number with a point is a DOUBLE there, which would not hold all digits of a DECIMAL.
            DialectKind::Standard => match exact_number(written).filter(|_| data_type.is_decimal()) {
                Some(exact) => self.resolve(&exact, &schema, parameters)?,
                None => self.resolve(written, &schema, parameters)?,
            },
            DialectKind::Ksql => with_stack(|| Resolver::new(self, self.dialect, &schema, parameters).resolve_as(written, data_type))?.expr,
        };
        let expr = Chance::OfQuery { now }.given(expr)?;
        let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(1));
        let one_row = RecordBatch::try_new_with_options(Arc::clone(schema.inner()), Vec::new(), &options)
            .map_err(|error| QueryError::Execution(error.to_string()))?;
        let value_of = |compiled: Expression| {
            let evaluated = compiled.evaluate(&one_row)?;
            match evaluated.errors.first() {
                Some(error) => Err(QueryError::Invalid(format!("{written}: {}", error.reason))),
                None => ScalarValue::try_from_array(&evaluated.values, 0).map_err(fault::of_planning),
            }
        };
        let value = value_of(self.compile_as(expr.clone(), data_type, &schema)?)?;
        let given = value_of(self.compile(expr, &schema)?)?;
        let is_fraction = data_type.is_integer() && (given.data_type().is_floating() || given.data_type().is_decimal());
        if is_fraction && value.cast_to(&given.data_type()).map_err(fault::of_planning)? != given {
            return Err(QueryError::Invalid(format!("{written}: {} holds no fraction; CAST or round it", type_name(data_type))));
        }
        Ok(value)
    }
}

/// A number as the text of its digits, if it is nothing but a literal with or without a sign.
fn exact_number(written: &ast::Expr) -> Option<ast::Expr> {
    let digits = |written: &ast::Expr| match written {
        ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::Number(digits, _), .. }) => {
            Some(digits.clone()).filter(|digits| !digits.contains(['e', 'E']))
        }
        _ => None,
    };
    let text = match written {
        ast::Expr::Nested(inner) => return exact_number(inner),
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => format!("-{}", digits(expr)?),
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Plus, expr } => digits(expr)?,
        other => digits(other)?,
    };
    Some(ast::Expr::value(ast::Value::SingleQuotedString(text)))
}

/// The functions that any statement may call.
pub(crate) fn scalar_functions(dialect: DialectKind) -> Vec<Arc<ScalarUDF>> {
    let mut all = without(SessionStateDefaults::default_scalar_functions(), &REFUSED);
    // DataFusion's NVL makes texts of what it does not know, as of arrays.
    all.retain(|function| function.name() != "nvl");
    all.push(Arc::new(ScalarUDF::clone(&datafusion::functions::core::coalesce()).with_aliases(["ifnull", "nvl"])));
    // Behind those of DataFusion: of two with one name the last is meant.
    all.extend(functions::udfs(dialect == DialectKind::Ksql));
    all
}

/// The functions of a query that does not end, table functions among them.
fn known_functions() -> Vec<Arc<ScalarUDF>> {
    let mut functions = scalar_functions(DialectKind::Standard);
    functions.extend(table_functions::known_to_datafusion());
    functions
}

/// DataFusion's aggregates, and ours under the names of some of them.
fn aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    let mut functions = SessionStateDefaults::default_aggregate_functions();
    functions.extend(aggregates::known_to_datafusion());
    functions
}

fn without(mut functions: Vec<Arc<ScalarUDF>>, names: &[&str]) -> Vec<Arc<ScalarUDF>> {
    let refused = |name: &str| names.contains(&name);
    functions.retain(|function| !refused(function.name()) && !function.aliases().iter().any(|alias| refused(alias)));
    functions
}

/// The reason why an expression with a function such as repeat() is refused.
fn refused_function(written: &ast::Expr) -> Option<QueryError> {
    let mut found = None;
    let _ = ast::visit_expressions(written, |expr| {
        if let ast::Expr::Function(call) = expr {
            found = refusal(&call.name.to_string().to_lowercase());
        }
        if found.is_some() { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
    });
    found
}

/// Why a function is refused, if it is.
fn refusal(name: &str) -> Option<QueryError> {
    let why = || QueryError::Invalid(format!("{name}() is refused here: it makes much out of little, or tells about the machine"));
    REFUSED.contains(&name).then(why)
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

/// Refuses what looks for rows of its own, before DataFusion looks for its tables.
fn refuse_subqueries(written: &ast::Expr) -> Result<(), QueryError> {
    let found = ast::visit_expressions(written, |expr| match expr {
        ast::Expr::Subquery(_) | ast::Expr::InSubquery { .. } | ast::Expr::Exists { .. } => std::ops::ControlFlow::Break(()),
        _ => std::ops::ControlFlow::Continue(()),
    });
    if found.is_break() { Err(QueryError::Unsupported("a subquery in a query that does not end".to_owned())) } else { Ok(()) }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{Array, AsArray, Float64Array, Int64Array, StringArray},
        datatypes::{Field, Float64Type, Int32Type, Int64Type, Schema},
    };
    use datafusion::sql::sqlparser::{dialect::GenericDialect, parser::Parser};

    use super::*;

    fn batch() -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("b", DataType::Int64, true),
            Field::new("x", DataType::Float64, true),
            Field::new("s", DataType::Utf8, true),
        ]);
        RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(Int64Array::from(vec![Some(1), Some(i64::MAX), Some(7), None, Some(i64::MIN)])),
                Arc::new(Int64Array::from(vec![Some(0), Some(1), Some(2), Some(0), Some(-1)])),
                Arc::new(Float64Array::from(vec![Some(0.0), Some(2.5), Some(f64::NAN), None, Some(-1e300)])),
                Arc::new(StringArray::from(vec![Some("12"), Some("x"), None, Some(""), Some("99999999999")])),
            ],
        )
        .unwrap()
    }

    fn compiled(text: &str) -> Result<Expression, QueryError> {
        let written = Parser::new(&GenericDialect {}).try_with_sql(text).unwrap().parse_expr().unwrap();
        let schema = DFSchema::try_from(batch().schema().as_ref().clone()).unwrap();
        let expressions = Expressions::new();
        expressions.compile(expressions.resolve(&written, &schema, &[])?, &schema)
    }

    fn evaluated(text: &str) -> (ArrayRef, Vec<(usize, String)>) {
        let Evaluated { values, errors } = compiled(text).unwrap().evaluate(&batch()).unwrap();
        (values, errors.into_iter().map(|error| (error.row, error.reason)).collect())
    }

    fn integers(text: &str) -> (Vec<Option<i64>>, Vec<usize>) {
        let (values, errors) = evaluated(text);
        (values.as_primitive::<Int64Type>().iter().collect(), errors.into_iter().map(|(row, _)| row).collect())
    }

    #[test]
    fn integer_arithmetic_beyond_its_range_is_null_and_told() {
        assert_eq!(integers("a + b"), (vec![Some(1), None, Some(9), None, None], vec![1, 4]));
        assert_eq!(integers("a - 1"), (vec![Some(0), Some(i64::MAX - 1), Some(6), None, None], vec![4]));
        assert_eq!(integers("a * 2"), (vec![Some(2), None, Some(14), None, None], vec![1, 4]));
        assert_eq!(integers("-a"), (vec![Some(-1), Some(-i64::MAX), Some(-7), None, None], vec![4]));
        assert_eq!(evaluated("a * 2").1[0].1, "the result of * is out of range");
    }

    #[test]
    fn division_by_zero_is_null_and_told_but_not_of_null() {
        assert_eq!(integers("a / b"), (vec![None, Some(i64::MAX), Some(3), None, None], vec![0, 4]));
        assert_eq!(integers("a % b").0, vec![None, Some(0), Some(1), None, Some(0)]);
        let (values, errors) = evaluated("1.0 / x");
        assert_eq!(
            values.as_primitive::<Float64Type>().iter().map(|one| one.is_some()).collect::<Vec<_>>(),
            [false, true, true, false, true]
        );
        assert_eq!(errors.len(), 1);
        assert_eq!(integers("1 / 0"), (vec![None; 5], vec![0, 1, 2, 3, 4]));
    }

    #[test]
    fn a_cast_that_fails_is_null_and_told_without_the_value() {
        let (values, errors) = evaluated("CAST(s AS INT)");
        assert_eq!(values.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [Some(12), None, None, None, None]);
        assert_eq!(errors.iter().map(|one| one.0).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(errors[0].1, "a value cannot be cast to INTEGER");
        assert!(evaluated("TRY_CAST(s AS INT)").1.is_empty());
    }

    #[test]
    fn only_the_innermost_failing_part_is_null() {
        assert_eq!(integers("COALESCE(a / b, -1) + 1").0, vec![Some(0), None, Some(4), Some(0), Some(0)]);
        assert_eq!(integers("IFNULL(CAST(s AS BIGINT), 5)").0, vec![Some(12), Some(5), Some(5), Some(5), Some(99_999_999_999)]);
    }

    #[test]
    fn rows_keep_their_numbers_through_case_and_and() {
        assert_eq!(integers("CASE WHEN b = 0 THEN 0 ELSE a + b END"), (vec![Some(0), None, Some(9), Some(0), None], vec![1, 4]));
        assert_eq!(integers("CASE WHEN a IS NULL THEN 0 WHEN b = 1 THEN a + 1 ELSE b END").1, vec![1]);
        let (_, errors) = evaluated("b <> 0 AND a * a > 0");
        assert!(errors.iter().all(|(row, _)| [1, 4].contains(row)) && errors.len() == 2, "{errors:?}");
    }

    #[test]
    fn a_function_that_fails_nulls_its_row_alone() {
        let (values, errors) = evaluated("date_trunc(s, TIMESTAMP '2013-01-01 10:30:00')");
        assert_eq!((values.null_count(), errors.len()), (5, 5), "the unit must be a literal");
        let (values, errors) = evaluated("to_timestamp(s)");
        assert!(values.len() == 5 && !errors.is_empty(), "{errors:?}");
        let (values, errors) = evaluated("upper(s) || '!'");
        assert_eq!((values.as_string::<i32>().value(1), errors.len()), ("X!", 0));
    }

    #[test]
    fn what_would_not_repeat_or_not_end_is_refused() {
        for (text, message) in [
            ("now()", "not supported: now() here: its value is that of a record, which is not known; compute it in a query before"),
            (
                "a + random()",
                "not supported: random() here: its value is that of a record, which is not known; compute it in a query before",
            ),
            ("c + 1", "column c does not exist"),
            ("uper(s)", "function uper does not exist; did you mean upper?"),
            ("latest_by_ofset(s)", "function latest_by_ofset does not exist; did you mean latest_by_offset?"),
            ("repeat(s, 1000000000)", "repeat() is refused here: it makes much out of little, or tells about the machine"),
            ("row_number() OVER ()", "not supported: OVER (...) in a query that does not end"),
            ("$1", "parameter $1 has no value"),
        ] {
            assert_eq!(compiled(text).unwrap_err().to_string(), message, "{text}");
        }
        assert!(compiled("a AND b").is_err());
    }

    #[test]
    fn a_constant_has_a_value_of_the_type_asked_for() {
        let constant = |text: &str, data_type: &DataType| {
            let written = Parser::new(&GenericDialect {}).try_with_sql(text).unwrap().parse_expr().unwrap();
            Expressions::new().constant(&written, data_type, &[], Timestamp::new(5_000)).map_err(|error| error.to_string())
        };
        assert_eq!(constant("1 + 2", &DataType::Int32), Ok(ScalarValue::Int32(Some(3))));
        assert_eq!(constant("'1.50'", &DataType::Decimal128(5, 2)), Ok(ScalarValue::Decimal128(Some(150), 5, 2)));
        let exact = Ok(ScalarValue::Decimal128(Some(-12_345_678_901_234_567_890_123_456_780_123_456_789), 38, 10));
        assert_eq!(constant("-1234567890123456789012345678.0123456789", &DataType::Decimal128(38, 10)), exact);
        assert_eq!(constant("(+1.5e1)", &DataType::Decimal128(5, 2)), Ok(ScalarValue::Decimal128(Some(1500), 5, 2)));
        assert_eq!(constant("7", &DataType::Decimal128(5, 2)), Ok(ScalarValue::Decimal128(Some(700), 5, 2)));
        assert_eq!(constant("1234.5", &DataType::Decimal128(5, 2)), Err("1234.5: a value cannot be cast to DECIMAL(5, 2)".to_owned()));
        assert_eq!(constant("NULL", &DataType::Utf8), Ok(ScalarValue::Utf8(None)));
        assert_eq!(constant("2.0", &DataType::Int64), Ok(ScalarValue::Int64(Some(2))));
        assert_eq!(constant("CAST(1.5 AS INT)", &DataType::Int64), Ok(ScalarValue::Int64(Some(1))));
        assert_eq!(constant("1.5", &DataType::Int64), Err("1.5: BIGINT holds no fraction; CAST or round it".to_owned()));
        assert_eq!(constant("'x'", &DataType::Int64), Err("'x': a value cannot be cast to BIGINT".to_owned()));
        assert_eq!(constant("unix_timestamp() + 1", &DataType::Int64), Ok(ScalarValue::Int64(Some(5_001))));
        assert_eq!(constant("now()", &DataType::Utf8), Ok(ScalarValue::Utf8(Some("1970-01-01T00:00:05Z".to_owned()))));
        assert_eq!(constant("length(uuid())", &DataType::Int64), Ok(ScalarValue::Int64(Some(36))));
        assert_eq!(constant("1 / 0", &DataType::Int64), Err("1 / 0: division by zero".to_owned()));
    }
}
