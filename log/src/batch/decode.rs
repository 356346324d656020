//! Batches into records, in place: one at a time, bounded by the bytes that are there.
//!
//! Called through [`Run::records`](crate::record::Run::records) by whoever reads, and by the segment scan. Invariant: whatever the bytes are, it ends, allocates
//! nothing, and never panics.
#![deny(clippy::indexing_slicing)]

use super::{
    EventView, RecordView, event,
    header::{BatchHeader, Flaw},
    varint::Cursor,
};
use crate::{
    error::LogError,
    ids::{Offset, Timestamp},
    life::{Blank, Mark},
    record::Run,
    topic::{Compression, TopicKind},
};

/// A record as it lies in its batch, before anyone knows its position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredRecord<'a> {
    /// Byte place of the record's length in the batch.
    pub(crate) start: usize,
    pub(crate) offset: Offset,
    pub(crate) timestamp: Timestamp,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [u8],
    pub(crate) header_count: u32,
    /// Value of the first header `f`.
    pub(crate) f: Option<&'a [u8]>,
}

/// What a record in a topic of events is.
pub(crate) enum Said<'a> {
    Event(EventView<'a>),
    Mark(Mark),
}

impl<'a> StoredRecord<'a> {
    /// What header `f` says that it is; none if it is neither.
    pub(crate) fn said(&self) -> Option<Said<'a>> {
        let header = self.f?;
        match event::decode(header) {
            Some(event) => Some(Said::Event(event)),
            None => Some(Said::Mark(event::decode_mark(header)?.mark)),
        }
    }

    /// The mark in header `f`; none if it is not a mark's.
    pub(crate) fn mark(&self) -> Option<Mark> {
        Some(event::decode_mark(self.f?)?.mark)
    }

    /// What kind of blank it is; none if it is none.
    pub(crate) fn blank(&self) -> Option<Blank> {
        // Nothing else of what is none is looked at: it has a value.
        if self.value.is_some() {
            return None;
        }
        event::decode_any(self.f?)?.1
    }

    /// The event in header `f`, also of one that was removed.
    pub(crate) fn posted(&self) -> Option<EventView<'a>> {
        event::decode_any(self.f?).map(|(event, _)| event)
    }
}

/// The records of a batch from byte place `start` on, to its end. `batch` must begin with its header, and be checked before
/// anything is believed that comes out.
pub(crate) struct StoredRecords<'a> {
    header: BatchHeader,
    cursor: Cursor<'a>,
    length: usize,
    failed: bool,
}

impl<'a> StoredRecords<'a> {
    pub(crate) fn from(batch: &'a [u8], start: usize) -> Result<Self, Flaw> {
        let header = uncompressed(batch)?;
        let Some(records) = batch.get(..header.length).and_then(|batch| batch.get(start..)) else {
            return Err(Flaw::new(start, "the batch ends before its first record"));
        };
        Ok(Self { header, cursor: Cursor::new(records), length: header.length, failed: false })
    }

    /// Byte place of the next record.
    pub(super) fn place(&self) -> usize {
        self.length - self.cursor.rest().len()
    }

    fn decode(&mut self) -> Result<StoredRecord<'a>, Flaw> {
        let start = self.place();
        let flaw = |what| Flaw::new(start, what);
        let length = self.cursor.count().ok_or(flaw("a record's length is not one"))?;
        let record = self.cursor.take(length).ok_or(flaw("a record runs past the end of its batch"))?;
        let raw = RawRecord::take(record).ok_or(flaw("a record is malformed"))?;
        if raw.offset_delta > u64::from(self.header.last_offset_delta) {
            return Err(flaw("a record's offset lies behind its batch"));
        }
        Ok(StoredRecord {
            start,
            offset: self.header.base_offset.plus(raw.offset_delta),
            timestamp: Timestamp::new(self.header.base_timestamp.get().wrapping_add(raw.timestamp_delta)),
            key: raw.key,
            value: raw.value,
            headers: raw.headers,
            header_count: raw.header_count,
            f: raw.f,
        })
    }
}

impl<'a> Iterator for StoredRecords<'a> {
    type Item = Result<StoredRecord<'a>, Flaw>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.cursor.is_empty() {
            return None;
        }
        let record = self.decode();
        self.failed = record.is_err();
        Some(record)
    }
}

/// The header of a batch whose records can be read in place.
fn uncompressed(batch: &[u8]) -> Result<BatchHeader, Flaw> {
    let header = BatchHeader::parse(batch)?;
    match header.compression {
        Compression::None => Ok(header),
        _ => Err(Flaw::new(0, "the batch is compressed where none should be")),
    }
}

struct RawRecord<'a> {
    timestamp_delta: i64,
    offset_delta: u64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: &'a [u8],
    header_count: u32,
    f: Option<&'a [u8]>,
}

impl<'a> RawRecord<'a> {
    fn take(bytes: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        cursor.byte()?; // attributes: Kafka uses none
        let timestamp_delta = cursor.long()?;
        let offset_delta = cursor.count()? as u64;
        let key = cursor.nullable()?;
        let value = cursor.nullable()?;
        let header_count = cursor.count()?;
        let headers = cursor.rest();
        let mut f = None;
        for _ in 0..header_count {
            let (name, value) = take_header(&mut cursor)?;
            if name == event::NAME {
                f.get_or_insert(value);
            }
        }
        if !cursor.is_empty() {
            return None;
        }
        Some(Self { timestamp_delta, offset_delta, key, value, headers, header_count: u32::try_from(header_count).ok()?, f: f.flatten() })
    }
}

pub(crate) fn take_header<'a>(cursor: &mut Cursor<'a>) -> Option<(&'a str, Option<&'a [u8]>)> {
    let name = std::str::from_utf8(cursor.nullable()??).ok()?;
    Some((name, cursor.nullable()?))
}

/// The records of a run, each with its offset and position; ends after the first that is not what it should be.
pub(crate) fn records_of(run: &Run) -> impl Iterator<Item = Result<RecordView<'_>, LogError>> {
    let is_event = run.topic.settings.kind == TopicKind::Events;
    let mut stored = StoredRecords::from(&run.batch, run.start as usize);
    let mut place = 0_u32;
    std::iter::from_fn(move || {
        if place == run.count {
            return None;
        }
        let expected = run.first_offset.plus(place.into());
        let next = match &mut stored {
            Ok(records) => records.next().unwrap_or(Err(Flaw::new(run.batch.len(), "the batch has fewer records than it should"))),
            Err(flaw) => Err(*flaw),
        };
        let checked = next.and_then(|record| match record.offset == expected {
            true => Ok(record),
            false => Err(Flaw::new(record.start, "a record has another offset than it should")),
        });
        let view = checked.map_err(|flaw| corrupt(run, flaw)).map(|record| RecordView {
            offset: record.offset,
            position: run.first_position.plus(place.into()),
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            headers: record.headers,
            header_count: record.header_count,
            f: record.f.filter(|_| is_event),
        });
        place = if view.is_ok() { place + 1 } else { run.count };
        Some(view)
    })
}

/// The report of a flaw in a run's batch.
pub(crate) fn corrupt(run: &Run, flaw: Flaw) -> LogError {
    LogError::Corrupt {
        file: format!("{} partition {}", run.topic.name, run.partition).into(),
        from: flaw.at as u64,
        end: run.batch.len() as u64,
        what: format!("{}, in the batch that holds offset {}", flaw.what, run.first_offset),
    }
}

/// Byte place of the record `count` records behind the one at `start`, for cutting runs.
///
/// # Errors
/// Where the records cannot be followed that far.
pub fn skip(batch: &[u8], start: u32, count: u32) -> Result<u32, Flaw> {
    let records = batch.get(start as usize..).ok_or(Flaw::new(batch.len(), "the batch ends before its first record"))?;
    let mut cursor = Cursor::new(records);
    for _ in 0..count {
        let at = batch.len() - cursor.rest().len();
        let skipped = cursor.count().and_then(|length| cursor.take(length));
        skipped.ok_or(Flaw::new(at, "a record runs past the end of its batch"))?;
    }
    u32::try_from(batch.len() - cursor.rest().len()).map_err(|_| Flaw::new(0, "the batch's length is out of bounds"))
}

/// Byte place of the record with an offset, looked for from the record at `start` on.
pub(crate) fn find(batch: &[u8], start: u32, offset: Offset) -> Result<u32, Flaw> {
    let base = uncompressed(batch)?.base_offset;
    let wanted = offset.get().checked_sub(base.get()).ok_or(Flaw::new(0, "the batch begins behind the offset"))?;
    let records = batch.get(start as usize..).ok_or(Flaw::new(batch.len(), "the batch ends before its first record"))?;
    let mut cursor = Cursor::new(records);
    while !cursor.is_empty() {
        let at = batch.len() - cursor.rest().len();
        let flaw = Flaw::new(at, "a record runs past the end of its batch");
        let record = cursor.count().and_then(|length| cursor.take(length)).ok_or(flaw)?;
        let mut fields = Cursor::new(record);
        let delta = (|| {
            fields.byte()?;
            fields.long()?;
            fields.count()
        })();
        if delta.ok_or(flaw)? as u64 == wanted {
            return u32::try_from(at).map_err(|_| flaw);
        }
    }
    Err(Flaw::new(batch.len(), "the batch does not have the offset"))
}
