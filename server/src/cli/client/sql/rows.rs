//! Answers of SQL as items of the output: a row under its columns, a change with its mark before them.
//!
//! Called by the verb `sql` and by the shell. Pure.

use foldlog_sdk::{Column, Columns, Mark, Row, Value};

use crate::cli::output::{
    Cell, Head, Item, Record,
    text::{date, time, time_of_day},
};

/// The heads of an answer's columns.
pub(in crate::cli) fn heads(columns: &Columns) -> Vec<Head> {
    let head = |column: &Column| Head { name: column.name.clone(), numeric: column.column_type.is_numeric() };
    columns.iter().map(head).collect()
}

/// The same behind that of a change's mark.
pub(in crate::cli) fn heads_of_changes(columns: &Columns) -> Vec<Head> {
    let mut heads = heads(columns);
    heads.insert(0, Head::text("change"));
    heads
}

fn cell(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Boolean(value) => Cell::Boolean(*value),
        Value::Integer(value) => Cell::Number(value.to_string()),
        Value::Double(value) => Cell::double(*value),
        Value::Text(text) => Cell::Text(text.clone()),
        Value::Binary(bytes) => Cell::Bytes(bytes.clone()),
        Value::TimestampMs(ms) => Cell::Text(time(*ms)),
        Value::Date(days) => Cell::Text(date(*days)),
        Value::TimeMs(ms) => Cell::Text(time_of_day(*ms)),
        Value::Decimal(text) => Cell::Number(text.clone()),
        Value::Json(json) | Value::Nested { json, .. } => Cell::Json(json.clone()),
    }
}

/// A row.
pub(in crate::cli) struct PrintedRow<'a>(pub(in crate::cli) &'a Row);

impl Item for PrintedRow<'_> {
    fn cells(&self) -> Vec<Cell> {
        self.0.values().iter().map(cell).collect()
    }

    fn json(&self) -> String {
        Record { heads: &heads(self.0.columns()), cells: self.cells() }.json()
    }
}

/// A changed row: its mark comes first, in JSON under `change` beside the row.
pub(in crate::cli) struct PrintedChange<'a>(pub(in crate::cli) Mark, pub(in crate::cli) &'a Row);

impl Item for PrintedChange<'_> {
    fn cells(&self) -> Vec<Cell> {
        let mut cells = PrintedRow(self.1).cells();
        cells.insert(0, self.0.as_str().into());
        cells
    }

    fn json(&self) -> String {
        format!("{{\"change\":\"{}\",\"row\":{}}}", self.0.as_str(), PrintedRow(self.1).json())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_numbers_and_the_rest_becomes_text() {
        assert_eq!(cell(&Value::Decimal("1.10".into())).json(), "1.10");
        assert_eq!(cell(&Value::Double(f64::NAN)).json(), "\"NaN\"");
        assert_eq!(cell(&Value::Double(f64::INFINITY)).json(), "\"Infinity\"");
        assert_eq!(cell(&Value::Double(f64::NEG_INFINITY)).json(), "\"-Infinity\"");
        assert_eq!(cell(&Value::Date(15_745)).json(), "\"2013-02-09\"");
        assert_eq!(cell(&Value::TimeMs(3_723_004)).json(), "\"01:02:03.004\"");
    }
}
