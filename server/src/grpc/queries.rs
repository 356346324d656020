//! The service `Query`: thin.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    time::Duration,
};

use bytes::Bytes;
use foldlog_log::{Position, TopicId};
use foldlog_proto::v1::{self as pb, query_batch::Message, query_server};
use foldlog_query::{Batches, PushItem, Request as Statement, Resume, Session, SessionChange};
use futures::{Stream, StreamExt as _, stream};
use tonic::{Request, Response, Status};

use super::{
    convert,
    rows::{self, Encoding},
};
use crate::{
    app::{App, StreamPlace},
    failure::Failure,
    idle::Sent,
    token::Tokens,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Answers the calls of `Query`.
pub struct Queries(pub App);

/// Whether a path names a method of this service. Routed by hand: what a lookup does itself takes less time than a router.
pub fn is_ours(path: &str) -> bool {
    let method = path.strip_prefix('/').and_then(|path| path.strip_prefix(query_server::SERVICE_NAME));
    method.is_some_and(|method| method.starts_with('/'))
}

type Messages = Pin<Box<dyn Stream<Item = Result<pb::QueryBatch, Status>> + Send>>;

#[tonic::async_trait]
impl query_server::Query for Queries {
    type ExecuteStream = Messages;
    type PushStream = Messages;

    async fn execute(&self, request: Request<pb::QueryRequest>) -> Result<Response<Messages>, Status> {
        match execute(&self.0, request.into_inner()).await {
            // Nothing is held but the messages themselves: they leave as the answer of any other call.
            Ok(Executed::AtHand(messages)) => Ok(Response::new(Box::pin(stream::iter(messages).map(Ok)))),
            Ok(Executed::Coming(answering)) => Ok(self.guarded(answering.messages(), Position::default())),
            Err(failure) => Err(self.0.refuse(failure)),
        }
    }

    async fn push(&self, request: Request<pb::QueryRequest>) -> Result<Response<Messages>, Status> {
        let messages = push(&self.0, request.into_inner()).await;
        messages.map(|(messages, from)| self.guarded(messages, from)).map_err(|failure| self.0.refuse(failure))
    }
}

impl Queries {
    /// Ends the stream when its client takes nothing for too long, and translates failures.
    fn guarded(
        &self,
        messages: impl Stream<Item = Result<pb::QueryBatch, Failure>> + Send + 'static,
        from: Position,
    ) -> Response<Messages> {
        let app = self.0.clone();
        let guarded = app.idle.guard(messages, from, Failure::slow_reader);
        Response::new(Box::pin(guarded.map(move |message| message.map_err(|failure| app.refuse(failure)))))
    }
}

impl Sent for pb::QueryBatch {
    fn sent_to(&self) -> Option<Position> {
        match self.message.as_ref()? {
            // A message with a position in the middle of a change has no resume token.
            Message::Rows(rows) => (!rows.resume.is_empty()).then(|| Position::new(rows.position)),
            Message::Progress(progress) => Some(Position::new(progress.position)),
            Message::Schema(_) | Message::Done(_) => None,
        }
    }
}

fn statement(request: pb::QueryRequest, tokens: &Tokens) -> Result<Statement, Failure> {
    let parameters = request.parameters.into_iter().enumerate();
    Ok(Statement {
        parameters: parameters.map(|(place, value)| rows::parameter(value, place)).collect::<Result<_, _>>()?,
        at_least: tokens.read("at_least", &request.at_least)?,
        resume: tokens.read_of("resume", &request.resume)?.map(|(position, topic)| Resume { position, topic }),
        timeout: convert::duration(request.timeout, DEFAULT_TIMEOUT, MAX_TIMEOUT, "timeout")?,
        sql: request.sql,
        session: session(request.settings, request.variables)?,
    })
}

/// The session that a client sent along.
fn session(settings: BTreeMap<String, String>, variables: BTreeMap<String, String>) -> Result<Session, Failure> {
    let mut session = Session::default();
    let settings = settings.into_iter().map(|(name, value)| SessionChange::Set { name, value });
    let variables = variables.into_iter().map(|(name, value)| SessionChange::Define { name, value });
    for change in settings.chain(variables) {
        session.apply(change)?;
    }
    Ok(session)
}

fn session_change(change: SessionChange) -> pb::SessionChange {
    use pb::session_change::Kind;
    let (kind, name, value) = match change {
        SessionChange::Set { name, value } => (Kind::Setting, name, Some(value)),
        SessionChange::Unset { name } => (Kind::Setting, name, None),
        SessionChange::Define { name, value } => (Kind::Variable, name, Some(value)),
        SessionChange::Undefine { name } => (Kind::Variable, name, None),
    };
    pb::SessionChange { kind: kind.into(), name, value }
}

const fn message(message: Message) -> pb::QueryBatch {
    pb::QueryBatch { message: Some(message) }
}

/// The answer to a statement that ends.
enum Executed {
    /// All of its messages.
    AtHand(Vec<pb::QueryBatch>),
    /// Messages as they are computed.
    Coming(Box<Answering>),
}

async fn execute(app: &App, request: pb::QueryRequest) -> Result<Executed, Failure> {
    let stage = app.stage()?;
    let tokens = stage.tokens;
    let asked = request.encoding;
    let statement = statement(request, &tokens)?;
    if statement.resume.is_some() {
        return Err(Failure::invalid("resume", "only push queries are resumed"));
    }
    let place = app.stream_place()?;
    app.metrics.statements.inc();
    let answer = stage.engine.execute(statement).await?;
    let (mut encoding, schema) = Encoding::begin(asked, &answer.schema, &answer.keys)?;
    let done = pb::QueryDone {
        position: answer.position.get(),
        token: tokens.make(answer.position),
        message: answer.done.unwrap_or_default(),
        session: answer.session.map(session_change),
    };
    let schema = message(Message::Schema(schema));
    if let Batches::AtHand(batch) = answer.batches {
        let rows = batch.map(|batch| encoding.rows(&batch, &[])).transpose()?.unwrap_or_default();
        let rows = rows.into_iter().map(|rows| message(Message::Rows(rows)));
        let messages = std::iter::once(schema).chain(rows).chain([message(Message::Done(done))]);
        return Ok(Executed::AtHand(messages.collect()));
    }
    let answering = Answering { batches: answer.batches, encoding, ready: VecDeque::from([schema]), done: Some(done), _place: place };
    Ok(Executed::Coming(Box::new(answering)))
}

struct Answering {
    batches: Batches,
    encoding: Encoding,
    ready: VecDeque<pb::QueryBatch>,
    done: Option<pb::QueryDone>,
    _place: StreamPlace,
}

impl Answering {
    fn messages(self) -> impl Stream<Item = Result<pb::QueryBatch, Failure>> {
        stream::try_unfold(self, |mut answering| async move { Ok(answering.next().await?.map(|message| (message, answering))) })
    }

    async fn next(&mut self) -> Result<Option<pb::QueryBatch>, Failure> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Ok(Some(ready));
            }
            if self.done.is_none() {
                return Ok(None);
            }
            let Some(batch) = self.batches.next().await else {
                return Ok(self.done.take().map(|done| message(Message::Done(done))));
            };
            let rows = self.encoding.rows(&batch?, &[])?;
            self.ready.extend(rows.into_iter().map(|rows| message(Message::Rows(rows))));
        }
    }
}

async fn push(
    app: &App,
    request: pb::QueryRequest,
) -> Result<(impl Stream<Item = Result<pb::QueryBatch, Failure>> + use<>, Position), Failure> {
    let stage = app.stage()?;
    let tokens = stage.tokens;
    let asked = request.encoding;
    let statement = statement(request, &tokens)?;
    let from = statement.resume.map(|resume| resume.position).unwrap_or_default();
    let place = app.stream_place()?;
    app.metrics.statements.inc();
    let answer = Box::pin(stage.engine.push(statement)).await?;
    let (encoding, schema) = Encoding::begin(asked, &answer.schema, &answer.keys)?;
    let following = Following {
        app: app.clone(),
        tokens,
        topic: answer.topic,
        items: answer.items,
        encoding,
        ready: VecDeque::from([message(Message::Schema(schema))]),
        position: from,
        over: false,
        _place: place,
    };
    let messages =
        stream::try_unfold(following, |mut following| async move { Ok(following.next().await?.map(|message| (message, following))) });
    Ok((messages, from))
}

struct Following {
    app: App,
    tokens: Tokens,
    /// The topic that a place of it is of.
    topic: Option<TopicId>,
    items: Pin<Box<dyn Stream<Item = Result<PushItem, foldlog_query::QueryError>> + Send>>,
    encoding: Encoding,
    ready: VecDeque<pb::QueryBatch>,
    position: Position,
    over: bool,
    _place: StreamPlace,
}

impl Following {
    /// To go on behind a position.
    fn token(&self, position: Position) -> Bytes {
        self.topic.map_or_else(|| self.tokens.make(position), |topic| self.tokens.make_of(position, topic))
    }

    async fn next(&mut self) -> Result<Option<pb::QueryBatch>, Failure> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Ok(Some(ready));
            }
            if self.over {
                return Ok(None);
            }
            let item = tokio::select! {
                biased;
                () = self.app.tasks.drained() => return Err(Failure::draining().with(crate::failure::Detail::Position(self.position))),
                item = self.items.next() => item,
            };
            match item {
                None => {
                    self.over = true;
                    let (position, token) = (self.position.get(), self.token(self.position));
                    return Ok(Some(message(Message::Done(pb::QueryDone { position, token, ..pb::QueryDone::default() }))));
                }
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(PushItem::Progress(position))) => {
                    self.position = position;
                    let resume = self.token(position);
                    return Ok(Some(message(Message::Progress(pb::QueryProgress { position: position.get(), resume }))));
                }
                Some(Ok(PushItem::Changes { rows, ops, position })) => {
                    let mut messages = self.encoding.rows(&rows, &rows::marks(&ops))?;
                    // Only the last part completes the change: resuming in its middle would lose the rest.
                    if let Some(last) = messages.last_mut() {
                        last.resume = self.token(position);
                        last.position = position.get();
                    }
                    self.position = position;
                    self.ready.extend(messages.into_iter().map(|rows| message(Message::Rows(rows))));
                }
            }
        }
    }
}
