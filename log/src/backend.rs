//! Seam: what a log is, whoever keeps it. `testing::conformance` holds every implementation to it.
//!
//! The contract in short: an append is atomic whatever it touches; a reply means as durable as it says; readers see the durable
//! prefix and never part of a unit; an offset or position, once shown, means the same record for ever.

use std::{collections::VecDeque, future::Future, path::Path, pin::Pin, sync::Arc};

use tokio::sync::watch;

use crate::{
    backup::BackupReport,
    compaction::CompactionState,
    error::LogError,
    holds::Holder,
    ids::{FolderId, Offset, Position, ProducerEpoch, StreamHead, StreamId, StreamVersion, Timestamp, TopicName},
    life::StreamState,
    record::{Append, Appended, Chunk, EventQuery, ProducerAt, ProducerKey, ReadLimits, Selection, StoredSnapshot},
    redaction::Redacting,
    server_time::ClockState,
    topic::{Topic, TopicChanges, TopicSettings},
};

/// How far something reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Span {
    /// Within one partition.
    Partition,
    /// Within one topic.
    Topic,
    /// Across all topics of the folder.
    Folder,
}

/// What a backend can do; a request that needs more is refused by name, never weakened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// How far one append is atomic.
    pub atomic_span: Span,
    /// How far preconditions may reach.
    pub condition_span: Span,
    /// Whether offsets have no holes before compaction.
    pub dense_offsets: bool,
    /// Whether there are positions.
    pub commit_order: bool,
    /// Whether the server stamps records with times that never step back, so that a time is a place in the log.
    pub server_time: bool,
    /// Whether topics may have a retention.
    pub removal: bool,
    /// Whether topics of kind `table` lose what a newer record of the same key replaced.
    pub compaction: bool,
    /// Whether data of events can be redacted.
    pub erasure: bool,
    /// How many of a producer's newest units are remembered: so many may be sent again.
    pub producer_units: u32,
    /// Most bytes of one append, as it is encoded.
    pub append_bytes: u64,
    /// Most records of one append.
    pub append_records: u64,
}

/// The end of a log, captured at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The data folder.
    pub folder: FolderId,
    /// Epoch of the folder; a restore changes it.
    pub epoch: u32,
    /// Next position to become durable: everything below it is readable.
    pub position: Position,
}

/// Ends with the append's answer when everything it rests on is as durable as it says. Dropping it cancels nothing.
pub type AppendFuture = Pin<Box<dyn Future<Output = Result<Appended, LogError>> + Send>>;

/// Ends when what a producer was told is durable.
pub type ProducerFuture = Pin<Box<dyn Future<Output = Result<ProducerAt, LogError>> + Send>>;

/// A durable, partitioned, totally ordered log of units. Cheap to share; all calls may come from any thread.
pub trait LogBackend: Send + Sync + 'static {
    /// What this backend can do.
    fn capabilities(&self) -> Capabilities;

    /// Creates a topic, durably, before it returns (blocking). Creating it again with the same settings is no error.
    ///
    /// # Errors
    /// [`LogError::TopicExists`] with other settings, [`LogError::Invalid`] for settings out of range.
    fn create_topic(&self, name: TopicName, settings: TopicSettings) -> Result<Arc<Topic>, LogError>;

    /// Alters a topic, durably, before it returns (blocking); goes on from the next append, copy or removal. What was read before may say
    /// how it was.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::Invalid`] for what cannot be altered, or not to this.
    fn alter_topic(&self, name: &TopicName, changes: TopicChanges) -> Result<Arc<Topic>, LogError>;

    /// Deletes a topic, durably, before it returns (blocking): nobody finds it any more, its records are part of nothing that is read, and
    /// who reads it is told [`LogError::UnknownTopic`]. What it takes on disk comes back when nobody reads it any more. Another one may be
    /// created under its name at once, with another id.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`]; [`LogError::TopicInUse`] while somebody holds it.
    fn delete_topic(&self, name: &TopicName) -> Result<(), LogError>;

    /// Looks a topic up.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`].
    fn topic(&self, name: &TopicName) -> Result<Arc<Topic>, LogError>;

    /// All topics by name, foldlog's own included.
    fn topics(&self) -> Vec<Arc<Topic>>;

    /// Puts an append in line. Order is fixed by this call; durability is what the future awaits. Where that takes no longer than
    /// to hand it to another thread, it may be durable on return. With a query condition or a [`StreamChange`](crate::life::StreamChange) it may touch files
    /// (blocking).
    ///
    /// # Errors
    /// At once: a malformed append, an unknown topic, a full queue. Through the future: verdicts of admission
    /// ([`LogError::Conflict`], [`LogError::Tombstoned`], [`LogError::TruncatedBeyondEnd`], [`LogError::NoSuchState`],
    /// [`LogError::RequestIdReused`], [`LogError::OutOfWindow`]; of a producer's unit [`LogError::OutOfOrderSequence`],
    /// [`LogError::ProducerFenced`], [`LogError::UnknownProducer`], [`LogError::OutcomeForgotten`],
    /// [`LogError::RefusedBefore`]), full disk, and
    /// [`LogError::Unknown`] when the log stopped.
    fn append(&self, append: Append) -> Result<AppendFuture, LogError>;

    /// Takes appends from the front and puts them in line behind each other, each a unit of its own, up to the first that is
    /// malformed: it is taken as well, what is behind it stays.
    ///
    /// # Errors
    /// When appends are not taken at all at the moment; then none was.
    fn append_all(&self, appends: &mut VecDeque<Append>) -> Result<Vec<Result<AppendFuture, LogError>>, LogError>;

    /// Begins an epoch of a producer, which ends those before it, wherever they are used; with `resume` goes on with that epoch,
    /// if it is still the newest. Sequences go on over epochs.
    ///
    /// # Errors
    /// Through the future, for one that goes on: [`LogError::ProducerFenced`], [`LogError::UnknownProducer`]. Those of
    /// [`LogBackend::append`] that no append is spared.
    fn open_producer(&self, key: ProducerKey, resume: Option<ProducerEpoch>) -> Result<ProducerFuture, LogError>;

    /// The durable end.
    fn head(&self) -> Head;

    /// How the time that the server stamps records with stands to its wall clock; none if that is not the backend's own.
    fn clock(&self) -> Option<ClockState> {
        None
    }

    /// Believes a wall clock that is not followed because it is over an hour off: the time goes there, or waits for it. Answers as
    /// [`LogBackend::clock`] does afterwards.
    fn confirm_clock(&self) -> Option<ClockState> {
        None
    }

    /// Writes everything that is durable into a folder that is new, within one that is there, or empty, or holds a backup of this log, of
    /// which it takes over what has not changed (blocking). None where a backup is not the backend's own.
    ///
    /// # Errors
    /// [`LogError::Invalid`] for another folder, [`LogError::Locked`] while a backup is written to it; [`LogError::ReadOnly`],
    /// [`LogError::PartitionReadOnly`] and [`LogError::Corrupt`] if not everything can be read; [`LogError::Stopping`];
    /// [`LogError::Io`] and [`LogError::DiskFull`], of which the log itself takes no harm.
    fn back_up(&self, to: &Path) -> Option<Result<BackupReport, LogError>> {
        let _ = to;
        None
    }

    /// Wakes whenever the durable end moves; it never moves back. Closed when the log has stopped.
    fn durable(&self) -> watch::Receiver<Position>;

    /// Next offset to become readable, by partition.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`].
    fn ends(&self, topic: &TopicName) -> Result<Vec<Offset>, LogError>;

    /// Oldest offset left, by partition; the end where nothing is.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`].
    fn firsts(&self, topic: &TopicName) -> Result<Vec<Offset>, LogError>;

    /// Refuses a selection if records at its place or behind it were removed: whoever goes on there would miss them. A reader from
    /// such a place is given what is left.
    ///
    /// # Errors
    /// [`LogError::Removed`] with the position from which on nothing is missing; [`LogError::OffsetOutOfRange`] with the oldest offset.
    /// Those of a topic that does not exist.
    fn whole_from(&self, selection: &Selection) -> Result<(), LogError>;

    /// Keeps what a topic has at `from` and behind it from being removed until `owner` lets go of it, in place of what that held
    /// of it before. What was removed by then is gone. May wait for a removal that is under way (blocking).
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`].
    fn hold(&self, owner: &str, topic: &TopicName, from: Position) -> Result<(), LogError>;

    /// Lets go of everything that `owner` holds. May wait as [`LogBackend::hold`] does.
    fn release(&self, owner: &str);

    /// Who holds a topic, by owner.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`].
    fn holders(&self, topic: &TopicName) -> Result<Vec<Holder>, LogError>;

    /// How compaction stands, by partition, and in a topic of kind `events` the removal of what streams let go, where they have; empty for other topics.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`].
    fn compaction(&self, topic: &TopicName) -> Result<Vec<CompactionState>, LogError> {
        self.topic(topic).map(|_| Vec::new())
    }

    /// Has compaction stop, or go on where it stopped. Not remembered over a restart; nothing where nothing is compacted.
    fn pause_compaction(&self, _is_paused: bool) {}

    /// Whether compaction was told to stop.
    fn is_compaction_paused(&self) -> bool {
        false
    }

    /// What is left to be done of redactions of a topic's events, or of a stream's: until nothing is, their bytes lie in files. Nothing
    /// where that is done in the same step.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`]; for a stream [`LogError::WrongKind`].
    fn redacting(&self, topic: &TopicName, _stream: Option<&StreamId>) -> Result<Redacting, LogError> {
        self.topic(topic).map(|_| Redacting::default())
    }

    /// Wakes whenever redactions were completed.
    fn redacted(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    /// Where a stream stands in the durable log, and where it begins. May read an index on disk (blocking).
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::WrongKind`].
    fn stream_state(&self, topic: &TopicName, stream: &StreamId) -> Result<StreamState, LogError>;

    /// Where a stream stands: [`LogBackend::stream_state`] without its beginning.
    ///
    /// # Errors
    /// As there.
    fn stream_head(&self, topic: &TopicName, stream: &StreamId) -> Result<StreamHead, LogError> {
        Ok(self.stream_state(topic, stream)?.head)
    }

    /// The newest snapshot of a stream as of a version or before, if there is any. May read files (blocking).
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::WrongKind`], [`LogError::Corrupt`], [`LogError::Io`].
    fn snapshot(&self, topic: &TopicName, stream: &StreamId, at_most: StreamVersion) -> Result<Option<StoredSnapshot>, LogError>;

    /// Opens a reader; its start is checked against what exists.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::UnknownPartition`], [`LogError::OffsetOutOfRange`],
    /// [`LogError::PositionOutOfRange`], [`LogError::WrongKind`]. An offset below the oldest left is out of range; a position is not,
    /// see [`LogBackend::whole_from`]. A stream that does not exist is empty; starting one past its end is no error. One whose first
    /// events are gone begins behind them, and [`Chunk::beginning`] says so.
    fn reader(&self, selection: Selection) -> Result<Box<dyn LogReader>, LogError>;

    /// Opens a reader that goes backwards from the place of `selection` (exclusive), newest first, down to the first record
    /// there is.
    ///
    /// # Errors
    /// As [`LogBackend::reader`].
    fn backward_reader(&self, selection: Selection) -> Result<Box<dyn LogReader>, LogError>;

    /// Opens a reader of those events of `selection` that `query` means, which are found without reading through what lies between. Records
    /// that are no events are left out. Where nothing matches for long, [`LogReader::read`] returns an empty chunk whose `scanned_to` says
    /// how far it has come.
    ///
    /// # Errors
    /// As [`LogBackend::reader`]; [`LogError::WrongKind`] for a topic without events, [`LogError::Invalid`] for a query that cannot be
    /// meant.
    fn filtered_reader(&self, selection: Selection, query: EventQuery) -> Result<Box<dyn LogReader>, LogError>;

    /// The same backwards, as [`LogBackend::backward_reader`].
    ///
    /// # Errors
    /// As [`LogBackend::filtered_reader`].
    fn filtered_backward_reader(&self, selection: Selection, query: EventQuery) -> Result<Box<dyn LogReader>, LogError>;

    /// `selection` with another place: that of its first record which the server recorded at `time` or later, or the durable
    /// end if there is none. Forwards from there everything is as new, backwards everything is older. The time that producers give their
    /// events plays no part: it is in no order. May read an index on disk (blocking).
    ///
    /// # Errors
    /// As [`LogBackend::reader`], but for the place, which is not looked at; [`LogError::Corrupt`] if damage may hold that
    /// record, [`LogError::Invalid`] without [`Capabilities::server_time`].
    fn at_time(&self, selection: Selection, time: Timestamp) -> Result<Selection, LogError>;
}

/// Reads a selection once, forwards or backwards.
pub trait LogReader: Send {
    /// Returns the next runs below `until` (exclusive), at least one record if there is one; an empty chunk, with
    /// `scanned_to` at `until` (backwards: at 0), when nothing is left below it. A filtered reader may also return an empty chunk before, with
    /// `scanned_to` further on each time. Blocks on files unless [`LogReader::in_memory`].
    ///
    /// `until` must be a durable end that was captured; reading to the same one again is cheap.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`] or [`LogError::Removed`] if what comes next was removed since the reader was opened;
    /// backwards that is the end. [`LogError::Corrupt`] with file and byte range; [`LogError::Io`].
    fn read(&mut self, until: Position, limits: ReadLimits) -> Result<Chunk, LogError>;

    /// Whether the next call of `read` touches no file, so that an async task may make it in place.
    fn in_memory(&self) -> bool;
}
