//! Compaction by key, where there is any: who may ask for it, and what must be left while it happens. And what must be left when what streams
//! let go is removed.

use std::{collections::BTreeMap, time::Duration};

use super::{Case, Needs, Subject, block_on, name};
use crate::{
    compaction::Compaction,
    error::LogError,
    ids::{Offset, PartitionId, StreamHead, StreamId, StreamVersion},
    life::StreamChange,
    record::{Append, EventQuery, NewEvent, NewRecord, Precondition, QueryAbsent, QueryItem, ReadLimits, Scope, Selection, Write},
    topic::{TopicKind, TopicSettings},
};

pub(super) const CASES: &[Case] = &[
    Case { name: "only tables may be compacted by key", needs: Needs::Nothing, run: only_tables },
    Case { name: "the newest record of each key of a table is left in its place", needs: Needs::Nothing, run: newest_are_left },
    Case { name: "what streams let go may be removed, and nothing else changes", needs: Needs::Nothing, run: only_what_is_let_go_goes },
];

const OFTEN: Compaction =
    Compaction { delete_retention: Duration::ZERO, min_lag: Duration::ZERO, max_lag: Duration::from_secs(1), dirty_percent: 1 };

fn only_tables(subject: &mut dyn Subject) {
    let log = subject.log();
    let create = |topic, kind, compaction| log.create_topic(name(topic), TopicSettings { compaction, ..TopicSettings::new(kind, 2) });
    for kind in [TopicKind::Events, TopicKind::Records] {
        let Err(LogError::Invalid { field, .. }) = create("t", kind, OFTEN) else { panic!("a topic of kind {kind} is compacted by key") };
        assert_eq!(field, "compaction");
    }
    let table = create("t", TopicKind::Table, OFTEN);
    if !log.capabilities().compaction {
        assert!(matches!(table, Err(LogError::Invalid { field, .. }) if field == "compaction"));
        return;
    }
    table.expect("a table may be compacted");
    let wrong = Compaction { min_lag: Duration::from_secs(2), ..OFTEN };
    assert!(matches!(create("u", TopicKind::Table, wrong), Err(LogError::Invalid { .. })));
    assert!(matches!(create("t", TopicKind::Table, Compaction::DEFAULT), Err(LogError::TopicExists { .. })));
    let states = log.compaction(&name("t")).expect("the topic is there");
    assert_eq!(states.iter().map(|state| state.partition.get()).collect::<Vec<_>>(), [0, 1]);
    create("e", TopicKind::Events, Compaction::DEFAULT).expect("the topic is new");
    assert_eq!(log.compaction(&name("e")).expect("the topic is there"), []);
    assert!(matches!(log.compaction(&name("nowhere")), Err(LogError::UnknownTopic { .. })));
}

fn newest_are_left(subject: &mut dyn Subject) {
    let log = subject.log();
    let compaction = if log.capabilities().compaction { OFTEN } else { Compaction::DEFAULT };
    log.create_topic(name("t"), TopicSettings { compaction, ..TopicSettings::new(TopicKind::Table, 1) }).expect("the topic is new");
    let mut newest = BTreeMap::new();
    for number in 0..400_u64 {
        let (key, value) = (format!("k{}", number % 7), format!("{number}:{}", "x".repeat(100)));
        let record = NewRecord { key: Some(key.clone().into()), value: Some(value.clone().into()), ..NewRecord::default() };
        let write = Write::Records { topic: name("t"), partition: None, records: vec![record] };
        block_on(log.append(Append { writes: vec![write], ..Append::default() }).expect("there is room")).expect("it is admitted");
        newest.insert(key, (number, value));
        if number % 50 != 49 {
            continue;
        }
        let mut reader = log.reader(Selection::Partition(name("t"), PartitionId::new(0), Offset::default())).expect("in range");
        let (mut found, mut next) = (BTreeMap::new(), 0);
        loop {
            let chunk = reader.read(log.head().position, ReadLimits::default()).expect("it is whole");
            for record in chunk.runs.iter().flat_map(|run| run.records()) {
                let record = record.expect("it is whole");
                assert!(record.offset.get() >= next, "a step back");
                next = record.offset.get() + 1;
                let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
                found.insert(text(record.key), (record.offset.get(), text(record.value)));
            }
            if chunk.runs.is_empty() {
                break;
            }
        }
        assert_eq!(found, newest);
    }
}

fn only_what_is_let_go_goes(subject: &mut dyn Subject) {
    let log = subject.log();
    log.create_topic(name("e"), TopicSettings::new(TopicKind::Events, 1)).expect("the topic is new");
    let stream = |number: u64| -> StreamId { format!("s{number}").parse().expect("a valid id") };
    let write = |write| block_on(log.append(Append { writes: vec![write], ..Append::default() }).expect("there is room"));
    // The version with which each stream begins by now, and what it was given.
    let (mut firsts, mut given) = ([1_u64; 4], Vec::new());
    for number in 0..300_u64 {
        let of = number % 4;
        let tags = vec![format!("tag{}", number % 7).parse().expect("a tag"), format!("only{number}").parse().expect("a tag")];
        let data = format!("{number}:{}", "x".repeat(100));
        let event = NewEvent { kind: "Happened".into(), data: data.clone().into(), tags, ..NewEvent::default() };
        write(Write::Stream { topic: name("e"), stream: stream(of), events: vec![event] }).expect("it is admitted");
        let version = number / 4 + 1;
        given.push((of, version, data));
        if number % 40 == 39 {
            for (of, change) in [(0, StreamChange::Delete), (1, StreamChange::Truncate { before: StreamVersion::new(version) })] {
                write(Write::Change { topic: name("e"), stream: stream(of), change, by: "ann".into() }).expect("it is admitted");
            }
            (firsts[0], firsts[1]) = (version + 1, version);
        }
    }
    let mut reader = log.reader(Selection::Partition(name("e"), PartitionId::new(0), Offset::default())).expect("in range");
    let mut found = Vec::new();
    loop {
        let chunk = reader.read(log.head().position, ReadLimits::default()).expect("it is whole");
        for record in chunk.runs.iter().flat_map(|run| run.records()) {
            let record = record.expect("it is whole");
            found.push(String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned());
        }
        if chunk.runs.is_empty() {
            break;
        }
    }
    let is_left = |(of, version, _): &&(u64, u64, String)| *version >= firsts[usize::try_from(*of).expect("small")];
    let all: Vec<_> = given.iter().map(|(.., data)| data.clone()).collect();
    assert!(found.iter().all(|data| all.contains(data)) && given.iter().filter(is_left).all(|(.., data)| found.contains(data)));
    for of in 0..4 {
        let state = log.stream_state(&name("e"), &stream(of)).expect("it has streams");
        let expected = StreamVersion::new(75);
        assert_eq!(state.head, StreamHead::At(expected));
        assert_eq!(state.beginning.first.get(), firsts[usize::try_from(of).expect("small")]);
    }
    for number in (0..300).step_by(23) {
        let items = vec![QueryItem { types: Vec::new(), tags: vec![format!("only{number}").parse().expect("a tag")] }];
        let asked = QueryAbsent { scope: Scope::Topics(vec![name("e")]), query: EventQuery::Items(items), after: None };
        let append = Append { preconditions: vec![Precondition::QueryAbsent(asked)], ..Append::default() };
        let answer = block_on(log.append(append).expect("there is room"));
        assert!(matches!(answer, Err(LogError::Conflict { .. })), "event {number} is forgotten");
    }
}
