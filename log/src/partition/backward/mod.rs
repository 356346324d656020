//! Reading backwards: the newest first, from memory, then from frames of the journal, then from segments, block by block.
//!
//! Every reader of the embedded log that goes backwards is a [`BackwardReader`]. Invariants: nothing at or above `until` is
//! returned; what is returned lies right before what was returned before, without gap or repeat; once it has something to return
//! from memory, a call opens no file.

mod below;

use std::sync::Arc;

use self::below::Below;
use super::{
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
    record::{Chunk, ReadLimits, Selection},
    topic_store::Partition,
};

/// Spans of a stream looked up at once.
const SPANS: usize = 1024;

/// Reads an embedded log backwards.
#[derive(Debug)]
pub(crate) struct BackwardReader {
    engine: Arc<Engine>,
    /// Its places lie behind the record that comes next.
    pub(super) cursor: Cursor,
    frame: Frame,
    /// Reads what memory and journal no longer hold.
    below: Below,
}

impl BackwardReader {
    /// A reader of what lies before the place of `selection`, once that is known to exist.
    pub(crate) fn open(engine: Arc<Engine>, selection: Selection) -> Result<Self, LogError> {
        let mut cursor = Cursor::open(&engine, selection)?;
        if let Cursor::Stream { partition, key, next } = &mut cursor {
            *next = engine.standing(partition, key)?.newest.plus(1).min(*next);
        }
        Ok(Self { engine, cursor, frame: Frame::default(), below: Below::default() })
    }

    /// Fills `out` from the groups of one partition that the tail knows. Returns the offset before which it goes on.
    fn partition_runs(&mut self, partition: &Partition, mut before: Offset, out: &mut Output) -> Result<Offset, LogError> {
        let low = self.engine.low(partition).offset;
        for (group, slice) in self.engine.tail.slices_before(partition.index, before, out.limits.bytes.into()) {
            // Memory may hold for a while what was removed.
            if before <= low {
                break;
            }
            if !group.loaded && !out.runs.is_empty() {
                return Ok(before);
            }
            if group.first >= out.until {
                before = group.slices.get(slice as usize).map_or(before, |slice| slice.base.min(before));
                continue;
            }
            let Some(group) = self.frame.load(&self.engine, &group)? else { return Ok(before) };
            let Some(slice) = group.slices.get(slice as usize) else { return Ok(before) };
            let end = slice.runs.partition_point(|run| run.first_offset < before);
            for run in slice.runs[..end].iter().rev() {
                let count = records_between(run.first_offset.get(), before.get()).min(run.count);
                let Some(left) = out.take_end(&group.cut(slice, run, 0, count)?)? else { return Ok(before) };
                before = run.first_offset.plus(left.into());
            }
        }
        Ok(before)
    }

    /// Fills `out` from the groups that the tail knows, from the newest to the oldest. Returns the position before which it
    /// goes on.
    fn merged_runs(&mut self, topics: &Topics, mut before: Position, out: &mut Output) -> Result<Position, LogError> {
        let takes = |slice: &Slice| topics.takes(&slice.partition);
        for group in self.engine.tail.groups_before(before, out.limits.bytes.into()) {
            if group.first < out.until && group.slices.iter().any(takes) {
                if !group.loaded && !out.runs.is_empty() {
                    return Ok(before);
                }
                let Some(group) = self.frame.load(&self.engine, &group)? else { return Ok(before) };
                let begins = |(slice, run): &(u32, u32)| group.run(*slice, *run).is_some_and(|(_, run)| run.first_position < before);
                let end = group.order.partition_point(begins);
                for (slice, run) in group.order[..end].iter().rev() {
                    let Some((slice, run)) = group.run(*slice, *run) else { return Ok(before) };
                    if takes(slice) && !topics.is_gone(&slice.partition, run.first_position) {
                        let count = records_between(run.first_position.get(), before.get()).min(run.count);
                        let Some(left) = out.take_end(&group.cut(slice, run, 0, count)?)? else { return Ok(before) };
                        before = run.first_position.plus(left.into());
                        if left > 0 {
                            // The rest of the run comes with the next call.
                            return Ok(before);
                        }
                    }
                }
            }
            before = before.min(group.first);
        }
        Ok(before)
    }

    /// Fills `out` with what the tail knows of one stream from version `first` on. Returns the version before which it goes on.
    fn stream_runs(
        &mut self,
        partition: &Partition,
        key: StreamKey,
        first: StreamVersion,
        mut before: StreamVersion,
        out: &mut Output,
    ) -> Result<StreamVersion, LogError> {
        let end = self.engine.tail.end_of(partition.index);
        for span in self.engine.streams.recent_before(&key, before, SPANS) {
            let oldest = span.first_version.max(first);
            if oldest >= before {
                return Ok(before);
            }
            if span.offset >= end {
                // Known here a moment before it is shown.
                before = oldest;
                continue;
            }
            let found = self.engine.tail.slices_from(partition.index, span.offset, 0).into_iter().next();
            let Some((group, slice)) = found else { return Ok(before) };
            if group.first >= out.until {
                before = oldest;
                continue;
            }
            if !group.loaded && !out.runs.is_empty() {
                return Ok(before);
            }
            let Some(group) = self.frame.load(&self.engine, &group)? else { return Ok(before) };
            let Some(slice) = group.slices.get(slice as usize) else { return Ok(before) };
            let Some(run) = run_of(slice, &span) else { return Ok(before) };
            let skip = records_between(span.first_version.get(), oldest.get());
            let count = records_between(oldest.get(), before.get()).min(span.count - skip);
            let Some(left) = out.take_end(&group.cut(slice, &run, skip, count)?)? else { return Ok(before) };
            before = oldest.plus(left.into());
        }
        Ok(before)
    }

    /// Takes a step as far as it goes: what lies behind damage is returned, and the next call meets the damage.
    fn step(&mut self, out: &mut Output) -> Result<(), LogError> {
        let Err(error) = self.try_step(out) else { return Ok(()) };
        self.engine.note_damage(&error);
        let Some(last) = out.runs.last() else { return Err(error) };
        match &mut self.cursor {
            Cursor::Partition { next, .. } => *next = last.first_offset,
            Cursor::Stream { next, .. } => {
                // All of a stream's events have versions.
                let version = last.records().next().transpose()?.and_then(|record| record.event()).map(|event| event.version);
                *next = version.unwrap_or(*next);
            }
            Cursor::Merged { next, .. } => *next = last.first_position,
        }
        Ok(())
    }

    /// Takes one step: from the tail if it holds what comes next, else from segments.
    fn try_step(&mut self, out: &mut Output) -> Result<(), LogError> {
        match &self.cursor {
            Cursor::Partition { partition, next } => {
                let (partition, from) = (Arc::clone(partition), *next);
                let mut before = self.partition_runs(&partition, from, out)?;
                let low = self.engine.low(&partition).offset;
                if before == from && before > low && !out.is_over() {
                    before = self.below.partition(&self.engine, &partition, from, out)?;
                }
                out.complete = before <= low;
                self.cursor = Cursor::Partition { partition, next: before };
            }
            Cursor::Stream { partition, key, next } => {
                let (partition, key, from) = (Arc::clone(partition), *key, *next);
                out.beginning = self.engine.streams.standing(&key).life.beginning;
                let first = out.beginning.first;
                if from <= first {
                    out.complete = true;
                    return Ok(());
                }
                let mut before = self.stream_runs(&partition, key, first, from, out)?;
                if before == from && !out.is_over() {
                    before = self.below.stream(&self.engine, &partition, key, first, from, out)?;
                }
                out.complete = before <= first;
                self.cursor = Cursor::Stream { partition, key, next: before };
            }
            Cursor::Merged { topics, next } => {
                let (topics, from) = (Arc::clone(topics), *next);
                let mut before = self.merged_runs(&topics, from, out)?;
                if before == from && before > Position::default() && !out.is_over() {
                    before = self.below.merged(&self.engine, |partition| topics.takes(partition), from, out)?;
                }
                out.complete = before == Position::default();
                self.cursor = Cursor::Merged { topics, next: before };
            }
        }
        Ok(())
    }
}

/// Records from one number (inclusive) to another (exclusive).
fn records_between(first: u64, before: u64) -> u32 {
    u32::try_from(before.saturating_sub(first)).unwrap_or(u32::MAX)
}

impl LogReader for BackwardReader {
    fn read(&mut self, until: Position, limits: ReadLimits) -> Result<Chunk, LogError> {
        self.cursor.present()?;
        let until = until.min(self.engine.tail.end());
        let mut out = Output::new(&self.engine, until, limits);
        while out.runs.is_empty() && !out.complete {
            self.step(&mut out)?;
        }
        let scanned_to = match (&self.cursor, out.runs.last()) {
            (_, _) if out.complete => Position::default(),
            (Cursor::Merged { next, .. }, _) => *next,
            (_, last) => last.map_or(until, |last| last.first_position),
        };
        Ok(out.into_chunk(scanned_to))
    }

    fn in_memory(&self) -> bool {
        let tail = &self.engine.tail;
        match &self.cursor {
            Cursor::Partition { partition, next } => match next.get().checked_sub(1).map(Offset::new) {
                Some(last) if last >= self.engine.low(partition).offset => tail.holds_offset(partition.index, last),
                _ => true,
            },
            Cursor::Stream { partition, key, next } => {
                let newest = self.engine.streams.recent_before(key, *next, 1);
                let is_through = *next <= self.engine.streams.standing(key).life.beginning.first;
                is_through || newest.first().is_some_and(|span| tail.holds_offset(partition.index, span.offset))
            }
            // What is selected must lie in the next group: nobody knows how far down it is searched for else.
            Cursor::Merged { topics, next } => {
                let takes = |slice: &Slice| topics.takes(&slice.partition);
                let newest = tail.groups_before(*next, 0);
                *next == Position::default() || newest.first().is_some_and(|group| group.loaded && group.slices.iter().any(takes))
            }
        }
    }
}
