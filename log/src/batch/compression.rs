//! A batch with its records compressed, and back. Format: `log/FORMAT.md`, "Compressed batches".
//!
//! Tidy compresses what it copies into segments, readers of segments decompress what they have checked. Invariants: what was
//! compressed comes back byte for byte; whatever the bytes are, it ends, takes no more memory than the largest batch, and
//! never panics.
#![deny(clippy::indexing_slicing)]

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use zstd::{bulk, zstd_safe};

use super::header::{BatchHeader, CHECKED_FROM, Flaw, HEADER_LEN, MAX_BATCH_LEN, UNCOUNTED};
use crate::topic::Compression;

/// Records shorter than this stay as they are: the frame around them would eat up most of what is saved.
const SHORTEST: usize = 256;
/// Fastest of zstd's levels; the third, its own choice, takes half as long again for events in JSON and makes them no smaller.
const ZSTD_LEVEL: i32 = 1;
/// Place of the attributes' lower byte, whose three lowest bits say how the records are compressed.
const CODEC_AT: usize = CHECKED_FROM + 1;
const CODEC_BITS: u8 = 0x07;

/// How a batch's attributes say that its records are compressed; none for a number of Kafka's that is not written here.
pub(super) const fn of_attributes(attributes: i16) -> Option<Compression> {
    match attributes & CODEC_BITS as i16 {
        0 => Some(Compression::None),
        3 => Some(Compression::Lz4),
        4 => Some(Compression::Zstd),
        _ => None,
    }
}

const fn codec(compression: Compression) -> u8 {
    match compression {
        Compression::None => 0,
        Compression::Lz4 => 3,
        Compression::Zstd => 4,
    }
}

/// A whole uncompressed batch with its records compressed; none if it is to stay as it is, because it is short or would lose
/// less than an eighth.
pub(crate) fn compress(batch: &[u8], compression: Compression) -> Option<Vec<u8>> {
    let (header, records) = batch.split_at_checked(HEADER_LEN)?;
    if compression == Compression::None || records.len() < SHORTEST {
        return None;
    }
    let mut out = header.to_vec();
    match compression {
        Compression::None => return None,
        Compression::Lz4 => {
            // As Kafka's clients write them, which read no other kind of blocks.
            let frame = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
            let mut encoder = FrameEncoder::with_frame_info(frame.content_size(Some(records.len() as u64)), &mut out);
            encoder.write_all(records).ok()?;
            encoder.finish().ok()?;
        }
        Compression::Zstd => out.extend_from_slice(&bulk::compress(records, ZSTD_LEVEL).ok()?),
    }
    (out.len() - HEADER_LEN <= records.len() - records.len() / 8).then(|| finish(&mut out, compression))??;
    Some(out)
}

/// The batch as it was before it was compressed, if it was; it must have been checked.
///
/// # Errors
/// Where the records are not what a compressed batch of ours holds.
pub(crate) fn decompress(batch: Bytes) -> Result<Bytes, Flaw> {
    let header = BatchHeader::parse(&batch)?;
    if header.compression == Compression::None {
        return Ok(batch);
    }
    let flaw = Flaw::new(HEADER_LEN, "the records cannot be decompressed");
    let whole = batch.get(..header.length).ok_or(Flaw::new(batch.len(), "the batch is cut short"))?;
    let (head, packed) = whole.split_at_checked(HEADER_LEN).ok_or(flaw)?;
    let length = match header.compression {
        Compression::None => None,
        Compression::Lz4 => lz4_length(packed),
        Compression::Zstd => zstd_safe::get_frame_content_size(packed).ok().flatten(),
    };
    let length = length.and_then(|length| usize::try_from(length).ok()).filter(|length| *length <= MAX_BATCH_LEN - HEADER_LEN);
    let length = length.ok_or(Flaw::new(HEADER_LEN, "the length of the decompressed records is out of bounds"))?;
    let mut out = vec![0; HEADER_LEN + length];
    let (out_head, records) = out.split_at_mut_checked(HEADER_LEN).ok_or(flaw)?;
    out_head.copy_from_slice(head);
    let is_whole = match header.compression {
        Compression::None => false,
        Compression::Lz4 => lz4(packed, records),
        Compression::Zstd => bulk::decompress_to_buffer(packed, records).is_ok_and(|read| read == length),
    };
    is_whole.then(|| finish(&mut out, Compression::None)).flatten().ok_or(flaw)?;
    Ok(out.into())
}

/// The decompressed length that an LZ4 frame says; none unless it is a frame as [`compress`] writes it.
fn lz4_length(frame: &[u8]) -> Option<u64> {
    const MAGIC_AND_FLAGS: [u8; 5] = [0x04, 0x22, 0x4d, 0x18, 0b0110_1000];
    let (_, length) = frame.strip_prefix(&MAGIC_AND_FLAGS)?.split_first()?;
    length.first_chunk().copied().map(u64::from_le_bytes)
}

/// Fills `out` from an LZ4 frame; whether that is exactly what it holds.
fn lz4(frame: &[u8], out: &mut [u8]) -> bool {
    let mut decoder = FrameDecoder::new(frame);
    decoder.read_exact(out).is_ok() && matches!(decoder.read(&mut [0]), Ok(0)) && decoder.get_ref().is_empty()
}

/// Gives a batch whose records were replaced its length, codec and checksum.
pub(super) fn finish(batch: &mut [u8], compression: Compression) -> Option<()> {
    let length = i32::try_from(batch.len().checked_sub(UNCOUNTED)?).ok()?;
    batch.get_mut(UNCOUNTED - 4..UNCOUNTED)?.copy_from_slice(&length.to_be_bytes());
    let attributes = batch.get_mut(CODEC_AT)?;
    *attributes = *attributes & !CODEC_BITS | codec(compression);
    let checksum = crc32c::crc32c(batch.get(CHECKED_FROM..)?);
    batch.get_mut(CHECKED_FROM - 4..CHECKED_FROM)?.copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        batch::{BatchBuilder, Encoded, StoredRecords, find},
        ids::{Offset, StreamVersion, Timestamp},
        record::NewRecord,
    };

    const BOTH: [Compression; 2] = [Compression::Lz4, Compression::Zstd];

    fn batch(values: &[Vec<u8>]) -> Bytes {
        let mut encoded = Encoded::default();
        for value in values {
            let record = NewRecord { value: Some(value.clone().into()), ..NewRecord::default() };
            encoded.push_record(&record).expect("within limits");
        }
        let mut builder = BatchBuilder::new(Offset::new(7));
        builder.push(&encoded, StreamVersion::FIRST, Timestamp::new(5));
        builder.finish(3)
    }

    fn both(batch: &[u8]) -> impl Iterator<Item = Bytes> {
        BOTH.into_iter().map(|compression| compress(batch, compression).expect("it is worth it").into())
    }

    proptest! {
        #[test]
        fn decompressing_gives_the_batch_back_byte_for_byte(bytes in vec(any::<u8>(), 300..3000), times in 2..90_usize) {
            let whole = batch(&vec![bytes; times]);
            for compressed in both(&whole) {
                let header = BatchHeader::check(&compressed).expect("it is a batch");
                prop_assert_eq!(header.length, compressed.len());
                prop_assert!(compressed.len() < whole.len());
                prop_assert_eq!(decompress(compressed), Ok(whole.clone()));
            }
            prop_assert_eq!(decompress(whole.clone()), Ok(whole));
        }

        #[test]
        fn no_bytes_panic_the_decompressor(bytes in vec(any::<u8>(), 300..600), places in vec((any::<usize>(), any::<u8>()), 1..4), cut in any::<usize>()) {
            // The checksum is not looked at: somebody may have made it fit.
            let whole = batch(&vec![bytes; 3]);
            for compressed in both(&whole) {
                let mut damaged = compressed.to_vec();
                for (place, byte) in &places {
                    let records = damaged.len() - HEADER_LEN;
                    damaged[HEADER_LEN + place % records] = *byte;
                }
                if let Ok(found) = decompress(damaged.into()) {
                    prop_assert!(found.len() <= MAX_BATCH_LEN);
                }
                let mut part = compressed[..HEADER_LEN + cut % (compressed.len() - HEADER_LEN)].to_vec();
                prop_assert!(finish(&mut part, BatchHeader::parse(&compressed).expect("whole").compression).is_some());
                // Of LZ4 the mark of the end alone may be missing.
                prop_assert!(decompress(part.into()).map_or(true, |found| found == whole), "a part of it was taken for all of it");
            }
        }
    }

    #[test]
    fn what_is_short_or_would_not_shrink_stays_as_it_is() {
        let mut random = crate::testing::Random::new(1);
        let noise = (0..10_000).map(|_| u8::try_from(random.below(256)).expect("below 256")).collect();
        for stays in [batch(&[vec![b'a'; 200]]), batch(&[noise])] {
            assert_eq!(BOTH.map(|compression| compress(&stays, compression)), [None, None]);
        }
        assert_eq!(compress(&batch(&[vec![b'a'; 5000]]), Compression::None), None);
    }

    #[test]
    fn a_batch_that_claims_to_unpack_beyond_the_largest_is_refused_before_room_is_made() {
        let whole = batch(&[vec![b'a'; 5000]]);
        let [lz4, zstd] = BOTH.map(|compression| compress(&whole, compression).expect("it is worth it"));
        // Of zstd the frame's descriptor says how long the length is: two bytes, to which 256 are added, become eight.
        assert_eq!(zstd[HEADER_LEN + 4] >> 6, 1, "the length has two bytes");
        let claims = |length: u64| {
            let mut of_lz4 = lz4.clone();
            of_lz4[HEADER_LEN + 6..HEADER_LEN + 14].copy_from_slice(&length.to_le_bytes());
            let mut of_zstd = zstd.clone();
            of_zstd[HEADER_LEN + 4] |= 0xc0;
            of_zstd.splice(HEADER_LEN + 5..HEADER_LEN + 7, length.to_le_bytes());
            [of_lz4, of_zstd]
        };
        for length in [MAX_BATCH_LEN as u64, u64::from(u32::MAX), u64::MAX - 1] {
            for mut bomb in claims(length) {
                let compression = BatchHeader::parse(&bomb).expect("whole").compression;
                finish(&mut bomb, compression).expect("a whole header");
                let flaw = decompress(bomb.into()).expect_err("too large");
                assert!(flaw.what.contains("out of bounds"), "{flaw}");
            }
        }
    }

    #[test]
    fn frames_behind_each_other_and_bytes_behind_a_frame_are_refused() {
        let whole = batch(&[vec![b'a'; 5000]]);
        for compressed in both(&whole) {
            for more in [compressed[HEADER_LEN..].to_vec(), vec![0], vec![7; 40]] {
                let mut longer = compressed.to_vec();
                longer.extend_from_slice(&more);
                finish(&mut longer, BatchHeader::parse(&compressed).expect("whole").compression).expect("a whole header");
                assert!(decompress(longer.into()).is_err());
            }
        }
    }

    #[test]
    fn a_compressed_batch_is_not_read_as_if_it_were_none() {
        let whole = batch(&vec![vec![b'a'; 300]; 3]);
        for compressed in both(&whole) {
            assert!(StoredRecords::from(&compressed, HEADER_LEN).is_err());
            assert!(find(&compressed, 61, Offset::new(8)).is_err());
        }
    }

    #[test]
    fn kafkas_other_codecs_are_refused_by_name() {
        let whole = batch(&[vec![b'a'; 300]]);
        for codec in [1, 2, 5, 6, 7] {
            let mut other = whole.to_vec();
            other[CODEC_AT] |= codec;
            let flaw = BatchHeader::parse(&other).expect_err("not written here");
            assert!(flaw.what.contains("compressed"), "{flaw}");
        }
    }
}
