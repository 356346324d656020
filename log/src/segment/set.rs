//! One partition's segments: what tidy appends to and readers find their place in.
//!
//! Invariants: readers see a record in here only when all of its run was written, and it stays where it is; a segment that
//! cannot be read leaves a lost one in its place, so that nothing behind it moves up.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use parking_lot::{Mutex, RwLock};
use tracing::warn;

use crate::{
    compaction::Cleaned,
    error::LogError,
    ids::{Offset, PartitionId, Position, StreamVersion, Timestamp},
    life::{Mark, RedactionAt, SnapshotAt, Standing},
    record::Run,
    retention::LowMark,
    topic::{Compression, Topic, TopicKind},
};

use super::{
    file::{Kind, OpenFiles, SegmentId, failed, remove_if_there},
    key_index::{KeyIndex, StreamHasher, Stretch},
    offset_index::OffsetIndex,
    part::{Damage, Lost, Segment},
    reader::Reader,
    recovery::{Listing, ReadContext, Repair, UnrecoveredSegment, index_of, keys_from_log},
    removal::Gone,
    rewrite::Rewrite,
    writer::{ActiveSegment, PartitionMark, fitting},
};

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At an offset, or the first one behind it.
    Offset(Offset),
    /// At a position, or the first one behind it.
    Position(Position),
}

/// How much lies in segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Segments.
    pub segments: u64,
    /// Bytes of their batches.
    pub bytes: u64,
}

/// What a checkpoint says of a partition.
#[derive(Clone, Debug)]
pub struct Checkpointed {
    /// How much is in segments.
    pub mark: PartitionMark,
    /// All of it lies below this position.
    pub below: Position,
    /// What was removed lies below this one.
    pub removed: Position,
    /// Segments that compaction wrote, by base offset.
    pub rewritten: Vec<Rewrite>,
    /// How far it is compacted.
    pub cleaned: Cleaned,
}

/// What is durable of a partition's segments.
#[derive(Clone, Debug)]
pub struct Synced {
    /// How much is in segments.
    pub mark: PartitionMark,
    /// Segments that compaction wrote, by base offset.
    pub rewritten: Vec<Rewrite>,
    /// How far it is compacted.
    pub cleaned: Cleaned,
    /// How many times segments were taken away by then.
    pub(super) changes: u64,
}

/// How records are laid down from now on: what may be altered of a topic that has segments.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// How their batches are compressed.
    pub compression: Compression,
    /// Bytes of `.log` at which the next segment begins; a single batch may be longer.
    pub max_log_bytes: u64,
}

/// One partition's segments. Shared by tidy, which alone appends, and readers.
#[derive(Debug)]
pub struct Segments {
    /// As it was when this was opened: what may be altered of it is nothing to go by.
    topic: Arc<Topic>,
    pub(super) partition: PartitionId,
    folder: PathBuf,
    pub(super) hasher: StreamHasher,
    pub(super) files: Arc<OpenFiles>,
    /// In order of offset; the last one is active.
    pub(super) list: RwLock<Vec<Arc<Segment>>>,
    pub(super) writer: Mutex<Writer>,
    pub(super) low: RwLock<LowMark>,
    pub(super) gone: Mutex<Gone>,
    pub(super) cleaned: Mutex<Cleaned>,
    /// Written by compaction, and waiting for the frame that puts it in place of others.
    pub(super) prepared: Mutex<Option<Arc<Segment>>>,
    /// What is to be done to files before anything is appended; none once it was.
    pub(super) repairs: Mutex<Option<Vec<Repair>>>,
    /// What could not be read at the start.
    pub(super) damage: OnceLock<Damage>,
}

/// Offsets of which nothing can be read, and why.
#[derive(Clone, Debug)]
pub(super) struct Hole {
    base: Offset,
    end: Offset,
    pub(super) damage: Damage,
}

#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) active: Option<ActiveSegment>,
    /// `.keylog` files that go when the checkpoint after the next sync is known to be there.
    pub(super) stale: Vec<PathBuf>,
    stale_after_checkpoint: Vec<PathBuf>,
}

impl Segments {
    /// How much lies in it.
    pub fn size(&self) -> Size {
        let list = self.list.read();
        Size { segments: list.len() as u64, bytes: list.iter().map(|segment| segment.log_end()).sum() }
    }

    /// Bytes of batches of what retention has left.
    pub(crate) fn retained_bytes(&self) -> u64 {
        let low = self.low().offset;
        self.list.read().iter().filter(|segment| segment.end() > low).map(|segment| segment.log_end()).sum()
    }

    /// Offset of the first record that may be in here, read or not.
    pub(crate) fn base(&self) -> Offset {
        self.list.read().first().map_or(Offset::default(), |segment| segment.id.base)
    }

    /// Opens a partition's folder as far as a checkpoint has it. Changes nothing: [`Segments::settle`] does. Segments that
    /// cannot be read are passed over, see [`Segments::damage`]. With no mark the folder need not exist.
    ///
    /// # Errors
    /// [`LogError::Format`], [`LogError::Io`].
    pub fn open(
        files: Arc<OpenFiles>,
        folder: PathBuf,
        topic: Arc<Topic>,
        partition: PartitionId,
        hasher: StreamHasher,
        known: Option<Checkpointed>,
    ) -> Result<Arc<Self>, LogError> {
        let listing = Listing::new(&**files.disk(), &folder, known.as_ref())?;
        let segments = Self {
            topic,
            partition,
            folder,
            hasher,
            files,
            list: RwLock::default(),
            writer: Mutex::default(),
            low: RwLock::default(),
            gone: Mutex::default(),
            cleaned: Mutex::default(),
            prepared: Mutex::default(),
            repairs: Mutex::default(),
            damage: OnceLock::new(),
        };
        let mut repairs = listing.unknown.into_iter().map(Repair::Remove).collect();
        if let Some(known) = known {
            segments.recover(&known, &listing.sealed, &mut repairs)?;
        }
        *segments.repairs.lock() = Some(repairs);
        Ok(Arc::new(segments))
    }

    fn recover(&self, known: &Checkpointed, sealed: &[(Offset, u32, Option<Offset>)], repairs: &mut Vec<Repair>) -> Result<(), LogError> {
        let mark = &known.mark;
        let offset = if self.has_keys() { known.cleaned.to.max(mark.first) } else { mark.first };
        *self.low.write() = LowMark { offset, position: known.removed };
        *self.cleaned.lock() = known.cleaned;
        self.gone.lock().checkpointed(mark, 0);
        let read = ReadContext { topic: self.topic.clone() };
        let mut parts = Vec::with_capacity(sealed.len() + 1);
        let mut next = mark.first;
        let ends = sealed.iter().map(|(base, ..)| *base).skip(1).chain([mark.active]);
        for ((base, generation, its_end), end) in sealed.iter().copied().zip(ends) {
            parts.extend(self.missing(next, base));
            let (mut of_segment, end) = (Vec::new(), its_end.unwrap_or(end));
            let found = self.unrecovered(base, generation).sealed(end, &self.hasher, &read, &mut of_segment);
            let part = self.or_hole(base, end, found)?;
            next = part.as_ref().map_or(end, |segment| segment.end());
            parts.push(part);
            repairs.append(&mut of_segment);
        }
        parts.extend(self.missing(next, mark.active));
        let mut of_segment = Vec::new();
        let active = self.unrecovered(mark.active, 0).active(mark, &self.hasher, &read, &mut of_segment);
        let active = self.or_hole(mark.active, mark.end, active)?;
        parts.push(active.as_ref().map(|active| active.segment.clone()).map_err(Hole::clone));
        repairs.append(&mut of_segment);
        if let Some(hole) = parts.iter().find_map(|part| part.as_ref().err()) {
            self.damage.get_or_init(|| hole.damage.clone());
        }
        *self.list.write() = self.in_order(parts, known.below);
        self.writer.lock().active = active.ok();
        Ok(())
    }

    /// The hole that a segment leaves if it is damaged.
    pub(super) fn or_hole<T>(&self, base: Offset, end: Offset, found: Result<T, LogError>) -> Result<Result<T, Hole>, LogError> {
        match found {
            Ok(found) => Ok(Ok(found)),
            Err(LogError::Corrupt { file, from, end: to, what }) => {
                let what = format!("{what}; {}", self.unreadable(base, end));
                Ok(Err(Hole { base, end, damage: Damage { file, from, end: to, what } }))
            }
            Err(error) => Err(error),
        }
    }

    /// The hole where a segment should be, if one is missing between two offsets.
    fn missing(&self, base: Offset, end: Offset) -> Option<Result<Arc<Segment>, Hole>> {
        let what = format!("the segment is missing; {}", self.unreadable(base, end));
        let damage = Damage { file: self.id(base).path(Kind::Log), from: 0, end: 0, what };
        (base < end).then_some(Err(Hole { base, end, damage }))
    }

    fn unreadable(&self, base: Offset, end: Offset) -> String {
        format!("offsets from {base} to {end} (exclusive) of topic {} partition {} cannot be read", self.topic.name, self.partition)
    }

    /// The list of segments, lost ones in place of holes. The records of a hole lie before those of the next segment.
    fn in_order(&self, parts: Vec<Result<Arc<Segment>, Hole>>, below: Position) -> Vec<Arc<Segment>> {
        let mut end_position = below;
        let mut list = Vec::with_capacity(parts.len());
        for part in parts.into_iter().rev() {
            let segment = match part {
                Ok(segment) => segment,
                Err(Hole { base, end, damage }) => {
                    Arc::new(Segment::lost(self.id(base), self.files.clone(), Lost { end, end_position, damage }))
                }
            };
            end_position = segment.first_position().unwrap_or(end_position);
            list.push(segment);
        }
        list.reverse();
        list
    }

    /// Does to files what opening them found to do: cuts off what the checkpoint does not know, removes segments that it does
    /// not know, saves indexes that were made again. The journal must be known to have what goes, and the checkpoint must be
    /// durable. Once, before anything is appended.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn settle(&self) -> Result<(), LogError> {
        let repairs = self.repairs.lock().take().unwrap_or_default();
        repairs.iter().try_for_each(|repair| repair.carry_out(&self.files))
    }

    /// What could not be read at the start: then nobody knows where this partition's streams stand.
    #[must_use]
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.get()
    }

    pub(super) fn id_of(&self, base: Offset, generation: u32) -> SegmentId {
        SegmentId { folder: self.folder.clone(), topic: self.topic.id, partition: self.partition, base, generation }
    }

    fn id(&self, base: Offset) -> SegmentId {
        self.id_of(base, 0)
    }

    pub(super) fn has_keys(&self) -> bool {
        self.topic.settings.kind == TopicKind::Events
    }

    pub(super) fn unrecovered(&self, base: Offset, generation: u32) -> UnrecoveredSegment {
        UnrecoveredSegment { id: self.id_of(base, generation), files: self.files.clone(), has_keys: self.has_keys() }
    }

    /// The topic.
    #[must_use]
    pub const fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// Offset after the last record in here (exclusive); 0 if there is none.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.list.read().last().map_or(Offset::default(), |segment| segment.end())
    }

    /// Appends committed runs of this partition: whole batches with all their runs, in order. Runs that are here already are
    /// passed over, so a call that failed on a full disk may be made again. `streams` says what is known of their streams, in order; the
    /// rest is read. Blocking; for tidy alone.
    ///
    /// # Errors
    /// [`LogError::Io`]; [`LogError::Invalid`] for runs that do not follow what is here.
    pub(crate) fn append(&self, runs: &[Run], streams: &[Stretch], layout: Layout) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        let end = self.end();
        let known = runs.partition_point(|run| run.first_offset < end);
        let mut rest = &runs[known..];
        while let Some(first) = rest.first() {
            let active = match &mut writer.active {
                Some(active) => active,
                none => none.insert(self.begin(first.first_offset)?),
            };
            let room = layout.max_log_bytes.saturating_sub(active.log_len);
            let count = fitting(rest, room, active.is_empty());
            if count == 0 {
                active.seal()?;
                let stale = active.segment.id.path(Kind::KeyLog);
                writer.active = None;
                writer.stale.push(stale);
                continue;
            }
            let (now, later) = rest.split_at(count);
            active.append(now, streams, layout.compression, &self.hasher)?;
            rest = later;
        }
        Ok(())
    }

    /// Begins a segment at an offset.
    pub(super) fn begin(&self, base: Offset) -> Result<ActiveSegment, LogError> {
        let disk = self.files.disk();
        disk.create_folder(&self.folder).map_err(failed("create folder", &self.folder))?;
        // The folder is new, or was made again in place of one that is gone.
        if self.list.read().iter().all(|segment| segment.damage().is_some()) {
            for folder in self.folder.ancestors().skip(1).take(2) {
                disk.sync_folder(folder).map_err(failed("sync folder", folder))?;
            }
        }
        let segment =
            Arc::new(Segment::new(self.id(base), self.files.clone(), self.has_keys(), OffsetIndex::default(), KeyIndex::default()));
        let active = ActiveSegment::create(segment.clone())?;
        self.list.write().push(segment);
        Ok(active)
    }

    /// Makes durable all that was appended; returns what the next checkpoint says of this partition, none if it has nothing.
    /// The checkpoint of the call before must be durable by now. Blocking; for tidy alone.
    ///
    /// # Errors
    /// [`LogError::Io`]; after a failed sync the process must end.
    pub fn sync(&self) -> Result<Option<Synced>, LogError> {
        let mut writer = self.writer.lock();
        for path in std::mem::take(&mut writer.stale_after_checkpoint) {
            self.files.forget(&path);
            remove_if_there(&**self.files.disk(), &path)?;
        }
        writer.stale_after_checkpoint = std::mem::take(&mut writer.stale);
        let Some(active) = &mut writer.active else { return Ok(None) };
        active.sync()?;
        // The list comes last: what is switched meanwhile is in it, and counted the next time.
        let (changes, cleaned) = (self.gone.lock().changes, self.cleaned());
        let list = self.list.read();
        let rewritten = list.iter().filter(|segment| segment.id.generation > 0);
        let rewritten = rewritten.map(|segment| Rewrite { base: segment.id.base, end: segment.end(), generation: segment.id.generation });
        let mark = PartitionMark {
            first: list.first().map_or(active.segment.id.base, |segment| segment.id.base),
            active: active.segment.id.base,
            end: active.end,
            log_len: active.log_len,
            runs_len: active.runs_len,
            chain: active.chain,
        };
        Ok(Some(Synced { mark, rewritten: rewritten.collect(), cleaned, changes }))
    }

    /// Opens a reader. One that goes forward reads ahead; one that jumps from record to record should not.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub fn reader(self: &Arc<Self>, start: Start, is_sequential: bool) -> Result<Reader, LogError> {
        let offset = match start {
            Start::Offset(offset) => offset,
            Start::Position(position) => self.offset_of(position)?.max(self.low().offset),
        };
        Ok(Reader::new(self.clone(), offset, is_sequential))
    }

    /// Opens a reader of all that is in segments, also of what retention has let go of: other things are derived from it.
    ///
    /// # Errors
    /// As [`Segments::reader`].
    pub(crate) fn reader_of_all(self: &Arc<Self>, start: Start, is_sequential: bool) -> Result<Reader, LogError> {
        let offset = match start {
            Start::Offset(offset) => offset,
            Start::Position(position) => self.offset_of(position)?,
        };
        Ok(Reader::new(self.clone(), offset, is_sequential).of_all())
    }

    /// The first offset at or behind a position; the end if there is none.
    pub(super) fn offset_of(&self, position: Position) -> Result<Offset, LogError> {
        let segment = {
            let list = self.list.read();
            list.get(list.partition_point(|segment| !segment.ends_behind(position))).cloned()
        };
        match segment {
            // Compaction may have left out what lay last in it.
            Some(segment) => Ok(segment.offset_of(position)?.unwrap_or_else(|| segment.end())),
            None => Ok(self.end()),
        }
    }

    /// An offset before which no record has a timestamp of `time` or later, as near to the first that has as the sparse index
    /// knows; the end if there is none.
    #[cfg_attr(not(test), expect(dead_code, reason = "nothing is asked by the time of events yet; tests hold that it can be"))]
    pub fn offset_before(&self, time: Timestamp) -> Offset {
        let list = self.list.read();
        let found = list.iter().find_map(|segment| segment.offset_before(time));
        found.unwrap_or_else(|| list.last().map_or(Offset::default(), |segment| segment.end()))
    }

    /// Offset and position of the first record that the server recorded at `time` or later; none if there is none in here.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], also where damage may hold that record; [`LogError::Io`].
    pub fn at_time(&self, time: Timestamp) -> Result<Option<(Offset, Position)>, LogError> {
        let list = self.list.read().clone();
        // Server time rises: the record lies in the last segment that begins before it, or right behind that one.
        let is_older = |segment: &Arc<Segment>| segment.recorded_from().is_some_and(|first| first < time);
        let from = list.iter().rposition(is_older).unwrap_or(0);
        for segment in &list[from..] {
            if let Some(found) = segment.at_server_time(time)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The last segment that begins before an offset.
    pub(super) fn segment_before(&self, offset: Offset) -> Option<Arc<Segment>> {
        let list = self.list.read();
        let behind = list.partition_point(|segment| segment.id.base < offset);
        list.get(behind.checked_sub(1)?).cloned()
    }

    /// The first segment that ends behind an offset.
    pub(super) fn segment_at(&self, offset: Offset) -> Option<Arc<Segment>> {
        let list = self.list.read();
        list.get(list.partition_point(|segment| segment.end() <= offset)).cloned()
    }

    /// Calls `each` with every stream's hash, the version of its newest event, what became of it and its snapshots and redactions, some streams more
    /// than once, the newest segment first: all that is said of one counts together. For rebuilding what admission knows, at start. Ends at damage, for what lies
    /// before it may not be the newest; [`Segments::damage`] says so then.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub(crate) fn for_each_stream(&self, mut each: impl FnMut(u128, Standing, &[SnapshotAt], &[RedactionAt])) -> Result<(), LogError> {
        for segment in self.list.read().clone().iter().rev() {
            if segment.damage().is_some() {
                break;
            }
            let mut last: Option<(u128, Standing)> = None;
            let (mut snapshots, mut redactions) = (Vec::new(), Vec::new());
            let asked = self.with_keys(segment, |keys| {
                (last, snapshots, redactions) = (None, Vec::new(), Vec::new());
                keys.for_each(|key| {
                    if let Some((stream, standing)) = last.take_if(|(stream, _)| *stream != key.stream) {
                        each(stream, standing, &snapshots, &redactions);
                        snapshots.clear();
                        redactions.clear();
                    }
                    let (_, standing) = last.get_or_insert((key.stream, Standing::default()));
                    match Mark::from_key(key.version) {
                        Some(mark) => {
                            standing.newest = standing.newest.max(mark.removed().unwrap_or_default());
                            let offset = Offset::new(key.offset);
                            standing.life = standing.life.and(mark.life(offset));
                            snapshots.extend(mark.snapshot(offset));
                            redactions.extend(mark.redaction(offset));
                        }
                        None => standing.newest = standing.newest.max(StreamVersion::new(key.version)),
                    }
                })
            });
            if let Err(hole) = self.or_hole(segment.id.base, segment.end(), asked)? {
                self.damage.get_or_init(|| hole.damage);
                break;
            }
            if let Some((stream, standing)) = last {
                each(stream, standing, &snapshots, &redactions);
            }
        }
        Ok(())
    }

    /// Reads all key indexes; those that are damaged are made again. Returns their bytes.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] for what one cannot be made again from; [`LogError::Io`].
    pub(crate) fn check_keys(&self) -> Result<u64, LogError> {
        let mut bytes = 0;
        for segment in self.list.read().clone().iter().filter(|segment| segment.damage().is_none()) {
            bytes += self.with_keys(segment, |keys| keys.for_each(|_| {}).map(|()| keys.size()))?;
        }
        Ok(bytes)
    }

    /// End of the segment that an offset lies in, or in front of.
    pub(crate) fn end_of_segment(&self, offset: Offset) -> Offset {
        self.segment_at(offset).map_or_else(|| self.end(), |segment| segment.end())
    }

    /// Asks a segment's key index, and if that turns out to be damaged, makes it again and asks once more.
    pub(super) fn with_keys<T>(
        &self,
        segment: &Arc<Segment>,
        mut ask: impl FnMut(&KeyIndex) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        match ask(&segment.keys()) {
            Err(LogError::Corrupt { file, what, .. }) => {
                warn!(file = %file.display(), %what, "making the key index again");
                let read = ReadContext { topic: self.topic.clone() };
                let mut keys = keys_from_log(segment, segment.id.base, &self.hasher, &read)?;
                segment.replace_keys(index_of(segment, &mut keys, segment.end())?);
                match &mut *self.repairs.lock() {
                    Some(repairs) => repairs.push(Repair::Keys(segment.clone())),
                    None => {
                        // The next start makes the file again.
                        let path = segment.id.path(Kind::Keys);
                        self.files.forget(&path);
                        remove_if_there(&**self.files.disk(), &path)?;
                    }
                }
                ask(&segment.keys())
            }
            result => result,
        }
    }
}
