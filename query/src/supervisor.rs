//! Starts, stops and looks after the queries that never end.
//!
//! The engine holds one [`Supervisor`]; it owns the workers that run the queries' steps.

use std::{sync::Arc, time::Duration};

use foldlog_log::Position;

use crate::{
    changes::ChangeListener,
    error::QueryError,
    stream::view::{Pinned, View},
};

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
}

/// All running queries. Cheap to clone.
#[derive(Clone, Default)]
pub struct Supervisor {}

impl Supervisor {
    /// What each persistent query is doing, by id.
    #[must_use]
    pub fn queries(&self) -> Vec<QueryStatus> {
        Vec::new()
    }

    /// The view that a persistent query keeps under this name.
    #[must_use]
    pub fn view(&self, _name: &str) -> Option<Arc<View>> {
        None
    }

    /// Pins views at one common position, at or after `at_least`. One view alone is pinned where it is, without waiting for
    /// anything but `at_least`.
    ///
    /// # Errors
    /// As [`View::wait`]; [`QueryError::NotAligned`] if there is no common position within `timeout`.
    pub async fn pin_together(
        &self,
        views: &[Arc<View>],
        _at_least: Option<Position>,
        timeout: Duration,
    ) -> Result<Vec<Pinned>, QueryError> {
        match views {
            [] => Ok(Vec::new()),
            [first, ..] => Err(QueryError::Timeout {
                what: format!("pinning {}", first.name()),
                limit_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }

    /// Listens to a view: its rows now, and every change after.
    ///
    /// # Errors
    /// [`QueryError::Folding`], or what ended the query.
    pub fn listen(&self, view: &View) -> Result<ChangeListener, QueryError> {
        Err(QueryError::Folding { view: view.name().to_owned(), at: view.frontier(), end: view.frontier() })
    }
}
