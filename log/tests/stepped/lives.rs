//! Lives of streams in the files of a folder: kept by key indexes and made again without them, over power cuts, and in a manifest that
//! builds which know nothing of it refuse.

use foldlog_log::{
    LogBackend, LogConfig, LogError, NewEvent, ReadLimits, RecordView, StoredSnapshot, StreamChange, StreamHead, StreamState,
    StreamVersion, TopicKind, TopicSettings, Write, testing::Random,
};

use super::room::{Folder, Log, Way, change, config, name, of_stream, snapshot};

const STREAMS: u64 = 12;

fn folder(seed: u64) -> (Folder, Log) {
    let config = LogConfig { journal_file_bytes: 64 << 10, tidy_bytes: 4 << 10, segment_bytes: 4 << 10, ..config() };
    let mut folder = Folder::new(seed, config);
    let log = folder.open();
    log.log.create_topic(name("e"), TopicSettings::new(TopicKind::Events, 2)).unwrap();
    (folder, log)
}

fn id(number: u64) -> String {
    format!("s{number}")
}

fn events(stream: &str, count: usize) -> Write {
    let event = NewEvent { kind: "E".into(), data: "some data of an event".into(), ..NewEvent::default() };
    Write::Stream { topic: name("e"), stream: stream.parse().unwrap(), events: vec![event; count] }
}

/// What is told of every stream, the versions that are read of it, and its snapshots.
fn told(log: &Log) -> Vec<(StreamState, Vec<u64>, Vec<StoredSnapshot>)> {
    let one = |number| {
        let (topic, stream) = (name("e"), id(number).parse().unwrap());
        let state = log.log.stream_state(&topic, &stream).unwrap();
        let snapshots = (1..40).filter_map(|at_most| log.log.snapshot(&topic, &stream, StreamVersion::new(at_most)).unwrap()).collect();
        let reader = log.log.reader(of_stream("e", &id(number), 1));
        let version = |record: RecordView<'_>| record.event().expect("no mark is returned").version.get();
        (state, log.read(reader, Way::Forwards, ReadLimits::default(), |_, record| version(record)), snapshots)
    };
    (0..STREAMS).map(one).collect()
}

/// Appends, and changes of lives, one unit after the other; each is answered.
fn live(log: &mut Log, random: &mut Random, units: u64) -> u64 {
    let mut done = 0;
    for _ in 0..units {
        let number = random.below(STREAMS);
        let stream = id(number);
        let newest = log.log.stream_state(&name("e"), &stream.parse().unwrap()).unwrap().head.version();
        let write = match (random.below(12), newest) {
            (0, _) if number >= STREAMS - 3 => change("e", &stream, StreamChange::Tombstone),
            (1 | 2, _) => change("e", &stream, StreamChange::Delete),
            (3..6, Some(newest)) => {
                let before = StreamVersion::new(1 + random.below(newest.get() + 1));
                change("e", &stream, StreamChange::Truncate { before })
            }
            (6 | 7, Some(newest)) => snapshot("e", &stream, 1 + random.below(newest.get() + 1), vec![7; 300]),
            (8, _) if random.one_in(4) => change("e", &stream, StreamChange::DropSnapshots),
            _ => events(&stream, 1 + random.below(6) as usize),
        };
        match log.try_write(write) {
            Ok(_) => done += 1,
            Err(LogError::Tombstoned { .. } | LogError::NoSuchState { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        match random.below(30) {
            0 => log.stepper.seal().unwrap(),
            1 | 2 => log.stepper.tidy().unwrap(),
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
        let (mut folder, mut log) = folder(seed);
        for life in 0..6 {
            let units = random.below(60);
            done += live(&mut log, &mut random, units);
            let known = told(&log);
            log = folder.cut(log);
            assert!(told(&log) == known, "life {life} of seed {seed}");
            over += known.iter().filter(|(state, ..)| state.head == StreamHead::Tombstoned).count();
            snapshots += known.iter().map(|(.., snapshots)| snapshots.len()).sum::<usize>();
        }
    }
    assert!(over > 100 && done > 3000 && snapshots > 1000, "{over} tombstones, {done} units, {snapshots} snapshots");
}

#[test]
fn lives_are_the_same_when_key_indexes_are_made_again() {
    let (mut folder, mut log) = folder(1);
    live(&mut log, &mut Random::new(1), 400);
    log.stepper.tidy().unwrap();
    let known = told(&log);
    assert!(known.iter().any(|(state, ..)| state.head == StreamHead::Tombstoned));
    assert!(known.iter().any(|(state, ..)| state.beginning.first > state.beginning.anew));
    assert!(known.iter().any(|(.., snapshots)| !snapshots.is_empty()));
    folder.crash(log, false);
    folder.lose_what_is_derived();
    assert_eq!(told(&folder.open()), known);
}

#[test]
fn the_first_change_in_a_topic_gives_its_manifest_the_format_that_older_builds_refuse() {
    let (folder, mut log) = folder(1);
    let manifest = || {
        let path = folder.files("json").into_iter().find(|path| path.starts_with("/data/topics"));
        String::from_utf8(folder.disk.bytes_of(&path.expect("the topic has one")).unwrap()).unwrap()
    };
    log.write(events("s1", 3));
    assert!(manifest().starts_with("{\"format\":1,"), "{}", manifest());
    log.write(change("e", "s1", StreamChange::Delete));
    let changed = manifest();
    assert!(changed.starts_with("{\"format\":2,") && changed.contains("\"changes\":true"), "{changed}");
    log.write(change("e", "s2", StreamChange::Tombstone));
    assert_eq!(manifest(), changed);
}
