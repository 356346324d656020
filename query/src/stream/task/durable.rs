//! How far the log is durable.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use foldlog_log::Position;
use tokio::sync::watch;

/// The durable end of the log, and a wake-up when it moves.
pub(super) struct Durable {
    position: Position,
    receiver: watch::Receiver<Position>,
    moved: Option<Moved>,
}

type Moved = Pin<Box<dyn Future<Output = Option<watch::Receiver<Position>>> + Send>>;

impl Durable {
    pub(super) fn new(receiver: watch::Receiver<Position>) -> Self {
        let position = *receiver.borrow();
        Self { position, receiver, moved: None }
    }

    /// The durable end now; the task is woken when it has moved beyond it. None when the log has stopped.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Option<Position> {
        loop {
            let moved = self.moved.get_or_insert_with(|| {
                let mut receiver = self.receiver.clone();
                self.position = *receiver.borrow_and_update();
                Box::pin(async move { receiver.changed().await.ok().map(|()| receiver) })
            });
            match moved.as_mut().poll(context) {
                Poll::Pending => return Some(self.position),
                Poll::Ready(None) => return None,
                Poll::Ready(Some(receiver)) => {
                    self.receiver = receiver;
                    self.moved = None;
                }
            }
        }
    }
}
