//! What became of streams, and events whose data was redacted.

use super::*;

/// Streams that were truncated, deleted and tombstoned, and snapshots, half of them in segments.
fn write_marks() -> SimDisk {
    let (disk, log, mut stepper) = open_new();
    log.create_topic("accounts".parse().expect("a valid name"), TopicSettings::new(TopicKind::Events, 2)).expect("it is new");
    let topic = || "accounts".parse().expect("a valid name");
    let stream = |number: u64| format!("account-{number}").parse().expect("a valid id");
    let event = NewEvent { kind: "Deposited".into(), data: Bytes::from_static(b"{}"), ..NewEvent::default() };
    let change = |number, change| Write::Change { topic: topic(), stream: stream(number), change, by: "ann".into() };
    let snapshot = |number, version| {
        let (schema, content_type) = (Some("account.v1".into()), (version == 1).then(|| "text/plain".into()));
        let snapshot =
            Snapshot { version: StreamVersion::new(version), schema, content_type, data: Bytes::from(format!("as of {version}")) };
        Write::Snapshot { topic: topic(), stream: stream(number), snapshot, by: String::new().into() }
    };
    for half in 0..2_u64 {
        let events = |number| Write::Stream { topic: topic(), stream: stream(number), events: vec![event.clone(); 3] };
        let of_half = |number: u64| half * 5 + number;
        let units = [
            (0..5).map(|number| events(of_half(number))).collect(),
            vec![snapshot(of_half(0), 3), snapshot(of_half(3), 2)],
            vec![snapshot(of_half(0), 1), change(of_half(3), StreamChange::DropSnapshots)],
            vec![change(of_half(0), StreamChange::Truncate { before: StreamVersion::new(3) }), change(of_half(1), StreamChange::Delete)],
            vec![events(of_half(1)), change(of_half(2), StreamChange::Tombstone), change(of_half(4), StreamChange::Delete)],
        ];
        for writes in units {
            let answer = log.append(Append { writes, ..Append::default() }).expect("there is room");
            stepper.commit().expect("no fault");
            block_on(answer).expect("nothing speaks against it");
        }
        if half == 0 {
            stepper.tidy().expect("no fault");
        }
    }
    stepper.seal().expect("no fault");
    disk
}

#[test]
fn a_folder_with_marks_says_what_became_of_its_streams() {
    let golden = golden("v2-marks");
    compare(&write_marks(), &golden);
    let (_folder, data) = copied(&golden);
    let log = EmbeddedLog::open(Arc::new(RealDisk), clock(), &data, config()).expect("it opens");
    let topic = "accounts".parse().expect("a valid name");
    for number in 0..10_u64 {
        let stream = format!("account-{number}").parse().expect("a valid id");
        let state = log.stream_state(&topic, &stream).expect("it has streams");
        let version = StreamVersion::new;
        let (head, first, anew) = match number % 5 {
            0 => (StreamHead::At(version(3)), 3, 1),
            1 => (StreamHead::At(version(6)), 4, 4),
            2 => (StreamHead::Tombstoned, 4, 4),
            3 => (StreamHead::At(version(3)), 1, 1),
            _ => (StreamHead::Deleted(version(3)), 4, 4),
        };
        assert_eq!((state.head, state.beginning.first.get(), state.beginning.anew.get()), (head, first, anew), "{stream}");
        let found =
            |at_most| log.snapshot(&topic, &stream, version(at_most)).expect("it is whole").map(|found| found.snapshot.version.get());
        assert_eq!((found(2), found(9)), if number % 5 == 0 { (Some(1), Some(3)) } else { (None, None) }, "{stream}");
    }
    log.stop();
}

/// Writes a folder in which data was redacted twice: the first time to the end, the second time it was only said.
fn write_redacted() -> SimDisk {
    let (disk, log, mut stepper) = open_new();
    log.create_topic(told(), TopicSettings::new(TopicKind::Events, 1)).expect("it is new");
    log.allow_removal();
    let put = |write: Write, stepper: &mut Stepper| {
        let answer = log.append(Append { writes: vec![write], ..Append::default() }).expect("there is room");
        stepper.commit().expect("no fault");
        block_on(answer).expect("nothing speaks against it");
    };
    for number in 1..=20 {
        let tags = vec![format!("n:{number}").parse().expect("a valid tag")];
        let event = NewEvent { kind: "Said".into(), data: Bytes::from(format!("secret {number}")), tags, ..NewEvent::default() };
        put(Write::Stream { topic: told(), stream: teller(), events: vec![event] }, &mut stepper);
    }
    let redact = |versions: &[u64]| Write::Redact {
        topic: told(),
        stream: teller(),
        versions: versions.iter().copied().map(StreamVersion::new).collect(),
        by: "ann".into(),
        reason: "asked to".into(),
    };
    put(redact(&[3, 4]), &mut stepper);
    for _ in 0..12 {
        stepper.compact().expect("no fault");
        stepper.commit().expect("no fault");
        stepper.tidy().expect("no fault");
        stepper.upkeep().expect("no fault");
    }
    assert_eq!(log.redacting(&told(), None).expect("it is there").since, None);
    put(redact(&[20]), &mut stepper);
    stepper.seal().expect("no fault");
    disk
}

fn told() -> TopicName {
    "told".parse().expect("a valid name")
}

fn teller() -> StreamId {
    "teller".parse().expect("a valid id")
}

#[test]
fn a_topic_with_redactions_has_a_manifest_of_version_7_and_shows_nothing() {
    let golden = golden("redacted");
    compare(&write_redacted(), &golden);
    let (_folder, data) = copied(&golden);
    for round in 0..2 {
        let log = EmbeddedLog::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), &data, config()).expect("it opens");
        log.allow_removal();
        let mut completed = log.redacted();
        while log.redacting(&told(), None).expect("it is there").since.is_some() {
            assert_eq!(round, 0, "what was done stays done");
            block_on(completed.changed()).expect("the log goes on");
        }
        let mut reader = log.reader(Selection::Stream(told(), teller(), StreamVersion::FIRST)).expect("it is there");
        let mut values = Vec::new();
        while values.len() < 20 {
            let chunk = reader.read(log.head().position, ReadLimits::default()).expect("the log is whole");
            let records = chunk.runs.iter().flat_map(|run| run.records());
            values.extend(records.map(|record| record.expect("a record").value.map(|value| String::from_utf8_lossy(value).into_owned())));
        }
        let expected = (1..=20).map(|number| (![3, 4, 20].contains(&number)).then(|| format!("secret {number}")));
        assert_eq!(values, expected.collect::<Vec<_>>(), "round {round}");
        log.stop();
    }
}
