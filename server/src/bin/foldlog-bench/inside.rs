//! Goals of the log alone, in this process, without gRPC: one append after the other (G1), large groups (G10), and the bytes that an
//! event takes on disk (G28).

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use foldlog_log::{
    Append, Compression, EmbeddedLog, LogBackend as _, LogConfig, NewEvent, TopicKind, TopicName, TopicSettings, Write, clock::SystemClock,
    disk::RealDisk,
};
use prost::bytes::Bytes;

use crate::{
    bench::Bench,
    disk,
    load::{self, Measured, PAYLOAD, TOPIC, median},
    report::{Bound, Report},
    turns::Turns,
};

/// Goals of [`goals`].
pub const NAMES: [&str; 3] = ["G1", "G10", "G28"];
/// Bytes of a group, and the part of the device's own rate that is the goal.
const GROUPS: [(usize, f64); 2] = [(64 << 10, 0.8), (1 << 20, 0.7)];
/// Bytes of an event's payload in such groups.
const LARGE: usize = 1 << 10;
/// Appends of 100 events whose bytes are counted.
const COUNTED: u64 = 5_000;
const BATCH: u64 = 100;
/// Most bytes of an event besides payload, key and type.
const OVERHEAD: f64 = 24.0;
/// Most bytes of compressed JSON, as a part of the payload.
const COMPRESSED: f64 = 0.75;

/// Measures what is asked for.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    if report.wants_any(&["G1", "G10"]) {
        let folder = bench.folder.join("inside");
        let log = tokio::task::spawn_blocking(move || open(&folder)).await.context("opening the log failed")??;
        if report.wants("G1") {
            let turns = Turns::of(bench, report, async || one_by_one(&log, bench.time).await).await?;
            let also = Bound::Micros(turns.ours.p99, 2.0 * turns.f0.p99);
            let what = format!("p50 in process, decoded to durable; 1.2 x F0; p99 at most 2 x F0's; {}", turns.limits());
            report.goal("G1", Bound::Micros(turns.ours.p50, 1.2 * turns.f0.p50), Some(also), &what);
        }
        if report.wants("G10") {
            for (bytes, share) in GROUPS {
                groups(bench, &log, bytes, share, report).await?;
            }
        }
        log.stop();
    }
    if report.wants("G28") {
        bytes_on_disk(bench, report).await?;
    }
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

/// G10: appends of so many bytes, of which one is built while the one before is synced, against the device in turns.
async fn groups(bench: &Bench, log: &EmbeddedLog, bytes: usize, share: f64, report: &mut Report) -> anyhow::Result<()> {
    let (mut device, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..bench.repeats {
        device.push(disk::throughput(&bench.folder, bytes)?);
        ours.push(in_groups(log, bytes, bench.time).await?);
    }
    let (device, ours) = (median(device), median(ours));
    let what = format!(
        "bytes of payload in groups of {} KiB, each synced, in process; {:.0} % of the device's {:.0} MB/s, here {:.0} %",
        bytes >> 10,
        share * 100.0,
        device / 1e6,
        ours / device * 100.0
    );
    report.goal("G10", Bound::Rate(ours, share * device), None, &what);
    Ok(())
}

/// Bytes of payload a second.
async fn in_groups(log: &EmbeddedLog, bytes: usize, time: Duration) -> anyhow::Result<f64> {
    let topic: TopicName = TOPIC.parse()?;
    let event = NewEvent { kind: "Measured".into(), data: Bytes::from(vec![7; LARGE]), ..NewEvent::default() };
    let append = |number: u64| {
        let write =
            Write::Stream { topic: topic.clone(), stream: load::account(number).parse()?, events: vec![event.clone(); bytes / LARGE] };
        anyhow::Ok(log.append(Append { writes: vec![write], ..Append::default() })?)
    };
    let began = Instant::now();
    let (mut sent, mut waiting) = (1, append(0)?);
    while began.elapsed() < time {
        let next = append(sent)?;
        sent += 1;
        waiting.await?;
        waiting = next;
    }
    waiting.await?;
    #[expect(clippy::cast_precision_loss, reason = "a size")]
    Ok((sent as usize * (bytes / LARGE) * LARGE) as f64 / began.elapsed().as_secs_f64())
}

/// G28: what events take in segments, in batches of 100; raw, and JSON compressed.
async fn bytes_on_disk(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let folder = bench.folder.join("bytes");
    let config = LogConfig { untidied_bytes: 1 << 30, ..LogConfig::default() }.without_reserve();
    let random = || uuid::Uuid::new_v4().as_u128();
    let (log, mut stepper) = EmbeddedLog::open_stepped(Arc::new(RealDisk), Arc::new(SystemClock::new()), &folder, config, random)?;
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let named = format!("{compression:?}").to_lowercase();
        let topic: TopicName = named.parse()?;
        log.create_topic(topic.clone(), TopicSettings { compression, ..TopicSettings::new(TopicKind::Events, 1) })?;
        let before = log_bytes(&folder)?;
        let mut payload = 0;
        for number in 0..COUNTED {
            let request = load::entries(number, BATCH);
            let data = request.writes.into_iter().flat_map(|write| write.events).filter_map(|event| event.data);
            let data: Vec<Bytes> = match compression {
                Compression::None => data.map(|_| Bytes::from_static(PAYLOAD)).collect(),
                _ => data.collect(),
            };
            payload += data.iter().map(Bytes::len).sum::<usize>();
            let events = data.into_iter().map(|data| NewEvent { kind: "Measured".into(), data, ..NewEvent::default() }).collect();
            let write = Write::Stream { topic: topic.clone(), stream: load::account(number).parse()?, events };
            let answer = log.append(Append { writes: vec![write], ..Append::default() })?;
            stepper.commit()?;
            answer.await?;
        }
        stepper.tidy()?;
        #[expect(clippy::cast_precision_loss, reason = "sizes")]
        let (bytes, payload, events) = ((log_bytes(&folder)? - before) as f64, payload as f64, (COUNTED * BATCH) as f64);
        let each = bytes / events;
        match compression {
            Compression::None => {
                #[expect(clippy::cast_precision_loss, reason = "a length")]
                let least = payload / events + (load::account(0).len() + "Measured".len()) as f64;
                let what = format!("bytes of an event in .log and .runs, batches of 100; payload, key and type are {least:.0}");
                report.goal("G28", Bound::Ratio(each, least + OVERHEAD), None, &what);
            }
            _ => {
                let what = format!("bytes of an event over those of its payload, JSON of about 200 bytes compressed with {named}");
                report.goal("G28", Bound::Ratio(bytes / payload, COMPRESSED), None, &what);
            }
        }
    }
    Ok(())
}

/// Bytes of all `.log` and `.runs` below a folder.
fn log_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            bytes += log_bytes(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "log" || extension == "runs") {
            bytes += path.metadata()?.len();
        }
    }
    Ok(bytes)
}
