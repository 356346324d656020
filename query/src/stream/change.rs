//! A batch of changed rows, as it goes from operator to operator within one step.
//!
//! Made by the source of a query's task, changed by its operators, encoded by its sink. Invariant: every column has one
//! value a row; rows stand in position order, and `-U` is directly followed by its `+U`.

use arrow::{buffer::BooleanBuffer, record_batch::RecordBatch};

use crate::answer::ChangeOp;

/// Changed rows with the marks that say what happened to them.
#[derive(Clone, Debug)]
pub struct ChangeBatch {
    /// The rows: columns as the operator that made them names them.
    pub rows: RecordBatch,
    /// One mark a row; none: every row is `+I` (nothing is paid for retraction before an operator needs it).
    pub ops: Option<Vec<ChangeOp>>,
    /// Row time in milliseconds, one a row.
    pub rowtime: Vec<i64>,
    /// Position of the record that a row came from, one a row.
    pub positions: Vec<u64>,
    /// Set where the record's value was null, if there is one such row; filters, groups and joins drop these rows.
    pub value_null: Option<BooleanBuffer>,
}

impl ChangeBatch {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// `length` rows from `start` on; cheap, the columns are shared.
    #[must_use]
    pub fn slice(&self, start: usize, length: usize) -> Self {
        let part = |all: &[i64]| all.get(start..start + length).unwrap_or_default().to_vec();
        Self {
            rows: self.rows.slice(start, length),
            ops: self.ops.as_ref().map(|ops| ops.get(start..start + length).unwrap_or_default().to_vec()),
            rowtime: part(&self.rowtime),
            positions: self.positions.get(start..start + length).unwrap_or_default().to_vec(),
            value_null: self.value_null.as_ref().map(|null| null.slice(start, length)),
        }
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
