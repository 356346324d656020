//! How a query takes the place of another one whose table lies in its topic: what is written there and is not its own goes.
//!
//! Run by the query's task, a turn at a time, once it has folded all that there is. The difference is found between what the topic
//! holds and the new table, not between two states, so that a start in the middle of it begins again and ends the same. Invariant:
//! meanwhile nobody else writes into the topic, and the new table stands still.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use foldlog_log::{LogBackend, LogReader, NewRecord, Position, ReadLimits, Selection, Timestamp, TopicName};

use super::{Step, Task};
use crate::{
    codec::Carried,
    error::QueryError,
    stream::{
        commit::SystemTopics,
        fold::Fold,
        operator::{chain::Faults, sink::TopicSink},
        query::Query,
        state::RowNumber,
        worker::Turn,
    },
};

/// Rows that are compared in a turn, at most.
const ROWS: usize = 4096;

/// What a query has to do before it writes on its own.
pub(crate) struct Succession {
    /// The query that goes on until then; none if it does not run any more.
    pub(crate) before: Option<Arc<Query>>,
    /// Called once the topic holds the new table, with the end of the difference.
    pub(crate) take_over: Box<dyn FnOnce(Position) + Send>,
    /// The difference, as far as it is known.
    pub(crate) difference: Option<Difference>,
}

/// The difference between a topic and a table, found piece by piece.
pub(crate) struct Difference {
    reader: Box<dyn LogReader>,
    /// Where the topic ends.
    end: Position,
    is_read: bool,
    /// What the topic holds and was not compared yet: each key's newest value, and its time.
    written: HashMap<Bytes, (Bytes, Timestamp)>,
    bytes: usize,
    /// The next row to compare; none: all were.
    next_row: Option<RowNumber>,
}

/// A piece of the difference.
pub(crate) enum Piece {
    /// There is nothing to write yet.
    Nothing,
    /// Records to be written; there is more.
    Some(Vec<NewRecord>),
    /// The last records.
    Last(Vec<NewRecord>),
}

impl Difference {
    /// What a topic holds below `end` is compared.
    ///
    /// # Errors
    /// [`QueryError::Log`] if it cannot be read.
    pub(crate) fn new(log: &dyn LogBackend, topic: &TopicName, end: Position) -> Result<Self, QueryError> {
        let reader = log.reader(Selection::Topics(vec![topic.clone()], Position::default()))?;
        Ok(Self { reader, end, is_read: false, written: HashMap::new(), bytes: 0, next_row: Some(0) })
    }

    /// Finds the next piece. Blocks on files.
    ///
    /// # Errors
    /// [`QueryError::Log`]; [`QueryError::ResourceExhausted`] if the topic holds more than `budget` bytes.
    pub(crate) fn next(&mut self, fold: &Fold, sink: &TopicSink, budget: usize, faults: &mut Faults) -> Result<Piece, QueryError> {
        if !self.is_read {
            self.read(budget)?;
            return Ok(Piece::Nothing);
        }
        let Some(row) = self.next_row else {
            let tombstone = |key| NewRecord { key: Some(key), value: None, ..NewRecord::default() };
            // In the order of keys: a map has none of its own.
            let mut left: Vec<Bytes> = self.written.keys().cloned().collect();
            left.sort_unstable();
            left.truncate(ROWS);
            left.iter().for_each(|key| drop(self.written.remove(key)));
            let records = left.into_iter().map(tombstone).collect();
            return Ok(if self.written.is_empty() { Piece::Last(records) } else { Piece::Some(records) });
        };
        let (rows, next) = fold.rows_from(row, ROWS, faults)?;
        self.next_row = next;
        let records = sink.records(&rows, &Carried::default(), faults)?;
        let differs = |record: &NewRecord| {
            let written = record.key.as_ref().and_then(|key| self.written.remove(key));
            match (written, &record.value) {
                // A row that is not there in either.
                (None, None) => false,
                (Some((value, time)), Some(is)) => value != *is || Some(time) != record.time,
                (None, Some(_)) | (Some(_), None) => true,
            }
        };
        let records: Vec<NewRecord> = records.into_iter().filter(differs).collect();
        Ok(if records.is_empty() { Piece::Nothing } else { Piece::Some(records) })
    }

    fn read(&mut self, budget: usize) -> Result<(), QueryError> {
        let chunk = self.reader.read(self.end, ReadLimits::default())?;
        for run in &chunk.runs {
            for record in run.records() {
                let record = record?;
                let Some(key) = record.key.map(Bytes::copy_from_slice) else { continue };
                self.bytes += key.len() + record.value.map_or(0, <[u8]>::len);
                let before = match record.value {
                    Some(value) => self.written.insert(key.clone(), (Bytes::copy_from_slice(value), record.timestamp)),
                    None => self.written.remove(&key),
                };
                if before.is_some() || record.value.is_none() {
                    self.bytes = self.bytes.saturating_sub(key.len() + before.map_or(0, |(value, _)| value.len()));
                }
            }
        }
        if self.bytes > budget {
            return Err(QueryError::ResourceExhausted(format!(
                "its topic holds {} bytes to be compared with, the budget of a query is {budget}; raise query.state_mib",
                self.bytes
            )));
        }
        self.is_read = chunk.scanned_to >= self.end;
        Ok(())
    }
}

impl Task {
    /// Whether it writes the difference to what another query has written: then the table stands still.
    pub(super) fn is_succeeding(&self) -> bool {
        self.parts.succession.as_ref().is_some_and(|succession| succession.difference.is_some())
    }

    /// Once all that there is is folded, takes the place of another query: none if there is no other, or nothing to do.
    pub(super) fn succeed(&mut self) -> Result<Option<Turn>, QueryError> {
        let (Some(succession), Some(fold), Some(sink)) = (&mut self.parts.succession, &self.parts.fold, &self.parts.sink) else {
            return Ok(None);
        };
        if !self.pending.is_empty() {
            return Ok(Some(Turn::Wait));
        }
        if let Some(before) = &succession.before {
            before.pause();
            // It wakes this task with each step.
            if !before.stands_still() {
                return Ok(Some(Turn::Wait));
            }
            if self.taken_to < before.folded() {
                return Ok(Some(Turn::Again));
            }
        }
        let mut difference = match succession.difference.take() {
            Some(difference) => difference,
            None => Difference::new(self.parts.log.as_ref(), sink.topic(), self.parts.log.head().position)?,
        };
        // What fails here begins again.
        let mut faults = Faults::new();
        let piece = difference.next(fold, sink, self.parts.state_budget, &mut faults)?;
        succession.difference = Some(difference);
        let (records, is_last) = match piece {
            Piece::Nothing => return Ok(Some(Turn::Again)),
            Piece::Some(records) => (records, false),
            Piece::Last(records) => (records, true),
        };
        let (id, topic, rows_out) = (self.parts.query.id(), sink.topic(), records.len() as u64);
        let unit = match is_last {
            true => self.parts.topics.unit(id, Some((topic, records)), Vec::new(), self.progress())?,
            false => SystemTopics::outputs(topic, records),
        };
        self.pending.push_back(Step { folded: self.taken_to, versions: None, unit: Some(unit), rows_out, takes_over: is_last, took: None });
        Ok(Some(Turn::Again))
    }
}
