//! What the files beside a segment have in common: names, the header that says whose they are, and a bound on open files.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    batch::varint::Cursor,
    disk::{Disk, DiskFile},
    error::LogError,
    ids::{Offset, PartitionId, TopicId},
};

/// Version of all the formats in this folder.
pub(super) const FORMAT: u32 = 1;
/// Bytes of [`FileHeader`].
pub(super) const HEADER_LEN: usize = 40;

/// Kinds of files of a segment, by the end of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Batches.
    Log,
    /// Runs.
    Runs,
    /// Offset and time index of a sealed segment.
    Index,
    /// Key index of a sealed segment.
    Keys,
    /// Key index of the active segment, in pieces.
    KeyLog,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [Self::Log, Self::Runs, Self::Index, Self::Keys, Self::KeyLog];

    pub(super) const fn extension(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Runs => "runs",
            Self::Index => "index",
            Self::Keys => "keys",
            Self::KeyLog => "keylog",
        }
    }

    const fn magic(self) -> [u8; 4] {
        match self {
            // `.log` files have no header, so that Kafka's tools read them.
            Self::Log => *b"----",
            Self::Runs => *b"fRUN",
            Self::Index => *b"fIDX",
            Self::Keys => *b"fKEY",
            Self::KeyLog => *b"fKLG",
        }
    }

    /// The base offset, generation and kind that a name says; none for a name that is not ours.
    pub(super) fn parse(name: &str) -> Option<(Offset, u32, Self)> {
        let (base, rest) = name.split_once('.')?;
        let (generation, extension) = match rest.split_once('.') {
            Some((generation, extension)) => (digits(generation, 10).filter(|generation| *generation > 0)?, extension),
            None => (0, rest),
        };
        let kind = Self::ALL.into_iter().find(|kind| kind.extension() == extension)?;
        Some((Offset::new(digits(base, 20)?), u32::try_from(generation).ok()?, kind))
    }
}

/// A number of so many digits.
fn digits(text: &str, count: usize) -> Option<u64> {
    let is_number = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// Whose a segment is, and where its files lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentId {
    pub(super) folder: PathBuf,
    pub(super) topic: TopicId,
    pub(super) partition: PartitionId,
    pub(super) base: Offset,
    /// 0, but for those that compaction wrote: a higher one than any that they replace has.
    pub(super) generation: u32,
}

impl SegmentId {
    /// Whose a header says that it is, of a file at `path`; checked it must be before it is believed.
    pub(super) fn of_header(header: &[u8; HEADER_LEN], path: &Path) -> Option<Self> {
        let mut cursor = Cursor::new(header);
        cursor.take(8)?;
        Some(Self {
            folder: path.parent()?.to_owned(),
            topic: TopicId::new(cursor.array()?),
            partition: PartitionId::new(u32::from_be_bytes(cursor.array()?)),
            base: Offset::new(u64::from_be_bytes(cursor.array()?)),
            generation: path.file_name()?.to_str().and_then(Kind::parse).map_or(0, |(_, generation, _)| generation),
        })
    }

    pub(super) fn path(&self, kind: Kind) -> PathBuf {
        let (base, extension) = (self.base.get(), kind.extension());
        // Kafka's tools take the offset from what stands before the first dot.
        self.folder.join(match self.generation {
            0 => format!("{base:020}.{extension}"),
            generation => format!("{base:020}.{generation:010}.{extension}"),
        })
    }

    /// The header with which this segment's file of a kind begins.
    pub(super) fn header(&self, kind: Kind) -> [u8; HEADER_LEN] {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend_from_slice(&kind.magic());
        bytes.extend_from_slice(&FORMAT.to_be_bytes());
        bytes.extend_from_slice(self.topic.as_bytes());
        bytes.extend_from_slice(&self.partition.get().to_be_bytes());
        bytes.extend_from_slice(&self.base.get().to_be_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        let mut header = [0; HEADER_LEN];
        header.copy_from_slice(&bytes);
        header
    }

    /// Checks that `bytes` begin with this segment's header of a kind.
    ///
    /// # Errors
    /// [`LogError::Format`] for a header of another version, [`LogError::Corrupt`] for anything else.
    pub(super) fn check_header(&self, kind: Kind, bytes: &[u8]) -> Result<(), LogError> {
        let path = self.path(kind);
        let corrupt = |what: &str| corrupt(&path, 0, HEADER_LEN as u64, what);
        let Some(header) = bytes.get(..HEADER_LEN) else {
            return Err(corrupt("the file ends within its header"));
        };
        if header == self.header(kind) {
            return Ok(());
        }
        let mut cursor = Cursor::new(header);
        let (magic, format) = (cursor.array(), cursor.array().map(u32::from_be_bytes));
        let crc = header.split_last_chunk::<4>().map(|(rest, crc)| crc32c::crc32c(rest) == u32::from_be_bytes(*crc));
        match (magic, format, crc) {
            (Some(magic), Some(found), Some(true)) if magic == kind.magic() && found != FORMAT => {
                Err(LogError::Format { file: path, found, supported: FORMAT })
            }
            (_, _, Some(true)) => Err(corrupt("the file belongs to another segment, partition or topic")),
            _ => Err(corrupt("the header's checksum differs")),
        }
    }
}

pub(super) fn corrupt(file: &Path, from: u64, end: u64, what: impl Into<String>) -> LogError {
    LogError::Corrupt { file: file.to_owned(), from, end, what: what.into() }
}

/// Names what was being done when a call failed.
pub(super) fn failed<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> LogError + 'a {
    move |source| LogError::Io { doing, path: path.to_owned(), source }
}

/// Reads a whole file.
pub(super) fn read_all(file: &dyn DiskFile, path: &Path) -> Result<Vec<u8>, LogError> {
    let length = file.len().map_err(failed("measure", path))?;
    read_range(file, path, 0, length)
}

/// Reads as much of `from..from + length` as there is.
pub(super) fn read_range(file: &dyn DiskFile, path: &Path, from: u64, length: u64) -> Result<Vec<u8>, LogError> {
    let length =
        usize::try_from(length).map_err(|_| corrupt(path, from, from + length, "the file is larger than this machine can address"))?;
    let mut bytes = vec![0; length];
    let read = file.read_at(from, &mut bytes).map_err(failed("read", path))?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Creates a file, or empties the one that a failed attempt left.
pub(crate) fn fresh(disk: &dyn Disk, path: &Path) -> Result<Arc<dyn DiskFile>, LogError> {
    match disk.create(path) {
        Ok(file) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let file = disk.open(path).map_err(failed("open", path))?;
            file.set_len(0).map_err(failed("empty", path))?;
            Ok(file)
        }
        Err(error) => Err(failed("create", path)(error)),
    }
}

/// Whether a name in a partition's folder is one that a segment's file has.
pub(crate) fn is_file_of_segment(name: &str) -> bool {
    Kind::parse(name).is_some()
}

/// Removes a file that may be gone already.
pub(crate) fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<(), LogError> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Open files of all segments of a data folder, the least recently used closed first.
///
/// A file may be over the bound for as long as somebody reads it. Cheap to share.
#[derive(Debug)]
pub struct OpenFiles {
    disk: Arc<dyn Disk>,
    most: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    files: BTreeMap<PathBuf, (u64, Arc<dyn DiskFile>)>,
    by_use: BTreeMap<u64, PathBuf>,
    uses: u64,
}

impl OpenFiles {
    /// Keeps at most `most` files open.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, most: usize) -> Arc<Self> {
        Arc::new(Self { disk, most: most.max(1), open: Mutex::default() })
    }

    /// The disk they lie on.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Number of files open now.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.open.lock().files.len()
    }

    /// Opens an existing file, or takes the one that is open.
    pub(crate) fn get(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.open.lock().touch(path) {
            return Ok(file);
        }
        // Opened without the lock, so that a slow disk holds up one reader only.
        let file = self.disk.open(path)?;
        self.open.lock().insert(path, &file, self.most);
        Ok(file)
    }

    /// Forgets a file that is about to be removed.
    pub(crate) fn forget(&self, path: &Path) {
        self.open.lock().remove(path);
    }
}

impl Open {
    fn touch(&mut self, path: &Path) -> Option<Arc<dyn DiskFile>> {
        let (used, file) = self.files.get_mut(path)?;
        let path = self.by_use.remove(used)?;
        self.uses += 1;
        *used = self.uses;
        self.by_use.insert(self.uses, path);
        Some(file.clone())
    }

    fn insert(&mut self, path: &Path, file: &Arc<dyn DiskFile>, most: usize) {
        self.remove(path);
        while self.files.len() >= most {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.files.remove(&oldest);
        }
        self.uses += 1;
        self.by_use.insert(self.uses, path.to_owned());
        self.files.insert(path.to_owned(), (self.uses, file.clone()));
    }

    fn remove(&mut self, path: &Path) {
        if let Some((used, _)) = self.files.remove(path) {
            self.by_use.remove(&used);
        }
    }
}
