//! Reading forwards: from memory, from frames of the journal that memory has let go, from segments.
//!
//! Every reader of the embedded log that goes forwards is an [`EmbeddedReader`]. Invariants: nothing at or above `until` is returned; what is
//! returned follows on what was returned before, without gap or repeat.

use std::sync::Arc;

use super::{
    below::Below,
    cursor::{Cursor, Topics},
    group::{Frame, Slice, run_of},
    output::Output,
    streams::StreamKey,
};
use crate::{
    backend::LogReader,
    engine::Engine,
    error::LogError,
    ids::{Offset, Position, StreamVersion},
    record::{Chunk, ReadLimits, Run, Selection},
    topic_store::Partition,
};

/// Reads an embedded log forwards.
#[derive(Debug)]
pub(crate) struct EmbeddedReader {
    engine: Arc<Engine>,
    pub(super) cursor: Cursor,
    frame: Frame,
    /// Reads what memory and journal no longer hold.
    below: Below,
}

impl EmbeddedReader {
    /// A reader of `selection`, once its start is known to exist.
    pub(crate) fn open(engine: Arc<Engine>, selection: Selection) -> Result<Self, LogError> {
        let cursor = Cursor::open(&engine, selection)?;
        Ok(Self { engine, cursor, frame: Frame::default(), below: Below::default() })
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
            let Some(group) = self.frame.load(&self.engine, &group)? else { return Ok(next) };
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
                let Some(group) = self.frame.load(&self.engine, &group)? else { return Ok(next) };
                let behind = |(slice, run): &(u32, u32)| group.run(*slice, *run).is_some_and(|(_, run)| run.end_position() <= next);
                let first = group.order.partition_point(behind);
                for (slice, run) in &group.order[first..] {
                    let Some((slice, run)) = group.run(*slice, *run) else { return Ok(next) };
                    if takes(slice) && !topics.is_gone(&slice.partition, run.first_position) {
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
        let standing = self.engine.standing(partition, &key);
        let spans = self.engine.streams.recent(&key, next, SPANS);
        match (spans.first(), standing) {
            (Some(first), _) if first.first_version <= next => {}
            // Nothing so new exists.
            (None, Ok(standing)) if standing.newest < next => {
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
            let Some(group) = self.frame.load(&self.engine, &group)? else { return Ok(next) };
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
            Cursor::Stream { next, .. } => {
                // All of a stream's events have versions.
                let newest = last.records().last().transpose()?.and_then(|record| record.event()).map(|event| event.version.plus(1));
                *next = newest.unwrap_or(*next);
            }
            Cursor::Merged { next, .. } => *next = last.end_position(),
        }
        out.complete = false;
        Ok(())
    }

    /// Takes one step: from the tail if it holds what comes next, else from segments.
    fn try_step(&mut self, out: &mut Output) -> Result<(), LogError> {
        if let Cursor::Stream { key, next, .. } = &mut self.cursor {
            out.beginning = self.engine.streams.standing(key).life.beginning;
            *next = (*next).max(out.beginning.first);
        }
        match &self.cursor {
            Cursor::Partition { partition, next } => {
                let (partition, from) = (Arc::clone(partition), *next);
                let mut next = self.partition_runs(&partition, from, out)?;
                if next == from && !out.is_over() {
                    next = self.below.partition(&self.engine, &partition, from, out)?;
                } else {
                    self.below.let_go();
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
                    next = self.below.merged(&self.engine, &topics, from, out)?;
                } else {
                    self.below.let_go();
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

impl LogReader for EmbeddedReader {
    fn read(&mut self, until: Position, limits: ReadLimits) -> Result<Chunk, LogError> {
        self.cursor.present()?;
        let until = until.min(self.engine.tail.end());
        let mut out = Output::new(&self.engine, until, limits);
        while out.runs.is_empty() && !out.complete {
            self.step(&mut out)?;
        }
        let last = out.runs.last().map_or(out.scanned_to, Run::end_position);
        let scanned_to = if out.complete { until } else { last.max(out.scanned_to) };
        Ok(out.into_chunk(scanned_to))
    }

    fn in_memory(&self) -> bool {
        match &self.cursor {
            Cursor::Partition { partition, next } => self.engine.tail.holds_offset(partition.index, *next),
            Cursor::Stream { partition, key, next } => {
                let Ok(standing) = self.engine.standing(partition, key) else { return false };
                let next = (*next).max(standing.life.beginning.first);
                let first = self.engine.streams.recent(key, next, 1);
                standing.newest < next
                    || first
                        .first()
                        .is_some_and(|span| span.first_version <= next && self.engine.tail.holds_offset(partition.index, span.offset))
            }
            Cursor::Merged { next, .. } => self.engine.tail.holds_position(*next),
        }
    }
}
