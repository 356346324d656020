//! The postings of a folder: recent ones in memory, and files that follow each other in position up to where those begin.
//!
//! Tidy adds files, a start chooses those that a checkpoint covers, lookups ask. Invariant: the files leave no gap below the floor
//! of what is in memory; a file that was replaced is removed only when a checkpoint covers what replaced it and no lookup holds it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use tracing::warn;

use super::{
    key::Posting,
    recent::Recent,
    table::{self, Range, Table},
};
use crate::{
    error::LogError,
    ids::{FolderId, Position},
    segment::{OpenFiles, fresh, remove_if_there},
};

/// Folder of postings within the data folder.
pub(crate) const FOLDER: &str = "postings";
/// End of the name of a file that is made of everything there was.
const WHOLE: &str = "postings";
/// End of the name of a file that lacks what could not be read when it was made; the next start makes it again.
const PARTIAL: &str = "partial";
/// Most bytes of pages that are merged into one file, which happens in memory.
const MERGE_BYTES: usize = 16 << 20;

/// Where an event can be found by type and tags.
#[derive(Debug)]
pub(crate) struct Postings {
    files: Arc<OpenFiles>,
    folder: PathBuf,
    id: FolderId,
    /// Most bytes that filters take in memory.
    filter_bytes: u64,
    pub(crate) recent: Recent,
    /// By position.
    tables: RwLock<Vec<Arc<Table>>>,
    /// Whether something could not be read for a file, or one before it.
    is_partial: AtomicBool,
    writer: Mutex<Writer>,
}

#[derive(Debug, Default)]
struct Writer {
    /// Whether the folder was made, or found.
    has_folder: bool,
    /// What a start passed over, and what was replaced, with the table that lookups may still hold.
    stale: Vec<(PathBuf, Option<Arc<Table>>)>,
}

impl Postings {
    /// Takes the files that follow each other from the beginning and that a checkpoint covers. Changes nothing.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub(crate) fn open(
        files: Arc<OpenFiles>,
        data: &Path,
        id: FolderId,
        checkpointed: Position,
        filter_bytes: u64,
    ) -> Result<Self, LogError> {
        let folder = data.join(FOLDER);
        let (entries, has_folder) = match files.disk().list(&folder) {
            Ok(entries) => (entries, true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (Vec::new(), false),
            Err(source) => return Err(LogError::io("list", &folder, source)),
        };
        let mut stale = Vec::new();
        let mut ranges = Vec::new();
        for entry in entries.iter().filter(|entry| !entry.is_folder) {
            match parse(&entry.name) {
                Some((range, WHOLE)) if range.covers <= checkpointed => ranges.push(range),
                Some(_) => stale.push((folder.join(&entry.name), None)),
                None => {}
            }
        }
        // Of files that begin at the same position the one that covers most was made of the others.
        ranges.sort_unstable_by_key(|range| (range.from, std::cmp::Reverse(range.covers)));
        let mut tables: Vec<Arc<Table>> = Vec::new();
        for range in ranges {
            let path = folder.join(name(range, WHOLE));
            let next = tables.last().map_or(Position::default(), |table| table.range.covers);
            if range.from != next {
                stale.push((path, None));
                continue;
            }
            match Table::open(&files, path.clone(), id, range) {
                Ok(table) => tables.push(Arc::new(table)),
                Err(error) => {
                    warn!(%error, "making postings again");
                    stale.push((path, None));
                }
            }
        }
        let (recent, is_partial) = (Recent::new(checkpointed), AtomicBool::new(false));
        let writer = Mutex::new(Writer { has_folder, stale });
        drop_filters_over(filter_bytes, &tables);
        Ok(Self { files, folder, id, filter_bytes, recent, tables: RwLock::new(tables), is_partial, writer })
    }

    /// Removes what opening passed over, and what was replaced. The checkpoint after the last [`Postings::add`] must be durable.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub(crate) fn checkpointed(&self) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        // Nobody finds such a table any more; who found it before looks on, and the next call removes it.
        let is_held = |table: &Option<Arc<Table>>| table.as_ref().is_some_and(|table| Arc::strong_count(table) > 1);
        let (held, free): (Vec<_>, Vec<_>) = std::mem::take(&mut writer.stale).into_iter().partition(|(_, table)| is_held(table));
        writer.stale = held;
        for (path, _) in free {
            self.files.forget(&path);
            remove_if_there(&**self.files.disk(), &path)?;
        }
        Ok(())
    }

    /// Position below which files hold everything.
    pub(crate) fn covered(&self) -> Position {
        self.tables.read().last().map_or(Position::default(), |table| table.range.covers)
    }

    /// From now on files lack something.
    pub(crate) fn lacks_something(&self) {
        self.is_partial.store(true, Ordering::SeqCst);
    }

    /// Whether files may lack something of damaged partitions. Ask after what was looked up.
    pub(crate) fn may_lack_something(&self) -> bool {
        self.is_partial.load(Ordering::SeqCst)
    }

    /// Moves all postings below a position from memory into a file, durably. For tidy; the position must be a durable end.
    ///
    /// # Errors
    /// As [`Postings::add`].
    pub(crate) fn add_recent(&self, covers: Position) -> Result<(), LogError> {
        self.add(self.recent.below(covers), covers)
    }

    /// Adds all postings up to a position behind those that files hold, durably, and lets memory go. For tidy and a start.
    ///
    /// # Errors
    /// [`LogError::Io`]; after a failed sync the process must end.
    pub(crate) fn add(&self, mut postings: Vec<Posting>, covers: Position) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        let tables = self.tables.read().clone();
        let mut range = Range { from: tables.last().map_or(Position::default(), |table| table.range.covers), covers };
        if range.from >= covers || postings.is_empty() {
            // The next file begins where the last one ends, so it leaves no gap.
            self.recent.forget(&[], covers);
            return Ok(());
        }
        let own = postings.clone();
        let mut size = postings.len() * size_of::<Posting>() / 2;
        let mut keep = tables.len();
        while let Some(last) = keep.checked_sub(1)
            && let Some(older) = tables.get(last)
            && older.size() <= 2 * size
            && older.size() + size <= MERGE_BYTES
        {
            let before = postings.len();
            if let Err(error) = older.all(&mut postings) {
                // Whoever looks there next makes it again.
                warn!(%error, "a file of postings cannot be merged");
                postings.truncate(before);
                break;
            }
            (size, keep, range.from) = (size + older.size(), last, older.range.from);
        }
        let (kept, merged) = tables.split_at(keep);
        let table = self.write(&mut writer, range, &mut postings)?;
        writer.stale.extend(merged.iter().map(|table| (table.path.clone(), Some(Arc::clone(table)))));
        let tables: Vec<_> = kept.iter().cloned().chain([Arc::new(table)]).collect();
        drop_filters_over(self.filter_bytes, &tables);
        *self.tables.write() = tables;
        // Lookups ask memory first, so that what moves is seen.
        self.recent.forget(&own, covers);
        Ok(())
    }

    fn write(&self, writer: &mut Writer, range: Range, postings: &mut Vec<Posting>) -> Result<Table, LogError> {
        let disk = &**self.files.disk();
        if !writer.has_folder {
            disk.create_folder(&self.folder).map_err(|source| LogError::io("create folder", &self.folder, source))?;
            writer.has_folder = true;
        }
        let path = self.folder.join(name(range, if self.may_lack_something() { PARTIAL } else { WHOLE }));
        let file = fresh(disk, &path)?;
        file.write_at(0, &table::encode(self.id, range, postings)).map_err(|source| LogError::io("write", &path, source))?;
        file.sync().map_err(|source| LogError::io("sync", &path, source))?;
        disk.sync_folder(&self.folder).map_err(|source| LogError::io("sync folder", &self.folder, source))?;
        self.files.forget(&path);
        Table::open(&self.files, path, self.id, range)
    }

    /// Files that reach a position or further, by position.
    pub(super) fn tables_from(&self, position: Position) -> Vec<Arc<Table>> {
        let tables = self.tables.read();
        let first = tables.partition_point(|table| table.range.covers <= position);
        tables.iter().skip(first).cloned().collect()
    }

    /// Makes a damaged file again: `collect` reads what is posted in a range, and says whether that is all.
    ///
    /// # Errors
    /// Those of `collect`; [`LogError::Io`].
    pub(crate) fn mend(
        &self,
        damaged: &Path,
        collect: impl FnOnce(Position, Position) -> Result<(Vec<Posting>, bool), LogError>,
    ) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        let tables = self.tables.read().clone();
        let Some((place, table)) = tables.iter().enumerate().find(|(_, table)| table.path == damaged) else { return Ok(()) };
        warn!(file = %damaged.display(), "making postings again");
        let (mut postings, is_whole) = collect(table.range.from, table.range.covers)?;
        if !is_whole {
            self.lacks_something();
        }
        self.files.forget(damaged);
        let table = Arc::new(self.write(&mut writer, table.range, &mut postings)?);
        let mut tables = self.tables.write();
        if let Some(old) = tables.get_mut(place) {
            *old = table;
        }
        drop_filters_over(self.filter_bytes, &tables);
        Ok(())
    }
}

/// Lets filters go that have no room, those of the oldest events first: most lookups ask what is new.
fn drop_filters_over(most: u64, tables: &[Arc<Table>]) {
    let mut held = 0;
    for table in tables.iter().rev() {
        let bytes = table.filter_bytes();
        if held + bytes <= most {
            held += bytes;
        } else {
            table.drop_filter();
        }
    }
}

fn name(range: Range, extension: &str) -> String {
    format!("{:020}-{:020}.{extension}", range.from.get(), range.covers.get())
}

fn parse(file: &str) -> Option<(Range, &'static str)> {
    let (range, extension) = file.split_once('.')?;
    let (from, covers) = range.split_once('-')?;
    let extension = [WHOLE, PARTIAL].into_iter().find(|known| *known == extension)?;
    let range = Range { from: Position::new(from.parse().ok()?), covers: Position::new(covers.parse().ok()?) };
    (name(range, extension) == file && range.from < range.covers).then_some((range, extension))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{disk::Disk as _, testing::SimDisk};

    /// Postings of three files that are not merged, each of 1,000 keys of its own.
    fn three_files(disk: &SimDisk, filter_bytes: u64) -> Postings {
        let files = OpenFiles::new(Arc::new(disk.clone()), 8);
        let postings = Postings::open(files, Path::new("/data"), FolderId::new([1; 16]), Position::new(3000), filter_bytes).unwrap();
        let covered = postings.covered().get();
        for first in (covered..3000).step_by(1000) {
            // Each file is less than half of the one before, so that it stays on its own.
            let spans = [8, 3, 1][usize::try_from(first / 1000).unwrap()];
            let one = |at: u64| Posting { key: u128::from(at) << 64 | u128::from(at), first: first + at % 1000, count: 1 };
            let all = (0..1000 * spans).map(|at| one(first * 100 + at)).collect();
            postings.add(all, Position::new(first + 1000)).unwrap();
        }
        postings
    }

    #[test]
    fn filters_of_the_oldest_events_go_when_there_is_no_room() {
        let disk = SimDisk::new(1);
        disk.create_folder(Path::new("/data")).unwrap();
        let held = |postings: &Postings| postings.tables.read().iter().map(|table| table.filter_bytes()).collect::<Vec<_>>();
        assert_eq!(held(&three_files(&disk, u64::MAX)), [10_000, 3750, 1250]);
        for (room, left) in [(15_000, [10_000, 3750, 1250]), (14_999, [0, 3750, 1250]), (1250, [0, 0, 1250]), (0, [0, 0, 0])] {
            let postings = three_files(&disk, room);
            assert_eq!(held(&postings), left, "{room}");
            let terms: [Box<[u128]>; 2] = [Box::new([7 << 64 | 7]), Box::new([8000 << 64 | 8000])];
            let found = |term| postings.first(&terms[term..=term], Position::default(), Position::new(3000)).unwrap();
            assert_eq!((found(0), found(1)), (Some(Position::new(7)), None));
        }
    }
}
