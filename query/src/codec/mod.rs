//! Payload bytes to Arrow columns, only those wanted, and rows back to the bytes of records.
//!
//! Sources of queries and scans of topics decode here, sinks and `INSERT` encode. What always holds: no bytes panic, and
//! whatever could not be decoded is told: a row that is no JSON object is left out, a value that does not fit its column is
//! NULL, and both are counted.

mod column;
mod encode;
mod json;

use std::{borrow::Cow, sync::Arc};

use arrow::{
    array::BooleanBufferBuilder,
    buffer::BooleanBuffer,
    datatypes::{DataType, SchemaRef},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use foldlog_log::{LogError, Offset, PartitionId, Position, RecordView, Run};

use crate::{
    catalog::{KeyFormat, Pseudo, Source, WantedColumn},
    codec::{
        column::Builder,
        json::{Fields, Payload},
    },
    error::QueryError,
};

pub use encode::{EncodedRows, Encoder, json_of};

/// Most faults of one call that are told one by one; the rest are only counted.
pub const TOLD_FAULTS: usize = 64;

/// Something that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadInput {
    /// Of the record.
    pub position: Position,
    /// Of the record.
    pub partition: PartitionId,
    /// Of the record.
    pub offset: Offset,
    /// The column whose value became NULL; none: the whole row was left out.
    pub column: Option<String>,
    /// What is wrong with it.
    pub reason: Cow<'static, str>,
}

/// Rows of a source as columns.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The wanted columns, in the order asked for; one row for each record that could be decoded.
    pub batch: RecordBatch,
    /// Row time in milliseconds, one a row.
    pub rowtime: Vec<i64>,
    /// Position of the record, one a row, ascending as the records were.
    pub positions: Vec<u64>,
    /// Set where the record's value was null, if there is such a row.
    pub value_null: Option<BooleanBuffer>,
    /// Set where the record's key was null, if there is such a row and the source has key columns.
    pub key_null: Option<BooleanBuffer>,
    /// The first [`TOLD_FAULTS`] faults.
    pub bad: Vec<BadInput>,
    /// Number of all faults.
    pub bad_count: u64,
}

/// Decodes records of one source into the columns that one reader wants.
pub struct Decoder {
    schema: SchemaRef,
    columns: Vec<Target>,
    value: Fields,
    key: Fields,
    time: Option<TimeField>,
    has_key: bool,
    needs_value: bool,
}

/// Where a wanted column comes from.
struct Target {
    name: String,
    data_type: DataType,
    from: Origin,
}

#[derive(Clone, Copy)]
enum Origin {
    /// Field of the value, by its place in `Decoder::value`.
    Value(usize),
    /// The key as a whole.
    Key,
    /// Field of a JSON key, by its place in `Decoder::key`.
    KeyField(usize),
    Pseudo(Pseudo),
}

/// Where the row time comes from, if not from the record.
struct TimeField {
    name: String,
    from: Origin,
    data_type: DataType,
}

impl Decoder {
    /// A decoder for `wanted` columns of `source`, in that order. Places that do not exist are a fault of the caller.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] for a place that does not exist, [`QueryError::Unsupported`] for a type that JSON values are not
    /// decoded into.
    pub fn new(source: &Source, wanted: &[WantedColumn]) -> Result<Self, QueryError> {
        let mut value = Vec::new();
        let mut key = Vec::new();
        let mut origin_of = |place: usize| -> Option<Origin> {
            let column = source.columns.get(place)?;
            Some(match (column.key, source.key_format) {
                (true, KeyFormat::Kafka) => Origin::Key,
                (true, KeyFormat::Json) => Origin::KeyField(enter(&mut key, &column.name)),
                (true, KeyFormat::None) | (false, _) => Origin::Value(enter(&mut value, &column.name)),
            })
        };
        let missing = || QueryError::Invalid(format!("{} has no such column", source.name));
        let mut columns = Vec::with_capacity(wanted.len());
        for one in wanted {
            let field = source.wanted_field(*one).ok_or_else(missing)?;
            let from = match one {
                WantedColumn::Declared(place) => origin_of(*place).ok_or_else(missing)?,
                WantedColumn::Pseudo(pseudo) => Origin::Pseudo(*pseudo),
            };
            Builder::new(field.data_type(), 0)?;
            columns.push(Target { name: field.name().clone(), data_type: field.data_type().clone(), from });
        }
        let time = match source.timestamp {
            None => None,
            Some(place) => {
                let column = source.columns.get(place).ok_or_else(missing)?;
                let from = origin_of(place).ok_or_else(missing)?;
                Some(TimeField { name: column.name.clone(), from, data_type: column.data_type.clone() })
            }
        };
        let has_key = source.columns.iter().any(|column| column.key);
        Ok(Self {
            schema: source.wanted_schema(wanted),
            // Whether a payload is JSON matters even to a reader that wants none of it, if somebody declared what is in it.
            needs_value: source.columns.iter().any(|column| !column.key),
            columns,
            value: Fields::new(value),
            key: Fields::new(key),
            time,
            has_key,
        })
    }

    /// Schema of the batches: the wanted columns, all nullable.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Decodes whole runs, in the order given.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] where stored bytes are not what their checksum promised.
    pub fn decode(&mut self, runs: &[Run]) -> Result<Decoded, QueryError> {
        let rows = runs.iter().map(|run| run.count as usize).sum();
        let mut pass = Pass::new(&self.columns, rows)?;
        for run in runs {
            for record in run.records() {
                self.record(&record?, run.partition, &mut pass)?;
            }
        }
        pass.finish(&self.schema)
    }

    fn record(&mut self, record: &RecordView<'_>, partition: PartitionId, pass: &mut Pass) -> Result<(), LogError> {
        let mut faults = Faults { pass_bad: &mut pass.bad, count: &mut pass.bad_count, record, partition };
        let payload = match record.value {
            Some(bytes) if self.needs_value => match self.value.scan(bytes) {
                Ok(payload) => payload,
                Err(fault) => {
                    faults.row(fault.to_string().into());
                    return Ok(());
                }
            },
            Some(_) => Payload::Object,
            None => Payload::Null,
        };
        if payload == Payload::Null {
            self.value.clear();
        }
        match record.key {
            Some(bytes) if !self.key.is_empty() => {
                if let Err(fault) = self.key.scan(bytes) {
                    faults.row(format!("key: {fault}").into());
                    return Ok(());
                }
            }
            _ => self.key.clear(),
        }
        let rowtime = self.rowtime(record, &mut faults);
        for (target, builder) in self.columns.iter().zip(&mut pass.builders) {
            let done = match target.from {
                Origin::Value(place) => builder.append_json(self.value.found(place, record.value)),
                Origin::KeyField(place) => builder.append_json(self.key.found(place, record.key)),
                Origin::Key => builder.append_key(record.key),
                Origin::Pseudo(pseudo) => builder.append_pseudo(pseudo, record, partition, rowtime),
            };
            if let Err(reason) = done {
                faults.value(&target.name, reason);
            }
        }
        let null = payload == Payload::Null;
        pass.value_null.append(null);
        pass.any_value_null |= null;
        let key_null = self.has_key && record.key.is_none();
        pass.key_null.append(key_null);
        pass.any_key_null |= key_null;
        pass.rowtime.push(rowtime);
        pass.positions.push(record.position.get());
        Ok(())
    }

    fn rowtime(&self, record: &RecordView<'_>, faults: &mut Faults<'_, '_>) -> i64 {
        let own = record.timestamp.get();
        let Some(time) = &self.time else { return own };
        let given = match time.from {
            Origin::Value(place) => column::time_of(self.value.found(place, record.value), &time.data_type),
            Origin::KeyField(place) => column::time_of(self.key.found(place, record.key), &time.data_type),
            Origin::Key | Origin::Pseudo(_) => Ok(None),
        };
        match given {
            Ok(given) => given.unwrap_or(own),
            Err(reason) => {
                faults.value(&time.name, reason);
                own
            }
        }
    }
}

/// Place of `name` among the wanted fields, entered if it is new.
fn enter(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

/// What one call of `decode` builds.
struct Pass {
    builders: Vec<Builder>,
    rowtime: Vec<i64>,
    positions: Vec<u64>,
    value_null: BooleanBufferBuilder,
    key_null: BooleanBufferBuilder,
    any_value_null: bool,
    any_key_null: bool,
    bad: Vec<BadInput>,
    bad_count: u64,
}

impl Pass {
    fn new(columns: &[Target], rows: usize) -> Result<Self, QueryError> {
        Ok(Self {
            builders: columns.iter().map(|one| Builder::new(&one.data_type, rows)).collect::<Result<_, _>>()?,
            rowtime: Vec::with_capacity(rows),
            positions: Vec::with_capacity(rows),
            value_null: BooleanBufferBuilder::new(rows),
            key_null: BooleanBufferBuilder::new(rows),
            any_value_null: false,
            any_key_null: false,
            bad: Vec::new(),
            bad_count: 0,
        })
    }

    fn finish(mut self, schema: &SchemaRef) -> Result<Decoded, QueryError> {
        let options = RecordBatchOptions::new().with_row_count(Some(self.positions.len()));
        let columns = self.builders.iter_mut().map(Builder::finish).collect();
        let batch = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
            .map_err(|fault| QueryError::Execution(fault.to_string()))?;
        Ok(Decoded {
            batch,
            rowtime: self.rowtime,
            positions: self.positions,
            value_null: self.any_value_null.then(|| self.value_null.finish()),
            key_null: self.any_key_null.then(|| self.key_null.finish()),
            bad: self.bad,
            bad_count: self.bad_count,
        })
    }
}

/// Notes faults of one record.
struct Faults<'a, 'r> {
    pass_bad: &'a mut Vec<BadInput>,
    count: &'a mut u64,
    record: &'a RecordView<'r>,
    partition: PartitionId,
}

impl Faults<'_, '_> {
    fn row(&mut self, reason: Cow<'static, str>) {
        self.note(None, reason);
    }

    fn value(&mut self, column: &str, reason: &'static str) {
        self.note(Some(column), reason.into());
    }

    fn note(&mut self, column: Option<&str>, reason: Cow<'static, str>) {
        *self.count += 1;
        if self.pass_bad.len() < TOLD_FAULTS {
            let column = column.map(str::to_owned);
            let (position, offset) = (self.record.position, self.record.offset);
            self.pass_bad.push(BadInput { position, partition: self.partition, offset, column, reason });
        }
    }
}

#[cfg(test)]
mod tests;
