//! CREATE: streams and tables declared over a topic, and those that a query writes. Called on the catalog's thread alone.

mod declare;
mod feed;
mod formats;
mod options;
mod replace;
mod sink;
mod successor;

pub(super) use declare::declared_columns;

use std::sync::Arc;

use foldlog_log::Position;

use super::done;
use crate::{
    answer::Answer,
    catalog::{Catalog, QueryDef, SourceKind},
    error::QueryError,
};

/// Columns of a stream or table.
const MAX_COLUMNS: usize = 1_000;

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
