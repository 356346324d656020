//! A plain file for each owner, written whole: the store for disks that are not the machine's own, as those of simulations.
//!
//! A file is its pages, its head, and a footer that says where the head lies. It is written beside the one before, synced and
//! renamed, so that there is always a whole one. What a page holds is checked by who reads it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use foldlog_log::{
    checksum,
    disk::{Disk, DiskFile},
};

use super::{Place, Saving, StateStore, StoreError, Visit, aside};

/// Of a finished file.
const FINISHED: &str = ".state";
/// Of one that is being written.
const UNFINISHED: &str = ".new";
/// Begins the footer.
const MAGIC: [u8; 4] = *b"FLCP";
/// Magic, version, place of the head, its length, checksum of head and footer.
const FOOTER: usize = 4 + 4 + 8 + 8 + 4;
const VERSION: u32 = 1;
/// Table, page, length: before each page.
const BEFORE_PAGE: usize = 2 + 4 + 8;
/// Bytes that are written at once.
const PIECE: usize = 1 << 20;
/// Longest name of a file that is made of an owner's as it is.
const LONGEST_NAME: usize = 100;

/// See the head of this file.
#[derive(Debug)]
pub struct FileStore {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
}

impl FileStore {
    /// A store in a folder that exists.
    #[must_use]
    pub fn open(disk: Arc<dyn Disk>, folder: &Path) -> Self {
        Self { disk, folder: folder.to_owned() }
    }

    fn path(&self, owner: &str) -> PathBuf {
        self.folder.join(file_name(owner))
    }

    fn read(&self, owner: &str) -> Result<Option<Finished>, StoreError> {
        let path = self.path(owner);
        match self.disk.open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("open", &path)(error)),
            Ok(file) => Finished::of(file, path).map(Some),
        }
    }
}

/// The name of an owner's file: its own where every system takes it, else as much of it as they do and a checksum.
fn file_name(owner: &str) -> String {
    let plain: String = owner.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' }).collect();
    let plain = plain.get(..LONGEST_NAME).unwrap_or(&plain);
    if plain == owner { format!("{owner}{FINISHED}") } else { format!("{plain}-{:08x}{FINISHED}", checksum(owner.as_bytes())) }
}

impl StateStore for FileStore {
    fn is_incremental(&self) -> bool {
        false
    }

    fn head(&self, owner: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(owner)?.map(|file| file.head()).transpose()
    }

    fn pages(&self, owner: &str, visit: Visit<'_>) -> Result<(), StoreError> {
        self.read(owner)?.map_or(Ok(()), |file| file.pages(visit))
    }

    fn begin<'a>(&'a self, owner: &str, builds_on_last: bool) -> Result<Box<dyn Saving + 'a>, StoreError> {
        if builds_on_last {
            return Err(StoreError::NoBase);
        }
        let finished = self.path(owner);
        let path = finished.with_extension(UNFINISHED.trim_start_matches('.'));
        let file = match self.disk.create(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => self.disk.open(&path),
            made => made,
        };
        let file = file.map_err(StoreError::io("create", &path))?;
        let begun = Unfinished { store: self, file, path, finished, at: 0, piece: Vec::new(), ended: false };
        begun.file.set_len(0).map_err(StoreError::io("empty", &begun.path))?;
        Ok(Box::new(begun))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.disk.sync_folder(&self.folder).map_err(StoreError::io("sync", &self.folder))
    }

    fn set_aside(&self, owner: &str) -> Result<(), StoreError> {
        aside::set_aside(self.disk.as_ref(), &self.folder, &file_name(owner)).map(drop)
    }

    fn remove(&self, owner: &str) -> Result<(), StoreError> {
        let path = self.path(owner);
        match self.disk.remove(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(StoreError::io("remove", &path)),
        }
    }

    fn keep_only(&self, owners: &BTreeSet<&str>) -> Result<bool, StoreError> {
        let kept: BTreeSet<String> = owners.iter().map(|owner| file_name(owner)).collect();
        let entries = self.disk.list(&self.folder).map_err(StoreError::io("list", &self.folder))?;
        let mut others = entries.into_iter().filter(|entry| !entry.is_folder).map(|entry| entry.name).filter(|name| {
            let finished = name.strip_suffix(UNFINISHED).map(|name| format!("{name}{FINISHED}"));
            let is_ours = finished.is_some() || name.ends_with(FINISHED);
            is_ours && !kept.contains(finished.as_ref().unwrap_or(name))
        });
        others.try_fold(false, |_, name| {
            let path = self.folder.join(name);
            self.disk.remove(&path).map(|()| true).map_err(StoreError::io("remove", &path))
        })
    }
}

/// A file that is being written.
struct Unfinished<'a> {
    store: &'a FileStore,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    finished: PathBuf,
    at: u64,
    piece: Vec<u8>,
    ended: bool,
}

impl Unfinished<'_> {
    fn write(&mut self) -> Result<(), StoreError> {
        self.file.write_at(self.at, &self.piece).map_err(StoreError::io("write", &self.path))?;
        self.at += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }
}

impl Saving for Unfinished<'_> {
    fn put(&mut self, place: Place, bytes: &[u8]) -> Result<(), StoreError> {
        self.piece.extend_from_slice(&place.table.to_le_bytes());
        self.piece.extend_from_slice(&place.page.to_le_bytes());
        self.piece.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE { self.write() } else { Ok(()) }
    }

    fn commit(mut self: Box<Self>, head: &[u8]) -> Result<(), StoreError> {
        let place = self.at + self.piece.len() as u64;
        let footer = footer(place, head);
        self.piece.extend_from_slice(head);
        self.piece.extend_from_slice(&footer);
        self.write()?;
        self.file.sync().map_err(StoreError::io("sync", &self.path))?;
        self.store.disk.rename(&self.path, &self.finished).map_err(StoreError::io("rename", &self.path))?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for Unfinished<'_> {
    /// What was written for nothing takes no room: the disk may be full.
    fn drop(&mut self) {
        if !self.ended {
            // The next one is written in its place.
            drop(self.store.disk.remove(&self.path));
        }
    }
}

fn footer(place: u64, head: &[u8]) -> Vec<u8> {
    let mut footer = Vec::with_capacity(FOOTER);
    footer.extend_from_slice(&MAGIC);
    footer.extend_from_slice(&VERSION.to_le_bytes());
    footer.extend_from_slice(&place.to_le_bytes());
    footer.extend_from_slice(&(head.len() as u64).to_le_bytes());
    let check = checksum(&[head, &footer].concat());
    footer.extend_from_slice(&check.to_le_bytes());
    footer
}

/// A finished file.
struct Finished {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// Where pages end and the head begins, and its length.
    head: u64,
    head_len: u64,
}

impl Finished {
    fn of(file: Arc<dyn DiskFile>, path: PathBuf) -> Result<Self, StoreError> {
        let length = file.len().map_err(StoreError::io("look at", &path))?;
        let damaged = || StoreError::Damaged(format!("{} has no end that says what it is", path.display()));
        let footer_at = length.checked_sub(FOOTER as u64).ok_or_else(damaged)?;
        let mut footer = [0; FOOTER];
        file.read_at(footer_at, &mut footer).map_err(StoreError::io("read", &path))?;
        let number = |at: usize| footer.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let (head, head_len) = (number(8), number(16));
        let is_footer = footer.starts_with(&MAGIC) && footer.get(4..8) == Some(&VERSION.to_le_bytes());
        if !is_footer || head.checked_add(head_len) != Some(footer_at) {
            return Err(damaged());
        }
        Ok(Self { file, path, head, head_len })
    }

    fn bytes(&self, at: u64, length: u64) -> Result<Vec<u8>, StoreError> {
        let damaged = || StoreError::Damaged(format!("{} ends before its pages do", self.path.display()));
        // Never more than the file has: a length may be anything.
        if at.checked_add(length).is_none_or(|end| end > self.head + self.head_len) {
            return Err(damaged());
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| damaged())?];
        let read = self.file.read_at(at, &mut bytes).map_err(StoreError::io("read", &self.path))?;
        if read == bytes.len() { Ok(bytes) } else { Err(damaged()) }
    }

    fn head(&self) -> Result<Vec<u8>, StoreError> {
        let head = self.bytes(self.head, self.head_len)?;
        let mut found = [0; FOOTER];
        self.file.read_at(self.head + self.head_len, &mut found).map_err(StoreError::io("read", &self.path))?;
        if footer(self.head, &head) == found {
            return Ok(head);
        }
        Err(StoreError::Damaged(format!("the head of {} is not what its checksum promised", self.path.display())))
    }

    fn pages(&self, visit: Visit<'_>) -> Result<(), StoreError> {
        let mut at = 0;
        while at < self.head {
            let before = self.bytes(at, BEFORE_PAGE as u64)?;
            let (Some((table, rest)), at_page) = (before.split_first_chunk(), at + BEFORE_PAGE as u64) else { break };
            let Some((page, length)) = rest.split_first_chunk() else { break };
            let length = length.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
            let place = Place { table: u16::from_le_bytes(*table), page: u32::from_le_bytes(*page) };
            visit(place, &self.bytes(at_page, length)?)?;
            at = at_page + length;
        }
        Ok(())
    }
}
