//! What nobody needs any more is let go of: places of removed rows, bytes of texts that were replaced.

use std::sync::OnceLock;

use hashbrown::HashSet;

use super::{RowNumber, Table, text::Text};

/// Garbage that is not worth a sweep.
pub(super) const SWEEP_FROM: usize = 1 << 20;
/// Removed rows that are not worth to be looked for.
pub(super) const SWEEP_ROWS: usize = 1024;

impl Table {
    /// Gives the places of removed rows to others, unless undo still tells of them. Rows keep their order.
    pub(super) fn forget_removed(&mut self) {
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
        self.touch_all();
    }

    /// Copies the texts in use together when most of what is stored is garbage.
    pub(super) fn sweep(&mut self) {
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
