//! A small shop for stories told in SQL: orders as events, two views over them, a table of customers, and an engine.

#![allow(dead_code, reason = "each story uses its part")]

use std::{sync::Arc, time::Duration};

use arrow::util::display::array_value_to_string;
use bytes::Bytes;
use foldlog_log::{
    Append, Appended, EmbeddedLog, LogBackend, LogConfig, NewEvent, NewRecord, Position, TopicKind, Write, clock::SystemClock,
    disk::RealDisk,
};
use foldlog_query::{Answer, Engine, PushAnswer, QueryConfig, QueryError, Request, ScalarValue, Session, arrow::record_batch::RecordBatch};
use futures::TryStreamExt as _;

use super::common::{PATIENCE, create, topic};

pub struct Shop {
    pub log: Arc<EmbeddedLog>,
    _folder: tempfile::TempDir,
    pub engine: Engine,
}

/// A statement and what it is asked with.
pub fn request(sql: &str) -> Request {
    Request { sql: sql.to_owned(), parameters: Vec::new(), at_least: None, resume: None, timeout: PATIENCE, session: Session::default() }
}

impl Shop {
    pub async fn open() -> Self {
        Self::with(QueryConfig::default()).await
    }

    pub async fn with(config: QueryConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(SystemClock::new());
        let log = Arc::new(EmbeddedLog::open(Arc::new(RealDisk), clock, folder.path(), LogConfig::default().without_reserve()).unwrap());
        create(&*log, "orders", TopicKind::Events, 3);
        create(&*log, "customers", TopicKind::Table, 2);
        let engine = Engine::open(Arc::clone(&log) as Arc<dyn LogBackend>, Arc::new(SystemClock::new()), config).unwrap();
        let shop = Self { log, engine, _folder: folder };
        for statement in [
            "CREATE STREAM orders (item VARCHAR, amount BIGINT) WITH (topic = 'orders', value_format = 'json')",
            "CREATE TABLE customers (name VARCHAR PRIMARY KEY, city VARCHAR) WITH (topic = 'customers', value_format = 'json')",
            "CREATE TABLE totals AS SELECT stream AS customer, COUNT(*) AS n, SUM(amount) AS total FROM orders GROUP BY stream",
            "CREATE TABLE items AS SELECT item, SUM(amount) AS total FROM orders GROUP BY item",
        ] {
            shop.execute(statement).await;
        }
        shop
    }

    /// Orders of one customer, in one append.
    pub async fn order(&self, customer: &str, orders: &[(&str, i64)]) -> Appended {
        let event = |(item, amount): &(&str, i64)| {
            let data = format!(r#"{{"item":"{item}","amount":{amount}}}"#);
            NewEvent { kind: "Ordered".into(), data: data.into(), ..NewEvent::default() }
        };
        let events = orders.iter().map(event).collect();
        let write = Write::Stream { topic: topic("orders"), stream: customer.parse().unwrap(), events };
        self.log.append(Append { writes: vec![write], ..Append::default() }).unwrap().await.unwrap()
    }

    /// One record of the table of customers.
    pub async fn customer(&self, name: &str, value: Option<&str>) -> Appended {
        let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
        let record = NewRecord { key: Some(Bytes::copy_from_slice(name.as_bytes())), value, ..NewRecord::default() };
        let write = Write::Records { topic: topic("customers"), partition: None, records: vec![record] };
        self.log.append(Append { writes: vec![write], ..Append::default() }).unwrap().await.unwrap()
    }

    pub async fn ask(&self, request: Request) -> Result<Answer, QueryError> {
        self.engine.execute(request).await
    }

    pub async fn execute(&self, sql: &str) -> Vec<String> {
        lines_of(self.ask(request(sql)).await.unwrap_or_else(|fault| panic!("{sql}: {fault}"))).await.unwrap()
    }

    /// As [`Shop::execute`], once everything that is in the log now is reflected.
    pub async fn settled(&self, sql: &str) -> Vec<String> {
        let request = Request { at_least: Some(self.log.head().position), ..request(sql) };
        lines_of(self.ask(request).await.unwrap_or_else(|fault| panic!("{sql}: {fault}"))).await.unwrap()
    }

    /// Why a statement is refused, wherever on its way that shows.
    pub async fn refusal(&self, sql: &str) -> String {
        match self.ask(request(sql)).await {
            Err(fault) => fault.to_string(),
            Ok(answer) => match lines_of(answer).await {
                Err(fault) => fault.to_string(),
                Ok(rows) => panic!("{sql} was answered: {rows:?}"),
            },
        }
    }

    pub async fn push(&self, sql: &str) -> PushAnswer {
        self.engine.push(request(sql)).await.unwrap_or_else(|fault| panic!("{sql}: {fault}"))
    }

    pub async fn resume(&self, sql: &str, resume: Position) -> PushAnswer {
        self.engine.push(Request { resume: Some(resume.into()), ..request(sql) }).await.unwrap()
    }
}

/// A request with values for its parameters.
pub fn with_parameters(sql: &str, parameters: Vec<ScalarValue>) -> Request {
    Request { parameters, ..request(sql) }
}

/// A request that may not take long.
pub fn in_time(sql: &str, timeout: Duration) -> Request {
    Request { timeout, ..request(sql) }
}

/// The rows of an answer, columns separated by `|`, NULL as `-`.
pub async fn lines_of(answer: Answer) -> Result<Vec<String>, QueryError> {
    let batches: Vec<RecordBatch> = answer.batches.try_collect().await?;
    Ok(batches.iter().flat_map(lines).collect())
}

/// The rows of a batch, columns separated by `|`, NULL as `-`.
pub fn lines(batch: &RecordBatch) -> Vec<String> {
    let cell = |column: &arrow::array::ArrayRef, row| {
        if column.is_null(row) { "-".to_owned() } else { array_value_to_string(column, row).unwrap() }
    };
    (0..batch.num_rows()).map(|row| batch.columns().iter().map(|column| cell(column, row)).collect::<Vec<_>>().join("|")).collect()
}
