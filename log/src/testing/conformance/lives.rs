//! What becomes of streams that are truncated, deleted or tombstoned, and what their readers, writers and conditions see of it.

use super::*;
use crate::{
    ids::RequestId,
    life::{Beginning, StreamChange, StreamState},
    record::{EventQuery, Identity, QueryAbsent, RequestKey, Scope},
};

pub(super) const CASES: &[Case] = &[
    Case { name: "a truncated stream begins behind what is gone", needs: Needs::Nothing, run: truncated },
    Case { name: "a deleted stream is empty and its versions go on", needs: Needs::Nothing, run: deleted },
    Case { name: "a tombstoned stream is refused by name for ever", needs: Needs::Nothing, run: tombstoned },
    Case { name: "a change is judged as an append is", needs: Needs::Nothing, run: judged },
    Case { name: "a change that cannot be meant is refused and changes nothing", needs: Needs::Nothing, run: refused },
    Case { name: "marks are seen by no reader and events stay where they are", needs: Needs::Order, run: marks_are_passed_over },
    Case { name: "lives of streams go on after a restart", needs: Needs::Restart, run: after_a_restart },
];

fn change(id: &str, change: StreamChange) -> Write {
    Write::Change { topic: name("e"), stream: stream(id), change, by: "ann".into() }
}

const fn before(version: u64) -> StreamChange {
    StreamChange::Truncate { before: StreamVersion::new(version) }
}

fn state(log: &dyn LogBackend, id: &str) -> StreamState {
    log.stream_state(&name("e"), &stream(id)).expect("it has streams")
}

/// A stream's head, the first version that is read of it, and with which it began anew.
fn told(log: &dyn LogBackend, id: &str) -> (StreamHead, u64, u64) {
    let StreamState { head, beginning } = state(log, id);
    (head, beginning.first.get(), beginning.anew.get())
}

fn at(version: u64) -> StreamHead {
    StreamHead::At(StreamVersion::new(version))
}

/// The versions that a stream is read with, forwards and backwards from everywhere; it says where it begins.
fn versions(log: &dyn LogBackend, id: &str) -> Vec<u64> {
    let limits = [ReadLimits::default(), ReadLimits { records: 1, bytes: 1 }];
    let until = log.head().position;
    let beginning = state(log, id).beginning;
    let chunk = log.reader(from_version("e", id, 1)).expect("in range").read(until, limits[0]).expect("it is whole");
    assert_eq!(chunk.beginning, (beginning != Beginning::default()).then_some(beginning), "{id} begins where it says");
    let of = |records: Vec<Read>| records.iter().filter_map(|record| record.version).map(StreamVersion::get).collect::<Vec<_>>();
    let all = of(read(log, from_version("e", id, 1)));
    for (limits, from) in limits.into_iter().flat_map(|limits| (1..10).map(move |from| (limits, from))) {
        let found = of(read_until(log, from_version("e", id, from), until, limits));
        assert!(found.iter().eq(all.iter().filter(|version| **version >= from)), "{id} from {from}: {found:?} of {all:?}");
        let found = of(read_back(log, from_version("e", id, from), until, limits));
        assert!(found.iter().eq(all.iter().rev().filter(|version| **version < from)), "{id} before {from}: {found:?} of {all:?}");
    }
    all
}

fn truncated(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 2);
    put(&*log, writes([events_of("e", "s", &["1", "2", "3"]), events_of("e", "other", &["1"])]));
    put(&*log, writes([events_of("e", "s", &["4", "5"])]));
    let answer = put(&*log, writes([change("s", before(3))]));
    assert_eq!(answer.versions.iter().map(|at| at.version.get()).collect::<Vec<_>>(), [5], "it stands where it stood");
    assert_eq!(told(&*log, "s"), (at(5), 3, 1));
    assert_eq!(versions(&*log, "s"), [3, 4, 5]);
    put(&*log, writes([change("s", before(2))]));
    assert_eq!(versions(&*log, "s"), [3, 4, 5], "what is gone stays gone");
    put(&*log, writes([change("s", before(6))]));
    assert_eq!((told(&*log, "s"), versions(&*log, "s")), ((at(5), 6, 1), vec![]), "all may go, and it is not deleted");
    put(&*log, Append { preconditions: vec![expect("e", "s", Expected::Exists)], ..writes([events_of("e", "s", &["6"])]) });
    assert_eq!((told(&*log, "s"), versions(&*log, "s")), ((at(6), 6, 1), vec![6]));
    assert_eq!((told(&*log, "other"), versions(&*log, "other")), ((at(1), 1, 1), vec![1]));
}

fn deleted(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 2);
    put(&*log, writes([events_of("e", "s", &["1", "2", "3"])]));
    put(&*log, writes([change("s", StreamChange::Delete)]));
    assert_eq!(told(&*log, "s"), (StreamHead::Deleted(StreamVersion::new(3)), 4, 4));
    assert_eq!(versions(&*log, "s"), [] as [u64; 0]);
    let holds = |expected| append(&*log, Append { preconditions: vec![expect("e", "s", expected)], ..Append::default() }).is_ok();
    let version = |version| Expected::Version(StreamVersion::new(version));
    assert!([Expected::Any, Expected::Absent, Expected::Deleted, version(3)].into_iter().all(holds));
    assert!(![Expected::Exists, version(2), version(4)].into_iter().any(holds));
    let answer = put(&*log, Append { preconditions: vec![expect("e", "s", Expected::Absent)], ..writes([events_of("e", "s", &["4"])]) });
    assert_eq!(answer.versions[0].version.get(), 4, "versions go on");
    assert_eq!((told(&*log, "s"), versions(&*log, "s")), ((at(4), 4, 4), vec![4]));
    assert!([Expected::Exists, version(4)].into_iter().all(holds) && ![Expected::Absent, Expected::Deleted].into_iter().any(holds));
    put(&*log, writes([events_of("e", "s", &["5", "6"])]));
    put(&*log, writes([change("s", before(6))]));
    assert_eq!((told(&*log, "s"), versions(&*log, "s")), ((at(6), 6, 4), vec![6]), "what is missing since it began anew was truncated");
    let end = log.head().position;
    let nothing = put(&*log, writes([change("new", StreamChange::Delete)]));
    assert_eq!((nothing.first, nothing.end, log.head().position), (end, end, end), "there is nothing to delete, so nothing is written");
    assert_eq!(told(&*log, "new"), (StreamHead::Absent, 1, 1));
}

fn tombstoned(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 2);
    put(&*log, writes([events_of("e", "s", &["1", "2"])]));
    for id in ["s", "never written"] {
        put(&*log, writes([change(id, StreamChange::Tombstone)]));
        assert_eq!((state(&*log, id).head, versions(&*log, id)), (StreamHead::Tombstoned, vec![]));
        let wrong = [events_of("e", id, &["x"]), change(id, StreamChange::Delete), change(id, before(1))];
        for one in wrong {
            // It is said by name, whatever is believed beside it.
            let asked =
                Append { preconditions: vec![expect("e", id, Expected::Exists)], ..writes([one, events_of("e", "beside", &["x"])]) };
            match append(&*log, asked) {
                Err(LogError::Tombstoned { stream, .. }) => assert_eq!(stream.as_str(), id),
                other => panic!("it is tombstoned: {other:?}"),
            }
        }
        let end = log.head().position;
        assert_eq!(put(&*log, writes([change(id, StreamChange::Tombstone)])).end, end, "it is so already");
        for expected in [Expected::Absent, Expected::Exists, Expected::Deleted, Expected::Version(StreamVersion::new(2))] {
            let asked = Append { preconditions: vec![expect("e", id, expected)], ..writes([events_of("e", "beside", &["x"])]) };
            match append(&*log, asked) {
                Err(LogError::Conflict { violations, .. }) => assert_eq!(stands(&violations[0]), (id, StreamHead::Tombstoned)),
                other => panic!("nothing is believed rightly of it: {other:?}"),
            }
        }
    }
    assert_eq!(told(&*log, "beside"), (StreamHead::Absent, 1, 1), "nothing of a refused unit is there");
    assert!(matches!(append(&*log, writes([events_of("e", "s", &["x"])])), Err(LogError::Tombstoned { .. })));
}

fn judged(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 2);
    put(&*log, writes([events_of("e", "s", &["1", "2"])]));
    let asked = |version, digest| {
        let key = RequestKey { principal: "ann".into(), id: RequestId::new([7; 16]) };
        let expected = Expected::Version(StreamVersion::new(version));
        Append {
            preconditions: vec![expect("e", "s", expected)],
            identity: Some(Identity { key, digest, first_attempt: None }),
            ..writes([change("s", StreamChange::Delete)])
        }
    };
    match append(&*log, asked(1, 1)) {
        Err(LogError::Conflict { violations, .. }) => assert_eq!(stands(&violations[0]), ("s", at(2))),
        other => panic!("it stands elsewhere: {other:?}"),
    }
    let first = put(&*log, asked(2, 2));
    put(&*log, writes([events_of("e", "s", &["3"])]));
    assert_eq!(put(&*log, asked(2, 2)), Appended { deduplicated: true, ..first }, "a repeat deletes nothing again");
    assert_eq!((told(&*log, "s"), versions(&*log, "s")), ((at(3), 3, 3), vec![3]));
    assert!(matches!(append(&*log, asked(3, 3)), Err(LogError::RequestIdReused { .. })));
    // Changes of one stream and events of another are one unit.
    let both = put(&*log, writes([change("s", StreamChange::Delete), events_of("e", "next", &["1"])]));
    assert_eq!(both.end, both.first.plus(2));
    assert_eq!((state(&*log, "s").head, state(&*log, "next").head), (StreamHead::Deleted(StreamVersion::new(3)), at(1)));
    // Events count for queries as long as they can be read by topic.
    let query = QueryAbsent { scope: Scope::Topics(vec![name("e")]), query: EventQuery::All, after: None };
    let absent = Append { preconditions: vec![Precondition::QueryAbsent(query)], ..writes([events_of("e", "q", &["1"])]) };
    match append(&*log, absent) {
        Err(LogError::Conflict { violations, .. }) => assert_eq!(violations[0].found, Found::Event { first: Position::new(0) }),
        other => panic!("a deleted stream's events match: {other:?}"),
    }
}

fn refused(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 2);
    create(&*log, "r", TopicKind::Records, 1);
    put(&*log, writes([events_of("e", "s", &["1", "2"])]));
    let end = log.head().position;
    let of = |topic: &str| Write::Change { topic: name(topic), stream: stream("s"), change: StreamChange::Delete, by: "ann".into() };
    assert!(matches!(append(&*log, writes([of("r")])), Err(LogError::WrongKind { .. })));
    assert!(matches!(append(&*log, writes([of("none")])), Err(LogError::UnknownTopic { .. })));
    assert!(matches!(append(&*log, writes([change("s", before(0))])), Err(LogError::Invalid { .. })));
    match append(&*log, writes([change("s", before(4))])) {
        Err(LogError::TruncatedBeyondEnd { before, actual, .. }) => assert_eq!((before.get(), actual), (4, at(2))),
        other => panic!("it ends before: {other:?}"),
    }
    match append(&*log, writes([change("none", before(2))])) {
        Err(LogError::TruncatedBeyondEnd { actual, .. }) => assert_eq!(actual, StreamHead::Absent),
        other => panic!("it has no events: {other:?}"),
    }
    for other in [events_of("e", "s", &["x"]), change("s", before(2))] {
        let both = writes([other, change("s", StreamChange::Delete)]);
        assert!(matches!(append(&*log, both), Err(LogError::Invalid { .. })), "which comes first would have to be judged");
    }
    assert_eq!((log.head().position, told(&*log, "s"), versions(&*log, "s")), (end, (at(2), 1, 1), vec![1, 2]));
}

fn marks_are_passed_over(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 1);
    let mut expected = Vec::new();
    for round in 0..30_u64 {
        let id = format!("s{}", round % 3);
        let data = format!("{round}");
        let answer = put(&*log, writes([events_of("e", &id, &[&data]), change(&format!("s{}", (round + 1) % 3), StreamChange::Delete)]));
        expected.push((answer.first.get(), data));
    }
    assert_eq!(log.ends(&name("e")).expect("it exists")[0].get(), log.head().position.get(), "marks take offsets and positions");
    for limits in [ReadLimits::default(), ReadLimits { records: 1, bytes: 1 }, ReadLimits { records: 7, bytes: 1 << 20 }] {
        let until = log.head().position;
        for from in [0, 1, 2, 17, until.get() - 1, until.get()] {
            for selection in [partition("e", 0, from), topics(&["e"], from), Selection::All(Position::new(from))] {
                let of = |records: Vec<Read>| {
                    let one = |record: &Read| {
                        assert_eq!(record.offset.get(), record.position.get());
                        (record.position.get(), record.value.clone().expect("events have values"))
                    };
                    records.iter().map(one).collect::<Vec<_>>()
                };
                let found = of(read_until(&*log, selection.clone(), until, limits));
                assert!(found.iter().eq(expected.iter().filter(|(at, _)| *at >= from)), "from {from}: {found:?}");
                let found = of(read_back(&*log, selection, until, limits));
                assert!(found.iter().eq(expected.iter().rev().filter(|(at, _)| *at < from)), "before {from}: {found:?}");
            }
        }
    }
}

fn after_a_restart(subject: &mut dyn Subject) {
    create(&*subject.log(), "e", TopicKind::Events, 2);
    for round in 0..4 {
        let log = subject.log();
        for number in 0..8 {
            let _ = append(&*log, writes([events_of("e", &format!("s{number}"), &["x", "y"])]));
        }
        put(&*log, writes([change("s1", before(2 * round + 2)), change("s2", StreamChange::Delete)]));
        put(&*log, writes([change(&format!("s{}", round + 4), StreamChange::Tombstone)]));
        let snapshot =
            |log: &dyn LogBackend| (0..8).map(|id| format!("s{id}")).map(|id| (state(log, &id), versions(log, &id))).collect::<Vec<_>>();
        let known = snapshot(&*log);
        assert_eq!(known[1].0.beginning.first.get(), 2 * round + 2);
        assert_eq!(known[2], (state(&*log, "s2"), vec![]));
        drop(log);
        assert!(subject.restart());
        let log = subject.log();
        assert_eq!(snapshot(&*log), known, "round {round}");
        for dead in 4..=round + 4 {
            let one = writes([events_of("e", &format!("s{dead}"), &["x"])]);
            assert!(matches!(append(&*log, one), Err(LogError::Tombstoned { .. })), "round {round}");
        }
    }
}
