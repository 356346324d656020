//! The segment that a partition's records are appended to, and how it is sealed.
//!
//! Driven by tidy alone. Invariants: nothing is counted before all of it was written, so a refused write (a full disk) can be
//! tried again with the same runs; what a [`PartitionMark`] names was synced before it was given.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;

use crate::{
    batch::{self, BatchHeader, HEADER_LEN as BATCH_HEADER_LEN, varint::Cursor},
    disk::{Disk, DiskFile},
    error::LogError,
    ids::{Offset, Timestamp},
    record::Run,
    topic::Compression,
};

use super::{
    file::{HEADER_LEN, Kind, SegmentId, corrupt, failed, fresh},
    key_index::{Key, KeyIndex, KeyTable, StreamHasher, Stretch},
    offset_index::OffsetIndex,
    part::Segment,
    runs::{self, BlockHead, StoredRun},
};

/// Batches are written in pieces of about this size.
const PIECE: usize = 1 << 20;

/// How much of a partition's segments is durable; a checkpoint holds one for each partition that has any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionMark {
    /// Base offset of the oldest segment.
    pub first: Offset,
    /// Base offset of the active segment.
    pub active: Offset,
    /// Next offset to be written.
    pub end: Offset,
    /// Length of the active segment's `.log`.
    pub log_len: u64,
    /// Length of its `.runs`.
    pub runs_len: u64,
    /// Checksum of the last block of its `.runs`.
    pub chain: u32,
}

impl PartitionMark {
    /// Bytes of an encoded mark.
    pub const ENCODED_LEN: usize = 44;

    /// Appends the mark to a checkpoint.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.first.get(), self.active.get(), self.end.get(), self.log_len, self.runs_len] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.chain.to_be_bytes());
    }

    /// Reads a mark from the front of `bytes`; none if it cannot be one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let mut number = || cursor.array().map(u64::from_be_bytes);
        let (first, active, end) = (Offset::new(number()?), Offset::new(number()?), Offset::new(number()?));
        let (log_len, runs_len) = (number()?, number()?);
        let chain = u32::from_be_bytes(cursor.array()?);
        (first <= active && active <= end).then_some(Self { first, active, end, log_len, runs_len, chain })
    }
}

/// A segment that can be appended to.
#[derive(Debug)]
pub(super) struct ActiveSegment {
    pub(super) segment: Arc<Segment>,
    pub(super) log_len: u64,
    pub(super) runs_len: u64,
    pub(super) key_log_len: u64,
    pub(super) chain: u32,
    pub(super) end: Offset,
    pub(super) max_timestamp: Timestamp,
    /// Tables of the events that `.keylog` does not have yet, one behind the other.
    pub(super) unsaved_keys: Vec<u8>,
    /// Files written since the last sync; they stay open until then, so that a failed sync is told to us.
    pub(super) written: Option<Written>,
    /// Whether names in the folder are not durable yet.
    pub(super) has_new_names: bool,
}

/// Handles of the active segment's files.
#[derive(Clone, Debug)]
pub(super) struct Written {
    log: Arc<dyn DiskFile>,
    runs: Arc<dyn DiskFile>,
}

impl ActiveSegment {
    /// Creates the files of a new segment; their names are durable after the next sync.
    pub(super) fn create(segment: Arc<Segment>) -> Result<Self, LogError> {
        let id = &segment.id;
        let disk = &**segment.files.disk();
        let header = id.header(Kind::Runs);
        let runs_path = id.path(Kind::Runs);
        let log = fresh(disk, &id.path(Kind::Log))?;
        let runs = fresh(disk, &runs_path)?;
        runs.write_at(0, &header).map_err(failed("write", &runs_path))?;
        Ok(Self {
            log_len: 0,
            runs_len: HEADER_LEN as u64,
            key_log_len: 0,
            chain: crc32c::crc32c(&header),
            end: id.base,
            max_timestamp: Timestamp::new(i64::MIN),
            unsaved_keys: Vec::new(),
            written: Some(Written { log, runs }),
            has_new_names: true,
            segment,
        })
    }

    /// Whether nothing was appended yet.
    pub(super) const fn is_empty(&self) -> bool {
        self.log_len == 0
    }

    fn files(&mut self) -> Result<Written, LogError> {
        if let Some(written) = &self.written {
            return Ok(written.clone());
        }
        let open = |kind| {
            let path = self.segment.id.path(kind);
            self.segment.files.get(&path).map_err(failed("open", &path))
        };
        let written = Written { log: open(Kind::Log)?, runs: open(Kind::Runs)? };
        self.written = Some(written.clone());
        Ok(written)
    }

    /// Appends whole batches, all of whose runs are there, in order, right behind what the segment has. They come uncompressed. What is
    /// `known` of their streams need not be read.
    pub(super) fn append(
        &mut self,
        runs: &[Run],
        known: &[Stretch],
        compression: Compression,
        hasher: &StreamHasher,
    ) -> Result<(), LogError> {
        let written = self.files()?;
        let log_path = self.segment.id.path(Kind::Log);
        let runs_path = self.segment.id.path(Kind::Runs);
        let laid_out = LaidOut::new(runs, compression, self)?;
        let keys = if self.segment.has_keys { Some(self.table_of(runs, known, hasher, laid_out.end)?) } else { None };

        let mut at = self.log_len;
        for piece in laid_out.pieces() {
            written.log.write_at(at, &piece).map_err(failed("append to", &log_path))?;
            at += piece.len() as u64;
        }
        let mut blocks = Vec::new();
        let (mut runs_len, mut chain) = (self.runs_len, self.chain);
        for stored in laid_out.runs.chunks(runs::RUNS_A_BLOCK) {
            let Some((head, block)) = runs::encode(stored, chain, laid_out.max_timestamp) else {
                return Err(corrupt(&runs_path, runs_len, runs_len, "runs that cannot be encoded"));
            };
            written.runs.write_at(runs_len, &block).map_err(failed("append to", &runs_path))?;
            blocks.push((runs_len, head));
            (runs_len, chain) = (runs_len + block.len() as u64, head.checksum);
        }

        // All of it is written: now it counts.
        (self.log_len, self.runs_len, self.chain) = (at, runs_len, chain);
        (self.end, self.max_timestamp) = (laid_out.end, laid_out.max_timestamp);
        let table = keys.map(|(table, bytes)| {
            self.unsaved_keys.extend_from_slice(&bytes);
            table
        });
        self.segment.publish(blocks, table)
    }

    /// The table of some more keys, and its bytes.
    fn table_of(&self, runs: &[Run], known: &[Stretch], hasher: &StreamHasher, covers: Offset) -> Result<(KeyTable, Bytes), LogError> {
        let mut keys = keys_of(runs, known, hasher)?;
        let bytes = KeyTable::encode(&mut keys, self.segment.id.base, covers);
        match KeyTable::from_memory(&bytes) {
            Some((table, _)) => Ok((table, bytes)),
            None => Err(corrupt(&self.segment.id.path(Kind::KeyLog), 0, 0, "a table of keys that cannot be read back")),
        }
    }

    /// Makes everything appended so far durable.
    pub(super) fn sync(&mut self) -> Result<(), LogError> {
        self.save_keys()?;
        if let Some(written) = self.written.take() {
            self.sync_files(&written)?;
        }
        if self.has_new_names {
            let folder = &self.segment.id.folder;
            self.segment.files.disk().sync_folder(folder).map_err(failed("sync folder", folder))?;
            self.has_new_names = false;
        }
        Ok(())
    }

    fn sync_files(&self, written: &Written) -> Result<(), LogError> {
        for (file, kind) in [(&written.log, Kind::Log), (&written.runs, Kind::Runs)] {
            file.sync().map_err(failed("sync segment", &self.segment.id.path(kind)))?;
        }
        Ok(())
    }

    /// Appends the events that `.keylog` does not have, and syncs it.
    fn save_keys(&mut self) -> Result<(), LogError> {
        if self.unsaved_keys.is_empty() {
            return Ok(());
        }
        let id = &self.segment.id;
        let path = id.path(Kind::KeyLog);
        let file = if self.key_log_len == 0 {
            let file = fresh(&**self.segment.files.disk(), &path)?;
            file.write_at(0, &id.header(Kind::KeyLog)).map_err(failed("write", &path))?;
            self.has_new_names = true;
            file
        } else {
            self.segment.files.get(&path).map_err(failed("open", &path))?
        };
        let at = self.key_log_len.max(HEADER_LEN as u64);
        file.write_at(at, &self.unsaved_keys).map_err(failed("append to", &path))?;
        file.sync().map_err(failed("sync key index", &path))?;
        self.key_log_len = at + self.unsaved_keys.len() as u64;
        self.unsaved_keys = Vec::new();
        Ok(())
    }

    /// Ends the segment: it is whole, durable and has its indexes in files.
    pub(super) fn seal(&mut self) -> Result<(), LogError> {
        let written = self.files()?;
        let id = self.segment.id.clone();
        let runs_path = id.path(Kind::Runs);
        let index = self.segment.index();
        let Some(last) = index.last() else {
            return Err(corrupt(&runs_path, 0, self.runs_len, "an empty segment cannot be sealed"));
        };
        let (seal, block) = runs::encode_seal(last, last.end_offset, last.end_position);
        written.runs.write_at(self.runs_len, &block).map_err(failed("append to", &runs_path))?;
        // A write that was refused may have left bytes behind what counts.
        for (file, kind, length) in
            [(&written.log, Kind::Log, self.log_len), (&written.runs, Kind::Runs, self.runs_len + block.len() as u64)]
        {
            file.set_len(length).map_err(failed("cut", &id.path(kind)))?;
        }
        self.sync_files(&written)?;
        self.written = None;
        let disk = &**self.segment.files.disk();
        write_whole(disk, &id, Kind::Index, &index.encode(&id, &seal))?;
        if self.segment.has_keys {
            save_sealed_keys(&self.segment)?;
        }
        disk.sync_folder(&id.folder).map_err(failed("sync folder", &id.folder))?;
        self.has_new_names = false;
        Ok(())
    }
}

/// Writes all keys of a segment as the one table of a sealed segment, and uses that from now on.
pub(super) fn save_sealed_keys(segment: &Segment) -> Result<(), LogError> {
    let id = &segment.id;
    let (_, table) = segment.keys().merged(id.base)?;
    let mut bytes = id.header(Kind::Keys).to_vec();
    bytes.extend_from_slice(&table);
    write_whole(&**segment.files.disk(), id, Kind::Keys, &bytes)?;
    let path = id.path(Kind::Keys);
    segment.files.forget(&path);
    segment.replace_keys(KeyIndex::sealed(KeyTable::from_file(&segment.files, &path, HEADER_LEN as u64)?));
    Ok(())
}

/// Writes a derived file anew and syncs it; its name is durable when the folder was synced.
pub(super) fn write_whole(disk: &dyn Disk, id: &SegmentId, kind: Kind, bytes: &[u8]) -> Result<(), LogError> {
    let path = id.path(kind);
    let file = fresh(disk, &path)?;
    file.write_at(0, bytes).map_err(failed("write", &path))?;
    file.sync().map_err(failed("sync", &path))
}

/// The index entries of runs of events and marks. Only runs that `known` does not cover are read; it is in order, as they are.
pub(super) fn keys_of(runs: &[Run], mut known: &[Stretch], hasher: &StreamHasher) -> Result<Vec<Key>, LogError> {
    let mut keys = Vec::with_capacity(runs.iter().map(|run| run.count as usize).sum());
    for run in runs {
        let below = |offset| known.partition_point(|stretch| stretch.first_offset < offset);
        let (from, to) = (below(run.first_offset), below(run.first_offset.plus(run.count.into())));
        let of_run = known.get(from..to).unwrap_or_default();
        known = known.get(to..).unwrap_or_default();
        if of_run.iter().map(|stretch| u64::from(stretch.count)).sum::<u64>() == u64::from(run.count) {
            keys.extend(of_run.iter().flat_map(|stretch| stretch.keys()));
        } else {
            read_keys(run, hasher, &mut keys)?;
        }
    }
    Ok(keys)
}

fn read_keys(run: &Run, hasher: &StreamHasher, keys: &mut Vec<Key>) -> Result<(), LogError> {
    // Events of one stream mostly come together.
    let mut last: Option<(&[u8], u128)> = None;
    for record in run.records() {
        let record = record?;
        let version = record.event().map(|event| event.version.get()).or_else(|| Some(record.mark()?.mark.to_key()));
        let (Some(name), Some(version)) = (record.key, version) else { continue };
        let stream = match last {
            Some((same, stream)) if same == name => stream,
            _ => hasher.hash(name),
        };
        last = Some((name, stream));
        keys.push(Key { stream, version, offset: record.offset.get() });
    }
    Ok(())
}

/// Where runs and their batches come to lie in `.log`.
struct LaidOut<'a> {
    /// As they are to lie there: compressed where that pays.
    batches: Vec<Cow<'a, [u8]>>,
    runs: Vec<StoredRun>,
    end: Offset,
    max_timestamp: Timestamp,
}

impl<'a> LaidOut<'a> {
    /// Lays `runs` out behind what `segment` has.
    fn new(runs: &'a [Run], compression: Compression, segment: &ActiveSegment) -> Result<Self, LogError> {
        let (end, max_timestamp) = (segment.end, segment.max_timestamp);
        let mut out = Self { batches: Vec::new(), runs: Vec::with_capacity(runs.len()), end, max_timestamp };
        let mut next_batch_at = segment.log_len;
        // Header, place, length and check of the header of the batch that runs are in.
        let mut batch: Option<(BatchHeader, u64, usize, u32)> = None;
        for run in runs {
            let refuse = |what: &str| LogError::Invalid { field: format!("run at offset {}", run.first_offset), reason: what.into() };
            let header = BatchHeader::parse(&run.batch).map_err(|flaw| refuse(flaw.what))?;
            let bytes = run.batch.get(..header.length).ok_or_else(|| refuse("its batch is cut short"))?;
            if batch.is_none_or(|(before, ..)| before.base_offset != header.base_offset) {
                if header.base_offset != out.end {
                    return Err(refuse("its batch does not follow the one before"));
                }
                let stored = batch::compress(bytes, compression).map_or(Cow::Borrowed(bytes), Cow::Owned);
                batch = Some((header, next_batch_at, stored.len(), header_check(&stored)));
                next_batch_at += stored.len() as u64;
                out.batches.push(stored);
                out.max_timestamp = out.max_timestamp.max(header.max_timestamp);
            }
            let Some((header, batch_at, batch_len, batch_check)) = batch else { continue };
            if run.first_offset != out.end || run.first_offset.plus(run.count.into()) > header.end_offset() {
                return Err(refuse("it does not follow the run before"));
            }
            let stored = StoredRun {
                first_offset: run.first_offset,
                count: run.count,
                first_position: run.first_position,
                recorded_at: run.recorded_at,
                batch_at,
                batch_len: u32::try_from(batch_len).unwrap_or(u32::MAX),
                batch_check,
            };
            out.end = stored.end_offset();
            out.runs.push(stored);
        }
        Ok(out)
    }

    /// The batches' bytes, coalesced so that small batches do not cost a call each.
    fn pieces(&self) -> impl Iterator<Item = Cow<'_, [u8]>> {
        let mut rest = self.batches.as_slice();
        std::iter::from_fn(move || {
            let mut size = 0;
            let count = rest.iter().take_while(|batch| (size + batch.len() <= PIECE, size += batch.len()).0).count().max(1);
            let (now, later) = rest.split_at_checked(count)?;
            rest = later;
            Some(if let [single] = now { (&**single).into() } else { now.concat().into() })
        })
    }
}

/// CRC-32C of a batch's header: what `.runs` remembers of the batch.
pub(super) fn header_check(batch: &[u8]) -> u32 {
    crc32c::crc32c(batch.get(..BATCH_HEADER_LEN).unwrap_or_default())
}

/// How many of `runs` go into a segment that has room for `room` bytes: whole batches, at least one if `must_take`.
pub(super) fn fitting(runs: &[Run], room: u64, must_take: bool) -> usize {
    let (mut taken, mut used) = (0, 0);
    while taken < runs.len() {
        let base = base_of(&runs[taken]);
        let same = runs[taken..].iter().take_while(|run| base_of(run) == base).count();
        used += runs[taken].batch.len() as u64;
        if used > room && !(must_take && taken == 0) {
            break;
        }
        taken += same;
    }
    taken
}

/// A batch's base offset, as it lies: what tells the batches of a partition apart.
fn base_of(run: &Run) -> Option<&[u8]> {
    run.batch.get(..8)
}

/// An index and the end of what it holds, as recovery found them.
pub(super) struct Found {
    pub(super) index: OffsetIndex,
    pub(super) chain: u32,
    pub(super) seal: Option<BlockHead>,
}

impl Found {
    pub(super) fn end(&self, base: Offset) -> Offset {
        self.index.last().map_or(base, |last| last.end_offset)
    }

    pub(super) fn log_end(&self) -> u64 {
        self.index.last().map_or(0, |last| last.log_end)
    }

    pub(super) fn max_timestamp(&self) -> Timestamp {
        self.index.last().map_or(Timestamp::new(i64::MIN), |last| last.max_timestamp)
    }
}
