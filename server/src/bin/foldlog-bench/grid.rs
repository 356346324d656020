//! Appends over a grid (GRID): writers, events of an append, conditions, in an empty log and in one of ten million events; and what that
//! log must be good at: a condition on types alone (TYPE-CONDITION), and reading one of its million streams (STREAM-OF-TEN).

use std::time::{Duration, Instant};

use anyhow::Context as _;
use foldlog_proto::v1::{
    AppendRequest, Event, EventQuery, EventQueryAbsent, Precondition, ReadRequest, StreamRange, StreamState, Write, event_query::Item,
    precondition, read_request, stream_state,
};
use prost::bytes::Bytes;

use crate::{
    bench::{Bench, Subject},
    folders::{Filling, Shape},
    load::{self, Measured, PAYLOAD, TOPIC, account},
    report::{Bound, Report, short},
    turns::Figures,
};

/// Events of the large log, ten in a stream, each with a tag that five events have.
const EVENTS: u64 = 10_000_000;
const LARGE: Shape = Shape { streams: 1_000_000, tags: 1, distinct: 2_000_000 };
const STREAM_EVENTS: u64 = EVENTS / LARGE.streams;
/// Writers at once, and events of an append.
const WRITERS: [usize; 4] = [1, 8, 64, 256];
const BATCHES: [usize; 3] = [1, 10, 100];
/// Most connections that writers share.
const CONNECTIONS: usize = 8;

/// Goals of [`goals`].
pub const NAMES: [&str; 3] = ["GRID", "TYPE-CONDITION", "STREAM-OF-TEN"];

/// What an append is conditional on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    None,
    /// The version of its stream.
    Version,
    /// That no event at all has a tag, which it then has itself: a name that is taken once.
    Tag,
    /// That no event at all is of a type.
    Type,
}

const CONDITIONS: [(Condition, &str); 4] =
    [(Condition::None, "none"), (Condition::Version, "version"), (Condition::Tag, "tag"), (Condition::Type, "type")];

/// Measures what is asked for.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    if report.wants("GRID") {
        let mut empty = bench.subject("grid-empty", Vec::new()).await?;
        grid(bench, &empty, "an empty log", report).await?;
        empty.server.kill()?;
    }
    Filling::open(&bench.folder.join("grid-large"))?.fill(&LARGE, 0, EVENTS).await?;
    let mut large = bench.start("grid-large", Vec::new()).await?;
    large.at_rest().await?;
    if report.wants("TYPE-CONDITION") {
        type_condition(bench, &large, report).await?;
    }
    if report.wants("STREAM-OF-TEN") {
        stream_of_ten(bench, &large, report).await?;
    }
    if report.wants("GRID") {
        grid(bench, &large, "a log of 10M events", report).await?;
    }
    large.server.kill()
}

/// Measures every cell and tells it in a line.
async fn grid(bench: &Bench, subject: &Subject, place: &str, report: &Report) -> anyhow::Result<()> {
    for events in BATCHES {
        for writers in WRITERS {
            for (condition, named) in CONDITIONS {
                let Figures { rate, p50, p99 } = Figures::of(&[run(subject, writers, events, condition, bench.time).await?]);
                #[expect(clippy::cast_precision_loss, reason = "a small number")]
                let rate = short(rate * events as f64);
                report.note(&format!(
                    "grid {place}: {writers} writers, {events} events an append, condition {named}: {rate} events/s, p50 {p50:.0}us, p99 {p99:.0}us"
                ));
            }
        }
        subject.at_rest().await?;
    }
    Ok(())
}

/// A condition on a type that no event has, over everything, against one on a version.
async fn type_condition(bench: &Bench, subject: &Subject, report: &mut Report) -> anyhow::Result<()> {
    let (mut version, mut of_type) = (Vec::new(), Vec::new());
    for _ in 0..bench.repeats {
        version.push(run(subject, 1, 1, Condition::Version, bench.time).await?);
        of_type.push(run(subject, 1, 1, Condition::Type, bench.time).await?);
    }
    let (version, of_type) = (Figures::of(&version), Figures::of(&of_type));
    let what = format!("p50 of an append on condition that 10M events are not of a type; 2 x one on a version, {:.0}us", version.p50);
    report.goal("TYPE-CONDITION", Bound::Micros(of_type.p50, 2.0 * version.p50), None, &what);
    Ok(())
}

/// A stream of ten events that lie a million events apart, against the echo that answers with as many.
async fn stream_of_ten(bench: &Bench, subject: &Subject, report: &mut Report) -> anyhow::Result<()> {
    let (mut echo, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..bench.repeats {
        echo.push(read_streams(&bench.echo.url, bench.time).await?);
        ours.push(read_streams(&subject.server.url(), bench.time).await?);
    }
    let (echo, ours) = (Figures::of(&echo), Figures::of(&ours));
    let what = format!("p50 of reading a stream of 10 events in 10M, p99 {:.0}us; 10 x that of a bare answer, {:.0}us", ours.p99, echo.p50);
    report.goal("STREAM-OF-TEN", Bound::Micros(ours.p50, 10.0 * echo.p50), None, &what);
    Ok(())
}

async fn read_streams(url: &str, time: Duration) -> anyhow::Result<Measured> {
    let mut client = load::connections(url, 1).await?.pop().context("no connection")?;
    let (mut times, began) = (Vec::new(), Instant::now());
    while began.elapsed() < time {
        // A large odd step visits streams in an order that looks like none.
        let number = (times.len() as u64).wrapping_mul(7_919) % LARGE.streams;
        let range = StreamRange { topic: TOPIC.to_owned(), stream: account_of(number), from_version: None };
        let source = Some(read_request::Source::Stream(range));
        let request = ReadRequest { source, limit: STREAM_EVENTS, ..ReadRequest::default() };
        let sent = Instant::now();
        let mut batches = client.read(request).await?.into_inner();
        let mut events = 0;
        while let Some(batch) = batches.message().await? {
            events += batch.events.len() as u64;
        }
        times.push(sent.elapsed());
        anyhow::ensure!(events == STREAM_EVENTS, "{events} events were read of stream {number}");
    }
    Measured::new(times, began.elapsed())
}

/// Name of a stream of the large log.
fn account_of(number: u64) -> String {
    format!("account-{number:08}")
}

/// Sends appends for so long.
async fn run(subject: &Subject, writers: usize, events: usize, condition: Condition, time: Duration) -> anyhow::Result<Measured> {
    let clients = load::connections(&subject.server.url(), writers.min(CONNECTIONS)).await?;
    let run = uuid::Uuid::new_v4().as_fields().0;
    load::closed_loop(writers, time, move |writer, call| {
        let client = clients.get(writer % clients.len()).cloned();
        let request = request(condition, &format!("{run:08x}-{writer}"), call, events);
        async move {
            client.context("no connection")?.append(request).await.context("an append failed")?;
            Ok(())
        }
    })
    .await
}

fn request(condition: Condition, writer: &str, call: u64, events: usize) -> AppendRequest {
    let tag = format!("{writer}-{call}");
    let kind = match condition {
        Condition::None => None,
        Condition::Version => {
            let expect = match call * events as u64 {
                0 => stream_state::Expect::Absent(stream_state::Absent {}),
                version => stream_state::Expect::Version(version),
            };
            Some(precondition::Kind::Stream(StreamState { stream: writer.to_owned(), expect: Some(expect), topic: String::new() }))
        }
        Condition::Tag => Some(absent(Item { types: Vec::new(), tags: vec![tag.clone()] })),
        Condition::Type => Some(absent(Item { types: vec!["NeverAppended".to_owned()], tags: Vec::new() })),
    };
    let event = Event {
        r#type: "Measured".to_owned(),
        data: Some(Bytes::from_static(PAYLOAD)),
        tags: (condition == Condition::Tag).then_some(tag).into_iter().collect(),
        ..Event::default()
    };
    // Without a condition on it, whatever stream will do.
    let stream = if condition == Condition::Version { writer.to_owned() } else { account(call) };
    AppendRequest {
        topic: TOPIC.to_owned(),
        writes: vec![Write { stream, events: vec![event; events], ..Write::default() }],
        preconditions: kind.into_iter().map(|kind| Precondition { kind: Some(kind) }).collect(),
        ..AppendRequest::default()
    }
}

fn absent(item: Item) -> precondition::Kind {
    let query = EventQuery { items: vec![item], ..EventQuery::default() };
    precondition::Kind::Query(EventQueryAbsent { query: Some(query), ..EventQueryAbsent::default() })
}
