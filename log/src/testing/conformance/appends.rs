//! Topics, appends, versions, preconditions, repeats.

use super::*;
use crate::{
    durability::Durability,
    ids::{EventId, RequestId, Timestamp},
    record::{Identity, RequestKey},
};

pub(super) const CASES: &[Case] = &[
    Case { name: "topics are made once and described", needs: Needs::Nothing, run: topics_are_made_once },
    Case { name: "an append is placed densely and in the order given", needs: Needs::Nothing, run: placed_in_order },
    Case { name: "what was given comes back", needs: Needs::Nothing, run: what_was_given_comes_back },
    Case { name: "every precondition judges as it says", needs: Needs::Nothing, run: every_precondition },
    Case { name: "every violated precondition is reported and nothing is written", needs: Needs::AtomicFolder, run: all_violations },
    Case { name: "a unit sees the versions before it", needs: Needs::AtomicFolder, run: versions_within_and_across_units },
    Case { name: "a repeat gets the first answer", needs: Needs::Nothing, run: repeats },
    Case { name: "an answer names how durable it is", needs: Needs::AtomicFolder, run: durability },
    Case { name: "malformed appends are refused and leave nothing", needs: Needs::Nothing, run: malformed },
    Case { name: "the order of calls is the order of the log", needs: Needs::Nothing, run: order_of_calls },
];

fn topics_are_made_once(subject: &mut dyn Subject) {
    let log = subject.log();
    let settings = TopicSettings::new(TopicKind::Events, 3);
    assert!(matches!(log.topic(&name("a")), Err(LogError::UnknownTopic { .. })));
    let made = log.create_topic(name("a"), settings).expect("it is new");
    assert_eq!((&made.name, made.settings), (&name("a"), settings));
    assert_eq!(log.create_topic(name("a"), settings).expect("the same again is no error").id, made.id);
    let others = [
        TopicSettings { partitions: 4, ..settings },
        TopicSettings { kind: TopicKind::Table, ..settings },
        TopicSettings { compression: Compression::Lz4, ..settings },
        TopicSettings { durability: Durability::Written, ..settings },
    ];
    for other in others {
        assert!(matches!(log.create_topic(name("a"), other), Err(LogError::TopicExists { .. })), "{other:?}");
    }
    for partitions in [0, TopicSettings::MAX_PARTITIONS + 1] {
        let result = log.create_topic(name("b"), TopicSettings { partitions, ..settings });
        assert!(matches!(result, Err(LogError::Invalid { .. })), "{partitions} partitions");
    }
    create(&*log, "c", TopicKind::Records, 1);
    let listed = log.topics().into_iter().filter(|topic| !topic.name.is_system()).map(|topic| topic.name.to_string());
    assert_eq!(listed.collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(log.ends(&name("a")).expect("it exists"), [Offset::new(0); 3]);
    assert!(matches!(log.ends(&name("b")), Err(LogError::UnknownTopic { .. })));
    assert_ne!(log.topic(&name("c")).expect("it exists").id, made.id);
}

fn placed_in_order(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 4);
    create(&*log, "r", TopicKind::Records, 2);
    let records = |partition, values: &[&str]| Write::Records {
        topic: name("r"),
        partition: Some(PartitionId::new(partition)),
        records: values.iter().map(|value| record("k", value)).collect(),
    };
    let first = put(&*log, writes([events_of("e", "x", &["1", "2"]), records(1, &["3"]), events_of("e", "x", &["4"])]));
    assert_eq!(first.end, first.first.plus(4));
    let home = PartitionId::for_key(b"x", 4);
    let range = |topic: &str, partition, first, last| (name(topic), partition, Offset::new(first), Offset::new(last));
    let ranges = |answer: &Appended| {
        answer.ranges.iter().map(|range| (range.topic.clone(), range.partition, range.first, range.last)).collect::<Vec<_>>()
    };
    assert_eq!(ranges(&first), [range("e", home, 0, 2), range("r", PartitionId::new(1), 0, 0)]);
    let versions = first.versions.iter().map(|at| (at.stream.as_str(), at.version.get())).collect::<Vec<_>>();
    assert_eq!(versions, [("x", 3)]);
    assert!(!first.deduplicated);
    let second = put(&*log, writes([records(1, &["5"]), records(0, &["6"])]));
    assert_eq!(second.first, first.end, "positions have no gaps");
    assert_eq!(ranges(&second), [range("r", PartitionId::new(1), 1, 1), range("r", PartitionId::new(0), 0, 0)]);
    assert!(second.versions.is_empty());
    assert!(log.head().position >= second.end, "an answer means durable and readable");
    assert_eq!(log.ends(&name("r")).expect("it exists"), [Offset::new(1), Offset::new(2)]);
    assert_eq!(log.stream_head(&name("e"), &stream("x")).expect("it has streams"), StreamHead::At(StreamVersion::new(3)));
    assert_eq!(log.stream_head(&name("e"), &stream("y")).expect("it has streams"), StreamHead::Absent);
    assert!(matches!(log.stream_head(&name("r"), &stream("x")), Err(LogError::WrongKind { .. })));
    let keyed = put(&*log, writes([Write::Records { topic: name("r"), partition: None, records: vec![record("some key", "7")] }]));
    assert_eq!(keyed.ranges[0].partition, PartitionId::for_key(b"some key", 2), "a key's hash decides");
}

fn what_was_given_comes_back(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 1);
    create(&*log, "t", TopicKind::Table, 1);
    let given = NewEvent {
        kind: "Deposited".into(),
        data: Bytes::from_static(b"\x00\xff{}"),
        content_type: Some("application/octet-stream".into()),
        event_id: Some(EventId::new([9; 16])),
        correlation_id: Some(Bytes::from_static(b"cor")),
        causation_id: Some(Bytes::from_static(b"cau")),
        schema: Some("deposit.v2".into()),
        tags: ["owner:7", "ü"].map(|tag| tag.parse().expect("a valid tag")).into(),
        attributes: vec![("traceparent".into(), "00-1-2-00".into()), ("b".into(), "".into())],
        time: Some(Timestamp::new(-5)),
    };
    let plain = NewEvent { kind: "K".into(), ..NewEvent::default() };
    let stream_write = Write::Stream { topic: name("e"), stream: stream("a ü"), events: vec![given, plain] };
    let tombstone = NewRecord {
        key: Some(Bytes::from_static(b"key")),
        value: None,
        headers: vec![("h".into(), Some(Bytes::from_static(b"1"))), ("h".into(), None), ("f".into(), Some(Bytes::new()))],
        time: None,
    };
    let answer = put(&*log, writes([stream_write, Write::Records { topic: name("t"), partition: None, records: vec![tombstone] }]));
    let mut reader = log.reader(topics(&["e", "t"], 0)).expect("in range");
    let runs = reader.read(log.head().position, ReadLimits::default()).expect("the log is whole").runs;
    let records = runs.iter().flat_map(|run| run.records()).collect::<Result<Vec<_>, _>>().expect("whole records");
    let [first, second, third] = records.as_slice() else { panic!("three records, not {}", records.len()) };
    let event = first.event().expect("it is an event");
    assert_eq!((first.key, first.value, first.timestamp.get()), (Some("a ü".as_bytes()), Some(b"\x00\xff{}".as_slice()), -5));
    assert_eq!((event.kind, event.content_type, event.schema), ("Deposited", Some("application/octet-stream"), Some("deposit.v2")));
    assert_eq!(event.event_id, Some(EventId::new([9; 16])));
    assert_eq!((event.correlation_id, event.causation_id), (Some(b"cor".as_slice()), Some(b"cau".as_slice())));
    assert_eq!(event.tags().collect::<Vec<_>>(), ["owner:7", "ü"]);
    assert_eq!(event.attributes().collect::<Vec<_>>(), [("traceparent", "00-1-2-00"), ("b", "")]);
    let event = second.event().expect("it is an event");
    assert_eq!((event.version.get(), event.kind, event.content_type, event.event_id), (2, "K", None, None));
    assert_eq!(event.tags().count(), 0);
    assert_eq!((second.value, second.timestamp), (Some(b"".as_slice()), answer.recorded_at));
    assert_eq!((third.key, third.value, third.timestamp), (Some(b"key".as_slice()), None, answer.recorded_at));
    assert_eq!(third.headers().collect::<Vec<_>>(), [("h", Some(b"1".as_slice())), ("h", None), ("f", Some(b"".as_slice()))]);
    assert!(third.event().is_none(), "a header f of others makes no event");
    assert!(runs.iter().all(|run| run.recorded_at == answer.recorded_at));
}

fn every_precondition(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 2);
    put(&*log, writes([events_of("e", "old", &["1", "2"])]));
    let version = |number| Expected::Version(StreamVersion::new(number));
    let absent = (StreamHead::Absent, "new");
    let at = (StreamHead::At(StreamVersion::new(2)), "old");
    for (head, id) in [absent, at] {
        for expected in [Expected::Any, Expected::Absent, Expected::Exists, version(0), version(1), version(2), version(3)] {
            // Nothing is written, so that every one is judged against the same log.
            let ask = Append { preconditions: vec![expect("e", id, expected)], ..Append::default() };
            match append(&*log, ask) {
                Ok(_) => assert!(expected.holds(head), "{id} {expected}"),
                Err(LogError::Conflict { violations, .. }) => {
                    assert!(!expected.holds(head), "{id} {expected}");
                    let found = Found::Stream { stream: stream(id), expected, actual: head };
                    assert_eq!(violations, [Violation { index: 0, found }]);
                }
                Err(error) => panic!("{id} {expected}: {error}"),
            }
        }
    }
    assert_eq!(read(&*log, topics(&["e"], 0)).len(), 2, "asking writes nothing");
}

fn all_violations(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 2);
    create(&*log, "other", TopicKind::Events, 2);
    let before = put(&*log, writes([events_of("e", "a", &["1"]), events_of("other", "b", &["1", "2"])]));
    let preconditions = vec![
        expect("e", "a", Expected::Absent),
        expect("e", "a", Expected::Exists),
        expect("other", "b", Expected::Version(StreamVersion::new(1))),
        expect("other", "none", Expected::Exists),
    ];
    let one = Append { preconditions, ..writes([events_of("e", "a", &["2"]), events_of("e", "c", &["1"])]) };
    let Err(LogError::Conflict { violations, seen }) = append(&*log, one) else { panic!("three of them do not hold") };
    let at = |number| StreamHead::At(StreamVersion::new(number));
    let found = violations.iter().map(|violation| (violation.index, stands(violation).0, stands(violation).1)).collect::<Vec<_>>();
    assert_eq!(found, [(0, "a", at(1)), (2, "b", at(2)), (3, "none", StreamHead::Absent)]);
    assert!(before.end <= log.head().position && seen <= log.head().position, "a verdict rests on what is durable");
    assert_eq!(log.head().position, before.end, "a conflict writes nothing");
    assert_eq!(log.stream_head(&name("e"), &stream("c")).expect("it has streams"), StreamHead::Absent);
    let guarded = Append {
        preconditions: vec![expect("other", "b", Expected::Version(StreamVersion::new(2)))],
        ..writes([events_of("e", "a", &["2"])])
    };
    let after = put(&*log, guarded);
    assert_eq!(after.versions[0].version.get(), 2, "a belief about a stream that is not written to");
}

fn versions_within_and_across_units(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 1);
    // Enqueued together: the second one's belief is about what the first one writes.
    let version = |number| Expected::Version(StreamVersion::new(number));
    let with = |expected, data: &[&str]| Append { preconditions: vec![expect("e", "s", expected)], ..writes([events_of("e", "s", data)]) };
    let futures = [
        log.append(with(Expected::Absent, &["1", "2"])),
        log.append(with(version(2), &["3"])),
        log.append(with(version(2), &["never"])),
        log.append(with(version(3), &["4"])),
    ];
    let answers = futures.map(|future| block_on(future.expect("there is room")));
    assert!(
        matches!(&answers[2], Err(LogError::Conflict { violations, .. }) if stands(&violations[0]).1 == StreamHead::At(StreamVersion::new(3)))
    );
    let versions = [0, 1, 3].map(|place| answers[place].as_ref().expect("its belief holds").versions[0].version.get());
    assert_eq!(versions, [2, 3, 4]);
    let found = read(&*log, from_version("e", "s", 1));
    assert_eq!(values(&found), ["1", "2", "3", "4"]);
    assert_eq!(found.iter().filter_map(|record| record.version).map(StreamVersion::get).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

fn identity(principal: &str, id: u8, digest: u128) -> Option<Identity> {
    let key = RequestKey { principal: principal.into(), id: RequestId::new([id; 16]) };
    Some(Identity { key, digest, first_attempt: None })
}

fn repeats(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 2);
    let ask = |principal: &str, id, digest, data: &str| Append {
        identity: identity(principal, id, digest),
        ..writes([events_of("e", "s", &[data])])
    };
    let first = put(&*log, ask("ann", 1, 10, "a"));
    put(&*log, ask("ann", 2, 20, "b"));
    let repeat = put(&*log, ask("ann", 1, 10, "a"));
    assert_eq!(repeat, Appended { deduplicated: true, ..first.clone() });
    match append(&*log, ask("ann", 1, 11, "other")) {
        Err(LogError::RequestIdReused { id, first: at }) => assert_eq!((id, at), (RequestId::new([1; 16]), first.first)),
        other => panic!("the id was used: {other:?}"),
    }
    assert_eq!(put(&*log, ask("bob", 1, 10, "c")).first, first.end.plus(1), "another one's ids mean nothing");
    // Both in line at once.
    let both = [log.append(ask("ann", 3, 30, "d")), log.append(ask("ann", 3, 30, "d"))];
    let [one, two] = both.map(|future| block_on(future.expect("there is room")).expect("nothing speaks against it"));
    assert_eq!(two, Appended { deduplicated: true, ..one });
    // A repeat is known before its beliefs are judged, which its first attempt has made untrue.
    let guarded = || Append {
        preconditions: vec![expect("e", "t", Expected::Absent)],
        identity: identity("ann", 4, 40),
        ..writes([events_of("e", "t", &["e"])])
    };
    let first = put(&*log, guarded());
    assert_eq!(put(&*log, guarded()), Appended { deduplicated: true, ..first });
    assert_eq!(values(&read(&*log, topics(&["e"], 0))), ["a", "b", "c", "d", "e"]);
}

fn durability(subject: &mut dyn Subject) {
    use Durability::{Synced, Written};
    let log = subject.log();
    create(&*log, "synced", TopicKind::Events, 2);
    let weak = TopicSettings { durability: Written, ..TopicSettings::new(TopicKind::Events, 2) };
    assert_eq!(log.create_topic(name("written"), weak).expect("it is new").settings, weak);
    let to = |topics: &[&str], asked| {
        let all = topics.iter().map(|topic| events_of(topic, "s", &[topic])).collect::<Vec<_>>();
        put(&*log, Append { durability: asked, ..writes(all) }).durability
    };
    assert_eq!(to(&["synced"], None), Synced);
    assert_eq!(to(&["written"], None), Written);
    assert_eq!(to(&["written", "synced"], None), Synced, "a mixed one takes the stronger");
    assert_eq!(to(&["written", "synced"], Some(Written)), Written);
    assert_eq!(to(&["written"], Some(Synced)), Synced, "never weaker than asked");
    // What rests on others' writes is answered when those are synced.
    let repeat = || Append { identity: identity("ann", 1, 10), ..writes([events_of("written", "s", &["again"])]) };
    assert_eq!(put(&*log, repeat()).durability, Written);
    let again = put(&*log, repeat());
    assert_eq!((again.deduplicated, again.durability), (true, Synced));
    assert!(log.head().position >= again.end);
    let belief = Append { preconditions: vec![expect("written", "s", Expected::Exists)], durability: Some(Written), ..Append::default() };
    assert_eq!(put(&*log, belief).durability, Synced);
}

fn malformed(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 2);
    create(&*log, "r", TopicKind::Records, 2);
    create(&*log, "t", TopicKind::Table, 2);
    let good = || events_of("e", "s", &["1"]);
    let of = |topic: &str, partition: Option<u32>, records| Write::Records {
        topic: name(topic),
        partition: partition.map(PartitionId::new),
        records,
    };
    let unnamed = Write::Stream { topic: name("e"), stream: stream("s"), events: vec![NewEvent::default()] };
    let tag = |text: &str| text.parse().expect("a valid tag");
    let tagged = |tags| Write::Stream { topic: name("e"), stream: stream("s"), events: vec![NewEvent { tags, ..event("1") }] };
    let refused: Vec<(&str, Append)> = vec![
        ("an unknown topic", writes([good(), events_of("none", "s", &["1"])])),
        ("an unknown topic in a precondition", Append { preconditions: vec![expect("none", "s", Expected::Any)], ..writes([good()]) }),
        ("a stream of a topic without streams", writes([good(), events_of("r", "s", &["1"])])),
        ("a belief about a topic without streams", Append { preconditions: vec![expect("r", "s", Expected::Any)], ..writes([good()]) }),
        ("plain records in a topic of events", writes([good(), of("e", None, vec![record("k", "v")])])),
        ("a partition that is not there", writes([good(), of("r", Some(2), vec![record("k", "v")])])),
        ("a table's record without a key", writes([good(), of("t", None, vec![NewRecord::default()])])),
        ("no events", writes([good(), events_of("e", "s", &[])])),
        ("no records", writes([good(), of("r", None, vec![])])),
        ("an event without a type", writes([good(), unnamed])),
        ("a tag given twice", writes([good(), tagged(vec![tag("a"), tag("a")])])),
        ("an event with 65 tags", writes([good(), tagged((0..65).map(|number| tag(&number.to_string())).collect())])),
        ("nothing at all", Append::default()),
    ];
    for (what, one) in refused {
        match append(&*log, one) {
            Err(LogError::Conflict { .. } | LogError::Io { .. } | LogError::Corrupt { .. }) | Ok(_) => {
                panic!("{what} was not refused as such")
            }
            Err(_) => {}
        }
    }
    assert_eq!(log.head().position, Position::new(0));
    assert_eq!(log.stream_head(&name("e"), &stream("s")).expect("it has streams"), StreamHead::Absent);
}

fn order_of_calls(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 3);
    let futures = (0..200).map(|number| {
        let one = writes([events_of("e", &format!("s{}", number % 7), &[&number.to_string()])]);
        log.append(one).expect("there is room")
    });
    let mut futures = futures.collect::<Vec<_>>();
    // Nobody waits for some of them; they are appended all the same.
    let dropped = futures.split_off(150);
    drop(dropped);
    let last = log.append(writes([events_of("e", "s", &["200"])])).expect("there is room");
    let mut before = Position::new(0);
    for future in futures {
        let answer = block_on(future).expect("nothing speaks against it");
        assert_eq!(answer.first, before);
        before = answer.end;
    }
    block_on(last).expect("nothing speaks against it");
    let found = read(&*log, topics(&["e"], 0));
    assert_eq!(values(&found), (0..=200).map(|number| number.to_string()).collect::<Vec<_>>());
}
