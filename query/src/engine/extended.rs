//! SHOW ... EXTENDED and DESCRIBE ... EXTENDED: everything that is known about sources, queries and topics. Reads a snapshot.

use std::sync::Arc;

use foldlog_log::{Topic, TopicName};

use super::{
    Core,
    describe::{checkpoint_text, kept_text, numbers, state_of, texts},
    rows,
};
use crate::{
    answer::Answer,
    catalog::{Catalog, Format, Source, SourceKind, type_name},
    error::QueryError,
    sql::statement::Show,
};

impl Core {
    pub(super) fn show_extended(&self, show: Show) -> Result<Answer, QueryError> {
        match show {
            Show::Streams => self.sources_extended(SourceKind::Stream),
            Show::Tables => self.sources_extended(SourceKind::Table),
            Show::Queries => self.queries_extended(),
            Show::Topics => self.topics_extended(false),
            Show::AllTopics => self.topics_extended(true),
            Show::Types | Show::Properties | Show::Variables | Show::Functions => {
                Err(QueryError::Invalid("EXTENDED is for streams, tables, queries and topics".to_owned()))
            }
        }
    }

    /// What there is to tell about one source, a line each.
    pub(super) fn describe_extended(&self, name: &str) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        let source = catalog.find(self.log.as_ref(), name)?;
        let mut told: Vec<(String, String)> = vec![
            ("name".to_owned(), source.name.clone()),
            ("kind".to_owned(), if source.read_only { format!("source {}", source.kind) } else { source.kind.to_string() }),
        ];
        let mut tell = |what: &str, value: Option<String>| told.extend(value.map(|value| (what.to_owned(), value)));
        for (place, column) in source.columns.iter().enumerate() {
            tell(&format!("column {}", column.name), Some(column_text(&source, place)));
        }
        tell("topic", Some(source.topic.to_string()));
        if let Ok(topic) = self.log.topic(&source.topic) {
            tell("partitions", Some(topic.settings.partitions.to_string()));
            tell("retention", Some(topic.settings.retention.to_string()));
            tell("records", Some(self.records(&source.topic)?.to_string()));
        }
        tell("key format", Some(format_text(source.key_format)));
        tell("value format", Some(format_text(source.value_format)));
        tell("time", Some(time_text(&source)));
        tell("written by", listed(&writers(&catalog, &source)));
        tell("read by", listed(&readers(&catalog, &source)));
        let its_own = source.query.as_ref().and_then(|own| self.queries().into_iter().find(|status| status.id == own.as_str()));
        if let Some(status) = its_own {
            tell("state", listed(&status.kept.iter().map(kept_text).collect::<Vec<_>>()));
            tell("checkpoint", checkpoint_text(&status.checkpoint));
        }
        tell("statement", Some(source.sql.clone()).filter(|sql| !sql.is_empty()));
        let (what, values): (Vec<_>, Vec<_>) = told.into_iter().map(|(what, value)| (Some(what), Some(value))).unzip();
        rows(self.head(), vec![("what", texts(what.into_iter())), ("value", texts(values.into_iter()))])
    }

    fn sources_extended(&self, kind: SourceKind) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        let sources: Vec<&Arc<Source>> = catalog.sources().filter(|source| source.kind == kind).collect();
        let text = |of: &dyn Fn(&Source) -> Option<String>| texts(sources.iter().map(|source| of(source)));
        let columns = |source: &Source| {
            let each = (0..source.columns.len()).filter_map(|place| {
                let name = &source.columns.get(place)?.name;
                Some(format!("{name} {}", column_text(source, place)))
            });
            Some(each.collect::<Vec<_>>().join(", "))
        };
        let records = sources.iter().map(|source| self.records(&source.topic)).collect::<Result<Vec<_>, _>>()?;
        rows(
            self.head(),
            vec![
                ("name", text(&|source| Some(source.name.clone()))),
                ("columns", text(&columns)),
                ("topic", text(&|source| Some(source.topic.to_string()))),
                ("records", numbers(records.into_iter())),
                ("key_format", text(&|source| Some(format_text(source.key_format)))),
                ("value_format", text(&|source| Some(format_text(source.value_format)))),
                ("time", text(&|source| Some(time_text(source)))),
                ("written_by", text(&|source| listed(&writers(&catalog, source)))),
                ("read_by", text(&|source| listed(&readers(&catalog, source)))),
                ("statement", text(&|source| Some(source.sql.clone()))),
            ],
        )
    }

    fn queries_extended(&self) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        let queries = self.queries();
        let of = |id: &str| catalog.query(id).ok();
        let plans = queries.iter().map(|status| {
            let plan = of(&status.id).and_then(|query| self.plan_of(&catalog, query).ok());
            plan.map(|plan| plan.describe())
        });
        rows(
            self.head(),
            vec![
                ("id", texts(queries.iter().map(|status| Some(status.id.clone())))),
                ("sources", texts(queries.iter().map(|status| Some(of(&status.id)?.sources.join(", "))))),
                ("sink", texts(queries.iter().map(|status| Some(status.sink.clone())))),
                ("state", texts(queries.iter().map(|status| Some(state_of(status))))),
                ("starts_at", numbers(queries.iter().map(|status| of(&status.id).map_or(0, |query| query.start.get())))),
                ("frontier", numbers(queries.iter().map(|status| status.frontier.get()))),
                ("rows_in", numbers(queries.iter().map(|status| status.rows_in))),
                ("rows_out", numbers(queries.iter().map(|status| status.rows_out))),
                ("bad_rows", numbers(queries.iter().map(|status| status.bad_rows))),
                ("state_bytes", numbers(queries.iter().map(|status| status.kept.iter().map(|kept| kept.bytes).sum()))),
                ("checkpoint", texts(queries.iter().map(|status| checkpoint_text(&status.checkpoint)))),
                ("dialect", texts(queries.iter().map(|status| Some(of(&status.id)?.dialect.to_string())))),
                ("plan", texts(plans)),
                ("statement", texts(queries.iter().map(|status| Some(of(&status.id)?.sql.clone())))),
            ],
        )
    }

    fn topics_extended(&self, all: bool) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        let topics = self.listed_topics(all);
        let used = |topic: &Topic| {
            let sources = catalog.sources().filter(|source| source.topic == topic.name);
            listed(&sources.map(|source| format!("{} {}", source.kind, source.name)).collect::<Vec<_>>())
        };
        let mut columns = self.topic_columns(&topics)?;
        columns.push(("retention", texts(topics.iter().map(|topic| Some(topic.settings.retention.to_string())))));
        columns.push(("used_by", texts(topics.iter().map(|topic| used(topic)))));
        rows(self.head(), columns)
    }

    /// Number of records that a topic has.
    pub(super) fn records(&self, topic: &TopicName) -> Result<u64, QueryError> {
        // Ends last: what is removed meanwhile lies below them.
        let (firsts, ends) = (self.log.firsts(topic)?, self.log.ends(topic)?);
        Ok(firsts.iter().zip(&ends).map(|(first, end)| end.get().saturating_sub(first.get())).sum())
    }
}

/// Type of a column, and what is special about it.
fn column_text(source: &Source, place: usize) -> String {
    let Some(column) = source.columns.get(place) else { return String::new() };
    let data_type = type_name(&column.data_type);
    match (source.header(place), source.kind) {
        (Some(header), _) => match &header.name {
            Some(name) => format!("{data_type} HEADER('{name}')"),
            None => format!("{data_type} HEADERS"),
        },
        (None, SourceKind::Stream) if column.key => format!("{data_type} KEY"),
        (None, SourceKind::Table) if column.key => format!("{data_type} PRIMARY KEY"),
        (None, _) => data_type,
    }
}

fn format_text(format: Format) -> String {
    match format {
        Format::Delimited(delimiter) => format!("delimited by {delimiter}"),
        Format::JsonValue => "json, one value without its name".to_owned(),
        Format::None | Format::Kafka | Format::Json => format.to_string(),
    }
}

fn time_text(source: &Source) -> String {
    match source.timestamp.and_then(|place| source.columns.get(place)) {
        None => "the record's own".to_owned(),
        Some(column) => match &source.timestamp_format {
            None => format!("column {}", column.name),
            Some(pattern) => format!("column {}, written as {pattern}", column.name),
        },
    }
}

fn writers(catalog: &Catalog, source: &Source) -> Vec<String> {
    catalog.queries().filter(|query| query.sink == source.name).map(|query| query.id.to_string()).collect()
}

fn readers(catalog: &Catalog, source: &Source) -> Vec<String> {
    catalog.dependants(&source.name).map(|query| query.id.to_string()).collect()
}

fn listed(names: &[String]) -> Option<String> {
    if names.is_empty() { None } else { Some(names.join(", ")) }
}
