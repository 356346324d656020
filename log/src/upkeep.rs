//! Upkeep: has segments sealed that are old enough, removes what retention lets go, deletes the files of what was removed and of deleted topics.
//!
//! A thread of its own calls [`run`]; simulations call [`Upkeep::step`]. It holds up nobody: tidy seals, the committer switches, and
//! files go when no reader has them. Invariant: nothing goes that somebody holds, or that a damaged partition may need.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    engine::{Engine, FailOnPanic},
    error::LogError,
    holds::Held,
    ids::Timestamp,
    journal::frame::Replacement,
    partition::{group::Switch, request::Request},
    retention::LowMark,
    segment::Segments,
    tidy::is_full,
    topic::TopicKind,
    topic_store::Partition,
};

/// How long a pass is put off at most when nothing calls for one.
const EVERY: Duration = Duration::from_secs(10);

/// Looks after segments.
#[derive(Debug)]
pub(crate) struct Upkeep {
    engine: Arc<Engine>,
}

impl Upkeep {
    pub(crate) const fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// One pass: what was removed before is deleted, what may go now is put in line for the committer.
    ///
    /// # Errors
    /// What ends the log.
    pub(crate) fn step(&mut self) -> Result<(), LogError> {
        let engine = Arc::clone(&self.engine);
        let mut held = engine.holds.lock();
        self.pass(&mut held)
    }

    /// The same, and waits until the committer has switched: whoever wants to hold something waits as long.
    fn step_to_the_end(&mut self) -> Result<(), LogError> {
        let engine = Arc::clone(&self.engine);
        let mut held = engine.holds.lock();
        self.pass(&mut held)?;
        held.wait();
        if engine.deleted.wait_for_appends() {
            engine.upkeep.raise();
        }
        Ok(())
    }

    fn pass(&mut self, held: &mut Held) -> Result<(), LogError> {
        let engine = Arc::clone(&self.engine);
        if engine.streams.put_down() {
            engine.compacting.signal.raise();
        }
        let now = engine.time.for_removal();
        let may_remove = held.is_complete() && !held.is_waiting();
        if engine.read_only.get().is_some() {
            return Ok(());
        }
        let mut calls_tidy = engine.bring_out_deleted()?;
        // What has an age to go at must lie in a segment when it comes to that age.
        let mut soonest = None;
        for partition in engine.topics.partitions() {
            if partition.topic.settings.is_rid_of_what_is_old() {
                let age = self.segment_age(&partition);
                soonest = Some(soonest.map_or(age, |soonest: i64| soonest.min(age)));
            }
            let Some(segments) = engine.segments(&partition) else { continue };
            let deleted = segments.delete_files()?;
            engine.counters.deleted_segments.fetch_add(deleted.segments, Ordering::Relaxed);
            engine.counters.deleted_bytes.fetch_add(deleted.bytes, Ordering::Relaxed);
            if deleted.segments > 0 {
                engine.compacting.signal.raise();
            }
            if partition.damage.get().is_some() {
                continue;
            }
            calls_tidy |= segments.awaits_checkpoint();
            if self.is_due(&partition, &segments) {
                engine.due.lock().insert(partition.index, Arc::clone(&partition));
                calls_tidy = true;
            }
            if may_remove {
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
        let settings = &partition.topic.settings;
        let mut age = settings.retention.segment_age(self.engine.config.segment_age());
        if settings.kind == TopicKind::Table {
            age = age.min(settings.compaction.max_lag);
        }
        i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
    }

    /// Puts in line what retention lets go of a partition.
    fn remove(&mut self, partition: &Arc<Partition>, segments: &Segments, now: Option<Timestamp>, held: &mut Held) -> Result<(), LogError> {
        let topic = &partition.topic;
        let retention = topic.settings.retention;
        if retention.is_for_ever() {
            return Ok(());
        }
        let sealed = match segments.sealed() {
            Err(error) if self.engine.note_damage(&error) => return Ok(()),
            sealed => sealed?,
        };
        let count = retention.lets_go(&sealed, segments.retained_bytes(), now, held.from(&topic.name));
        let Some(last) = count.checked_sub(1).and_then(|last| sealed.get(last)) else { return Ok(()) };
        let low = LowMark { offset: last.end, position: last.end_position };
        if topic.settings.kind == TopicKind::Events {
            let beginnings = match segments.beginnings(segments.low().offset, low.offset) {
                Err(error) if self.engine.note_damage(&error) => return Ok(()),
                beginnings => beginnings?,
            };
            let index = u32::try_from(partition.index).unwrap_or(u32::MAX);
            self.engine.streams.prepare_to_let_go(index, low.offset, beginnings);
        }
        // If there is no room in line, the next pass finds the same.
        self.engine.put_in_line(Switch { partition: Arc::clone(partition), by: Replacement::Nothing(low) }, held)?;
        let what =
            if topic.settings.kind == TopicKind::Events { "lets go of what is old, to be removed later" } else { "removes what is old" };
        tracing::info!(topic = %topic.name, partition = %partition.id, from = %low.offset, segments = count, "{what}");
        Ok(())
    }
}

impl Switch {
    /// Replaces segments of its partition.
    pub(crate) fn apply(&self, segments: &Segments) {
        match &self.by {
            Replacement::Nothing(low) => segments.take_away(*low),
            Replacement::Rewritten(rewrite, cleaned) => segments.put_in_place(rewrite, *cleaned),
        }
    }
}

impl Engine {
    /// Puts a switch in line for the committer. False: there is no room at the moment, or its topic was deleted, which no frame names then.
    ///
    /// # Errors
    /// What ends the log.
    pub(crate) fn put_in_line(&self, switch: Switch, held: &mut Held) -> Result<bool, LogError> {
        if switch.partition.is_gone() {
            return Ok(false);
        }
        let (reply, answer) = oneshot::channel();
        match self.queue.push(Request::switch(switch, reply)) {
            Ok(()) => held.put_in_line(answer),
            Err(LogError::Overloaded { .. } | LogError::Stopping) => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Replaces what a durable frame says is replaced.
    pub(crate) fn switch(&self, switch: &Switch) {
        if let Some(segments) = self.segments(&switch.partition) {
            if let Replacement::Nothing(low) = &switch.by {
                self.streams.let_go_below(u32::try_from(switch.partition.index).unwrap_or(u32::MAX), low.offset);
            }
            switch.apply(&segments);
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
