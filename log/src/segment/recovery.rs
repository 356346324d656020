//! From files to segments: what a checkpoint says is there is checked, what lies beyond it is cut.
//!
//! Runs once a partition, at start. An [`UnrecoveredSegment`] becomes an [`ActiveSegment`] or a sealed [`Segment`]; nothing else
//! can be read or written. Damage is reported with its place. Invariant: files are only read here. What is to be cut off,
//! removed or made again is a [`Repair`], carried out when the start knows that the journal is good and the checkpoint durable.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use tracing::{info, warn};

use crate::{disk::Disk, error::LogError, ids::Offset};

use super::{
    file::{HEADER_LEN, Kind, OpenFiles, SegmentId, corrupt, failed, read_all, read_range, remove_if_there},
    key_index::{Key, KeyIndex, KeyTable, StreamHasher},
    offset_index::OffsetIndex,
    part::Segment,
    reader::read_runs,
    runs::{self, BlockHead, BlockKind, HEAD_LEN},
    set::Checkpointed,
    writer::{ActiveSegment, Found, PartitionMark, keys_of, save_sealed_keys, write_whole},
};

/// The segments' names in a folder, sorted out by what the checkpoint says.
pub(super) struct Listing {
    /// Segments that are sealed, by their base offset: generation, and where those end that compaction wrote.
    pub(super) sealed: Vec<(Offset, u32, Option<Offset>)>,
    /// Files of segments that the checkpoint does not know: the journal still has what is in them, or they were removed.
    pub(super) unknown: Vec<PathBuf>,
}

impl Listing {
    pub(super) fn new(disk: &dyn Disk, folder: &Path, known: Option<&Checkpointed>) -> Result<Self, LogError> {
        let entries = match disk.list(folder) {
            Ok(entries) => entries,
            // With a mark its segments are missing then, which is reported of each.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed("list folder", folder)(error)),
        };
        let (mark, rewritten) = (known.map(|known| &known.mark), known.map_or(&[][..], |known| &known.rewritten));
        // What compaction wrote is named one by one; all else is where it lies.
        let mut sealed: BTreeMap<_, _> = rewritten.iter().map(|one| (one.base, (one.generation, Some(one.end)))).collect();
        let mut unknown = Vec::new();
        for entry in entries.iter().filter(|entry| !entry.is_folder) {
            let Some((base, generation, kind)) = Kind::parse(&entry.name) else {
                warn!(file = %folder.join(&entry.name).display(), "a file that is none of ours is left alone");
                continue;
            };
            let in_place = rewritten.iter().find(|one| one.base <= base && base < one.end);
            let is_named = in_place.map_or(generation == 0, |one| (one.base, one.generation) == (base, generation));
            let is_known = is_named && mark.is_some_and(|mark| (mark.first..=mark.active).contains(&base));
            let is_sealed = mark.is_some_and(|mark| mark.first <= base && base < mark.active);
            let is_leftover = if is_sealed { kind == Kind::KeyLog } else { matches!(kind, Kind::Index | Kind::Keys) };
            if !is_known || is_leftover {
                unknown.push(folder.join(&entry.name));
            } else if is_sealed && matches!(kind, Kind::Log | Kind::Runs) {
                sealed.entry(base).or_insert((0, None));
            }
        }
        Ok(Self { sealed: sealed.into_iter().map(|(base, (generation, end))| (base, generation, end)).collect(), unknown })
    }
}

/// Something that a start does to a segment's files once it may.
#[derive(Debug)]
pub(super) enum Repair {
    /// Removes a file that the checkpoint does not know.
    Remove(PathBuf),
    /// Cuts off what lies behind a length.
    Cut(PathBuf, u64),
    /// Saves an offset index that was made again.
    Index(SegmentId, Vec<u8>),
    /// Saves the key index of a sealed segment that was made again.
    Keys(Arc<Segment>),
}

impl Repair {
    /// Carries it out. An index that cannot be saved is no error: everything works without it, and the next start tries again.
    pub(super) fn carry_out(&self, files: &OpenFiles) -> Result<(), LogError> {
        let saved = match self {
            Self::Remove(path) => return remove_if_there(&**files.disk(), path),
            Self::Cut(path, length) => {
                let file = files.get(path).map_err(failed("open", path))?;
                return file.set_len(*length).map_err(failed("cut", path));
            }
            Self::Index(id, bytes) => write_whole(&**files.disk(), id, Kind::Index, bytes),
            Self::Keys(segment) => save_sealed_keys(segment),
        };
        if let Err(error) = saved {
            warn!(%error, "an index could not be saved");
        }
        Ok(())
    }
}

/// A segment's files, of which nothing is known yet.
pub(super) struct UnrecoveredSegment {
    pub(super) id: SegmentId,
    pub(super) files: Arc<OpenFiles>,
    pub(super) has_keys: bool,
}

impl UnrecoveredSegment {
    fn open(&self, kind: Kind) -> Result<Arc<dyn crate::disk::DiskFile>, LogError> {
        let path = self.id.path(kind);
        self.files.get(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => corrupt(&path, 0, 0, "the file is missing; restore it from a backup"),
            _ => failed("open", &path)(error),
        })
    }

    /// Length of a file that must have at least `expected` bytes.
    fn length(&self, kind: Kind, expected: u64) -> Result<u64, LogError> {
        let path = self.id.path(kind);
        let length = self.open(kind)?.len().map_err(failed("measure", &path))?;
        if length < expected {
            return Err(corrupt(&path, length, expected, "the file is shorter than it was when it was synced"));
        }
        Ok(length)
    }

    fn segment(self, index: OffsetIndex, keys: KeyIndex, seal: Option<BlockHead>) -> Arc<Segment> {
        Arc::new(Segment::new(self.id, self.files, self.has_keys, index, keys).sealed_with(seal))
    }

    /// Takes the segment up to `mark`; what lies behind is to be cut off.
    pub(super) fn active(
        self,
        mark: &PartitionMark,
        hasher: &StreamHasher,
        read: &ReadContext,
        repairs: &mut Vec<Repair>,
    ) -> Result<ActiveSegment, LogError> {
        let log_len = self.length(Kind::Log, mark.log_len)?;
        let runs_len = self.length(Kind::Runs, mark.runs_len)?;
        let runs_path = self.id.path(Kind::Runs);
        let bytes = read_range(&*self.open(Kind::Runs)?, &runs_path, 0, mark.runs_len)?;
        let found = walk(&self.id, &bytes)?;
        let is_as_marked =
            found.seal.is_none() && found.chain == mark.chain && found.end(self.id.base) == mark.end && found.log_end() == mark.log_len;
        if !is_as_marked {
            return Err(corrupt(&runs_path, 0, mark.runs_len, "the runs are not those of the checkpoint; the file may be an older copy"));
        }
        for (kind, is, should) in [(Kind::Log, log_len, mark.log_len), (Kind::Runs, runs_len, mark.runs_len)] {
            if is != should {
                repairs.push(Repair::Cut(self.id.path(kind), should));
            }
        }
        let (keys, key_log_len) = if self.has_keys { self.key_log(mark.end) } else { (KeyIndex::default(), 0) };
        if key_log_len > 0 {
            // What lies behind would be taken for tables that follow those yet to be written.
            repairs.push(Repair::Cut(self.id.path(Kind::KeyLog), key_log_len));
        }
        let covered = keys.covers().unwrap_or(self.id.base);
        let max_timestamp = found.max_timestamp();
        let segment = self.segment(found.index, keys, None);
        let mut active = ActiveSegment {
            log_len: mark.log_len,
            runs_len: mark.runs_len,
            key_log_len,
            chain: mark.chain,
            end: mark.end,
            max_timestamp,
            unsaved_keys: Vec::new(),
            written: None,
            has_new_names: false,
            segment,
        };
        if active.segment.has_keys && covered < mark.end {
            info!(segment = %active.segment.id.path(Kind::Log).display(), from = %covered, "making the key index again");
            let mut keys = keys_from_log(&active.segment, covered, hasher, read)?;
            let (rest, bytes) = table_of(&active.segment, &mut keys, mark.end)?;
            active.unsaved_keys = bytes.into();
            active.segment.publish(Vec::new(), Some(rest))?;
        }
        Ok(active)
    }

    /// The whole tables at the front of `.keylog` that the checkpoint covers, and where they end; 0 if the file is no good.
    fn key_log(&self, end: Offset) -> (KeyIndex, u64) {
        let nothing = (KeyIndex::default(), 0);
        let path = self.id.path(Kind::KeyLog);
        let Ok(bytes) = self.files.get(&path).map_err(failed("open", &path)).and_then(|file| read_all(&*file, &path)) else {
            return nothing;
        };
        let mut rest = Bytes::from(bytes);
        let total = rest.len();
        if self.id.check_header(Kind::KeyLog, &rest).is_err() {
            return nothing;
        }
        let mut used = HEADER_LEN;
        let mut tables: Vec<KeyTable> = Vec::new();
        rest = rest.slice(HEADER_LEN..);
        while let Some((table, after)) = KeyTable::from_memory(&rest) {
            // Its pages are checked here, once, since no file is behind them any more.
            let is_whole = table.for_each(|_| {}).is_ok();
            let is_next = table.covers <= end && tables.last().is_none_or(|last| last.covers < table.covers);
            if !is_next || !is_whole {
                break;
            }
            tables.push(table);
            used = total - after.len();
            rest = after;
        }
        KeyIndex::of(&tables, self.id.base).map_or(nothing, |keys| (keys, used as u64))
    }

    /// Takes a sealed segment, which ends at or before the beginning of the next one, `end`; one that compaction wrote ends there.
    pub(super) fn sealed(
        self,
        end: Offset,
        hasher: &StreamHasher,
        read: &ReadContext,
        repairs: &mut Vec<Repair>,
    ) -> Result<Arc<Segment>, LogError> {
        let (index, seal) = match self.saved_index() {
            Some((index, seal)) => {
                self.check_ends_of_runs(&index, &seal)?;
                (index, Some(seal))
            }
            None => self.index_from_runs(end, repairs)?,
        };
        let last = seal.or_else(|| index.last().copied());
        let found_end = last.map_or(self.id.base, |last| last.end_offset);
        if self.id.generation > 0 && found_end != end {
            let other = format!("the segment was written anew up to offset {end}, and ends at {found_end}");
            return Err(corrupt(&self.id.path(Kind::Log), 0, 0, other));
        }
        if found_end > end {
            let overlap = format!("the segment ends at offset {found_end}, but the next one begins at {end}");
            return Err(corrupt(&self.id.path(Kind::Log), 0, 0, overlap));
        }
        let log_end = last.map_or(0, |last| last.log_end);
        let log_len = self.length(Kind::Log, log_end)?;
        if log_len != log_end {
            return Err(corrupt(&self.id.path(Kind::Log), log_end, log_len, "bytes lie behind the end of a sealed segment"));
        }
        let keys_path = self.id.path(Kind::Keys);
        let keys = if self.has_keys { self.saved_keys(found_end) } else { Some(KeyIndex::default()) };
        let needs_keys = keys.is_none();
        let segment = self.segment(index, keys.unwrap_or_default(), seal);
        if needs_keys {
            info!(file = %keys_path.display(), "making the key index again");
            let mut keys = keys_from_log(&segment, segment.id.base, hasher, read)?;
            segment.replace_keys(index_of(&segment, &mut keys, found_end)?);
            repairs.push(Repair::Keys(segment.clone()));
        }
        Ok(segment)
    }

    fn saved_index(&self) -> Option<(OffsetIndex, BlockHead)> {
        let path = self.id.path(Kind::Index);
        let file = self.files.get(&path).ok()?;
        OffsetIndex::decode(&self.id, &read_all(&*file, &path).ok()?)
    }

    /// Checks the first and the last bytes of `.runs` against an index; the blocks between are checked when they are read.
    fn check_ends_of_runs(&self, index: &OffsetIndex, seal: &BlockHead) -> Result<(), LogError> {
        let (path, seal_at) = (self.id.path(Kind::Runs), index.runs_end());
        let end = seal_at + HEAD_LEN as u64;
        let length = self.length(Kind::Runs, end)?;
        if length != end {
            return Err(corrupt(&path, end, length, "bytes lie behind the end of a sealed segment's runs"));
        }
        let file = self.open(Kind::Runs)?;
        self.id.check_header(Kind::Runs, &read_range(&*file, &path, 0, HEADER_LEN as u64)?)?;
        if read_range(&*file, &path, seal_at, HEAD_LEN as u64)? != seal.encode() {
            return Err(corrupt(&path, seal_at, end, "the end of a sealed segment's runs is damaged"));
        }
        Ok(())
    }

    fn index_from_runs(&self, end: Offset, repairs: &mut Vec<Repair>) -> Result<(OffsetIndex, Option<BlockHead>), LogError> {
        let path = self.id.path(Kind::Runs);
        let bytes = read_all(&*self.open(Kind::Runs)?, &path)?;
        let found = walk(&self.id, &bytes)?;
        let Some(seal) = found.seal else {
            // It was damaged while it was active, so that another one was begun behind it; what is whole of it is read.
            if found.end(self.id.base) == end {
                return Ok((found.index, None));
            }
            return Err(corrupt(&path, bytes.len() as u64, bytes.len() as u64, "the end of a sealed segment's runs is missing"));
        };
        info!(file = %self.id.path(Kind::Index).display(), "making the offset index again");
        repairs.push(Repair::Index(self.id.clone(), found.index.encode(&self.id, &seal)));
        Ok((found.index, Some(seal)))
    }

    fn saved_keys(&self, end: Offset) -> Option<KeyIndex> {
        let path = self.id.path(Kind::Keys);
        let header = read_range(&*self.files.get(&path).ok()?, &path, 0, HEADER_LEN as u64).ok()?;
        self.id.check_header(Kind::Keys, &header).ok()?;
        let table = KeyTable::from_file(&self.files, &path, HEADER_LEN as u64).ok()?;
        (table.covers == end).then(|| KeyIndex::sealed(table))
    }
}

/// What reading records needs beyond the segment.
pub(super) struct ReadContext {
    pub(super) topic: Arc<crate::topic::Topic>,
}

/// Index entries of a segment's events from an offset on, from its batches.
pub(super) fn keys_from_log(segment: &Arc<Segment>, from: Offset, hasher: &StreamHasher, read: &ReadContext) -> Result<Vec<Key>, LogError> {
    let mut keys = Vec::new();
    read_runs(segment, &read.topic, from, |run| {
        keys.extend(keys_of(&[run], &[], hasher)?);
        Ok(())
    })?;
    Ok(keys)
}

/// A segment's key index, from its keys.
pub(super) fn index_of(segment: &Segment, keys: &mut [Key], covers: Offset) -> Result<KeyIndex, LogError> {
    Ok(KeyIndex::sealed(table_of(segment, keys, covers)?.0))
}

fn table_of(segment: &Segment, keys: &mut [Key], covers: Offset) -> Result<(KeyTable, Bytes), LogError> {
    let bytes = KeyTable::encode(keys, segment.id.base, covers);
    let table = KeyTable::from_memory(&bytes).map(|(table, _)| table);
    table.map(|table| (table, bytes)).ok_or_else(|| corrupt(&segment.id.path(Kind::Keys), 0, 0, "a table of keys that cannot be read back"))
}

/// Follows the blocks of `.runs`, all of which must be whole.
pub(super) fn walk(id: &SegmentId, bytes: &[u8]) -> Result<Found, LogError> {
    let path = id.path(Kind::Runs);
    id.check_header(Kind::Runs, bytes)?;
    let mut chain = crc32c::crc32c(bytes.get(..HEADER_LEN).unwrap_or_default());
    let mut index = OffsetIndex::default();
    let mut at = HEADER_LEN;
    while at < bytes.len() {
        let flaw = |length: u64, what: &str| {
            let offset = index.last().map_or(id.base, |last: &BlockHead| last.end_offset);
            corrupt(&path, at as u64, at as u64 + length, format!("{what}; it holds the runs from offset {offset} on"))
        };
        let Some(head) = bytes.get(at..).and_then(BlockHead::decode) else {
            return Err(flaw(HEAD_LEN as u64, "the head of a block of runs is damaged"));
        };
        let end = at + HEAD_LEN + head.body_len as usize;
        let Some(block) = bytes.get(at..end) else {
            return Err(flaw(head.block_len(), "a block of runs is cut short"));
        };
        if !runs::check(block) {
            return Err(flaw(head.block_len(), "the checksum of a block of runs differs"));
        }
        let (offset, position, log) =
            index.last().map_or((id.base, head.first_position, 0), |last| (last.end_offset, last.end_position, last.log_end));
        // A block may begin within the batch that the one before ended in.
        let follows = head.chain == chain && head.base_offset >= offset && head.first_position >= position && head.log_end >= log;
        if !follows {
            return Err(flaw(head.block_len(), "a block of runs does not follow the one before"));
        }
        if head.kind == BlockKind::Seal {
            return match end == bytes.len() {
                true => Ok(Found { index, chain: head.checksum, seal: Some(head) }),
                false => Err(corrupt(&path, end as u64, bytes.len() as u64, "bytes lie behind the end of a sealed segment's runs")),
            };
        }
        index.push(at as u64, head);
        (at, chain) = (end, head.checksum);
    }
    Ok(Found { index, chain, seal: None })
}
