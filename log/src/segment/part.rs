//! One segment as readers see it: what leads them to its records, or the report of why none can be read.
//!
//! [`super::Segments`] holds them in order of offset; recovery and the writer make them. Invariant: a lost segment answers
//! nothing but its report, and where the next one begins.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use parking_lot::RwLock;

use crate::{
    error::LogError,
    ids::{Offset, Position, Timestamp},
};

use super::{
    file::{OpenFiles, SegmentId},
    key_index::{KeyIndex, KeyTable},
    offset_index::OffsetIndex,
    runs::BlockHead,
};

/// A report of damage, for everyone who meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub(super) file: PathBuf,
    pub(super) from: u64,
    pub(super) end: u64,
    pub(super) what: String,
}

impl Damage {
    /// The error that says it.
    #[must_use]
    pub fn report(&self) -> LogError {
        LogError::Corrupt { file: self.file.clone(), from: self.from, end: self.end, what: self.what.clone() }
    }
}

/// What a segment held of which nothing can be read.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) end: Offset,
    /// Its records lie below this position.
    pub(super) end_position: Position,
    pub(super) damage: Damage,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: SegmentId,
    pub(super) files: Arc<OpenFiles>,
    /// Whether it holds events of streams.
    pub(super) has_keys: bool,
    view: RwLock<View>,
    /// Server time of its last record, once it is sealed and somebody has asked.
    pub(super) recorded_to: OnceLock<Timestamp>,
    /// Where it ends, if it was sealed when it was opened: compaction may have left out what lay last.
    seal: Option<BlockHead>,
    lost: Option<Lost>,
}

#[derive(Debug, Default)]
struct View {
    index: OffsetIndex,
    keys: KeyIndex,
}

impl Segment {
    pub(super) fn new(id: SegmentId, files: Arc<OpenFiles>, has_keys: bool, index: OffsetIndex, keys: KeyIndex) -> Self {
        let view = RwLock::new(View { index, keys });
        Self { id, files, has_keys, view, recorded_to: OnceLock::new(), seal: None, lost: None }
    }

    /// The same, of which the end is known.
    pub(super) fn sealed_with(self, seal: Option<BlockHead>) -> Self {
        Self { seal, ..self }
    }

    /// Where it ends, if it was sealed when it was opened or written anew.
    pub(super) const fn seal(&self) -> Option<&BlockHead> {
        self.seal.as_ref()
    }

    pub(super) fn lost(id: SegmentId, files: Arc<OpenFiles>, lost: Lost) -> Self {
        let (view, recorded_to) = (RwLock::default(), OnceLock::new());
        Self { id, files, has_keys: false, view, recorded_to, seal: None, lost: Some(lost) }
    }

    /// Why nothing of it can be read; none if it can.
    pub(super) fn damage(&self) -> Option<&Damage> {
        self.lost.as_ref().map(|lost| &lost.damage)
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

    /// The block of runs that an offset, or the first one behind it, lies in.
    ///
    /// # Errors
    /// The report, if the segment is lost.
    pub(super) fn block_at_offset(&self, offset: Offset) -> Result<Option<(u64, BlockHead)>, LogError> {
        match &self.lost {
            Some(lost) => Err(lost.damage.report()),
            None => Ok(self.view.read().index.at_offset(offset)),
        }
    }

    /// The first offset at or behind a position.
    ///
    /// # Errors
    /// The report, if the segment is lost; [`LogError::Corrupt`], [`LogError::Io`].
    pub(super) fn offset_of(&self, position: Position) -> Result<Option<Offset>, LogError> {
        if let Some(lost) = &self.lost {
            return Err(lost.damage.report());
        }
        let Some((at, head)) = self.view.read().index.at_position(position) else { return Ok(None) };
        let runs = self.read_block(at, &head)?;
        let place = runs.partition_point(|run| run.end_position() <= position);
        Ok(runs.get(place).map(|run| run.first_offset.plus(position.get().saturating_sub(run.first_position.get()))))
    }

    /// The last block of runs that begins before an offset.
    ///
    /// # Errors
    /// The report, if the segment is lost.
    pub(super) fn block_before(&self, offset: Offset) -> Result<Option<(u64, BlockHead)>, LogError> {
        match &self.lost {
            Some(lost) => Err(lost.damage.report()),
            None => Ok(self.view.read().index.before_offset(offset)),
        }
    }

    /// Server time of the first record; none if the segment is lost or empty.
    pub(super) fn recorded_from(&self) -> Option<Timestamp> {
        self.view.read().index.first().map(|first| first.recorded_at)
    }

    /// Offset and position of the first record that the server recorded at `time` or later; none if there is none in here.
    ///
    /// # Errors
    /// The report, if the segment is lost; [`LogError::Corrupt`], [`LogError::Io`].
    pub(super) fn at_server_time(&self, time: Timestamp) -> Result<Option<(Offset, Position)>, LogError> {
        if let Some(lost) = &self.lost {
            return Err(lost.damage.report());
        }
        let (older, newer) = {
            let view = self.view.read();
            (view.index.before_server_time(time), view.index.at_server_time(time))
        };
        if let Some((at, head)) = older {
            let runs = self.read_block(at, &head)?;
            if let Some(run) = runs.iter().find(|run| run.recorded_at >= time) {
                return Ok(Some((run.first_offset, run.first_position)));
            }
        }
        Ok(newer.map(|(_, head)| (head.base_offset, head.first_position)))
    }

    /// An offset before which nothing in here has a timestamp of `time` or later; none if nothing has.
    pub(super) fn offset_before(&self, time: Timestamp) -> Option<Offset> {
        match &self.lost {
            Some(_) => Some(self.id.base),
            None => self.view.read().index.at_time(time).map(|(_, head)| head.base_offset),
        }
    }

    /// The last block of runs.
    pub(super) fn last_block(&self) -> Option<(u64, BlockHead)> {
        self.view.read().index.last_block()
    }

    pub(super) fn first_position(&self) -> Option<Position> {
        self.view.read().index.first().map(|first| first.first_position)
    }

    pub(super) fn end(&self) -> Offset {
        match (&self.lost, &self.seal) {
            (Some(lost), _) => lost.end,
            (None, Some(seal)) => seal.end_offset,
            (None, None) => self.view.read().index.last().map_or(self.id.base, |last| last.end_offset),
        }
    }

    /// All in it lies below; none if it is empty and was not sealed.
    pub(super) fn end_position(&self) -> Option<Position> {
        match (&self.lost, &self.seal) {
            (Some(lost), _) => Some(lost.end_position),
            (None, Some(seal)) => Some(seal.end_position),
            (None, None) => self.view.read().index.last().map(|last| last.end_position),
        }
    }

    /// End of what readers may look at in `.log`.
    pub(super) fn log_end(&self) -> u64 {
        self.view.read().index.last().map_or(0, |last| last.log_end)
    }

    pub(super) fn ends_behind(&self, position: Position) -> bool {
        // What will be in an empty one lies behind everything.
        self.end_position().is_none_or(|end| end > position)
    }

    /// Whether a record at or behind an offset, but not before the segment, is in here.
    pub(super) fn holds(&self, offset: Offset) -> bool {
        self.id.base <= offset && offset < self.end()
    }
}
