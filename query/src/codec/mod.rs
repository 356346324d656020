//! Payload bytes to Arrow columns, only those wanted, and rows back to the bytes of records.
//!
//! Sources of queries and scans of topics decode here, sinks and `INSERT` encode. What always holds: no bytes panic, and
//! whatever could not be decoded is told: a row whose bytes are not of its format is left out, a value that does not fit its column is
//! NULL, and both are counted.

mod cells;
mod column;
mod encode;
mod json;
mod line;
mod side;
mod value;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::{Array as _, AsArray as _, BooleanArray, BooleanBufferBuilder},
    buffer::BooleanBuffer,
    compute::filter_record_batch,
    datatypes::{DataType, Int64Type, SchemaRef, TimestampMillisecondType},
    error::ArrowError,
    record_batch::{RecordBatch, RecordBatchOptions},
};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use foldlog_log::{LogError, Offset, PartitionId, Position, RecordView, Run, TopicKind};

use crate::{
    catalog::{Pseudo, Reading, Source, WantedColumn, type_name, types::is_nested},
    codec::{
        column::{Builder, Cell, Limits},
        json::Kind,
        side::{Content, Side, Wanted},
        value::Reason,
    },
    error::QueryError,
    functions::calendar::{Pattern, Zone},
};

pub use encode::{EncodedRows, Encoder, json_of};

/// Most faults of one call that are told one by one; the rest are only counted.
pub const TOLD_FAULTS: usize = 64;

/// An ARRAY, MAP or STRUCT of a type as SQL writes it, from JSON; `null` is NULL. All of it must fit.
///
/// # Errors
/// [`QueryError::Syntax`] and [`QueryError::Invalid`] for what is no such type, and for JSON that does not fit it.
pub fn nested_value(sql_type: &str, json: &[u8]) -> Result<ScalarValue, QueryError> {
    let data_type = crate::sql::types::named(sql_type)?;
    let invalid = |reason: String| QueryError::Invalid(format!("the value of type {}: {reason}", type_name(&data_type)));
    if !is_nested(&data_type) {
        return Err(invalid("expected an ARRAY, MAP or STRUCT".to_owned()));
    }
    let value = json::whole(json).map_err(|fault| invalid(format!("not a JSON value: {fault}")))?;
    let mut builder = Builder::new(&data_type, 1)?;
    builder.append(Cell::Json(value), &mut Limits::new(Reading::Exact, json.len())).map_err(|reason| invalid(reason.to_owned()))?;
    let values = builder.finish().map_err(|fault| QueryError::Execution(fault.to_string()))?;
    ScalarValue::try_from_array(&values, 0).map_err(|fault| QueryError::Execution(fault.to_string()))
}

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

/// Headers of one record, in order.
pub type Headers = Vec<(Arc<str>, Option<Bytes>)>;

/// What records hand on to what is written of them, beside their columns; by position.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    /// Headers of the records that have some.
    pub headers: BTreeMap<u64, Headers>,
    /// Records without a key, where a key of NULLs alone would be another one.
    pub without_key: BTreeSet<u64>,
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
    /// What the records hand on to what is written of them.
    pub carried: Carried,
    /// The first [`TOLD_FAULTS`] faults.
    pub bad: Vec<BadInput>,
    /// Number of all faults.
    pub bad_count: u64,
}

/// Decodes records of one source into the columns that one reader wants.
pub struct Decoder {
    schema: SchemaRef,
    /// The wanted columns; then, where a value that does not fit costs the record, all others, which are given to nobody.
    columns: Vec<Target>,
    value: Side,
    key: Side,
    time: Option<TimeField>,
    has_key: bool,
    /// Whether the key has several columns.
    wide_key: bool,
    reading: Reading,
    /// Whether headers are carried on.
    carries: bool,
}

/// Where a column comes from.
struct Target {
    name: String,
    data_type: DataType,
    from: Origin,
}

#[derive(Clone)]
enum Origin {
    /// Of the value, by its number there.
    Value(usize),
    /// Of the key, by its number there.
    Key(usize),
    /// All headers, or the last one of a name.
    Headers(Option<String>),
    Pseudo(Pseudo),
}

/// Where the row time comes from, if not from the record.
struct TimeField {
    name: String,
    from: Origin,
    builder: Builder,
    /// How it is written, if it is text.
    pattern: Option<Pattern>,
}

impl Decoder {
    /// A decoder for `wanted` columns of `source`, in that order. Places that do not exist are a fault of the caller.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] for a place that does not exist, [`QueryError::Unsupported`] for a type that no format has.
    pub fn new(source: &Source, wanted: &[WantedColumn]) -> Result<Self, QueryError> {
        let mut value = Wanted::new(source.value_format, source.written_columns().filter(|column| !source.is_in_key(column)));
        let mut key = Wanted::new(source.key_format, source.written_columns().filter(|column| source.is_in_key(column)));
        let mut origin_of = |place: usize| -> Option<Origin> {
            let column = source.columns.get(place)?;
            Some(match source.header(place) {
                Some(header) => Origin::Headers(header.name.clone()),
                None if source.is_in_key(column) => Origin::Key(key.enter(&column.name)),
                None => Origin::Value(value.enter(&column.name)),
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
        // Whether a record counts must not depend on the columns that somebody wants.
        for place in (0..source.columns.len()).filter(|_| source.reading == Reading::Coerced) {
            if !wanted.contains(&WantedColumn::Declared(place)) {
                let (column, from) = source.columns.get(place).zip(origin_of(place)).ok_or_else(missing)?;
                columns.push(Target { name: column.name.clone(), data_type: column.data_type.clone(), from });
            }
        }
        let time = match source.timestamp {
            None => None,
            Some(place) => {
                let (column, from) = source.columns.get(place).zip(origin_of(place)).ok_or_else(missing)?;
                let builder = Builder::new(&column.data_type, 1)?;
                let pattern = source.timestamp_format.as_deref().map(Pattern::compile).transpose().map_err(QueryError::Invalid)?;
                Some(TimeField { name: column.name.clone(), from, builder, pattern })
            }
        };
        let has_key = source.columns.iter().any(|column| column.key);
        let (value, key) = (value.into_side(), key.into_side());
        let wide_key = source.key_count() > 1;
        // As in Kafka's streams. The headers of events are what makes them events, and are not passed on.
        let carries = source.reading == Reading::Coerced && source.topic_kind != TopicKind::Events;
        Ok(Self { schema: source.wanted_schema(wanted), columns, value, key, time, has_key, wide_key, reading: source.reading, carries })
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
                self.record(&record?, run, &mut pass)?;
            }
        }
        pass.finish(&self.schema)
    }

    fn record(&mut self, record: &RecordView<'_>, run: &Run, pass: &mut Pass) -> Result<(), LogError> {
        let mut faults = Faults { pass_bad: &mut pass.bad, count: &mut pass.bad_count, record, partition: run.partition };
        let value = match self.value.read(record.value) {
            Ok(value) => value,
            Err(reason) => {
                faults.row(reason);
                return Ok(());
            }
        };
        let key = match self.key.read(record.key) {
            Ok(key) => key,
            Err(reason) => {
                faults.row(format!("key: {reason}").into());
                return Ok(());
            }
        };
        let bytes = record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len);
        let reading = self.reading;
        let mut limits = Limits::new(reading, bytes);
        let mut counts = true;
        let rowtime = match self.rowtime(record, (key, value), &mut limits) {
            // Kafka's streams have no time before 1970.
            Ok(rowtime) if rowtime < 0 && reading == Reading::Coerced => {
                counts = faults.value("ROWTIME", "before 1970", reading);
                rowtime
            }
            Ok(rowtime) => rowtime,
            Err((column, reason)) => {
                counts = faults.value(column, reason, reading);
                record.timestamp.get()
            }
        };
        for (target, builder) in self.columns.iter().zip(&mut pass.builders) {
            let done = match &target.from {
                Origin::Value(number) => builder.append(self.value.cell(*number, value), &mut limits),
                Origin::Key(number) => builder.append(self.key.cell(*number, key), &mut limits),
                Origin::Headers(name) => {
                    builder.append_headers(record, name.as_deref());
                    Ok(())
                }
                Origin::Pseudo(pseudo) => builder.append_pseudo(*pseudo, record, run, rowtime),
            };
            if let Err(reason) = done {
                // One fault is enough to lose a record, and told once.
                counts = counts && faults.value(&target.name, reason, reading);
            }
        }
        let null = value.is_null();
        pass.value_null.append(null);
        pass.any_value_null |= null;
        let key_null = self.has_key && record.key.is_none();
        pass.key_null.append(key_null);
        pass.any_key_null |= key_null;
        if key_null && self.wide_key {
            pass.carried.without_key.insert(record.position.get());
        }
        pass.rowtime.push(rowtime);
        pass.positions.push(record.position.get());
        if self.carries {
            let owned = |(name, value): (&str, Option<&[u8]>)| (Arc::from(name), value.map(Bytes::copy_from_slice));
            let headers: Vec<_> = record.headers().map(owned).collect();
            if !headers.is_empty() {
                pass.carried.headers.insert(record.position.get(), headers);
            }
        }
        if !counts {
            pass.lost.push(pass.positions.len() - 1);
        }
        Ok(())
    }

    /// When the record happened, or why its column does not say so.
    fn rowtime(
        &mut self,
        record: &RecordView<'_>,
        (key, value): (Content<'_>, Content<'_>),
        limits: &mut Limits,
    ) -> Result<i64, (&str, Reason)> {
        let own = record.timestamp.get();
        let Some(time) = &mut self.time else { return Ok(own) };
        let must_say = limits.reading == Reading::Coerced && !value.is_null();
        let unsaid = |name| if must_say { Err((name, "NULL, which says no time")) } else { Ok(own) };
        let cell = match &time.from {
            Origin::Value(number) => self.value.cell(*number, value),
            Origin::Key(number) => self.key.cell(*number, key),
            Origin::Headers(_) | Origin::Pseudo(_) => Cell::Absent,
        };
        // JSON is what nearly all records are: a number is taken from it without building a column of one row.
        if let (Cell::Json(value), None) = (&cell, &time.pattern) {
            let value = *value;
            let given = match (value.kind, time.builder.data_type()) {
                (Kind::Null, _) => return unsaid(time.name.as_str()),
                (_, DataType::Int64) => value::int64(value, limits.reading),
                _ => value::timestamp(value, limits.reading),
            };
            return given.map_err(|reason| (time.name.as_str(), reason));
        }
        let done = time.builder.append(cell, limits);
        let values = time.builder.finish().map_err(|_| (time.name.as_str(), "no time"))?;
        done.map_err(|reason| (time.name.as_str(), reason))?;
        if values.is_null(0) {
            return unsaid(time.name.as_str());
        }
        if let Some(pattern) = &time.pattern {
            let text = values.as_string::<i32>().value(0);
            return pattern.parse_timestamp(text, &Zone::UTC).ok_or((time.name.as_str(), "not written as timestamp_format says"));
        }
        Ok(match values.data_type() {
            DataType::Int64 => values.as_primitive::<Int64Type>().value(0),
            DataType::Timestamp(..) => values.as_primitive::<TimestampMillisecondType>().value(0),
            _ => own,
        })
    }
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
    /// Rows of records that do not count, ascending.
    lost: Vec<usize>,
    carried: Carried,
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
            lost: Vec::new(),
            carried: Carried::default(),
            bad: Vec::new(),
            bad_count: 0,
        })
    }

    fn finish(mut self, schema: &SchemaRef) -> Result<Decoded, QueryError> {
        let fault = |fault: ArrowError| QueryError::Execution(fault.to_string());
        let options = RecordBatchOptions::new().with_row_count(Some(self.positions.len()));
        let wanted = self.builders.iter_mut().take(schema.fields().len());
        let columns = wanted.map(Builder::finish).collect::<Result<_, _>>().map_err(fault)?;
        let batch = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(fault)?;
        let decoded = Decoded {
            batch,
            rowtime: self.rowtime,
            positions: self.positions,
            value_null: self.any_value_null.then(|| self.value_null.finish()),
            key_null: self.any_key_null.then(|| self.key_null.finish()),
            carried: self.carried,
            bad: self.bad,
            bad_count: self.bad_count,
        };
        if self.lost.is_empty() { Ok(decoded) } else { decoded.without(&self.lost).map_err(fault) }
    }
}

impl Decoded {
    /// Leaves out rows, which are given ascending.
    fn without(self, lost: &[usize]) -> Result<Self, ArrowError> {
        let keep: BooleanBuffer = (0..self.positions.len()).map(|row| lost.binary_search(&row).is_err()).collect();
        let kept = |numbers: &BooleanBuffer| -> BooleanBuffer { keep.set_indices().map(|row| numbers.value(row)).collect() };
        Ok(Self {
            batch: filter_record_batch(&self.batch, &BooleanArray::new(keep.clone(), None))?,
            rowtime: keep.set_indices().filter_map(|row| self.rowtime.get(row).copied()).collect(),
            positions: keep.set_indices().filter_map(|row| self.positions.get(row).copied()).collect(),
            value_null: self.value_null.as_ref().map(kept),
            key_null: self.key_null.as_ref().map(kept),
            carried: self.carried,
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

    /// Notes a value that does not fit; whether the record counts all the same.
    fn value(&mut self, column: &str, reason: Reason, reading: Reading) -> bool {
        match reading {
            Reading::Exact => self.note(Some(column), reason.into()),
            Reading::Coerced => self.note(None, format!("{column}: {reason}").into()),
        }
        reading == Reading::Exact
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
