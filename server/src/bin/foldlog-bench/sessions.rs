//! Goals of append sessions: events with expected versions over 1,000 streams, by 8 sessions, each event durable when it is answered;
//! small ones (G8, and G8-SMALL with an event a unit) and larger ones (G9).

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
    disk,
    encoded::{self, Units},
    load::{Measured, PAYLOAD, TOPIC},
    report::{Bound, Report, short},
    turns::Figures,
};

/// Goals of this file.
pub const NAMES: [&str; 3] = ["G8", "G8-SMALL", "G9"];

/// Sessions at once.
const SESSIONS: u64 = 8;
/// Streams of events that each session appends to, of its own: 1,000 in all.
const STREAMS: u64 = 125;
/// Bytes of payloads of a message, roughly as many as suits the network.
const MESSAGE_BYTES: u64 = 100_000;
/// Part of what the device takes in groups of 1 MiB that G9 must reach.
const OF_DEVICE: f64 = 0.2;

/// What sessions send.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    /// Events of a unit.
    unit: u64,
    /// Bytes of the payload of an event.
    payload: u64,
    /// Part of the bare echo's rate that is the goal.
    share: f64,
}

const LOADS: [Load; 3] = [
    Load { name: "G8", unit: 100, payload: 100, share: 0.3 },
    Load { name: "G8-SMALL", unit: 1, payload: 100, share: 0.1 },
    Load { name: "G9", unit: 100, payload: 1_000, share: 0.4 },
];

impl Load {
    /// Events of a message.
    const fn message_events(self) -> u64 {
        MESSAGE_BYTES / self.payload
    }
}

/// Measures what is asked for about sessions.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut subject = bench.subject("sessions", Vec::new()).await?;
    for load in LOADS {
        if !report.wants(load.name) {
            continue;
        }
        let (mut echo, mut foldlog) = (Vec::new(), Vec::new());
        let cpu = subject.cpu()?;
        for _ in 0..bench.repeats {
            echo.push(sessions(&bench.echo.url, load, bench.time).await?);
            foldlog.push(sessions(&subject.server.url(), load, bench.time).await?);
            subject.at_rest().await?;
        }
        let cpu = subject.cpu()?.saturating_sub(cpu);
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let (message, payload) = (load.message_events() as f64, load.payload as f64);
        #[expect(clippy::cast_precision_loss, reason = "a count of messages")]
        let events = foldlog.iter().map(Measured::calls).sum::<usize>() as f64 * message;
        let (echo, foldlog) = (Figures::of(&echo), Figures::of(&foldlog));
        let what = format!(
            "durable events of {payload} bytes in {SESSIONS} sessions, units of {} with an expected version, p99 of a message of {message} \
             {:.1} ms, {:.2} s of processor a million; {:.0} % of E0 {} events/s, here {:.0} %",
            load.unit,
            foldlog.p99 / 1e3,
            cpu.as_secs_f64() / events * 1e6,
            load.share * 100.0,
            short(echo.rate * message),
            foldlog.rate / echo.rate * 100.0
        );
        let rate = foldlog.rate * message;
        let also = match load.name {
            "G9" => Some(Bound::Rate(rate, OF_DEVICE * disk::throughput(&bench.folder, 1 << 20)? / payload)),
            _ => None,
        };
        report.goal(load.name, Bound::Rate(rate, load.share * echo.rate * message), also, &what);
    }
    subject.server.kill()
}

/// Durable events a second of the load of this name.
pub async fn events(url: &str, name: &str, time: Duration) -> anyhow::Result<f64> {
    let load = LOADS.into_iter().find(|load| load.name == name).context("no such load")?;
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let message = load.message_events() as f64;
    Ok(sessions(url, load, time).await?.rate() * message)
}

/// Runs sessions for so long; each sends as far as the credit goes. A call is a message.
async fn sessions(url: &str, load: Load, time: Duration) -> anyhow::Result<Measured> {
    let began = Instant::now();
    let mut running = JoinSet::new();
    for number in 0..SESSIONS {
        running.spawn(session(connect(url).await?, Source::new(number, load), began, time));
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
    let most = usize::try_from(u64::from(opened.credit_units) * source.load.unit / source.load.message_events())?;
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
    load: Load,
    sequence: u64,
    versions: Vec<u64>,
    units: Units,
}

impl Source {
    fn new(number: u64, load: Load) -> Self {
        let versions = vec![0; usize::try_from(STREAMS).unwrap_or_default()];
        let repeated = usize::try_from(load.payload).unwrap_or_default() / PAYLOAD.len();
        let event = Event { r#type: "Measured".to_owned(), data: Some(PAYLOAD.repeat(repeated).into()), ..Event::default() };
        let units = Units::of(&event, usize::try_from(load.unit).unwrap_or_default());
        Self { name: format!("{:08x}-{number}", uuid::Uuid::new_v4().as_fields().0), load, sequence: 1, versions, units }
    }

    fn message(&mut self) -> Bytes {
        let first_sequence = self.sequence;
        for _ in 0..self.load.message_events() / self.load.unit {
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
            *version += self.load.unit;
        }
        let state = StreamState { stream: stream.clone(), expect: Some(expect), topic: String::new() };
        self.units.push(TOPIC, stream, Precondition { kind: Some(precondition::Kind::Stream(state)) });
    }
}
