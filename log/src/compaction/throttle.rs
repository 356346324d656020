//! What the thread that compacts shares with everybody else: what it is doing, whether it may, and how fast.
//!
//! Invariant: it is slowed down and stopped by waiting on a signal, never by holding a lock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::{
    engine::Engine,
    error::LogError,
    ids::{Offset, PartitionId, TopicId},
    tidy::Signal,
};

/// How a partition's compaction stands, or in a topic of events the removal of what streams let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionState {
    /// The partition.
    pub partition: PartitionId,
    /// Below, no record is replaced by another one below; 0 in a topic of events.
    pub cleaned_to: Offset,
    /// Bytes of its segments.
    pub bytes: u64,
    /// Bytes of those that were never looked at; in a topic of events what may go, about, as it was last looked.
    pub dirty_bytes: u64,
    /// Hundredths that a pass has done, while one is under way.
    pub percent: Option<u8>,
}

/// The compaction of a folder.
#[derive(Debug, Default)]
pub(crate) struct Compacting {
    /// There is something to look at.
    pub(crate) signal: Signal,
    is_paused: AtomicBool,
    under_way: Mutex<Option<UnderWay>>,
    /// Bytes that streams have let go, about, by partition, as it was last looked.
    let_go: Mutex<HashMap<(TopicId, PartitionId), u64>>,
    pub(crate) passes: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) freed_bytes: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    partition: (TopicId, PartitionId),
    done: u64,
    of: u64,
}

impl Compacting {
    /// Has it stop before the next batch, or go on there. Not remembered over a restart.
    pub(crate) fn pause(&self, is_paused: bool) {
        self.is_paused.store(is_paused, Ordering::Release);
        self.signal.raise();
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Acquire)
    }

    /// A pass over a partition begins that will read so many bytes.
    pub(super) fn begin(&self, partition: (TopicId, PartitionId), of: u64) {
        *self.under_way.lock() = Some(UnderWay { partition, done: 0, of });
    }

    /// It has read so many more.
    pub(super) fn advance(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(under_way) = &mut *self.under_way.lock() {
            under_way.done += bytes;
        }
    }

    /// No pass is under way any more.
    pub(super) fn end(&self) {
        self.under_way.lock().take();
    }

    /// So many bytes of a partition may go, as far as one has looked.
    pub(super) fn looked_at(&self, partition: (TopicId, PartitionId), let_go: u64) {
        self.let_go.lock().insert(partition, let_go);
    }

    /// Bytes of a partition that may go, as it was last looked; none if there was no reason to look.
    pub(crate) fn let_go(&self, topic: TopicId, partition: PartitionId) -> Option<u64> {
        self.let_go.lock().get(&(topic, partition)).copied()
    }

    /// Hundredths that a pass over a partition has done, if one is under way.
    pub(crate) fn percent(&self, topic: TopicId, partition: PartitionId) -> Option<u8> {
        let under_way = self.under_way.lock().filter(|one| one.partition == (topic, partition))?;
        u8::try_from((under_way.done.saturating_mul(100) / under_way.of.max(1)).min(100)).ok()
    }
}

/// Keeps the thread to its rate.
#[derive(Debug)]
pub(super) struct Throttle {
    engine: Arc<Engine>,
    /// When what was read so far should have been read, of the monotonic clock.
    due: Duration,
}

impl Throttle {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        let due = engine.clock.monotonic();
        Self { engine, due }
    }

    /// Waits until so many bytes more may be read, and while it is paused.
    ///
    /// # Errors
    /// [`LogError::Stopping`].
    pub(super) fn wait(&mut self, bytes: u64) -> Result<(), LogError> {
        let rate = self.engine.config.compaction_bytes_per_second;
        let now = self.engine.clock.monotonic();
        // What was left unused is not made up for.
        self.due = self.due.max(now) + Duration::from_micros(bytes.saturating_mul(1_000_000).checked_div(rate).unwrap_or(0));
        loop {
            let left = self.due.saturating_sub(self.engine.clock.monotonic());
            let is_paused = self.engine.compacting.is_paused();
            if left.is_zero() && !is_paused && !self.engine.compacting.signal.is_stopped() {
                return Ok(());
            }
            let most = if is_paused { Duration::from_secs(3600) } else { left };
            if !self.engine.compacting.signal.wait_most(most) || self.engine.failure.borrow().is_some() {
                return Err(LogError::Stopping);
            }
        }
    }
}
