//! Rows to the bytes of records: what a sink and `INSERT` write, and what `Decoder` reads back the same.
//!
//! Invariant: a key or value has every column that is declared there, in that order; a number is written so that reading it
//! gives the same number.

use std::sync::Arc;

use arrow::{array::ArrayRef, record_batch::RecordBatch};
use bytes::Bytes;

use super::{
    cells::{Cells, quoted},
    line,
    value::Reason,
};
use crate::{
    catalog::{Column, Delimiter, Format, Reading, Source},
    error::QueryError,
    functions::calendar::{Pattern, Zone},
};

/// Encodes rows of one source.
#[derive(Clone, Debug)]
pub struct Encoder {
    source: Arc<Source>,
    /// `"name":` of each column, escaped.
    names: Vec<String>,
    /// How the column with the time is written, if it is text.
    pattern: Option<Arc<Pattern>>,
}

impl Encoder {
    /// An encoder for rows of `source`.
    #[must_use]
    pub fn new(source: Arc<Source>) -> Self {
        let names = source.columns.iter().map(|column| format!("{}:", quoted(&column.name))).collect();
        // What does not compile was refused when the sink was made.
        let pattern = source.timestamp_format.as_deref().and_then(|pattern| Pattern::compile(pattern).ok()).map(Arc::new);
        Self { source, names, pattern }
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
        self.side(self.encoder.source.key_format, true, row)
    }

    /// Whether every column of a row's key is NULL.
    #[must_use]
    pub fn key_is_null(&self, row: usize) -> bool {
        self.columns(true).all(|(_, _, cells)| cells.is_null(row))
    }

    /// Value of a row's record; none if the value is one column without a name, and NULL.
    #[must_use]
    pub fn value(&self, row: usize) -> Option<Bytes> {
        self.side(self.encoder.source.value_format, false, row)
    }

    fn side(&self, format: Format, key: bool, row: usize) -> Option<Bytes> {
        match format {
            Format::None => None,
            Format::Kafka => self.columns(key).next()?.2.bytes(row),
            Format::Json => Some(self.object(row, key)),
            Format::JsonValue => {
                let (_, _, cells) = self.columns(key).next()?;
                let mut text = String::new();
                cells.json(row, &mut text);
                Some(text.into()).filter(|_| !cells.is_null(row))
            }
            Format::Delimited(delimiter) => self.line(row, key, delimiter),
        }
    }

    /// When a row happened, if a column of the sink says so: milliseconds, none for NULL.
    ///
    /// # Errors
    /// Why the column says no time.
    #[must_use = "a row that says no time may have to be left out"]
    pub fn time(&self, row: usize) -> Result<Option<i64>, Reason> {
        let Some(cells) = self.encoder.source.timestamp.and_then(|place| self.columns.get(place)) else { return Ok(None) };
        if cells.is_null(row) {
            return Ok(None);
        }
        match (cells, &self.encoder.pattern) {
            (Cells::Int64(array), _) => Ok(Some(array.value(row))),
            (Cells::Timestamp(array), _) => Ok(Some(array.value(row))),
            (Cells::Utf8(array), Some(pattern)) => {
                pattern.parse_timestamp(array.value(row), &Zone::UTC).map(Some).ok_or("not written as timestamp_format says")
            }
            _ => Err("says no time"),
        }
    }

    /// Whether a row whose time cannot be told is left out.
    #[must_use]
    pub fn needs_time(&self) -> bool {
        self.encoder.source.reading == Reading::Coerced
    }

    /// The columns of a key or value, with their names as JSON has them.
    fn columns(&self, key: bool) -> impl Iterator<Item = (&Column, &String, &Cells<'_>)> {
        let source = &self.encoder.source;
        let all = source.columns.iter().zip(&self.encoder.names).zip(&self.columns).enumerate();
        let written = all.filter(move |(place, ((column, _), _))| source.is_in_key(column) == key && source.header(*place).is_none());
        written.map(|(_, ((column, name), cells))| (column, name, cells))
    }

    fn object(&self, row: usize, key: bool) -> Bytes {
        let mut text = String::with_capacity(64);
        text.push('{');
        for (_, name, cells) in self.columns(key) {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(name);
            cells.json(row, &mut text);
        }
        text.push('}');
        text.into()
    }

    fn line(&self, row: usize, key: bool, delimiter: Delimiter) -> Option<Bytes> {
        let mut text = String::new();
        let mut values = 0;
        let mut any = false;
        for (place, (_, _, cells)) in self.columns(key).enumerate() {
            if place > 0 {
                text.push(delimiter.get());
            }
            if !cells.is_null(row) {
                line::write(&cells.text(row), place == 0, delimiter, &mut text);
                any = true;
            }
            values += 1;
        }
        // An empty line is no line: a single NULL has no other spelling than no bytes at all.
        Some(text.into()).filter(|_| any || values > 1)
    }
}
