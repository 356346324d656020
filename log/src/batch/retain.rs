//! A batch without some of its records, as Kafka's cleaner leaves one: offsets stay where they are, with holes between them. Of
//! events that must leave a trace a blank stays.
//!
//! Called by whoever has segments written anew, on whole, checked, uncompressed batches. Invariants: what is kept is what it was, byte for
//! byte but for how its time is counted; base offset and last offset stay those of the batch; a blank has no byte that its event had beyond
//! stream, version, type and tags.
#![deny(clippy::indexing_slicing)]

use super::{
    compression::finish,
    decode::{StoredRecord, StoredRecords},
    encode::{put_bytes, put_nullable},
    event,
    header::{BatchHeader, DELETE_HORIZON, Flaw, HEADER_LEN},
    varint::{Cursor, long_len, put_long, size},
};
use crate::{ids::Timestamp, life::Blank, topic::Compression};

/// Byte places of what changes in the header; lengths and checksum are seen to by [`finish`].
const ATTRIBUTES: std::ops::Range<usize> = 21..23;
const BASE_TIMESTAMP: std::ops::Range<usize> = 27..35;
const MAX_TIMESTAMP: std::ops::Range<usize> = 35..43;
const COUNT: std::ops::Range<usize> = 57..61;

/// What is kept of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All of it.
    Whole,
    /// A blank; of one that is such a blank, or of which less is left already, all of it. Only of events.
    Blank(Blank),
    /// Nothing.
    Nothing,
}

impl Kept {
    /// What that means for a record as it is.
    pub(crate) fn of(self, record: &StoredRecord<'_>) -> Self {
        match self {
            Self::Blank(blank) if record.blank().is_some_and(|is| is == blank || is == Blank::Removed) => Self::Whole,
            kept => kept,
        }
    }
}

/// The batch with what `keeps` says of its records; none if that is nothing. With `delete_horizon` it also says from when on its
/// tombstones may go, which stands in place of the time that records' times are counted from.
///
/// # Errors
/// Where the batch cannot be followed, and where what is to be a blank is no event.
pub(crate) fn retain(
    batch: &[u8],
    delete_horizon: Option<Timestamp>,
    mut keeps: impl FnMut(&StoredRecord<'_>) -> Kept,
) -> Result<Option<Vec<u8>>, Flaw> {
    let header = BatchHeader::parse(batch)?;
    let cut_short = Flaw::new(batch.len(), "the batch is cut short");
    let base_timestamp = delete_horizon.unwrap_or(header.base_timestamp);
    let mut out = batch.get(..HEADER_LEN).ok_or(cut_short)?.to_vec();
    let (mut count, mut newest) = (0_u32, Timestamp::new(i64::MIN));
    let mut records = StoredRecords::from(batch, HEADER_LEN)?;
    while let Some(record) = records.next() {
        let record = record?;
        let bytes = batch.get(record.start..records.place()).ok_or(cut_short)?;
        let time = record.timestamp.get().wrapping_sub(base_timestamp.get());
        match keeps(&record).of(&record) {
            Kept::Nothing => continue,
            Kept::Blank(blank) => {
                let offset = record.offset.get() - header.base_offset.get();
                put_blank(&mut out, &record, time, offset, blank).ok_or(Flaw::new(record.start, "what is to be a blank is no event"))?;
            }
            Kept::Whole if base_timestamp == header.base_timestamp => out.extend_from_slice(bytes),
            Kept::Whole => put_with_time(&mut out, bytes, time).ok_or(cut_short)?,
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

/// Appends what is left of an event. Format: `log/FORMAT.md`, "Blanks".
fn put_blank(out: &mut Vec<u8>, record: &StoredRecord<'_>, time: i64, offset: u64, blank: Blank) -> Option<()> {
    let mut header = Vec::new();
    event::encode_blank(&mut header, record.f?, blank)?;
    let mut body = vec![0];
    put_long(&mut body, time);
    put_long(&mut body, i64::try_from(offset).ok()?);
    put_nullable(&mut body, record.key);
    put_nullable(&mut body, None);
    put_long(&mut body, 1);
    put_bytes(&mut body, event::NAME.as_bytes());
    put_bytes(&mut body, &header);
    put_bytes(out, &body);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        batch::{BatchBuilder, Encoded},
        ids::{EventId, Offset, StreamVersion},
        record::{NewEvent, NewRecord},
    };

    fn keep(is_kept: bool) -> Kept {
        if is_kept { Kept::Whole } else { Kept::Nothing }
    }

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
                let left = retain(&whole, horizon, |record| keep(is_kept(record.offset.get()))).expect("a batch").expect("some are kept");
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
        assert_eq!(retain(&batch(&[Some("a"), None]), None, |_| Kept::Nothing), Ok(None));
    }

    #[test]
    fn a_horizon_stays_until_it_is_another() {
        let horizon = Timestamp::new(77);
        let first = retain(&batch(&[None, Some("b")]), Some(horizon), |_| Kept::Whole).expect("a batch").expect("all are kept");
        let second = retain(&first, None, |record| keep(record.value.is_none())).expect("a batch").expect("one is kept");
        assert_eq!(BatchHeader::parse(&second).map(|header| header.delete_horizon), Ok(Some(horizon)));
        assert_eq!(records(&second), [(40, 1000, None)]);
    }

    /// Three events of a stream, each with all that an event may have.
    fn events() -> Vec<u8> {
        let mut encoded = Encoded::default();
        for place in 0..3 {
            let event = NewEvent {
                data: "secret data".into(),
                content_type: Some("secret/type".into()),
                event_id: Some(EventId::new(*b"secret event id.")),
                correlation_id: Some("secret correlation".into()),
                causation_id: Some("secret causation".into()),
                schema: Some("secret schema".into()),
                tags: vec!["order:1".parse().expect("a tag"), format!("line:{place}").parse().expect("a tag")],
                attributes: vec![("name".into(), "secret attribute".into())],
                time: Some(Timestamp::new(2000 - place)),
                kind: format!("Kind{place}").into(),
            };
            encoded.push_event(&"stream".parse().expect("a name"), &event).expect("within limits");
        }
        let mut builder = BatchBuilder::new(Offset::new(40));
        builder.push(&encoded, StreamVersion::new(7), Timestamp::new(0));
        builder.finish(7).to_vec()
    }

    /// What must be left of an event, and whether it is.
    #[derive(Clone, Debug, PartialEq)]
    struct Trace {
        offset: u64,
        time: Timestamp,
        stream: Option<Vec<u8>>,
        version: StreamVersion,
        kind: String,
        tags: Vec<String>,
        has_data: bool,
        blank: Option<Blank>,
    }

    fn traces(batch: &[u8]) -> Vec<Trace> {
        BatchHeader::check(batch).expect("its checksum holds");
        let all = StoredRecords::from(batch, HEADER_LEN).expect("a batch").map(|record| record.expect("a record"));
        let trace = |record: StoredRecord<'_>| {
            let event = record.posted().expect("it was an event");
            Trace {
                offset: record.offset.get(),
                time: record.timestamp,
                stream: record.key.map(<[u8]>::to_vec),
                version: event.version,
                kind: event.kind.to_owned(),
                tags: event.tags().map(str::to_owned).collect(),
                has_data: record.value.is_some(),
                blank: record.blank(),
            }
        };
        all.map(trace).collect()
    }

    #[test]
    fn a_blank_has_the_place_stream_version_type_tags_and_time_of_its_event_and_no_other_byte() {
        let whole = events();
        let before = traces(&whole);
        for blank in [Blank::Removed, Blank::Redacted] {
            for blanks in 0..8_u64 {
                let is_blank = |offset: u64| blanks >> (offset - 40) & 1 == 1;
                let kept = |record: &StoredRecord<'_>| if is_blank(record.offset.get()) { Kept::Blank(blank) } else { Kept::Whole };
                let left = retain(&whole, None, kept).expect("a batch").expect("all leave something");
                let expected = before.clone().into_iter().map(|mut trace| {
                    if is_blank(trace.offset) {
                        (trace.has_data, trace.blank) = (false, Some(blank));
                    }
                    trace
                });
                assert_eq!(traces(&left), expected.collect::<Vec<_>>(), "{blanks:b}");
                let header = BatchHeader::parse(&left).expect("a header");
                assert_eq!((header.count, header.end_offset().get(), header.max_timestamp.get()), (3, 43, 2000));
                let secrets = left.windows(6).filter(|bytes| *bytes == b"secret").count() as u32;
                assert_eq!(secrets, 7 * (3 - blanks.count_ones()), "{blanks:b}");
                assert_eq!(left == whole, blanks == 0);
            }
        }
    }

    #[test]
    fn a_blank_becomes_less_and_never_more() {
        let all = |batch: &[u8], blank| retain(batch, None, |_| Kept::Blank(blank)).expect("a batch").expect("all leave something");
        let (redacted, removed) = (all(&events(), Blank::Redacted), all(&events(), Blank::Removed));
        assert_eq!((all(&redacted, Blank::Redacted), all(&removed, Blank::Removed)), (redacted.clone(), removed.clone()));
        assert_eq!((all(&redacted, Blank::Removed), all(&removed, Blank::Redacted)), (removed.clone(), removed));
        assert!(retain(&batch(&[Some("a")]), None, |_| Kept::Blank(Blank::Removed)).is_err(), "there is nothing to be told of a record");
    }
}
