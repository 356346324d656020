//! What went wrong with single rows, as records of the system topic `_foldlog.processing_log`.
//!
//! Written by a query's task in the unit of the step that met the row, so that a fault is recorded exactly once. Bounded: the
//! first few a second and query, then one record that counts the rest.

use std::time::Duration;

use bytes::Bytes;
use foldlog_log::NewRecord;
use serde::Serialize;

/// Name of the topic; one partition of plain records.
pub const TOPIC: &str = "_foldlog.processing_log";
/// Records that one query may write a second.
pub const RECORDS_A_SECOND: u32 = 20;
/// Longest reason that is recorded, in bytes.
const MAX_REASON: usize = 512;

/// One fault of one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    /// What became of the row: "skipped", or "nulled" where a part of it became NULL; "stopped" of a query that went no further.
    pub(crate) what: &'static str,
    /// Where the record lies, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) topic: Option<String>,
    /// Its partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partition: Option<u32>,
    /// Its offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<u64>,
    /// Its position.
    pub(crate) position: u64,
    /// Why, without the row's values.
    pub(crate) reason: String,
}

#[derive(Serialize)]
struct Entry<'a> {
    query: &'a str,
    #[serde(flatten)]
    fault: &'a Fault,
}

#[derive(Serialize)]
struct Rest<'a> {
    query: &'a str,
    what: &'static str,
    count: u64,
}

/// Decides which faults of one query become records.
#[derive(Debug, Default)]
pub(crate) struct ProcessingLog {
    /// Beginning of the second that is being counted.
    second: Duration,
    written: u32,
    unwritten: u64,
}

impl ProcessingLog {
    /// The records for a step's faults; `count` is their number, of which `faults` may be the first few.
    pub(crate) fn records(&mut self, query: &str, faults: &[Fault], count: u64, now: Duration) -> Vec<NewRecord> {
        let mut records = Vec::new();
        self.unwritten += count.saturating_sub(faults.len() as u64);
        if now.saturating_sub(self.second) >= Duration::from_secs(1) {
            if self.unwritten > 0 && !faults.is_empty() {
                records.extend(record(query, &Rest { query, what: "more", count: std::mem::take(&mut self.unwritten) }));
            }
            (self.second, self.written) = (now, 0);
        }
        for fault in faults {
            if self.written >= RECORDS_A_SECOND {
                self.unwritten += 1;
                continue;
            }
            self.written += 1;
            let fault = Fault { reason: cut(&fault.reason), ..fault.clone() };
            records.extend(record(query, &Entry { query, fault: &fault }));
        }
        records
    }
}

/// The record of a query that was stopped, and why.
pub(crate) fn stopped(query: &str, position: u64, reason: &str) -> Option<NewRecord> {
    let fault = Fault { what: "stopped", topic: None, partition: None, offset: None, position, reason: cut(reason) };
    record(query, &Entry { query, fault: &fault })
}

fn record(query: &str, entry: &impl Serialize) -> Option<NewRecord> {
    let value = serde_json::to_vec(entry).ok()?;
    Some(NewRecord { key: Some(Bytes::copy_from_slice(query.as_bytes())), value: Some(value.into()), ..NewRecord::default() })
}

fn cut(reason: &str) -> String {
    let end = (0..=MAX_REASON.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    reason.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(position: u64) -> Fault {
        Fault { what: "skipped", topic: None, partition: None, offset: None, position, reason: "not JSON".to_owned() }
    }

    #[test]
    fn the_first_of_a_second_are_recorded_and_the_rest_counted() {
        let mut log = ProcessingLog::default();
        let many: Vec<Fault> = (0..1000).map(fault).collect();
        let start = Duration::from_secs(7);
        assert_eq!(log.records("q", &many, 1000, start).len(), RECORDS_A_SECOND as usize);
        assert_eq!(log.records("q", &many, 1000, start + Duration::from_millis(999)).len(), 0);
        let next = log.records("q", &[fault(1)], 1, start + Duration::from_secs(1));
        let texts: Vec<String> = next.iter().map(|record| String::from_utf8(record.value.as_ref().unwrap().to_vec()).unwrap()).collect();
        assert_eq!(
            texts,
            [r#"{"query":"q","what":"more","count":1980}"#, r#"{"query":"q","what":"skipped","position":1,"reason":"not JSON"}"#]
        );
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(cut(&"é".repeat(1000)).len(), MAX_REASON);
        assert_eq!(cut(&format!("a{}", "é".repeat(1000))).len(), MAX_REASON - 1);
    }
}
