//! Segments written anew: what is left of sealed ones, in one segment beside them, and how that takes their place.
//!
//! Compaction reads [`Source`]s and writes, the committer and a start put in place. Invariants: offsets, positions and server times stay what
//! they were; what was written is synced before a frame names it; of what it replaces no file goes before a checkpoint names it.

use std::{ops::Range, sync::Arc};

use crate::{
    batch::{self, BatchHeader, Flaw, HEADER_LEN as BATCH_HEADER_LEN, Kept, StoredRecords},
    compaction::{Candidate, Cleaned},
    disk::DiskFile,
    error::LogError,
    ids::{Offset, Position, Timestamp},
    life::Blank,
};

use super::{
    file::{HEADER_LEN, Kind, SegmentId, corrupt, failed, fresh},
    key_index::KeyIndex,
    offset_index::OffsetIndex,
    part::{Lost, Segment},
    reader::{WholeBatch, read_batches},
    recovery::{ReadContext, Repair, index_of, keys_from_log},
    runs::{self, BlockHead, StoredRun},
    set::{Layout, Segments},
    writer::{header_check, save_sealed_keys, write_whole},
};

/// Bytes of batches that are written at once.
const PIECE: usize = 1 << 20;
/// Full segments that become one at most, however little is left of them: what was done is kept by then.
const MOST_SEGMENTS: u64 = 8;

/// Segments from an offset (inclusive) to another (exclusive), written anew as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Base offset of the first that it replaces, and its own.
    pub base: Offset,
    /// Where the segment behind begins.
    pub end: Offset,
    /// Higher than that of all that it replaces.
    pub generation: u32,
}

/// What was written anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rewritten {
    pub(crate) rewrite: Rewrite,
    /// How many segments it is to replace.
    pub(crate) count: usize,
    /// Length of its `.log`.
    pub(crate) bytes: u64,
}

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stays as it is.
    Stays,
    /// Nothing of it is left.
    Goes,
    /// This takes its place: some of its records, or blanks, at their offsets, uncompressed.
    Becomes(Vec<u8>),
}

impl Fate {
    /// What becomes of an uncompressed batch of events, of whose records so much is kept, one after the other.
    ///
    /// # Errors
    /// Where the batch cannot be followed, and where what is to be a blank is no event.
    pub(crate) fn of(batch: &[u8], kept: &[Kept]) -> Result<Self, Flaw> {
        let (mut kept, mut changes) = (kept.iter(), false);
        let left = batch::retain(batch, None, |record| {
            let kept = kept.next().map_or(Kept::Whole, |kept| kept.of(record));
            changes |= kept != Kept::Whole;
            kept
        })?;
        Ok(if changes { left.map_or(Self::Goes, Self::Becomes) } else { Self::Stays })
    }
}

/// A sealed segment that may be written anew. As long as it is held its files stay.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    segment: Arc<Segment>,
    pub(crate) about: Candidate,
}

impl Source {
    pub(super) const fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Its base offset.
    pub(crate) fn base(&self) -> Offset {
        self.segment.id.base
    }

    /// Calls `each` with every batch that has a record at an offset or behind it, until one call says that this was enough (false).
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`], and what `each` returns.
    pub(crate) fn batches(&self, from: Offset, each: impl FnMut(&WholeBatch) -> Result<bool, LogError>) -> Result<(), LogError> {
        read_batches(&self.segment, from, each)
    }
}

impl Segments {
    /// Segments that may be written anew, the oldest first: what a durable checkpoint holds as sealed. Blocking.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], also for a segment that is lost; [`LogError::Io`].
    pub(crate) fn sources(&self) -> Result<Vec<Source>, LogError> {
        let Some(active) = self.gone.lock().active() else { return Ok(Vec::new()) };
        let list = self.list.read().clone();
        let mut sources = Vec::new();
        for (segment, next) in list.iter().zip(list.iter().skip(1)).take_while(|(segment, _)| segment.id.base < active) {
            if let Some(damage) = segment.damage() {
                return Err(damage.report());
            }
            let Some(end_position) = segment.end_position() else { break };
            let recorded_to = segment.recorded_to()?;
            let about = Candidate {
                end: next.id.base,
                end_position,
                bytes: segment.log_end(),
                recorded_from: segment.recorded_from().unwrap_or(recorded_to),
                recorded_to,
            };
            sources.push(Source { segment: Arc::clone(segment), about });
        }
        Ok(sources)
    }

    /// How far it is compacted; a topic of events is up to where retention has let go of everything.
    pub(crate) fn cleaned(&self) -> Cleaned {
        if self.has_keys() {
            return Cleaned { to: self.low().offset, horizon: Timestamp::default() };
        }
        *self.cleaned.lock()
    }

    /// Bytes of `.log` that compaction has not looked at.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        let cleaned_to = self.cleaned().to;
        self.list.read().iter().filter(|segment| segment.end() > cleaned_to).map(|segment| segment.log_end()).sum()
    }

    /// Whether something may have been left out of it.
    pub(crate) fn have_holes(&self) -> bool {
        self.list.read().iter().any(|segment| segment.id.generation > 0)
    }

    /// Whether all of these are still in their places.
    pub(crate) fn has(&self, sources: &[Source]) -> bool {
        let list = self.list.read();
        sources.iter().all(|source| list.iter().any(|segment| Arc::ptr_eq(segment, &source.segment)))
    }

    /// Writes segments that follow each other anew as one, each batch as `fate` says: as many from the first on as leave no more than a segment
    /// has, and a part of all at most. It is kept ready for [`Segments::put_in_place`]; if this fails nothing is left of it. Blocking.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`], and what `fate` returns. After a failed sync the process must end.
    pub(crate) fn rewrite(
        &self,
        sources: &[Source],
        layout: Layout,
        fate: impl FnMut(&WholeBatch) -> Result<Fate, LogError>,
    ) -> Result<Option<Rewritten>, LogError> {
        let Some(first) = sources.first() else { return Ok(None) };
        let newest = self.list.read().iter().map(|segment| segment.id.generation).max().unwrap_or_default();
        let id = self.id_of(first.base(), newest.saturating_add(1));
        match self.write(id.clone(), sources, layout, fate) {
            Ok((segment, count)) => {
                let rewrite = Rewrite { base: id.base, end: segment.end(), generation: id.generation };
                let bytes = segment.log_end();
                *self.prepared.lock() = Some(segment);
                Ok(Some(Rewritten { rewrite, count, bytes }))
            }
            Err(error) => {
                self.remove_files(&id)?;
                Err(error)
            }
        }
    }

    fn write(
        &self,
        id: SegmentId,
        sources: &[Source],
        layout: Layout,
        mut fate: impl FnMut(&WholeBatch) -> Result<Fate, LogError>,
    ) -> Result<(Arc<Segment>, usize), LogError> {
        let mut new = NewSegment::create(self, id)?;
        let (mut count, mut read, mut end) = (0, 0, (new.id.base, Position::default()));
        for source in sources {
            let is_too_long = new.log_len + source.about.bytes > layout.max_log_bytes;
            let is_too_much = read + source.about.bytes > layout.max_log_bytes.saturating_mul(MOST_SEGMENTS);
            if count > 0 && (is_too_long || is_too_much) {
                break;
            }
            source.batches(source.base(), |batch| {
                match fate(batch)? {
                    Fate::Goes => {}
                    Fate::Stays => new.push(&batch.stored, &batch.runs)?,
                    Fate::Becomes(changed) => {
                        let runs = runs_of(&batch.runs, &changed, self.has_keys()).map_err(|flaw| batch.damage(flaw))?;
                        let packed = batch::compress(&changed, layout.compression);
                        new.push(packed.as_deref().unwrap_or(&changed), &runs)?;
                    }
                }
                Ok(true)
            })?;
            (count, read, end) = (count + 1, read + source.about.bytes, (source.about.end, source.about.end_position));
        }
        Ok((new.seal(end.0, end.1)?, count))
    }

    /// Gives up what was written anew and is not put in place. Blocking.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub(crate) fn give_up(&self) -> Result<(), LogError> {
        let given_up = self.prepared.lock().take();
        given_up.map_or(Ok(()), |segment| self.remove_files(&segment.id))
    }

    /// Has a segment that a frame puts in place opened, if it is not there already; for a start, before [`Segments::settle`].
    ///
    /// # Errors
    /// [`LogError::Io`]; damage is told as [`Segments::damage`] tells it.
    pub(crate) fn prepare_again(&self, rewrite: &Rewrite) -> Result<(), LogError> {
        let list = self.list.read().clone();
        let Some(places) = places(&list, rewrite) else { return Ok(()) };
        let id = self.id_of(rewrite.base, rewrite.generation);
        let (mut of_segment, read) = (Vec::new(), ReadContext { topic: Arc::clone(self.topic()) });
        let found = self.unrecovered(rewrite.base, rewrite.generation).sealed(rewrite.end, &self.hasher, &read, &mut of_segment);
        let segment = match self.or_hole(rewrite.base, rewrite.end, found)? {
            Ok(segment) => segment,
            Err(hole) => {
                self.damage.get_or_init(|| hole.damage.clone());
                let end_position = list.get(places).and_then(|replaced| replaced.last()?.end_position()).unwrap_or_default();
                Arc::new(Segment::lost(id.clone(), Arc::clone(&self.files), Lost { end: rewrite.end, end_position, damage: hole.damage }))
            }
        };
        if let Some(repairs) = &mut *self.repairs.lock() {
            let files = Kind::ALL.map(|kind| id.path(kind));
            repairs.retain(|repair| !matches!(repair, Repair::Remove(path) if files.contains(path)));
            repairs.append(&mut of_segment);
        }
        *self.prepared.lock() = Some(segment);
        Ok(())
    }

    /// Puts what was written anew in place of what it replaces; readers that have that in hand read it to its end. The frame that says so is
    /// durable. Where it is so already, or what it replaces is gone, nothing changes.
    pub(crate) fn put_in_place(&self, rewrite: &Rewrite, cleaned: Cleaned) {
        let id = self.id_of(rewrite.base, rewrite.generation);
        let Some(segment) = self.prepared.lock().take_if(|prepared| prepared.id == id) else { return };
        let gone: Vec<_> = {
            let mut list = self.list.write();
            match places(&list, rewrite) {
                Some(places) => list.splice(places, [segment]).collect(),
                None => vec![segment],
            }
        };
        self.gone.lock().take(gone);
        *self.cleaned.lock() = cleaned;
    }
}

/// Places of the segments that are replaced; none if they are not there.
fn places(list: &[Arc<Segment>], rewrite: &Rewrite) -> Option<Range<usize>> {
    let first = list.iter().position(|segment| segment.id.base == rewrite.base)?;
    let end = list.iter().position(|segment| segment.id.base == rewrite.end)?;
    let replaced = list.get(first..end).filter(|replaced| !replaced.is_empty())?;
    replaced.iter().all(|segment| segment.id.generation < rewrite.generation).then_some(first..end)
}

/// The runs of those records that a batch has left. A run is never longer than it was: marks have runs of their own, and so does what is
/// left of an event that was removed.
fn runs_of(before: &[StoredRun], batch: &[u8], is_of_events: bool) -> Result<Vec<StoredRun>, Flaw> {
    let mut left = Vec::new();
    let mut records = StoredRecords::from(batch, BATCH_HEADER_LEN)?.peekable();
    for run in before {
        let mut open: Option<StoredRun> = None;
        while let Some(record) = records.next_if(|record| record.is_err() || record.is_ok_and(|record| record.offset < run.end_offset())) {
            let record = record?;
            let (offset, is_removed) = (record.offset, is_of_events && record.blank() == Some(Blank::Removed));
            let Some(place) = offset.get().checked_sub(run.first_offset.get()) else {
                return Err(Flaw::new(0, "the batch has a record that it did not have"));
            };
            match &mut open {
                Some(open) if open.end_offset() == offset && !is_removed => open.count += 1,
                _ => left.extend(open.replace(StoredRun {
                    first_offset: offset,
                    first_position: run.first_position.plus(place),
                    count: 1,
                    ..*run
                })),
            }
            if is_removed {
                left.extend(open.take());
            }
        }
        left.extend(open);
    }
    match records.next() {
        None => Ok(left),
        Some(_) => Err(Flaw::new(0, "the batch has a record that it did not have")),
    }
}

/// A segment that is being written anew.
struct NewSegment<'a> {
    segments: &'a Segments,
    id: SegmentId,
    log: Arc<dyn DiskFile>,
    runs: Arc<dyn DiskFile>,
    /// Bytes of `.log` with those in `buffer`.
    log_len: u64,
    buffer: Vec<u8>,
    runs_len: u64,
    chain: u32,
    /// Runs of the next block.
    block: Vec<StoredRun>,
    max_timestamp: Timestamp,
    index: OffsetIndex,
}

impl<'a> NewSegment<'a> {
    fn create(segments: &'a Segments, id: SegmentId) -> Result<Self, LogError> {
        let disk = &**segments.files.disk();
        let (header, runs_path) = (id.header(Kind::Runs), id.path(Kind::Runs));
        let log = fresh(disk, &id.path(Kind::Log))?;
        let runs = fresh(disk, &runs_path)?;
        runs.write_at(0, &header).map_err(failed("write", &runs_path))?;
        Ok(Self {
            segments,
            id,
            log,
            runs,
            log_len: 0,
            buffer: Vec::new(),
            runs_len: HEADER_LEN as u64,
            chain: crc32c::crc32c(&header),
            block: Vec::new(),
            max_timestamp: Timestamp::new(i64::MIN),
            index: OffsetIndex::default(),
        })
    }

    /// Appends a batch as it is to lie there.
    fn push(&mut self, stored: &[u8], runs: &[StoredRun]) -> Result<(), LogError> {
        let header = BatchHeader::parse(stored).map_err(|flaw| corrupt(&self.id.path(Kind::Log), self.log_len, self.log_len, flaw.what))?;
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        let (batch_at, batch_check) = (self.log_len, header_check(stored));
        let batch_len = u32::try_from(stored.len()).unwrap_or(u32::MAX);
        self.buffer.extend_from_slice(stored);
        self.log_len += stored.len() as u64;
        if self.buffer.len() >= PIECE {
            self.write_buffer()?;
        }
        for run in runs {
            self.block.push(StoredRun { batch_at, batch_len, batch_check, ..*run });
            if self.block.len() == runs::RUNS_A_BLOCK {
                self.write_block()?;
            }
        }
        Ok(())
    }

    fn write_buffer(&mut self) -> Result<(), LogError> {
        let path = self.id.path(Kind::Log);
        self.log.write_at(self.log_len - self.buffer.len() as u64, &self.buffer).map_err(failed("write", &path))?;
        self.buffer.clear();
        Ok(())
    }

    fn write_block(&mut self) -> Result<(), LogError> {
        let path = self.id.path(Kind::Runs);
        let Some((head, block)) = runs::encode(&self.block, self.chain, self.max_timestamp) else { return Ok(()) };
        self.runs.write_at(self.runs_len, &block).map_err(failed("write", &path))?;
        self.index.push(self.runs_len, head);
        (self.runs_len, self.chain) = (self.runs_len + block.len() as u64, head.checksum);
        self.block.clear();
        Ok(())
    }

    /// Ends it where what it replaces ends, and makes it durable with all its files.
    fn seal(mut self, end: Offset, end_position: Position) -> Result<Arc<Segment>, LogError> {
        self.write_buffer()?;
        self.write_block()?;
        let (log_path, runs_path) = (self.id.path(Kind::Log), self.id.path(Kind::Runs));
        let nothing = || BlockHead::nothing(self.chain, self.id.base, end_position);
        let last = self.index.last().copied().unwrap_or_else(nothing);
        let (seal, block) = runs::encode_seal(&last, end, end_position);
        self.runs.write_at(self.runs_len, &block).map_err(failed("write", &runs_path))?;
        for (file, path) in [(&self.log, &log_path), (&self.runs, &runs_path)] {
            file.sync().map_err(failed("sync segment", path))?;
        }
        let files = &self.segments.files;
        write_whole(&**files.disk(), &self.id, Kind::Index, &self.index.encode(&self.id, &seal))?;
        let (segments, folder) = (self.segments, self.id.folder.clone());
        let segment = Segment::new(self.id, Arc::clone(files), segments.has_keys(), self.index, KeyIndex::default());
        let segment = Arc::new(segment.sealed_with(Some(seal)));
        if segment.has_keys {
            // From what was written, as a start would: so it is read once before anything rests on it.
            let read = ReadContext { topic: Arc::clone(segments.topic()) };
            let mut keys = keys_from_log(&segment, segment.id.base, &segments.hasher, &read)?;
            segment.replace_keys(index_of(&segment, &mut keys, end)?);
            save_sealed_keys(&segment)?;
        }
        files.disk().sync_folder(&folder).map_err(failed("sync folder", &folder))?;
        Ok(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        batch::{BatchBuilder, Encoded, retain},
        ids::StreamVersion,
        record::NewRecord,
    };

    #[test]
    fn runs_keep_their_places_and_are_never_longer_than_they_were() {
        let mut encoded = Encoded::default();
        for _ in 0..8 {
            encoded.push_record(&NewRecord::default()).expect("within limits");
        }
        let mut builder = BatchBuilder::new(Offset::new(10));
        builder.push(&encoded, StreamVersion::FIRST, Timestamp::new(1));
        let batch = builder.finish(0);
        let run = |first: u64, count, position| StoredRun {
            first_offset: Offset::new(first),
            count,
            first_position: Position::new(position),
            recorded_at: Timestamp::new(5),
            batch_at: 0,
            batch_len: 0,
            batch_check: 0,
        };
        let before = [run(10, 3, 100), run(13, 1, 103), run(14, 4, 200)];
        let left = |kept: &[u64]| {
            let keeps = |offset| if kept.contains(&offset) { Kept::Whole } else { Kept::Nothing };
            let batch = retain(&batch, None, |record| keeps(record.offset.get())).expect("a batch").expect("some are kept");
            let runs = runs_of(&before, &batch, false).expect("its own records");
            runs.iter().map(|run| (run.first_offset.get(), run.count, run.first_position.get())).collect::<Vec<_>>()
        };
        assert_eq!(left(&[10, 11, 12, 13, 14, 15, 16, 17]), [(10, 3, 100), (13, 1, 103), (14, 4, 200)]);
        assert_eq!(left(&[10, 12, 15, 16]), [(10, 1, 100), (12, 1, 102), (15, 2, 201)]);
        assert_eq!(left(&[13]), [(13, 1, 103)]);
        assert!(runs_of(&before[..1], &batch, false).is_err() && runs_of(&before[1..], &batch, false).is_err());
    }
}
