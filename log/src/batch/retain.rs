//! A batch without some of its records, as Kafka's cleaner leaves one: offsets stay where they are, with holes between them.
//!
//! Called by compaction on whole, checked, uncompressed batches. Invariants: what is kept is what it was, byte for byte but for
//! how its time is counted; base offset and last offset stay those of the batch.
#![deny(clippy::indexing_slicing)]

use super::{
    compression::finish,
    decode::{StoredRecord, StoredRecords},
    header::{BatchHeader, DELETE_HORIZON, Flaw, HEADER_LEN},
    varint::{Cursor, long_len, put_long, size},
};
use crate::{ids::Timestamp, topic::Compression};

/// Byte places of what changes in the header; lengths and checksum are seen to by [`finish`].
const ATTRIBUTES: std::ops::Range<usize> = 21..23;
const BASE_TIMESTAMP: std::ops::Range<usize> = 27..35;
const MAX_TIMESTAMP: std::ops::Range<usize> = 35..43;
const COUNT: std::ops::Range<usize> = 57..61;

/// The batch with those records that `keeps` says; none if that are none. With `delete_horizon` it also says from when on its
/// tombstones may go, which stands in place of the time that records' times are counted from.
///
/// # Errors
/// Where the batch cannot be followed.
pub(crate) fn retain(
    batch: &[u8],
    delete_horizon: Option<Timestamp>,
    mut keeps: impl FnMut(&StoredRecord<'_>) -> bool,
) -> Result<Option<Vec<u8>>, Flaw> {
    let header = BatchHeader::parse(batch)?;
    let cut_short = Flaw::new(batch.len(), "the batch is cut short");
    let base_timestamp = delete_horizon.unwrap_or(header.base_timestamp);
    let mut out = batch.get(..HEADER_LEN).ok_or(cut_short)?.to_vec();
    let (mut count, mut newest) = (0_u32, Timestamp::new(i64::MIN));
    let mut records = StoredRecords::from(batch, HEADER_LEN)?;
    while let Some(record) = records.next() {
        let record = record?;
        if !keeps(&record) {
            continue;
        }
        let bytes = batch.get(record.start..records.place()).ok_or(cut_short)?;
        if base_timestamp == header.base_timestamp {
            out.extend_from_slice(bytes);
        } else {
            put_with_time(&mut out, bytes, record.timestamp.get().wrapping_sub(base_timestamp.get())).ok_or(cut_short)?;
        }
        (count, newest) = (count + 1, newest.max(record.timestamp));
    }
    if count == 0 {
        return Ok(None);
    }
    let mut put = |place: std::ops::Range<usize>, bytes: &[u8]| {
        if let Some(field) = out.get_mut(place) {
            field.copy_from_slice(bytes);
        }
    };
    if delete_horizon.is_some() {
        put(ATTRIBUTES, &DELETE_HORIZON.to_be_bytes());
    }
    put(BASE_TIMESTAMP, &base_timestamp.get().to_be_bytes());
    put(MAX_TIMESTAMP, &newest.get().to_be_bytes());
    put(COUNT, &count.to_be_bytes());
    finish(&mut out, Compression::None).ok_or(Flaw::new(0, "the batch is too long"))?;
    Ok(Some(out))
}

/// Appends a record whose time is counted from elsewhere.
fn put_with_time(out: &mut Vec<u8>, record: &[u8], delta: i64) -> Option<()> {
    let mut cursor = Cursor::new(record);
    cursor.count()?;
    let attributes = cursor.byte()?;
    cursor.long()?;
    let rest = cursor.rest();
    put_long(out, size(1 + long_len(delta) + rest.len()));
    out.push(attributes);
    put_long(out, delta);
    out.extend_from_slice(rest);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        batch::{BatchBuilder, Encoded},
        ids::{Offset, StreamVersion},
        record::NewRecord,
    };

    fn batch(values: &[Option<&'static str>]) -> Vec<u8> {
        let mut encoded = Encoded::default();
        for (place, value) in (0..).zip(values) {
            let value = value.map(Into::into);
            let record = NewRecord {
                key: Some(format!("k{place}").into()),
                value,
                time: Some(Timestamp::new(1000 + place * 10)),
                ..NewRecord::default()
            };
            encoded.push_record(&record).expect("within limits");
        }
        let mut builder = BatchBuilder::new(Offset::new(40));
        builder.push(&encoded, StreamVersion::FIRST, Timestamp::new(0));
        builder.finish(7).to_vec()
    }

    /// Offset, time and value of each record.
    fn records(batch: &[u8]) -> Vec<(u64, i64, Option<String>)> {
        BatchHeader::check(batch).expect("its checksum holds");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let all = StoredRecords::from(batch, HEADER_LEN).expect("a batch").map(|record| record.expect("a record"));
        all.map(|record| (record.offset.get(), record.timestamp.get(), record.value.map(text))).collect()
    }

    #[test]
    fn what_is_kept_stays_where_and_what_it_was() {
        let whole = batch(&[Some("a"), None, Some("c"), Some("d")]);
        for horizon in [None, Some(Timestamp::new(5_000_000_000_000))] {
            for kept in 1..16_u64 {
                let is_kept = |offset: u64| kept >> (offset - 40) & 1 == 1;
                let left = retain(&whole, horizon, |record| is_kept(record.offset.get())).expect("a batch").expect("some are kept");
                let expected: Vec<_> = records(&whole).into_iter().filter(|(offset, ..)| is_kept(*offset)).collect();
                assert_eq!(records(&left), expected, "{kept:b}");
                let (before, header) = (BatchHeader::parse(&whole).expect("a header"), BatchHeader::parse(&left).expect("a header"));
                assert_eq!((header.base_offset, header.end_offset(), header.epoch), (before.base_offset, before.end_offset(), 7));
                assert_eq!((header.count, header.delete_horizon), (kept.count_ones(), horizon));
                assert_eq!(Some(header.max_timestamp.get()), expected.iter().map(|(_, time, _)| *time).max());
            }
        }
    }

    #[test]
    fn a_batch_of_which_nothing_is_kept_is_none() {
        assert_eq!(retain(&batch(&[Some("a"), None]), None, |_| false), Ok(None));
    }

    #[test]
    fn a_horizon_stays_until_it_is_another() {
        let horizon = Timestamp::new(77);
        let first = retain(&batch(&[None, Some("b")]), Some(horizon), |_| true).expect("a batch").expect("all are kept");
        let second = retain(&first, None, |record| record.value.is_none()).expect("a batch").expect("one is kept");
        assert_eq!(BatchHeader::parse(&second).map(|header| header.delete_horizon), Ok(Some(horizon)));
        assert_eq!(records(&second), [(40, 1000, None)]);
    }
}
