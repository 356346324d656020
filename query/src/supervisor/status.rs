//! What is told of queries.

use foldlog_log::Position;

use crate::stream::fold::Kept;

/// What a query is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryState {
    /// Folding again what it had folded before the last restart, without output; its view cannot be read yet.
    Folding {
        /// How far it is (exclusive).
        at: Position,
        /// Where it must get to (exclusive).
        end: Position,
    },
    /// Following its sources.
    Running,
    /// Ended by something that is not a row: the reason.
    Failed(String),
    /// Terminated, or stopped with the engine.
    Stopped,
}

/// A query as `SHOW QUERIES`, metrics and readiness tell it.
#[derive(Clone, Debug)]
pub struct QueryStatus {
    /// Id in the catalog.
    pub id: String,
    /// What it writes.
    pub sink: String,
    /// What it is doing.
    pub state: QueryState,
    /// Everything of its root sources below this position (exclusive) is reflected.
    pub frontier: Position,
    /// Records read since the start of the process.
    pub rows_in: u64,
    /// Rows written since the start of the process.
    pub rows_out: u64,
    /// Rows skipped, and values nulled, since the start of the process.
    pub bad_rows: u64,
    /// Whether it stands still because somebody said PAUSE.
    pub paused: bool,
    /// What it failed at and tries again.
    pub trouble: Option<String>,
    /// What its operators keep; nothing if it has no state.
    pub kept: Vec<Kept>,
    /// What is kept of its state over a restart.
    pub checkpoint: CheckpointStatus,
}

/// What is kept of a query's state over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointStatus {
    /// The newest durable checkpoint: everything below the position (exclusive) is folded in it; its bytes.
    pub newest: Option<(Position, u64)>,
    /// Why the checkpoint that the query found when it started could not be gone on from; it is set aside.
    pub set_aside: Option<String>,
}
