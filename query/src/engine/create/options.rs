//! What WITH says, checked against the columns it is about.

use std::time::Duration;

use arrow::datatypes::DataType;
use foldlog_log::{LogError, Retention, TopicKind, TopicName, TopicSettings};

use crate::{
    catalog::{Column, timestamp_type, type_name},
    error::QueryError,
    functions::calendar::Pattern,
    sql::statement::Options,
};

/// The topic that WITH names, else the one called as the source, behind what the session has such names begin with.
pub(super) fn topic_name(name: &str, prefix: &str, options: &Options) -> Result<TopicName, QueryError> {
    let made = format!("{prefix}{name}");
    let named = options.topic.as_deref().unwrap_or(&made);
    named.parse().map_err(|error| match options.topic {
        Some(_) => QueryError::Log(LogError::InvalidName(error)),
        None => QueryError::Invalid(format!("{made} is no name for a topic; name one with WITH (topic = '...')")),
    })
}

/// The column that says when a record happened, and the pattern in which it is written if it is text.
///
/// # Errors
/// [`QueryError::Unknown`] for a column that there is not, [`QueryError::Invalid`] for one that says no time.
pub(super) fn timestamp_column(columns: &[Column], options: &Options) -> Result<(Option<usize>, Option<String>), QueryError> {
    let Some(name) = &options.timestamp else {
        return match &options.timestamp_format {
            None => Ok((None, None)),
            Some(_) => Err(QueryError::Invalid("timestamp_format needs timestamp, the column that is written so".to_owned())
                .at(|| options.place("timestamp_format"))),
        };
    };
    let Some((place, column)) = columns.iter().enumerate().find(|(_, column)| column.name == *name) else {
        let hint = crate::catalog::nearest(name, columns.iter().map(|column| column.name.as_str()));
        return Err(QueryError::Unknown { what: "column", name: name.clone(), hint, place: None });
    };
    timed(place, column, options).map_err(|error| {
        let pattern = || options.place("timestamp_format");
        error.at(|| pattern().or_else(|| options.place("timestamp")))
    })
}

/// The same of a column that there is.
fn timed(place: usize, column: &Column, options: &Options) -> Result<(Option<usize>, Option<String>), QueryError> {
    let name = &column.name;
    let is_time = column.data_type == DataType::Int64 || column.data_type == timestamp_type();
    match (&options.timestamp_format, column.data_type == DataType::Utf8) {
        (None, false) if is_time => Ok((Some(place), None)),
        (Some(pattern), true) => {
            Pattern::compile(pattern).map_err(|reason| QueryError::Invalid(format!("timestamp_format = '{pattern}': {reason}")))?;
            Ok((Some(place), Some(pattern.clone())))
        }
        (None, true) => Err(QueryError::Invalid(format!(
            "timestamp = '{name}': a column of text needs timestamp_format, the pattern in which it is written"
        ))),
        (Some(_), false) if is_time => {
            Err(QueryError::Invalid(format!("timestamp_format is for a column of text; column {name} is {}", type_name(&column.data_type))))
        }
        (None | Some(_), false) => Err(QueryError::Invalid(format!(
            "timestamp = '{name}': the column must be TIMESTAMP, BIGINT with milliseconds, or VARCHAR with a timestamp_format, it is {}",
            type_name(&column.data_type)
        ))),
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
        let refused = format!("replicas = {replicas}: there is one server, which keeps one copy; leave it out");
        return Err(QueryError::Invalid(refused).at(|| options.place("replicas")));
    }
    if let Some(ms) = options.retention_ms.filter(|ms| *ms < -1) {
        let refused = format!("retention_ms = {ms}: expected a number of milliseconds, or -1 for ever");
        return Err(QueryError::Invalid(refused).at(|| options.place("retention_ms")));
    }
    let fitting = match kind {
        TopicKind::Table => "compact",
        TopicKind::Records | TopicKind::Events => "delete",
    };
    match options.cleanup_policy.as_deref() {
        None => Ok(()),
        Some(policy) if policy == fitting => Ok(()),
        Some(policy) => {
            let refused = format!("cleanup_policy = '{policy}': a topic of kind {kind} has '{fitting}'; leave it out");
            Err(QueryError::Invalid(refused).at(|| options.place("cleanup_policy")))
        }
    }
}
