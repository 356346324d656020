//! Recognises `SELECT columns FROM view WHERE key = value [AND key = value ...]`, which needs no planning.
//!
//! Pure. Whatever is not exactly that is left to DataFusion, which gives the same answer more slowly.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::{
    common::ScalarValue,
    sql::sqlparser::ast::{
        self, BinaryOperator, Expr, GroupByExpr, ObjectNamePart, Select, SelectItem, SetExpr, TableFactor, Value, WildcardAdditionalOptions,
    },
};

/// One value for each key column, in the order of the view.
pub(super) type Key = Vec<ScalarValue>;

/// A query that names one table and values for columns of it.
pub(super) struct Lookup {
    table: String,
    /// Column and name in the answer; none: all of them.
    columns: Option<Vec<(String, String)>>,
    equals: Vec<(String, Operand)>,
    literals: Vec<ScalarValue>,
}

/// What a column is compared with.
#[derive(Clone, Debug)]
enum Operand {
    /// A string or a number: its place among those of the text.
    Literal(usize),
    /// A parameter: its place among those of the request.
    Parameter(usize),
    /// TRUE or FALSE.
    Boolean(bool),
}

/// The lookup that a query is, if it is one.
pub(super) fn recognise(query: &ast::Query) -> Option<Lookup> {
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
    let mut lookup = Lookup { table, columns: projected(&select.projection)?, equals: Vec::new(), literals: Vec::new() };
    lookup.collect(select.selection.as_ref()?)?;
    Some(lookup)
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
        [ObjectNamePart::Identifier(ident)] if is_plain => Some(ident.value.clone()),
        _ => None,
    }
}

fn projected(items: &[SelectItem]) -> Option<Option<Vec<(String, String)>>> {
    if let [SelectItem::Wildcard(options)] = items {
        return (*options == WildcardAdditionalOptions::default()).then_some(None);
    }
    let column = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => Some((ident.value.clone(), ident.value.clone())),
        SelectItem::ExprWithAlias { expr: Expr::Identifier(ident), alias } => Some((ident.value.clone(), alias.value.clone())),
        _ => None,
    };
    let columns: Vec<(String, String)> = items.iter().map(column).collect::<Option<_>>()?;
    let is_repeated = |place: usize, name: &str| columns.iter().take(place).any(|(_, before)| before == name);
    let has_repeats = columns.iter().enumerate().any(|(place, (_, name))| is_repeated(place, name));
    (!has_repeats).then_some(Some(columns))
}

impl Lookup {
    /// The table's name, folded.
    pub(super) fn table(&self) -> &str {
        &self.table
    }

    /// The values of its strings and numbers, in the order of the text.
    pub(super) fn literals(&self) -> &[ScalarValue] {
        &self.literals
    }

    fn collect(&mut self, filter: &Expr) -> Option<()> {
        match filter {
            Expr::Nested(inner) => self.collect(inner),
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                self.collect(left)?;
                self.collect(right)
            }
            Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
                let (ident, value) = match (&**left, &**right) {
                    (Expr::Identifier(ident), Expr::Value(value)) | (Expr::Value(value), Expr::Identifier(ident)) => (ident, value),
                    _ => return None,
                };
                let operand = self.operand(&value.value)?;
                self.equals.push((ident.value.clone(), operand));
                Some(())
            }
            _ => None,
        }
    }

    fn operand(&mut self, value: &Value) -> Option<Operand> {
        let literal = match value {
            Value::SingleQuotedString(text) => ScalarValue::Utf8(Some(text.clone())),
            Value::Number(text, _) => ScalarValue::Int64(Some(text.parse().ok()?)),
            Value::Boolean(value) => return Some(Operand::Boolean(*value)),
            Value::Placeholder(name) => {
                let number: usize = name.strip_prefix('$')?.parse().ok()?;
                return Some(Operand::Parameter(number.checked_sub(1)?));
            }
            _ => return None,
        };
        self.literals.push(literal);
        Some(Operand::Literal(self.literals.len() - 1))
    }

    /// What gives the key of a view whose first `keys` columns are its key; none unless each is compared once, and nothing else.
    pub(super) fn key(&self, schema: &Schema, keys: usize) -> Option<KeyMaker> {
        if keys == 0 || self.equals.len() != keys {
            return None;
        }
        let part_of = |field: &Arc<Field>| {
            let (_, operand) = self.equals.iter().find(|(name, _)| name == field.name())?;
            Some((operand.clone(), field.data_type().clone()))
        };
        Some(KeyMaker { parts: schema.fields().iter().take(keys).map(part_of).collect::<Option<_>>()? })
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

/// Where the values of a key come from.
pub(super) struct KeyMaker {
    /// One for each key column, with its type.
    parts: Vec<(Operand, DataType)>,
}

impl KeyMaker {
    /// The key; none if a value is missing or has another type than its column.
    pub(super) fn key(&self, literals: &[ScalarValue], parameters: &[ScalarValue]) -> Option<Key> {
        let value = |(operand, data_type): &(Operand, DataType)| match operand {
            Operand::Literal(place) => same_type(literals.get(*place)?, data_type),
            Operand::Parameter(place) => same_type(parameters.get(*place)?, data_type),
            Operand::Boolean(value) => same_type(&ScalarValue::Boolean(Some(*value)), data_type),
        };
        self.parts.iter().map(value).collect()
    }
}

/// `value` as a column of `data_type` holds it, where that changes nothing about it.
fn same_type(value: &ScalarValue, data_type: &DataType) -> Option<ScalarValue> {
    if value.data_type() == *data_type {
        return Some(value.clone());
    }
    match (value, data_type) {
        (ScalarValue::Int64(Some(number)), DataType::Int32) => i32::try_from(*number).ok().map(|number| ScalarValue::Int32(Some(number))),
        (ScalarValue::Int32(Some(number)), DataType::Int64) => Some(ScalarValue::Int64(Some(i64::from(*number)))),
        _ => None,
    }
}
