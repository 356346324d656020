//! The line before the committer: bounded by count and bytes, refusing what does not fit at once.

use std::{collections::VecDeque, time::Duration};

use parking_lot::{Condvar, Mutex};

use crate::{error::LogError, partition::request::Request};

#[derive(Debug, Default)]
struct State {
    requests: VecDeque<Request>,
    bytes: u64,
    /// Why nothing more is taken.
    closed: Option<Closed>,
    /// The syncing thread has finished, or something else wants the committer's attention.
    nudged: bool,
}

/// Why a queue takes nothing more.
#[derive(Clone, Debug)]
pub(crate) enum Closed {
    /// The log is stopping.
    Stopping,
    /// The log stopped because of a failure.
    Failed,
}

/// Requests in order of arrival.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    max_requests: usize,
    max_bytes: u64,
}

impl Queue {
    pub(crate) fn new(max_requests: usize, max_bytes: u64) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), max_requests, max_bytes }
    }

    /// Puts a request in line.
    ///
    /// # Errors
    /// [`LogError::Overloaded`] when the line is full, [`LogError::Stopping`] when it is closed.
    pub(crate) fn push(&self, request: Request) -> Result<(), LogError> {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return Err(LogError::Stopping);
        }
        if state.requests.len() >= self.max_requests || state.bytes + request.bytes > self.max_bytes {
            return Err(LogError::Overloaded { what: "too many appends are waiting" });
        }
        state.bytes += request.bytes;
        state.requests.push_back(request);
        let first = state.requests.len() == 1;
        drop(state);
        if first {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Takes from the front while the sum stays within `bytes`.
    pub(crate) fn take(&self, bytes: u64, into: &mut VecDeque<Request>) {
        let mut state = self.state.lock();
        let mut sum = 0;
        while let Some(request) = state.requests.front() {
            sum += request.bytes;
            if sum > bytes {
                return;
            }
            if let Some(request) = state.requests.pop_front() {
                state.bytes -= request.bytes;
                into.push_back(request);
            }
        }
    }

    /// Puts a request back to the front.
    pub(crate) fn put_back(&self, request: Request) {
        let mut state = self.state.lock();
        state.bytes += request.bytes;
        state.requests.push_front(request);
    }

    /// Number of requests in line.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().requests.len()
    }

    /// Waits until a request is there, [`Queue::nudge`] or [`Queue::close`] was called, or `most` has passed.
    pub(crate) fn wait(&self, most: Option<Duration>) -> Awake {
        let mut state = self.state.lock();
        loop {
            if std::mem::take(&mut state.nudged) || !state.requests.is_empty() {
                return Awake::Work;
            }
            if let Some(closed) = &state.closed {
                return Awake::Closed(closed.clone());
            }
            match most {
                None => self.arrived.wait(&mut state),
                Some(most) => {
                    if self.arrived.wait_for(&mut state, most).timed_out() {
                        return Awake::Quiet;
                    }
                }
            }
        }
    }

    /// Waits until [`Queue::nudge`] was called, whatever is in line.
    pub(crate) fn wait_for_nudge(&self) {
        let mut state = self.state.lock();
        while !std::mem::take(&mut state.nudged) && !matches!(state.closed, Some(Closed::Failed)) {
            self.arrived.wait(&mut state);
        }
    }

    /// Wakes the committer.
    pub(crate) fn nudge(&self) {
        self.state.lock().nudged = true;
        self.arrived.notify_all();
    }

    /// Takes nothing more. What is in line stays there, unless the log failed: then it is dropped, and its callers learn that
    /// the outcome is unknown.
    pub(crate) fn close(&self, why: Closed) {
        let mut state = self.state.lock();
        let dropped = matches!(why, Closed::Failed).then(|| std::mem::take(&mut state.requests));
        if !matches!(state.closed, Some(Closed::Failed)) {
            state.closed = Some(why);
        }
        drop(state);
        drop(dropped);
        self.arrived.notify_all();
    }
}

/// Why a wait ended.
#[derive(Clone, Debug)]
pub(crate) enum Awake {
    /// There may be something to do.
    Work,
    /// Nothing came in time.
    Quiet,
    /// Nothing will come.
    Closed(Closed),
}
