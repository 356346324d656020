//! How a query starts: from which checkpoint, which position and with which output, as a task that a worker runs.
//!
//! Called by the engine for what goes on by itself and for push queries with state. Invariant: a query is found by others when all that
//! it needs is there.

use std::sync::Arc;

use foldlog_log::{Position, ReadLimits, Selection, TopicName};

use super::{QueryState, Running, Supervisor, shape::Shape, taken_over::Succeeds};
use crate::{
    catalog::{Column, QueryDef, Source, SourceKind},
    changes::ChangeListener,
    codec::Encoder,
    error::QueryError,
    plan::{Sink, StreamPlan},
    sql::dialect::Changelog,
    stream::{
        operator::sink::TopicSink,
        query::Query,
        source::{AheadIntake, Intake},
        task::{Parts, Succession, Task, is_processing_log},
        view::View,
        worker::Job,
    },
};
/// Memory that a push query with state may take, in bytes.
const VOLATILE_STATE: usize = 256 << 20;

impl Supervisor {
    /// Starts a persistent query where it had been before the last restart, or at its start. Queries are started in the order in
    /// which they were created: one that reads what another writes comes after it. Opens files (blocking).
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] for a plan that cannot be run, [`QueryError::Exists`], [`QueryError::Log`],
    /// [`QueryError::NotAligned`] if the query that writes its source does not run.
    pub fn start(&self, def: &QueryDef, plan: &StreamPlan) -> Result<(), QueryError> {
        self.launch(def, plan, None)
    }

    pub(super) fn launch(&self, def: &QueryDef, plan: &StreamPlan, succeeds: Option<Succeeds>) -> Result<(), QueryError> {
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
        let shape = Shape::of(plan, inner.state_budget, Some(&inner.scans))?;
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
        let intake = self.intake(plan, from)?;
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
        let job = self.spawn(&query, &reads, parts);
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

    fn intake(&self, plan: &StreamPlan, from: Position) -> Result<Box<dyn Intake>, QueryError> {
        let (inner, scan) = (&self.inner, plan.source()?);
        let limits = ReadLimits { records: inner.limits.read.records.min(step_rows(plan)), ..inner.limits.read };
        Ok(Box::new(AheadIntake::of_task(&inner.decoding, &inner.pool, scan, from, limits)?))
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
            followers: Arc::clone(&inner.followers),
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

    /// Has a worker run the task of a query that reads a topic.
    fn spawn(&self, query: &Arc<Query>, reads: &TopicName, parts: Parts) -> Arc<Job> {
        let job = self.inner.pool.spawn(Task::new(parts));
        query.attach(&Arc::downgrade(&job));
        self.inner.followers.follow(reads, &job, query.awaited());
        // It may have looked before anybody knew whom to wake.
        Arc::clone(&job).schedule();
        job
    }

    /// Runs a push query with state: its changes from `from` on, folded for this listener alone, written nowhere. It goes at the
    /// listener's pace and ends with it. Opens files (blocking).
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] for a plan without state or that cannot be run; [`QueryError::Log`].
    pub fn volatile(&self, plan: &StreamPlan, from: Position) -> Result<ChangeListener, QueryError> {
        let shape = Shape::of(plan, VOLATILE_STATE, None)?;
        let Some(fold) = shape.fold.clone() else {
            return Err(QueryError::Unsupported("a push query without state is not folded".to_owned()));
        };
        let upstream = self.writers(&shape.source)?;
        let query = Arc::new(Query::new("push", "the result", upstream, shape.fold.clone(), from, QueryState::Running, false));
        let (listener, heard) = ChangeListener::new(Arc::clone(fold.schema()), from);
        query.at_frontier(|_, listeners| listeners.push(listener));
        let intake = self.intake(plan, from)?;
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
        let job = self.spawn(&query, &plan.source()?.source.topic, parts);
        let mut volatile = self.inner.volatile.lock();
        volatile.retain(|query| query.strong_count() > 0);
        volatile.push(Arc::downgrade(&query));
        drop(volatile);
        Ok(heard.keeping(job))
    }
}

/// Rows of a step whose results, one for each row, fit into a unit: wide results make short steps.
fn step_rows(plan: &StreamPlan) -> u32 {
    const UNIT_BYTES: usize = 4 << 20;
    let field = |column: &Column| 2 * column.name.len() + if column.data_type.is_primitive() { 24 } else { 128 };
    let row: usize = plan.output.iter().map(field).sum();
    u32::try_from((UNIT_BYTES / row.max(1)).clamp(64, 8192)).unwrap_or(64)
}
