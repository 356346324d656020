//! Backups of a running log: files of segments that are copied or linked once, and a manifest that says which of them make up the log
//! at a position.
//!
//! Tidy hands over what its checkpoint names ([`Contents`]), whoever asked writes it ([`write()`]). Invariants: a file of a backup never
//! changes; the manifest is replaced when all that it names is durable, and what it no longer names goes afterwards. So after any crash
//! the folder holds the backup before or this one. Format: `log/FORMAT.md`, "Backups".

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{
    checkpoint::{Checkpoint, CheckpointedPartition, WindowMark},
    disk::{Disk, DiskFile},
    engine::Engine,
    error::LogError,
    ids::{Position, Timestamp},
    manifest,
    segment::{Segments, copy::Piece, fresh, remove_if_there},
    start,
    tidy::Signal,
    topic_store::TopicEntry,
    window_file,
};

/// The manifest of a backup.
pub(crate) const MANIFEST: &str = "foldlog-backup.json";
/// Newest format of it.
pub(crate) const FORMAT: u32 = 1;
/// Longest manifest that is read.
pub(crate) const MAX_MANIFEST: u64 = 1 << 30;
/// Folder of everything that it names.
const FILES: &str = "files";
/// Bytes that are copied at once.
const STEP: u64 = 1 << 20;

/// What a backup holds, by the position up to which it does.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    /// Id of the data folder, and what restores did to it.
    pub(crate) folder: String,
    pub(crate) restored: Vec<start::Gap>,
    pub(crate) epoch: u32,
    /// Number of the start that it was taken of.
    pub(crate) start: u32,
    /// Everything below this position is in it.
    pub(crate) position: u64,
    /// Server time of the newest frame in it.
    pub(crate) time: i64,
    pub(crate) window: Option<WindowCopy>,
    pub(crate) topics: Vec<TopicCopy>,
    pub(crate) partitions: Vec<PartitionCopy>,
}

/// The window of requests.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct WindowCopy {
    pub(crate) length: u64,
    pub(crate) check: u32,
}

/// A topic: its id, its name, and its manifest as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TopicCopy {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) manifest: String,
}

/// A partition that has segments, the oldest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PartitionCopy {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    /// What was removed lies below this position.
    pub(crate) removed: u64,
    /// It is compacted below this offset.
    pub(crate) cleaned_to: u64,
    /// From when on the last of its tombstones may go; 0 if it has none.
    pub(crate) tombstones_until: i64,
    pub(crate) segments: Vec<SegmentCopy>,
}

/// A segment: its first offset, its generation, lengths of its files, and the checksum of the last block of `.runs`, which stands for both.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct SegmentCopy {
    pub(crate) base: u64,
    pub(crate) generation: u32,
    pub(crate) log: u64,
    pub(crate) runs: u64,
    pub(crate) check: u32,
}

impl WindowCopy {
    pub(crate) fn path(&self, backup: &Path) -> PathBuf {
        backup.join(FILES).join(format!("{:08x}-{}.window", self.check, self.length))
    }
}

impl PartitionCopy {
    pub(crate) fn folder(&self, backup: &Path) -> PathBuf {
        backup.join(FILES).join(&self.topic).join(format!("{:05}", self.partition))
    }

    /// Its `.log` and `.runs`. What they hold is in their names, so that nothing is ever written over.
    pub(crate) fn paths(&self, backup: &Path, segment: &SegmentCopy) -> (PathBuf, PathBuf) {
        let SegmentCopy { base, generation, check, .. } = segment;
        let name = |extension| self.folder(backup).join(format!("{base:020}-{generation:010}-{check:08x}.{extension}"));
        (name("log"), name("runs"))
    }
}

/// What a backup took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// Everything below this position is in it.
    pub position: Position,
    /// Server time of the newest record in it.
    pub time: Timestamp,
    /// Files of segments and of the window of requests.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes that were copied this time.
    pub copied_bytes: u64,
    /// Bytes that got another name this time, on the file system that they were on.
    pub linked_bytes: u64,
}

/// Where tidy hands over what its checkpoint names.
pub(crate) type Waiter = oneshot::Sender<Result<Contents, LogError>>;

/// Those who wait for that.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    is_closed: bool,
    waiting: Vec<Waiter>,
}

impl Waiting {
    /// Lines up; the answer comes with the first checkpoint that tidy begins from now on.
    ///
    /// # Errors
    /// [`LogError::Stopping`].
    pub(crate) fn line_up(&self) -> Result<oneshot::Receiver<Result<Contents, LogError>>, LogError> {
        let mut line = self.0.lock();
        if line.is_closed {
            return Err(LogError::Stopping);
        }
        let (sender, receiver) = oneshot::channel();
        line.waiting.push(sender);
        Ok(receiver)
    }

    pub(crate) fn take(&self) -> Vec<Waiter> {
        std::mem::take(&mut self.0.lock().waiting)
    }

    /// Nothing is handed over any more.
    pub(crate) fn close(&self) {
        *self.0.lock() = Line { is_closed: true, waiting: Vec::new() };
    }
}

/// What a checkpoint names of topics that were not deleted. No file of it goes while this is held.
#[derive(Debug)]
pub(crate) struct Contents {
    checkpoint: Checkpoint,
    window: Option<Arc<dyn DiskFile>>,
    topics: Vec<TopicCopy>,
    partitions: Vec<Held>,
}

/// A partition, with what keeps its files: of a topic that is deleted meanwhile too.
#[derive(Debug)]
struct Held {
    copy: PartitionCopy,
    pieces: Vec<Piece>,
    _segments: Arc<Segments>,
}

impl Contents {
    /// Takes hold of what a checkpoint names that is durable; for tidy, which alone moves it.
    ///
    /// # Errors
    /// The report of damage, if something of it cannot be read; [`LogError::Io`].
    pub(crate) fn of(engine: &Engine, checkpoint: &Checkpoint) -> Result<Self, LogError> {
        if let Some(reason) = engine.read_only.get() {
            return Err(LogError::ReadOnly { reason: reason.clone() });
        }
        engine.topics.partitions().iter().try_for_each(|partition| partition.writable())?;
        // They know all that may lie in segments of the checkpoint; what a frame behind it puts in place has everything taken anew.
        // Of a topic that is deleted from now on the checkpoint's segments stay in memory: only the next checkpoint leaves them out.
        let entries = engine.topics.all();
        let topic_of = |entry: &Arc<TopicEntry>| {
            let manifest = engine.topics.manifest_of(entry)?;
            Ok(TopicCopy { id: entry.topic.id.to_string(), name: entry.topic.name.to_string(), manifest })
        };
        let topics = entries.iter().map(topic_of).collect::<Result<Vec<_>, LogError>>()?;
        let ids: BTreeSet<_> = entries.iter().map(|entry| entry.topic.id).collect();
        let mut partitions = Vec::with_capacity(checkpoint.partitions.len());
        for of in &checkpoint.partitions {
            let partition = engine.topics.partition(of.topic, of.partition).ok_or_else(|| engine.topics.missing(of.topic))?;
            if let Some(segments) = engine.segments(&partition).filter(|_| ids.contains(&of.topic)) {
                partitions.push(Held::of(of, segments)?);
            }
        }
        let WindowMark { file, .. } = checkpoint.window;
        let path = window_file::path(&engine.folder, file);
        let window = match file {
            0 => None,
            _ => Some(engine.disk.open(&path).map_err(|source| LogError::io("open", &path, source))?),
        };
        Ok(Self { checkpoint: checkpoint.clone(), window, topics, partitions })
    }
}

impl Held {
    fn of(named: &CheckpointedPartition, segments: Arc<Segments>) -> Result<Self, LogError> {
        let (low, cleaned, pieces) = segments.pieces(&named.mark)?;
        let copy_of = |piece: &Piece| {
            let &Piece { base, generation, log_len: log, runs_len: runs, check, .. } = piece;
            SegmentCopy { base: base.get(), generation, log, runs, check }
        };
        let copy = PartitionCopy {
            topic: named.topic.to_string(),
            partition: named.partition.get(),
            removed: low.position.get(),
            cleaned_to: cleaned.to.get(),
            tombstones_until: cleaned.horizon.get(),
            segments: pieces.iter().map(copy_of).collect(),
        };
        Ok(Self { copy, pieces, _segments: segments })
    }
}

/// Writes a backup into a folder that is empty or holds the one before.
///
/// # Errors
/// [`LogError::Invalid`] for a folder that cannot be made or holds something else, [`LogError::Locked`] while another backup is written to
/// it, [`LogError::Stopping`], [`LogError::Io`] and [`LogError::DiskFull`]: then the backup before is as it was.
pub(crate) fn write(engine: &Engine, contents: &Contents, to: &Path) -> Result<BackupReport, LogError> {
    let disk = &*engine.disk;
    make_target(disk, to)?;
    // Looked at before anything is written there, and once nobody else does.
    check_target(engine, to)?;
    let _lock = start::lock(disk, to)?;
    check_target(engine, to)?;
    let (report, named) = (BackupReport::default(), BTreeSet::new());
    let mut copier = Copier { disk, tidy: &engine.tidy, report, folders: BTreeSet::from([to.join(FILES)]), named };
    for Held { copy, pieces, .. } in &contents.partitions {
        copier.make_folder(&copy.folder(to))?;
        for (segment, piece) in copy.segments.iter().zip(pieces) {
            let (log, runs) = copy.paths(to, segment);
            copier.take(Source::Path(&piece.log()), piece.log_len, log, piece.is_sealed)?;
            copier.take(Source::Path(&piece.runs()), piece.runs_len, runs, piece.is_sealed)?;
        }
    }
    let WindowMark { length, crc: check, .. } = contents.checkpoint.window;
    let window = contents.window.as_ref().map(|_| WindowCopy { length, check });
    copier.make_folder(&to.join(FILES))?;
    if let Some((window, file)) = window.zip(contents.window.as_deref()) {
        copier.take(Source::File(file), length, window.path(to), false)?;
    }
    copier.settle(to)?;
    manifest::write(disk, &to.join(MANIFEST), &manifest_of(engine, contents, window))?;
    copier.remove_others(&to.join(FILES))?;
    Ok(BackupReport { position: contents.checkpoint.next, time: contents.checkpoint.time, ..copier.report })
}

fn refused(to: &Path, why: &str) -> LogError {
    LogError::Invalid { field: "backup".into(), reason: format!("{} {why}", to.display()) }
}

/// Makes the folder, if the one around it is there: else the disk that was meant may not be.
fn make_target(disk: &dyn Disk, to: &Path) -> Result<(), LogError> {
    match (disk.list(to), to.parent()) {
        (Err(missing), Some(around)) if missing.kind() == io::ErrorKind::NotFound => {
            start::refuse_within_another(disk, to)?;
            disk.list(around).map_err(|_| refused(to, "is not there, nor is the folder around it, which you must make"))?;
            disk.create_folder(to).map_err(|source| LogError::io("create", to, source))?;
            sync_folder(disk, around)
        }
        _ => Ok(()),
    }
}

fn check_target(engine: &Engine, to: &Path) -> Result<(), LogError> {
    start::refuse_within_another(&*engine.disk, to)?;
    let entries = engine.disk.list(to).map_err(|source| LogError::io("list", to, source))?;
    let is_ours = |name: &str| name == "lock" || name == FILES || name.starts_with("foldlog-backup.");
    if let Some(other) = entries.iter().find(|entry| !is_ours(&entry.name)) {
        return Err(refused(to, &format!("holds {}, which is no part of a backup; choose an empty folder", other.name)));
    }
    let Some(before) = read_manifest(&*engine.disk, to)? else { return Ok(()) };
    if before.folder != engine.id.to_string() {
        return Err(refused(to, "holds a backup of another data folder; choose an empty one"));
    }
    if before.epoch != engine.epoch || before.position > engine.tail.end().get() {
        return Err(refused(to, "holds a backup from before a restore, which has what that took away; choose an empty folder"));
    }
    Ok(())
}

/// The manifest of a backup; none if there is none.
///
/// # Errors
/// [`LogError::Corrupt`], [`LogError::Format`], [`LogError::Io`].
pub(crate) fn read_manifest(disk: &dyn Disk, backup: &Path) -> Result<Option<Manifest>, LogError> {
    manifest::read_within(disk, &backup.join(MANIFEST), FORMAT, MAX_MANIFEST)
}

fn manifest_of(engine: &Engine, contents: &Contents, window: Option<WindowCopy>) -> Manifest {
    let Contents { checkpoint, topics, partitions, .. } = contents;
    Manifest {
        format: FORMAT,
        folder: engine.id.to_string(),
        restored: engine.gaps.clone(),
        epoch: checkpoint.epoch,
        start: checkpoint.start,
        position: checkpoint.next.get(),
        time: checkpoint.time.get(),
        window,
        topics: topics.clone(),
        partitions: partitions.iter().map(|held| held.copy.clone()).collect(),
    }
}

/// Reads up to `most` bytes of a file.
pub(crate) fn read(file: &dyn DiskFile, path: &Path, from: u64, most: u64) -> Result<Vec<u8>, LogError> {
    let mut bytes = vec![0; usize::try_from(most).unwrap_or(usize::MAX)];
    let read = file.read_at(from, &mut bytes).map_err(|source| LogError::io("read", path, source))?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Copies the first `length` bytes of a file and syncs the copy. `go_on` is asked again and again.
///
/// # Errors
/// What `go_on` says; [`LogError::Corrupt`] if there are fewer bytes, [`LogError::Io`], [`LogError::DiskFull`].
pub(crate) fn copy(
    disk: &dyn Disk,
    from: &dyn DiskFile,
    length: u64,
    to: &Path,
    go_on: impl Fn() -> Result<(), LogError>,
) -> Result<(), LogError> {
    let file = fresh(disk, to)?;
    let mut at = 0;
    while at < length {
        go_on()?;
        let bytes = read(from, to, at, STEP.min(length - at))?;
        if bytes.is_empty() {
            let what = format!("what it is copied from ends here, and should have {length} bytes");
            return Err(LogError::Corrupt { file: to.to_owned(), from: at, end: length, what });
        }
        file.write_at(at, &bytes).map_err(|source| LogError::full_or_io("write", to, source))?;
        at += bytes.len() as u64;
    }
    file.sync().map_err(|source| LogError::io("sync", to, source))
}

enum Source<'a> {
    Path(&'a Path),
    File(&'a dyn DiskFile),
}

struct Copier<'a> {
    disk: &'a dyn Disk,
    /// Tells whether the log stops: then it does not wait for a backup.
    tidy: &'a Signal,
    report: BackupReport,
    folders: BTreeSet<PathBuf>,
    /// Files that the manifest will name.
    named: BTreeSet<PathBuf>,
}

impl Copier<'_> {
    fn make_folder(&mut self, folder: &Path) -> Result<(), LogError> {
        self.disk.create_folder(folder).map_err(|source| LogError::io("create", folder, source))?;
        self.folders.extend(folder.ancestors().take(3).map(Path::to_owned));
        Ok(())
    }

    /// Has the first `length` bytes of a file under a name that says what is in it, if they are not there yet.
    fn take(&mut self, from: Source<'_>, length: u64, to: PathBuf, is_sealed: bool) -> Result<(), LogError> {
        self.report.files += 1;
        self.report.bytes += length;
        let is_there = self.disk.open(&to).and_then(|file| file.len()).is_ok_and(|there| there == length);
        match from {
            _ if is_there => {}
            // On another file system, and where there are no links, it is copied.
            Source::Path(path) if is_sealed && self.disk.link(path, &to).is_ok() => self.report.linked_bytes += length,
            Source::Path(path) => {
                let file = self.disk.open(path).map_err(|source| LogError::io("open", path, source))?;
                self.copy(&*file, length, &to)?;
            }
            Source::File(file) => self.copy(file, length, &to)?,
        }
        self.named.insert(to);
        Ok(())
    }

    fn copy(&mut self, from: &dyn DiskFile, length: u64, to: &Path) -> Result<(), LogError> {
        let beside = to.with_extension(manifest::UNFINISHED);
        copy(self.disk, from, length, &beside, || if self.tidy.is_stopped() { Err(LogError::Stopping) } else { Ok(()) })?;
        self.disk.rename(&beside, to).map_err(|source| LogError::full_or_io("rename", &beside, source))?;
        self.report.copied_bytes += length;
        Ok(())
    }

    /// Makes all names durable.
    fn settle(&self, to: &Path) -> Result<(), LogError> {
        let within = self.folders.iter().filter(|folder| folder.starts_with(to));
        within.map(PathBuf::as_path).chain([to]).try_for_each(|folder| sync_folder(self.disk, folder))
    }

    /// Removes what the manifest does not name.
    fn remove_others(&self, folder: &Path) -> Result<(), LogError> {
        for entry in self.disk.list(folder).map_err(|source| LogError::io("list", folder, source))? {
            let path = folder.join(entry.name);
            if entry.is_folder {
                self.remove_others(&path)?;
            } else if !self.named.contains(&path) {
                remove_if_there(self.disk, &path)?;
            }
        }
        Ok(())
    }
}

pub(crate) fn sync_folder(disk: &dyn Disk, folder: &Path) -> Result<(), LogError> {
    disk.sync_folder(folder).map_err(|source| LogError::io("sync", folder, source))
}
