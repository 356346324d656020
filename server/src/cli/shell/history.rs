//! What was typed before: a file of the user's, for the user alone. That there is none is no failure of the shell.

use std::{
    io,
    path::{Path, PathBuf},
};

use reedline::FileBackedHistory;

/// Entries that are kept.
const CAPACITY: usize = 5_000;

/// Where the history lies: below the folder for state, as the XDG base directory specification says.
#[must_use]
pub fn path(state_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    // A path that is not absolute is to be passed over.
    let state_home = state_home.filter(|path| path.is_absolute());
    let folder = state_home.or_else(|| Some(home.filter(|home| home.is_absolute())?.join(".local/state")))?;
    Some(folder.join("foldlog").join("sql_history"))
}

/// The history in that file, or in memory alone, with the reason.
pub fn open(path: Option<&Path>) -> (Option<FileBackedHistory>, Option<String>) {
    let Some(path) = path else { return (FileBackedHistory::new(CAPACITY).ok(), None) };
    let opened = private(path).and_then(|()| FileBackedHistory::with_file(CAPACITY, path.to_owned()).map_err(io::Error::other));
    match opened {
        Ok(history) => (Some(history), None),
        Err(error) => {
            let reason = format!("what you type is not kept: {}: {error}", path.display());
            (FileBackedHistory::new(CAPACITY).ok(), Some(reason))
        }
    }
}

/// Makes the file and its folders, for the user alone: statements may hold what others must not read.
#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the history is the user's file, not the log's")]
fn private(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    drop(file);
    Ok(())
}

#[cfg(test)]
mod tests {
    use reedline::{History as _, HistoryItem};

    use super::*;

    #[test]
    fn the_place_is_that_of_the_specification() {
        let given = |state: Option<&str>, home: Option<&str>| path(state.map(PathBuf::from), home.map(PathBuf::from));
        assert_eq!(given(Some("/s"), Some("/h")), Some(PathBuf::from("/s/foldlog/sql_history")));
        assert_eq!(given(Some("s"), Some("/h")), Some(PathBuf::from("/h/.local/state/foldlog/sql_history")));
        assert_eq!(given(None, None), None);
    }

    #[test]
    fn what_was_typed_is_there_again_and_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/history");
        let (history, trouble) = open(Some(&path));
        assert_eq!(trouble, None);
        let mut history = history.unwrap();
        history.save(HistoryItem::from_command_line("SELECT\n1;")).unwrap();
        drop(history);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let (again, _) = open(Some(&path));
        assert_eq!(again.unwrap().load(reedline::HistoryItemId::new(0)).unwrap().command_line, "SELECT\n1;");
    }

    #[test]
    fn a_history_that_cannot_be_written_is_kept_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let (history, trouble) = open(Some(folder.path()));
        assert!(history.is_some() && trouble.unwrap().starts_with("what you type is not kept: "));
    }
}
