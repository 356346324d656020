//! [`EmbeddedLog`]: a [`LogBackend`] over the files of one data folder.
//!
//! The server opens it once; everything it does on files happens on threads of its own or on those of callers that said they
//! may block. Invariants: see [`crate::backend`].

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    thread::JoinHandle,
};

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::{
    backend::{AppendFuture, Capabilities, Head, LogBackend, LogReader, ProducerFuture, Span},
    backup::{self, BackupReport},
    clock::Clock,
    compaction::{self, CompactionState, Compactor},
    config::LogConfig,
    disk::Disk,
    engine::{Engine, Metrics},
    error::LogError,
    holds::Holder,
    ids::{Offset, Position, ProducerEpoch, StreamId, StreamVersion, Timestamp, TopicId, TopicName},
    journal::{
        committer::Committer,
        queue::Closed,
        turns::{self, Turns},
    },
    life::StreamState,
    partition::{
        backward::BackwardReader,
        cursor,
        filtered::FilteredReader,
        reader::EmbeddedReader,
        request::{self, MAX_RECORDS, Request},
        snapshot,
        streams::StreamKey,
    },
    producers::UNITS_REMEMBERED,
    record::{Append, EventQuery, ProducerKey, Purpose, Selection, StoredSnapshot},
    redaction::Redacting,
    scrub::{self, Scrubber},
    segment::Segments,
    server_time::ClockState,
    stall,
    start::{self, Started},
    tidy::{self, Tidy},
    topic::{Topic, TopicChanges, TopicKind, TopicSettings},
    topic_store::Partition,
    upkeep::{self, Upkeep},
};

/// What a start found in the folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Frames of the journal that were read.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Frames that were written again because nothing proved them durable.
    pub rewritten: u64,
    /// Damage because of which the log is read-only; none: the journal is whole.
    pub damage: Option<String>,
    /// Damage because of which single partitions are read-only: a report for each.
    pub damaged: Vec<String>,
}

/// A log in a data folder of its own, held by one process.
pub struct EmbeddedLog {
    engine: Arc<Engine>,
    /// None: somebody steps the committer.
    turns: OnceLock<Arc<Turns>>,
    report: OpenReport,
    threads: Mutex<Vec<JoinHandle<()>>>,
    folder_lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

impl std::fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedLog").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// The parts of a log that would be threads, for whoever steps them one by one: simulations.
#[derive(Debug)]
pub struct Stepper {
    committer: Committer,
    tidy: Tidy,
    upkeep: Upkeep,
    scrubber: Scrubber,
    compactor: Compactor,
}

impl Stepper {
    /// Admits, writes, syncs, shows and answers all appends that wait.
    ///
    /// # Errors
    /// What ends the log.
    pub fn commit(&mut self) -> Result<(), LogError> {
        let committed = self.committer.commit_all();
        if committed.is_err() {
            self.committer.abandon();
        }
        committed
    }

    /// Makes the last group provably durable, as 50 ms of quiet would.
    ///
    /// # Errors
    /// What ends the log.
    pub fn seal(&mut self) -> Result<(), LogError> {
        let sealed = self.committer.seal();
        if sealed.is_err() {
            self.committer.abandon();
        }
        sealed
    }
}

impl Stepper {
    /// Copies everything committed into segments, moves the checkpoint, and frees journal files.
    ///
    /// # Errors
    /// What ends the log, or a full disk: then it may be called again.
    pub fn tidy(&mut self) -> Result<(), LogError> {
        self.tidy.step()
    }

    /// Deletes files of segments that were removed, finds those that are old enough to be sealed, which the next [`Stepper::tidy`]
    /// does, and puts in line what retention lets go, which the next [`Stepper::commit`] removes.
    ///
    /// # Errors
    /// What ends the log.
    pub fn upkeep(&mut self) -> Result<(), LogError> {
        self.upkeep.step()
    }

    /// Writes a backup of everything that is committed into a folder.
    ///
    /// # Errors
    /// As [`LogBackend::back_up`].
    pub fn back_up(&mut self, to: &Path) -> Result<BackupReport, LogError> {
        self.back_up_beside(to, |_| ())
    }

    /// The same, with something that happens when it is known what the backup has and nothing of that is written yet.
    ///
    /// # Errors
    /// As [`LogBackend::back_up`].
    pub fn back_up_beside(&mut self, to: &Path, happens: impl FnOnce(&mut Self)) -> Result<BackupReport, LogError> {
        self.back_up_amid(to, |_| (), happens)
    }

    /// The same, with something that happens each time between a checkpoint and the look at what it names.
    ///
    /// # Errors
    /// As [`LogBackend::back_up`].
    pub fn back_up_amid(
        &mut self,
        to: &Path,
        mut before: impl FnMut(&mut Self),
        happens: impl FnOnce(&mut Self),
    ) -> Result<BackupReport, LogError> {
        let contents = loop {
            self.tidy.step()?;
            before(self);
            if let Some(contents) = self.tidy.contents()? {
                break contents;
            }
        };
        happens(self);
        backup::write(self.tidy.engine(), &contents, to)
    }

    /// Reads some more of what rests in files and notes the damage that it meets; how many bytes, or none when it has read everything.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn scrub(&mut self) -> Result<Option<u64>, LogError> {
        self.scrubber.step()
    }

    /// Begins a pass of compaction where one is due, or writes the next segment of the one under way, which the next [`Stepper::commit`]
    /// switches in. Whether there was something to do.
    ///
    /// # Errors
    /// What ends the log, or a full disk: then it may be called again.
    pub fn compact(&mut self) -> Result<bool, LogError> {
        self.compactor.step()
    }
}

impl EmbeddedLog {
    /// Opens the log in `folder`, which is made if it does not exist, and starts its threads. Blocks until recovery is done.
    ///
    /// # Errors
    /// [`LogError::Locked`], [`LogError::Format`], [`LogError::Io`]; [`LogError::Corrupt`] where damage leaves nothing to
    /// serve. With other damage the log opens read-only, see [`EmbeddedLog::report`].
    pub fn open(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, folder: &Path, config: LogConfig) -> Result<Self, LogError> {
        let random = || uuid::Uuid::new_v4().as_u128();
        let (log, stepper) = Self::open_stepped(disk, clock, folder, config, random)?;
        if log.engine.read_only.get().is_none() {
            let Stepper { committer, tidy, upkeep, scrubber, compactor } = stepper;
            let turns = Arc::new(Turns::new(committer));
            log.turns.get_or_init(|| Arc::clone(&turns));
            log.spawn("log-commit", move || turns::run(&turns))?;
            log.spawn("log-tidy", move || tidy::run(tidy))?;
            log.spawn("log-upkeep", move || upkeep::run(upkeep))?;
            log.spawn("log-compact", move || compaction::run(compactor))?;
            let engine = Arc::clone(&log.engine);
            log.spawn("log-watch", move || stall::run(&engine.syncs, |error| engine.fail(error)))?;
            if log.engine.config.scrub_bytes_per_second > 0 {
                log.spawn("log-scrub", move || scrub::run(scrubber))?;
            }
            // What a start found may already be so much that no append is taken, and none would wake it.
            log.engine.wake_tidy();
        }
        Ok(log)
    }

    /// Opens the log without threads: nothing happens to an append until the [`Stepper`] is asked to do it. `random` draws
    /// ids and salts, so that a simulation can be repeated.
    ///
    /// # Errors
    /// As [`EmbeddedLog::open`].
    pub fn open_stepped(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        folder: &Path,
        config: LogConfig,
        random: impl FnMut() -> u128 + Send + 'static,
    ) -> Result<(Self, Stepper), LogError> {
        let started = start::open(disk, clock, folder, config, random)?;
        let Started { engine, committer, tidy, upkeep, compactor, report, lock } = started;
        let scrubber = Scrubber::new(Arc::clone(&engine));
        let stepper = Stepper { committer, tidy, upkeep, scrubber, compactor };
        let log = Self { engine, turns: OnceLock::new(), report, threads: Mutex::default(), folder_lock: Mutex::new(Some(lock)) };
        Ok((log, stepper))
    }

    /// Checked and encoded, with the answer that it will get.
    fn prepared(&self, append: Append) -> Result<(Request, AppendFuture), LogError> {
        let engine = &self.engine;
        let (reply, answer) = oneshot::channel();
        let mut request = request::prepare(append, &engine.topics, &engine.hasher, engine.config.append_limit(), reply)?;
        engine.look_up(&mut request)?;
        engine.find_redacted(&mut request)?;
        request.marked().try_for_each(|topic| engine.admit_changes(topic))?;
        Ok((request, Box::pin(async move { answer.await.unwrap_or(Err(LogError::Unknown)) })))
    }

    fn put_in_line(&self, request: Request) -> Result<(), LogError> {
        match self.turns.get() {
            Some(turns) => turns.append(request),
            None => self.engine.queue.push(request),
        }
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), LogError> {
        let spawned = std::thread::Builder::new().name(name.into()).spawn(run);
        let thread = spawned.map_err(|source| LogError::io("start a thread for", &self.engine.folder, source))?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Stops: takes no more appends, commits and answers those that wait, seals, and joins the threads. Blocks, but not over a log that
    /// has failed with [`LogError::Stalled`]. A second call does nothing.
    pub fn stop(&self) {
        // While it waits for the committer.
        self.engine.upkeep.stop();
        self.engine.compacting.signal.stop();
        self.engine.queue.close(Closed::Stopping);
        let threads = std::mem::take(&mut *self.threads.lock());
        if self.engine.has_stalled() {
            // A thread may still write when the disk comes back: the folder is no other process's before this one has ended.
            std::mem::forget(self.folder_lock.lock().take());
            return;
        }
        for thread in threads {
            // The committer comes first: tidy then copies what it wrote last.
            match thread.thread().name() {
                Some("log-tidy") => self.engine.tidy.stop(),
                Some("log-scrub") => self.engine.scrubbed.stop(),
                Some("log-watch") => self.engine.syncs.stop(),
                _ => {}
            }
            // The last to let go of the log may be what an answer wakes, on the very thread that gives it.
            let is_this_one = thread.thread().id() == std::thread::current().id();
            if !is_this_one && thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
        self.engine.tail.close();
        *self.folder_lock.lock() = None;
    }

    /// Asks tidy for what its next checkpoint names, and writes it.
    fn write_backup(&self, to: &Path) -> Result<BackupReport, LogError> {
        if let Some(reason) = self.engine.read_only.get() {
            return Err(LogError::ReadOnly { reason: reason.clone() });
        }
        let contents = self.engine.backups.line_up()?;
        self.engine.tidy.raise();
        backup::write(&self.engine, &contents.blocking_recv().unwrap_or(Err(LogError::Stopping))?, to)
    }

    /// Lets retention and compaction remove records from now on. Call it when everybody who needed some when the log was opened holds them again
    /// ([`LogBackend::hold`]).
    pub fn allow_removal(&self) {
        self.engine.holds.complete();
        self.engine.upkeep.raise();
        self.engine.compacting.signal.raise();
    }

    /// Ends with the error after which the log does nothing more and the process must exit (status 74): what was not
    /// answered is unknown.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<Option<Arc<LogError>>> {
        self.engine.failure.subscribe()
    }

    /// What the start found.
    #[must_use]
    pub fn report(&self) -> &OpenReport {
        &self.report
    }

    /// Figures, for whoever watches.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.engine.metrics()
    }

    /// The data folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.engine.folder.clone()
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.stop();
    }
}

impl LogBackend for EmbeddedLog {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            atomic_span: Span::Folder,
            condition_span: Span::Folder,
            dense_offsets: true,
            commit_order: true,
            server_time: true,
            removal: true,
            compaction: true,
            erasure: true,
            producer_units: UNITS_REMEMBERED,
            append_bytes: self.engine.config.append_limit(),
            append_records: MAX_RECORDS as u64,
        }
    }

    fn create_topic(&self, name: TopicName, settings: TopicSettings) -> Result<Arc<Topic>, LogError> {
        let engine = &self.engine;
        if let Some(reason) = engine.read_only.get()
            && engine.topics.get(&name).is_err()
        {
            return Err(LogError::ReadOnly { reason: reason.clone() });
        }
        if engine.topics.get(&name).is_err() {
            // Our own are made at starts, which a full disk must not prevent.
            engine.reserve.admits(if name.is_system() { Purpose::Upkeep } else { Purpose::Data })?;
        }
        let id = TopicId::new(engine.draw().to_le_bytes());
        let entry = engine.written(engine.topics.create(name, settings, id))?;
        Ok(Arc::clone(&entry.topic))
    }

    fn alter_topic(&self, name: &TopicName, changes: TopicChanges) -> Result<Arc<Topic>, LogError> {
        let engine = &self.engine;
        if let Some(reason) = engine.read_only.get() {
            return Err(LogError::ReadOnly { reason: reason.clone() });
        }
        // A shorter retention is what makes room.
        engine.reserve.admits(Purpose::Upkeep)?;
        // Upkeep removes nothing meanwhile, and nothing afterwards that is to be kept from now on.
        let removing = engine.holds.lock();
        let entry = engine.written(engine.topics.alter(name, &changes))?;
        drop(removing);
        engine.upkeep.raise();
        engine.compacting.signal.raise();
        Ok(Arc::clone(&entry.topic))
    }

    fn delete_topic(&self, name: &TopicName) -> Result<(), LogError> {
        let engine = &self.engine;
        if let Some(reason) = engine.read_only.get() {
            return Err(LogError::ReadOnly { reason: reason.clone() });
        }
        // Nobody comes to need it meanwhile.
        let held = engine.holds.lock();
        engine.topics.get(name)?;
        held.free(name)?;
        engine.reserve.admits(Purpose::Upkeep)?;
        let entry = engine.written(engine.topics.delete(name))?;
        drop(held);
        engine.deleted.add(entry);
        engine.upkeep.raise();
        Ok(())
    }

    fn topic(&self, name: &TopicName) -> Result<Arc<Topic>, LogError> {
        Ok(Arc::clone(&self.engine.topics.get(name)?.topic))
    }

    fn topics(&self) -> Vec<Arc<Topic>> {
        self.engine.topics.all().iter().map(|entry| Arc::clone(&entry.topic)).collect()
    }

    fn append(&self, append: Append) -> Result<AppendFuture, LogError> {
        self.engine.takes_appends(append.purpose)?;
        let (request, answer) = self.prepared(append)?;
        self.put_in_line(request)?;
        Ok(answer)
    }

    fn append_all(&self, appends: &mut VecDeque<Append>) -> Result<Vec<Result<AppendFuture, LogError>>, LogError> {
        let all_upkeep = appends.iter().all(|append| append.purpose == Purpose::Upkeep);
        self.engine.takes_appends(if all_upkeep { Purpose::Upkeep } else { Purpose::Data })?;
        self.engine.queue.has_room()?;
        let (mut requests, mut answers) = (Vec::with_capacity(appends.len()), Vec::with_capacity(appends.len()));
        while let Some(append) = appends.pop_front() {
            match self.prepared(append) {
                Ok((request, answer)) => {
                    requests.push(request);
                    answers.push(Ok(answer));
                }
                Err(error) => {
                    answers.push(Err(error));
                    break;
                }
            }
        }
        match (self.turns.get(), requests.len()) {
            (Some(turns), 1) => requests.into_iter().try_for_each(|request| turns.append(request))?,
            _ => self.engine.queue.push_all(requests)?,
        }
        Ok(answers)
    }

    fn open_producer(&self, key: ProducerKey, resume: Option<ProducerEpoch>) -> Result<ProducerFuture, LogError> {
        self.engine.takes_appends(Purpose::Data)?;
        let stands = Arc::new(OnceLock::new());
        let (reply, answer) = oneshot::channel();
        self.put_in_line(request::prepare_open(key, resume, Arc::clone(&stands), reply)?)?;
        Ok(Box::pin(async move {
            answer.await.unwrap_or(Err(LogError::Unknown))?;
            stands.get().copied().ok_or(LogError::Unknown)
        }))
    }

    fn head(&self) -> Head {
        Head { folder: self.engine.id, epoch: self.engine.epoch, position: self.engine.tail.end() }
    }

    fn clock(&self) -> Option<ClockState> {
        Some(self.engine.time.state())
    }

    fn confirm_clock(&self) -> Option<ClockState> {
        self.engine.time.confirm();
        self.clock()
    }

    fn back_up(&self, to: &Path) -> Option<Result<BackupReport, LogError>> {
        Some(self.write_backup(to))
    }

    fn durable(&self) -> watch::Receiver<Position> {
        self.engine.tail.watch()
    }

    fn ends(&self, topic: &TopicName) -> Result<Vec<Offset>, LogError> {
        let entry = self.engine.topics.get(topic)?;
        Ok(entry.partitions.iter().map(|partition| self.engine.tail.end_of(partition.index)).collect())
    }

    fn firsts(&self, topic: &TopicName) -> Result<Vec<Offset>, LogError> {
        let entry = self.engine.topics.get(topic)?;
        Ok(entry.partitions.iter().map(|partition| self.engine.low(partition).offset).collect())
    }

    fn whole_from(&self, selection: &Selection) -> Result<(), LogError> {
        cursor::whole_from(&self.engine, selection)
    }

    fn hold(&self, owner: &str, topic: &TopicName, from: Position) -> Result<(), LogError> {
        self.engine.holds.hold(owner, topic, from, || self.engine.topics.get(topic).map(drop))
    }

    fn release(&self, owner: &str) {
        self.engine.holds.release(owner);
    }

    fn holders(&self, topic: &TopicName) -> Result<Vec<Holder>, LogError> {
        self.engine.topics.get(topic)?;
        Ok(self.engine.holds.holders(topic))
    }

    fn compaction(&self, topic: &TopicName) -> Result<Vec<CompactionState>, LogError> {
        let entry = self.engine.topics.get(topic)?;
        let is_table = entry.topic.settings.kind == TopicKind::Table;
        let state = |partition: &Arc<Partition>| {
            let segments = self.engine.segments(partition);
            let of = |number: fn(&Segments) -> u64| segments.as_ref().map_or(0, |segments| number(segments));
            let compacting = &self.engine.compacting;
            // Of a topic of events nothing is told before there was a reason to look.
            let let_go = compacting.let_go(entry.topic.id, partition.id).filter(|_| !is_table);
            (is_table || let_go.is_some()).then(|| CompactionState {
                partition: partition.id,
                cleaned_to: Offset::new(if is_table { of(|segments| segments.cleaned().to.get()) } else { 0 }),
                bytes: of(|segments| segments.size().bytes),
                dirty_bytes: let_go.unwrap_or_else(|| of(Segments::dirty_bytes)),
                percent: compacting.percent(entry.topic.id, partition.id),
            })
        };
        Ok(entry.partitions.iter().filter_map(state).collect())
    }

    fn pause_compaction(&self, is_paused: bool) {
        self.engine.compacting.pause(is_paused);
    }

    fn is_compaction_paused(&self) -> bool {
        self.engine.compacting.is_paused()
    }

    fn redacting(&self, topic: &TopicName, stream: Option<&StreamId>) -> Result<Redacting, LogError> {
        let entry = self.engine.topics.get(topic)?;
        let redactions = &self.engine.redactions;
        let Some(stream) = stream else {
            let all = entry.partitions.iter().map(|partition| redactions.of(partition, None));
            return Ok(all.fold(Redacting::default(), Redacting::and));
        };
        request::require_events(&entry, "it has no streams")?;
        let name = stream.as_str().as_bytes();
        let partition = entry.partition_for(name);
        Ok(redactions.of(partition, Some(&StreamKey::of(&self.engine.hasher, partition, name))))
    }

    fn redacted(&self) -> watch::Receiver<u64> {
        self.engine.redactions.completed()
    }

    fn stream_state(&self, topic: &TopicName, stream: &StreamId) -> Result<StreamState, LogError> {
        let entry = self.engine.topics.get(topic)?;
        if entry.topic.settings.kind != TopicKind::Events {
            let reason = "it has no streams";
            return Err(LogError::WrongKind { topic: topic.clone(), kind: entry.topic.settings.kind.as_str(), reason });
        }
        let name = stream.as_str().as_bytes();
        let partition = entry.partition_for(name);
        Ok(self.engine.standing(partition, &StreamKey::of(&self.engine.hasher, partition, name))?.state())
    }

    fn snapshot(&self, topic: &TopicName, stream: &StreamId, at_most: StreamVersion) -> Result<Option<StoredSnapshot>, LogError> {
        let entry = self.engine.topics.get(topic)?;
        request::require_events(&entry, "it has no streams")?;
        let name = stream.as_str().as_bytes();
        let partition = entry.partition_for(name);
        let found = snapshot::find(&self.engine, partition, &StreamKey::of(&self.engine.hasher, partition, name), at_most);
        if let Err(error) = &found {
            self.engine.note_damage(error);
        }
        found
    }

    fn reader(&self, selection: Selection) -> Result<Box<dyn LogReader>, LogError> {
        Ok(Box::new(EmbeddedReader::open(Arc::clone(&self.engine), selection)?))
    }

    fn backward_reader(&self, selection: Selection) -> Result<Box<dyn LogReader>, LogError> {
        Ok(Box::new(BackwardReader::open(Arc::clone(&self.engine), selection)?))
    }

    fn filtered_reader(&self, selection: Selection, query: EventQuery) -> Result<Box<dyn LogReader>, LogError> {
        Ok(Box::new(FilteredReader::forwards(Arc::clone(&self.engine), selection, query)?))
    }

    fn filtered_backward_reader(&self, selection: Selection, query: EventQuery) -> Result<Box<dyn LogReader>, LogError> {
        Ok(Box::new(FilteredReader::backwards(Arc::clone(&self.engine), selection, query)?))
    }

    fn at_time(&self, selection: Selection, time: Timestamp) -> Result<Selection, LogError> {
        let found = cursor::at_time(&self.engine, selection, time);
        if let Err(error) = &found {
            self.engine.note_damage(error);
        }
        found
    }
}
