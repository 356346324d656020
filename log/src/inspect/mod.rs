//! What lies in a file of a data folder, part by part, with every checksum verified: `foldlog log inspect`.
//!
//! Called by the command line, on any bytes, while a server runs or not. What the parts of a format are stands beside the format.
//! Invariants: nothing is written; outer parts follow each other from the first byte to the last; whatever the bytes are, it
//! ends and never panics. Format: `log/FORMAT.md`.
#![deny(clippy::indexing_slicing)]

mod part;
mod root;

use std::{io, ops::ControlFlow, path::Path, sync::Arc};

use bytes::Bytes;

use crate::{
    disk::{Disk, DiskFile},
    error::LogError,
    journal, postings, segment,
};

pub use part::{Fact, Part};

/// Most that is read of a file that is looked at as one piece.
const MAX_WHOLE: u64 = 1 << 30;

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// At batches, frames, blocks and pages.
    Parts,
    /// At each record, run and entry in them, too.
    Records,
}

/// Tells each part of a file to `each`, until it breaks. A part that is not what its checksum promises says so, and what follows
/// is told as far as it can be found. What else the folder says of the file is held against it: the checkpoint, and `.runs`
/// for a `.log`.
///
/// # Errors
/// [`LogError::Io`]; [`LogError::Format`] for a file of a newer version; [`LogError::Invalid`] for one that is none of ours.
pub fn inspect(disk: Arc<dyn Disk>, path: &Path, depth: Depth, each: &mut dyn FnMut(Part) -> ControlFlow<()>) -> Result<(), LogError> {
    let file = disk.open(path).map_err(|source| LogError::io("open", path, source))?;
    let length = file.len().map_err(|source| LogError::io("measure", path, source))?;
    let mut teller = Teller { disk, path, file, length, depth, each };
    let tell = format_of(&teller)?;
    match tell(&mut teller) {
        Ok(()) | Err(Stop::Enough) => Ok(()),
        Err(Stop::Failed(error)) => Err(error),
    }
}

type Tell = fn(&mut Teller<'_>) -> Told;

/// What tells a file's parts: known by its name, or else by its first bytes.
fn format_of(teller: &Teller<'_>) -> Result<Tell, LogError> {
    let name = teller.path.file_name().map_or_else(Default::default, |name| name.to_string_lossy());
    let extension = teller.path.extension().map_or_else(Default::default, |extension| extension.to_string_lossy());
    match (&*name, &*extension) {
        ("lock", _) => return Ok(root::lock),
        ("checkpoint.a" | "checkpoint.b", _) => return Ok(root::checkpoint),
        (_, "json" | "new") => return Ok(root::manifest),
        (_, "window") => return Ok(root::window),
        (_, "journal") => return Ok(journal::inspect::file),
        (_, "log") => return Ok(segment::inspect::log),
        (_, "runs") => return Ok(segment::inspect::runs),
        (_, "index") => return Ok(segment::inspect::index),
        (_, "keys") => return Ok(segment::inspect::keys),
        (_, "keylog") => return Ok(segment::inspect::key_log),
        (_, "postings" | "partial") => return Ok(postings::inspect::file),
        _ => {}
    }
    match &*teller.read(0, 4)? {
        b"FLCK" => Ok(root::checkpoint),
        b"FLWN" => Ok(root::window),
        b"FLJ\x01" => Ok(journal::inspect::file),
        b"fRUN" => Ok(segment::inspect::runs),
        b"fIDX" => Ok(segment::inspect::index),
        b"fKEY" => Ok(segment::inspect::keys),
        b"fKLG" => Ok(segment::inspect::key_log),
        b"fPST" => Ok(postings::inspect::file),
        _ => Err(LogError::Invalid {
            field: teller.path.display().to_string(),
            reason: "neither its name nor its first bytes are those of a file that foldlog writes".into(),
        }),
    }
}

/// Why telling ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Whoever listens has enough.
    Enough,
    /// It cannot go on.
    Failed(LogError),
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Self {
        Self::Failed(error)
    }
}

pub(crate) type Told = Result<(), Stop>;

/// A file under inspection, and who listens.
pub(crate) struct Teller<'a> {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) path: &'a Path,
    pub(crate) length: u64,
    file: Arc<dyn DiskFile>,
    depth: Depth,
    each: &'a mut dyn FnMut(Part) -> ControlFlow<()>,
}

impl Teller<'_> {
    /// Whether records and entries are to be told, too.
    pub(crate) fn is_deep(&self) -> bool {
        self.depth == Depth::Records
    }

    /// As much of `length` bytes from `from` on as the file had when it was opened.
    pub(crate) fn read(&self, from: u64, length: u64) -> Result<Bytes, LogError> {
        let length = length.min(self.length.saturating_sub(from));
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let read = self.file.read_at(from, &mut bytes).map_err(|source| LogError::io("read", self.path, source))?;
        bytes.truncate(read);
        Ok(bytes.into())
    }

    /// The whole file.
    pub(crate) fn whole(&self) -> Result<Bytes, LogError> {
        if self.length > MAX_WHOLE {
            let source = io::Error::new(io::ErrorKind::FileTooLarge, "no file of this kind is longer than 1 GiB");
            return Err(LogError::io("read", self.path, source));
        }
        self.read(0, self.length)
    }

    pub(crate) fn tell(&mut self, part: Part) -> Told {
        match (self.each)(part) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Stop::Enough),
        }
    }

    /// Tells that the file ends before `end`, if it does.
    pub(crate) fn tell_missing(&mut self, end: u64, who: &str) -> Told {
        if self.length >= end {
            return Ok(());
        }
        let what = format!("the file ends here, and {who} says that it has {end} bytes");
        self.tell(Part::new("missing", self.length, end).damaged(what))
    }

    /// Tells what lies behind the end of what counts, if there is anything.
    pub(crate) fn tell_behind(&mut self, end: u64, what: &str) -> Told {
        if self.length <= end {
            return Ok(());
        }
        self.tell(Part::new("behind", end, self.length).with("note", what))
    }
}
