//! Where the newest record of each key lies, in bounded memory.
//!
//! A pass fills it with what came since the pass before. It holds the keys themselves: a hash finds a key and never stands for it, so that
//! no two keys are ever taken for one. Invariant: what it holds stays within what it was given, but for a single key that is larger.

use hashbrown::HashTable;

use crate::{ids::Offset, segment::StreamHasher};

/// Bytes of keys that are allocated at once.
const CHUNK: usize = 16 << 10;

/// The newest offset of each key.
#[derive(Debug)]
pub(super) struct Keys {
    table: HashTable<Entry>,
    /// Keys behind each other, each with its length before it; what was allocated never moves.
    chunks: Vec<Vec<u8>>,
    /// Bytes of all chunks.
    held: usize,
    most: usize,
    hasher: StreamHasher,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    newest: Offset,
    chunk: u32,
    at: u32,
}

impl Keys {
    /// Holds at most so many bytes.
    pub(super) fn new(most: u64, hasher: StreamHasher) -> Self {
        Self { table: HashTable::new(), chunks: Vec::new(), held: 0, most: usize::try_from(most).unwrap_or(usize::MAX), hasher }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Takes down that a key has a record at an offset, behind all that were taken down. False: there is no room for another key.
    #[must_use]
    pub(super) fn note(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = self.hash(key);
        let chunks = &self.chunks;
        if let Some(entry) = self.table.find_mut(hash, |entry| key_at(chunks, entry) == key) {
            entry.newest = offset;
            return true;
        }
        if !self.table.is_empty() && !self.has_room(key.len()) {
            return false;
        }
        let (chunk, at) = self.put(key);
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        self.table.insert_unique(hash, Entry { newest: offset, chunk, at }, |entry| short(hasher.hash(key_at(chunks, entry))));
        true
    }

    /// Offset of a key's newest record; none if nothing was taken down of it.
    pub(super) fn newest(&self, key: &[u8]) -> Option<Offset> {
        self.table.find(self.hash(key), |entry| key_at(&self.chunks, entry) == key).map(|entry| entry.newest)
    }

    fn hash(&self, key: &[u8]) -> u64 {
        short(self.hasher.hash(key))
    }

    fn has_room(&self, length: usize) -> bool {
        let table = self.table.allocation_size();
        // To grow it is to have it once more, and twice as large, for a while.
        let grown = if self.table.len() == self.table.capacity() { 3 * table } else { table };
        let more = if self.fits(length) { 0 } else { CHUNK.max(length + LENGTH) };
        self.held + more + grown <= self.most
    }

    fn fits(&self, length: usize) -> bool {
        self.chunks.last().is_some_and(|chunk| chunk.capacity() - chunk.len() >= length + LENGTH)
    }

    fn put(&mut self, key: &[u8]) -> (u32, u32) {
        if !self.fits(key.len()) {
            let chunk = Vec::with_capacity(CHUNK.max(key.len() + LENGTH));
            self.held += chunk.capacity();
            self.chunks.push(chunk);
        }
        let place = self.chunks.len() - 1;
        let chunk = &mut self.chunks[place];
        let at = chunk.len();
        chunk.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
        chunk.extend_from_slice(key);
        (u32::try_from(place).unwrap_or(u32::MAX), u32::try_from(at).unwrap_or(u32::MAX))
    }
}

/// Bytes of a key's length.
const LENGTH: usize = 4;

fn key_at<'a>(chunks: &'a [Vec<u8>], entry: &Entry) -> &'a [u8] {
    let from = chunks.get(entry.chunk as usize).and_then(|chunk| chunk.get(entry.at as usize..)).unwrap_or_default();
    let Some((length, rest)) = from.split_first_chunk::<LENGTH>() else { return &[] };
    rest.get(..u32::from_le_bytes(*length) as usize).unwrap_or_default()
}

/// The half of a hash that finds an entry.
const fn short(hash: u128) -> u64 {
    (hash >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::{ids::FolderId, testing::Random};

    fn keys(most: u64) -> Keys {
        Keys::new(most, StreamHasher::new(FolderId::new([9; 16])))
    }

    #[test]
    fn the_newest_offset_of_each_key_is_known() {
        let (mut keys, mut known, mut random) = (keys(64 << 20), HashMap::new(), Random::new(1));
        for offset in 0..200_000 {
            let key = format!("key {}", random.below(50_000)).repeat(1 + random.below(3) as usize);
            assert!(keys.note(key.as_bytes(), Offset::new(offset)));
            known.insert(key, offset);
        }
        assert_eq!(keys.len(), known.len());
        assert!(known.iter().all(|(key, offset)| keys.newest(key.as_bytes()) == Some(Offset::new(*offset))));
        assert_eq!((keys.newest(b"key"), keys.newest(b"")), (None, None));
        assert!(keys.note(b"", Offset::new(7)));
        assert_eq!(keys.newest(b""), Some(Offset::new(7)));
    }

    #[test]
    fn it_is_full_before_it_holds_too_much_and_still_takes_keys_that_it_has() {
        let most = 1 << 20;
        let mut keys = keys(most);
        let count = (0_u64..).take_while(|number| keys.note(&number.to_be_bytes(), Offset::new(*number))).count() as u64;
        let held = keys.held + keys.table.allocation_size();
        assert!(held as u64 <= most && count > 15_000 && count < 60_000, "{held} bytes, {count} keys");
        assert!(keys.note(&5_u64.to_be_bytes(), Offset::new(count)));
        assert_eq!(keys.newest(&5_u64.to_be_bytes()), Some(Offset::new(count)));
        assert_eq!(keys.newest(&count.to_be_bytes()), None);
    }

    #[test]
    fn one_key_is_taken_whatever_its_size() {
        let mut keys = keys(1);
        let large = vec![7; 1 << 20];
        assert!(keys.note(&large, Offset::new(1)) && !keys.note(b"another", Offset::new(2)) && keys.note(&large, Offset::new(3)));
        assert_eq!(keys.newest(&large), Some(Offset::new(3)));
    }
}
