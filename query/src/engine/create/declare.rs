//! Streams and tables that are declared over a topic.

use std::sync::Arc;

use arrow::datatypes::DataType;
use foldlog_log::{LogError, Topic, TopicKind, TopicName};

use super::{
    super::{Core, done},
    MAX_COLUMNS, check_hides_nothing, exists,
    formats::{Defaults, check_holds, formats},
    options::{check_topic_options, timestamp_column, topic_name, topic_settings},
    replace,
};
use crate::{
    answer::{Answer, Request},
    catalog::{Catalog, Change, Column, Format, HeaderColumn, Source, SourceKind, type_name},
    error::QueryError,
    plan::streaming::check_column_name,
    sql::{
        DialectKind,
        statement::{AlterSource, ColumnDef, ColumnMark, CreateSource, Options},
    },
};

impl Core {
    pub(in crate::engine) fn create_source(&self, create: CreateSource, request: &Request) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        let old = catalog.source(&create.name).ok();
        let dialect = self.dialect(&request.session);
        if create.or_replace && create.read_only {
            return Err(QueryError::Invalid(format!("{} is a SOURCE, which is never replaced; leave OR REPLACE out", create.name)));
        }
        if old.is_some() && !create.or_replace {
            return exists(self.head(), create.kind, create.name, create.if_not_exists);
        }
        check_hides_nothing(&catalog, &create.name)?;
        let source = self.declared(&catalog, create, request)?;
        let what = format!("{} {}", source.kind, source.name);
        let Some(old) = old else {
            let what = format!("{what} created over topic {}", source.topic);
            let end = self.commit(&Change::Create { source: Arc::new(source), query: None })?;
            return Ok(done(end, what));
        };
        replace::check(&catalog, dialect, old, &source)?;
        let end = self.commit(&Change::Replace { source: Arc::new(source), query: None })?;
        Ok(done(end, format!("{what} replaced")))
    }

    /// The source that a declaration means; makes its topic if that is told.
    fn declared(&self, catalog: &Catalog, create: CreateSource, request: &Request) -> Result<Source, QueryError> {
        let CreateSource { kind, name, read_only, columns, options, .. } = create;
        let (columns, headers) = declared_columns(catalog, kind, &name, columns)?;
        let dialect = self.dialect(&request.session);
        if dialect.kind == DialectKind::Ksql && options.topic.is_none() {
            return Err(QueryError::Invalid(format!("WITH needs a kafka_topic, over which {name} is declared")));
        }
        let of_query = [("query_id", options.query_id.is_some()), ("changelog", options.changelog.is_some())];
        if let Some((key, _)) = of_query.iter().find(|(_, given)| *given) {
            let refused = QueryError::Invalid(format!("{key} is said of a query, and no query writes {name}; leave it out"));
            return Err(refused.at(|| options.place(key)));
        }
        let is_header = |place: usize| headers.iter().any(|header| header.place == place);
        let written: Vec<&Column> = columns.iter().enumerate().filter(|(place, _)| !is_header(*place)).map(|(_, column)| column).collect();
        let formats = formats(&written, &options, Defaults { dialect, session: &request.session, inherited: None })?;
        let (timestamp, timestamp_format) = timestamp_column(&columns, &options)?;
        let topic = self.declared_topic(kind, &name, &options)?;
        check_events(kind, &topic, &columns, formats.key)?;
        Ok(Source {
            name,
            kind,
            topic: topic.name.clone(),
            topic_kind: topic.settings.kind,
            columns,
            key_format: formats.key,
            value_format: formats.value,
            reading: formats.reading,
            headers,
            timestamp,
            timestamp_format,
            read_only,
            query: None,
            sql: request.sql.clone(),
        })
    }

    /// `ALTER ... ADD`.
    pub(in crate::engine) fn alter(&self, alter: AlterSource, request: &Request) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        let old = catalog.source(&alter.name)?;
        if old.kind != alter.kind {
            return Err(QueryError::Invalid(format!("{} is a {}", old.name, old.kind)));
        }
        if let Some(marked) = alter.columns.iter().find(|column| column.mark.is_some()) {
            return Err(QueryError::Syntax {
                place: marked.place,
                message: format!("column {} is added to the values, without a mark", marked.name),
            });
        }
        let made = |name: &str| catalog.type_made(name);
        let mut source = Source { sql: request.sql.clone(), ..old.as_ref().clone() };
        let mut added = Vec::new();
        for column in alter.columns {
            check_column_name(&column.name)?;
            if source.columns.iter().any(|known| known.name == column.name) {
                return Err(QueryError::Syntax { place: column.place, message: format!("there is a column {} already", column.name) });
            }
            added.push(column.name.clone());
            source.columns.push(Column { key: false, data_type: column.data_type.resolve(&made)?, name: column.name });
        }
        if source.columns.len() > MAX_COLUMNS {
            return Err(QueryError::Invalid(format!(
                "{} would have {} columns, allowed are {MAX_COLUMNS}",
                old.name,
                source.columns.len()
            )));
        }
        replace::check(&catalog, self.dialect(&request.session), old, &source)?;
        check_holds(&source)?;
        let what = format!("{} {} has {} now, too", source.kind, source.name, added.join(", "));
        Ok(done(self.commit(&Change::Replace { source: Arc::new(source), query: None })?, what))
    }

    /// The topic of a declared source: one that exists, or a new one if the number of its partitions is told.
    fn declared_topic(&self, kind: SourceKind, name: &str, options: &Options) -> Result<Arc<Topic>, QueryError> {
        let topic_name = topic_name(name, "", options)?;
        match (self.log.topic(&topic_name), options.partitions) {
            (Ok(topic), Some(partitions)) if topic.settings.partitions != partitions => {
                let existing = topic.settings.partitions;
                let refused = format!("topic {topic_name} exists already, with {existing} partitions instead of {partitions}");
                Err(QueryError::Invalid(refused).at(|| options.place("partitions")))
            }
            (Ok(topic), _) => {
                check_topic_options(topic.settings.kind, options)?;
                Ok(topic)
            }
            (Err(LogError::UnknownTopic { .. }), None) => {
                let refused = format!("topic {topic_name} does not exist; create it first, or add partitions = n to WITH");
                Err(QueryError::Invalid(refused).at(|| options.place("topic")))
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

/// Columns as declared, those of the key first, and which of them are headers.
pub(in crate::engine) fn declared_columns(
    catalog: &Catalog,
    kind: SourceKind,
    name: &str,
    columns: Vec<ColumnDef>,
) -> Result<(Vec<Column>, Vec<HeaderColumn>), QueryError> {
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
        match (kind, &column.mark) {
            (SourceKind::Stream, Some(ColumnMark::PrimaryKey)) => {
                return fault(format!("a stream has no primary key; write KEY behind column {}", column.name));
            }
            (SourceKind::Table, Some(ColumnMark::Key)) => {
                return fault(format!("write PRIMARY KEY behind column {} of a table", column.name));
            }
            _ => {}
        }
    }
    let is_key = |column: &ColumnDef| column.mark.as_ref().is_some_and(ColumnMark::is_key);
    if kind == SourceKind::Table && !columns.iter().any(is_key) {
        return Err(QueryError::Invalid(format!("table {name} needs a key: write PRIMARY KEY behind a column")));
    }
    let (keys, values): (Vec<_>, Vec<_>) = columns.into_iter().partition(is_key);
    let made = |name: &str| catalog.type_made(name);
    let mut declared = Vec::new();
    let mut headers: Vec<HeaderColumn> = Vec::new();
    for (place, column) in keys.into_iter().chain(values).enumerate() {
        let key = is_key(&column);
        let data_type = column.data_type.resolve(&made)?;
        if let Some(mark @ (ColumnMark::Headers | ColumnMark::Header(_))) = &column.mark {
            let header = header_column(mark, place, &column.name, &data_type)?;
            if let Some(other) = headers.iter().find(|other| other.name == header.name || other.name.is_none() || header.name.is_none()) {
                let what = other.name.as_ref().map_or("all headers".to_owned(), |name| format!("header '{name}'"));
                return Err(QueryError::Invalid(format!("column {}: there is a column for {what} already", column.name)));
            }
            headers.push(header);
        }
        declared.push(Column { key, name: column.name, data_type });
    }
    Ok((declared, headers))
}

fn header_column(mark: &ColumnMark, place: usize, column: &str, data_type: &DataType) -> Result<HeaderColumn, QueryError> {
    let wrong = |wanted: &str| QueryError::Invalid(format!("column {column} is {}, which must be {wanted}", type_name(data_type)));
    match mark {
        ColumnMark::Header(name) if *data_type == DataType::Binary => Ok(HeaderColumn { place, name: Some(name.clone()) }),
        ColumnMark::Header(_) => Err(wrong("BYTES: the value of a header")),
        ColumnMark::Headers | ColumnMark::Key | ColumnMark::PrimaryKey if is_headers(data_type) => Ok(HeaderColumn { place, name: None }),
        ColumnMark::Headers | ColumnMark::Key | ColumnMark::PrimaryKey => {
            Err(wrong("ARRAY<STRUCT<key VARCHAR, value BYTES>>: all headers"))
        }
    }
}

/// Whether the type is that of all headers, whatever the case of its fields' names.
fn is_headers(data_type: &DataType) -> bool {
    let DataType::List(item) = data_type else { return false };
    let DataType::Struct(fields) = item.data_type() else { return false };
    match fields.as_ref() {
        [key, value] => {
            let names = key.name().eq_ignore_ascii_case("key") && value.name().eq_ignore_ascii_case("value");
            names && *key.data_type() == DataType::Utf8 && *value.data_type() == DataType::Binary
        }
        _ => false,
    }
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
        (Some(_), None) if !matches!(key_format, Format::Kafka | Format::None) => {
            Err(QueryError::Invalid("the key of events is the name of their stream, which is text; leave key_format out".to_owned()))
        }
        _ => Ok(()),
    }
}
