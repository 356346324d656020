//! The committer: takes what is queued, admits it in order, frames it, writes, syncs, and only then shows and answers it.
//!
//! A state machine without threads: simulations step it, [`turns`](super::turns) drives it. Invariants: one write and one sync are
//! outstanding, never two; nothing is shown before it is synced, nor answered, unless it is a unit that asked for no more than its
//! write; any failure ends the log, for nobody knows what reached the disk.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    frame::{self, FrameBody, FrameHeader, FrameKind, padded},
    queue::Closed,
};
use crate::{
    config::BLOCK,
    durability::Durability,
    engine::Engine,
    error::LogError,
    ids::{Position, Timestamp},
    partition::{
        admission::{Admission, Known, OpenGroup, Verdict},
        group::Group,
        request::Request,
        streams::StreamKey,
    },
    record::{Appended, Purpose},
};

/// Groups of one unit in a row after which appends count as lone.
pub(super) const LONE_GROUPS: u32 = 4;
/// A sync that takes longer is not worth holding up a caller to save it a hand-over.
const SHORT_SYNC: Duration = Duration::from_micros(300);

type Reply = (oneshot::Sender<Result<Appended, LogError>>, Result<Appended, LogError>);

/// Where the journal stands, as recovery found or a start left it.
#[derive(Clone, Debug)]
pub(crate) struct JournalEnd {
    /// Number of the last frame.
    pub(crate) number: u64,
    /// Checksum of its header.
    pub(crate) crc: u32,
    /// Position after it.
    pub(crate) position: Position,
    /// Server time of the newest frame.
    pub(crate) time: Timestamp,
    /// Salt of this start's frames.
    pub(crate) salt: u128,
    /// Number of this start.
    pub(crate) start: u32,
}

/// Decides, frames and writes. One a folder.
#[derive(Debug)]
pub(crate) struct Committer {
    engine: Arc<Engine>,
    admission: Admission,
    end: JournalEnd,
    /// Takes units while the group before it syncs.
    group: OpenGroup,
    /// How long the group's frame may become.
    room: u64,
    /// Bytes of a batch of the group before.
    batch_bytes: usize,
    replies: Vec<Reply>,
    /// Those that leave after the write.
    early: Vec<Reply>,
    taken: VecDeque<Request>,
    /// Streams of the group that syncs, to be retired when it is durable.
    in_flight: Option<(u64, Vec<StreamKey>)>,
    /// Whether this start's first frame is written; no group comes before it.
    is_open: bool,
    /// Whether the last group is provably durable: a seal or open frame follows it.
    sealed: bool,
    /// Groups of one unit in a row.
    lone: u32,
    /// When the newest group became durable, of the monotonic clock.
    finished_at: Duration,
    /// How long syncs took of late; none before the first.
    synced_in: Option<Duration>,
    /// Whether the next append is likely to be alone, and its sync short.
    expects_lone: Arc<AtomicBool>,
    /// What went wrong while requests were admitted; the next close says it.
    broken: Option<LogError>,
    buffer: Vec<u8>,
}

/// A group on its way to the disk.
#[derive(Debug)]
pub(crate) struct Closing {
    group: Option<(Group, Vec<u8>)>,
    /// Answered when the group is written.
    early: Vec<Reply>,
    /// Answered when it is synced.
    replies: Vec<Reply>,
}

impl Committer {
    /// A committer that goes on behind `end`.
    pub(crate) fn new(engine: Arc<Engine>, admission: Admission, end: JournalEnd) -> Self {
        let group = OpenGroup::new(end.number + 1, end.position, end.time);
        Self {
            engine,
            admission,
            end,
            group,
            room: 0,
            batch_bytes: 0,
            replies: Vec::new(),
            early: Vec::new(),
            taken: VecDeque::new(),
            in_flight: None,
            is_open: false,
            sealed: true,
            lone: 0,
            finished_at: Duration::ZERO,
            synced_in: None,
            expects_lone: Arc::default(),
            broken: None,
            buffer: Vec::new(),
        }
    }

    /// Writes and syncs the frame that begins this start, if it is not there yet: on a full disk it waits for the first append that finds
    /// space.
    pub(crate) fn open(&mut self) -> Result<(), LogError> {
        if !self.is_open {
            self.write_empty(FrameKind::Open)?;
            self.is_open = true;
        }
        Ok(())
    }

    /// Makes the last group provably durable, if it is not yet. Call it with nothing under way.
    pub(crate) fn seal(&mut self) -> Result<(), LogError> {
        if self.sealed {
            return Ok(());
        }
        match self.write_empty(FrameKind::Seal) {
            // Without space for it the last group stays as provable as a crash would leave it.
            Ok(()) | Err(LogError::DiskFull { .. }) => {}
            Err(error) => return Err(error),
        }
        self.sealed = true;
        Ok(())
    }

    fn write_empty(&mut self, kind: FrameKind) -> Result<(), LogError> {
        self.engine.journal.make_room(BLOCK, Purpose::Upkeep)?;
        self.end.time = self.now();
        let mut header = self.header(kind, self.end.position, 0);
        let mut bytes = mem::take(&mut self.buffer);
        frame::encode(&mut header, &FrameBody::default(), &mut bytes);
        let place = self.engine.journal.place(header.number, bytes.len() as u64)?;
        self.engine.journal.write(place, &bytes)?;
        self.engine.sync(place)?;
        self.buffer = bytes;
        self.advance(&header);
        self.engine.tail.push(Arc::new(Group {
            number: header.number,
            frame_crc: header.crc,
            place,
            first: self.end.position,
            end: self.end.position,
            time: header.time,
            slices: Vec::new(),
            order: Vec::new(),
            spans: Arc::default(),
            marks: Vec::new(),
            entries: bytes::Bytes::new(),
            switches: Vec::new(),
            loaded: true,
        }));
        self.group = self.next_group();
        Ok(())
    }

    /// Admits what is in line, as far as the group has room. Returns whether it took anything.
    pub(crate) fn fill(&mut self) -> bool {
        let mut any = false;
        loop {
            let limit = if self.group.is_empty() { self.engine.config.group_limit() } else { self.room };
            let left = limit.saturating_sub(self.group.bytes() + BLOCK);
            self.engine.queue.take(left, &mut self.taken);
            if self.taken.is_empty() {
                return any;
            }
            any = true;
            while let Some(request) = self.taken.pop_front() {
                self.judge(request);
            }
        }
    }

    fn judge(&mut self, mut request: Request) {
        match self.open() {
            Ok(()) => {}
            Err(error @ LogError::DiskFull { .. }) => return drop(request.reply.send(Err(error))),
            Err(error) => {
                self.broken.get_or_insert(error);
                return;
            }
        }
        if self.group.is_empty() {
            self.group = self.next_group();
        }
        let needed = padded(self.group.bytes() + request.bytes + BLOCK);
        if self.group.is_empty() || needed > self.room {
            if !self.group.is_empty() {
                // The file has less room than the line was taken for: the rest waits for the next group.
                self.taken.push_front(request);
                self.put_back();
                return;
            }
            match self.engine.journal.make_room(needed, request.purpose) {
                Ok(room) => self.room = room.min(padded(self.engine.config.group_limit())).max(needed),
                Err(error @ LogError::DiskFull { .. }) => return drop(request.reply.send(Err(error))),
                Err(error) => {
                    self.broken.get_or_insert(error);
                    return;
                }
            }
        }
        let engine = &self.engine;
        let known = Known { streams: &engine.streams, topics: &engine.topics, recent: &engine.postings.recent };
        let verdict = loop {
            let verdict = self.admission.admit(&request, &mut self.group, &known, &mut engine.window.lock());
            if !matches!(verdict, Verdict::TooOld) {
                break verdict;
            }
            // Only what came since is looked up, in the newest files.
            if let Err(error) = engine.look_up(&mut request) {
                return drop(request.reply.send(Err(error)));
            }
        };
        let answer = match verdict {
            Verdict::TooOld => return,
            Verdict::Admitted(answer) => {
                engine.counters.appends.fetch_add(1, Ordering::Relaxed);
                engine.counters.records.fetch_add(answer.end.get() - answer.first.get(), Ordering::Relaxed);
                Ok(answer)
            }
            Verdict::Settled(answer) => {
                engine.counters.refused.fetch_add(1, Ordering::Relaxed);
                answer
            }
        };
        // Only what was admitted says so: a verdict rests on what came before, and waits until that is synced.
        let is_early = answer.as_ref().is_ok_and(|appended| appended.durability == Durability::Written);
        let replies = if is_early { &mut self.early } else { &mut self.replies };
        replies.push((request.reply, answer));
    }

    fn put_back(&mut self) {
        while let Some(request) = self.taken.pop_back() {
            self.engine.queue.put_back(request);
        }
    }

    fn next_group(&self) -> OpenGroup {
        OpenGroup::new(self.end.number + 1, self.admission.next_position(), self.now()).with_batches_of(self.batch_bytes)
    }

    /// Server time: never steps back.
    fn now(&self) -> Timestamp {
        self.engine.time.now().max(self.end.time)
    }

    fn header(&self, kind: FrameKind, first: Position, count: u32) -> FrameHeader {
        FrameHeader {
            // Encoding knows which one will do.
            format: 0,
            kind,
            number: self.end.number + 1,
            // The frame before is synced before this one is written.
            durable: self.end.number,
            chain: self.end.crc,
            start: self.end.start,
            salt: self.end.salt,
            first,
            count,
            time: self.end.time,
            body_len: 0,
            body_crc: 0,
            crc: 0,
        }
    }

    fn advance(&mut self, header: &FrameHeader) {
        self.end.number = header.number;
        self.end.crc = header.crc;
        self.end.position = header.end();
    }

    /// Finishes the group, with nothing else under way; none if there is nothing to write or answer.
    ///
    /// # Errors
    /// When the frame gets no place; the log has failed then.
    pub(crate) fn close(&mut self) -> Result<Option<Closing>, LogError> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        if self.group.is_empty() {
            let replies = mem::take(&mut self.replies);
            return Ok((!replies.is_empty()).then_some(Closing { group: None, early: Vec::new(), replies }));
        }
        self.end.time = self.group.time;
        self.batch_bytes = self.group.mean_batch();
        let (first, end) = (self.end.position, self.admission.next_position());
        let count = u32::try_from(end.get() - first.get()).unwrap_or(u32::MAX);
        let mut header = self.header(FrameKind::Group, first, count);
        // Replaced by the real next one as soon as there is something to put into it.
        let open = mem::replace(&mut self.group, OpenGroup::new(header.number + 1, end, self.end.time));
        let (mut group, body) = open.close(header.start.cast_signed(), end);
        let mut bytes = mem::take(&mut self.buffer);
        frame::encode(&mut header, &body, &mut bytes);
        group.place = self.engine.journal.place(header.number, bytes.len() as u64)?;
        group.frame_crc = header.crc;
        self.advance(&header);
        self.sealed = false;
        self.lone = if self.replies.len() + self.early.len() == 1 { self.lone.saturating_add(1) } else { 0 };
        let streams = group.spans.iter().map(|span| span.key).chain(group.marks.iter().map(|mark| mark.key));
        self.in_flight = Some((group.number, streams.collect()));
        let (early, replies) = (mem::take(&mut self.early), mem::take(&mut self.replies));
        Ok(Some(Closing { group: Some((group, bytes)), early, replies }))
    }

    /// Leaves everything unanswered: after a failure nobody knows what became of it.
    pub(crate) fn abandon(&mut self) {
        self.replies.clear();
        self.early.clear();
        self.taken.clear();
        self.engine.queue.close(Closed::Failed);
    }

    /// The group under way is durable.
    pub(crate) fn finish(&mut self, done: Done) {
        self.buffer = done.buffer;
        if let Some(took) = done.synced_in {
            self.finished_at = self.engine.clock.monotonic();
            let took = self.synced_in.map_or(took, |before| (before * 7 + took) / 8);
            self.synced_in = Some(took);
            self.expects_lone.store(self.lone >= LONE_GROUPS && took <= SHORT_SYNC, Ordering::Relaxed);
        }
        if let Some((number, streams)) = self.in_flight.take() {
            self.admission.retire(number, streams);
        }
    }

    /// Takes, writes, syncs and answers everything that is in line, on this thread.
    pub(crate) fn commit_all(&mut self) -> Result<(), LogError> {
        loop {
            self.fill();
            let Some(closing) = self.close()? else { return Ok(()) };
            // As under backlog: what the group had no room for is admitted while it is on its way.
            self.fill();
            let (done, news) = self.engine.commit(closing)?;
            self.engine.tell(news);
            self.finish(done);
        }
    }

    /// Takes what is in line, as far as a group has room, and commits it on this thread. Call it with nothing under way.
    pub(super) fn commit_line(&mut self) -> Result<Option<News>, LogError> {
        self.fill();
        let Some(closing) = self.close()? else { return Ok(None) };
        let (done, news) = self.engine.commit(closing)?;
        self.finish(done);
        Ok(Some(news))
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Whether the next append is likely to be alone and its sync short, as of every group's end.
    pub(super) fn expectation(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.expects_lone)
    }

    /// Whether the newest group held several units, or there was none.
    pub(super) const fn is_shared(&self) -> bool {
        self.lone == 0
    }

    /// Whether the last group is provably durable.
    pub(super) const fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// How long to wait before the last group is sealed; none if it is.
    pub(super) fn seal_in(&self) -> Option<Duration> {
        let quiet = self.engine.clock.monotonic().saturating_sub(self.finished_at);
        (!self.sealed).then(|| self.engine.config.seal_after().saturating_sub(quiet))
    }
}

/// What a committed group leaves to the next one.
#[derive(Debug)]
pub(crate) struct Done {
    /// For the next group.
    buffer: Vec<u8>,
    /// How long the sync took, if there was something to sync.
    synced_in: Option<Duration>,
}

/// What is left to tell of a committed group.
#[derive(Debug)]
#[must_use = "readers and callers wait for it"]
pub(crate) struct News(Vec<Reply>);

impl Engine {
    /// Writes a group, answers who asked for no more, syncs it and puts it where readers look.
    pub(crate) fn commit(&self, closing: Closing) -> Result<(Done, News), LogError> {
        let mut done = Done { buffer: Vec::new(), synced_in: None };
        if let Some((group, bytes)) = closing.group {
            self.counters.group_units.add((closing.early.len() + closing.replies.len()) as u64);
            self.journal.write(group.place, &bytes)?;
            if !closing.early.is_empty() {
                self.unsynced.begin(bytes.len() as u64, self.clock.monotonic());
                answer(closing.early);
            }
            done.synced_in = Some(self.sync(group.place)?);
            self.unsynced.end();
            self.counters.groups.fetch_add(1, Ordering::Relaxed);
            self.counters.group_bytes.add(bytes.len() as u64);
            self.streams.apply(&group.spans, &group.marks);
            self.redact(&group);
            if !group.switches.is_empty() {
                // First: who finds what was put in place finds out by which frame.
                self.switched.store(group.number, Ordering::Release);
            }
            group.switches.iter().for_each(|switch| self.switch(switch));
            self.tail.push(Arc::new(group));
            done.buffer = bytes;
        }
        Ok((done, News(closing.replies)))
    }

    /// Wakes readers and answers callers.
    pub(crate) fn tell(&self, news: News) {
        self.tail.tell();
        self.wake_tidy();
        answer(news.0);
    }

    fn sync(&self, place: super::file::FramePlace) -> Result<Duration, LogError> {
        let before = self.clock.monotonic();
        self.journal.sync(place)?;
        let took = self.clock.monotonic().saturating_sub(before);
        self.counters.synced(took);
        Ok(took)
    }
}

fn answer(replies: Vec<Reply>) {
    for (reply, answer) in replies {
        // A caller that no longer waits is no failure.
        let _ = reply.send(answer);
    }
}
