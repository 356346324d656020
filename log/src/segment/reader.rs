//! Reads a partition's segments, forwards or backwards: run by run, batches checked as they are read.
//!
//! Belongs to one reader of the log; several may read while tidy appends. Invariant: a batch whose checksum, header or place is
//! not what `.runs` says is reported, never returned, never skipped. What is returned is decompressed, once a batch.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    batch::{self, BatchHeader, Flaw, HEADER_LEN as BATCH_HEADER_LEN, StoredRecords},
    error::LogError,
    ids::{Offset, Position},
    record::Run,
    retention::LowMark,
    topic::Topic,
};

use super::{
    file::{Kind, corrupt, failed, read_range},
    part::Segment,
    runs::{self, StoredRun},
    set::Segments,
    writer::header_check,
};

/// Bytes of `.log` that a reader takes along at first: it may be after one record alone. Twice as many each time.
const ALONG: u32 = 16 << 10;

/// Most bytes of `.log` that a reader takes along.
const MOST_ALONG: u32 = 512 << 10;

/// Bytes of `.log` that are taken along with a batch.
#[derive(Clone, Copy, Debug)]
enum Along {
    /// So many from its beginning.
    Ahead(u32),
    /// So many up to its end.
    Behind(u32),
}

/// Reads one partition's segments from a place on, run by run.
#[derive(Debug)]
pub struct Reader {
    segments: Arc<Segments>,
    next: Offset,
    /// As much as it has come to take along; 0: nothing, ever.
    along: u32,
    segment: Option<SegmentReader>,
    /// Whether it also reads what retention has let go of.
    is_of_all: bool,
}

impl Reader {
    pub(super) const fn new(segments: Arc<Segments>, next: Offset, is_sequential: bool) -> Self {
        Self { segments, next, along: if is_sequential { ALONG } else { 0 }, segment: None, is_of_all: false }
    }

    /// The same, which also reads what retention has let go of and is there still.
    pub(super) fn of_all(self) -> Self {
        Self { is_of_all: true, ..self }
    }

    /// Nothing below is read.
    fn floor(&self) -> Offset {
        if self.is_of_all { Offset::default() } else { self.segments.low().offset }
    }

    /// Offset from which it reads on.
    #[must_use]
    pub const fn offset(&self) -> Offset {
        self.next
    }

    /// From where on the partition has its records.
    #[must_use]
    pub fn low(&self) -> LowMark {
        self.segments.low()
    }

    /// Goes to another offset; what has been read is kept if it serves there too.
    pub fn seek(&mut self, offset: Offset) {
        self.next = offset;
    }

    /// Goes to the first record at or behind a position, wherever that is, and takes as little along as at first.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub fn seek_position(&mut self, position: Position) -> Result<(), LogError> {
        let known = self.segment.as_ref().and_then(|reader| reader.offset_of(position));
        self.next = match known {
            Some(offset) => offset,
            None => self.segments.offset_of(position)?,
        };
        self.next = self.next.max(self.floor());
        self.along = self.along.min(ALONG);
        Ok(())
    }

    /// How much is taken along this time.
    fn take_along(&mut self) -> u32 {
        let along = self.along;
        self.along = along.saturating_mul(2).min(MOST_ALONG);
        along
    }

    /// First position of what [`Reader::next_run`] would return; none at the end of what is in segments.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`] if it was removed, [`LogError::Corrupt`], [`LogError::Io`].
    pub fn peek(&mut self) -> Result<Option<Position>, LogError> {
        let from = self.next;
        Ok(self.find()?.map(|(_, run)| {
            let skipped = from.get().saturating_sub(run.first_offset.get());
            run.first_position.plus(skipped)
        }))
    }

    /// Reads the next run, cut to `most` records (at least 1); none at the end of what is in segments, where it may be called
    /// again once there is more.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`] if it was removed, [`LogError::Corrupt`] with file and byte range, [`LogError::Io`].
    pub fn next_run(&mut self, most: u32) -> Result<Option<Run>, LogError> {
        let (from, ahead, topic) = (self.next, self.take_along(), self.segments.topic().clone());
        let Some((segment, stored)) = self.find()? else { return Ok(None) };
        let run = segment.run(&stored, from, most, Along::Ahead(ahead), &topic)?;
        self.next = run.first_offset.plus(run.count.into());
        Ok(Some(run))
    }

    /// Position behind the last record of what [`Reader::previous_run`] would return; none at the beginning.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub fn peek_back(&mut self) -> Result<Option<Position>, LogError> {
        let end = self.next;
        Ok(self.find_back()?.map(|(_, run)| {
            let left = end.min(run.end_offset()).get() - run.first_offset.get();
            run.first_position.plus(left)
        }))
    }

    /// Reads the run that lies before the place where it stands, cut to its last `most` records (at least 1), and stands before it then;
    /// none at the beginning.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] with file and byte range, [`LogError::Io`].
    pub fn previous_run(&mut self, most: u32) -> Result<Option<Run>, LogError> {
        let (end, behind, topic, floor) = (self.next, self.take_along(), self.segments.topic().clone(), self.floor());
        // What lies between, if anything, was left out by compaction.
        let Some((segment, stored)) = self.find_back()? else { return Ok(None) };
        let end = end.min(stored.end_offset());
        let first = stored.first_offset.max(floor).max(Offset::new(end.get().saturating_sub(most.max(1).into())));
        let count = u32::try_from(end.get() - first.get()).unwrap_or(u32::MAX);
        let run = segment.run(&stored, first, count, Along::Behind(behind), &topic)?;
        self.next = first;
        Ok(Some(run))
    }

    /// The segment and the run that the record before lies in.
    fn find_back(&mut self) -> Result<Option<(&mut SegmentReader, StoredRun)>, LogError> {
        let floor = self.floor();
        let run = loop {
            if self.next <= floor {
                return Ok(None);
            }
            let serves = self.segment.as_ref().is_some_and(|reader| {
                let segment = &reader.segment;
                segment.id.base < self.next && self.next <= segment.end()
            });
            if !serves {
                let Some(segment) = self.segments.segment_before(self.next) else { return Ok(None) };
                self.segment = Some(SegmentReader::new(segment));
            }
            let Some(reader) = self.segment.as_mut() else { return Ok(None) };
            match reader.find_back(self.next)? {
                Some(run) if run.end_offset() <= floor => self.next = floor,
                Some(run) => break run,
                // Compaction left out all from its beginning up to here.
                None => self.next = reader.segment.id.base,
            }
        };
        Ok(self.segment.as_mut().map(|reader| (reader, run)))
    }

    /// The segment and the run that the next record lies in.
    fn find(&mut self) -> Result<Option<(&mut SegmentReader, StoredRun)>, LogError> {
        let run = loop {
            let serves = self.segment.as_ref().is_some_and(|reader| reader.segment.holds(self.next));
            if !serves {
                let Some(segment) = self.segments.segment_at(self.next) else { return Ok(None) };
                if self.next < self.floor() {
                    return Err(self.segments.removed(self.next));
                }
                self.next = self.next.max(segment.id.base);
                self.segment = Some(SegmentReader::new(segment));
            }
            let Some(reader) = self.segment.as_mut() else { return Ok(None) };
            match reader.find(self.next)? {
                Some(run) => break run,
                // Compaction left out all from here to its end.
                None => self.next = reader.segment.end(),
            }
        };
        Ok(self.segment.as_mut().map(|reader| (reader, run)))
    }
}

/// Calls `each` with every run of a segment from an offset on.
pub(super) fn read_runs(
    segment: &Arc<Segment>,
    topic: &Arc<Topic>,
    from: Offset,
    mut each: impl FnMut(Run) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let mut reader = SegmentReader::new(segment.clone());
    let mut next = from;
    while let Some(stored) = reader.find(next)? {
        let run = reader.run(&stored, next, u32::MAX, Along::Ahead(MOST_ALONG), topic)?;
        next = run.first_offset.plus(run.count.into());
        each(run)?;
    }
    Ok(())
}

/// A whole batch of a segment, checked, with its runs.
#[derive(Debug)]
pub(crate) struct WholeBatch {
    segment: Arc<Segment>,
    /// As it lies there.
    pub(super) stored: Bytes,
    /// Decompressed.
    pub(crate) bytes: Bytes,
    pub(super) runs: Vec<StoredRun>,
}

impl WholeBatch {
    /// The report of a flaw in it.
    pub(crate) fn damage(&self, flaw: Flaw) -> LogError {
        match self.runs.first() {
            Some(first) => SegmentReader::new(Arc::clone(&self.segment)).damage(first, flaw),
            None => corrupt(&self.segment.id.path(Kind::Log), 0, 0, flaw.what),
        }
    }

    /// Position of its record at an offset.
    pub(crate) fn position(&self, offset: Offset) -> Position {
        let run = self.runs.get(self.runs.partition_point(|run| run.end_offset() <= offset)).or_else(|| self.runs.last());
        run.map_or_else(Position::default, |run| run.first_position.plus(offset.get().saturating_sub(run.first_offset.get())))
    }

    /// Bytes that it takes in its file.
    pub(crate) fn len(&self) -> u64 {
        self.stored.len() as u64
    }
}

/// Calls `each` with every batch of a segment that has records at an offset or behind it, until that was enough (false).
pub(super) fn read_batches(
    segment: &Arc<Segment>,
    from: Offset,
    mut each: impl FnMut(&WholeBatch) -> Result<bool, LogError>,
) -> Result<(), LogError> {
    let mut reader = SegmentReader::new(Arc::clone(segment));
    let mut next = reader.find(from)?;
    while let Some(first) = next {
        reader.load(&first, Along::Ahead(MOST_ALONG))?;
        let (Some(stored), Some(batch)) = (reader.in_window(&first), &reader.batch) else {
            return Err(reader.damage(&first, Flaw::new(0, "the batch is not there")));
        };
        let mut whole = WholeBatch { segment: Arc::clone(segment), stored, bytes: batch.bytes.clone(), runs: Vec::new() };
        while let Some(run) = next.filter(|run| run.batch_at == first.batch_at) {
            whole.runs.push(run);
            next = reader.find(run.end_offset())?;
        }
        if !each(&whole)? {
            break;
        }
    }
    Ok(())
}

#[derive(Debug)]
struct SegmentReader {
    segment: Arc<Segment>,
    /// Runs of the block last read.
    block: Vec<StoredRun>,
    /// Bytes of `.log` last read, and their place.
    window: (u64, Bytes),
    batch: Option<Batch>,
}

/// The batch last read, checked and decompressed.
#[derive(Debug)]
struct Batch {
    at: u64,
    bytes: Bytes,
    /// Place and offset of a record in it, from which later ones are found.
    known: (u32, Offset),
    /// Offsets and places of all records, for whoever goes back; else empty.
    places: Vec<(Offset, u32)>,
}

impl SegmentReader {
    const fn new(segment: Arc<Segment>) -> Self {
        Self { segment, block: Vec::new(), window: (0, Bytes::new()), batch: None }
    }

    /// The first run that ends behind an offset.
    fn find(&mut self, offset: Offset) -> Result<Option<StoredRun>, LogError> {
        let is_in_block = self.block.first().is_some_and(|run| run.first_offset <= offset)
            && self.block.last().is_some_and(|run| offset < run.end_offset());
        if !is_in_block {
            let Some((at, head)) = self.segment.block_at_offset(offset)? else { return Ok(None) };
            self.block = self.segment.read_block(at, &head)?;
        }
        let place = self.block.partition_point(|run| run.end_offset() <= offset);
        Ok(self.block.get(place).copied())
    }

    /// The last run that begins before an offset.
    fn find_back(&mut self, offset: Offset) -> Result<Option<StoredRun>, LogError> {
        let is_in_block = self.block.first().is_some_and(|run| run.first_offset < offset)
            && self.block.last().is_some_and(|run| offset <= run.end_offset());
        if !is_in_block {
            let Some((at, head)) = self.segment.block_before(offset)? else { return Ok(None) };
            self.block = self.segment.read_block(at, &head)?;
        }
        let behind = self.block.partition_point(|run| run.first_offset < offset);
        Ok(behind.checked_sub(1).and_then(|place| self.block.get(place)).copied())
    }

    /// The first offset at or behind a position, if the block in memory tells.
    fn offset_of(&self, position: Position) -> Option<Offset> {
        self.block.first().filter(|run| run.first_position <= position)?;
        let run = self.block.get(self.block.partition_point(|run| run.end_position() <= position))?;
        Some(run.first_offset.plus(position.get().saturating_sub(run.first_position.get())))
    }

    /// The records of a stored run from an offset on, at most `most`.
    fn run(&mut self, stored: &StoredRun, from: Offset, most: u32, along: Along, topic: &Arc<Topic>) -> Result<Run, LogError> {
        let first_offset = from.max(stored.first_offset);
        let skipped = u32::try_from(first_offset.get() - stored.first_offset.get()).unwrap_or(u32::MAX);
        self.load(stored, along)?;
        let start = self.start_of(stored, first_offset)?;
        let Some(batch) = &self.batch else { return Err(self.damage(stored, Flaw::new(0, "the batch is not there"))) };
        Ok(Run {
            topic: topic.clone(),
            partition: self.segment.id.partition,
            first_offset,
            first_position: stored.first_position.plus(skipped.into()),
            count: stored.count.saturating_sub(skipped).min(most.max(1)),
            recorded_at: stored.recorded_at,
            batch: batch.bytes.clone(),
            start,
        })
    }

    /// Has the run's batch in memory, checked.
    fn load(&mut self, stored: &StoredRun, along: Along) -> Result<(), LogError> {
        if self.batch.as_ref().is_some_and(|batch| batch.at == stored.batch_at) {
            return Ok(());
        }
        let bytes = match self.in_window(stored) {
            Some(bytes) => bytes,
            None => {
                let path = self.segment.id.path(Kind::Log);
                let file = self.segment.files.get(&path).map_err(failed("open", &path))?;
                let batch_end = stored.batch_at + u64::from(stored.batch_len);
                let (from, end) = match along {
                    // Not further than what is published: behind it tidy may be writing this very moment.
                    Along::Ahead(bytes) => (stored.batch_at, batch_end.max(stored.batch_at + u64::from(bytes)).min(self.segment.log_end())),
                    Along::Behind(bytes) => (stored.batch_at.min(batch_end.saturating_sub(bytes.into())), batch_end),
                };
                self.window = (from, read_range(&*file, &path, from, end.saturating_sub(from))?.into());
                self.in_window(stored).ok_or_else(|| self.damage(stored, Flaw::new(0, "the file ends within a batch")))?
            }
        };
        let header = BatchHeader::check(&bytes).map_err(|flaw| self.damage(stored, flaw))?;
        if header.length != bytes.len() || header_check(&bytes) != stored.batch_check {
            return Err(self.damage(stored, Flaw::new(0, "this is another batch than the one that was written here")));
        }
        let bytes = batch::decompress(bytes).map_err(|flaw| self.damage(stored, flaw))?;
        let first = u32::try_from(BATCH_HEADER_LEN).unwrap_or(u32::MAX);
        self.batch = Some(Batch { at: stored.batch_at, bytes, known: (first, header.base_offset), places: Vec::new() });
        Ok(())
    }

    fn in_window(&self, stored: &StoredRun) -> Option<Bytes> {
        let (at, bytes) = &self.window;
        let from = usize::try_from(stored.batch_at.checked_sub(*at)?).ok()?;
        let end = from.checked_add(stored.batch_len as usize)?;
        (end <= bytes.len()).then(|| bytes.slice(from..end))
    }

    /// Byte place of a record in the batch in memory.
    fn start_of(&mut self, stored: &StoredRun, offset: Offset) -> Result<u32, LogError> {
        let Some(batch) = &mut self.batch else { return Ok(0) };
        if offset < batch.known.1 && batch.places.is_empty() {
            // Who goes back once goes on so: looking from the front each time would take the square of the batch.
            batch.places = match places_of(&batch.bytes) {
                Ok(places) => places,
                Err(flaw) => return Err(self.damage(stored, flaw)),
            };
        }
        if let Ok(place) = batch.places.binary_search_by_key(&offset, |(at, _)| *at) {
            return Ok(batch.places.get(place).map_or(0, |(_, start)| *start));
        }
        match batch::find(&batch.bytes, batch.known.0, offset) {
            Ok(start) => {
                batch.known = (start, offset);
                Ok(start)
            }
            Err(flaw) => Err(self.damage(stored, flaw)),
        }
    }

    fn damage(&self, stored: &StoredRun, flaw: Flaw) -> LogError {
        let (from, end) = (stored.batch_at, stored.batch_at + u64::from(stored.batch_len));
        let what = format!("{}; offsets from {} to {} (exclusive) cannot be read", flaw.what, stored.first_offset, stored.end_offset());
        corrupt(&self.segment.id.path(Kind::Log), from, end, what)
    }
}

/// Offset and byte place of every record of a batch.
fn places_of(batch: &[u8]) -> Result<Vec<(Offset, u32)>, Flaw> {
    let records = StoredRecords::from(batch, BATCH_HEADER_LEN)?;
    records.map(|record| record.map(|record| (record.offset, u32::try_from(record.start).unwrap_or(u32::MAX)))).collect()
}

impl Segment {
    /// Reads and checks a block of `.runs`.
    pub(super) fn read_block(&self, at: u64, head: &runs::BlockHead) -> Result<Vec<StoredRun>, LogError> {
        let path = self.id.path(Kind::Runs);
        let file = self.files.get(&path).map_err(failed("open", &path))?;
        let block = read_range(&*file, &path, at, head.block_len())?;
        let is_whole = runs::check(&block) && runs::BlockHead::decode(&block).as_ref() == Some(head);
        let decoded = is_whole.then(|| runs::decode(&block)).flatten();
        decoded.ok_or_else(|| {
            let what =
                format!("a block of runs is damaged; offsets from {} to {} (exclusive) cannot be read", head.base_offset, head.end_offset);
            corrupt(&path, at, at + head.block_len(), what)
        })
    }
}
