//! Queries that take another one's place: who is read until then, and what who has seen it may be shown.
//!
//! Invariant: from the moment on at which a query is read in another one's place, its table is in its topic.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use foldlog_log::Position;
use futures::executor::block_on;
use tokio::time::Instant;

use super::{Inner, Supervisor};
use crate::{
    catalog::{QueryDef, Source},
    error::QueryError,
    plan::StreamPlan,
};

/// Whose place a query takes.
pub(super) struct Succeeds {
    /// Id of the query.
    pub(super) id: String,
    /// Where the log says so: who has seen that is not shown the old one.
    pub(super) from: Position,
}

/// Queries that take another one's place, and those that have since the start of the process.
#[derive(Default)]
pub(super) struct TakenOver {
    /// Who will, and where the log says so.
    pub(super) due: Vec<(String, Position)>,
    /// Where the log says that one does, and the end of what it wrote for that; oldest first.
    places: Vec<(Position, Position)>,
}

/// Take-overs that are remembered one by one.
const MOST_TAKEN_OVER: usize = 1_000;

impl TakenOver {
    pub(super) fn note(&mut self, id: &str, from: Position, end: Position) {
        self.forget(id);
        self.places.push((from, end));
        if self.places.len() > MOST_TAKEN_OVER {
            // Who has seen the first waits for the end of the second, which is long past.
            let (first, end) = self.places.remove(0);
            if let Some(second) = self.places.first_mut() {
                *second = (second.0.min(first), second.1.max(end));
            }
        }
    }

    /// A query will not take another one's place any more.
    pub(super) fn forget(&mut self, id: &str) {
        self.due.retain(|(due, _)| due != id);
    }

    /// What must be reflected for who has seen a position: the differences, too, that were written behind it. None while one is due.
    pub(super) fn at_least(&self, seen: Position) -> Option<Position> {
        if self.due.iter().any(|(_, from)| *from <= seen) {
            return None;
        }
        Some(self.places.iter().filter(|(from, _)| *from <= seen).map(|(_, end)| *end).fold(seen, Position::max))
    }
}

impl Inner {
    /// Has a query that is like the one before it be read in its place.
    pub(super) fn take_over(&self, id: &str, end: Position) {
        let mut running = self.running.write();
        let Some(new) = running.get_mut(id) else { return };
        let (Some(old), query, topic) = (new.succeeds.take(), Arc::clone(&new.query), new.topic.clone()) else { return };
        let before = running.remove(&old.id);
        for reader in running.values().filter(|running| running.reads == topic) {
            reader.query.add_upstream(&query);
        }
        // Whoever finds the old one stopped must see that another one is read by now.
        self.swaps.fetch_add(1, Ordering::AcqRel);
        drop(running);
        if let Some(before) = before {
            before.query.stop();
        }
        match &self.keeper {
            Some(keeper) => keeper.dismiss(&old.id),
            None => self.log.release(&old.id),
        }
        self.taken_over.send_modify(|taken_over| taken_over.note(id, old.from, end));
    }
}

impl Supervisor {
    /// As [`Supervisor::start`], beside the query whose place it takes: that one goes on, and is read, until the new one has folded as
    /// much; then it ends. `from` is where the log says that it does.
    ///
    /// # Errors
    /// As [`Supervisor::start`].
    pub(crate) fn start_beside(&self, old: &str, from: Position, def: &QueryDef, plan: &StreamPlan) -> Result<(), QueryError> {
        let ending = {
            let mut running = self.inner.running.write();
            // One that has not taken its place yet leaves it to this one.
            let before = running.get_mut(old).and_then(|old| old.succeeds.take());
            before.and_then(|before| Some((before.id, running.remove(old)?)))
        };
        if let Some((before, ending)) = ending {
            block_on(self.end(ending));
            self.inner.taken_over.send_modify(|taken_over| taken_over.forget(old));
            self.inner.log.release(old);
            return self.launch(def, plan, Some(Succeeds { id: before, from }));
        }
        if self.inner.running.read().contains_key(old) {
            return self.launch(def, plan, Some(Succeeds { id: old.to_owned(), from }));
        }
        self.inner.log.release(old);
        self.launch(def, plan, None)
    }

    /// The sources that are read as they were, for whoever takes their query's place is not there yet.
    pub(crate) fn served(&self) -> Vec<Arc<Source>> {
        let running = self.inner.running.read();
        running.values().filter_map(|new| running.get(&new.succeeds.as_ref()?.id)).map(|old| Arc::clone(&old.sink)).collect()
    }

    /// How often a query has been read in another one's place since the start of the process.
    pub(crate) fn swaps(&self) -> u64 {
        self.inner.swaps.load(Ordering::Acquire)
    }

    /// What must be reflected for who has seen a position; none while a query takes another one's place that the log names below it.
    pub(crate) fn at_least(&self, seen: Position) -> Option<Position> {
        self.inner.taken_over.borrow().at_least(seen)
    }

    /// Waits until nobody reads what was replaced before a position that was seen; gives what must be reflected then.
    ///
    /// # Errors
    /// [`QueryError::Timeout`].
    pub(crate) async fn taken_over(&self, seen: Position, timeout: Duration) -> Result<Position, QueryError> {
        let mut changed = self.inner.taken_over.subscribe();
        let deadline = Instant::now() + timeout;
        loop {
            changed.mark_unchanged();
            if let Some(at_least) = self.at_least(seen) {
                return Ok(at_least);
            }
            if tokio::time::timeout_at(deadline, changed.changed()).await.is_err() {
                let what = "waiting for a table that is replaced (SHOW QUERIES says how far it is)".to_owned();
                return Err(QueryError::Timeout { what, limit_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX) });
            }
        }
    }
}
