//! Streams and tables that are declared over a topic.

use std::sync::Arc;

use arrow::datatypes::DataType;
use foldlog_log::{LogError, Topic, TopicKind, TopicName};

use super::{
    super::{Core, done},
    MAX_COLUMNS, check_hides_nothing, exists,
    formats::{Defaults, formats},
    options::{check_topic_options, timestamp_column, topic_name, topic_settings},
};
use crate::{
    answer::{Answer, Request},
    catalog::{Catalog, Change, Column, Format, Source, SourceKind},
    error::QueryError,
    plan::streaming::check_column_name,
    sql::{
        DialectKind,
        statement::{ColumnDef, CreateSource, KeyMark, Options},
    },
};

impl Core {
    pub(in crate::engine) fn create_source(&self, create: CreateSource, request: &Request) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        let CreateSource { kind, name, if_not_exists, columns, options } = create;
        if catalog.source(&name).is_ok() {
            return exists(self.head(), kind, name, if_not_exists);
        }
        check_hides_nothing(&catalog, &name)?;
        let columns = declared_columns(&catalog, kind, &name, columns)?;
        let dialect = self.dialect(&request.session);
        if dialect.kind == DialectKind::Ksql && options.topic.is_none() {
            return Err(QueryError::Invalid(format!("WITH needs a kafka_topic, over which {name} is declared")));
        }
        let written: Vec<&Column> = columns.iter().collect();
        let formats = formats(&written, &options, Defaults { dialect, session: &request.session, inherited: None })?;
        let timestamp = timestamp_column(&columns, &options)?;
        let topic = self.declared_topic(kind, &name, &options)?;
        check_events(kind, &topic, &columns, formats.key)?;
        let source = Source {
            name,
            kind,
            topic: topic.name.clone(),
            topic_kind: topic.settings.kind,
            columns,
            key_format: formats.key,
            value_format: formats.value,
            reading: formats.reading,
            headers: Vec::new(),
            timestamp,
            timestamp_format: None,
            read_only: false,
            query: None,
            sql: request.sql.clone(),
        };
        let what = format!("{kind} {} created over topic {}", source.name, source.topic);
        let end = self.commit(&Change::Create { source: Arc::new(source), query: None })?;
        Ok(done(end, what))
    }

    /// The topic of a declared source: one that exists, or a new one if the number of its partitions is told.
    fn declared_topic(&self, kind: SourceKind, name: &str, options: &Options) -> Result<Arc<Topic>, QueryError> {
        let topic_name = topic_name(name, options)?;
        match (self.log.topic(&topic_name), options.partitions) {
            (Ok(topic), Some(partitions)) if topic.settings.partitions != partitions => {
                let existing = topic.settings.partitions;
                Err(QueryError::Invalid(format!("topic {topic_name} exists already, with {existing} partitions instead of {partitions}")))
            }
            (Ok(topic), _) => {
                check_topic_options(topic.settings.kind, options)?;
                Ok(topic)
            }
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
                Ok(self.log.create_topic(topic_name, topic_settings(kind, partitions, options)?)?)
            }
            (Err(error), _) => Err(error.into()),
        }
    }
}

/// Columns as declared, those of the key first.
fn declared_columns(catalog: &Catalog, kind: SourceKind, name: &str, columns: Vec<ColumnDef>) -> Result<Vec<Column>, QueryError> {
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
    let made = |name: &str| catalog.type_made(name);
    let column =
        |column: ColumnDef| Ok(Column { key: column.key.is_some(), name: column.name, data_type: column.data_type.resolve(&made)? });
    keys.into_iter().chain(values).map(column).collect()
}

fn check_events(kind: SourceKind, topic: &Topic, columns: &[Column], key_format: Format) -> Result<(), QueryError> {
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
        _ if !matches!(key_format, Format::Kafka | Format::None) => {
            Err(QueryError::Invalid("the key of events is the name of their stream, which is text; leave key_format out".to_owned()))
        }
        _ => Ok(()),
    }
}
