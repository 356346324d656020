//! Records of which the newest bytes are kept, so that whole segments go all the time.
//!
//! Whatever retention does: of each partition there is a whole end, it is as long as asked for, and where it begins never moves back.

use std::collections::BTreeMap;

use foldlog_proto::v1::{AppendRequest, AppendResponse, Event, Write};

use crate::{
    check::Verdict,
    given::{Given, Row},
    line::{Script, payload},
    random::Random,
};

/// The topic.
pub const TOPIC: &str = "recent";
/// Partitions.
pub const PARTITIONS: u32 = 2;
/// Bytes of batches that are kept of each, here and in [`crate::aged`].
pub const KEPT_BYTES: u64 = 64 << 10;
/// No record takes more of them.
const MOST_BYTES: u64 = 2_300;
/// Most records of an append.
const MOST: u64 = 8;

/// See the module.
#[derive(Debug, Default)]
pub struct Recent {
    /// What was acknowledged.
    pub given: Given,
    asked: Vec<u64>,
    numbers: u64,
}

impl Script for Recent {
    fn next(&mut self, random: &mut Random) -> AppendRequest {
        let count = 1 + random.below(MOST);
        self.asked = (self.numbers..self.numbers + count).collect();
        self.numbers += count;
        let event = |number: &u64| Event { data: Some(payload(*number)), ..Event::default() };
        let partition = u32::try_from(random.below(PARTITIONS.into())).ok();
        let write = Write { partition, events: self.asked.iter().map(event).collect(), ..Write::default() };
        AppendRequest { topic: TOPIC.to_owned(), writes: vec![write], ..AppendRequest::default() }
    }

    fn acked(&mut self, answer: &AppendResponse) {
        let asked = std::mem::take(&mut self.asked);
        let first = self.given.place(answer, asked.len() as u64);
        for (place, number) in (0..).zip(asked) {
            let (position, offset) = (first.position + place, first.offset + place);
            self.given.put(Row { position, partition: first.partition, offset, name: String::new(), version: 0, number: Some(number) });
        }
    }
}

impl Recent {
    /// Checks what was read of a log that ends at a position.
    pub fn check(&self, read: &[Row], end: u64) -> Verdict {
        check(&self.given, read, end)
    }
}

/// Checks what was read of a topic with that retention, of a log that ends at a position.
pub fn check(given: &Given, read: &[Row], end: u64) -> Verdict {
    let mut firsts: BTreeMap<u32, u64> = BTreeMap::new();
    for row in read {
        firsts.entry(row.partition).or_insert(row.offset);
    }
    let is_kept = kept(given, end);
    given.check(read, end, |row| is_kept(row) || firsts.get(&row.partition).is_some_and(|first| row.offset >= *first))
}

/// Whether a record is kept whatever comes, in a log that ends at a position.
pub fn kept(given: &Given, end: u64) -> impl Fn(&Row) -> bool {
    let ends: BTreeMap<u32, u64> = given.below(end).map(|row| (row.partition, row.offset + 1)).collect();
    move |row| ends.get(&row.partition).is_some_and(|end| end - row.offset <= KEPT_BYTES / MOST_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred records of a partition.
    fn sample() -> (Recent, Vec<Row>) {
        let row = |offset| Row { position: 7 + offset, partition: 1, offset, name: String::new(), version: 0, number: Some(offset) };
        let rows: Vec<_> = (0..100).map(row).collect();
        let mut recent = Recent::default();
        rows.iter().for_each(|row| recent.given.put(row.clone()));
        (recent, rows)
    }

    #[test]
    fn the_oldest_may_go_and_nothing_else() {
        let (recent, rows) = sample();
        assert!(recent.check(&rows, 999).is_clean() && recent.check(&rows[60..], 999).is_clean());
        assert!(recent.check(&rows[..60], 67).is_clean(), "as it was before");
        let mut with_a_hole = rows.clone();
        with_a_hole.remove(20);
        assert_eq!(recent.check(&with_a_hole, 999).lost, 1);
        assert_eq!(recent.check(&rows[..99], 999).lost, 1, "the newest");
    }

    #[test]
    fn more_than_was_asked_for_must_not_go() {
        let (recent, rows) = sample();
        assert_eq!(recent.check(&rows[80..], 999).lost, 8);
        assert_eq!(recent.check(&[], 999).lost, 28);
    }
}
