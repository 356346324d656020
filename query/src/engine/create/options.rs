//! What WITH says, checked against the columns it is about.

use std::time::Duration;

use arrow::datatypes::DataType;
use foldlog_log::{LogError, Retention, TopicKind, TopicName, TopicSettings};

use crate::{
    catalog::{Column, timestamp_type, type_name},
    error::QueryError,
    sql::statement::Options,
};

pub(super) fn topic_name(name: &str, options: &Options) -> Result<TopicName, QueryError> {
    let named = options.topic.as_deref().unwrap_or(name);
    named.parse().map_err(|error| match options.topic {
        Some(_) => QueryError::Log(LogError::InvalidName(error)),
        None => QueryError::Invalid(format!("{name} is no name for a topic; name one with WITH (topic = '...')")),
    })
}

pub(super) fn timestamp_column(columns: &[Column], options: &Options) -> Result<Option<usize>, QueryError> {
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

/// The settings of a topic that the statement makes.
///
/// # Errors
/// [`QueryError::Invalid`] for copies that there are not, and for clean-up that does not fit the kind.
pub(super) fn topic_settings(kind: TopicKind, partitions: u32, options: &Options) -> Result<TopicSettings, QueryError> {
    check_topic_options(kind, options)?;
    let mut settings = TopicSettings::new(kind, partitions);
    if let Some(ms) = options.retention_ms.filter(|ms| *ms >= 0) {
        settings.retention = Retention { time: Some(Duration::from_millis(ms.unsigned_abs())), ..Retention::FOR_EVER };
    }
    Ok(settings)
}

/// Refuses what WITH says about a topic and cannot be had, whether the topic is there already or not.
pub(super) fn check_topic_options(kind: TopicKind, options: &Options) -> Result<(), QueryError> {
    if let Some(replicas) = options.replicas.filter(|replicas| !matches!(replicas, -1 | 1)) {
        return Err(QueryError::Invalid(format!("replicas = {replicas}: there is one server, which keeps one copy; leave it out")));
    }
    if let Some(ms) = options.retention_ms.filter(|ms| *ms < -1) {
        return Err(QueryError::Invalid(format!("retention_ms = {ms}: expected a number of milliseconds, or -1 for ever")));
    }
    let fitting = match kind {
        TopicKind::Table => "compact",
        TopicKind::Records | TopicKind::Events => "delete",
    };
    match options.cleanup_policy.as_deref() {
        None => Ok(()),
        Some(policy) if policy == fitting => Ok(()),
        Some(policy) => {
            Err(QueryError::Invalid(format!("cleanup_policy = '{policy}': a topic of kind {kind} has '{fitting}'; leave it out")))
        }
    }
}
