//! What the stories about running queries share: a log, a source with a table over it, and plans made by hand.

#![allow(dead_code, reason = "each story uses its part")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow::datatypes::{DataType, Field, Schema};
use foldlog_log::{
    Append, Appended, LogBackend, NewRecord, PartitionId, Position, ReadLimits, Selection, Timestamp, TopicKind, TopicName, TopicSettings,
    Write, clock::Clock, testing::Random,
};
use foldlog_query::{
    catalog::{Column, Format, QueryDef, QueryId, Reading, Source, SourceKind, WantedColumn},
    plan::{AggregateCall, AggregateFunction, Node, OperatorId, Sink, SourceScan, StreamPlan},
    sql::dialect::{AggregateRules, Changelog, CollectLimits},
    stream::pace::StepLimits,
};

/// Longest time that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A clock that moves on by as much at every look.
pub struct SteppingClock {
    stride: Duration,
    looks: AtomicU64,
}

impl SteppingClock {
    pub fn new(stride: Duration) -> Self {
        Self { stride, looks: AtomicU64::new(0) }
    }
}

impl Clock for SteppingClock {
    fn now(&self) -> Timestamp {
        Timestamp::new(0)
    }

    fn monotonic(&self) -> Duration {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        self.stride.saturating_mul(u32::try_from(looks).unwrap_or(u32::MAX))
    }
}

/// Steps of some size, and a clock for them: one that steps at every look ends steps at any row.
pub fn random_steps(random: &mut Random) -> (Arc<SteppingClock>, StepLimits) {
    let most = [1, 2, 7, 64, 8192];
    let records = most[usize::try_from(random.below(5)).unwrap()];
    let clock = Arc::new(SteppingClock::new(Duration::from_millis(random.below(3))));
    let look = if random.one_in(3) { usize::try_from(1 + random.below(8)).unwrap() } else { 1024 };
    // A step has the rows of one reading, or of several.
    let rows = if random.one_in(2) { records as usize } else { 8192 };
    (clock, StepLimits { read: ReadLimits { records, ..ReadLimits::default() }, look, rows, ..StepLimits::default() })
}

pub fn topic(name: &str) -> TopicName {
    name.parse().unwrap()
}

pub fn create(log: &dyn LogBackend, name: &str, kind: TopicKind, partitions: u32) {
    log.create_topic(topic(name), TopicSettings::new(kind, partitions)).unwrap();
}

/// Appends plain values to one partition.
pub async fn append(log: &dyn LogBackend, name: &str, partition: u32, records: Vec<NewRecord>) -> Appended {
    let write = Write::Records { topic: topic(name), partition: Some(PartitionId::new(partition)), records };
    log.append(Append { writes: vec![write], ..Append::default() }).unwrap().await.unwrap()
}

pub fn column(name: &str, data_type: DataType, key: bool) -> Column {
    Column { name: name.to_owned(), data_type, key }
}

/// The stream `facts`: `k VARCHAR, n BIGINT, d DOUBLE, s VARCHAR`.
pub fn facts() -> Arc<Source> {
    Arc::new(Source {
        name: "facts".to_owned(),
        kind: SourceKind::Stream,
        topic: topic("facts"),
        topic_kind: TopicKind::Records,
        columns: vec![
            column("k", DataType::Utf8, false),
            column("n", DataType::Int64, false),
            column("d", DataType::Float64, false),
            column("s", DataType::Utf8, false),
        ],
        key_format: Format::None,
        value_format: Format::Json,
        reading: Reading::Exact,
        headers: Vec::new(),
        timestamp: None,
        timestamp_format: None,
        read_only: false,
        query: None,
        sql: String::new(),
    })
}

/// A table written by a query.
pub fn table(name: &str, columns: Vec<Column>) -> Arc<Source> {
    Arc::new(Source {
        name: name.to_owned(),
        kind: SourceKind::Table,
        topic: topic(name),
        topic_kind: TopicKind::Table,
        columns,
        key_format: Format::Kafka,
        value_format: Format::Json,
        reading: Reading::Exact,
        headers: Vec::new(),
        timestamp: None,
        timestamp_format: None,
        read_only: false,
        query: Some(QueryId::new(name)),
        sql: String::new(),
    })
}

pub fn call(function: AggregateFunction, argument: usize, input_type: DataType, data_type: DataType) -> AggregateCall {
    AggregateCall { function, arguments: vec![argument], types: vec![input_type], filter: None, data_type, rules: AggregateRules::Standard }
}

/// `COUNT(*)`.
pub fn count_rows() -> AggregateCall {
    let call = call(AggregateFunction::CountStar, 0, DataType::Int64, DataType::Int64);
    AggregateCall { arguments: Vec::new(), types: Vec::new(), ..call }
}

/// `SELECT k, COUNT(*), COUNT(n), SUM(n), MIN(n), MAX(n), AVG(n), SUM(d), AVG(d), MIN(s), MAX(s) FROM facts GROUP BY k`.
pub fn everything_by_key(name: &str) -> StreamPlan {
    use AggregateFunction::{Avg, Count, Max, Min, Sum};
    let (long, double, text) = (DataType::Int64, DataType::Float64, DataType::Utf8);
    let calls = vec![
        count_rows(),
        call(Count, 1, long.clone(), long.clone()),
        call(Sum, 1, long.clone(), long.clone()),
        call(Min, 1, long.clone(), long.clone()),
        call(Max, 1, long.clone(), long.clone()),
        call(Avg, 1, long.clone(), double.clone()),
        call(Sum, 2, double.clone(), double.clone()),
        call(Avg, 2, double.clone(), double.clone()),
        call(Min, 3, text.clone(), text.clone()),
        call(Max, 3, text.clone(), text.clone()),
    ];
    let names = ["rows", "n_count", "n_sum", "n_min", "n_max", "n_avg", "d_sum", "d_avg", "s_min", "s_max"];
    let mut output = vec![column("k", text, true)];
    output.extend(names.iter().zip(&calls).map(|(name, call)| column(name, call.data_type.clone(), false)));
    grouped(name, 4, calls, output)
}

/// A query over the first `wanted` columns of `facts` that groups by the first one.
pub fn grouped(name: &str, wanted: usize, calls: Vec<AggregateCall>, output: Vec<Column>) -> StreamPlan {
    grouped_over(facts(), (0..wanted).map(WantedColumn::Declared).collect(), name, calls, output)
}

/// A query over columns of a source that groups by the first of them.
pub fn grouped_over(
    source: Arc<Source>,
    wanted: Vec<WantedColumn>,
    name: &str,
    calls: Vec<AggregateCall>,
    output: Vec<Column>,
) -> StreamPlan {
    let fields: Vec<Field> = output.iter().map(|column| Field::new(&column.name, column.data_type.clone(), true)).collect();
    StreamPlan {
        sources: vec![SourceScan { source, wanted }],
        nodes: vec![Node::Aggregate { id: OperatorId(0), keys: vec![0], calls, having: None, schema: Arc::new(Schema::new(fields)) }],
        sink: Sink::Table(table(name, output.clone())),
        output,
        changelog: Changelog::Coalesced,
        fingerprint: 1,
    }
}

/// `SELECT <the column>, COUNT(*) AS rows FROM <source> GROUP BY <the column>`.
pub fn counted(name: &str, source: Arc<Source>, place: usize) -> StreamPlan {
    let long = DataType::Int64;
    let calls = vec![count_rows()];
    let output = vec![column("key", source.columns[place].data_type.clone(), true), column("rows", long, false)];
    grouped_over(source, vec![WantedColumn::Declared(place)], name, calls, output)
}

/// `CREATE STREAM <name> AS SELECT * FROM facts`, and what it writes.
pub fn copied(name: &str) -> (StreamPlan, Arc<Source>) {
    let source = facts();
    let sink = Arc::new(Source { name: name.to_owned(), topic: topic(name), query: Some(QueryId::new(name)), ..Source::clone(&source) });
    let output = source.columns.clone();
    let wanted = (0..output.len()).map(WantedColumn::Declared).collect();
    let plan = StreamPlan {
        sources: vec![SourceScan { source, wanted }],
        nodes: Vec::new(),
        sink: Sink::Stream(Arc::clone(&sink)),
        output,
        changelog: Changelog::Coalesced,
        fingerprint: 1,
    };
    (plan, sink)
}

/// A record with this JSON value.
pub fn json(value: &serde_json::Value) -> NewRecord {
    NewRecord { value: Some(value.to_string().into()), ..NewRecord::default() }
}

pub fn definition(name: &str) -> QueryDef {
    QueryDef {
        id: QueryId::new(name),
        sink: name.to_owned(),
        sources: vec!["facts".to_owned()],
        dialect: foldlog_query::DialectKind::Standard,
        sql: String::new(),
        start: Position::default(),
        fingerprint: 1,
        types: BTreeMap::new(),
        widths: BTreeMap::new(),
        succeeds: false,
        collected: CollectLimits::DEFAULT,
    }
}

/// A record as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub topic: String,
    pub position: u64,
    pub partition: u32,
    pub offset: u64,
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Everything in these topics, in position order.
pub fn read_all(log: &dyn LogBackend, topics: &[&str]) -> Vec<Stored> {
    read_from(log, topics, Position::default())
}

/// The same from a position on.
pub fn read_from(log: &dyn LogBackend, topics: &[&str], from: Position) -> Vec<Stored> {
    let end = log.head().position;
    let mut reader = log.reader(Selection::Topics(topics.iter().map(|name| topic(name)).collect(), from)).unwrap();
    let mut found = Vec::new();
    loop {
        let chunk = reader.read(end, ReadLimits::default()).unwrap();
        for run in &chunk.runs {
            for record in run.records() {
                let record = record.unwrap();
                found.push(Stored {
                    topic: run.topic.name.to_string(),
                    position: record.position.get(),
                    partition: run.partition.get(),
                    offset: record.offset.get(),
                    timestamp: record.timestamp.get(),
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                    headers: record.headers().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect(),
                });
            }
        }
        if chunk.scanned_to >= end {
            return found;
        }
    }
}
