//! Goals of views with checkpoints: what these cost while a query folds as fast as it can (G21), how soon a view answers after a kill
//! (VIEWS), and how much of what it was folded from is read again (REPLAY).
//!
//! A million keys of which a server is killed with SIGKILL while nothing was told of it; the next one goes on from checkpoints.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use foldlog_proto::v1::{AppendRequest, Event, QueryRequest, Rows, Write, column_values::Values};
use tokio::task::JoinSet;

use crate::{
    bench::{Bench, PATIENCE, Subject, execute},
    load::{self, TOPIC},
    report::{Bound, Report, short},
};

/// Events, and the keys that they are spread over: enough that folding them takes longer than may be lost; fewer where nothing is
/// optimised.
const EVENTS: u64 = if cfg!(debug_assertions) { 1_000_000 } else { 10_000_000 };
const KEYS: u64 = EVENTS / 10;
/// Events of one append, and connections that load.
const BATCH: u64 = 500;
const FILLERS: usize = 4;
/// Longest time from exec to the answer of a view of a million keys, beside what lies behind its checkpoint.
const ANSWER: f64 = 1.5;
/// Folding that may be lost: 3 s are the debt, the rest passes while a checkpoint is written.
const DEBT: f64 = 5.0;
/// Seconds of folding before the first checkpoint is due, and before all keys are there and what is new are changes.
const DUE: f64 = 3.0;
const WARM: f64 = 1.0;
/// How much slower folding may be with checkpoints.
const SLOWER: f64 = 1.15;

/// Goals of [`goals`].
pub const NAMES: [&str; 3] = ["G21", "VIEWS", "REPLAY"];

/// Kills a server with views, and measures the start of the next.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut subject = bench.subject("views", Vec::new()).await?;
    fill(&subject.server.url()).await?;
    subject.declare().await?;
    subject.at_rest().await?;
    let began = Instant::now();
    let head = subject.head().await?.position;
    subject.create_view().await?;
    let mut passed = vec![(0.0, 0)];
    while passed.last().is_some_and(|(_, position)| *position < head) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        // Behind the events lies what the query writes itself.
        passed.push((began.elapsed().as_secs_f64(), subject.least_frontier().await?.min(head)));
        ensure!(began.elapsed() < PATIENCE, "the view does not catch up");
    }
    let folded = began.elapsed();
    slowed(&passed, report);
    let before = sums(&subject).await?;
    ensure!(before == [KEYS, EVENTS], "the view has {before:?} keys and events, {KEYS} and {EVENTS} were appended");
    subject.server.kill()?;

    let began = Instant::now();
    let subject = bench.start("views", Vec::new()).await?;
    let answered = answers(&subject, began).await?;
    subject.view_caught_up().await?;
    ensure!(sums(&subject).await? == before, "the view is another one after the kill");
    let again = read_again(&subject).await?;
    let rate = to_f64(EVENTS) / folded.as_secs_f64();
    // What lies behind the checkpoint is folded before it answers, as fast as it was the first time.
    let tail = to_f64(again) / rate;
    let what = format!(
        "seconds from exec to the answer of a view of {} keys by {} events, killed; beside {:.2} s for {} records behind its checkpoint",
        short(to_f64(KEYS)),
        short(to_f64(EVENTS)),
        tail,
        short(to_f64(again))
    );
    report.goal("VIEWS", Bound::Ratio((answered.as_secs_f64() - tail).max(0.0), ANSWER), None, &what);
    let whole = folded.as_secs_f64();
    let what = format!("seconds of folding done again after a kill ({} of {} records); all of it took {whole:.1} s", again, EVENTS);
    report.goal("REPLAY", Bound::Ratio(tail, DEBT), None, &what);
    ensure!(again < EVENTS, "everything was folded again: there was no checkpoint to go on from");
    Ok(())
}

/// Folding before the first checkpoint is due, and from then on, by how far the query was at which second.
fn slowed(passed: &[(f64, u64)], report: &mut Report) {
    let first_after = |seconds: f64| passed.iter().find(|(at, _)| *at >= seconds);
    let rate = |from: &(f64, u64), to: &(f64, u64)| to_f64(to.1.saturating_sub(from.1)) / (to.0 - from.0);
    match (first_after(WARM), first_after(DUE), passed.last()) {
        (Some(warm), Some(due), Some(end)) if end.0 > due.0 => {
            let (before, with) = (rate(warm, due), rate(due, end));
            let what = format!(
                "times as fast into 1M keys from {WARM:.0} s to {DUE:.0} s, before a checkpoint is due ({}/s), as from then to the end at \
                 {:.1} s ({}/s)",
                short(before),
                end.0,
                short(with)
            );
            report.goal("G21", Bound::Ratio(before / with, SLOWER), None, &what);
        }
        _ => report.failed("G21", &anyhow::anyhow!("everything was folded before a checkpoint was due")),
    }
}

async fn fill(url: &str) -> anyhow::Result<()> {
    let mut fillers = JoinSet::new();
    for (filler, mut client) in (0..).zip(load::connections(url, FILLERS).await?) {
        fillers.spawn(async move {
            for number in (0..EVENTS / BATCH).filter(|number| number % FILLERS as u64 == filler) {
                client.append(entries(number)).await.context("an append failed")?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(filler) = fillers.join_next().await {
        filler.context("a loader failed")??;
    }
    Ok(())
}

/// One append: keys of 16 bytes in an order that looks like none, each with as many events as the others in the end.
fn entries(number: u64) -> AppendRequest {
    let event = |place: u64| {
        let key = (number * BATCH + place).wrapping_mul(7_919) % KEYS;
        let data = format!("{{\"account\":\"account-{key:08}\",\"amount\":{}}}", place % 1_000);
        Event { r#type: "Measured".to_owned(), data: Some(data.into()), ..Event::default() }
    };
    let write = Write { stream: load::account(number % 16), events: (0..BATCH).map(event).collect(), ..Write::default() };
    AppendRequest { topic: TOPIC.to_owned(), writes: vec![write], ..AppendRequest::default() }
}

/// Waits until the view answers by key; tells how long that took since `began`.
async fn answers(subject: &Subject, began: Instant) -> anyhow::Result<Duration> {
    let request =
        QueryRequest { sql: "SELECT entries FROM totals WHERE account = 'account-00000001'".to_owned(), ..QueryRequest::default() };
    loop {
        match execute(subject.channel.clone(), request.clone()).await {
            Ok(rows) => {
                ensure!(integers(&rows)? == [EVENTS / KEYS], "the view answers with another row");
                return Ok(began.elapsed());
            }
            Err(error) if began.elapsed() > Duration::from_secs(120) => return Err(error).context("the view does not answer"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Keys of the view, and events in it.
async fn sums(subject: &Subject) -> anyhow::Result<Vec<u64>> {
    integers(&subject.sql("SELECT COUNT(*) AS keys, SUM(entries) AS events FROM totals").await?)
}

/// Records that the view's query has read since the start.
async fn read_again(subject: &Subject) -> anyhow::Result<u64> {
    let rows = subject.sql("SHOW QUERIES").await?;
    let place = 4;
    let column = rows.first().and_then(|rows| rows.columns.get(place)).context("SHOW QUERIES has no rows_in")?;
    let Some(Values::Integers(read)) = &column.values else { anyhow::bail!("rows_in is no number") };
    Ok(read.values.iter().map(|read| read.cast_unsigned()).sum())
}

/// The numbers of the first row.
fn integers(rows: &[Rows]) -> anyhow::Result<Vec<u64>> {
    let columns = rows.iter().find(|rows| !rows.columns.is_empty()).context("no rows")?;
    let number = |values: &Option<Values>| match values {
        Some(Values::Integers(integers)) => integers.values.first().map(|value| value.cast_unsigned()),
        _ => None,
    };
    columns.columns.iter().map(|column| number(&column.values).context("a column without numbers")).collect()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn to_f64(count: u64) -> f64 {
    count as f64
}
