//! Goal of the log alone, in this process, without gRPC: G1.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use foldlog_log::{
    Append, EmbeddedLog, LogBackend as _, LogConfig, NewEvent, TopicKind, TopicName, TopicSettings, Write, clock::SystemClock,
    disk::RealDisk,
};
use prost::bytes::Bytes;

use crate::{
    bench::Bench,
    load::{self, Measured, PAYLOAD, TOPIC},
    report::{Bound, Report},
    turns::Turns,
};

/// G1: one append after the other.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let folder = bench.folder.join("inside");
    let log = tokio::task::spawn_blocking(move || open(&folder)).await.context("opening the log failed")??;
    let turns = Turns::of(bench, report, async || one_by_one(&log, bench.time).await).await?;
    let also = Bound::Micros(turns.ours.p99, 2.0 * turns.f0.p99);
    let what = format!("p50 in process, decoded to durable; 1.2 x F0; p99 at most 2 x F0's; {}", turns.limits());
    report.goal("G1", Bound::Micros(turns.ours.p50, 1.2 * turns.f0.p50), Some(also), &what);
    Ok(())
}

fn open(folder: &Path) -> anyhow::Result<EmbeddedLog> {
    let log = EmbeddedLog::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), folder, LogConfig::default().without_reserve())?;
    let settings = TopicSettings::new(TopicKind::Events, TopicSettings::DEFAULT_PARTITIONS);
    log.create_topic(TOPIC.parse()?, settings)?;
    Ok(log)
}

async fn one_by_one(log: &EmbeddedLog, time: Duration) -> anyhow::Result<Measured> {
    let topic: TopicName = TOPIC.parse()?;
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < time {
        let event = NewEvent { kind: "Measured".into(), data: Bytes::from_static(PAYLOAD), ..NewEvent::default() };
        let stream = load::account(times.len() as u64).parse()?;
        let append = Append { writes: vec![Write::Stream { topic: topic.clone(), stream, events: vec![event] }], ..Append::default() };
        let sent = Instant::now();
        log.append(append)?.await?;
        times.push(sent.elapsed());
    }
    Measured::new(times, began.elapsed())
}
