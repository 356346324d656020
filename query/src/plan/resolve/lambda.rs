//! Lambdas: what a body means among its parameters and the columns around it.
//!
//! A body is resolved among all columns there are; those that it names are captured, and it is compiled over its parameters and
//! them. A parameter hides a column of its name. What the lambdas of one call capture is captured once. Arithmetic with NULL, which
//! is NULL elsewhere, is a failure in a body: the whole call is NULL.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, Field};
use datafusion::{
    common::{Column, DFSchema, TableReference},
    logical_expr::Expr,
    sql::sqlparser::ast,
};

use super::{Resolver, Typed};
use crate::{
    error::QueryError,
    functions::{Argument, Call, Function, LambdaBody},
    plan::fault,
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
            let body = inner.resolve(body)?;
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

    /// The columns there are, as many as are wanted.
    fn columns(&self, is_wanted: impl Fn(Option<&TableReference>, &Field) -> bool) -> Fields {
        let all = self.schema.iter().filter(|(qualifier, field)| is_wanted(*qualifier, field));
        all.map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect()
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
