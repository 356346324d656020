//! An append as its caller's thread prepares it: checked, hashed, and encoded but for what depends on its place.

use std::sync::{Arc, OnceLock};

use tokio::sync::oneshot;

use super::{
    asked::{MAX_COMBINATIONS, too_many},
    condition::PreparedQuery,
    group::Switch,
    streams::StreamKey,
};
use crate::{
    batch::{Encoded, MarkWith},
    durability::Durability,
    error::LogError,
    ids::{Expected, Offset, ProducerEpoch, StreamId, StreamVersion, Tag, TopicName},
    life::{Mark, Marking, NO_STREAM, StreamChange},
    postings::{Poster, Posting},
    producers,
    record::{Append, Appended, Identity, NewRecord, Precondition, ProducerAt, ProducerKey, Purpose, Sequenced, Write},
    segment::StreamHasher,
    topic::TopicKind,
    topic_store::{Partition, TopicEntry, TopicStore},
};

/// Most bytes of a principal's name.
const MAX_PRINCIPAL: usize = 1024;
/// Most records of one append. What clients send has less at the door; a step of a query may write as many.
pub(crate) const MAX_RECORDS: usize = 1 << 18;

/// Most bytes of the name of whoever changes a stream's life.
const MAX_BY: usize = 255;

/// Most bytes of the reason for a redaction.
const MAX_REASON: usize = 1024;

/// Why nothing is marked in a topic of another kind.
const NO_STREAMS: &str = "it has no streams";

/// What an event takes beside data and stream, mostly: a guess that spares growing.
const EVENT_OVERHEAD: usize = 64;

/// The stream that a write's events join.
#[derive(Clone, Debug)]
pub(crate) struct WriteStream {
    pub(crate) key: StreamKey,
    /// None: its mark is of the partition, and of no stream.
    pub(crate) id: Option<StreamId>,
}

/// Records of one partition that follow each other.
#[derive(Debug)]
pub(crate) struct PreparedWrite {
    pub(crate) partition: Arc<Partition>,
    pub(crate) records: Encoded,
    pub(crate) stream: Option<WriteStream>,
    /// What the stream is marked with; its one record is the mark then.
    pub(crate) marking: Option<Marking>,
    /// Where the event lies that it redacts, if that was found.
    pub(crate) event: Option<Offset>,
    /// Of its events, counted from the first.
    pub(crate) postings: Vec<Posting>,
}

/// A precondition with the keys that it is judged by; its place is that in [`Append::preconditions`].
#[derive(Debug)]
pub(crate) enum PreparedCondition {
    Stream { key: StreamKey, stream: StreamId, expected: Expected },
    Query(PreparedQuery),
}

/// What an append does of its producer.
#[derive(Debug)]
pub(crate) enum ProducerStep {
    /// It is one of its units.
    Unit(Sequenced),
    /// It asks where the producer stands, and begins an epoch unless it goes on with one.
    Open {
        key: ProducerKey,
        resume: Option<ProducerEpoch>,
        /// The answer, set before the reply is sent.
        stands: Arc<OnceLock<ProducerAt>>,
    },
}

impl ProducerStep {
    fn key(&self) -> &ProducerKey {
        match self {
            Self::Unit(unit) => &unit.key,
            Self::Open { key, .. } => key,
        }
    }
}

/// An append in line.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) writes: Vec<PreparedWrite>,
    pub(crate) conditions: Vec<PreparedCondition>,
    pub(crate) identity: Option<Identity>,
    /// Comes from the log itself; there is nothing else in its unit.
    pub(crate) switch: Option<Switch>,
    pub(crate) producer: Option<ProducerStep>,
    /// Most bytes that it adds to a frame.
    pub(crate) bytes: u64,
    /// How durable it must be when answered.
    pub(crate) durability: Durability,
    /// What a file may be made for.
    pub(crate) purpose: Purpose,
    pub(crate) reply: oneshot::Sender<Result<Appended, LogError>>,
}

/// Bytes that a switch adds to a frame, at most.
const SWITCH_BYTES: u64 = 64;

impl Request {
    /// What replaces segments.
    pub(crate) fn switch(switch: Switch, reply: oneshot::Sender<Result<Appended, LogError>>) -> Self {
        Self { switch: Some(switch), ..Self::empty(SWITCH_BYTES, Purpose::Upkeep, reply) }
    }

    /// What is answered when everything is durable that was admitted before it.
    pub(crate) fn barrier(reply: oneshot::Sender<Result<Appended, LogError>>) -> Self {
        Self::empty(0, Purpose::Upkeep, reply)
    }

    fn empty(bytes: u64, purpose: Purpose, reply: oneshot::Sender<Result<Appended, LogError>>) -> Self {
        Self {
            writes: Vec::new(),
            conditions: Vec::new(),
            identity: None,
            switch: None,
            producer: None,
            bytes,
            durability: Durability::Synced,
            purpose,
            reply,
        }
    }

    /// What says that bytes of everything that redactions below an offset of a partition are about are gone.
    pub(crate) fn erased(
        partition: Arc<Partition>,
        to: Offset,
        hasher: &StreamHasher,
        reply: oneshot::Sender<Result<Appended, LogError>>,
    ) -> Result<Self, LogError> {
        let write = mark_of(partition, NO_STREAM, Marking::Erased(to), MarkWith::Nothing, "", hasher)?;
        let bytes = write.records.max_len() as u64 + 128;
        Ok(Self { writes: vec![write], ..Self::empty(bytes, Purpose::Upkeep, reply) })
    }

    /// Topics of the streams that it marks.
    pub(crate) fn marked(&self) -> impl Iterator<Item = &TopicName> {
        self.writes.iter().filter(|write| write.marking.is_some()).map(|write| &write.partition.topic.name)
    }

    fn of_producer(mut self, step: ProducerStep) -> Result<Self, LogError> {
        let key = step.key();
        if key.principal.len() > MAX_PRINCIPAL {
            return Err(invalid("producer", format!("the principal has more than {MAX_PRINCIPAL} bytes")));
        }
        self.bytes += (producers::Entry::fixed_len(key) + producers::Entry::UNIT_LEN) as u64;
        self.producer = Some(step);
        Ok(self)
    }

    /// The query conditions.
    pub(crate) fn queries(&self) -> impl Iterator<Item = &PreparedQuery> {
        self.conditions.iter().filter_map(|condition| match condition {
            PreparedCondition::Query(query) => Some(query),
            PreparedCondition::Stream { .. } => None,
        })
    }
}

/// Checks and encodes an append.
///
/// # Errors
/// Whatever can be said without looking at the log: see [`crate::backend::LogBackend::append`].
pub(crate) fn prepare(
    append: Append,
    topics: &TopicStore,
    hasher: &StreamHasher,
    limit: u64,
    reply: oneshot::Sender<Result<Appended, LogError>>,
) -> Result<Request, LogError> {
    let mut topics = Cached { store: topics, last: None };
    let mut writes = Vec::with_capacity(append.writes.len());
    let mut records = 0;
    for write in append.writes {
        records += match &write {
            Write::Stream { events, .. } => events.len(),
            Write::Records { records, .. } => records.len(),
            Write::Change { .. } | Write::Snapshot { .. } => 1,
            Write::Redact { versions, .. } => versions.len(),
        };
        if records > MAX_RECORDS {
            return Err(invalid("writes", format!("more than {MAX_RECORDS} records in one append")));
        }
        match write {
            Write::Stream { topic, stream, events } => {
                let entry = topics.get(&topic)?;
                writes.push(prepare_stream(&entry, stream, &events, hasher)?);
            }
            Write::Records { topic, partition, records } => {
                let entry = topics.get(&topic)?;
                let fixed = partition.map(|id| entry.partition(id).cloned()).transpose()?;
                prepare_records(&entry, fixed.as_ref(), &records, &mut writes)?;
            }
            Write::Change { topic, stream, change, by } => {
                let entry = topics.get(&topic)?;
                writes.push(prepare_mark(&entry, &stream, Marking::Change(change), MarkWith::Nothing, &by, hasher)?);
            }
            Write::Snapshot { topic, stream, snapshot, by } => {
                let entry = topics.get(&topic)?;
                let with = MarkWith::Snapshot(&snapshot);
                writes.push(prepare_mark(&entry, &stream, Marking::Snapshot(snapshot.version), with, &by, hasher)?);
            }
            Write::Redact { topic, stream, versions, by, reason } => {
                let entry = topics.get(&topic)?;
                check_redaction(&versions, &by, &reason)?;
                for version in versions {
                    let with = MarkWith::Reason(&reason);
                    writes.push(prepare_mark(&entry, &stream, Marking::Redaction(version), with, &by, hasher)?);
                }
            }
        }
    }
    check_marked(&writes)?;
    let durability = Durability::of(append.durability, writes.iter().map(|write| write.partition.topic.settings.durability));
    let mut conditions = Vec::with_capacity(append.preconditions.len());
    let mut combinations = 0;
    for condition in append.preconditions {
        conditions.push(match condition {
            Precondition::Stream { topic, stream, expected } => {
                let entry = topics.get(&topic)?;
                require_events(&entry, "it has no streams to expect anything of")?;
                let name = stream.as_str().as_bytes();
                let partition = entry.partition_for(name);
                partition.writable()?;
                PreparedCondition::Stream { key: StreamKey::of(hasher, partition, name), stream, expected }
            }
            Precondition::QueryAbsent(asked) => {
                let query = PreparedQuery::new(asked, topics.store, hasher)?;
                combinations += query.combinations();
                if combinations > MAX_COMBINATIONS {
                    return Err(too_many("preconditions"));
                }
                PreparedCondition::Query(query)
            }
        });
    }
    writes.iter().try_for_each(|write| write.partition.writable())?;
    let bytes = writes.iter().map(|write| write.records.max_len() as u64 + 128).sum::<u64>()
        + append.identity.as_ref().map_or(0, |identity| identity.key.principal.len() as u64 + 5000);
    if bytes > limit {
        return Err(invalid("writes", format!("the append takes {bytes} bytes, at most {limit} are allowed")));
    }
    if append.identity.is_some() && append.sequenced.is_some() {
        return Err(invalid("sequenced", "an append has a request id or a sequence, not both".into()));
    }
    if append.sequenced.is_some() && writes.is_empty() && !conditions.is_empty() {
        return Err(invalid("writes", "a unit of a producer that has preconditions writes something".into()));
    }
    if append.identity.as_ref().is_some_and(|identity| identity.key.principal.len() > MAX_PRINCIPAL) {
        return Err(invalid("identity", format!("the principal has more than {MAX_PRINCIPAL} bytes")));
    }
    if writes.is_empty() && conditions.is_empty() && append.identity.is_none() && append.sequenced.is_none() {
        return Err(invalid("writes", "the append holds nothing".into()));
    }
    let (identity, purpose) = (append.identity, append.purpose);
    let request = Request { writes, conditions, identity, switch: None, producer: None, bytes, durability, purpose, reply };
    match append.sequenced {
        Some(unit) => request.of_producer(ProducerStep::Unit(unit)),
        None => Ok(request),
    }
}

/// A request to open a producer.
pub(crate) fn prepare_open(
    key: ProducerKey,
    resume: Option<ProducerEpoch>,
    stands: Arc<OnceLock<ProducerAt>>,
    reply: oneshot::Sender<Result<Appended, LogError>>,
) -> Result<Request, LogError> {
    Request::empty(0, Purpose::Data, reply).of_producer(ProducerStep::Open { key, resume, stands })
}

fn prepare_stream(
    entry: &TopicEntry,
    stream: StreamId,
    events: &[crate::record::NewEvent],
    hasher: &StreamHasher,
) -> Result<PreparedWrite, LogError> {
    require_events(entry, "streams are written to topics of kind events")?;
    if events.is_empty() {
        return Err(invalid("events", format!("no event is given for stream {stream}")));
    }
    let bytes = events.iter().map(|event| event.data.len() + stream.as_str().len() + EVENT_OVERHEAD).sum();
    let mut records = Encoded::with_capacity(events.len(), bytes);
    let mut poster = Poster::new(hasher, entry.topic.id);
    for (place, event) in (0..).zip(events) {
        records.push_event(&stream, event)?;
        poster.post(place, &event.kind, event.tags.iter().map(Tag::as_str));
    }
    let name = stream.as_str().as_bytes();
    let partition = Arc::clone(entry.partition_for(name));
    let key = StreamKey::of(hasher, &partition, name);
    Ok(PreparedWrite {
        partition,
        records,
        stream: Some(WriteStream { key, id: Some(stream) }),
        marking: None,
        event: None,
        postings: poster.finish(),
    })
}

fn prepare_mark(
    entry: &TopicEntry,
    stream: &StreamId,
    marking: Marking,
    with: MarkWith<'_>,
    by: &str,
    hasher: &StreamHasher,
) -> Result<PreparedWrite, LogError> {
    require_events(entry, NO_STREAMS)?;
    if let Marking::Change(StreamChange::Truncate { before: version }) | Marking::Snapshot(version) = marking
        && version < StreamVersion::FIRST
    {
        return Err(invalid("version", "versions begin at 1".into()));
    }
    if by.len() > MAX_BY {
        return Err(invalid("by", format!("a name of {} bytes, at most {MAX_BY} are allowed", by.len())));
    }
    let name = stream.as_str().as_bytes();
    let mut write = mark_of(Arc::clone(entry.partition_for(name)), name, marking, with, by, hasher)?;
    if let Some(of) = &mut write.stream {
        of.id = Some(stream.clone());
    }
    Ok(write)
}

/// A mark of a stream, or of a partition, by name.
fn mark_of(
    partition: Arc<Partition>,
    name: &[u8],
    marking: Marking,
    with: MarkWith<'_>,
    by: &str,
    hasher: &StreamHasher,
) -> Result<PreparedWrite, LogError> {
    let mut records = Encoded::default();
    records.push_mark(name, Mark::new(marking, StreamVersion::default()), by, with)?;
    let key = StreamKey::of(hasher, &partition, name);
    let stream = Some(WriteStream { key, id: None });
    Ok(PreparedWrite { partition, records, stream, marking: Some(marking), event: None, postings: Vec::new() })
}

/// Refuses a redaction that cannot be meant.
///
/// # Errors
/// [`LogError::Invalid`].
pub(crate) fn check_redaction(versions: &[StreamVersion], by: &str, reason: &str) -> Result<(), LogError> {
    let mut seen: Vec<_> = versions.to_vec();
    seen.sort_unstable();
    let is_twice = seen.windows(2).any(|pair| pair[0] == pair[1]);
    match seen.first() {
        None => Err(invalid("versions", "no event is named".into())),
        Some(first) if *first < StreamVersion::FIRST => Err(invalid("versions", "versions begin at 1".into())),
        _ if is_twice => Err(invalid("versions", "a version is named twice".into())),
        _ if by.is_empty() => Err(invalid("by", "a redaction says who wants it".into())),
        _ if by.len() > MAX_BY => Err(invalid("by", format!("a name of {} bytes, at most {MAX_BY} are allowed", by.len()))),
        _ if reason.len() > MAX_REASON => Err(invalid("reason", format!("{} bytes, at most {MAX_REASON} are allowed", reason.len()))),
        _ => Ok(()),
    }
}

/// A stream that is marked is not written to in the same unit, so that a unit need not be judged write by write; but several of its events may
/// be redacted.
fn check_marked(writes: &[PreparedWrite]) -> Result<(), LogError> {
    if writes.iter().all(|write| write.marking.is_none()) {
        return Ok(());
    }
    let mut streams: Vec<_> = writes.iter().filter_map(|write| Some((write.stream.as_ref()?, write.marking))).collect();
    streams.sort_unstable_by_key(|(stream, _)| stream.key);
    let goes_along = |one, other| matches!((one, other), (None, None) | (Some(Marking::Redaction(_)), Some(Marking::Redaction(_))));
    match streams.windows(2).find(|pair| pair[0].0.key == pair[1].0.key && !goes_along(pair[0].1, pair[1].1)) {
        Some(pair) => {
            let stream = pair[0].0.id.as_ref().map_or("", StreamId::as_str);
            let reason = format!("stream {stream} is truncated, deleted, redacted or put a snapshot of and written to in one append");
            Err(invalid("writes", reason))
        }
        None => Ok(()),
    }
}

/// Records that go to different partitions become several writes, so that positions follow the order given.
fn prepare_records(
    entry: &TopicEntry,
    fixed: Option<&Arc<Partition>>,
    records: &[NewRecord],
    writes: &mut Vec<PreparedWrite>,
) -> Result<(), LogError> {
    let wrong = |reason| LogError::WrongKind { topic: entry.topic.name.clone(), kind: entry.topic.settings.kind.as_str(), reason };
    let kind = entry.topic.settings.kind;
    if kind == TopicKind::Events {
        return Err(wrong("plain records cannot be written to it; append events to a stream"));
    }
    if records.is_empty() {
        return Err(invalid("records", format!("no record is given for topic {}", entry.topic.name)));
    }
    let first = writes.len();
    for record in records {
        if kind == TopicKind::Table && record.key.is_none() {
            return Err(wrong("each of its records needs a key"));
        }
        let partition = fixed.unwrap_or_else(|| match &record.key {
            Some(key) => entry.partition_for(key),
            None => &entry.partitions[0],
        });
        match writes[first..].last_mut() {
            Some(last) if last.partition.index == partition.index => last.records.push_record(record)?,
            _ => {
                let mut encoded = Encoded::default();
                encoded.push_record(record)?;
                writes.push(PreparedWrite {
                    partition: Arc::clone(partition),
                    records: encoded,
                    stream: None,
                    marking: None,
                    event: None,
                    postings: Vec::new(),
                });
            }
        }
    }
    Ok(())
}

pub(crate) fn require_events(entry: &TopicEntry, reason: &'static str) -> Result<(), LogError> {
    let kind = entry.topic.settings.kind;
    if kind == TopicKind::Events {
        return Ok(());
    }
    Err(LogError::WrongKind { topic: entry.topic.name.clone(), kind: kind.as_str(), reason })
}

fn invalid(field: &str, reason: String) -> LogError {
    LogError::Invalid { field: field.into(), reason }
}

/// Remembers the topic last looked up: an append mostly names one.
struct Cached<'a> {
    store: &'a TopicStore,
    last: Option<Arc<TopicEntry>>,
}

impl Cached<'_> {
    fn get(&mut self, name: &TopicName) -> Result<Arc<TopicEntry>, LogError> {
        if let Some(last) = self.last.as_ref().filter(|last| last.topic.name == *name) {
            return Ok(Arc::clone(last));
        }
        let entry = self.store.get(name)?;
        self.last = Some(Arc::clone(&entry));
        Ok(entry)
    }
}
