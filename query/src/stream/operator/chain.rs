//! Filters and projections in a row: operators without state.
//!
//! Run by a task on what comes from the source, and by a task and the readers of its view on what comes from the state.
//! Expressions are total: what fails is NULL and told in [`Faults`].

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatchOptions},
    buffer::BooleanBuffer,
    compute::{filter, filter_record_batch},
    datatypes::SchemaRef,
    record_batch::RecordBatch,
};

use crate::{
    error::QueryError,
    plan::{Expression, MAX_BATCH_BYTES, Node, RowError, TableFunction, Together, bytes_of},
    stream::{change::ChangeBatch, operator::explode},
};

/// What became NULL: position of the record, and why.
pub(crate) type Faults = Vec<(u64, String)>;

/// Filters and projections, in the order in which they run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    steps: Vec<Step>,
    /// Whether rows stand for what a table has under their keys: one that a filter leaves out has no value then.
    of_table: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Filter(Together),
    Project(Together, SchemaRef),
    Explode(Vec<usize>, Vec<(TableFunction, Expression)>, SchemaRef),
}

impl Chain {
    /// The chain of these nodes.
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] for an operator with state.
    pub(crate) fn new(nodes: &[Node]) -> Result<Self, QueryError> {
        let step = |node: &Node| match node {
            Node::Filter { predicate, .. } => Ok(Step::Filter(Together::new(vec![predicate.clone()]))),
            Node::Project { expressions, schema, .. } => Ok(Step::Project(Together::new(expressions.clone()), Arc::clone(schema))),
            Node::Explode { reads, calls, schema, .. } => Ok(Step::Explode(reads.clone(), calls.clone(), Arc::clone(schema))),
            Node::Aggregate { .. } | Node::Copy { .. } | Node::Newest { .. } => {
                Err(QueryError::Unsupported("GROUP BY over the result of a GROUP BY in one query".to_owned()))
            }
        };
        Ok(Self { steps: nodes.iter().map(step).collect::<Result<_, _>>()?, of_table: false })
    }

    /// For rows that stand for what a table has under their keys.
    pub(crate) fn of_table(self) -> Self {
        Self { of_table: true, ..self }
    }

    /// Puts a filter in front.
    pub(crate) fn after_filter(mut self, predicate: Option<Expression>) -> Self {
        self.steps.splice(0..0, predicate.map(|predicate| Step::Filter(Together::new(vec![predicate]))));
        self
    }

    /// Whether it may leave rows out.
    pub(crate) fn has_filter(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Filter(_)))
    }

    /// Runs the chain over rows without a past; rows that a filter does not keep are gone.
    ///
    /// # Errors
    /// [`QueryError::ResourceExhausted`] if it makes too much of so many rows at once, never of a single row;
    /// [`QueryError::Execution`] where columns do not fit the plan, which is a fault of ours.
    pub(crate) fn run(&self, mut input: ChangeBatch, faults: &mut Faults) -> Result<ChangeBatch, QueryError> {
        for step in &self.steps {
            if input.is_empty() {
                // Later steps may change the schema; nothing of an empty batch is looked at but its emptiness.
                return Ok(input);
            }
            match step {
                Step::Filter(predicate) => {
                    let keep = kept_by(predicate, &input.rows, |errors| tell(&input, &errors, faults))?;
                    let keep = match &input.value_null {
                        Some(null) => BooleanArray::new(keep.values() & &!null, None),
                        None => keep,
                    };
                    if self.of_table {
                        input.value_null = Some(!keep.values()).filter(|null| null.count_set_bits() > 0);
                    } else {
                        input = input.keep(&keep)?;
                    }
                }
                Step::Project(expressions, schema) => {
                    let columns = project(expressions, &input.rows, |errors| tell(&input, &errors, faults))?;
                    input.rows = batch(schema, columns, input.len())?;
                }
                Step::Explode(reads, calls, schema) => {
                    input = explode::run((reads, calls), schema, &input, &mut |errors| tell(&input, errors, faults))?;
                }
            }
        }
        Ok(input)
    }

    /// Runs the chain over rows of a table; says which rows the filters keep, and keeps them all in place.
    ///
    /// # Errors
    /// As [`Chain::run`].
    pub(crate) fn run_all(&self, rows: RecordBatch) -> Result<(RecordBatch, Option<BooleanBuffer>), QueryError> {
        self.run_all_telling(rows, &mut Vec::new())
    }

    /// As [`Chain::run_all`]; tells what became NULL in the rows that were kept until then.
    ///
    /// # Errors
    /// As [`Chain::run`].
    pub(crate) fn run_all_telling(
        &self,
        mut rows: RecordBatch,
        errors: &mut Vec<RowError>,
    ) -> Result<(RecordBatch, Option<BooleanBuffer>), QueryError> {
        let mut kept: Option<BooleanBuffer> = None;
        for step in &self.steps {
            let tell = |failed: Vec<RowError>| {
                errors.extend(failed.into_iter().filter(|error| kept.as_ref().is_none_or(|kept| kept.value(error.row))));
            };
            match step {
                Step::Filter(predicate) => {
                    let keep = kept_by(predicate, &rows, tell)?.values().clone();
                    kept = Some(kept.map_or_else(|| keep.clone(), |kept| &kept & &keep));
                }
                Step::Project(expressions, schema) => {
                    rows = batch(schema, project(expressions, &rows, tell)?, rows.num_rows())?;
                }
                Step::Explode(..) => return Err(QueryError::Unsupported("a table function over a table".to_owned())),
            }
        }
        Ok((rows, kept))
    }
}

impl ChangeBatch {
    /// Only the rows that `keep` marks, with their marks as they are.
    ///
    /// # Errors
    /// [`QueryError::Execution`] if `keep` has another length.
    pub(crate) fn keep(self, keep: &BooleanArray) -> Result<Self, QueryError> {
        if keep.true_count() == self.len() {
            return Ok(self);
        }
        let rows = filter_record_batch(&self.rows, keep).map_err(execution)?;
        let value_null = match self.value_null {
            None => None,
            Some(null) => {
                let left = filter(&BooleanArray::new(null, None), keep).map_err(execution)?;
                Some(left.as_boolean().values().clone()).filter(|null| null.count_set_bits() > 0)
            }
        };
        let ops = self.ops.as_ref().map(|ops| only(ops, keep));
        Ok(Self { rows, ops, rowtime: only(&self.rowtime, keep), positions: only(&self.positions, keep), value_null })
    }
}

/// The rows for which a predicate is true; what fails in it is told.
fn kept_by(predicate: &Together, rows: &RecordBatch, mut tell: impl FnMut(Vec<RowError>)) -> Result<BooleanArray, QueryError> {
    let mut kept = None;
    predicate.evaluate(rows, |evaluated| {
        tell(evaluated.errors);
        kept = evaluated.values.as_boolean_opt().map(is_true);
        Ok(())
    })?;
    kept.ok_or_else(|| execution("a filter that is no BOOLEAN"))
}

/// The columns that expressions make of rows; what fails in one of them is told.
fn project(expressions: &Together, rows: &RecordBatch, mut tell: impl FnMut(Vec<RowError>)) -> Result<Vec<ArrayRef>, QueryError> {
    let (mut columns, mut bytes) = (Vec::new(), 0);
    expressions.evaluate(rows, |evaluated| {
        tell(evaluated.errors);
        bytes += bytes_of(&evaluated.values);
        if bytes > MAX_BATCH_BYTES && rows.num_rows() > 1 {
            return Err(QueryError::ResourceExhausted(format!("more than {MAX_BATCH_BYTES} bytes are made of one batch of rows")));
        }
        columns.push(evaluated.values);
        Ok(())
    })?;
    Ok(columns)
}

/// The values that `keep` marks.
fn only<T: Copy>(values: &[T], keep: &BooleanArray) -> Vec<T> {
    keep.values().set_indices().filter_map(|row| values.get(row).copied()).collect()
}

/// NULL is not true.
fn is_true(values: &BooleanArray) -> BooleanArray {
    let known = values.nulls().map(|nulls| values.values() & nulls.inner());
    BooleanArray::new(known.unwrap_or_else(|| values.values().clone()), None)
}

/// Tells what became NULL, but not of rows without a value: they had nothing to compute.
fn tell(input: &ChangeBatch, errors: &[RowError], faults: &mut Faults) {
    let has_value = |error: &&RowError| !input.value_null.as_ref().is_some_and(|null| null.value(error.row));
    let position = |error: &RowError| input.positions.get(error.row).copied().unwrap_or_default();
    faults.extend(errors.iter().filter(has_value).map(|error| (position(error), error.reason.clone())));
}

/// A batch that may have no column and still has rows.
pub(crate) fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, QueryError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(execution)
}

pub(crate) fn execution(error: impl std::fmt::Display) -> QueryError {
    QueryError::Execution(error.to_string())
}
