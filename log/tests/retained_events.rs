//! Retention of events, where it is told: what it lets go of is read by nobody from one moment on, streams begin behind it, and everything else
//! stays what it was: versions, newest snapshots, what conditions find. The bytes go afterwards.
//!
//! Upkeep, commits, checkpoints and passes are stepped one by one on a simulated disk, so that the power can go between any two of them.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use foldlog_log::{
    Append, Beginning, EmbeddedLog, EventQuery, LogBackend, LogConfig, LogError, LogReader, NewEvent, Offset, PartitionId, Position,
    Precondition, QueryAbsent, QueryItem, ReadLimits, Retention, Scope, Selection, Snapshot, Stepper, StreamChange, StreamHead,
    StreamVersion, Timestamp, TopicChanges, TopicKind, TopicName, TopicSettings, Write,
    clock::{Clock, ManualClock},
    disk::Disk,
    restore::{Until, restore},
    testing::{Fault, Random, SimDisk},
};
use futures::FutureExt;

const NOW: Timestamp = Timestamp::new(1_700_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const STREAMS: u64 = 8;
const SMALL: ReadLimits = ReadLimits { records: 3, bytes: 700 };

/// One of the things that are stepped.
type Step = fn(&mut Stepper) -> Result<(), LogError>;

/// An event as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Given {
    offset: u64,
    position: u64,
    stream: String,
    version: u64,
    kind: String,
    tags: BTreeSet<String>,
}

struct Folder {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    starts: u64,
    config: LogConfig,
    retention: Retention,
    given: Vec<Given>,
    /// Version with which each stream begins by its marks, and begins anew.
    lives: BTreeMap<String, (u64, u64)>,
    /// Versions and offsets of snapshots that their streams have not let go.
    snapshots: BTreeMap<String, BTreeMap<u64, u64>>,
}

struct Log {
    log: EmbeddedLog,
    stepper: Stepper,
}

impl Folder {
    fn new(seed: u64) -> Self {
        let config = LogConfig {
            first_journal_file_bytes: 32 << 10,
            journal_file_bytes: 128 << 10,
            tail_bytes: 4096 * (seed % 3),
            segment_bytes: 8 << 10,
            ..LogConfig::default()
        };
        Self {
            disk: SimDisk::new(seed),
            clock: Arc::new(ManualClock::at(NOW)),
            starts: 0,
            config,
            retention: Retention { bytes: Some(16 << 10), time: None },
            given: Vec::new(),
            lives: BTreeMap::new(),
            snapshots: BTreeMap::new(),
        }
    }

    fn open(&mut self) -> Log {
        self.open_at("/data")
    }

    fn open_at(&mut self, data: &str) -> Log {
        self.starts += 1;
        let mut drawn = u128::from(self.starts) << 64;
        let random = move || {
            drawn += 1;
            drawn
        };
        let (disk, clock) = (Arc::new(self.disk.clone()), self.clock.clone());
        let (log, stepper) = EmbeddedLog::open_stepped(disk, clock, Path::new(data), self.config.clone(), random).unwrap();
        assert_eq!((&log.report().damage, &log.report().damaged), (&None, &Vec::new()));
        if log.topics().is_empty() {
            let settings = TopicSettings { retention: self.retention, ..TopicSettings::new(TopicKind::Events, 1) };
            log.create_topic(name(), settings).unwrap();
        }
        Log { log, stepper }
    }

    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let of_data = |path: &PathBuf| path.starts_with("/data") && path.extension().is_some_and(|one| one == extension);
        self.disk.paths().into_iter().filter(of_data).collect()
    }

    fn bytes(&self) -> usize {
        self.files("log").iter().map(|path| self.disk.bytes_of(path).unwrap().len()).sum()
    }

    /// Offsets of events whose data lies in segments.
    fn in_files(&self) -> BTreeSet<u64> {
        let text: Vec<u8> = self.files("log").iter().flat_map(|path| self.disk.bytes_of(path).unwrap()).collect();
        let is_there = |given: &&Given| text.windows(10).any(|bytes| bytes.starts_with(format!("<{}>", given.position).as_bytes()));
        self.given.iter().filter(is_there).map(|given| given.offset).collect()
    }

    fn newest(&self, stream: &str) -> u64 {
        self.given.iter().rev().find(|given| given.stream == stream).map_or(0, |given| given.version)
    }

    fn append(&mut self, log: &mut Log, stream: &str, random: &mut Random) {
        let (kind, position) = (format!("Kind{}", random.below(3)), log.log.head().position.get());
        let tags: BTreeSet<_> = (0..4).filter(|_| random.one_in(3)).map(|tag| format!("tag{tag}")).collect();
        let event = NewEvent {
            kind: kind.as_str().into(),
            tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
            data: format!("<{position}>{}", "x".repeat(60)).into(),
            ..NewEvent::default()
        };
        let version = self.newest(stream) + 1;
        let offset = log.write(Write::Stream { topic: name(), stream: stream.parse().unwrap(), events: vec![event] });
        self.given.push(Given { offset, position, stream: stream.into(), version, kind, tags });
    }

    fn change(&mut self, log: &mut Log, stream: &str, change: StreamChange) {
        let newest = self.newest(stream);
        log.write(Write::Change { topic: name(), stream: stream.parse().unwrap(), change, by: "ann".into() });
        let life = self.lives.entry(stream.into()).or_insert((1, 1));
        match change {
            StreamChange::Truncate { before } => life.0 = life.0.max(before.get()),
            StreamChange::DropSnapshots => drop(self.snapshots.remove(stream)),
            StreamChange::Delete | StreamChange::Tombstone => {
                *life = (newest + 1, newest + 1);
                self.snapshots.remove(stream);
            }
        }
    }

    fn snapshot(&mut self, log: &mut Log, stream: &str) {
        let version = self.newest(stream);
        let snapshot = Snapshot { version: StreamVersion::new(version), schema: None, content_type: None, data: "state".into() };
        let offset = log.write(Write::Snapshot { topic: name(), stream: stream.parse().unwrap(), snapshot, by: "ann".into() });
        self.snapshots.entry(stream.into()).or_default().insert(version, offset);
    }

    /// Appends, truncates, deletes and puts snapshots by chance, a checkpoint behind every few.
    fn fill(&mut self, log: &mut Log, seed: u64, count: u64) {
        let mut random = Random::new(seed);
        for number in 0..count {
            // Few write to the first ones.
            let stream = format!("s{}", random.below(STREAMS).max(random.below(STREAMS)));
            let (newest, anew) = (self.newest(&stream), self.lives.get(&stream).map_or(1, |life| life.1));
            match random.below(12) {
                0 if newest > 0 => {
                    let before = StreamVersion::new(1 + random.below(newest + 1));
                    self.change(log, &stream, StreamChange::Truncate { before });
                }
                1 | 2 if newest >= anew => self.snapshot(log, &stream),
                3 if newest > 0 && random.one_in(6) => self.change(log, &stream, StreamChange::Delete),
                4 if newest > 0 && random.one_in(6) => self.change(log, &stream, StreamChange::DropSnapshots),
                _ => self.append(log, &stream, &mut random),
            }
            if number % 7 == 6 {
                log.stepper.tidy().unwrap();
            }
        }
        log.stepper.tidy().unwrap();
    }

    /// Everything that is told of the topic.
    fn check(&self, log: &mut Log) {
        self.check_reads(log);
        self.check_conditions(log);
    }

    /// What is left, by every way of reading it, where streams stand and begin, and their snapshots.
    fn check_reads(&self, log: &Log) {
        let (first, end) = (log.first(), log.end());
        let left: Vec<&Given> = self.given.iter().filter(|given| given.offset >= first).collect();
        for stream in (0..STREAMS).map(|number| format!("s{number}")) {
            self.check_stream(log, &stream, first);
        }
        // Of what streams let go some may be gone by itself.
        let must = |given: &&&Given| given.version >= self.lives.get(&given.stream).map_or(1, |life| life.0);
        let reads = [
            (log.log.reader(partition(first)), false),
            (log.log.backward_reader(partition(end)), true),
            (log.log.reader(topics(0)), false),
            (log.log.backward_reader(topics(log.log.head().position.get())), true),
            (log.log.reader(Selection::All(Position::new(0))), false),
            (log.log.reader(log.log.at_time(topics(9), Timestamp::new(0)).unwrap()), false),
            (log.log.filtered_reader(topics(0), EventQuery::All), false),
            (log.log.filtered_reader(partition(first), EventQuery::All), false),
        ];
        for (way, (reader, is_backward)) in reads.into_iter().enumerate() {
            let found = log.read(reader, is_backward);
            assert!(found.iter().all(|found| left.contains(&found)), "way {way} from {first}: {found:?}");
            let found: BTreeSet<u64> = found.iter().map(|given| given.offset).collect();
            let missing: Vec<_> = left.iter().filter(must).filter(|given| !found.contains(&given.offset)).collect();
            assert!(missing.is_empty(), "way {way} from {first}: {missing:?} are missing");
        }
        let head = log.log.head().position;
        for tag in ["tag0", "tag1"] {
            let query = || EventQuery::Items(vec![QueryItem { types: vec!["Kind1".into()], tags: vec![tag.parse().unwrap()] }]);
            let matches = |given: &&&Given| given.kind == "Kind1" && given.tags.contains(tag);
            for (reader, is_backward) in [
                (log.log.filtered_reader(topics(0), query()), false),
                (log.log.filtered_backward_reader(topics(head.get()), query()), true),
                (log.log.filtered_backward_reader(partition(end), query()), true),
            ] {
                let found = log.read(reader, is_backward);
                assert!(found.iter().all(|found| left.iter().filter(matches).any(|given| *given == found)), "{found:?}");
                assert!(left.iter().filter(matches).filter(must).all(|given| found.contains(given)));
            }
        }
        if first > 0 {
            for below in [0, first - 1] {
                let Err(LogError::OffsetOutOfRange { first: told, .. }) = log.log.reader(partition(below)) else { panic!("{below}") };
                assert_eq!(told.get(), first);
            }
            let Err(LogError::Removed { first: whole, .. }) = log.log.whole_from(&topics(0)) else { panic!("something is gone") };
            log.log.whole_from(&topics(whole.get())).unwrap();
            assert_eq!(log.log.at_time(partition(0), Timestamp::new(0)).unwrap(), partition(first));
        }
    }

    fn check_stream(&self, log: &Log, stream: &str, low: u64) {
        let (id, newest) = (stream.parse().unwrap(), self.newest(stream));
        let (marked, anew) = self.lives.get(stream).copied().unwrap_or((1, 1));
        let gone = self.given.iter().rev().find(|given| given.stream == stream && given.offset < low);
        let retained = gone.map_or(1, |gone| gone.version + 1);
        let first = marked.max(retained);
        let [of_first, of_anew, of_retained] = [first, anew, retained].map(StreamVersion::new);
        let beginning = Beginning { first: of_first, anew: of_anew, retained: of_retained };
        let state = log.log.stream_state(&name(), &id).unwrap();
        assert_eq!(state.beginning, beginning, "{stream}");
        let head = match newest {
            0 => StreamHead::Absent,
            _ if newest < anew => StreamHead::Deleted(StreamVersion::new(newest)),
            _ => StreamHead::At(StreamVersion::new(newest)),
        };
        assert_eq!(state.head, head, "{stream}");
        let from = |version| Selection::Stream(name(), stream.parse().unwrap(), StreamVersion::new(version));
        let mut expected: Vec<u64> = (first..=newest).collect();
        let versions = |found: Vec<Given>| found.into_iter().map(|given| given.version).collect::<Vec<_>>();
        assert_eq!(versions(log.read(log.log.reader(from(1)), false)), expected, "{stream}");
        assert_eq!(versions(log.read(log.log.filtered_reader(from(1), EventQuery::All), false)), expected, "{stream}");
        let by_time = log.log.at_time(from(1), Timestamp::new(0)).unwrap();
        assert_eq!(versions(log.read(log.log.reader(by_time), false)), expected, "{stream}");
        expected.reverse();
        assert_eq!(versions(log.read(log.log.backward_reader(from(1 << 40)), true)), expected, "{stream}");
        let told = log.log.reader(from(1)).unwrap().read(log.log.head().position, SMALL).unwrap().beginning;
        assert_eq!(told, (beginning != Beginning::default()).then_some(beginning), "who reads {stream} is told");

        let snapshots = self.snapshots.get(stream).cloned().unwrap_or_default();
        let newest_at = snapshots.last_key_value().map_or(0, |(_, offset)| *offset);
        for at_most in 1..=newest {
            let is_kept = |(_, offset): &(&u64, &u64)| **offset >= low.min(newest_at);
            let expected = snapshots.range(..=at_most).rfind(is_kept).map(|(version, _)| *version);
            let found = log.log.snapshot(&name(), &stream.parse().unwrap(), StreamVersion::new(at_most)).unwrap();
            assert_eq!(found.map(|found| found.snapshot.version.get()), expected, "{stream} as of {at_most}, {snapshots:?} from {low}");
        }
    }

    /// Conditions find whatever was ever appended.
    fn check_conditions(&self, log: &mut Log) {
        let head = self.given.last().map_or(0, |given| given.position + 1);
        for kind in ["Kind0", "Kind1", "Kind2"] {
            for bits in 0..16_u32 {
                let tags: BTreeSet<_> = (0..4).filter(|tag| bits >> tag & 1 == 1).map(|tag| format!("tag{tag}")).collect();
                for place in (0..head).step_by(1 + head as usize / 9) {
                    let is_meant = |given: &Given| given.position > place && given.kind == kind && given.tags.is_superset(&tags);
                    let item = QueryItem { types: vec![kind.into()], tags: tags.iter().map(|tag| tag.parse().unwrap()).collect() };
                    assert_eq!(log.finds(item, place), self.given.iter().any(is_meant), "{kind} {tags:?} after {place}");
                }
            }
        }
    }
}

impl Log {
    /// Offset of what is written.
    fn write(&mut self, write: Write) -> u64 {
        let answer = self.log.append(Append { writes: vec![write], ..Append::default() }).unwrap();
        self.stepper.commit().unwrap();
        answer.now_or_never().unwrap().unwrap().ranges.first().map_or(0, |range| range.first.get())
    }

    fn first(&self) -> u64 {
        self.log.firsts(&name()).unwrap()[0].get()
    }

    fn end(&self) -> u64 {
        self.log.ends(&name()).unwrap()[0].get()
    }

    /// Lets go of what may go.
    fn let_go(&mut self) {
        self.log.allow_removal();
        self.stepper.upkeep().unwrap();
        self.stepper.commit().unwrap();
    }

    /// Has the bytes go, down to the files. How many segments were written anew.
    fn remove(&mut self) -> usize {
        self.stepper.upkeep().unwrap();
        self.stepper.commit().unwrap();
        let mut steps = 0;
        while self.stepper.compact().unwrap() {
            self.stepper.commit().unwrap();
            self.stepper.tidy().unwrap();
            steps += 1;
            assert!(steps < 1_000, "it does not end");
        }
        self.stepper.tidy().unwrap();
        self.stepper.upkeep().unwrap();
        steps
    }

    fn finds(&mut self, item: QueryItem, after: u64) -> bool {
        let (query, after) = (EventQuery::Items(vec![item]), Some(Position::new(after)));
        let asked = QueryAbsent { scope: Scope::Topics(vec![name()]), query, after };
        let append = Append { preconditions: vec![Precondition::QueryAbsent(asked)], ..Append::default() };
        let answer = self.log.append(append).unwrap();
        self.stepper.commit().unwrap();
        match answer.now_or_never().unwrap() {
            Ok(_) => false,
            Err(LogError::Conflict { .. }) => true,
            Err(error) => panic!("{error}"),
        }
    }

    fn read(&self, reader: Result<Box<dyn LogReader>, LogError>, is_backward: bool) -> Vec<Given> {
        let (mut reader, mut found) = (reader.unwrap(), Vec::new());
        loop {
            let chunk = reader.read(self.log.head().position, SMALL).unwrap();
            let is_over = if is_backward { chunk.scanned_to.get() == 0 } else { chunk.scanned_to >= self.log.head().position };
            if chunk.runs.is_empty() && is_over {
                return found;
            }
            for run in &chunk.runs {
                let mut of_run: Vec<_> = run.records().map(|record| given(&record.unwrap())).collect();
                if is_backward {
                    of_run.reverse();
                }
                found.extend(of_run);
            }
        }
    }
}

fn given(record: &foldlog_log::RecordView<'_>) -> Given {
    let event = record.event().unwrap();
    assert!(record.value.unwrap().starts_with(format!("<{}>", record.position).as_bytes()), "the data is its own");
    Given {
        offset: record.offset.get(),
        position: record.position.get(),
        stream: String::from_utf8(record.key.unwrap().to_vec()).unwrap(),
        version: event.version.get(),
        kind: event.kind.into(),
        tags: event.tags().map(ToOwned::to_owned).collect(),
    }
}

fn name() -> TopicName {
    "e".parse().unwrap()
}

fn partition(from: u64) -> Selection {
    Selection::Partition(name(), PartitionId::new(0), Offset::new(from))
}

fn topics(from: u64) -> Selection {
    Selection::Topics(vec![name()], Position::new(from))
}

#[test]
fn what_retention_lets_go_of_is_read_by_nobody_and_everything_else_stands() {
    for seed in 0..6 {
        let mut folder = Folder::new(seed);
        let mut log = folder.open();
        folder.fill(&mut log, seed, 700);
        folder.check(&mut log);
        assert_eq!(log.first(), 0);
        let bytes = folder.bytes();
        log.let_go();
        let first = log.first();
        assert!(first > 200 && first + 80 < log.end(), "{first} of {}", log.end());
        // At once, while all of its bytes are there.
        assert_eq!(folder.bytes(), bytes);
        folder.check(&mut log);
        log.stepper.upkeep().unwrap();
        folder.check(&mut log);

        assert!(log.remove() > 0);
        folder.check(&mut log);
        let left = folder.in_files();
        assert!(left.iter().all(|offset| *offset >= first), "{left:?} from {first}");
        assert!(folder.bytes() < 40 << 10 && folder.bytes() * 2 < bytes, "{} of {bytes}", folder.bytes());
        assert_eq!(log.remove(), 0, "nothing is left to be removed");

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
            assert_eq!(log.first(), first);
            folder.check(&mut log);
        }
        folder.fill(&mut log, seed + 10, 400);
        log.let_go();
        assert!(log.first() > first);
        folder.check(&mut log);
        log.remove();
        folder.check(&mut log);
        assert!(folder.bytes() < 40 << 10, "blanks are not heaped up: {}", folder.bytes());
        // Scrubbing reads what is left of what is gone, too.
        while log.stepper.scrub().unwrap().is_some() {}
        assert_eq!(log.log.metrics().scrub_damages, 0);
    }
}

/// The power goes after each step, and after each call of the disk within them.
#[test]
fn a_removal_that_is_cut_off_is_done_or_not_begun() {
    let (mut cut, mut done, mut not_begun, mut smaller) = (0, 0, 0, 0);
    for cut_after in 0..10 {
        for seed in 0..9 {
            let mut folder = Folder::new(100 + 10 * cut_after as u64 + seed);
            let mut log = folder.open();
            folder.fill(&mut log, seed, 300);
            log.log.allow_removal();
            let bytes = folder.bytes();
            let compact: Step = |stepper| stepper.compact().map(drop);
            let steps: [Step; 10] = [
                Stepper::upkeep,
                Stepper::commit,
                Stepper::upkeep,
                compact,
                compact,
                Stepper::commit,
                Stepper::tidy,
                Stepper::upkeep,
                compact,
                Stepper::commit,
            ];
            for (number, step) in steps.into_iter().enumerate() {
                if number == cut_after {
                    folder.disk.arm(Fault::PowerOff { nth: [0, 1, 1, 1, 2, 3, 1, 7, 11][seed as usize] });
                }
                if step(&mut log.stepper).is_err() {
                    cut += 1;
                    break;
                }
            }
            let shown = log.first();
            drop(log);
            folder.disk = if seed % 4 == 0 { folder.disk.kill() } else { folder.disk.power_cut() };
            log = folder.open();
            let first = log.first();
            assert!(first >= shown, "what was shown as gone is back: {first}, before {shown}");
            assert!(first == 0 || first > 50, "half a removal: {first}");
            folder.check_reads(&log);
            (done, not_begun) = (done + u32::from(first > 0), not_begun + u32::from(first == 0));
            smaller += u32::from(folder.bytes() < bytes);
            log.let_go();
            log.remove();
            if seed < 2 {
                folder.check_conditions(&mut log);
            }
            folder.check_reads(&log);
            assert!(folder.in_files().iter().all(|offset| *offset >= log.first()));
        }
    }
    assert!(cut > 20 && done > 40 && not_begun > 1 && smaller > 10, "{cut} {done} {not_begun} {smaller}");
}

#[test]
fn events_go_by_age_and_an_idle_stream_keeps_its_version() {
    let mut folder = Folder { retention: Retention { time: Some(HOUR), bytes: None }, ..Folder::new(1) };
    let mut log = folder.open();
    let mut random = Random::new(1);
    for number in 0..40 {
        folder.append(&mut log, &format!("s{}", number % 4), &mut random);
    }
    log.stepper.tidy().unwrap();
    for _ in 0..4 {
        log.let_go();
        folder.check(&mut log);
        assert_eq!(log.first(), 0, "it is not that old");
        log.stepper.tidy().unwrap();
        folder.clock.advance(HOUR / 4);
    }
    folder.clock.advance(HOUR / 4);
    log.let_go();
    assert_eq!((log.first(), log.end()), (40, 40));
    folder.check(&mut log);
    log.remove();
    folder.check(&mut log);
    drop(log);
    folder.disk = folder.disk.power_cut();
    let mut log = folder.open();
    folder.check(&mut log);
    folder.append(&mut log, "s1", &mut random);
    assert_eq!(folder.given.last().unwrap().version, 11);
    folder.check(&mut log);
}

#[test]
fn what_somebody_holds_stays_until_they_let_go() {
    let mut folder = Folder::new(3);
    let mut log = folder.open();
    folder.fill(&mut log, 3, 400);
    // Positions are offsets here.
    log.log.hold("query-1", &name(), Position::new(150)).unwrap();
    log.let_go();
    let first = log.first();
    assert!(first > 50 && first <= 150, "{first}");
    log.remove();
    folder.check(&mut log);
    assert!(folder.in_files().contains(&folder.given.iter().find(|given| given.offset >= 150).unwrap().offset));
    log.log.release("query-1");
    log.let_go();
    assert!(log.first() > 150);
    folder.check(&mut log);
}

#[test]
fn who_reads_is_told_or_goes_on_where_a_stream_begins_by_now() {
    let mut folder = Folder { retention: Retention::FOR_EVER, ..Folder::new(3) };
    let mut log = folder.open();
    let mut random = Random::new(4);
    for _ in 0..300 {
        folder.append(&mut log, "s1", &mut random);
    }
    log.stepper.tidy().unwrap();
    let (one, until) = (ReadLimits { records: 1, bytes: 1 }, log.log.head().position);
    let of_stream = |version| Selection::Stream(name(), "s1".parse().unwrap(), StreamVersion::new(version));
    let (mut forwards, mut backwards) = (log.log.reader(of_stream(1)).unwrap(), log.log.backward_reader(of_stream(1 << 40)).unwrap());
    let told = [
        log.log.reader(partition(0)),
        log.log.filtered_reader(partition(0), EventQuery::All),
        log.log.reader(topics(0)),
        log.log.filtered_reader(topics(0), EventQuery::All),
    ];
    let mut told = told.map(Result::unwrap);
    for reader in &mut told {
        assert_eq!(reader.read(until, one).unwrap().runs[0].first_offset, Offset::new(0));
    }
    for number in 0..3 {
        assert_eq!(forwards.read(until, one).unwrap().runs[0].first_offset, Offset::new(number));
        assert_eq!(backwards.read(until, one).unwrap().runs[0].first_offset, Offset::new(299 - number));
    }
    let changes = TopicChanges { retention_bytes: Some(16 << 10), ..TopicChanges::default() };
    log.log.alter_topic(&name(), changes).unwrap();
    log.let_go();
    let first = log.first();
    assert!(first > 50);
    let rest = |reader: Box<dyn LogReader>, is_backward| log.read(Ok(reader), is_backward).into_iter().map(|given| given.offset).collect();
    let (rest_forwards, rest_backwards): (Vec<u64>, Vec<u64>) = (rest(forwards, false), rest(backwards, true));
    assert_eq!((rest_forwards, rest_backwards), ((first..300).collect(), (first..297).rev().collect()));
    for (place, mut reader) in told.into_iter().enumerate() {
        let mut next = 1;
        let error = loop {
            match reader.read(until, one) {
                Ok(chunk) => chunk.runs.iter().for_each(|run| {
                    assert_eq!(run.first_offset, Offset::new(next), "a jump");
                    next += 1;
                }),
                Err(error) => break error,
            }
        };
        match error {
            LogError::OffsetOutOfRange { first: told, .. } if place < 2 => assert_eq!(told.get(), first),
            LogError::Removed { first: whole, .. } if place >= 2 => log.log.whole_from(&topics(whole.get())).unwrap(),
            other => panic!("{place}: {other}"),
        }
    }

    // Lifted, nothing more goes, and what has gone does not come back.
    log.log.alter_topic(&name(), TopicChanges { retention_bytes: Some(0), ..TopicChanges::default() }).unwrap();
    folder.fill(&mut log, 5, 300);
    log.let_go();
    assert_eq!(log.first(), first);
    log.remove();
    drop(log);
    folder.disk = folder.disk.power_cut();
    let mut log = folder.open();
    assert_eq!((log.first(), log.log.topic(&name()).unwrap().settings.retention), (first, Retention::FOR_EVER));
    folder.check(&mut log);
}

/// Events that retention let go of are redacted like all that are gone: what is left of their bytes goes, and a reader sees none of it.
#[test]
fn what_is_gone_is_redacted_truncated_and_deleted_like_anything_else() {
    let mut folder = Folder::new(6);
    let mut log = folder.open();
    folder.fill(&mut log, 6, 400);
    log.let_go();
    let first = log.first();
    let gone: Vec<Given> = folder.given.iter().filter(|given| given.offset < first).take(4).cloned().collect();
    for given in &gone {
        let versions = vec![StreamVersion::new(given.version)];
        let (stream, by, reason) = (given.stream.parse().unwrap(), "ann".into(), "".into());
        log.write(Write::Redact { topic: name(), stream, versions, by, reason });
        // A redaction drops the snapshots before it.
        folder.snapshots.remove(&given.stream);
    }
    log.stepper.tidy().unwrap();
    folder.change(&mut log, "s7", StreamChange::Truncate { before: StreamVersion::new(2) });
    folder.check(&mut log);
    for _ in 0..200 {
        log.remove();
    }
    assert_eq!(log.log.redacting(&name(), None).unwrap().events, 0);
    assert!(folder.in_files().iter().all(|offset| *offset >= first));
    for stream in ["s5", "s6"] {
        folder.change(&mut log, stream, StreamChange::Delete);
    }
    folder.check(&mut log);
    drop(log);
    folder.disk = folder.disk.power_cut();
    let mut log = folder.open();
    folder.check(&mut log);
}

#[test]
fn what_retention_let_go_of_stays_gone_in_what_is_restored() {
    for is_removed in [false, true] {
        let mut folder = Folder::new(7);
        let mut log = folder.open();
        let mut ends = Vec::new();
        for round in 0..8 {
            folder.fill(&mut log, 70 + round, 60);
            ends.push(log.log.head().position);
            folder.clock.advance(Duration::from_secs(1));
        }
        log.let_go();
        let first = log.first();
        if is_removed {
            log.remove();
        }
        log.stepper.tidy().unwrap();
        folder.check(&mut log);
        log.stepper.back_up(Path::new("/backup")).unwrap();
        drop(log);
        let (disk, clock): (Arc<dyn Disk>, Arc<dyn Clock>) = (Arc::new(folder.disk.clone()), folder.clock.clone());
        let config = folder.config.clone();
        let restored = |to: &str, until| restore(&disk, &clock, Path::new("/backup"), Path::new(to), until, &config, || 1).unwrap();
        restored("/whole", None);
        let mut log = folder.open_at("/whole");
        assert_eq!(log.first(), first);
        folder.check(&mut log);
        drop(log);

        // Cut within what is gone: then nothing is left to be read. Streams go on with the versions that they had, but for what a later event
        // replaced that is cut off: that is told.
        let cut = ends.iter().rfind(|end| end.get() < first).unwrap();
        let told = restored("/cut", Some(Until::Position(*cut)));
        assert!(*cut <= told.position && told.position.get() <= first, "{told:?}");
        assert_eq!(told.thinned, if is_removed { vec!["e".to_owned()] } else { Vec::new() });
        let log = folder.open_at("/cut");
        assert!(log.first() == log.end() && log.first() <= cut.get(), "{} {} {cut}", log.first(), log.end());
        assert!(log.read(log.log.reader(topics(0)), false).is_empty());
        for stream in (0..STREAMS).map(|number| format!("s{number}")) {
            let state = log.log.stream_state(&name(), &stream.parse().unwrap()).unwrap();
            let before = folder.given.iter().rev().find(|given| given.stream == stream && given.position < cut.get());
            let next = before.map_or(1, |before| before.version + 1);
            assert!(state.beginning.first.get() >= next || is_removed, "{stream}: {state:?}, {next}");
            assert!(log.read(log.log.reader(Selection::Stream(name(), stream.parse().unwrap(), StreamVersion::FIRST)), false).is_empty());
        }
    }
}
