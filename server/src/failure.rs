//! Every error that a door can show, classified once: what kind it is, a stable reason, and whether the request may have
//! taken effect. Each door translates a [`Failure`] in one file of its own.
//!
//! No arm here is `_`: a new error of the log or the query layer does not compile until someone says what it means.

use std::time::Duration;

use foldlog_log::{Found, InvalidName, LogError, Position, Violation};
use foldlog_query::{Place, QueryError};

/// What a caller can do about it, in the terms that every protocol has a code for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is wrong, whatever the state of the server.
    Invalid,
    /// What is named does not exist.
    NotFound,
    /// What is to be made exists, or the id was used.
    Exists,
    /// A belief about the state did not hold: read again and retry.
    Conflict,
    /// The state forbids it until someone changes the state.
    Precondition,
    /// Outside of what exists.
    OutOfRange,
    /// A queue, quota or budget is full; nothing happened.
    Exhausted,
    /// Not now; nothing happened.
    Unavailable,
    /// The time was over; nothing happened.
    Timeout,
    /// Not for the one who asks.
    Denied,
    /// We do not do this.
    Unsupported,
    /// Stored bytes are damaged.
    Corrupt,
    /// It may or may not have taken effect.
    Unknown,
    /// A fault of ours.
    Internal,
}

/// An error as doors show it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind.
    pub kind: Kind,
    /// Stable name of the reason, `UPPER_SNAKE`.
    pub reason: &'static str,
    /// For the person who must act. Never contains a payload.
    pub message: String,
    /// More for programs.
    pub detail: Detail,
}

/// The typed part of a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Nothing more.
    #[default]
    None,
    /// Which field of the request is wrong.
    Field(String),
    /// Which preconditions did not hold, and up to where the log was seen (exclusive).
    Violations(Vec<Violation>, Position),
    /// A position that helps: where to resume, or how far we are.
    Position(Position),
    /// When a retry makes sense.
    RetryAfter(Duration),
}

const SOON: Detail = Detail::RetryAfter(Duration::from_millis(100));
const LATER: Detail = Detail::RetryAfter(Duration::from_secs(1));

impl Failure {
    /// A failure without detail.
    pub fn new(kind: Kind, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, reason, message: message.into(), detail: Detail::None }
    }

    /// A field of the request breaks a rule.
    pub fn invalid(field: impl Into<String>, rule: impl std::fmt::Display) -> Self {
        Self::field("INVALID_REQUEST", field, rule)
    }

    /// A field of the request breaks a rule that has a reason of its own.
    pub fn field(reason: &'static str, field: impl Into<String>, rule: impl std::fmt::Display) -> Self {
        let field = field.into();
        Self { kind: Kind::Invalid, reason, message: format!("{field}: {rule}"), detail: Detail::Field(field) }
    }

    /// A name that could not be parsed.
    pub fn name(field: impl Into<String>, error: &InvalidName) -> Self {
        Self { kind: Kind::Invalid, reason: "INVALID_NAME", message: error.to_string(), detail: Detail::Field(field.into()) }
    }

    /// The server still recovers its log.
    pub fn not_ready() -> Self {
        Self::new(Kind::Unavailable, "NOT_READY", "the server is recovering its log; retry later").with(LATER)
    }

    /// The server is going down.
    pub fn draining() -> Self {
        Self::new(Kind::Unavailable, "DRAINING", "the server is shutting down").with(LATER)
    }

    /// `at_least` was not reached in time; carries the end that was.
    pub fn token_wait_timeout(wanted: Position, at: Position) -> Self {
        let message = format!("the log ends at position {at}, the token asks for {wanted}, and the time for waiting is over");
        Self::new(Kind::Timeout, "TOKEN_WAIT_TIMEOUT", message).with(Detail::Position(at))
    }

    /// The client took nothing for too long.
    pub fn slow_reader(at: Position) -> Self {
        let message = format!("the reader took nothing for too long; everything below position {at} was sent, resume there");
        Self::new(Kind::Exhausted, "SLOW_READER", message).with(Detail::Position(at))
    }

    /// The same failure with a detail.
    #[must_use]
    pub fn with(mut self, detail: Detail) -> Self {
        self.detail = detail;
        self
    }

    /// Whether the request may have taken effect all the same.
    #[must_use]
    pub const fn may_have_happened(&self) -> bool {
        matches!(self.kind, Kind::Unknown | Kind::Internal)
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        let message = chain(&error);
        let plain = |kind, reason| Self::new(kind, reason, message.clone());
        match error {
            LogError::InvalidName(name) => Self::name(name.what, &name),
            LogError::Invalid { field, reason: _ } => plain(Kind::Invalid, "INVALID_REQUEST").with(Detail::Field(field)),
            LogError::UnknownTopic { .. } => plain(Kind::NotFound, "TOPIC_NOT_FOUND"),
            LogError::TopicInUse { .. } => plain(Kind::Precondition, "IN_USE"),
            LogError::TopicExists { .. } => plain(Kind::Exists, "TOPIC_EXISTS"),
            LogError::UnknownPartition { .. } => plain(Kind::NotFound, "PARTITION_NOT_FOUND"),
            LogError::WrongKind { .. } => plain(Kind::Precondition, "TOPIC_KIND_MISMATCH"),
            LogError::Conflict { violations, seen } => {
                let of_stream = violations.iter().any(|violation| matches!(violation.found, Found::Stream { .. }));
                let reason = if of_stream { "STREAM_VERSION_CONFLICT" } else { "QUERY_CONDITION_FAILED" };
                plain(Kind::Conflict, reason).with(Detail::Violations(violations, seen))
            }
            LogError::Tombstoned { .. } => plain(Kind::Precondition, "STREAM_TOMBSTONED"),
            LogError::RequestIdReused { first, .. } => plain(Kind::Exists, "REQUEST_ID_REUSED").with(Detail::Position(first)),
            LogError::OutOfWindow { low_mark, .. } => plain(Kind::Precondition, "OUT_OF_WINDOW").with(Detail::Position(low_mark)),
            LogError::ProducerFenced { .. } => plain(Kind::Precondition, "PRODUCER_FENCED"),
            LogError::UnknownProducer { .. } => plain(Kind::NotFound, "UNKNOWN_PRODUCER"),
            LogError::OutOfOrderSequence { .. } => plain(Kind::Precondition, "OUT_OF_ORDER_SEQUENCE"),
            LogError::OutcomeForgotten { .. } => plain(Kind::Precondition, "OUT_OF_WINDOW"),
            LogError::RefusedBefore { .. } => plain(Kind::Conflict, "REFUSED_BEFORE"),
            LogError::OffsetOutOfRange { .. }
            | LogError::PositionOutOfRange { .. }
            | LogError::PositionLost { .. }
            | LogError::TruncatedBeyondEnd { .. }
            | LogError::NoSuchState { .. }
            | LogError::NoSuchEvent { .. } => plain(Kind::OutOfRange, "OUT_OF_RANGE"),
            LogError::Removed { first, .. } => plain(Kind::OutOfRange, "OUT_OF_RANGE").with(Detail::Position(first)),
            LogError::Overloaded { .. } => plain(Kind::Exhausted, "OVERLOADED").with(SOON),
            LogError::DiskFull { .. } => plain(Kind::Exhausted, "DISK_FULL").with(LATER),
            LogError::Stopping => plain(Kind::Unavailable, "DRAINING").with(LATER),
            LogError::Unknown => plain(Kind::Unknown, "OUTCOME_UNKNOWN"),
            LogError::Corrupt { .. } => plain(Kind::Corrupt, "LOG_CORRUPT"),
            LogError::ReadOnly { .. } => plain(Kind::Precondition, "LOG_READ_ONLY"),
            LogError::PartitionReadOnly { .. } => plain(Kind::Precondition, "PARTITION_READ_ONLY"),
            LogError::Format { .. } => plain(Kind::Precondition, "FORMAT_NOT_SUPPORTED"),
            LogError::Locked { .. } => plain(Kind::Precondition, "FOLDER_IN_USE"),
            LogError::ForeignToken(_) => plain(Kind::Invalid, "FOREIGN_TOKEN"),
            LogError::Stalled { .. } | LogError::Io { .. } => plain(Kind::Internal, "STORAGE_FAILED"),
        }
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        let message = chain(&error);
        let plain = |kind, reason| Self::new(kind, reason, message.clone());
        match error {
            QueryError::Syntax { place, message: _ } => plain(Kind::Invalid, "SQL_SYNTAX").with(at(place)),
            QueryError::TooComplex(_) => plain(Kind::Invalid, "SQL_TOO_COMPLEX"),
            QueryError::Invalid(_) => plain(Kind::Invalid, "SQL_INVALID"),
            QueryError::Unknown { place: Some(place), .. } => plain(Kind::NotFound, "NAME_NOT_FOUND").with(at(place)),
            QueryError::Unknown { place: None, .. } => plain(Kind::NotFound, "NAME_NOT_FOUND"),
            QueryError::At { place, error } => Self::from(*error).with(at(place)),
            QueryError::Asserted(_) => plain(Kind::Precondition, "ASSERTION_FAILED"),
            QueryError::Exists { .. } => plain(Kind::Exists, "NAME_EXISTS"),
            QueryError::InUse { .. } => plain(Kind::Precondition, "IN_USE"),
            QueryError::Unsupported(_) => plain(Kind::Unsupported, "SQL_UNSUPPORTED"),
            QueryError::Timeout { .. } => plain(Kind::Timeout, "QUERY_TIMEOUT"),
            QueryError::NotYet { at, .. } => plain(Kind::Timeout, "TOKEN_WAIT_TIMEOUT").with(Detail::Position(at)),
            QueryError::NotAligned { .. } => plain(Kind::Unavailable, "NOT_ALIGNED").with(LATER),
            QueryError::SnapshotTooOld { at } => plain(Kind::Conflict, "SNAPSHOT_TOO_OLD").with(Detail::Position(at)),
            QueryError::Folding { .. } => plain(Kind::Unavailable, "FOLDING").with(LATER),
            QueryError::ResourceExhausted(_) => plain(Kind::Exhausted, "QUERY_BUDGET"),
            QueryError::TopicRecreated { .. } => plain(Kind::Precondition, "TOPIC_RECREATED"),
            QueryError::SlowReader { at } => plain(Kind::Exhausted, "SLOW_READER").with(Detail::Position(at)),
            QueryError::Stopping => plain(Kind::Unavailable, "DRAINING").with(LATER),
            QueryError::Log(log) => log.into(),
            QueryError::Execution(_) => plain(Kind::Internal, "QUERY_FAILED"),
        }
    }
}

/// A place in the statement.
fn at(place: Place) -> Detail {
    Detail::Field(format!("sql:{}:{}", place.line, place.column))
}

/// The error and its causes, each once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.ends_with(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{io, path::PathBuf};

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error = LogError::Io {
            doing: "sync the journal",
            path: PathBuf::from("j"),
            source: io::Error::new(io::ErrorKind::StorageFull, "no space"),
        };
        let failure = Failure::from(QueryError::Log(error));
        assert_eq!(failure.message, "failed to sync the journal j: no space");
        assert_eq!((failure.kind, failure.reason), (Kind::Internal, "STORAGE_FAILED"));
    }

    #[test]
    fn only_unknown_and_internal_leave_the_outcome_open() {
        assert!(Failure::from(LogError::Unknown).may_have_happened());
        assert!(!Failure::from(LogError::Stopping).may_have_happened());
        assert!(!Failure::from(LogError::Overloaded { what: "the queue" }).may_have_happened());
    }
}
