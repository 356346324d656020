//! Under which keys an event is posted, and which keys a query asks for.
//!
//! Appenders post on their callers' threads, a start again from stored records; both must post the same. A key is a
//! hash of 128 bits, keyed with the folder's id, and is taken for what it stands for, as that of a stream is. Format:
//! `log/FORMAT.md`, "Postings".

use crate::{
    error::LogError,
    ids::TopicId,
    record::{EventQuery, Run},
    segment::StreamHasher,
    topic::TopicKind,
};

/// Events that follow each other in position and are posted under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Posting {
    pub(crate) key: u128,
    /// Position of the first; of a write that has no place yet, counted from its first event.
    pub(crate) first: u64,
    pub(crate) count: u32,
}

impl Posting {
    /// Position after the last (exclusive).
    pub(crate) const fn end(&self) -> u64 {
        self.first.saturating_add(self.count as u64)
    }

    /// Takes up `next` if it follows under the same key.
    pub(super) fn join(&mut self, next: &Self) -> bool {
        let count = self.count.checked_add(next.count).filter(|_| self.key == next.key && self.end() == next.first);
        count.map(|count| self.count = count).is_some()
    }
}

/// Makes keys of one topic.
struct Keys<'a> {
    hasher: &'a StreamHasher,
    topic: TopicId,
    bytes: Vec<u8>,
}

impl<'a> Keys<'a> {
    const fn new(hasher: &'a StreamHasher, topic: TopicId) -> Self {
        Self { hasher, topic, bytes: Vec::new() }
    }

    fn key(&mut self, what: u8, parts: &[&[u8]]) -> u128 {
        self.bytes.clear();
        self.bytes.push(what);
        self.bytes.extend_from_slice(self.topic.as_bytes());
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.hasher.hash(&self.bytes)
    }

    /// Every event of the topic.
    fn all(&mut self) -> u128 {
        self.key(0, &[])
    }

    fn of_type(&mut self, kind: &str) -> u128 {
        self.key(1, &[kind.as_bytes()])
    }

    fn of_tag(&mut self, tag: &str) -> u128 {
        self.key(2, &[tag.as_bytes()])
    }

    fn of_both(&mut self, kind: &str, tag: &str) -> u128 {
        // A type has at most 255 bytes, so its length keeps pairs apart.
        let length = [u8::try_from(kind.len()).unwrap_or(u8::MAX)];
        self.key(3, &[&length, kind.as_bytes(), tag.as_bytes()])
    }
}

/// Posts events of one topic, in order of position.
pub(crate) struct Poster<'a> {
    keys: Keys<'a>,
    all: Posting,
    kind: String,
    of_kind: Posting,
    done: Vec<Posting>,
}

impl<'a> Poster<'a> {
    pub(crate) fn new(hasher: &'a StreamHasher, topic: TopicId) -> Self {
        let mut keys = Keys::new(hasher, topic);
        let all = Posting { key: keys.all(), first: 0, count: 0 };
        Self { keys, all, kind: String::new(), of_kind: Posting { key: 0, first: 0, count: 0 }, done: Vec::new() }
    }

    /// Posts the event at `position`.
    pub(crate) fn post<'t>(&mut self, position: u64, kind: &str, tags: impl Iterator<Item = &'t str>) {
        let one = |key| Posting { key, first: position, count: 1 };
        if self.kind != kind || self.of_kind.count == 0 {
            self.done.extend((self.of_kind.count > 0).then_some(self.of_kind));
            kind.clone_into(&mut self.kind);
            self.of_kind = Posting { key: self.keys.of_type(kind), first: position, count: 0 };
        }
        for span in [&mut self.all, &mut self.of_kind] {
            if span.count == 0 {
                span.first = position;
            }
            if !span.join(&one(span.key)) {
                self.done.push(std::mem::replace(span, one(span.key)));
            }
        }
        for tag in tags {
            let (of_tag, of_both) = (self.keys.of_tag(tag), self.keys.of_both(kind, tag));
            self.done.extend([one(of_tag), one(of_both)]);
        }
    }

    /// All that was posted; of one key in order of position.
    pub(crate) fn finish(mut self) -> Vec<Posting> {
        self.done.extend([self.all, self.of_kind].into_iter().filter(|posting| posting.count > 0));
        self.done
    }
}

/// Posts the events among stored records.
///
/// # Errors
/// [`LogError::Corrupt`] where a record cannot be read.
pub(super) fn postings_of(run: &Run, hasher: &StreamHasher) -> Result<Vec<Posting>, LogError> {
    if run.topic.settings.kind != TopicKind::Events {
        return Ok(Vec::new());
    }
    let mut poster = Poster::new(hasher, run.topic.id);
    for record in run.records() {
        let record = record?;
        if let Some(event) = record.posted() {
            poster.post(record.position.get(), event.kind, event.tags());
        }
    }
    Ok(poster.finish())
}

/// Keys of which an event must be posted under every one.
pub(crate) type Term = Box<[u128]>;

/// Under what every event is posted that has a type and all of some tags.
pub(crate) fn term_of<'t>(topic: TopicId, hasher: &StreamHasher, kind: &str, tags: impl Iterator<Item = &'t str>) -> Term {
    let mut keys = Keys::new(hasher, topic);
    let term: Term = tags.map(|tag| keys.of_both(kind, tag)).collect();
    if term.is_empty() { Term::from([keys.of_type(kind)]) } else { term }
}

/// Adds what a query asks of one topic: an event matches if it matches any term.
pub(crate) fn add_terms(query: &EventQuery, topic: TopicId, hasher: &StreamHasher, terms: &mut Vec<Term>) {
    let mut keys = Keys::new(hasher, topic);
    let EventQuery::Items(items) = query else { return terms.push(Box::new([keys.all()])) };
    for item in items {
        match (item.types.as_slice(), item.tags.as_slice()) {
            ([], []) => terms.push(Box::new([keys.all()])),
            ([], tags) => terms.push(tags.iter().map(|tag| keys.of_tag(tag.as_str())).collect()),
            (types, []) => terms.extend(types.iter().map(|kind| Term::from([keys.of_type(kind)]))),
            (types, tags) => {
                terms.extend(types.iter().map(|kind| tags.iter().map(|tag| keys.of_both(kind, tag.as_str())).collect::<Term>()))
            }
        }
    }
}
