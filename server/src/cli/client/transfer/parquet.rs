//! An exported topic as Parquet, both ways: a column for each of [`super::columns`], bytes as bytes and a null as a null.
//!
//! Rows are written in groups, so that memory is bounded by a group. What is read may come from other programs: a column of bytes may
//! be text, a time may count microseconds.

use std::{fs::File, io::Write, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use foldlog_sdk::{Recorded, TopicKind};
use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{BoolType, ByteArray, ByteArrayType, Int64Type},
    errors::ParquetError,
    file::{properties::WriterProperties, reader::FileReader as _, serialized_reader::SerializedFileReader, writer::SerializedFileWriter},
    record::{Field, Row, reader::RowIter},
    schema::parser::parse_message_type,
};
use serde_json::{Map, Value};

use super::columns;

/// Rows and bytes of payload after which a group is written.
const GROUP_ROWS: usize = 100_000;
const GROUP_BYTES: usize = 32 << 20;

const OF_EVENTS: &str = "message events {
    required int64 position; required int64 partition; required int64 offset;
    required binary stream (UTF8); required int64 version; required binary type (UTF8);
    required int64 time (TIMESTAMP_MILLIS); required int64 recorded_at (TIMESTAMP_MILLIS);
    optional binary data; required boolean redacted; optional binary content_type (UTF8); optional binary schema (UTF8); optional binary event_id (UTF8);
    optional binary correlation_id; optional binary causation_id;
    optional binary tags (JSON); optional binary attributes (JSON);
    optional binary traceparent (UTF8); optional binary tracestate (UTF8);
}";
const OF_RECORDS: &str = "message records {
    required int64 position; required int64 partition; required int64 offset;
    optional binary key; optional binary value; optional binary headers_base64 (JSON);
    required int64 time (TIMESTAMP_MILLIS); required int64 recorded_at (TIMESTAMP_MILLIS);
}";

/// A file that is written.
pub struct Writer<W: Write + Send> {
    file: SerializedFileWriter<W>,
    kind: TopicKind,
    group: Vec<Recorded>,
    bytes: usize,
}

impl<W: Write + Send> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(out: W, kind: TopicKind) -> Result<Self, ParquetError> {
        let schema = parse_message_type(if kind == TopicKind::Events { OF_EVENTS } else { OF_RECORDS })?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let file = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?;
        Ok(Self { file, kind, group: Vec::new(), bytes: 0 })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, event: &Recorded) -> Result<(), ParquetError> {
        self.bytes += event.data.as_ref().map_or(0, |data| data.len()) + event.key.as_ref().map_or(0, |key| key.len());
        self.group.push(event.clone());
        if self.group.len() >= GROUP_ROWS || self.bytes >= GROUP_BYTES { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.file.next_row_group()?;
        let names: Vec<_> = columns::names(self.kind).iter().filter(|name| !name.ends_with("_is")).collect();
        for name in names {
            let Some(mut column) = group.next_column()? else { break };
            match *name {
                "position" | "partition" | "offset" | "version" | "time" | "recorded_at" => {
                    let numbers: Vec<i64> = self.group.iter().map(|event| number(event, name)).collect();
                    column.typed::<Int64Type>().write_batch(&numbers, None, None)?;
                }
                "redacted" => {
                    let marks: Vec<_> = self.group.iter().map(|event| event.redacted).collect();
                    column.typed::<BoolType>().write_batch(&marks, None, None)?;
                }
                "stream" | "type" => {
                    let values: Vec<_> = self.group.iter().map(|event| bytes(event, name).unwrap_or_else(|| Vec::new().into())).collect();
                    column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
                }
                _ => {
                    let values: Vec<_> = self.group.iter().map(|event| bytes(event, name)).collect();
                    let is_there: Vec<i16> = values.iter().map(|value| value.is_some().into()).collect();
                    let values: Vec<_> = values.into_iter().flatten().collect();
                    column.typed::<ByteArrayType>().write_batch(&values, Some(&is_there), None)?;
                }
            }
            column.close()?;
        }
        group.close()?;
        self.group.clear();
        self.bytes = 0;
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self) -> Result<W, ParquetError> {
        if !self.group.is_empty() {
            self.write_group()?;
        }
        self.file.into_inner()
    }
}

fn number(event: &Recorded, column: &str) -> i64 {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    match column {
        "position" => whole(event.position),
        "partition" => event.partition.into(),
        "offset" => whole(event.offset),
        "version" => whole(event.version),
        "time" => event.time_ms,
        _ => event.recorded_at_ms,
    }
}

fn bytes(event: &Recorded, column: &str) -> Option<ByteArray> {
    let some = |bytes: &Bytes| (!bytes.is_empty()).then(|| bytes.clone().into());
    match column {
        "data" if !event.redacted => Some(event.data.clone().unwrap_or_default().into()),
        "value" => event.data.clone().map(Into::into),
        "key" => event.key.clone().map(Into::into),
        "correlation_id" => some(&event.correlation_id),
        "causation_id" => some(&event.causation_id),
        _ => Some(columns::cell(event, column)).filter(|text| !text.is_empty()).map(|text| text.into_bytes().into()),
    }
}

/// The rows of a file, and how many there are.
///
/// # Errors
/// What is wrong with it.
pub fn rows(file: File) -> Result<(RowIter<'static>, u64), String> {
    let reader = SerializedFileReader::new(file).map_err(|error| error.to_string())?;
    let rows = u64::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or(0);
    Ok((reader.into_iter(), rows))
}

/// The JSON line that a row stands for.
///
/// # Errors
/// Which column is wrong, and how.
pub fn line(row: &Row) -> Result<String, String> {
    let mut members = Map::new();
    for (name, field) in row.get_column_iter() {
        let is_bytes = columns::of_bytes(name);
        let value = match (field, is_bytes) {
            (Field::Null, Some(_)) if name == "value" => Some((name.clone(), Value::Null)),
            (Field::Null, _) => None,
            (Field::Bytes(bytes), Some(_)) => Some((format!("{name}_base64"), BASE64_STANDARD.encode(bytes.data()).into())),
            (Field::Str(text), Some(ending)) => Some((format!("{name}{ending}"), text.as_str().into())),
            (field, _) => Some((name.clone(), scalar(name, field)?)),
        };
        members.extend(value);
    }
    Ok(Value::Object(members).to_string())
}

fn scalar(name: &str, field: &Field) -> Result<Value, String> {
    let text = match field {
        Field::Str(text) => text.clone(),
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).map_err(|_| format!("column {name} is not text"))?.to_owned(),
        Field::TimestampMillis(ms) => ms.to_string(),
        Field::TimestampMicros(us) => us.div_euclid(1000).to_string(),
        Field::Bool(is_so) => is_so.to_string(),
        Field::Byte(number) => number.to_string(),
        Field::Short(number) => number.to_string(),
        Field::Int(number) => number.to_string(),
        Field::Long(number) => number.to_string(),
        Field::UByte(number) => number.to_string(),
        Field::UShort(number) => number.to_string(),
        Field::UInt(number) => number.to_string(),
        Field::ULong(number) => number.to_string(),
        _ => return Err(format!("column {name} is neither text, bytes, a whole number, a time, true nor false")),
    };
    columns::value(name, &text)
}
