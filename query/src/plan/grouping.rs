//! GROUP BY and its aggregates: what is computed before the fold, what is folded, and what is computed of the result.
//!
//! Called by `plan/select`. An aggregate that is written twice is folded once.

use arrow::datatypes::{DataType, Field};
use datafusion::{
    common::{
        Column as ColumnName, DFSchema, ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Case, Expr, expr::AggregateFunction as Call},
};

use super::{
    expression::{Expression, Expressions},
    fault,
    select::{Chain, item, next_id, predicate, schema_of_fields},
    streaming::{AggregateCall, AggregateFunction, Node, SourceScan},
};
use crate::{
    catalog::types::{kept_as, type_name},
    error::QueryError,
    sql::dialect::Changelog,
};

/// The parts of an aggregate, gathered from the SELECT list and HAVING.
pub(super) struct Grouping<'a> {
    keys: Vec<Expr>,
    calls: Vec<(Call, String)>,
    input: DFSchema,
    expressions: &'a Expressions,
    /// Number of key columns of the source if it is a table; they come first in the input.
    source_keys: usize,
}

impl<'a> Grouping<'a> {
    /// A grouping by `keys` over the columns of `input`, the first `source_keys` of which are the key of a table.
    pub(super) fn new(keys: Vec<Expr>, input: DFSchema, expressions: &'a Expressions, source_keys: usize) -> Result<Self, QueryError> {
        Ok(Self { keys, calls: Vec::new(), input, expressions, source_keys })
    }

    /// The chain: projection of keys and arguments, fold, HAVING, and the SELECT list over the fold's columns.
    pub(super) fn chain(
        mut self,
        scan: SourceScan,
        mut nodes: Vec<Node>,
        named: Vec<(String, Expr)>,
        having: Option<Expr>,
    ) -> Result<Chain, QueryError> {
        let mut rewritten = Vec::new();
        for (name, expr) in named {
            let key = self.keys.iter().position(|key| *key == expr);
            rewritten.push((name, self.over_the_fold(expr)?, key));
        }
        let having = having.map(|having| self.over_the_fold(having)).transpose()?;

        let mut fields = Vec::new();
        let mut projected = Vec::new();
        for (place, field) in self.input.fields().iter().take(self.source_keys).enumerate() {
            fields.push(Field::new(format!("source_{place}"), field.data_type().clone(), true));
            projected.push(Expression::column(field.name(), place, field.data_type().clone()));
        }
        let mut results = Vec::new();
        for (place, key) in self.keys.iter().enumerate() {
            let column = item(key_column(place), key.clone(), None, &self.input, self.expressions)?;
            results.push(Field::new(key_column(place), column.column.data_type, true));
            projected.push(column.expression);
        }
        fields.extend(results.iter().cloned());
        let mut calls = Vec::new();
        for (call, name) in &self.calls {
            let (function, argument) = self.fold_of(call)?;
            let (input_type, argument) = match argument {
                None => (DataType::Int64, None),
                Some((expr, as_type)) => {
                    let compiled = self.expressions.compile_as(expr, &as_type, &self.input)?;
                    fields.push(Field::new(format!("argument_{}", calls.len()), as_type.clone(), true));
                    projected.push(compiled);
                    (as_type, Some(projected.len() - 1 - self.source_keys))
                }
            };
            let data_type = result_type(function, &input_type);
            results.push(Field::new(name, data_type.clone(), true));
            calls.push(AggregateCall { function, argument, input_type, data_type });
        }

        let projection = schema_of_fields(fields);
        nodes.push(Node::Project { id: next_id(&nodes), expressions: projected, schema: projection.clone() });
        if self.source_keys > 0 {
            nodes.push(Node::Copy { id: next_id(&nodes), keys: self.source_keys, schema: projection });
        }
        let schema = schema_of_fields(results);
        let folded = DFSchema::try_from(schema.as_ref().clone()).map_err(fault::of_planning)?;
        let having = having.map(|having| predicate(having, &folded, self.expressions, "HAVING")).transpose()?;
        let keys = (0..self.keys.len()).collect();
        nodes.push(Node::Aggregate { id: next_id(&nodes), keys, calls, having, schema });

        let mut items = Vec::new();
        for (name, expr, key) in rewritten {
            items.push(item(name, expr, key, &folded, self.expressions)?);
        }
        let key_names = self.keys.iter().map(plain_name).collect();
        Ok(Chain { scan, nodes, items, grouped: true, key_names, changelog: Changelog::Coalesced })
    }

    /// The expression over the fold's columns: keys and aggregates become columns, and no other column is left.
    fn over_the_fold(&mut self, expr: Expr) -> Result<Expr, QueryError> {
        let replaced = expr.transform_down(|expr| {
            if let Some(place) = self.keys.iter().position(|key| *key == expr) {
                let column = Expr::Column(ColumnName::from_name(key_column(place)));
                return Ok(Transformed::new(column, true, TreeNodeRecursion::Jump));
            }
            let Expr::AggregateFunction(call) = expr else { return Ok(Transformed::no(expr)) };
            let known = self.calls.iter().position(|(known, _)| *known == call);
            let place = known.unwrap_or(self.calls.len());
            if known.is_none() {
                self.calls.push((call, call_column(place)));
            }
            let column = Expr::Column(ColumnName::from_name(call_column(place)));
            Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
        });
        let expr = replaced.map_err(fault::of_planning)?.data;
        if let Some(left) = expr.column_refs().into_iter().find(|column| column.relation.is_some()) {
            return Err(QueryError::Invalid(format!("column {} must stand in GROUP BY or in an aggregate", left.name)));
        }
        Ok(expr)
    }

    /// What a call folds: the function, and its argument with the type in which it is folded.
    fn fold_of(&self, call: &Call) -> Result<(AggregateFunction, Option<(Expr, DataType)>), QueryError> {
        let name = call.func.name();
        let params = &call.params;
        if params.distinct {
            return Err(QueryError::Unsupported(format!("{name}(DISTINCT ...) in a query that does not end")));
        }
        if !params.order_by.is_empty() || params.null_treatment.is_some() {
            return Err(QueryError::Unsupported(format!("ORDER BY and IGNORE NULLS in {name}")));
        }
        let function = match name {
            "count" => AggregateFunction::Count,
            "sum" => AggregateFunction::Sum,
            "min" => AggregateFunction::Min,
            "max" => AggregateFunction::Max,
            "avg" => AggregateFunction::Avg,
            _ => {
                return Err(QueryError::Unsupported(format!(
                    "{name} in a query that does not end; there are COUNT, SUM, MIN, MAX and AVG"
                )));
            }
        };
        let argument = match params.args.as_slice() {
            [] => None,
            [one] if counts_rows(one) && function == AggregateFunction::Count => None,
            [one] => Some(one.clone()),
            _ => return Err(QueryError::Invalid(format!("{name} takes one argument"))),
        };
        let Some(argument) = argument else {
            return Ok(match &params.filter {
                None => (AggregateFunction::CountStar, None),
                Some(filter) => {
                    let one = only_where(filter, Expr::Literal(ScalarValue::Int64(Some(1)), None));
                    (AggregateFunction::Count, Some((one, DataType::Int64)))
                }
            });
        };
        if argument.exists(|expr| Ok(matches!(expr, Expr::AggregateFunction(_)))).map_err(fault::of_planning)? {
            return Err(QueryError::Invalid(format!("{name} cannot contain an aggregate")));
        }
        let given = self.expressions.compile(argument.clone(), &self.input)?;
        let folded_as = match (function, given.data_type()) {
            (AggregateFunction::Sum | AggregateFunction::Avg, DataType::Decimal128(precision, scale)) => {
                Some(DataType::Decimal128(*precision, *scale))
            }
            (AggregateFunction::Sum | AggregateFunction::Avg, of) if of.is_integer() => Some(DataType::Int64),
            (AggregateFunction::Sum | AggregateFunction::Avg, of) if of.is_numeric() => Some(DataType::Float64),
            (AggregateFunction::Sum | AggregateFunction::Avg, DataType::Null) => Some(DataType::Float64),
            (AggregateFunction::Sum | AggregateFunction::Avg, _) => None,
            (_, of) => kept_as(of),
        };
        let Some(folded_as) = folded_as else {
            return Err(QueryError::Invalid(format!("{name} does not take {}", type_name(given.data_type()))));
        };
        let argument = match &params.filter {
            None => argument,
            Some(filter) => only_where(filter, argument),
        };
        Ok((function, Some((argument, folded_as))))
    }
}

fn key_column(place: usize) -> String {
    format!("key_{place}")
}

fn call_column(place: usize) -> String {
    format!("call_{place}")
}

fn plain_name(key: &Expr) -> String {
    match key {
        Expr::Column(column) => column.name.clone(),
        other => other.human_display().to_string(),
    }
}

/// Whether counting the argument is counting rows: `*`, or a literal that is not NULL.
fn counts_rows(argument: &Expr) -> bool {
    match argument {
        Expr::Literal(value, _) => !value.is_null(),
        #[expect(deprecated, reason = "this is how DataFusion hands COUNT(*) over")]
        Expr::Wildcard { .. } => true,
        _ => false,
    }
}

/// The argument of an aggregate with FILTER: NULL, which no aggregate counts, where the filter is not true.
fn only_where(filter: &Expr, argument: Expr) -> Expr {
    Expr::Case(Case::new(None, vec![(Box::new(filter.clone()), Box::new(argument))], None))
}

fn result_type(function: AggregateFunction, input: &DataType) -> DataType {
    match (function, input) {
        (AggregateFunction::CountStar | AggregateFunction::Count, _) => DataType::Int64,
        (AggregateFunction::Sum, DataType::Decimal128(_, scale)) => DataType::Decimal128(38, *scale),
        (AggregateFunction::Avg, _) => DataType::Float64,
        (AggregateFunction::Sum | AggregateFunction::Min | AggregateFunction::Max, other) => other.clone(),
    }
}
