//! Streams whose client takes nothing are given up, so that what they hold is free again.
//!
//! A stream that a stalled client does not drain is never polled, so it cannot end itself: one task looks after all of them.
//! Invariant: time spent waiting for something to send never counts, only time in which the client could have taken something.

use std::{
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use foldlog_log::{Position, clock::Clock};
use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Ended streams are forgotten at least each time that so many, and as many as are open, were added.
const FORGET_EACH: usize = 64;

/// Something sent to a reader: it knows up to where the reader has got.
pub trait Sent {
    /// Everything below this position (exclusive) has been sent with this, if it says so.
    fn sent_to(&self) -> Option<Position>;
}

/// All streams that are looked after.
pub struct IdleReaders {
    clock: Arc<dyn Clock>,
    limit: Duration,
    open: Mutex<Vec<Weak<dyn GiveUp>>>,
    first: Notify,
}

/// A stream that can be given up.
trait GiveUp: Send + Sync {
    /// Drops the stream if its client has taken nothing since `before`.
    fn if_idle_since(&self, before: Duration);
}

impl IdleReaders {
    /// Gives streams up whose client takes nothing for `limit`.
    pub fn new(clock: Arc<dyn Clock>, limit: Duration) -> Self {
        Self { clock, limit, open: Mutex::new(Vec::new()), first: Notify::new() }
    }

    /// Looks after a stream. When it is given up it ends with what `ended` makes of the last position sent.
    pub fn guard<S, T, E>(&self, stream: S, from: Position, ended: fn(Position) -> E) -> Guarded<S, E>
    where
        S: Stream<Item = Result<T, E>> + Send + 'static,
        E: 'static,
    {
        let clock = Arc::clone(&self.clock);
        let state = State { stream: Some(Box::pin(stream)), taken_at: None, sent_to: from };
        let guard = Arc::new(Guard { state: Mutex::new(state), clock });
        let weak: Weak<Guard<S>> = Arc::downgrade(&guard);
        let mut open = self.open.lock();
        if open.len() == open.capacity() {
            // Each ended stream keeps its memory until it is forgotten, and short ones end faster than anyone looks after them.
            open.retain(|weak| weak.strong_count() > 0);
            let alive = open.len();
            open.reserve_exact(alive + FORGET_EACH);
        }
        open.push(weak);
        drop(open);
        self.first.notify_one();
        Guarded { guard, ended, over: false }
    }

    /// Gives up idle streams, for ever.
    pub async fn watch(&self) {
        loop {
            if self.open.lock().is_empty() {
                self.first.notified().await;
            }
            tokio::time::sleep(self.limit / 8).await;
            self.give_up(self.clock.monotonic());
        }
    }

    fn give_up(&self, now: Duration) {
        let mut open = Vec::new();
        self.open.lock().retain(|weak| {
            weak.upgrade().is_some_and(|guard| {
                open.push(guard);
                true
            })
        });
        let Some(before) = now.checked_sub(self.limit) else { return };
        for guard in open {
            guard.if_idle_since(before);
        }
    }
}

struct State<S> {
    stream: Option<Pin<Box<S>>>,
    /// When the client took its last item, unless it waits for the next one.
    taken_at: Option<Duration>,
    sent_to: Position,
}

struct Guard<S> {
    state: Mutex<State<S>>,
    clock: Arc<dyn Clock>,
}

impl<S: Send> GiveUp for Guard<S> {
    fn if_idle_since(&self, before: Duration) {
        let dropped = {
            let mut state = self.state.lock();
            match state.taken_at {
                Some(at) if at <= before => state.stream.take(),
                Some(_) | None => None,
            }
        };
        drop(dropped);
    }
}

/// A stream that is looked after.
pub struct Guarded<S, E> {
    guard: Arc<Guard<S>>,
    ended: fn(Position) -> E,
    over: bool,
}

impl<S, T, E> Stream for Guarded<S, E>
where
    S: Stream<Item = Result<T, E>>,
    T: Sent,
{
    type Item = Result<T, E>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<T, E>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let guard = Arc::clone(&self.guard);
        let mut state = guard.state.lock();
        let Some(stream) = state.stream.as_mut() else {
            self.over = true;
            return Poll::Ready(Some(Err((self.ended)(state.sent_to))));
        };
        let polled = stream.as_mut().poll_next(context);
        match &polled {
            Poll::Pending => state.taken_at = None,
            Poll::Ready(Some(Ok(item))) => {
                state.taken_at = Some(self.guard.clock.monotonic());
                state.sent_to = item.sent_to().unwrap_or(state.sent_to);
            }
            Poll::Ready(Some(Err(_)) | None) => {
                state.stream = None;
                self.over = true;
            }
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use foldlog_log::{Timestamp, clock::ManualClock};
    use futures::{FutureExt as _, StreamExt as _, stream};

    use super::*;

    impl Sent for u64 {
        fn sent_to(&self) -> Option<Position> {
            Some(Position::new(*self))
        }
    }

    const LIMIT: Duration = Duration::from_secs(60);

    fn readers() -> (IdleReaders, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(Timestamp::new(1_000_000)));
        (IdleReaders::new(clock.clone(), LIMIT), clock)
    }

    #[test]
    fn a_reader_that_takes_nothing_is_ended_with_its_position_and_its_stream_dropped() {
        let (readers, clock) = readers();
        let held = Arc::new(());
        let inside = Arc::clone(&held);
        let numbers = stream::iter(1..).map(move |n| {
            let _hold = &inside;
            Ok(n)
        });
        let mut guarded = Box::pin(readers.guard(numbers, Position::new(0), |at| at.get()));
        assert_eq!(guarded.next().now_or_never(), Some(Some(Ok(1))));
        clock.advance(LIMIT - Duration::from_millis(1));
        readers.give_up(clock.monotonic());
        assert_eq!(guarded.next().now_or_never(), Some(Some(Ok(2))), "just in time");
        clock.advance(LIMIT);
        readers.give_up(clock.monotonic());
        assert_eq!(Arc::strong_count(&held), 1, "what the stream held is free");
        assert_eq!(guarded.next().now_or_never(), Some(Some(Err(2))));
        assert_eq!(guarded.next().now_or_never(), Some(None));
    }

    #[test]
    fn ended_streams_are_forgotten_before_they_pile_up() {
        let (readers, _) = readers();
        let endless = || stream::iter((1..).map(Ok));
        let open: Vec<_> = (0..100).map(|_| readers.guard(endless(), Position::new(0), |at| at.get())).collect();
        for _ in 0..10_000 {
            drop(readers.guard(endless(), Position::new(0), |at| at.get()));
        }
        let alive = readers.open.lock().iter().filter(|weak| weak.strong_count() > 0).count();
        assert_eq!(alive, open.len());
        assert!(readers.open.lock().len() <= 2 * open.len() + 2 * FORGET_EACH, "{}", readers.open.lock().len());
    }

    #[test]
    fn a_reader_that_waits_for_something_to_come_is_left_alone() {
        let (readers, clock) = readers();
        let (mut tx, rx) = futures::channel::mpsc::channel(1);
        let mut guarded = Box::pin(readers.guard(rx, Position::new(0), |at| at.get()));
        assert_eq!(guarded.next().now_or_never(), None);
        clock.advance(LIMIT * 10);
        readers.give_up(clock.monotonic());
        tx.try_send(Ok(1)).unwrap();
        assert_eq!(guarded.next().now_or_never(), Some(Some(Ok(1))));
    }
}
