//! Views and topics at one common position.
//!
//! Every query that is needed stands still, a position is announced, and each goes as far as that. Readers at once never wait in a circle.

use std::{sync::Arc, time::Duration};

use foldlog_log::Position;
use tokio::time::Instant;

use super::Supervisor;
use crate::{
    error::QueryError,
    stream::{
        query::{Hold, Query},
        view::{Pinned, View},
    },
};

impl Supervisor {
    /// Pins views at one common position, at or after `at_least`. One view alone is pinned where it is, without waiting for
    /// anything but `at_least`. Dropping the future lets every view go on.
    ///
    /// # Errors
    /// As [`View::wait`]; [`QueryError::NotAligned`] if there is no common position within `timeout`.
    pub async fn pin_together(
        &self,
        views: &[Arc<View>],
        at_least: Option<Position>,
        timeout: Duration,
    ) -> Result<Vec<Pinned>, QueryError> {
        if let [view] = views {
            return Ok(vec![view.pin_from(at_least, timeout).await?]);
        }
        Ok(self.align(views, &[], at_least, timeout).await?.views)
    }

    /// Brings views and topics, each with the queries that write it, to one common position, at or after `at_least`. Readers at once
    /// do not wait for each other: positions are announced in some order, tasks go to the lowest first, and it is let go as soon as
    /// all have reached it. Dropping the future lets every query go on.
    ///
    /// # Errors
    /// As [`Supervisor::pin_together`].
    pub(crate) async fn align(
        &self,
        views: &[Arc<View>],
        writers: &[Vec<Arc<Query>>],
        at_least: Option<Position>,
        timeout: Duration,
    ) -> Result<Aligned, QueryError> {
        let deadline = Instant::now() + timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        if let Some(at_least) = at_least {
            for query in views.iter().map(|view| view.query()).chain(writers.iter().flatten()) {
                query.wait_for(at_least, left()).await?;
            }
        }
        // Every query stands still where it reads now; the durable end is at or after that.
        let mut holds: Vec<Hold> = Vec::new();
        for query in views.iter().map(|view| view.query()).chain(writers.iter().flatten()) {
            hold_all(query, &mut holds);
        }
        let position = self.inner.log.head().position;
        holds.iter().for_each(|hold| hold.announce(position));
        // Upstream comes before downstream, so each knows where it stops when it is waited for.
        for query in holds.iter().map(Hold::query) {
            let at = query.cut_at(position);
            query.wait(left(), |reached| reached.folded >= at && reached.frontier >= position).await.map_err(|error| match error {
                QueryError::Timeout { .. } => QueryError::NotAligned {
                    view: query.sink().to_owned(),
                    reason: format!("it did not reach position {position} in time"),
                },
                other => other,
            })?;
        }
        Ok(Aligned {
            position,
            views: views.iter().map(|view| view.pin_at(position)).collect::<Result<_, _>>()?,
            // Held there, none has written anything that belongs to a later position.
            ends: writers
                .iter()
                .map(|writers| writers.iter().map(|writer| writer.shown_below(position)).fold(position, Position::max))
                .collect(),
        })
    }
}

/// Views and topics at one position.
pub(crate) struct Aligned {
    /// Everything of the root sources below it is reflected, nothing else.
    pub(crate) position: Position,
    /// The views.
    pub(crate) views: Vec<Pinned>,
    /// Where each topic ends.
    pub(crate) ends: Vec<Position>,
}

/// Holds a query and everything upstream of it, upstream first, each once.
fn hold_all(query: &Arc<Query>, holds: &mut Vec<Hold>) {
    if holds.iter().any(|hold| Arc::ptr_eq(hold.query(), query)) {
        return;
    }
    for upstream in query.live_upstream() {
        hold_all(&upstream, holds);
    }
    holds.push(query.hold());
}
