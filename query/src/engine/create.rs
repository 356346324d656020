//! CREATE: streams and tables declared over a topic, and those that a query writes. Called on the catalog's thread alone.

use std::sync::Arc;

use arrow::datatypes::DataType;
use foldlog_log::{LogError, Position, Topic, TopicKind, TopicName, TopicSettings};

use super::{Core, done};
use crate::{
    answer::Answer,
    catalog::{Catalog, Change, Column, KeyFormat, QueryDef, QueryId, Source, SourceKind, timestamp_type, type_name},
    error::QueryError,
    plan::streaming::check_column_name,
    sql::{
        dialect::Start,
        statement::{ColumnDef, CreateAs, CreateSource, KeyMark, Options},
    },
    stream::commit::PROGRESS_TOPIC,
};

/// Queries that may read from each other in a row.
const MAX_DEPTH: usize = 32;
/// Columns of a stream or table.
const MAX_COLUMNS: usize = 1_000;
/// Partitions of a topic that a query writes, unless told: order over all of it, and enough for what one query gives.
const SINK_PARTITIONS: u32 = 1;
/// Generations of a topic that are looked at.
const MAX_GENERATIONS: u32 = 1_000;

impl Core {
    pub(super) fn create_source(&self, create: CreateSource, sql: &str) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        let CreateSource { kind, name, if_not_exists, columns, options } = create;
        if catalog.source(&name).is_ok() {
            return exists(self.head(), kind, name, if_not_exists);
        }
        check_hides_nothing(&catalog, &name)?;
        let columns = declared_columns(kind, &name, columns)?;
        check_value_format(&options)?;
        let topic = self.declared_topic(kind, &name, &options)?;
        let key_format = key_format(&columns, &options)?;
        check_events(kind, &topic, &columns, key_format)?;
        let timestamp = timestamp_column(&columns, &options)?;
        let source = Source {
            name,
            kind,
            topic: topic.name.clone(),
            topic_kind: topic.settings.kind,
            columns,
            key_format,
            timestamp,
            query: None,
            sql: sql.to_owned(),
        };
        let what = format!("{kind} {} created over topic {}", source.name, source.topic);
        let end = self.commit(&Change::Create { source: Arc::new(source), query: None })?;
        Ok(done(end, what))
    }

    pub(super) fn create_as(&self, create: &CreateAs, sql: &str) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        if catalog.source(&create.name).is_ok() {
            return exists(self.head(), create.kind, create.name.clone(), create.if_not_exists);
        }
        let most = usize::try_from(self.config.max_persistent_queries).unwrap_or(usize::MAX);
        if catalog.queries().count() >= most {
            return Err(QueryError::ResourceExhausted(format!(
                "there are {most} persistent queries already (query.max_persistent_queries)"
            )));
        }

        let mut source = self.sink(&catalog, create, sql)?;
        let id = match create.kind {
            SourceKind::Stream => "csas",
            SourceKind::Table => "ctas",
        };
        let id = QueryId::new(&format!("{id}_{}_{}", create.name, catalog.changes()));
        source.query = Some(id.clone());
        let source = Arc::new(source);

        let chain = self.chain(&catalog, &create.select, &[])?;
        let reads = Arc::clone(&chain.scan.source);
        let items = chain.sink_items(create.kind, &create.name)?;
        let plan = chain.into_persistent(items, Arc::clone(&source));
        let start = match self.dialect.start {
            Start::Earliest => Position::new(0),
        };
        let query = Arc::new(QueryDef {
            id: id.clone(),
            sink: create.name.clone(),
            sources: vec![reads.name.clone()],
            sql: sql.to_owned(),
            start,
            fingerprint: plan.fingerprint,
        });

        // An empty topic of the right shape that is there already stays as its creator wanted it.
        if self.log.topic(&source.topic).is_err() {
            let partitions = create.options.partitions.unwrap_or(SINK_PARTITIONS);
            self.log.create_topic(source.topic.clone(), TopicSettings::new(source.topic_kind, partitions))?;
        }
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
            what = format!("{what}; as long as it exists, retention removes nothing more of topic {}", reads.topic);
        }
        Ok(done(end, what))
    }

    /// The source that CREATE ... AS makes, without its query's id.
    pub(super) fn sink(&self, catalog: &Catalog, create: &CreateAs, sql: &str) -> Result<Source, QueryError> {
        let CreateAs { kind, name, options, select, .. } = create;
        check_value_format(options)?;
        let chain = self.chain(catalog, select, &[])?;
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
            _ if reads.kind == SourceKind::Table => {
                return Err(QueryError::Unsupported(format!(
                    "a persistent query over table {}; declare a stream over its topic",
                    reads.name
                )));
            }
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
        let key_format = key_format(&columns, options)?;
        let timestamp = timestamp_column(&columns, options)?;
        let topic = self.sink_topic(catalog, topic_kind, name, options)?;
        Ok(Source { name: name.clone(), kind: *kind, topic, topic_kind, columns, key_format, timestamp, query: None, sql: sql.to_owned() })
    }

    /// The topic of a declared source: one that exists, or a new one if the number of its partitions is told.
    fn declared_topic(&self, kind: SourceKind, name: &str, options: &Options) -> Result<Arc<Topic>, QueryError> {
        let topic_name = topic_name(name, options)?;
        match (self.log.topic(&topic_name), options.partitions) {
            (Ok(topic), Some(partitions)) if topic.settings.partitions != partitions => {
                let existing = topic.settings.partitions;
                Err(QueryError::Invalid(format!("topic {topic_name} exists already, with {existing} partitions instead of {partitions}")))
            }
            (Ok(topic), _) => Ok(topic),
            (Err(LogError::UnknownTopic { .. }), None) => {
                Err(QueryError::Invalid(format!("topic {topic_name} does not exist; create it first, or add partitions = n to WITH")))
            }
            (Err(LogError::UnknownTopic { .. }), Some(partitions)) => {
                if topic_name.is_system() {
                    return Err(QueryError::Invalid(format!(
                        "names of topics that begin with {} are foldlog's own",
                        TopicName::SYSTEM_PREFIX
                    )));
                }
                let kind = match kind {
                    SourceKind::Stream => TopicKind::Records,
                    SourceKind::Table => TopicKind::Table,
                };
                Ok(self.log.create_topic(topic_name, TopicSettings::new(kind, partitions))?)
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    /// A topic for a query's output that nothing was written to: the one named, else the source's name or its next generation.
    fn sink_topic(&self, catalog: &Catalog, kind: TopicKind, name: &str, options: &Options) -> Result<TopicName, QueryError> {
        let first = topic_name(name, options)?;
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

fn exists(head: Position, kind: SourceKind, name: String, if_not_exists: bool) -> Result<Answer, QueryError> {
    if if_not_exists {
        return Ok(done(head, format!("{kind} {name} exists already")));
    }
    Err(QueryError::Exists { what: "a stream or table called", name })
}

/// A query that reads a topic without a declaration.
fn reads_topic<'a>(catalog: &'a Catalog, name: &'a str) -> Option<&'a Arc<QueryDef>> {
    catalog.dependants(name).next().filter(|_| catalog.source(name).is_err())
}

/// Refuses a name under which a query reads a topic: folded again, the query would read something else.
fn check_hides_nothing(catalog: &Catalog, name: &str) -> Result<(), QueryError> {
    let Some(query) = reads_topic(catalog, name) else { return Ok(()) };
    Err(QueryError::Invalid(format!("{name} would hide the topic of that name, which query {} reads; choose another name", query.id)))
}

fn topic_name(name: &str, options: &Options) -> Result<TopicName, QueryError> {
    let named = options.topic.as_deref().unwrap_or(name);
    named.parse().map_err(|error| match options.topic {
        Some(_) => QueryError::Log(LogError::InvalidName(error)),
        None => QueryError::Invalid(format!("{name} is no name for a topic; name one with WITH (topic = '...')")),
    })
}

/// Columns as declared, those of the key first.
fn declared_columns(kind: SourceKind, name: &str, columns: Vec<ColumnDef>) -> Result<Vec<Column>, QueryError> {
    if columns.len() > MAX_COLUMNS {
        return Err(QueryError::Invalid(format!("{name} has {} columns, allowed are {MAX_COLUMNS}", columns.len())));
    }
    let mut seen = Vec::new();
    for column in &columns {
        let fault = |message: String| Err(QueryError::Syntax { place: column.place, message });
        check_column_name(&column.name)?;
        if seen.contains(&&column.name) {
            return fault(format!("column {} is declared twice", column.name));
        }
        seen.push(&column.name);
        match (kind, column.key) {
            (SourceKind::Stream, Some(KeyMark::PrimaryKey)) => {
                return fault(format!("a stream has no primary key; write KEY behind column {}", column.name));
            }
            (SourceKind::Table, Some(KeyMark::Key)) => {
                return fault(format!("write PRIMARY KEY behind column {} of a table", column.name));
            }
            _ => {}
        }
    }
    if kind == SourceKind::Table && columns.iter().all(|column| column.key.is_none()) {
        return Err(QueryError::Invalid(format!("table {name} needs a key: write PRIMARY KEY behind a column")));
    }
    let (keys, values): (Vec<_>, Vec<_>) = columns.into_iter().partition(|column| column.key.is_some());
    let column = |column: ColumnDef| Column { key: column.key.is_some(), name: column.name, data_type: column.data_type };
    Ok(keys.into_iter().chain(values).map(column).collect())
}

fn check_events(kind: SourceKind, topic: &Topic, columns: &[Column], key_format: KeyFormat) -> Result<(), QueryError> {
    if topic.settings.kind != TopicKind::Events {
        return Ok(());
    }
    if kind == SourceKind::Table {
        return Err(QueryError::Invalid(format!(
            "topic {} holds events: declare a stream over it, and fold it by CREATE TABLE AS",
            topic.name
        )));
    }
    let mut keys = columns.iter().filter(|column| column.key);
    match (keys.next(), keys.next()) {
        (Some(key), _) if key.data_type != DataType::Utf8 => {
            Err(QueryError::Invalid(format!("the key of events is the name of their stream: column {} must be VARCHAR", key.name)))
        }
        (_, Some(second)) => Err(QueryError::Invalid(format!(
            "the key of events is the name of their stream: there is no second key column {}",
            second.name
        ))),
        _ if key_format == KeyFormat::Json => {
            Err(QueryError::Invalid("the key of events is the name of their stream, which is no JSON; leave key_format out".to_owned()))
        }
        _ => Ok(()),
    }
}

fn check_value_format(options: &Options) -> Result<(), QueryError> {
    match options.value_format.as_deref() {
        None | Some("json") => Ok(()),
        Some(other) => Err(QueryError::Unsupported(format!("value_format = '{other}'; there is json"))),
    }
}

fn key_format(columns: &[Column], options: &Options) -> Result<KeyFormat, QueryError> {
    let keys: Vec<&Column> = columns.iter().filter(|column| column.key).collect();
    let fits_kafka = match keys.as_slice() {
        [one] => matches!(one.data_type, DataType::Utf8 | DataType::Int32 | DataType::Int64 | DataType::Float64),
        _ => false,
    };
    match (options.key_format.as_deref(), keys.len()) {
        (None | Some("none" | "kafka" | "json"), 0) => Ok(KeyFormat::None),
        (None, _) => Ok(if fits_kafka { KeyFormat::Kafka } else { KeyFormat::Json }),
        (Some("kafka"), _) if fits_kafka => Ok(KeyFormat::Kafka),
        (Some("kafka"), _) => Err(QueryError::Invalid(
            "key_format = 'kafka' takes one key column of type VARCHAR, INTEGER, BIGINT or DOUBLE; use 'json'".to_owned(),
        )),
        (Some("json"), _) => Ok(KeyFormat::Json),
        (Some("none"), _) => Err(QueryError::Invalid("key_format = 'none' takes no key columns".to_owned())),
        (Some(other), _) => Err(QueryError::Unsupported(format!("key_format = '{other}'; there are kafka, json and none"))),
    }
}

fn timestamp_column(columns: &[Column], options: &Options) -> Result<Option<usize>, QueryError> {
    let Some(name) = &options.timestamp else { return Ok(None) };
    let Some(place) = columns.iter().position(|column| column.name == *name) else {
        let hint = crate::catalog::nearest(name, columns.iter().map(|column| column.name.as_str()));
        return Err(QueryError::Unknown { what: "column", name: name.clone(), hint, place: None });
    };
    match columns.get(place).map(|column| &column.data_type) {
        Some(DataType::Int64) => Ok(Some(place)),
        Some(other) if *other == timestamp_type() => Ok(Some(place)),
        other => {
            let given = other.map(type_name).unwrap_or_default();
            Err(QueryError::Invalid(format!(
                "timestamp = '{name}': the column must be TIMESTAMP, or BIGINT with milliseconds, it is {given}"
            )))
        }
    }
}
