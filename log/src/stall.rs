//! Disks that stall: every sync of the log is watched while it lasts, whatever file or folder it is of.
//!
//! A start wraps its disk in a [`Watched`] one; a thread of its own calls [`run`], which tells of a sync that takes long and ends the
//! log over one that does not end. Invariant: the watcher calls no disk and takes no lock that is held across such a call.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::{
    clock::Clock,
    config::LogConfig,
    disk::{Disk, DiskFile, Entry, Space},
    error::LogError,
};

/// A sync that has not ended.
#[derive(Debug)]
struct UnderWay {
    id: u64,
    path: Arc<Path>,
    since: Duration,
    is_told: bool,
}

#[derive(Debug, Default)]
struct State {
    under_way: Vec<UnderWay>,
    last_id: u64,
    /// The watcher sleeps until a sync begins.
    is_idle: bool,
    has_stopped: bool,
}

/// The syncs of one open folder.
#[derive(Debug)]
pub(crate) struct Syncs {
    clock: Arc<dyn Clock>,
    warn: Duration,
    fatal: Option<Duration>,
    state: Mutex<State>,
    changed: Condvar,
    slow: AtomicU64,
}

/// What the watcher does next.
#[derive(Debug)]
enum Next {
    /// Wait for a sync to begin.
    Sleep,
    /// Look again after so long.
    Look(Duration),
    /// This sync does not end.
    End(LogError),
}

impl Syncs {
    pub(crate) fn new(clock: Arc<dyn Clock>, config: &LogConfig) -> Self {
        let fatal = (config.stall_fatal_ms > 0).then(|| Duration::from_millis(config.stall_fatal_ms));
        let warn = Duration::from_millis(config.stall_warn_ms);
        Self { clock, warn, fatal, state: Mutex::default(), changed: Condvar::new(), slow: AtomicU64::new(0) }
    }

    /// How many took longer than the mark at which the disk is said to stall.
    pub(crate) fn slow(&self) -> u64 {
        self.slow.load(Ordering::Relaxed)
    }

    /// For how long the oldest one that has not ended has been under way.
    pub(crate) fn longest_under_way(&self) -> Duration {
        let state = self.state.lock();
        let oldest = state.under_way.iter().map(|sync| sync.since).min();
        oldest.map_or(Duration::ZERO, |since| self.clock.monotonic().saturating_sub(since))
    }

    /// Ends the watcher.
    pub(crate) fn stop(&self) {
        self.state.lock().has_stopped = true;
        self.changed.notify_all();
    }

    fn watched(&self, path: &Arc<Path>, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let id = self.begin(path);
        let result = sync();
        self.end(id);
        result
    }

    fn begin(&self, path: &Arc<Path>) -> u64 {
        let since = self.clock.monotonic();
        let mut state = self.state.lock();
        state.last_id += 1;
        let id = state.last_id;
        state.under_way.push(UnderWay { id, path: Arc::clone(path), since, is_told: false });
        if std::mem::take(&mut state.is_idle) {
            self.changed.notify_all();
        }
        id
    }

    fn end(&self, id: u64) {
        let mut state = self.state.lock();
        let Some(place) = state.under_way.iter().position(|sync| sync.id == id) else { return };
        let ended = state.under_way.swap_remove(place);
        drop(state);
        let took = self.clock.monotonic().saturating_sub(ended.since);
        if took > self.warn {
            self.slow.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(file = %ended.path.display(), took_ms = took.as_millis(), "a sync was slow: the disk stalls");
        }
    }

    fn look(&self, state: &mut State) -> Next {
        let now = self.clock.monotonic();
        let mut next = None;
        for sync in &mut state.under_way {
            let took = now.saturating_sub(sync.since);
            if self.fatal.is_some_and(|fatal| took > fatal) {
                return Next::End(LogError::Stalled { path: sync.path.to_path_buf(), took });
            }
            if took > self.warn && !sync.is_told {
                sync.is_told = true;
                tracing::warn!(file = %sync.path.display(), took_ms = took.as_millis(), "a sync does not end: the disk stalls");
            }
            let mark = if sync.is_told { self.fatal } else { Some(self.warn) };
            // A mark is passed when it is exceeded.
            let left = mark.map(|mark| mark.saturating_sub(took) + Duration::from_millis(1));
            next = next.into_iter().chain(left).min();
        }
        next.map_or(Next::Sleep, Next::Look)
    }
}

/// Watches until [`Syncs::stop`]; `stalled` is called once, when a sync does not end.
pub(crate) fn run(syncs: &Syncs, stalled: impl FnOnce(LogError)) {
    let mut state = syncs.state.lock();
    while !state.has_stopped {
        match syncs.look(&mut state) {
            Next::Sleep => {
                state.is_idle = true;
                syncs.changed.wait(&mut state);
            }
            Next::Look(after) => {
                syncs.changed.wait_for(&mut state, after);
            }
            Next::End(error) => {
                drop(state);
                return stalled(error);
            }
        }
    }
}

/// A disk whose syncs are watched.
#[derive(Debug)]
pub(crate) struct Watched {
    disk: Arc<dyn Disk>,
    syncs: Arc<Syncs>,
}

#[derive(Debug)]
struct WatchedFile {
    file: Arc<dyn DiskFile>,
    path: Arc<Path>,
    syncs: Arc<Syncs>,
}

impl Watched {
    pub(crate) fn new(disk: Arc<dyn Disk>, syncs: Arc<Syncs>) -> Self {
        Self { disk, syncs }
    }

    fn file(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(WatchedFile { file, path: path.into(), syncs: Arc::clone(&self.syncs) })
    }
}

impl DiskFile for WatchedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.watched(&self.path, || self.file.sync())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

impl Disk for Watched {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, self.disk.open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, self.disk.create(path)?))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.disk.create_folder(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_folder(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        self.disk.list(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.syncs.watched(&folder.into(), || self.disk.sync_folder(folder))
    }

    fn space(&self, folder: &Path) -> io::Result<Space> {
        self.disk.space(folder)
    }

    fn lock(&self, folder: &Path, owner: &str) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(folder, owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::ManualClock, ids::Timestamp, testing::SimDisk};

    fn syncs(config: &LogConfig) -> (Arc<ManualClock>, Syncs) {
        let clock = Arc::new(ManualClock::at(Timestamp::new(5_000)));
        (Arc::clone(&clock), Syncs::new(clock, config))
    }

    #[test]
    fn a_sync_over_a_second_is_counted_as_slow() {
        let (clock, syncs) = syncs(&LogConfig::default());
        let path: Arc<Path> = Path::new("/data/f").into();
        for ms in [1, 1000, 1001, 30_000] {
            let synced = syncs.watched(&path, || {
                clock.advance(Duration::from_millis(ms));
                assert_eq!(syncs.longest_under_way(), Duration::from_millis(ms));
                Ok(())
            });
            synced.unwrap();
        }
        assert_eq!((syncs.slow(), syncs.longest_under_way()), (2, Duration::ZERO));
    }

    #[test]
    fn every_file_and_folder_is_watched() {
        let (_, syncs) = syncs(&LogConfig::default());
        let syncs = Arc::new(syncs);
        let disk = Watched::new(Arc::new(SimDisk::new(1)), Arc::clone(&syncs));
        disk.create_folder(Path::new("/data")).unwrap();
        disk.create(Path::new("/data/f")).unwrap().sync().unwrap();
        disk.open(Path::new("/data/f")).unwrap().sync().unwrap();
        disk.sync_folder(Path::new("/data")).unwrap();
        assert_eq!(syncs.state.lock().last_id, 3);
    }

    #[test]
    fn a_mark_is_told_once_and_the_last_one_is_the_end() {
        let (clock, syncs) = syncs(&LogConfig::default());
        let look = || syncs.look(&mut syncs.state.lock());
        assert!(matches!(look(), Next::Sleep));
        let id = syncs.begin(&Path::new("/data/f").into());
        clock.advance(Duration::from_millis(400));
        syncs.begin(&Path::new("/data/g").into());
        assert!(matches!(look(), Next::Look(after) if after.as_millis() == 601));
        clock.advance(Duration::from_millis(601));
        assert!(matches!(look(), Next::Look(after) if after.as_millis() == 400), "the second one is next");
        clock.advance(Duration::from_secs(19));
        assert!(matches!(look(), Next::End(LogError::Stalled { path, .. }) if path == Path::new("/data/f")));
        syncs.end(id);
        assert!(matches!(look(), Next::Look(after) if after.as_millis() == 400));
    }

    #[test]
    fn without_a_last_mark_nothing_ends() {
        let (clock, syncs) = syncs(&LogConfig { stall_fatal_ms: 0, ..LogConfig::default() });
        syncs.begin(&Path::new("/data/f").into());
        clock.advance(Duration::from_secs(100_000));
        assert!(matches!(syncs.look(&mut syncs.state.lock()), Next::Sleep));
        assert!(syncs.state.lock().under_way[0].is_told);
    }
}
