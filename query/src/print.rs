//! PRINT: the records of a topic as people read them, from now on or from the first one there is.
//!
//! Called by `push`, which bounds how many run. Nothing is decoded into columns, so that every topic can be printed: a key or value is
//! shown as the format of a stream or table over the topic says, else as text, with bytes that are none escaped.
//! What always holds: records come in position order, nothing is read ahead of the client's demand.

use std::{fmt::Write as _, sync::Arc};

use arrow::{
    array::{ArrayRef, Int32Builder, Int64Builder, StringBuilder, TimestampMillisecondBuilder},
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use foldlog_log::{Chunk, LogReader, PartitionId, Position, ReadLimits, RecordView, Topic, TopicId, TopicKind};
use tokio::sync::watch;

use crate::{
    answer::{ChangeOp, PushItem},
    catalog::{Catalog, Format, Source, timestamp_type},
    error::QueryError,
    push::blocking,
    sql::statement::Print,
};

/// How much of the log one message is made from.
const LIMITS: ReadLimits = ReadLimits { records: 1024, bytes: 1 << 20 };

/// How the bytes of a key or value are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// As text.
    Text,
    /// As the number that Kafka's serialisers write.
    Integer,
    BigInt,
    Double,
}

impl Shown {
    fn of(format: Format, columns: &[&DataType]) -> Self {
        match (format, columns) {
            (Format::Kafka, [DataType::Int32]) => Self::Integer,
            (Format::Kafka, [DataType::Int64]) => Self::BigInt,
            (Format::Kafka, [DataType::Float64]) => Self::Double,
            (Format::None | Format::Kafka | Format::Json | Format::JsonValue | Format::Delimited(_), _) => Self::Text,
        }
    }

    fn text(self, bytes: &[u8]) -> String {
        let number = match self {
            Self::Text => None,
            Self::Integer => bytes.try_into().ok().map(|bytes| i32::from_be_bytes(bytes).to_string()),
            Self::BigInt => bytes.try_into().ok().map(|bytes| i64::from_be_bytes(bytes).to_string()),
            Self::Double => bytes.try_into().ok().map(|bytes| f64::from_be_bytes(bytes).to_string()),
        };
        // What does not fit its format is what there is, all the same.
        number.unwrap_or_else(|| text_of(bytes))
    }
}

/// Bytes as text, those that are none as `\xff`.
fn text_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a String does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// What is printed of a topic.
pub(crate) struct Printing {
    topic: Arc<Topic>,
    key: Shown,
    value: Shown,
    /// One record of so many.
    every: u64,
    /// Records that are still wanted.
    left: u64,
}

impl Printing {
    /// What a statement wants of a topic, its bytes as the first source over it declares them.
    pub(crate) fn new(topic: Arc<Topic>, catalog: &Catalog, print: &Print) -> Self {
        let source = catalog.sources().find(|source| source.topic == topic.name);
        let types = |source: &Source, of_key: bool| {
            let columns = source.written_columns().filter(|column| source.is_in_key(column) == of_key);
            let types: Vec<DataType> = columns.map(|column| column.data_type.clone()).collect();
            Shown::of(if of_key { source.key_format } else { source.value_format }, &types.iter().collect::<Vec<_>>())
        };
        let shown = |of_key| source.map_or(Shown::Text, |source| types(source, of_key));
        Self { key: shown(true), value: shown(false), topic, every: print.every.max(1), left: print.limit.unwrap_or(u64::MAX) }
    }

    /// The topic.
    pub(crate) fn topic(&self) -> &Topic {
        &self.topic
    }

    fn is_of_events(&self) -> bool {
        self.topic.settings.kind == TopicKind::Events
    }

    /// The columns of what is printed.
    pub(crate) fn schema(&self) -> SchemaRef {
        let of_record = [("key", DataType::Utf8), ("value", DataType::Utf8)];
        let of_event = [("stream", DataType::Utf8), ("version", DataType::Int64), ("type", DataType::Utf8), ("data", DataType::Utf8)];
        let told = if self.is_of_events() { of_event.to_vec() } else { of_record.to_vec() };
        let place = [("rowtime", timestamp_type()), ("rowpartition", DataType::Int32), ("rowoffset", DataType::Int64)];
        let fields = place.into_iter().chain(told).map(|(name, data_type)| Field::new(name, data_type, true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// A topic being printed.
pub(crate) struct Following {
    printing: Printing,
    schema: SchemaRef,
    /// None while it reads on another thread.
    reader: Option<Box<dyn LogReader>>,
    /// Everything below it was printed.
    at: Position,
    /// Records that were passed, printed or not.
    passed: u64,
    durable: watch::Receiver<Position>,
}

impl Following {
    pub(crate) fn new(printing: Printing, reader: Box<dyn LogReader>, at: Position, durable: watch::Receiver<Position>) -> Self {
        Self { schema: printing.schema(), printing, reader: Some(reader), at, passed: 0, durable }
    }

    /// The topic that places of it are of.
    pub(crate) fn incarnation(&self) -> TopicId {
        self.printing.topic.id
    }

    /// What was written next, once it is.
    pub(crate) async fn next(&mut self) -> Result<PushItem, QueryError> {
        loop {
            let until = *self.durable.borrow_and_update();
            if self.at >= until {
                self.durable.changed().await.map_err(|_| QueryError::Stopping)?;
                continue;
            }
            let lost = || QueryError::Execution("what was printed was given up in the middle".to_owned());
            let mut reader = self.reader.take().ok_or_else(lost)?;
            let (reader, chunk) = blocking(move || {
                let chunk = reader.read(until, LIMITS)?;
                Ok((reader, chunk))
            })
            .await?;
            self.reader = Some(reader);
            self.at = chunk.scanned_to;
            let printed = self.printed(&chunk)?;
            if printed.rows > 0 {
                let ops = vec![ChangeOp::Insert; printed.rows];
                return Ok(PushItem::Changes { rows: printed.finish(&self.schema)?, ops, position: self.at });
            }
        }
    }
}

impl Following {
    /// What of a chunk is printed; where the limit cuts, what follows was not passed.
    fn printed(&mut self, chunk: &Chunk) -> Result<Printed, QueryError> {
        let mut printed = Printed::new(self.printing.is_of_events());
        for run in &chunk.runs {
            for record in run.records() {
                let record = record?;
                if self.printing.left == 0 {
                    self.at = record.position;
                    return Ok(printed);
                }
                if self.passed.is_multiple_of(self.printing.every) {
                    printed.push(&record, run.partition, &self.printing);
                    self.printing.left -= 1;
                }
                self.passed += 1;
            }
        }
        Ok(printed)
    }
}

/// Columns of what is printed.
struct Printed {
    of_events: bool,
    rows: usize,
    times: TimestampMillisecondBuilder,
    partitions: Int32Builder,
    offsets: Int64Builder,
    keys: StringBuilder,
    versions: Int64Builder,
    types: StringBuilder,
    values: StringBuilder,
}

impl Printed {
    fn new(of_events: bool) -> Self {
        Self {
            of_events,
            rows: 0,
            times: TimestampMillisecondBuilder::new().with_data_type(timestamp_type()),
            partitions: Int32Builder::new(),
            offsets: Int64Builder::new(),
            keys: StringBuilder::new(),
            versions: Int64Builder::new(),
            types: StringBuilder::new(),
            values: StringBuilder::new(),
        }
    }

    fn push(&mut self, record: &RecordView<'_>, partition: PartitionId, printing: &Printing) {
        self.rows += 1;
        self.times.append_value(record.timestamp.get());
        self.partitions.append_option(i32::try_from(partition.get()).ok());
        self.offsets.append_option(i64::try_from(record.offset.get()).ok());
        let shown = |how: Shown, bytes: Option<&[u8]>| bytes.map(|bytes| how.text(bytes));
        self.keys.append_option(shown(printing.key, record.key));
        self.values.append_option(shown(printing.value, record.value));
        if self.of_events {
            let event = record.event();
            self.versions.append_option(event.as_ref().and_then(|event| i64::try_from(event.version.get()).ok()));
            self.types.append_option(event.as_ref().map(|event| event.kind));
        }
    }

    fn finish(mut self, schema: &SchemaRef) -> Result<RecordBatch, QueryError> {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.times.finish()),
            Arc::new(self.partitions.finish()),
            Arc::new(self.offsets.finish()),
            Arc::new(self.keys.finish()),
        ];
        if self.of_events {
            columns.push(Arc::new(self.versions.finish()));
            columns.push(Arc::new(self.types.finish()));
        }
        columns.push(Arc::new(self.values.finish()));
        RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error| QueryError::Execution(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_their_format_says_and_nothing_is_lost() {
        let long = [&DataType::Int64];
        assert_eq!(Shown::of(Format::Kafka, &long).text(&7_i64.to_be_bytes()), "7");
        assert_eq!(Shown::of(Format::Kafka, &long).text(b"1234567"), "1234567", "one that does not fit is text");
        assert_eq!(Shown::of(Format::Kafka, &[&DataType::Float64]).text(&1.5_f64.to_be_bytes()), "1.5");
        assert_eq!(Shown::of(Format::Kafka, &[&DataType::Int32]).text(&(-1_i32).to_be_bytes()), "-1");
        assert_eq!(Shown::of(Format::Json, &long).text(b"{\"a\": 1}"), "{\"a\": 1}");
        assert_eq!(Shown::of(Format::Kafka, &[&DataType::Utf8]).text("ü\u{1b}".as_bytes()), "ü\u{1b}");
        assert_eq!(Shown::Text.text(b"a\xff\x00\xc3"), "a\\xff\0\\xc3");
    }
}
