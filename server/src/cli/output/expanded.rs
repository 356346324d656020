//! One column a line, for rows that are wider than the screen.

use std::io::{self, Write};

use super::{
    Head,
    text::{visible, width},
};

/// Lays out rows one below the other.
#[derive(Debug)]
pub struct ExpandedWriter {
    names: Vec<String>,
    /// Of the widest name.
    width: usize,
    colour: bool,
    written: u64,
}

impl ExpandedWriter {
    /// Rows with these columns.
    pub fn new(heads: &[Head], colour: bool) -> Self {
        let names: Vec<String> = heads.iter().map(|head| visible(&head.name)).collect();
        let width = names.iter().map(|name| width(name)).max().unwrap_or_default();
        Self { names, width, colour, written: 0 }
    }

    /// Writes a row.
    pub fn row(&mut self, out: &mut impl Write, cells: &[String]) -> io::Result<()> {
        self.written += 1;
        writeln!(out, "{}", self.marked(&format!("── row {} ──", self.written)))?;
        for (name, cell) in self.names.iter().zip(cells) {
            let gap = " ".repeat(self.width - width(name) + 2);
            writeln!(out, "{}{gap}{cell}", self.marked(name))?;
        }
        Ok(())
    }

    fn marked(&self, text: &str) -> String {
        if self.colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }
}
