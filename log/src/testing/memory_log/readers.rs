//! Readers of a [`MemoryLog`](super::MemoryLog): its runs are looked through from one end to the other, and nothing is kept between two
//! calls but the place.

use std::sync::Arc;

use super::Inner;
use crate::{
    backend::LogReader,
    batch::is_mark,
    error::LogError,
    ids::{Offset, Position, StreamVersion, TopicId},
    record::{Chunk, EventQuery, ReadLimits, Run, Selection},
};

/// Leaves out what a query does not mean.
pub(super) struct FilteredReader {
    pub(super) inner: Box<dyn LogReader>,
    pub(super) query: EventQuery,
    pub(super) is_backward: bool,
}

impl LogReader for FilteredReader {
    fn read(&mut self, until: Position, limits: ReadLimits) -> Result<Chunk, LogError> {
        self.inner.read(until, limits)?.matching(&self.query, self.is_backward)
    }

    fn in_memory(&self) -> bool {
        self.inner.in_memory()
    }
}

/// Reads forwards.
pub(super) struct MemoryReader {
    pub(super) inner: Arc<Inner>,
    pub(super) selection: Selection,
    /// Of the topics that it names.
    pub(super) ids: Vec<TopicId>,
    /// Everything selected below it was returned.
    pub(super) from: Position,
}

impl LogReader for MemoryReader {
    fn read(&mut self, until: Position, limits: ReadLimits) -> Result<Chunk, LogError> {
        let chunk = self.collect(until, limits)?;
        self.from = chunk.scanned_to;
        Ok(chunk)
    }

    fn in_memory(&self) -> bool {
        true
    }
}

impl MemoryReader {
    fn collect(&self, until: Position, limits: ReadLimits) -> Result<Chunk, LogError> {
        let state = self.inner.state.lock();
        state.present(&self.selection, &self.ids)?;
        let (selection, beginning) = state.left_of(&self.selection);
        let mut chunk = Chunk { runs: Vec::new(), scanned_to: self.from, beginning };
        let (mut records, mut bytes) = (0_u32, 0_usize);
        let place = state.runs.partition_point(|run| run.end_position() <= self.from);
        for run in state.runs.iter().skip(place).take_while(|run| run.first_position < until) {
            for part in selected(run, &selection, self.from, until)? {
                let room = limits.records.saturating_sub(records).max(1);
                let part = cut(&part, part.first_position, part.first_position.plus(u64::from(room)))?;
                records += part.count;
                bytes += part.batch.len();
                chunk.scanned_to = part.end_position();
                chunk.runs.push(part);
                if records >= limits.records || bytes >= limits.bytes as usize {
                    return Ok(chunk);
                }
            }
        }
        chunk.scanned_to = until.max(self.from);
        Ok(chunk)
    }
}

/// Reads backwards.
pub(super) struct BackwardReader {
    pub(super) inner: Arc<Inner>,
    /// Its place lies behind the record that comes first.
    pub(super) selection: Selection,
    /// Of the topics that it names.
    pub(super) ids: Vec<TopicId>,
    /// Everything selected from here on was returned.
    pub(super) before: Position,
}

impl LogReader for BackwardReader {
    fn read(&mut self, until: Position, limits: ReadLimits) -> Result<Chunk, LogError> {
        let chunk = self.collect(until, limits)?;
        self.before = chunk.scanned_to;
        Ok(chunk)
    }

    fn in_memory(&self) -> bool {
        true
    }
}

impl BackwardReader {
    fn collect(&self, until: Position, limits: ReadLimits) -> Result<Chunk, LogError> {
        let state = self.inner.state.lock();
        state.present(&self.selection, &self.ids)?;
        let (left, beginning) = state.left_of(&whole_stream(&self.selection));
        let mut chunk = Chunk { beginning, ..Chunk::default() };
        let (mut records, mut bytes) = (0_u32, 0_usize);
        let before = self.before.min(until);
        for run in state.runs.iter().rev().skip_while(|run| run.first_position >= before) {
            for part in selected_below(run, &self.selection, &left, before)?.iter().rev() {
                let room = limits.records.saturating_sub(records).max(1).min(part.count);
                let part = part.part(part.count - room, room)?;
                records += part.count;
                bytes += part.batch.len();
                chunk.scanned_to = part.first_position;
                chunk.runs.push(part);
                if records >= limits.records || bytes >= limits.bytes as usize {
                    return Ok(chunk);
                }
            }
        }
        chunk.scanned_to = Position::default();
        Ok(chunk)
    }
}

/// All of a stream; any other selection as it is.
fn whole_stream(selection: &Selection) -> Selection {
    match selection {
        Selection::Stream(topic, stream, _) => Selection::Stream(topic.clone(), stream.clone(), StreamVersion::FIRST),
        other => other.clone(),
    }
}

/// The parts of a run that are selected by what lies before the selection's place, up to `before`; of a stream, among what is `left`.
fn selected_below(run: &Run, selection: &Selection, left: &Selection, before: Position) -> Result<Vec<Run>, LogError> {
    let start = Position::default();
    match selection {
        Selection::Partition(topic, partition, end) => {
            let whole = Selection::Partition(topic.clone(), *partition, Offset::default());
            let end = run.first_position.plus(end.get().saturating_sub(run.first_offset.get()));
            if end <= run.first_position { Ok(Vec::new()) } else { selected(run, &whole, start, before.min(end)) }
        }
        Selection::Stream(_, _, end) => {
            let all = selected(run, left, start, before)?;
            let is_older = |part: &Run| part.records().flatten().all(|record| record.event().is_some_and(|event| event.version < *end));
            Ok(all.into_iter().filter(is_older).collect())
        }
        Selection::Topics(..) | Selection::All(_) => selected(run, selection, start, before),
    }
}

/// The parts of a run that are selected, from position `at` up to `until`.
pub(super) fn selected(run: &Run, selection: &Selection, at: Position, until: Position) -> Result<Vec<Run>, LogError> {
    if is_mark(run) {
        return Ok(Vec::new());
    }
    let whole = || cut(run, at, until).map(|run| vec![run]);
    match selection {
        Selection::Partition(topic, partition, offset) => {
            if run.topic.name != *topic || run.partition != *partition || run.first_offset.plus(u64::from(run.count)) <= *offset {
                return Ok(Vec::new());
            }
            let from = run.first_position.plus(offset.get().saturating_sub(run.first_offset.get()));
            Ok(if from < until { vec![cut(run, at.max(from), until)?] } else { Vec::new() })
        }
        Selection::Stream(topic, stream, version) if run.topic.name == *topic => {
            let mut parts = Vec::new();
            for record in run.records() {
                let record = record?;
                let is_newer = record.event().is_some_and(|event| event.version >= *version);
                let is_mine = record.key == Some(stream.as_str().as_bytes());
                if is_mine && is_newer && (at..until).contains(&record.position) {
                    parts.push(cut(run, record.position, record.position.plus(1))?);
                }
            }
            Ok(parts)
        }
        Selection::Topics(topics, _) if topics.contains(&run.topic.name) => whole(),
        Selection::All(_) if !run.topic.name.is_system() => whole(),
        _ => Ok(Vec::new()),
    }
}

/// The records of a run from `from` (inclusive) up to `until` (exclusive).
fn cut(run: &Run, from: Position, until: Position) -> Result<Run, LogError> {
    let (from, until) = (from.max(run.first_position), until.min(run.end_position()));
    let number = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    run.part(number(from.get() - run.first_position.get()), number(until.get().saturating_sub(from.get())))
}
