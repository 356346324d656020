//! What every door holds: the log and the engine once they are open, the limits, the numbers, the tasks. Cheap to clone.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
    time::Duration,
};

use foldlog_log::{LogBackend, Position, StreamId, TopicName, clock::Clock};
use foldlog_query::Engine;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    config::Limits,
    failure::{Failure, Kind},
    groups::Groups,
    idle::IdleReaders,
    shutdown::Tasks,
    telemetry::Metrics,
    token::Tokens,
};

/// Blocking reads of files at once; what is beyond them waits.
const FILE_READS: usize = 32;

/// A server's shared state.
#[derive(Clone)]
pub struct App(Arc<Shared>);

/// See [`App`].
pub struct Shared {
    stage: OnceLock<Stage>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What clients may ask for.
    pub limits: Limits,
    /// Numbers.
    pub metrics: Metrics,
    /// Tasks, and whether we are draining.
    pub tasks: Tasks,
    /// Readers that may be given up when they take nothing.
    pub idle: IdleReaders,
    /// Blocking reads of files.
    pub file_reads: Arc<Semaphore>,
    /// Requests being answered.
    pub requests: Arc<Semaphore>,
    /// Backups being written: one at a time.
    pub backups: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
}

/// What exists from the moment the folder is open.
pub struct Stage {
    /// The log.
    pub log: Arc<dyn LogBackend>,
    /// The query engine.
    pub engine: Engine,
    /// Consumer groups.
    pub groups: Groups,
    /// Tokens of the folder.
    pub tokens: Tokens,
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// How much of what is bounded is in use. Holds no [`App`], whose numbers it is among.
#[derive(Debug)]
pub struct Load {
    requests: (Arc<Semaphore>, usize),
    file_reads: (Arc<Semaphore>, usize),
}

impl Load {
    /// Requests being answered.
    pub fn requests(&self) -> usize {
        in_use(&self.requests)
    }

    /// Blocking reads of files.
    pub fn file_reads(&self) -> usize {
        in_use(&self.file_reads)
    }
}

fn in_use((places, most): &(Arc<Semaphore>, usize)) -> usize {
    most.saturating_sub(places.available_permits())
}

/// A place among the open streams; counted as long as it lives.
pub struct StreamPlace {
    app: App,
    _permit: OwnedSemaphorePermit,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.app.metrics.streams.dec();
    }
}

/// A place among the open append sessions; counted as long as it lives.
pub struct SessionPlace {
    app: App,
    _permit: OwnedSemaphorePermit,
}

impl Drop for SessionPlace {
    fn drop(&mut self) {
        self.app.metrics.sessions.dec();
    }
}

impl App {
    /// An app whose folder is not open yet.
    pub fn new(clock: Arc<dyn Clock>, limits: Limits, tasks: Tasks) -> Self {
        Self(Arc::new(Shared {
            stage: OnceLock::new(),
            idle: IdleReaders::new(Arc::clone(&clock), limits.idle_reader),
            clock,
            metrics: Metrics::new(),
            tasks,
            file_reads: Arc::new(Semaphore::new(FILE_READS)),
            requests: Arc::new(Semaphore::new(limits.requests)),
            backups: Arc::new(Semaphore::new(1)),
            streams: Arc::new(Semaphore::new(limits.streams)),
            sessions: Arc::new(Semaphore::new(limits.sessions)),
            limits,
        }))
    }

    /// Opens the doors to the log, the engine and the groups; a second call changes nothing.
    pub fn open(&self, log: Arc<dyn LogBackend>, engine: Engine, groups: Groups) {
        let tokens = Tokens::of(&log.head());
        self.stage.get_or_init(|| Stage { log, engine, groups, tokens });
        self.metrics.ready.set(1);
    }

    /// Log and engine.
    ///
    /// # Errors
    /// NOT_READY during recovery, DRAINING at the end.
    pub fn stage(&self) -> Result<&Stage, Failure> {
        if self.tasks.is_draining() {
            return Err(Failure::draining());
        }
        self.stage.get().ok_or_else(Failure::not_ready)
    }

    /// What is under way here, for whoever counts.
    #[must_use]
    pub fn load(&self) -> Load {
        Load { requests: (Arc::clone(&self.requests), self.limits.requests), file_reads: (Arc::clone(&self.file_reads), FILE_READS) }
    }

    /// Whether requests are answered.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.stage().is_ok()
    }

    /// Requests being answered.
    #[must_use]
    pub fn answering(&self) -> usize {
        self.limits.requests.saturating_sub(self.requests.available_permits())
    }

    /// The folder's tokens, once it is open.
    #[must_use]
    pub fn tokens(&self) -> Option<&Tokens> {
        self.stage.get().map(|stage| &stage.tokens)
    }

    /// A place among the open streams.
    ///
    /// # Errors
    /// OVERLOADED when all are taken.
    pub fn stream_place(&self) -> Result<StreamPlace, Failure> {
        let Ok(permit) = Arc::clone(&self.streams).try_acquire_owned() else {
            let message = format!(
                "{} reads, subscriptions, push queries and group members are open, which is the limit; retry later",
                self.limits.streams
            );
            return Err(overloaded(message));
        };
        self.metrics.streams.inc();
        Ok(StreamPlace { app: self.clone(), _permit: permit })
    }

    /// A place among the open append sessions.
    ///
    /// # Errors
    /// OVERLOADED when all are taken.
    pub fn session_place(&self) -> Result<SessionPlace, Failure> {
        let Ok(permit) = Arc::clone(&self.sessions).try_acquire_owned() else {
            return Err(overloaded(format!("{} append sessions are open, which is the limit; retry later", self.limits.sessions)));
        };
        self.metrics.sessions.inc();
        Ok(SessionPlace { app: self.clone(), _permit: permit })
    }
}

/// A budget of the doors is used up; nothing happened.
pub fn overloaded(message: String) -> Failure {
    use crate::failure::{Detail, Kind};
    Failure::new(Kind::Exhausted, "OVERLOADED", message).with(Detail::RetryAfter(Duration::from_millis(100)))
}

impl Stage {
    /// Waits until the log reflects `at_least`, and returns its end.
    ///
    /// # Errors
    /// TOKEN_WAIT_TIMEOUT, or DRAINING when the log stops.
    pub async fn reached(&self, at_least: Option<Position>, wait: Duration) -> Result<Position, Failure> {
        let wanted = at_least.unwrap_or_default();
        let head = self.log.head().position;
        if head >= wanted {
            return Ok(head);
        }
        let mut durable = self.log.durable();
        match tokio::time::timeout(wait, durable.wait_for(|end| *end >= wanted)).await {
            Ok(Ok(_)) => Ok(self.log.head().position),
            Ok(Err(_)) => Err(Failure::draining()),
            Err(_) => Err(Failure::token_wait_timeout(wanted, self.log.head().position)),
        }
    }

    /// Waits until nothing is left of what was redacted in a stream.
    ///
    /// # Errors
    /// ERASURE_WAIT_TIMEOUT with what it waits for; those of a topic or stream that does not exist.
    pub async fn erased(&self, topic: &TopicName, stream: &StreamId, wait: Duration) -> Result<(), Failure> {
        let mut completed = self.log.redacted();
        let done = async {
            while self.log.redacting(topic, Some(stream))?.since.is_some() {
                completed.changed().await.map_err(|_| Failure::draining())?;
            }
            Ok(())
        };
        if let Ok(done) = tokio::time::timeout(wait, done).await {
            return done;
        }
        let left = self.log.redacting(topic, Some(stream))?;
        let what = left.waits_for.unwrap_or("it is under way");
        let text = format!("bytes of {} redacted events of stream {stream} are left: {what}", left.events);
        Err(Failure::new(Kind::Timeout, "ERASURE_WAIT_TIMEOUT", text))
    }
}

#[cfg(test)]
mod tests {
    use foldlog_log::{
        Append, NewEvent, Timestamp, TopicKind, TopicSettings, Write,
        clock::{ManualClock, SystemClock},
        testing::MemoryLog,
    };
    use foldlog_query::QueryConfig;

    use super::*;

    fn opened() -> (App, MemoryLog) {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let log = MemoryLog::new(Arc::clone(&clock));
        let app = App::new(Arc::clone(&clock), Limits::default(), Tasks::default());
        let engine = Engine::open(Arc::new(log.clone()), clock, QueryConfig::default()).unwrap();
        let shared: Arc<dyn LogBackend> = Arc::new(log.clone());
        let groups = Groups::open(Arc::clone(&shared), Arc::clone(&app.clock), app.tasks.clone(), Arc::clone(&app.file_reads)).unwrap();
        app.open(shared, engine, groups);
        (app, log)
    }

    async fn append(log: &MemoryLog) {
        let topic: foldlog_log::TopicName = "t".parse().unwrap();
        log.create_topic(topic.clone(), TopicSettings::new(TopicKind::Events, 1)).unwrap();
        let events = vec![NewEvent { kind: "T".into(), ..NewEvent::default() }];
        let write = Write::Stream { topic, stream: "s".parse().unwrap(), events };
        log.append(Append { writes: vec![write], ..Append::default() }).unwrap().await.unwrap();
    }

    #[tokio::test]
    async fn a_token_of_the_future_is_waited_for_and_then_given_up_with_the_end() {
        let (app, log) = opened();
        let stage = app.stage().unwrap();
        let head = log.head().position;
        let failure = stage.reached(Some(head.plus(1)), Duration::from_millis(10)).await.unwrap_err();
        assert_eq!((failure.reason, failure.detail), ("TOKEN_WAIT_TIMEOUT", crate::failure::Detail::Position(head)));
        let (reached, ()) = tokio::join!(stage.reached(Some(head.plus(1)), Duration::from_secs(30)), append(&log));
        assert!(reached.unwrap() > head);
    }

    #[tokio::test]
    async fn requests_are_answered_between_recovery_and_draining_only() {
        let clock = Arc::new(ManualClock::at(Timestamp::new(0)));
        let early = App::new(clock, Limits::default(), Tasks::default());
        assert_eq!(early.stage().err().map(|failure| failure.reason), Some("NOT_READY"));
        let (app, _) = opened();
        assert!(app.is_ready());
        app.tasks.drain();
        assert_eq!(app.stage().err().map(|failure| failure.reason), Some("DRAINING"));
    }
}
