//! Starts, stops and looks after the queries that never end.
//!
//! The engine holds one [`Supervisor`]; it owns the workers that run the queries' steps.

mod align;
mod kept;
mod launch;
mod shape;
mod status;
mod taken_over;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use foldlog_log::{LogBackend, Position, ReadLimits, TopicName, clock::Clock};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::{
    catalog::{QueryDef, Source, SourceKind},
    changes::ChangeListener,
    config::QueryConfig,
    error::QueryError,
    plan::SourceScan,
    store::Checkpoints,
    stream::{
        checkpoint::keeper::Keeper,
        commit::{Progress, Recalled, SystemTopics},
        decode::{Decoding, KEPT_BYTES},
        followers::Followers,
        pace::StepLimits,
        query::Query,
        scanned::{SCANNED_BYTES, Scans},
        source::AheadIntake,
        view::View,
        worker::{Job, Pool},
    },
};

pub(crate) use align::Aligned;
pub use status::{CheckpointStatus, QueryState, QueryStatus};
use taken_over::{Succeeds, TakenOver};

/// Undo that a view may hold for its readers, whatever its budget.
const LEAST_UNDO: usize = 64 << 20;

/// All running queries. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

struct Inner {
    log: Arc<dyn LogBackend>,
    clock: Arc<dyn Clock>,
    pool: Pool,
    followers: Arc<Followers>,
    decoding: Decoding,
    scans: Arc<Scans>,
    topics: SystemTopics,
    state_budget: usize,
    limits: StepLimits,
    /// How far queries were when they last ended.
    recalled: Mutex<HashMap<String, Recalled>>,
    /// Queries that stand still, also such that do not run yet.
    paused: Mutex<HashSet<String>>,
    running: RwLock<BTreeMap<String, Running>>,
    taken_over: watch::Sender<TakenOver>,
    /// How often a query has been read in another one's place.
    swaps: AtomicU64,
    volatile: Mutex<Vec<std::sync::Weak<Query>>>,
    /// None: every start folds from the log.
    keeper: Option<Keeper>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.pool.stop();
    }
}

struct Running {
    query: Arc<Query>,
    /// Where it writes.
    topic: TopicName,
    /// What it reads.
    reads: TopicName,
    view: Option<Arc<View>>,
    sink: Arc<Source>,
    /// The query whose place it takes; until then that one is read.
    succeeds: Option<Succeeds>,
    start: Position,
    fingerprint: u64,
    /// Keeps the task alive.
    _job: Arc<Job>,
}

impl Supervisor {
    /// Starts the workers and reads how far every query had come (blocking).
    ///
    /// # Errors
    /// [`QueryError::Log`] where the log cannot be read; [`QueryError::Execution`] if the system gives no threads.
    pub fn open(log: Arc<dyn LogBackend>, clock: Arc<dyn Clock>, config: &QueryConfig) -> Result<Self, QueryError> {
        Self::open_with(log, clock, config, StepLimits::default())
    }

    /// As [`Supervisor::open`], with steps of at most `limits`; results do not depend on them.
    ///
    /// # Errors
    /// As [`Supervisor::open`].
    pub fn open_with(
        log: Arc<dyn LogBackend>,
        clock: Arc<dyn Clock>,
        config: &QueryConfig,
        limits: StepLimits,
    ) -> Result<Self, QueryError> {
        Self::open_keeping(log, clock, config, limits, None)
    }

    /// As [`Supervisor::open_with`], with the state of queries kept over restarts. Where that cannot be, it is told, and queries
    /// fold from the log.
    ///
    /// # Errors
    /// As [`Supervisor::open`].
    pub fn open_keeping(
        log: Arc<dyn LogBackend>,
        clock: Arc<dyn Clock>,
        config: &QueryConfig,
        limits: StepLimits,
        checkpoints: Option<&Checkpoints>,
    ) -> Result<Self, QueryError> {
        let topics = SystemTopics::open(log.as_ref())?;
        let recalled = topics.recall(log.as_ref())?;
        let workers = usize::try_from(config.workers).unwrap_or(1).max(1);
        let pool = Pool::start(workers, Arc::clone(&clock))
            .map_err(|error| QueryError::Execution(format!("no threads for the workers: {error}")))?;
        let keeper = checkpoints.and_then(|how| {
            let keeper = Keeper::open(how, Arc::clone(&log), Arc::clone(&clock));
            keeper.inspect_err(|error| tracing::error!(%error, "the state of queries is not kept over restarts")).ok()
        });
        let state_budget = usize::try_from(config.state_mib).unwrap_or(usize::MAX).saturating_mul(1 << 20);
        Ok(Self {
            inner: Arc::new(Inner {
                followers: Arc::new(Followers::new(Arc::clone(&log), Arc::clone(&clock), &pool)),
                decoding: Decoding::new(Arc::clone(&log), KEPT_BYTES),
                scans: Scans::new(SCANNED_BYTES),
                log,
                clock,
                pool,
                topics,
                state_budget,
                limits,
                recalled: Mutex::new(recalled),
                paused: Mutex::default(),
                running: RwLock::default(),
                taken_over: watch::Sender::default(),
                swaps: AtomicU64::new(0),
                volatile: Mutex::default(),
                keeper,
            }),
        })
    }

    /// The queries that write into a source's topic, under whatever name that is read.
    ///
    /// # Errors
    /// [`QueryError::NotAligned`] if the source's own query does not run.
    pub(crate) fn writers(&self, source: &Source) -> Result<Vec<Arc<Query>>, QueryError> {
        let running = self.inner.running.read();
        if source.query.as_ref().is_some_and(|own| !running.contains_key(own.as_str())) {
            return Err(not_running(source));
        }
        let writes = |running: &&Running| running.topic == source.topic && running.succeeds.is_none();
        Ok(running.values().filter(writes).map(|running| Arc::clone(&running.query)).collect())
    }

    /// Whether a query of this id has run, at any time.
    pub(crate) fn has_run(&self, id: &str) -> bool {
        self.inner.recalled.lock().contains_key(id) || self.inner.running.read().contains_key(id)
    }

    /// Has a query stand still where it is; one that does not run yet will, where it was before the restart.
    pub(crate) fn pause(&self, id: &str) {
        self.inner.paused.lock().insert(id.to_owned());
        if let Some(running) = self.inner.running.read().get(id) {
            running.query.pause();
        }
    }

    /// Has a query go on.
    pub(crate) fn resume(&self, id: &str) {
        self.inner.paused.lock().remove(id);
        if let Some(running) = self.inner.running.read().get(id) {
            running.query.resume();
        }
    }

    /// Ends a persistent query after its step; its view goes with it, and what was kept of its state. Ending one that does not run
    /// is no error.
    pub async fn stop(&self, id: &str) {
        let mut ending = Vec::new();
        {
            let mut running = self.inner.running.write();
            let mut next = Some(id.to_owned());
            while let Some(one) = next.and_then(|id| running.remove(&id)) {
                next = one.succeeds.as_ref().map(|before| before.id.clone());
                ending.push(one);
            }
        }
        if ending.len() > 1 {
            self.inner.taken_over.send_modify(|taken_over| taken_over.forget(id));
        }
        if let (Some(keeper), true) = (&self.inner.keeper, ending.is_empty()) {
            keeper.forget(id);
        }
        for running in ending {
            self.end(running).await;
        }
    }

    /// Ends a query that was taken out.
    async fn end(&self, running: Running) {
        let id = running.query.id();
        if let Some(keeper) = &self.inner.keeper {
            keeper.forget(id);
        }
        running.query.stop();
        ended(&running.query).await;
        if running.query.is_succeeding() {
            return;
        }
        let progress = Progress { position: running.query.folded().get(), start: running.start.get(), fingerprint: running.fingerprint };
        let end = self.inner.log.head().position;
        self.inner.recalled.lock().insert(id.to_owned(), Recalled { progress, end });
    }

    /// Where a query was when it ended; its start if it never ran.
    pub(crate) fn position_of(&self, def: &QueryDef) -> Position {
        let recalled = self.inner.recalled.lock();
        let own = recalled.get(def.id.as_str()).filter(|recalled| recalled.progress.start == def.start.get());
        own.map_or(def.start, |recalled| Position::new(recalled.progress.position)).max(def.start)
    }

    /// Ends every query after its step, then the workers.
    pub async fn shut_down(&self) {
        let running = std::mem::take(&mut *self.inner.running.write());
        let volatile: Vec<Arc<Query>> = self.inner.volatile.lock().drain(..).filter_map(|query| query.upgrade()).collect();
        let queries: Vec<&Arc<Query>> = running.values().map(|running| &running.query).chain(&volatile).collect();
        queries.iter().for_each(|query| query.stop());
        for query in queries {
            ended(query).await;
        }
        if let Some(keeper) = &self.inner.keeper {
            keeper.end().await;
        }
        let pool = self.inner.pool.clone();
        // The workers are between turns or about to be; joining them takes no longer than a step.
        pool.stop();
    }

    /// What each persistent query is doing, by id.
    #[must_use]
    pub fn queries(&self) -> Vec<QueryStatus> {
        self.inner.running.read().values().map(|running| running.query.status()).collect()
    }

    /// Records decoded for queries since the start of the process; one that several took from the same chunk counts once.
    #[must_use]
    pub fn decoded(&self) -> u64 {
        self.inner.decoding.records()
    }

    /// Lets go of what is decoded and kept: it may hold what was redacted since.
    pub(crate) fn forget_decoded(&self) {
        self.inner.decoding.forget();
    }

    /// How many queries have something to do and wait for a worker.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inner.pool.waiting()
    }

    /// The view that a persistent query keeps under this name.
    #[must_use]
    pub fn view(&self, name: &str) -> Option<Arc<View>> {
        let running = self.inner.running.read();
        let read = running.values().filter(|running| running.succeeds.is_none());
        read.filter_map(|running| running.view.as_ref()).find(|view| view.name() == name).cloned()
    }

    /// The view behind a source; none for one that is read as a topic.
    ///
    /// # Errors
    /// [`QueryError::NotAligned`] for a table whose query does not run: what it wrote until then is not the view.
    pub(crate) fn view_of(&self, source: &Source) -> Result<Option<Arc<View>>, QueryError> {
        if source.kind == SourceKind::Stream {
            return Ok(None);
        }
        match (self.view(&source.name), &source.query) {
            (None, Some(_)) => Err(not_running(source)),
            (view, _) => Ok(view),
        }
    }

    /// Waits until everything below `at_least` is reflected in what a persistent query writes; a view has [`View::wait`].
    ///
    /// # Errors
    /// As [`View::wait`]; [`QueryError::Unknown`] if there is no such query.
    pub async fn wait(&self, id: &str, at_least: Position, timeout: Duration) -> Result<(), QueryError> {
        let query = self.inner.running.read().get(id).map(|running| Arc::clone(&running.query));
        let unknown = || QueryError::Unknown { what: "query", name: id.to_owned(), hint: None, place: None };
        query.ok_or_else(unknown)?.wait_for(at_least, timeout).await
    }

    /// Reads these columns from `from` on. Opens files (blocking).
    ///
    /// # Errors
    /// [`QueryError::Log`] if nothing can be read from there.
    pub(crate) fn reads(&self, scan: &SourceScan, from: Position, limits: ReadLimits) -> Result<AheadIntake, QueryError> {
        AheadIntake::of_reader(&self.inner.decoding, &self.inner.pool, scan, from, limits)
    }

    /// Listens to a view: its rows now, and every change after.
    ///
    /// # Errors
    /// [`QueryError::Folding`], or what ended the query.
    pub fn listen(&self, view: &View) -> Result<ChangeListener, QueryError> {
        view.listen()
    }
}

fn not_running(source: &Source) -> QueryError {
    let reason = "its query does not run (SHOW QUERIES says why)".to_owned();
    QueryError::NotAligned { view: source.name.clone(), reason }
}

/// Waits until a task has ended.
async fn ended(query: &Query) {
    let over = |reached: &crate::stream::query::Reached| matches!(reached.state, QueryState::Stopped | QueryState::Failed(_));
    // The sender lives in the query, so the wait ends with the state alone.
    drop(query.reached().wait_for(over).await);
}
