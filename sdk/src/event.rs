//! Events and records, before and after they have a place, and the small values around them.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use foldlog_proto::v1::{self, stream_state::Expect};
use serde::{Serialize, de::DeserializeOwned};

use crate::{codec, error::Error};

/// What an appender believes about a stream before its events join it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expected {
    /// No belief.
    Any,
    /// It has no event: it never had one, or was deleted and nothing was appended since.
    Absent,
    /// It has at least one event, and was not deleted since.
    Exists,
    /// The newest event it was ever given has exactly this version, from 1, also if it was deleted since.
    Version(u64),
    /// It was deleted, and nothing was appended since.
    Deleted,
}

impl Expected {
    /// A stream as it was read: at a version, or without an event.
    #[must_use]
    pub fn seen(version: Option<u64>) -> Self {
        version.map_or(Self::Absent, Self::Version)
    }

    pub(crate) fn to_proto(self) -> Expect {
        match self {
            Self::Any => Expect::Any(v1::stream_state::Any {}),
            Self::Absent => Expect::Absent(v1::stream_state::Absent {}),
            Self::Exists => Expect::Exists(v1::stream_state::Exists {}),
            Self::Version(version) => Expect::Version(version),
            Self::Deleted => Expect::Deleted(v1::stream_state::Deleted {}),
        }
    }

    pub(crate) fn from_proto(expect: Option<Expect>) -> Self {
        match expect {
            Some(Expect::Version(version)) => Self::Version(version),
            Some(Expect::Absent(_)) => Self::Absent,
            Some(Expect::Exists(_)) => Self::Exists,
            Some(Expect::Deleted(_)) => Self::Deleted,
            Some(Expect::Any(_)) | None => Self::Any,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("anything"),
            Self::Absent => f.write_str("absent"),
            Self::Exists => f.write_str("exists"),
            Self::Deleted => f.write_str("deleted"),
            Self::Version(version) => write!(f, "version {version}"),
        }
    }
}

/// Which events are meant: those that match any of its items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventQuery {
    /// None: every event.
    items: Option<Vec<v1::event_query::Item>>,
}

impl EventQuery {
    /// Every event.
    #[must_use]
    pub const fn all() -> Self {
        Self { items: None }
    }

    /// Events of one of some types (none: of any) that have each of some tags.
    #[must_use]
    pub fn of<T: Into<String>, U: Into<String>>(types: impl IntoIterator<Item = T>, tags: impl IntoIterator<Item = U>) -> Self {
        Self { items: Some(Vec::new()) }.or(types, tags)
    }

    /// And those of other types and tags. Every event stays every event.
    #[must_use]
    pub fn or<T: Into<String>, U: Into<String>>(mut self, types: impl IntoIterator<Item = T>, tags: impl IntoIterator<Item = U>) -> Self {
        if let Some(items) = &mut self.items {
            let (types, tags) = (types.into_iter().map(Into::into).collect(), tags.into_iter().map(Into::into).collect());
            items.push(v1::event_query::Item { types, tags });
        }
        self
    }

    pub(crate) fn into_proto(self) -> v1::EventQuery {
        v1::EventQuery { all: self.items.is_none(), items: self.items.unwrap_or_default() }
    }

    pub(crate) fn from_proto(query: v1::EventQuery) -> Self {
        Self { items: (!query.all).then_some(query.items) }
    }

    /// Its items: some types and some tags each. None: every event is meant.
    #[must_use]
    pub fn items(&self) -> Option<Vec<(&[String], &[String])>> {
        let items = self.items.as_ref()?;
        Some(items.iter().map(|item| (&item.types[..], &item.tags[..])).collect())
    }
}

/// An opaque mark of how far the log was: reads and queries that are given it reflect everything up to there.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Token(Bytes);

impl Token {
    /// A token that was kept as bytes.
    #[must_use]
    pub const fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes, to keep them.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    pub(crate) fn into_proto(token: Option<Self>) -> Bytes {
        token.map(|token| token.0).unwrap_or_default()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// An event before it has a place. Only `kind` must be given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewEvent {
    /// Type, as the domain calls it ("Deposited"); 1 to 255 bytes.
    pub kind: String,
    /// Payload.
    pub data: Bytes,
    /// Media type of the payload; empty means `application/json`.
    pub content_type: String,
    /// Id given by the producer.
    pub event_id: Option<[u8; 16]>,
    /// Name of the payload's schema; empty: none.
    pub schema: String,
    /// What conditions and reads find it by ("course:42"), no two alike: up to 64 of 1 to 256 bytes.
    pub tags: Vec<String>,
    /// Further attributes; keys are lower case.
    pub attributes: BTreeMap<String, String>,
    /// When it happened, in milliseconds since 1970 UTC; none means the server's time.
    pub time_ms: Option<i64>,
    /// Shared by everything that follows from one cause; empty: none.
    pub correlation_id: Bytes,
    /// What caused this event; empty: none.
    pub causation_id: Bytes,
    /// W3C trace context; empty: none.
    pub traceparent: String,
    /// W3C trace context; empty: none.
    pub tracestate: String,
}

impl NewEvent {
    /// An event of type `kind` with a payload as it is, which should be JSON unless `content_type` says otherwise.
    #[must_use]
    pub fn new(kind: impl Into<String>, data: impl Into<Bytes>) -> Self {
        Self { kind: kind.into(), data: data.into(), ..Self::default() }
    }

    /// An event of type `kind` with `data` as JSON.
    ///
    /// # Errors
    /// If JSON cannot say it.
    pub fn json<T: Serialize + ?Sized>(kind: impl Into<String>, data: &T) -> Result<Self, Error> {
        Ok(Self::new(kind, serde_json::to_vec(data).map_err(codec::CodecError::from)?))
    }

    /// An event from an enum: the variant is the type, see [`crate::codec`].
    ///
    /// # Errors
    /// If it is no enum.
    pub fn typed<E: Serialize>(event: &E) -> Result<Self, Error> {
        let (kind, data) = codec::encode(event)?;
        Ok(Self::new(kind, data))
    }

    /// Says when it happened, in milliseconds since 1970 UTC.
    #[must_use]
    pub const fn at(mut self, time_ms: i64) -> Self {
        self.time_ms = Some(time_ms);
        self
    }

    /// Adds tags, by which conditions and reads find it.
    #[must_use]
    pub fn tagged<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    pub(crate) fn into_proto(self) -> v1::Event {
        v1::Event {
            event_id: self.event_id.map(|id| Bytes::copy_from_slice(&id)).unwrap_or_default(),
            r#type: self.kind,
            data: Some(self.data),
            content_type: self.content_type,
            schema: self.schema,
            tags: self.tags,
            attributes: self.attributes,
            time: self.time_ms.map(timestamp),
            correlation_id: self.correlation_id,
            causation_id: self.causation_id,
            traceparent: self.traceparent,
            tracestate: self.tracestate,
            headers: Vec::new(),
        }
    }
}

/// A header of a record: a name, which may come twice, and perhaps a value.
pub type Header = (String, Option<Bytes>);

/// A record for a topic of kind `records` or `table`, before it has a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// Key; needed in a `table` topic.
    pub key: Option<Bytes>,
    /// Value; none deletes the key in a `table` topic.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<Header>,
    /// When it happened, in milliseconds since 1970 UTC; none means the server's time.
    pub time_ms: Option<i64>,
    /// Where it goes; none: the key's hash decides.
    pub partition: Option<u32>,
}

impl NewRecord {
    pub(crate) fn into_proto(self, topic: String) -> v1::Write {
        let headers = self.headers.into_iter().map(|(name, value)| v1::Header { name, value }).collect();
        let event = v1::Event { data: self.value, time: self.time_ms.map(timestamp), headers, ..v1::Event::default() };
        v1::Write { stream: String::new(), events: vec![event], topic, key: self.key, partition: self.partition, ..v1::Write::default() }
    }
}

/// An event or record as it stands in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Place in the partition, dense from 0.
    pub offset: u64,
    /// Place in the commit order of the whole data folder, dense from 0.
    pub position: u64,
    /// The stream; none for records.
    pub stream: Option<String>,
    /// Version in the stream, from 1; 0 for records.
    pub version: u64,
    /// Type; empty for records.
    pub kind: String,
    /// Payload; none is a tombstone.
    pub data: Option<Bytes>,
    /// Media type of the payload; empty means `application/json` for events, and is always empty for records.
    pub content_type: String,
    /// Id given by the producer.
    pub event_id: Option<[u8; 16]>,
    /// Name of the payload's schema; empty: none.
    pub schema: String,
    /// What conditions and reads find it by.
    pub tags: Vec<String>,
    /// Further attributes.
    pub attributes: BTreeMap<String, String>,
    /// When it happened, in milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// The server's time of the append, in milliseconds since 1970 UTC.
    pub recorded_at_ms: i64,
    /// Key of a record.
    pub key: Option<Bytes>,
    /// Headers of a record.
    pub headers: Vec<Header>,
    /// Shared by everything that follows from one cause; empty: none.
    pub correlation_id: Bytes,
    /// What caused this event; empty: none.
    pub causation_id: Bytes,
    /// W3C trace context; empty: none.
    pub traceparent: String,
    /// W3C trace context; empty: none.
    pub tracestate: String,
    /// Whether its data was redacted: then it has its place, type, tags and times, and nothing else of what was appended.
    pub redacted: bool,
}

impl Recorded {
    /// The event as a value of the enum `E`, see [`crate::codec`].
    ///
    /// # Errors
    /// If `E` has no such variant, the payload does not fit it, or was redacted; the message says which event it is.
    pub fn decode<E: DeserializeOwned>(&self) -> Result<E, Error> {
        codec::decode(&self.kind, self.data.as_deref().unwrap_or_default()).map_err(|error| {
            let error = if self.redacted { codec::CodecError::redacted() } else { error };
            let stream = self.stream.as_deref().unwrap_or_default();
            Error::Codec(error.within(&format!("version {} of stream {stream} in topic {}", self.version, self.topic)))
        })
    }

    pub(crate) fn from_proto(recorded: v1::RecordedEvent) -> Result<Self, Error> {
        let event = recorded.event.ok_or_else(|| Error::Protocol("a recorded event without an event".into()))?;
        Ok(Self {
            topic: recorded.topic,
            partition: recorded.partition,
            offset: recorded.offset,
            position: recorded.position,
            stream: (!recorded.stream.is_empty()).then_some(recorded.stream),
            version: recorded.stream_version,
            kind: event.r#type,
            data: event.data,
            content_type: event.content_type,
            event_id: event.event_id.as_ref().try_into().ok(),
            schema: event.schema,
            tags: event.tags,
            attributes: event.attributes,
            time_ms: event.time.map(millis).unwrap_or_default(),
            recorded_at_ms: recorded.recorded_at.map(millis).unwrap_or_default(),
            key: recorded.key,
            headers: event.headers.into_iter().map(|header| (header.name, header.value)).collect(),
            correlation_id: event.correlation_id,
            causation_id: event.causation_id,
            traceparent: event.traceparent,
            tracestate: event.tracestate,
            redacted: recorded.redacted,
        })
    }
}

pub(crate) fn timestamp(ms: i64) -> prost_types::Timestamp {
    let nanos = i32::try_from(ms.rem_euclid(1000) * 1_000_000).unwrap_or_default();
    prost_types::Timestamp { seconds: ms.div_euclid(1000), nanos }
}

pub(crate) fn millis(time: prost_types::Timestamp) -> i64 {
    time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_survive_the_protocol() {
        for ms in [0, 1, 999, 1000, -1, -1000, -1001, 1_357_000_000_123] {
            assert_eq!(millis(timestamp(ms)), ms);
        }
    }

    #[test]
    fn expectations_survive_the_protocol() {
        for expected in [Expected::Any, Expected::Absent, Expected::Exists, Expected::Version(7)] {
            assert_eq!(Expected::from_proto(Some(expected.to_proto())), expected);
        }
    }
}
