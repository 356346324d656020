//! Holds what lies in the log of a world against what must lie there: every unit of every query, record by record.

use std::collections::BTreeMap;

use super::{
    aggregate::Cell,
    common::Stored,
    evaluate::{Evaluation, Output, id},
    format::Format,
    query::Query,
    schema::{Row, Source},
    value::{Json, Value},
};

/// Where queries tell how far they are.
pub const PROGRESS: &str = "_foldlog.progress";

/// What was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub cases: usize,
    pub commits: usize,
    pub rows: usize,
    /// Checkpoints that were written, starts of a query that went on from one, and those that had to refuse one.
    pub checkpoints: usize,
    pub went_on: usize,
    pub refused: usize,
    /// Records that compaction removed.
    pub removed: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let Self { cases, commits, rows, checkpoints, went_on, refused, removed } = other;
        self.cases += cases;
        self.commits += commits;
        self.rows += rows;
        self.checkpoints += checkpoints;
        self.went_on += went_on;
        self.refused += refused;
        self.removed += removed;
    }
}

/// What one query wrote in one unit, and how far it says that it has come.
struct Unit {
    records: Vec<Stored>,
    position: u64,
    /// Where the query began.
    start: u64,
}

/// The log, taken apart.
pub struct Contents {
    topics: BTreeMap<String, Vec<Stored>>,
    units: BTreeMap<String, Vec<Unit>>,
}

impl Contents {
    /// All that lay in the topics of the sources, in position order. `appended`: positions of what the world itself appended.
    /// Each query of a topic has its records in front of what it tells of its progress, and no other's lie between.
    pub fn new(records: &[Stored], sinks: &BTreeMap<String, String>, appended: &dyn Fn(u64) -> bool) -> Self {
        let mut contents = Self { topics: BTreeMap::new(), units: BTreeMap::new() };
        let mut open: BTreeMap<&str, Vec<Stored>> = BTreeMap::new();
        for record in records {
            if record.topic != PROGRESS {
                if !appended(record.position) {
                    open.entry(&record.topic).or_default().push(record.clone());
                }
                contents.topics.entry(record.topic.clone()).or_default().push(record.clone());
                continue;
            }
            let query = record.key.clone().and_then(|key| String::from_utf8(key).ok()).expect("a query has a name");
            let progress = record.value.as_deref().and_then(Json::parse).expect("progress is JSON");
            let number = |name: &str| match progress.field(name) {
                Some(Json::Number(digits)) => digits.parse().expect("a position"),
                other => panic!("a progress whose {name} is {other:?}"),
            };
            let records = sinks.get(&query).and_then(|topic| open.remove(topic.as_str())).unwrap_or_default();
            let unit = Unit { records, position: number("position"), start: number("start") };
            contents.units.entry(query).or_default().push(unit);
        }
        contents
    }

    pub fn of_topic(&self, topic: &str) -> &[Stored] {
        self.topics.get(topic).map_or(&[], Vec::as_slice)
    }

    /// The rows of a source.
    pub fn rows(&self, source: &Source) -> Vec<Row> {
        self.of_topic(&source.topic).iter().filter_map(|record| source.row(record)).collect()
    }

    /// Checks all that the queries wrote that make the same, each in place of the one before it.
    pub fn check(&self, line: &[&Query], from: &Source, into: &Source) -> Result<Counts, (String, String)> {
        let rows = self.rows(from);
        let mut written = BTreeMap::new();
        let mut ended = 0;
        let mut early: Vec<Stored> = Vec::new();
        let mut counts = Counts::default();
        for (place, query) in line.iter().enumerate() {
            let of = |what| (query.id.clone(), what);
            let is_last = place + 1 == line.len();
            let units = self.units.get(&query.id).map_or(&[][..], Vec::as_slice);
            // A stream's goes on where the one before it was.
            let goes_on = place > 0 && !into.is_table;
            let start = if goes_on { units.first().map_or(ended, |unit| unit.start) } else { 0 };
            ended = units.last().map_or(ended, |unit| unit.position);
            let check = Check { units, query, from, into, start, is_first: place == 0, is_last };
            counts += check.run(&rows, &mut written, &mut early).map_err(of)?;
        }
        Ok(counts)
    }

    /// The rows that a view must have when a query has folded everything below `end`.
    pub fn expected(&self, query: &Query, from: &Source, into: &Source, end: u64) -> Vec<Output> {
        let mut evaluation = Evaluation::new(query, from, into);
        for row in self.rows(from).iter().filter(|row| row.position < end) {
            evaluation.take(row);
        }
        evaluation.ids().iter().filter_map(|id| evaluation.row(id)).collect()
    }
}

/// One query, and what must come of it.
struct Check<'a> {
    units: &'a [Unit],
    query: &'a Query,
    from: &'a Source,
    into: &'a Source,
    /// Where it begins to read.
    start: u64,
    /// Whether nobody wrote there before it, and whether nobody takes its place.
    is_first: bool,
    is_last: bool,
}

impl Check<'_> {
    /// `view`: what the topic holds of each key, as those before it left it.
    fn run(&self, rows: &[Row], view: &mut BTreeMap<String, Written>, early: &mut Vec<Stored>) -> Result<Counts, String> {
        let Self { units, query, from, into, start, .. } = *self;
        let mut evaluation = Evaluation::new(query, from, into);
        let mut coming = rows.iter().filter(|row| row.position >= start).peekable();
        let mut counts = Counts { cases: 1, ..Counts::default() };
        // What has not been told yet, when the query ended, changed nothing: only a checkpoint knows of it.
        let rest = self.is_last.then_some((u64::MAX, [].as_slice()));
        let units = units.iter().map(|unit| (unit.position, unit.records.as_slice()));
        for (place, (at, records)) in units.chain(rest).enumerate() {
            let mut told = Vec::new();
            while let Some(row) = coming.next_if(|row| row.position < at) {
                told.extend(evaluation.take(row));
            }
            // The next one may have begun to write in what they differ when this one tells for the last time how far it is.
            if !self.is_last && place + 1 == self.units.len() && told.is_empty() {
                early.extend_from_slice(records);
                continue;
            }
            let before = if place == 0 { std::mem::take(early) } else { Vec::new() };
            let written: Vec<Written> = before.iter().chain(records).map(|record| Written::new(record, into)).collect::<Result<_, _>>()?;
            // Who takes another one's place first writes in what they differ.
            let is_difference = place == 0 && !self.is_first && into.is_table;
            if !is_difference && (!into.is_table || query.tells_all) {
                same_records(&written, &told, into).map_err(|difference| format!("what is written up to {at}: {difference}"))?;
            }
            if into.is_table {
                let mut looked_at: Vec<String> = told.iter().map(Output::id).collect();
                looked_at.extend(written.iter().map(|record| record.id.clone()));
                if is_difference {
                    looked_at.extend(view.keys().cloned().chain(evaluation.ids()));
                }
                for record in &written {
                    let before = view.insert(record.id.clone(), record.clone());
                    let is_same = before.is_some_and(|before| before.is_same(record) && !(record.values.is_none() && into.hides_null()));
                    if is_same && (is_difference || !query.tells_all) {
                        return Err(format!("up to {at} {record} is written, which is as it was"));
                    }
                }
                for id in looked_at {
                    same_row(view.get(&id), evaluation.row(&id).as_ref(), into)
                        .map_err(|difference| format!("the topic at {at}: {difference}"))?;
                    counts.rows += 1;
                }
            }
            counts.rows += written.len();
            counts.commits += 1;
        }
        Ok(counts)
    }
}

/// A record of a sink, read.
#[derive(Clone, Debug)]
struct Written {
    id: String,
    key: Vec<Value>,
    values: Option<Vec<Value>>,
    time: i64,
}

impl Written {
    fn new(record: &Stored, into: &Source) -> Result<Self, String> {
        let Some(row) = into.row(record) else { return Err(format!("{} cannot be read", shown(record))) };
        let keys = into.keys();
        let key = row.values[..keys].to_vec();
        // What is read must be all that is there: a field too many would not be seen otherwise.
        let json = record.value.as_deref().filter(|_| into.format == Format::Json).map(|value| Json::parse(value).ok_or("no JSON"));
        if let Some(Json::Object(fields)) = &json.transpose()?
            && fields.iter().map(|field| field.0.as_str()).ne(into.columns[keys..].iter().map(|column| column.name.as_str()))
        {
            return Err(format!("{} has other fields than {:?}", shown(record), into.columns));
        }
        Ok(Self { id: id(&key), key, values: (!row.is_absent).then(|| row.values[keys..].to_vec()), time: row.time })
    }

    fn is_same(&self, other: &Self) -> bool {
        let same =
            |left: &[Value], right: &[Value]| left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.is_same(right));
        match (&self.values, &other.values) {
            (Some(left), Some(right)) => same(left, right) && self.time == other.time,
            (None, None) => true,
            _ => false,
        }
    }
}

impl std::fmt::Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} -> {:?} at {}", self.key, self.values, self.time)
    }
}

fn shown(record: &Stored) -> String {
    let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    format!("the record {:?} -> {:?} of {}", text(&record.key), text(&record.value), record.topic)
}

/// Each record is the expected one, once, in order: in that of all of them if they lie in one partition, else in that of each key.
fn same_records(written: &[Written], expected: &[Output], into: &Source) -> Result<(), String> {
    let mut wanted: BTreeMap<String, Vec<&Output>> = BTreeMap::new();
    let lane = |id: &str| if into.partitions == 1 { String::new() } else { id.to_owned() };
    for output in expected.iter().rev() {
        wanted.entry(lane(&output.id())).or_default().push(output);
    }
    for (place, record) in written.iter().enumerate() {
        let Some(output) = wanted.get_mut(&lane(&record.id)).and_then(Vec::pop) else { return Err(format!("{record} is one too many")) };
        let same_values = match (&record.values, as_written(output, into)) {
            (Some(found), Some(wanted)) => allows(&wanted, found),
            (None, None) => true,
            (None, Some(_)) => is_open(output, into),
            (Some(_), None) => false,
        };
        if record.id != output.id() || !same_values || record.time != output.time {
            return Err(format!("record {place} is {record}, expected {output:?}"));
        }
    }
    match wanted.values().find_map(|outputs| outputs.last()) {
        Some(output) => Err(format!("{output:?} is missing, {} are there", written.len())),
        None => Ok(()),
    }
}

fn same_row(found: Option<&Written>, expected: Option<&Output>, into: &Source) -> Result<(), String> {
    let found = found.and_then(|record| record.values.as_ref().map(|values| (record, values)));
    let wanted = expected.and_then(|output| as_written(output, into).map(|values| (output, values)));
    match (found, wanted) {
        (None, None) => Ok(()),
        (None, Some((output, _))) if is_open(output, into) => Ok(()),
        (Some((record, found)), Some((output, wanted))) if allows(&wanted, found) && record.time == output.time => Ok(()),
        (found, wanted) => {
            Err(format!("found {:?}, expected {:?}", found.map(|(record, _)| record.to_string()), wanted.map(|(output, _)| output)))
        }
    }
}

/// Whether it is not settled if the row is written as none.
fn is_open(output: &Output, into: &Source) -> bool {
    into.hides_null() && output.values.as_ref().is_some_and(|cells| cells.iter().all(|cell| cell.value().is_none()))
}

/// The values of a row as whoever reads the topic has them.
fn as_written(output: &Output, into: &Source) -> Option<Vec<Cell>> {
    let cells = output.values.as_ref()?;
    // What is not settled is no NULL and no text.
    let values: Vec<Value> = cells.iter().map(|cell| cell.value().cloned().unwrap_or(Value::Bool(true))).collect();
    let again = into.format.read_again(&values)?;
    let of = |(cell, again): (&Cell, Value)| if again.is_null() { Cell::Exactly(Value::Null) } else { cell.clone() };
    Some(cells.iter().zip(again).map(of).collect())
}

fn allows(wanted: &[Cell], found: &[Value]) -> bool {
    wanted.len() == found.len() && wanted.iter().zip(found).all(|(wanted, found)| wanted.allows(found))
}

/// The rows of a pull query, keys first and the row time last, against those that a view must have.
pub fn same_view(found: &[(Vec<Value>, Vec<Value>, i64)], expected: &[Output]) -> Result<(), String> {
    let mut rows: BTreeMap<String, &Output> = expected.iter().map(|output| (output.id(), output)).collect();
    for (key, values, time) in found {
        let Some(output) = rows.remove(&id(key)) else { return Err(format!("{key:?} -> {values:?} is one too many, or twice there")) };
        if !allows(output.values.as_deref().unwrap_or(&[]), values) || output.time != *time {
            return Err(format!("{key:?} is {values:?} at {time}, expected {output:?}"));
        }
    }
    match rows.values().next() {
        Some(missing) => Err(format!("{missing:?} is missing")),
        None => Ok(()),
    }
}
