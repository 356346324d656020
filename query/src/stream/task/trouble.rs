//! What becomes of a query that something fails at: what may pass is tried again, what stays ends it with the reason.

use std::time::Duration;

use super::Task;
use crate::{error::QueryError, processing_log, stream::worker::Turn, supervisor::QueryState};

/// How often a query tries again what the log failed at, without a step between, before it is stopped.
const RETRIES: u32 = 8;
/// How long it waits before the first of them; twice as long before each further one.
const FIRST_RETRY_AFTER: Duration = Duration::from_millis(100);

impl Task {
    /// How long it is until a failed query tries again, whatever wakes it before; one that is to stop does so at once.
    pub(super) fn still_waits(&mut self) -> Option<Duration> {
        let wait = self.tries_again_at?.saturating_sub(self.parts.clock.monotonic());
        if wait.is_zero() || self.parts.query.stopping() {
            self.tries_again_at = None;
            return None;
        }
        Some(wait)
    }

    /// What the log failed at may succeed later; what fails again and again ends the query.
    pub(super) fn try_again(&mut self, reason: &str) -> Turn {
        if self.parts.query.stopping() {
            self.parts.query.end(QueryState::Stopped);
            return Turn::Done;
        }
        if self.failures == RETRIES {
            return self.fail(format!("{reason} (it was tried {} times)", self.failures + 1));
        }
        let wait = wait_before_retry(self.failures);
        tracing::warn!(query = self.parts.query.id(), reason, wait_ms = wait.as_millis(), "query failed and tries again");
        self.failures += 1;
        self.tries_again_at = Some(self.parts.clock.monotonic() + wait);
        self.parts.query.troubled(Some(reason));
        Turn::Later(wait)
    }

    /// The log does what is asked of it again.
    pub(super) fn recovered(&mut self) {
        if self.failures > 0 {
            self.failures = 0;
            self.parts.query.troubled(None);
        }
    }

    pub(super) fn fail(&mut self, reason: String) -> Turn {
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
}

/// How long a query waits that failed so many times before.
fn wait_before_retry(failures: u32) -> Duration {
    FIRST_RETRY_AFTER * 2_u32.pow(failures)
}

/// An error with its causes, in one line.
pub(super) fn chain_of(error: &QueryError) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_twice_as_long_as_the_one_before() {
        let waits: Vec<u128> = (0..RETRIES).map(|failures| wait_before_retry(failures).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800]);
    }
}
