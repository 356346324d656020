//! Our statements, around the expressions and queries of sqlparser. Built by `sql/parser`, read by `engine` and `plan`.
//!
//! Names are folded already as the dialect says. Nothing here was checked against a catalog.

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
    /// `SELECT ... EMIT CHANGES`: a query that does not end by itself.
    Push(Select),
    /// Any other query: it ends.
    Pull(Box<ast::Query>),
    /// `DROP STREAM | TABLE [IF EXISTS] name`.
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
    /// `DESCRIBE name`.
    Describe {
        /// Of a stream, table or topic.
        name: String,
    },
    /// `EXPLAIN statement` or `EXPLAIN query`.
    Explain(Explained),
    /// `SET`, `UNSET`, `DEFINE`, `UNDEFINE`.
    Session(SessionChange),
    /// `TERMINATE query`.
    Terminate {
        /// Id of the query.
        query: String,
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
    /// Whether it was marked KEY or PRIMARY KEY.
    pub key: Option<KeyMark>,
    /// Where its name stands.
    pub place: Place,
}

/// How a key column was marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyMark {
    /// `KEY`, of a stream.
    Key,
    /// `PRIMARY KEY`, of a table.
    PrimaryKey,
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
    /// What stands in WITH.
    pub options: Options,
    /// The query.
    pub select: Select,
}

/// A query that never ends by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// The query, without its EMIT and LIMIT.
    pub query: Box<ast::Query>,
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
    pub columns: Vec<String>,
    /// The rows, each as long as the columns.
    pub rows: Vec<Vec<ast::Expr>>,
}

/// `DROP STREAM | TABLE [IF EXISTS] name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropSource {
    /// Stream or table.
    pub kind: SourceKind,
    /// Name.
    pub name: String,
    /// Whether one that does not exist is no error.
    pub if_exists: bool,
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
    /// Topics.
    Topics,
    /// What CREATE TYPE made.
    Types,
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
