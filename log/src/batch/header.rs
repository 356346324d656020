//! The 61 bytes before a batch's records, read in place and checked.
//!
//! Called wherever batches come from a file: nothing behind the header is looked at before its checksum was compared.
//! Format: `log/FORMAT.md`, "Batches" (Kafka's RecordBatch v2, big-endian).
#![deny(clippy::indexing_slicing)]

use super::{compression, varint::Cursor};
use crate::{
    ids::{Offset, Timestamp},
    topic::Compression,
};

/// Bytes before the first record.
pub const HEADER_LEN: usize = 61;
/// Where the checksummed part begins (attributes to end).
pub(crate) const CHECKED_FROM: usize = 21;
/// Bytes that the length field does not count: base offset and itself.
pub(crate) const UNCOUNTED: usize = 12;
/// Largest batch that is read or written, header included: a group of 16 MiB and room for what placing adds.
pub const MAX_BATCH_LEN: usize = 20 << 20;
const _: () = assert!(crate::config::MAX_GROUP_BYTES + (1 << 20) <= MAX_BATCH_LEN as u64, "a group may be one batch");
pub(crate) const MAGIC: u8 = 2;
/// Attribute of a batch whose base timestamp is the time from which on its tombstones may go.
pub(super) const DELETE_HORIZON: u16 = 0x40;

/// What is wrong with bytes, and where in them; the caller knows which file they are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} (byte {at} of the batch)")]
pub struct Flaw {
    /// Byte place in what was given.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl Flaw {
    pub(crate) const fn new(at: usize, what: &'static str) -> Self {
        Self { at, what }
    }
}

/// Header of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Length of the whole batch in bytes, this header included.
    pub length: usize,
    /// Number of the start of the server that wrote it.
    pub epoch: i32,
    /// CRC-32C of everything from the attributes on.
    pub checksum: u32,
    /// How the records behind the header are compressed.
    pub compression: Compression,
    /// Offset of the last record (inclusive), less the base offset.
    pub last_offset_delta: u32,
    /// From when on its tombstones may go, once compaction has said so.
    pub delete_horizon: Option<Timestamp>,
    /// Timestamp that the records' deltas count from.
    pub base_timestamp: Timestamp,
    /// Largest timestamp of a record.
    pub max_timestamp: Timestamp,
    /// Number of records.
    pub count: u32,
}

impl BatchHeader {
    /// Reads a header from the first [`HEADER_LEN`] bytes; the records need not be there yet, so this is how a scan finds out
    /// how much to read.
    ///
    /// # Errors
    /// Where a field cannot be: too short, a length out of bounds, another format, counts that contradict each other.
    pub fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        let Some(fields) = Fields::take(bytes) else {
            return Err(Flaw::new(bytes.len(), "the batch ends within its header"));
        };
        if fields.magic != MAGIC {
            return Err(Flaw::new(16, "not a batch of format 2"));
        }
        let base_offset = u64::try_from(fields.base_offset).map_err(|_| Flaw::new(0, "the base offset is negative"))?;
        let length = usize::try_from(fields.length).ok().and_then(|counted| counted.checked_add(UNCOUNTED));
        let Some(length) = length.filter(|length| (HEADER_LEN..=MAX_BATCH_LEN).contains(length)) else {
            return Err(Flaw::new(8, "the batch's length is out of bounds"));
        };
        let Some(compression) = compression::of_attributes(fields.attributes) else {
            return Err(Flaw::new(CHECKED_FROM, "the batch is compressed in a way that this build does not read"));
        };
        let last_offset_delta = u32::try_from(fields.last_offset_delta).map_err(|_| Flaw::new(23, "the last offset is negative"))?;
        let count = u32::try_from(fields.count).map_err(|_| Flaw::new(57, "the number of records is negative"))?;
        if u64::from(count) > u64::from(last_offset_delta) + 1 {
            return Err(Flaw::new(57, "the batch has more records than offsets"));
        }
        if base_offset.checked_add(u64::from(last_offset_delta) + 1).is_none() {
            return Err(Flaw::new(0, "the offsets run past what can be numbered"));
        }
        let has_horizon = fields.attributes.cast_unsigned() & DELETE_HORIZON != 0;
        Ok(Self {
            base_offset: Offset::new(base_offset),
            length,
            epoch: fields.epoch,
            checksum: fields.checksum,
            compression,
            last_offset_delta,
            delete_horizon: has_horizon.then_some(Timestamp::new(fields.base_timestamp)),
            base_timestamp: Timestamp::new(fields.base_timestamp),
            max_timestamp: Timestamp::new(fields.max_timestamp),
            count,
        })
    }

    /// Reads the header of a whole batch and compares its checksum; `bytes` may hold more behind the batch.
    ///
    /// # Errors
    /// As [`BatchHeader::parse`], and when the batch is cut short or its checksum differs.
    pub fn check(bytes: &[u8]) -> Result<Self, Flaw> {
        let header = Self::parse(bytes)?;
        let Some(checked) = bytes.get(CHECKED_FROM..header.length) else {
            return Err(Flaw::new(bytes.len(), "the batch is cut short"));
        };
        if crc32c::crc32c(checked) != header.checksum {
            return Err(Flaw::new(17, "the checksum of the batch differs"));
        }
        Ok(header)
    }

    /// Offset after the last record (exclusive).
    #[must_use]
    pub const fn end_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as u64 + 1)
    }
}

struct Fields {
    base_offset: i64,
    length: i32,
    epoch: i32,
    magic: u8,
    checksum: u32,
    attributes: i16,
    last_offset_delta: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
}

impl Fields {
    fn take(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let fields = Self {
            base_offset: i64::from_be_bytes(cursor.array()?),
            length: i32::from_be_bytes(cursor.array()?),
            epoch: i32::from_be_bytes(cursor.array()?),
            magic: cursor.byte()?,
            checksum: u32::from_be_bytes(cursor.array()?),
            attributes: i16::from_be_bytes(cursor.array()?),
            last_offset_delta: i32::from_be_bytes(cursor.array()?),
            base_timestamp: i64::from_be_bytes(cursor.array()?),
            max_timestamp: i64::from_be_bytes(cursor.array()?),
            count: {
                // Producer id, epoch and base sequence: ours are always -1, others' are kept and not looked at here.
                cursor.take(8 + 2 + 4)?;
                i32::from_be_bytes(cursor.array()?)
            },
        };
        Some(fields)
    }
}
