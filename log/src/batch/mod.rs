//! Kafka's RecordBatch v2: the bytes in which records rest. Format: `log/FORMAT.md`, "Batches".

use crate::{
    error::LogError,
    ids::{EventId, Offset, Position, StreamVersion, Timestamp},
    record::Run,
};

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
}

impl<'a> RecordView<'a> {
    /// The headers in order, foldlog's own `f` included.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        std::iter::empty()
    }

    /// What makes the record an event of a stream; none for plain records.
    #[must_use]
    pub fn event(&self) -> Option<EventView<'a>> {
        None
    }
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
    /// Encoded attributes.
    pub(crate) attributes: &'a [u8],
}

impl<'a> EventView<'a> {
    /// Further attributes, in the order given.
    pub fn attributes(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        std::iter::empty()
    }
}

pub(crate) fn records_of(_run: &Run) -> impl Iterator<Item = Result<RecordView<'_>, LogError>> {
    std::iter::empty()
}
