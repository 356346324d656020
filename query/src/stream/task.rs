//! One query over all partitions of its sources: takes rows in position order, folds them in steps, commits each as one unit.
//!
//! Run by the workers, a turn at a time. A step is computed while the one before it becomes durable; it is handed to the log
//! only when that one is durable, so that a unit the log refuses can wait without being overtaken. A step that writes more than
//! a unit may hold is taken back and done again with half of its rows. Invariants: units are appended in step order; readers
//! see a step when its unit is durable, never before; what a query writes does not depend on where its steps end.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use foldlog_log::{Append, AppendFuture, Appended, LogBackend, LogError, NewRecord, Position, clock::Clock};
use tokio::sync::watch;

use crate::{
    answer::ChangeOp,
    codec::Carried,
    error::QueryError,
    plan::bytes_of,
    processing_log::{self, Fault, ProcessingLog},
    stream::{
        change::ChangeBatch,
        check::{Checker, Place},
        checkpoint::debt::Debt,
        commit::{Progress, SystemTopics},
        fold::Fold,
        operator::{
            chain::{Chain, Faults},
            changed::Changed,
            sink::TopicSink,
        },
        pace::{Pace, StepLimits},
        query::{Committed, Query},
        source::{Intake, Taken},
        state::Version,
        succession::{Difference, Piece, Succession},
        worker::{Pool, Turn, Work},
    },
    supervisor::QueryState,
};

/// Steps that may be computed and not yet durable.
const PENDING_STEPS: usize = 2;
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
/// How long a unit waits that the log had no room for.
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// How long a unit waits that the disk had no room for.
const RETRY_DISK_AFTER: Duration = Duration::from_secs(1);
/// How often a query tries again what the log failed at, without a step between, before it is stopped.
const RETRIES: u32 = 8;
/// How long it waits before the first of them; twice as long before each further one.
const FIRST_RETRY_AFTER: Duration = Duration::from_millis(100);

/// What a task is made of.
pub(crate) struct Parts {
    pub(crate) log: Arc<dyn LogBackend>,
    pub(crate) clock: Arc<dyn Clock>,
    /// What else wants to be run.
    pub(crate) pool: Pool,
    pub(crate) query: Arc<Query>,
    pub(crate) topics: SystemTopics,
    pub(crate) intake: Box<dyn Intake>,
    /// What runs before the state, or all there is.
    pub(crate) before: Chain,
    pub(crate) fold: Option<Arc<Fold>>,
    /// None: the query writes nothing.
    pub(crate) sink: Option<TopicSink>,
    /// Where reading starts.
    pub(crate) from: Position,
    /// Outputs below this position are in the log already.
    pub(crate) output_from: Position,
    /// Where the query's fold starts, for its progress.
    pub(crate) start: Position,
    pub(crate) fingerprint: u64,
    /// What it has to do before it writes, if it takes another one's place; until then nothing is output.
    pub(crate) succession: Option<Succession>,
    /// Memory that the state may take, in bytes.
    pub(crate) state_budget: usize,
    pub(crate) limits: StepLimits,
    /// What is to be told how much a crash would cost; none: the state is not kept over a restart.
    pub(crate) debt: Option<Arc<Debt>>,
}

/// A query's task.
pub(crate) struct Task {
    parts: Parts,
    durable: Durable,
    /// What one unit may hold.
    room: Room,
    /// Everything of the source below this position is in a step.
    taken_to: Position,
    /// Rows that were taken and had no place in the newest step, in order.
    left: VecDeque<Taken>,
    /// What reading failed at when a step was made of what it had given before.
    unread: Option<QueryError>,
    pace: Pace,
    /// In debug builds.
    checker: Option<Checker>,
    /// Computed and not yet published, oldest first.
    pending: VecDeque<Step>,
    /// The unit of the first pending step, on its way.
    under_way: Option<AppendFuture>,
    /// Progress that no unit has told yet, and when the last one did.
    untold: bool,
    told_at: Duration,
    /// How often the log failed since the last step, and when to try again.
    failures: u32,
    tries_again_at: Option<Duration>,
    processing_log: ProcessingLog,
}

/// What one step did.
struct Step {
    folded: Position,
    versions: Option<(Version, Version)>,
    /// What it writes; kept until it is durable, for the case that the log refuses it.
    unit: Option<Append>,
    rows_out: u64,
    /// The topic holds this query's table from now on.
    takes_over: bool,
    /// How long it took to fold; none if nothing was.
    took: Option<Duration>,
}

/// What one unit may hold of outputs.
#[derive(Clone, Copy, Default)]
struct Room {
    /// Most records.
    records: usize,
    /// Most bytes, of a step of several rows and of one of a single row.
    bytes: usize,
    bytes_of_one: usize,
}

impl Room {
    fn of(log: &dyn LogBackend) -> Self {
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

/// The durable end of the log, and a wake-up when it moves.
struct Durable {
    position: Position,
    receiver: watch::Receiver<Position>,
    moved: Option<Moved>,
}

type Moved = Pin<Box<dyn Future<Output = Option<watch::Receiver<Position>>> + Send>>;

impl Durable {
    fn new(receiver: watch::Receiver<Position>) -> Self {
        let position = *receiver.borrow();
        Self { position, receiver, moved: None }
    }

    /// The durable end now; the task is woken when it has moved beyond it. None when the log has stopped.
    fn poll(&mut self, context: &mut Context<'_>) -> Option<Position> {
        loop {
            let moved = self.moved.get_or_insert_with(|| {
                let mut receiver = self.receiver.clone();
                self.position = *receiver.borrow_and_update();
                Box::pin(async move { receiver.changed().await.ok().map(|()| receiver) })
            });
            match moved.as_mut().poll(context) {
                Poll::Pending => return Some(self.position),
                Poll::Ready(None) => return None,
                Poll::Ready(Some(receiver)) => {
                    self.receiver = receiver;
                    self.moved = None;
                }
            }
        }
    }
}

impl Work for Task {
    fn turn(&mut self, waker: &Waker) -> Turn {
        if let Some(wait) = self.still_waits() {
            return Turn::Later(wait);
        }
        match self.go(&mut Context::from_waker(waker)) {
            Ok(turn) => turn,
            Err(QueryError::Stopping | QueryError::Log(LogError::Stopping | LogError::Unknown)) => {
                self.parts.query.end(QueryState::Stopped);
                Turn::Done
            }
            // Nothing of a step was folded before its rows were read, and a unit that was not written is still there.
            Err(error @ QueryError::Log(_)) => self.try_again(&chain_of(&error)),
            Err(error) => self.fail(chain_of(&error)),
        }
    }

    fn panicked(&mut self, what: String) {
        self.fail(format!("a fault in foldlog: {what}"));
    }
}

/// An error with its causes, in one line.
fn chain_of(error: &QueryError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

impl Task {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            durable: Durable::new(parts.log.durable()),
            room: Room::of(parts.log.as_ref()),
            taken_to: parts.from,
            left: VecDeque::new(),
            unread: None,
            checker: if cfg!(debug_assertions) {
                parts.fold.as_ref().map_or_else(|| Some(Checker::default()), |fold| Checker::of(fold).ok())
            } else {
                None
            },
            pace: Pace::new(Arc::clone(&parts.clock), parts.limits),
            pending: VecDeque::new(),
            under_way: None,
            untold: false,
            told_at: parts.clock.monotonic(),
            failures: 0,
            tries_again_at: None,
            processing_log: ProcessingLog::default(),
            parts,
        }
    }

    /// How long it is until a failed query tries again, whatever wakes it before; one that is to stop does so at once.
    fn still_waits(&mut self) -> Option<Duration> {
        let wait = self.tries_again_at?.saturating_sub(self.parts.clock.monotonic());
        if wait.is_zero() || self.parts.query.stopping() {
            self.tries_again_at = None;
            return None;
        }
        Some(wait)
    }

    /// What the log failed at may succeed later; what fails again and again ends the query.
    fn try_again(&mut self, reason: &str) -> Turn {
        if self.parts.query.stopping() {
            self.parts.query.end(QueryState::Stopped);
            return Turn::Done;
        }
        if self.failures == RETRIES {
            return self.fail(format!("{reason} (it was tried {} times)", self.failures + 1));
        }
        let wait = FIRST_RETRY_AFTER * 2_u32.pow(self.failures);
        tracing::warn!(query = self.parts.query.id(), reason, wait_ms = wait.as_millis(), "query failed and tries again");
        self.failures += 1;
        self.tries_again_at = Some(self.parts.clock.monotonic() + wait);
        self.parts.query.troubled(Some(reason));
        Turn::Later(wait)
    }

    /// The log does what is asked of it again.
    fn recovered(&mut self) {
        if self.failures > 0 {
            self.failures = 0;
            self.parts.query.troubled(None);
        }
    }

    fn fail(&mut self, reason: String) -> Turn {
        tracing::error!(query = self.parts.query.id(), reason, "query stopped");
        // Who reads that log is told by SHOW QUERIES alone; what cannot be appended is told there, too.
        if self.parts.sink.is_some()
            && !self.parts.query.reads_processing_log()
            && let Some(record) = processing_log::stopped(self.parts.query.id(), self.taken_to.get(), &reason)
        {
            drop(self.parts.log.append(self.parts.topics.fault(record)));
        }
        self.parts.query.end(QueryState::Failed(reason));
        Turn::Done
    }

    fn go(&mut self, context: &mut Context<'_>) -> Result<Turn, QueryError> {
        let mut computed = false;
        loop {
            if let Some(wait) = self.settle(context)? {
                if !self.parts.query.stopping() {
                    return Ok(wait);
                }
                // What the log has no room for is done again after the next start.
                self.parts.query.end(QueryState::Stopped);
                return Ok(Turn::Done);
            }
            if self.parts.query.stopping() {
                if self.pending.is_empty() && !self.tell_progress() {
                    self.parts.query.end(QueryState::Stopped);
                    return Ok(Turn::Done);
                }
                // The unit under way wakes this task.
                if self.under_way.is_some() {
                    return Ok(Turn::Wait);
                }
                continue;
            }
            if self.pending.len() >= PENDING_STEPS {
                return Ok(Turn::Wait);
            }
            if self.parts.sink.is_none()
                && let Some(turn) = self.wait_for_listener(context.waker())
            {
                return Ok(turn);
            }
            let durable = self.durable.poll(context).ok_or(QueryError::Stopping)?;
            let until = self.parts.query.read_up_to(self.bounded(durable));
            if self.taken_to >= until || self.is_succeeding() {
                if let Some(turn) = self.succeed()? {
                    return Ok(turn);
                }
                self.follow_upstream()?;
                return Ok(Turn::Wait);
            }
            if computed {
                return Ok(Turn::Again);
            }
            // Decoding on another worker wakes this task.
            let Some(step) = self.step(until, context.waker())? else { return Ok(Turn::Wait) };
            self.pending.push_back(step);
            computed = true;
        }
    }

    /// Whether it writes the difference to what another query has written: then the table stands still.
    fn is_succeeding(&self) -> bool {
        self.parts.succession.as_ref().is_some_and(|succession| succession.difference.is_some())
    }

    /// Once all that there is is folded, takes the place of another query: none if there is no other, or nothing to do.
    fn succeed(&mut self) -> Result<Option<Turn>, QueryError> {
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

    /// A step ends where output begins.
    fn bounded(&self, durable: Position) -> Position {
        if self.taken_to < self.parts.output_from { durable.min(self.parts.output_from) } else { durable }
    }

    /// A query without a sink goes at the pace of its one listener, and ends with it.
    fn wait_for_listener(&self, waker: &Waker) -> Option<Turn> {
        let (gone, full) = self.parts.query.at_frontier(|_, listeners| {
            let Some(listener) = listeners.first() else { return (true, false) };
            // The order matters: room made after this look wakes the task.
            listener.wake_for_room(waker);
            (listener.is_closed(), listener.is_full())
        });
        if gone {
            self.parts.query.end(QueryState::Stopped);
            return Some(Turn::Done);
        }
        full.then_some(Turn::Wait)
    }

    /// Publishes what has become durable and hands over what comes next; some if the log refused that, and when to try again.
    fn settle(&mut self, context: &mut Context<'_>) -> Result<Option<Turn>, QueryError> {
        loop {
            if let Some(append) = self.under_way.as_mut() {
                match append.as_mut().poll(context) {
                    Poll::Pending => return Ok(None),
                    Poll::Ready(answer) => {
                        self.under_way = None;
                        match answer {
                            Ok(appended) => self.publish(Some(&appended))?,
                            Err(error) => return refused(error).map(Some),
                        }
                    }
                }
            }
            let Some(step) = self.pending.front() else { return Ok(None) };
            match &step.unit {
                None => self.publish(None)?,
                Some(unit) => match self.parts.log.append(unit.clone()) {
                    Ok(append) => self.under_way = Some(append),
                    Err(error) => return refused(error).map(Some),
                },
            }
        }
    }

    fn publish(&mut self, appended: Option<&Appended>) -> Result<(), QueryError> {
        let Some(step) = self.pending.pop_front() else { return Ok(()) };
        self.recovered();
        self.parts.query.rows_out.fetch_add(step.rows_out, Ordering::Relaxed);
        self.parts.query.publish(&Committed {
            folded: step.folded,
            versions: step.versions,
            unit_end: appended.map(|appended| appended.end),
            shows: step.takes_over || self.parts.succession.is_none(),
        })?;
        // Only now could a checkpoint settle it.
        if let (Some(debt), Some(took)) = (&self.parts.debt, step.took) {
            debt.add(took);
        }
        if let Some(succession) = self.parts.succession.take_if(|_| step.takes_over) {
            self.parts.output_from = step.folded;
            self.parts.query.has_succeeded();
            (succession.take_over)(appended.map_or(step.folded, |appended| appended.end));
        }
        Ok(())
    }

    /// The frontier of a query below another one moves with that one, even if no record comes.
    fn follow_upstream(&self) -> Result<(), QueryError> {
        let query = &self.parts.query;
        if query.live_upstream().is_empty() || !self.pending.is_empty() || query.frontier_after(self.taken_to) <= query.frontier() {
            return Ok(());
        }
        let shows = self.parts.succession.is_none();
        query.publish(&Committed { folded: self.taken_to, versions: None, unit_end: None, shows })
    }

    /// Takes a step's worth of rows and folds them; none if they are still being decoded.
    fn step(&mut self, until: Position, waker: &Waker) -> Result<Option<Step>, QueryError> {
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

    fn progress(&self) -> Progress {
        Progress { position: self.taken_to.get(), start: self.parts.start.get(), fingerprint: self.parts.fingerprint }
    }

    /// Before it ends a task tells how far it is; gives whether there was something to tell.
    fn tell_progress(&mut self) -> bool {
        if !self.untold || self.parts.sink.is_none() {
            return false;
        }
        self.untold = false;
        let unit = self.parts.topics.unit(self.parts.query.id(), None, Vec::new(), self.progress()).ok();
        self.pending.push_back(Step { folded: self.taken_to, versions: None, unit, rows_out: 0, takes_over: false, took: None });
        true
    }
}

/// Whether a unit that the log refused may be handed over again, and when.
fn refused(error: LogError) -> Result<Turn, QueryError> {
    match error {
        LogError::Overloaded { .. } => Ok(Turn::Later(RETRY_AFTER)),
        LogError::DiskFull { .. } => Ok(Turn::Later(RETRY_DISK_AFTER)),
        other => Err(other.into()),
    }
}

fn nulled(position: u64, reason: String) -> Fault {
    Fault { what: "nulled", topic: None, partition: None, offset: None, position, reason }
}

/// Whether a query over this topic would feed itself if it wrote to the processing log.
pub(crate) fn is_processing_log(topic: &foldlog_log::TopicName) -> bool {
    topic.as_str() == processing_log::TOPIC
}
