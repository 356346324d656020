//! GROUP BY and its aggregates: what is computed before the fold, what is folded, and what is computed of the result.
//!
//! Called by `plan/select`. An aggregate that is written twice is folded once.

use arrow::datatypes::{DataType, Field};
use datafusion::{
    common::{
        Column as ColumnName, DFSchema,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Case, Expr, expr::AggregateFunction as Call},
    sql::sqlparser::ast,
};

use super::{
    aggregates,
    expression::{Expression, Expressions},
    fault,
    select::{Chain, Scope, item, next_id, place_of_item, predicate, schema_of_fields},
    streaming::{AggregateCall, Node, SourceScan},
};
use crate::{
    catalog::Source,
    error::{Place, QueryError},
    sql::{
        Dialect,
        dialect::{AggregateRules, Changelog, CollectLimits},
        place_of_expr,
    },
};

/// The parts of an aggregate, gathered from the SELECT list and HAVING.
pub(super) struct Grouping<'a> {
    keys: Vec<Expr>,
    /// With their names, and where in the statement they were found.
    calls: Vec<(Call, String, Option<Place>)>,
    input: DFSchema,
    source: &'a Source,
    expressions: &'a Expressions,
    /// Number of key columns of the source if it is a table; they come first in the input.
    source_keys: usize,
    rules: AggregateRules,
    collected: CollectLimits,
}

impl<'a> Grouping<'a> {
    /// A grouping by `keys` over the columns of `input`, the first `source_keys` of which are the key of a table.
    pub(super) fn new(keys: Vec<Expr>, input: DFSchema, source: &'a Source, scope: &'a Scope<'_>, source_keys: usize) -> Self {
        let (expressions, Dialect { aggregates: rules, collected, .. }) = (scope.expressions, scope.dialect);
        Self { keys, calls: Vec::new(), input, source, expressions, source_keys, rules, collected }
    }

    /// The chain: projection of keys and arguments, fold, HAVING, and the SELECT list over the fold's columns.
    pub(super) fn chain(
        mut self,
        scan: SourceScan,
        mut nodes: Vec<Node>,
        (named, having): (Vec<(String, Expr)>, Option<Expr>),
        select: &ast::Select,
    ) -> Result<Chain, QueryError> {
        let mut rewritten = Vec::new();
        for (number, (name, expr)) in named.into_iter().enumerate() {
            let key = self.keys.iter().position(|key| *key == expr);
            let place = place_of_item(select, number);
            rewritten.push((name, self.over_the_fold(expr, place).map_err(|error| error.at(|| place))?, key, place));
        }
        let of_having = select.having.as_ref().and_then(place_of_expr);
        let having = having.map(|having| self.over_the_fold(having, of_having)).transpose().map_err(|error| error.at(|| of_having))?;

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
        let keys = projected.len();
        let mut arguments = Arguments { fields, expressions: projected, known: Vec::new(), keys, source_keys: self.source_keys };
        let mut calls = Vec::new();
        for (call, name, place) in &self.calls {
            let call = self.fold_of(call, &mut arguments).map_err(|error| error.at(|| *place))?;
            results.push(Field::new(name, call.data_type.clone(), true));
            calls.push(call);
        }

        let Arguments { fields, expressions: projected, .. } = arguments;
        let projection = schema_of_fields(fields);
        nodes.push(Node::Project { id: next_id(&nodes), expressions: projected, schema: projection.clone() });
        if self.source_keys > 0 {
            nodes.push(Node::Copy { id: next_id(&nodes), keys: self.source_keys, schema: projection });
        }
        let schema = schema_of_fields(results);
        let folded = DFSchema::try_from(schema.as_ref().clone()).map_err(fault::of_planning)?;
        let having = having
            .map(|having| predicate(having, &folded, self.expressions, "HAVING"))
            .transpose()
            .map_err(|error| error.at(|| of_having))?;
        let keys = (0..self.keys.len()).collect();
        nodes.push(Node::Aggregate { id: next_id(&nodes), keys, calls, having, schema });

        let mut items = Vec::new();
        for (name, expr, key, place) in rewritten {
            items.push(item(name, expr, key, &folded, self.expressions).map_err(|error| error.at(|| place))?);
        }
        let key_names = self.keys.iter().map(plain_name).collect();
        Ok(Chain { scan, nodes, items, grouped: true, key_names, changelog: Changelog::Coalesced, is_rekeyed: false, strict_keys: false })
    }

    /// The expression over the fold's columns: keys and aggregates become columns, and no other column is left.
    fn over_the_fold(&mut self, expr: Expr, written_at: Option<Place>) -> Result<Expr, QueryError> {
        let replaced = expr.transform_down(|expr| {
            if let Some(place) = self.keys.iter().position(|key| *key == expr) {
                let column = Expr::Column(ColumnName::from_name(key_column(place)));
                return Ok(Transformed::new(column, true, TreeNodeRecursion::Jump));
            }
            let Expr::AggregateFunction(call) = expr else { return Ok(Transformed::no(expr)) };
            let known = self.calls.iter().position(|(known, ..)| *known == call);
            let place = known.unwrap_or(self.calls.len());
            if known.is_none() {
                self.calls.push((call, call_column(place), written_at));
            }
            let column = Expr::Column(ColumnName::from_name(call_column(place)));
            Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
        });
        let expr = replaced.map_err(fault::of_planning)?.data;
        // Of several the first by name, so that the same is said each time.
        if let Some(left) = expr.column_refs().into_iter().filter(|column| column.relation.is_some()).min() {
            if self.source.unnamed_column(&left.name).is_some() {
                return Err(QueryError::Invalid(
                    "a group has no time of the server and no random values, its records have: put the call into an aggregate, as LATEST_BY_OFFSET(...), or name its column in GROUP BY".to_owned(),
                ));
            }
            return Err(QueryError::Invalid(format!("column {} must stand in GROUP BY or in an aggregate", left.name)));
        }
        Ok(expr)
    }

    /// What a call folds; its arguments are put behind the columns that there are.
    fn fold_of(&self, call: &Call, columns: &mut Arguments) -> Result<AggregateCall, QueryError> {
        let written = call.func.name();
        let params = &call.params;
        if !params.order_by.is_empty() || params.null_treatment.is_some() {
            return Err(QueryError::Unsupported(format!("ORDER BY and IGNORE NULLS in {written}")));
        }
        let unknown = || {
            let names: Vec<&str> = aggregates::all().iter().map(|one| one.name).collect();
            QueryError::Unsupported(format!("{written} in a query that does not end; there are {}", names.join(", ")))
        };
        let aggregate = match aggregates::find(written) {
            Some(count) if params.distinct && count.name == "count" => aggregates::find("count_distinct").ok_or_else(unknown)?,
            Some(other) if params.distinct => {
                return Err(QueryError::Unsupported(format!("{}(DISTINCT ...) in a query that does not end", other.name)));
            }
            known => known.ok_or_else(unknown)?,
        };
        let written = match params.args.as_slice() {
            [one] if counts_rows(one) && aggregate.name == "count" => &[],
            written => written,
        };
        for one in written {
            if one.exists(|expr| Ok(matches!(expr, Expr::AggregateFunction(_)))).map_err(fault::of_planning)? {
                return Err(QueryError::Invalid(format!("{} cannot contain an aggregate", aggregate.name)));
            }
        }
        let given = written.iter().map(|one| self.expressions.compile(one.clone(), &self.input)).collect::<Result<Vec<_>, _>>()?;
        let described = written.iter().zip(&given).map(|(one, given)| match one {
            Expr::Literal(value, _) => aggregates::Argument::Literal(value, given.data_type()),
            _ => aggregates::Argument::Value(given.data_type()),
        });
        let resolved = aggregate.resolve(&described.collect::<Vec<_>>(), self.source_keys > 0, self.rules)?;

        let call = AggregateCall {
            function: resolved.function.showing(self.collected),
            arguments: Vec::new(),
            types: resolved.types.clone(),
            filter: None,
            data_type: resolved.returns,
            rules: self.rules,
        };
        let mut call = call;
        for (place, (one, folded_as)) in written.iter().zip(&resolved.types).enumerate() {
            let argument = self.expressions.compile_as(one.clone(), folded_as, &self.input)?;
            match &params.filter {
                // It fails for no row that the filter leaves out.
                Some(filter) if place == 0 && argument.can_fail() && !call.function.keeps_values() => {
                    let argument = self.expressions.compile_as(only_where(filter, one.clone()), folded_as, &self.input)?;
                    call.arguments.push(columns.add(argument));
                }
                _ => call.arguments.push(columns.place_of(one, argument)),
            }
        }
        if let Some(filter) = &params.filter {
            let compiled = predicate(filter.as_ref().clone(), &self.input, self.expressions, "FILTER")?;
            call.filter = Some(columns.place_of(filter, compiled));
        }
        Ok(call)
    }
}

/// The columns that are computed before the fold.
struct Arguments {
    fields: Vec<Field>,
    expressions: Vec<Expression>,
    /// What was written for some of them.
    known: Vec<(Expr, DataType, usize)>,
    /// Number of columns before the arguments, and of those among them that are the source's keys.
    keys: usize,
    source_keys: usize,
}

impl Arguments {
    /// The place of what was written so, which is computed once however often it stands there.
    fn place_of(&mut self, written: &Expr, expression: Expression) -> usize {
        let of = expression.data_type().clone();
        if let Some((.., place)) = self.known.iter().find(|(known, as_type, _)| known == written && *as_type == of) {
            return *place;
        }
        let place = self.add(expression);
        self.known.push((written.clone(), of, place));
        place
    }

    /// Adds an argument; gives its place in the input of the fold, where the source's keys are gone.
    fn add(&mut self, expression: Expression) -> usize {
        let name = format!("argument_{}", self.expressions.len() - self.keys);
        self.fields.push(Field::new(name, expression.data_type().clone(), true));
        self.expressions.push(expression);
        self.expressions.len() - 1 - self.source_keys
    }
}

fn key_column(place: usize) -> String {
    format!("key_{place}")
}

fn call_column(place: usize) -> String {
    format!("call_{place}")
}

pub(super) fn plain_name(key: &Expr) -> String {
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
