//! The embedded log on real files, with its threads: append, read, refuse, stop, and be there again after a restart.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, path::Path, sync::Arc};

use foldlog_log::{
    Append, Appended, EmbeddedLog, Expected, Found, Identity, LogBackend, LogConfig, LogError, NewEvent, Offset, PartitionId, Position,
    Precondition, ReadLimits, RequestId, RequestKey, Selection, StreamHead, StreamVersion, TopicKind, TopicSettings, Write,
    clock::SystemClock,
    disk::RealDisk,
    testing::{SimDisk, conformance::block_on},
};
use futures::FutureExt as _;

fn config() -> LogConfig {
    LogConfig { first_journal_file_bytes: 256 << 10, journal_file_bytes: 1 << 20, ..LogConfig::default() }.without_reserve()
}

fn open(folder: &Path) -> EmbeddedLog {
    EmbeddedLog::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), folder, config()).unwrap()
}

fn events_topic(log: &EmbeddedLog, name: &str, partitions: u32) {
    log.create_topic(name.parse().unwrap(), TopicSettings::new(TopicKind::Events, partitions)).unwrap();
}

fn write(topic: &str, stream: &str, data: &[&str]) -> Write {
    let event = |data: &&str| NewEvent { kind: "Happened".into(), data: data.to_string().into(), ..NewEvent::default() };
    Write::Stream { topic: topic.parse().unwrap(), stream: stream.parse().unwrap(), events: data.iter().map(event).collect() }
}

fn unit(writes: Vec<Write>) -> Append {
    Append { writes, ..Append::default() }
}

fn expect(topic: &str, stream: &str, expected: Expected) -> Precondition {
    Precondition::Stream { topic: topic.parse().unwrap(), stream: stream.parse().unwrap(), expected }
}

async fn append(log: &EmbeddedLog, append: Append) -> Result<Appended, LogError> {
    log.append(append)?.await
}

/// (position, stream, version, data) of all that a selection holds.
fn read(log: &EmbeddedLog, selection: Selection, limits: ReadLimits) -> Vec<(u64, String, u64, String)> {
    let mut reader = log.reader(selection).unwrap();
    let until = log.head().position;
    let mut found = Vec::new();
    loop {
        let chunk = reader.read(until, limits).unwrap();
        for run in &chunk.runs {
            for record in run.records() {
                let record = record.unwrap();
                let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
                let event = record.event().unwrap();
                found.push((record.position.get(), text(record.key), event.version.get(), text(record.value)));
            }
        }
        if chunk.runs.is_empty() {
            assert_eq!(chunk.scanned_to, until);
            return found;
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_read_in_position_order_also_after_a_restart() {
    read_back(config()).await;
}

#[tokio::test]
async fn what_left_memory_and_journal_is_read_from_segments() {
    let small = LogConfig {
        first_journal_file_bytes: 32 << 10,
        journal_file_bytes: 64 << 10,
        tail_bytes: 20_000,
        tidy_bytes: 64 << 10,
        segment_bytes: 4096,
        ..LogConfig::default()
    };
    read_back(small).await;
}

async fn read_back(config: LogConfig) {
    let folder = tempfile::tempdir().unwrap();
    let open = |folder: &Path| {
        EmbeddedLog::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), folder, config.clone().without_reserve()).unwrap()
    };
    let log = open(folder.path());
    events_topic(&log, "a", 4);
    events_topic(&log, "b", 2);
    let mut expected: Expectation = Vec::new();
    let mut versions = BTreeMap::<(String, String), u64>::new();
    for round in 0..200 {
        let (topic, stream, data) = (if round % 3 == 0 { "b" } else { "a" }, format!("s{}", round % 7), format!("{round}"));
        let other = format!("t{}", round % 5);
        let answer = append(&log, unit(vec![write(topic, &stream, &[&data, &data]), write("a", &other, &[&data])])).await.unwrap();
        assert_eq!(answer.end.get() - answer.first.get(), 3);
        for (topic, stream, place) in [(topic, &stream, 0), (topic, &stream, 1), ("a", &other, 2)] {
            let version = versions.entry((topic.into(), stream.clone())).or_default();
            *version += 1;
            expected.push((topic, (answer.first.get() + place, stream.clone(), *version, data.clone())));
        }
    }
    check_reads(&log, &expected, &versions);
    log.stop();
    drop(log);
    let log = open(folder.path());
    assert_eq!(log.report().damage, None);
    check_reads(&log, &expected, &versions);
}

type Expectation = Vec<(&'static str, (u64, String, u64, String))>;

fn check_reads(log: &EmbeddedLog, expected: &Expectation, versions: &BTreeMap<(String, String), u64>) {
    let all: Vec<_> = expected.iter().map(|(_, record)| record.clone()).collect();
    let small = ReadLimits { records: 4, bytes: 1000 };
    for limits in [ReadLimits::default(), small] {
        assert_eq!(read(log, Selection::All(Position::new(0)), limits), all);
        let of_b: Vec<_> = expected.iter().filter(|(topic, _)| *topic == "b").map(|(_, record)| record.clone()).collect();
        assert_eq!(read(log, Selection::Topics(vec!["b".parse().unwrap()], Position::new(0)), limits), of_b);
        let stream = Selection::Stream("a".parse().unwrap(), "s1".parse().unwrap(), StreamVersion::new(3));
        let of_s1: Vec<_> =
            expected.iter().filter(|(topic, r)| *topic == "a" && r.1 == "s1" && r.2 >= 3).map(|(_, record)| record.clone()).collect();
        assert_eq!(read(log, stream, limits), of_s1);
        let ends = log.ends(&"a".parse().unwrap()).unwrap();
        let mut of_partitions = Vec::new();
        for (partition, end) in (0..).zip(ends) {
            let found = read(log, Selection::Partition("a".parse().unwrap(), PartitionId::new(partition), Offset::new(0)), limits);
            assert_eq!(found.len() as u64, end.get());
            of_partitions.extend(found);
        }
        of_partitions.sort();
        assert_eq!(of_partitions, expected.iter().filter(|(topic, _)| *topic == "a").map(|(_, r)| r.clone()).collect::<Vec<_>>());
    }
    let head = log.stream_head(&"a".parse().unwrap(), &"s1".parse().unwrap()).unwrap();
    assert_eq!(head, StreamHead::At(StreamVersion::new(versions[&("a".into(), "s1".into())])));
}

#[tokio::test]
async fn limits_cut_runs_and_lose_no_record_in_any_selection() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    events_topic(&log, "a", 1);
    for _ in 0..5 {
        append(&log, unit(vec![write("a", "s", &["x"; 10])])).await.unwrap();
    }
    let a = || "a".parse().unwrap();
    let selections = [
        Selection::Partition(a(), PartitionId::new(0), Offset::default()),
        Selection::Stream(a(), "s".parse().unwrap(), StreamVersion::FIRST),
        Selection::Topics(vec![a()], Position::default()),
        Selection::All(Position::default()),
    ];
    for selection in selections {
        for records in [1, 3, 7, 10, 49, 1000] {
            let found = read(&log, selection.clone(), ReadLimits { records, ..ReadLimits::default() });
            let versions: Vec<u64> = found.iter().map(|(_, _, version, _)| *version).collect();
            assert_eq!(versions, (1..=50).collect::<Vec<_>>(), "{selection:?}, {records} at a time");
        }
    }
    log.stop();
}

#[tokio::test]
async fn every_violated_precondition_is_reported_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    events_topic(&log, "a", 4);
    append(&log, unit(vec![write("a", "x", &["1", "2"])])).await.unwrap();
    let before = log.head();
    let conditions = vec![
        expect("a", "x", Expected::Version(StreamVersion::new(1))),
        expect("a", "x", Expected::Version(StreamVersion::new(2))),
        expect("a", "y", Expected::Exists),
        expect("a", "x", Expected::Absent),
        expect("a", "z", Expected::Absent),
    ];
    let refused = Append { writes: vec![write("a", "y", &["no"])], preconditions: conditions, ..Append::default() };
    let Err(LogError::Conflict { violations, seen }) = append(&log, refused).await else { panic!("no conflict") };
    assert_eq!(violations.iter().map(|violation| violation.index).collect::<Vec<_>>(), [0, 2, 3]);
    assert!(matches!(violations[0].found, Found::Stream { actual: StreamHead::At(version), .. } if version.get() == 2));
    assert_eq!(seen, before.position);
    assert_eq!(log.head(), before);
}

#[tokio::test]
async fn a_repeat_gets_its_first_answer_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    events_topic(&log, "a", 4);
    let key = RequestKey { principal: "me".into(), id: RequestId::new([5; 16]) };
    let request = |digest, data: &str| Append {
        writes: vec![write("a", "x", &[data])],
        preconditions: vec![expect("a", "x", Expected::Absent)],
        identity: Some(Identity { key: key.clone(), digest, first_attempt: None }),
        ..Append::default()
    };
    let first = append(&log, request(1, "one")).await.unwrap();
    let again = append(&log, request(1, "one")).await.unwrap();
    assert_eq!(again, Appended { deduplicated: true, ..first.clone() });
    drop(log);
    let log = open(folder.path());
    assert_eq!(append(&log, request(1, "one")).await.unwrap(), again);
    assert!(matches!(append(&log, request(2, "two")).await, Err(LogError::RequestIdReused { .. })));
    assert_eq!(log.head().position, Position::new(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_racing_appends_with_one_expectation_exactly_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    events_topic(&log, "a", 4);
    let race = |_| Append {
        writes: vec![write("a", "x", &["mine"])],
        preconditions: vec![expect("a", "x", Expected::Absent)],
        ..Append::default()
    };
    let futures: Vec<_> = (0..1000).map(|n| log.append(race(n)).unwrap()).collect();
    let mut won = 0;
    for future in futures {
        match future.await {
            Ok(_) => won += 1,
            Err(LogError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(log.head().position, Position::new(1));
    let metrics = log.metrics();
    assert_eq!((metrics.appends, metrics.refused), (1, 999));
}

#[tokio::test]
async fn many_waiting_appends_share_syncs() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    events_topic(&log, "a", 4);
    let futures: Vec<_> = (0..2000).map(|n| log.append(unit(vec![write("a", &format!("s{n}"), &["x"])])).unwrap()).collect();
    for future in futures {
        future.await.unwrap();
    }
    let metrics = log.metrics();
    assert_eq!(metrics.records, 2000);
    assert!(metrics.groups <= 200, "{metrics:?}");
    assert_eq!((metrics.group_units.count(), metrics.group_units.sum), (metrics.groups, 2000));
    assert_eq!((metrics.group_bytes.count(), metrics.sync_micros.count()), (metrics.groups, metrics.syncs));
    assert_eq!((metrics.queued, metrics.queued_bytes, metrics.segments), (0, 0, 0));
    assert!(metrics.tail_bytes > 2000, "{metrics:?}");
}

#[test]
fn what_is_shown_of_a_partition_lies_below_the_end_of_the_log() {
    let log = EmbeddedLog::open(Arc::new(SimDisk::new(1)), Arc::new(SystemClock::new()), Path::new("/data"), config()).unwrap();
    events_topic(&log, "e", 1);
    let (topic, appends) = ("e".parse().unwrap(), 3_000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..appends {
                block_on(log.append(unit(vec![write("e", "s", &["one", "two"])])).unwrap()).unwrap();
            }
        });
        let mut seen = 0;
        while seen < appends * 2 {
            let (ends, head) = (log.ends(&topic).unwrap(), log.head().position);
            assert!(ends[0].get() <= head.get(), "the partition ends at {}, the log at {head}", ends[0]);
            seen = ends[0].get();
        }
    });
    log.stop();
}

#[test]
fn a_second_process_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let _log = open(folder.path());
    let second = EmbeddedLog::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), folder.path(), config());
    let Err(LogError::Locked { owner, .. }) = second else { panic!("not refused") };
    assert!(owner.contains("process"), "{owner}");
}

#[test]
fn a_new_folder_within_that_of_another_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let inner = folder.path().join("topics/inner");
    let refused = EmbeddedLog::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), &inner, config());
    let Err(LogError::Invalid { field, reason }) = refused else { panic!("not refused") };
    assert!(field == "data" && reason.contains(&format!("within {}", folder.path().display())), "{reason}");
    assert!(!inner.exists());
    drop(open(folder.path()));
}

#[tokio::test]
async fn the_journal_keeps_its_size_while_much_more_goes_through_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = LogConfig {
        first_journal_file_bytes: 256 << 10,
        journal_file_bytes: 512 << 10,
        tidy_bytes: 256 << 10,
        untidied_bytes: 1 << 20,
        tail_bytes: 256 << 10,
        ..LogConfig::default()
    };
    let log = EmbeddedLog::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), folder.path(), config.without_reserve()).unwrap();
    events_topic(&log, "a", 2);
    let data = "x".repeat(50_000);
    let mut refused = 0;
    for round in 0..400 {
        loop {
            match append(&log, unit(vec![write("a", &format!("s{}", round % 5), &[&data])])).await {
                Ok(_) => break,
                // Segments may be behind; what was refused is sent again.
                Err(LogError::Overloaded { .. }) => {
                    refused += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    let metrics = log.metrics();
    println!("{metrics:?}, refused {refused}");
    assert!(metrics.journal_bytes <= 4 << 20, "20 MB went through {metrics:?}");
    assert!(metrics.checkpoints >= 5, "{metrics:?}");
    assert_eq!(read(&log, Selection::All(Position::new(0)), ReadLimits::default()).len(), 400);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "files that are none of the log's")]
fn files_with_other_names_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let small = LogConfig { first_journal_file_bytes: 32 << 10, journal_file_bytes: 64 << 10, ..LogConfig::default() };
    let open = || {
        let disk = Arc::new(RealDisk);
        EmbeddedLog::open_stepped(disk, Arc::new(SystemClock::new()), folder.path(), small.clone().without_reserve(), || {
            uuid::Uuid::new_v4().as_u128()
        })
        .unwrap()
    };
    let (log, stepper) = open();
    events_topic(&log, "a", 1);
    drop((log, stepper));
    // Copies that somebody made, under names that are almost ours.
    let journal = std::fs::read(folder.path().join("journal/000001.journal")).unwrap();
    let strays = ["journal/1.journal", "journal/+00001.journal", "journal/000001.journal.bak", "topics/notes.txt", "1.window", "README"];
    for stray in strays {
        std::fs::write(folder.path().join(stray), &journal).unwrap();
    }
    for start in 0..4_u64 {
        let (log, mut stepper) = open();
        assert_eq!(log.report().damage, None);
        let found = read(&log, Selection::All(Position::default()), ReadLimits::default());
        let expected = (0..start * 30).map(|place| (place, "s".into(), place + 1, place.to_string())).collect::<Vec<_>>();
        assert_eq!(found, expected, "start {start}");
        for round in 0..30 {
            let answer = log.append(unit(vec![write("a", "s", &[&format!("{}", start * 30 + round)])])).unwrap();
            stepper.commit().unwrap();
            answer.now_or_never().unwrap().unwrap();
            if round == 3 {
                // Frees whatever is free; what comes after lies in the journal alone when the process dies.
                stepper.tidy().unwrap();
            }
        }
    }
    for stray in strays {
        assert!(std::fs::read(folder.path().join(stray)).unwrap() == journal, "{stray} was written to");
    }
}

#[tokio::test]
async fn whoever_waits_for_the_end_is_told_that_the_log_has_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    events_topic(&log, "a", 1);
    let mut durable = log.durable();
    append(&log, unit(vec![write("a", "s", &["x"])])).await.unwrap();
    durable.changed().await.unwrap();
    assert_eq!(*durable.borrow_and_update(), Position::new(1));
    log.stop();
    assert!(durable.changed().await.is_err());
    assert!(matches!(log.append(unit(vec![write("a", "s", &["y"])])), Err(LogError::Stopping)));
}
