//! `AppendSession`: units that follow each other without waiting, and their answers in the same order.
//!
//! Two halves. A task reads messages and puts their units in line, the answers are a stream that the transport pulls. Between them lie
//! at most the credit's bytes and units, for who sends more is ended; so a session that nobody listens to holds only that, and hinders no
//! other. Invariant: units are put in line in the order of their sequences, and answered in it.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use foldlog_log::{
    Append, AppendFuture, Appended, Durability, LogError, Position, ProducerAt, ProducerEpoch, ProducerKey, Sequence, Sequenced,
};
use foldlog_proto::v1::{self as pb, append_session_request, append_session_response};
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::{convert, counted::Arrived};
use crate::{
    app::{App, SessionPlace, Stage},
    failure::{Failure, Kind},
    idle::Sent,
};

/// How long a session waits before it asks again whether the log takes appends.
const STALL: Duration = Duration::from_millis(10);

/// What a session sends.
pub type Answers = Pin<Box<dyn Stream<Item = Result<pb::AppendSessionResponse, Status>> + Send>>;

impl Sent for pb::AppendSessionResponse {
    fn sent_to(&self) -> Option<Position> {
        None
    }
}

/// Opens a session.
pub async fn append_session(app: App, request: Request<Streaming<Arrived>>) -> Result<Response<Answers>, Status> {
    let mut messages = request.into_inner();
    let refuse = |failure| app.refuse(failure);
    let place = app.session_place().map_err(refuse)?;
    let first = tokio::time::timeout(app.limits.message_arrival, messages.message()).await.map_err(|_| refuse(not_opened()))?;
    let Some(append_session_request::Message::Open(open)) = first?.and_then(|arrived| arrived.request.message) else {
        return Err(refuse(Failure::invalid("open", "a session begins with it")));
    };
    let (key, at) = open_producer(app.stage().map_err(refuse)?, open).await.map_err(refuse)?;
    let opened = pb::SessionOpened {
        producer_id: Bytes::copy_from_slice(key.id.as_bytes()),
        epoch: at.epoch.get(),
        next_sequence: at.next.get(),
        credit_bytes: app.limits.session_bytes as u64,
        credit_units: credit_units(&app).map_err(refuse)?,
    };
    let owed = Arc::new(Owed::default());
    // No more than that many can be under way, however small they are.
    let (line, in_flight) = mpsc::channel(opened.credit_units as usize + 1);
    let intake = Intake {
        credit_units: opened.credit_units.into(),
        app: app.clone(),
        key,
        epoch: at.epoch,
        opened_at: at.next,
        expected: None,
        owed: Arc::clone(&owed),
        line,
    };
    app.tasks.spawn("append session", intake.run(messages));
    let first = append_session_response::Message::Opened(opened);
    let answering = Answering {
        app: app.clone(),
        in_flight,
        ready: VecDeque::from([(Ok(pb::AppendSessionResponse { message: Some(first) }), Debt::default())]),
        owed,
        _place: place,
    };
    let messages = stream::unfold(answering, |mut answering| async move { Some((answering.next().await?, answering)) });
    let guarded = app.idle.guard(messages, Position::default(), |at| Ended::Ours(Failure::slow_reader(at)));
    Ok(Response::new(Box::pin(guarded.map(move |message| message.map_err(|ended| ended.status(&app))))))
}

fn not_opened() -> Failure {
    Failure::new(Kind::Timeout, "REQUEST_TIMEOUT", "the session was not opened in time")
}

fn credit_units(app: &App) -> Result<u32, Failure> {
    Ok(app.stage()?.log.capabilities().producer_units)
}

async fn open_producer(stage: &Stage, open: pb::SessionOpen) -> Result<(ProducerKey, ProducerAt), Failure> {
    let key = convert::producer(&open.producer_id)?;
    if open.producer_id.is_empty() && open.epoch.is_some() {
        return Err(Failure::invalid("open.epoch", "means nothing without a producer_id"));
    }
    let at = stage.log.open_producer(key.clone(), open.epoch.map(ProducerEpoch::new))?.await?;
    Ok((key, at))
}

/// What was sent and not answered.
#[derive(Clone, Copy, Debug, Default)]
struct Debt {
    bytes: u64,
    units: u64,
}

/// The sum of it.
#[derive(Debug, Default)]
struct Owed {
    bytes: AtomicU64,
    units: AtomicU64,
}

impl Owed {
    fn add(&self, debt: Debt) -> Debt {
        let bytes = self.bytes.fetch_add(debt.bytes, Ordering::AcqRel) + debt.bytes;
        Debt { bytes, units: self.units.fetch_add(debt.units, Ordering::AcqRel) + debt.units }
    }

    fn take(&self, debt: Debt) {
        self.bytes.fetch_sub(debt.bytes, Ordering::AcqRel);
        self.units.fetch_sub(debt.units, Ordering::AcqRel);
    }
}

/// A unit in line.
struct Unit {
    answer: AppendFuture,
    /// Why it is refused, if that is known: then it has only taken its sequence.
    refusal: Option<Failure>,
}

/// Why a session ends.
enum Ended {
    /// As we say.
    Ours(Failure),
    /// As whoever decodes messages says.
    Told(Status),
}

impl Ended {
    fn status(self, app: &App) -> Status {
        match self {
            Self::Ours(failure) => app.refuse(failure),
            Self::Told(status) => super::status_in_our_words(app, &status).unwrap_or(status),
        }
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Ours(failure)
    }
}

/// The units of a message, in line.
struct InFlight {
    first: u64,
    units: Vec<Unit>,
    debt: Debt,
    /// Why the session ends behind them.
    ended: Option<Ended>,
    arrived: Duration,
}

/// The half that reads.
struct Intake {
    app: App,
    key: ProducerKey,
    epoch: ProducerEpoch,
    opened_at: Sequence,
    /// The sequence that the next message begins with; none before the first one.
    expected: Option<u64>,
    credit_units: u64,
    owed: Arc<Owed>,
    line: mpsc::Sender<InFlight>,
}

impl Intake {
    async fn run(mut self, mut messages: Streaming<Arrived>) {
        loop {
            let message = tokio::select! {
                biased;
                () = self.app.tasks.drained() => return self.end(Failure::draining().into()).await,
                () = self.line.closed() => return,
                message = messages.message() => message,
            };
            let taken = match message {
                Ok(Some(arrived)) => self.take(arrived).await,
                Ok(None) => return,
                Err(status) => return self.end(Ended::Told(status)).await,
            };
            if let Err(failure) = taken {
                return self.end(failure.into()).await;
            }
        }
    }

    async fn end(&self, ended: Ended) {
        let ended = InFlight { first: 0, units: Vec::new(), debt: Debt::default(), ended: Some(ended), arrived: Duration::ZERO };
        // If nobody listens any more, nobody needs to know.
        let _ = self.line.send(ended).await;
    }

    async fn take(&mut self, arrived: Arrived) -> Result<(), Failure> {
        let Some(append_session_request::Message::Appends(message)) = arrived.request.message else {
            return Err(Failure::invalid("message", "appends are expected; a session is opened once"));
        };
        let first = message.first_sequence;
        self.follow(first, message.appends.len() as u64)?;
        let debt = Debt { bytes: arrived.bytes, units: message.appends.len() as u64 };
        self.spend(debt)?;
        let (units, ended) = self.put_in_line(first, message.appends).await;
        let arrived = self.app.clock.monotonic();
        let ended = ended.map(Ended::Ours);
        let sent = self.line.send(InFlight { first, units, debt, ended, arrived }).await;
        sent.map_err(|_| Failure::draining())
    }

    fn follow(&mut self, first: u64, count: u64) -> Result<(), Failure> {
        let next = self.opened_at.get();
        let follows = self.expected.map_or((1..=next).contains(&first), |expected| expected == first);
        if !follows {
            let expected = self.expected.map_or_else(|| format!("1 to {next}"), |expected| expected.to_string());
            let message = format!("first_sequence is {first}, expected is {expected}: sequences have no gaps");
            return Err(Failure::new(Kind::Precondition, "OUT_OF_ORDER_SEQUENCE", message));
        }
        if count == 0 {
            return Err(Failure::field("EMPTY_EVENTS", "appends", "a message needs at least one"));
        }
        self.expected = Some(first.saturating_add(count));
        Ok(())
    }

    fn spend(&self, debt: Debt) -> Result<(), Failure> {
        let owed = self.owed.add(debt);
        let (bytes, units) = (self.app.limits.session_bytes as u64, self.credit_units);
        let is_alone = owed.units == debt.units;
        if owed.units > units || (owed.bytes > bytes && !is_alone) {
            let message = format!(
                "{} units in {} bytes are not answered yet, with {} units in {} bytes more; the credit is {units} units and {bytes} bytes",
                owed.units - debt.units,
                owed.bytes - debt.bytes,
                debt.units,
                debt.bytes
            );
            return Err(Failure::new(Kind::Exhausted, "CREDIT_EXCEEDED", message));
        }
        Ok(())
    }

    /// Puts units in line; one that is malformed takes its sequence as an empty one. Why the session must end behind them, if so.
    async fn put_in_line(&self, first: u64, appends: Vec<pb::AppendRequest>) -> (Vec<Unit>, Option<Failure>) {
        let stage = match self.app.stage() {
            Ok(stage) => stage,
            Err(failure) => return (Vec::new(), Some(failure)),
        };
        let mut units: Vec<Unit> = Vec::with_capacity(appends.len());
        let (mut refusals, mut line) = (VecDeque::with_capacity(appends.len()), VecDeque::with_capacity(appends.len()));
        for (sequence, append) in (first..).zip(appends) {
            let (append, refusal) = match convert::unit(append, &stage.tokens, &self.app.limits) {
                Ok(append) => (append, None),
                Err(failure) => (Append::default(), Some(failure)),
            };
            line.push_back(self.numbered(append, sequence));
            refusals.push_back(refusal);
        }
        while !line.is_empty() {
            let waiting = line.len();
            let taken = match stage.log.append_all(&mut line) {
                Ok(taken) => taken,
                // The line is full, or segments are too far behind: what is left waits, and with it whoever sends.
                Err(LogError::Overloaded { .. }) if line.len() == waiting && !self.app.tasks.is_draining() => {
                    tokio::time::sleep(STALL).await;
                    continue;
                }
                Err(error) => return (units, Some(error.into())),
            };
            for taken in taken {
                match taken {
                    Ok(answer) => units.push(Unit { answer, refusal: refusals.pop_front().flatten() }),
                    Err(error) if is_its_own_fault(&error) => {
                        line.push_front(self.numbered(Append::default(), first + units.len() as u64));
                        if let Some(refusal) = refusals.front_mut() {
                            *refusal = Some(error.into());
                        }
                    }
                    Err(error) => return (units, Some(error.into())),
                }
            }
        }
        (units, None)
    }

    fn numbered(&self, append: Append, sequence: u64) -> Append {
        let sequenced = Sequenced { key: self.key.clone(), epoch: self.epoch, sequence: Sequence::new(sequence) };
        Append { sequenced: Some(sequenced), ..append }
    }
}

/// Whether a unit is refused for what it is, whatever the state of the server; the session goes on then.
const fn is_its_own_fault(error: &LogError) -> bool {
    matches!(
        error,
        LogError::InvalidName(_)
            | LogError::Invalid { .. }
            | LogError::UnknownTopic { .. }
            | LogError::UnknownPartition { .. }
            | LogError::WrongKind { .. }
            | LogError::PartitionReadOnly { .. }
            | LogError::PositionLost { .. }
    )
}

/// Whether a unit was judged and has taken its sequence all the same.
const fn is_verdict(error: &LogError) -> bool {
    matches!(
        error,
        LogError::Conflict { .. }
            | LogError::PositionOutOfRange { .. }
            | LogError::Tombstoned { .. }
            | LogError::TruncatedBeyondEnd { .. }
            | LogError::NoSuchState { .. }
            | LogError::NoSuchEvent { .. }
            | LogError::RefusedBefore { .. }
    )
}

/// The half that answers.
struct Answering {
    app: App,
    in_flight: mpsc::Receiver<InFlight>,
    ready: VecDeque<(Result<pb::AppendSessionResponse, Ended>, Debt)>,
    owed: Arc<Owed>,
    _place: SessionPlace,
}

impl Answering {
    async fn next(&mut self) -> Option<Result<pb::AppendSessionResponse, Ended>> {
        loop {
            if let Some((message, debt)) = self.ready.pop_front() {
                self.owed.take(debt);
                return Some(message);
            }
            let in_flight = self.in_flight.recv().await?;
            self.answer(in_flight).await;
        }
    }

    async fn answer(&mut self, in_flight: InFlight) {
        let InFlight { first, units, debt, mut ended, arrived } = in_flight;
        let (count, mut answers) = (units.len(), Vec::<Alike>::new());
        for (sequence, Unit { answer, refusal }) in (first..).zip(units) {
            let outcome = match (answer.await, refusal) {
                (Ok(appended), None) => Ok(appended),
                (Ok(_) | Err(LogError::RefusedBefore { .. }), Some(refusal)) => Err(refusal),
                (Err(error), None) if is_verdict(&error) => Err(error.into()),
                (Err(error), _) => {
                    // What is behind it has not been judged as it should, for sequences have no gaps.
                    ended = Some(Failure::from(error).into());
                    break;
                }
            };
            let outcome = outcome.map_err(|failure| self.app.refuse(failure));
            if !answers.last_mut().is_some_and(|alike| alike.takes(&outcome)) {
                answers.push(Alike::beginning_with(sequence, &outcome));
            }
            if let Some(alike) = answers.last_mut() {
                alike.add(sequence, outcome);
            }
        }
        let tokens = self.app.tokens().copied();
        let last = answers.len().saturating_sub(1);
        for (place, alike) in answers.into_iter().enumerate() {
            self.app.metrics.appends.inc_by(alike.written);
            self.app.metrics.appended_events.inc_by(alike.events);
            let mut message = alike.message;
            message.token = tokens.map(|tokens| tokens.make(alike.end)).unwrap_or_default();
            let paid = if place == last && ended.is_none() { debt } else { Debt::default() };
            message.answered_bytes = paid.bytes;
            let message = append_session_response::Message::Answers(message);
            self.ready.push_back((Ok(pb::AppendSessionResponse { message: Some(message) }), paid));
        }
        if count > 0 {
            self.app.metrics.append_seconds.observe(self.app.clock.monotonic().saturating_sub(arrived).as_secs_f64());
        }
        if let Some(ended) = ended {
            self.ready.push_back((Err(ended), Debt::default()));
        }
    }
}

/// Answers that go out together: all to new units or all to repeats, as durable as each other.
struct Alike {
    message: pb::SessionAnswers,
    /// Position after the last event of them.
    end: Position,
    /// Units that wrote something now, and their events.
    written: u64,
    events: u64,
    /// Whether there are only refusals so far.
    refusals: bool,
}

impl Alike {
    fn beginning_with(first: u64, outcome: &Result<Appended, Status>) -> Self {
        let mut alike = Self {
            message: pb::SessionAnswers { first_sequence: first, ..pb::SessionAnswers::default() },
            end: Position::default(),
            written: 0,
            events: 0,
            refusals: true,
        };
        alike.message.set_durability(convert::proto_durability(Durability::Synced));
        alike.take_kind(outcome);
        alike
    }

    fn take_kind(&mut self, outcome: &Result<Appended, Status>) {
        if let Ok(appended) = outcome {
            self.message.deduplicated = appended.deduplicated;
            self.message.set_durability(convert::proto_durability(appended.durability));
        }
    }

    fn takes(&self, outcome: &Result<Appended, Status>) -> bool {
        outcome.as_ref().map_or(true, |appended| {
            let durability = convert::proto_durability(appended.durability);
            self.message.deduplicated == appended.deduplicated && self.message.durability() == durability
                || self.refusals && durability == pb::Durability::Synced
        })
    }

    fn add(&mut self, sequence: u64, outcome: Result<Appended, Status>) {
        if self.refusals {
            self.take_kind(&outcome);
        }
        match outcome {
            Ok(appended) => {
                self.refusals = false;
                self.message.first_positions.push(appended.first.get());
                let records = appended.end.get() - appended.first.get();
                self.message.records.push(u32::try_from(records).unwrap_or(u32::MAX));
                self.end = self.end.max(appended.end);
                if !appended.deduplicated {
                    self.written += 1;
                    self.events += records;
                }
            }
            Err(status) => {
                self.message.first_positions.push(0);
                self.message.records.push(0);
                self.message.refused.push(pb::SessionRefusal { sequence, status: status.details().to_vec().into() });
            }
        }
    }
}
