//! The sparse index of a segment: from an offset, a position or a time to the block of runs that has it.
//!
//! In memory for every segment; a sealed one's lies in `.index`, so that a start does not read `.runs`. Derived: made again from
//! `.runs` when it is missing or damaged. Format: `log/FORMAT.md`, "Offset and time index".
#![deny(clippy::indexing_slicing)]

use super::{
    file::{HEADER_LEN, Kind, SegmentId},
    runs::{BlockHead, BlockKind, HEAD_LEN},
};
use crate::ids::{Offset, Position, Timestamp};

/// The heads of a segment's blocks, in order, each with its place in `.runs`.
#[derive(Clone, Debug, Default)]
pub(super) struct OffsetIndex {
    blocks: Vec<(u64, BlockHead)>,
}

impl OffsetIndex {
    /// Adds the next block, which lies at byte place `at` of `.runs`.
    pub(super) fn push(&mut self, at: u64, head: BlockHead) {
        self.blocks.push((at, head));
    }

    pub(super) fn first(&self) -> Option<&BlockHead> {
        self.blocks.first().map(|(_, head)| head)
    }

    pub(super) fn last(&self) -> Option<&BlockHead> {
        self.blocks.last().map(|(_, head)| head)
    }

    pub(super) fn last_block(&self) -> Option<(u64, BlockHead)> {
        self.blocks.last().copied()
    }

    /// All blocks in order, with their places in `.runs`.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (u64, BlockHead)> + '_ {
        self.blocks.iter().copied()
    }

    /// Where the next block of `.runs` lies.
    pub(super) fn runs_end(&self) -> u64 {
        self.blocks.last().map_or(HEADER_LEN as u64, |(at, head)| at + head.block_len())
    }

    /// The first block that ends behind an offset.
    pub(super) fn at_offset(&self, offset: Offset) -> Option<(u64, BlockHead)> {
        self.first_where(|head| head.end_offset > offset)
    }

    /// The first block that ends behind a position.
    pub(super) fn at_position(&self, position: Position) -> Option<(u64, BlockHead)> {
        self.first_where(|head| head.end_position > position)
    }

    /// The first block that may hold a record of `time` or later: none before it does.
    pub(super) fn at_time(&self, time: Timestamp) -> Option<(u64, BlockHead)> {
        self.first_where(|head| head.max_timestamp >= time)
    }

    /// The last block that begins before an offset.
    pub(super) fn before_offset(&self, offset: Offset) -> Option<(u64, BlockHead)> {
        self.last_where(|head| head.base_offset < offset)
    }

    /// The last block whose first record the server recorded before a time.
    pub(super) fn before_server_time(&self, time: Timestamp) -> Option<(u64, BlockHead)> {
        self.last_where(|head| head.recorded_at < time)
    }

    /// The first block whose first record the server recorded at a time or later.
    pub(super) fn at_server_time(&self, time: Timestamp) -> Option<(u64, BlockHead)> {
        self.first_where(|head| head.recorded_at >= time)
    }

    /// `is_before` must be true for some blocks and false for all behind them.
    fn last_where(&self, is_before: impl Fn(&BlockHead) -> bool) -> Option<(u64, BlockHead)> {
        let behind = self.blocks.partition_point(|(_, head)| is_before(head));
        self.blocks.get(behind.checked_sub(1)?).copied()
    }

    /// `is_reached` must be false for some blocks and true for all behind them.
    fn first_where(&self, is_reached: impl Fn(&BlockHead) -> bool) -> Option<(u64, BlockHead)> {
        let place = self.blocks.partition_point(|(_, head)| !is_reached(head));
        self.blocks.get(place).copied()
    }

    /// The bytes of `.index`, for a segment whose `.runs` end with `seal`.
    pub(super) fn encode(&self, id: &SegmentId, seal: &BlockHead) -> Vec<u8> {
        let mut out = id.header(Kind::Index).to_vec();
        for head in self.blocks.iter().map(|(_, head)| head).chain([seal]) {
            out.extend_from_slice(&head.encode());
        }
        out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
        out
    }

    /// Reads `.index`, and the seal of `.runs` that it repeats; none if it is not this segment's, or damaged.
    pub(super) fn decode(id: &SegmentId, bytes: &[u8]) -> Option<(Self, BlockHead)> {
        let (rest, crc) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(rest) != u32::from_be_bytes(*crc) || id.check_header(Kind::Index, rest).is_err() {
            return None;
        }
        let (heads, leftover) = rest.get(HEADER_LEN..)?.as_chunks::<HEAD_LEN>();
        let (seal, blocks) = heads.split_last()?;
        let seal = BlockHead::decode(seal)?;
        let mut index = Self::default();
        let mut at = HEADER_LEN as u64;
        for head in blocks {
            let head = BlockHead::decode(head)?;
            index.push(at, head);
            at += head.block_len();
        }
        (leftover.is_empty() && seal.kind == BlockKind::Seal).then_some((index, seal))
    }
}
