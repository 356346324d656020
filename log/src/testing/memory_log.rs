//! A log in memory: the contract of [`LogBackend`] without a file, for tests of the crates above.
//!
//! Everything is durable as soon as it is appended and nothing outlives the value. It shares the batches' bytes with the real
//! log, so that what decodes here decodes there.

mod readers;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::watch;

use self::readers::{BackwardReader, FilteredReader, MemoryReader, selected};
use crate::{
    backend::{AppendFuture, Capabilities, Head, LogBackend, LogReader, ProducerFuture, Span},
    batch::{BatchBuilder, Encoded, MarkWith, RecordView, is_mark},
    clock::Clock,
    compaction::Compaction,
    durability::Durability,
    error::LogError,
    holds::{Holder, Holds},
    ids::{FolderId, Offset, PartitionId, Position, ProducerEpoch, StreamId, StreamVersion, Timestamp, TopicId, TopicName},
    life::{Beginning, Mark, Marking, SnapshotAt, Standing, StreamChange, StreamState},
    partition::{admission::answer_of, request::check_redaction, snapshot::stored},
    producers::{Judged, Outcome, Producers, UNITS_REMEMBERED},
    record::{
        Append, Appended, AppendedRange, EventQuery, Found, NewRecord, Precondition, ProducerKey, QueryAbsent, RequestKey, Run, Scope,
        Selection, StoredSnapshot, StreamAt, Violation, Write,
    },
    redaction::blanked,
    topic::{Topic, TopicChanges, TopicKind, TopicSettings},
};

/// A log in memory. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct MemoryLog {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    durable: watch::Sender<Position>,
    holds: Holds,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<TopicName, Arc<Topic>>,
    /// Topics made so far.
    made: u128,
    ends: HashMap<(TopicName, PartitionId), Offset>,
    streams: HashMap<(TopicName, StreamId), Standing>,
    requests: HashMap<RequestKey, (u128, Appended)>,
    producers: Producers,
    /// In position order, with gaps where topics were deleted.
    runs: Vec<Run>,
    end: Position,
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            inner: Arc::new(Inner {
                clock,
                state: Mutex::default(),
                durable: watch::Sender::new(Position::default()),
                holds: Holds::default(),
            }),
        }
    }
}

impl State {
    fn topic(&self, name: &TopicName) -> Result<&Arc<Topic>, LogError> {
        self.topics.get(name).ok_or_else(|| LogError::UnknownTopic { topic: name.clone() })
    }

    /// The topics that a selection names, as they are now.
    fn named(&self, selection: &Selection) -> Result<Vec<TopicId>, LogError> {
        let names = match selection {
            Selection::Partition(topic, ..) | Selection::Stream(topic, ..) => std::slice::from_ref(topic),
            Selection::Topics(topics, _) => topics,
            Selection::All(_) => &[],
        };
        names.iter().map(|name| self.topic(name).map(|topic| topic.id)).collect()
    }

    /// Refuses to go on with topics that were deleted since.
    fn present(&self, selection: &Selection, ids: &[TopicId]) -> Result<(), LogError> {
        match (self.named(selection)?, selection) {
            (now, _) if now == ids => Ok(()),
            (_, Selection::Partition(topic, ..) | Selection::Stream(topic, ..)) => Err(LogError::UnknownTopic { topic: topic.clone() }),
            (now, Selection::Topics(names, _)) => {
                let gone = names.iter().zip(now.iter().zip(ids)).find(|(_, (now, then))| now != then);
                gone.map_or(Ok(()), |(topic, _)| Err(LogError::UnknownTopic { topic: topic.clone() }))
            }
            (_, Selection::All(_)) => Ok(()),
        }
    }

    fn standing(&self, topic: &TopicName, stream: &StreamId) -> Standing {
        self.streams.get(&(topic.clone(), stream.clone())).copied().unwrap_or_default()
    }

    /// A selection without what is gone of its stream, and where that begins.
    fn left_of(&self, selection: &Selection) -> (Selection, Option<Beginning>) {
        let Selection::Stream(topic, stream, version) = selection else { return (selection.clone(), None) };
        let beginning = self.standing(topic, stream).life.beginning;
        let left = Selection::Stream(topic.clone(), stream.clone(), (*version).max(beginning.first));
        (left, (beginning != Beginning::default()).then_some(beginning))
    }

    /// Why a stream takes no such write, whatever is believed.
    fn refused(&self, placed: &[Placed]) -> Option<LogError> {
        placed.iter().find_map(|one| {
            let stream = one.stream.as_ref()?;
            let standing = self.standing(&one.topic.name, stream);
            Some(LogError::refused(standing.refusal(one.marking)?, &one.topic.name, stream, standing.head()))
        })
    }

    fn admit(&self, append: &Append, placed: &[Placed]) -> Result<(), LogError> {
        if let Some(error) = self.refused(placed) {
            return Err(error);
        }
        let violated = |(index, one): (usize, &Precondition)| {
            let found = match one {
                Precondition::Stream { topic, stream, expected } => {
                    let actual = self.standing(topic, stream).head();
                    (!expected.holds(actual)).then(|| Found::Stream { stream: stream.clone(), expected: *expected, actual })
                }
                Precondition::QueryAbsent(asked) => self.first_match(asked).map(|first| Found::Event { first }),
            };
            found.map(|found| Violation { index, found })
        };
        let violations: Vec<_> = append.preconditions.iter().enumerate().filter_map(violated).collect();
        if violations.is_empty() { Ok(()) } else { Err(LogError::Conflict { violations, seen: self.end }) }
    }

    /// The first event that counts and matches.
    fn first_match(&self, asked: &QueryAbsent) -> Option<Position> {
        let is_meant = |topic: &Topic| match &asked.scope {
            Scope::Topics(names) => names.contains(&topic.name),
            Scope::Everything => !topic.name.is_system(),
        };
        let counts = |position: Position| asked.after.is_none_or(|after| position > after);
        let records = self.runs.iter().filter(|run| is_meant(&run.topic)).flat_map(Run::records).flatten();
        let mut matching = records.filter(|record| record.event().is_some_and(|event| asked.query.matches(&event)));
        matching.find(|record| counts(record.position)).map(|record| record.position)
    }

    fn check_query(&self, asked: &QueryAbsent) -> Result<(), LogError> {
        asked.query.check()?;
        if let Some(after) = asked.after.filter(|after| *after >= self.end) {
            return Err(LogError::PositionOutOfRange { asked: after, end: self.end });
        }
        let Scope::Topics(names) = &asked.scope else { return Ok(()) };
        if names.is_empty() {
            return Err(LogError::Invalid { field: "query".into(), reason: "it names no topic".into() });
        }
        for name in names {
            let topic = self.topic(name)?;
            expect_kind(topic, topic.settings.kind == TopicKind::Events, "queries are about topics of kind events")?;
        }
        Ok(())
    }

    /// Encodes every write before the first one is placed, so that a malformed one leaves nothing behind.
    fn encode(&self, append: &Append) -> Result<Vec<Placed>, LogError> {
        let invalid = |field: &str, reason: &str| Err(LogError::Invalid { field: field.into(), reason: reason.into() });
        if append.writes.is_empty() && append.preconditions.is_empty() && append.identity.is_none() && append.sequenced.is_none() {
            return invalid("writes", "the append holds nothing");
        }
        if append.sequenced.is_some() && (append.identity.is_some() || append.writes.is_empty() && !append.preconditions.is_empty()) {
            return invalid("sequenced", "a unit of a producer writes something, and has no other id");
        }
        for one in &append.preconditions {
            match one {
                Precondition::Stream { topic, .. } => {
                    let topic = self.topic(topic)?;
                    expect_kind(topic, topic.settings.kind == TopicKind::Events, "it has no streams")?;
                }
                Precondition::QueryAbsent(asked) => self.check_query(asked)?,
            }
        }
        let mut all = Vec::new();
        for write in &append.writes {
            match write {
                Write::Stream { events, .. } if events.is_empty() => return invalid("events", "at least one is needed"),
                Write::Records { records, .. } if records.is_empty() => return invalid("records", "at least one is needed"),
                Write::Stream { topic, stream, events } => {
                    let topic = self.topic(topic)?;
                    expect_kind(topic, topic.settings.kind == TopicKind::Events, "it takes no events")?;
                    let mut records = Encoded::default();
                    for event in events {
                        records.push_event(stream, event)?;
                    }
                    let partition = PartitionId::for_key(stream.as_str().as_bytes(), topic.settings.partitions);
                    all.push(Placed { topic: Arc::clone(topic), partition, stream: Some(stream.clone()), marking: None, records });
                }
                Write::Records { topic, partition, records } => {
                    let topic = self.topic(topic)?;
                    expect_kind(topic, topic.settings.kind != TopicKind::Events, "it takes events of streams alone")?;
                    for record in records {
                        place_record(topic, *partition, record, &mut all)?;
                    }
                }
                Write::Change { topic, stream, change, by } => {
                    all.push(self.place_mark(topic, stream, Marking::Change(*change), MarkWith::Nothing, by)?);
                }
                Write::Snapshot { topic, stream, snapshot, by } => {
                    all.push(self.place_mark(topic, stream, Marking::Snapshot(snapshot.version), MarkWith::Snapshot(snapshot), by)?);
                }
                Write::Redact { topic, stream, versions, by, reason } => {
                    check_redaction(versions, by, reason)?;
                    for version in versions {
                        all.push(self.place_mark(topic, stream, Marking::Redaction(*version), MarkWith::Reason(reason), by)?);
                    }
                }
            }
        }
        let is_same = |one: &Placed, other: &Placed| one.stream == other.stream && one.topic.name == other.topic.name;
        let is_redaction = |one: &Placed| matches!(one.marking, Some(Marking::Redaction(_)));
        let others = |one: &Placed| all.iter().filter(|other| is_same(one, other) && !(is_redaction(one) && is_redaction(other))).count();
        let own = |one: &Placed| usize::from(!is_redaction(one));
        if all.iter().any(|one| one.marking.is_some() && others(one) > own(one)) {
            return invalid("writes", "a stream is truncated or deleted and written to in one append");
        }
        Ok(all)
    }

    fn place_mark(&self, topic: &TopicName, stream: &StreamId, marking: Marking, with: MarkWith<'_>, by: &str) -> Result<Placed, LogError> {
        let topic = Arc::clone(self.topic(topic)?);
        expect_kind(&topic, topic.settings.kind == TopicKind::Events, "it has no streams")?;
        if let Marking::Change(StreamChange::Truncate { before: version }) | Marking::Snapshot(version) = marking
            && version < StreamVersion::FIRST
        {
            return Err(LogError::Invalid { field: "version".into(), reason: "versions begin at 1".into() });
        }
        let mut records = Encoded::default();
        records.push_mark(stream.as_str().as_bytes(), Mark::new(marking, StreamVersion::default()), by, with)?;
        let partition = PartitionId::for_key(stream.as_str().as_bytes(), topic.settings.partitions);
        Ok(Placed { topic, partition, stream: Some(stream.clone()), marking: Some(marking), records })
    }

    fn commit(&mut self, placed: Vec<Placed>, asked: Option<Durability>, clock: &dyn Clock) -> Appended {
        let recorded_at = self.runs.last().map_or(clock.now(), |last| clock.now().max(last.recorded_at));
        let first = self.end;
        // Answers before the sync leave as soon as all others do.
        let durability = Durability::of(asked, placed.iter().map(|one| one.topic.settings.durability));
        let mut answer =
            Appended { first, end: first, ranges: Vec::new(), versions: Vec::new(), recorded_at, deduplicated: false, durability };
        for Placed { topic, partition, stream, marking, records } in placed {
            let mut standing = stream.as_ref().map_or_else(Standing::default, |stream| self.standing(&topic.name, stream));
            let offset = self.ends.get(&(topic.name.clone(), partition)).copied().unwrap_or_default();
            let version = match marking.map(|marking| standing.mark(marking, offset)) {
                None => standing.newest.plus(1),
                Some(Some(mark)) => {
                    standing.life = standing.life.and(mark.life(offset));
                    mark.version()
                }
                // It is so already.
                Some(None) => continue,
            };
            if let (Some(Marking::Redaction(version)), Some(stream)) = (marking, &stream) {
                self.redact(&topic.name, stream, version);
            }
            let end = self.ends.entry((topic.name.clone(), partition)).or_default();
            let (first_offset, count) = (*end, records.count());
            *end = end.plus(u64::from(count));
            if let Some(stream) = stream {
                standing.newest = standing.newest.plus(if marking.is_some() { 0 } else { count.into() });
                self.streams.insert((topic.name.clone(), stream.clone()), standing);
                let at = StreamAt { topic: topic.name.clone(), stream, version: standing.newest };
                answer.versions.retain(|one| (&one.topic, &one.stream) != (&at.topic, &at.stream));
                answer.versions.extend((at.version >= StreamVersion::FIRST).then_some(at));
            }
            let mut builder = BatchBuilder::new(first_offset);
            let start = builder.push(&records, version, recorded_at);
            let last = first_offset.plus(u64::from(count) - 1);
            match answer.ranges.iter_mut().find(|range| range.topic == topic.name && range.partition == partition) {
                Some(range) => range.last = last,
                None => answer.ranges.push(AppendedRange { topic: topic.name.clone(), partition, first: first_offset, last }),
            }
            let batch = builder.finish(0);
            self.runs.push(Run { topic, partition, first_offset, first_position: self.end, count, recorded_at, batch, start });
            self.end = self.end.plus(u64::from(count));
        }
        answer.end = self.end;
        answer
    }

    /// Puts a blank in the place of an event.
    fn redact(&mut self, topic: &TopicName, stream: &StreamId, version: StreamVersion) {
        for run in self.runs.iter_mut().filter(|run| run.topic.name == *topic) {
            let is_it = |record: &RecordView<'_>| {
                record.key == Some(stream.as_str().as_bytes()) && record.event().is_some_and(|event| event.version == version)
            };
            let Some(offset) = run.records().flatten().find(is_it).map(|record| record.offset) else { continue };
            if let Ok(shown) = blanked(run, |at| at == offset) {
                *run = shown;
            }
        }
    }

    /// The position of a selection's place, if it is a position; else 0. Refuses a place that does not exist.
    fn place_of(&self, selection: &Selection) -> Result<Position, LogError> {
        let mut from = Position::default();
        match selection {
            Selection::Partition(topic, partition, offset) => {
                let partitions = self.topic(topic)?.settings.partitions;
                if partition.get() >= partitions {
                    return Err(LogError::UnknownPartition { topic: topic.clone(), partition: *partition, partitions });
                }
                let end = self.ends.get(&(topic.clone(), *partition)).copied().unwrap_or_default();
                if *offset > end {
                    let (topic, partition, first) = (topic.clone(), *partition, Offset::default());
                    return Err(LogError::OffsetOutOfRange { topic, partition, asked: *offset, first, end });
                }
            }
            Selection::Stream(topic, ..) => {
                let known = self.topic(topic)?;
                expect_kind(known, known.settings.kind == TopicKind::Events, "it has no streams")?;
            }
            Selection::Topics(topics, position) => {
                topics.iter().try_for_each(|topic| self.topic(topic).map(drop))?;
                from = *position;
            }
            Selection::All(position) => from = *position,
        }
        if from > self.end {
            return Err(LogError::PositionOutOfRange { asked: from, end: self.end });
        }
        Ok(from)
    }
}

/// Encoded records and where they go.
struct Placed {
    topic: Arc<Topic>,
    partition: PartitionId,
    stream: Option<StreamId>,
    marking: Option<Marking>,
    records: Encoded,
}

fn expect_kind(topic: &Topic, fits: bool, reason: &'static str) -> Result<(), LogError> {
    if fits {
        return Ok(());
    }
    Err(LogError::WrongKind { topic: topic.name.clone(), kind: topic.settings.kind.as_str(), reason })
}

fn place_record(topic: &Arc<Topic>, partition: Option<PartitionId>, record: &NewRecord, all: &mut Vec<Placed>) -> Result<(), LogError> {
    expect_kind(topic, topic.settings.kind != TopicKind::Table || record.key.is_some(), "its records need a key")?;
    let partitions = topic.settings.partitions;
    let of_key = || record.key.as_ref().map_or(PartitionId::new(0), |key| PartitionId::for_key(key, partitions));
    let partition = partition.unwrap_or_else(of_key);
    if partition.get() >= partitions {
        return Err(LogError::UnknownPartition { topic: topic.name.clone(), partition, partitions });
    }
    match all.last_mut() {
        Some(last) if last.stream.is_none() && last.partition == partition && Arc::ptr_eq(&last.topic, topic) => {
            last.records.push_record(record)
        }
        _ => {
            let mut records = Encoded::default();
            records.push_record(record)?;
            all.push(Placed { topic: Arc::clone(topic), partition, stream: None, marking: None, records });
            Ok(())
        }
    }
}

fn check(settings: TopicSettings) -> Result<(), LogError> {
    if !(1..=TopicSettings::MAX_PARTITIONS).contains(&settings.partitions) {
        return Err(LogError::Invalid { field: "partitions".into(), reason: "1 to 1,024".into() });
    }
    if !settings.retention.is_for_ever() {
        return Err(LogError::Invalid { field: "retention".into(), reason: "this log keeps everything".into() });
    }
    if settings.compaction != Compaction::DEFAULT {
        return Err(LogError::Invalid { field: "compaction".into(), reason: "this log keeps everything".into() });
    }
    Ok(())
}

impl LogBackend for MemoryLog {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            atomic_span: Span::Folder,
            condition_span: Span::Folder,
            dense_offsets: true,
            commit_order: true,
            server_time: true,
            removal: false,
            compaction: false,
            erasure: true,
            producer_units: UNITS_REMEMBERED,
            append_bytes: u64::MAX,
            append_records: u64::MAX,
        }
    }

    fn create_topic(&self, name: TopicName, settings: TopicSettings) -> Result<Arc<Topic>, LogError> {
        check(settings)?;
        let mut state = self.inner.state.lock();
        if let Some(known) = state.topics.get(&name) {
            if known.settings == settings {
                return Ok(Arc::clone(known));
            }
            let TopicSettings { kind, partitions, durability, compression, .. } = known.settings;
            let difference = format!("kind {kind}, {partitions} partitions, durability {durability} and compression {compression}");
            return Err(LogError::TopicExists { topic: name, difference });
        }
        state.made += 1;
        let topic = Arc::new(Topic { name: name.clone(), id: TopicId::new(state.made.to_be_bytes()), settings });
        state.topics.insert(name, Arc::clone(&topic));
        Ok(topic)
    }

    fn delete_topic(&self, name: &TopicName) -> Result<(), LogError> {
        let held = self.inner.holds.lock();
        let mut state = self.inner.state.lock();
        state.topic(name)?;
        held.free(name)?;
        state.topics.remove(name);
        state.ends.retain(|(topic, _), _| topic != name);
        state.streams.retain(|(topic, _), _| topic != name);
        state.runs.retain(|run| run.topic.name != *name);
        Ok(())
    }

    fn alter_topic(&self, name: &TopicName, changes: TopicChanges) -> Result<Arc<Topic>, LogError> {
        let mut state = self.inner.state.lock();
        let before = state.topic(name)?;
        let settings = changes.applied_to(before.settings)?;
        check(settings)?;
        let topic = Arc::new(Topic { settings, ..Topic::clone(before) });
        state.topics.insert(name.clone(), Arc::clone(&topic));
        Ok(topic)
    }

    fn topic(&self, name: &TopicName) -> Result<Arc<Topic>, LogError> {
        self.inner.state.lock().topic(name).cloned()
    }

    fn topics(&self) -> Vec<Arc<Topic>> {
        self.inner.state.lock().topics.values().cloned().collect()
    }

    fn append(&self, append: Append) -> Result<AppendFuture, LogError> {
        let mut state = self.inner.state.lock();
        let placed = state.encode(&append)?;
        if let Some(identity) = &append.identity
            && let Some((digest, first)) = state.requests.get(&identity.key)
        {
            let repeat = Appended { deduplicated: true, durability: Durability::Synced, ..first.clone() };
            let reused = LogError::RequestIdReused { id: identity.key.id, first: first.first };
            let answer = if *digest == identity.digest { Ok(repeat) } else { Err(reused) };
            return Ok(futures::future::ready(answer).boxed());
        }
        if let Some(unit) = &append.sequenced {
            match state.producers.judge(unit) {
                Judged::Next => {}
                Judged::Repeat(outcome) => return Ok(futures::future::ready(answer_of(unit, outcome)).boxed()),
                Judged::Refused(error) => return Ok(futures::future::ready(Err(error)).boxed()),
            }
        }
        let is_empty = append.writes.is_empty();
        let answer = state.admit(&append, &placed).map(|()| state.commit(placed, append.durability, &*self.inner.clock));
        if let (Some(identity), Ok(appended)) = (append.identity, &answer) {
            state.requests.insert(identity.key, (identity.digest, appended.clone()));
        }
        if let Some(unit) = &append.sequenced {
            let (first, end) = answer.as_ref().map_or((state.end, state.end), |appended| (appended.first, appended.end));
            let records = u32::try_from(end.get() - first.get()).unwrap_or(u32::MAX);
            let records = (answer.is_ok() && !is_empty).then_some(records);
            let time = answer.as_ref().map_or_else(|_| self.inner.clock.now(), |appended| appended.recorded_at);
            state.producers.take(unit, Outcome { first, records, time });
        }
        self.inner.durable.send_replace(state.end);
        Ok(futures::future::ready(answer).boxed())
    }

    fn append_all(&self, appends: &mut VecDeque<Append>) -> Result<Vec<Result<AppendFuture, LogError>>, LogError> {
        let mut answers = Vec::with_capacity(appends.len());
        while answers.last().is_none_or(Result::is_ok)
            && let Some(append) = appends.pop_front()
        {
            answers.push(self.append(append));
        }
        Ok(answers)
    }

    fn open_producer(&self, key: ProducerKey, resume: Option<ProducerEpoch>) -> Result<ProducerFuture, LogError> {
        let opened = self.inner.state.lock().producers.open(&key, resume, self.inner.clock.now());
        Ok(futures::future::ready(opened.map(|(at, _)| at)).boxed())
    }

    fn head(&self) -> Head {
        Head { folder: FolderId::new([0; 16]), epoch: 1, position: self.inner.state.lock().end }
    }

    fn durable(&self) -> watch::Receiver<Position> {
        self.inner.durable.subscribe()
    }

    fn ends(&self, topic: &TopicName) -> Result<Vec<Offset>, LogError> {
        let state = self.inner.state.lock();
        let partitions = 0..state.topic(topic)?.settings.partitions;
        Ok(partitions.map(|one| state.ends.get(&(topic.clone(), PartitionId::new(one))).copied().unwrap_or_default()).collect())
    }

    fn firsts(&self, topic: &TopicName) -> Result<Vec<Offset>, LogError> {
        let state = self.inner.state.lock();
        Ok((0..state.topic(topic)?.settings.partitions).map(|_| Offset::default()).collect())
    }

    fn whole_from(&self, _: &Selection) -> Result<(), LogError> {
        Ok(())
    }

    fn hold(&self, owner: &str, topic: &TopicName, from: Position) -> Result<(), LogError> {
        self.inner.holds.hold(owner, topic, from, || self.inner.state.lock().topic(topic).map(drop))
    }

    fn release(&self, owner: &str) {
        self.inner.holds.release(owner);
    }

    fn holders(&self, topic: &TopicName) -> Result<Vec<Holder>, LogError> {
        self.inner.state.lock().topic(topic)?;
        Ok(self.inner.holds.holders(topic))
    }

    fn stream_state(&self, topic: &TopicName, stream: &StreamId) -> Result<StreamState, LogError> {
        let state = self.inner.state.lock();
        let known = state.topic(topic)?;
        expect_kind(known, known.settings.kind == TopicKind::Events, "it has no streams")?;
        Ok(state.standing(topic, stream).state())
    }

    fn snapshot(&self, topic: &TopicName, stream: &StreamId, at_most: StreamVersion) -> Result<Option<StoredSnapshot>, LogError> {
        let state = self.inner.state.lock();
        let known = state.topic(topic)?;
        expect_kind(known, known.settings.kind == TopicKind::Events, "it has no streams")?;
        let life = state.standing(topic, stream).life;
        let mut newest: Option<(SnapshotAt, StoredSnapshot)> = None;
        for run in state.runs.iter().filter(|run| run.topic.name == *topic && is_mark(run)) {
            let is_its = run.records().flatten().any(|record| record.key == Some(stream.as_str().as_bytes()));
            let Some(found) = stored(run)?.filter(|found| is_its && found.snapshot.version <= at_most) else { continue };
            let at = SnapshotAt { version: found.snapshot.version, offset: run.first_offset };
            if life.keeps(at) && newest.as_ref().is_none_or(|(known, _)| *known < at) {
                newest = Some((at, found));
            }
        }
        Ok(newest.map(|(_, found)| found))
    }

    fn reader(&self, selection: Selection) -> Result<Box<dyn LogReader>, LogError> {
        let state = self.inner.state.lock();
        let (from, ids) = (state.place_of(&selection)?, state.named(&selection)?);
        Ok(Box::new(MemoryReader { inner: Arc::clone(&self.inner), selection, ids, from }))
    }

    fn backward_reader(&self, selection: Selection) -> Result<Box<dyn LogReader>, LogError> {
        let state = self.inner.state.lock();
        let place = state.place_of(&selection)?;
        let before = if matches!(selection, Selection::Topics(..) | Selection::All(_)) { place } else { state.end };
        let ids = state.named(&selection)?;
        Ok(Box::new(BackwardReader { inner: Arc::clone(&self.inner), selection, ids, before }))
    }

    fn filtered_reader(&self, selection: Selection, query: EventQuery) -> Result<Box<dyn LogReader>, LogError> {
        self.check_filter(&selection, &query)?;
        Ok(Box::new(FilteredReader { inner: self.reader(selection)?, query, is_backward: false }))
    }

    fn filtered_backward_reader(&self, selection: Selection, query: EventQuery) -> Result<Box<dyn LogReader>, LogError> {
        self.check_filter(&selection, &query)?;
        Ok(Box::new(FilteredReader { inner: self.backward_reader(selection)?, query, is_backward: true }))
    }

    fn at_time(&self, selection: Selection, time: Timestamp) -> Result<Selection, LogError> {
        let state = self.inner.state.lock();
        let older = &state.runs[..state.runs.partition_point(|run| run.recorded_at < time)];
        let position = older.last().map_or(Position::default(), Run::end_position);
        Ok(match selection {
            Selection::Partition(topic, partition, _) => {
                let whole = Selection::Partition(topic.clone(), partition, Offset::default());
                state.place_of(&whole)?;
                let mine = |run: &&Run| run.topic.name == topic && run.partition == partition;
                let offset = older.iter().rfind(mine).map_or(Offset::default(), |run| run.first_offset.plus(run.count.into()));
                Selection::Partition(topic, partition, offset)
            }
            Selection::Stream(topic, stream, _) => {
                let whole = Selection::Stream(topic.clone(), stream.clone(), StreamVersion::FIRST);
                state.place_of(&whole)?;
                let mut count = 0;
                for run in older {
                    count += selected(run, &whole, Position::default(), position)?.len() as u64;
                }
                Selection::Stream(topic, stream, StreamVersion::FIRST.plus(count))
            }
            Selection::Topics(topics, _) => {
                topics.iter().try_for_each(|topic| state.topic(topic).map(drop))?;
                Selection::Topics(topics, position)
            }
            Selection::All(_) => Selection::All(position),
        })
    }
}

impl MemoryLog {
    fn check_filter(&self, selection: &Selection, query: &EventQuery) -> Result<(), LogError> {
        let scope = match selection {
            Selection::Partition(topic, ..) | Selection::Stream(topic, ..) => Scope::Topics(vec![topic.clone()]),
            Selection::Topics(topics, _) => Scope::Topics(topics.clone()),
            Selection::All(_) => Scope::Everything,
        };
        self.inner.state.lock().check_query(&QueryAbsent { scope, query: query.clone(), after: None })
    }
}
