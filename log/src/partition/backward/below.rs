//! Reading backwards what only segments hold: one partition, one stream, or several partitions merged by position.
//!
//! Belongs to one [`super::BackwardReader`], which asks when the tail does not hold what comes next. Invariant: what is returned
//! lies right before what was asked for; when nothing does, that is damage and said so, never an empty answer.

use std::{
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
};

use crate::{
    engine::Engine,
    error::LogError,
    ids::{Offset, Position, StreamVersion},
    partition::{
        below::{EVENTS, READ_AHEAD_PARTITIONS, gone, lost, segments_of},
        output::Output,
        streams::StreamKey,
    },
    segment::{Reader, Start},
    topic_store::Partition,
};

/// Readers of segments, kept from call to call.
#[derive(Debug, Default)]
pub(super) struct Below {
    reader: Option<Reader>,
    merge: Option<Merge>,
    /// Versions and offsets of a stream that were looked up and not read yet, the newest first.
    events: VecDeque<(StreamVersion, Offset)>,
    /// Offset of the oldest event that was looked up.
    looked_up_to: Option<Offset>,
}

/// Readers of several partitions, by the position behind what each would return next.
#[derive(Debug)]
struct Merge {
    readers: Vec<Reader>,
    /// By reader.
    partitions: Vec<Arc<Partition>>,
    heap: BinaryHeap<(Position, usize)>,
    before: Position,
}

impl Below {
    /// Fills `out` with a partition's records before `from`, which is not 0. Returns the offset before which it goes on.
    pub(super) fn partition(&mut self, engine: &Engine, partition: &Partition, from: Offset, out: &mut Output) -> Result<Offset, LogError> {
        let mut before = from;
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => segments_of(engine, partition)?.reader(Start::Offset(before), true)?,
        };
        reader.seek(before);
        while !out.is_full()
            && let Some(run) = reader.previous_run(out.limits.records)?
        {
            let Some(left) = out.take_end(&run)? else {
                reader.seek(before);
                break;
            };
            before = run.first_offset.plus(left.into());
            reader.seek(before);
        }
        // Compaction may have left out what lay first.
        before = before.min(reader.offset());
        self.reader = Some(reader);
        if before == from && from > engine.low(partition).offset {
            return Err(lost(engine, partition, Offset::default()));
        }
        Ok(before)
    }

    /// Fills `out` with a stream's events from version `first` on and before `before`, which is higher. Returns the version before which
    /// it goes on.
    pub(super) fn stream(
        &mut self,
        engine: &Engine,
        partition: &Partition,
        key: StreamKey,
        first: StreamVersion,
        mut before: StreamVersion,
        out: &mut Output,
    ) -> Result<StreamVersion, LogError> {
        let segments = segments_of(engine, partition)?;
        let ended = |offset| match gone(engine, &key, first) {
            None if !segments.have_holes() => Err(lost(engine, partition, offset)),
            _ => Ok(first),
        };
        if self.events.front().is_none_or(|(version, _)| version.plus(1) != before) {
            let below = self.looked_up_to.unwrap_or(Offset::new(u64::MAX));
            self.events = segments.stream_before(key.hash, before, below, EVENTS)?.into();
            let Some((_, oldest)) = self.events.back() else { return ended(Offset::default()) };
            self.looked_up_to = Some(*oldest);
        }
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => segments.reader(Start::Offset(Offset::default()), false)?,
        };
        while before > first
            && !out.is_full()
            && let Some((version, offset)) = self.events.front().copied()
        {
            if version.plus(1) != before {
                if version >= before || !segments.have_holes() {
                    return ended(offset);
                }
                // What was removed is passed over, also in a folder that was restored up to a time before anything said so.
                if version < first {
                    return Ok(first);
                }
                before = version.plus(1);
            }
            let is_next = |(place, (version, at)): &(u64, &(StreamVersion, Offset))| at.plus(*place) == offset && *version >= first;
            let together = (0..).zip(&self.events).take_while(is_next).count();
            reader.seek(offset.plus(1));
            let run = reader.previous_run(u32::try_from(together).unwrap_or(1))?;
            let is_there = |run: &crate::record::Run| run.first_offset.plus(run.count.into()) == offset.plus(1);
            let Some(run) = run.filter(is_there) else { return ended(offset) };
            let Some(left) = out.take_end(&run)? else { break };
            let taken = run.count - left;
            before = StreamVersion::new(before.get() - u64::from(taken));
            self.events.drain(..(taken as usize).min(self.events.len()));
        }
        self.reader = Some(reader);
        Ok(before)
    }

    /// Fills `out` with records of all partitions that are wanted, before `before`, the highest position first. Returns the
    /// position before which it goes on.
    pub(super) fn merged(
        &mut self,
        engine: &Engine,
        wanted: impl Fn(&Partition) -> bool,
        before: Position,
        out: &mut Output,
    ) -> Result<Position, LogError> {
        let mut merge = match self.merge.take().filter(|merge| before <= merge.before) {
            Some(mut merge) => {
                merge.seek(before)?;
                merge
            }
            None => Merge::new(engine, wanted, before)?,
        };
        merge.read(out)?;
        let before = merge.before;
        self.merge = Some(merge);
        Ok(before)
    }
}

impl Merge {
    fn new(engine: &Engine, wanted: impl Fn(&Partition) -> bool, before: Position) -> Result<Self, LogError> {
        let partitions: Vec<_> = engine.topics.partitions().into_iter().filter(|partition| wanted(partition)).collect();
        let along = partitions.len() <= READ_AHEAD_PARTITIONS;
        let mut merge = Self { readers: Vec::new(), partitions: Vec::new(), heap: BinaryHeap::new(), before };
        for partition in partitions {
            let Some(segments) = engine.segments(&partition) else { continue };
            merge.readers.push(segments.reader(Start::Position(before), along)?);
            merge.partitions.push(partition);
            merge.line_up(merge.readers.len() - 1)?;
        }
        Ok(merge)
    }

    /// Goes on from another position, before the one to which it has come.
    fn seek(&mut self, before: Position) -> Result<(), LogError> {
        if self.before == before {
            return Ok(());
        }
        self.before = before;
        self.heap.clear();
        for place in 0..self.readers.len() {
            self.readers[place].seek_position(before)?;
            self.line_up(place)?;
        }
        Ok(())
    }

    /// The position behind what a reader would return next; none of a topic that was deleted meanwhile.
    fn peek(&mut self, place: usize) -> Result<Option<Position>, LogError> {
        if self.partitions[place].is_gone() { Ok(None) } else { self.readers[place].peek_back() }
    }

    /// Puts a reader into the line by what it would return next.
    fn line_up(&mut self, place: usize) -> Result<(), LogError> {
        if let Some(end) = self.peek(place)? {
            self.heap.push((end, place));
        }
        Ok(())
    }

    fn read(&mut self, out: &mut Output) -> Result<(), LogError> {
        while let Some((_, place)) = self.heap.pop() {
            let others = self.heap.peek().map_or(Position::default(), |(other, _)| *other);
            let mut end = self.peek(place)?;
            while let Some(behind) = end.filter(|end| *end > others) {
                if out.is_full() {
                    self.heap.push((behind, place));
                    return Ok(());
                }
                let offset = self.readers[place].offset();
                let Some(run) = self.readers[place].previous_run(out.limits.records)? else { break };
                let Some(left) = out.take_end(&run)? else {
                    self.readers[place].seek(offset);
                    self.heap.push((behind, place));
                    return Ok(());
                };
                self.before = run.first_position.plus(left.into());
                self.readers[place].seek(run.first_offset.plus(left.into()));
                end = self.peek(place)?;
            }
            if let Some(end) = end {
                self.heap.push((end, place));
            }
        }
        self.before = Position::default();
        Ok(())
    }
}
