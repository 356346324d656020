//! Reads by chance: any selection, direction, filter and size of bites, against the model's list.

use std::collections::BTreeSet;

use foldlog_log::{
    EmbeddedLog, LogBackend, LogError, LogReader, Offset, PartitionId, Position, ReadLimits, Selection, StreamVersion, Timestamp,
    TopicKind, TopicName,
};

use crate::{
    driver::Run,
    model::{GONE, Stored, TOPICS, matches},
};

impl Run {
    /// Asks for a snapshot.
    fn find(&mut self, log: &EmbeddedLog) {
        let (topic, stream) = (["a", "b"][self.random.below(2) as usize], format!("s{}", self.random.below(6)));
        let at_most = 1 + self.random.below(self.model.newest(topic, &stream) + 2);
        let found = log.snapshot(&topic.parse().unwrap(), &stream.parse().unwrap(), StreamVersion::new(at_most)).unwrap();
        let found = found.map(|found| (found.snapshot.version.get(), String::from_utf8(found.snapshot.data.to_vec()).unwrap()));
        let known = self.model.snapshots.get(&(topic.to_owned(), stream.clone()));
        // Retention leaves the newest, and what does not lie before it and where the partition begins.
        let from = known.and_then(|known| known.last_key_value()).map_or(0, |(_, (_, newest))| self.first_of(topic).min(*newest));
        let expected = known.and_then(|known| known.range(..=at_most).rfind(|(_, (_, offset))| *offset >= from));
        let expected = expected.map(|(version, (data, _))| (*version, data.clone()));
        assert_eq!(found, expected, "{stream} of {topic} as of {at_most}");
        self.seen.snapshots += u64::from(found.is_some());
    }

    /// Where a topic of events begins.
    fn first_of(&self, topic: &str) -> u64 {
        if topic == "b" { self.first_event } else { 0 }
    }

    /// How many records of `t` compaction has left out.
    pub fn look_at_compaction(&mut self, log: &EmbeddedLog) {
        for partition in 0..2 {
            let selection = Selection::Partition("t".parse().unwrap(), PartitionId::new(partition), Offset::new(0));
            let left = read_all(log.reader(selection).unwrap(), log.head().position, ReadLimits::default(), false);
            self.seen.compacted += self.model.end("t", partition) - left.len() as u64;
        }
    }

    /// Whether a record must be there still, whatever was removed and compacted.
    pub fn is_left(&self, record: &Stored, newest_of_keys: &BTreeSet<u64>) -> bool {
        match record.topic.as_str() {
            "r" => record.offset >= self.firsts[record.partition as usize],
            "t" => newest_of_keys.contains(&record.position),
            topic => record.version >= self.model.life(topic, record.key.as_deref().unwrap()).first,
        }
    }

    /// How many events of `a` and `b` are there no more, of those that their streams let go.
    pub fn look_at_what_was_let_go(&mut self, log: &EmbeddedLog) {
        let selection = Selection::Topics(vec!["a".parse().unwrap(), "b".parse().unwrap()], Position::default());
        let left = read_all(log.reader(selection).unwrap(), log.head().position, ReadLimits::default(), false);
        let given = self.model.records.iter().filter(|record| ["a", "b"].contains(&record.topic.as_str()) && !record.is_mark);
        self.seen.let_go += given.count() as u64 - left.len() as u64;
    }

    pub fn read(&mut self, log: &EmbeddedLog) {
        for _ in 0..4 {
            self.find(log);
        }
        let (topic, kind, _) = TOPICS[self.random.below(4) as usize];
        let name: TopicName = topic.parse().unwrap();
        let query = if self.random.one_in(2) { Some(self.query().query) } else { None };
        let end = log.head().position;
        // What is selected, and each record's own number in it.
        type Number = fn(&Stored) -> u64;
        let records = self.model.records.iter().filter(|record| !record.is_mark && record.topic != GONE);
        let (selection, mut expected, number): (_, Vec<&Stored>, Number) = match self.random.below(4) {
            0 if kind == TopicKind::Events => {
                let (stream, from) = (format!("s{}", self.random.below(6)), 1 + self.random.below(10));
                let first = self.model.life(topic, &stream).first;
                let is_left = |record: &&Stored| record.topic == topic && record.key.as_ref() == Some(&stream) && record.version >= first;
                let mine = records.filter(is_left);
                (Selection::Stream(name, stream.parse().unwrap(), StreamVersion::new(from)), mine.collect(), |record| record.version)
            }
            0 | 1 => {
                let partition = self.random.below(u64::from(self.model.topics[topic].partitions)) as u32;
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
        if let Selection::Partition(_, partition, place) = &selection {
            let begins = if topic == "r" { self.firsts[partition.get() as usize] } else { self.first_of(topic) };
            if place.get() < begins {
                let Err(LogError::OffsetOutOfRange { first, .. }) = found else { panic!("{selection:?} was removed") };
                assert_eq!(first.get(), begins);
                self.seen.below += 1;
                return;
            }
        }
        let found = read_all(found.unwrap(), end, limits, backwards);
        assert!(found.iter().all(|record| record.offset >= self.first_of(&record.topic)), "retention has let go of some of {found:?}");
        let way = if backwards { "backwards" } else { "forwards" };
        // Of what was removed or replaced some may still be in memory, or there, and is as it was.
        let newest = self.model.newest_of_keys();
        let is_left = |record: &&Stored| self.is_left(record, &newest);
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
pub fn read_all(mut reader: Box<dyn LogReader>, until: Position, limits: ReadLimits, backwards: bool) -> Vec<Stored> {
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
                    value: record.value.map(text),
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
