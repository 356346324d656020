//! Goal of appends beside other work of the same server: G13, while an ad-hoc query fills every core.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use foldlog_proto::v1::QueryRequest;
use tokio::sync::Notify;
use tonic::transport::Channel;

use crate::{
    bench::{Bench, Subject, execute},
    child::connect,
    load::{self, Measured, TOPIC},
    report::{Bound, Report},
    turns::Figures,
};

/// Events that the query goes over.
const EVENTS: u64 = 2_000_000;

/// Goals of [`goals`].
pub const NAMES: [&str; 1] = ["G13"];

/// One append after the other, in turns alone and beside a query that begins again whenever it has ended.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut subject = bench.subject("beside", Vec::new()).await?;
    load::fill(&subject.server.url(), 0, EVENTS).await?;
    subject.declare().await?;
    subject.at_rest().await?;
    let (mut alone, mut beside, mut queries) = (Vec::new(), Vec::new(), 0);
    for _ in 0..bench.repeats {
        alone.push(load::appends(&subject.server.url(), 1, 1, 1, bench.time).await?);
        let (measured, ended) = beside_queries(&subject, bench.time).await?;
        beside.push(measured);
        queries += ended;
        subject.at_rest().await?;
    }
    let (alone, beside) = (Figures::of(&alone), Figures::of(&beside));
    let what = format!(
        "p99 of one durable append beside {queries} queries over 2M events, one after the other, p50 {:.0}us; 5 x its p99 alone, {:.0}us",
        beside.p50, alone.p99
    );
    report.goal("G13", Bound::Micros(beside.p99, 5.0 * alone.p99), None, &what);
    subject.server.kill()
}

/// Appends for so long beside queries; how many of those were answered, the last one afterwards.
async fn beside_queries(subject: &Subject, time: Duration) -> anyhow::Result<(Measured, u32)> {
    let enough = Arc::new(Notify::new());
    let queries = tokio::spawn(ask(connect(&subject.server.url()).await?, Arc::clone(&enough)));
    let measured = load::appends(&subject.server.url(), 1, 1, 1, time).await?;
    enough.notify_one();
    let ended = queries.await.context("the queries failed")??;
    Ok((measured, ended))
}

async fn ask(channel: Channel, enough: Arc<Notify>) -> anyhow::Result<u32> {
    let sql = format!("SELECT account, COUNT(*) AS entries, SUM(amount) AS total FROM {TOPIC} GROUP BY account ORDER BY total LIMIT 10");
    let mut ended = 0;
    loop {
        let request = QueryRequest { sql: sql.clone(), ..QueryRequest::default() };
        tokio::select! {
            rows = execute(channel.clone(), request) => {
                anyhow::ensure!(rows?.iter().map(|rows| rows.count).sum::<u32>() == 10, "the query did not find ten accounts");
                ended += 1;
            }
            () = enough.notified() => return Ok(ended),
        }
    }
}
