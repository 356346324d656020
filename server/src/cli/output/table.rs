//! Aligned columns for people. Rows are laid out in chunks, so that a table may have no end: the first chunk fixes the columns'
//! widths, later ones keep to them where they can.

use std::io::{self, Write};

use comfy_table::{
    Attribute, Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, TableComponent, Width, presets::NOTHING,
};

use super::{Head, text::visible};

/// Rows that are laid out together unless a flush comes first.
const CHUNK_ROWS: usize = 500;

/// Spaces between columns.
pub const GAP: u16 = 2;

/// Columns of the terminal behind stdout.
pub fn terminal_width() -> Option<u16> {
    Table::new().width()
}

/// Lays out one table.
#[derive(Debug)]
pub struct TableWriter {
    heads: Vec<Head>,
    colour: bool,
    width: Option<u16>,
    rows: Vec<Vec<String>>,
    /// Of the columns, known when the first chunk was written.
    widths: Option<Vec<u16>>,
}

impl TableWriter {
    /// A table with these columns. On a terminal they are fitted into `width`.
    pub const fn new(heads: Vec<Head>, colour: bool, width: Option<u16>) -> Self {
        Self { heads, colour, width, rows: Vec::new(), widths: None }
    }

    /// Adds a row.
    pub fn push(&mut self, out: &mut impl Write, cells: Vec<String>) -> io::Result<()> {
        self.rows.push(cells);
        if self.rows.len() >= CHUNK_ROWS { self.flush(out) } else { Ok(()) }
    }

    /// Writes what was added.
    pub fn flush(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.rows.is_empty() { Ok(()) } else { self.write_chunk(out) }
    }

    /// Writes what was added; without any row, the header at least.
    pub fn finish(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.rows.is_empty() && self.widths.is_some() { Ok(()) } else { self.write_chunk(out) }
    }

    fn write_chunk(&mut self, out: &mut impl Write) -> io::Result<()> {
        let mut table = self.empty_table();
        if self.widths.is_none() {
            table.set_header(self.heads.iter().map(|head| self.header_cell(head)));
        }
        for cells in self.rows.drain(..) {
            table.add_row(Row::from(cells));
        }
        let widths = table.column_max_content_widths();
        match &self.widths {
            // What did not fit at first is fitted anew each time.
            Some(known) if self.width.is_none_or(|width| full_width(known) <= u32::from(width)) => {
                // A boundary counts the padding, a content width does not.
                let constraints = known.iter().map(|width| ColumnConstraint::LowerBoundary(Width::Fixed(*width + GAP)));
                table.set_constraints(constraints);
            }
            Some(_) => {}
            None => self.widths = Some(widths),
        }
        for (column, head) in table.column_iter_mut().zip(&self.heads) {
            column.set_padding((0, GAP));
            if head.numeric {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for line in table.lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn empty_table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(NOTHING);
        table.set_style(TableComponent::HeaderLines, '─').set_style(TableComponent::MiddleHeaderIntersections, '─');
        if let Some(width) = self.width {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table
    }

    fn header_cell(&self, head: &Head) -> Cell {
        let cell = Cell::new(visible(&head.name));
        if self.colour { cell.add_attribute(Attribute::Bold) } else { cell }
    }
}

/// Of all columns with their padding.
fn full_width(columns: &[u16]) -> u32 {
    columns.iter().map(|column| u32::from(*column) + u32::from(GAP)).sum()
}
