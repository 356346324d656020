//! COUNT(DISTINCT value): each value of each group with the number of rows that have it, in a table beside that of the groups.
//! A group stands there as the number of its row, which it keeps: groups are never removed.
//!
//! Called by `operator/aggregate`. Invariant: a group's word is the number of its values in the table.

use std::hash::BuildHasher;

use arrow::array::{Array, ArrayRef};

use crate::{
    error::QueryError,
    plan::AggregateCall,
    stream::{
        operator::{accumulator::Signs, chain::execution, codec::RowCodec},
        state::{HEADER, RowNumber, Table},
    },
};

/// One COUNT(DISTINCT) of a query.
#[derive(Debug)]
pub(crate) struct Distinct {
    codec: RowCodec,
    argument: usize,
    /// Place of its word among the accumulators of a group.
    at: usize,
}

impl Distinct {
    /// The count of a call, with its word at `at`.
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] for a type whose values cannot be told apart.
    pub(crate) fn new(call: &AggregateCall, at: usize) -> Result<Self, QueryError> {
        let ([argument], [data_type]) = (call.arguments.as_slice(), call.types.as_slice()) else {
            return Err(execution("a count of different values takes one argument"));
        };
        Ok(Self { codec: RowCodec::new(vec![data_type.clone()])?, argument: *argument, at })
    }

    /// An empty table for the values.
    pub(crate) fn table() -> Table {
        Table::new(1, Vec::new()).removable(HEADER)
    }

    /// Folds a batch: row `i` belongs to group `groups[i]`.
    ///
    /// # Errors
    /// [`QueryError::Execution`] if the argument is not what the plan says, which is a fault of ours.
    pub(crate) fn fold(
        &self,
        (table, values): (&mut Table, &mut Table),
        groups: &[RowNumber],
        columns: &[ArrayRef],
        signs: impl Signs,
    ) -> Result<(), QueryError> {
        let column = columns.get(self.argument).ok_or_else(|| execution("an aggregate's argument is missing"))?;
        let encoded = self.codec.encode_keys(std::slice::from_ref(column))?;
        let (hasher, nulls) = (values.hasher(), column.logical_nulls());
        let mut key = Vec::new();
        for (row, group) in groups.iter().enumerate().filter(|(row, _)| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row))) {
            key.clear();
            key.extend_from_slice(&group.to_be_bytes());
            key.extend_from_slice(encoded.get(row));
            let value = values.touch(hasher.hash_one(key.as_slice()), &key, 0);
            let Some(rows) = values.accumulators_mut(value).first_mut() else { continue };
            let Some(different) = table.accumulators_mut(*group).get_mut(self.at) else { continue };
            if !signs.takes_back(row) {
                *different += u64::from(*rows == 0);
                *rows += 1;
                continue;
            }
            *rows = rows.saturating_sub(1);
            if *rows == 0 {
                *different = different.saturating_sub(1);
                values.remove(value);
            }
        }
        Ok(())
    }
}
