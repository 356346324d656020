//! `.runs`: which offsets of a segment are which positions, in which batch, since when. Authoritative.
//!
//! Blocks of delta-coded runs, appended by the segment's writer and never changed, each with its checksum and that of the block
//! before it; the last block of a sealed segment says that it is whole. Damage is rot and is reported, never repaired.
//! Format: `log/FORMAT.md`, "Runs".
#![deny(clippy::indexing_slicing)]

use crate::{
    batch::varint::{Cursor, put_long, put_unsigned},
    ids::{Offset, Position, Timestamp},
};

/// Bytes of a block before its runs.
pub(super) const HEAD_LEN: usize = 80;
/// Runs after which the next block begins.
pub(super) const RUNS_A_BLOCK: usize = 512;
/// Longest body: every number at its longest.
const MAX_BODY_LEN: u32 = 64 << 10;

/// A run as `.runs` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredRun {
    pub(super) first_offset: Offset,
    pub(super) count: u32,
    pub(super) first_position: Position,
    pub(super) recorded_at: Timestamp,
    /// Byte place of its batch in `.log`.
    pub(super) batch_at: u64,
    pub(super) batch_len: u32,
    /// CRC-32C of the batch's 61 header bytes, which hold what Kafka's checksum leaves out, and that checksum.
    pub(super) batch_check: u32,
}

impl StoredRun {
    pub(super) const fn end_offset(&self) -> Offset {
        self.first_offset.plus(self.count as u64)
    }

    pub(super) const fn end_position(&self) -> Position {
        self.first_position.plus(self.count as u64)
    }
}

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
    /// It holds runs.
    Runs,
    /// It ends a sealed segment and holds none.
    Seal,
}

/// What is known of a block without its runs: an entry of the sparse index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHead {
    /// CRC-32C of all that follows in the block.
    pub(super) checksum: u32,
    /// Checksum of the block before, or of the file's header.
    pub(super) chain: u32,
    /// Bytes of runs behind the head.
    pub(super) body_len: u32,
    pub(super) kind: BlockKind,
    pub(super) count: u16,
    pub(super) base_offset: Offset,
    pub(super) end_offset: Offset,
    pub(super) first_position: Position,
    pub(super) end_position: Position,
    /// Byte place of the first run's batch in `.log`.
    pub(super) log_from: u64,
    /// End of the last run's batch.
    pub(super) log_end: u64,
    pub(super) recorded_at: Timestamp,
    /// Largest timestamp of a record in the segment up to here.
    pub(super) max_timestamp: Timestamp,
}

impl BlockHead {
    /// What stands for the last block of a segment that has none: its header has this checksum, and it begins here.
    pub(super) const fn nothing(chain: u32, base: Offset, position: Position) -> Self {
        let time = Timestamp::new(0);
        Self {
            checksum: chain,
            chain,
            body_len: 0,
            kind: BlockKind::Runs,
            count: 0,
            base_offset: base,
            end_offset: base,
            first_position: position,
            end_position: position,
            log_from: 0,
            log_end: 0,
            recorded_at: time,
            max_timestamp: time,
        }
    }

    pub(super) const fn block_len(&self) -> u64 {
        HEAD_LEN as u64 + self.body_len as u64
    }

    pub(super) fn encode(&self) -> [u8; HEAD_LEN] {
        let mut out = Vec::with_capacity(HEAD_LEN);
        out.extend_from_slice(&self.checksum.to_be_bytes());
        out.extend_from_slice(&self.chain.to_be_bytes());
        out.extend_from_slice(&self.body_len.to_be_bytes());
        out.extend_from_slice(&match self.kind {
            BlockKind::Runs => 1_u16.to_be_bytes(),
            BlockKind::Seal => 2_u16.to_be_bytes(),
        });
        out.extend_from_slice(&self.count.to_be_bytes());
        for number in [
            self.base_offset.get(),
            self.end_offset.get(),
            self.first_position.get(),
            self.end_position.get(),
            self.log_from,
            self.log_end,
            self.recorded_at.get().cast_unsigned(),
            self.max_timestamp.get().cast_unsigned(),
        ] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        let mut head = [0; HEAD_LEN];
        head.copy_from_slice(&out);
        head
    }

    /// Reads a head; whether its checksum holds is only known with the runs ([`check`]).
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let (checksum, chain) = (u32::from_be_bytes(cursor.array()?), u32::from_be_bytes(cursor.array()?));
        let body_len = u32::from_be_bytes(cursor.array()?);
        let kind = match u16::from_be_bytes(cursor.array()?) {
            1 => BlockKind::Runs,
            2 => BlockKind::Seal,
            _ => return None,
        };
        let count = u16::from_be_bytes(cursor.array()?);
        let mut number = || cursor.array().map(u64::from_be_bytes);
        let head = Self {
            checksum,
            chain,
            body_len,
            kind,
            count,
            base_offset: Offset::new(number()?),
            end_offset: Offset::new(number()?),
            first_position: Position::new(number()?),
            end_position: Position::new(number()?),
            log_from: number()?,
            log_end: number()?,
            recorded_at: Timestamp::new(number()?.cast_signed()),
            max_timestamp: Timestamp::new(number()?.cast_signed()),
        };
        let in_order = head.base_offset <= head.end_offset && head.first_position <= head.end_position && head.log_from <= head.log_end;
        (in_order && body_len <= MAX_BODY_LEN).then_some(head)
    }
}

/// Encodes a block of runs that follow each other; `max_timestamp` is that of the segment so far, these runs included.
/// There must be at least one run, and at most [`RUNS_A_BLOCK`].
pub(super) fn encode(runs: &[StoredRun], chain: u32, max_timestamp: Timestamp) -> Option<(BlockHead, Vec<u8>)> {
    let (first, last) = (runs.first()?, runs.last()?);
    let mut body = Vec::with_capacity(runs.len() * 16);
    let mut before = Place::start(first);
    for run in runs {
        put_unsigned(&mut body, run.count.into());
        put_unsigned(&mut body, run.first_offset.get() - before.offset);
        put_unsigned(&mut body, run.first_position.get() - before.position);
        if before.batch_at == Some(run.batch_at) {
            put_unsigned(&mut body, 0);
        } else {
            put_unsigned(&mut body, run.batch_len.into());
            body.extend_from_slice(&run.batch_check.to_be_bytes());
        }
        put_long(&mut body, run.recorded_at.get().wrapping_sub(before.recorded_at));
        before = Place::behind(run);
    }
    let head = BlockHead {
        checksum: 0,
        chain,
        body_len: u32::try_from(body.len()).ok()?,
        kind: BlockKind::Runs,
        count: u16::try_from(runs.len()).ok()?,
        base_offset: first.first_offset,
        end_offset: last.end_offset(),
        first_position: first.first_position,
        end_position: last.end_position(),
        log_from: first.batch_at,
        log_end: last.batch_at + u64::from(last.batch_len),
        recorded_at: first.recorded_at,
        max_timestamp,
    };
    Some(finish(head, &body))
}

/// Encodes the block that ends a sealed segment, given the last block of runs, and where the segment ends: further on if compaction left
/// out what lay last.
pub(super) fn encode_seal(last: &BlockHead, end: Offset, end_position: Position) -> (BlockHead, Vec<u8>) {
    let head = BlockHead {
        chain: last.checksum,
        body_len: 0,
        kind: BlockKind::Seal,
        count: 0,
        base_offset: last.end_offset,
        end_offset: end,
        first_position: last.end_position,
        end_position,
        log_from: last.log_end,
        ..*last
    };
    finish(head, &[])
}

fn finish(mut head: BlockHead, body: &[u8]) -> (BlockHead, Vec<u8>) {
    let mut block = head.encode().to_vec();
    block.extend_from_slice(body);
    head.checksum = crc32c::crc32c(block.get(4..).unwrap_or_default());
    block.splice(..4, head.checksum.to_be_bytes());
    (head, block)
}

/// Whether `block` (head and runs) is what its checksum promises.
pub(super) fn check(block: &[u8]) -> bool {
    let Some((checksum, rest)) = block.split_first_chunk::<4>() else { return false };
    crc32c::crc32c(rest) == u32::from_be_bytes(*checksum)
}

/// Where the next run is expected.
struct Place {
    offset: u64,
    position: u64,
    recorded_at: i64,
    batch_at: Option<u64>,
}

impl Place {
    const fn start(first: &StoredRun) -> Self {
        Self {
            offset: first.first_offset.get(),
            position: first.first_position.get(),
            recorded_at: first.recorded_at.get(),
            batch_at: None,
        }
    }

    const fn behind(run: &StoredRun) -> Self {
        Self {
            offset: run.end_offset().get(),
            position: run.end_position().get(),
            recorded_at: run.recorded_at.get(),
            batch_at: Some(run.batch_at),
        }
    }
}

/// Decodes the runs of a block that was checked; none if they are not what its head says.
pub(super) fn decode(block: &[u8]) -> Option<Vec<StoredRun>> {
    let head = BlockHead::decode(block)?;
    if head.kind == BlockKind::Seal {
        // It may end further on than what lies last.
        return (head.count == 0 && head.body_len == 0).then(Vec::new);
    }
    let mut cursor = Cursor::new(block.get(HEAD_LEN..)?);
    let (mut offset, mut position, mut time) = (head.base_offset.get(), head.first_position.get(), head.recorded_at.get());
    let mut batch: Option<(u64, u32, u32)> = None;
    // A run takes at least five bytes, so a wrong count cannot claim more memory than there are bytes.
    let mut runs = Vec::with_capacity(usize::from(head.count).min(block.len() / 5));
    for _ in 0..head.count {
        let count = u32::try_from(cursor.unsigned()?).ok().filter(|count| *count > 0)?;
        offset = offset.checked_add(cursor.unsigned()?)?;
        position = position.checked_add(cursor.unsigned()?)?;
        let step = u32::try_from(cursor.unsigned()?).ok()?;
        batch = match (step, batch) {
            (0, same) => same,
            (length, None) => Some((head.log_from, length, u32::from_be_bytes(cursor.array()?))),
            (length, Some((at, before, _))) => Some((at.checked_add(u64::from(before))?, length, u32::from_be_bytes(cursor.array()?))),
        };
        let (batch_at, batch_len, batch_check) = batch?;
        time = time.wrapping_add(cursor.long()?);
        runs.push(StoredRun {
            first_offset: Offset::new(offset),
            count,
            first_position: Position::new(position),
            recorded_at: Timestamp::new(time),
            batch_at,
            batch_len,
            batch_check,
        });
        offset = offset.checked_add(u64::from(count))?;
        position = position.checked_add(u64::from(count))?;
    }
    let log_end = match batch {
        Some((at, length, _)) => at.checked_add(u64::from(length))?,
        None => head.log_from,
    };
    let fits = cursor.is_empty() && offset == head.end_offset.get() && position == head.end_position.get() && log_end == head.log_end;
    fits.then_some(runs)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    prop_compose! {
        fn runs()(steps in vec((1..1000_u32, 0..3_u64, 0..5000_u64, any::<bool>(), 61..100_000_u32, any::<u32>(), -5..50_i64), 1..RUNS_A_BLOCK)) -> Vec<StoredRun> {
            let mut runs: Vec<StoredRun> = Vec::new();
            let (mut offset, mut position, mut time) = (7, 70, 1_000);
            for (count, hole, others, is_new, batch_len, batch_check, later) in steps {
                (offset, position, time) = (offset + hole, position + others, time + later);
                let batch = match runs.last() {
                    Some(run) if !is_new => (run.batch_at, run.batch_len, run.batch_check),
                    Some(run) => (run.batch_at + u64::from(run.batch_len), batch_len, batch_check),
                    None => (500, batch_len, batch_check),
                };
                runs.push(StoredRun {
                    first_offset: Offset::new(offset), count, first_position: Position::new(position), recorded_at: Timestamp::new(time),
                    batch_at: batch.0, batch_len: batch.1, batch_check: batch.2,
                });
                (offset, position) = (offset + u64::from(count), position + u64::from(count));
            }
            runs
        }
    }

    proptest! {
        #[test]
        fn decoding_a_block_gives_its_runs_back(runs in runs(), chain in any::<u32>()) {
            let (head, block) = encode(&runs, chain, Timestamp::new(9)).expect("within bounds");
            prop_assert!(check(&block));
            prop_assert_eq!(BlockHead::decode(&block), Some(head));
            prop_assert_eq!(decode(&block), Some(runs));
            let (seal, block) = encode_seal(&head, head.end_offset, head.end_position);
            prop_assert!(check(&block) && seal.chain == head.checksum && seal.end_offset == head.end_offset);
            prop_assert_eq!(decode(&block), Some(Vec::new()));
            let (_, further_on) = encode_seal(&head, head.end_offset.plus(3), head.end_position.plus(5));
            prop_assert_eq!(decode(&further_on), Some(Vec::new()));
        }

        #[test]
        fn no_bytes_panic_the_decoder(mut bytes in vec(any::<u8>(), 0..300), count in 0..40_u8) {
            for (place, byte) in [(12, 0), (13, 1), (14, 0), (15, count)] {
                if let Some(at) = bytes.get_mut(place) { *at = byte; }
            }
            let _ = (check(&bytes), decode(&bytes));
        }

        #[test]
        fn a_flipped_byte_is_found(runs in runs(), place in any::<usize>(), flip in 1..=255_u8) {
            let (_, mut block) = encode(&runs, 1, Timestamp::new(9)).expect("within bounds");
            let place = place % block.len();
            if let Some(byte) = block.get_mut(place) { *byte ^= flip; }
            prop_assert!(!check(&block));
        }
    }
}
