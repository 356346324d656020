//! Streams and tables that a query writes.

use std::{collections::BTreeMap, sync::Arc};

use foldlog_log::{LogError, Position, TopicKind, TopicName};

use super::{
    super::{Core, done},
    MAX_COLUMNS, check_hides_nothing, exists,
    formats::{Defaults, formats},
    options::{timestamp_column, topic_name, topic_settings},
    reads_topic,
};
use crate::{
    answer::{Answer, Request},
    catalog::{Catalog, Change, Column, QueryDef, QueryId, Source, SourceKind},
    error::QueryError,
    plan::{StreamPlan, chance::Chance},
    sql::{
        Dialect, DialectKind,
        dialect::Start,
        session::OUTPUT_TOPIC_PREFIX,
        statement::{CreateAs, Options},
    },
    stream::commit::PROGRESS_TOPIC,
};

/// Queries that may read from each other in a row.
const MAX_DEPTH: usize = 32;
/// Partitions of a topic that a query writes, unless told: order over all of it, and enough for what one query gives.
const SINK_PARTITIONS: u32 = 1;
/// Generations of a topic that are looked at.
const MAX_GENERATIONS: u32 = 1_000;

/// What CREATE ... AS makes.
pub(super) struct Written {
    pub(super) source: Arc<Source>,
    pub(super) query: Arc<QueryDef>,
    pub(super) plan: StreamPlan,
}

impl Core {
    pub(in crate::engine) fn create_as(&self, create: &CreateAs, request: &Request) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        if let Ok(old) = catalog.source(&create.name) {
            if create.or_replace {
                return self.replace_query(&catalog, Arc::clone(old), create, request);
            }
            return exists(self.head(), create.kind, create.name.clone(), create.if_not_exists);
        }
        self.check_room_for_query(&catalog)?;
        let dialect = self.dialect(&request.session);
        let sink = self.sink(&catalog, create, request, None)?;
        let Written { source, query, plan } = self.written(&catalog, create, request, sink, self.start_of(dialect))?;
        let (id, reads) = (&query.id, &plan.source()?.source);
        self.make_topic(&source, &create.options)?;
        let release = |_: &QueryError| self.log.release(id.as_str());
        self.hold(&catalog, &query).inspect_err(release)?;
        let change = Change::Create { source: Arc::clone(&source), query: Some(Arc::clone(&query)) };
        let end = self.commit(&change).inspect_err(release)?;
        if let Err(error) = self.supervisor.start(&query, &plan) {
            self.commit(&Change::Drop { name: create.name.clone() })?;
            release(&error);
            return Err(error);
        }
        let mut what = format!("{} {} created by query {id} over topic {}", create.kind, create.name, source.topic);
        if !self.log.topic(&reads.topic)?.settings.retention.is_for_ever() {
            what = match plan.tables().is_empty() {
                true => format!("{what}; as long as it exists, retention removes nothing more of topic {}", reads.topic),
                false => format!("{what}; retention removes of topic {} only what a checkpoint of the query holds", reads.topic),
            };
        }
        Ok(done(end, what))
    }

    /// A source and its query, which starts at a position, from a new id on.
    pub(super) fn written(
        &self,
        catalog: &Catalog,
        create: &CreateAs,
        request: &Request,
        mut source: Source,
        start: Position,
    ) -> Result<Written, QueryError> {
        let dialect = self.dialect(&request.session);
        let otherwise = || {
            let made = match create.kind {
                SourceKind::Stream => "csas",
                SourceKind::Table => "ctas",
            };
            format!("{}_{}_{}", dialect.fold(made), create.name, catalog.changes())
        };
        let id = self.new_id(catalog, create.options.query_id.as_deref(), otherwise)?;
        source.query = Some(id.clone());
        let source = Arc::new(source);
        let plan = self.persistent(catalog, create, dialect, Arc::clone(&source))?;
        let reads = &plan.source()?.source;
        let query = Arc::new(QueryDef {
            id,
            sink: create.name.clone(),
            sources: vec![reads.name.clone()],
            sql: request.sql.clone(),
            dialect: dialect.kind,
            start,
            fingerprint: plan.fingerprint,
            types: self.types_used(catalog, dialect, &create.select.query)?,
            widths: BTreeMap::from([(reads.name.clone(), reads.columns.len())]),
            succeeds: false,
            collected: dialect.collected,
        });
        Ok(Written { source, query, plan })
    }

    /// An empty topic of the right shape that is there already stays as its creator wanted it.
    pub(super) fn make_topic(&self, source: &Source, options: &Options) -> Result<(), QueryError> {
        if self.log.topic(&source.topic).is_err() {
            let partitions = options.partitions.unwrap_or(SINK_PARTITIONS);
            self.log.create_topic(source.topic.clone(), topic_settings(source.topic_kind, partitions, options)?)?;
        }
        Ok(())
    }

    /// Where a query of this dialect starts that is made now.
    pub(super) fn start_of(&self, dialect: Dialect) -> Position {
        match dialect.start {
            Start::Earliest => Position::new(0),
            Start::Latest => self.head(),
        }
    }

    pub(super) fn check_room_for_query(&self, catalog: &Catalog) -> Result<(), QueryError> {
        let most = usize::try_from(self.config.max_persistent_queries).unwrap_or(usize::MAX);
        if catalog.queries().count() < most {
            return Ok(());
        }
        Err(QueryError::ResourceExhausted(format!("there are {most} persistent queries already (query.max_persistent_queries)")))
    }

    /// Plans the query of CREATE ... AS.
    pub(in crate::engine) fn persistent(
        &self,
        catalog: &Catalog,
        create: &CreateAs,
        dialect: Dialect,
        sink: Arc<Source>,
    ) -> Result<StreamPlan, QueryError> {
        let id = sink.query.as_ref().map_or("", QueryId::as_str);
        let mut chain = self.chain(catalog, &create.select, dialect, &[], Chance::of_query_named(id))?;
        chain.changelog = create.options.changelog.unwrap_or(chain.changelog);
        let items = chain.sink_items(create.kind, &create.name)?;
        Ok(chain.into_persistent(items, sink))
    }

    /// The source that CREATE ... AS makes, without its query's id; over the topic of the one that it replaces, if that is told.
    pub(in crate::engine) fn sink(
        &self,
        catalog: &Catalog,
        create: &CreateAs,
        request: &Request,
        replaced: Option<&Source>,
    ) -> Result<Source, QueryError> {
        let CreateAs { kind, name, options, select, .. } = create;
        if *kind == SourceKind::Stream && options.changelog.is_some() {
            return Err(QueryError::Invalid(format!("changelog is for tables: of stream {name} every record is written")));
        }
        let dialect = self.dialect(&request.session);
        // Only its columns are looked at, which the query's id does not change.
        let chain = self.chain(catalog, select, dialect, &[], Chance::of_query_named(""))?;
        let reads = &chain.scan.source;
        check_hides_nothing(catalog, name)?;
        if reads.name == *name {
            return Err(QueryError::Invalid(format!(
                "{kind} {name} would hide the topic of that name, which it reads; choose another name"
            )));
        }
        match (kind, chain.grouped) {
            _ if reads.topic.as_str() == PROGRESS_TOPIC => {
                return Err(QueryError::Invalid(format!(
                    "a query over {PROGRESS_TOPIC}, into which every query writes, would feed itself; read it with a SELECT that ends"
                )));
            }
            (SourceKind::Stream, false) if reads.kind == SourceKind::Table => {
                return Err(QueryError::Invalid(format!(
                    "a query over table {} makes a table: use CREATE TABLE {name} AS, or declare a stream over topic {}",
                    reads.name, reads.topic
                )));
            }
            (SourceKind::Table, false) if reads.kind == SourceKind::Table => {}
            (SourceKind::Stream, true) => {
                return Err(QueryError::Invalid(format!("the result of GROUP BY is a table; use CREATE TABLE {name} AS")));
            }
            (SourceKind::Table, false) => {
                return Err(QueryError::Invalid(format!("a table needs a key: add GROUP BY, or use CREATE STREAM {name} AS")));
            }
            (SourceKind::Table, true) if chain.key_names.is_empty() => {
                return Err(QueryError::Invalid(format!(
                    "table {name} needs a key: add GROUP BY; over all rows: SELECT 'all' AS k, ... GROUP BY k"
                )));
            }
            _ => {}
        }
        if catalog.depth(&reads.name) >= MAX_DEPTH {
            return Err(QueryError::ResourceExhausted(format!(
                "{} is fed by {MAX_DEPTH} queries in a row, more are not allowed",
                reads.name
            )));
        }
        let columns: Vec<Column> = chain.sink_items(*kind, name)?.into_iter().map(|item| item.column).collect();
        if columns.len() > MAX_COLUMNS {
            return Err(QueryError::Invalid(format!("{name} has {} columns, allowed are {MAX_COLUMNS}", columns.len())));
        }
        let topic_kind = match kind {
            SourceKind::Stream => TopicKind::Records,
            SourceKind::Table => TopicKind::Table,
        };
        if dialect.kind == DialectKind::Ksql && columns.iter().all(|column| column.key) {
            return Err(QueryError::Invalid(format!("{name} has no columns but those of the key; add AS_VALUE(...) of one")));
        }
        let written: Vec<&Column> = columns.iter().collect();
        let formats = formats(&written, options, Defaults { dialect, session: &request.session, inherited: Some(reads) })?;
        let (timestamp, timestamp_format) = timestamp_column(&columns, options)?;
        let prefix = request.session.setting(OUTPUT_TOPIC_PREFIX).unwrap_or_default();
        let topic = match replaced {
            Some(replaced) => replaced.topic.clone(),
            None => self.sink_topic(catalog, topic_kind, name, prefix, options)?,
        };
        Ok(Source {
            name: name.clone(),
            kind: *kind,
            topic,
            topic_kind,
            columns,
            key_format: formats.key,
            value_format: formats.value,
            reading: formats.reading,
            headers: Vec::new(),
            timestamp,
            timestamp_format,
            read_only: false,
            query: None,
            sql: request.sql.clone(),
        })
    }

    /// A topic for a query's output that nothing was written to: the one named, else the source's name or its next generation.
    fn sink_topic(&self, catalog: &Catalog, kind: TopicKind, name: &str, prefix: &str, options: &Options) -> Result<TopicName, QueryError> {
        let first = topic_name(name, prefix, options)?;
        if first.is_system() {
            return Err(QueryError::Invalid(format!("names of topics that begin with {} are foldlog's own", TopicName::SYSTEM_PREFIX)));
        }
        if options.topic.is_some() {
            return match self.is_free(catalog, kind, &first, options)? {
                true => Ok(first),
                false => {
                    Err(QueryError::Invalid(format!("topic {first} exists already and is in use or of another shape; name another one")))
                }
            };
        }
        for generation in 1..=MAX_GENERATIONS {
            let candidate =
                if generation == 1 { first.clone() } else { format!("{first}.{generation}").parse().map_err(LogError::from)? };
            if self.is_free(catalog, kind, &candidate, options)? {
                return Ok(candidate);
            }
        }
        Err(QueryError::ResourceExhausted(format!(
            "there are {MAX_GENERATIONS} generations of topic {first}; name a topic with WITH (topic = '...')"
        )))
    }

    fn is_free(&self, catalog: &Catalog, kind: TopicKind, name: &TopicName, options: &Options) -> Result<bool, QueryError> {
        let topic = match self.log.topic(name) {
            Ok(topic) => topic,
            Err(LogError::UnknownTopic { .. }) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let settings = topic.settings;
        let fits = settings.kind == kind && settings.partitions == options.partitions.unwrap_or(SINK_PARTITIONS);
        // A query that reads it without a declaration would not know that another feeds it, and might be fed by itself.
        let used = catalog.sources().any(|source| source.topic == *name) || reads_topic(catalog, name.as_str()).is_some();
        let empty = self.log.ends(name)?.iter().all(|end| end.get() == 0);
        Ok(fits && !used && empty)
    }
}
