//! Goals of reading and of SQL: a full read, one aggregate, append to push row, and a subscriber that takes nothing.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use foldlog_proto::v1::{
    QueryRequest, ReadRequest, SubscribeBatch, SubscribeRequest, TopicRange, query_batch, query_client::QueryClient, read_request,
    subscribe_batch, subscribe_request,
};
use tokio::{sync::mpsc, task::JoinSet};
use tonic::transport::Channel;

use crate::{
    bench::{Bench, Subject},
    child::{connect, event_log},
    load::{self, Measured, TOPIC, median},
    report::{Bound, Report, short},
    turns::Turns,
};

/// Events that are read and aggregated.
const EVENTS: u64 = 2_000_000;

/// Goals of [`goals`].
pub const NAMES: [&str; 4] = ["G11", "AGGREGATE", "PUSH", "STALLED"];

/// Measures what is asked for about reads and queries over one loaded topic.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let subject = bench.subject("queries", Vec::new()).await?;
    let loading = load::fill(&subject.server.url(), 0, EVENTS).await?;
    report.note(&format!("loaded {} events of 200 bytes in {:.1} s", short(to_f64(EVENTS)), loading.as_secs_f64()));
    if report.wants("G11") {
        replay(bench, &subject, report).await?;
    }
    if report.wants_any(&["AGGREGATE", "PUSH"]) {
        subject.at_rest().await?;
        aggregate(&subject, report).await?;
    }
    if report.wants("PUSH") {
        subject.at_rest().await?;
        let pushed = Turns::of(bench, report, async || push(&subject, bench.time).await).await?;
        let what = format!("append to pushed row of a view, p50, p99 {:.0}us; 2.5 x (E0 + F0); {}", pushed.ours.p99, pushed.limits());
        report.goal("PUSH", Bound::Micros(pushed.ours.p50, 2.5 * pushed.round_trip()), None, &what);
    }
    if report.wants("STALLED") {
        stalled(bench, report).await?;
    }
    Ok(())
}

/// The whole topic over one connection, against the echo that streams as many prepared messages.
async fn replay(bench: &Bench, subject: &Subject, report: &mut Report) -> anyhow::Result<()> {
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..bench.repeats {
        bare.push(read_all(&bench.echo.url, EVENTS).await?);
        ours.push(read_all(&subject.server.url(), 0).await?);
    }
    let (bare, ours) = (median(bare), median(ours));
    let what = format!("events of 200 bytes read from the beginning; half of a bare stream of such messages ({}/s)", short(bare));
    report.goal("G11", Bound::Rate(ours, bare / 2.0), None, &what);
    Ok(())
}

/// Events a second, of all that were loaded. `limit` 0: all there are.
async fn read_all(url: &str, limit: u64) -> anyhow::Result<f64> {
    let (events, took) = read(url, limit).await?;
    anyhow::ensure!(events == EVENTS, "{events} events were read, {EVENTS} were appended");
    Ok(to_f64(events) / took.as_secs_f64())
}

/// Reads the topic from the beginning over one connection: how many events, and how long that took. `limit` 0: all there are.
pub async fn read(url: &str, limit: u64) -> anyhow::Result<(u64, Duration)> {
    let range = TopicRange { topic: TOPIC.to_owned(), from_position: Some(0) };
    let request = ReadRequest { source: Some(read_request::Source::Topic(range)), limit, ..ReadRequest::default() };
    let mut client = event_log(connect(url).await?);
    let began = Instant::now();
    let mut batches = client.read(request).await?.into_inner();
    let mut events = 0;
    while let Some(batch) = batches.message().await? {
        events += batch.events.len() as u64;
    }
    Ok((events, began.elapsed()))
}

/// One aggregate from JSON: from the statement that makes the view to the view that reflects everything.
async fn aggregate(subject: &Subject, report: &mut Report) -> anyhow::Result<()> {
    subject.declare().await?;
    let began = Instant::now();
    let before = subject.cpu()?;
    subject.create_view().await?;
    subject.view_caught_up().await?;
    let took = began.elapsed();
    let cpu = subject.cpu()?.saturating_sub(before);
    let per_event = cpu.as_secs_f64() * 1e9 / to_f64(EVENTS);
    let what = format!("events from JSON into COUNT and SUM of 10k accounts, {per_event:.0} ns of processor time an event");
    report.goal("AGGREGATE", Bound::Rate(to_f64(EVENTS) / took.as_secs_f64(), 1e6), None, &what);
    Ok(())
}

/// From sending an append to having the changed row, one append after the other.
async fn push(subject: &Subject, time: Duration) -> anyhow::Result<Measured> {
    let (arrived, mut arrivals) = mpsc::channel(1024);
    let mut tasks = JoinSet::new();
    tasks.spawn(follow(connect(&subject.server.url()).await?, arrived));
    let mut writer = event_log(connect(&subject.server.url()).await?);
    let (mut times, began) = (Vec::new(), Instant::now());
    let mut number = EVENTS;
    // The first one waits for the view's snapshot to have passed, and does not count.
    let mut warm = false;
    while began.elapsed() < time || times.is_empty() {
        number += 1;
        let sent = Instant::now();
        let appended = writer.append(load::entries(number, 1)).await.context("an append failed")?.into_inner();
        let at = loop {
            let (at, position) = tokio::time::timeout(Duration::from_secs(30), arrivals.recv())
                .await
                .context("no row is pushed")?
                .context("the push query ended")?;
            if position > appended.last_position {
                break at;
            }
        };
        if warm {
            times.push(at.duration_since(sent));
        }
        warm = true;
    }
    Measured::new(times, began.elapsed())
}

/// Tells when rows arrived and up to which position they are complete.
async fn follow(channel: Channel, arrived: mpsc::Sender<(Instant, u64)>) -> anyhow::Result<()> {
    let request = QueryRequest { sql: "SELECT account, entries, total FROM totals EMIT CHANGES".to_owned(), ..QueryRequest::default() };
    let mut client = QueryClient::new(channel).max_decoding_message_size(16 << 20);
    let mut batches = client.push(request).await?.into_inner();
    while let Some(batch) = batches.message().await? {
        if let Some(query_batch::Message::Rows(rows)) = batch.message
            && arrived.send((Instant::now(), rows.position)).await.is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}

/// A subscriber that takes nothing while 2 million events are appended: what it costs a server, beside one that was given the same.
async fn stalled(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let alone = memory_of(bench, "alone", Follower::Nobody).await?;
    let beside = memory_of(bench, "beside", Follower::TakesNothing).await?;
    let what = format!(
        "memory for a subscriber that takes nothing for 2M events, and then gets each once: {beside:.0} MiB beside it, {alone:.0} MiB without"
    );
    report.goal("STALLED", Bound::Mebibytes(beside - alone, 64.0), None, &what);
    Ok(())
}

/// Who follows what is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follower {
    Nobody,
    TakesNothing,
}

/// Mebibytes of a server of its own after 4 million appended events, of which somebody could follow the second half.
async fn memory_of(bench: &Bench, name: &str, follower: Follower) -> anyhow::Result<f64> {
    let subject = bench.subject(name, Vec::new()).await?;
    let url = subject.server.url();
    load::fill(&url, 0, EVENTS).await?;
    let batches = match follower {
        Follower::Nobody => None,
        Follower::TakesNothing => Some(follow_from_now(&url).await?),
    };
    load::fill(&url, EVENTS, 2 * EVENTS).await?;
    // What it takes while it copies into segments comes and goes.
    subject.at_rest().await?;
    #[expect(clippy::cast_precision_loss, reason = "a size in MiB")]
    let memory = (subject.memory()? >> 20) as f64;
    if let Some(batches) = batches {
        takes_each_once(batches).await?;
    }
    Ok(memory)
}

async fn follow_from_now(url: &str) -> anyhow::Result<tonic::Streaming<SubscribeBatch>> {
    let start = Some(subscribe_request::Start::Now(subscribe_request::FromNow {}));
    let range = TopicRange { topic: TOPIC.to_owned(), from_position: Some(0) };
    let request = SubscribeRequest { source: Some(subscribe_request::Source::Topic(range)), start, ..SubscribeRequest::default() };
    Ok(event_log(connect(url).await?).subscribe(request).await?.into_inner())
}

async fn takes_each_once(mut batches: tonic::Streaming<SubscribeBatch>) -> anyhow::Result<()> {
    let (mut events, mut last) = (0, None);
    while events < EVENTS {
        let batch = tokio::time::timeout(Duration::from_secs(30), batches.message()).await.context("the subscription stands still")??;
        let message = batch.context("the subscription ended")?.message;
        let Some(subscribe_batch::Message::Events(batch)) = message else { continue };
        for event in batch.events {
            anyhow::ensure!(last < Some(event.position), "position {} comes after {last:?}", event.position);
            last = Some(event.position);
            events += 1;
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts of events")]
const fn to_f64(count: u64) -> f64 {
    count as f64
}
