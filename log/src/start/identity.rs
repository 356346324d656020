//! Whose a data folder is: the file that says so, the lock on it, and what is made in a folder that has nothing yet.
//!
//! A start asks first, and so do backup, restore and doctor. Invariant: a folder that has an identity has everything that a start needs.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::{Checkpoint, Slots, WindowMark},
    config::LogConfig,
    disk::Disk,
    error::LogError,
    ids::{FolderId, Position, Timestamp},
    journal::{self, file::JournalFiles},
    manifest,
    topic_store::{self, TopicStore},
};

/// File that says whose folder this is.
pub(crate) const IDENTITY: &str = "foldlog.json";
/// Newest format of it.
pub(crate) const FORMAT: u32 = 2;
/// File that is there while a restore fills the folder; without an identity beside it that was not finished.
pub(crate) const RESTORING: &str = "foldlog.restoring";
/// Format of a folder that was never restored, which programs from before anything could be read.
const FORMAT_BEFORE_RESTORE: u32 = 1;
/// Whose a folder is.
#[derive(Serialize, Deserialize)]
pub(crate) struct Identity {
    format: u32,
    pub(super) id: String,
    /// Since format 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) restored: Vec<Gap>,
}

/// Positions that a restore left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gap {
    /// The epoch that it began.
    pub(crate) epoch: u32,
    /// Position of the first record that it may have taken away.
    pub(crate) from: u64,
    /// First position that was given after it.
    pub(crate) next: u64,
}

impl Identity {
    pub(crate) fn new(id: FolderId, restored: Vec<Gap>) -> Self {
        let format = if restored.is_empty() { FORMAT_BEFORE_RESTORE } else { FORMAT };
        Self { format, id: id.to_string(), restored }
    }

    /// Makes it the folder's, durably.
    pub(crate) fn write(&self, disk: &dyn Disk, folder: &Path) -> Result<(), LogError> {
        manifest::write(disk, &folder.join(IDENTITY), self)
    }
}

/// Takes the folder for this process, until what it returns is dropped.
///
/// # Errors
/// [`LogError::Locked`].
pub(crate) fn lock(disk: &dyn Disk, folder: &Path) -> Result<Box<dyn Send + Sync>, LogError> {
    let owner = format!("process {}", std::process::id());
    disk.lock(folder, &owner).map_err(|source| {
        if source.kind() == std::io::ErrorKind::WouldBlock {
            return LogError::Locked { folder: folder.to_owned(), owner: source.to_string() };
        }
        LogError::io("lock", folder, source)
    })
}

/// The identity of a folder; none if there is nothing in it yet.
///
/// # Errors
/// [`LogError::Corrupt`], [`LogError::Format`]; [`LogError::Invalid`] for a restore that was not finished.
pub(super) fn read(disk: &dyn Disk, folder: &Path) -> Result<Option<Identity>, LogError> {
    let path = folder.join(IDENTITY);
    let identity: Option<Identity> = manifest::read(disk, &path, FORMAT)?;
    match identity {
        None if disk.open(&folder.join(RESTORING)).is_ok() => {
            let reason = format!("the restore into {} was not finished; remove the folder and restore again", folder.display());
            Err(LogError::Invalid { field: "data".into(), reason })
        }
        None if TopicStore::holds_any(disk, folder) => {
            let what = "it is missing, but the folder holds topics".into();
            Err(LogError::Corrupt { file: path, from: 0, end: 0, what })
        }
        identity => Ok(identity),
    }
}

/// A new folder within the data folder of another log would be copied, moved and removed with that one.
pub(crate) fn refuse_within_another(disk: &dyn Disk, folder: &Path) -> Result<(), LogError> {
    let folder = std::path::absolute(folder).map_err(|source| LogError::io("find", folder, source))?;
    let nearest = folder.ancestors().find(|at| disk.open(&at.join(IDENTITY)).is_ok());
    let Some(outer) = nearest.filter(|nearest| *nearest != folder) else { return Ok(()) };
    let reason = format!("{} lies within {}, the data folder of another log; choose another one", folder.display(), outer.display());
    Err(LogError::Invalid { field: "data".into(), reason })
}

/// Makes an empty folder's files; the identity comes last, so that a folder that has one has everything.
pub(super) fn create(disk: &dyn Disk, folder: &Path, config: &LogConfig, random: &mut impl FnMut() -> u128) -> Result<Identity, LogError> {
    let id = random();
    for part in [journal::file::FOLDER, topic_store::FOLDER] {
        let path = folder.join(part);
        disk.create_folder(&path).map_err(|source| LogError::io("create", &path, source))?;
    }
    JournalFiles::create_first(disk, folder, config)?;
    let first = Checkpoint {
        sequence: 1,
        folder: FolderId::new(id.to_le_bytes()),
        epoch: 0,
        start: 0,
        recovered: 0,
        salt: random(),
        frame: 0,
        frame_crc: 0,
        file: 1,
        file_end: 0,
        next: Position::default(),
        time: Timestamp::new(0),
        window: WindowMark::default(),
        partitions: Vec::new(),
        files: vec![(1, config.first_journal_file_bytes)],
    };
    Slots::create(disk, folder, &first)?;
    let sync = |path: &Path| disk.sync_folder(path).map_err(|source| LogError::io("sync", path, source));
    sync(folder)?;
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync(parent)?;
    }
    let identity = Identity::new(first.folder, Vec::new());
    identity.write(disk, folder)?;
    Ok(identity)
}
