//! What must come out: lists of records and maps of lives, and the verdict on each append.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use foldlog_log::{
    Append, Appended, AppendedRange, Compaction, Compression, Durability, EventQuery, Expected, Found, Offset, PartitionId, Position,
    Precondition, ProducerId, QueryAbsent, QueryItem, Retention, Scope, Sequenced, StreamAt, StreamChange, StreamHead, StreamId,
    StreamVersion, Timestamp, TopicKind, TopicName, TopicSettings, Violation, Write,
};

pub const TOPICS: [(&str, TopicKind, u32); 4] =
    [("a", TopicKind::Events, 3), ("b", TopicKind::Events, 1), ("r", TopicKind::Records, 2), ("t", TopicKind::Table, 2)];
/// How each of [`TOPICS`] is compressed.
pub const COMPRESSIONS: [Compression; 4] = [Compression::Lz4, Compression::None, Compression::Zstd, Compression::Lz4];

/// Topics whose appends are answered before they are synced, unless they ask for more.
pub const WRITTEN: [&str; 2] = ["b", "r"];

/// When topic `t` is compacted.
pub const COMPACTED: Compaction = Compaction {
    delete_retention: Duration::from_millis(500),
    min_lag: Duration::from_millis(100),
    max_lag: Duration::from_secs(1),
    dirty_percent: 30,
};

/// How long topics `r` and `b` keep what they have.
pub const KEPT: Retention = Retention { time: Some(Duration::from_secs(1)), bytes: None };

/// Topics as they are made.
pub fn made() -> BTreeMap<&'static str, TopicSettings> {
    let settings = |((name, kind, partitions), compression)| {
        let durability = if WRITTEN.contains(&name) { Durability::Written } else { Durability::Synced };
        let retention = if ["r", "b"].contains(&name) { KEPT } else { Retention::FOR_EVER };
        let compaction = if name == "t" { COMPACTED } else { Compaction::DEFAULT };
        (name, TopicSettings { durability, compression, retention, compaction, ..TopicSettings::new(kind, partitions) })
    };
    TOPICS.into_iter().zip(COMPRESSIONS).map(settings).collect()
}

/// A record as it must be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub position: u64,
    pub topic: String,
    pub partition: u32,
    pub offset: u64,
    pub key: Option<String>,
    /// 0 where there are no streams.
    pub version: u64,
    /// None for a tombstone.
    pub value: Option<String>,
    pub recorded_at: i64,
    /// Type; empty where there are no events.
    pub kind: String,
    pub tags: Vec<String>,
    /// Whether it is a mark, which no reader returns.
    pub is_mark: bool,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Version of the first event that is left.
    pub first: u64,
    /// Version with which it began anew.
    pub anew: u64,
    pub is_over: bool,
}

/// What an append must be answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Done(Appended),
    Violated(Vec<Violation>),
    Reused(Position),
    Tombstoned(StreamId),
    BeyondEnd(StreamId, StreamHead),
    NoSuchState(StreamId, StreamHead),
    NoSuchEvent(StreamId, StreamHead, StreamVersion),
    /// Of a unit of a producer: another one comes next, it was refused before, its epoch is over.
    OutOfOrder(u64),
    RefusedBefore,
    Fenced(u64),
}

pub struct Model {
    /// Topics as they are now.
    pub topics: BTreeMap<&'static str, TopicSettings>,
    pub records: Vec<Stored>,
    pub lives: BTreeMap<(String, String), Life>,
    /// Data of snapshots by version, and the offset of each.
    pub snapshots: BTreeMap<(String, String), BTreeMap<u64, (String, u64)>>,
    /// Answers by request id, with the digest of the request.
    pub remembered: BTreeMap<u64, (u128, Appended)>,
    pub producers: BTreeMap<ProducerId, Producer>,
}

/// The newest epoch of a producer, and the answer to each of its units; none if it was refused.
#[derive(Default)]
pub struct Producer {
    pub epoch: u64,
    pub units: Vec<Option<Appended>>,
}

impl Default for Model {
    fn default() -> Self {
        let (records, lives, snapshots, remembered, producers) = Default::default();
        Self { topics: made(), records, lives, snapshots, remembered, producers }
    }
}

/// Where the records of deleted topics are.
pub const GONE: &str = "(gone)";

impl Model {
    /// Deletes a topic and makes it anew: what it had keeps its positions and is found nowhere.
    pub fn make_anew(&mut self, topic: &'static str) {
        self.topics.insert(topic, made()[topic]);
        self.records.iter_mut().filter(|record| record.topic == topic).for_each(|record| record.topic = GONE.into());
        self.lives.retain(|(of, _), _| of != topic);
        self.snapshots.retain(|(of, _), _| of != topic);
        for (_, answer) in self.remembered.values_mut() {
            answer.ranges.retain(|range| range.topic.as_str() != topic);
            answer.versions.retain(|at| at.topic.as_str() != topic);
        }
    }

    /// Retention lets go of what `b` has below an offset: streams begin behind it.
    pub fn let_go(&mut self, first: u64) {
        let is_gone = |record: &&Stored| record.topic == "b" && record.offset < first && !record.is_mark;
        let gone: Vec<_> = self.records.iter().filter(is_gone).map(|record| (record.key.clone().unwrap(), record.version + 1)).collect();
        for (stream, next) in gone {
            let life = self.life("b", &stream);
            self.lives.insert(("b".into(), stream), Life { first: life.first.max(next), ..life });
        }
    }

    /// Number of events that a stream was ever given.
    pub fn newest(&self, topic: &str, stream: &str) -> u64 {
        let is_its = |record: &&Stored| record.topic == topic && record.key.as_deref() == Some(stream) && !record.is_mark;
        self.records.iter().filter(is_its).count() as u64
    }

    pub fn life(&self, topic: &str, stream: &str) -> Life {
        self.lives.get(&(topic.into(), stream.into())).copied().unwrap_or(Life { first: 1, anew: 1, is_over: false })
    }

    pub fn head(&self, topic: &str, stream: &str) -> StreamHead {
        let (newest, life) = (self.newest(topic, stream), self.life(topic, stream));
        match newest {
            _ if life.is_over => StreamHead::Tombstoned,
            0 => StreamHead::Absent,
            newest if newest < life.anew => StreamHead::Deleted(StreamVersion::new(newest)),
            newest => StreamHead::At(StreamVersion::new(newest)),
        }
    }

    /// Why a unit is refused whatever it believes.
    pub fn refusal(&self, append: &Append) -> Option<Verdict> {
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
                Write::Redact { topic, stream, versions, .. } => {
                    let newest = self.newest(topic.as_str(), stream.as_str());
                    let missing = versions.iter().find(|version| version.get() > newest)?;
                    return Some(Verdict::NoSuchEvent(stream.clone(), self.head(topic.as_str(), stream.as_str()), *missing));
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
    pub fn changed(&self, topic: &str, stream: &str, change: StreamChange) -> Option<Life> {
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

    pub fn end(&self, topic: &str, partition: u32) -> u64 {
        self.records.iter().filter(|record| record.topic == topic && record.partition == partition).count() as u64
    }

    pub fn judge(&mut self, append: &Append, id: Option<u64>, now: Timestamp) -> Verdict {
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
        let (ranges, versions, durability) = (vec![], vec![], self.durability(append));
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
    pub fn take(&mut self, unit: Option<&Sequenced>, answer: Option<Appended>) {
        if let Some(unit) = unit {
            self.producers.get_mut(&unit.key.id).unwrap().units.push(answer);
        }
    }

    /// What is said to a unit that does not come next.
    pub fn judge_unit(&self, unit: &Sequenced) -> Option<Verdict> {
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

    pub fn place(&mut self, write: &Write, answer: &mut Appended) {
        match write {
            Write::Stream { topic, stream, events } => {
                let partition = self.hashed(topic.as_str(), stream.as_str());
                for event in events {
                    let version = self.newest(topic.as_str(), stream.as_str()) + 1;
                    self.push(topic, partition, Some(stream.to_string()), version, Some(&event.data), answer);
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
                let offset = self.end(topic.as_str(), self.hashed(topic.as_str(), stream.as_str()));
                let of_stream = self.snapshots.entry((topic.to_string(), stream.to_string())).or_default();
                of_stream.insert(snapshot.version.get(), (data, offset));
                self.mark(topic, stream, answer);
            }
            Write::Redact { topic, stream, versions, .. } => {
                for version in versions {
                    let is_it = |record: &&mut Stored| {
                        record.topic == topic.as_str()
                            && record.key.as_deref() == Some(stream.as_str())
                            && !record.is_mark
                            && record.version == version.get()
                    };
                    self.records.iter_mut().filter(is_it).for_each(|record| record.value = None);
                    self.snapshots.remove(&(topic.to_string(), stream.to_string()));
                    self.mark(topic, stream, answer);
                }
            }
            Write::Records { topic, partition, records } => {
                for record in records {
                    let key = record.key.as_ref().map(|key| String::from_utf8(key.to_vec()).unwrap());
                    let partition = match (partition, &key) {
                        (Some(partition), _) => partition.get(),
                        (None, Some(key)) => self.hashed(topic.as_str(), key),
                        (None, None) => 0,
                    };
                    self.push(topic, partition, key, 0, record.value.as_deref(), answer);
                }
            }
        }
    }

    pub fn mark(&mut self, topic: &TopicName, stream: &StreamId, answer: &mut Appended) {
        self.push(topic, self.hashed(topic.as_str(), stream.as_str()), Some(stream.to_string()), 0, None, answer);
        if let Some(record) = self.records.last_mut() {
            record.is_mark = true;
        }
        let newest = self.newest(topic.as_str(), stream.as_str());
        let at = StreamAt { topic: topic.clone(), stream: stream.clone(), version: StreamVersion::new(newest) };
        answer.versions.retain(|known| (&known.topic, &known.stream) != (&at.topic, &at.stream));
        answer.versions.extend((newest > 0).then_some(at));
    }

    /// The log says in a partition that what was redacted is erased.
    pub fn mark_erased(&mut self, topic: &'static str, partition: u32, now: Timestamp) {
        let (first, end) = Default::default();
        let (ranges, versions, durability) = (vec![], vec![], Durability::Synced);
        let mut nobody = Appended { first, end, ranges, versions, recorded_at: now, deduplicated: false, durability };
        self.push(&topic.parse().unwrap(), partition, None, 0, None, &mut nobody);
        self.records.last_mut().unwrap().is_mark = true;
    }

    pub fn push(
        &mut self,
        topic: &TopicName,
        partition: u32,
        key: Option<String>,
        version: u64,
        value: Option<&[u8]>,
        answer: &mut Appended,
    ) {
        let offset = self.end(topic.as_str(), partition);
        let position = self.records.len() as u64;
        let value = value.map(|value| String::from_utf8(value.to_vec()).unwrap());
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

impl Model {
    /// Positions of those records of `t` that compaction leaves: the newest of each key, if it has a value.
    pub fn newest_of_keys(&self) -> BTreeSet<u64> {
        let of_table = self.records.iter().filter(|record| record.topic == "t");
        let newest: BTreeMap<_, _> = of_table.map(|record| ((record.partition, &record.key), record)).collect();
        newest.into_values().filter(|record| record.value.is_some()).map(|record| record.position).collect()
    }

    /// How durable an append is when it is answered.
    pub fn durability(&self, append: &Append) -> Durability {
        let is_written = |write: &Write| {
            let (Write::Stream { topic, .. }
            | Write::Records { topic, .. }
            | Write::Change { topic, .. }
            | Write::Snapshot { topic, .. }
            | Write::Redact { topic, .. }) = write;
            self.topics[topic.as_str()].durability == Durability::Written
        };
        match append.durability {
            _ if append.writes.is_empty() => Durability::Synced,
            Some(asked) => asked,
            None if append.writes.iter().all(is_written) => Durability::Written,
            None => Durability::Synced,
        }
    }

    /// The partition of a key; that it is Kafka's has a test of its own.
    pub fn hashed(&self, topic: &str, key: &str) -> u32 {
        PartitionId::for_key(key.as_bytes(), self.topics[topic].partitions).get()
    }
}

/// Whether an event violates a query condition.
pub fn is_meant(asked: &QueryAbsent, record: &Stored) -> bool {
    let counts = asked.after.is_none_or(|after| record.position > after.get());
    let in_scope = match &asked.scope {
        Scope::Topics(topics) => topics.iter().any(|topic| topic.as_str() == record.topic),
        Scope::Everything => record.topic != GONE,
    };
    counts && in_scope && matches(&asked.query, record)
}

/// Whether a record is an event that a query means.
pub fn matches(query: &EventQuery, record: &Stored) -> bool {
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
