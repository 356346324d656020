//! Kafka's RecordBatch v2: the bytes in which records rest. Format: `log/FORMAT.md`, "Batches".
//!
//! Encoded in two steps ([`Encoded`] by the caller, [`BatchBuilder`] by the committer), decoded in place and lazily
//! ([`Run::records`](crate::record::Run::records)). Whatever bytes are given, decoding ends, is bounded and never panics.

mod compression;
mod decode;
mod encode;
mod event;
mod header;
pub(crate) mod inspect;
mod retain;
#[cfg(test)]
mod tests;
pub(crate) mod varint;

use crate::{
    ids::{EventId, Offset, Position, StreamVersion, Timestamp},
    life::Mark,
    record::Run,
    topic::TopicKind,
};

pub(crate) use compression::{compress, decompress};
pub use decode::skip;
pub(crate) use decode::{Said, StoredRecord, StoredRecords, corrupt, find, records_of};
pub use encode::{BatchBuilder, Encoded, MAX_ENCODED_LEN, MAX_RECORD_LEN};
pub use event::MarkWith;
pub use header::{BatchHeader, Flaw, HEADER_LEN, MAX_BATCH_LEN};
pub(crate) use retain::{Kept, retain};

/// One stored record, looked at in place.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// Place in its partition.
    pub offset: Offset,
    /// Place in the folder.
    pub position: Position,
    /// The event's own time if it was given one, else the server's.
    pub timestamp: Timestamp,
    /// Key; in an `events` topic the stream's name.
    pub key: Option<&'a [u8]>,
    /// Value; in an `events` topic the payload.
    pub value: Option<&'a [u8]>,
    /// Headers as stored, after their count.
    pub(crate) headers: &'a [u8],
    /// Number of headers.
    pub(crate) header_count: u32,
    /// Value of header `f` in a topic of events; elsewhere a header of that name is somebody else's.
    pub(crate) f: Option<&'a [u8]>,
}

impl<'a> RecordView<'a> {
    /// The headers in order, foldlog's own `f` included.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let mut cursor = varint::Cursor::new(self.headers);
        // Decoding the record has followed them all, so none fails here.
        (0..self.header_count).map_while(move |_| decode::take_header(&mut cursor))
    }

    /// What makes the record an event of a stream; none for plain records.
    #[must_use]
    pub fn event(&self) -> Option<EventView<'a>> {
        event::decode(self.f?)
    }

    /// What makes the record a mark in the life of a stream, which its key names, or all that is left of an event that was removed; none for
    /// events and plain records. Readers do not return marks.
    #[must_use]
    pub fn mark(&self) -> Option<MarkView<'a>> {
        if self.value.is_some() {
            return None;
        }
        event::decode_mark(self.f?)
    }

    /// What it is posted under: that of an event, also of one that was removed; none if it never was an event.
    pub(crate) fn posted(&self) -> Option<EventView<'a>> {
        event::decode_any(self.f?).map(|(event, _)| event)
    }

    /// The data of a snapshot, if it is one.
    pub(crate) fn snapshot_data(&self) -> Option<&'a [u8]> {
        self.headers().find(|(name, _)| *name == event::SNAPSHOT)?.1
    }
}

/// Whether a run is a mark: marks have runs of their own.
pub(crate) fn is_mark(run: &Run) -> bool {
    run.count == 1 && run.topic.settings.kind == TopicKind::Events && run.records().flatten().any(|record| record.mark().is_some())
}

/// A mark in the life of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkView<'a> {
    /// What it says.
    pub mark: Mark,
    /// Who wanted it.
    pub by: &'a str,
    /// Of a snapshot: media type; none means `application/json`.
    pub content_type: Option<&'a str>,
    /// Of a snapshot: name of its schema.
    pub schema: Option<&'a str>,
    /// Of a redaction: why.
    pub reason: Option<&'a str>,
}

/// The part of an event that lies in header `f`.
#[derive(Clone, Copy, Debug)]
pub struct EventView<'a> {
    /// Version in its stream.
    pub version: StreamVersion,
    /// Type.
    pub kind: &'a str,
    /// Media type of the payload; none means `application/json`.
    pub content_type: Option<&'a str>,
    /// Id given by the producer.
    pub event_id: Option<EventId>,
    /// Id shared by everything that follows from one cause.
    pub correlation_id: Option<&'a [u8]>,
    /// Id of what caused this event.
    pub causation_id: Option<&'a [u8]>,
    /// Name of the payload's schema.
    pub schema: Option<&'a str>,
    /// Encoded fields, from the first tag on.
    pub(crate) tags: &'a [u8],
    /// Encoded fields, from the first attribute on.
    pub(crate) attributes: &'a [u8],
    /// Whether its data was redacted, and with it all but its stream, version, type, tags and times.
    pub is_redacted: bool,
}

impl<'a> EventView<'a> {
    /// What it can be found by, in the order given.
    pub fn tags(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        event::tags(self.tags)
    }

    /// Further attributes, in the order given.
    pub fn attributes(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        event::attributes(self.attributes)
    }
}
