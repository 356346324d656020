//! What is asked of the engine and what it answers: the types every door translates from and to.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::common::ScalarValue;
use foldlog_log::{Position, TopicId};
use futures::Stream;

use crate::{
    error::QueryError,
    sql::{Session, SessionChange},
};

/// One statement and the conditions under which it is to be answered.
#[derive(Clone, Debug)]
pub struct Request {
    /// Exactly one statement.
    pub sql: String,
    /// Values for `$1`, `$2`, ...
    pub parameters: Vec<ScalarValue>,
    /// Answer at or after this position (exclusive end of what must be reflected), from a token.
    pub at_least: Option<Position>,
    /// Push only: go on right behind this place, from a resume token.
    pub resume: Option<Resume>,
    /// Longest time for waiting and computing together.
    pub timeout: Duration,
    /// Settings and variables of the client.
    pub session: Session,
}

/// Where a push query goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Exclusive end of what the client has.
    pub position: Position,
    /// The topic whose records it has, if that is known.
    pub topic: Option<TopicId>,
}

impl From<Position> for Resume {
    fn from(position: Position) -> Self {
        Self { position, topic: None }
    }
}

/// Batches of an answer; dropping them cancels what is not computed yet.
pub enum Batches {
    /// All of them, at hand: one or none.
    AtHand(Option<RecordBatch>),
    /// Those that are computed one after the other.
    Coming(Pin<Box<dyn Stream<Item = Result<RecordBatch, QueryError>> + Send>>),
}

impl Stream for Batches {
    type Item = Result<RecordBatch, QueryError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.get_mut() {
            Self::AtHand(batch) => Poll::Ready(batch.take().map(Ok)),
            Self::Coming(batches) => batches.as_mut().poll_next(context),
        }
    }
}

/// The answer to a statement that ends.
pub struct Answer {
    /// Columns of every batch.
    pub schema: SchemaRef,
    /// Places of the key columns in the schema, if the rows have a key.
    pub keys: Vec<usize>,
    /// The rows.
    pub batches: Batches,
    /// The position at which everything was read (exclusive end); for a statement that changed the catalog, the end of its change.
    pub position: Position,
    /// What a statement other than a SELECT did, in a sentence ("stream pageviews created").
    pub done: Option<String>,
    /// What the client is to change of its session before its next statement.
    pub session: Option<SessionChange>,
}

/// What happens to a row of a changing result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChangeOp {
    /// `+I`: a row that was not there.
    Insert = 0,
    /// `-U`: the row before an update.
    UpdateBefore = 1,
    /// `+U`: the row after an update.
    UpdateAfter = 2,
    /// `-D`: a row that is gone.
    Delete = 3,
}

/// One message of a push query.
#[derive(Clone, Debug)]
pub enum PushItem {
    /// Changed rows, in order.
    Changes {
        /// The rows.
        rows: RecordBatch,
        /// One mark a row.
        ops: Vec<ChangeOp>,
        /// The position that these changes complete (exclusive end); resume from here.
        position: Position,
    },
    /// Nothing changed up to this position (exclusive end); resume from here.
    Progress(Position),
}

/// A query that never ends.
pub struct PushAnswer {
    /// Columns of every batch.
    pub schema: SchemaRef,
    /// Places of the key columns in the schema, if the rows have a key.
    pub keys: Vec<usize>,
    /// The topic whose records it passes on; none: it follows a view, or folds.
    pub topic: Option<TopicId>,
    /// The messages; dropping the stream ends the query. Ends by itself at its LIMIT.
    pub items: Pin<Box<dyn Stream<Item = Result<PushItem, QueryError>> + Send>>,
}
