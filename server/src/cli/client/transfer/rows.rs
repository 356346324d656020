//! The rows of a file that is imported, one at a time, each as a JSON line with the number of the line that it begins on, or of the row.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    path::Path,
};

use ::parquet::record::reader::RowIter;
use csv::StringRecord;

use super::{Format, columns, parquet};

/// Longest JSON line: an event may be 1 MiB, and its payload base64 or escaped.
const MAX_LINE_BYTES: u64 = 8 << 20;

/// What is wrong, and on which line.
pub type Fault = (u64, String);

/// A file, row by row.
pub enum Rows {
    /// JSON lines: the input, the number of the last line, bytes so far.
    Lines(BufReader<File>, u64, u64),
    /// CSV: the input, its header.
    Csv(Box<csv::Reader<File>>, StringRecord),
    /// Parquet: the input, rows so far.
    Parquet(Box<RowIter<'static>>, u64),
}

#[expect(clippy::disallowed_methods, reason = "what is imported is the user's file, not the log's")]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

impl Rows {
    /// Opens a file; how many bytes it has, or rows if it is Parquet.
    ///
    /// # Errors
    /// On line 0: it cannot be opened. On another: the header is wrong.
    pub fn open(path: &Path, format: Format) -> Result<(Self, u64), Fault> {
        let failed = |error: io::Error| (0, error.to_string());
        let file = open(path).map_err(failed)?;
        let mut length = file.metadata().map_err(failed)?.len();
        let rows = match format {
            Format::Jsonl => Self::Lines(BufReader::new(file), 0, 0),
            Format::Csv => {
                let mut reader = csv::Reader::from_reader(file);
                let heads = reader.headers().map_err(|error| fault(&error))?.clone();
                let twice = heads.iter().enumerate().find(|(place, name)| heads.iter().take(*place).any(|before| before == *name));
                if let Some((_, name)) = twice {
                    return Err((1, format!("column {name:?} stands there twice")));
                }
                Self::Csv(Box::new(reader), heads)
            }
            Format::Parquet => {
                let (rows, count) = parquet::rows(file).map_err(|what| (0, what))?;
                length = count;
                Self::Parquet(Box::new(rows), 0)
            }
        };
        Ok((rows, length))
    }

    /// How far it has come, of what [`Rows::open`] says.
    pub fn place(&self) -> u64 {
        match self {
            Self::Lines(_, _, bytes) => *bytes,
            Self::Csv(reader, _) => reader.position().byte(),
            Self::Parquet(_, rows) => *rows,
        }
    }

    /// The next row; none at the end.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn next(&mut self) -> Result<Option<(u64, String)>, Fault> {
        match self {
            Self::Lines(input, number, bytes) => loop {
                *number += 1;
                let line = next_line(input, bytes, *number == 1).map_err(|what| (*number, what))?;
                let Some(line) = line else { return Ok(None) };
                if !line.trim_ascii().is_empty() {
                    return Ok(Some((*number, line)));
                }
            },
            Self::Csv(reader, heads) => {
                let mut row = StringRecord::new();
                if !reader.read_record(&mut row).map_err(|error| fault(&error))? {
                    return Ok(None);
                }
                let number = row.position().map_or(0, csv::Position::line);
                columns::line(heads.iter().zip(row.iter())).map(|line| Some((number, line))).map_err(|what| (number, what))
            }
            Self::Parquet(rows, number) => {
                let Some(row) = rows.next() else { return Ok(None) };
                *number += 1;
                let line = row.map_err(|error| error.to_string()).and_then(|row| parquet::line(&row));
                line.map(|line| Some((*number, line))).map_err(|what| (*number, what))
            }
        }
    }
}

fn next_line(input: &mut BufReader<File>, bytes: &mut u64, is_first: bool) -> Result<Option<String>, String> {
    let mut line = Vec::new();
    let read = input.take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line).map_err(|error| format!("cannot be read: {error}"))?;
    *bytes += read as u64;
    match line.strip_suffix(b"\n") {
        None if read as u64 > MAX_LINE_BYTES => return Err(format!("longer than {MAX_LINE_BYTES} bytes")),
        None if read == 0 => return Ok(None),
        without => line.truncate(without.map_or(line.len(), <[u8]>::len)),
    }
    // A byte order mark may open a file.
    let line = if is_first { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
    match std::str::from_utf8(line) {
        Ok(line) => Ok(Some(line.trim_end_matches('\r').to_owned())),
        Err(error) => Err(format!("not UTF-8 from column {} on", error.valid_up_to() + 1)),
    }
}

fn fault(error: &csv::Error) -> Fault {
    let number = error.position().map_or(0, csv::Position::line);
    let what = match error.kind() {
        csv::ErrorKind::Utf8 { err, .. } => format!("not UTF-8 in column {} from byte {} on", err.field() + 1, err.valid_up_to()),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => format!("{len} columns, and the header has {expected_len}"),
        _ => error.to_string(),
    };
    (number, what)
}
