//! Lives of streams in the files of a folder: kept by key indexes and made again without them, over power cuts, and in a manifest that
//! builds which know nothing of it refuse.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{path::Path, sync::Arc};

use foldlog_log::{
    Append, EmbeddedLog, LogBackend, LogConfig, LogError, NewEvent, Selection, Snapshot, Stepper, StoredSnapshot, StreamChange, StreamHead,
    StreamState, StreamVersion, Timestamp, TopicKind, TopicSettings, Write,
    clock::ManualClock,
    testing::{Random, SimDisk},
};
use futures::FutureExt;

const STREAMS: u64 = 12;

fn open(disk: &SimDisk, seed: u64) -> (EmbeddedLog, Stepper) {
    let config = LogConfig {
        journal_file_bytes: 64 << 10,
        first_journal_file_bytes: 32 << 10,
        tail_bytes: 0,
        tidy_bytes: 4 << 10,
        segment_bytes: 4 << 10,
        ..LogConfig::default()
    };
    let mut random = Random::new(seed);
    let draw = move || (u128::from(random.next()) << 64) | u128::from(random.next());
    let clock = Arc::new(ManualClock::at(Timestamp::new(1_000)));
    let opened = EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock, Path::new("/data"), config, draw).unwrap();
    assert_eq!((&opened.0.report().damage, opened.0.report().damaged.len()), (&None, 0));
    opened.0.create_topic("e".parse().unwrap(), TopicSettings::new(TopicKind::Events, 2)).unwrap();
    opened
}

fn id(number: u64) -> String {
    format!("s{number}")
}

fn change(number: u64, change: StreamChange) -> Write {
    Write::Change { topic: "e".parse().unwrap(), stream: id(number).parse().unwrap(), change, by: "ann".into() }
}

fn events(number: u64, count: usize) -> Write {
    let event = NewEvent { kind: "E".into(), data: "some data of an event".into(), ..NewEvent::default() };
    Write::Stream { topic: "e".parse().unwrap(), stream: id(number).parse().unwrap(), events: vec![event; count] }
}

fn snapshot(number: u64, version: u64) -> Write {
    let snapshot = Snapshot { version: StreamVersion::new(version), schema: None, content_type: None, data: vec![7; 300].into() };
    Write::Snapshot { topic: "e".parse().unwrap(), stream: id(number).parse().unwrap(), snapshot, by: "ann".into() }
}

/// What is told of every stream, the versions that are read of it, and its snapshots.
fn told(log: &EmbeddedLog) -> Vec<(StreamState, Vec<u64>, Vec<StoredSnapshot>)> {
    let one = |number| {
        let (topic, stream) = ("e".parse().unwrap(), id(number).parse().unwrap());
        let state = log.stream_state(&topic, &stream).unwrap();
        let snapshots = (1..40).filter_map(|at_most| log.snapshot(&topic, &stream, StreamVersion::new(at_most)).unwrap()).collect();
        let mut reader = log.reader(Selection::Stream(topic, stream, StreamVersion::FIRST)).unwrap();
        let mut versions = Vec::new();
        loop {
            let chunk = reader.read(log.head().position, Default::default()).unwrap();
            if chunk.runs.is_empty() {
                return (state, versions, snapshots);
            }
            let records = chunk.runs.iter().flat_map(|run| run.records());
            versions.extend(records.map(|record| record.unwrap().event().expect("no mark is returned").version.get()));
        }
    };
    (0..STREAMS).map(one).collect()
}

/// Appends, and changes of lives, one unit after the other; each is answered.
fn live(log: &EmbeddedLog, stepper: &mut Stepper, random: &mut Random, units: u64) -> u64 {
    let mut done = 0;
    for _ in 0..units {
        let number = random.below(STREAMS);
        let newest = log.stream_state(&"e".parse().unwrap(), &id(number).parse().unwrap()).unwrap().head.version();
        let write = match (random.below(12), newest) {
            (0, _) if number >= STREAMS - 3 => change(number, StreamChange::Tombstone),
            (1 | 2, _) => change(number, StreamChange::Delete),
            (3..6, Some(newest)) => {
                change(number, StreamChange::Truncate { before: StreamVersion::new(1 + random.below(newest.get() + 1)) })
            }
            (6 | 7, Some(newest)) => snapshot(number, 1 + random.below(newest.get() + 1)),
            (8, _) if random.one_in(4) => change(number, StreamChange::DropSnapshots),
            _ => events(number, 1 + random.below(6) as usize),
        };
        let answer = log.append(Append { writes: vec![write], ..Append::default() }).unwrap();
        stepper.commit().unwrap();
        match answer.now_or_never().expect("it was committed") {
            Ok(_) => done += 1,
            Err(LogError::Tombstoned { .. } | LogError::NoSuchState { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        match random.below(30) {
            0 => stepper.seal().unwrap(),
            1 | 2 => stepper.tidy().unwrap(),
            _ => {}
        }
    }
    done
}

#[test]
fn every_change_that_was_answered_survives_a_power_cut_at_any_time() {
    let (mut over, mut done, mut snapshots) = (0, 0, 0);
    for seed in 0..40 {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let mut disk = SimDisk::new(seed);
        for life in 0..6 {
            let (log, mut stepper) = open(&disk, seed * 100 + life);
            let units = random.below(60);
            done += live(&log, &mut stepper, &mut random, units);
            let known = told(&log);
            drop((log, stepper));
            disk = disk.power_cut();
            let (log, stepper) = open(&disk, seed * 100 + 50 + life);
            assert!(told(&log) == known, "life {life} of seed {seed}");
            over += known.iter().filter(|(state, ..)| state.head == StreamHead::Tombstoned).count();
            snapshots += known.iter().map(|(.., snapshots)| snapshots.len()).sum::<usize>();
            drop((log, stepper));
        }
    }
    assert!(over > 100 && done > 3000 && snapshots > 1000, "{over} tombstones, {done} units, {snapshots} snapshots");
}

#[test]
fn lives_are_the_same_when_key_indexes_are_made_again() {
    let mut disk = SimDisk::new(1);
    let (log, mut stepper) = open(&disk, 1);
    live(&log, &mut stepper, &mut Random::new(1), 400);
    stepper.tidy().unwrap();
    let known = told(&log);
    assert!(known.iter().any(|(state, ..)| state.head == StreamHead::Tombstoned));
    assert!(known.iter().any(|(state, ..)| state.beginning.first > state.beginning.anew));
    assert!(known.iter().any(|(.., snapshots)| !snapshots.is_empty()));
    drop((log, stepper));
    disk = disk.kill();
    let keys =
        |disk: &SimDisk| disk.paths().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "keys" || kind == "keylog"));
    let found: Vec<_> = keys(&disk).collect();
    assert!(found.len() > 4);
    for path in found {
        foldlog_log::disk::Disk::remove(&disk, &path).unwrap();
    }
    let (log, stepper) = open(&disk, 2);
    assert_eq!(told(&log), known);
    drop((log, stepper));
}

#[test]
fn the_first_change_in_a_topic_gives_its_manifest_the_format_that_older_builds_refuse() {
    let disk = SimDisk::new(1);
    let (log, mut stepper) = open(&disk, 1);
    let manifest = || {
        let path =
            disk.paths().into_iter().find(|path| path.extension().is_some_and(|kind| kind == "json") && path.starts_with("/data/topics"));
        String::from_utf8(disk.bytes_of(&path.expect("the topic has one")).unwrap()).unwrap()
    };
    let append = |stepper: &mut Stepper, write| {
        let answer = log.append(Append { writes: vec![write], ..Append::default() }).unwrap();
        stepper.commit().unwrap();
        answer.now_or_never().expect("it was committed").unwrap();
    };
    append(&mut stepper, events(1, 3));
    assert!(manifest().starts_with("{\"format\":1,"), "{}", manifest());
    append(&mut stepper, change(1, StreamChange::Delete));
    let changed = manifest();
    assert!(changed.starts_with("{\"format\":2,") && changed.contains("\"changes\":true"), "{changed}");
    append(&mut stepper, change(2, StreamChange::Tombstone));
    assert_eq!(manifest(), changed);
}
