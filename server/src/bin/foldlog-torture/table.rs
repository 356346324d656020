//! A table with few keys that are written over and deleted without end, so that it is compacted all the time.
//!
//! Whatever compaction does: of each key the newest record is there, or it is a tombstone and nothing is there of that key.

use std::collections::HashMap;

use foldlog_proto::v1::{AppendRequest, AppendResponse, Event, Write};

use crate::{
    check::Verdict,
    given::{Given, Row},
    line::{Script, payload},
    random::Random,
};

/// The topic.
pub const TOPIC: &str = "newest";
const KEYS: u64 = 12;
/// Most records of an append.
const MOST: u64 = 12;

/// See the module.
#[derive(Debug, Default)]
pub struct Table {
    /// What was acknowledged.
    pub given: Given,
    /// Key and number of what was appended last.
    asked: Vec<(String, Option<u64>)>,
    numbers: u64,
}

impl Script for Table {
    fn next(&mut self, random: &mut Random) -> AppendRequest {
        let first = self.numbers + 1;
        self.numbers += 1 + random.below(MOST);
        let mut put = |number| (format!("key-{}", random.below(KEYS)), (random.below(8) > 0).then_some(number));
        self.asked = (first..=self.numbers).map(&mut put).collect();
        let write = |(key, number): &(String, Option<u64>)| Write {
            key: Some(key.clone().into()),
            events: vec![Event { data: number.map(payload), ..Event::default() }],
            ..Write::default()
        };
        AppendRequest { topic: TOPIC.to_owned(), writes: self.asked.iter().map(write).collect(), ..AppendRequest::default() }
    }

    fn acked(&mut self, answer: &AppendResponse) {
        let asked = std::mem::take(&mut self.asked);
        let first = self.given.place(answer, asked.len() as u64);
        for (place, (name, number)) in (0..).zip(asked) {
            let (position, offset) = (first.position + place, first.offset + place);
            self.given.put(Row { position, partition: first.partition, offset, name, version: 0, number });
        }
    }
}

impl Table {
    /// Checks what was read of a log that ends at a position.
    pub fn check(&self, read: &[Row], end: u64) -> Verdict {
        let newest: HashMap<&str, &Row> = self.given.below(end).map(|row| (row.name.as_str(), row)).collect();
        let is_newest = |row: &Row| newest.get(row.name.as_str()) == Some(&row);
        let mut verdict = self.given.check(read, end, |row| row.number.is_some() && is_newest(row));
        let last: HashMap<&str, &Row> = read.iter().map(|row| (row.name.as_str(), row)).collect();
        for row in last.into_values().filter(|row| !is_newest(row)) {
            verdict.repeated(format!(
                "{row:?} is the newest of its key that is read, and was replaced by {:?}",
                newest.get(row.name.as_str())
            ));
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(offset: u64, key: &str, is_tombstone: bool) -> Row {
        let number = (!is_tombstone).then_some(offset);
        Row { position: offset, partition: 0, offset, name: key.to_owned(), version: 0, number }
    }

    /// `a` is written twice, `b` written and deleted.
    fn sample() -> (Table, Vec<Row>) {
        let rows = vec![row(0, "a", false), row(1, "b", false), row(2, "a", false), row(3, "b", true)];
        let mut table = Table::default();
        rows.iter().for_each(|row| table.given.put(row.clone()));
        (table, rows)
    }

    #[test]
    fn whatever_was_replaced_may_be_there_or_not() {
        let (table, rows) = sample();
        for gone in [vec![], vec![0], vec![1], vec![0, 1], vec![1, 3], vec![0, 1, 3]] {
            let read: Vec<_> = rows.iter().filter(|row| !gone.contains(&row.offset)).cloned().collect();
            assert_eq!(table.check(&read, 99), Verdict::default(), "{gone:?}");
        }
    }

    #[test]
    fn a_newest_record_that_is_gone_is_lost() {
        let (table, rows) = sample();
        assert_eq!(table.check(&rows[3..], 99).lost, 1);
        assert_eq!(table.check(&rows[..2], 2), Verdict::default(), "as it was before");
    }

    #[test]
    fn a_key_that_comes_back_behind_its_tombstone_is_objected_to() {
        let (table, rows) = sample();
        assert_eq!(table.check(&rows[..3], 99).repeated, 1);
    }
}
