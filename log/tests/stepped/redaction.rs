//! Redaction in the files of a folder: what was redacted is read by nobody from the answer on, and when it is done its bytes are in no
//! file, whatever they were in and whenever the power went.

use std::{path::PathBuf, sync::Arc};

use foldlog_log::{
    Append, Compression, EventQuery, LogBackend, LogConfig, LogError, NewEvent, Offset, PartitionId, Position, RecordView, Selection,
    StreamVersion, Timestamp, TopicKind, TopicName, TopicSettings, Write,
    testing::{Fault, Random},
};

use super::room::{Folder, Log, NOW, SMALL, Way, config, name, of_stream, of_topic, redact, snapshot};

/// What must be found nowhere: nothing makes it shorter.
fn secret(number: u64) -> Vec<u8> {
    let mut random = Random::new(number + 1_000_000);
    // Text, so that it may also stand in a header; no character leads to another one.
    (0..48).map(|_| 33 + random.below(90) as u8).collect()
}

fn text(number: u64) -> Arc<str> {
    String::from_utf8(secret(number)).unwrap().into()
}

fn folder(seed: u64, compression: Compression) -> (Folder, Log) {
    let config = LogConfig { journal_file_bytes: 64 << 10, tail_bytes: 256 << 10, tidy_bytes: 4 << 10, segment_bytes: 4 << 10, ..config() };
    let mut folder = Folder::new(seed, config);
    let log = folder.open();
    log.log.create_topic(name("e"), TopicSettings { compression, ..TopicSettings::new(TopicKind::Events, 2) }).unwrap();
    (folder, log)
}

/// An event of stream `s` with its own secret in everything that may hold one.
fn event(number: u64) -> NewEvent {
    NewEvent {
        kind: "Said".into(),
        data: [&secret(number)[..], &[b' '; 200]].concat().into(),
        content_type: Some(text(number)),
        schema: Some(text(number)),
        correlation_id: Some(secret(number).into()),
        causation_id: Some(secret(number).into()),
        tags: vec![format!("tag{}", number % 3).parse().unwrap()],
        attributes: vec![("about".into(), text(number))],
        time: Some(Timestamp::new(number as i64)),
        ..NewEvent::default()
    }
}

fn stream(id: &str, events: Vec<NewEvent>) -> Write {
    Write::Stream { topic: name("e"), stream: id.parse().unwrap(), events }
}

fn other(number: u64) -> Write {
    let data = format!("of nobody {number}").repeat(5).into();
    stream(&format!("o{}", number % 5), vec![NewEvent { kind: "Other".into(), data, ..NewEvent::default() }])
}

/// Version, data and whether it is told that they are redacted, of all events of `s`, as every kind of reader gives them.
fn read(log: &Log) -> Vec<(u64, Option<Vec<u8>>, bool)> {
    let partition = PartitionId::for_key(b"s", 2);
    let of_partition = |offset| Selection::Partition(name("e"), partition, offset);
    let end = log.log.ends(&name("e")).unwrap()[partition.get() as usize];
    let forwards = [of_stream("e", "s", 1), of_partition(Offset::default()), of_topic("e", 0), Selection::All(Position::default())];
    let backwards = [of_stream("e", "s", 10_000), of_partition(end), Selection::All(log.log.head().position)];
    let filtered = forwards.clone().map(|selection| (log.log.filtered_reader(selection, EventQuery::All), Way::Forwards));
    let forwards = forwards.map(|selection| (log.log.reader(selection), Way::Forwards));
    let backwards = backwards.map(|selection| (log.log.backward_reader(selection), Way::Backwards));
    let all: Vec<Vec<_>> = forwards
        .into_iter()
        .chain(filtered)
        .chain(backwards)
        .map(|(reader, way)| {
            let mut found: Vec<_> = log.read(reader, way, SMALL, |_, record| of_record(&record)).into_iter().flatten().collect();
            if way == Way::Backwards {
                found.reverse();
            }
            found
        })
        .collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "every reader gives the same: {all:?}");
    all[0].clone()
}

fn of_record(record: &RecordView<'_>) -> Option<(u64, Option<Vec<u8>>, bool)> {
    let event = record.event().expect("no mark is returned");
    if record.key != Some(b"s") {
        assert!(record.value.is_some() && !event.is_redacted, "other streams have nothing to do with it");
        return None;
    }
    assert_eq!((event.kind, event.tags().next()), ("Said", Some(&*format!("tag{}", event.version.get() % 3))));
    assert_eq!(record.timestamp, Timestamp::new(event.version.get() as i64));
    let is_bare = event.content_type.is_none() && event.schema.is_none() && event.attributes().next().is_none();
    assert_eq!(
        (is_bare, event.correlation_id.is_none(), record.value.is_none()),
        (event.is_redacted, event.is_redacted, event.is_redacted)
    );
    Some((event.version.get(), record.value.map(|value| value[..48].to_vec()), event.is_redacted))
}

fn expected(count: u64, redacted: &[u64]) -> Vec<(u64, Option<Vec<u8>>, bool)> {
    let one = |version| (version, (!redacted.contains(&version)).then(|| secret(version)), redacted.contains(&version));
    (1..=count).map(one).collect()
}

/// Files that have a secret.
fn files_with(folder: &Folder, number: u64) -> Vec<String> {
    let secret = secret(number);
    let has = |path: &PathBuf| folder.disk.bytes_of(path).unwrap().windows(32).any(|bytes| *bytes == secret[..32]);
    folder.files_in("/").iter().filter(|path| has(path)).map(|path| path.display().to_string()).collect()
}

/// Lets every thread have its turn until nothing is left to be erased.
fn erase(log: &mut Log) -> Result<usize, LogError> {
    for round in 0..200 {
        if log.log.redacting(&name("e"), None).unwrap().since.is_none() {
            return Ok(round);
        }
        log.turn()?;
    }
    panic!("it is never done: {:?}", log.log.redacting(&name("e"), None));
}

/// Events with secrets in sealed and active segments, journal and memory; the ninth is the last but one.
fn fill(log: &mut Log) {
    for number in 0..60 {
        log.write(other(number));
        if number % 6 == 5 {
            log.write(stream("s", vec![event(number / 6 + 1)]));
        }
        match number {
            20 => drop(log.write(snapshot("e", "s", 3, secret(100)))),
            40 => drop(log.write(snapshot("e", "s", 6, secret(101)))),
            _ => {}
        }
        if number % 8 == 3 && number < 50 {
            log.stepper.tidy().unwrap();
        }
    }
}

#[test]
fn what_is_redacted_is_read_by_nobody_and_in_the_end_in_no_file() {
    for compression in Compression::ALL {
        let (mut folder, mut log) = folder(1, compression);
        fill(&mut log);
        assert_eq!(read(&log), expected(10, &[]));
        for number in [2, 5, 10, 100, 101] {
            assert!(!files_with(&folder, number).is_empty(), "{number} can be found, compressed or not");
        }
        let (s, newest) = ("s".parse().unwrap(), StreamVersion::new(9));
        assert!(log.log.snapshot(&name("e"), &s, newest).unwrap().is_some());
        log.write(redact("e", "s", &[2, 5, 10]));
        let known = expected(10, &[2, 5, 10]);
        assert_eq!(read(&log), known, "from the answer on");
        assert_eq!(log.log.snapshot(&name("e"), &s, newest).unwrap(), None, "a state may tell what was redacted");
        log.write(snapshot("e", "s", 10, secret(102)));
        let waits = log.log.redacting(&name("e"), Some(&s)).unwrap();
        assert_eq!((waits.events, waits.since), (3, Some(NOW)));
        assert_eq!(log.log.metrics().redactions_pending, 3);
        assert_eq!(log.log.redacting(&name("e"), Some(&"o1".parse().unwrap())).unwrap(), Default::default());

        // Also before anything is erased, and after a start that finds the marks in the journal or in key indexes.
        for tidies in [false, true] {
            let mut again = folder.fork();
            let mut log = again.open();
            if tidies {
                log.stepper.tidy().unwrap();
            }
            assert_eq!((read(&log), log.log.redacting(&name("e"), None).unwrap().events), (known.clone(), 3));
        }
        assert!(erase(&mut log).unwrap() > 0);
        assert_eq!(read(&log), known);
        for number in [2, 5, 10, 100, 101] {
            assert_eq!(files_with(&folder, number), [""; 0], "{number}, {compression}");
        }
        for number in [1, 3, 9] {
            assert!(!files_with(&folder, number).is_empty(), "what was not redacted stays");
        }
        assert_eq!(
            log.log.snapshot(&name("e"), &s, StreamVersion::new(10)).unwrap().map(|found| found.snapshot.data),
            Some(secret(102).into())
        );
        assert_eq!(log.log.metrics().redactions_pending, 0);
        folder.crash(log, true);
        for number in [2, 5, 10, 100, 101] {
            assert_eq!(files_with(&folder, number), [""; 0], "{number} does not come back with the power");
        }
        log = folder.open();
        assert_eq!(
            (read(&log), log.log.redacting(&name("e"), None).unwrap()),
            (known.clone(), Default::default()),
            "nothing is begun again"
        );
        // Once more, and of what is redacted already.
        log.write(redact("e", "s", &[2, 9]));
        assert!(erase(&mut log).unwrap() > 0);
        assert_eq!((read(&log), files_with(&folder, 9)), (expected(10, &[2, 5, 9, 10]), vec![]));
    }
}

#[test]
fn a_redaction_that_is_cut_off_goes_on_after_the_start() {
    let (mut answered, mut unanswered, mut begun) = (0, 0, 0);
    let (base, mut log) = folder(9, Compression::None);
    fill(&mut log);
    drop(log);
    for nth in 0.. {
        let mut folder = base.fork();
        let mut log = folder.open();
        folder.disk.arm(Fault::PowerOff { nth });
        let redacted = log.try_write(redact("e", "s", &[2, 5, 10]));
        let is_done = redacted.is_ok() && erase(&mut log).is_ok();
        folder.crash(log, nth % 3 > 0);
        log = folder.open();
        let found = read(&log);
        match &redacted {
            Ok(_) => assert_eq!(found, expected(10, &[2, 5, 10]), "cut {nth}"),
            Err(_) => assert!(found == expected(10, &[]) || found == expected(10, &[2, 5, 10]), "cut {nth}: all of it or nothing"),
        }
        if found == expected(10, &[2, 5, 10]) {
            begun += u64::from(log.log.redacting(&name("e"), None).unwrap().since.is_some());
            erase(&mut log).unwrap();
            for number in [2, 5, 10, 100, 101] {
                assert_eq!(files_with(&folder, number), [""; 0], "{number}, cut {nth}");
            }
            assert_eq!(read(&log), found);
            folder.crash(log, true);
            for number in [2, 5, 10, 100, 101] {
                assert_eq!(files_with(&folder, number), [""; 0], "{number} after the power was cut twice, {nth}");
            }
        }
        (answered, unanswered) = (answered + u64::from(redacted.is_ok()), unanswered + u64::from(redacted.is_err()));
        if is_done {
            break;
        }
    }
    assert!(answered > 30 && unanswered > 1 && begun > 30, "{answered} answered, {unanswered} not, {begun} went on");
}

#[test]
fn what_cannot_be_redacted_is_refused_with_the_reason() {
    let (_folder, mut log) = folder(2, Compression::None);
    log.log.create_topic("t".parse().unwrap(), TopicSettings::new(TopicKind::Table, 1)).unwrap();
    log.write(stream("s", vec![event(1), event(2)]));
    let end = log.log.head().position;
    let mut refused = |write| log.try_write(write).unwrap_err();
    for (write, field) in
        [(redact("e", "s", &[]), "versions"), (redact("e", "s", &[0]), "versions"), (redact("e", "s", &[1, 2, 1]), "versions")]
    {
        assert!(matches!(refused(write), LogError::Invalid { field: found, .. } if found == field));
    }
    for version in [3, u64::MAX >> 8] {
        assert!(matches!(refused(redact("e", "s", &[1, version])), LogError::NoSuchEvent { version: found, .. } if found.get() == version));
    }
    let of = |change: fn(&mut TopicName, &mut Arc<str>)| {
        let Write::Redact { mut topic, stream, versions, mut by, reason } = redact("e", "s", &[1]) else { panic!("it is one") };
        change(&mut topic, &mut by);
        Write::Redact { topic, stream, versions, by, reason }
    };
    assert!(matches!(refused(of(|topic, _| *topic = "t".parse().unwrap())), LogError::WrongKind { .. }));
    assert!(matches!(refused(of(|_, by| *by = "".into())), LogError::Invalid { field, .. } if field == "by"));
    let both = Append { writes: vec![stream("s", vec![event(3)]), redact("e", "s", &[1])], ..Append::default() };
    assert!(matches!(log.log.append(both).map(drop), Err(LogError::Invalid { .. })));
    assert_eq!((log.log.head().position, read(&log)), (end, expected(2, &[])), "nothing was written");
}
