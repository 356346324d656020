//! One answer to one bounded query: a key lookup takes a short way, everything else is planned by DataFusion over `table/`.
//!
//! Called by `engine`. What always holds: all views and topics are read at one position, and the answer says which; a query
//! runs within the budgets of memory, time, rows and running queries, on threads of its own; whoever drops the answer ends the
//! query.

mod aggregate;
mod blame;
mod ksql;
mod lookup;
mod names;
mod plain;
mod prepared;
mod row_names;
mod session;
mod shape;
mod star;
mod threads;
mod total;

use std::{collections::HashMap, sync::Arc, time::Duration};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::{
    physical_plan::{ExecutionPlan, displayable, execute_stream},
    sql::sqlparser::ast,
};
use foldlog_log::{LogBackend, Position};
use futures::{StreamExt as _, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::Instant,
};

use crate::{
    answer::{Answer, Batches, Request},
    catalog::{Catalog, Source},
    config::QueryConfig,
    error::QueryError,
    sql::DialectKind,
    stack::with_stack,
    stream::view::View,
    supervisor::{Aligned, Supervisor},
    table::{TopicTable, ViewTable},
};
use plain::After;
pub use plain::Plain;
use prepared::PreparedLookups;
use session::{Session, Table, Tables};
use threads::Threads;

/// Queries that may wait for one that runs, for each that may run.
const WAITING_PER_RUNNING: usize = 4;

/// Batches that are computed ahead of their reader.
const BATCHES_AHEAD: usize = 2;

/// Answers bounded queries. Cheap to clone.
#[derive(Clone)]
pub struct Pull {
    shared: Arc<Shared>,
}

struct Shared {
    log: Arc<dyn LogBackend>,
    supervisor: Supervisor,
    session: Session,
    prepared: PreparedLookups,
    running: Arc<Semaphore>,
    /// Those that run and those that wait.
    admitted: Arc<Semaphore>,
    max_rows: u64,
    max_timeout: Duration,
    threads: Threads,
}

impl Shared {
    /// Refuses an answer of too many rows.
    fn check_rows(&self, count: u64) -> Result<(), QueryError> {
        let most = self.max_rows;
        if count > most {
            return Err(QueryError::ResourceExhausted(format!("the answer has more than {most} rows; add a LIMIT or a filter")));
        }
        Ok(())
    }
}

/// What a query reads, fixed.
struct Fixed {
    tables: Tables,
    position: Position,
}

impl Pull {
    /// Starts the threads on which queries are planned and run.
    ///
    /// # Errors
    /// [`QueryError::Execution`] if there are no threads to be had.
    pub fn new(log: Arc<dyn LogBackend>, supervisor: Supervisor, config: &QueryConfig) -> Result<Self, QueryError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let running = config.max_running_queries as usize;
        let shared = Shared {
            log,
            supervisor,
            session: Session::new(config, cores)?,
            prepared: PreparedLookups::default(),
            running: Arc::new(Semaphore::new(running)),
            admitted: Arc::new(Semaphore::new(running * (1 + WAITING_PER_RUNNING))),
            max_rows: config.max_answer_rows,
            max_timeout: Duration::from_millis(config.max_timeout_ms),
            threads: Threads::start(cores)?,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Answers a query; its rows follow as they are computed. `plain` says what it computes if DataFusion is only to read for it.
    ///
    /// # Errors
    /// Whatever is wrong with the query; [`QueryError::Timeout`], [`QueryError::NotYet`], [`QueryError::NotAligned`],
    /// [`QueryError::ResourceExhausted`].
    pub async fn answer(
        &self,
        catalog: &Catalog,
        query: &ast::Query,
        dialect: DialectKind,
        plain: Option<Plain>,
        request: &Request,
    ) -> Result<Answer, QueryError> {
        let timeout = request.timeout.min(self.shared.max_timeout);
        let deadline = Instant::now() + timeout;
        if let Some(answer) = self.look_up(catalog, query, dialect, request, deadline).await? {
            return Ok(answer);
        }
        let reading = plain.as_ref().map(Plain::reading).transpose()?;
        let query = reading.as_ref().unwrap_or(query);
        let permit = self.admit(deadline, timeout).await?;
        let fixed = self.fix(catalog, query, dialect, request.at_least, deadline).await?;
        let position = fixed.position;
        let keys = plain.as_ref().map(Plain::keys).unwrap_or_default();
        let (planned, plan) = oneshot::channel();
        let (rows, received) = mpsc::channel(BATCHES_AHEAD);
        let work = Work {
            shared: Arc::clone(&self.shared),
            query: with_stack(|| query.clone()),
            dialect,
            parameters: request.parameters.clone(),
            tables: fixed.tables,
            after: plain.as_ref().map(Plain::after).transpose()?,
            rows,
            _permit: permit,
        };
        self.shared.threads.spawn(work.run(planned, deadline, timeout));
        let schema = plan.await.map_err(|_| unexpected())??;
        Ok(Answer { schema, keys, batches: Batches::Coming(Box::pin(received_batches(received))), position, done: None, session: None })
    }

    /// Plans a query without running it, and says what it would read.
    ///
    /// # Errors
    /// As [`Pull::answer`].
    pub async fn explain(
        &self,
        catalog: &Catalog,
        query: &ast::Query,
        dialect: DialectKind,
        request: &Request,
    ) -> Result<String, QueryError> {
        let timeout = request.timeout.min(self.shared.max_timeout);
        let deadline = Instant::now() + timeout;
        if let Some(view) = self.view_to_look_up(catalog, query, request) {
            return Ok(format!("Lookup: view {}, 1 key\n", view.name()));
        }
        let permit = self.admit(deadline, timeout).await?;
        let fixed = self.fix(catalog, query, dialect, request.at_least, deadline).await?;
        let (sender, receiver) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let (query, parameters) = (with_stack(|| query.clone()), request.parameters.clone());
        self.shared.threads.spawn(async move {
            let _permit = permit;
            let plan = shared.session.plan(query, dialect, parameters, fixed.tables).await;
            let text = plan.map(|plan| displayable(plan.plan.as_ref()).indent(false).to_string());
            // Nobody listens any more if the statement's time is over.
            drop(sender.send(text));
        });
        let planned = tokio::time::timeout_at(deadline, receiver).await.map_err(|_| over(timeout))?;
        planned.map_err(|_| unexpected())?
    }

    /// Waits for a place among the running queries.
    async fn admit(&self, deadline: Instant, timeout: Duration) -> Result<Permits, QueryError> {
        let full = |_| QueryError::ResourceExhausted("too many queries are running and waiting; retry later".to_owned());
        let admitted = Arc::clone(&self.shared.admitted).try_acquire_owned().map_err(full)?;
        let running = tokio::time::timeout_at(deadline, Arc::clone(&self.shared.running).acquire_owned()).await;
        let running = running.map_err(|_| over(timeout))?.map_err(|_| QueryError::Stopping)?;
        Ok(Permits { _admitted: admitted, _running: running })
    }

    /// Fixes what a query reads, at one position.
    async fn fix(
        &self,
        catalog: &Catalog,
        query: &ast::Query,
        dialect: DialectKind,
        at_least: Option<Position>,
        deadline: Instant,
    ) -> Result<Fixed, QueryError> {
        let (names, named) = with_stack(|| (session::table_names(query), session::identifiers(query, dialect)));
        let names = names?;
        let mut views: Vec<(String, Arc<View>)> = Vec::new();
        let mut topics: Vec<(String, Arc<Source>)> = Vec::new();
        for name in names {
            match self.resolve(catalog, &name)? {
                Readable::View(view) => views.push((name, view)),
                Readable::Topic(source) => topics.push((name, source)),
            }
        }
        let each: Vec<Arc<View>> = views.iter().map(|(_, view)| Arc::clone(view)).collect();
        let Aligned { position, views: pinned, ends } = self.align(&each, &topics, at_least, deadline).await?;
        let mut tables: Tables = HashMap::new();
        for ((name, view), pinned) in views.into_iter().zip(pinned) {
            let table = ViewTable::new(&name, Arc::new(pinned), view.keys(), &named)?;
            tables.insert(name, Table { hidden: table.hidden(), provider: Arc::new(table) });
        }
        for ((name, source), end) in topics.into_iter().zip(ends) {
            let table = TopicTable::new(Arc::clone(&self.shared.log), source, end, &named);
            tables.insert(name, Table { hidden: table.hidden(), provider: Arc::new(table) });
        }
        Ok(Fixed { tables, position })
    }

    /// Brings views and topics to one position. What lies below it shows in a topic that a query writes at positions above: there
    /// the ends differ. One topic alone is read as it is.
    async fn align(
        &self,
        views: &[Arc<View>],
        topics: &[(String, Arc<Source>)],
        at_least: Option<Position>,
        deadline: Instant,
    ) -> Result<Aligned, QueryError> {
        let supervisor = &self.shared.supervisor;
        let is_alone = views.is_empty() && topics.len() == 1;
        let mut writers = vec![Vec::new(); topics.len()];
        if !is_alone || at_least.is_some() {
            writers = topics.iter().map(|(_, source)| supervisor.writers(source)).collect::<Result<_, _>>()?;
        }
        let written = writers.iter().any(|writers| !writers.is_empty());
        let (position, views) = match views {
            [] if is_alone || !written => {
                if let Some(at_least) = at_least {
                    for writer in writers.iter().flatten() {
                        writer.wait_for(at_least, left(deadline)).await?;
                    }
                }
                (self.durable(at_least, deadline).await?, Vec::new())
            }
            // One below another query may have folded a part of what belongs to a later position; alone, that hurts nobody.
            [view] if topics.is_empty() || (!written && view.query().live_upstream().is_empty()) => {
                let pinned = view.pin_from(at_least, left(deadline)).await?;
                (pinned.position(), vec![pinned])
            }
            _ => return supervisor.align(views, &writers, at_least, left(deadline)).await,
        };
        Ok(Aligned { position, views, ends: vec![position; topics.len()] })
    }

    /// The durable end, once it is not below `at_least`.
    async fn durable(&self, at_least: Option<Position>, deadline: Instant) -> Result<Position, QueryError> {
        let head = self.shared.log.head().position;
        let Some(wanted) = at_least.filter(|wanted| *wanted > head) else { return Ok(head) };
        let mut durable = self.shared.log.durable();
        match tokio::time::timeout_at(deadline, durable.wait_for(|at| *at >= wanted)).await {
            Ok(Ok(at)) => Ok(*at),
            Ok(Err(_)) => Err(QueryError::Stopping),
            Err(_) => Err(QueryError::NotYet { view: "the log".to_owned(), at: self.shared.log.head().position, wanted }),
        }
    }

    /// What a name in FROM means: a view, a stream or table of the catalog, or a bare topic.
    fn resolve(&self, catalog: &Catalog, name: &str) -> Result<Readable, QueryError> {
        let source = catalog.find(self.shared.log.as_ref(), name)?;
        Ok(self.shared.supervisor.view_of(&source)?.map_or(Readable::Topic(source), Readable::View))
    }
}

/// What a name in FROM means.
enum Readable {
    View(Arc<View>),
    Topic(Arc<Source>),
}

/// Held while a query runs.
struct Permits {
    _admitted: OwnedSemaphorePermit,
    _running: OwnedSemaphorePermit,
}

/// A batch, or the news that there are no more: a channel that closes without it belongs to a query that broke.
enum Message {
    Batch(RecordBatch),
    Failed(QueryError),
    End,
}

/// A query on its way.
struct Work {
    shared: Arc<Shared>,
    query: ast::Query,
    dialect: DialectKind,
    parameters: Vec<datafusion::common::ScalarValue>,
    tables: Tables,
    /// What is computed of the rows that are read.
    after: Option<After>,
    rows: mpsc::Sender<Message>,
    _permit: Permits,
}

impl Work {
    async fn run(self, planned: oneshot::Sender<Result<SchemaRef, QueryError>>, deadline: Instant, timeout: Duration) {
        let rows = self.rows.clone();
        let mut planned = Some(planned);
        let ended = tokio::select! {
            biased;
            // The answer was dropped.
            () = rows.closed() => return,
            ended = tokio::time::timeout_at(deadline, Box::pin(self.compute(&mut planned))) => ended,
        };
        let failed = match ended {
            Ok(Ok(())) => return drop(rows.send(Message::End).await),
            Ok(Err(fault)) => fault,
            Err(_) => over(timeout),
        };
        match planned.take() {
            Some(planned) => drop(planned.send(Err(failed))),
            None => drop(rows.send(Message::Failed(failed)).await),
        }
    }

    async fn compute(self, planned: &mut Option<oneshot::Sender<Result<SchemaRef, QueryError>>>) -> Result<(), QueryError> {
        let Self { shared, query, dialect, parameters, tables, mut after, rows, _permit } = self;
        let plan = shared.session.plan(query.clone(), dialect, parameters, tables).await?;
        let schema = names::given(&session::plain_schema(&plan.plan.schema())?, &query, dialect);
        if let Some(planned) = planned.take() {
            let given = after.as_ref().map_or_else(|| Arc::clone(&schema), After::schema);
            drop(planned.send(Ok(given)));
        }
        let physical: Arc<dyn ExecutionPlan> = plan.plan;
        let mut batches = execute_stream(physical, plan.context).map_err(session::query_error)?;
        let mut count = 0;
        while let Some(batch) = batches.next().await {
            let mut batch = session::plain_batch(&batch.map_err(session::query_error)?, &schema)?;
            if let Some(after) = &mut after {
                batch = after.batch(&batch)?;
            }
            count += batch.num_rows() as u64;
            shared.check_rows(count)?;
            if batch.num_rows() > 0 && rows.send(Message::Batch(batch)).await.is_err() {
                return Ok(());
            }
            if after.as_ref().is_some_and(After::is_done) {
                break;
            }
        }
        if let Some(last) = after.map(After::last).transpose()?.flatten() {
            shared.check_rows(count + last.num_rows() as u64)?;
            // Whoever has gone away does not miss it.
            drop(rows.send(Message::Batch(last)).await);
        }
        Ok(())
    }
}

/// The batches of an answer up to the news of its end.
fn received_batches(received: mpsc::Receiver<Message>) -> impl futures::Stream<Item = Result<RecordBatch, QueryError>> + Send {
    stream::unfold(Some(received), |received| async {
        let mut received = received?;
        match received.recv().await {
            Some(Message::Batch(batch)) => Some((Ok(batch), Some(received))),
            Some(Message::End) => None,
            Some(Message::Failed(fault)) => Some((Err(fault), None)),
            None => Some((Err(unexpected()), None)),
        }
    })
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn over(timeout: Duration) -> QueryError {
    QueryError::Timeout { what: "the query".to_owned(), limit_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX) }
}

fn unexpected() -> QueryError {
    QueryError::Execution("it ended unexpectedly; the server's log says more".to_owned())
}
