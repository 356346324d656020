//! What a query makes of the records of its source, one after the other, by the rules as the documents have them.
//!
//! A group keeps what happened to it, and its row is computed anew of all that whenever somebody looks.

use std::collections::BTreeMap;

use super::{
    aggregate::{Cell, Event},
    expression::Context,
    grammar::Rules,
    query::{Item, Query, Shape},
    schema::{Row, Source},
    value::Value,
};

/// A record that is to be written: one without values takes a row away, or passes on that there are none.
#[derive(Clone, Debug)]
pub struct Output {
    pub key: Vec<Value>,
    pub values: Option<Vec<Cell>>,
    pub time: i64,
}

impl Output {
    /// What the key is told apart by; there is one zero.
    pub fn id(&self) -> String {
        id(&self.key)
    }
}

pub fn id(key: &[Value]) -> String {
    let key: Vec<Value> = key.iter().map(Value::with_one_zero).collect();
    format!("{key:?}")
}

/// The state of a query after some records.
pub struct Evaluation<'a> {
    query: &'a Query,
    from: &'a Source,
    /// Key columns of the result.
    keys: usize,
    rules: Rules,
    /// Of a table the newest row of each key.
    newest: BTreeMap<String, Row>,
    groups: BTreeMap<String, Group>,
    /// The rows of a table without groups.
    rows: BTreeMap<String, Output>,
}

struct Group {
    key: Vec<Value>,
    events: Vec<Event>,
    time: i64,
    /// Whether it was there, by HAVING, after the record before.
    was_there: bool,
}

impl<'a> Evaluation<'a> {
    pub fn new(query: &'a Query, from: &'a Source, into: &Source) -> Self {
        let (newest, groups, rows) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { query, from, keys: into.keys(), rules: from.rules, newest, groups, rows }
    }

    /// Takes the next record; gives what is written of it if every change is told.
    pub fn take(&mut self, row: &Row) -> Vec<Output> {
        match &self.query.shape {
            Shape::Project { items } if self.from.is_table => self.replaced(row, items),
            Shape::Project { items } => self.projected(row, items),
            Shape::Group { .. } => self.grouped(row),
        }
    }

    /// The rows of the result that have changed by these keys, as they are now.
    pub fn row(&self, id: &str) -> Option<Output> {
        self.rows.get(id).cloned().or_else(|| self.groups.get(id).and_then(|group| self.group_row(group)))
    }

    /// All keys of which there is or was something.
    pub fn ids(&self) -> Vec<String> {
        self.rows.keys().chain(self.groups.keys()).cloned().collect()
    }

    fn context<'b>(&self, row: &'b Row) -> Context<'b> {
        Context { row: Some(row), results: &[], rules: self.rules }
    }

    fn passes(&self, row: &Row) -> bool {
        self.query.filter.as_ref().is_none_or(|filter| !row.is_absent && self.context(row).value(filter).is_true())
    }

    fn projected(&self, row: &Row, items: &[Item]) -> Vec<Output> {
        if !self.passes(row) {
            return Vec::new();
        }
        let context = self.context(row);
        let lists: Vec<Option<Vec<Value>>> = items
            .iter()
            .map(|item| match item {
                Item::Plain(_) => None,
                Item::Explode(list) => Some(if let Value::List(items) = context.value(list) { items } else { Vec::new() }),
            })
            .collect();
        let explodes = lists.iter().any(Option::is_some);
        let rows = if explodes { lists.iter().flatten().map(Vec::len).max().unwrap_or(0) } else { 1 };
        let output = |at: usize| {
            let value = |(item, list): (&Item, &Option<Vec<Value>>)| match (item, list) {
                (_, Some(list)) => list.get(at).cloned().unwrap_or(Value::Null),
                (Item::Plain(expr) | Item::Explode(expr), None) => context.value(expr),
            };
            let mut key: Vec<Value> = items.iter().zip(&lists).map(value).collect();
            let values = key.split_off(self.keys);
            let values = (!row.is_absent).then(|| values.into_iter().map(Cell::Exactly).collect());
            Output { key, values, time: row.time }
        };
        (0..rows).map(output).collect()
    }

    fn replaced(&mut self, row: &Row, items: &[Item]) -> Vec<Output> {
        let key = row.values[..self.keys].to_vec();
        let is_there = !row.is_absent && self.passes(row);
        let values = is_there.then(|| {
            let context = self.context(row);
            let each = items[self.keys..].iter().map(|item| match item {
                Item::Plain(expr) | Item::Explode(expr) => Cell::Exactly(context.value(expr)),
            });
            each.collect()
        });
        let output = Output { key, values, time: row.time };
        match is_there {
            true => drop(self.rows.insert(output.id(), output.clone())),
            false => drop(self.rows.remove(&output.id())),
        }
        vec![output]
    }

    fn grouped(&mut self, row: &Row) -> Vec<Output> {
        let mut touched: Vec<String> = Vec::new();
        if self.from.is_table {
            let id = id(&row.values[..self.from.keys()]);
            let before = if row.is_absent { self.newest.remove(&id) } else { self.newest.insert(id, row.clone()) };
            if let Some(before) = before.filter(|before| self.passes(before)) {
                touched.extend(self.happened(&before, false, row.time));
            }
        }
        if !row.is_absent && self.passes(row) {
            touched.extend(self.happened(row, true, row.time));
        }
        touched.dedup();
        let mut outputs = Vec::new();
        for id in touched {
            let group = &self.groups[&id];
            let is = self.group_row(group);
            let was = group.was_there;
            let gone = Output { key: group.key.clone(), values: None, time: group.time };
            self.groups.entry(id).and_modify(|group| group.was_there = is.is_some());
            match (was, is) {
                (_, Some(output)) => outputs.push(output),
                (true, None) => outputs.push(gone),
                (false, None) => {}
            }
        }
        outputs
    }

    /// Adds a row to its group, or takes it back; gives the group unless the row belongs to none.
    fn happened(&mut self, row: &Row, adds: bool, time: i64) -> Option<String> {
        let Shape::Group { keys, calls, .. } = &self.query.shape else { return None };
        let context = self.context(row);
        let key: Vec<Value> = keys.iter().map(|key| context.value(key)).collect();
        if key.iter().any(Value::is_null) {
            return None;
        }
        let arguments = calls
            .iter()
            .map(|call| {
                let counts = call.filter.as_ref().is_none_or(|filter| context.value(filter).is_true());
                counts.then(|| call.arguments.iter().map(|argument| context.value(argument)).collect())
            })
            .collect();
        let id = id(&key);
        let group = self.groups.entry(id.clone()).or_insert(Group { key, events: Vec::new(), time, was_there: false });
        group.time = group.time.max(time);
        group.events.push(Event { adds, row: row.position, arguments });
        Some(id)
    }

    fn group_row(&self, group: &Group) -> Option<Output> {
        let Shape::Group { calls, results, having, .. } = &self.query.shape else { return None };
        let cells: Vec<Cell> =
            calls.iter().enumerate().map(|(place, call)| call.result(place, &group.events, self.rules, self.from.is_table)).collect();
        let exact: Vec<Value> =
            cells.iter().map(|cell| if let Cell::Exactly(value) = cell { value.clone() } else { Value::Null }).collect();
        let context = Context { row: None, results: &exact, rules: self.rules };
        if having.as_ref().is_some_and(|having| !context.value(having).is_true()) {
            return None;
        }
        let cell = |expr: &super::grammar::Expr| match &expr.node {
            super::grammar::Node::Result(call) => cells[*call].clone(),
            _ => Cell::Exactly(context.value(expr)),
        };
        Some(Output { key: group.key.clone(), values: Some(results.iter().map(cell).collect()), time: group.time })
    }
}
