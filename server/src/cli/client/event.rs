//! Events and records as JSON lines, both ways: what `foldlog read -o jsonl` writes, `foldlog append` takes, and what `foldlog topic
//! export` writes, `import`.
//!
//! A payload that is JSON stands as such under `data`, on one line and with its numbers to the digit; other text stands under
//! `data_text`, other bytes under `data_base64`. So no payload is mistaken for another. Records have `key` and `value` with the same
//! endings instead; a record whose `value` is null is a tombstone. [`exact_line`] has JSON under `data_text` if it stands otherwise there
//! than it was appended, so that every byte comes back.
//! What only the log decides (topic, partition, offset, position, version, recorded_at) is written and, when read, passed over.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use foldlog_sdk::{NewEvent, NewRecord, Recorded};
use serde::de::IgnoredAny;
use uuid::Uuid;

use crate::cli::output::{
    Cell, Head, Item,
    text::{json_string, one_line, parse_time, time},
};

/// What of an event is shown in columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// Of a topic of kind `events`.
    Events,
    /// Of a topic of kind `records` or `table`.
    Records,
    /// Of several topics.
    All,
}

impl Columns {
    /// The heads.
    #[must_use]
    pub fn heads(self) -> Vec<Head> {
        let number = Head::number;
        let text = Head::text;
        match self {
            Self::Events => vec![number("position"), text("stream"), number("version"), text("type"), text("time"), text("data")],
            Self::Records => vec![number("position"), number("partition"), number("offset"), text("key"), text("time"), text("value")],
            Self::All => vec![
                number("position"),
                text("topic"),
                number("partition"),
                number("offset"),
                text("stream"),
                number("version"),
                text("type"),
                text("key"),
                text("time"),
                text("data"),
            ],
        }
    }
}

/// An event to print.
#[derive(Debug)]
pub struct Printed<'a>(pub &'a Recorded, pub Columns);

impl Item for Printed<'_> {
    fn cells(&self) -> Vec<Cell> {
        let Self(event, columns) = self;
        let stream = event.stream.as_deref().map_or(Cell::Null, Cell::from);
        let key = event.key.as_ref().map_or(Cell::Null, |key| Payload::of_key(key).cell());
        let data = data_cell(event);
        let time = Cell::Text(time(event.time_ms));
        let kind = Cell::from(event.kind.as_str());
        match columns {
            Columns::Events => vec![event.position.into(), stream, event.version.into(), kind, time, data],
            Columns::Records => vec![event.position.into(), u64::from(event.partition).into(), event.offset.into(), key, time, data],
            Columns::All => vec![
                event.position.into(),
                event.topic.as_str().into(),
                u64::from(event.partition).into(),
                event.offset.into(),
                stream,
                if event.version == 0 { Cell::Null } else { event.version.into() },
                if event.kind.is_empty() { Cell::Null } else { kind },
                key,
                time,
                data,
            ],
        }
    }

    fn json(&self) -> String {
        line(self.0, Form::Shown)
    }
}

/// How payloads and times stand in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// JSON on one line, to be looked at.
    Shown,
    /// To the byte.
    Exact,
}

impl Form {
    fn of<'a>(self, payload: Payload<'a>) -> Payload<'a> {
        match payload {
            Payload::Json(json) if self == Self::Exact && one_line(json) != json => Payload::Text(json),
            payload => payload,
        }
    }
}

/// An event or record as a line from which [`parse`] makes the same again, to the byte.
#[must_use]
pub fn exact_line(event: &Recorded) -> String {
    line(event, Form::Exact)
}

fn line(event: &Recorded, form: Form) -> String {
    let mut line = Members::default();
    line.text("topic", &event.topic);
    line.raw("partition", &event.partition.to_string());
    line.raw("offset", &event.offset.to_string());
    line.raw("position", &event.position.to_string());
    if let Some(stream) = &event.stream {
        line.text("stream", stream);
        line.raw("version", &event.version.to_string());
        line.text("type", &event.kind);
        if event.redacted {
            line.raw("redacted", "true");
        } else {
            line.payload("data", &form.of(Payload::of(event.data.as_deref().unwrap_or_default(), &event.content_type)));
        }
        write_envelope(&mut line, event);
    } else {
        if let Some(key) = &event.key {
            line.payload("key", &Payload::of_key(key));
        }
        match &event.data {
            Some(value) => line.payload("value", &form.of(Payload::of_value(value))),
            None => line.raw("value", "null"),
        }
        if !event.headers.is_empty() {
            line.raw("headers_base64", &headers_json(event));
        }
    }
    line.text("time", &time(event.time_ms));
    line.text("recorded_at", &time(event.recorded_at_ms));
    line.finish()
}

/// Headers as a list of names and values, those in base64.
#[must_use]
pub fn headers_json(event: &Recorded) -> String {
    let header = |(name, value): &(String, Option<Bytes>)| {
        let value = value.as_ref().map_or("null".to_owned(), |value| json_string(&BASE64_STANDARD.encode(value)));
        format!("[{},{value}]", json_string(name))
    };
    format!("[{}]", event.headers.iter().map(header).collect::<Vec<_>>().join(","))
}

/// Tags as a list.
#[must_use]
pub fn tags_json(event: &Recorded) -> String {
    format!("[{}]", event.tags.iter().map(|tag| json_string(tag)).collect::<Vec<_>>().join(","))
}

/// Attributes as an object.
#[must_use]
pub fn attributes_json(event: &Recorded) -> String {
    let attributes = event.attributes.iter().map(|(name, value)| format!("{}:{}", json_string(name), json_string(value)));
    format!("{{{}}}", attributes.collect::<Vec<_>>().join(","))
}

/// The payload in a column.
pub fn data_cell(event: &Recorded) -> Cell {
    if event.redacted {
        return "(redacted)".into();
    }
    event.data.as_ref().map_or(Cell::Null, |data| Payload::of(data, &event.content_type).cell())
}

fn write_envelope(line: &mut Members, event: &Recorded) {
    let optional = [
        ("content_type", &event.content_type),
        ("schema", &event.schema),
        ("traceparent", &event.traceparent),
        ("tracestate", &event.tracestate),
    ];
    for (name, text) in optional.into_iter().filter(|(_, text)| !text.is_empty()) {
        line.text(name, text);
    }
    if let Some(id) = event.event_id {
        line.text("event_id", &Uuid::from_bytes(id).to_string());
    }
    for (name, id) in [("correlation_id", &event.correlation_id), ("causation_id", &event.causation_id)] {
        if !id.is_empty() {
            line.payload(name, &Payload::of_key(id));
        }
    }
    if !event.tags.is_empty() {
        line.raw("tags", &tags_json(event));
    }
    if !event.attributes.is_empty() {
        line.raw("attributes", &attributes_json(event));
    }
}

/// Bytes of a content type as a cell; none means JSON.
pub fn payload_cell(bytes: &[u8], content_type: &str) -> Cell {
    Payload::of(bytes, content_type).cell()
}

/// Bytes by what they are.
enum Payload<'a> {
    Json(&'a str),
    Text(&'a str),
    Binary(&'a [u8]),
}

impl<'a> Payload<'a> {
    /// Of an event with this content type; empty means JSON.
    fn of(bytes: &'a [u8], content_type: &str) -> Self {
        let may_be_json = content_type.is_empty() || content_type.contains("json");
        match std::str::from_utf8(bytes) {
            Ok(text) if may_be_json && is_json(text) => Self::Json(text),
            Ok(text) => Self::Text(text),
            Err(_) => Self::Binary(bytes),
        }
    }

    /// Of a record's value: a bare `null` is text, since the value null is a tombstone.
    fn of_value(bytes: &'a [u8]) -> Self {
        match Self::of(bytes, "") {
            Self::Json(text) if text.trim_ascii() == "null" => Self::Text(text),
            payload => payload,
        }
    }

    /// Of a key, which is text or bytes and never taken for JSON.
    fn of_key(bytes: &'a [u8]) -> Self {
        std::str::from_utf8(bytes).map_or(Self::Binary(bytes), Self::Text)
    }

    fn cell(&self) -> Cell {
        match self {
            Self::Json(json) => Cell::Json((*json).to_owned()),
            Self::Text(text) => Cell::from(*text),
            Self::Binary(bytes) => Cell::Bytes(Bytes::copy_from_slice(bytes)),
        }
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// The members of an object that is being written.
#[derive(Debug, Default)]
struct Members(String);

impl Members {
    fn raw(&mut self, name: &str, json: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&json_string(name));
        self.0.push(':');
        self.0.push_str(json);
    }

    fn text(&mut self, name: &str, text: &str) {
        self.raw(name, &json_string(text));
    }

    /// A payload under the name that says what it is. Keys and ids are plain text under the bare name.
    fn payload(&mut self, name: &str, payload: &Payload<'_>) {
        match payload {
            Payload::Json(json) => self.raw(name, &one_line(json)),
            Payload::Text(text) if matches!(name, "data" | "value") => self.text(&format!("{name}_text"), text),
            Payload::Text(text) => self.text(name, text),
            Payload::Binary(bytes) => self.text(&format!("{name}_base64"), &BASE64_STANDARD.encode(bytes)),
        }
    }

    fn finish(self) -> String {
        if self.0.is_empty() { "{}".to_owned() } else { self.0 + "}" }
    }
}

/// What one line asks to append.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// An event of a stream.
    Event(String, Box<NewEvent>),
    /// The same of one whose data was redacted: `null` stands in its place, which queries fold alike.
    Redacted(String, Box<NewEvent>),
    /// A record.
    Record(NewRecord),
}

/// What a line that does not say it is taken to mean.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// The stream.
    pub stream: Option<String>,
    /// The type.
    pub kind: Option<String>,
    /// Whether a record goes into the partition that its line names; else its key decides.
    pub keeps_partition: bool,
}

/// Names that a line may have; those that the log decides are passed over.
const PASSED_OVER: [&str; 5] = ["topic", "offset", "position", "version", "recorded_at"];

/// Reads one line as an event if `events`, else as a record.
///
/// # Errors
/// What is wrong with it and what is allowed, without its number.
pub fn parse(line: &str, events: bool, defaults: &Defaults) -> Result<Parsed, String> {
    let mut members = split(line)?;
    let partition = members.remove("partition").filter(|_| defaults.keeps_partition && !events);
    let partition =
        partition.map(|json| json.parse().map_err(|_| format!("\"partition\" {json} is no number of a partition"))).transpose()?;
    for name in PASSED_OVER {
        members.remove(name);
    }
    let time_ms = members.remove("time").map(parse_time_member).transpose()?;
    let parsed = if events { parse_event(&mut members, time_ms, defaults)? } else { parse_record(&mut members, time_ms, partition)? };
    match members.into_keys().next() {
        Some(name) => Err(format!("{name:?} is not known here; {}", if events { EVENT_MEMBERS } else { RECORD_MEMBERS })),
        None => Ok(parsed),
    }
}

const EVENT_MEMBERS: &str = "an event has stream, type, data (or data_text, data_base64), time, content_type, schema, event_id, \
                             correlation_id, causation_id, tags, attributes, traceparent, tracestate";
const RECORD_MEMBERS: &str =
    "a record has key (or key_base64), value (or value_text, value_base64; null deletes the key in a table), headers_base64, time";

type Parts<'a> = BTreeMap<String, &'a str>;

fn parse_event(members: &mut Parts<'_>, time_ms: Option<i64>, defaults: &Defaults) -> Result<Parsed, String> {
    let stream = text(members, "stream")?.or_else(|| defaults.stream.clone());
    let stream = stream.ok_or("there is no \"stream\"; add it or give --stream")?;
    let kind = text(members, "type")?.or_else(|| defaults.kind.clone());
    let kind = kind.ok_or("there is no \"type\"; add it or give --type")?;
    let is_redacted = match members.remove("redacted") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err("\"redacted\" is neither true nor false".to_owned()),
    };
    let data = match (payload(members, "data")?, is_redacted) {
        (Some(data), false) => data,
        (None, false) => return Err("there is no \"data\" (nor data_text or data_base64)".to_owned()),
        (None, true) => Bytes::from_static(b"null"),
        (Some(_), true) => return Err("there is \"data\" of an event that is redacted".to_owned()),
    };
    let event_id = match text(members, "event_id")? {
        None => None,
        Some(id) => Some(Uuid::parse_str(&id).map_err(|_| format!("event_id {id:?} is not a UUID"))?.into_bytes()),
    };
    let tags = match members.remove("tags") {
        None => Vec::new(),
        Some(json) => serde_json::from_str(json).map_err(|_| "\"tags\" is not a list of texts".to_owned())?,
    };
    let attributes = match members.remove("attributes") {
        None => BTreeMap::new(),
        Some(json) => serde_json::from_str(json).map_err(|_| "\"attributes\" is not an object of texts".to_owned())?,
    };
    let event = NewEvent {
        kind,
        data,
        content_type: text(members, "content_type")?.unwrap_or_default(),
        event_id,
        schema: text(members, "schema")?.unwrap_or_default(),
        tags,
        attributes,
        time_ms,
        correlation_id: text_or_bytes(members, "correlation_id")?.unwrap_or_default(),
        causation_id: text_or_bytes(members, "causation_id")?.unwrap_or_default(),
        traceparent: text(members, "traceparent")?.unwrap_or_default(),
        tracestate: text(members, "tracestate")?.unwrap_or_default(),
    };
    let event = Box::new(event);
    Ok(if is_redacted { Parsed::Redacted(stream, event) } else { Parsed::Event(stream, event) })
}

fn parse_record(members: &mut Parts<'_>, time_ms: Option<i64>, partition: Option<u32>) -> Result<Parsed, String> {
    let key = text_or_bytes(members, "key")?;
    let value = if members.get("value") == Some(&"null") {
        members.remove("value");
        None
    } else {
        let rule = "there is no \"value\" (nor value_text or value_base64); null deletes the key in a table";
        Some(payload(members, "value")?.ok_or(rule)?)
    };
    let headers = match members.remove("headers_base64") {
        None => Vec::new(),
        Some(json) => parse_headers(json)?,
    };
    Ok(Parsed::Record(NewRecord { key, value, headers, time_ms, partition }))
}

fn parse_headers(json: &str) -> Result<Vec<(String, Option<Bytes>)>, String> {
    let rule = "\"headers_base64\" is not a list of [name, base64 or null]";
    let pairs: Vec<(String, Option<String>)> = serde_json::from_str(json).map_err(|_| rule.to_owned())?;
    let header = |(name, value): (String, Option<String>)| Ok((name, value.map(|value| base64("headers_base64", &value)).transpose()?));
    pairs.into_iter().map(header).collect()
}

/// The members of an object with the text of each value as it stands.
fn split(line: &str) -> Result<Parts<'_>, String> {
    let not_json = |error: serde_json::Error| format!("not JSON: {}", error.to_string().replace(" at line 1 column ", " at column "));
    serde_json::from_str::<IgnoredAny>(line).map_err(not_json)?;
    let mut rest = line.trim_ascii().strip_prefix('{').ok_or("not an object: a line is {\"stream\": ..., \"type\": ..., \"data\": ...}")?;
    let mut members = Parts::new();
    // The line is valid, so each step finds what it looks for.
    while let Some((name, after)) = next_value::<String>(rest.trim_start_matches([',', ' ', '\t', '\r', '\n'])) {
        let value = after.trim_ascii_start().strip_prefix(':').unwrap_or_default().trim_ascii_start();
        let Some((_, after)) = next_value::<IgnoredAny>(value) else { break };
        let text = value.get(..value.len() - after.len()).unwrap_or_default();
        if members.insert(name.clone(), text).is_some() {
            return Err(format!("{name:?} stands there twice"));
        }
        rest = after;
    }
    Ok(members)
}

fn next_value<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Option<(T, &'a str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<T>();
    let value = values.next()?.ok()?;
    Some((value, text.get(values.byte_offset()..)?))
}

fn text(members: &mut Parts<'_>, name: &str) -> Result<Option<String>, String> {
    let Some(json) = members.remove(name) else { return Ok(None) };
    serde_json::from_str(json).map(Some).map_err(|_| format!("{name:?} is not text"))
}

fn base64(name: &str, text: &str) -> Result<Bytes, String> {
    BASE64_STANDARD.decode(text).map(Bytes::from).map_err(|error| format!("{name:?} is not base64: {error}"))
}

/// Under the bare name text, under `_base64` bytes.
fn text_or_bytes(members: &mut Parts<'_>, name: &str) -> Result<Option<Bytes>, String> {
    let binary_name = format!("{name}_base64");
    match (text(members, name)?, text(members, &binary_name)?) {
        (Some(_), Some(_)) => Err(format!("{name:?} and {binary_name:?} exclude each other")),
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(text)) => base64(&binary_name, &text).map(Some),
        (None, None) => Ok(None),
    }
}

/// Under the bare name JSON, taken as it stands; under `_text` text, under `_base64` bytes.
fn payload(members: &mut Parts<'_>, name: &str) -> Result<Option<Bytes>, String> {
    let (text_name, binary_name) = (format!("{name}_text"), format!("{name}_base64"));
    let given = [
        members.remove(name).map(|json| Ok(Bytes::copy_from_slice(json.as_bytes()))),
        text(members, &text_name)?.map(|text| Ok(text.into())),
        { text(members, &binary_name)?.map(|text| base64(&binary_name, &text)) },
    ];
    let mut given = given.into_iter().flatten();
    match (given.next(), given.next()) {
        (_, Some(_)) => Err(format!("{name:?}, {text_name:?} and {binary_name:?} exclude each other")),
        (payload, None) => payload.transpose(),
    }
}

fn parse_time_member(json: &str) -> Result<i64, String> {
    let rule = || format!("\"time\" {json} is neither RFC 3339 (\"2013-01-01T10:15:00Z\") nor milliseconds since 1970");
    if let Ok(text) = serde_json::from_str::<String>(json) {
        return parse_time(&text).ok_or_else(rule);
    }
    serde_json::from_str(json).map_err(|_| rule())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(event: &Recorded) -> Parsed {
        let line = Printed(event, Columns::All).json();
        assert!(!line.contains(['\n', '\r', '\x1b']), "{line}");
        parse(&line, event.stream.is_some(), &Defaults::default()).unwrap()
    }

    fn event(data: &[u8]) -> Recorded {
        Recorded {
            topic: "flights".into(),
            stream: Some("UA 1\u{202e}".into()),
            version: 3,
            kind: "Departed".into(),
            data: Some(Bytes::copy_from_slice(data)),
            time_ms: 1_360_368_000_007,
            ..Recorded::default()
        }
    }

    #[test]
    fn what_read_writes_append_takes() {
        let full = Recorded {
            content_type: "application/json".into(),
            event_id: Some([7; 16]),
            schema: "s".into(),
            tags: vec!["owner:7".into(), "b\"\u{202e}".into()],
            attributes: BTreeMap::from([("a".into(), "b\"\n".into())]),
            correlation_id: Bytes::from_static(b"\xff\x00"),
            causation_id: Bytes::from_static(b"order-1"),
            traceparent: "00-1".into(),
            tracestate: "x=y".into(),
            ..event(br#"{"delay":1.10,"n":12345678901234567890123}"#)
        };
        let expected = NewEvent {
            kind: full.kind.clone(),
            data: full.data.clone().unwrap(),
            content_type: full.content_type.clone(),
            event_id: full.event_id,
            schema: full.schema.clone(),
            tags: full.tags.clone(),
            attributes: full.attributes.clone(),
            time_ms: Some(full.time_ms),
            correlation_id: full.correlation_id.clone(),
            causation_id: full.causation_id.clone(),
            traceparent: full.traceparent.clone(),
            tracestate: full.tracestate.clone(),
        };
        assert_eq!(round_trip(&full), Parsed::Event("UA 1\u{202e}".into(), Box::new(expected)));
    }

    #[test]
    fn payloads_of_every_kind_survive() {
        let payloads: [&[u8]; 9] = [b"{}", b"null", b"\"text\"", b"plain text", b"", b"\xff\xfe", b"{broken", b"12", b"\x1b[2J"];
        for data in payloads {
            let Parsed::Event(_, back) = round_trip(&event(data)) else { panic!("an event") };
            assert_eq!(back.data, data);
            let record = Recorded { stream: None, key: Some(Bytes::copy_from_slice(data)), kind: String::new(), version: 0, ..event(data) };
            let Parsed::Record(back) = round_trip(&record) else { panic!("a record") };
            assert_eq!((back.key.as_deref(), back.value.as_deref()), (Some(data), Some(data)));
        }
        let headers = vec![("h".to_owned(), None), ("h".to_owned(), Some(Bytes::from_static(b"\x00")))];
        let tombstone = Recorded { stream: None, key: None, data: None, headers: headers.clone(), ..event(b"") };
        let expected = NewRecord { key: None, value: None, headers, time_ms: Some(tombstone.time_ms), partition: None };
        assert_eq!(round_trip(&tombstone), Parsed::Record(expected));
    }

    #[test]
    fn a_line_that_is_wrong_says_how() {
        let defaults = Defaults { stream: Some("s".into()), ..Defaults::default() };
        let cases = [
            ("nonsense", "not JSON"),
            ("[1]", "not an object"),
            (r#"{"data":{}}"#, "no \"type\""),
            (r#"{"type":"T"}"#, "no \"data\""),
            (r#"{"type":"T","data":1,"data_text":"x"}"#, "exclude each other"),
            (r#"{"type":"T","data_base64":"%"}"#, "not base64"),
            (r#"{"type":"T","type":"U","data":1}"#, "twice"),
            (r#"{"type":1,"data":1}"#, "\"type\" is not text"),
            (r#"{"type":"T","data":1,"payload":2}"#, "\"payload\" is not known"),
            (r#"{"type":"T","data":1,"time":"yesterday"}"#, "RFC 3339"),
            (r#"{"type":"T","data":1,"event_id":"1"}"#, "not a UUID"),
            (r#"{"type":"T","data":1,"tags":"a"}"#, "list of texts"),
            (r#"{"type":"T","data":1,"attributes":{"a":1}}"#, "object of texts"),
            (r#"{"type":"T","data":1,"redacted":true}"#, "an event that is redacted"),
            (r#"{"type":"T","redacted":1}"#, "neither true nor false"),
            (r#"{"type":"T","redacted":false}"#, "no \"data\""),
        ];
        for (line, expected) in cases {
            let error = parse(line, true, &defaults).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
        assert!(parse(r#"{"key":"k"}"#, false, &defaults).unwrap_err().contains("no \"value\""));
        let parsed = parse(r#" { "data" : [1, 2] , "type":"T","time":5 } "#, true, &defaults).unwrap();
        let expected = NewEvent { time_ms: Some(5), ..NewEvent::new("T", "[1, 2]") };
        assert_eq!(parsed, Parsed::Event("s".into(), Box::new(expected)));
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "\\PC*", deep in prop::collection::vec("[\\[{}\\]\",:0-9ae\\\\]", 0..60)) {
            for text in [line, deep.concat(), format!("{{{}}}", deep.concat())] {
                let _ = parse(&text, true, &Defaults::default());
                let _ = parse(&text, false, &Defaults::default());
            }
        }

        #[test]
        fn no_payload_is_lost(data in prop::collection::vec(any::<u8>(), 0..40), text in "\\PC*") {
            for data in [data, text.clone().into_bytes(), serde_json::to_vec(&text).unwrap()] {
                let Parsed::Event(_, back) = round_trip(&event(&data)) else { panic!("an event") };
                let Parsed::Event(_, exactly) = parse(&exact_line(&event(&data)), true, &Defaults::default()).unwrap() else { panic!("an event") };
                prop_assert_eq!(&exactly.data[..], &data[..]);
                match serde_json::from_slice::<serde_json::Value>(&data) {
                    Ok(json) => prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&back.data).unwrap(), json),
                    Err(_) => prop_assert_eq!(&back.data[..], &data[..]),
                }
            }
        }
    }
}
