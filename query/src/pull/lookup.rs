//! Recognises `SELECT columns FROM view WHERE key = value [AND key = value ...]`, which needs no planning.
//!
//! Pure. Whatever is not exactly that is left to DataFusion, which gives the same answer more slowly.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::{
    common::ScalarValue,
    sql::sqlparser::ast::{
        self, BinaryOperator, Expr, GroupByExpr, Ident, ObjectNamePart, Select, SelectItem, SetExpr, TableFactor, Value,
        WildcardAdditionalOptions,
    },
};

/// One value for each key column, in the order of the view.
pub(super) type Key = Vec<ScalarValue>;

/// A query that names one table and values for columns of it.
pub(super) struct Lookup {
    table: String,
    /// Column and name in the answer; none: all of them.
    columns: Option<Vec<(String, String)>>,
    equals: Vec<(String, ScalarValue)>,
}

/// The lookup that a query is, if it is one.
pub(super) fn recognise(query: &ast::Query, parameters: &[ScalarValue]) -> Option<Lookup> {
    let SetExpr::Select(select) = &*query.body else { return None };
    let is_bare = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && query.locks.is_empty()
        && query.for_clause.is_none()
        && query.settings.is_none()
        && query.format_clause.is_none()
        && query.pipe_operators.is_empty();
    if !is_bare || !is_plain(select) {
        return None;
    }
    let [from] = &select.from[..] else { return None };
    let table = table_name(from)?;
    let mut equals = Vec::new();
    collect_equals(select.selection.as_ref()?, parameters, &mut equals)?;
    Some(Lookup { table, columns: projected(&select.projection)?, equals })
}

fn is_plain(select: &Select) -> bool {
    let no_groups = matches!(&select.group_by, GroupByExpr::Expressions(by, modifiers) if by.is_empty() && modifiers.is_empty());
    no_groups
        && select.distinct.is_none()
        && select.select_modifiers.is_none()
        && select.top.is_none()
        && select.exclude.is_none()
        && select.into.is_none()
        && select.lateral_views.is_empty()
        && select.prewhere.is_none()
        && select.connect_by.is_empty()
        && select.cluster_by.is_empty()
        && select.distribute_by.is_empty()
        && select.sort_by.is_empty()
        && select.having.is_none()
        && select.named_window.is_empty()
        && select.qualify.is_none()
        && select.value_table_mode.is_none()
}

fn table_name(from: &ast::TableWithJoins) -> Option<String> {
    let TableFactor::Table {
        name,
        alias: None,
        args: None,
        with_hints,
        version: None,
        with_ordinality: false,
        partitions,
        json_path: None,
        sample: None,
        index_hints,
    } = &from.relation
    else {
        return None;
    };
    let is_plain = from.joins.is_empty() && with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty();
    match &name.0[..] {
        [ObjectNamePart::Identifier(ident)] if is_plain => Some(folded(ident)),
        _ => None,
    }
}

fn projected(items: &[SelectItem]) -> Option<Option<Vec<(String, String)>>> {
    if let [SelectItem::Wildcard(options)] = items {
        return (*options == WildcardAdditionalOptions::default()).then_some(None);
    }
    let column = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => Some((folded(ident), folded(ident))),
        SelectItem::ExprWithAlias { expr: Expr::Identifier(ident), alias } => Some((folded(ident), folded(alias))),
        _ => None,
    };
    let columns: Vec<(String, String)> = items.iter().map(column).collect::<Option<_>>()?;
    let is_repeated = |place: usize, name: &str| columns.iter().take(place).any(|(_, before)| before == name);
    let has_repeats = columns.iter().enumerate().any(|(place, (_, name))| is_repeated(place, name));
    (!has_repeats).then_some(Some(columns))
}

fn collect_equals(filter: &Expr, parameters: &[ScalarValue], equals: &mut Vec<(String, ScalarValue)>) -> Option<()> {
    match filter {
        Expr::Nested(inner) => collect_equals(inner, parameters, equals),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            collect_equals(left, parameters, equals)?;
            collect_equals(right, parameters, equals)
        }
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
            let (ident, value) = match (&**left, &**right) {
                (Expr::Identifier(ident), value) | (value, Expr::Identifier(ident)) => (ident, value),
                _ => return None,
            };
            equals.push((folded(ident), literal(value, parameters)?));
            Some(())
        }
        _ => None,
    }
}

fn literal(expr: &Expr, parameters: &[ScalarValue]) -> Option<ScalarValue> {
    let Expr::Value(value) = expr else { return None };
    match &value.value {
        Value::SingleQuotedString(text) => Some(ScalarValue::Utf8(Some(text.clone()))),
        Value::Number(text, _) => text.parse().ok().map(|number| ScalarValue::Int64(Some(number))),
        Value::Boolean(value) => Some(ScalarValue::Boolean(Some(*value))),
        Value::Placeholder(name) => {
            let number: usize = name.strip_prefix('$')?.parse().ok()?;
            parameters.get(number.checked_sub(1)?).cloned()
        }
        _ => None,
    }
}

fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

impl Lookup {
    /// The table's name, folded.
    pub(super) fn table(&self) -> &str {
        &self.table
    }

    /// The key that is looked up in a view whose first `keys` columns are its key; none unless each has exactly one value, of
    /// its own type, and nothing else is asked for.
    pub(super) fn key(&self, schema: &Schema, keys: usize) -> Option<Key> {
        if keys == 0 || self.equals.len() != keys {
            return None;
        }
        let value_of = |field: &Arc<Field>| {
            let (_, value) = self.equals.iter().find(|(name, _)| name == field.name())?;
            same_type(value, field.data_type())
        };
        schema.fields().iter().take(keys).map(value_of).collect()
    }

    /// Places in the view and schema of the answer; none if a column does not exist there.
    pub(super) fn columns(&self, schema: &Schema) -> Option<(Vec<usize>, SchemaRef)> {
        let mut places = Vec::new();
        let mut fields = Vec::new();
        match &self.columns {
            None => {
                let declared = schema.fields().len().checked_sub(1)?;
                for (place, field) in schema.fields().iter().take(declared).enumerate() {
                    places.push(place);
                    fields.push(Arc::clone(field));
                }
            }
            Some(columns) => {
                for (column, name) in columns {
                    let place = schema.fields().iter().position(|field| field.name() == column)?;
                    places.push(place);
                    fields.push(Arc::new(schema.field(place).clone().with_name(name)));
                }
            }
        }
        Some((places, Arc::new(Schema::new(fields))))
    }
}

/// `value` as a column of `data_type` holds it, where that changes nothing about it.
fn same_type(value: &ScalarValue, data_type: &DataType) -> Option<ScalarValue> {
    if value.is_null() {
        return None;
    }
    if value.data_type() == *data_type {
        return Some(value.clone());
    }
    match (value, data_type) {
        (ScalarValue::Int64(Some(number)), DataType::Int32) => i32::try_from(*number).ok().map(|number| ScalarValue::Int32(Some(number))),
        (ScalarValue::Int32(Some(number)), DataType::Int64) => Some(ScalarValue::Int64(Some(i64::from(*number)))),
        _ => None,
    }
}
