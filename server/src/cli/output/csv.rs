//! Comma-separated values as RFC 4180 has them. A value is quoted where it must be, and where a spreadsheet might take it for a
//! formula; it is never altered, except that a terminal is not sent control characters.

use std::io::{self, Write};

use super::{
    Cell,
    text::{is_unsafe, visible},
};

/// Writes the header.
pub fn heads(out: &mut impl Write, names: &[String]) -> io::Result<()> {
    fields(out, names.iter().map(|name| quoted(name)))
}

/// Writes one row: nothing for NULL, `""` for an empty text. With `escape` control characters are shown, not sent.
pub fn row(out: &mut impl Write, cells: &[Cell], escape: bool) -> io::Result<()> {
    let field = |cell: &Cell| match cell {
        Cell::Null => String::new(),
        Cell::Number(number) => number.clone(),
        Cell::Text(text) if escape && text.contains(is_unsafe) => quoted(&visible(text)),
        Cell::Text(text) => quoted(text),
        Cell::Boolean(value) => value.to_string(),
        Cell::Json(_) => quoted(&cell.json()),
        Cell::Bytes(_) => cell.json().trim_matches('"').to_owned(),
    };
    fields(out, cells.iter().map(field))
}

fn fields(out: &mut impl Write, fields: impl Iterator<Item = String>) -> io::Result<()> {
    for (place, field) in fields.enumerate() {
        write!(out, "{}{field}", if place == 0 { "" } else { "," })?;
    }
    writeln!(out)
}

fn quoted(text: &str) -> String {
    let looks_like_formula = text.starts_with(['=', '+', '-', '@']);
    let has_edges = text.starts_with(' ') || text.ends_with(' ');
    if text.is_empty() || looks_like_formula || has_edges || text.contains([',', '"', '\n', '\r', '\t']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}
