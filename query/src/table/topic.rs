//! A topic, or a stream or table declared over one, read up to a captured position.
//!
//! Filters on `stream`, `position`, `rowpartition` and `rowoffset` narrow what is read of the log; they are applied again to
//! the rows. A declared table is the newest row of each key: the log is read twice, first for the keys alone.

use std::{collections::HashSet, fmt, sync::Arc};

use arrow::{array::BooleanArray, compute::filter_record_batch, datatypes::SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::{
    catalog::{Session, TableProvider},
    common::ScalarValue,
    error::Result,
    execution::{
        TaskContext,
        memory_pool::{MemoryConsumer, MemoryReservation},
    },
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::ExecutionPlan,
};
use foldlog_log::{LogBackend, LogReader, Offset, PartitionId, Position, ReadLimits, Selection, StreamVersion, TopicKind};
use hashbrown::HashMap;

use super::{
    Readable, Rows,
    filter::{self, Bound},
    scan::ScanExec,
    visible,
};
use crate::{
    catalog::{Pseudo, Source, SourceKind, WantedColumn},
    codec::Decoder,
    error::QueryError,
    stream::{
        operator::{chain::execution, codec::RowCodec, newest::keyless},
        view::Part,
    },
};

/// How much of the log one batch is decoded from.
const LIMITS: ReadLimits = ReadLimits { records: 8192, bytes: 4 << 20 };

/// What one entry of the map of keys costs beyond its bytes.
const KEY_OVERHEAD: usize = 64;

/// A source over a topic as a table.
pub(crate) struct TopicTable {
    log: Arc<dyn LogBackend>,
    source: Arc<Source>,
    until: Position,
    columns: Vec<WantedColumn>,
    schema: SchemaRef,
}

impl fmt::Debug for TopicTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicTable").field("source", &self.source.name).field("until", &self.until).finish_non_exhaustive()
    }
}

impl TopicTable {
    /// The records of `source` below `until` (exclusive).
    pub(crate) fn new(log: Arc<dyn LogBackend>, source: Arc<Source>, until: Position, named: &HashSet<String>) -> Self {
        let columns = visible(&source, named);
        let schema = source.wanted_schema(&columns);
        Self { log, source, until, columns, schema }
    }

    /// Names of the columns that are no part of a `*`; of a topic that nobody declared there are none.
    pub(crate) fn hidden(&self) -> Vec<String> {
        let pseudo = |column: &WantedColumn| match column {
            WantedColumn::Pseudo(pseudo) => Some(pseudo.name().to_owned()),
            WantedColumn::Declared(_) => None,
        };
        if self.source.columns.is_empty() { Vec::new() } else { self.columns.iter().filter_map(pseudo).collect() }
    }

    fn column(&self, name: &str) -> Option<WantedColumn> {
        let place = self.schema.fields().iter().position(|field| field.name() == name)?;
        self.columns.get(place).copied()
    }

    /// Whether a column is the name of an event's stream.
    fn is_stream(&self, column: WantedColumn) -> bool {
        let is_key = |place: usize| self.source.columns.get(place).is_some_and(|column| column.key);
        match column {
            WantedColumn::Pseudo(pseudo) => pseudo == Pseudo::Stream,
            WantedColumn::Declared(place) => self.source.topic_kind == TopicKind::Events && is_key(place),
        }
    }

    /// What of the log the filters leave to be read.
    fn narrow<'a>(&self, filters: impl Iterator<Item = &'a Expr>) -> Narrowed {
        let mut narrowed = Narrowed { until: self.until, ..Narrowed::default() };
        // The newest row of a key must be looked for among all of them.
        if self.source.kind == SourceKind::Table {
            return narrowed;
        }
        for one in filters {
            if let Some((name, values)) = filter::values(one)
                && let (Some(column), [ScalarValue::Utf8(Some(value))]) = (self.column(name), &values[..])
                && self.is_stream(column)
            {
                narrowed.stream = Some(value.clone());
            }
            let Some((name, bound)) = filter::bound(one) else { continue };
            match (self.column(name), bound) {
                (Some(WantedColumn::Pseudo(Pseudo::Position)), bound) => narrowed.position(bound),
                (Some(WantedColumn::Pseudo(Pseudo::RowPartition)), Bound::At(at)) => narrowed.partition = u32::try_from(at).ok(),
                (Some(WantedColumn::Pseudo(Pseudo::RowOffset)), Bound::From(from) | Bound::At(from)) => narrowed.offset = from,
                _ => {}
            }
        }
        narrowed
    }
}

/// Part of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Narrowed {
    stream: Option<String>,
    partition: Option<u32>,
    offset: u64,
    from: Position,
    until: Position,
}

impl Narrowed {
    fn position(&mut self, bound: Bound) {
        let (from, until) = match bound {
            Bound::From(from) => (from, u64::MAX),
            Bound::Until(until) => (0, until),
            Bound::At(at) => (at, at.saturating_add(1)),
        };
        self.from = self.from.max(Position::new(from));
        self.until = self.until.min(Position::new(until));
    }
}

impl fmt::Display for Narrowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.stream, self.partition) {
            (Some(stream), _) => write!(f, "stream {stream:?}")?,
            (None, Some(partition)) => write!(f, "partition {partition} from offset {}", self.offset)?,
            (None, None) => write!(f, "from position {}", self.from)?,
        }
        write!(f, ", up to position {}", self.until)
    }
}

#[async_trait]
impl TableProvider for TopicTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let untouched = self.narrow(std::iter::empty());
        let of = |one: &&Expr| {
            let is_offset = filter::bound(one).and_then(|(name, _)| self.column(name)) == Some(WantedColumn::Pseudo(Pseudo::RowOffset));
            if is_offset || self.narrow(std::iter::once(*one)) != untouched {
                TableProviderFilterPushDown::Inexact
            } else {
                TableProviderFilterPushDown::Unsupported
            }
        };
        Ok(filters.iter().map(of).collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let chosen: Vec<WantedColumn> = match projection {
            Some(places) => places.iter().filter_map(|place| self.columns.get(*place).copied()).collect(),
            None => self.columns.clone(),
        };
        let part = self.narrow(filters.iter());
        let newest = if self.source.kind == SourceKind::Table { ", newest row of each key" } else { "" };
        let label = format!("topic {}, {part}{newest}", self.source.topic);
        let schema = self.source.wanted_schema(&chosen);
        let rows = TopicRows { log: Arc::clone(&self.log), source: Arc::clone(&self.source), chosen, part };
        Ok(Arc::new(ScanExec::new(label, schema, Arc::new(rows))))
    }
}

struct TopicRows {
    log: Arc<dyn LogBackend>,
    source: Arc<Source>,
    chosen: Vec<WantedColumn>,
    part: Narrowed,
}

impl fmt::Debug for TopicRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicRows").field("source", &self.source.name).field("part", &self.part).finish_non_exhaustive()
    }
}

impl TopicRows {
    /// A reader of the part; none where there is nothing that could be in it.
    fn reader(&self) -> Result<Option<Box<dyn LogReader>>, QueryError> {
        let topic = self.source.topic.clone();
        let selection = if let Some(stream) = &self.part.stream {
            let Ok(stream) = stream.parse() else { return Ok(None) };
            Selection::Stream(topic, stream, StreamVersion::FIRST)
        } else if let Some(partition) = self.part.partition {
            let ends = self.log.ends(&topic)?;
            let end = ends.get(partition as usize).map_or(0, |end| end.get());
            if self.part.offset >= end {
                return Ok(None);
            }
            let first = self.log.firsts(&topic)?.get(partition as usize).copied().unwrap_or(Offset::new(0));
            Selection::Partition(topic, PartitionId::new(partition), first.max(Offset::new(self.part.offset)))
        } else {
            Selection::Topics(vec![topic], self.part.from)
        };
        if self.part.from >= self.part.until {
            return Ok(None);
        }
        Ok(Some(self.log.reader(selection)?))
    }

    /// Positions of the newest row of each key, ascending; tombstones leave none.
    fn newest(&self, memory: &MemoryReservation) -> Result<Vec<u64>, QueryError> {
        let Some(mut reader) = self.reader()? else { return Ok(Vec::new()) };
        // Told apart as queries that fold the table do: by what is in the columns, however it is written. A record whose key columns
        // are all NULL has no key.
        let columns: Vec<WantedColumn> = (0..self.source.key_count()).map(WantedColumn::Declared).collect();
        let mut decoder = Decoder::new(&self.source, &columns)?;
        let codec = RowCodec::new(decoder.schema().fields().iter().map(|field| field.data_type().clone()).collect())?;
        let mut newest: HashMap<Bytes, u64> = HashMap::new();
        loop {
            let chunk = reader.read(self.part.until, LIMITS)?;
            let decoded = decoder.decode(&chunk.runs)?;
            let keys = codec.encode_keys(decoded.batch.columns())?;
            let without_key = keyless(decoded.batch.columns(), decoded.positions.len());
            let has_value = |row: usize| decoded.value_null.as_ref().is_none_or(|null| !null.value(row));
            for (row, position) in decoded.positions.iter().enumerate() {
                if without_key.as_ref().is_some_and(|without| without.value(row)) {
                    continue;
                }
                let key = keys.get(row);
                if !has_value(row) {
                    newest.remove(key);
                } else if let Some(known) = newest.get_mut(key) {
                    *known = *position;
                } else {
                    memory.try_grow(key.len() + KEY_OVERHEAD).map_err(|fault| QueryError::ResourceExhausted(fault.to_string()))?;
                    newest.insert(Bytes::copy_from_slice(key), *position);
                }
            }
            if chunk.scanned_to >= self.part.until {
                break;
            }
        }
        let mut positions: Vec<u64> = newest.into_values().collect();
        positions.sort_unstable();
        Ok(positions)
    }
}

impl Readable for TopicRows {
    fn open(self: Arc<Self>, context: &TaskContext) -> Result<Vec<Part<Rows>>, QueryError> {
        let memory = MemoryConsumer::new(format!("keys of {}", self.source.name)).register(context.memory_pool());
        let newest = match self.source.kind {
            SourceKind::Stream => None,
            SourceKind::Table => Some(self.newest(&memory)?),
        };
        let decoder = Decoder::new(&self.source, &self.chosen)?;
        let reader = self.reader()?;
        let until = self.part.until;
        Ok(vec![Part::ToRead(Box::new(Reading { reader, decoder, until, newest, _memory: memory }))])
    }
}

struct Reading {
    /// None at the end.
    reader: Option<Box<dyn LogReader>>,
    decoder: Decoder,
    until: Position,
    /// The positions that are kept, ascending; none: all.
    newest: Option<Vec<u64>>,
    _memory: MemoryReservation,
}

impl Reading {
    fn read(&mut self) -> Result<Option<arrow::record_batch::RecordBatch>, QueryError> {
        while let Some(reader) = &mut self.reader {
            let chunk = reader.read(self.until, LIMITS)?;
            if chunk.scanned_to >= self.until {
                self.reader = None;
            }
            let decoded = self.decoder.decode(&chunk.runs)?;
            let batch = match &self.newest {
                None => decoded.batch,
                Some(newest) => {
                    let keep: BooleanArray =
                        decoded.positions.iter().map(|position| Some(newest.binary_search(position).is_ok())).collect();
                    filter_record_batch(&decoded.batch, &keep).map_err(execution)?
                }
            };
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

impl Iterator for Reading {
    type Item = Result<arrow::record_batch::RecordBatch, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read().transpose();
        if matches!(read, Some(Err(_))) {
            self.reader = None;
        }
        read
    }
}
