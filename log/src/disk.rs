//! Seam: the disk. The only file that touches `std::fs`.
//!
//! Every call names what it does, and nothing is durable before the matching sync: a file's bytes and size after
//! [`DiskFile::sync`], a name after [`Disk::sync_folder`] of its folder.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// An open file, read and written by place.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Reads until `buffer` is full or the file ends; returns how much was read.
    ///
    /// # Errors
    /// What the system says; interrupted calls are made again.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`, growing the file if need be.
    ///
    /// # Errors
    /// What the system says; how much was written is then unknown.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file's bytes and size durable (`fdatasync`).
    ///
    /// # Errors
    /// What the system says; what was written since the last sync may then be lost, and a second try proves nothing.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros, to `length` bytes.
    ///
    /// # Errors
    /// What the system says.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// What the system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// File name, without its folder.
    pub name: String,
    /// Whether it is a folder.
    pub is_folder: bool,
}

/// How much fits on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that the file system has.
    pub total: u64,
    /// Bytes of them that this process may still use.
    pub free: u64,
}

/// A file system, as much of it as the log needs.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` and what else the system says.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a file that must not exist yet, mode 0600.
    ///
    /// # Errors
    /// `AlreadyExists` and what else the system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a folder and those above it, mode 0700; existing ones are no error. Durable once each parent is synced.
    ///
    /// # Errors
    /// What the system says.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// Renames a file over another one, if there is one, within a file system.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file another name within its file system; both are the file then.
    ///
    /// # Errors
    /// `AlreadyExists`, `Unsupported` where that cannot be done, `CrossesDevices`, and what else the system says.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _ = (from, to);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder that is empty.
    ///
    /// # Errors
    /// What the system says.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;

    /// Lists a folder, by name.
    ///
    /// # Errors
    /// `NotFound` and what else the system says.
    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>>;

    /// Makes a folder's names durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// How much space the file system of `folder` has.
    ///
    /// # Errors
    /// `Unsupported` where that cannot be told, and what the system says.
    fn space(&self, folder: &Path) -> io::Result<Space> {
        let _ = folder;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Takes the folder for this process until the guard is dropped; `owner` is written into the lock file for whoever is refused.
    ///
    /// # Errors
    /// `WouldBlock`, with the owner's text as message, if another process holds it.
    fn lock(&self, folder: &Path, owner: &str) -> io::Result<Box<dyn Send + Sync>>;
}

/// Path of a folder's lock file.
#[must_use]
pub fn lock_path(folder: &Path) -> PathBuf {
    folder.join("lock")
}

/// The machine's own file system.
///
/// Files and folders it makes are for this user alone (0600, 0700). On Windows a folder's names cannot be synced; everything
/// else holds there too, but for the reserve: how much is free is not known there.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// The machine's own file system, for whoever only looks: it opens files that nobody may write to, and changes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnlyDisk;

/// A file of [`RealDisk`].
#[derive(Debug)]
struct RealFile(std::fs::File);

#[cfg(unix)]
mod platform {
    //! What differs between systems: reading and writing by place, modes, folders.

    use std::{
        fs::{DirBuilder, File},
        io,
        os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
        path::Path,
    };

    #[expect(clippy::disallowed_types, reason = "this file is the seam")]
    pub(super) fn private(options: &mut std::fs::OpenOptions) {
        options.mode(0o600);
    }

    pub(super) fn private_folders() -> DirBuilder {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        builder
    }

    pub(super) fn read_once(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        file.read_at(buffer, offset)
    }

    pub(super) fn write_once(file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    #[expect(clippy::disallowed_methods, reason = "this file is the seam")]
    pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    pub(super) fn space(folder: &Path) -> io::Result<super::Space> {
        let found = rustix::fs::statvfs(folder)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(super::Space { total: bytes(found.f_blocks), free: bytes(found.f_bavail) })
    }
}

#[cfg(not(unix))]
mod platform {
    //! What differs between systems: Windows places reads and writes by seeking, and has no sync of folders.

    use std::{
        fs::{DirBuilder, File},
        io,
        os::windows::fs::FileExt,
        path::Path,
    };

    #[expect(clippy::disallowed_types, reason = "this file is the seam")]
    pub(super) fn private(_options: &mut std::fs::OpenOptions) {}

    pub(super) fn private_folders() -> DirBuilder {
        DirBuilder::new()
    }

    pub(super) fn read_once(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        file.seek_read(buffer, offset)
    }

    pub(super) fn write_once(file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        file.seek_write(bytes, offset)
    }

    pub(super) fn sync_folder(_folder: &Path) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn space(_folder: &Path) -> io::Result<super::Space> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Makes a call again for as long as a signal interrupts it.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match uninterrupted(|| platform::read_once(&self.0, offset + done as u64, &mut buffer[done..]))? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match uninterrupted(|| platform::write_once(&self.0, offset + done as u64, &bytes[done..]))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => done += count,
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync, and on macOS F_FULLFSYNC. An interrupted sync was not carried out, so it may be made again.
        uninterrupted(|| self.0.sync_data())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        uninterrupted(|| self.0.set_len(length))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "this file is the seam")]
impl Disk for RealDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = uninterrupted(|| std::fs::OpenOptions::new().read(true).write(true).open(path))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create_new(true);
        platform::private(&mut options);
        let file = uninterrupted(|| options.open(path))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        platform::private_folders().recursive(true).create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        uninterrupted(|| std::fs::hard_link(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            // A name that is not UTF-8 is none of ours; its readable form matches nothing we look for.
            let name = entry.file_name().to_string_lossy().into_owned();
            entries.push(Entry { name, is_folder: entry.file_type()?.is_dir() });
        }
        entries.sort();
        Ok(entries)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        uninterrupted(|| platform::sync_folder(folder))
    }

    fn space(&self, folder: &Path) -> io::Result<Space> {
        uninterrupted(|| platform::space(folder))
    }

    fn lock(&self, folder: &Path, owner: &str) -> io::Result<Box<dyn Send + Sync>> {
        let path = lock_path(folder);
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        platform::private(&mut options);
        let file = uninterrupted(|| options.open(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(held_by(&RealFile(file))),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        let file = RealFile(file);
        file.write_at(0, owner.as_bytes())?;
        Ok(Box::new(file))
    }
}

impl Disk for ReadOnlyDisk {
    #[expect(clippy::disallowed_methods, reason = "this file is the seam")]
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(uninterrupted(|| std::fs::File::open(path))?)))
    }

    fn create(&self, _: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn create_folder(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove_folder(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        RealDisk.list(folder)
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn lock(&self, _: &Path, _: &str) -> io::Result<Box<dyn Send + Sync>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// Says who holds a lock, from what the holder wrote.
fn held_by(lock: &dyn DiskFile) -> io::Error {
    let mut owner = [0; 256];
    let length = lock.read_at(0, &mut owner).unwrap_or(0);
    let owner = String::from_utf8_lossy(&owner[..length]).trim().to_owned();
    let owner = if owner.is_empty() { "another process".to_owned() } else { owner };
    io::Error::new(io::ErrorKind::WouldBlock, owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_at_its_place() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let deep = folder.path().join("a/b");
        RealDisk.create_folder(&deep)?;
        RealDisk.create_folder(&deep)?;
        let file = RealDisk.create(&deep.join("f"))?;
        assert_eq!(RealDisk.create(&deep.join("f")).map_err(|error| error.kind()).err(), Some(io::ErrorKind::AlreadyExists));
        file.write_at(3, b"hello")?;
        file.sync()?;
        RealDisk.sync_folder(&deep)?;
        let mut buffer = [9; 16];
        assert_eq!(file.read_at(0, &mut buffer)?, 8);
        assert_eq!(&buffer[..8], b"\0\0\0hello");
        assert_eq!(file.read_at(100, &mut buffer)?, 0);
        file.set_len(4)?;
        assert_eq!(file.len()?, 4);
        RealDisk.rename(&deep.join("f"), &deep.join("g"))?;
        assert_eq!(RealDisk.list(&deep)?, [Entry { name: "g".into(), is_folder: false }]);
        RealDisk.remove(&deep.join("g"))?;
        assert_eq!(RealDisk.open(&deep.join("g")).map_err(|error| error.kind()).err(), Some(io::ErrorKind::NotFound));
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn a_disk_tells_its_space() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let Space { total, free } = RealDisk.space(folder.path())?;
        assert!(0 < free && free < total, "{free} of {total}");
        assert_eq!(RealDisk.space(&folder.path().join("none")).map_err(|error| error.kind()), Err(io::ErrorKind::NotFound));
        Ok(())
    }

    #[test]
    fn a_folder_is_locked_by_one_and_names_its_owner() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let guard = RealDisk.lock(folder.path(), "foldlog 1, process 7")?;
        let refused = RealDisk.lock(folder.path(), "another").map(|_| ()).expect_err("it is taken");
        assert_eq!((refused.kind(), refused.to_string().as_str()), (io::ErrorKind::WouldBlock, "foldlog 1, process 7"));
        drop(guard);
        RealDisk.lock(folder.path(), "another")?;
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_may_look() -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir()?;
        let (inner, path) = (folder.path().join("data"), folder.path().join("data/f"));
        RealDisk.create_folder(&inner)?;
        RealDisk.create(&path)?;
        let _lock = RealDisk.lock(&inner, "us")?;
        for (path, mode) in [(&inner, 0o700), (&path, 0o600), (&lock_path(&inner), 0o600)] {
            assert_eq!(path.metadata()?.permissions().mode() & 0o777, mode, "{}", path.display());
        }
        Ok(())
    }
}
