//! Everything that can go wrong in the log, in words for the person who must act.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    ids::{
        FolderId, InvalidName, Offset, PartitionId, Position, ProducerEpoch, ProducerId, RequestId, Sequence, StreamHead, StreamId,
        StreamVersion, TopicName,
    },
    life::Refusal,
    record::Violation,
};

/// Error of the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A name was malformed.
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// An append or a setting breaks a rule that needs no look at the log.
    #[error("{field}: {reason}")]
    Invalid {
        /// Which part of the request.
        field: String,
        /// The rule.
        reason: String,
    },
    /// No topic of that name.
    #[error("topic {topic} does not exist; create it first: foldlog topic create {topic}")]
    UnknownTopic {
        /// The name.
        topic: TopicName,
    },
    /// A topic of that name exists with other settings.
    #[error("topic {topic} exists already, with {difference}")]
    TopicExists {
        /// The name.
        topic: TopicName,
        /// How it differs from what was asked.
        difference: String,
    },
    /// Somebody needs the topic; it was not deleted.
    #[error("topic {topic} is in use by {}; drop these first, then it can be deleted", owners.join(", "))]
    TopicInUse {
        /// The name.
        topic: TopicName,
        /// Who: queries, and what is made of it.
        owners: Vec<String>,
    },
    /// The partition does not exist.
    #[error("topic {topic} has {partitions} partitions, there is no partition {partition}")]
    UnknownPartition {
        /// The topic.
        topic: TopicName,
        /// What was asked for.
        partition: PartitionId,
        /// How many there are.
        partitions: u32,
    },
    /// What was asked does not fit the topic's kind.
    #[error("topic {topic} is of kind {kind}: {reason}")]
    WrongKind {
        /// The topic.
        topic: TopicName,
        /// Its kind.
        kind: &'static str,
        /// Why it does not fit.
        reason: &'static str,
    },
    /// Preconditions did not hold; nothing was written.
    #[error("{} of the append's preconditions did not hold: {}; read again and retry", violations.len(), list(violations))]
    Conflict {
        /// Every one that did not hold.
        violations: Vec<Violation>,
        /// Everything the verdict rests on lies below this position (exclusive) and is durable.
        seen: Position,
    },
    /// The stream was ended for good; nothing was written.
    #[error("stream {stream} of topic {topic} is tombstoned: nothing is appended to it any more")]
    Tombstoned {
        /// The topic.
        topic: TopicName,
        /// The stream.
        stream: StreamId,
    },
    /// A truncation beyond the end of a stream; nothing was written.
    #[error("stream {stream} is {actual}; it cannot be truncated before version {before}, which is more than the next one")]
    TruncatedBeyondEnd {
        /// The stream.
        stream: StreamId,
        /// What was asked for.
        before: StreamVersion,
        /// Where it stands.
        actual: StreamHead,
    },
    /// A snapshot of a state that a stream never had, or had before it was deleted; nothing was written.
    #[error("stream {stream} is {actual}; it has no state as of version {version} of which there could be a snapshot")]
    NoSuchState {
        /// The stream.
        stream: StreamId,
        /// What the snapshot is as of.
        version: StreamVersion,
        /// Where it stands.
        actual: StreamHead,
    },
    /// A redaction of an event that a stream does not have; nothing was written.
    #[error("stream {stream} is {actual}; it has no event with version {version} whose data could be redacted")]
    NoSuchEvent {
        /// The stream.
        stream: StreamId,
        /// What was to be redacted.
        version: StreamVersion,
        /// Where it stands.
        actual: StreamHead,
    },
    /// The request id was used for something else.
    #[error("request id {id} was used before for another request, committed at position {first}; use a new id")]
    RequestIdReused {
        /// The id.
        id: RequestId,
        /// First position of the request that used it.
        first: Position,
    },
    /// Too late to tell whether this is a repeat.
    #[error(
        "request {id} was first attempted below the window of remembered requests, which begins at position {low_mark}; whether it took effect can be read from the log alone"
    )]
    OutOfWindow {
        /// The id.
        id: RequestId,
        /// Where the window begins.
        low_mark: Position,
    },
    /// The producer has begun a later epoch, here or in another process.
    #[error("epoch {epoch} of producer {producer} is over, epoch {newest} has begun; whoever began it goes on")]
    ProducerFenced {
        /// The producer.
        producer: ProducerId,
        /// The epoch that asked.
        epoch: ProducerEpoch,
        /// The one that counts.
        newest: ProducerEpoch,
    },
    /// Nothing is remembered of the producer; whether its units took effect can be read from the log alone.
    #[error(
        "producer {producer} is not known: it never was, or did nothing for a day, or made room for others; whether its last units took effect can be read from the log alone"
    )]
    UnknownProducer {
        /// The producer.
        producer: ProducerId,
    },
    /// A unit does not follow on the one before; its sequence stays free.
    #[error("unit {sequence} of the producer is out of order: unit {next} comes next")]
    OutOfOrderSequence {
        /// Its sequence.
        sequence: Sequence,
        /// The one that comes next.
        next: Sequence,
    },
    /// A unit was judged so long ago that the answer is not remembered.
    #[error("unit {sequence} of the producer was judged before, and its answer is not remembered any more: unit {next} comes next")]
    OutcomeForgotten {
        /// Its sequence.
        sequence: Sequence,
        /// The one that comes next.
        next: Sequence,
    },
    /// The first answer to a unit was that it is refused; why is not remembered.
    #[error("unit {sequence} of the producer was refused before, when it came first; nothing was written")]
    RefusedBefore {
        /// Its sequence.
        sequence: Sequence,
    },
    /// A read from before the first or after the last record.
    #[error("offset {asked} of topic {topic} partition {partition} is out of range: it holds {first} up to {end} (exclusive)")]
    OffsetOutOfRange {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionId,
        /// What was asked for.
        asked: Offset,
        /// Oldest offset left.
        first: Offset,
        /// Next offset to be written.
        end: Offset,
    },
    /// A position beyond the end of the log.
    #[error("position {asked} is beyond the end of the log, {end}")]
    PositionOutOfRange {
        /// What was asked for.
        asked: Position,
        /// Next position to be given.
        end: Position,
    },
    /// A position that a restore took away, or that nobody was ever given.
    #[error(
        "position {asked} is not of this log any more: what lay from {from} on was taken away by a restore, and positions go on at {next}"
    )]
    PositionLost {
        /// What was asked for.
        asked: Position,
        /// The first that was taken away.
        from: Position,
        /// The first given since.
        next: Position,
    },
    /// Records that a read would go on with were removed.
    #[error(
        "records at position {asked} or behind it were removed as their topics' retention allows; from position {first} on nothing is missing"
    )]
    Removed {
        /// Where it would go on.
        asked: Position,
        /// From where on nothing of what it selects was removed.
        first: Position,
    },
    /// A queue or budget is full; nothing was written.
    #[error("the log is overloaded: {what}; retry later")]
    Overloaded {
        /// What is full.
        what: &'static str,
    },
    /// No space is left below the reserve; nothing was written.
    #[error("no space is left for the data folder: {what}")]
    DiskFull {
        /// What could not be allocated.
        what: String,
    },
    /// The log is stopping; nothing was written.
    #[error("the log is shutting down")]
    Stopping,
    /// The log stopped with this append under way.
    #[error("the log stopped while this append was under way; whether it took effect is unknown: retry with the same request id")]
    Unknown,
    /// Bytes are not what their checksum promised.
    #[error("damage in {file}, bytes {from} to {end}: {what}", file = file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// First byte of the damage.
        from: u64,
        /// End of the damage (exclusive).
        end: u64,
        /// What is wrong and what it affects.
        what: String,
    },
    /// The partition can be read only because of damage to its segments; others go on. Nothing was written.
    #[error("topic {topic} partition {partition} is read-only: {reason}")]
    PartitionReadOnly {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionId,
        /// The report of the damage.
        reason: String,
    },
    /// The folder is read-only because of damage.
    #[error("the log is read-only: {reason}")]
    ReadOnly {
        /// The report of the damage.
        reason: String,
    },
    /// A file or folder was written by another version.
    #[error("{file} has format {found}, this build reads {supported}; open it with the foldlog that wrote it", file = file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// What we read.
        supported: u32,
    },
    /// Another process holds the folder.
    #[error("data folder {folder} is in use by {owner}", folder = folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// Who holds it, as far as known.
        owner: String,
    },
    /// A token of another folder.
    #[error("this token belongs to another data folder ({0})")]
    ForeignToken(FolderId),
    /// A sync does not end. What waits for it is unknown, and the process must go.
    #[error("a sync of {path} has not ended for {:.1} s: the disk stalls", took.as_secs_f64(), path = path.display())]
    Stalled {
        /// The file or folder.
        path: PathBuf,
        /// How long it has been under way.
        took: Duration,
    },
    /// A file operation failed.
    #[error("failed to {doing} {path}", path = path.display())]
    Io {
        /// What was being done ("sync the journal").
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(|violation| violation.found.to_string()).collect::<Vec<_>>().join("; ")
}

impl LogError {
    /// The error with its causes, on one line.
    pub(crate) fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }

    /// Why a stream takes no such write.
    pub(crate) fn refused(refusal: Refusal, topic: &TopicName, stream: &StreamId, actual: StreamHead) -> Self {
        let stream = stream.clone();
        match refusal {
            Refusal::Tombstoned => Self::Tombstoned { topic: topic.clone(), stream },
            Refusal::BeyondEnd(before) => Self::TruncatedBeyondEnd { stream, before, actual },
            Refusal::NoSuchState(version) => Self::NoSuchState { stream, version, actual },
            Refusal::NoSuchEvent(version) => Self::NoSuchEvent { stream, version, actual },
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source }
    }

    /// A failed allocation is no space left, if that is what the system says.
    pub(crate) fn full_or_io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::StorageFull {
            return Self::DiskFull { what: format!("failed to {doing} {}", path.display()) };
        }
        Self::io(doing, path, source)
    }
}
