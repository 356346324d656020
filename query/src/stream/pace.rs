//! How much a step may do before the task lets others run and shows what it has.
//!
//! Asked by a task between the parts of a step. Results never depend on what it says: a step may be cut behind any row.

use std::{sync::Arc, time::Duration};

use foldlog_log::{ReadLimits, clock::Clock};

/// Bounds of a step.
#[derive(Clone, Copy, Debug)]
pub struct StepLimits {
    /// What is read at once.
    pub read: ReadLimits,
    /// Rows after which a step looks at the time, and for which it keeps readers of its state waiting at most.
    pub look: usize,
    /// Most rows of a step.
    pub rows: usize,
    /// Time after which a step ends.
    pub time: Duration,
    /// The same where there is more to read and nobody else to do something: each step is a sync, and a table that is behind writes
    /// each row that changed once a step.
    pub time_alone: Duration,
}

impl StepLimits {
    /// The same with one record a step: whoever follows sees the change of each.
    #[must_use]
    pub fn one_by_one(self) -> Self {
        Self { read: ReadLimits { records: 1, ..self.read }, look: 1, rows: 1, ..self }
    }
}

impl Default for StepLimits {
    fn default() -> Self {
        let (time, time_alone) = (Duration::from_millis(5), Duration::from_millis(50));
        Self { read: ReadLimits::default(), look: 1024, rows: 1 << 17, time, time_alone }
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
    /// How long the step may take, as it was when it was last asked.
    time: Duration,
}

impl Pace {
    pub(crate) fn new(clock: Arc<dyn Clock>, limits: StepLimits) -> Self {
        let limits = StepLimits { look: limits.look.max(1), ..limits };
        Self { clock, limits, rows: limits.rows, fitting: usize::MAX, began: Duration::ZERO, time: limits.time }
    }

    pub(crate) fn begin(&mut self) {
        (self.began, self.time) = (self.clock.monotonic(), self.limits.time);
    }

    /// Rows to go on with before the next look.
    pub(crate) fn look(&self) -> usize {
        self.limits.look.min(self.fitting)
    }

    fn took(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.began)
    }

    /// Whether a step with this many rows should end; others may have something to do meanwhile.
    pub(crate) fn is_enough(&mut self, rows: usize, others_wait: bool) -> bool {
        self.time = if others_wait { self.limits.time } else { self.limits.time_alone };
        rows >= self.rows.min(self.fitting) || self.took() >= self.time
    }

    /// A step with this many rows would have written too much: less of it, and of those that follow. Gives how many rows of it.
    pub(crate) fn shorten(&mut self, rows: usize) -> usize {
        self.fitting = (rows / 2).max(1);
        self.fitting
    }

    /// A step with this many rows has ended, its outputs made; gives how long it took.
    pub(crate) fn end(&mut self, rows: usize) -> Duration {
        let took = self.took();
        self.rows = if took >= self.time { rows / 2 } else { self.rows.saturating_mul(2) };
        // Slowly: what has to be taken back was in vain.
        self.fitting = self.fitting.saturating_add(self.fitting / 8 + 1);
        self.rows = self.rows.clamp(self.limits.look, self.limits.rows.max(self.limits.look));
        took
    }
}

#[cfg(test)]
mod tests {
    use foldlog_log::{Timestamp, clock::ManualClock};

    use super::*;

    #[test]
    fn a_step_is_longer_where_nobody_waits_for_its_end() {
        let clock = Arc::new(ManualClock::at(Timestamp::new(0)));
        let mut pace = Pace::new(Arc::clone(&clock) as Arc<dyn Clock>, StepLimits::default());
        pace.begin();
        assert!(!pace.is_enough(1024, true));
        clock.advance(Duration::from_millis(5));
        assert!(pace.is_enough(1024, true) && !pace.is_enough(1024, false));
        clock.advance(Duration::from_millis(45));
        assert!(pace.is_enough(1024, false));
        // What took its whole time is half as long the next time.
        pace.end(40_000);
        pace.begin();
        assert!(!pace.is_enough(19_999, false) && pace.is_enough(20_000, false));
    }
}
