//! Writers that append over sessions: several units at once under their producers' sequences, sent again after the kill.
//!
//! The SDK is left out on purpose: here every attempt must be in the ledger. Each writer is one producer for as long as the torture lasts, and
//! begins an epoch in each cycle.

use std::collections::HashMap;

use anyhow::{Context as _, ensure};
use foldlog_proto::v1::{
    AppendSessionRequest, AppendSessionResponse, SessionAnswers, SessionAppends, SessionOpen, SessionOpened, append_session_request,
    append_session_response,
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming, transport::Channel};

use crate::{
    child::event_log,
    client,
    ledger::{OpId, Sent, State, StreamWrite},
    random::Random,
    writer::Load,
};

/// Streams of a writer.
const STREAMS: u64 = 4;
/// Most units of a message.
const UNITS: u64 = 6;

/// A session that is open.
struct Session {
    to: mpsc::Sender<AppendSessionRequest>,
    answers: Streaming<AppendSessionResponse>,
    opened: SessionOpened,
}

fn producer(writer: u64) -> [u8; 16] {
    u128::from(writer).to_be_bytes()
}

fn stream_of(writer: u64, stream: u64) -> String {
    format!("session-{writer}/{stream}")
}

impl Session {
    /// Opens one; an error of the server's silence is the caller's to judge.
    async fn open(channel: &Channel, writer: u64, epoch: Option<u64>) -> Result<Self, Status> {
        let (to, from) = mpsc::channel(4);
        let open = SessionOpen { producer_id: producer(writer).to_vec().into(), epoch };
        let gone = |_| Status::unavailable("the session is over");
        to.try_send(AppendSessionRequest { message: Some(append_session_request::Message::Open(open)) }).map_err(gone)?;
        let requests = futures::stream::unfold(from, |mut from| async move { Some((from.recv().await?, from)) });
        let mut answers = event_log(channel.clone()).append_session(requests).await?.into_inner();
        match answers.message().await?.and_then(|answer| answer.message) {
            Some(append_session_response::Message::Opened(opened)) => Ok(Self { to, answers, opened }),
            other => Err(Status::internal(format!("a session began with {other:?}"))),
        }
    }

    async fn send(&self, first_sequence: u64, units: &[(OpId, Vec<StreamWrite>)]) -> Result<(), Status> {
        let appends = units.iter().map(|(id, writes)| client::unit_request(*id, writes)).collect();
        let message = append_session_request::Message::Appends(SessionAppends { first_sequence, appends });
        let sent = self.to.send(AppendSessionRequest { message: Some(message) }).await;
        sent.map_err(|_| Status::unavailable("the session is over"))
    }

    async fn next(&mut self) -> Result<SessionAnswers, Status> {
        match self.answers.message().await?.and_then(|answer| answer.message) {
            Some(append_session_response::Message::Answers(answers)) => Ok(answers),
            other => Err(Status::unavailable(format!("the session ended with {other:?}"))),
        }
    }

    /// What became of units that were sent from a sequence on, as far as answers come.
    async fn states(&mut self, first: u64, count: usize) -> (Vec<State>, Option<Status>) {
        let mut states = Vec::new();
        while states.len() < count {
            let answers = match self.next().await {
                Ok(answers) if answers.first_sequence == first + states.len() as u64 => answers,
                Ok(answers) => return (states, Some(Status::internal(format!("answers out of order: {answers:?}")))),
                Err(status) => return (states, Some(status)),
            };
            for (sequence, (first, records)) in (answers.first_sequence..).zip(answers.first_positions.iter().zip(&answers.records)) {
                let refused = answers.refused.iter().any(|refusal| refusal.sequence == sequence);
                let acked = State::Acked { first: *first, last: (first + u64::from(*records)).saturating_sub(1) };
                states.push(if refused { State::Refused } else { acked });
            }
        }
        (states, None)
    }
}

/// One writer.
pub struct SessionWriter {
    number: u64,
    random: Random,
    versions: HashMap<String, u64>,
}

impl SessionWriter {
    /// Makes a writer; `versions` says where every stream stands.
    pub fn new(number: u64, random: Random, versions: &HashMap<String, u64>) -> Self {
        let own = (0..STREAMS).map(|stream| stream_of(number, stream));
        let versions = own.map(|stream| (stream.clone(), versions.get(&stream).copied().unwrap_or(0))).collect();
        Self { number, random, versions }
    }

    /// Appends until an answer stays out.
    pub async fn run(mut self, load: Load) -> anyhow::Result<()> {
        let Ok(mut session) = Session::open(&load.channel, self.number, None).await else { return Ok(()) };
        let (epoch, mut next) = (session.opened.epoch, session.opened.next_sequence);
        loop {
            let mut units = Vec::new();
            for place in 0..=self.random.below(UNITS) {
                let writes = vec![self.next_write()];
                let sent = Sent { writer: self.number, epoch, sequence: next + place };
                let id = load.ledger.lock().intend_in_session(writes.clone(), sent)?;
                units.push((id, writes));
            }
            if session.send(next, &units).await.is_err() {
                return Ok(());
            }
            let (states, broken) = session.states(next, units.len()).await;
            for ((id, _), state) in units.iter().zip(&states) {
                ensure!(matches!(state, State::Acked { .. }), "operation {id} on a stream of its own was refused");
                load.ledger.lock().answered(*id, *state)?;
                load.acked.send_modify(|acked| *acked += 1);
            }
            if broken.is_some() {
                return Ok(());
            }
            next += units.len() as u64;
        }
    }

    fn next_write(&mut self) -> StreamWrite {
        let stream = stream_of(self.number, self.random.below(STREAMS));
        let amounts: Vec<i64> = (0..=self.random.below(3)).map(|_| self.random.below(1_200).cast_signed() - 200).collect();
        let version = self.versions.entry(stream.clone()).or_default();
        let base = *version;
        // Those that follow it in the same message rest on it.
        *version += amounts.len() as u64;
        StreamWrite { stream, base, amounts }
    }
}

/// Sends units of a writer again that were never answered, in the epoch in which they were sent first.
pub async fn ask_again(channel: &Channel, units: &[(Sent, OpId, Vec<StreamWrite>)]) -> anyhow::Result<Vec<(OpId, State)>> {
    let Some((first, ..)) = units.first() else { return Ok(Vec::new()) };
    let mut session = Session::open(channel, first.writer, Some(first.epoch)).await.context("a session cannot be gone on with")?;
    let again: Vec<_> = units.iter().map(|(_, id, writes)| (*id, writes.clone())).collect();
    session.send(first.sequence, &again).await.context("a session ended at once")?;
    let (states, broken) = session.states(first.sequence, units.len()).await;
    if let Some(status) = broken {
        return Err(status).context("units that are sent again get no answer");
    }
    Ok(again.into_iter().map(|(id, _)| id).zip(states).collect())
}
