//! Calls: functions of the registry with their lambdas, aggregates, DataFusion's own.

use std::sync::Arc;

use datafusion::{
    common::ScalarValue,
    logical_expr::{
        Expr, ExprSchemable as _,
        expr::{AggregateFunction, ScalarFunction},
    },
    sql::sqlparser::ast::{self, FunctionArg, FunctionArgExpr, FunctionArgOperator, FunctionArguments},
};

use super::{Resolver, Typed, lambda::WrittenLambda, literal};
use crate::{
    error::QueryError,
    functions::{self, Argument, Function},
    plan::{aggregates, fault},
    sql::sugar,
};

/// An argument as it is written.
pub(super) enum Written<'a> {
    Value(&'a ast::Expr),
    Lambda(Vec<String>, &'a ast::Expr),
    /// `name := value`.
    Named(Result<&'a ast::Ident, &'a ast::Expr>, &'a ast::Expr),
    Star,
}

impl Resolver<'_> {
    pub(super) fn call(&self, call: &ast::Function) -> Result<Typed, QueryError> {
        let name = call.name.to_string();
        let unsupported = |what: &str| Err(QueryError::Unsupported(format!("{what} of {name} in the dialect {}", self.dialect.kind)));
        if call.over.is_some() || call.filter.is_some() || call.null_treatment.is_some() || !call.within_group.is_empty() {
            return unsupported("OVER, FILTER, IGNORE NULLS and WITHIN GROUP");
        }
        let arguments = match &call.args {
            FunctionArguments::None => Vec::new(),
            FunctionArguments::List(list) if list.duplicate_treatment.is_none() && list.clauses.is_empty() => {
                list.args.iter().map(|argument| written(argument, &name)).collect::<Result<Vec<_>, _>>()?
            }
            FunctionArguments::List(_) => return unsupported("DISTINCT and ORDER BY"),
            FunctionArguments::Subquery(_) => return unsupported("a subquery"),
        };
        if name.eq_ignore_ascii_case("STRUCT") {
            return self.make_struct(&arguments);
        }
        if name.eq_ignore_ascii_case("MAP") {
            return self.make_map(&arguments);
        }
        if let Some(aggregate) = self.expressions.aggregate(&name) {
            let mut resolved = Vec::with_capacity(arguments.len());
            for argument in &arguments {
                resolved.push(match argument {
                    Written::Value(value) => self.resolve(value)?,
                    Written::Star => literal(ScalarValue::Int64(Some(1))),
                    Written::Lambda(..) | Written::Named(..) => return Err(wrong_arguments(&name)),
                });
            }
            if arguments.is_empty() && name.eq_ignore_ascii_case("COUNT") {
                resolved.push(literal(ScalarValue::Int64(Some(1))));
            }
            return self.aggregate(&name, aggregate, resolved);
        }
        let Some(function) = functions::find(&name) else {
            let values = arguments.iter().map(|argument| match argument {
                Written::Value(value) => self.resolve(value),
                Written::Lambda(..) | Written::Named(..) | Written::Star => Err(wrong_arguments(&name)),
            });
            return self.of_datafusion(&name, values.collect::<Result<_, _>>()?);
        };
        self.of_registry(function, &name, &arguments)
    }

    /// A call of a function by name with arguments as they are written.
    pub(super) fn call_named(&self, name: &str, arguments: &[&ast::Expr]) -> Result<Typed, QueryError> {
        self.call_typed(name, arguments.iter().map(|argument| self.resolve(argument)).collect::<Result<_, _>>()?)
    }

    /// A call of a function of the registry by name.
    pub(super) fn call_typed(&self, name: &str, values: Vec<Typed>) -> Result<Typed, QueryError> {
        let Some(function) = functions::find(name) else { return self.of_datafusion(name, values) };
        let arguments: Vec<Argument<'_>> = values.iter().map(|value| Argument::Value(&value.data_type)).collect();
        let call = function.resolve(&arguments)?;
        finish(call, values, Vec::new())
    }

    fn of_registry(&self, function: &'static Function, name: &str, written: &[Written<'_>]) -> Result<Typed, QueryError> {
        let mut values = Vec::new();
        for (place, argument) in written.iter().enumerate() {
            match argument {
                Written::Value(ast::Expr::Identifier(ident)) if function.takes_unit(place) && functions::is_unit(&ident.value) => {
                    values.push(literal(ScalarValue::Utf8(Some(ident.value.clone()))));
                }
                Written::Value(value) => values.push(self.by_dialect(value)?),
                Written::Lambda(..) => {}
                Written::Named(..) | Written::Star => return Err(wrong_arguments(name)),
            }
        }
        let mut given = values.iter();
        let mut arguments = Vec::with_capacity(written.len());
        for argument in written {
            arguments.push(match argument {
                Written::Lambda(parameters, _) => Argument::Lambda { parameters: parameters.len() },
                _ => match given.next() {
                    Some(value) => Argument::Value(&value.data_type),
                    None => return Err(wrong_arguments(name)),
                },
            });
        }
        let lambdas: Vec<WrittenLambda<'_>> = written
            .iter()
            .filter_map(|argument| match argument {
                Written::Lambda(parameters, body) => Some((parameters.as_slice(), *body)),
                Written::Value(_) | Written::Named(..) | Written::Star => None,
            })
            .collect();
        if lambdas.is_empty() {
            let call = function.resolve(&arguments)?;
            return finish(call, values, Vec::new());
        }
        let (call, captured) = self.with_lambdas(function, &arguments, &lambdas)?;
        finish(call, values, captured)
    }

    fn aggregate(
        &self,
        name: &str,
        function: Arc<datafusion::logical_expr::AggregateUDF>,
        arguments: Vec<Typed>,
    ) -> Result<Typed, QueryError> {
        let described = arguments.iter().map(|argument| match &argument.expr {
            Expr::Literal(value, _) => aggregates::Argument::Literal(value, &argument.data_type),
            _ => aggregates::Argument::Value(&argument.data_type),
        });
        let described: Vec<_> = described.collect();
        let Some(known) = aggregates::find(name) else {
            return Err(QueryError::Unsupported(format!("the aggregate {name} in the dialect {}", self.dialect.kind)));
        };
        let counts_rows = name.eq_ignore_ascii_case("COUNT") && matches!(described.as_slice(), [aggregates::Argument::Literal(..)]);
        let described = if counts_rows { &[] } else { described.as_slice() };
        let data_type = known.resolve(described, false, self.dialect.aggregates)?.returns;
        let arguments = arguments.into_iter().map(|argument| argument.expr).collect();
        let expr = Expr::AggregateFunction(AggregateFunction::new_udf(function, arguments, false, None, Vec::new(), None));
        Ok(Typed { expr, data_type })
    }

    fn of_datafusion(&self, name: &str, values: Vec<Typed>) -> Result<Typed, QueryError> {
        let function = self.expressions.function(name)?;
        let expr = Expr::ScalarFunction(ScalarFunction::new_udf(function, values.into_iter().map(|value| value.expr).collect()));
        let expr = self.expressions.coerced(expr, self.schema)?;
        let data_type = expr.get_type(self.schema).map_err(fault::of_planning)?;
        let value = Typed { expr, data_type };
        // Into a type of ours.
        match crate::catalog::types::kept_as(&value.data_type) {
            Some(kept) if kept != value.data_type => {
                Ok(Typed { expr: datafusion::logical_expr::cast(value.expr, kept.clone()), data_type: kept })
            }
            _ => Ok(value),
        }
    }
}

/// The call with its arguments in the types that it takes.
fn finish(call: functions::Call, values: Vec<Typed>, captured: Vec<Typed>) -> Result<Typed, QueryError> {
    let cast = values.into_iter().zip(&call.coerced).map(|(value, to)| {
        if value.data_type.is_null() && !to.is_null() {
            return ScalarValue::try_from(to).map(|null| literal(null).expr).map_err(fault::of_planning);
        }
        Ok(if value.data_type == *to { value.expr } else { value.converted(to).expr })
    });
    let mut arguments = cast.collect::<Result<Vec<_>, QueryError>>()?;
    arguments.extend(captured.into_iter().map(|one| one.expr));
    Ok(Typed { expr: Expr::ScalarFunction(ScalarFunction::new_udf(call.udf, arguments)), data_type: call.returns })
}

fn wrong_arguments(name: &str) -> QueryError {
    QueryError::Invalid(format!("{name} takes values, no *, := or lambda"))
}

pub(super) fn written<'a>(argument: &'a FunctionArg, name: &str) -> Result<Written<'a>, QueryError> {
    Ok(match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => Written::Star,
        FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::BinaryOp { left, op: ast::BinaryOperator::Assignment, right })) => {
            Written::Named(Err(left), right)
        }
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Written::Value(value),
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), operator } => match operator {
            FunctionArgOperator::Assignment => Written::Named(Ok(name), value),
            FunctionArgOperator::RightArrow => Written::Lambda(sugar::parameters(name), value),
            _ => return Err(wrong_arguments(&name.value)),
        },
        _ => return Err(wrong_arguments(name)),
    })
}
