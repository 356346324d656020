//! How much a step may do before the task lets others run and shows what it has.
//!
//! Asked by a task between the parts of a step. Results never depend on what it says: a step may be cut behind any row.

use std::{sync::Arc, time::Duration};

use foldlog_log::{ReadLimits, clock::Clock};

/// Bounds of a step.
#[derive(Clone, Copy, Debug)]
pub struct StepLimits {
    /// What is read for one step.
    pub read: ReadLimits,
    /// Rows after which a step looks at the time, and for which it keeps readers of its state waiting at most.
    pub look: usize,
    /// Time after which a step ends.
    pub time: Duration,
}

impl StepLimits {
    /// The same with one record a step: whoever follows sees the change of each.
    #[must_use]
    pub fn one_by_one(self) -> Self {
        Self { read: ReadLimits { records: 1, ..self.read }, look: 1, ..self }
    }
}

impl Default for StepLimits {
    fn default() -> Self {
        Self { read: ReadLimits::default(), look: 1024, time: Duration::from_millis(5) }
    }
}

/// The pace of one task: steps that took too long, with what follows their rows, make the next ones shorter.
pub(crate) struct Pace {
    clock: Arc<dyn Clock>,
    limits: StepLimits,
    /// Rows of the next step, at most, for the sake of its time.
    rows: usize,
    /// And for the sake of what it writes.
    fitting: usize,
    began: Duration,
}

impl Pace {
    pub(crate) fn new(clock: Arc<dyn Clock>, limits: StepLimits) -> Self {
        let limits = StepLimits { look: limits.look.max(1), ..limits };
        Self { clock, limits, rows: limits.read.records as usize, fitting: usize::MAX, began: Duration::ZERO }
    }

    pub(crate) fn begin(&mut self) {
        self.began = self.clock.monotonic();
    }

    /// Rows to go on with before the next look.
    pub(crate) fn look(&self) -> usize {
        self.limits.look.min(self.fitting)
    }

    fn took(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.began)
    }

    fn is_over_time(&self) -> bool {
        self.took() >= self.limits.time
    }

    /// Whether a step with this many rows should end.
    pub(crate) fn is_enough(&self, rows: usize) -> bool {
        rows >= self.rows.min(self.fitting) || self.is_over_time()
    }

    /// A step with this many rows would have written too much: less of it, and of those that follow. Gives how many rows of it.
    pub(crate) fn shorten(&mut self, rows: usize) -> usize {
        self.fitting = (rows / 2).max(1);
        self.fitting
    }

    /// A step with this many rows has ended, its outputs made; gives how long it took.
    pub(crate) fn end(&mut self, rows: usize) -> Duration {
        let took = self.took();
        self.rows = if took >= self.limits.time { rows / 2 } else { self.rows.saturating_mul(2) };
        self.fitting = self.fitting.saturating_mul(2);
        self.rows = self.rows.clamp(self.limits.look, (self.limits.read.records as usize).max(self.limits.look));
        took
    }
}
