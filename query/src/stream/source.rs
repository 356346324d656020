//! Where a task's rows come from: records of its source in position order, decoded.
//!
//! Read by the task alone. Invariant: what is returned covers every record of the source below `scanned_to`, once.

use std::{collections::VecDeque, sync::Arc, task::Waker};

use foldlog_log::{Position, ReadLimits, TopicName};
use parking_lot::Mutex;

use crate::{
    codec::{BadInput, Carried},
    error::QueryError,
    plan::SourceScan,
    processing_log::Fault,
    stream::{
        change::ChangeBatch,
        decode::{Decoding, Given, Lane},
        query::Query,
        worker::{Job, Pool, Turn, Work},
    },
};

/// What one step takes in.
pub(crate) struct Taken {
    /// The rows.
    pub(crate) rows: ChangeBatch,
    /// Records read, those that could not be decoded included.
    pub(crate) records: u64,
    /// What they hand on to what is written of them.
    pub(crate) carried: Arc<Carried>,
    /// What could not be decoded; the first few.
    pub(crate) faults: Vec<Fault>,
    /// Number of all faults.
    pub(crate) fault_count: u64,
    /// Every record of the source below this position has been taken.
    pub(crate) scanned_to: Position,
}

impl Taken {
    /// Cuts off and returns what lies below `until`, if something lies above; faults that were only counted go with that.
    pub(crate) fn split_below(&mut self, until: Position) -> Option<Self> {
        if self.scanned_to <= until {
            return None;
        }
        let at = self.rows.positions.partition_point(|position| *position < until.get());
        let (first, later): (Vec<Fault>, Vec<Fault>) =
            std::mem::take(&mut self.faults).into_iter().partition(|fault| fault.position < until.get());
        let skipped = later.iter().filter(|fault| fault.what == SKIPPED).count();
        let later_records = self.records.min((self.rows.len() - at + skipped) as u64);
        let later_faults = later.len() as u64;
        let below = Self {
            rows: self.rows.slice(0, at),
            records: self.records - later_records,
            carried: Arc::clone(&self.carried),
            faults: first,
            fault_count: self.fault_count - later_faults,
            scanned_to: until,
        };
        self.rows = self.rows.slice(at, self.rows.len() - at);
        (self.records, self.faults, self.fault_count) = (later_records, later, later_faults);
        Some(below)
    }
}

/// Gives a task its rows.
pub(crate) trait Intake: Send {
    /// The next rows below `until`, which is durable; at most a step's worth. None: they are being decoded, and the task, whose
    /// waker this is, is woken when they are there. Blocks on files.
    ///
    /// # Errors
    /// [`QueryError::Log`] where the log cannot be read.
    fn take(&mut self, until: Position, waker: &Waker) -> Result<Option<Taken>, QueryError>;
}

/// What happened to a record that could not be decoded.
const SKIPPED: &str = "skipped";

/// Steps that are decoded ahead of the task.
const STEPS_AHEAD: usize = 3;

/// Reads and decodes for one task: in place while it keeps up, on another worker when there is more than a step to read.
pub(crate) struct AheadIntake {
    shared: Arc<Shared>,
    job: Arc<Job>,
}

struct Shared {
    /// Held while a step is read and decoded; what it gives is put in line before it is let go.
    stage: Mutex<Stage>,
    line: Mutex<Line>,
    query: Arc<Query>,
}

/// What is decoded and not taken yet.
#[derive(Default)]
struct Line {
    steps: VecDeque<Result<Taken, QueryError>>,
    /// How far to read ahead; durable.
    goal: Position,
    /// Whether the task waits for a step.
    awaited: bool,
}

/// Where the task's source is read.
struct Stage {
    lane: Arc<Lane>,
    at: Position,
    limits: ReadLimits,
}

impl AheadIntake {
    /// Reads a source from `from` (inclusive) on, for the task of `query`.
    ///
    /// # Errors
    /// Those of [`Decoding::lane`].
    pub(crate) fn new(
        decoding: &Decoding,
        pool: &Pool,
        query: &Arc<Query>,
        scan: &SourceScan,
        from: Position,
        limits: ReadLimits,
    ) -> Result<Self, QueryError> {
        let stage = Stage { lane: decoding.lane(scan, from)?, at: from, limits };
        let shared = Arc::new(Shared { stage: Mutex::new(stage), line: Mutex::default(), query: Arc::clone(query) });
        let ahead = Ahead { shared: Arc::clone(&shared) };
        Ok(Self { shared, job: pool.spawn(|_| Box::new(ahead)) })
    }

    /// The first step in line, cut at `until`; wakes the other worker if there is more to read.
    fn next_in_line(&self, until: Position) -> Option<Result<Taken, QueryError>> {
        let mut line = self.shared.line.lock();
        line.awaited = false;
        line.goal = line.goal.max(until);
        let first = match line.steps.front_mut()? {
            Ok(step) => step.split_below(until).map(Ok),
            Err(_) => None,
        };
        let first = first.or_else(|| line.steps.pop_front());
        let room = line.steps.len() < STEPS_AHEAD;
        drop(line);
        if room {
            Arc::clone(&self.job).schedule();
        }
        first
    }
}

impl Intake for AheadIntake {
    fn take(&mut self, until: Position, waker: &Waker) -> Result<Option<Taken>, QueryError> {
        if let Some(step) = self.next_in_line(until) {
            return step.map(Some);
        }
        let mut stage = self.shared.stage.try_lock();
        if stage.is_none() {
            // Whoever decodes looks at this after it has let the stage go; if it has by now, the second try succeeds.
            self.shared.line.lock().awaited = true;
            stage = self.shared.stage.try_lock();
        }
        let Some(mut stage) = stage else { return Ok(None) };
        // What was decoded since the first look comes first.
        if let Some(step) = self.next_in_line(until) {
            return step.map(Some);
        }
        let Some(taken) = stage.take(until, waker)? else { return Ok(None) };
        drop(stage);
        if taken.scanned_to < until {
            Arc::clone(&self.job).schedule();
        }
        Ok(Some(taken))
    }
}

/// The job that decodes ahead.
struct Ahead {
    shared: Arc<Shared>,
}

impl Work for Ahead {
    fn turn(&mut self, waker: &Waker) -> Turn {
        let mut stage = self.shared.stage.lock();
        let goal = {
            let line = self.shared.line.lock();
            let failed = line.steps.iter().any(Result::is_err);
            (line.steps.len() < STEPS_AHEAD && stage.at < line.goal && !failed).then_some(line.goal)
        };
        // None if another worker decodes it, for another task; this job is woken then.
        let step = goal.and_then(|goal| stage.take(goal, waker).transpose());
        let turn = if step.is_some() { Turn::Again } else { Turn::Wait };
        self.shared.line.lock().steps.extend(step);
        drop(stage);
        if std::mem::take(&mut self.shared.line.lock().awaited) {
            self.shared.query.wake();
        }
        turn
    }

    fn panicked(&mut self, what: String) {
        let mut line = self.shared.line.lock();
        line.steps.push_back(Err(QueryError::Execution(format!("a fault in foldlog while decoding: {what}"))));
        drop(line);
        self.shared.query.wake();
    }
}

impl Stage {
    fn take(&mut self, until: Position, waker: &Waker) -> Result<Option<Taken>, QueryError> {
        let Given::Chunk(chunk) = self.lane.take(self.at, until, self.limits, waker)? else { return Ok(None) };
        self.at = chunk.to;
        Ok(Some(Taken {
            rows: chunk.rows.clone(),
            records: chunk.records,
            carried: Arc::clone(&chunk.carried),
            faults: chunk.bad.iter().map(|bad| fault(self.lane.topic(), bad.clone())).collect(),
            fault_count: chunk.bad_count,
            scanned_to: chunk.to,
        }))
    }
}

/// What could not be decoded, as the processing log tells it.
pub(crate) fn fault(topic: &TopicName, bad: BadInput) -> Fault {
    let (what, reason) = match bad.column {
        Some(column) => ("nulled", format!("{column}: {}", bad.reason)),
        None => (SKIPPED, bad.reason.into_owned()),
    };
    Fault {
        what,
        topic: Some(topic.to_string()),
        partition: Some(bad.partition.get()),
        offset: Some(bad.offset.get()),
        position: bad.position.get(),
        reason,
    }
}
