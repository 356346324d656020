//! What was acknowledged in a topic from which something goes, and whether what is read can be what is left of it: pure.
//!
//! Kept by [`crate::table`], [`crate::lives`] and [`crate::recent`], which say what must not go. Whatever goes: what is read is what was acknowledged, at
//! its place; what is gone never comes again; no place is given twice.

use std::collections::{BTreeMap, BTreeSet};

use foldlog_proto::v1::{AppendResponse, AppendedRange};

use crate::check::Verdict;

/// A record or an event, as it was acknowledged or as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Position.
    pub position: u64,
    /// Partition.
    pub partition: u32,
    /// Offset there.
    pub offset: u64,
    /// Its stream or its key.
    pub name: String,
    /// Version in the stream; 0 for records.
    pub version: u64,
    /// What it says: a number that no other has; none: it is a tombstone.
    pub number: Option<u64>,
}

/// Place of the first record of an append.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Position.
    pub position: u64,
    /// Partition.
    pub partition: u32,
    /// Offset there.
    pub offset: u64,
}

/// Everything that was acknowledged in a topic.
#[derive(Debug, Default)]
pub struct Given {
    rows: BTreeMap<u64, Row>,
    /// Positions of those that were read once or might have been, and are not any more.
    gone: BTreeSet<u64>,
    /// By partition, the offset that comes next.
    ends: BTreeMap<u32, u64>,
    /// Position behind all that was acknowledged.
    end: u64,
    verdict: Verdict,
}

impl Given {
    /// Takes the answer to an append of so many records in one partition, and tells where the first one lies.
    pub fn place(&mut self, answer: &AppendResponse, count: u64) -> Place {
        let position = answer.first_position;
        let [AppendedRange { partition, first_offset: offset, last_offset, .. }] = *answer.ranges.as_slice() else {
            self.verdict.gap(format!("an append to one partition has these: {answer:?}"));
            return Place { position, partition: 0, offset: 0 };
        };
        let end = self.ends.insert(partition, last_offset + 1).unwrap_or_default();
        let is_whole = last_offset + 1 - offset == count && answer.last_position + 1 - position == count;
        if offset != end || !is_whole || position < self.end {
            self.verdict.gap(format!("{count} records are acknowledged where offset {end} comes next: {answer:?}"));
        }
        self.end = answer.last_position + 1;
        Place { position, partition, offset }
    }

    /// Position behind all that was acknowledged.
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Something was acknowledged.
    pub fn put(&mut self, row: Row) {
        self.rows.insert(row.position, row);
    }

    /// What was acknowledged below a position.
    pub fn below(&self, end: u64) -> impl Iterator<Item = &Row> {
        self.rows.range(..end).map(|(_, row)| row)
    }

    /// How many are gone.
    pub fn gone(&self) -> u64 {
        self.gone.len() as u64
    }

    /// Objections to answers since the last call.
    pub fn take_verdict(&mut self) -> Verdict {
        std::mem::take(&mut self.verdict)
    }

    /// Checks what was read in position order, of a log that ends at a position, against what was acknowledged.
    pub fn check(&self, read: &[Row], end: u64, must_be_there: impl Fn(&Row) -> bool) -> Verdict {
        let mut verdict = Verdict::default();
        let mut positions = BTreeSet::new();
        for row in read {
            if row.position >= end || self.rows.get(&row.position) != Some(row) {
                verdict.repeated(format!("nobody wrote {row:?}, or not there: {:?}", self.rows.get(&row.position)));
            }
            if positions.last().is_some_and(|last| *last >= row.position) {
                verdict.gap(format!("{row:?} follows position {:?}", positions.last()));
            }
            positions.insert(row.position);
        }
        for row in self.below(end).filter(|row| !positions.contains(&row.position) && must_be_there(row)) {
            verdict.lost(format!("{row:?}"));
        }
        verdict
    }

    /// Takes down what is gone of a log in which this was read, and objects to what was gone and is there again.
    pub fn leaves(&mut self, read: &[Row]) -> Verdict {
        let mut verdict = Verdict::default();
        let there: BTreeSet<u64> = read.iter().map(|row| row.position).collect();
        for position in self.gone.intersection(&there) {
            verdict.repeated(format!("position {position} was gone and is there again"));
        }
        self.gone.extend(self.rows.keys().filter(|position| !there.contains(position)));
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(offset: u64) -> Row {
        Row { position: 10 + offset, partition: 0, offset, name: "n".to_owned(), version: 0, number: Some(offset) }
    }

    fn answer(position: u64, offset: u64, count: u64) -> AppendResponse {
        let range = AppendedRange { first_offset: offset, last_offset: offset + count - 1, ..AppendedRange::default() };
        AppendResponse { first_position: position, last_position: position + count - 1, ranges: vec![range], ..AppendResponse::default() }
    }

    /// Three records of one append, the first of which may go.
    fn sample() -> Given {
        let mut given = Given::default();
        given.place(&answer(10, 0, 3), 3);
        (0..3).for_each(|offset| given.put(row(offset)));
        assert!(given.take_verdict().is_clean());
        given
    }

    fn check(read: &[Row], end: u64) -> Verdict {
        sample().check(read, end, |row| row.offset > 0)
    }

    #[test]
    fn what_may_go_may_be_there_or_not() {
        assert!(check(&[row(0), row(1), row(2)], 99).is_clean() && check(&[row(1), row(2)], 99).is_clean());
        assert!(check(&[row(1)], 12).is_clean(), "a log that ends before");
    }

    #[test]
    fn what_must_be_there_and_is_not_is_lost() {
        assert_eq!(check(&[row(0), row(1)], 99).lost, 1);
        assert_eq!(check(&[row(0)], 12).lost, 1);
    }

    #[test]
    fn what_says_something_else_or_lies_elsewhere_is_objected_to() {
        for corrupt in [
            |row: &mut Row| row.number = None,
            |row: &mut Row| row.offset += 1,
            |row: &mut Row| row.version += 1,
            |row: &mut Row| row.name.push('x'),
        ] {
            let mut read = [row(0), row(1), row(2)];
            corrupt(&mut read[1]);
            assert_eq!(check(&read, 99).repeated, 1);
        }
        assert_eq!(check(&[row(1), row(2)], 12).repeated, 1, "it lies behind the end");
        assert_eq!(check(&[row(2), row(1)], 99).gaps, 1);
    }

    #[test]
    fn a_place_that_is_given_twice_or_left_out_is_a_gap() {
        for (position, offset, count, is_good) in
            [(13, 3, 2, true), (20, 3, 2, true), (13, 2, 2, false), (13, 4, 2, false), (12, 3, 2, false), (13, 3, 1, false)]
        {
            let mut given = sample();
            given.place(&answer(position, offset, count), 2);
            assert_eq!(given.take_verdict().is_clean(), is_good, "{count} at {position}, {offset}");
        }
    }

    #[test]
    fn what_was_gone_and_comes_again_is_repeated() {
        let mut given = sample();
        assert!(given.leaves(&[row(1), row(2)]).is_clean());
        assert_eq!((given.gone(), given.leaves(&[row(1), row(2)]).is_clean()), (1, true));
        assert_eq!(given.leaves(&[row(0), row(1), row(2)]).repeated, 1);
    }
}
