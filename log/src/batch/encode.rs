//! Records into batches, in two steps: callers' threads encode what does not depend on the place, the committer the rest.
//!
//! [`Encoded`] holds each record from its key on. [`BatchBuilder`] puts length, deltas and stream version around them, at about
//! the price of a copy. Invariant: what was encoded here decodes to the same records. Format: `log/FORMAT.md`, "Batches".

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{
    event::{self, MarkWith},
    header::{CHECKED_FROM, HEADER_LEN, MAGIC, UNCOUNTED},
    varint::{long_len, put_long, size},
};
use crate::{
    error::LogError,
    ids::{Offset, StreamId, StreamVersion, Timestamp},
    life,
    record::{NewEvent, NewRecord},
};

/// Most bytes of one encoded record: an event of the largest size with its ids, attributes and headers, far below what a
/// batch may hold.
pub const MAX_RECORD_LEN: usize = 4 << 20;
/// Most bytes of one [`Encoded`].
pub const MAX_ENCODED_LEN: usize = 16 << 20;

/// Records of one write for one partition, encoded but for what depends on their place.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    bodies: Vec<u8>,
    marks: Vec<Mark>,
}

/// Where a record's body ends, and what is needed to place it.
#[derive(Clone, Copy, Debug)]
struct Mark {
    end: usize,
    /// Place of the stream version, in an event.
    version_at: Option<usize>,
    time: Option<Timestamp>,
}

impl Encoded {
    /// Room for so many records whose bodies take about so many bytes.
    #[must_use]
    pub fn with_capacity(records: usize, bytes: usize) -> Self {
        Self { bodies: Vec::with_capacity(bytes.min(MAX_ENCODED_LEN)), marks: Vec::with_capacity(records) }
    }

    /// Number of records.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.marks.len()).unwrap_or(u32::MAX)
    }

    /// Most bytes that these records take in a batch, wherever they are placed; for budgets.
    #[must_use]
    pub fn max_len(&self) -> usize {
        // Length, attributes, timestamp delta and offset delta before each body.
        self.bodies.len() + self.marks.len() * (5 + 1 + 10 + 5)
    }

    /// Appends an event of `stream`. The events of one `Encoded` must all be of one stream.
    ///
    /// # Errors
    /// [`LogError::Invalid`] if a part of the event is longer than the format or the log allows; then nothing was appended.
    pub fn push_event(&mut self, stream: &StreamId, event: &NewEvent) -> Result<(), LogError> {
        check_event(event)?;
        let from = self.bodies.len();
        put_bytes(&mut self.bodies, stream.as_str().as_bytes());
        put_bytes(&mut self.bodies, &event.data);
        put_long(&mut self.bodies, 1);
        let version_at = self.push_f(|out| event::encode(out, event));
        self.mark(from, Some(version_at), event.time)
    }

    /// Appends a mark in the life of the stream named `stream`, which takes the version given for it when it is placed.
    ///
    /// # Errors
    /// As [`Encoded::push_event`].
    pub fn push_mark(&mut self, stream: &[u8], mark: life::Mark, by: &str, with: MarkWith<'_>) -> Result<(), LogError> {
        let from = self.bodies.len();
        put_bytes(&mut self.bodies, stream);
        // Without a value, as a table's tombstones are: a look at it tells marks from events.
        put_nullable(&mut self.bodies, None);
        put_long(&mut self.bodies, if matches!(with, MarkWith::Snapshot(_)) { 2 } else { 1 });
        let version_at = self.push_f(|out| event::encode_mark(out, mark, by, with));
        if let MarkWith::Snapshot(snapshot) = with {
            put_bytes(&mut self.bodies, event::SNAPSHOT.as_bytes());
            put_bytes(&mut self.bodies, &snapshot.data);
        }
        self.mark(from, Some(version_at), None)
    }

    /// Appends header `f`; returns the place of the version in it.
    fn push_f(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> usize {
        let bodies = &mut self.bodies;
        put_bytes(bodies, event::NAME.as_bytes());
        // The header is encoded behind room for the shortest length; the rare longer one moves it.
        let length_at = bodies.len();
        bodies.push(0);
        encode(bodies);
        let end = bodies.len();
        put_long(bodies, size(end - length_at - 1));
        let version_at = length_at + bodies.len() - end;
        if bodies.len() == end + 1 {
            bodies.swap_remove(length_at);
        } else {
            let length = bodies.split_off(end);
            bodies.splice(length_at..=length_at, length);
        }
        version_at
    }

    /// Appends a plain record.
    ///
    /// # Errors
    /// [`LogError::Invalid`] if it is longer than the log allows; then nothing was appended.
    pub fn push_record(&mut self, record: &NewRecord) -> Result<(), LogError> {
        let (from, bodies) = (self.bodies.len(), &mut self.bodies);
        put_nullable(bodies, record.key.as_deref());
        put_nullable(bodies, record.value.as_deref());
        put_long(bodies, size(record.headers.len()));
        for (name, value) in &record.headers {
            put_bytes(bodies, name.as_bytes());
            put_nullable(bodies, value.as_deref());
        }
        self.mark(from, None, record.time)
    }

    fn mark(&mut self, from: usize, version_at: Option<usize>, time: Option<Timestamp>) -> Result<(), LogError> {
        let end = self.bodies.len();
        let refusal = match (end - from <= MAX_RECORD_LEN, end <= MAX_ENCODED_LEN) {
            (false, _) => Some(format!("a record has {} bytes, at most {MAX_RECORD_LEN} are allowed", end - from)),
            (_, false) => Some(format!("more than {MAX_ENCODED_LEN} bytes of records for one partition")),
            _ => None,
        };
        if let Some(reason) = refusal {
            self.bodies.truncate(from);
            return Err(LogError::Invalid { field: "record".into(), reason });
        }
        self.marks.push(Mark { end, version_at, time });
        Ok(())
    }
}

/// Refuses what header `f` has no room for.
fn check_event(event: &NewEvent) -> Result<(), LogError> {
    let refuse = |field: &str, reason: &str| Err(LogError::Invalid { field: field.into(), reason: reason.into() });
    if !(1..=255).contains(&event.kind.len()) {
        return refuse("type", "an event's type has 1 to 255 bytes");
    }
    if event.tags.len() > NewEvent::MAX_TAGS {
        return refuse("tags", "an event has at most 64 tags");
    }
    let mut tags = BTreeSet::new();
    if !event.tags.iter().all(|tag| tags.insert(tag)) {
        return refuse("tags", "a tag was given twice");
    }
    let mut names = BTreeSet::new();
    for (name, _) in &event.attributes {
        if !(1..=255).contains(&name.len()) {
            return refuse("attributes", "an attribute's name has 1 to 255 bytes");
        }
        if !names.insert(name) {
            return refuse("attributes", "an attribute was given twice");
        }
    }
    Ok(())
}

/// Builds one batch: what a group writes to one partition.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: Vec<u8>,
    base_offset: Offset,
    count: u32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
}

impl BatchBuilder {
    /// An empty batch whose first record will have `base_offset`.
    #[must_use]
    pub fn new(base_offset: Offset) -> Self {
        Self::with_capacity(base_offset, HEADER_LEN)
    }

    /// The same with room for so many bytes, header included.
    #[must_use]
    pub fn with_capacity(base_offset: Offset, bytes: usize) -> Self {
        let mut header = Vec::with_capacity(bytes.max(HEADER_LEN));
        header.resize(HEADER_LEN, 0);
        Self { bytes: header, base_offset, count: 0, base_timestamp: Timestamp::default(), max_timestamp: Timestamp::new(i64::MIN) }
    }

    /// Number of records so far.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Offset of the next record.
    #[must_use]
    pub const fn end_offset(&self) -> Offset {
        self.base_offset.plus(self.count as u64)
    }

    /// Bytes so far, header included.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    /// Places `records` behind those already there; the caller sees to it that a batch stays within [`super::MAX_BATCH_LEN`].
    /// Events take versions from `first_version` on (plain records ignore it), records without a time of their own take `now`.
    /// Returns the byte place of the first one in the batch.
    pub fn push(&mut self, records: &Encoded, first_version: StreamVersion, now: Timestamp) -> u32 {
        let start = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes.reserve(records.max_len());
        let mut from = 0;
        for (place, mark) in (0_u64..).zip(&records.marks) {
            let timestamp = mark.time.unwrap_or(now);
            if self.count == 0 {
                self.base_timestamp = timestamp;
            }
            self.max_timestamp = self.max_timestamp.max(timestamp);
            let timestamp_delta = timestamp.get().wrapping_sub(self.base_timestamp.get());
            let offset_delta = i64::from(self.count);
            let body = &records.bodies[from..mark.end];
            put_long(&mut self.bytes, size(1 + long_len(timestamp_delta) + long_len(offset_delta) + body.len()));
            self.bytes.push(0);
            put_long(&mut self.bytes, timestamp_delta);
            put_long(&mut self.bytes, offset_delta);
            let body_at = self.bytes.len();
            self.bytes.extend_from_slice(body);
            if let Some(version_at) = mark.version_at {
                let at = body_at + version_at - from;
                self.bytes[at..at + 8].copy_from_slice(&first_version.plus(place).get().to_be_bytes());
            }
            from = mark.end;
            self.count += 1;
        }
        start
    }

    /// The finished batch, checksummed. `epoch` is the number of this start of the server.
    #[must_use]
    pub fn finish(mut self, epoch: i32) -> Bytes {
        let length = i32::try_from(self.bytes.len() - UNCOUNTED).unwrap_or(i32::MAX);
        let count = self.count.cast_signed();
        let mut header = Vec::with_capacity(HEADER_LEN);
        header.extend_from_slice(&self.base_offset.get().to_be_bytes());
        header.extend_from_slice(&length.to_be_bytes());
        header.extend_from_slice(&epoch.to_be_bytes());
        header.push(MAGIC);
        header.extend_from_slice(&[0; 4]); // checksum, below
        header.extend_from_slice(&0_i16.to_be_bytes());
        header.extend_from_slice(&(count - 1).max(0).to_be_bytes());
        header.extend_from_slice(&self.base_timestamp.get().to_be_bytes());
        header.extend_from_slice(&self.max_timestamp.get().to_be_bytes());
        header.extend_from_slice(&(-1_i64).to_be_bytes()); // producer id
        header.extend_from_slice(&(-1_i16).to_be_bytes()); // producer epoch
        header.extend_from_slice(&(-1_i32).to_be_bytes()); // base sequence
        header.extend_from_slice(&count.to_be_bytes());
        self.bytes[..HEADER_LEN].copy_from_slice(&header);
        let checksum = crc32c::crc32c(&self.bytes[CHECKED_FROM..]);
        self.bytes[CHECKED_FROM - 4..CHECKED_FROM].copy_from_slice(&checksum.to_be_bytes());
        // Room was made for the longest lengths and deltas; what is kept in memory should take what it counts.
        if self.bytes.capacity() > self.bytes.len() + self.bytes.len() / 16 {
            self.bytes.shrink_to_fit();
        }
        Bytes::from(self.bytes)
    }
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_long(out, size(bytes.len()));
    out.extend_from_slice(bytes);
}

pub(super) fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => put_bytes(out, bytes),
        None => put_long(out, -1),
    }
}
