//! The columns of an exported topic, both ways: the cells of an event or record, and the JSON line that a row stands for.
//!
//! Beside each column of bytes another one says how they stand: `text`, `base64` (they are no text), or `null` (there are none, which is
//! not the same as an empty text). Where that column is missing or empty, a cell is text, and an empty key or id is none. Tags,
//! attributes and headers are JSON. What only the log decides is written, and passed over when it is read. Pure.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use foldlog_sdk::{Recorded, TopicKind};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::cli::{
    client::event::{attributes_json, headers_json, tags_json},
    output::text::time,
};

const OF_EVENTS: [&str; 22] = [
    "position",
    "partition",
    "offset",
    "stream",
    "version",
    "type",
    "time",
    "recorded_at",
    "data",
    "data_is",
    "redacted",
    "content_type",
    "schema",
    "event_id",
    "correlation_id",
    "correlation_id_is",
    "causation_id",
    "causation_id_is",
    "tags",
    "attributes",
    "traceparent",
    "tracestate",
];
const OF_RECORDS: [&str; 10] =
    ["position", "partition", "offset", "key", "key_is", "value", "value_is", "headers_base64", "time", "recorded_at"];

/// Columns of bytes, each with the ending that text has in a JSON line, and whether an empty cell is none.
const OF_BYTES: [(&str, &str, bool); 5] =
    [("data", "_text", false), ("value", "_text", false), ("key", "", true), ("correlation_id", "", true), ("causation_id", "", true)];

/// The names of the columns.
pub fn names(kind: TopicKind) -> &'static [&'static str] {
    if kind == TopicKind::Events { &OF_EVENTS } else { &OF_RECORDS }
}

/// The cells of a row.
pub fn cells(event: &Recorded, kind: TopicKind) -> Vec<String> {
    names(kind).iter().map(|name| cell(event, name)).collect()
}

/// One of them.
pub fn cell(event: &Recorded, column: &str) -> String {
    let text = |bytes: Option<&[u8]>| bytes.map_or_else(String::new, shown);
    let is =
        |bytes: Option<&[u8]>| bytes.map_or("null", |bytes| if std::str::from_utf8(bytes).is_ok() { "text" } else { "base64" }).to_owned();
    let id = |bytes: &'_ [u8]| (!bytes.is_empty()).then(|| bytes.to_vec());
    let (data, key) = (event.data.as_deref(), event.key.as_deref());
    let (correlation, causation) = (id(&event.correlation_id), id(&event.causation_id));
    match column {
        "position" => event.position.to_string(),
        "partition" => event.partition.to_string(),
        "offset" => event.offset.to_string(),
        "stream" => event.stream.clone().unwrap_or_default(),
        "version" => event.version.to_string(),
        "type" => event.kind.clone(),
        "time" => time(event.time_ms),
        "recorded_at" => time(event.recorded_at_ms),
        "data" | "value" => text(data),
        "data_is" if event.redacted => is(None),
        "redacted" if event.redacted => "true".to_owned(),
        // Every other event has a payload, if only an empty one.
        "data_is" => is(Some(data.unwrap_or_default())),
        "value_is" => is(data),
        "key" => text(key),
        "key_is" => is(key),
        "content_type" => event.content_type.clone(),
        "schema" => event.schema.clone(),
        "event_id" => event.event_id.map_or_else(String::new, |id| Uuid::from_bytes(id).to_string()),
        "correlation_id" => text(correlation.as_deref()),
        "correlation_id_is" => is(correlation.as_deref()),
        "causation_id" => text(causation.as_deref()),
        "causation_id_is" => is(causation.as_deref()),
        "tags" if !event.tags.is_empty() => tags_json(event),
        "attributes" if !event.attributes.is_empty() => attributes_json(event),
        "headers_base64" if !event.headers.is_empty() => headers_json(event),
        "traceparent" => event.traceparent.clone(),
        "tracestate" => event.tracestate.clone(),
        _ => String::new(),
    }
}

/// The ending that text of a column of bytes has in a JSON line; none if the column is not of bytes.
pub fn of_bytes(name: &str) -> Option<&'static str> {
    OF_BYTES.iter().find(|(bytes, ..)| *bytes == name).map(|(_, ending, _)| *ending)
}

fn shown(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| BASE64_STANDARD.encode(bytes), ToOwned::to_owned)
}

/// The JSON line that a row stands for, as [`crate::cli::client::event::parse`] takes it.
///
/// # Errors
/// Which column is wrong, and how.
pub fn line<'a>(row: impl Iterator<Item = (&'a str, &'a str)>) -> Result<String, String> {
    let cells: Vec<_> = row.collect();
    let cell_of = |name: &str| cells.iter().find(|(other, _)| *other == name).map(|(_, cell)| *cell);
    let mut members = Map::new();
    for (name, cell) in &cells {
        let is_beside = name.strip_suffix("_is").is_some_and(|of| OF_BYTES.iter().any(|(bytes, ..)| *bytes == of));
        if let Some((_, ending, empty_is_none)) = OF_BYTES.iter().find(|(bytes, ..)| bytes == name) {
            let is = cell_of(&format!("{name}_is")).unwrap_or_default();
            if let Some((name, value)) = bytes(name, cell, is, ending, *empty_is_none)? {
                members.insert(name, value);
            }
        } else if !is_beside && !cell.is_empty() {
            members.insert((*name).to_owned(), value(name, cell)?);
        }
    }
    Ok(Value::Object(members).to_string())
}

fn bytes(name: &str, cell: &str, is: &str, ending: &str, empty_is_none: bool) -> Result<Option<(String, Value)>, String> {
    match is {
        "" if cell.is_empty() && empty_is_none => Ok(None),
        "" | "text" => Ok(Some((format!("{name}{ending}"), cell.into()))),
        "base64" => Ok(Some((format!("{name}_base64"), cell.into()))),
        "null" if !cell.is_empty() => Err(format!("column {name}_is says null, and column {name} is not empty")),
        "null" if name == "value" => Ok(Some((name.to_owned(), Value::Null))),
        "null" => Ok(None),
        _ => Err(format!("column {name}_is says {is:?}, and not text, base64 or null")),
    }
}

/// What a cell that is not of bytes stands for.
///
/// # Errors
/// That it is wrong, and how.
pub fn value(name: &str, cell: &str) -> Result<Value, String> {
    match name {
        "tags" | "attributes" | "headers_base64" => {
            serde_json::from_str(cell).map_err(|error| format!("column {name} is not JSON: {error}"))
        }
        "redacted" => cell.parse::<bool>().map(Value::from).map_err(|_| format!("column {name} is neither true nor false")),
        "partition" => cell.parse::<u32>().map(Value::from).map_err(|_| format!("column {name} is no number of a partition")),
        "time" => Ok(cell.parse::<i64>().map_or_else(|_| Value::from(cell), Value::from)),
        _ => Ok(cell.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[(&'static str, &'static str)]) -> Result<Value, String> {
        line(cells.iter().copied()).map(|line| serde_json::from_str(&line).unwrap())
    }

    #[test]
    fn a_null_is_no_empty_text() {
        let expected = serde_json::json!({ "key": "", "value": null });
        assert_eq!(row(&[("key", ""), ("key_is", "text"), ("value", ""), ("value_is", "null")]), Ok(expected));
        assert_eq!(row(&[("key", ""), ("key_is", "null"), ("value", "")]), Ok(serde_json::json!({ "value_text": "" })));
        assert_eq!(row(&[("key", ""), ("value", "x")]), Ok(serde_json::json!({ "value_text": "x" })));
        assert_eq!(row(&[("data", "AA=="), ("data_is", "base64")]), Ok(serde_json::json!({ "data_base64": "AA==" })));
    }

    #[test]
    fn a_cell_that_is_wrong_names_its_column() {
        for (cells, column) in [
            ([("key", "k"), ("key_is", "null")], "key_is"),
            ([("value", "v"), ("value_is", "hex")], "value_is"),
            ([("tags", "a,b"), ("data", "")], "tags"),
            ([("partition", "-1"), ("value", "")], "partition"),
            ([("redacted", "yes"), ("data_is", "null")], "redacted"),
        ] {
            assert!(row(&cells).unwrap_err().contains(column), "{cells:?}");
        }
    }
}
