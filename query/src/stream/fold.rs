//! The state of a query as a table of results: what its task folds and what readers of its view see.
//!
//! Keys and accumulators lie in the table; HAVING and the projection behind GROUP BY run when rows are read, for the sink and
//! for readers alike.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, TimestampMillisecondArray},
    buffer::BooleanBuffer,
    compute::{filter_record_batch, interleave_record_batch},
    datatypes::{Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use hashbrown::DefaultHashBuilder;
use parking_lot::RwLock;

use crate::{
    answer::ChangeOp,
    catalog::timestamp_type,
    error::QueryError,
    stream::{
        change::ChangeBatch,
        operator::{
            aggregate::{Aggregation, Changed, Groups},
            chain::{Chain, Faults, execution},
        },
        state::{RowNumber, Table, Version},
    },
};

/// Name of the column that says when a row of a view last changed.
pub(crate) const ROWTIME: &str = "rowtime";

/// Bytes of keys and texts that are read for one batch of a scan, but for a single row.
const SCAN_BYTES: usize = 4 << 20;

/// A table of results.
#[derive(Debug)]
pub(crate) struct Fold {
    aggregation: Aggregation,
    /// HAVING, and what the SELECT computes from the results.
    after: Chain,
    has_filter: bool,
    table: RwLock<Table>,
    hasher: DefaultHashBuilder,
    /// Results, then row time.
    schema: SchemaRef,
    /// Whether the row time is a column of its own, rather than one of the results.
    adds_rowtime: bool,
    /// Number of key columns of the results.
    keys: usize,
    /// Undo beyond this many bytes costs the oldest reader its version.
    undo_budget: usize,
}

impl Fold {
    pub(crate) fn new(aggregation: Aggregation, after: Chain, output: &SchemaRef, keys: usize, undo_budget: usize) -> Self {
        let adds_rowtime = output.column_with_name(ROWTIME).is_none();
        let mut fields: Vec<Arc<Field>> = output.fields().iter().cloned().collect();
        if adds_rowtime {
            fields.push(Arc::new(Field::new(ROWTIME, timestamp_type(), true)));
        }
        let table = aggregation.table();
        Self {
            hasher: table.hasher(),
            table: RwLock::new(table),
            has_filter: after.has_filter(),
            aggregation,
            after,
            schema: Arc::new(Schema::new(fields)),
            adds_rowtime,
            keys,
            undo_budget,
        }
    }

    /// Results, then row time.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Number of key columns; they come first.
    pub(crate) fn keys(&self) -> usize {
        self.keys
    }

    /// Memory of the table with its undo; over `budget` readers are given up before anything else, the oldest first.
    pub(crate) fn bytes_within(&self, budget: usize) -> usize {
        let (bytes, undo) = {
            let table = self.table.read();
            (table.bytes(), table.undo_bytes())
        };
        if bytes <= budget {
            return bytes;
        }
        let mut table = self.table.write();
        table.give_up_beyond(undo.saturating_sub(bytes - budget));
        // What is left of undo belongs to steps that are not durable yet, and is gone when they are.
        table.bytes() - table.undo_bytes()
    }

    /// Opens the next step; gives the versions before and after it.
    pub(crate) fn begin(&self) -> (Version, Version) {
        let mut table = self.table.write();
        let from = table.version();
        table.begin();
        (from, table.version())
    }

    /// Takes the newest step back.
    pub(crate) fn roll_back(&self) {
        self.table.write().roll_back();
    }

    /// Folds a batch into the open step; readers wait no longer than for that.
    ///
    /// # Errors
    /// [`QueryError::Execution`] where columns do not fit the plan, which is a fault of ours.
    pub(crate) fn fold(&self, input: ChangeBatch) -> Result<(), QueryError> {
        self.aggregation.fold(&self.table, input, &self.hasher)
    }

    /// Makes a version the one that readers see.
    pub(crate) fn commit(&self, version: Version) {
        let mut table = self.table.write();
        table.commit(version);
        table.give_up_beyond(self.undo_budget);
    }

    /// Pins the version that readers see.
    pub(crate) fn pin(&self) -> Version {
        self.table.write().pin()
    }

    pub(crate) fn unpin(&self, version: Version) {
        self.table.write().unpin(version);
    }

    /// The groups that a step changed, in the order in which it first touched them.
    pub(crate) fn changed(&self, from: Version, to: Version) -> Vec<Changed> {
        Aggregation::changed(&self.table.read(), from, to)
    }

    /// What the sink of a table writes for groups that a step changed: each row as it is now, with `+I`, `+U`, or `-D` where it
    /// left the table (then all but the key means nothing), and its row time. What fails on the way from the state to the row is
    /// told of `position`, the newest record of the step: a result has none of its own.
    ///
    /// # Errors
    /// As [`Fold::fold`]; [`QueryError::ResourceExhausted`] for more than a batch may hold.
    pub(crate) fn outputs(
        &self,
        changed: &[Changed],
        (from, to): (Version, Version),
        position: u64,
        faults: &mut Faults,
    ) -> Result<ChangeBatch, QueryError> {
        let parts = self.aggregation.before_after(&self.table.read(), changed, (from, to), self.has_filter)?;
        let mut errors = Vec::new();
        let (rows, is) = self.after.run_all_telling(parts.after.rows, &mut errors)?;
        faults.extend(errors.into_iter().map(|error| (position, error.reason)));
        let was = self.were(parts.before, &parts.existed)?;
        let ops: Vec<Option<ChangeOp>> = (0..rows.num_rows())
            .map(|row| match (was.get(row).copied().unwrap_or(false), is.as_ref().is_none_or(|is| is.value(row))) {
                (false, true) => Some(ChangeOp::Insert),
                (true, true) => Some(ChangeOp::UpdateAfter),
                (true, false) => Some(ChangeOp::Delete),
                (false, false) => None,
            })
            .collect();
        let told = |row: &usize| ops.get(*row).is_some_and(Option::is_some);
        let places: Vec<usize> = (0..rows.num_rows()).filter(told).collect();
        let rowtime = places.iter().filter_map(|row| parts.after.rowtime.get(*row).copied()).collect();
        let rows = if places.len() == rows.num_rows() { rows } else { take(&rows, &places)? };
        let positions = vec![position; rows.num_rows()];
        Ok(ChangeBatch { rows, ops: Some(ops.into_iter().flatten().collect()), rowtime, positions, value_null: None })
    }

    /// Which of the groups were rows of the table before.
    fn were(&self, before: Option<Groups>, existed: &[bool]) -> Result<Vec<bool>, QueryError> {
        let Some(before) = before else { return Ok(existed.to_vec()) };
        let (_, kept) = self.after.run_all(before.rows)?;
        let mut place = 0;
        let was = existed.iter().map(|existed| {
            let was = *existed && kept.as_ref().is_none_or(|kept| kept.value(place));
            place += usize::from(*existed);
            was
        });
        Ok(was.collect())
    }

    /// What listeners hear of a step: `+I`, `-U` directly followed by its `+U`, `-D`, in the columns of the view.
    ///
    /// # Errors
    /// As [`Fold::outputs`].
    pub(crate) fn changes(&self, from: Version, to: Version) -> Result<(RecordBatch, Vec<ChangeOp>), QueryError> {
        let parts = {
            let table = self.table.read();
            self.aggregation.before_after(&table, &Aggregation::changed(&table, from, to), (from, to), true)?
        };
        let (after, is) = self.finish(parts.after)?;
        let (before, were) = match parts.before {
            Some(before) => self.finish(before)?,
            None => (after.slice(0, 0), None),
        };
        let mut places = Vec::with_capacity(after.num_rows() * 2);
        let mut ops = Vec::with_capacity(after.num_rows() * 2);
        let mut old = 0;
        for (new, existed) in parts.existed.iter().enumerate() {
            let was = *existed && were.as_ref().is_none_or(|were| were.value(old));
            let is = is.as_ref().is_none_or(|is| is.value(new));
            match (was, is) {
                (false, true) => {
                    places.push((1, new));
                    ops.push(ChangeOp::Insert);
                }
                (true, true) => {
                    places.extend([(0, old), (1, new)]);
                    ops.extend([ChangeOp::UpdateBefore, ChangeOp::UpdateAfter]);
                }
                (true, false) => {
                    places.push((0, old));
                    ops.push(ChangeOp::Delete);
                }
                (false, false) => {}
            }
            old += usize::from(*existed);
        }
        if places.is_empty() {
            return Ok((RecordBatch::new_empty(Arc::clone(&self.schema)), ops));
        }
        Ok((interleave_record_batch(&[&before, &after], &places).map_err(execution)?, ops))
    }

    /// The columns of the view from groups, and which of them are rows of it.
    fn finish(&self, groups: Groups) -> Result<(RecordBatch, Option<BooleanBuffer>), QueryError> {
        let (rows, kept) = self.after.run_all(groups.rows)?;
        let mut columns = rows.columns().to_vec();
        if self.adds_rowtime {
            let rowtime = TimestampMillisecondArray::from_iter_values(groups.rowtime).with_data_type(timestamp_type());
            columns.push(Arc::new(rowtime));
        }
        Ok((RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(execution)?, kept))
    }

    /// The row under a key at a pinned version; `position` names it in errors.
    ///
    /// # Errors
    /// [`QueryError::SnapshotTooOld`]; [`QueryError::Invalid`] if the key does not fit.
    pub(crate) fn get(
        &self,
        key: &[ArrayRef],
        version: Version,
        position: foldlog_log::Position,
    ) -> Result<Option<RecordBatch>, QueryError> {
        let Some(key) = self.aggregation.key(key)? else { return Ok(None) };
        let groups = {
            let table = self.table.read();
            if !table.readable(version) {
                return Err(QueryError::SnapshotTooOld { at: position });
            }
            self.aggregation.read(&table, table.find(&key).into_iter(), version)?
        };
        self.row(groups)
    }

    /// The group under a key at the version that readers see now; none if there is none.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] if the key does not fit.
    pub(crate) fn find(&self, key: &[ArrayRef]) -> Result<Option<Groups>, QueryError> {
        let Some(key) = self.aggregation.key(key)? else { return Ok(None) };
        let table = self.table.read();
        let Some(row) = table.find(&key) else { return Ok(None) };
        Ok(Some(self.aggregation.read(&table, std::iter::once(row), table.committed())?))
    }

    /// The row that a group of [`Fold::find`] is, unless HAVING leaves it out.
    ///
    /// # Errors
    /// As [`Fold::fold`].
    pub(crate) fn row(&self, group: Groups) -> Result<Option<RecordBatch>, QueryError> {
        Ok(Some(self.kept(group)?).filter(|rows| rows.num_rows() > 0))
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
        position: foldlog_log::Position,
    ) -> Result<Option<(RecordBatch, RowNumber)>, QueryError> {
        loop {
            let (groups, rows) = {
                let table = self.table.read();
                if !table.readable(version) {
                    return Err(QueryError::SnapshotTooOld { at: position });
                }
                let end = table.rows_at(version).min(from as usize + most);
                if from as usize >= end {
                    return Ok(None);
                }
                let rows = from..RowNumber::try_from(end).map_err(execution)?;
                let rows = Aggregation::rows_within(&table, rows, version, SCAN_BYTES);
                (self.aggregation.read(&table, rows.clone(), version)?, rows)
            };
            match self.kept(groups) {
                // HAVING and the projection make too much of so many rows, never of one.
                Err(QueryError::ResourceExhausted(_)) if rows.len() > 1 => most = rows.len() / 2,
                kept => return Ok(Some((kept?, rows.end))),
            }
        }
    }

    fn kept(&self, groups: Groups) -> Result<RecordBatch, QueryError> {
        let (rows, kept) = self.finish(groups)?;
        match kept {
            Some(kept) => filter_record_batch(&rows, &arrow::array::BooleanArray::new(kept, None)).map_err(execution),
            None => Ok(rows),
        }
    }

    /// Types of the key columns.
    pub(crate) fn key_types(&self) -> &[arrow::datatypes::DataType] {
        self.aggregation.key_types()
    }
}

fn take(rows: &RecordBatch, places: &[usize]) -> Result<RecordBatch, QueryError> {
    let places: Vec<(usize, usize)> = places.iter().map(|row| (0, *row)).collect();
    interleave_record_batch(&[rows], &places).map_err(execution)
}
