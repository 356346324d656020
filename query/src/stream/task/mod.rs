//! One query over all partitions of its sources: takes rows in position order, folds them in steps, commits each as one unit.
//!
//! Run by the workers, a turn at a time. A step is computed while the one before it becomes durable; it is handed to the log
//! only when that one is durable, so that a unit the log refuses can wait without being overtaken. Invariants: units are appended
//! in step order; readers see a step when its unit is durable, never before.

mod step;
mod succession;
mod trouble;

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use foldlog_log::{Append, AppendFuture, Appended, LogBackend, LogError, Position, clock::Clock};
use step::Room;
pub(crate) use succession::Succession;
use trouble::chain_of;

use crate::{
    error::QueryError,
    processing_log::{self, ProcessingLog},
    stream::{
        check::Checker,
        checkpoint::debt::Debt,
        commit::{Progress, SystemTopics},
        fold::Fold,
        followers::Followers,
        operator::{chain::Chain, sink::TopicSink},
        pace::{Pace, StepLimits},
        query::{Committed, Query},
        source::{Intake, Taken},
        state::Version,
        worker::{Pool, Turn, Work},
    },
    supervisor::QueryState,
};

/// Steps that may be computed and not yet durable.
const PENDING_STEPS: usize = 2;
/// What is folded in less waits for what others fold meanwhile, if there are any.
const SMALL: Duration = Duration::from_micros(500);
/// How long a unit waits that the log had no room for.
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// How long a unit waits that the disk had no room for.
const RETRY_DISK_AFTER: Duration = Duration::from_secs(1);

/// What a task is made of.
pub(crate) struct Parts {
    pub(crate) log: Arc<dyn LogBackend>,
    pub(crate) clock: Arc<dyn Clock>,
    /// What else wants to be run.
    pub(crate) pool: Pool,
    /// They say how far the log is durable.
    pub(crate) followers: Arc<Followers>,
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

impl Task {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
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
            let durable = self.parts.followers.durable().ok_or(QueryError::Stopping)?;
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
            // Small steps of many queries are one group of the log rather than a sync each.
            let is_small = step.unit.is_some() && step.took.is_none_or(|took| took < SMALL);
            self.pending.push_back(step);
            computed = true;
            if is_small && self.under_way.is_none() && self.parts.pool.waiting() > 0 {
                return Ok(Turn::Together);
            }
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

/// Whether a query over this topic would feed itself if it wrote to the processing log.
pub(crate) fn is_processing_log(topic: &foldlog_log::TopicName) -> bool {
    topic.as_str() == processing_log::TOPIC
}
