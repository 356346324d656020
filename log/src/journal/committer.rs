//! The committer: takes what is queued, admits it in order, frames it, writes, syncs, and only then shows and answers it.
//!
//! [`Committer`] is a state machine without threads: simulations step it, [`run`] drives it with two threads, and while those
//! sleep the caller of a lone append does ([`Turns`]). Invariants: one write and one sync are outstanding, never two; nothing is
//! shown or answered before the sync of what it rests on; any failure ends the log, for nobody knows what reached the disk.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::{
    frame::{self, FrameBody, FrameHeader, FrameKind, padded},
    queue::{Awake, Closed},
};
use crate::{
    config::BLOCK,
    engine::{Engine, FailOnPanic},
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

/// Groups of one unit in a row after which appends count as lone.
const LONE_GROUPS: u32 = 4;
/// A sync that takes longer is not worth holding up a caller to save it a hand-over.
const SHORT_SYNC: Duration = Duration::from_micros(300);
/// Nor is what takes longer to write.
const SHORT_APPEND: u64 = 64 << 10;

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
            lone: 0,
            finished_at: Duration::ZERO,
            synced_in: None,
            expects_lone: Arc::default(),
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
        self.lone = if self.replies.len() == 1 { self.lone.saturating_add(1) } else { 0 };
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
    pub(crate) fn finish(&mut self, done: Done) {
        self.buffer = done.buffer;
        if let Some(took) = done.synced_in {
            self.finished_at = self.engine.clock.monotonic();
            let took = self.synced_in.map_or(took, |before| (before * 7 + took) / 8);
            self.synced_in = Some(took);
            self.expects_lone.store(self.lone >= LONE_GROUPS && took <= SHORT_SYNC, Ordering::Relaxed);
        }
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
            let (done, news) = self.engine.commit(closing)?;
            self.engine.tell(news);
            self.finish(done);
        }
    }

    /// Takes what is in line, as far as a group has room, and commits it on this thread. Call it with nothing under way.
    fn commit_line(&mut self) -> Result<Option<News>, LogError> {
        self.fill();
        let Some(closing) = self.close()? else { return Ok(None) };
        let (done, news) = self.engine.commit(closing)?;
        self.finish(done);
        Ok(Some(news))
    }

    /// How long to wait before the last group is sealed; none if it is.
    fn seal_in(&self) -> Option<Duration> {
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
    /// Writes and syncs a group and puts it where readers look.
    pub(crate) fn commit(&self, closing: Closing) -> Result<(Done, News), LogError> {
        let mut done = Done { buffer: Vec::new(), synced_in: None };
        if let Some((group, bytes)) = closing.group {
            self.journal.write(group.place, &bytes)?;
            done.synced_in = Some(self.sync(group.place)?);
            self.counters.groups.fetch_add(1, Ordering::Relaxed);
            self.streams.apply(&group.spans);
            self.tail.push(Arc::new(group));
            done.buffer = bytes;
        }
        Ok((done, News(closing.replies)))
    }

    /// Wakes readers and answers callers.
    pub(crate) fn tell(&self, news: News) {
        self.tail.tell();
        self.wake_tidy();
        for (reply, answer) in news.0 {
            // A caller that no longer waits is no failure.
            let _ = reply.send(answer);
        }
    }

    fn sync(&self, place: super::file::FramePlace) -> Result<Duration, LogError> {
        let before = self.clock.monotonic();
        self.journal.sync(place)?;
        let took = self.clock.monotonic().saturating_sub(before);
        self.counters.synced(took);
        Ok(took)
    }
}

/// A committer that is driven by [`run`], and by callers of lone appends while that sleeps: whoever has the turn commits.
#[derive(Debug)]
pub(crate) struct Turns {
    engine: Arc<Engine>,
    /// As the committer expects, for whoever has not the turn.
    expects_lone: Arc<AtomicBool>,
    /// Let go only with nothing under way.
    committer: Mutex<Committer>,
}

impl Turns {
    pub(crate) fn new(committer: Committer) -> Self {
        let (engine, expects_lone) = (Arc::clone(&committer.engine), Arc::clone(&committer.expects_lone));
        Self { engine, expects_lone, committer: Mutex::new(committer) }
    }

    /// Puts a request in line. If appends come one at a time and syncs are short, the caller commits it here and now: to hand it to
    /// another thread and the answer back would take as long again.
    ///
    /// # Errors
    /// Those of [`Queue::push`](super::queue::Queue::push).
    pub(crate) fn append(&self, request: Request) -> Result<(), LogError> {
        let Some(mut committer) = self.lone(request.bytes) else { return self.engine.queue.push(request) };
        let _panicking = FailOnPanic(&self.engine);
        self.engine.queue.push_unsaid(request)?;
        let was_sealed = committer.sealed;
        let news = match committer.commit_line() {
            Ok(news) => news,
            Err(error) => {
                committer.abandon();
                self.engine.fail(error);
                return Ok(());
            }
        };
        drop(committer);
        // Whoever is woken may append at once and be alone, too.
        if let Some(news) = news {
            self.engine.tell(news);
        }
        if was_sealed || self.engine.queue.len() > 0 {
            // Somebody must seal it in time, and take what the group had no room for.
            self.engine.queue.nudge();
        }
        Ok(())
    }

    /// The turn, if nobody has it, and a request of so many bytes is likely to be alone and needs no new file.
    fn lone(&self, bytes: u64) -> Option<MutexGuard<'_, Committer>> {
        let expected = self.expects_lone.load(Ordering::Relaxed) && bytes <= SHORT_APPEND;
        let is_alone = || self.engine.queue.len() == 0 && self.engine.journal.has_room(padded(bytes + 2 * BLOCK));
        if expected { self.committer.try_lock().filter(|_| is_alone()) } else { None }
    }
}

/// Drives a committer until the queue is closed or the log has failed, with a second thread for syncs under backlog.
pub(crate) fn run(turns: &Turns) {
    let engine = Arc::clone(&turns.engine);
    let _panicking = FailOnPanic(&engine);
    std::thread::scope(|scope| {
        let (to_syncer, closings) = mpsc::sync_channel::<Closing>(1);
        let (done, finished) = mpsc::sync_channel::<Done>(1);
        let syncing = Arc::clone(&engine);
        let spawned = std::thread::Builder::new().name("log-sync".into()).spawn_scoped(scope, move || {
            let _panicking = FailOnPanic(&syncing);
            for closing in closings {
                match syncing.commit(closing) {
                    Ok((committed, news)) => {
                        syncing.tell(news);
                        match done.send(committed) {
                            Ok(()) => syncing.queue.nudge(),
                            Err(_) => return,
                        }
                    }
                    Err(error) => return syncing.fail(error),
                }
            }
        });
        let ended = match spawned {
            Ok(_) => drive(turns, &to_syncer, &finished),
            Err(source) => Err(LogError::io("start a thread for", &engine.folder, source)),
        };
        if let Err(error) = ended {
            engine.fail(error);
        }
    });
    // After a failure: whoever waits for what was admitted since learns that nobody goes on with it.
    turns.committer.lock().abandon();
}

fn drive(turns: &Turns, syncer: &mpsc::SyncSender<Closing>, finished: &mpsc::Receiver<Done>) -> Result<(), LogError> {
    let engine = &turns.engine;
    let mut committer = turns.committer.lock();
    let mut syncing = false;
    while engine.failure.borrow().is_none() {
        let took = committer.fill();
        if syncing && let Ok(done) = finished.try_recv() {
            committer.finish(done);
            syncing = false;
        }
        if syncing {
            if took || engine.queue.len() == 0 {
                if let Awake::Closed(_) = engine.queue.wait() {
                    engine.queue.wait_for_nudge();
                }
            } else {
                // The group is full: only the end of the sync helps.
                engine.queue.wait_for_nudge();
            }
            continue;
        }
        if let Some(closing) = committer.close()? {
            if engine.queue.len() == 0 {
                let (done, news) = engine.commit(closing)?;
                engine.tell(news);
                committer.finish(done);
            } else if syncer.send(closing).is_ok() {
                syncing = true;
            } else {
                return Ok(());
            }
            continue;
        }
        let quiet = committer.seal_in();
        // Where appends come one at a time the next one does not follow at once.
        let looks = committer.lone == 0;
        let awake = MutexGuard::unlocked(&mut committer, || engine.queue.wait_idle(quiet, looks));
        match awake {
            Awake::Work => {}
            // A caller may have committed meanwhile.
            Awake::Quiet if committer.seal_in().is_some_and(|left| !left.is_zero()) => {}
            Awake::Quiet => committer.seal()?,
            Awake::Closed(Closed::Failed) => return Ok(()),
            Awake::Closed(Closed::Stopping) => {
                // A caller may have put back what its group had no room for.
                committer.commit_all()?;
                return committer.seal();
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        path::Path,
        sync::atomic::AtomicBool,
        task::{Context, Wake, Waker},
    };

    use oneshot::error::TryRecvError;

    use super::*;
    use crate::{
        clock::{Clock, ManualClock},
        config::LogConfig,
        ids::TopicId,
        partition::request::prepare,
        record::{Append, NewEvent, Write},
        start,
        testing::{CallKind, Fault, SimDisk},
        topic::{TopicKind, TopicSettings},
    };

    /// Time stands still, so that no sync takes any; or nobody can be told it.
    #[derive(Default)]
    struct Time(ManualClock, AtomicBool);

    impl Clock for Time {
        fn now(&self) -> Timestamp {
            assert!(!self.1.load(Ordering::Relaxed), "the clock is broken");
            self.0.now()
        }

        fn monotonic(&self) -> Duration {
            self.0.monotonic()
        }
    }

    type Answer = oneshot::Receiver<Result<Appended, LogError>>;

    struct Log {
        turns: Arc<Turns>,
        engine: Arc<Engine>,
        time: Arc<Time>,
    }

    impl Log {
        /// A log whose appends count as lone; no thread drives it.
        fn open(disk: &SimDisk) -> Self {
            let config = LogConfig { first_journal_file_bytes: 512 << 10, journal_file_bytes: 1 << 20, ..LogConfig::default() };
            let time = Arc::new(Time::default());
            let mut drawn = 0;
            let random = move || {
                drawn += 1;
                drawn
            };
            let started = start::open(Arc::new(disk.clone()), time.clone(), Path::new("/data"), config, random).unwrap();
            let settings = TopicSettings { kind: TopicKind::Events, partitions: 1 };
            started.engine.topics.create("a".parse().unwrap(), settings, TopicId::new([1; 16])).unwrap();
            let log = Self { turns: Arc::new(Turns::new(started.committer)), engine: started.engine, time };
            for _ in 0..LONE_GROUPS {
                let mut answer = log.append(1).unwrap();
                assert!(matches!(answer.try_recv(), Err(TryRecvError::Empty)), "nobody knows yet that it is alone");
                log.turns.committer.lock().commit_all().unwrap();
                answer.try_recv().unwrap().unwrap();
            }
            log
        }

        fn append(&self, bytes: usize) -> Result<Answer, LogError> {
            let event = NewEvent { kind: "E".into(), data: vec![b'x'; bytes].into(), ..NewEvent::default() };
            let write = Write::Stream { topic: "a".parse().unwrap(), stream: "s".parse().unwrap(), events: vec![event] };
            let (reply, answer) = oneshot::channel();
            let append = Append { writes: vec![write], ..Append::default() };
            self.turns.append(prepare(append, &self.engine.topics, &self.engine.hasher, 1 << 20, reply)?)?;
            Ok(answer)
        }

        fn has_failed(&self) -> bool {
            self.engine.failure.borrow().is_some()
        }
    }

    #[test]
    fn a_lone_append_is_durable_and_shown_when_its_caller_goes_on() {
        let disk = SimDisk::new(1);
        let log = Log::open(&disk);
        for _ in 0..5 {
            let answer = log.append(1).unwrap().try_recv().unwrap().unwrap();
            assert_eq!(log.engine.tail.end(), answer.end);
            assert_eq!(Log::open(&disk.fork().power_cut()).engine.tail.end(), answer.end.plus(LONE_GROUPS.into()));
        }
    }

    /// Notes whether the turn was free when it was woken.
    struct Woken(Arc<Turns>, AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.1.store(self.0.committer.try_lock().is_some(), Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_waits_for_a_lone_append_is_woken_when_the_turn_is_free() {
        let log = Log::open(&SimDisk::new(7));
        let woken = Arc::new(Woken(Arc::clone(&log.turns), AtomicBool::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let mut end = log.engine.tail.watch();
        end.mark_unchanged();
        let mut moved = std::pin::pin!(end.changed());
        assert!(moved.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        log.append(1).unwrap().try_recv().unwrap().unwrap();
        assert!(woken.1.load(Ordering::Relaxed));
        assert!(moved.poll(&mut Context::from_waker(&waker)).is_ready());
    }

    #[test]
    fn the_first_lone_append_after_a_seal_has_the_committer_seal_it_in_time() {
        let log = Log::open(&SimDisk::new(2));
        log.turns.committer.lock().seal().unwrap();
        assert!(matches!(log.engine.queue.wait_idle(Some(Duration::ZERO), false), Awake::Quiet));
        log.append(1).unwrap().try_recv().unwrap().unwrap();
        assert!(matches!(log.engine.queue.wait_idle(Some(Duration::ZERO), false), Awake::Work));
        assert_eq!(log.turns.committer.lock().seal_in(), Some(log.engine.config.seal_after()));
        log.append(1).unwrap().try_recv().unwrap().unwrap();
        assert!(matches!(log.engine.queue.wait_idle(Some(Duration::ZERO), false), Awake::Quiet), "it knows already");
    }

    #[test]
    fn what_takes_long_is_left_to_the_committer() {
        let disk = SimDisk::new(3);
        let log = Log::open(&disk);
        let mut long = log.append(100 << 10).unwrap();
        assert!(matches!(long.try_recv(), Err(TryRecvError::Empty)));
        log.turns.committer.lock().commit_all().unwrap();
        long.try_recv().unwrap().unwrap();

        let files = disk.count(CallKind::Create);
        let needs_a_file = (0..1000).find_map(|_| match log.append(1).unwrap().try_recv() {
            Ok(answer) => answer.map(|_| None).unwrap(),
            Err(_) => Some(()),
        });
        assert!(needs_a_file.is_some());
        assert_eq!((disk.count(CallKind::Create), log.engine.queue.len()), (files, 1));
    }

    #[test]
    fn a_failed_sync_under_a_caller_ends_the_log() {
        let disk = SimDisk::new(4);
        let log = Log::open(&disk);
        let end = log.engine.tail.end();
        disk.arm(Fault::Fail { kind: Some(CallKind::Sync), nth: 0, errno: 5 });
        assert!(matches!(log.append(1).unwrap().try_recv(), Err(TryRecvError::Closed)));
        assert!(log.has_failed());
        assert_eq!(log.engine.tail.end(), end);
        assert!(matches!(log.append(1), Err(LogError::Stopping)));
    }

    #[test]
    fn a_panic_under_a_caller_ends_the_log() {
        let log = Log::open(&SimDisk::new(5));
        log.time.1.store(true, Ordering::Relaxed);
        assert!(catch_unwind(AssertUnwindSafe(|| log.append(1))).is_err());
        log.time.1.store(false, Ordering::Relaxed);
        assert!(log.has_failed());
        assert!(matches!(log.append(1), Err(LogError::Stopping)));
    }

    #[test]
    fn after_a_failure_nothing_is_committed_and_whoever_waits_is_told() {
        let log = Log::open(&SimDisk::new(6));
        let end = log.engine.tail.end();
        let mut committer = log.turns.committer.lock();
        let mut admitted = log.append(1).unwrap();
        assert!(committer.fill());
        drop(committer);
        log.engine.fail(LogError::Unknown);
        run(&log.turns);
        assert!(matches!(admitted.try_recv(), Err(TryRecvError::Closed)));
        assert_eq!(log.engine.tail.end(), end);
    }
}
