//! A view as its readers see it: a table that is read at one committed position while its query goes on.

use std::{fmt, sync::Arc, time::Duration};

use arrow::{
    array::ArrayRef,
    datatypes::{DataType, SchemaRef},
    record_batch::RecordBatch,
};
use datafusion::common::ScalarValue;
use foldlog_log::Position;

use crate::{
    changes::{ChangeListener, Listener},
    error::QueryError,
    stream::{
        fold::Fold,
        operator::chain::execution,
        query::{Query, Reached},
        state::{RowNumber, Version},
    },
    supervisor::QueryState,
};

/// Rows of one batch of a scan.
pub const SCAN_ROWS: usize = 8192;

/// The table that a persistent query keeps.
pub struct View {
    query: Arc<Query>,
    fold: Arc<Fold>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("name", &self.name()).field("frontier", &self.frontier()).finish_non_exhaustive()
    }
}

impl View {
    /// The view of a query that keeps one.
    pub(crate) fn of(query: &Arc<Query>) -> Option<Self> {
        Some(Self { fold: Arc::clone(query.fold()?), query: Arc::clone(query) })
    }

    /// Name of the table in the catalog.
    #[must_use]
    pub fn name(&self) -> &str {
        self.query.sink()
    }

    /// Key columns, value columns, `rowtime`.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(self.fold.schema())
    }

    /// Number of key columns; they come first in the schema.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.fold.keys()
    }

    /// The position up to which all root sources are reflected in what readers see (exclusive).
    #[must_use]
    pub fn frontier(&self) -> Position {
        self.query.frontier()
    }

    /// Waits until everything below `at_least` is reflected.
    ///
    /// # Errors
    /// [`QueryError::NotYet`] after `timeout`, [`QueryError::Folding`] if the view is still being folded then, and what ended the
    /// query if it ended.
    pub async fn wait(&self, at_least: Position, timeout: Duration) -> Result<(), QueryError> {
        self.query.wait_for(at_least, timeout).await
    }

    /// Pins the view where it is now.
    ///
    /// # Errors
    /// [`QueryError::Folding`] while it is being folded, and what ended its query.
    pub fn pin(&self) -> Result<Pinned, QueryError> {
        self.readable(|position, _| Pinned::new(&self.fold, position))
    }

    /// Pins the view where it is once everything below `at_least` is reflected.
    ///
    /// # Errors
    /// Those of [`View::wait`] and [`View::pin`].
    pub(crate) async fn pin_from(&self, at_least: Option<Position>, timeout: Duration) -> Result<Pinned, QueryError> {
        if let Some(at_least) = at_least {
            self.wait(at_least, timeout).await?;
        }
        self.pin()
    }

    /// Pins the view where it is now, as what it is at `position`: the caller has seen to it that nothing lies between.
    pub(crate) fn pin_at(&self, position: Position) -> Result<Pinned, QueryError> {
        self.readable(|_, _| Pinned::new(&self.fold, position))
    }

    /// The rows under keys now, a batch for each that is there, and the position at which that is so. A key is one value for each
    /// key column, of its type.
    ///
    /// # Errors
    /// As [`View::pin`].
    pub(crate) fn get(&self, keys: &[Vec<ScalarValue>]) -> Result<(Vec<RecordBatch>, Position), QueryError> {
        if let Some(error) = self.query.unreadable() {
            return Err(error);
        }
        let keys: Vec<Vec<ArrayRef>> = keys.iter().map(|key| key_columns(key, self.fold.key_types())).collect::<Result<_, _>>()?;
        let find = |position, _: &mut Vec<Listener>| (keys.iter().map(|key| self.fold.find(key)).collect::<Vec<_>>(), position);
        let (found, position) = self.query.at_frontier(find);
        let mut rows = Vec::with_capacity(found.len());
        for group in found {
            if let Some(group) = group? {
                rows.extend(self.fold.row(group)?);
            }
        }
        Ok((rows, position))
    }

    /// Its rows now, and every change after.
    pub(crate) fn listen(&self) -> Result<ChangeListener, QueryError> {
        self.readable(|position, listeners| {
            let (listener, heard) = ChangeListener::new(self.schema(), position);
            listeners.push(listener);
            heard.with_snapshot(Pinned::new(&self.fold, position))
        })
    }

    /// Runs `with` while nothing is published and the query cannot end, so that who listens is told of every change and of the end.
    fn readable<T>(&self, with: impl FnOnce(Position, &mut Vec<Listener>) -> T) -> Result<T, QueryError> {
        self.query.at_frontier(|position, listeners| match self.query.unreadable() {
            Some(error) => Err(error),
            None => Ok(with(position, listeners)),
        })
    }

    pub(crate) fn query(&self) -> &Arc<Query> {
        &self.query
    }
}

impl Query {
    /// Waits until everything below `at_least` is reflected.
    ///
    /// # Errors
    /// Those of [`View::wait`].
    pub(crate) async fn wait_for(&self, at_least: Position, timeout: Duration) -> Result<(), QueryError> {
        self.wait(timeout, |reached| reached.frontier >= at_least).await.map_err(|error| match error {
            QueryError::Timeout { .. } => QueryError::NotYet { view: self.sink().to_owned(), at: self.frontier(), wanted: at_least },
            other => other,
        })
    }

    /// Waits until the view can be read and `enough` holds.
    ///
    /// # Errors
    /// [`QueryError::Timeout`], [`QueryError::Folding`], and what ended the query.
    pub(crate) async fn wait(&self, timeout: Duration, enough: impl Fn(&Reached) -> bool) -> Result<(), QueryError> {
        let mut reached = self.reached();
        let over = |reached: &Reached| match reached.state {
            QueryState::Running => enough(reached),
            QueryState::Folding { .. } => false,
            QueryState::Failed(_) | QueryState::Stopped => true,
        };
        let _hurried = (!over(&reached.borrow())).then(|| self.hurry());
        let waited = match tokio::time::timeout(timeout, reached.wait_for(over)).await {
            Ok(Ok(_)) => true,
            Ok(Err(_)) => return Err(QueryError::Stopping),
            Err(_) => false,
        };
        match self.unreadable() {
            Some(error) => Err(error),
            None if waited => Ok(()),
            None => Err(QueryError::Timeout {
                what: format!("waiting for {}", self.sink()),
                limit_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }
}

/// A part of a view's rows.
pub(crate) enum Part<Rows> {
    AtHand(RecordBatch),
    ToRead(Rows),
}

/// A view at one committed position, held until dropped.
pub struct Pinned {
    held: Arc<Held>,
}

/// The pin itself; scans hold it too.
struct Held {
    fold: Arc<Fold>,
    version: Version,
    position: Position,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.fold.unpin(self.version);
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("position", &self.position()).finish_non_exhaustive()
    }
}

impl Pinned {
    /// Pins the committed version, which belongs to `position`.
    pub(crate) fn new(fold: &Arc<Fold>, position: Position) -> Self {
        Self { held: Arc::new(Held { fold: Arc::clone(fold), version: fold.pin(), position }) }
    }

    /// Columns of the rows: those of the view.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(self.held.fold.schema())
    }

    /// Everything of the root sources below this position (exclusive) is reflected, nothing else.
    #[must_use]
    pub fn position(&self) -> Position {
        self.held.position
    }

    /// The row under a key: one value for each key column, in the order of the schema; a batch of one row.
    ///
    /// # Errors
    /// [`QueryError::SnapshotTooOld`]; [`QueryError::Invalid`] if `key` does not fit the key columns.
    pub fn get(&self, key: &[ScalarValue]) -> Result<Option<RecordBatch>, QueryError> {
        let key = key_columns(key, self.held.fold.key_types())?;
        self.held.fold.get(&key, self.held.version, self.held.position)
    }

    /// All rows, at most [`SCAN_ROWS`] a batch, in the order in which their keys first came. Rows are copied a batch at a time,
    /// under a lock held for that batch; nothing follows an error ([`QueryError::SnapshotTooOld`]).
    pub fn scan(&self) -> impl Iterator<Item = Result<RecordBatch, QueryError>> + Send + use<> {
        self.part(0, RowNumber::MAX)
    }

    /// The same in parts of [`SCAN_ROWS`] rows, each to be read on a thread of its own, or as an earlier scan left it.
    pub(crate) fn parts(
        &self,
    ) -> impl Iterator<Item = Part<impl Iterator<Item = Result<RecordBatch, QueryError>> + Send + use<>>> + Send + use<'_> {
        // At least one part: it says if the version was given up.
        let rows = self.held.fold.rows_at(self.held.version).max(1);
        (0..rows).step_by(SCAN_ROWS).map(move |from| match self.held.fold.part_at_hand(number(from), self.held.version) {
            Some((rows, _)) => Part::AtHand(rows),
            None => Part::ToRead(self.part(number(from), number(rows.min(from + SCAN_ROWS)))),
        })
    }

    /// Rows from a number on, up to another one (exclusive).
    fn part(&self, from: RowNumber, to: RowNumber) -> Reading {
        Reading { held: Arc::clone(&self.held), next: Some(from).filter(|from| *from < to), to }
    }
}

/// Rows of a view that are read, a batch at a time.
struct Reading {
    held: Arc<Held>,
    /// None: nothing follows.
    next: Option<RowNumber>,
    to: RowNumber,
}

impl Iterator for Reading {
    type Item = Result<RecordBatch, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let from = self.next.take()?;
            let most = SCAN_ROWS.min((self.to - from) as usize);
            match self.held.fold.scan(from, most, self.held.version, self.held.position).transpose()? {
                Ok((rows, following)) => {
                    self.next = Some(following).filter(|following| *following < self.to);
                    if rows.num_rows() > 0 {
                        return Some(Ok(rows));
                    }
                }
                Err(fault) => return Some(Err(fault)),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.next.is_none().then_some(0))
    }
}

fn number(row: usize) -> RowNumber {
    RowNumber::try_from(row).unwrap_or(RowNumber::MAX)
}

/// One key as columns of one row, each of the type that the key has there.
fn key_columns(key: &[ScalarValue], types: &[DataType]) -> Result<Vec<ArrayRef>, QueryError> {
    if key.len() != types.len() {
        return Err(QueryError::Invalid(format!("the key has {} columns, {} values were given", types.len(), key.len())));
    }
    let column = |(value, data_type): (&ScalarValue, &DataType)| {
        let value = value.cast_to(data_type).map_err(|error| QueryError::Invalid(format!("the key does not fit: {error}")))?;
        value.to_array().map_err(execution)
    };
    key.iter().zip(types).map(column).collect()
}
