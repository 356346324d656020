//! What WITH says, checked against the columns it is about.

use arrow::datatypes::DataType;
use foldlog_log::{LogError, TopicName};

use crate::{
    catalog::{Column, KeyFormat, timestamp_type, type_name},
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

pub(super) fn check_value_format(options: &Options) -> Result<(), QueryError> {
    match options.value_format.as_deref() {
        None | Some("json") => Ok(()),
        Some(other) => Err(QueryError::Unsupported(format!("value_format = '{other}'; there is json"))),
    }
}

pub(super) fn key_format(columns: &[Column], options: &Options) -> Result<KeyFormat, QueryError> {
    let keys: Vec<&Column> = columns.iter().filter(|column| column.key).collect();
    let fits_kafka = match keys.as_slice() {
        [one] => matches!(one.data_type, DataType::Utf8 | DataType::Int32 | DataType::Int64 | DataType::Float64),
        _ => false,
    };
    match (options.key_format.as_deref(), keys.len()) {
        (None | Some("none" | "kafka" | "json"), 0) => Ok(KeyFormat::None),
        (None, _) => Ok(if fits_kafka { KeyFormat::Kafka } else { KeyFormat::Json }),
        (Some("kafka"), _) if fits_kafka => Ok(KeyFormat::Kafka),
        (Some("kafka"), _) => Err(QueryError::Invalid(
            "key_format = 'kafka' takes one key column of type VARCHAR, INTEGER, BIGINT or DOUBLE; use 'json'".to_owned(),
        )),
        (Some("json"), _) => Ok(KeyFormat::Json),
        (Some("none"), _) => Err(QueryError::Invalid("key_format = 'none' takes no key columns".to_owned())),
        (Some(other), _) => Err(QueryError::Unsupported(format!("key_format = '{other}'; there are kafka, json and none"))),
    }
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
