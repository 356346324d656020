//! Keyed state of one query: packed rows that a step changes in place, with undo, so that readers see a committed version.
//!
//! The query's task alone writes; readers pin a version and look at the layers of undo above it before they look at the row.
//! Nothing here is durable: state is read from a checkpoint, and folded again from the log. Invariants: a version is its number of rows and what later
//! layers say about them; a layer is kept while a version below it is pinned or not yet committed; a row that was removed keeps
//! its place until no version has it, and row numbers change only at a commit while nothing is pinned.

mod page;
mod sweep;
mod text;
mod undo;
mod warm;

use std::{collections::BTreeMap, hash::BuildHasher, mem::size_of};

use hashbrown::{DefaultHashBuilder, HashTable};

use page::page_of;
pub(crate) use page::pages_of;
pub(crate) use text::MAX_TEXT;
use text::{Text, place_of};
use undo::Layer;

/// Number of steps that have changed a table; names what a reader sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u64);

/// Number of a row in its table, from 0 in the order in which keys first came.
pub(crate) type RowNumber = u32;

/// Words before the accumulators of a row: the step that last touched it, and its row time.
pub(crate) const HEADER: usize = 2;
const STEP: usize = 0;
const ROWTIME: usize = 1;

/// The table: one row of `width` words a key.
#[derive(Debug)]
pub(crate) struct Table {
    width: usize,
    /// Words of a row that refer to `text`.
    text_words: Vec<usize>,
    /// The word of a row that is 0 while the row is not there; none: rows are never removed.
    presence: Option<usize>,
    /// Removals since rows that are gone were last looked for.
    removed: usize,
    hasher: DefaultHashBuilder,
    index: HashTable<Slot>,
    key_ends: Vec<u64>,
    keys: Vec<u8>,
    words: Vec<u64>,
    text: Text,
    /// Oldest first; steps rise.
    layers: Vec<Layer>,
    version: Version,
    committed: Version,
    pins: BTreeMap<Version, usize>,
    /// Versions below this one were given up.
    oldest: Version,
    /// The version that a checkpoint is being made of.
    kept: Option<Version>,
    /// Of each page the newest step that touched it; what was taken back or moved counts, too.
    touched: Vec<Version>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u64,
    row: RowNumber,
}

impl Table {
    /// An empty table whose rows have `accumulators` words after the header; `text_words` are those (counted from the row's
    /// beginning) that refer to texts.
    pub(crate) fn new(accumulators: usize, text_words: Vec<usize>) -> Self {
        Self {
            width: HEADER + accumulators,
            text_words,
            presence: None,
            removed: 0,
            hasher: DefaultHashBuilder::default(),
            index: HashTable::new(),
            key_ends: Vec::new(),
            keys: Vec::new(),
            words: Vec::new(),
            text: Text::default(),
            layers: Vec::new(),
            version: Version::default(),
            committed: Version::default(),
            pins: BTreeMap::new(),
            oldest: Version::default(),
            kept: None,
            touched: Vec::new(),
        }
    }

    /// Rows can be removed: one is there while its word `presence` (counted from its beginning) is not 0.
    pub(crate) fn removable(self, presence: usize) -> Self {
        Self { presence: Some(presence), ..self }
    }

    fn is_there(&self, words: &[u64]) -> bool {
        self.presence.is_none_or(|presence| words.get(presence).is_some_and(|word| *word != 0))
    }

    /// The hash builder of this table, for hashing keys before the lock is taken.
    pub(crate) fn hasher(&self) -> DefaultHashBuilder {
        self.hasher.clone()
    }

    /// Version after the newest step.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Version that readers may pin.
    pub(crate) fn committed(&self) -> Version {
        self.committed
    }

    /// Number of rows after the newest step.
    pub(crate) fn rows(&self) -> usize {
        self.key_ends.len()
    }

    /// Bytes held for rows, keys and undo.
    pub(crate) fn bytes(&self) -> usize {
        self.keys.len()
            + (self.key_ends.len() + self.words.len()) * size_of::<u64>()
            + self.text.bytes.len()
            + self.index.capacity() * (size_of::<Slot>() + 1)
            + self.undo_bytes()
    }

    /// Bytes held for undo alone.
    pub(crate) fn undo_bytes(&self) -> usize {
        self.layers.iter().map(Layer::bytes).sum()
    }

    /// The row of a key, made if there is none, and noted as touched by the open step with row time `rowtime`.
    pub(crate) fn touch(&mut self, hash: u64, key: &[u8], rowtime: i64) -> RowNumber {
        let (ends, keys) = (&self.key_ends, &self.keys);
        if let Some(slot) = self.index.find(hash, |slot| slot.hash == hash && key_in(ends, keys, slot.row) == key) {
            let row = slot.row;
            self.note(row, rowtime);
            return row;
        }
        self.insert(hash, key, rowtime)
    }

    /// The accumulators under a key as the open step has them.
    pub(crate) fn accumulators_of(&self, hash: u64, key: &[u8]) -> Option<&[u64]> {
        let row = self.index.find(hash, |slot| slot.hash == hash && self.key(slot.row) == key)?.row;
        self.row(row).and_then(|words| words.get(HEADER..))
    }

    fn note(&mut self, row: RowNumber, rowtime: i64) {
        let start = row as usize * self.width;
        let (step, width) = (self.version.0, self.width);
        let Some(words) = self.words.get_mut(start..start + width) else { return };
        if words[STEP] != step
            && let Some(layer) = self.layers.last_mut()
        {
            layer.note(row, words);
            words[STEP] = step;
            if let Some(touched) = self.touched.get_mut(page_of(row)) {
                *touched = Version(step);
            }
        }
        if rowtime > words[ROWTIME].cast_signed() {
            words[ROWTIME] = rowtime.cast_unsigned();
        }
    }

    fn insert(&mut self, hash: u64, key: &[u8], rowtime: i64) -> RowNumber {
        let row = RowNumber::try_from(self.rows()).expect("the state budget ends a query long before 2^32 rows");
        self.keys.extend_from_slice(key);
        self.key_ends.push(self.keys.len() as u64);
        self.words.push(self.version.0);
        self.words.push(rowtime.cast_unsigned());
        self.words.resize(self.words.len() + self.width - HEADER, 0);
        self.touch_page(row, self.version);
        self.index.insert_unique(hash, Slot { hash, row }, |slot| slot.hash);
        if let Some(layer) = self.layers.last_mut() {
            layer.changed.push(row);
        }
        row
    }

    /// Says that a row that the open step has touched is not there any more.
    pub(crate) fn remove(&mut self, row: RowNumber) {
        let Some(presence) = self.presence else { return };
        let start = row as usize * self.width;
        self.removed += 1;
        self.words[start + presence] = 0;
    }

    /// Sets the row time of a row that the open step has touched, also back.
    pub(crate) fn set_rowtime(&mut self, row: RowNumber, rowtime: i64) {
        self.words[row as usize * self.width + ROWTIME] = rowtime.cast_unsigned();
    }

    /// The words of a row as the open step has it, header included; none if it is not there.
    pub(crate) fn row(&self, row: RowNumber) -> Option<&[u64]> {
        let start = row as usize * self.width;
        self.words.get(start..start + self.width).filter(|words| self.is_there(words))
    }

    /// The accumulators of a row that the open step has touched.
    pub(crate) fn accumulators_mut(&mut self, row: RowNumber) -> &mut [u64] {
        let start = row as usize * self.width;
        &mut self.words[start + HEADER..start + self.width]
    }

    /// Accumulators and texts at once, for an accumulator that replaces a text.
    pub(crate) fn put_text(&mut self, row: RowNumber, word: usize, text: &[u8]) {
        let reference = self.text.put(text);
        if let Some(word) = self.accumulators_mut(row).get_mut(word) {
            *word = reference;
        }
    }

    /// The text that a word refers to.
    pub(crate) fn text(&self, reference: u64) -> &[u8] {
        self.text.get(reference)
    }

    /// Bytes of the texts that a row's words refer to.
    pub(crate) fn text_bytes(&self, words: &[u64]) -> usize {
        self.text_words.iter().filter_map(|word| words.get(*word)).map(|reference| place_of(*reference).1).sum()
    }

    /// The key of a row.
    pub(crate) fn key(&self, row: RowNumber) -> &[u8] {
        key_in(&self.key_ends, &self.keys, row)
    }

    /// The row of a key, at whatever version.
    pub(crate) fn find(&self, key: &[u8]) -> Option<RowNumber> {
        let hash = self.hasher.hash_one(key);
        self.index.find(hash, |slot| slot.hash == hash && self.key(slot.row) == key).map(|slot| slot.row)
    }

    /// Number of rows at a version.
    pub(crate) fn rows_at(&self, version: Version) -> usize {
        self.layers_from(version).first().map_or(self.rows(), |layer| layer.rows_before)
    }

    /// A row as it was at `version`, header included; none if it was not there.
    pub(crate) fn row_at(&self, row: RowNumber, version: Version) -> Option<&[u64]> {
        self.words_at(row, version).filter(|words| self.is_there(words))
    }

    /// The words of a row at `version`, whether it was there or removed; none if it had not come yet.
    pub(crate) fn words_at(&self, row: RowNumber, version: Version) -> Option<&[u64]> {
        let start = row as usize * self.width;
        let now = self.words.get(start..start + self.width)?;
        if now[STEP] <= version.0 {
            return Some(now);
        }
        for layer in self.layers_from(version) {
            if row as usize >= layer.rows_before {
                return None;
            }
            if let Some(place) = layer.place(row) {
                return layer.before.get(place * self.width..(place + 1) * self.width);
            }
        }
        Some(now)
    }

    /// Row time of a row's words.
    pub(crate) fn rowtime(words: &[u64]) -> i64 {
        words.get(ROWTIME).map_or(i64::MIN, |word| word.cast_signed())
    }

    /// Whether two versions of a row differ in anything but the step that touched them.
    pub(crate) fn differ(&self, one: &[u64], other: &[u64]) -> bool {
        if one.get(ROWTIME..) == other.get(ROWTIME..) {
            return false;
        }
        let is_text = |word: usize| self.text_words.contains(&word);
        one.iter()
            .zip(other)
            .enumerate()
            .skip(ROWTIME)
            .any(|(word, (one, other))| one != other && !(is_text(word) && self.text(*one) == self.text(*other)))
    }
}

fn key_in<'a>(ends: &[u64], keys: &'a [u8], row: RowNumber) -> &'a [u8] {
    let row = row as usize;
    let start = row.checked_sub(1).and_then(|before| ends.get(before)).map_or(0, |end| length(*end));
    let end = ends.get(row).map_or(start, |end| length(*end));
    keys.get(start..end).unwrap_or_default()
}

#[expect(clippy::cast_possible_truncation, reason = "ends are lengths of a Vec in memory")]
fn length(end: u64) -> usize {
    end as usize
}

#[cfg(test)]
mod tests;
