//! SQL: statements that end ([`Client::query`]) and queries that do not ([`Client::push`]).

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use foldlog_proto::v1::{self, query_batch::Message};
use futures::stream::{self, Stream};
use serde::de::DeserializeOwned;
use tonic::Streaming;

use crate::{
    client::Client,
    error::Error,
    event::Token,
    value::{Columns, Row, Value, columns, rows},
};

impl Client {
    /// Begins a statement that ends: DDL, INSERT, a SELECT of what is.
    ///
    /// ```no_run
    /// # async fn example(client: foldlog_sdk::Client) -> Result<(), foldlog_sdk::Error> {
    /// let owner: String = client.query("SELECT owner FROM accounts WHERE id = $1").bind("account-1").one().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn query(&self, sql: impl Into<String>) -> Query {
        Query { client: self.clone(), request: v1::QueryRequest { sql: sql.into(), ..v1::QueryRequest::default() }, invalid: None }
    }

    /// Begins a `SELECT ... EMIT CHANGES`: the rows that are, then each change.
    pub fn push(&self, sql: impl Into<String>) -> Push {
        Push { client: self.clone(), request: v1::QueryRequest { sql: sql.into(), ..v1::QueryRequest::default() }, invalid: None }
    }
}

/// Settings and variables of a series of statements, as SET and DEFINE make them. The server keeps none: they go along with each
/// statement ([`Query::session`], [`Push::session`]), and what a statement changes of them is in its [`Done`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SqlSession {
    settings: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
}

impl SqlSession {
    /// Without settings and variables: statements are read by the server's own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a setting its value, as `SET 'name' = 'value'` does; the server checks it with the next statement.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(name.into(), value.into());
        self
    }

    /// Makes the change that a statement asked for, if it did.
    pub fn apply(&mut self, done: &Done) {
        use v1::session_change::Kind;
        let Some(change) = &done.session else { return };
        let changed = match change.kind() {
            Kind::Setting => &mut self.settings,
            Kind::Variable => &mut self.variables,
            Kind::Unspecified => return,
        };
        match &change.value {
            Some(value) => changed.insert(change.name.clone(), value.clone()),
            None => changed.remove(&change.name),
        };
    }

    /// The value that the session gives a setting, if it does.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    fn put_into(&self, request: &mut v1::QueryRequest) {
        request.settings.clone_from(&self.settings);
        request.variables.clone_from(&self.variables);
    }
}

/// A statement that is being put together.
#[derive(Debug)]
#[must_use = "nothing is executed before `run`, `all`, `one` or `execute`"]
pub struct Query {
    client: Client,
    request: v1::QueryRequest,
    invalid: Option<Error>,
}

impl Query {
    /// Gives the value of the next parameter: first `$1`, then `$2`.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        bind(&mut self.request, &mut self.invalid, value.into());
        self
    }

    /// Reflects at least what `token` stands for: waits for it, within the time for the whole.
    pub fn at_least(mut self, token: Token) -> Self {
        self.request.at_least = Token::into_proto(Some(token));
        self
    }

    /// Executes it with the settings and variables of a session.
    pub fn session(mut self, session: &SqlSession) -> Self {
        session.put_into(&mut self.request);
        self
    }

    /// Longest time for waiting and computing together; 60 s unless given.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = prost_types::Duration::try_from(timeout).ok();
        self
    }

    /// Executes the statement; rows come as they are computed.
    ///
    /// # Errors
    /// If the statement is refused. It is not repeated: nobody knows whether it may be.
    pub async fn run(self) -> Result<Answer, Error> {
        let Self { client, request, invalid } = self;
        if let Some(invalid) = invalid {
            return Err(invalid);
        }
        let mut batches = client.queries().execute(request).await.map_err(|status| client.error(status))?.into_inner();
        let columns = first_schema(&client, &mut batches).await?;
        Ok(Answer { client, columns, batches, rows: VecDeque::new(), done: None })
    }

    /// Executes the statement and waits for its end; rows, if any, are dropped.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn execute(self) -> Result<Done, Error> {
        let mut answer = self.run().await?;
        while answer.next().await?.is_some() {}
        answer.done().cloned().ok_or_else(cut_off)
    }

    /// Executes the statement and returns all rows, see [`Row::to`].
    ///
    /// # Errors
    /// As [`Self::run`], and if a row does not fit.
    pub async fn all<T: DeserializeOwned>(self) -> Result<Vec<T>, Error> {
        let mut answer = self.run().await?;
        let mut all = Vec::new();
        while let Some(row) = answer.next().await? {
            all.push(row.to()?);
        }
        Ok(all)
    }

    /// Executes the statement and returns its only row, or none.
    ///
    /// # Errors
    /// As [`Self::all`], and if there are several rows.
    pub async fn optional<T: DeserializeOwned>(self) -> Result<Option<T>, Error> {
        let mut answer = self.run().await?;
        let Some(row) = answer.next().await? else { return Ok(None) };
        if answer.next().await?.is_some() {
            return Err(Error::Invalid("the statement has several rows where one was asked for; add LIMIT 1 if any will do".into()));
        }
        row.to().map(Some)
    }

    /// Executes the statement and returns its only row.
    ///
    /// # Errors
    /// As [`Self::all`], and if there is not exactly one row.
    pub async fn one<T: DeserializeOwned>(self) -> Result<T, Error> {
        self.optional().await?.ok_or_else(|| Error::Invalid("the statement has no row where one was asked for".into()))
    }
}

fn bind(request: &mut v1::QueryRequest, invalid: &mut Option<Error>, value: Value) {
    match value.into_parameter() {
        Ok(value) => request.parameters.push(value),
        Err(error) => *invalid = invalid.take().or(Some(error)),
    }
}

async fn first_schema(client: &Client, batches: &mut Streaming<v1::QueryBatch>) -> Result<Columns, Error> {
    match batches.message().await.map_err(|status| client.error(status))?.and_then(|batch| batch.message) {
        Some(Message::Schema(schema)) => columns(schema),
        _ => Err(Error::Protocol("an answer that does not begin with its columns".into())),
    }
}

fn cut_off() -> Error {
    Error::Protocol("the answer ended before its end".into())
}

/// An answer as it comes. Dropping it cancels what is left.
#[derive(Debug)]
pub struct Answer {
    client: Client,
    columns: Columns,
    batches: Streaming<v1::QueryBatch>,
    rows: VecDeque<Row>,
    done: Option<Done>,
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The position at which everything was read (exclusive); for a statement that changed something, the end of its change.
    pub position: u64,
    /// Calls with it reflect at least this position.
    pub token: Token,
    /// What a statement other than a SELECT did, in a sentence; empty for a SELECT.
    pub message: String,
    /// What it changes of its session, see [`SqlSession::apply`].
    session: Option<v1::SessionChange>,
}

impl Done {
    fn from_proto(done: v1::QueryDone) -> Self {
        Self { position: done.position, token: Token::from_bytes(done.token), message: done.message, session: done.session }
    }
}

impl Answer {
    /// The columns of every row.
    #[must_use]
    pub const fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The next row; none at the end. Cancel-safe.
    ///
    /// # Errors
    /// If the query fails on its way.
    pub async fn next(&mut self) -> Result<Option<Row>, Error> {
        loop {
            if let Some(row) = self.rows.pop_front() {
                return Ok(Some(row));
            }
            if self.done.is_some() {
                return Ok(None);
            }
            let batch = self.batches.message().await.map_err(|status| self.client.error(status))?.ok_or_else(cut_off)?;
            match batch.message {
                Some(Message::Rows(batch)) => self.rows = rows(&self.columns, batch)?.into(),
                Some(Message::Done(done)) => self.done = Some(Done::from_proto(done)),
                Some(Message::Progress(_)) => {}
                Some(Message::Schema(_)) | None => return Err(Error::Protocol("an unexpected message within an answer".into())),
            }
        }
    }

    /// How it ended; known once [`Self::next`] has said that there is no more.
    #[must_use]
    pub const fn done(&self) -> Option<&Done> {
        self.done.as_ref()
    }

    /// The rows as a stream; it ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Row, Error>> + Send {
        stream::try_unfold(self, |mut answer| async move { Ok(answer.next().await?.map(|row| (row, answer))) })
    }
}

/// A push query that is being put together.
#[derive(Debug)]
#[must_use = "nothing is asked before `start`"]
pub struct Push {
    client: Client,
    request: v1::QueryRequest,
    invalid: Option<Error>,
}

impl Push {
    /// Gives the value of the next parameter: first `$1`, then `$2`.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        bind(&mut self.request, &mut self.invalid, value.into());
        self
    }

    /// Begins with a state that reflects at least what `token` stands for.
    pub fn at_least(mut self, token: Token) -> Self {
        self.request.at_least = Token::into_proto(Some(token));
        self
    }

    /// Follows it with the settings and variables of a session.
    pub fn session(mut self, session: &SqlSession) -> Self {
        session.put_into(&mut self.request);
        self
    }

    /// Goes on right behind the [`Changes`] that `token` came with. Over a view this begins with the rows as they are then, each of
    /// which replaces what was known of its key.
    pub fn resume(mut self, token: Token) -> Self {
        self.request.resume = Token::into_proto(Some(token));
        self
    }

    /// Starts the query.
    ///
    /// # Errors
    /// If the statement is refused.
    pub async fn start(self) -> Result<Pushed, Error> {
        let Self { client, request, invalid } = self;
        if let Some(invalid) = invalid {
            return Err(invalid);
        }
        let mut batches = client.queries().push(request).await.map_err(|status| client.error(status))?.into_inner();
        let columns = first_schema(&client, &mut batches).await?;
        Ok(Pushed { client, columns, batches, ended: false })
    }
}

/// What happened to a row of a changing result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// `+I`: a row that was not there.
    Insert,
    /// `-U`: the row before an update.
    UpdateBefore,
    /// `+U`: the row after an update.
    UpdateAfter,
    /// `-D`: a row that is gone.
    Delete,
}

impl Mark {
    /// The mark as people write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "+I",
            Self::UpdateBefore => "-U",
            Self::UpdateAfter => "+U",
            Self::Delete => "-D",
        }
    }

    /// Whether the row is there after the change.
    #[must_use]
    pub const fn is_present(self) -> bool {
        matches!(self, Self::Insert | Self::UpdateAfter)
    }

    fn from_byte(byte: u8) -> Result<Self, Error> {
        match v1::ChangeMark::try_from(i32::from(byte)) {
            Ok(v1::ChangeMark::Insert) => Ok(Self::Insert),
            Ok(v1::ChangeMark::UpdateBefore) => Ok(Self::UpdateBefore),
            Ok(v1::ChangeMark::UpdateAfter) => Ok(Self::UpdateAfter),
            Ok(v1::ChangeMark::Delete) => Ok(Self::Delete),
            Ok(v1::ChangeMark::Unspecified) | Err(_) => Err(Error::Protocol(format!("change mark {byte} is not known here"))),
        }
    }
}

/// Changed rows that came together.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// The rows with their marks, in order; none if nothing changed up to `position`.
    pub rows: Vec<(Mark, Row)>,
    /// The changes below this position (exclusive) are complete.
    pub position: u64,
    /// To go on right behind these rows; none in the middle of a long batch.
    pub resume: Option<Token>,
}

/// A push query under way. Dropping it ends it.
#[derive(Debug)]
pub struct Pushed {
    client: Client,
    columns: Columns,
    batches: Streaming<v1::QueryBatch>,
    ended: bool,
}

impl Pushed {
    /// The columns of every row.
    #[must_use]
    pub const fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The next changes; none when the query has reached its LIMIT. Cancel-safe.
    ///
    /// # Errors
    /// If the query fails or the connection breaks; resume with the newest token.
    pub async fn next(&mut self) -> Result<Option<Changes>, Error> {
        if self.ended {
            return Ok(None);
        }
        let batch = self.batches.message().await.map_err(|status| self.client.error(status))?.ok_or_else(cut_off)?;
        match batch.message {
            Some(Message::Rows(batch)) => self.changes(batch).map(Some),
            Some(Message::Progress(progress)) => {
                Ok(Some(Changes { rows: Vec::new(), position: progress.position, resume: token(progress.resume) }))
            }
            Some(Message::Done(_)) => {
                self.ended = true;
                Ok(None)
            }
            Some(Message::Schema(_)) | None => Err(Error::Protocol("an unexpected message within an answer".into())),
        }
    }

    fn changes(&self, batch: v1::Rows) -> Result<Changes, Error> {
        let (marks, position, resume) = (batch.marks.clone(), batch.position, token(batch.resume.clone()));
        let rows = rows(&self.columns, batch)?;
        if marks.len() != rows.len() {
            return Err(Error::Protocol(format!("{} change marks for {} rows", marks.len(), rows.len())));
        }
        let rows = marks.iter().zip(rows).map(|(mark, row)| Ok((Mark::from_byte(*mark)?, row))).collect::<Result<_, Error>>()?;
        Ok(Changes { rows, position, resume })
    }

    /// The changes as a stream; it ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Changes, Error>> + Send {
        stream::try_unfold(self, |mut pushed| async move { Ok(pushed.next().await?.map(|changes| (changes, pushed))) })
    }
}

fn token(bytes: bytes::Bytes) -> Option<Token> {
    (!bytes.is_empty()).then(|| Token::from_bytes(bytes))
}
