//! `foldlog log inspect`: what lies in a file of a data folder. Needs no server, and minds none.

use std::{
    io,
    ops::ControlFlow,
    path::{self, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use foldlog_log::{
    LogError,
    disk::ReadOnlyDisk,
    inspect::{Depth, Fact, Part, inspect},
};

use super::{
    Failed,
    output::{
        Cell, Head, Item, OutputArgs,
        text::{json_string, time},
    },
};

/// Look at the files of a data folder
#[derive(Debug, Subcommand)]
pub enum Log {
    /// Show what lies in a file, part by part, and verify every checksum; exit code 1 if one fails
    Inspect {
        /// Any file that foldlog writes; where it lies in its data folder, the files beside it are held against it
        file: PathBuf,
        /// Also show each record, run, entry and posting
        #[arg(long)]
        records: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
}

impl Log {
    pub fn run(self) -> Result<(), Failed> {
        match self {
            Self::Inspect { file, records, output } => {
                let depth = if records { Depth::Records } else { Depth::Parts };
                show(path::absolute(&file).unwrap_or(file), depth, output)
            }
        }
    }
}

fn show(file: PathBuf, depth: Depth, output: OutputArgs) -> Result<(), Failed> {
    let heads = [Head::number("from"), Head::number("end"), Head::text("part"), Head::text("damage"), Head::text("facts")];
    let mut printer = output.stdout().printer(&heads);
    let (mut printed, mut damaged, mut first) = (Ok(()), 0_u64, None);
    let told = inspect(Arc::new(ReadOnlyDisk), &file, depth, &mut |part| {
        printed = printer.print(&Shown(&part));
        if let Some(what) = part.damage {
            damaged += 1;
            first.get_or_insert(LogError::Corrupt { file: file.clone(), from: part.from, end: part.end, what });
        }
        if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    match printed.and_then(|()| printer.finish()) {
        // Whoever reads has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        written => written.context("failed to write the output").map_err(Failed::Operation)?,
    }
    told.map_err(|error| match error {
        LogError::Invalid { .. } => Failed::Usage(anyhow!(error)),
        error => Failed::Operation(anyhow!(error)),
    })?;
    match first {
        None => Ok(()),
        Some(only) if damaged == 1 => Err(Failed::Operation(anyhow!(only))),
        Some(first) => Err(Failed::Operation(anyhow!("{damaged} parts are damaged; the first: {first}"))),
    }
}

/// A part as a row, or as an object with its facts as members.
struct Shown<'a>(&'a Part);

impl Item for Shown<'_> {
    fn cells(&self) -> Vec<Cell> {
        let Part { from, end, name, facts, damage, is_inner } = self.0;
        let facts = facts.iter().map(|(name, fact)| format!("{name} {}", in_words(fact))).collect::<Vec<_>>();
        let name = if *is_inner { format!("  {name}") } else { (*name).to_owned() };
        vec![(*from).into(), (*end).into(), Cell::Text(name), Cell::Text(damage.clone().unwrap_or_default()), Cell::Text(facts.join(", "))]
    }

    fn json(&self) -> String {
        let Part { from, end, name, facts, damage, .. } = self.0;
        let mut line = format!("{{\"part\":{},\"from\":{from},\"end\":{end}", json_string(name));
        for (name, fact) in facts {
            line.push_str(&format!(",{}:{}", json_string(name), in_json(fact)));
        }
        if let Some(damage) = damage {
            line.push_str(&format!(",\"damage\":{}", json_string(damage)));
        }
        line.push('}');
        line
    }
}

fn in_words(fact: &Fact) -> String {
    match fact {
        Fact::Number(number) => number.to_string(),
        Fact::Time(at) => time(at.get()),
        Fact::Text(text) | Fact::Json(text) => text.clone(),
        Fact::List(texts) => texts.join(" "),
        Fact::Bytes(bytes) => String::from_utf8(bytes.to_vec()).unwrap_or_else(|_| bytes.escape_ascii().to_string()),
    }
}

/// Bytes that are text are text; others are an object with `base64`.
fn in_json(fact: &Fact) -> String {
    match fact {
        Fact::Number(number) => number.to_string(),
        Fact::Time(at) => json_string(&time(at.get())),
        Fact::Text(text) => json_string(text),
        Fact::Json(text) => Cell::Json(text.clone()).json(),
        Fact::List(texts) => format!("[{}]", texts.iter().map(|text| json_string(text)).collect::<Vec<_>>().join(",")),
        Fact::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => json_string(text),
            Err(_) => format!("{{\"base64\":{}}}", Cell::Bytes(bytes.clone()).json()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_one_object_and_one_row() {
        let facts = vec![
            ("offset", Fact::Number(7)),
            ("time", Fact::Time(foldlog_log::Timestamp::new(0))),
            ("content", Fact::Json("{\"a\": 1}".into())),
            ("tags", Fact::List(vec!["x".into(), "y\u{1b}".into()])),
            ("key", Fact::Bytes(bytes::Bytes::from_static(b"k"))),
            ("value", Fact::Bytes(bytes::Bytes::from_static(b"\xff"))),
        ];
        let part = Part { from: 1, end: 2, name: "record", facts, damage: Some("gone".into()), is_inner: true };
        let json: serde_json::Value = serde_json::from_str(&Shown(&part).json()).unwrap();
        let expected = serde_json::json!({
            "part": "record", "from": 1, "end": 2, "offset": 7, "time": "1970-01-01T00:00:00.000Z", "content": { "a": 1 },
            "tags": ["x", "y\u{1b}"], "key": "k", "value": { "base64": "/w==" }, "damage": "gone",
        });
        assert_eq!(json, expected);
        let cells = Shown(&part).cells();
        assert_eq!(cells[2..4], [Cell::Text("  record".into()), Cell::Text("gone".into())]);
        let words = "offset 7, time 1970-01-01T00:00:00.000Z, content {\"a\": 1}, tags x y\u{1b}, key k, value \\xff";
        assert_eq!(cells[4], Cell::Text(words.into()));
    }
}
