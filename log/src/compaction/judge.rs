//! What becomes of a record, and of the batch it lies in. Pure.
//!
//! A pass asks for each batch of the segments that it writes anew. Invariants: the newest record of a key stays unless it is a tombstone
//! that was there for long enough; a tombstone goes only when all that it deletes went in a pass before.

use super::keys::Keys;
use crate::{
    batch::{BatchHeader, Flaw, HEADER_LEN, Kept, StoredRecord, StoredRecords, retain},
    ids::{Offset, Timestamp},
    segment::Fate,
};

/// What a pass knows when it writes segments anew.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge<'a> {
    pub(super) keys: &'a Keys,
    /// All records below are in `keys`, or were in a pass before.
    pub(super) end: Offset,
    pub(super) now: Timestamp,
    /// From when on tombstones may go that this pass is the first to find alone.
    pub(super) horizon: Timestamp,
}

impl Judge<'_> {
    /// Judges an uncompressed batch. Also tells from when on its tombstones may go, if it has any left that wait for it.
    ///
    /// # Errors
    /// Where the batch cannot be followed.
    pub(super) fn fate(&self, batch: &[u8]) -> Result<(Fate, Option<Timestamp>), Flaw> {
        let header = BatchHeader::parse(batch)?;
        let (mut count, mut tombstones) = (0, 0);
        for record in StoredRecords::from(batch, HEADER_LEN)? {
            let record = record?;
            if self.keeps(&header, &record) {
                count += 1;
                tombstones += u32::from(record.value.is_none());
            }
        }
        // What lies at the end or behind it waits for the next pass.
        let horizon = (header.delete_horizon.is_none() && tombstones > 0 && header.end_offset() <= self.end).then_some(self.horizon);
        let waits = if tombstones > 0 { horizon.or(header.delete_horizon) } else { None };
        if count == header.count && horizon.is_none() {
            return Ok((Fate::Stays, waits));
        }
        let left = retain(batch, horizon, |record| if self.keeps(&header, record) { Kept::Whole } else { Kept::Nothing })?;
        Ok((left.map_or(Fate::Goes, Fate::Becomes), waits))
    }

    fn keeps(&self, header: &BatchHeader, record: &StoredRecord<'_>) -> bool {
        let is_replaced = record.key.and_then(|key| self.keys.newest(key)).is_some_and(|newest| newest > record.offset);
        let has_waited = header.delete_horizon.is_some_and(|horizon| horizon <= self.now);
        !is_replaced && (record.value.is_some() || !has_waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        batch::{BatchBuilder, Encoded},
        ids::{FolderId, StreamVersion},
        record::NewRecord,
        segment::StreamHasher,
    };

    const DAY: i64 = 86_400_000;

    /// A batch of keys, those in capitals deleted.
    fn batch(base: u64, text: &str) -> Vec<u8> {
        let mut encoded = Encoded::default();
        for key in text.chars() {
            let value = key.is_lowercase().then(|| "value".into());
            encoded
                .push_record(&NewRecord { key: Some(key.to_lowercase().to_string().into()), value, ..NewRecord::default() })
                .expect("within limits");
        }
        let mut builder = BatchBuilder::new(Offset::new(base));
        builder.push(&encoded, StreamVersion::FIRST, Timestamp::new(5));
        builder.finish(1).to_vec()
    }

    /// What a batch holds, as [`batch`] takes it; what is gone is a dot.
    fn text(batch: &[u8]) -> String {
        let header = BatchHeader::check(batch).expect("its checksum holds");
        let mut text = vec!['.'; header.last_offset_delta as usize + 1];
        for record in StoredRecords::from(batch, HEADER_LEN).expect("a batch") {
            let record = record.expect("a record");
            let key = char::from(record.key.expect("a key")[0]);
            text[(record.offset.get() - header.base_offset.get()) as usize] =
                if record.value.is_some() { key } else { key.to_ascii_uppercase() };
        }
        text.into_iter().collect()
    }

    fn keys(batches: &[&[u8]]) -> Keys {
        let mut keys = Keys::new(1 << 20, StreamHasher::new(FolderId::new([1; 16])));
        for record in batches.iter().flat_map(|batch| StoredRecords::from(batch, HEADER_LEN).expect("a batch")) {
            let record = record.expect("a record");
            assert!(keys.note(record.key.expect("a key"), record.offset));
        }
        keys
    }

    #[test]
    fn what_a_newer_record_of_its_key_replaces_goes() {
        let (first, second) = (batch(0, "abcab"), batch(5, "cdb"));
        let keys = keys(&[&first, &second]);
        let judge = Judge { keys: &keys, end: Offset::new(8), now: Timestamp::new(0), horizon: Timestamp::new(DAY) };
        let (Fate::Becomes(left), None) = judge.fate(&first).expect("a batch") else { panic!("it is changed") };
        assert_eq!(text(&left), "...a.");
        assert_eq!(judge.fate(&second).expect("a batch"), (Fate::Stays, None));
        assert_eq!(judge.fate(&batch(0, "bcb")).expect("a batch"), (Fate::Goes, None));
        assert_eq!(judge.fate(&batch(0, "xyz")).expect("a batch"), (Fate::Stays, None), "nothing came since");
    }

    #[test]
    fn a_tombstone_waits_from_the_first_pass_on_and_then_goes() {
        let whole = batch(0, "aBAc");
        let keys = keys(&[&whole]);
        let judge = |now| Judge { keys: &keys, end: Offset::new(4), now: Timestamp::new(now), horizon: Timestamp::new(now + DAY) };
        let (Fate::Becomes(first), Some(waits)) = judge(100).fate(&whole).expect("a batch") else { panic!("it is changed") };
        assert_eq!((text(&first), waits), (".BAc".into(), Timestamp::new(100 + DAY)));
        assert_eq!(judge(DAY).fate(&first).expect("a batch"), (Fate::Stays, Some(Timestamp::new(100 + DAY))));
        let (Fate::Becomes(last), None) = judge(100 + DAY).fate(&first).expect("a batch") else { panic!("it is changed") };
        assert_eq!(text(&last), "...c");
    }

    #[test]
    fn what_did_not_fit_into_memory_waits_for_the_next_pass() {
        let (first, second) = (batch(0, "ab"), batch(2, "AB"));
        let keys = keys(&[&first, &batch(2, "A")]);
        let judge = Judge { keys: &keys, end: Offset::new(3), now: Timestamp::new(0), horizon: Timestamp::new(DAY) };
        let (Fate::Becomes(left), None) = judge.fate(&first).expect("a batch") else { panic!("it is changed") };
        assert_eq!(text(&left), ".b");
        assert_eq!(judge.fate(&second).expect("a batch"), (Fate::Stays, None), "b still has what is to be deleted");
    }
}
