//! Seam: where checkpoints of query state lie, as pages and a head that says which of them belong together.
//!
//! Used by `stream/checkpoint`, which alone knows what a page holds; a store knows owners, places and bytes. Nothing in it is
//! the truth: what is missing or damaged is folded from the log again. Invariants: a head is found only with every page that was
//! put for it or for a checkpoint that it builds on; what was synced stays over a power cut.

pub(crate) mod aside;
pub mod file;
pub(crate) mod manifest;
pub mod pages;

use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use foldlog_log::disk::Disk;

/// Where a page belongs: its table, by number among those of its owner, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The table.
    pub table: u16,
    /// The page.
    pub page: u32,
}

/// Takes pages as they are read.
pub type Visit<'a> = &'a mut dyn FnMut(Place, &[u8]) -> Result<(), StoreError>;

/// Why a checkpoint cannot be written or read. No query suffers: it goes on, or folds from the log.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk said no.
    #[error("failed to {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The page store said no.
    #[error("the page store failed")]
    Pages(#[source] sled::Error),
    /// What lies there is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// There is nothing on which the checkpoint could build.
    #[error("the checkpoint before is not there any more")]
    NoBase,
    /// Nothing is kept any more.
    #[error("the store of checkpoints is closed")]
    Closed,
}

impl StoreError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Keeps the newest checkpoint of each owner. Calls may block on files for long.
pub trait StateStore: Send + Sync + fmt::Debug {
    /// Whether a checkpoint may consist of the pages that changed since the one before; else it has every page.
    fn is_incremental(&self) -> bool;

    /// The head of an owner's newest checkpoint; none if there is none.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] and what the disk says.
    fn head(&self, owner: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Every page of that checkpoint, in the order of their places.
    ///
    /// # Errors
    /// As [`StateStore::head`], and what `visit` says.
    fn pages(&self, owner: &str, visit: Visit<'_>) -> Result<(), StoreError>;

    /// Begins a checkpoint: one that builds on the one before, or a whole one. The one before stays until this is committed.
    ///
    /// # Errors
    /// [`StoreError::NoBase`] if there is none to build on; what the disk says.
    fn begin<'a>(&'a self, owner: &str, builds_on_last: bool) -> Result<Box<dyn Saving + 'a>, StoreError>;

    /// Makes durable what was committed, and lets go of what it replaced.
    ///
    /// # Errors
    /// What the disk says; what was committed since the last sync may then be lost.
    fn sync(&self) -> Result<(), StoreError>;

    /// Puts an owner's checkpoint out of the way, to be looked at; only the newest few are kept.
    ///
    /// # Errors
    /// What the disk says.
    fn set_aside(&self, owner: &str) -> Result<(), StoreError>;

    /// Removes an owner's checkpoint; durable with the next sync.
    ///
    /// # Errors
    /// What the disk says.
    fn remove(&self, owner: &str) -> Result<(), StoreError>;

    /// Removes what there is of all but these owners; durable with the next sync. Gives whether there was anything.
    ///
    /// # Errors
    /// What the disk says.
    fn keep_only(&self, owners: &BTreeSet<&str>) -> Result<bool, StoreError>;
}

/// A checkpoint that is being written. Dropping it leaves the one before.
pub trait Saving {
    /// Puts a page; each place once, in their order.
    ///
    /// # Errors
    /// What the disk says; the checkpoint is lost then.
    fn put(&mut self, place: Place, bytes: &[u8]) -> Result<(), StoreError>;

    /// Ends the checkpoint: from now on it is the newest one, durable with the next sync.
    ///
    /// # Errors
    /// As [`Saving::put`].
    fn commit(self: Box<Self>, head: &[u8]) -> Result<(), StoreError>;
}

/// How much folding may be lost in a crash before a query is worth a checkpoint. Long enough that writing a large state costs
/// little beside, short enough that a start is not waited for.
const REPLAY_DEBT: Duration = Duration::from_secs(3);

/// How the state of queries is kept over restarts.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    pub(crate) place: CheckpointPlace,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) folder: PathBuf,
    pub(crate) debt: Duration,
    /// Bytes of the disk, and hundredths of it, that checkpoints leave alone.
    leaves: (u64, u64),
}

/// What a folder of checkpoints is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckpointPlace {
    Pages,
    Files,
}

impl Checkpoints {
    /// In a page store in `folder`, which writes only what changed. It opens files by itself: `disk` must be the machine's own.
    #[must_use]
    pub fn in_pages(disk: Arc<dyn Disk>, folder: PathBuf) -> Self {
        Self { place: CheckpointPlace::Pages, disk, folder, debt: REPLAY_DEBT, leaves: (0, 0) }
    }

    /// In a file for each query in `folder`, written whole each time, on any disk.
    #[must_use]
    pub fn in_files(disk: Arc<dyn Disk>, folder: PathBuf) -> Self {
        Self { place: CheckpointPlace::Files, disk, folder, debt: REPLAY_DEBT, leaves: (0, 0) }
    }

    /// With another time of folding, rather than 3 s, that may be lost before a checkpoint is due.
    #[must_use]
    pub fn due_after(self, debt: Duration) -> Self {
        Self { debt, ..self }
    }

    /// Leaving alone what the log keeps of the disk for what must go on when there is hardly any space: so many bytes, but of a small disk
    /// a tenth, or so many hundredths of it if that is more.
    #[must_use]
    pub fn leaving(self, bytes: u64, percent: u64) -> Self {
        Self { leaves: (bytes, percent), ..self }
    }

    /// Whether so many bytes may be written. A system that does not tell how much is free keeps nothing back.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let Ok(space) = self.disk.space(&self.folder) else { return true };
        let (least, percent) = self.leaves;
        let kept = least.min(space.total / 10).max(space.total / 100 * percent);
        space.free >= kept.saturating_add(bytes)
    }

    /// Removes what an older build kept beside, in a file for each query: nothing reads it any more. It hurts nobody if that fails.
    fn remove_files(&self) {
        match file::FileStore::open(Arc::clone(&self.disk), &self.folder).keep_only(&BTreeSet::new()) {
            Ok(false) => {}
            Ok(true) => tracing::info!(folder = %self.folder.display(), "checkpoints of an older build were removed"),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(folder = %self.folder.display(), error, "checkpoints of an older build could not be removed");
            }
        }
    }

    /// Opens the store; a damaged one is set aside, and an empty one takes its place (blocking).
    pub(crate) fn open(&self) -> Result<Arc<dyn StateStore>, StoreError> {
        let disk = self.disk.as_ref();
        disk.create_folder(&self.folder).map_err(StoreError::io("create", &self.folder))?;
        let parent = self.folder.parent().unwrap_or(&self.folder);
        disk.sync_folder(parent).map_err(StoreError::io("sync", parent))?;
        Ok(match self.place {
            CheckpointPlace::Pages => {
                let store = pages::PageStore::open(Arc::clone(&self.disk), &self.folder)?;
                self.remove_files();
                Arc::new(store)
            }
            CheckpointPlace::Files => Arc::new(file::FileStore::open(Arc::clone(&self.disk), &self.folder)),
        })
    }
}

#[cfg(test)]
mod tests {
    use foldlog_log::disk::RealDisk;

    use super::*;

    #[test]
    fn files_of_an_older_build_go_when_pages_are_opened_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk);
        let files = Checkpoints::in_files(Arc::clone(&disk) as Arc<dyn Disk>, folder.path().to_owned()).open().unwrap();
        let saving = files.begin("query_1", false).unwrap();
        saving.commit(b"head").unwrap();
        let is_there = |name: &str| folder.path().join(name).exists();
        for name in ["query_2.new", "notes.txt"] {
            disk.create(&folder.path().join(name)).unwrap();
        }
        assert!(is_there("query_1.state"));
        drop(Checkpoints::in_pages(disk, folder.path().to_owned()).open().unwrap());
        let left = ["query_1.state", "query_2.new", "notes.txt", "pages"].map(is_there);
        assert_eq!(left, [false, false, true, true]);
    }
}
