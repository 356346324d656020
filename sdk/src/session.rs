//! Append sessions: units sent one behind the other without waiting, each in effect once, also when the connection breaks.
//!
//! A task of its own keeps what is not answered, and sends it again over a new connection. It holds no more than the server's credit,
//! so [`AppendSession::send`] waits where the server does not keep up.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use bytes::Bytes;
use foldlog_proto::v1::{self, append_session_request, append_session_response};
use futures::stream;
use prost::Message as _;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tonic::{Code, Status, Streaming};

use crate::{
    append::{Append, name_topics},
    client::{CALL_TIMEOUT, Client, LONGEST_PAUSE, Pauses},
    durability::Durability,
    error::Error,
    event::Token,
};

/// Most units that are kept here and not answered.
const MOST_UNITS: usize = 4096;
/// A message is sent when it has so many bytes, or nothing more is there to be sent.
const MESSAGE_BYTES: usize = 128 << 10;
/// Most events, and most preconditions, of a message: the server's limit.
const MESSAGE_EVENTS: usize = 10_000;
/// Units that may be in line before the task that sends them takes them.
const LINE: usize = 256;

impl Client {
    /// Opens a session of a new producer.
    ///
    /// ```no_run
    /// # async fn example(client: foldlog_sdk::Client) -> Result<(), foldlog_sdk::Error> {
    /// use foldlog_sdk::{Expected, NewEvent};
    ///
    /// let mut session = client.append_session().await?;
    /// let mut tickets = Vec::new();
    /// for version in 0..1000_u64 {
    ///     let event = NewEvent::json("Counted", &version)?;
    ///     let expected = Expected::seen((version > 0).then_some(version));
    ///     tickets.push(session.send(client.append("counters").expect("one", expected).event("one", event)).await?);
    /// }
    /// for ticket in tickets {
    ///     println!("position {}", ticket.await?.first_position);
    /// }
    /// session.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the server cannot be reached, or has no room for a session.
    pub async fn append_session(&self) -> Result<AppendSession, Error> {
        self.append_session_of(*uuid::Uuid::new_v4().as_bytes()).await
    }

    /// Opens a session of a producer that may have been here before: sessions of the same producer that are still open somewhere
    /// are ended. [`AppendSession::next_sequence`] tells how many units it has ever appended, so that it can go on behind them.
    ///
    /// # Errors
    /// As [`Self::append_session`].
    #[expect(clippy::disallowed_methods, reason = "a library has no tracker; the task ends with the session")]
    pub async fn append_session_of(&self, producer: [u8; 16]) -> Result<AppendSession, Error> {
        let producer_id = Bytes::copy_from_slice(&producer);
        let (connection, opened) = Connection::open(self, v1::SessionOpen { producer_id: producer_id.clone(), epoch: None }).await?;
        let (units, line) = mpsc::channel(LINE);
        let ended = Arc::new(OnceLock::new());
        let driver = Driver {
            client: self.clone(),
            open: v1::SessionOpen { producer_id, epoch: Some(opened.epoch) },
            line,
            pending: VecDeque::new(),
            held: 0,
            sent: 0,
            pauses: Pauses::default(),
            ended: Arc::clone(&ended),
        };
        let driver = tokio::spawn(driver.run(connection));
        Ok(AppendSession { producer, next: opened.next_sequence, units, ended, driver })
    }
}

/// A session of a producer. What was sent goes on when it is dropped; [`Self::close`] waits for it.
#[derive(Debug)]
pub struct AppendSession {
    producer: [u8; 16],
    next: u64,
    units: mpsc::Sender<Unit>,
    /// Why nothing is sent any more.
    ended: Arc<OnceLock<Arc<Error>>>,
    driver: JoinHandle<()>,
}

impl AppendSession {
    /// Puts a unit in line behind those before; waits while too much is not answered. Each is judged for itself: one that is refused
    /// holds up none behind it. To chain units, expect the version that the one before leaves. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::SessionEnded`] when the session has ended.
    pub async fn send(&mut self, append: Append) -> Result<Ticket, Error> {
        let sequence = self.next;
        let Ok(place) = self.units.reserve().await else { return Err(ended(sequence, &self.ended)) };
        let (reply, answer) = oneshot::channel();
        let request = append.into_unit();
        place.send(Unit { sequence, bytes: request.encoded_len(), request, reply });
        self.next += 1;
        Ok(Ticket { sequence, answer, ended: Arc::clone(&self.ended) })
    }

    /// The producer's id.
    #[must_use]
    pub const fn producer(&self) -> [u8; 16] {
        self.producer
    }

    /// The sequence of the unit that is sent next; units are numbered from 1, over all sessions of the producer.
    #[must_use]
    pub const fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Waits until all that was sent is answered, and ends the session.
    ///
    /// # Errors
    /// [`Error::SessionEnded`] if it ended before.
    pub async fn close(self) -> Result<(), Error> {
        let Self { next, units, ended: why, driver, .. } = self;
        drop(units);
        let finished = driver.await.is_ok();
        if why.get().is_some() || !finished { Err(ended(next, &why)) } else { Ok(()) }
    }
}

fn ended(sequence: u64, why: &OnceLock<Arc<Error>>) -> Error {
    let source = why.get().cloned().unwrap_or_else(|| Arc::new(Error::Protocol("the session's task has ended".into())));
    Error::SessionEnded { sequence, source }
}

/// The answer to a unit, to be awaited.
#[derive(Debug)]
#[must_use = "whether the unit was refused is told here alone"]
pub struct Ticket {
    sequence: u64,
    answer: oneshot::Receiver<Result<UnitAppended, Error>>,
    ended: Arc<OnceLock<Arc<Error>>>,
}

impl Ticket {
    /// Its unit's sequence.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl Future for Ticket {
    type Output = Result<UnitAppended, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(context));
        Poll::Ready(answer.unwrap_or_else(|_| Err(ended(self.sequence, &self.ended))))
    }
}

/// The answer to a unit of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitAppended {
    /// Its sequence.
    pub sequence: u64,
    /// Position of its first event.
    pub first_position: u64,
    /// Position of its last event (inclusive).
    pub last_position: u64,
    /// Reads and queries with it reflect this unit.
    pub token: Token,
    /// Whether it was appended before, and sent again because the connection was lost.
    pub deduplicated: bool,
    /// How durable it is; that of a repeat is always synced.
    pub durability: Durability,
}

/// A unit that is not answered.
#[derive(Debug)]
struct Unit {
    sequence: u64,
    bytes: usize,
    request: v1::AppendRequest,
    reply: oneshot::Sender<Result<UnitAppended, Error>>,
}

impl Unit {
    fn events(&self) -> usize {
        self.request.writes.iter().map(|write| write.events.len()).sum()
    }
}

/// An open session on the wire.
struct Connection {
    requests: mpsc::Sender<v1::AppendSessionRequest>,
    answers: Streaming<v1::AppendSessionResponse>,
    credit_bytes: u64,
    credit_units: usize,
    /// Bytes that were sent and not answered.
    owed: u64,
}

impl Connection {
    async fn open(client: &Client, open: v1::SessionOpen) -> Result<(Self, v1::SessionOpened), Error> {
        // There is room for a message a unit, so that none has to wait here.
        let (requests, outgoing) = mpsc::channel(MOST_UNITS + 1);
        let first = v1::AppendSessionRequest { message: Some(append_session_request::Message::Open(open)) };
        let gone = |_| Error::Protocol("the session's stream has ended".into());
        requests.try_send(first).map_err(gone)?;
        let outgoing = stream::unfold(outgoing, |mut outgoing| async move { Some((outgoing.recv().await?, outgoing)) });
        let told = |status| client.error(status);
        let mut answers = client.log().append_session(outgoing).await.map_err(told)?.into_inner();
        let answer = answers.message().await.map_err(told)?.and_then(|answer| answer.message);
        let Some(append_session_response::Message::Opened(opened)) = answer else {
            return Err(Error::Protocol("a session did not begin with its opening".into()));
        };
        let credit_units = usize::try_from(opened.credit_units).unwrap_or(MOST_UNITS).clamp(1, MOST_UNITS);
        Ok((Self { requests, answers, credit_bytes: opened.credit_bytes, credit_units, owed: 0 }, opened))
    }
}

/// Sends, receives, and connects again.
struct Driver {
    client: Client,
    /// How the session is opened again.
    open: v1::SessionOpen,
    line: mpsc::Receiver<Unit>,
    pending: VecDeque<Unit>,
    /// Their bytes.
    held: usize,
    /// How many of them were sent over the present connection.
    sent: usize,
    pauses: Pauses,
    ended: Arc<OnceLock<Arc<Error>>>,
}

impl Driver {
    async fn run(mut self, mut connection: Connection) {
        while let Err(error) = self.serve(&mut connection).await {
            match self.connect_again(error).await {
                Ok(again) => connection = again,
                Err(error) => return self.end(error),
            }
        }
    }

    /// Until everything is answered and nobody sends any more, or the connection breaks.
    async fn serve(&mut self, connection: &mut Connection) -> Result<(), Error> {
        let mut is_open = true;
        while is_open || !self.pending.is_empty() {
            self.send(connection)?;
            let has_room = is_open && self.has_room(connection);
            tokio::select! {
                biased;
                answer = connection.answers.message() => {
                    let ended = || Status::unavailable("the server ended the session");
                    let answer = answer.and_then(|answer| answer.ok_or_else(ended)).map_err(|status| self.client.error(status))?;
                    self.take(answer, connection)?;
                }
                unit = self.line.recv(), if has_room => {
                    is_open = unit.is_some();
                    self.keep(unit);
                    // What else is there goes into the same message.
                    while self.has_room(connection) && let Ok(unit) = self.line.try_recv() {
                        self.keep(Some(unit));
                    }
                }
            }
        }
        Ok(())
    }

    /// Twice the credit: what is sent, and what follows it.
    fn has_room(&self, connection: &Connection) -> bool {
        self.pending.len() < connection.credit_units && self.held as u64 <= 2 * connection.credit_bytes
    }

    fn keep(&mut self, unit: Option<Unit>) {
        self.held += unit.as_ref().map_or(0, |unit| unit.bytes);
        self.pending.extend(unit);
    }

    /// Sends what is there, as far as the credit goes.
    fn send(&mut self, connection: &mut Connection) -> Result<(), Error> {
        while let Some(first) = self.pending.get(self.sent) {
            let left = usize::try_from(connection.credit_bytes.saturating_sub(connection.owed)).unwrap_or(usize::MAX);
            let (mut bytes, mut events, mut preconditions) = (0, 0, 0);
            let fits = |unit: &&Unit| {
                // With room for what is around it.
                bytes += unit.bytes + 16;
                events += unit.events();
                preconditions += unit.request.preconditions.len();
                bytes <= left.min(MESSAGE_BYTES) && events.max(preconditions) <= MESSAGE_EVENTS
            };
            let count = self.pending.range(self.sent..).take_while(fits).count();
            if count == 0 && connection.owed > 0 {
                return Ok(());
            }
            let first_sequence = first.sequence;
            // A unit that exceeds the credit goes alone.
            let appends: Vec<_> = self.pending.range(self.sent..).take(count.max(1)).map(|unit| unit.request.clone()).collect();
            self.sent += appends.len();
            let message = append_session_request::Message::Appends(v1::SessionAppends { first_sequence, appends });
            let message = v1::AppendSessionRequest { message: Some(message) };
            connection.owed += message.encoded_len() as u64;
            let lost = |_| self.client.error(Status::unavailable("the session's stream has ended"));
            connection.requests.try_send(message).map_err(lost)?;
        }
        Ok(())
    }

    fn take(&mut self, answer: v1::AppendSessionResponse, connection: &mut Connection) -> Result<(), Error> {
        let Some(append_session_response::Message::Answers(answers)) = answer.message else {
            return Err(Error::Protocol("a message of a session that is no answer".into()));
        };
        self.pauses.reset();
        connection.owed = connection.owed.saturating_sub(answers.answered_bytes);
        let durability = Durability::from_proto(answers.durability)?;
        let mut refused = answers.refused.into_iter().peekable();
        if answers.records.len() != answers.first_positions.len() {
            return Err(Error::Protocol("answers of which some have no length".into()));
        }
        let positions = answers.first_positions.into_iter().zip(answers.records);
        for (sequence, (first_position, records)) in (answers.first_sequence..).zip(positions) {
            let unit = self.pending.pop_front().filter(|unit| unit.sequence == sequence && self.sent > 0);
            let Some(unit) = unit else { return Err(Error::Protocol(format!("an answer to unit {sequence}, which was not sent"))) };
            self.sent -= 1;
            self.held -= unit.bytes;
            let answer = match refused.next_if(|refusal| refusal.sequence == sequence) {
                Some(refusal) => Err(name_topics(refused_with(&self.client, refusal), &unit.request)),
                None => Ok(UnitAppended {
                    sequence,
                    first_position,
                    last_position: (first_position + u64::from(records)).saturating_sub(1),
                    token: Token::from_bytes(answers.token.clone()),
                    deduplicated: answers.deduplicated,
                    durability,
                }),
            };
            // Whoever dropped the ticket does not ask.
            let _ = unit.reply.send(answer);
        }
        Ok(())
    }

    /// Makes a new connection on which everything that is not answered is sent again.
    async fn connect_again(&mut self, mut error: Error) -> Result<Connection, Error> {
        self.sent = 0;
        let again = async {
            loop {
                if !error.is_transient() {
                    return Err(error);
                }
                let pause = self.pauses.next(error.retry_after()).unwrap_or(LONGEST_PAUSE);
                tokio::time::sleep(pause).await;
                match Connection::open(&self.client, self.open.clone()).await {
                    Ok(opened) => return Ok(opened),
                    Err(failed) => error = failed,
                }
            }
        };
        let (connection, opened) =
            tokio::time::timeout(CALL_TIMEOUT, again).await.unwrap_or(Err(Error::Timeout { limit: CALL_TIMEOUT }))?;
        if self.pending.front().is_some_and(|unit| unit.sequence > opened.next_sequence) {
            let lost = format!("units from {} on were answered as written, and the server has lost them", opened.next_sequence);
            return Err(Error::Protocol(lost));
        }
        Ok(connection)
    }

    fn end(mut self, error: Error) {
        self.ended.get_or_init(|| Arc::new(error));
        // Whoever waits learns it as the reply is dropped, and so does whoever wants to send.
        self.line.close();
    }
}

fn refused_with(client: &Client, refusal: v1::SessionRefusal) -> Error {
    match tonic_types::pb::Status::decode(refusal.status.clone()) {
        Ok(status) => client.error(Status::with_details(Code::from_i32(status.code), status.message, refusal.status)),
        Err(_) => Error::Protocol(format!("the reason why unit {} was refused is not understood", refusal.sequence)),
    }
}
