//! GROUP BY: rows are folded by key into the query's table, which is also its view; rows of a table are also taken back.
//!
//! Called by the query's task, which alone folds, and by readers, which turn the words of a pinned version into rows.
//! Invariants: a group is never removed, also if all its rows are taken back; rows with a NULL in the key and records without a
//! value join no group.

use std::{hash::BuildHasher, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, BooleanArray},
    datatypes::SchemaRef,
};
use hashbrown::DefaultHashBuilder;
use parking_lot::RwLock;

use crate::{
    error::QueryError,
    plan::AggregateCall,
    stream::{
        change::ChangeBatch,
        operator::{
            accumulator::{Accumulator, OnlyAdds},
            chain::batch,
            changed::Groups,
            codec::RowCodec,
            newest::cuts_between_equal,
        },
        state::{RowNumber, Table},
    },
};

/// What is folded, and how it is read again.
#[derive(Debug)]
pub(crate) struct Aggregation {
    /// Keys, then results.
    schema: SchemaRef,
    keys: Vec<usize>,
    codec: RowCodec,
    accumulators: Vec<Accumulator>,
}

impl Aggregation {
    /// The aggregation of a plan's node; whether it will have to take rows back.
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] for a type that cannot be a key or be folded.
    pub(crate) fn new(keys: &[usize], calls: &[AggregateCall], schema: &SchemaRef, takes_back: bool) -> Result<Self, QueryError> {
        let mut accumulators = Vec::with_capacity(calls.len());
        let mut at = 0;
        for call in calls {
            let accumulator = Accumulator::new(call, at, takes_back)?;
            at += accumulator.words();
            accumulators.push(accumulator);
        }
        let types = schema.fields().iter().take(keys.len()).map(|field| field.data_type().clone()).collect();
        Ok(Self { schema: Arc::clone(schema), keys: keys.to_vec(), codec: RowCodec::new(types)?, accumulators })
    }

    /// An empty table for it.
    pub(crate) fn table(&self) -> Table {
        let words = self.accumulators.iter().map(Accumulator::words).sum();
        Table::new(words, self.accumulators.iter().filter_map(Accumulator::text_word).collect())
    }

    /// Folds a batch into the open step of the table, which readers cannot look into meanwhile.
    ///
    /// # Errors
    /// [`QueryError::Execution`] where columns do not fit the plan, which is a fault of ours.
    pub(crate) fn fold(&self, table: &RwLock<Table>, input: ChangeBatch, hasher: &DefaultHashBuilder) -> Result<(), QueryError> {
        let input = self.without_groupless(input)?;
        let keys = self.codec.encode_keys(&self.key_columns(&input))?;
        let hashes: Vec<u64> = (0..input.len()).map(|row| hasher.hash_one(keys.get(row))).collect();
        let mut groups = Vec::with_capacity(input.len());
        let mut table = table.write();
        groups.extend((0..input.len()).map(|row| table.touch(hashes[row], keys.get(row), input.rowtime[row])));
        for accumulator in &self.accumulators {
            match input.ops.as_deref() {
                None => accumulator.fold(&mut table, &groups, input.rows.columns(), OnlyAdds)?,
                Some(ops) => accumulator.fold(&mut table, &groups, input.rows.columns(), ops)?,
            }
        }
        Ok(())
    }

    fn key_columns(&self, input: &ChangeBatch) -> Vec<ArrayRef> {
        self.keys.iter().map(|key| input.rows.column(*key)).cloned().collect()
    }

    /// Where a batch must be cut lest a part of it touch a group twice: the end of each part.
    ///
    /// # Errors
    /// As [`Aggregation::fold`].
    pub(crate) fn cuts(&self, input: &ChangeBatch) -> Result<Vec<usize>, QueryError> {
        let keys = self.codec.encode_keys(&self.key_columns(input))?;
        Ok(cuts_between_equal((0..input.len()).map(|row| keys.get(row))))
    }

    /// Leaves out records without a value, and rows with a NULL in the key.
    fn without_groupless(&self, input: ChangeBatch) -> Result<ChangeBatch, QueryError> {
        let mut keep = input.value_null.as_ref().map(|null| !null);
        for nulls in self.keys.iter().filter_map(|key| input.rows.column(*key).logical_nulls()) {
            keep = Some(keep.map_or_else(|| nulls.inner().clone(), |keep| &keep & nulls.inner()));
        }
        match keep {
            Some(keep) => input.keep(&BooleanArray::new(keep, None)),
            None => Ok(input),
        }
    }

    /// Keys and results of rows, given by their words.
    ///
    /// # Errors
    /// As [`Aggregation::fold`].
    pub(crate) fn read(&self, table: &Table, rows: &[(RowNumber, &[u64])]) -> Result<Groups, QueryError> {
        let words: Vec<&[u64]> = rows.iter().map(|(_, words)| *words).collect();
        let mut columns = self.codec.decode(rows.iter().map(|(row, _)| table.key(*row)))?;
        for accumulator in &self.accumulators {
            columns.push(accumulator.results(table, &words)?);
        }
        let rowtime = words.iter().map(|words| Table::rowtime(words)).collect();
        Ok(Groups { rows: batch(&self.schema, columns, rows.len())?, rowtime })
    }

    /// How the groups are told apart.
    pub(crate) fn keys(&self) -> &RowCodec {
        &self.codec
    }
}
