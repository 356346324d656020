//! What goes into the log and what comes out of it.
//!
//! In: an [`Append`], one unit of writes and beliefs. Out: [`Appended`], and [`Run`]s of records that lie together on disk
//! and are looked at in place, without copying.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use crate::{
    batch::{EventView, RecordView},
    durability::Durability,
    error::LogError,
    ids::{
        EventId, Expected, Offset, PartitionId, Position, ProducerEpoch, ProducerId, RequestId, Sequence, StreamHead, StreamId,
        StreamVersion, Tag, Timestamp, TopicName,
    },
    life::{Beginning, StreamChange},
    topic::{Topic, TopicKind},
};

/// An event before it has a place. Its stream stands in the [`Write`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewEvent {
    /// Type, as the domain calls it ("Deposited"); 1 to 255 bytes.
    pub kind: Arc<str>,
    /// Payload.
    pub data: Bytes,
    /// Media type of the payload; none means `application/json`.
    pub content_type: Option<Arc<str>>,
    /// Id given by the producer.
    pub event_id: Option<EventId>,
    /// Id shared by everything that follows from one cause.
    pub correlation_id: Option<Bytes>,
    /// Id of what caused this event.
    pub causation_id: Option<Bytes>,
    /// Name of the payload's schema.
    pub schema: Option<Arc<str>>,
    /// What conditions and reads find it by, in the order given; unique, at most [`NewEvent::MAX_TAGS`].
    pub tags: Vec<Tag>,
    /// Further attributes, in the order given; keys are unique and lower case. W3C `traceparent` and `tracestate` lie here too.
    pub attributes: Vec<(Arc<str>, Arc<str>)>,
    /// When it happened; none means the server's time.
    pub time: Option<Timestamp>,
}

impl NewEvent {
    /// Most tags of one event.
    pub const MAX_TAGS: usize = 64;
}

/// A plain record before it has a place, for topics of kind `records` and `table`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// Key; required in a `table` topic.
    pub key: Option<Bytes>,
    /// Value; none is a tombstone in a `table` topic.
    pub value: Option<Bytes>,
    /// Headers, in the order given; a name may come twice.
    pub headers: Vec<(Arc<str>, Option<Bytes>)>,
    /// When it happened; none means the server's time.
    pub time: Option<Timestamp>,
}

/// Records for one stream or one partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Events of one stream of an `events` topic; the stream's name decides the partition ([`PartitionId::for_key`]).
    Stream {
        /// Topic of kind `events`.
        topic: TopicName,
        /// The stream they join.
        stream: StreamId,
        /// At least one, in order.
        events: Vec<NewEvent>,
    },
    /// Records of a `records` or `table` topic.
    Records {
        /// Topic of kind `records` or `table`.
        topic: TopicName,
        /// Where they go; none: each key's hash decides ([`PartitionId::for_key`]), and those without a key go to one partition.
        partition: Option<PartitionId>,
        /// At least one, in order.
        records: Vec<NewRecord>,
    },
    /// A change of a stream's life. The unit must not write to the stream otherwise. Where it changes nothing, nothing is written.
    Change {
        /// Topic of kind `events`.
        topic: TopicName,
        /// The stream.
        stream: StreamId,
        /// What becomes of it.
        change: StreamChange,
        /// Who wants it, for the record; up to 255 bytes.
        by: Arc<str>,
    },
    /// A snapshot of a stream's state, for whoever folds it. The unit must not write to the stream otherwise.
    Snapshot {
        /// Topic of kind `events`.
        topic: TopicName,
        /// The stream.
        stream: StreamId,
        /// The snapshot; it replaces one as of the same version.
        snapshot: Snapshot,
        /// Who put it, for the record; up to 255 bytes.
        by: Arc<str>,
    },
    /// Redacts the data of events that a stream has, also of one that is deleted or tombstoned: from its answer on they are read without
    /// data and without all that was given with it but type, tags and time ([`EventView::is_redacted`]), and snapshots of the stream are gone.
    /// Their bytes go afterwards ([`LogBackend::redacting`](crate::LogBackend::redacting)). The unit must not write to the stream otherwise.
    /// Redacting what is redacted is no error.
    Redact {
        /// Topic of kind `events`.
        topic: TopicName,
        /// The stream.
        stream: StreamId,
        /// Versions of the events; at least one, each once.
        versions: Vec<StreamVersion>,
        /// Who wants it, for the record; 1 to 255 bytes.
        by: Arc<str>,
        /// Why, for the record; up to 1,024 bytes.
        reason: Arc<str>,
    },
}

/// A state that somebody folded from the events of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Version of the last event that was folded.
    pub version: StreamVersion,
    /// Name of its schema, so that a reader can ignore one it does not know.
    pub schema: Option<Arc<str>>,
    /// Media type; none means `application/json`.
    pub content_type: Option<Arc<str>>,
    /// The state.
    pub data: Bytes,
}

/// A snapshot as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// What was put.
    pub snapshot: Snapshot,
    /// Position of the snapshot.
    pub position: Position,
    /// The server's time when it was put.
    pub recorded_at: Timestamp,
}

/// One belief, checked in the same step as the append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// A stream stands where it should.
    Stream {
        /// Topic of kind `events`.
        topic: TopicName,
        /// The stream; it need not be written to.
        stream: StreamId,
        /// Where it should stand.
        expected: Expected,
    },
    /// No event matches a query.
    QueryAbsent(QueryAbsent),
}

/// The belief that no event matches a query, or none since the appender read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryAbsent {
    /// Which topics are meant.
    pub scope: Scope,
    /// Which events there must not be.
    pub query: EventQuery,
    /// Events up to this position (inclusive) do not count; none: all do.
    pub after: Option<Position>,
}

/// Which topics of kind `events` something is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// These; at least one.
    Topics(Vec<TopicName>),
    /// All but foldlog's own, also those created later.
    Everything,
}

/// Which events are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventQuery {
    /// Every event.
    All,
    /// Those that match any of these; at least one.
    Items(Vec<QueryItem>),
}

/// Events of some types with some tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryItem {
    /// The event has one of these types; none: whatever its type.
    pub types: Vec<Arc<str>>,
    /// And each of these tags.
    pub tags: Vec<Tag>,
}

impl EventQuery {
    /// Whether an event is meant.
    #[must_use]
    pub fn matches(&self, event: &EventView<'_>) -> bool {
        let Self::Items(items) = self else { return true };
        let has = |wanted: &Tag| event.tags().any(|tag| tag == wanted.as_str());
        items.iter().any(|item| {
            let is_of_type = item.types.is_empty() || item.types.iter().any(|kind| **kind == *event.kind);
            is_of_type && item.tags.iter().all(has)
        })
    }

    /// Combinations of type and tag that it asks for.
    pub(crate) fn combinations(&self) -> usize {
        let Self::Items(items) = self else { return 1 };
        items.iter().map(|item| item.types.len().max(1).saturating_mul(item.tags.len().max(1))).fold(0, usize::saturating_add)
    }

    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// [`LogError::Invalid`].
    pub(crate) fn check(&self) -> Result<(), LogError> {
        let invalid = |reason: &str| Err(LogError::Invalid { field: "query".into(), reason: reason.into() });
        let Self::Items(items) = self else { return Ok(()) };
        if items.is_empty() {
            return invalid("it has no item, so that no event can match it");
        }
        if items.iter().flat_map(|item| &item.types).any(|kind| !(1..=255).contains(&kind.len())) {
            return invalid("an event's type has 1 to 255 bytes");
        }
        Ok(())
    }
}

/// Who asks, and under which id a repeat is recognised.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// Who asks; one principal's ids mean nothing to another's.
    pub principal: Arc<str>,
    /// The id.
    pub id: RequestId,
}

/// A request that is to take effect once, however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Under which a repeat is recognised.
    pub key: RequestKey,
    /// Digest of what is asked; the same key with another digest is refused.
    pub digest: u128,
    /// The position that the caller's first attempt carried, if it sent one: an unknown id with a position below the window's
    /// low mark is answered [`LogError::OutOfWindow`].
    pub first_attempt: Option<Position>,
}

/// Who appends in numbered order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProducerKey {
    /// Who asks; one principal's producers mean nothing to another's.
    pub principal: Arc<str>,
    /// The producer.
    pub id: ProducerId,
}

/// Which unit of a producer an append is. Units are taken one by one: a repeat gets the first answer, one that does not come next
/// is refused. A unit whose preconditions do not hold takes its sequence too, and so does one without writes and preconditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequenced {
    /// The producer.
    pub key: ProducerKey,
    /// Its epoch, as [`LogBackend::open_producer`](crate::LogBackend::open_producer) said.
    pub epoch: ProducerEpoch,
    /// Its number.
    pub sequence: Sequence,
}

/// Where a producer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerAt {
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// The sequence that comes next.
    pub next: Sequence,
}

/// What an append is for, which says how far it may go when the disk is nearly full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// It adds something: it is refused at the reserve.
    #[default]
    Data,
    /// It keeps things going or takes them away, in a few bytes: drops, deletes, places of consumers. It goes on to a quarter of the reserve.
    Upkeep,
}

/// One unit: all of it is readable after any crash, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Append {
    /// What is written; positions follow this order.
    pub writes: Vec<Write>,
    /// All must hold, else nothing is written and every violated one is reported.
    pub preconditions: Vec<Precondition>,
    /// None: no promise about repeats.
    pub identity: Option<Identity>,
    /// Which unit of a producer it is; instead of an identity.
    pub sequenced: Option<Sequenced>,
    /// How durable it must be when answered; none: as durable as the strongest of the topics written.
    pub durability: Option<Durability>,
    /// What it is for.
    pub purpose: Purpose,
}

/// A precondition that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Place in [`Append::preconditions`].
    pub index: usize,
    /// What is so instead.
    pub found: Found,
}

/// What is so where a precondition did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A stream stands elsewhere.
    Stream {
        /// The stream.
        stream: StreamId,
        /// What was expected.
        expected: Expected,
        /// Where the stream stands.
        actual: StreamHead,
    },
    /// An event matches the query.
    Event {
        /// Position of the first one that does.
        first: Position,
    },
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream { stream, expected, actual } => write!(f, "stream {stream} is {actual}, expected {expected}"),
            Self::Event { first } => write!(f, "the event at position {first} matches a query that none was to match"),
        }
    }
}

/// Where the records of one partition went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendedRange {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionId,
    /// Offset of the first record.
    pub first: Offset,
    /// Offset of the last record (inclusive).
    pub last: Offset,
}

/// Where a stream stands after an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamAt {
    /// The topic.
    pub topic: TopicName,
    /// The stream.
    pub stream: StreamId,
    /// Version of its newest event.
    pub version: StreamVersion,
}

/// The answer to an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Position of the first record (or where it would be, if there is none).
    pub first: Position,
    /// Position after the last record (exclusive): whoever has applied everything below it sees this append.
    pub end: Position,
    /// One range for each partition written, in the order first written.
    pub ranges: Vec<AppendedRange>,
    /// Each stream written, in the order first written.
    pub versions: Vec<StreamAt>,
    /// The server's time.
    pub recorded_at: Timestamp,
    /// Whether this answers a repeat, from the window.
    pub deduplicated: bool,
    /// How durable it is. Synced also means readable; what is only written becomes readable when it is synced. A repeat
    /// is answered when it is synced, whatever it asks for.
    pub durability: Durability,
}

/// Records of one partition that are contiguous in offset and in position and lie in one stored batch.
///
/// Cheap to clone: it shares the batch's bytes.
#[derive(Clone, Debug)]
pub struct Run {
    /// The topic.
    pub topic: Arc<Topic>,
    /// The partition.
    pub partition: PartitionId,
    /// Offset of the first record.
    pub first_offset: Offset,
    /// Position of the first record.
    pub first_position: Position,
    /// Number of records, at least 1.
    pub count: u32,
    /// The server's time when they were committed.
    pub recorded_at: Timestamp,
    /// The records as stored, header of the batch included (decompressed): see `log/FORMAT.md`, "Batches".
    pub batch: Bytes,
    /// Byte place of the first record's length within `batch`.
    pub start: u32,
}

impl Run {
    /// The records, in order. A record's offset and position are the run's first plus its place.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] where bytes are not what the checksum promised; then the iteration ends.
    pub fn records(&self) -> impl Iterator<Item = Result<RecordView<'_>, LogError>> {
        crate::batch::records_of(self)
    }

    /// Position after the last record (exclusive).
    #[must_use]
    pub const fn end_position(&self) -> Position {
        self.first_position.plus(self.count as u64)
    }

    /// Part of it: `count` records from the one `skip` records in. Both together must not exceed [`Run::count`].
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when the batch cannot be followed that far.
    pub fn part(&self, skip: u32, count: u32) -> Result<Self, LogError> {
        let start = crate::batch::skip(&self.batch, self.start, skip).map_err(|flaw| crate::batch::corrupt(self, flaw))?;
        let (first_offset, first_position) = (self.first_offset.plus(skip.into()), self.first_position.plus(skip.into()));
        Ok(Self { first_offset, first_position, count, start, ..self.clone() })
    }

    /// The parts of it whose events a query means, in order. Looks at headers alone.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] where a record cannot be read.
    fn matching(&self, query: &EventQuery) -> Result<Vec<Self>, LogError> {
        let mut parts: Vec<Self> = Vec::new();
        if self.topic.settings.kind != TopicKind::Events {
            return Ok(parts);
        }
        // Where the next record is whose place is not known yet.
        let (mut place, mut start) = (0, self.start);
        for (at, record) in (0..).zip(self.records()) {
            let record = record?;
            if !record.event().is_some_and(|event| query.matches(&event)) {
                continue;
            }
            if let Some(last) = parts.last_mut().filter(|last| last.end_position() == record.position) {
                last.count += 1;
                continue;
            }
            start = crate::batch::skip(&self.batch, start, at - place).map_err(|flaw| crate::batch::corrupt(self, flaw))?;
            place = at;
            let (first_offset, first_position) = (record.offset, record.position);
            parts.push(Self { first_offset, first_position, count: 1, start, ..self.clone() });
        }
        Ok(parts)
    }
}

/// What a reader returns at once.
///
/// Marks ([`Write::Change`]) are passed over: they take offsets and positions, and no reader returns them.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// In the selection's order: by offset or version within one partition or stream, by position across several. A reader that
    /// goes backwards returns the newest run first; the records of a run are in ascending order all the same.
    pub runs: Vec<Run>,
    /// Everything selected below this position (exclusive) has now been returned; backwards: everything from it (inclusive) on.
    pub scanned_to: Position,
    /// Of a stream whose first events are gone: where it begins.
    pub beginning: Option<Beginning>,
}

impl Chunk {
    /// What of it a query means.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] where a record cannot be read.
    pub(crate) fn matching(self, query: &EventQuery, is_backward: bool) -> Result<Self, LogError> {
        let mut runs = Vec::new();
        for run in &self.runs {
            let mut parts = run.matching(query)?;
            if is_backward {
                parts.reverse();
            }
            runs.append(&mut parts);
        }
        Ok(Self { runs, ..self })
    }
}

/// Which records, and the place where a reader begins: forwards with the record there, backwards with the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// One partition by offset.
    Partition(TopicName, PartitionId, Offset),
    /// One stream by version.
    Stream(TopicName, StreamId, StreamVersion),
    /// Several topics, merged in position order.
    Topics(Vec<TopicName>, Position),
    /// Every topic but foldlog's own, also those created later, merged in position order.
    All(Position),
}

/// How much one call of a reader may return; the first run comes whatever its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// Most records; runs are cut to fit.
    pub records: u32,
    /// Most bytes of stored batches.
    pub bytes: u32,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { records: 8192, bytes: 1 << 20 }
    }
}
