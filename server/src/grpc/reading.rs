//! Reads and subscriptions: streams that pull from a log reader as fast as the client takes, and hold next to nothing.
//!
//! Nothing runs ahead of the client: the transport asks for the next message when it has room for it. A subscriber that
//! falls behind the tail kept in memory is read from files like any other reader, and told so.

use std::{sync::Arc, time::Duration};

use foldlog_log::{
    Chunk, LogError, LogReader, Offset, Position, ReadLimits, Run, Selection, StoredSnapshot, StreamId, StreamState, StreamVersion,
    Timestamp, Topic, TopicId, TopicName, batch,
};
use foldlog_proto::v1::{self as pb, subscribe_batch::Message};
use futures::{Stream, stream};
use tokio::sync::watch;

use super::{
    convert,
    source::{self, Direction, Source},
    wire::{End, Outgoing},
};
use crate::{
    app::{App, Stage, StreamPlace},
    failure::{Detail, Failure, Kind},
    idle::Sent,
    token::Tokens,
};

const BATCH_EVENTS: u32 = 1_000;
const BATCH_BYTES: u32 = 256 << 10;
const MAX_BATCH_BYTES: u32 = 4 << 20;
/// How long `at_least` is waited for when the caller does not say.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(10);
/// Longest such wait.
pub const MAX_WAIT: Duration = Duration::from_secs(60);
/// Progress over events that were not selected is told this often at most.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// A silent subscription says this often that it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);

impl Sent for Outgoing {
    fn sent_to(&self) -> Option<Position> {
        Some(self.position())
    }
}

/// A log reader that is used from async tasks: in place while it needs no file, else on the blocking pool.
struct Cursor {
    app: App,
    reader: Option<Box<dyn LogReader>>,
    direction: Direction,
    limits: ReadLimits,
    /// What was read but did not fit into a message.
    rest: Option<Chunk>,
}

impl Cursor {
    fn new(app: &App, reader: Box<dyn LogReader>, direction: Direction, events: u32, bytes: u32) -> Self {
        let or = |given: u32, default: u32, most: u32| if given == 0 { default } else { given.min(most) };
        let limits = ReadLimits { records: or(events, BATCH_EVENTS, BATCH_EVENTS), bytes: or(bytes, BATCH_BYTES, MAX_BATCH_BYTES) };
        Self { app: app.clone(), reader: Some(reader), direction, limits, rest: None }
    }

    fn in_memory(&self) -> bool {
        self.rest.is_some() || self.reader.as_ref().is_some_and(|reader| reader.in_memory())
    }

    /// At most `most` records below `until`, as many as fit into a message. Not cancel-safe: a cursor whose read was dropped is over.
    async fn read(&mut self, until: Position, most: u64) -> Result<Chunk, Failure> {
        let chunk = match self.rest.take() {
            Some(rest) => rest,
            None => self.read_log(until, most).await?,
        };
        let (chunk, rest) = within(chunk, self.limits.bytes as usize, self.direction)?;
        self.rest = rest;
        self.app.metrics.read_events.inc_by(records(&chunk));
        Ok(chunk)
    }

    async fn read_log(&mut self, until: Position, most: u64) -> Result<Chunk, Failure> {
        let over = || Failure::new(Kind::Internal, "READ_FAILED", "the read was interrupted");
        let mut reader = self.reader.take().ok_or_else(over)?;
        let limits = ReadLimits { records: u32::try_from(most).unwrap_or(u32::MAX).min(self.limits.records), ..self.limits };
        let (reader, chunk) = if reader.in_memory() {
            let chunk = reader.read(until, limits);
            (reader, chunk)
        } else {
            let place = self.app.file_reads.acquire().await.map_err(|_| Failure::draining())?;
            let read = tokio::task::spawn_blocking(move || {
                let chunk = reader.read(until, limits);
                (reader, chunk)
            });
            let read = read.await.map_err(|_| over())?;
            drop(place);
            read
        };
        self.reader = Some(reader);
        Ok(chunk?)
    }
}

/// Cuts what fits into a message of so many bytes off a chunk, at least one record. The log returns whole batches, and all
/// that was committed together lies in one.
fn within(chunk: Chunk, bytes: usize, direction: Direction) -> Result<(Chunk, Option<Chunk>), Failure> {
    let (mut distinct, mut last) = (0, std::ptr::null());
    for run in &chunk.runs {
        distinct += if run.batch.as_ptr() == last { 0 } else { run.batch.len() };
        last = run.batch.as_ptr();
    }
    if distinct <= bytes {
        return Ok((chunk, None));
    }
    let mut taken = 0;
    for place in 0..chunk.runs.len() {
        let mut lengths = lengths(&chunk.runs[place])?;
        if direction == Direction::Backwards {
            lengths.reverse();
        }
        for (count, length) in (0..).zip(lengths) {
            taken += length;
            if taken > bytes && (place, count) != (0, 0) {
                return cut(chunk, place, count, direction);
            }
        }
    }
    Ok((chunk, None))
}

/// Bytes of each record of a run.
fn lengths(run: &Run) -> Result<Vec<usize>, Failure> {
    let mut at = run.start;
    let length = |_| {
        let next = batch::skip(&run.batch, at, 1).map_err(|flaw| damaged(run, flaw))?;
        Ok((std::mem::replace(&mut at, next)..next).len())
    };
    (0..run.count).map(length).collect()
}

/// Cuts a chunk behind the first `count` records that its run `place` gives in this direction.
fn cut(mut chunk: Chunk, place: usize, count: u32, direction: Direction) -> Result<(Chunk, Option<Chunk>), Failure> {
    let mut rest = chunk.runs.split_off(place);
    if let Some(first) = rest.first_mut().filter(|_| count > 0) {
        let left = first.count - count;
        let (now, later) = match direction {
            Direction::Forwards => (first.part(0, count)?, first.part(count, left)?),
            Direction::Backwards => (first.part(left, count)?, first.part(0, left)?),
        };
        chunk.runs.push(now);
        *first = later;
    }
    let scanned_to = chunk.runs.last().map_or(chunk.scanned_to, |last| match direction {
        Direction::Forwards => last.end_position(),
        Direction::Backwards => last.first_position,
    });
    let rest = Chunk { runs: rest, scanned_to: chunk.scanned_to, beginning: chunk.beginning };
    Ok((Chunk { scanned_to, ..chunk }, Some(rest)))
}

fn damaged(run: &Run, flaw: batch::Flaw) -> Failure {
    let what = format!("{}, in the batch that holds offset {}", flaw.what, run.first_offset);
    let file = format!("{} partition {}", run.topic.name, run.partition).into();
    LogError::Corrupt { file, from: flaw.at as u64, end: run.batch.len() as u64, what }.into()
}

fn records(chunk: &Chunk) -> u64 {
    chunk.runs.iter().map(|run| u64::from(run.count)).sum()
}

/// The messages of `Read`; the first error is found before any message.
pub async fn read(app: &App, request: pb::ReadRequest) -> Result<impl Stream<Item = Result<Outgoing, Failure>> + use<>, Failure> {
    let stage = app.stage()?;
    let source = request.source.map(Source::from).ok_or_else(|| Failure::invalid("source", "is required"))?;
    let filter = source::filter(request.filter)?;
    let direction = Direction::of(request.direction)?;
    let from_time = request.from_time.map(|time| source::from_time(time, direction)).transpose()?;
    if from_time.is_some() && source.begins_at().is_some() {
        return Err(Failure::invalid("from_time", "the source says where to begin, too; give one of both"));
    }
    let at_least = stage.tokens.read("at_least", &request.at_least)?;
    let wait = convert::duration(request.wait, DEFAULT_WAIT, MAX_WAIT, "wait")?;
    let place = app.stream_place()?;
    stage.reached(at_least, wait).await?;
    let selection = match from_time {
        Some(time) => at_time(app, stage, source.selection()?, time).await?,
        None => begin(stage, source, direction).await?,
    };
    // The end comes last: a read backwards begins at places that lie below it.
    let until = stage.log.head().position;
    let reader = source::reader(&*stage.log, selection, filter, direction)?;
    let reading = Reading {
        cursor: Cursor::new(app, reader, direction, request.max_batch_events, request.max_batch_bytes),
        until,
        left: if request.limit == 0 { u64::MAX } else { request.limit },
        head_token: stage.tokens.make(until),
        told_at: app.clock.monotonic(),
        _place: place,
    };
    Ok(stream::try_unfold(Some(reading), |reading| async move {
        let Some(mut reading) = reading else { return Ok(None) };
        let message = reading.next().await?;
        let over = matches!(message, Outgoing::Read { last: Some(_), .. });
        Ok(Some((message, (!over).then_some(reading))))
    }))
}

struct Reading {
    cursor: Cursor,
    until: Position,
    left: u64,
    head_token: bytes::Bytes,
    /// When the client was last told something.
    told_at: Duration,
    _place: StreamPlace,
}

impl Reading {
    async fn next(&mut self) -> Result<Outgoing, Failure> {
        loop {
            let chunk = self.cursor.read(self.until, self.left).await?;
            self.left = self.left.saturating_sub(records(&chunk));
            let direction = self.cursor.direction;
            let is_through = match direction {
                Direction::Forwards => chunk.scanned_to >= self.until,
                Direction::Backwards => chunk.scanned_to == Position::default(),
            };
            let over = self.left == 0 || (is_through && self.cursor.rest.is_none());
            let now = self.cursor.app.clock.monotonic();
            if over || !chunk.runs.is_empty() || now >= self.told_at + PROGRESS_EVERY {
                self.told_at = now;
                let last = over.then(|| End { token: self.head_token.clone(), position: self.until });
                return Ok(Outgoing::Read { chunk, direction, last });
            }
            if self.cursor.app.tasks.is_draining() {
                return Err(Failure::draining().with(Detail::Position(chunk.scanned_to)));
            }
            // Nothing matched: the next stretch, after others had their turn.
            tokio::task::yield_now().await;
        }
    }
}

/// Where a read begins that is given a place, or none.
async fn begin(stage: &Stage, source: Source, direction: Direction) -> Result<Selection, Failure> {
    let from = source.begins_at();
    let selection = source.selection()?;
    if direction == Direction::Forwards {
        return begin_forwards(stage, selection, from.is_some());
    }
    let end = place_of(&from_now(stage, selection.clone()).await?);
    // Behind the record that comes first. What lies behind the end is for the log to refuse.
    Ok(with_place(selection, from.map_or(end, |from| if from < end { from + 1 } else { from })))
}

/// A selection that begins at its place, if one was given, and nothing is missing from there on; else where there is something.
fn begin_forwards(stage: &Stage, selection: Selection, has_place: bool) -> Result<Selection, Failure> {
    match selection {
        Selection::Partition(topic, partition, _) if !has_place => {
            let firsts = stage.log.firsts(&topic)?;
            let first = firsts.get(partition.get() as usize).copied().unwrap_or(Offset::new(0));
            Ok(Selection::Partition(topic, partition, first))
        }
        _ if !has_place => Ok(selection),
        _ => {
            stage.log.whole_from(&selection)?;
            Ok(selection)
        }
    }
}

fn place_of(selection: &Selection) -> u64 {
    match selection {
        Selection::Partition(_, _, offset) => offset.get(),
        Selection::Stream(_, _, version) => version.get(),
        Selection::Topics(_, position) | Selection::All(position) => position.get(),
    }
}

fn with_place(selection: Selection, place: u64) -> Selection {
    match selection {
        Selection::Partition(topic, partition, _) => Selection::Partition(topic, partition, Offset::new(place)),
        Selection::Stream(topic, stream, _) => Selection::Stream(topic, stream, StreamVersion::new(place)),
        Selection::Topics(topics, _) => Selection::Topics(topics, Position::new(place)),
        Selection::All(_) => Selection::All(Position::new(place)),
    }
}

/// The one topic that a selection names by position; none if it is of everything, or goes by offsets or versions.
fn topic_of(stage: &Stage, selection: &Selection) -> Result<Option<Arc<Topic>>, Failure> {
    match selection {
        Selection::Topics(topics, _) => Ok(topics.first().map(|topic| stage.log.topic(topic)).transpose()?),
        Selection::All(_) | Selection::Partition(..) | Selection::Stream(..) => Ok(None),
    }
}

/// The same selection from a time on; where that is may have to be read from files.
async fn at_time(app: &App, stage: &Stage, selection: Selection, time: Timestamp) -> Result<Selection, Failure> {
    let log = Arc::clone(&stage.log);
    let place = app.file_reads.acquire().await.map_err(|_| Failure::draining())?;
    let found = tokio::task::spawn_blocking(move || log.at_time(selection, time)).await;
    drop(place);
    Ok(found.map_err(|_| Failure::new(Kind::Internal, "READ_FAILED", "the read was interrupted"))??)
}

/// The messages of `Subscribe`; the first error is found before any message. Also says from which position it begins.
pub async fn subscribe(
    app: &App,
    request: pb::SubscribeRequest,
) -> Result<(impl Stream<Item = Result<Outgoing, Failure>> + use<>, Position), Failure> {
    use pb::subscribe_request::Start;
    let stage = app.stage()?;
    let source = request.source.map(Source::from).ok_or_else(|| Failure::invalid("source", "is required"))?;
    let filter = source::filter(request.filter)?;
    let has_place = source.begins_at().is_some();
    let mut selection = source.selection()?;
    let place = app.stream_place()?;
    match request.start {
        None => selection = begin_forwards(stage, selection, has_place)?,
        Some(Start::After(token)) => {
            let (position, of) = stage.tokens.read_of("after", &token)?.ok_or_else(|| Failure::invalid("after", "an empty token"))?;
            if let (Some(of), Some(topic)) = (of, topic_of(stage, &selection)?)
                && topic.id != of
            {
                let message = format!("this token is of another topic, or of topic {} before it was deleted and created again", topic.name);
                return Err(Failure::new(Kind::Precondition, "TOPIC_RECREATED", message));
            }
            selection = match selection {
                Selection::Topics(topics, _) => Selection::Topics(topics, position),
                Selection::All(_) => Selection::All(position),
                Selection::Partition(..) | Selection::Stream(..) => {
                    let rule = "a token resumes a topic or everything; resume a partition by offset and a stream by version";
                    return Err(Failure::invalid("after", rule));
                }
            };
            stage.log.whole_from(&selection)?;
        }
        Some(Start::Now(_)) => selection = from_now(stage, selection).await?,
        Some(Start::FromTime(time)) => {
            let time = source::from_time(time, Direction::Forwards)?;
            selection = at_time(app, stage, selection, time).await?;
        }
    }
    let from = match &selection {
        Selection::Topics(_, from) | Selection::All(from) => *from,
        Selection::Partition(..) | Selection::Stream(..) => Position::default(),
    };
    let durable = stage.log.durable();
    let topic = topic_of(stage, &selection)?.map(|topic| topic.id);
    let reader = source::reader(&*stage.log, selection, filter, Direction::Forwards)?;
    let now = app.clock.monotonic();
    let subscription = Subscription {
        cursor: Cursor::new(app, reader, Direction::Forwards, request.max_batch_events, request.max_batch_bytes),
        durable,
        topic,
        scanned: from,
        told: from,
        told_at: now,
        live: false,
        _place: place,
    };
    let messages = stream::try_unfold(subscription, |mut subscription| async move {
        let message = subscription.next().await?;
        Ok(Some((message, subscription)))
    });
    Ok((messages, from))
}

/// The same selection from its end on.
async fn from_now(stage: &Stage, selection: Selection) -> Result<Selection, Failure> {
    let head = stage.log.head().position;
    Ok(match selection {
        Selection::Topics(topics, _) => Selection::Topics(topics, head),
        Selection::All(_) => Selection::All(head),
        Selection::Partition(topic, partition, _) => {
            let ends = stage.log.ends(&topic)?;
            let end = ends.get(partition.get() as usize).copied().unwrap_or(Offset::new(0));
            Selection::Partition(topic, partition, end)
        }
        Selection::Stream(topic, stream, _) => {
            let StreamState { head, beginning } = stream_state(stage, &topic, &stream).await?;
            let next = head.version().map_or(beginning.first, |version| version.plus(1));
            Selection::Stream(topic, stream, next)
        }
    })
}

/// The newest snapshot of a stream as of a version or before; it may lie on disk.
pub async fn snapshot(
    app: &App,
    stage: &Stage,
    topic: TopicName,
    stream: StreamId,
    at_most: StreamVersion,
) -> Result<Option<StoredSnapshot>, Failure> {
    let log = Arc::clone(&stage.log);
    let place = app.file_reads.acquire().await.map_err(|_| Failure::draining())?;
    let found = tokio::task::spawn_blocking(move || log.snapshot(&topic, &stream, at_most)).await;
    drop(place);
    Ok(found.map_err(|_| Failure::new(Kind::Internal, "READ_FAILED", "the read was interrupted"))??)
}

/// Where a stream stands and begins; the index may lie on disk.
pub async fn stream_state(stage: &Stage, topic: &TopicName, stream: &StreamId) -> Result<StreamState, Failure> {
    let (log, topic, stream) = (Arc::clone(&stage.log), topic.clone(), stream.clone());
    let state = tokio::task::spawn_blocking(move || log.stream_state(&topic, &stream)).await;
    Ok(state.map_err(|_| Failure::new(Kind::Internal, "READ_FAILED", "the read was interrupted"))??)
}

struct Subscription {
    cursor: Cursor,
    durable: watch::Receiver<Position>,
    /// The one topic that it follows, as it was when it began.
    topic: Option<TopicId>,
    /// Everything selected below this has been taken from the log.
    scanned: Position,
    /// Up to where the client was last told.
    told: Position,
    told_at: Duration,
    live: bool,
    _place: StreamPlace,
}

impl Subscription {
    async fn next(&mut self) -> Result<Outgoing, Failure> {
        loop {
            if self.cursor.app.tasks.is_draining() {
                return Err(Failure::draining().with(Detail::Position(self.scanned)));
            }
            let head = *self.durable.borrow_and_update();
            if self.scanned < head || self.cursor.rest.is_some() {
                if self.live && !self.cursor.in_memory() {
                    self.live = false;
                    let behind = pb::FellBehind { position: self.scanned.get(), head: head.get() };
                    return Ok(self.note(Message::FellBehind(behind)));
                }
                let chunk = self.cursor.read(head, u64::MAX).await?;
                self.scanned = chunk.scanned_to;
                if !chunk.runs.is_empty() {
                    self.told();
                    return Ok(Outgoing::Events { token: self.token(), chunk });
                }
                if !self.progress_is_due() {
                    // Nothing was selected: the next stretch, after others had their turn.
                    tokio::task::yield_now().await;
                    continue;
                }
            } else if !self.live {
                self.live = true;
                return Ok(self.note(Message::CaughtUp(pb::CaughtUp { position: self.scanned.get(), token: self.token() })));
            } else if !self.silence().await? {
                continue;
            }
            return Ok(self.note(Message::Progress(pb::Progress { position: self.scanned.get(), token: self.token() })));
        }
    }

    /// Waits for the log to move; tells whether instead it is time to say something.
    async fn silence(&mut self) -> Result<bool, Failure> {
        let patience = if self.scanned > self.told { PROGRESS_EVERY } else { HEARTBEAT };
        let left = (self.told_at + patience).saturating_sub(self.cursor.app.clock.monotonic());
        tokio::select! {
            biased;
            () = self.cursor.app.tasks.drained() => Ok(false),
            moved = self.durable.changed() => match moved {
                Ok(()) => Ok(false),
                Err(_) => Err(Failure::draining().with(Detail::Position(self.scanned))),
            },
            () = tokio::time::sleep(left) => Ok(true),
        }
    }

    fn progress_is_due(&self) -> bool {
        self.cursor.app.clock.monotonic() >= self.told_at + PROGRESS_EVERY
    }

    fn told(&mut self) {
        self.told = self.scanned;
        self.told_at = self.cursor.app.clock.monotonic();
    }

    fn token(&self) -> bytes::Bytes {
        let token = |tokens: &Tokens| match self.topic {
            Some(topic) => tokens.make_of(self.scanned, topic),
            None => tokens.make(self.scanned),
        };
        self.cursor.app.tokens().map(token).unwrap_or_default()
    }

    fn note(&mut self, message: Message) -> Outgoing {
        self.told();
        Outgoing::Note(message, self.scanned)
    }
}
