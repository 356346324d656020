//! Our statements, around the expressions and queries of sqlparser. Built by `sql/parser`, read by `engine` and `plan`.
//!
//! Names are folded already as the dialect says. Nothing here was checked against a catalog.

use std::{collections::BTreeMap, time::Duration};

use datafusion::sql::sqlparser::ast;

use super::{dialect::Changelog, session::SessionChange, types::TypeExpr};
use crate::{catalog::SourceKind, error::Place};

/// One statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// `CREATE STREAM | TABLE name (columns) WITH (...)`.
    CreateSource(CreateSource),
    /// `CREATE STREAM | TABLE name [WITH (...)] AS SELECT ...`.
    CreateAs(CreateAs),
    /// `INSERT INTO name [(columns)] VALUES (...), ...`.
    InsertValues(InsertValues),
    /// `INSERT INTO name SELECT ...`.
    InsertSelect(InsertSelect),
    /// `SELECT ... EMIT CHANGES`: a query that does not end by itself.
    Push(Select),
    /// `PRINT topic ...`: the records of a topic as they are.
    Print(Print),
    /// Any other query: it ends.
    Pull(Box<ast::Query>),
    /// `ALTER STREAM | TABLE name ADD ...`.
    Alter(AlterSource),
    /// `DELETE FROM table WHERE ...`.
    Delete(Delete),
    /// `ASSERT ... TOPIC ...`.
    AssertTopic(AssertTopic),
    /// `ASSERT [NULL] VALUES ...`, in files of tests alone.
    AssertRows(AssertRows),
    /// `ASSERT STREAM | TABLE ...`, in files of tests alone.
    AssertSource(AssertSource),
    /// `DROP STREAM | TABLE [IF EXISTS] name [CASCADE] [DELETE TOPIC]`.
    Drop(DropSource),
    /// `CREATE TYPE [IF NOT EXISTS] name AS type`.
    CreateType {
        /// Name.
        name: String,
        /// Whether one that exists is no error.
        if_not_exists: bool,
        /// What the name stands for.
        data_type: TypeExpr,
    },
    /// `DROP TYPE [IF EXISTS] name`.
    DropType {
        /// Name.
        name: String,
        /// Whether one that does not exist is no error.
        if_exists: bool,
    },
    /// `SHOW | LIST ...`.
    Show(Show),
    /// `SHOW | LIST ... EXTENDED`.
    ShowExtended(Show),
    /// `DESCRIBE name [EXTENDED]`.
    Describe {
        /// Of a stream, table or topic.
        name: String,
        /// Whether everything is told.
        extended: bool,
    },
    /// `DESCRIBE STREAMS | TABLES`.
    DescribeAll(SourceKind),
    /// `DESCRIBE FUNCTION name`.
    DescribeFunction {
        /// Name of the function.
        name: String,
    },
    /// `EXPLAIN statement` or `EXPLAIN query`.
    Explain(Explained),
    /// `SET`, `UNSET`, `DEFINE`, `UNDEFINE`.
    Session {
        /// What it changes.
        change: SessionChange,
        /// Where its value stands, or its name if it has none.
        place: Place,
    },
    /// `TERMINATE | PAUSE | RESUME [QUERY] id | ALL`.
    ChangeQueries {
        /// What is done.
        action: QueryAction,
        /// Id of the query; none: all of them.
        query: Option<String>,
    },
}

/// `CREATE STREAM | TABLE name (columns) WITH (...)`.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateSource {
    /// Stream or table.
    pub kind: SourceKind,
    /// Name.
    pub name: String,
    /// Whether one that exists is no error.
    pub if_not_exists: bool,
    /// Whether it takes the place of one that exists.
    pub or_replace: bool,
    /// Whether it is only read (`SOURCE`).
    pub read_only: bool,
    /// Columns as declared, in their order.
    pub columns: Vec<ColumnDef>,
    /// What stands in WITH.
    pub options: Options,
}

/// A declared column.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnDef {
    /// Name.
    pub name: String,
    /// Type, as written.
    pub data_type: TypeExpr,
    /// What stands behind its type.
    pub mark: Option<ColumnMark>,
    /// Where its name stands.
    pub place: Place,
}

/// How a column that is no part of the value is marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnMark {
    /// `KEY`, of a stream.
    Key,
    /// `PRIMARY KEY`, of a table.
    PrimaryKey,
    /// `HEADERS`: all headers of a record.
    Headers,
    /// `HEADER('name')`: the value of one.
    Header(String),
}

impl ColumnMark {
    /// Whether the column lies in the key.
    #[must_use]
    pub const fn is_key(&self) -> bool {
        matches!(self, Self::Key | Self::PrimaryKey)
    }
}

/// `ALTER STREAM | TABLE name ADD [COLUMN] column type, ...`.
#[derive(Clone, Debug, PartialEq)]
pub struct AlterSource {
    /// Stream or table.
    pub kind: SourceKind,
    /// Name.
    pub name: String,
    /// The columns that are added.
    pub columns: Vec<ColumnDef>,
}

/// `DELETE FROM table WHERE ...`.
#[derive(Clone, Debug, PartialEq)]
pub struct Delete {
    /// Table.
    pub name: String,
    /// Says which key.
    pub selection: ast::Expr,
}

/// `PRINT topic [FROM BEGINNING] [INTERVAL n] [LIMIT n]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Print {
    /// Name of the topic, or of a stream or table over it.
    pub topic: String,
    /// Whether it begins with the first record there is, or with the next.
    pub from_beginning: bool,
    /// One record of so many is printed, at least 1.
    pub every: u64,
    /// Ends after so many records printed.
    pub limit: Option<u64>,
}

/// `ASSERT [NOT EXISTS] TOPIC name [WITH (...)] [TIMEOUT n unit]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertTopic {
    /// Name of the topic.
    pub name: String,
    /// Whether it must be there, or must not.
    pub exists: bool,
    /// Number of its partitions.
    pub partitions: Option<u32>,
    /// Number of its copies.
    pub replicas: Option<i32>,
    /// How long it is waited for.
    pub timeout: Duration,
}

/// `ASSERT VALUES name [(columns)] VALUES (...), ...` or `ASSERT NULL VALUES name [(columns)] KEY (...), ...`.
#[derive(Clone, Debug, PartialEq)]
pub struct AssertRows {
    /// Stream or table.
    pub name: String,
    /// Columns named; all of them if none, of a record without a value those of the key.
    pub columns: Vec<Named>,
    /// What its next records are.
    pub rows: Vec<Vec<ast::Expr>>,
    /// Whether they have no value.
    pub is_null: bool,
}

/// `ASSERT STREAM | TABLE name [(columns)] [WITH (...)]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AssertSource {
    /// Stream or table.
    pub kind: SourceKind,
    /// Name.
    pub name: String,
    /// Its columns, all of them; none: they are not looked at.
    pub columns: Option<Vec<ColumnDef>>,
    /// What is looked at of WITH.
    pub options: Options,
}

/// `WITH (key = 'value', ...)`, each key known and given once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// `topic` or `kafka_topic`.
    pub topic: Option<String>,
    /// `partitions`.
    pub partitions: Option<u32>,
    /// `replicas`.
    pub replicas: Option<i32>,
    /// `retention_ms`; -1: for ever.
    pub retention_ms: Option<i64>,
    /// `cleanup_policy`, folded to lower case.
    pub cleanup_policy: Option<String>,
    /// `format`, of keys and values, folded to lower case.
    pub format: Option<String>,
    /// `key_format`, folded to lower case.
    pub key_format: Option<String>,
    /// `value_format`, folded to lower case.
    pub value_format: Option<String>,
    /// `key_delimiter`.
    pub key_delimiter: Option<String>,
    /// `value_delimiter`.
    pub value_delimiter: Option<String>,
    /// `wrap_single_value`: whether a value of one column is an object with one field.
    pub wrap_single_value: Option<bool>,
    /// `timestamp`: the column that says when a record happened.
    pub timestamp: Option<String>,
    /// `changelog`: what a query that makes a table writes of a step.
    pub changelog: Option<Changelog>,
    /// `timestamp_format`: the pattern in which that column is written, if it is text.
    pub timestamp_format: Option<String>,
    /// `query_id`: of the query that the statement starts.
    pub query_id: Option<String>,
    /// `sourced_by_connector`: who fills the topic, as a note.
    pub connector: Option<String>,
    /// Where each of these stands, by its key.
    pub places: BTreeMap<&'static str, Place>,
}

impl Options {
    /// Where a key stands; none if it is not said.
    #[must_use]
    pub fn place(&self, key: &str) -> Option<Place> {
        self.places.get(key).copied()
    }
}

/// `CREATE STREAM | TABLE name [WITH (...)] AS SELECT ...`.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateAs {
    /// Stream or table.
    pub kind: SourceKind,
    /// Name.
    pub name: String,
    /// Whether one that exists is no error.
    pub if_not_exists: bool,
    /// Whether one that exists is replaced.
    pub or_replace: bool,
    /// What stands in WITH.
    pub options: Options,
    /// The query.
    pub select: Select,
}

/// `INSERT INTO name [WITH (query_id = '...')] SELECT ...`.
#[derive(Clone, Debug, PartialEq)]
pub struct InsertSelect {
    /// Stream.
    pub name: String,
    /// Id that the query is to have.
    pub query_id: Option<String>,
    /// The query.
    pub select: Select,
}

/// A query that never ends by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// The query, without its EMIT and LIMIT.
    pub query: Box<ast::Query>,
    /// What PARTITION BY says, if it was written.
    pub partition_by: Option<Vec<ast::Expr>>,
    /// Whether EMIT CHANGES was written; CREATE ... AS does not need it.
    pub emit: Option<Emit>,
    /// Ends after so many rows.
    pub limit: Option<u64>,
}

/// When results are emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// Every change.
    Changes,
}

/// `INSERT INTO name [(columns)] VALUES (...), ...`.
#[derive(Clone, Debug, PartialEq)]
pub struct InsertValues {
    /// Stream or table.
    pub name: String,
    /// Columns named; all declared ones if none.
    pub columns: Vec<Named>,
    /// The rows, each as long as the columns.
    pub rows: Vec<Vec<ast::Expr>>,
}

/// A name in a list of columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name, folded.
    pub name: String,
    /// Where it stands.
    pub place: Place,
}

/// `DROP STREAM | TABLE [IF EXISTS] name [CASCADE] [DELETE TOPIC]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropSource {
    /// Stream or table.
    pub kind: SourceKind,
    /// Name.
    pub name: String,
    /// Whether one that does not exist is no error.
    pub if_exists: bool,
    /// Whether what is made of it is dropped with it.
    pub cascade: bool,
    /// Whether its topic is deleted with it.
    pub delete_topic: bool,
}

/// What SHOW lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Streams.
    Streams,
    /// Tables.
    Tables,
    /// Persistent queries.
    Queries,
    /// Topics but foldlog's own.
    Topics,
    /// Topics, foldlog's own too.
    AllTopics,
    /// Settings of the session, and what holds where it has none.
    Properties,
    /// Variables of the session.
    Variables,
    /// What CREATE TYPE made.
    Types,
    /// The functions of the registry.
    Functions,
}

/// What is done to a running query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryAction {
    /// It ends.
    Terminate,
    /// It stands still, and keeps its state.
    Pause,
    /// It goes on.
    Resume,
}

/// What EXPLAIN explains.
#[derive(Clone, Debug, PartialEq)]
pub enum Explained {
    /// A statement, which is not executed.
    Statement(Box<Statement>),
    /// A running query, by its id.
    Query(String),
}

/// One statement of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its text, without the semicolon.
    pub text: String,
    /// Where it begins in the script.
    pub place: Place,
}
