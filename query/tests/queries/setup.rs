//! A log with `facts`, a supervisor over it, and queries that it runs.

use std::sync::Arc;

use arrow::{array::AsArray, array::RecordBatch, array::types::Int64Type, datatypes::DataType};
use foldlog_log::{LogBackend, NewRecord, TopicKind, clock::SystemClock, testing::MemoryLog};
use foldlog_query::{
    QueryConfig,
    plan::{AggregateFunction, Sink, StreamPlan},
    stream::view::Pinned,
    supervisor::Supervisor,
};
use serde_json::json as value;

use super::common::{self, column, create, definition, json};

pub fn memory_log() -> Arc<MemoryLog> {
    let log = Arc::new(MemoryLog::new(Arc::new(SystemClock::new())));
    create(log.as_ref(), "facts", TopicKind::Records, 3);
    log
}

pub fn supervisor(log: &Arc<impl LogBackend>) -> Supervisor {
    supervisor_with(log, &QueryConfig { workers: 2, ..QueryConfig::default() })
}

pub fn supervisor_with<L: LogBackend>(log: &Arc<L>, config: &QueryConfig) -> Supervisor {
    let log: Arc<dyn LogBackend> = Arc::<L>::clone(log);
    Supervisor::open(log, Arc::new(SystemClock::new()), config).unwrap()
}

pub fn start(supervisor: &Supervisor, log: &dyn LogBackend, name: &str, plan: &StreamPlan) {
    let kind = if matches!(plan.sink, Sink::Table(_)) { TopicKind::Table } else { TopicKind::Records };
    create(log, name, kind, 2);
    supervisor.start(&definition(name), plan).unwrap();
}

pub fn fact(key: &str, n: i64) -> NewRecord {
    json(&value!({ "k": key, "n": n, "d": 0.5, "s": format!("s{}", n.rem_euclid(7)) }))
}

/// `SELECT k AS key, SUM(n) AS rows FROM facts GROUP BY k`.
pub fn summed(name: &str) -> StreamPlan {
    let sum = common::call(AggregateFunction::Sum, 1, DataType::Int64, DataType::Int64);
    let output = vec![column("key", DataType::Utf8, true), column("rows", DataType::Int64, false)];
    common::grouped(name, 2, vec![sum], output)
}

pub fn sum_of_rows(pinned: &Pinned) -> i64 {
    pinned.scan().map(|batch| column_of(&batch.unwrap(), "rows").iter().sum::<i64>()).sum()
}

pub fn column_of(batch: &RecordBatch, name: &str) -> Vec<i64> {
    batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec()
}
