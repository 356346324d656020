//! What a start makes of the journal: which frames are part of the log, and whether what follows is torn or rotten.
//!
//! [`crate::start`] calls [`scan`] once, then, unless the folder is read-only, [`settle`]. Invariants: frames are accepted in
//! order while number, chain, salt and checksums fit; nothing that may have been shown is dropped without a report; nothing
//! is shown that is not durable.

use bytes::Bytes;

use super::{
    file::{FramePlace, JournalFile, JournalFiles, read_bytes},
    frame::{self, FrameBody, FrameFlaw, FrameHeader, HEADER_LEN, padded},
};
use crate::{checkpoint::Checkpoint, config::BLOCK, error::LogError};

/// A frame that is part of the log.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) header: FrameHeader,
    pub(crate) place: FramePlace,
    pub(crate) bytes: Bytes,
}

impl Accepted {
    /// The report that the frame is not what its checksums promise.
    pub(crate) fn damage(&self, what: &str) -> LogError {
        LogError::Corrupt {
            file: format!("journal file {}", self.place.file).into(),
            from: self.place.at,
            end: self.place.end(),
            what: format!("frame {}: {what}", self.header.number),
        }
    }
}

/// What a scan found out.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Where the log ends; of length 0 when no frame follows the checkpoint.
    pub(crate) end: FramePlace,
    /// Number and checksum of the last frame.
    pub(crate) last: u64,
    pub(crate) last_crc: u32,
    /// Frames up to here are durable for certain.
    pub(crate) durable: u64,
    /// Newest frame of the log in each file.
    pub(crate) newest: Vec<(u32, u64)>,
    /// Damage behind the last frame, in what was durable.
    pub(crate) rot: Option<LogError>,
    /// Blocks with headers of frames that are not part of the log: they must not come back.
    stale: Vec<(u32, u64)>,
}

/// Reads the journal from the checkpoint on; gives each frame of the log to `take`, in order.
///
/// # Errors
/// What `take` returns, [`LogError::Io`], and [`LogError::Format`] for a frame of a newer version.
pub(crate) fn scan(
    journal: &JournalFiles,
    checkpoint: &Checkpoint,
    mut take: impl FnMut(Accepted, FrameBody) -> Result<(), LogError>,
) -> Result<Scan, LogError> {
    let files = journal.files();
    let mut end = FramePlace { file: checkpoint.file, at: checkpoint.file_end, length: 0 };
    let mut chain = Chain { number: checkpoint.frame, crc: checkpoint.frame_crc, position: checkpoint.next.get(), checkpoint };
    let mut durable = checkpoint.recovered.max(checkpoint.frame);
    let mut newest = vec![(checkpoint.file, checkpoint.frame)];
    let mut places = Vec::new();
    while let Some((accepted, body)) = chain.next(&files, end)? {
        if accepted.header.salt == checkpoint.salt {
            durable = durable.max(accepted.header.durable);
        }
        end = accepted.place;
        places.push(end);
        newest.push((end.file, accepted.header.number));
        chain.number = accepted.header.number;
        chain.crc = accepted.header.crc;
        chain.position = accepted.header.end().get();
        take(accepted, body)?;
    }
    let beyond = look_beyond(&files, &mut places, chain.number, checkpoint)?;
    durable = durable.max(beyond.durable);
    let rot = (durable > chain.number).then(|| report(&files, end, chain.number, durable, &beyond));
    Ok(Scan { end, last: chain.number, last_crc: chain.crc, durable, newest, rot, stale: beyond.blocks })
}

struct Chain<'a> {
    number: u64,
    crc: u32,
    position: u64,
    checkpoint: &'a Checkpoint,
}

impl Chain<'_> {
    /// The frame that continues the log: behind the last one, or at the beginning of another file.
    fn next(&self, files: &[JournalFile], end: FramePlace) -> Result<Option<(Accepted, FrameBody)>, LogError> {
        let here = files.iter().filter(|file| file.number == end.file).map(|file| (file, end.end()));
        let elsewhere = files.iter().filter(|file| file.number != end.file || end.end() != 0).map(|file| (file, 0));
        for (file, at) in here.chain(elsewhere) {
            if let Some(accepted) = self.read(file, at)? {
                return Ok(Some(accepted));
            }
        }
        Ok(None)
    }

    fn read(&self, file: &JournalFile, at: u64) -> Result<Option<(Accepted, FrameBody)>, LogError> {
        if at + HEADER_LEN as u64 > file.length {
            return Ok(None);
        }
        let head = read_bytes(file, at, HEADER_LEN as u64)?;
        let header = match FrameHeader::decode(&head) {
            Ok(header) => header,
            Err(FrameFlaw::Format { found, salt }) if salt == self.checkpoint.salt => {
                return Err(LogError::Format { file: file.path.clone(), found: found.into(), supported: frame::FORMAT.into() });
            }
            Err(_) => return Ok(None),
        };
        let length = header.padded_len();
        if !self.fits(&header) || at + length > file.length {
            return Ok(None);
        }
        let bytes = read_bytes(file, at, length)?;
        let Ok(body) = frame::decode_body(&header, &bytes) else { return Ok(None) };
        Ok(Some((Accepted { header, place: FramePlace { file: file.number, at, length }, bytes }, body)))
    }

    fn fits(&self, header: &FrameHeader) -> bool {
        let number = header.number == self.number + 1;
        let salt = header.number <= self.checkpoint.recovered || header.salt == self.checkpoint.salt;
        number && salt && header.chain == self.crc && header.first.get() == self.position
    }
}

/// Headers of frames behind the end of the log.
struct Beyond {
    /// Highest durable mark among those of the current salt.
    durable: u64,
    /// File and place of each.
    blocks: Vec<(u32, u64)>,
}

/// Looks for frames with higher numbers than the last: they tell rot from a torn tail, and must be wiped out in the second case.
/// `accepted` frames are passed over: a payload may look like a frame, and is none.
fn look_beyond(files: &[JournalFile], accepted: &mut [FramePlace], last: u64, checkpoint: &Checkpoint) -> Result<Beyond, LogError> {
    accepted.sort_unstable_by_key(|place| (place.file, place.at));
    let mut beyond = Beyond { durable: 0, blocks: Vec::new() };
    for file in files {
        let mut from = 0;
        for place in accepted.iter().filter(|place| place.file == file.number) {
            beyond.look(file, from, place.at, last, checkpoint)?;
            from = place.end();
        }
        beyond.look(file, from, file.length, last, checkpoint)?;
    }
    Ok(beyond)
}

impl Beyond {
    /// Looks at the blocks from byte place `from` to `end` (exclusive).
    fn look(&mut self, file: &JournalFile, from: u64, end: u64, last: u64, checkpoint: &Checkpoint) -> Result<(), LogError> {
        const STEP: u64 = 1 << 20;
        let mut at = from;
        while at < end {
            let bytes = read_bytes(file, at, STEP.min(end - at))?;
            for (place, block) in (0_u64..).zip(bytes.chunks(BLOCK as usize)) {
                let Ok(header) = FrameHeader::decode(block) else { continue };
                if header.number > last {
                    self.blocks.push((file.number, at + place * BLOCK));
                    if header.salt == checkpoint.salt {
                        self.durable = self.durable.max(header.durable);
                    }
                }
            }
            at += STEP;
        }
        Ok(())
    }
}

fn report(files: &[JournalFile], end: FramePlace, last: u64, durable: u64, beyond: &Beyond) -> LogError {
    let after = beyond.blocks.iter().filter(|(file, at)| *file == end.file && *at > end.end()).map(|(_, at)| *at).min();
    let file = files.iter().find(|file| file.number == end.file);
    let length = file.map_or(0, |file| file.length);
    LogError::Corrupt {
        file: file.map_or_else(|| format!("journal file {}", end.file).into(), |file| file.path.clone()),
        from: end.end(),
        end: after.unwrap_or(length).max(end.end()),
        what: format!("frames {} to {durable} were durable, and frame {} is not what was written", last + 1, last + 1),
    }
}

/// Makes sure of what will be shown: rewrites frames that may lie in the page cache only, wipes out what is not part of the log,
/// and syncs both. `recent` holds the frames above [`Scan::durable`].
pub(crate) fn settle(journal: &JournalFiles, scan: &Scan, recent: &[Accepted]) -> Result<(), LogError> {
    let files = journal.files();
    let zeros = vec![0_u8; 64 << 10];
    for file in &files {
        let mut touched = false;
        let mut write = |at: u64, bytes: &[u8]| {
            touched = true;
            file.handle.write_at(at, bytes).map_err(|source| LogError::io("write the journal", &file.path, source))
        };
        for accepted in recent.iter().filter(|accepted| accepted.place.file == file.number) {
            write(accepted.place.at, &accepted.bytes)?;
        }
        for (_, at) in scan.stale.iter().filter(|(number, _)| *number == file.number) {
            write(*at, &zeros[..BLOCK as usize])?;
        }
        if file.number == scan.end.file {
            for at in unclean(file, padded(scan.end.end()))? {
                write(at, &zeros[..zeros.len().min(usize::try_from(file.length - at).unwrap_or(0))])?;
            }
        }
        if touched {
            file.handle.sync().map_err(|source| LogError::io("sync the journal", &file.path, source))?;
        }
    }
    journal.resume(scan.end, &scan.newest);
    Ok(())
}

/// Places, a step apart, behind `from` where a file is not zero.
fn unclean(file: &JournalFile, from: u64) -> Result<Vec<u64>, LogError> {
    const STEP: u64 = 64 << 10;
    let mut places = Vec::new();
    let mut at = from;
    while at < file.length {
        let bytes = read_bytes(file, at, STEP.min(file.length - at))?;
        if bytes.iter().any(|byte| *byte != 0) {
            places.push(at);
        }
        at += STEP;
    }
    Ok(places)
}
