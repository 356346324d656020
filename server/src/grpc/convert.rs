//! Messages of `foldlog.v1` to the log's own types and back. Malformed input ends here, and nowhere deeper.

use std::{hash::Hasher as _, sync::Arc, time::Duration};

use bytes::Bytes;
use foldlog_log::{
    Append, Appended, Beginning, Compaction, Compression, Durability, EventId, EventQuery, Expected, Identity, NewEvent, NewRecord,
    PartitionId, Position, Precondition, ProducerId, ProducerKey, Purpose, QueryAbsent, QueryItem, Redacting, RequestId, RequestKey,
    Retention, Scope, Snapshot, StreamChange, StreamId, StreamVersion, Tag, Timestamp, Topic, TopicChanges, TopicKind, TopicName,
    TopicSettings, Write,
};
use foldlog_proto::v1 as pb;
use prost::Message as _;
use prost_types::Timestamp as ProtoTimestamp;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::{config::Limits, failure::Failure, token::Tokens};

/// Attribute under which an event's W3C trace context lies in the log.
pub const TRACEPARENT: &str = "traceparent";
/// The other half of the trace context.
pub const TRACESTATE: &str = "tracestate";

/// Everyone, until there are principals.
const ANONYMOUS: &str = "";
/// 9999-12-31T23:59:59.999Z, the last time that every client can show.
const LAST_TIME_MS: i64 = 253_402_300_799_999;
/// 0001-01-01T00:00:00Z.
const FIRST_TIME_MS: i64 = -62_135_596_800_000;

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
    for (place, write) in request.writes.into_iter().enumerate() {
        writes.push(self::write(place, write, &mut topics, &mut budget)?);
    }
    let mut preconditions = Vec::with_capacity(request.preconditions.len());
    if request.preconditions.len() > limits.append_events {
        return Err(Failure::invalid("preconditions", format_args!("at most {} are taken", limits.append_events)));
    }
    for (place, precondition) in request.preconditions.into_iter().enumerate() {
        preconditions.push(self::precondition(place, precondition, &mut topics)?);
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

struct Budget<'a> {
    limits: &'a Limits,
    events: usize,
    bytes: usize,
}

impl Budget<'_> {
    fn take(&mut self, bytes: usize, field: impl Fn() -> String) -> Result<(), Failure> {
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

/// A change of a stream, or a snapshot of it.
fn marking(topic: TopicName, write: pb::Write, budget: &mut Budget<'_>, field: impl Fn(&str) -> String) -> Result<Write, Failure> {
    use pb::stream_change::Change;
    if !write.events.is_empty() || write.key.is_some() || write.partition.is_some() {
        let rule = "beside a change or a snapshot stands the stream and nothing else: no events, no key, no partition";
        return Err(Failure::invalid(field("change"), rule));
    }
    let stream = stream(&write.stream, || field("stream"))?;
    let change = match (write.change, write.snapshot) {
        (Some(change), None) => change.change,
        (None, Some(snapshot)) => return snapshot_of(topic, stream, snapshot, budget, field),
        _ => return Err(Failure::invalid(field("change"), "a change or a snapshot, not both")),
    };
    let change = match change {
        Some(Change::TruncateBefore(0)) => return Err(Failure::invalid(field("change.truncate_before"), "versions begin at 1")),
        Some(Change::TruncateBefore(version)) => StreamChange::Truncate { before: StreamVersion::new(version) },
        Some(Change::Delete(_)) => StreamChange::Delete,
        Some(Change::Tombstone(_)) => StreamChange::Tombstone,
        Some(Change::DropSnapshots(_)) => StreamChange::DropSnapshots,
        Some(Change::Redact(redact)) => return redaction_of(topic, stream, redact, budget, field),
        None => return Err(Failure::invalid(field("change"), "truncate_before, delete, tombstone, drop_snapshots or redact is needed")),
    };
    Ok(Write::Change { topic, stream, change, by: ANONYMOUS.into() })
}

/// The versions of the events that are to be redacted one by one, as the log marks them.
fn redaction_of(
    topic: TopicName,
    stream: StreamId,
    given: pb::stream_change::Redact,
    budget: &mut Budget<'_>,
    field: impl Fn(&str) -> String,
) -> Result<Write, Failure> {
    let most = budget.limits.append_events;
    let mut versions = Vec::new();
    for pb::VersionRange { first, last } in given.versions {
        let last = if last == 0 { first } else { last };
        if first == 0 || last < first {
            return Err(Failure::invalid(
                field("change.redact.versions"),
                "versions begin at 1, and a range does not end before it begins",
            ));
        }
        if last - first >= (most - versions.len()) as u64 {
            let rule = format_args!("more than {most} events, the limit of one append");
            return Err(Failure::field("APPEND_TOO_LARGE", field("change.redact.versions"), rule));
        }
        versions.extend((first..=last).map(StreamVersion::new));
    }
    for _ in &versions {
        budget.take(stream.as_str().len() + given.by.len() + given.reason.len(), || field("change.redact"))?;
    }
    Ok(Write::Redact { topic, stream, versions, by: given.by.into(), reason: given.reason.into() })
}

/// What is left to be done of redactions, unless nothing is.
pub fn redaction(left: Redacting) -> Option<pb::Redaction> {
    let since = Some(proto_time(left.since?));
    Some(pb::Redaction { events: left.events, since, waits_for: left.waits_for.unwrap_or_default().to_owned() })
}

fn snapshot_of(
    topic: TopicName,
    stream: StreamId,
    given: pb::Snapshot,
    budget: &mut Budget<'_>,
    field: impl Fn(&str) -> String,
) -> Result<Write, Failure> {
    if given.version == 0 {
        return Err(Failure::invalid(field("snapshot.version"), "versions begin at 1"));
    }
    budget.take(given.data.len() + given.schema.len() + given.content_type.len(), || field("snapshot"))?;
    let version = StreamVersion::new(given.version);
    let snapshot = Snapshot { version, schema: text(given.schema), content_type: text(given.content_type), data: given.data };
    Ok(Write::Snapshot { topic, stream, snapshot, by: ANONYMOUS.into() })
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
        time: event.time.map(|time| self::time(time, || field("time"))).transpose()?,
    })
}

fn tags(given: &[String], field: impl Fn(&str) -> String) -> Result<Vec<Tag>, Failure> {
    if given.len() > NewEvent::MAX_TAGS {
        return Err(Failure::invalid(field("tags"), format_args!("at most {} are taken", NewEvent::MAX_TAGS)));
    }
    let mut tags = Vec::with_capacity(given.len());
    for (place, tag) in given.iter().enumerate() {
        let at = || field(&format!("tags[{place}]"));
        let tag = tag.parse::<Tag>().map_err(|error| Failure::name(at(), &error))?;
        if tags.contains(&tag) {
            return Err(Failure::invalid(at(), "a tag is given once"));
        }
        tags.push(tag);
    }
    Ok(tags)
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
        time: event.time.map(|time| self::time(time, || format!("{}.time", at()))).transpose()?,
    })
}

fn precondition(place: usize, given: pb::Precondition, topics: &mut Topics<'_>) -> Result<Precondition, Failure> {
    use pb::stream_state::Expect;
    let field = |name: &str| format!("preconditions[{place}].{name}");
    let state = match given.kind {
        Some(pb::precondition::Kind::Stream(state)) => state,
        Some(pb::precondition::Kind::Query(query)) => return query_absent(query, topics, field),
        None => return Err(Failure::invalid(field("kind"), "is required")),
    };
    let expected = match state.expect {
        None => return Err(Failure::invalid(field("stream.expect"), "is required: version, absent, exists or any")),
        Some(Expect::Version(0)) => {
            return Err(Failure::invalid(field("stream.version"), "versions begin at 1; say absent for a stream without events"));
        }
        Some(Expect::Version(version)) => Expected::Version(StreamVersion::new(version)),
        Some(Expect::Absent(_)) => Expected::Absent,
        Some(Expect::Exists(_)) => Expected::Exists,
        Some(Expect::Deleted(_)) => Expected::Deleted,
        Some(Expect::Any(_)) => Expected::Any,
    };
    Ok(Precondition::Stream {
        topic: topics.named(&state.topic, || field("stream.topic"))?,
        stream: stream(&state.stream, || field("stream.stream"))?,
        expected,
    })
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

fn query_absent(given: pb::EventQueryAbsent, topics: &mut Topics<'_>, field: impl Fn(&str) -> String) -> Result<Precondition, Failure> {
    let scope = match (given.all_topics, given.topics.is_empty()) {
        (true, true) => Scope::Everything,
        (true, false) => return Err(Failure::invalid(field("query.topics"), "means nothing with all_topics")),
        (false, true) => Scope::Topics(vec![topics.named("", || field("query.topics"))?]),
        (false, false) => {
            let named = |(place, name): (usize, &String)| topic(name, || field(&format!("query.topics[{place}]")));
            Scope::Topics(given.topics.iter().enumerate().map(named).collect::<Result<_, _>>()?)
        }
    };
    let query = event_query(given.query.unwrap_or_default(), |name| field(&format!("query.query.{name}")))?;
    Ok(Precondition::QueryAbsent(QueryAbsent { scope, query, after: given.after.map(Position::new) }))
}

/// Which events are meant; `field` names a part of it.
pub fn event_query(given: pb::EventQuery, field: impl Fn(&str) -> String) -> Result<EventQuery, Failure> {
    match (given.all, given.items.is_empty()) {
        (true, true) => return Ok(EventQuery::All),
        (true, false) => return Err(Failure::invalid(field("items"), "means nothing with all")),
        (false, true) => return Err(Failure::invalid(field("items"), "at least one is needed, or all")),
        (false, false) => {}
    }
    let mut items = Vec::with_capacity(given.items.len());
    for (place, item) in given.items.into_iter().enumerate() {
        let at = |name: &str| field(&format!("items[{place}].{name}"));
        if item.types.iter().any(|kind| !(1..=255).contains(&kind.len())) {
            return Err(Failure::invalid(at("types"), "a type has 1 to 255 bytes"));
        }
        items.push(QueryItem { types: item.types.into_iter().map(Arc::from).collect(), tags: tags(&item.tags, at)? });
    }
    Ok(EventQuery::Items(items))
}

/// A query as it travels.
pub fn proto_query(query: &EventQuery) -> pb::EventQuery {
    let EventQuery::Items(items) = query else { return pb::EventQuery { all: true, items: Vec::new() } };
    let item = |item: &QueryItem| pb::event_query::Item {
        types: item.types.iter().map(ToString::to_string).collect(),
        tags: item.tags.iter().map(ToString::to_string).collect(),
    };
    pb::EventQuery { all: false, items: items.iter().map(item).collect() }
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

/// How long records are kept; its bounds are for the log to check.
pub fn retention(given: Option<pb::Retention>) -> Result<Retention, Failure> {
    let Some(given) = given else { return Ok(Retention::FOR_EVER) };
    let time = given.time.map(Duration::try_from).transpose();
    let time = time.map_err(|_| Failure::invalid("retention.time", "a duration that is not negative"))?;
    Ok(Retention { time, bytes: given.bytes })
}

fn proto_retention(retention: Retention) -> Option<pb::Retention> {
    let time = retention.time.and_then(|time| prost_types::Duration::try_from(time).ok());
    (!retention.is_for_ever()).then_some(pb::Retention { time, bytes: retention.bytes })
}

/// When a topic is rid of what was replaced; bounds are for the log to check.
pub fn compaction(given: Option<pb::Compaction>) -> Result<Compaction, Failure> {
    let (asked, usual) = (compaction_changes(given.unwrap_or_default())?, Compaction::DEFAULT);
    Ok(Compaction {
        delete_retention: asked.delete_retention.unwrap_or(usual.delete_retention),
        min_lag: asked.min_lag.unwrap_or(usual.min_lag),
        max_lag: asked.max_lag.unwrap_or(usual.max_lag),
        dirty_percent: asked.dirty_percent.unwrap_or(usual.dirty_percent),
    })
}

/// What is said of compaction.
pub fn compaction_changes(given: pb::Compaction) -> Result<TopicChanges, Failure> {
    let time = |given: Option<prost_types::Duration>, field| {
        let time = given.map(Duration::try_from).transpose();
        time.map_err(|_| Failure::invalid(field, "a duration that is not negative"))
    };
    Ok(TopicChanges {
        delete_retention: time(given.delete_retention, "compaction.delete_retention")?,
        min_lag: time(given.min_lag, "compaction.min_lag")?,
        max_lag: time(given.max_lag, "compaction.max_lag")?,
        // What is too large for the log's type is too large for the log.
        dirty_percent: given.dirty_percent.map(|percent| u8::try_from(percent).unwrap_or(u8::MAX)),
        ..TopicChanges::default()
    })
}

fn proto_compaction(settings: &TopicSettings) -> Option<pb::Compaction> {
    let Compaction { delete_retention, min_lag, max_lag, dirty_percent } = settings.compaction;
    let time = |time| prost_types::Duration::try_from(time).ok();
    (settings.kind == TopicKind::Table).then_some(pb::Compaction {
        delete_retention: time(delete_retention),
        min_lag: time(min_lag),
        max_lag: time(max_lag),
        dirty_percent: Some(dirty_percent.into()),
    })
}

/// A duration given by a client, up to `most`.
pub fn duration(given: Option<prost_types::Duration>, default: Duration, most: Duration, field: &str) -> Result<Duration, Failure> {
    let Some(given) = given else { return Ok(default) };
    match Duration::try_from(given) {
        Ok(duration) if duration <= most => Ok(duration),
        _ => Err(Failure::invalid(field, format_args!("0 to {} seconds", most.as_secs()))),
    }
}

/// A snapshot as clients see it.
pub fn snapshot(snapshot: Snapshot) -> pb::Snapshot {
    pb::Snapshot {
        version: snapshot.version.get(),
        schema: snapshot.schema.as_deref().unwrap_or_default().to_owned(),
        content_type: snapshot.content_type.as_deref().unwrap_or_default().to_owned(),
        data: snapshot.data,
    }
}

/// Where a stream begins.
pub const fn beginning(beginning: Beginning) -> pb::StreamBeginning {
    pb::StreamBeginning { first_version: beginning.first.get(), anew_version: beginning.anew.get() }
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

/// A topic as clients see it.
pub fn proto_topic(topic: &Topic) -> pb::Topic {
    pb::Topic {
        name: topic.name.as_str().to_owned(),
        id: Bytes::copy_from_slice(topic.id.as_bytes()),
        kind: match topic.settings.kind {
            TopicKind::Events => pb::TopicKind::Events,
            TopicKind::Records => pb::TopicKind::Records,
            TopicKind::Table => pb::TopicKind::Table,
        }
        .into(),
        partitions: topic.settings.partitions,
        durability: proto_durability(topic.settings.durability).into(),
        compression: match topic.settings.compression {
            Compression::None => pb::Compression::None,
            Compression::Lz4 => pb::Compression::Lz4,
            Compression::Zstd => pb::Compression::Zstd,
        }
        .into(),
        retention: proto_retention(topic.settings.retention),
        compaction: proto_compaction(&topic.settings),
    }
}

#[cfg(test)]
mod tests {
    use foldlog_log::{FolderId, Head, Position};

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

    #[test]
    fn times_keep_their_milliseconds_before_and_after_1970() {
        for ms in [-1, 0, 1, 1_500, -1_500, LAST_TIME_MS, FIRST_TIME_MS] {
            assert_eq!(time(proto_time(Timestamp::new(ms)), String::new).unwrap().get(), ms);
        }
    }
}
