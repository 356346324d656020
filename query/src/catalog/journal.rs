//! Changes of the catalog as records of `_foldlog.catalog`: JSON, one change a record, in the order in which they were made.
//!
//! Written by `engine` alone. A record says everything that must not be derived anew after an upgrade: columns and types of a
//! source, where a query starts, the number of its plan.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use arrow::datatypes::DataType;
use foldlog_log::{LogBackend, Position, ReadLimits, Selection, TopicKind, TopicName, TopicSettings};
use serde::{Deserialize, Serialize};

use super::{
    Catalog, Column, Delimiter, Format, HeaderColumn, QueryDef, QueryId, Reading, Source, SourceKind,
    types::{type_name, type_named},
};
use crate::{
    error::QueryError,
    sql::{DialectKind, dialect::CollectLimits},
};

/// The topic in which the catalog lies.
pub const CATALOG_TOPIC: &str = "_foldlog.catalog";

/// One change of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A source, with the query that writes it if there is one.
    Create {
        /// The source.
        source: Arc<Source>,
        /// Its query.
        query: Option<Arc<QueryDef>>,
    },
    /// A source is another one from now on, and so is the query that writes it, if one does.
    Replace {
        /// The source.
        source: Arc<Source>,
        /// Its new query.
        query: Option<Arc<QueryDef>>,
    },
    /// One more query that writes into a source that there is.
    Insert {
        /// The query.
        query: Arc<QueryDef>,
    },
    /// A query stands still.
    Pause {
        /// Its id.
        query: QueryId,
    },
    /// A query that stood still goes on.
    Resume {
        /// Its id.
        query: QueryId,
    },
    /// A source is gone, and the query that wrote it.
    Drop {
        /// Its name.
        name: String,
    },
    /// A name for a type.
    CreateType {
        /// Its name.
        name: String,
        /// What it stands for.
        data_type: DataType,
    },
    /// The name of a type is gone; what was declared with it stays.
    DropType {
        /// Its name.
        name: String,
    },
    /// A query is gone; what it wrote stays.
    Terminate {
        /// Its id.
        query: QueryId,
    },
}

/// The record as it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Stored {
    Create {
        source: Box<StoredSource>,
        query: Option<StoredQuery>,
    },
    Replace {
        source: Box<StoredSource>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        query: Option<StoredQuery>,
    },
    Insert {
        query: StoredQuery,
    },
    Pause {
        query: String,
    },
    Resume {
        query: String,
    },
    Drop {
        name: String,
    },
    CreateType {
        name: String,
        r#type: String,
    },
    DropType {
        name: String,
    },
    Terminate {
        query: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSource {
    name: String,
    kind: StoredKind,
    topic: String,
    topic_kind: TopicKind,
    columns: Vec<StoredColumn>,
    key_format: StoredFormat,
    #[serde(default = "StoredFormat::json", skip_serializing_if = "StoredFormat::is_json")]
    value_format: StoredFormat,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    coerced: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<StoredHeader>,
    timestamp: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp_format: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    read_only: bool,
    query: Option<String>,
    sql: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredKind {
    Stream,
    Table,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredFormat {
    None,
    Kafka,
    /// An object.
    Json,
    /// A value without an object around it.
    JsonValue,
    /// Lines with this character between their values.
    Delimited(char),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredHeader {
    place: usize,
    name: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredColumn {
    name: String,
    #[serde(rename = "type")]
    data_type: String,
    key: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredQuery {
    id: String,
    sink: String,
    sources: Vec<String>,
    sql: String,
    /// Absent in folders that are older than the dialects.
    #[serde(default)]
    dialect: DialectKind,
    start: u64,
    /// Hexadecimal: JSON's numbers end at 2^53.
    fingerprint: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    types: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    widths: BTreeMap<String, usize>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    succeeds: bool,
    /// Absent where it is what it was before there was a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    collect_list: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    collect_set: Option<u32>,
}

impl Change {
    /// The change as the value of a record.
    ///
    /// # Errors
    /// [`QueryError::Execution`], which would be a fault of ours.
    pub fn encode(&self) -> Result<Vec<u8>, QueryError> {
        let stored = match self {
            Self::Create { source, query } => {
                Stored::Create { source: Box::new(StoredSource::of(source)), query: query.as_deref().map(StoredQuery::of) }
            }
            Self::Replace { source, query } => {
                Stored::Replace { source: Box::new(StoredSource::of(source)), query: query.as_deref().map(StoredQuery::of) }
            }
            Self::Insert { query } => Stored::Insert { query: StoredQuery::of(query) },
            Self::Pause { query } => Stored::Pause { query: query.as_str().to_owned() },
            Self::Resume { query } => Stored::Resume { query: query.as_str().to_owned() },
            Self::Drop { name } => Stored::Drop { name: name.clone() },
            Self::CreateType { name, data_type } => Stored::CreateType { name: name.clone(), r#type: type_name(data_type) },
            Self::DropType { name } => Stored::DropType { name: name.clone() },
            Self::Terminate { query } => Stored::Terminate { query: query.as_str().to_owned() },
        };
        serde_json::to_vec(&stored).map_err(|error| QueryError::Execution(format!("the catalog's change cannot be written: {error}")))
    }

    /// Reads the value of a record.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub fn decode(value: &[u8]) -> Result<Self, String> {
        let stored = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        Ok(match stored {
            Stored::Create { source, query } => Self::Create {
                source: Arc::new(source.into_source()?),
                query: query.map(StoredQuery::into_query).transpose()?.map(Arc::new),
            },
            Stored::Replace { source, query } => Self::Replace {
                source: Arc::new(source.into_source()?),
                query: query.map(StoredQuery::into_query).transpose()?.map(Arc::new),
            },
            Stored::Insert { query } => Self::Insert { query: Arc::new(query.into_query()?) },
            Stored::Pause { query } => Self::Pause { query: QueryId::new(&query) },
            Stored::Resume { query } => Self::Resume { query: QueryId::new(&query) },
            Stored::Drop { name } => Self::Drop { name },
            Stored::CreateType { name, r#type } => Self::CreateType { name, data_type: stored_type(&r#type)? },
            Stored::DropType { name } => Self::DropType { name },
            Stored::Terminate { query } => Self::Terminate { query: QueryId::new(&query) },
        })
    }
}

impl StoredSource {
    fn of(source: &Source) -> Self {
        let column = |column: &Column| StoredColumn { name: column.name.clone(), data_type: type_name(&column.data_type), key: column.key };
        Self {
            name: source.name.clone(),
            kind: match source.kind {
                SourceKind::Stream => StoredKind::Stream,
                SourceKind::Table => StoredKind::Table,
            },
            topic: source.topic.as_str().to_owned(),
            topic_kind: source.topic_kind,
            columns: source.columns.iter().map(column).collect(),
            key_format: StoredFormat::of(source.key_format),
            value_format: StoredFormat::of(source.value_format),
            coerced: source.reading == Reading::Coerced,
            headers: source.headers.iter().map(|header| StoredHeader { place: header.place, name: header.name.clone() }).collect(),
            timestamp: source.timestamp,
            timestamp_format: source.timestamp_format.clone(),
            read_only: source.read_only,
            query: source.query.as_ref().map(|query| query.as_str().to_owned()),
            sql: source.sql.clone(),
        }
    }

    fn into_source(self) -> Result<Source, String> {
        let mut columns = Vec::new();
        for column in self.columns {
            let data_type = stored_type(&column.data_type)?;
            columns.push(Column { name: column.name, data_type, key: column.key });
        }
        if self.timestamp.is_some_and(|place| place >= columns.len()) {
            return Err("the column with the time does not exist".to_owned());
        }
        Ok(Source {
            name: self.name,
            kind: match self.kind {
                StoredKind::Stream => SourceKind::Stream,
                StoredKind::Table => SourceKind::Table,
            },
            topic: TopicName::from_str(&self.topic).map_err(|error| error.to_string())?,
            topic_kind: self.topic_kind,
            columns,
            key_format: self.key_format.into_format()?,
            value_format: self.value_format.into_format()?,
            reading: if self.coerced { Reading::Coerced } else { Reading::Exact },
            headers: self.headers.into_iter().map(|header| HeaderColumn { place: header.place, name: header.name }).collect(),
            timestamp: self.timestamp,
            timestamp_format: self.timestamp_format,
            read_only: self.read_only,
            query: self.query.as_deref().map(QueryId::new),
            sql: self.sql,
        })
    }
}

impl StoredFormat {
    const fn json() -> Self {
        Self::Json
    }

    const fn is_json(&self) -> bool {
        matches!(self, Self::Json)
    }

    const fn of(format: Format) -> Self {
        match format {
            Format::None => Self::None,
            Format::Kafka => Self::Kafka,
            Format::Json => Self::Json,
            Format::JsonValue => Self::JsonValue,
            Format::Delimited(delimiter) => Self::Delimited(delimiter.get()),
        }
    }

    fn into_format(self) -> Result<Format, String> {
        Ok(match self {
            Self::None => Format::None,
            Self::Kafka => Format::Kafka,
            Self::Json => Format::Json,
            Self::JsonValue => Format::JsonValue,
            Self::Delimited(character) => Format::Delimited(Delimiter::new(character)?),
        })
    }
}

impl StoredQuery {
    fn of(query: &QueryDef) -> Self {
        Self {
            id: query.id.as_str().to_owned(),
            sink: query.sink.clone(),
            sources: query.sources.clone(),
            sql: query.sql.clone(),
            dialect: query.dialect,
            start: query.start.get(),
            fingerprint: format!("{:016x}", query.fingerprint),
            widths: query.widths.clone(),
            succeeds: query.succeeds,
            collect_list: Some(query.collected.list).filter(|list| *list != CollectLimits::DEFAULT.list),
            collect_set: Some(query.collected.set).filter(|set| *set != CollectLimits::DEFAULT.set),
            types: query.types.iter().map(|(name, data_type)| (name.clone(), type_name(data_type))).collect(),
        }
    }

    fn into_query(self) -> Result<QueryDef, String> {
        Ok(QueryDef {
            id: QueryId::new(&self.id),
            sink: self.sink,
            sources: self.sources,
            sql: self.sql,
            dialect: self.dialect,
            start: Position::new(self.start),
            fingerprint: u64::from_str_radix(&self.fingerprint, 16).map_err(|error| format!("fingerprint: {error}"))?,
            widths: self.widths,
            succeeds: self.succeeds,
            collected: CollectLimits {
                list: self.collect_list.unwrap_or(CollectLimits::DEFAULT.list),
                set: self.collect_set.unwrap_or(CollectLimits::DEFAULT.set),
            },
            types: self.types.into_iter().map(|(name, text)| Ok((name, stored_type(&text)?))).collect::<Result<_, String>>()?,
        })
    }
}

fn stored_type(name: &str) -> Result<DataType, String> {
    type_named(name).ok_or_else(|| format!("there is no type {name}"))
}

/// Makes the catalog's topic if there is none, and folds it up to the durable end (blocking).
///
/// # Errors
/// [`QueryError::Log`] where it cannot be read; [`QueryError::Invalid`] for a record that this version does not understand.
pub fn fold(log: &dyn LogBackend) -> Result<Catalog, QueryError> {
    let name: TopicName = CATALOG_TOPIC.parse().map_err(foldlog_log::LogError::from)?;
    log.create_topic(name.clone(), TopicSettings::new(TopicKind::Records, 1))?;
    let end = log.head().position;
    let mut reader = log.reader(Selection::Topics(vec![name], Position::new(0)))?;
    let mut catalog = Catalog::default();
    loop {
        let chunk = reader.read(end, ReadLimits::default())?;
        for run in &chunk.runs {
            for record in run.records() {
                let record = record?;
                let change = Change::decode(record.value.unwrap_or_default()).map_err(|reason| {
                    QueryError::Invalid(format!("the catalog's record at position {} is not understood: {reason}", record.position))
                })?;
                catalog.apply(&change);
            }
        }
        if chunk.scanned_to >= end {
            return Ok(catalog);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::types::{array_of, map_of, struct_of, timestamp_type};

    fn source(name: &str, query: Option<&str>) -> Arc<Source> {
        Arc::new(Source {
            name: name.to_owned(),
            kind: SourceKind::Table,
            topic: name.parse().unwrap(),
            topic_kind: TopicKind::Table,
            columns: vec![
                Column { name: "k".to_owned(), data_type: DataType::Utf8, key: true },
                Column { name: "d".to_owned(), data_type: DataType::Decimal128(12, 3), key: false },
                Column { name: "t".to_owned(), data_type: timestamp_type(), key: false },
                Column {
                    name: "n".to_owned(),
                    data_type: map_of(DataType::Utf8, array_of(struct_of([("A b", DataType::Binary)]))),
                    key: false,
                },
            ],
            key_format: Format::JsonValue,
            value_format: Format::Delimited(Delimiter::COMMA),
            reading: Reading::Coerced,
            headers: vec![HeaderColumn { place: 3, name: Some("h".to_owned()) }],
            timestamp: Some(2),
            timestamp_format: Some("yyyy".to_owned()),
            read_only: true,
            query: query.map(QueryId::new),
            sql: "CREATE ...".to_owned(),
        })
    }

    fn query(id: &str, sink: &str, from: &str) -> Arc<QueryDef> {
        let (sink, sources) = (sink.to_owned(), vec![from.to_owned()]);
        let (start, fingerprint) = (Position::new(u64::MAX), u64::MAX);
        let types = BTreeMap::from([("money".to_owned(), DataType::Decimal128(12, 2))]);
        Arc::new(QueryDef {
            id: QueryId::new(id),
            sink,
            sources,
            sql: "SELECT".to_owned(),
            dialect: DialectKind::Standard,
            start,
            fingerprint,
            types,
            widths: BTreeMap::from([("s".to_owned(), 2)]),
            succeeds: id == "successor",
            collected: CollectLimits { set: 3, ..CollectLimits::DEFAULT },
        })
    }

    #[test]
    fn a_change_is_read_as_it_was_written() {
        for change in [
            Change::Create { source: source("a", None), query: None },
            Change::Create { source: source("a", Some("q")), query: Some(query("q", "a", "s")) },
            Change::Replace { source: source("a", None), query: None },
            Change::Replace { source: source("a", Some("successor")), query: Some(query("successor", "a", "s")) },
            Change::Insert { query: query("q", "a", "s") },
            Change::Drop { name: "a".to_owned() },
            Change::Terminate { query: QueryId::new("q") },
            Change::Pause { query: QueryId::new("q") },
            Change::Resume { query: QueryId::new("q") },
            Change::CreateType { name: "A".to_owned(), data_type: array_of(struct_of([("B", DataType::Int32)])) },
            Change::DropType { name: "A".to_owned() },
        ] {
            assert_eq!(Change::decode(&change.encode().unwrap()), Ok(change));
        }
    }

    #[test]
    fn what_an_earlier_version_wrote_means_what_it_meant() {
        let written = br#"{"create":{"source":{"name":"t","kind":"table","topic":"t","topic_kind":"table","columns":[
            {"name":"k","type":"DECIMAL(5, 2)","key":true},{"name":"v","type":"INTEGER","key":false}],
            "key_format":"json","timestamp":null,"query":"q","sql":"CREATE ..."},
            "query":{"id":"q","sink":"t","sources":["s"],"sql":"CREATE ...","start":7,"fingerprint":"00000000000000ff"}}}"#;
        let Ok(Change::Create { source, query: Some(query) }) = Change::decode(written) else { panic!("not understood") };
        assert_eq!((source.key_format, source.value_format, source.reading), (Format::Json, Format::Json, Reading::Exact));
        assert_eq!((source.headers.len(), source.timestamp_format.as_deref(), source.read_only), (0, None, false));
        assert_eq!((query.dialect, query.types.len(), query.widths.len()), (DialectKind::Standard, 0, 0));
    }

    #[test]
    fn a_change_that_is_cut_or_flipped_is_an_error_or_another_change_but_never_a_panic() {
        let bytes = Change::Create { source: source("a", Some("q")), query: Some(query("q", "a", "s")) }.encode().unwrap();
        for at in 0..bytes.len() {
            assert!(Change::decode(&bytes[..at]).is_err());
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x20;
            let _ = Change::decode(&flipped);
        }
    }

    #[test]
    fn dropping_takes_the_query_along_and_terminating_leaves_the_source() {
        let mut catalog = Catalog::default();
        catalog.apply(&Change::Create { source: source("s", None), query: None });
        catalog.apply(&Change::Create { source: source("a", Some("q1")), query: Some(query("q1", "a", "s")) });
        catalog.apply(&Change::Create { source: source("b", Some("q2")), query: Some(query("q2", "b", "a")) });
        assert_eq!((catalog.depth("s"), catalog.depth("a"), catalog.depth("b")), (0, 1, 2));
        assert_eq!(catalog.dependants("a").map(|query| query.id.as_str()).collect::<Vec<_>>(), ["q2"]);
        catalog.apply(&Change::Terminate { query: QueryId::new("q2") });
        assert_eq!((catalog.source("b").unwrap().query.clone(), catalog.queries().count()), (None, 1));
        catalog.apply(&Change::Insert { query: query("q3", "b", "a") });
        assert_eq!((catalog.depth("b"), catalog.writers("b").count(), catalog.writers("a").count()), (2, 1, 1));
        catalog.apply(&Change::Terminate { query: QueryId::new("q3") });
        catalog.apply(&Change::Drop { name: "a".to_owned() });
        assert_eq!((catalog.source("a").is_err(), catalog.queries().count(), catalog.changes()), (true, 0, 7));
        assert_eq!(catalog.source("B").unwrap_err().to_string(), "stream or table B does not exist; did you mean b?");
    }
}
