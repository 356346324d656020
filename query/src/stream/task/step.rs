//! One step of a task: rows are taken, run, folded, and what they write is made into a unit.
//!
//! A step that is too much for a unit, or for the memory that a batch may take, is taken back and done again with half of its rows.
//! Invariant: where its steps end changes nothing of what a query writes but how often a coalesced table tells of a row.

use std::{
    sync::{Arc, atomic::Ordering},
    task::Waker,
    time::Duration,
};

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use foldlog_log::{Append, LogBackend, NewRecord, Position};

use super::{Step, Task};
use crate::{
    answer::ChangeOp,
    codec::Carried,
    error::QueryError,
    plan::bytes_of,
    processing_log::Fault,
    stream::{
        change::ChangeBatch,
        check::{Checker, Place},
        fold::Fold,
        operator::{chain::Faults, changed::Changed, sink::TopicSink},
        source::Taken,
        state::Version,
    },
};

/// Most bytes of outputs in one unit, but for a step of a single row, where the log takes twice as much in one append; else half of
/// what it takes.
const UNIT_BYTES: usize = 8 << 20;
/// Bytes of keys and texts that are read from the state at once, but for a single group.
const SLICE_BYTES: usize = 1 << 20;
/// Records of a unit that are kept free for what the query tells of itself.
const RECORDS_BESIDE: u64 = 64;
/// What a record takes beside its key and value, at most.
const BESIDE: usize = 32;
/// How long a step may go without telling its progress if it has nothing else to write.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What one unit may hold of outputs.
#[derive(Clone, Copy, Default)]
pub(super) struct Room {
    /// Most records.
    records: usize,
    /// Most bytes, of a step of several rows and of one of a single row.
    bytes: usize,
    bytes_of_one: usize,
}

impl Room {
    pub(super) fn of(log: &dyn LogBackend) -> Self {
        let limits = log.capabilities();
        let records = usize::try_from(limits.append_records.saturating_sub(RECORDS_BESIDE)).unwrap_or(usize::MAX);
        let bytes = usize::try_from(limits.append_bytes / 2).map_or(UNIT_BYTES, |most| most.min(UNIT_BYTES));
        Self { records, bytes, bytes_of_one: bytes.saturating_mul(2).saturating_sub(SLICE_BYTES / 16) }
    }
}

/// What a step has made so far.
#[derive(Default)]
struct Made {
    room: Room,
    /// Versions of the state before and after, if it changed.
    versions: Option<(Version, Version)>,
    records: Vec<NewRecord>,
    /// What the records that were read hand on to those written of them.
    carried: Arc<Carried>,
    /// Bytes of the records, with what the log adds.
    written: usize,
    /// Bytes that went into the state.
    folded: usize,
    /// Values that became NULL, results that were not written.
    faults: Faults,
    /// Position of the newest record that was folded.
    newest: u64,
    /// Rows looked at.
    rows: usize,
    /// Whether it was too much for the checker.
    unchecked: bool,
    /// What the checker is told if the step stays: rows without a past, and outputs of the state. In debug builds.
    appended: Vec<(Place, ChangeBatch)>,
    told: Vec<Told>,
}

/// What listeners would hear of a part of a step, and what its sink got, if it writes.
struct Told {
    rows: RecordBatch,
    ops: Vec<ChangeOp>,
    sink: Option<Vec<ChangeBatch>>,
}

impl Made {
    /// Whether the step should end, lest it write more than a unit may hold or keep too much text.
    fn is_heavy(&self) -> bool {
        self.written.max(self.folded) >= self.room.bytes / 2 || self.records.len() >= self.room.records / 2
    }

    fn write(&mut self, sink: &TopicSink, rows: &ChangeBatch) -> Result<(), QueryError> {
        let records = sink.records(rows, &self.carried, &mut self.faults)?;
        let headers = |record: &NewRecord| -> usize {
            record.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len)).sum()
        };
        let bytes = |record: &NewRecord| {
            record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len) + headers(record) + BESIDE
        };
        let (count, written) = (self.records.len() + records.len(), self.written + records.iter().map(bytes).sum::<usize>());
        let most = if self.rows > 1 { self.room.bytes } else { self.room.bytes_of_one };
        if count <= self.room.records && written <= most {
            self.written = written;
            self.records.extend(records);
            return Ok(());
        }
        if self.rows > 1 {
            return Err(QueryError::ResourceExhausted(format!("a step wrote {count} records of {written} bytes")));
        }
        let reason = format!("the row makes {count} records of {written} bytes, more than can be written at once; none was written");
        self.faults.extend(rows.positions.first().map(|position| (*position, reason)));
        Ok(())
    }
}

impl Task {
    /// Takes a step's worth of rows and folds them; none if they are still being decoded.
    pub(super) fn step(&mut self, until: Position, waker: &Waker) -> Result<Option<Step>, QueryError> {
        self.pace.begin();
        let Some(first) = self.take(until, waker)? else { return Ok(None) };
        // A step ends where output begins.
        let silent = first.scanned_to <= self.parts.output_from || self.parts.succession.is_some();
        let mut taken = vec![first];
        let made = loop {
            let mut made = Made { room: self.room, ..Made::default() };
            match self.attempt(&mut taken, (until, waker), silent, &mut made) {
                Ok(()) => break made,
                // What is too much for one step is not for several.
                Err(QueryError::ResourceExhausted(_)) if made.rows > 1 => {
                    if let (Some(fold), Some((from, _))) = (&self.parts.fold, made.versions) {
                        fold.roll_back_to(from);
                    }
                    let fitting = self.pace.shorten(made.rows);
                    self.leave(&mut taken, fitting);
                }
                Err(fault) => return Err(fault),
            }
        };
        self.check(&made)?;
        self.within_budget()?;
        let took = self.pace.end(made.rows);
        let records: u64 = taken.iter().map(|taken| taken.records).sum();
        let mut fault_count: u64 = taken.iter().map(|taken| taken.fault_count).sum();
        self.taken_to = taken.last().map_or(self.taken_to, |taken| taken.scanned_to);
        self.parts.query.rows_in.fetch_add(records, Ordering::Relaxed);
        let mut step = Step {
            folded: self.taken_to,
            versions: made.versions,
            unit: None,
            rows_out: 0,
            takes_over: false,
            took: (records > 0 || made.rows > 0).then_some(took),
        };
        if silent {
            return Ok(Some(step));
        }
        self.untold |= records > 0;
        fault_count += made.faults.len() as u64;
        let mut faults: Vec<Fault> = taken.into_iter().flat_map(|taken| taken.faults).collect();
        faults.extend(made.faults.into_iter().map(|(position, reason)| nulled(position, reason)));
        self.parts.query.bad_rows.fetch_add(fault_count, Ordering::Relaxed);
        step.rows_out = made.records.len() as u64;
        step.unit = self.unit(made.records, &faults, fault_count)?;
        Ok(Some(step))
    }

    /// What the step before left, then what is new; all of it below `until`.
    fn take(&mut self, until: Position, waker: &Waker) -> Result<Option<Taken>, QueryError> {
        let Some(mut left) = self.left.pop_front() else {
            return match self.unread.take() {
                Some(error) => Err(error),
                None => self.parts.intake.take(until, waker),
            };
        };
        let Some(first) = left.split_below(until) else { return Ok(Some(left)) };
        self.left.push_front(left);
        Ok(Some(first))
    }

    /// More for a step that has taken something; what fails then fails the next step.
    fn take_more(&mut self, until: Position, waker: &Waker) -> Option<Taken> {
        self.take(until, waker).unwrap_or_else(|error| {
            self.unread = Some(error);
            None
        })
    }

    /// Leaves all but the first `rows` for the next step.
    fn leave(&mut self, taken: &mut Vec<Taken>, mut rows: usize) {
        let mut whole = 0;
        while let Some(first) = taken.get(whole).filter(|taken| taken.rows.len() <= rows) {
            rows -= first.rows.len();
            whole += 1;
        }
        let mut later = taken.split_off(whole);
        if let Some(cut) = later.first_mut()
            && rows > 0
            && let Some(next) = cut.rows.positions.get(rows).copied()
        {
            taken.extend(cut.split_below(Position::new(next)));
        }
        later.into_iter().rev().for_each(|later| self.left.push_front(later));
    }

    /// Folds rows until it is enough for a step, leaves the others, and makes what the step writes.
    ///
    /// # Errors
    /// [`QueryError::ResourceExhausted`] if that is more than a step may write or compute at once.
    fn attempt(
        &mut self,
        taken: &mut Vec<Taken>,
        (until, waker): (Position, &Waker),
        silent: bool,
        made: &mut Made,
    ) -> Result<(), QueryError> {
        let (mut place, mut looked, mut is_enough) = (0, 0, false);
        while let Some(here) = taken.get(place) {
            let is_all = here.scanned_to >= until;
            if looked < here.rows.len() {
                let part = here.rows.slice(looked, self.pace.look().min(here.rows.len() - looked));
                made.carried = Arc::clone(&here.carried);
                looked += part.len();
                made.rows += part.len();
                let more = looked < here.rows.len() || place + 1 < taken.len();
                self.part(part, silent, made)?;
                if more && self.is_enough(made) {
                    is_enough = true;
                    self.leave(taken, made.rows);
                }
                continue;
            }
            (place, looked) = (place + 1, 0);
            if place == taken.len() && !is_all && !is_enough && !self.is_enough(made) {
                taken.extend(self.take_more(until, waker));
            }
        }
        match (&self.parts.fold, made.versions) {
            (Some(fold), Some((from, _))) if fold.tells_all() && !silent => fold.join_after(from),
            (Some(fold), Some(versions)) => self.output_of_fold(fold, versions, silent, made)?,
            _ => {}
        }
        Ok(())
    }

    fn is_enough(&mut self, made: &Made) -> bool {
        made.is_heavy() || self.pace.is_enough(made.rows, self.parts.pool.waiting() > 0)
    }

    /// Runs a part of a step.
    fn part(&self, rows: ChangeBatch, silent: bool, made: &mut Made) -> Result<(), QueryError> {
        if self.checker.is_some() {
            made.appended.push((Place::Source, rows.clone()));
        }
        let rows = self.parts.before.run(rows, &mut made.faults)?;
        if rows.is_empty() {
            return Ok(());
        }
        if self.checker.is_some() {
            made.appended.push((Place::Chain, rows.clone()));
        }
        match (&self.parts.fold, &self.parts.sink) {
            (Some(fold), _) => self.fold_part(fold, rows, silent, made),
            (None, Some(sink)) if !silent => made.write(sink, &rows),
            (None, _) => Ok(()),
        }
    }

    /// Folds a part of a step: into one version with the rest of it, or where each record's change is written, into as many as
    /// that takes.
    fn fold_part(&self, fold: &Fold, rows: ChangeBatch, silent: bool, made: &mut Made) -> Result<(), QueryError> {
        made.newest = rows.positions.last().copied().unwrap_or(made.newest);
        made.folded += rows.rows.columns().iter().map(bytes_of).sum::<usize>();
        if silent || !fold.tells_all() {
            if made.versions.is_none() {
                made.versions = Some(fold.begin());
            }
            return fold.fold(rows);
        }
        let mut start = 0;
        for end in fold.cuts(&rows)? {
            let (from, to) = fold.begin();
            made.versions = Some((made.versions.map_or(from, |(first, _)| first), to));
            fold.fold(rows.slice(start, end - start))?;
            self.output_of_fold(fold, (from, to), silent, made)?;
            start = end;
        }
        Ok(())
    }

    /// What a version of the state, which is the newest, writes.
    fn output_of_fold(&self, fold: &Fold, (from, to): (Version, Version), silent: bool, made: &mut Made) -> Result<(), QueryError> {
        let mut told = None;
        if let (Some(sink), false) = (&self.parts.sink, silent) {
            let changed = fold.changed(from, to)?;
            let mut rest = changed.as_slice();
            let mut outputs = Vec::new();
            while !rest.is_empty() {
                let (slice, later) = rest.split_at(Changed::within(rest, SLICE_BYTES));
                let output = fold.outputs(slice, (from, to), made.newest, &mut made.faults)?;
                if !output.is_empty() {
                    made.write(sink, &output)?;
                }
                if self.checker.is_some() {
                    outputs.push(output);
                }
                rest = later;
            }
            told = Some(outputs);
        }
        if self.checker.is_some() {
            match fold.changes(from, to) {
                Ok((rows, ops)) => made.told.push(Told { rows, ops, sink: told }),
                // Too much to be looked at in one piece; without it the checker would not know the rows any more.
                Err(QueryError::ResourceExhausted(_)) => made.unchecked = true,
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    /// Tells the checker of a step that stays.
    fn check(&mut self, made: &Made) -> Result<(), QueryError> {
        if made.unchecked {
            self.checker = None;
        }
        let Some(checker) = &mut self.checker else { return Ok(()) };
        made.appended.iter().try_for_each(|(place, rows)| checker.appended(*place, rows))?;
        let (Some(fold), Some(_)) = (&self.parts.fold, &self.parts.sink) else { return Ok(()) };
        for told in &made.told {
            checker.changed(fold.keys(), &told.rows, &told.ops)?;
            if let Some(sink) = &told.sink {
                Checker::told(fold.keys(), &told.rows, &told.ops, sink, fold.tells_all())?;
            }
        }
        Ok(())
    }

    fn within_budget(&self) -> Result<(), QueryError> {
        let Some(fold) = &self.parts.fold else { return Ok(()) };
        let bytes = fold.bytes_within(self.parts.state_budget);
        if bytes <= self.parts.state_budget {
            return Ok(());
        }
        Err(QueryError::ResourceExhausted(format!(
            "the state of the query has {bytes} bytes, its budget is {}; raise query.state_mib or group by fewer keys",
            self.parts.state_budget
        )))
    }

    /// The unit of a step, if it has something to say.
    fn unit(&mut self, records: Vec<NewRecord>, faults: &[Fault], fault_count: u64) -> Result<Option<Append>, QueryError> {
        let Some(sink) = &self.parts.sink else { return Ok(None) };
        let now = self.parts.clock.monotonic();
        let faults = if self.parts.query.reads_processing_log() {
            Vec::new()
        } else {
            self.processing_log.records(self.parts.query.id(), faults, fault_count, now)
        };
        let due = self.untold && now.saturating_sub(self.told_at) >= PROGRESS_EVERY;
        if records.is_empty() && faults.is_empty() && !due {
            return Ok(None);
        }
        (self.untold, self.told_at) = (false, now);
        self.parts.topics.unit(self.parts.query.id(), Some((sink.topic(), records)), faults, self.progress()).map(Some)
    }
}

fn nulled(position: u64, reason: String) -> Fault {
    Fault { what: "nulled", topic: None, partition: None, offset: None, position, reason }
}
