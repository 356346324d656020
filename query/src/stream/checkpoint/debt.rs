//! How much folding of a query would be lost in a crash.
//!
//! Counted by its task after each step, settled by the keeper of checkpoints, who is asked for one when it is too much.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Folding since the newest checkpoint.
pub(crate) struct Debt {
    nanos: AtomicU64,
    limit: u64,
    asked: AtomicBool,
    ask: Box<dyn Fn() + Send + Sync>,
}

impl Debt {
    /// None so far; `ask` is called when `limit` is reached, once until the debt is settled.
    pub(crate) fn new(limit: Duration, ask: Box<dyn Fn() + Send + Sync>) -> Arc<Self> {
        Arc::new(Self { nanos: AtomicU64::new(0), limit: nanos(limit), asked: AtomicBool::new(false), ask })
    }

    /// A step that took something in took so long.
    pub(crate) fn add(&self, time: Duration) {
        // A clock that stands still must not make folding free.
        let before = self.nanos.fetch_add(nanos(time).max(1), Ordering::Relaxed);
        if before + nanos(time) >= self.limit && !self.asked.swap(true, Ordering::AcqRel) {
            (self.ask)();
        }
    }

    /// How much it is.
    pub(crate) fn get(&self) -> u64 {
        self.nanos.load(Ordering::Relaxed)
    }

    /// So much of it is in a checkpoint now.
    pub(crate) fn settle(&self, nanos: u64) {
        self.nanos.fetch_sub(nanos, Ordering::Relaxed);
        self.asked.store(false, Ordering::Release);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn a_checkpoint_is_asked_for_once_until_the_debt_is_settled() {
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let ask = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let debt = Debt::new(Duration::from_secs(3), Box::new(ask));
        for _ in 0..2 {
            debt.add(Duration::from_secs(1));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        let pinned = debt.get();
        for _ in 0..5 {
            debt.add(Duration::from_secs(1));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        debt.settle(pinned);
        assert_eq!(debt.get(), 5_000_000_000);
        debt.add(Duration::ZERO);
        assert_eq!(asked.load(Ordering::Relaxed), 2, "what was folded meanwhile is too much already");
    }
}
