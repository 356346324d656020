//! The one thread that changes the catalog, so that what a statement checked still holds when it takes effect.
//!
//! Every change is first made durable in the catalog's topic, then seen by others, then acted upon.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use foldlog_log::{Append, Appended, Durability, LogError, NewRecord, PartitionId, Position, Purpose, TopicName, Write};
use futures::executor::block_on;
use tokio::sync::{mpsc, oneshot};

use super::{Core, done};
use crate::{
    answer::{Answer, Request},
    catalog::{CATALOG_TOPIC, Change},
    error::QueryError,
    sql::Statement,
    stack::with_stack,
};

/// Statements that may wait for their turn.
const WAITING: usize = 64;

/// The way to the thread. The thread ends when the last of these is gone.
#[derive(Clone)]
pub(super) struct Changes {
    core: Arc<Core>,
    asked: mpsc::Sender<Asked>,
    stopping: Arc<AtomicBool>,
}

/// What is to be done there.
type Work = Box<dyn FnOnce(&Core) -> Result<Answer, QueryError> + Send>;

struct Asked {
    work: Work,
    reply: oneshot::Sender<Result<Answer, QueryError>>,
}

impl Changes {
    pub(super) fn start(core: Arc<Core>) -> Result<Self, QueryError> {
        let (asked, mut waiting) = mpsc::channel::<Asked>(WAITING);
        let stopping = Arc::new(AtomicBool::new(false));
        let (worker, stop) = (Arc::clone(&core), Arc::clone(&stopping));
        let run = move || {
            while let Some(Asked { work, reply }) = waiting.blocking_recv() {
                // A statement is as deep as the guard lets it be, and is copied and dropped here.
                let answer = if stop.load(Ordering::Acquire) { Err(QueryError::Stopping) } else { with_stack(|| work(&worker)) };
                // Whoever asked may have stopped waiting; what was done stays done.
                drop(reply.send(answer));
            }
        };
        thread::Builder::new()
            .name("foldlog-catalog".to_owned())
            .spawn(run)
            .map_err(|error| QueryError::Execution(format!("no thread for the catalog: {error}")))?;
        Ok(Self { core, asked, stopping })
    }

    /// Makes one change.
    pub(super) async fn make(&self, statement: Statement, request: Request) -> Result<Answer, QueryError> {
        let timeout = self.core.timeout(&request);
        self.ask(timeout, Box::new(move |core| core.change(statement, &request))).await
    }

    /// Deletes a topic that no source is made of.
    pub(super) async fn delete_topic(&self, name: TopicName) -> Result<(), QueryError> {
        let timeout = Duration::from_millis(self.core.config.max_timeout_ms);
        self.ask(timeout, Box::new(move |core| core.delete_topic(&name))).await.map(drop)
    }

    /// Has the queries that read a topic fold anew.
    pub(super) async fn refold(&self, topic: TopicName) -> Result<(), QueryError> {
        let timeout = Duration::from_millis(self.core.config.max_timeout_ms);
        let work = move |core: &Core| {
            core.refold(&topic)?;
            Ok(done(core.head(), String::new()))
        };
        self.ask(timeout, Box::new(work)).await.map(drop)
    }

    /// Removes the checkpoints of the queries that read a topic.
    pub(super) async fn about_to_redact(&self, topic: TopicName) -> Result<(), QueryError> {
        let timeout = Duration::from_millis(self.core.config.max_timeout_ms);
        let work = move |core: &Core| {
            core.about_to_redact(&topic)?;
            Ok(done(core.head(), String::new()))
        };
        self.ask(timeout, Box::new(work)).await.map(drop)
    }

    /// Takes them again.
    pub(super) async fn not_redacted(&self, topic: TopicName) -> Result<(), QueryError> {
        let timeout = Duration::from_millis(self.core.config.max_timeout_ms);
        let work = move |core: &Core| {
            core.not_redacted(&topic);
            Ok(done(core.head(), String::new()))
        };
        self.ask(timeout, Box::new(work)).await.map(drop)
    }

    async fn ask(&self, timeout: Duration, work: Work) -> Result<Answer, QueryError> {
        let (reply, answered) = oneshot::channel();
        let asked = Asked { work, reply };
        let answer = async {
            self.asked.send(asked).await.map_err(|_| QueryError::Stopping)?;
            answered.await.map_err(|_| QueryError::Stopping)?
        };
        tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| {
            Err(QueryError::Timeout {
                what: "the statement (it may still take effect)".to_owned(),
                limit_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            })
        })
    }

    /// Refuses what comes from now on.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }
}

impl Core {
    fn change(&self, statement: Statement, request: &Request) -> Result<Answer, QueryError> {
        match statement {
            Statement::CreateSource(create) => self.create_source(create, request),
            Statement::CreateAs(create) => self.create_as(&create, request),
            Statement::InsertValues(insert) => self.insert(&insert, request),
            Statement::InsertSelect(insert) => self.insert_select(&insert, request),
            Statement::CreateType { name, if_not_exists, data_type } => self.create_type(name, if_not_exists, &data_type),
            Statement::DropType { name, if_exists } => self.drop_type(name, if_exists),
            Statement::Delete(delete) => self.delete(&delete, request),
            Statement::Alter(alter) => self.alter(alter, request),
            Statement::Drop(drop) => self.drop_source(&drop),
            Statement::ChangeQueries { action, query } => self.change_queries(action, query.as_deref()),
            _ => Err(QueryError::Execution("this statement changes nothing".to_owned())),
        }
    }

    /// Makes a change durable, then lets everyone see it. Returns the end of its record.
    pub(super) fn commit(&self, change: &Change) -> Result<Position, QueryError> {
        let record = NewRecord { value: Some(Bytes::from(change.encode()?)), ..NewRecord::default() };
        let topic = CATALOG_TOPIC.parse().map_err(LogError::from)?;
        let write = Write::Records { topic, partition: Some(PartitionId::new(0)), records: vec![record] };
        let purpose = match change {
            Change::Create { .. } | Change::Insert { .. } | Change::Replace { .. } | Change::CreateType { .. } => Purpose::Data,
            Change::Drop { .. } | Change::DropType { .. } | Change::Terminate { .. } | Change::Pause { .. } | Change::Resume { .. } => {
                Purpose::Upkeep
            }
        };
        let appended = self.append_for(purpose, write)?;
        let mut catalog = (*self.snapshot()).clone();
        catalog.apply(change);
        *self.catalog.write() = Arc::new(catalog);
        Ok(appended.end)
    }

    /// Appends and waits until it is durable (blocking): the answer to a statement names no weaker level.
    pub(super) fn append(&self, write: Write) -> Result<Appended, QueryError> {
        self.append_for(Purpose::Data, write)
    }

    fn append_for(&self, purpose: Purpose, write: Write) -> Result<Appended, QueryError> {
        let append = Append { writes: vec![write], durability: Some(Durability::Synced), purpose, ..Append::default() };
        Ok(block_on(self.log.append(append)?)?)
    }

    pub(super) fn end_query(&self, query: &crate::catalog::QueryId) {
        block_on(self.supervisor.stop(query.as_str()));
        self.log.release(query.as_str());
        self.failed.write().remove(query);
    }
}
