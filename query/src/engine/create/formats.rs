//! Which format keys and values have, and whether it can hold their columns.

use arrow::datatypes::DataType;

use crate::{
    catalog::{
        Column, Delimiter, Format, Reading, Source, nearest, type_name,
        types::{is_nested, map_parts},
    },
    error::QueryError,
    sql::{
        Dialect, DialectKind,
        session::{DEFAULT_KEY_FORMAT, DEFAULT_VALUE_FORMAT, Session, WRAP_SINGLE_VALUES},
        statement::Options,
    },
};

/// How keys and values of a source are written and read.
pub(super) struct Formats {
    pub(super) key: Format,
    pub(super) value: Format,
    pub(super) reading: Reading,
}

/// What WITH does not say about formats.
#[derive(Clone, Copy)]
pub(super) struct Defaults<'a> {
    pub(super) dialect: Dialect,
    pub(super) session: &'a Session,
    /// What the query reads, for a sink.
    pub(super) inherited: Option<&'a Source>,
}

/// The names that are formats.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    None,
    Kafka,
    Json,
    Delimited,
}

const NAMES: [(&str, Named); 4] = [("json", Named::Json), ("delimited", Named::Delimited), ("kafka", Named::Kafka), ("none", Named::None)];

/// Formats of ksqlDB that need a registry of schemas, or schemas of their own.
const FOREIGN: [&str; 4] = ["avro", "protobuf", "protobuf_nosr", "json_sr"];

/// The formats of a source with these columns (headers left out).
///
/// # Errors
/// [`QueryError::Invalid`] where a format cannot hold the columns, [`QueryError::Unsupported`] for formats that there are not.
pub(super) fn formats(columns: &[&Column], options: &Options, defaults: Defaults<'_>) -> Result<Formats, QueryError> {
    let (keys, values): (Vec<&Column>, Vec<&Column>) = columns.iter().partition(|column| column.key);
    let key = key_format(&keys, options, defaults)?;
    // Key columns without a key to lie in lie in the value.
    let value = value_format(&values, options, defaults)?;
    let reading = match defaults.dialect.kind {
        DialectKind::Standard => Reading::Exact,
        DialectKind::Ksql => Reading::Coerced,
    };
    Ok(Formats { key, value, reading })
}

/// Whether the formats of a source hold all of its columns.
///
/// # Errors
/// [`QueryError::Invalid`] with the column that they do not hold.
pub(super) fn check_holds(source: &Source) -> Result<(), QueryError> {
    let values: Vec<&Column> = source.written_columns().filter(|column| !source.is_in_key(column)).collect();
    match source.value_format {
        Format::None => Ok(()),
        Format::Json => values.iter().try_for_each(|column| check_json(&column.name, &column.data_type)),
        Format::Kafka => check_kafka("value_format", "value", &values),
        Format::Delimited(_) => check_delimited("value_format", &values),
        Format::JsonValue if values.len() == 1 => Ok(()),
        Format::JsonValue => {
            Err(QueryError::Invalid(format!("the values of {} are written without names, so there is one column", source.name)))
        }
    }
}

fn key_format(keys: &[&Column], options: &Options, defaults: Defaults<'_>) -> Result<Format, QueryError> {
    const WHAT: &str = "key_format";
    let place = || options.place(WHAT).or_else(|| options.place("format"));
    let written = options.key_format.as_deref().or(options.format.as_deref());
    let is_ksql = defaults.dialect.kind == DialectKind::Ksql;
    let from = defaults.inherited.filter(|source| is_ksql && source.key_format != Format::None);
    let default = defaults.session.setting(DEFAULT_KEY_FORMAT);
    let named = match (written, from, default) {
        (Some(name), _, _) => named(WHAT, name).map_err(|error| error.at(place))?,
        (None, Some(source), _) => name_of(source.key_format),
        (None, None, Some(default)) => named(DEFAULT_KEY_FORMAT, &default.to_lowercase())?,
        (None, None, None) if is_ksql || kafka_holds(keys) => Named::Kafka,
        (None, None, None) => Named::Json,
    };
    let inherited = from.map(|source| source.key_format);
    let delimiter = delimiter("key_delimiter", options.key_delimiter.as_deref(), named, inherited)
        .map_err(|error| error.at(|| options.place("key_delimiter")))?;
    if keys.is_empty() {
        if let (Some(name), Some(_), true) = (&options.key_format, defaults.inherited, named != Named::None && is_ksql) {
            let refused = format!("key_format = '{name}': the result has no key; leave it out, or write PARTITION BY");
            return Err(QueryError::Invalid(refused).at(place));
        }
        // What was told without a key holds for the keys of what is made of it.
        return Ok(match (written, named) {
            (None, _) | (Some(_), Named::None) => Format::None,
            (Some(_), Named::Kafka) => Format::Kafka,
            (Some(_), Named::Json) => Format::Json,
            (Some(_), Named::Delimited) => Format::Delimited(delimiter),
        });
    }
    for column in keys {
        if has_map(&column.data_type) {
            return Err(QueryError::Invalid(format!(
                "key column {} is a {}; a key holds no maps",
                column.name,
                type_name(&column.data_type)
            )));
        }
    }
    let format = match named {
        Named::None => Err(QueryError::Invalid("key_format = 'none' takes no key columns".to_owned())),
        Named::Kafka => check_kafka(WHAT, "key", keys).map(|()| Format::Kafka),
        Named::Json => Ok(if keys.len() == 1 { Format::JsonValue } else { Format::Json }),
        Named::Delimited => check_delimited(WHAT, keys).map(|()| Format::Delimited(delimiter)),
    };
    format.map_err(|error| error.at(place))
}

fn value_format(values: &[&Column], options: &Options, defaults: Defaults<'_>) -> Result<Format, QueryError> {
    const WHAT: &str = "value_format";
    let place = || options.place(WHAT).or_else(|| options.place("format"));
    let written = options.value_format.as_deref().or(options.format.as_deref());
    let from = defaults.inherited.filter(|_| defaults.dialect.kind == DialectKind::Ksql);
    let default = defaults.session.setting(DEFAULT_VALUE_FORMAT);
    let named = match (written, from, default) {
        (Some(name), _, _) => named(WHAT, name).map_err(|error| error.at(place))?,
        (None, Some(source), _) => name_of(source.value_format),
        (None, None, Some(default)) => named(DEFAULT_VALUE_FORMAT, &default.to_lowercase())?,
        (None, None, None) if defaults.dialect.kind == DialectKind::Standard => Named::Json,
        (None, None, None) => {
            return Err(QueryError::Invalid(format!("WITH needs a value_format; or set a default: SET '{DEFAULT_VALUE_FORMAT}' = 'json'")));
        }
    };
    let delimiter = delimiter("value_delimiter", options.value_delimiter.as_deref(), named, from.map(|source| source.value_format))
        .map_err(|error| error.at(|| options.place("value_delimiter")))?;
    let wrapped = wrapped(values, named, options, defaults.session).map_err(|error| error.at(|| options.place("wrap_single_value")))?;
    let format = match named {
        Named::None => Err(QueryError::Invalid("value_format = 'none': only keys can be left unread".to_owned())),
        Named::Kafka => check_kafka(WHAT, "value", values).map(|()| Format::Kafka),
        Named::Json => values
            .iter()
            .try_for_each(|column| check_json(&column.name, &column.data_type))
            .map(|()| if wrapped { Format::Json } else { Format::JsonValue }),
        Named::Delimited => check_delimited(WHAT, values).map(|()| Format::Delimited(delimiter)),
    };
    format.map_err(|error| error.at(place))
}

fn named(what: &str, name: &str) -> Result<Named, QueryError> {
    if let Some((_, named)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*named);
    }
    let known = NAMES.map(|(name, _)| name);
    if FOREIGN.contains(&name) {
        return Err(QueryError::Unsupported(format!(
            "{what} = '{name}', which needs a registry of schemas; there are {}",
            known.join(", ")
        )));
    }
    let hint = nearest(name, known.into_iter()).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    Err(QueryError::Invalid(format!("{what} = '{name}': there is no such format{hint}; there are {}", known.join(", "))))
}

const fn name_of(format: Format) -> Named {
    match format {
        Format::None => Named::None,
        Format::Kafka => Named::Kafka,
        Format::Json | Format::JsonValue => Named::Json,
        Format::Delimited(_) => Named::Delimited,
    }
}

fn delimiter(key: &str, written: Option<&str>, named: Named, inherited: Option<Format>) -> Result<Delimiter, QueryError> {
    match (written, inherited) {
        (Some(_), _) if named != Named::Delimited => Err(QueryError::Invalid(format!("{key} belongs to the format delimited"))),
        (Some(text), _) => text.parse().map_err(|reason| QueryError::Invalid(format!("{key}: {reason}"))),
        (None, Some(Format::Delimited(delimiter))) => Ok(delimiter),
        (None, _) => Ok(Delimiter::COMMA),
    }
}

/// Whether a value of one column is an object with one field.
fn wrapped(values: &[&Column], named: Named, options: &Options, session: &Session) -> Result<bool, QueryError> {
    let Some(wrap) = options.wrap_single_value else {
        return Ok(values.len() != 1 || session.is_on(WRAP_SINGLE_VALUES, true));
    };
    if values.len() != 1 {
        return Err(QueryError::Invalid(format!("wrap_single_value is for values of one column, there are {}", values.len())));
    }
    match named {
        Named::Json => Ok(wrap),
        // What has no names of columns is never wrapped, and may be told so.
        Named::Kafka | Named::Delimited if !wrap => Ok(false),
        Named::None | Named::Kafka | Named::Delimited => {
            Err(QueryError::Invalid("wrap_single_value is for JSON: other formats have no names of columns to wrap with".to_owned()))
        }
    }
}

fn kafka_holds(columns: &[&Column]) -> bool {
    let [one] = columns else { return false };
    matches!(one.data_type, DataType::Utf8 | DataType::Int32 | DataType::Int64 | DataType::Float64 | DataType::Binary)
}

fn check_kafka(what: &str, side: &str, columns: &[&Column]) -> Result<(), QueryError> {
    if kafka_holds(columns) {
        return Ok(());
    }
    Err(QueryError::Invalid(format!(
        "{what} = 'kafka' takes one {side} column of type VARCHAR, INTEGER, BIGINT, DOUBLE or BYTES; use 'json'"
    )))
}

fn check_delimited(what: &str, columns: &[&Column]) -> Result<(), QueryError> {
    match columns.iter().find(|column| is_nested(&column.data_type)) {
        None => Ok(()),
        Some(column) => Err(QueryError::Invalid(format!(
            "{what} = 'delimited' holds no nested values, and column {} is {}; use 'json'",
            column.name,
            type_name(&column.data_type)
        ))),
    }
}

/// JSON's objects have text for keys.
fn check_json(column: &str, data_type: &DataType) -> Result<(), QueryError> {
    match data_type {
        DataType::List(item) => check_json(column, item.data_type()),
        DataType::Struct(fields) => fields.iter().try_for_each(|field| check_json(column, field.data_type())),
        other => match map_parts(other) {
            None => Ok(()),
            Some((DataType::Utf8, value)) => check_json(column, value),
            Some((key, _)) => {
                Err(QueryError::Invalid(format!("column {column} has a map whose keys are {}; in JSON they are VARCHAR", type_name(key))))
            }
        },
    }
}

fn has_map(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) => has_map(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_map(field.data_type())),
        other => map_parts(other).is_some(),
    }
}
