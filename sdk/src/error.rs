//! What can go wrong between a program and a server, and what it means for what was asked.
//!
//! Every error is in one of two classes: [`Class::Failed`], it is not and never will be in the log, or [`Class::Unknown`], it may
//! be. Only a request with an id may be sent again after the second.

use std::{collections::HashMap, error::Error as StdError, fmt, sync::Arc, time::Duration};

use foldlog_proto::v1;
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    codec::CodecError,
    event::{Expected, Token},
};

/// What an error says about what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It did not and never will take effect.
    Failed,
    /// It may have taken effect; asking again under the same request id tells.
    Unknown,
}

/// Error of the client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection; nothing was sent.
    #[error("foldlog at {url} cannot be reached")]
    Unreachable {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Preconditions of an append did not hold; nothing was written.
    #[error("{message}")]
    Conflict {
        /// In the server's words.
        message: String,
        /// Every precondition that did not hold.
        violations: Vec<Violation>,
        /// What the verdict rests on can be read with it.
        token: Option<Token>,
    },
    /// The server refused or failed.
    #[error("{}", .0.message)]
    Server(Box<ServerError>),
    /// The session ended before the unit was answered.
    #[error("the session ended before unit {sequence} was answered; whether it took effect is unknown")]
    SessionEnded {
        /// The unit's sequence.
        sequence: u64,
        /// Why.
        #[source]
        source: Arc<Error>,
    },
    /// The time for an answer is over.
    #[error("no answer within {} ms; whether it took effect is unknown", limit.as_millis())]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// What was asked cannot be sent: the reason says what to change.
    #[error("{0}")]
    Invalid(String),
    /// An event or row is not what the program expects.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The server's answer is not understood; client and server are of different versions.
    #[error("the server's answer is not understood: {0}")]
    Protocol(String),
}

/// The server refused or failed.
#[derive(Debug)]
pub struct ServerError {
    /// Stable name of the reason (`TOPIC_NOT_FOUND`); empty where no foldlog answered.
    pub reason: String,
    /// In words.
    pub message: String,
    /// The gRPC code.
    pub code: Code,
    /// What belongs to the reason, by name.
    pub details: HashMap<String, String>,
    /// Which part of the request is wrong, if the server says so: a field's path, or `sql:line:column`.
    pub field: Option<String>,
    /// When to try again, if the server says so.
    pub retry_after: Option<Duration>,
    /// Whether a foldlog said so, and not something between it and us.
    told_by_server: bool,
}

/// A precondition that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Place among the append's preconditions.
    pub index: usize,
    /// The topic; of a query the first that was named.
    pub topic: String,
    /// The stream; empty for a query.
    pub stream: String,
    /// What was expected; anything for a query.
    pub expected: Expected,
    /// Version of the newest event that the stream was ever given; none if it has none, or is tombstoned.
    pub actual: Option<u64>,
    /// Whether the stream was deleted, and nothing was appended since.
    pub deleted: bool,
    /// Whether the stream was ended for good.
    pub tombstoned: bool,
    /// Position of the first event that matches a query; none if a stream was expected elsewhere.
    pub first_conflicting_position: Option<u64>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(first) = self.first_conflicting_position {
            return write!(f, "the event at position {first} matches a query that none was to match");
        }
        write!(f, "stream {} is ", self.stream)?;
        match self.actual {
            Some(version) if self.deleted => write!(f, "deleted at version {version}")?,
            Some(version) => write!(f, "at version {version}")?,
            None if self.tombstoned => f.write_str("tombstoned")?,
            None => f.write_str("absent")?,
        }
        write!(f, ", expected {}", self.expected)
    }
}

/// Name of the detail that lists the preconditions that did not hold.
const VIOLATIONS_TYPE: &str = "type.googleapis.com/foldlog.v1.PreconditionViolations";

impl Error {
    /// What the error says about what was asked.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Unreachable { .. } | Self::Conflict { .. } | Self::Invalid(_) | Self::Codec(_) => Class::Failed,
            Self::SessionEnded { .. } | Self::Timeout { .. } | Self::Protocol(_) => Class::Unknown,
            Self::Server(error) => error.class(),
        }
    }

    /// Whether the same request may well succeed a moment later, as far as its class lets it be sent again.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Server(error) => {
                matches!(error.code, Code::Unavailable)
                    || (error.code == Code::ResourceExhausted && error.retry_after.is_some())
                    || (!error.told_by_server && error.class() == Class::Unknown)
                    || error.reason == OUTCOME_UNKNOWN
            }
            Self::Conflict { .. }
            | Self::SessionEnded { .. }
            | Self::Timeout { .. }
            | Self::Invalid(_)
            | Self::Codec(_)
            | Self::Protocol(_) => false,
        }
    }

    /// The gRPC code, if a server or something before it answered.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Server(error) => Some(error.code),
            Self::Conflict { .. } => Some(Code::Aborted),
            Self::SessionEnded { source, .. } => source.code(),
            _ => None,
        }
    }

    /// The stable name of the reason, if a foldlog gave one.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Server(error) if !error.reason.is_empty() => Some(&error.reason),
            Self::Conflict { violations, .. } if violations.iter().all(|one| one.first_conflicting_position.is_some()) => {
                Some("QUERY_CONDITION_FAILED")
            }
            Self::Conflict { .. } => Some("STREAM_VERSION_CONFLICT"),
            Self::SessionEnded { source, .. } => source.reason(),
            _ => None,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Server(error) => error.retry_after,
            _ => None,
        }
    }

    /// What a status means. `url` names the server for the case that it was not reached.
    pub(crate) fn from_status(status: Status, url: &str) -> Self {
        if was_never_sent(&status) {
            return Self::Unreachable { url: url.to_owned(), source: Box::new(Broken(status)) };
        }
        if let Some((violations, token)) = violations(&status) {
            return Self::Conflict { message: status.message().to_owned(), violations, token };
        }
        let info = status.get_details_error_info().filter(|info| info.domain == "foldlog");
        let retry_after = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let bad_field = status.get_details_bad_request().and_then(|bad| bad.field_violations.into_iter().next());
        let told_by_server = info.is_some();
        let (reason, details) = info.map(|info| (info.reason, info.metadata)).unwrap_or_default();
        let message = match status.message() {
            // A connection that ended under the call: what the layers below call that helps nobody.
            _ if !told_by_server && StdError::source(&status).is_some() => {
                format!("the connection to foldlog at {url} was lost: {}", Broken(status.clone()))
            }
            "" => format!("the call failed: {}", status.code().description()),
            message => message.to_owned(),
        };
        Self::Server(Box::new(ServerError {
            reason,
            message,
            code: status.code(),
            details,
            field: bad_field.map(|violation| violation.field),
            retry_after,
            told_by_server,
        }))
    }
}

/// A status that tells of a connection, as what was at its bottom.
#[derive(Debug)]
struct Broken(Status);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bottom = match StdError::source(&self.0) {
            Some(cause) => cause,
            None => return f.write_str(self.0.message()),
        };
        while let Some(cause) = bottom.source() {
            bottom = cause;
        }
        write!(f, "{bottom}")
    }
}

impl StdError for Broken {}

/// Name of the detail in which a server says whether the request may have taken effect.
const OUTCOME: &str = "outcome";

/// Reason under which a server says that it does not know either.
const OUTCOME_UNKNOWN: &str = "OUTCOME_UNKNOWN";

impl ServerError {
    /// What the server says about the outcome, else each code in one of the classes.
    fn class(&self) -> Class {
        match self.details.get(OUTCOME).map(String::as_str) {
            Some("failed") => return Class::Failed,
            Some("unknown") => return Class::Unknown,
            _ => {}
        }
        match self.code {
            Code::Ok
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated => Class::Failed,
            Code::Unavailable | Code::Cancelled | Code::Unknown | Code::DeadlineExceeded | Code::Internal | Code::DataLoss => {
                Class::Unknown
            }
        }
    }
}

/// Whether a status tells of a connection that was not made.
fn was_never_sent(status: &Status) -> bool {
    let mut cause = StdError::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn violations(status: &Status) -> Option<(Vec<Violation>, Option<Token>)> {
    if status.code() != Code::Aborted {
        return None;
    }
    let details = tonic_types::pb::Status::decode(status.details()).ok()?.details;
    let detail = details.into_iter().find(|detail| detail.type_url == VIOLATIONS_TYPE)?;
    let told = v1::PreconditionViolations::decode(detail.value.as_slice()).ok()?;
    let token = (!told.token.is_empty()).then(|| Token::from_bytes(told.token));
    Some((told.violations.into_iter().map(Violation::from_proto).collect(), token))
}

impl Violation {
    fn from_proto(violation: v1::PreconditionViolation) -> Self {
        let state = violation.expected.unwrap_or_default();
        Self {
            index: violation.index as usize,
            expected: Expected::from_proto(state.expect),
            topic: state.topic,
            stream: state.stream,
            actual: violation.actual_version,
            deleted: violation.actual_deleted,
            tombstoned: violation.actual_tombstoned,
            first_conflicting_position: violation.first_conflicting_position,
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    fn told(code: Code, reason: &str, outcome: &str) -> Error {
        let metadata = HashMap::from([(OUTCOME.to_owned(), outcome.to_owned())]);
        let details = ErrorDetails::with_error_info(reason, "foldlog", metadata);
        Error::from_status(Status::with_error_details(code, "no", details), "http://x")
    }

    #[test]
    fn a_code_from_foldlog_is_failed_and_a_broken_connection_is_unknown() {
        assert_eq!(told(Code::NotFound, "TOPIC_NOT_FOUND", "failed").class(), Class::Failed);
        assert_eq!(told(Code::Unavailable, "NOT_READY", "failed").class(), Class::Failed);
        assert!(told(Code::Unavailable, "NOT_READY", "failed").is_transient());
        assert!(!told(Code::NotFound, "TOPIC_NOT_FOUND", "failed").is_transient());
        let broken = Error::from_status(Status::unavailable("connection reset"), "http://x");
        assert_eq!(broken.class(), Class::Unknown);
        assert!(broken.is_transient());
    }

    #[test]
    fn a_server_that_does_not_know_is_unknown_whatever_the_code() {
        for code in [Code::Unavailable, Code::Aborted, Code::Unknown] {
            let error = told(code, OUTCOME_UNKNOWN, "unknown");
            assert_eq!(error.class(), Class::Unknown);
            assert!(error.is_transient());
        }
    }

    #[test]
    fn a_conflict_lists_every_violation() {
        let state = v1::StreamState { stream: "s".into(), topic: "t".into(), expect: Some(v1::stream_state::Expect::Version(3)) };
        let violation =
            v1::PreconditionViolation { index: 1, expected: Some(state), actual_version: Some(4), ..v1::PreconditionViolation::default() };
        let detail = v1::PreconditionViolations { violations: vec![violation], token: vec![7].into() };
        let any = tonic_types::pb::Status {
            code: Code::Aborted as i32,
            message: "no".into(),
            details: vec![prost_types::Any { type_url: VIOLATIONS_TYPE.into(), value: detail.encode_to_vec() }],
        };
        let status = Status::with_details(Code::Aborted, "no", any.encode_to_vec().into());
        let Error::Conflict { violations, token, .. } = Error::from_status(status, "http://x") else { panic!("a conflict") };
        assert_eq!(token, Some(Token::from_bytes(vec![7].into())));
        let expected = Violation {
            index: 1,
            topic: "t".into(),
            stream: "s".into(),
            expected: Expected::Version(3),
            actual: Some(4),
            deleted: false,
            tombstoned: false,
            first_conflicting_position: None,
        };
        assert_eq!(violations, [expected]);
        assert_eq!(violations[0].to_string(), "stream s is at version 4, expected version 3");
    }

    #[test]
    fn details_that_are_garbage_do_not_hurt() {
        let status = Status::with_details(Code::Aborted, "no", vec![0xff; 9].into());
        assert_eq!(Error::from_status(status, "http://x").code(), Some(Code::Aborted));
    }
}
