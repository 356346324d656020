//! Tidy: copies committed groups into segments, syncs those, moves the checkpoint, and frees journal files.
//!
//! A thread of its own calls [`run`]; simulations call [`Tidy::step`]. Invariant: a checkpoint says nothing that is not synced,
//! and nothing that an older checkpoint needs is freed before the newer one is.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::{
    backup::{Contents, Waiter},
    checkpoint::{Checkpoint, CheckpointedPartition, Slots},
    engine::{Engine, FailOnPanic},
    error::LogError,
    ids::TopicId,
    partition::group::Group,
    record::Run,
    segment::Stretch,
    topic_store::Partition,
    window_file::WindowFile,
};

/// Bytes of groups that are copied at once.
const STEP_BYTES: u64 = 16 << 20;
/// How long tidy waits when the disk is full before it tries again.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);

/// Wakes tidy.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    state: Mutex<(bool, bool)>,
    raised: Condvar,
}

impl Signal {
    /// There is something to do.
    pub(crate) fn raise(&self) {
        self.state.lock().0 = true;
        self.raised.notify_all();
    }

    /// The log stops.
    pub(crate) fn stop(&self) {
        self.state.lock().1 = true;
        self.raised.notify_all();
    }

    /// Whether the log stops.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().1
    }

    /// Waits until there is something to do; false: the log stops.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.0 && !state.1 {
            self.raised.wait(&mut state);
        }
        state.0 = false;
        !state.1
    }

    /// The same, but no longer than `most`.
    pub(crate) fn wait_most(&self, most: Duration) -> bool {
        let mut state = self.state.lock();
        if !state.0 && !state.1 {
            self.raised.wait_for(&mut state, most);
        }
        state.0 = false;
        !state.1
    }

    /// Waits out a full disk; false: the log stops.
    fn pause(&self) -> bool {
        let mut state = self.state.lock();
        if !state.1 {
            self.raised.wait_for(&mut state, FULL_DISK_PAUSE);
        }
        !state.1
    }
}

/// What is copied of one partition.
struct Copied {
    partition: Arc<Partition>,
    runs: Vec<Run>,
    streams: Vec<Stretch>,
}

impl Copied {
    fn of(partition: &Arc<Partition>) -> Self {
        Self { partition: Arc::clone(partition), runs: Vec::new(), streams: Vec::new() }
    }
}

/// Moves the checkpoint.
#[derive(Debug)]
pub(crate) struct Tidy {
    engine: Arc<Engine>,
    slots: Slots,
    checkpoint: Checkpoint,
    window: WindowFile,
    /// Groups copied into segments that no checkpoint names yet.
    copied: Vec<Arc<Group>>,
    /// What their frames say of request ids, from the first of `copied` that was not added to the window file.
    entries: Vec<u8>,
}

impl Tidy {
    pub(crate) fn new(engine: Arc<Engine>, slots: Slots, checkpoint: Checkpoint, window: WindowFile) -> Self {
        Self { engine, slots, checkpoint, window, copied: Vec::new(), entries: Vec::new() }
    }

    /// Copies everything that is committed now into segments and writes a checkpoint. Damage that it meets makes the log, or
    /// the partition, read-only; what was not copied stays in the journal, where it can be read.
    ///
    /// # Errors
    /// On [`is_full`] errors it may be called again; after all others the process must end.
    pub(crate) fn step(&mut self) -> Result<(), LogError> {
        if self.engine.read_only.get().is_some() {
            return Ok(());
        }
        match self.copy_all() {
            Err(error) if self.engine.note_damage(&error) => Ok(()),
            result => result,
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What the newest checkpoint names, for a backup. None if a frame behind it has put segments in place: what they are rid of may have gone
    /// for something that lies behind it, too, so that the next checkpoint must tell.
    ///
    /// # Errors
    /// As [`Contents::of`].
    pub(crate) fn contents(&self) -> Result<Option<Contents>, LogError> {
        let contents = Contents::of(&self.engine, &self.checkpoint)?;
        let is_whole = self.engine.switched.load(Ordering::Acquire) <= self.checkpoint.frame;
        Ok(is_whole.then_some(contents))
    }

    /// Hands over what the checkpoint names to those who waited for it; those who must wait for the next one are left.
    fn hand_over(&self, waiting: Vec<Waiter>) -> Vec<Waiter> {
        let mut waiting = waiting.into_iter();
        while let Some(one) = waiting.next() {
            let Some(contents) = self.contents().transpose() else { return [one].into_iter().chain(waiting).collect() };
            // Who does not wait any more needs nothing.
            let _ = one.send(contents);
        }
        Vec::new()
    }

    fn copy_all(&mut self) -> Result<(), LogError> {
        // All frames that name them are there by now.
        let closed = self.engine.deleted.closed();
        let until = self.engine.tail.last_frame();
        while self.frame() < until {
            let groups = self.engine.tail.groups_after(self.frame(), until, STEP_BYTES);
            if groups.is_empty() {
                break;
            }
            self.copy(groups, &closed)?;
        }
        // A spare file comes first, so that the checkpoint knows of it. Nothing waits for one.
        match self.engine.journal.fill_pool() {
            Ok(()) | Err(LogError::DiskFull { .. }) => {}
            Err(error) => return Err(error),
        }
        let rolled = self.roll()?;
        self.write_checkpoint(rolled, &closed)
    }

    /// Seals the active segments that upkeep found old enough. What a full disk keeps it from, upkeep finds again.
    fn roll(&self) -> Result<BTreeMap<usize, Arc<Partition>>, LogError> {
        let due = mem::take(&mut *self.engine.due.lock());
        for partition in due.values().filter(|partition| !partition.is_gone()) {
            self.engine.segments_for(partition)?.roll()?;
        }
        Ok(due)
    }

    /// Last frame that was copied.
    fn frame(&self) -> u64 {
        self.copied.last().map_or(self.checkpoint.frame, |group| group.number)
    }

    /// Copies all but what is of `closed` topics, which were deleted.
    fn copy(&mut self, groups: Vec<Arc<Group>>, closed: &[TopicId]) -> Result<(), LogError> {
        let mut copied: BTreeMap<usize, Copied> = BTreeMap::new();
        for group in &groups {
            let loaded = if group.loaded { Arc::clone(group) } else { self.load(group)? };
            for slice in loaded.slices.iter().filter(|slice| !closed.contains(&slice.partition.topic.id)) {
                let of_partition = copied.entry(slice.partition.index).or_insert_with(|| Copied::of(&slice.partition));
                for run in &slice.runs {
                    of_partition.runs.push(loaded.cut(slice, run, 0, run.count)?);
                }
            }
            for span in &*group.spans {
                if let Some(of_partition) = copied.get_mut(&(span.key.partition as usize)) {
                    of_partition.streams.push(span.into());
                }
            }
        }
        for Copied { partition, runs, streams } in copied.values() {
            self.engine.segments_for(partition)?.append(runs, streams, self.engine.layout(partition))?;
        }
        if let Some(last) = groups.last() {
            self.engine.postings.add_recent(last.end)?;
        }
        for group in groups {
            self.entries.extend_from_slice(&group.entries);
            self.copied.push(if group.loaded { Arc::new(group.unloaded()) } else { group });
        }
        Ok(())
    }

    fn load(&self, group: &Group) -> Result<Arc<Group>, LogError> {
        let gone = || LogError::Corrupt {
            file: self.engine.folder.clone(),
            from: 0,
            end: 0,
            what: format!("journal frame {} was reused before its records were in segments", group.number),
        };
        Ok(Arc::new(self.engine.load(group)?.ok_or_else(gone)?))
    }

    /// Writes a checkpoint, if there is something new to say: what was copied or replaced, what was `rolled`, and that nothing is said of
    /// `closed` topics any more.
    fn write_checkpoint(&mut self, rolled: BTreeMap<usize, Arc<Partition>>, closed: &[TopicId]) -> Result<(), LogError> {
        let last = self.copied.last().cloned();
        let names_closed = self.checkpoint.partitions.iter().any(|named| closed.contains(&named.topic));
        if last.is_none() && rolled.is_empty() && !names_closed {
            self.engine.deleted.unnamed(closed);
            return Ok(());
        }
        let mut marks: BTreeMap<_, _> =
            self.checkpoint.partitions.iter().map(|partition| ((partition.topic, partition.partition), partition.clone())).collect();
        let mut touched = rolled;
        for group in &self.copied {
            let written = group.slices.iter().map(|slice| &slice.partition);
            let switched = group.switches.iter().map(|switch| &switch.partition);
            touched.extend(written.chain(switched).map(|partition| (partition.index, Arc::clone(partition))));
        }
        marks.retain(|(topic, _), _| !closed.contains(topic));
        touched.retain(|_, partition| !closed.contains(&partition.topic.id));
        let mut marked = Vec::with_capacity(touched.len());
        for partition in touched.values() {
            let segments = self.engine.segments_for(partition)?;
            if let Some(synced) = segments.sync()? {
                let (topic, partition, removed) = (partition.topic.id, partition.id, segments.low().position);
                let (mark, rewritten, cleaned) = (synced.mark, synced.rewritten.clone(), synced.cleaned);
                marks.insert((topic, partition), CheckpointedPartition { topic, partition, mark, removed, rewritten, cleaned });
                marked.push((segments, synced));
            }
        }
        let window = self.window.add(&self.entries, &self.engine.window)?;
        self.entries.clear();
        let (partitions, files) = (marks.into_values().collect(), self.engine.journal.settled());
        let mut checkpoint = Checkpoint { window, partitions, files, ..self.checkpoint.clone() };
        if let Some(last) = &last {
            checkpoint.frame = last.number;
            checkpoint.frame_crc = last.frame_crc;
            checkpoint.file = last.place.file;
            checkpoint.file_end = last.place.end();
            checkpoint.next = last.end;
            checkpoint.time = last.time;
        }
        self.slots.write(&mut checkpoint)?;
        self.checkpoint = checkpoint;
        self.engine.deleted.unnamed(closed);
        self.window.checkpointed()?;
        self.engine.postings.checkpointed()?;
        marked.iter().for_each(|(segments, synced)| segments.checkpointed(synced));
        if let Some(last) = last {
            self.engine.tail.tidied(last.end, last.number);
            for group in self.copied.drain(..) {
                self.engine.streams.forget(&group.spans, &group.marks);
            }
            self.engine.journal.free_up_to(last.number);
        }
        self.engine.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.engine.upkeep.raise();
        self.engine.compacting.signal.raise();
        Ok(())
    }
}

/// Whether an error of tidy is a full disk, which is waited for. A failed sync never is.
pub(crate) fn is_full(error: &LogError) -> bool {
    match error {
        LogError::DiskFull { .. } => true,
        LogError::Io { doing, source, .. } => source.kind() == std::io::ErrorKind::StorageFull && !doing.starts_with("sync"),
        _ => false,
    }
}

/// Runs tidy until the log stops; then once more, so that the next start has little to do.
pub(crate) fn run(mut tidy: Tidy) {
    let engine = Arc::clone(&tidy.engine);
    let _panicking = FailOnPanic(&engine);
    run_on(&mut tidy, &engine);
    engine.backups.close();
}

fn run_on(tidy: &mut Tidy, engine: &Engine) {
    loop {
        let mut going = engine.tidy.wait();
        if engine.failure.borrow().is_some() {
            return;
        }
        // Before the step: what they saw become durable is in its checkpoint.
        let mut waiting = engine.backups.take();
        loop {
            while let Err(error) = tidy.step() {
                if !is_full(&error) {
                    return engine.fail(error);
                }
                tracing::warn!(error = &error as &dyn std::error::Error, "segments wait for space");
                for waiting in waiting.drain(..).chain(engine.backups.take()) {
                    let _ = waiting.send(Err(LogError::DiskFull { what: "segments wait for space, and a backup is made of them".into() }));
                }
                if !engine.tidy.pause() {
                    going = false;
                    break;
                }
            }
            waiting = tidy.hand_over(waiting);
            if waiting.is_empty() || !going {
                break;
            }
        }
        if !going {
            return;
        }
    }
}
