//! Holds what goes from operator to operator against the rules of a changelog.
//!
//! Run by tasks in debug builds, and so under every test; release builds never make one. It keeps a copy of the view to know
//! the current rows. A violation is a fault of ours: it ends the query with the rule that was broken.

use std::collections::HashMap;

use arrow::{
    array::ArrayRef,
    record_batch::RecordBatch,
    row::{OwnedRow, RowConverter, SortField},
};
use foldlog_log::Position;

use crate::{
    answer::ChangeOp,
    error::QueryError,
    stream::{change::ChangeBatch, fold::Fold, operator::chain::execution, view::SCAN_ROWS},
};

/// What one task has sent from operator to operator so far.
#[derive(Default)]
pub(crate) struct Checker {
    /// Last position seen behind the source and behind the operators without state.
    last: [Option<u64>; 2],
    /// The view: key to row.
    rows: HashMap<Option<OwnedRow>, OwnedRow>,
}

/// A place between operators where rows have no past.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// Behind the source.
    Source = 0,
    /// Behind the operators without state.
    Chain = 1,
}

impl Checker {
    /// What knows the rows of a view already.
    ///
    /// # Errors
    /// As [`Checker::changed`].
    pub(crate) fn of(fold: &Fold) -> Result<Self, QueryError> {
        let (mut checker, version, mut from) = (Self::default(), fold.pin(), 0);
        while let Some((rows, next)) = fold.scan(from, SCAN_ROWS, version, Position::default())? {
            checker.changed(fold.keys(), &rows, &vec![ChangeOp::Insert; rows.num_rows()])?;
            from = next;
        }
        fold.unpin(version);
        Ok(checker)
    }

    /// Rows without a past: no marks, a row time and a position each, positions rising.
    ///
    /// # Errors
    /// [`QueryError::Execution`] with the rule that is broken.
    pub(crate) fn appended(&mut self, place: Place, batch: &ChangeBatch) -> Result<(), QueryError> {
        let rows = batch.rows.num_rows();
        rule(batch.ops.is_none(), || format!("rows without a past have marks ({place:?})"))?;
        rule(batch.rowtime.len() == rows, || format!("{rows} rows have {} row times", batch.rowtime.len()))?;
        rule(batch.positions.len() == rows, || format!("{rows} rows have {} positions", batch.positions.len()))?;
        let nulls = batch.value_null.as_ref().map_or(rows, arrow::buffer::BooleanBuffer::len);
        rule(nulls == rows, || format!("{rows} rows have {nulls} marks of a null value"))?;
        let last = &mut self.last[place as usize];
        for position in &batch.positions {
            // Behind the operators several rows may come of one record.
            let follows = |last: u64| last < *position || (matches!(place, Place::Chain) && last == *position);
            rule(last.is_none_or(follows), || format!("position {position} comes after {last:?} ({place:?})"))?;
            *last = Some(*position);
        }
        Ok(())
    }

    /// A changelog whose first `keys` columns are the key: `+I` for an absent key, `-U` and `-D` name the exact current row,
    /// `-U` is directly followed by the `+U` of its key.
    ///
    /// # Errors
    /// As [`Checker::appended`].
    pub(crate) fn changed(&mut self, keys: usize, rows: &RecordBatch, ops: &[ChangeOp]) -> Result<(), QueryError> {
        rule(rows.num_rows() == ops.len(), || format!("{} rows have {} marks", rows.num_rows(), ops.len()))?;
        let (keys, whole) = (encoded(rows, 0..keys)?, encoded(rows, 0..rows.num_columns())?);
        let mut updated: Option<Option<OwnedRow>> = None;
        for (place, ((key, row), op)) in keys.into_iter().zip(whole).zip(ops).enumerate() {
            let broken = |what: &str| Err(fault(&format!("the key of {op:?} in row {place} {what}")));
            let Some(row) = row else { return broken("has no columns") };
            let after_its_before = updated.take().map(|before| before == key);
            match (op, after_its_before, self.rows.get(&key)) {
                (ChangeOp::UpdateAfter, Some(true), None) | (ChangeOp::Insert, None, None) => drop(self.rows.insert(key, row)),
                (ChangeOp::UpdateBefore, None, Some(current)) if *current == row => {
                    self.rows.remove(&key);
                    updated = Some(key);
                }
                (ChangeOp::Delete, None, Some(current)) if *current == row => drop(self.rows.remove(&key)),
                (_, Some(_), _) => return broken("follows the -U of another"),
                (ChangeOp::UpdateAfter, None, _) => return broken("follows no -U"),
                (ChangeOp::Insert, ..) => return broken("is there already"),
                (_, _, None) => return broken("is not there"),
                (_, _, Some(_)) => return broken("does not name the current row"),
            }
        }
        rule(updated.is_none(), || "a -U ends its batch".to_owned())
    }

    /// What a sink gets is the same changelog without `-U`; one that is told all also gets updates and removals that change
    /// nothing.
    ///
    /// # Errors
    /// As [`Checker::appended`].
    pub(crate) fn told(keys: usize, rows: &RecordBatch, ops: &[ChangeOp], sink: &[ChangeBatch], tells_all: bool) -> Result<(), QueryError> {
        let expected = encoded(rows, 0..keys)?.into_iter().zip(ops.iter().copied()).filter(|(_, op)| *op != ChangeOp::UpdateBefore);
        let mut given = Vec::new();
        for part in sink {
            rule(part.rows.num_rows() == part.rowtime.len(), || "a changed row has no row time".to_owned())?;
            given.extend(encoded(&part.rows, 0..keys)?.into_iter().zip(part.ops.iter().flatten().copied()));
        }
        let other = || "the sink is told other changes than listeners".to_owned();
        if !tells_all {
            return rule(expected.eq(given), other);
        }
        let mut expected = expected.peekable();
        for told in given {
            let changes_nothing = matches!(told.1, ChangeOp::UpdateAfter | ChangeOp::Delete);
            let is_next = expected.next_if_eq(&told).is_some();
            rule(is_next || changes_nothing, other)?;
        }
        rule(expected.peek().is_none(), other)
    }
}

fn rule(holds: bool, broken: impl FnOnce() -> String) -> Result<(), QueryError> {
    if holds { Ok(()) } else { Err(fault(&broken())) }
}

fn fault(what: &str) -> QueryError {
    execution(format!("a rule of changes is broken: {what}"))
}

/// Rows of some of the columns, such that equal values are equal; none each if there is no column.
fn encoded(rows: &RecordBatch, columns: std::ops::Range<usize>) -> Result<Vec<Option<OwnedRow>>, QueryError> {
    let columns: Vec<ArrayRef> = rows.columns().get(columns).unwrap_or_default().to_vec();
    if columns.is_empty() {
        return Ok(vec![None; rows.num_rows()]);
    }
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let encoded = RowConverter::new(fields).and_then(|converter| converter.convert_columns(&columns)).map_err(execution)?;
    Ok(encoded.iter().map(|row| Some(row.owned())).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ChangeOp::{Delete, Insert, UpdateAfter, UpdateBefore};
    use arrow::{array::Int64Array, buffer::BooleanBuffer};

    use super::*;

    fn rows(rows: &[(i64, i64)]) -> RecordBatch {
        let column = |of: fn(&(i64, i64)) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) as ArrayRef;
        RecordBatch::try_from_iter([("key", column(|row| row.0)), ("n", column(|row| row.1))]).unwrap()
    }

    fn batch(positions: &[u64]) -> ChangeBatch {
        let length = positions.len();
        let rows = rows(&vec![(1, 1); length]);
        ChangeBatch { rows, ops: None, rowtime: vec![0; length], positions: positions.to_vec(), value_null: None }
    }

    /// What is said to the last of these changes; the others are right.
    fn objection(changes: &[(ChangeOp, i64, i64)]) -> String {
        let mut checker = Checker::default();
        let all: Vec<(i64, i64)> = changes.iter().map(|(_, key, n)| (*key, *n)).collect();
        let ops: Vec<ChangeOp> = changes.iter().map(|(op, ..)| *op).collect();
        let right = changes.len() - 1;
        if changes[right].0 != UpdateAfter || changes[right - 1].0 != UpdateBefore {
            Checker::default().changed(1, &rows(&all[..right]), &ops[..right]).unwrap();
        }
        checker.changed(1, &rows(&all), &ops).unwrap_err().to_string()
    }

    #[test]
    fn a_right_changelog_passes_over_many_batches() {
        let mut checker = Checker::default();
        checker.changed(1, &rows(&[(1, 1), (2, 1)]), &[Insert, Insert]).unwrap();
        checker.changed(1, &rows(&[(1, 1), (1, 2), (2, 1)]), &[UpdateBefore, UpdateAfter, Delete]).unwrap();
        checker.changed(1, &rows(&[(2, 5), (1, 2)]), &[Insert, Delete]).unwrap();
        for position in [3, 4, 9] {
            checker.appended(Place::Source, &batch(&[position * 10, position * 10 + 1])).unwrap();
        }
    }

    #[test]
    fn each_violation_of_a_changelog_is_objected_to() {
        assert!(objection(&[(Insert, 1, 1), (Insert, 1, 2)]).contains("is there already"));
        assert!(objection(&[(Insert, 1, 1), (Delete, 2, 1)]).contains("is not there"));
        assert!(objection(&[(Insert, 1, 1), (Delete, 1, 2)]).contains("does not name the current row"));
        assert!(objection(&[(Insert, 1, 1), (UpdateAfter, 1, 2)]).contains("follows no -U"));
        assert!(objection(&[(Insert, 1, 1), (UpdateBefore, 1, 2)]).contains("does not name the current row"));
        assert!(objection(&[(Insert, 1, 1), (UpdateBefore, 2, 1)]).contains("is not there"));
        assert!(objection(&[(Insert, 1, 1), (UpdateBefore, 1, 1)]).contains("ends its batch"));
        assert!(objection(&[(Insert, 1, 1), (UpdateBefore, 1, 1), (UpdateAfter, 2, 2)]).contains("follows the -U of another"));
        let mut checker = Checker::default();
        assert!(checker.changed(1, &rows(&[(1, 1)]), &[]).is_err());
    }

    #[test]
    fn each_violation_of_rows_without_a_past_is_objected_to() {
        let objects = |batches: &[ChangeBatch]| {
            let mut checker = Checker::default();
            batches.iter().map(|batch| checker.appended(Place::Source, batch)).any(|said| said.is_err())
        };
        Checker::default().appended(Place::Chain, &batch(&[1, 2, 2])).unwrap();
        Checker::default().appended(Place::Chain, &batch(&[2, 1])).unwrap_err();
        assert!(!objects(&[batch(&[1, 2]), batch(&[3])]));
        assert!(objects(&[batch(&[2, 1])]));
        assert!(objects(&[batch(&[1, 2]), batch(&[2])]));
        assert!(objects(&[ChangeBatch { ops: Some(vec![Insert]), ..batch(&[1]) }]));
        assert!(objects(&[ChangeBatch { rowtime: vec![], ..batch(&[1]) }]));
        assert!(objects(&[ChangeBatch { positions: vec![1], ..batch(&[1, 2]) }]));
        assert!(objects(&[ChangeBatch { value_null: Some(BooleanBuffer::new_unset(2)), ..batch(&[1]) }]));
    }

    #[test]
    fn a_sink_that_is_told_something_else_is_objected_to() {
        let (all, ops) = (rows(&[(1, 1), (1, 2), (2, 1)]), [UpdateBefore, UpdateAfter, Insert]);
        let sink = |told: &[(i64, i64)], ops: Vec<ChangeOp>| {
            let length = ops.len();
            [ChangeBatch { rows: rows(told), rowtime: vec![0; length], positions: vec![0; length], ops: Some(ops), value_null: None }]
        };
        let told = |sink: &[ChangeBatch]| Checker::told(1, &all, &ops, sink, false);
        told(&sink(&[(1, 2), (2, 1)], vec![UpdateAfter, Insert])).unwrap();
        told(&sink(&[(1, 2)], vec![UpdateAfter])).unwrap_err();
        told(&sink(&[(1, 2), (2, 1)], vec![Insert, Insert])).unwrap_err();
        told(&sink(&[(2, 1), (1, 2)], vec![UpdateAfter, Insert])).unwrap_err();
        // Who is told all may hear more, and nothing less.
        let all_told = |sink: &[ChangeBatch]| Checker::told(1, &all, &ops, sink, true);
        all_told(&sink(&[(3, 1), (1, 2), (2, 1)], vec![Delete, UpdateAfter, Insert])).unwrap();
        all_told(&sink(&[(1, 2), (2, 1), (1, 2)], vec![UpdateAfter, Insert, UpdateAfter])).unwrap();
        all_told(&sink(&[(1, 2), (3, 1)], vec![UpdateAfter, Delete])).unwrap_err();
        all_told(&sink(&[(1, 2), (3, 1), (2, 1)], vec![UpdateAfter, Insert, Insert])).unwrap_err();
    }
}
