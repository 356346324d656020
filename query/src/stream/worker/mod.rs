//! The threads that run steps: one run queue of jobs that have something to do, one worker a core.
//!
//! A [`Job`] is its own waker: whatever it waits for (the durable end, its unit, room for a push client) puts it back in line.
//! No worker owns a job. Invariants: a job is in line or running at most once; a wake while it runs makes it run again.

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, Ordering},
    },
    task::{Wake, Waker},
    thread::JoinHandle,
    time::Duration,
};

use foldlog_log::clock::Clock;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::watch;

/// How many jobs at most wait for each other to have their turns in a row, and how long.
const GATHERED: usize = 256;
const GATHERING: Duration = Duration::from_millis(2);

/// What a job wants after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Another turn, after the others in line.
    Again,
    /// Another turn, in a row with others that want the same: when nobody else is in line, when they are many, or soon.
    Together,
    /// Nothing until it is woken.
    Wait,
    /// Another turn after this time, or when it is woken.
    Later(Duration),
    /// Nothing any more.
    Done,
}

/// What a job does in its turns.
pub(crate) trait Work: Send {
    /// One turn; must not block but on files.
    fn turn(&mut self, waker: &Waker) -> Turn;

    /// Called in place of a further turn after a panic.
    fn panicked(&mut self, what: String);
}

/// Something that is run in turns.
pub(crate) struct Job {
    state: AtomicU8,
    /// Goes before all others in line; its turns are short.
    is_urgent: bool,
    pool: Weak<Shared>,
    work: Mutex<Option<Box<dyn Work>>>,
}

const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const RUNNING: u8 = 2;
const WOKEN: u8 = 3;
const DONE: u8 = 4;

impl Wake for Job {
    fn wake(self: Arc<Self>) {
        self.schedule();
    }
}

impl Job {
    /// Puts the job in line, or makes it run again if it runs now.
    pub(crate) fn schedule(self: Arc<Self>) {
        if self.claim()
            && let Some(pool) = self.pool.upgrade()
        {
            pool.push(self);
        }
    }

    /// Marks the job as one that is to have a turn; true if whoever marked it has to put it in line.
    fn claim(&self) -> bool {
        let next = |state| match state {
            IDLE => Some(QUEUED),
            RUNNING => Some(WOKEN),
            _ => None,
        };
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) == Ok(IDLE)
    }

    /// Ends the job: what it does is dropped, after the turn that it is in.
    pub(crate) fn end(&self) {
        let body = self.work.lock().take();
        drop(body);
    }

    fn run(self: Arc<Self>, pool: &Shared) {
        self.state.store(RUNNING, Ordering::Release);
        let waker = Waker::from(Arc::clone(&self));
        let mut work = self.work.lock();
        let turn = match work.as_mut() {
            None => Turn::Done,
            Some(body) => catch_unwind(AssertUnwindSafe(|| body.turn(&waker))).unwrap_or_else(|panic| {
                body.panicked(what(panic.as_ref()));
                Turn::Done
            }),
        };
        if turn == Turn::Done {
            // Whatever the work holds may wake this job when it is dropped.
            self.state.store(DONE, Ordering::Release);
            let body = work.take();
            drop(work);
            drop(body);
            return;
        }
        drop(work);
        if let Turn::Later(after) = turn {
            pool.later(after, &self);
        }
        let waits = matches!(turn, Turn::Wait | Turn::Later(_));
        if waits && self.state.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return;
        }
        self.state.store(QUEUED, Ordering::Release);
        if turn == Turn::Together {
            pool.gather(self);
        } else {
            pool.put_back(self);
        }
    }
}

fn what(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}

/// The workers and their run queue. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    stopped: watch::Sender<bool>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    queue: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Arc<Job>>,
    /// Jobs that want their turns in a row, and when the first of them came.
    gathered: Vec<Arc<Job>>,
    gathering_since: Duration,
    /// Jobs to wake, by time and number.
    later: BTreeMap<(Duration, u64), Weak<Job>>,
    timers: u64,
    stopped: bool,
}

impl Queue {
    /// Puts a job in line.
    fn put(&mut self, job: Arc<Job>) {
        if job.is_urgent {
            self.ready.push_front(job);
        } else {
            self.ready.push_back(job);
        }
    }

    /// Whether those that want their turns in a row should have them now.
    fn is_gathered(&self, now: Duration) -> bool {
        match self.gathered.len() {
            0 => false,
            GATHERED.. => true,
            _ => self.ready.is_empty() || now.saturating_sub(self.gathering_since) >= GATHERING,
        }
    }
}

impl Pool {
    /// Starts `workers` threads.
    ///
    /// # Errors
    /// What the system says when it gives no thread.
    pub(crate) fn start(workers: usize, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { clock, queue: Mutex::default(), filled: Condvar::new() });
        let pool = Self { shared, threads: Arc::default(), stopped: watch::Sender::new(false) };
        for number in 0..workers {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new().name(format!("fold-{number}")).spawn(move || shared.work());
            match thread {
                Ok(thread) => pool.threads.lock().push(thread),
                Err(error) => {
                    pool.stop();
                    return Err(error);
                }
            }
        }
        Ok(pool)
    }

    /// Takes a job on and puts it in line.
    pub(crate) fn spawn(&self, work: impl Work + 'static) -> Arc<Job> {
        self.take_on(false, Box::new(work))
    }

    /// As [`Pool::spawn`], for a job that goes before all others in line.
    pub(crate) fn spawn_urgent(&self, work: impl Work + 'static) -> Arc<Job> {
        self.take_on(true, Box::new(work))
    }

    fn take_on(&self, is_urgent: bool, work: Box<dyn Work>) -> Arc<Job> {
        let (state, pool) = (AtomicU8::new(IDLE), Arc::downgrade(&self.shared));
        let job = Arc::new(Job { state, is_urgent, pool, work: Mutex::new(Some(work)) });
        Arc::clone(&job).schedule();
        job
    }

    /// Puts jobs in line together, or makes them run again if they run now.
    pub(crate) fn schedule(&self, jobs: impl IntoIterator<Item = Arc<Job>>) {
        let jobs: Vec<Arc<Job>> = jobs.into_iter().filter(|job| job.claim()).collect();
        if !jobs.is_empty() {
            self.shared.push_all(jobs);
        }
    }

    /// Whether the threads have ended; for whoever waits for what a job does.
    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.stopped.subscribe()
    }

    /// How many threads there are.
    pub(crate) fn workers(&self) -> usize {
        self.threads.lock().len()
    }

    /// How many jobs have something to do and wait for a thread.
    pub(crate) fn waiting(&self) -> usize {
        let queue = self.shared.queue.lock();
        queue.ready.len() + queue.gathered.len()
    }

    /// Ends the threads after the turns they are in, and waits for them. Jobs that are in line are not run any more.
    pub(crate) fn stop(&self) {
        self.shared.queue.lock().stopped = true;
        self.stopped.send_replace(true);
        self.shared.filled.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        let here = std::thread::current().id();
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != here) {
            // A worker catches the panics of its jobs; one of its own has been printed.
            drop(thread.join());
        }
        let left = std::mem::take(&mut *self.shared.queue.lock());
        self.shared.queue.lock().stopped = true;
        drop(left);
    }
}

impl Shared {
    fn push(&self, job: Arc<Job>) {
        self.queue.lock().put(job);
        self.filled.notify_one();
    }

    /// Puts jobs in line behind the others, for a worker that takes one of them next.
    fn push_all(&self, jobs: Vec<Arc<Job>>) {
        let mut queue = self.queue.lock();
        queue.ready.extend(jobs);
        let is_alone = queue.ready.len() == 1;
        drop(queue);
        if !is_alone {
            self.filled.notify_all();
        }
    }

    /// Puts a job in line that this worker has run and may take next: others are woken only for what is beside it.
    fn put_back(&self, job: Arc<Job>) {
        let mut queue = self.queue.lock();
        queue.put(job);
        let alone = queue.ready.len() == 1;
        drop(queue);
        if !alone {
            self.filled.notify_one();
        }
    }

    /// Keeps a job until it goes on with others; this worker looks for the next one now.
    fn gather(&self, job: Arc<Job>) {
        let now = self.clock.monotonic();
        let mut queue = self.queue.lock();
        if queue.gathered.is_empty() {
            queue.gathering_since = now;
        }
        queue.gathered.push(job);
    }

    fn later(&self, after: Duration, job: &Arc<Job>) {
        let due = self.clock.monotonic() + after;
        let mut queue = self.queue.lock();
        queue.timers += 1;
        let key = (due, queue.timers);
        queue.later.insert(key, Arc::downgrade(job));
        drop(queue);
        // Whoever sleeps must sleep no longer than this.
        self.filled.notify_one();
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            job.run(self);
        }
    }

    fn next(&self) -> Option<Arc<Job>> {
        let mut queue = self.queue.lock();
        loop {
            if queue.stopped {
                return None;
            }
            // Nobody waits for the line while the time is looked up; what comes meanwhile is there below.
            let is_timed = !queue.later.is_empty() || !queue.gathered.is_empty();
            let now = if is_timed { MutexGuard::unlocked(&mut queue, || self.clock.monotonic()) } else { Duration::ZERO };
            let pause = queue.later.first_key_value().map(|((due, _), _)| due.saturating_sub(now));
            // A time that has come is looked at before the line, which may never be empty.
            if pause.is_some_and(|pause| pause.is_zero())
                && let Some((_, job)) = queue.later.pop_first()
            {
                drop(queue);
                if let Some(job) = job.upgrade() {
                    job.schedule();
                }
                queue = self.queue.lock();
                continue;
            }
            if queue.is_gathered(now) {
                for job in std::mem::take(&mut queue.gathered).into_iter().rev() {
                    queue.ready.push_front(job);
                }
                self.filled.notify_all();
            }
            if let Some(job) = queue.ready.pop_front() {
                return Some(job);
            }
            match pause {
                None => self.filled.wait(&mut queue),
                Some(pause) => {
                    self.filled.wait_for(&mut queue, pause);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
