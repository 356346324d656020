//! Starts, stops and looks after the queries that never end.
//!
//! The engine holds one [`Supervisor`]; it owns the workers that run the queries' steps.

mod align;
mod kept;
mod shape;
mod taken_over;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use foldlog_log::{LogBackend, Position, ReadLimits, Selection, TopicName, clock::Clock};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::{
    catalog::{Column, QueryDef, Source, SourceKind},
    changes::ChangeListener,
    codec::Encoder,
    config::QueryConfig,
    error::QueryError,
    plan::{Sink, SourceScan, StreamPlan},
    sql::dialect::Changelog,
    store::Checkpoints,
    stream::{
        checkpoint::keeper::Keeper,
        commit::{Progress, Recalled, SystemTopics},
        decode::{Decoding, KEPT_BYTES, Lane},
        fold::Kept,
        operator::sink::TopicSink,
        pace::StepLimits,
        query::Query,
        source::{AheadIntake, Intake},
        succession::Succession,
        task::{Parts, Task, is_processing_log},
        view::View,
        worker::{Job, Pool},
    },
};

/// What a query is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryState {
    /// Folding again what it had folded before the last restart, without output; its view cannot be read yet.
    Folding {
        /// How far it is (exclusive).
        at: Position,
        /// Where it must get to (exclusive).
        end: Position,
    },
    /// Following its sources.
    Running,
    /// Ended by something that is not a row: the reason.
    Failed(String),
    /// Terminated, or stopped with the engine.
    Stopped,
}

/// A query as `SHOW QUERIES`, metrics and readiness tell it.
#[derive(Clone, Debug)]
pub struct QueryStatus {
    /// Id in the catalog.
    pub id: String,
    /// What it writes.
    pub sink: String,
    /// What it is doing.
    pub state: QueryState,
    /// Everything of its root sources below this position (exclusive) is reflected.
    pub frontier: Position,
    /// Records read since the start of the process.
    pub rows_in: u64,
    /// Rows written since the start of the process.
    pub rows_out: u64,
    /// Rows skipped, and values nulled, since the start of the process.
    pub bad_rows: u64,
    /// Whether it stands still because somebody said PAUSE.
    pub paused: bool,
    /// What it failed at and tries again.
    pub trouble: Option<String>,
    /// What its operators keep; nothing if it has no state.
    pub kept: Vec<Kept>,
    /// What is kept of its state over a restart.
    pub checkpoint: CheckpointStatus,
}

/// What is kept of a query's state over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointStatus {
    /// The newest durable checkpoint: everything below the position (exclusive) is folded in it; its bytes.
    pub newest: Option<(Position, u64)>,
    /// Why the checkpoint that the query found when it started could not be gone on from; it is set aside.
    pub set_aside: Option<String>,
}

pub(crate) use align::Aligned;
use shape::Shape;
use taken_over::{Succeeds, TakenOver};

/// Memory that a push query with state may take, in bytes.
const VOLATILE_STATE: usize = 256 << 20;
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
    decoding: Decoding,
    topics: SystemTopics,
    state_budget: usize,
    limits: StepLimits,
    /// How far queries were when they last ended.
    recalled: Mutex<HashMap<String, Recalled>>,
    /// Queries that stand still, also such that do not run yet.
    paused: Mutex<HashSet<String>>,
    running: RwLock<BTreeMap<String, Running>>,
    taken_over: watch::Sender<TakenOver>,
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
                decoding: Decoding::new(Arc::clone(&log), KEPT_BYTES),
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
                volatile: Mutex::default(),
                keeper,
            }),
        })
    }

    /// Starts a persistent query where it had been before the last restart, or at its start. Queries are started in the order in
    /// which they were created: one that reads what another writes comes after it. Opens files (blocking).
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] for a plan that cannot be run, [`QueryError::Exists`], [`QueryError::Log`],
    /// [`QueryError::NotAligned`] if the query that writes its source does not run.
    pub fn start(&self, def: &QueryDef, plan: &StreamPlan) -> Result<(), QueryError> {
        self.launch(def, plan, None)
    }

    fn launch(&self, def: &QueryDef, plan: &StreamPlan, succeeds: Option<Succeeds>) -> Result<(), QueryError> {
        let inner = &self.inner;
        let id = def.id.as_str();
        if inner.running.read().contains_key(id) {
            return Err(QueryError::Exists { what: "query", name: id.to_owned() });
        }
        let sink = match &plan.sink {
            Sink::Stream(source) | Sink::Table(source) => Arc::clone(source),
            Sink::Volatile => return Err(QueryError::Unsupported("a persistent query without a sink".to_owned())),
        };
        let recalled = inner.recalled.lock().get(id).filter(|recalled| recalled.progress.start == def.start.get()).copied();
        if let Some(other) = recalled.filter(|recalled| recalled.progress.fingerprint != plan.fingerprint) {
            tracing::warn!(
                query = id,
                was = other.progress.fingerprint,
                is = plan.fingerprint,
                "the plan of a query has changed; it is folded anew and goes on where it was"
            );
        }
        let output_from = recalled.map_or(def.start, |recalled| Position::new(recalled.progress.position)).max(def.start);
        let shape = Shape::of(plan, inner.state_budget)?;
        let mut restored = self.restore(def, plan, &shape)?;
        if restored.saved.is_none() && shape.fold.is_some() && recalled.is_some() {
            restored.note(inner.log.whole_from(&Selection::Topics(vec![shape.source.topic.clone()], def.start)));
        }
        // What has no state goes on where it was; what has state folds again from its checkpoint, or its start.
        let from = match (&shape.fold, &restored.saved) {
            (Some(_), Some(saved)) => saved.position,
            (Some(_), None) => def.start,
            (None, _) => output_from,
        };
        let query_of = |before: &Succeeds| inner.running.read().get(&before.id).map(|running| Arc::clone(&running.query));
        let before = succeeds.as_ref().and_then(query_of);
        let is_successor = def.succeeds && recalled.is_none();
        // What it has to fold before it is like the one before it; behind a checkpoint that is newer than the last progress told,
        // nothing was written.
        let output_from = if is_successor { inner.log.head().position } else { output_from.max(from) };
        let state = if from < output_from { QueryState::Folding { at: from, end: output_from } } else { QueryState::Running };
        let upstream = self.writers(&shape.source)?;
        let reads_log = is_processing_log(&shape.source.topic);
        let query = Arc::new(Query::new(id, &sink.name, upstream, shape.fold.clone(), from, state, reads_log));
        if is_successor {
            query.succeeds();
        }
        if let Some(recalled) = recalled {
            query.recall(query.frontier_after(Position::new(recalled.progress.position)), recalled.end);
        }
        if restored.saved.is_some() {
            // Nothing need come for it to be said, neither here nor downstream: what was written of it is in the log.
            if !is_successor && recalled.is_none_or(|recalled| recalled.progress.position < from.get()) {
                query.recall(query.frontier_after(from), inner.log.head().position);
            }
            query.reflects(query.frontier_after(from));
        }
        if inner.paused.lock().contains(id) {
            query.pause();
        }
        let intake = self.intake(plan, &query, from)?;
        let parts = self.parts(plan, &query, shape, intake, from, Some(&sink))?;
        let succession = is_successor.then(|| {
            let (weak, id) = (Arc::downgrade(&self.inner), id.to_owned());
            let take_over = move |end| {
                if let Some(inner) = weak.upgrade() {
                    inner.take_over(&id, end);
                }
            };
            Succession { before: before.clone(), take_over: Box::new(take_over), difference: None }
        });
        let debt = self.keep(&query, parts.fold.as_ref(), &plan.source()?.source.topic, restored);
        let parts = Parts { output_from, start: def.start, succession, debt, ..parts };
        let view = View::of(&query).map(Arc::new);
        let (topic, reads) = (sink.topic.clone(), plan.source()?.source.topic.clone());
        let (start, fingerprint) = (def.start, plan.fingerprint);
        // Held until it is there: whoever takes another one's place looks for itself here.
        let mut running = inner.running.write();
        let job = self.spawn(&query, parts);
        if let Some(before) = &before {
            before.tells(&Arc::downgrade(&job));
            query.wake();
        }
        for reader in running.values().filter(|running| running.reads == topic && succeeds.is_none()) {
            reader.query.add_upstream(&query);
        }
        if let Some(succeeds) = &succeeds {
            inner.taken_over.send_modify(|taken_over| taken_over.due.push((id.to_owned(), succeeds.from)));
        }
        let started = Running { query, topic, reads, view, sink, succeeds, start, fingerprint, _job: job };
        running.insert(id.to_owned(), started);
        Ok(())
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

    fn intake(&self, plan: &StreamPlan, query: &Arc<Query>, from: Position) -> Result<Box<dyn Intake>, QueryError> {
        let (inner, scan) = (&self.inner, plan.source()?);
        let limits = ReadLimits { records: inner.limits.read.records.min(step_rows(plan)), ..inner.limits.read };
        Ok(Box::new(AheadIntake::new(&inner.decoding, &inner.pool, query, scan, from, limits)?))
    }

    fn parts(
        &self,
        plan: &StreamPlan,
        query: &Arc<Query>,
        shape: Shape,
        intake: Box<dyn Intake>,
        from: Position,
        sink: Option<&Arc<Source>>,
    ) -> Result<Parts, QueryError> {
        let inner = &self.inner;
        Ok(Parts {
            log: Arc::clone(&inner.log),
            clock: Arc::clone(&inner.clock),
            pool: inner.pool.clone(),
            query: Arc::clone(query),
            topics: inner.topics.clone(),
            intake,
            before: shape.before,
            fold: shape.fold,
            sink: sink.map(|sink| TopicSink::new(sink.topic.clone(), Encoder::new(Arc::clone(sink)))),
            from,
            output_from: from,
            start: from,
            fingerprint: plan.fingerprint,
            succession: None,
            state_budget: if sink.is_some() { inner.state_budget } else { VOLATILE_STATE },
            limits: inner.limits,
            debt: None,
        })
    }

    fn spawn(&self, query: &Arc<Query>, parts: Parts) -> Arc<Job> {
        self.inner.pool.spawn(|job| {
            query.attach(job);
            Box::new(Task::new(parts))
        })
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

    /// What the readers of these columns share; for one more, who starts at `from`. Opens files (blocking).
    ///
    /// # Errors
    /// [`QueryError::Log`] if nothing can be read from there.
    pub(crate) fn lane(&self, scan: &SourceScan, from: Position) -> Result<Arc<Lane>, QueryError> {
        self.inner.decoding.lane(scan, from)
    }

    /// Listens to a view: its rows now, and every change after.
    ///
    /// # Errors
    /// [`QueryError::Folding`], or what ended the query.
    pub fn listen(&self, view: &View) -> Result<ChangeListener, QueryError> {
        view.listen()
    }

    /// Runs a push query with state: its changes from `from` on, folded for this listener alone, written nowhere. It goes at the
    /// listener's pace and ends with it. Opens files (blocking).
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] for a plan without state or that cannot be run; [`QueryError::Log`].
    pub fn volatile(&self, plan: &StreamPlan, from: Position) -> Result<ChangeListener, QueryError> {
        let shape = Shape::of(plan, VOLATILE_STATE)?;
        let Some(fold) = shape.fold.clone() else {
            return Err(QueryError::Unsupported("a push query without state is not folded".to_owned()));
        };
        let upstream = self.writers(&shape.source)?;
        let query = Arc::new(Query::new("push", "the result", upstream, shape.fold.clone(), from, QueryState::Running, false));
        let (listener, heard) = ChangeListener::new(Arc::clone(fold.schema()), from);
        query.at_frontier(|_, listeners| listeners.push(listener));
        let intake = self.intake(plan, &query, from)?;
        // Of a table the listener is told what it has now, rather than how that came about.
        let is_table = shape.source.kind == SourceKind::Table && plan.changelog == Changelog::Coalesced;
        let mut parts = self.parts(plan, &query, shape, intake, from, None)?;
        if plan.changelog == Changelog::Every {
            parts.limits = parts.limits.one_by_one();
        }
        let (parts, heard) = if is_table {
            let now = self.inner.log.head().position;
            (Parts { output_from: now, ..parts }, heard.with_coming_snapshot(query.snapshot_at(now)))
        } else {
            (parts, heard)
        };
        let job = self.spawn(&query, parts);
        let mut volatile = self.inner.volatile.lock();
        volatile.retain(|query| query.strong_count() > 0);
        volatile.push(Arc::downgrade(&query));
        drop(volatile);
        Ok(heard.keeping(job))
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

/// Rows of a step whose results, one for each row, fit into a unit: wide results make short steps.
fn step_rows(plan: &StreamPlan) -> u32 {
    const UNIT_BYTES: usize = 4 << 20;
    let field = |column: &Column| 2 * column.name.len() + if column.data_type.is_primitive() { 24 } else { 128 };
    let row: usize = plan.output.iter().map(field).sum();
    u32::try_from((UNIT_BYTES / row.max(1)).clamp(64, 8192)).unwrap_or(64)
}
