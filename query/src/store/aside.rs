//! What is damaged or foreign is renamed, so that somebody may look at it, and only the newest few such are kept.

use std::path::{Path, PathBuf};

use foldlog_log::disk::Disk;

use super::StoreError;

/// What follows the name of something that was set aside, before its number.
const ASIDE: &str = ".aside-";
/// How many of a folder's are kept.
const MOST: usize = 4;

/// Renames something in `folder`, and removes the oldest that were set aside there before.
///
/// # Errors
/// What the disk says.
pub(crate) fn set_aside(disk: &dyn Disk, folder: &Path, name: &str) -> Result<PathBuf, StoreError> {
    let mut numbered: Vec<(u64, String)> = Vec::new();
    for entry in disk.list(folder).map_err(StoreError::io("list", folder))? {
        let number = entry.name.rsplit_once(ASIDE).and_then(|(_, number)| number.parse().ok());
        numbered.extend(number.map(|number| (number, entry.name)));
    }
    numbered.sort();
    let number = numbered.last().map_or(0, |(number, _)| number + 1);
    let surplus = (numbered.len() + 1).saturating_sub(MOST);
    for (_, old) in numbered.iter().take(surplus) {
        remove_all(disk, &folder.join(old))?;
    }
    let (from, to) = (folder.join(name), folder.join(format!("{name}{ASIDE}{number}")));
    disk.rename(&from, &to).map_err(StoreError::io("set aside", &from))?;
    disk.sync_folder(folder).map_err(StoreError::io("sync", folder))?;
    Ok(to)
}

/// Removes a file, or a folder with all that is in it.
///
/// # Errors
/// What the disk says.
pub(crate) fn remove_all(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    let Ok(entries) = disk.list(path) else {
        return disk.remove(path).map_err(StoreError::io("remove", path));
    };
    for entry in entries {
        let inner = path.join(&entry.name);
        if entry.is_folder {
            remove_all(disk, &inner)?;
        } else {
            disk.remove(&inner).map_err(StoreError::io("remove", &inner))?;
        }
    }
    disk.remove_folder(path).map_err(StoreError::io("remove", path))
}
