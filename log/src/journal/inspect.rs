//! A journal file as parts: frames, and what is left of older ones.
//!
//! Which frames count, and whether bytes that are none are torn or rotten, is for the whole journal to say: a file in its folder is
//! judged as a start would. Alone, a frame is held against its own checksums.
#![deny(clippy::indexing_slicing)]

use std::sync::Arc;

use super::{
    file::JournalFiles,
    frame::{self, FrameBody, FrameFlaw, FrameHeader, FrameKind, HEADER_LEN, Replacement},
    recovery::{self, Scan},
};
use crate::{
    batch,
    checkpoint::{self, Checkpoint},
    clock::SystemClock,
    config::{BLOCK, LogConfig},
    error::LogError,
    inspect::{Part, Stop, Teller, Told},
    reserve::Reserve,
    window,
};

/// What is said of frames that a start reads.
const LIVE: &str = "in the journal alone";
/// As often the journal is looked at again because tidy freed files meanwhile.
const TRIES: usize = 3;

/// What a start would make of the journal.
struct Verdict {
    checkpoint: Checkpoint,
    scan: Scan,
}

/// Judges the journal that the file belongs to; none if it lies in no data folder, or that cannot be read.
///
/// # Errors
/// [`LogError::Format`] if a frame of a newer version is why.
fn judge(teller: &Teller<'_>) -> Result<Option<Verdict>, LogError> {
    let Some(data) = teller.path.ancestors().nth(2) else { return Ok(None) };
    for _ in 0..TRIES {
        let Some(checkpoint) = checkpoint::newest(&*teller.disk, data) else { break };
        // Nothing is written, so that nothing is kept.
        let config = LogConfig::default().without_reserve();
        let reserve = Reserve::new(Arc::clone(&teller.disk), Arc::new(SystemClock::new()), data, &config);
        let files = JournalFiles::open(Arc::clone(&teller.disk), data, &config, Arc::new(reserve), &checkpoint.files);
        let Ok((files, _)) = files else { break };
        let scan = match recovery::scan(&files, &checkpoint, |_, _| Ok(())) {
            Ok(scan) => scan,
            Err(error @ LogError::Format { .. }) => return Err(error),
            Err(_) => break,
        };
        if checkpoint::newest(&*teller.disk, data).is_some_and(|now| now.sequence == checkpoint.sequence) {
            return Ok(Some(Verdict { checkpoint, scan }));
        }
    }
    Ok(None)
}

/// Tells a journal file.
pub(crate) fn file(teller: &mut Teller<'_>) -> Told {
    let verdict = judge(teller)?;
    let (mut at, mut unused) = (0, Unused { from: 0, is_zero: true });
    while at < teller.length {
        let block = teller.read(at, BLOCK)?;
        let rot = rot_at(verdict.as_ref(), teller, at);
        match FrameHeader::decode(&block) {
            Ok(header) => {
                unused.tell(teller, at)?;
                unused = tell_frame(teller, at, &header, verdict.as_ref(), rot)?;
                at += header.padded_len();
            }
            Err(FrameFlaw::Format { found, salt }) if verdict.as_ref().is_none_or(|verdict| verdict.checkpoint.salt == salt) => {
                let (found, supported) = (found.into(), frame::FORMAT.into());
                return Err(LogError::Format { file: teller.path.to_owned(), found, supported }.into());
            }
            Err(_) => match rot {
                Some((end, what)) => {
                    unused.tell(teller, at)?;
                    let end = end.max(at + BLOCK).min(teller.length);
                    teller.tell(Part::new("frame", at, end).damaged(what))?;
                    at = end;
                    unused = Unused { from: at, is_zero: true };
                }
                None => {
                    unused.look_at(&block);
                    at += BLOCK;
                }
            },
        }
    }
    unused.tell(teller, teller.length)?;
    if let Some((_, what)) = rot_at(verdict.as_ref(), teller, teller.length) {
        teller.tell(Part::new("frame", teller.length, teller.length).damaged(what))?;
    }
    let settled = verdict.iter().flat_map(|verdict| &verdict.checkpoint.files).find(|(of, _)| Some(*of) == number(teller));
    settled.map_or(Ok(()), |(_, length)| teller.tell_missing(*length, "the checkpoint"))
}

fn number(teller: &Teller<'_>) -> Option<u32> {
    teller.path.file_stem()?.to_str()?.parse().ok()
}

/// Where the damage that a start would report ends, and the report, if it begins at `at`.
fn rot_at(verdict: Option<&Verdict>, teller: &Teller<'_>, at: u64) -> Option<(u64, String)> {
    match verdict?.scan.rot.as_ref()? {
        LogError::Corrupt { file, from, end, what } if file == teller.path && *from == at => Some((*end, what.clone())),
        _ => None,
    }
}

/// Bytes in which no frame lies.
struct Unused {
    from: u64,
    is_zero: bool,
}

impl Unused {
    fn look_at(&mut self, bytes: &[u8]) {
        self.is_zero &= bytes.iter().all(|byte| *byte == 0);
    }

    fn tell(&self, teller: &mut Teller<'_>, end: u64) -> Told {
        if self.from >= end {
            return Ok(());
        }
        let holds = if self.is_zero { "zeros" } else { "what is left of older frames, or of one that was never whole" };
        teller.tell(Part::new("unused", self.from, end).with("holds", holds))
    }
}

/// Tells a frame whose header is whole; returns what follows it in its last block.
fn tell_frame(
    teller: &mut Teller<'_>,
    at: u64,
    header: &FrameHeader,
    verdict: Option<&Verdict>,
    rot: Option<(u64, String)>,
) -> Result<Unused, Stop> {
    let bytes = teller.read(at, header.padded_len())?;
    let end = at + HEADER_LEN as u64 + u64::from(header.body_len);
    let body = frame::decode_body(header, &bytes);
    let kind = match header.kind {
        FrameKind::Group => "group",
        FrameKind::Open => "open",
        FrameKind::Seal => "seal",
    };
    let state = verdict.map(|verdict| match header.number {
        number if number <= verdict.checkpoint.frame => "in segments",
        number if number <= verdict.scan.last => LIVE,
        _ => "no part of the log",
    });
    let is_whole = body.is_ok();
    // Tidy has done with it and may be writing over it, or a crash cut it short.
    let is_left = state.is_some_and(|state| state != LIVE);
    let part = Part::new("frame", at, end.min(teller.length))
        .with("number", header.number)
        .with("kind", kind)
        .with_some("state", state)
        .with("start", header.start)
        .with("durable", header.durable)
        .with("position", header.first)
        .with("records", header.count)
        .with("time", header.time)
        .with_some("partitions", body.as_ref().ok().map(|body| body.slices.len()))
        .with_some("note", (is_left && !is_whole).then_some("its body is no longer whole, or never was; nobody needs it"))
        .checked(is_left || is_whole, "the frame's body is not what its checksum promised");
    teller.tell(rot.into_iter().fold(part, |part, (_, what)| part.damaged(what)))?;
    let mut unused = Unused { from: end, is_zero: true };
    unused.look_at(usize::try_from(end - at).ok().and_then(|used| bytes.get(used..)).unwrap_or_default());
    if let Ok(body) = body {
        tell_body(teller, header, &body, end)?;
    }
    Ok(unused)
}

fn tell_body(teller: &mut Teller<'_>, header: &FrameHeader, body: &FrameBody, end: u64) -> Told {
    let batches: u64 = body.slices.iter().map(|slice| slice.batch.len() as u64).sum();
    let mut at = end - batches;
    let entries_end = at - frame::switches_len(header.format, &body.switches) as u64;
    let mut rest = &body.entries[..];
    while let Some((part, behind)) = window::tell_entry(rest, entries_end).filter(|_| teller.is_deep()) {
        teller.tell(part.inner())?;
        rest = behind;
    }
    let lengths: usize = body.switches.iter().map(frame::FrameSwitch::encoded_len).sum();
    // What compaction wrote comes behind what was removed, and the number of it between them.
    let rewritten = body.switches.iter().any(|switch| matches!(switch.by, Replacement::Rewritten(..)));
    let mut switch_at = at - lengths as u64 - if rewritten { 4 } else { 0 };
    let mut is_behind_number = false;
    for switch in &body.switches {
        if matches!(switch.by, Replacement::Rewritten(..)) && !is_behind_number {
            (switch_at, is_behind_number) = (switch_at + 4, true);
        }
        let end = switch_at + switch.encoded_len() as u64;
        let part = Part::new("switch", switch_at, end).with("topic", switch.topic.to_string()).with("partition", switch.partition.get());
        let part = match switch.by {
            Replacement::Nothing(low) => part.with("offset", low.offset).with("removed_below", low.position),
            Replacement::Rewritten(rewrite, cleaned) => part
                .with("offset", rewrite.base)
                .with("offset_end", rewrite.end)
                .with("generation", rewrite.generation)
                .with("cleaned_to", cleaned.to)
                .with("horizon", cleaned.horizon),
        };
        teller.tell(part.inner())?;
        switch_at = end;
    }
    for slice in &body.slices {
        let (mut part, records) = batch::inspect::tell(&slice.batch, at);
        let place = [("topic", slice.topic.to_string().into()), ("partition", slice.partition.get().into())];
        part.facts.splice(..0, place);
        teller.tell(part.inner())?;
        if teller.is_deep() {
            records.into_iter().try_for_each(|record| teller.tell(record))?;
        }
        at += slice.batch.len() as u64;
    }
    Ok(())
}
