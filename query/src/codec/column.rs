//! One column being built: values as JSON, lines, keys and pseudo columns have them, into an Arrow array.
//!
//! A value that does not fit is NULL and gives the reason; of a nested value it is the innermost part.

use std::{borrow::Cow, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int32Builder, Int64Builder, ListArray,
        MapArray, NullBufferBuilder, StringBuilder, StructArray, Time32MillisecondBuilder, TimestampMillisecondBuilder,
    },
    buffer::OffsetBuffer,
    datatypes::{DataType, FieldRef, Fields as ArrowFields, TimeUnit},
    error::ArrowError,
};
use foldlog_log::{RecordView, Run};
use hashbrown::HashMap;

use super::{
    json::{self, Fields, Kind, Value, unescape},
    value::{self, Reason},
};
use crate::{
    catalog::{Pseudo, Reading, types::map_parts},
    error::QueryError,
};

/// Parts of nested values that one record may make, beside some for each of its bytes: `[{},{},..]` into a wide STRUCT makes much
/// of little.
const PARTS: usize = 4_096;
/// Parts of nested values for each byte.
const PARTS_A_BYTE: usize = 16;

/// How the values of one record are read.
pub(super) struct Limits {
    pub(super) reading: Reading,
    parts: usize,
}

impl Limits {
    pub(super) fn new(reading: Reading, bytes: usize) -> Self {
        Self { reading, parts: bytes.saturating_mul(PARTS_A_BYTE).saturating_add(PARTS) }
    }

    fn take(&mut self, parts: usize) -> Result<(), Reason> {
        self.parts = self.parts.checked_sub(parts).ok_or("has too many parts for so few bytes")?;
        Ok(())
    }
}

/// A value as a record has it.
pub(super) enum Cell<'a> {
    /// There is none.
    Absent,
    /// A value of JSON.
    Json(Value<'a>),
    /// A value of a line.
    Text(Cow<'a, str>),
    /// The whole key or value, as Kafka's own serialisers write it.
    Bytes(&'a [u8]),
}

/// A column being built.
pub(super) struct Builder {
    data_type: DataType,
    values: Values,
}

enum Values {
    Bool(BooleanBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    Utf8(StringBuilder),
    Binary(BinaryBuilder),
    Date(Date32Builder),
    Time(Time32MillisecondBuilder),
    Timestamp(TimestampMillisecondBuilder),
    Decimal(Decimal128Builder, u8, i8),
    List(FieldRef, Lists),
    Map(FieldRef, Lists, Box<Builder>),
    Struct(ArrowFields, Structs),
}

/// Where each list, or map, begins among its items (of a map, its values).
struct Lists {
    ends: Vec<i32>,
    valid: NullBufferBuilder,
    items: Box<Builder>,
}

/// A column for each field.
struct Structs {
    /// Where the fields stand in the JSON of one value.
    names: Fields,
    children: Vec<Builder>,
    valid: NullBufferBuilder,
}

impl Builder {
    pub(super) fn new(data_type: &DataType, rows: usize) -> Result<Self, QueryError> {
        let lists = |items: &DataType| -> Result<Lists, QueryError> {
            Ok(Lists { ends: vec![0], valid: NullBufferBuilder::new(rows), items: Box::new(Self::new(items, rows)?) })
        };
        let unknown = || QueryError::Unsupported(format!("values of type {data_type} in records"));
        let values = match data_type {
            DataType::Boolean => Values::Bool(BooleanBuilder::with_capacity(rows)),
            DataType::Int32 => Values::Int32(Int32Builder::with_capacity(rows)),
            DataType::Int64 => Values::Int64(Int64Builder::with_capacity(rows)),
            DataType::Float64 => Values::Float64(Float64Builder::with_capacity(rows)),
            DataType::Utf8 => Values::Utf8(StringBuilder::with_capacity(rows, rows * 12)),
            DataType::Binary => Values::Binary(BinaryBuilder::with_capacity(rows, rows * 12)),
            DataType::Date32 => Values::Date(Date32Builder::with_capacity(rows)),
            DataType::Time32(TimeUnit::Millisecond) => Values::Time(Time32MillisecondBuilder::with_capacity(rows)),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                Values::Timestamp(TimestampMillisecondBuilder::with_capacity(rows).with_data_type(data_type.clone()))
            }
            DataType::Decimal128(precision, scale) => {
                Values::Decimal(Decimal128Builder::with_capacity(rows).with_data_type(data_type.clone()), *precision, *scale)
            }
            DataType::List(item) => Values::List(Arc::clone(item), lists(item.data_type())?),
            DataType::Map(entries, _) => {
                let (key, value) = map_parts(data_type).ok_or_else(unknown)?;
                Values::Map(Arc::clone(entries), lists(value)?, Box::new(Self::new(key, rows)?))
            }
            DataType::Struct(fields) => {
                let names = Fields::new(fields.iter().map(|field| field.name().clone()).collect());
                let children = fields.iter().map(|field| Self::new(field.data_type(), rows)).collect::<Result<_, _>>()?;
                Values::Struct(fields.clone(), Structs { names, children, valid: NullBufferBuilder::new(rows) })
            }
            _ => return Err(unknown()),
        };
        Ok(Self { data_type: data_type.clone(), values })
    }

    /// The type of the column.
    pub(super) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(match &mut self.values {
            Values::Bool(builder) => Arc::new(builder.finish()),
            Values::Int32(builder) => Arc::new(builder.finish()),
            Values::Int64(builder) => Arc::new(builder.finish()),
            Values::Float64(builder) => Arc::new(builder.finish()),
            Values::Utf8(builder) => Arc::new(builder.finish()),
            Values::Binary(builder) => Arc::new(builder.finish()),
            Values::Date(builder) => Arc::new(builder.finish()),
            Values::Time(builder) => Arc::new(builder.finish()),
            Values::Timestamp(builder) => Arc::new(builder.finish()),
            Values::Decimal(builder, ..) => Arc::new(builder.finish()),
            Values::List(field, lists) => {
                let (offsets, items, valid) = lists.finish()?;
                Arc::new(ListArray::try_new(Arc::clone(field), offsets, items, valid)?)
            }
            Values::Map(entries, lists, keys) => {
                let (offsets, items, valid) = lists.finish()?;
                let DataType::Struct(fields) = entries.data_type() else {
                    return Err(ArrowError::SchemaError("a map without entries".to_owned()));
                };
                let pairs = StructArray::try_new(fields.clone(), vec![keys.finish()?, items], None)?;
                Arc::new(MapArray::try_new(Arc::clone(entries), offsets, pairs, valid, false)?)
            }
            Values::Struct(fields, structs) => {
                let rows = structs.valid.len();
                let children = structs.children.iter_mut().map(Self::finish).collect::<Result<Vec<_>, _>>()?;
                Arc::new(StructArray::try_new_with_length(fields.clone(), children, structs.valid.finish(), rows)?)
            }
        })
    }

    pub(super) fn append_null(&mut self) {
        match &mut self.values {
            Values::Bool(builder) => builder.append_null(),
            Values::Int32(builder) => builder.append_null(),
            Values::Int64(builder) => builder.append_null(),
            Values::Float64(builder) => builder.append_null(),
            Values::Utf8(builder) => builder.append_null(),
            Values::Binary(builder) => builder.append_null(),
            Values::Date(builder) => builder.append_null(),
            Values::Time(builder) => builder.append_null(),
            Values::Timestamp(builder) => builder.append_null(),
            Values::Decimal(builder, ..) => builder.append_null(),
            Values::List(_, lists) | Values::Map(_, lists, _) => lists.end(false),
            Values::Struct(_, structs) => {
                structs.children.iter_mut().for_each(Self::append_null);
                structs.valid.append_null();
            }
        }
    }

    /// Appends one value; one that does not fit is NULL, and the reason is told.
    pub(super) fn append(&mut self, cell: Cell<'_>, limits: &mut Limits) -> Result<(), Reason> {
        match cell {
            Cell::Absent => {
                self.append_null();
                Ok(())
            }
            Cell::Json(value) => self.append_json(Some(value), limits),
            Cell::Text(text) => {
                let done = self.append_text(&text, limits.reading);
                if done.is_err() {
                    self.append_null();
                }
                done
            }
            Cell::Bytes(bytes) => {
                let done = self.append_bytes(bytes, limits.reading);
                if done.is_err() {
                    self.append_null();
                }
                done
            }
        }
    }

    /// Appends a value of JSON; absent and `null` are NULL.
    pub(super) fn append_json(&mut self, value: Option<Value<'_>>, limits: &mut Limits) -> Result<(), Reason> {
        let Some(value) = value.filter(|value| value.kind != Kind::Null) else {
            self.append_null();
            return Ok(());
        };
        let reading = limits.reading;
        let done = match &mut self.values {
            Values::Bool(builder) => value::boolean(value).map(|value| builder.append_value(value)),
            Values::Int32(builder) => value::int32(value, reading).map(|value| builder.append_value(value)),
            Values::Int64(builder) => value::int64(value, reading).map(|value| builder.append_value(value)),
            Values::Float64(builder) => value::double(value, reading).map(|value| builder.append_value(value)),
            Values::Utf8(builder) => match value.kind {
                Kind::Escaped => unescape(value.raw).ok_or("half of a surrogate pair in a string").map(|text| builder.append_value(text)),
                Kind::Null | Kind::True | Kind::False | Kind::Number | Kind::Plain | Kind::Nested => {
                    builder.append_value(value.raw);
                    Ok(())
                }
            },
            Values::Binary(builder) => value::bytes(value).map(|bytes| builder.append_value(bytes)),
            Values::Date(builder) => value::date(value, reading).map(|value| builder.append_value(value)),
            Values::Time(builder) => value::time(value, reading).map(|value| builder.append_value(value)),
            Values::Timestamp(builder) => value::timestamp(value, reading).map(|value| builder.append_value(value)),
            Values::Decimal(builder, precision, scale) => {
                value::decimal(value, *precision, *scale).map(|value| builder.append_value(value))
            }
            // These append their NULL themselves.
            Values::List(_, lists) => return lists.append(value, limits),
            Values::Map(_, lists, keys) => return lists.append_map(keys, value, limits),
            Values::Struct(_, structs) => return structs.append(value, limits),
        };
        if done.is_err() {
            self.append_null();
        }
        done
    }

    /// Appends a value of a line; an empty one is NULL.
    fn append_text(&mut self, text: &str, reading: Reading) -> Result<(), Reason> {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            self.append_null();
            return Ok(());
        }
        let plain = Value { kind: Kind::Plain, raw: trimmed };
        let number = Value { kind: Kind::Number, raw: trimmed.strip_prefix('+').unwrap_or(trimmed) };
        // Numbers are text already; only JSON's own kind of coercion cuts them.
        let digits = Value { kind: if reading == Reading::Exact { Kind::Number } else { Kind::Plain }, ..number };
        match &mut self.values {
            Values::Bool(builder) => builder.append_value(match (trimmed, reading) {
                (word, _) if word.eq_ignore_ascii_case("true") => true,
                (word, _) if word.eq_ignore_ascii_case("false") => false,
                (_, Reading::Coerced) => false,
                (_, Reading::Exact) => return Err("not a BOOLEAN"),
            }),
            Values::Int32(builder) => builder.append_value(value::int32(digits, reading)?),
            Values::Int64(builder) => builder.append_value(value::int64(digits, reading)?),
            Values::Float64(builder) => {
                builder.append_value(value::double(plain, reading).or_else(|_| value::double(number, reading))?);
            }
            Values::Utf8(builder) => builder.append_value(text),
            Values::Binary(builder) => builder.append_value(value::bytes(plain)?),
            Values::Date(builder) => builder.append_value(value::date(plain, Reading::Coerced)?),
            Values::Time(builder) => builder.append_value(value::time(plain, Reading::Coerced)?),
            Values::Timestamp(builder) => builder.append_value(value::timestamp(plain, Reading::Coerced)?),
            Values::Decimal(builder, precision, scale) => builder.append_value(value::decimal(number, *precision, *scale)?),
            Values::List(..) | Values::Map(..) | Values::Struct(..) => return Err("a line has no nested values"),
        }
        Ok(())
    }

    /// Appends what Kafka's own serialisers write.
    fn append_bytes(&mut self, bytes: &[u8], reading: Reading) -> Result<(), Reason> {
        match &mut self.values {
            Values::Bool(builder) => match bytes {
                [0] => builder.append_value(false),
                [1] => builder.append_value(true),
                _ => return Err("not one byte, 0 or 1"),
            },
            Values::Int32(builder) => builder.append_value(i32::from_be_bytes(bytes.try_into().map_err(|_| "not 4 bytes")?)),
            Values::Int64(builder) => builder.append_value(i64::from_be_bytes(bytes.try_into().map_err(|_| "not 8 bytes")?)),
            Values::Timestamp(builder) => builder.append_value(i64::from_be_bytes(bytes.try_into().map_err(|_| "not 8 bytes")?)),
            Values::Float64(builder) => builder.append_value(f64::from_be_bytes(bytes.try_into().map_err(|_| "not 8 bytes")?)),
            Values::Utf8(builder) => match (std::str::from_utf8(bytes), reading) {
                (Ok(text), _) => builder.append_value(text),
                (Err(_), Reading::Coerced) => builder.append_value(String::from_utf8_lossy(bytes)),
                (Err(_), Reading::Exact) => return Err("not UTF-8"),
            },
            Values::Binary(builder) => builder.append_value(bytes),
            Values::Decimal(builder, precision, scale) => {
                let raw = std::str::from_utf8(bytes).map_err(|_| "not UTF-8")?;
                builder.append_value(value::decimal(Value { kind: Kind::Plain, raw }, *precision, *scale)?);
            }
            Values::Date(_) | Values::Time(_) | Values::List(..) | Values::Map(..) | Values::Struct(..) => {
                return Err("not of a type that Kafka's own serialisers write");
            }
        }
        Ok(())
    }

    /// Appends a column that every record has.
    pub(super) fn append_pseudo(&mut self, pseudo: Pseudo, record: &RecordView<'_>, run: &Run, rowtime: i64) -> Result<(), Reason> {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        match (&mut self.values, pseudo) {
            (Values::Utf8(builder), Pseudo::Stream) => builder.append_option(record.key.and_then(|key| std::str::from_utf8(key).ok())),
            (Values::Utf8(builder), Pseudo::Type) => builder.append_option(record.event().map(|event| event.kind)),
            (Values::Utf8(builder), Pseudo::Data) => {
                let text = record.value.map(std::str::from_utf8).transpose();
                builder.append_option(*text.as_ref().unwrap_or(&None));
                return text.map(|_| ()).map_err(|_| "the payload is not UTF-8");
            }
            (Values::Int64(builder), Pseudo::Version) => builder.append_option(record.event().map(|event| number(event.version.get()))),
            (Values::Int64(builder), Pseudo::Position | Pseudo::Record) => builder.append_value(number(record.position.get())),
            (Values::Int64(builder), Pseudo::RowOffset) => builder.append_value(number(record.offset.get())),
            (Values::Int32(builder), Pseudo::RowPartition) => builder.append_value(i32::try_from(run.partition.get()).unwrap_or(i32::MAX)),
            (Values::Timestamp(builder), Pseudo::RowTime) => builder.append_value(rowtime),
            (Values::Bool(builder), Pseudo::HasValue) => builder.append_value(record.value.is_some()),
            (Values::Timestamp(builder), Pseudo::RecordedAt) => builder.append_value(run.recorded_at.get()),
            _ => self.append_null(),
        }
        Ok(())
    }

    /// Appends the headers of a record: all of them, as structs of name and value, or the value of the last one of a name.
    pub(super) fn append_headers(&mut self, record: &RecordView<'_>, name: Option<&str>) {
        match (&mut self.values, name) {
            (Values::Binary(builder), Some(name)) => {
                builder.append_option(record.headers().filter(|(known, _)| *known == name).last().and_then(|(_, value)| value));
            }
            (Values::List(_, lists), None) => {
                for (name, value) in record.headers() {
                    lists.items.append_header(name, value);
                }
                lists.end(true);
            }
            _ => self.append_null(),
        }
    }

    fn append_header(&mut self, name: &str, value: Option<&[u8]>) {
        if let Values::Struct(_, structs) = &mut self.values
            && let [Self { values: Values::Utf8(names), .. }, Self { values: Values::Binary(contents), .. }] =
                structs.children.as_mut_slice()
        {
            names.append_value(name);
            contents.append_option(value);
            structs.valid.append_non_null();
        } else {
            self.append_null();
        }
    }

    fn len(&self) -> usize {
        match &self.values {
            Values::Bool(builder) => arrow::array::ArrayBuilder::len(builder),
            Values::Int32(builder) => arrow::array::ArrayBuilder::len(builder),
            Values::Int64(builder) => arrow::array::ArrayBuilder::len(builder),
            Values::Float64(builder) => arrow::array::ArrayBuilder::len(builder),
            Values::Utf8(builder) => arrow::array::ArrayBuilder::len(builder),
            Values::Binary(builder) => arrow::array::ArrayBuilder::len(builder),
            Values::Date(builder) => arrow::array::ArrayBuilder::len(builder),
            Values::Time(builder) => arrow::array::ArrayBuilder::len(builder),
            Values::Timestamp(builder) => arrow::array::ArrayBuilder::len(builder),
            Values::Decimal(builder, ..) => arrow::array::ArrayBuilder::len(builder),
            Values::List(_, lists) | Values::Map(_, lists, _) => lists.valid.len(),
            Values::Struct(_, structs) => structs.valid.len(),
        }
    }
}

impl Lists {
    /// Ends a list with the items appended since the last one ended.
    fn end(&mut self, valid: bool) {
        // A batch is decoded from a few MiB: there are never so many items.
        self.ends.push(i32::try_from(self.items.len()).unwrap_or(i32::MAX));
        self.valid.append(valid);
    }

    fn append(&mut self, value: Value<'_>, limits: &mut Limits) -> Result<(), Reason> {
        let mut done = Ok(());
        let is_array = json::each_item(value, |item| {
            limits.take(1)?;
            let one = self.items.append_json(Some(item), limits);
            done = done.and(one);
            Ok(())
        });
        self.end(is_array.is_ok());
        is_array.and(done)
    }

    fn append_map(&mut self, keys: &mut Builder, value: Value<'_>, limits: &mut Limits) -> Result<(), Reason> {
        let mut entries: Vec<(Cow<'_, str>, Value<'_>)> = Vec::new();
        let mut done = json::each_entry(value, |name, value| {
            limits.take(2)?;
            entries.push((name, value));
            Ok(())
        });
        // Of entries with one name the last counts.
        let newest: HashMap<&str, usize> = entries.iter().enumerate().map(|(place, (name, _))| (name.as_ref(), place)).collect();
        let is_map = done.is_ok();
        for (place, (name, value)) in entries.iter().enumerate().filter(|_| is_map) {
            if newest.get(name.as_ref()) != Some(&place) {
                continue;
            }
            // A key is never NULL: an entry whose name does not fit is left out.
            if let Err(reason) = keys.append_map_key(name, limits.reading) {
                done = done.and(Err(reason));
                continue;
            }
            let one = self.items.append_json(Some(*value), limits);
            done = done.and(one);
        }
        self.end(is_map);
        done
    }

    fn finish(&mut self) -> Result<(OffsetBuffer<i32>, ArrayRef, Option<arrow::buffer::NullBuffer>), ArrowError> {
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        if ends.last() == Some(&i32::MAX) {
            return Err(ArrowError::OffsetOverflowError(self.items.len()));
        }
        Ok((OffsetBuffer::new(ends.into()), self.items.finish()?, self.valid.finish()))
    }
}

impl Builder {
    fn append_map_key(&mut self, name: &str, reading: Reading) -> Result<(), Reason> {
        match &mut self.values {
            Values::Utf8(builder) => {
                builder.append_value(name);
                Ok(())
            }
            _ if name.trim().is_empty() => Err("the key of a map is empty"),
            _ => self.append_text(name, reading),
        }
    }
}

impl Structs {
    fn append(&mut self, value: Value<'_>, limits: &mut Limits) -> Result<(), Reason> {
        let found = limits.take(self.children.len()).and_then(|()| self.names.scan_nested(value).map_err(|_| "not a STRUCT"));
        let mut done = found;
        for (place, child) in self.children.iter_mut().enumerate() {
            if found.is_ok() {
                let one = child.append_json(self.names.found(place, value.raw), limits);
                done = done.and(one);
            } else {
                child.append_null();
            }
        }
        self.valid.append(found.is_ok());
        done
    }
}
