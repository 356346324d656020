//! What one call of `read` gathers, within its limits; for readers of both directions.
//!
//! Invariant: a run that was cut is the last one of its call, and its rest comes first in the next.

use std::sync::Arc;

use bytes::Bytes;

use super::group::{Group, Slice, SliceRun};
use crate::{
    batch::is_mark,
    engine::Engine,
    error::LogError,
    ids::Position,
    life::Beginning,
    record::{Chunk, ReadLimits, Run},
    redaction::Show,
};

/// What one call of `read` returns, and what is left of its limits.
pub(crate) struct Output {
    pub(crate) until: Position,
    pub(crate) limits: ReadLimits,
    pub(crate) runs: Vec<Run>,
    records: u32,
    bytes: u64,
    /// Nothing is left below `until`.
    pub(crate) complete: bool,
    /// Everything selected below was returned, as far as a merged read knows.
    pub(crate) scanned_to: Position,
    /// Where the stream begins whose events are returned.
    pub(crate) beginning: Beginning,
    /// A limit was met.
    full: bool,
    show: Show,
}

impl Output {
    pub(crate) fn new(engine: &Engine, until: Position, limits: ReadLimits) -> Self {
        Self {
            until,
            limits,
            runs: Vec::new(),
            records: 0,
            bytes: 0,
            complete: false,
            scanned_to: Position::default(),
            beginning: Beginning::default(),
            full: false,
            show: Show::new(Arc::clone(&engine.redactions)),
        }
    }

    /// Whether the call ends here.
    pub(crate) fn is_over(&self) -> bool {
        self.complete || self.full || !self.runs.is_empty()
    }

    /// Whether nothing more can be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.full || self.records >= self.limits.records && !self.runs.is_empty()
    }

    /// Takes as much of a run, from its `skip`th record on, as `until` and the limits allow. None: the call is over.
    pub(crate) fn take(&mut self, group: &Group, slice: &Slice, run: &SliceRun, skip: u32) -> Result<Option<u32>, LogError> {
        self.take_run(group.cut(slice, run, skip, run.count - skip)?)
    }

    /// Takes as much of the front of a run as `until` and the limits allow; a mark is passed over. None: the call is over.
    pub(crate) fn take_run(&mut self, run: Run) -> Result<Option<u32>, LogError> {
        let below = u32::try_from(self.until.get().saturating_sub(run.first_position.get())).unwrap_or(u32::MAX);
        if below == 0 {
            self.complete = true;
            return Ok(None);
        }
        // What was cut is gone on with first.
        if !self.full && is_mark(&run) {
            return Ok(Some(run.count));
        }
        let Some(room) = self.room(run.count, &run.batch) else { return Ok(None) };
        let (room, count, batch) = (room.min(below), run.count, run.batch.clone());
        let shown = self.show.show(Run { count: room, ..run })?;
        self.count(room, count, &batch);
        self.runs.push(shown);
        Ok(Some(room))
    }

    /// Takes as much of the end of a run, but for a mark, as `until` and the limits allow, and says how many records are left at its front. None: the
    /// call is over.
    pub(crate) fn take_end(&mut self, run: &Run) -> Result<Option<u32>, LogError> {
        let below = u32::try_from(self.until.get().saturating_sub(run.first_position.get())).unwrap_or(u32::MAX);
        let below = below.min(run.count);
        if below == 0 || !self.full && is_mark(run) {
            return Ok(Some(0));
        }
        let Some(room) = self.room(below, &run.batch) else { return Ok(None) };
        let shown = self.show.show(run.part(below - room, room)?)?;
        self.runs.push(shown);
        self.count(room, below, &run.batch);
        Ok(Some(below - room))
    }

    /// The chunk that it becomes, once everything selected below `scanned_to` was returned.
    pub(crate) fn into_chunk(self, scanned_to: Position) -> Chunk {
        let beginning = (self.beginning != Beginning::default()).then_some(self.beginning);
        Chunk { runs: self.runs, scanned_to, beginning }
    }

    /// How many of `count` records the limits allow.
    fn room(&self, count: u32, batch: &Bytes) -> Option<u32> {
        // What was cut is gone on with in the next call; nothing may come between.
        if self.full {
            return None;
        }
        let left = u64::from(self.limits.bytes).saturating_sub(self.bytes) / record_bytes(batch);
        let room = u64::from(self.limits.records.saturating_sub(self.records)).min(left);
        if room == 0 && !self.runs.is_empty() {
            return None;
        }
        Some(count.min(u32::try_from(room.max(1)).unwrap_or(u32::MAX)))
    }

    /// Counts `taken` records of the `asked` that there were.
    fn count(&mut self, taken: u32, asked: u32, batch: &Bytes) {
        self.full = taken < asked;
        self.records += taken;
        self.bytes += u64::from(taken) * record_bytes(batch);
    }
}

/// A record's share of the bytes of its batch. The runs of a merged read take turns between batches, so that a batch counts by
/// what is returned of it, not whole and not once.
fn record_bytes(batch: &Bytes) -> u64 {
    let records = batch.get(RECORD_COUNT).and_then(|count| <[u8; 4]>::try_from(count).ok()).map_or(1, u32::from_be_bytes);
    (batch.len() as u64).div_ceil(u64::from(records.max(1))).max(1)
}

/// Place of the number of records in a batch. Format: `log/FORMAT.md`, "Batches".
const RECORD_COUNT: std::ops::Range<usize> = 57..61;
