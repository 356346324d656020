//! A batch and its records as parts of a file.
#![deny(clippy::indexing_slicing)]

use bytes::Bytes;

use super::{RecordView, StoredRecords, compression, decode::StoredRecord, event, header::BatchHeader};
use crate::{
    ids::Position,
    inspect::{Fact, Part},
};

/// Tells a batch that begins at byte `from` of a file, and its records. What is wrong with any of it is wrong with the batch.
pub(crate) fn tell(bytes: &Bytes, from: u64) -> (Part, Vec<Part>) {
    let part = Part::new("batch", from, from + bytes.len() as u64);
    let header = match BatchHeader::parse(bytes) {
        Ok(header) => header,
        Err(flaw) => return (part.damaged(flaw.to_string()), Vec::new()),
    };
    let part = part
        .with("offset", header.base_offset)
        .with("offset_end", header.end_offset())
        .with("records", header.count)
        .with("compression", header.compression.as_str())
        .with("time", header.base_timestamp)
        .with("max_time", header.max_timestamp)
        .with("start", Fact::Number(u64::try_from(header.epoch).unwrap_or_default()));
    let mut records = Vec::new();
    let told = BatchHeader::check(bytes).and_then(|_| compression::decompress(bytes.clone())).and_then(|plain| {
        for record in StoredRecords::from(&plain, super::HEADER_LEN)? {
            records.push(tell_record(&record?, &part));
        }
        Ok(())
    });
    let part = match told {
        Err(flaw) => part.damaged(flaw.to_string()),
        Ok(()) => part.checked(records.len() == header.count as usize, "it has another number of records than its header says"),
    };
    (part, records)
}

fn tell_record(record: &StoredRecord<'_>, batch: &Part) -> Part {
    let view = RecordView {
        offset: record.offset,
        position: Position::default(),
        timestamp: record.timestamp,
        key: record.key,
        value: record.value,
        headers: record.headers,
        header_count: record.header_count,
        // Elsewhere a header of that name is somebody else's; what it says is shown if it can be read.
        f: record.f,
    };
    let part = Part::new("record", batch.from, batch.end).inner().with("offset", view.offset).with("time", view.timestamp);
    let mut part = part.with_some("key", view.key);
    let event = view.event();
    if let Some(event) = &event {
        part = part.with("version", event.version).with("type", event.kind).with_some("content_type", event.content_type);
        part = part.with_some("event_id", event.event_id.map(|id| id.to_string())).with_some("schema", event.schema);
        part = part.with_some("correlation_id", event.correlation_id).with_some("causation_id", event.causation_id);
        let attributes = event.attributes().map(|(name, value)| format!("{name}={value}"));
        part = part.with_list("tags", event.tags().map(str::to_owned)).with_list("attributes", attributes);
        part = if event.is_redacted { part.with("redacted", "true") } else { part };
    }
    if let Some(mark) = view.mark() {
        if let Some(removed) = mark.mark.removed().and_then(|_| view.posted()) {
            part = part.with("type", removed.kind).with_list("tags", removed.tags().map(str::to_owned));
        }
        part = part.with("mark", mark.mark.as_str()).with("mark_version", mark.mark.version()).with("by", mark.by);
        part = part
            .with_some("reason", mark.reason)
            .with_some("content_type", mark.content_type)
            .with_some("schema", mark.schema)
            .with_some("data", view.snapshot_data());
    }
    let is_told = event.is_some() || view.mark().is_some();
    let others = view.headers().filter(|(name, _)| !is_told || !matches!(*name, event::NAME | event::SNAPSHOT));
    let others = others.map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value.unwrap_or_default())));
    part.with_list("headers", others).with_some("value", view.value)
}
