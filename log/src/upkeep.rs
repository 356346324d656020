//! Upkeep: has segments sealed that are old enough, removes what retention lets go, deletes the files of what was removed.
//!
//! A thread of its own calls [`run`]; simulations call [`Upkeep::step`]. It holds up nobody: tidy seals, the committer switches, and
//! files go when no reader has them. Invariant: nothing goes that somebody holds, or that a damaged partition may need.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::MutexGuard;
use tokio::sync::oneshot;

use crate::{
    engine::{Engine, FailOnPanic},
    error::LogError,
    holds::Held,
    ids::Timestamp,
    partition::{group::Switch, request::Request},
    record::Appended,
    retention::LowMark,
    segment::Segments,
    tidy::is_full,
    topic_store::Partition,
};

/// How long a pass is put off at most when nothing calls for one.
const EVERY: Duration = Duration::from_secs(10);

type Answer = oneshot::Receiver<Result<Appended, LogError>>;

/// Looks after segments.
#[derive(Debug)]
pub(crate) struct Upkeep {
    engine: Arc<Engine>,
    /// Switches that wait for the committer.
    under_way: Vec<Answer>,
}

impl Upkeep {
    pub(crate) const fn new(engine: Arc<Engine>) -> Self {
        Self { engine, under_way: Vec::new() }
    }

    /// One pass: what was removed before is deleted, what may go now is put in line for the committer.
    ///
    /// # Errors
    /// What ends the log.
    pub(crate) fn step(&mut self) -> Result<(), LogError> {
        let engine = Arc::clone(&self.engine);
        let held = engine.holds.lock();
        self.pass(&held)
    }

    /// The same, and waits until the committer has switched: whoever wants to hold something waits as long.
    fn step_to_the_end(&mut self) -> Result<(), LogError> {
        let engine = Arc::clone(&self.engine);
        let held: MutexGuard<'_, Held> = engine.holds.lock();
        self.pass(&held)?;
        for answer in self.under_way.drain(..) {
            // If nobody answers, the log has stopped, which the thread finds out by itself.
            let _ = answer.blocking_recv();
        }
        Ok(())
    }

    fn pass(&mut self, held: &Held) -> Result<(), LogError> {
        let engine = Arc::clone(&self.engine);
        let now = engine.time.for_removal();
        self.under_way.retain_mut(|answer| matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        if engine.read_only.get().is_some() {
            return Ok(());
        }
        let mut calls_tidy = false;
        // What has an age to go at must lie in a segment when it comes to that age.
        let mut soonest = None;
        for partition in engine.topics.partitions() {
            if partition.topic.settings.retention.time.is_some() {
                let age = self.segment_age(&partition);
                soonest = Some(soonest.map_or(age, |soonest: i64| soonest.min(age)));
            }
            let Some(segments) = engine.segments(&partition) else { continue };
            let deleted = segments.delete_files()?;
            engine.counters.deleted_segments.fetch_add(deleted.segments, Ordering::Relaxed);
            engine.counters.deleted_bytes.fetch_add(deleted.bytes, Ordering::Relaxed);
            if partition.damage.get().is_some() {
                continue;
            }
            calls_tidy |= segments.awaits_checkpoint();
            if self.is_due(&partition, &segments) {
                engine.due.lock().insert(partition.index, Arc::clone(&partition));
                calls_tidy = true;
            }
            if held.is_complete() && self.under_way.is_empty() {
                self.remove(&partition, &segments, now, held)?;
            }
        }
        let since = engine.tail.untidied_since().map(Timestamp::get);
        calls_tidy |= soonest.zip(since).is_some_and(|(age, since)| since.saturating_add(age) <= engine.time.now().get());
        if calls_tidy {
            engine.tidy.raise();
        }
        Ok(())
    }

    /// Whether the active segment is so old that it should be sealed.
    fn is_due(&self, partition: &Partition, segments: &Segments) -> bool {
        let (age, now) = (self.segment_age(partition), self.engine.time.now());
        segments.active_since().is_some_and(|since| since.get().saturating_add(age) <= now.get())
    }

    /// How old the first record of a partition's active segment may become, in milliseconds.
    fn segment_age(&self, partition: &Partition) -> i64 {
        let age = partition.topic.settings.retention.segment_age(self.engine.config.segment_age());
        i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
    }

    /// Puts in line what retention lets go of a partition.
    fn remove(&mut self, partition: &Arc<Partition>, segments: &Segments, now: Option<Timestamp>, held: &Held) -> Result<(), LogError> {
        let topic = &partition.topic;
        let retention = topic.settings.retention;
        if retention.is_for_ever() {
            return Ok(());
        }
        let sealed = match segments.sealed() {
            Err(error) if self.engine.note_damage(&error) => return Ok(()),
            sealed => sealed?,
        };
        let count = retention.lets_go(&sealed, segments.size().bytes, now, held.from(&topic.name));
        let Some(last) = count.checked_sub(1).and_then(|last| sealed.get(last)) else { return Ok(()) };
        let low = LowMark { offset: last.end, position: last.end_position };
        let (reply, answer) = oneshot::channel();
        match self.engine.queue.push(Request::switch(Switch { partition: Arc::clone(partition), low }, reply)) {
            Ok(()) => self.under_way.push(answer),
            // The next pass finds the same.
            Err(LogError::Overloaded { .. } | LogError::Stopping) => {}
            Err(error) => return Err(error),
        }
        tracing::info!(topic = %topic.name, partition = %partition.id, from = %low.offset, segments = count, "removes what retention lets go");
        Ok(())
    }
}

impl Engine {
    /// Takes away what a durable frame, or one that was read again, says is replaced.
    pub(crate) fn switch(&self, switch: &Switch) {
        if let Some(segments) = self.segments(&switch.partition) {
            segments.take_away(switch.low);
        }
        self.upkeep.raise();
    }
}

/// Runs upkeep until the log stops.
pub(crate) fn run(mut upkeep: Upkeep) {
    let engine = Arc::clone(&upkeep.engine);
    let _panicking = FailOnPanic(&engine);
    while engine.upkeep.wait_most(EVERY) {
        if engine.failure.borrow().is_some() {
            return;
        }
        match upkeep.step_to_the_end() {
            Ok(()) => {}
            Err(error) if is_full(&error) => tracing::warn!(error = &error as &dyn std::error::Error, "upkeep waits for space"),
            Err(error) => return engine.fail(error),
        }
    }
}
