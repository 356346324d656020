//! One query over all partitions of its sources: takes rows in position order, folds them in steps, commits each as one unit.
//!
//! Run by the workers, a turn at a time. A step is computed while the one before it becomes durable; it is handed to the log
//! only when that one is durable, so that a unit the log refuses can wait without being overtaken. Invariants: units are
//! appended in step order; readers see a step when its unit is durable, never before; a step is computed once.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use foldlog_log::{Append, AppendFuture, Appended, LogBackend, LogError, NewRecord, Position, clock::Clock};
use tokio::sync::watch;

use crate::{
    error::QueryError,
    processing_log::{self, Fault, ProcessingLog},
    stream::{
        change::ChangeBatch,
        check::{Checker, Place},
        commit::{Progress, SystemTopics},
        fold::Fold,
        operator::{
            chain::{Chain, Faults},
            sink::TopicSink,
        },
        pace::{Pace, StepLimits},
        query::{Committed, Query},
        source::{Intake, Taken},
        state::Version,
        worker::{Turn, Work},
    },
    supervisor::QueryState,
};

/// Steps that may be computed and not yet durable.
const PENDING_STEPS: usize = 2;
/// How long a step may go without telling its progress if it has nothing else to write.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How long a unit waits that the log had no room for.
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// How long a unit waits that the disk had no room for.
const RETRY_DISK_AFTER: Duration = Duration::from_secs(1);

/// What a task is made of.
pub(crate) struct Parts {
    pub(crate) log: Arc<dyn LogBackend>,
    pub(crate) clock: Arc<dyn Clock>,
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
    /// Memory that the state may take, in bytes.
    pub(crate) state_budget: usize,
    pub(crate) limits: StepLimits,
}

/// A query's task.
pub(crate) struct Task {
    parts: Parts,
    durable: Durable,
    /// Everything of the source below this position is in a step.
    taken_to: Position,
    /// Rows that were taken and had no place in the newest step.
    left: Option<Taken>,
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
    processing_log: ProcessingLog,
}

/// What one step did.
struct Step {
    folded: Position,
    versions: Option<(Version, Version)>,
    /// What it writes; kept until it is durable, for the case that the log refuses it.
    unit: Option<Append>,
    rows_out: u64,
}

/// What a step has made so far.
#[derive(Default)]
struct Made {
    /// Versions of the state before and after, if it changed.
    versions: Option<(Version, Version)>,
    records: Vec<NewRecord>,
    /// Values that became NULL, results that were not written.
    faults: Faults,
    /// Position of the newest record that was folded.
    newest: u64,
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
        match self.go(&mut Context::from_waker(waker)) {
            Ok(turn) => turn,
            Err(QueryError::Stopping | QueryError::Log(LogError::Stopping | LogError::Unknown)) => {
                self.parts.query.end(QueryState::Stopped);
                Turn::Done
            }
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
            taken_to: parts.from,
            left: None,
            checker: cfg!(debug_assertions).then(Checker::default),
            pace: Pace::new(Arc::clone(&parts.clock), parts.limits),
            pending: VecDeque::new(),
            under_way: None,
            untold: false,
            told_at: parts.clock.monotonic(),
            processing_log: ProcessingLog::default(),
            parts,
        }
    }

    fn fail(&mut self, reason: String) -> Turn {
        tracing::error!(query = self.parts.query.id(), reason, "query stopped");
        self.parts.query.end(QueryState::Failed(reason));
        Turn::Done
    }

    fn go(&mut self, context: &mut Context<'_>) -> Result<Turn, QueryError> {
        let mut computed = false;
        loop {
            if let Some(wait) = self.settle(context)? {
                return Ok(wait);
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
            if self.taken_to >= until {
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

    /// Publishes what has become durable and hands over what comes next; some if the task must wait before it goes on.
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
        self.parts.query.rows_out.fetch_add(step.rows_out, Ordering::Relaxed);
        self.parts.query.publish(&Committed {
            folded: step.folded,
            versions: step.versions,
            unit_end: appended.map(|appended| appended.end),
        })
    }

    /// The frontier of a query below another one moves with that one, even if no record comes.
    fn follow_upstream(&self) -> Result<(), QueryError> {
        let query = &self.parts.query;
        if query.live_upstream().is_none() || !self.pending.is_empty() || query.frontier_after(self.taken_to) <= query.frontier() {
            return Ok(());
        }
        query.publish(&Committed { folded: self.taken_to, versions: None, unit_end: None })
    }

    /// Takes a step's worth of rows and folds them; none if they are still being decoded.
    fn step(&mut self, until: Position, waker: &Waker) -> Result<Option<Step>, QueryError> {
        self.pace.begin();
        let Some(mut taken) = self.take(until, waker)? else { return Ok(None) };
        // A step ends where output begins.
        let silent = taken.scanned_to <= self.parts.output_from;
        let mut made = Made::default();
        let mut done = 0;
        while done < taken.rows.len() {
            let part = taken.rows.slice(done, self.pace.look().min(taken.rows.len() - done));
            done += part.len();
            self.part(part, silent, &mut made)?;
            if let Some(next) = taken.rows.positions.get(done).filter(|_| self.pace.is_enough(done))
                && let Some(first) = taken.split_below(Position::new(*next))
            {
                self.left = Some(std::mem::replace(&mut taken, first));
            }
        }
        self.output_of_fold(silent, &mut made)?;
        self.pace.end(done);
        let Taken { records, mut faults, mut fault_count, scanned_to, .. } = taken;
        self.parts.query.rows_in.fetch_add(records, Ordering::Relaxed);
        self.taken_to = scanned_to;
        let mut step = Step { folded: scanned_to, versions: made.versions, unit: None, rows_out: 0 };
        if silent {
            return Ok(Some(step));
        }
        self.untold |= records > 0;
        fault_count += made.faults.len() as u64;
        faults.extend(made.faults.into_iter().map(|(position, reason)| nulled(position, reason)));
        self.parts.query.bad_rows.fetch_add(fault_count, Ordering::Relaxed);
        step.rows_out = made.records.len() as u64;
        step.unit = self.unit(made.records, &faults, fault_count)?;
        Ok(Some(step))
    }

    /// What the step before left, then what is new; all of it below `until`.
    fn take(&mut self, until: Position, waker: &Waker) -> Result<Option<Taken>, QueryError> {
        match self.left.take() {
            Some(mut left) => match left.split_below(until) {
                Some(first) => {
                    self.left = Some(left);
                    Ok(Some(first))
                }
                None => Ok(Some(left)),
            },
            None => self.parts.intake.take(until, waker),
        }
    }

    /// Runs a part of a step.
    fn part(&mut self, rows: ChangeBatch, silent: bool, made: &mut Made) -> Result<(), QueryError> {
        if let Some(checker) = &mut self.checker {
            checker.appended(Place::Source, &rows)?;
        }
        let rows = self.parts.before.run(rows, &mut made.faults)?;
        if rows.is_empty() {
            return Ok(());
        }
        if let Some(checker) = &mut self.checker {
            checker.appended(Place::Chain, &rows)?;
        }
        match (&self.parts.fold, &self.parts.sink) {
            (Some(fold), _) => {
                if made.versions.is_none() {
                    made.versions = Some(fold.begin());
                }
                made.newest = rows.positions.last().copied().unwrap_or(made.newest);
                fold.fold(rows)
            }
            (None, Some(sink)) if !silent => {
                made.records.extend(sink.records(&rows, &mut made.faults)?);
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }

    /// What a step with state writes.
    fn output_of_fold(&mut self, silent: bool, made: &mut Made) -> Result<(), QueryError> {
        let (Some(fold), Some((from, to))) = (&self.parts.fold, made.versions) else { return Ok(()) };
        let Some(sink) = &self.parts.sink else { return self.within_budget(fold) };
        let changes = match &mut self.checker {
            Some(checker) => {
                let (rows, ops) = fold.changes(from, to)?;
                checker.changed(fold.keys(), &rows, &ops)?;
                Some((rows, ops))
            }
            None => None,
        };
        if !silent {
            let output = fold.outputs(from, to, made.newest, &mut made.faults)?;
            if let Some((rows, ops)) = changes {
                Checker::told(fold.keys(), &rows, &ops, &output)?;
            }
            if !output.is_empty() {
                made.records = sink.records(&output, &mut made.faults)?;
            }
        }
        self.within_budget(fold)
    }

    fn within_budget(&self, fold: &Fold) -> Result<(), QueryError> {
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
        self.pending.push_back(Step { folded: self.taken_to, versions: None, unit, rows_out: 0 });
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
