//! `INSERT INTO stream SELECT ...`: one more query that writes into a stream that there is.
//!
//! Invariants: what the query gives has the columns of the stream, in its order; no query feeds itself, by whatever way.

use std::{collections::BTreeMap, sync::Arc};

use foldlog_log::{TopicKind, TopicName};

use super::super::{Core, done};
use crate::{
    answer::{Answer, Request},
    catalog::{Catalog, Change, Column, QueryDef, QueryId, Source, SourceKind, type_name},
    error::QueryError,
    plan::{StreamPlan, chance::Chance, select::Item},
    sql::{Dialect, statement::InsertSelect},
};

impl Core {
    pub(in crate::engine) fn insert_select(&self, insert: &InsertSelect, request: &Request) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        self.check_room_for_query(&catalog)?;
        let dialect = self.dialect(&request.session);
        let otherwise = || dialect.fold(&format!("insertquery_{}", catalog.changes()));
        let id = self.new_id(&catalog, insert.query_id.as_deref(), otherwise)?;
        let plan = self.feeding(&catalog, insert, dialect, &id)?;
        let reads = Arc::clone(&plan.source()?.source);
        let query = Arc::new(QueryDef {
            id: id.clone(),
            sink: insert.name.clone(),
            sources: vec![reads.name.clone()],
            sql: request.sql.clone(),
            dialect: dialect.kind,
            start: self.start_of(dialect),
            fingerprint: plan.fingerprint,
            types: self.types_used(&catalog, dialect, &insert.select.query)?,
            widths: BTreeMap::from([(reads.name.clone(), reads.columns.len())]),
            succeeds: false,
            collected: dialect.collected,
        });
        let release = |_: &QueryError| self.log.release(id.as_str());
        self.hold(&catalog, &query).inspect_err(release)?;
        let end = self.commit(&Change::Insert { query: Arc::clone(&query) }).inspect_err(release)?;
        if let Err(error) = self.supervisor.start(&query, &plan) {
            self.commit(&Change::Terminate { query: id.clone() })?;
            release(&error);
            return Err(error);
        }
        Ok(done(end, format!("query {id} inserts into stream {}", insert.name)))
    }

    /// The id of a query that is made: the one that is asked for, if no query is or was called so.
    pub(super) fn new_id(&self, catalog: &Catalog, given: Option<&str>, otherwise: impl FnOnce() -> String) -> Result<QueryId, QueryError> {
        let id = given.map_or_else(|| QueryId::new(&otherwise()), QueryId::new);
        if catalog.query(id.as_str()).is_ok() || self.supervisor.has_run(id.as_str()) {
            return Err(QueryError::Exists { what: "a query that is or was called", name: id.to_string() });
        }
        Ok(id)
    }

    /// Plans the query of INSERT INTO ... SELECT.
    pub(in crate::engine) fn feeding(
        &self,
        catalog: &Catalog,
        insert: &InsertSelect,
        dialect: Dialect,
        id: &QueryId,
    ) -> Result<StreamPlan, QueryError> {
        let sink = catalog.source(&insert.name)?;
        if sink.kind == SourceKind::Table {
            return Err(QueryError::Invalid(format!("{} is a table: queries insert into streams alone", sink.name)));
        }
        if sink.topic_kind != TopicKind::Records {
            return Err(QueryError::Invalid(format!("topic {} of {} holds events, which no query writes", sink.topic, sink.name)));
        }
        if sink.topic.is_system() {
            return Err(QueryError::Invalid(format!("topic {} is foldlog's own", sink.topic)));
        }
        if sink.read_only {
            return Err(QueryError::Invalid(format!("{} is a SOURCE: it is only read", sink.name)));
        }
        if let Some(column) = sink.headers.first().and_then(|header| sink.columns.get(header.place)) {
            return Err(QueryError::Invalid(format!(
                "column {} of {} is a header of the record, which is only read",
                column.name, sink.name
            )));
        }
        let chain = self.chain(catalog, &insert.select, dialect, &[], Chance::of_query_named(id.as_str()))?;
        let reads = Arc::clone(&chain.scan.source);
        if reads.kind == SourceKind::Table || chain.grouped {
            return Err(QueryError::Invalid(format!(
                "the result of the query is a table, which cannot be inserted into stream {}",
                sink.name
            )));
        }
        if self.is_fed_by(catalog, &reads, &sink.topic) {
            return Err(QueryError::Invalid(format!("the query reads what it would write into {}, and so would feed itself", sink.name)));
        }
        let items = chain.sink_items(SourceKind::Stream, &sink.name)?;
        let (chain, items) = chain.widened(items, &sink.columns, &self.expressions.of(dialect))?;
        check_columns(sink, &items)?;
        let mut plan = chain.into_persistent(items, Arc::clone(sink));
        // What it gives are the stream's own columns.
        plan.output.clone_from(&sink.columns);
        Ok(plan)
    }

    /// Whether records of a topic get into a source, by whatever way.
    pub(super) fn is_fed_by(&self, catalog: &Catalog, source: &Source, topic: &TopicName) -> bool {
        let mut topics = vec![source.topic.clone()];
        let mut next = 0;
        while let Some(at) = topics.get(next).cloned() {
            next += 1;
            let writes = |query: &&Arc<QueryDef>| catalog.source(&query.sink).is_ok_and(|sink| sink.topic == at);
            for read in catalog.queries().filter(writes).flat_map(|query| &query.sources) {
                if let Ok(read) = catalog.find(self.log.as_ref(), read)
                    && !topics.contains(&read.topic)
                {
                    topics.push(read.topic.clone());
                }
            }
        }
        topics.contains(topic)
    }
}

/// The columns must be those of the stream, with the same keys.
fn check_columns(sink: &Source, items: &[Item]) -> Result<(), QueryError> {
    let same = |(item, column): (&Item, &Column)| item.column == *column;
    if items.len() == sink.columns.len() && items.iter().zip(&sink.columns).all(same) {
        return Ok(());
    }
    let shown = |columns: &mut dyn Iterator<Item = &Column>| {
        let each = columns.map(|one| format!("{} {}{}", one.name, type_name(&one.data_type), if one.key { " KEY" } else { "" }));
        each.collect::<Vec<_>>().join(", ")
    };
    Err(QueryError::Invalid(format!(
        "the query gives ({}), stream {} has ({}); name, order and type of all columns must be the same",
        shown(&mut items.iter().map(|item| &item.column)),
        sink.name,
        shown(&mut sink.columns.iter())
    )))
}
