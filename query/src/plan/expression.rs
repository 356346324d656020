//! Expressions over batches that cannot fail: where a value cannot be computed it is NULL, and the row is told.

use std::sync::Arc;

use arrow::{array::ArrayRef, datatypes::DataType, record_batch::RecordBatch};
use datafusion::physical_expr::PhysicalExpr;

/// An expression over the columns of a batch, with its type.
#[derive(Clone, Debug)]
pub struct Expression {
    physical: Arc<dyn PhysicalExpr>,
    data_type: DataType,
}

/// A row for which a part of an expression could not be computed and became NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// Row of the batch.
    pub row: usize,
    /// What failed, without the row's values.
    pub reason: String,
}

/// What an expression gave.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// One value a row.
    pub values: ArrayRef,
    /// What became NULL because it failed, at most one a row and failing part.
    pub errors: Vec<RowError>,
}

impl Expression {
    /// Type of the values.
    #[must_use]
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Place of the input column that this expression passes on unchanged, if it is nothing but that.
    #[must_use]
    pub fn as_column(&self) -> Option<usize> {
        self.physical.downcast_ref::<datafusion::physical_expr::expressions::Column>().map(|column| column.index())
    }

    /// Evaluates every row of a batch.
    #[must_use]
    pub fn evaluate(&self, batch: &RecordBatch) -> Evaluated {
        let rows = batch.num_rows();
        match self.physical.evaluate(batch).and_then(|value| value.into_array(rows)) {
            Ok(values) => Evaluated { values, errors: Vec::new() },
            Err(error) => Evaluated {
                values: arrow::array::new_null_array(&self.data_type, rows),
                errors: (0..rows).map(|row| RowError { row, reason: error.to_string() }).collect(),
            },
        }
    }
}
