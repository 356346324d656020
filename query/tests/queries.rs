//! Stories of running queries beside the oracle: common positions, chains, HAVING, refusals, push queries with state, bad rows.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::{AsArray, RecordBatch, types::Int64Type},
    datatypes::{DataType, Field, Schema},
};
use common::{PATIENCE, SteppingClock, append, column, copied, counted, create, definition, facts, json, read_all, topic};
use datafusion::{
    common::DFSchema,
    logical_expr::cast,
    prelude::{col, lit},
};
use foldlog_log::{
    Append, AppendFuture, Capabilities, Chunk, Durability, EventQuery, Head, Holder, LogBackend, LogError, LogReader, NewRecord, Offset,
    Position, ProducerEpoch, ProducerFuture, ProducerKey, ReadLimits, Selection, StoredSnapshot, StreamId, StreamState, StreamVersion,
    Timestamp, Topic, TopicChanges, TopicKind, TopicName, TopicSettings,
    clock::SystemClock,
    testing::{MemoryLog, Random},
};
use foldlog_query::{
    ChangeOp, PushItem, QueryConfig, QueryError,
    catalog::{QueryId, Source, WantedColumn},
    plan::{AggregateFunction, Node, OperatorId, Sink, SourceScan, StreamPlan, expression::Expressions},
    processing_log,
    sql::dialect::Changelog,
    stream::view::{Pinned, View},
    supervisor::{QueryState, Supervisor},
};
use serde_json::{Value, json as value};

fn memory_log() -> Arc<MemoryLog> {
    let log = Arc::new(MemoryLog::new(Arc::new(SystemClock::new())));
    create(log.as_ref(), "facts", TopicKind::Records, 3);
    log
}

fn supervisor(log: &Arc<impl LogBackend>) -> Supervisor {
    supervisor_with(log, &QueryConfig { workers: 2, ..QueryConfig::default() })
}

fn supervisor_with<L: LogBackend>(log: &Arc<L>, config: &QueryConfig) -> Supervisor {
    let log: Arc<dyn LogBackend> = Arc::<L>::clone(log);
    Supervisor::open(log, Arc::new(SystemClock::new()), config).unwrap()
}

fn start(supervisor: &Supervisor, log: &dyn LogBackend, name: &str, plan: &StreamPlan) {
    let kind = if matches!(plan.sink, Sink::Table(_)) { TopicKind::Table } else { TopicKind::Records };
    create(log, name, kind, 2);
    supervisor.start(&definition(name), plan).unwrap();
}

fn fact(key: &str, n: i64) -> NewRecord {
    json(&value!({ "k": key, "n": n, "d": 0.5, "s": format!("s{}", n.rem_euclid(7)) }))
}

/// `SELECT k AS key, SUM(n) AS rows FROM facts GROUP BY k`.
fn summed(name: &str) -> StreamPlan {
    let sum = common::call(AggregateFunction::Sum, 1, DataType::Int64, DataType::Int64);
    let output = vec![column("key", DataType::Utf8, true), column("rows", DataType::Int64, false)];
    common::grouped(name, 2, vec![sum], output)
}

fn sum_of_rows(pinned: &Pinned) -> i64 {
    pinned.scan().map(|batch| column_of(&batch.unwrap(), "rows").iter().sum::<i64>()).sum()
}

fn column_of(batch: &RecordBatch, name: &str) -> Vec<i64> {
    batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec()
}

#[tokio::test]
async fn views_of_one_source_and_a_view_downstream_are_pinned_at_one_position() {
    let log = memory_log();
    let supervisor = supervisor(&log);
    start(&supervisor, log.as_ref(), "by_key", &counted("by_key", facts(), 0));
    start(&supervisor, log.as_ref(), "by_text", &counted("by_text", facts(), 3));
    let (plan, copy) = copied("copy");
    start(&supervisor, log.as_ref(), "copy", &plan);
    start(&supervisor, log.as_ref(), "by_copy", &counted("by_copy", copy, 0));
    let views: Vec<Arc<View>> = ["by_key", "by_text", "by_copy"].iter().map(|name| supervisor.view(name).unwrap()).collect();

    let over = AtomicBool::new(false);
    let writing = async {
        let (mut written, mut ahead) = (Vec::new(), VecDeque::new());
        let mut random = Random::new(3);
        while !over.load(Ordering::Acquire) {
            let count = 1 + random.below(40);
            let records = (0..count).map(|n| fact(&format!("k{}", random.below(9)), n.cast_signed())).collect();
            let appended = append(log.as_ref(), "facts", u32::try_from(random.below(3)).unwrap(), records).await;
            written.extend(appended.first.get()..appended.end.get());
            // The writer stays a few appends ahead, so that how long this takes does not depend on the machine.
            ahead.push_back(appended.end);
            if ahead.len() > 8 {
                views[2].wait(ahead.pop_front().unwrap(), PATIENCE).await.unwrap();
            }
        }
        written
    };
    let reading = async {
        let mut seen = Vec::new();
        for _ in 0..40 {
            let pins = supervisor.pin_together(&views, None, PATIENCE).await.unwrap();
            let positions: Vec<u64> = pins.iter().map(|pin| pin.position().get()).collect();
            assert!(positions.iter().all(|at| *at == positions[0]), "{positions:?}");
            seen.push((positions[0], pins.iter().map(sum_of_rows).collect::<Vec<_>>()));
        }
        over.store(true, Ordering::Release);
        seen
    };
    let (written, seen) = tokio::join!(writing, reading);
    for (at, sums) in seen {
        let expected = written.iter().filter(|position| **position < at).count() as i64;
        assert_eq!(sums, [expected; 3], "at {at}");
    }
    // Nothing holds the queries any more.
    let end = log.head().position;
    for view in &views {
        view.wait(end, PATIENCE).await.unwrap();
    }
    supervisor.shut_down().await;
}

#[tokio::test]
async fn many_joined_reads_at_once_do_not_wait_for_each_other_under_a_writer_that_never_stops() {
    const READERS: usize = 8;
    let log = memory_log();
    let supervisor = supervisor(&log);
    start(&supervisor, log.as_ref(), "by_key", &counted("by_key", facts(), 0));
    start(&supervisor, log.as_ref(), "by_text", &counted("by_text", facts(), 3));
    let (plan, copy) = copied("copy");
    start(&supervisor, log.as_ref(), "copy", &plan);
    start(&supervisor, log.as_ref(), "by_copy", &counted("by_copy", copy, 0));
    let views: Vec<Arc<View>> = ["by_key", "by_text", "by_copy"].iter().map(|name| supervisor.view(name).unwrap()).collect();
    let over = AtomicBool::new(false);
    let writing = async {
        let mut written = Vec::new();
        while !over.load(Ordering::Acquire) {
            let records = (0..20).map(|n| fact(&format!("k{}", n % 9), n)).collect();
            let appended = append(log.as_ref(), "facts", u32::try_from(written.len() % 3).unwrap(), records).await;
            written.extend(appended.first.get()..appended.end.get());
            tokio::task::yield_now().await;
        }
        written
    };
    let read = |reader: usize| {
        let (supervisor, mut views) = (&supervisor, views.clone());
        views.rotate_left(reader % 3);
        async move {
            let mut seen = Vec::new();
            for _ in 0..10 {
                let pins = supervisor.pin_together(&views[..2 + reader % 2], None, PATIENCE).await.unwrap();
                assert!(pins.iter().all(|pin| pin.position() == pins[0].position()));
                seen.push((pins[0].position().get(), pins.iter().map(sum_of_rows).collect::<Vec<_>>()));
            }
            seen
        }
    };
    let reading = async {
        let seen = futures::future::join_all((0..READERS).map(read)).await;
        over.store(true, Ordering::Release);
        seen
    };
    let (written, seen) = tokio::join!(writing, reading);
    let below = |at: u64| i64::try_from(written.partition_point(|position| *position < at)).unwrap();
    for (at, sums) in seen.into_iter().flatten() {
        assert!(sums.iter().all(|sum| *sum == below(at)), "{sums:?} at {at}, where {} facts lie", below(at));
    }
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_token_of_an_append_holds_through_a_chain_of_queries() {
    let log = memory_log();
    let supervisor = supervisor(&log);
    let (plan, copy) = copied("copy");
    start(&supervisor, log.as_ref(), "copy", &plan);
    start(&supervisor, log.as_ref(), "by_copy", &counted("by_copy", copy, 0));
    let view = supervisor.view("by_copy").unwrap();
    for count in 1..=50 {
        let appended = append(log.as_ref(), "facts", 0, vec![fact("k", count)]).await;
        view.wait(appended.end, PATIENCE).await.unwrap();
        assert_eq!(sum_of_rows(&view.pin().unwrap()), count);
    }
    // Something else is appended: the frontier of the chain follows without any record.
    create(log.as_ref(), "noise", TopicKind::Records, 1);
    let appended = append(log.as_ref(), "noise", 0, vec![fact("k", 0)]).await;
    view.wait(appended.end, PATIENCE).await.unwrap();
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_chain_waits_after_a_restart_for_what_its_first_query_had_not_written() {
    let log = Refusing::new(0, 0);
    create(log.as_ref(), "facts", TopicKind::Records, 1);
    let end = append(log.as_ref(), "facts", 0, vec![fact("k", 1)]).await.end;
    // The second query had read that far when the first one had not written yet what follows from the fact.
    create(log.as_ref(), "_foldlog.progress", TopicKind::Table, 1);
    let progress = value!({ "position": end.get(), "start": 0, "fingerprint": 1 });
    append(log.as_ref(), "_foldlog.progress", 0, vec![NewRecord { key: Some("second".into()), ..json(&progress) }]).await;
    log.refusals.store(5, Ordering::Release);
    let supervisor = supervisor(&log);
    let (plan, first) = copied("first");
    start(&supervisor, log.as_ref(), "first", &plan);
    let (plan, second) = copied("second");
    let plan = StreamPlan { sources: vec![SourceScan { source: first, ..plan.sources[0].clone() }], ..plan };
    start(&supervisor, log.as_ref(), "second", &plan);
    start(&supervisor, log.as_ref(), "third", &counted("third", second, 0));
    let view = supervisor.view("third").unwrap();
    view.wait(end, PATIENCE).await.unwrap();
    assert_eq!(sum_of_rows(&view.pin().unwrap()), 1);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_token_holds_through_a_topic_that_was_declared_again() {
    let log = Refusing::new(5, 0);
    create(log.as_ref(), "facts", TopicKind::Records, 1);
    let end = append(log.as_ref(), "facts", 0, vec![fact("k", 1)]).await.end;
    let supervisor = supervisor(&log);
    let (plan, first) = copied("first");
    start(&supervisor, log.as_ref(), "first", &plan);
    let again = Arc::new(Source { name: "again".to_owned(), query: None, ..Source::clone(&first) });
    start(&supervisor, log.as_ref(), "second", &counted("second", again, 0));
    let view = supervisor.view("second").unwrap();
    view.wait(end, PATIENCE).await.unwrap();
    assert_eq!(sum_of_rows(&view.pin().unwrap()), 1);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_chain_over_the_processing_log_writes_nothing_there() {
    let log = memory_log();
    let supervisor = supervisor(&log);
    let source = |name: &str, topic_name: &str| Source {
        name: name.to_owned(),
        topic: topic(topic_name),
        columns: vec![column("reason", DataType::Utf8, false)],
        ..Source::clone(&facts())
    };
    let over = |from: Source, to: &str, nodes: Vec<Node>, data_type: DataType| {
        let output = vec![column("reason", data_type, false)];
        let sink = Source { columns: output.clone(), query: Some(QueryId::new(to)), ..source(to, to) };
        let scan = SourceScan { source: Arc::new(from), wanted: vec![WantedColumn::Declared(0)] };
        let (sources, sink_to) = (vec![scan], Sink::Stream(Arc::new(sink.clone())));
        let plan = StreamPlan { sources, nodes, sink: sink_to, output, changelog: Changelog::Coalesced, fingerprint: 1 };
        start(&supervisor, log.as_ref(), to, &plan);
        sink
    };
    let first = over(source("faults", processing_log::TOPIC), "first", Vec::new(), DataType::Utf8);
    let schema = Arc::new(Schema::new(vec![Field::new("reason", DataType::Int64, true)]));
    let text = DFSchema::try_from(Schema::new(vec![Field::new("reason", DataType::Utf8, true)])).unwrap();
    let number = Expressions::new().compile(cast(col("reason"), DataType::Int64), &text).unwrap();
    let cast_to_number = Node::Project { id: OperatorId(0), expressions: vec![number], schema };
    over(first, "second", vec![cast_to_number], DataType::Int64);
    let end = append(log.as_ref(), processing_log::TOPIC, 0, vec![json(&value!({ "reason": "no number" }))]).await.end;
    supervisor.wait("second", end, PATIENCE).await.unwrap();
    assert_eq!(read_all(log.as_ref(), &["second"]).len(), 1);
    assert_eq!(read_all(log.as_ref(), &[processing_log::TOPIC]).len(), 1);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_row_that_having_lets_go_is_deleted_for_listeners_and_in_the_sink() {
    let log = memory_log();
    let supervisor = supervisor(&log);
    let mut plan = summed("positive");
    let Some(Node::Aggregate { having, schema, .. }) = plan.nodes.first_mut() else { panic!("a plan that groups") };
    let df_schema = DFSchema::try_from(Schema::clone(schema)).unwrap();
    *having = Some(Expressions::new().compile(col("rows").gt(lit(0_i64)), &df_schema).unwrap());
    start(&supervisor, log.as_ref(), "positive", &plan);
    let view = supervisor.view("positive").unwrap();
    let mut listener = supervisor.listen(&view).unwrap();
    let (mut model, mut heard) = (BTreeMap::<String, i64>::new(), BTreeMap::<String, i64>::new());
    let mut random = Random::new(11);
    for _ in 0..60 {
        let given: Vec<(String, i64)> = (0..3).map(|_| (format!("k{}", random.below(5)), random.below(21).cast_signed() - 10)).collect();
        for (key, n) in &given {
            *model.entry(key.clone()).or_default() += n;
        }
        let appended = append(log.as_ref(), "facts", 0, given.iter().map(|(key, n)| fact(key, *n)).collect()).await;
        let expected: BTreeMap<String, i64> = model.iter().filter(|(_, sum)| **sum > 0).map(|(key, sum)| (key.clone(), *sum)).collect();
        loop {
            let reached = match listener.next().await.unwrap().unwrap() {
                PushItem::Progress(position) => position,
                PushItem::Changes { rows, ops, position } => {
                    hear(&rows, &ops, &mut heard);
                    position
                }
            };
            if reached >= appended.end {
                break;
            }
        }
        assert_eq!(heard, expected);
        let scanned: BTreeMap<String, i64> = view.pin().unwrap().scan().flat_map(|batch| key_and_rows(&batch.unwrap())).collect();
        assert_eq!(scanned, expected);
        let mut written = BTreeMap::new();
        for record in read_all(log.as_ref(), &["positive"]) {
            let key = String::from_utf8(record.key.unwrap()).unwrap();
            match record.value {
                None => assert!(written.remove(&key).is_some(), "a tombstone for {key}, which is not there"),
                Some(bytes) => drop(written.insert(key, serde_json::from_slice::<Value>(&bytes).unwrap()["rows"].as_i64().unwrap())),
            }
        }
        assert_eq!(written, expected);
    }
    supervisor.shut_down().await;
}

fn key_and_rows(batch: &RecordBatch) -> Vec<(String, i64)> {
    let keys = batch.column(0).as_string::<i32>();
    keys.iter().map(|key| key.unwrap().to_owned()).zip(column_of(batch, "rows")).collect()
}

fn hear(rows: &RecordBatch, ops: &[ChangeOp], heard: &mut BTreeMap<String, i64>) {
    for ((key, count), op) in key_and_rows(rows).into_iter().zip(ops) {
        match op {
            ChangeOp::Insert | ChangeOp::UpdateAfter => assert_eq!(heard.insert(key, count), None, "{op:?}"),
            ChangeOp::UpdateBefore | ChangeOp::Delete => assert_eq!(heard.remove(&key), Some(count), "{op:?}"),
        }
    }
}

/// A log that refuses units of queries, and reads of topics that are not foldlog's own, a number of times.
struct Refusing {
    log: MemoryLog,
    refusals: AtomicU32,
    failing_reads: Arc<AtomicU32>,
}

impl Refusing {
    fn new(refusals: u32, failing_reads: u32) -> Arc<Self> {
        let log = MemoryLog::new(Arc::new(SystemClock::new()));
        Arc::new(Self { log, refusals: AtomicU32::new(refusals), failing_reads: Arc::new(AtomicU32::new(failing_reads)) })
    }
}

struct FailingReader {
    reader: Box<dyn LogReader>,
    failures: Arc<AtomicU32>,
}

impl LogReader for FailingReader {
    fn read(&mut self, until: Position, limits: ReadLimits) -> Result<Chunk, LogError> {
        let fails = self.failures.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        if fails.is_ok() {
            return Err(LogError::Io { doing: "read", path: "the disk".into(), source: std::io::Error::other("a cable is loose") });
        }
        self.reader.read(until, limits)
    }

    fn in_memory(&self) -> bool {
        self.reader.in_memory()
    }
}

impl LogBackend for Refusing {
    fn capabilities(&self) -> Capabilities {
        self.log.capabilities()
    }
    fn create_topic(&self, name: TopicName, settings: TopicSettings) -> Result<Arc<Topic>, LogError> {
        self.log.create_topic(name, settings)
    }
    fn delete_topic(&self, name: &TopicName) -> Result<(), LogError> {
        self.log.delete_topic(name)
    }
    fn alter_topic(&self, name: &TopicName, changes: TopicChanges) -> Result<Arc<Topic>, LogError> {
        self.log.alter_topic(name, changes)
    }
    fn topic(&self, name: &TopicName) -> Result<Arc<Topic>, LogError> {
        self.log.topic(name)
    }
    fn topics(&self) -> Vec<Arc<Topic>> {
        self.log.topics()
    }
    fn append_all(&self, appends: &mut VecDeque<Append>) -> Result<Vec<Result<AppendFuture, LogError>>, LogError> {
        self.log.append_all(appends)
    }
    fn open_producer(&self, key: ProducerKey, resume: Option<ProducerEpoch>) -> Result<ProducerFuture, LogError> {
        self.log.open_producer(key, resume)
    }
    fn append(&self, append: Append) -> Result<AppendFuture, LogError> {
        if append.writes.len() > 1 {
            assert_eq!(append.durability, Some(Durability::Synced), "what a query shows is durable, whatever its topics have");
        }
        let left = self.refusals.load(Ordering::Acquire);
        if append.writes.len() > 1 && left > 0 {
            self.refusals.store(left - 1, Ordering::Release);
            // Both ways in which a log says no: at once, and when the append comes to its turn.
            if left.is_multiple_of(2) {
                return Err(LogError::Overloaded { what: "the test" });
            }
            return Ok(Box::pin(async { Err(LogError::Overloaded { what: "the test" }) }));
        }
        self.log.append(append)
    }
    fn head(&self) -> Head {
        self.log.head()
    }
    fn durable(&self) -> tokio::sync::watch::Receiver<Position> {
        self.log.durable()
    }
    fn firsts(&self, topic: &TopicName) -> Result<Vec<Offset>, LogError> {
        self.log.firsts(topic)
    }
    fn whole_from(&self, selection: &Selection) -> Result<(), LogError> {
        self.log.whole_from(selection)
    }
    fn hold(&self, owner: &str, topic: &TopicName, from: Position) -> Result<(), LogError> {
        self.log.hold(owner, topic, from)
    }
    fn release(&self, owner: &str) {
        self.log.release(owner);
    }
    fn holders(&self, topic: &TopicName) -> Result<Vec<Holder>, LogError> {
        self.log.holders(topic)
    }
    fn ends(&self, topic: &TopicName) -> Result<Vec<Offset>, LogError> {
        self.log.ends(topic)
    }
    fn snapshot(&self, topic: &TopicName, stream: &StreamId, at_most: StreamVersion) -> Result<Option<StoredSnapshot>, LogError> {
        self.log.snapshot(topic, stream, at_most)
    }

    fn stream_state(&self, topic: &TopicName, stream: &StreamId) -> Result<StreamState, LogError> {
        self.log.stream_state(topic, stream)
    }
    fn reader(&self, selection: Selection) -> Result<Box<dyn LogReader>, LogError> {
        let of_queries = matches!(&selection, Selection::Topics(topics, _) if topics.iter().all(|topic| !topic.is_system()));
        let reader = self.log.reader(selection)?;
        if !of_queries {
            return Ok(reader);
        }
        Ok(Box::new(FailingReader { reader, failures: Arc::clone(&self.failing_reads) }))
    }
    fn backward_reader(&self, selection: Selection) -> Result<Box<dyn LogReader>, LogError> {
        self.log.backward_reader(selection)
    }
    fn filtered_reader(&self, selection: Selection, query: EventQuery) -> Result<Box<dyn LogReader>, LogError> {
        self.log.filtered_reader(selection, query)
    }
    fn filtered_backward_reader(&self, selection: Selection, query: EventQuery) -> Result<Box<dyn LogReader>, LogError> {
        self.log.filtered_backward_reader(selection, query)
    }
    fn at_time(&self, selection: Selection, time: Timestamp) -> Result<Selection, LogError> {
        self.log.at_time(selection, time)
    }
}

#[tokio::test]
async fn a_unit_that_the_log_refuses_waits_and_is_written_once_in_order() {
    let log = Refusing::new(5, 0);
    create(log.as_ref(), "facts", TopicKind::Records, 1);
    let supervisor = supervisor(&log);
    let (plan, _) = copied("copy");
    start(&supervisor, log.as_ref(), "copy", &plan);
    let mut end = Position::default();
    for n in 0..20 {
        end = append(log.as_ref(), "facts", 0, vec![fact("k", n)]).await.end;
    }
    supervisor.wait("copy", end, PATIENCE).await.unwrap();
    let numbers: Vec<i64> = read_all(log.as_ref(), &["copy"])
        .iter()
        .map(|record| serde_json::from_slice::<Value>(record.value.as_ref().unwrap()).unwrap()["n"].as_i64().unwrap())
        .collect();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    assert_eq!(log.refusals.load(Ordering::Acquire), 0);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_query_that_cannot_read_tries_again_and_misses_nothing() {
    let log = Refusing::new(0, 3);
    create(log.as_ref(), "facts", TopicKind::Records, 1);
    let supervisor = supervisor(&log);
    let (plan, _) = copied("copy");
    start(&supervisor, log.as_ref(), "copy", &plan);
    let end = append(log.as_ref(), "facts", 0, (0..20).map(|n| fact("k", n)).collect()).await.end;
    while supervisor.queries()[0].trouble.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(supervisor.queries()[0].state, QueryState::Running, "it is not given up");
    supervisor.wait("copy", end, PATIENCE).await.unwrap();
    assert_eq!(read_all(log.as_ref(), &["copy"]).len(), 20);
    assert_eq!(supervisor.queries()[0].trouble, None);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_query_that_fails_again_and_again_stops_with_its_reason_and_others_go_on() {
    let log = Refusing::new(0, u32::MAX);
    create(log.as_ref(), "facts", TopicKind::Records, 1);
    // Time flies, so that nobody waits between the trials.
    let clock = Arc::new(SteppingClock::new(Duration::from_secs(60)));
    let shared: Arc<dyn LogBackend> = Arc::<Refusing>::clone(&log);
    let supervisor = Supervisor::open(shared, clock, &QueryConfig { workers: 1, ..QueryConfig::default() }).unwrap();
    let (plan, _) = copied("copy");
    start(&supervisor, log.as_ref(), "copy", &plan);
    let end = append(log.as_ref(), "facts", 0, vec![fact("k", 1)]).await.end;
    let failure = supervisor.wait("copy", end, PATIENCE).await.unwrap_err();
    assert!(failure.to_string().contains("a cable is loose (it was tried 9 times)"), "{failure}");
    let states: Vec<QueryState> = supervisor.queries().into_iter().map(|status| status.state).collect();
    assert!(matches!(states.as_slice(), [QueryState::Failed(reason)] if reason.contains("a cable")), "{states:?}");
    let tried = u32::MAX - log.failing_reads.swap(0, Ordering::AcqRel);
    assert_eq!(tried, 9);
    let told = read_all(log.as_ref(), &[processing_log::TOPIC]);
    let told: Value = serde_json::from_slice(told[0].value.as_ref().unwrap()).unwrap();
    assert_eq!((&told["query"], &told["what"]), (&value!("copy"), &value!("stopped")));

    let (plan, _) = copied("other");
    start(&supervisor, log.as_ref(), "other", &plan);
    supervisor.wait("other", end, PATIENCE).await.unwrap();
    assert_eq!(read_all(log.as_ref(), &["other"]).len(), 1);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_query_whose_unit_the_log_refuses_stops_and_writes_it_after_the_next_start() {
    let log = Refusing::new(u32::MAX, 0);
    create(log.as_ref(), "facts", TopicKind::Records, 1);
    let (plan, _) = copied("copy");
    let first = supervisor(&log);
    start(&first, log.as_ref(), "copy", &plan);
    let end = append(log.as_ref(), "facts", 0, vec![fact("k", 1), fact("k", 2)]).await.end;
    while log.refusals.load(Ordering::Acquire) == u32::MAX {
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(PATIENCE, first.shut_down()).await.expect("it waits for a log that has no room");
    log.refusals.store(0, Ordering::Release);
    let second = supervisor(&log);
    start(&second, log.as_ref(), "copy", &plan);
    second.wait("copy", end, PATIENCE).await.unwrap();
    assert_eq!(read_all(log.as_ref(), &["copy"]).len(), 2);
    second.shut_down().await;
}

#[tokio::test]
async fn a_stream_continues_after_a_restart_without_repeating_or_losing() {
    let log = memory_log();
    let mut expected = 0;
    for life in 0..6 {
        let supervisor = supervisor(&log);
        let (plan, _) = copied("copy");
        start(&supervisor, log.as_ref(), "copy", &plan);
        let mut end = Position::default();
        for _ in 0..10 {
            end = append(log.as_ref(), "facts", 1, vec![fact("k", expected), NewRecord::default()]).await.end;
            expected += 1;
        }
        // One life in two is cut off with appends that it has not seen.
        if life % 2 == 0 {
            supervisor.wait("copy", end, PATIENCE).await.unwrap();
            supervisor.shut_down().await;
        }
    }
    let supervisor = supervisor(&log);
    let (plan, _) = copied("copy");
    start(&supervisor, log.as_ref(), "copy", &plan);
    supervisor.wait("copy", log.head().position, PATIENCE).await.unwrap();
    let records = read_all(log.as_ref(), &["copy"]);
    let numbers: Vec<Option<i64>> =
        records.iter().map(|record| serde_json::from_slice::<Value>(record.value.as_ref()?).unwrap()["n"].as_i64()).collect();
    // A record without a value passes a projection as one without a value.
    assert_eq!(numbers, (0..expected).flat_map(|n| [Some(n), None]).collect::<Vec<_>>());
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_push_query_with_state_folds_for_its_listener_and_writes_nothing() {
    let log = memory_log();
    for n in 0..500 {
        append(log.as_ref(), "facts", 0, vec![fact(&format!("k{}", n % 10), n)]).await;
    }
    let supervisor = supervisor(&log);
    let before = log.head().position;
    let plan = StreamPlan { sink: Sink::Volatile, ..counted("push", facts(), 0) };
    let mut listener = supervisor.volatile(&plan, Position::default()).unwrap();
    assert!(listener.take_snapshot().is_none());
    let mut heard = BTreeMap::new();
    loop {
        match listener.next().await.unwrap().unwrap() {
            PushItem::Progress(position) if position >= before => break,
            PushItem::Progress(_) => {}
            PushItem::Changes { rows, ops, position } => {
                hear(&rows, &ops, &mut heard);
                if position >= before {
                    break;
                }
            }
        }
    }
    assert_eq!(heard, (0..10).map(|key| (format!("k{key}"), 50)).collect());
    assert_eq!(log.head().position, before, "nothing was written");
    drop(listener);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_listener_that_takes_nothing_stops_its_own_push_query_and_nothing_else() {
    let log = memory_log();
    let supervisor = supervisor(&log);
    start(&supervisor, log.as_ref(), "by_key", &counted("by_key", facts(), 0));
    let plan = StreamPlan { sink: Sink::Volatile, ..counted("push", facts(), 0) };
    let mut stalled = supervisor.volatile(&plan, Position::default()).unwrap();
    let view = supervisor.view("by_key").unwrap();
    let mut end = Position::default();
    for n in 0..3000 {
        end = append(log.as_ref(), "facts", 0, vec![fact("k", n)]).await.end;
        view.wait(end, PATIENCE).await.unwrap();
    }
    // It was never told that it is too slow: its query waited, and goes on when it listens.
    let mut heard = BTreeMap::new();
    loop {
        match tokio::time::timeout(PATIENCE, stalled.next()).await.unwrap().unwrap().unwrap() {
            PushItem::Changes { rows, ops, position } => {
                hear(&rows, &ops, &mut heard);
                if position >= end {
                    break;
                }
            }
            PushItem::Progress(position) if position >= end => break,
            PushItem::Progress(_) => {}
        }
    }
    assert_eq!(heard, BTreeMap::from([("k".to_owned(), 3000)]));
    supervisor.shut_down().await;
}

#[tokio::test]
async fn bad_rows_are_recorded_once_and_the_query_goes_on() {
    let log = memory_log();
    let plan = summed("by_key");
    for life in 0..2 {
        let supervisor = supervisor(&log);
        start(&supervisor, log.as_ref(), "by_key", &plan);
        if life == 0 {
            append(
                log.as_ref(),
                "facts",
                2,
                vec![fact("k", 1), json(&value!([1])), json(&value!({ "k": "k", "n": "seven" })), fact("k", 2)],
            )
            .await;
        }
        let view = supervisor.view("by_key").unwrap();
        view.wait(log.head().position, PATIENCE).await.unwrap();
        assert_eq!(sum_of_rows(&view.pin().unwrap()), 3);
        supervisor.shut_down().await;
    }
    let faults: Vec<Value> = read_all(log.as_ref(), &["_foldlog.processing_log"])
        .iter()
        .map(|record| serde_json::from_slice(record.value.as_ref().unwrap()).unwrap())
        .collect();
    let told: Vec<(&str, u64, u64)> = faults
        .iter()
        .map(|fault| (fault["what"].as_str().unwrap(), fault["partition"].as_u64().unwrap(), fault["offset"].as_u64().unwrap()))
        .collect();
    assert_eq!(told, [("skipped", 2, 1), ("nulled", 2, 2)], "{faults:?}");
    assert!(faults.iter().all(|fault| fault["query"] == "by_key" && fault["topic"] == "facts"));
}

#[tokio::test]
async fn a_query_over_its_state_budget_stops_with_the_reason_and_others_go_on() {
    let log = memory_log();
    let supervisor = supervisor_with(&log, &QueryConfig { workers: 1, state_mib: 1, ..QueryConfig::default() });
    start(&supervisor, log.as_ref(), "by_key", &counted("by_key", facts(), 0));
    start(&supervisor, log.as_ref(), "by_text", &counted("by_text", facts(), 3));
    for round in 0..40 {
        let records = (0..1000).map(|n| fact(&format!("key {round} {n}"), n)).collect();
        append(log.as_ref(), "facts", 0, records).await;
    }
    let end = log.head().position;
    supervisor.view("by_text").unwrap().wait(end, PATIENCE).await.unwrap();
    let failure = supervisor.view("by_key").unwrap().wait(end, PATIENCE).await.unwrap_err();
    assert!(failure.to_string().contains("query.state_mib"), "{failure}");
    let states: Vec<QueryState> = supervisor.queries().into_iter().map(|status| status.state).collect();
    assert!(matches!(states.as_slice(), [QueryState::Failed(_), QueryState::Running]), "{states:?}");
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_position_that_is_not_reached_in_time_is_named() {
    let log = memory_log();
    let supervisor = supervisor(&log);
    start(&supervisor, log.as_ref(), "by_key", &counted("by_key", facts(), 0));
    let view = supervisor.view("by_key").unwrap();
    let wanted = Position::new(1_000_000);
    let error = view.wait(wanted, Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, QueryError::NotYet { wanted: asked, .. } if asked == wanted), "{error}");
    supervisor.stop("by_key").await;
    assert!(supervisor.view("by_key").is_none());
    assert!(view.pin().is_err(), "a view that was terminated is not read");
    supervisor.shut_down().await;
}

#[test]
fn schema_of_a_view_is_its_columns_and_the_row_time() {
    let log = memory_log();
    let supervisor = supervisor(&log);
    start(&supervisor, log.as_ref(), "by_key", &counted("by_key", facts(), 0));
    let view = supervisor.view("by_key").unwrap();
    let schema = view.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field: &Arc<Field>| field.name().as_str()).collect();
    assert_eq!(names, ["key", "rows", "rowtime"]);
    assert_eq!(view.keys(), 1);
    assert_eq!(topic("by_key").as_str(), view.name());
}

#[tokio::test]
async fn twenty_queries_over_one_topic_decode_each_record_once() {
    const APPENDS: i64 = 300;
    let log = memory_log();
    let supervisor = supervisor(&log);
    let names: Vec<String> = (0..20).map(|n| format!("sum{n}")).collect();
    for name in &names {
        start(&supervisor, log.as_ref(), name, &summed(name));
    }
    let mut expected = 0;
    for n in 0..APPENDS {
        let records: Vec<NewRecord> = (0..=n % 5).map(|m| fact(&format!("k{m}"), n + m)).collect();
        expected += (0..=n % 5).map(|m| n + m).sum::<i64>();
        append(log.as_ref(), "facts", u32::try_from(n % 3).unwrap(), records).await;
    }
    let records = (0..APPENDS).map(|n| u64::try_from(1 + n % 5).unwrap()).sum::<u64>();
    let end = log.head().position;
    for name in &names {
        let view = supervisor.view(name).unwrap();
        view.wait(end, PATIENCE).await.unwrap();
        assert_eq!(sum_of_rows(&view.pin().unwrap()), expected, "{name}");
    }
    assert!(supervisor.queries().iter().all(|query| query.rows_in == records));
    assert_eq!(supervisor.decoded(), records);
    supervisor.shut_down().await;
}
