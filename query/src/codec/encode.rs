//! Rows to the bytes of records: what a sink and `INSERT` write, and what `Decoder` reads back the same.
//!
//! Invariant: a value is one JSON object with one field for each column that is not part of the key, in the order declared;
//! a number is written so that reading it gives the same number.

use std::{fmt::Write as _, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray},
    datatypes::{DataType, Decimal128Type, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMillisecondType},
    record_batch::RecordBatch,
};
use bytes::Bytes;

use crate::{
    catalog::{KeyFormat, Source},
    error::QueryError,
};

/// Encodes rows of one source.
#[derive(Clone, Debug)]
pub struct Encoder {
    source: Arc<Source>,
    /// `"name":` of each column, escaped.
    names: Vec<String>,
}

impl Encoder {
    /// An encoder for rows of `source`.
    #[must_use]
    pub fn new(source: Arc<Source>) -> Self {
        let names = source.columns.iter().map(|column| format!("{}:", quoted(&column.name))).collect();
        Self { source, names }
    }

    /// Looks at a batch whose columns are those of the source, in their order; further columns are ignored.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] if columns are missing or of another type.
    pub fn rows<'a>(&'a self, batch: &'a RecordBatch) -> Result<EncodedRows<'a>, QueryError> {
        if batch.num_columns() < self.source.columns.len() {
            let (wanted, given) = (self.source.columns.len(), batch.num_columns());
            return Err(QueryError::Invalid(format!("{} has {wanted} columns, {given} were given", self.source.name)));
        }
        let columns = self.source.columns.iter().zip(batch.columns()).map(|(column, array)| {
            if column.data_type == *array.data_type() {
                return Cells::new(array);
            }
            let (name, wanted, given) = (&column.name, &column.data_type, array.data_type());
            Err(QueryError::Invalid(format!("column {name} of {} is {wanted}, {given} was given", self.source.name)))
        });
        Ok(EncodedRows { encoder: self, columns: columns.collect::<Result<_, _>>()? })
    }
}

/// The text in JSON of one value, as a sink would write it.
///
/// # Errors
/// [`QueryError::Unsupported`] for a type that our SQL does not have.
pub fn json_of(column: &ArrayRef, row: usize) -> Result<String, QueryError> {
    let mut text = String::new();
    Cells::new(column)?.json(row, &mut text);
    Ok(text)
}

/// The rows of a batch, ready to be written one by one.
pub struct EncodedRows<'a> {
    encoder: &'a Encoder,
    columns: Vec<Cells<'a>>,
}

impl EncodedRows<'_> {
    /// Key of a row's record; none if the source has no key, or its only key column is NULL.
    #[must_use]
    pub fn key(&self, row: usize) -> Option<Bytes> {
        match self.encoder.source.key_format {
            KeyFormat::None => None,
            KeyFormat::Kafka => {
                let place = self.encoder.source.columns.iter().position(|column| column.key)?;
                self.columns.get(place)?.key(row)
            }
            KeyFormat::Json => Some(self.object(row, true)),
        }
    }

    /// Value of a row's record.
    #[must_use]
    pub fn value(&self, row: usize) -> Bytes {
        self.object(row, false)
    }

    fn object(&self, row: usize, key: bool) -> Bytes {
        let mut text = String::with_capacity(64);
        text.push('{');
        let in_value = |is_key: bool| is_key && self.encoder.source.key_format != KeyFormat::None;
        for ((column, name), cells) in self.encoder.source.columns.iter().zip(&self.encoder.names).zip(&self.columns) {
            if in_value(column.key) != key {
                continue;
            }
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(name);
            cells.json(row, &mut text);
        }
        text.push('}');
        text.into()
    }
}

/// A column whose type is known.
enum Cells<'a> {
    Bool(&'a BooleanArray),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    Float64(&'a Float64Array),
    Utf8(&'a StringArray),
    Timestamp(&'a arrow::array::TimestampMillisecondArray),
    Decimal(&'a Decimal128Array),
}

impl<'a> Cells<'a> {
    fn new(array: &'a ArrayRef) -> Result<Self, QueryError> {
        Ok(match array.data_type() {
            DataType::Boolean => Self::Bool(array.as_boolean()),
            DataType::Int32 => Self::Int32(array.as_primitive::<Int32Type>()),
            DataType::Int64 => Self::Int64(array.as_primitive::<Int64Type>()),
            DataType::Float64 => Self::Float64(array.as_primitive::<Float64Type>()),
            DataType::Utf8 => Self::Utf8(array.as_string::<i32>()),
            DataType::Timestamp(TimeUnit::Millisecond, _) => Self::Timestamp(array.as_primitive::<TimestampMillisecondType>()),
            DataType::Decimal128(..) => Self::Decimal(array.as_primitive::<Decimal128Type>()),
            other => return Err(QueryError::Unsupported(format!("values of type {other} in JSON"))),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bool(array) => array.is_null(row),
            Self::Int32(array) => array.is_null(row),
            Self::Int64(array) => array.is_null(row),
            Self::Float64(array) => array.is_null(row),
            Self::Utf8(array) => array.is_null(row),
            Self::Timestamp(array) => array.is_null(row),
            Self::Decimal(array) => array.is_null(row),
        }
    }

    fn json(&self, row: usize, text: &mut String) {
        if self.is_null(row) {
            text.push_str("null");
            return;
        }
        let written = match self {
            Self::Bool(array) => write!(text, "{}", array.value(row)),
            Self::Int32(array) => write!(text, "{}", array.value(row)),
            Self::Int64(array) => write!(text, "{}", array.value(row)),
            // JSON has no word for infinity and NaN.
            Self::Float64(array) if !array.value(row).is_finite() => text.write_str("null"),
            Self::Float64(array) => write!(text, "{:?}", array.value(row)),
            Self::Utf8(array) => text.write_str(&quoted(array.value(row))),
            Self::Timestamp(array) => write!(text, "{}", array.value(row)),
            Self::Decimal(array) => text.write_str(&array.value_as_string(row)),
        };
        written.expect("a String takes whatever is written to it");
    }

    fn key(&self, row: usize) -> Option<Bytes> {
        if self.is_null(row) {
            return None;
        }
        Some(match self {
            Self::Bool(array) => Bytes::copy_from_slice(&[u8::from(array.value(row))]),
            Self::Int32(array) => Bytes::copy_from_slice(&array.value(row).to_be_bytes()),
            Self::Int64(array) => Bytes::copy_from_slice(&array.value(row).to_be_bytes()),
            Self::Timestamp(array) => Bytes::copy_from_slice(&array.value(row).to_be_bytes()),
            Self::Float64(array) => Bytes::copy_from_slice(&array.value(row).to_be_bytes()),
            Self::Utf8(array) => Bytes::copy_from_slice(array.value(row).as_bytes()),
            Self::Decimal(array) => array.value_as_string(row).into(),
        })
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
