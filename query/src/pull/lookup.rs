//! Recognises `SELECT columns FROM view WHERE key = value [AND key = value ...]`, which needs no planning; one of the columns may have
//! several values: `key IN (value, ...)`.
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

/// Keys that are looked up at once; what asks for more is planned.
const MOST_KEYS: usize = 100;

/// A query that names one table and values for columns of it.
pub(super) struct Lookup {
    table: String,
    /// Column and name in the answer; none: all of them.
    columns: Option<Vec<(String, String)>>,
    /// A column, and one of these values for it.
    equals: Vec<(String, Vec<Operand>)>,
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
                self.equals.push((ident.value.clone(), vec![operand]));
                Some(())
            }
            Expr::InList { expr, list, negated: false } => {
                let Expr::Identifier(ident) = &**expr else { return None };
                let operand = |value: &Expr| match value {
                    Expr::Value(value) => self.operand(&value.value),
                    _ => None,
                };
                let operands: Vec<Operand> = list.iter().map(operand).collect::<Option<_>>()?;
                self.equals.push((ident.value.clone(), operands));
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

    /// What gives the keys of a view whose first `keys` columns are its key; none unless each is compared once, and nothing else, and
    /// at most one with several values.
    pub(super) fn key(&self, schema: &Schema, keys: usize) -> Option<KeyMaker> {
        let several = self.equals.iter().filter(|(_, operands)| operands.len() != 1).count();
        if keys == 0 || self.equals.len() != keys || several > 1 {
            return None;
        }
        let part_of = |field: &Arc<Field>| {
            let (_, operands) = self.equals.iter().find(|(name, _)| name == field.name())?;
            (1..=MOST_KEYS).contains(&operands.len()).then(|| (operands.clone(), field.data_type().clone()))
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

/// Where the values of keys come from.
pub(super) struct KeyMaker {
    /// One for each key column, with its type: one value for all keys, or one for each.
    parts: Vec<(Vec<Operand>, DataType)>,
}

impl KeyMaker {
    /// The keys, each once; none if a value is missing or has another type than its column.
    pub(super) fn keys(&self, literals: &[ScalarValue], parameters: &[ScalarValue]) -> Option<Vec<Key>> {
        let value = |operand: &Operand, data_type: &DataType| match operand {
            Operand::Literal(place) => same_type(literals.get(*place)?, data_type),
            Operand::Parameter(place) => same_type(parameters.get(*place)?, data_type),
            Operand::Boolean(value) => same_type(&ScalarValue::Boolean(Some(*value)), data_type),
        };
        let number = self.parts.iter().map(|(operands, _)| operands.len()).max()?;
        let mut keys: Vec<Key> = Vec::with_capacity(number);
        for at in 0..number {
            let part = |(operands, data_type): &(Vec<Operand>, DataType)| value(operands.get(at).or(operands.first())?, data_type);
            let key: Key = self.parts.iter().map(part).collect::<Option<_>>()?;
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        Some(keys)
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
