//! Data on stdout, in the format that was asked for: a table for people, JSON lines, JSON or CSV for programs.
//!
//! Called by the client verbs. A table on a terminal and JSON lines in a pipe, unless `-o` says otherwise; colour only on a terminal
//! and only without NO_COLOR.

use std::io::{self, IsTerminal as _, Write};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use clap::ValueEnum;

mod csv;
mod expanded;
mod table;
pub mod text;

use expanded::ExpandedWriter;
use table::TableWriter;
use text::{json_string, one_line, visible, visible_bytes, width};

/// How data is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns, for people.
    Table,
    /// One column a line, for people.
    Expanded,
    /// One array of objects.
    Json,
    /// One object a line.
    Jsonl,
    /// Comma-separated values with a header.
    Csv,
}

impl Format {
    /// As the command line names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Expanded => "expanded",
            Self::Json => "json",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
        }
    }
}

/// The options of every verb that writes data.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct OutputArgs {
    /// How data is written [default: table on a terminal, jsonl in a pipe]
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
}

/// Where data goes and what is known about the other side.
#[derive(Debug)]
pub struct Target<W> {
    out: W,
    format: Format,
    terminal: bool,
    colour: bool,
    width: Option<u16>,
}

impl OutputArgs {
    /// Stdout, in the format asked for.
    #[must_use]
    pub fn stdout(self) -> Target<io::Stdout> {
        let out = io::stdout();
        let terminal = out.is_terminal();
        let format = self.output.unwrap_or(if terminal { Format::Table } else { Format::Jsonl });
        let colour = terminal && may_colour();
        let width = if terminal { table::terminal_width() } else { None };
        Target { out, format, terminal, colour, width }
    }
}

/// Whether text may be coloured where it goes to a terminal.
pub fn may_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Columns that a table of these rows has on a terminal if nothing in it is folded.
pub fn natural_width(heads: &[Head], rows: &[Vec<Cell>]) -> usize {
    let of_column = |(place, head): (usize, &Head)| {
        let cells = rows.iter().filter_map(|row| row.get(place)).map(|cell| width(&cell.shown()));
        cells.chain([width(&visible(&head.name))]).max().unwrap_or_default() + usize::from(table::GAP)
    };
    heads.iter().enumerate().map(of_column).sum()
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// No value.
    Null,
    /// True or false.
    Boolean(bool),
    /// A number, as JSON writes it.
    Number(String),
    /// Text.
    Text(String),
    /// JSON.
    Json(String),
    /// Bytes: escaped in tables, base64 elsewhere.
    Bytes(Bytes),
}

impl Cell {
    /// A floating-point number; JSON has none for infinities and NaN, they become the texts that the server writes into topics and reads.
    #[must_use]
    pub fn double(value: f64) -> Self {
        match serde_json::Number::from_f64(value) {
            Some(number) => Self::Number(number.to_string()),
            None if value.is_nan() => Self::Text("NaN".to_owned()),
            None => Self::Text(if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()),
        }
    }

    /// As JSON, on one line.
    #[must_use]
    pub fn json(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Boolean(value) => value.to_string(),
            Self::Number(number) => number.clone(),
            Self::Text(text) => json_string(text),
            Self::Json(json) => one_line(json),
            Self::Bytes(bytes) => json_string(&BASE64_STANDARD.encode(bytes)),
        }
    }

    /// For people: nothing in it is obeyed by a terminal.
    fn shown(&self) -> String {
        match self {
            Self::Null => "NULL".to_owned(),
            Self::Boolean(value) => value.to_string(),
            Self::Number(number) => number.clone(),
            Self::Text(text) => visible(text),
            Self::Json(json) => one_line(json),
            Self::Bytes(bytes) => visible_bytes(bytes),
        }
    }
}

/// A number that is whole.
impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Number(number.to_string())
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// The head of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Name.
    pub name: String,
    /// Whether it holds numbers, which stand to the right.
    pub numeric: bool,
}

impl Head {
    /// A column of text.
    #[must_use]
    pub fn text(name: &str) -> Self {
        Self { name: name.to_owned(), numeric: false }
    }

    /// A column of numbers.
    #[must_use]
    pub fn number(name: &str) -> Self {
        Self { name: name.to_owned(), numeric: true }
    }
}

/// Something that can be written as a row or as an object.
pub trait Item {
    /// One cell for each column.
    fn cells(&self) -> Vec<Cell>;

    /// The object, as JSON on one line.
    fn json(&self) -> String;
}

/// A row of cells under names.
#[derive(Debug)]
pub struct Record<'a> {
    /// The columns.
    pub heads: &'a [Head],
    /// One for each column.
    pub cells: Vec<Cell>,
}

impl Item for Record<'_> {
    fn cells(&self) -> Vec<Cell> {
        self.cells.clone()
    }

    fn json(&self) -> String {
        let member = |(head, cell): (&Head, &Cell)| format!("{}:{}", json_string(&head.name), cell.json());
        format!("{{{}}}", self.heads.iter().zip(&self.cells).map(member).collect::<Vec<_>>().join(","))
    }
}

/// Writes one sequence of items.
#[derive(Debug)]
pub struct Printer<W: Write> {
    out: io::BufWriter<W>,
    written: u64,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    Table(TableWriter),
    Expanded(ExpandedWriter),
    Json,
    Jsonl,
    Csv { heads: Vec<String>, escape: bool },
}

impl<W: Write> Target<W> {
    /// A terminal, as wide as it is; without a width nothing is folded.
    pub const fn terminal(out: W, format: Format, colour: bool, width: Option<u16>) -> Self {
        Self { out, format, terminal: true, colour, width }
    }

    /// Begins a sequence of items with these columns.
    pub fn printer(self, heads: &[Head]) -> Printer<W> {
        let layout = match self.format {
            Format::Table => Layout::Table(TableWriter::new(heads.to_vec(), self.colour, self.width)),
            Format::Expanded => Layout::Expanded(ExpandedWriter::new(heads, self.colour)),
            Format::Json => Layout::Json,
            Format::Jsonl => Layout::Jsonl,
            Format::Csv => Layout::Csv { heads: heads.iter().map(|head| head.name.clone()).collect(), escape: self.terminal },
        };
        Printer { out: io::BufWriter::new(self.out), written: 0, layout }
    }
}

impl<W: Write> Printer<W> {
    /// Writes one item; a table keeps some back until [`Self::flush`].
    ///
    /// # Errors
    /// If the other side is closed or full.
    pub fn print(&mut self, item: &impl Item) -> io::Result<()> {
        let first = self.written == 0;
        self.written += 1;
        match &mut self.layout {
            Layout::Table(table) => table.push(&mut self.out, item.cells().iter().map(Cell::shown).collect()),
            Layout::Expanded(expanded) => expanded.row(&mut self.out, &item.cells().iter().map(Cell::shown).collect::<Vec<_>>()),
            Layout::Jsonl => writeln!(self.out, "{}", item.json()),
            Layout::Json => write!(self.out, "{}\n{}", if first { "[" } else { "," }, item.json()),
            Layout::Csv { heads, escape } => {
                if first {
                    csv::heads(&mut self.out, heads)?;
                }
                csv::row(&mut self.out, &item.cells(), *escape)
            }
        }
    }

    /// Brings everything so far to the other side.
    ///
    /// # Errors
    /// If the other side is closed or full.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Layout::Table(table) = &mut self.layout {
            table.flush(&mut self.out)?;
        }
        self.out.flush()
    }

    /// Ends the sequence; one without items is still well formed.
    ///
    /// # Errors
    /// If the other side is closed or full.
    pub fn finish(mut self) -> io::Result<()> {
        match &mut self.layout {
            Layout::Table(table) => table.finish(&mut self.out)?,
            Layout::Json if self.written == 0 => writeln!(self.out, "[]")?,
            Layout::Json => writeln!(self.out, "\n]")?,
            Layout::Csv { heads, .. } if self.written == 0 => csv::heads(&mut self.out, heads)?,
            Layout::Expanded(_) | Layout::Jsonl | Layout::Csv { .. } => {}
        }
        self.out.flush()
    }
}

/// Writes a note to stderr; that nobody reads it is no error.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", visible(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: Format, terminal: bool, items: Vec<Vec<Cell>>) -> String {
        let mut out = Vec::new();
        let heads = [Head::text("name"), Head::number("n"), Head::text("data")];
        let mut printer = Target { out: &mut out, format, terminal, colour: false, width: terminal.then_some(60) }.printer(&heads);
        for cells in items {
            printer.print(&Record { heads: &heads, cells }).unwrap();
        }
        printer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    fn sample() -> Vec<Vec<Cell>> {
        vec![
            vec!["a,\"b\"".into(), 7.into(), Cell::Json("{ \"x\": 1 }".into())],
            vec!["=1+1".into(), Cell::Null, Cell::Bytes(Bytes::from_static(b"\xff\x1b[2J"))],
        ]
    }

    #[test]
    fn json_lines_are_objects() {
        assert_eq!(
            printed(Format::Jsonl, false, sample()),
            "{\"name\":\"a,\\\"b\\\"\",\"n\":7,\"data\":{\"x\":1}}\n{\"name\":\"=1+1\",\"n\":null,\"data\":\"/xtbMko=\"}\n"
        );
        assert_eq!(printed(Format::Jsonl, false, vec![]), "");
    }

    #[test]
    fn json_is_one_document() {
        for items in [vec![], sample()] {
            let count = items.len();
            let json: serde_json::Value = serde_json::from_str(&printed(Format::Json, false, items)).unwrap();
            assert_eq!(json.as_array().unwrap().len(), count);
        }
    }

    #[test]
    fn csv_is_quoted_and_never_altered() {
        assert_eq!(printed(Format::Csv, false, sample()), "name,n,data\n\"a,\"\"b\"\"\",7,\"{\"\"x\"\":1}\"\n\"=1+1\",,/xtbMko=\n");
        assert_eq!(printed(Format::Csv, false, vec![]), "name,n,data\n");
        let escape = vec![vec!["\x1b[2J".into(), 1.into(), "".into()]];
        assert_eq!(printed(Format::Csv, false, escape.clone()), "name,n,data\n\x1b[2J,1,\"\"\n");
        assert_eq!(printed(Format::Csv, true, escape), "name,n,data\n\\u{1b}[2J,1,\"\"\n");
    }

    #[test]
    fn a_table_shows_nothing_that_a_terminal_obeys() {
        let table = printed(Format::Table, true, sample());
        assert!(!table.contains('\x1b') && table.contains("\\xff\\u{1b}[2J"), "{table}");
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].starts_with("name ") && lines[1].starts_with("─") && lines.len() == 4, "{table}");
    }

    #[test]
    fn expanded_rows_stand_below_each_other() {
        let shown = printed(Format::Expanded, true, sample());
        let expected = "── row 1 ──\nname  a,\"b\"\nn     7\ndata  {\"x\":1}\n── row 2 ──\nname  =1+1\nn     NULL\ndata  \\xff\\u{1b}[2J\n";
        assert_eq!(shown, expected);
        assert_eq!(printed(Format::Expanded, true, vec![]), "");
    }

    #[test]
    fn the_width_of_a_table_is_known_before_it_is_laid_out() {
        let heads = [Head::text("名前"), Head::number("n")];
        assert_eq!(natural_width(&heads, &[]), 4 + 2 + 1 + 2);
        assert_eq!(natural_width(&heads, &[vec!["abcde".into(), 12.into()], vec!["\n".into(), Cell::Null]]), 5 + 2 + 4 + 2);
    }

    #[test]
    fn a_table_that_grows_keeps_its_columns() {
        let mut out = Vec::new();
        let heads = [Head::text("name"), Head::number("n")];
        let mut printer = Target { out: &mut out, format: Format::Table, terminal: false, colour: false, width: None }.printer(&heads);
        for (name, n) in [("a long name", 1), ("b", 20), ("c", 3)] {
            printer.print(&Record { heads: &heads, cells: vec![name.into(), n.into()] }).unwrap();
            printer.flush().unwrap();
        }
        printer.finish().unwrap();
        let expected = ["name          n", "─────────────────", "a long name   1", "b             20", "c             3", ""];
        assert_eq!(String::from_utf8(out).unwrap(), expected.join("\n"));
    }
}
