//! Streams that are truncated, deleted and tombstoned without end, so that what they let go is removed from the files all the time.
//!
//! Whatever removal does: streams stand where they stood, begin where they were told to begin, and have everything from there on.

use std::collections::BTreeMap;

use foldlog_proto::v1::{
    AppendRequest, AppendResponse, Event, Precondition, StreamChange, StreamInfo, StreamState, Write, precondition,
    stream_change::{Change, Delete, Tombstone},
    stream_state::{Absent, Expect},
};

use crate::{
    check::Verdict,
    given::{Given, Row},
    line::{Script, payload},
    random::Random,
};

/// The topic.
pub const TOPIC: &str = "lives";
/// Partitions.
pub const PARTITIONS: u32 = 1;
/// Streams at the same time; a tombstoned one has another in its place.
const STREAMS: u64 = 6;
/// Most events of an append.
const MOST: u64 = 6;

/// What is told of a stream, and its events as they were read.
pub type Told = (StreamInfo, Vec<Row>);

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Story {
    /// Version of its newest event.
    pub version: u64,
    /// What lies before this version is let go.
    pub first: u64,
    /// The version with which it began anew.
    pub anew: u64,
    /// Whether it was deleted, and nothing was appended since.
    pub is_deleted: bool,
    /// Whether it is over.
    pub is_tombstoned: bool,
}

impl Default for Story {
    fn default() -> Self {
        Self { version: 0, first: 1, anew: 1, is_deleted: false, is_tombstoned: false }
    }
}

impl Story {
    fn changes(&mut self, change: Change) {
        let behind = self.version + 1;
        match change {
            Change::TruncateBefore(version) => self.first = self.first.max(version),
            Change::Delete(_) => (self.first, self.anew, self.is_deleted) = (behind, behind, true),
            Change::Tombstone(_) => (self.first, self.anew, self.is_tombstoned) = (behind, behind, true),
            Change::DropSnapshots(_) | Change::Redact(_) => {}
        }
    }

    /// Whether the server tells the same.
    fn is(&self, info: &StreamInfo) -> bool {
        let version = (!self.is_tombstoned).then_some(self.version);
        let beginning = info.beginning.map(|beginning| (beginning.first_version, beginning.anew_version));
        (info.version, beginning) == (version, Some((self.first, self.anew)))
            && (info.deleted, info.tombstoned) == (self.is_deleted && !self.is_tombstoned, self.is_tombstoned)
    }
}

#[derive(Clone, Debug)]
enum What {
    Events(Vec<u64>),
    Change(Change),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Lives {
    /// Events that were acknowledged.
    pub given: Given,
    /// What was acknowledged to become of streams, by position.
    changes: BTreeMap<u64, (String, Change)>,
    now: BTreeMap<String, Story>,
    asked: Option<(String, What)>,
    numbers: u64,
    /// How often each stream was replaced.
    replaced: [u64; STREAMS as usize],
}

impl Script for Lives {
    fn next(&mut self, random: &mut Random) -> AppendRequest {
        let (slot, draw) = (random.below(STREAMS), random.below(40));
        let replaced = self.replaced.get_mut(usize::try_from(slot).unwrap_or(0));
        let generation = replaced.map_or(0, |replaced| {
            *replaced += u64::from(draw == 0);
            *replaced
        });
        let tombstones = draw == 0 && self.now.contains_key(&name(slot, generation - 1));
        let stream = name(slot, if tombstones { generation - 1 } else { generation });
        let story = self.now.get(&stream).copied().unwrap_or_default();
        let what = match draw {
            _ if tombstones => What::Change(Change::Tombstone(Tombstone {})),
            1..4 if story.version > 0 && !story.is_deleted => What::Change(Change::Delete(Delete {})),
            // What lets go of nothing more writes nothing.
            4..12 if story.version >= story.first => {
                let has = story.version + 1 - story.first;
                What::Change(Change::TruncateBefore(story.version + 1 - random.below(has.min(6))))
            }
            _ => {
                let count = 1 + random.below(MOST);
                self.numbers += count;
                What::Events((self.numbers - count..self.numbers).collect())
            }
        };
        self.asked = Some((stream.clone(), what.clone()));
        let expect = match story.version {
            0 => Expect::Absent(Absent {}),
            version => Expect::Version(version),
        };
        let state = StreamState { stream: stream.clone(), expect: Some(expect), ..StreamState::default() };
        let write = match what {
            What::Change(change) => Write { stream, change: Some(StreamChange { change: Some(change) }), ..Write::default() },
            What::Events(numbers) => {
                let event = |number| Event { r#type: "Lived".to_owned(), data: Some(payload(number)), ..Event::default() };
                Write { stream, events: numbers.into_iter().map(event).collect(), ..Write::default() }
            }
        };
        AppendRequest {
            topic: TOPIC.to_owned(),
            writes: vec![write],
            preconditions: vec![Precondition { kind: Some(precondition::Kind::Stream(state)) }],
            ..AppendRequest::default()
        }
    }

    fn acked(&mut self, answer: &AppendResponse) {
        let Some((name, what)) = self.asked.take() else { return };
        let story = self.now.entry(name.clone()).or_default();
        match what {
            What::Change(change) => {
                let first = self.given.place(answer, 1);
                story.changes(change.clone());
                self.changes.insert(first.position, (name, change));
            }
            What::Events(numbers) => {
                let first = self.given.place(answer, numbers.len() as u64);
                for (place, number) in (0..).zip(numbers) {
                    story.version += 1;
                    let (position, offset, version) = (first.position + place, first.offset + place, story.version);
                    self.given.put(Row { position, partition: first.partition, offset, name: name.clone(), version, number: Some(number) });
                }
                story.is_deleted = false;
            }
        }
    }
}

impl Lives {
    /// Where all streams stood at a position.
    pub fn stories(&self, end: u64) -> BTreeMap<String, Story> {
        let mut stories: BTreeMap<String, Story> = BTreeMap::new();
        let mut changes = self.changes.range(..end).peekable();
        for row in self.given.below(end) {
            while let Some((_, (name, change))) = changes.next_if(|(position, _)| **position < row.position) {
                stories.entry(name.clone()).or_default().changes(change.clone());
            }
            let story = stories.entry(row.name.clone()).or_default();
            (story.version, story.is_deleted) = (row.version, false);
        }
        for (_, (name, change)) in changes {
            stories.entry(name.clone()).or_default().changes(change.clone());
        }
        stories
    }

    /// Checks what was read of the topic, what is told of each stream and what was read of it, of a log that ends at a position.
    pub fn check(&self, read: &[Row], streams: &[Told], end: u64) -> Verdict {
        let stories = self.stories(end);
        let has = |row: &Row| stories.get(&row.name).is_some_and(|story| row.version >= story.first);
        let mut verdict = self.given.check(read, end, has);
        let by_stream = streams.iter().flat_map(|(info, rows)| rows.iter().map(move |row| (info, row)));
        for (info, row) in by_stream.filter(|(info, row)| row.name != info.stream || !has(row)) {
            verdict.repeated(format!("{row:?} is read of stream {}", info.stream));
        }
        let mut of_streams: Vec<Row> = streams.iter().flat_map(|(_, rows)| rows.iter().cloned()).collect();
        of_streams.sort_by_key(|row| row.position);
        verdict.add(self.given.check(&of_streams, end, has));
        for (name, story) in &stories {
            let told = streams.iter().map(|(info, _)| info).find(|info| info.stream == *name);
            if !told.is_some_and(|info| story.is(info)) {
                verdict.lost(format!("stream {name} stands at {story:?}, and this is told of it: {told:?}"));
            }
        }
        verdict
    }
}

fn name(slot: u64, generation: u64) -> String {
    format!("life-{slot}.{generation}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use foldlog_proto::v1::{AppendedRange, StreamBeginning};

    const ALL: u64 = 99;

    /// `cut` has four events and begins with the third, `gone` was deleted and has one again, `over` is tombstoned.
    fn sample() -> (Lives, Vec<Row>, Vec<Told>) {
        let mut lives = Lives::default();
        let mut next = 0;
        let mut says = |name: &str, what: What| {
            let count = if let What::Events(numbers) = &what { numbers.len() as u64 } else { 1 };
            let range = AppendedRange { first_offset: next, last_offset: next + count - 1, ..AppendedRange::default() };
            lives.asked = Some((name.to_owned(), what));
            let (first_position, last_position) = (next, next + count - 1);
            lives.acked(&AppendResponse { first_position, last_position, ranges: vec![range], ..AppendResponse::default() });
            next += count;
        };
        says("cut", What::Events(vec![0, 1, 2, 3]));
        says("gone", What::Events(vec![4, 5]));
        says("over", What::Events(vec![6]));
        says("cut", What::Change(Change::TruncateBefore(3)));
        says("gone", What::Change(Change::Delete(Delete {})));
        says("over", What::Change(Change::Tombstone(Tombstone {})));
        says("gone", What::Events(vec![7]));
        assert!(lives.given.take_verdict().is_clean());
        let read: Vec<Row> = lives.given.below(ALL).cloned().collect();
        let told = |stream: &str, version, first_version, anew_version, tombstoned| {
            let beginning = Some(StreamBeginning { first_version, anew_version, ..StreamBeginning::default() });
            let info = StreamInfo { stream: stream.to_owned(), version, beginning, tombstoned, ..StreamInfo::default() };
            (info, read.iter().filter(|row| row.name == stream && row.version >= first_version).cloned().collect())
        };
        let streams = vec![told("cut", Some(4), 3, 1, false), told("gone", Some(3), 3, 3, false), told("over", None, 2, 2, true)];
        (lives, read, streams)
    }

    #[test]
    fn what_was_let_go_may_be_in_the_topic_or_not() {
        let (lives, mut read, streams) = sample();
        assert_eq!(lives.check(&read, &streams, ALL), Verdict::default());
        read.retain(|row| (row.name == "cut" && row.version >= 3) || (row.name == "gone" && row.version == 3));
        assert_eq!((read.len(), lives.check(&read, &streams, ALL)), (3, Verdict::default()));
    }

    #[test]
    fn what_a_stream_still_has_and_is_gone_is_lost() {
        let (lives, mut read, mut streams) = sample();
        read.retain(|row| row.number != Some(3));
        assert_eq!(lives.check(&read, &streams, ALL).lost, 1);
        let (_, read, _) = sample();
        streams[0].1.pop();
        assert_eq!(lives.check(&read, &streams, ALL).lost, 1);
    }

    #[test]
    fn what_a_stream_let_go_and_is_read_of_it_is_objected_to() {
        let (lives, read, mut streams) = sample();
        streams[0].1.insert(0, read[1].clone());
        assert_eq!(lives.check(&read, &streams, ALL).repeated, 1);
    }

    #[test]
    fn a_stream_that_stands_elsewhere_is_objected_to() {
        let (lives, read, streams) = sample();
        for corrupt in [
            |info: &mut StreamInfo| info.version = Some(5),
            |info: &mut StreamInfo| {
                info.beginning = Some(StreamBeginning { first_version: 1, anew_version: 1, ..StreamBeginning::default() })
            },
            |info: &mut StreamInfo| info.deleted = true,
            |info: &mut StreamInfo| info.tombstoned = !info.tombstoned,
        ] {
            for place in 0..streams.len() {
                let mut streams = streams.clone();
                corrupt(&mut streams[place].0);
                assert!(!lives.check(&read, &streams, ALL).is_clean(), "{:?}", streams[place].0);
            }
        }
        assert_eq!(lives.check(&read, &streams[1..], ALL).lost, 3, "one that nobody tells of, with what it has");
    }

    #[test]
    fn streams_stood_elsewhere_before() {
        let (lives, ..) = sample();
        let before = lives.stories(8);
        assert_eq!((before["cut"].first, before["gone"].is_deleted, before["over"].is_tombstoned), (3, false, false));
        let then = lives.stories(9);
        assert_eq!((then["gone"].is_deleted, then["gone"].first), (true, 3));
    }
}
