//! Everything in memory that the journal makes up again: its frames are read and decoded on one thread and folded on another.
//!
//! A start makes a [`Replay`] from the checkpoint, lets it learn what segments hold, runs it over the journal, and takes it apart
//! for the engine. Invariants: frames are folded in order; nothing is written.

use std::{
    panic,
    path::Path,
    sync::{Arc, mpsc},
    thread,
};

use super::reader::{FrameReader, ReadFrame};
use crate::{
    checkpoint::Checkpoint,
    config::LogConfig,
    embedded::OpenReport,
    engine::open_segments,
    error::LogError,
    ids::{Offset, Position, Timestamp},
    journal::{
        self,
        file::JournalFiles,
        recovery::{self, Accepted, Scan},
    },
    life::{RedactionAt, SnapshotAt},
    partition::{
        group::Switch,
        streams::{StreamKey, StreamMark, Streams},
        tail::Tail,
    },
    postings::Postings,
    segment::{Checkpointed, OpenFiles, Segments, StreamHasher},
    topic::TopicKind,
    topic_store::{Partition, TopicStore},
    window::Window,
};

/// Frames that are decoded ahead of the one that is folded.
const AHEAD: usize = 4;

/// A folder's state on its way from the checkpoint to the journal's end.
pub(super) struct Replay {
    pub(super) topics: TopicStore,
    pub(super) hasher: StreamHasher,
    /// Next offset by index of the partition.
    pub(super) offsets: Vec<Offset>,
    pub(super) folded: Folded,
}

/// What segments and frames were folded into.
pub(super) struct Folded {
    pub(super) streams: Streams,
    pub(super) postings: Postings,
    pub(super) tail: Tail,
    pub(super) window: Window,
    /// Where the log ends, and the newest time in it.
    pub(super) position: Position,
    pub(super) time: Timestamp,
    /// What replaces segments since the checkpoint.
    pub(super) switches: Vec<Switch>,
    /// All redactions of data, also those that are complete.
    pub(super) redactions: Vec<(StreamKey, RedactionAt)>,
    /// Frames that no later header has proved durable.
    pub(super) recent: Vec<Accepted>,
    pub(super) report: OpenReport,
}

impl Replay {
    pub(super) fn new(checkpoint: &Checkpoint, topics: TopicStore, postings: Postings, config: &LogConfig) -> Result<Self, LogError> {
        let mut offsets = vec![Offset::default(); topics.by_index().len()];
        for mark in &checkpoint.partitions {
            let Some(partition) = topics.partition(mark.topic, mark.partition) else {
                return Err(topics.missing(mark.topic));
            };
            offsets[partition.index] = mark.mark.end;
        }
        let folded = Folded {
            streams: Streams::default(),
            postings,
            tail: Tail::new(checkpoint.next, checkpoint.frame, offsets.clone(), config.tail_bytes),
            window: Window::new(config.window_requests, config.window_bytes),
            position: checkpoint.next,
            time: checkpoint.time,
            switches: Vec::new(),
            redactions: Vec::new(),
            recent: Vec::new(),
            report: OpenReport::default(),
        };
        Ok(Self { hasher: StreamHasher::new(checkpoint.folder), topics, offsets, folded })
    }

    /// Opens the segments that a checkpoint names, by index of their partition, and learns where their streams stand. A
    /// partition of which a part cannot be read is read-only.
    pub(super) fn open_segments(
        &mut self,
        files: &Arc<OpenFiles>,
        checkpoint: &Checkpoint,
    ) -> Result<Vec<Option<Arc<Segments>>>, LogError> {
        let mut all = vec![None; self.offsets.len()];
        for named in &checkpoint.partitions {
            let Some(partition) = self.topics.partition(named.topic, named.partition) else {
                return Err(self.topics.missing(named.topic));
            };
            if partition.is_gone() {
                continue;
            }
            let (streams, all_redactions) = (&self.folded.streams, &mut self.folded.redactions);
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
    pub(super) fn retain(&mut self, segments: &[Option<Arc<Segments>>]) -> Result<(), LogError> {
        for (partition, segments) in self.topics.by_index().iter().zip(segments) {
            let Some(segments) = segments.as_ref().filter(|_| partition.topic.settings.kind == TopicKind::Events) else { continue };
            match segments.beginnings(Offset::default(), segments.low().offset) {
                // It was told when streams were looked up.
                Err(LogError::Corrupt { .. }) if partition.damage.get().is_some() => {}
                beginnings => self.folded.streams.retain(u32::try_from(partition.index).unwrap_or(u32::MAX), &beginnings?),
            }
        }
        Ok(())
    }

    /// Makes a partition read-only of which a part cannot be read.
    pub(super) fn note_damage(&mut self, partition: &Partition, segments: &Segments) {
        if let Some(damage) = segments.damage()
            && partition.damage.get().is_none()
        {
            let reason = partition.damage.get_or_init(|| damage.report().in_full());
            self.folded.report.damaged.push(reason.clone());
        }
    }

    /// Folds what the journal holds behind the checkpoint.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] where a frame of the log contradicts the ones before or itself; what [`recovery::scan`] returns.
    pub(super) fn run(&mut self, journal: &JournalFiles, checkpoint: &Checkpoint) -> Result<Scan, LogError> {
        let Self { topics, hasher, offsets, folded } = self;
        let mut reader = FrameReader::new(topics, hasher, offsets);
        thread::scope(|scope| {
            let (give, frames) = mpsc::sync_channel(AHEAD);
            let read = move || {
                // Whoever takes them takes all, unless it panics.
                recovery::scan(journal, checkpoint, |accepted, body| reader.read(accepted, body).map(|frame| drop(give.send(frame))))
            };
            let spawned = thread::Builder::new().name("foldlog-replay".into()).spawn_scoped(scope, read);
            let scan = spawned.map_err(|source| LogError::io("start a thread for", Path::new(journal::file::FOLDER), source))?;
            let mut taken = Ok(());
            for frame in frames {
                taken = taken.and_then(|()| folded.take(frame));
            }
            let scan = scan.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked));
            taken.and(scan)
        })
    }
}

impl Folded {
    fn take(&mut self, frame: ReadFrame) -> Result<(), LogError> {
        let ReadFrame { accepted, group, postings } = frame;
        let header = &accepted.header;
        self.window.restore(&group.entries).ok_or_else(|| accepted.damage("its request ids cannot be read"))?;
        postings.iter().for_each(|posting| self.postings.recent.add(posting, Position::default()));
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
