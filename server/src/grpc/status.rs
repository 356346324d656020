//! [`Failure`] to `google.rpc.Status`: the code, `ErrorInfo` first, then the typed detail.
//!
//! Trailers are bounded (many clients take 8 to 16 KiB), so message and details are cut; `ErrorInfo` says how many violations there are.

use std::collections::HashMap;

use foldlog_log::{Expected, Found, StreamHead, StreamVersion, Violation};
use foldlog_proto::v1 as pb;
use prost::Message as _;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb as rpc;

use crate::{
    failure::{Detail, Failure, Kind},
    token::Tokens,
};

const DOMAIN: &str = "foldlog";
const MESSAGE_BYTES: usize = 1024;
const DETAIL_BYTES: usize = 3 * 1024;

/// Translates a failure; positions become tokens where the folder is known.
pub fn status(failure: Failure, tokens: Option<&Tokens>) -> Status {
    let code = code(failure.kind);
    let mut metadata = HashMap::new();
    metadata.insert("outcome".to_owned(), if failure.may_have_happened() { "unknown" } else { "failed" }.to_owned());
    let mut typed = Vec::new();
    match &failure.detail {
        Detail::None => {}
        Detail::Field(field) => {
            let violation = rpc::bad_request::FieldViolation {
                field: cut(field, 256),
                description: cut(&failure.message, 512),
                reason: failure.reason.to_owned(),
                ..Default::default()
            };
            typed.push(any("google.rpc.BadRequest", &rpc::BadRequest { field_violations: vec![violation] }));
        }
        Detail::Violations(violations, seen) => {
            metadata.insert("violations".to_owned(), violations.len().to_string());
            let token = tokens.map(|t| t.make(*seen)).unwrap_or_default();
            typed.push(any("foldlog.v1.PreconditionViolations", &within_bounds(violations, token)));
        }
        Detail::Position(position) => {
            metadata.insert("position".to_owned(), position.to_string());
        }
        Detail::RetryAfter(delay) => {
            let retry_delay = prost_types::Duration::try_from(*delay).ok();
            typed.push(any("google.rpc.RetryInfo", &rpc::RetryInfo { retry_delay }));
        }
    }
    let info = rpc::ErrorInfo { reason: failure.reason.to_owned(), domain: DOMAIN.to_owned(), metadata };
    let mut details = vec![any("google.rpc.ErrorInfo", &info)];
    details.append(&mut typed);
    let message = cut(&failure.message, MESSAGE_BYTES);
    let encoded = rpc::Status { code: code.into(), message: message.clone(), details }.encode_to_vec();
    Status::with_details(code, message, encoded.into())
}

const fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Exists => Code::AlreadyExists,
        Kind::Conflict => Code::Aborted,
        Kind::Precondition => Code::FailedPrecondition,
        Kind::OutOfRange => Code::OutOfRange,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Unavailable => Code::Unavailable,
        Kind::Timeout => Code::DeadlineExceeded,
        Kind::Denied => Code::PermissionDenied,
        Kind::Unsupported => Code::Unimplemented,
        Kind::Corrupt => Code::DataLoss,
        Kind::Unknown => Code::Unknown,
        Kind::Internal => Code::Internal,
    }
}

fn any(name: &str, message: &impl prost::Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}

fn within_bounds(violations: &[Violation], token: prost::bytes::Bytes) -> pb::PreconditionViolations {
    let mut message = pb::PreconditionViolations { violations: Vec::new(), token };
    let mut bytes = message.encoded_len();
    for violation in violations {
        let next = violation_of(violation);
        bytes += next.encoded_len() + 4;
        if bytes > DETAIL_BYTES && !message.violations.is_empty() {
            break;
        }
        message.violations.push(next);
    }
    message
}

fn violation_of(violation: &Violation) -> pb::PreconditionViolation {
    use pb::stream_state::{Absent, Any, Deleted, Exists, Expect};
    let index = u32::try_from(violation.index).unwrap_or(u32::MAX);
    let (stream, expected, actual) = match &violation.found {
        Found::Stream { stream, expected, actual } => (stream, *expected, *actual),
        Found::Event { first } => {
            return pb::PreconditionViolation { index, first_conflicting_position: Some(first.get()), ..Default::default() };
        }
    };
    let expect = match expected {
        Expected::Any => Expect::Any(Any {}),
        Expected::Absent => Expect::Absent(Absent {}),
        Expected::Exists => Expect::Exists(Exists {}),
        Expected::Version(version) => Expect::Version(version.get()),
        Expected::Deleted => Expect::Deleted(Deleted {}),
    };
    pb::PreconditionViolation {
        index,
        expected: Some(pb::StreamState { stream: stream.to_string(), expect: Some(expect), topic: String::new() }),
        actual_version: actual.version().map(StreamVersion::get),
        first_conflicting_position: None,
        actual_deleted: matches!(actual, StreamHead::Deleted(_)),
        actual_tombstoned: actual == StreamHead::Tombstoned,
    }
}

fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes.saturating_sub(3));
    format!("{}...", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use foldlog_log::Position;

    use super::*;

    #[test]
    fn error_info_comes_first_and_violations_stay_within_bounds() {
        let stream = "s".repeat(200).parse::<foldlog_log::StreamId>().unwrap();
        let violation = |index| Violation {
            index,
            found: Found::Stream {
                stream: stream.clone(),
                expected: Expected::Version(StreamVersion::new(4)),
                actual: StreamHead::At(StreamVersion::new(5)),
            },
        };
        let error = foldlog_log::LogError::Conflict { violations: (0..5000).map(violation).collect(), seen: Position::new(9) };
        let status = status(error.into(), None);
        assert_eq!(status.code(), Code::Aborted);
        assert!(status.message().len() <= MESSAGE_BYTES && status.details().len() < 6 * 1024);
        let decoded = rpc::Status::decode(status.details()).unwrap();
        let info = rpc::ErrorInfo::decode(&*decoded.details[0].value).unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("STREAM_VERSION_CONFLICT", "foldlog"));
        assert_eq!(info.metadata["violations"], "5000");
        assert_eq!(info.metadata["outcome"], "failed");
        let first = &pb::PreconditionViolations::decode(&*decoded.details[1].value).unwrap().violations[0];
        assert_eq!((first.index, first.actual_version), (0, Some(5)));
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("aééé", 6), "aé...");
        assert_eq!(cut("abc", 3), "abc");
    }
}
