//! What finding events by type and tag costs: appends with none, one and five tags, a start, memory, and reads of rare and frequent tags.
//!
//! `cargo run --release -p foldlog-log --example postings [EVENTS] [FOLDER]`, on a machine that does nothing else. Prints figures and
//! judges none.
#![expect(clippy::disallowed_methods, reason = "it measures with the time that passes")]

use std::{
    collections::VecDeque,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use foldlog_log::{
    Append, AppendFuture, EmbeddedLog, EventQuery, LogBackend as _, LogConfig, LogError, LogReader, NewEvent, Position, QueryItem,
    ReadLimits, Selection, Tag, TopicKind, TopicName, TopicSettings, Write,
    clock::SystemClock,
    disk::{Disk as _, Entry, RealDisk},
};

const A_UNIT: u64 = 100;
const IN_FLIGHT: usize = 64;
const STREAMS: u64 = 1000;

/// How many events share a tag: one in so many has it.
const SHARES: [u64; 7] = [2, 20, 200, 1000, 5000, 50_000, 500_000];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let events: u64 = arguments.next().map_or(Ok(1_000_000), |given| given.parse())?;
    let folder = arguments.next().unwrap_or_else(|| "postings-measured".to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut plain = Duration::ZERO;
    for tags in [0, 1, 5] {
        let folder = Path::new(&folder).join(tags.to_string());
        let log = open(&folder)?;
        let began = Instant::now();
        runtime.block_on(fill(&log, events, |number| (0..tags).map(|place| tag(format!("own{place}-{number}"))).collect()))?;
        let took = began.elapsed();
        if tags == 0 {
            plain = took;
        }
        log.stop();
        drop(log);
        let began = Instant::now();
        let log = open(&folder)?;
        let (files, bytes) = postings(&folder)?;
        println!(
            "{tags} tags of their own: {:.0} events/s, {:.2} of none; start {:?}; {files} files of postings, {} bytes an event",
            events as f64 / took.as_secs_f64(),
            plain.as_secs_f64() / took.as_secs_f64(),
            began.elapsed(),
            bytes / events,
        );
        log.stop();
    }
    let folder = Path::new(&folder).join("shared");
    let log = open(&folder)?;
    runtime.block_on(fill(&log, events, |number| {
        let shared = SHARES.iter().filter(|share| number.is_multiple_of(**share)).map(|share| format!("one-in-{share}"));
        shared.chain([["even", "odd"][usize::from(number % 2 == 1)].to_owned()]).map(tag).collect()
    }))?;
    // What tidy has not come to yet is in memory.
    log.stop();
    drop(log);
    for near in [0, 128, u64::MAX] {
        let log = open_with(&folder, LogConfig { near_positions: near, ..LogConfig::default().without_reserve() })?;
        let tags = SHARES.iter().map(|share| vec![format!("one-in-{share}")]).chain([vec!["even".to_owned(), "odd".to_owned()]]);
        for tags in tags {
            let named = tags.join(" and ");
            let item = QueryItem { types: Vec::new(), tags: tags.into_iter().map(tag).collect() };
            let all = Selection::Topics(vec![topic()?], Position::default());
            let began = Instant::now();
            let found = count(&log, log.filtered_reader(all, EventQuery::Items(vec![item]))?)?;
            println!("{named}, near {near}: {found} in {:?}, {:?} each", began.elapsed(), began.elapsed() / found.max(1));
        }
        log.stop();
    }
    Ok(())
}

fn open(folder: &Path) -> Result<EmbeddedLog, LogError> {
    open_with(folder, LogConfig::default().without_reserve())
}

fn open_with(folder: &Path, config: LogConfig) -> Result<EmbeddedLog, LogError> {
    let log = EmbeddedLog::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), folder, config)?;
    let settings = TopicSettings::new(TopicKind::Events, 16);
    log.create_topic(topic()?, settings)?;
    Ok(log)
}

fn topic() -> Result<TopicName, LogError> {
    "measured".parse().map_err(|_| LogError::Invalid { field: "topic".into(), reason: "it is no name".into() })
}

fn tag(text: String) -> Tag {
    text.parse().expect("it is short and has no control characters")
}

async fn fill(log: &EmbeddedLog, events: u64, tags: impl Fn(u64) -> Vec<Tag>) -> Result<(), Box<dyn std::error::Error>> {
    let mut waiting: VecDeque<AppendFuture> = VecDeque::new();
    for first in (0..events).step_by(usize::try_from(A_UNIT)?) {
        let event = |number| NewEvent { kind: "Measured".into(), data: vec![b'x'; 100].into(), tags: tags(number), ..NewEvent::default() };
        let stream = format!("stream-{}", first / A_UNIT % STREAMS).parse()?;
        let write = Write::Stream { topic: topic()?, stream, events: (first..first + A_UNIT).map(event).collect() };
        if waiting.len() >= IN_FLIGHT
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.await?;
        }
        waiting.push_back(log.append(Append { writes: vec![write], ..Append::default() })?);
    }
    for answer in waiting {
        answer.await?;
    }
    Ok(())
}

fn count(log: &EmbeddedLog, mut reader: Box<dyn LogReader>) -> Result<u32, LogError> {
    let (until, mut found) = (log.head().position, 0);
    loop {
        let chunk = reader.read(until, ReadLimits::default())?;
        found += chunk.runs.iter().map(|run| run.count).sum::<u32>();
        if chunk.runs.is_empty() && chunk.scanned_to >= until {
            return Ok(found);
        }
    }
}

/// Number and bytes of the files of postings.
fn postings(folder: &Path) -> std::io::Result<(usize, u64)> {
    let folder = folder.join("postings");
    let files = RealDisk.list(&folder)?;
    let length = |file: &Entry| RealDisk.open(&folder.join(&file.name))?.len();
    Ok((files.len(), files.iter().map(length).sum::<std::io::Result<u64>>()?))
}
