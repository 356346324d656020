//! CREATE OR REPLACE of what a query writes: another query takes its place. Called on the catalog's thread alone.
//!
//! A stream's goes on where the old one was, a table's is folded anew beside the old one and then writes the difference
//! (`stream/task/succession`). What does not fit what lies in the topic gets the next generation of it, if nobody reads the old one.

use std::{fmt, sync::Arc};

use foldlog_log::{Position, Selection};
use futures::executor::block_on;

use super::{
    super::{Core, done},
    replace::changed,
    sink::Written,
};
use crate::{
    answer::{Answer, Request},
    catalog::{Catalog, Change, Format, QueryDef, QueryId, Source, SourceKind},
    error::QueryError,
    plan::chance::Chance,
    sql::statement::CreateAs,
};

/// What a replacement means for what is there.
struct Replacement {
    old: QueryId,
    /// The source as it will be, without its query's id.
    sink: Source,
    way: Way,
}

/// How a query takes the place of another one.
enum Way {
    /// It reads on where the old one was, and writes into the same topic.
    GoesOn,
    /// It folds anew from the old one's start, beside it; then the difference goes to the same topic.
    Rebuilds,
    /// It starts anew with a topic of its own.
    Generation,
}

impl fmt::Display for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic = &self.sink.topic;
        match self.way {
            Way::GoesOn => write!(f, "goes on where query {} is, in the same topic {topic}", self.old),
            Way::Rebuilds => {
                write!(
                    f,
                    "is folded anew beside query {}, which goes on until then; the difference goes to the same topic {topic}",
                    self.old
                )
            }
            Way::Generation => write!(f, "starts anew in place of query {}, in topic {topic}", self.old),
        }
    }
}

impl Core {
    /// What EXPLAIN says of CREATE OR REPLACE: none where there is nothing to replace.
    pub(in crate::engine) fn explain_replacement(
        &self,
        catalog: &Catalog,
        create: &CreateAs,
        request: &Request,
    ) -> Result<Option<(Source, String)>, QueryError> {
        let Some(old) = catalog.source(&create.name).ok().filter(|_| create.or_replace) else { return Ok(None) };
        let replacement = self.replacement(catalog, old, create, request)?;
        let told = format!("{} {} {replacement}", create.kind, create.name);
        Ok(Some((replacement.sink, told)))
    }

    pub(super) fn replace_query(
        &self,
        catalog: &Catalog,
        old: Arc<Source>,
        create: &CreateAs,
        request: &Request,
    ) -> Result<Answer, QueryError> {
        let replacement = self.replacement(catalog, &old, create, request)?;
        let told = replacement.to_string();
        let Replacement { old: old_id, sink, way } = replacement;
        let before = Arc::clone(catalog.query(old_id.as_str())?);
        let Written { source, mut query, plan } = self.written(catalog, create, request, sink, before.start)?;
        let def = Arc::make_mut(&mut query);
        match way {
            // Nothing of what the old one wrote is written again, and nothing is left out.
            Way::GoesOn => def.start = self.end_of_reading(&before),
            Way::Rebuilds => def.succeeds = true,
            Way::Generation => {
                def.start = self.start_of(self.dialect(&request.session));
                self.make_topic(&source, &create.options)?;
            }
        }
        let change = Change::Replace { source, query: Some(Arc::clone(&query)) };
        let replaced = self.hold(catalog, &query).and_then(|()| self.commit(&change));
        let end = replaced.inspect_err(|_| {
            self.log.release(query.id.as_str());
            if matches!(way, Way::GoesOn) {
                self.start_again(&before);
            }
        })?;
        let started = match way {
            Way::Rebuilds => self.supervisor.start_beside(before.id.as_str(), end, &query, &plan),
            Way::GoesOn | Way::Generation => {
                self.end_query(&before.id);
                self.supervisor.start(&query, &plan)
            }
        };
        self.failed.write().remove(&before.id);
        if let Err(error) = started {
            self.failed.write().insert(query.id.clone(), error.to_string());
            return Err(error);
        }
        Ok(done(end, format!("{} {} replaced: query {} {told}", create.kind, create.name, query.id)))
    }

    /// Ends a query; gives where another one reads on.
    fn end_of_reading(&self, query: &QueryDef) -> Position {
        block_on(self.supervisor.stop(query.id.as_str()));
        self.supervisor.position_of(query)
    }

    /// What a statement means for what is there.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] with what cannot become what, [`QueryError::InUse`] with who reads what would be gone.
    fn replacement(&self, catalog: &Catalog, old: &Source, create: &CreateAs, request: &Request) -> Result<Replacement, QueryError> {
        let name = &old.name;
        if old.kind != create.kind {
            return Err(QueryError::Invalid(format!("{name} is a {}, and stays one; drop it first", old.kind)));
        }
        let Some(query) = &old.query else {
            return Err(QueryError::Invalid(format!(
                "{} {name} is declared over topic {}, no query writes it; drop it first",
                old.kind, old.topic
            )));
        };
        if create.options.topic.as_deref().is_some_and(|topic| topic != old.topic.as_str()) {
            return Err(QueryError::Invalid(format!("{name} lies in topic {}, and stays there; leave the topic out of WITH", old.topic)));
        }
        let mut sink = self.sink(catalog, create, request, Some(old))?;
        let chain = self.chain(catalog, &create.select, self.dialect(&request.session), &[], Chance::of_query_named(""))?;
        let reads = catalog.find(self.log.as_ref(), &chain.scan.source.name)?;
        if self.is_fed_by(catalog, &reads, &old.topic) {
            return Err(QueryError::Invalid(format!("{} is made of what {name} holds, so the query would feed itself", reads.name)));
        }
        let readers: Vec<&str> = catalog.dependants(name).map(|query| query.id.as_str()).collect();
        let longer_lines = matches!(old.value_format, Format::Delimited(_)) && old.columns.len() != sink.columns.len();
        let differs = changed(old, &sink).or_else(|| longer_lines.then_some("the columns"));
        let way = match (differs, old.kind) {
            (None, SourceKind::Stream) => Way::GoesOn,
            (None, SourceKind::Table) => Way::Rebuilds,
            (Some(_), _) if readers.is_empty() && catalog.writers(name).all(|writer| writer.id == *query) => {
                sink = self.sink(catalog, create, request, None)?;
                Way::Generation
            }
            (Some(changed), _) => {
                let others = catalog.writers(name).map(|writer| writer.id.as_str()).filter(|writer| writer != &query.as_str());
                let others: Vec<&str> = readers.into_iter().chain(others).collect();
                return Err(QueryError::Invalid(format!(
                    "{changed} of {name} must stay, for {} depend on it; columns may only be added behind the others",
                    others.join(", ")
                )));
            }
        };
        let partitions = self.log.topic(&old.topic)?.settings.partitions;
        if !matches!(way, Way::Generation) && create.options.partitions.is_some_and(|wanted| wanted != partitions) {
            return Err(QueryError::Invalid(format!(
                "topic {} of {name} has {partitions} partitions, and keeps them; leave partitions out of WITH",
                old.topic
            )));
        }
        if matches!(way, Way::Rebuilds) {
            let start = catalog.query(query.as_str())?.start;
            self.log.whole_from(&Selection::Topics(vec![reads.topic.clone()], start)).map_err(|removed| {
                QueryError::Invalid(format!(
                    "{name} cannot be folded anew: {removed}; DROP TABLE {name} and CREATE TABLE fold what is left, into a topic of its own"
                ))
            })?;
        }
        Ok(Replacement { old: query.clone(), sink, way })
    }
}
