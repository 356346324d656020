//! GROUP BY over a stream: rows are folded by key into the query's table, which is also its view.
//!
//! Called by the query's task, which alone folds, and by readers, which turn the words of a pinned version into rows.
//! Invariants: a group is never removed; rows with a NULL in the key and records without a value join no group.

use std::{hash::BuildHasher, ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, types::Float64Type},
    datatypes::{DataType, SchemaRef},
    record_batch::RecordBatch,
    row::{RowConverter, SortField},
};
use hashbrown::DefaultHashBuilder;
use parking_lot::RwLock;

use crate::{
    error::QueryError,
    plan::AggregateCall,
    stream::{
        change::ChangeBatch,
        operator::{
            accumulator::Accumulator,
            chain::{batch, execution},
        },
        state::{RowNumber, Table, Version},
    },
};

/// What is folded, and how it is read again.
#[derive(Debug)]
pub(crate) struct Aggregation {
    /// Keys, then results.
    schema: SchemaRef,
    keys: Vec<usize>,
    codec: KeyCodec,
    accumulators: Vec<Accumulator>,
}

impl Aggregation {
    /// The aggregation of a plan's node.
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] for a type that cannot be a key or be folded.
    pub(crate) fn new(keys: &[usize], calls: &[AggregateCall], schema: &SchemaRef) -> Result<Self, QueryError> {
        let mut accumulators = Vec::with_capacity(calls.len());
        let mut at = 0;
        for call in calls {
            let accumulator = Accumulator::new(call, at)?;
            at += accumulator.words();
            accumulators.push(accumulator);
        }
        let types = schema.fields().iter().take(keys.len()).map(|field| field.data_type().clone()).collect();
        Ok(Self { schema: Arc::clone(schema), keys: keys.to_vec(), codec: KeyCodec::new(types)?, accumulators })
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
        let columns = self.keys.iter().map(|key| input.rows.column(*key)).cloned().collect::<Vec<_>>();
        let keys = self.codec.encode(&columns, input.len())?;
        let hashes: Vec<u64> = (0..input.len()).map(|row| hasher.hash_one(keys.get(row))).collect();
        let mut groups = Vec::with_capacity(input.len());
        let mut table = table.write();
        groups.extend((0..input.len()).map(|row| table.touch(hashes[row], keys.get(row), input.rowtime[row])));
        for accumulator in &self.accumulators {
            accumulator.fold(&mut table, &groups, input.rows.columns())?;
        }
        Ok(())
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

    /// Keys and results of rows at a version; rows that were not there yet are left out.
    ///
    /// # Errors
    /// As [`Aggregation::fold`].
    pub(crate) fn read(&self, table: &Table, rows: impl Iterator<Item = RowNumber>, version: Version) -> Result<Groups, QueryError> {
        let found: Vec<(RowNumber, &[u64])> = rows.filter_map(|row| Some((row, table.row_at(row, version)?))).collect();
        let words: Vec<&[u64]> = found.iter().map(|(_, words)| *words).collect();
        let mut columns = self.codec.decode(found.iter().map(|(row, _)| table.key(*row)))?;
        for accumulator in &self.accumulators {
            columns.push(accumulator.results(table, &words)?);
        }
        let rowtime = words.iter().map(|words| Table::rowtime(words)).collect();
        Ok(Groups { rows: batch(&self.schema, columns, found.len())?, rowtime })
    }

    /// The first of these rows, as many as have together no more than so many bytes of keys and texts at a version; at least one.
    pub(crate) fn rows_within(table: &Table, rows: Range<RowNumber>, version: Version, bytes: usize) -> Range<RowNumber> {
        let texts = |row| table.row_at(row, version).map_or(0, |words| table.text_bytes(words));
        let count = within(rows.clone().map(|row| table.key(row).len() + texts(row)), bytes);
        rows.start..rows.end.min(rows.start.saturating_add(RowNumber::try_from(count).unwrap_or(RowNumber::MAX)))
    }

    /// The bytes of one key; none if a value is NULL, which no group has.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] if the values are not those of the key columns.
    pub(crate) fn key(&self, values: &[ArrayRef]) -> Result<Option<Vec<u8>>, QueryError> {
        if values.len() != self.keys.len() {
            return Err(QueryError::Invalid(format!("the key has {} columns, {} values were given", self.keys.len(), values.len())));
        }
        if values.iter().any(|value| value.null_count() > 0) {
            return Ok(None);
        }
        Ok(Some(self.codec.encode(values, 1)?.get(0).to_vec()))
    }

    /// Types of the key columns.
    pub(crate) fn key_types(&self) -> &[DataType] {
        &self.codec.types
    }
}

/// Rows of the table: keys, then results.
#[derive(Debug)]
pub(crate) struct Groups {
    /// The rows.
    pub(crate) rows: RecordBatch,
    /// Row time of each.
    pub(crate) rowtime: Vec<i64>,
}

/// Keys as bytes: equal keys, and only those, have equal bytes.
#[derive(Debug)]
struct KeyCodec {
    types: Vec<DataType>,
    converter: RowConverter,
}

/// Keys of a batch.
enum Keys {
    /// GROUP BY nothing: one group.
    One,
    Rows(arrow::row::Rows),
}

impl Keys {
    fn get(&self, row: usize) -> &[u8] {
        match self {
            Self::One => &[],
            Self::Rows(rows) => rows.row(row).data(),
        }
    }
}

impl KeyCodec {
    fn new(types: Vec<DataType>) -> Result<Self, QueryError> {
        let fields: Vec<SortField> = types.iter().cloned().map(SortField::new).collect();
        if !RowConverter::supports_fields(&fields) {
            return Err(QueryError::Unsupported(format!("GROUP BY columns of the types {types:?}")));
        }
        Ok(Self { types, converter: RowConverter::new(fields).map_err(execution)? })
    }

    fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Keys, QueryError> {
        if self.types.is_empty() {
            return Ok(Keys::One);
        }
        let canonical: Vec<ArrayRef> = columns.iter().map(canonical).collect();
        debug_assert!(canonical.iter().all(|column| column.len() == rows));
        Ok(Keys::Rows(self.converter.convert_columns(&canonical).map_err(execution)?))
    }

    fn decode<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, QueryError> {
        if self.types.is_empty() {
            return Ok(Vec::new());
        }
        let parser = self.converter.parser();
        self.converter.convert_rows(keys.map(|key| parser.parse(key))).map_err(execution)
    }
}

/// The one form of a DOUBLE that is a key: 0 for -0, one NaN.
pub(crate) fn key_form(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

fn canonical(column: &ArrayRef) -> ArrayRef {
    match column.as_primitive_opt::<Float64Type>() {
        Some(doubles) => Arc::new(doubles.unary::<_, Float64Type>(key_form)),
        None => Arc::clone(column),
    }
}

/// A group that a step changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Changed {
    row: RowNumber,
    existed: bool,
    /// Of its key and texts, as they are and as they were.
    bytes: usize,
}

impl Changed {
    /// How many of these groups, from the first on, together have no more than so many bytes of keys and texts; at least one.
    pub(crate) fn within(groups: &[Self], bytes: usize) -> usize {
        within(groups.iter().map(|group| group.bytes), bytes).min(groups.len())
    }
}

/// How many of these sizes, from the first on, are together no more than `most`; at least one.
fn within(sizes: impl Iterator<Item = usize>, most: usize) -> usize {
    let mut sum = 0_usize;
    let fits = |size: &usize| {
        sum = sum.saturating_add(*size);
        sum <= most
    };
    sizes.take_while(fits).count().max(1)
}

/// Groups that a step changed, before and after.
pub(crate) struct BeforeAfter {
    /// Groups as they are after the step.
    pub(crate) after: Groups,
    /// Which of them were there before it.
    pub(crate) existed: Vec<bool>,
    /// Those that were there, as they were, if that was asked for.
    pub(crate) before: Option<Groups>,
}

impl Aggregation {
    /// What the step from `from` to `to` changed, in the order in which it first touched the groups; groups that it touched and
    /// left as they were are not in it.
    pub(crate) fn changed(table: &Table, from: Version, to: Version) -> Vec<Changed> {
        let mut changed = Vec::new();
        for (row, before) in table.touched_after(from).into_iter().flatten() {
            let after = table.row_at(row, to);
            let differs = match (before, after) {
                (Some(before), Some(after)) => Table::differ(before, after),
                _ => true,
            };
            if differs {
                let texts: usize = before.into_iter().chain(after).map(|words| table.text_bytes(words)).sum();
                changed.push(Changed { row, existed: before.is_some(), bytes: table.key(row).len() + texts });
            }
        }
        changed
    }

    /// Groups that the step from `from` to `to` changed; `with_before` asks for them as they were, too.
    ///
    /// # Errors
    /// As [`Aggregation::fold`].
    pub(crate) fn before_after(
        &self,
        table: &Table,
        changed: &[Changed],
        (from, to): (Version, Version),
        with_before: bool,
    ) -> Result<BeforeAfter, QueryError> {
        let read = |version| self.read(table, changed.iter().map(|group| group.row), version);
        let existed = changed.iter().map(|group| group.existed).collect();
        Ok(BeforeAfter { after: read(to)?, existed, before: if with_before { Some(read(from)?) } else { None } })
    }
}
