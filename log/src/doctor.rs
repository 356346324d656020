//! The doctor: what can be said of a data folder and the machine under it without serving it: `foldlog doctor`.
//!
//! Called by the command line. It takes the folder's lock while it looks, if nobody has it; beside a running server it leaves out what
//! would disturb that one, and says so. Invariants: no file of the folder is changed; every authoritative byte is held against its
//! checksum, by the code that `foldlog log inspect` runs, and the whole against what a start would make of it.

use std::{
    collections::BTreeMap,
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    checkpoint,
    clock::Clock,
    config::{BLOCK, LogConfig},
    disk::Disk,
    error::LogError,
    inspect::{self, Depth},
    journal, postings,
    record::Purpose,
    reserve::Reserve,
    server_time::{LEEWAY, YEAR_2020},
    start,
    topic_store::{self, TopicStore},
};

/// Where Linux tells what this process may use.
const LIMITS: &str = "/proc/self/limits";
/// Written to measure syncs, and removed.
const PROBE: &str = "doctor.probe";
/// So many syncs are measured.
const PROBES: usize = 32;
/// Slower ones are told: appends that come one at a time wait as long.
const SLOW_SYNC: Duration = Duration::from_millis(20);

/// What was found in one respect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it is.
    pub health: Health,
    /// What there is to say.
    pub what: String,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// As it should be.
    Good,
    /// It works; somebody should know.
    Notice,
    /// Something does not work, is damaged, or will be refused.
    Bad,
}

/// Who looks.
pub struct Doctor<'a> {
    /// The disk: it is locked, and written to for measuring.
    pub disk: Arc<dyn Disk>,
    /// The same disk, for reading; [`ReadOnlyDisk`](crate::disk::ReadOnlyDisk) opens nothing to be written.
    pub reading: Arc<dyn Disk>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// What a server of the folder would run on.
    pub config: &'a LogConfig,
    /// Connections that it would take, each of which is a file.
    pub connections: u64,
}

impl std::fmt::Debug for Doctor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Doctor")
    }
}

/// How many files may be open.
enum Limit {
    Files(u64),
    None,
}

/// Files of a part of the folder.
type Files = Vec<PathBuf>;

impl Doctor<'_> {
    /// Looks at everything, and tells each finding as it comes.
    ///
    /// # Errors
    /// [`LogError::Invalid`] for what is no data folder.
    pub fn examine(&self, folder: &Path, each: &mut dyn FnMut(Finding)) -> Result<(), LogError> {
        if self.reading.open(&folder.join(start::IDENTITY)).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            let reason = format!("{} is no data folder: {} is not there", folder.display(), start::IDENTITY);
            return Err(LogError::Invalid { field: "data".into(), reason });
        }
        let mut tell = |check, (health, what): (Health, String)| each(Finding { check, health, what });
        let lock = start::lock(self.disk.as_ref(), folder);
        tell("lock", lock_finding(lock.as_ref().err()));
        tell("space", self.space(folder));
        if lock.is_ok() {
            tell("sync", self.syncs(folder));
        }
        tell("clock", self.clock(folder));
        tell("open files", self.open_files());
        if lock.is_ok() {
            let mut told = Vec::new();
            self.start(folder, &mut told);
            told.into_iter().for_each(|finding| tell("start", finding));
        }
        for (part, files) in self.parts(folder) {
            let (mut bytes, mut damages) = (0, 0);
            for path in &files {
                let (length, found) = scrub(&self.reading, path);
                bytes += length;
                damages += found.len();
                let health = if self.is_spare_slot(folder, path) { Health::Notice } else { Health::Bad };
                found.into_iter().for_each(|what| tell("files", (health, what)));
            }
            if damages == 0 {
                tell("files", (Health::Good, format!("{part}: {} files of {bytes} bytes, every checksum holds", files.len())));
            }
        }
        Ok(())
    }

    fn space(&self, folder: &Path) -> (Health, String) {
        let reserve = Reserve::new(Arc::clone(&self.disk), Arc::clone(&self.clock), folder, self.config);
        match (reserve.admits(Purpose::Data), reserve.figures()) {
            (Err(error), _) => (Health::Bad, format!("appends are refused: {}", error.in_full())),
            (Ok(()), (Some(free), kept)) => (Health::Good, format!("{free} bytes are free, {kept} of them are kept back from appends")),
            (Ok(()), (None, _)) => (Health::Notice, "the system does not tell what is free, so that nothing is kept back".into()),
        }
    }

    fn syncs(&self, folder: &Path) -> (Health, String) {
        let path = folder.join(PROBE);
        let measured = self.measure(&path);
        let removed = self.disk.remove(&path);
        let mut took = match measured.and_then(|took| removed.map(|()| took)) {
            Ok(took) => took,
            Err(error) => return (Health::Bad, format!("{} cannot be written, synced and removed: {error}", path.display())),
        };
        took.sort_unstable();
        let (median, slowest) = (took.get(took.len() / 2).copied(), took.last().copied());
        let (median, slowest) = (median.unwrap_or_default(), slowest.unwrap_or_default());
        let is_slow = median > SLOW_SYNC || slowest >= Duration::from_millis(self.config.stall_warn_ms);
        let health = if is_slow { Health::Notice } else { Health::Good };
        (health, format!("{PROBES} syncs of a block took {} us in the middle, {} us at most", median.as_micros(), slowest.as_micros()))
    }

    /// Times of syncs of a block that is written over, as in the journal.
    fn measure(&self, path: &Path) -> io::Result<Vec<Duration>> {
        let file = match self.disk.create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.disk.open(path),
            made => made,
        }?;
        let block = vec![0; usize::try_from(BLOCK).unwrap_or_default()];
        let once = || -> io::Result<Duration> {
            file.write_at(0, &block)?;
            let before = self.clock.monotonic();
            file.sync()?;
            Ok(self.clock.monotonic().saturating_sub(before))
        };
        // The first one makes room.
        once()?;
        (0..PROBES).map(|_| once()).collect()
    }

    fn clock(&self, folder: &Path) -> (Health, String) {
        let wall = self.clock.now();
        if wall < YEAR_2020 {
            return (Health::Bad, format!("it was not set: it shows {wall}, in milliseconds since 1970"));
        }
        let Some(newest) = checkpoint::newest(&*self.reading, folder).map(|checkpoint| checkpoint.time).filter(|time| time.get() > 0)
        else {
            return (Health::Good, "it is set; no checkpoint holds a stamp yet to compare it with".into());
        };
        let behind = Duration::from_millis(u64::try_from(newest.get().saturating_sub(wall.get())).unwrap_or(0));
        if behind > LEEWAY {
            let what = "seconds behind the newest stamp of the log; a server would stamp on from there until it is confirmed";
            return (Health::Bad, format!("it is {} {what} (foldlog clock confirm)", behind.as_secs()));
        }
        (Health::Good, "it is set, and not behind the newest stamp of the log".into())
    }

    fn open_files(&self) -> (Health, String) {
        let wanted = self.connections + start::OPEN_FILES as u64 + 64;
        match self.limits() {
            Some(Limit::Files(limit)) if limit < wanted => {
                let what = "connections beyond that are refused; raise it (ulimit -n, LimitNOFILE=), or lower limits.connections";
                (Health::Notice, format!("{limit} are allowed here, a server with all its connections has {wanted}: {what}"))
            }
            Some(Limit::Files(limit)) => {
                (Health::Good, format!("{limit} are allowed here, a server with all its connections has {wanted}"))
            }
            Some(Limit::None) => (Health::Good, "any number is allowed here".into()),
            None => {
                (Health::Good, format!("the system does not tell how many are allowed; a server with all its connections has {wanted}"))
            }
        }
    }

    /// How many files a process may have open here, where Linux tells.
    fn limits(&self) -> Option<Limit> {
        let mut bytes = [0; 4096];
        let read = self.reading.open(Path::new(LIMITS)).ok()?.read_at(0, &mut bytes).ok()?;
        let text = String::from_utf8_lossy(bytes.get(..read)?).into_owned();
        let limit = text.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.to_owned();
        if limit == "unlimited" { Some(Limit::None) } else { limit.parse().ok().map(Limit::Files) }
    }

    /// What a start would make of the folder.
    fn start(&self, folder: &Path, told: &mut Vec<(Health, String)>) {
        let report = match start::examine(&self.reading, Arc::clone(&self.clock), folder, self.config) {
            Ok(report) => report,
            Err(error) => return told.push((Health::Bad, format!("a start would fail: {}", error.in_full()))),
        };
        told.extend(report.damage.iter().map(|damage| (Health::Bad, format!("a start would be read-only: {damage}"))));
        told.extend(report.damaged.iter().map(|damage| (Health::Bad, format!("a start would leave a partition read-only: {damage}"))));
        if told.is_empty() {
            let (frames, records) = (report.frames, report.records);
            told.push((Health::Good, format!("a start would read {frames} frames with {records} records from the journal, and go on")));
        }
    }

    /// Files that foldlog writes, by the part of the folder that they lie in, in the order in which they are told.
    fn parts(&self, folder: &Path) -> Vec<(String, Files)> {
        let names = TopicStore::open(Arc::clone(&self.reading), folder).ok();
        let name_of = |id: &str| {
            let id = uuid::Uuid::parse_str(id).ok()?;
            let topics = names.as_ref()?.all();
            topics.iter().find(|entry| entry.topic.id.to_string() == id.to_string()).map(|entry| entry.topic.name.to_string())
        };
        let mut parts = vec![
            ("the folder itself".to_owned(), self.root(folder)),
            ("journal".to_owned(), self.files(&folder.join(journal::file::FOLDER), &["journal"])),
            ("postings".to_owned(), self.files(&folder.join(postings::FOLDER), &["postings"])),
        ];
        let topics = folder.join(topic_store::FOLDER);
        parts.push(("manifests of topics".to_owned(), self.files(&topics, &["json"])));
        let mut by_topic: BTreeMap<String, Files> = BTreeMap::new();
        for id in self.folders(&topics) {
            let topic = name_of(&id).unwrap_or_else(|| id.clone());
            let files = by_topic.entry(format!("topic {topic}")).or_default();
            for partition in self.folders(&topics.join(&id)) {
                files.extend(self.files(&topics.join(&id).join(partition), &["log", "runs", "index", "keys", "keylog"]));
            }
        }
        parts.extend(by_topic);
        parts
    }

    /// Whether a file is a slot of the checkpoint beside a whole one: a crash may have cut it short, and whether a start gets on with the
    /// other one is said there.
    fn is_spare_slot(&self, folder: &Path, path: &Path) -> bool {
        checkpoint::NAMES.iter().any(|name| folder.join(name) == path) && checkpoint::newest(&*self.reading, folder).is_some()
    }

    fn root(&self, folder: &Path) -> Files {
        let mut files = self.files(folder, &["window"]);
        let names = [start::IDENTITY].into_iter().chain(checkpoint::NAMES);
        files.extend(names.map(|name| folder.join(name)));
        files
    }

    fn files(&self, folder: &Path, extensions: &[&str]) -> Files {
        files_of(&*self.reading, folder, extensions)
    }

    fn folders(&self, folder: &Path) -> Vec<String> {
        let entries = self.reading.list(folder).unwrap_or_default();
        let mut names: Vec<_> = entries.into_iter().filter(|entry| entry.is_folder).map(|entry| entry.name).collect();
        names.sort_unstable();
        names
    }
}

/// Reads a whole file; its bytes, and what is wrong with it. One that is gone was removed by a server meanwhile.
pub(crate) fn scrub(disk: &Arc<dyn Disk>, path: &Path) -> (u64, Vec<String>) {
    let (mut bytes, mut damages) = (0, Vec::new());
    let told = inspect::inspect(Arc::clone(disk), path, Depth::Parts, &mut |part| {
        if let Some(what) = part.damage {
            let error = LogError::Corrupt { file: path.to_owned(), from: part.from, end: part.end, what };
            damages.push(error.in_full());
        } else if !part.is_inner {
            bytes = part.end.max(bytes);
        }
        ControlFlow::Continue(())
    });
    match told {
        Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        Err(error) => damages.push(error.in_full()),
        Ok(()) => {}
    }
    (bytes, damages)
}

/// Files of a folder that are named as foldlog names its own.
pub(crate) fn files_in(disk: &dyn Disk, folder: &Path) -> Vec<PathBuf> {
    let ours = ["json", "a", "b", "window", "journal", "postings", "log", "runs", "index", "keys", "keylog"];
    files_of(disk, folder, &ours)
}

fn files_of(disk: &dyn Disk, folder: &Path, extensions: &[&str]) -> Files {
    let is_ours = |path: &PathBuf| path.extension().is_some_and(|one| extensions.iter().any(|ours| one == *ours));
    let entries = disk.list(folder).unwrap_or_default().into_iter().filter(|entry| !entry.is_folder);
    let mut files: Files = entries.map(|entry| folder.join(entry.name)).filter(is_ours).collect();
    files.sort_unstable();
    files
}

fn lock_finding(refused: Option<&LogError>) -> (Health, String) {
    match refused {
        None => (Health::Good, "nobody has the folder open".into()),
        Some(LogError::Locked { owner, .. }) => {
            let left_out =
                "syncs are not measured (foldlog_log_sync_duration_seconds tells), and what a start would find is not looked for";
            (Health::Notice, format!("{owner} has the folder open: {left_out}"))
        }
        Some(error) => (Health::Bad, error.in_full()),
    }
}
