//! What a persistent query, or a push query with state, does: sources, a chain of operators with stable ids, a sink.
//!
//! Made by `engine` from a statement and a catalog, run by `stream`. The same statement over the same catalog gives the same
//! plan: the state of a running query must survive a restart.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::{
    common::{Column as ColumnName, DFSchema},
    logical_expr::Expr,
};

use super::{
    expression::{Expression, Expressions},
    select::{Chain, Item, next_id},
    table_functions::TableFunction,
    tree::Tree,
};
use crate::{
    catalog::{Column, Source, SourceKind, WantedColumn, schema_of, type_name},
    error::QueryError,
    sql::dialect::{AggregateRules, Changelog, CollectLimits},
    stack::with_stack,
};

/// Number of an operator in its plan, given in plan order from 0; its state belongs to this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperatorId(pub u32);

/// A source and the columns of it that the plan uses.
#[derive(Clone, Debug)]
pub struct SourceScan {
    /// The source.
    pub source: Arc<Source>,
    /// Columns of the first operator's input, in their order; may be empty (`COUNT(*)`).
    pub wanted: Vec<WantedColumn>,
}

impl SourceScan {
    /// Schema of the batches that the first operator gets.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.source.wanted_schema(&self.wanted)
    }
}

/// One operator; each takes the columns that the one before it gives.
#[derive(Clone, Debug)]
pub enum Node {
    /// Keeps the rows for which the predicate is true.
    Filter {
        /// Id.
        id: OperatorId,
        /// BOOLEAN over the input.
        predicate: Expression,
    },
    /// Computes columns. Does not change rows, keys or times.
    Project {
        /// Id.
        id: OperatorId,
        /// One expression over the input a column of `schema`.
        expressions: Vec<Expression>,
        /// Names and types of the output.
        schema: SchemaRef,
    },
    /// Makes several rows of each: columns of the input, repeated, then one a call.
    Explode {
        /// Id.
        id: OperatorId,
        /// Places of the columns of the input that what follows reads; the others are NULL in the output.
        reads: Vec<usize>,
        /// Table functions with their arguments, over the input.
        calls: Vec<(TableFunction, Expression)>,
        /// Names and types of the output.
        schema: SchemaRef,
    },
    /// Of rows that stand for what a table has under their keys: keeps them, and gives what each record takes back and adds.
    Copy {
        /// Id.
        id: OperatorId,
        /// Number of key columns; they come first in the input, and are not given on.
        keys: usize,
        /// Names and types of the input.
        schema: SchemaRef,
    },
    /// Of rows that stand for what a table has under their keys: keeps them as the table that the query makes.
    Newest {
        /// Id.
        id: OperatorId,
        /// Number of key columns; they come first.
        keys: usize,
        /// Names and types of input and output.
        schema: SchemaRef,
    },
    /// Folds rows by key; gives changes of a table: key columns, then one column a call.
    Aggregate {
        /// Id.
        id: OperatorId,
        /// Places of the key columns in the input; empty: one group, which exists from the first row on.
        keys: Vec<usize>,
        /// What is folded, in the order of the output.
        calls: Vec<AggregateCall>,
        /// BOOLEAN over `schema`: rows for which it is not true are not part of the table.
        having: Option<Expression>,
        /// Names and types of the output: keys, then calls.
        schema: SchemaRef,
    },
}

/// One aggregate of an [`Node::Aggregate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateCall {
    /// What is computed.
    pub function: AggregateFunction,
    /// Places of the arguments in the input; none for `COUNT(*)` alone.
    pub arguments: Vec<usize>,
    /// Their types.
    pub types: Vec<DataType>,
    /// Place of a BOOLEAN in the input: only rows for which it is true are folded.
    pub filter: Option<usize>,
    /// Type of the result.
    pub data_type: DataType,
    /// Whose rules it follows.
    pub rules: AggregateRules,
}

/// The arguments whose different values are counted, each once: those of all counts of one argument are kept together.
pub(crate) fn different_values(calls: &[AggregateCall]) -> Vec<usize> {
    let mut arguments = Vec::new();
    for call in calls.iter().filter(|call| call.function == AggregateFunction::CountDistinct) {
        arguments.extend(call.arguments.first().filter(|argument| !arguments.contains(*argument)));
    }
    arguments
}

/// What an aggregate computes; `plan/aggregates` says what each takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// Number of rows.
    CountStar,
    /// Number of values that are not NULL.
    Count,
    /// Number of different values that are not NULL.
    CountDistinct,
    /// Sum.
    Sum,
    /// Sum of the elements of arrays.
    SumList,
    /// Smallest value.
    Min,
    /// Greatest value.
    Max,
    /// Mean.
    Avg,
    /// Values of the first rows, or that of the first.
    Earliest {
        /// How many; none: the value alone, not an array.
        count: Option<u32>,
        /// Whether NULL is a value.
        nulls: bool,
    },
    /// Values of the last rows, or that of the last.
    Latest {
        /// How many; none: the value alone, not an array.
        count: Option<u32>,
        /// Whether NULL is a value.
        nulls: bool,
    },
    /// Values in the order of the rows.
    CollectList {
        /// The first so many.
        most: u32,
    },
    /// Each value once, in the order in which they first came.
    CollectSet {
        /// The first so many.
        most: u32,
    },
    /// The greatest values.
    TopK {
        /// So many.
        count: u32,
    },
    /// The greatest different values.
    TopKDistinct {
        /// So many.
        count: u32,
    },
    /// Numbers of rows by value.
    Histogram {
        /// Of the first so many values.
        most: u32,
    },
    /// The value of all rows.
    Attr,
    /// Correlation of two columns.
    Correlation,
    /// Variance of a sample.
    Variance,
    /// Standard deviation of a sample.
    Deviation,
}

impl AggregateFunction {
    /// The same with as many values as a statement's session shows.
    #[must_use]
    pub const fn showing(self, limits: CollectLimits) -> Self {
        match self {
            Self::CollectList { .. } => Self::CollectList { most: limits.list },
            Self::CollectSet { .. } => Self::CollectSet { most: limits.set },
            other => other,
        }
    }

    /// Whether it keeps values of its group, rather than something that is computed of them.
    #[must_use]
    pub const fn keeps_values(self) -> bool {
        match self {
            Self::CountStar
            | Self::Count
            | Self::CountDistinct
            | Self::Sum
            | Self::SumList
            | Self::Min
            | Self::Max
            | Self::Avg
            | Self::Correlation
            | Self::Variance
            | Self::Deviation => false,
            Self::Earliest { .. }
            | Self::Latest { .. }
            | Self::CollectList { .. }
            | Self::CollectSet { .. }
            | Self::TopK { .. }
            | Self::TopKDistinct { .. }
            | Self::Histogram { .. }
            | Self::Attr => true,
        }
    }
}

/// Where the results go.
#[derive(Clone, Debug)]
pub enum Sink {
    /// A `records` topic: every result is a record.
    Stream(Arc<Source>),
    /// A `table` topic, and the view that pull queries read.
    Table(Arc<Source>),
    /// Only to whoever asked: a push query; writes nothing.
    Volatile,
}

/// What a query does.
#[derive(Clone, Debug)]
pub struct StreamPlan {
    /// What is read; exactly one so far.
    pub sources: Vec<SourceScan>,
    /// The chain of operators from source to sink.
    pub nodes: Vec<Node>,
    /// Where the results go.
    pub sink: Sink,
    /// Columns of the results; for a sink with a topic those of the key come first, as in its [`Source`].
    pub output: Vec<Column>,
    /// What of a step is written, if the result is a table.
    pub changelog: Changelog,
    /// Which plan state belongs to; another plan gives another number.
    pub fingerprint: u64,
}

impl StreamPlan {
    /// Schema of the results.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        crate::catalog::schema_of(&self.output)
    }

    /// What is read.
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] for several sources.
    pub fn source(&self) -> Result<&SourceScan, QueryError> {
        match self.sources.as_slice() {
            [scan] => Ok(scan),
            _ => Err(QueryError::Unsupported("a query over several sources".to_owned())),
        }
    }

    /// Whether the plan keeps state (folds rows) or passes them on one by one.
    #[must_use]
    pub fn is_stateful(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node, Node::Aggregate { .. } | Node::Newest { .. }))
    }
}

impl Chain {
    /// The plan of a push query: results go to whoever asked, in the order of the SELECT list. Over a table without a view its rows
    /// are kept meanwhile (`keeps_rows`), so that changes can be told.
    ///
    /// # Errors
    /// [`QueryError::Execution`] where columns do not fit, which is a fault of ours.
    pub fn into_volatile(self, keeps_rows: bool) -> Result<StreamPlan, QueryError> {
        let keys = self.key_names.len();
        let complete = keys > 0 && (0..keys).all(|key| self.items.iter().any(|item| item.key == Some(key)));
        let items = self.items.iter().map(|item| {
            let first = self.items.iter().find(|other| other.key.is_some() && other.key == item.key);
            let key = complete && first.is_some_and(|first| first.column.name == item.column.name);
            Item { column: Column { key, ..item.column.clone() }, ..item.clone() }
        });
        let items: Vec<Item> = items.collect();
        if keeps_rows && !self.grouped {
            return self.keeping_rows(items);
        }
        Ok(self.finish(items, Sink::Volatile))
    }

    /// The rows of a table, kept under its key, and of them the columns that were asked for.
    fn keeping_rows(mut self, items: Vec<Item>) -> Result<StreamPlan, QueryError> {
        let given = self.scan.schema();
        let place_of = |name: &String| given.index_of(name).map_err(|fault| QueryError::Execution(fault.to_string()));
        let mut expressions = Vec::new();
        let mut fields = Vec::new();
        for (key, name) in self.key_names.iter().enumerate() {
            let place = place_of(name)?;
            let data_type = given.field(place).data_type().clone();
            fields.push(Field::new(format!("key_{key}"), data_type.clone(), true));
            expressions.push(Expression::column(name, place, data_type));
        }
        let keys = expressions.len();
        let mut output = Vec::new();
        for (place, item) in items.into_iter().enumerate() {
            let Column { name, data_type, .. } = &item.column;
            let kept = Expression::column(name, keys + place, data_type.clone());
            fields.push(Field::new(name, data_type.clone(), true));
            expressions.push(item.expression.clone());
            output.push(Item { expression: kept, ..item });
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        self.nodes.push(Node::Project { id: next_id(&self.nodes), expressions, schema: Arc::clone(&schema) });
        self.nodes.push(Node::Newest { id: next_id(&self.nodes), keys, schema });
        self.grouped = true;
        Ok(self.finish(output, Sink::Volatile))
    }

    /// The result's columns as those of a sink: key columns first.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] if the sink is a table and not all grouping columns are there, or if a column hides one that every
    /// source has.
    pub fn sink_items(&self, kind: SourceKind, sink: &str) -> Result<Vec<Item>, QueryError> {
        let mut keys = Vec::new();
        for (key, name) in self.key_names.iter().enumerate() {
            let mut named = self.items.iter().filter(|item| item.key == Some(key));
            if let (true, Some(_), Some(second)) = (self.strict_keys, named.clone().next(), named.clone().nth(1)) {
                let twice = &second.column.name;
                return Err(QueryError::Invalid(format!(
                    "{twice} is {name}, which is part of the key of {sink}, a second time; use AS_VALUE({name})"
                )));
            }
            match named.next() {
                Some(item) => keys.push(item),
                None if kind == SourceKind::Table || self.is_rekeyed || self.strict_keys => {
                    return Err(QueryError::Invalid(format!(
                        "the SELECT list must contain {name}: it is part of the key of {kind} {sink}"
                    )));
                }
                None => {
                    keys.clear();
                    break;
                }
            }
        }
        let is_key = |item: &Item| keys.iter().any(|key| key.column.name == item.column.name);
        let rest = self.items.iter().filter(|item| !is_key(item));
        let marked = |item: &Item, key: bool| Item { column: Column { key, ..item.column.clone() }, ..item.clone() };
        let items: Vec<Item> = keys.iter().map(|item| marked(item, true)).chain(rest.map(|item| marked(item, false))).collect();
        for item in &items {
            let is_place_of_source = self.is_rekeyed && self.strict_keys && item.column.key && is_place(&item.column.name);
            if !is_place_of_source {
                check_column_name(&item.column.name)?;
            }
        }
        if self.strict_keys && items.iter().all(|item| item.column.key) {
            return Err(QueryError::Invalid(format!("the SELECT list of {kind} {sink} has nothing but its key; add a column")));
        }
        Ok(items)
    }

    /// Columns of the result in the types of the columns `to`, where those have the same names and numbers fit into them.
    ///
    /// # Errors
    /// [`QueryError::Execution`] where columns do not fit, which is a fault of ours.
    pub fn widened(mut self, items: Vec<Item>, to: &[Column], expressions: &Expressions) -> Result<(Self, Vec<Item>), QueryError> {
        let is_wider = |item: &Item, to: &Column| {
            let rank = |of: &DataType| match of {
                DataType::Int32 => Some(0),
                DataType::Int64 => Some(1),
                DataType::Decimal128(..) => Some(2),
                DataType::Float64 => Some(3),
                _ => None,
            };
            item.column.name == to.name && rank(&item.column.data_type).zip(rank(&to.data_type)).is_some_and(|(from, to)| from <= to)
        };
        let fits = |(item, to): (&Item, &Column)| item.column.data_type == to.data_type || !is_wider(item, to);
        if items.iter().zip(to).all(fits) {
            return Ok((self, items));
        }
        let columns: Vec<Column> = items.iter().map(|item| item.column.clone()).collect();
        let schema = schema_of(&columns);
        let known = DFSchema::try_from(schema.as_ref().clone()).map_err(super::fault::of_planning)?;
        self.nodes.push(Node::Project {
            id: next_id(&self.nodes),
            expressions: items.iter().map(|item| item.expression.clone()).collect(),
            schema,
        });
        let mut widened = Vec::with_capacity(items.len());
        for (place, item) in items.into_iter().enumerate() {
            let wanted = to.get(place).filter(|to| is_wider(&item, to)).map_or(&item.column.data_type, |to| &to.data_type).clone();
            let column = Expr::Column(ColumnName::from_name(&item.column.name));
            let expression = expressions.compile_as(column, &wanted, &known)?;
            widened.push(Item { column: Column { data_type: wanted, ..item.column }, expression, key: item.key });
        }
        Ok((self, widened))
    }

    /// The plan of a persistent query over a sink whose columns are those of `items`.
    #[must_use]
    pub fn into_persistent(self, items: Vec<Item>, sink: Arc<Source>) -> StreamPlan {
        let sink = match sink.kind {
            SourceKind::Stream => Sink::Stream(sink),
            SourceKind::Table => Sink::Table(sink),
        };
        self.finish(items, sink)
    }

    fn finish(self, items: Vec<Item>, sink: Sink) -> StreamPlan {
        let output: Vec<Column> = items.iter().map(|item| item.column.clone()).collect();
        let mut nodes = self.nodes;
        let schema = schema_of(&output);
        let given = nodes.iter().rev().find_map(Node::schema).unwrap_or_else(|| self.scan.schema());
        let unchanged = schema == given && items.iter().enumerate().all(|(place, item)| item.expression.as_column() == Some(place));
        if !unchanged {
            let expressions = items.into_iter().map(|item| item.expression).collect();
            nodes.push(Node::Project { id: next_id(&nodes), expressions, schema: Arc::clone(&schema) });
        }
        if let (Sink::Table(sink), false) = (&sink, self.grouped) {
            let keys = sink.key_count();
            nodes.push(Node::Newest { id: next_id(&nodes), keys, schema });
        }
        let mut plan = StreamPlan { sources: vec![self.scan], nodes, sink, output, changelog: self.changelog, fingerprint: 0 };
        plan.fingerprint = fnv1a(plan.identity().as_bytes());
        plan
    }
}

impl Node {
    /// Names and types of what it gives; none if they are those of what it takes.
    fn schema(&self) -> Option<SchemaRef> {
        match self {
            Self::Filter { .. } => None,
            // The columns behind the keys, which the aggregate that follows names anew.
            Self::Copy { .. } => None,
            Self::Project { schema, .. } | Self::Explode { schema, .. } | Self::Newest { schema, .. } | Self::Aggregate { schema, .. } => {
                Some(Arc::clone(schema))
            }
        }
    }
}

/// Whether it is what the place of a record in its topic is called.
pub(super) fn is_place(name: &str) -> bool {
    ["ROWPARTITION", "ROWOFFSET"].contains(&name)
}

/// Refuses names of columns that every stream and table has, or every result of windows.
///
/// # Errors
/// [`QueryError::Invalid`].
pub fn check_column_name(name: &str) -> Result<(), QueryError> {
    let is_taken = |taken: &&str| name == *taken || name == taken.to_uppercase();
    if ["rowtime", "rowpartition", "rowoffset"].iter().any(is_taken) {
        return Err(QueryError::Invalid(format!("every stream and table has a column {name}; choose another name (AS ...)")));
    }
    if ["windowstart", "windowend"].iter().any(is_taken) {
        return Err(QueryError::Invalid(format!("{name} is what the bounds of windows are called; choose another name (AS ...)")));
    }
    Ok(())
}

impl StreamPlan {
    /// The tables that its operators keep, in the order in which they are kept: first that of the result, then those beside it.
    #[must_use]
    pub fn tables(&self) -> Vec<String> {
        let (mut results, mut copies, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for node in &self.nodes {
            match node {
                Node::Copy { id, .. } => copies.push(format!("#{} copy", id.0)),
                Node::Newest { id, .. } => results.push(format!("#{} rows", id.0)),
                Node::Aggregate { id, calls, .. } => {
                    results.push(format!("#{} groups", id.0));
                    let counted = different_values(calls).into_iter();
                    values.extend(counted.map(|argument| format!("#{} different values of column {argument}", id.0)));
                }
                Node::Filter { .. } | Node::Project { .. } | Node::Explode { .. } => {}
            }
        }
        results.into_iter().chain(copies).chain(values).collect()
    }

    /// The plan as a tree, the sink first: one line an operator, with its id.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut lines = with_stack(|| self.lines()).into_iter();
        let sink = lines.next().unwrap_or_default();
        let operators: Vec<String> = lines.by_ref().take(self.nodes.len()).collect();
        let scans = lines.map(|scan| Tree::new(scan, Vec::new())).collect();
        let inputs = operators.into_iter().rev().fold(scans, |inputs, operator| vec![Tree::new(operator, inputs)]);
        Tree::new(sink, inputs).to_string()
    }

    /// What two plans that mean the same have in common. It stands in what a folder keeps of a query: its text never changes, whatever people
    /// are shown.
    fn identity(&self) -> String {
        let lines = with_stack(|| self.lines());
        let indented = lines.iter().enumerate().map(|(depth, line)| format!("{}{line}", "  ".repeat(depth)));
        indented.collect::<Vec<_>>().join("\n")
    }

    /// The sink, the operators from the last to the first, the sources.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let columns = |schema: &SchemaRef| {
            let each = schema.fields().iter().map(|field| format!("{} {}", field.name(), type_name(field.data_type())));
            each.collect::<Vec<_>>().join(", ")
        };
        lines.push(match &self.sink {
            Sink::Stream(sink) => format!("stream {} into topic {}", sink.name, sink.topic),
            Sink::Table(sink) => {
                let keys: Vec<_> = sink.columns.iter().filter(|column| column.key).map(|column| column.name.as_str()).collect();
                let every = if self.changelog == Changelog::Every { ", each record's change" } else { "" };
                format!("table {} by {} into topic {}{every}", sink.name, keys.join(", "), sink.topic)
            }
            Sink::Volatile => "to the client".to_owned(),
        });
        for node in self.nodes.iter().rev() {
            lines.push(match node {
                Node::Filter { id, predicate } => format!("#{} filter {predicate}", id.0),
                Node::Project { id, expressions, schema } => {
                    let each = expressions.iter().zip(schema.fields()).map(|(expression, field)| {
                        let text = expression.to_string();
                        if text == *field.name() { text } else { format!("{text} AS {}", field.name()) }
                    });
                    format!("#{} project {}", id.0, each.collect::<Vec<_>>().join(", "))
                }
                Node::Explode { id, calls, .. } => {
                    let calls: Vec<String> = calls.iter().map(|(function, argument)| format!("{function}({argument})")).collect();
                    format!("#{} rows of {}", id.0, calls.join(", "))
                }
                Node::Copy { id, keys, .. } => {
                    format!("#{} take back what is replaced; state: a copy of the rows by {keys} key columns", id.0)
                }
                Node::Newest { id, keys, schema } => {
                    let keys: Vec<_> = schema.fields().iter().take(*keys).map(|field| field.name().as_str()).collect();
                    format!("#{} newest by [{}]; state: one row a key", id.0, keys.join(", "))
                }
                Node::Aggregate { id, keys, calls, having, schema } => {
                    let keys: Vec<_> = schema.fields().iter().take(keys.len()).map(|field| field.name().as_str()).collect();
                    let calls: Vec<_> = calls.iter().map(ToString::to_string).collect();
                    let having = having.as_ref().map(|having| format!(" having {having}")).unwrap_or_default();
                    format!("#{} aggregate by [{}] of [{}]{having}; state: one row a key", id.0, keys.join(", "), calls.join(", "))
                }
            });
        }
        for scan in &self.sources {
            let source = &scan.source;
            lines.push(format!("scan {} {} (topic {}): {}", source.kind, source.name, source.topic, columns(&scan.schema())));
        }
        lines
    }
}

impl std::fmt::Display for AggregateCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What a folder keeps of older queries has no number there.
        let collects = |name: &str, most: u32, usual: u32| if most == usual { name.to_owned() } else { format!("{name} {most}") };
        let by_offset = |name: &str, count: Option<u32>, nulls: bool| {
            let count = count.map(|count| format!(" {count}")).unwrap_or_default();
            format!("{name}{count}{}", if nulls { " with nulls" } else { "" })
        };
        let name = match self.function {
            AggregateFunction::CountStar | AggregateFunction::Count => "count".to_owned(),
            AggregateFunction::CountDistinct => "count_distinct".to_owned(),
            AggregateFunction::Sum => "sum".to_owned(),
            AggregateFunction::SumList => "sum_list".to_owned(),
            AggregateFunction::Min => "min".to_owned(),
            AggregateFunction::Max => "max".to_owned(),
            AggregateFunction::Avg => "avg".to_owned(),
            AggregateFunction::Earliest { count, nulls } => by_offset("earliest_by_offset", count, nulls),
            AggregateFunction::Latest { count, nulls } => by_offset("latest_by_offset", count, nulls),
            AggregateFunction::CollectList { most } => collects("collect_list", most, CollectLimits::DEFAULT.list),
            AggregateFunction::CollectSet { most } => collects("collect_set", most, CollectLimits::DEFAULT.set),
            AggregateFunction::TopK { count } => format!("topk {count}"),
            AggregateFunction::TopKDistinct { count } => format!("topkdistinct {count}"),
            AggregateFunction::Histogram { .. } => "histogram".to_owned(),
            AggregateFunction::Attr => "attr".to_owned(),
            AggregateFunction::Correlation => "correlation".to_owned(),
            AggregateFunction::Variance => "variance".to_owned(),
            AggregateFunction::Deviation => "deviation".to_owned(),
        };
        let columns: Vec<String> = self.arguments.iter().map(|place| format!("column {place}")).collect();
        let filter = self.filter.map(|place| format!(" where column {place}")).unwrap_or_default();
        write!(f, "{name}({}){filter}", if columns.is_empty() { "*".to_owned() } else { columns.join(", ") })
    }
}

/// FNV-1a, 64 bits: a number that is the same in every build.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
