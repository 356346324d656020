//! Changed rows of a view to whoever listens, with the position that they complete.
//!
//! A query's task offers each committed step to its listeners; a listener is bounded, and one that does not keep up is
//! ended and told how far it got: nothing is ever skipped silently.

use arrow::datatypes::SchemaRef;
use tokio::sync::mpsc;

use crate::{answer::PushItem, error::QueryError, stream::view::Pinned};

/// Steps that a listener may be behind before it is ended.
pub const LISTENER_STEPS: usize = 1024;

/// What one listener hears: the view as it was when listening began, then every committed change after that.
pub struct ChangeListener {
    snapshot: Option<Pinned>,
    schema: SchemaRef,
    received: mpsc::Receiver<Result<PushItem, QueryError>>,
}

impl ChangeListener {
    pub(crate) fn new(snapshot: Option<Pinned>, schema: SchemaRef, received: mpsc::Receiver<Result<PushItem, QueryError>>) -> Self {
        Self { snapshot, schema, received }
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
    /// [`LISTENER_STEPS`] steps; what ended the query, if it failed. Nothing follows an error.
    pub async fn next(&mut self) -> Option<Result<PushItem, QueryError>> {
        self.received.recv().await
    }
}
