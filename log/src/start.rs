//! A start: makes or opens a data folder, recovers what the journal holds, and hands over a committer that goes on behind it.
//!
//! [`crate::embedded`] calls [`open`]. The order of its steps is what keeps frames of former starts dead and acknowledged ones
//! alive; `log/FORMAT.md`, "A start", says why each is where it is.

use std::{
    mem,
    path::Path,
    sync::{Arc, OnceLock, atomic::AtomicU64},
};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    backup::Waiting,
    batch::StoredRecords,
    checkpoint::{Checkpoint, Slots, WindowMark},
    clock::Clock,
    compaction::{Compacting, Compactor},
    config::LogConfig,
    deleted::Deleted,
    disk::Disk,
    embedded::OpenReport,
    engine::{Counters, Engine, Random, Unsynced, open_segments},
    error::LogError,
    holds::Holds,
    ids::{FolderId, Offset, Position, Timestamp},
    journal::{
        self,
        committer::{Committer, JournalEnd},
        file::JournalFiles,
        frame::{self, Replacement},
        queue::Queue,
        recovery::{self, Accepted, Scan},
    },
    life::{RedactionAt, SnapshotAt},
    manifest,
    partition::{
        admission::Admission,
        group::{Group, Slice, Switch},
        streams::{StreamKey, StreamMark, StreamSpan, Streams},
        tail::Tail,
    },
    postings::{self, Postings, postings_of},
    reserve::Reserve,
    scrub::Scrubbed,
    segment::{Checkpointed, OpenFiles, Segments, StreamHasher},
    server_time::{ServerTime, YEAR_2020},
    stall::{Syncs, Watched},
    tidy::{Signal, Tidy, is_full},
    topic::TopicKind,
    topic_store::{self, Partition, TopicStore},
    upkeep::Upkeep,
    window::Window,
    window_file::WindowFile,
};

/// File that says whose folder this is.
pub(crate) const IDENTITY: &str = "foldlog.json";
/// Newest format of it.
pub(crate) const FORMAT: u32 = 2;
/// File that is there while a restore fills the folder; without an identity beside it that was not finished.
pub(crate) const RESTORING: &str = "foldlog.restoring";
/// Format of a folder that was never restored, which programs from before anything could be read.
const FORMAT_BEFORE_RESTORE: u32 = 1;
/// Most files of segments that are open at once.
pub(crate) const OPEN_FILES: usize = 512;

/// Whose a folder is.
#[derive(Serialize, Deserialize)]
pub(crate) struct Identity {
    format: u32,
    id: String,
    /// Since format 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    restored: Vec<Gap>,
}

/// Positions that a restore left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gap {
    /// The epoch that it began.
    pub(crate) epoch: u32,
    /// Position of the first record that it may have taken away.
    pub(crate) from: u64,
    /// First position that was given after it.
    pub(crate) next: u64,
}

impl Identity {
    pub(crate) fn new(id: FolderId, restored: Vec<Gap>) -> Self {
        let format = if restored.is_empty() { FORMAT_BEFORE_RESTORE } else { FORMAT };
        Self { format, id: id.to_string(), restored }
    }

    /// Makes it the folder's, durably.
    pub(crate) fn write(&self, disk: &dyn Disk, folder: &Path) -> Result<(), LogError> {
        manifest::write(disk, &folder.join(IDENTITY), self)
    }
}

/// What a start hands over.
pub(crate) struct Started {
    pub(crate) engine: Arc<Engine>,
    pub(crate) committer: Committer,
    pub(crate) tidy: Tidy,
    pub(crate) upkeep: Upkeep,
    pub(crate) compactor: Compactor,
    pub(crate) report: OpenReport,
    pub(crate) lock: Box<dyn Send + Sync>,
}

/// Opens the folder; makes it if it is not there.
pub(crate) fn open(
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    folder: &Path,
    config: LogConfig,
    mut random: impl FnMut() -> u128 + Send + 'static,
) -> Result<Started, LogError> {
    if let Err(faults) = config.validate() {
        return Err(LogError::Invalid { field: "log".into(), reason: faults.join("; ") });
    }
    let syncs = Arc::new(Syncs::new(Arc::clone(&clock), &config));
    let unwatched = Arc::clone(&disk);
    let disk: Arc<dyn Disk> = Arc::new(Watched::new(disk, Arc::clone(&syncs)));
    refuse_within_another(disk.as_ref(), folder)?;
    disk.create_folder(folder).map_err(|source| LogError::io("create", folder, source))?;
    if clock.now() < YEAR_2020 {
        tracing::warn!("the clock stands before the year 2020: events that bring no time of their own get the wrong one");
    }
    let lock = lock(disk.as_ref(), folder)?;
    let identity = match read_identity(disk.as_ref(), folder)? {
        Some(identity) => identity,
        None => create(disk.as_ref(), folder, &config, &mut random)?,
    };
    // Everything is read before anything is written: a folder with a damaged journal stays as it is.
    let reserve = Arc::new(Reserve::new(Arc::clone(&disk), Arc::clone(&clock), folder, &config));
    let found = Found::read(&disk, folder, &config, &identity, Arc::clone(&reserve))?;
    let Found { mut slots, mut checkpoint, journal, files, window_file, segments, mut replay, scan, mut read_only } = found;
    if read_only.is_none() {
        // (i) Nothing is cut, overwritten or deleted before the slot that was chosen is durable: it may lie in the page cache
        // only.
        slots.rewrite(&checkpoint)?;
        // The same goes for names that were made and whose sync failed.
        for part in [folder.to_owned(), folder.join(journal::file::FOLDER), folder.join(topic_store::FOLDER)] {
            disk.sync_folder(&part).map_err(|source| LogError::io("sync", &part, source))?;
        }
        replay.topics.settle()?;
        segments.iter().flatten().try_for_each(|segments| segments.settle())?;
        settle(&journal, &mut slots, &mut checkpoint, &mut replay, &scan, &mut random)?;
        // Both slots name the same file now.
        window_file.settle()?;
        replay.postings.checkpointed()?;
        let partitions = replay.topics.by_index();
        let completed = postings::complete(&replay.postings, &segments, &replay.hasher, checkpoint.next, |index, error| {
            let reason = partitions.get(index).map(|partition| partition.damage.get_or_init(|| error.in_full()).clone());
            replay.report.damaged.extend(reason);
        });
        match completed {
            // Until the next start: what conditions are judged by is not there.
            Err(error) if is_full(&error) => read_only = Some(error.in_full()),
            completed => completed?,
        }
    }
    replay.report.damage.clone_from(&read_only);
    replay.tail.tell();

    let end = JournalEnd {
        number: scan.last,
        crc: scan.last_crc,
        position: replay.position,
        time: replay.time,
        salt: checkpoint.salt,
        start: checkpoint.start,
    };
    let newest = (replay.position > Position::default()).then_some(replay.time);
    let admission = Admission::new(replay.position, replay.offsets);
    let deleted = Deleted::found(replay.topics.deleted());
    let engine = Arc::new(Engine {
        time: ServerTime::new(Arc::clone(&clock), newest),
        clock,
        queue: Queue::new(config.queue_requests, config.queue_bytes),
        config,
        disk: unwatched,
        folder: folder.to_owned(),
        id: checkpoint.folder,
        epoch: checkpoint.epoch,
        gaps: identity.restored,
        backups: Waiting::default(),
        topics: replay.topics,
        hasher: replay.hasher,
        streams: replay.streams,
        redactions: Arc::default(),
        postings: replay.postings,
        tail: replay.tail,
        journal,
        reserve,
        window: Mutex::new(replay.window),
        failure: watch::Sender::new(None),
        read_only: read_only.map_or_else(OnceLock::new, OnceLock::from),
        random: Random::new(random),
        segments: RwLock::new(segments),
        files,
        tidy: Signal::default(),
        due: Mutex::default(),
        upkeep: Signal::default(),
        holds: Holds::default(),
        compacting: Compacting::default(),
        switched: AtomicU64::default(),
        deleted,
        syncs,
        scrubbed: Scrubbed::default(),
        counters: Counters::default(),
        unsynced: Unsynced::default(),
    });
    engine.redact_again(&replay.redactions, scan.last);
    let mut committer = Committer::new(Arc::clone(&engine), admission, end);
    let tidy = Tidy::new(Arc::clone(&engine), slots, checkpoint, window_file);
    let upkeep = Upkeep::new(Arc::clone(&engine));
    let compactor = Compactor::new(Arc::clone(&engine));
    if engine.read_only.get().is_none() {
        match committer.open() {
            Ok(()) => {}
            Err(error @ LogError::DiskFull { .. }) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the log can be read, and takes appends when there is space");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Started { engine, committer, tidy, upkeep, compactor, report: replay.report, lock })
}

/// What lies in a folder, before anything is written.
struct Found {
    slots: Slots,
    checkpoint: Checkpoint,
    journal: JournalFiles,
    files: Arc<OpenFiles>,
    window_file: WindowFile,
    /// By index of their partition.
    segments: Vec<Option<Arc<Segments>>>,
    replay: Replay,
    scan: Scan,
    /// Damage because of which nothing may be written.
    read_only: Option<String>,
}

impl Found {
    fn read(disk: &Arc<dyn Disk>, folder: &Path, config: &LogConfig, identity: &Identity, reserve: Arc<Reserve>) -> Result<Self, LogError> {
        let (slots, checkpoint) = Slots::open(disk.as_ref(), folder)?;
        if checkpoint.folder.to_string() != identity.id {
            let what = "this checkpoint belongs to another data folder".into();
            return Err(LogError::Corrupt { file: folder.join("checkpoint.a"), from: 0, end: 0, what });
        }
        let topics = TopicStore::open(Arc::clone(disk), folder)?;
        let (journal, shortened) = JournalFiles::open(Arc::clone(disk), folder, config, reserve, &checkpoint.files)?;
        let files = OpenFiles::new(Arc::clone(disk), OPEN_FILES);
        let postings = Postings::open(Arc::clone(&files), folder, checkpoint.folder, checkpoint.next, config.filter_bytes)?;
        let mut replay = Replay::new(&checkpoint, topics, postings, config)?;
        let window_file = WindowFile::open(Arc::clone(disk), folder, checkpoint.folder, checkpoint.window, &mut replay.window)?;
        let segments = replay.open_segments(&files, &checkpoint)?;
        let scan = recovery::scan(&journal, &checkpoint, |accepted| replay.take(accepted))?;
        for switch in mem::take(&mut replay.switches) {
            let Some(Some(segments)) = segments.get(switch.partition.index) else { continue };
            if let Replacement::Rewritten(rewrite, _) = &switch.by {
                segments.prepare_again(rewrite)?;
            }
            switch.apply(segments);
            replay.note_damage(&switch.partition, segments);
        }
        replay.retain(&segments)?;
        let read_only = scan.rot.as_ref().or(shortened.as_ref()).map(LogError::in_full);
        Ok(Self { slots, checkpoint, journal, files, window_file, segments, replay, scan, read_only })
    }
}

/// What a start would find in a folder, of which nothing is changed. Nobody else may have it open.
///
/// # Errors
/// Those of a start; [`LogError::Invalid`] for what is no data folder.
pub(crate) fn examine(disk: &Arc<dyn Disk>, clock: Arc<dyn Clock>, folder: &Path, config: &LogConfig) -> Result<OpenReport, LogError> {
    let Some(identity) = read_identity(disk.as_ref(), folder)? else {
        return Err(LogError::Invalid { field: "data".into(), reason: format!("{} is no data folder", folder.display()) });
    };
    examine_as(&identity, disk, clock, folder, config)
}

/// The same for a folder that has no identity yet.
pub(crate) fn examine_as(
    identity: &Identity,
    disk: &Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    folder: &Path,
    config: &LogConfig,
) -> Result<OpenReport, LogError> {
    let reserve = Arc::new(Reserve::new(Arc::clone(disk), clock, folder, config));
    let Found { replay, read_only, .. } = Found::read(disk, folder, config, identity, reserve)?;
    Ok(OpenReport { damage: read_only, ..replay.report })
}

/// Steps (ii) and (iii) of a start: makes durable what will be shown, and only then draws a new salt.
fn settle(
    journal: &JournalFiles,
    slots: &mut Slots,
    checkpoint: &mut Checkpoint,
    replay: &mut Replay,
    found: &Scan,
    random: &mut impl FnMut() -> u128,
) -> Result<(), LogError> {
    replay.recent.retain(|accepted| accepted.header.number > found.durable);
    replay.report.rewritten = replay.recent.len() as u64;
    recovery::settle(journal, found, &replay.recent)?;
    replay.recent.clear();
    checkpoint.recovered = found.last;
    checkpoint.salt = random();
    checkpoint.start += 1;
    checkpoint.files = journal.settled();
    slots.write(checkpoint)
}

pub(crate) fn lock(disk: &dyn Disk, folder: &Path) -> Result<Box<dyn Send + Sync>, LogError> {
    let owner = format!("process {}", std::process::id());
    disk.lock(folder, &owner).map_err(|source| {
        if source.kind() == std::io::ErrorKind::WouldBlock {
            return LogError::Locked { folder: folder.to_owned(), owner: source.to_string() };
        }
        LogError::io("lock", folder, source)
    })
}

fn read_identity(disk: &dyn Disk, folder: &Path) -> Result<Option<Identity>, LogError> {
    let path = folder.join(IDENTITY);
    let identity: Option<Identity> = manifest::read(disk, &path, FORMAT)?;
    match identity {
        None if disk.open(&folder.join(RESTORING)).is_ok() => {
            let reason = format!("the restore into {} was not finished; remove the folder and restore again", folder.display());
            Err(LogError::Invalid { field: "data".into(), reason })
        }
        None if TopicStore::holds_any(disk, folder) => {
            let what = "it is missing, but the folder holds topics".into();
            Err(LogError::Corrupt { file: path, from: 0, end: 0, what })
        }
        identity => Ok(identity),
    }
}

/// A new folder within the data folder of another log would be copied, moved and removed with that one.
pub(crate) fn refuse_within_another(disk: &dyn Disk, folder: &Path) -> Result<(), LogError> {
    let folder = std::path::absolute(folder).map_err(|source| LogError::io("find", folder, source))?;
    let nearest = folder.ancestors().find(|at| disk.open(&at.join(IDENTITY)).is_ok());
    let Some(outer) = nearest.filter(|nearest| *nearest != folder) else { return Ok(()) };
    let reason = format!("{} lies within {}, the data folder of another log; choose another one", folder.display(), outer.display());
    Err(LogError::Invalid { field: "data".into(), reason })
}

/// Makes an empty folder's files; the identity comes last, so that a folder that has one has everything.
fn create(disk: &dyn Disk, folder: &Path, config: &LogConfig, random: &mut impl FnMut() -> u128) -> Result<Identity, LogError> {
    let id = random();
    for part in [journal::file::FOLDER, topic_store::FOLDER] {
        let path = folder.join(part);
        disk.create_folder(&path).map_err(|source| LogError::io("create", &path, source))?;
    }
    JournalFiles::create_first(disk, folder, config)?;
    let first = Checkpoint {
        sequence: 1,
        folder: FolderId::new(id.to_le_bytes()),
        epoch: 0,
        start: 0,
        recovered: 0,
        salt: random(),
        frame: 0,
        frame_crc: 0,
        file: 1,
        file_end: 0,
        next: Position::default(),
        time: Timestamp::new(0),
        window: WindowMark::default(),
        partitions: Vec::new(),
        files: vec![(1, config.first_journal_file_bytes)],
    };
    Slots::create(disk, folder, &first)?;
    let sync = |path: &Path| disk.sync_folder(path).map_err(|source| LogError::io("sync", path, source));
    sync(folder)?;
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync(parent)?;
    }
    let identity = Identity::new(first.folder, Vec::new());
    identity.write(disk, folder)?;
    Ok(identity)
}

/// Everything in memory that frames of the journal make up.
struct Replay {
    topics: TopicStore,
    hasher: StreamHasher,
    streams: Streams,
    postings: Postings,
    tail: Tail,
    window: Window,
    offsets: Vec<Offset>,
    position: Position,
    time: Timestamp,
    /// What replaces segments since the checkpoint.
    switches: Vec<Switch>,
    /// All redactions of data, also those that are complete.
    redactions: Vec<(StreamKey, RedactionAt)>,
    /// Frames that no later header has proved durable.
    recent: Vec<Accepted>,
    report: OpenReport,
}

impl Replay {
    fn new(checkpoint: &Checkpoint, topics: TopicStore, postings: Postings, config: &LogConfig) -> Result<Self, LogError> {
        let mut offsets = vec![Offset::default(); topics.by_index().len()];
        for mark in &checkpoint.partitions {
            let Some(partition) = topics.partition(mark.topic, mark.partition) else {
                return Err(topics.missing(mark.topic));
            };
            offsets[partition.index] = mark.mark.end;
        }
        let tail = Tail::new(checkpoint.next, checkpoint.frame, offsets.clone(), config.tail_bytes);
        Ok(Self {
            hasher: StreamHasher::new(checkpoint.folder),
            topics,
            streams: Streams::default(),
            postings,
            tail,
            window: Window::new(config.window_requests, config.window_bytes),
            offsets,
            position: checkpoint.next,
            time: checkpoint.time,
            switches: Vec::new(),
            redactions: Vec::new(),
            recent: Vec::new(),
            report: OpenReport::default(),
        })
    }

    /// Opens the segments that a checkpoint names, by index of their partition, and learns where their streams stand. A
    /// partition of which a part cannot be read is read-only.
    fn open_segments(&mut self, files: &Arc<OpenFiles>, checkpoint: &Checkpoint) -> Result<Vec<Option<Arc<Segments>>>, LogError> {
        let mut all = vec![None; self.offsets.len()];
        for named in &checkpoint.partitions {
            let Some(partition) = self.topics.partition(named.topic, named.partition) else {
                return Err(self.topics.missing(named.topic));
            };
            if partition.is_gone() {
                continue;
            }
            let (streams, all_redactions) = (&self.streams, &mut self.redactions);
            let restore = |hash, standing, snapshots: &[SnapshotAt], redactions: &[RedactionAt]| {
                let key = StreamKey { partition: u32::try_from(partition.index).unwrap_or(u32::MAX), hash };
                streams.restore(key, standing, snapshots);
                all_redactions.extend(redactions.iter().map(|redaction| (key, *redaction)));
            };
            let known = Checkpointed {
                mark: named.mark,
                below: checkpoint.next,
                removed: named.removed,
                rewritten: named.rewritten.clone(),
                cleaned: named.cleaned,
            };
            let segments = open_segments(files, &self.topics, &self.hasher, &partition, Some(known))?;
            segments.for_each_stream(restore)?;
            self.note_damage(&partition, &segments);
            all[partition.index] = Some(segments);
        }
        Ok(all)
    }

    /// Learns with which versions streams begin by what retention has let go of: all that lies below where partitions begin by now.
    fn retain(&mut self, segments: &[Option<Arc<Segments>>]) -> Result<(), LogError> {
        for (partition, segments) in self.topics.by_index().iter().zip(segments) {
            let Some(segments) = segments.as_ref().filter(|_| partition.topic.settings.kind == TopicKind::Events) else { continue };
            match segments.beginnings(Offset::default(), segments.low().offset) {
                // It was told when streams were looked up.
                Err(LogError::Corrupt { .. }) if partition.damage.get().is_some() => {}
                beginnings => self.streams.retain(u32::try_from(partition.index).unwrap_or(u32::MAX), &beginnings?),
            }
        }
        Ok(())
    }

    /// Makes a partition read-only of which a part cannot be read.
    fn note_damage(&mut self, partition: &Partition, segments: &Segments) {
        if let Some(damage) = segments.damage()
            && partition.damage.get().is_none()
        {
            let reason = partition.damage.get_or_init(|| damage.report().in_full());
            self.report.damaged.push(reason.clone());
        }
    }

    fn take(&mut self, accepted: Accepted) -> Result<(), LogError> {
        let header = &accepted.header;
        let damage = |what: &str| LogError::Corrupt {
            file: format!("journal file {}", accepted.place.file).into(),
            from: accepted.place.at,
            end: accepted.place.end(),
            what: format!("frame {}: {what}", header.number),
        };
        let body = frame::decode_body(header, &accepted.bytes).map_err(|_| damage("its body is not what its checksum promised"))?;
        let mut missing = None;
        let group = Group::from_frame(header, accepted.place, body, |topic, partition| {
            let partition = self.topics.partition(topic, partition);
            if partition.is_none() {
                missing = Some(topic);
            }
            partition
        });
        if let Some(topic) = missing {
            return Err(self.topics.missing(topic));
        }
        let mut group = group.ok_or_else(|| damage("its tables contradict each other"))?;
        for slice in &group.slices {
            let next = &mut self.offsets[slice.partition.index];
            if slice.base != *next {
                return Err(damage("its offsets do not follow on those before"));
            }
            *next = slice.end();
            if slice.partition.is_gone() {
                continue;
            }
            let (spans, marks) = streams_of(slice, &self.hasher).ok_or_else(|| damage("its records cannot be followed"))?;
            group.spans.extend(spans);
            group.marks.extend(marks);
        }
        self.post(&group)?;
        self.window.restore(&group.entries).ok_or_else(|| damage("its request ids cannot be read"))?;
        self.streams.apply(&group.spans, &group.marks);
        let redaction = |mark: &StreamMark| Some((mark.key, RedactionAt { version: mark.redacts?, offset: mark.offset }));
        self.redactions.extend(group.marks.iter().filter_map(redaction));
        self.switches.extend(group.switches.iter().cloned());
        self.position = header.end();
        self.time = self.time.max(header.time);
        self.report.frames += 1;
        self.report.records += u64::from(header.count);
        self.recent.retain(|earlier| earlier.header.number > header.durable);
        self.recent.push(accepted);
        self.tail.push(Arc::new(group));
        Ok(())
    }
}

impl Replay {
    /// Posts the events of a group as admission did: those of a topic in order of position, whatever their partition.
    fn post(&self, group: &Group) -> Result<(), LogError> {
        let mut postings = Vec::new();
        for slice in group.slices.iter().filter(|slice| !slice.partition.is_gone()) {
            let runs = slice.runs.iter().map(|run| group.cut(slice, run, 0, run.count)).collect::<Result<Vec<_>, _>>()?;
            postings.extend(postings_of(&runs, &self.hasher)?);
        }
        postings.sort_unstable_by_key(|posting| posting.first);
        postings.iter().for_each(|posting| self.postings.recent.add(posting, Position::default()));
        Ok(())
    }
}

/// The streams of a slice and the marks in their lives, in order; none for topics without streams. A span lies within one run, so
/// that its positions follow each other.
fn streams_of(slice: &Slice, hasher: &StreamHasher) -> Option<(Vec<StreamSpan>, Vec<StreamMark>)> {
    let (mut spans, mut marks): (Vec<StreamSpan>, Vec<StreamMark>) = Default::default();
    if slice.partition.topic.settings.kind != TopicKind::Events {
        return Some((spans, marks));
    }
    let mut last_key: &[u8] = &[];
    let mut count = 0;
    let mut runs = slice.runs.iter().peekable();
    for record in StoredRecords::from(&slice.batch, crate::batch::HEADER_LEN).ok()? {
        let record = record.ok()?;
        let name = record.key?;
        count += 1;
        let begins_run = runs.next_if(|run| run.first_offset == record.offset).is_some();
        let Some(version) = record.version() else {
            let (key, mark) = (StreamKey::of(hasher, &slice.partition, name), record.mark()?);
            marks.push(StreamMark::of(key, mark, record.offset));
            last_key = &[];
            continue;
        };
        match spans.last_mut().filter(|span| !begins_run && name == last_key && span.last_version().plus(1) == version) {
            Some(span) => span.count += 1,
            None => spans.push(StreamSpan {
                key: StreamKey::of(hasher, &slice.partition, name),
                first_version: version,
                offset: record.offset,
                count: 1,
                start: u32::try_from(record.start).ok()?,
            }),
        }
        last_key = name;
    }
    (count == slice.count).then_some((spans, marks))
}
