//! Snapshots of streams: which one is found, and what becomes of them with their streams.

use std::sync::Arc;

use super::*;
use crate::{
    ids::RequestId,
    life::StreamChange,
    record::{Identity, RequestKey, Snapshot, StoredSnapshot},
};

pub(super) const CASES: &[Case] = &[
    Case { name: "the newest snapshot as of a version or before is found", needs: Needs::Nothing, run: newest },
    Case { name: "a snapshot comes back as it was put", needs: Needs::Nothing, run: as_it_was_put },
    Case { name: "snapshots go with what they are of", needs: Needs::Nothing, run: they_go },
    Case { name: "a snapshot of a state that never was is refused", needs: Needs::Nothing, run: refused },
    Case { name: "snapshots are the same after a restart", needs: Needs::Restart, run: after_a_restart },
];

fn snapshot(id: &str, version: u64, data: &str) -> Write {
    let snapshot = Snapshot {
        version: StreamVersion::new(version),
        schema: Some("account.v2".into()),
        content_type: None,
        data: Bytes::from(data.to_owned()),
    };
    Write::Snapshot { topic: name("e"), stream: stream(id), snapshot, by: "ann".into() }
}

fn change(id: &str, change: StreamChange) -> Write {
    Write::Change { topic: name("e"), stream: stream(id), change, by: "ann".into() }
}

fn stored(log: &dyn LogBackend, id: &str, at_most: u64) -> Option<StoredSnapshot> {
    log.snapshot(&name("e"), &stream(id), StreamVersion::new(at_most)).expect("it is whole")
}

/// Version and data of what is found.
fn found(log: &dyn LogBackend, id: &str, at_most: u64) -> Option<(u64, String)> {
    let snapshot = stored(log, id, at_most)?.snapshot;
    Some((snapshot.version.get(), String::from_utf8_lossy(&snapshot.data).into_owned()))
}

fn is(version: u64, data: &str) -> Option<(u64, String)> {
    Some((version, data.to_owned()))
}

fn newest(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 2);
    put(&*log, writes([events_of("e", "s", &["1", "2", "3", "4", "5", "6"])]));
    assert_eq!(found(&*log, "s", u64::MAX >> 8), None);
    assert_eq!(found(&*log, "none", 1), None);
    for (version, data) in [(2, "two"), (5, "five"), (3, "three"), (5, "five again")] {
        let end = log.head().position;
        let answer = put(&*log, writes([snapshot("s", version, data)]));
        assert_eq!((answer.first, answer.versions[0].version.get()), (end, 6), "it stands where it stood");
    }
    let expected = [None, is(2, "two"), is(3, "three"), is(3, "three"), is(5, "five again"), is(5, "five again")];
    for (at_most, expected) in (1..).zip(expected) {
        assert_eq!(found(&*log, "s", at_most), expected, "as of {at_most}");
    }
    assert_eq!(found(&*log, "s", 1 << 40), is(5, "five again"));
    assert_eq!(values(&read(&*log, from_version("e", "s", 1))).len(), 6, "no reader returns them");
    assert_eq!(read(&*log, topics(&["e"], 0)).len(), 6);
}

fn as_it_was_put(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 1);
    put(&*log, writes([events_of("e", "s", &["1", "2"])]));
    let given = |schema: Option<&str>, content_type: Option<&str>, data: &'static [u8]| Snapshot {
        version: StreamVersion::new(2),
        schema: schema.map(Arc::from),
        content_type: content_type.map(Arc::from),
        data: Bytes::from_static(data),
    };
    let large = Bytes::from(vec![7; 2_000]);
    let all = [
        given(None, None, b""),
        given(Some("ü.v1"), Some("application/octet-stream"), b"\x00\xff"),
        Snapshot { data: large, ..given(Some("x"), None, b"") },
    ];
    for (number, snapshot) in (0..).zip(all) {
        let key = RequestKey { principal: "ann".into(), id: RequestId::new([number; 16]) };
        let one = Append {
            identity: Some(Identity { key, digest: 1, first_attempt: None }),
            preconditions: vec![expect("e", "s", Expected::Version(StreamVersion::new(2)))],
            ..writes([Write::Snapshot { topic: name("e"), stream: stream("s"), snapshot: snapshot.clone(), by: "ann".into() }])
        };
        let answer = put(&*log, one.clone());
        assert_eq!(put(&*log, one), Appended { deduplicated: true, ..answer.clone() });
        let expected = StoredSnapshot { snapshot, position: answer.first, recorded_at: answer.recorded_at };
        assert_eq!(stored(&*log, "s", 2), Some(expected));
    }
}

fn they_go(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 2);
    let three = || writes([events_of("e", "s", &["x", "y", "z"])]);
    put(&*log, three());
    put(&*log, writes([snapshot("s", 2, "two")]));
    put(&*log, writes([snapshot("s", 3, "three")]));
    put(&*log, writes([change("s", StreamChange::Truncate { before: StreamVersion::new(4) })]));
    assert_eq!((found(&*log, "s", 3), found(&*log, "s", 2)), (is(3, "three"), is(2, "two")), "whoever truncates goes on from them");
    put(&*log, writes([change("s", StreamChange::DropSnapshots)]));
    assert_eq!((found(&*log, "s", 3), found(&*log, "s", 2)), (None, None));
    put(&*log, writes([snapshot("s", 2, "two again")]));
    assert_eq!(found(&*log, "s", 3), is(2, "two again"), "what is put after that is found, also as of an earlier version");
    put(&*log, writes([change("s", StreamChange::Delete)]));
    assert_eq!(found(&*log, "s", 9), None);
    put(&*log, three());
    assert_eq!(found(&*log, "s", 9), None, "what began anew has none");
    put(&*log, writes([snapshot("s", 5, "five")]));
    assert_eq!((found(&*log, "s", 4), found(&*log, "s", 9)), (None, is(5, "five")));
    put(&*log, writes([change("s", StreamChange::Tombstone)]));
    assert_eq!(found(&*log, "s", 9), None);
}

fn refused(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 2);
    create(&*log, "r", TopicKind::Records, 1);
    put(&*log, writes([events_of("e", "s", &["1", "2"]), events_of("e", "over", &["1"])]));
    put(&*log, writes([change("over", StreamChange::Tombstone)]));
    let end = log.head().position;
    let never = |id: &str, version: u64| match append(&*log, writes([snapshot(id, version, "x")])) {
        Err(LogError::NoSuchState { version: told, .. }) => assert_eq!(told.get(), version),
        other => panic!("{id} was never at {version}: {other:?}"),
    };
    never("s", 3);
    never("none", 1);
    assert!(matches!(append(&*log, writes([snapshot("over", 1, "x")])), Err(LogError::Tombstoned { .. })));
    assert!(matches!(append(&*log, writes([snapshot("s", 0, "x")])), Err(LogError::Invalid { .. })));
    let both = writes([events_of("e", "s", &["3"]), snapshot("s", 3, "x")]);
    assert!(matches!(append(&*log, both), Err(LogError::Invalid { .. })));
    assert!(matches!(log.snapshot(&name("r"), &stream("s"), StreamVersion::FIRST), Err(LogError::WrongKind { .. })));
    assert!(matches!(log.snapshot(&name("no"), &stream("s"), StreamVersion::FIRST), Err(LogError::UnknownTopic { .. })));
    assert_eq!((log.head().position, found(&*log, "s", 9)), (end, None));
    put(&*log, writes([change("s", StreamChange::Delete)]));
    put(&*log, writes([events_of("e", "s", &["3"])]));
    never("s", 2);
    put(&*log, writes([snapshot("s", 3, "x")]));
}

fn after_a_restart(subject: &mut dyn Subject) {
    create(&*subject.log(), "e", TopicKind::Events, 2);
    for round in 0..4_u64 {
        let log = subject.log();
        for number in 0..6 {
            let id = format!("s{number}");
            put(&*log, writes([events_of("e", &id, &["x", "y", "z"])]));
            put(&*log, writes([snapshot(&id, round * 3 + 2, &"s".repeat(700))]));
            // Of an older state, put later; what was deleted has none.
            let older = append(&*log, writes([snapshot(&id, round * 2 + 1, &format!("{round}"))]));
            assert_eq!(older.is_ok(), id != "s3" || round < 3);
        }
        put(&*log, writes([change("s1", StreamChange::DropSnapshots)]));
        put(&*log, writes([snapshot("s1", 2, &format!("after {round}"))]));
        put(&*log, writes([change("s2", StreamChange::Truncate { before: StreamVersion::new(round * 3 + 3) })]));
        if round == 2 {
            put(&*log, writes([change("s3", StreamChange::Delete)]));
            put(&*log, writes([events_of("e", "s3", &["x"])]));
        }
        let all = |log: &dyn LogBackend| {
            let of = |id: u64| (1..20).map(move |at_most| (id, at_most));
            (0..6).flat_map(of).map(|(id, at_most)| stored(log, &format!("s{id}"), at_most)).collect::<Vec<_>>()
        };
        let known = all(&*log);
        assert!(known.iter().flatten().count() > 40);
        drop(log);
        if round == 2 {
            put(&*subject.log(), writes([events_of("e", "s3", &["y", "z", "a", "b", "c"])]));
        }
        assert!(subject.restart());
        assert!(all(&*subject.log()) == known, "round {round}");
    }
}
