//! From a SELECT that does not end to a chain of operators.
//!
//! Called by `plan/streaming`. Names are resolved against one source; what the chain cannot do is refused by name. The same
//! SELECT over the same source gives the same chain with the same operator ids.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::{
    common::{
        Column as ColumnName, DFSchema, ScalarValue, TableReference,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Case, Expr, ExprSchemable},
    sql::sqlparser::ast,
};

use super::{
    chance::{Calls, Chance, draws, of_each_row},
    expression::{Expression, Expressions},
    fault,
    grouping::{Grouping, plain_name},
    naming::{numbered, own_name},
    streaming::{Node, OperatorId, SourceScan, is_place},
    table_functions::{Compiled, Exploded, has_table_function},
};
use crate::{
    catalog::{Column, Pseudo, Source, SourceKind, WantedColumn, type_name, types::kept_as},
    error::{Place, QueryError},
    sql::{Dialect, DialectKind, dialect::Changelog, place_of_expr, sugar},
    stack::with_stack,
};

/// What a statement may refer to.
pub struct Scope<'a> {
    /// Finds a stream, table or topic by its folded name.
    pub find: &'a dyn Fn(&str) -> Result<Arc<Source>, QueryError>,
    /// Compiles expressions.
    pub expressions: &'a Expressions,
    /// The dialect.
    pub dialect: Dialect,
    /// Values for `$1`, `$2`, ...
    pub parameters: &'a [ScalarValue],
    /// What NOW, RANDOM and the like mean.
    pub chance: Chance,
}

/// What the expressions of a SELECT mean.
struct Meaning<'a> {
    scope: &'a Scope<'a>,
    /// The columns that can be named.
    schema: DFSchema,
    /// All columns.
    all: DFSchema,
    calls: Calls<'a>,
}

impl Meaning<'_> {
    /// The expression, NULL for a record that has no value of which it could be computed.
    fn only_with_value(&self, expr: Expr, source: &Source) -> Result<Expr, QueryError> {
        let is_key = |name: &str| source.columns.iter().any(|column| column.key && column.name == name);
        let is_declared = |name: &str| source.columns.iter().any(|column| column.name == name);
        // Which is NULL there by itself.
        let is_plain = matches!(&expr, Expr::Column(column) if is_declared(&column.name));
        if is_plain || expr.column_refs().into_iter().all(|column| is_key(&column.name)) {
            return Ok(expr);
        }
        let has_value = self.calls.column(Pseudo::HasValue).map_err(fault::of_planning)?;
        Ok(Expr::Case(Case::new(None, vec![(Box::new(has_value), Box::new(expr))], None)))
    }

    fn resolve(&self, written: &ast::Expr) -> Result<Expr, QueryError> {
        self.resolve_among(written, &self.schema)
    }

    fn resolve_among(&self, written: &ast::Expr, schema: &DFSchema) -> Result<Expr, QueryError> {
        self.calls.given(self.scope.expressions.resolve(written, schema, self.scope.parameters)?)
    }
}

/// A SELECT as a chain, not yet joined to a sink.
#[derive(Debug)]
pub struct Chain {
    /// The source.
    pub scan: SourceScan,
    /// The operators before the last projection.
    pub nodes: Vec<Node>,
    /// The result's columns in the order of the SELECT list, each over the columns that `nodes` give.
    pub items: Vec<Item>,
    /// Whether rows are grouped: then the result is a table.
    pub grouped: bool,
    /// Key columns of the result as far as they are named: the source's for a projection, the grouping columns for an aggregate.
    pub key_names: Vec<String>,
    /// What of a step is written, if the result is a table.
    pub changelog: Changelog,
    /// Whether PARTITION BY chose the key.
    pub is_rekeyed: bool,
    /// Whether every key column must be selected, once, and something beside.
    pub strict_keys: bool,
}

impl Chain {
    /// The same without the records of a stream that have no value, which ksqlDB tells nobody who watches it.
    ///
    /// # Errors
    /// [`QueryError::Execution`], which would be a fault of ours.
    pub fn of_values(mut self, expressions: &Expressions) -> Result<Self, QueryError> {
        // Every operator of a chain leaves them out.
        if self.nodes.is_empty() {
            let always = Expr::Literal(ScalarValue::Boolean(Some(true)), None);
            let predicate = predicate(always, &DFSchema::try_from(self.scan.schema()).map_err(fault::of_planning)?, expressions, "WHERE")?;
            self.nodes.push(Node::Filter { id: next_id(&self.nodes), predicate });
        }
        Ok(self)
    }
}

/// A column of the result.
#[derive(Clone, Debug)]
pub struct Item {
    /// Name and type; `key` says that it carries the `key`th key column unchanged.
    pub column: Column,
    /// Its value.
    pub expression: Expression,
    /// Which key column it is.
    pub key: Option<usize>,
}

/// Plans one SELECT.
///
/// # Errors
/// [`QueryError::Unsupported`] for what a query that does not end cannot do, else what is wrong with names and types.
pub fn plan(query: &ast::Query, partition_by: Option<&[ast::Expr]>, scope: &Scope<'_>) -> Result<Chain, QueryError> {
    with_stack(|| plan_here(query, partition_by, scope))
}

fn plan_here(query: &ast::Query, partition_by: Option<&[ast::Expr]>, scope: &Scope<'_>) -> Result<Chain, QueryError> {
    let select = only_select(query)?;
    let (source, alias) = only_source(select, scope)?;
    let all = source.all_columns();
    let unnamed = Pseudo::UNNAMED.map(WantedColumn::Pseudo);
    let all_with_unnamed: Vec<WantedColumn> = all.iter().chain(&unnamed).copied().collect();
    let full = qualified(&alias, &source.wanted_schema(&all))?;
    let meaning = Meaning {
        scope,
        schema: full.clone(),
        all: qualified(&alias, &source.wanted_schema(&all_with_unnamed))?,
        calls: Calls::new(scope.chance, &source, &alias),
    };

    let filter = select.selection.as_ref().map(|written| meaning.resolve(written)).transpose()?;
    if filter.as_ref().is_some_and(has_aggregate) {
        let refused = QueryError::Invalid("WHERE cannot contain an aggregate; use HAVING".to_owned());
        return Err(refused.at(|| select.selection.as_ref().and_then(place_of_expr)));
    }
    let (mut named, star) = named_items(select, &source, &alias, &meaning)?;
    let partition_by = partition_by.map(without_brackets);
    let partition = partition_by.map(|written| Partition::new(written, &named, &meaning)).transpose()?;
    if let (Some(partition), Some(star)) = (&partition, star) {
        let from = star.start;
        partition.reorder(&source, named.get_mut(star).unwrap_or_default());
        if scope.dialect.strict_keys {
            partition.complete(partition_by.unwrap_or_default(), from, &mut named, &full, scope.dialect);
        }
    }
    let having = select.having.as_ref().map(|written| having_expression(written, &named, &meaning)).transpose()?;
    let groups = group_expressions(select, &named, &meaning)?;

    let grouped = !groups.is_empty() || having.is_some() || named.iter().any(|(_, expr)| has_aggregate(expr));
    match (&partition, grouped) {
        (Some(_), true) => return unsupported("PARTITION BY beside GROUP BY"),
        (Some(_), _) if source.kind == SourceKind::Table => {
            return Err(QueryError::Invalid(format!("PARTITION BY over table {}: the key of a table cannot be changed", source.name)));
        }
        _ => {}
    }
    let explodes = named.iter().any(|(_, expr)| has_table_function(expr));
    if filter.iter().chain(&groups).chain(&having).any(has_table_function) || (explodes && grouped) {
        return unsupported("a table function in WHERE, GROUP BY and HAVING, or beside them");
    }
    if explodes && source.kind == SourceKind::Table {
        return Err(QueryError::Invalid(format!("table functions are for streams; {} is a table", source.name)));
    }
    let key_of = |expr: &Expr| match (&partition, expr) {
        (Some(partition), expr) => partition.key(expr),
        (None, Expr::Column(column)) => source.columns.iter().position(|one| one.key && one.name == column.name),
        (None, _) => None,
    };
    let keys_of: Vec<Option<usize>> = named.iter().map(|(_, expr)| key_of(expr)).collect();
    for ((_, expr), key) in named.iter_mut().zip(&keys_of) {
        if partition.is_some() && key.is_some() {
            *expr = meaning.only_with_value(std::mem::take(expr), &source)?;
        }
    }
    // What a record of a table replaces is known by its key.
    let keys = if source.kind == SourceKind::Table { source.key_count() } else { 0 };
    let used = filter.iter().chain(&groups).chain(&having).chain(named.iter().map(|(_, expr)| expr));
    let wanted = wanted_columns(used, &source, keys, &all_with_unnamed)?;
    let scan = SourceScan { source: Arc::clone(&source), wanted };
    let input = qualified(&alias, &scan.schema())?;

    let mut nodes = Vec::new();
    if let Some(filter) = filter {
        let predicate = predicate(filter, &input, scope.expressions, "WHERE")
            .map_err(|error| error.at(|| select.selection.as_ref().and_then(place_of_expr)))?;
        nodes.push(Node::Filter { id: next_id(&nodes), predicate });
    }
    if grouped {
        let (changelog, strict_keys) = (scope.dialect.changelog, scope.dialect.strict_keys);
        let grouping = Grouping::new(groups, input, &source, scope, keys);
        return Ok(Chain { changelog, strict_keys, ..grouping.chain(scan, nodes, (named, having), select)? });
    }

    let mut exploded = Exploded::default();
    let mut computed = Vec::new();
    for (at, ((name, expr), key)) in named.into_iter().zip(keys_of).enumerate() {
        computed.push((name, exploded.take_out(expr, place_of_item(select, at))?, key));
    }
    if explodes && computed.iter().any(|(_, expr, _)| draws(expr)) {
        let number = exploded.number();
        for (_, expr, _) in &mut computed {
            *expr = of_each_row(std::mem::take(expr), &number)?;
        }
    }
    let mut input = input;
    if let Some(Compiled { calls, fields }) = exploded.compiled(&input, scope.expressions)? {
        let named = computed.iter().flat_map(|(_, expr, _)| expr.column_refs());
        let reads: BTreeSet<usize> = named.filter_map(|column| input.maybe_index_of_column(column)).collect();
        let added = DFSchema::try_from(Schema::new(fields)).map_err(fault::of_planning)?;
        input = input.join(&added).map_err(fault::of_planning)?;
        let schema = schema_of_fields(input.fields().iter().map(|field| Field::clone(field)).collect());
        nodes.push(Node::Explode { id: next_id(&nodes), reads: reads.into_iter().collect(), calls, schema });
    }
    let mut items = Vec::new();
    for (number, (name, expr, key)) in computed.into_iter().enumerate() {
        let place = || place_of_item(select, number);
        items.push(item(name, expr, key, &input, scope.expressions).map_err(|error| error.at(place))?);
    }
    let of_source = || source.columns.iter().filter(|column| column.key).map(|column| column.name.clone()).collect();
    let key_names = partition.as_ref().map_or_else(of_source, Partition::names);
    let Dialect { changelog, strict_keys, .. } = scope.dialect;
    Ok(Chain { scan, nodes, items, grouped, key_names, changelog, is_rekeyed: partition.is_some(), strict_keys })
}

/// What PARTITION BY says: the expressions that are the key; none for NULL.
struct Partition {
    keys: Vec<Expr>,
}

impl Partition {
    fn new(written: &[ast::Expr], items: &[(String, Expr)], meaning: &Meaning<'_>) -> Result<Self, QueryError> {
        let mut keys: Vec<Expr> = Vec::new();
        for one in written {
            let key = match (meaning.resolve(one), one) {
                (Ok(expr), _) => expr,
                (Err(error), ast::Expr::Identifier(ident)) => {
                    let name = meaning.scope.dialect.name(ident);
                    items.iter().find(|(item, _)| *item == name).map(|(_, expr)| expr.clone()).ok_or(error)?
                }
                (Err(error), _) => return Err(error),
            };
            let is_null = matches!(&key, Expr::Literal(value, _) if value.is_null());
            match (is_null, written.len()) {
                (true, 1) => return Ok(Self { keys }),
                (true, _) => return Err(QueryError::Invalid("PARTITION BY NULL takes the key away, and stands alone".to_owned())),
                (false, _) if has_aggregate(&key) || has_table_function(&key) => {
                    return Err(QueryError::Invalid("PARTITION BY cannot contain an aggregate or a table function".to_owned()));
                }
                (false, _) if !keys.contains(&key) => keys.push(key),
                (false, _) => {}
            }
        }
        Ok(Self { keys })
    }

    /// Which key column an expression is.
    fn key(&self, expr: &Expr) -> Option<usize> {
        self.keys.iter().position(|key| key == expr)
    }

    fn names(&self) -> Vec<String> {
        self.keys.iter().map(plain_name).collect()
    }

    /// Adds the keys that the list does not have before its `*`, which stands at `star`.
    fn complete(&self, written: &[ast::Expr], star: usize, items: &mut Vec<(String, Expr)>, schema: &DFSchema, dialect: Dialect) {
        for (key, written) in self.keys.iter().zip(written).rev() {
            if items.iter().all(|(_, item)| item != key) {
                let name = match written {
                    // The row time is every row's own; a place in a topic is not that of the record that is written.
                    ast::Expr::Identifier(ident) if is_place(&dialect.name(ident)) => dialect.name(ident),
                    ast::Expr::Identifier(_) => numbered(&|name| is_taken(name, items, schema)),
                    written => own_name(written, items.len(), &|name| is_taken(name, items, schema), dialect),
                };
                items.insert(star, (name, key.clone()));
            }
        }
    }

    /// Puts what was the key behind the other columns of a `*`.
    fn reorder(&self, source: &Source, items: &mut [(String, Expr)]) {
        let was_key =
            |expr: &Expr| matches!(expr, Expr::Column(column) if source.columns.iter().any(|one| one.key && one.name == column.name));
        items.sort_by_key(|(_, expr)| was_key(expr) && self.key(expr).is_none());
    }
}

/// The id of the next operator.
pub(super) fn next_id(nodes: &[Node]) -> OperatorId {
    OperatorId(u32::try_from(nodes.len()).unwrap_or(u32::MAX))
}

/// Compiles a condition.
pub(super) fn predicate(expr: Expr, schema: &DFSchema, expressions: &Expressions, clause: &str) -> Result<Expression, QueryError> {
    let compiled = expressions.compile(expr, schema)?;
    match compiled.data_type() {
        DataType::Boolean => Ok(compiled),
        other => Err(QueryError::Invalid(format!("{clause} must be BOOLEAN, it is {}", type_name(other)))),
    }
}

/// Compiles a column of the result, in a type that can be kept.
pub(super) fn item(name: String, expr: Expr, key: Option<usize>, schema: &DFSchema, expressions: &Expressions) -> Result<Item, QueryError> {
    let compiled = expressions.compile(expr.clone(), schema)?;
    if compiled.data_type().is_null() && expressions.dialect().kind == DialectKind::Ksql {
        return Err(QueryError::Invalid(format!("column {name} is NULL and nothing else: its type is not known; CAST it")));
    }
    let Some(data_type) = kept_as(compiled.data_type()) else {
        let given = type_name(compiled.data_type());
        return Err(QueryError::Invalid(format!("column {name} is {given}, which no stream or table can hold; CAST it")));
    };
    let expression = if *compiled.data_type() == data_type { compiled } else { expressions.compile_as(expr, &data_type, schema)? };
    Ok(Item { column: Column { name, data_type, key: false }, expression, key })
}

/// A schema whose columns carry the name under which the source is known.
pub(super) fn qualified(alias: &str, schema: &SchemaRef) -> Result<DFSchema, QueryError> {
    DFSchema::try_from_qualified_schema(TableReference::bare(alias), schema).map_err(fault::of_planning)
}

/// Names and types as a schema of a plan.
pub(super) fn schema_of_fields(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

fn unsupported<T>(what: &str) -> Result<T, QueryError> {
    Err(QueryError::Unsupported(format!("{what} in a query that does not end")))
}

fn only_select(query: &ast::Query) -> Result<&ast::Select, QueryError> {
    if query.with.is_some() {
        return unsupported("WITH");
    }
    if query.order_by.is_some() {
        return unsupported("ORDER BY");
    }
    if query.limit_clause.is_some() || query.fetch.is_some() {
        return unsupported("LIMIT, OFFSET and FETCH");
    }
    if !query.locks.is_empty() || query.for_clause.is_some() || query.settings.is_some() || !query.pipe_operators.is_empty() {
        return unsupported("FOR, SETTINGS and |>");
    }
    let select = match query.body.as_ref() {
        ast::SetExpr::Select(select) => select,
        ast::SetExpr::SetOperation { op, .. } => return unsupported(&op.to_string()),
        ast::SetExpr::Query(_) => return unsupported("a SELECT in brackets"),
        ast::SetExpr::Values(_) => return unsupported("VALUES"),
        _ => return unsupported("anything but SELECT"),
    };
    if select.distinct.is_some() {
        return unsupported("DISTINCT");
    }
    let further = !select.lateral_views.is_empty()
        || select.prewhere.is_some()
        || select.top.is_some()
        || !select.connect_by.is_empty()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty()
        || !select.sort_by.is_empty()
        || !select.named_window.is_empty()
        || select.qualify.is_some()
        || select.exclude.is_some();
    if further {
        return unsupported("a clause other than FROM, WHERE, GROUP BY and HAVING");
    }
    Ok(select)
}

fn only_source(select: &ast::Select, scope: &Scope<'_>) -> Result<(Arc<Source>, String), QueryError> {
    let table = match select.from.as_slice() {
        [] => return unsupported("a SELECT without FROM"),
        [one] if one.joins.is_empty() => &one.relation,
        _ => return unsupported("a join"),
    };
    let ast::TableFactor::Table { name, alias, args: None, .. } = table else {
        return unsupported("anything but the name of a stream or table after FROM");
    };
    let [ast::ObjectNamePart::Identifier(ident)] = name.0.as_slice() else {
        return Err(QueryError::Invalid(format!("write \"{name}\" with quotes if the dots belong to the name")));
    };
    let folded = scope.dialect.name(ident);
    let source = (scope.find)(&folded)?;
    let alias = alias.as_ref().map_or(folded, |alias| scope.dialect.name(&alias.name));
    Ok((source, alias))
}

/// Columns with their names.
type Named = Vec<(String, Expr)>;

/// The SELECT list with names, `*` written out, and where the columns of the first `*` stand.
fn named_items(
    select: &ast::Select,
    source: &Source,
    alias: &str,
    meaning: &Meaning<'_>,
) -> Result<(Named, Option<Range<usize>>), QueryError> {
    let Meaning { scope, schema, .. } = meaning;
    let mut items = Vec::new();
    let mut first = None;
    let all = |items: &mut Named, first: &mut Option<Range<usize>>| {
        let from = items.len();
        items.extend(star(source, alias));
        first.get_or_insert(from..items.len());
    };
    for written in &select.projection {
        match written {
            ast::SelectItem::Wildcard(options) if is_plain(options) => all(&mut items, &mut first),
            ast::SelectItem::QualifiedWildcard(ast::SelectItemQualifiedWildcardKind::ObjectName(name), _) if matches!(name.0.as_slice(), [ast::ObjectNamePart::Identifier(ident)] if scope.dialect.name(ident) == alias) =>
            {
                all(&mut items, &mut first);
            }
            ast::SelectItem::Wildcard(_) | ast::SelectItem::QualifiedWildcard(..) => return unsupported("such a *"),
            ast::SelectItem::UnnamedExpr(expr) if all_fields_of(expr).is_some() => {
                let Some(of) = all_fields_of(expr) else { continue };
                items.extend(fields(&of, meaning)?);
            }
            ast::SelectItem::UnnamedExpr(expr) => {
                let name = own_name(expr, items.len(), &|name| is_taken(name, &items, schema), scope.dialect);
                items.push((name, meaning.resolve(expr)?));
            }
            ast::SelectItem::ExprWithAlias { expr, alias } => {
                items.push((scope.dialect.name(alias), meaning.resolve(expr)?));
            }
            ast::SelectItem::ExprWithAliases { .. } => return unsupported("several aliases"),
        }
    }
    for (place, (name, _)) in items.iter().enumerate() {
        if items.iter().take(place).any(|(other, _)| other == name) {
            return Err(QueryError::Invalid(format!("two columns are called {name}; name one of them with AS")));
        }
    }
    Ok((items, first))
}

/// Whether a column of the result or of the source is called so.
fn is_taken(name: &str, items: &[(String, Expr)], schema: &DFSchema) -> bool {
    items.iter().any(|(other, _)| other == name) || schema.fields().iter().any(|field| field.name() == name)
}

/// Where an item of a SELECT list stands, by its number among the columns; not known where a `*` stands for several.
pub(super) fn place_of_item(select: &ast::Select, number: usize) -> Option<Place> {
    let written = select.projection.iter().map(|item| match item {
        ast::SelectItem::UnnamedExpr(expr) if all_fields_of(expr).is_some() => None,
        ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    });
    written.collect::<Option<Vec<_>>>()?.get(number).and_then(|expr| place_of_expr(expr))
}

/// Whether a `*` has no EXCEPT, REPLACE or the like.
fn is_plain(options: &ast::WildcardAdditionalOptions) -> bool {
    options.opt_ilike.is_none()
        && options.opt_exclude.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none()
}

fn star(source: &Source, alias: &str) -> Vec<(String, Expr)> {
    let names = source.star().into_iter().filter_map(|one| source.wanted_field(one));
    let named = |field: Field| {
        let column = ColumnName::new(Some(TableReference::bare(alias)), field.name().clone());
        (field.name().clone(), Expr::Column(column))
    };
    names.map(named).collect()
}

/// The struct whose fields `expr` stands for, if that is `struct->*`.
fn all_fields_of(expr: &ast::Expr) -> Option<ast::Expr> {
    match expr {
        ast::Expr::CompoundIdentifier(idents) => {
            let (last, of) = idents.split_last()?;
            (sugar::field(last) == Some(sugar::ALL_FIELDS)).then(|| ast::Expr::CompoundIdentifier(of.to_vec()))
        }
        ast::Expr::CompoundFieldAccess { root, access_chain } => {
            let (last, of) = access_chain.split_last()?;
            let ast::AccessExpr::Dot(ast::Expr::Identifier(ident)) = last else { return None };
            let of = ast::Expr::CompoundFieldAccess { root: root.clone(), access_chain: of.to_vec() };
            (sugar::field(ident) == Some(sugar::ALL_FIELDS)).then_some(of)
        }
        _ => None,
    }
}

/// The fields of a struct as columns.
fn fields(of: &ast::Expr, meaning: &Meaning<'_>) -> Result<Vec<(String, Expr)>, QueryError> {
    let given = meaning.calls.again(|| meaning.resolve(of))?;
    let data_type = meaning.scope.expressions.compile(given, &meaning.all)?.data_type().clone();
    let DataType::Struct(fields) = &data_type else {
        return Err(QueryError::Invalid(format!("->* takes a STRUCT, not {}", type_name(&data_type))));
    };
    let field = |name: &String| {
        let access = ast::AccessExpr::Dot(ast::Expr::Identifier(ast::Ident::with_quote('"', name)));
        let written = ast::Expr::CompoundFieldAccess { root: Box::new(of.clone()), access_chain: vec![access] };
        meaning.calls.again(|| meaning.resolve(&written)).map(|expr| (name.clone(), expr))
    };
    let fields = fields.iter().map(|one| field(one.name())).collect::<Result<Vec<_>, QueryError>>()?;
    // They are counted once, though each field is taken out of a call of its own.
    meaning.resolve(of)?;
    Ok(fields)
}

/// What GROUP BY or PARTITION BY lists; one pair of brackets may stand around it all.
fn without_brackets(written: &[ast::Expr]) -> &[ast::Expr] {
    match written {
        [ast::Expr::Tuple(listed)] if !listed.is_empty() => listed,
        written => written,
    }
}

/// What GROUP BY names: expressions, names or places of the SELECT list.
fn group_expressions(select: &ast::Select, items: &[(String, Expr)], meaning: &Meaning<'_>) -> Result<Vec<Expr>, QueryError> {
    let scope = meaning.scope;
    let written = match &select.group_by {
        ast::GroupByExpr::Expressions(written, modifiers) if modifiers.is_empty() => written,
        _ => return unsupported("GROUP BY ALL and modifiers of GROUP BY"),
    };
    let mut groups: Vec<Expr> = Vec::new();
    for one in without_brackets(written) {
        let expr = match one {
            ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::Number(digits, _), .. }) if scope.dialect.group_by_places => {
                let place = digits.parse::<usize>().ok().and_then(|number| number.checked_sub(1)).and_then(|place| items.get(place));
                let Some((_, expr)) = place else {
                    return Err(QueryError::Invalid(format!("GROUP BY {digits}: the SELECT list has {} columns", items.len())));
                };
                expr.clone()
            }
            other => match (meaning.resolve(other), other) {
                (Ok(expr), _) => expr,
                (Err(error), ast::Expr::Identifier(ident)) => {
                    let name = scope.dialect.name(ident);
                    items.iter().find(|(item, _)| *item == name).map(|(_, expr)| expr.clone()).ok_or(error)?
                }
                (Err(error), _) => return Err(error),
            },
        };
        if has_aggregate(&expr) {
            return Err(QueryError::Invalid("GROUP BY cannot contain an aggregate".to_owned()));
        }
        if matches!(&expr, Expr::Literal(value, _) if value.is_null()) {
            return Err(QueryError::Invalid("GROUP BY NULL: a row whose grouping key is NULL joins no group".to_owned()));
        }
        if !groups.contains(&expr) {
            groups.push(expr);
        }
    }
    Ok(groups)
}

/// What HAVING says; it may name what stands in the SELECT list, where the source has no column of that name.
fn having_expression(written: &ast::Expr, items: &[(String, Expr)], meaning: &Meaning<'_>) -> Result<Expr, QueryError> {
    let typed = items.iter().filter_map(|(name, expr)| Some(Field::new(name, expr.get_type(&meaning.all).ok()?, true)));
    let mut known = meaning.schema.clone();
    known.merge(&DFSchema::try_from(Schema::new(typed.collect::<Vec<_>>())).map_err(fault::of_planning)?);
    let expr = meaning.resolve_among(written, &known)?;
    let meant = |expr| match &expr {
        Expr::Column(ColumnName { relation: None, name, .. }) => {
            let item = items.iter().find(|(item, _)| item == name);
            Ok(item.map_or_else(|| Transformed::no(expr.clone()), |(_, item)| Transformed::yes(item.clone())))
        }
        _ => Ok(Transformed::no(expr)),
    };
    Ok(expr.transform_up(meant).map_err(fault::of_planning)?.data)
}

fn has_aggregate(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(matches!(expr, Expr::AggregateFunction(_)))).unwrap_or(false)
}

/// The first `keys` columns and those that expressions use, in the source's order.
fn wanted_columns<'a>(
    used: impl Iterator<Item = &'a Expr>,
    source: &Source,
    keys: usize,
    all: &[WantedColumn],
) -> Result<Vec<WantedColumn>, QueryError> {
    let mut wanted: Vec<WantedColumn> = (0..keys).map(WantedColumn::Declared).collect();
    for expr in used {
        expr.apply(|expr| {
            if let Expr::Column(column) = expr
                && let Some(one) = source.column(&column.name).or_else(|| source.unnamed_column(&column.name))
            {
                wanted.push(one);
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .map_err(fault::of_planning)?;
    }
    Ok(all.iter().filter(|one| wanted.contains(one)).copied().collect())
}
