//! Where a task's rows come from: records of its source in position order, decoded.
//!
//! Read by the task alone. Invariant: what is returned covers every record of the source below `scanned_to`, once.

use foldlog_log::{LogBackend, LogReader, Position, ReadLimits, Selection, TopicName};

use crate::{
    codec::{BadInput, Decoder},
    error::QueryError,
    plan::SourceScan,
    processing_log::Fault,
    stream::change::ChangeBatch,
};

/// What one step takes in.
pub(crate) struct Taken {
    /// The rows.
    pub(crate) rows: ChangeBatch,
    /// Records read, those that could not be decoded included.
    pub(crate) records: u64,
    /// What could not be decoded; the first few.
    pub(crate) faults: Vec<Fault>,
    /// Number of all faults.
    pub(crate) fault_count: u64,
    /// Every record of the source below this position has been taken.
    pub(crate) scanned_to: Position,
}

/// Gives a task its rows.
pub(crate) trait Intake: Send {
    /// The next rows below `until`, which is durable; at most a step's worth. Blocks on files.
    ///
    /// # Errors
    /// [`QueryError::Log`] where the log cannot be read.
    fn take(&mut self, until: Position) -> Result<Taken, QueryError>;
}

/// Reads and decodes for one task alone.
pub(crate) struct OwnIntake {
    topic: TopicName,
    reader: Box<dyn LogReader>,
    decoder: Decoder,
    limits: ReadLimits,
}

impl OwnIntake {
    /// Reads a source from `from` (inclusive) on.
    ///
    /// # Errors
    /// [`QueryError::Log`] if the topic does not exist, and those of [`Decoder::new`].
    pub(crate) fn new(log: &dyn LogBackend, scan: &SourceScan, from: Position, limits: ReadLimits) -> Result<Self, QueryError> {
        let topic = scan.source.topic.clone();
        Ok(Self {
            reader: log.reader(Selection::Topics(vec![topic.clone()], from))?,
            decoder: Decoder::new(&scan.source, &scan.wanted)?,
            topic,
            limits,
        })
    }
}

impl Intake for OwnIntake {
    fn take(&mut self, until: Position) -> Result<Taken, QueryError> {
        let chunk = self.reader.read(until, self.limits)?;
        let records = chunk.runs.iter().map(|run| u64::from(run.count)).sum();
        let decoded = self.decoder.decode(&chunk.runs)?;
        Ok(Taken {
            rows: ChangeBatch {
                rows: decoded.batch,
                ops: None,
                rowtime: decoded.rowtime,
                positions: decoded.positions,
                value_null: decoded.value_null,
            },
            records,
            faults: decoded.bad.into_iter().map(|bad| fault(&self.topic, bad)).collect(),
            fault_count: decoded.bad_count,
            scanned_to: chunk.scanned_to,
        })
    }
}

/// What could not be decoded, as the processing log tells it.
pub(crate) fn fault(topic: &TopicName, bad: BadInput) -> Fault {
    let (what, reason) = match bad.column {
        Some(column) => ("nulled", format!("{column}: {}", bad.reason)),
        None => ("skipped", bad.reason.into_owned()),
    };
    Fault {
        what,
        topic: Some(topic.to_string()),
        partition: Some(bad.partition.get()),
        offset: Some(bad.offset.get()),
        position: bad.position.get(),
        reason,
    }
}
