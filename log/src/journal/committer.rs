//! The committer: takes what is queued, admits it in order, frames it, writes, syncs, and only then shows and answers it.
//!
//! [`Committer`] is a state machine without threads: simulations step it, [`run`] drives it with two threads. Invariants: one
//! write and one sync are outstanding, never two; nothing is shown or answered before the sync of what it rests on; any
//! failure ends the log, for nobody knows what reached the disk.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, atomic::Ordering, mpsc},
};

use tokio::sync::oneshot;

use super::{
    frame::{self, FrameBody, FrameHeader, FrameKind, padded},
    queue::{Awake, Closed},
};
use crate::{
    config::BLOCK,
    engine::Engine,
    error::LogError,
    ids::{Position, Timestamp},
    partition::{
        admission::{Admission, OpenGroup, Verdict},
        group::Group,
        request::Request,
        streams::StreamSpan,
    },
    record::Appended,
};

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
    replies: Vec<Reply>,
    taken: VecDeque<Request>,
    /// Streams of the group that syncs, to be retired when it is durable.
    in_flight: Option<(u64, Vec<StreamSpan>)>,
    /// Whether the last group is provably durable: a seal or open frame follows it.
    sealed: bool,
    /// What went wrong while requests were admitted; the next close says it.
    broken: Option<LogError>,
    buffer: Vec<u8>,
}

/// A group on its way to the disk.
#[derive(Debug)]
pub(crate) struct Closing {
    group: Option<(Group, Vec<u8>)>,
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
            replies: Vec::new(),
            taken: VecDeque::new(),
            in_flight: None,
            sealed: true,
            broken: None,
            buffer: Vec::new(),
        }
    }

    /// Writes and syncs the frame that begins this start.
    pub(crate) fn open(&mut self) -> Result<(), LogError> {
        self.write_empty(FrameKind::Open)
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
        self.engine.journal.make_room(BLOCK)?;
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
            spans: Vec::new(),
            entries: bytes::Bytes::new(),
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

    fn judge(&mut self, request: Request) {
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
            match self.engine.journal.make_room(needed) {
                Ok(room) => self.room = room.min(padded(self.engine.config.group_limit())).max(needed),
                Err(error @ LogError::DiskFull { .. }) => return drop(request.reply.send(Err(error))),
                Err(error) => {
                    self.broken.get_or_insert(error);
                    return;
                }
            }
        }
        let engine = &self.engine;
        let verdict = self.admission.admit(&request, &mut self.group, &engine.streams, &engine.topics, &mut engine.window.lock());
        let answer = match verdict {
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
        self.replies.push((request.reply, answer));
    }

    fn put_back(&mut self) {
        while let Some(request) = self.taken.pop_back() {
            self.engine.queue.put_back(request);
        }
    }

    fn next_group(&self) -> OpenGroup {
        OpenGroup::new(self.end.number + 1, self.admission.next_position(), self.now())
    }

    /// Server time: never steps back.
    fn now(&self) -> Timestamp {
        self.engine.clock.now().max(self.end.time)
    }

    fn header(&self, kind: FrameKind, first: Position, count: u32) -> FrameHeader {
        FrameHeader {
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
            return Ok((!replies.is_empty()).then_some(Closing { group: None, replies }));
        }
        self.end.time = self.group.time;
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
        self.in_flight = Some((group.number, group.spans.clone()));
        Ok(Some(Closing { group: Some((group, bytes)), replies: mem::take(&mut self.replies) }))
    }

    /// Leaves everything unanswered: after a failure nobody knows what became of it.
    pub(crate) fn abandon(&mut self) {
        self.replies.clear();
        self.taken.clear();
        self.engine.queue.close(Closed::Failed);
    }

    /// The group under way is durable.
    pub(crate) fn finish(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
        if let Some((number, spans)) = self.in_flight.take() {
            self.admission.retire(number, &spans);
        }
    }

    /// Takes, writes, syncs and answers everything that is in line, on this thread.
    pub(crate) fn commit_all(&mut self) -> Result<(), LogError> {
        loop {
            self.fill();
            let Some(closing) = self.close()? else { return Ok(()) };
            // As under backlog: what the group had no room for is admitted while it is on its way.
            self.fill();
            let buffer = self.engine.commit(closing)?;
            self.finish(buffer);
        }
    }
}

impl Engine {
    /// Writes and syncs a group, shows it, and answers. Returns the buffer for the next one.
    pub(crate) fn commit(&self, closing: Closing) -> Result<Vec<u8>, LogError> {
        let mut buffer = Vec::new();
        if let Some((group, bytes)) = closing.group {
            self.journal.write(group.place, &bytes)?;
            self.sync(group.place)?;
            self.counters.groups.fetch_add(1, Ordering::Relaxed);
            self.streams.apply(&group.spans);
            self.tail.push(Arc::new(group));
            self.wake_tidy();
            buffer = bytes;
        }
        for (reply, answer) in closing.replies {
            // A caller that no longer waits is no failure.
            let _ = reply.send(answer);
        }
        Ok(buffer)
    }

    fn sync(&self, place: super::file::FramePlace) -> Result<(), LogError> {
        let before = self.clock.monotonic();
        self.journal.sync(place)?;
        self.counters.synced(self.clock.monotonic().saturating_sub(before));
        Ok(())
    }
}

/// Drives a committer until the queue is closed, with a second thread for syncs under backlog.
pub(crate) fn run(mut committer: Committer) {
    let engine = Arc::clone(&committer.engine);
    std::thread::scope(|scope| {
        let (to_syncer, closings) = mpsc::sync_channel::<Closing>(1);
        let (done, finished) = mpsc::sync_channel::<Vec<u8>>(1);
        let syncing = Arc::clone(&engine);
        let spawned = std::thread::Builder::new().name("log-sync".into()).spawn_scoped(scope, move || {
            for closing in closings {
                match syncing.commit(closing) {
                    Ok(buffer) => match done.send(buffer) {
                        Ok(()) => syncing.queue.nudge(),
                        Err(_) => return,
                    },
                    Err(error) => return syncing.fail(error),
                }
            }
        });
        let ended = match spawned {
            Ok(_) => drive(&mut committer, &to_syncer, &finished),
            Err(source) => Err(LogError::io("start a thread for", &engine.folder, source)),
        };
        if let Err(error) = ended {
            engine.fail(error);
        }
    });
}

fn drive(committer: &mut Committer, syncer: &mpsc::SyncSender<Closing>, finished: &mpsc::Receiver<Vec<u8>>) -> Result<(), LogError> {
    let engine = Arc::clone(&committer.engine);
    let mut syncing = false;
    loop {
        let took = committer.fill();
        if syncing && let Ok(buffer) = finished.try_recv() {
            committer.finish(buffer);
            syncing = false;
        }
        if syncing {
            if took || engine.queue.len() == 0 {
                match engine.queue.wait() {
                    Awake::Work | Awake::Quiet => {}
                    Awake::Closed(Closed::Stopping) => engine.queue.wait_for_nudge(),
                    Awake::Closed(Closed::Failed) => return Ok(()),
                }
            } else {
                // The group is full: only the end of the sync helps.
                engine.queue.wait_for_nudge();
                if engine.failure.borrow().is_some() {
                    return Ok(());
                }
            }
            continue;
        }
        if let Some(closing) = committer.close()? {
            if engine.queue.len() == 0 {
                let buffer = engine.commit(closing)?;
                committer.finish(buffer);
            } else if syncer.send(closing).is_ok() {
                syncing = true;
            } else {
                return Ok(());
            }
            continue;
        }
        let quiet = (!committer.sealed).then(|| engine.config.seal_after());
        match engine.queue.wait_idle(quiet) {
            Awake::Work => {}
            Awake::Quiet => committer.seal()?,
            Awake::Closed(Closed::Stopping) => return committer.seal(),
            Awake::Closed(Closed::Failed) => return Ok(()),
        }
    }
}
