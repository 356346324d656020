//! A sorted table of keys, in memory or in a file: its head says where each page begins in the order of hashes, so that a look-up reads one or two.

use std::{
    borrow::Cow,
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Key,
    page::{PAGE, PageWriter, entries, first_of, is_whole, visit},
    upper_half,
};
use crate::{
    batch::varint::Cursor,
    error::LogError,
    ids::{Offset, StreamVersion},
    life::{Mark, Marking, SnapshotAt},
    segment::file::{OpenFiles, corrupt, failed, read_range},
};

pub(in crate::segment) const TABLE_HEAD: usize = 24;
pub(super) const MAGIC: [u8; 4] = *b"fKT1";

/// Events of a segment, sorted by stream and version, in pages that can be looked up one by one.
#[derive(Clone, Debug)]
pub(in crate::segment) struct KeyTable {
    /// Everything below this offset that is not in an older table of the segment is in here.
    pub(in crate::segment) covers: Offset,
    /// Upper half of the first hash of each page.
    pub(super) fences: Arc<[u64]>,
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
    pub(in crate::segment) fn encode(keys: &mut [Key], base: Offset, covers: Offset) -> Bytes {
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
        bytes_of(pages, covers)
    }

    /// Opens a table that was encoded into memory; none if its bytes are damaged. Returns what follows it.
    pub(in crate::segment) fn from_memory(bytes: &Bytes) -> Option<(Self, Bytes)> {
        let head = TableHead::decode(bytes)?;
        let end = head.pages_at.checked_add(head.pages_len)?;
        if bytes.len() < end {
            return None;
        }
        let pages = Pages::Memory(bytes.slice(head.pages_at..end));
        Some((Self { covers: head.covers, fences: head.fences, pages }, bytes.slice(end..)))
    }

    /// Opens a table in a file, from byte place `at`; its pages are read and checked when they are looked at.
    pub(in crate::segment) fn from_file(files: &Arc<OpenFiles>, path: &Path, at: u64) -> Result<Self, LogError> {
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
    pub(in crate::segment) fn size(&self) -> usize {
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
    pub(super) fn look_up(&self, stream: u128, is_wanted: impl Fn(&Key) -> bool, each: impl FnMut(Key) -> ControlFlow<()>) -> Lookup {
        let pages = self.pages_of(stream);
        let is_before = |key: &Key| key.stream < stream || key.stream == stream && !key.is_mark() && !is_wanted(key);
        let first = self.pages_before(&pages, is_before)?;
        // What is wanted may begin within the last page that begins before it.
        self.events(stream, first.saturating_sub(1).max(pages.start)..pages.end, |key| !key.is_mark() && is_wanted(key), each)
    }

    /// The same from the newest to the oldest. If `is_wanted` holds for one event, it must hold for all before it.
    pub(super) fn look_up_back(
        &self,
        stream: u128,
        is_wanted: impl Fn(&Key) -> bool,
        mut each: impl FnMut(Key) -> ControlFlow<()>,
    ) -> Lookup {
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
    pub(super) fn snapshot(
        &self,
        stream: u128,
        at_most: StreamVersion,
        keeps: impl Fn(SnapshotAt) -> bool,
    ) -> Result<Option<SnapshotAt>, LogError> {
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
    pub(super) fn snapshots(&self, stream: u128, mut each: impl FnMut(SnapshotAt)) -> Result<(), LogError> {
        for number in self.pages_of(stream) {
            let mut found = |key: Key| {
                Mark::from_key(key.version).and_then(|mark| mark.snapshot(Offset::new(key.offset))).into_iter().for_each(&mut each);
            };
            visit(&self.page(number)?, Some(stream), &mut found);
        }
        Ok(())
    }

    /// Calls `each` with every event and mark, in order of stream and version.
    pub(in crate::segment) fn for_each(&self, mut each: impl FnMut(Key)) -> Result<(), LogError> {
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
pub(in crate::segment) struct TableHead {
    pub(in crate::segment) covers: Offset,
    fences: Arc<[u64]>,
    /// Byte place of the pages in the table, and how many bytes they are.
    pub(in crate::segment) pages_at: usize,
    pub(in crate::segment) pages_len: usize,
}

impl TableHead {
    pub(in crate::segment) fn fence_count(bytes: &[u8]) -> Option<u32> {
        let mut cursor = Cursor::new(bytes);
        cursor.take(16)?;
        Some(u32::from_be_bytes(cursor.array()?))
    }

    pub(in crate::segment) fn decode(bytes: &[u8]) -> Option<Self> {
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

/// Tables of a segment as one, with its bytes.
pub(super) fn merge(tables: &[KeyTable], base: Offset) -> Result<(KeyTable, Bytes), LogError> {
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
        bytes_of(pages, covers)
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

/// The table of these pages: its head, then they.
fn bytes_of(pages: PageWriter, covers: Offset) -> Bytes {
    let (fences, pages) = pages.finish();
    let mut out = Vec::with_capacity(TABLE_HEAD + fences.len() * 8 + pages.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 4]); // checksum, below
    out.extend_from_slice(&covers.get().to_be_bytes());
    out.extend_from_slice(&u32::try_from(fences.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&u32::try_from(pages.len()).unwrap_or(u32::MAX).to_be_bytes());
    for fence in &fences {
        out.extend_from_slice(&fence.to_be_bytes());
    }
    let checksum = crc32c::crc32c(out.get(8..).unwrap_or_default());
    out.splice(4..8, checksum.to_be_bytes());
    out.extend_from_slice(&pages);
    out.into()
}
