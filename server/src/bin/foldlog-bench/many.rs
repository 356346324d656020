//! Goals of many queries over one topic: their common rate (MANY), what filtering costs once a topic is decoded (G17), and what queries
//! cost that have nothing to do (IDLE).

use std::time::{Duration, Instant};

use anyhow::Context as _;
use foldlog_proto::v1::{AppendRequest, CreateTopicRequest, Event, TopicKind, Write, topics_client::TopicsClient};

use crate::{
    bench::{Bench, PATIENCE, Subject},
    child::event_log,
    load::{self, TOPIC},
    nexmark,
    report::{Bound, Report, short},
};

/// Goals of [`goals`].
pub const NAMES: [&str; 6] = ["MANY-10", "MANY-100", "G17", "IDLE-MEMORY", "IDLE-DECODE", "IDLE-SYNCS"];

/// Bids that many queries read, and those of one append.
const BIDS: usize = 500_000;
const AT_ONCE: usize = 1_000;
/// Queries that have nothing to do, and keys of each.
const IDLE: usize = 2_000;
const KEYS: u64 = 1_000;
/// What such a query may take beside its state, in KiB.
const BESIDE_STATE: f64 = 100.0;
/// What a group of COUNT and SUM takes at least: its words, its key and both of their places, in bytes.
const GROUP: f64 = 110.0;

/// Measures what is asked for.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    if report.wants_any(&["MANY-10", "MANY-100", "G17"]) {
        common_rate(bench, report).await?;
    }
    if report.wants_any(&["IDLE-MEMORY", "IDLE-DECODE", "IDLE-SYNCS"]) {
        idle(bench, report).await?;
    }
    Ok(())
}

/// The same bids under 1, 10 and 100 queries, each of which lets another 123rd of them pass.
async fn common_rate(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut subject = bench.start("many", Vec::new()).await?;
    let bids: Vec<String> = nexmark::bids(BIDS).map(|bid| bid.json()).collect();
    let one = under(&subject, &bids, 1).await?;
    let ten = under(&subject, &bids, 10).await?;
    let hundred = under(&subject, &bids, 100).await?;
    subject.server.kill()?;
    let rate = |seconds: f64| to_f64(BIDS) / seconds;
    for (goal, seconds, share) in [("MANY-10", ten, 0.5), ("MANY-100", hundred, 0.2)] {
        let what = format!("bids/s under so many queries, each of which reads all; {share} x the {}/s under one", short(rate(one)));
        report.goal(goal, Bound::Rate(rate(seconds), share * rate(one)), None, &what);
    }
    let each = to_f64(90 * BIDS) / (hundred - ten);
    let what = "decoded rows that queries filter, from the difference between 100 of them and 10; 10 M/s, 1.25 x Flink's datagen";
    report.goal("G17", Bound::Rate(each, 10e6), None, what);
    Ok(())
}

/// Seconds in which so many queries, which begin together, read all bids.
async fn under(subject: &Subject, bids: &[String], queries: usize) -> anyhow::Result<f64> {
    let topic = format!("bids_{queries}");
    let kind = TopicKind::Records.into();
    let request = CreateTopicRequest { name: topic.clone(), kind, partitions: Some(1), ..CreateTopicRequest::default() };
    TopicsClient::new(subject.channel.clone()).create(request).await.context("cannot create the topic")?;
    subject
        .sql(&format!("CREATE STREAM {topic} (auction BIGINT, price BIGINT) WITH (kafka_topic = '{topic}', value_format = 'json')"))
        .await?;
    for number in 0..queries {
        let select = format!("SELECT auction, price FROM {topic} WHERE auction % 123 = {number}");
        subject.sql(&format!("CREATE STREAM of_{queries}_{number} AS {select}")).await?;
    }
    subject.sql("PAUSE ALL").await?;
    let mut client = event_log(subject.channel.clone());
    for part in bids.chunks(AT_ONCE) {
        let events = part.iter().map(|json| Event { data: Some(json.clone().into()), ..Event::default() }).collect();
        let write = Write { topic: topic.clone(), events, ..Write::default() };
        client.append(AppendRequest { writes: vec![write], ..AppendRequest::default() }).await.context("bids were refused")?;
    }
    subject.at_rest().await?;
    let head = subject.head().await?.position;
    let began = Instant::now();
    subject.sql("RESUME ALL").await?;
    all_at(subject, head).await?;
    let seconds = began.elapsed().as_secs_f64();
    subject.sql("TERMINATE ALL").await?;
    Ok(seconds)
}

/// Waits until every query reflects everything below a position.
async fn all_at(subject: &Subject, position: u64) -> anyhow::Result<()> {
    let began = Instant::now();
    while subject.least_frontier().await? < position {
        anyhow::ensure!(began.elapsed() < PATIENCE, "some queries do not get to {position}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Views of the same topic to which nothing happens, and then one event.
async fn idle(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let settings = &[("FOLDLOG_QUERY_MAX_PERSISTENT_QUERIES", "10000")];
    let mut subject = bench.start_with("idle", Vec::new(), settings).await?;
    let topic = CreateTopicRequest { name: TOPIC.to_owned(), ..CreateTopicRequest::default() };
    TopicsClient::new(subject.channel.clone()).create(topic).await.context("cannot create the topic")?;
    subject.declare().await?;
    let mut client = event_log(subject.channel.clone());
    client.append(load::entries(0, KEYS)).await?;
    subject.sql(&view(0)).await?;
    subject.at_rest().await?;
    let (memory, threads) = (subject.memory()?, subject.threads()?);
    for number in 1..=IDLE {
        subject.sql(&view(number)).await?;
    }
    all_at(&subject, subject.head().await?.position).await?;
    subject.at_rest().await?;
    let each = to_f64(usize::try_from(subject.memory()?.saturating_sub(memory))?) / to_f64(IDLE) / 1024.0;
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let state = KEYS as f64 * GROUP / 1024.0;
    let more = subject.threads()?.saturating_sub(threads);
    let what = format!(
        "KiB of memory of each of {IDLE} views with 1,000 keys that wait; {BESIDE_STATE:.0} beside its state of {state:.0}; {more} threads \
         more than with one view"
    );
    report.goal("IDLE-MEMORY", Bound::Ratio(each, BESIDE_STATE + state), Some(Bound::Ratio(to_f64(more), 0.0)), &what);
    let (decoded, syncs) = (subject.metric("foldlog_query_records_decoded").await?, subject.metric("foldlog_log_syncs").await?);
    let (began, before) = (Instant::now(), subject.cpu()?);
    client.append(load::entries(0, 1)).await?;
    all_at(&subject, subject.head().await?.position).await?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    let cpu = subject.cpu()?.saturating_sub(before).as_secs_f64() * 1e3;
    let decoded = subject.metric("foldlog_query_records_decoded").await? - decoded;
    report.goal("IDLE-DECODE", Bound::Ratio(decoded, 1.0), None, "how often one event is decoded for all of them");
    let syncs = subject.metric("foldlog_log_syncs").await? - syncs;
    let what = format!("syncs until one event is in all of them, its own included; {took:.0} ms, {cpu:.0} ms of processor time");
    report.goal("IDLE-SYNCS", Bound::Ratio(syncs, 0.02 * to_f64(IDLE)), None, &what);
    subject.server.kill()
}

fn view(number: usize) -> String {
    format!("CREATE TABLE view_{number} AS SELECT account, COUNT(*) AS entries, SUM(amount) AS total FROM {TOPIC} GROUP BY account")
}

#[expect(clippy::cast_precision_loss, reason = "counts")]
const fn to_f64(count: usize) -> f64 {
    count as f64
}
