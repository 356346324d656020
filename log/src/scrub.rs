//! The scrubber: reads everything that rests in segments and in the files made of them, slowly and over and over, so that rot is
//! found before somebody needs what it hit.
//!
//! A thread of its own calls [`run`], simulations call [`Scrubber::step`]. Damage is noted as a reader's is, and what can be made again
//! is. Invariant: it reads no faster than it is told, and nothing while segments are behind the journal.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::{
    engine::Engine,
    error::LogError,
    ids::Offset,
    segment::{Reader, Segments, Start},
    topic_store::Partition,
};

/// Bytes that are read at once.
const STEP_BYTES: u64 = 1 << 20;
/// How long it waits where segments are behind.
const BEHIND_PAUSE: Duration = Duration::from_secs(1);

/// What was scrubbed since the start.
#[derive(Debug, Default)]
pub(crate) struct Scrubbed {
    pub(crate) bytes: AtomicU64,
    pub(crate) passes: AtomicU64,
    pub(crate) damages: AtomicU64,
    stop: Mutex<bool>,
    stopped: Condvar,
}

impl Scrubbed {
    /// Ends the scrubber.
    pub(crate) fn stop(&self) {
        *self.stop.lock() = true;
        self.stopped.notify_all();
    }

    /// Waits; false: it is to end.
    fn pause(&self, pause: Duration) -> bool {
        let mut stop = self.stop.lock();
        if !*stop {
            self.stopped.wait_for(&mut stop, pause);
        }
        !*stop
    }
}

/// A pass over all partitions.
#[derive(Debug)]
pub(crate) struct Scrubber {
    engine: Arc<Engine>,
    /// What the pass that is under way has not come to.
    left: Option<VecDeque<Arc<Partition>>>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    segments: Arc<Segments>,
    reader: Reader,
    /// Where its segments ended when the pass came to them.
    end: Offset,
}

impl Scrubber {
    pub(crate) const fn new(engine: Arc<Engine>) -> Self {
        Self { engine, left: None, current: None }
    }

    /// Begins a pass with the partition at that place, counted round and round.
    fn begin_at(&mut self, place: u128) {
        let mut left = VecDeque::from(self.engine.topics.partitions());
        let first = place.checked_rem(left.len() as u128).and_then(|first| usize::try_from(first).ok());
        left.rotate_left(first.unwrap_or(0));
        self.left = Some(left);
    }

    /// Reads some more, of a new pass if none is under way; how many bytes, or none at its end. Damage is noted and gone behind.
    ///
    /// # Errors
    /// [`LogError::Io`]: what could not be read is passed over.
    pub(crate) fn step(&mut self) -> Result<Option<u64>, LogError> {
        if let Some(current) = &mut self.current {
            let read = current.read_on(&self.engine);
            let is_over = match &read {
                Ok(_) => current.reader.offset() >= current.end,
                Err(_) => true,
            };
            if is_over {
                self.current = None;
            }
            return read.map(Some);
        }
        if self.left.is_none() {
            self.begin_at(0);
        }
        if let Some(partition) = self.left.as_mut().and_then(VecDeque::pop_front) {
            let Some(segments) = self.engine.segments(&partition) else { return Ok(Some(0)) };
            // Key indexes come first: what is wrong with one is made again from what is read then.
            let keys = self.noted(segments.check_keys());
            let (first, end) = (segments.base(), segments.end());
            let reader = segments.reader_of_all(Start::Offset(first), true)?;
            self.current = Some(Current { segments, reader, end }).filter(|_| first < end);
            return keys.map(Some);
        }
        self.left = None;
        let postings = self.engine.check_postings();
        self.engine.scrubbed.passes.fetch_add(1, Ordering::Relaxed);
        self.noted(postings).map(|_| None)
    }

    fn noted(&self, checked: Result<u64, LogError>) -> Result<u64, LogError> {
        noted(&self.engine, checked)
    }
}

/// Counts what was read; damage is noted, and nothing was read then.
fn noted(engine: &Engine, checked: Result<u64, LogError>) -> Result<u64, LogError> {
    match checked {
        Ok(bytes) => {
            engine.scrubbed.bytes.fetch_add(bytes, Ordering::Relaxed);
            Ok(bytes)
        }
        Err(error @ LogError::Corrupt { .. }) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the scrubber found damage");
            engine.scrubbed.damages.fetch_add(1, Ordering::Relaxed);
            engine.note_damage(&error);
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

impl Current {
    /// Reads batches and runs, each of which is checked by the reader.
    fn read_on(&mut self, engine: &Engine) -> Result<u64, LogError> {
        let mut bytes = 0;
        let mut last = None;
        while bytes < STEP_BYTES && self.reader.offset() < self.end {
            match self.reader.next_run(u32::MAX) {
                // Runs of one batch share its bytes.
                Ok(Some(run)) if last == Some(run.batch.as_ptr()) => {}
                Ok(Some(run)) => {
                    bytes += run.batch.len() as u64;
                    last = Some(run.batch.as_ptr());
                }
                Ok(None) => self.reader.seek(self.end),
                Err(error) => {
                    noted(engine, Err(error))?;
                    self.reader.seek(self.segments.end_of_segment(self.reader.offset()));
                }
            }
        }
        noted(engine, Ok(bytes))
    }
}

/// Scrubs until [`Scrubbed::stop`], so many bytes a second, and waits between passes.
pub(crate) fn run(mut scrubber: Scrubber) {
    let engine = Arc::clone(&scrubber.engine);
    let between = Duration::from_secs(engine.config.scrub_every_hours * 3600);
    let mut pause = Duration::ZERO;
    // With any partition: over many starts each has its turn.
    scrubber.begin_at(engine.draw());
    while engine.scrubbed.pause(pause) {
        if engine.untidied_bytes() >= engine.config.tidy_bytes.saturating_mul(2) {
            pause = BEHIND_PAUSE;
            continue;
        }
        pause = match scrubber.step() {
            Ok(Some(bytes)) => Duration::from_secs_f64(bytes as f64 / engine.config.scrub_bytes_per_second as f64),
            Ok(None) => between,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the scrubber passes over what it cannot read");
                BEHIND_PAUSE
            }
        };
    }
}
