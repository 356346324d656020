//! Goals of a start: how soon a killed server takes appends again (RESTART, G24), and what it holds in memory for streams
//! (STREAMS) and for tags (TAGS).

use std::time::{Duration, Instant};

use anyhow::Context as _;
use foldlog_proto::v1::{AppendRequest, Event, Precondition, StreamState, Write, precondition, stream_state};

use crate::{
    bench::Bench,
    child,
    folders::{Filling, Shape, unused_streams},
    load::TOPIC,
    report::{Bound, Report},
};

/// Events in 1,000 streams before a start, and bytes of journal that are in no segment.
const EVENTS: u64 = 10_000_000;
const JOURNAL: u64 = 256 << 20;
/// Streams, and events with tags, between which memory is compared.
const FEW: u64 = 1_000_000;
const MANY: u64 = 5_000_000;
/// Tags of an event, each of its own kind.
const TAGS: u64 = 5;
/// Most that ten million keys (a tag, and it with its type) may take, in MiB: filters of ten bits a key, keys of pages, and what
/// tidy has not taken yet.
const TAGS_MEMORY: f64 = 64.0;

/// Goals of [`goals`].
pub const NAMES: [&str; 4] = ["RESTART", "G24", "STREAMS", "TAGS"];

/// Measures starts of foldlog over folders that are made for them.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    if report.wants_any(&["RESTART", "G24"]) {
        restart(bench, report).await?;
    }
    if report.wants("STREAMS") {
        streams(bench, report).await?;
    }
    if report.wants("TAGS") {
        tags(bench, report).await?;
    }
    Ok(())
}

async fn restart(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let folder = bench.folder.join("restart");
    let shape = Shape { streams: 1_000, tags: 0, distinct: 1 };
    let mut filling = Filling::open(&folder)?;
    filling.fill(&shape, 0, EVENTS).await?;
    let journal = filling.leave_in_journal(&shape, EVENTS, JOURNAL).await?;
    drop(filling);
    let killed = first_appends(bench, "restart", true).await?;
    // The first start has left it all to segments; this one finds next to nothing in the journal.
    let stopped = first_appends(bench, "restart", false).await?;
    let what = format!(
        "seconds from exec to a conditional append on each of 16 partitions, 10M events in 1,000 streams and {}MiB of journal in no \
         segment; {:.2} s after a start that left nothing there",
        journal >> 20,
        stopped.as_secs_f64()
    );
    report.goal("RESTART", Bound::Ratio(killed.as_secs_f64(), 2.0), None, &what);
    #[expect(clippy::cast_precision_loss, reason = "a size")]
    let gigabytes = journal as f64 / 1e9;
    let slope = killed.saturating_sub(stopped).as_secs_f64() / gigabytes;
    report.goal(
        "G24",
        Bound::Ratio(slope, 1.5),
        None,
        "seconds a gigabyte of journal in no segment, by the difference of these two starts",
    );
    Ok(())
}

/// Starts foldlog over a folder; tells how long it took from exec to a conditional append on each partition.
async fn first_appends(bench: &Bench, name: &str, is_first: bool) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut subject = bench.start(name, Vec::new()).await?;
    let mut client = child::event_log(subject.channel.clone());
    for stream in unused_streams() {
        let state = StreamState {
            stream: stream.clone(),
            expect: Some(if is_first { stream_state::Expect::Absent(stream_state::Absent {}) } else { stream_state::Expect::Version(1) }),
            ..StreamState::default()
        };
        let event = Event { r#type: "Measured".to_owned(), ..Event::default() };
        let request = AppendRequest {
            topic: TOPIC.to_owned(),
            writes: vec![Write { stream, events: vec![event], ..Write::default() }],
            preconditions: vec![Precondition { kind: Some(precondition::Kind::Stream(state)) }],
            ..AppendRequest::default()
        };
        client.append(request).await.context("an append failed")?;
    }
    let took = began.elapsed();
    subject.at_rest().await?;
    subject.server.kill()?;
    Ok(took)
}

/// What a million streams take in memory, as the slope between two numbers of them.
async fn streams(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let folder = bench.folder.join("streams");
    let shape = Shape { streams: MANY, tags: 0, distinct: 1 };
    let mut memory = Vec::new();
    for (from, to) in [(0, FEW), (FEW, MANY)] {
        Filling::open(&folder)?.fill(&shape, from, to).await?;
        memory.push(resident(bench, "streams").await?);
    }
    let [few, many] = memory.as_slice() else { anyhow::bail!("two figures were taken") };
    let slope = (many - few) / 4.0;
    let what = format!("memory of a million streams, from {few:.0}MiB with 1M to {many:.0}MiB with 5M, after a start");
    report.goal("STREAMS", Bound::Mebibytes(slope, 200e6 / f64::from(1 << 20)), None, &what);
    Ok(())
}

/// What five million different tags take in memory, a million of each kind.
async fn tags(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let folder = bench.folder.join("tags");
    let shape = Shape { streams: 1_000, tags: 0, distinct: 1 };
    Filling::open(&folder)?.fill(&shape, 0, FEW).await?;
    let bare = resident(bench, "tags").await?;
    let shape = Shape { tags: TAGS, distinct: FEW, ..shape };
    Filling::open(&folder)?.fill(&shape, FEW, 2 * FEW).await?;
    let tagged = resident(bench, "tags").await?;
    let what = format!("memory of 1M events with {TAGS} tags each, all different, from {bare:.0}MiB to {tagged:.0}MiB, after a start");
    report.goal("TAGS", Bound::Mebibytes(tagged - bare, TAGS_MEMORY), None, &what);
    Ok(())
}

/// Memory of a server that has just started over a folder and come to rest, in MiB.
#[expect(clippy::cast_precision_loss, reason = "a size")]
async fn resident(bench: &Bench, name: &str) -> anyhow::Result<f64> {
    let mut subject = bench.start(name, Vec::new()).await?;
    subject.at_rest().await?;
    let memory = subject.memory()?;
    subject.server.kill()?;
    Ok(memory as f64 / f64::from(1 << 20))
}
