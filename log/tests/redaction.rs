//! Redaction in the files of a folder: what was redacted is read by nobody from the answer on, and when it is done its bytes are in no
//! file, whatever they were in and whenever the power went.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{path::Path, sync::Arc};

use foldlog_log::{
    Append, Compression, EmbeddedLog, EventQuery, LogBackend, LogConfig, LogError, NewEvent, Offset, PartitionId, Position, ReadLimits,
    Selection, Snapshot, Stepper, StreamVersion, Timestamp, TopicKind, TopicName, TopicSettings, Write,
    clock::ManualClock,
    testing::{Fault, Random, SimDisk},
};
use futures::FutureExt;

/// What must be found nowhere: nothing makes it shorter.
fn secret(number: u64) -> Vec<u8> {
    let mut random = Random::new(number + 1_000_000);
    // Text, so that it may also stand in a header; no character leads to another one.
    (0..48).map(|_| 33 + random.below(90) as u8).collect()
}

fn text(number: u64) -> Arc<str> {
    String::from_utf8(secret(number)).unwrap().into()
}

fn topic() -> TopicName {
    "e".parse().unwrap()
}

fn open(disk: &SimDisk, seed: u64, compression: Compression) -> (EmbeddedLog, Stepper) {
    let config = LogConfig {
        journal_file_bytes: 64 << 10,
        first_journal_file_bytes: 32 << 10,
        tail_bytes: 256 << 10,
        tidy_bytes: 4 << 10,
        segment_bytes: 4 << 10,
        ..LogConfig::default()
    };
    let mut random = Random::new(seed);
    let draw = move || (u128::from(random.next()) << 64) | u128::from(random.next());
    let clock = Arc::new(ManualClock::at(Timestamp::new(1_000)));
    let opened = EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock, Path::new("/data"), config, draw).unwrap();
    assert_eq!((&opened.0.report().damage, opened.0.report().damaged.len()), (&None, 0));
    opened.0.create_topic(topic(), TopicSettings { compression, ..TopicSettings::new(TopicKind::Events, 2) }).unwrap();
    opened.0.allow_removal();
    opened
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
    Write::Stream { topic: topic(), stream: id.parse().unwrap(), events }
}

fn other(number: u64) -> Write {
    let data = format!("of nobody {number}").repeat(5).into();
    stream(&format!("o{}", number % 5), vec![NewEvent { kind: "Other".into(), data, ..NewEvent::default() }])
}

fn snapshot(version: u64, number: u64) -> Write {
    let snapshot = Snapshot { version: StreamVersion::new(version), schema: None, content_type: None, data: secret(number).into() };
    Write::Snapshot { topic: topic(), stream: "s".parse().unwrap(), snapshot, by: "ann".into() }
}

fn redact(versions: &[u64]) -> Write {
    let versions = versions.iter().copied().map(StreamVersion::new).collect();
    Write::Redact { topic: topic(), stream: "s".parse().unwrap(), versions, by: "the officer".into(), reason: "asked to".into() }
}

fn append(log: &EmbeddedLog, stepper: &mut Stepper, write: Write) -> Result<(), LogError> {
    let answer = log.append(Append { writes: vec![write], ..Append::default() })?;
    stepper.commit()?;
    answer.now_or_never().expect("it was committed").map(drop)
}

/// Version, data and whether it is told that they are redacted, of all events of `s`, as every kind of reader gives them.
fn read(log: &EmbeddedLog) -> Vec<(u64, Option<Vec<u8>>, bool)> {
    let partition = PartitionId::for_key(b"s", 2);
    let end = log.ends(&topic()).unwrap()[partition.get() as usize];
    let forwards = [
        Selection::Stream(topic(), "s".parse().unwrap(), StreamVersion::FIRST),
        Selection::Partition(topic(), partition, Offset::default()),
        Selection::Topics(vec![topic()], Position::default()),
        Selection::All(Position::default()),
    ];
    let backwards = [
        Selection::Stream(topic(), "s".parse().unwrap(), StreamVersion::new(10_000)),
        Selection::Partition(topic(), partition, end),
        Selection::All(log.head().position),
    ];
    let forwards = forwards.into_iter().flat_map(|selection| {
        [log.reader(selection.clone()).unwrap(), log.filtered_reader(selection, EventQuery::All).unwrap()].map(|reader| (reader, false))
    });
    let backwards = backwards.into_iter().map(|selection| (log.backward_reader(selection).unwrap(), true));
    let mut all: Vec<Vec<_>> = Vec::new();
    for (mut reader, is_backward) in forwards.chain(backwards) {
        let mut found = Vec::new();
        loop {
            let chunk = reader.read(log.head().position, ReadLimits { records: 7, bytes: 4096 }).unwrap();
            if chunk.runs.is_empty() {
                break;
            }
            for record in chunk.runs.iter().flat_map(|run| run.records()).map(Result::unwrap) {
                let event = record.event().expect("no mark is returned");
                if record.key != Some(b"s") {
                    assert!(record.value.is_some() && !event.is_redacted, "other streams have nothing to do with it");
                    continue;
                }
                assert_eq!((event.kind, event.tags().next()), ("Said", Some(&*format!("tag{}", event.version.get() % 3))));
                assert_eq!(record.timestamp, Timestamp::new(event.version.get() as i64));
                let is_bare = event.content_type.is_none() && event.schema.is_none() && event.attributes().next().is_none();
                assert_eq!(
                    (is_bare, event.correlation_id.is_none(), record.value.is_none()),
                    (event.is_redacted, event.is_redacted, event.is_redacted)
                );
                found.push((event.version.get(), record.value.map(|value| value[..48].to_vec()), event.is_redacted));
            }
        }
        if is_backward {
            found.sort_unstable();
        }
        all.push(found);
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "every reader gives the same: {all:?}");
    all.remove(0)
}

fn expected(count: u64, redacted: &[u64]) -> Vec<(u64, Option<Vec<u8>>, bool)> {
    let one = |version| (version, (!redacted.contains(&version)).then(|| secret(version)), redacted.contains(&version));
    (1..=count).map(one).collect()
}

/// Files that have a secret.
fn files_with(disk: &SimDisk, number: u64) -> Vec<String> {
    let secret = secret(number);
    let has = |path: &Path| disk.bytes_of(path).unwrap().windows(32).any(|bytes| *bytes == secret[..32]);
    disk.paths().iter().filter(|path| has(path)).map(|path| path.display().to_string()).collect()
}

/// Lets every thread have its turn until nothing is left to be erased.
fn erase(log: &EmbeddedLog, stepper: &mut Stepper) -> Result<usize, LogError> {
    for round in 0..200 {
        if log.redacting(&topic(), None).unwrap().since.is_none() {
            return Ok(round);
        }
        stepper.compact()?;
        stepper.commit()?;
        stepper.tidy()?;
        stepper.upkeep()?;
    }
    panic!("it is never done: {:?}", log.redacting(&topic(), None));
}

/// Events with secrets in sealed and active segments, journal and memory; the ninth is the last but one.
fn fill(log: &EmbeddedLog, stepper: &mut Stepper) -> Result<(), LogError> {
    for number in 0..60 {
        append(log, stepper, other(number))?;
        if number % 6 == 5 {
            append(log, stepper, stream("s", vec![event(number / 6 + 1)]))?;
        }
        match number {
            20 => append(log, stepper, snapshot(3, 100))?,
            40 => append(log, stepper, snapshot(6, 101))?,
            _ => {}
        }
        if number % 8 == 3 && number < 50 {
            stepper.tidy()?;
        }
    }
    Ok(())
}

#[test]
fn what_is_redacted_is_read_by_nobody_and_in_the_end_in_no_file() {
    for compression in Compression::ALL {
        let mut disk = SimDisk::new(1);
        let (log, mut stepper) = open(&disk, 1, compression);
        fill(&log, &mut stepper).unwrap();
        assert_eq!(read(&log), expected(10, &[]));
        for number in [2, 5, 10, 100, 101] {
            assert!(!files_with(&disk, number).is_empty(), "{number} can be found, compressed or not");
        }
        let (s, newest) = ("s".parse().unwrap(), StreamVersion::new(9));
        assert!(log.snapshot(&topic(), &s, newest).unwrap().is_some());
        append(&log, &mut stepper, redact(&[2, 5, 10])).unwrap();
        let known = expected(10, &[2, 5, 10]);
        assert_eq!(read(&log), known, "from the answer on");
        assert_eq!(log.snapshot(&topic(), &s, newest).unwrap(), None, "a state may tell what was redacted");
        append(&log, &mut stepper, snapshot(10, 102)).unwrap();
        let waits = log.redacting(&topic(), Some(&s)).unwrap();
        assert_eq!((waits.events, waits.since), (3, Some(Timestamp::new(1_000))));
        assert_eq!(log.metrics().redactions_pending, 3);
        assert_eq!(log.redacting(&topic(), Some(&"o1".parse().unwrap())).unwrap(), Default::default());

        // Also before anything is erased, and after a start that finds the marks in the journal or in key indexes.
        for tidies in [false, true] {
            let (again, mut steps) = open(&disk.fork(), 2, compression);
            if tidies {
                steps.tidy().unwrap();
            }
            assert_eq!((read(&again), again.redacting(&topic(), None).unwrap().events), (known.clone(), 3));
        }
        assert!(erase(&log, &mut stepper).unwrap() > 0);
        assert_eq!(read(&log), known);
        for number in [2, 5, 10, 100, 101] {
            assert_eq!(files_with(&disk, number), [""; 0], "{number}, {compression}");
        }
        for number in [1, 3, 9] {
            assert!(!files_with(&disk, number).is_empty(), "what was not redacted stays");
        }
        assert_eq!(log.snapshot(&topic(), &s, StreamVersion::new(10)).unwrap().map(|found| found.snapshot.data), Some(secret(102).into()));
        assert_eq!(log.metrics().redactions_pending, 0);
        drop((log, stepper));
        disk = disk.power_cut();
        for number in [2, 5, 10, 100, 101] {
            assert_eq!(files_with(&disk, number), [""; 0], "{number} does not come back with the power");
        }
        let (log, mut stepper) = open(&disk, 3, compression);
        assert_eq!((read(&log), log.redacting(&topic(), None).unwrap()), (known.clone(), Default::default()), "nothing is begun again");
        // Once more, and of what is redacted already.
        append(&log, &mut stepper, redact(&[2, 9])).unwrap();
        assert!(erase(&log, &mut stepper).unwrap() > 0);
        assert_eq!((read(&log), files_with(&disk, 9)), (expected(10, &[2, 5, 9, 10]), vec![]));
    }
}

#[test]
fn a_redaction_that_is_cut_off_goes_on_after_the_start() {
    let (mut answered, mut unanswered, mut begun) = (0, 0, 0);
    let base = SimDisk::new(9);
    let (log, mut stepper) = open(&base, 1, Compression::None);
    fill(&log, &mut stepper).unwrap();
    drop((log, stepper));
    for nth in 0.. {
        let disk = base.kill().fork();
        let (log, mut stepper) = open(&disk, 2, Compression::None);
        disk.arm(Fault::PowerOff { nth });
        let redacted = append(&log, &mut stepper, redact(&[2, 5, 10]));
        let erased =
            redacted.as_ref().map_err(ToString::to_string).and_then(|()| erase(&log, &mut stepper).map_err(|error| error.to_string()));
        drop((log, stepper));
        let disk = if nth % 3 == 0 { disk.kill() } else { disk.power_cut() };
        let (log, mut stepper) = open(&disk, 3, Compression::None);
        let found = read(&log);
        match &redacted {
            Ok(()) => assert_eq!(found, expected(10, &[2, 5, 10]), "cut {nth}"),
            Err(_) => assert!(found == expected(10, &[]) || found == expected(10, &[2, 5, 10]), "cut {nth}: all of it or nothing"),
        }
        if found == expected(10, &[2, 5, 10]) {
            begun += u64::from(log.redacting(&topic(), None).unwrap().since.is_some());
            erase(&log, &mut stepper).unwrap();
            for number in [2, 5, 10, 100, 101] {
                assert_eq!(files_with(&disk, number), [""; 0], "{number}, cut {nth}");
            }
            assert_eq!(read(&log), found);
            drop((log, stepper));
            let disk = disk.power_cut();
            for number in [2, 5, 10, 100, 101] {
                assert_eq!(files_with(&disk, number), [""; 0], "{number} after the power was cut twice, {nth}");
            }
        }
        (answered, unanswered) = (answered + u64::from(redacted.is_ok()), unanswered + u64::from(redacted.is_err()));
        if erased.is_ok() {
            break;
        }
    }
    assert!(answered > 30 && unanswered > 1 && begun > 30, "{answered} answered, {unanswered} not, {begun} went on");
}

#[test]
fn what_cannot_be_redacted_is_refused_with_the_reason() {
    let disk = SimDisk::new(2);
    let (log, mut stepper) = open(&disk, 1, Compression::None);
    log.create_topic("t".parse().unwrap(), TopicSettings::new(TopicKind::Table, 1)).unwrap();
    append(&log, &mut stepper, stream("s", vec![event(1), event(2)])).unwrap();
    let end = log.head().position;
    let mut refused = |write| append(&log, &mut stepper, write).unwrap_err();
    for (write, field) in [(redact(&[]), "versions"), (redact(&[0]), "versions"), (redact(&[1, 2, 1]), "versions")] {
        assert!(matches!(refused(write), LogError::Invalid { field: found, .. } if found == field));
    }
    for version in [3, u64::MAX >> 8] {
        assert!(matches!(refused(redact(&[1, version])), LogError::NoSuchEvent { version: found, .. } if found.get() == version));
    }
    let of = |change: fn(&mut TopicName, &mut Arc<str>)| {
        let Write::Redact { mut topic, stream, versions, mut by, reason } = redact(&[1]) else { panic!("it is one") };
        change(&mut topic, &mut by);
        Write::Redact { topic, stream, versions, by, reason }
    };
    assert!(matches!(refused(of(|topic, _| *topic = "t".parse().unwrap())), LogError::WrongKind { .. }));
    assert!(matches!(refused(of(|_, by| *by = "".into())), LogError::Invalid { field, .. } if field == "by"));
    let both = Append { writes: vec![stream("s", vec![event(3)]), redact(&[1])], ..Append::default() };
    assert!(matches!(log.append(both).map(drop), Err(LogError::Invalid { .. })));
    assert_eq!((log.head().position, read(&log)), (end, expected(2, &[])), "nothing was written");
}
