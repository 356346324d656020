//! A table made of a table: the newest row of each key, which is also the query's view.
//!
//! Called by `stream/fold`. A row without a value removes its key's row; what a filter leaves out comes here as such a row.
//! Invariant: the row under a key is that of the last record with this key, with that record's row time.

use std::hash::BuildHasher;

use arrow::{
    array::{Array, ArrayRef},
    buffer::BooleanBuffer,
    datatypes::SchemaRef,
};
use hashbrown::{DefaultHashBuilder, HashSet};
use parking_lot::RwLock;

use crate::{
    error::QueryError,
    stream::{
        change::ChangeBatch,
        operator::{
            chain::{batch, execution},
            changed::Groups,
            codec::RowCodec,
        },
        state::{HEADER, MAX_TEXT, RowNumber, Table},
    },
};

/// Words of a row: whether it is there, its values.
const THERE: usize = HEADER;
const VALUES: usize = HEADER + 1;

/// What is kept of a row, and how it is read again.
#[derive(Debug)]
pub(crate) struct Newest {
    /// Keys, then values.
    schema: SchemaRef,
    keys: RowCodec,
    values: RowCodec,
    /// The values of a row that is not there.
    nothing: Vec<u8>,
    /// Whether a record that removes nothing is a change, too.
    tells_all: bool,
}

impl Newest {
    /// Keeps rows whose first `keys` columns are their key.
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] for a type that cannot be kept.
    pub(crate) fn new(keys: usize, schema: &SchemaRef, tells_all: bool) -> Result<Self, QueryError> {
        let types: Vec<_> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
        let (key_types, value_types) = types.split_at(keys.min(types.len()));
        let values = RowCodec::new(value_types.to_vec())?;
        let nothing = values.nulls()?;
        Ok(Self { schema: schema.clone(), keys: RowCodec::new(key_types.to_vec())?, values, nothing, tells_all })
    }

    /// An empty table for it.
    pub(crate) fn table(&self) -> Table {
        Table::new(2, vec![VALUES]).removable(THERE)
    }

    /// How the keys are told apart.
    pub(crate) fn keys(&self) -> &RowCodec {
        &self.keys
    }

    fn key_columns<'a>(&self, input: &'a ChangeBatch) -> &'a [ArrayRef] {
        input.rows.columns().get(..self.keys.types().len()).unwrap_or_default()
    }

    /// Puts the rows of a batch in place of those with the same keys, in the open step of the table.
    ///
    /// # Errors
    /// [`QueryError::Execution`] where columns do not fit the plan; [`QueryError::ResourceExhausted`] for a row that is too large.
    pub(crate) fn fold(&self, table: &RwLock<Table>, input: &ChangeBatch, hasher: &DefaultHashBuilder) -> Result<(), QueryError> {
        let keys = self.keys.encode_keys(self.key_columns(input))?;
        let values = self.values.encode(input.rows.columns().get(self.keys.types().len()..).unwrap_or_default())?;
        let without_key = keyless(self.key_columns(input), input.len());
        let hashes: Vec<u64> = (0..input.len()).map(|row| hasher.hash_one(keys.get(row))).collect();
        let mut table = table.write();
        table.warm(&hashes);
        for (row, hash) in hashes.into_iter().enumerate() {
            if without_key.as_ref().is_some_and(|without| without.value(row)) {
                continue;
            }
            let (key, rowtime) = (keys.get(row), input.rowtime.get(row).copied().unwrap_or_default());
            let is_gone = input.value_null.as_ref().is_some_and(|null| null.value(row));
            if is_gone && !self.tells_all && table.find(key).is_none_or(|place| table.row(place).is_none()) {
                continue;
            }
            let place = table.touch(hash, key, rowtime);
            table.set_rowtime(place, rowtime);
            if is_gone {
                table.remove(place);
                continue;
            }
            let value = values.get(row);
            put(&mut table, place, value)?;
        }
        Ok(())
    }

    /// Where a batch must be cut lest a part of it touch a key twice: the end of each part.
    ///
    /// # Errors
    /// As [`Newest::fold`].
    pub(crate) fn cuts(&self, input: &ChangeBatch) -> Result<Vec<usize>, QueryError> {
        let keys = self.keys.encode_keys(self.key_columns(input))?;
        Ok(cuts_between_equal((0..input.len()).map(|row| keys.get(row))))
    }

    /// Keys and values of rows given by their words; one that is not there has NULLs. Says which are there unless all are.
    ///
    /// # Errors
    /// As [`Newest::fold`].
    pub(crate) fn read(&self, table: &Table, rows: &[(RowNumber, &[u64])]) -> Result<(Groups, Option<BooleanBuffer>), QueryError> {
        let there = BooleanBuffer::collect_bool(rows.len(), |at| rows.get(at).is_some_and(|(_, words)| is_there(words)));
        let values = rows.iter().map(|(_, words)| match words.get(VALUES) {
            Some(reference) if is_there(words) => table.text(*reference),
            _ => self.nothing.as_slice(),
        });
        let mut columns = self.keys.decode(rows.iter().map(|(row, _)| table.key(*row)))?;
        columns.extend(self.values.decode(values)?);
        let rowtime = rows.iter().map(|(_, words)| Table::rowtime(words)).collect();
        let groups = Groups { rows: batch(&self.schema, columns, rows.len())?, rowtime };
        Ok((groups, Some(there).filter(|there| there.count_set_bits() < there.len())))
    }
}

fn is_there(words: &[u64]) -> bool {
    words.get(THERE).is_some_and(|word| *word != 0)
}

/// Puts the bytes of a value into a row, unless it has them already.
fn put(table: &mut Table, row: RowNumber, value: &[u8]) -> Result<(), QueryError> {
    if value.len() > MAX_TEXT {
        return Err(execution(format!("a row has {} bytes, {MAX_TEXT} can be kept", value.len())));
    }
    let is_same = table.row(row).and_then(|words| words.get(VALUES)).is_some_and(|reference| table.text(*reference) == value);
    if !is_same {
        table.accumulators_mut(row)[THERE - HEADER] = 1;
        table.put_text(row, VALUES - HEADER, value);
    }
    Ok(())
}

/// Rows whose record had no key: every key column is NULL.
pub(crate) fn keyless(keys: &[ArrayRef], rows: usize) -> Option<BooleanBuffer> {
    let mut all_null: Option<BooleanBuffer> = None;
    for column in keys {
        let null = column.logical_nulls().map(|nulls| !nulls.inner())?;
        all_null = Some(all_null.map_or_else(|| null.clone(), |so_far| &so_far & &null));
    }
    all_null.filter(|null| null.len() == rows && null.count_set_bits() > 0)
}

/// Cuts a row of keys so that no part has one twice: the end of each part.
pub(crate) fn cuts_between_equal<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Vec<usize> {
    let mut seen: HashSet<&[u8]> = HashSet::new();
    let (mut cuts, mut rows) = (Vec::new(), 0);
    for (row, key) in keys.enumerate() {
        if !seen.insert(key) {
            cuts.push(row);
            seen.clear();
            seen.insert(key);
        }
        rows = row + 1;
    }
    cuts.push(rows);
    cuts
}
