//! Redaction of events' data: what is shown from its answer on, and that it is done at some time.

use bytes::Bytes;

use super::{
    Case, Needs, Subject, append, block_on, create, events_of, name, partition, put, read, read_back, records_of, stream, topics, writes,
};
use crate::{
    backend::LogBackend,
    error::LogError,
    ids::{Position, StreamHead, StreamVersion},
    life::StreamChange,
    record::{Append, EventQuery, NewEvent, Precondition, QueryAbsent, QueryItem, ReadLimits, Scope, Selection, Snapshot, Write},
    topic::TopicKind,
};

pub(super) const CASES: &[Case] = &[
    Case { name: "redacted events keep their place and lose their data", needs: Needs::Erasure, run: lose_their_data },
    Case { name: "what cannot be redacted is refused", needs: Needs::Erasure, run: refused },
    Case { name: "events of streams that are over can be redacted", needs: Needs::Erasure, run: of_streams_that_are_over },
    Case { name: "redactions are done and stay so after a restart", needs: Needs::ErasureAndRestart, run: after_a_restart },
];

fn redact(id: &str, versions: &[u64]) -> Write {
    let versions = versions.iter().copied().map(StreamVersion::new).collect();
    Write::Redact { topic: name("e"), stream: stream(id), versions, by: "ann".into(), reason: "asked to".into() }
}

/// An event with something in every place that goes.
fn event(data: &str) -> NewEvent {
    NewEvent {
        kind: "Said".into(),
        data: Bytes::from(data.to_owned()),
        content_type: Some("text/plain".into()),
        schema: Some("said.v1".into()),
        tags: vec!["who:ann".parse().expect("a tag")],
        attributes: vec![("about".into(), data.into())],
        ..NewEvent::default()
    }
}

/// Version, and data unless it is redacted, of the events of a stream.
fn told(log: &dyn LogBackend, id: &str) -> Vec<(u64, Option<String>)> {
    let mut reader = log.reader(Selection::Stream(name("e"), stream(id), StreamVersion::FIRST)).expect("it is there");
    let mut all = Vec::new();
    loop {
        let chunk = reader.read(log.head().position, ReadLimits::default()).expect("the log is whole");
        if chunk.runs.is_empty() {
            return all;
        }
        for record in chunk.runs.iter().flat_map(crate::record::Run::records) {
            let record = record.expect("the log gives whole records");
            let event = record.event().expect("no mark is returned");
            assert_eq!(event.is_redacted, record.value.is_none());
            let is_bare = event.content_type.is_none() && event.schema.is_none() && event.attributes().next().is_none();
            assert!(is_bare || !event.is_redacted, "what was given with the data goes with it");
            assert_eq!((event.kind, event.tags().collect::<Vec<_>>()), ("Said", vec!["who:ann"]));
            all.push((event.version.get(), record.value.map(|value| String::from_utf8_lossy(value).into_owned())));
        }
    }
}

fn said(id: &str, data: &[&str]) -> Write {
    Write::Stream { topic: name("e"), stream: stream(id), events: data.iter().map(|data| event(data)).collect() }
}

/// Waits until nothing is left to be done.
fn wait(log: &dyn LogBackend) {
    let mut completed = log.redacted();
    while log.redacting(&name("e"), None).expect("it is there").since.is_some() {
        block_on(completed.changed()).expect("the log goes on");
    }
    assert_eq!(log.redacting(&name("e"), None).expect("it is there").events, 0);
}

fn lose_their_data(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 1);
    put(&*log, writes([said("s", &["1", "2", "3"]), said("other", &["x"])]));
    let snapshot = Snapshot { version: StreamVersion::new(3), schema: None, content_type: None, data: Bytes::from_static(b"123") };
    put(&*log, writes([Write::Snapshot { topic: name("e"), stream: stream("s"), snapshot, by: "ann".into() }]));
    let end = log.head().position;
    let answer = put(&*log, writes([redact("s", &[3, 1])]));
    assert_eq!((answer.first, answer.end), (end, end.plus(2)), "marks take positions");
    assert_eq!(answer.versions[0].version, StreamVersion::new(3));
    let some = |data: &str| Some(data.to_owned());
    for _ in 0..2 {
        assert_eq!(told(&*log, "s"), [(1, None), (2, some("2")), (3, None)]);
        assert_eq!(told(&*log, "other"), [(1, some("x"))]);
        for selection in [partition("e", 0, 0), topics(&["e"], 0), Selection::All(Position::default())] {
            let values: Vec<_> = read(&*log, selection).into_iter().map(|record| (record.offset.get(), record.value)).collect();
            assert_eq!(values[..4], [(0, None), (1, some("2")), (2, None), (3, some("x"))]);
        }
        let back = read_back(&*log, partition("e", 0, 4), log.head().position, ReadLimits { records: 2, bytes: 1 });
        assert_eq!(back.iter().map(|record| record.value.clone()).collect::<Vec<_>>(), [some("x"), None, some("2"), None]);
        assert!(
            log.snapshot(&name("e"), &stream("s"), StreamVersion::new(9)).expect("it is whole").is_none(),
            "it may tell what is redacted"
        );
        // Types and tags are found as before, by filters and by conditions.
        let items = EventQuery::Items(vec![QueryItem { types: vec!["Said".into()], tags: vec!["who:ann".parse().expect("a tag")] }]);
        let mut reader = log.filtered_reader(partition("e", 0, 0), items.clone()).expect("it is there");
        let chunk = reader.read(log.head().position, ReadLimits::default()).expect("it is whole");
        let found: Vec<_> = chunk.runs.iter().flat_map(records_of).map(|record| record.value).collect();
        assert_eq!(found[..2], [None, some("2")]);
        // As long as it lives, files stay that it reads.
        drop(reader);
        let absent = QueryAbsent { scope: Scope::Topics(vec![name("e")]), query: items, after: None };
        let absent = Append { preconditions: vec![Precondition::QueryAbsent(absent)], ..writes([said("new", &["n"])]) };
        assert!(matches!(append(&*log, absent), Err(LogError::Conflict { .. })));
        wait(&*log);
    }
    put(&*log, writes([said("s", &["4"])]));
    put(&*log, writes([redact("s", &[1])]));
    assert_eq!(told(&*log, "s"), [(1, None), (2, some("2")), (3, None), (4, some("4"))], "once more is no error");
    wait(&*log);
}

fn refused(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 2);
    create(&*log, "r", TopicKind::Records, 1);
    put(&*log, writes([said("s", &["1", "2"])]));
    let end = log.head().position;
    for versions in [&[][..], &[0], &[1, 1]] {
        assert!(matches!(append(&*log, writes([redact("s", versions)])), Err(LogError::Invalid { .. })), "{versions:?}");
    }
    match append(&*log, writes([redact("s", &[1, 3])])) {
        Err(LogError::NoSuchEvent { version, actual, .. }) => {
            assert_eq!((version.get(), actual), (3, StreamHead::At(StreamVersion::new(2))));
        }
        other => panic!("it has no such event: {other:?}"),
    }
    assert!(matches!(append(&*log, writes([redact("none", &[1])])), Err(LogError::NoSuchEvent { actual: StreamHead::Absent, .. })));
    let mut of_records = redact("s", &[1]);
    if let Write::Redact { topic, .. } = &mut of_records {
        *topic = name("r");
    }
    assert!(matches!(append(&*log, writes([of_records])), Err(LogError::WrongKind { .. })));
    let mut of_nobody = redact("s", &[1]);
    if let Write::Redact { by, .. } = &mut of_nobody {
        *by = "".into();
    }
    assert!(matches!(append(&*log, writes([of_nobody])), Err(LogError::Invalid { .. })), "somebody wants it");
    let both = writes([redact("s", &[1]), events_of("e", "s", &["x"])]);
    assert!(matches!(append(&*log, both), Err(LogError::Invalid { .. })), "which comes first would have to be judged");
    assert_eq!((log.head().position, told(&*log, "s")), (end, vec![(1, Some("1".into())), (2, Some("2".into()))]));
}

fn of_streams_that_are_over(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 1);
    for (id, change) in [
        ("truncated", StreamChange::Truncate { before: StreamVersion::new(3) }),
        ("deleted", StreamChange::Delete),
        ("over", StreamChange::Tombstone),
    ] {
        put(&*log, writes([said(id, &["1", "2"])]));
        put(&*log, writes([Write::Change { topic: name("e"), stream: stream(id), change, by: "ann".into() }]));
        put(&*log, writes([redact(id, &[2])]));
    }
    wait(&*log);
    for record in read(&*log, partition("e", 0, 0)) {
        assert!(record.version != Some(StreamVersion::new(2)) || record.value.is_none(), "{record:?}");
    }
}

fn after_a_restart(subject: &mut dyn Subject) {
    create(&*subject.log(), "e", TopicKind::Events, 2);
    for round in 1..4_u64 {
        let log = subject.log();
        for number in 0..8 {
            put(&*log, writes([said(&format!("s{number}"), &[&"x".repeat(100), "y"])]));
        }
        put(&*log, writes([redact("s1", &[round * 2 - 1]), redact("s2", &[round])]));
        let known = (told(&*log, "s1"), told(&*log, "s2"), told(&*log, "s3"));
        drop(log);
        assert!(subject.restart());
        let log = subject.log();
        assert_eq!((told(&*log, "s1"), told(&*log, "s2"), told(&*log, "s3")), known, "round {round}");
        wait(&*log);
        assert_eq!((told(&*log, "s1"), told(&*log, "s2"), told(&*log, "s3")), known, "round {round}");
        assert!(
            known.0.iter().filter(|(_, data)| data.is_none()).count() as u64 == round && known.2.iter().all(|(_, data)| data.is_some())
        );
    }
}
