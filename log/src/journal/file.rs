//! Journal files: zero-filled ahead, so that a sync changes no size, and used again when segments hold what was in them.
//!
//! The committer asks for room before a group and writes frames, tidy fills spare files and frees old ones, readers fetch old
//! frames. Invariants: a file is synced, and its folder, before a frame is written to it; files are never renamed or shortened;
//! order comes from frame numbers alone.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::frame::{self, FrameBody, FrameHeader};
use crate::{
    config::{BLOCK, LogConfig},
    disk::{Disk, DiskFile},
    error::LogError,
    record::Purpose,
    reserve::Reserve,
};

/// Folder of the journal within the data folder.
pub(crate) const FOLDER: &str = "journal";
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Where a frame lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FramePlace {
    /// Number of the file.
    pub(crate) file: u32,
    /// First byte.
    pub(crate) at: u64,
    /// Length, padding included.
    pub(crate) length: u64,
}

impl FramePlace {
    pub(crate) const fn end(self) -> u64 {
        self.at + self.length
    }
}

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct JournalFile {
    pub(crate) number: u32,
    pub(crate) path: PathBuf,
    pub(crate) handle: Arc<dyn DiskFile>,
    pub(crate) length: u64,
    /// Newest frame in it that is part of the log; none: free.
    pub(crate) newest: Option<u64>,
    /// Whether its length and name are durable for certain.
    is_settled: bool,
    /// The oldest frame of which it may hold bytes, whether they count or not; none: it holds zeros.
    oldest: Option<u64>,
    /// Nothing was written to it since the start, and nobody has looked at what is in it.
    is_untouched: bool,
    /// It is being filled with zeros.
    is_erased: bool,
}

/// What is left to be done before no file holds bytes of certain frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Erasing {
    /// Nothing.
    Done,
    /// The next frame begins another file, so that the one that is written becomes free.
    NeedsFrame,
    /// Segments must hold what is in files with such frames.
    NeedsTidy,
}

#[derive(Debug)]
struct State {
    files: Vec<JournalFile>,
    /// Place in `files` of the one that is written, and the byte after its last frame.
    current: usize,
    at: u64,
    /// The next frame begins another file, if one is free that has room for it.
    turns: bool,
}

/// The files of one folder.
#[derive(Debug)]
pub(crate) struct JournalFiles {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    file_bytes: u64,
    reserve: Arc<Reserve>,
    state: Mutex<State>,
    /// One file is made at a time, by the committer that needs it or by tidy ahead of it.
    making: Mutex<()>,
}

impl JournalFiles {
    /// Path of the file with `number`.
    pub(crate) fn path(folder: &Path, number: u32) -> PathBuf {
        folder.join(format!("{number:06}.journal"))
    }

    /// Opens what lies in the data folder's journal. `known` are files that a checkpoint names, with their lengths; the report
    /// of one that is missing or shorter comes with them.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        data: &Path,
        config: &LogConfig,
        reserve: Arc<Reserve>,
        known: &[(u32, u64)],
    ) -> Result<(Self, Option<LogError>), LogError> {
        let folder = data.join(FOLDER);
        let entries = disk.list(&folder).map_err(|source| LogError::io("list", &folder, source))?;
        let mut files = Vec::new();
        for entry in entries {
            let Some(number) = entry.name.strip_suffix(".journal").and_then(|number| number.parse::<u32>().ok()) else { continue };
            let path = Self::path(&folder, number);
            // `1.journal` is a number too, and none of ours.
            if path.file_name() != Some(OsStr::new(&entry.name)) {
                continue;
            }
            let open = || -> io::Result<_> {
                let handle = disk.open(&path)?;
                let length = handle.len()?;
                Ok((handle, length))
            };
            let (handle, length) = open().map_err(|source| LogError::io("open", &path, source))?;
            let is_settled = known.iter().any(|(of, settled)| *of == number && *settled == length);
            // Nobody knows which frames it held.
            let (newest, oldest) = (None, Some(0));
            files.push(JournalFile { number, path, handle, length, newest, is_settled, oldest, is_untouched: true, is_erased: false });
        }
        files.sort_by_key(|file| file.number);
        let shortened = known.iter().find_map(|(number, settled)| {
            let length = files.iter().find(|file| file.number == *number).map(|file| file.length);
            let what = match length {
                None => "the journal file is missing".into(),
                Some(length) if length < *settled => format!("the journal file has {length} of {settled} bytes"),
                Some(_) => return None,
            };
            let what = format!("{what}; what was appended last may have been in it");
            Some(LogError::Corrupt { file: Self::path(&folder, *number), from: length.unwrap_or(0), end: *settled, what })
        });
        let journal = Self {
            disk,
            folder,
            file_bytes: config.journal_file_bytes,
            reserve,
            state: Mutex::new(State { files, current: 0, at: 0, turns: false }),
            making: Mutex::new(()),
        };
        Ok((journal, shortened))
    }

    /// Number and length of each file whose name and length are durable for certain.
    pub(crate) fn settled(&self) -> Vec<(u32, u64)> {
        self.state.lock().files.iter().filter(|file| file.is_settled).map(|file| (file.number, file.length)).collect()
    }

    /// Makes the first file of a new folder, over what an unfinished creation left.
    pub(crate) fn create_first(disk: &dyn Disk, data: &Path, config: &LogConfig) -> Result<(), LogError> {
        let folder = data.join(FOLDER);
        let path = Self::path(&folder, 1);
        let make = || {
            let handle = match disk.create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk.open(&path),
                made => made,
            }?;
            fill(handle.as_ref(), config.first_journal_file_bytes)?;
            handle.sync()?;
            disk.sync_folder(&folder)
        };
        make().map_err(|source| LogError::full_or_io("make", &path, source))
    }

    /// The files as they are.
    pub(crate) fn files(&self) -> Vec<JournalFile> {
        self.state.lock().files.clone()
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.state.lock().files.iter().map(|file| file.length).sum()
    }

    /// Says where the log ends and which frames each file holds: recovery, before anything is written.
    pub(crate) fn resume(&self, end: FramePlace, newest: &[(u32, u64)]) {
        let mut state = self.state.lock();
        for file in &mut state.files {
            file.newest = newest.iter().filter(|(number, _)| *number == file.number).map(|(_, frame)| *frame).max();
        }
        if let Some(current) = state.files.iter().position(|file| file.number == end.file) {
            state.current = current;
            state.at = end.end();
        }
    }

    /// Makes sure that a frame of `length` bytes can be written without allocating; returns how long it may become.
    ///
    /// # Errors
    /// [`LogError::DiskFull`] when there is no space for another file, or none for that purpose; then nothing has changed.
    pub(crate) fn make_room(&self, length: u64, purpose: Purpose) -> Result<u64, LogError> {
        if let Some(room) = self.state.lock().room(length) {
            return Ok(room);
        }
        let _making = self.making.lock();
        if let Some(room) = self.state.lock().room(length) {
            return Ok(room);
        }
        let made = self.file_bytes.max(frame::padded(length));
        self.make(made, purpose)?;
        Ok(made)
    }

    /// Whether a frame of `length` bytes can be written without allocating.
    pub(crate) fn has_room(&self, length: u64) -> bool {
        self.state.lock().room(length).is_some()
    }

    /// Whether the current file is over half full, none is free, and there is space for one.
    pub(crate) fn wants_file(&self) -> bool {
        self.is_half_full() && self.reserve.has_spare(self.file_bytes)
    }

    fn is_half_full(&self) -> bool {
        let state = self.state.lock();
        let half_full = state.files.get(state.current).is_some_and(|file| state.at > file.length / 2);
        half_full && !state.files.iter().enumerate().any(|(place, file)| place != state.current && file.is_free())
    }

    /// Makes a spare file if one is wanted; tidy calls it, so that groups need not wait.
    pub(crate) fn fill_pool(&self) -> Result<(), LogError> {
        let _making = self.making.lock();
        if self.is_half_full() { self.make(self.file_bytes, Purpose::Data) } else { Ok(()) }
    }

    fn make(&self, length: u64, purpose: Purpose) -> Result<(), LogError> {
        self.reserve.admits_file(length, purpose)?;
        let number = self.state.lock().files.iter().map(|file| file.number + 1).max().unwrap_or(1);
        let path = Self::path(&self.folder, number);
        let handle = self.disk.create(&path).map_err(|source| LogError::full_or_io("create", &path, source))?;
        if let Err(source) = fill(handle.as_ref(), length) {
            // Nothing refers to it yet; if it cannot be removed it is used as it is after the next start.
            let _ = self.disk.remove(&path);
            return Err(LogError::full_or_io("fill", &path, source));
        }
        handle.sync().map_err(|source| LogError::io("sync", &path, source))?;
        self.disk.sync_folder(&self.folder).map_err(|source| LogError::io("sync", &self.folder, source))?;
        let (newest, oldest, is_settled) = (None, None, true);
        let file = JournalFile { number, path, handle, length, newest, is_settled, oldest, is_untouched: false, is_erased: false };
        self.state.lock().files.push(file);
        Ok(())
    }

    /// Gives frame `number` its place behind the last one; [`JournalFiles::make_room`] has made sure that there is one.
    pub(crate) fn place(&self, number: u64, length: u64) -> Result<FramePlace, LogError> {
        let mut state = self.state.lock();
        let turns = state.turns && state.free_file(length).is_some();
        if turns || state.files.get(state.current).is_none_or(|file| file.length.saturating_sub(state.at) < length) {
            let Some(next) = state.free_file(length) else {
                return Err(LogError::DiskFull { what: format!("no journal file has {length} bytes left") });
            };
            state.current = next;
            (state.at, state.turns) = (0, false);
            let file = state.files[next].clone();
            drop(state);
            // Whatever was written to it in its former life, and its name, must be settled before a frame rests on it.
            file.handle.sync().map_err(|source| LogError::io("sync", &file.path, source))?;
            self.disk.sync_folder(&self.folder).map_err(|source| LogError::io("sync", &self.folder, source))?;
            state = self.state.lock();
            if let Some(file) = state.files.get_mut(next) {
                file.is_settled = true;
            }
        }
        let (current, at) = (state.current, state.at);
        state.at += length;
        let file = &mut state.files[current];
        (file.newest, file.is_untouched) = (Some(number), false);
        file.oldest.get_or_insert(number);
        Ok(FramePlace { file: file.number, at, length })
    }

    /// Writes a frame at its place, without syncing it.
    pub(crate) fn write(&self, place: FramePlace, bytes: &[u8]) -> Result<(), LogError> {
        let file = self.file(place.file)?;
        file.handle.write_at(place.at, bytes).map_err(|source| LogError::io("write the journal", &file.path, source))
    }

    /// Makes the frame at `place` durable.
    pub(crate) fn sync(&self, place: FramePlace) -> Result<(), LogError> {
        let file = self.file(place.file)?;
        file.handle.sync().map_err(|source| LogError::io("sync the journal", &file.path, source))
    }

    /// Lets files be used again that hold no frame above `number`, but never the one being written.
    pub(crate) fn free_up_to(&self, number: u64) {
        let mut state = self.state.lock();
        let current = state.current;
        for (place, file) in state.files.iter_mut().enumerate() {
            if place != current && file.newest.is_some_and(|newest| newest <= number) {
                file.newest = None;
            }
        }
    }

    /// Fills files with zeros until none holds bytes of frames up to `number`, as far as that can be done now: a file that is in use
    /// comes later. Blocking.
    ///
    /// # Errors
    /// [`LogError::Io`], after which the log must end; [`LogError::DiskFull`].
    pub(crate) fn erase_up_to(&self, number: u64) -> Result<Erasing, LogError> {
        self.find_zeros()?;
        loop {
            let taken = self.state.lock().take_to_erase(number);
            let file = match taken {
                Free::Taken(file) => file,
                Free::NeedsSpare(length) => {
                    let _making = self.making.lock();
                    self.make(length, Purpose::Upkeep)?;
                    continue;
                }
                Free::None => break,
            };
            let zeroed = fill(file.handle.as_ref(), file.length).and_then(|()| file.handle.sync());
            zeroed.map_err(|source| LogError::io("fill with zeros", &file.path, source))?;
            if let Some(file) = self.state.lock().files.iter_mut().find(|one| one.number == file.number) {
                (file.oldest, file.is_erased) = (None, false);
            }
        }
        let mut state = self.state.lock();
        let current = state.current;
        if state.files.get(current).is_some_and(|file| file.holds_up_to(number)) {
            state.turns = true;
            if state.free_file(BLOCK).is_none() {
                drop(state);
                let _making = self.making.lock();
                self.make(self.file_bytes, Purpose::Upkeep)?;
            }
            return Ok(Erasing::NeedsFrame);
        }
        let is_done = !state.files.iter().any(|file| file.holds_up_to(number));
        Ok(if is_done { Erasing::Done } else { Erasing::NeedsTidy })
    }

    /// Finds those of the files which the start found, and which nothing was written to since, that hold nothing but zeros.
    fn find_zeros(&self) -> Result<(), LogError> {
        for file in self.files().iter().filter(|file| file.is_untouched && file.newest.is_none()) {
            let is_zero = holds_zeros(&*file.handle, file.length);
            if is_zero {
                // Whoever filled it may not have lived to sync it.
                file.handle.sync().map_err(|source| LogError::io("sync", &file.path, source))?;
            }
            let mut state = self.state.lock();
            let still = state.files.iter_mut().find(|one| one.number == file.number && one.is_untouched);
            if let Some(file) = still {
                file.is_untouched = false;
                file.oldest = file.oldest.filter(|_| !is_zero);
            }
        }
        Ok(())
    }

    fn file(&self, number: u32) -> Result<JournalFile, LogError> {
        let state = self.state.lock();
        let found = state.files.iter().find(|file| file.number == number);
        found.cloned().ok_or_else(|| LogError::Corrupt {
            file: Self::path(&self.folder, number),
            from: 0,
            end: 0,
            what: "a journal file that was in use is gone".into(),
        })
    }

    /// Reads an old frame.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if it is not there: damaged, or its place was given to another one since.
    pub(crate) fn read(&self, place: FramePlace, number: u64) -> Result<(FrameHeader, FrameBody), LogError> {
        let file = self.file(place.file)?;
        let bytes = read_bytes(&file, place.at, place.length)?;
        let header = FrameHeader::decode(&bytes).ok().filter(|header| header.number == number);
        let read = header.and_then(|header| Some((frame::decode_body(&header, &bytes).ok()?, header)));
        let (body, header) = read.ok_or_else(|| LogError::Corrupt {
            file: file.path,
            from: place.at,
            end: place.end(),
            what: format!("frame {number} is not what its checksum promised"),
        })?;
        Ok((header, body))
    }
}

impl JournalFile {
    /// Whether it may hold bytes of a frame up to `number`.
    fn holds_up_to(&self, number: u64) -> bool {
        self.oldest.is_some_and(|oldest| oldest <= number)
    }

    fn is_free(&self) -> bool {
        self.newest.is_none() && !self.is_erased
    }
}

/// A free file that is to be filled with zeros.
enum Free {
    Taken(JournalFile),
    /// There is one, but another one of its length must be free beside it: room may have been promised in it.
    NeedsSpare(u64),
    None,
}

impl State {
    fn take_to_erase(&mut self, number: u64) -> Free {
        let current = self.current;
        let is_free = |place: usize, file: &JournalFile| place != current && file.is_free();
        let mut files = self.files.iter().enumerate();
        let Some((at, file)) = files.find(|(place, file)| is_free(*place, file) && file.holds_up_to(number)) else { return Free::None };
        let length = file.length;
        let mut others = self.files.iter().enumerate().filter(|(place, _)| *place != at);
        if !others.any(|(place, file)| is_free(place, file) && file.length >= length) {
            return Free::NeedsSpare(length);
        }
        let file = &mut self.files[at];
        file.is_erased = true;
        Free::Taken(file.clone())
    }

    fn room(&self, length: u64) -> Option<u64> {
        let here = self.files.get(self.current).map_or(0, |file| file.length.saturating_sub(self.at));
        if here >= length && !(self.turns && self.free_file(length).is_some()) {
            return Some(here);
        }
        self.free_file(length).map(|free| self.files[free].length)
    }

    fn free_file(&self, length: u64) -> Option<usize> {
        let mut free = self.files.iter().enumerate();
        free.find(|(place, file)| *place != self.current && file.is_free() && file.length >= length).map(|(place, _)| place)
    }
}

/// Reads `length` bytes of a journal file; beyond its end, zeros.
pub(crate) fn read_bytes(file: &JournalFile, at: u64, length: u64) -> Result<Bytes, LogError> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.handle.read_at(at, &mut bytes).map_err(|source| LogError::io("read", &file.path, source))?;
    Ok(bytes.into())
}

fn fill(handle: &dyn DiskFile, length: u64) -> io::Result<()> {
    let mut at = 0;
    while at < length {
        let part = usize::try_from((length - at).min(ZEROS.len() as u64)).unwrap_or(ZEROS.len());
        handle.write_at(at, &ZEROS[..part])?;
        at += part as u64;
    }
    Ok(())
}

/// Whether a file has nothing but zeros; not if it cannot be read.
fn holds_zeros(handle: &dyn DiskFile, length: u64) -> bool {
    let (mut at, mut bytes) = (0, vec![0; ZEROS.len()]);
    while at < length {
        let part = usize::try_from((length - at).min(ZEROS.len() as u64)).unwrap_or(ZEROS.len());
        let read = handle.read_at(at, &mut bytes[..part]);
        if read.is_err() || bytes[..part] != ZEROS[..part] {
            return false;
        }
        at += part as u64;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::ManualClock,
        ids::Timestamp,
        testing::{CallKind, SimDisk},
    };

    const DATA: &str = "/data";

    fn open(disk: &SimDisk, config: &LogConfig) -> JournalFiles {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let clock = Arc::new(ManualClock::at(Timestamp::new(0)));
        let reserve = Arc::new(Reserve::new(Arc::clone(&disk), clock, Path::new(DATA), config));
        JournalFiles::open(disk, Path::new(DATA), config, reserve, &[]).unwrap().0
    }

    #[test]
    fn of_files_that_a_start_finds_those_of_zeros_are_not_filled_again() {
        let disk = SimDisk::new(1);
        let config = LogConfig { first_journal_file_bytes: 64 << 10, journal_file_bytes: 128 << 10, ..LogConfig::default() };
        disk.create_folder(&Path::new(DATA).join(FOLDER)).unwrap();
        JournalFiles::create_first(&disk, Path::new(DATA), &config).unwrap();
        let files = open(&disk, &config);
        for _ in 0..3 {
            files.make(128 << 10, Purpose::Upkeep).unwrap();
        }
        // In the last block of one, and of another what is written first.
        for (file, at) in [(2, (128 << 10) - BLOCK), (3, 0)] {
            files.write(FramePlace { file, at, length: BLOCK }, b"secret").unwrap();
        }
        let files = open(&disk, &config);
        files.resume(FramePlace { file: 1, at: 0, length: BLOCK }, &[(1, 7)]);
        let (written, synced) = (disk.count(CallKind::Write), disk.count(CallKind::Sync));
        assert_eq!(files.erase_up_to(7).unwrap(), Erasing::NeedsFrame, "one is in use");
        assert_eq!(disk.count(CallKind::Write) - written, 2 * 2, "two of three, in two steps each");
        assert_eq!(disk.count(CallKind::Sync) - synced, 3, "zeros that nobody synced are synced");
        assert!(disk.paths().iter().all(|path| !disk.bytes_of(path).unwrap().windows(6).any(|bytes| bytes == b"secret")));
        assert_eq!(files.place(8, BLOCK).unwrap().file, 2, "the next frame begins another");
        files.free_up_to(7);
        assert_eq!(files.erase_up_to(7).unwrap(), Erasing::Done);
    }
}
