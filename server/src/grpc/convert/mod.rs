//! Messages of `foldlog.v1` to the log's own types and back. Malformed input ends here, and nowhere deeper.
//!
//! Here is what many messages have: names, times, durations, levels of durability.

mod append;
mod change;
mod condition;
mod settings;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use foldlog_log::{Durability, StreamId, Timestamp, TopicName};
use foldlog_proto::v1 as pb;
use prost_types::Timestamp as ProtoTimestamp;

pub use append::{TRACEPARENT, TRACESTATE, append, appended, producer, unit};
pub use change::{beginning, redaction, snapshot};
pub use condition::{event_query, proto_query};
pub use settings::{compaction, compaction_changes, proto_topic, retention};

use crate::failure::Failure;

/// Everyone, until there are principals.
const ANONYMOUS: &str = "";
/// 9999-12-31T23:59:59.999Z, the last time that every client can show.
const LAST_TIME_MS: i64 = 253_402_300_799_999;
/// 0001-01-01T00:00:00Z.
const FIRST_TIME_MS: i64 = -62_135_596_800_000;

/// Topic names of one request: a name that comes again is parsed once.
struct Topics<'a> {
    default: &'a str,
    last: Option<TopicName>,
}

impl<'a> Topics<'a> {
    const fn new(default: &'a str) -> Self {
        Self { default, last: None }
    }

    fn named(&mut self, given: &str, field: impl Fn() -> String) -> Result<TopicName, Failure> {
        let name = if given.is_empty() { self.default } else { given };
        if let Some(last) = self.last.as_ref().filter(|last| last.as_str() == name) {
            return Ok(last.clone());
        }
        let topic = user_topic(name, field)?;
        self.last = Some(topic.clone());
        Ok(topic)
    }
}

/// A topic that users may write to.
pub fn user_topic(name: &str, field: impl Fn() -> String) -> Result<TopicName, Failure> {
    let topic = topic(name, &field)?;
    if topic.is_system() {
        return Err(Failure::field("RESERVED_NAME", field(), "topics named _foldlog.* belong to foldlog itself"));
    }
    Ok(topic)
}

/// Any topic.
pub fn topic(name: &str, field: impl Fn() -> String) -> Result<TopicName, Failure> {
    name.parse().map_err(|error| Failure::name(field(), &error))
}

/// Any stream.
pub fn stream(name: &str, field: impl Fn() -> String) -> Result<StreamId, Failure> {
    name.parse().map_err(|error| Failure::name(field(), &error))
}

/// How durable an answer must be; none: as the topic says.
pub fn durability(given: i32) -> Result<Option<Durability>, Failure> {
    match pb::Durability::try_from(given) {
        Ok(pb::Durability::Unspecified) => Ok(None),
        Ok(pb::Durability::Synced) => Ok(Some(Durability::Synced)),
        Ok(pb::Durability::Written) => Ok(Some(Durability::Written)),
        Err(unknown) => Err(Failure::invalid("durability", format_args!("{} is no durability", unknown.0))),
    }
}

/// A durability as clients see it.
pub const fn proto_durability(durability: Durability) -> pb::Durability {
    match durability {
        Durability::Synced => pb::Durability::Synced,
        Durability::Written => pb::Durability::Written,
    }
}

fn sixteen(bytes: &[u8], field: impl Fn() -> String) -> Result<[u8; 16], Failure> {
    bytes.try_into().map_err(|_| Failure::invalid(field(), format_args!("16 bytes are needed, {} were given", bytes.len())))
}

fn text(text: String) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

fn filled(bytes: Bytes) -> Option<Bytes> {
    (!bytes.is_empty()).then_some(bytes)
}

pub fn time(time: ProtoTimestamp, field: impl Fn() -> String) -> Result<Timestamp, Failure> {
    let invalid = || Failure::invalid(field(), "a time between the years 1 and 9999, with 0 to 999,999,999 nanoseconds");
    if !(0..1_000_000_000).contains(&time.nanos) {
        return Err(invalid());
    }
    let ms = time.seconds.checked_mul(1000).and_then(|ms| ms.checked_add(i64::from(time.nanos / 1_000_000))).ok_or_else(invalid)?;
    if !(FIRST_TIME_MS..=LAST_TIME_MS).contains(&ms) {
        return Err(invalid());
    }
    Ok(Timestamp::new(ms))
}

/// A time as clients see it.
pub fn proto_time(time: Timestamp) -> ProtoTimestamp {
    let nanos = i32::try_from(time.get().rem_euclid(1000)).unwrap_or_default() * 1_000_000;
    ProtoTimestamp { seconds: time.get().div_euclid(1000), nanos }
}

/// A duration given by a client, up to `most`.
pub fn duration(given: Option<prost_types::Duration>, default: Duration, most: Duration, field: &str) -> Result<Duration, Failure> {
    let Some(given) = given else { return Ok(default) };
    match Duration::try_from(given) {
        Ok(duration) if duration <= most => Ok(duration),
        _ => Err(Failure::invalid(field, format_args!("0 to {} seconds", most.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_milliseconds_before_and_after_1970() {
        for ms in [-1, 0, 1, 1_500, -1_500, LAST_TIME_MS, FIRST_TIME_MS] {
            assert_eq!(time(proto_time(Timestamp::new(ms)), String::new).unwrap().get(), ms);
        }
    }
}
