//! Goals of reading and of SQL: a full read, G14, append to push row, one aggregate, and whether the cost of an event stays flat.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use foldlog_proto::v1::{
    QueryRequest, ReadRequest, SubscribeRequest, TopicRange, query_batch, query_client::QueryClient, read_request, subscribe_batch,
    subscribe_request,
};
use tokio::{sync::mpsc, task::JoinSet};
use tonic::transport::Channel;

use crate::{
    bench::{Bench, Subject, execute},
    child::{connect, event_log},
    load::{self, Measured, TOPIC, median},
    report::{Bound, Report, short},
    turns::{Figures, Turns},
};

/// Events of one append while data is loaded.
const LOAD_BATCH: u64 = 500;
/// Connections that load.
const LOADERS: u64 = 4;
/// Events that are read and aggregated.
const EVENTS: u64 = 2_000_000;
/// Events of a window in which processor time is measured.
const WINDOW: u64 = 400_000;
/// Events before the first window, and before the last.
const EARLY: u64 = 10_000;
const LATE: u64 = 5_000_000;
/// Most that the journal may take, in MiB: its first file and a pool of 256, however much went through it.
const JOURNAL: f64 = 272.0;

/// Goals of [`goals`].
pub const NAMES: [&str; 5] = ["FULL-READ", "AGGREGATE", "G14", "PUSH", "STALLED"];

/// Measures what is asked for about reads and queries over one loaded topic.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let subject = bench.subject("queries", Vec::new()).await?;
    let loading = load(&subject, 0, EVENTS).await?;
    report.note(&format!("loaded {} events of 200 bytes in {:.1} s", short(to_f64(EVENTS)), loading.as_secs_f64()));
    if report.wants("FULL-READ") {
        full_read(bench, &subject, report).await?;
    }
    if report.wants_any(&["AGGREGATE", "G14", "PUSH"]) {
        subject.at_rest().await?;
        aggregate(&subject, report).await?;
    }
    if report.wants("G14") {
        lookups(bench, &subject, report).await?;
    }
    if report.wants("PUSH") {
        subject.at_rest().await?;
        let pushed = Turns::of(bench, report, async || push(&subject, bench.time).await).await?;
        let what = format!("append to pushed row of a view, p50, p99 {:.0}us; 2.5 x (E0 + F0); {}", pushed.ours.p99, pushed.limits());
        report.goal("PUSH", Bound::Micros(pushed.ours.p50, 2.5 * pushed.round_trip()), None, &what);
    }
    if report.wants("STALLED") {
        stalled(&subject, report).await?;
    }
    Ok(())
}

/// Appends events `from..to` (counted in whole appends), several appends at once.
async fn load(subject: &Subject, from: u64, to: u64) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut loaders = JoinSet::new();
    for loader in 0..LOADERS {
        let channel = connect(&subject.server.url()).await?;
        loaders.spawn(async move {
            let mut client = event_log(channel);
            for number in (from / LOAD_BATCH..to / LOAD_BATCH).filter(|number| number % LOADERS == loader) {
                client.append(load::entries(number, LOAD_BATCH)).await.context("an append failed")?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(loader) = loaders.join_next().await {
        loader.context("a loader failed")??;
    }
    Ok(began.elapsed())
}

/// The whole topic over one connection, against the echo that streams as many prepared messages.
async fn full_read(bench: &Bench, subject: &Subject, report: &mut Report) -> anyhow::Result<()> {
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..bench.repeats {
        bare.push(read(&bench.echo.url, EVENTS).await?);
        ours.push(read(&subject.server.url(), 0).await?);
    }
    let (bare, ours) = (median(bare), median(ours));
    let what = format!("events read from the beginning; half of G11, which is half of a bare stream of such messages ({}/s)", short(bare));
    report.goal("FULL-READ", Bound::Rate(ours, bare / 4.0), None, &what);
    report.note(&format!(
        "half of G11 on a quiet machine of this kind, with events of 100 bytes: 1.25M/s; here {}/s of 200 bytes",
        short(ours)
    ));
    Ok(())
}

/// Events a second. `limit` 0: all there are.
async fn read(url: &str, limit: u64) -> anyhow::Result<f64> {
    let range = TopicRange { topic: TOPIC.to_owned(), from_position: 0 };
    let request = ReadRequest { source: Some(read_request::Source::Topic(range)), limit, ..ReadRequest::default() };
    let mut client = event_log(connect(url).await?);
    let began = Instant::now();
    let mut batches = client.read(request).await?.into_inner();
    let mut events = 0;
    while let Some(batch) = batches.message().await? {
        events += batch.events.len() as u64;
    }
    anyhow::ensure!(events == EVENTS, "{events} events were read, {EVENTS} were appended");
    Ok(to_f64(events) / began.elapsed().as_secs_f64())
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

/// G14: a view asked by key.
async fn lookups(bench: &Bench, subject: &Subject, report: &mut Report) -> anyhow::Result<()> {
    let (mut echo, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..bench.repeats {
        echo.push(lookup_loop(&bench.echo.url, 1, 1, bench.time).await?);
        ours.push(lookup_loop(&subject.server.url(), 1, 1, bench.time).await?);
    }
    let (echo, ours) = (Figures::of(&echo), Figures::of(&ours));
    let what = "p50 of a view asked by key, 1 in flight; 1.2 x a bare stream of the same messages; p99 at most 1.5 x";
    report.goal("G14", Bound::Micros(ours.p50, 1.2 * echo.p50), Some(Bound::Micros(ours.p99, 1.5 * echo.p99)), what);
    let echo = lookup_loop(&bench.echo.url, 4, 16, bench.time).await?.rate();
    let ours = lookup_loop(&subject.server.url(), 4, 16, bench.time).await?.rate();
    report.note(&format!("view asked by key, 16 in flight: {}/s, bare {}/s", short(ours), short(echo)));
    Ok(())
}

async fn lookup_loop(url: &str, connections: usize, in_flight: usize, time: Duration) -> anyhow::Result<Measured> {
    let mut channels = Vec::new();
    for _ in 0..connections {
        channels.push(connect(url).await?);
    }
    load::closed_loop(in_flight, time, move |worker, call| {
        let channel = channels.get(worker % channels.len()).cloned();
        let account = load::account(worker as u64 * 1_009 + call);
        async move {
            let sql = format!("SELECT account, entries, total FROM totals WHERE account = '{account}'");
            let request = QueryRequest { sql, ..QueryRequest::default() };
            let rows = execute(channel.context("no connection")?, request).await?;
            anyhow::ensure!(rows.iter().map(|rows| rows.count).sum::<u32>() == 1, "{account} is not in the view");
            Ok(())
        }
    })
    .await
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

/// A subscriber that takes nothing while 2 million events are appended: what it costs, and that it then gets each once.
async fn stalled(subject: &Subject, report: &mut Report) -> anyhow::Result<()> {
    let from = 2 * EVENTS;
    let start = Some(subscribe_request::Start::Now(subscribe_request::FromNow {}));
    let range = TopicRange { topic: TOPIC.to_owned(), from_position: 0 };
    let request = SubscribeRequest { source: Some(subscribe_request::Source::Topic(range)), start, ..SubscribeRequest::default() };
    let mut client = event_log(connect(&subject.server.url()).await?);
    let before = subject.memory()?;
    let mut batches = client.subscribe(request).await?.into_inner();
    load(subject, from, from + EVENTS).await?;
    let grown = subject.memory()?.saturating_sub(before);
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
    #[expect(clippy::cast_precision_loss, reason = "a size in MiB")]
    let grown = (grown >> 20) as f64;
    report.goal(
        "STALLED",
        Bound::Mebibytes(grown, 64.0),
        None,
        "memory for a subscriber that takes nothing for 2M events, and then gets each once",
    );
    Ok(())
}

/// Whether an event costs the same after 5 million as after 10 thousand: appended, folded into the view, all counted.
pub async fn flat(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut subject = bench.subject("flat", Vec::new()).await?;
    subject.declare().await?;
    subject.create_view().await?;
    load(&subject, 0, EARLY).await?;
    let early = window(&subject, EARLY).await?;
    subject.at_rest().await?;
    let journal_early = journal_mebibytes(&subject)?;
    load(&subject, EARLY + WINDOW, LATE).await?;
    subject.view_caught_up().await?;
    let late = window(&subject, LATE).await?;
    let journal_late = journal_mebibytes(&subject)?;
    subject.server.kill()?;
    let what = format!(
        "processor time of an event after 5M events over that after 10k: {late:.0} ns over {early:.0} ns, append and view together"
    );
    report.goal("FLAT", Bound::Ratio(late / early, 1.2), None, &what);
    let what = format!("files of the journal after 5.4M events, {journal_early:.0}MiB after 0.4M");
    report.goal("JOURNAL", Bound::Mebibytes(journal_late, JOURNAL), None, &what);
    Ok(())
}

/// Nanoseconds of processor time an event.
async fn window(subject: &Subject, from: u64) -> anyhow::Result<f64> {
    subject.view_caught_up().await?;
    let before = subject.cpu()?;
    load(subject, from, from + WINDOW).await?;
    subject.view_caught_up().await?;
    Ok(subject.cpu()?.saturating_sub(before).as_secs_f64() * 1e9 / to_f64(WINDOW))
}

fn journal_mebibytes(subject: &Subject) -> anyhow::Result<f64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(subject.data.join("journal")).context("cannot list the journal")? {
        bytes += entry?.metadata()?.len();
    }
    Ok(to_f64(bytes >> 20))
}

#[expect(clippy::cast_precision_loss, reason = "counts of events and sizes")]
const fn to_f64(count: u64) -> f64 {
    count as f64
}
