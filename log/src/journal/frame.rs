//! A frame of the journal: one group as bytes. Format: `log/FORMAT.md`, "Journal".
//!
//! The committer encodes, recovery and readers of old frames decode. Invariant: what decodes is what was encoded; bytes whose
//! checksums do not fit are a [`FrameFlaw`] and never anything else.

use bytes::Bytes;

use crate::{
    codec::{Fields, Put},
    compaction::Cleaned,
    config::BLOCK,
    ids::{Offset, PartitionId, Position, Timestamp, TopicId},
    retention::LowMark,
    segment::Rewrite,
    window,
};

/// Bytes of a frame's header.
pub(crate) const HEADER_LEN: usize = 96;
/// Newest version of the format of frames.
pub(crate) const FORMAT: u16 = 4;
/// Version of frames with entries of producers, and no segments that were written anew.
const FORMAT_WITH_PRODUCERS: u16 = 3;
/// Version of frames with switches, and entries of request ids alone.
const FORMAT_WITH_SWITCHES: u16 = 2;
/// Version of frames without switches: programs from before there were any read them.
const FORMAT_WITHOUT_SWITCHES: u16 = 1;
const MAGIC: [u8; 4] = *b"FLJ\x01";
/// Place of the salt: the same in every format, so that a payload is never taken for a frame of another one.
const SALT_AT: usize = 32;
/// Largest body that is believed.
const MAX_BODY: u32 = 1 << 30;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Carries units.
    Group,
    /// First of a start; empty.
    Open,
    /// Follows the last group before an idle spell or a stop; empty.
    Seal,
}

/// Header of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Set by [`encode`].
    pub(crate) format: u16,
    pub(crate) kind: FrameKind,
    pub(crate) number: u64,
    /// Number of the newest frame known to be synced when this one was written.
    pub(crate) durable: u64,
    /// Checksum of the header before.
    pub(crate) chain: u32,
    /// Number of the start that wrote it.
    pub(crate) start: u32,
    /// Drawn at each start.
    pub(crate) salt: u128,
    pub(crate) first: Position,
    /// Records.
    pub(crate) count: u32,
    pub(crate) time: Timestamp,
    pub(crate) body_len: u32,
    pub(crate) body_crc: u32,
    /// Checksum of this header; the next one's `chain`.
    pub(crate) crc: u32,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameFlaw {
    /// No header of ours, or a damaged one.
    Header,
    /// A header of another format; its salt lies where ours does, whatever the format.
    Format { found: u16, salt: u128 },
    /// The body is cut short or its checksum differs.
    Body,
}

impl FrameHeader {
    pub(crate) fn end(&self) -> Position {
        self.first.plus(u64::from(self.count))
    }

    /// Bytes that the frame takes in its file.
    pub(crate) fn padded_len(&self) -> u64 {
        padded(HEADER_LEN as u64 + u64::from(self.body_len))
    }

    fn encode(&mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.put(&MAGIC);
        out.put_u16(self.format);
        out.put_u8(match self.kind {
            FrameKind::Group => 0,
            FrameKind::Open => 1,
            FrameKind::Seal => 2,
        });
        out.put_u8(0);
        out.put_u64(self.number);
        out.put_u64(self.durable);
        out.put_u32(self.chain);
        out.put_u32(self.start);
        out.put_u128(self.salt);
        out.put_u64(self.first.get());
        out.put_u32(self.count);
        out.put_u32(0);
        out.put_i64(self.time.get());
        out.put_u32(self.body_len);
        out.put_u32(self.body_crc);
        out.put(&[0; 12]);
        self.crc = crc32c::crc32c(&out);
        out.put_u32(self.crc);
        out
    }

    /// Reads a header from the start of a block.
    pub(crate) fn decode(block: &[u8]) -> Result<Self, FrameFlaw> {
        let bytes = block.get(..HEADER_LEN).ok_or(FrameFlaw::Header)?;
        let (covered, crc) = bytes.split_last_chunk::<4>().ok_or(FrameFlaw::Header)?;
        let crc = u32::from_le_bytes(*crc);
        if bytes[..4] != MAGIC || crc32c::crc32c(covered) != crc {
            return Err(FrameFlaw::Header);
        }
        Self::fields(Fields(&covered[4..]), crc).ok_or(FrameFlaw::Header)?
    }

    fn fields(mut from: Fields<'_>, crc: u32) -> Option<Result<Self, FrameFlaw>> {
        let format = from.u16()?;
        if !(FORMAT_WITHOUT_SWITCHES..=FORMAT).contains(&format) {
            from.take(SALT_AT - 6)?;
            return Some(Err(FrameFlaw::Format { found: format, salt: from.u128()? }));
        }
        let kind = match from.u8()? {
            0 => FrameKind::Group,
            1 => FrameKind::Open,
            2 => FrameKind::Seal,
            _ => return None,
        };
        from.u8()?;
        let (number, durable, chain, start, salt) = (from.u64()?, from.u64()?, from.u32()?, from.u32()?, from.u128()?);
        let (first, count) = (Position::new(from.u64()?), from.u32()?);
        from.u32()?;
        let (time, body_len, body_crc) = (Timestamp::new(from.i64()?), from.u32()?, from.u32()?);
        let believable = body_len <= MAX_BODY && first.get().checked_add(u64::from(count)).is_some();
        believable.then_some(Ok(Self { format, kind, number, durable, chain, start, salt, first, count, time, body_len, body_crc, crc }))
    }
}

/// Next multiple of a block.
pub(crate) const fn padded(length: u64) -> u64 {
    length.next_multiple_of(BLOCK)
}

/// Records of a group that are contiguous in position and lie in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameRun {
    pub(crate) count: u32,
    /// Position of the first, less the frame's first.
    pub(crate) position_delta: u32,
    /// Byte place of the first in the batch.
    pub(crate) start: u32,
}

/// What a group writes to one partition: one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameSlice {
    pub(crate) topic: TopicId,
    pub(crate) partition: PartitionId,
    pub(crate) base: Offset,
    pub(crate) count: u32,
    pub(crate) runs: Vec<FrameRun>,
    pub(crate) batch: Bytes,
}

/// Segments of a partition are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameSwitch {
    pub(crate) topic: TopicId,
    pub(crate) partition: PartitionId,
    pub(crate) by: Replacement,
}

/// By what segments are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replacement {
    /// Those below a mark, by nothing.
    Nothing(LowMark),
    /// Some by one that compaction wrote, and how far the partition is compacted then.
    Rewritten(Rewrite, Cleaned),
}

/// What a frame carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameBody {
    pub(crate) slices: Vec<FrameSlice>,
    /// Entries of the window of requests, encoded ([`crate::window`]).
    pub(crate) entries: Bytes,
    pub(crate) switches: Vec<FrameSwitch>,
}

const SLICE_FIXED: usize = 16 + 4 + 8 + 4 + 4 + 4;
const RUN_LEN: usize = 12;
const REMOVAL_LEN: usize = 16 + 4 + 8 + 8;
const REWRITE_LEN: usize = 16 + 4 + 8 + 8 + 4 + 8 + 8;

impl FrameSwitch {
    /// Bytes that it takes in a frame.
    pub(super) const fn encoded_len(&self) -> usize {
        match self.by {
            Replacement::Nothing(_) => REMOVAL_LEN,
            Replacement::Rewritten(..) => REWRITE_LEN,
        }
    }
}

/// Bytes that a slice of `runs` takes in a frame, beside its batch.
pub(crate) const fn table_len(slices: usize, runs: usize) -> usize {
    slices * SLICE_FIXED + runs * RUN_LEN
}

/// Bytes that switches take in a frame of a format, with their numbers: removals first.
pub(super) fn switches_len(format: u16, switches: &[FrameSwitch]) -> usize {
    let numbers = usize::from(format != FORMAT_WITHOUT_SWITCHES) + usize::from(format >= FORMAT);
    4 * numbers + switches.iter().map(FrameSwitch::encoded_len).sum::<usize>()
}

/// Encodes a frame into `out`, which is emptied first, padded to whole blocks; completes the header's format, lengths and checksums.
pub(crate) fn encode(header: &mut FrameHeader, body: &FrameBody, out: &mut Vec<u8>) {
    out.clear();
    out.resize(HEADER_LEN, 0);
    let has_rewritten = body.switches.iter().any(|switch| matches!(switch.by, Replacement::Rewritten(..)));
    header.format = match (window::has_producers(&body.entries), body.switches.is_empty()) {
        _ if has_rewritten => FORMAT,
        (true, _) => FORMAT_WITH_PRODUCERS,
        (false, false) => FORMAT_WITH_SWITCHES,
        (false, true) => FORMAT_WITHOUT_SWITCHES,
    };
    if header.kind == FrameKind::Group {
        encode_body(header.format, body, out);
    }
    header.body_len = u32::try_from(out.len() - HEADER_LEN).unwrap_or(u32::MAX);
    header.body_crc = crc32c::crc32c(&out[HEADER_LEN..]);
    let head = header.encode();
    out[..HEADER_LEN].copy_from_slice(&head);
    let whole = usize::try_from(padded(out.len() as u64)).unwrap_or(out.len());
    out.resize(whole, 0);
}

fn encode_body(format: u16, body: &FrameBody, out: &mut Vec<u8>) {
    out.put_len(body.slices.len());
    for slice in &body.slices {
        out.put(slice.topic.as_bytes());
        out.put_u32(slice.partition.get());
        out.put_u64(slice.base.get());
        out.put_u32(slice.count);
        out.put_len(slice.batch.len());
        out.put_len(slice.runs.len());
        for run in &slice.runs {
            out.put_u32(run.count);
            out.put_u32(run.position_delta);
            out.put_u32(run.start);
        }
    }
    out.put_len(body.entries.len());
    out.put(&body.entries);
    if format != FORMAT_WITHOUT_SWITCHES {
        encode_switches(&body.switches, out, |switch, out| {
            let Replacement::Nothing(low) = switch.by else { return false };
            put_partition(switch, out);
            out.put_u64(low.offset.get());
            out.put_u64(low.position.get());
            true
        });
    }
    if format >= FORMAT {
        encode_switches(&body.switches, out, |switch, out| {
            let Replacement::Rewritten(rewrite, cleaned) = switch.by else { return false };
            put_partition(switch, out);
            out.put_u64(rewrite.base.get());
            out.put_u64(rewrite.end.get());
            out.put_u32(rewrite.generation);
            out.put_u64(cleaned.to.get());
            out.put_i64(cleaned.horizon.get());
            true
        });
    }
    for slice in &body.slices {
        out.put(&slice.batch);
    }
}

/// Encodes those switches that `encode` knows how to, behind their number.
fn encode_switches(switches: &[FrameSwitch], out: &mut Vec<u8>, mut encode: impl FnMut(&FrameSwitch, &mut Vec<u8>) -> bool) {
    let mut encoded = Vec::new();
    let count = switches.iter().filter(|switch| encode(switch, &mut encoded)).count();
    out.put_len(count);
    out.put(&encoded);
}

fn put_partition(switch: &FrameSwitch, out: &mut Vec<u8>) {
    out.put(switch.topic.as_bytes());
    out.put_u32(switch.partition.get());
}

/// Decodes the body of a frame whose header is known; `frame` begins with the header. Batches share its bytes.
pub(crate) fn decode_body(header: &FrameHeader, frame: &Bytes) -> Result<FrameBody, FrameFlaw> {
    let end = HEADER_LEN + usize::try_from(header.body_len).map_err(|_| FrameFlaw::Body)?;
    let bytes = frame.get(HEADER_LEN..end).ok_or(FrameFlaw::Body)?;
    if crc32c::crc32c(bytes) != header.body_crc {
        return Err(FrameFlaw::Body);
    }
    if header.kind != FrameKind::Group {
        return if bytes.is_empty() { Ok(FrameBody::default()) } else { Err(FrameFlaw::Body) };
    }
    body_fields(header, frame, bytes).ok_or(FrameFlaw::Body)
}

fn body_fields(header: &FrameHeader, frame: &Bytes, bytes: &[u8]) -> Option<FrameBody> {
    let mut from = Fields(bytes);
    let mut lengths = Vec::new();
    let mut slices = Vec::new();
    let mut records: u64 = 0;
    for _ in 0..from.count(SLICE_FIXED)? {
        let (topic, partition) = (from.topic_id()?, PartitionId::new(from.u32()?));
        let (base, count) = (Offset::new(from.u64()?), from.u32()?);
        lengths.push(usize::try_from(from.u32()?).ok()?);
        let mut runs = Vec::new();
        let mut counted: u32 = 0;
        for _ in 0..from.count(RUN_LEN)? {
            let run = FrameRun { count: from.u32()?, position_delta: from.u32()?, start: from.u32()? };
            counted = counted.checked_add(run.count)?;
            (run.position_delta.checked_add(run.count)? <= header.count && run.count > 0).then_some(())?;
            runs.push(run);
        }
        (counted == count && base.get().checked_add(u64::from(count)).is_some()).then_some(())?;
        records += u64::from(count);
        slices.push(FrameSlice { topic, partition, base, count, runs, batch: Bytes::new() });
    }
    (records == u64::from(header.count)).then_some(())?;
    let entries = from.count(1)?;
    let entries = frame.slice_ref(from.take(entries)?);
    let mut switches = Vec::new();
    if header.format != FORMAT_WITHOUT_SWITCHES {
        for _ in 0..from.count(REMOVAL_LEN)? {
            let (topic, partition) = (from.topic_id()?, PartitionId::new(from.u32()?));
            let low = LowMark { offset: Offset::new(from.u64()?), position: Position::new(from.u64()?) };
            switches.push(FrameSwitch { topic, partition, by: Replacement::Nothing(low) });
        }
    }
    if header.format >= FORMAT {
        for _ in 0..from.count(REWRITE_LEN)? {
            let (topic, partition) = (from.topic_id()?, PartitionId::new(from.u32()?));
            let (base, end, generation) = (Offset::new(from.u64()?), Offset::new(from.u64()?), from.u32()?);
            let cleaned = Cleaned { to: Offset::new(from.u64()?), horizon: Timestamp::new(from.i64()?) };
            (base < end && generation > 0).then_some(())?;
            switches.push(FrameSwitch { topic, partition, by: Replacement::Rewritten(Rewrite { base, end, generation }, cleaned) });
        }
    }
    for (slice, length) in slices.iter_mut().zip(lengths) {
        slice.batch = frame.slice_ref(from.take(length)?);
    }
    from.0.is_empty().then_some(FrameBody { slices, entries, switches })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (FrameHeader, FrameBody) {
        let header = FrameHeader {
            format: FORMAT_WITHOUT_SWITCHES,
            kind: FrameKind::Group,
            number: 7,
            durable: 6,
            chain: 5,
            start: 2,
            salt: 99,
            first: Position::new(40),
            count: 3,
            time: Timestamp::new(-5),
            body_len: 0,
            body_crc: 0,
            crc: 0,
        };
        let slice = |partition, base, runs: Vec<FrameRun>| FrameSlice {
            topic: TopicId::new([3; 16]),
            partition: PartitionId::new(partition),
            base: Offset::new(base),
            count: runs.iter().map(|run| run.count).sum(),
            runs,
            batch: Bytes::from(vec![7; 100]),
        };
        let run = |count, position_delta| FrameRun { count, position_delta, start: 61 };
        let slices = vec![slice(0, 5, vec![run(1, 0), run(1, 2)]), slice(1, 9, vec![run(1, 1)])];
        (header, FrameBody { slices, entries: Bytes::from_static(b"ids"), switches: Vec::new() })
    }

    /// The same with what replaces segments.
    fn switching() -> (FrameHeader, FrameBody) {
        let (header, mut body) = sample();
        for partition in 0..2 {
            let low = LowMark { offset: Offset::new(1 << 40), position: Position::new(u64::from(partition)) };
            let by = Replacement::Nothing(low);
            body.switches.push(FrameSwitch { topic: TopicId::new([9; 16]), partition: PartitionId::new(partition), by });
        }
        (header, body)
    }

    /// The same with segments that were written anew.
    fn rewritten() -> (FrameHeader, FrameBody) {
        let (header, mut body) = switching();
        let rewrite = Rewrite { base: Offset::new(7), end: Offset::new(1 << 33), generation: 3 };
        let by = Replacement::Rewritten(rewrite, Cleaned { to: Offset::new(99), horizon: Timestamp::new(-4) });
        body.switches.push(FrameSwitch { topic: TopicId::new([8; 16]), partition: PartitionId::new(5), by });
        (header, body)
    }

    fn read(bytes: &[u8]) -> Result<(FrameHeader, FrameBody), FrameFlaw> {
        let header = FrameHeader::decode(bytes)?;
        let body = decode_body(&header, &Bytes::copy_from_slice(bytes))?;
        Ok((header, body))
    }

    #[test]
    fn decode_undoes_encode() {
        for ((mut header, body), format) in [(sample(), 1), (switching(), 2), (rewritten(), 4)] {
            let mut out = Vec::new();
            encode(&mut header, &body, &mut out);
            assert_eq!((out.len() as u64, header.format), (BLOCK, format));
            assert_eq!(out.len() as u64, header.padded_len());
            assert_eq!(read(&out), Ok((header, body)));
        }
    }

    #[test]
    fn every_flipped_byte_of_a_frame_is_noticed() {
        let (mut header, body) = rewritten();
        let mut out = Vec::new();
        encode(&mut header, &body, &mut out);
        for place in 0..HEADER_LEN + header.body_len as usize {
            out[place] ^= 0x20;
            assert!(read(&out).is_err(), "byte {place}");
            out[place] ^= 0x20;
        }
        for length in 0..HEADER_LEN + header.body_len as usize {
            assert!(read(&out[..length]).is_err(), "cut to {length}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_body_of_any_bytes_is_read_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400), format in 1..=FORMAT) {
            let (mut header, _) = sample();
            header.format = format;
            let frame: Vec<u8> = std::iter::repeat_n(0, HEADER_LEN).chain(bytes.iter().copied()).collect();
            header.body_len = u32::try_from(bytes.len()).unwrap();
            header.body_crc = crc32c::crc32c(&bytes);
            let _ = decode_body(&header, &Bytes::from(frame));
        }
    }
}
