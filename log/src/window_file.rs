//! The file of the window of request ids: entries in the order in which they became durable, added to at each checkpoint.
//!
//! Tidy writes it, a start reads it. It is authoritative: damage to it is reported, not repaired. What lies behind the length
//! that the checkpoint names is not part of it. Format: `log/FORMAT.md`, "Window of request ids".

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    checkpoint::WindowMark,
    codec::{Fields, Put},
    disk::{Disk, DiskFile},
    error::LogError,
    ids::{FolderId, Position},
    window::Window,
};

const MAGIC: [u8; 4] = *b"FLWN";
const FORMAT: u32 = 1;
const HEADER_LEN: usize = 32;
/// A file this long is not begun anew, however few of its entries count.
const SMALL: u64 = 1 << 20;

/// The file that entries are added to.
#[derive(Debug)]
pub(crate) struct WindowFile {
    disk: Arc<dyn Disk>,
    data: PathBuf,
    folder: FolderId,
    handle: Option<Arc<dyn DiskFile>>,
    mark: WindowMark,
    /// The one before, to be removed once a checkpoint names this one.
    replaced: Option<PathBuf>,
}

fn path(data: &Path, file: u64) -> PathBuf {
    data.join(format!("{file:06}.window"))
}

impl WindowFile {
    /// Reads the file that a checkpoint names into `window`.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Format`], [`LogError::Io`].
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        data: &Path,
        folder: FolderId,
        mark: WindowMark,
        window: &mut Window,
    ) -> Result<Self, LogError> {
        let mut file = Self { disk, data: data.to_owned(), folder, handle: None, mark, replaced: None };
        if mark.file == 0 {
            return Ok(file);
        }
        let path = path(data, mark.file);
        let corrupt = |what: &str| LogError::Corrupt {
            file: path.clone(),
            from: 0,
            end: mark.length,
            what: format!("{what}; whether a request is a repeat cannot be told"),
        };
        let handle = match file.disk.open(&path) {
            Ok(handle) => handle,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(corrupt("the window of request ids is missing")),
            Err(source) => return Err(LogError::io("open", &path, source)),
        };
        let length = handle.len().map_err(|source| LogError::io("read", &path, source))?;
        if length < mark.length {
            return Err(corrupt("it is shorter than it was"));
        }
        let mut bytes = vec![0; usize::try_from(mark.length).map_err(|_| corrupt("it is too long"))?];
        handle.read_at(0, &mut bytes).map_err(|source| LogError::io("read", &path, source))?;
        if crc32c::crc32c(&bytes) != mark.crc {
            return Err(corrupt("it is not what its checksum promised"));
        }
        file.restore(&bytes, &path, window)?.ok_or_else(|| corrupt("its entries cannot be read"))?;
        file.handle = Some(handle);
        Ok(file)
    }

    fn restore(&self, bytes: &[u8], path: &Path, window: &mut Window) -> Result<Option<()>, LogError> {
        let mut from = Fields(bytes);
        let (Some(magic), Some(format)) = (from.take(4), from.u32()) else { return Ok(None) };
        if magic == MAGIC && format != FORMAT {
            return Err(LogError::Format { file: path.to_owned(), found: format, supported: FORMAT });
        }
        let (Some(folder), Some(low_mark)) = (from.bytes16(), from.u64()) else { return Ok(None) };
        if magic != MAGIC || folder != *self.folder.as_bytes() {
            return Ok(None);
        }
        window.set_low_mark(Position::new(low_mark));
        Ok(window.restore(from.0))
    }

    /// Adds entries that became durable since the last call, syncs, and returns what the checkpoint says. `window` is what
    /// they were remembered in; when most of the file has left it, a new file begins with what it holds of requests that
    /// ended at or below `end`.
    pub(crate) fn add(&mut self, entries: &[u8], window: &parking_lot::Mutex<Window>, end: Position) -> Result<WindowMark, LogError> {
        if entries.is_empty() {
            return Ok(self.mark);
        }
        let anew = {
            let window = window.lock();
            let mostly_old = self.mark.length > SMALL && self.mark.length > 2 * window.bytes();
            (self.handle.is_none() || mostly_old).then(|| (window.low_mark(), window.encode_up_to(end)))
        };
        match anew {
            Some((low_mark, all)) => self.begin(low_mark, &all)?,
            None => self.put(entries)?,
        }
        let path = path(&self.data, self.mark.file);
        if let Some(handle) = &self.handle {
            handle.sync().map_err(|source| LogError::io("sync", &path, source))?;
        }
        if self.replaced.is_some() || self.mark.file == 1 {
            self.disk.sync_folder(&self.data).map_err(|source| LogError::io("sync", &self.data, source))?;
        }
        Ok(self.mark)
    }

    fn begin(&mut self, low_mark: Position, entries: &[u8]) -> Result<(), LogError> {
        let number = self.mark.file + 1;
        let path = path(&self.data, number);
        let handle = match self.disk.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.disk.open(&path),
            made => made,
        };
        let handle = handle.map_err(|source| LogError::full_or_io("create", &path, source))?;
        let mut bytes = Vec::with_capacity(HEADER_LEN + entries.len());
        bytes.put(&MAGIC);
        bytes.put_u32(FORMAT);
        bytes.put(self.folder.as_bytes());
        bytes.put_u64(low_mark.get());
        bytes.put(entries);
        handle.write_at(0, &bytes).map_err(|source| LogError::full_or_io("write", &path, source))?;
        self.replaced = (self.mark.file > 0).then(|| self::path(&self.data, self.mark.file));
        self.mark = WindowMark { file: number, length: bytes.len() as u64, crc: crc32c::crc32c(&bytes) };
        self.handle = Some(handle);
        Ok(())
    }

    fn put(&mut self, entries: &[u8]) -> Result<(), LogError> {
        let path = path(&self.data, self.mark.file);
        let Some(handle) = &self.handle else { return Ok(()) };
        handle.write_at(self.mark.length, entries).map_err(|source| LogError::full_or_io("write", &path, source))?;
        self.mark.length += entries.len() as u64;
        self.mark.crc = crc32c::crc32c_append(self.mark.crc, entries);
        Ok(())
    }

    /// A checkpoint that names the file is durable: the one before may go.
    pub(crate) fn checkpointed(&mut self) -> Result<(), LogError> {
        let Some(path) = self.replaced.take() else { return Ok(()) };
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LogError::io("remove", &path, error)),
            _ => Ok(()),
        }
    }
}
