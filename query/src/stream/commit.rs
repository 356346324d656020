//! A step's effects as one unit: its outputs, its faults, and how far the query has come.
//!
//! Progress is one record of the system topic `_foldlog.progress`, in the same unit as the outputs, so that a crash takes back both
//! or neither. Invariant: what a progress record says is folded has been output, and nothing more has.

use std::collections::HashMap;

use bytes::Bytes;
use foldlog_log::{
    Append, Durability, LogBackend, NewRecord, PartitionId, Position, ReadLimits, Selection, TopicKind, TopicName, TopicSettings, Write,
};
use serde::{Deserialize, Serialize};

use crate::{error::QueryError, processing_log};

/// Name of the topic of progress: one partition, key: query, value: [`Progress`] as JSON.
pub(crate) const PROGRESS_TOPIC: &str = "_foldlog.progress";

/// How far a query has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Everything of its sources below this position is folded, and its outputs are in the log.
    pub(crate) position: u64,
    /// Where its fold started; a progress of another start belongs to another query.
    pub(crate) start: u64,
    /// Which plan its state belonged to.
    pub(crate) fingerprint: u64,
}

/// Progress as found in the log, and the end of the unit that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recalled {
    pub(crate) progress: Progress,
    pub(crate) end: Position,
}

/// The topics that queries write beside their sinks.
#[derive(Clone, Debug)]
pub(crate) struct SystemTopics {
    progress: TopicName,
    processing_log: TopicName,
}

impl SystemTopics {
    /// Creates those that do not exist yet (blocking).
    ///
    /// # Errors
    /// [`QueryError::Log`].
    pub(crate) fn open(log: &dyn LogBackend) -> Result<Self, QueryError> {
        let named = |name: &str| name.parse::<TopicName>().map_err(foldlog_log::LogError::from);
        let topics = Self { progress: named(PROGRESS_TOPIC)?, processing_log: named(processing_log::TOPIC)? };
        log.create_topic(topics.progress.clone(), TopicSettings::new(TopicKind::Table, 1))?;
        log.create_topic(topics.processing_log.clone(), TopicSettings::new(TopicKind::Records, 1))?;
        Ok(topics)
    }

    /// Reads how far every query had come (blocking).
    ///
    /// # Errors
    /// [`QueryError::Log`]. A record that is not a progress is left out: it can only come from outside.
    pub(crate) fn recall(&self, log: &dyn LogBackend) -> Result<HashMap<String, Recalled>, QueryError> {
        let end = log.head().position;
        let mut reader = log.reader(Selection::Topics(vec![self.progress.clone()], Position::default()))?;
        let mut newest = HashMap::new();
        loop {
            let chunk = reader.read(end, ReadLimits::default())?;
            for run in &chunk.runs {
                for record in run.records() {
                    let record = record?;
                    let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
                    let progress = record.value.and_then(|value| serde_json::from_slice::<Progress>(value).ok());
                    if let (Some(key), Some(progress)) = (key, progress) {
                        newest.insert(key.to_owned(), Recalled { progress, end: record.position.plus(1) });
                    }
                }
            }
            if chunk.scanned_to >= end {
                return Ok(newest);
            }
        }
    }

    /// One fault alone: it belongs to no step.
    pub(crate) fn fault(&self, record: NewRecord) -> Append {
        let write = Write::Records { topic: self.processing_log.clone(), partition: Some(PartitionId::new(0)), records: vec![record] };
        Append { writes: vec![write], ..Append::default() }
    }

    /// Outputs to the sink's topic alone.
    pub(crate) fn outputs(topic: &TopicName, records: Vec<NewRecord>) -> Append {
        let write = Write::Records { topic: topic.clone(), partition: None, records };
        Append { writes: vec![write], durability: Some(Durability::Synced), ..Append::default() }
    }

    /// One unit: outputs to the sink's topic, faults, progress.
    pub(crate) fn unit(
        &self,
        query: &str,
        outputs: Option<(&TopicName, Vec<NewRecord>)>,
        faults: Vec<NewRecord>,
        progress: Progress,
    ) -> Result<Append, QueryError> {
        let value = serde_json::to_vec(&progress).map_err(|error| QueryError::Execution(error.to_string()))?;
        let progress = NewRecord { key: Some(Bytes::copy_from_slice(query.as_bytes())), value: Some(value.into()), ..NewRecord::default() };
        let mut writes = Vec::with_capacity(3);
        if let Some((topic, records)) = outputs.filter(|(_, records)| !records.is_empty()) {
            writes.push(Write::Records { topic: topic.clone(), partition: None, records });
        }
        let one = Some(PartitionId::new(0));
        if !faults.is_empty() {
            writes.push(Write::Records { topic: self.processing_log.clone(), partition: one, records: faults });
        }
        // The progress comes last: its position is the end of the unit.
        writes.push(Write::Records { topic: self.progress.clone(), partition: one, records: vec![progress] });
        // A step is shown when its unit is answered, whatever the topic of the outputs has.
        Ok(Append { writes, durability: Some(Durability::Synced), ..Append::default() })
    }
}
