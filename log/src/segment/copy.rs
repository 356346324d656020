//! Segments as a backup takes them and a restore gives them back: whose files they are, and what is left of one that is cut at a time.
//!
//! Called by [`crate::backup`] and [`crate::restore`]. Invariants: what a [`Piece`] names does not change while it is held; a cut
//! leaves whole frames, for all of a frame was recorded at one time.

use std::{io, path::PathBuf, sync::Arc};

use crate::{
    compaction::Cleaned,
    error::LogError,
    ids::{Offset, PartitionId, Position, Timestamp, TopicId},
    retention::LowMark,
};

use super::{
    file::{HEADER_LEN, Kind, SegmentId, corrupt, failed},
    part::Segment,
    recovery::walk,
    runs::{self, HEAD_LEN, StoredRun},
    set::Segments,
    writer::{Found, PartitionMark},
};

/// What a checkpoint has of one segment. Its files stay as long as it is held.
#[derive(Debug)]
pub(crate) struct Piece {
    segment: Arc<Segment>,
    /// Its first offset.
    pub(crate) base: Offset,
    /// 0, but for one that was written anew.
    pub(crate) generation: u32,
    /// Bytes of `.log`.
    pub(crate) log_len: u64,
    /// Bytes of `.runs`.
    pub(crate) runs_len: u64,
    /// Checksum of the last block of `.runs`, which stands for all of both files.
    pub(crate) check: u32,
    /// Whether the files end where the piece does, for ever.
    pub(crate) is_sealed: bool,
}

impl Piece {
    pub(crate) fn log(&self) -> PathBuf {
        self.segment.id.path(Kind::Log)
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.segment.id.path(Kind::Runs)
    }
}

impl Segments {
    /// The segments that a checkpoint has, the oldest first, but for those that were removed since, or with what took the place of some
    /// since; what was removed, and how far they are compacted.
    ///
    /// # Errors
    /// The report of damage, if one of them is lost; [`LogError::Io`].
    pub(crate) fn pieces(&self, mark: &PartitionMark) -> Result<(LowMark, Cleaned, Vec<Piece>), LogError> {
        // Before the list: what is put in place in between is looked at once more.
        let cleaned = self.cleaned();
        // The mark moves before segments go: what lies below it is removed, whether it is still in the list or not.
        let list = self.list.read().clone();
        let low = self.low();
        let mut pieces = Vec::new();
        // In a topic of events all of them are, with what is left below it.
        let is_there = |segment: &Segment| self.has_keys() || low.offset <= segment.id.base;
        for segment in list.iter().filter(|segment| is_there(segment) && segment.id.base <= mark.active) {
            if let Some(damage) = segment.damage() {
                return Err(damage.report());
            }
            pieces.push(self.piece(segment, mark)?);
        }
        Ok((low, cleaned, pieces))
    }

    fn piece(&self, segment: &Arc<Segment>, mark: &PartitionMark) -> Result<Piece, LogError> {
        let (segment, base, generation) = (Arc::clone(segment), segment.id.base, segment.id.generation);
        if base == mark.active {
            let PartitionMark { log_len, runs_len, chain: check, .. } = *mark;
            return Ok(Piece { segment, base, generation, log_len, runs_len, check, is_sealed: false });
        }
        let (index, log_len) = (segment.index(), segment.log_end());
        let seal_end = index.runs_end() + HEAD_LEN as u64;
        let (runs_len, check) = match segment.seal() {
            Some(seal) => (seal_end, seal.checksum),
            None => {
                let path = segment.id.path(Kind::Runs);
                let runs_len = self.files.get(&path).and_then(|file| file.len()).map_err(failed("measure", &path))?;
                let Some(last) = index.last() else { return Err(corrupt(&path, 0, runs_len, "a sealed segment is empty")) };
                // One that was damaged while it was active has no seal.
                let seal = || runs::encode_seal(last, last.end_offset, last.end_position).0.checksum;
                (runs_len, if runs_len == seal_end { seal() } else { last.checksum })
            }
        };
        Ok(Piece { segment, base, generation, log_len, runs_len, check, is_sealed: true })
    }
}

/// The whole `.runs` of a segment.
pub(crate) struct Runs {
    id: SegmentId,
    bytes: Vec<u8>,
    found: Found,
}

impl std::fmt::Debug for Runs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runs").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What is left of a segment, as the active one of its partition.
#[derive(Debug)]
pub(crate) struct Cut {
    /// Offset after the last record.
    pub(crate) end: Offset,
    /// Bytes of `.log`.
    pub(crate) log_len: u64,
    /// The `.runs`, without a seal.
    pub(crate) runs: Vec<u8>,
    /// Checksum of its last block, or of its header.
    pub(crate) chain: u32,
}

impl Runs {
    /// Takes bytes that were read from somewhere else than where they are to lie, `folder`, as a segment of that generation.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] for what is not whole, [`LogError::Format`].
    pub(crate) fn read(
        folder: PathBuf,
        (topic, partition): (TopicId, PartitionId),
        (base, generation): (Offset, u32),
        bytes: Vec<u8>,
    ) -> Result<Self, LogError> {
        let id = SegmentId { folder, topic, partition, base, generation };
        let found = walk(&id, &bytes)?;
        Ok(Self { id, bytes, found })
    }

    /// Where its files are to lie.
    pub(crate) fn paths(&self) -> (PathBuf, PathBuf) {
        (self.id.path(Kind::Log), self.id.path(Kind::Runs))
    }

    /// Where they are to lie if it is gone on with: what is appended to has no generation.
    pub(crate) fn paths_as_active(&self) -> (PathBuf, PathBuf) {
        let id = SegmentId { generation: 0, ..self.id.clone() };
        (id.path(Kind::Log), id.path(Kind::Runs))
    }

    /// Checksum of the last block.
    pub(crate) fn check(&self) -> u32 {
        self.found.chain
    }

    /// Bytes of `.log` that it knows of.
    pub(crate) fn log_len(&self) -> u64 {
        self.found.log_end()
    }

    /// Position and server time of the first record at or behind a position.
    ///
    /// # Errors
    /// [`LogError::Corrupt`].
    pub(crate) fn at_position(&self, position: Position) -> Result<Option<(Position, Timestamp)>, LogError> {
        let Some((at, _)) = self.found.index.at_position(position) else { return Ok(None) };
        let runs = self.block(at)?;
        let run = runs.iter().find(|run| run.end_position() > position);
        Ok(run.map(|run| (run.first_position.max(position), run.recorded_at)))
    }

    /// Position of the first record that the server recorded after a time.
    ///
    /// # Errors
    /// [`LogError::Corrupt`].
    pub(crate) fn after(&self, time: Timestamp) -> Result<Option<Position>, LogError> {
        let Some(behind) = time.get().checked_add(1).map(Timestamp::new) else { return Ok(None) };
        if let Some((at, _)) = self.found.index.before_server_time(behind)
            && let Some(run) = self.block(at)?.into_iter().find(|run| run.recorded_at > time)
        {
            return Ok(Some(run.first_position));
        }
        Ok(self.found.index.at_server_time(behind).map(|(_, head)| head.first_position))
    }

    /// What is left of it of records that the server recorded at `until` or before.
    ///
    /// # Errors
    /// [`LogError::Corrupt`].
    pub(crate) fn cut(&self, until: Timestamp) -> Result<Cut, LogError> {
        let header = self.bytes.get(..HEADER_LEN).unwrap_or_default();
        let mut left = Cut { end: self.id.base, log_len: 0, runs: header.to_vec(), chain: crc32c::crc32c(header) };
        for (at, head) in self.found.index.blocks() {
            let kept: Vec<_> = self.block(at)?.into_iter().take_while(|run| run.recorded_at <= until).collect();
            if kept.len() == usize::from(head.count) {
                left.runs.extend_from_slice(self.bytes_of(at)?);
                (left.end, left.log_len, left.chain) = (head.end_offset, head.log_end, head.checksum);
                continue;
            }
            // The largest timestamp of what is left is at most that of the whole block, which is what an index may say.
            if let Some((last, (head, block))) = kept.last().zip(runs::encode(&kept, left.chain, head.max_timestamp)) {
                left.runs.extend_from_slice(&block);
                (left.end, left.log_len, left.chain) = (last.end_offset(), head.log_end, head.checksum);
            }
            break;
        }
        Ok(left)
    }

    fn bytes_of(&self, at: u64) -> Result<&[u8], LogError> {
        let from = usize::try_from(at).unwrap_or(usize::MAX);
        let head = self.bytes.get(from..).and_then(runs::BlockHead::decode);
        let block = head.and_then(|head| self.bytes.get(from..from + usize::try_from(head.block_len()).ok()?));
        block.ok_or_else(|| corrupt(&self.id.path(Kind::Runs), at, at, "a block of runs is cut short"))
    }

    fn block(&self, at: u64) -> Result<Vec<StoredRun>, LogError> {
        let block = self.bytes_of(at)?;
        let end = at + block.len() as u64;
        runs::decode(block).ok_or_else(|| corrupt(&self.id.path(Kind::Runs), at, end, "a block of runs cannot be read"))
    }
}

/// Makes an error of reading a copy say which one it is.
pub(crate) fn of_copy(error: LogError, copy: &std::path::Path) -> LogError {
    match error {
        LogError::Corrupt { from, end, what, .. } => LogError::Corrupt { file: copy.to_owned(), from, end, what },
        LogError::Io { doing, source, .. } => LogError::Io { doing, path: copy.to_owned(), source: io::Error::other(source) },
        other => other,
    }
}
