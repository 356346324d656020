//! COUNT(DISTINCT value): the values of each group, in a table beside that of the groups. Counts of one argument that differ in their
//! FILTER share the table. A group stands there as the number of its row, which it keeps: groups are never removed.
//!
//! Called by `operator/aggregate`. A value has a word for each count: how many rows have it there, or, where no row is ever taken
//! back, whether one has. Invariant: a group's word is the number of its values whose word is not 0.

use std::hash::BuildHasher;

use arrow::{
    array::{Array, ArrayRef},
    buffer::NullBuffer,
};
use hashbrown::DefaultHashBuilder;

use crate::{
    error::QueryError,
    plan::{AggregateCall, AggregateFunction},
    stream::{
        operator::{accumulator::Signs, chain::execution, codec::RowCodec},
        state::{HEADER, RowNumber, Table},
    },
};

/// The counts of one argument's different values.
#[derive(Debug)]
pub(crate) struct Distinct {
    codec: RowCodec,
    argument: usize,
    counts: Vec<Count>,
}

/// One of them.
#[derive(Debug)]
struct Count {
    /// Place of its word among the accumulators of a group.
    at: usize,
    /// Place of its FILTER in the input.
    filter: Option<usize>,
}

impl Distinct {
    /// The counts of the values of `argument` among these calls, each with the place of its word.
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] for a type whose values cannot be told apart.
    pub(crate) fn new<'a>(argument: usize, calls: impl Iterator<Item = (&'a AggregateCall, usize)>) -> Result<Self, QueryError> {
        let is_its = |call: &AggregateCall| call.function == AggregateFunction::CountDistinct && call.arguments.first() == Some(&argument);
        let (mut types, mut counts) = (Vec::new(), Vec::new());
        for (call, at) in calls.filter(|(call, _)| is_its(call)) {
            types.clone_from(&call.types);
            counts.push(Count { at, filter: call.filter });
        }
        if types.len() != 1 {
            return Err(execution("a count of different values takes one argument"));
        }
        Ok(Self { codec: RowCodec::new(types)?, argument, counts })
    }

    /// An empty table for the values.
    pub(crate) fn table(&self) -> Table {
        Table::new(self.words(), Vec::new()).removable(HEADER)
    }

    /// Words of a value: those of the counts, before them whether there is one that is not 0, if there are several.
    fn words(&self) -> usize {
        if self.counts.len() == 1 { 1 } else { 1 + self.counts.len() }
    }

    /// Folds a batch: row `i` belongs to group `groups[i]`; `wanted` says which rows a filter lets pass.
    ///
    /// # Errors
    /// [`QueryError::Execution`] if the argument is not what the plan says, which is a fault of ours.
    pub(crate) fn fold<S: Signs>(
        &self,
        (table, values): (&mut Table, &mut Table),
        groups: &[RowNumber],
        columns: &[ArrayRef],
        wanted: impl Fn(Option<usize>) -> Result<Option<NullBuffer>, QueryError>,
        signs: S,
    ) -> Result<(), QueryError> {
        let column = columns.get(self.argument).ok_or_else(|| execution("an aggregate's argument is missing"))?;
        let encoded = self.codec.encode_keys(std::slice::from_ref(column))?;
        let (hasher, nulls) = (values.hasher(), column.logical_nulls());
        let of_count = |filter| Ok(NullBuffer::union(nulls.as_ref(), wanted(filter)?.as_ref()));
        let wanted: Vec<Option<NullBuffer>> = self.counts.iter().map(|count| of_count(count.filter)).collect::<Result<_, QueryError>>()?;
        let counts_it =
            &|place: usize, row: usize| wanted.get(place).is_some_and(|valid| valid.as_ref().is_none_or(|valid| valid.is_valid(row)));
        let first = self.words() - self.counts.len();
        let counted = |row: usize| {
            let counts = self.counts.iter().enumerate().filter(move |(place, _)| counts_it(*place, row));
            counts.map(|(place, count)| (first + place, count.at))
        };
        let mut keys = Keys::default();
        for (row, group) in groups.iter().enumerate().filter(|(row, _)| counted(*row).next().is_some()) {
            keys.push(row, *group, encoded.get(row), &hasher);
        }
        values.warm(&keys.hashes);
        for (row, hash, key) in keys.iter() {
            if !S::CAN_TAKE_BACK
                && let Some(words) = values.accumulators_of(hash, key)
                && counted(row).all(|(word, _)| words.get(word).is_some_and(|rows| *rows != 0))
            {
                continue;
            }
            let value = values.touch(hash, key, 0);
            let (groups, rows) = (table.accumulators_mut(groups[row]), values.accumulators_mut(value));
            if !signs.takes_back(row) {
                for (word, at) in counted(row) {
                    groups[at] += u64::from(rows[word] == 0);
                    rows[word] = if S::CAN_TAKE_BACK { rows[word] + 1 } else { 1 };
                }
                rows[0] = rows[0].max(1);
                continue;
            }
            for (word, at) in counted(row).filter(|(word, _)| rows[*word] > 0).collect::<Vec<_>>() {
                rows[word] -= 1;
                groups[at] -= u64::from(rows[word] == 0);
            }
            if rows[first..].iter().all(|rows| *rows == 0) {
                values.remove(value);
            }
        }
        Ok(())
    }
}

/// The values of a batch as keys: group, then value.
#[derive(Default)]
struct Keys {
    rows: Vec<usize>,
    hashes: Vec<u64>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    fn push(&mut self, row: usize, group: RowNumber, value: &[u8], hasher: &DefaultHashBuilder) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&group.to_be_bytes());
        self.bytes.extend_from_slice(value);
        self.hashes.push(hasher.hash_one(&self.bytes[start..]));
        self.ends.push(self.bytes.len());
        self.rows.push(row);
    }

    /// Row, hash and key of each.
    fn iter(&self) -> impl Iterator<Item = (usize, u64, &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let keys = starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end]);
        self.rows.iter().zip(&self.hashes).zip(keys).map(|((row, hash), key)| (*row, *hash, key))
    }
}
