//! Changed rows of a view to whoever listens, with the position that they complete.
//!
//! A query's task offers each committed step to its listeners; a listener is bounded in steps and bytes, and one that does not
//! keep up is ended and told how far it got: nothing is ever skipped silently.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
};

use arrow::datatypes::SchemaRef;
use foldlog_log::Position;
use parking_lot::Mutex;
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    oneshot,
};

use crate::{
    answer::PushItem,
    error::QueryError,
    stream::{view::Pinned, worker::Job},
};

/// Steps that a listener may be behind before it is ended.
pub const LISTENER_STEPS: usize = 1024;
/// Bytes of changed rows that a listener may be behind before it is ended; one step more than this is let through.
pub const LISTENER_BYTES: usize = 16 << 20;

/// What goes to a listener, and what it weighs.
type Heard = (Result<PushItem, QueryError>, usize);

/// What one listener hears: the view as it was when listening began, then every committed change after that.
pub struct ChangeListener {
    snapshot: Option<Pinned>,
    /// A snapshot that is still being folded.
    coming: Option<oneshot::Receiver<Pinned>>,
    schema: SchemaRef,
    received: mpsc::Receiver<Heard>,
    room: Arc<Room>,
    /// The task that runs for this listener alone.
    job: Option<Arc<Job>>,
    /// Everything up to here was taken.
    taken: Position,
}

/// What the two ends share beside the channel.
#[derive(Default)]
struct Room {
    /// Bytes that wait to be taken.
    bytes: AtomicUsize,
    /// Everything up to here is in line or was taken; changes come into line before this moves.
    told: AtomicU64,
    /// A task that waits for room, or for the listener to go.
    waiting: Mutex<Option<Waker>>,
}

impl Room {
    fn wake(&self) {
        let waker = self.waiting.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for ChangeListener {
    fn drop(&mut self) {
        self.received.close();
        self.room.wake();
        // A task that was not waiting looks once more, sees that nobody listens, and ends.
        if let Some(job) = self.job.take() {
            job.schedule();
        }
    }
}

impl ChangeListener {
    /// A listener and the end at which it is told; `from` is where what it hears begins.
    pub(crate) fn new(schema: SchemaRef, from: Position) -> (Listener, Self) {
        // One place more, for the last word.
        let (sender, received) = mpsc::channel(LISTENER_STEPS + 1);
        let room = Arc::new(Room { told: AtomicU64::new(from.get()), ..Room::default() });
        let listener = Listener { sender, room: Arc::clone(&room) };
        (listener, Self { snapshot: None, coming: None, schema, received, room, job: None, taken: from })
    }

    /// Keeps a task alive that runs for this listener alone.
    pub(crate) fn keeping(mut self, job: Arc<Job>) -> Self {
        self.job = Some(job);
        self
    }

    pub(crate) fn with_snapshot(mut self, snapshot: Pinned) -> Self {
        self.snapshot = Some(snapshot);
        self
    }

    pub(crate) fn with_coming_snapshot(mut self, coming: oneshot::Receiver<Pinned>) -> Self {
        self.coming = Some(coming);
        self
    }

    /// Waits for a snapshot that is still being folded; none if there is none, or if its query has ended. Cancel-safe.
    pub(crate) async fn coming_snapshot(&mut self) -> Option<Pinned> {
        let given = self.coming.as_mut()?.await.ok();
        self.coming = None;
        given
    }

    /// Columns of the changed rows: those of the view (key columns, value columns, `rowtime`).
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Takes the view as it was when listening began; none the second time, and none for a query without a view.
    pub fn take_snapshot(&mut self) -> Option<Pinned> {
        self.snapshot.take()
    }

    /// The next step's changes, or progress without changes; none when the query has ended. Cancel-safe.
    ///
    /// # Errors
    /// [`QueryError::SlowReader`] with the position up to which everything was delivered, when the listener fell behind by more than
    /// [`LISTENER_STEPS`] or [`LISTENER_BYTES`]; what ended the query, if it failed. Nothing follows an error.
    pub async fn next(&mut self) -> Option<Result<PushItem, QueryError>> {
        let told = Position::new(self.room.told.load(Ordering::Acquire));
        let (item, bytes) = match self.received.try_recv() {
            Ok(heard) => heard,
            // Whatever came before `told` has been taken: nothing changed in between.
            Err(TryRecvError::Empty) if told > self.taken => {
                self.taken = told;
                return Some(Ok(PushItem::Progress(told)));
            }
            Err(_) => self.received.recv().await?,
        };
        if let Ok(PushItem::Changes { position, .. } | PushItem::Progress(position)) = &item {
            // A progress may have been taken without its message; then the message says nothing new.
            self.taken = self.taken.max(*position);
        }
        let before = self.room.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if before > LISTENER_BYTES / 2 || self.received.len() == LISTENER_STEPS / 2 {
            self.room.wake();
        }
        Some(item)
    }
}

/// The end of a listener that a query's task holds.
pub(crate) struct Listener {
    sender: mpsc::Sender<Heard>,
    room: Arc<Room>,
}

impl Listener {
    /// Whether nobody listens any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether the next item would be one too many.
    pub(crate) fn is_full(&self) -> bool {
        self.sender.capacity() <= 1 || self.room.bytes.load(Ordering::Acquire) >= LISTENER_BYTES
    }

    /// Whether nothing waits to be taken.
    fn is_empty(&self) -> bool {
        self.sender.capacity() == self.sender.max_capacity()
    }

    /// Puts changes in line; gives false if the listener has ended, or was ended because it is too far behind.
    pub(crate) fn offer(&mut self, item: PushItem) -> bool {
        if self.is_full() {
            self.end(QueryError::SlowReader { at: self.told() });
            return false;
        }
        let (bytes, position) = match &item {
            PushItem::Changes { rows, ops, position } => (rows.get_array_memory_size() + ops.len(), *position),
            PushItem::Progress(position) => (0, *position),
        };
        self.room.bytes.fetch_add(bytes, Ordering::AcqRel);
        let sent = self.sender.try_send((Ok(item), bytes)).is_ok();
        self.room.told.store(position.get(), Ordering::Release);
        sent
    }

    fn told(&self) -> Position {
        Position::new(self.room.told.load(Ordering::Acquire))
    }

    /// Tells that nothing changed up to `position`; wakes the listener only if nothing else does.
    pub(crate) fn progress(&mut self, position: Position) {
        if position <= self.told() {
            return;
        }
        if self.is_empty() {
            self.offer(PushItem::Progress(position));
        } else {
            self.room.told.store(position.get(), Ordering::Release);
        }
    }

    /// Says the last word; there is always room for one.
    pub(crate) fn end(&mut self, error: QueryError) {
        // Nobody listening any more is no failure.
        drop(self.sender.try_send((Err(error), 0)));
    }

    /// Wakes a task when the listener has taken half of what waits, or has gone.
    pub(crate) fn wake_for_room(&self, waker: &Waker) {
        *self.room.waiting.lock() = Some(waker.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{array::Int64Array, datatypes::Schema, record_batch::RecordBatch};
    use futures::FutureExt;

    use super::*;
    use crate::answer::ChangeOp;

    fn item(rows: i64, position: u64) -> PushItem {
        let column: arrow::array::ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let rows = RecordBatch::try_from_iter([("n", column)]).unwrap();
        PushItem::Changes { ops: vec![ChangeOp::Insert; rows.num_rows()], rows, position: Position::new(position) }
    }

    #[test]
    fn a_slow_listener_gets_what_was_in_line_and_then_is_told_where_to_resume() {
        let (mut listener, mut heard) = ChangeListener::new(Arc::new(Schema::empty()), Position::default());
        let taken = (1..).take_while(|step| listener.offer(item(1, *step))).count();
        assert_eq!(taken, LISTENER_STEPS);
        for step in 1..=LISTENER_STEPS as u64 {
            let Some(Some(Ok(PushItem::Changes { position, .. }))) = heard.next().now_or_never() else { panic!("step {step}") };
            assert_eq!(position.get(), step);
        }
        let last = heard.next().now_or_never();
        let Some(Some(Err(QueryError::SlowReader { at }))) = last else { panic!("{last:?}") };
        assert_eq!(at.get(), LISTENER_STEPS as u64);
    }

    #[test]
    fn a_listener_is_bounded_in_bytes() {
        let (mut listener, _heard) = ChangeListener::new(Arc::new(Schema::empty()), Position::default());
        let taken = (1..).take_while(|step| listener.offer(item(1 << 17, *step))).count();
        assert!((8..=20).contains(&taken), "{taken} steps of a MiB");
    }
}
