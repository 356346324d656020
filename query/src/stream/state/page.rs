//! A table in pages of [`PAGE_ROWS`] rows, as checkpoints keep it: what changed is written, all of it is read again.
//!
//! Called by `stream/checkpoint`. Words lie little-endian; a word that refers to a text is replaced by the text's length, so that
//! what is read again has its texts side by side. Undo, pins and versions are no part of a page: a table that was read is at
//! version 0. Invariant: pages written at one version and read in their order give the rows of that version, in their order.

use std::{hash::BuildHasher, mem::size_of, ops::Range};

use hashbrown::HashTable;

use super::{HEADER, ROWTIME, RowNumber, STEP, Slot, Table, Version, text::Text};

/// Rows of a page: some 30 KiB of rows of 100 bytes.
pub(crate) const PAGE_ROWS: usize = 256;

/// Number of a page in its table.
pub(crate) type PageNumber = u32;

/// The page that a row belongs to.
pub(super) fn page_of(row: RowNumber) -> usize {
    row as usize / PAGE_ROWS
}

/// How many pages so many rows have.
pub(crate) fn pages_of(rows: usize) -> usize {
    rows.div_ceil(PAGE_ROWS)
}

impl Table {
    /// Keeps the committed version for a checkpoint: unlike a pin it is not given up for room.
    pub(crate) fn keep(&mut self) -> Version {
        self.kept = Some(self.committed);
        self.committed
    }

    /// Lets go of what [`Table::keep`] kept.
    pub(crate) fn let_go(&mut self) {
        self.kept = None;
        self.tidy();
    }

    /// The pages of version `at`, which is kept, that may differ from those of version `since`; without that all of them.
    pub(crate) fn pages_changed(&self, since: Option<Version>, at: Version) -> Vec<PageNumber> {
        let pages = self.touched.iter().take(pages_of(self.rows_at(at)));
        let changed = pages.enumerate().filter(|(_, touched)| since.is_none_or(|since| **touched > since));
        changed.filter_map(|(page, _)| PageNumber::try_from(page).ok()).collect()
    }

    /// Appends a page as it was at version `at`, which is kept.
    pub(crate) fn write_page(&self, page: PageNumber, at: Version, out: &mut Vec<u8>) {
        let start = page as usize * PAGE_ROWS;
        for row in start..self.rows_at(at).min(start + PAGE_ROWS) {
            let Ok(row) = RowNumber::try_from(row) else { return };
            // Below the number of rows at a version that is kept, every row has words.
            let Some(words) = self.words_at(row, at) else { continue };
            self.write_row(self.key(row), words, out);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a record is shorter than 4 GiB, and so is a key made of it")]
    fn write_row(&self, key: &[u8], words: &[u64], out: &mut Vec<u8>) {
        let is_there = self.is_there(words);
        out.extend_from_slice(&(key.len() as u32).to_le_bytes());
        out.extend_from_slice(key);
        for (place, word) in words.iter().enumerate().skip(ROWTIME) {
            let word = match self.text_words.contains(&place) {
                true if is_there && *word != 0 => self.text(*word).len() as u64 + 1,
                true => 0,
                false => *word,
            };
            out.extend_from_slice(&word.to_le_bytes());
        }
        for word in self.text_words.iter().filter_map(|place| words.get(*place)).filter(|word| is_there && **word != 0) {
            out.extend_from_slice(self.text(*word));
        }
    }

    /// Makes room for so many rows that are about to be read.
    pub(crate) fn reserve(&mut self, rows: usize) {
        self.index.reserve(rows, |slot| slot.hash);
        self.key_ends.reserve(rows);
        self.words.reserve(rows.saturating_mul(self.width));
    }

    /// Puts the rows of a page behind those that are there; none if these bytes are no page of this table.
    pub(crate) fn read_page(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            self.read_row(&mut bytes)?;
        }
        Some(())
    }

    fn read_row(&mut self, bytes: &mut &[u8]) -> Option<()> {
        let length = u32::from_le_bytes(*bytes.split_first_chunk().map(|(length, rest)| {
            *bytes = rest;
            length
        })?);
        let key = bytes.split_off(..usize::try_from(length).ok()?)?;
        let row = RowNumber::try_from(self.rows()).ok()?;
        let words = bytes.split_off(..(self.width - ROWTIME).checked_mul(size_of::<u64>())?)?;
        let start = self.words.len();
        self.words.push(0);
        self.words.extend(words.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)));
        for place in &self.text_words {
            let word = self.words.get_mut(start + place)?;
            if *word != 0 {
                let text = bytes.split_off(..usize::try_from(*word - 1).ok()?)?;
                *word = self.text.put(text);
            }
        }
        let hash = self.hasher.hash_one(key);
        self.keys.extend_from_slice(key);
        self.key_ends.push(self.keys.len() as u64);
        self.index.insert_unique(hash, Slot { hash, row }, |slot| slot.hash);
        self.removed += usize::from(!self.is_there(self.words.get(start..)?));
        self.touch_page(row, Version::default());
        Some(())
    }

    /// Ends reading: gives whether the table has as many rows as it should.
    pub(crate) fn has_read(&mut self, rows: usize) -> bool {
        self.text.kept = self.text.bytes.len();
        self.rows() == rows
    }

    /// The newest step that touched one of these rows, or one of its page.
    pub(crate) fn touched_within(&self, rows: &Range<RowNumber>) -> Version {
        let pages = page_of(rows.start)..pages_of(rows.end as usize);
        self.touched.get(pages).and_then(|touched| touched.iter().max()).copied().unwrap_or(self.version)
    }

    /// Empties a table that no step has changed; keys are hashed as before.
    pub(crate) fn clear(&mut self) {
        debug_assert!(self.layers.is_empty(), "a table with steps is not read anew");
        (self.index, self.text, self.removed) = (HashTable::new(), Text::default(), 0);
        (self.key_ends, self.keys, self.words, self.touched) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    }

    /// Notes that the open step touches a row's page.
    pub(super) fn touch_page(&mut self, row: RowNumber, step: Version) {
        let page = page_of(row);
        match self.touched.get_mut(page) {
            Some(touched) => *touched = step,
            None => self.touched.resize(page + 1, step),
        }
    }

    /// Every row may have another number now.
    pub(super) fn touch_all(&mut self) {
        self.touched.clear();
        self.touched.resize(pages_of(self.rows()), self.version);
    }
}

const _: () = assert!(STEP == 0 && ROWTIME == 1 && HEADER == 2, "a page has every word of a row but its step");
