//! A log that can be told to refuse.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use foldlog_log::{
    Append, AppendFuture, Capabilities, Chunk, Durability, EventQuery, Head, Holder, LogBackend, LogError, LogReader, Offset, Position,
    ProducerEpoch, ProducerFuture, ProducerKey, ReadLimits, Selection, StoredSnapshot, StreamId, StreamState, StreamVersion, Timestamp,
    Topic, TopicChanges, TopicName, TopicSettings, clock::SystemClock, testing::MemoryLog,
};

/// A log that refuses units of queries, and reads of topics that are not foldlog's own, a number of times.
pub struct Refusing {
    log: MemoryLog,
    pub refusals: AtomicU32,
    pub failing_reads: Arc<AtomicU32>,
}

impl Refusing {
    pub fn new(refusals: u32, failing_reads: u32) -> Arc<Self> {
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
