//! The end of a chain: rows become records of the sink's topic.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use foldlog_log::{NewRecord, Timestamp, TopicName, batch::MAX_RECORD_LEN};

use crate::{
    answer::ChangeOp,
    codec::{Carried, EncodedRows, Encoder},
    error::QueryError,
    stream::{change::ChangeBatch, operator::chain::Faults},
};

/// Room that a record's key, headers and lengths may take beside its value.
const BESIDE_VALUE: usize = 1024;
/// Room is made for records of no more than this length before they are written.
const LONG_RECORD: usize = 4096;

/// Encodes what a query writes.
pub(crate) struct TopicSink {
    topic: TopicName,
    encoder: Encoder,
    /// About how long the last records were.
    mean_len: AtomicUsize,
}

impl TopicSink {
    pub(crate) fn new(topic: TopicName, encoder: Encoder) -> Self {
        Self { topic, encoder, mean_len: AtomicUsize::new(0) }
    }

    pub(crate) fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// One record a row, with the headers of the record that it came from, if these are carried on: its value, or none for `-D` and for a row without a value. A record too large for the log is a fault
    /// of its row.
    ///
    /// # Errors
    /// [`QueryError::Execution`] where columns do not fit the sink, which is a fault of ours.
    pub(crate) fn records(&self, output: &ChangeBatch, carried: &Carried, faults: &mut Faults) -> Result<Vec<NewRecord>, QueryError> {
        let rows = self.encoder.rows(&output.rows)?;
        let mut records = Vec::with_capacity(output.len());
        // Records of one batch are written behind each other, and share the memory.
        let mut bytes = Vec::with_capacity(output.len() * self.mean_len());
        let mut places = Vec::with_capacity(output.len());
        for row in 0..output.len() {
            let deleted = output.ops.as_ref().and_then(|ops| ops.get(row)) == Some(&ChangeOp::Delete);
            let without_value = deleted || output.value_null.as_ref().is_some_and(|null| null.value(row));
            let position = output.positions.get(row).copied();
            let keyless = position.is_some_and(|position| carried.without_key.contains(&position)) && rows.key_is_null(row);
            let from = bytes.len();
            let key = if keyless { None } else { rows.write_key(row, &mut bytes) };
            let value = if without_value { None } else { rows.write_value(row, &mut bytes) };
            let headers = position.and_then(|position| carried.headers.get(&position)).cloned().unwrap_or_default();
            let beside: usize = headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, |value| value.len())).sum();
            let size = beside + bytes.len() - from;
            let time = if size > MAX_RECORD_LEN - BESIDE_VALUE {
                Err(format!("the result has {size} bytes, a record may have {MAX_RECORD_LEN}; it was not written"))
            } else if without_value {
                Ok(output.rowtime.get(row).copied())
            } else {
                self.time(&rows, output, row, faults)
            };
            match time {
                Ok(time) => {
                    records.push(NewRecord { headers, time: time.map(Timestamp::new), ..NewRecord::default() });
                    places.push((key, value));
                }
                Err(reason) => {
                    bytes.truncate(from);
                    faults.push((position.unwrap_or_default(), reason));
                }
            }
        }
        self.learn(bytes.len(), records.len());
        let bytes = Bytes::from(bytes);
        for (record, (key, value)) in records.iter_mut().zip(places) {
            record.key = key.map(|key| bytes.slice(key));
            record.value = value.map(|value| bytes.slice(value));
        }
        Ok(records)
    }

    /// When a row with a value happened; what is wrong with that if it is not written.
    fn time(&self, rows: &EncodedRows<'_>, output: &ChangeBatch, row: usize, faults: &mut Faults) -> Result<Option<i64>, String> {
        let own = output.rowtime.get(row).copied();
        let reason = match rows.time(row) {
            Ok(None) => return Ok(own),
            Ok(Some(time)) if time >= 0 || !rows.needs_time() => return Ok(Some(time)),
            Ok(Some(_)) => "before 1970",
            Err(reason) => reason,
        };
        if rows.needs_time() {
            return Err(format!("the column with the time is {reason}; it was not written"));
        }
        let position = output.positions.get(row).copied().unwrap_or_default();
        faults.push((position, format!("the column with the time is {reason}; it has its row's time")));
        Ok(own)
    }

    fn mean_len(&self) -> usize {
        self.mean_len.load(Ordering::Relaxed)
    }

    /// Notes how long records are, for the next batch.
    fn learn(&self, bytes: usize, records: usize) {
        if let Some(mean) = bytes.checked_div(records) {
            self.mean_len.store((mean + mean / 8).min(LONG_RECORD), Ordering::Relaxed);
        }
    }
}
