//! Where streams stand in the durable log, and where their records lie that are not in segments yet.
//!
//! The committer applies each group after its sync, admission and readers look up, tidy takes away what segments hold.
//! Streams are known by a keyed hash of 128 bits and their partition. Sharded, so that no growth of a map stalls appends.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

use crate::{
    ids::{Offset, StreamVersion},
    life::{Life, Mark, SnapshotAt, Standing},
    segment::{StreamHasher, Stretch},
    topic_store::Partition,
};

const SHARDS: usize = 256;

/// A stream, by partition and hash of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StreamKey {
    /// Index of the partition ([`crate::topic_store::Partition::index`]).
    pub(crate) partition: u32,
    pub(crate) hash: u128,
}

impl StreamKey {
    /// Key of the stream with `name` in its partition.
    pub(crate) fn of(hasher: &StreamHasher, partition: &Partition, name: &[u8]) -> Self {
        Self { partition: u32::try_from(partition.index).unwrap_or(u32::MAX), hash: hasher.hash(name) }
    }
}

/// Events of one stream that lie side by side in one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamSpan {
    pub(crate) key: StreamKey,
    pub(crate) first_version: StreamVersion,
    pub(crate) offset: Offset,
    pub(crate) count: u32,
    /// Byte place of the first in its batch.
    pub(crate) start: u32,
}

impl StreamSpan {
    /// Version of the last event.
    pub(crate) fn last_version(&self) -> StreamVersion {
        StreamVersion::new(self.first_version.get() + u64::from(self.count) - 1)
    }
}

/// A span of a stream that is known.
#[derive(Clone, Copy, Debug)]
struct RecentSpan {
    first_version: StreamVersion,
    offset: Offset,
    count: u32,
    start: u32,
}

impl RecentSpan {
    const fn of(span: &StreamSpan) -> Self {
        Self { first_version: span.first_version, offset: span.offset, count: span.count, start: span.start }
    }

    const fn with(&self, key: StreamKey) -> StreamSpan {
        StreamSpan { key, first_version: self.first_version, offset: self.offset, count: self.count, start: self.start }
    }
}

impl From<&StreamSpan> for Stretch {
    fn from(span: &StreamSpan) -> Self {
        Self { stream: span.key.hash, first_version: span.first_version, first_offset: span.offset, count: span.count }
    }
}

/// A mark in the life of a stream, as it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamMark {
    pub(crate) key: StreamKey,
    pub(crate) life: Life,
    /// The snapshot that it is.
    pub(crate) snapshot: Option<SnapshotAt>,
    /// Version of the event that it redacts.
    pub(crate) redacts: Option<StreamVersion>,
    /// Where that lies, if whoever asked has found it.
    pub(crate) event: Option<Offset>,
    /// Where the mark lies.
    pub(crate) offset: Offset,
}

impl StreamMark {
    pub(crate) fn of(key: StreamKey, mark: Mark, offset: Offset) -> Self {
        Self { key, life: mark.life(offset), snapshot: mark.snapshot(offset), redacts: mark.redacts(), event: None, offset }
    }
}

/// What retention lets go of in a partition, as long as lives do not say so.
#[derive(Debug)]
struct LetGo {
    /// What lies below goes.
    below: Offset,
    /// Whether it has gone, or is about to.
    is_done: bool,
    /// Version with which each stream begins then, by hash.
    beginnings: Arc<HashMap<u128, StreamVersion>>,
}

/// The snapshots of a stream that memory knows: none of them is gone.
#[derive(Debug)]
struct Snapshots {
    /// That of the highest version, wherever it lies.
    newest: SnapshotAt,
    /// Those that are not in segments yet.
    recent: Vec<SnapshotAt>,
}

#[derive(Debug, Default)]
struct Shard {
    heads: HashMap<StreamKey, StreamVersion>,
    /// Of streams that were truncated, deleted or tombstoned.
    lives: HashMap<StreamKey, Life>,
    snapshots: HashMap<StreamKey, Snapshots>,
    /// In order of version.
    recent: HashMap<StreamKey, VecDeque<RecentSpan>>,
}

/// All streams of a folder.
#[derive(Debug)]
pub(crate) struct Streams {
    shards: Vec<RwLock<Shard>>,
    /// Whether there may be tombstones: most folders have none, and then no append asks for them.
    has_tombstones: AtomicBool,
    /// Events that lives let go since the start or before, by partition, and one for whenever snapshots were dropped.
    let_go: Mutex<HashMap<u32, u64>>,
    /// What retention lets go of, by partition: told in one stroke, and put down in lives by [`Streams::put_down`] afterwards.
    retained: RwLock<HashMap<u32, Vec<LetGo>>>,
    /// Whether some of it has gone.
    has_retained: AtomicBool,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            has_tombstones: AtomicBool::default(),
            let_go: Mutex::default(),
            retained: RwLock::default(),
            has_retained: AtomicBool::default(),
        }
    }
}

impl Streams {
    fn shard(&self, key: &StreamKey) -> &RwLock<Shard> {
        // The lowest byte of a keyed hash is as good as any.
        &self.shards[(key.hash & 0xff) as usize]
    }

    /// Where a stream stands, and what became of it.
    pub(crate) fn standing(&self, key: &StreamKey) -> Standing {
        // Before lives: what is put down in them meanwhile is found there.
        let retained = self.retained(key);
        let shard = self.shard(key).read();
        let of = |newest: Option<&StreamVersion>| newest.copied().unwrap_or_default();
        let life = shard.lives.get(key).copied().unwrap_or_default();
        Standing { newest: of(shard.heads.get(key)), life: retained.map_or(life, |first| life.and(Life::retained(first))) }
    }

    /// Version with which a stream begins by what retention let go of and its life may not say yet.
    fn retained(&self, key: &StreamKey) -> Option<StreamVersion> {
        if !self.has_retained.load(Ordering::Acquire) {
            return None;
        }
        let retained = self.retained.read();
        let done = retained.get(&key.partition)?.iter().filter(|one| one.is_done);
        done.filter_map(|one| one.beginnings.get(&key.hash).copied()).max()
    }

    /// Retention is to let go of what lies below an offset of a partition, in place of what it was to let go of before.
    pub(crate) fn prepare_to_let_go(&self, partition: u32, below: Offset, beginnings: HashMap<u128, StreamVersion>) {
        let mut retained = self.retained.write();
        let of_partition = retained.entry(partition).or_default();
        of_partition.retain(|one| one.is_done);
        of_partition.push(LetGo { below, is_done: false, beginnings: Arc::new(beginnings) });
    }

    /// Retention has let go of what lies below an offset of a partition, if that was prepared: at once, for all its streams.
    pub(crate) fn let_go_below(&self, partition: u32, below: Offset) {
        let mut retained = self.retained.write();
        for one in retained.get_mut(&partition).into_iter().flatten().filter(|one| one.below == below) {
            one.is_done = true;
            self.has_retained.store(true, Ordering::Release);
        }
    }

    /// Puts down in lives what retention has let go of; whether there was any. Takes as long as there are streams, and holds up nobody.
    pub(crate) fn put_down(&self) -> bool {
        let done: Vec<_> = {
            let retained = self.retained.read();
            let done = |(partition, all): (&u32, &Vec<LetGo>)| {
                let done = all.iter().filter(|one| one.is_done).map(|one| (*partition, Arc::clone(&one.beginnings)));
                done.collect::<Vec<_>>()
            };
            retained.iter().flat_map(done).collect()
        };
        for (partition, beginnings) in &done {
            self.retain(*partition, beginnings);
        }
        let mut retained = self.retained.write();
        for (partition, beginnings) in &done {
            if let Some(of_partition) = retained.get_mut(partition) {
                of_partition.retain(|one| !Arc::ptr_eq(&one.beginnings, beginnings));
            }
        }
        retained.retain(|_, of_partition| !of_partition.is_empty());
        self.has_retained.store(retained.values().flatten().any(|one| one.is_done), Ordering::Release);
        !done.is_empty()
    }

    /// Has streams of a partition begin with versions, by hash.
    pub(crate) fn retain(&self, partition: u32, beginnings: &HashMap<u128, StreamVersion>) {
        for (hash, first) in beginnings {
            self.live(StreamKey { partition, hash: *hash }, Life::retained(*first));
        }
    }

    /// Whether any stream may be tombstoned.
    pub(crate) fn has_tombstones(&self) -> bool {
        self.has_tombstones.load(Ordering::Relaxed)
    }

    /// A stream is tombstoned, or about to be.
    pub(crate) fn expect_tombstones(&self) {
        self.has_tombstones.store(true, Ordering::Relaxed);
    }

    /// Takes over events and marks that have become durable.
    pub(crate) fn apply(&self, spans: &[StreamSpan], marks: &[StreamMark]) {
        for mark in marks {
            match mark.snapshot {
                None => self.live(mark.key, mark.life),
                Some(at) => {
                    let mut shard = self.shard(&mark.key).write();
                    let known = shard.snapshots.entry(mark.key).or_insert(Snapshots { newest: at, recent: Vec::new() });
                    known.newest = known.newest.max(at);
                    known.recent.push(at);
                }
            }
        }
        for span in spans {
            let mut shard = self.shard(&span.key).write();
            shard.heads.insert(span.key, span.last_version());
            shard.recent.entry(span.key).or_default().push_back(RecentSpan::of(span));
        }
    }

    fn live(&self, key: StreamKey, life: Life) {
        if life.tombstoned {
            self.expect_tombstones();
        }
        let mut shard = self.shard(&key).write();
        let known = shard.lives.entry(key).or_default();
        let before = std::mem::replace(known, known.and(life));
        let life = *known;
        let events = life.beginning.first.get() - before.beginning.first.get();
        let let_go = events + u64::from(life.snapshots_from > before.snapshots_from);
        *self.let_go.lock().entry(key.partition).or_default() += let_go;
        if shard.snapshots.get(&key).is_some_and(|snapshots| !life.keeps(snapshots.newest)) {
            // What lets go of the newest lets go of all that were put before.
            shard.snapshots.remove(&key);
        }
    }

    /// How many events the lives of a partition's streams have let go, about: a start counts also those that are gone.
    pub(crate) fn let_go(&self, partition: u32) -> u64 {
        self.let_go.lock().get(&partition).copied().unwrap_or_default()
    }

    /// Adds what a segment says of a stream, the newest segment first; a newer version that is known already stays.
    pub(crate) fn restore(&self, key: StreamKey, standing: Standing, snapshots: &[SnapshotAt]) {
        if standing.life != Life::default() {
            self.live(key, standing.life);
        }
        if standing.newest >= StreamVersion::FIRST {
            let mut shard = self.shard(&key).write();
            let head = shard.heads.entry(key).or_insert(standing.newest);
            *head = (*head).max(standing.newest);
        }
        if snapshots.is_empty() {
            return;
        }
        let mut shard = self.shard(&key).write();
        let life = shard.lives.get(&key).copied().unwrap_or_default();
        if let Some(newest) = snapshots.iter().copied().filter(|at| life.keeps(*at)).max() {
            let known = shard.snapshots.entry(key).or_insert(Snapshots { newest, recent: Vec::new() });
            known.newest = known.newest.max(newest);
        }
    }

    /// What became of a stream, its newest snapshot, and the newest of those not in segments yet that is as of `at_most` or before
    /// and lies below `end`; none if it has no snapshot at all.
    pub(crate) fn snapshots(&self, key: &StreamKey, at_most: StreamVersion, end: Offset) -> Option<(Life, SnapshotAt, Option<SnapshotAt>)> {
        let shard = self.shard(key).read();
        let known = shard.snapshots.get(key)?;
        let recent = known.recent.iter().copied().filter(|at| at.version <= at_most && at.offset < end).max();
        Some((shard.lives.get(key).copied().unwrap_or_default(), known.newest, recent))
    }

    /// Forgets all streams of partitions, by index.
    pub(crate) fn forget_all_of(&self, partitions: &[u32]) {
        let stays = |key: &StreamKey| !partitions.contains(&key.partition);
        self.let_go.lock().retain(|partition, _| !partitions.contains(partition));
        self.retained.write().retain(|partition, _| !partitions.contains(partition));
        for shard in &self.shards {
            let Shard { heads, lives, snapshots, recent } = &mut *shard.write();
            heads.retain(|key, _| stays(key));
            lives.retain(|key, _| stays(key));
            snapshots.retain(|key, _| stays(key));
            recent.retain(|key, _| stays(key));
        }
    }

    /// Forgets where events and snapshots lie that segments hold now.
    pub(crate) fn forget(&self, spans: &[StreamSpan], marks: &[StreamMark]) {
        for (mark, at) in marks.iter().filter_map(|mark| Some((mark, mark.snapshot?))) {
            if let Some(known) = self.shard(&mark.key).write().snapshots.get_mut(&mark.key) {
                known.recent.retain(|recent| recent.offset > at.offset);
            }
        }
        for span in spans {
            let mut shard = self.shard(&span.key).write();
            let empty = shard.recent.get_mut(&span.key).is_some_and(|recent| {
                // From the front, for one stream may have all spans there are.
                while recent.pop_front_if(|first| first.offset <= span.offset).is_some() {}
                recent.is_empty()
            });
            if empty {
                shard.recent.remove(&span.key);
            }
        }
    }

    /// Spans that are not in segments yet and reach `from` or further, in order; at most `most`.
    pub(crate) fn recent(&self, key: &StreamKey, from: StreamVersion, most: usize) -> Vec<StreamSpan> {
        let shard = self.shard(key).read();
        let Some(recent) = shard.recent.get(key) else { return Vec::new() };
        let first = recent.partition_point(|span| span.with(*key).last_version() < from);
        recent.range(first..).take(most).map(|span| span.with(*key)).collect()
    }

    /// Spans that are not in segments yet and begin below `before`, the newest first; at most `most`.
    pub(crate) fn recent_before(&self, key: &StreamKey, before: StreamVersion, most: usize) -> Vec<StreamSpan> {
        let shard = self.shard(key).read();
        let Some(recent) = shard.recent.get(key) else { return Vec::new() };
        let end = recent.partition_point(|span| span.first_version < before);
        recent.range(..end).rev().take(most).map(|span| span.with(*key)).collect()
    }

    /// Version of the first event that is not in segments yet and lies at `offset` or behind it.
    pub(crate) fn recent_at(&self, key: &StreamKey, offset: Offset) -> Option<StreamVersion> {
        let shard = self.shard(key).read();
        let recent = shard.recent.get(key)?;
        let span = recent.get(recent.partition_point(|span| span.offset.plus(span.count.into()) <= offset))?;
        Some(span.first_version.plus(offset.get().saturating_sub(span.offset.get())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(version: u64, count: u32, offset: u64) -> StreamSpan {
        let key = StreamKey { partition: 0, hash: 7 };
        StreamSpan { key, first_version: StreamVersion::new(version), offset: Offset::new(offset), count, start: 61 }
    }

    #[test]
    fn recent_spans_start_where_asked_and_go_when_segments_hold_them() {
        let streams = Streams::default();
        let key = span(1, 1, 0).key;
        assert_eq!(streams.standing(&key), Standing::default());
        streams.apply(&[span(1, 2, 0), span(3, 1, 5), span(4, 3, 9)], &[]);
        assert_eq!(streams.standing(&key).newest, StreamVersion::new(6));
        assert_eq!(streams.recent(&key, StreamVersion::new(2), 9).len(), 3);
        assert_eq!(streams.recent(&key, StreamVersion::new(3), 9), [span(3, 1, 5), span(4, 3, 9)]);
        assert_eq!(streams.recent_before(&key, StreamVersion::new(4), 9), [span(3, 1, 5), span(1, 2, 0)]);
        assert_eq!(streams.recent_before(&key, StreamVersion::new(5), 1), [span(4, 3, 9)]);
        for (offset, version) in [(0, Some(1)), (1, Some(2)), (2, Some(3)), (10, Some(5)), (12, None)] {
            assert_eq!(streams.recent_at(&key, Offset::new(offset)), version.map(StreamVersion::new), "{offset}");
        }
        streams.forget(&[span(1, 2, 0), span(3, 1, 5)], &[]);
        assert_eq!(streams.recent(&key, StreamVersion::FIRST, 9), [span(4, 3, 9)]);
        assert_eq!(streams.standing(&key).newest, StreamVersion::new(6));
    }
}
