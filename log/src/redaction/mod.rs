//! Redaction: the data of an event goes, and its place, version, type and tags stay.
//!
//! A mark in the stream's own partition says so ([`crate::life`]). From then on readers show the event as a blank ([`Redactions::show`]), wherever
//! they have it from; [`eraser`] has its bytes removed, and a mark of the partition says when they are. Both marks are in the key
//! indexes, so that a start knows what is left to be done. Invariant: what was redacted is shown by nobody, before and after its bytes are gone.

mod eraser;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::{
    batch::{BatchHeader, HEADER_LEN, Kept, corrupt, find, retain},
    engine::Engine,
    error::LogError,
    ids::{Offset, PartitionId, StreamVersion, Timestamp, TopicId},
    life::{Blank, Life, Marking, NO_STREAM, RedactionAt},
    partition::{
        group::Group,
        request::{PreparedWrite, Request},
        streams::{StreamKey, StreamMark},
    },
    record::Run,
    segment::Start,
    topic_store::Partition,
};

pub(crate) use eraser::Eraser;

/// Most events of a folder whose bytes may wait to be removed: about 100 bytes of memory each.
const MOST_EVENTS: usize = 200_000;
/// Events of a stream looked up at once.
const EVENTS: usize = 1024;

/// What is left to be done of redactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redacting {
    /// Events that are shown without data and whose bytes are not all gone.
    pub events: u64,
    /// The server's time of the oldest redaction of which bytes are left; none: all is done.
    pub since: Option<Timestamp>,
    /// What it waits for.
    pub waits_for: Option<&'static str>,
}

impl Redacting {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            since: self.since.into_iter().chain(other.since).min(),
            waits_for: self.waits_for.or(other.waits_for),
        }
    }
}

/// Redactions of a folder of which bytes are left.
#[derive(Debug)]
pub(crate) struct Redactions {
    /// Whether there are any: mostly there are none, and then no reader asks.
    any: AtomicBool,
    /// How many were added so far.
    added: AtomicU64,
    pending: RwLock<BTreeMap<Place, Pending>>,
    /// How many times some were completed.
    completed: watch::Sender<u64>,
}

impl Default for Redactions {
    fn default() -> Self {
        Self { any: AtomicBool::default(), added: AtomicU64::default(), pending: RwLock::default(), completed: watch::Sender::new(0) }
    }
}

/// A partition, by its topic and number.
type Place = (TopicId, PartitionId);

/// Those of one partition.
#[derive(Debug)]
struct Pending {
    partition: Arc<Partition>,
    /// Where the events lie, with the stream and the newest mark of each.
    events: BTreeMap<Offset, (StreamKey, Offset)>,
    streams: BTreeMap<StreamKey, OfStream>,
    /// Frames up to this one may hold what was redacted.
    frame: u64,
    waits_for: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
struct OfStream {
    /// Its oldest and its newest mark.
    first: Offset,
    mark: Offset,
    /// When its oldest one was made.
    since: Timestamp,
}

/// A redaction that was made.
struct Made {
    stream: StreamKey,
    /// None: nothing is left of the event.
    event: Option<Offset>,
    mark: Offset,
    at: Timestamp,
    frame: u64,
}

impl Redactions {
    fn add(&self, partition: &Arc<Partition>, made: &Made) {
        let mut pending = self.pending.write();
        let of = pending.entry((partition.topic.id, partition.id)).or_insert_with(|| Pending {
            partition: Arc::clone(partition),
            events: BTreeMap::new(),
            streams: BTreeMap::new(),
            frame: 0,
            waits_for: None,
        });
        of.frame = of.frame.max(made.frame);
        let stream = of.streams.entry(made.stream).or_insert(OfStream { first: made.mark, mark: made.mark, since: made.at });
        (stream.first, stream.mark) = (stream.first.min(made.mark), stream.mark.max(made.mark));
        stream.since = stream.since.min(made.at);
        if let Some(event) = made.event {
            let (_, mark) = of.events.entry(event).or_insert((made.stream, made.mark));
            *mark = (*mark).max(made.mark);
        }
        self.added.fetch_add(1, Ordering::Release);
        self.any.store(true, Ordering::Release);
    }

    /// Bytes of everything that marks of a partition before an offset are about are gone.
    fn complete(&self, place: Place, to: Offset) {
        let mut pending = self.pending.write();
        if let Some(of) = pending.get_mut(&place) {
            of.events.retain(|_, (_, mark)| *mark >= to);
            of.streams.retain(|_, stream| stream.mark >= to);
            of.streams.values_mut().for_each(|stream| stream.first = stream.first.max(to));
            if of.streams.is_empty() {
                pending.remove(&place);
            }
        }
        self.any.store(!pending.is_empty(), Ordering::Release);
        drop(pending);
        self.completed.send_modify(|completed| *completed += 1);
    }

    /// Refuses more redactions than can be remembered.
    ///
    /// # Errors
    /// [`LogError::Overloaded`].
    pub(crate) fn has_room(&self, more: usize) -> Result<(), LogError> {
        let waiting: usize = self.pending.read().values().map(|of| of.events.len()).sum();
        if waiting + more <= MOST_EVENTS {
            return Ok(());
        }
        Err(LogError::Overloaded { what: "bytes of too many redacted events wait to be removed" })
    }

    /// Wakes whenever some were completed.
    pub(crate) fn completed(&self) -> watch::Receiver<u64> {
        self.completed.subscribe()
    }

    /// What is left to be done in a partition, or of one of its streams.
    pub(crate) fn of(&self, partition: &Partition, stream: Option<&StreamKey>) -> Redacting {
        let pending = self.pending.read();
        let Some(of) = pending.get(&(partition.topic.id, partition.id)) else { return Redacting::default() };
        let is_meant = |key: &StreamKey| stream.is_none_or(|stream| stream == key);
        let since = of.streams.iter().filter(|(key, _)| is_meant(key)).map(|(_, stream)| stream.since).min();
        let events = of.events.values().filter(|(key, _)| is_meant(key)).count() as u64;
        Redacting { events, since, waits_for: since.and(of.waits_for) }
    }

    /// What is left to be done in the folder.
    pub(crate) fn all(&self) -> Redacting {
        let pending = self.pending.read();
        let since = pending.values().flat_map(|of| of.streams.values()).map(|stream| stream.since).min();
        let events = pending.values().map(|of| of.events.len() as u64).sum();
        Redacting { events, since, waits_for: None }
    }

    /// Redacted events of a partition from an offset (inclusive) to another (exclusive).
    fn between(&self, place: Place, from: Offset, end: Offset) -> Vec<Offset> {
        let pending = self.pending.read();
        pending.get(&place).map_or_else(Vec::new, |of| of.events.range(from..end).map(|(offset, _)| *offset).collect())
    }
}

/// Shows runs as they are to be read. Remembers the batch that it made last, which further runs may lie in.
#[derive(Debug)]
pub(crate) struct Show {
    redactions: Arc<Redactions>,
    last: Option<Shown>,
}

/// A batch and what is shown in its place, once so many redactions were added.
#[derive(Debug)]
struct Shown {
    batch: Bytes,
    blanked: Bytes,
    added: u64,
}

impl Show {
    pub(crate) const fn new(redactions: Arc<Redactions>) -> Self {
        Self { redactions, last: None }
    }

    /// A run with blanks for those of its events that are redacted, from wherever it was read.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] where its batch cannot be followed.
    pub(crate) fn show(&mut self, run: Run) -> Result<Run, LogError> {
        if !self.redactions.any.load(Ordering::Acquire) {
            return Ok(run);
        }
        let place = (run.topic.id, run.partition);
        let added = self.redactions.added.load(Ordering::Acquire);
        if self.redactions.between(place, run.first_offset, run.first_offset.plus(run.count.into())).is_empty() {
            return Ok(run);
        }
        let is_its = |shown: &&Shown| shown.added == added && shown.batch.as_ptr() == run.batch.as_ptr();
        if let Some(shown) = self.last.as_ref().filter(is_its) {
            return within(&run, shown.blanked.clone());
        }
        let whole = BatchHeader::parse(&run.batch).map_err(|flaw| corrupt(&run, flaw))?;
        let redacted = self.redactions.between(place, whole.base_offset, whole.end_offset());
        let shown = blanked(&run, |offset| redacted.binary_search(&offset).is_ok())?;
        self.last = Some(Shown { batch: run.batch, blanked: shown.batch.clone(), added });
        Ok(shown)
    }
}

/// A run of events with blanks for some of them.
///
/// # Errors
/// [`LogError::Corrupt`] where its batch cannot be followed.
pub(crate) fn blanked(run: &Run, is_redacted: impl Fn(Offset) -> bool) -> Result<Run, LogError> {
    let kept = retain(&run.batch, None, |record| match is_redacted(record.offset) && record.mark().is_none() {
        true => Kept::Blank(Blank::Redacted),
        false => Kept::Whole,
    });
    let batch = kept.map_err(|flaw| corrupt(run, flaw))?.map_or_else(|| run.batch.clone(), Bytes::from);
    within(run, batch)
}

/// A run in another batch that has its records.
fn within(run: &Run, batch: Bytes) -> Result<Run, LogError> {
    let start = u32::try_from(HEADER_LEN).ok().map(|from| find(&batch, from, run.first_offset)).transpose();
    let start = start.map_err(|flaw| corrupt(run, flaw))?.unwrap_or(run.start);
    Ok(Run { batch, start, ..run.clone() })
}

impl Engine {
    /// Finds the events that a request redacts and has the log refuse builds that would show them, before it is in line. Blocking.
    ///
    /// # Errors
    /// [`LogError::Overloaded`], [`LogError::Corrupt`], [`LogError::Io`].
    pub(crate) fn find_redacted(&self, request: &mut Request) -> Result<(), LogError> {
        let redacted = |write: &PreparedWrite| match (&write.stream, write.marking) {
            (Some(stream), Some(Marking::Redaction(version))) => Some((stream.key, version)),
            _ => None,
        };
        let all: Vec<_> = request.writes.iter().filter_map(redacted).collect();
        if all.is_empty() {
            return Ok(());
        }
        self.redactions.has_room(all.len())?;
        let mut known: BTreeMap<StreamKey, BTreeMap<StreamVersion, Offset>> = BTreeMap::new();
        for write in &mut request.writes {
            let Some((key, version)) = redacted(write) else { continue };
            self.admit_redactions(&write.partition.topic.name)?;
            let of_stream = match known.entry(key) {
                Entry::Occupied(of_stream) => of_stream.into_mut(),
                Entry::Vacant(place) => {
                    let versions: Vec<_> = all.iter().filter(|(of, _)| *of == key).map(|(_, version)| *version).collect();
                    place.insert(self.places_of(&write.partition, &key, &versions)?)
                }
            };
            write.event = of_stream.get(&version).copied();
        }
        Ok(())
    }

    /// Where events of a stream lie that have become durable; none for versions that do not exist or of which nothing is left. May read
    /// key indexes (blocking).
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub(crate) fn places_of(
        &self,
        partition: &Partition,
        key: &StreamKey,
        versions: &[StreamVersion],
    ) -> Result<BTreeMap<StreamVersion, Offset>, LogError> {
        let mut known = BTreeMap::new();
        let mut wanted = versions.to_vec();
        wanted.sort_unstable();
        for version in wanted {
            if known.contains_key(&version) {
                continue;
            }
            // Memory comes first: what segments take over meanwhile is found there then.
            if let Some(span) = self.streams.recent(key, version, 1).first().filter(|span| span.first_version <= version) {
                known.insert(version, span.offset.plus(version.get() - span.first_version.get()));
            } else if let Some(segments) = self.segments(partition) {
                known.extend(segments.stream(key.hash, version, None, EVENTS)?);
            }
        }
        known.retain(|version, _| versions.contains(version));
        Ok(known)
    }

    /// Takes over what marks of a durable group say of redactions, before anybody is told.
    pub(crate) fn redact(&self, group: &Group) {
        let marks = group.marks.iter().filter(|mark| mark.redacts.is_some() || mark.life.erased_to > Offset::default());
        self.redact_as(marks, |_| group.time, group.number);
    }

    fn redact_as<'a>(&self, marks: impl Iterator<Item = &'a StreamMark>, at: impl Fn(&StreamMark) -> Timestamp, frame: u64) {
        let mut marks = marks.peekable();
        if marks.peek().is_none() {
            return;
        }
        let partitions = self.topics.by_index();
        for mark in marks {
            let Some(partition) = partitions.get(mark.key.partition as usize) else { continue };
            let Some(version) = mark.redacts else {
                self.redactions.complete((partition.topic.id, partition.id), mark.life.erased_to);
                continue;
            };
            let found = match mark.event {
                Some(event) => Ok(Some(event)),
                None => self.places_of(partition, &mark.key, &[version]).map(|found| found.values().next().copied()),
            };
            let event = found.unwrap_or_else(|error| {
                // What cannot be found cannot be read either.
                tracing::warn!(topic = %partition.topic.name, partition = %partition.id, %version, error = %error, "cannot look up what is redacted");
                self.note_damage(&error);
                None
            });
            self.redactions.add(partition, &Made { stream: mark.key, event, mark: mark.offset, at: at(mark), frame });
        }
        self.compacting.signal.raise();
    }

    /// Takes over what a start has found: redactions of which no mark says that their bytes are gone.
    pub(crate) fn redact_again(&self, found: &[(StreamKey, RedactionAt)], frame: u64) {
        let partitions = self.topics.by_index();
        let erased_to = |key: &StreamKey| {
            let whole = partitions.get(key.partition as usize).map(|partition| StreamKey::of(&self.hasher, partition, NO_STREAM));
            whole.map_or_else(Offset::default, |key| self.streams.standing(&key).life.erased_to)
        };
        let marks: Vec<_> = found
            .iter()
            .filter(|(key, redaction)| redaction.offset >= erased_to(key))
            .map(|(key, RedactionAt { version, offset })| StreamMark {
                key: *key,
                life: Life::default(),
                snapshot: None,
                redacts: Some(*version),
                event: None,
                offset: *offset,
            })
            .collect();
        let now = self.time.now();
        let at =
            |mark: &StreamMark| partitions.get(mark.key.partition as usize).and_then(|partition| self.recorded_at(partition, mark.offset));
        self.redact_as(marks.iter(), |mark| at(mark).unwrap_or(now), frame);
    }

    /// When a record was recorded that lies in segments or in memory; none if that cannot be told.
    fn recorded_at(&self, partition: &Partition, offset: Offset) -> Option<Timestamp> {
        if let Some((group, _)) = self.tail.slices_from(partition.index, offset, 0).first() {
            return Some(group.time);
        }
        let mut reader = self.segments(partition)?.reader_of_all(Start::Offset(offset), false).ok()?;
        reader.next_run(1).ok()?.map(|run| run.recorded_at)
    }
}
