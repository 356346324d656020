//! The files at the root of the folder, and manifests: small ones that are looked at as one piece.
#![deny(clippy::indexing_slicing)]

use std::path::Path;

use super::{Part, Teller, Told, part::Fact};
use crate::{
    checkpoint::{self, Checkpoint},
    codec::Fields,
    error::LogError,
    ids::{FolderId, Offset, Position},
    manifest, start, topic_store, window, window_file,
};

/// Who has the folder open, or had it last.
pub(super) fn lock(teller: &mut Teller<'_>) -> Told {
    let bytes = teller.whole()?;
    teller.tell(Part::new("lock", 0, teller.length).with("owner", String::from_utf8_lossy(&bytes).trim()))
}

/// `foldlog.json` and the manifests of topics.
pub(super) fn manifest(teller: &mut Teller<'_>) -> Told {
    let bytes = teller.whole()?;
    let part = Part::new("manifest", 0, teller.length);
    let supported = if teller.path.file_stem() == Path::new(start::IDENTITY).file_stem() { start::FORMAT } else { topic_store::FORMAT };
    let content = manifest::checked(&bytes).and_then(|content| Some((content, manifest::format_of(content)?)));
    teller.tell(match content {
        Some((_, found)) if !(1..=supported).contains(&found) => {
            return Err(LogError::Format { file: teller.path.to_owned(), found, supported }.into());
        }
        Some((content, _)) => part.with("content", Fact::Json(content.to_owned())),
        None => part.damaged("it is not what its checksum promised"),
    })
}

/// A slot of the checkpoint.
pub(super) fn checkpoint(teller: &mut Teller<'_>) -> Told {
    let bytes = teller.whole()?;
    if bytes.is_empty() {
        return teller.tell(Part::new("checkpoint", 0, 0).with("note", "this slot was never written; the other one counts"));
    }
    let checkpoint = match checkpoint::decode(&bytes) {
        None => {
            let what = "this slot is not what its checksum promised; a start takes the other one, unless it is not whole either";
            return teller.tell(Part::new("checkpoint", 0, teller.length).damaged(what));
        }
        Some((Err(found), _)) => {
            return Err(LogError::Format { file: teller.path.to_owned(), found, supported: checkpoint::FORMAT }.into());
        }
        Some((Ok(checkpoint), length)) => (checkpoint, length as u64),
    };
    let (Checkpoint { partitions, files, window, .. }, end) = (&checkpoint.0, checkpoint.1);
    teller.tell(slot(&checkpoint.0, end))?;
    teller.tell(
        Part::new("window", 0, end).with("file", window.file).with("length", window.length).with("checksum", hex(window.crc)).inner(),
    )?;
    for (number, length) in files {
        teller.tell(Part::new("journal", 0, end).with("file", *number).with("length", *length).inner())?;
    }
    for of in partitions {
        let part = Part::new("partition", 0, end).with("topic", of.topic.to_string()).with("partition", of.partition.get());
        let part = part.with("offset", of.mark.first).with("active", of.mark.active).with("offset_end", of.mark.end);
        let part = part.with("log_length", of.mark.log_len).with("runs_length", of.mark.runs_len);
        let removed = (of.removed > Position::default()).then_some(of.removed);
        let cleaned_to = (of.cleaned.to > Offset::default()).then_some(of.cleaned.to);
        let part = part.with("runs_checksum", hex(of.mark.chain)).with_some("removed_below", removed);
        teller.tell(part.with_some("cleaned_to", cleaned_to).inner())?;
        for rewrite in &of.rewritten {
            let part = Part::new("segment", 0, end).with("offset", rewrite.base).with("offset_end", rewrite.end);
            teller.tell(part.with("generation", rewrite.generation).inner())?;
        }
    }
    teller.tell_behind(end, "what a longer checkpoint left")
}

fn slot(checkpoint: &Checkpoint, end: u64) -> Part {
    Part::new("checkpoint", 0, end)
        .with("sequence", checkpoint.sequence)
        .with("folder", checkpoint.folder.to_string())
        .with("epoch", checkpoint.epoch)
        .with("start", checkpoint.start)
        .with("recovered", checkpoint.recovered)
        .with("salt", format!("{:032x}", checkpoint.salt))
        .with("frame", checkpoint.frame)
        .with("frame_checksum", hex(checkpoint.frame_crc))
        .with("journal_file", checkpoint.file)
        .with("journal_end", checkpoint.file_end)
        .with("position", checkpoint.next)
        .with("time", checkpoint.time)
}

const BEHIND: &str = "behind what the checkpoint says: no part of the file";

/// The window of requests. Its checksum stands in the checkpoint beside it.
pub(super) fn window(teller: &mut Teller<'_>) -> Told {
    let number = teller.path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
    let beside = teller.path.parent().and_then(|data| checkpoint::newest(&*teller.disk, data)).map(|checkpoint| checkpoint.window);
    let mark = beside.filter(|mark| Some(mark.file) == number);
    let bytes = teller.whole()?;
    let end = mark.map_or(teller.length, |mark| mark.length);
    let counted = usize::try_from(end).ok().and_then(|end| bytes.get(..end)).unwrap_or(&bytes);
    let header_len = window_file::HEADER_LEN.min(counted.len());
    let (head, entries) = counted.split_at(header_len);
    let header = Part::new("window", 0, header_len as u64);
    let header = match (mark, beside) {
        (Some(mark), _) => header.checked(
            crc32c::crc32c(counted) == mark.crc,
            "the file is not what the checkpoint's checksum promised; whether a request is a repeat cannot be told",
        ),
        (None, Some(_)) => header.with("note", "the checkpoint names another file; the next start removes this one"),
        (None, None) => header.with("note", "no checkpoint lies beside it, which alone has its checksum"),
    };
    let is_damaged = header.damage.is_some();
    teller.tell(read_header(header, head, teller)?)?;
    if is_damaged {
        teller.tell(Part::new("entries", header_len as u64, counted.len() as u64).damaged("they share the file's checksum"))?;
        teller.tell_missing(end, "the checkpoint")?;
        return teller.tell_behind(end, BEHIND);
    }
    let (mut rest, counted) = (entries, counted.len() as u64);
    while !rest.is_empty() {
        let Some((part, behind)) = window::tell_entry(rest, counted) else {
            teller.tell(Part::new("entries", counted - rest.len() as u64, counted).damaged("an entry cannot be read"))?;
            break;
        };
        teller.tell(part)?;
        rest = behind;
    }
    teller.tell_behind(end, BEHIND)
}

fn read_header(part: Part, head: &[u8], teller: &Teller<'_>) -> Result<Part, LogError> {
    let mut from = Fields(head);
    let fields = (from.take(4), from.u32(), from.bytes16(), from.u64());
    let (Some(magic), Some(format), Some(folder), Some(low)) = fields else { return Ok(part.damaged("the file ends within its header")) };
    if magic != window_file::MAGIC {
        return Ok(part.damaged("it does not begin as a window of requests does"));
    }
    if !(window_file::FORMAT_OF_REQUESTS..=window_file::FORMAT).contains(&format) && part.damage.is_none() {
        return Err(LogError::Format { file: teller.path.to_owned(), found: format, supported: window_file::FORMAT });
    }
    Ok(part.with("folder", FolderId::new(folder).to_string()).with("begins_at", Position::new(low)))
}

pub(crate) fn hex(checksum: u32) -> String {
    format!("{checksum:08x}")
}
