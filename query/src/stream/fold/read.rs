//! What readers see of a table of results: the row of a key, and all rows, part by part.
//!
//! Every answer belongs to one version, which is pinned or the committed one; what was given up is told.

use std::ops::Range;

use arrow::{
    array::{Array as _, ArrayRef, BooleanArray},
    compute::filter_record_batch,
    record_batch::RecordBatch,
};
use foldlog_log::Position;

use super::{Fold, SCAN_BYTES};
use crate::{
    error::QueryError,
    stream::{
        operator::{
            chain::execution,
            changed::{Groups, rows_within},
        },
        state::{RowNumber, Table, Version},
        view::SCAN_ROWS,
    },
};

impl Fold {
    /// The bytes of one key; none if a value is NULL, which no key of results has.
    fn key(&self, values: &[ArrayRef]) -> Result<Option<Vec<u8>>, QueryError> {
        let keys = self.content.keys();
        if values.len() != keys.types().len() {
            return Err(QueryError::Invalid(format!("the key has {} columns, {} values were given", keys.types().len(), values.len())));
        }
        if values.iter().any(|value| value.null_count() > 0) {
            return Ok(None);
        }
        Ok(Some(keys.encode_keys(values)?.get(0).to_vec()))
    }

    /// The row under a key at a pinned version; `position` names it in errors.
    ///
    /// # Errors
    /// [`QueryError::SnapshotTooOld`]; [`QueryError::Invalid`] if the key does not fit.
    pub(crate) fn get(&self, key: &[ArrayRef], version: Version, position: Position) -> Result<Option<RecordBatch>, QueryError> {
        let Some(key) = self.key(key)? else { return Ok(None) };
        let groups = {
            let table = self.table.read();
            if !table.readable(version) {
                return Err(QueryError::SnapshotTooOld { at: position });
            }
            self.content.read_at(&table, table.find(&key).into_iter(), version)?
        };
        self.row(groups)
    }

    /// The row under a key at the version that readers see now; none if there is none.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] if the key does not fit.
    pub(crate) fn find(&self, key: &[ArrayRef]) -> Result<Option<Groups>, QueryError> {
        let Some(key) = self.key(key)? else { return Ok(None) };
        let table = self.table.read();
        let Some(row) = table.find(&key) else { return Ok(None) };
        Ok(Some(self.content.read_at(&table, std::iter::once(row), table.committed())?))
    }

    /// The row that a group of [`Fold::find`] is, unless HAVING leaves it out.
    ///
    /// # Errors
    /// As [`Fold::fold`].
    pub(crate) fn row(&self, group: Groups) -> Result<Option<RecordBatch>, QueryError> {
        Ok(Some(self.those_kept(group)?).filter(|rows| rows.num_rows() > 0))
    }

    /// Rows at a pinned version, from row number `from` on, as many as may be read at once but at most `most`, and the number of
    /// the row that follows; none at the end.
    ///
    /// # Errors
    /// [`QueryError::SnapshotTooOld`].
    pub(crate) fn scan(
        &self,
        from: RowNumber,
        mut most: usize,
        version: Version,
        position: Position,
    ) -> Result<Option<(RecordBatch, RowNumber)>, QueryError> {
        if let Some((rows, end)) = self.part_at_hand(from, version).filter(|(_, end)| (*end - from) as usize <= most) {
            return Ok(Some((rows, end)));
        }
        loop {
            let (groups, rows, is_part) = {
                let table = self.table.read();
                if !table.readable(version) {
                    return Err(QueryError::SnapshotTooOld { at: position });
                }
                let Some(wanted) = rows_from(&table, from, most, version) else { return Ok(None) };
                let rows = rows_within(&table, wanted, version, SCAN_BYTES);
                let is_part = part_from(&table, from, version).as_ref() == Some(&rows) && table.touched_within(&rows) <= version;
                (self.content.read_at(&table, rows.clone(), version)?, rows, is_part)
            };
            match self.those_kept(groups) {
                // HAVING and the projection make too much of so many rows, never of one.
                Err(QueryError::ResourceExhausted(_)) if rows.len() > 1 => most = rows.len() / 2,
                kept => {
                    let (kept, end) = (kept?, rows.end);
                    if let Some(scanned) = self.scanned.as_ref().filter(|_| is_part) {
                        scanned.keep(rows, version, &kept);
                    }
                    return Ok(Some((kept, end)));
                }
            }
        }
    }

    /// The part of [`SCAN_ROWS`] rows that begins at `from`, as [`Fold::scan`] gives it, if an earlier scan has left it and nothing touched
    /// it since.
    pub(crate) fn part_at_hand(&self, from: RowNumber, version: Version) -> Option<(RecordBatch, RowNumber)> {
        let scanned = self.scanned.as_ref()?;
        let table = self.table.read();
        let rows = part_from(&table, from, version).filter(|_| table.readable(version))?;
        let touched = Some(table.touched_within(&rows)).filter(|touched| *touched <= version)?;
        // The table is held meanwhile: what a later step touches, and another scan leaves, is not this version's.
        let found = scanned.find(&rows, touched)?;
        drop(table);
        Some((found, rows.end))
    }

    fn those_kept(&self, groups: Groups) -> Result<RecordBatch, QueryError> {
        let (rows, kept) = self.finish(groups)?;
        match kept {
            Some(kept) => filter_record_batch(&rows, &BooleanArray::new(kept, None)).map_err(execution),
            None => Ok(rows),
        }
    }
}

/// The rows from a number on at a version, `most` of them; none at the end.
fn rows_from(table: &Table, from: RowNumber, most: usize, version: Version) -> Option<Range<RowNumber>> {
    let end = table.rows_at(version).min(from as usize + most);
    let end = RowNumber::try_from(end).ok()?;
    (from < end).then_some(from..end)
}

/// The part of a view that begins at a row; none if no part begins there.
fn part_from(table: &Table, from: RowNumber, version: Version) -> Option<Range<RowNumber>> {
    rows_from(table, from, SCAN_ROWS, version).filter(|rows| (rows.start as usize).is_multiple_of(SCAN_ROWS))
}
