//! Filtered reads of a log on disk: they go past what they do not need, and past nothing that they may need.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use foldlog_log::{
    Append, EmbeddedLog, EventQuery, LogBackend, LogConfig, LogError, LogReader, NewEvent, PartitionId, Position, QueryItem, ReadLimits,
    Selection, Tag, Timestamp, TopicKind, TopicSettings, Write, clock::ManualClock, disk::Disk, testing::SimDisk,
};
use futures::FutureExt;

const EVENTS: u64 = 3000;
/// One event in so many has the tag.
const RARE: u64 = 500;

fn open(disk: &SimDisk) -> EmbeddedLog {
    let config = LogConfig {
        journal_file_bytes: 256 << 10,
        first_journal_file_bytes: 64 << 10,
        tail_bytes: 0,
        segment_bytes: 16 << 10,
        near_positions: 50,
        ..LogConfig::default()
    };
    let clock = Arc::new(ManualClock::at(Timestamp::new(0)));
    let (log, mut stepper) = EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock, Path::new("/data"), config, || 7).unwrap();
    if log.head().position > Position::default() {
        return log;
    }
    log.create_topic("e".parse().unwrap(), TopicSettings::new(TopicKind::Events, 2)).unwrap();
    for number in 0..EVENTS {
        let tags = if number % RARE == 7 { vec![tag("rare")] } else { Vec::new() };
        let event = NewEvent { kind: "E".into(), data: number.to_string().into(), tags, ..NewEvent::default() };
        let stream = format!("s{}", number % 3).parse().unwrap();
        let write = Write::Stream { topic: "e".parse().unwrap(), stream, events: vec![event] };
        let answer = log.append(Append { writes: vec![write], ..Append::default() }).unwrap();
        if number % 10 == 9 {
            stepper.commit().unwrap();
            answer.now_or_never().unwrap().unwrap();
        }
        if number % 200 == 199 {
            stepper.tidy().unwrap();
        }
    }
    stepper.seal().unwrap();
    stepper.tidy().unwrap();
    log
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn tagged(text: &str) -> EventQuery {
    EventQuery::Items(vec![QueryItem { types: Vec::new(), tags: vec![tag(text)] }])
}

fn all() -> Selection {
    Selection::Topics(vec!["e".parse().unwrap()], Position::default())
}

/// Payloads up to the end or the first damage, and whether that was met.
fn payloads(log: &EmbeddedLog, reader: Result<Box<dyn LogReader>, LogError>) -> (Vec<u64>, bool) {
    let (mut reader, until, mut found) = (reader.unwrap(), log.head().position, Vec::new());
    for _ in 0..10_000 {
        let chunk = match reader.read(until, ReadLimits::default()) {
            Ok(chunk) => chunk,
            Err(LogError::Corrupt { .. }) => return (found, true),
            Err(error) => panic!("{error}"),
        };
        if chunk.runs.is_empty() && chunk.scanned_to >= until {
            return (found, false);
        }
        for record in chunk.runs.iter().flat_map(foldlog_log::Run::records) {
            found.push(String::from_utf8_lossy(record.unwrap().value.unwrap()).parse().unwrap());
        }
    }
    panic!("it does not end")
}

fn rare() -> Vec<u64> {
    (0..EVENTS).filter(|number| number % RARE == 7).collect()
}

/// Damages a batch between two rare events.
fn damage(disk: &SimDisk) -> PathBuf {
    let is_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    let logs: Vec<_> = disk.paths().into_iter().filter(is_log).collect();
    let says = |path: &PathBuf, text: &[u8]| disk.bytes_of(path).unwrap().windows(text.len()).any(|bytes| bytes == text);
    let path = logs.iter().find(|path| says(path, b"1201")).unwrap();
    let mut bytes = disk.bytes_of(path).unwrap();
    let place = bytes.windows(4).position(|bytes| bytes == b"1201").unwrap();
    bytes[place] = b'9';
    disk.overwrite(path, bytes);
    path.clone()
}

#[test]
fn a_rare_tag_is_read_past_damage_that_is_not_in_its_way() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    damage(&disk);
    let read_rare = || payloads(&log, log.filtered_reader(all(), tagged("rare")));
    assert_eq!(read_rare(), (rare(), false), "nothing between them is looked at");
    let (found, met) = payloads(&log, log.filtered_reader(all(), EventQuery::All));
    assert!(met && found.iter().copied().eq(0..found.len() as u64), "what every event matches is read through, up to the damage");
    let append = Append {
        writes: vec![Write::Stream {
            topic: "e".parse().unwrap(),
            stream: "s0".parse().unwrap(),
            events: vec![NewEvent { kind: "E".into(), ..NewEvent::default() }],
        }],
        ..Append::default()
    };
    let streams_partition = PartitionId::for_key(b"s0", 2);
    let refused = matches!(log.append(append), Err(LogError::PartitionReadOnly { partition, .. }) if partition == streams_partition);
    assert_eq!(refused, streams_partition == PartitionId::for_key(b"s1", 2), "1201 is in s1, and the damage is known now");
    assert_eq!(read_rare(), (rare(), false), "postings knew it before");
    let backwards = log
        .filtered_backward_reader(Selection::All(log.head().position), tagged("rare"))
        .unwrap()
        .read(log.head().position, ReadLimits::default());
    assert_eq!(backwards.unwrap().runs.len(), rare().len());
}

#[test]
fn what_postings_could_not_be_made_of_is_read_through_and_reported() {
    let disk = SimDisk::new(2);
    drop(open(&disk));
    let damaged = damage(&disk);
    for path in disk.paths().into_iter().filter(|path| path.starts_with("/data/postings") && path.extension().is_some()) {
        disk.remove(&path).unwrap();
    }
    let log = open(&disk);
    assert_eq!(log.report().damaged.len(), 1, "it is met when they are made again, and the log opens all the same");
    let (found, met) = payloads(&log, log.filtered_reader(all(), tagged("rare")));
    let before = rare().into_iter().filter(|number| *number < 1201).collect::<Vec<_>>();
    assert_eq!((found, met), (before, true), "{} is not passed over", damaged.display());
    let partition = |key: &[u8]| {
        let id = PartitionId::for_key(key, 2);
        payloads(&log, log.filtered_reader(Selection::Partition("e".parse().unwrap(), id, foldlog_log::Offset::default()), tagged("rare")))
    };
    let in_partition = |key: &[u8]| {
        let id = PartitionId::for_key(key, 2);
        rare().into_iter().filter(|number| PartitionId::for_key(format!("s{}", number % 3).as_bytes(), 2) == id).collect::<Vec<_>>()
    };
    let whole = [b"s0", b"s2"].into_iter().find(|key| PartitionId::for_key(*key, 2) != PartitionId::for_key(b"s1", 2)).unwrap();
    assert_eq!(partition(whole), (in_partition(whole), false), "the other partition is read");
}

#[test]
fn a_filter_asks_for_as_much_as_a_condition_may() {
    let log = open(&SimDisk::new(3));
    let of = |count: usize| {
        EventQuery::Items((0..count).map(|number| QueryItem { types: vec![], tags: vec![tag(&format!("n{number}"))] }).collect())
    };
    assert_eq!(payloads(&log, log.filtered_reader(all(), of(16_384))), (Vec::new(), false));
    match log.filtered_reader(all(), of(16_385)).map(drop) {
        Err(LogError::Invalid { field, .. }) => assert_eq!(field, "query"),
        other => panic!("too much was not refused: {other:?}"),
    }
}
