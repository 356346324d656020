//! What every [`LogBackend`] must do, as cases that run on any of them, by capability.
//!
//! A backend's tests implement [`Subject`] and call [`check`]; a case that a backend cannot take for want of a capability is
//! returned by name, so that leaving out is seen. A failed case panics with its name.

mod altered;
mod appends;
mod backwards;
mod compaction;
mod concurrency;
mod deleted;
mod filters;
mod lives;
mod producers;
mod queries;
mod reads;
mod redactions;
mod restarts;
mod snapshots;

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
};

use bytes::Bytes;

use crate::{
    backend::{Capabilities, LogBackend, Span},
    error::LogError,
    ids::{Expected, Offset, PartitionId, Position, StreamHead, StreamId, StreamVersion, Timestamp, TopicName},
    record::{Append, Appended, Found, NewEvent, NewRecord, Precondition, ReadLimits, Run, Selection, Violation, Write},
    topic::{Compression, TopicKind, TopicSettings},
};

/// A backend under test.
pub trait Subject {
    /// The log; the same one until it was restarted.
    fn log(&self) -> Arc<dyn LogBackend>;

    /// Stops the log and starts it again on what it kept; false if it keeps nothing.
    fn restart(&mut self) -> bool;
}

/// What a case needs of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Nothing,
    Order,
    ServerTime,
    AtomicFolder,
    Restart,
    Erasure,
    ErasureAndRestart,
}

struct Case {
    name: &'static str,
    needs: Needs,
    run: fn(&mut dyn Subject),
}

/// Runs every case, each on a subject that `make` returns and that holds nothing yet. Returns the names of those left out.
///
/// # Panics
/// When a case fails, with its name.
pub fn check<S: Subject>(mut make: impl FnMut() -> S) -> Vec<&'static str> {
    let mut left_out = Vec::new();
    let files = [
        appends::CASES,
        producers::CASES,
        queries::CASES,
        reads::CASES,
        backwards::CASES,
        compaction::CASES,
        filters::CASES,
        concurrency::CASES,
        lives::CASES,
        snapshots::CASES,
        redactions::CASES,
        restarts::CASES,
        altered::CASES,
        deleted::CASES,
    ];
    for case in files.into_iter().flatten() {
        let mut subject = make();
        let must_restart = matches!(case.needs, Needs::Restart | Needs::ErasureAndRestart);
        if !can(&subject.log().capabilities(), case.needs) || must_restart && !subject.restart() {
            left_out.push(case.name);
            continue;
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (case.run)(&mut subject))) {
            eprintln!("conformance case failed: {}", case.name);
            resume_unwind(panic);
        }
    }
    left_out
}

fn can(capabilities: &Capabilities, needs: Needs) -> bool {
    match needs {
        Needs::Nothing | Needs::Restart => true,
        Needs::Erasure | Needs::ErasureAndRestart => capabilities.erasure,
        Needs::Order => capabilities.commit_order,
        Needs::ServerTime => capabilities.commit_order && capabilities.server_time,
        Needs::AtomicFolder => capabilities.atomic_span == Span::Folder && capabilities.condition_span == Span::Folder,
    }
}

/// Waits for a future on this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn name(text: &str) -> TopicName {
    text.parse().expect("a valid name")
}

fn stream(text: &str) -> StreamId {
    text.parse().expect("a valid id")
}

fn create(log: &dyn LogBackend, topic: &str, kind: TopicKind, partitions: u32) {
    log.create_topic(name(topic), TopicSettings::new(kind, partitions)).expect("the topic is new");
}

fn event(data: impl Into<String>) -> NewEvent {
    NewEvent { kind: "Happened".into(), data: Bytes::from(data.into()), ..NewEvent::default() }
}

fn events_of(topic: &str, id: &str, data: &[&str]) -> Write {
    Write::Stream { topic: name(topic), stream: stream(id), events: data.iter().map(|data| event(*data)).collect() }
}

fn record(key: &str, value: &str) -> NewRecord {
    NewRecord { key: Some(Bytes::from(key.to_owned())), value: Some(Bytes::from(value.to_owned())), ..NewRecord::default() }
}

/// The stream that a violated belief is about, and where it stands.
fn stands(violation: &Violation) -> (&str, StreamHead) {
    let Found::Stream { stream, actual, .. } = &violation.found else { panic!("not about a stream: {violation:?}") };
    (stream.as_str(), *actual)
}

fn expect(topic: &str, id: &str, expected: Expected) -> Precondition {
    Precondition::Stream { topic: name(topic), stream: stream(id), expected }
}

fn writes(writes: impl Into<Vec<Write>>) -> Append {
    Append { writes: writes.into(), ..Append::default() }
}

fn append(log: &dyn LogBackend, append: Append) -> Result<Appended, LogError> {
    block_on(log.append(append)?)
}

/// Appends and expects that it succeeds.
fn put(log: &dyn LogBackend, one: Append) -> Appended {
    append(log, one).expect("nothing speaks against it")
}

/// One record as read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Read {
    topic: String,
    partition: PartitionId,
    offset: Offset,
    position: Position,
    key: Option<String>,
    value: Option<String>,
    version: Option<StreamVersion>,
    recorded_at: Timestamp,
}

fn records_of(run: &Run) -> Vec<Read> {
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let mut found = Vec::new();
    for record in run.records() {
        let record = record.expect("the log gives whole records");
        found.push(Read {
            topic: run.topic.name.to_string(),
            partition: run.partition,
            offset: record.offset,
            position: record.position,
            key: text(record.key),
            value: text(record.value),
            version: record.event().map(|event| event.version),
            recorded_at: run.recorded_at,
        });
    }
    assert_eq!(found.len(), run.count as usize, "a run has as many records as it says");
    found
}

/// Reads a selection up to the captured end.
fn read_until(log: &dyn LogBackend, selection: Selection, until: Position, limits: ReadLimits) -> Vec<Read> {
    let mut reader = log.reader(selection).expect("the selection is in range");
    let mut found = Vec::new();
    loop {
        let chunk = reader.read(until, limits).expect("the log is whole");
        assert!(chunk.scanned_to <= until.max(chunk.scanned_to), "scanned_to never passes the end asked for");
        let is_empty = chunk.runs.is_empty();
        for run in &chunk.runs {
            found.extend(records_of(run));
        }
        if is_empty {
            assert!(chunk.scanned_to >= until, "an empty chunk says that nothing is left below the end");
            return found;
        }
    }
}

/// Reads backwards from a selection's place, the newest first.
fn read_back(log: &dyn LogBackend, selection: Selection, until: Position, limits: ReadLimits) -> Vec<Read> {
    let mut reader = log.backward_reader(selection).expect("the selection is in range");
    let mut found = Vec::new();
    loop {
        let chunk = reader.read(until, limits).expect("the log is whole");
        let count: u32 = chunk.runs.iter().map(|run| run.count).sum();
        assert!(count <= limits.records.max(1), "{count} records for {limits:?}");
        for run in &chunk.runs {
            found.extend(records_of(run).into_iter().rev());
        }
        let too_low = found.last().is_some_and(|last: &Read| chunk.scanned_to > last.position && count > 0);
        assert!(!too_low, "scanned_to says that what was returned was not");
        if chunk.runs.is_empty() {
            assert_eq!(chunk.scanned_to, Position::new(0), "an empty chunk says that nothing is left");
            return found;
        }
    }
}

fn read(log: &dyn LogBackend, selection: Selection) -> Vec<Read> {
    read_until(log, selection, log.head().position, ReadLimits::default())
}

/// Compares what was read, and shows the first difference only.
fn assert_same(found: &[Read], expected: &[Read], what: &str) {
    let same = found.iter().zip(expected).take_while(|(one, other)| one == other).count();
    assert_eq!(found.get(same), expected.get(same), "{what}, after {same} records");
}

fn values(records: &[Read]) -> Vec<&str> {
    records.iter().filter_map(|record| record.value.as_deref()).collect()
}

fn partition(topic: &str, number: u32, from: u64) -> Selection {
    Selection::Partition(name(topic), PartitionId::new(number), Offset::new(from))
}

fn from_version(topic: &str, id: &str, version: u64) -> Selection {
    Selection::Stream(name(topic), stream(id), StreamVersion::new(version))
}

fn topics(names: &[&str], from: u64) -> Selection {
    Selection::Topics(names.iter().map(|topic| name(topic)).collect(), Position::new(from))
}
