//! The copy that GROUP BY over a table keeps of it: what was folded for each key, so that it can be undone.
//!
//! Called by `stream/fold` before the aggregate. Gives for each record what it takes back (`-U`, or `-D` if nothing follows) and
//! what it adds (`+U`, or `+I`), in this order. A row that is taken back has the position of the record that brought it.

use std::hash::BuildHasher;

use arrow::{array::ArrayRef, compute::interleave_record_batch, datatypes::SchemaRef, record_batch::RecordBatch};

use crate::{
    answer::ChangeOp,
    error::QueryError,
    stream::{
        change::ChangeBatch,
        operator::{
            chain::{batch, execution},
            codec::RowCodec,
            newest::keyless,
        },
        state::{HEADER, MAX_TEXT, Table},
    },
};

/// Words of a row: whether it is there, the position of its record, its values.
const THERE: usize = 0;
const POSITION: usize = 1;
const VALUES: usize = 2;

/// What is kept of a source's rows.
#[derive(Debug)]
pub(crate) struct Copy {
    keys: RowCodec,
    values: RowCodec,
    /// The input without its keys.
    schema: SchemaRef,
}

impl Copy {
    /// Keeps rows of `input` whose first `keys` columns are their key.
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] for a type that cannot be kept.
    pub(crate) fn new(keys: usize, input: &SchemaRef) -> Result<Self, QueryError> {
        let types: Vec<_> = input.fields().iter().map(|field| field.data_type().clone()).collect();
        let (key_types, value_types) = types.split_at(keys.min(types.len()));
        let schema = input.project(&(key_types.len()..types.len()).collect::<Vec<_>>()).map_err(execution)?;
        Ok(Self { keys: RowCodec::new(key_types.to_vec())?, values: RowCodec::new(value_types.to_vec())?, schema: schema.into() })
    }

    /// An empty table for it.
    pub(crate) fn table() -> Table {
        Table::new(3, vec![HEADER + VALUES]).removable(HEADER + THERE)
    }

    /// Puts rows in place of those with the same keys, in the open step of the table, and says what that takes back and adds.
    ///
    /// # Errors
    /// [`QueryError::Execution`] where columns do not fit the plan, or for a row that is too large.
    pub(crate) fn replace(&self, table: &mut Table, input: &ChangeBatch) -> Result<ChangeBatch, QueryError> {
        let hasher = table.hasher();
        let columns = input.rows.columns();
        let (key_columns, value_columns) = columns.split_at(self.keys.types().len().min(columns.len()));
        let (keys, values) = (self.keys.encode_keys(key_columns)?, self.values.encode(value_columns)?);
        let without_key = keyless(key_columns, input.len());
        let mut made = Made::default();
        let hashes: Vec<u64> = (0..input.len()).map(|row| hasher.hash_one(keys.get(row))).collect();
        table.warm(&hashes);
        for (row, hash) in hashes.into_iter().enumerate() {
            if without_key.as_ref().is_some_and(|without| without.value(row)) {
                continue;
            }
            let is_gone = input.value_null.as_ref().is_some_and(|null| null.value(row));
            let (key, rowtime) = (keys.get(row), input.rowtime.get(row).copied().unwrap_or_default());
            let position = input.positions.get(row).copied().unwrap_or_default();
            let known = table.find(key).and_then(|place| table.row(place));
            if let Some(words) = known.and_then(|words| words.get(HEADER..)) {
                let (before, at) = (table.text(words[VALUES]).to_vec(), words[POSITION]);
                made.take_back(before, at, rowtime, is_gone);
            } else if is_gone {
                continue;
            }
            let place = table.touch(hash, key, rowtime);
            if is_gone {
                table.remove(place);
                continue;
            }
            let value = values.get(row);
            if value.len() > MAX_TEXT {
                return Err(execution(format!("a row has {} bytes, {MAX_TEXT} can be kept", value.len())));
            }
            made.add(row, position, rowtime);
            let words = table.accumulators_mut(place);
            (words[THERE], words[POSITION]) = (1, position);
            table.put_text(place, VALUES, value);
        }
        made.finish(self, value_columns, input.len())
    }
}

/// What a batch takes back and adds.
#[derive(Default)]
struct Made {
    /// Rows that were there, as bytes.
    before: Vec<Vec<u8>>,
    /// Each row: from `before` (0) or from the input (1), and its place there.
    places: Vec<(usize, usize)>,
    ops: Vec<ChangeOp>,
    rowtime: Vec<i64>,
    positions: Vec<u64>,
}

impl Made {
    fn take_back(&mut self, before: Vec<u8>, position: u64, rowtime: i64, is_gone: bool) {
        self.places.push((0, self.before.len()));
        self.before.push(before);
        self.ops.push(if is_gone { ChangeOp::Delete } else { ChangeOp::UpdateBefore });
        self.rowtime.push(rowtime);
        self.positions.push(position);
    }

    fn add(&mut self, row: usize, position: u64, rowtime: i64) {
        let follows = self.ops.last() == Some(&ChangeOp::UpdateBefore);
        self.places.push((1, row));
        self.ops.push(if follows { ChangeOp::UpdateAfter } else { ChangeOp::Insert });
        self.rowtime.push(rowtime);
        self.positions.push(position);
    }

    fn finish(self, copy: &Copy, added: &[ArrayRef], rows: usize) -> Result<ChangeBatch, QueryError> {
        let before = copy.values.decode(self.before.iter().map(Vec::as_slice))?;
        let before = batch(&copy.schema, before, self.before.len())?;
        let added = batch(&copy.schema, added.to_vec(), rows)?;
        let rows = if self.places.is_empty() {
            RecordBatch::new_empty(copy.schema.clone())
        } else if copy.schema.fields().is_empty() {
            batch(&copy.schema, Vec::new(), self.places.len())?
        } else {
            interleave_record_batch(&[&before, &added], &self.places).map_err(execution)?
        };
        Ok(ChangeBatch { rows, ops: Some(self.ops), rowtime: self.rowtime, positions: self.positions, value_null: None })
    }
}
