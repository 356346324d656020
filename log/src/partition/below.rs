//! Reading what only segments hold: one partition, one stream, or several partitions merged by position.
//!
//! Belongs to one [`super::reader::EmbeddedReader`], which asks when the tail does not hold what comes next. Invariant: what is
//! returned follows on what was asked for; when nothing does, that is damage and said so, never an empty answer.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
};

use super::{cursor::Topics, output::Output, streams::StreamKey};
use crate::{
    engine::Engine,
    error::LogError,
    ids::{Offset, Position, StreamVersion},
    segment::{Reader, Start},
    topic_store::Partition,
};

/// Partitions up to which each reader of a merge reads ahead; more would take too much memory.
pub(super) const READ_AHEAD_PARTITIONS: usize = 32;
/// Events of a stream looked up at once.
pub(super) const EVENTS: usize = 1024;

/// Readers of segments, kept from call to call.
#[derive(Debug, Default)]
pub(crate) struct Below {
    reader: Option<Reader>,
    merge: Option<Merge>,
    /// Versions and offsets of a stream that were looked up and not read yet.
    events: VecDeque<(StreamVersion, Offset)>,
    /// Version of the event behind those that were looked up, and where it must lie at the earliest.
    looked_up_to: Option<(StreamVersion, Offset)>,
}

/// Readers of several partitions, by the position each would return next.
#[derive(Debug)]
struct Merge {
    readers: Vec<Reader>,
    /// What each of them reads.
    partitions: Vec<Arc<Partition>>,
    heap: BinaryHeap<Reverse<(Position, usize)>>,
    next: Position,
    /// Segments hold everything below; what lies behind is for the tail.
    until: Position,
}

impl Below {
    /// Lets go of segments that it has in hand: what comes next is in memory.
    pub(crate) fn let_go(&mut self) {
        self.reader = None;
        self.merge = None;
    }

    /// Fills `out` with a partition's records from `next` on. Returns the next offset.
    pub(crate) fn partition(&mut self, engine: &Engine, partition: &Partition, from: Offset, out: &mut Output) -> Result<Offset, LogError> {
        let mut next = from;
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => segments_of(engine, partition)?.reader(Start::Offset(next), true)?,
        };
        reader.seek(next);
        while let Some(run) = reader.next_run(out.limits.records)? {
            let first = run.first_offset;
            let Some(taken) = out.take_run(run)? else {
                reader.seek(next);
                break;
            };
            next = first.plus(u64::from(taken));
            reader.seek(next);
        }
        // Compaction may have left out what lay last.
        next = next.max(reader.offset());
        let none = next == from && !out.complete;
        self.reader = Some(reader);
        if none && engine.tail.slices_from(partition.index, next, 0).is_empty() {
            return Err(lost(engine, partition, next));
        }
        Ok(next)
    }

    /// Fills `out` with a stream's events from version `next` on. Returns the next version. What was removed is passed over, also where nothing
    /// says so any more, in a folder that was restored up to a time before.
    pub(crate) fn stream(
        &mut self,
        engine: &Engine,
        partition: &Partition,
        key: StreamKey,
        mut next: StreamVersion,
        out: &mut Output,
    ) -> Result<StreamVersion, LogError> {
        let segments = segments_of(engine, partition)?;
        if self.events.front().is_none_or(|(version, _)| *version != next) {
            let behind = self.looked_up_to.filter(|(version, _)| *version == next).map(|(_, offset)| offset);
            self.events = segments.stream(key.hash, next, behind, EVENTS)?.into();
            self.looked_up_to = self.events.back().map(|(version, offset)| (version.plus(1), offset.plus(1)));
        }
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => segments.reader(Start::Offset(Offset::default()), false)?,
        };
        while let Some((version, offset)) = self.events.front().copied() {
            if version != next {
                if let Some(first) = gone(engine, &key, next) {
                    return Ok(first);
                }
                if version < next || !segments.have_holes() {
                    return Err(lost(engine, partition, offset));
                }
                next = version;
            }
            let together = (0..).zip(&self.events).take_while(|(place, (_, at))| *at == offset.plus(*place)).count();
            reader.seek(offset);
            let run = match reader.next_run(u32::try_from(together).unwrap_or(1)) {
                // Retention was faster.
                Err(LogError::OffsetOutOfRange { .. }) => None,
                run => run?,
            };
            let Some(run) = run.filter(|run| run.first_offset == offset) else {
                return gone(engine, &key, next).map_or_else(|| Err(lost(engine, partition, offset)), Ok);
            };
            let Some(taken) = out.take_run(run)? else { break };
            next = next.plus(u64::from(taken));
            self.events.drain(..(taken as usize).min(self.events.len()));
        }
        self.reader = Some(reader);
        let none = out.runs.is_empty() && !out.complete;
        let recent = engine.streams.recent(&key, next, 1).first().map(|span| span.first_version);
        if none && recent.is_none_or(|first| first > next) {
            return match gone(engine, &key, next) {
                Some(first) => Ok(first),
                None if segments.have_holes() => Ok(recent.unwrap_or(engine.streams.standing(&key).newest.plus(1)).max(next)),
                None => Err(lost(engine, partition, Offset::default())),
            };
        }
        Ok(next)
    }

    /// Fills `out` with records of all partitions that are wanted, from `next` on in order of position. Returns the next
    /// position.
    pub(crate) fn merged(&mut self, engine: &Engine, topics: &Topics, next: Position, out: &mut Output) -> Result<Position, LogError> {
        let mut merge = match self.merge.take().filter(|merge| next < merge.until) {
            Some(mut merge) => {
                merge.seek(topics, next)?;
                merge
            }
            None => Merge::new(engine, topics, next)?,
        };
        let read = merge.read(out)?;
        if read && merge.next < merge.until {
            self.merge = Some(merge);
            return self.merge.as_ref().map_or(Ok(next), |merge| Ok(merge.next));
        }
        if merge.next == next && out.runs.is_empty() && !out.complete {
            let what = format!("records from position {next} on are neither in the journal nor in segments");
            return Err(LogError::Corrupt { file: engine.folder.clone(), from: 0, end: 0, what });
        }
        Ok(merge.next)
    }
}

impl Merge {
    fn new(engine: &Engine, topics: &Topics, next: Position) -> Result<Self, LogError> {
        let until = engine.tail.tidied_to();
        let partitions: Vec<_> = engine.topics.partitions().into_iter().filter(|partition| topics.takes(partition)).collect();
        let ahead = partitions.len() <= READ_AHEAD_PARTITIONS;
        let mut merge = Self { readers: Vec::new(), partitions: Vec::new(), heap: BinaryHeap::new(), next, until };
        for partition in partitions {
            let Some(segments) = engine.segments(&partition) else { continue };
            merge.readers.push(segments.reader(Start::Position(next), ahead)?);
            // Asked after the place was looked up: what is removed from here on, the reader reports.
            if let Some(missing) = topics.missing(&partition, segments.low(), next) {
                return Err(missing);
            }
            merge.partitions.push(partition);
            merge.line_up(merge.readers.len() - 1)?;
        }
        Ok(merge)
    }

    /// Goes on from another position, of those that segments hold.
    fn seek(&mut self, topics: &Topics, next: Position) -> Result<(), LogError> {
        if self.next == next {
            return Ok(());
        }
        self.next = next;
        self.heap.clear();
        for place in 0..self.readers.len() {
            self.readers[place].seek_position(next)?;
            if let Some(missing) = topics.missing(&self.partitions[place], self.readers[place].low(), next) {
                return Err(missing);
            }
            self.line_up(place)?;
        }
        Ok(())
    }

    /// Position of what a reader would return next.
    ///
    /// # Errors
    /// [`LogError::Removed`] if that was removed meanwhile.
    fn peek(&mut self, place: usize) -> Result<Option<Position>, LogError> {
        if self.partitions[place].is_gone() {
            return Ok(None);
        }
        let reader = &mut self.readers[place];
        reader.peek().map_err(|error| match error {
            LogError::OffsetOutOfRange { .. } => LogError::Removed { asked: self.next, first: reader.low().position },
            other => other,
        })
    }

    /// Puts a reader into the line by what it would return next.
    fn line_up(&mut self, place: usize) -> Result<(), LogError> {
        if let Some(position) = self.peek(place)?.filter(|position| *position < self.until) {
            self.heap.push(Reverse((position, place)));
        }
        Ok(())
    }

    /// Returns whether the call's limits ended it.
    fn read(&mut self, out: &mut Output) -> Result<bool, LogError> {
        while let Some(Reverse((position, place))) = self.heap.pop() {
            let others = self.heap.peek().map_or(self.until, |Reverse((other, _))| *other);
            if position >= out.until {
                self.heap.push(Reverse((position, place)));
                self.next = self.next.max(out.until);
                out.complete = true;
                return Ok(true);
            }
            while let Some(at) = self.peek(place)?.filter(|at| *at < others) {
                let offset = self.readers[place].offset();
                let Some(run) = self.readers[place].next_run(out.limits.records)? else { break };
                let first = run.first_offset;
                let Some(taken) = out.take_run(run)? else {
                    self.readers[place].seek(offset);
                    self.heap.push(Reverse((at, place)));
                    return Ok(true);
                };
                self.next = at.plus(u64::from(taken));
                self.readers[place].seek(first.plus(u64::from(taken)));
            }
            self.line_up(place)?;
        }
        self.next = self.next.max(self.until.min(out.until));
        out.complete = self.next >= out.until;
        Ok(false)
    }
}

/// The version with which a stream begins by now, if the one that was looked for was let go, and removed, a moment ago.
pub(super) fn gone(engine: &Engine, key: &StreamKey, version: StreamVersion) -> Option<StreamVersion> {
    let first = engine.streams.standing(key).life.beginning.first;
    (first > version).then_some(first)
}

pub(super) fn segments_of(engine: &Engine, partition: &Partition) -> Result<Arc<crate::segment::Segments>, LogError> {
    engine.segments(partition).ok_or_else(|| lost(engine, partition, Offset::default()))
}

/// The report that records are nowhere, unless that is right.
pub(super) fn lost(engine: &Engine, partition: &Partition, from: Offset) -> LogError {
    if let Err(deleted) = partition.present() {
        return deleted;
    }
    LogError::Corrupt {
        file: engine.topics.segments_of(partition),
        from: 0,
        end: 0,
        what: format!("records of topic {} partition {} from offset {from} on cannot be read", partition.topic.name, partition.id),
    }
}
