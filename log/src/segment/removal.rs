//! Segments that go: when the active one is sealed before it is full, which may go, and how their files do.
//!
//! Upkeep decides and deletes, tidy seals, the committer and a start take away. Invariants: nothing is taken away that a durable
//! checkpoint does not hold as sealed; no file is deleted that a durable checkpoint names or a reader has in hand.

use std::sync::Arc;

use crate::{
    error::LogError,
    ids::{Offset, Timestamp},
    retention::{LowMark, Sealed},
};

use super::{
    file::{Kind, SegmentId, failed, remove_if_there},
    part::Segment,
    set::{Segments, Synced},
    writer::PartitionMark,
};

/// Segments that were taken away, and what the newest durable checkpoint says.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// Each with the number of the change that took it away.
    segments: Vec<(u64, Arc<Segment>)>,
    /// How many times some were taken away.
    pub(super) changes: u64,
    /// Base offset of the active segment, and how many changes it knows.
    checkpointed: Option<(Offset, u64)>,
}

impl Gone {
    /// A checkpoint that says this is durable.
    pub(super) fn checkpointed(&mut self, mark: &PartitionMark, changes: u64) {
        self.checkpointed = Some((mark.active, changes));
    }

    /// Takes segments that are in no list any more.
    pub(super) fn take(&mut self, segments: impl IntoIterator<Item = Arc<Segment>>) {
        self.changes += 1;
        self.segments.extend(segments.into_iter().map(|segment| (self.changes, segment)));
    }

    /// Base offset of the active segment, as a durable checkpoint has it.
    pub(super) fn active(&self) -> Option<Offset> {
        self.checkpointed.map(|(active, _)| active)
    }
}

/// Files that were deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deleted {
    /// Segments.
    pub(crate) segments: u64,
    /// Bytes of their `.log`.
    pub(crate) bytes: u64,
}

impl Segments {
    /// From where on records are here.
    #[must_use]
    pub fn low(&self) -> LowMark {
        *self.low.read()
    }

    /// The error that records from an offset on were removed.
    #[must_use]
    pub fn removed(&self, asked: Offset) -> LogError {
        let (topic, partition) = (self.topic().name.clone(), self.partition);
        LogError::OffsetOutOfRange { topic, partition, asked, first: self.low().offset, end: self.end() }
    }

    /// A checkpoint that says this of the partition is durable.
    pub fn checkpointed(&self, synced: &Synced) {
        self.gone.lock().checkpointed(&synced.mark, synced.changes);
    }

    /// Segments of which something may go, the oldest first: what a durable checkpoint holds as sealed. Blocking.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], also for a segment that is lost; [`LogError::Io`].
    pub(crate) fn sealed(&self) -> Result<Vec<Sealed>, LogError> {
        let Some(active) = self.gone.lock().active() else { return Ok(Vec::new()) };
        let list = self.list.read().clone();
        let count = list.partition_point(|segment| segment.id.base < active);
        let mut all = Vec::with_capacity(count);
        let low = self.low().offset;
        for (segment, next) in list.iter().zip(list.iter().skip(1)).take(count).filter(|(_, next)| next.id.base > low) {
            if let Some(damage) = segment.damage() {
                return Err(damage.report());
            }
            let Some(end_position) = segment.end_position() else { continue };
            let recorded_to = segment.recorded_to()?;
            all.push(Sealed { end: next.id.base, end_position, bytes: segment.log_end(), recorded_to });
        }
        Ok(all)
    }

    /// When the server recorded the first record of the active segment; none if that has none.
    #[must_use]
    pub fn active_since(&self) -> Option<Timestamp> {
        self.list.read().last().and_then(|segment| segment.recorded_from())
    }

    /// Takes away the segments below a mark; readers that have one in hand read it to its end. Of a topic of events they stay, and nobody reads what
    /// lies below: other things are derived from it, and compaction leaves no more of it than they need. The frame that says so is durable.
    pub(crate) fn take_away(&self, low: LowMark) {
        // The mark first: who finds a segment gone must find out why.
        {
            let mut mark = self.low.write();
            if low.offset <= mark.offset {
                return;
            }
            *mark = low;
        }
        if self.has_keys() {
            return;
        }
        let mut list = self.list.write();
        let below = list.partition_point(|segment| segment.id.base < low.offset);
        let sealed = list.len().saturating_sub(1);
        let gone: Vec<_> = list.drain(..below.min(sealed)).collect();
        drop(list);
        self.gone.lock().take(gone);
    }

    /// Whether files wait to be deleted for a checkpoint that does not name them.
    #[must_use]
    pub fn awaits_checkpoint(&self) -> bool {
        let gone = self.gone.lock();
        let known = gone.checkpointed.map_or(0, |(_, changes)| changes);
        gone.segments.iter().any(|(change, _)| *change > known)
    }

    /// Whether files of segments that were taken away are still there.
    pub(crate) fn has_replaced(&self) -> bool {
        !self.gone.lock().segments.is_empty()
    }

    /// Makes durable that files were deleted. Blocking.
    ///
    /// # Errors
    /// [`LogError::Io`], after which the log must end.
    pub(crate) fn sync_folder(&self) -> Result<(), LogError> {
        let folder = self.id_of(Offset::default(), 0).folder;
        self.files.disk().sync_folder(&folder).map_err(failed("sync folder", &folder))
    }

    /// Everything below this offset lies in sealed segments, as a durable checkpoint has it.
    pub(crate) fn sealed_to(&self) -> Offset {
        self.gone.lock().active().unwrap_or_default()
    }

    /// Deletes the files of segments that were taken away, that no durable checkpoint names and no reader has in hand. Blocking.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub(crate) fn delete_files(&self) -> Result<Deleted, LogError> {
        let ready: Vec<Arc<Segment>> = {
            let mut gone = self.gone.lock();
            let Some((_, known)) = gone.checkpointed else { return Ok(Deleted::default()) };
            // Out of the list nobody comes by it any more, so that it stays the only one.
            let is_ready = |(change, segment): &mut (u64, Arc<Segment>)| *change <= known && Arc::strong_count(segment) == 1;
            gone.segments.extract_if(.., is_ready).map(|(_, segment)| segment).collect()
        };
        let mut deleted = Deleted::default();
        for segment in ready {
            self.remove_files(&segment.id)?;
            deleted.segments += 1;
            deleted.bytes += segment.log_end();
        }
        Ok(deleted)
    }

    /// Removes all files of a segment.
    pub(super) fn remove_files(&self, id: &SegmentId) -> Result<(), LogError> {
        for path in Kind::ALL.map(|kind| id.path(kind)) {
            self.files.forget(&path);
            remove_if_there(&**self.files.disk(), &path)?;
        }
        Ok(())
    }

    /// Seals the active segment and begins the next one, unless it is empty. May be called again after a full disk. Blocking; for
    /// tidy alone.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn roll(&self) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        if let Some(active) = &mut writer.active {
            if active.is_empty() {
                return Ok(());
            }
            active.seal()?;
            let stale = active.segment.id.path(Kind::KeyLog);
            writer.active = None;
            writer.stale.push(stale);
        }
        writer.active = Some(self.begin(self.end())?);
        Ok(())
    }
}

impl Segment {
    /// Server time of the last record of a sealed segment; read once.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub(super) fn recorded_to(&self) -> Result<Timestamp, LogError> {
        if let Some(known) = self.recorded_to.get() {
            return Ok(*known);
        }
        let Some((at, head)) = self.last_block() else { return Ok(Timestamp::new(i64::MIN)) };
        let runs = self.read_block(at, &head)?;
        Ok(*self.recorded_to.get_or_init(|| runs.last().map_or(head.recorded_at, |run| run.recorded_at)))
    }
}
