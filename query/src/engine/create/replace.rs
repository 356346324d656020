//! What of a declared stream or table may become another: CREATE OR REPLACE, ALTER.

use crate::{
    catalog::{Catalog, Format, Source},
    error::QueryError,
    sql::{Dialect, DialectKind},
};

/// Refuses a new declaration that somebody could not live with.
///
/// Queries go on with the columns that they know, so columns may be added behind those that there are. More may change while no
/// query reads it, but not in the dialect of ksqlDB, where nothing more ever changes.
///
/// # Errors
/// [`QueryError::Invalid`] with what must stay, [`QueryError::InUse`] with who needs it.
pub(super) fn check(catalog: &Catalog, dialect: Dialect, old: &Source, new: &Source) -> Result<(), QueryError> {
    let name = &old.name;
    if let Some(query) = &old.query {
        return Err(QueryError::Invalid(format!("{} {name} is written by query {query}; drop it and create it again", old.kind)));
    }
    if old.read_only {
        return Err(QueryError::Invalid(format!("{name} is a SOURCE, which is never changed; drop it and create it again")));
    }
    if old.kind != new.kind {
        return Err(QueryError::Invalid(format!("{name} is a {}, and stays one; drop it first", old.kind)));
    }
    let writers: Vec<&str> = catalog.queries().filter(|query| query.sink == *name).map(|query| query.id.as_str()).collect();
    if !writers.is_empty() {
        let writers = writers.join(", ");
        return Err(QueryError::Invalid(format!("{name} is what {writers} write into, whose columns are its own; terminate them first")));
    }
    let readers: Vec<&str> = catalog.dependants(name).map(|query| query.id.as_str()).collect();
    if matches!(old.value_format, Format::Delimited(_)) && old.columns.len() != new.columns.len() && !readers.is_empty() {
        let readers = readers.join(", ");
        return Err(QueryError::Invalid(format!(
            "the values of {name} are lines with a value for each column, and {readers} could not read longer ones; terminate them first"
        )));
    }
    let Some(changed) = changed(old, new) else { return Ok(()) };
    if dialect.kind == DialectKind::Standard && readers.is_empty() {
        return Ok(());
    }
    let who = if readers.is_empty() { String::new() } else { format!(", which {} read", readers.join(", ")) };
    Err(QueryError::Invalid(format!("{changed} of {name}{who} must stay; columns may only be added behind the others")))
}

/// What is not as before, but for columns that were added.
pub(super) fn changed(old: &Source, new: &Source) -> Option<&'static str> {
    let keeps_columns = new.columns.get(..old.columns.len()) == Some(old.columns.as_slice()) && old.key_count() == new.key_count();
    if !keeps_columns {
        return Some("the columns");
    }
    if old.topic != new.topic {
        return Some("the topic");
    }
    let formats = |source: &Source| (source.key_format, source.value_format, source.reading);
    if formats(old) != formats(new) {
        return Some("the formats");
    }
    let time = |source: &Source| (source.timestamp, source.timestamp_format.clone(), source.headers.clone());
    if time(old) != time(new) { Some("the columns of time and headers") } else { None }
}
