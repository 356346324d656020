//! The file of the window of requests: entries in the order in which they became durable, added to at each checkpoint.
//!
//! Tidy writes it, a start reads it. It is authoritative: damage to it is reported, not repaired. What lies behind the length
//! that the checkpoint names is not part of it. Format: `log/FORMAT.md`, "Window of requests".

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    checkpoint::WindowMark,
    codec::{Fields, Put},
    disk::{Disk, DiskFile},
    error::LogError,
    ids::{FolderId, Position, Timestamp},
    window::{self, Window},
};

pub(crate) const MAGIC: [u8; 4] = *b"FLWN";
/// Newest version.
pub(crate) const FORMAT: u32 = 2;
/// Knows no producers.
pub(crate) const FORMAT_OF_REQUESTS: u32 = 1;
pub(crate) const HEADER_LEN: usize = 32;
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
    format: u32,
    /// The one before, to be removed once a checkpoint names this one.
    replaced: Option<PathBuf>,
}

fn corrupt(path: &Path, mark: WindowMark, what: &str) -> LogError {
    let what = format!("{what}; whether a request is a repeat cannot be told");
    LogError::Corrupt { file: path.to_owned(), from: 0, end: mark.length, what }
}

/// The oldest format that these entries need.
fn format_of(entries: &[u8]) -> u32 {
    if window::has_producers(entries) { FORMAT } else { FORMAT_OF_REQUESTS }
}

pub(crate) fn path(data: &Path, file: u64) -> PathBuf {
    data.join(format!("{file:06}.window"))
}

/// Of a whole file, what it would be without what was recorded after a time; none if it cannot be read.
pub(crate) fn recorded_by(file: &[u8], until: Timestamp) -> Option<Vec<u8>> {
    let (header, entries) = file.split_at_checked(HEADER_LEN)?;
    let mut left = header.to_vec();
    left.extend(window::recorded_by(entries, until)?);
    Some(left)
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
        let mut file = Self { disk, data: data.to_owned(), folder, handle: None, mark, format: FORMAT_OF_REQUESTS, replaced: None };
        if mark.file == 0 {
            return Ok(file);
        }
        let path = path(data, mark.file);
        let handle = match file.disk.open(&path) {
            Ok(handle) => handle,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(corrupt(&path, mark, "the window of request ids is missing"));
            }
            Err(source) => return Err(LogError::io("open", &path, source)),
        };
        let bytes = file.read(&*handle, &path)?;
        file.format = file.restore(&bytes, &path, window)?.ok_or_else(|| corrupt(&path, mark, "its entries cannot be read"))?;
        file.handle = Some(handle);
        Ok(file)
    }

    /// All that the checkpoint says is in the file.
    fn read(&self, handle: &dyn DiskFile, path: &Path) -> Result<Vec<u8>, LogError> {
        let mark = self.mark;
        let length = handle.len().map_err(|source| LogError::io("read", path, source))?;
        if length < mark.length {
            return Err(corrupt(path, mark, "it is shorter than it was"));
        }
        let mut bytes = vec![0; usize::try_from(mark.length).map_err(|_| corrupt(path, mark, "it is too long"))?];
        handle.read_at(0, &mut bytes).map_err(|source| LogError::io("read", path, source))?;
        if crc32c::crc32c(&bytes) != mark.crc {
            return Err(corrupt(path, mark, "it is not what its checksum promised"));
        }
        Ok(bytes)
    }

    /// Returns the format; none if the bytes cannot be read.
    fn restore(&self, bytes: &[u8], path: &Path, window: &mut Window) -> Result<Option<u32>, LogError> {
        let mut from = Fields(bytes);
        let (Some(magic), Some(format)) = (from.take(4), from.u32()) else { return Ok(None) };
        if magic == MAGIC && !(FORMAT_OF_REQUESTS..=FORMAT).contains(&format) {
            return Err(LogError::Format { file: path.to_owned(), found: format, supported: FORMAT });
        }
        let (Some(folder), Some(low_mark)) = (from.bytes16(), from.u64()) else { return Ok(None) };
        if magic != MAGIC || folder != *self.folder.as_bytes() {
            return Ok(None);
        }
        window.set_low_mark(Position::new(low_mark));
        Ok(window.restore(from.0).map(|()| format))
    }

    /// Adds entries that became durable since the last call, syncs, and returns what the checkpoint says. `window` is what
    /// they were remembered in; when most of the file has left it, a new file begins with the entries that have not.
    pub(crate) fn add(&mut self, entries: &[u8], window: &Mutex<Window>) -> Result<WindowMark, LogError> {
        if entries.is_empty() {
            return Ok(self.mark);
        }
        let (low_mark, bytes) = {
            let window = window.lock();
            (window.low_mark(), window.bytes())
        };
        match self.handle.clone() {
            None => self.begin(low_mark, entries)?,
            Some(handle) if self.is_mostly_old(bytes) || self.format < format_of(entries) => {
                let kept = self.kept(&*handle, low_mark, entries)?;
                self.begin(low_mark, &kept)?;
            }
            Some(_) => self.put(entries)?,
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

    const fn is_mostly_old(&self, bytes: u64) -> bool {
        self.mark.length > SMALL && self.mark.length > 2 * bytes
    }

    /// What counts of the file's entries and those that are added, in a window that begins at `low_mark`. Taken from the file, for
    /// the committer needs the window all the time.
    fn kept(&self, handle: &dyn DiskFile, low_mark: Position, added: &[u8]) -> Result<Vec<u8>, LogError> {
        let path = path(&self.data, self.mark.file);
        let mut bytes = self.read(handle, &path)?;
        bytes.extend_from_slice(added);
        Ok(window::still_held(bytes.get(HEADER_LEN..).unwrap_or_default(), low_mark))
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
        let format = format_of(entries);
        bytes.put_u32(format);
        bytes.put(self.folder.as_bytes());
        bytes.put_u64(low_mark.get());
        bytes.put(entries);
        handle.write_at(0, &bytes).map_err(|source| LogError::full_or_io("write", &path, source))?;
        self.replaced = (self.mark.file > 0).then(|| self::path(&self.data, self.mark.file));
        self.mark = WindowMark { file: number, length: bytes.len() as u64, crc: crc32c::crc32c(&bytes) };
        self.handle = Some(handle);
        self.format = format;
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

    /// Removes files that no checkpoint names: the one before, if the process died as it was replaced, and one that was begun.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub(crate) fn settle(&self) -> Result<(), LogError> {
        let entries = self.disk.list(&self.data).map_err(|source| LogError::io("list", &self.data, source))?;
        for entry in entries {
            let number = entry.name.strip_suffix(".window").and_then(|number| number.parse().ok());
            let Some(path) = number.filter(|number| *number != self.mark.file).map(|number| path(&self.data, number)) else { continue };
            // `1.window` is a number too, and none of ours.
            if path.file_name() == Some(OsStr::new(&entry.name)) {
                self.disk.remove(&path).map_err(|source| LogError::io("remove", &path, source))?;
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::RequestId,
        record::{Appended, Identity, RequestKey},
        testing::SimDisk,
        window::Seen,
    };

    fn identity(request: u64) -> Identity {
        let key = RequestKey { principal: "p".repeat(900).into(), id: RequestId::new(u128::from(request).to_le_bytes()) };
        Identity { key, digest: 1, first_attempt: None }
    }

    /// Each second one wrote no record.
    fn answer(request: u64) -> Appended {
        let (first, end) = (Position::new(request.div_ceil(2)), Position::new(request / 2 + 1));
        let recorded_at = crate::ids::Timestamp::new(0);
        Appended {
            first,
            end,
            ranges: Vec::new(),
            versions: Vec::new(),
            recorded_at,
            deduplicated: false,
            durability: crate::durability::Durability::Synced,
        }
    }

    #[test]
    fn a_file_that_is_mostly_old_is_begun_anew_with_what_is_still_remembered() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let (data, folder) = (Path::new("/data"), FolderId::new([1; 16]));
        disk.create_folder(data).unwrap();
        let window = Mutex::new(Window::new(300, 1 << 30));
        let open = |mark, window: &mut Window| WindowFile::open(Arc::clone(&disk), data, folder, mark, window).unwrap();
        let mut file = open(WindowMark::default(), &mut window.lock());
        let mut mark = WindowMark::default();
        for request in 0..3000 {
            let entry = window.lock().remember(&identity(request), &answer(request), |_| None);
            // Already admitted, not durable yet: none of the file's business.
            window.lock().remember(&identity(1_000_000 + request), &answer(request + 1), |_| None);
            let before = std::mem::replace(&mut mark, file.add(&entry, &window).unwrap());
            file.checkpointed().unwrap();
            if mark.file > before.file {
                let mut restored = Window::new(usize::MAX, u64::MAX);
                open(mark, &mut restored);
                for request in 0..=request {
                    let is_repeat = |window: &Window| matches!(window.look_up(&identity(request), |_| None), Seen::Repeat(_));
                    assert!(!is_repeat(&window.lock()) || is_repeat(&restored), "request {request} was forgotten");
                }
            }
        }
        assert!(mark.file > 1, "it was begun anew");
        assert_eq!(disk.list(data).unwrap().len(), 1, "the one before is gone");
        assert!(mark.length < 2 * SMALL, "{mark:?}");
        disk.create(&path(data, mark.file - 1)).unwrap();
        disk.create(&path(data, mark.file + 1)).unwrap();
        disk.create(&data.join("1.window")).unwrap();
        let mut restored = Window::new(300, 1 << 30);
        open(mark, &mut restored).settle().unwrap();
        let left: Vec<_> = disk.list(data).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(left, [format!("{:06}.window", mark.file), "1.window".into()], "what a crash left is gone");
        assert!(restored.low_mark() >= Position::new(1350), "{}", restored.low_mark());
        for request in 2850..3000 {
            let seen = restored.look_up(&identity(request), |_| None);
            assert!(matches!(&seen, Seen::Repeat(repeat) if repeat.first == answer(request).first), "request {request}: {seen:?}");
            assert!(matches!(restored.look_up(&identity(1_000_000 + request), |_| None), Seen::New));
        }
    }
}
