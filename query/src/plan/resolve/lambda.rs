//! Lambdas: what a body means among its parameters and the columns around it.
//!
//! A body is resolved among all columns there are; those that it names are captured, and it is compiled over its parameters and
//! them. A parameter hides a column of its name. What the lambdas of one call capture is captured once. Arithmetic with NULL, which
//! is NULL elsewhere, is a failure in a body of `ksql`: the whole call is NULL.
//!
//! In `standard` DataFusion's planner knows no lambdas: [`out_of`] takes calls with lambdas out of what it plans, and gives it columns.

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use arrow::datatypes::{DataType, Field};
use datafusion::{
    common::{
        Column, DFSchema, TableReference,
        tree_node::{Transformed, TreeNode as _},
    },
    logical_expr::{Expr, ExprSchemable as _},
    sql::sqlparser::ast,
};

use super::{Resolver, Typed};
use crate::{
    error::QueryError,
    functions::{self, Argument, Call, Function, LambdaBody},
    plan::fault,
    sql::DialectKind,
};

/// A lambda as it is written: its parameters and its body.
pub(super) type WrittenLambda<'a> = (&'a [String], &'a ast::Expr);

type Fields = Vec<(Option<TableReference>, Arc<Field>)>;

impl Resolver<'_> {
    /// The call of a function with lambdas, and the columns that follow its values.
    pub(super) fn with_lambdas(
        &self,
        function: &'static Function,
        arguments: &[Argument<'_>],
        lambdas: &[WrittenLambda<'_>],
    ) -> Result<(Call, Vec<Typed>), QueryError> {
        let types = function.lambda_parameters(arguments)?;
        let mut resolved = Vec::with_capacity(lambdas.len());
        let mut captured: Vec<Column> = Vec::new();
        for ((names, body), types) in lambdas.iter().zip(types) {
            let parameters = parameters(names, types)?;
            let around = self.columns(|_, field| !names.contains(field.name()));
            let schema = schema(parameters.iter().cloned().chain(around).collect())?;
            let inner = Resolver { schema: &schema, in_lambda: true, ..*self };
            let body = inner.by_dialect(body)?;
            for column in body.expr.column_refs() {
                let is_parameter = column.relation.is_none() && names.contains(&column.name);
                if !is_parameter && !captured.contains(column) {
                    captured.push(column.clone());
                }
            }
            resolved.push((parameters, body));
        }
        // In the order of the columns, whichever lambda names them first.
        let kept = self.columns(|qualifier, field| captured.contains(&Column::new(qualifier.cloned(), field.name())));
        let mut bodies = Vec::with_capacity(resolved.len());
        for (parameters, body) in resolved {
            let count = parameters.len();
            let hidden = |field: &Arc<Field>| parameters.iter().any(|(_, parameter)| parameter.name() == field.name());
            // What this lambda's parameters hide was captured by another one: it keeps its place, under a name that nothing has.
            let behind = kept.iter().enumerate().map(|(at, (qualifier, field))| {
                if hidden(field) {
                    (None, Arc::new(field.as_ref().clone().with_name(format!("\0{at}"))))
                } else {
                    (qualifier.clone(), Arc::clone(field))
                }
            });
            let schema = schema(parameters.iter().cloned().chain(behind).collect())?;
            let body = self.expressions.compile(body.expr, &schema)?;
            bodies.push(LambdaBody { body, parameters: count, captured: kept.len() });
        }
        let call = function.with_lambdas(arguments, bodies)?;
        let column = |(qualifier, field): (Option<TableReference>, Arc<Field>)| {
            let data_type = field.data_type().clone();
            Typed { expr: Expr::Column(Column::new(qualifier, field.name())), data_type }
        };
        Ok((call, kept.into_iter().map(column).collect()))
    }

    /// The meaning of an expression in the dialect of the statement.
    pub(super) fn by_dialect(&self, written: &ast::Expr) -> Result<Typed, QueryError> {
        match self.dialect.kind {
            DialectKind::Ksql => self.resolve(written),
            DialectKind::Standard => {
                let expr = self.expressions.resolve(written, self.schema, self.parameters)?;
                // Of the type that it has once it is compiled.
                let coerced = self.expressions.coerced(expr.clone(), self.schema)?;
                let data_type = coerced.get_type(self.schema).map_err(fault::of_planning)?;
                Ok(Typed { expr, data_type })
            }
        }
    }

    /// The columns there are, as many as are wanted.
    fn columns(&self, is_wanted: impl Fn(Option<&TableReference>, &Field) -> bool) -> Fields {
        let all = self.schema.iter().filter(|(qualifier, field)| is_wanted(*qualifier, field));
        all.map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect()
    }
}

/// The calls with lambdas that are taken out of an expression of `standard`.
pub(in crate::plan) struct Calls {
    /// Each with the column that stands for it.
    calls: Vec<(Column, Expr)>,
    schema: DFSchema,
}

/// Takes the calls of functions with lambdas out of an expression, columns in their places; none if there is no such call.
///
/// # Errors
/// As [`Resolver::resolve`].
pub(in crate::plan) fn out_of(written: &mut ast::Expr, resolver: &Resolver<'_>) -> Result<Option<Calls>, QueryError> {
    struct Taking<'a> {
        resolver: &'a Resolver<'a>,
        taken: Vec<Typed>,
    }
    impl ast::VisitorMut for Taking<'_> {
        type Break = QueryError;

        fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<QueryError> {
            let ast::Expr::Function(call) = &*expr else { return ControlFlow::Continue(()) };
            if !functions::find(&call.name.to_string()).is_some_and(Function::takes_lambdas) {
                return ControlFlow::Continue(());
            }
            match self.resolver.call(call) {
                Ok(typed) => {
                    *expr = ast::Expr::Identifier(ast::Ident::with_quote('"', column_name(self.taken.len())));
                    self.taken.push(typed);
                    ControlFlow::Continue(())
                }
                Err(fault) => ControlFlow::Break(fault),
            }
        }
    }
    let mut taking = Taking { resolver, taken: Vec::new() };
    if let ControlFlow::Break(fault) = ast::VisitMut::visit(written, &mut taking) {
        return Err(fault);
    }
    if taking.taken.is_empty() {
        return Ok(None);
    }
    let mut fields = resolver.columns(|_, _| true);
    let mut calls = Vec::with_capacity(taking.taken.len());
    for (number, typed) in taking.taken.into_iter().enumerate() {
        fields.push((None, Arc::new(Field::new(column_name(number), typed.data_type, true))));
        calls.push((Column::from_name(column_name(number)), typed.expr));
    }
    Ok(Some(Calls { calls, schema: schema(fields)? }))
}

/// A name that nothing else has.
fn column_name(number: usize) -> String {
    format!("\0call{number}")
}

impl Calls {
    /// The columns among which the rest is planned.
    pub(in crate::plan) fn schema(&self) -> &DFSchema {
        &self.schema
    }

    /// What was planned with the calls in it again.
    pub(in crate::plan) fn put_back(&self, planned: Expr) -> Result<Expr, QueryError> {
        let replaced = planned.transform_up(|expr| {
            let call = match &expr {
                Expr::Column(column) => self.calls.iter().find(|(known, _)| known == column),
                _ => None,
            };
            Ok(call.map_or_else(|| Transformed::no(expr.clone()), |(_, call)| Transformed::yes(call.clone())))
        });
        Ok(replaced.map_err(fault::of_planning)?.data)
    }
}

fn parameters(names: &[String], types: Vec<DataType>) -> Result<Fields, QueryError> {
    for (at, name) in names.iter().enumerate() {
        if names.iter().skip(at + 1).any(|other| other == name) {
            return Err(QueryError::Invalid(format!("a lambda has the parameter {name} twice")));
        }
    }
    Ok(names.iter().zip(types).map(|(name, data_type)| (None, Arc::new(Field::new(name, data_type, true)))).collect())
}

fn schema(fields: Fields) -> Result<DFSchema, QueryError> {
    DFSchema::new_with_metadata(fields, HashMap::new()).map_err(fault::of_planning)
}
