//! What streams let go when they are truncated, deleted or tombstoned goes from the files, and everything else stays what it was: where streams
//! stand and begin, what is read of them, their snapshots, and what conditions on types and tags find.

use std::{collections::BTreeSet, time::Duration};

use foldlog_log::{
    Compression, LogBackend, LogConfig, NewEvent, Offset, Position, QueryItem, ReadLimits, RecordView, Selection, Stepper, StreamChange,
    StreamHead, StreamState, StreamVersion, TopicKind, TopicSettings, Write, restore::Until, testing::Random,
};

use super::room::{Folder, HOUR, Log, SMALL, Step, Way, change, config, name, of_partition, of_stream, snapshot};

const STREAMS: u64 = 8;

/// A folder with a topic `e`.
struct World {
    folder: Folder,
    /// Events that were appended: each has its number in its data.
    given: usize,
}

/// What must be the same before and after.
struct Facts {
    states: Vec<StreamState>,
    read: Vec<Vec<(u64, String)>>,
    snapshots: Vec<Vec<(u64, usize)>>,
    /// Whether an event matches, by query and place.
    found: Vec<bool>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self { folder: Folder::new(seed, LogConfig { removal_percent: 1, ..config() }), given: 0 }
    }

    fn create(&mut self, compression: Compression) -> Log {
        let log = self.folder.open();
        log.log.create_topic(name("e"), TopicSettings { compression, ..TopicSettings::new(TopicKind::Events, 1) }).unwrap();
        log
    }

    /// Appends some events of a stream, each with a type and tags by chance.
    fn append(&mut self, log: &mut Log, stream: &str, count: u64, random: &mut Random) {
        let mut event = || NewEvent {
            kind: format!("Kind{}", random.below(3)).into(),
            tags: (0..4).filter(|_| random.one_in(3)).map(|tag| format!("tag{tag}").parse().unwrap()).collect(),
            data: {
                self.given += 1;
                format!("<{}>{}", self.given - 1, "x".repeat(60)).into()
            },
            ..NewEvent::default()
        };
        let events = (0..count).map(|_| event()).collect();
        log.write(Write::Stream { topic: name("e"), stream: stream.parse().unwrap(), events });
    }

    /// Appends, truncates, deletes and puts snapshots by chance, a checkpoint behind every few.
    fn fill(&mut self, log: &mut Log, seed: u64, count: u64) {
        let mut random = Random::new(seed);
        for number in 0..count {
            let stream = format!("s{}", random.below(STREAMS));
            let newest = match state(log, &stream).head {
                StreamHead::At(newest) => Some(newest),
                _ => None,
            };
            match (random.below(8), newest) {
                (0, Some(newest)) => {
                    let before = StreamVersion::new(1 + random.below(newest.get() + 1));
                    log.write(change("e", &stream, StreamChange::Truncate { before }));
                }
                (1, Some(newest)) => put_snapshot(log, &stream, newest),
                (2, Some(_)) if random.one_in(2) => drop(log.write(change("e", &stream, StreamChange::Delete))),
                (3, Some(_)) if random.one_in(4) => drop(log.write(change("e", &stream, StreamChange::DropSnapshots))),
                _ => {
                    let count = 1 + random.below(3);
                    self.append(log, &stream, count, &mut random);
                }
            }
            if number % 7 == 6 {
                log.stepper.tidy().unwrap();
            }
        }
        log.stepper.tidy().unwrap();
    }

    /// Numbers of events whose data lies in segments, uncompressed.
    fn in_files(&self) -> BTreeSet<usize> {
        let text = self.folder.text();
        let is_there = |number: &usize| text.windows(8).any(|bytes| bytes.starts_with(format!("<{number}>").as_bytes()));
        (0..self.given).filter(is_there).collect()
    }
}

impl Facts {
    fn of(log: &mut Log) -> Self {
        let streams: Vec<_> = (0..STREAMS).map(|number| format!("s{number}")).collect();
        let all = |stream: &String| {
            let forwards = events(log, of_stream("e", stream, 1), Way::Forwards, ReadLimits::default());
            let mut backwards = events(log, of_stream("e", stream, 1 << 40), Way::Backwards, SMALL);
            backwards.reverse();
            assert!(forwards == backwards, "{stream}");
            forwards
        };
        let snapshot = |stream: &String, version| {
            let found = log.log.snapshot(&name("e"), &stream.parse().unwrap(), StreamVersion::new(version)).unwrap();
            found.map(|found| (found.snapshot.version.get(), found.snapshot.data.len()))
        };
        let snapshots = |stream| (1..60).filter_map(|version| snapshot(stream, version)).collect();
        let states = streams.iter().map(|stream| state(log, stream)).collect();
        let (read, snapshots) = (streams.iter().map(all).collect(), streams.iter().map(snapshots).collect());
        let end = log.log.head().position.get();
        let tags = |bits: u64| (0..4).filter(|tag| bits >> tag & 1 == 1).map(|tag| format!("tag{tag}").parse().unwrap()).collect();
        let kinds = |kind: u64| if kind == 3 { Vec::new() } else { vec![format!("Kind{kind}").into()] };
        let queries: Vec<_> = (0..4).flat_map(|kind| (0..16).map(move |bits| QueryItem { types: kinds(kind), tags: tags(bits) })).collect();
        let places: Vec<_> =
            (0..end).step_by(1 + end as usize / 13).chain([end - 1]).map(|position| Some(Position::new(position))).collect();
        let asked = queries.iter().flat_map(|query| places.iter().chain([&None]).map(move |place| (query.clone(), *place)));
        let found = asked.map(|(query, place)| log.finds(&name("e"), query, place)).collect();
        Self { states, read, snapshots, found }
    }

    /// Compares what is with what was, and tells what differs in few words.
    fn hold_in(&self, log: &mut Log) {
        let now = Self::of(log);
        assert_eq!((&now.states, &now.snapshots), (&self.states, &self.snapshots));
        assert!(now.read == self.read, "something else is read");
        assert_eq!(now.found.iter().zip(&self.found).position(|(is, was)| is != was), None, "a condition is judged in another way");
    }
}

/// Of so many bytes as the version says.
fn put_snapshot(log: &mut Log, stream: &str, version: StreamVersion) {
    log.write(snapshot("e", stream, version.get(), vec![b's'; version.get() as usize]));
}

fn state(log: &Log, stream: &str) -> StreamState {
    log.log.stream_state(&name("e"), &stream.parse().unwrap()).unwrap()
}

/// Version and data of each event that is read.
fn events(log: &Log, selection: Selection, way: Way, limits: ReadLimits) -> Vec<(u64, String)> {
    let reader = if way == Way::Forwards { log.log.reader(selection) } else { log.log.backward_reader(selection) };
    let of = |record: RecordView<'_>| (record.event().unwrap().version.get(), String::from_utf8(record.value.unwrap().to_vec()).unwrap());
    log.read(reader, way, limits, |_, record| of(record))
}

/// Numbers of what is read of the partition.
fn left(log: &Log) -> Vec<usize> {
    let end = log.log.ends(&name("e")).unwrap()[0].get();
    let all = events(log, of_partition("e", 0), Way::Forwards, ReadLimits::default());
    let mut backwards = events(log, of_partition("e", end), Way::Backwards, SMALL);
    let everything = events(log, Selection::All(Position::new(0)), Way::Forwards, SMALL);
    backwards.reverse();
    assert!(all == backwards && all == everything, "{} {} {}", all.len(), backwards.len(), everything.len());
    all.iter().map(|(_, data)| data[1..data.find('>').unwrap()].parse().unwrap()).collect()
}

#[test]
fn what_streams_let_go_is_removed_and_everything_else_is_as_it_was() {
    for (seed, compression) in [(1, Compression::None), (2, Compression::Lz4), (3, Compression::Zstd), (4, Compression::None)] {
        let mut world = World::new(seed);
        let mut log = world.create(compression);
        world.fill(&mut log, seed, 500);
        log.seal();
        let (before, bytes, all) = (Facts::of(&mut log), world.folder.bytes(), left(&log));
        assert_eq!(all.len(), world.given);
        assert!(log.compact() >= 2);
        before.hold_in(&mut log);
        // What streams have, and nothing else.
        let alive: BTreeSet<_> = before.read.iter().flatten().map(|(_, data)| data.clone()).collect();
        let kept = left(&log);
        assert!(kept.len() == alive.len() && kept.iter().all(|number| alive.iter().any(|data| data.starts_with(&format!("<{number}>")))));
        assert!(kept.len() * 2 < all.len() && world.folder.bytes() * 4 < bytes * 3, "{} of {bytes} bytes", world.folder.bytes());
        if compression == Compression::None {
            assert_eq!(world.in_files(), kept.iter().copied().collect());
        }
        let state = log.log.compaction(&name("e")).unwrap();
        assert_eq!((state.len(), state[0].dirty_bytes, state[0].percent), (1, 0, None));

        // Also when everything that is derived is derived again.
        for is_derived in [false, true] {
            world.folder.crash(log, true);
            if is_derived {
                world.folder.lose_what_is_derived();
            }
            log = world.folder.open();
            before.hold_in(&mut log);
            assert_eq!(left(&log), kept);
            assert_eq!(log.compact(), 0, "nothing is left to be removed");
        }
        world.fill(&mut log, seed + 10, 200);
        log.seal();
        let before = Facts::of(&mut log);
        log.compact();
        before.hold_in(&mut log);
    }
}

/// The power goes after each step of a pass, and after each call of the disk within them.
#[test]
fn a_removal_that_is_cut_off_is_done_or_not_begun() {
    let (mut cut, mut removed, mut untouched) = (0, 0, 0);
    for cut_after in 0..9 {
        for seed in 0..9 {
            let mut world = World::new(100 + seed);
            let mut log = world.create(Compression::None);
            world.fill(&mut log, seed, 120);
            log.seal();
            let (before, all) = (Facts::of(&mut log), left(&log));
            let compact: Step = |stepper| stepper.compact().map(drop);
            let steps = [
                compact,
                compact,
                Stepper::commit,
                Stepper::upkeep,
                compact,
                Stepper::tidy,
                Stepper::commit,
                Stepper::tidy,
                Stepper::upkeep,
            ];
            cut += u32::from(world.folder.step_until_cut(&mut log, &steps, cut_after, [0, 1, 2, 3, 4, 5, 7, 10, 14][seed as usize]));
            world.folder.crash(log, seed % 4 > 0);
            log = world.folder.open();
            before.hold_in(&mut log);
            let some = left(&log);
            (removed, untouched) = (removed + u32::from(some.len() < all.len()), untouched + u32::from(some.len() == all.len()));
            log.compact();
            before.hold_in(&mut log);
            let alive: usize = before.read.iter().map(Vec::len).sum();
            assert_eq!((left(&log).len(), world.folder.files("log").len()), (alive, world.folder.files("keys").len() + 1));
        }
    }
    assert!(cut > 30 && removed > 20 && untouched > 10, "{cut} {removed} {untouched}");
}

#[test]
fn what_somebody_holds_is_not_removed() {
    let mut world = World::new(5);
    let mut log = world.create(Compression::None);
    world.fill(&mut log, 5, 300);
    log.seal();
    let all = left(&log).len();
    log.log.hold("query-1", &name("e"), Position::new(0)).unwrap();
    assert_eq!((log.compact(), left(&log).len()), (0, all));
    log.log.hold("query-1", &name("e"), Position::new(log.log.head().position.get() / 2)).unwrap();
    log.compact();
    let some = left(&log);
    assert!(some.len() < all && some.iter().filter(|number| **number * 2 > world.given).count() * 2 > world.given - 20, "{some:?}");
    log.log.release("query-1");
    log.compact();
    assert!(left(&log).len() < some.len());
}

#[test]
fn a_segment_is_written_anew_when_much_of_it_may_go_or_has_been_allowed_to_for_long() {
    let mut world = World::new(6);
    (world.folder.config.removal_percent, world.folder.config.removal_after_hours) = (50, 1_000);
    let mut log = world.create(Compression::None);
    let mut random = Random::new(6);
    for number in 0..200 {
        world.append(&mut log, &format!("s{}", number % STREAMS), 1, &mut random);
    }
    log.seal();
    let whole = world.folder.bytes();
    let truncate = |log: &mut Log, before| {
        for number in 0..STREAMS {
            log.write(change("e", &format!("s{number}"), StreamChange::Truncate { before: StreamVersion::new(before) }));
        }
        log.stepper.tidy().unwrap();
    };
    // The first few events of each stream lie in one segment, which has less than twice as many.
    truncate(&mut log, 2);
    assert_eq!(log.compact(), 0, "it is not worth its while");
    let may_go = log.log.compaction(&name("e")).unwrap()[0].dirty_bytes;
    assert!(may_go > 500 && may_go < 2_500, "{may_go}");
    assert_eq!((log.log.metrics().removable_bytes, log.log.metrics().compaction_dirty_bytes), (may_go, 0));
    truncate(&mut log, 8);
    assert!(log.compact() > 0);
    let some = world.folder.bytes();
    assert!(some * 5 < whole * 4, "{some} of {whole}");
    truncate(&mut log, 9);
    assert_eq!(log.compact(), 0, "it is not worth its while");
    // Eight days go by with sealing.
    log.clock.advance(800 * HOUR);
    log.seal();
    let before = left(&log);
    // That the marks have replaced each other is reason enough to write their segment anew.
    log.compact();
    assert_eq!(left(&log), before, "the change is not that old");
    log.clock.advance(50 * HOUR);
    assert!(log.compact() > 0);
    assert_eq!(left(&log).len() as u64, 200 - 8 * STREAMS);
    assert_eq!(log.compact(), 0);
}

#[test]
fn a_stream_that_is_deleted_over_and_over_takes_no_more_and_more() {
    let mut world = World::new(7);
    let mut log = world.create(Compression::None);
    let mut random = Random::new(7);
    let mut bytes = Vec::new();
    for _ in 0..12 {
        for round in 0..30 {
            world.append(&mut log, "s1", 4, &mut random);
            let newest = state(&log, "s1").head.version().unwrap();
            put_snapshot(&mut log, "s1", newest);
            let lets_go = if round % 2 == 0 { StreamChange::Truncate { before: newest } } else { StreamChange::Delete };
            log.write(change("e", "s1", lets_go));
        }
        log.seal();
        let before = Facts::of(&mut log);
        log.compact();
        before.hold_in(&mut log);
        bytes.push(world.folder.bytes());
    }
    assert!(bytes[11] < 2 * bytes[1] && bytes[11] < 40_000, "{bytes:?}");
}

#[test]
fn readers_of_a_stream_go_on_where_it_begins_by_now() {
    let mut world = World::new(8);
    let mut log = world.create(Compression::None);
    let mut random = Random::new(8);
    for _ in 0..300 {
        world.append(&mut log, "s1", 1, &mut random);
    }
    log.seal();
    let one = ReadLimits { records: 1, bytes: 1 };
    let until = log.log.head().position;
    let mut forwards = log.log.reader(of_stream("e", "s1", 1)).unwrap();
    let mut backwards = log.log.backward_reader(of_stream("e", "s1", 1_000)).unwrap();
    for number in 0..3 {
        assert_eq!(forwards.read(until, one).unwrap().runs[0].first_offset, Offset::new(number));
        assert_eq!(backwards.read(until, one).unwrap().runs[0].first_offset, Offset::new(299 - number));
    }
    log.write(change("e", "s1", StreamChange::Truncate { before: StreamVersion::new(200) }));
    log.stepper.tidy().unwrap();
    assert!(log.compact() > 0);
    let versions = |reader, way| log.read(Ok(reader), way, one, |_, record| record.event().unwrap().version.get());
    assert_eq!(versions(forwards, Way::Forwards), (200..=300).collect::<Vec<_>>());
    assert_eq!(versions(backwards, Way::Backwards), (200..=297).rev().collect::<Vec<_>>());
}

/// A backup has what was left when it was taken: cut before the streams let go of the rest, it says nothing of why that is missing.
#[test]
fn a_folder_that_is_restored_up_to_before_a_removal_is_read_over_what_is_gone() {
    let mut world = World::new(9);
    let mut log = world.create(Compression::None);
    let mut random = Random::new(9);
    for number in 0..200 {
        world.append(&mut log, &format!("s{}", number % 4), 1, &mut random);
        log.clock.advance(Duration::from_millis(10));
    }
    let before = log.log.head().position;
    log.clock.advance(HOUR);
    log.write(change("e", "s0", StreamChange::Truncate { before: StreamVersion::new(30) }));
    log.write(change("e", "s1", StreamChange::Delete));
    log.write(change("e", "s2", StreamChange::Tombstone));
    log.seal();
    assert!(log.compact() > 0);
    log.back_up();
    let restored = world.folder.restore("/restored", Some(Until::Position(before))).unwrap();
    assert_eq!((restored.position, restored.thinned), (before, vec!["e".to_owned()]));
    let log = world.folder.open_at("/restored");
    let (one, many) = (ReadLimits { records: 1, bytes: 1 }, ReadLimits::default());
    for stream in ["s0", "s1", "s2", "s3"] {
        let state = state(&log, stream);
        assert_eq!((state.head, state.beginning.first.get()), (StreamHead::At(StreamVersion::new(50)), 1), "{stream}");
        let all = events(&log, of_stream("e", stream, 1), Way::Forwards, many);
        assert!(all == events(&log, of_stream("e", stream, 1), Way::Forwards, one));
        let mut backwards = events(&log, of_stream("e", stream, 1_000), Way::Backwards, one);
        backwards.reverse();
        assert!(all == backwards, "{stream}: {} {}", all.len(), backwards.len());
        let versions: BTreeSet<_> = all.iter().map(|(version, _)| *version).collect();
        assert_eq!(versions.len(), all.len());
        let least = match stream {
            "s0" => 30,
            "s3" => 1,
            _ => 51,
        };
        assert!((least..=50).all(|version| versions.contains(&version)), "{stream}: {versions:?}");
        assert_eq!(all.len() == 50, stream == "s3", "{stream}: {versions:?}");
    }
}
