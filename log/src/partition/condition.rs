//! Query conditions: "no event matches this, or none since I read".
//!
//! Judged in two phases, so that admission never touches a file. The caller's thread looks up what is durable
//! ([`Engine::look_up`]), admission what came after in memory ([`PreparedQuery::judge`]); if memory has let some of that go since,
//! it is looked up again. Invariant: below `seen` the answer is known.

use super::request::{PreparedCondition, Request};
use crate::{
    engine::Engine,
    error::LogError,
    ids::Position,
    postings::{Recent, Term, add_terms},
    record::{QueryAbsent, Scope},
    segment::StreamHasher,
    topic::TopicKind,
    topic_store::{TopicEntry, TopicStore},
};

/// Most combinations of topic, type and tag that the queries of one append ask for.
pub(super) const MAX_COMBINATIONS: usize = 16_384;

pub(super) fn too_many() -> LogError {
    let reason = format!("queries ask for more than {MAX_COMBINATIONS} combinations of topic, type and tag");
    LogError::Invalid { field: "preconditions".into(), reason }
}

/// A query condition with the keys that it asks for.
#[derive(Debug)]
pub(crate) struct PreparedQuery {
    asked: QueryAbsent,
    terms: Vec<Term>,
    /// How many topics there were when the terms were made; counts for a query of everything.
    topics: usize,
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
        asked.query.check()?;
        if matches!(&asked.scope, Scope::Topics(names) if names.is_empty()) {
            return Err(LogError::Invalid { field: "query".into(), reason: "it names no topic".into() });
        }
        let mut query = Self { asked, terms: Vec::new(), topics: 0, seen: Position::default(), found: None };
        query.make_terms(topics, hasher)?;
        Ok(query)
    }

    fn make_terms(&mut self, topics: &TopicStore, hasher: &StreamHasher) -> Result<(), LogError> {
        let entries = match &self.asked.scope {
            Scope::Topics(names) => names.iter().map(|name| topics.get(name)).collect::<Result<Vec<_>, _>>()?,
            Scope::Everything => {
                let all = topics.all();
                self.topics = all.len();
                let is_meant = |entry: &TopicEntry| entry.topic.settings.kind == TopicKind::Events && !entry.topic.name.is_system();
                all.into_iter().filter(|entry| is_meant(entry)).collect()
            }
        };
        if self.asked.query.combinations().saturating_mul(entries.len()) > MAX_COMBINATIONS {
            return Err(too_many());
        }
        self.terms.clear();
        for entry in entries {
            super::request::require_events(&entry, "queries are about topics of kind events")?;
            entry.partitions.iter().try_for_each(|partition| partition.writable())?;
            add_terms(&self.asked.query, entry.topic.id, hasher, &mut self.terms);
        }
        Ok(())
    }

    /// Combinations of topic, type and tag that it asks for, at most [`MAX_COMBINATIONS`].
    pub(super) fn combinations(&self) -> usize {
        self.terms.iter().map(|term| term.len()).sum()
    }

    /// First position that counts and is not known yet.
    fn from(&self) -> Position {
        self.asked.after.map_or(Position::default(), |after| Position::new(after.get().saturating_add(1))).max(self.seen)
    }

    /// Whether topics were made since that a query of everything asks for, too.
    fn is_behind(&self, topics: &TopicStore) -> bool {
        self.asked.scope == Scope::Everything && self.topics != topics.count()
    }

    /// The position behind which events count, if nobody can have been told of it: the next one to be given is `next`.
    pub(super) fn out_of_range(&self, next: Position) -> Option<Position> {
        self.asked.after.filter(|after| *after >= next)
    }

    /// Judges by what was looked up and what was admitted since.
    pub(super) fn judge(&self, recent: &Recent, topics: &TopicStore) -> Judged {
        if let Some(found) = self.found {
            return Judged::Violated(found);
        }
        if self.is_behind(topics) {
            return Judged::TooOld;
        }
        let found = recent.first(&self.terms, self.from(), Position::new(u64::MAX));
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
    /// [`LogError::Corrupt`] if what must be made again cannot be; [`LogError::Io`].
    pub(crate) fn look_up(&self, request: &mut Request) -> Result<(), LogError> {
        for condition in &mut request.conditions {
            let PreparedCondition::Query(query) = condition else { continue };
            // Captured before topics are: one that is made later has events behind it only.
            let end = self.tail.end();
            if query.is_behind(&self.topics) {
                query.make_terms(&self.topics, &self.hasher)?;
            }
            if query.found.is_none() {
                query.found = self.first_match(&query.terms, query.from(), end)?;
            }
            query.seen = end;
        }
        Ok(())
    }

    fn first_match(&self, terms: &[Term], from: Position, end: Position) -> Result<Option<Position>, LogError> {
        let mut mended = Vec::new();
        loop {
            match self.postings.first(terms, from, end) {
                Err(LogError::Corrupt { file, .. }) if !mended.contains(&file) => {
                    self.mend_postings(&file)?;
                    mended.push(file);
                }
                found => return found,
            }
        }
    }
}
