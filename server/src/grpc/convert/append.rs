//! Appends: events, records and their limits, who asks, and the answer.

use std::{hash::Hasher as _, sync::Arc};

use bytes::Bytes;
use foldlog_log::{
    Append, Appended, EventId, Identity, NewEvent, NewRecord, PartitionId, ProducerId, ProducerKey, Purpose, RequestId, RequestKey, Write,
};
use foldlog_proto::v1 as pb;
use prost::Message as _;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use super::{
    ANONYMOUS, Topics,
    change::marking,
    condition::{precondition, tags},
    durability, filled, proto_durability, proto_time, sixteen, stream, text,
};
use crate::{config::Limits, failure::Failure, token::Tokens};

/// Attribute under which an event's W3C trace context lies in the log.
pub const TRACEPARENT: &str = "traceparent";

/// The other half of the trace context.
pub const TRACESTATE: &str = "tracestate";

/// An append as the log takes it.
pub fn append(request: pb::AppendRequest, tokens: &Tokens, limits: &Limits) -> Result<Append, Failure> {
    let identity = identity(&request, tokens)?;
    let durability = durability(request.durability)?;
    let mut topics = Topics::new(&request.topic);
    let mut budget = Budget { limits, events: 0, bytes: 0 };
    if request.writes.is_empty() {
        return Err(Failure::field("EMPTY_EVENTS", "writes", "an append needs at least one event"));
    }
    let mut writes = Vec::with_capacity(request.writes.len());
    for (place, given) in request.writes.into_iter().enumerate() {
        writes.push(write(place, given, &mut topics, &mut budget)?);
    }
    let mut preconditions = Vec::with_capacity(request.preconditions.len());
    if request.preconditions.len() > limits.append_events {
        return Err(Failure::invalid("preconditions", format_args!("at most {} are taken", limits.append_events)));
    }
    for (place, given) in request.preconditions.into_iter().enumerate() {
        preconditions.push(precondition(place, given, &mut topics)?);
    }
    let takes_away = writes.iter().all(|write| matches!(write, Write::Change { .. } | Write::Redact { .. }));
    let purpose = if takes_away { Purpose::Upkeep } else { Purpose::Data };
    Ok(Append { writes, preconditions, identity, sequenced: None, durability, purpose })
}

/// A unit of a session as the log takes it, without its sequence.
pub fn unit(request: pb::AppendRequest, tokens: &Tokens, limits: &Limits) -> Result<Append, Failure> {
    if !request.request_id.is_empty() {
        return Err(Failure::invalid("request_id", "a unit of a session has none: its sequence takes the place"));
    }
    let unit = append(request, tokens, limits)?;
    if let Some(place) = unit.writes.iter().position(|write| matches!(write, Write::Redact { .. })) {
        // Its answer waits for queries, and a session's units wait for nothing.
        return Err(Failure::invalid(format!("writes[{place}].change.redact"), "data is redacted with Append, not over a session"));
    }
    Ok(unit)
}

/// A producer by its id; without one it gets an id of its own.
pub fn producer(id: &[u8]) -> Result<ProducerKey, Failure> {
    let id = if id.is_empty() { *uuid::Uuid::new_v4().as_bytes() } else { sixteen(id, || "open.producer_id".to_owned())? };
    Ok(ProducerKey { principal: ANONYMOUS.into(), id: ProducerId::new(id) })
}

pub(super) struct Budget<'a> {
    pub(super) limits: &'a Limits,
    events: usize,
    bytes: usize,
}

impl Budget<'_> {
    pub(super) fn take(&mut self, bytes: usize, field: impl Fn() -> String) -> Result<(), Failure> {
        let Limits { event_bytes, append_bytes, append_events, .. } = *self.limits;
        self.events += 1;
        self.bytes += bytes;
        if bytes > event_bytes {
            return Err(Failure::field(
                "EVENT_TOO_LARGE",
                field(),
                format_args!("{bytes} bytes; the limit is {event_bytes} bytes an event"),
            ));
        }
        if self.events > append_events {
            return Err(Failure::field(
                "APPEND_TOO_LARGE",
                "writes",
                format_args!("more than {append_events} events, the limit of one append"),
            ));
        }
        if self.bytes > append_bytes {
            return Err(Failure::field(
                "APPEND_TOO_LARGE",
                "writes",
                format_args!("more than {append_bytes} bytes of events, the limit of one append"),
            ));
        }
        Ok(())
    }
}

fn write(place: usize, write: pb::Write, topics: &mut Topics<'_>, budget: &mut Budget<'_>) -> Result<Write, Failure> {
    let field = |name: &str| format!("writes[{place}].{name}");
    let topic = topics.named(&write.topic, || field("topic"))?;
    if write.change.is_some() || write.snapshot.is_some() {
        return marking(topic, write, budget, field);
    }
    if write.events.is_empty() {
        return Err(Failure::field("EMPTY_EVENTS", field("events"), "a write needs at least one event"));
    }
    if !write.stream.is_empty() {
        if write.key.is_some() || write.partition.is_some() {
            return Err(Failure::invalid(field("stream"), "a write to a stream has no key and no partition; the stream decides both"));
        }
        let stream = stream(&write.stream, || field("stream"))?;
        let mut events: Vec<NewEvent> = Vec::with_capacity(write.events.len());
        for (index, event) in write.events.into_iter().enumerate() {
            let at = || format!("writes[{place}].events[{index}]");
            budget.take(size(&event), at)?;
            let event = new_event(event, events.last().map(|last| &last.kind), at)?;
            events.push(event);
        }
        return Ok(Write::Stream { topic, stream, events });
    }
    let mut records = Vec::with_capacity(write.events.len());
    for (index, event) in write.events.into_iter().enumerate() {
        let at = || format!("writes[{place}].events[{index}]");
        budget.take(size(&event) + write.key.as_ref().map_or(0, Bytes::len), at)?;
        records.push(new_record(event, write.key.clone(), at)?);
    }
    Ok(Write::Records { topic, partition: write.partition.map(PartitionId::new), records })
}

/// What an event weighs against the limits: everything in it that takes room in the log.
fn size(event: &pb::Event) -> usize {
    let attributes: usize = event.attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    let headers: usize = event.headers.iter().map(|h| h.name.len() + h.value.as_ref().map_or(0, Bytes::len)).sum();
    let texts = event.r#type.len() + event.content_type.len() + event.schema.len() + event.traceparent.len() + event.tracestate.len();
    let ids = event.event_id.len() + event.correlation_id.len() + event.causation_id.len();
    let tags: usize = event.tags.iter().map(String::len).sum();
    event.data.as_ref().map_or(0, Bytes::len) + attributes + headers + texts + ids + tags
}

/// Shares the type with the event before it, which mostly has the same.
fn new_event(event: pb::Event, last: Option<&Arc<str>>, at: impl Fn() -> String) -> Result<NewEvent, Failure> {
    let field = |name: &str| format!("{}.{name}", at());
    if !(1..=255).contains(&event.r#type.len()) {
        return Err(Failure::invalid(field("type"), "1 to 255 bytes; an event says what happened"));
    }
    if !event.headers.is_empty() {
        return Err(Failure::invalid(field("headers"), "only records have headers; use attributes for events"));
    }
    let event_id = match event.event_id.len() {
        0 => None,
        _ => Some(EventId::new(sixteen(&event.event_id, || field("event_id"))?)),
    };
    let mut attributes = Vec::with_capacity(event.attributes.len());
    for (name, value) in event.attributes {
        attributes.push((attribute_name(name, || field("attributes"))?, Arc::from(value)));
    }
    for (name, value) in [(TRACEPARENT, event.traceparent), (TRACESTATE, event.tracestate)] {
        if !value.is_empty() {
            attributes.push((Arc::from(name), Arc::from(value)));
        }
    }
    let kind = last.filter(|last| ***last == *event.r#type).cloned();
    Ok(NewEvent {
        kind: kind.unwrap_or_else(|| event.r#type.into()),
        data: event.data.unwrap_or_default(),
        content_type: text(event.content_type),
        event_id,
        correlation_id: filled(event.correlation_id),
        causation_id: filled(event.causation_id),
        schema: text(event.schema),
        tags: tags(&event.tags, field)?,
        attributes,
        time: event.time.map(|time| super::time(time, || field("time"))).transpose()?,
    })
}

fn attribute_name(name: String, field: impl Fn() -> String) -> Result<Arc<str>, Failure> {
    let reserved = name.starts_with("foldlog-") || name == TRACEPARENT || name == TRACESTATE;
    if name.is_empty() || name.len() > 255 || reserved || name.chars().any(|c| c.is_uppercase() || c.is_control()) {
        let rule = "names are 1 to 255 bytes, lower case, without control characters; foldlog-*, traceparent and tracestate are reserved";
        return Err(Failure::invalid(field(), rule));
    }
    Ok(name.into())
}

fn new_record(event: pb::Event, key: Option<Bytes>, at: impl Fn() -> String) -> Result<NewRecord, Failure> {
    let only_events_have = [
        ("type", event.r#type.is_empty()),
        ("event_id", event.event_id.is_empty()),
        ("content_type", event.content_type.is_empty()),
        ("schema", event.schema.is_empty()),
        ("tags", event.tags.is_empty()),
        ("attributes", event.attributes.is_empty()),
        ("correlation_id", event.correlation_id.is_empty()),
        ("causation_id", event.causation_id.is_empty()),
        ("traceparent", event.traceparent.is_empty()),
        ("tracestate", event.tracestate.is_empty()),
    ];
    if let Some((name, _)) = only_events_have.iter().find(|(_, empty)| !empty) {
        let rule = "only events of a stream have this; name the stream, or use headers for records";
        return Err(Failure::invalid(format!("{}.{name}", at()), rule));
    }
    Ok(NewRecord {
        key,
        value: event.data,
        headers: event.headers.into_iter().map(|header| (Arc::from(header.name), header.value)).collect(),
        time: event.time.map(|time| super::time(time, || format!("{}.time", at()))).transpose()?,
    })
}

fn identity(request: &pb::AppendRequest, tokens: &Tokens) -> Result<Option<Identity>, Failure> {
    let first_attempt = tokens.read("first_attempt_token", &request.first_attempt_token)?;
    if request.request_id.is_empty() {
        if first_attempt.is_some() {
            return Err(Failure::invalid("first_attempt_token", "means nothing without a request_id"));
        }
        return Ok(None);
    }
    let id = RequestId::new(sixteen(&request.request_id, || "request_id".to_owned())?);
    let key = RequestKey { principal: ANONYMOUS.into(), id };
    Ok(Some(Identity { key, digest: digest(request), first_attempt }))
}

/// Digest of what is asked, whatever the attempt. Fixed for ever: the log keeps it.
fn digest(request: &pb::AppendRequest) -> u128 {
    let mut hasher = SipHasher24::new_with_keys(0x666f_6c64_6c6f_6720, 0x6469_6765_7374_2031);
    let mut add = |bytes: &[u8]| {
        hasher.write(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.write(bytes);
    };
    add(request.topic.as_bytes());
    let mut scratch = Vec::new();
    for write in &request.writes {
        scratch.clear();
        if write.encode(&mut scratch).is_ok() {
            add(&scratch);
        }
    }
    add(b"preconditions");
    for precondition in &request.preconditions {
        scratch.clear();
        if precondition.encode(&mut scratch).is_ok() {
            add(&scratch);
        }
    }
    hasher.finish128().as_u128()
}

/// The answer to an append.
pub fn appended(appended: Appended, tokens: &Tokens) -> pb::AppendResponse {
    let ranges = appended.ranges.into_iter().map(|range| pb::AppendedRange {
        topic: range.topic.as_str().to_owned(),
        partition: range.partition.get(),
        first_offset: range.first.get(),
        last_offset: range.last.get(),
    });
    let versions = appended.versions.into_iter().map(|at| pb::StreamVersion {
        topic: at.topic.as_str().to_owned(),
        stream: at.stream.as_str().to_owned(),
        version: at.version.get(),
    });
    pb::AppendResponse {
        first_position: appended.first.get(),
        last_position: appended.end.get().saturating_sub(1),
        ranges: ranges.collect(),
        versions: versions.collect(),
        token: tokens.make(appended.end),
        deduplicated: appended.deduplicated,
        recorded_at: Some(proto_time(appended.recorded_at)),
        durability: proto_durability(appended.durability).into(),
    }
}

#[cfg(test)]
mod tests {
    use foldlog_log::{FolderId, Head, Position};
    use prost_types::Timestamp as ProtoTimestamp;

    use super::*;

    fn tokens() -> Tokens {
        Tokens::of(&Head { folder: FolderId::new([1; 16]), epoch: 1, position: Position::new(0) })
    }

    fn event(data: usize) -> pb::Event {
        pb::Event { r#type: "T".into(), data: Some(vec![b'x'; data].into()), ..Default::default() }
    }

    fn request(events: Vec<pb::Event>) -> pb::AppendRequest {
        let write = pb::Write { stream: "s".into(), events, ..Default::default() };
        pb::AppendRequest { topic: "t".into(), writes: vec![write], ..Default::default() }
    }

    fn refused(request: pb::AppendRequest) -> &'static str {
        append(request, &tokens(), &Limits::default()).unwrap_err().reason
    }

    #[test]
    fn sizes_are_refused_one_past_their_limit() {
        let limits = Limits::default();
        assert!(append(request(vec![event(limits.event_bytes - 1)]), &tokens(), &limits).is_ok(), "type T is the last byte");
        assert_eq!(refused(request(vec![event(limits.event_bytes)])), "EVENT_TOO_LARGE");
        assert!(append(request(vec![event(0); limits.append_events]), &tokens(), &limits).is_ok());
        assert_eq!(refused(request(vec![event(0); limits.append_events + 1])), "APPEND_TOO_LARGE");
        assert_eq!(refused(request(vec![event(1 << 19); 9])), "APPEND_TOO_LARGE");
    }

    #[test]
    fn malformed_requests_name_the_field() {
        assert_eq!(refused(pb::AppendRequest { topic: "t".into(), ..Default::default() }), "EMPTY_EVENTS");
        assert_eq!(refused(request(Vec::new())), "EMPTY_EVENTS");
        assert_eq!(refused(request(vec![pb::Event::default()])), "INVALID_REQUEST");
        for name in ["", "..", "a/b", "a\0b", "e\u{301}", "\u{202e}x"] {
            assert_eq!(refused(pb::AppendRequest { topic: name.into(), ..request(vec![event(1)]) }), "INVALID_NAME", "{name:?}");
        }
        assert_eq!(refused(pb::AppendRequest { topic: "_foldlog.catalog".into(), ..request(vec![event(1)]) }), "RESERVED_NAME");
        assert_eq!(refused(pb::AppendRequest { request_id: vec![1; 15].into(), ..request(vec![event(1)]) }), "INVALID_REQUEST");
        let tagged = |tags: Vec<String>| request(vec![pb::Event { tags, ..event(1) }]);
        let numbered = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
        assert!(append(tagged(numbered(64)), &tokens(), &Limits::default()).is_ok());
        assert!(append(tagged(vec!["t".repeat(256)]), &tokens(), &Limits::default()).is_ok());
        assert_eq!(refused(tagged(numbered(65))), "INVALID_REQUEST");
        assert_eq!(refused(tagged(vec!["a".into(), "a".into()])), "INVALID_REQUEST");
        for name in [String::new(), "a\0b".into(), "t".repeat(257)] {
            assert_eq!(refused(tagged(vec![name])), "INVALID_NAME");
        }
        let time = |seconds, nanos| Some(ProtoTimestamp { seconds, nanos });
        for bad in [time(i64::MAX, 0), time(253_402_300_800, 0), time(0, -1), time(0, 1_000_000_000)] {
            assert_eq!(refused(request(vec![pb::Event { time: bad, ..event(1) }])), "INVALID_REQUEST");
        }
    }

    #[test]
    fn the_digest_tells_requests_apart_but_not_attempts() {
        let first = request(vec![event(1)]);
        let mut again = first.clone();
        again.first_attempt_token = tokens().make(Position::new(1));
        assert_eq!(digest(&first), digest(&again));
        assert_ne!(digest(&first), digest(&request(vec![event(2)])));
        let mut other = first.clone();
        other.topic = "u".into();
        assert_ne!(digest(&first), digest(&other));
    }
}
