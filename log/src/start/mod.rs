//! A start: makes or opens a data folder, recovers what the journal holds, and hands over a committer that goes on behind it.
//!
//! [`crate::embedded`] calls [`open`]. The order of its steps is what keeps frames of former starts dead and acknowledged ones
//! alive; `log/FORMAT.md`, "A start", says why each is where it is.

mod identity;
mod reader;
mod replay;

use std::{
    mem,
    path::Path,
    sync::{Arc, OnceLock, atomic::AtomicU64},
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

pub(crate) use identity::{FORMAT, Gap, IDENTITY, Identity, RESTORING, lock, refuse_within_another};
use replay::{Folded, Replay};

use crate::{
    backup::Waiting,
    checkpoint::{Checkpoint, Slots},
    clock::Clock,
    compaction::{Compacting, Compactor},
    config::LogConfig,
    deleted::Deleted,
    disk::Disk,
    embedded::OpenReport,
    engine::{Counters, Engine, Random, Unsynced},
    error::LogError,
    holds::Holds,
    ids::Position,
    journal::{
        self,
        committer::{Committer, JournalEnd},
        file::JournalFiles,
        frame::Replacement,
        queue::Queue,
        recovery::{self, Scan},
    },
    partition::admission::Admission,
    postings::{self, Postings},
    reserve::Reserve,
    scrub::Scrubbed,
    segment::{OpenFiles, Segments},
    server_time::{ServerTime, YEAR_2020},
    stall::{Syncs, Watched},
    tidy::{Signal, Tidy, is_full},
    topic_store::{self, TopicStore},
    upkeep::Upkeep,
    window_file::WindowFile,
};

/// Most files of segments that are open at once.
pub(crate) const OPEN_FILES: usize = 512;

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
    let identity = match identity::read(disk.as_ref(), folder)? {
        Some(identity) => identity,
        None => identity::create(disk.as_ref(), folder, &config, &mut random)?,
    };
    // Everything is read before anything is written: a folder with a damaged journal stays as it is.
    let reserve = Arc::new(Reserve::new(Arc::clone(&disk), Arc::clone(&clock), folder, &config));
    let found = Found::read(&disk, folder, &config, &identity, Arc::clone(&reserve))?;
    let Found { mut slots, mut checkpoint, journal, files, window_file, segments, replay, scan, mut read_only } = found;
    let Replay { topics, hasher, offsets, mut folded } = replay;
    if read_only.is_none() {
        // (i) Nothing is cut, overwritten or deleted before the slot that was chosen is durable: it may lie in the page cache
        // only.
        slots.rewrite(&checkpoint)?;
        // The same goes for names that were made and whose sync failed.
        for part in [folder.to_owned(), folder.join(journal::file::FOLDER), folder.join(topic_store::FOLDER)] {
            disk.sync_folder(&part).map_err(|source| LogError::io("sync", &part, source))?;
        }
        topics.settle()?;
        segments.iter().flatten().try_for_each(|segments| segments.settle())?;
        settle(&journal, &mut slots, &mut checkpoint, &mut folded, &scan, &mut random)?;
        // Both slots name the same file now.
        window_file.settle()?;
        folded.postings.checkpointed()?;
        let partitions = topics.by_index();
        let completed = postings::complete(&folded.postings, &segments, &hasher, checkpoint.next, |index, error| {
            let reason = partitions.get(index).map(|partition| partition.damage.get_or_init(|| error.in_full()).clone());
            folded.report.damaged.extend(reason);
        });
        match completed {
            // Until the next start: what conditions are judged by is not there.
            Err(error) if is_full(&error) => read_only = Some(error.in_full()),
            completed => completed?,
        }
    }
    folded.report.damage.clone_from(&read_only);
    folded.tail.tell();

    let end = JournalEnd {
        number: scan.last,
        crc: scan.last_crc,
        position: folded.position,
        time: folded.time,
        salt: checkpoint.salt,
        start: checkpoint.start,
    };
    let newest = (folded.position > Position::default()).then_some(folded.time);
    let admission = Admission::new(folded.position, offsets);
    let deleted = Deleted::found(topics.deleted());
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
        topics,
        hasher,
        streams: folded.streams,
        redactions: Arc::default(),
        postings: folded.postings,
        tail: folded.tail,
        journal,
        reserve,
        window: Mutex::new(folded.window),
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
    engine.redact_again(&folded.redactions, scan.last);
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
    Ok(Started { engine, committer, tidy, upkeep, compactor, report: folded.report, lock })
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
        let window_file = WindowFile::open(Arc::clone(disk), folder, checkpoint.folder, checkpoint.window, &mut replay.folded.window)?;
        let segments = replay.open_segments(&files, &checkpoint)?;
        let scan = replay.run(&journal, &checkpoint)?;
        for switch in mem::take(&mut replay.folded.switches) {
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
    let Some(identity) = identity::read(disk.as_ref(), folder)? else {
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
    Ok(OpenReport { damage: read_only, ..replay.folded.report })
}

/// Steps (ii) and (iii) of a start: makes durable what will be shown, and only then draws a new salt.
fn settle(
    journal: &JournalFiles,
    slots: &mut Slots,
    checkpoint: &mut Checkpoint,
    folded: &mut Folded,
    found: &Scan,
    random: &mut impl FnMut() -> u128,
) -> Result<(), LogError> {
    folded.recent.retain(|accepted| accepted.header.number > found.durable);
    folded.report.rewritten = folded.recent.len() as u64;
    recovery::settle(journal, found, &folded.recent)?;
    folded.recent.clear();
    checkpoint.recovered = found.last;
    checkpoint.salt = random();
    checkpoint.start += 1;
    checkpoint.files = journal.settled();
    slots.write(checkpoint)
}
