//! A file of postings: which positions of a range are posted under which keys, in pages that are looked at one by one.
//!
//! Written once by tidy or a start, asked by lookups. Derived: made again from segments when it is missing or damaged. Format:
//! `log/FORMAT.md`, "Postings".
#![deny(clippy::indexing_slicing)]

use std::{path::PathBuf, sync::Arc};

use parking_lot::RwLock;

use super::{filter::Filter, key::Posting};
use crate::{
    batch::varint::{Cursor, put_unsigned},
    error::LogError,
    ids::{FolderId, Position},
    segment::OpenFiles,
};

pub(super) const MAGIC: [u8; 4] = *b"fPST";
pub(super) const FORMAT: u32 = 1;
pub(super) const PAGE: usize = 4096;
const PAGE_HEAD: usize = 6;
pub(super) const HEAD: usize = 56;
pub(super) const FENCE: usize = 24;
/// Longest start of an entry, with one span: key, number of spans, distance, length.
const ENTRY_HEAD: usize = 16 + 2 + 10 + 5;

/// Positions from `from` up to `covers` (exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: Position,
    pub(super) covers: Position,
}

/// Encodes a file of postings, which it sorts and joins.
pub(super) fn encode(folder: FolderId, range: Range, postings: &mut Vec<Posting>) -> Vec<u8> {
    // Those of files that are merged are in order already, and that is made use of.
    postings.sort();
    postings.dedup_by(|next, before| before.join(next));
    let mut pages = PageWriter::default();
    let groups = postings.chunk_by(|one, next| one.key == next.key);
    let filter = Filter::of(groups.clone().map(|group| group.first().map_or(0, |first| first.key)).collect::<Vec<_>>().into_iter());
    for mut rest in groups {
        while let Some(first) = rest.first() {
            rest = pages.put(first, rest, range.from.get());
        }
    }
    pages.turn();
    let mut out = Vec::with_capacity(HEAD + pages.fences.len() + filter.as_bytes().len() + pages.done.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT.to_be_bytes());
    out.extend_from_slice(folder.as_bytes());
    out.extend_from_slice(&range.from.get().to_be_bytes());
    out.extend_from_slice(&range.covers.get().to_be_bytes());
    out.extend_from_slice(&size(pages.fences.len() / FENCE).to_be_bytes());
    out.extend_from_slice(&size(filter.as_bytes().len()).to_be_bytes());
    out.extend_from_slice(&[0; 8]); // nothing yet, then the checksum
    out.extend_from_slice(&pages.fences);
    out.extend_from_slice(filter.as_bytes());
    let checksum = head_checksum(&out);
    out.splice(HEAD - 4..HEAD, checksum.to_be_bytes());
    out.extend_from_slice(&pages.done);
    out
}

fn size(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Over everything before the pages but itself.
fn head_checksum(head: &[u8]) -> u32 {
    let before = crc32c::crc32c(head.get(..HEAD - 4).unwrap_or_default());
    crc32c::crc32c_append(before, head.get(HEAD..).unwrap_or_default())
}

/// Whether everything before the pages is what its checksum promises.
pub(super) fn is_head_whole(head: &[u8]) -> bool {
    let checksum = head.get(HEAD - 4..HEAD).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    checksum == Some(head_checksum(head))
}

/// Whether a page is what its checksum promises.
pub(super) fn is_page_whole(page: &[u8]) -> bool {
    page.split_first_chunk::<4>().is_some_and(|(crc, rest)| crc32c::crc32c(rest) == u32::from_be_bytes(*crc))
}

#[derive(Default)]
struct PageWriter {
    fences: Vec<u8>,
    done: Vec<u8>,
    page: Vec<u8>,
}

impl PageWriter {
    /// Puts as many spans of the first one's key as fit into a page; returns the rest.
    fn put<'a>(&mut self, first: &Posting, group: &'a [Posting], from: u64) -> &'a [Posting] {
        if PAGE_HEAD + self.page.len() + ENTRY_HEAD > PAGE {
            self.turn();
        }
        if self.page.is_empty() {
            self.fences.extend_from_slice(&first.key.to_be_bytes());
            self.fences.extend_from_slice(&first.first.to_be_bytes());
        }
        // Spans of a page are fewer than 2^14, so their number takes two bytes.
        let room = PAGE - PAGE_HEAD - self.page.len() - 18;
        let mut spans = Vec::new();
        let (mut before, mut count) = (from, 0);
        for posting in group {
            let kept = spans.len();
            put_unsigned(&mut spans, posting.first.saturating_sub(before));
            put_unsigned(&mut spans, posting.count.into());
            if spans.len() > room {
                spans.truncate(kept);
                break;
            }
            (before, count) = (posting.end(), count + 1);
        }
        self.page.extend_from_slice(&first.key.to_be_bytes());
        put_unsigned(&mut self.page, count as u64);
        self.page.extend_from_slice(&spans);
        group.get(count..).unwrap_or_default()
    }

    fn turn(&mut self) {
        if self.page.is_empty() {
            return;
        }
        let mut rest = u16::try_from(self.page.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
        rest.append(&mut self.page);
        rest.resize(PAGE - 4, 0);
        self.done.extend_from_slice(&crc32c::crc32c(&rest).to_be_bytes());
        self.done.extend_from_slice(&rest);
    }
}

/// An open file of postings.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) range: Range,
    pub(super) path: PathBuf,
    files: Arc<OpenFiles>,
    /// Key and first position of each page.
    fences: Vec<(u128, u64)>,
    /// Empty once there is no room for it.
    filter: RwLock<Filter>,
    pages_at: u64,
}

impl Table {
    /// Opens a file; its pages are read and checked when they are looked at.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] for what is none, or one of another folder, range or format; [`LogError::Io`].
    pub(super) fn open(files: &Arc<OpenFiles>, path: PathBuf, folder: FolderId, range: Range) -> Result<Self, LogError> {
        let failed = |source| LogError::io("read", &path, source);
        let file = files.get(&path).map_err(failed)?;
        let damaged = || damage(&path, 0, HEAD as u64, "this is no file of postings of its folder and range");
        let mut head = vec![0; HEAD];
        file.read_at(0, &mut head).map_err(failed)?;
        let (pages, filter_len) = lengths(&head, folder, range).ok_or_else(damaged)?;
        let (fences_len, pages_len) = (pages.checked_mul(FENCE).ok_or_else(damaged)?, pages.checked_mul(PAGE).ok_or_else(damaged)?);
        let pages_at = (HEAD + filter_len).checked_add(fences_len).ok_or_else(damaged)?;
        let length = pages_at.checked_add(pages_len).ok_or_else(damaged)?;
        if file.len().map_err(failed)? != length as u64 {
            return Err(damaged());
        }
        head.resize(pages_at, 0);
        file.read_at(0, &mut head).map_err(failed)?;
        if !is_head_whole(&head) {
            return Err(damaged());
        }
        let mut cursor = Cursor::new(head.get(HEAD..).unwrap_or_default());
        let mut fences = Vec::with_capacity(pages);
        for _ in 0..pages {
            let fence = (|| Some((u128::from_be_bytes(cursor.array()?), u64::from_be_bytes(cursor.array()?))))();
            fences.push(fence.ok_or_else(damaged)?);
        }
        let filter = RwLock::new(Filter::from_bytes(cursor.rest()));
        Ok(Self { range, path, files: Arc::clone(files), fences, filter, pages_at: pages_at as u64 })
    }

    /// Bytes of pages, as a measure for merging.
    pub(super) fn size(&self) -> usize {
        self.fences.len() * PAGE
    }

    /// False: nothing is posted under the key.
    pub(super) fn may_hold(&self, key: u128) -> bool {
        self.filter.read().may_hold(key)
    }

    /// Bytes that the filter takes in memory.
    pub(super) fn filter_bytes(&self) -> u64 {
        self.filter.read().as_bytes().len() as u64
    }

    /// Lets the filter go; lookups ask the pages then.
    pub(super) fn drop_filter(&self) {
        *self.filter.write() = Filter::default();
    }

    fn page(&self, number: usize) -> Result<Vec<u8>, LogError> {
        let at = self.pages_at + (number * PAGE) as u64;
        let failed = |source| LogError::io("read", &self.path, source);
        let mut page = vec![0; PAGE];
        let read = self.files.get(&self.path).map_err(failed)?.read_at(at, &mut page).map_err(failed)?;
        if read == PAGE && is_page_whole(&page) {
            return Ok(page);
        }
        Err(damage(&self.path, at, at + PAGE as u64, "a page of postings is damaged; delete the file, it is made again"))
    }

    /// Reads every page; returns their bytes.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub(super) fn check(&self) -> Result<u64, LogError> {
        (0..self.fences.len()).try_for_each(|number| self.page(number).map(|_| ()))?;
        Ok(self.size() as u64)
    }

    /// All that is posted, by key and position.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub(super) fn all(&self, into: &mut Vec<Posting>) -> Result<(), LogError> {
        for number in 0..self.fences.len() {
            visit(&self.page(number)?, self.range.from.get(), |posting| {
                into.push(posting);
                true
            });
        }
        Ok(())
    }
}

/// Number of pages and bytes of the filter, if these are the first bytes of the file that is meant.
fn lengths(head: &[u8], folder: FolderId, range: Range) -> Option<(usize, usize)> {
    let mut cursor = Cursor::new(head);
    let is_ours = cursor.array()? == MAGIC
        && u32::from_be_bytes(cursor.array()?) == FORMAT
        && cursor.array()? == *folder.as_bytes()
        && u64::from_be_bytes(cursor.array()?) == range.from.get()
        && u64::from_be_bytes(cursor.array()?) == range.covers.get();
    let (pages, filter) = (u32::from_be_bytes(cursor.array()?), u32::from_be_bytes(cursor.array()?));
    is_ours.then_some((usize::try_from(pages).ok()?, usize::try_from(filter).ok()?))
}

fn damage(path: &std::path::Path, from: u64, end: u64, what: &str) -> LogError {
    LogError::Corrupt { file: path.to_owned(), from, end, what: what.into() }
}

/// Calls `each` with what a page says, in order, while it returns true.
fn visit(page: &[u8], from: u64, mut each: impl FnMut(Posting) -> bool) {
    let _ = try_visit(page, from, &mut each);
}

/// The same; none if the page is not what it should be, or `each` has enough.
pub(super) fn try_visit(page: &[u8], from: u64, each: &mut impl FnMut(Posting) -> bool) -> Option<()> {
    let mut cursor = Cursor::new(page.get(4..)?);
    let used = u16::from_be_bytes(cursor.array()?);
    let mut cursor = Cursor::new(cursor.take(used.into())?);
    while !cursor.is_empty() {
        let (key, spans) = (u128::from_be_bytes(cursor.array()?), cursor.unsigned()?);
        let mut before = from;
        for _ in 0..spans {
            let first = before.checked_add(cursor.unsigned()?)?;
            let posting = Posting { key, first, count: u32::try_from(cursor.unsigned()?).ok()? };
            before = posting.end();
            if !each(posting) {
                return None;
            }
        }
    }
    Some(())
}

/// Follows one key through a table, in either direction. Pages that hold nothing of what is asked for are passed over by their
/// first keys, and each is read once as long as the answers lie in it.
pub(super) struct Follower<'a> {
    table: &'a Table,
    key: u128,
    /// The page last read, and what it says of the key, by position.
    page: Option<(usize, Vec<Posting>)>,
}

impl<'a> Follower<'a> {
    pub(super) const fn new(table: &'a Table, key: u128) -> Self {
        Self { table, key, page: None }
    }

    /// The first position at or behind `at` that is posted under the key.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub(super) fn next(&mut self, at: u64) -> Result<Option<u64>, LogError> {
        let (fences, key) = (&self.table.fences, self.key);
        // The page that begins at or before what is looked for may hold it, or else the one behind it.
        let behind = fences.partition_point(|fence| *fence <= (key, at));
        for number in behind.saturating_sub(1)..fences.len() {
            if number >= behind && fences.get(number).is_none_or(|(first, _)| *first != key) {
                break;
            }
            let postings = self.page(number)?;
            let place = postings.partition_point(|posting| posting.end() <= at);
            if let Some(posting) = postings.get(place) {
                return Ok(Some(posting.first.max(at)));
            }
        }
        Ok(None)
    }

    /// The last position before `before` that is posted under the key.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub(super) fn previous(&mut self, before: u64) -> Result<Option<u64>, LogError> {
        // What lies before is in the last page that begins before it, if anywhere: one of another key comes to this one late.
        let begin_before = self.table.fences.partition_point(|fence| *fence < (self.key, before));
        let Some(number) = begin_before.checked_sub(1) else { return Ok(None) };
        let postings = self.page(number)?;
        let place = postings.partition_point(|posting| posting.first < before);
        let last = place.checked_sub(1).and_then(|place| postings.get(place));
        Ok(last.map(|posting| posting.end().min(before) - 1))
    }

    /// What a page says of the key.
    fn page(&mut self, number: usize) -> Result<&[Posting], LogError> {
        let known = match self.page.take() {
            Some((read, postings)) if read == number => postings,
            _ => {
                let mut postings = Vec::new();
                visit(&self.table.page(number)?, self.table.range.from.get(), |posting| {
                    postings.extend((posting.key == self.key).then_some(posting));
                    posting.key <= self.key
                });
                postings
            }
        };
        Ok(&self.page.insert((number, known)).1)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{disk::Disk, testing::SimDisk};

    const FOLDER: FolderId = FolderId::new([1; 16]);
    const RANGE: Range = Range { from: Position::new(100), covers: Position::new(100_000) };

    fn stored(bytes: &[u8], disk: &SimDisk) -> Result<Table, LogError> {
        let path = Path::new("/t");
        let _ = disk.remove(path);
        disk.create(path).unwrap().write_at(0, bytes).unwrap();
        let files = OpenFiles::new(Arc::new(disk.clone()), 8);
        Table::open(&files, path.to_owned(), FOLDER, RANGE)
    }

    /// Keys with positions, as single postings; few keys have many.
    fn postings(given: &[(u8, u16)]) -> (Vec<Posting>, BTreeSet<(u128, u64)>) {
        let one = |(key, position): &(u8, u16)| (u128::from(key.ilog2()) << 100, 100 + u64::from(*position));
        let all: BTreeSet<_> = given.iter().map(one).collect();
        (all.iter().map(|(key, first)| Posting { key: *key, first: *first, count: 1 }).collect(), all)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_posting_is_found_from_wherever_it_is_looked_for(
            given in vec((1..=255_u8, 0..20_000_u16), 0..6000), asked in vec((1..=255_u8, 0..21_000_u16), 50),
        ) {
            let (mut encoded, all) = postings(&given);
            encoded.reverse();
            let table = stored(&encode(FOLDER, RANGE, &mut encoded), &SimDisk::new(1)).unwrap();
            for (key, at) in asked {
                let (key, at) = (u128::from(key.ilog2()) << 100, 100 + u64::from(at));
                let expected = all.range((key, at)..=(key, u64::MAX)).next().map(|(_, found)| *found);
                prop_assert_eq!(Follower::new(&table, key).next(at).unwrap(), expected);
                prop_assert!(expected.is_none() || table.may_hold(key));
                let expected = all.range((key, 0)..(key, at)).next_back().map(|(_, found)| *found);
                prop_assert_eq!(Follower::new(&table, key).previous(at).unwrap(), expected);
            }
            // One that has been somewhere answers the same.
            for key in (0..8).map(|key| key << 100) {
                let mut follower = Follower::new(&table, key);
                let mine: Vec<_> = all.range((key, 0)..=(key, u64::MAX)).map(|(_, position)| *position).collect();
                let forwards = std::iter::successors(follower.next(0).unwrap(), |at| follower.next(at + 1).unwrap());
                prop_assert!(forwards.eq(mine.iter().copied()));
                let backwards = std::iter::successors(follower.previous(u64::MAX).unwrap(), |at| follower.previous(*at).unwrap());
                prop_assert!(backwards.eq(mine.iter().rev().copied()));
            }
            let mut read = Vec::new();
            table.all(&mut read).unwrap();
            let read = read.iter().flat_map(|posting| (posting.first..posting.end()).map(|at| (posting.key, at))).collect::<BTreeSet<_>>();
            prop_assert_eq!(read, all);
        }

        #[test]
        fn a_flipped_byte_is_found(place in any::<usize>(), flip in 1..=255_u8) {
            let (mut encoded, all) = postings(&(0..3000).map(|number| (1 + (number % 200) as u8, number)).collect::<Vec<_>>());
            let mut bytes = encode(FOLDER, RANGE, &mut encoded);
            let place = place % bytes.len();
            *bytes.get_mut(place).unwrap() ^= flip;
            let mut read = Vec::new();
            let found = stored(&bytes, &SimDisk::new(1)).and_then(|table| table.all(&mut read));
            prop_assert!(found.is_err(), "byte {place} of {}, {} postings", bytes.len(), all.len());
        }
    }
}
