//! Goal of append sessions: G8, small events with expected versions over 1,000 streams, by 8 sessions, each event durable when it is
//! answered.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use foldlog_proto::v1::{Event, Precondition, StreamState, append_session_response, precondition, stream_state};
use prost::bytes::Bytes;
use tokio::{sync::mpsc, task::JoinSet};
use tonic::{Request, codegen::http::uri::PathAndQuery, transport::Channel};

use crate::{
    bench::Bench,
    child::connect,
    encoded::{self, Units},
    load::{Measured, PAYLOAD, TOPIC},
    report::{Bound, Report, short},
    turns::Figures,
};

/// Goals of this file.
pub const NAMES: [&str; 2] = ["G8", "G8-SMALL"];

/// Sessions at once.
const SESSIONS: u64 = 8;
/// Streams of events that each session appends to, of its own: 1,000 in all.
const STREAMS: u64 = 125;
/// Events of a message, roughly as many bytes as suits the network.
const MESSAGE_EVENTS: u64 = 1_000;

/// Measures what is asked for about sessions.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut subject = bench.subject("sessions", Vec::new()).await?;
    for (name, unit, share) in [("G8", 100, 0.3), ("G8-SMALL", 1, 0.1)] {
        if !report.wants(name) {
            continue;
        }
        let (mut echo, mut foldlog) = (Vec::new(), Vec::new());
        let cpu = subject.cpu()?;
        for _ in 0..bench.repeats {
            echo.push(sessions(&bench.echo.url, unit, bench.time).await?);
            foldlog.push(sessions(&subject.server.url(), unit, bench.time).await?);
            subject.at_rest().await?;
        }
        let cpu = subject.cpu()?.saturating_sub(cpu);
        #[expect(clippy::cast_precision_loss, reason = "a count of messages")]
        let events: f64 = foldlog.iter().map(|run| run.calls() as f64 * MESSAGE_EVENTS as f64).sum();
        let (echo, foldlog) = (Figures::of(&echo), Figures::of(&foldlog));
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let rate = |figures: Figures| figures.rate * MESSAGE_EVENTS as f64;
        let what = format!(
            "durable events in {SESSIONS} sessions, units of {unit} with an expected version, p99 of a message of {MESSAGE_EVENTS} {:.1} ms, \
             {:.2} s of processor a million; {:.0} % of E0 {} events/s, here {:.0} %",
            foldlog.p99 / 1e3,
            cpu.as_secs_f64() / events * 1e6,
            share * 100.0,
            short(rate(echo)),
            foldlog.rate / echo.rate * 100.0
        );
        report.goal(name, Bound::Rate(rate(foldlog), share * rate(echo)), None, &what);
    }
    subject.server.kill()
}

/// Runs sessions for so long; each sends as far as the credit goes. A call is a message.
async fn sessions(url: &str, unit: u64, time: Duration) -> anyhow::Result<Measured> {
    let began = Instant::now();
    let mut running = JoinSet::new();
    for number in 0..SESSIONS {
        running.spawn(session(connect(url).await?, Source::new(number, unit), began, time));
    }
    let mut times = Vec::new();
    while let Some(session) = running.join_next().await {
        times.extend(session.context("a session failed")??);
    }
    Measured::new(times, began.elapsed())
}

async fn session(channel: Channel, mut source: Source, began: Instant, time: Duration) -> anyhow::Result<Vec<Duration>> {
    let (requests, outgoing) = mpsc::channel(64);
    requests.send(encoded::open()).await?;
    let outgoing = futures::stream::unfold(outgoing, |mut outgoing| async move { Some((outgoing.recv().await?, outgoing)) });
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await?;
    let path = PathAndQuery::from_static("/foldlog.v1.EventLog/AppendSession");
    let mut answers = client.streaming(Request::new(outgoing), path, encoded::Sessions).await?.into_inner();
    let opened = answers.message().await?.and_then(|answer| answer.message);
    let Some(append_session_response::Message::Opened(opened)) = opened else { anyhow::bail!("not opened") };
    let (mut times, mut owed, mut sent) = (Vec::new(), 0, VecDeque::new());
    let most = usize::try_from(u64::from(opened.credit_units) * source.unit / MESSAGE_EVENTS)?;
    let mut next = source.message();
    loop {
        let bytes = next.len() as u64;
        let is_over = began.elapsed() >= time;
        if !is_over && sent.len() < most && owed + bytes <= opened.credit_bytes {
            owed += bytes;
            sent.push_back((Instant::now(), bytes));
            requests.send(next).await?;
            next = source.message();
            continue;
        }
        if sent.is_empty() {
            return Ok(times);
        }
        let answer = answers.message().await?.and_then(|answer| answer.message);
        let Some(append_session_response::Message::Answers(answer)) = answer else { anyhow::bail!("the session ended") };
        anyhow::ensure!(answer.refused.is_empty() && answer.durability == 1, "an answer that was not expected: {answer:?}");
        // One answer a message, for all of its units are new.
        let (at, bytes) = sent.pop_front().context("an answer to nothing")?;
        owed -= bytes;
        times.push(at.elapsed());
    }
}

/// What a session appends.
struct Source {
    /// Begins the names of its streams: those of each run are new, so that their versions are known.
    name: String,
    /// Events of a unit.
    unit: u64,
    sequence: u64,
    versions: Vec<u64>,
    units: Units,
}

impl Source {
    fn new(number: u64, unit: u64) -> Self {
        let versions = vec![0; usize::try_from(STREAMS).unwrap_or_default()];
        let event = Event { r#type: "Measured".to_owned(), data: Some(Bytes::from_static(PAYLOAD)), ..Event::default() };
        let units = Units::of(&event, usize::try_from(unit).unwrap_or_default());
        Self { name: format!("{:08x}-{number}", uuid::Uuid::new_v4().as_fields().0), unit, sequence: 1, versions, units }
    }

    fn message(&mut self) -> Bytes {
        let first_sequence = self.sequence;
        for _ in 0..MESSAGE_EVENTS / self.unit {
            self.push();
        }
        self.units.message(first_sequence)
    }

    fn push(&mut self) {
        let place = usize::try_from(self.sequence % STREAMS).unwrap_or_default();
        self.sequence += 1;
        let stream = format!("{}-{place:03}", self.name);
        let expect = match self.versions.get(place) {
            Some(0) | None => stream_state::Expect::Absent(stream_state::Absent {}),
            Some(version) => stream_state::Expect::Version(*version),
        };
        if let Some(version) = self.versions.get_mut(place) {
            *version += self.unit;
        }
        let state = StreamState { stream: stream.clone(), expect: Some(expect), topic: String::new() };
        self.units.push(TOPIC, stream, Precondition { kind: Some(precondition::Kind::Stream(state)) });
    }
}
