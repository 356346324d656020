//! The key or the value of a record: where the wanted columns stand in its bytes.

use std::borrow::Cow;

use super::{
    column::Cell,
    json::{self, Fields, Payload},
    line,
};
use crate::catalog::{Column, Delimiter, Format};

/// Reads one side of the records of a source.
pub(super) struct Side {
    reader: Reader,
}

enum Reader {
    /// Nothing is read.
    Nothing,
    /// The bytes as they are.
    Bytes,
    /// A JSON object.
    Object(Fields),
    /// A JSON value.
    Value,
    /// A line of values.
    Line {
        delimiter: Delimiter,
        /// Number of values that a line must have.
        columns: usize,
        cells: Vec<line::Cell>,
    },
}

/// Finds what the wanted columns of one side are called while its [`Side`] is not made yet.
pub(super) struct Wanted<'a> {
    format: Format,
    /// All columns that are declared on this side, in the order in which a line has them.
    columns: Vec<&'a Column>,
    names: Vec<String>,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(format: Format, columns: impl Iterator<Item = &'a Column>) -> Self {
        Self { format, columns: columns.collect(), names: Vec::new() }
    }

    /// Whether columns are declared on this side.
    pub(super) fn is_declared(&self) -> bool {
        !self.columns.is_empty()
    }

    /// By which number [`Side::cell`] knows a column.
    pub(super) fn enter(&mut self, name: &str) -> usize {
        match self.format {
            Format::Json => self.names.iter().position(|known| known == name).unwrap_or_else(|| {
                self.names.push(name.to_owned());
                self.names.len() - 1
            }),
            Format::Delimited(_) => self.columns.iter().position(|column| column.name == name).unwrap_or(usize::MAX),
            Format::None | Format::Kafka | Format::JsonValue => 0,
        }
    }

    pub(super) fn into_side(self) -> Side {
        // Whether a payload is what it should be matters even to a reader that wants none of it, if somebody declared what is in it.
        let declared = self.is_declared();
        let reader = match self.format {
            _ if !declared => Reader::Nothing,
            Format::None => Reader::Nothing,
            Format::Kafka => Reader::Bytes,
            Format::Json => Reader::Object(Fields::new(self.names)),
            Format::JsonValue => Reader::Value,
            Format::Delimited(delimiter) => Reader::Line { delimiter, columns: self.columns.len(), cells: Vec::new() },
        };
        Side { reader }
    }
}

impl Side {
    /// Looks at the bytes of one record.
    ///
    /// # Errors
    /// Why they are not what they should be.
    pub(super) fn read(&mut self, bytes: Option<&[u8]>) -> Result<Payload, Cow<'static, str>> {
        let Some(bytes) = bytes else {
            self.clear();
            return Ok(Payload::Null);
        };
        match &mut self.reader {
            Reader::Nothing | Reader::Bytes => Ok(Payload::There),
            Reader::Object(fields) => fields.scan(bytes).map_err(|fault| format!("not a JSON object: {fault}").into()),
            Reader::Value => json::whole(bytes).map(|_| Payload::There).map_err(|fault| format!("not a JSON value: {fault}").into()),
            Reader::Line { delimiter, columns, cells } => {
                let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8")?;
                line::split(text, *delimiter, cells)?;
                if cells.len() != *columns {
                    return Err(format!("{} values in the line, {columns} columns are declared", cells.len()).into());
                }
                Ok(Payload::There)
            }
        }
    }

    /// Forgets what was found.
    fn clear(&mut self) {
        match &mut self.reader {
            Reader::Object(fields) => fields.clear(),
            Reader::Line { cells, .. } => cells.clear(),
            Reader::Nothing | Reader::Bytes | Reader::Value => {}
        }
    }

    /// A column of the record looked at last.
    #[inline]
    pub(super) fn cell<'a>(&self, number: usize, bytes: Option<&'a [u8]>) -> Cell<'a> {
        match &self.reader {
            Reader::Object(fields) => fields.found(number, bytes).map_or(Cell::Absent, Cell::Json),
            Reader::Nothing => Cell::Absent,
            Reader::Bytes => bytes.map_or(Cell::Absent, Cell::Bytes),
            Reader::Value => bytes.and_then(|bytes| json::whole(bytes).ok()).map_or(Cell::Absent, Cell::Json),
            Reader::Line { cells, .. } => {
                let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
                let cell = text.and_then(|text| Some(cells.get(number)?.text(text)));
                cell.map_or(Cell::Absent, Cell::Text)
            }
        }
    }
}
