//! Streams, tables and queries: immutable snapshots, folded from the system topic `_foldlog.catalog`.
//!
//! `engine` alone appends to that topic, one statement at a time; everyone else reads a snapshot. What always holds: names are
//! unique, a query's sources and sink exist, and nothing is dropped that a query depends on.

pub mod format;
mod journal;
pub mod types;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use foldlog_log::{LogBackend, Position, Topic, TopicKind, TopicName};

use crate::{
    error::QueryError,
    sql::{DialectKind, dialect::CollectLimits},
};

pub use format::{Delimiter, Format, Reading};
pub use journal::{CATALOG_TOPIC, Change, fold};
pub use types::{timestamp_type, type_name};

/// Whether a source is read as facts or as the newest value of each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// Every record is a fact.
    Stream,
    /// Every record replaces the one with the same key.
    Table,
}

impl SourceKind {
    /// The kind as users write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Table => "table",
        }
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Id of a persistent query, unique in a folder for ever.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId(Arc<str>);

impl QueryId {
    /// Wraps an id.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for QueryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A column of a source or of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name.
    pub name: String,
    /// One of the types that our SQL has.
    pub data_type: DataType,
    /// Whether it is part of the key.
    pub key: bool,
}

/// Columns that every source has without declaring them; a declared column of the same name hides one that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pseudo {
    /// `stream`, VARCHAR: the stream of an event.
    Stream,
    /// `version`, BIGINT: the event's version in its stream.
    Version,
    /// `type`, VARCHAR: the event's type.
    Type,
    /// `data`, VARCHAR: the whole payload as text; NULL if it is not UTF-8.
    Data,
    /// `position`, BIGINT: place in the folder.
    Position,
    /// `rowtime`, TIMESTAMP: when it happened.
    RowTime,
    /// `rowpartition`, INTEGER.
    RowPartition,
    /// `rowoffset`, BIGINT: place in its partition.
    RowOffset,
    /// `now()`, TIMESTAMP: the server's time when the record was committed. Only for what a statement computes; it has no name.
    RecordedAt,
    /// `record()`, BIGINT: place in the folder, by which random values are told apart. It has no name, either.
    Record,
    /// `has_value()`, BOOLEAN: whether the record has a value. Nor has it.
    HasValue,
}

impl Pseudo {
    /// Those of a topic of `kind`, in the order in which a reader of the bare topic sees them.
    #[must_use]
    pub const fn of(kind: TopicKind) -> &'static [Self] {
        match kind {
            TopicKind::Events => {
                &[Self::Stream, Self::Version, Self::Type, Self::Data, Self::Position, Self::RowTime, Self::RowPartition, Self::RowOffset]
            }
            TopicKind::Records | TopicKind::Table => &[Self::Data, Self::Position, Self::RowTime, Self::RowPartition, Self::RowOffset],
        }
    }

    /// Those that cannot be named in a statement; what it says may mean them.
    pub const UNNAMED: [Self; 3] = [Self::RecordedAt, Self::Record, Self::HasValue];

    /// Those that `ksql` knows by their names without quotes.
    pub const FOLDED: [Self; 3] = [Self::RowTime, Self::RowPartition, Self::RowOffset];

    /// Name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Version => "version",
            Self::Type => "type",
            Self::Data => "data",
            Self::Position => "position",
            Self::RowTime => "rowtime",
            Self::RowPartition => "rowpartition",
            Self::RowOffset => "rowoffset",
            Self::RecordedAt => "now()",
            Self::Record => "record()",
            Self::HasValue => "has_value()",
        }
    }

    /// Type.
    #[must_use]
    pub fn data_type(self) -> DataType {
        match self {
            Self::Stream | Self::Type | Self::Data => DataType::Utf8,
            Self::Version | Self::Position | Self::RowOffset | Self::Record => DataType::Int64,
            Self::RowPartition => DataType::Int32,
            Self::HasValue => DataType::Boolean,
            Self::RowTime | Self::RecordedAt => timestamp_type(),
        }
    }
}

/// A column of a source that a reader needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WantedColumn {
    /// Place in [`Source::columns`].
    Declared(usize),
    /// A column that needs no declaration.
    Pseudo(Pseudo),
}

/// A column that is a record's headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderColumn {
    /// Place in [`Source::columns`].
    pub place: usize,
    /// Name of the header whose value it is; none: all of them.
    pub name: Option<String>,
}

/// A stream or table over a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Name.
    pub name: String,
    /// Stream or table.
    pub kind: SourceKind,
    /// Where its records lie.
    pub topic: TopicName,
    /// Kind of that topic.
    pub topic_kind: TopicKind,
    /// Declared columns, those of the key first.
    pub columns: Vec<Column>,
    /// How a record's key carries the key columns; `None`: they lie in the value, if there are any.
    pub key_format: Format,
    /// How a record's value carries the other columns.
    pub value_format: Format,
    /// How leniently both are read.
    pub reading: Reading,
    /// The columns that are a record's headers; they are only read.
    pub headers: Vec<HeaderColumn>,
    /// Place in `columns` of the one that says when a record happened; none: the record's own time.
    pub timestamp: Option<usize>,
    /// How that column is written, if it is text: a pattern.
    pub timestamp_format: Option<String>,
    /// Whether it is only read: nothing is inserted, and its topic is nobody's to delete.
    pub read_only: bool,
    /// The query that writes it; none for a source that was declared.
    pub query: Option<QueryId>,
    /// The statement that made it; empty for a bare topic.
    pub sql: String,
}

impl Source {
    /// A topic as it is, without a declaration: every record a fact, no columns but those that need no declaration.
    #[must_use]
    pub fn of_topic(topic: &Topic) -> Self {
        Self {
            name: topic.name.as_str().to_owned(),
            kind: SourceKind::Stream,
            topic: topic.name.clone(),
            topic_kind: topic.settings.kind,
            columns: Vec::new(),
            key_format: Format::None,
            value_format: Format::Json,
            reading: Reading::Exact,
            headers: Vec::new(),
            timestamp: None,
            timestamp_format: None,
            read_only: false,
            query: None,
            sql: String::new(),
        }
    }

    /// What `SELECT *` stands for: the declared columns; those of the bare topic if there are none.
    #[must_use]
    pub fn star(&self) -> Vec<WantedColumn> {
        if self.columns.is_empty() {
            return Pseudo::of(self.topic_kind).iter().map(|pseudo| WantedColumn::Pseudo(*pseudo)).collect();
        }
        (0..self.columns.len()).map(WantedColumn::Declared).collect()
    }

    /// Every column that can be named: the declared ones, then those that need no declaration and are not hidden.
    #[must_use]
    pub fn all_columns(&self) -> Vec<WantedColumn> {
        let hidden = |pseudo: &Pseudo| self.columns.iter().any(|column| column.name == pseudo.name());
        let pseudo = Pseudo::of(self.topic_kind).iter().filter(|pseudo| !hidden(pseudo));
        (0..self.columns.len()).map(WantedColumn::Declared).chain(pseudo.map(|pseudo| WantedColumn::Pseudo(*pseudo))).collect()
    }

    /// The columns that lie in the key or value of a record, in their order.
    pub fn written_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().enumerate().filter(|(place, _)| self.header(*place).is_none()).map(|(_, column)| column)
    }

    /// Whether a column lies in the key of a record.
    #[must_use]
    pub fn is_in_key(&self, column: &Column) -> bool {
        column.key && self.key_format != Format::None
    }

    /// Which headers the column at a place is, if it is that.
    #[must_use]
    pub fn header(&self, place: usize) -> Option<&HeaderColumn> {
        self.headers.iter().find(|header| header.place == place)
    }

    /// Number of key columns; they come first in `columns`.
    #[must_use]
    pub fn key_count(&self) -> usize {
        self.columns.iter().take_while(|column| column.key).count()
    }

    /// Name and type of a wanted column; `None` where the place does not exist.
    #[must_use]
    pub fn wanted_field(&self, wanted: WantedColumn) -> Option<Field> {
        match wanted {
            WantedColumn::Declared(place) => {
                let column = self.columns.get(place)?;
                Some(Field::new(&column.name, column.data_type.clone(), true))
            }
            WantedColumn::Pseudo(pseudo) if Pseudo::UNNAMED.contains(&pseudo) => {
                // No declared column is taken for it.
                let mut name = pseudo.name().to_owned();
                while self.columns.iter().any(|column| column.name == name) {
                    name.push_str("()");
                }
                Some(Field::new(name, pseudo.data_type(), true))
            }
            WantedColumn::Pseudo(pseudo) => Some(Field::new(pseudo.name(), pseudo.data_type(), true)),
        }
    }

    /// The column of every source that has this name in a schema and in no statement.
    #[must_use]
    pub fn unnamed_column(&self, name: &str) -> Option<WantedColumn> {
        let mut unnamed = Pseudo::UNNAMED.into_iter().map(WantedColumn::Pseudo);
        unnamed.find(|one| self.wanted_field(*one).is_some_and(|field| field.name() == name))
    }

    /// Schema of batches with these columns, all nullable.
    #[must_use]
    pub fn wanted_schema(&self, wanted: &[WantedColumn]) -> SchemaRef {
        Arc::new(Schema::new(wanted.iter().filter_map(|one| self.wanted_field(*one)).collect::<Vec<_>>()))
    }

    /// Looks a column up by its folded name: a declared one, else one that needs no declaration.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<WantedColumn> {
        if let Some(place) = self.columns.iter().position(|column| column.name == name) {
            return Some(WantedColumn::Declared(place));
        }
        Pseudo::of(self.topic_kind).iter().find(|pseudo| pseudo.name() == name).map(|pseudo| WantedColumn::Pseudo(*pseudo))
    }
}

/// A persistent query as the catalog keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryDef {
    /// Id.
    pub id: QueryId,
    /// The source it writes.
    pub sink: String,
    /// The sources it reads.
    pub sources: Vec<String>,
    /// The statement.
    pub sql: String,
    /// The dialect in which it is written.
    pub dialect: DialectKind,
    /// Where its fold starts (inclusive).
    pub start: Position,
    /// Which plan its state belongs to.
    pub fingerprint: u64,
    /// What the names of CREATE TYPE in its statement stood for when it was created.
    pub types: BTreeMap<String, DataType>,
    /// How many columns each of its sources had then; those added later are not seen.
    pub widths: BTreeMap<String, usize>,
    /// Whether its topic holds the table of the query that it replaces: before anything else it writes the difference.
    pub succeeds: bool,
    /// How many values its COLLECT_LIST and COLLECT_SET show.
    pub collected: CollectLimits,
}

/// What there is, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    sources: BTreeMap<String, Arc<Source>>,
    /// In the order in which they were created.
    queries: Vec<Arc<QueryDef>>,
    types: BTreeMap<String, DataType>,
    /// Those that stand still.
    paused: BTreeSet<QueryId>,
    /// Number of changes so far.
    changes: u64,
}

impl Catalog {
    /// Looks a stream or table up by its folded name.
    ///
    /// # Errors
    /// [`QueryError::Unknown`] with the nearest name.
    pub fn source(&self, name: &str) -> Result<&Arc<Source>, QueryError> {
        self.sources.get(name).ok_or_else(|| QueryError::Unknown {
            what: "stream or table",
            name: name.to_owned(),
            hint: nearest(name, self.sources.keys().map(String::as_str)),
            place: None,
        })
    }

    /// Finds what a name stands for: a stream or table, else the topic of that name.
    ///
    /// # Errors
    /// [`QueryError::Unknown`] with the nearest name, or the nearest topic where none is near.
    pub fn find(&self, log: &dyn LogBackend, name: &str) -> Result<Arc<Source>, QueryError> {
        let unknown = match self.source(name) {
            Ok(source) => return Ok(Arc::clone(source)),
            Err(unknown) => unknown,
        };
        if let Some(topic) = name.parse::<TopicName>().ok().and_then(|name| log.topic(&name).ok()) {
            return Ok(Arc::new(Source::of_topic(&topic)));
        }
        let QueryError::Unknown { hint: None, .. } = unknown else { return Err(unknown) };
        let topics = log.topics();
        let hint = nearest(name, topics.iter().filter(|topic| !topic.name.is_system()).map(|topic| topic.name.as_str()));
        Err(QueryError::Unknown { what: "stream, table or topic", name: name.to_owned(), hint, place: None })
    }

    /// All sources by name.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.sources.values()
    }

    /// Looks a persistent query up by its id, whatever its case.
    ///
    /// # Errors
    /// [`QueryError::Unknown`] with the nearest id.
    pub fn query(&self, id: &str) -> Result<&Arc<QueryDef>, QueryError> {
        self.queries.iter().find(|query| query.id.as_str().eq_ignore_ascii_case(id)).ok_or_else(|| QueryError::Unknown {
            what: "query",
            name: id.to_owned(),
            hint: nearest(id, self.queries.iter().map(|query| query.id.as_str())),
            place: None,
        })
    }

    /// All persistent queries, in the order in which they were created: one that reads what another writes comes after it.
    pub fn queries(&self) -> impl DoubleEndedIterator<Item = &Arc<QueryDef>> {
        self.queries.iter()
    }

    /// The queries that read from a source.
    pub fn dependants<'a>(&'a self, source: &'a str) -> impl Iterator<Item = &'a Arc<QueryDef>> {
        self.queries.iter().filter(move |query| query.sources.iter().any(|one| one == source))
    }

    /// What a name of CREATE TYPE stands for.
    #[must_use]
    pub fn type_made(&self, name: &str) -> Option<DataType> {
        self.types.get(name).cloned()
    }

    /// Names of CREATE TYPE and what they stand for.
    #[must_use]
    pub fn types(&self) -> &BTreeMap<String, DataType> {
        &self.types
    }

    /// The catalog as a query sees it: names of types stand for what they did when it was created, sources have the columns
    /// that they had.
    #[must_use]
    pub fn as_seen_by(self: &Arc<Self>, query: &QueryDef) -> Arc<Self> {
        let is_wider = |(name, width): &(&String, &usize)| self.sources.get(*name).is_some_and(|source| source.columns.len() > **width);
        let same_types = query.types.iter().all(|(name, data_type)| self.types.get(name) == Some(data_type));
        if same_types && !query.widths.iter().any(|one| is_wider(&one)) {
            return Arc::clone(self);
        }
        let mut seen = (**self).clone();
        seen.types.extend(query.types.clone());
        for (name, width) in query.widths.iter().filter(is_wider) {
            if let Some(source) = seen.sources.get_mut(name) {
                Arc::make_mut(source).columns.truncate(*width);
            }
        }
        Arc::new(seen)
    }

    /// Whether a query stands still because somebody said PAUSE.
    #[must_use]
    pub fn is_paused(&self, query: &QueryId) -> bool {
        self.paused.contains(query)
    }

    /// The queries that write into a source: the one that made it, and those that insert.
    pub fn writers<'a>(&'a self, source: &'a str) -> impl Iterator<Item = &'a Arc<QueryDef>> {
        self.queries.iter().filter(move |query| query.sink == source)
    }

    /// How many queries lie in a row above a source, the one that writes it included. No query feeds itself.
    #[must_use]
    pub fn depth(&self, source: &str) -> usize {
        let above = |query: &Arc<QueryDef>| 1 + query.sources.iter().map(|source| self.depth(source)).max().unwrap_or(0);
        self.writers(source).map(above).max().unwrap_or(0)
    }

    /// Number of changes so far: the next query's id is made from it, so that no id comes twice.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Puts a query in another one's place, before all that depends on it: it may read what came after the old one.
    fn replace_query(&mut self, old: Option<QueryId>, query: &Arc<QueryDef>) {
        self.paused.retain(|paused| old.as_ref() != Some(paused));
        let others = std::mem::take(&mut self.queries).into_iter().filter(|other| old.as_ref() != Some(&other.id));
        let mut fed: BTreeSet<String> = BTreeSet::from([query.sink.clone()]);
        let (below, beside): (Vec<_>, Vec<_>) = others.partition(|other| {
            let is_below = other.sources.iter().any(|source| fed.contains(source));
            if is_below {
                fed.insert(other.sink.clone());
            }
            is_below
        });
        self.queries = beside.into_iter().chain([Arc::clone(query)]).chain(below).collect();
    }

    /// The same with other sources of these names.
    #[must_use]
    pub fn with_sources(&self, sources: impl IntoIterator<Item = Arc<Source>>) -> Self {
        let mut catalog = self.clone();
        catalog.sources.extend(sources.into_iter().map(|source| (source.name.clone(), source)));
        catalog
    }

    /// Applies one change. A change that does not fit what there is changes nothing but the count.
    pub fn apply(&mut self, change: &Change) {
        self.changes += 1;
        match change {
            Change::Create { source, query } => {
                self.sources.insert(source.name.clone(), Arc::clone(source));
                self.queries.extend(query.clone());
            }
            Change::Replace { source, query } => {
                let old = self.sources.insert(source.name.clone(), Arc::clone(source));
                if let Some(query) = query {
                    self.replace_query(old.and_then(|old| old.query.clone()), query);
                }
            }
            Change::Insert { query } => self.queries.push(Arc::clone(query)),
            Change::Pause { query } => {
                self.paused.insert(query.clone());
            }
            Change::Resume { query } => {
                self.paused.remove(query);
            }
            Change::Drop { name } => {
                if let Some(source) = self.sources.remove(name) {
                    self.paused.retain(|query| source.query.as_ref() != Some(query));
                    self.queries.retain(|query| source.query.as_ref() != Some(&query.id));
                }
            }
            Change::CreateType { name, data_type } => {
                self.types.insert(name.clone(), data_type.clone());
            }
            Change::DropType { name } => {
                self.types.remove(name);
            }
            Change::Terminate { query } => {
                self.paused.remove(query);
                self.queries.retain(|one| one.id != *query);
                for source in self.sources.values_mut().filter(|source| source.query.as_ref() == Some(query)) {
                    Arc::make_mut(source).query = None;
                }
            }
        }
    }
}

/// Schema with these columns, all nullable.
#[must_use]
pub fn schema_of(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|one| Field::new(&one.name, one.data_type.clone(), true)).collect::<Vec<_>>()))
}

/// The nearest of `names`, if one is near enough to be meant.
#[must_use]
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let most = (name.chars().count() / 3).min(3);
    let scored = names.map(|known| (strsim::damerau_levenshtein(&name.to_lowercase(), &known.to_lowercase()), known));
    scored.filter(|(distance, _)| *distance <= most).min().map(|(_, known)| known.to_owned())
}
