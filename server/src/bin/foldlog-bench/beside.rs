//! Goals of appends beside other work of the same server: G13, while an ad-hoc query fills every core, and COMPACTION, while a table is
//! compacted as fast as it may be.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use foldlog_proto::v1::{
    AppendRequest, Compaction, CreateTopicRequest, DescribeTopicRequest, Event, PauseCompactionRequest, QueryRequest, TopicKind, Write,
    topics_client::TopicsClient,
};
use tokio::sync::Notify;
use tonic::transport::Channel;

use crate::{
    bench::{Bench, Subject, execute},
    child::{connect, event_log},
    load::{self, Measured, PAYLOAD, TOPIC},
    report::{Bound, Report},
    turns::Figures,
};

/// Events that the query goes over.
const EVENTS: u64 = 2_000_000;
/// Topic that is compacted.
const TABLE: &str = "compacted";
/// Its records and keys; a record has 200 bytes.
const RECORDS: u64 = 3_000_000;
const KEYS: u64 = 300_000;
/// Records of an append.
const RECORDS_AT_ONCE: u64 = 5_000;

/// Goals of [`goals`].
pub const NAMES: [&str; 2] = ["G13", "COMPACTION"];

/// Measures what is asked for.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    if report.wants("G13") {
        queries(bench, report).await?;
    }
    if report.wants("COMPACTION") {
        compaction(bench, report).await?;
    }
    Ok(())
}

/// One append after the other, in turns alone and beside a query that begins again whenever it has ended.
async fn queries(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
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

/// One append after the other, in turns while compaction pauses and while a pass is under way.
async fn compaction(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut subject = bench.start_with("compaction", Vec::new(), &[("FOLDLOG_LOG_SEGMENT_BYTES", "16777216")]).await?;
    let mut topics = TopicsClient::new(subject.channel.clone());
    topics.create(CreateTopicRequest { name: TOPIC.to_owned(), ..CreateTopicRequest::default() }).await?;
    let table = CreateTopicRequest {
        name: TABLE.to_owned(),
        kind: TopicKind::Table.into(),
        partitions: Some(1),
        compaction: Some(Compaction { dirty_percent: Some(1), ..Compaction::default() }),
        ..CreateTopicRequest::default()
    };
    topics.create(table).await?;
    topics.pause_compaction(PauseCompactionRequest { paused: true }).await?;
    let mut client = event_log(subject.channel.clone());
    for first in (0..RECORDS).step_by(usize::try_from(RECORDS_AT_ONCE)?) {
        client.append(records(first)).await.context("a record was refused")?;
    }
    let (mut alone, mut beside, mut passed) = (Vec::new(), Vec::new(), 0);
    for _ in 0..bench.repeats {
        subject.at_rest().await?;
        alone.push(load::appends(&subject.server.url(), 1, 1, 1, bench.time).await?);
        let before = compacted(&mut topics).await?;
        topics.pause_compaction(PauseCompactionRequest { paused: false }).await?;
        beside.push(load::appends(&subject.server.url(), 1, 1, 1, bench.time).await?);
        let after = compacted(&mut topics).await?;
        topics.pause_compaction(PauseCompactionRequest { paused: true }).await?;
        anyhow::ensure!(after > before, "nothing was compacted meanwhile: {before} of 100 before, {after} after");
        passed += after - before;
    }
    let (alone, beside) = (Figures::of(&alone), Figures::of(&beside));
    let what = format!(
        "p99 of one durable append while {passed} % of a table of 3M records are compacted, p50 {:.0}us; 5 x its p99 alone, {:.0}us",
        beside.p50, alone.p99
    );
    report.goal("COMPACTION", Bound::Micros(beside.p99, 5.0 * alone.p99), None, &what);
    subject.server.kill()
}

/// Hundredths of the table that a pass has looked at.
async fn compacted(topics: &mut TopicsClient<Channel>) -> anyhow::Result<u32> {
    let described = topics.describe(DescribeTopicRequest { name: TABLE.to_owned() }).await?.into_inner();
    let state = described.compaction.first().context("no state of compaction")?;
    Ok(state.percent.unwrap_or(if state.cleaned_to == 0 { 0 } else { 100 }))
}

/// Some records of the table, one after the other replacing what is there.
fn records(first: u64) -> AppendRequest {
    let write = |number: u64| Write {
        topic: TABLE.to_owned(),
        key: Some(format!("key-{:08}", number.wrapping_mul(7_919) % KEYS).into()),
        events: vec![Event { data: Some([PAYLOAD, PAYLOAD].concat().into()), ..Event::default() }],
        ..Write::default()
    };
    AppendRequest { writes: (first..first + RECORDS_AT_ONCE).map(write).collect(), ..AppendRequest::default() }
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
