//! DROP: a stream or table, what is made of it if that is asked for, and its topic. Called on the catalog's thread alone.
//!
//! Invariant: a source goes after everything that reads it, so that at every moment what is there has all that it needs.

use std::sync::Arc;

use foldlog_log::{LogError, TopicName};

use super::{Core, done};
use crate::{
    answer::Answer,
    catalog::{Catalog, Change, QueryId, Source, SourceKind},
    error::QueryError,
    sql::statement::DropSource,
};

/// Something that goes with what it depends on.
enum Gone {
    /// A source, with the query that makes it.
    Source(Arc<Source>),
    /// A query alone: what it writes into has others.
    Query(QueryId),
}

impl Core {
    pub(super) fn drop_source(&self, statement: &DropSource) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        let source = match catalog.source(&statement.name) {
            Ok(source) => source,
            Err(_) if statement.if_exists => return Ok(done(self.head(), format!("{} {} does not exist", statement.kind, statement.name))),
            Err(error) => return Err(error),
        };
        let name = &source.name;
        if source.kind != statement.kind {
            let right = match source.kind {
                SourceKind::Stream => "DROP STREAM",
                SourceKind::Table => "DROP TABLE",
            };
            return Err(QueryError::Invalid(format!("{name} is a {}; use {right} {name}", source.kind)));
        }
        let mut all = Vec::new();
        with_dependants(&catalog, source, &mut all);
        let (last, others) = all.split_last().map_or((None, [].as_slice()), |(last, others)| (Some(last), others));
        if !statement.cascade && !others.is_empty() {
            let dependants: Vec<&str> = others_of(&catalog, source);
            return Err(QueryError::InUse { name: name.clone(), dependants: dependants.join(", ") });
        }
        if statement.delete_topic {
            self.check_topic_may_go(&catalog, source, &all)?;
        }

        let mut end = self.head();
        let mut told = Vec::new();
        for gone in others.iter().chain(last) {
            match gone {
                Gone::Query(query) => {
                    end = self.commit(&Change::Terminate { query: query.clone() })?;
                    self.end_query(query);
                    told.push(format!("query {query} ended"));
                }
                Gone::Source(source) => {
                    end = self.commit(&Change::Drop { name: source.name.clone() })?;
                    let stays = if statement.delete_topic && source.name == *name { "" } else { " stays" };
                    let topic = if stays.is_empty() { String::new() } else { format!("; topic {}{stays}", source.topic) };
                    told.push(format!("{} {} dropped{topic}", source.kind, source.name));
                    if let Some(query) = &source.query {
                        self.end_query(query);
                        told.push(format!("query {query} ended"));
                    }
                }
            }
        }
        if statement.delete_topic {
            self.log.delete_topic(&source.topic)?;
            told.push(format!("topic {} deleted", source.topic));
        }
        Ok(done(end, told.join("; ")))
    }

    /// Refuses to delete a topic that is read only, foldlog's own, or somebody else's too.
    fn check_topic_may_go(&self, catalog: &Catalog, source: &Source, gone: &[Gone]) -> Result<(), QueryError> {
        let topic = &source.topic;
        if source.read_only {
            return Err(QueryError::Invalid(format!(
                "{} is a SOURCE: its topic {topic} is only read; leave DELETE TOPIC out",
                source.name
            )));
        }
        if topic.is_system() {
            return Err(QueryError::Invalid(format!("topic {topic} is foldlog's own; leave DELETE TOPIC out")));
        }
        let goes = |name: &str| gone.iter().any(|one| matches!(one, Gone::Source(source) if source.name == name));
        let others = catalog.sources().filter(|other| other.topic == *topic && !goes(&other.name));
        let owners: Vec<String> = others.map(|other| format!("{} {}", other.kind, other.name)).collect();
        if owners.is_empty() { Ok(()) } else { Err(LogError::TopicInUse { topic: topic.clone(), owners }.into()) }
    }

    /// Deletes a topic that nothing in the catalog is made of: no source is declared over it or fed into it, no query reads it.
    pub(super) fn delete_topic(&self, name: &TopicName) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        let declared = catalog.sources().filter(|source| source.topic == *name).map(|source| format!("{} {}", source.kind, source.name));
        let is_declared = catalog.source(name.as_str()).is_ok();
        let reading = catalog.dependants(name.as_str()).filter(|_| !is_declared).map(|query| format!("query {}", query.id));
        let owners: Vec<String> = declared.chain(reading).collect();
        if !owners.is_empty() {
            return Err(LogError::TopicInUse { topic: name.clone(), owners }.into());
        }
        self.log.delete_topic(name)?;
        Ok(done(self.head(), format!("topic {name} deleted")))
    }
}

/// What reads a source or writes into it besides its own query.
fn others_of<'a>(catalog: &'a Catalog, source: &'a Source) -> Vec<&'a str> {
    let own = source.query.as_ref();
    let writers = catalog.queries().filter(|query| query.sink == source.name && Some(&query.id) != own);
    catalog.dependants(&source.name).chain(writers).map(|query| query.id.as_str()).collect()
}

/// Lists a source behind everything that depends on it, each thing once.
fn with_dependants(catalog: &Catalog, source: &Arc<Source>, all: &mut Vec<Gone>) {
    let is_listed = |all: &[Gone], name: &str| all.iter().any(|one| matches!(one, Gone::Source(source) if source.name == name));
    if is_listed(all, &source.name) {
        return;
    }
    for id in others_of(catalog, source) {
        let Ok(query) = catalog.query(id) else { continue };
        match catalog.source(&query.sink) {
            // It makes what it writes into, which cannot be without it.
            Ok(sink) if sink.query.as_ref() == Some(&query.id) && sink.name != source.name => with_dependants(catalog, sink, all),
            _ if all.iter().any(|one| matches!(one, Gone::Query(known) if *known == query.id)) => {}
            _ => all.push(Gone::Query(query.id.clone())),
        }
    }
    if !is_listed(all, &source.name) {
        all.push(Gone::Source(Arc::clone(source)));
    }
}
