//! Who runs the committer: a thread of its own, a second one for syncs under backlog, and the caller of a lone append.
//!
//! Called by [`EmbeddedLog`](crate::EmbeddedLog). Invariant: whoever commits has the turn, and lets it go with nothing under way.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc,
};

use parking_lot::{Mutex, MutexGuard};

use super::{
    committer::{Closing, Committer, Done},
    frame::padded,
    queue::{Awake, Closed},
};
use crate::{
    config::BLOCK,
    durability::Durability,
    engine::{Engine, FailOnPanic},
    error::LogError,
    partition::request::Request,
};

/// What takes longer to write is not worth holding up a caller to save it a hand-over.
const SHORT_APPEND: u64 = 64 << 10;

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
        Self { engine: Arc::clone(committer.engine()), expects_lone: committer.expectation(), committer: Mutex::new(committer) }
    }

    /// Puts a request in line. If appends come one at a time and syncs are short, the caller commits it here and now: to hand it to
    /// another thread and the answer back would take as long again.
    ///
    /// # Errors
    /// Those of [`Queue::push`](super::queue::Queue::push).
    pub(crate) fn append(&self, request: Request) -> Result<(), LogError> {
        let Some(mut committer) = self.lone(&request) else { return self.engine.queue.push(request) };
        let _panicking = FailOnPanic(&self.engine);
        self.engine.queue.push_unsaid(request)?;
        let was_sealed = committer.is_sealed();
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

    /// The turn, if nobody has it, and a request is likely to be alone, needs no new file and waits for the sync.
    fn lone(&self, request: &Request) -> Option<MutexGuard<'_, Committer>> {
        let waits = request.durability == Durability::Synced;
        let expected = waits && self.expects_lone.load(Ordering::Relaxed) && request.bytes <= SHORT_APPEND;
        let is_alone = || self.engine.queue.len() == 0 && self.engine.journal.has_room(padded(request.bytes + 2 * BLOCK));
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
        let looks = committer.is_shared();
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
        task::{Context, Wake, Waker},
        time::Duration,
    };

    use tokio::sync::oneshot::{self, error::TryRecvError};

    use super::{super::committer::LONE_GROUPS, *};
    use crate::{
        clock::{Clock, ManualClock},
        config::LogConfig,
        ids::{Timestamp, TopicId},
        partition::request::prepare,
        record::{Append, Appended, NewEvent, Write},
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
            let settings = TopicSettings::new(TopicKind::Events, 1);
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
            self.append_as(bytes, None)
        }

        fn append_as(&self, bytes: usize, durability: Option<Durability>) -> Result<Answer, LogError> {
            let event = NewEvent { kind: "E".into(), data: vec![b'x'; bytes].into(), ..NewEvent::default() };
            let write = Write::Stream { topic: "a".parse().unwrap(), stream: "s".parse().unwrap(), events: vec![event] };
            let (reply, answer) = oneshot::channel();
            let append = Append { writes: vec![write], durability, ..Append::default() };
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
    fn what_takes_long_or_is_answered_before_its_sync_is_left_to_the_committer() {
        let disk = SimDisk::new(3);
        let log = Log::open(&disk);
        let mut long = log.append(100 << 10).unwrap();
        assert!(matches!(long.try_recv(), Err(TryRecvError::Empty)));
        log.turns.committer.lock().commit_all().unwrap();
        long.try_recv().unwrap().unwrap();

        // Its answer would wait for the sync under its caller.
        let mut written = log.append_as(1, Some(Durability::Written)).unwrap();
        assert!(matches!(written.try_recv(), Err(TryRecvError::Empty)));
        log.turns.committer.lock().commit_all().unwrap();
        assert_eq!(written.try_recv().unwrap().unwrap().durability, Durability::Written);

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
