//! One partition's segments: what tidy appends to and readers find their place in.
//!
//! Invariant: readers see a record in here only when all of its run was written, and it stays where it is.

use std::{path::PathBuf, sync::Arc};

use parking_lot::{Mutex, RwLock};
use tracing::warn;

use crate::{
    error::LogError,
    ids::{Offset, PartitionId, Position, StreamVersion, Timestamp},
    record::Run,
    topic::{Topic, TopicKind},
};

use super::{
    SegmentConfig,
    file::{Kind, OpenFiles, SegmentId, corrupt, failed, remove_if_there},
    key_index::{Key, KeyIndex, KeyTable, StreamHasher},
    offset_index::OffsetIndex,
    reader::Reader,
    recovery::{Listing, ReadContext, UnrecoveredSegment, index_of, keys_from_log},
    runs::BlockHead,
    writer::{ActiveSegment, PartitionMark, fitting},
};

/// A segment as readers see it.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: SegmentId,
    pub(super) files: Arc<OpenFiles>,
    /// Whether it holds events of streams.
    pub(super) has_keys: bool,
    view: RwLock<View>,
}

#[derive(Debug)]
struct View {
    index: OffsetIndex,
    keys: KeyIndex,
}

impl Segment {
    pub(super) fn new(id: SegmentId, files: Arc<OpenFiles>, has_keys: bool, index: OffsetIndex, keys: KeyIndex) -> Self {
        Self { id, files, has_keys, view: RwLock::new(View { index, keys }) }
    }

    /// Lets readers see more blocks and keys.
    pub(super) fn publish(&self, blocks: Vec<(u64, BlockHead)>, keys: Option<KeyTable>) -> Result<(), LogError> {
        // Merging tables takes a while, so it is done beside what readers use.
        let mut index = self.view.read().keys.clone();
        if let Some(table) = keys {
            index.push(table, self.id.base)?;
        }
        let mut view = self.view.write();
        view.keys = index;
        for (at, head) in blocks {
            view.index.push(at, head);
        }
        Ok(())
    }

    pub(super) fn replace_keys(&self, keys: KeyIndex) {
        self.view.write().keys = keys;
    }

    pub(super) fn index(&self) -> OffsetIndex {
        self.view.read().index.clone()
    }

    pub(super) fn keys(&self) -> KeyIndex {
        self.view.read().keys.clone()
    }

    pub(super) fn block_at_offset(&self, offset: Offset) -> Option<(u64, BlockHead)> {
        self.view.read().index.at_offset(offset)
    }

    fn end(&self) -> Offset {
        self.view.read().index.last().map_or(self.id.base, |last| last.end_offset)
    }

    /// End of what readers may look at in `.log`.
    pub(super) fn log_end(&self) -> u64 {
        self.view.read().index.last().map_or(0, |last| last.log_end)
    }

    fn ends_behind(&self, position: Position) -> bool {
        self.view.read().index.last().is_some_and(|last| last.end_position > position)
    }

    /// Whether a record at or behind an offset, but not before the segment, is in here.
    pub(super) fn holds(&self, offset: Offset) -> bool {
        self.id.base <= offset && offset < self.end()
    }

    /// The first offset at or behind a position.
    fn offset_of(&self, position: Position) -> Result<Option<Offset>, LogError> {
        let Some((at, head)) = self.view.read().index.at_position(position) else { return Ok(None) };
        let runs = self.read_block(at, &head)?;
        let place = runs.partition_point(|run| run.end_position() <= position);
        Ok(runs.get(place).map(|run| run.first_offset.plus(position.get().saturating_sub(run.first_position.get()))))
    }
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At an offset, or the first one behind it.
    Offset(Offset),
    /// At a position, or the first one behind it.
    Position(Position),
}

/// One partition's segments. Shared by tidy, which alone appends, and readers.
#[derive(Debug)]
pub struct Segments {
    topic: Arc<Topic>,
    partition: PartitionId,
    folder: PathBuf,
    config: SegmentConfig,
    hasher: StreamHasher,
    files: Arc<OpenFiles>,
    /// In order of offset; the last one is active.
    list: RwLock<Vec<Arc<Segment>>>,
    writer: Mutex<Writer>,
}

#[derive(Debug, Default)]
struct Writer {
    active: Option<ActiveSegment>,
    /// `.keylog` files that go when the checkpoint after the next sync is known to be there.
    stale: Vec<PathBuf>,
    stale_after_checkpoint: Vec<PathBuf>,
}

impl Segments {
    /// Opens a partition's folder as far as a checkpoint has it, and cuts off the rest. The checkpoint itself must be durable
    /// already. With no mark the folder need not exist, and what lies in it is removed: the journal still has it all.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] with file and byte range, before anything was changed in that file; [`LogError::Format`],
    /// [`LogError::Io`].
    pub fn open(
        files: Arc<OpenFiles>,
        folder: PathBuf,
        topic: Arc<Topic>,
        partition: PartitionId,
        config: SegmentConfig,
        hasher: StreamHasher,
        mark: Option<&PartitionMark>,
    ) -> Result<Arc<Self>, LogError> {
        let listing = Listing::new(&**files.disk(), &folder, mark)?;
        let segments = Self { topic, partition, folder, config, hasher, files, list: RwLock::default(), writer: Mutex::default() };
        if let Some(mark) = mark {
            segments.recover(mark, &listing.sealed)?;
        }
        listing.clean(&**segments.files.disk())?;
        Ok(Arc::new(segments))
    }

    fn recover(&self, mark: &PartitionMark, sealed: &[Offset]) -> Result<(), LogError> {
        let first = sealed.first().copied().unwrap_or(mark.active);
        if first != mark.first {
            let what = format!("the segment is missing; offsets from {} to {first} (exclusive) cannot be read", mark.first);
            return Err(corrupt(&self.id(mark.first).path(Kind::Log), 0, 0, what));
        }
        let read = ReadContext { topic: self.topic.clone() };
        let ends = sealed.iter().copied().skip(1).chain([mark.active]);
        let mut list = Vec::with_capacity(sealed.len() + 1);
        for (base, end) in sealed.iter().zip(ends) {
            list.push(self.unrecovered(*base).sealed(end, &self.hasher, &read)?);
        }
        let active = self.unrecovered(mark.active).active(mark, &self.hasher, &read)?;
        list.push(active.segment.clone());
        *self.list.write() = list;
        self.writer.lock().active = Some(active);
        Ok(())
    }

    fn id(&self, base: Offset) -> SegmentId {
        SegmentId { folder: self.folder.clone(), topic: self.topic.id, partition: self.partition, base }
    }

    fn has_keys(&self) -> bool {
        self.topic.settings.kind == TopicKind::Events
    }

    fn unrecovered(&self, base: Offset) -> UnrecoveredSegment {
        UnrecoveredSegment { id: self.id(base), files: self.files.clone(), has_keys: self.has_keys() }
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
    /// passed over, so a call that failed on a full disk may be made again. Blocking; for tidy alone.
    ///
    /// # Errors
    /// [`LogError::Io`]; [`LogError::Invalid`] for runs that do not follow what is here.
    pub fn append(&self, runs: &[Run]) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        let end = self.end();
        let known = runs.partition_point(|run| run.first_offset < end);
        let mut rest = &runs[known..];
        while let Some(first) = rest.first() {
            let active = match &mut writer.active {
                Some(active) => active,
                none => none.insert(self.begin(first.first_offset)?),
            };
            let room = self.config.max_log_bytes.saturating_sub(active.log_len);
            let count = fitting(rest, room, active.log_len == 0);
            if count == 0 {
                active.seal()?;
                let stale = active.segment.id.path(Kind::KeyLog);
                writer.active = None;
                writer.stale.push(stale);
                continue;
            }
            let (now, later) = rest.split_at(count);
            active.append(now, &self.hasher)?;
            rest = later;
        }
        Ok(())
    }

    /// Begins a segment at an offset.
    fn begin(&self, base: Offset) -> Result<ActiveSegment, LogError> {
        let disk = self.files.disk();
        disk.create_folder(&self.folder).map_err(failed("create folder", &self.folder))?;
        if self.list.read().is_empty() {
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
    pub fn sync(&self) -> Result<Option<PartitionMark>, LogError> {
        let mut writer = self.writer.lock();
        for path in std::mem::take(&mut writer.stale_after_checkpoint) {
            self.files.forget(&path);
            remove_if_there(&**self.files.disk(), &path)?;
        }
        writer.stale_after_checkpoint = std::mem::take(&mut writer.stale);
        let Some(active) = &mut writer.active else { return Ok(None) };
        active.sync()?;
        let first = self.list.read().first().map_or(active.segment.id.base, |segment| segment.id.base);
        Ok(Some(PartitionMark {
            first,
            active: active.segment.id.base,
            end: active.end,
            log_len: active.log_len,
            runs_len: active.runs_len,
            chain: active.chain,
        }))
    }

    /// Opens a reader. One that goes forward reads ahead; one that jumps from record to record should not.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub fn reader(self: &Arc<Self>, start: Start, is_sequential: bool) -> Result<Reader, LogError> {
        let offset = match start {
            Start::Offset(offset) => offset,
            Start::Position(position) => self.offset_of(position)?,
        };
        Ok(Reader::new(self.clone(), offset, is_sequential))
    }

    /// The first offset at or behind a position; the end if there is none.
    fn offset_of(&self, position: Position) -> Result<Offset, LogError> {
        let segment = {
            let list = self.list.read();
            list.get(list.partition_point(|segment| !segment.ends_behind(position))).cloned()
        };
        let found = match segment {
            Some(segment) => segment.offset_of(position)?,
            None => None,
        };
        Ok(found.unwrap_or_else(|| self.end()))
    }

    /// An offset before which no record has a timestamp of `time` or later, as near to the first that has as the sparse index
    /// knows; the end if there is none.
    #[must_use]
    pub fn offset_before(&self, time: Timestamp) -> Offset {
        let list = self.list.read();
        let found = list.iter().find_map(|segment| segment.view.read().index.at_time(time));
        found.map_or_else(|| list.last().map_or(Offset::default(), |segment| segment.end()), |(_, head)| head.base_offset)
    }

    /// The first segment that ends behind an offset.
    pub(super) fn segment_at(&self, offset: Offset) -> Option<Arc<Segment>> {
        let list = self.list.read();
        list.get(list.partition_point(|segment| segment.end() <= offset)).cloned()
    }

    /// Version of the newest event in here of a stream, by its hash.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub fn stream_head(&self, stream: u128) -> Result<Option<StreamVersion>, LogError> {
        for segment in self.list.read().clone().iter().rev() {
            let mut newest = None;
            self.look_up(segment, stream, |key| newest = newest.max(Some(key.version)))?;
            if let Some(version) = newest {
                return Ok(Some(StreamVersion::new(version)));
            }
        }
        Ok(None)
    }

    /// Versions and offsets of a stream's events in here from a version (inclusive) on, in order, at most about `most`:
    /// as many as the segments that hold the first of them have.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub fn stream(&self, stream: u128, from: StreamVersion, most: usize) -> Result<Vec<(StreamVersion, Offset)>, LogError> {
        let mut parts: Vec<Vec<(StreamVersion, Offset)>> = Vec::new();
        for segment in self.list.read().clone().iter().rev() {
            let mut part = Vec::new();
            let mut oldest = None;
            self.look_up(segment, stream, |key| {
                oldest = Some(oldest.map_or(key.version, |oldest: u64| oldest.min(key.version)));
                if key.version >= from.get() {
                    part.push((StreamVersion::new(key.version), Offset::new(key.offset)));
                }
            })?;
            parts.push(part);
            // Enough that is older was found: what is newer is for the next call.
            while parts.len() > 1 && parts[1..].iter().map(Vec::len).sum::<usize>() >= most {
                parts.remove(0);
            }
            // Versions have no gaps: what is older lies before.
            if oldest.is_some_and(|oldest| oldest <= from.get().max(1)) {
                break;
            }
        }
        let mut found = parts.into_iter().rev().flatten().collect::<Vec<_>>();
        found.truncate(most);
        Ok(found)
    }

    /// Calls `each` with every stream's hash and the version of its newest event, some streams more than once: the highest
    /// counts. For rebuilding what admission knows, at start.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub fn for_each_head(&self, mut each: impl FnMut(u128, StreamVersion)) -> Result<(), LogError> {
        for segment in self.list.read().clone().iter() {
            let mut last: Option<Key> = None;
            self.with_keys(segment, |keys| {
                last = None;
                keys.for_each(|key| {
                    if let Some(before) = last.filter(|before| before.stream != key.stream) {
                        each(before.stream, StreamVersion::new(before.version));
                    }
                    last = Some(key);
                })
            })?;
            if let Some(last) = last {
                each(last.stream, StreamVersion::new(last.version));
            }
        }
        Ok(())
    }

    fn look_up(&self, segment: &Arc<Segment>, stream: u128, mut each: impl FnMut(Key)) -> Result<(), LogError> {
        let mut found = Vec::new();
        self.with_keys(segment, |keys| {
            found.clear();
            keys.look_up(stream, |key| found.push(key))
        })?;
        found.into_iter().for_each(&mut each);
        Ok(())
    }

    /// Asks a segment's key index, and if that turns out to be damaged, makes it again and asks once more.
    fn with_keys(&self, segment: &Arc<Segment>, mut ask: impl FnMut(&KeyIndex) -> Result<(), LogError>) -> Result<(), LogError> {
        match ask(&segment.keys()) {
            Err(LogError::Corrupt { file, what, .. }) => {
                warn!(file = %file.display(), %what, "making the key index again");
                let read = ReadContext { topic: self.topic.clone() };
                let mut keys = keys_from_log(segment, segment.id.base, &self.hasher, &read)?;
                segment.replace_keys(index_of(segment, &mut keys, segment.end())?);
                // The next start makes the file again.
                let path = segment.id.path(Kind::Keys);
                self.files.forget(&path);
                remove_if_there(&**self.files.disk(), &path)?;
                ask(&segment.keys())
            }
            result => result,
        }
    }
}
