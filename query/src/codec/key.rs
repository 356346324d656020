//! Keys of records alone: what a lookup, a scan of a table and a sink need without the value.

use datafusion::common::ScalarValue;

use super::{column::Builder, json::Fields};
use crate::{
    catalog::{KeyFormat, Source},
    error::QueryError,
};

/// The key columns of a record of `source`, in their order; none where the bytes are no key of it.
///
/// # Errors
/// [`QueryError::Unsupported`] for key columns of a type that keys cannot have.
pub fn decode_key(source: &Source, key: &[u8]) -> Result<Option<Vec<ScalarValue>>, QueryError> {
    let columns = source.columns.iter().filter(|column| column.key);
    let mut values = Vec::new();
    let mut fields = Fields::new(columns.clone().map(|column| column.name.clone()).collect());
    if source.key_format == KeyFormat::Json && fields.scan(key).is_err() {
        return Ok(None);
    }
    for (place, column) in columns.enumerate() {
        let mut builder = Builder::new(&column.data_type, 1)?;
        let done = match source.key_format {
            KeyFormat::Kafka => builder.append_key(Some(key)),
            KeyFormat::Json => builder.append_json(fields.found(place, Some(key))),
            KeyFormat::None => return Ok(None),
        };
        if done.is_err() {
            return Ok(None);
        }
        values.push(ScalarValue::try_from_array(&builder.finish(), 0).map_err(|fault| QueryError::Execution(fault.to_string()))?);
    }
    Ok(Some(values))
}
