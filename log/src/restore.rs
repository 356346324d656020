//! Restoring a backup into a new data folder, whole or cut at a time or position.
//!
//! Called by the command line, without a server. All of a frame is recorded at one time, so that a cut between two times never
//! divides an append. Invariants: the folder has an identity, and so can be opened, only when everything in it was read back; it has
//! an epoch of its own, and positions far above those that the log may have given after the cut. Format: `log/FORMAT.md`, "Backups".

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    backup::{self, Manifest, PartitionCopy, SegmentCopy, TopicCopy},
    checkpoint::{Checkpoint, CheckpointedPartition, Slots, WindowMark},
    clock::Clock,
    compaction::Cleaned,
    config::LogConfig,
    disk::Disk,
    doctor,
    error::LogError,
    ids::{FolderId, Offset, PartitionId, Position, Timestamp, TopicId},
    journal::{self, file::JournalFiles},
    segment::{
        PartitionMark, Rewrite,
        copy::{Runs, of_copy},
        fresh, remove_if_there,
    },
    start::{self, Gap, Identity},
    topic::TopicKind,
    topic_store, window_file,
};

/// Positions that are left out behind a cut: more than a log gives that goes on elsewhere.
pub const GAP: u64 = 1 << 40;

/// Up to where a backup is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Up to the last boundary between two times of the server at or below a position, which the cut is at (exclusive).
    Position(Position),
    /// Everything that the server recorded at that time or before.
    Time(Timestamp),
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The cut: everything below this position is there.
    pub position: Position,
    /// The position that comes next.
    pub next: Position,
    /// The folder's epoch: tokens of others are refused.
    pub epoch: u32,
    /// Bytes of segments and of the window of requests.
    pub bytes: u64,
    /// Topics that were compacted, and of which the cut left out more than the newest segment: of their records below the cut some may be
    /// missing, for newer ones that lie behind it had taken their place.
    pub thinned: Vec<String>,
}

/// Restores a backup into `folder`, which must not be there or be empty, and reads everything back.
///
/// # Errors
/// [`LogError::Invalid`] for what is no backup, and for a folder that holds something; [`LogError::PositionOutOfRange`] for a position
/// behind the backup's; [`LogError::Corrupt`] for damage; [`LogError::Io`], [`LogError::DiskFull`]. The folder cannot be opened then.
pub fn restore(
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    backup: &Path,
    folder: &Path,
    until: Option<Until>,
    config: &LogConfig,
    mut random: impl FnMut() -> u128,
) -> Result<Restored, LogError> {
    let invalid = |field: &str, reason: String| LogError::Invalid { field: field.into(), reason };
    let Some(manifest) = backup::read_manifest(&**disk, backup)? else {
        return Err(invalid("backup", format!("{} holds no whole backup: {} is not there", backup.display(), backup::MANIFEST)));
    };
    let Ok(id) = uuid::Uuid::parse_str(&manifest.folder) else {
        return Err(invalid("backup", format!("{} does not say whose backup it is", backup.join(backup::MANIFEST).display())));
    };
    start::refuse_within_another(&**disk, folder)?;
    disk.create_folder(folder).map_err(|source| LogError::io("create", folder, source))?;
    let _lock = start::lock(&**disk, folder)?;
    let entries = disk.list(folder).map_err(|source| LogError::io("list", folder, source))?;
    if let Some(other) = entries.iter().find(|entry| entry.name != "lock") {
        return Err(invalid("data", format!("{} holds {} already; restore into an empty folder", folder.display(), other.name)));
    }
    let mut restore = Restore {
        disk,
        backup,
        folder,
        folders: BTreeSet::from([folder.to_owned()]),
        sources: BTreeMap::new(),
        bytes: 0,
        thinned: BTreeSet::new(),
    };
    let (time, position) = restore.place_of(&manifest, until)?;
    // First of all: while it is there and the identity is not, nothing opens the folder.
    restore.put(&folder.join(start::RESTORING), b"a restore that was not finished\n")?;
    backup::sync_folder(&**disk, folder)?;
    restore.topics(&manifest)?;
    let mut partitions = Vec::with_capacity(manifest.partitions.len());
    for copy in &manifest.partitions {
        let kind = manifest.topics.iter().find(|topic| topic.id == copy.topic).and_then(|topic| topic_store::kind_in(&topic.manifest));
        partitions.extend(restore.partition(copy, kind, time, position)?);
    }
    let window = restore.window(&manifest, time)?;
    restore.make(&folder.join(journal::file::FOLDER))?;
    JournalFiles::create_first(&**disk, folder, config)?;
    let folder_id = FolderId::new(*id.as_bytes());
    let seconds = u32::try_from(clock.now().get() / 1000).unwrap_or(0);
    let epoch = manifest.epoch.saturating_add(1).max(seconds);
    let (next, gaps) = gaps(&manifest, position, epoch);
    let checkpoint = Checkpoint {
        sequence: 1,
        folder: folder_id,
        epoch,
        start: manifest.start,
        recovered: 0,
        salt: random(),
        frame: 0,
        frame_crc: 0,
        file: 1,
        file_end: 0,
        next,
        time: time.min(Timestamp::new(manifest.time)),
        window,
        partitions,
        files: vec![(1, config.first_journal_file_bytes)],
    };
    Slots::create(&**disk, folder, &checkpoint)?;
    restore.folders.iter().try_for_each(|folder| backup::sync_folder(&**disk, folder))?;
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        backup::sync_folder(&**disk, parent)?;
    }
    let identity = Identity::new(folder_id, gaps);
    restore.read_back(&identity, clock, config)?;
    identity.write(&**disk, folder)?;
    remove_if_there(&**disk, &folder.join(start::RESTORING))?;
    let is_thinned = |topic: &&TopicCopy| restore.thinned.contains(&topic.id);
    let thinned = manifest.topics.iter().filter(is_thinned).map(|topic| topic.name.clone()).collect();
    Ok(Restored { position, next, epoch, bytes: restore.bytes, thinned })
}

/// The position after a cut, and all gaps with the one behind it.
fn gaps(manifest: &Manifest, cut: Position, epoch: u32) -> (Position, Vec<Gap>) {
    // Above everything that was ever given: a cut may lie before an earlier gap.
    let end = Position::new(manifest.position);
    let next = if end.get() - cut.get() < GAP { cut.plus(GAP) } else { end.plus(GAP) };
    let mut gaps: Vec<_> = manifest.restored.iter().copied().filter(|gap| gap.from < cut.get()).collect();
    gaps.push(Gap { epoch, from: cut.get(), next: next.get() });
    (next, gaps)
}

struct Restore<'a> {
    disk: &'a Arc<dyn Disk>,
    backup: &'a Path,
    folder: &'a Path,
    /// To be synced.
    folders: BTreeSet<PathBuf>,
    /// What each file was made of.
    sources: BTreeMap<PathBuf, PathBuf>,
    bytes: u64,
    /// Ids of [`Restored::thinned`].
    thinned: BTreeSet<String>,
}

impl Restore<'_> {
    /// The time up to which records stay, and the first position that goes.
    fn place_of(&self, manifest: &Manifest, until: Option<Until>) -> Result<(Timestamp, Position), LogError> {
        let (all, end) = (Timestamp::new(i64::MAX), Position::new(manifest.position));
        let time = match until {
            None => return Ok((all, end)),
            Some(Until::Time(time)) => time,
            Some(Until::Position(asked)) if asked > end => return Err(LogError::PositionOutOfRange { asked, end }),
            Some(Until::Position(asked)) if asked == end => return Ok((all, end)),
            Some(Until::Position(asked)) => {
                let first = self.first(manifest, |runs| runs.at_position(asked))?;
                first.map_or(all, |(_, recorded)| Timestamp::new(recorded.get() - 1))
            }
        };
        let cut = self.first(manifest, |runs| runs.after(time))?.unwrap_or(end);
        // Between what was asked for and the first record that goes nothing is left in the backup, if that one lies behind.
        Ok((time, if let Some(Until::Position(asked)) = until { cut.min(asked) } else { cut }))
    }

    /// The least of what segments answer: in each partition the first one that does.
    fn first<T: Ord>(&self, manifest: &Manifest, ask: impl Fn(&Runs) -> Result<Option<T>, LogError>) -> Result<Option<T>, LogError> {
        let mut first = None;
        for copy in &manifest.partitions {
            for segment in &copy.segments {
                let (_, path) = copy.paths(self.backup, segment);
                let Some(found) = ask(&self.runs(copy, segment)?).map_err(|error| of_copy(error, &path))? else { continue };
                first = first.into_iter().chain([found]).min();
                break;
            }
        }
        Ok(first)
    }

    fn runs(&self, copy: &PartitionCopy, segment: &SegmentCopy) -> Result<Runs, LogError> {
        let (_, path) = copy.paths(self.backup, segment);
        let file = self.disk.open(&path).map_err(|source| LogError::io("open", &path, source))?;
        let bytes = backup::read(&*file, &path, 0, segment.runs)?;
        let corrupt = |what: &str| LogError::Corrupt { file: path.clone(), from: 0, end: segment.runs, what: what.into() };
        let topic = topic_of(copy).ok_or_else(|| corrupt("the manifest names no topic"))?;
        let partition = PartitionId::new(copy.partition);
        let folder = self.folder.join(topic_store::FOLDER).join(&copy.topic).join(format!("{:05}", copy.partition));
        let place = (Offset::new(segment.base), segment.generation);
        let runs = Runs::read(folder, (topic, partition), place, bytes).map_err(|error| of_copy(error, &path))?;
        if runs.check() != segment.check || runs.log_len() != segment.log {
            return Err(corrupt("these are not the runs that the manifest names"));
        }
        Ok(runs)
    }

    fn make(&mut self, folder: &Path) -> Result<(), LogError> {
        self.disk.create_folder(folder).map_err(|source| LogError::io("create", folder, source))?;
        let within = folder.ancestors().take_while(|folder| folder.starts_with(self.folder)).map(Path::to_owned);
        self.folders.extend(within.collect::<Vec<_>>());
        Ok(())
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), LogError> {
        let file = fresh(&**self.disk, path)?;
        file.write_at(0, bytes).map_err(|source| LogError::full_or_io("write", path, source))?;
        file.sync().map_err(|source| LogError::io("sync", path, source))
    }

    fn copy(&mut self, from: &Path, length: u64, to: &Path) -> Result<(), LogError> {
        let file = self.disk.open(from).map_err(|source| LogError::io("open", from, source))?;
        self.bytes += length;
        self.sources.insert(to.to_owned(), from.to_owned());
        backup::copy(&**self.disk, &*file, length, to, || Ok(()))
    }

    fn topics(&mut self, manifest: &Manifest) -> Result<(), LogError> {
        let folder = self.folder.join(topic_store::FOLDER);
        self.make(&folder)?;
        for topic in &manifest.topics {
            self.put(&folder.join(format!("{}.json", topic.id)), topic.manifest.as_bytes())?;
        }
        backup::sync_folder(&**self.disk, &folder)
    }

    /// Copies the segments of a partition, up to the first of which a record goes: what is left of that one is open to be gone on with.
    fn partition(
        &mut self,
        copy: &PartitionCopy,
        kind: Option<TopicKind>,
        time: Timestamp,
        cut: Position,
    ) -> Result<Option<CheckpointedPartition>, LogError> {
        let (Some(first), Some(topic)) = (copy.segments.first(), topic_of(copy)) else { return Ok(None) };
        let (mut rewritten, mut active) = (Vec::new(), None);
        for (segment, next) in copy.segments.iter().zip(copy.segments.iter().skip(1).map(Some).chain([None])) {
            let (runs, (log, runs_path)) = (self.runs(copy, segment)?, copy.paths(self.backup, segment));
            let of = |error| of_copy(error, &runs_path);
            let goes = runs.after(time).map_err(of)?;
            let Some(next) = next.filter(|_| goes.is_none()) else {
                let (left, (log_to, runs_to)) = (runs.cut(time).map_err(of)?, runs.paths_as_active());
                self.make(log_to.parent().unwrap_or(self.folder))?;
                self.copy(&log, left.log_len, &log_to)?;
                self.put(&runs_to, &left.runs)?;
                // Records before it may have gone for such as lie in what is left out now.
                if next.is_some() && copy.segments.iter().any(|segment| segment.generation > 0) {
                    self.thinned.insert(copy.topic.clone());
                }
                active = Some((segment.base, left));
                break;
            };
            let (log_to, runs_to) = runs.paths();
            self.make(log_to.parent().unwrap_or(self.folder))?;
            self.copy(&log, segment.log, &log_to)?;
            self.copy(&runs_path, segment.runs, &runs_to)?;
            if segment.generation > 0 {
                let (base, end) = (Offset::new(segment.base), Offset::new(next.base));
                rewritten.push(Rewrite { base, end, generation: segment.generation });
            }
        }
        let Some((base, left)) = active else { return Ok(None) };
        let active = Offset::new(base);
        let mark = PartitionMark {
            first: Offset::new(first.base),
            active,
            end: left.end,
            log_len: left.log_len,
            runs_len: left.runs.len() as u64,
            chain: left.chain,
        };
        // What retention let go of stays gone; of a table the active segment is not compacted.
        let most = if kind == Some(TopicKind::Events) { left.end } else { active };
        let cleaned = Cleaned { to: Offset::new(copy.cleaned_to).min(most), horizon: Timestamp::new(copy.tombstones_until) };
        let (partition, removed) = (PartitionId::new(copy.partition), Position::new(copy.removed).min(cut));
        Ok(Some(CheckpointedPartition { topic, partition, mark, removed, rewritten, cleaned }))
    }

    fn window(&mut self, manifest: &Manifest, time: Timestamp) -> Result<WindowMark, LogError> {
        let Some(window) = manifest.window else { return Ok(WindowMark::default()) };
        let path = window.path(self.backup);
        let file = self.disk.open(&path).map_err(|source| LogError::io("open", &path, source))?;
        let bytes = backup::read(&*file, &path, 0, window.length)?;
        let corrupt = |what: &str| LogError::Corrupt { file: path.clone(), from: 0, end: window.length, what: what.into() };
        if crc32c::crc32c(&bytes) != window.check {
            return Err(corrupt("it is not what its checksum promised"));
        }
        let left = window_file::recorded_by(&bytes, time).ok_or_else(|| corrupt("its entries cannot be read"))?;
        let mark = WindowMark { file: 1, length: left.len() as u64, crc: crc32c::crc32c(&left) };
        self.put(&window_file::path(self.folder, mark.file), &left)?;
        self.bytes += mark.length;
        Ok(mark)
    }

    /// Reads everything back: every byte under a checksum, and as a start does.
    fn read_back(&self, identity: &Identity, clock: &Arc<dyn Clock>, config: &LogConfig) -> Result<(), LogError> {
        let corrupt = |file: &Path, what: String| LogError::Corrupt { file: file.to_owned(), from: 0, end: 0, what };
        for path in self.folders.iter().flat_map(|folder| doctor::files_in(&**self.disk, folder)) {
            if let Some(what) = doctor::scrub(self.disk, &path).1.into_iter().next() {
                let of = self.sources.get(&path).unwrap_or(&path);
                return Err(corrupt(of, format!("what is restored of it is not whole: {what}")));
            }
        }
        let report = start::examine_as(identity, self.disk, Arc::clone(clock), self.folder, config)?;
        match report.damage.into_iter().chain(report.damaged).next() {
            None => Ok(()),
            Some(what) => Err(corrupt(self.backup, format!("what it restores to is not whole: {what}"))),
        }
    }
}

fn topic_of(copy: &PartitionCopy) -> Option<TopicId> {
    uuid::Uuid::parse_str(&copy.topic).ok().map(|id| TopicId::new(*id.as_bytes()))
}
