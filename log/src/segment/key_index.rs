//! Stream -> its offsets and versions in one segment.
//!
//! Sorted tables of pages, the same in memory (active segment) and in a file (`.keys` of a sealed one, pieces in `.keylog` of an
//! active one). Derived: made again from `.log` when missing or damaged. Streams are known by a keyed hash of 128 bits, which is
//! taken for the name everywhere. Format: `log/FORMAT.md`, "Key index".
#![deny(clippy::indexing_slicing)]

use std::{
    borrow::Cow,
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use siphasher::sip128::SipHasher13;

use super::file::{OpenFiles, corrupt, failed, read_range};
use crate::{
    batch::varint::{Cursor, put_unsigned},
    error::LogError,
    ids::{FolderId, Offset, StreamVersion},
    life::{Mark, Marking, SnapshotAt},
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

pub(super) const PAGE: usize = 4096;
const PAGE_HEAD: usize = 6;
pub(super) const TABLE_HEAD: usize = 24;
const MAGIC: [u8; 4] = *b"fKT1";
/// Longest start of an entry: hash, first version, count, first offset.
const ENTRY_HEAD: usize = 16 + 10 + 3 + 10;

/// Events of a segment, sorted by stream and version, in pages that can be looked up one by one.
#[derive(Clone, Debug)]
pub(super) struct KeyTable {
    /// Everything below this offset that is not in an older table of the segment is in here.
    pub(super) covers: Offset,
    /// Upper half of the first hash of each page.
    fences: Arc<[u64]>,
    pages: Pages,
}

/// Breaks when whoever looks up has enough.
type Lookup = Result<ControlFlow<()>, LogError>;

#[derive(Clone, Debug)]
enum Pages {
    Memory(Bytes),
    File { files: Arc<OpenFiles>, path: Arc<PathBuf>, at: u64, length: u64 },
}

impl KeyTable {
    /// Encodes a table of `keys`, in any order; offsets are stored from `base` on.
    pub(super) fn encode(keys: &mut [Key], base: Offset, covers: Offset) -> Bytes {
        let follows = |one: &Key, next: &Key| one.stream == next.stream && one.version.checked_add(1) == Some(next.version);
        let mut pages = PageWriter::new(base);
        // Events of a stream mostly come together: what follows each other is moved as it is.
        let mut stretches: Vec<&[Key]> = keys.chunk_by(follows).collect();
        let bound = |key: Option<&Key>| key.copied();
        if stretches.len() <= keys.len() / 4 && put_in_order(&mut stretches, |keys| bound(keys.first()), |keys| bound(keys.last())) {
            stretches.into_iter().flatten().for_each(|key| pages.push(*key));
        } else {
            keys.sort();
            keys.iter().for_each(|key| pages.push(*key));
        }
        pages.finish(covers)
    }

    /// Opens a table that was encoded into memory; none if its bytes are damaged. Returns what follows it.
    pub(super) fn from_memory(bytes: &Bytes) -> Option<(Self, Bytes)> {
        let head = TableHead::decode(bytes)?;
        let end = head.pages_at.checked_add(head.pages_len)?;
        if bytes.len() < end {
            return None;
        }
        let pages = Pages::Memory(bytes.slice(head.pages_at..end));
        Some((Self { covers: head.covers, fences: head.fences, pages }, bytes.slice(end..)))
    }

    /// Opens a table in a file, from byte place `at`; its pages are read and checked when they are looked at.
    pub(super) fn from_file(files: &Arc<OpenFiles>, path: &Path, at: u64) -> Result<Self, LogError> {
        let file = files.get(path).map_err(failed("open", path))?;
        let length = file.len().map_err(failed("measure", path))?;
        let damaged = || corrupt(path, at, length, "the head of the key index is damaged");
        let start = read_range(&*file, path, at, TABLE_HEAD as u64)?;
        let fences = TableHead::fence_count(&start).ok_or_else(damaged)?;
        let head_len = (TABLE_HEAD as u64 + u64::from(fences) * 8).min(length);
        let head = TableHead::decode(&read_range(&*file, path, at, head_len)?).ok_or_else(damaged)?;
        let pages_at = at + head.pages_at as u64;
        if pages_at + head.pages_len as u64 != length {
            return Err(damaged());
        }
        let pages = Pages::File { files: files.clone(), path: Arc::new(path.to_owned()), at: pages_at, length: head.pages_len as u64 };
        Ok(Self { covers: head.covers, fences: head.fences, pages })
    }

    /// Bytes of pages, as a measure for merging.
    pub(super) fn size(&self) -> usize {
        match &self.pages {
            Pages::Memory(bytes) => bytes.len(),
            Pages::File { length, .. } => usize::try_from(*length).unwrap_or(usize::MAX),
        }
    }

    fn page(&self, number: usize) -> Result<Cow<'_, [u8]>, LogError> {
        let from = number * PAGE;
        let (page, path, at): (Cow<'_, [u8]>, _, _) = match &self.pages {
            Pages::Memory(bytes) => {
                let end = (from + PAGE).min(bytes.len());
                (Cow::Borrowed(bytes.get(from..end).unwrap_or_default()), Path::new("key index in memory"), from as u64)
            }
            Pages::File { files, path, at, length } => {
                let file = files.get(path).map_err(failed("open", path))?;
                let size = (PAGE as u64).min(length.saturating_sub(from as u64));
                (Cow::Owned(read_range(&*file, path, at + from as u64, size)?), path.as_path(), at + from as u64)
            }
        };
        if !is_whole(&page) {
            return Err(corrupt(path, at, at + PAGE as u64, "a page of the key index is damaged; delete the file, it is made again"));
        }
        Ok(page)
    }

    /// The events of one stream of which `is_wanted` holds, in order of version, page by page until `each` breaks. If it holds for
    /// one event, it must hold for all behind it.
    fn look_up(&self, stream: u128, is_wanted: impl Fn(&Key) -> bool, each: impl FnMut(Key) -> ControlFlow<()>) -> Lookup {
        let pages = self.pages_of(stream);
        let is_before = |key: &Key| key.stream < stream || key.stream == stream && !key.is_mark() && !is_wanted(key);
        let first = self.pages_before(&pages, is_before)?;
        // What is wanted may begin within the last page that begins before it.
        self.events(stream, first.saturating_sub(1).max(pages.start)..pages.end, |key| !key.is_mark() && is_wanted(key), each)
    }

    /// The same from the newest to the oldest. If `is_wanted` holds for one event, it must hold for all before it.
    fn look_up_back(&self, stream: u128, is_wanted: impl Fn(&Key) -> bool, mut each: impl FnMut(Key) -> ControlFlow<()>) -> Lookup {
        let is_wanted = |key: &Key| !key.is_mark() && is_wanted(key);
        let pages = self.pages_of(stream);
        let end = self.pages_before(&pages, |key| key.stream < stream || key.stream == stream && is_wanted(key))?;
        for number in (pages.start..end).rev() {
            let mut keys = Vec::new();
            visit(&self.page(number)?, Some(stream), &mut |key| keys.push(key));
            let mut newest_first = keys.into_iter().rev().filter(is_wanted);
            if newest_first.try_for_each(&mut each).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn events(
        &self,
        stream: u128,
        pages: Range<usize>,
        is_wanted: impl Fn(&Key) -> bool,
        mut each: impl FnMut(Key) -> ControlFlow<()>,
    ) -> Lookup {
        for number in pages {
            let mut keys = Vec::new();
            visit(&self.page(number)?, Some(stream), &mut |key| keys.push(key));
            if keys.into_iter().filter(&is_wanted).try_for_each(&mut each).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Pages that may hold events of a stream.
    fn pages_of(&self, stream: u128) -> Range<usize> {
        let fence = upper_half(stream);
        // The stream may begin at the end of the page before the first with its fence.
        let from = self.fences.partition_point(|first| *first < fence).saturating_sub(1);
        from..self.fences.partition_point(|first| *first <= fence)
    }

    /// End of those of `pages` that begin with an event that is `before`, by halving: a stream may have thousands of pages.
    fn pages_before(&self, pages: &Range<usize>, before: impl Fn(&Key) -> bool) -> Result<usize, LogError> {
        let (mut low, mut high) = (pages.start, pages.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if first_of(&self.page(middle)?).is_some_and(|key| before(&key)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The newest snapshot of a stream as of `at_most` or before that is kept.
    fn snapshot(&self, stream: u128, at_most: StreamVersion, keeps: impl Fn(SnapshotAt) -> bool) -> Result<Option<SnapshotAt>, LogError> {
        let wanted = Mark::new(Marking::Snapshot(at_most), at_most).to_key();
        let pages = self.pages_of(stream);
        let is_low = |key: &Key| key.stream < stream || key.stream == stream && key.version <= wanted;
        for number in (pages.start..self.pages_before(&pages, is_low)?).rev() {
            let mut keys = Vec::new();
            visit(&self.page(number)?, Some(stream), &mut |key| keys.push(key));
            for key in keys.into_iter().rev().filter(is_low) {
                // Below snapshots come other marks, then events.
                let Some(at) = Mark::from_key(key.version).and_then(|mark| mark.snapshot(Offset::new(key.offset))) else {
                    return Ok(None);
                };
                if keeps(at) {
                    return Ok(Some(at));
                }
            }
        }
        Ok(None)
    }

    /// Gives all snapshots of a stream to `each`.
    fn snapshots(&self, stream: u128, mut each: impl FnMut(SnapshotAt)) -> Result<(), LogError> {
        for number in self.pages_of(stream) {
            let mut found = |key: Key| {
                Mark::from_key(key.version).and_then(|mark| mark.snapshot(Offset::new(key.offset))).into_iter().for_each(&mut each);
            };
            visit(&self.page(number)?, Some(stream), &mut found);
        }
        Ok(())
    }

    /// Calls `each` with every event and mark, in order of stream and version.
    pub(super) fn for_each(&self, mut each: impl FnMut(Key)) -> Result<(), LogError> {
        for number in 0..self.fences.len() {
            visit(&self.page(number)?, None, &mut each);
        }
        Ok(())
    }
}

/// Puts stretches of keys in order; false if they overlap, so that their keys must be sorted one by one: snapshots may be put twice as of
/// one version. A stable sort makes use of the order of tables that are merged.
fn put_in_order<T>(stretches: &mut [T], first: impl Fn(&T) -> Option<Key>, last: impl Fn(&T) -> Option<Key>) -> bool {
    stretches.sort_by_key(&first);
    stretches.windows(2).all(|pair| matches!(pair, [before, behind] if last(before) < first(behind)))
}

/// What a table says before its pages.
pub(super) struct TableHead {
    pub(super) covers: Offset,
    fences: Arc<[u64]>,
    /// Byte place of the pages in the table, and how many bytes they are.
    pub(super) pages_at: usize,
    pub(super) pages_len: usize,
}

impl TableHead {
    pub(super) fn fence_count(bytes: &[u8]) -> Option<u32> {
        let mut cursor = Cursor::new(bytes);
        cursor.take(16)?;
        Some(u32::from_be_bytes(cursor.array()?))
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        if cursor.array()? != MAGIC {
            return None;
        }
        let checksum = u32::from_be_bytes(cursor.array()?);
        let covers = Offset::new(u64::from_be_bytes(cursor.array()?));
        let count = usize::try_from(u32::from_be_bytes(cursor.array()?)).ok()?;
        let pages_len = usize::try_from(u32::from_be_bytes(cursor.array()?)).ok()?;
        let (fences, _) = cursor.take(count.checked_mul(8)?)?.as_chunks::<8>();
        let pages_at = TABLE_HEAD + count * 8;
        if crc32c::crc32c(bytes.get(8..pages_at)?) != checksum || pages_len.div_ceil(PAGE) != count {
            return None;
        }
        Some(Self { covers, fences: fences.iter().map(|fence| u64::from_be_bytes(*fence)).collect(), pages_at, pages_len })
    }
}

const fn upper_half(stream: u128) -> u64 {
    (stream >> 64) as u64
}

/// Whether a page is what its checksum promises.
pub(super) fn is_whole(page: &[u8]) -> bool {
    let Some((checksum, rest)) = page.split_first_chunk::<4>() else { return false };
    crc32c::crc32c(rest) == u32::from_be_bytes(*checksum)
}

/// The event that a page begins with.
fn first_of(page: &[u8]) -> Option<Key> {
    let mut cursor = Cursor::new(page);
    cursor.take(PAGE_HEAD)?;
    let base = u64::from_be_bytes(cursor.array()?);
    let stream = u128::from_be_bytes(cursor.array()?);
    let (version, _count) = (cursor.unsigned()?, cursor.unsigned()?);
    Some(Key { stream, version, offset: base.checked_add(cursor.unsigned()?)? })
}

/// Offsets in a page are stored from the segment's base on; the page begins with it.
fn visit(page: &[u8], only: Option<u128>, each: &mut impl FnMut(Key)) {
    let _ = try_visit(page, only, each);
}

/// The same for all streams if `only` is none; none if the page is not what it should be.
pub(super) fn try_visit(page: &[u8], only: Option<u128>, each: &mut impl FnMut(Key)) -> Option<()> {
    entries(page, |entry| {
        if only.is_none_or(|only| only == entry.stream) {
            entry.for_each(&mut *each)?;
        }
        Some(())
    })
}

/// Events of one stream with one version after the other, as they lie in a page.
#[derive(Clone, Copy, Debug)]
struct Entry<'p> {
    stream: u128,
    first_version: u64,
    count: u64,
    /// From which offset on the first one's is stored; the others' from the one before.
    base: u64,
    offsets: &'p [u8],
}

impl Entry<'_> {
    fn for_each(&self, mut each: impl FnMut(Key)) -> Option<()> {
        let (mut cursor, mut offset) = (Cursor::new(self.offsets), self.base);
        for place in 0..self.count {
            offset = offset.checked_add(cursor.unsigned()?)?;
            each(Key { stream: self.stream, version: self.first_version.checked_add(place)?, offset });
        }
        Some(())
    }

    /// The lowest key that it may have.
    const fn first(&self) -> Key {
        Key { stream: self.stream, version: self.first_version, offset: self.base }
    }

    /// The highest key that it may have.
    const fn last(&self) -> Key {
        let version = self.first_version.saturating_add(self.count.saturating_sub(1));
        Key { stream: self.stream, version, offset: u64::MAX }
    }
}

/// The entries of a page, until `each` has none for one; none if the page is not what it should be.
fn entries<'p>(page: &'p [u8], mut each: impl FnMut(Entry<'p>) -> Option<()>) -> Option<()> {
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
struct PageWriter {
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
    const fn new(base: Offset) -> Self {
        Self { base, fences: Vec::new(), done: Vec::new(), page: Vec::new(), entry: None, offsets: Vec::new() }
    }

    fn push(&mut self, key: Key) {
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

    /// The table: its head and its pages.
    fn finish(mut self, covers: Offset) -> Bytes {
        self.end_entry();
        if !self.page.is_empty() {
            self.end_page(false);
        }
        let mut out = Vec::with_capacity(TABLE_HEAD + self.fences.len() * 8 + self.done.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[0; 4]); // checksum, below
        out.extend_from_slice(&covers.get().to_be_bytes());
        out.extend_from_slice(&u32::try_from(self.fences.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&u32::try_from(self.done.len()).unwrap_or(u32::MAX).to_be_bytes());
        for fence in &self.fences {
            out.extend_from_slice(&fence.to_be_bytes());
        }
        let checksum = crc32c::crc32c(out.get(8..).unwrap_or_default());
        out.splice(4..8, checksum.to_be_bytes());
        out.extend_from_slice(&self.done);
        out.into()
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
        if tables.is_empty() { Ok(Self::default()) } else { Ok(Self::sealed(merge(tables, base)?.0)) }
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
        let merged = if let [single] = merging.as_slice() { single.clone() } else { merge(&merging, base)?.0 };
        self.tables.push(merged);
        Ok(())
    }

    /// All tables as one, with its bytes.
    pub(super) fn merged(&self, base: Offset) -> Result<(KeyTable, Bytes), LogError> {
        merge(&self.tables, base)
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

fn merge(tables: &[KeyTable], base: Offset) -> Result<(KeyTable, Bytes), LogError> {
    let covers = tables.iter().map(|table| table.covers).max().unwrap_or(base);
    let numbers = tables.iter().flat_map(|table| (0..table.fences.len()).map(move |number| (table, number)));
    let pages = numbers.map(|(table, number)| table.page(number)).collect::<Result<Vec<_>, _>>()?;
    let mut found = Vec::new();
    for page in &pages {
        let _ = entries(page, |entry| {
            found.push(entry);
            Some(())
        });
    }
    let bytes = if put_in_order(&mut found, |entry| Some(entry.first()), |entry| Some(entry.last())) {
        let mut pages = PageWriter::new(base);
        for entry in &found {
            let _ = entry.for_each(|key| pages.push(key));
        }
        pages.finish(covers)
    } else {
        let mut keys = Vec::new();
        for entry in &found {
            let _ = entry.for_each(|key| keys.push(key));
        }
        KeyTable::encode(&mut keys, base, covers)
    };
    let (table, _) = KeyTable::from_memory(&bytes)
        .ok_or_else(|| corrupt(Path::new("key index in memory"), 0, bytes.len() as u64, "a merged table cannot be read back"))?;
    Ok((table, bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

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
