//! The key or the value of a record: where the wanted columns stand in its bytes.

use std::borrow::Cow;

use super::{
    column::Cell,
    json::{self, Fields, Value},
    line,
};
use crate::catalog::{Column, Delimiter, Format};

/// The bytes of one side of a record that were looked at.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    /// There are none, or `null` where an object was due.
    Null,
    /// Bytes as they are.
    Bytes(&'a [u8]),
    /// Text in which columns were found.
    Text(&'a str),
    /// A JSON value.
    Json(Value<'a>),
}

impl Content<'_> {
    pub(super) const fn is_null(self) -> bool {
        matches!(self, Self::Null)
    }
}

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
    #[inline]
    pub(super) fn read<'a>(&mut self, bytes: Option<&'a [u8]>) -> Result<Content<'a>, Cow<'static, str>> {
        let Some(bytes) = bytes else { return Ok(Content::Null) };
        match &mut self.reader {
            Reader::Nothing | Reader::Bytes => Ok(Content::Bytes(bytes)),
            Reader::Object(fields) => match fields.scan(bytes) {
                Ok(text) => Ok(text.map_or(Content::Null, Content::Text)),
                Err(fault) => Err(format!("not a JSON object: {fault}").into()),
            },
            Reader::Value => json::whole(bytes).map(Content::Json).map_err(|fault| format!("not a JSON value: {fault}").into()),
            Reader::Line { delimiter, columns, cells } => {
                let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8")?;
                line::split(text, *delimiter, cells)?;
                if cells.len() != *columns {
                    return Err(format!("{} values in the line, {columns} columns are declared", cells.len()).into());
                }
                Ok(Content::Text(text))
            }
        }
    }

    /// A column of the record looked at last, which had this content.
    #[inline]
    pub(super) fn cell<'a>(&self, number: usize, content: Content<'a>) -> Cell<'a> {
        match (&self.reader, content) {
            (Reader::Object(fields), Content::Text(text)) => fields.found(number, text).map_or(Cell::Absent, Cell::Json),
            (Reader::Line { cells, .. }, Content::Text(text)) => cells.get(number).map_or(Cell::Absent, |cell| Cell::Text(cell.text(text))),
            (Reader::Bytes, Content::Bytes(bytes)) => Cell::Bytes(bytes),
            (Reader::Value, Content::Json(value)) => Cell::Json(value),
            (Reader::Nothing | Reader::Bytes | Reader::Object(_) | Reader::Value | Reader::Line { .. }, _) => Cell::Absent,
        }
    }
}
