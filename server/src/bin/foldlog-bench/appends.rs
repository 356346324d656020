//! Goals of appending over gRPC and of the live tail: G2 to G7, and G12.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use foldlog_proto::v1::{SubscribeRequest, TopicRange, subscribe_batch, subscribe_request};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    bench::{Bench, Subject},
    disk,
    load::{self, Measured, TOPIC},
    report::{Bound, Report, short},
    turns::{Figures, Turns},
};

/// Appends a second of the live tail.
const TAIL_RATE: u32 = 500;

/// Both sides of one comparison, the medians of several turns.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The bare echo.
    pub echo: Figures,
    /// foldlog.
    pub foldlog: Figures,
}

/// Goals of this file.
pub const NAMES: [&str; 7] = ["G2", "G3", "G4", "G5", "G6", "G7", "G12"];

impl Pair {
    fn text(&self, what: &str, least_percent: u32) -> String {
        let share = self.foldlog.rate / self.echo.rate * 100.0;
        let (p99, echo) = (self.foldlog.p99 / 1e3, short(self.echo.rate));
        format!("{what}, p99 {p99:.1} ms; {least_percent} % of E0 {echo} calls/s, here {share:.0} %")
    }
}

/// Measures what is asked for about appends.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut subject = bench.subject("appends", Vec::new()).await?;
    if report.wants("G2") {
        alone(bench, &subject, report).await?;
    }
    if report.wants("G3") {
        let sixteen = alternate(bench, &subject, 4, 16, 1).await?;
        report.goal(
            "G3",
            Bound::Rate(sixteen.foldlog.rate, 0.5 * sixteen.echo.rate),
            None,
            &sixteen.text("16 in flight on 4 connections", 50),
        );
    }
    if report.wants_any(&["G4", "G5"]) {
        many(bench, &subject, report).await?;
    }
    if report.wants("G6") {
        let batches = alternate(bench, &subject, 4, 16, 100).await?;
        let bound = Bound::Rate(100.0 * batches.foldlog.rate, 40.0 * batches.echo.rate);
        report.goal("G6", bound, None, &batches.text("events in appends of 100, 16 in flight on 4 connections", 40));
    }
    if report.wants("G7") {
        let batch = alternate(bench, &subject, 1, 1, 100).await?;
        let device = Figures::of(&[disk::write_and_sync(&bench.folder)?]);
        let what = format!(
            "p50 of a batch of 100, 1 in flight, {} events/s; 1.3 x (E0 + F0); F0 {:.0}us, E0 {:.0}us",
            short(100.0 * batch.foldlog.rate),
            device.p50,
            batch.echo.p50
        );
        report.goal("G7", Bound::Micros(batch.foldlog.p50, 1.3 * (batch.echo.p50 + device.p50)), None, &what);
    }
    if report.wants("G12") {
        let mut floor = Vec::new();
        let measure = async || {
            floor.push(live_tail(&bench.durable.url, bench.time).await?);
            live_tail(&subject.server.url(), bench.time).await
        };
        let tail = Turns::of(bench, report, measure).await?;
        note_floor(report, "append to subscriber", &floor);
        let what = format!("append to subscriber at {TAIL_RATE}/s, p50; 1.3 x (E0 + F0); p99 at most 4 x p50; {}", tail.limits());
        let also = Bound::Micros(tail.ours.p99, 4.0 * tail.ours.p50);
        report.goal("G12", Bound::Micros(tail.ours.p50, 1.3 * tail.round_trip()), Some(also), &what);
    }
    subject.server.kill()
}

/// G2: one append after the other.
async fn alone(bench: &Bench, subject: &Subject, report: &mut Report) -> anyhow::Result<()> {
    let mut floor = Vec::new();
    let measure = async || {
        floor.push(load::appends(&bench.durable.url, 1, 1, 1, bench.time).await?);
        load::appends(&subject.server.url(), 1, 1, 1, bench.time).await
    };
    let one = Turns::of(bench, report, measure).await?;
    report.note(&format!("F0: 4 KiB write and sync, p50 {:.0}us, p99 {:.0}us", one.f0.p50, one.f0.p99));
    report.note(&format!(
        "E0: bare echo of one append, 1 in flight: {}/s, p50 {:.0}us, p99 {:.0}us",
        short(one.e0.rate),
        one.e0.p50,
        one.e0.p99
    ));
    note_floor(report, "one append", &floor);
    let what = format!("p50 of one durable append, 1 in flight, {}/s; 1.15 x (E0 + F0); {}", short(one.ours.rate), one.limits());
    report.goal("G2", Bound::Micros(one.ours.p50, 1.15 * one.round_trip()), None, &what);
    Ok(())
}

/// G4 and G5: 256 in flight, and what each costs the server's processor until it is in a segment.
async fn many(bench: &Bench, subject: &Subject, report: &mut Report) -> anyhow::Result<()> {
    let (mut echo, mut foldlog) = (Vec::new(), Vec::new());
    let (mut echo_cpu, mut foldlog_cpu) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..bench.repeats {
        let before = bench.echo.cpu()?;
        echo.push(load::appends(&bench.echo.url, 8, 256, 1, bench.time).await?);
        echo_cpu += bench.echo.cpu()?.saturating_sub(before);
        let before = subject.cpu()?;
        foldlog.push(load::appends(&subject.server.url(), 8, 256, 1, bench.time).await?);
        subject.at_rest().await?;
        foldlog_cpu += subject.cpu()?.saturating_sub(before);
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of calls")]
    let each = |cpu: Duration, runs: &[Measured]| cpu.as_secs_f64() * 1e6 / runs.iter().map(Measured::calls).sum::<usize>() as f64;
    let (echo_each, each) = (each(echo_cpu, &echo), each(foldlog_cpu, &foldlog));
    let many = Pair { echo: Figures::of(&echo), foldlog: Figures::of(&foldlog) };
    let also = Bound::Micros(many.foldlog.p99, 20_000.0);
    report.goal("G4", Bound::Rate(many.foldlog.rate, 0.7 * many.echo.rate), Some(also), &many.text("256 in flight on 8 connections", 70));
    let what = format!(
        "processor time of an append, 256 in flight, copying into segments included; 1.5 x that of the bare echo, {echo_each:.1}us"
    );
    report.goal("G5", Bound::Micros(each, 1.5 * echo_each), None, &what);
    Ok(())
}

/// What the bare echo takes that writes and syncs before it answers. No limit is made of it: it says what is foldlog's own.
fn note_floor(report: &mut Report, what: &str, runs: &[Measured]) {
    let Figures { p50, p99, .. } = Figures::of(runs);
    report.note(&format!("bare echo that writes and syncs 4 KiB, {what}: p50 {p50:.0}us, p99 {p99:.0}us"));
}

/// Runs the same appends against the echo and foldlog in turns.
async fn alternate(bench: &Bench, subject: &Subject, connections: usize, in_flight: usize, events: usize) -> anyhow::Result<Pair> {
    let (mut echo, mut foldlog) = (Vec::new(), Vec::new());
    for _ in 0..bench.repeats {
        echo.push(load::appends(&bench.echo.url, connections, in_flight, events, bench.time).await?);
        foldlog.push(load::appends(&subject.server.url(), connections, in_flight, events, bench.time).await?);
    }
    Ok(Pair { echo: Figures::of(&echo), foldlog: Figures::of(&foldlog) })
}

/// From sending an append to a subscriber on another connection that has it.
pub async fn live_tail(url: &str, time: Duration) -> anyhow::Result<Measured> {
    let mut writer = load::connections(url, 1).await?.pop().context("no connection")?;
    let reader = load::connections(url, 1).await?.pop().context("no connection")?;
    let (arrived, mut arrivals) = mpsc::channel(1024);
    let mut tasks = JoinSet::new();
    tasks.spawn(subscribe(reader, arrived));
    let (mut times, began) = (Vec::new(), Instant::now());
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / TAIL_RATE);
    // The first event shows that the subscription is live, and does not count.
    arrivals.recv().await.context("the subscription did not start")?;
    while began.elapsed() < time {
        ticks.tick().await;
        let sent = Instant::now();
        let appended = writer.append(load::append(times.len() as u64, 1)).await.context("an append failed")?.into_inner();
        loop {
            let (at, position) = arrivals.recv().await.context("the subscription ended")?;
            if position == Some(appended.last_position) {
                times.push(at.duration_since(sent));
                break;
            }
        }
    }
    Measured::new(times, began.elapsed())
}

/// Tells when which position arrived; first, without a position, that the end was reached.
async fn subscribe(
    mut reader: foldlog_proto::v1::event_log_client::EventLogClient<tonic::transport::Channel>,
    arrived: mpsc::Sender<(Instant, Option<u64>)>,
) -> anyhow::Result<()> {
    let range = TopicRange { topic: TOPIC.to_owned(), from_position: Some(0) };
    let request = SubscribeRequest {
        source: Some(subscribe_request::Source::Topic(range)),
        start: Some(subscribe_request::Start::Now(subscribe_request::FromNow {})),
        ..SubscribeRequest::default()
    };
    let mut batches = reader.subscribe(request).await?.into_inner();
    while let Some(batch) = batches.message().await? {
        let at = Instant::now();
        let positions = match batch.message {
            Some(subscribe_batch::Message::Events(batch)) => batch.events.into_iter().map(|event| Some(event.position)).collect(),
            Some(subscribe_batch::Message::CaughtUp(_)) => vec![None],
            _ => Vec::new(),
        };
        for position in positions {
            if arrived.send((at, position)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}
