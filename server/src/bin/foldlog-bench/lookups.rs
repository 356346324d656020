//! Goal of asking a view by key: G14.

use std::time::Duration;

use anyhow::Context as _;
use foldlog_proto::v1::QueryRequest;

use crate::{
    bench::{Bench, Subject, execute},
    child::connect,
    load::{self, ACCOUNTS, Measured},
    report::{Bound, Report, short},
    turns::Figures,
};

/// Events behind the view: every account has some.
const EVENTS: u64 = 10 * ACCOUNTS;

/// A view asked by key, against the echo that answers with the same messages, in turns.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut subject = bench.subject("lookups", Vec::new()).await?;
    load::fill(&subject.server.url(), 0, EVENTS).await?;
    subject.declare().await?;
    subject.create_view().await?;
    subject.view_caught_up().await?;
    subject.at_rest().await?;
    let one = alternate(bench, &subject, 1, 1).await?;
    let what = format!(
        "p50 of a view asked by key, 1 in flight, {}/s; 1.2 x a bare stream of the same messages, here {:.2} x; p99 at most 1.5 x",
        short(one.ours.rate),
        one.ours.p50 / one.echo.p50
    );
    let also = Bound::Micros(one.ours.p99, 1.5 * one.echo.p99);
    report.goal("G14", Bound::Micros(one.ours.p50, 1.2 * one.echo.p50), Some(also), &what);
    let many = alternate(bench, &subject, 4, 16).await?;
    let share = many.ours.rate / many.echo.rate * 100.0;
    report.note(&format!(
        "view asked by key, 16 in flight on 4 connections: {}/s, {share:.0} % of a bare stream's {}/s",
        short(many.ours.rate),
        short(many.echo.rate)
    ));
    subject.server.kill()
}

/// Both sides of one comparison.
struct Pair {
    echo: Figures,
    ours: Figures,
}

async fn alternate(bench: &Bench, subject: &Subject, connections: usize, in_flight: usize) -> anyhow::Result<Pair> {
    let (mut echo, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..bench.repeats {
        echo.push(ask(&bench.echo.url, connections, in_flight, bench.time).await?);
        ours.push(ask(&subject.server.url(), connections, in_flight, bench.time).await?);
    }
    Ok(Pair { echo: Figures::of(&echo), ours: Figures::of(&ours) })
}

async fn ask(url: &str, connections: usize, in_flight: usize, time: Duration) -> anyhow::Result<Measured> {
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
