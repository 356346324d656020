//! Random queries over the sources of a world.

use foldlog_log::testing::Random;

use super::{
    aggregate::{Call, any_call},
    format::Format,
    grammar::{Expr, Node, Rules, Writer, chance, one_of},
    schema::{Column, Source},
    value::{Type, Value},
};

/// A query that does not end.
#[derive(Clone, Debug)]
pub struct Query {
    /// Its id, as it is told when it is made.
    pub id: String,
    /// Which source it reads, and which it makes or writes into.
    pub from: usize,
    pub into: usize,
    pub filter: Option<Expr>,
    pub shape: Shape,
    /// Whether each record's change is written.
    pub tells_all: bool,
    /// What makes it, and with which options.
    pub verb: Verb,
    pub options: String,
    /// What follows its WHERE: PARTITION BY, GROUP BY.
    pub by: String,
}

/// What makes a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Create,
    /// It takes the place of the one before that makes the same.
    Replace,
    Insert,
}

impl Query {
    /// The statement that starts it, or the same query again as another that makes something of this name.
    pub fn statement(&self, from: &Source, into: &Source, name: &str, id: &str) -> String {
        let kind = if into.is_table { "TABLE" } else { "STREAM" };
        let (verb, says_as) = match self.verb {
            Verb::Create => (format!("CREATE {kind}"), " AS"),
            Verb::Replace => (format!("CREATE OR REPLACE {kind}"), " AS"),
            Verb::Insert => ("INSERT INTO".to_owned(), ""),
        };
        format!("{verb} {name} WITH (query_id = '{id}'{}){says_as} {}", self.options, self.select(from, into))
    }

    fn select(&self, from: &Source, into: &Source) -> String {
        let rules = from.rules;
        let of = |expr: &Expr| expr.sql(rules, &[]);
        let (items, having) = match &self.shape {
            Shape::Project { items } => (items.iter().map(|item| item.sql(rules)).collect::<Vec<_>>(), None),
            Shape::Group { keys, calls, results, having } => {
                let calls: Vec<String> = calls.iter().map(|call| call.sql(rules)).collect();
                let results = results.iter().map(|result| result.sql(rules, &calls));
                (keys.iter().map(of).chain(results).collect(), having.as_ref().map(|having| having.sql(rules, &calls)))
            }
        };
        let list: Vec<String> = items.iter().zip(&into.columns).map(|(item, column)| format!("{item} AS {}", column.name)).collect();
        let clause = self.filter.as_ref().map(|filter| format!(" WHERE {}", of(filter))).unwrap_or_default();
        let having = having.map(|having| format!(" HAVING {having}")).unwrap_or_default();
        format!("SELECT {} FROM {}{clause}{}{having}", list.join(", "), from.name, self.by)
    }

    /// Another query that makes the same columns of the same source, and takes its place.
    pub fn replaced(&self, random: &mut Random, from: &Source, into: &Source) -> Self {
        let mut other = Self { id: format!("{}_", self.id), verb: Verb::Replace, ..self.clone() };
        let mut writer = Writer { random, columns: &from.columns, rules: from.rules };
        // Where records without a value were left out, they still are.
        let needs_filter = self.filter.is_some() && from.may_be_absent;
        if chance(writer.random, 70) {
            other.filter = (needs_filter || chance(writer.random, 60)).then(|| writer.truth(2));
        }
        match &mut other.shape {
            Shape::Project { items } => {
                for place in into.keys()..items.len() {
                    let Item::Plain(item) = &items[place] else { continue };
                    let again = writer.expression(&item.of, 2);
                    // In `ksql` a key column is selected once, and nobody wants one where there is none.
                    let is_key = matches!(&again.node, Node::Column(at, _) if from.columns[*at].key);
                    let is_there = items.iter().any(|item| item.sql(from.rules) == again.sql(from.rules, &[]));
                    if !is_key && !is_there && chance(writer.random, 50) {
                        items[place] = Item::Plain(again);
                    }
                }
            }
            Shape::Group { having, .. } => *having = having.take().filter(|_| chance(writer.random, 50)),
        }
        other
    }
}

#[derive(Clone, Debug)]
pub enum Shape {
    /// A row for each row, or for each element of arrays.
    Project { items: Vec<Item> },
    /// A row for each group: its key, then what is computed of the results of aggregates.
    Group { keys: Vec<Expr>, calls: Vec<Call>, results: Vec<Expr>, having: Option<Expr> },
}

/// A column of a projection, in the order of the sink: keys first.
#[derive(Clone, Debug)]
pub enum Item {
    Plain(Expr),
    Explode(Expr),
}

impl Item {
    fn of(&self) -> Type {
        match self {
            Self::Plain(expr) => expr.of.clone(),
            Self::Explode(expr) => match &expr.of {
                Type::List(item) => (**item).clone(),
                other => panic!("{other:?} is no list"),
            },
        }
    }

    fn sql(&self, rules: Rules) -> String {
        match self {
            Self::Plain(expr) => expr.sql(rules, &[]),
            Self::Explode(expr) => format!("EXPLODE({})", expr.sql(rules, &[])),
        }
    }
}

/// A query over one of the sources, with the stream or table that it makes.
pub fn any_query(random: &mut Random, name: &str, from: usize, source: &Source) -> (Query, Source) {
    if source.is_table && chance(random, 40) {
        return table_projection(random, name, from, source);
    }
    if source.is_table || chance(random, 55) {
        return grouped(random, name, from, source);
    }
    projection(random, name, from, source)
}

struct Written<'a> {
    name: &'a str,
    is_table: bool,
    from: usize,
    source: &'a Source,
}

impl Written<'_> {
    fn source(&self, random: &mut Random, columns: Vec<Column>, may_be_absent: bool, partitions: u32) -> Source {
        let rules = self.source.rules;
        let values = columns.iter().filter(|column| !column.key).count();
        let format = Format::any(random, &columns.iter().filter(|column| !column.key).collect::<Vec<_>>());
        Source {
            name: rules.name(self.name),
            topic: rules.name(self.name),
            is_table: self.is_table,
            columns,
            partitions,
            format,
            rules,
            // Where a single NULL is written as none, a record may have no value.
            may_be_absent: may_be_absent || format != Format::Json && values == 1,
            depth: self.source.depth + 1,
            is_tame: false,
        }
    }

    fn query(&self, into: &Source, filter: Option<Expr>, shape: Shape, by: String, tells: Option<bool>) -> Query {
        let rules = self.source.rules;
        let changelog = tells.map(|all| format!(", changelog = '{}'", if all { "every" } else { "coalesced" })).unwrap_or_default();
        // What has no key of its own hands no format of keys on.
        let key_format = if rules == Rules::Ksql && into.keys() > 0 { ", key_format = 'JSON'" } else { "" };
        let options = format!(", partitions = {}{changelog}{key_format}, {}", into.partitions, into.format.options());
        let tells_all = tells.unwrap_or(rules == Rules::Ksql);
        let id = format!("q_{}", self.name);
        Query { id, from: self.from, into: usize::MAX, filter, shape, tells_all, verb: Verb::Create, options, by }
    }
}

/// Whether each change is to be told, if it is said.
fn changelog(random: &mut Random) -> Option<bool> {
    match random.below(4) {
        0 => Some(true),
        1 => Some(false),
        _ => None,
    }
}

fn column(rules: Rules, name: &str, of: Type, key: bool) -> Column {
    Column::new(rules, name, of, key)
}

fn filter(writer: &mut Writer<'_>, percent: u64) -> Option<Expr> {
    chance(writer.random, percent).then(|| writer.truth(2))
}

/// A few columns that are computed.
fn values(writer: &mut Writer<'_>, most: u64) -> Vec<Expr> {
    let count = 1 + writer.random.below(most);
    (0..count)
        .map(|_| {
            let of = writer.computed_type();
            writer.expression(&of, 3)
        })
        .collect()
}

fn table_projection(random: &mut Random, name: &str, from: usize, source: &Source) -> (Query, Source) {
    let (rules, partitions) = (source.rules, 1 + u32::try_from(random.below(3)).unwrap());
    let mut writer = Writer { random, columns: &source.columns, rules };
    let filter = filter(&mut writer, 60);
    let keys = source.keys();
    let mut made = values(&mut writer, 4);
    // In `ksql` a key column is selected once, and something beside.
    let is_key = |expr: &Expr| matches!(&expr.node, Node::Column(place, _) if *place < keys);
    made.retain(|expr| rules == Rules::Standard || !is_key(expr));
    if made.is_empty() {
        made.push(Expr { of: Type::Int, node: Node::RowPartition });
    }
    let mut items: Vec<Expr> = (0..keys).map(|place| Expr::column(place, &source.columns[place])).collect();
    items.extend(made);
    let written = Written { name, is_table: true, from, source };
    let mut columns = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let called = if place < keys { format!("p{place}") } else { format!("v{place}") };
        columns.push(column(rules, &called, item.of.clone(), place < keys));
    }
    let into = written.source(random, columns, true, partitions);
    let tells = changelog(random);
    let shape = Shape::Project { items: items.into_iter().map(Item::Plain).collect() };
    let query = written.query(&into, filter, shape, String::new(), tells);
    (query, into)
}

fn projection(random: &mut Random, name: &str, from: usize, source: &Source) -> (Query, Source) {
    let (rules, partitions) = (source.rules, 1 + u32::try_from(random.below(3)).unwrap());
    let mut writer = Writer { random, columns: &source.columns, rules };
    let filter = filter(&mut writer, 50);
    let made = values(&mut writer, 4);
    let lists: Vec<usize> = (0..source.columns.len()).filter(|place| matches!(source.columns[*place].of, Type::List(_))).collect();
    let mut items: Vec<(Item, bool)> = Vec::new();
    let mut rest = String::new();
    // Records without a value are passed on; by which key where an expression makes it, the documents do not say.
    let drops_absent = filter.is_some() || !source.may_be_absent;
    let explodes = !lists.is_empty() && drops_absent && chance(writer.random, 50);
    match writer.random.below(4) {
        0 if drops_absent => {
            let count = 1 + writer.random.below(2);
            let mut keys: Vec<Expr> = Vec::new();
            for _ in 0..count {
                let key = group_key(&mut writer);
                if keys.iter().all(|other| other.sql(rules, &[]) != key.sql(rules, &[])) {
                    keys.push(key);
                }
            }
            let by: Vec<String> = keys.iter().map(|key| key.sql(rules, &[])).collect();
            rest = format!(" PARTITION BY {}", by.join(", "));
            items.extend(keys.into_iter().map(|key| (Item::Plain(key), true)));
        }
        // Without the key there is none, which `ksql` wants to be told.
        1 if rules == Rules::Standard => {}
        _ => items.extend((0..source.keys()).map(|place| (Item::Plain(Expr::column(place, &source.columns[place])), true))),
    }
    let is_key = |expr: &Expr| matches!(&expr.node, Node::Column(place, _) if source.columns[*place].key);
    // In `ksql` a key column is selected once.
    let made = made
        .into_iter()
        .filter(|expr| rules == Rules::Standard || !is_key(expr) && items.iter().all(|(item, _)| item.sql(rules) != expr.sql(rules, &[])));
    let made: Vec<Expr> = made.collect();
    // A key that is selected alone, unchanged, is the key again.
    let takes_key = rest.is_empty() && items.is_empty();
    let made: Vec<Expr> = made.into_iter().filter(|expr| !takes_key || !is_key(expr)).collect();
    let of_key = |expr: &Expr| items.iter().any(|(item, key)| *key && item.sql(rules) == expr.sql(rules, &[]));
    let made: Vec<Expr> = made.into_iter().filter(|expr| !of_key(expr)).collect();
    items.extend(made.into_iter().map(|expr| (Item::Plain(expr), false)));
    if explodes {
        for _ in 0..1 + writer.random.below(2) {
            let place = *one_of(writer.random, &lists);
            items.push((Item::Explode(Expr::column(place, &source.columns[place])), false));
        }
    }
    if items.iter().all(|(_, key)| *key) {
        items.push((Item::Plain(Expr { of: Type::Int, node: Node::RowPartition }), false));
    }
    let written = Written { name, is_table: false, from, source };
    let named: Vec<(String, &(Item, bool))> =
        items.iter().enumerate().map(|(place, item)| (format!("{}{place}", if item.1 { 'p' } else { 'v' }), item)).collect();
    let columns = named.iter().map(|(name, (item, key))| column(rules, name, item.of(), *key)).collect();
    let into = written.source(random, columns, !drops_absent, partitions);
    let shape = Shape::Project { items: items.into_iter().map(|(item, _)| item).collect() };
    let query = written.query(&into, filter, shape, rest, None);
    (query, into)
}

/// What rows may be grouped or keyed by: a column, or something computed of one.
fn group_key(writer: &mut Writer<'_>) -> Expr {
    let can_be_key = |column: &(usize, &Column)| !column.1.of.is_nested();
    let columns: Vec<(usize, &Column)> = writer.columns.iter().enumerate().filter(can_be_key).collect();
    if columns.is_empty() {
        return writer.truth(0);
    }
    if chance(writer.random, 65) {
        let (place, column) = one_of(writer.random, &columns);
        return Expr::column(*place, column);
    }
    let of = one_of(writer.random, &[Type::Text, Type::Int, Type::Long, Type::Bool, Type::Double]).clone();
    for _ in 0..8 {
        let expr = writer.expression(&of, 2);
        if expr.has_column() {
            return expr;
        }
    }
    let (place, column) = one_of(writer.random, &columns);
    Expr::column(*place, column)
}

fn grouped(random: &mut Random, name: &str, from: usize, source: &Source) -> (Query, Source) {
    let (rules, partitions) = (source.rules, 1 + u32::try_from(random.below(3)).unwrap());
    let mut writer = Writer { random, columns: &source.columns, rules };
    let filter = filter(&mut writer, 35);
    let mut keys: Vec<Expr> = Vec::new();
    for _ in 0..1 + writer.random.below(3) {
        let key = group_key(&mut writer);
        if keys.iter().all(|other| other.sql(rules, &[]) != key.sql(rules, &[])) {
            keys.push(key);
        }
    }
    let count = 1 + writer.random.below(4);
    let calls: Vec<Call> = (0..count).map(|_| any_call(&mut writer, source.is_table, source.is_tame)).collect();
    let of_call = |call: usize| Expr { of: calls[call].of.clone(), node: Node::Result(call) };
    let mut results: Vec<Expr> = (0..calls.len()).map(of_call).collect();
    let plain: Vec<usize> = (0..calls.len()).filter(|call| calls[*call].is_plain()).collect();
    let number = |value: i64| Expr { of: Type::Long, node: Node::Literal(Value::Whole(value)) };
    if !plain.is_empty() && chance(random, 40) {
        let sign = *one_of(random, &['+', '-', '*', '/']);
        let (left, right) = (Box::new(of_call(*one_of(random, &plain))), Box::new(number(random.below(3).cast_signed())));
        results.push(Expr { of: Type::Long, node: Node::Arithmetic(sign, left, right) });
    }
    let having = (!plain.is_empty() && chance(random, 40)).then(|| {
        let sign = *one_of(random, &[">", "<=", "<>"]);
        let (left, right) = (Box::new(of_call(*one_of(random, &plain))), Box::new(number(random.below(4).cast_signed())));
        Expr { of: Type::Bool, node: Node::Compare(sign, left, right) }
    });
    let mut columns = Vec::new();
    columns.extend(keys.iter().enumerate().map(|(place, key)| column(rules, &format!("g{place}"), key.of.clone(), true)));
    columns.extend(results.iter().enumerate().map(|(place, result)| column(rules, &format!("r{place}"), result.of.clone(), false)));
    let by: Vec<String> = keys.iter().map(|key| key.sql(rules, &[])).collect();
    let by = format!(" GROUP BY {}", by.join(", "));
    let written = Written { name, is_table: true, from, source };
    let into = written.source(random, columns, true, partitions);
    let tells = changelog(random);
    let query = written.query(&into, filter, Shape::Group { keys, calls, results, having }, by, tells);
    (query, into)
}

/// A stream that several queries insert into, and those queries: each names the same columns.
pub fn inserts(random: &mut Random, name: &str, sources: &[(usize, &Source)]) -> (Source, Vec<Query>) {
    let rules = sources[0].1.rules;
    let types = [Type::Text, Type::Long, Type::Int, Type::Double, Type::Bool];
    let mut columns = vec![column(rules, "k", Type::Text, true)];
    for place in 0..1 + random.below(3) {
        columns.push(column(rules, &format!("v{place}"), one_of(random, &types).clone(), false));
    }
    let format = Format::any(random, &columns[1..].iter().collect::<Vec<_>>());
    let columns_in_value = columns.len() - 1;
    let topic = format!("{name}_topic");
    let depth = sources.iter().map(|(_, source)| source.depth).max().unwrap_or(0) + 1;
    let target = Source {
        name: rules.name(name),
        topic,
        is_table: false,
        columns,
        partitions: 2,
        format,
        rules,
        may_be_absent: format != Format::Json && columns_in_value == 1,
        depth,
        is_tame: false,
    };
    let mut queries = Vec::new();
    for (from, source) in sources {
        let mut writer = Writer { random, columns: &source.columns, rules };
        // Some filter there is, so that records without a value do not pass.
        let filter = Some(writer.truth(2));
        let mut key = writer.expression(&Type::Text, 2);
        for _ in 0..20 {
            if key.has_column() {
                break;
            }
            key = writer.expression(&Type::Text, 2);
        }
        let mut items = vec![key];
        for column in &target.columns[1..] {
            items.push(writer.expression(&column.of, 2));
        }
        let is_unfit = |item: &Expr| items.iter().filter(|other| other.sql(rules, &[]) == item.sql(rules, &[])).count() > 1;
        if !items[0].has_column() || is_unfit(&items[0]) {
            continue;
        }
        let by = format!(" PARTITION BY {}", items[0].sql(rules, &[]));
        let shape = Shape::Project { items: items.into_iter().map(Item::Plain).collect() };
        let (id, verb, options) = (format!("q_{name}_{}", queries.len()), Verb::Insert, String::new());
        queries.push(Query { id, from: *from, into: usize::MAX, filter, shape, tells_all: false, verb, options, by });
    }
    (target, queries)
}
