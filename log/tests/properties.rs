//! The log against a model that is nothing but lists and maps: random appends, reads and restarts, by seed.
//!
//! The model knows no files, groups or segments. It says what each append is answered and what each selection holds, and the
//! log must say the same, in every order of commits, seals, checkpoints and starts.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use foldlog_log::{
    Append, Appended, AppendedRange, Compression, Durability, EmbeddedLog, EventQuery, Expected, Found, Identity, LogBackend, LogConfig,
    LogError, LogReader, NewEvent, NewRecord, Offset, PartitionId, Position, Precondition, ProducerEpoch, ProducerId, ProducerKey,
    QueryAbsent, QueryItem, ReadLimits, RequestId, RequestKey, Retention, Scope, Selection, Sequence, Sequenced, Snapshot, Stepper,
    StreamAt, StreamChange, StreamHead, StreamId, StreamVersion, Tag, Timestamp, TopicKind, TopicName, TopicSettings, Violation, Write,
    clock::{Clock, ManualClock},
    testing::{Random, SimDisk},
};
use futures::FutureExt;

const TOPICS: [(&str, TopicKind, u32); 4] =
    [("a", TopicKind::Events, 3), ("b", TopicKind::Events, 1), ("r", TopicKind::Records, 2), ("t", TopicKind::Table, 2)];
/// How each of [`TOPICS`] is compressed.
const COMPRESSIONS: [Compression; 4] = [Compression::Lz4, Compression::None, Compression::Zstd, Compression::Lz4];

/// Topics whose appends are answered before they are synced, unless they ask for more.
const WRITTEN: [&str; 2] = ["b", "r"];

/// How long topic `r` keeps what it has.
const KEPT: Retention = Retention { time: Some(Duration::from_secs(1)), bytes: None };

/// A record as it must be read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    position: u64,
    topic: String,
    partition: u32,
    offset: u64,
    key: Option<String>,
    /// 0 where there are no streams.
    version: u64,
    value: String,
    recorded_at: i64,
    /// Type; empty where there are no events.
    kind: String,
    tags: Vec<String>,
    /// Whether it is a mark, which no reader returns.
    is_mark: bool,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    /// Version of the first event that is left.
    first: u64,
    /// Version with which it began anew.
    anew: u64,
    is_over: bool,
}

/// What an append must be answered.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    Done(Appended),
    Violated(Vec<Violation>),
    Reused(Position),
    Tombstoned(StreamId),
    BeyondEnd(StreamId, StreamHead),
    NoSuchState(StreamId, StreamHead),
    /// Of a unit of a producer: another one comes next, it was refused before, its epoch is over.
    OutOfOrder(u64),
    RefusedBefore,
    Fenced(u64),
}

#[derive(Default)]
struct Model {
    records: Vec<Stored>,
    lives: BTreeMap<(String, String), Life>,
    /// Data of snapshots by version.
    snapshots: BTreeMap<(String, String), BTreeMap<u64, String>>,
    /// Answers by request id, with the digest of the request.
    remembered: BTreeMap<u64, (u128, Appended)>,
    producers: BTreeMap<ProducerId, Producer>,
}

/// The newest epoch of a producer, and the answer to each of its units; none if it was refused.
#[derive(Default)]
struct Producer {
    epoch: u64,
    units: Vec<Option<Appended>>,
}

impl Model {
    /// Number of events that a stream was ever given.
    fn newest(&self, topic: &str, stream: &str) -> u64 {
        let is_its = |record: &&Stored| record.topic == topic && record.key.as_deref() == Some(stream) && !record.is_mark;
        self.records.iter().filter(is_its).count() as u64
    }

    fn life(&self, topic: &str, stream: &str) -> Life {
        self.lives.get(&(topic.into(), stream.into())).copied().unwrap_or(Life { first: 1, anew: 1, is_over: false })
    }

    fn head(&self, topic: &str, stream: &str) -> StreamHead {
        let (newest, life) = (self.newest(topic, stream), self.life(topic, stream));
        match newest {
            _ if life.is_over => StreamHead::Tombstoned,
            0 => StreamHead::Absent,
            newest if newest < life.anew => StreamHead::Deleted(StreamVersion::new(newest)),
            newest => StreamHead::At(StreamVersion::new(newest)),
        }
    }

    /// Why a unit is refused whatever it believes.
    fn refusal(&self, append: &Append) -> Option<Verdict> {
        append.writes.iter().find_map(|write| {
            let (topic, stream, change) = match write {
                Write::Stream { topic, stream, .. } => (topic, stream, None),
                Write::Change { topic, stream, change, .. } => (topic, stream, Some(*change)),
                Write::Snapshot { topic, stream, snapshot, .. } => {
                    let (life, newest) = (self.life(topic.as_str(), stream.as_str()), self.newest(topic.as_str(), stream.as_str()));
                    let is_state = (life.anew..=newest).contains(&snapshot.version.get());
                    return match life.is_over {
                        true => Some(Verdict::Tombstoned(stream.clone())),
                        false if is_state => None,
                        false => Some(Verdict::NoSuchState(stream.clone(), self.head(topic.as_str(), stream.as_str()))),
                    };
                }
                Write::Records { .. } => return None,
            };
            let (topic, id) = (topic.as_str(), stream.as_str());
            match change {
                Some(StreamChange::Tombstone) => None,
                _ if self.life(topic, id).is_over => Some(Verdict::Tombstoned(stream.clone())),
                Some(StreamChange::Truncate { before }) if before.get() > self.newest(topic, id) + 1 => {
                    Some(Verdict::BeyondEnd(stream.clone(), self.head(topic, id)))
                }
                _ => None,
            }
        })
    }

    /// What a change makes of a stream, if anything.
    fn changed(&self, topic: &str, stream: &str, change: StreamChange) -> Option<Life> {
        let (newest, life) = (self.newest(topic, stream), self.life(topic, stream));
        let changed = match change {
            StreamChange::Truncate { before } => Life { first: life.first.max(before.get()), ..life },
            StreamChange::Delete if newest == 0 => life,
            StreamChange::Delete => Life { first: newest + 1, anew: newest + 1, ..life },
            StreamChange::Tombstone if life.is_over => life,
            StreamChange::Tombstone => Life { first: newest + 1, anew: newest + 1, is_over: true },
            StreamChange::DropSnapshots => return (newest > 0).then_some(life),
        };
        (changed != life).then_some(changed)
    }

    fn end(&self, topic: &str, partition: u32) -> u64 {
        self.records.iter().filter(|record| record.topic == topic && record.partition == partition).count() as u64
    }

    fn judge(&mut self, append: &Append, id: Option<u64>, now: Timestamp) -> Verdict {
        let digest = append.identity.as_ref().map(|identity| identity.digest);
        if let Some((known, answer)) = id.and_then(|id| self.remembered.get(&id)) {
            return match digest == Some(*known) {
                true => Verdict::Done(Appended { deduplicated: true, durability: Durability::Synced, ..answer.clone() }),
                false => Verdict::Reused(answer.first),
            };
        }
        let unit = append.sequenced.as_ref();
        if let Some(verdict) = unit.and_then(|unit| self.judge_unit(unit)) {
            return verdict;
        }
        if let Some(refusal) = self.refusal(append) {
            self.take(unit, None);
            return refusal;
        }
        let mut violations = Vec::new();
        for (index, condition) in append.preconditions.iter().enumerate() {
            let (topic, stream, expected) = match condition {
                Precondition::Stream { topic, stream, expected } => (topic, stream, expected),
                Precondition::QueryAbsent(asked) => {
                    let found = self.records.iter().find(|record| is_meant(asked, record));
                    let found = found.map(|record| Found::Event { first: Position::new(record.position) });
                    violations.extend(found.map(|found| Violation { index, found }));
                    continue;
                }
            };
            let actual = self.head(topic.as_str(), stream.as_str());
            let holds = match (*expected, actual) {
                (Expected::Any, _) | (Expected::Absent, StreamHead::Absent) | (Expected::Exists, StreamHead::At(_)) => true,
                (Expected::Absent | Expected::Deleted, StreamHead::Deleted(_)) => true,
                (Expected::Version(expected), StreamHead::At(version) | StreamHead::Deleted(version)) => expected == version,
                _ => false,
            };
            if !holds {
                let found = Found::Stream { stream: stream.clone(), expected: *expected, actual };
                violations.push(Violation { index, found });
            }
        }
        if !violations.is_empty() {
            self.take(unit, None);
            return Verdict::Violated(violations);
        }
        let first = Position::new(self.records.len() as u64);
        let (ranges, versions, durability) = (vec![], vec![], durability(append));
        let mut answer = Appended { first, end: first, ranges, versions, recorded_at: now, deduplicated: false, durability };
        for write in &append.writes {
            self.place(write, &mut answer);
        }
        answer.end = Position::new(self.records.len() as u64);
        let wrote = (!append.writes.is_empty()).then(|| answer.clone());
        self.take(unit, wrote);
        if answer.end == first && id.is_none() {
            // Nothing was written, so that there is nothing to be less durable.
            answer.durability = Durability::Synced;
        }
        if let (Some(id), Some(digest)) = (id, digest) {
            self.remembered.insert(id, (digest, answer.clone()));
        }
        Verdict::Done(answer)
    }

    /// Takes the sequence of a unit that was judged.
    fn take(&mut self, unit: Option<&Sequenced>, answer: Option<Appended>) {
        if let Some(unit) = unit {
            self.producers.get_mut(&unit.key.id).unwrap().units.push(answer);
        }
    }

    /// What is said to a unit that does not come next.
    fn judge_unit(&self, unit: &Sequenced) -> Option<Verdict> {
        let Producer { epoch, units } = &self.producers[&unit.key.id];
        let next = units.len() as u64 + 1;
        if unit.epoch.get() != *epoch {
            return Some(Verdict::Fenced(*epoch));
        }
        if unit.sequence.get() >= next {
            return (unit.sequence.get() > next).then_some(Verdict::OutOfOrder(next));
        }
        Some(match &units[unit.sequence.get() as usize - 1] {
            None => Verdict::RefusedBefore,
            Some(first) => {
                let (ranges, versions, durability) = (Vec::new(), Vec::new(), Durability::Synced);
                Verdict::Done(Appended { ranges, versions, durability, deduplicated: true, ..first.clone() })
            }
        })
    }

    fn place(&mut self, write: &Write, answer: &mut Appended) {
        match write {
            Write::Stream { topic, stream, events } => {
                let partition = hashed(topic.as_str(), stream.as_str());
                for event in events {
                    let version = self.newest(topic.as_str(), stream.as_str()) + 1;
                    self.push(topic, partition, Some(stream.to_string()), version, &event.data, answer);
                    if let Some(record) = self.records.last_mut() {
                        record.kind = event.kind.to_string();
                        record.tags = event.tags.iter().map(ToString::to_string).collect();
                    }
                    let at = StreamAt { topic: topic.clone(), stream: stream.clone(), version: StreamVersion::new(version) };
                    match answer.versions.iter_mut().find(|known| known.topic == at.topic && known.stream == at.stream) {
                        Some(known) => *known = at,
                        None => answer.versions.push(at),
                    }
                }
            }
            Write::Change { topic, stream, change, .. } => {
                let Some(life) = self.changed(topic.as_str(), stream.as_str(), *change) else { return };
                let key = (topic.to_string(), stream.to_string());
                if !matches!(change, StreamChange::Truncate { .. }) {
                    self.snapshots.remove(&key);
                }
                self.lives.insert(key, life);
                self.mark(topic, stream, answer);
            }
            Write::Snapshot { topic, stream, snapshot, .. } => {
                let data = String::from_utf8(snapshot.data.to_vec()).unwrap();
                let of_stream = self.snapshots.entry((topic.to_string(), stream.to_string())).or_default();
                of_stream.insert(snapshot.version.get(), data);
                self.mark(topic, stream, answer);
            }
            Write::Records { topic, partition, records } => {
                for record in records {
                    let key = record.key.as_ref().map(|key| String::from_utf8(key.to_vec()).unwrap());
                    let partition = match (partition, &key) {
                        (Some(partition), _) => partition.get(),
                        (None, Some(key)) => hashed(topic.as_str(), key),
                        (None, None) => 0,
                    };
                    self.push(topic, partition, key, 0, record.value.as_ref().unwrap(), answer);
                }
            }
        }
    }

    fn mark(&mut self, topic: &TopicName, stream: &StreamId, answer: &mut Appended) {
        self.push(topic, hashed(topic.as_str(), stream.as_str()), Some(stream.to_string()), 0, b"", answer);
        if let Some(record) = self.records.last_mut() {
            record.is_mark = true;
        }
        let newest = self.newest(topic.as_str(), stream.as_str());
        let at = StreamAt { topic: topic.clone(), stream: stream.clone(), version: StreamVersion::new(newest) };
        answer.versions.extend((newest > 0).then_some(at));
    }

    fn push(&mut self, topic: &TopicName, partition: u32, key: Option<String>, version: u64, value: &[u8], answer: &mut Appended) {
        let offset = self.end(topic.as_str(), partition);
        let (position, value) = (self.records.len() as u64, String::from_utf8(value.to_vec()).unwrap());
        let recorded_at = answer.recorded_at.get();
        self.records.push(Stored {
            position,
            topic: topic.to_string(),
            partition,
            offset,
            key,
            version,
            value,
            recorded_at,
            kind: String::new(),
            tags: Vec::new(),
            is_mark: false,
        });
        let (partition, last) = (PartitionId::new(partition), Offset::new(offset));
        match answer.ranges.iter_mut().find(|range| range.topic == *topic && range.partition == partition) {
            Some(range) => range.last = last,
            None => answer.ranges.push(AppendedRange { topic: topic.clone(), partition, first: last, last }),
        }
    }
}

/// How durable an append is when it is answered.
fn durability(append: &Append) -> Durability {
    let is_written = |write: &Write| match write {
        Write::Stream { topic, .. } | Write::Records { topic, .. } => WRITTEN.contains(&topic.as_str()),
        Write::Change { topic, .. } | Write::Snapshot { topic, .. } => WRITTEN.contains(&topic.as_str()),
    };
    match append.durability {
        _ if append.writes.is_empty() => Durability::Synced,
        Some(asked) => asked,
        None if append.writes.iter().all(is_written) => Durability::Written,
        None => Durability::Synced,
    }
}

/// Whether an event violates a query condition.
fn is_meant(asked: &QueryAbsent, record: &Stored) -> bool {
    let counts = asked.after.is_none_or(|after| record.position > after.get());
    let in_scope = match &asked.scope {
        Scope::Topics(topics) => topics.iter().any(|topic| topic.as_str() == record.topic),
        Scope::Everything => true,
    };
    counts && in_scope && matches(&asked.query, record)
}

/// Whether a record is an event that a query means.
fn matches(query: &EventQuery, record: &Stored) -> bool {
    let is_of = |item: &QueryItem| {
        let tags = item.tags.iter().all(|tag| record.tags.iter().any(|has| has == tag.as_str()));
        tags && (item.types.is_empty() || item.types.iter().any(|kind| **kind == *record.kind))
    };
    let matches = match query {
        EventQuery::All => true,
        EventQuery::Items(items) => items.iter().any(is_of),
    };
    matches && !record.kind.is_empty()
}

/// The partition of a key; that it is Kafka's has a test of its own.
fn hashed(topic: &str, key: &str) -> u32 {
    let (_, _, partitions) = TOPICS.iter().find(|(name, ..)| *name == topic).unwrap();
    PartitionId::for_key(key.as_bytes(), *partitions).get()
}

/// What was compared, to show that something was.
#[derive(Debug, Default)]
struct Seen {
    appends: u64,
    violations: u64,
    repeats: u64,
    written: u64,
    reused: u64,
    changes: u64,
    snapshots: u64,
    refused_changes: u64,
    units: u64,
    disordered: u64,
    restarts: u64,
    reads: u64,
    backward: u64,
    by_time: u64,
    filtered: u64,
    matching: u64,
    removed: u64,
    below: u64,
    records: u64,
}

struct Run {
    random: Random,
    disk: SimDisk,
    clock: Arc<ManualClock>,
    config: LogConfig,
    model: Model,
    next_id: u64,
    /// Oldest offset left of each partition of `r`, as last told.
    firsts: [u64; 2],
    seen: Seen,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let config = LogConfig {
            first_journal_file_bytes: 32 << 10,
            journal_file_bytes: 128 << 10,
            tail_bytes: random.below(3) * 4096,
            tidy_bytes: 16 << 10,
            untidied_bytes: 4 << 20,
            segment_bytes: 4096 + random.below(2) * 8192,
            near_positions: random.below(3) * 2,
            ..LogConfig::default()
        };
        let clock = Arc::new(ManualClock::at(Timestamp::new(1_700_000_000_000)));
        Self { random, disk: SimDisk::new(seed), clock, config, model: Model::default(), next_id: 0, firsts: [0; 2], seen: Seen::default() }
    }

    fn open(&mut self) -> (EmbeddedLog, Stepper) {
        let mut draw = self.random.fork();
        let random = move || (u128::from(draw.next()) << 64) | u128::from(draw.next());
        let disk = Arc::new(self.disk.clone());
        let (log, stepper) = EmbeddedLog::open_stepped(disk, self.clock.clone(), Path::new("/data"), self.config.clone(), random).unwrap();
        assert_eq!((&log.report().damage, log.report().damaged.len()), (&None, 0));
        for ((name, kind, partitions), compression) in TOPICS.into_iter().zip(COMPRESSIONS) {
            let durability = if WRITTEN.contains(&name) { Durability::Written } else { Durability::Synced };
            let retention = if name == "r" { KEPT } else { Retention::FOR_EVER };
            let settings = TopicSettings { durability, compression, retention, ..TopicSettings::new(kind, partitions) };
            assert_eq!(log.create_topic(name.parse().unwrap(), settings).unwrap().settings, settings);
        }
        log.allow_removal();
        (log, stepper)
    }

    fn run(&mut self) {
        let (mut log, mut stepper) = self.open();
        for _ in 0..60 {
            self.clock.advance(Duration::from_millis(self.random.below(150)));
            match self.random.below(15) {
                13.. => {
                    stepper.upkeep().unwrap();
                    stepper.commit().unwrap();
                }
                0 => stepper.seal().unwrap(),
                1 | 2 => stepper.tidy().unwrap(),
                3 => {
                    drop((log, stepper));
                    // Everything was answered, so no way to end takes anything away.
                    self.disk = if self.random.one_in(2) { self.disk.kill() } else { self.disk.power_cut() };
                    (log, stepper) = self.open();
                    self.seen.restarts += 1;
                }
                4..7 => self.read(&log),
                7 => self.open_producer(&log, &mut stepper),
                _ => self.append(&log, &mut stepper),
            }
            self.look_at_removal(&log);
        }
        self.read(&log);
        for (name, kind, partitions) in TOPICS {
            let ends: Vec<_> = (0..partitions).map(|partition| Offset::new(self.model.end(name, partition))).collect();
            assert_eq!(log.ends(&name.parse().unwrap()).unwrap(), ends);
            for stream in (0..6).map(|number| format!("s{number}")).filter(|_| kind == TopicKind::Events) {
                let head = log.stream_head(&name.parse().unwrap(), &stream.parse().unwrap()).unwrap();
                assert_eq!(head, self.model.head(name, &stream), "{stream} of {name}");
                let beginning = log.stream_state(&name.parse().unwrap(), &stream.parse().unwrap()).unwrap().beginning;
                let life = self.model.life(name, &stream);
                assert_eq!((beginning.first.get(), beginning.anew.get()), (life.first, life.anew), "{stream} of {name}");
            }
        }
    }

    /// What was removed stays removed, and was old enough.
    fn look_at_removal(&mut self, log: &EmbeddedLog) {
        let firsts = log.firsts(&"r".parse().unwrap()).unwrap();
        for (partition, (before, first)) in self.firsts.iter_mut().zip(firsts).enumerate() {
            assert!(*before <= first.get(), "offsets from {first} to {before} are back");
            *before = first.get();
            let is_removed = |record: &&Stored| record.topic == "r" && record.partition == partition as u32 && record.offset < first.get();
            let newest = self.model.records.iter().filter(is_removed).map(|record| record.recorded_at).max();
            let kept_from = self.clock.now().get() - KEPT.time.unwrap().as_millis() as i64;
            assert!(newest.is_none_or(|newest| newest < kept_from), "{newest:?} is not before {kept_from}");
        }
    }

    /// Begins an epoch of one of three producers, or asks where it stands.
    fn open_producer(&mut self, log: &EmbeddedLog, stepper: &mut Stepper) {
        let id = ProducerId::new([self.random.below(3) as u8; 16]);
        let newest: Vec<u64> = self.model.producers.values().map(|producer| producer.epoch).collect();
        let known = self.model.producers.entry(id).or_default();
        let resume = (known.epoch > 0 && self.random.one_in(3)).then(|| ProducerEpoch::new(known.epoch));
        let opened = log.open_producer(ProducerKey { principal: "p".into(), id }, resume).unwrap();
        stepper.commit().unwrap();
        let at = opened.now_or_never().expect("it was committed").unwrap();
        match resume {
            Some(epoch) => assert_eq!(at.epoch, epoch),
            None => assert!(newest.iter().all(|epoch| at.epoch.get() > *epoch), "{} is not newer than {newest:?}", at.epoch),
        }
        known.epoch = at.epoch.get();
        assert_eq!(at.next, Sequence::new(known.units.len() as u64 + 1));
    }

    /// Some appends in line, then one commit: each is judged behind those before it.
    fn append(&mut self, log: &EmbeddedLog, stepper: &mut Stepper) {
        let (mut waiting, mut in_line) = (Vec::new(), BTreeMap::new());
        for _ in 0..=self.random.below(5) {
            let (mut append, id) = self.request();
            self.number(&mut append, &mut in_line);
            waiting.push((append.clone(), id, log.append(append).expect("it is well formed")));
        }
        stepper.commit().unwrap();
        for (append, id, answer) in waiting {
            let expected = self.model.judge(&append, id, self.clock.now());
            let found = match answer.now_or_never().expect("it was committed") {
                Ok(answer) => Verdict::Done(answer),
                Err(LogError::Conflict { violations, .. }) => Verdict::Violated(violations),
                Err(LogError::RequestIdReused { first, .. }) => Verdict::Reused(first),
                Err(LogError::Tombstoned { stream, .. }) => Verdict::Tombstoned(stream),
                Err(LogError::NoSuchState { stream, actual, .. }) => Verdict::NoSuchState(stream, actual),
                Err(LogError::TruncatedBeyondEnd { stream, actual, .. }) => Verdict::BeyondEnd(stream, actual),
                Err(LogError::OutOfOrderSequence { next, .. }) => Verdict::OutOfOrder(next.get()),
                Err(LogError::RefusedBefore { .. }) => Verdict::RefusedBefore,
                Err(LogError::ProducerFenced { newest, .. }) => Verdict::Fenced(newest.get()),
                Err(error) => panic!("{error}"),
            };
            assert_eq!(found, expected, "{append:?}");
            self.seen.appends += 1;
            match expected {
                Verdict::Done(answer) => {
                    self.seen.repeats += u64::from(answer.deduplicated);
                    self.seen.units += u64::from(append.sequenced.is_some());
                    self.seen.written += u64::from(answer.durability == Durability::Written);
                    self.seen.changes += append.writes.iter().filter(|write| matches!(write, Write::Change { .. })).count() as u64;
                }
                Verdict::Violated(violations) => self.seen.violations += violations.len() as u64,
                Verdict::Reused(_) => self.seen.reused += 1,
                Verdict::Tombstoned(_) | Verdict::BeyondEnd(..) | Verdict::NoSuchState(..) => self.seen.refused_changes += 1,
                Verdict::OutOfOrder(_) | Verdict::RefusedBefore | Verdict::Fenced(_) => self.seen.disordered += 1,
            }
        }
        assert_eq!(log.head().position, Position::new(self.model.records.len() as u64));
    }

    /// Makes some appends units of producers: mostly the next one, or one before, behind or of another epoch.
    fn number(&mut self, append: &mut Append, in_line: &mut BTreeMap<ProducerId, u64>) {
        let known = self.model.producers.len() as u64;
        let may = known > 0 && append.identity.is_none() && !append.writes.is_empty();
        if !may || self.random.one_in(3) {
            return;
        }
        let (id, producer) = self.model.producers.iter().nth(self.random.below(known) as usize).unwrap();
        let ahead = in_line.entry(*id).or_default();
        let next = producer.units.len() as u64 + *ahead + 1;
        let (sequence, epoch) = match self.random.below(8) {
            0 => (next + 1, producer.epoch),
            1 | 2 => (1 + self.random.below(next), producer.epoch),
            3 => (next, producer.epoch - 1),
            _ => (next, producer.epoch),
        };
        *ahead += u64::from(sequence == next && epoch == producer.epoch);
        if self.random.one_in(8) {
            append.writes.clear();
            append.preconditions.clear();
        }
        let key = ProducerKey { principal: "p".into(), id: *id };
        append.sequenced = Some(Sequenced { key, epoch: ProducerEpoch::new(epoch), sequence: Sequence::new(sequence) });
    }

    fn request(&mut self) -> (Append, Option<u64>) {
        let mut writes: Vec<_> = (0..self.random.below(5)).map(|_| self.write()).collect();
        if self.random.one_in(4) {
            writes.extend(self.change(&writes));
        }
        let preconditions: Vec<_> = (0..self.random.below(3)).map(|_| self.condition()).collect();
        let must_have_id = writes.is_empty() && preconditions.is_empty();
        let id = (must_have_id || self.random.one_in(3)).then(|| {
            if self.next_id > 0 && self.random.one_in(3) {
                return self.random.below(self.next_id);
            }
            self.next_id += 1;
            self.next_id - 1
        });
        let identity = id.map(|id| Identity {
            key: RequestKey { principal: "p".into(), id: RequestId::new(u128::from(id).to_le_bytes()) },
            digest: if self.random.one_in(5) { 2 } else { 1 },
            first_attempt: None,
        });
        let durability = [None, None, Some(Durability::Written), Some(Durability::Synced)][self.random.below(4) as usize];
        (Append { writes, preconditions, identity, durability, sequenced: None }, id)
    }

    fn write(&mut self) -> Write {
        let (topic, kind, partitions) = TOPICS[self.random.below(4) as usize];
        let key = format!("s{}", self.random.below(6));
        let count = 1 + self.random.below(3);
        let values: Vec<String> = (0..count).map(|_| "v".repeat(self.random.below(200) as usize)).collect();
        let topic: TopicName = topic.parse().unwrap();
        if kind == TopicKind::Events {
            let mut events = Vec::new();
            for value in values {
                events.push(NewEvent { kind: self.kind(), data: value.into(), tags: self.tags(), ..NewEvent::default() });
            }
            return Write::Stream { topic, stream: key.parse().unwrap(), events };
        }
        let partition = self.random.one_in(3).then(|| PartitionId::new(self.random.below(u64::from(partitions)) as u32));
        let mut records = Vec::new();
        for value in values {
            let has_key = kind == TopicKind::Table || !self.random.one_in(3);
            let key = has_key.then(|| format!("s{}", self.random.below(6)).into());
            records.push(NewRecord { key, value: Some(value.into()), ..NewRecord::default() });
        }
        Write::Records { topic, partition, records }
    }

    /// A change of a stream that is not written to otherwise.
    fn change(&mut self, writes: &[Write]) -> Option<Write> {
        let topic: TopicName = ["a", "b"][self.random.below(2) as usize].parse().unwrap();
        let stream: StreamId = format!("s{}", self.random.below(6)).parse().unwrap();
        let newest = self.model.newest(topic.as_str(), stream.as_str());
        let change = match self.random.below(40) {
            0 => StreamChange::Tombstone,
            1..9 => StreamChange::Delete,
            9..13 => StreamChange::DropSnapshots,
            _ => StreamChange::Truncate { before: StreamVersion::new(1 + self.random.below(newest + 3)) },
        };
        let is_written =
            writes.iter().any(|write| matches!(write, Write::Stream { topic: t, stream: s, .. } if (t, s) == (&topic, &stream)));
        if is_written {
            return None;
        }
        if self.random.one_in(3) {
            let data = "s".repeat(self.random.below(300) as usize);
            let version = StreamVersion::new(1 + self.random.below(newest + 1));
            let snapshot = Snapshot { version, schema: Some("s.v1".into()), content_type: None, data: data.into() };
            return Some(Write::Snapshot { topic, stream, snapshot, by: "somebody".into() });
        }
        Some(Write::Change { topic, stream, change, by: "somebody".into() })
    }

    fn kind(&mut self) -> Arc<str> {
        // The last ones are rare.
        ["E", "E", "E", "E", "F", "F", "F", "G"][self.random.below(8) as usize].into()
    }

    fn tags(&mut self) -> Vec<Tag> {
        let bits = self.random.next();
        let given = (0..8).filter(|place| bits >> (place * 3) & 7 < 2 && bits >> 40 & 1 == 0);
        given
            .map(|place| format!("tag{place}"))
            .chain(self.random.one_in(3).then(|| format!("id{}", self.random.below(500))))
            .map(|tag| tag.parse().unwrap())
            .collect()
    }

    /// Mostly what nothing since some position matches.
    fn query(&mut self) -> QueryAbsent {
        let topics: [&[&str]; 4] = [&["a"], &["b"], &["a", "b"], &["b", "b"]];
        let scope = match self.random.below(5) {
            4 => Scope::Everything,
            one => Scope::Topics(topics[one as usize].iter().map(|topic| topic.parse().unwrap()).collect()),
        };
        let mut items = Vec::new();
        for _ in 0..1 + self.random.below(2) {
            let types = (0..self.random.below(3)).map(|_| self.kind()).collect();
            let mut tags = self.tags();
            tags.truncate(self.random.below(4) as usize);
            items.push(QueryItem { types, tags });
        }
        let query = if self.random.one_in(12) { EventQuery::All } else { EventQuery::Items(items) };
        // What is in line is not durable, so that nobody can have read it.
        let end = self.model.records.len() as u64;
        let back = if self.random.one_in(3) { self.random.below(end + 1) } else { self.random.below(30) };
        let after = end.checked_sub(1 + back).map(Position::new);
        QueryAbsent { scope, query, after }
    }

    fn condition(&mut self) -> Precondition {
        if self.random.one_in(2) {
            return Precondition::QueryAbsent(self.query());
        }
        let topic = ["a", "b"][self.random.below(2) as usize];
        let stream = format!("s{}", self.random.below(7));
        let expected = match (self.random.below(8), self.model.head(topic, &stream)) {
            (0, _) => Expected::Any,
            (1, _) => Expected::Absent,
            (2, _) => Expected::Exists,
            (3, _) => Expected::Version(StreamVersion::new(1 + self.random.below(20))),
            (4, StreamHead::Deleted(_)) => Expected::Deleted,
            // Mostly what was true when the line began.
            (_, StreamHead::Absent | StreamHead::Tombstoned) => Expected::Absent,
            (_, StreamHead::At(version) | StreamHead::Deleted(version)) => Expected::Version(version),
        };
        Precondition::Stream { topic: topic.parse().unwrap(), stream: stream.parse().unwrap(), expected }
    }

    /// Asks for a snapshot.
    fn find(&mut self, log: &EmbeddedLog) {
        let (topic, stream) = (["a", "b"][self.random.below(2) as usize], format!("s{}", self.random.below(6)));
        let at_most = 1 + self.random.below(self.model.newest(topic, &stream) + 2);
        let found = log.snapshot(&topic.parse().unwrap(), &stream.parse().unwrap(), StreamVersion::new(at_most)).unwrap();
        let found = found.map(|found| (found.snapshot.version.get(), String::from_utf8(found.snapshot.data.to_vec()).unwrap()));
        let known = self.model.snapshots.get(&(topic.to_owned(), stream.clone()));
        let expected = known.and_then(|known| known.range(..=at_most).next_back()).map(|(version, data)| (*version, data.clone()));
        assert_eq!(found, expected, "{stream} of {topic} as of {at_most}");
        self.seen.snapshots += u64::from(found.is_some());
    }

    fn read(&mut self, log: &EmbeddedLog) {
        for _ in 0..3 {
            self.find(log);
        }
        let (topic, kind, partitions) = TOPICS[self.random.below(4) as usize];
        let name: TopicName = topic.parse().unwrap();
        let query = if self.random.one_in(2) { Some(self.query().query) } else { None };
        let end = log.head().position;
        // What is selected, and each record's own number in it.
        type Number = fn(&Stored) -> u64;
        let records = self.model.records.iter().filter(|record| !record.is_mark);
        let (selection, mut expected, number): (_, Vec<&Stored>, Number) = match self.random.below(4) {
            0 if kind == TopicKind::Events => {
                let (stream, from) = (format!("s{}", self.random.below(6)), 1 + self.random.below(10));
                let first = self.model.life(topic, &stream).first;
                let is_left = |record: &&Stored| record.topic == topic && record.key.as_ref() == Some(&stream) && record.version >= first;
                let mine = records.filter(is_left);
                (Selection::Stream(name, stream.parse().unwrap(), StreamVersion::new(from)), mine.collect(), |record| record.version)
            }
            0 | 1 => {
                let partition = self.random.below(u64::from(partitions)) as u32;
                let from = self.random.below(self.model.end(topic, partition) + 1);
                let mine = records.filter(|record| record.topic == topic && record.partition == partition);
                (Selection::Partition(name, PartitionId::new(partition), Offset::new(from)), mine.collect(), |record| record.offset)
            }
            2 => {
                let from = Position::new(self.random.below(end.get() + 1));
                let mine = records.filter(|record| record.topic == topic || record.topic == "b");
                (Selection::Topics(vec![name, "b".parse().unwrap()], from), mine.collect(), |record| record.position)
            }
            _ => (Selection::All(Position::new(self.random.below(end.get() + 1))), records.collect(), |record| record.position),
        };
        let by_time = self.random.one_in(3);
        let time = self.model.records.get(self.random.below(end.get() + 1) as usize).map_or(0, |record| record.recorded_at);
        let time = time + self.random.below(3) as i64 - 1;
        let place = match &selection {
            Selection::Stream(_, _, version) => version.get(),
            Selection::Partition(_, _, offset) => offset.get(),
            Selection::Topics(_, position) | Selection::All(position) => position.get(),
        };
        let selection = if by_time { log.at_time(selection, Timestamp::new(time)).unwrap() } else { selection };
        let is_behind = |record: &&Stored| if by_time { record.recorded_at >= time } else { number(record) >= place };
        let backwards = self.random.one_in(2);
        expected.retain(|record| is_behind(record) != backwards);
        if backwards {
            expected.reverse();
        }
        let limits = ReadLimits { records: 1 + self.random.below(40) as u32, bytes: 1 + self.random.below(5000) as u32 };
        let has_events = kind == TopicKind::Events || matches!(selection, Selection::All(_));
        let query = query.filter(|_| has_events);
        if let Some(query) = &query {
            expected.retain(|record| matches(query, record));
            self.seen.filtered += 1;
            self.seen.matching += expected.len() as u64;
        }
        let found = match (query.clone(), backwards) {
            (None, false) => log.reader(selection.clone()),
            (None, true) => log.backward_reader(selection.clone()),
            (Some(query), false) => log.filtered_reader(selection.clone(), query),
            (Some(query), true) => log.filtered_backward_reader(selection.clone(), query),
        };
        if let Selection::Partition(_, partition, place) = &selection
            && topic == "r"
            && place.get() < self.firsts[partition.get() as usize]
        {
            let Err(LogError::OffsetOutOfRange { first, .. }) = found else { panic!("{selection:?} was removed") };
            assert_eq!(first.get(), self.firsts[partition.get() as usize]);
            self.seen.below += 1;
            return;
        }
        let found = read_all(found.unwrap(), end, limits, backwards);
        let way = if backwards { "backwards" } else { "forwards" };
        // Of what was removed some may still be in memory, and is as it was.
        let is_left = |record: &&Stored| record.topic != "r" || record.offset >= self.firsts[record.partition as usize];
        assert!(found.iter().all(|record| expected.contains(&record)), "{way} {selection:?}: {found:?}, not {expected:?}");
        let (left, expected): (Vec<_>, Vec<_>) = (found.iter().filter(is_left).collect(), expected.into_iter().filter(is_left).collect());
        assert_eq!(left, expected, "{way} {selection:?}");
        self.seen.reads += 1;
        self.seen.backward += u64::from(backwards);
        self.seen.by_time += u64::from(by_time);
        self.seen.records += found.len() as u64;
    }
}

/// All that a reader gives, each record as it must be in the model.
fn read_all(mut reader: Box<dyn LogReader>, until: Position, limits: ReadLimits, backwards: bool) -> Vec<Stored> {
    let mut found = Vec::new();
    loop {
        let chunk = reader.read(until, limits).unwrap();
        let is_over = if backwards { chunk.scanned_to == Position::default() } else { chunk.scanned_to >= until };
        if chunk.runs.is_empty() && is_over {
            return found;
        }
        for run in &chunk.runs {
            let before = found.len();
            for record in run.records() {
                let record = record.unwrap();
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                found.push(Stored {
                    position: record.position.get(),
                    topic: run.topic.name.to_string(),
                    partition: run.partition.get(),
                    offset: record.offset.get(),
                    key: record.key.map(text),
                    version: record.event().map_or(0, |event| event.version.get()),
                    value: record.value.map(text).unwrap(),
                    recorded_at: run.recorded_at.get(),
                    kind: record.event().map_or_else(String::new, |event| event.kind.to_owned()),
                    tags: record.event().map_or_else(Vec::new, |event| event.tags().map(ToOwned::to_owned).collect()),
                    is_mark: record.mark().is_some(),
                });
            }
            if backwards {
                found[before..].reverse();
            }
        }
    }
}

#[test]
fn the_log_answers_what_a_model_of_lists_answers() {
    let mut sum = Seen::default();
    for seed in 0..2_000 {
        let mut run = Run::new(seed);
        // A failure prints which seed it was.
        println!("seed {seed}");
        run.run();
        sum.appends += run.seen.appends;
        sum.violations += run.seen.violations;
        sum.repeats += run.seen.repeats;
        sum.written += run.seen.written;
        sum.reused += run.seen.reused;
        sum.changes += run.seen.changes;
        sum.snapshots += run.seen.snapshots;
        sum.refused_changes += run.seen.refused_changes;
        sum.units += run.seen.units;
        sum.disordered += run.seen.disordered;
        sum.restarts += run.seen.restarts;
        sum.reads += run.seen.reads;
        sum.backward += run.seen.backward;
        sum.by_time += run.seen.by_time;
        sum.filtered += run.seen.filtered;
        sum.matching += run.seen.matching;
        sum.removed += run.firsts.iter().sum::<u64>();
        sum.below += run.seen.below;
        sum.records += run.seen.records;
    }
    println!("{sum:?}");
    assert!(sum.removed > 15_000 && sum.below > 200, "{sum:?}");
    assert!(
        sum.appends > 80_000 && sum.violations > 30_000 && sum.repeats > 4_000 && sum.reused > 2_000 && sum.written > 12_000,
        "{sum:?}"
    );
    assert!(sum.changes > 7_000 && sum.refused_changes > 7_000 && sum.snapshots > 2_000, "{sum:?}");
    assert!(sum.restarts > 6_000 && sum.reads > 20_000 && sum.records > 200_000 && sum.backward > 10_000 && sum.by_time > 7_000, "{sum:?}");
    assert!(sum.filtered > 6_000 && sum.matching > 30_000, "{sum:?}");
    assert!(sum.units > 4000 && sum.disordered > 2400, "{sum:?}");
}
