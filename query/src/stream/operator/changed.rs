//! What a step changed in a table of state, and rows as they are read from it.
//!
//! Made for sinks and listeners by `stream/fold`; the operators with state turn words into these rows.

use std::ops::Range;

use arrow::{buffer::BooleanBuffer, record_batch::RecordBatch};

use crate::stream::state::{RowNumber, Table, Version};

/// Rows that are brought near at once.
const NEAR: usize = 1024;

/// Rows of a table of state: key columns, then results.
#[derive(Debug)]
pub(crate) struct Groups {
    /// The rows.
    pub(crate) rows: RecordBatch,
    /// Row time of each.
    pub(crate) rowtime: Vec<i64>,
}

/// A row that a step changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Changed {
    pub(crate) row: RowNumber,
    pub(crate) existed: bool,
    /// Whether its row time is what it was, so that what is read of it may be, too.
    pub(crate) is_of_same_time: bool,
    /// Of its key and texts, as they are and as they were.
    bytes: usize,
}

impl Changed {
    /// What the step from `from` to `to` changed, in the order in which it first touched the rows; rows that it touched and left
    /// as they were are in it only if `untouched_too`.
    pub(crate) fn between(table: &Table, from: Version, to: Version, untouched_too: bool) -> Vec<Self> {
        let mut changed = Vec::new();
        let touched: Vec<_> = table.touched_after(from).into_iter().flatten().collect();
        for (place, (row, before)) in touched.iter().copied().enumerate() {
            if place.is_multiple_of(NEAR) {
                table.warm_rows(&touched[place..].iter().take(NEAR).map(|(row, _)| *row).collect::<Vec<_>>());
            }
            let after = table.row_at(row, to);
            let differs = match (before, after) {
                (Some(before), Some(after)) => table.differ(before, after),
                (None, None) => false,
                _ => true,
            };
            if differs || untouched_too {
                let texts: usize = before.into_iter().chain(after).map(|words| table.text_bytes(words)).sum();
                let is_of_same_time = before.zip(after).is_some_and(|(before, after)| Table::rowtime(before) == Table::rowtime(after));
                changed.push(Self { row, existed: before.is_some(), is_of_same_time, bytes: table.key(row).len() + texts });
            }
        }
        changed
    }

    /// Rows from a number on, as what is new; those that are not there at the version are among them.
    pub(crate) fn from(table: &Table, rows: Range<RowNumber>, version: Version) -> Vec<Self> {
        let bytes = |row| table.key(row).len() + table.row_at(row, version).map_or(0, |words| table.text_bytes(words));
        rows.map(|row| Self { row, existed: false, is_of_same_time: false, bytes: bytes(row) }).collect()
    }

    /// How many of these rows, from the first on, together have no more than so many bytes of keys and texts; at least one.
    pub(crate) fn within(rows: &[Self], bytes: usize) -> usize {
        within(rows.iter().map(|row| row.bytes), bytes).min(rows.len())
    }
}

/// How many of these sizes, from the first on, are together no more than `most`; at least one.
fn within(sizes: impl Iterator<Item = usize>, most: usize) -> usize {
    let mut sum = 0_usize;
    let fits = |size: &usize| {
        sum = sum.saturating_add(*size);
        sum <= most
    };
    sizes.take_while(fits).count().max(1)
}

/// The first of these rows, as many as have together no more than so many bytes of keys and texts at a version; at least one.
pub(crate) fn rows_within(table: &Table, rows: Range<RowNumber>, version: Version, bytes: usize) -> Range<RowNumber> {
    let texts = |row| table.row_at(row, version).map_or(0, |words| table.text_bytes(words));
    let count = within(rows.clone().map(|row| table.key(row).len() + texts(row)), bytes);
    rows.start..rows.end.min(rows.start.saturating_add(RowNumber::try_from(count).unwrap_or(RowNumber::MAX)))
}

/// Rows that a step changed, before and after.
pub(crate) struct BeforeAfter {
    /// One for each: as it is after the step; of one that is not there then, the key, NULLs, and the row time of what removed it.
    pub(crate) after: Groups,
    /// Which of them are there after the step; none: all.
    pub(crate) there: Option<BooleanBuffer>,
    /// Which of them were there before it.
    pub(crate) existed: Vec<bool>,
    /// Those that were there, as they were, if that was asked for.
    pub(crate) before: Option<Groups>,
}
