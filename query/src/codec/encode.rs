//! Rows to the bytes of records: what a sink and `INSERT` write, and what `Decoder` reads back the same.
//!
//! Invariant: a key or value has every column that is declared there, in that order; a number is written so that reading it
//! gives the same number.

use std::{ops::Range, sync::Arc};

use arrow::{array::ArrayRef, record_batch::RecordBatch};
use bytes::Bytes;

use super::{
    cells::{Cells, quoted},
    line,
    value::Reason,
};
use crate::{
    catalog::{Delimiter, Format, Reading, Source},
    error::QueryError,
    functions::calendar::{Pattern, Zone},
};

/// Encodes rows of one source.
#[derive(Clone, Debug)]
pub struct Encoder {
    source: Arc<Source>,
    key: Side,
    value: Side,
    /// How the column with the time is written, if it is text.
    pattern: Option<Arc<Pattern>>,
}

/// The key or the value.
#[derive(Clone, Debug)]
struct Side {
    format: Format,
    /// Place and `"name":`, escaped, of each of its columns.
    columns: Vec<(usize, String)>,
}

impl Side {
    fn new(source: &Source, format: Format, key: bool) -> Self {
        let all = source.columns.iter().enumerate();
        let written = all.filter(|(place, column)| source.is_in_key(column) == key && source.header(*place).is_none());
        let format = if key && source.key_count() == 0 { Format::None } else { format };
        Self { format, columns: written.map(|(place, column)| (place, format!("{}:", quoted(&column.name)))).collect() }
    }
}

impl Encoder {
    /// An encoder for rows of `source`.
    #[must_use]
    pub fn new(source: Arc<Source>) -> Self {
        let (key, value) = (Side::new(&source, source.key_format, true), Side::new(&source, source.value_format, false));
        // What does not compile was refused when the sink was made.
        let pattern = source.timestamp_format.as_deref().and_then(|pattern| Pattern::compile(pattern).ok()).map(Arc::new);
        Self { source, key, value, pattern }
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
    Ok(Cells::new(column)?.json_text(row))
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
        let mut bytes = Vec::new();
        self.write_key(row, &mut bytes).map(|_| bytes.into())
    }

    /// Whether every column of a row's key is NULL.
    #[must_use]
    pub fn key_is_null(&self, row: usize) -> bool {
        self.cells(&self.encoder.key).all(|(_, cells)| cells.is_null(row))
    }

    /// Value of a row's record; none if the value is one column without a name, and NULL.
    #[must_use]
    pub fn value(&self, row: usize) -> Option<Bytes> {
        let mut bytes = Vec::new();
        self.write_value(row, &mut bytes).map(|_| bytes.into())
    }

    /// As [`EncodedRows::key`], appended to what others have written; tells where it stands.
    pub fn write_key(&self, row: usize, bytes: &mut Vec<u8>) -> Option<Range<usize>> {
        self.write(&self.encoder.key, row, bytes)
    }

    /// As [`EncodedRows::value`], appended to what others have written; tells where it stands.
    pub fn write_value(&self, row: usize, bytes: &mut Vec<u8>) -> Option<Range<usize>> {
        self.write(&self.encoder.value, row, bytes)
    }

    fn write(&self, side: &Side, row: usize, bytes: &mut Vec<u8>) -> Option<Range<usize>> {
        let from = bytes.len();
        match side.format {
            Format::None => return None,
            Format::Kafka => self.single(side, row)?.bytes(row, bytes),
            Format::Json => self.object(side, row, bytes),
            Format::JsonValue => self.single(side, row)?.json(row, bytes),
            Format::Delimited(delimiter) => bytes.extend_from_slice(self.line(side, row, delimiter)?.as_bytes()),
        }
        Some(from..bytes.len())
    }

    /// When a row happened, if a column of the sink says so: milliseconds, none for NULL.
    ///
    /// # Errors
    /// Why the column says no time.
    #[must_use = "a row that says no time may have to be left out"]
    pub fn time(&self, row: usize) -> Result<Option<i64>, Reason> {
        let Some(cells) = self.encoder.source.timestamp.and_then(|place| self.columns.get(place)) else { return Ok(None) };
        if cells.is_null(row) {
            return if self.needs_time() { Err("NULL") } else { Ok(None) };
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
    fn cells<'s>(&'s self, side: &'s Side) -> impl Iterator<Item = (&'s String, &'s Cells<'s>)> {
        side.columns.iter().filter_map(|(place, name)| Some((name, self.columns.get(*place)?)))
    }

    /// The only column of a key or value, unless it is NULL.
    fn single<'s>(&'s self, side: &'s Side, row: usize) -> Option<&'s Cells<'s>> {
        let (_, cells) = self.cells(side).next()?;
        (!cells.is_null(row)).then_some(cells)
    }

    fn object(&self, side: &Side, row: usize, json: &mut Vec<u8>) {
        json.push(b'{');
        for (place, (name, cells)) in self.cells(side).enumerate() {
            if place > 0 {
                json.push(b',');
            }
            json.extend_from_slice(name.as_bytes());
            cells.json(row, json);
        }
        json.push(b'}');
    }

    fn line(&self, side: &Side, row: usize, delimiter: Delimiter) -> Option<String> {
        let mut text = String::new();
        let mut values = 0;
        let mut any = false;
        for (place, (_, cells)) in self.cells(side).enumerate() {
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
        Some(text).filter(|_| any || values > 1)
    }
}
