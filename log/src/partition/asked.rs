//! What a query asks of which topics, as keys of postings.
//!
//! Query conditions and filtered reads begin with it. Invariant: it names no topic but such that have events.

use std::sync::Arc;

use super::request::require_events;
use crate::{
    error::LogError,
    postings::{Term, add_terms},
    record::{EventQuery, Scope},
    segment::StreamHasher,
    topic::TopicKind,
    topic_store::{Partition, TopicEntry, TopicStore},
};

/// Most combinations of topic, type and tag that the queries of one request ask for.
pub(super) const MAX_COMBINATIONS: usize = 16_384;

pub(super) fn too_many(field: &str) -> LogError {
    let reason = format!("more than {MAX_COMBINATIONS} combinations of topic, type and tag are asked for");
    LogError::Invalid { field: field.into(), reason }
}

/// A query with the keys that it asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) query: EventQuery,
    scope: Scope,
    terms: Vec<Term>,
    partitions: Vec<Arc<Partition>>,
    /// How many topics had been made and deleted when the terms were made; counts for a query of everything.
    topics: u64,
}

impl Asked {
    /// # Errors
    /// [`LogError::Invalid`], [`LogError::UnknownTopic`], [`LogError::WrongKind`].
    pub(crate) fn new(query: EventQuery, scope: Scope, topics: &TopicStore, hasher: &StreamHasher) -> Result<Self, LogError> {
        query.check()?;
        if matches!(&scope, Scope::Topics(names) if names.is_empty()) {
            return Err(LogError::Invalid { field: "query".into(), reason: "it names no topic".into() });
        }
        let mut asked = Self { query, scope, terms: Vec::new(), partitions: Vec::new(), topics: 0 };
        asked.renew(topics, hasher)?;
        Ok(asked)
    }

    /// Takes up what was made since.
    ///
    /// # Errors
    /// As [`Asked::new`]; then it is what it was.
    pub(crate) fn renew(&mut self, topics: &TopicStore, hasher: &StreamHasher) -> Result<(), LogError> {
        // Counted first: what is made meanwhile is taken up the next time.
        let changes = topics.changes();
        let entries = match &self.scope {
            Scope::Topics(names) => names.iter().map(|name| topics.get(name)).collect::<Result<Vec<_>, _>>()?,
            Scope::Everything => {
                let is_meant = |entry: &TopicEntry| entry.topic.settings.kind == TopicKind::Events && !entry.topic.name.is_system();
                topics.all().into_iter().filter(|entry| is_meant(entry)).collect()
            }
        };
        if self.query.combinations().saturating_mul(entries.len()) > MAX_COMBINATIONS {
            return Err(too_many("query"));
        }
        entries.iter().try_for_each(|entry| require_events(entry, "queries are about topics of kind events"))?;
        self.terms.clear();
        for entry in &entries {
            add_terms(&self.query, entry.topic.id, hasher, &mut self.terms);
        }
        self.partitions = entries.iter().flat_map(|entry| &entry.partitions).cloned().collect();
        self.topics = changes;
        Ok(())
    }

    /// Whether topics were made or deleted since that a query of everything asks for, too.
    pub(crate) fn is_behind(&self, topics: &TopicStore) -> bool {
        self.scope == Scope::Everything && self.topics != topics.changes()
    }

    /// What it asks for: an event matches if it is posted under all keys of any term.
    pub(crate) fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Combinations of topic, type and tag that it asks for, at most [`MAX_COMBINATIONS`].
    pub(crate) fn combinations(&self) -> usize {
        self.terms.iter().map(|term| term.len()).sum()
    }

    /// The partitions in which such events may lie.
    pub(crate) fn partitions(&self) -> &[Arc<Partition>] {
        &self.partitions
    }
}
