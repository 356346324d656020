//! The folder's window of requests: who asked for what under which id or sequence, and the answer that a repeat gets.
//!
//! Admission asks and remembers, frames carry the entries, tidy folds them into a file that recovery reads back. Invariant:
//! between the low mark and the end every request that had an id is known. Format: `log/FORMAT.md`, "Window of requests".

use std::{collections::VecDeque, str::FromStr, sync::Arc};

use hashbrown::HashMap;

use crate::{
    codec::{Fields, Put},
    durability::Durability,
    error::LogError,
    ids::{Offset, PartitionId, Position, RequestId, StreamId, StreamVersion, Timestamp, TopicId, TopicName},
    inspect::Part,
    producers::{self, Producers},
    record::{Appended, AppendedRange, Identity, RequestKey, StreamAt},
};

/// Answers that take more are remembered without their ranges and versions.
const MAX_ANSWER: usize = 4096;

/// What a request became.
#[derive(Debug)]
struct Entry {
    digest: u128,
    first: Position,
    end: Position,
    recorded_at: Timestamp,
    /// Ranges and versions, encoded.
    answer: Box<[u8]>,
}

impl Entry {
    fn bytes(&self, key: &RequestKey) -> u64 {
        (self.answer.len() + key.principal.len() + 160) as u64
    }
}

/// What the window says to a request with an id.
#[derive(Debug)]
pub(crate) enum Seen {
    /// Never, as far as the window reaches.
    New,
    /// The same request, answered before.
    Repeat(Appended),
    /// It must be refused.
    Refused(LogError),
}

/// The window. Owned by the committer; recovery fills it.
#[derive(Debug)]
pub(crate) struct Window {
    entries: HashMap<RequestKey, Entry>,
    order: VecDeque<RequestKey>,
    bytes: u64,
    max_requests: usize,
    max_bytes: u64,
    /// Requests that ended below may have been forgotten.
    low_mark: Position,
    /// Who appends in numbered order.
    pub(crate) producers: Producers,
}

impl Window {
    pub(crate) fn new(max_requests: usize, max_bytes: u64) -> Self {
        let (entries, order, low_mark) = (HashMap::new(), VecDeque::new(), Position::default());
        Self { entries, order, bytes: 0, max_requests, max_bytes, low_mark, producers: Producers::default() }
    }

    /// What is known of a request. `topic` finds a topic's name by id.
    pub(crate) fn look_up(&self, identity: &Identity, topic: impl Fn(TopicId) -> Option<TopicName>) -> Seen {
        let Some(entry) = self.entries.get(&identity.key) else {
            return match identity.first_attempt {
                Some(first) if first < self.low_mark => {
                    Seen::Refused(LogError::OutOfWindow { id: identity.key.id, low_mark: self.low_mark })
                }
                _ => Seen::New,
            };
        };
        if entry.digest != identity.digest {
            return Seen::Refused(LogError::RequestIdReused { id: identity.key.id, first: entry.first });
        }
        let (ranges, versions) = decode_answer(Fields(&entry.answer), topic).unwrap_or_default();
        Seen::Repeat(Appended {
            first: entry.first,
            end: entry.end,
            ranges,
            versions,
            recorded_at: entry.recorded_at,
            deduplicated: true,
            // It leaves only when everything before it is.
            durability: Durability::Synced,
        })
    }

    /// Remembers a request's answer; returns what the frame must carry. `topic` finds a topic's id by name.
    pub(crate) fn remember(&mut self, identity: &Identity, answer: &Appended, topic: impl Fn(&TopicName) -> Option<TopicId>) -> Vec<u8> {
        let encoded = encode_answer(answer, topic);
        let entry = Entry {
            digest: identity.digest,
            first: answer.first,
            end: answer.end,
            recorded_at: answer.recorded_at,
            answer: encoded.into_boxed_slice(),
        };
        let bytes = encode(&identity.key, &entry);
        self.insert(identity.key.clone(), entry);
        bytes
    }

    /// Takes in entries as a frame or the window file carries them.
    ///
    /// Returns `None` when they cannot be read; their checksum was right, so this is damage from within.
    #[must_use]
    pub(crate) fn restore(&mut self, encoded: &[u8]) -> Option<()> {
        let mut rest = encoded;
        while !rest.is_empty() {
            let (entry, behind) = next_entry(rest)?;
            match entry {
                AnyEntry::Producer(entry) => self.producers.take_in(&entry),
                AnyEntry::Request(_, key, entry) => self.insert(key, entry),
            }
            rest = behind;
        }
        Some(())
    }

    /// Sets where the window begins when it was read back.
    pub(crate) fn set_low_mark(&mut self, low_mark: Position) {
        self.low_mark = self.low_mark.max(low_mark);
    }

    pub(crate) fn low_mark(&self) -> Position {
        self.low_mark
    }

    /// How many requests are remembered.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes that all entries take when encoded, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes + self.producers.bytes()
    }

    fn insert(&mut self, key: RequestKey, entry: Entry) {
        self.bytes += entry.bytes(&key);
        if let Some(old) = self.entries.insert(key.clone(), entry) {
            self.bytes -= old.bytes(&key);
        } else {
            self.order.push_back(key);
        }
        while self.order.len() > self.max_requests || self.bytes > self.max_bytes {
            let Some(oldest) = self.order.pop_front() else { return };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.bytes -= entry.bytes(&oldest);
                self.low_mark = self.low_mark.max(entry.end);
            }
        }
    }
}

/// An entry of the window, of either kind.
enum AnyEntry<'a> {
    /// As it is encoded, and what it says.
    Request(&'a [u8], RequestKey, Entry),
    Producer(producers::Entry),
}

/// The first of encoded entries, and what follows; none at the end, or if it cannot be read.
fn next_entry(encoded: &[u8]) -> Option<(AnyEntry<'_>, &[u8])> {
    let length = usize::try_from(Fields(encoded).u32()?).ok()?;
    let (first, behind) = encoded.split_at_checked(length.checked_add(4)?)?;
    let mut body = Fields(first.get(4..)?);
    if is_of_producer(first) {
        body.u16()?;
        return Some((AnyEntry::Producer(producers::Entry::decode(body)?), behind));
    }
    let (key, entry) = decode(body)?;
    Some((AnyEntry::Request(first, key, entry), behind))
}

fn is_of_producer(entry: &[u8]) -> bool {
    entry.get(4..6) == Some(&producers::MARK.to_le_bytes())
}

/// Whether producers are among encoded entries: then format 1 will not do.
pub(crate) fn has_producers(encoded: &[u8]) -> bool {
    let mut rest = encoded;
    while let Some(length) = Fields(rest).u32().and_then(|length| usize::try_from(length).ok()) {
        if is_of_producer(rest) {
            return true;
        }
        rest = rest.get(4 + length..).unwrap_or_default();
    }
    false
}

/// Of encoded entries, those that a window which begins at `low_mark` may still hold, and where producers stand after all of them.
pub(crate) fn still_held(encoded: &[u8], low_mark: Position) -> Vec<u8> {
    let (mut held, mut producers) = (Vec::new(), Producers::default());
    let mut rest = encoded;
    while let Some((entry, behind)) = next_entry(rest) {
        match entry {
            AnyEntry::Producer(entry) => producers.take_in(&entry),
            AnyEntry::Request(bytes, _, entry) if entry.end >= low_mark => held.extend_from_slice(bytes),
            AnyEntry::Request(..) => {}
        }
        rest = behind;
    }
    for entry in producers.entries() {
        entry.encode(&mut held);
    }
    held
}

/// Of encoded entries, those of what was recorded at a time or before; none if one cannot be read.
pub(crate) fn recorded_by(encoded: &[u8], until: Timestamp) -> Option<Vec<u8>> {
    let (mut left, mut rest) = (Vec::new(), encoded);
    while !rest.is_empty() {
        let (entry, behind) = next_entry(rest)?;
        let time = match entry {
            AnyEntry::Producer(entry) => entry.time,
            AnyEntry::Request(_, _, entry) => entry.recorded_at,
        };
        if time <= until {
            left.extend_from_slice(rest.get(..rest.len() - behind.len())?);
        }
        rest = behind;
    }
    Some(left)
}

/// Tells the first of encoded entries, the last byte of which lies before byte `end` of a file, and what follows it; none if it cannot
/// be read.
pub(crate) fn tell_entry(encoded: &[u8], end: u64) -> Option<(Part, &[u8])> {
    let (entry, behind) = next_entry(encoded)?;
    let part = Part::new("entry", end - encoded.len() as u64, end - behind.len() as u64);
    let part = match entry {
        AnyEntry::Producer(entry) => entry.tell(part),
        AnyEntry::Request(_, key, entry) => part
            .with("request", key.id.to_string())
            .with("principal", &*key.principal)
            .with("position", entry.first)
            .with("position_end", entry.end)
            .with("recorded_at", entry.recorded_at),
    };
    Some((part, behind))
}

fn encode(key: &RequestKey, entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(80 + key.principal.len() + entry.answer.len());
    out.put_u32(0);
    out.put_text(&key.principal);
    out.put(key.id.as_bytes());
    out.put_u128(entry.digest);
    out.put_u64(entry.first.get());
    out.put_u64(entry.end.get());
    out.put_i64(entry.recorded_at.get());
    out.put(&entry.answer);
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_le_bytes());
    out
}

fn decode(mut from: Fields<'_>) -> Option<(RequestKey, Entry)> {
    let key = RequestKey { principal: Arc::from(from.text()?), id: RequestId::new(from.bytes16()?) };
    let digest = from.u128()?;
    let (first, end) = (Position::new(from.u64()?), Position::new(from.u64()?));
    let recorded_at = Timestamp::new(from.i64()?);
    decode_answer(from, |_| None)?;
    Some((key, Entry { digest, first, end, recorded_at, answer: from.0.into() }))
}

fn encode_answer(answer: &Appended, topic: impl Fn(&TopicName) -> Option<TopicId>) -> Vec<u8> {
    let id = |name: &TopicName| *topic(name).unwrap_or(TopicId::new([0; 16])).as_bytes();
    let mut out = Vec::new();
    out.put_len(answer.ranges.len());
    for range in &answer.ranges {
        out.put(&id(&range.topic));
        out.put_u32(range.partition.get());
        out.put_u64(range.first.get());
        out.put_u64(range.last.get());
    }
    out.put_len(answer.versions.len());
    for version in &answer.versions {
        out.put(&id(&version.topic));
        out.put_text(version.stream.as_str());
        out.put_u64(version.version.get());
    }
    if out.len() > MAX_ANSWER {
        out.clear();
        out.put_u64(0);
    }
    out
}

type Answer = (Vec<AppendedRange>, Vec<StreamAt>);

/// Reads ranges and versions; those of topics that are not known are left out.
fn decode_answer(mut from: Fields<'_>, topic: impl Fn(TopicId) -> Option<TopicName>) -> Option<Answer> {
    let (mut ranges, mut versions) = (Vec::new(), Vec::new());
    for _ in 0..from.count(36)? {
        let (id, partition) = (from.topic_id()?, PartitionId::new(from.u32()?));
        let (first, last) = (Offset::new(from.u64()?), Offset::new(from.u64()?));
        if let Some(topic) = topic(id) {
            ranges.push(AppendedRange { topic, partition, first, last });
        }
    }
    for _ in 0..from.count(26)? {
        let (id, stream) = (from.topic_id()?, StreamId::from_str(from.text()?).ok()?);
        let version = StreamVersion::new(from.u64()?);
        if let Some(topic) = topic(id) {
            versions.push(StreamAt { topic, stream, version });
        }
    }
    from.0.is_empty().then_some((ranges, versions))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(id: u8, digest: u128) -> Identity {
        let key = RequestKey { principal: "p".into(), id: RequestId::new([id; 16]) };
        Identity { key, digest, first_attempt: None }
    }

    fn answer(at: u64) -> Appended {
        let topic: TopicName = "t".parse().unwrap();
        Appended {
            first: Position::new(at),
            end: Position::new(at + 1),
            ranges: vec![AppendedRange {
                topic: topic.clone(),
                partition: PartitionId::new(2),
                first: Offset::new(at),
                last: Offset::new(at),
            }],
            versions: vec![StreamAt { topic, stream: "s".parse().unwrap(), version: StreamVersion::new(3) }],
            recorded_at: Timestamp::new(5),
            deduplicated: false,
            durability: Durability::Synced,
        }
    }

    fn id_of(_: &TopicName) -> Option<TopicId> {
        Some(TopicId::new([9; 16]))
    }

    fn name_of(_: TopicId) -> Option<TopicName> {
        "t".parse().ok()
    }

    #[test]
    fn a_repeat_gets_its_first_answer_also_after_a_restore() {
        let mut window = Window::new(10, 1 << 20);
        let carried = window.remember(&identity(1, 7), &answer(4), id_of);
        let mut restored = Window::new(10, 1 << 20);
        restored.restore(&carried).unwrap();
        for window in [&window, &restored] {
            let Seen::Repeat(repeat) = window.look_up(&identity(1, 7), name_of) else { panic!("not seen") };
            assert_eq!(repeat, Appended { deduplicated: true, ..answer(4) });
            assert!(matches!(window.look_up(&identity(1, 8), name_of), Seen::Refused(LogError::RequestIdReused { .. })));
            assert!(matches!(window.look_up(&identity(2, 7), name_of), Seen::New));
        }
        assert_eq!((still_held(&carried, Position::new(5)), still_held(&carried, Position::new(6))), (carried.clone(), Vec::new()));
        assert!(!has_producers(&carried));
    }

    #[test]
    fn what_left_the_window_is_refused_if_it_says_that_it_is_old() {
        let mut window = Window::new(1, 1 << 20);
        window.remember(&identity(1, 7), &answer(4), id_of);
        window.remember(&identity(2, 7), &answer(5), id_of);
        assert!(matches!(window.look_up(&identity(1, 7), name_of), Seen::New));
        let old = Identity { first_attempt: Some(Position::new(4)), ..identity(1, 7) };
        let Seen::Refused(LogError::OutOfWindow { low_mark, .. }) = window.look_up(&old, name_of) else { panic!("not refused") };
        assert_eq!(low_mark, Position::new(5));
    }

    #[test]
    fn cut_entries_are_refused_and_never_panic() {
        let carried = Window::new(10, 1 << 20).remember(&identity(1, 7), &answer(4), id_of);
        for length in 1..carried.len() {
            assert!(Window::new(10, 1 << 20).restore(&carried[..length]).is_none(), "cut to {length}");
        }
    }
}
