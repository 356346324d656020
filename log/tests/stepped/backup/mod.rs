//! Backups of a running log, and what is restored of them: whole or cut, after power cuts at any time, and never a part of an append.

mod compacted;
mod cut;
mod fault;
mod lives;
mod meanwhile;
mod syncs;
mod take;
mod topics;

use std::{collections::BTreeSet, ops::Range, path::Path, time::Duration};

use foldlog_log::{
    Append, EventQuery, Identity, LogBackend, LogConfig, LogError, NewEvent, NewRecord, Position, Precondition, QueryAbsent, ReadLimits,
    RequestId, RequestKey, Retention, Scope, Selection, Stepper, Timestamp, TopicKind, TopicSettings, Write,
    disk::Disk,
    restore::{GAP, Until},
    testing::{Fault, Random},
};

use super::room::{self, BACKUP, DATA, Folder, LONG, Log, NOW, Way, name};

const NEW: &str = "/new";

/// What was appended in one unit: its end, when, and the texts in it.
#[derive(Clone, Debug)]
struct Unit {
    end: Position,
    at: Timestamp,
    texts: Vec<String>,
}

fn world(seed: u64) -> Folder {
    let config = LogConfig { first_journal_file_bytes: 64 << 10, journal_file_bytes: 64 << 10, segment_bytes: 4096, ..room::config() };
    Folder::new(seed, config)
}

fn create(log: &Log) {
    log.log.create_topic(name("e"), TopicSettings::new(TopicKind::Events, 2)).unwrap();
    log.log.create_topic(name("r"), TopicSettings::new(TopicKind::Records, 2)).unwrap();
}

/// One unit over two topics and several partitions; every third one in the same millisecond as the one before.
fn append(log: &mut Log, number: u64) -> Unit {
    if !number.is_multiple_of(3) {
        log.clock.advance(Duration::from_millis(1));
    }
    let texts: Vec<_> = (0..4).map(|part| format!("{number}-{part}-{}", "x".repeat(200))).collect();
    let event = |text: &String| NewEvent { kind: "E".into(), data: text.clone().into(), ..NewEvent::default() };
    let record = |text: &String| NewRecord { value: Some(text.clone().into()), key: Some(text.clone().into()), ..NewRecord::default() };
    let stream = |stream: String, text| Write::Stream { topic: name("e"), stream: stream.parse().unwrap(), events: vec![event(text)] };
    let writes = vec![
        stream(format!("a{}", number % 5), &texts[0]),
        Write::Records { topic: name("r"), partition: None, records: vec![record(&texts[1]), record(&texts[2])] },
        stream(format!("b{}", number % 3), &texts[3]),
    ];
    let answer = log.append(Append { writes, identity: Some(identity(number)), ..Append::default() }).unwrap();
    Unit { end: answer.end, at: answer.recorded_at, texts }
}

fn append_all(log: &mut Log, numbers: Range<u64>) -> Vec<Unit> {
    let one = |number: u64| {
        if number.is_multiple_of(7) {
            log.stepper.tidy().unwrap();
        }
        append(log, number)
    };
    numbers.map(one).collect()
}

/// Everything that is there, in order.
fn read(log: &Log) -> Vec<String> {
    try_read(log).unwrap()
}

fn try_read(log: &Log) -> Result<Vec<String>, LogError> {
    let mut reader = log.log.reader(Selection::All(Position::default()))?;
    let mut texts = Vec::new();
    loop {
        let chunk = reader.read(log.log.head().position, ReadLimits::default())?;
        if chunk.runs.is_empty() {
            return Ok(texts);
        }
        for record in chunk.runs.iter().flat_map(|run| run.records()) {
            texts.extend(record?.value.map(|value| String::from_utf8(value.to_vec()).unwrap()));
        }
    }
}

fn identity(number: u64) -> Identity {
    let key = RequestKey { principal: "p".into(), id: RequestId::new(u128::from(number).to_le_bytes()) };
    Identity { key, digest: number.into(), first_attempt: None }
}

fn texts(units: &[Unit]) -> Vec<String> {
    units.iter().flat_map(|unit| unit.texts.clone()).collect()
}
