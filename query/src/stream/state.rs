//! Keyed state of one query: packed rows that a step changes in place, with undo, so that readers see a committed version.
//!
//! The query's task alone writes; readers pin a version and look at the layers of undo above it before they look at the row.
//! Nothing here is durable: state is folded again from the log. Invariants: a version is its number of rows and what later
//! layers say about them; a layer is kept while a version below it is pinned or not yet committed; a row that was removed keeps
//! its place until no version has it, and row numbers change only at a commit while nothing is pinned.

use std::{collections::BTreeMap, hash::BuildHasher, mem::size_of, sync::OnceLock};

use hashbrown::{DefaultHashBuilder, HashMap, HashSet, HashTable};

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
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u64,
    row: RowNumber,
}

/// What one step (or several, merged) changed: the rows as they were before.
#[derive(Debug, Default)]
struct Layer {
    /// Version before the first of its steps.
    base: Version,
    /// Rows that the table had at `base`.
    rows_before: usize,
    /// What lies behind this place among the texts was put there since.
    text_before: usize,
    /// Rows changed or added, in the order in which the step first touched them; empty in a merged layer.
    changed: Vec<RowNumber>,
    /// Those of them that existed before, with their words in `before`.
    old: Vec<RowNumber>,
    before: Vec<u64>,
    /// Row number to place in `old`; made by the first reader.
    places: OnceLock<HashMap<RowNumber, usize>>,
}

impl Layer {
    fn place(&self, row: RowNumber) -> Option<usize> {
        let make = || self.old.iter().enumerate().map(|(place, row)| (*row, place)).collect();
        self.places.get_or_init(make).get(&row).copied()
    }

    fn bytes(&self) -> usize {
        let places = self.places.get().map_or(0, |places| places.capacity() * (size_of::<(RowNumber, usize)>() + 1));
        (self.changed.len() + self.old.len()) * size_of::<RowNumber>() + self.before.len() * size_of::<u64>() + places
    }
}

/// Append-only store of texts; a reference is 40 bits of place and 24 bits of length.
#[derive(Debug, Default)]
struct Text {
    bytes: Vec<u8>,
    /// Bytes in use after the last sweep.
    kept: usize,
}

/// Longest text that a reference can name.
pub(crate) const MAX_TEXT: usize = (1 << 24) - 1;
/// Garbage that is not worth a sweep.
const SWEEP_FROM: usize = 1 << 20;
/// Removed rows that are not worth to be looked for.
const SWEEP_ROWS: usize = 1024;

impl Text {
    /// Stores a text, cut to what a reference can name (a record is shorter than that).
    fn put(&mut self, text: &[u8]) -> u64 {
        let text = text.get(..MAX_TEXT).unwrap_or(text);
        let reference = ((self.bytes.len() as u64) << 24) | text.len() as u64;
        self.bytes.extend_from_slice(text);
        reference
    }

    fn get(&self, reference: u64) -> &[u8] {
        let (start, length) = place_of(reference);
        self.bytes.get(start..start + length).unwrap_or_default()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "40 and 24 bits; memory that holds them has a wider usize")]
fn place_of(reference: u64) -> (usize, usize) {
    ((reference >> 24) as usize, (reference & MAX_TEXT as u64) as usize)
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

    /// Opens the next step; what is touched from now on belongs to it.
    pub(crate) fn begin(&mut self) {
        let (rows_before, text_before) = (self.rows(), self.text.bytes.len());
        self.layers.push(Layer { base: self.version, rows_before, text_before, ..Layer::default() });
        self.version.0 += 1;
    }

    /// Takes the newest step back, which is not committed: the table is as it was before [`Table::begin`].
    pub(crate) fn roll_back(&mut self) {
        debug_assert!(self.version > self.committed, "a committed step stays");
        let Some(layer) = self.layers.pop() else { return };
        for (row, before) in layer.old.iter().zip(layer.before.chunks_exact(self.width)) {
            let start = *row as usize * self.width;
            if let Some(words) = self.words.get_mut(start..start + self.width) {
                words.copy_from_slice(before);
            }
        }
        for row in layer.changed.into_iter().filter(|row| *row as usize >= layer.rows_before) {
            let hash = self.hasher.hash_one(key_in(&self.key_ends, &self.keys, row));
            if let Ok(slot) = self.index.find_entry(hash, |slot| slot.row == row) {
                slot.remove();
            }
        }
        self.key_ends.truncate(layer.rows_before);
        self.keys.truncate(self.key_ends.last().map_or(0, |end| length(*end)));
        self.words.truncate(layer.rows_before * self.width);
        self.text.bytes.truncate(layer.text_before);
        self.version = layer.base;
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

    fn note(&mut self, row: RowNumber, rowtime: i64) {
        let start = row as usize * self.width;
        let (step, width) = (self.version.0, self.width);
        let Some(words) = self.words.get_mut(start..start + width) else { return };
        if words[STEP] != step
            && let Some(layer) = self.layers.last_mut()
        {
            layer.changed.push(row);
            layer.old.push(row);
            layer.before.extend_from_slice(words);
            words[STEP] = step;
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

    /// What the one step after `from` touched, in the order in which it first did: each row, and its words before, if it was
    /// there. None if that step's undo is gone or merged with others.
    pub(crate) fn touched_after(&self, from: Version) -> Option<impl Iterator<Item = (RowNumber, Option<&[u64]>)>> {
        let layer = self.layers_from(from).first().filter(|layer| layer.base == from && !layer.changed.is_empty())?;
        let mut old = layer.old.iter().zip(layer.before.chunks_exact(self.width)).peekable();
        Some(layer.changed.iter().map(move |row| {
            let before = old.next_if(|(old, _)| *old == row).map(|(_, words)| words);
            (*row, before.filter(|words| self.is_there(words)))
        }))
    }

    fn layers_from(&self, version: Version) -> &[Layer] {
        let first = self.layers.partition_point(|layer| layer.base < version);
        &self.layers[first..]
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

    /// Makes `version` the one that new readers pin, and lets go of undo that nobody needs.
    pub(crate) fn commit(&mut self, version: Version) {
        self.committed = version;
        self.tidy();
        if self.removed > SWEEP_ROWS + self.rows() / 2 && self.pins.is_empty() {
            self.removed = 0;
            self.forget_removed();
        }
    }

    /// Makes one step of all after `from`: its rows stand in the order in which the first of them touched them.
    pub(crate) fn join_after(&mut self, from: Version) {
        let first = self.layers.partition_point(|layer| layer.base < from);
        let later = self.layers.split_off((first + 1).min(self.layers.len()));
        let Some(joined) = self.layers.last_mut().filter(|_| !later.is_empty()) else { return };
        let mut touched: HashSet<RowNumber> = joined.changed.iter().copied().collect();
        for layer in later {
            let mut old = layer.old.iter().zip(layer.before.chunks_exact(self.width)).peekable();
            for row in &layer.changed {
                let before = old.next_if(|(old, _)| *old == row).map(|(_, words)| words);
                if !touched.insert(*row) {
                    continue;
                }
                joined.changed.push(*row);
                if let Some(before) = before {
                    joined.old.push(*row);
                    joined.before.extend_from_slice(before);
                }
            }
        }
        joined.places = OnceLock::new();
    }

    /// Takes back every step after `from`, none of which is committed.
    pub(crate) fn roll_back_to(&mut self, from: Version) {
        while self.version > from {
            self.roll_back();
        }
    }

    /// Gives the places of removed rows to others, unless undo still tells of them. Rows keep their order.
    fn forget_removed(&mut self) {
        let told: HashSet<RowNumber> = self.layers.iter().flat_map(|layer| layer.changed.iter().chain(&layer.old)).copied().collect();
        let rows = RowNumber::try_from(self.rows()).unwrap_or(RowNumber::MAX);
        // Each row's new number, and for one that goes the number that the next one gets.
        let mut numbers = Vec::with_capacity(self.rows() + 1);
        let mut kept: RowNumber = 0;
        let (mut key_ends, mut keys, mut words) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..rows {
            numbers.push(kept);
            let start = row as usize * self.width;
            let Some(of_row) = self.words.get(start..start + self.width) else { continue };
            if self.is_there(of_row) || told.contains(&row) {
                keys.extend_from_slice(self.key(row));
                key_ends.push(keys.len() as u64);
                words.extend_from_slice(of_row);
                kept += 1;
            }
        }
        numbers.push(kept);
        let is_kept = |row: RowNumber| numbers.get(row as usize) != numbers.get(row as usize + 1);
        let number = |row: RowNumber| numbers.get(row as usize).copied().unwrap_or(row);
        self.index.retain(|slot| is_kept(slot.row));
        self.index.iter_mut().for_each(|slot| slot.row = number(slot.row));
        for layer in &mut self.layers {
            layer.changed.iter_mut().chain(&mut layer.old).for_each(|row| *row = number(*row));
            layer.rows_before = numbers.get(layer.rows_before).map_or(layer.rows_before, |row| *row as usize);
            layer.places = OnceLock::new();
        }
        (self.key_ends, self.keys, self.words) = (key_ends, keys, words);
    }

    /// Pins the committed version.
    pub(crate) fn pin(&mut self) -> Version {
        *self.pins.entry(self.committed).or_insert(0) += 1;
        self.committed
    }

    /// Lets go of a pinned version.
    pub(crate) fn unpin(&mut self, version: Version) {
        if let Some(count) = self.pins.get_mut(&version) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&version);
                self.tidy();
            }
        }
    }

    /// Whether a pinned version can still be read.
    pub(crate) fn readable(&self, version: Version) -> bool {
        version >= self.oldest
    }

    /// Gives up the oldest pinned versions until undo takes at most `budget` bytes or only the committed version is left.
    pub(crate) fn give_up_beyond(&mut self, budget: usize) {
        while self.undo_bytes() > budget {
            let Some(oldest) = self.pins.keys().next().copied().filter(|oldest| *oldest < self.committed) else { return };
            self.pins.remove(&oldest);
            self.oldest = Version(oldest.0 + 1);
            self.tidy();
        }
    }

    /// Drops layers below every version that is pinned or may be, and merges those between two such versions.
    fn tidy(&mut self) {
        let mut layers = Vec::with_capacity(self.layers.len());
        for layer in std::mem::take(&mut self.layers) {
            // The newest version that this layer serves is its base: who reads an older one finds it too.
            let from = layers.last().map_or(Version::default(), |older: &Layer| Version(older.base.0 + 1));
            let served = layer.base >= self.committed || self.pins.range(from..=layer.base).next().is_some();
            match layers.last_mut() {
                _ if served => layers.push(layer),
                Some(older) => self.merge(older, layer),
                None => {}
            }
        }
        self.layers = layers;
        self.sweep();
    }

    fn merge(&self, older: &mut Layer, newer: Layer) {
        for (place, row) in newer.old.iter().enumerate() {
            if (*row as usize) < older.rows_before && older.place(*row).is_none() {
                if let Some(places) = older.places.get_mut() {
                    places.insert(*row, older.old.len());
                }
                older.old.push(*row);
                older.before.extend_from_slice(newer.before.get(place * self.width..(place + 1) * self.width).unwrap_or_default());
            }
        }
        older.changed = Vec::new();
    }

    /// Copies the texts in use together when most of what is stored is garbage.
    fn sweep(&mut self) {
        if self.text_words.is_empty() || self.text.bytes.len() < 2 * self.text.kept + SWEEP_FROM {
            return;
        }
        let mut swept = Text::default();
        let befores = self.layers.iter_mut().map(|layer| &mut layer.before);
        for words in befores.chain([&mut self.words]) {
            for row in words.chunks_exact_mut(self.width) {
                for word in &self.text_words {
                    if let Some(word) = row.get_mut(*word) {
                        *word = swept.put(self.text.get(*word));
                    }
                }
            }
        }
        swept.kept = swept.bytes.len();
        // What the open step has put lies among the others now; it is swept again if the step is taken back.
        self.layers.iter_mut().for_each(|layer| layer.text_before = swept.kept);
        self.text = swept;
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rows of a number and a text.
    fn table() -> Table {
        Table::new(2, vec![HEADER + 1])
    }

    fn set(table: &mut Table, key: &[u8], value: u64) {
        let hash = table.hasher().hash_one(key);
        let row = table.touch(hash, key, value.cast_signed());
        table.accumulators_mut(row)[0] = value;
        table.put_text(row, 1, value.to_string().as_bytes());
    }

    fn read(table: &Table, version: Version) -> BTreeMap<Vec<u8>, u64> {
        let rows = 0..RowNumber::try_from(table.rows()).unwrap();
        let value = |words: &[u64]| {
            assert_eq!(table.text(words[HEADER + 1]), words[HEADER].to_string().as_bytes());
            words[HEADER]
        };
        rows.filter_map(|row| table.row_at(row, version).map(|words| (table.key(row).to_vec(), value(words)))).collect()
    }

    /// Rows of a number, which can be removed: it is 0 then.
    fn removable() -> Table {
        Table::new(2, vec![HEADER + 1]).removable(HEADER)
    }

    /// All that a table has for its rows, but for undo.
    fn contents(table: &Table) -> (Vec<u64>, Vec<u8>, Vec<u64>, Vec<u8>, usize, Version) {
        let Table { key_ends, keys, words, text, index, version, .. } = table;
        (key_ends.clone(), keys.clone(), words.clone(), text.bytes.clone(), index.len(), *version)
    }

    fn changes() -> impl Strategy<Value = Vec<(u8, u64)>> {
        prop::collection::vec((0u8..12, any::<u64>()), 0..8)
    }

    proptest! {
        #[test]
        fn every_pinned_version_reads_as_it_was(
            steps in prop::collection::vec((changes(), 0u8..5, any::<prop::sample::Index>()), 1..40)
        ) {
            let mut table = table();
            let mut model = BTreeMap::new();
            let mut history = vec![model.clone()];
            let mut pinned: Vec<Version> = Vec::new();
            for (changes, action, which) in steps {
                let before = contents(&table);
                table.begin();
                for (key, value) in &changes {
                    set(&mut table, &[*key], *value);
                }
                if action == 4 {
                    table.roll_back();
                    prop_assert_eq!(contents(&table), before);
                } else {
                    model.extend(changes.into_iter().map(|(key, value)| (vec![key], value)));
                    history.push(model.clone());
                }
                match action {
                    0 => table.commit(table.version()),
                    1 => { table.commit(table.version()); pinned.push(table.pin()); }
                    2 if !pinned.is_empty() => { let version = pinned.swap_remove(which.index(pinned.len())); table.unpin(version); }
                    // Steps may run ahead of what is committed.
                    2 | 3 => pinned.push(table.pin()),
                    _ => {}
                }
                for version in pinned.iter().chain([&table.committed(), &table.version()]) {
                    prop_assert_eq!(&read(&table, *version), &history[usize::try_from(version.0).unwrap()]);
                    prop_assert_eq!(table.rows_at(*version), history[usize::try_from(version.0).unwrap()].len());
                }
            }
            for version in pinned.drain(..) {
                table.unpin(version);
            }
            table.commit(table.version());
            prop_assert_eq!(table.undo_bytes(), 0);
        }
    }

    proptest! {
        #[test]
        fn rows_are_removed_and_come_again_in_every_version(
            steps in prop::collection::vec((prop::collection::vec((any::<u8>(), 0u64..3), 0..400), 0u8..5), 1..30)
        ) {
            let mut table = removable();
            let mut model: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
            let mut pinned: Vec<(Version, BTreeMap<Vec<u8>, u64>)> = Vec::new();
            let mut committed = model.clone();
            for (changes, action) in steps {
                let (from, before) = (table.version(), model.clone());
                // A step in one, or as one for each change.
                let whole = action % 2 == 0;
                if whole || changes.is_empty() { table.begin(); }
                for (key, value) in &changes {
                    if !whole { table.begin(); }
                    set(&mut table, &[*key], *value);
                    if *value == 0 {
                        let row = table.find(&[*key]).unwrap();
                        table.remove(row);
                        model.remove(&vec![*key]);
                    } else {
                        model.insert(vec![*key], *value);
                    }
                }
                table.join_after(from);
                let touched: Vec<Vec<u8>> = table.touched_after(from).into_iter().flatten().map(|(row, _)| table.key(row).to_vec()).collect();
                let mut expected: Vec<Vec<u8>> = Vec::new();
                for (key, _) in &changes {
                    if !expected.contains(&vec![*key]) { expected.push(vec![*key]); }
                }
                prop_assert_eq!(touched, expected);
                if action == 4 {
                    table.roll_back_to(from);
                    model = before;
                } else {
                    table.commit(table.version());
                    committed = model.clone();
                }
                match action {
                    1 => pinned.push((table.pin(), committed.clone())),
                    3 => if let Some((version, _)) = pinned.pop() { table.unpin(version); },
                    _ => {}
                }
                for (version, rows) in pinned.iter().map(|(version, rows)| (*version, rows)).chain([(table.committed(), &committed)]) {
                    prop_assert_eq!(&read(&table, version), rows);
                }
            }
        }
    }

    #[test]
    fn the_places_of_removed_rows_are_used_again() {
        let mut table = removable();
        for round in 0..100_u64 {
            table.begin();
            for key in 0..100_u64 {
                let key = (round * 100 + key).to_le_bytes();
                set(&mut table, &key, 1);
            }
            if round > 0 {
                for key in 0..100_u64 {
                    let key = ((round - 1) * 100 + key).to_le_bytes();
                    let row = table.touch(table.hasher().hash_one(&key[..]), &key, 0);
                    table.remove(row);
                }
            }
            table.commit(table.version());
        }
        assert!(table.rows() < 3000, "{}", table.rows());
        assert_eq!(read(&table, table.version()).len(), 100);
    }

    #[test]
    fn an_old_pin_costs_one_copy_of_a_row_however_many_steps_follow() {
        let mut table = table();
        table.begin();
        set(&mut table, b"a", 0);
        table.commit(table.version());
        let pin = table.pin();
        for value in 1..1000 {
            table.begin();
            set(&mut table, b"a", value);
            table.commit(table.version());
        }
        assert!(table.undo_bytes() < 200, "{}", table.undo_bytes());
        assert_eq!(read(&table, pin).values().copied().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn what_readers_need_to_find_rows_is_counted() {
        let mut table = table();
        for step in 0..2 {
            table.begin();
            (0..1000_u64).for_each(|key| set(&mut table, &key.to_le_bytes(), step));
            table.commit(Version(1));
        }
        table.pin();
        let unread = table.undo_bytes();
        assert_eq!(read(&table, Version(1)).len(), 1000);
        assert!(table.undo_bytes() >= unread + 1000 * size_of::<(RowNumber, usize)>(), "{unread}, then {}", table.undo_bytes());
    }

    #[test]
    fn over_the_budget_the_oldest_reader_is_given_up_and_the_newest_stays() {
        let mut table = table();
        let mut pins = Vec::new();
        for step in 0..10 {
            table.begin();
            for key in 0..100u64 {
                set(&mut table, &key.to_le_bytes(), step);
            }
            table.commit(table.version());
            pins.push(table.pin());
        }
        table.give_up_beyond(table.undo_bytes() / 2);
        assert!(!table.readable(pins[0]));
        assert!(table.readable(pins[9]));
        assert!(read(&table, pins[9]).values().all(|value| *value == 9));
    }

    #[test]
    fn texts_survive_a_sweep_in_the_table_and_in_undo() {
        let mut table = Table::new(1, vec![HEADER]);
        let write_to = |table: &mut Table, key: &[u8], text: &str| {
            let row = table.touch(table.hasher().hash_one(key), key, 0);
            table.put_text(row, 0, text.as_bytes());
        };
        let write = |table: &mut Table, text: &str| write_to(table, b"k", text);
        table.begin();
        write(&mut table, "first");
        table.commit(table.version());
        let pin = table.pin();
        for round in 0..400 {
            table.begin();
            write(&mut table, &format!("{round:08192}"));
            table.commit(table.version());
        }
        assert!(table.text.bytes.len() < 2 * SWEEP_FROM, "{}", table.text.bytes.len());
        let old = table.row_at(0, pin).unwrap()[HEADER];
        assert_eq!(table.text(old), b"first");
        let newest = |table: &Table| table.text(table.row_at(0, table.version()).unwrap()[HEADER]).to_vec();
        assert_eq!(newest(&table), format!("{:08192}", 399).as_bytes());
        // A sweep in the middle of a step that is taken back.
        table.begin();
        (0..400).for_each(|round| write(&mut table, &format!("{round:08192}")));
        table.unpin(pin);
        assert!(table.text.bytes.len() < SWEEP_FROM, "{}", table.text.bytes.len());
        write(&mut table, "taken back");
        table.roll_back();
        assert_eq!(newest(&table), format!("{:08192}", 399).as_bytes());
        // The same, where more is left than there was before the step.
        let mut table = Table::new(1, vec![HEADER]);
        table.begin();
        write(&mut table, "first");
        write_to(&mut table, b"other", "stays");
        table.commit(table.version());
        let pin = table.pin();
        table.begin();
        (0..20).for_each(|_| write(&mut table, &"x".repeat(SWEEP_FROM / 10)));
        table.unpin(pin);
        assert!(table.text.bytes.len() < SWEEP_FROM, "{}", table.text.bytes.len());
        table.roll_back();
        assert_eq!(newest(&table), b"first");
        assert_eq!(table.text(table.row_at(1, table.version()).unwrap()[HEADER]), b"stays");
    }
}
