//! `foldlog sql`: one statement or a script, stopping at the first error with its place.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::anyhow;
use foldlog_query::{
    Place, QueryError,
    sql::{Dialect, Piece, Statement, parse, split},
};
use foldlog_sdk::{Client, Column, Columns, Error, Mark, Row, SqlSession, Token, Value};

use super::{Connection, Stop, failed, parse_token, show_token};
use crate::cli::{
    Failed,
    output::{
        Cell, Head, Item, OutputArgs, Record, note,
        text::{date, time, time_of_day, visible},
    },
};

/// Longest script.
const MAX_SCRIPT_BYTES: u64 = 4 << 20;

/// Execute SQL: a statement, a script from a file, or stdin. Stops at the first error and says where it is
#[derive(Debug, clap::Args)]
pub struct Sql {
    /// Statements, separated by semicolons; without it and -f they are read from stdin
    #[arg(conflicts_with = "file")]
    statement: Option<String>,
    /// Read the statements from this file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Token of an earlier command: reflect at least what it did
    #[arg(long, value_name = "TOKEN", value_parser = parse_token)]
    at_least: Option<Token>,
    /// Longest time for waiting and computing a statement that ends, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Tell on stderr the token of each answer, for --at-least
    #[arg(long)]
    show_token: bool,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: OutputArgs,
}

impl Sql {
    pub async fn run(self) -> Result<(), Stop> {
        let script = self.script()?;
        let pieces = split(&script.text).map_err(|error| script.unreadable(&error))?;
        if pieces.is_empty() {
            return Err(Failed::Usage(anyhow!("{}: there is no statement", script.name)).into());
        }
        let client = self.connection.open().await?;
        let mut session = SqlSession::new();
        for (number, piece) in pieces.iter().enumerate() {
            let outcome = match is_push(piece) {
                true => self.push(&client, &session, piece).await,
                false => self.execute(&client, &mut session, piece).await,
            };
            match outcome {
                Ok(()) => {}
                Err(Trouble::Stop(stop)) => return Err(stop),
                Err(Trouble::Statement(error)) => {
                    if number > 0 {
                        note(&format!("statements that took effect before: {number}; those after were not executed"));
                    }
                    return Err(script.failed_at(piece, error).into());
                }
            }
        }
        Ok(())
    }

    fn script(&self) -> Result<Script, Stop> {
        if let Some(statement) = &self.statement {
            return Ok(Script { name: "statement".to_owned(), text: statement.clone() });
        }
        let (name, bytes) = match &self.file {
            Some(path) => {
                let name = visible(&path.display().to_string());
                (name, open(path).and_then(read_bounded))
            }
            // Nothing else is under way yet that could wait for it.
            None => ("stdin".to_owned(), read_bounded(io::stdin().lock())),
        };
        let bytes = bytes.map_err(|error| Failed::Usage(anyhow!("failed to read {name}: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| Failed::Usage(anyhow!("{name}: not UTF-8: {}", error.utf8_error())))?;
        Ok(Script { name, text: text.trim_start_matches('\u{feff}').to_owned() })
    }

    async fn execute(&self, client: &Client, session: &mut SqlSession, piece: &Piece) -> Result<(), Trouble> {
        let mut query = client.query(piece.text.as_str()).session(session).timeout(Duration::from_secs(self.timeout));
        if let Some(token) = &self.at_least {
            query = query.at_least(token.clone());
        }
        let mut answer = query.run().await?;
        let columns = answer.columns().clone();
        if !columns.is_empty() {
            let mut printer = self.output.stdout().printer(&heads(&columns));
            loop {
                match answer.next().await {
                    Ok(Some(row)) => printer.print(&PrintedRow(&row))?,
                    Ok(None) => break,
                    Err(error) => {
                        printer.finish()?;
                        return Err(error.into());
                    }
                }
            }
            printer.finish()?;
        }
        while answer.next().await?.is_some() {}
        if let Some(done) = answer.done() {
            session.apply(done);
            if !done.message.is_empty() {
                note(&done.message);
            }
            if self.show_token {
                note(&format!("token {}", show_token(&done.token)));
            }
        }
        Ok(())
    }

    /// Until the query ends, or Ctrl-C.
    async fn push(&self, client: &Client, session: &SqlSession, piece: &Piece) -> Result<(), Trouble> {
        let mut push = client.push(piece.text.as_str()).session(session);
        if let Some(token) = &self.at_least {
            push = push.at_least(token.clone());
        }
        let mut pushed = push.start().await?;
        let mut heads = heads(pushed.columns());
        heads.insert(0, Head::text("change"));
        let mut printer = self.output.stdout().printer(&heads);
        // One listener all the way: an interrupt that comes while rows are printed is not lost.
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            // Both arms are cancel-safe.
            let changes = tokio::select! {
                biased;
                interrupted = &mut interrupt => {
                    interrupted.map_err(|error| Stop::from(Failed::Operation(anyhow!(error))))?;
                    break;
                }
                changes = pushed.next() => changes,
            };
            match changes {
                Ok(Some(changes)) => {
                    for (mark, row) in &changes.rows {
                        printer.print(&PrintedChange(*mark, row))?;
                    }
                    printer.flush()?;
                }
                Ok(None) => break,
                Err(error) => {
                    printer.finish()?;
                    return Err(error.into());
                }
            }
        }
        Ok(printer.finish()?)
    }
}

/// The server decides what a statement means; here it only matters which call it belongs to.
fn is_push(piece: &Piece) -> bool {
    // What the dialect and the variables are the server knows; neither makes another kind of statement of it.
    let text = piece.text.replace("${", "v_").replace('}', "");
    matches!(parse(&text, Dialect::default()), Ok(Statement::Push(_)))
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

/// Why a statement did not succeed: by its own fault, or because nothing more can be done.
enum Trouble {
    Statement(Error),
    Stop(Stop),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Statement(error)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Stop(error.into())
    }
}

impl From<Stop> for Trouble {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// A text of statements and what it is called.
struct Script {
    name: String,
    text: String,
}

impl Script {
    fn unreadable(&self, error: &QueryError) -> Failed {
        let (place, message) = match error {
            QueryError::Syntax { place, message } => (*place, message.clone()),
            error => (Place { line: 1, column: 1 }, error.to_string()),
        };
        Failed::Operation(anyhow!("{}", self.at(place, &message)))
    }

    /// The error with its place in the whole text; the exit code stays its own.
    fn failed_at(&self, piece: &Piece, error: Error) -> Failed {
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
    fn at(&self, place: Place, message: &str) -> String {
        let Place { line, column } = place;
        let head = format!("{}:{line}:{column}: {}", self.name, visible(message));
        let Some(text) = self.text.lines().nth(line as usize - 1) else { return head };
        // Of a long line the part around the place is enough.
        let skipped = (column as usize - 1).saturating_sub(SHOWN_CHARS / 2);
        let text: String = text.chars().skip(skipped).take(SHOWN_CHARS).collect();
        let before: String = text.chars().take(column as usize - 1 - skipped).collect();
        let number = line.to_string();
        format!("{head}\n{number} | {}\n{} | {}^", visible(&text), " ".repeat(number.len()), blank(&visible(&before)))
    }
}

/// Characters that are shown of the line with an error.
const SHOWN_CHARS: usize = 120;

/// As much room as the text takes; what is wide in it takes two places.
fn blank(text: &str) -> String {
    " ".repeat(text.chars().map(|c| if c >= '\u{1100}' { 2 } else { 1 }).sum())
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

fn heads(columns: &Columns) -> Vec<Head> {
    let head = |column: &Column| Head { name: column.name.clone(), numeric: column.column_type.is_numeric() };
    columns.iter().map(head).collect()
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
        Value::Json(json) => Cell::Json(json.clone()),
    }
}

struct PrintedRow<'a>(&'a Row);

impl Item for PrintedRow<'_> {
    fn cells(&self) -> Vec<Cell> {
        self.0.values().iter().map(cell).collect()
    }

    fn json(&self) -> String {
        Record { heads: &heads(self.0.columns()), cells: self.cells() }.json()
    }
}

/// A changed row: its mark comes first, in JSON under `change` beside the row.
struct PrintedChange<'a>(Mark, &'a Row);

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
    }

    #[test]
    fn numbers_stay_numbers_and_the_rest_becomes_text() {
        assert_eq!(cell(&Value::Decimal("1.10".into())).json(), "1.10");
        assert_eq!(cell(&Value::Double(f64::NAN)).json(), "\"NaN\"");
        assert_eq!(cell(&Value::Date(15_745)).json(), "\"2013-02-09\"");
        assert_eq!(cell(&Value::TimeMs(3_723_004)).json(), "\"01:02:03.004\"");
    }
}
