//! Pages of a table of keys: each begins with its checksum and holds entries, the events of one stream with one version after the other.
//!
//! Written by [`PageWriter`], which [`super::table`] makes tables of; looked at one by one. Format: `log/FORMAT.md`, "Key index".

use super::{Key, upper_half};
use crate::{
    batch::varint::{Cursor, put_unsigned},
    ids::Offset,
};

pub(in crate::segment) const PAGE: usize = 4096;
const PAGE_HEAD: usize = 6;
/// Longest start of an entry: hash, first version, count, first offset.
const ENTRY_HEAD: usize = 16 + 10 + 3 + 10;

/// Whether a page is what its checksum promises.
pub(in crate::segment) fn is_whole(page: &[u8]) -> bool {
    let Some((checksum, rest)) = page.split_first_chunk::<4>() else { return false };
    crc32c::crc32c(rest) == u32::from_be_bytes(*checksum)
}

/// The event that a page begins with.
pub(super) fn first_of(page: &[u8]) -> Option<Key> {
    let mut cursor = Cursor::new(page);
    cursor.take(PAGE_HEAD)?;
    let base = u64::from_be_bytes(cursor.array()?);
    let stream = u128::from_be_bytes(cursor.array()?);
    let (version, _count) = (cursor.unsigned()?, cursor.unsigned()?);
    Some(Key { stream, version, offset: base.checked_add(cursor.unsigned()?)? })
}

/// Offsets in a page are stored from the segment's base on; the page begins with it.
pub(super) fn visit(page: &[u8], only: Option<u128>, each: &mut impl FnMut(Key)) {
    let _ = try_visit(page, only, each);
}

/// The same for all streams if `only` is none; none if the page is not what it should be.
pub(in crate::segment) fn try_visit(page: &[u8], only: Option<u128>, each: &mut impl FnMut(Key)) -> Option<()> {
    entries(page, |entry| {
        if only.is_none_or(|only| only == entry.stream) {
            entry.for_each(&mut *each)?;
        }
        Some(())
    })
}

/// Events of one stream with one version after the other, as they lie in a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'p> {
    stream: u128,
    first_version: u64,
    count: u64,
    /// From which offset on the first one's is stored; the others' from the one before.
    base: u64,
    offsets: &'p [u8],
}

impl Entry<'_> {
    pub(super) fn for_each(&self, mut each: impl FnMut(Key)) -> Option<()> {
        let (mut cursor, mut offset) = (Cursor::new(self.offsets), self.base);
        for place in 0..self.count {
            offset = offset.checked_add(cursor.unsigned()?)?;
            each(Key { stream: self.stream, version: self.first_version.checked_add(place)?, offset });
        }
        Some(())
    }

    /// The lowest key that it may have.
    pub(super) const fn first(&self) -> Key {
        Key { stream: self.stream, version: self.first_version, offset: self.base }
    }

    /// The highest key that it may have.
    pub(super) const fn last(&self) -> Key {
        let version = self.first_version.saturating_add(self.count.saturating_sub(1));
        Key { stream: self.stream, version, offset: u64::MAX }
    }
}

/// The entries of a page, until `each` has none for one; none if the page is not what it should be.
pub(super) fn entries<'p>(page: &'p [u8], mut each: impl FnMut(Entry<'p>) -> Option<()>) -> Option<()> {
    let mut cursor = Cursor::new(page);
    cursor.take(4)?;
    let used = u16::from_be_bytes(cursor.array()?);
    let mut rest = Cursor::new(cursor.take(used.into())?);
    let base = u64::from_be_bytes(rest.array()?);
    while !rest.is_empty() {
        let stream = u128::from_be_bytes(rest.array()?);
        let (first_version, count) = (rest.unsigned()?, rest.unsigned()?);
        let offsets = rest.take(length_of(count, rest.rest())?)?;
        each(Entry { stream, first_version, count, base, offsets })?;
    }
    Some(())
}

/// Length of so many numbers at the front of `bytes`; none if they are not all there.
fn length_of(mut count: u64, bytes: &[u8]) -> Option<usize> {
    if count == 0 {
        return Some(0);
    }
    let is_last = |byte: &u8| {
        count -= u64::from(*byte < 0x80);
        count == 0
    };
    bytes.iter().position(is_last).map(|place| place + 1)
}

/// Writes the pages of a table from its keys, in order.
pub(super) struct PageWriter {
    base: Offset,
    fences: Vec<u64>,
    done: Vec<u8>,
    page: Vec<u8>,
    /// The entry under way, whose offsets are in `offsets`.
    entry: Option<OpenEntry>,
    offsets: Vec<u8>,
}

#[derive(Clone, Copy)]
struct OpenEntry {
    first: Key,
    count: u64,
    /// Offset of the last one.
    last: u64,
    /// Bytes that its offsets may take.
    room: usize,
}

impl PageWriter {
    pub(super) const fn new(base: Offset) -> Self {
        Self { base, fences: Vec::new(), done: Vec::new(), page: Vec::new(), entry: None, offsets: Vec::new() }
    }

    pub(super) fn push(&mut self, key: Key) {
        if self.entry.is_some_and(|entry| !entry.goes_on_with(&key, self.offsets.len())) {
            self.end_entry();
        }
        let entry = self.entry.unwrap_or_else(|| self.begin(key));
        put_unsigned(&mut self.offsets, key.offset.saturating_sub(entry.last));
        self.entry = Some(OpenEntry { count: entry.count + 1, last: key.offset, ..entry });
    }

    fn begin(&mut self, first: Key) -> OpenEntry {
        if self.page.len() + ENTRY_HEAD > PAGE - PAGE_HEAD {
            self.end_page(true);
        }
        if self.page.is_empty() {
            self.fences.push(upper_half(first.stream));
            self.page.extend_from_slice(&self.base.get().to_be_bytes());
        }
        OpenEntry { first, count: 0, last: self.base.get(), room: PAGE - PAGE_HEAD - self.page.len() - ENTRY_HEAD }
    }

    fn end_entry(&mut self) {
        if let Some(OpenEntry { first, count, .. }) = self.entry.take() {
            self.page.extend_from_slice(&first.stream.to_be_bytes());
            put_unsigned(&mut self.page, first.version);
            put_unsigned(&mut self.page, count);
            self.page.append(&mut self.offsets);
        }
    }

    fn end_page(&mut self, is_full: bool) {
        let from = self.done.len();
        self.done.extend_from_slice(&[0; 4]); // checksum, below
        self.done.extend_from_slice(&u16::try_from(self.page.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.done.append(&mut self.page);
        if is_full {
            self.done.resize(from + PAGE, 0);
        }
        if let Some((checksum, rest)) = self.done.get_mut(from..).and_then(<[u8]>::split_first_chunk_mut::<4>) {
            *checksum = crc32c::crc32c(rest).to_be_bytes();
        }
    }

    /// The upper half of the first hash of each page, and the pages.
    pub(super) fn finish(mut self) -> (Vec<u64>, Vec<u8>) {
        self.end_entry();
        if !self.page.is_empty() {
            self.end_page(false);
        }
        (self.fences, self.done)
    }
}

impl OpenEntry {
    /// Whether a key is the next event of the same stream, and its offset has room in the page. Snapshots may be put in any order of
    /// versions.
    fn goes_on_with(&self, key: &Key, used: usize) -> bool {
        let is_next = key.stream == self.first.stream && Some(key.version) == self.first.version.checked_add(self.count);
        is_next && key.offset >= self.last && used + 10 <= self.room
    }
}
