//! Query conditions: "no event matches this, or none since I read".
//!
//! Judged in two phases, so that admission never touches a file. The caller's thread looks up what is durable
//! ([`Engine::look_up`]), admission what came after in memory ([`PreparedQuery::judge`]); if memory has let some of that go since,
//! it is looked up again. Invariant: below `seen` the answer is known.

use super::{
    asked::Asked,
    request::{PreparedCondition, Request},
};
use crate::{
    engine::Engine, error::LogError, ids::Position, postings::Recent, record::QueryAbsent, segment::StreamHasher, topic_store::TopicStore,
};

/// A query condition with the keys that it asks for.
#[derive(Debug)]
pub(crate) struct PreparedQuery {
    asked: Asked,
    /// Events up to this position (inclusive) do not count.
    after: Option<Position>,
    /// Nothing below this position (exclusive) is unknown.
    seen: Position,
    /// The first event that matches, of those below `seen`.
    found: Option<Position>,
}

/// What admission says of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    Holds,
    /// The event at this position matches.
    Violated(Position),
    /// Memory does not hold all that came since it was looked up.
    TooOld,
}

impl PreparedQuery {
    /// Checks what is asked; nothing is looked up yet.
    ///
    /// # Errors
    /// [`LogError::Invalid`], [`LogError::UnknownTopic`], [`LogError::WrongKind`], [`LogError::PartitionReadOnly`].
    pub(super) fn new(asked: QueryAbsent, topics: &TopicStore, hasher: &StreamHasher) -> Result<Self, LogError> {
        let QueryAbsent { scope, query, after } = asked;
        let query = Self { asked: Asked::new(query, scope, topics, hasher)?, after, seen: Position::default(), found: None };
        query.require_writable()?;
        Ok(query)
    }

    /// What postings say of damaged partitions may not be all.
    fn require_writable(&self) -> Result<(), LogError> {
        self.asked.partitions().iter().try_for_each(|partition| partition.writable())
    }

    /// Combinations of topic, type and tag that it asks for.
    pub(super) fn combinations(&self) -> usize {
        self.asked.combinations()
    }

    /// First position that counts and is not known yet.
    fn from(&self) -> Position {
        self.after.map_or(Position::default(), |after| Position::new(after.get().saturating_add(1))).max(self.seen)
    }

    /// The position behind which events count, if nobody can have been told of it: the next one to be given is `next`.
    pub(super) fn out_of_range(&self, next: Position) -> Option<Position> {
        self.after.filter(|after| *after >= next)
    }

    /// Judges by what was looked up and what was admitted since.
    pub(super) fn judge(&self, recent: &Recent, topics: &TopicStore) -> Judged {
        if let Some(found) = self.found {
            return Judged::Violated(found);
        }
        if self.asked.is_behind(topics) {
            return Judged::TooOld;
        }
        let found = recent.first(self.asked.terms(), self.from(), Position::new(u64::MAX));
        match found {
            // Asked afterwards: what went while we looked went from below the floor.
            _ if recent.floor() > self.seen => Judged::TooOld,
            Some(first) => Judged::Violated(first),
            None => Judged::Holds,
        }
    }
}

impl Engine {
    /// Looks up the queries of a request in everything that is durable. May read files.
    ///
    /// # Errors
    /// [`LogError::PositionLost`]; [`LogError::Corrupt`] if what must be made again cannot be; [`LogError::Io`].
    pub(crate) fn look_up(&self, request: &mut Request) -> Result<(), LogError> {
        for condition in &mut request.conditions {
            let PreparedCondition::Query(query) = condition else { continue };
            query.after.map_or(Ok(()), |after| self.not_lost(after, Position::new(after.get().saturating_add(1))))?;
            // Captured before topics are: one that is made later has events behind it only.
            let end = self.tail.end();
            if query.asked.is_behind(&self.topics) {
                query.asked.renew(&self.topics, &self.hasher)?;
                query.require_writable()?;
            }
            if query.found.is_none() {
                query.found = self.ask_postings(|postings| postings.first(query.asked.terms(), query.from(), end))?;
            }
            query.seen = end;
        }
        Ok(())
    }
}
