//! GROUP BY: rows are folded by key into the query's table, which is also its view; rows of a table are also taken back.
//!
//! Called by the query's task, which alone folds, and by readers, which turn the words of a pinned version into rows.
//! Invariants: a group is never removed, also if all its rows are taken back; rows with a NULL in the key and records without a
//! value join no group.

use std::{hash::BuildHasher, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray as _, BooleanArray},
    buffer::NullBuffer,
    datatypes::SchemaRef,
};
use hashbrown::DefaultHashBuilder;
use parking_lot::RwLock;

use crate::{
    error::QueryError,
    plan::{AggregateCall, different_values},
    stream::{
        change::ChangeBatch,
        operator::{
            accumulator::{Accumulator, OnlyAdds, Signs},
            chain::{batch, execution},
            changed::Groups,
            codec::RowCodec,
            distinct::Distinct,
            newest::cuts_between_equal,
            packed::Packed,
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
    aggregates: Vec<Kept>,
    /// One for each argument whose different values are counted.
    distincts: Vec<Distinct>,
}

impl Aggregation {
    /// The aggregation of a plan's node; whether it will have to take rows back.
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] for a type that cannot be a key or be folded.
    pub(crate) fn new(keys: &[usize], calls: &[AggregateCall], schema: &SchemaRef, takes_back: bool) -> Result<Self, QueryError> {
        let mut aggregates = Vec::with_capacity(calls.len());
        let (mut at, mut places) = (0, Vec::with_capacity(calls.len()));
        for call in calls {
            let kept = Kept::new(call, at, takes_back)?;
            places.push(at);
            at += kept.words();
            aggregates.push(kept);
        }
        let counted = different_values(calls).into_iter();
        let distincts = counted.map(|argument| Distinct::new(argument, calls.iter().zip(places.iter().copied())));
        let distincts = distincts.collect::<Result<_, _>>()?;
        let types = schema.fields().iter().take(keys.len()).map(|field| field.data_type().clone()).collect();
        Ok(Self { schema: Arc::clone(schema), keys: keys.to_vec(), codec: RowCodec::new(types)?, aggregates, distincts })
    }

    /// An empty table for it.
    pub(crate) fn table(&self) -> Table {
        let words = self.aggregates.iter().map(Kept::words).sum();
        Table::new(words, self.aggregates.iter().filter_map(Kept::text_word).collect())
    }

    /// Empty tables for the different values that it counts.
    pub(crate) fn values(&self) -> Vec<Table> {
        self.distincts.iter().map(Distinct::table).collect()
    }

    /// Folds a batch into the open step of the table, which readers cannot look into meanwhile, and of the tables of values.
    ///
    /// # Errors
    /// [`QueryError::Execution`] where columns do not fit the plan, which is a fault of ours.
    pub(crate) fn fold(
        &self,
        table: &RwLock<Table>,
        values: &mut [Table],
        input: ChangeBatch,
        hasher: &DefaultHashBuilder,
    ) -> Result<(), QueryError> {
        let input = self.without_groupless(input)?;
        let keys = self.codec.encode_keys(&self.key_columns(&input))?;
        let hashes: Vec<u64> = (0..input.len()).map(|row| hasher.hash_one(keys.get(row))).collect();
        let mut groups = Vec::with_capacity(input.len());
        let mut table = table.write();
        table.warm(&hashes);
        groups.extend((0..input.len()).map(|row| table.touch(hashes[row], keys.get(row), input.rowtime[row])));
        match input.ops.as_deref() {
            None => self.fold_into((&mut table, values), &groups, &input, OnlyAdds),
            Some(ops) => self.fold_into((&mut table, values), &groups, &input, ops),
        }
    }

    fn fold_into(
        &self,
        (table, values): (&mut Table, &mut [Table]),
        groups: &[RowNumber],
        input: &ChangeBatch,
        signs: impl Signs,
    ) -> Result<(), QueryError> {
        let columns = input.rows.columns();
        let wanted = |filter: Option<usize>| filter.map(|place| true_rows(columns.get(place))).transpose();
        for kept in &self.aggregates {
            match kept {
                Kept::Words(accumulator) => accumulator.fold(table, (groups, wanted(accumulator.filter())?.as_ref()), columns, signs)?,
                Kept::Packed(packed) => packed.fold(table, (groups, &input.positions), columns, signs)?,
            }
        }
        for (distinct, values) in self.distincts.iter().zip(values) {
            distinct.fold((table, values), groups, columns, wanted, signs)?;
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
        for kept in &self.aggregates {
            columns.push(kept.results(table, &words)?);
        }
        let rowtime = words.iter().map(|words| Table::rowtime(words)).collect();
        Ok(Groups { rows: batch(&self.schema, columns, rows.len())?, rowtime })
    }

    /// How the groups are told apart.
    pub(crate) fn keys(&self) -> &RowCodec {
        &self.codec
    }
}

/// The rows for which a BOOLEAN is true.
///
/// # Errors
/// [`QueryError::Execution`] if there is no such column or it is no BOOLEAN, which is a fault of ours.
pub(super) fn true_rows(column: Option<&ArrayRef>) -> Result<NullBuffer, QueryError> {
    let column = column.and_then(|column| column.as_boolean_opt()).ok_or_else(|| execution("the filter of an aggregate is no BOOLEAN"))?;
    let is_true = column.nulls().map_or_else(|| column.values().clone(), |nulls| column.values() & nulls.inner());
    Ok(NullBuffer::new(is_true))
}

/// What the rows of a group keep for one aggregate.
#[derive(Debug)]
enum Kept {
    /// Words alone.
    Words(Accumulator),
    /// Values in a blob.
    Packed(Packed),
}

impl Kept {
    fn new(call: &AggregateCall, at: usize, takes_back: bool) -> Result<Self, QueryError> {
        match Packed::new(call, at, takes_back)? {
            Some(packed) => Ok(Self::Packed(packed)),
            None => Ok(Self::Words(Accumulator::new(call, at)?)),
        }
    }

    fn words(&self) -> usize {
        match self {
            Self::Words(accumulator) => accumulator.words(),
            Self::Packed(_) => 1,
        }
    }

    fn text_word(&self) -> Option<usize> {
        match self {
            Self::Words(accumulator) => accumulator.text_word(),
            Self::Packed(packed) => Some(packed.text_word()),
        }
    }

    fn results(&self, table: &Table, rows: &[&[u64]]) -> Result<ArrayRef, QueryError> {
        match self {
            Self::Words(accumulator) => accumulator.results(table, rows),
            Self::Packed(packed) => packed.results(table, rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    #[test]
    fn a_filter_lets_pass_what_is_true_and_is_refused_if_it_is_no_boolean() {
        let filter: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true)]));
        assert_eq!(true_rows(Some(&filter)).unwrap().iter().collect::<Vec<_>>(), [true, false, false, true]);
        let number: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        for wrong in [None, Some(&number)] {
            assert!(matches!(true_rows(wrong), Err(QueryError::Execution(_))));
        }
    }
}
