//! What the engine says of a view, in the log and to listeners, and how it is held against what it must be.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, RecordBatch,
        types::{Float64Type, Int64Type, TimestampMillisecondType},
    },
    datatypes::DataType,
};
use foldlog_log::{
    LogBackend, Position,
    testing::{Random, SimDisk},
};
use foldlog_query::{ChangeOp, Checkpoints, PushItem, QueryConfig, changes::ChangeListener, stream::view::Pinned, supervisor::Supervisor};
use serde_json::{Value, json};

use super::common::{PATIENCE, random_steps, read_all};

/// A view: key to the columns of its row, as JSON.
pub type Rows = BTreeMap<String, Value>;

/// What a view must be when everything below a position is folded.
pub trait Expected {
    fn at(&self, end: u64) -> Rows;
}

impl<F: Fn(u64) -> Rows> Expected for F {
    fn at(&self, end: u64) -> Rows {
        self(end)
    }
}

/// An engine with steps of any size, and checkpoints that are due after every step, now and then, or at the end of a life alone.
pub fn open(log: &Arc<dyn LogBackend>, random: &mut Random, kept: &SimDisk) -> Supervisor {
    let (clock, limits) = random_steps(random);
    let workers = 1 + u32::try_from(random.below(3)).unwrap();
    let config = QueryConfig { workers, ..QueryConfig::default() };
    let due = [0, 1, 20, 100_000][usize::try_from(random.below(4)).unwrap()];
    let checkpoints = Checkpoints::in_files(Arc::new(kept.clone()), "/data/state".into()).due_after(Duration::from_millis(due));
    Supervisor::open_keeping(Arc::clone(log), clock, &config, limits, Some(&checkpoints)).unwrap()
}

fn value_of(array: &ArrayRef, row: usize) -> Value {
    match array.data_type() {
        _ if array.is_null(row) => Value::Null,
        DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => json!(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => json!(array.as_string::<i32>().value(row)),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|item| value_of(&items, item)).collect()
        }
        _ => json!(array.as_primitive::<TimestampMillisecondType>().value(row)),
    }
}

/// The rows of a batch of the view.
fn rows_of(batch: &RecordBatch) -> Vec<(String, Value)> {
    let schema = batch.schema();
    let row = |row: usize| {
        let columns =
            schema.fields().iter().zip(batch.columns()).skip(1).map(|(field, array)| (field.name().clone(), value_of(array, row)));
        (batch.column(0).as_string::<i32>().value(row).to_owned(), Value::Object(columns.collect()))
    };
    (0..batch.num_rows()).map(row).collect()
}

pub fn scan(pinned: &Pinned) -> Rows {
    pinned.scan().flat_map(|batch| rows_of(&batch.unwrap())).collect()
}

/// Says where two views differ.
pub fn compare(what: &str, at: u64, found: &Rows, expected: &Rows) -> Result<(), String> {
    for key in expected.keys().chain(found.keys()) {
        if found.get(key) != expected.get(key) {
            return Err(format!("{what} at {at}, key {key:?}: found {:?}, expected {:?}", found.get(key), expected.get(key)));
        }
    }
    Ok(())
}

/// Compares a view that somebody has pinned.
pub fn compare_pinned(name: &str, pinned: &Pinned, expected: &impl Expected) -> Result<(), String> {
    let at = pinned.position().get();
    compare(&format!("the pinned view {name}"), at, &scan(pinned), &expected.at(at))
}

/// Folds a sink's topic and compares it at every commit; gives the number of commits.
pub fn check_log(log: &dyn LogBackend, name: &str, expected: &impl Expected) -> Result<usize, String> {
    let mut view = Rows::new();
    let mut commits = 0;
    for record in read_all(log, &[name, "_foldlog.progress"]) {
        let key = String::from_utf8(record.key.unwrap()).unwrap();
        if record.topic == name {
            match record.value {
                None => drop(view.remove(&key)),
                Some(value) => {
                    let mut value: Value = serde_json::from_slice(&value).unwrap();
                    value["rowtime"] = json!(record.timestamp);
                    view.insert(key, value);
                }
            }
        } else if key == name {
            let progress: Value = serde_json::from_slice(&record.value.unwrap()).unwrap();
            let end = progress["position"].as_u64().unwrap();
            compare(&format!("the topic {name}"), end, &view, &expected.at(end))?;
            commits += 1;
        }
    }
    Ok(commits)
}

/// Follows a listener from its snapshot on and compares at every commit that it hears of.
pub struct Follower {
    listener: ChangeListener,
    view: Rows,
    reached: Position,
    pub commits: usize,
}

impl Follower {
    pub fn new(mut listener: ChangeListener, expected: &impl Expected) -> Result<Self, String> {
        let snapshot = listener.take_snapshot().unwrap();
        let (view, reached) = (scan(&snapshot), snapshot.position());
        compare("a listener's snapshot", reached.get(), &view, &expected.at(reached.get()))?;
        Ok(Self { listener, view, reached, commits: 1 })
    }

    /// Hears everything up to `end`.
    pub async fn follow(&mut self, end: Position, expected: &impl Expected) -> Result<(), String> {
        while self.reached < end {
            let item = tokio::time::timeout(PATIENCE, self.listener.next()).await.map_err(|_| format!("nothing was heard up to {end}"))?;
            self.reached = match item.ok_or("the listener ended")?.map_err(|error| error.to_string())? {
                PushItem::Progress(position) => position,
                PushItem::Changes { rows, ops, position } => {
                    self.apply(&rows, &ops)?;
                    position
                }
            };
            compare("a listener", self.reached.get(), &self.view, &expected.at(self.reached.get()))?;
            self.commits += 1;
        }
        Ok(())
    }

    fn apply(&mut self, rows: &RecordBatch, ops: &[ChangeOp]) -> Result<(), String> {
        for ((key, row), op) in rows_of(rows).into_iter().zip(ops) {
            let (before, is_right) = match op {
                ChangeOp::Insert | ChangeOp::UpdateAfter => (self.view.insert(key.clone(), row.clone()), None),
                ChangeOp::UpdateBefore | ChangeOp::Delete => (self.view.remove(&key), Some(row.clone())),
            };
            if before != is_right {
                return Err(format!("{op:?} of key {key:?} to {row} where the row was {before:?}"));
            }
        }
        Ok(())
    }
}
