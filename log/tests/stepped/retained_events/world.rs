//! What was appended to a topic of events, and what must be told of it, however much of it retention let go.

use std::collections::{BTreeMap, BTreeSet};

use foldlog_log::{
    Beginning, EventQuery, LogBackend, LogConfig, LogError, LogReader, NewEvent, Position, QueryItem, RecordView, Retention, Selection,
    StreamChange, StreamHead, StreamVersion, Timestamp, TopicKind, TopicSettings, Write, testing::Random,
};

use crate::room::{Folder, Log, SMALL, Way, change, config, name, of_partition, of_stream, of_topic, snapshot};

pub const STREAMS: u64 = 8;

/// An event as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    pub offset: u64,
    pub position: u64,
    pub stream: String,
    pub version: u64,
    pub kind: String,
    pub tags: BTreeSet<String>,
}

/// A folder with a topic `e`, and what was appended to it.
pub struct World {
    pub folder: Folder,
    pub given: Vec<Given>,
    /// Version with which each stream begins by its marks, and begins anew.
    lives: BTreeMap<String, (u64, u64)>,
    /// Versions and offsets of snapshots that their streams have not let go.
    pub snapshots: BTreeMap<String, BTreeMap<u64, u64>>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let folder = Folder::new(seed, LogConfig { tail_bytes: 4096 * (seed % 3), ..config() });
        Self { folder, given: Vec::new(), lives: BTreeMap::new(), snapshots: BTreeMap::new() }
    }

    pub fn create(&mut self, retention: Retention) -> Log {
        let log = self.folder.open();
        log.log.create_topic(name("e"), TopicSettings { retention, ..TopicSettings::new(TopicKind::Events, 1) }).unwrap();
        log
    }

    /// Offsets of events whose data lies in segments.
    pub fn in_files(&self) -> BTreeSet<u64> {
        let text = self.folder.text();
        let is_there = |given: &&Given| text.windows(10).any(|bytes| bytes.starts_with(format!("<{}>", given.position).as_bytes()));
        self.given.iter().filter(is_there).map(|given| given.offset).collect()
    }

    pub fn newest(&self, stream: &str) -> u64 {
        self.given.iter().rev().find(|given| given.stream == stream).map_or(0, |given| given.version)
    }

    pub fn append(&mut self, log: &mut Log, stream: &str, random: &mut Random) {
        let (kind, position) = (format!("Kind{}", random.below(3)), log.log.head().position.get());
        let tags: BTreeSet<_> = (0..4).filter(|_| random.one_in(3)).map(|tag| format!("tag{tag}")).collect();
        let event = NewEvent {
            kind: kind.as_str().into(),
            tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
            data: format!("<{position}>{}", "x".repeat(60)).into(),
            ..NewEvent::default()
        };
        let version = self.newest(stream) + 1;
        let offset = write(log, Write::Stream { topic: name("e"), stream: stream.parse().unwrap(), events: vec![event] });
        self.given.push(Given { offset, position, stream: stream.into(), version, kind, tags });
    }

    pub fn change(&mut self, log: &mut Log, stream: &str, changed: StreamChange) {
        let newest = self.newest(stream);
        log.write(change("e", stream, changed));
        let life = self.lives.entry(stream.into()).or_insert((1, 1));
        match changed {
            StreamChange::Truncate { before } => life.0 = life.0.max(before.get()),
            StreamChange::DropSnapshots => drop(self.snapshots.remove(stream)),
            StreamChange::Delete | StreamChange::Tombstone => {
                *life = (newest + 1, newest + 1);
                self.snapshots.remove(stream);
            }
        }
    }

    pub fn snapshot(&mut self, log: &mut Log, stream: &str) {
        let version = self.newest(stream);
        let offset = write(log, snapshot("e", stream, version, b"state".to_vec()));
        self.snapshots.entry(stream.into()).or_default().insert(version, offset);
    }

    /// Appends, truncates, deletes and puts snapshots by chance, a checkpoint behind every few.
    pub fn fill(&mut self, log: &mut Log, seed: u64, count: u64) {
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
    pub fn check(&self, log: &mut Log) {
        self.check_reads(log);
        self.check_conditions(log);
    }

    /// What is left, by every way of reading it, where streams stand and begin, and their snapshots.
    pub fn check_reads(&self, log: &Log) {
        let (first, end) = (first_of(log), end_of(log));
        let left: Vec<&Given> = self.given.iter().filter(|given| given.offset >= first).collect();
        for stream in (0..STREAMS).map(|number| format!("s{number}")) {
            self.check_stream(log, &stream, first);
        }
        // Of what streams let go some may be gone by itself.
        let must = |given: &&&Given| given.version >= self.lives.get(&given.stream).map_or(1, |life| life.0);
        let by_time = log.log.at_time(of_topic("e", 9), Timestamp::new(0)).unwrap();
        let reads = [
            (log.log.reader(of_partition("e", first)), Way::Forwards),
            (log.log.backward_reader(of_partition("e", end)), Way::Backwards),
            (log.log.reader(of_topic("e", 0)), Way::Forwards),
            (log.log.backward_reader(of_topic("e", log.log.head().position.get())), Way::Backwards),
            (log.log.reader(Selection::All(Position::new(0))), Way::Forwards),
            (log.log.reader(by_time), Way::Forwards),
            (log.log.filtered_reader(of_topic("e", 0), EventQuery::All), Way::Forwards),
            (log.log.filtered_reader(of_partition("e", first), EventQuery::All), Way::Forwards),
        ];
        for (number, (reader, way)) in reads.into_iter().enumerate() {
            let found = read(log, reader, way);
            assert!(found.iter().all(|found| left.contains(&found)), "way {number} from {first}: {found:?}");
            let found: BTreeSet<u64> = found.iter().map(|given| given.offset).collect();
            let missing: Vec<_> = left.iter().filter(must).filter(|given| !found.contains(&given.offset)).collect();
            assert!(missing.is_empty(), "way {number} from {first}: {missing:?} are missing");
        }
        let head = log.log.head().position;
        for tag in ["tag0", "tag1"] {
            let query = || EventQuery::Items(vec![QueryItem { types: vec!["Kind1".into()], tags: vec![tag.parse().unwrap()] }]);
            let matches = |given: &&&Given| given.kind == "Kind1" && given.tags.contains(tag);
            for (reader, way) in [
                (log.log.filtered_reader(of_topic("e", 0), query()), Way::Forwards),
                (log.log.filtered_backward_reader(of_topic("e", head.get()), query()), Way::Backwards),
                (log.log.filtered_backward_reader(of_partition("e", end), query()), Way::Backwards),
            ] {
                let found = read(log, reader, way);
                assert!(found.iter().all(|found| left.iter().filter(matches).any(|given| *given == found)), "{found:?}");
                assert!(left.iter().filter(matches).filter(must).all(|given| found.contains(given)));
            }
        }
        if first > 0 {
            for below in [0, first - 1] {
                let Err(LogError::OffsetOutOfRange { first: told, .. }) = log.log.reader(of_partition("e", below)) else {
                    panic!("{below}")
                };
                assert_eq!(told.get(), first);
            }
            let Err(LogError::Removed { first: whole, .. }) = log.log.whole_from(&of_topic("e", 0)) else { panic!("something is gone") };
            log.log.whole_from(&of_topic("e", whole.get())).unwrap();
            assert_eq!(log.log.at_time(of_partition("e", 0), Timestamp::new(0)).unwrap(), of_partition("e", first));
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
        let state = log.log.stream_state(&name("e"), &id).unwrap();
        assert_eq!(state.beginning, beginning, "{stream}");
        let head = match newest {
            0 => StreamHead::Absent,
            _ if newest < anew => StreamHead::Deleted(StreamVersion::new(newest)),
            _ => StreamHead::At(StreamVersion::new(newest)),
        };
        assert_eq!(state.head, head, "{stream}");
        let from = |version| of_stream("e", stream, version);
        let mut expected: Vec<u64> = (first..=newest).collect();
        let versions = |found: Vec<Given>| found.into_iter().map(|given| given.version).collect::<Vec<_>>();
        assert_eq!(versions(read(log, log.log.reader(from(1)), Way::Forwards)), expected, "{stream}");
        assert_eq!(versions(read(log, log.log.filtered_reader(from(1), EventQuery::All), Way::Forwards)), expected, "{stream}");
        let by_time = log.log.at_time(from(1), Timestamp::new(0)).unwrap();
        assert_eq!(versions(read(log, log.log.reader(by_time), Way::Forwards)), expected, "{stream}");
        expected.reverse();
        assert_eq!(versions(read(log, log.log.backward_reader(from(1 << 40)), Way::Backwards)), expected, "{stream}");
        let told = log.log.reader(from(1)).unwrap().read(log.log.head().position, SMALL).unwrap().beginning;
        assert_eq!(told, (beginning != Beginning::default()).then_some(beginning), "who reads {stream} is told");

        let snapshots = self.snapshots.get(stream).cloned().unwrap_or_default();
        let newest_at = snapshots.last_key_value().map_or(0, |(_, offset)| *offset);
        for at_most in 1..=newest {
            let is_kept = |(_, offset): &(&u64, &u64)| **offset >= low.min(newest_at);
            let expected = snapshots.range(..=at_most).rfind(is_kept).map(|(version, _)| *version);
            let found = log.log.snapshot(&name("e"), &stream.parse().unwrap(), StreamVersion::new(at_most)).unwrap();
            assert_eq!(found.map(|found| found.snapshot.version.get()), expected, "{stream} as of {at_most}, {snapshots:?} from {low}");
        }
    }

    /// Conditions find whatever was ever appended.
    pub fn check_conditions(&self, log: &mut Log) {
        let head = self.given.last().map_or(0, |given| given.position + 1);
        for kind in ["Kind0", "Kind1", "Kind2"] {
            for bits in 0..16_u32 {
                let tags: BTreeSet<_> = (0..4).filter(|tag| bits >> tag & 1 == 1).map(|tag| format!("tag{tag}")).collect();
                for place in (0..head).step_by(1 + head as usize / 9) {
                    let is_meant = |given: &Given| given.position > place && given.kind == kind && given.tags.is_superset(&tags);
                    let item = QueryItem { types: vec![kind.into()], tags: tags.iter().map(|tag| tag.parse().unwrap()).collect() };
                    assert_eq!(
                        log.finds(&name("e"), item, Some(Position::new(place))),
                        self.given.iter().any(is_meant),
                        "{kind} {tags:?} after {place}"
                    );
                }
            }
        }
    }
}

/// Offset of what is written.
fn write(log: &mut Log, write: Write) -> u64 {
    log.write(write).ranges[0].first.get()
}

pub fn first_of(log: &Log) -> u64 {
    log.log.firsts(&name("e")).unwrap()[0].get()
}

pub fn end_of(log: &Log) -> u64 {
    log.log.ends(&name("e")).unwrap()[0].get()
}

/// Lets go of what may go.
pub fn let_go(log: &mut Log) {
    log.stepper.upkeep().unwrap();
    log.stepper.commit().unwrap();
}

/// Has the bytes go, down to the files. How many segments were written anew.
pub fn remove(log: &mut Log) -> usize {
    let_go(log);
    log.compact()
}

pub fn read(log: &Log, reader: Result<Box<dyn LogReader>, LogError>, way: Way) -> Vec<Given> {
    log.read(reader, way, SMALL, |_, record| given(&record))
}

fn given(record: &RecordView<'_>) -> Given {
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
