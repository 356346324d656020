//! Seam: where time comes from. The only file that asks the system for it.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::ids::Timestamp;

/// Source of time.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time. Nothing correct may depend on it.
    fn now(&self) -> Timestamp;

    /// Time since some fixed point, never going back; for timeouts and intervals.
    fn monotonic(&self) -> Duration;
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time begins now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this file is the seam")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this file is the seam")]
    fn now(&self) -> Timestamp {
        let ms = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        Timestamp::new(match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => ms(since),
            Err(before) => -ms(before.duration()),
        })
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that stands still until it is moved, for tests.
#[derive(Debug, Default)]
pub struct ManualClock {
    ms: AtomicI64,
    /// How far ahead of the monotonic time the wall clock is.
    ahead: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self { ms: AtomicI64::new(now.get()), ahead: AtomicI64::new(0) }
    }

    /// Sets the wall clock, and that alone.
    pub fn set_wall(&self, now: Timestamp) {
        self.ahead.store(now.get() - self.ms.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        self.ms.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::new(self.ms.load(Ordering::SeqCst) + self.ahead.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.ms.load(Ordering::SeqCst).unsigned_abs())
    }
}
