//! Decode undoes encode; no bytes panic the decoder; the size promised is kept.

use std::sync::Arc;

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    ids::{PartitionId, StreamId, Tag, TopicId},
    record::{NewEvent, NewRecord, Run},
    topic::{Topic, TopicKind, TopicSettings},
};

fn topic(kind: TopicKind) -> Arc<Topic> {
    let name = "t".parse().expect("a valid name");
    Arc::new(Topic { name, id: TopicId::new([7; 16]), settings: TopicSettings::new(kind, 1) })
}

fn run(kind: TopicKind, batch: Bytes, first_offset: Offset, count: u32, start: u32) -> Run {
    Run {
        topic: topic(kind),
        partition: PartitionId::new(0),
        first_offset,
        first_position: Position::new(900),
        count,
        recorded_at: Timestamp::new(0),
        batch,
        start,
    }
}

fn text(bytes: std::ops::Range<usize>) -> impl Strategy<Value = Arc<str>> {
    vec(proptest::char::range('a', 'z'), bytes).prop_map(|chars| chars.into_iter().collect::<String>().into())
}

fn blob(bytes: std::ops::Range<usize>) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), bytes).prop_map(Bytes::from)
}

fn tag() -> impl Strategy<Value = Tag> {
    text(1..Tag::MAX_LEN + 1).prop_map(|text| text.parse().expect("a valid tag"))
}

prop_compose! {
    fn event()(
        kind in text(1..255), data in blob(0..300), content_type in option::of(text(0..40)), event_id in option::of(any::<[u8; 16]>()),
        correlation_id in option::of(blob(0..60)), causation_id in option::of(blob(0..60)), schema in option::of(text(0..60)),
        tags in proptest::collection::btree_set(tag(), 0..5), attributes in proptest::collection::btree_map(text(1..255), text(0..300), 0..4), time in option::of(any::<i64>()),
    ) -> NewEvent {
        NewEvent {
            kind, data, content_type, event_id: event_id.map(EventId::new), correlation_id, causation_id, schema,
            tags: tags.into_iter().collect(), attributes: attributes.into_iter().collect(), time: time.map(Timestamp::new),
        }
    }
}

prop_compose! {
    fn record()(
        key in option::of(blob(0..40)), value in option::of(blob(0..200)), time in option::of(any::<i64>()),
        headers in vec((text(0..5), option::of(blob(0..9))), 0..4),
    ) -> NewRecord {
        NewRecord { key, value, headers, time: time.map(Timestamp::new) }
    }
}

proptest! {
    #[test]
    fn decoding_an_events_batch_gives_the_events_back(units in vec(vec(event(), 1..5), 1..5), base in 0..u64::MAX / 2, now in any::<i64>()) {
        let stream: StreamId = "account-1".parse().expect("a valid id");
        let (base, now) = (Offset::new(base), Timestamp::new(now));
        let mut builder = BatchBuilder::new(base);
        let mut runs = Vec::new();
        for events in &units {
            let mut encoded = Encoded::default();
            for event in events {
                encoded.push_event(&stream, event).expect("within limits");
            }
            let (first, before) = (builder.end_offset(), builder.encoded_len());
            let start = builder.push(&encoded, StreamVersion::new(40), now);
            prop_assert!(builder.encoded_len() - before <= encoded.max_len());
            runs.push((first, encoded.count(), start));
        }
        let batch = builder.finish(3);
        let header = BatchHeader::check(&batch).expect("what was built is whole");
        prop_assert_eq!((header.base_offset, header.epoch, header.length), (base, 3, batch.len()));
        prop_assert_eq!(skip(&batch, 61, header.count).expect("followed to the end") as usize, batch.len());
        for ((first, count, start), events) in runs.into_iter().zip(&units) {
            let run = run(TopicKind::Events, batch.clone(), first, count, start);
            let views = run.records().collect::<Result<Vec<_>, _>>().expect("decodes");
            prop_assert_eq!(views.len(), events.len());
            for (place, (view, event)) in (0_u64..).zip(views.iter().zip(events)) {
                prop_assert_eq!((view.offset, view.position), (first.plus(place), Position::new(900 + place)));
                prop_assert_eq!(view.timestamp, event.time.unwrap_or(now));
                prop_assert_eq!((view.key, view.value), (Some(b"account-1".as_slice()), Some(&event.data[..])));
                let found = view.event().expect("an event");
                prop_assert_eq!(found.version, StreamVersion::new(40 + place));
                prop_assert_eq!((found.kind, found.content_type, found.schema), (&*event.kind, event.content_type.as_deref(), event.schema.as_deref()));
                prop_assert_eq!((found.event_id, found.correlation_id, found.causation_id), (event.event_id, event.correlation_id.as_deref(), event.causation_id.as_deref()));
                prop_assert_eq!(found.tags().collect::<Vec<_>>(), event.tags.iter().map(Tag::as_str).collect::<Vec<_>>());
                let attributes = found.attributes().map(|(k, v)| (k.into(), v.into())).collect::<Vec<(Arc<str>, Arc<str>)>>();
                prop_assert_eq!(&attributes, &event.attributes);
            }
        }
    }

    #[test]
    fn decoding_a_records_batch_gives_the_records_back(records in vec(record(), 1..20), now in any::<i64>()) {
        let mut encoded = Encoded::default();
        for record in &records {
            encoded.push_record(record).expect("within limits");
        }
        let mut builder = BatchBuilder::new(Offset::new(5));
        let start = builder.push(&encoded, StreamVersion::FIRST, Timestamp::new(now));
        let run = run(TopicKind::Records, builder.finish(1), Offset::new(5), encoded.count(), start);
        let views = run.records().collect::<Result<Vec<_>, _>>().expect("decodes");
        for (view, record) in views.iter().zip(&records) {
            prop_assert_eq!((view.key, view.value), (record.key.as_deref(), record.value.as_deref()));
            prop_assert_eq!(view.timestamp.get(), record.time.map_or(now, Timestamp::get));
            let headers = view.headers().collect::<Vec<_>>();
            prop_assert_eq!(headers, record.headers.iter().map(|(k, v)| (&**k, v.as_deref())).collect::<Vec<_>>());
            prop_assert!(view.event().is_none());
        }
        prop_assert_eq!(views.len(), records.len());
    }

    #[test]
    fn no_bytes_panic_the_decoder(mut bytes in vec(any::<u8>(), 0..400), start in 0_u32..450, count in 0_u32..50) {
        if let Some(magic) = bytes.get_mut(16) {
            *magic = 2;
        }
        if bytes.len() > 61 {
            let length = i32::try_from(bytes.len() - 12).expect("small");
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            bytes[22] &= 0xf8;
        }
        let _ = BatchHeader::check(&bytes);
        let _ = skip(&bytes, start, count);
        let _ = event::decode(&bytes).map(|view| (view.tags().count(), view.attributes().count()));
        for kind in [TopicKind::Events, TopicKind::Records] {
            for view in run(kind, Bytes::from(bytes.clone()), Offset::new(0), count, start).records().flatten() {
                let _ = (view.headers().count(), view.event());
            }
        }
    }

    #[test]
    fn a_flipped_byte_is_found(place in 0_usize..10_000, flip in 1..=255_u8) {
        let mut encoded = Encoded::default();
        let stream: StreamId = "s".parse().expect("a valid id");
        encoded.push_event(&stream, &NewEvent { kind: "Happened".into(), ..NewEvent::default() }).expect("within limits");
        let mut builder = BatchBuilder::new(Offset::new(0));
        builder.push(&encoded, StreamVersion::FIRST, Timestamp::new(0));
        let mut batch = builder.finish(0).to_vec();
        let place = place % batch.len();
        batch[place] ^= flip;
        // Base offset and epoch lie outside Kafka's checksum; `.runs` and the journal frame cover them.
        if (8..12).contains(&place) || place >= 16 {
            prop_assert!(BatchHeader::check(&batch).is_err());
        }
    }
}

#[test]
fn an_event_costs_at_most_24_bytes_beyond_what_was_given() {
    let stream: StreamId = "account-0123456789abcdef".parse().expect("a valid id");
    let event = NewEvent {
        kind: "Deposited".into(),
        data: Bytes::from(vec![b'x'; 100]),
        event_id: Some(EventId::new([1; 16])),
        ..NewEvent::default()
    };
    let mut encoded = Encoded::default();
    for _ in 0..100 {
        encoded.push_event(&stream, &event).expect("within limits");
    }
    let mut builder = BatchBuilder::new(Offset::new(1_000_000));
    builder.push(&encoded, StreamVersion::new(12_345), Timestamp::new(1_700_000_000_000));
    let given = 100 * (100 + stream.as_str().len() + event.kind.len() + 16);
    // One run in `.runs` costs at most 32 bytes.
    let overhead = (builder.finish(1).len() + 32 - given) as f64 / 100.0;
    assert!(overhead <= 24.0, "{overhead}");
}

#[test]
fn what_the_format_has_no_room_for_is_refused_and_leaves_nothing() {
    let stream: StreamId = "s".parse().expect("a valid id");
    let named = |kind: &str| NewEvent { kind: kind.into(), ..NewEvent::default() };
    let with = |key: &str| NewEvent { attributes: vec![(key.into(), "".into()), ("b".into(), "".into())], ..named("K") };
    let huge = NewEvent { data: vec![0; MAX_RECORD_LEN].into(), ..named("K") };
    let tagged = |tags: &[String]| NewEvent { tags: tags.iter().map(|tag| tag.parse().expect("a valid tag")).collect(), ..named("K") };
    let many = (0..NewEvent::MAX_TAGS + 1).map(|number| number.to_string()).collect::<Vec<_>>();
    let twice = tagged(&["a".to_owned(), "b".to_owned(), "a".to_owned()]);
    let refused = [named(""), named(&"k".repeat(256)), with(""), with(&"a".repeat(256)), with("b"), huge, tagged(&many), twice];
    assert!(Encoded::default().push_event(&stream, &tagged(&many[1..])).is_ok());
    for refused in refused {
        let mut encoded = Encoded::default();
        assert!(encoded.push_event(&stream, &refused).is_err());
        assert_eq!((encoded.count(), encoded.max_len()), (0, 0));
    }
}

#[test]
fn tags_lie_in_fields_of_kind_7_that_readers_before_them_skip() {
    let event = NewEvent { kind: "K".into(), tags: vec!["a".parse().expect("a valid tag")], ..NewEvent::default() };
    let mut value = Vec::new();
    event::encode(&mut value, &event);
    assert_eq!(value, [&[0; 8][..], b"\x01K", &[7 << 5 | 1], b"a"].concat());
    let long = NewEvent { tags: vec!["t".repeat(31).parse().expect("a valid tag")], ..event };
    value.clear();
    event::encode(&mut value, &long);
    assert_eq!(value[10..12], [7 << 5 | 31, 31]);
    assert_eq!(event::decode(&value).expect("a header").tags().collect::<Vec<_>>(), ["t".repeat(31)]);
}
