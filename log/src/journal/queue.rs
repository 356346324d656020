//! The line before the committer: bounded by count and bytes, refusing what does not fit at once.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::{error::LogError, partition::request::Request};

/// How often the committer looks again before it sleeps: about 50 µs if no other thread wants the core. To be woken from sleep
/// costs as much, and under load the next append follows at once.
const LOOKS: u32 = 150;

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
    /// Moves with everything that the committer waits for, so that it can look without the lock.
    calls: AtomicU64,
    max_requests: usize,
    max_bytes: u64,
}

impl Queue {
    pub(crate) fn new(max_requests: usize, max_bytes: u64) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), calls: AtomicU64::new(0), max_requests, max_bytes }
    }

    /// Puts a request in line.
    ///
    /// # Errors
    /// [`LogError::Overloaded`] when the line is full, [`LogError::Stopping`] when it is closed.
    pub(crate) fn push(&self, request: Request) -> Result<(), LogError> {
        if self.push_unsaid(request)? == 1 {
            self.call();
        }
        Ok(())
    }

    /// The same, for a caller that takes the line itself and wakes nobody. Returns how many are in line.
    pub(crate) fn push_unsaid(&self, request: Request) -> Result<usize, LogError> {
        let mut state = self.state.lock();
        state.has_room(request.bytes, self.max_requests, self.max_bytes)?;
        state.bytes += request.bytes;
        state.requests.push_back(request);
        Ok(state.requests.len())
    }

    /// Whether the line takes any more.
    ///
    /// # Errors
    /// As [`Queue::push`].
    pub(crate) fn has_room(&self) -> Result<(), LogError> {
        self.state.lock().has_room(0, self.max_requests, self.max_bytes)
    }

    /// Puts requests in line behind each other, all of them: their number and bytes are bounded by whoever brings them, who asks
    /// for room before.
    ///
    /// # Errors
    /// [`LogError::Stopping`] when the line is closed.
    pub(crate) fn push_all(&self, requests: Vec<Request>) -> Result<(), LogError> {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return Err(LogError::Stopping);
        }
        let was_empty = state.requests.is_empty();
        state.bytes += requests.iter().map(|request| request.bytes).sum::<u64>();
        state.requests.extend(requests);
        let is_empty = state.requests.is_empty();
        drop(state);
        if was_empty && !is_empty {
            self.call();
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

    /// Bytes of the requests in line.
    pub(crate) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// Waits until a request is there, or [`Queue::nudge`] or [`Queue::close`] was called. For a committer that has a group under way.
    pub(crate) fn wait(&self) -> Awake {
        let mut state = self.state.lock();
        loop {
            if let Some(awake) = state.awake() {
                return awake;
            }
            self.arrived.wait(&mut state);
        }
    }

    /// The same, or until `most` has passed, for a committer that has nothing to do. If it `looks`, it does so for a moment before it
    /// sleeps.
    pub(crate) fn wait_idle(&self, most: Option<Duration>, looks: bool) -> Awake {
        let calls = self.calls.load(Ordering::Acquire);
        if let Some(awake) = self.state.lock().awake() {
            return awake;
        }
        let most_looks = if looks { LOOKS } else { 0 };
        for _ in 0..most_looks {
            if self.calls.load(Ordering::Acquire) != calls {
                break;
            }
            thread::yield_now();
        }
        let mut state = self.state.lock();
        let mut timed_out = false;
        loop {
            if let Some(awake) = state.awake() {
                return awake;
            }
            if timed_out {
                return Awake::Quiet;
            }
            match most {
                None => self.arrived.wait(&mut state),
                Some(most) => timed_out = self.arrived.wait_for(&mut state, most).timed_out(),
            }
        }
    }

    fn call(&self) {
        self.calls.fetch_add(1, Ordering::Release);
        self.arrived.notify_all();
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
        self.call();
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
        self.call();
    }
}

impl State {
    fn has_room(&self, bytes: u64, max_requests: usize, max_bytes: u64) -> Result<(), LogError> {
        if self.closed.is_some() {
            return Err(LogError::Stopping);
        }
        if self.requests.len() >= max_requests || self.bytes + bytes > max_bytes {
            return Err(LogError::Overloaded { what: "too many appends are waiting" });
        }
        Ok(())
    }

    /// Why the committer must not wait, if so.
    fn awake(&mut self) -> Option<Awake> {
        if std::mem::take(&mut self.nudged) || !self.requests.is_empty() {
            return Some(Awake::Work);
        }
        self.closed.clone().map(Awake::Closed)
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

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::{durability::Durability, record::Purpose};

    fn request() -> Request {
        let (reply, _) = oneshot::channel();
        Request {
            writes: Vec::new(),
            conditions: Vec::new(),
            identity: None,
            switch: None,
            producer: None,
            bytes: 1,
            durability: Durability::Synced,
            purpose: Purpose::Data,
            reply,
        }
    }

    /// What a waiting committer is woken with.
    fn woken_by(wake: impl FnOnce(&Queue)) -> Awake {
        let queue = Queue::new(10, 10);
        thread::scope(|scope| {
            let committer = scope.spawn(|| queue.wait_idle(None, true));
            wake(&queue);
            committer.join().unwrap()
        })
    }

    #[test]
    fn a_committer_wakes_for_requests_nudges_and_the_end() {
        assert!(matches!(woken_by(|queue| queue.push(request()).unwrap()), Awake::Work));
        assert!(matches!(woken_by(Queue::nudge), Awake::Work));
        assert!(matches!(woken_by(|queue| queue.close(Closed::Stopping)), Awake::Closed(Closed::Stopping)));
    }

    #[test]
    fn nothing_comes_of_waiting_for_nothing() {
        assert!(matches!(Queue::new(10, 10).wait_idle(Some(Duration::ZERO), false), Awake::Quiet));
    }

    #[test]
    fn what_came_before_the_wait_is_not_waited_for() {
        let queue = Queue::new(10, 10);
        queue.push(request()).unwrap();
        assert!(matches!(queue.wait_idle(None, true), Awake::Work));
        assert!(matches!(queue.wait(), Awake::Work));
    }
}
