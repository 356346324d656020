//! Who is woken when the durable end of the log moves: tasks follow topics, and one job waits for all of them.
//!
//! Where a topic has something new, all who follow it are put in line together. Others only learn that there was nothing for
//! them, which moves their frontier: at once while they are few or somebody waits for it, else now and then. Invariants: a task
//! that has seen the durable end and found nothing is woken after every record of its topic that becomes durable later; whom it
//! wakes changes when a task looks, never what it finds.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use foldlog_log::{LogBackend, Offset, Position, TopicName, clock::Clock};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::worker::{Job, Pool, Turn, Work};

/// So many tasks to which nothing came are woken whenever the durable end moves.
const AT_ONCE: u32 = 32;
/// How much later those to which nothing came look again for each one more: a twentieth of the workers' time goes into it.
const REST_A_TASK: Duration = Duration::from_micros(100);
/// A look that took longer is rested from, so many times as long, but no longer than that: many topics are looked at for a tenth of one
/// worker's time.
const SHORT_LOOK: Duration = Duration::from_micros(50);
const REST_A_LOOK: u32 = 9;
const LONGEST_REST: Duration = Duration::from_millis(10);

/// The tasks that follow topics of a log.
pub(crate) struct Followers {
    shared: Arc<Shared>,
    /// Waits for the durable end.
    watch: Arc<Job>,
}

struct Shared {
    log: Arc<dyn LogBackend>,
    /// The log has stopped.
    closed: AtomicBool,
    topics: Mutex<BTreeMap<TopicName, Followed>>,
}

/// A topic that is followed.
struct Followed {
    /// Where it ended when its followers were woken last; none: it did not exist.
    ends: Option<Vec<Offset>>,
    followers: Vec<Follower>,
}

struct Follower {
    job: Weak<Job>,
    /// How many wait for how far it is.
    awaited: Arc<AtomicU32>,
}

/// What came of a look.
#[derive(Default)]
struct Look {
    /// To be woken at once.
    due: Vec<Arc<Job>>,
    /// Those to which nothing came.
    quiet: Vec<Arc<Job>>,
}

impl Followers {
    /// Nobody yet, of a log.
    pub(crate) fn new(log: Arc<dyn LogBackend>, clock: Arc<dyn Clock>, pool: &Pool) -> Self {
        let durable = log.durable();
        let shared = Arc::new(Shared { log, closed: AtomicBool::new(false), topics: Mutex::default() });
        let watch = Watch {
            shared: Arc::clone(&shared),
            clock,
            pool: pool.clone(),
            moved: moved(durable),
            told: Position::default(),
            looks_at: Duration::ZERO,
            tells_at: Duration::ZERO,
            timer: None,
        };
        Self { shared, watch: pool.spawn_urgent(watch) }
    }

    /// Has a task woken when its topic has something new; it is to have a turn afterwards, for what is there already.
    pub(crate) fn follow(&self, topic: &TopicName, job: &Arc<Job>, awaited: Arc<AtomicU32>) {
        let mut topics = self.shared.topics.lock();
        let ends = || self.shared.log.ends(topic).ok();
        let followed = topics.entry(topic.clone()).or_insert_with(|| Followed { ends: ends(), followers: Vec::new() });
        followed.followers.push(Follower { job: Arc::downgrade(job), awaited });
    }

    /// The durable end now; none when the log has stopped.
    pub(crate) fn durable(&self) -> Option<Position> {
        (!self.shared.closed.load(Ordering::Acquire)).then(|| self.shared.log.head().position)
    }
}

impl Drop for Followers {
    fn drop(&mut self) {
        // It waits for the log, which would wake it, and so keep it, and with it the log.
        self.watch.end();
    }
}

impl Shared {
    /// Who has something to look at, and who has not.
    fn look(&self) -> Look {
        let mut look = Look::default();
        self.topics.lock().retain(|name, topic| {
            topic.followers.retain(|follower| follower.job.strong_count() > 0);
            // Before any of them asks for the durable end: what lies before these offsets lies below that.
            let ends = self.log.ends(name).ok();
            let is_new = topic.ends != ends;
            topic.ends = ends;
            for follower in &topic.followers {
                let is_due = is_new || follower.awaited.load(Ordering::Acquire) > 0;
                let jobs = if is_due { &mut look.due } else { &mut look.quiet };
                jobs.extend(follower.job.upgrade());
            }
            !topic.followers.is_empty()
        });
        look
    }
}

/// The job that waits for the durable end.
struct Watch {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    pool: Pool,
    moved: Moved,
    /// The durable end of which all have been told.
    told: Position,
    /// When topics may be looked at again, and when those may be woken to which nothing came.
    looks_at: Duration,
    tells_at: Duration,
    /// When it has another turn in any case.
    timer: Option<Duration>,
}

type Moved = Pin<Box<dyn Future<Output = Option<watch::Receiver<Position>>> + Send>>;

/// Ends when the durable end moves beyond what it is now; with none when the log has stopped.
fn moved(mut durable: watch::Receiver<Position>) -> Moved {
    durable.mark_unchanged();
    Box::pin(async move { durable.changed().await.ok().map(|()| durable) })
}

impl Watch {
    /// Nothing more comes of the log: all are told.
    fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        let Look { due, quiet } = self.shared.look();
        self.pool.schedule(due.into_iter().chain(quiet));
    }

    /// Nothing before a time, or until the durable end moves.
    fn rest(&mut self, now: Duration, until: Duration) -> Turn {
        if self.timer.is_some_and(|timer| now < timer && timer <= until) {
            return Turn::Wait;
        }
        self.timer = Some(until);
        Turn::Later(until.saturating_sub(now))
    }
}

impl Work for Watch {
    fn turn(&mut self, waker: &Waker) -> Turn {
        let mut context = Context::from_waker(waker);
        while let Poll::Ready(durable) = self.moved.as_mut().poll(&mut context) {
            let Some(durable) = durable else {
                self.close();
                return Turn::Done;
            };
            self.moved = moved(durable);
        }
        let now = self.clock.monotonic();
        if now < self.looks_at {
            return self.rest(now, self.looks_at);
        }
        let end = self.shared.log.head().position;
        let Look { mut due, mut quiet } = self.shared.look();
        let quiet_count = u32::try_from(quiet.len()).unwrap_or(u32::MAX);
        if now >= self.tells_at {
            due.append(&mut quiet);
            self.tells_at = now + REST_A_TASK * quiet_count.saturating_sub(AT_ONCE);
            self.told = end;
        }
        self.pool.schedule(due);
        let took = self.clock.monotonic().saturating_sub(now);
        let rest = if took > SHORT_LOOK { (took * REST_A_LOOK).min(LONGEST_REST) } else { Duration::ZERO };
        self.looks_at = now + took + rest;
        if self.told < end { self.rest(now, self.tells_at) } else { Turn::Wait }
    }

    fn panicked(&mut self, what: String) {
        tracing::error!(what, "a fault in foldlog: queries are not told of new records any more");
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::mpsc};

    use foldlog_log::{
        Append, EmbeddedLog, LogConfig, NewRecord, PartitionId, Timestamp, TopicKind, TopicSettings, Write,
        clock::ManualClock,
        testing::{MemoryLog, SimDisk},
    };

    use super::*;

    /// More than are woken by each move.
    const MANY: u32 = AT_ONCE + 10;

    struct Counts(Arc<AtomicU32>);

    impl Work for Counts {
        fn turn(&mut self, _: &Waker) -> Turn {
            self.0.fetch_add(1, Ordering::AcqRel);
            Turn::Wait
        }

        fn panicked(&mut self, what: String) {
            panic!("{what}");
        }
    }

    struct Tells(mpsc::Sender<()>, Turn);

    impl Work for Tells {
        fn turn(&mut self, _: &Waker) -> Turn {
            self.0.send(()).unwrap();
            self.1
        }

        fn panicked(&mut self, what: String) {
            panic!("{what}");
        }
    }

    /// A log of two topics, `loud` and `quiet`, and its followers, whose time stands still.
    struct Stage {
        log: Arc<MemoryLog>,
        clock: Arc<ManualClock>,
        pool: Pool,
        followers: Followers,
        jobs: Vec<Arc<Job>>,
    }

    impl Stage {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::at(Timestamp::new(0)));
            let log = Arc::new(MemoryLog::new(Arc::clone(&clock) as Arc<dyn Clock>));
            for topic in ["loud", "quiet"] {
                log.create_topic(topic.parse().unwrap(), TopicSettings::new(TopicKind::Records, 1)).unwrap();
            }
            let pool = Pool::start(1, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
            let followers = Followers::new(Arc::clone(&log) as Arc<dyn LogBackend>, Arc::clone(&clock) as Arc<dyn Clock>, &pool);
            Self { log, clock, pool, followers, jobs: Vec::new() }
        }

        /// One more follower; tells how often it had a turn, and how many wait for it.
        fn follower(&mut self, topic: &str) -> (Arc<AtomicU32>, Arc<AtomicU32>) {
            let (turns, awaited) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
            let job = self.pool.spawn(Counts(Arc::clone(&turns)));
            self.followers.follow(&topic.parse().unwrap(), &job, Arc::clone(&awaited));
            self.jobs.push(job);
            (turns, awaited)
        }

        async fn append(&self, topic: &str) {
            let record = NewRecord { value: Some("1".into()), ..NewRecord::default() };
            let write = Write::Records { topic: topic.parse().unwrap(), partition: Some(PartitionId::new(0)), records: vec![record] };
            self.log.append(Append { writes: vec![write], ..Append::default() }).unwrap().await.unwrap();
        }

        /// Waits until everybody who is in line by now has had a turn.
        fn settle(&self) {
            for _ in 0..3 {
                let (told, heard) = mpsc::channel();
                self.pool.spawn(Tells(told, Turn::Done));
                heard.recv_timeout(Duration::from_secs(10)).unwrap();
            }
        }
    }

    fn sum(turns: &[(Arc<AtomicU32>, Arc<AtomicU32>)]) -> u32 {
        turns.iter().map(|(turns, _)| turns.load(Ordering::Acquire)).sum()
    }

    #[tokio::test]
    async fn who_follows_a_topic_is_woken_by_it_and_others_now_and_then() {
        let mut stage = Stage::new();
        let quiet: Vec<_> = (0..MANY).map(|_| stage.follower("quiet")).collect();
        let loud = [stage.follower("loud")];
        stage.append("loud").await;
        stage.settle();
        let (before, before_loud) = (sum(&quiet), sum(&loud));
        assert!(before >= MANY, "the first turn of each");
        for more in 1..=20 {
            stage.append("loud").await;
            stage.settle();
            assert_eq!((sum(&loud), sum(&quiet)), (before_loud + more, before));
        }
        stage.clock.advance(REST_A_TASK * 10);
        for waited in 0.. {
            if sum(&quiet) == before + MANY {
                break;
            }
            assert!(waited < 10_000, "those to which nothing came are told in the end");
            std::thread::sleep(Duration::from_millis(1));
        }
        stage.settle();
        assert_eq!(sum(&quiet), before + MANY, "once for all that moved meanwhile");
        stage.append("quiet").await;
        stage.settle();
        assert_eq!(sum(&quiet), before + 2 * MANY, "what comes for them is told at once");
        stage.pool.stop();
    }

    #[tokio::test]
    async fn whom_somebody_waits_for_is_woken_by_every_move() {
        let mut stage = Stage::new();
        let quiet: Vec<_> = (0..MANY).map(|_| stage.follower("quiet")).collect();
        stage.append("loud").await;
        stage.settle();
        let before = sum(&quiet);
        quiet[3].1.fetch_add(1, Ordering::AcqRel);
        stage.append("loud").await;
        stage.append("loud").await;
        stage.settle();
        let woken = quiet[3].0.load(Ordering::Acquire);
        assert!(woken >= 2 && sum(&quiet) > before, "{woken} turns");
        assert!(sum(&quiet) <= before + 2, "nobody else");
        stage.pool.stop();
    }

    #[tokio::test]
    async fn who_is_gone_keeps_no_log() {
        let mut stage = Stage::new();
        stage.follower("quiet");
        stage.append("loud").await;
        stage.settle();
        let Stage { log, clock: _, pool, followers, jobs } = stage;
        pool.stop();
        drop((followers, jobs, pool));
        assert_eq!(Arc::strong_count(&log), 1);
    }

    #[tokio::test]
    async fn all_are_woken_when_the_log_stops() {
        let clock = Arc::new(ManualClock::at(Timestamp::new(0)));
        let (disk, time) = (Arc::new(SimDisk::new(1)), Arc::clone(&clock) as Arc<dyn Clock>);
        let log = Arc::new(EmbeddedLog::open(disk, Arc::clone(&time), Path::new("/data"), LogConfig::default()).unwrap());
        let pool = Pool::start(1, Arc::clone(&time)).unwrap();
        let followers = Followers::new(Arc::clone(&log) as Arc<dyn LogBackend>, time, &pool);
        let (told, heard) = mpsc::channel();
        let job = pool.spawn(Tells(told, Turn::Wait));
        followers.follow(&"any".parse().unwrap(), &job, Arc::default());
        heard.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(followers.durable().is_some());
        log.stop();
        while followers.durable().is_some() {
            heard.recv_timeout(Duration::from_secs(10)).expect("a turn when the log has stopped");
        }
        drop(job);
        pool.stop();
    }
}
