//! DataFusion as bounded queries use it: one set of functions and budgets, and for each query its own tables.
//!
//! Doors that are shut here: DDL, DML, SET and every other statement than a query; files and URLs as tables; functions whose
//! result is larger than what they were given by a factor that the caller chooses.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
    sync::Arc,
};

use arrow::{
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use datafusion::{
    catalog::CatalogProviderList as _,
    catalog::{
        CatalogProvider as _, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider, SchemaProvider as _, TableProvider,
    },
    common::{ParamValues, ScalarValue},
    error::DataFusionError,
    execution::{
        FunctionRegistry as _, SessionState, SessionStateBuilder, SessionStateDefaults, TaskContext,
        context::SQLOptions,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::FairSpillPool,
        runtime_env::RuntimeEnvBuilder,
    },
    optimizer::AnalyzerRule,
    physical_plan::ExecutionPlan,
    prelude::SessionConfig,
    sql::{
        parser::Statement,
        resolve::resolve_table_references,
        sqlparser::ast::{self, Expr, visit_expressions},
    },
};
use foldlog_log::Timestamp;

use super::{
    aggregate, blame,
    ksql::{self, Comparisons},
    row_names,
    star::{self, Hidden},
    total::TotalArithmetic,
};
use crate::{
    catalog::types::kept_as,
    config::QueryConfig,
    error::QueryError,
    functions::units,
    plan::{Expressions, expression::scalar_functions, fault},
    sql::{DialectKind, sugar, types::NestedTypes},
    stack::with_stack,
};

/// Tables of one query, by name.
pub(super) type Tables = HashMap<String, Table>;

/// A table of one query.
pub(super) struct Table {
    pub(super) provider: Arc<dyn TableProvider>,
    /// Columns that are no part of its `*`.
    pub(super) hidden: Vec<String>,
}

const CATALOG: &str = "foldlog";
const SCHEMA: &str = "public";

/// What all queries share.
pub(super) struct Session {
    standard: SessionState,
    /// With all functions of ksqlDB under their names.
    ksql: SessionState,
    /// What its expressions mean.
    expressions: Expressions,
}

/// A query, ready to run.
pub(super) struct Planned {
    pub(super) plan: Arc<dyn ExecutionPlan>,
    pub(super) context: Arc<TaskContext>,
}

impl Session {
    pub(super) fn new(config: &QueryConfig, cores: usize) -> Result<Self, QueryError> {
        let memory = usize::try_from(config.memory_mib << 20).unwrap_or(usize::MAX);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(memory)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()
            .map_err(query_error)?;
        let settings = SessionConfig::new()
            .with_target_partitions(cores)
            // Rows keep their order: DOUBLE is folded in it, and the same query has the same answer each time.
            .with_round_robin_repartition(false)
            .with_information_schema(false)
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false)
            // Names were folded when the text was cut into tokens, as its dialect says.
            .set_bool("datafusion.sql_parser.enable_ident_normalization", false);
        let standard = SessionStateBuilder::new()
            .with_config(settings)
            .with_runtime_env(runtime)
            .with_expr_planners(SessionStateDefaults::default_expr_planners())
            .with_scalar_functions(scalar_functions(DialectKind::Standard))
            .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
            .with_aggregate_functions(aggregate::functions())
            .with_window_functions(SessionStateDefaults::default_window_functions())
            .with_type_planner(Arc::new(NestedTypes))
            .with_analyzer_rule(Arc::new(TotalArithmetic))
            .build();
        let functions = scalar_functions(DialectKind::Ksql);
        let comparisons: Arc<dyn AnalyzerRule + Send + Sync> = Arc::new(Comparisons);
        let ksql = SessionStateBuilder::new_from_existing(standard.clone())
            .with_scalar_functions(functions)
            .with_analyzer_rules(std::iter::once(comparisons).chain(standard.analyzer().rules.iter().cloned()).collect())
            .build();
        Ok(Self { standard, ksql, expressions: Expressions::new().of(DialectKind::Ksql.rules()).asked_once() })
    }

    /// Plans a query over these tables and no others.
    pub(super) async fn plan(
        &self,
        mut query: ast::Query,
        dialect: DialectKind,
        parameters: Vec<ScalarValue>,
        tables: Tables,
    ) -> Result<Planned, QueryError> {
        let schema = MemorySchemaProvider::new();
        let mut hidden = Hidden::new();
        for (name, table) in tables {
            hidden.insert(name.clone(), table.hidden);
            schema.register_table(name, table.provider).map_err(query_error)?;
        }
        units::as_texts(&mut query);
        let mut state = match dialect {
            DialectKind::Standard => self.standard.clone(),
            DialectKind::Ksql => self.ksql.clone(),
        };
        state.mark_start_execution();
        if dialect == DialectKind::Ksql {
            let began = state.execution_props().query_execution_start_time;
            let now = Timestamp::new(began.map_or(0, |began| began.timestamp_millis()));
            let meaning = ksql::Meaning { expressions: self.expressions.clone(), parameters: parameters.clone(), now };
            for function in with_stack(|| ksql::take_out(&mut query, meaning)) {
                state.register_udf(function).map_err(query_error)?;
            }
            row_names::lower(&mut query);
        }
        star::without_hidden(&mut query, &hidden);
        sugar::lower(&mut query);
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema(SCHEMA, Arc::new(schema)).map_err(query_error)?;
        let list = MemoryCatalogProviderList::new();
        list.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
        state.register_catalog_list(Arc::new(list));
        match physical(&state, &query, &parameters).await {
            Ok(plan) => Ok(Planned { plan, context: state.task_ctx() }),
            Err(error @ (QueryError::Invalid(_) | QueryError::Unsupported(_))) => {
                let place = blame::place_of(&query, &error, &state, &parameters).await;
                Err(error.at(|| place))
            }
            Err(other) => Err(other),
        }
    }
}

/// The plan of a query that runs.
pub(super) async fn physical(
    state: &SessionState,
    query: &ast::Query,
    parameters: &[ScalarValue],
) -> Result<Arc<dyn ExecutionPlan>, QueryError> {
    let logical = state.statement_to_plan(statement(query)).await.map_err(planning_error)?;
    let only_queries = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    only_queries.verify_plan(&logical).map_err(planning_error)?;
    let values = || ParamValues::from(parameters.to_vec());
    let logical = if parameters.is_empty() { logical } else { logical.with_param_values(values()).map_err(planning_error)? };
    state.create_physical_plan(&logical).await.map_err(planning_error)
}

fn statement(query: &ast::Query) -> Statement {
    Statement::Statement(Box::new(ast::Statement::Query(Box::new(query.clone()))))
}

/// Names of the tables that a query reads, each once, folded, without its own CTEs.
///
/// # Errors
/// [`QueryError::Unknown`] for a name in parts: everything lives in one place.
pub(super) fn table_names(query: &ast::Query) -> Result<Vec<String>, QueryError> {
    let (tables, _) = resolve_table_references(&statement(query), false).map_err(query_error)?;
    let mut names: Vec<String> = Vec::with_capacity(tables.len());
    for table in tables {
        if table.schema().is_some() {
            let hint = Some(format!("\"{table}\" (quoted, if that is a topic)"));
            return Err(QueryError::Unknown { what: "stream or table", name: table.to_string(), hint, place: None });
        }
        let name = table.table().to_owned();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Every name that a query uses in an expression, folded; those of every record in `ksql` as tables have them, too.
pub(super) fn identifiers(query: &ast::Query, dialect: DialectKind) -> HashSet<String> {
    let mut names = HashSet::new();
    let mut enter = |ident: &ast::Ident| {
        names.insert(ident.value.clone());
        if dialect == DialectKind::Ksql {
            names.extend(row_names::shown(ident).map(str::to_owned));
        }
    };
    let _: ControlFlow<()> = visit_expressions(query, |expr| {
        match expr {
            Expr::Identifier(ident) => enter(ident),
            Expr::CompoundIdentifier(parts) => parts.iter().for_each(&mut enter),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    names
}

/// The schema that a door gets: the types that our SQL has, as in a view; others than these as they are.
pub(super) fn plain_schema(schema: &Schema) -> Result<SchemaRef, QueryError> {
    let plain = |field: &Arc<Field>| field.as_ref().clone().with_data_type(plain_type(field.data_type())).with_nullable(true);
    Ok(Arc::new(Schema::new(schema.fields().iter().map(plain).collect::<Vec<_>>())))
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, value) => plain_type(value),
        other => kept_as(other).unwrap_or_else(|| other.clone()),
    }
}

/// A batch in the types of [`plain_schema`].
pub(super) fn plain_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, QueryError> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() { Ok(Arc::clone(column)) } else { cast(column, field.data_type()) }
    });
    let columns = columns.collect::<Result<_, _>>().map_err(|fault| query_error(fault.into()))?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(|fault| query_error(fault.into()))
}

/// What it means to whoever asked that a query cannot be planned.
fn planning_error(fault: DataFusionError) -> QueryError {
    match fault {
        // Constants are computed then.
        fault @ (DataFusionError::ResourcesExhausted(_) | DataFusionError::Shared(_)) => query_error(fault),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => planning_error(*inner),
        other => fault::of_planning(other),
    }
}

/// What a fault of DataFusion means to whoever asked.
pub(super) fn query_error(fault: DataFusionError) -> QueryError {
    match fault {
        DataFusionError::External(inner) => match inner.downcast::<QueryError>() {
            Ok(ours) => *ours,
            Err(other) => QueryError::Execution(other.to_string()),
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => query_error(*inner),
        DataFusionError::Shared(inner) => match &*inner {
            DataFusionError::ResourcesExhausted(reason) => exhausted(reason),
            other => QueryError::Execution(fault::in_our_words(&other.strip_backtrace())),
        },
        DataFusionError::ResourcesExhausted(reason) => exhausted(&reason),
        planning @ (DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Collection(_)) => fault::of_planning(planning),
        other => QueryError::Execution(fault::in_our_words(&other.strip_backtrace())),
    }
}

fn exhausted(reason: &str) -> QueryError {
    QueryError::ResourceExhausted(format!("the query needs more memory than queries may have; ask for less at once: {reason}"))
}
