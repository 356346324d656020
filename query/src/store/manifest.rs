//! Outside the store: which checkpoint of each owner was the last that became durable.
//!
//! Used by `stream/checkpointer`. A page store may lose what it was told to keep and open as an older one, or an empty one,
//! without a word; this file tells. Written after the store's sync, synced, then renamed. Invariant: what it names was durable.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use foldlog_log::{Head, LogError, disk::Disk, manifest};
use serde::{Deserialize, Serialize};

/// Name of the file.
pub(crate) const NAME: &str = "checkpoints";
/// Format of the file.
const FORMAT: u32 = 1;
/// Longest file that is read: ten thousand queries and room to spare.
const MAX_LEN: u64 = 16 << 20;

/// The durable checkpoints of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    folder: String,
    epoch: u32,
    /// Number of the newest checkpoint, by owner.
    pub(crate) owners: BTreeMap<String, u64>,
}

/// What was found.
#[derive(Debug)]
pub(crate) enum Found {
    /// None was ever written.
    Nothing,
    /// Those of this folder.
    Ours(Manifest),
    /// Nothing that can be believed: the reason.
    Unusable(String),
}

impl Manifest {
    /// One that names nothing.
    pub(crate) fn empty(head: &Head) -> Self {
        Self { format: FORMAT, folder: head.folder.to_string(), epoch: head.epoch, owners: BTreeMap::new() }
    }

    /// Reads that of a folder of checkpoints.
    pub(crate) fn read(disk: &dyn Disk, folder: &Path, head: &Head) -> Found {
        match manifest::read_within::<Self>(disk, &path(folder), FORMAT, MAX_LEN) {
            Ok(None) => Found::Nothing,
            Ok(Some(found)) if found.folder == head.folder.to_string() && found.epoch == head.epoch => Found::Ours(found),
            Ok(Some(_)) => Found::Unusable("it belongs to another data folder, or to this one before it was restored".to_owned()),
            Err(error) => Found::Unusable(error.to_string()),
        }
    }

    /// Puts it in place of the one before, durably.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn write(&self, disk: &dyn Disk, folder: &Path) -> Result<(), LogError> {
        manifest::write(disk, &path(folder), self)
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join(NAME)
}
