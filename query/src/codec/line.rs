//! Lines of values between delimiters, as spreadsheets write them: RFC 4180 with a delimiter of one's choice.
//!
//! Reading and writing agree with Apache Commons CSV's default format, which ksqlDB's DELIMITED is: empty lines are passed over, only the
//! first line with something in it counts, and what is written stands in quotes where a reader would else misunderstand it.

use std::{borrow::Cow, ops::Range};

use crate::catalog::Delimiter;

/// Why a text is not a line of values.
pub(super) type Reason = &'static str;

/// One value of a line, by where it stands in its text.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    range: Range<usize>,
    /// Whether quotes in it stand doubled.
    doubled: bool,
}

impl Cell {
    /// The value in the text that was split.
    pub(super) fn text<'a>(&self, line: &'a str) -> Cow<'a, str> {
        let text = line.get(self.range.clone()).unwrap_or_default();
        if self.doubled { text.replace("\"\"", "\"").into() } else { text.into() }
    }
}

/// Splits the first line that is not empty into its values.
pub(super) fn split(text: &str, delimiter: Delimiter, cells: &mut Vec<Cell>) -> Result<(), Reason> {
    cells.clear();
    let start = text.len() - text.trim_start_matches(['\n', '\r']).len();
    let mut at = start;
    if text.get(at..).is_none_or(str::is_empty) {
        return Err("the line is empty");
    }
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let (cell, end) = if rest.starts_with('"') { quoted(text, at)? } else { plain(text, at, delimiter) };
        cells.push(cell);
        let mut after = text.get(end..).unwrap_or_default().chars();
        match after.next() {
            None | Some('\n' | '\r') => return Ok(()),
            Some(next) if next == delimiter.get() => at = end + next.len_utf8(),
            Some(_) => return Err("something stands between a quoted value and the delimiter"),
        }
    }
}

fn plain(text: &str, at: usize, delimiter: Delimiter) -> (Cell, usize) {
    let rest = text.get(at..).unwrap_or_default();
    let end = at + rest.find(|next| next == delimiter.get() || next == '\n' || next == '\r').unwrap_or(rest.len());
    (Cell { range: at..end, doubled: false }, end)
}

/// A value in quotes, and where it ends behind them.
fn quoted(text: &str, at: usize) -> Result<(Cell, usize), Reason> {
    let from = at + 1;
    let mut end = from;
    let mut doubled = false;
    loop {
        let rest = text.get(end..).unwrap_or_default();
        end += rest.find('"').ok_or("a quoted value does not end")?;
        if !text.get(end + 1..).is_some_and(|rest| rest.starts_with('"')) {
            return Ok((Cell { range: from..end, doubled }, end + 1));
        }
        doubled = true;
        end += 2;
    }
}

/// Appends a value, in quotes where it needs them. `first`: nothing stands before it in its line.
pub(super) fn write(value: &str, first: bool, delimiter: Delimiter, line: &mut String) {
    if needs_quotes(value, first, delimiter) {
        line.push('"');
        line.push_str(&value.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(value);
    }
}

fn needs_quotes(value: &str, first: bool, delimiter: Delimiter) -> bool {
    let (Some(start), Some(end)) = (value.chars().next(), value.chars().next_back()) else {
        // Else a line of one empty value would be an empty line.
        return first;
    };
    start <= '#' || (first && !start.is_ascii_alphanumeric()) || end <= ' ' || value.contains(['\n', '\r', '"', delimiter.get()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(text: &str, delimiter: char) -> Result<Vec<String>, Reason> {
        let mut cells = Vec::new();
        split(text, Delimiter::new(delimiter).unwrap(), &mut cells)?;
        Ok(cells.iter().map(|cell| cell.text(text).into_owned()).collect())
    }

    #[test]
    fn a_line_is_split_at_its_delimiters_outside_of_quotes() {
        let is = |text, expected: &[&str]| assert_eq!(values(text, ',').unwrap(), expected, "{text:?}");
        is("a,b", &["a", "b"]);
        is("a,,", &["a", "", ""]);
        is("\"a,\"\"b\"\"\",c", &["a,\"b\"", "c"]);
        is("\"two\nlines\",x\r\nnext,line", &["two\nlines", "x"]);
        is("\n\r\n a , b ", &[" a ", " b "]);
        is("a\"b,c", &["a\"b", "c"]);
        is("\"\"", &[""]);
        assert_eq!(values("", ','), Err("the line is empty"));
        assert_eq!(values("\"a", ','), Err("a quoted value does not end"));
        assert_eq!(values("\"a\"b,c", ','), Err("something stands between a quoted value and the delimiter"));
        assert_eq!(values("ä€b", '€').unwrap(), ["ä", "b"]);
    }

    #[test]
    fn only_what_needs_quotes_gets_them() {
        let written = |value: &str, first| {
            let mut line = String::new();
            write(value, first, Delimiter::COMMA, &mut line);
            line
        };
        for (value, first, later) in [
            ("a b", "a b", "a b"),
            ("-5", "\"-5\"", "-5"),
            ("", "\"\"", ""),
            ("a,b", "\"a,b\"", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\"", "\"say \"\"x\"\"\""),
            (" a", "\" a\"", "\" a\""),
            ("a ", "\"a \"", "\"a \""),
            ("#1", "\"#1\"", "\"#1\""),
            ("ä", "\"ä\"", "ä"),
            ("(1)", "\"(1)\"", "(1)"),
        ] {
            assert_eq!((written(value, true).as_str(), written(value, false).as_str()), (first, later), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn splitting_undoes_writing(given in prop::collection::vec(".{0,8}|[\",\n\r #]{0,6}", 1..6), delimiter in prop::sample::select(vec![',', '\t', ' ', '|', 'é'])) {
            let mut line = String::new();
            for (place, value) in given.iter().enumerate() {
                if place > 0 {
                    line.push(delimiter);
                }
                write(value, place == 0, Delimiter::new(delimiter).unwrap(), &mut line);
            }
            prop_assert_eq!(values(&line, delimiter), Ok(given), "{:?}", line);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}|[\",\n\r a]{0,20}") {
            let _ = values(&text, ',');
        }
    }
}
