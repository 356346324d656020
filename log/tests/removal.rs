//! What streams let go when they are truncated, deleted or tombstoned goes from the files, and everything else stays what it was: where streams
//! stand and begin, what is read of them, their snapshots, and what conditions on types and tags find.
//!
//! Appends, checkpoints, passes and commits are stepped one by one on a simulated disk, so that the power can go between any two of them.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use foldlog_log::{
    Append, Compression, EmbeddedLog, EventQuery, LogBackend, LogConfig, LogError, LogReader, NewEvent, Offset, PartitionId, Position,
    Precondition, QueryAbsent, QueryItem, ReadLimits, Scope, Selection, Snapshot, Stepper, StreamChange, StreamHead, StreamState,
    StreamVersion, Timestamp, TopicKind, TopicName, TopicSettings, Write,
    clock::{Clock, ManualClock},
    disk::Disk,
    restore::{Until, restore},
    testing::{Fault, Random, SimDisk},
};
use futures::FutureExt;

const NOW: Timestamp = Timestamp::new(1_700_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const STREAMS: u64 = 8;

/// One of the things that are stepped.
type Step = fn(&mut Stepper) -> Result<(), LogError>;

struct Folder {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    starts: u64,
    config: LogConfig,
    compression: Compression,
    /// Events that were appended: each has its number in its data.
    given: usize,
}

struct Log {
    log: EmbeddedLog,
    stepper: Stepper,
    clock: Arc<ManualClock>,
}

/// What must be the same before and after.
struct Facts {
    states: Vec<StreamState>,
    read: Vec<Vec<(u64, String)>>,
    snapshots: Vec<Vec<(u64, usize)>>,
    /// Whether an event matches, by query and place.
    found: Vec<bool>,
}

impl Folder {
    fn new(seed: u64) -> Self {
        let config = LogConfig {
            first_journal_file_bytes: 32 << 10,
            journal_file_bytes: 128 << 10,
            tail_bytes: 0,
            segment_bytes: 8 << 10,
            removal_percent: 1,
            ..LogConfig::default()
        };
        let (clock, given) = (Arc::new(ManualClock::at(NOW)), 0);
        Self { disk: SimDisk::new(seed), clock, starts: 0, config, compression: Compression::None, given }
    }

    fn open(&mut self) -> Log {
        self.starts += 1;
        let mut drawn = u128::from(self.starts) << 64;
        let random = move || {
            drawn += 1;
            drawn
        };
        let (disk, clock) = (Arc::new(self.disk.clone()), Arc::clone(&self.clock));
        let (log, stepper) = EmbeddedLog::open_stepped(disk, clock.clone(), Path::new("/data"), self.config.clone(), random).unwrap();
        assert_eq!((&log.report().damage, &log.report().damaged), (&None, &Vec::new()));
        log.create_topic(name(), TopicSettings { compression: self.compression, ..TopicSettings::new(TopicKind::Events, 1) }).unwrap();
        log.allow_removal();
        Log { log, stepper, clock }
    }

    fn files(&self, extension: &str) -> Vec<PathBuf> {
        self.disk.paths().into_iter().filter(|path| path.extension().is_some_and(|one| one == extension)).collect()
    }

    fn bytes(&self) -> usize {
        self.files("log").iter().map(|path| self.disk.bytes_of(path).unwrap().len()).sum()
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
        log.write(Write::Stream { topic: name(), stream: stream.parse().unwrap(), events });
    }

    /// Appends, truncates, deletes and puts snapshots by chance, a checkpoint behind every few.
    fn fill(&mut self, log: &mut Log, seed: u64, count: u64) {
        let mut random = Random::new(seed);
        for number in 0..count {
            let stream = format!("s{}", random.below(STREAMS));
            let newest = match log.state(&stream).head {
                StreamHead::At(newest) => Some(newest),
                _ => None,
            };
            match (random.below(8), newest) {
                (0, Some(newest)) => {
                    let before = StreamVersion::new(1 + random.below(newest.get() + 1));
                    log.change(&stream, StreamChange::Truncate { before });
                }
                (1, Some(newest)) => log.snapshot(&stream, newest),
                (2, Some(_)) if random.one_in(2) => log.change(&stream, StreamChange::Delete),
                (3, Some(_)) if random.one_in(4) => log.change(&stream, StreamChange::DropSnapshots),
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
        let text: Vec<u8> = self.files("log").iter().flat_map(|path| self.disk.bytes_of(path).unwrap()).collect();
        let is_there = |number: &usize| text.windows(8).any(|bytes| bytes.starts_with(format!("<{number}>").as_bytes()));
        (0..self.given).filter(is_there).collect()
    }
}

impl Log {
    fn write(&mut self, write: Write) {
        let answer = self.log.append(Append { writes: vec![write], ..Append::default() }).unwrap();
        self.stepper.commit().unwrap();
        answer.now_or_never().unwrap().unwrap();
    }

    fn change(&mut self, stream: &str, change: StreamChange) {
        self.write(Write::Change { topic: name(), stream: stream.parse().unwrap(), change, by: "ann".into() });
    }

    fn snapshot(&mut self, stream: &str, version: StreamVersion) {
        let snapshot = Snapshot { version, schema: None, content_type: None, data: vec![b's'; version.get() as usize].into() };
        self.write(Write::Snapshot { topic: name(), stream: stream.parse().unwrap(), snapshot, by: "ann".into() });
    }

    fn state(&self, stream: &str) -> StreamState {
        self.log.stream_state(&name(), &stream.parse().unwrap()).unwrap()
    }

    /// Seals what there is, however little.
    fn seal(&mut self) {
        self.stepper.tidy().unwrap();
        self.clock.advance(Duration::from_secs(8 * 24 * 3600));
        self.stepper.upkeep().unwrap();
        self.stepper.tidy().unwrap();
    }

    /// Removes until nothing is due, down to the files. How many steps that took.
    fn remove(&mut self) -> usize {
        let mut steps = 0;
        while self.stepper.compact().unwrap() {
            self.stepper.commit().unwrap();
            self.stepper.tidy().unwrap();
            steps += 1;
            assert!(steps < 1_000, "it does not end");
        }
        self.stepper.upkeep().unwrap();
        steps
    }

    /// Whether an event behind a position matches.
    fn finds(&mut self, query: &QueryItem, after: Option<Position>) -> bool {
        let asked = QueryAbsent { scope: Scope::Topics(vec![name()]), query: EventQuery::Items(vec![query.clone()]), after };
        let append = Append { preconditions: vec![Precondition::QueryAbsent(asked)], ..Append::default() };
        let answer = self.log.append(append).unwrap();
        self.stepper.commit().unwrap();
        match answer.now_or_never().unwrap() {
            Ok(_) => false,
            Err(LogError::Conflict { .. }) => true,
            Err(error) => panic!("{error}"),
        }
    }

    fn facts(&mut self) -> Facts {
        let streams: Vec<_> = (0..STREAMS).map(|number| format!("s{number}")).collect();
        let all = |stream: &String| {
            let from = |version| Selection::Stream(name(), stream.parse().unwrap(), version);
            let forwards = events(self.log.reader(from(StreamVersion::FIRST)), &self.log, ReadLimits::default(), Way::Forwards);
            let mut backwards = events(self.log.backward_reader(from(StreamVersion::new(1 << 40))), &self.log, SMALL, Way::Backwards);
            backwards.reverse();
            assert!(forwards == backwards, "{stream}");
            forwards
        };
        let snapshot = |stream: &String, version| {
            let found = self.log.snapshot(&name(), &stream.parse().unwrap(), StreamVersion::new(version)).unwrap();
            found.map(|found| (found.snapshot.version.get(), found.snapshot.data.len()))
        };
        let snapshots = |stream| (1..60).filter_map(|version| snapshot(stream, version)).collect();
        let states = streams.iter().map(|stream| self.state(stream)).collect();
        let (read, snapshots) = (streams.iter().map(all).collect(), streams.iter().map(snapshots).collect());
        let end = self.log.head().position.get();
        let tags = |bits: u64| (0..4).filter(|tag| bits >> tag & 1 == 1).map(|tag| format!("tag{tag}").parse().unwrap()).collect();
        let kinds = |kind: u64| if kind == 3 { Vec::new() } else { vec![format!("Kind{kind}").into()] };
        let queries: Vec<_> = (0..4).flat_map(|kind| (0..16).map(move |bits| QueryItem { types: kinds(kind), tags: tags(bits) })).collect();
        let places: Vec<_> =
            (0..end).step_by(1 + end as usize / 13).chain([end - 1]).map(|position| Some(Position::new(position))).collect();
        let asked = queries.iter().flat_map(|query| places.iter().chain([&None]).map(move |place| (query, *place)));
        let found = asked.map(|(query, place)| self.finds(query, place)).collect();
        Facts { states, read, snapshots, found }
    }

    /// Compares what is with what was, and tells what differs in few words.
    fn has(&mut self, before: &Facts) {
        let facts = self.facts();
        assert_eq!((&facts.states, &facts.snapshots), (&before.states, &before.snapshots));
        assert!(facts.read == before.read, "something else is read");
        assert_eq!(facts.found.iter().zip(&before.found).position(|(is, was)| is != was), None, "a condition is judged in another way");
    }

    /// Numbers of what is read of the partition.
    fn left(&self) -> Vec<usize> {
        let partition = |offset| Selection::Partition(name(), PartitionId::new(0), offset);
        let end = self.log.ends(&name()).unwrap()[0];
        let all = events(self.log.reader(partition(Offset::new(0))), &self.log, ReadLimits::default(), Way::Forwards);
        let mut backwards = events(self.log.backward_reader(partition(end)), &self.log, SMALL, Way::Backwards);
        let topics = events(self.log.reader(Selection::All(Position::new(0))), &self.log, SMALL, Way::Forwards);
        backwards.reverse();
        assert!(all == backwards && all == topics, "{} {} {}", all.len(), backwards.len(), topics.len());
        all.iter().map(|(_, data)| data[1..data.find('>').unwrap()].parse().unwrap()).collect()
    }
}

const SMALL: ReadLimits = ReadLimits { records: 3, bytes: 700 };

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Forwards,
    Backwards,
}

/// Version and data of each event that a reader returns.
fn events(reader: Result<Box<dyn LogReader>, LogError>, log: &EmbeddedLog, limits: ReadLimits, way: Way) -> Vec<(u64, String)> {
    let (mut reader, mut found) = (reader.unwrap(), Vec::new());
    loop {
        let chunk = reader.read(log.head().position, limits).unwrap();
        if chunk.runs.is_empty() {
            return found;
        }
        for run in &chunk.runs {
            let of_run = run.records().map(|record| {
                let record = record.unwrap();
                (record.event().unwrap().version.get(), String::from_utf8(record.value.unwrap().to_vec()).unwrap())
            });
            let mut of_run: Vec<_> = of_run.collect();
            if way == Way::Backwards {
                of_run.reverse();
            }
            found.extend(of_run);
        }
    }
}

fn name() -> TopicName {
    "e".parse().unwrap()
}

#[test]
fn what_streams_let_go_is_removed_and_everything_else_is_as_it_was() {
    for (seed, compression) in [(1, Compression::None), (2, Compression::Lz4), (3, Compression::Zstd), (4, Compression::None)] {
        let mut folder = Folder { compression, ..Folder::new(seed) };
        let mut log = folder.open();
        folder.fill(&mut log, seed, 500);
        log.seal();
        let (before, bytes, all) = (log.facts(), folder.bytes(), log.left());
        assert_eq!(all.len(), folder.given);
        assert!(log.remove() >= 2);
        log.has(&before);
        // What streams have, and nothing else.
        let alive: BTreeSet<_> = before.read.iter().flatten().map(|(_, data)| data.clone()).collect();
        let left = log.left();
        assert!(left.len() == alive.len() && left.iter().all(|number| alive.iter().any(|data| data.starts_with(&format!("<{number}>")))));
        assert!(left.len() * 2 < all.len() && folder.bytes() * 4 < bytes * 3, "{} of {bytes} bytes", folder.bytes());
        if compression == Compression::None {
            assert_eq!(folder.in_files(), left.iter().copied().collect());
        }
        let state = log.log.compaction(&name()).unwrap();
        assert_eq!((state.len(), state[0].dirty_bytes, state[0].percent), (1, 0, None));

        // Also when everything that is derived is derived again.
        for is_derived in [false, true] {
            drop(log);
            folder.disk = folder.disk.power_cut();
            if is_derived {
                let derived = ["keys", "index", "postings"].map(|extension| folder.files(extension)).concat();
                assert!(derived.len() > 3);
                derived.iter().for_each(|path| folder.disk.remove(path).unwrap());
            }
            log = folder.open();
            log.has(&before);
            assert_eq!(log.left(), left);
            assert_eq!(log.remove(), 0, "nothing is left to be removed");
        }
        folder.fill(&mut log, seed + 10, 200);
        log.seal();
        let before = log.facts();
        log.remove();
        log.has(&before);
    }
}

/// The power goes after each step of a pass, and after each call of the disk within them.
#[test]
fn a_removal_that_is_cut_off_is_done_or_not_begun() {
    let (mut cut, mut removed, mut untouched) = (0, 0, 0);
    for cut_after in 0..9 {
        for seed in 0..9 {
            let mut folder = Folder::new(100 + seed);
            let mut log = folder.open();
            folder.fill(&mut log, seed, 120);
            log.seal();
            let (before, all) = (log.facts(), log.left());
            let steps: [Step; 9] = [
                |stepper| stepper.compact().map(drop),
                |stepper| stepper.compact().map(drop),
                Stepper::commit,
                Stepper::upkeep,
                |stepper| stepper.compact().map(drop),
                Stepper::tidy,
                Stepper::commit,
                Stepper::tidy,
                Stepper::upkeep,
            ];
            for (number, step) in steps.into_iter().enumerate() {
                if number == cut_after {
                    folder.disk.arm(Fault::PowerOff { nth: [0, 1, 2, 3, 4, 5, 7, 10, 14][seed as usize] });
                }
                if step(&mut log.stepper).is_err() {
                    cut += 1;
                    break;
                }
            }
            drop(log);
            folder.disk = if seed % 4 == 0 { folder.disk.kill() } else { folder.disk.power_cut() };
            log = folder.open();
            log.has(&before);
            let left = log.left();
            (removed, untouched) = (removed + u32::from(left.len() < all.len()), untouched + u32::from(left.len() == all.len()));
            log.remove();
            log.has(&before);
            let alive: usize = before.read.iter().map(Vec::len).sum();
            assert_eq!((log.left().len(), folder.files("log").len()), (alive, folder.files("keys").len() + 1));
        }
    }
    assert!(cut > 30 && removed > 20 && untouched > 10, "{cut} {removed} {untouched}");
}

#[test]
fn what_somebody_holds_is_not_removed() {
    let mut folder = Folder::new(5);
    let mut log = folder.open();
    folder.fill(&mut log, 5, 300);
    log.seal();
    let all = log.left().len();
    log.log.hold("query-1", &name(), Position::new(0)).unwrap();
    assert_eq!((log.remove(), log.left().len()), (0, all));
    log.log.hold("query-1", &name(), Position::new(log.log.head().position.get() / 2)).unwrap();
    log.remove();
    let some = log.left();
    assert!(some.len() < all && some.iter().filter(|number| **number * 2 > folder.given).count() * 2 > folder.given - 20, "{some:?}");
    log.log.release("query-1");
    log.remove();
    assert!(log.left().len() < some.len());
}

#[test]
fn a_segment_is_written_anew_when_much_of_it_may_go_or_has_been_allowed_to_for_long() {
    let mut folder = Folder::new(6);
    (folder.config.removal_percent, folder.config.removal_after_hours) = (50, 1_000);
    let mut log = folder.open();
    let mut random = Random::new(6);
    for number in 0..200 {
        folder.append(&mut log, &format!("s{}", number % STREAMS), 1, &mut random);
    }
    log.seal();
    let whole = folder.bytes();
    let truncate = |log: &mut Log, before| {
        for number in 0..STREAMS {
            log.change(&format!("s{number}"), StreamChange::Truncate { before: StreamVersion::new(before) });
        }
        log.stepper.tidy().unwrap();
    };
    // The first few events of each stream lie in one segment, which has less than twice as many.
    truncate(&mut log, 2);
    assert_eq!(log.remove(), 0, "it is not worth its while");
    let may_go = log.log.compaction(&name()).unwrap()[0].dirty_bytes;
    assert!(may_go > 500 && may_go < 2_500, "{may_go}");
    assert_eq!((log.log.metrics().removable_bytes, log.log.metrics().compaction_dirty_bytes), (may_go, 0));
    truncate(&mut log, 8);
    assert!(log.remove() > 0);
    let some = folder.bytes();
    assert!(some * 5 < whole * 4, "{some} of {whole}");
    truncate(&mut log, 9);
    assert_eq!(log.remove(), 0, "it is not worth its while");
    // Eight days go by with sealing.
    log.clock.advance(800 * HOUR);
    log.seal();
    let left = log.left();
    // That the marks have replaced each other is reason enough to write their segment anew.
    log.remove();
    assert_eq!(log.left(), left, "the change is not that old");
    log.clock.advance(50 * HOUR);
    assert!(log.remove() > 0);
    assert_eq!(log.left().len() as u64, 200 - 8 * STREAMS);
    assert_eq!(log.remove(), 0);
}

#[test]
fn a_stream_that_is_deleted_over_and_over_takes_no_more_and_more() {
    let mut folder = Folder::new(7);
    let mut log = folder.open();
    let mut random = Random::new(7);
    let mut bytes = Vec::new();
    for _ in 0..12 {
        for round in 0..30 {
            folder.append(&mut log, "s1", 4, &mut random);
            let newest = log.state("s1").head.version().unwrap();
            log.snapshot("s1", newest);
            log.change("s1", if round % 2 == 0 { StreamChange::Truncate { before: newest } } else { StreamChange::Delete });
        }
        log.seal();
        let before = log.facts();
        log.remove();
        log.has(&before);
        log.stepper.tidy().unwrap();
        log.stepper.upkeep().unwrap();
        bytes.push(folder.bytes());
    }
    assert!(bytes[11] < 2 * bytes[1] && bytes[11] < 40_000, "{bytes:?}");
}

#[test]
fn readers_of_a_stream_go_on_where_it_begins_by_now() {
    let mut folder = Folder::new(8);
    let mut log = folder.open();
    let mut random = Random::new(8);
    for _ in 0..300 {
        folder.append(&mut log, "s1", 1, &mut random);
    }
    log.seal();
    let of_stream = |version| Selection::Stream(name(), "s1".parse().unwrap(), StreamVersion::new(version));
    let one = ReadLimits { records: 1, bytes: 1 };
    let until = log.log.head().position;
    let (mut forwards, mut backwards) = (log.log.reader(of_stream(1)).unwrap(), log.log.backward_reader(of_stream(1_000)).unwrap());
    for number in 0..3 {
        assert_eq!(forwards.read(until, one).unwrap().runs[0].first_offset, Offset::new(number));
        assert_eq!(backwards.read(until, one).unwrap().runs[0].first_offset, Offset::new(299 - number));
    }
    log.change("s1", StreamChange::Truncate { before: StreamVersion::new(200) });
    log.stepper.tidy().unwrap();
    assert!(log.remove() > 0);
    let versions = |reader, way| events(Ok(reader), &log.log, one, way).into_iter().map(|(version, _)| version).collect::<Vec<_>>();
    assert_eq!(versions(forwards, Way::Forwards), (200..=300).collect::<Vec<_>>());
    assert_eq!(versions(backwards, Way::Backwards), (200..=297).rev().collect::<Vec<_>>());
}

/// A backup has what was left when it was taken: cut before the streams let go of the rest, it says nothing of why that is missing.
#[test]
fn a_folder_that_is_restored_up_to_before_a_removal_is_read_over_what_is_gone() {
    let mut folder = Folder::new(9);
    let mut log = folder.open();
    let mut random = Random::new(9);
    for number in 0..200 {
        folder.append(&mut log, &format!("s{}", number % 4), 1, &mut random);
        log.clock.advance(Duration::from_millis(10));
    }
    let before = log.log.head().position;
    log.clock.advance(HOUR);
    log.change("s0", StreamChange::Truncate { before: StreamVersion::new(30) });
    log.change("s1", StreamChange::Delete);
    log.change("s2", StreamChange::Tombstone);
    log.seal();
    assert!(log.remove() > 0);
    log.stepper.back_up(Path::new("/backup")).unwrap();
    let (disk, clock): (Arc<dyn Disk>, Arc<dyn Clock>) = (Arc::new(folder.disk.clone()), folder.clock.clone());
    let until = Some(Until::Position(before));
    let restored = restore(&disk, &clock, Path::new("/backup"), Path::new("/restored"), until, &folder.config, || 1).unwrap();
    assert_eq!((restored.position, restored.thinned), (before, vec!["e".to_owned()]));
    let mut drawn = 1;
    let random = move || {
        drawn += 1;
        drawn
    };
    let (log, _stepper) = EmbeddedLog::open_stepped(disk, clock, Path::new("/restored"), folder.config.clone(), random).unwrap();
    let (one, many) = (ReadLimits { records: 1, bytes: 1 }, ReadLimits::default());
    for stream in ["s0", "s1", "s2", "s3"] {
        let from = |version| Selection::Stream(name(), stream.parse().unwrap(), StreamVersion::new(version));
        let state = log.stream_state(&name(), &stream.parse().unwrap()).unwrap();
        assert_eq!((state.head, state.beginning.first.get()), (StreamHead::At(StreamVersion::new(50)), 1), "{stream}");
        let all = events(log.reader(from(1)), &log, many, Way::Forwards);
        assert!(all == events(log.reader(from(1)), &log, one, Way::Forwards));
        let mut backwards = events(log.backward_reader(from(1_000)), &log, one, Way::Backwards);
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
