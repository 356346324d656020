//! Reading forwards: from memory, from frames of the journal that memory has let go, from segments.
//!
//! Every reader of the embedded log is an [`EmbeddedReader`]. Invariants: nothing at or above `until` is returned; what is
//! returned follows on what was returned before, without gap or repeat.

use std::sync::Arc;

use super::{
    below::{Below, Output},
    group::{Group, Slice, SliceRun},
    request::require_events,
    streams::{StreamKey, StreamSpan},
};
use crate::{
    backend::LogReader,
    engine::Engine,
    error::LogError,
    ids::{Offset, Position, StreamHead, StreamVersion, TopicId},
    record::{Chunk, ReadLimits, Run, Selection},
    topic_store::Partition,
};

/// Which topics a merged read returns.
#[derive(Debug)]
enum Topics {
    These(Vec<TopicId>),
    Users,
}

impl Topics {
    fn takes(&self, partition: &Partition) -> bool {
        match self {
            Self::These(ids) => ids.contains(&partition.topic.id),
            Self::Users => !partition.topic.name.is_system(),
        }
    }
}

#[derive(Debug)]
enum Cursor {
    Partition { partition: Arc<Partition>, next: Offset },
    Stream { partition: Arc<Partition>, key: StreamKey, next: StreamVersion },
    Merged { topics: Arc<Topics>, next: Position },
}

/// Reads an embedded log.
#[derive(Debug)]
pub(crate) struct EmbeddedReader {
    engine: Arc<Engine>,
    cursor: Cursor,
    /// The frame last read from the journal, so that its further runs cost nothing.
    loaded: Option<Arc<Group>>,
    /// Reads what memory and journal no longer hold.
    below: Below,
}

impl EmbeddedReader {
    /// A reader of `selection`, once its start is known to exist.
    pub(crate) fn open(engine: Arc<Engine>, selection: Selection) -> Result<Self, LogError> {
        let end = engine.tail.end();
        let within = |position: Position| {
            if position <= end { Ok(position) } else { Err(LogError::PositionOutOfRange { asked: position, end }) }
        };
        let cursor = match selection {
            Selection::Partition(topic, id, next) => {
                let partition = Arc::clone(engine.topics.get(&topic)?.partition(id)?);
                let end = engine.tail.end_of(partition.index);
                if next > end {
                    return Err(LogError::OffsetOutOfRange { topic, partition: id, asked: next, first: Offset::default(), end });
                }
                Cursor::Partition { partition, next }
            }
            Selection::Stream(topic, stream, from) => {
                let entry = engine.topics.get(&topic)?;
                require_events(&entry, "it has no streams")?;
                let name = stream.as_str().as_bytes();
                let partition = Arc::clone(entry.partition_for(name));
                let key = StreamKey::of(&engine.hasher, &partition, name);
                Cursor::Stream { partition, key, next: from.max(StreamVersion::FIRST) }
            }
            Selection::Topics(names, next) => {
                let ids: Result<_, _> = names.iter().map(|name| engine.topics.get(name).map(|entry| entry.topic.id)).collect();
                Cursor::Merged { topics: Arc::new(Topics::These(ids?)), next: within(next)? }
            }
            Selection::All(next) => Cursor::Merged { topics: Arc::new(Topics::Users), next: within(next)? },
        };
        Ok(Self { engine, cursor, loaded: None, below: Below::default() })
    }

    /// The group with its batches, from the journal if need be; none if segments hold it by now.
    fn load(&mut self, group: &Arc<Group>) -> Result<Option<Arc<Group>>, LogError> {
        if group.loaded {
            return Ok(Some(Arc::clone(group)));
        }
        if self.loaded.as_ref().is_none_or(|loaded| loaded.number != group.number) {
            self.loaded = self.engine.load(group)?.map(Arc::new);
        }
        Ok(self.loaded.clone())
    }

    /// Fills `out` from the groups of one partition that the tail knows. Returns the next offset.
    fn partition_runs(&mut self, partition: &Partition, mut next: Offset, out: &mut Output) -> Result<Offset, LogError> {
        // Asked first: what becomes readable from here on is not missing if it is not among the slices.
        let end = self.engine.tail.end_of(partition.index);
        for (group, slice) in self.engine.tail.slices_from(partition.index, next, out.limits.bytes.into()) {
            if group.first >= out.until {
                out.complete = true;
                return Ok(next);
            }
            let Some(group) = self.load(&group)? else { return Ok(next) };
            let Some(slice) = group.slices.get(slice as usize) else { return Ok(next) };
            let first = slice.runs.partition_point(|run| run.end_offset() <= next);
            for run in &slice.runs[first..] {
                let skip = u32::try_from(next.get().saturating_sub(run.first_offset.get())).unwrap_or(0);
                let Some(taken) = out.take(&group, slice, run, skip)? else { return Ok(next) };
                next = run.first_offset.plus(u64::from(skip + taken));
            }
        }
        out.complete = next >= end;
        Ok(next)
    }

    /// Fills `out` from the groups that the tail knows, in order of position. Returns the next position.
    fn merged_runs(&mut self, topics: &Topics, mut next: Position, out: &mut Output) -> Result<Position, LogError> {
        let takes = |slice: &Slice| topics.takes(&slice.partition);
        for group in self.engine.tail.groups_from(next, out.limits.bytes.into()) {
            if group.first >= out.until {
                break;
            }
            if group.slices.iter().any(takes) {
                let Some(group) = self.load(&group)? else { return Ok(next) };
                let behind = |(slice, run): &(u32, u32)| group.run(*slice, *run).is_some_and(|(_, run)| run.end_position() <= next);
                let first = group.order.partition_point(behind);
                for (slice, run) in &group.order[first..] {
                    let Some((slice, run)) = group.run(*slice, *run) else { return Ok(next) };
                    if takes(slice) {
                        let skip = u32::try_from(next.get().saturating_sub(run.first_position.get())).unwrap_or(0);
                        let Some(taken) = out.take(&group, slice, run, skip)? else { return Ok(next) };
                        next = run.first_position.plus(u64::from(skip + taken));
                        if skip + taken < run.count {
                            // The rest of the run comes with the next call.
                            return Ok(next);
                        }
                    }
                }
            }
            next = next.max(group.end.min(out.until));
        }
        out.complete = next >= out.until;
        Ok(next)
    }

    /// Fills `out` with what the tail knows of one stream. Returns the next version.
    fn stream_runs(
        &mut self,
        partition: &Partition,
        key: StreamKey,
        mut next: StreamVersion,
        out: &mut Output,
    ) -> Result<StreamVersion, LogError> {
        let head = self.engine.stream_head(partition, &key);
        let spans = self.engine.streams.recent(&key, next, SPANS);
        match (spans.first(), head) {
            (Some(first), _) if first.first_version <= next => {}
            // Nothing so new exists.
            (None, Ok(StreamHead::Absent)) => {
                out.complete = true;
                return Ok(next);
            }
            (None, Ok(StreamHead::At(head))) if head < next => {
                out.complete = true;
                return Ok(next);
            }
            // Older events lie in segments, or may lie in damaged ones.
            _ => return Ok(next),
        }
        let mut all = spans.len() < SPANS;
        let end = self.engine.tail.end_of(partition.index);
        for span in spans {
            let found = self.engine.tail.slices_from(partition.index, span.offset, 0).into_iter().next();
            let Some((group, slice)) = found else {
                // Known here a moment before it is shown.
                out.complete = span.offset >= end;
                return Ok(next);
            };
            if group.first >= out.until {
                out.complete = true;
                return Ok(next);
            }
            let Some(group) = self.load(&group)? else { return Ok(next) };
            let Some(slice) = group.slices.get(slice as usize) else { return Ok(next) };
            let Some(run) = run_of(slice, &span) else { return Ok(next) };
            let skip = u32::try_from(next.get().saturating_sub(span.first_version.get())).unwrap_or(0);
            let Some(taken) = out.take(&group, slice, &run, skip)? else { return Ok(next) };
            next = span.first_version.plus(u64::from(skip + taken));
            all &= skip + taken == span.count;
        }
        out.complete = all;
        Ok(next)
    }

    /// Takes a step as far as it goes: what lies before damage is returned, and the next call meets the damage.
    fn step(&mut self, out: &mut Output) -> Result<(), LogError> {
        let Err(error) = self.try_step(out) else { return Ok(()) };
        self.engine.note_damage(&error);
        let Some(last) = out.runs.last() else { return Err(error) };
        match &mut self.cursor {
            Cursor::Partition { next, .. } => *next = last.first_offset.plus(last.count.into()),
            Cursor::Stream { next, .. } => *next = next.plus(out.runs.iter().map(|run| u64::from(run.count)).sum()),
            Cursor::Merged { next, .. } => *next = last.end_position(),
        }
        out.complete = false;
        Ok(())
    }

    /// Takes one step: from the tail if it holds what comes next, else from segments.
    fn try_step(&mut self, out: &mut Output) -> Result<(), LogError> {
        match &self.cursor {
            Cursor::Partition { partition, next } => {
                let (partition, from) = (Arc::clone(partition), *next);
                let mut next = self.partition_runs(&partition, from, out)?;
                if next == from && !out.is_over() {
                    next = self.below.partition(&self.engine, &partition, from, out)?;
                }
                self.cursor = Cursor::Partition { partition, next };
            }
            Cursor::Stream { partition, key, next } => {
                let (partition, key, from) = (Arc::clone(partition), *key, *next);
                let mut next = self.stream_runs(&partition, key, from, out)?;
                if next == from && !out.is_over() {
                    next = self.below.stream(&self.engine, &partition, key, from, out)?;
                }
                self.cursor = Cursor::Stream { partition, key, next };
            }
            Cursor::Merged { topics, next } => {
                let (topics, from) = (Arc::clone(topics), *next);
                let mut next = self.merged_runs(&topics, from, out)?;
                if next == from && !out.is_over() {
                    next = self.below.merged(&self.engine, |partition| topics.takes(partition), from, out)?;
                }
                out.scanned_to = next;
                self.cursor = Cursor::Merged { topics, next };
            }
        }
        Ok(())
    }
}

/// Spans of a stream looked up at once.
const SPANS: usize = 1024;

/// A span as a run: its own part of the one it lies in.
fn run_of(slice: &Slice, span: &StreamSpan) -> Option<SliceRun> {
    let run = slice.runs.get(slice.runs.partition_point(|run| run.end_offset() <= span.offset))?;
    let skip = span.offset.get().checked_sub(run.first_offset.get())?;
    Some(SliceRun { first_offset: span.offset, first_position: run.first_position.plus(skip), count: span.count, start: span.start })
}

impl LogReader for EmbeddedReader {
    fn read(&mut self, until: Position, limits: ReadLimits) -> Result<Chunk, LogError> {
        let until = until.min(self.engine.tail.end());
        let mut out = Output::new(until, limits);
        while out.runs.is_empty() && !out.complete {
            self.step(&mut out)?;
        }
        let last = out.runs.last().map_or(out.scanned_to, Run::end_position);
        let scanned_to = if out.complete { until } else { last.max(out.scanned_to) };
        Ok(Chunk { runs: out.runs, scanned_to })
    }

    fn in_memory(&self) -> bool {
        match &self.cursor {
            Cursor::Partition { partition, next } => self.engine.tail.holds_offset(partition.index, *next),
            Cursor::Stream { partition, key, next } => {
                let nothing_to_read = match self.engine.stream_head(partition, key) {
                    Ok(StreamHead::Absent) => true,
                    Ok(StreamHead::At(version)) => version < *next,
                    Err(_) => false,
                };
                let first = self.engine.streams.recent(key, *next, 1);
                nothing_to_read
                    || first
                        .first()
                        .is_some_and(|span| span.first_version <= *next && self.engine.tail.holds_offset(partition.index, span.offset))
            }
            Cursor::Merged { next, .. } => self.engine.tail.holds_position(*next),
        }
    }
}
