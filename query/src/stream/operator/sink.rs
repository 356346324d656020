//! The end of a chain: rows become records of the sink's topic.

use foldlog_log::{NewRecord, Timestamp, TopicName, batch::MAX_RECORD_LEN};

use crate::{
    answer::ChangeOp,
    codec::{Carried, Encoder},
    error::QueryError,
    stream::{change::ChangeBatch, operator::chain::Faults},
};

/// Room that a record's key, headers and lengths may take beside its value.
const BESIDE_VALUE: usize = 1024;

/// Encodes what a query writes.
pub(crate) struct TopicSink {
    topic: TopicName,
    encoder: Encoder,
}

impl TopicSink {
    pub(crate) fn new(topic: TopicName, encoder: Encoder) -> Self {
        Self { topic, encoder }
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
        for row in 0..output.len() {
            let deleted = output.ops.as_ref().and_then(|ops| ops.get(row)) == Some(&ChangeOp::Delete);
            let without_value = deleted || output.value_null.as_ref().is_some_and(|null| null.value(row));
            let keyless = output.positions.get(row).is_some_and(|position| carried.without_key.contains(position));
            let key = rows.key(row).filter(|_| !keyless || !rows.key_is_null(row));
            let value = if without_value { None } else { rows.value(row) };
            let headers = output.positions.get(row).and_then(|position| carried.headers.get(position)).cloned().unwrap_or_default();
            let beside: usize = headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, |value| value.len())).sum();
            let size = beside + key.as_ref().map_or(0, |key| key.len()) + value.as_ref().map_or(0, |value| value.len());
            if size > MAX_RECORD_LEN - BESIDE_VALUE {
                let position = output.positions.get(row).copied().unwrap_or_default();
                faults.push((position, format!("the result has {size} bytes, a record may have {MAX_RECORD_LEN}; it was not written")));
                continue;
            }
            let own = output.rowtime.get(row).copied();
            let time = match rows.time(row) {
                _ if without_value => own,
                Ok(Some(time)) if time >= 0 || !rows.needs_time() => Some(time),
                Ok(None) => own,
                outcome => {
                    let reason = outcome.err().unwrap_or("before 1970");
                    let position = output.positions.get(row).copied().unwrap_or_default();
                    let what = if rows.needs_time() { "it was not written" } else { "it has its row's time" };
                    faults.push((position, format!("the column with the time is {reason}; {what}")));
                    if rows.needs_time() {
                        continue;
                    }
                    own
                }
            };
            let time = time.map(Timestamp::new);
            records.push(NewRecord { key, value, headers, time });
        }
        Ok(records)
    }
}
