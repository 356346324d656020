//! The face of the query layer: `server` hands statements in and gets rows out.
//!
//! Catalog changes are made by one thread (`engine/worker`), one at a time, in the order in which they were asked for; everything
//! else reads a snapshot of the catalog.

mod assert;
pub mod check;
mod create;
mod delete;
mod describe;
mod drop;
mod extended;
mod functions;
mod insert;
mod queries;
mod types;
mod worker;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use arrow::{
    array::ArrayRef,
    datatypes::{Field, Schema},
    record_batch::RecordBatch,
};
use datafusion::{common::ScalarValue, sql::sqlparser::ast};
use foldlog_log::{LogBackend, Position, Timestamp, TopicName, clock::Clock};
use parking_lot::RwLock;

use crate::{
    answer::{Answer, Batches, PushAnswer, Request, Resume},
    catalog::{self, Catalog, QueryDef, QueryId, SourceKind},
    config::QueryConfig,
    error::QueryError,
    plan::{
        Expressions, StreamPlan,
        chance::Chance,
        select::{self, Scope},
    },
    print::Printing,
    pull::{Plain, Pull},
    push::Push,
    sql::{
        self, Dialect, DialectKind, Piece, Session, SessionChange, Statement,
        dialect::CollectLimits,
        statement::{Explained, Print, Select},
    },
    stack::with_stack,
    store::Checkpoints,
    stream::pace::StepLimits,
    supervisor::{CheckpointStatus, QueryState, QueryStatus, Supervisor},
};

/// The query engine of one log. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    core: Arc<Core>,
    changes: worker::Changes,
    pull: Pull,
    push: Arc<Push>,
}

/// What every statement needs.
struct Core {
    log: Arc<dyn LogBackend>,
    config: QueryConfig,
    expressions: Expressions,
    clock: Arc<dyn Clock>,
    catalog: RwLock<Arc<Catalog>>,
    supervisor: Supervisor,
    /// Queries that could not be started after a restart, and why.
    failed: RwLock<BTreeMap<QueryId, String>>,
}

impl Engine {
    /// Opens the engine over a log: folds the catalog (blocking) and starts every query, which goes on from its checkpoint
    /// in the background.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] for a configuration out of bounds, [`QueryError::Log`] where the catalog cannot be read.
    pub fn open(log: Arc<dyn LogBackend>, clock: Arc<dyn Clock>, config: QueryConfig) -> Result<Self, QueryError> {
        Self::open_keeping(log, clock, config, None)
    }

    /// As [`Engine::open`], with the state of queries kept over restarts: they fold again only what came after their newest
    /// checkpoint, which is read here.
    ///
    /// # Errors
    /// As [`Engine::open`]; checkpoints that cannot be used are none.
    pub fn open_keeping(
        log: Arc<dyn LogBackend>,
        clock: Arc<dyn Clock>,
        config: QueryConfig,
        checkpoints: Option<&Checkpoints>,
    ) -> Result<Self, QueryError> {
        Self::open_with(log, clock, config, StepLimits::default(), checkpoints)
    }

    /// As [`Engine::open_keeping`], with steps of at most `limits`; results do not depend on them.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_with(
        log: Arc<dyn LogBackend>,
        clock: Arc<dyn Clock>,
        config: QueryConfig,
        limits: StepLimits,
        checkpoints: Option<&Checkpoints>,
    ) -> Result<Self, QueryError> {
        config.validate().map_err(|faults| QueryError::Invalid(faults.join("; ")))?;
        let catalog = Arc::new(catalog::fold(log.as_ref())?);
        let supervisor = Supervisor::open_keeping(Arc::clone(&log), Arc::clone(&clock), &config, limits, checkpoints)?;
        supervisor.keep_only(&catalog.queries().map(|query| query.id.as_str()).collect());
        let core = Arc::new(Core {
            log,
            config,
            expressions: Expressions::new(),
            clock,
            catalog: RwLock::new(Arc::clone(&catalog)),
            supervisor,
            failed: RwLock::default(),
        });
        for query in catalog.queries() {
            core.start_again(query);
        }
        let pull = Pull::new(Arc::clone(&core.log), core.supervisor.clone(), &core.config)?;
        let push = Arc::new(Push::new(Arc::clone(&core.log), core.supervisor.clone(), &core.config));
        let changes = worker::Changes::start(Arc::clone(&core))?;
        Ok(Self { core, changes, pull, push })
    }

    /// Answers every statement that ends.
    ///
    /// # Errors
    /// Whatever is wrong with the statement, and what went wrong while it was answered.
    pub async fn execute(&self, request: Request) -> Result<Answer, QueryError> {
        let mut request = substituted(request)?;
        if let Some(seen) = request.at_least {
            request.at_least = Some(self.core.at_least(seen, &request).await?);
        }
        if let Some(answer) = self.pull.answer_prepared(self.core.dialect(&request.session).kind, &request) {
            return Ok(answer);
        }
        // A lookup that is known ends above: it need not make room for all that may follow.
        let text = request.sql.clone();
        Box::pin(self.execute_anew(request)).await.map_err(|error| sql::located(error, &text))
    }

    async fn execute_anew(&self, request: Request) -> Result<Answer, QueryError> {
        let core = &self.core;
        let dialect = core.dialect(&request.session);
        let statement = sql::parse(&request.sql, dialect)?;
        let goes_on = matches!(statement, Statement::CreateAs(_) | Statement::InsertSelect(_));
        sql::check_parameters(&request.sql, request.parameters.len(), goes_on)?;
        match statement {
            Statement::Push(_) => Err(QueryError::Invalid("SELECT ... EMIT CHANGES does not end; run it as a push query".to_owned())),
            Statement::Print(_) => Err(QueryError::Invalid("PRINT does not end by itself; run it as a push query".to_owned())),
            Statement::Pull(query) => {
                let request = self.within_bounds(request);
                self.unless_replaced(request.timeout, || self.pull_anew(&query, dialect, &request)).await
            }
            Statement::Show(show) => core.show(show, &request.session),
            Statement::ShowExtended(show) => core.show_extended(show),
            Statement::AssertTopic(assert) => core.assert_topic(&assert, core.timeout(&request)).await,
            Statement::AssertRows(_) | Statement::AssertSource(_) => {
                Err(QueryError::Unsupported("ASSERT of values, streams and tables: that is for files of tests (foldlog test)".to_owned()))
            }
            Statement::Session { change, place } => core.change_session(request.session, change).map_err(|error| error.at(|| Some(place))),
            Statement::Describe { name, extended: false } => core.describe(&name, dialect),
            Statement::Describe { name, extended: true } => core.describe_extended(&name),
            Statement::DescribeAll(kind) => core.describe_all(kind, dialect),
            Statement::DescribeFunction { name } => core.describe_function(&name),
            Statement::Explain(explained) => self.explain(&explained, &request).await,
            change @ (Statement::CreateSource(_)
            | Statement::CreateAs(_)
            | Statement::InsertValues(_)
            | Statement::InsertSelect(_)
            | Statement::Delete(_)
            | Statement::Alter(_)
            | Statement::Drop(_)
            | Statement::CreateType { .. }
            | Statement::DropType { .. }
            | Statement::ChangeQueries { .. }) => self.changes.make(change, request).await,
        }
    }

    /// Starts `SELECT ... EMIT CHANGES`.
    ///
    /// # Errors
    /// As [`Engine::execute`].
    pub async fn push(&self, request: Request) -> Result<PushAnswer, QueryError> {
        let mut request = substituted(request)?;
        if let Some(seen) = request.at_least {
            request.at_least = Some(self.core.at_least(seen, &request).await?);
        }
        let text = request.sql.clone();
        self.push_anew(request).await.map_err(|error| sql::located(error, &text))
    }

    async fn push_anew(&self, mut request: Request) -> Result<PushAnswer, QueryError> {
        let dialect = self.core.dialect(&request.session);
        let statement = sql::parse(&request.sql, dialect)?;
        sql::check_parameters(&request.sql, request.parameters.len(), false)?;
        match statement {
            Statement::Push(select) => {
                // From now on, unless the session itself says otherwise: the dialect's own start is that of queries that stay.
                if request.session.setting(sql::session::AUTO_OFFSET_RESET) == Some("earliest") {
                    request.resume = request.resume.or(Some(Resume { position: Position::default(), topic: None }));
                }
                let (request, select) = (&self.within_bounds(request), &select);
                let start = || async move {
                    let plan = self.core.volatile(select, dialect, &request.parameters)?;
                    self.push.start(plan, select.limit, request).await
                };
                self.unless_replaced(request.timeout, start).await
            }
            Statement::Print(print) => {
                let printing = self.core.printing(&print)?;
                self.push.print(printing, &print, &self.within_bounds(request)).await
            }
            _ => Err(QueryError::Invalid(
                "only SELECT ... EMIT CHANGES and PRINT are push queries; execute this statement instead".to_owned(),
            )),
        }
    }

    async fn pull_anew(&self, query: &ast::Query, dialect: Dialect, request: &Request) -> Result<Answer, QueryError> {
        let (core, catalog) = (&self.core, self.core.readable());
        let mut query = with_stack(|| query.clone());
        core.expand_types(&catalog, dialect, &mut query)?;
        let plain = core.plain(&catalog, &query, dialect, request)?;
        self.pull.answer(&catalog, &query, dialect.kind, plain, request).await
    }

    /// What an attempt gives; made again if a table was replaced by another one, or the catalog changed, while it looked for it.
    async fn unless_replaced<T, F>(&self, timeout: Duration, attempt: impl Fn() -> F) -> Result<T, QueryError>
    where
        F: Future<Output = Result<T, QueryError>>,
    {
        let began = self.core.clock.monotonic();
        loop {
            let (catalog, swaps) = (self.core.snapshot(), self.core.supervisor.swaps());
            match attempt().await {
                Err(QueryError::NotAligned { .. })
                    if (swaps != self.core.supervisor.swaps() || !Arc::ptr_eq(&catalog, &self.core.snapshot()))
                        && self.core.clock.monotonic().saturating_sub(began) < timeout => {}
                other => return other,
            }
        }
    }

    async fn explain(&self, explained: &Explained, request: &Request) -> Result<Answer, QueryError> {
        let plan = match explained {
            Explained::Statement(statement) => match statement.as_ref() {
                Statement::Pull(query) => {
                    let dialect = self.core.dialect(&request.session);
                    let explain = || async move {
                        let (catalog, mut query) = (self.core.readable(), with_stack(|| query.clone()));
                        self.core.expand_types(&catalog, dialect, query.as_mut())?;
                        self.pull.explain(&catalog, &query, dialect.kind, request).await
                    };
                    self.unless_replaced(self.core.timeout(request), explain).await?
                }
                other => self.core.explain_statement(other, request)?,
            },
            Explained::Query(id) => self.core.explain_query(id)?,
        };
        describe::lines(self.core.head(), &plan)
    }

    /// The request with a timeout that the configuration allows.
    fn within_bounds(&self, request: Request) -> Request {
        Request { timeout: self.core.timeout(&request), ..request }
    }

    /// Deletes a topic with all that it holds.
    ///
    /// # Errors
    /// [`QueryError::Log`]: there is none, or a stream, a table or a query is made of it.
    pub async fn delete_topic(&self, name: TopicName) -> Result<(), QueryError> {
        self.changes.delete_topic(name).await
    }

    /// Has every query that reads a topic, also by way of others, fold anew what is there now: data in it was redacted. Until it has come to
    /// where it was it says how far it is; what it wrote stays.
    ///
    /// # Errors
    /// [`QueryError::Stopping`], [`QueryError::Timeout`].
    pub async fn refold(&self, topic: TopicName) -> Result<(), QueryError> {
        self.changes.refold(topic).await
    }

    /// Removes what is kept of the state of every query that reads a topic, also by way of others, before data in it is redacted: a
    /// crash must not bring it back. To be followed by [`Engine::refold`], or [`Engine::not_redacted`].
    ///
    /// # Errors
    /// As [`Engine::refold`].
    pub async fn about_to_redact(&self, topic: TopicName) -> Result<(), QueryError> {
        self.changes.about_to_redact(topic).await
    }

    /// Nothing was redacted after all: state is kept again.
    ///
    /// # Errors
    /// As [`Engine::refold`].
    pub async fn not_redacted(&self, topic: TopicName) -> Result<(), QueryError> {
        self.changes.not_redacted(topic).await
    }

    /// Writes checkpoints of all queries that folded something since theirs, now (blocking).
    pub fn checkpoint(&self) {
        self.core.supervisor.checkpoint();
    }

    /// Splits a script into its statements.
    ///
    /// # Errors
    /// [`QueryError::Syntax`], [`QueryError::TooComplex`].
    pub fn split(&self, script: &str) -> Result<Vec<Piece>, QueryError> {
        sql::split(script)
    }

    /// What each persistent query is doing, in the order in which they were created.
    #[must_use]
    pub fn queries(&self) -> Vec<QueryStatus> {
        self.core.queries()
    }

    /// Records decoded for queries since the start of the process; one that several share counts once.
    #[must_use]
    pub fn decoded(&self) -> u64 {
        self.core.supervisor.decoded()
    }

    /// How many queries have something to do and wait for a worker.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.core.supervisor.waiting()
    }

    /// Stops every query after its step. What is asked afterwards is refused.
    pub async fn stop(&self) {
        self.changes.stop();
        self.core.supervisor.shut_down().await;
    }
}

impl Core {
    fn snapshot(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read())
    }

    /// What must be reflected for a request that has seen a position: also what is written when a table is replaced that the log names
    /// below it.
    async fn at_least(&self, seen: Position, request: &Request) -> Result<Position, QueryError> {
        match self.supervisor.at_least(seen) {
            Some(at_least) => Ok(at_least),
            None => self.supervisor.taken_over(seen, self.timeout(request)).await,
        }
    }

    /// What there is to read: views whose query is being replaced are as they were.
    fn readable(&self) -> Arc<Catalog> {
        let (catalog, served) = (self.snapshot(), self.supervisor.served());
        if served.is_empty() { catalog } else { Arc::new(catalog.with_sources(served)) }
    }

    /// The rules of a session's statements.
    fn dialect(&self, session: &Session) -> Dialect {
        let limits = CollectLimits { list: self.config.collect_list_limit, set: self.config.collect_set_limit };
        session.dialect((self.config.dialect, limits))
    }

    /// Plans a SELECT against a catalog.
    fn chain(
        &self,
        catalog: &Catalog,
        select: &Select,
        dialect: Dialect,
        parameters: &[ScalarValue],
        chance: Chance,
    ) -> Result<select::Chain, QueryError> {
        let find = |name: &str| catalog.find(self.log.as_ref(), name);
        let expressions = match chance {
            Chance::OfRecord { .. } => self.expressions.of(dialect),
            Chance::OfQuery { .. } => self.expressions.of(dialect).asked_once(),
        };
        let scope = Scope { find: &find, expressions: &expressions, dialect, parameters, chance };
        with_stack(|| {
            let mut query = select.query.clone();
            self.expand_types(catalog, dialect, query.as_mut())?;
            select::plan(&query, select.partition_by.as_deref(), &scope)
        })
    }

    /// Plans a push query.
    fn volatile(&self, select: &Select, dialect: Dialect, parameters: &[ScalarValue]) -> Result<StreamPlan, QueryError> {
        let chance = Chance::of_query_named(&with_stack(|| select.query.to_string()));
        let mut chain = self.chain(&self.readable(), select, dialect, parameters, chance)?;
        if dialect.kind == DialectKind::Ksql && chain.scan.source.kind == SourceKind::Stream {
            chain = chain.of_values(&self.expressions.of(dialect))?;
        }
        let source = &chain.scan.source;
        let keeps_rows = source.kind == SourceKind::Table && self.supervisor.view_of(source)?.is_none();
        chain.into_volatile(keeps_rows)
    }

    /// The topic that PRINT names: its own name, whatever the case if there is one alone, or that of a stream or table over it.
    fn printing(&self, print: &Print) -> Result<Printing, QueryError> {
        let catalog = self.snapshot();
        let named = print.topic.parse().ok().and_then(|name| self.log.topic(&name).ok());
        let alike = || {
            let mut alike = self.log.topics().into_iter().filter(|topic| topic.name.as_str().eq_ignore_ascii_case(&print.topic));
            alike.next().filter(|_| alike.next().is_none())
        };
        let topic = match named.or_else(alike) {
            Some(topic) => topic,
            None => self.log.topic(&catalog.find(self.log.as_ref(), &print.topic)?.topic)?,
        };
        Ok(Printing::new(topic, &catalog, print))
    }

    /// What a bounded SELECT computes that DataFusion only reads for: one over a single source in a dialect that it does not know.
    fn plain(&self, catalog: &Catalog, query: &ast::Query, dialect: Dialect, request: &Request) -> Result<Option<Plain>, QueryError> {
        if !Plain::is_for(query, dialect.kind) {
            return Ok(None);
        }
        let mut query = with_stack(|| query.clone());
        let Ok(limit) = sql::take_limit(&mut query) else { return Ok(None) };
        let select = Select { query: Box::new(query), partition_by: None, emit: None, limit };
        match self.chain(catalog, &select, dialect, &request.parameters, Chance::OfQuery { now: self.now() }) {
            Ok(chain) if chain.grouped => Ok(None),
            Ok(chain) => Ok(Plain::new(chain.into_volatile(false)?, limit)),
            Err(error) if matches!(error.bare(), QueryError::Unsupported(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Plans the statement of a query that exists.
    fn plan_of(&self, catalog: &Arc<Catalog>, query: &QueryDef) -> Result<StreamPlan, QueryError> {
        let (seen, dialect) = (catalog.as_seen_by(query), Dialect { collected: query.collected, ..query.dialect.rules() });
        match sql::parse(&query.sql, dialect)? {
            Statement::CreateAs(create) => self.persistent(&seen, &create, dialect, Arc::clone(catalog.source(&query.sink)?)),
            Statement::InsertSelect(insert) => self.feeding(&seen, &insert, dialect, &query.id),
            _ => Err(QueryError::Execution(format!("the statement of query {} makes no query", query.id))),
        }
    }

    /// Starts a query that the catalog holds. One that cannot be started is told, and the others go on.
    fn start_again(&self, query: &QueryDef) {
        let catalog = self.snapshot();
        if catalog.is_paused(&query.id) {
            self.supervisor.pause(query.id.as_str());
        }
        // Also for one that cannot be started: the next start may do better.
        let held = self.hold(&catalog, query);
        let started = held.and_then(|()| self.plan_of(&catalog, query)).and_then(|plan| self.supervisor.start(query, &plan));
        if let Err(error) = started {
            tracing::error!(query = %query.id, %error, "a query could not be started");
            self.failed.write().insert(query.id.clone(), error.to_string());
        }
    }

    /// The queries that read a topic, also by way of others, in the order in which they were created.
    fn readers<'a>(&self, catalog: &'a Catalog, topic: &TopicName) -> Vec<&'a QueryDef> {
        let mut readers: Vec<&QueryDef> = Vec::new();
        // In order of creation: one that reads what another writes comes after it.
        for query in catalog.queries() {
            let reads = |source: &String| {
                let is_its = catalog.find(self.log.as_ref(), source).is_ok_and(|source| source.topic == *topic);
                is_its || readers.iter().any(|reader| reader.sink == *source)
            };
            if query.sources.iter().any(reads) {
                readers.push(query);
            }
        }
        readers
    }

    /// Removes the checkpoints of the queries that read a topic, until they are started again or [`Core::not_redacted`].
    fn about_to_redact(&self, topic: &TopicName) -> Result<(), QueryError> {
        let catalog = self.snapshot();
        let readers = self.readers(&catalog, topic);
        // They would fold from their start now.
        readers.iter().try_for_each(|query| self.hold(&catalog, query))?;
        self.supervisor.bar_checkpoints(&readers.iter().map(|query| query.id.to_string()).collect::<Vec<_>>());
        Ok(())
    }

    fn not_redacted(&self, topic: &TopicName) {
        let readers: Vec<String> = self.readers(&self.snapshot(), topic).iter().map(|query| query.id.to_string()).collect();
        self.supervisor.allow_checkpoints(&readers);
    }

    /// Stops the queries that read a topic, the last ones first, and starts them again.
    fn refold(&self, topic: &TopicName) -> Result<(), QueryError> {
        let catalog = self.snapshot();
        let readers = self.readers(&catalog, topic);
        for query in readers.iter().rev() {
            futures::executor::block_on(self.supervisor.stop(query.id.as_str()));
        }
        self.supervisor.forget_decoded();
        for query in readers {
            tracing::info!(query = %query.id, %topic, "a query is folded anew after a redaction");
            self.start_again(query);
        }
        Ok(())
    }

    /// Keeps what a query would fold again after a restart from being removed: everything from its start on, until there is a
    /// checkpoint of its state.
    fn hold(&self, catalog: &Catalog, query: &QueryDef) -> Result<(), QueryError> {
        for source in &query.sources {
            self.log.hold(query.id.as_str(), &catalog.find(self.log.as_ref(), source)?.topic, query.start)?;
        }
        Ok(())
    }

    fn queries(&self) -> Vec<QueryStatus> {
        let mut running: BTreeMap<String, QueryStatus> =
            self.supervisor.queries().into_iter().map(|status| (status.id.clone(), status)).collect();
        let failed = self.failed.read();
        let catalog = self.snapshot();
        let each = catalog.queries().filter_map(|query| {
            running.remove(query.id.as_str()).or_else(|| {
                let reason = failed.get(&query.id)?;
                Some(QueryStatus {
                    id: query.id.as_str().to_owned(),
                    sink: query.sink.clone(),
                    state: QueryState::Failed(reason.clone()),
                    frontier: query.start,
                    rows_in: 0,
                    rows_out: 0,
                    bad_rows: 0,
                    paused: catalog.is_paused(&query.id),
                    trouble: None,
                    kept: Vec::new(),
                    checkpoint: CheckpointStatus::default(),
                })
            })
        });
        each.collect()
    }

    /// The longest time for a request.
    fn timeout(&self, request: &Request) -> Duration {
        request.timeout.min(Duration::from_millis(self.config.max_timeout_ms))
    }

    /// Checks a change of the client's session, which the client makes.
    fn change_session(&self, mut session: Session, change: SessionChange) -> Result<Answer, QueryError> {
        session.apply(change.clone())?;
        let what = match &change {
            SessionChange::Set { name, value } => format!("{name} is {value} from now on"),
            SessionChange::Unset { name } => format!("{name} is as the server has it"),
            SessionChange::Define { name, value } => format!("${{{name}}} stands for {value}"),
            SessionChange::Undefine { name } => format!("{name} stands for nothing"),
        };
        Ok(Answer { session: Some(change), ..done(self.head(), what) })
    }

    /// The server's time.
    fn now(&self) -> Timestamp {
        self.log.clock().map_or_else(|| self.clock.now(), |clock| clock.server)
    }

    fn head(&self) -> Position {
        self.log.head().position
    }
}

/// The request with the values of its variables in its text.
fn substituted(request: Request) -> Result<Request, QueryError> {
    let sql = match request.session.substitute(&request.sql)? {
        Cow::Borrowed(_) => return Ok(request),
        Cow::Owned(sql) => sql,
    };
    Ok(Request { sql, ..request })
}

/// An answer without rows.
fn done(position: Position, what: String) -> Answer {
    let schema = Arc::new(Schema::empty());
    Answer { schema, keys: Vec::new(), batches: Batches::AtHand(None), position, done: Some(what), session: None }
}

/// An answer with the rows at hand.
fn rows(position: Position, columns: Vec<(&str, ArrayRef)>) -> Result<Answer, QueryError> {
    let fields = columns.iter().map(|(name, values)| Field::new(*name, values.data_type().clone(), true)).collect::<Vec<_>>();
    let schema = Arc::new(Schema::new(fields));
    let arrays = columns.into_iter().map(|(_, values)| values).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).map_err(|error| QueryError::Execution(error.to_string()))?;
    Ok(Answer { schema, keys: Vec::new(), batches: Batches::AtHand(Some(batch)), position, done: None, session: None })
}
