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

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

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

    /// Takes the folder for this process until the guard is dropped; `owner` is written into the lock file for whoever is refused.
    ///
    /// # Errors
    /// `WouldBlock`, with the owner's text as message, if another process holds it.
    fn lock(&self, folder: &Path, owner: &str) -> io::Result<Box<dyn Send + Sync>>;

    /// Bytes free for this user where `path` lies.
    ///
    /// # Errors
    /// What the system says.
    fn free_space(&self, path: &Path) -> io::Result<u64>;
}

/// Path of a folder's lock file.
#[must_use]
pub fn lock_path(folder: &Path) -> PathBuf {
    folder.join("lock")
}
