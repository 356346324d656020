//! Every backend against the contract of `LogBackend`.

use std::{cell::RefCell, collections::VecDeque, path::Path, sync::Arc};

use foldlog_log::{
    Append, AppendFuture, Capabilities, Chunk, EmbeddedLog, EventQuery, Head, Holder, LogBackend, LogConfig, LogError, LogReader, Offset,
    Position, Precondition, ProducerEpoch, ProducerFuture, ProducerKey, QueryAbsent, ReadLimits, Redacting, Run, Selection, StoredSnapshot,
    StreamChange, StreamId, StreamState, StreamVersion, Timestamp, Topic, TopicChanges, TopicName, TopicSettings, Write,
    clock::{ManualClock, SystemClock},
    disk::RealDisk,
    testing::{
        MemoryLog, SimDisk,
        conformance::{Subject, check},
    },
};
use tokio::sync::watch;

struct InMemory(MemoryLog);

impl Subject for InMemory {
    fn log(&self) -> Arc<dyn LogBackend> {
        Arc::new(self.0.clone())
    }

    fn restart(&mut self) -> bool {
        false
    }
}

#[test]
fn the_log_in_memory_keeps_the_contract_but_for_restarts() {
    let left_out = check(|| InMemory(MemoryLog::new(Arc::new(ManualClock::at(Timestamp::new(1_000))))));
    assert_eq!(
        left_out,
        [
            "producers go on after restarts",
            "a query condition judges the same after a restart",
            "a filtered read returns the same after a restart",
            "lives of streams go on after a restart",
            "snapshots are the same after a restart",
            "redactions are done and stay so after a restart",
            "everything is there after a restart",
            "versions, offsets, positions and repeats go on after a restart",
            "what was altered is so after a restart",
            "a deleted topic stays deleted after restarts"
        ]
    );
}

/// Ways in which a log can be wrong.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// Request ids mean nothing.
    ForgetsRepeats,
    /// One violated precondition is reported, whatever their number.
    LooksAtAllTags,
    ForgetsThePast,
    ReportsOneViolation,
    /// Preconditions on other streams than those written are not looked at.
    ChecksWrittenStreamsOnly,
    /// Readers give what came after the captured end.
    ReadsPastTheEnd,
    /// Readers leave out the last run of a full chunk.
    SkipsRuns,
    /// Readers give the last run of a chunk twice.
    RepeatsRuns,
    /// A unit's writes become units of their own.
    SplitsUnits,
    /// Foldlog's own topics are part of everything.
    ShowsSystemTopics,
    /// Nobody is woken.
    NeverWakes,
    /// Units of producers are appends like any other.
    ForgetsSequences,
    /// Whoever asks gets a new epoch.
    FencesNobody,
    /// A level is asked of topics alone.
    AnswersWeaker,
    /// Backward readers begin with the record at the place.
    GoesBackFromThePlace,
    /// A time leads behind the first record that is as new.
    MissesTheTime,
    /// Of an item with types, tags do not count.
    FiltersByTypeAlone,
    /// Records without a type match a query of everything.
    FiltersRecordsIn,
    /// A topic that is altered stays as it is.
    AltersNothing,
    /// A topic that is deleted stays.
    DeletesNothing,
    /// Data that is redacted is shown.
    RedactsNothing,
}

struct Broken(MemoryLog, Wrong);

struct BrokenReader(Box<dyn LogReader>, MemoryLog, Wrong, Option<Run>);

impl LogBackend for Broken {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn create_topic(&self, name: TopicName, settings: TopicSettings) -> Result<Arc<Topic>, LogError> {
        self.0.create_topic(name, settings)
    }

    fn delete_topic(&self, name: &TopicName) -> Result<(), LogError> {
        if matches!(self.1, Wrong::DeletesNothing) {
            return self.0.topic(name).map(drop);
        }
        self.0.delete_topic(name)
    }

    fn alter_topic(&self, name: &TopicName, changes: TopicChanges) -> Result<Arc<Topic>, LogError> {
        if matches!(self.1, Wrong::AltersNothing) {
            return self.0.topic(name);
        }
        self.0.alter_topic(name, changes)
    }

    fn topic(&self, name: &TopicName) -> Result<Arc<Topic>, LogError> {
        self.0.topic(name)
    }

    fn topics(&self) -> Vec<Arc<Topic>> {
        self.0.topics()
    }

    fn append_all(&self, appends: &mut VecDeque<Append>) -> Result<Vec<Result<AppendFuture, LogError>>, LogError> {
        self.0.append_all(appends)
    }

    fn open_producer(&self, key: ProducerKey, resume: Option<ProducerEpoch>) -> Result<ProducerFuture, LogError> {
        let resume = resume.filter(|_| !matches!(self.1, Wrong::FencesNobody));
        self.0.open_producer(key, resume)
    }

    fn append(&self, mut append: Append) -> Result<AppendFuture, LogError> {
        match self.1 {
            Wrong::ForgetsSequences => append.sequenced = None,
            Wrong::ForgetsRepeats => append.identity = None,
            Wrong::AnswersWeaker => append.durability = None,
            Wrong::RedactsNothing => {
                for write in &mut append.writes {
                    let Write::Redact { topic, stream, by, .. } = write else { continue };
                    let (topic, stream, change, by) = (topic.clone(), stream.clone(), StreamChange::DropSnapshots, by.clone());
                    *write = Write::Change { topic, stream, change, by };
                }
            }
            Wrong::ChecksWrittenStreamsOnly if !append.writes.is_empty() => {
                let is_written = |one: &Precondition| match one {
                    Precondition::Stream { stream: asked, .. } => {
                        append.writes.iter().any(|write| matches!(write, Write::Stream { stream, .. } if stream == asked))
                    }
                    Precondition::QueryAbsent(_) => true,
                };
                append.preconditions = append.preconditions.iter().filter(|one| is_written(one)).cloned().collect();
            }
            Wrong::LooksAtAllTags => {
                // As if one of an item's tags were enough.
                for one in &mut append.preconditions {
                    let Precondition::QueryAbsent(QueryAbsent { query: EventQuery::Items(items), .. }) = one else { continue };
                    items.iter_mut().for_each(|item| item.tags.truncate(1));
                }
            }
            Wrong::ForgetsThePast => {
                let end = self.0.head().position.get();
                for one in &mut append.preconditions {
                    if let Precondition::QueryAbsent(asked) = one {
                        asked.after = end.checked_sub(1).map(Position::new);
                    }
                }
            }
            Wrong::SplitsUnits if append.writes.len() > 2 => {
                let first = Append { writes: append.writes.drain(..1).collect(), ..Append::default() };
                drop(self.0.append(first)?);
                std::thread::yield_now();
            }
            _ => {}
        }
        let answer = self.0.append(append)?;
        let wrong = self.1;
        Ok(Box::pin(async move {
            answer.await.map_err(|error| match error {
                LogError::Conflict { mut violations, seen } if matches!(wrong, Wrong::ReportsOneViolation) => {
                    violations.truncate(1);
                    LogError::Conflict { violations, seen }
                }
                other => other,
            })
        }))
    }

    fn head(&self) -> Head {
        self.0.head()
    }

    fn durable(&self) -> watch::Receiver<Position> {
        if matches!(self.1, Wrong::NeverWakes) {
            return watch::channel(self.0.head().position).1;
        }
        self.0.durable()
    }

    fn firsts(&self, topic: &TopicName) -> Result<Vec<Offset>, LogError> {
        self.0.firsts(topic)
    }
    fn whole_from(&self, selection: &Selection) -> Result<(), LogError> {
        self.0.whole_from(selection)
    }
    fn hold(&self, owner: &str, topic: &TopicName, from: Position) -> Result<(), LogError> {
        self.0.hold(owner, topic, from)
    }
    fn release(&self, owner: &str) {
        self.0.release(owner);
    }
    fn holders(&self, topic: &TopicName) -> Result<Vec<Holder>, LogError> {
        self.0.holders(topic)
    }
    fn ends(&self, topic: &TopicName) -> Result<Vec<Offset>, LogError> {
        self.0.ends(topic)
    }

    fn redacting(&self, topic: &TopicName, stream: Option<&StreamId>) -> Result<Redacting, LogError> {
        self.0.redacting(topic, stream)
    }
    fn redacted(&self) -> watch::Receiver<u64> {
        self.0.redacted()
    }

    fn snapshot(&self, topic: &TopicName, stream: &StreamId, at_most: StreamVersion) -> Result<Option<StoredSnapshot>, LogError> {
        self.0.snapshot(topic, stream, at_most)
    }

    fn stream_state(&self, topic: &TopicName, stream: &StreamId) -> Result<StreamState, LogError> {
        self.0.stream_state(topic, stream)
    }

    fn reader(&self, selection: Selection) -> Result<Box<dyn LogReader>, LogError> {
        let selection = match selection {
            Selection::All(from) if matches!(self.1, Wrong::ShowsSystemTopics) => {
                Selection::Topics(self.topics().iter().map(|topic| topic.name.clone()).collect(), from)
            }
            other => other,
        };
        Ok(Box::new(BrokenReader(self.0.reader(selection)?, self.0.clone(), self.1, None)))
    }

    fn backward_reader(&self, selection: Selection) -> Result<Box<dyn LogReader>, LogError> {
        let selection = match selection {
            Selection::Partition(topic, partition, offset) if matches!(self.1, Wrong::GoesBackFromThePlace) => {
                let end = self.ends(&topic)?[partition.get() as usize];
                Selection::Partition(topic, partition, offset.plus(1).min(end.max(offset)))
            }
            other => other,
        };
        self.0.backward_reader(selection)
    }

    fn filtered_reader(&self, selection: Selection, query: EventQuery) -> Result<Box<dyn LogReader>, LogError> {
        match (selection, query) {
            (selection, EventQuery::Items(mut items)) if matches!(self.1, Wrong::FiltersByTypeAlone) => {
                items.iter_mut().filter(|item| !item.types.is_empty()).for_each(|item| item.tags.clear());
                self.0.filtered_reader(selection, EventQuery::Items(items))
            }
            (selection, EventQuery::All) if matches!(self.1, Wrong::FiltersRecordsIn) => self.0.reader(selection),
            (selection, query) => self.0.filtered_reader(selection, query),
        }
    }

    fn filtered_backward_reader(&self, selection: Selection, query: EventQuery) -> Result<Box<dyn LogReader>, LogError> {
        self.0.filtered_backward_reader(selection, query)
    }

    fn at_time(&self, selection: Selection, time: Timestamp) -> Result<Selection, LogError> {
        let later = if matches!(self.1, Wrong::MissesTheTime) { time.get().saturating_add(1) } else { time.get() };
        self.0.at_time(selection, Timestamp::new(later))
    }
}

impl LogReader for BrokenReader {
    fn read(&mut self, until: Position, limits: ReadLimits) -> Result<Chunk, LogError> {
        let until = if matches!(self.2, Wrong::ReadsPastTheEnd) { self.1.head().position } else { until };
        let mut chunk = self.0.read(until, limits)?;
        match self.2 {
            Wrong::SkipsRuns if chunk.runs.len() > 1 => drop(chunk.runs.pop()),
            Wrong::RepeatsRuns => {
                chunk.runs.extend(self.3.take());
                self.3 = chunk.runs.last().filter(|_| chunk.runs.len() > 1).cloned();
            }
            _ => {}
        }
        Ok(chunk)
    }

    fn in_memory(&self) -> bool {
        true
    }
}

struct BrokenSubject(Arc<Broken>);

impl Subject for BrokenSubject {
    fn log(&self) -> Arc<dyn LogBackend> {
        self.0.clone()
    }

    fn restart(&mut self) -> bool {
        false
    }
}

#[test]
fn the_suite_objects_to_every_wrong_log() {
    use Wrong::*;
    let all = [
        ForgetsRepeats,
        LooksAtAllTags,
        ForgetsThePast,
        ReportsOneViolation,
        ChecksWrittenStreamsOnly,
        ReadsPastTheEnd,
        SkipsRuns,
        RepeatsRuns,
        SplitsUnits,
        ShowsSystemTopics,
        NeverWakes,
        ForgetsSequences,
        FencesNobody,
        AnswersWeaker,
        GoesBackFromThePlace,
        MissesTheTime,
        FiltersByTypeAlone,
        FiltersRecordsIn,
        AltersNothing,
        DeletesNothing,
        RedactsNothing,
    ];
    for wrong in all {
        let make = || BrokenSubject(Arc::new(Broken(MemoryLog::new(Arc::new(ManualClock::at(Timestamp::new(1)))), wrong)));
        let verdict = std::panic::catch_unwind(|| check(make));
        assert!(verdict.is_err(), "{wrong:?} was not noticed");
    }
}

/// An [`EmbeddedLog`] that can be stopped and started again.
struct Embedded<G> {
    log: Option<Arc<EmbeddedLog>>,
    open: Box<dyn Fn() -> EmbeddedLog>,
    _folder: G,
}

impl<G> Embedded<G> {
    fn new(folder: G, open: impl Fn() -> EmbeddedLog + 'static) -> Self {
        Self { log: Some(Arc::new(open())), open: Box::new(open), _folder: folder }
    }
}

impl<G> Subject for Embedded<G> {
    fn log(&self) -> Arc<dyn LogBackend> {
        self.log.clone().expect("it is open between restarts")
    }

    fn restart(&mut self) -> bool {
        let log = self.log.take().expect("it is open between restarts");
        log.stop();
        drop(log);
        self.log = Some(Arc::new((self.open)()));
        true
    }
}

impl<G> Drop for Embedded<G> {
    fn drop(&mut self) {
        if let Some(log) = &self.log {
            log.stop();
        }
    }
}

fn small() -> LogConfig {
    LogConfig {
        journal_file_bytes: 64 << 10,
        first_journal_file_bytes: 32 << 10,
        tail_bytes: 0,
        tidy_bytes: 4 << 10,
        segment_bytes: 8 << 10,
        near_positions: 10,
        filter_bytes: 500,
        removal_percent: 1,
        segment_age_ms: 1_000,
        ..LogConfig::default()
    }
}

#[test]
fn the_embedded_log_keeps_the_contract_on_a_real_disk() {
    let make = || {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("data");
        let open = move || {
            EmbeddedLog::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), &path, LogConfig::default().without_reserve())
                .expect("it opens")
        };
        Embedded::new(folder, open)
    };
    assert_eq!(check(make), [""; 0]);
}

#[test]
fn the_embedded_log_keeps_the_contract_when_little_fits_into_memory() {
    let disks = RefCell::new(Vec::new());
    let make = || {
        let disk = SimDisk::new(1);
        disks.borrow_mut().push(disk.clone());
        let open =
            move || EmbeddedLog::open(Arc::new(disk.clone()), Arc::new(SystemClock::new()), Path::new("/data"), small()).expect("it opens");
        Embedded::new((), open)
    };
    assert_eq!(check(make), [""; 0]);
    let in_segments = |disk: &SimDisk| disk.paths().iter().any(|path| path.extension().is_some_and(|extension| extension == "log"));
    assert!(disks.borrow().iter().any(in_segments), "segments were read");
}
