//! Rows of a batch wait for memory together, rather than one after the other.
//!
//! A table of many keys lies in no cache of the processor, and whoever looks up a key goes from its slot to its place, its words and its
//! texts: each is a wait that the next one needs. Between rows nothing is needed, so that looking at one kind of place of all rows
//! first makes most of these waits one. Nothing depends on it but time.

use std::hint::black_box;

use super::{RowNumber, Table, length, text::place_of};

/// Words of a table that a processor's cache holds.
const SMALL: usize = 1 << 17;

impl Table {
    /// Brings the rows of keys with these hashes near.
    pub(crate) fn warm(&self, hashes: &[u64]) {
        if self.words.len() > SMALL {
            let row = |hash: &u64| self.index.find(*hash, |slot| slot.hash == *hash).map(|slot| slot.row);
            self.warm_rows(&hashes.iter().filter_map(row).collect::<Vec<_>>());
        }
    }

    /// Brings rows near.
    pub(crate) fn warm_rows(&self, rows: &[RowNumber]) {
        if self.words.len() <= SMALL {
            return;
        }
        let words = |row: RowNumber| self.words.get(row as usize * self.width..).unwrap_or_default();
        let look = |seen: u64, row: &RowNumber| {
            let last = words(*row).get(self.width - 1).copied().unwrap_or_default();
            seen ^ words(*row).first().copied().unwrap_or_default() ^ last ^ self.key_ends.get(*row as usize).copied().unwrap_or_default()
        };
        black_box(rows.iter().fold(0, look));
        let texts = |row: RowNumber| self.text_words.iter().filter_map(move |word| words(row).get(*word));
        let look = |seen: u8, row: &RowNumber| {
            let key = self.key_ends.get(*row as usize).and_then(|end| self.keys.get(length(*end).saturating_sub(1)));
            let ends =
                texts(*row).map(|reference| place_of(*reference)).flat_map(|(start, length)| [start, start + length.saturating_sub(1)]);
            ends.filter_map(|end| self.text.bytes.get(end)).fold(seen ^ key.copied().unwrap_or_default(), |seen, byte| seen ^ byte)
        };
        black_box(rows.iter().fold(0, look));
    }
}
