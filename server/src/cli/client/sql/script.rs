//! A text of statements, from wherever it comes: its pieces, and errors shown at their place in it.
//!
//! Called by the verb `sql` and by the shell.

use std::{
    io::{self, Read},
    path::Path,
};

use anyhow::anyhow;
use foldlog_query::{
    Piece, Place, QueryError,
    sql::{Dialect, Statement, parse, split},
};
use foldlog_sdk::Error;

use crate::cli::{
    Failed,
    client::failed,
    output::text::{visible, width},
};

/// Longest script.
const MAX_SCRIPT_BYTES: u64 = 4 << 20;

/// Characters that are shown of the line with an error.
const SHOWN_CHARS: usize = 120;

/// A text of statements and what it is called.
pub(in crate::cli) struct Script {
    name: String,
    text: String,
}

impl Script {
    /// What was given on the command line.
    pub(super) fn statement(text: String) -> Self {
        Self { name: "statement".to_owned(), text }
    }

    /// What was typed: places in it need no name before them.
    pub(in crate::cli) fn typed(text: String) -> Self {
        Self { name: String::new(), text }
    }

    /// What stands in a file.
    pub(in crate::cli) fn of_file(path: &Path) -> Result<Self, Failed> {
        Self::read(visible(&path.display().to_string()), open(path).and_then(read_bounded))
    }

    /// What comes from stdin, up to its end.
    pub(super) fn of_stdin() -> Result<Self, Failed> {
        Self::read("stdin".to_owned(), read_bounded(io::stdin().lock()))
    }

    fn read(name: String, bytes: io::Result<Vec<u8>>) -> Result<Self, Failed> {
        let bytes = bytes.map_err(|error| Failed::Usage(anyhow!("failed to read {name}: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| Failed::Usage(anyhow!("{name}: not UTF-8: {}", error.utf8_error())))?;
        Ok(Self { name, text: text.trim_start_matches('\u{feff}').to_owned() })
    }

    /// What stands in it.
    pub(in crate::cli) fn text(&self) -> &str {
        &self.text
    }

    /// What it is called.
    pub(in crate::cli) fn name(&self) -> &str {
        &self.name
    }

    /// Its statements.
    pub(in crate::cli) fn pieces(&self) -> Result<Vec<Piece>, Failed> {
        split(&self.text).map_err(|error| {
            let (place, message) = match &error {
                QueryError::Syntax { place, message } => (*place, message.clone()),
                error => (Place { line: 1, column: 1 }, error.to_string()),
            };
            Failed::Operation(anyhow!("{}", self.at(place, &message)))
        })
    }

    /// The error with its place in the whole text; the exit code stays its own.
    pub(in crate::cli) fn failed_at(&self, piece: &Piece, error: Error) -> Failed {
        if matches!(error, Error::Unreachable { .. }) {
            return failed(error);
        }
        let within = place_within(&error);
        let place = within.map_or(piece.place, |within| absolute(piece.place, within));
        let told = |error: anyhow::Error| {
            let text = error.to_string();
            let message = within.and_then(|within| text.strip_prefix(&prefix(within))).unwrap_or(&text);
            anyhow!("{}", self.at(place, message))
        };
        match failed(error) {
            Failed::Operation(error) => Failed::Operation(told(error)),
            Failed::Usage(error) => Failed::Usage(told(error)),
            Failed::Unreachable(error) => Failed::Unreachable(told(error)),
            Failed::Precondition(error) => Failed::Precondition(told(error)),
            Failed::Storage(error) => Failed::Storage(told(error)),
        }
    }

    /// `name:line:column: message`, then the line with a mark under the place.
    pub(in crate::cli) fn at(&self, place: Place, message: &str) -> String {
        let Place { line, column } = place;
        let head = match self.name.as_str() {
            "" => visible(message),
            name => format!("{name}:{line}:{column}: {}", visible(message)),
        };
        match self.marked(place) {
            Some(marked) => format!("{head}\n{marked}"),
            None => head,
        }
    }

    /// The line of a place, and a mark under the place.
    pub(in crate::cli) fn marked(&self, place: Place) -> Option<String> {
        let Place { line, column } = place;
        let text = self.text.lines().nth((line as usize).checked_sub(1)?)?;
        // Of a long line the part around the place is enough.
        let skipped = (column as usize - 1).saturating_sub(SHOWN_CHARS / 2);
        let text: String = text.chars().skip(skipped).take(SHOWN_CHARS).collect();
        let before: String = text.chars().take(column as usize - 1 - skipped).collect();
        let number = line.to_string();
        Some(format!("{number} | {}\n{} | {}^", visible(&text), " ".repeat(number.len()), blank(&visible(&before))))
    }
}

/// Whether a statement is followed rather than answered. The server decides what it means; here it only matters which call it belongs to.
pub(in crate::cli) fn is_push(piece: &Piece) -> bool {
    // What the dialect and the variables are the server knows; neither makes another kind of statement of it.
    let text = piece.text.replace("${", "v_").replace('}', "");
    matches!(parse(&text, Dialect::default()), Ok(Statement::Push(_) | Statement::Print(_)))
}

#[expect(clippy::disallowed_methods, reason = "a script is the user's file, not the log's")]
fn open(path: &Path) -> io::Result<std::fs::File> {
    std::fs::File::open(path)
}

fn read_bounded(input: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MAX_SCRIPT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SCRIPT_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {MAX_SCRIPT_BYTES} bytes")));
    }
    Ok(bytes)
}

/// As much room as the text takes.
fn blank(text: &str) -> String {
    " ".repeat(width(text))
}

/// The place in its statement that a server names, as `sql:line:column`.
fn place_within(error: &Error) -> Option<Place> {
    let Error::Server(server) = error else { return None };
    let (line, column) = server.field.as_deref()?.strip_prefix("sql:")?.split_once(':')?;
    let (line, column) = (line.parse().ok()?, column.parse().ok()?);
    (line > 0 && column > 0).then_some(Place { line, column })
}

/// How a message begins that names its place itself.
fn prefix(place: Place) -> String {
    format!("line {}, column {}: ", place.line, place.column)
}

fn absolute(statement: Place, within: Place) -> Place {
    let line = statement.line.saturating_add(within.line - 1);
    let column = if within.line == 1 { statement.column.saturating_add(within.column - 1) } else { within.column };
    Place { line, column }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_statement_becomes_one_in_the_script() {
        let statement = Place { line: 3, column: 5 };
        assert_eq!(absolute(statement, Place { line: 1, column: 4 }), Place { line: 3, column: 8 });
        assert_eq!(absolute(statement, Place { line: 2, column: 4 }), Place { line: 4, column: 4 });
    }

    #[test]
    fn an_error_shows_the_line_and_marks_the_place() {
        let script = Script { name: "x.sql".to_owned(), text: "SELECT 1;\nSELEC 2;".to_owned() };
        assert_eq!(script.at(Place { line: 2, column: 1 }, "no"), "x.sql:2:1: no\n2 | SELEC 2;\n  | ^");
        assert_eq!(script.at(Place { line: 9, column: 1 }, "no"), "x.sql:9:1: no");
        let wide = Script { name: "x".to_owned(), text: "'東' \t!".to_owned() };
        assert_eq!(wide.at(Place { line: 1, column: 6 }, "no").lines().last(), Some("  |        ^"));
        let long = Script { name: "x".to_owned(), text: format!("{}!{}", "1+".repeat(500), "+1".repeat(500)) };
        let shown = long.at(Place { line: 1, column: 1001 }, "no");
        assert_eq!(shown.len(), "x:1:1001: no\n1 | \n  | ^".len() + SHOWN_CHARS + SHOWN_CHARS / 2);
        assert!(shown.lines().nth(1).unwrap().chars().nth(4 + SHOWN_CHARS / 2) == Some('!'), "{shown}");
        let typed = Script::typed("SELEC 1".to_owned());
        assert_eq!(typed.at(Place { line: 1, column: 1 }, "no"), "no\n1 | SELEC 1\n  | ^");
    }
}
