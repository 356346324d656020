//! Versions of a table: steps that are opened, taken back, joined and committed, readers' pins, and the undo that they need.
//!
//! Invariants: layers stand in the order of their steps; one is kept while a version below it is pinned or not yet committed.

use std::{hash::BuildHasher, mem::size_of, sync::OnceLock};

use hashbrown::{HashMap, HashSet};

use super::{RowNumber, Table, Version, key_in, length, sweep::SWEEP_ROWS};

/// What one step (or several, merged) changed: the rows as they were before.
#[derive(Debug, Default)]
pub(super) struct Layer {
    /// Version before the first of its steps.
    pub(super) base: Version,
    /// Rows that the table had at `base`.
    pub(super) rows_before: usize,
    /// What lies behind this place among the texts was put there since.
    pub(super) text_before: usize,
    /// Rows changed or added, in the order in which the step first touched them; empty in a merged layer.
    pub(super) changed: Vec<RowNumber>,
    /// Those of them that existed before, with their words in `before`.
    pub(super) old: Vec<RowNumber>,
    pub(super) before: Vec<u64>,
    /// Row number to place in `old`; made by the first reader.
    pub(super) places: OnceLock<HashMap<RowNumber, usize>>,
}

impl Layer {
    /// Keeps a row as it is before the step first changes it.
    pub(super) fn note(&mut self, row: RowNumber, words: &[u64]) {
        // Somebody may have looked into the step while it was open.
        if let Some(places) = self.places.get_mut() {
            places.insert(row, self.old.len());
        }
        self.changed.push(row);
        self.old.push(row);
        self.before.extend_from_slice(words);
    }

    /// Place of a row in `old`.
    pub(super) fn place(&self, row: RowNumber) -> Option<usize> {
        let make = || self.old.iter().enumerate().map(|(place, row)| (*row, place)).collect();
        self.places.get_or_init(make).get(&row).copied()
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let places = self.places.get().map_or(0, |places| places.capacity() * (size_of::<(RowNumber, usize)>() + 1));
        (self.changed.len() + self.old.len()) * size_of::<RowNumber>() + self.before.len() * size_of::<u64>() + places
    }
}

impl Table {
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

    /// Makes `version` the one that new readers pin, and lets go of undo that nobody needs.
    pub(crate) fn commit(&mut self, version: Version) {
        self.committed = version;
        self.tidy();
        if self.removed > SWEEP_ROWS + self.rows() / 2 && self.pins.is_empty() && self.kept.is_none() {
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
    pub(super) fn tidy(&mut self) {
        let mut layers = Vec::with_capacity(self.layers.len());
        for layer in std::mem::take(&mut self.layers) {
            // The newest version that this layer serves is its base: who reads an older one finds it too.
            let from = layers.last().map_or(Version::default(), |older: &Layer| Version(older.base.0 + 1));
            let is_kept = self.kept.is_some_and(|kept| (from..=layer.base).contains(&kept));
            let served = layer.base >= self.committed || is_kept || self.pins.range(from..=layer.base).next().is_some();
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

    /// The layers that say how the table was at a version.
    pub(super) fn layers_from(&self, version: Version) -> &[Layer] {
        let first = self.layers.partition_point(|layer| layer.base < version);
        &self.layers[first..]
    }
}
