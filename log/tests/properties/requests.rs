//! Appends by chance: what is written, what is believed, under which number and id.

use std::{collections::BTreeMap, sync::Arc};

use foldlog_log::{
    Append, Durability, EventQuery, Expected, Identity, NewEvent, NewRecord, PartitionId, Position, Precondition, ProducerEpoch,
    ProducerId, ProducerKey, QueryAbsent, QueryItem, RequestId, RequestKey, Scope, Sequence, Sequenced, Snapshot, StreamChange, StreamHead,
    StreamId, StreamVersion, Tag, TopicKind, TopicName, Write,
};

use crate::{driver::Run, model::TOPICS};

impl Run {
    /// Makes some appends units of producers: mostly the next one, or one before, behind or of another epoch.
    pub fn number(&mut self, append: &mut Append, in_line: &mut BTreeMap<ProducerId, u64>) {
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

    pub fn request(&mut self) -> (Append, Option<u64>) {
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
        (Append { writes, preconditions, identity, durability, ..Append::default() }, id)
    }

    fn write(&mut self) -> Write {
        let (topic, kind, _) = TOPICS[self.random.below(4) as usize];
        let partitions = self.model.topics[topic].partitions;
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
            let is_deleted = kind == TopicKind::Table && self.random.one_in(6);
            records.push(NewRecord { key, value: (!is_deleted).then(|| value.into()), ..NewRecord::default() });
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
        if self.random.one_in(4) {
            let mut versions: Vec<_> =
                (0..1 + self.random.below(3)).map(|_| StreamVersion::new(1 + self.random.below(newest + 1))).collect();
            versions.sort_unstable();
            versions.dedup();
            return Some(Write::Redact { topic, stream, versions, by: "somebody".into(), reason: "so".into() });
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
    pub fn query(&mut self) -> QueryAbsent {
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
}
