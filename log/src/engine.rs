//! What the parts of one open data folder share: committer, tidy, readers and the face all hold it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::{
    backup::Waiting,
    clock::Clock,
    compaction::Compacting,
    config::LogConfig,
    deleted::Deleted,
    disk::Disk,
    distribution::{Distribution, Tally},
    error::LogError,
    holds::Holds,
    ids::{FolderId, Position, StreamHead, Timestamp, TopicName},
    journal::{
        file::JournalFiles,
        queue::{Closed, Queue},
    },
    life::Standing,
    partition::{
        group::Group,
        streams::{StreamKey, Streams},
        tail::Tail,
    },
    postings::Postings,
    record::Purpose,
    redaction::Redactions,
    reserve::Reserve,
    retention::LowMark,
    scrub::Scrubbed,
    segment::{Checkpointed, Layout, OpenFiles, Segments, Size, StreamHasher},
    server_time::ServerTime,
    stall::Syncs,
    start::Gap,
    tidy::Signal,
    topic::TopicKind,
    topic_store::{Partition, TopicStore},
    window::Window,
};

/// An open folder.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) time: ServerTime,
    pub(crate) config: LogConfig,
    /// Its syncs are not watched: for what is no part of the folder.
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) folder: PathBuf,
    pub(crate) id: FolderId,
    pub(crate) epoch: u32,
    /// Positions that restores left out.
    pub(crate) gaps: Vec<Gap>,
    pub(crate) backups: Waiting,
    pub(crate) topics: TopicStore,
    pub(crate) hasher: StreamHasher,
    pub(crate) streams: Streams,
    pub(crate) redactions: Arc<Redactions>,
    pub(crate) postings: Postings,
    pub(crate) tail: Tail,
    pub(crate) journal: JournalFiles,
    pub(crate) reserve: Arc<Reserve>,
    pub(crate) window: Mutex<Window>,
    pub(crate) queue: Queue,
    pub(crate) failure: watch::Sender<Option<Arc<LogError>>>,
    /// Why nothing is appended any more.
    pub(crate) read_only: OnceLock<String>,
    pub(crate) random: Random,
    /// Segments of each partition that has any, by its index.
    pub(crate) segments: RwLock<Vec<Option<Arc<Segments>>>>,
    pub(crate) files: Arc<OpenFiles>,
    pub(crate) tidy: Signal,
    /// Partitions whose active segment is to be sealed, by their index.
    pub(crate) due: Mutex<BTreeMap<usize, Arc<Partition>>>,
    pub(crate) upkeep: Signal,
    pub(crate) holds: Holds,
    pub(crate) compacting: Compacting,
    /// The newest frame of this process that put something in the place of segments.
    pub(crate) switched: AtomicU64,
    pub(crate) deleted: Deleted,
    pub(crate) syncs: Arc<Syncs>,
    pub(crate) scrubbed: Scrubbed,
    pub(crate) counters: Counters,
    pub(crate) unsynced: Unsynced,
}

/// Draws ids and salts; simulations give it a seed.
pub(crate) struct Random(Mutex<Box<dyn FnMut() -> u128 + Send>>);

impl Random {
    pub(crate) fn new(draw: impl FnMut() -> u128 + Send + 'static) -> Self {
        Self(Mutex::new(Box::new(draw)))
    }
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random")
    }
}

impl Engine {
    /// Draws 128 random bits.
    pub(crate) fn draw(&self) -> u128 {
        (*self.random.0.lock())()
    }

    /// Segments of a partition, if it has any.
    pub(crate) fn segments(&self, partition: &Partition) -> Option<Arc<Segments>> {
        self.segments.read().get(partition.index).cloned().flatten()
    }

    /// From where on a partition has its records.
    pub(crate) fn low(&self, partition: &Partition) -> LowMark {
        self.segments(partition).map_or_else(LowMark::default, |segments| segments.low())
    }

    /// Segments of a partition, made if it has none. For tidy alone.
    pub(crate) fn segments_for(&self, partition: &Partition) -> Result<Arc<Segments>, LogError> {
        if let Some(segments) = self.segments(partition) {
            return Ok(segments);
        }
        let opened = open_segments(&self.files, &self.topics, &self.hasher, partition, None)?;
        opened.settle()?;
        let mut all = self.segments.write();
        if all.len() <= partition.index {
            all.resize(partition.index + 1, None);
        }
        all[partition.index] = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// How a partition's records are laid down, as its topic is now.
    pub(crate) fn layout(&self, partition: &Partition) -> Layout {
        let now = self.topics.partition(partition.topic.id, partition.id);
        let settings = now.map_or(partition.topic.settings, |now| now.topic.settings);
        Layout { compression: settings.compression, max_log_bytes: settings.retention.segment_bytes(self.config.segment_bytes) }
    }

    /// Where a stream stands in the durable log, and what became of it.
    ///
    /// # Errors
    /// The report of damage, if it may stand in what cannot be read.
    pub(crate) fn standing(&self, partition: &Partition, key: &StreamKey) -> Result<Standing, LogError> {
        let standing = self.streams.standing(key);
        if standing.head() == StreamHead::Absent
            && let Some(segments) = self.segments(partition)
            && let Some(damage) = segments.damage()
        {
            return Err(damage.report());
        }
        Ok(standing)
    }

    /// Remembers damage that was met: from now on nothing is appended to the partition whose segments it lies in, or, if it
    /// lies elsewhere, to any. False for errors that name no damaged bytes.
    pub(crate) fn note_damage(&self, error: &LogError) -> bool {
        let LogError::Corrupt { file, from, end, .. } = error else { return false };
        if from >= end {
            return false;
        }
        let is_in = |partition: &Arc<Partition>| file.starts_with(self.topics.segments_of(partition));
        match self.topics.by_index().into_iter().find(is_in) {
            // Nobody needs it any more.
            Some(partition) if partition.is_gone() => {}
            Some(partition) => {
                partition.damage.get_or_init(|| {
                    tracing::error!(topic = %partition.topic.name, partition = %partition.id, error = %error, "the partition is read-only");
                    error.in_full()
                });
            }
            None => {
                self.read_only.get_or_init(|| {
                    tracing::error!(error = %error, "the log is read-only");
                    error.in_full()
                });
            }
        }
        true
    }

    /// Makes durable that lives of a topic's streams were changed, so that no build that knows nothing of it opens the folder.
    ///
    /// # Errors
    /// [`LogError::Io`]; the log has failed then, for nobody knows what reached the disk. [`LogError::DiskFull`].
    pub(crate) fn admit_changes(&self, topic: &TopicName) -> Result<(), LogError> {
        self.written(self.topics.admit_changes(topic))
    }

    /// Makes durable that events of a topic may be blank, so that no build opens the folder that takes them for less than they are.
    ///
    /// # Errors
    /// As [`Engine::admit_changes`].
    pub(crate) fn admit_blanks(&self, topic: &TopicName) -> Result<(), LogError> {
        self.written(self.topics.admit_blanks(topic))
    }

    /// The same for redactions of data.
    ///
    /// # Errors
    /// As [`Engine::admit_changes`].
    pub(crate) fn admit_redactions(&self, topic: &TopicName) -> Result<(), LogError> {
        self.written(self.topics.admit_redactions(topic))
    }

    /// Passes on what became of a manifest. A failed write or sync of one leaves unknown what reached the disk: then the log has failed.
    pub(crate) fn written<T>(&self, manifest: Result<T, LogError>) -> Result<T, LogError> {
        match manifest {
            Err(LogError::Io { doing, path, source }) => {
                let again = std::io::Error::new(source.kind(), source.to_string());
                self.fail(LogError::Io { doing, path: path.clone(), source });
                Err(LogError::Io { doing, path, source: again })
            }
            result => result,
        }
    }

    /// Refuses `asked`, which means what lies before `place`, if that is within what a restore left out: who asks was told of what was
    /// taken away.
    ///
    /// # Errors
    /// [`LogError::PositionLost`].
    pub(crate) fn not_lost(&self, asked: Position, place: Position) -> Result<(), LogError> {
        let within = self.gaps.iter().find(|gap| gap.from < place.get() && place.get() < gap.next);
        within.map_or(Ok(()), |gap| Err(LogError::PositionLost { asked, from: Position::new(gap.from), next: Position::new(gap.next) }))
    }

    /// Whether appends for that purpose are taken at all.
    ///
    /// # Errors
    /// [`LogError::ReadOnly`], [`LogError::DiskFull`], [`LogError::Overloaded`].
    pub(crate) fn takes_appends(&self, purpose: Purpose) -> Result<(), LogError> {
        if let Some(reason) = self.read_only.get() {
            return Err(LogError::ReadOnly { reason: reason.clone() });
        }
        self.reserve.admits(purpose)?;
        if self.untidied_bytes() > self.config.untidied_bytes {
            return Err(LogError::Overloaded { what: "segments are too far behind the journal" });
        }
        Ok(())
    }

    /// Bytes of journal that segments do not hold yet, with what is kept in memory beside it.
    pub(crate) fn untidied_bytes(&self) -> u64 {
        self.tail.untidied_bytes() + self.postings.recent.bytes()
    }

    /// Wakes tidy if there is enough for it to do.
    pub(crate) fn wake_tidy(&self) {
        if self.untidied_bytes() >= self.config.tidy_bytes || self.journal.wants_file() {
            self.tidy.raise();
        }
    }

    /// Reads a group that memory has let go from its frame; none if its place was given to another one since.
    pub(crate) fn load(&self, group: &Group) -> Result<Option<Group>, LogError> {
        let (header, body) = match self.journal.read(group.place, group.number) {
            // Asked after the look: a place is given away only when segments hold what was there.
            Err(LogError::Corrupt { .. }) if group.end <= self.tail.tidied_to() => return Ok(None),
            read => read?,
        };
        let loaded = Group::from_frame(&header, group.place, body, |topic, partition| self.topics.partition(topic, partition));
        Ok(loaded.map(|loaded| Group { spans: Arc::clone(&group.spans), marks: group.marks.clone(), ..loaded }))
    }

    /// Whether the log has ended over a sync that does not: threads may wait for the disk for ever, and write when it comes back.
    pub(crate) fn has_stalled(&self) -> bool {
        matches!(self.failure.borrow().as_deref(), Some(LogError::Stalled { .. }))
    }

    /// Ends it all: what was not answered is unknown, and the process must go.
    pub(crate) fn fail(&self, error: LogError) {
        tracing::error!(error = &error as &dyn std::error::Error, "the log has failed and stops");
        let error = Arc::new(error);
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert(error);
            first
        });
        self.queue.close(Closed::Failed);
        self.tidy.stop();
        self.upkeep.stop();
        self.compacting.signal.stop();
        self.backups.close();
        self.tail.close();
    }
}

/// Fails the log if its holder panics: what that left half done must not be gone on with, and nobody would wait for it to end.
#[derive(Debug)]
pub(crate) struct FailOnPanic<'a>(pub(crate) &'a Engine);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(LogError::io("go on in", &self.0.folder, std::io::Error::other("a thread panicked, which is a bug")));
        }
    }
}

/// Opens a partition's segments as far as a checkpoint has them.
pub(crate) fn open_segments(
    files: &Arc<OpenFiles>,
    topics: &TopicStore,
    hasher: &StreamHasher,
    partition: &Partition,
    known: Option<Checkpointed>,
) -> Result<Arc<Segments>, LogError> {
    let folder = topics.segments_of(partition);
    Segments::open(Arc::clone(files), folder, Arc::clone(&partition.topic), partition.id, *hasher, known)
}

impl std::fmt::Debug for dyn Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// Counters since the start; read by [`Metrics`].
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) appends: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) sync_nanos: AtomicU64,
    pub(crate) slowest_sync_nanos: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) deleted_segments: AtomicU64,
    pub(crate) deleted_bytes: AtomicU64,
    /// Microseconds.
    pub(crate) sync_times: Tally,
    pub(crate) group_units: Tally,
    pub(crate) group_bytes: Tally,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            appends: AtomicU64::default(),
            refused: AtomicU64::default(),
            records: AtomicU64::default(),
            groups: AtomicU64::default(),
            syncs: AtomicU64::default(),
            sync_nanos: AtomicU64::default(),
            slowest_sync_nanos: AtomicU64::default(),
            checkpoints: AtomicU64::default(),
            deleted_segments: AtomicU64::default(),
            deleted_bytes: AtomicU64::default(),
            // 16 microseconds to half a minute, one to 64 Ki, 4 KiB to 16 MiB.
            sync_times: Tally::new(4, 25),
            group_units: Tally::new(0, 16),
            group_bytes: Tally::new(12, 24),
        }
    }
}

impl Counters {
    pub(crate) fn synced(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.sync_times.add(nanos / 1000);
        self.slowest_sync_nanos.fetch_max(nanos, Ordering::Relaxed);
    }
}

/// Bytes of a frame of which units were answered after its write, and since when, while it is not synced. At most one frame is.
#[derive(Debug, Default)]
pub(crate) struct Unsynced(Mutex<Option<(u64, Duration)>>);

impl Unsynced {
    pub(crate) fn begin(&self, bytes: u64, now: Duration) {
        *self.0.lock() = Some((bytes, now));
    }

    pub(crate) fn end(&self) {
        self.0.lock().take();
    }

    /// How much there is, and for how long.
    fn now(&self, clock: &dyn Clock) -> (u64, Duration) {
        let unsynced = *self.0.lock();
        unsynced.map_or_else(Default::default, |(bytes, since)| (bytes, clock.monotonic().saturating_sub(since)))
    }
}

fn millis_since(since: Timestamp, now: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(now.get().saturating_sub(since.get())).unwrap_or_default())
}

/// Figures of an open log. Counts are since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Appends waiting for the committer, now.
    pub queued: u64,
    /// Bytes of them.
    pub queued_bytes: u64,
    /// Units admitted.
    pub appends: u64,
    /// Appends that were answered without writing: conflicts, repeats, refusals.
    pub refused: u64,
    /// Records written.
    pub records: u64,
    /// Groups written; `appends / groups` is how many units share a sync.
    pub groups: u64,
    /// Units in each group.
    pub group_units: Distribution,
    /// Bytes of each group's frame.
    pub group_bytes: Distribution,
    /// Syncs of the journal.
    pub syncs: u64,
    /// Time spent in them.
    pub sync_time: Duration,
    /// How long each took, in microseconds.
    pub sync_micros: Distribution,
    /// The slowest of them.
    pub slowest_sync: Duration,
    /// Syncs of any file that took over a second, or what is configured.
    pub slow_syncs: u64,
    /// For how long the oldest sync that has not ended has been under way.
    pub sync_under_way: Duration,
    /// Whether the wall clock is followed by the server's time.
    pub follows_clock: bool,
    /// Bytes of the disk that are free, where the system tells.
    pub disk_free: Option<u64>,
    /// Bytes of the disk that appends leave free.
    pub disk_reserve: u64,
    /// Bytes of journal files, now.
    pub journal_bytes: u64,
    /// Bytes of journal that segments do not hold yet and of what is kept in memory because of it, now.
    pub untidied_bytes: u64,
    /// Bytes of the newest records that are kept in memory, now.
    pub tail_bytes: u64,
    /// Requests that are remembered to answer repeats, now.
    pub window_requests: u64,
    /// Bytes of their answers.
    pub window_bytes: u64,
    /// Segments, now.
    pub segments: u64,
    /// Bytes of their batches.
    pub segment_bytes: u64,
    /// Bytes that the scrubber has read.
    pub scrubbed_bytes: u64,
    /// Its passes over everything.
    pub scrub_passes: u64,
    /// Damage that it met.
    pub scrub_damages: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Segments deleted, because retention removed them or compaction wrote them anew.
    pub deleted_segments: u64,
    /// Bytes of batches in them.
    pub deleted_bytes: u64,
    /// Passes of compaction, and of removal, that were ended.
    pub compaction_passes: u64,
    /// Bytes of segments that compaction has read.
    pub compaction_read_bytes: u64,
    /// Bytes by which segments that it wrote are shorter than those that they replaced.
    pub compaction_freed_bytes: u64,
    /// Bytes of segments of topics of kind `table` that it has not looked at, now.
    pub compaction_dirty_bytes: u64,
    /// Bytes of topics of kind `events` that streams have let go and that are not removed yet, about, as it was last looked.
    pub removable_bytes: u64,
    /// Bytes of which appends were answered as written and that are not synced, now: what a loss of power may take.
    pub unsynced_bytes: u64,
    /// How long ago they were written.
    pub unsynced_age: Duration,
    /// Redacted events whose bytes are not all gone, now.
    pub redactions_pending: u64,
    /// How long ago the oldest of their redactions was made.
    pub redactions_age: Duration,
}

impl Engine {
    fn dirty_bytes(&self) -> u64 {
        let tables = self.topics.partitions().into_iter().filter(|partition| partition.topic.settings.kind == TopicKind::Table);
        tables.filter_map(|partition| self.segments(&partition)).map(|segments| segments.dirty_bytes()).sum()
    }

    fn removable_bytes(&self) -> u64 {
        let partitions = self.topics.partitions();
        partitions.iter().filter_map(|partition| self.compacting.let_go(partition.topic.id, partition.id)).sum()
    }

    pub(crate) fn metrics(&self) -> Metrics {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let (disk_free, disk_reserve) = self.reserve.figures();
        let (window_requests, window_bytes) = {
            let window = self.window.lock();
            (window.len() as u64, window.bytes())
        };
        let sizes = self.segments.read().iter().flatten().map(|segments| segments.size()).collect::<Vec<_>>();
        let stored =
            sizes.iter().fold(Size::default(), |sum, of| Size { segments: sum.segments + of.segments, bytes: sum.bytes + of.bytes });
        let (unsynced_bytes, unsynced_age) = self.unsynced.now(&*self.clock);
        let redacting = self.redactions.all();
        Metrics {
            queued: self.queue.len() as u64,
            queued_bytes: self.queue.bytes(),
            group_units: counters.group_units.so_far(),
            group_bytes: counters.group_bytes.so_far(),
            sync_micros: counters.sync_times.so_far(),
            tail_bytes: self.tail.memory(),
            window_requests,
            window_bytes,
            segments: stored.segments,
            segment_bytes: stored.bytes,
            appends: of(&counters.appends),
            refused: of(&counters.refused),
            records: of(&counters.records),
            groups: of(&counters.groups),
            syncs: of(&counters.syncs),
            sync_time: Duration::from_nanos(of(&counters.sync_nanos)),
            slowest_sync: Duration::from_nanos(of(&counters.slowest_sync_nanos)),
            slow_syncs: self.syncs.slow(),
            sync_under_way: self.syncs.longest_under_way(),
            follows_clock: self.time.state().follows,
            disk_free,
            disk_reserve,
            journal_bytes: self.journal.bytes(),
            untidied_bytes: self.untidied_bytes(),
            scrubbed_bytes: of(&self.scrubbed.bytes),
            scrub_passes: of(&self.scrubbed.passes),
            scrub_damages: of(&self.scrubbed.damages),
            checkpoints: of(&counters.checkpoints),
            deleted_segments: of(&counters.deleted_segments),
            deleted_bytes: of(&counters.deleted_bytes),
            compaction_passes: of(&self.compacting.passes),
            compaction_read_bytes: of(&self.compacting.read_bytes),
            compaction_freed_bytes: of(&self.compacting.freed_bytes),
            compaction_dirty_bytes: self.dirty_bytes(),
            removable_bytes: self.removable_bytes(),
            unsynced_bytes,
            unsynced_age,
            redactions_pending: redacting.events,
            redactions_age: redacting.since.map_or(Duration::ZERO, |since| millis_since(since, self.time.now())),
        }
    }
}
