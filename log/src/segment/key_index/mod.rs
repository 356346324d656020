//! Stream -> its offsets and versions in one segment.
//!
//! Sorted tables ([`table`]) of pages ([`page`]), the same in memory (active segment) and in a file (`.keys` of a sealed one, pieces in `.keylog` of an
//! active one). Derived: made again from `.log` when missing or damaged. Streams are known by a keyed hash of 128 bits, which is
//! taken for the name everywhere. Format: `log/FORMAT.md`, "Key index".
#![deny(clippy::indexing_slicing)]

mod page;
mod table;

use std::ops::ControlFlow;

use bytes::Bytes;
use siphasher::sip128::SipHasher13;

pub(super) use self::{
    page::{PAGE, is_whole, try_visit},
    table::{KeyTable, TABLE_HEAD, TableHead},
};
use crate::{
    error::LogError,
    ids::{FolderId, Offset, StreamVersion},
    life::{Mark, SnapshotAt},
};

/// Hashes streams' names, differently in every data folder. The key is the folder's id, which tokens carry: no secret.
#[derive(Clone, Copy, Debug)]
pub struct StreamHasher(SipHasher13);

impl StreamHasher {
    /// The hasher of a data folder.
    #[must_use]
    pub fn new(folder: FolderId) -> Self {
        Self(SipHasher13::new_with_key(folder.as_bytes()))
    }

    /// Hash of a stream's name, or of any key.
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> u128 {
        let hash = self.0.hash(key);
        u128::from(hash.h1) << 64 | u128::from(hash.h2)
    }
}

/// One event as the index has it, or a mark, whose version is a number that says what it marks ([`Mark::to_key`]): higher than any
/// event's, so that a stream's marks lie behind its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) stream: u128,
    pub(super) version: u64,
    pub(super) offset: u64,
}

impl Key {
    const fn is_mark(&self) -> bool {
        Mark::is_key(self.version)
    }
}

/// Events of one stream, one behind the other, as whoever appends them knows them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    /// Hash of the stream's name.
    pub(crate) stream: u128,
    pub(crate) first_version: StreamVersion,
    pub(crate) first_offset: Offset,
    pub(crate) count: u32,
}

impl Stretch {
    /// Its keys.
    pub(super) fn keys(self) -> impl Iterator<Item = Key> {
        let key =
            move |place| Key { stream: self.stream, version: self.first_version.get() + place, offset: self.first_offset.get() + place };
        (0..u64::from(self.count)).map(key)
    }
}

const fn upper_half(stream: u128) -> u64 {
    (stream >> 64) as u64
}

/// The key index of a segment: one table when it is sealed, a few that double in size while it is active.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyIndex {
    tables: Vec<KeyTable>,
}

impl KeyIndex {
    pub(super) fn sealed(table: KeyTable) -> Self {
        Self { tables: vec![table] }
    }

    /// One of tables that follow each other.
    pub(super) fn of(tables: &[KeyTable], base: Offset) -> Result<Self, LogError> {
        if tables.is_empty() { Ok(Self::default()) } else { Ok(Self::sealed(table::merge(tables, base)?.0)) }
    }

    /// Everything below this offset is in the index.
    pub(super) fn covers(&self) -> Option<Offset> {
        self.tables.iter().map(|table| table.covers).max()
    }

    /// Adds a newer table, and merges it with older ones that are not much larger.
    pub(super) fn push(&mut self, table: KeyTable, base: Offset) -> Result<(), LogError> {
        let mut size = table.size();
        let mut keep = self.tables.len();
        while let Some(older) = keep.checked_sub(1).and_then(|last| self.tables.get(last)).filter(|older| older.size() <= 2 * size) {
            size += older.size();
            keep -= 1;
        }
        let mut merging = self.tables.split_off(keep);
        merging.push(table);
        let merged = if let [single] = merging.as_slice() { single.clone() } else { table::merge(&merging, base)?.0 };
        self.tables.push(merged);
        Ok(())
    }

    /// All tables as one, with its bytes.
    pub(super) fn merged(&self, base: Offset) -> Result<(KeyTable, Bytes), LogError> {
        table::merge(&self.tables, base)
    }

    /// The first `most` events of a stream of which `is_wanted` holds, in order of version. If it holds for one event, it must
    /// hold for all behind it.
    pub(super) fn look_up(&self, stream: u128, is_wanted: impl Fn(&Key) -> bool, most: usize) -> Result<Vec<Key>, LogError> {
        let mut found = Vec::new();
        // Older tables hold older versions, so versions come in order.
        for table in &self.tables {
            if table.look_up(stream, &is_wanted, up_to(most, &mut found))?.is_break() {
                break;
            }
        }
        Ok(found)
    }

    /// The last `most` events of a stream of which `is_wanted` holds, the newest first. If it holds for one event, it must hold for
    /// all before it.
    pub(super) fn look_up_back(&self, stream: u128, is_wanted: impl Fn(&Key) -> bool, most: usize) -> Result<Vec<Key>, LogError> {
        let mut found = Vec::new();
        for table in self.tables.iter().rev() {
            if table.look_up_back(stream, &is_wanted, up_to(most, &mut found))?.is_break() {
                break;
            }
        }
        Ok(found)
    }

    /// The newest snapshot of a stream as of `at_most` or before that is kept.
    pub(super) fn snapshot(
        &self,
        stream: u128,
        at_most: StreamVersion,
        keeps: impl Fn(SnapshotAt) -> bool,
    ) -> Result<Option<SnapshotAt>, LogError> {
        let mut newest = None;
        for table in &self.tables {
            newest = newest.max(table.snapshot(stream, at_most, &keeps)?);
        }
        Ok(newest)
    }

    /// Where all snapshots of a stream lie.
    pub(super) fn snapshots(&self, stream: u128) -> Result<Vec<Offset>, LogError> {
        let mut all = Vec::new();
        self.tables.iter().try_for_each(|table| table.snapshots(stream, |at| all.push(at.offset)))?;
        Ok(all)
    }

    /// Bytes of pages.
    pub(super) fn size(&self) -> u64 {
        self.tables.iter().map(|table| table.size() as u64).sum()
    }

    pub(super) fn for_each(&self, mut each: impl FnMut(Key)) -> Result<(), LogError> {
        self.tables.iter().try_for_each(|table| table.for_each(&mut each))
    }
}

/// Takes events until there are `most` (at least 1).
fn up_to(most: usize, found: &mut Vec<Key>) -> impl FnMut(Key) -> ControlFlow<()> {
    move |key| {
        found.push(key);
        if found.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::{
        table::{MAGIC, merge},
        *,
    };

    /// Streams' numbers of events, as keys whose offsets interleave.
    fn keys(counts: &[(u128, usize)], base: u64) -> Vec<Key> {
        let mut keys = Vec::new();
        let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
        for round in 0..most {
            for (stream, _) in counts.iter().filter(|(_, count)| *count > round) {
                keys.push(Key { stream: *stream, version: round as u64 + 5, offset: base + keys.len() as u64 });
            }
        }
        keys
    }

    fn found(index: &KeyIndex, stream: u128) -> Vec<(u64, u64)> {
        let found = index.look_up(stream, |_| true, usize::MAX).expect("it is whole");
        found.into_iter().map(|key| (key.version, key.offset)).collect()
    }

    /// Looks up parts of a stream in both directions, by version and by offset.
    fn parts_are_found(index: &KeyIndex, stream: u128, events: &[(u64, u64)]) {
        let pairs = |keys: Vec<Key>| keys.into_iter().map(|key| (key.version, key.offset)).collect::<Vec<_>>();
        for from in [0, 1, events.len() / 3, events.len().saturating_sub(1), events.len()] {
            let (older, newer) = events.split_at(from.min(events.len()));
            for most in [1, 7, events.len() + 1] {
                let is_newer = |key: &Key| newer.first().is_some_and(|(version, _)| key.version >= *version);
                let by_offset = |key: &Key| newer.first().is_some_and(|(_, offset)| key.offset >= *offset);
                let expected = newer.iter().take(most).copied().collect::<Vec<_>>();
                assert_eq!(pairs(index.look_up(stream, is_newer, most).expect("it is whole")), expected, "from {from}, {most}");
                assert_eq!(pairs(index.look_up(stream, by_offset, most).expect("it is whole")), expected, "from {from}, {most}");
                let expected = older.iter().rev().take(most).copied().collect::<Vec<_>>();
                let back = index.look_up_back(stream, |key| !is_newer(key), most).expect("it is whole");
                assert_eq!(pairs(back), expected, "before {from}, {most}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn keys_are_sorted_however_they_come(
            stretches in vec((0..4_u128, 0..300_u64, 1..60_u64), 0..60), cuts in vec(0.0..1.0_f64, 0..4),
        ) {
            let of = |(stream, first, count): (u128, u64, u64)| (first..first + count).map(move |version| (stream, version));
            let all: Vec<Key> = stretches.into_iter().flat_map(of).zip(0..)
                .map(|((stream, version), offset)| Key { stream, version, offset }).collect();
            let mut expected = all.clone();
            expected.sort();
            let mut places = cuts.iter().map(|cut| (all.len() as f64 * cut) as usize).chain([0, all.len()]).collect::<Vec<_>>();
            places.sort_unstable();
            let mut tables = Vec::new();
            for part in places.windows(2) {
                let [from, end] = part else { continue };
                let mut part = all.get(*from..*end).unwrap_or_default().to_vec();
                let bytes = KeyTable::encode(&mut part, Offset::new(0), Offset::new(0));
                tables.push(KeyTable::from_memory(&bytes).expect("it reads back").0);
                part.sort();
                let mut found = Vec::new();
                tables.last().expect("one was pushed").for_each(|key| found.push(key)).expect("it is whole");
                prop_assert_eq!(found, part);
            }
            let mut found = Vec::new();
            merge(&tables, Offset::new(0)).expect("they are whole").0.for_each(|key| found.push(key)).expect("it is whole");
            prop_assert_eq!(found, expected, "also what is there twice");
        }

        #[test]
        fn what_was_put_in_is_found_across_pages_and_merges(
            counts in proptest::collection::btree_map(any::<u128>(), 1..400_usize, 1..60), cuts in vec(0.0..1.0_f64, 0..6), base in 0..1_u64 << 40,
        ) {
            let all = keys(&counts.iter().map(|(stream, count)| (*stream, *count)).collect::<Vec<_>>(), base);
            let mut places = cuts.iter().map(|cut| (all.len() as f64 * cut) as usize).chain([0, all.len()]).collect::<Vec<_>>();
            places.sort_unstable();
            places.dedup();
            let mut index = KeyIndex::default();
            for part in places.windows(2) {
                let [from, end] = part else { continue };
                let mut keys = all.get(*from..*end).unwrap_or_default().to_vec();
                let bytes = KeyTable::encode(&mut keys, Offset::new(base), Offset::new(base + *end as u64));
                let (table, rest) = KeyTable::from_memory(&bytes).expect("it reads back");
                prop_assert!(rest.is_empty());
                index.push(table, Offset::new(base)).expect("it is whole");
            }
            prop_assert_eq!(index.covers(), Some(Offset::new(base + all.len() as u64)));
            let (merged, _) = index.merged(Offset::new(base)).expect("it is whole");
            let mut expected: BTreeMap<u128, Vec<(u64, u64)>> = BTreeMap::new();
            for key in &all {
                expected.entry(key.stream).or_default().push((key.version, key.offset));
            }
            for index in [index, KeyIndex::sealed(merged)] {
                for (stream, events) in &expected {
                    prop_assert_eq!(&found(&index, *stream), events);
                    parts_are_found(&index, *stream, events);
                    prop_assert_eq!(found(&index, stream.wrapping_add(1)), expected.get(&stream.wrapping_add(1)).cloned().unwrap_or_default());
                }
                let mut count = 0;
                index.for_each(|_| count += 1).expect("it is whole");
                prop_assert_eq!(count, all.len());
            }
        }

        #[test]
        fn no_bytes_panic_the_decoder(mut bytes in vec(any::<u8>(), 0..200), is_table in any::<bool>()) {
            if is_table && bytes.len() >= TABLE_HEAD {
                bytes.splice(..4, MAGIC);
                bytes.splice(16..20, 1_u32.to_be_bytes());
            }
            let _ = try_visit(&bytes, None, &mut |_| {});
            if let Some((table, _)) = KeyTable::from_memory(&Bytes::from(bytes)) {
                let _ = table.for_each(|_| {});
            }
        }
    }

    #[test]
    fn marks_lie_behind_events_of_any_number_of_pages_and_are_not_taken_for_them() {
        let life = |first| Mark::from_key(1 << 63 | 1 << 56 | first).expect("it is a mark's").to_key();
        let marks = (0..900).map(|number| Key { stream: 7, version: life(number), offset: 10_000 - number * 5 });
        let mut all = keys(&[(6, 900), (7, 3000), (8, 900)], 0);
        all.extend(marks.clone());
        let bytes = KeyTable::encode(&mut all, Offset::new(0), Offset::new(12_000));
        let (table, _) = KeyTable::from_memory(&bytes).expect("it reads back");
        let index = KeyIndex::sealed(table);
        let events = all.iter().filter(|key| key.stream == 7 && !key.is_mark()).copied().collect::<Vec<_>>();
        parts_are_found(&index, 7, &events.iter().map(|key| (key.version, key.offset)).collect::<Vec<_>>());
        for offset in (0..12_000).step_by(97) {
            let found = index.look_up(7, |key| key.offset >= offset, 1).expect("it is whole");
            assert_eq!(found.first(), events.iter().find(|key| key.offset >= offset), "{offset}");
        }
        let mut found = Vec::new();
        index.for_each(|key| found.extend(key.is_mark().then_some(key))).expect("it is whole");
        assert!(found.into_iter().eq(marks), "also those whose offsets fall as their versions rise");
    }

    #[test]
    fn a_stream_whose_hash_begins_like_anothers_is_not_confused_with_it() {
        let alike = (0..40).map(|low| (7_u128 << 64 | low, 300)).collect::<Vec<_>>();
        let mut all = keys(&alike, 0);
        let bytes = KeyTable::encode(&mut all, Offset::new(0), Offset::new(12_000));
        let (table, _) = KeyTable::from_memory(&bytes).expect("it reads back");
        assert!(table.fences.len() > 3, "it takes several pages to be a test");
        let index = KeyIndex::sealed(table);
        for (stream, count) in alike {
            let events = found(&index, stream);
            assert_eq!(events.len(), count);
            parts_are_found(&index, stream, &events);
        }
        assert!(found(&index, 7 << 64 | 999).is_empty() && found(&index, 6 << 64).is_empty() && found(&index, 8 << 64).is_empty());
    }
}
