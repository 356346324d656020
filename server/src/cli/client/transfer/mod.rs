//! `foldlog topic export` and `import`: a topic as a file, and back, over the API like any other client.
//!
//! What is exported comes back to the byte: keys, values, headers, types, tags and times; a null stays a null. JSON lines are those of
//! [`super::event`], CSV and Parquet have the [`columns`]. Invariants: an import appends nothing before the whole file was read without a fault; it is
//! appended in the order of the file, so that the versions of a stream that begins empty are those of the file.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

mod columns;
mod export;
mod import;
mod parquet;
mod rows;

pub use export::Export;
pub use import::Import;

/// What a file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object a line, as `foldlog append` takes them
    Jsonl,
    /// Comma-separated values with a header
    Csv,
    /// Apache Parquet, compressed with zstd
    Parquet,
}

impl Format {
    /// What the name of a file says.
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "csv" => Some(Self::Csv),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// A progress bar of that length; drawn on a terminal, and nowhere else.
fn progress(length: u64, template: &str) -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(length), target).with_style(style)
}
