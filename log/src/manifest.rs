//! Small files that are written once: the folder's identity and each topic's manifest. One line of JSON, one of checksum.
//!
//! Each says its format, from 1 on. What stands on the log keeps such files, too. Invariant: a manifest is either not there or whole, whenever the power goes; one that is there
//! and not whole is damage.

use std::{io, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{disk::Disk, error::LogError};

/// Largest manifest that is read.
const MAX_LEN: u64 = 64 << 10;

/// Extension of what is written beside a manifest first. After a crash it may be left behind.
pub(crate) const UNFINISHED: &str = "new";

/// Writes `content` under `path`: beside it first, synced, then renamed, and the folder synced.
///
/// # Errors
/// [`LogError::DiskFull`], [`LogError::Io`].
pub fn write<T: Serialize>(disk: &dyn Disk, path: &Path, content: &T) -> Result<(), LogError> {
    let text = encode(content).map_err(|error| LogError::io("encode", path, io::Error::other(error)))?;
    let beside = path.with_extension(UNFINISHED);
    let folder = path.parent().unwrap_or(path);
    let put = || -> io::Result<_> {
        let file = match disk.create(&beside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk.open(&beside),
            made => made,
        }?;
        file.set_len(0)?;
        file.write_at(0, text.as_bytes())?;
        Ok(file)
    };
    let file = put().map_err(|source| {
        // A start removes what cannot be removed now.
        let _ = disk.remove(&beside);
        LogError::full_or_io("write", &beside, source)
    })?;
    // A failed sync is never just a full disk: nobody knows what it left.
    file.sync().map_err(|source| LogError::io("sync", &beside, source))?;
    disk.rename(&beside, path).map_err(|source| LogError::full_or_io("rename", &beside, source))?;
    disk.sync_folder(folder).map_err(|source| LogError::io("sync", folder, source))
}

/// What lies in a manifest's file.
///
/// # Errors
/// If `content` has what JSON has not.
pub(crate) fn encode<T: Serialize>(content: &T) -> serde_json::Result<String> {
    let mut text = serde_json::to_string(content)?;
    text.push_str(&format!("\ncrc32c {:08x}\n", crc32c::crc32c(text.as_bytes())));
    Ok(text)
}

/// What every manifest says, whatever its format.
#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

/// Reads the manifest at `path`; none if there is none.
///
/// # Errors
/// [`LogError::Format`] if it is newer than `newest`, [`LogError::Corrupt`] if it is not whole.
pub(crate) fn read<T: DeserializeOwned>(disk: &dyn Disk, path: &Path, newest: u32) -> Result<Option<T>, LogError> {
    read_within(disk, path, newest, MAX_LEN)
}

/// Reads the manifest at `path`, of a format from 1 to `newest` and at most `longest` bytes; none if there is none.
///
/// # Errors
/// [`LogError::Format`] if it is newer than `newest`, [`LogError::Corrupt`] if it is not whole, [`LogError::Io`].
pub fn read_within<T: DeserializeOwned>(disk: &dyn Disk, path: &Path, newest: u32, longest: u64) -> Result<Option<T>, LogError> {
    let file = match disk.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LogError::io("open", path, source)),
    };
    let read = || -> io::Result<Vec<u8>> {
        let length = file.len()?.min(longest);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let read = file.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    };
    let bytes = read().map_err(|source| LogError::io("read", path, source))?;
    let corrupt = |what: String| LogError::Corrupt { file: path.to_owned(), from: 0, end: bytes.len() as u64, what };
    let content = checked(&bytes).ok_or_else(|| corrupt("it is not what its checksum promised".into()))?;
    let no_manifest = |error| corrupt(format!("it is not a manifest of this build: {error}"));
    // Before anything else: a newer one has what is not known here.
    let format = format_in(content).map_err(no_manifest)?;
    if !(1..=newest).contains(&format) {
        return Err(LogError::Format { file: path.to_owned(), found: format, supported: newest });
    }
    Ok(Some(serde_json::from_str(content).map_err(no_manifest)?))
}

fn format_in(content: &str) -> serde_json::Result<u32> {
    serde_json::from_str(content).map(|Versioned { format }| format)
}

/// Format of a whole manifest, if that is what it is.
pub(crate) fn format_of(content: &str) -> Option<u32> {
    format_in(content).ok()
}

/// What a manifest says, if it is whole.
pub(crate) fn checked(bytes: &[u8]) -> Option<&str> {
    let (content, checksum) = std::str::from_utf8(bytes).ok()?.split_once('\n')?;
    let expected = format!("crc32c {:08x}\n", crc32c::crc32c(content.as_bytes()));
    (checksum == expected).then_some(content)
}
